//! What is said of evidence: accepted or refused, each reason why, and what was not judged.
//!
//! # Shape
//!
//! ```text
//! answer      accepted when there is no reason against it, else refused
//! signature   not verified: whoever sent the evidence may have written it
//! platform    the reference's platform that decided, with its shape
//! reasons     everything that speaks against it, in the order identity, registers, events
//! notes       what was allowed by name, taken as the platform gave it, or not judged at all
//! ```
//!
//! `answer` and `reasons` cannot contradict one another: nothing outside makes a verdict.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;

use crate::digest::{Algorithm, Digest};
use crate::event::{EventType, Register};
use crate::quote::Attributes;
use crate::reference::{Image, Platform, Reference, RegisterKind};

/// Holds what is said of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    answer: Answer,
    signature: Signature,
    image: Image,
    platform: Option<Place>,
    reasons: Vec<Reason>,
    notes: Vec<Note>,
}

/// Says yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing speaks against it.
    Accepted,
    /// Something does.
    Refused,
}

/// Says whether the registers can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// Nobody has checked who signed them.
    NotVerified,
}

/// Names the platform that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// What its values hold for.
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

    /// Says yes or no.
    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// Says whether the registers can be believed.
    pub fn signature(&self) -> Signature {
        self.signature
    }

    /// Gives the image that the evidence was compared with.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Gives the platform that decided; `None` when the reference has none of the evidence's kind.
    pub fn platform(&self) -> Option<&Place> {
        self.platform.as_ref()
    }

    /// Gives everything that speaks against it.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Gives what was allowed by name, taken as given or not judged.
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

/// Says what speaks against evidence.
///
/// Positions count a register's events from 1; offsets are those of the log's records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// Nobody has verified who signed it.
    SignatureNotVerified,
    /// The image is one to look into.
    DebugImage {
        /// Its name.
        image: String,
    },
    /// The reference has no values for such evidence.
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
    /// The TD's attributes are not those that the reference gives.
    Attributes {
        /// Those of the reference.
        expected: Attributes,
        /// Those of the TD.
        found: Attributes,
    },
    /// The TD may use extended state that the policy does not allow.
    XfamSet {
        /// Its name.
        name: String,
    },
    /// A field of the quote is not what it must be.
    Field {
        /// Its name.
        name: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The TDX module is none that the policy lists.
    Module {
        /// Its MRSEAM.
        found: Digest,
    },
    /// The TD began with other firmware.
    Mrtd {
        /// The values that reference and policy accept.
        accepted: Vec<Digest>,
        /// The value of the TD.
        found: Digest,
    },
    /// The log leads to no registers.
    Unreplayable {
        /// Why.
        why: String,
    },
    /// The evidence has no value of a register that events were extended into.
    NoValue {
        /// The register.
        register: Register,
    },
    /// The log does not lead to the register's value.
    Replay {
        /// The register.
        register: Register,
        /// What the log leads to.
        replayed: Digest,
        /// What the evidence holds.
        held: Digest,
    },
    /// The register's value is not the reference's.
    Register {
        /// The register.
        register: Register,
        /// What the reference says.
        expected: Digest,
        /// What the evidence holds.
        found: Digest,
    },
    /// A digest is not that of the record's own data.
    Contradicted {
        /// The register.
        register: Register,
        /// Where the record begins.
        offset: usize,
        /// What the record says that it is.
        subject: String,
        /// What the digest of the data is.
        expected: Digest,
        /// What the digest is.
        found: Digest,
    },
    /// An event that was predicted did not happen.
    Missing {
        /// The register.
        register: Register,
        /// Its place in the prediction.
        position: usize,
        /// What should have been measured.
        subject: String,
    },
    /// An event happened that was not predicted.
    Unexpected {
        /// The register.
        register: Register,
        /// Its place in the log.
        position: usize,
        /// Where the record begins.
        offset: usize,
        /// Its type.
        kind: EventType,
        /// What the record says that it is.
        subject: String,
        /// Its digest.
        digest: Digest,
    },
    /// An event happened once more than it was predicted.
    Repeated {
        /// The register.
        register: Register,
        /// Its place in the log.
        position: usize,
        /// Where the record begins.
        offset: usize,
        /// What should have been measured once.
        subject: String,
    },
    /// An event happened at another place in its register.
    OutOfOrder {
        /// The register.
        register: Register,
        /// Its place in the prediction.
        expected: usize,
        /// Its place in the log.
        found: usize,
        /// What was measured.
        subject: String,
    },
    /// An event was extended into another register.
    OtherRegister {
        /// The register of the prediction.
        expected: Register,
        /// The register of the log.
        found: Register,
        /// Where the record begins.
        offset: usize,
        /// What was measured.
        subject: String,
    },
    /// Something else was measured than predicted.
    Differs {
        /// The register.
        register: Register,
        /// Its place in the log.
        position: usize,
        /// Where the record begins.
        offset: usize,
        /// What should have been measured.
        subject: String,
        /// What was predicted.
        expected: String,
        /// The digest of the log.
        found: Digest,
    },
    /// The log calls an event by another type than was predicted.
    Kind {
        /// The register.
        register: Register,
        /// Its place in the log.
        position: usize,
        /// What was measured.
        subject: String,
        /// The type of the prediction.
        expected: EventType,
        /// The type of the log.
        found: EventType,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::SignatureNotVerified => f.write_str("nobody has verified who signed the evidence"),
            Reason::DebugImage { image } => write!(f, "{image} is an image of the debug profile"),
            Reason::NoPlatform { kind, algorithm } => write!(
                f,
                "the reference has no values of {} with {algorithm}, or the policy allows no platform of it",
                match kind {
                    RegisterKind::Tdx => "a TD's registers",
                    RegisterKind::Tpm => "a TPM's PCRs",
                }
            ),
            Reason::AttributeSet { name } => write!(f, "the TD's attribute {name} is set"),
            Reason::AttributeMissing { name } => write!(f, "the TD's attribute {name} is not set"),
            Reason::Attributes { expected, found } => {
                write!(f, "the TD's attributes are {found}, the reference gives {expected}")
            }
            Reason::XfamSet { name } => write!(f, "the TD may use {name}"),
            Reason::Field { name, expected, found } => write!(f, "{name} is {found}, expected {expected}"),
            Reason::Module { found } => write!(f, "the TDX module {found} is none that the policy lists"),
            Reason::Mrtd { accepted, found } => {
                write!(f, "mrtd is {found}, none of the {} that reference and policy accept", accepted.len())
            }
            Reason::Unreplayable { why } => write!(f, "the log leads to no registers: {why}"),
            Reason::NoValue { register } => write!(f, "{register} is logged or predicted, but has no value"),
            Reason::Replay { register, replayed, held } => {
                write!(f, "{register} is {held}, but the log leads to {replayed}")
            }
            Reason::Register { register, expected, found } => {
                write!(f, "{register} is {found}, the reference says {expected}")
            }
            Reason::Contradicted { register, offset, subject, expected, found } => write!(
                f,
                "{register}: the record at offset {offset} ({subject}) has digest {found}, its data have {expected}"
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
                "{register}: event {position} at offset {offset} should be {subject} with {expected}, has {found}"
            ),
            Reason::Kind { register, position, subject, expected, found } => {
                write!(f, "{register}: event {position} ({subject}) is called {found}, expected {expected}")
            }
        }
    }
}

/// Says what a reader of the verdict must know besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "note")]
pub enum Note {
    /// The policy allows what nobody has verified.
    SignatureNotVerified,
    /// The policy allows an image to look into.
    DebugImage {
        /// Its name.
        image: String,
    },
    /// No nonce was asked for: the evidence may be old.
    FreshnessNotJudged,
    /// The policy lists no TDX module.
    ModuleNotJudged,
    /// A register was not looked at.
    NotJudged {
        /// The register.
        register: Register,
    },
    /// The firmware failed the kernel's first ExitBootServices, and the kernel called again.
    ExitRetried {
        /// The register that holds the two events of it.
        register: Register,
    },
    /// An event passed by its platform's rule.
    PlatformGiven {
        /// The register.
        register: Register,
        /// What was measured.
        subject: String,
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
                "signature: not verified, which the policy allows; whoever sent the evidence may have written it",
            ),
            Note::DebugImage { image } => {
                write!(f, "{image} is an image of the debug profile, which the policy allows")
            }
            Note::FreshnessNotJudged => f.write_str("freshness: not judged, the policy asks for no report_data"),
            Note::ModuleNotJudged => f.write_str("TDX module: not judged, the policy lists no mr_seam"),
            Note::NotJudged { register } => write!(f, "{register}: not judged"),
            Note::ExitRetried { register } => write!(
                f,
                "{register}: the firmware failed the first ExitBootServices, and the kernel called again: the value is not \
                 the reference's, its events are"
            ),
            Note::PlatformGiven { register, subject, rule, digest } => {
                write!(f, "{register}: {subject} is as the platform gave it, {rule}: {digest}")
            }
        }
    }
}
