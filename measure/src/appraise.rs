//! A verdict on evidence, from reference values and a policy.
//!
//! # Shape
//!
//! ```text
//! Evidence<Unverified> ─┐                       ┌─ accepted: no reason to refuse
//! Evidence<Verified> ───┼─ appraise ─> Verdict ─┤
//! Reference, Policy ────┘                       └─ refused: every reason
//! ```
//!
//! The appraisal is closed-world. The log must replay to the evidence's registers. In each register, the events must be
//! exactly those that the reference predicts, in order. An event that the platform decides must satisfy its rule. Types
//! and data in the log prove nothing: where the data can explain a digest, they must, and names in the data are ignored.
//!
//! An unverified quote is refused unless the policy explicitly allows it, and even then the verdict says so. Only a
//! signature verifier may make `Evidence<Verified>`, and there is none yet: [`Verified`] has no values, so no code, here
//! or elsewhere, can pass a quote off as verified.
//!
//! ```compile_fail
//! use ovmf_measure::appraise::Verified;
//! let passed_off = Verified {};
//! ```
//!
//! # Source
//!
//! IETF RFC 9334 (evidence, reference values, appraisal); Intel TDX Module Base Specification, 12 (what a quote covers).
//! Each public log that comes with a quote replays to the quote's registers.
//!
//! # Not here
//!
//! Signatures, TCB levels, collateral; reading files; a policy's file format (its types are serde's).

mod closed;
mod policy;
mod verdict;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;

pub use policy::{AttributeRule, BitNames, Exception, Policy};
pub use verdict::{Answer, Note, Place, Reason, Signature, Verdict};

use crate::digest::{Algorithm, Digest};
use crate::event::{Event, Expected, Register};
use crate::log::Log;
use crate::quote::{Attributes, Quote, Report, Td, Xfam};
use crate::reference::{Platform, Profile, Reference, RegisterKind};
use crate::replay;

/// A machine's claims: its registers, the log that should explain them, and whether their signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence<S> {
    held: Held,
    log: Log,
    /// The number of bytes that a sender added to the quote.
    trailing: usize,
    signature: S,
}

/// Marks evidence whose signature was not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unverified(());

/// Marks evidence whose signature, collateral and TCB level were verified. Only a verifier makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified(Verification);

/// The verifier's result; it has no values as long as there is no verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verification {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Unverified {}
    impl Sealed for super::Verified {}
}

/// Whether a signature was verified; implemented by [`Unverified`] and [`Verified`] only.
pub trait Trust: sealed::Sealed {
    /// Returns the entry for the verdict.
    fn signature(&self) -> Signature;
}

impl Trust for Unverified {
    fn signature(&self) -> Signature {
        Signature::NotVerified
    }
}

impl Trust for Verified {
    fn signature(&self) -> Signature {
        match self.0 {}
    }
}

/// The registers of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    Td(Box<Td>),
    Pcrs { algorithm: Algorithm, values: BTreeMap<u8, Digest> },
}

impl Evidence<Unverified> {
    /// Makes evidence of a quote and the log of the same boot.
    pub fn of_quote(quote: &Quote, log: Log) -> Self {
        Evidence {
            held: Held::Td(Box::new(quote.td.clone())),
            log: Log { kind: RegisterKind::Tdx, ..log },
            trailing: quote.trailing,
            signature: Unverified(()),
        }
    }

    /// Makes evidence of a TDREPORT and the log of the same boot. Only the machine itself can verify a TDREPORT.
    pub fn of_report(report: &Report, log: Log) -> Self {
        Evidence {
            held: Held::Td(Box::new(report.td.clone())),
            log: Log { kind: RegisterKind::Tdx, ..log },
            trailing: 0,
            signature: Unverified(()),
        }
    }

    /// Makes evidence of one bank of a TPM's PCRs and the log of the same boot.
    ///
    /// # Errors
    ///
    /// [`Error::PcrAlgorithm`] and [`Error::PcrNumber`].
    pub fn of_pcrs(algorithm: Algorithm, values: BTreeMap<u8, Digest>, log: Log) -> Result<Self, Error> {
        for (pcr, value) in &values {
            if *pcr > 23 {
                return Err(Error::PcrNumber { found: *pcr });
            }
            if value.algorithm() != algorithm {
                return Err(Error::PcrAlgorithm { pcr: *pcr, expected: algorithm, found: value.algorithm() });
            }
        }
        Ok(Evidence {
            held: Held::Pcrs { algorithm, values },
            log: Log { kind: RegisterKind::Tpm, ..log },
            trailing: 0,
            signature: Unverified(()),
        })
    }
}

impl<S> Evidence<S> {
    /// Returns whose registers these are.
    pub fn kind(&self) -> RegisterKind {
        self.log.kind
    }

    /// Returns the registers' algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match &self.held {
            Held::Td(_) => Algorithm::Sha384,
            Held::Pcrs { algorithm, .. } => *algorithm,
        }
    }

    /// Returns the registers that events are extended into.
    pub fn registers(&self) -> BTreeMap<Register, Digest> {
        match &self.held {
            Held::Td(td) => (0..).zip(td.rtmr).map(|(index, value)| (Register::Rtmr(index), value)).collect(),
            Held::Pcrs { values, .. } => {
                values.iter().map(|(pcr, value)| (Register::Pcr(*pcr), *value)).collect()
            }
        }
    }
}

/// An appraisal is impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no PCR with this number.
    #[error("expected PCRs 0 to 23, found {found}")]
    PcrNumber {
        /// The number.
        found: u8,
    },
    /// A PCR's value is from another bank.
    #[error("PCR {pcr}: expected a {expected} value, found {found}")]
    PcrAlgorithm {
        /// The PCR.
        pcr: u8,
        /// The bank's algorithm.
        expected: Algorithm,
        /// The value's algorithm.
        found: Algorithm,
    },
    /// The policy exempts a register that must be judged.
    #[error("a policy cannot leave {register} unjudged: it identifies the image")]
    Unjudged {
        /// The register.
        register: Register,
    },
    /// The reference has a register or a digest algorithm that does not exist on the platform.
    #[error("the reference's platform {platform} is {kind:?} with {algorithm}, but has {found}")]
    Foreign {
        /// The platform's name.
        platform: String,
        /// Whose registers it has.
        kind: RegisterKind,
        /// Its algorithm.
        algorithm: Algorithm,
        /// What does not belong.
        found: String,
    },
    /// A register of the reference is not what its own events give.
    #[error("the reference's platform {platform} has {register} {found}, but its events give {expected}")]
    Inconsistent {
        /// The platform's name.
        platform: String,
        /// The register.
        register: Register,
        /// The value by the events.
        expected: Digest,
        /// The value in the reference.
        found: Digest,
    },
}

/// Appraises evidence against reference values and a policy.
///
/// If the reference has several platforms of the evidence's kind, the verdict is from the one that accepts or, if none does,
/// from the closest: the one with the evidence's MRTD, then the one that predicted most of the log, then the one with the
/// fewest reasons to refuse.
///
/// # Errors
///
/// [`Error`] if the reference or the policy contradicts itself. Evidence that fails is a [`Verdict`].
pub fn appraise<S: Trust>(
    evidence: &Evidence<S>,
    reference: &Reference,
    policy: &Policy,
) -> Result<Verdict, Error> {
    let must = [Register::Mrtd, Register::Rtmr(1), Register::Rtmr(2), Register::Pcr(4)];
    if let Some(register) = must.into_iter().find(|register| policy.unjudged.contains(register)) {
        return Err(Error::Unjudged { register });
    }
    let (kind, algorithm) = (evidence.kind(), evidence.algorithm());
    let mut reasons = Vec::new();
    let mut notes = Vec::new();
    let signature = evidence.signature.signature();
    match signature {
        Signature::NotVerified if policy.allows(Exception::UnverifiedQuote) => {
            notes.push(Note::SignatureNotVerified);
        }
        Signature::NotVerified => reasons.push(Reason::SignatureNotVerified),
    }
    if reference.image.profile == Profile::Debug {
        let image = reference.image.name.clone();
        if policy.allows(Exception::DebugImage) {
            notes.push(Note::DebugImage { image });
        } else {
            reasons.push(Reason::DebugImage { image });
        }
    }
    if evidence.trailing > 0 {
        reasons.push(Reason::Trailing { found: evidence.trailing });
    }
    if let Held::Td(td) = &evidence.held {
        identity(td, policy, &mut reasons, &mut notes);
    }
    let mut best: Option<(&Platform, Judgement)> = None;
    for platform in &reference.platforms {
        check(platform)?;
        let wanted = policy.platforms.is_empty() || policy.platforms.contains(&platform.name);
        if !wanted || platform.kind != kind || platform.algorithm != algorithm {
            continue;
        }
        let judgement = judge(evidence, platform, policy);
        if best.as_ref().is_none_or(|(_, best)| judgement.closeness() > best.closeness()) {
            best = Some((platform, judgement));
        }
    }
    let platform = match best {
        Some((platform, judgement)) => {
            reasons.extend(judgement.reasons);
            notes.extend(judgement.notes);
            Some(platform)
        }
        None => {
            reasons.push(Reason::NoPlatform { kind, algorithm });
            None
        }
    };
    Ok(Verdict::new(reference, platform, signature, reasons, notes))
}

/// Judges the TD's identity fields.
fn identity(td: &Td, policy: &Policy, reasons: &mut Vec<Reason>, notes: &mut Vec<Note>) {
    let rule = &policy.attributes;
    for bit in 0..u64::BITS {
        let (set, required) = (td.attributes.has(bit), rule.required.0.has(bit));
        if required && !set {
            reasons.push(Reason::AttributeMissing { name: Attributes::name(bit) });
        } else if set && !required && !rule.allowed.0.has(bit) {
            reasons.push(Reason::AttributeSet { name: Attributes::name(bit) });
        }
        if td.xfam.has(bit) && !policy.xfam.0.has(bit) {
            reasons.push(Reason::XfamSet { name: Xfam::name(bit) });
        }
    }
    let mut field = |name: &'static str, expected: String, found: String| {
        if expected != found {
            reasons.push(Reason::Field { name, expected, found });
        }
    };
    field("mr_config_id", policy.mr_config_id.to_string(), td.mr_config_id.to_string());
    field("mr_owner", policy.mr_owner.to_string(), td.mr_owner.to_string());
    field("mr_owner_config", policy.mr_owner_config.to_string(), td.mr_owner_config.to_string());
    let none = Algorithm::Sha384.zero();
    let service_td = td.mr_service_td.unwrap_or(none);
    field("mr_service_td", policy.mr_service_td.unwrap_or(none).to_string(), service_td.to_string());
    // Only an Intel-signed production module is the TDX module.
    field("mr_signer_seam", none.to_string(), td.mr_signer_seam.to_string());
    field("seam_attributes", 0u64.to_string(), td.seam_attributes.to_string());
    match &policy.report_data {
        Some(expected) => field("report_data", expected.to_string(), td.report_data.to_string()),
        None => notes.push(Note::FreshnessNotJudged),
    }
    if policy.mr_seam.is_empty() {
        notes.push(Note::ModuleNotJudged);
    } else if !policy.mr_seam.contains(&td.mr_seam) {
        reasons.push(Reason::Module { found: td.mr_seam });
    }
}

/// Checks that a platform's registers are what its own events give.
fn check(platform: &Platform) -> Result<(), Error> {
    let (kind, algorithm) = (platform.kind, platform.algorithm);
    let foreign = |found: String| Error::Foreign { platform: platform.name.clone(), kind, algorithm, found };
    if kind == RegisterKind::Tdx && algorithm != Algorithm::Sha384 {
        return Err(foreign("no register with that algorithm".to_string()));
    }
    let mut led_to: BTreeMap<Register, Option<Digest>> = BTreeMap::new();
    for event in &platform.events {
        let Some(register) = event.register(kind) else { continue };
        if matches!(register, Register::Pcr(24..)) {
            return Err(foreign(register.to_string()));
        }
        let value = led_to.entry(register).or_insert(Some(replay::reset_value(register, algorithm)));
        *value = match &event.expected {
            Expected::Exact(digest) if digest.algorithm() != algorithm => {
                return Err(foreign(alloc::format!("a {} digest", digest.algorithm())));
            }
            Expected::Exact(digest) => value.map(|value| value.extended(digest)),
            Expected::PlatformGiven(_) => None,
        };
    }
    for (register, found) in &platform.registers {
        let fits = matches!(
            (kind, register),
            (RegisterKind::Tdx, Register::Rtmr(_)) | (RegisterKind::Tpm, Register::Pcr(_))
        );
        // MRTD has a list of its own; here it must be one of that list.
        let listed = *register == Register::Mrtd && platform.mrtd.iter().any(|mrtd| mrtd.digest == *found);
        if !fits && !listed {
            return Err(foreign(register.to_string()));
        }
        let reset = Some(replay::reset_value(*register, algorithm));
        let expected = if fits { led_to.get(register).copied().unwrap_or(reset) } else { None };
        if let Some(expected) = expected.filter(|expected| expected != found) {
            let platform = platform.name.clone();
            return Err(Error::Inconsistent { platform, register: *register, expected, found: *found });
        }
    }
    Ok(())
}

/// What one platform says of evidence.
struct Judgement {
    reasons: Vec<Reason>,
    notes: Vec<Note>,
    /// Whether the platform lists the evidence's MRTD.
    same_mrtd: bool,
    /// The number of records that are the predicted events by digest or name.
    agreed: usize,
}

impl Judgement {
    /// Orders platforms: an accepting one is the closest.
    fn closeness(&self) -> (bool, bool, usize, Reverse<usize>) {
        (self.reasons.is_empty(), self.same_mrtd, self.agreed, Reverse(self.reasons.len()))
    }
}

/// Judges evidence against one platform.
fn judge<S>(evidence: &Evidence<S>, platform: &Platform, policy: &Policy) -> Judgement {
    let (mut reasons, mut notes) = (Vec::new(), Vec::new());
    let mut same_mrtd = false;
    if let Held::Td(td) = &evidence.held {
        same_mrtd = platform.mrtd.iter().any(|mrtd| mrtd.digest == td.mrtd);
        let accepted: Vec<Digest> =
            platform.mrtd.iter().map(|mrtd| mrtd.digest).chain(policy.mrtd.iter().copied()).collect();
        if !accepted.contains(&td.mrtd) {
            reasons.push(Reason::Mrtd { accepted, found: td.mrtd });
        }
        if let Some(expected) = platform.attributes.filter(|expected| *expected != td.attributes) {
            reasons.push(Reason::Attributes { expected, found: td.attributes });
        }
    }
    let algorithm = evidence.algorithm();
    let logged = match closed::logged(&evidence.log, algorithm) {
        Ok(logged) => logged,
        Err(error) => {
            reasons.push(Reason::Unreplayable { why: error.to_string() });
            return Judgement { reasons, notes, same_mrtd, agreed: 0 };
        }
    };
    let mut predicted: BTreeMap<Register, Vec<&Event>> = BTreeMap::new();
    for event in &platform.events {
        if let Some(register) = event.register(platform.kind) {
            predicted.entry(register).or_default().push(event);
        }
    }
    let held = evidence.registers();
    // A register at its reset value, of which nothing else speaks, needs no judging.
    let moved = held.iter().filter(|(register, value)| **value != replay::reset_value(**register, algorithm));
    let touched = logged.keys().chain(predicted.keys()).chain(policy.runtime.keys());
    let judged = judged(evidence.kind(), touched.chain(moved.map(|(register, _)| register)).copied());
    let at_start = replay::at_start(&evidence.log, algorithm);
    let mut findings = closed::Findings::default();
    for register in judged {
        if policy.unjudged.contains(&register) {
            notes.push(Note::NotJudged { register });
            continue;
        }
        let events = logged.get(&register).map_or(&[][..], Vec::as_slice);
        let runtime = policy.runtime.get(&register).map_or(&[][..], Vec::as_slice);
        // Runtime digests that the log already contains are not extended twice.
        let told = closed::told(events, runtime);
        let start = at_start.get(&register).copied();
        let start = start.unwrap_or_else(|| replay::reset_value(register, algorithm));
        let replayed = events.iter().fold(start, |value, event| value.extended(&event.digest));
        let later = runtime.get(told..).unwrap_or_default();
        let expected = later.iter().fold(replayed, |value, digest| value.extended(digest));
        match held.get(&register) {
            None => reasons.push(Reason::NoValue { register }),
            Some(found) if *found != expected => {
                reasons.push(Reason::Replay { register, replayed: expected, held: *found });
            }
            Some(_) => {}
        }
        let boot = events.get(..events.len().saturating_sub(told)).unwrap_or_default();
        let foreseen = predicted.get(&register).map_or(&[][..], Vec::as_slice);
        findings.compare(register, foreseen, boot);
        let known = platform
            .registers
            .get(&register)
            .map(|known| runtime.iter().fold(*known, |value, digest| value.extended(digest)));
        if let (Some(known), Some(found)) = (known, held.get(&register))
            && known != *found
            && !findings.is_retried(register)
        {
            reasons.push(Reason::Register { register, expected: known, found: *found });
        }
    }
    let agreed = findings.agreed();
    let (against, noted) = findings.told();
    reasons.extend(against);
    notes.extend(noted);
    Judgement { reasons, notes, same_mrtd, agreed }
}

/// Returns the registers to judge: every RTMR; the PCRs that belong to the boot; any other that is predicted, logged, named by
/// the policy or not at its reset value.
fn judged(kind: RegisterKind, touched: impl Iterator<Item = Register>) -> BTreeSet<Register> {
    let always: Vec<Register> = match kind {
        RegisterKind::Tdx => (0..4).map(Register::Rtmr).collect(),
        // 0 to 7: the firmware. 8: grub. 12 to 14: systemd-stub's overrides and extensions, shim's keys.
        RegisterKind::Tpm => (0..9).chain(12..15).map(Register::Pcr).collect(),
    };
    touched.chain(always).collect()
}

#[cfg(test)]
mod tests;
