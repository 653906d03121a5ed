//! The firmware that a machine of QEMU has.

use std::path::PathBuf;

use proofmark::flow::measure;

/// The firmware that a machine of QEMU has, where it is not the one in the image's lock.
#[derive(Debug, clap::Args)]
pub struct FirmwareFiles {
    /// Firmware of QEMU's machines: variables and code in one file, or code alone [default: the one in the image's lock].
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,
    /// The variables of firmware whose file is code alone, as OVMF_VARS_4M.fd.
    #[arg(long, value_name = "FILE", requires = "firmware")]
    variables: Option<PathBuf>,
}

impl FirmwareFiles {
    /// The files that were named.
    pub fn files(&self) -> measure::FirmwareFiles<'_> {
        measure::FirmwareFiles { firmware: self.firmware.as_deref(), variables: self.variables.as_deref() }
    }
}
