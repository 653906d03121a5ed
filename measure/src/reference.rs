//! The reference values of one image as a document: what every register holds after its boot, event by event.
//!
//! # Shape
//!
//! ```text
//! reference-values.json
//!   format       1
//!   image        name, version, profile
//!   subjects     [name, sha256, bytes]                     the files that the values were computed from
//!   platforms    [name, algorithm, shape,                  one entry for each machine (and TPM bank)
//!                 mrtd, attributes,                        TDX only
//!                 registers, events]                       of one algorithm; the events in the order of the boot
//! ```
//!
//! A register that a platform-given event is extended into has no value beforehand: it is not among `registers`, and
//! its events say by which rule they are accepted. Writers sort nothing and add no time: equal inputs, equal bytes.
//!
//! # Not here
//!
//! The computation of the values (`mrtd`, `boot`), their comparison with evidence ([`crate::appraise`]), JSON itself:
//! these types are serde's, and any format of serde's carries them.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Algorithm, Digest};
use crate::event::{Event, Register};

/// Marks the only format of the document that there is, as the number 1: another number does not deserialize.
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

/// Holds the reference values of one image on every platform that they were computed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// 1.
    pub format: Format1,
    /// The image that boots.
    pub image: Image,
    /// The files that the values were computed from, in the order of the boot.
    pub subjects: Vec<Subject>,
    /// The machines, and the banks of their TPMs.
    pub platforms: Vec<Platform>,
}

/// Names an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The recipe's name for it.
    pub name: String,
    /// The recipe's version.
    pub version: String,
    /// What it was built for; a debug image is refused unless a policy allows it by name.
    pub profile: Profile,
}

/// Says what an image was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// To be trusted.
    Release,
    /// To be looked into: it lets its operator in.
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

/// Names one file that the values were computed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// As [`crate::event::Source::file`] names it: `firmware`, `uki`, `disk`.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Holds the reference values of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// `qemu-tdx`, `qemu-tpm`, `gcp-c3`, `alicloud-tdx`; several entries may bear one name, each with its own shape.
    pub name: String,
    /// Says whose registers these are.
    pub kind: RegisterKind,
    /// The hash of registers and events; SHA-384 for TDX, the bank's for a TPM.
    pub algorithm: Algorithm,
    /// What the values hold for, in the words of the command line: `memory`, `vcpus`, `firmware`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shape: BTreeMap<String, String>,
    /// TDX: every MRTD that is accepted; none where the platform publishes none, and only a policy can name one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mrtd: Vec<Mrtd>,
    /// TDX: the attributes that the TD is started with, where the platform file fixes them; a policy may be stricter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<crate::quote::Attributes>,
    /// The registers that are known beforehand; one that a platform-given event is extended into is missing here.
    pub registers: BTreeMap<Register, Digest>,
    /// The events of all registers, in the order of the boot.
    pub events: Vec<Event>,
}

/// Says whose registers a platform's values are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegisterKind {
    /// A TD's MRTD and RTMR0 to RTMR3.
    Tdx,
    /// One bank of a TPM's PCRs.
    Tpm,
}

/// One MRTD that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mrtd {
    /// The value.
    pub digest: Digest,
    /// Where it comes from: the firmware's digest and the order of its pages, or the platform file's own source.
    pub source: String,
}
