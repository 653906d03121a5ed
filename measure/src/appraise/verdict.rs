//! The result of an appraisal: accepted or refused, with every reason, and what was not judged.
//!
//! # Shape
//!
//! ```text
//! answer      accepted if there is no reason to refuse, otherwise refused
//! signature   not verified: the sender may have made the evidence up
//! platform    the reference's platform that decided, with its shape
//! reasons     every reason to refuse, in the order identity, registers, events
//! notes       what the policy allows explicitly, the platform decided, or was not judged
//! ```
//!
//! Only [`super::appraise`] makes a verdict, so `answer` and `reasons` always agree.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;

use crate::digest::{Algorithm, Digest};
use crate::event::{EventType, Register};
use crate::quote::Attributes;
use crate::reference::{Image, Platform, Reference, RegisterKind};

/// The result of an appraisal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    answer: Answer,
    signature: Signature,
    image: Image,
    platform: Option<Place>,
    reasons: Vec<Reason>,
    notes: Vec<Note>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// No reason to refuse.
    Accepted,
    /// At least one reason to refuse.
    Refused,
}

/// Whether the registers are authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// Their signature was not verified.
    NotVerified,
}

/// The platform that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// The machine shape that its values are for.
    pub shape: BTreeMap<String, String>,
}

impl Verdict {
    pub(super) fn new(
        reference: &Reference,
        platform: Option<&Platform>,
        signature: Signature,
        reasons: Vec<Reason>,
        notes: Vec<Note>,
    ) -> Self {
        Verdict {
            answer: if reasons.is_empty() { Answer::Accepted } else { Answer::Refused },
            signature,
            image: reference.image.clone(),
            platform: platform
                .map(|platform| Place { name: platform.name.clone(), shape: platform.shape.clone() }),
            reasons,
            notes,
        }
    }

    /// Returns the answer.
    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// Says whether the registers are authentic.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// Returns the image of the reference.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Returns the platform that decided; `None` if the reference has none of the evidence's kind.
    pub fn platform(&self) -> Option<&Place> {
        self.platform.as_ref()
    }

    /// Returns every reason to refuse.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Returns what was explicitly allowed, platform-given or not judged.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Answer::Accepted => "accepted",
            Answer::Refused => "refused",
        })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signature::NotVerified => f.write_str("not verified"),
        }
    }
}

/// A reason to refuse.
///
/// Positions count a register's events from 1; offsets are those of records in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// The evidence's signature was not verified.
    SignatureNotVerified,
    /// Something other than zero padding follows the quote.
    Trailing {
        /// The number of bytes, up to the last one that is not zero.
        found: usize,
    },
    /// The image has the debug profile.
    DebugImage {
        /// Its name.
        image: String,
    },
    /// The reference has no values for this kind of evidence.
    NoPlatform {
        /// Whose registers the evidence has.
        kind: RegisterKind,
        /// Their algorithm.
        algorithm: Algorithm,
    },
    /// The TD has an attribute that the policy does not allow.
    AttributeSet {
        /// Its name.
        name: String,
    },
    /// The TD lacks an attribute that the policy requires.
    AttributeMissing {
        /// Its name.
        name: String,
    },
    /// The TD's attributes differ from the reference's.
    Attributes {
        /// The reference's.
        expected: Attributes,
        /// The TD's.
        found: Attributes,
    },
    /// The TD may use extended state that the policy does not allow.
    XfamSet {
        /// Its name.
        name: String,
    },
    /// A field of the quote has the wrong value.
    Field {
        /// Its name.
        name: &'static str,
        /// The required value.
        expected: String,
        /// Its value.
        found: String,
    },
    /// The policy does not list the TDX module.
    Module {
        /// Its MRSEAM.
        found: Digest,
    },
    /// The TD started with other firmware.
    Mrtd {
        /// The values that reference and policy accept.
        accepted: Vec<Digest>,
        /// The value of the TD.
        found: Digest,
    },
    /// The log cannot be replayed.
    Unreplayable {
        /// Why.
        why: String,
    },
    /// The evidence lacks a register that is logged or predicted.
    NoValue {
        /// The register.
        register: Register,
    },
    /// The log does not replay to the register's value.
    Replay {
        /// The register.
        register: Register,
        /// The value by the log.
        replayed: Digest,
        /// The value in the evidence.
        held: Digest,
    },
    /// The register's value differs from the reference's.
    Register {
        /// The register.
        register: Register,
        /// The reference's value.
        expected: Digest,
        /// The value in the evidence.
        found: Digest,
    },
    /// A record's digest does not match its own data.
    Contradicted {
        /// The register.
        register: Register,
        /// Offset of the record.
        offset: usize,
        /// The record's own description.
        subject: String,
        /// The digest of the data.
        expected: Digest,
        /// The record's digest.
        found: Digest,
    },
    /// A predicted event is missing.
    Missing {
        /// The register.
        register: Register,
        /// Its position in the prediction.
        position: usize,
        /// What should have been measured.
        subject: String,
    },
    /// An event was not predicted.
    Unexpected {
        /// The register.
        register: Register,
        /// Its position in the log.
        position: usize,
        /// Offset of the record.
        offset: usize,
        /// Its type.
        kind: EventType,
        /// The record's own description.
        subject: String,
        /// Its digest.
        digest: Digest,
    },
    /// An event is repeated.
    Repeated {
        /// The register.
        register: Register,
        /// Its position in the log.
        position: usize,
        /// Offset of the record.
        offset: usize,
        /// What should have been measured once.
        subject: String,
    },
    /// An event is at another position in its register.
    OutOfOrder {
        /// The register.
        register: Register,
        /// Its position in the prediction.
        expected: usize,
        /// Its position in the log.
        found: usize,
        /// What was measured.
        subject: String,
    },
    /// An event was extended into another register.
    OtherRegister {
        /// The predicted register.
        expected: Register,
        /// The register in the log.
        found: Register,
        /// Offset of the record.
        offset: usize,
        /// What was measured.
        subject: String,
    },
    /// Something other than the predicted event was measured.
    Differs {
        /// The register.
        register: Register,
        /// Its position in the log.
        position: usize,
        /// Offset of the record.
        offset: usize,
        /// What should have been measured.
        subject: String,
        /// What the prediction accepts.
        expected: String,
        /// The digest in the log.
        found: Digest,
    },
    /// The log gives a section another name than the stub measured.
    Relabelled {
        /// The register.
        register: Register,
        /// Its position in the log.
        position: usize,
        /// Offset of the record.
        offset: usize,
        /// The section's name.
        expected: String,
        /// What the record says.
        found: String,
    },
    /// The log gives an event another type than predicted.
    Kind {
        /// The register.
        register: Register,
        /// Its position in the log.
        position: usize,
        /// What was measured.
        subject: String,
        /// The predicted type.
        expected: EventType,
        /// The type in the log.
        found: EventType,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::SignatureNotVerified => f.write_str("the evidence's signature was not verified"),
            Reason::Trailing { found } => {
                write!(f, "{found} bytes follow the quote, which nothing covers: expected only zeros there")
            }
            Reason::DebugImage { image } => write!(f, "{image} is a debug image"),
            Reason::NoPlatform { kind, algorithm } => write!(
                f,
                "the reference has no {algorithm} values of {} for a platform that the policy allows",
                match kind {
                    RegisterKind::Tdx => "a TD's registers",
                    RegisterKind::Tpm => "a TPM's PCRs",
                }
            ),
            Reason::AttributeSet { name } => write!(f, "the TD's attribute {name} is set"),
            Reason::AttributeMissing { name } => write!(f, "the TD's attribute {name} is not set"),
            Reason::Attributes { expected, found } => {
                write!(f, "the TD's attributes are {found}, the reference has {expected}")
            }
            Reason::XfamSet { name } => write!(f, "the TD may use {name}"),
            Reason::Field { name, expected, found } => write!(f, "{name} is {found}, expected {expected}"),
            Reason::Module { found } => write!(f, "the policy does not list TDX module {found}"),
            Reason::Mrtd { accepted, found } => {
                write!(
                    f,
                    "mrtd is {found}, not one of the {} that reference and policy accept",
                    accepted.len()
                )
            }
            Reason::Unreplayable { why } => write!(f, "the log cannot be replayed: {why}"),
            Reason::NoValue { register } => {
                write!(f, "{register} is logged or predicted, but the evidence lacks it")
            }
            Reason::Replay { register, replayed, held } => {
                write!(f, "{register} is {held}, but the log replays to {replayed}")
            }
            Reason::Register { register, expected, found } => {
                write!(f, "{register} is {found}, the reference has {expected}")
            }
            Reason::Contradicted { register, offset, subject, expected, found } => write!(
                f,
                "{register}: the record at offset {offset} ({subject}) has digest {found}, but its data give {expected}"
            ),
            Reason::Missing { register, position, subject } => {
                write!(f, "{register}: event {position} ({subject}) is missing")
            }
            Reason::Unexpected { register, position, offset, kind, subject, digest } => write!(
                f,
                "{register}: event {position} at offset {offset} was not predicted: {kind}, {subject}, {digest}"
            ),
            Reason::Repeated { register, position, offset, subject } => {
                write!(f, "{register}: event {position} at offset {offset} repeats {subject}")
            }
            Reason::OutOfOrder { register, expected, found, subject } => {
                write!(f, "{register}: event {found} ({subject}) should be event {expected}")
            }
            Reason::OtherRegister { expected, found, offset, subject } => write!(
                f,
                "{subject} was extended into {found} (record at offset {offset}), not into {expected}"
            ),
            Reason::Differs { register, position, offset, subject, expected, found } => write!(
                f,
                "{register}: event {position} at offset {offset} should be {subject} with {expected}, but has {found}"
            ),
            Reason::Relabelled { register, position, offset, expected, found } => write!(
                f,
                "{register}: event {position} at offset {offset} is of section {expected}, but its data say {found}"
            ),
            Reason::Kind { register, position, subject, expected, found } => {
                write!(f, "{register}: event {position} ({subject}) has type {found}, expected {expected}")
            }
        }
    }
}

/// Something that a reader of the verdict must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "note")]
pub enum Note {
    /// The policy allows unverified evidence.
    SignatureNotVerified,
    /// The policy allows debug images.
    DebugImage {
        /// Its name.
        image: String,
    },
    /// The policy requires no nonce: the evidence may be old.
    FreshnessNotJudged,
    /// The policy lists no TDX module.
    ModuleNotJudged,
    /// A register was not judged.
    NotJudged {
        /// The register.
        register: Register,
    },
    /// The firmware failed the kernel's first ExitBootServices, and the kernel called again.
    ExitRetried {
        /// The register that holds the two extra events.
        register: Register,
    },
    /// An event satisfied its platform's rule.
    PlatformGiven {
        /// The register.
        register: Register,
        /// What was measured.
        subject: String,
        /// A variable's value: `empty`, hexadecimal digits, or its length.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// The rule.
        rule: String,
        /// Its digest.
        digest: Digest,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::SignatureNotVerified => f.write_str(
                "signature: not verified, which the policy allows; the sender may have made the evidence up",
            ),
            Note::DebugImage { image } => {
                write!(f, "{image} is a debug image, which the policy allows")
            }
            Note::FreshnessNotJudged => {
                f.write_str("freshness: not judged, the policy requires no report_data")
            }
            Note::ModuleNotJudged => f.write_str("TDX module: not judged, the policy lists no mr_seam"),
            Note::NotJudged { register } => write!(f, "{register}: not judged"),
            Note::ExitRetried { register } => write!(
                f,
                "{register}: the firmware failed the first ExitBootServices, and the kernel called again: the value differs \
                 from the reference's, but the events are the predicted ones"
            ),
            Note::PlatformGiven { register, subject, value, rule, digest } => {
                let value = value.as_ref().map(|value| alloc::format!(" ({value})")).unwrap_or_default();
                write!(f, "{register}: {subject}{value} is platform-given, {rule}: {digest}")
            }
        }
    }
}
