//! The partition table's event, from a disk's first sectors.
//!
//! # Shape
//!
//! ```text
//! event   the header's first 92 bytes, from LBA 1 | number of used entries u64 | the used entries, whole
//! ```
//!
//! # Source
//!
//! UEFI 2.10, 5.3; TCG PC Client Platform Firmware Profile 1.06, 10.2.9 (`UEFI_GPT_DATA`); edk2
//! `DxeTpm2MeasureBootLib.c`, `Tcg2MeasureGptTable`. Checked with OVMF and disks built by this project.
//!
//! # Not here
//!
//! The partitions' contents; the backup table at the disk's end, which is not measured if the first is valid.

use alloc::vec::Vec;

use crate::field;
use crate::preimage::{Piece, Preimage};

/// Size of a sector in bytes; disks with other sectors are not supported.
pub const SECTOR: usize = 512;
/// The length of a usual table from the disk's start, in bytes: the sectors before the first usable one.
pub const TABLE: usize = 34 * SECTOR;
const HEADER: usize = 92;
const ENTRY: u32 = 128;
/// The specification requires room for 128, and Linux reads at most 1024.
const MOST_ENTRIES: u32 = 1024;

/// There is no table that firmware would measure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end inside the table.
    #[error("partition table in {length} bytes: expected {needed} bytes of {what} at offset {offset:#x}")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Its length.
        needed: u64,
        /// Number of bytes given.
        length: usize,
    },
    /// A field has a value that is not allowed.
    #[error("partition table, {field} at offset {offset:#x}: expected {expected}, found {found:#x}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its offset.
        offset: usize,
        /// The allowed values.
        expected: &'static str,
        /// Its value.
        found: u64,
    },
    /// A checksum is wrong: firmware would fall back to the backup table.
    #[error("partition table, checksum of {what}: expected {expected:#010x}, found {found:#010x}")]
    CheckSum {
        /// The structure.
        what: &'static str,
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
}

/// A used entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its type GUID, as stored.
    pub kind: [u8; 16],
    /// Its own GUID, as stored.
    pub guid: [u8; 16],
    /// First sector.
    pub first: u64,
    /// Last sector.
    pub last: u64,
}

/// An EFI system partition's type, c12a7328-f81f-11d2-ba4b-00a0c93ec93b, as stored.
pub const ESP: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// A valid partition table.
#[derive(Debug, Clone)]
pub struct Gpt<'a> {
    header: &'a [u8],
    entries: Vec<(usize, &'a [u8])>,
}

impl<'a> Gpt<'a> {
    /// Reads the table from a disk's first bytes; a usual one takes [`TABLE`].
    ///
    /// # Errors
    ///
    /// [`Error`]: any table that firmware would reject.
    pub fn read(disk: &'a [u8]) -> Result<Self, Error> {
        let truncated = |what, offset: usize, needed: usize| Error::Truncated {
            what,
            offset: offset as u64,
            needed: needed as u64,
            length: disk.len(),
        };
        let sector =
            field::bytes(disk, SECTOR, SECTOR).ok_or_else(|| truncated("the header", SECTOR, SECTOR))?;
        let double = |offset| field::u32(sector, offset).unwrap_or_default();
        let quad = |offset| field::u64(sector, offset).unwrap_or_default();
        let wrong = |field, at: usize, expected, found| {
            Err(Error::Field { field, offset: SECTOR.saturating_add(at), expected, found })
        };
        if quad(0) != u64::from_le_bytes(*b"EFI PART") {
            return wrong("the signature", 0, "\"EFI PART\"", quad(0));
        }
        if double(12) != HEADER as u32 {
            return wrong("the header's size", 12, "92", double(12).into());
        }
        if quad(24) != 1 {
            return wrong("the header's own sector", 24, "1", quad(24));
        }
        let (count, size) = (double(80), double(84));
        if count > MOST_ENTRIES {
            return wrong("the number of entries", 80, "at most 1024", count.into());
        }
        if size < ENTRY || !size.is_power_of_two() || size > SECTOR as u32 {
            return wrong("an entry's size", 84, "128, 256 or 512", size.into());
        }
        let header = field::bytes(sector, 0, HEADER).unwrap_or_default();
        let found =
            check_sum(&[header.get(..16).unwrap_or_default(), &[0; 4], header.get(20..).unwrap_or_default()]);
        if found != double(16) {
            return Err(Error::CheckSum { what: "the header", expected: double(16), found });
        }
        let start = usize::try_from(quad(72)).ok().and_then(|lba| lba.checked_mul(SECTOR));
        let Some(start) = start.filter(|start| *start >= 2 * SECTOR) else {
            return wrong("the entries' sector", 72, "2 or more", quad(72));
        };
        let length = (count as usize).saturating_mul(size as usize);
        let table =
            field::bytes(disk, start, length).ok_or_else(|| truncated("the entries", start, length))?;
        let found = check_sum(&[table]);
        if found != double(88) {
            return Err(Error::CheckSum { what: "the entries", expected: double(88), found });
        }
        let rows = table.chunks_exact(size as usize).enumerate();
        let used =
            rows.filter(|(_, row)| row.get(..16).is_some_and(|kind| kind.iter().any(|byte| *byte != 0)));
        let entries = used
            .map(|(index, row)| (start.saturating_add(index.saturating_mul(size as usize)), row))
            .collect();
        Ok(Gpt { header, entries })
    }

    /// Returns the used entries, in order.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
        self.entries.iter().map(|(_, row)| Partition {
            kind: field::array(row, 0).unwrap_or_default(),
            guid: field::array(row, 16).unwrap_or_default(),
            first: field::u64(row, 32).unwrap_or_default(),
            last: field::u64(row, 40).unwrap_or_default(),
        })
    }

    /// Returns the bytes that firmware hashes.
    pub fn preimage(&self) -> Preimage<'a> {
        let count = (self.entries.len() as u64).to_le_bytes();
        let mut pieces = alloc::vec![Piece::of_file(SECTOR as u64, self.header), Piece::made(count.to_vec())];
        pieces.extend(self.entries.iter().map(|(at, row)| Piece::of_file(*at as u64, row)));
        Preimage::new(pieces)
    }
}

fn check_sum(pieces: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize()
}

#[cfg(test)]
pub(crate) mod specimen {
    use super::*;

    pub(crate) fn set(disk: &mut [u8], at: usize, bytes: &[u8]) {
        disk[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn seal(disk: &mut [u8]) {
        let entries = check_sum(&[&disk[1024..1024 + 128 * 128]]);
        set(disk, 512 + 88, &entries.to_le_bytes());
        set(disk, 512 + 16, &[0; 4]);
        let header = check_sum(&[&disk[512..604]]);
        set(disk, 512 + 16, &header.to_le_bytes());
    }

    /// Makes a disk's first bytes with partitions `[first, last]`, of the ESP's type.
    pub(crate) fn disk(partitions: &[(u64, u64)]) -> Vec<u8> {
        let mut disk = alloc::vec![0; TABLE];
        set(&mut disk, 512, b"EFI PART");
        set(&mut disk, 512 + 8, &0x10000u32.to_le_bytes());
        set(&mut disk, 512 + 12, &92u32.to_le_bytes());
        set(&mut disk, 512 + 24, &1u64.to_le_bytes());
        set(&mut disk, 512 + 72, &2u64.to_le_bytes());
        set(&mut disk, 512 + 80, &128u32.to_le_bytes());
        set(&mut disk, 512 + 84, &128u32.to_le_bytes());
        for (index, (first, last)) in partitions.iter().enumerate() {
            let row = 1024 + 128 * index;
            set(&mut disk, row, &ESP);
            set(&mut disk, row + 32, &first.to_le_bytes());
            set(&mut disk, row + 40, &last.to_le_bytes());
        }
        seal(&mut disk);
        disk
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::specimen::{disk, seal, set};
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn the_event_is_header_count_and_used_entries() {
        let mut bytes = disk(&[(34, 40), (0, 0), (50, 60)]);
        set(&mut bytes, 1024 + 128, &[0; 128]);
        seal(&mut bytes);
        let gpt = Gpt::read(&bytes).unwrap();
        assert_eq!(gpt.partitions().map(|partition| partition.first).collect::<Vec<_>>(), [34, 50]);
        let expected = [&bytes[512..604], &2u64.to_le_bytes()[..], &bytes[1024..1152], &bytes[1280..1408]];
        let digest = gpt.preimage().digests(Algorithm::Sha384)[0];
        assert_eq!(digest, Algorithm::Sha384.of_pieces(expected));
        assert_eq!(gpt.preimage().ranges(0), [(512, 92), (1024, 128), (1280, 128)]);
    }

    #[test]
    fn a_table_cut_anywhere_is_refused() {
        let bytes = disk(&[(34, 40)]);
        for length in (0..TABLE).step_by(97) {
            assert!(matches!(Gpt::read(&bytes[..length]), Err(Error::Truncated { .. })), "{length}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        for (at, what) in [(512 + 56, "the header"), (1024 + 500, "the entries")] {
            let mut bytes = disk(&[(34, 40)]);
            bytes[at] ^= 1;
            assert!(matches!(Gpt::read(&bytes), Err(Error::CheckSum { what: found, .. }) if found == what));
        }
    }

    #[test]
    fn fields_that_firmware_rejects_are_refused() {
        for (at, value, expected) in [
            (0, 0u64, "the signature"),
            (12, 93, "the header's size"),
            (24, 2, "the header's own sector"),
            (72, 1, "the entries' sector"),
            (72, u64::MAX, "the entries' sector"),
            (80, u64::from(u32::MAX) | (128 << 32), "the number of entries"),
            (84, 127, "an entry's size"),
            (84, 1 << 31, "an entry's size"),
        ] {
            let mut bytes = disk(&[]);
            set(
                &mut bytes,
                512 + at,
                &value.to_le_bytes()[..if at == 0 || at == 24 || at == 72 { 8 } else { 4 }],
            );
            seal(&mut bytes);
            let found = Gpt::read(&bytes).unwrap_err();
            assert!(matches!(found, Error::Field { field, .. } if field == expected), "{found}");
        }
        let mut bytes = disk(&[]);
        set(&mut bytes, 512 + 72, &1000u64.to_le_bytes());
        seal(&mut bytes);
        assert!(matches!(Gpt::read(&bytes), Err(Error::Truncated { what: "the entries", .. })));
    }
}
