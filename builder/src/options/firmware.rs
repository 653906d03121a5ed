//! Yields the firmware of a QEMU machine, from the command line.

use std::path::PathBuf;

use proofmark::flow::measure;

/// The firmware of a QEMU machine, where it differs from the one in the image's lock.
#[derive(Debug, clap::Args)]
pub struct FirmwareFiles {
    /// Firmware of QEMU machines: variables and code in one file, or code alone [default: the one in the image's lock].
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,
    /// The variables, for firmware whose file holds code alone, such as OVMF_VARS_4M.fd.
    #[arg(long, value_name = "FILE", requires = "firmware")]
    variables: Option<PathBuf>,
}

impl FirmwareFiles {
    /// The files that were given.
    pub fn files(&self) -> measure::FirmwareFiles<'_> {
        measure::FirmwareFiles { firmware: self.firmware.as_deref(), variables: self.variables.as_deref() }
    }
}
