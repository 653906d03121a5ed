//! The device numbers of the two partitions, from the kernel's block devices and the GPT.
//!
//! # Shape
//!
//! ```text
//! /proc/partitions                     major minor blocks name   every block device
//! /sys/dev/block/M:N/uevent            DEVTYPE= PARTN= DEVNAME=
//! /sys/dev/block/M:N/../dev            M:N                       the disk of a partition
//! the disk, sector 1                   GPT header, 92 bytes
//!   0 "EFI PART"    72 first sector of the entries 8    80 entries 4    84 bytes of an entry 4
//! the disk, entry PARTN - 1            at 16: the partition's GUID, 16 bytes
//! ```
//!
//! # Source
//!
//! `block/genhd.c` (`show_partition`) and `block/partitions/core.c` (`part_uevent`) of Linux 6.12;
//! UEFI 2.10, 5.3.2 and 5.3.3 for the table. The kernel does not report a partition's GUID in `uevent` before
//! 6.14 (seen on Debian's 6.12.107), so the one entry of each partition is read from its disk.
//!
//! # Not here
//!
//! Trust, and therefore checksums: the kernel has already checked the table, and the host may still give two
//! partitions the same GUID, or swap them. Of several the lowest device number is taken, and dm-verity checks
//! whatever that is against the root hash.

use super::cmdline::PartUuid;
use core::fmt;

/// Names a block device by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// The driver's number.
    pub major: u32,
    /// The device's number among the driver's.
    pub minor: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Reads the device numbers of `/proc/partitions`, in its order, without its heading and blank line.
pub fn devices(text: &[u8]) -> impl Iterator<Item = Device> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = core::str::from_utf8(line).ok()?.split_ascii_whitespace();
        Some(Device { major: fields.next()?.parse().ok()?, minor: fields.next()?.parse().ok()? })
    })
}

/// Reads the device number of a `dev` file: `MAJOR:MINOR` and a line feed.
pub fn device(text: &[u8]) -> Option<Device> {
    let (major, minor) = core::str::from_utf8(text).ok()?.strip_suffix('\n')?.split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// Reads a partition's place in its table, from 1, in its `uevent`; `None` if it is not a partition.
pub fn index(uevent: &[u8]) -> Option<u32> {
    field(uevent, b"DEVTYPE=").filter(|kind| *kind == "partition")?;
    field(uevent, b"PARTN=")?.parse().ok()
}

/// Reads the name of a device's node below `/dev` in its `uevent`.
pub fn name(uevent: &[u8]) -> Option<&str> {
    field(uevent, b"DEVNAME=")
}

/// Reads the bytes of a sector in a `logical_block_size` file.
pub fn sector(text: &[u8]) -> Option<u64> {
    core::str::from_utf8(text).ok()?.strip_suffix('\n')?.parse().ok()
}

fn field<'a>(uevent: &'a [u8], key: &[u8]) -> Option<&'a str> {
    let value = uevent.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(key))?;
    core::str::from_utf8(value).ok()
}

/// Tells where on the disk the entry of a partition is, from the header of the table; `None` if it is not a
/// GPT or has no such entry.
pub fn entry(header: &[u8; 92], sector: u64, index: u32) -> Option<u64> {
    let number = |at: usize| header.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
    let first = header.get(72..)?.first_chunk().copied().map(u64::from_le_bytes)?;
    let (entries, size) = (number(80)?, number(84)?);
    let fits = header.starts_with(b"EFI PART") && index <= entries && size >= 128;
    let before = u64::from(index.checked_sub(1).filter(|_| fits)?).checked_mul(size.into())?;
    first.checked_mul(sector)?.checked_add(before)
}

/// Takes the partition's GUID from the beginning of its entry.
pub fn part_uuid(entry: &[u8; 32]) -> PartUuid {
    let [.., guid] = entry.as_chunks::<16>().0 else { return PartUuid([0; 16]) };
    PartUuid(*guid)
}

/// Keeps the lowest of the devices that it is shown.
pub fn lowest(kept: &mut Option<Device>, seen: Device) {
    if kept.is_none_or(|kept| seen < kept) {
        *kept = Some(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARTITION: &[u8] = b"MAJOR=254\nMINOR=1\nDEVNAME=vda1\nDEVTYPE=partition\nDISKSEQ=1\nPARTN=3\n";

    fn header(first: u64, entries: u32, size: u32) -> [u8; 92] {
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[72..80].copy_from_slice(&first.to_le_bytes());
        header[80..84].copy_from_slice(&entries.to_le_bytes());
        header[84..88].copy_from_slice(&size.to_le_bytes());
        header
    }

    #[test]
    fn the_heading_of_the_list_names_no_device() {
        let text =
            b"major minor  #blocks  name\n\n 254        0      65536 vda\n 254        1       8192 vda1\n";
        let read: Vec<_> = devices(text).collect();
        assert_eq!(read, [Device { major: 254, minor: 0 }, Device { major: 254, minor: 1 }]);
    }

    #[test]
    fn lines_that_are_no_device_are_passed_over() {
        assert_eq!(devices(b"\xff\n1\n1 x\n-1 2\n99999999999 1\n").count(), 0);
    }

    #[test]
    fn a_device_number_is_two_numbers_and_a_line_feed() {
        assert_eq!(device(b"254:16\n"), Some(Device { major: 254, minor: 16 }));
        for text in [&b""[..], b"254:16", b"254\n", b"254:\n", b":1\n", b"a:b\n", b"1:2:3\n", b"\xff:1\n"] {
            assert_eq!(device(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_a_partition_has_a_place_in_a_table() {
        assert_eq!(index(PARTITION), Some(3));
        assert_eq!(name(PARTITION), Some("vda1"));
        assert_eq!(index(b"DEVTYPE=disk\nPARTN=3\n"), None);
        assert_eq!(index(b"DEVTYPE=partition\n"), None);
        assert_eq!(index(b"PARTNAME=PARTN=3\nDEVTYPE=partition\n"), None);
        assert_eq!(index(b"DEVTYPE=partition\nPARTN=x\n"), None);
        assert_eq!(name(b"MAJOR=254\n"), None);
    }

    #[test]
    fn a_sectors_size_is_a_number_and_a_line_feed() {
        assert_eq!(sector(b"4096\n"), Some(4096));
        assert_eq!(
            (sector(b"512"), sector(b"\n"), sector(b"x\n"), sector(b"\xff\n")),
            (None, None, None, None)
        );
    }

    #[test]
    fn entries_follow_each_other_from_their_first_sector() {
        assert_eq!(entry(&header(2, 128, 128), 512, 1), Some(1024));
        assert_eq!(entry(&header(2, 128, 128), 4096, 128), Some(8192 + 127 * 128));
        assert_eq!(entry(&header(5, 4, 256), 512, 2), Some(2816));
    }

    #[test]
    fn an_entry_that_the_table_cannot_have_is_none() {
        assert_eq!(entry(&header(2, 128, 128), 512, 129), None);
        assert_eq!(entry(&header(2, 128, 128), 512, 0), None);
        assert_eq!(entry(&header(2, 128, 64), 512, 1), None);
        assert_eq!(entry(&header(u64::MAX, 128, 128), 512, 1), None);
        let mut other = header(2, 128, 128);
        other[0] = b'e';
        assert_eq!(entry(&other, 512, 1), None);
    }

    #[test]
    fn the_guid_is_the_second_half_of_the_entrys_beginning() {
        let bytes: [u8; 32] = std::array::from_fn(|at| at as u8);
        assert_eq!(part_uuid(&bytes), PartUuid(std::array::from_fn(|at| at as u8 + 16)));
    }

    #[test]
    fn of_two_with_the_same_guid_the_lowest_is_taken_in_any_order() {
        let [low, high] = [Device { major: 8, minor: 17 }, Device { major: 254, minor: 1 }];
        for order in [[low, high], [high, low]] {
            let mut kept = None;
            order.into_iter().for_each(|seen| lowest(&mut kept, seen));
            assert_eq!(kept, Some(low));
        }
    }

    proptest! {
        #[test]
        fn any_header_has_an_entry_or_none(header in prop::array::uniform(any::<u8>()), sector: u64, index: u32) {
            let _ = entry(&header, sector, index);
        }
    }
}
