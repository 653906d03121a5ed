//! The records of an event log (a TD's CCEL or a TPM 2.0's), from its bytes.
//!
//! # Shape
//!
//! ```text
//! first record   [index u32, type u32 = EV_NO_ACTION, SHA-1 20 bytes, length u32, "Spec ID Event03" and the banks]
//! each further   [index u32, type u32, count u32, count × (algorithm u16, digest), length u32, data]
//! the end        the end of the bytes, or nothing but 0xff or nothing but 0x00 from there on
//! ```
//!
//! All numbers have their lowest byte first. The index is a PCR in a TPM's log, and a measurement register plus one
//! in a CCEL: 1 is RTMR0, 4 is RTMR3, 0 stands for MRTD, which nothing extends.
//!
//! A quote covers the digests alone, and their order within one register: type, index and data are the log's word.
//!
//! # Source
//!
//! TCG PC Client Platform Firmware Profile 1.06, 10.2 (the records), 10.4.5.1 (Spec ID Event03); UEFI 2.10, 38.4.1 (the
//! index in a CCEL). Read from logs of Google Cloud, Alibaba Cloud and QEMU, with and without padding.
//!
//! # Not here
//!
//! The registers that the records lead to and whether a digest is that of its data: [`crate::replay`].

mod area;

use alloc::string::String;
use alloc::vec::Vec;

pub use area::{Area, AreaError, Technology};

use crate::digest::{Algorithm, Digest};
use crate::event::{EventType, Register};
use crate::read::{Reader, Truncated};
use crate::reference::RegisterKind;

/// What the data of the first record begins with.
const SPEC_ID_3: &[u8; 16] = b"Spec ID Event03\0";
/// Event types and digests of the layout that came before have the same beginning but for the number.
const SPEC_ID: &[u8] = b"Spec ID Event";
/// The most banks: a TPM has no more than this many, TPM 2.0 Library part 2, 10.6.2 (HASH_COUNT), with room.
const MOST_BANKS: u32 = 16;

/// Holds an event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Whose registers the records' indexes name.
    pub kind: RegisterKind,
    /// The banks that the log has digests of, as the first record lists them.
    pub banks: Vec<Bank>,
    /// The records after the first, in their order.
    pub entries: Vec<Entry>,
    /// How many bytes the records take; what follows is padding.
    pub length: usize,
}

/// Names one bank of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bank {
    /// TPM_ALG_ID; TCG Algorithm Registry.
    pub id: u16,
    /// The bytes of a digest.
    pub length: u16,
}

impl Bank {
    /// Tells its algorithm; `None` for one that no register of ours is made with, as SHA-1 or SM3.
    pub const fn algorithm(self) -> Option<Algorithm> {
        match self.id {
            0x000b => Some(Algorithm::Sha256),
            0x000c => Some(Algorithm::Sha384),
            _ => None,
        }
    }
}

/// The length that the TCG Algorithm Registry gives a digest: SHA-1, SHA-256, SHA-384, SHA-512, SM3, SHA3-256, -384, -512.
const fn registered_length(id: u16) -> Option<u16> {
    match id {
        0x0004 => Some(20),
        0x000b | 0x0012 | 0x0027 => Some(32),
        0x000c | 0x0028 => Some(48),
        0x000d | 0x0029 => Some(64),
        _ => None,
    }
}

/// Holds one record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where the record begins in the log's bytes; its number where the log is no run of bytes.
    pub offset: usize,
    /// What it calls its register.
    pub index: u32,
    /// Its type.
    pub kind: EventType,
    /// Its digests with SHA-256 and SHA-384; others are passed over.
    pub digests: Vec<Digest>,
    /// Where its data begin in the log's bytes; 0 where the log is no run of bytes.
    pub data_at: usize,
    /// Its data; `None` where the form of the log leaves them out.
    pub data: Option<Vec<u8>>,
}

impl Entry {
    /// Gives the digest of a bank.
    pub fn digest(&self, algorithm: Algorithm) -> Option<&Digest> {
        self.digests.iter().find(|digest| digest.algorithm() == algorithm)
    }

    /// Tells whether a register is extended: EV_NO_ACTION only tells something.
    pub fn is_extended(&self) -> bool {
        self.kind != EventType::EV_NO_ACTION
    }

    /// Tells the register that the record names; `None` for an index that stands for none.
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

/// Says why bytes are no event log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end within a record.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The first record is not the one that names the banks.
    #[error("expected EV_NO_ACTION at offset 4, found {found}: this is no log of a TPM 2.0 or a TD")]
    NoSpecId {
        /// The type of the first record.
        found: EventType,
    },
    /// The log has SHA-1 digests alone.
    #[error(
        "expected \"Spec ID Event03\" at offset 32, found {found:?}: a log of TPM 1.2's layout, with SHA-1 digests alone, \
         proves nothing today"
    )]
    Sha1Only {
        /// The beginning of the first record's data.
        found: String,
    },
    /// The number of banks cannot be.
    #[error("expected 1 to {MOST_BANKS} banks at offset {offset}, found {found}")]
    BankCount {
        /// Where the number stands.
        offset: usize,
        /// The number.
        found: u32,
    },
    /// A bank has another length than its algorithm, none, or stands twice.
    #[error(
        "expected a bank of its own with algorithm {id:#06x} at offset {offset}, found one of {length} bytes"
    )]
    Bank {
        /// Where it stands.
        offset: usize,
        /// Its algorithm.
        id: u16,
        /// The length that it claims.
        length: u16,
    },
    /// No bank is of SHA-256 or SHA-384.
    #[error("expected a bank of SHA-256 or SHA-384, found {found}")]
    NoBank {
        /// The algorithms' numbers.
        found: String,
    },
    /// A record has more digests than there are banks.
    #[error("expected at most {expected} digests at offset {offset}, found {found}")]
    DigestCount {
        /// Where the number stands.
        offset: usize,
        /// The number of banks.
        expected: usize,
        /// The number.
        found: u32,
    },
    /// A digest is of an algorithm that is no bank of the log, or that the record had before.
    #[error("expected a digest of another bank of this log at offset {offset}, found algorithm {found:#06x}")]
    DigestBank {
        /// Where the algorithm stands.
        offset: usize,
        /// The algorithm.
        found: u16,
    },
    /// After the last record stands something.
    #[error("expected padding of {fill:#04x} from offset {end} on, found {found:#04x} at offset {offset}")]
    Padding {
        /// Where the padding begins.
        end: usize,
        /// What it consists of.
        fill: u8,
        /// Where something else stands.
        offset: usize,
        /// What.
        found: u8,
    },
}

impl Log {
    /// Reads a log, whose registers are as `kind` says.
    ///
    /// # Errors
    ///
    /// See [`Error`]; a log that ends within a record is refused whole.
    pub fn read(bytes: &[u8], kind: RegisterKind) -> Result<Log, Error> {
        let (_, mut log) = read(bytes)?;
        log.kind = kind;
        Ok(log)
    }

    /// Reads a log and takes it for a TD's when it has SHA-384 alone and names no register that a TD has not: from
    /// the first record on in a CCEL, whose index is 1, or in every other record.
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

    /// Gives the algorithms that registers can be computed with, SHA-384 last.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms: Vec<Algorithm> = self.banks.iter().filter_map(|bank| bank.algorithm()).collect();
        algorithms.sort();
        algorithms
    }
}

/// Reads a log and the index of its first record, as that of a TPM.
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
            None => entries.push(entry(&mut reader, &banks)?),
        }
    };
    Ok((first, Log { kind: RegisterKind::Tpm, banks, entries, length }))
}

/// Reads the banks from the data of the first record, which begin at `begin`.
fn banks(data: &[u8], begin: usize) -> Result<Vec<Bank>, Error> {
    let mut reader = Reader::new(data, 0);
    // Where it stands in the log, not in the record.
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

/// Tells where the records end, when they do here; a record of type 0 for register 0, or of type and register
/// 0xffffffff, is padding.
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
