//! The registers' values, from the events that were extended into them; and of each event whether its digest is that
//! of its data.
//!
//! # Shape
//!
//! ```text
//! log ─ replay ──> {register: value}
//! record ─ derive ─> derived      the digest is that of the record's own data, by a rule
//!                    contradicted a rule holds for the type, and gives another digest: the data was changed
//!                    not derivable the data only names what was hashed: it is a hint, and proves nothing
//! ```
//!
//! A TD's registers begin with zeros; so do a TPM's PCRs 0 to 16 and 23, where PCR 0 has the locality of the start in its
//! last byte when the log says so, while PCRs 17 to 22 begin with ones.
//!
//! # Source
//!
//! TCG PC Client Platform Firmware Profile 1.06, 3.3 (PCR 0 and its locality), 10.4.1 (what each type is the digest
//! of); TCG PC Client Platform TPM Profile 1.06, 4.6.2 (PCRs at reset). Every rule re-derives the digests of that type
//! in logs of Google Cloud, Alibaba Cloud and QEMU.
//!
//! # Not here
//!
//! What a boot should have measured: [`crate::appraise`].

mod derive;
mod subject;

use alloc::collections::BTreeMap;
use core::fmt;

pub(crate) use derive::Variable;
pub use derive::{Derivation, Rule, WhyNot, derive};
pub use subject::subject;

use crate::digest::{Algorithm, Digest};
use crate::event::{EventType, Register};
use crate::log::{Entry, Log};
use crate::reference::RegisterKind;

/// What EV_NO_ACTION's data begin with that names the locality of a TPM's start; one byte follows.
const STARTUP_LOCALITY: &[u8] = b"StartupLocality\0";

/// Says why a log leads to no registers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The log has no bank of the algorithm.
    #[error("expected a log with a bank of {expected}, found none")]
    NoBank {
        /// The algorithm asked for.
        expected: Algorithm,
    },
    /// A record has no digest of the bank.
    #[error("the record at offset {offset} has no digest of {expected}")]
    NoDigest {
        /// Where the record begins.
        offset: usize,
        /// The algorithm asked for.
        expected: Algorithm,
    },
    /// A record extends what is no register.
    #[error("the record at offset {offset} extends register number {found}, which there is not")]
    NoRegister {
        /// Where the record begins.
        offset: usize,
        /// The number.
        found: u32,
    },
    /// A record extends MRTD, which the TDX module alone writes.
    #[error("the record at offset {offset} extends MRTD, which no firmware can")]
    ExtendsMrtd {
        /// Where the record begins.
        offset: usize,
    },
}

/// Computes the registers of a log: RTMR0 to RTMR3, or PCR 0 to 15 and every other that is extended.
///
/// # Errors
///
/// See [`Error`].
pub fn replay(log: &Log, algorithm: Algorithm) -> Result<BTreeMap<Register, Digest>, Error> {
    if !log.banks.iter().any(|bank| bank.algorithm() == Some(algorithm)) {
        return Err(Error::NoBank { expected: algorithm });
    }
    let mut registers = at_start(log, algorithm);
    for entry in log.entries.iter().filter(|entry| entry.is_extended()) {
        let register = extended(entry, log.kind)?;
        let digest =
            entry.digest(algorithm).ok_or(Error::NoDigest { offset: entry.offset, expected: algorithm })?;
        let value = registers.entry(register).or_insert_with(|| reset_value(register, algorithm));
        *value = value.extended(digest);
    }
    Ok(registers)
}

/// Tells the register that a record extends.
///
/// # Errors
///
/// [`Error::NoRegister`] and [`Error::ExtendsMrtd`].
pub fn extended(entry: &Entry, kind: RegisterKind) -> Result<Register, Error> {
    match entry.register(kind) {
        Some(Register::Mrtd) => Err(Error::ExtendsMrtd { offset: entry.offset }),
        Some(register) => Ok(register),
        None => Err(Error::NoRegister { offset: entry.offset, found: entry.index }),
    }
}

/// Gives the registers as they are before the first event.
pub(crate) fn at_start(log: &Log, algorithm: Algorithm) -> BTreeMap<Register, Digest> {
    let register: fn(u8) -> Register = match log.kind {
        RegisterKind::Tdx => Register::Rtmr,
        RegisterKind::Tpm => Register::Pcr,
    };
    let last = match log.kind {
        RegisterKind::Tdx => 3,
        RegisterKind::Tpm => 15,
    };
    let mut registers: BTreeMap<Register, Digest> =
        (0..=last).map(|index| (register(index), algorithm.zero())).collect();
    let locality = log.entries.iter().find_map(startup_locality);
    if let (RegisterKind::Tpm, Some(locality)) = (log.kind, locality) {
        registers.insert(Register::Pcr(0), ending_with(algorithm, locality));
    }
    registers
}

/// Gives a register as a reset leaves it.
pub(crate) fn reset_value(register: Register, algorithm: Algorithm) -> Digest {
    match (register, algorithm) {
        (Register::Pcr(17..=22), Algorithm::Sha256) => Digest::Sha256([0xff; 32]),
        (Register::Pcr(17..=22), Algorithm::Sha384) => Digest::Sha384([0xff; 48]),
        _ => algorithm.zero(),
    }
}

/// Tells the locality that a record says a TPM was started from.
fn startup_locality(entry: &Entry) -> Option<u8> {
    let data = entry.data.as_deref().filter(|_| entry.kind == EventType::EV_NO_ACTION && entry.index == 0)?;
    match data.strip_prefix(STARTUP_LOCALITY)? {
        [locality] => Some(*locality),
        _ => None,
    }
}

/// Gives zeros but for the last byte.
fn ending_with(algorithm: Algorithm, last: u8) -> Digest {
    let mut digest = algorithm.zero();
    let bytes: &mut [u8] = match &mut digest {
        Digest::Sha256(bytes) => bytes,
        Digest::Sha384(bytes) => bytes,
    };
    if let Some(byte) = bytes.last_mut() {
        *byte = last;
    }
    digest
}

/// Says what is odd about a log by itself: none of it is proof, for old firmware did some of it honestly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A record's digest is not that of its data, by a rule that holds for every record of its type.
    Contradicted {
        /// Where the record begins.
        offset: usize,
        /// What the record says that it is.
        subject: alloc::string::String,
        /// The rule.
        rule: Rule,
        /// The digest that the rule gives.
        expected: Digest,
        /// The digest that the record has.
        found: Digest,
    },
    /// A register has a second separator.
    SecondSeparator {
        /// Where the second one's record begins.
        offset: usize,
        /// The register.
        register: Register,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Contradicted { offset, subject, rule, expected, found } => write!(
                f,
                "the record at offset {offset} ({subject}) has digest {found}, but {rule} gives {expected}: \
                 its data or its digest was changed"
            ),
            Finding::SecondSeparator { offset, register } => write!(
                f,
                "the record at offset {offset} is another separator of {register}: firmware before edk2-stable202411 did \
                 so, and so does a log whose separator was moved"
            ),
        }
    }
}

/// Lists what is odd about a log by itself, in the order of its records.
///
/// # Errors
///
/// As [`replay`].
pub fn findings(log: &Log, algorithm: Algorithm) -> Result<alloc::vec::Vec<Finding>, Error> {
    let mut found = alloc::vec::Vec::new();
    let mut separated = alloc::collections::BTreeSet::new();
    for entry in log.entries.iter().filter(|entry| entry.is_extended()) {
        let register = extended(entry, log.kind)?;
        let digest =
            entry.digest(algorithm).ok_or(Error::NoDigest { offset: entry.offset, expected: algorithm })?;
        if let Derivation::Contradicted { rule, expected } = derive(entry, algorithm) {
            found.push(Finding::Contradicted {
                offset: entry.offset,
                subject: subject(entry),
                rule,
                expected,
                found: *digest,
            });
        }
        if entry.kind == EventType::EV_SEPARATOR && !separated.insert(register) {
            found.push(Finding::SecondSeparator { offset: entry.offset, register });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
