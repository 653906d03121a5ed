//! The reference values of one machine: the document's entry for a platform and shape.
//!
//! # Shape
//!
//! ```text
//! name, shape (memory, vCPUs, QEMU, …), firmware or platform file, image ─> MRTD, registers, events
//! ```
//!
//! QEMU's machine, beyond its shape: a serial port and virtio devices, by default three (the disk in slot 1, a network card,
//! an entropy source). With TDX: `-machine q35,pic=off,smm=off,hpet=off`; with a TPM: plain q35 and `tpm-crb`.
//!
//! # Not here
//!
//! Finding and reading the files.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::num::{NonZeroU8, NonZeroU16};
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::acpi::{self, Qemu, Smm, Switch, Tpm, Vendor, dynamic_window};
pub use crate::boot::Start;
use crate::boot::{self, Code, Image, Machine};
use crate::digest::{Algorithm, Digest};
use crate::firmware::Firmware;
use crate::mrtd::Order;
use crate::platform::{self, Listener, PlatformFile};
use crate::reference::{Mrtd, Platform, RegisterKind};
use crate::td_hob;

/// Reference values cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The events of the boot cannot be predicted.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// The platform's own events cannot be predicted.
    #[error(transparent)]
    Platform(#[from] platform::Error),
    /// The machine's ACPI tables are not known.
    #[error(transparent)]
    Acpi(#[from] acpi::Error),
    /// The platform has no machine with this much memory.
    #[error(transparent)]
    TdHob(#[from] td_hob::Error),
    /// QEMU needs a firmware image, another platform its file.
    #[error("platform {name}: expected {expected}")]
    Missing {
        /// The platform.
        name: Name,
        /// The missing input.
        expected: &'static str,
    },
    /// The platform takes only a memory size.
    #[error("{name} takes only a memory size: {option} is for QEMU")]
    OnlyQemu {
        /// The platform.
        name: Name,
        /// The option.
        option: &'static str,
    },
    /// An option of a shape is unknown, or its value is invalid.
    #[error("machine shape: unknown option or invalid value: {word} {found:?}")]
    Word {
        /// The option.
        word: String,
        /// Its value.
        found: String,
    },
    /// There is no platform with this name.
    #[error("expected qemu-tdx, qemu-tpm, gcp-c3 or alicloud-tdx, found {found:?}")]
    Name {
        /// The text.
        found: String,
    },
}

/// The name of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// QEMU with TDX.
    QemuTdx,
    /// QEMU with a TPM 2.0.
    QemuTpm,
    /// Google Compute Engine C3 with TDX.
    GcpC3,
    /// Alibaba Cloud ECS with TDX.
    AlicloudTdx,
}

impl Name {
    /// All names.
    pub const ALL: [Name; 4] = [Name::QemuTdx, Name::QemuTpm, Name::GcpC3, Name::AlicloudTdx];

    /// Returns the name as on a command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Name::QemuTdx => "qemu-tdx",
            Name::QemuTpm => "qemu-tpm",
            Name::GcpC3 => "gcp-c3",
            Name::AlicloudTdx => "alicloud-tdx",
        }
    }

    /// Tells whether the platform is QEMU, for which the caller provides the firmware.
    pub const fn is_qemu(self) -> bool {
        matches!(self, Name::QemuTdx | Name::QemuTpm)
    }

    /// Returns who receives the firmware's events.
    pub const fn listener(self) -> Listener {
        match self {
            Name::QemuTdx | Name::AlicloudTdx => Listener::Tdx,
            Name::QemuTpm => Listener::Tpm,
            Name::GcpC3 => Listener::TpmAndTdx,
        }
    }

    /// Returns whose registers it has.
    pub const fn kind(self) -> RegisterKind {
        match self {
            Name::QemuTpm => RegisterKind::Tpm,
            _ => RegisterKind::Tdx,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Name::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| Error::Name { found: text.into() })
    }
}

/// A machine's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Memory in bytes.
    pub memory: u64,
    /// Number of processors.
    pub vcpus: NonZeroU16,
    /// QEMU's version, such as `10.0`; only for QEMU.
    pub qemu: String,
    /// Number of virtio devices on the root bus.
    pub devices: NonZeroU8,
    /// Width of the guest's physical addresses in bits, as CPUID reports it.
    pub address_bits: u8,
    /// The processor's vendor.
    pub vendor: Vendor,
    /// How it boots the UKI; only for QEMU.
    pub start: Start,
}

impl Shape {
    /// Returns a platform's default machine: 4 GiB (16 GiB for gcp-c3, its smallest), two processors, QEMU 10.0, three
    /// devices. With TDX, an Intel processor with 46 address bits; otherwise the one that QEMU emulates: AMD, 40 bits.
    pub fn usual(name: Name) -> Shape {
        let (address_bits, vendor) = match name {
            Name::QemuTpm => (40, Vendor::Amd),
            _ => (46, Vendor::Intel),
        };
        Shape {
            memory: if name == Name::GcpC3 { 16 << 30 } else { 4 << 30 },
            vcpus: NonZeroU16::MIN.saturating_add(1),
            qemu: "10.0".to_string(),
            devices: NonZeroU8::MIN.saturating_add(2),
            address_bits,
            vendor,
            start: Start::Disk,
        }
    }

    /// Returns its ACPI tables; `smm` is the firmware's use of system management mode on machines that have it.
    ///
    /// # Errors
    ///
    /// [`acpi::Error`]: a shape that was never compared with QEMU.
    pub fn tables(&self, name: Name, smm: Smm) -> Result<acpi::Tables, acpi::Error> {
        let (switch, smm, tpm) = match name {
            Name::QemuTpm => (Switch::On, smm, Tpm::Crb),
            _ => (Switch::Off, Smm::Off, Tpm::Absent),
        };
        let machine = acpi::Machine {
            qemu: Qemu::from_str(&self.qemu)?,
            vcpus: self.vcpus,
            memory: self.memory,
            devices: self.devices,
            window: dynamic_window(self.address_bits, self.vendor)?,
            pic: switch,
            hpet: switch,
            smm,
            tpm,
        };
        machine.tables()
    }

    /// Reads a shape back from the words of a document's entry. Whether its tables are known is not checked.
    ///
    /// # Errors
    ///
    /// [`Error::Word`].
    pub fn from_words(name: Name, words: &BTreeMap<String, String>) -> Result<Shape, Error> {
        let mut shape = Shape::usual(name);
        for (word, value) in words {
            let wrong = || Error::Word { word: word.clone(), found: value.clone() };
            match word.as_str() {
                "memory" => shape.memory = bytes(value).ok_or_else(wrong)?,
                "vcpus" => shape.vcpus = value.parse().map_err(|_| wrong())?,
                "qemu" => shape.qemu = value.clone(),
                "devices" => shape.devices = value.parse().map_err(|_| wrong())?,
                "address-bits" => shape.address_bits = value.parse().map_err(|_| wrong())?,
                "vendor" => shape.vendor = value.parse().map_err(|_| wrong())?,
                "start" => {
                    shape.start = match value.as_str() {
                        "disk" => Start::Disk,
                        "kernel" => Start::Kernel,
                        _ => return Err(wrong()),
                    };
                }
                // The firmware's digest, which the caller compares.
                "firmware" => {}
                _ => return Err(wrong()),
            }
        }
        Ok(shape)
    }

    /// Returns the shape in the words of the command line.
    pub fn words(&self, name: Name) -> BTreeMap<String, String> {
        let mut words = BTreeMap::from([("memory".to_string(), size(self.memory))]);
        if name.is_qemu() {
            words.extend([
                ("vcpus".to_string(), self.vcpus.to_string()),
                ("qemu".to_string(), self.qemu.clone()),
                ("devices".to_string(), self.devices.to_string()),
                ("address-bits".to_string(), self.address_bits.to_string()),
                ("vendor".to_string(), self.vendor.to_string()),
            ]);
            if self.start == Start::Kernel {
                words.insert("start".to_string(), "kernel".to_string());
            }
        }
        words
    }
}

/// The options of a shape, as a command line or a recipe has them. What is absent takes the platform's default
/// ([`Shape::usual`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Memory in bytes; [`bytes`] parses it.
    pub memory: Option<u64>,
    /// Number of processors; only for QEMU, like all that follow.
    pub vcpus: Option<NonZeroU16>,
    /// QEMU's version.
    pub qemu: Option<String>,
    /// Number of virtio devices on the root bus.
    pub devices: Option<NonZeroU8>,
    /// Width of the guest's physical addresses in bits.
    pub address_bits: Option<u8>,
    /// The processor's vendor.
    pub vendor: Option<Vendor>,
    /// How the machine boots the UKI.
    pub start: Option<Start>,
}

impl Options {
    /// Makes a platform's shape of the options, and checks that its ACPI tables are known.
    ///
    /// # Errors
    ///
    /// [`Error::OnlyQemu`] if the platform takes only a memory size; [`Error::TdHob`] for a size that no such machine has;
    /// [`Error::Acpi`] for a shape that was never compared with QEMU.
    pub fn shape(self, name: Name) -> Result<Shape, Error> {
        let only_qemu = [
            ("vcpus", self.vcpus.is_some()),
            ("qemu", self.qemu.is_some()),
            ("devices", self.devices.is_some()),
            ("address-bits", self.address_bits.is_some()),
            ("vendor", self.vendor.is_some()),
            ("direct", self.start == Some(Start::Kernel)),
        ];
        if let Some((option, _)) = only_qemu.into_iter().find(|(_, given)| *given && !name.is_qemu()) {
            return Err(Error::OnlyQemu { name, option });
        }
        let usual = Shape::usual(name);
        let shape = Shape {
            memory: self.memory.unwrap_or(usual.memory),
            vcpus: self.vcpus.unwrap_or(usual.vcpus),
            qemu: self.qemu.unwrap_or(usual.qemu),
            devices: self.devices.unwrap_or(usual.devices),
            address_bits: self.address_bits.unwrap_or(usual.address_bits),
            vendor: self.vendor.unwrap_or(usual.vendor),
            start: self.start.unwrap_or(usual.start),
        };
        if name.is_qemu() {
            // The firmware's use of SMM decides the content of the tables, not whether they are known.
            shape.tables(name, Smm::On)?;
        }
        if name == Name::GcpC3 {
            td_hob::check_google(shape.memory)?;
        }
        Ok(shape)
    }
}

/// Formats a size, such as 512M or 4G.
pub fn size(bytes: u64) -> String {
    match (bytes.is_multiple_of(1 << 30), bytes.is_multiple_of(1 << 20)) {
        (true, _) => alloc::format!("{}G", bytes >> 30),
        (_, true) => alloc::format!("{}M", bytes >> 20),
        _ => bytes.to_string(),
    }
}

/// Parses a size such as 512M or 4G; `None` for other text, for zero, and above 2^52 bytes.
pub fn bytes(text: &str) -> Option<u64> {
    let (number, factor) = match (text.strip_suffix('G'), text.strip_suffix('M')) {
        (Some(number), _) => (number, 1 << 30),
        (_, Some(number)) => (number, 1 << 20),
        _ => return None,
    };
    let plain = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    let bytes = number.parse::<u64>().ok().filter(|_| plain)?.checked_mul(factor)?;
    (1..=1 << 52).contains(&bytes).then_some(bytes)
}

/// Firmware with everything computed from it.
#[derive(Debug)]
pub struct Hashed<'a> {
    /// The image.
    pub firmware: &'a Firmware<'a>,
    /// The firmware's part of every boot.
    pub code: &'a Code,
    /// SHA-256 of the image.
    pub sha256: Digest,
    /// MRTD for each page order; empty for a TPM.
    pub mrtd: &'a [(Order, Digest)],
}

/// Where the events before the image's come from.
#[derive(Debug)]
pub enum Before<'a> {
    /// QEMU with this firmware.
    Firmware(Hashed<'a>),
    /// The platform's file.
    File(&'a PlatformFile),
}

/// Computes the reference values of one machine.
///
/// # Errors
///
/// [`Error`].
pub fn reference(name: Name, shape: &Shape, before: &Before<'_>, image: &Image) -> Result<Platform, Error> {
    let algorithm: Algorithm = image.algorithm();
    let mut words = shape.words(name);
    let (events, mrtd): (_, Vec<Mrtd>) = match (before, name.is_qemu()) {
        (Before::Firmware(hashed), true) => {
            let machine = Machine {
                memory: shape.memory,
                acpi: Some(shape.tables(name, hashed.code.smm())?.into()),
                disk_slot: 1,
                start: shape.start,
            };
            words.insert("firmware".to_string(), hashed.sha256.to_string());
            let mrtd = hashed.mrtd.iter().map(|(order, digest)| {
                let order = match order {
                    Order::SinglePass => "each page before its content",
                    Order::TwoPass => "all pages of a section before its content",
                };
                Mrtd { digest: *digest, source: alloc::format!("firmware {}, {order}", hashed.sha256) }
            });
            (boot::qemu(name.listener(), hashed.firmware, hashed.code, &machine, image)?, mrtd.collect())
        }
        (Before::File(file), false) => {
            let mrtd = file.mrtd.iter().map(|seen| Mrtd {
                digest: seen.digest,
                source: alloc::format!("{}, {}", seen.source, seen.date),
            });
            let events = file.events(algorithm, shape.memory)?;
            (boot::platform(name.listener(), events, image)?, mrtd.collect())
        }
        (_, true) => return Err(Error::Missing { name, expected: "a firmware image" }),
        (_, false) => return Err(Error::Missing { name, expected: "the platform's file" }),
    };
    Ok(Platform {
        name: name.to_string(),
        kind: name.kind(),
        algorithm,
        shape: words,
        mrtd,
        attributes: None,
        registers: boot::registers(algorithm, &events),
        events,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn names_and_sizes_read_back() {
        for name in Name::ALL {
            assert_eq!(name.as_str().parse::<Name>().unwrap(), name);
        }
        assert_eq!("qemu".parse::<Name>(), Err(Error::Name { found: "qemu".into() }));
        for text in ["512M", "4G", "1025M"] {
            assert_eq!(size(bytes(text).unwrap()), text);
        }
        for text in ["", "G", "0G", "+4G", "4", "4g", "99999999999G"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn absent_options_take_the_platform_s_default() {
        for name in Name::ALL {
            assert_eq!(Options::default().shape(name), Ok(Shape::usual(name)));
        }
        let options = Options {
            vcpus: NonZeroU16::new(8),
            vendor: Some(Vendor::Intel),
            address_bits: Some(46),
            ..Options::default()
        };
        let shape = options.shape(Name::QemuTpm).unwrap();
        let expected = Shape {
            vcpus: NonZeroU16::new(8).unwrap(),
            vendor: Vendor::Intel,
            address_bits: 46,
            ..Shape::usual(Name::QemuTpm)
        };
        assert_eq!(shape, expected);
    }

    #[test]
    fn an_unknown_shape_is_refused_when_it_is_made() {
        let refused = |options: Options| options.shape(Name::QemuTdx).unwrap_err();
        let version = Options { qemu: Some("9.0".into()), ..Options::default() };
        assert!(matches!(refused(version), Error::Acpi(acpi::Error::Version { .. })));
        let bits = Options { address_bits: Some(47), ..Options::default() };
        assert_eq!(refused(bits), Error::Acpi(acpi::Error::AddressBits { found: 47 }));
        let memory = Options { memory: Some(1), ..Options::default() };
        assert_eq!(refused(memory), Error::Acpi(acpi::Error::Memory { found: 1 }));
    }

    #[test]
    fn a_cloud_takes_only_a_memory_size() {
        let refused = |options: Options| match options.shape(Name::GcpC3) {
            Err(Error::OnlyQemu { name: Name::GcpC3, option }) => option,
            other => panic!("{other:?}"),
        };
        let none = Options::default;
        assert_eq!(refused(Options { vcpus: NonZeroU16::new(2), ..none() }), "vcpus");
        assert_eq!(refused(Options { qemu: Some("10.0".into()), ..none() }), "qemu");
        assert_eq!(refused(Options { devices: NonZeroU8::new(3), ..none() }), "devices");
        assert_eq!(refused(Options { address_bits: Some(46), ..none() }), "address-bits");
        assert_eq!(refused(Options { vendor: Some(Vendor::Amd), ..none() }), "vendor");
        assert_eq!(refused(Options { start: Some(Start::Kernel), ..none() }), "direct");
        let memory = Options { memory: Some(32 << 30), start: Some(Start::Disk), ..none() };
        assert_eq!(memory.shape(Name::GcpC3).unwrap().memory, 32 << 30);
        // Refused where it is named, before anything is measured.
        let no = Options { memory: Some(17 << 30), ..none() }.shape(Name::GcpC3).unwrap_err();
        assert_eq!(no, Error::TdHob(td_hob::Error::NoMachine { found: 17 << 30 }));
    }

    #[test]
    fn vendors_are_parsed_from_their_names() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            assert_eq!(vendor.to_string().parse(), Ok(vendor));
        }
        assert_eq!("AMD".parse::<Vendor>(), Err(acpi::Error::Vendor { found: "AMD".into() }));
    }

    #[test]
    fn each_platform_needs_its_own_kind_of_input() {
        let uki = crate::stub::specimen::uki(crate::stub::specimen::MAGIC, b"quiet");
        let image = boot::Plan::read(&uki, None).unwrap().hash(Algorithm::Sha384).unwrap();
        let file = PlatformFile {
            name: "x".into(),
            kind: RegisterKind::Tdx,
            firmware_speaks_to: Listener::Tdx,
            mrtd: Vec::new(),
            section: Vec::new(),
            event: Vec::new(),
        };
        let before = Before::File(&file);
        let of = |name| reference(name, &Shape::usual(name), &before, &image);
        assert!(matches!(of(Name::QemuTdx), Err(Error::Missing { name: Name::QemuTdx, .. })));
        let platform = of(Name::AlicloudTdx).unwrap();
        assert_eq!(platform.registers.len(), 4);
        assert_eq!(platform.shape["memory"], "4G");
    }
}
