//! The superblock before a hash tree, read from and written as its 512 bytes.
//!
//! # Shape
//!
//! ```text
//! offset  length  field (integers little-endian)
//!      0       8  signature "verity\0\0"
//!      8       4  version, 1
//!     12       4  hash type, 1
//!     16      16  uuid
//!     32      32  algorithm "sha256", padded with zeros
//!     64       4  data block size in bytes
//!     68       4  hash block size in bytes
//!     72       8  data blocks
//!     80       2  salt length in bytes
//!     82       6  zeros
//!     88     256  salt, padded with zeros
//!    344     168  zeros
//! ```
//!
//! # Source
//!
//! cryptsetup `lib/verity/verity.c`, `struct verity_sb`, `VERITY_read_sb`, `VERITY_write_sb`.
//!
//! # Not here
//!
//! Trust: the root hash does not cover these bytes, so a reader that must not trust them takes the geometry
//! from a measured place instead. The zeros are checked, unlike in `veritysetup`: the reader accepts exactly
//! what the writer writes.

use std::io::{self, Read};
use std::num::NonZeroU64;

use crate::layout::{self, Layout};
use crate::parameters::{BlockSize, HashOffset, ParameterError, Salt, Uuid};

const SIGNATURE: [u8; 8] = *b"verity\0\0";
const VERSION: u32 = 1;
const HASH_TYPE: u32 = 1;
const SALT_TAIL: usize = 168;

/// Why bytes are not a superblock that this crate supports.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuperblockError {
    /// The stream failed.
    #[error("cannot read the superblock")]
    Read(#[source] io::Error),
    /// The bytes end too early.
    #[error("superblock of {found} bytes, expected {}", Superblock::LENGTH)]
    Truncated {
        /// The bytes found.
        found: usize,
    },
    /// The signature is wrong.
    #[error("not a verity superblock: the signature is `{}`, expected `verity\\0\\0`", .found.escape_ascii())]
    Signature {
        /// The first eight bytes.
        found: [u8; 8],
    },
    /// The version is not supported.
    #[error("superblock version {found}, expected 1")]
    Version {
        /// The version.
        found: u32,
    },
    /// The hash type is not supported; 0 is Chrome OS's, with the salt after the block.
    #[error("hash type {found}, expected 1")]
    HashType {
        /// The hash type.
        found: u32,
    },
    /// The hash algorithm is not supported.
    #[error("hash algorithm `{}`, expected `sha256`", .found.trim_ascii_end().escape_ascii())]
    Algorithm {
        /// The field's 32 bytes, with trailing zeros replaced by blanks.
        found: [u8; 32],
    },
    /// The data block size is out of range.
    #[error("invalid data block size")]
    DataBlockSize(#[source] ParameterError),
    /// The hash block size is out of range.
    #[error("invalid hash block size")]
    HashBlockSize(#[source] ParameterError),
    /// The superblock covers nothing.
    #[error("0 data blocks, expected at least 1")]
    NoData,
    /// The data would be longer than any file.
    #[error("{data_blocks} data blocks of {data_block_size} bytes, expected less than 2^63 bytes")]
    TooLarge {
        /// The number of data blocks.
        data_blocks: u64,
        /// The size of each.
        data_block_size: BlockSize,
    },
    /// The salt is longer than its field.
    #[error("salt of {found} bytes, expected at most {}", Salt::MAX)]
    SaltLength {
        /// Length in bytes.
        found: u16,
    },
    /// A byte that must be zero is not.
    #[error("byte {found:#04x} at offset {offset}, expected 0")]
    NotZero {
        /// Offset in the superblock.
        offset: usize,
        /// The byte.
        found: u8,
    },
}

/// The description of a tree: its parameters and the number of data blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    uuid: Uuid,
    data_block_size: BlockSize,
    hash_block_size: BlockSize,
    data_blocks: NonZeroU64,
    salt: Salt,
}

impl Superblock {
    /// The length in bytes.
    pub const LENGTH: usize = 512;

    /// The digest's name, as the kernel and the superblock spell it.
    pub const ALGORITHM: &str = "sha256";

    /// Describes a tree over this many data blocks.
    ///
    /// # Errors
    ///
    /// [`SuperblockError::NoData`], [`SuperblockError::TooLarge`].
    pub fn new(
        uuid: Uuid,
        data_block_size: BlockSize,
        hash_block_size: BlockSize,
        data_blocks: u64,
        salt: Salt,
    ) -> Result<Self, SuperblockError> {
        let length = data_blocks.checked_mul(u64::from(data_block_size.bytes()));
        if length.is_none_or(|length| i64::try_from(length).is_err()) {
            return Err(SuperblockError::TooLarge { data_blocks, data_block_size });
        }
        let data_blocks = NonZeroU64::new(data_blocks).ok_or(SuperblockError::NoData)?;
        Ok(Self { uuid, data_block_size, hash_block_size, data_blocks, salt })
    }

    /// Reads a superblock from the next 512 bytes of a stream.
    ///
    /// # Errors
    ///
    /// [`SuperblockError`], every variant.
    pub fn read(stream: impl Read) -> Result<Self, SuperblockError> {
        let mut bytes = Vec::with_capacity(Self::LENGTH);
        stream.take(Self::LENGTH as u64).read_to_end(&mut bytes).map_err(SuperblockError::Read)?;
        Self::from_bytes(&bytes)
    }

    /// Reads a superblock from the first 512 of these bytes.
    ///
    /// # Errors
    ///
    /// [`SuperblockError`], every variant but [`SuperblockError::Read`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let mut fields = Fields { rest: bytes, offset: 0, length: bytes.len() };
        let signature = fields.next()?;
        if signature != SIGNATURE {
            return Err(SuperblockError::Signature { found: signature });
        }
        match u32::from_le_bytes(fields.next()?) {
            VERSION => {}
            found => return Err(SuperblockError::Version { found }),
        }
        match u32::from_le_bytes(fields.next()?) {
            HASH_TYPE => {}
            found => return Err(SuperblockError::HashType { found }),
        }
        let uuid = Uuid::from_bytes(fields.next()?);
        let algorithm = fields.next()?;
        if algorithm != algorithm_field() {
            let found = algorithm.map(|byte| if byte == 0 { b' ' } else { byte });
            return Err(SuperblockError::Algorithm { found });
        }
        let data_block_size =
            BlockSize::new(u32::from_le_bytes(fields.next()?)).map_err(SuperblockError::DataBlockSize)?;
        let hash_block_size =
            BlockSize::new(u32::from_le_bytes(fields.next()?)).map_err(SuperblockError::HashBlockSize)?;
        let data_blocks = u64::from_le_bytes(fields.next()?);
        let salt_length = u16::from_le_bytes(fields.next()?);
        fields.zeros::<6>()?;
        let salt_offset = fields.offset;
        let salt_field: [u8; Salt::MAX] = fields.next()?;
        let (salt, tail) = salt_field
            .split_at_checked(usize::from(salt_length))
            .ok_or(SuperblockError::SaltLength { found: salt_length })?;
        all_zero(tail, salt_offset + salt.len())?;
        fields.zeros::<SALT_TAIL>()?;
        let salt = Salt::new(salt).map_err(|_| SuperblockError::SaltLength { found: salt_length })?;
        Self::new(uuid, data_block_size, hash_block_size, data_blocks, salt)
    }

    /// Writes the superblock.
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let salt = self.salt.as_bytes();
        // At most 256, by `Salt`'s constructor.
        let salt_length = salt.len() as u16;
        let fields: [&[u8]; 11] = [
            &SIGNATURE,
            &VERSION.to_le_bytes(),
            &HASH_TYPE.to_le_bytes(),
            &self.uuid.to_bytes(),
            &algorithm_field(),
            &self.data_block_size.bytes().to_le_bytes(),
            &self.hash_block_size.bytes().to_le_bytes(),
            &self.data_blocks.get().to_le_bytes(),
            &salt_length.to_le_bytes(),
            &[0; 6],
            salt,
        ];
        // All fields with the longest salt end at byte 344, so `zip` drops none.
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// Returns the UUID.
    pub const fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Returns the size of a data block.
    pub const fn data_block_size(&self) -> BlockSize {
        self.data_block_size
    }

    /// Returns the size of a hash block.
    pub const fn hash_block_size(&self) -> BlockSize {
        self.hash_block_size
    }

    /// Returns the number of data blocks that the tree covers.
    pub const fn data_blocks(&self) -> u64 {
        self.data_blocks.get()
    }

    /// Returns the length of the data that the tree covers, in bytes, below 2^63.
    pub fn data_length(&self) -> u64 {
        self.data_blocks.get() * u64::from(self.data_block_size.bytes())
    }

    /// Returns the salt.
    pub const fn salt(&self) -> &Salt {
        &self.salt
    }

    /// Returns the number of the tree's first hash block when the superblock lies at this offset, counted from
    /// the start of the file or device: `hash_start_block` of the kernel's table line.
    pub fn hash_start_block(&self, offset: HashOffset) -> u64 {
        layout::hash_start_block(offset, self.hash_block_size)
    }

    /// Lays out the tree that the superblock describes.
    pub fn layout(&self) -> Layout {
        Layout::new(self.data_blocks, self.hash_block_size)
    }
}

fn algorithm_field() -> [u8; 32] {
    let mut field = [0; 32];
    for (to, from) in field.iter_mut().zip(Superblock::ALGORITHM.bytes()) {
        *to = from;
    }
    field
}

/// The fields that are not yet read.
struct Fields<'bytes> {
    rest: &'bytes [u8],
    offset: usize,
    length: usize,
}

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> Result<[u8; N], SuperblockError> {
        let (field, rest) =
            self.rest.split_first_chunk::<N>().ok_or(SuperblockError::Truncated { found: self.length })?;
        self.rest = rest;
        self.offset += N;
        Ok(*field)
    }

    fn zeros<const N: usize>(&mut self) -> Result<(), SuperblockError> {
        let offset = self.offset;
        all_zero(&self.next::<N>()?, offset)
    }
}

fn all_zero(bytes: &[u8], start: usize) -> Result<(), SuperblockError> {
    match bytes.iter().enumerate().find(|(_, byte)| **byte != 0) {
        None => Ok(()),
        Some((position, found)) => Err(SuperblockError::NotZero { offset: start + position, found: *found }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> Superblock {
        let uuid = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
        let salt = "aabb".parse().unwrap();
        Superblock::new(uuid, BlockSize::default(), BlockSize::default(), 130, salt).unwrap()
    }

    /// Reads the example with these bytes written at an offset.
    fn with(offset: usize, patch: &[u8]) -> Result<Superblock, SuperblockError> {
        let mut bytes = example().to_bytes();
        bytes[offset..offset + patch.len()].copy_from_slice(patch);
        Superblock::from_bytes(&bytes)
    }

    #[test]
    fn fields_are_where_the_kernel_tools_expect_them() {
        let bytes = example().to_bytes();
        assert_eq!(&bytes[0..16], b"verity\0\0\x01\0\0\0\x01\0\0\0");
        assert_eq!(bytes[16..18], [0x00, 0x11]);
        assert_eq!(&bytes[32..39], b"sha256\0");
        assert_eq!(bytes[64..72], [0, 0x10, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(bytes[72..82], [130, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(bytes[88..91], [0xaa, 0xbb, 0]);
    }

    #[test]
    fn a_truncated_superblock_is_refused() {
        let bytes = example().to_bytes();
        for length in 0..Superblock::LENGTH {
            let read = Superblock::read(&bytes[..length]);
            assert!(matches!(read, Err(SuperblockError::Truncated { found }) if found == length), "{length}");
        }
    }

    #[test]
    fn a_stream_that_fails_is_reported() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        assert!(matches!(Superblock::read(Broken), Err(SuperblockError::Read(_))));
    }

    #[test]
    fn another_signature_version_or_hash_type_is_refused() {
        assert!(matches!(with(0, b"V"), Err(SuperblockError::Signature { .. })));
        assert!(matches!(with(8, &[2]), Err(SuperblockError::Version { found: 2 })));
        assert!(matches!(with(12, &[0]), Err(SuperblockError::HashType { found: 0 })));
    }

    #[test]
    fn another_algorithm_is_refused_by_name() {
        let error = with(32, b"sha512").unwrap_err();
        assert_eq!(error.to_string(), "hash algorithm `sha512`, expected `sha256`");
        assert!(matches!(with(63, b"x"), Err(SuperblockError::Algorithm { .. })));
    }

    #[test]
    fn block_sizes_out_of_range_are_refused() {
        assert!(matches!(with(64, &[1]), Err(SuperblockError::DataBlockSize(_))));
        assert!(matches!(with(68, &[0; 4]), Err(SuperblockError::HashBlockSize(_))));
    }

    #[test]
    fn no_data_and_huge_data_are_refused() {
        assert!(matches!(with(72, &[0; 8]), Err(SuperblockError::NoData)));
        for count in [u64::MAX, 1 << 52, 1 << 51] {
            let read = with(72, &count.to_le_bytes());
            assert!(
                matches!(read, Err(SuperblockError::TooLarge { data_blocks, .. }) if data_blocks == count)
            );
        }
        assert!(with(72, &((1_u64 << 51) - 1).to_le_bytes()).is_ok());
    }

    #[test]
    fn a_salt_longer_than_its_field_is_refused() {
        assert!(matches!(with(80, &[1, 1]), Err(SuperblockError::SaltLength { found: 257 })));
        assert!(matches!(with(80, &[0xff, 0xff]), Err(SuperblockError::SaltLength { found: 0xffff })));
        assert_eq!(with(80, &[0, 1]).unwrap().salt().as_bytes().len(), 256);
    }

    #[test]
    fn a_byte_that_must_be_zero_is_named_by_its_offset() {
        for at in [82, 87, 90, 343, 344, 511] {
            let read = with(at, &[5]);
            assert!(
                matches!(read, Err(SuperblockError::NotZero { offset, found: 5 }) if offset == at),
                "{at}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            uuid: [u8; 16],
            data in 9_u32..=19,
            hash in 9_u32..=19,
            data_blocks in 1_u64..1 << 44,
            salt in proptest::collection::vec(any::<u8>(), 0..=256),
        ) {
            let size = |bits: u32| BlockSize::new(1 << bits).unwrap();
            let salt = Salt::new(salt).unwrap();
            let superblock =
                Superblock::new(Uuid::from_bytes(uuid), size(data), size(hash), data_blocks, salt).unwrap();
            prop_assert_eq!(Superblock::from_bytes(&superblock.to_bytes()).unwrap(), superblock);
        }

        #[test]
        fn a_changed_byte_is_refused_or_reads_as_just_that_byte(offset in 0..512_usize, byte: u8) {
            let mut bytes = example().to_bytes();
            bytes[offset] = byte;
            if let Ok(read) = Superblock::from_bytes(&bytes) {
                prop_assert_eq!(read.to_bytes(), bytes);
            }
        }
    }
}
