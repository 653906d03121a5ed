//! The ACPI tables other than the DSDT: fixed layouts, and lists of processors and tables.
//!
//! # Shape
//!
//! ```text
//! header, 36 bytes: signature 4, length 4, revision 1, checksum 1 (0), "BOCHS " 6, "BXPC    " 8, 1 (4), "BXPC" 4, 1 (4)
//! then the table's own fields, little-endian
//! ```
//! Checksums are 0 and addresses are offsets in the file: firmware patches both after measuring them.
//!
//! # Source
//!
//! ACPI Specification 6.5, 5.2; TCG ACPI Specification 1.3, 8 (TPM2); IA-PC HPET Specification 1.0a, 3.2.4. QEMU 7.2,
//! 10.0, 11.1: hw/acpi/aml-build.c `build_fadt`, `build_tpm2`, `build_rsdt`, `build_rsdp`, hw/i386/acpi-common.c
//! `acpi_build_madt`, hw/i386/acpi-build.c `init_common_fadt_data`, `build_hpet`, `build_waet`, hw/acpi/pci.c
//! `build_mcfg`.
//!
//! # Not here
//!
//! The DSDT's content; the order of tables.

use alloc::vec::Vec;

use super::loader::{Blob, Loader, Pointer};
use super::{Machine, Qemu, Smm, Switch};

/// First address of PCI's memory-mapped configuration space (PcdPciExpressBaseAddress of OVMF for q35 and TDX).
pub(super) const ECAM: u64 = 0xe000_0000;
/// Its last address: 256 buses, 1 MiB each.
pub(super) const ECAM_END: u64 = 0xefff_ffff;
/// Base port of power management, as OVMF sets it (ICH9_PMBASE_VALUE).
const POWER: u16 = 0x600;
/// The port that raises an SMI (ACPI_PORT_SMI_CMD).
pub(super) const SMI_PORT: u16 = 0xb2;
/// First port of the general-purpose event registers.
pub(super) const GPE0: u16 = POWER + 0x20;
/// Their size in bytes.
pub(super) const GPE0_BYTES: u8 = 16;

/// The position of a table in its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) offset: u32,
}

/// A table under construction.
struct Table<'a> {
    file: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Table<'a> {
    fn begin(file: &'a mut Vec<u8>, signature: [u8; 4], revision: u8) -> Self {
        let start = file.len();
        let mut table = Table { file, start };
        table.bytes(&signature);
        table.u32(0);
        table.bytes(&[revision, 0]);
        table.bytes(b"BOCHS BXPC    ");
        table.u32(1);
        table.bytes(b"BXPC");
        table.u32(1);
        table
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.file.extend_from_slice(bytes);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn zeros(&mut self, count: usize) {
        self.file.resize(self.file.len() + count, 0);
    }

    /// Writes a generic address: a register of `bits` in I/O space, or none.
    fn port(&mut self, register: Option<(u16, u8)>) {
        match register {
            Some((port, bits)) => {
                self.bytes(&[1, bits, 0, 0]);
                self.u64(port.into());
            }
            None => self.zeros(12),
        }
    }

    /// Writes an offset in a file, which firmware makes an absolute address.
    fn pointer(&mut self, width: u8, to: Blob, at: u32, loader: &mut Loader) {
        let offset = offset(self.file);
        loader.add_pointer(Pointer { in_file: Blob::Tables, offset, width, to });
        self.bytes(at.to_le_bytes().get(..usize::from(width.min(4))).unwrap_or_default());
        self.zeros(usize::from(width.saturating_sub(4)));
    }

    fn end(self, loader: &mut Loader) -> Place {
        let length = offset(self.file).saturating_sub(self.start as u32);
        if let Some(field) = self.file.get_mut(self.start + 4..self.start + 8) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        let start = self.start as u32;
        loader.add_checksum(Blob::Tables, start + 9, start, length);
        Place { offset: start }
    }
}

/// Returns the offset of a file's next byte; files are far smaller than 4 GiB.
fn offset(file: &[u8]) -> u32 {
    file.len() as u32
}

/// Firmware ACPI control structure, which has its own header format.
pub(super) fn facs(file: &mut Vec<u8>) -> Place {
    let place = Place { offset: offset(file) };
    file.extend_from_slice(b"FACS\x40\0\0\0");
    file.resize(file.len() + 56, 0);
    place
}

/// Differentiated system description table.
pub(super) fn dsdt(file: &mut Vec<u8>, terms: &[u8], loader: &mut Loader) -> Place {
    let mut table = Table::begin(file, *b"DSDT", 1);
    table.bytes(terms);
    table.end(loader)
}

/// Fixed ACPI description table, of ACPI 2.0.
pub(super) fn fadt(
    file: &mut Vec<u8>,
    machine: &Machine,
    facs: Place,
    dsdt: Place,
    loader: &mut Loader,
) -> Place {
    /// WBINVD, PROC_C1, SLP_BUTTON, RTC_S4, RESET_REG_SUP, USE_PLATFORM_CLOCK.
    const FLAGS: u32 = 1 | 1 << 2 | 1 << 5 | 1 << 7 | 1 << 10 | 1 << 15;
    /// FORCE_APIC_CLUSTER_MODEL: flat mode addresses only eight processors.
    const CLUSTERS: u32 = 1 << 18;
    const TIMER: u16 = POWER + 8;

    let mut table = Table::begin(file, *b"FACP", 3);
    table.pointer(4, Blob::Tables, facs.offset, loader);
    table.pointer(4, Blob::Tables, dsdt.offset, loader);
    table.bytes(&[1, 0]); // multiple APICs; no profile
    table.u16(9); // the interrupt of ACPI
    match machine.smm {
        Smm::On | Smm::Negotiated => {
            table.u32(SMI_PORT.into());
            table.bytes(&[2, 3]); // enable, disable
        }
        Smm::Off => table.zeros(6),
    }
    table.zeros(2);
    for register in [POWER, 0, POWER + 4, 0, 0, TIMER, GPE0, 0] {
        table.u32(register.into());
    }
    table.bytes(&[4, 2, 0, 4, GPE0_BYTES, 0, 0, 0]);
    table.u16(0xfff); // neither C2 nor C3
    table.u16(0xfff);
    table.zeros(8);
    table.bytes(&[0x32]); // century in the clock's memory
    table.u16(2); // an 8042
    table.zeros(1);
    table.u32(if machine.vcpus.get() > 8 { FLAGS | CLUSTERS } else { FLAGS });
    table.port(Some((0xcf9, 8)));
    table.bytes(&[0x0f]);
    table.zeros(3);
    table.zeros(8);
    table.pointer(8, Blob::Tables, dsdt.offset, loader);
    let registers = [(POWER, 32), (0, 0), (POWER + 4, 16), (0, 0), (0, 0), (TIMER, 32), (GPE0, 128), (0, 0)];
    for (port, bits) in registers {
        table.port((bits != 0).then_some((port, bits)));
    }
    table.end(loader)
}

/// The entry of an enabled processor, with its number as APIC ID.
pub(super) fn processor_entry(number: u8) -> [u8; 8] {
    [0, 8, number, number, 1, 0, 0, 0]
}

/// Multiple APIC description table.
pub(super) fn madt(file: &mut Vec<u8>, machine: &Machine, loader: &mut Loader) -> Place {
    let (revision, compatible) = match (machine.qemu, machine.pic) {
        (Qemu::V7_2, _) => (1, 1),
        (_, Switch::On) => (3, 1),
        (_, Switch::Off) => (3, 0),
    };
    let mut table = Table::begin(file, *b"APIC", revision);
    table.u32(0xfee0_0000);
    table.u32(compatible);
    for number in 0..machine.vcpus.get() {
        table.bytes(&processor_entry(number as u8));
    }
    table.bytes(&[1, 12, 0, 0]);
    table.u32(0xfec0_0000);
    table.u32(0);
    // The timer's interrupt is redirected; PCI interrupts are level-triggered and active high.
    for (source, target, flags) in [(0_u8, 2, 0), (5, 5, 0xd), (9, 9, 0xd), (10, 10, 0xd), (11, 11, 0xd)] {
        table.bytes(&[2, 10, 0, source]);
        table.u32(target);
        table.u16(flags);
    }
    table.bytes(&[4, 6, 0xff, 0, 0, 1]);
    table.end(loader)
}

/// Event timer table.
pub(super) fn hpet(file: &mut Vec<u8>, loader: &mut Loader) -> Place {
    let mut table = Table::begin(file, *b"HPET", 1);
    table.u32(0x8086_a201);
    table.zeros(4);
    table.u64(0xfed0_0000);
    table.zeros(4);
    table.end(loader)
}

/// TPM2 table: the command response buffer, and the event log.
pub(super) fn tpm2(file: &mut Vec<u8>, log_bytes: u32, loader: &mut Loader) -> Place {
    let mut table = Table::begin(file, *b"TPM2", 4);
    table.zeros(4);
    table.u64(0xfed4_0040);
    table.u32(7); // a command response buffer
    table.zeros(12);
    table.u32(log_bytes);
    table.pointer(8, Blob::TpmLog, 0, loader);
    table.end(loader)
}

/// PCI's memory-mapped configuration space.
pub(super) fn mcfg(file: &mut Vec<u8>, loader: &mut Loader) -> Place {
    let mut table = Table::begin(file, *b"MCFG", 1);
    table.zeros(8);
    table.u64(ECAM);
    table.bytes(&[0, 0, 0, 0xff]); // segment 0, buses 0 to 255
    table.zeros(4);
    table.end(loader)
}

/// Windows ACPI emulated devices table: the PM timer is reliable with one read.
pub(super) fn waet(file: &mut Vec<u8>, loader: &mut Loader) -> Place {
    let mut table = Table::begin(file, *b"WAET", 1);
    table.u32(2);
    table.end(loader)
}

/// Root system description table: all tables except FACS and DSDT.
pub(super) fn rsdt(file: &mut Vec<u8>, tables: &[Place], loader: &mut Loader) -> Place {
    let mut table = Table::begin(file, *b"RSDT", 1);
    for place in tables {
        table.pointer(4, Blob::Tables, place.offset, loader);
    }
    table.end(loader)
}

/// Root system description pointer, of ACPI 1.0.
pub(super) fn rsdp(rsdt: Place, loader: &mut Loader) -> Vec<u8> {
    let mut file = b"RSD PTR \0BOCHS \0".to_vec();
    loader.add_pointer(Pointer { in_file: Blob::Rsdp, offset: offset(&file), width: 4, to: Blob::Tables });
    file.extend(rsdt.offset.to_le_bytes());
    loader.add_checksum(Blob::Rsdp, 8, 0, offset(&file));
    file
}
