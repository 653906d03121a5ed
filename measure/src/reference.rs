//! The document of an image's reference values: what every register holds after its boot, event by event.
//!
//! # Shape
//!
//! ```text
//! reference-values.json
//!   format       1
//!   image        name, version, profile
//!   subjects     [name, sha256, bytes]                     the files that the values were computed from
//!   platforms    [name, algorithm, shape,                  one entry per machine and TPM bank
//!                 mrtd, attributes,                        TDX only
//!                 registers, events]                       for one algorithm; the events in boot order
//! ```
//!
//! A register with a platform-given event has no value in advance: it is absent from `registers`, and the event has the
//! rule for accepting it. The document has no times and a fixed order: equal inputs give equal bytes.
//!
//! # Not here
//!
//! Computing the values (`mrtd`, `boot`); comparing them with evidence ([`crate::appraise`]); JSON itself: the types work
//! with any serde format.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Algorithm, Digest};
use crate::event::{Event, Register};

/// The document's format version, 1: another number does not deserialize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Format1;

impl Serialize for Format1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(1)
    }
}

impl<'de> Deserialize<'de> for Format1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            1 => Ok(Format1),
            found => Err(serde::de::Error::custom(format_args!("expected format 1, found {found}"))),
        }
    }
}

/// The reference values of one image on each platform that they were computed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The format version, 1.
    pub format: Format1,
    /// The image that boots.
    pub image: Image,
    /// The files that the values were computed from, in boot order.
    pub subjects: Vec<Subject>,
    /// The machines, once for each TPM bank.
    pub platforms: Vec<Platform>,
}

/// An image's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its name in the recipe.
    pub name: String,
    /// Its version in the recipe.
    pub version: String,
    /// Its purpose; a debug image is refused unless a policy explicitly allows it.
    pub profile: Profile,
}

/// An image's purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// For production.
    Release,
    /// For debugging: its operator can log in.
    Debug,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Release => "release",
            Profile::Debug => "debug",
        })
    }
}

/// A file that the values were computed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its name in [`crate::event::Source::file`]: `firmware`, `uki`, `disk`.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The reference values of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// `qemu-tdx`, `qemu-tpm`, `gcp-c3` or `alicloud-tdx`; entries with different shapes may share a name.
    pub name: String,
    /// Whose registers these are.
    pub kind: RegisterKind,
    /// The hash algorithm of registers and events: SHA-384 for TDX, the bank's for a TPM.
    pub algorithm: Algorithm,
    /// The machine that the values are for, in the words of the command line: `memory`, `vcpus`, `firmware`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shape: BTreeMap<String, String>,
    /// TDX: the accepted MRTD values. Empty if the platform publishes none; then only a policy can accept one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mrtd: Vec<Mrtd>,
    /// TDX: the TD's attributes, if the platform fixes them; a policy may be stricter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<crate::quote::Attributes>,
    /// The registers with a value known in advance; those with a platform-given event are absent.
    pub registers: BTreeMap<Register, Digest>,
    /// The events of all registers, in boot order.
    pub events: Vec<Event>,
}

/// Whose registers a platform's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegisterKind {
    /// A TD's MRTD and RTMR0 to RTMR3.
    Tdx,
    /// One bank of a TPM's PCRs.
    Tpm,
}

/// An accepted MRTD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mrtd {
    /// The value.
    pub digest: Digest,
    /// Its origin: the firmware's digest and page order, or the source in the platform file.
    pub source: String,
}
