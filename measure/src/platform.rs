//! The events that a platform decides, from a file that records where and when each digest was read.
//!
//! # Shape
//!
//! ```text
//! name = "gcp-c3"   kind = "tdx"   firmware-speaks-to = "tpm-and-tdx"
//! [[mrtd]]          digest, source, date
//! [[section]]       kind, address, size                    of the firmware, if its TD HOB depends on them
//! [[event]]         pcr, type, subject, and one rule:
//!                     td-hob = "google"                    exact: computed from the sections and the memory
//!                     digests = [{digest, source, date}]   one of these
//!                     data = "…"                           exact: the digest of this text
//!                     bytes = "…"                          exact: the digest of these bytes, in hexadecimal
//!                     boot-option = "UEFI …"               the digest of its own data, a boot option with this prefix
//!                     variable = "SecureBoot"              the digest of its own data, a variable with this name
//!                     from-data = 8                        up to so many events, each with the digest of its own data
//!                   in boot order, up to the first event that the image decides
//! ```
//!
//! The files are TOML, in `platforms/`; the types are serde's.
//!
//! # Not here
//!
//! The events that the image decides ([`crate::boot`]), and machines whose events are all computed (QEMU).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest};
use crate::event::{Event, EventType, Expected, PlatformRule, Source, Witness};
use crate::firmware::{Gpa, Kind, Section};
use crate::reference::RegisterKind;
use crate::td_hob;

/// A platform's file is invalid, or its events cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An event has no rule, or more than one.
    #[error("platform {platform}, event {subject:?}: expected one rule, found {found}")]
    Rules {
        /// The platform.
        platform: String,
        /// The event.
        subject: String,
        /// How many rules it has.
        found: usize,
    },
    /// A digest has another algorithm than the registers.
    #[error("platform {platform}, event {subject:?}: expected {expected} digests, found {found}")]
    Algorithm {
        /// The platform.
        platform: String,
        /// The event.
        subject: String,
        /// The registers' algorithm.
        expected: Algorithm,
        /// The digest.
        found: Digest,
    },
    /// Bytes are not hexadecimal.
    #[error("platform {platform}, event {subject:?}: expected hexadecimal digits, found {found:?}")]
    Hexadecimal {
        /// The platform.
        platform: String,
        /// The event.
        subject: String,
        /// The text.
        found: String,
    },
    /// The TD HOB cannot be computed.
    #[error(transparent)]
    TdHob(#[from] td_hob::Error),
}

/// A digest, with its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The digest.
    pub digest: Digest,
    /// Where it was read: a log or a publication.
    pub source: String,
    /// When it was read, such as 2026-11-23.
    pub date: String,
}

/// Who receives a firmware's events; this also decides who receives the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listener {
    /// A TD's registers only; the kernel extends them too.
    Tdx,
    /// A TPM as well; the kernel extends only the TPM.
    TpmAndTdx,
    /// A TPM only.
    Tpm,
}

/// An event that the platform decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Given {
    /// The PCR; for a TD, one that maps to the register.
    pub pcr: u8,
    /// Its type in the log.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// What is measured.
    pub subject: String,
    /// Computed by this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub td_hob: Option<TdHob>,
    /// One of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<Seen>,
    /// The digest of this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The digest of these bytes, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// A boot option whose description has this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_option: Option<String>,
    /// The variable with this name, with the digest of its own data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// Up to so many events, each with the digest of its own data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_data: Option<u32>,
}

/// The rule by which a platform writes its TD HOB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TdHob {
    /// Google's, see [`td_hob::google`].
    Google,
}

/// A section of the platform's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Its type in TDVF metadata: 0 code, 1 variables, 2 TD HOB, 3 memory.
    pub kind: u32,
    /// Its address in memory.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// A platform's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PlatformFile {
    /// Its name on the command line.
    pub name: String,
    /// Whose registers it has.
    pub kind: RegisterKind,
    /// Who receives the firmware's events.
    pub firmware_speaks_to: Listener,
    /// The known MRTD values.
    #[serde(default)]
    pub mrtd: Vec<Seen>,
    /// The firmware's sections.
    #[serde(default)]
    pub section: Vec<Place>,
    /// The events before the image's.
    #[serde(default)]
    pub event: Vec<Given>,
}

impl PlatformFile {
    /// Returns the events before the image's, for a machine with `memory` bytes.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn events(&self, algorithm: Algorithm, memory: u64) -> Result<Vec<Event>, Error> {
        let witness = match self.kind {
            RegisterKind::Tdx => Witness::Tdx,
            RegisterKind::Tpm => Witness::Tpm,
        };
        let event = |given: &Given| {
            let (expected, rule) = self.expected(given, algorithm, memory)?;
            let source = Source { file: "platform".into(), ranges: Vec::new(), rule };
            Ok(Event {
                pcr: given.pcr,
                kind: given.kind,
                subject: given.subject.clone(),
                expected,
                witness,
                source,
            })
        };
        self.event.iter().map(event).collect()
    }

    fn expected(
        &self,
        given: &Given,
        algorithm: Algorithm,
        memory: u64,
    ) -> Result<(Expected, String), Error> {
        let name = || (self.name.clone(), given.subject.clone());
        let found = [
            given.td_hob.is_some(),
            !given.digests.is_empty(),
            given.data.is_some(),
            given.bytes.is_some(),
            given.boot_option.is_some(),
            given.variable.is_some(),
            given.from_data.is_some(),
        ];
        let found = found.iter().filter(|rule| **rule).count();
        if found != 1 {
            let (platform, subject) = name();
            return Err(Error::Rules { platform, subject, found });
        }
        if let Some(other) = given.digests.iter().find(|seen| seen.digest.algorithm() != algorithm) {
            let (platform, subject) = name();
            return Err(Error::Algorithm { platform, subject, expected: algorithm, found: other.digest });
        }
        Ok(match given {
            Given { td_hob: Some(TdHob::Google), .. } => {
                let sections: Vec<Section> = self.section.iter().map(Place::section).collect();
                let list = td_hob::google(&sections, memory)?;
                let rule = "the TD HOB list without its end, from the sections and the memory";
                (Expected::Exact(algorithm.of(&list)), rule.to_string())
            }
            Given { data: Some(text), .. } => {
                (Expected::Exact(algorithm.of(text.as_bytes())), alloc::format!("the text {text:?}"))
            }
            Given { bytes: Some(digits), .. } => {
                let bytes = hex::decode(digits).map_err(|_| {
                    let (platform, subject) = name();
                    Error::Hexadecimal { platform, subject, found: digits.clone() }
                })?;
                (Expected::Exact(algorithm.of(&bytes)), alloc::format!("the bytes {digits}"))
            }
            Given { boot_option: Some(description), .. } => {
                let rule = PlatformRule::BootOption { description: description.clone() };
                (Expected::PlatformGiven(rule), "the data of the variable in the log".to_string())
            }
            Given { variable: Some(name), .. } => {
                let rule = PlatformRule::Variable { name: name.clone() };
                (Expected::PlatformGiven(rule), "the data of the variable in the log".to_string())
            }
            Given { from_data: Some(at_most), .. } => {
                let rule = PlatformRule::FromData { at_most: *at_most };
                (Expected::PlatformGiven(rule), "the data in the log".to_string())
            }
            Given { digests, .. } => {
                let rule = PlatformRule::OneOf { digests: digests.iter().map(|seen| seen.digest).collect() };
                let mut sources: Vec<String> =
                    digests.iter().map(|seen| alloc::format!("{}, {}", seen.source, seen.date)).collect();
                sources.dedup();
                (Expected::PlatformGiven(rule), alloc::format!("seen: {}", sources.join("; ")))
            }
        })
    }
}

impl Place {
    fn section(&self) -> Section {
        Section {
            kind: Kind::from(self.kind),
            data_offset: 0,
            data_size: 0,
            address: Gpa(self.address),
            memory_size: self.size,
            attributes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn given() -> Given {
        Given {
            pcr: 1,
            kind: EventType::EV_EFI_HANDOFF_TABLES2,
            subject: "x".into(),
            td_hob: None,
            digests: Vec::new(),
            data: None,
            bytes: None,
            boot_option: None,
            variable: None,
            from_data: None,
        }
    }

    fn events(given: Given) -> Result<Vec<Event>, Error> {
        let file = PlatformFile {
            name: "p".into(),
            kind: RegisterKind::Tdx,
            firmware_speaks_to: Listener::Tdx,
            mrtd: Vec::new(),
            section: alloc::vec![Place { kind: 2, address: 0x80_9000, size: 0x2000 }],
            event: alloc::vec![given],
        };
        file.events(Algorithm::Sha384, 16 << 30)
    }

    #[test]
    fn each_rule_gives_its_prediction() {
        let one = |change: fn(&mut Given)| {
            let mut given = given();
            change(&mut given);
            events(given).unwrap().remove(0).expected
        };
        let exact = |bytes| Expected::Exact(Algorithm::Sha384.of(bytes));
        assert_eq!(one(|g| g.data = Some("ACPI DATA".into())), exact(b"ACPI DATA"));
        assert_eq!(one(|g| g.bytes = Some("0000".into())), exact(b"\0\0"));
        let rule = PlatformRule::BootOption { description: "UEFI".into() };
        assert_eq!(one(|g| g.boot_option = Some("UEFI".into())), Expected::PlatformGiven(rule));
        let rule = PlatformRule::Variable { name: "dbx".into() };
        assert_eq!(one(|g| g.variable = Some("dbx".into())), Expected::PlatformGiven(rule));
        let rule = PlatformRule::FromData { at_most: 3 };
        assert_eq!(one(|g| g.from_data = Some(3)), Expected::PlatformGiven(rule));
        assert!(matches!(one(|g| g.td_hob = Some(TdHob::Google)), Expected::Exact(_)));
    }

    #[test]
    fn an_event_with_no_rule_or_two_is_refused() {
        assert!(matches!(events(given()), Err(Error::Rules { found: 0, .. })));
        let two = Given { data: Some("a".into()), from_data: Some(1), ..given() };
        assert!(matches!(events(two), Err(Error::Rules { found: 2, .. })));
    }

    #[test]
    fn digests_of_another_algorithm_and_bad_hexadecimal_are_refused() {
        let seen = Seen { digest: Algorithm::Sha256.of(b""), source: "s".into(), date: "d".into() };
        let other = Given { digests: alloc::vec![seen], ..given() };
        assert!(matches!(events(other), Err(Error::Algorithm { .. })));
        let digits = Given { bytes: Some("0g".into()), ..given() };
        assert!(matches!(events(digits), Err(Error::Hexadecimal { .. })));
    }
}
