//! Yields the files of ACPI that QEMU gives a guest and firmware measures, from the shape of the machine.
//!
//! # Shape
//!
//! ```text
//! etc/table-loader   commands that put the others into memory      4096 bytes a page
//! etc/acpi/rsdp      the pointer to the root table                 20
//! etc/tpm/log        room for a log, with a TPM alone              65536 zeros
//! etc/acpi/tables    FACS DSDT FACP APIC [HPET] [TPM2] MCFG WAET RSDT, zeros up to a multiple of 131072
//! ```
//! Firmware measures each file as one event, before it patches addresses and checksums in.
//!
//! The machine: q35 without a board's default devices (`-nodefaults`), one serial port, virtio devices without
//! address given on the root bus (from slot 1 on), processors and memory without NUMA, hot-pluggable memory or spare
//! processors. `-accel`, `-cpu`, `-kernel`, `-bios` and pflash, `confidential-guest-support` and the kind of a virtio
//! device leave no trace in these files.
//!
//! # Source
//!
//! ACPI Specification 6.5; QEMU hw/i386/acpi-build.c `acpi_build`; edk2 OvmfPkg/AcpiPlatformDxe/QemuFwCfgAcpi.c for
//! what is measured. Compared byte for byte with Debian's QEMU 7.2.22, 10.0.13 and 11.1.3 over twenty shapes each, and
//! with what OVMF 2025.02 measured of QEMU 7.2.
//!
//! # Not here
//!
//! Measuring them (`boot`). Shapes that were never compared with QEMU are refused: other versions, expanders and
//! bridges, assigned devices, VGA.

mod aml;
mod dsdt;
mod fixed;
mod loader;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::{NonZeroU8, NonZeroU16};
use core::str::FromStr;

use self::loader::{Blob, Loader, Zone};

/// Most processors: the next would need an x2APIC.
pub const MOST_VCPUS: u16 = 255;
/// Most devices: slots 1 to 30 of the root bus.
pub const MOST_DEVICES: u8 = 30;
/// Size of the room for a TPM's log (TPM_LOG_AREA_MINIMUM_SIZE).
const TPM_LOG: u32 = 0x1_0000;
/// What the tables are filled up to (ACPI_BUILD_TABLE_SIZE).
const TABLES_ALIGNMENT: usize = 0x2_0000;
/// Memory is given in whole units of this.
const MEBIBYTE: u64 = 1 << 20;
const GIBIBYTE: u64 = 1 << 30;
/// Bytes of PCI's memory above RAM (Q35_PCI_HOST_HOLE64_SIZE_DEFAULT).
const WINDOW: u64 = 32 * GIBIBYTE;
/// Addresses end here at the latest: 52 bits are what x86-64 has.
const ADDRESSES: u64 = 1 << 52;

/// Why there are no tables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The tables of this version were never compared.
    #[error("QEMU {found} is unknown, expected 7.2, 10.0, 10.1, 10.2 or 11.1")]
    Version {
        /// The version.
        found: String,
    },
    /// More processors than have a local APIC of the old kind.
    #[error("{found} vCPUs, expected at most {MOST_VCPUS}")]
    Vcpus {
        /// How many.
        found: u16,
    },
    /// More devices than the root bus has slots.
    #[error("{found} devices, expected at most {MOST_DEVICES}")]
    Devices {
        /// How many.
        found: u8,
    },
    /// A size of memory that no machine has.
    #[error("memory of {found} bytes, expected a multiple of {MEBIBYTE}, at least that")]
    Memory {
        /// Bytes.
        found: u64,
    },
    /// PCI's memory would lie over RAM, or end where no address is.
    #[error("the first 64-bit BAR is at {found:#x}, expected between {least:#x} and {most:#x}")]
    Window {
        /// The address.
        found: u64,
        /// Where memory ends.
        least: u64,
        /// The last address that leaves room.
        most: u64,
    },
    /// OVMF does not take its window from so many bits.
    #[error(
        "{found} bits of physical addresses, expected 41 to 46 (OVMF counts no more), or 40 of an AMD processor"
    )]
    AddressBits {
        /// How many.
        found: u8,
    },
}

/// Names versions of QEMU whose machine `q35` has the same tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qemu {
    /// 7.2, of Debian bookworm; compared with 7.2.22.
    V7_2,
    /// 10.0 to 10.2, of Debian trixie; compared with 10.0.13, and 10.2's code for this machine is the same.
    V10_0,
    /// 11.1; compared with 11.1.3.
    V11_1,
}

impl FromStr for Qemu {
    type Err = Error;

    /// Reads a version as `qemu-system-x86_64 --version` tells it, for instance `10.0.13`.
    ///
    /// # Errors
    /// [`Error::Version`] when its tables are not known.
    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Version { found: text.to_string() };
        let mut numbers = text.split('.').map(str::parse::<u16>);
        let number = |next: Option<Result<u16, _>>| next.and_then(Result::ok).ok_or_else(unknown);
        let (major, minor) = (number(numbers.next())?, number(numbers.next())?);
        // The patch version may be left out; what is there must be a number.
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

/// Tells whether a machine has what `-machine …=on|off` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Switch {
    /// `on`; also what `auto` comes to without a confidential guest.
    On,
    /// `off`.
    Off,
}

/// Tells what a machine does with system management mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Smm {
    /// `-machine smm=off`, as for TDX.
    Off,
    /// `smm=on`, with firmware that has no use for it; without KVM this is the default.
    On,
    /// `smm=on`, with firmware that lives in it and has taken over the plugging of processors: OVMF built with
    /// SMM_REQUIRE, as Debian's with Secure Boot.
    Negotiated,
}

/// Tells which TPM a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tpm {
    /// None.
    Absent,
    /// A TPM 2.0, `-device tpm-crb`.
    Crb,
}

/// Describes a machine as far as ACPI tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Version of QEMU.
    pub qemu: Qemu,
    /// `-smp`, at most [`MOST_VCPUS`].
    pub vcpus: NonZeroU16,
    /// `-m`, in bytes.
    pub memory: u64,
    /// Virtio devices on the root bus, at most [`MOST_DEVICES`].
    pub devices: NonZeroU8,
    /// Address of the lowest 64-bit BAR of the devices, where firmware put it: see [`dynamic_window`].
    pub window: u64,
    /// `-machine pic`; `off` for TDX.
    pub pic: Switch,
    /// `-machine hpet`; QEMU's default is `on`.
    pub hpet: Switch,
    /// `-machine smm`, and what firmware makes of it.
    pub smm: Smm,
    /// The TPM.
    pub tpm: Tpm,
}

/// Tells whose processor the machine has, as CPUID leaf 0 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vendor {
    /// `GenuineIntel`.
    Intel,
    /// `AuthenticAMD`; also what QEMU emulates without KVM.
    Amd,
}

/// Gives the address at which OVMF puts the lowest 64-bit BAR: the last eighth of the addresses that the processor
/// has, given by their bits.
///
/// With 40 bits of an AMD processor, the twelve gibibytes before 1 TiB are HyperTransport's, and OVMF goes to the next
/// eighth before it that fits: so QEMU 7.2 without KVM with OVMF 2025.02.
///
/// The bits are those that OVMF counts, of the ones that CPUID leaf 0x80000008 tells: with four levels of paging 46 at
/// most (47 before edk2-stable202402), with five 48. Of edk2-stable202211 and later:
/// OvmfPkg/Library/PlatformInitLib/MemDetect.c `PlatformAddressWidthFromCpuid`, `PlatformDynamicMmioWindow`,
/// `PlatformReservationConflictCB`.
///
/// # Errors
/// [`Error::AddressBits`] for what was never compared, or what OVMF does not take its window from: fewer than 40 bits, 40
/// of an Intel processor, more than 46. Who knows the window of such a machine writes it down as it is.
pub fn dynamic_window(address_bits: u8, vendor: Vendor) -> Result<u64, Error> {
    match (address_bits, vendor) {
        (40, Vendor::Amd) => Ok(0xc0_0000_0000),
        (41..=46, _) => Ok((1 << address_bits) - (1 << (address_bits - 3))),
        _ => Err(Error::AddressBits { found: address_bits }),
    }
}

/// Holds the files; [`measured`](Self::measured) gives them in their order.
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
    /// Gives names and bytes in the order in which firmware measures them: the loader's commands, then the files as
    /// the commands allocate them.
    pub fn measured(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let log = self.tpm_log.as_deref().map(|log| (Blob::TpmLog.name(), log));
        let head = [("etc/table-loader", self.loader.as_slice()), (Blob::Rsdp.name(), &self.rsdp)];
        head.into_iter().chain(log).chain([(Blob::Tables.name(), self.tables.as_slice())])
    }
}

/// Where memory lies, and what of it PCI has.
struct Layout {
    /// Where RAM below 4 GiB ends.
    low_memory: u64,
    /// First and last address of PCI's memory above RAM.
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
        // pc_q35_init: from 2.75 GiB on, memory is split at 2 GiB, so that high memory is whole gibibytes.
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

    /// Gives the files of the machine.
    ///
    /// # Errors
    /// When the shape is one that was never compared with QEMU's.
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
