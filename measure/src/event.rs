//! The model of a boot: an ordered list of events, each extended into one register.
//!
//! # Shape
//!
//! ```text
//! events   [pcr, type, subject, expected, source]   in the order in which firmware, stub and kernel measure
//!            |                     |
//!            |                     an exact digest, or platform-given with the rule for accepting it
//!            register on TDX:  PCR 0 -> none (MRTD)   1, 7 -> RTMR0   2..6 -> RTMR1   8..15 -> RTMR2   17 -> RTMR3
//! ```
//!
//! The same list yields a TPM's PCRs and TDX's RTMRs; [`Witness`] marks events that only one of them receives.
//!
//! # Source
//!
//! UEFI 2.10, 38.4.1 (the map of PCRs to measurement registers); TCG PC Client Platform Firmware Profile 1.06, 10.4.1
//! (event types). Checked against logs of real TDX machines.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::reference::RegisterKind;

/// A register whose value a quote holds.
///
/// As text: `mrtd`, `rtmr0` to `rtmr3`, `pcr.0` to `pcr.23`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Register {
    /// TDX: the TD's initial memory.
    Mrtd,
    /// TDX: extended at run time; 0 to 3.
    Rtmr(u8),
    /// TPM 2.0; 0 to 23.
    Pcr(u8),
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Register::Mrtd => f.write_str("mrtd"),
            Register::Rtmr(index) => write!(f, "rtmr{index}"),
            Register::Pcr(index) => write!(f, "pcr.{index}"),
        }
    }
}

/// Text is not the name of a register.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected mrtd, rtmr0 to rtmr3 or pcr.0 to pcr.23, found {found:?}")]
pub struct NotARegister {
    /// The text.
    pub found: String,
}

impl core::str::FromStr for Register {
    type Err = NotARegister;

    fn from_str(text: &str) -> Result<Self, NotARegister> {
        let index = |digits: &str, below: u8| {
            let plain = digits.len() == 1 || !digits.starts_with(['0', '+']);
            digits.parse::<u8>().ok().filter(|index| plain && *index < below)
        };
        let named = match text.strip_prefix("rtmr") {
            Some(digits) => index(digits, 4).map(Register::Rtmr),
            None => text.strip_prefix("pcr.").and_then(|digits| index(digits, 24)).map(Register::Pcr),
        };
        named
            .or_else(|| (text == "mrtd").then_some(Register::Mrtd))
            .ok_or_else(|| NotARegister { found: text.into() })
    }
}

impl Serialize for Register {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Register {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Returns the RTMR that TDX extends instead of a PCR; `None` for PCR 0, which corresponds to MRTD, and for PCR 16 and
/// PCR 18 and above, which no firmware extends.
pub const fn rtmr_of_pcr(pcr: u8) -> Option<u8> {
    match pcr {
        1 | 7 => Some(0),
        2..=6 => Some(1),
        8..=15 => Some(2),
        17 => Some(3),
        _ => None,
    }
}

/// An event's type; TCG PC Client Platform Firmware Profile 1.06, 10.4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EventType(pub u32);

macro_rules! event_types {
    ($($name:ident = $value:literal),* $(,)?) => {
        impl EventType {
            $(#[doc = concat!("`", stringify!($name), "`, ", stringify!($value), ".")]
            pub const $name: EventType = EventType($value);)*

            /// Returns the specification's name; `None` if it has none.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(EventType::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            fn named(name: &str) -> Option<EventType> {
                match name {
                    $(stringify!($name) => Some(EventType::$name),)*
                    _ => None,
                }
            }
        }
    };
}

event_types! {
    EV_PREBOOT_CERT = 0x0,
    EV_POST_CODE = 0x1,
    EV_NO_ACTION = 0x3,
    EV_SEPARATOR = 0x4,
    EV_ACTION = 0x5,
    EV_EVENT_TAG = 0x6,
    EV_S_CRTM_CONTENTS = 0x7,
    EV_S_CRTM_VERSION = 0x8,
    EV_CPU_MICROCODE = 0x9,
    EV_PLATFORM_CONFIG_FLAGS = 0xa,
    EV_TABLE_OF_DEVICES = 0xb,
    EV_COMPACT_HASH = 0xc,
    EV_IPL = 0xd,
    EV_IPL_PARTITION_DATA = 0xe,
    EV_NONHOST_CODE = 0xf,
    EV_NONHOST_CONFIG = 0x10,
    EV_NONHOST_INFO = 0x11,
    EV_OMIT_BOOT_DEVICE_EVENTS = 0x12,
    EV_POST_CODE2 = 0x13,
    EV_EFI_VARIABLE_DRIVER_CONFIG = 0x8000_0001,
    EV_EFI_VARIABLE_BOOT = 0x8000_0002,
    EV_EFI_BOOT_SERVICES_APPLICATION = 0x8000_0003,
    EV_EFI_BOOT_SERVICES_DRIVER = 0x8000_0004,
    EV_EFI_RUNTIME_SERVICES_DRIVER = 0x8000_0005,
    EV_EFI_GPT_EVENT = 0x8000_0006,
    EV_EFI_ACTION = 0x8000_0007,
    EV_EFI_PLATFORM_FIRMWARE_BLOB = 0x8000_0008,
    EV_EFI_HANDOFF_TABLES = 0x8000_0009,
    EV_EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000_000a,
    EV_EFI_HANDOFF_TABLES2 = 0x8000_000b,
    EV_EFI_VARIABLE_BOOT2 = 0x8000_000c,
    EV_EFI_GPT_EVENT2 = 0x8000_000d,
    EV_EFI_HCRTM_EVENT = 0x8000_0010,
    EV_EFI_VARIABLE_AUTHORITY = 0x8000_00e0,
    EV_EFI_SPDM_FIRMWARE_BLOB = 0x8000_00e1,
    EV_EFI_SPDM_FIRMWARE_CONFIG = 0x8000_00e2,
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl From<EventType> for String {
    fn from(kind: EventType) -> String {
        alloc::format!("{kind}")
    }
}

/// Text is not an event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected EV_... or 0x..., found {found:?}")]
pub struct NotAnEventType {
    /// The text.
    pub found: String,
}

impl TryFrom<String> for EventType {
    type Error = NotAnEventType;

    fn try_from(text: String) -> Result<Self, NotAnEventType> {
        let number = || text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        EventType::named(&text)
            .or_else(|| number().map(EventType))
            .ok_or_else(|| NotAnEventType { found: text.clone() })
    }
}

/// Names who receives an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Witness {
    /// A TPM and a TD's registers.
    Both,
    /// A TPM only.
    Tpm,
    /// A TD's registers only.
    Tdx,
}

/// Says where the hashed bytes come from, so that an auditor can hash them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// A file (`firmware`, `uki`, `disk`), or where no file holds the bytes, `machine`, `acpi`, `platform` or `rule`.
    pub file: String,
    /// Offset and length of the bytes in that file, in order; empty if the rule alone makes the bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<(u64, u64)>,
    /// How they are hashed, in one clause.
    pub rule: String,
}

/// The digests that a verifier may accept for an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Exactly this digest.
    Exact(Digest),
    /// The platform decides the digest; the rule says which digests are accepted.
    PlatformGiven(PlatformRule),
}

/// The rules for accepting an event that the platform decides. Where the event's data can explain the digest, they must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "rule")]
pub enum PlatformRule {
    /// One of the digests that a platform file lists with source and date.
    OneOf {
        /// The digests.
        digests: Vec<Digest>,
    },
    /// A `Boot####` variable whose digest is that of its value: an active load option whose description has this prefix.
    /// Which file it names does not matter: the file that runs is measured itself.
    BootOption {
        /// The prefix; empty for any description.
        description: String,
    },
    /// The digest of the event's own data, whatever they are.
    FromData {
        /// The maximum number of such events in a row; 1 means exactly one.
        at_most: u32,
    },
    /// The digest of the event's own data, which are a variable of UEFI's with this name.
    Variable {
        /// The name: `db`, `dbx`, `dbt` or `dbr` of the image security database, or a global variable.
        name: String,
    },
    /// Any digest: nothing constrains it, and the verdict says that it was not judged.
    Unjudged,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Exact(digest) => write!(f, "{digest}"),
            Expected::PlatformGiven(rule) => write!(f, "platform-given, {rule}"),
        }
    }
}

impl fmt::Display for PlatformRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlatformRule::OneOf { digests } => {
                f.write_str("one of")?;
                digests.iter().try_for_each(|digest| write!(f, " {digest}"))
            }
            PlatformRule::BootOption { description } => {
                write!(f, "the digest of an active boot option whose description begins with {description:?}")
            }
            PlatformRule::FromData { at_most: 1 } => f.write_str("the digest of its own data"),
            PlatformRule::Variable { name } => write!(f, "the digest of its own data, the variable {name}"),
            PlatformRule::FromData { at_most } => {
                write!(f, "the digest of its own data, at most {at_most} in a row")
            }
            PlatformRule::Unjudged => f.write_str("any digest, not judged"),
        }
    }
}

/// A predicted event of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The PCR that a TPM extends; for TDX see [`rtmr_of_pcr`].
    pub pcr: u8,
    /// Its type in the log.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// What is measured, for people.
    pub subject: String,
    /// What a verifier accepts.
    pub expected: Expected,
    /// Who receives it.
    pub witness: Witness,
    /// Where the hashed bytes come from.
    pub source: Source,
}

impl Event {
    /// Returns the register that the event extends; `None` if a machine with such registers does not receive it.
    pub fn register(&self, kind: RegisterKind) -> Option<Register> {
        match (kind, self.witness) {
            (RegisterKind::Tdx, Witness::Both | Witness::Tdx) => rtmr_of_pcr(self.pcr).map(Register::Rtmr),
            (RegisterKind::Tpm, Witness::Both | Witness::Tpm) => Some(Register::Pcr(self.pcr)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn an_event_extends_a_register_of_its_witness_only() {
        let event = |pcr, witness| Event {
            pcr,
            kind: EventType::EV_SEPARATOR,
            subject: String::new(),
            expected: Expected::Exact(Algorithm::Sha384.zero()),
            witness,
            source: Source { file: String::new(), ranges: Vec::new(), rule: String::new() },
        };
        let register = |pcr, witness, kind| event(pcr, witness).register(kind);
        assert_eq!(register(7, Witness::Both, RegisterKind::Tdx), Some(Register::Rtmr(0)));
        assert_eq!(register(7, Witness::Both, RegisterKind::Tpm), Some(Register::Pcr(7)));
        assert_eq!(register(7, Witness::Tpm, RegisterKind::Tdx), None);
        assert_eq!(register(7, Witness::Tdx, RegisterKind::Tpm), None);
        assert_eq!(register(0, Witness::Both, RegisterKind::Tdx), None);
    }

    #[test]
    fn expectations_are_described_by_their_rule() {
        let digest = Algorithm::Sha256.zero();
        let given = |rule| Expected::PlatformGiven(rule).to_string();
        assert_eq!(Expected::Exact(digest).to_string(), "0".repeat(64));
        let one_of = given(PlatformRule::OneOf { digests: [digest, digest].into() });
        assert_eq!(one_of, alloc::format!("platform-given, one of {digest} {digest}"));
        let option = given(PlatformRule::BootOption { description: "UEFI".into() });
        assert!(option.ends_with("an active boot option whose description begins with \"UEFI\""), "{option}");
        let from_data = |at_most| given(PlatformRule::FromData { at_most });
        assert_eq!(from_data(2), "platform-given, the digest of its own data, at most 2 in a row");
        assert_eq!(from_data(1), "platform-given, the digest of its own data");
        let variable = given(PlatformRule::Variable { name: "dbx".into() });
        assert_eq!(variable, "platform-given, the digest of its own data, the variable dbx");
        assert_eq!(given(PlatformRule::Unjudged), "platform-given, any digest, not judged");
    }
}
