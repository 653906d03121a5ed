//! The TD HOB list, from the firmware's sections and the machine's memory size.
//!
//! # Shape
//!
//! ```text
//! PHIT HOB       type u16 1, length u16 56, u32 0, version u32 9, boot mode u32 0, four u64 0, end of the list u64
//! RESOURCE HOBs  type u16 3, length u16 48, u32 0, owner 16 x 0, type u32, attributes u32, start u64, length u64
//! END HOB        not measured
//! ```
//!
//! # Source
//!
//! UEFI Platform Initialization 1.8, III.5; QEMU `hw/i386/tdvf-hob.c` and `hw/i386/kvm/tdx.c`
//! (`tdx_accept_ram_range`), checked against logs of machines with 1, 2, 8, 10 and 64 GiB. Google's list: gce-tcb-verifier
//! (each NUMA node is a bank of its own), checked against three logs of machines with 16 GiB; Compute Engine's documentation,
//! *General-purpose machine family*, for the machine types.

use alloc::vec::Vec;

use crate::firmware::{self, Firmware, Gpa, Kind, Section};

/// The memory size from which QEMU's q35 leaves a hole for devices, in bytes.
const HOLE_REACHED: u64 = 0xb000_0000;
/// Where the memory below that hole ends.
const BELOW_HOLE: u64 = 0x8000_0000;
const FOUR_GIB: u64 = 1 << 32;
/// EFI_RESOURCE_SYSTEM_MEMORY.
const SYSTEM_MEMORY: u32 = 0;
/// EFI_RESOURCE_MEMORY_UNACCEPTED.
const UNACCEPTED: u32 = 7;
/// Present, initialized, tested.
const ATTRIBUTES: u32 = 7;
/// The same, plus a flag that Google sets on unaccepted memory: accept early.
const GOOGLE_ATTRIBUTES: u32 = 0x1000_0007;
/// Where the memory below Google's hole for devices ends.
const GOOGLE_BELOW_HOLE: u64 = 0xc000_0000;
/// Memory of one NUMA node of Google's C3 at most.
const GOOGLE_NODE: u64 = 176 << 30;
/// The machine types of Google Compute Engine that run TDs, by their memory: c3-standard-N, 4 GiB per processor, and the
/// number of NUMA nodes. Not listed: c3-highcpu and c3-highmem, which do not run TDs, and bare metal.
const GOOGLE_C3: [(u64, u64); 6] =
    [(16 << 30, 1), (32 << 30, 1), (88 << 30, 1), (176 << 30, 1), (352 << 30, 2), (704 << 30, 4)];
const PHIT: u16 = 56;
const RESOURCE: u16 = 48;

/// The list cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The firmware has no section for the list.
    #[error(transparent)]
    Firmware(#[from] firmware::Error),
    /// The machine's memory does not contain a section that the firmware needs.
    #[error(
        "memory of {memory:#x} bytes: expected it to contain the firmware's section from {start:#x} to {end:#x}"
    )]
    Memory {
        /// Bytes of memory.
        memory: u64,
        /// Where the section starts.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// Google has no such machine.
    #[error(
        "memory of {} bytes: expected 16G, 32G, 88G, 176G, 352G or 704G, one of c3-standard-4 to c3-standard-176",
        found
    )]
    NoMachine {
        /// Bytes of memory.
        found: u64,
    },
    /// The memory size exceeds the address space.
    #[error("memory of {found:#x} bytes: expected at most 2^52")]
    TooMuch {
        /// Bytes of memory.
        found: u64,
    },
}

/// Returns the measured bytes of the list that QEMU writes for a machine with `memory` bytes: all but the END HOB.
///
/// # Errors
///
/// [`Error`].
pub fn qemu(firmware: &Firmware<'_>, memory: u64) -> Result<Vec<u8>, Error> {
    if memory > 1 << 52 {
        return Err(Error::TooMuch { found: memory });
    }
    let hob = firmware.section(Kind::TdHob)?.address;
    let high = memory.saturating_sub(BELOW_HOLE);
    let banks = match memory < HOLE_REACHED {
        true => [(0, memory), (FOUR_GIB, FOUR_GIB)],
        false => [(0, BELOW_HOLE), (FOUR_GIB, FOUR_GIB.saturating_add(high))],
    };
    let mut accepted: Vec<_> = firmware
        .sections()
        .iter()
        .filter(|section| matches!(section.kind, Kind::TdHob | Kind::TempMem) && section.memory_size > 0)
        .map(|section| (section.address.0, section.end()))
        .collect();
    accepted.sort_unstable();
    for (start, end) in &accepted {
        if !banks.iter().any(|bank| bank.0 <= *start && *end <= bank.1) {
            return Err(Error::Memory { memory, start: *start, end: *end });
        }
    }
    let mut resources = Vec::new();
    for (bank_start, bank_end) in banks {
        let mut from = bank_start;
        for (start, end) in accepted.iter().filter(|range| bank_start <= range.0 && range.1 <= bank_end) {
            resources.push((UNACCEPTED, ATTRIBUTES, from, *start));
            resources.push((SYSTEM_MEMORY, ATTRIBUTES, *start, *end));
            from = *end;
        }
        resources.push((UNACCEPTED, ATTRIBUTES, from, bank_end));
    }
    // QEMU's end of the list includes the END HOB, 8 bytes.
    Ok(list(hob, &resources, 8))
}

/// Returns the measured bytes of the list that Google Compute Engine writes for a C3 machine with `memory` bytes and
/// firmware with these sections.
///
/// # Errors
///
/// [`Error`]; [`Error::NoMachine`] for a size whose memory banks are not known.
pub fn google(sections: &[Section], memory: u64) -> Result<Vec<u8>, Error> {
    let banks = google_banks(memory)?;
    let hob = sections.iter().find(|section| section.kind == Kind::TdHob);
    let hob = hob.ok_or(firmware::Error::Missing { kind: Kind::TdHob })?.address;
    let mut private: Vec<_> = sections.iter().map(|section| (section.address.0, section.end())).collect();
    let mut resources: Vec<_> =
        private.iter().map(|(start, end)| (SYSTEM_MEMORY, ATTRIBUTES, *start, *end)).collect();
    private.sort_unstable();
    for (bank_start, bank_end) in banks {
        let mut from = bank_start;
        for (start, end) in private.iter().filter(|range| bank_start < range.1 && range.0 < bank_end) {
            resources.push((UNACCEPTED, GOOGLE_ATTRIBUTES, from, *start));
            from = (*end).max(from);
        }
        resources.push((UNACCEPTED, GOOGLE_ATTRIBUTES, from, bank_end));
    }
    Ok(list(hob, &resources, 0))
}

/// Checks that a C3 machine has this much memory.
///
/// # Errors
///
/// [`Error::NoMachine`].
pub fn check_google(memory: u64) -> Result<(), Error> {
    google_banks(memory).map(drop)
}

/// Returns the memory banks of a C3 machine, from start to end: below the hole for devices, then one per NUMA node.
fn google_banks(memory: u64) -> Result<Vec<(u64, u64)>, Error> {
    let machine = GOOGLE_C3.into_iter().find(|(size, _)| *size == memory);
    let (_, nodes) = machine.ok_or(Error::NoMachine { found: memory })?;
    let mut banks = alloc::vec![(0, GOOGLE_BELOW_HOLE)];
    let mut start = FOUR_GIB;
    let mut left = memory.saturating_sub(GOOGLE_BELOW_HOLE);
    for node in 0..nodes {
        // The first node also has the memory below the hole.
        let taken = if node == 0 { GOOGLE_BELOW_HOLE } else { 0 };
        let length = left.min(GOOGLE_NODE.saturating_sub(taken));
        let end = start.saturating_add(length);
        banks.push((start, end));
        start = end;
        left = left.saturating_sub(length);
    }
    Ok(banks)
}

fn list(hob: Gpa, resources: &[(u32, u32, u64, u64)], beyond: u64) -> Vec<u8> {
    let resources = || resources.iter().filter(|(.., start, end)| end > start);
    let length = u64::from(PHIT).saturating_add((resources().count() as u64).saturating_mul(RESOURCE.into()));
    let mut list = Vec::new();
    list.extend(1u16.to_le_bytes());
    list.extend(PHIT.to_le_bytes());
    list.extend([0; 4]);
    list.extend(9u32.to_le_bytes());
    list.extend([0; 4 + 4 * 8]);
    list.extend(hob.0.saturating_add(length).saturating_add(beyond).to_le_bytes());
    for (kind, attributes, start, end) in resources() {
        list.extend(3u16.to_le_bytes());
        list.extend(RESOURCE.to_le_bytes());
        list.extend([0; 4 + 16]);
        list.extend(kind.to_le_bytes());
        list.extend(attributes.to_le_bytes());
        list.extend(start.to_le_bytes());
        list.extend(end.saturating_sub(*start).to_le_bytes());
    }
    list
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::digest::Algorithm;
    use crate::firmware::specimen::{image, sections};

    /// The relevant sections of Debian's OVMF (4 MiB, edk2 2025.02).
    fn ovmf() -> Vec<Section> {
        let section = |kind, address, memory_size| Section {
            kind,
            data_offset: 0,
            data_size: 0,
            address: Gpa(address),
            memory_size,
            attributes: 0,
        };
        alloc::vec![
            section(Kind::TempMem, 0x81_0000, 0x1_0000),
            section(Kind::TempMem, 0x80_b000, 0x2000),
            section(Kind::TdHob, 0x80_9000, 0x2000),
            section(Kind::TempMem, 0x80_0000, 0x6000),
        ]
    }

    #[test]
    fn a_machine_with_2_gib_has_the_list_of_real_logs() {
        let bytes = image(&ovmf());
        let list = qemu(&Firmware::read(&bytes).unwrap(), 2 << 30).unwrap();
        assert!(Algorithm::Sha384.of(&list).to_string().starts_with("0b8772e5b0b41b83"));
    }

    #[test]
    fn google_lists_code_and_variables_and_marks_memory_for_early_acceptance() {
        let mut sections = ovmf();
        let section =
            |kind, address, memory_size| Section { kind, address: Gpa(address), memory_size, ..sections[0] };
        let volumes = [section(Kind::Bfv, 0xffe2_0000, 0x1e_0000), section(Kind::Cfv, 0xffe0_0000, 0x2_0000)];
        sections.splice(0..0, volumes);
        let list = google(&sections, 16 << 30).unwrap();
        assert!(Algorithm::Sha384.of(&list).to_string().starts_with("458994daa60deac8"));
        // Machines with one node, then two and four: a script of gce-tcb-verifier's rules gives the same.
        let others =
            [(32, "aa9e81fe"), (88, "a5be8ecd"), (176, "21092ead"), (352, "e267e1e3"), (704, "530ced78")];
        for (gibibytes, digest) in others {
            let list = google(&sections, gibibytes << 30).unwrap();
            let found = Algorithm::Sha384.of(&list).to_string();
            assert!(found.starts_with(digest), "{gibibytes}: {found}");
        }
    }

    #[test]
    fn memory_that_no_c3_machine_has_is_refused() {
        for found in [0, 1, 8 << 30, 17 << 30, (16 << 30) + 1, 1408 << 30, 1536 << 30, 3072 << 30, 1 << 52] {
            assert_eq!(google(&ovmf(), found), Err(Error::NoMachine { found }));
            assert_eq!(check_google(found), Err(Error::NoMachine { found }));
        }
    }

    use alloc::string::ToString;

    #[test]
    fn memory_beyond_the_hole_moves_above_4_gib() {
        let bytes = image(&sections());
        let firmware = Firmware::read(&bytes).unwrap();
        let last = |memory: u64| {
            let list = qemu(&firmware, memory).unwrap();
            let start = crate::field::u64(&list, list.len() - 16).unwrap();
            (start, crate::field::u64(&list, list.len() - 8).unwrap())
        };
        assert_eq!(last(0xaff0_0000), (0x82_0000, 0xaff0_0000 - 0x82_0000));
        assert_eq!(last(0xb000_0000), (1 << 32, 0x3000_0000));
        assert_eq!(last(4 << 30), (1 << 32, 2 << 30));
    }

    #[test]
    fn too_little_memory_for_the_firmware_is_refused() {
        let bytes = image(&sections());
        let firmware = Firmware::read(&bytes).unwrap();
        let error = qemu(&firmware, 8 << 20).unwrap_err();
        assert_eq!(error, Error::Memory { memory: 8 << 20, start: 0x80_9000, end: 0x80_b000 });
        assert_eq!(qemu(&firmware, u64::MAX), Err(Error::TooMuch { found: u64::MAX }));
        assert_eq!(google(firmware.sections(), u64::MAX), Err(Error::NoMachine { found: u64::MAX }));
    }

    #[test]
    fn firmware_without_a_td_hob_section_is_refused() {
        let bytes = image(&sections()[..2]);
        let firmware = Firmware::read(&bytes).unwrap();
        let missing = Error::Firmware(firmware::Error::Missing { kind: Kind::TdHob });
        assert_eq!(qemu(&firmware, 1 << 30), Err(missing.clone()));
        assert_eq!(google(firmware.sections(), 16 << 30), Err(missing));
    }
}
