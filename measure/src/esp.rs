//! The location of a file in an EFI system partition, reading only the bytes that are needed to find it.
//!
//! # Shape
//!
//! ```text
//! sector 0     bytes per sector u16 at 11, sectors per cluster u8 at 13, reserved sectors u16 at 14, FATs u8 at 16,
//!              total sectors u32 at 32, sectors per FAT u32 at 36, cluster of the root directory u32 at 44
//! FAT          u32 for each cluster: its low 28 bits are the next one; 0x0ffffff8 and above end a chain
//! directory    entries of 32 bytes; the parts of a long name precede the entry, last part first
//! ```
//!
//! # Source
//!
//! UEFI 2.10, 13.3.1 (FAT32 on a fixed disk) and 3.5.1.1; *FAT32 File System Specification* 1.03. Checked with partitions
//! written by mtools and by this project.
//!
//! # Not here
//!
//! FAT12 and FAT16, which UEFI requires for removable media only; writing.

use alloc::vec::Vec;

use crate::field;

/// The program that firmware starts from a disk without boot entries.
pub const BOOT_PATH: [&str; 3] = ["EFI", "BOOT", "BOOTX64.EFI"];
const ENTRY: usize = 32;
const DIRECTORY: u8 = 0x10;
const VOLUME_LABEL: u8 = 0x08;
const LONG_NAME: u8 = 0x0f;
const CLUSTER: u32 = 0x0fff_ffff;
const END: u32 = 0x0fff_fff8;
/// "A FAT directory must not be larger than 65,536 × 32 bytes".
const MOST_DIRECTORY: usize = 65_536 * ENTRY;

/// A file cannot be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field has a value that is not allowed.
    #[error("EFI system partition, {field} at offset {offset:#x}: expected {expected}, found {found:#x}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its offset.
        offset: u64,
        /// The allowed values.
        expected: &'static str,
        /// Its value.
        found: u64,
    },
    /// The partition has no such file.
    #[error("EFI system partition has no {name} in the directory at cluster {cluster}")]
    Missing {
        /// The name of the file or directory.
        name: &'static str,
        /// The directory's first cluster.
        cluster: u32,
    },
    /// A chain of clusters is cyclic, leaves the partition, or ends before the file does.
    #[error(
        "EFI system partition, chain from cluster {cluster}: expected {expected} clusters, found {found}"
    )]
    Chain {
        /// The first cluster.
        cluster: u32,
        /// The maximum length of the chain.
        expected: u64,
        /// Clusters found before it breaks or exceeds that.
        found: u64,
    },
    /// Bytes cannot be read.
    #[error("EFI system partition: expected {length} bytes at offset {offset:#x}, which cannot be read")]
    Unreadable {
        /// Their offset.
        offset: u64,
        /// Their number.
        length: usize,
    },
}

/// Random access to a partition's bytes: some kilobytes out of many megabytes.
pub trait Sectors {
    /// Returns its length in bytes.
    fn length(&self) -> u64;

    /// Appends `length` bytes from `offset`; `None` if there are fewer or reading fails.
    fn append(&self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> Option<()>;

    /// Returns `length` bytes from `offset`; `None` if there are fewer or reading fails.
    fn read(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        self.append(offset, length, &mut bytes)?;
        Some(bytes)
    }
}

impl Sectors for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn append(&self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> Option<()> {
        bytes.extend_from_slice(field::bytes(self, usize::try_from(offset).ok()?, length)?);
        Some(())
    }
}

struct Fat<'a> {
    partition: &'a dyn Sectors,
    root: u32,
    table: Vec<u8>,
    data: u64,
    end: u64,
    cluster_size: usize,
}

/// Finds the program that firmware starts. Returns offset and length of each piece in the partition.
///
/// # Errors
///
/// [`Error`].
pub fn boot_program(partition: &dyn Sectors) -> Result<Vec<(u64, u64)>, Error> {
    let fat = Fat::read(partition)?;
    let mut cluster = fat.root;
    let [folders @ .., file] = BOOT_PATH;
    for name in folders {
        (cluster, _) = fat.entry(cluster, name, DIRECTORY)?;
    }
    let (cluster, size) = fat.entry(cluster, file, 0)?;
    fat.pieces(cluster, size as usize)
}

/// Reads the program that firmware starts.
///
/// # Errors
///
/// [`Error`].
pub fn read_boot_program(partition: &dyn Sectors) -> Result<Vec<u8>, Error> {
    let pieces = boot_program(partition)?;
    let whole: u64 = pieces.iter().map(|(_, length)| length).sum();
    // At most the size in the directory, and the pieces lie in the partition.
    let mut program = Vec::with_capacity(usize::try_from(whole).unwrap_or_default());
    for (offset, length) in pieces {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        partition.append(offset, length, &mut program).ok_or(Error::Unreadable { offset, length })?;
    }
    Ok(program)
}

impl<'a> Fat<'a> {
    fn read(partition: &'a dyn Sectors) -> Result<Self, Error> {
        let boot = partition.read(0, 512).unwrap_or_default();
        let word = |at| u64::from(field::u16(&boot, at).unwrap_or_default());
        let double = |at| u64::from(field::u32(&boot, at).unwrap_or_default());
        let byte = |at| u64::from(field::array::<1>(&boot, at).unwrap_or_default()[0]);
        let wrong =
            |field, offset: u64, expected, found| Err(Error::Field { field, offset, expected, found });
        if word(510) != 0xaa55 {
            return wrong("the boot sector's signature", 510, "0xaa55", word(510));
        }
        let sector = word(11);
        if !(512..=4096).contains(&sector) || !sector.is_power_of_two() {
            return wrong("bytes per sector", 11, "512 to 4096", sector);
        }
        let per_cluster = byte(13);
        if !per_cluster.is_power_of_two() {
            return wrong("sectors per cluster", 13, "a power of two", per_cluster);
        }
        if word(22) != 0 || word(17) != 0 {
            return wrong("the FAT's size in 16 bits", 22, "0 (FAT32)", word(22));
        }
        let fat_size = double(36).saturating_mul(sector);
        let start = word(14).saturating_mul(sector);
        let data = start.saturating_add(byte(16).saturating_mul(fat_size));
        let end = double(32).saturating_mul(sector);
        if end > partition.length() {
            return wrong("total sectors", 32, "at most the partition's", double(32));
        }
        if data >= end || byte(16) == 0 {
            return wrong("sectors per FAT", 36, "FATs that end inside the partition", double(36));
        }
        let cluster_size = sector.saturating_mul(per_cluster);
        // One entry for each cluster, after two reserved ones.
        let entries = (end.saturating_sub(data) / cluster_size.max(1)).saturating_add(2);
        let length = fat_size.min(entries.saturating_mul(4)) as usize;
        Ok(Fat {
            partition,
            root: field::u32(&boot, 44).unwrap_or_default() & CLUSTER,
            table: partition.read(start, length).ok_or(Error::Unreadable { offset: start, length })?,
            data,
            end,
            cluster_size: cluster_size as usize,
        })
    }

    /// Returns a cluster's offset; `None` outside the partition.
    fn place(&self, cluster: u32) -> Option<u64> {
        let index = u64::from(cluster).checked_sub(2)?;
        let start = self.data.checked_add(index.checked_mul(self.cluster_size as u64)?)?;
        (start.checked_add(self.cluster_size as u64)? <= self.end).then_some(start)
    }

    /// Returns the chain of clusters from `first`; one that exceeds `most` or leaves the partition is refused.
    fn chain(&self, first: u32, most: u64) -> Result<Vec<u32>, Error> {
        let mut clusters = Vec::new();
        let mut cluster = first;
        loop {
            let broken = Error::Chain { cluster: first, expected: most, found: clusters.len() as u64 };
            if clusters.len() as u64 >= most || self.place(cluster).is_none() {
                return Err(broken);
            }
            clusters.push(cluster);
            let next = field::u32(&self.table, (cluster as usize).saturating_mul(4)).ok_or(broken)? & CLUSTER;
            if next >= END {
                return Ok(clusters);
            }
            cluster = next;
        }
    }

    fn entry(&self, directory: u32, name: &'static str, kind: u8) -> Result<(u32, u32), Error> {
        let most = MOST_DIRECTORY.div_ceil(self.cluster_size.max(1)) as u64;
        let mut long: Vec<u16> = Vec::new();
        for cluster in self.chain(directory, most)? {
            let (offset, length) = (self.place(cluster).unwrap_or_default(), self.cluster_size);
            let bytes = self.partition.read(offset, length).ok_or(Error::Unreadable { offset, length })?;
            for entry in bytes.chunks_exact(ENTRY) {
                let byte = |at| field::array::<1>(entry, at).unwrap_or_default()[0];
                let attributes = byte(11);
                match byte(0) {
                    0 => return Err(Error::Missing { name, cluster: directory }),
                    0xe5 => long.clear(),
                    _ if attributes & 0x3f == LONG_NAME => {
                        // Parts come last first.
                        let units = [(1, 5), (14, 6), (28, 2)];
                        let part = units.iter().flat_map(|(at, count)| {
                            (0..*count)
                                .map(move |index| field::u16(entry, at + 2 * index).unwrap_or_default())
                        });
                        let part: Vec<u16> = part.take_while(|unit| *unit != 0 && *unit != 0xffff).collect();
                        long.splice(0..0, part);
                        long.truncate(255);
                    }
                    _ if attributes & VOLUME_LABEL != 0 => long.clear(),
                    _ => {
                        let long = core::mem::take(&mut long);
                        let is = same(&long, name) || short_name(entry).eq_ignore_ascii_case(name.as_bytes());
                        if is && attributes & DIRECTORY == kind {
                            let high = u32::from(field::u16(entry, 20).unwrap_or_default()) << 16;
                            let low = u32::from(field::u16(entry, 26).unwrap_or_default());
                            return Ok(((high | low) & CLUSTER, field::u32(entry, 28).unwrap_or_default()));
                        }
                    }
                }
            }
        }
        Err(Error::Missing { name, cluster: directory })
    }

    fn pieces(&self, cluster: u32, size: usize) -> Result<Vec<(u64, u64)>, Error> {
        let count = size.div_ceil(self.cluster_size.max(1));
        if count == 0 {
            return Ok(Vec::new());
        }
        let clusters = self.chain(cluster, count as u64)?;
        if clusters.len() < count {
            return Err(Error::Chain { cluster, expected: count as u64, found: clusters.len() as u64 });
        }
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        let mut left = size;
        for cluster in clusters {
            let start = self.place(cluster).unwrap_or_default();
            let length = left.min(self.cluster_size) as u64;
            left = left.saturating_sub(self.cluster_size);
            match pieces.last_mut() {
                Some(last) if last.0.saturating_add(last.1) == start => {
                    last.1 = last.1.saturating_add(length)
                }
                _ => pieces.push((start, length)),
            }
        }
        Ok(pieces)
    }
}

fn same(long: &[u16], name: &str) -> bool {
    let upper = |unit: u16| u8::try_from(unit).map_or(unit, |byte| byte.to_ascii_uppercase().into());
    !long.is_empty() && long.iter().copied().map(upper).eq(name.encode_utf16().map(upper))
}

fn short_name(entry: &[u8]) -> Vec<u8> {
    let part = |from, length| {
        let bytes = field::bytes(entry, from, length).unwrap_or_default();
        let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last.saturating_add(1));
        bytes.get(..end).unwrap_or_default()
    };
    let (name, extension) = (part(0, 8), part(8, 3));
    match extension {
        [] => name.to_vec(),
        _ => [name, b".", extension].concat(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const DATA: usize = 3 * 512;

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    /// EFI (cluster 3), BOOT (4), BOOTX64.EFI in clusters 5, 7, 8.
    fn partition() -> Vec<u8> {
        let mut bytes = alloc::vec![0; DATA + 10 * 512];
        put(&mut bytes, 11, &512u16.to_le_bytes());
        put(&mut bytes, 13, &[1, 1, 0, 2]);
        put(&mut bytes, 32, &13u32.to_le_bytes());
        put(&mut bytes, 36, &1u32.to_le_bytes());
        put(&mut bytes, 44, &2u32.to_le_bytes());
        put(&mut bytes, 510, &[0x55, 0xaa]);
        for (cluster, next) in [(2usize, END), (3, END), (4, END), (5, 7), (7, 8), (8, CLUSTER)] {
            put(&mut bytes, 512 + 4 * cluster, &next.to_le_bytes());
        }
        let entry = |name: &[u8; 11], kind: u8, cluster: u16, size: u32| {
            let mut entry = [0; 32];
            put(&mut entry, 0, name);
            entry[11] = kind;
            put(&mut entry, 26, &cluster.to_le_bytes());
            put(&mut entry, 28, &size.to_le_bytes());
            entry
        };
        let at = |cluster: usize| DATA + (cluster - 2) * 512;
        put(&mut bytes, at(2), &entry(b"LABEL      ", VOLUME_LABEL, 0, 0));
        put(&mut bytes, at(2) + 32, &entry(b"EFI        ", DIRECTORY, 3, 0));
        put(&mut bytes, at(3), &entry(b"\xe5OOT       ", DIRECTORY, 9, 0));
        let mut long = [0xff; 32];
        put(&mut long, 0, &[0x41]);
        put(&mut long, 11, &[LONG_NAME, 0, 0]);
        for (at, unit) in [(1, 'B'), (3, 'o'), (5, 'o'), (7, 't'), (9, '\0')] {
            put(&mut long, at, &(unit as u16).to_le_bytes());
        }
        put(&mut bytes, at(3) + 32, &long);
        put(&mut bytes, at(3) + 64, &entry(b"BO~1       ", DIRECTORY, 4, 0));
        put(&mut bytes, at(4), &entry(b"BOOTX64 EFI", 0x20, 5, 1100));
        bytes
    }

    #[test]
    fn the_program_is_found_by_long_and_short_names_in_its_pieces() {
        let start = |cluster: u64| DATA as u64 + (cluster - 2) * 512;
        let bytes = partition();
        assert_eq!(boot_program(&&*bytes), Ok(alloc::vec![(start(5), 512), (start(7), 588)]));
        let at = |cluster, length| &bytes[start(cluster) as usize..][..length];
        assert_eq!(read_boot_program(&&*bytes), Ok([at(5, 512), at(7, 588)].concat()));
    }

    #[test]
    fn a_cyclic_chain_is_refused() {
        let mut bytes = partition();
        put(&mut bytes, 512 + 4 * 7, &5u32.to_le_bytes());
        assert_eq!(boot_program(&&*bytes), Err(Error::Chain { cluster: 5, expected: 3, found: 3 }));
        put(&mut bytes, 512 + 4 * 2, &2u32.to_le_bytes());
        put(&mut bytes, DATA, &[0xe5; 32]);
        put(&mut bytes, DATA + 32, &[0xe5; 480]);
        assert!(matches!(boot_program(&&*bytes), Err(Error::Chain { cluster: 2, .. })));
    }

    #[test]
    fn a_chain_that_is_too_short_or_leaves_the_partition_is_refused() {
        let mut bytes = partition();
        put(&mut bytes, 512 + 4 * 7, &END.to_le_bytes());
        assert_eq!(boot_program(&&*bytes), Err(Error::Chain { cluster: 5, expected: 3, found: 2 }));
        put(&mut bytes, 512 + 4 * 7, &0x00ff_ffffu32.to_le_bytes());
        assert!(matches!(boot_program(&&*bytes), Err(Error::Chain { found: 2, .. })));
        put(&mut bytes, 512 + 4 * 7, &0u32.to_le_bytes());
        assert!(matches!(boot_program(&&*bytes), Err(Error::Chain { found: 2, .. })));
    }

    #[test]
    fn a_missing_file_is_named() {
        let mut bytes = partition();
        put(&mut bytes, DATA + 2 * 512, b"OTHER   EFI");
        assert_eq!(boot_program(&&*bytes), Err(Error::Missing { name: "BOOTX64.EFI", cluster: 4 }));
        put(&mut bytes, DATA + 32 + 11, &[0x20]);
        assert_eq!(boot_program(&&*bytes), Err(Error::Missing { name: "EFI", cluster: 2 }));
    }

    #[test]
    fn bytes_that_are_not_fat32_are_refused() {
        for (at, value) in [(510, 0u8), (11, 1), (13, 0), (13, 3), (16, 0), (22, 1), (32, 0xff), (36, 0xff)] {
            let mut bytes = partition();
            bytes[at] = value;
            assert!(matches!(boot_program(&&*bytes), Err(Error::Field { .. })), "{at}");
        }
        assert!(boot_program(&&[][..]).is_err());
    }
}
