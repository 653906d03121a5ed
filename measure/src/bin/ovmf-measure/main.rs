//! Prints reference values of a measured boot, computed from firmware, UKI or disk files.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::num::{NonZeroU8, NonZeroU16};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use ovmf_measure::acpi::Vendor;
use ovmf_measure::boot::{Code, Plan};
use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::event::{Event, Expected, Register};
use ovmf_measure::firmware::{self, Firmware};
use ovmf_measure::known::{FIRMWARE, FirmwareFile, PLATFORMS};
use ovmf_measure::mrtd::{Order, mrtd};
use ovmf_measure::platform::PlatformFile;
use ovmf_measure::reference::RegisterKind;
use ovmf_measure::shape::{self, Before, Hashed, Options, Start};
use ovmf_measure::volume::Profile;

use files::{MOST_FIRMWARE, MOST_UKI};

/// Reference values of a measured boot: bytes in, digests out.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prints MRTD of a firmware image
    Mrtd {
        /// The image: variables and code
        firmware: PathBuf,
        /// For VMMs that add all pages of a section before its content (Intel's and Ubuntu's QEMU 8)
        #[arg(long)]
        two_pass: bool,
    },
    /// Prints the properties of firmware that its events depend on, as an entry for platforms/firmware.toml
    Profile {
        /// The image
        firmware: PathBuf,
    },
    /// Prints all events and registers of a boot
    Boot(Box<Boot>),
}

#[derive(Debug, clap::Args)]
struct Boot {
    /// qemu-tdx, qemu-tpm, gcp-c3 or alicloud-tdx
    #[arg(long, value_name = "NAME", value_parser = shape::Name::from_str)]
    platform: shape::Name,
    /// The unified kernel image [default: the boot program in the system partition of --disk]
    #[arg(long, required_unless_present = "disk")]
    uki: Option<PathBuf>,
    /// The disk to boot; without it, there is no partition table event
    #[arg(long)]
    disk: Option<PathBuf>,
    /// The firmware, for qemu-tdx and qemu-tpm: variables and code in one file, or code only
    #[arg(long)]
    firmware: Option<PathBuf>,
    /// Variables: for firmware with code only, or to replace the firmware's own
    #[arg(long)]
    variables: Option<PathBuf>,
    /// Memory size, such as 512M or 4G [default: 4G; 16G for gcp-c3]
    #[arg(long, value_name = "SIZE", value_parser = files::memory)]
    memory: Option<u64>,
    /// Number of processors, for QEMU [default: 2]
    #[arg(long, value_name = "NUMBER")]
    vcpus: Option<NonZeroU16>,
    /// QEMU's version [default: 10.0]
    #[arg(long, value_name = "VERSION")]
    qemu: Option<String>,
    /// Number of virtio devices on QEMU's root bus, including the disk [default: 3]
    #[arg(long, value_name = "NUMBER")]
    devices: Option<NonZeroU8>,
    /// Width of the guest's physical addresses in bits, for QEMU [default: 46; 40 for qemu-tpm]
    #[arg(long, value_name = "NUMBER")]
    address_bits: Option<u8>,
    /// The guest's processor vendor, intel or amd, for QEMU [default: intel; amd for qemu-tpm]
    #[arg(long, value_name = "VENDOR", value_parser = Vendor::from_str)]
    cpu_vendor: Option<Vendor>,
    /// QEMU boots the UKI with -kernel instead of from the disk
    #[arg(long)]
    direct: bool,
    /// Hash algorithm of the TPM's bank; RTMRs are SHA-384
    #[arg(long, default_value = "sha384")]
    bank: Bank,
    /// For VMMs that add all pages of a section before its content
    #[arg(long)]
    two_pass: bool,
    /// Print what each register depends on
    #[arg(long)]
    explain: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Boot {
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bank {
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        // A reader such as `head` may stop early.
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                eprintln!("error: cannot write to standard output: {error}");
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        },
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<String> {
    match arguments.verb {
        Verb::Mrtd { firmware, two_pass } => {
            let bytes = files::read(&firmware, MOST_FIRMWARE)?;
            let image = Firmware::read(&bytes).with_context(|| firmware.display().to_string())?;
            Ok(format!("{}\n", mrtd(&image, order(two_pass))))
        }
        Verb::Profile { firmware } => {
            Ok(toml::to_string(&Profile::read(&files::read(&firmware, MOST_FIRMWARE)?)?)?)
        }
        Verb::Boot(arguments) => boot(&arguments),
    }
}

fn order(two_pass: bool) -> Order {
    if two_pass { Order::TwoPass } else { Order::SinglePass }
}

fn boot(arguments: &Boot) -> Result<String> {
    let name = arguments.platform;
    let algorithm = match (name.kind(), arguments.bank) {
        (RegisterKind::Tpm, Bank::Sha256) => Algorithm::Sha256,
        (_, Bank::Sha384) => Algorithm::Sha384,
        (RegisterKind::Tdx, Bank::Sha256) => bail!("RTMRs are SHA-384: --bank sha256 is for qemu-tpm"),
    };
    let disk = arguments.disk.as_deref().map(files::Disk::read).transpose()?;
    let uki = match (&arguments.uki, &disk) {
        (Some(path), _) => files::read(path, MOST_UKI)?,
        (None, Some(disk)) => disk.boot_program()?,
        (None, None) => bail!("expected --uki or --disk"),
    };
    let plan = Plan::read(&uki, disk.as_ref().map(files::Disk::table))?;
    let image = plan.hash(algorithm)?;
    let shape = arguments.options().shape(name)?;
    let file = PLATFORMS.iter().find(|(known, _)| *known == name.as_str());
    let platform = match file {
        Some((name, text)) => {
            let file: PlatformFile = toml::from_str(text).with_context(|| format!("platform file {name}"))?;
            shape::reference(arguments.platform, &shape, &Before::File(&file), &image)?
        }
        None => {
            let path = arguments.firmware.as_ref().context("expected --firmware for QEMU")?;
            let variables =
                arguments.variables.as_deref().map(|path| files::read(path, MOST_FIRMWARE)).transpose()?;
            let file = files::read(path, MOST_FIRMWARE)?;
            let bytes = Firmware::joined(&file, variables.as_deref()).map_err(|error| {
                let hint = match error {
                    firmware::Error::CodeAlone { .. } => ": give --variables too",
                    _ => "",
                };
                anyhow::Error::new(error).context(format!("{}{hint}", path.display()))
            })?;
            let firmware = Firmware::read_for(&bytes, name.kind() == RegisterKind::Tdx)?;
            let sha256 = Algorithm::Sha256.of(&bytes);
            let known: FirmwareFile = toml::from_str(FIRMWARE).context("the file of known firmware")?;
            let known = known.find(&sha256).cloned();
            let pei: Vec<Digest> =
                known.iter().flat_map(|known| &known.pei).map(|seen| seen.digest).collect();
            let profile = match known {
                Some(known) => known.profile,
                None => Profile::read(&bytes)?,
            };
            let code = Code::read(algorithm, &profile, &firmware, variables.as_deref(), &pei)?;
            let order = order(arguments.two_pass);
            let mrtd = match name.kind() {
                RegisterKind::Tdx => vec![(order, mrtd(&firmware, order))],
                RegisterKind::Tpm => Vec::new(),
            };
            let hashed = Hashed { firmware: &firmware, code: &code, sha256, mrtd: &mrtd };
            shape::reference(name, &shape, &Before::Firmware(hashed), &image)?
        }
    };
    let mut registers = platform.registers;
    if let [only] = platform.mrtd.as_slice() {
        registers.insert(Register::Mrtd, only.digest);
    }
    Ok(match arguments.json {
        true => format!("{:#}\n", json(platform.kind, &registers, &platform.events)),
        false => text(platform.kind, &registers, &platform.events, arguments.explain),
    })
}

fn text(
    kind: RegisterKind,
    registers: &BTreeMap<Register, Digest>,
    events: &[Event],
    explain: bool,
) -> String {
    let mut all: BTreeMap<Register, Vec<&Event>> = BTreeMap::new();
    for event in events {
        if let Some(register) = event.register(kind) {
            all.entry(register).or_default().push(event);
        }
    }
    for register in registers.keys() {
        all.entry(*register).or_default();
    }
    let mut lines = Vec::new();
    for (register, events) in all {
        let value = registers.get(&register).map_or("platform-given".to_owned(), ToString::to_string);
        lines.push(format!("{register}  {value}"));
        if explain {
            let inputs: BTreeSet<&str> = events.iter().map(|event| event.source.file.as_str()).collect();
            let inputs: Vec<&str> = inputs.into_iter().filter(|input| *input != "rule").collect();
            let inputs = match (register, inputs.as_slice()) {
                (Register::Mrtd, _) => "firmware, and the order in which the VMM adds its pages".to_owned(),
                (_, []) => "constants only".to_owned(),
                (_, inputs) => inputs.join(", "),
            };
            lines.push(format!("  depends on {inputs}"));
        }
        for event in events {
            lines.push(format!("  {}  {}  {}", event.kind, event.subject, event.expected));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn json(kind: RegisterKind, registers: &BTreeMap<Register, Digest>, events: &[Event]) -> serde_json::Value {
    let mut values = serde_json::Map::new();
    let mut pcrs = serde_json::Map::new();
    for (register, digest) in registers {
        match register {
            Register::Pcr(index) => drop(pcrs.insert(index.to_string(), digest.to_string().into())),
            _ => drop(values.insert(register.to_string(), digest.to_string().into())),
        }
    }
    if !pcrs.is_empty() {
        values.insert("pcr".to_owned(), pcrs.into());
    }
    let events: Vec<serde_json::Value> = events
        .iter()
        .map(|event| {
            let digest = match &event.expected {
                Expected::Exact(digest) => serde_json::json!(digest),
                Expected::PlatformGiven(_) => serde_json::Value::Null,
            };
            serde_json::json!({
                "register": event.register(kind),
                "type": event.kind,
                "digest": digest,
                "expected": event.expected,
                "subject": event.subject,
                "source": event.source,
            })
        })
        .collect();
    serde_json::json!({ "registers": values, "events": events })
}
