//! What to boot, from the kernel's command line.
//!
//! # Shape
//!
//! Words separated by blanks; ours begin with `proofmark.` and each may occur once. Numbers are decimal
//! without leading zeros, hexadecimal is in lower case: each value has one spelling.
//!
//! | key | value | |
//! | --- | --- | --- |
//! | `proofmark.root` | `PARTUUID=` and a GUID | the partition that holds the filesystem |
//! | `proofmark.verity` | `PARTUUID=` and a GUID | the partition that holds the hash tree |
//! | `proofmark.rootfstype` | `erofs` | |
//! | `proofmark.roothash` | 64 hex digits | SHA-256 |
//! | `proofmark.salt` | 2 to 512 hex digits, or `-` for none | |
//! | `proofmark.data_blocks` | 1 and up | blocks of the filesystem |
//! | `proofmark.hash_start` | 0 and up | first block of the hash tree in its partition |
//! | `proofmark.block_size` | `512`, `1024`, `2048`, `4096` | bytes, of data and hash blocks; 4096 if not given |
//! | `proofmark.profile` | `release`, `debug` | read by later stages; optional |
//!
//! # Source
//!
//! Ours. Geometry, salt and root hash are here because the command line is measured, while the host controls
//! every byte of the disk. The quoting of blanks is the kernel's (`lib/cmdline.c`, `next_arg`).
//!
//! # Not here
//!
//! Any other key: the kernel and systemd read their own.

use super::line::Line;
use core::fmt;

/// The prefix of our keys; a word with this prefix that is not in the table above is refused.
pub const PREFIX: &str = "proofmark.";

/// Names the partitions of the root filesystem, and what its content must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The partition that holds the filesystem.
    pub root: PartUuid,
    /// The partition that holds the hash tree.
    pub verity: PartUuid,
    /// The type of the filesystem.
    pub filesystem: Filesystem,
    /// The root of the hash tree.
    pub root_hash: RootHash,
    /// The bytes hashed before each block.
    pub salt: Salt,
    /// Size of the filesystem and place of the tree.
    pub geometry: Geometry,
    /// The profile, for later stages.
    pub profile: Option<Profile>,
}

/// Holds the unique GUID of a GPT partition, in the byte order of the table: its first three fields are
/// little-endian.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PartUuid(pub [u8; 16]);

/// Names a filesystem that the root may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// EROFS.
    Erofs,
}

/// Names what an image was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For production: the host gets no access.
    Release,
    /// For development: logins are open.
    Debug,
}

/// Holds the SHA-256 root hash of a dm-verity tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RootHash(pub [u8; 32]);

/// Holds a dm-verity salt of 0 to 256 bytes (the limit of the superblock that other tools write).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt {
    bytes: [u8; 256],
    length: usize,
}

/// Holds the size of the data and the place of the tree, both known to be below 2^63 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    block_size: u32,
    data_blocks: u64,
    hash_start: u64,
}

/// Tells why a command line was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A word with our prefix is not in the table.
    Unknown {
        /// Where the word begins, in bytes.
        offset: usize,
        /// The beginning of the word.
        word: Line<48>,
    },
    /// A word with our prefix has a quotation mark, which could hide blanks.
    Quoted {
        /// Where the word begins, in bytes.
        offset: usize,
    },
    /// A key occurs twice.
    Duplicate {
        /// Where its second word begins, in bytes.
        offset: usize,
        /// The key.
        key: &'static str,
    },
    /// A required key is missing.
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value is not valid for its key.
    Malformed {
        /// The key.
        key: &'static str,
        /// What the key expects.
        expected: &'static str,
    },
    /// Both partitions are the same one.
    SamePartition,
    /// The data or the tree would end beyond what a disk can have.
    TooLarge,
}

impl core::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { offset, word } => write!(f, "unknown key at byte {offset}: {word}"),
            Self::Quoted { offset } => write!(f, "quotation mark in the {PREFIX} word at byte {offset}"),
            Self::Duplicate { offset, key } => {
                write!(f, "{PREFIX}{key} stands a second time at byte {offset}")
            }
            Self::Missing { key } => write!(f, "{PREFIX}{key} is missing"),
            Self::Malformed { key, expected } => write!(f, "{PREFIX}{key} is not {expected}"),
            Self::SamePartition => write!(f, "{PREFIX}root and {PREFIX}verity name the same partition"),
            Self::TooLarge => {
                write!(f, "{PREFIX}data_blocks or {PREFIX}hash_start is beyond the end of any disk")
            }
        }
    }
}

impl Boot {
    /// Reads the whole command line, as `/proc/cmdline` gives it.
    ///
    /// # Errors
    ///
    /// Everything in [`Error`]: our words are either exactly as in the table, or refused.
    pub fn parse(command_line: &[u8]) -> Result<Self, Error> {
        let mut raw = Raw::default();
        for (offset, word) in words(command_line) {
            let bare = word.strip_prefix(b"\"").unwrap_or(word);
            let Some(ours) = bare.strip_prefix(PREFIX.as_bytes()) else { continue };
            if word.contains(&b'"') {
                return Err(Error::Quoted { offset });
            }
            let unknown = Error::Unknown { offset, word: Line::cut(word) };
            let equals = ours.iter().position(|byte| *byte == b'=').ok_or(unknown)?;
            let (key, value) = ours.split_at_checked(equals).ok_or(unknown)?;
            let (key, slot) = raw.slot(key).ok_or(unknown)?;
            if slot.replace(value.get(1..).unwrap_or_default()).is_some() {
                return Err(Error::Duplicate { offset, key });
            }
        }
        raw.read()
    }
}

/// The values as text, before any is parsed.
#[derive(Default)]
struct Raw<'a> {
    root: Option<&'a [u8]>,
    verity: Option<&'a [u8]>,
    rootfstype: Option<&'a [u8]>,
    roothash: Option<&'a [u8]>,
    salt: Option<&'a [u8]>,
    data_blocks: Option<&'a [u8]>,
    hash_start: Option<&'a [u8]>,
    block_size: Option<&'a [u8]>,
    profile: Option<&'a [u8]>,
}

impl<'a> Raw<'a> {
    fn slot(&mut self, key: &[u8]) -> Option<(&'static str, &mut Option<&'a [u8]>)> {
        Some(match key {
            b"root" => ("root", &mut self.root),
            b"verity" => ("verity", &mut self.verity),
            b"rootfstype" => ("rootfstype", &mut self.rootfstype),
            b"roothash" => ("roothash", &mut self.roothash),
            b"salt" => ("salt", &mut self.salt),
            b"data_blocks" => ("data_blocks", &mut self.data_blocks),
            b"hash_start" => ("hash_start", &mut self.hash_start),
            b"block_size" => ("block_size", &mut self.block_size),
            b"profile" => ("profile", &mut self.profile),
            _ => return None,
        })
    }

    fn read(&self) -> Result<Boot, Error> {
        let guid = "PARTUUID= and a GUID in lower case";
        let root = required("root", self.root, guid, part_uuid)?;
        let verity = required("verity", self.verity, guid, part_uuid)?;
        if root == verity {
            return Err(Error::SamePartition);
        }
        let block_size =
            optional("block_size", self.block_size, "512, 1024, 2048 or 4096", |value| match value {
                b"512" => Some(512),
                b"1024" => Some(1024),
                b"2048" => Some(2048),
                b"4096" => Some(4096),
                _ => None,
            })?;
        let number = "a decimal number of 64 bits";
        let data_blocks = required("data_blocks", self.data_blocks, number, decimal)?;
        let hash_start = required("hash_start", self.hash_start, number, decimal)?;
        if data_blocks == 0 {
            return Err(Error::Malformed { key: "data_blocks", expected: "1 or more" });
        }
        Ok(Boot {
            root,
            verity,
            filesystem: required("rootfstype", self.rootfstype, "erofs", |value| match value {
                b"erofs" => Some(Filesystem::Erofs),
                _ => None,
            })?,
            root_hash: required("roothash", self.roothash, "64 hex digits in lower case", |value| {
                let mut hash = [0; 32];
                (hex(value, &mut hash)? == hash.len()).then_some(RootHash(hash))
            })?,
            salt: required("salt", self.salt, "- or 2 to 512 hex digits in lower case", Salt::parse)?,
            geometry: Geometry::new(block_size.unwrap_or(4096), data_blocks, hash_start)
                .ok_or(Error::TooLarge)?,
            profile: optional("profile", self.profile, "release or debug", |value| match value {
                b"release" => Some(Profile::Release),
                b"debug" => Some(Profile::Debug),
                _ => None,
            })?,
        })
    }
}

fn required<T>(
    key: &'static str,
    value: Option<&[u8]>,
    expected: &'static str,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, Error> {
    optional(key, value, expected, read)?.ok_or(Error::Missing { key })
}

fn optional<T>(
    key: &'static str,
    value: Option<&[u8]>,
    expected: &'static str,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, Error> {
    value.map(|value| read(value).ok_or(Error::Malformed { key, expected })).transpose()
}

/// The words with their offsets, separated by what the kernel's `isspace` takes for a blank, except between
/// quotation marks.
fn words(line: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut quoted = false;
    let parts = line.split(move |byte| {
        quoted ^= *byte == b'"';
        !quoted && matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
    });
    parts
        .scan(0_usize, |next, word| {
            let offset = *next;
            *next = offset.saturating_add(word.len()).saturating_add(1);
            Some((offset, word))
        })
        .filter(|(_, word)| !word.is_empty())
}

fn decimal(text: &[u8]) -> Option<u64> {
    let canonical = text == b"0" || text.first().is_some_and(|first| matches!(first, b'1'..=b'9'));
    let text = core::str::from_utf8(text).ok()?;
    canonical.then(|| text.parse().ok())?
}

/// Reads hex digits into the beginning of `out` and returns the number of bytes.
fn hex(text: &[u8], out: &mut [u8]) -> Option<usize> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, odd) = text.as_chunks::<2>();
    if !odd.is_empty() || pairs.len() > out.len() {
        return None;
    }
    for ([high, low], byte) in pairs.iter().zip(out) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(pairs.len())
}

fn part_uuid(value: &[u8]) -> Option<PartUuid> {
    PartUuid::parse(value.strip_prefix(b"PARTUUID=")?)
}

impl PartUuid {
    /// Reads a GUID of 36 characters in lower case; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; 36] = text.try_into().ok()?;
        let [mut guid, mut at] = [[0; 16], [0; 16]];
        let mut rest = &mut at[..];
        for (group, bytes) in text.split(|byte| *byte == b'-').zip([4, 2, 2, 2, 6]) {
            let (field, after) = rest.split_at_mut_checked(bytes)?;
            if hex(group, field)? != bytes {
                return None;
            }
            rest = after;
        }
        if !rest.is_empty() {
            return None;
        }
        for (to, from) in guid.iter_mut().zip(Self::ORDER) {
            *to = *at.get(from)?;
        }
        Some(Self(guid))
    }

    /// Where the bytes of the table are in the text, and the other way round.
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
}

impl Salt {
    /// Takes 0 to 256 bytes; `None` for more.
    pub fn new(salt: &[u8]) -> Option<Self> {
        let mut bytes = [0; 256];
        bytes.get_mut(..salt.len())?.copy_from_slice(salt);
        Some(Self { bytes, length: salt.len() })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 256];
        if text == b"-" {
            return Some(Self { bytes, length: 0 });
        }
        let length = hex(text, &mut bytes)?;
        (length > 0).then_some(Self { bytes, length })
    }
}

impl Geometry {
    /// Takes a block size in bytes, the number of data blocks, and the first block of the tree; `None` when
    /// the block size is not one of the table, there is no block, or a place lies beyond 2^63 bytes.
    pub fn new(block_size: u32, data_blocks: u64, hash_start: u64) -> Option<Self> {
        let fits =
            |blocks: u64| blocks.checked_mul(block_size.into()).is_some_and(|end| end <= i64::MAX as u64);
        let sized = matches!(block_size, 512 | 1024 | 2048 | 4096) && data_blocks > 0;
        (sized && fits(data_blocks) && fits(hash_start)).then_some(Self {
            block_size,
            data_blocks,
            hash_start,
        })
    }

    /// Bytes of a block, data and hash alike.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Blocks of the data.
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// The first block of the tree in its partition.
    pub fn hash_start(&self) -> u64 {
        self.hash_start
    }

    /// Length of the data in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.data_blocks.saturating_mul(u64::from(self.block_size / 512))
    }
}

impl Filesystem {
    /// The kernel's name for it.
    pub fn name(&self) -> &'static core::ffi::CStr {
        match self {
            Self::Erofs => c"erofs",
        }
    }
}

impl fmt::Display for Boot {
    /// Writes the words that [`Boot::parse`] reads back, in the order of the table, without surrounding blanks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}root=PARTUUID={} {PREFIX}verity=PARTUUID={}", self.root, self.verity)?;
        let filesystem = match self.filesystem {
            Filesystem::Erofs => "erofs",
        };
        let Geometry { block_size, data_blocks, hash_start } = self.geometry;
        write!(f, " {PREFIX}rootfstype={filesystem} {PREFIX}roothash={}", self.root_hash)?;
        write!(f, " {PREFIX}salt={} {PREFIX}data_blocks={data_blocks}", self.salt)?;
        write!(f, " {PREFIX}hash_start={hash_start} {PREFIX}block_size={block_size}")?;
        match self.profile {
            Some(Profile::Release) => write!(f, " {PREFIX}profile=release"),
            Some(Profile::Debug) => write!(f, " {PREFIX}profile=debug"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for PartUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, from) in Self::ORDER.into_iter().enumerate() {
            let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{:02x}", self.0.get(from).copied().unwrap_or_default())?;
        }
        Ok(())
    }
}

impl fmt::Debug for PartUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_bytes() {
            [] => f.write_str("-"),
            bytes => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
