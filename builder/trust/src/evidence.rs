//! Yields a machine's evidence (a quote or PCR values, and its event log) from files that others wrote.
//!
//! # Shape
//! ```text
//! evidence   a quote or a TDREPORT, as bytes or as hexadecimal or base64 text
//!            {"quote" | "report": text, "log" | "cc_eventlog": text}           ours, and Confidential Containers'
//!            {"quote": text, "event_log": "[…]" or […]}                        dstack's GetQuote
//!            {"pcrs": {"sha384": {"0": hex, …}, …}, "log": text}               a TPM's
//! log        a CCEL or TPM log, as bytes or as text; or the events as JSON:
//!            [{"imr": 0 to 3, "event_type": u32, "digest": hex, "event": name, "event_payload": hex}, …]
//! ```
//! White space around and within text is ignored. Only the named JSON members are read. A log inside the
//! evidence plus a separate log is an error. If dstack stored an event without its digest, the digest is
//! computed by dstack's rule.
//!
//! # Source
//! dstack cc-eventlog and its GetQuote response; trustee's TDX evidence. Confirmed with a real dstack
//! response, whose events replay to the registers in its quote.
//!
//! # Not here
//! The formats of logs and quotes, and whether to believe them (`ovmf-measure`).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ovmf_measure::appraise::{self, Evidence, Unverified};
use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::event::EventType;
use ovmf_measure::log::{self, Bank, Entry, Log};
use ovmf_measure::quote::{self, Quote, Report};
use ovmf_measure::reference::{Reference, RegisterKind};
use ovmf_measure::replay::{Derivation, derive};
use serde::Deserialize;

/// The type of dstack's runtime events.
const DSTACK_RUNTIME: EventType = EventType(0x0800_0001);

/// A log's SHA-384 bank.
const SHA384: Bank = Bank { id: 0x000c, length: 48 };

/// What an evidence file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The registers.
    pub registers: Registers,
    /// The log, when the file holds one.
    pub log: Option<Log>,
}

/// The registers in an evidence file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registers {
    /// A TD's registers in a quote, whose signature is not checked here.
    Quote(Box<Quote>),
    /// A TD's registers in a TDREPORT, which is not signed.
    Report(Box<Report>),
    /// A TPM's registers, by bank.
    Pcrs(BTreeMap<Algorithm, BTreeMap<u8, Digest>>),
}

/// Why bytes are not evidence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The JSON is malformed, or not of a known shape.
    #[error("expected a JSON document with quote, report or pcrs")]
    Json(#[source] serde_json::Error),
    /// The document has too few or too many of these members.
    #[error("expected exactly one of {expected}, found {found}")]
    Members {
        /// The members.
        expected: &'static str,
        /// How many of them are present.
        found: usize,
    },
    /// A member is neither hexadecimal nor base64 text.
    #[error("expected hexadecimal or base64 text as {member}, found neither")]
    Text {
        /// Which member.
        member: &'static str,
    },
    /// The quote cannot be read.
    #[error("not a TD quote")]
    Quote(#[source] quote::Error),
    /// The TDREPORT cannot be read.
    #[error("not a TDREPORT")]
    Report(#[source] quote::Error),
    /// The log cannot be read.
    #[error("not an event log")]
    Log(#[source] log::Error),
    /// The events' JSON cannot be read.
    #[error("expected a list of events with imr, event_type and digest")]
    Events(#[source] serde_json::Error),
    /// An event names an unknown register.
    #[error("event {number} has imr {found}, expected 0 to 3")]
    Imr {
        /// The event's number, from 0.
        number: usize,
        /// The register's number.
        found: u32,
    },
    /// An event's digest or value is not hexadecimal, or has the wrong length.
    #[error("event {number} has {member} {found:?}, expected hexadecimal digits{}", .digits.map(|n| format!(", {n} of them")).unwrap_or_default())]
    Hex {
        /// The event's number, from 0.
        number: usize,
        /// Which member.
        member: &'static str,
        /// How many digits are required, if fixed.
        digits: Option<usize>,
        /// The text.
        found: String,
    },
    /// There is no log.
    #[error("the evidence has no event log, and no separate one is given")]
    NoLog,
    /// There are two logs.
    #[error("the evidence has an event log, and a separate one is given too")]
    TwoLogs,
    /// No bank has values.
    #[error("expected PCR values of sha256 or sha384, found none")]
    NoPcrs,
    /// The values and the log cannot belong to the same machine.
    #[error(transparent)]
    Pcrs(#[from] appraise::Error),
}

/// An evidence document.
#[derive(Deserialize)]
struct Document {
    quote: Option<String>,
    report: Option<String>,
    pcrs: Option<BTreeMap<Algorithm, BTreeMap<u8, Digest>>>,
    #[serde(alias = "cc_eventlog")]
    log: Option<String>,
    event_log: Option<Events>,
}

/// Events in a document: a list, or a list as JSON text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Events {
    Text(String),
    List(Vec<Event>),
}

/// One event, as dstack writes it.
#[derive(Deserialize)]
struct Event {
    imr: u32,
    event_type: u32,
    digest: String,
    #[serde(default)]
    event: String,
    #[serde(default)]
    event_payload: String,
}

/// Reads an evidence file.
///
/// # Errors
/// See [`Error`].
pub fn read(bytes: &[u8]) -> Result<Parts, Error> {
    if let Some(document) = json(bytes) {
        return parts(serde_json::from_slice(document).map_err(Error::Json)?);
    }
    let decoded = decoded(bytes);
    let bytes = decoded.as_deref().unwrap_or(bytes);
    // A TDREPORT has no version: its first byte is its type.
    let registers = match bytes.first() {
        Some(0x81) => Registers::Report(Box::new(Report::read(bytes).map_err(Error::Report)?)),
        _ => Registers::Quote(Box::new(Quote::read(bytes).map_err(Error::Quote)?)),
    };
    Ok(Parts { registers, log: None })
}

/// Reads an event log, on its own or inside an evidence document.
///
/// # Errors
/// See [`Error`].
pub fn read_log(bytes: &[u8]) -> Result<Log, Error> {
    match json(bytes) {
        Some(list) if list.starts_with(b"[") => events(serde_json::from_slice(list).map_err(Error::Events)?),
        Some(document) => {
            parts(serde_json::from_slice(document).map_err(Error::Json)?)?.log.ok_or(Error::NoLog)
        }
        None => Log::read_any(decoded(bytes).as_deref().unwrap_or(bytes)).map_err(Error::Log),
    }
}

impl Parts {
    /// Combines registers and log. For a TPM, takes the strongest bank that the reference has values for.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn with_log(self, beside: Option<Log>, reference: &Reference) -> Result<Evidence<Unverified>, Error> {
        let log = match (self.log, beside) {
            (Some(_), Some(_)) => return Err(Error::TwoLogs),
            (None, None) => return Err(Error::NoLog),
            (Some(log), None) | (None, Some(log)) => log,
        };
        match self.registers {
            Registers::Quote(quote) => Ok(Evidence::of_quote(&quote, log)),
            Registers::Report(report) => Ok(Evidence::of_report(&report, log)),
            Registers::Pcrs(banks) => {
                let known = |algorithm: &Algorithm| {
                    let of_it = |platform: &ovmf_measure::reference::Platform| {
                        platform.kind == RegisterKind::Tpm && platform.algorithm == *algorithm
                    };
                    reference.platforms.iter().any(of_it)
                };
                let strongest = banks.iter().max_by_key(|(algorithm, _)| (known(algorithm), **algorithm));
                let (algorithm, values) = strongest.ok_or(Error::NoPcrs)?;
                Ok(Evidence::of_pcrs(*algorithm, values.clone(), log)?)
            }
        }
    }
}

/// The bytes from the first brace or bracket on, if only white space comes before it.
fn json(bytes: &[u8]) -> Option<&[u8]> {
    let bytes = bytes.trim_ascii_start();
    bytes.starts_with(b"{").then_some(bytes).or_else(|| bytes.starts_with(b"[").then_some(bytes))
}

/// Decodes hexadecimal or base64 text; `None` when it is neither.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let dense: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if dense.is_empty() || !dense.is_ascii() {
        return None;
    }
    let digits = dense.strip_prefix(b"0x").unwrap_or(&dense);
    hex::decode(digits).ok().or_else(|| STANDARD.decode(&dense).ok())
}

fn text(member: &'static str, text: &str) -> Result<Vec<u8>, Error> {
    decoded(text.as_bytes()).ok_or(Error::Text { member })
}

fn parts(document: Document) -> Result<Parts, Error> {
    let Document { quote, report, pcrs, log, event_log } = document;
    let found = [quote.is_some(), report.is_some(), pcrs.is_some()].into_iter().filter(|is| *is).count();
    let registers = match (quote, report, pcrs) {
        (Some(quote), None, None) => {
            Registers::Quote(Box::new(Quote::read(&text("quote", &quote)?).map_err(Error::Quote)?))
        }
        (None, Some(report), None) => {
            Registers::Report(Box::new(Report::read(&text("report", &report)?).map_err(Error::Report)?))
        }
        (None, None, Some(pcrs)) => Registers::Pcrs(pcrs),
        _ => return Err(Error::Members { expected: "quote, report and pcrs", found }),
    };
    let log = match (log, event_log) {
        (Some(_), Some(_)) => return Err(Error::Members { expected: "log and event_log", found: 2 }),
        (Some(log), None) => Some(Log::read_any(&text("log", &log)?).map_err(Error::Log)?),
        (None, Some(Events::List(list))) => Some(events(list)?),
        (None, Some(Events::Text(text))) => {
            Some(events(serde_json::from_str(&text).map_err(Error::Events)?)?)
        }
        (None, None) => None,
    };
    Ok(Parts { registers, log })
}

/// Builds a TD's log from events in JSON.
fn events(list: Vec<Event>) -> Result<Log, Error> {
    let mut entries = Vec::with_capacity(list.len());
    for (number, event) in list.into_iter().enumerate() {
        let kind = EventType(event.event_type);
        if event.imr > 3 {
            return Err(Error::Imr { number, found: event.imr });
        }
        let hexadecimal = |member, digits, found: &str| {
            hex::decode(found).map_err(|_| Error::Hex { number, member, digits, found: found.into() })
        };
        let payload = hexadecimal("event_payload", None, &event.event_payload)?;
        let data = if kind == DSTACK_RUNTIME {
            Some([b":", event.event.as_bytes(), b":", &payload].concat())
        } else {
            (!payload.is_empty()).then_some(payload)
        };
        let mut entry = Entry {
            offset: number,
            // A CCEL's index is the register's plus one.
            index: event.imr.saturating_add(1),
            kind,
            digests: vec![Algorithm::Sha384.zero()],
            data_at: 0,
            data,
        };
        let digest = if event.digest.is_empty() && kind == DSTACK_RUNTIME {
            match derive(&entry, Algorithm::Sha384) {
                Derivation::Contradicted { expected, .. } => Some(expected),
                _ => None,
            }
        } else {
            let bytes = hexadecimal("digest", Some(96), &event.digest)?;
            Digest::from_bytes(&bytes).filter(|digest| digest.algorithm() == Algorithm::Sha384)
        };
        entry.digests = match digest {
            Some(digest) => vec![digest],
            None => {
                let found = event.digest;
                return Err(Error::Hex { number, member: "digest", digits: Some(96), found });
            }
        };
        entries.push(entry);
    }
    Ok(Log { kind: RegisterKind::Tdx, banks: vec![SHA384], length: entries.len(), entries })
}

#[cfg(test)]
mod tests {
    use ovmf_measure::event::Register;
    use ovmf_measure::replay::replay;

    use super::*;

    /// A quote of zeros.
    fn quote() -> Vec<u8> {
        let mut bytes = vec![4, 0, 2, 0, 0x81, 0, 0, 0];
        bytes.resize(48 + 584, 0);
        bytes.extend([4, 0, 0, 0]);
        bytes.extend(b"sign");
        bytes
    }

    /// A log of one event.
    fn ccel() -> Vec<u8> {
        let mut bytes = vec![1, 0, 0, 0, 3, 0, 0, 0];
        bytes.resize(28, 0);
        let mut first = b"Spec ID Event03\0".to_vec();
        first.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 12, 0, 48, 0, 0]);
        bytes.extend((first.len() as u32).to_le_bytes());
        bytes.extend(first);
        bytes.extend([2, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 12, 0]);
        bytes.extend(Algorithm::Sha384.of(&[0; 4]).as_bytes());
        bytes.extend([4, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    fn document(members: &str) -> Vec<u8> {
        let quote = hex::encode(quote());
        members.replace("QUOTE", &quote).replace("LOG", &STANDARD.encode(ccel())).into_bytes()
    }

    #[test]
    fn a_quote_reads_the_same_as_bytes_and_as_text() {
        let plain = read(&quote()).unwrap();
        assert!(matches!(plain.registers, Registers::Quote(_)) && plain.log.is_none());
        let text = hex::encode(quote());
        for same in [
            text.clone(),
            format!("0x{text}\n"),
            text.to_uppercase(),
            format!(" {}\n{}", &text[..80], &text[80..]),
            STANDARD.encode(quote()),
            format!("{{\"quote\": \"{text}\"}}"),
        ] {
            assert_eq!(read(same.as_bytes()).unwrap(), plain);
        }
    }

    #[test]
    fn a_log_reads_the_same_wherever_it_lies() {
        let log = read_log(&ccel()).unwrap();
        assert_eq!(log.entries.len(), 1);
        assert_eq!(read_log(STANDARD.encode(ccel()).as_bytes()).unwrap(), log);
        for member in ["log", "cc_eventlog"] {
            let bundle = document(&format!(r#"{{"quote": "QUOTE", "{member}": "LOG", "more": 1}}"#));
            assert_eq!(read(&bundle).unwrap().log.as_ref(), Some(&log));
            assert_eq!(read_log(&bundle).unwrap(), log);
        }
    }

    #[test]
    fn events_as_json_replay_and_one_without_digest_has_that_of_its_rule() {
        let separator = Algorithm::Sha384.of(&[0; 4]);
        let list = format!(
            r#"[{{"imr": 1, "event_type": 4, "digest": "{separator}", "event": "", "event_payload": "00000000"}},
                {{"imr": 3, "event_type": 134217729, "digest": "", "event": "app-id", "event_payload": "aa"}}]"#
        );
        let log = read_log(list.as_bytes()).unwrap();
        let registers = replay(&log, Algorithm::Sha384).unwrap();
        let zero = Algorithm::Sha384.zero();
        assert_eq!(registers[&Register::Rtmr(1)], zero.extended(&separator));
        let own = Algorithm::Sha384.of(b"\x01\0\0\x08:app-id:\xaa");
        assert_eq!(registers[&Register::Rtmr(3)], zero.extended(&own));
        let bundle = |events: String| document(&format!(r#"{{"quote": "QUOTE", "event_log": {events}}}"#));
        let as_text = serde_json::to_string(&list).unwrap();
        for same in [bundle(list), bundle(as_text)] {
            assert_eq!(read_log(&same).unwrap(), log);
        }
    }

    #[test]
    fn what_is_no_evidence_is_refused() {
        let refused = |members: &str| read(&document(members)).unwrap_err();
        assert!(matches!(read(b"").unwrap_err(), Error::Quote(_)));
        assert!(matches!(read(b"not evidence").unwrap_err(), Error::Quote(_)));
        assert!(matches!(read(b"{").unwrap_err(), Error::Json(_)));
        assert!(matches!(refused("{}"), Error::Members { found: 0, .. }));
        assert!(matches!(refused(r#"{"quote": "QUOTE", "pcrs": {}}"#), Error::Members { found: 2, .. }));
        assert!(matches!(refused(r#"{"quote": "?"}"#), Error::Text { member: "quote" }));
        assert!(matches!(refused(r#"{"report": "QUOTE"}"#), Error::Report(_)));
        assert!(matches!(refused(r#"{"quote": "QUOTE", "log": "00"}"#), Error::Log(_)));
        let both = r#"{"quote": "QUOTE", "log": "LOG", "event_log": []}"#;
        assert!(matches!(refused(both), Error::Members { found: 2, .. }));
        assert!(matches!(refused(r#"{"pcrs": {"sha1": {}}}"#), Error::Json(_)));
        assert!(matches!(refused(r#"{"pcrs": {"sha384": {"0": "00"}}}"#), Error::Json(_)));
        let event = |event: &str| refused(&format!(r#"{{"quote": "QUOTE", "event_log": [{event}]}}"#));
        let imr = event(r#"{"imr": 4, "event_type": 4, "digest": ""}"#);
        assert!(matches!(imr, Error::Imr { number: 0, found: 4 }), "{imr}");
        for digest in ["", "00", "zz"] {
            let error = event(&format!(r#"{{"imr": 1, "event_type": 4, "digest": "{digest}"}}"#));
            assert!(matches!(error, Error::Hex { member: "digest", .. }), "{error}");
        }
        assert!(matches!(read_log(b"[1]").unwrap_err(), Error::Events(_)));
        assert!(matches!(read_log(&document(r#"{"quote": "QUOTE"}"#)).unwrap_err(), Error::NoLog));
    }

    #[test]
    fn there_is_one_log_and_the_bank_is_the_strongest_that_the_reference_knows() {
        let reference = |banks: &str| -> Reference {
            let platforms: Vec<String> = banks
                .split_whitespace()
                .map(|bank| {
                    format!(
                        r#"{{"name": "t", "kind": "tpm", "algorithm": "{bank}", "registers": {{}}, "events": []}}"#
                    )
                })
                .collect();
            let image = r#"{"name": "i", "version": "1", "profile": "release"}"#;
            let platforms = platforms.join(",");
            let text =
                format!(r#"{{"format": 1, "image": {image}, "subjects": [], "platforms": [{platforms}]}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let zeros = |n: usize| "00".repeat(n);
        let pcrs = format!(
            r#"{{"pcrs": {{"sha256": {{"0": "{}"}}, "sha384": {{"0": "{}"}}}}}}"#,
            zeros(32),
            zeros(48)
        );
        let log = || Some(read_log(&ccel()).unwrap());
        let algorithm = |banks: &str| {
            let parts = read(pcrs.as_bytes()).unwrap();
            parts.with_log(log(), &reference(banks)).unwrap().algorithm()
        };
        assert_eq!(algorithm("sha256 sha384"), Algorithm::Sha384);
        assert_eq!(algorithm("sha256"), Algorithm::Sha256);
        assert_eq!(algorithm(""), Algorithm::Sha384);
        let parts = || read(&document(r#"{"quote": "QUOTE", "log": "LOG"}"#)).unwrap();
        assert!(parts().with_log(None, &reference("")).is_ok());
        assert!(matches!(parts().with_log(log(), &reference("")), Err(Error::TwoLogs)));
        let without = read(&quote()).unwrap().with_log(None, &reference(""));
        assert!(matches!(without, Err(Error::NoLog)));
        let empty = read(br#"{"pcrs": {}}"#).unwrap().with_log(log(), &reference(""));
        assert!(matches!(empty, Err(Error::NoPcrs)));
    }
}
