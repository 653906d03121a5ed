//! The ACPI files that QEMU gives a guest and firmware measures, from the machine's shape.
//!
//! # Shape
//!
//! ```text
//! etc/table-loader   commands that load the other files            a multiple of 4096 bytes
//! etc/acpi/rsdp      the pointer to the root table                 20 bytes
//! etc/tpm/log        room for a log; only with a TPM               65536 zeros
//! etc/acpi/tables    FACS DSDT FACP APIC [HPET] [TPM2] MCFG WAET RSDT, zero-padded to a multiple of 131072 bytes
//! ```
//! Firmware measures each file as one event, before it patches addresses and checksums in.
//!
//! The machine: q35 without default devices (`-nodefaults`), one serial port, virtio devices on the root bus without
//! explicit addresses (from slot 1 on), no NUMA, no memory or processor hotplug slots. `-accel`, `-cpu`, `-kernel`, `-bios`
//! and pflash, `confidential-guest-support` and the type of a virtio device do not affect these files.
//!
//! # Source
//!
//! ACPI Specification 6.5; QEMU hw/i386/acpi-build.c `acpi_build`; edk2 OvmfPkg/AcpiPlatformDxe/QemuFwCfgAcpi.c (what is
//! measured). Compared byte for byte with Debian's QEMU 7.2.22, 10.0.13 and 11.1.3 in twenty shapes each, and with the
//! events of OVMF 2025.02 in QEMU 7.2.
//!
//! # Not here
//!
//! Measuring the files (`boot`). Shapes that were never compared with QEMU are refused: other versions, bridges, assigned
//! devices, VGA.

mod aml;
mod dsdt;
mod fixed;
mod loader;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::num::{NonZeroU8, NonZeroU16};
use core::str::FromStr;

use self::loader::{Blob, Loader, Zone};

/// The maximum number of processors; more would need an x2APIC.
pub const MOST_VCPUS: u16 = 255;
/// The maximum number of devices: slots 1 to 30 of the root bus.
pub const MOST_DEVICES: u8 = 30;
/// Size of the room for a TPM's log (TPM_LOG_AREA_MINIMUM_SIZE).
const TPM_LOG: u32 = 0x1_0000;
/// The tables are padded to a multiple of this (ACPI_BUILD_TABLE_SIZE).
const TABLES_ALIGNMENT: usize = 0x2_0000;
/// Memory is a multiple of this.
const MEBIBYTE: u64 = 1 << 20;
const GIBIBYTE: u64 = 1 << 30;
/// Size of the 64-bit PCI window (Q35_PCI_HOST_HOLE64_SIZE_DEFAULT).
const WINDOW: u64 = 32 * GIBIBYTE;
/// The end of the physical address space of x86-64, 52 bits.
const ADDRESSES: u64 = 1 << 52;

/// Tables cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This version of QEMU is unsupported.
    #[error("unsupported QEMU version {found:?}, expected 7.2, 10.0, 10.1, 10.2 or 11.1")]
    Version {
        /// The version.
        found: String,
    },
    /// There are too many processors.
    #[error("{found} vCPUs, expected at most {MOST_VCPUS}")]
    Vcpus {
        /// Their number.
        found: u16,
    },
    /// There are too many devices.
    #[error("{found} devices, expected at most {MOST_DEVICES}")]
    Devices {
        /// Their number.
        found: u8,
    },
    /// The memory size is invalid.
    #[error("memory of {found} bytes, expected a nonzero multiple of {MEBIBYTE}, below 2^52")]
    Memory {
        /// The size.
        found: u64,
    },
    /// The PCI window would overlap RAM or exceed the address space.
    #[error("the first 64-bit BAR is at {found:#x}, expected between {least:#x} and {most:#x}")]
    Window {
        /// The address.
        found: u64,
        /// The end of memory.
        least: u64,
        /// The highest address with enough room.
        most: u64,
    },
    /// OVMF's window is unknown for this address width.
    #[error(
        "{found} physical address bits, expected 41 to 46 (OVMF uses no more), or 40 on an AMD processor"
    )]
    AddressBits {
        /// The number of bits.
        found: u8,
    },
    /// Text is not the name of a vendor.
    #[error("expected vendor intel or amd, found {found:?}")]
    Vendor {
        /// The text.
        found: String,
    },
}

/// Versions of QEMU whose machine `q35` has the same tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qemu {
    /// 7.2, in Debian bookworm; compared with 7.2.22.
    V7_2,
    /// 10.0 to 10.2; compared with 10.0.13 of Debian trixie. 10.2 has the same code for this machine.
    V10_0,
    /// 11.1; compared with 11.1.3.
    V11_1,
}

impl FromStr for Qemu {
    type Err = Error;

    /// Parses a version as `qemu-system-x86_64 --version` prints it, such as `10.0.13`.
    ///
    /// # Errors
    /// [`Error::Version`] if its tables are unknown.
    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Version { found: text.to_string() };
        let mut numbers = text.split('.').map(str::parse::<u16>);
        let number = |next: Option<Result<u16, _>>| next.and_then(Result::ok).ok_or_else(unknown);
        let (major, minor) = (number(numbers.next())?, number(numbers.next())?);
        // The patch version is optional, but must be a number.
        if numbers.any(|number| number.is_err()) {
            return Err(unknown());
        }
        match (major, minor) {
            (7, 2) => Ok(Qemu::V7_2),
            (10, 0..=2) => Ok(Qemu::V10_0),
            (11, 1) => Ok(Qemu::V11_1),
            _ => Err(unknown()),
        }
    }
}

/// The value of a `-machine …=on|off` option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Switch {
    /// `on`; also what `auto` means without a confidential guest.
    On,
    /// `off`.
    Off,
}

/// A machine's system management mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Smm {
    /// `-machine smm=off`, required for TDX.
    Off,
    /// `smm=on`, the default without KVM, with firmware that does not use it.
    On,
    /// `smm=on`, with firmware that uses it and negotiates CPU hotplug: OVMF built with SMM_REQUIRE, such as Debian's with
    /// Secure Boot.
    Negotiated,
}

/// A machine's TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tpm {
    /// None.
    Absent,
    /// A TPM 2.0, `-device tpm-crb`.
    Crb,
}

/// The parts of a machine that affect its ACPI files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// QEMU's version.
    pub qemu: Qemu,
    /// `-smp`, at most [`MOST_VCPUS`].
    pub vcpus: NonZeroU16,
    /// `-m`, in bytes.
    pub memory: u64,
    /// The number of virtio devices on the root bus, at most [`MOST_DEVICES`].
    pub devices: NonZeroU8,
    /// The address that firmware gave the lowest 64-bit BAR: see [`dynamic_window`].
    pub window: u64,
    /// `-machine pic`; `off` for TDX.
    pub pic: Switch,
    /// `-machine hpet`; QEMU's default is `on`.
    pub hpet: Switch,
    /// `-machine smm`, and the firmware's use of it.
    pub smm: Smm,
    /// The TPM.
    pub tpm: Tpm,
}

/// The processor's vendor in CPUID leaf 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vendor {
    /// `GenuineIntel`.
    Intel,
    /// `AuthenticAMD`; also QEMU's default without KVM.
    Amd,
}

impl Vendor {
    /// Returns the vendor as on a command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Vendor::Intel => "intel",
            Vendor::Amd => "amd",
        }
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Vendor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Vendor::Intel, Vendor::Amd]
            .into_iter()
            .find(|vendor| vendor.as_str() == text)
            .ok_or_else(|| Error::Vendor { found: text.into() })
    }
}

/// Returns the address that OVMF gives the lowest 64-bit BAR: the start of the last eighth of the physical address space.
///
/// With 40 bits on an AMD processor, the 12 GiB below 1 TiB belong to HyperTransport, and OVMF uses the highest lower
/// eighth that is free. Observed with QEMU 7.2 without KVM and OVMF 2025.02.
///
/// `address_bits` is the width that OVMF uses, from CPUID leaf 0x80000008: at most 46 with 4-level paging (47 before
/// edk2-stable202402) and 48 with 5-level paging. Source: edk2-stable202211 and later,
/// OvmfPkg/Library/PlatformInitLib/MemDetect.c `PlatformAddressWidthFromCpuid`, `PlatformDynamicMmioWindow`,
/// `PlatformReservationConflictCB`.
///
/// # Errors
/// [`Error::AddressBits`] for widths that were never compared or that OVMF does not use: below 40, 40 on an Intel
/// processor, above 46. For such a machine, set [`Machine::window`] directly if you know it.
pub fn dynamic_window(address_bits: u8, vendor: Vendor) -> Result<u64, Error> {
    match (address_bits, vendor) {
        (40, Vendor::Amd) => Ok(0xc0_0000_0000),
        (41..=46, _) => Ok((1 << address_bits) - (1 << (address_bits - 3))),
        _ => Err(Error::AddressBits { found: address_bits }),
    }
}

/// The files; [`measured`](Self::measured) returns them in the order of measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// `etc/table-loader`.
    pub loader: Vec<u8>,
    /// `etc/acpi/rsdp`.
    pub rsdp: Vec<u8>,
    /// `etc/tpm/log`, with a TPM.
    pub tpm_log: Option<Vec<u8>>,
    /// `etc/acpi/tables`.
    pub tables: Vec<u8>,
}

impl Tables {
    /// Returns names and bytes in the order in which firmware measures them: the loader, then the files in the order of their
    /// allocation.
    pub fn measured(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let log = self.tpm_log.as_deref().map(|log| (Blob::TpmLog.name(), log));
        let head = [("etc/table-loader", self.loader.as_slice()), (Blob::Rsdp.name(), &self.rsdp)];
        head.into_iter().chain(log).chain([(Blob::Tables.name(), self.tables.as_slice())])
    }
}

/// The memory map.
struct Layout {
    /// The end of RAM below 4 GiB.
    low_memory: u64,
    /// First and last address of the 64-bit PCI window.
    window: (u64, u64),
}

impl Machine {
    fn layout(&self) -> Result<Layout, Error> {
        if self.vcpus.get() > MOST_VCPUS {
            return Err(Error::Vcpus { found: self.vcpus.get() });
        }
        if self.devices.get() > MOST_DEVICES {
            return Err(Error::Devices { found: self.devices.get() });
        }
        if self.memory == 0 || !self.memory.is_multiple_of(MEBIBYTE) || self.memory >= ADDRESSES {
            return Err(Error::Memory { found: self.memory });
        }
        // pc_q35_init: from 2.75 GiB on, memory is split at 2 GiB, which keeps high memory GiB-aligned.
        let low_memory = if self.memory < 0xb000_0000 { self.memory } else { 0x8000_0000 };
        let least = (4 * GIBIBYTE).saturating_add(self.memory - low_memory);
        let most = ADDRESSES - WINDOW - GIBIBYTE;
        if !(least..=most).contains(&self.window) {
            return Err(Error::Window { found: self.window, least, most });
        }
        // q35_host_get_pci_hole64_end.
        let end = (self.window + WINDOW).next_multiple_of(GIBIBYTE);
        Ok(Layout { low_memory, window: (self.window, end - 1) })
    }

    /// Makes the files of the machine.
    ///
    /// # Errors
    /// [`Error`]: a shape that was never compared with QEMU.
    pub fn tables(&self) -> Result<Tables, Error> {
        let layout = self.layout()?;
        let mut loader = Loader::default();
        let mut file = Vec::with_capacity(TABLES_ALIGNMENT);
        loader.allocate(Blob::Tables, 64, Zone::Anywhere);
        let facs = fixed::facs(&mut file);
        let dsdt = fixed::dsdt(&mut file, &dsdt::terms(self, &layout), &mut loader);
        let mut listed = Vec::from([
            fixed::fadt(&mut file, self, facs, dsdt, &mut loader),
            fixed::madt(&mut file, self, &mut loader),
        ]);
        if self.hpet == Switch::On {
            listed.push(fixed::hpet(&mut file, &mut loader));
        }
        if self.tpm == Tpm::Crb {
            loader.allocate(Blob::TpmLog, 1, Zone::Anywhere);
            listed.push(fixed::tpm2(&mut file, TPM_LOG, &mut loader));
        }
        listed.push(fixed::mcfg(&mut file, &mut loader));
        listed.push(fixed::waet(&mut file, &mut loader));
        let rsdt = fixed::rsdt(&mut file, &listed, &mut loader);
        loader.allocate(Blob::Rsdp, 16, Zone::FSegment);
        let rsdp = fixed::rsdp(rsdt, &mut loader);
        file.resize(file.len().next_multiple_of(TABLES_ALIGNMENT), 0);
        Ok(Tables {
            loader: loader.finish(),
            rsdp,
            tpm_log: (self.tpm == Tpm::Crb).then(|| alloc::vec![0; TPM_LOG as usize]),
            tables: file,
        })
    }
}

#[cfg(test)]
mod tests;
