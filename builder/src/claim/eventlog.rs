//! Yields the report of `proofmark eventlog`: registers, events, and which digests the data explain.
//!
//! # Shape
//! ```text
//! Told    kind, algorithm, registers {rtmr0: hex} or {pcr: {0: hex}}, events, informative, findings
//! event   register, type, digest, subject, source; offset, derivation, expected when contradicted
//! ```
//!
//! # Not here
//! Reading the log, replaying it and deriving its digests (`ovmf-measure`).

use std::collections::BTreeMap;
use std::fmt::Write;

use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::event::{EventType, Register, Source};
use ovmf_measure::log::{Entry, Log};
use ovmf_measure::reference::RegisterKind;
use ovmf_measure::replay::{self, Derivation, Finding, derive, subject};
use serde::Serialize;

/// How many digits of a digest the table shows.
const SHORT: usize = 16;

/// The report on a log.
#[derive(Debug, Serialize)]
pub struct Told {
    kind: RegisterKind,
    algorithm: Algorithm,
    registers: Registers,
    events: Vec<Event>,
    /// Records that extend nothing.
    informative: Vec<Informative>,
    findings: Vec<String>,
    #[serde(skip)]
    answer: Answer,
}

/// Whether the log's data contradict its digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The data contradict no digest.
    Consistent,
    /// The data contradict at least one digest.
    Contradicted,
}

/// The registers; those of a TPM are under `pcr`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Registers {
    /// A TD's.
    Tdx(BTreeMap<Register, Digest>),
    /// A TPM's.
    Tpm {
        /// By number.
        pcr: BTreeMap<u8, Digest>,
    },
}

impl Registers {
    /// Puts registers into the printed shape; leaves out those of another kind.
    pub fn of(registers: BTreeMap<Register, Digest>, kind: RegisterKind) -> Self {
        match kind {
            RegisterKind::Tdx => Registers::Tdx(registers),
            RegisterKind::Tpm => {
                let number = |(register, value)| match register {
                    Register::Pcr(number) => Some((number, value)),
                    _ => None,
                };
                Registers::Tpm { pcr: registers.into_iter().filter_map(number).collect() }
            }
        }
    }

    fn lines(&self) -> Vec<(Register, Digest)> {
        match self {
            Registers::Tdx(registers) => registers.iter().map(|(name, value)| (*name, *value)).collect(),
            Registers::Tpm { pcr } => pcr.iter().map(|(pcr, value)| (Register::Pcr(*pcr), *value)).collect(),
        }
    }
}

/// One event.
#[derive(Debug, Serialize)]
struct Event {
    register: Register,
    #[serde(rename = "type")]
    kind: EventType,
    digest: Digest,
    subject: String,
    source: Source,
    offset: usize,
    derivation: &'static str,
    /// The digest of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Digest>,
}

/// One record that extends nothing.
#[derive(Debug, Serialize)]
struct Informative {
    offset: usize,
    subject: String,
}

/// Reports on one bank of a log.
///
/// # Errors
/// The log has no such bank, or names registers that do not exist.
pub fn tell(log: &Log, algorithm: Algorithm) -> Result<Told, replay::Error> {
    let registers = replay::replay(log, algorithm)?;
    let findings = replay::findings(log, algorithm)?;
    let contradicted = |finding: &Finding| matches!(finding, Finding::Contradicted { .. });
    let answer = if findings.iter().any(contradicted) { Answer::Contradicted } else { Answer::Consistent };
    let mut events = Vec::new();
    let mut informative = Vec::new();
    for entry in &log.entries {
        if !entry.is_extended() {
            informative.push(Informative { offset: entry.offset, subject: subject(entry) });
            continue;
        }
        let register = replay::extended(entry, log.kind)?;
        if let Some(digest) = entry.digest(algorithm) {
            events.push(event(entry, register, *digest));
        }
    }
    Ok(Told {
        kind: log.kind,
        algorithm,
        registers: Registers::of(registers, log.kind),
        events,
        informative,
        findings: findings.iter().map(ToString::to_string).collect(),
        answer,
    })
}

fn event(entry: &Entry, register: Register, digest: Digest) -> Event {
    let (derivation, rule, expected) = match derive(entry, digest.algorithm()) {
        Derivation::Derived(rule) => ("derived", rule.to_string(), None),
        Derivation::Contradicted { rule, expected } => ("contradicted", rule.to_string(), Some(expected)),
        Derivation::NotDerivable(why) => ("not_derivable", why.to_string(), None),
    };
    // Where the data lie, for anyone who hashes them again.
    let bytes = entry.data.as_ref().map(|data| (entry.data_at as u64, data.len() as u64));
    let ranges = bytes.filter(|(begin, _)| *begin > 0).into_iter().collect();
    Event {
        register,
        kind: entry.kind,
        digest,
        subject: subject(entry),
        source: Source { file: "log".to_owned(), ranges, rule },
        offset: entry.offset,
        derivation,
        expected,
    }
}

impl Told {
    /// Returns whether the log contradicts itself.
    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// Formats the report as a table: the registers, the events, the oddities.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{arguments}");
        };
        for (register, value) in self.registers.lines() {
            line(format_args!("{:<8}{value}", register.to_string()));
        }
        line(format_args!(""));
        let width = self.events.iter().map(|event| event.kind.to_string().len()).max().unwrap_or(0);
        for event in &self.events {
            let digest = event.digest.to_string();
            let short = digest.get(..SHORT).unwrap_or(&digest);
            let mark = match event.derivation {
                "derived" => "=",
                "contradicted" => "!",
                _ => "?",
            };
            let (register, kind) = (event.register.to_string(), event.kind.to_string());
            let (subject, rule) = (&event.subject, &event.source.rule);
            line(format_args!("{register:<8}{kind:<width$}  {short}… {mark} {subject}  ({rule})"));
        }
        let count = |wanted: &str| self.events.iter().filter(|event| event.derivation == wanted).count();
        line(format_args!(""));
        line(format_args!(
            "{} events: {} digests are those of their data (=), {} are of what the log does not hold (?), {} contradict \
             their data (!)",
            self.events.len(),
            count("derived"),
            count("not_derivable"),
            count("contradicted"),
        ));
        for finding in &self.findings {
            line(format_args!("note: {finding}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use ovmf_measure::log::Bank;

    use super::*;

    fn log(kind: RegisterKind, entries: &[(u32, EventType, &[u8], &[u8])]) -> Log {
        let entries = entries.iter().enumerate().map(|(offset, (index, kind, hashed, data))| Entry {
            offset,
            index: *index,
            kind: *kind,
            digests: vec![Algorithm::Sha384.of(hashed)],
            data_at: 0,
            data: Some(data.to_vec()),
        });
        Log { kind, banks: vec![Bank { id: 12, length: 48 }], entries: entries.collect(), length: 0 }
    }

    #[test]
    fn each_event_is_told_with_its_digest_s_origin() {
        let log = log(
            RegisterKind::Tdx,
            &[
                (0, EventType::EV_NO_ACTION, b"", b"SP800-155 Event3"),
                (2, EventType::EV_SEPARATOR, &[0; 4], &[0; 4]),
                (2, EventType::EV_EFI_BOOT_SERVICES_APPLICATION, b"pe", b""),
                (1, EventType::EV_EFI_ACTION, b"a", b"b"),
            ],
        );
        let told = tell(&log, Algorithm::Sha384).unwrap();
        assert_eq!(told.answer(), Answer::Contradicted);
        let json = serde_json::to_value(&told).unwrap();
        let origins: Vec<&str> =
            json["events"].as_array().unwrap().iter().map(|e| e["derivation"].as_str().unwrap()).collect();
        assert_eq!(origins, ["derived", "not_derivable", "contradicted"]);
        assert_eq!(json["events"][0]["register"], "rtmr1");
        assert_eq!(json["events"][0]["type"], "EV_SEPARATOR");
        assert_eq!(json["events"][0]["subject"], "separator");
        assert_eq!(json["events"][2]["expected"], Algorithm::Sha384.of(b"b").to_string());
        assert_eq!(json["registers"]["rtmr2"], "00".repeat(48));
        assert_eq!(json["informative"].as_array().unwrap().len(), 1);
        let text = told.to_text();
        assert!(text.contains("! b  (the hash of the event data)"), "{text}");
        assert!(text.contains("3 events: 1 digests"), "{text}");
    }

    #[test]
    fn a_tpm_s_registers_stand_below_pcr() {
        let log = log(RegisterKind::Tpm, &[(4, EventType::EV_SEPARATOR, &[0; 4], &[0; 4])]);
        let told = tell(&log, Algorithm::Sha384).unwrap();
        assert_eq!(told.answer(), Answer::Consistent);
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json["registers"]["pcr"]["0"], "00".repeat(48));
        assert_ne!(json["registers"]["pcr"]["4"], "00".repeat(48));
        assert_eq!(json["events"][0]["register"], "pcr.4");
        assert!(tell(&log, Algorithm::Sha256).is_err());
    }
}
