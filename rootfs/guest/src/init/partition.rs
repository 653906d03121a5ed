//! The two partitions' device numbers, from what the kernel says of its block devices.
//!
//! # Shape
//!
//! `/proc/partitions` lists `major minor blocks name`, and `/sys/dev/block/MAJOR:MINOR/uevent` has
//! `KEY=value` lines with `PARTUUID=` for every partition of a GPT.
//!
//! # Source
//!
//! `block/genhd.c` (`show_partition`) and `block/partitions/core.c` (`part_uevent`; `PARTUUID` since
//! Linux 6.10; confirmed on Debian's 6.12.107).
//!
//! # Not here
//!
//! Trust: the host may give two partitions the same GUID, or swap them. Of several the lowest device
//! number is taken, and dm-verity holds whatever that is to the root hash.

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

/// Reads the device numbers of `/proc/partitions`, in its order; its heading and blank line name none.
pub fn devices(text: &[u8]) -> impl Iterator<Item = Device> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = core::str::from_utf8(line).ok()?.split_ascii_whitespace();
        Some(Device { major: fields.next()?.parse().ok()?, minor: fields.next()?.parse().ok()? })
    })
}

/// Reads the GUID in a block device's `uevent` file; `None` for a disk, or a partition that has none.
pub fn part_uuid(uevent: &[u8]) -> Option<PartUuid> {
    uevent.split(|byte| *byte == b'\n').find_map(|line| PartUuid::parse(line.strip_prefix(b"PARTUUID=")?))
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

    const GUID: &str = "6c0ad2d4-54c1-4d31-a1c1-0d9a3c5f0e11";

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
    fn the_guid_is_read_from_its_line_only() {
        let uevent = format!("MAJOR=254\nDEVTYPE=partition\nPARTNAME=PARTUUID={GUID}\nPARTUUID={GUID}\n");
        assert_eq!(part_uuid(uevent.as_bytes()), PartUuid::parse(GUID.as_bytes()));
        assert_eq!(part_uuid(format!("PARTNAME=PARTUUID={GUID}\n").as_bytes()), None);
    }

    #[test]
    fn a_guid_of_another_kind_is_none() {
        assert_eq!(part_uuid(b"PARTUUID=1c2d3e4f-01\n"), None);
        assert_eq!(part_uuid(b""), None);
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
}
