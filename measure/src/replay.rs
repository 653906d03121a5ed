//! Register values from the events extended into them, and whether an event's digest is that of its data.
//!
//! # Shape
//!
//! ```text
//! log ─ replay ──> {register: value}
//! record ─ derive ─> derived        a rule gives the record's digest from its data
//!                    contradicted   the rule of its type gives another digest: data or digest were changed
//!                    not derivable  the data only name what was hashed; they prove nothing
//! ```
//!
//! A TD's registers start as zeros. So do PCRs 0 to 16 and 23, except that the last byte of PCR 0 is the startup locality
//! if the log has one. PCRs 17 to 22 start as ones.
//!
//! # Source
//!
//! TCG PC Client Platform Firmware Profile 1.06, 3.3 (PCR 0 and its locality), 10.4.1 (what each type is the digest
//! of); TCG PC Client Platform TPM Profile 1.06, 4.6.2 (PCRs at reset). Each rule reproduces the digests of its type in
//! logs of Google Cloud, Alibaba Cloud and QEMU.
//!
//! # Not here
//!
//! Comparing with what a boot should have measured: [`crate::appraise`].

mod derive;
mod subject;

use alloc::collections::BTreeMap;
use core::fmt;

pub use derive::{Derivation, Rule, WhyNot, derive};
pub(crate) use derive::{Variable, section_name};
pub use subject::subject;

use crate::digest::{Algorithm, Digest};
use crate::event::{EventType, Register};
use crate::log::{Entry, Log};
use crate::reference::RegisterKind;

/// Start of the EV_NO_ACTION data that hold a TPM's startup locality; one byte follows.
const STARTUP_LOCALITY: &[u8] = b"StartupLocality\0";

/// A log cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log has no bank for the algorithm.
    #[error("the log has no {expected} bank")]
    NoBank {
        /// The algorithm.
        expected: Algorithm,
    },
    /// A record has no digest for the algorithm.
    #[error("the record at offset {offset} has no {expected} digest")]
    NoDigest {
        /// Offset of the record.
        offset: usize,
        /// The algorithm.
        expected: Algorithm,
    },
    /// A record extends a register that does not exist.
    #[error("the record at offset {offset} extends register number {found}, which does not exist")]
    NoRegister {
        /// Offset of the record.
        offset: usize,
        /// The number.
        found: u32,
    },
    /// A record extends MRTD, which only the TDX module writes.
    #[error("the record at offset {offset} extends MRTD, which no firmware can")]
    ExtendsMrtd {
        /// Offset of the record.
        offset: usize,
    },
}

/// Computes the registers of a log: RTMR0 to RTMR3, or PCR 0 to 15 and any other PCR that is extended.
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

/// Returns the register that a record extends.
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

/// Returns the registers before the first event.
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
    // A dynamic launch (DRTM) sets PCRs 17 to 22 to zeros, and only then is anything extended into them: TCG PC Client
    // Platform TPM Profile 1.05, 4.6.
    let dynamic = |entry: &Entry| entry.is_extended() && (17..=22).contains(&entry.index);
    if log.kind == RegisterKind::Tpm && log.entries.iter().any(dynamic) {
        registers.extend((17..=22).map(|pcr| (Register::Pcr(pcr), algorithm.zero())));
    }
    let locality = log.entries.iter().find_map(startup_locality);
    if let (RegisterKind::Tpm, Some(locality)) = (log.kind, locality) {
        registers.insert(Register::Pcr(0), ending_with(algorithm, locality));
    }
    registers
}

/// Returns a register's value after reset.
pub(crate) fn reset_value(register: Register, algorithm: Algorithm) -> Digest {
    match (register, algorithm) {
        (Register::Pcr(17..=22), Algorithm::Sha256) => Digest::Sha256([0xff; 32]),
        (Register::Pcr(17..=22), Algorithm::Sha384) => Digest::Sha384([0xff; 48]),
        _ => algorithm.zero(),
    }
}

/// Returns the startup locality if the record holds one.
fn startup_locality(entry: &Entry) -> Option<u8> {
    let data = entry.data.as_deref().filter(|_| entry.kind == EventType::EV_NO_ACTION && entry.index == 0)?;
    match data.strip_prefix(STARTUP_LOCALITY)? {
        [locality] => Some(*locality),
        _ => None,
    }
}

/// Returns zeros with this last byte.
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

/// Something suspicious in a log by itself. It proves nothing: old firmware did some of it honestly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A record's digest is not what the rule of its type gives.
    Contradicted {
        /// Offset of the record.
        offset: usize,
        /// The record's own description.
        subject: alloc::string::String,
        /// The rule.
        rule: Rule,
        /// The digest by the rule.
        expected: Digest,
        /// The record's digest.
        found: Digest,
    },
    /// A register has a second separator.
    SecondSeparator {
        /// Offset of the second separator's record.
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
                "the record at offset {offset} is a second separator in {register}: firmware before edk2-stable202411 \
                 measured one, but a moved separator looks the same"
            ),
        }
    }
}

/// Lists what is suspicious in a log, in the order of its records.
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
