//! `proofmark measure`.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU16};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ovmf_measure::acpi::Vendor;
use ovmf_measure::digest::Algorithm;
use ovmf_measure::mrtd::Order;
use ovmf_measure::reference::{self, RegisterKind};
use ovmf_measure::shape::{self, Name, Options, Start};
use proofmark::claim::file;
use proofmark::claim::reference::{self as values, Detail};
use proofmark::flow::measure::{Place, document, hashed, machines};
use proofmark::host::output;
use proofmark::session::Session;

use crate::failure::hinted;
use crate::format::Format;
use crate::options::firmware::FirmwareFiles;

/// Computes the registers and events of a machine that booted an image. Without --platform: those of every machine
/// that the image's own reference-values.json lists.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A folder that `proofmark build` wrote, or a raw disk.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The machine: qemu-tdx, qemu-tpm, gcp-c3 or alicloud-tdx.
    #[arg(long, value_name = "NAME", value_parser = Name::from_str)]
    platform: Option<Name>,
    #[command(flatten)]
    firmware: FirmwareFiles,
    /// Memory, such as 512M or 4G.
    #[arg(long, value_name = "SIZE", requires = "platform", value_parser = memory)]
    memory: Option<u64>,
    /// Processors of a QEMU machine [default: 2].
    #[arg(long, value_name = "NUMBER", requires = "platform")]
    vcpus: Option<NonZeroU16>,
    /// Version of QEMU [default: 10.0].
    #[arg(long, value_name = "VERSION", requires = "platform")]
    qemu: Option<String>,
    /// Virtio devices of a QEMU machine: disk, network card, entropy source, and further ones [default: 3].
    #[arg(long, value_name = "NUMBER", requires = "platform")]
    devices: Option<NonZeroU8>,
    /// Bits of the guest's physical addresses [default: 46; 40 for qemu-tpm].
    #[arg(long, value_name = "NUMBER", requires = "platform")]
    address_bits: Option<u8>,
    /// Vendor of the guest's processor [default: intel; amd, as QEMU emulates it, for qemu-tpm].
    #[arg(long, requires = "platform", value_parser = vendor())]
    cpu_vendor: Option<Vendor>,
    /// The machine starts image.efi with QEMU's -kernel, not from the disk.
    #[arg(long, requires = "platform")]
    direct: bool,
    /// The TPM's bank.
    #[arg(long, value_enum, default_value_t = Bank::Sha384)]
    bank: Bank,
    /// MRTD for VMMs that add all pages of a section before its content, such as QEMU 8 of Intel and Ubuntu.
    #[arg(long)]
    two_pass: bool,
    /// Print what each register depends on, and each event with its source.
    #[arg(long)]
    explain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bank {
    Sha256,
    Sha384,
}

fn vendor() -> impl TypedValueParser<Value = Vendor> {
    PossibleValuesParser::new(["intel", "amd"]).try_map(|text| text.parse::<Vendor>())
}

fn memory(text: &str) -> Result<u64, String> {
    shape::bytes(text).ok_or_else(|| format!("expected a size such as 512M or 4G, found {text:?}"))
}

impl Arguments {
    /// Returns the machine's options, as they were given.
    fn options(&self) -> Options {
        Options {
            memory: self.memory,
            vcpus: self.vcpus,
            qemu: self.qemu.clone(),
            devices: self.devices,
            address_bits: self.address_bits,
            vendor: self.cpu_vendor,
            start: self.direct.then_some(Start::Kernel),
        }
    }
}

/// Measures an image.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let place = Place::find(&arguments.image)?;
    let machines = match (arguments.platform, &place.folder) {
        (Some(name), _) => vec![(name, arguments.options().shape(name)?)],
        (None, Some(folder)) if folder.join(file::VALUES).is_file() => {
            machines(&document(&folder.join(file::VALUES))?)?
        }
        _ => {
            let message = "no machine is named, and the image has no reference-values.json that lists some";
            return Err(hinted(message, "name one, such as `--platform qemu-tdx --memory 4G`"));
        }
    };
    // The document has both orders; here, one is printed.
    let order = if arguments.two_pass { Order::TwoPass } else { Order::SinglePass };
    let firmware = || place.firmware(&machines, arguments.firmware.files(), session);
    let mut all = hashed(&place, &machines, &[order], firmware, |_, hashed| Ok(hashed.platforms()?))?;
    let bank = match arguments.bank {
        Bank::Sha256 => Algorithm::Sha256,
        Bank::Sha384 => Algorithm::Sha384,
    };
    all.retain(|platform| platform.kind == RegisterKind::Tdx || platform.algorithm == bank);
    let detail = if arguments.explain { Detail::Explained } else { Detail::Values };
    match format {
        Format::Text => {
            let texts: Vec<String> = all.iter().map(|platform| values::text(platform, detail)).collect();
            output::print(&texts.join("\n"))?;
        }
        Format::Json => {
            let one = |platform: &reference::Platform| {
                let words: BTreeMap<&str, &str> =
                    platform.shape.iter().map(|(word, value)| (word.as_str(), value.as_str())).collect();
                serde_json::json!({
                    "platform": platform.name,
                    "algorithm": platform.algorithm,
                    "shape": words,
                    "mrtd": platform.mrtd,
                    "registers": values::registers_json(platform),
                    "events": values::events_json(platform),
                })
            };
            let document = match (arguments.platform, all.as_slice()) {
                (Some(_), [only]) => one(only),
                (_, platforms) => {
                    serde_json::json!({ "platforms": platforms.iter().map(one).collect::<Vec<_>>() })
                }
            };
            output::print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
