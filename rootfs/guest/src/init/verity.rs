//! The requests that make the device mapper verify every block, from the command line.
//!
//! # Shape
//!
//! A request is 1,200 bytes in the host's byte order: `dm_ioctl` (312), then for a table load one
//! `dm_target_spec` (40) and its NUL-ended parameters.
//!
//! ```text
//! 0 version 3×4   12 data_size   16 data_start   20 target_count   24 open_count   28 flags
//! 32 event_nr     36 padding     40 dev 8        48 name 128       176 uuid 129    305 data 7
//! 312 sector_start 8   320 length 8   328 status   332 next   336 target_type 16   352 parameters
//! ```
//!
//! # Source
//!
//! `include/uapi/linux/dm-ioctl.h`; `Documentation/admin-guide/device-mapper/verity.rst` for the
//! parameters. `panic_on_error` is in Debian's kernel 6.12.107.
//!
//! # Not here
//!
//! The on-disk superblock: the host controls it, and it is not needed.

use super::cmdline::Boot;
use super::line::Line;
use super::partition::Device;
use core::fmt::Write as _;

/// Size of every request in bytes; the table with the longest salt takes fewer than 1,100.
pub const SIZE: usize = 1200;

/// The name of the mapped device.
pub const NAME: &str = "root";

const HEADER: usize = 312;
const SPECIFICATION: usize = 40;
const READONLY: u32 = 1;

/// Holds one request of the device mapper; its `data_size` is its length.
#[repr(align(8))]
pub struct Request([u8; SIZE]);

/// Names a command of the device mapper, by its number in the header file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Makes the device, without a table.
    Create = 3,
    /// Resumes the device: the table loaded last comes into force.
    Resume = 6,
    /// Loads a table.
    Load = 9,
}

impl Command {
    /// The number of the ioctl: `_IOWR(0xfd, command, struct dm_ioctl)`.
    pub fn number(self) -> usize {
        3 << 30 | HEADER << 16 | 0xfd << 8 | self as usize
    }
}

impl Request {
    /// Names the device, read-only, with no table: what `Create` and `Resume` take.
    pub fn plain() -> Self {
        let mut request = Self([0; SIZE]);
        for (offset, value) in [(0, 4), (12, SIZE as u32), (16, HEADER as u32), (28, READONLY)] {
            request.put(offset, &u32::to_ne_bytes(value));
        }
        request.put(48, NAME.as_bytes());
        request
    }

    /// Carries the one table of the device: what `Load` takes.
    pub fn table(boot: &Boot, data: Device, tree: Device) -> Option<Self> {
        let parameters = parameters(boot, data, tree)?;
        let mut request = Self::plain();
        request.put(20, &u32::to_ne_bytes(1));
        request.put(HEADER + 8, &boot.geometry.sectors().to_ne_bytes());
        request.put(HEADER + 24, b"verity");
        request.put(HEADER + SPECIFICATION, parameters.as_bytes());
        Some(request)
    }

    /// The number of the device, as the kernel wrote it into the answer (`huge_encode_dev`).
    pub fn device(&self) -> Device {
        let number = self.0.get(40..48).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes);
        Device {
            major: (number >> 8 & 0xfff) as u32,
            minor: (number & 0xff | number >> 12 & 0xfff_ff00) as u32,
        }
    }

    /// The bytes, for the kernel to read and to answer in.
    pub fn bytes_mut(&mut self) -> &mut [u8; SIZE] {
        &mut self.0
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let to = self.0.get_mut(offset..).unwrap_or_default();
        to.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }
}

/// The parameters of the target; `None` when they do not fit into a request, which no salt can cause.
///
/// A wrong block and a block that cannot be read both end in a panic: a host that could make chosen
/// reads fail could choose which files the system goes without.
pub fn parameters(
    boot: &Boot,
    data: Device,
    tree: Device,
) -> Option<Line<{ SIZE - HEADER - SPECIFICATION }>> {
    let (geometry, mut line) = (boot.geometry, Line::new());
    let size = geometry.block_size();
    write!(line, "1 {data} {tree} {size} {size} {} {}", geometry.data_blocks(), geometry.hash_start())
        .ok()?;
    write!(line, " sha256 {} {} 2 panic_on_corruption panic_on_error", boot.root_hash, boot.salt).ok()?;
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::cmdline::{Filesystem, Geometry, PartUuid, RootHash, Salt};

    const DATA: Device = Device { major: 254, minor: 1 };
    const TREE: Device = Device { major: 254, minor: 2 };

    fn boot(salt: &[u8]) -> Boot {
        let guid = |text: &str| PartUuid::parse(text.as_bytes()).expect("a GUID");
        Boot {
            root: guid("00000000-0000-0000-0000-000000000001"),
            verity: guid("00000000-0000-0000-0000-000000000002"),
            filesystem: Filesystem::Erofs,
            root_hash: RootHash([0xab; 32]),
            salt: Salt::new(salt).expect("at most 256 bytes"),
            geometry: Geometry::new(4096, 100, 1).expect("fits"),
            profile: None,
        }
    }

    #[test]
    fn the_parameters_are_those_of_the_kernels_documentation() {
        assert_eq!(
            parameters(&boot(&[1, 2]), DATA, TREE).expect("fits").as_bytes(),
            format!(
                "1 254:1 254:2 4096 4096 100 1 sha256 {} 0102 2 panic_on_corruption panic_on_error",
                "ab".repeat(32)
            )
            .as_bytes()
        );
    }

    #[test]
    fn no_salt_is_a_dash() {
        let line = parameters(&boot(&[]), DATA, TREE).expect("fits");
        assert!(line.as_bytes().windows(3).any(|text| text == b" - "), "{line}");
    }

    #[test]
    fn the_longest_parameters_fit_with_their_nul() {
        let mut boot = boot(&[0xff; 256]);
        boot.geometry = Geometry::new(512, (1 << 54) - 1, (1 << 54) - 1).expect("fits");
        let far = Device { major: u32::MAX, minor: u32::MAX };
        let mut request = Request::table(&boot, far, far).expect("fits");
        assert_eq!(request.bytes_mut().last(), Some(&0));
    }

    #[test]
    fn the_fields_stand_where_the_header_file_puts_them() {
        let mut request = Request::table(&boot(&[]), DATA, TREE).expect("fits");
        let bytes = request.bytes_mut();
        assert_eq!(bytes[0..4], 4_u32.to_ne_bytes());
        assert_eq!(bytes[12..16], (SIZE as u32).to_ne_bytes());
        assert_eq!(bytes[16..20], 312_u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 1_u32.to_ne_bytes());
        assert_eq!(bytes[28..32], 1_u32.to_ne_bytes());
        assert_eq!(&bytes[48..53], b"root\0");
        assert_eq!(bytes[320..328], 800_u64.to_ne_bytes());
        assert_eq!(&bytes[336..343], b"verity\0");
        assert_eq!(&bytes[352..362], b"1 254:1 25");
    }

    #[test]
    fn the_ioctl_numbers_are_those_of_the_header_file() {
        let numbers = [Command::Create, Command::Load, Command::Resume].map(Command::number);
        assert_eq!(numbers, [0xc138_fd03, 0xc138_fd09, 0xc138_fd06]);
    }

    #[test]
    fn the_answered_device_number_is_unpacked() {
        let mut request = Request::plain();
        request.put(40, &u64::to_ne_bytes(0x123 << 20 | 0xfe << 8 | 0x45));
        assert_eq!(request.device(), Device { major: 254, minor: 0x12345 });
    }
}
