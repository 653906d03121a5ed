//! The records of an event log (a TD's CCEL or a TPM 2.0 log), from its bytes.
//!
//! # Shape
//!
//! ```text
//! first record   [index u32, type u32 = EV_NO_ACTION, SHA-1 20 bytes, length u32, "Spec ID Event03" and the banks]
//! each further   [index u32, type u32, count u32, count × (algorithm u16, digest), length u32, data]
//! end            the end of the bytes, or padding that is all 0xff or all 0x00
//! ```
//!
//! Numbers are little-endian. The index is a PCR in a TPM's log, and a register number plus one in a CCEL: 1 is RTMR0,
//! 4 is RTMR3, and 0 is MRTD, which nothing extends.
//!
//! A quote covers only the digests and their order within one register; type, index and data are unauthenticated.
//!
//! # Source
//!
//! TCG PC Client Platform Firmware Profile 1.06, 10.2 (the records), 10.4.5.1 (Spec ID Event03); UEFI 2.10, 38.4.1 (the
//! index in a CCEL). Read from logs of Google Cloud, Alibaba Cloud and QEMU, with and without padding.
//!
//! # Not here
//!
//! Computing registers from the records, and checking digests against data: [`crate::replay`].

mod area;

use alloc::string::String;
use alloc::vec::Vec;

pub use area::{Area, AreaError, Technology};

use crate::digest::{Algorithm, Digest};
use crate::event::{EventType, Register};
use crate::read::{Reader, Truncated};
use crate::reference::RegisterKind;

/// The signature at the start of the first record's data.
const SPEC_ID_3: &[u8; 16] = b"Spec ID Event03\0";
/// The part of the signature that older formats share.
const SPEC_ID: &[u8] = b"Spec ID Event";
/// The maximum number of banks: above HASH_COUNT of any TPM (TPM 2.0 Library part 2, 10.6.2).
const MOST_BANKS: u32 = 16;

/// An event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Whose registers the indexes refer to.
    pub kind: RegisterKind,
    /// The banks of the log, in the order of the first record.
    pub banks: Vec<Bank>,
    /// The records after the first, in order.
    pub entries: Vec<Entry>,
    /// Length of the records in bytes; padding follows.
    pub length: usize,
}

/// One bank of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bank {
    /// TPM_ALG_ID; TCG Algorithm Registry.
    pub id: u16,
    /// Length of a digest in bytes.
    pub length: u16,
}

impl Bank {
    /// Returns its algorithm; `None` for one that this crate does not use, such as SHA-1 or SM3.
    pub const fn algorithm(self) -> Option<Algorithm> {
        match self.id {
            0x000b => Some(Algorithm::Sha256),
            0x000c => Some(Algorithm::Sha384),
            _ => None,
        }
    }
}

/// Digest lengths from the TCG Algorithm Registry: SHA-1, SHA-256, SHA-384, SHA-512, SM3, SHA3-256, -384, -512.
const fn registered_length(id: u16) -> Option<u16> {
    match id {
        0x0004 => Some(20),
        0x000b | 0x0012 | 0x0027 => Some(32),
        0x000c | 0x0028 => Some(48),
        0x000d | 0x0029 => Some(64),
        _ => None,
    }
}

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Offset of the record in the log; its number if the log came as JSON.
    pub offset: usize,
    /// The register's index.
    pub index: u32,
    /// Its type.
    pub kind: EventType,
    /// Its SHA-256 and SHA-384 digests; others are skipped.
    pub digests: Vec<Digest>,
    /// Offset of its data in the log; 0 if the log came as JSON.
    pub data_at: usize,
    /// Its data; `None` if the log's format omits them.
    pub data: Option<Vec<u8>>,
}

impl Entry {
    /// Returns the digest for an algorithm.
    pub fn digest(&self, algorithm: Algorithm) -> Option<&Digest> {
        self.digests.iter().find(|digest| digest.algorithm() == algorithm)
    }

    /// Tells whether the record extends a register; EV_NO_ACTION only informs.
    pub fn is_extended(&self) -> bool {
        self.kind != EventType::EV_NO_ACTION
    }

    /// Returns the register that the index refers to, if any.
    pub fn register(&self, kind: RegisterKind) -> Option<Register> {
        let index = u8::try_from(self.index).ok()?;
        match (kind, index) {
            (RegisterKind::Tdx, 0) => Some(Register::Mrtd),
            (RegisterKind::Tdx, 1..=4) => Some(Register::Rtmr(index.saturating_sub(1))),
            (RegisterKind::Tpm, 0..=23) => Some(Register::Pcr(index)),
            _ => None,
        }
    }
}

/// The maximum number of records. The area of 64 KiB that firmware reserves has room for some hundred.
pub const MOST_RECORDS: usize = 1 << 16;

/// Bytes are not an event log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end inside a record.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// There are more records than firmware has room for.
    #[error("expected at most {MOST_RECORDS} records, found another at offset {offset}")]
    TooMany {
        /// Its offset.
        offset: usize,
    },
    /// The first record is not the one that lists the banks.
    #[error("expected EV_NO_ACTION at offset 4, found {found}: not a TPM 2.0 or TD event log")]
    NoSpecId {
        /// The type of the first record.
        found: EventType,
    },
    /// The log has only SHA-1 digests.
    #[error(
        "expected \"Spec ID Event03\" at offset 32, found {found:?}: a log in TPM 1.2 format has only SHA-1 digests, which \
         prove nothing today"
    )]
    Sha1Only {
        /// The start of the first record's data.
        found: String,
    },
    /// The number of banks is out of range.
    #[error("expected 1 to {MOST_BANKS} banks at offset {offset}, found {found}")]
    BankCount {
        /// Offset of the number.
        offset: usize,
        /// The number.
        found: u32,
    },
    /// A bank's digest length is zero or wrong for its algorithm, or the bank is listed twice.
    #[error(
        "expected one bank for algorithm {id:#06x}, with digests of its length, at offset {offset}, found one of {length} bytes"
    )]
    Bank {
        /// Its offset.
        offset: usize,
        /// Its algorithm.
        id: u16,
        /// The digest length that it declares.
        length: u16,
    },
    /// There is no SHA-256 or SHA-384 bank.
    #[error("expected a SHA-256 or SHA-384 bank, found {found}")]
    NoBank {
        /// The algorithm IDs.
        found: String,
    },
    /// A record has more digests than the log has banks.
    #[error("expected at most {expected} digests at offset {offset}, found {found}")]
    DigestCount {
        /// Offset of the number.
        offset: usize,
        /// The number of banks.
        expected: usize,
        /// The number.
        found: u32,
    },
    /// A digest's algorithm has no bank, or the record has two digests with it.
    #[error(
        "expected a digest for another bank of this log at offset {offset}, found algorithm {found:#06x}"
    )]
    DigestBank {
        /// Offset of the algorithm.
        offset: usize,
        /// The algorithm.
        found: u16,
    },
    /// The padding after the last record has other bytes in it.
    #[error("expected {fill:#04x} padding from offset {end}, found {found:#04x} at offset {offset}")]
    Padding {
        /// Where the padding starts.
        end: usize,
        /// The padding byte.
        fill: u8,
        /// Offset of the other byte.
        offset: usize,
        /// The other byte.
        found: u8,
    },
}

impl Log {
    /// Reads a log of the given kind of registers.
    ///
    /// # Errors
    ///
    /// See [`Error`]; a log that ends inside a record is refused.
    pub fn read(bytes: &[u8], kind: RegisterKind) -> Result<Log, Error> {
        let (_, mut log) = read(bytes)?;
        log.kind = kind;
        Ok(log)
    }

    /// Reads a log of unknown kind. It is a TD's if its only bank is SHA-384 and either the first record's index is 1, as in a
    /// CCEL, or every extended index is from 1 to 4.
    ///
    /// # Errors
    ///
    /// As [`Log::read`].
    pub fn read_any(bytes: &[u8]) -> Result<Log, Error> {
        let (first, mut log) = read(bytes)?;
        let sha384_alone = log.banks.iter().all(|bank| bank.algorithm() == Some(Algorithm::Sha384));
        let mut extended = log.entries.iter().filter(|entry| entry.is_extended());
        if sha384_alone && (first == 1 || extended.all(|entry| (1..=4).contains(&entry.index))) {
            log.kind = RegisterKind::Tdx;
        }
        Ok(log)
    }

    /// Returns the algorithms that registers can be computed with; SHA-384 comes last.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms: Vec<Algorithm> = self.banks.iter().filter_map(|bank| bank.algorithm()).collect();
        algorithms.sort();
        algorithms
    }
}

/// Reads a log, taken as a TPM's, and the index of its first record.
fn read(bytes: &[u8]) -> Result<(u32, Log), Error> {
    let mut reader = Reader::new(bytes, 0);
    let first = reader.u32("the first record's index")?;
    let kind = EventType(reader.u32("the first record's type")?);
    reader.array::<20>("the first record's digest")?;
    let length = reader.u32("the length of the first record's data")?;
    let begin = reader.offset();
    let data = reader.take("the first record's data", length.into())?;
    if kind != EventType::EV_NO_ACTION {
        let tpm_1_2 = first < 24 && kind.name().is_some() && kind != EventType::EV_PREBOOT_CERT;
        let found = alloc::format!("{kind}");
        return Err(if tpm_1_2 { Error::Sha1Only { found } } else { Error::NoSpecId { found: kind } });
    }
    let banks = banks(data, begin)?;
    let mut entries = Vec::new();
    let length = loop {
        match end(&reader)? {
            Some(length) => break length,
            None if entries.len() == MOST_RECORDS => {
                return Err(Error::TooMany { offset: reader.offset() });
            }
            None => entries.push(entry(&mut reader, &banks)?),
        }
    };
    Ok((first, Log { kind: RegisterKind::Tpm, banks, entries, length }))
}

/// Reads the banks from the first record's data, which start at offset `begin` of the log.
fn banks(data: &[u8], begin: usize) -> Result<Vec<Bank>, Error> {
    let mut reader = Reader::new(data, 0);
    // Offsets in errors are those of the log.
    let at = |truncated: Truncated| Truncated { offset: truncated.offset.saturating_add(begin), ..truncated };
    let signature = reader.array::<16>("the signature of the first record").map_err(at)?;
    if signature != *SPEC_ID_3 {
        let shown = if signature.starts_with(SPEC_ID) { signature.len() } else { SPEC_ID.len() };
        let found = String::from_utf8_lossy(signature.get(..shown).unwrap_or_default());
        return Err(Error::Sha1Only { found: found.trim_end_matches('\0').into() });
    }
    reader.take("the platform class and version", 8).map_err(at)?;
    let offset = reader.offset().saturating_add(begin);
    let count = reader.u32("the number of banks").map_err(at)?;
    if !(1..=MOST_BANKS).contains(&count) {
        return Err(Error::BankCount { offset, found: count });
    }
    let mut banks: Vec<Bank> = Vec::new();
    for _ in 0..count {
        let offset = reader.offset().saturating_add(begin);
        let id = reader.u16("a bank's algorithm").map_err(at)?;
        let length = reader.u16("a bank's digest length").map_err(at)?;
        let twice = banks.iter().any(|bank| bank.id == id);
        if twice || length == 0 || registered_length(id).is_some_and(|registered| registered != length) {
            return Err(Error::Bank { offset, id, length });
        }
        banks.push(Bank { id, length });
    }
    let vendor = reader.u8("the length of the vendor's data").map_err(at)?;
    reader.take("the vendor's data", vendor.into()).map_err(at)?;
    if banks.iter().all(|bank| bank.algorithm().is_none()) {
        let found: Vec<String> = banks.iter().map(|bank| alloc::format!("{:#06x}", bank.id)).collect();
        return Err(Error::NoBank { found: found.join(", ") });
    }
    Ok(banks)
}

/// Returns the end of the records if it is here: index and type both 0, or both 0xffffffff, start the padding.
fn end(reader: &Reader<'_>) -> Result<Option<usize>, Error> {
    let (end, rest) = (reader.offset(), reader.rest());
    let Some((fill, _)) = rest.split_first() else { return Ok(Some(end)) };
    let mut head = rest.iter().take(8);
    if !matches!(fill, 0x00 | 0xff) || !head.all(|byte| byte == fill) {
        return Ok(None);
    }
    match rest.iter().enumerate().find(|(_, byte)| *byte != fill) {
        None => Ok(Some(end)),
        Some((place, found)) => {
            Err(Error::Padding { end, fill: *fill, offset: end.saturating_add(place), found: *found })
        }
    }
}

/// Reads one record.
fn entry(reader: &mut Reader<'_>, banks: &[Bank]) -> Result<Entry, Error> {
    let offset = reader.offset();
    let index = reader.u32("a record's index")?;
    let kind = EventType(reader.u32("a record's type")?);
    let place = reader.offset();
    let count = reader.u32("a record's number of digests")?;
    if usize::try_from(count).map_or(true, |count| count > banks.len()) {
        return Err(Error::DigestCount { offset: place, expected: banks.len(), found: count });
    }
    let mut left: Vec<Bank> = banks.to_vec();
    let mut digests = Vec::new();
    for _ in 0..count {
        let offset = reader.offset();
        let id = reader.u16("a digest's algorithm")?;
        let place = left.iter().position(|bank| bank.id == id);
        let bank =
            place.map(|place| left.swap_remove(place)).ok_or(Error::DigestBank { offset, found: id })?;
        let bytes = reader.take("a digest", bank.length.into())?;
        if bank.algorithm().is_some() {
            digests.extend(Digest::from_bytes(bytes));
        }
    }
    let length = reader.u32("the length of a record's data")?;
    let data_at = reader.offset();
    let data = reader.take("a record's data", length.into())?;
    Ok(Entry { offset, index, kind, digests, data_at, data: Some(data.to_vec()) })
}

#[cfg(test)]
mod tests;
