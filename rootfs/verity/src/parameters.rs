//! The parameters of a hash tree, as values that cannot be out of range.
//!
//! # Shape
//!
//! Salt: 0 to 256 bytes. Block sizes: powers of two from 512 to 524288 bytes. Hash offset: a multiple of 512
//! bytes. UUID: 16 bytes in text order.
//!
//! # Source
//!
//! cryptsetup `lib/internal.h` (`VERITY_BLOCK_SIZE_OK`), `lib/verity/verity.c` (`struct verity_sb`, the
//! alignment of the hash offset). The kernel maps only data blocks up to its page size, 4096 on x86-64.
//!
//! # Not here
//!
//! Anything random: see [`Parameters`] for what takes its place.

use std::fmt;
use std::str::FromStr;

/// A parameter that is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// The salt does not fit the superblock.
    #[error("salt of {found} bytes, expected at most {}", Salt::MAX)]
    SaltLength {
        /// Length in bytes.
        found: usize,
    },
    /// The salt is not written as pairs of hexadecimal digits.
    #[error("salt is not hexadecimal, expected pairs of digits or `-` for none")]
    SaltText,
    /// The block size is not a power of two in range.
    #[error("block size {found}, expected a power of two from {} to {}", BlockSize::MIN, BlockSize::MAX)]
    BlockSize {
        /// Size in bytes.
        found: u32,
    },
    /// The hash offset does not fall on a sector.
    #[error("hash offset {found}, expected a multiple of 512 below 2^63")]
    HashOffset {
        /// Offset in bytes.
        found: u64,
    },
    /// The UUID is not in its text form.
    #[error("uuid `{found}`, expected 32 hexadecimal digits in groups of 8-4-4-4-12")]
    Uuid {
        /// The text as given.
        found: String,
    },
    /// A number is not a decimal number in range.
    #[error("`{found}` is not a decimal number in range")]
    Number {
        /// The text as given.
        found: String,
    },
}

/// The bytes hashed before every block, 0 to 256 of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Salt(Vec<u8>);

impl Salt {
    /// The greatest length in bytes, limited by the superblock.
    pub const MAX: usize = 256;

    /// Takes a salt of at most [`Salt::MAX`] bytes.
    ///
    /// # Errors
    ///
    /// [`ParameterError::SaltLength`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, ParameterError> {
        let bytes = bytes.into();
        match bytes.len() {
            0..=Self::MAX => Ok(Self(bytes)),
            found => Err(ParameterError::SaltLength { found }),
        }
    }

    /// Returns the salt's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Writes the salt in hexadecimal, or `-` for no salt, as in the kernel's table line.
impl fmt::Display for Salt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => out.write_str("-"),
            bytes => out.write_str(&hex::encode(bytes)),
        }
    }
}

impl FromStr for Salt {
    type Err = ParameterError;

    fn from_str(text: &str) -> Result<Self, ParameterError> {
        match text {
            "-" => Ok(Self::default()),
            _ => Self::new(hex::decode(text).map_err(|_| ParameterError::SaltText)?),
        }
    }
}

/// The size of a data or hash block in bytes: a power of two from 512 to 524288.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(u32);

impl BlockSize {
    /// The smallest size in bytes, one sector.
    pub const MIN: u32 = 512;
    /// The greatest size in bytes that `veritysetup` formats.
    pub const MAX: u32 = 512 * 1024;

    /// Takes a size in bytes.
    ///
    /// # Errors
    ///
    /// [`ParameterError::BlockSize`].
    pub fn new(bytes: u32) -> Result<Self, ParameterError> {
        if bytes.is_power_of_two() && (Self::MIN..=Self::MAX).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(ParameterError::BlockSize { found: bytes })
        }
    }

    /// Returns the size in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// Returns the size in bytes as a `usize`, which has at least 32 bits on supported platforms.
    pub(crate) const fn length(self) -> usize {
        self.0 as usize
    }
}

/// 4096 bytes, the page size of x86-64.
impl Default for BlockSize {
    fn default() -> Self {
        Self(4096)
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl FromStr for BlockSize {
    type Err = ParameterError;

    fn from_str(text: &str) -> Result<Self, ParameterError> {
        Self::new(text.parse().map_err(|_| ParameterError::Number { found: text.into() })?)
    }
}

/// Where the hash area (superblock, then tree) starts in its file or device, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashOffset(u64);

impl HashOffset {
    /// The start of a file that holds nothing but the hash area.
    pub const ZERO: Self = Self(0);

    /// Takes an offset in bytes, a multiple of 512 that a file can have.
    ///
    /// # Errors
    ///
    /// [`ParameterError::HashOffset`].
    pub fn new(bytes: u64) -> Result<Self, ParameterError> {
        if bytes.is_multiple_of(512) && i64::try_from(bytes).is_ok() {
            Ok(Self(bytes))
        } else {
            Err(ParameterError::HashOffset { found: bytes })
        }
    }

    /// Returns the offset in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for HashOffset {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl FromStr for HashOffset {
    type Err = ParameterError;

    fn from_str(text: &str) -> Result<Self, ParameterError> {
        Self::new(text.parse().map_err(|_| ParameterError::Number { found: text.into() })?)
    }
}

/// The identity of a hash area, 16 bytes in text order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// Takes the 16 bytes as they are; dm-verity accepts any value.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the 16 bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Makes a UUID of 16 bytes of a digest, marked as RFC 9562 version 8 (defined by the application).
    pub(crate) fn derived(mut bytes: [u8; 16]) -> Self {
        let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
        *version = (*version & 0x0f) | 0x80; // RFC 9562 section 5.8
        *variant = (*variant & 0x3f) | 0x80; // RFC 9562 section 4.1
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                out.write_str("-")?;
            }
            write!(out, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = ParameterError;

    fn from_str(text: &str) -> Result<Self, ParameterError> {
        let groups = text.split('-').map(str::len);
        let mut bytes = [0; 16];
        if groups.eq([8, 4, 4, 4, 12]) && hex::decode_to_slice(text.replace('-', ""), &mut bytes).is_ok() {
            Ok(Self(bytes))
        } else {
            Err(ParameterError::Uuid { found: text.into() })
        }
    }
}

/// The parameters of a hash tree, apart from the data.
///
/// Equal data and equal parameters give equal bytes: nothing is random, unlike salt and UUID in
/// `veritysetup`. The defaults are:
///
/// * **No salt.** A salt makes tables of precomputed digests worthless against many images at once. It is not a
///   secret (it is in the superblock and in the kernel's table), and SHA-256 resists collisions without one, so
///   an empty salt costs no strength that a build could rely on, while a random salt would change the root hash
///   of every build. To use a salt, pass one, ideally derived from the inputs of the image.
/// * **UUID from the root hash.** The last 16 bytes of the root hash, marked as version 8. The UUID is not hashed,
///   so this is not circular; unlike a constant one, it differs between the images on one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The bytes hashed before every block.
    pub salt: Salt,
    /// The size of the blocks that the data is cut into.
    pub data_block_size: BlockSize,
    /// The size of the blocks that the tree is cut into.
    pub hash_block_size: BlockSize,
    /// The superblock's UUID; `None` derives it from the root hash.
    pub uuid: Option<Uuid>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_of_256_bytes_is_taken_and_one_of_257_refused() {
        assert_eq!(Salt::new([7; 256]).unwrap().as_bytes(), [7; 256]);
        assert_eq!(Salt::new([7; 257]), Err(ParameterError::SaltLength { found: 257 }));
    }

    #[test]
    fn a_salt_reads_as_it_prints() {
        for text in ["-", "00", "0123456789abcdef"] {
            assert_eq!(text.parse::<Salt>().unwrap().to_string(), text);
        }
        assert_eq!("".parse::<Salt>().unwrap(), Salt::default());
        assert_eq!("abc".parse::<Salt>(), Err(ParameterError::SaltText));
        assert_eq!("zz".parse::<Salt>(), Err(ParameterError::SaltText));
    }

    #[test]
    fn block_sizes_are_powers_of_two_from_512_to_524288() {
        for bytes in [512, 1024, 4096, 65536, 524_288] {
            assert_eq!(BlockSize::new(bytes).unwrap().bytes(), bytes);
        }
        for found in [0, 1, 256, 513, 4095, 6144, 1 << 20, u32::MAX] {
            assert_eq!(BlockSize::new(found), Err(ParameterError::BlockSize { found }));
        }
        assert_eq!("4k".parse::<BlockSize>(), Err(ParameterError::Number { found: "4k".into() }));
        assert_eq!("4096".parse::<BlockSize>(), Ok(BlockSize::default()));
    }

    #[test]
    fn hash_offsets_are_sectors_that_a_file_can_have() {
        assert_eq!(HashOffset::new(0), Ok(HashOffset::ZERO));
        assert_eq!(HashOffset::new(512).unwrap().bytes(), 512);
        for found in [1, 511, 4097, 1 << 63, u64::MAX] {
            assert_eq!(HashOffset::new(found), Err(ParameterError::HashOffset { found }));
        }
        assert_eq!("-1".parse::<HashOffset>(), Err(ParameterError::Number { found: "-1".into() }));
    }

    #[test]
    fn a_uuid_reads_as_it_prints() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        for wrong in ["", "00112233445566778899aabbccddeeff", "0011223g-4455-6677-8899-aabbccddeeff"] {
            assert_eq!(wrong.parse::<Uuid>(), Err(ParameterError::Uuid { found: wrong.into() }));
        }
    }

    #[test]
    fn a_derived_uuid_is_of_version_8_and_the_rfc_variant() {
        assert_eq!(Uuid::derived([0xff; 16]).to_string(), "ffffffff-ffff-8fff-bfff-ffffffffffff");
        assert_eq!(Uuid::derived([0; 16]).to_string(), "00000000-0000-8000-8000-000000000000");
    }
}
