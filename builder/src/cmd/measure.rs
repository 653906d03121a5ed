//! `proofmark measure`.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU16};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context;
use ovmf_measure::acpi::Vendor;
use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::mrtd::Order;
use ovmf_measure::reference::{self, Reference, RegisterKind};
use ovmf_measure::shape::{self, Name, Shape, Start};
use ovmf_measure::stub::Uki;
use proofmark::claim::file;
use proofmark::claim::manifest::Manifest;
use proofmark::claim::reference::{self as values, Detail, Firmware, Hashed};
use proofmark::host::fetch::Fetcher;
use proofmark::host::firmware::{self, Derived};
use proofmark::host::output;
use proofmark::host::pages::Pages;
use proofmark::host::raw_disk::RawDisk;
use proofmark::lock::Lock;

use crate::cli::{Format, Session};
use crate::failure::hinted;

/// Computes the registers and events that a machine has after it booted an image. Without --platform: those of every
/// machine that the image's own reference-values.json lists.
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
    /// Memory, as 512M or 4G.
    #[arg(long, value_name = "SIZE", requires = "platform", value_parser = memory)]
    memory: Option<u64>,
    /// Processors, of QEMU's machines [default: 2].
    #[arg(long, value_name = "NUMBER", requires = "platform")]
    vcpus: Option<NonZeroU16>,
    /// Version of QEMU [default: 10.0].
    #[arg(long, value_name = "VERSION", requires = "platform")]
    qemu: Option<String>,
    /// Virtio devices of QEMU's machine: disk, network card, entropy source, and further ones [default: 3].
    #[arg(long, value_name = "NUMBER", requires = "platform")]
    devices: Option<NonZeroU8>,
    /// Bits of the guest's physical addresses [default: 46; 40 for qemu-tpm].
    #[arg(long, value_name = "NUMBER", requires = "platform")]
    address_bits: Option<u8>,
    /// Whose processor the guest sees [default: intel; amd, as QEMU emulates it, for qemu-tpm].
    #[arg(long, requires = "platform")]
    vendor: Option<Processor>,
    /// The machine starts image.efi as QEMU's -kernel, rather than from the disk.
    #[arg(long, requires = "platform")]
    direct: bool,
    /// The TPM's bank.
    #[arg(long, value_enum, default_value_t = Bank::Sha384)]
    bank: Bank,
    /// MRTD for VMMs that add all pages of a section before its content, as QEMU 8 of Intel and Ubuntu.
    #[arg(long)]
    two_pass: bool,
    /// Print for each register what it depends on, and each event with its source.
    #[arg(long)]
    explain: bool,
}

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Processor {
    Intel,
    Amd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bank {
    Sha256,
    Sha384,
}

fn memory(text: &str) -> Result<u64, String> {
    shape::bytes(text).ok_or_else(|| format!("expected a size as 512M or 4G, found {text:?}"))
}

/// Where an image's files are.
pub struct Place {
    /// Its folder; none for a raw disk.
    pub folder: Option<PathBuf>,
    disk: PathBuf,
}

/// An image, as measuring and auditing need it.
pub struct Opened {
    /// The disk.
    pub disk: RawDisk,
    /// The program that firmware starts.
    pub uki: Pages,
    /// What it is called, as its os-release says.
    pub image: reference::Image,
}

/// Finds a folder's or a raw disk's files.
pub fn place(path: &Path) -> anyhow::Result<Place> {
    let folder = path.is_dir().then(|| path.to_owned());
    let disk = match &folder {
        Some(folder) => folder.join(file::DISK),
        None => path.to_owned(),
    };
    if !disk.is_file() {
        let message = format!("{} is no image: there is no {}", path.display(), disk.display());
        return Err(hinted(
            message,
            "name a folder that `proofmark build` wrote, as out/minimal-1, or a raw disk",
        ));
    }
    Ok(Place { folder, disk })
}

/// Reads of an image what is measured.
pub fn open(place: &Place) -> anyhow::Result<Opened> {
    let disk = RawDisk::open(&place.disk)?;
    let uki = disk.boot_program()?;
    let read = Uki::read(&uki).context("the program that the disk boots is no UKI")?;
    let release = read.section(".osrel").map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned());
    let release = release.unwrap_or_default();
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    let image = reference::Image {
        name: field("IMAGE_ID"),
        version: field("IMAGE_VERSION"),
        // Whatever does not say that it is for production is not.
        profile: match field("PROOFMARK_PROFILE").as_str() {
            "release" => reference::Profile::Release,
            _ => reference::Profile::Debug,
        },
    };
    Ok(Opened { disk, uki, image })
}

impl Place {
    /// The firmware, where one of the machines is QEMU's: the given file, or what the folder's lock names.
    pub fn firmware(
        &self,
        machines: &[(Name, Shape)],
        given: &FirmwareFiles,
        session: &Session,
    ) -> anyhow::Result<Option<Firmware>> {
        if !machines.iter().any(|(name, _)| name.is_qemu()) {
            return Ok(None);
        }
        if let Some(path) = &given.firmware {
            return Ok(Some(firmware::given(&session.store, path, given.variables.as_deref())?));
        }
        let hint = "give the firmware by --firmware FILE";
        let lock = self.folder.as_ref().map(|folder| folder.join(file::LOCK)).filter(|path| path.is_file());
        let lock = lock.ok_or_else(|| {
            hinted("machines of QEMU need firmware, and there is no lock that names one", hint)
        })?;
        let text =
            std::fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
        let parsed = Lock::parse(&text, &lock)?;
        let deb = parsed
            .firmware
            .as_ref()
            .ok_or_else(|| hinted(format!("{} names no firmware", lock.display()), hint))?;
        let blob = parsed.blob_of_deb(deb).context("the lock's firmware is in no archive")?;
        Fetcher::new(&session.store, &session.mirrors, session.network).ensure(&[blob], session.progress)?;
        Ok(Some(firmware::locked(&session.store, &parsed, Derived::Taken)?))
    }

    /// The digest of the disk that its manifest names; none where there is no manifest.
    pub fn disk_digest(&self) -> anyhow::Result<Option<Digest>> {
        if let Some(folder) = &self.folder
            && let Ok(bytes) = std::fs::read(folder.join(file::MANIFEST))
            && let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes)
            && let Some(output) = manifest.outputs.get(file::DISK)
        {
            return Ok(Some(output.sha256.parse()?));
        }
        Ok(None)
    }
}

impl Opened {
    /// What its reference values are computed from.
    pub fn inputs<'a>(&'a self, machines: &'a [(Name, Shape)], orders: &'a [Order]) -> values::Inputs<'a> {
        let (image, disk_head) = (self.image.clone(), self.disk.head());
        values::Inputs { image, uki: &self.uki, disk_head, machines, orders }
    }
}

/// Opens and hashes an image for some machines; the firmware is looked up meanwhile.
pub fn hashed<T>(
    place: &Place,
    machines: &[(Name, Shape)],
    orders: &[Order],
    firmware: impl FnOnce() -> anyhow::Result<Option<Firmware>> + Send,
    then: impl FnOnce(&Opened, &Hashed<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        // To read the lock and the firmware takes as long as to read the image.
        let firmware = scope.spawn(firmware);
        let firmware = || firmware.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let opened = open(place)?;
        then(&opened, &values::hash(&opened.inputs(machines, orders), firmware)?)
    })
}

/// The machines of a document, each once: a TPM has an entry for each bank.
pub fn machines(document: &Reference) -> anyhow::Result<Vec<(Name, Shape)>> {
    let mut all: Vec<(Name, Shape)> = Vec::new();
    for platform in &document.platforms {
        let name: Name = platform.name.parse()?;
        let machine = (name, Shape::from_words(name, &platform.shape)?);
        if !all.contains(&machine) {
            all.push(machine);
        }
    }
    Ok(all)
}

/// Reads a document of reference values.
pub fn document(path: &Path) -> anyhow::Result<Reference> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", path.display()))
}

fn asked_for(name: Name, arguments: &Arguments) -> Shape {
    let usual = Shape::usual(name);
    Shape {
        memory: arguments.memory.unwrap_or(usual.memory),
        vcpus: arguments.vcpus.unwrap_or(usual.vcpus),
        qemu: arguments.qemu.clone().unwrap_or(usual.qemu),
        devices: arguments.devices.unwrap_or(usual.devices),
        address_bits: arguments.address_bits.unwrap_or(usual.address_bits),
        vendor: match arguments.vendor {
            Some(Processor::Intel) => Vendor::Intel,
            Some(Processor::Amd) => Vendor::Amd,
            None => usual.vendor,
        },
        start: if arguments.direct { Start::Kernel } else { Start::Disk },
    }
}

/// Measures.
pub fn run(arguments: &Arguments, session: &Session) -> anyhow::Result<ExitCode> {
    let place = place(&arguments.image)?;
    let machines = match (arguments.platform, &place.folder) {
        (Some(name), _) => vec![(name, asked_for(name, arguments))],
        (None, Some(folder)) if folder.join(file::VALUES).is_file() => {
            machines(&document(&folder.join(file::VALUES))?)?
        }
        _ => {
            let message = "no machine is named, and the image has no reference-values.json that lists some";
            return Err(hinted(message, "name one, as `--platform qemu-tdx --memory 4G`"));
        }
    };
    // The document has both orders; here one is asked for.
    let order = if arguments.two_pass { Order::TwoPass } else { Order::SinglePass };
    let firmware = || place.firmware(&machines, &arguments.firmware, session);
    let mut all = hashed(&place, &machines, &[order], firmware, |_, hashed| Ok(hashed.platforms()?))?;
    let bank = match arguments.bank {
        Bank::Sha256 => Algorithm::Sha256,
        Bank::Sha384 => Algorithm::Sha384,
    };
    all.retain(|platform| platform.kind == RegisterKind::Tdx || platform.algorithm == bank);
    let detail = if arguments.explain { Detail::Explained } else { Detail::Values };
    match session.format {
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
