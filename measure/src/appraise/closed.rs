//! Comparison of one register's logged events with the predicted ones: the same events in the same order.
//!
//! # Shape
//!
//! ```text
//! predicted   A  B  C  D         missing: predicted, and the log continues with a later prediction (B)
//! logged      A  C  X  D         unexpected: logged, and the prediction continues with a later record (X)
//!                                differs: neither
//! ```
//!
//! An event that is missing in one place and unexpected in another is reported once, as moved.
//!
//! An honest boot may contain one retry: the firmware fails the first ExitBootServices if the memory map has changed since
//! the kernel read it, and the kernel calls once more. Those two events are skipped, with a note.
//!
//! # Source
//!
//! UEFI 2.10, 7.4.6 (ExitBootServices); TCG PC Client Platform Firmware Profile 1.06, 10.4.4 (its actions); Linux
//! drivers/firmware/efi/libstub/efi-stub-helper.c. Observed with Debian's OVMF 2026.08 in QEMU.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::verdict::{Note, Reason};
use crate::digest::{Algorithm, Digest};
use crate::event::{Event, EventType, Expected, PlatformRule, Register};
use crate::log::{Entry, Log};
use crate::read::Reader;
use crate::replay::{self, Derivation, WhyNot, derive, section_name, subject};
use crate::stub;
use crate::variable::{GLOBAL, IMAGE_SECURITY};

const INVOKED: &[u8] = b"Exit Boot Services Invocation";
const FAILED: &[u8] = b"Exit Boot Services Returned with Failure";
const SUCCEEDED: &[u8] = b"Exit Boot Services Returned with Success";

/// A record that extends a register.
#[derive(Debug, Clone)]
pub(super) struct Logged<'a> {
    pub(super) entry: &'a Entry,
    pub(super) digest: Digest,
    derivation: Derivation,
}

/// Returns the records that extend each register, in order.
pub(super) fn logged(
    log: &Log,
    algorithm: Algorithm,
) -> Result<BTreeMap<Register, Vec<Logged<'_>>>, replay::Error> {
    let mut registers: BTreeMap<Register, Vec<Logged<'_>>> = BTreeMap::new();
    if !log.banks.iter().any(|bank| bank.algorithm() == Some(algorithm)) {
        return Err(replay::Error::NoBank { expected: algorithm });
    }
    for entry in log.entries.iter().filter(|entry| entry.is_extended()) {
        let register = replay::extended(entry, log.kind)?;
        let none = replay::Error::NoDigest { offset: entry.offset, expected: algorithm };
        let digest = *entry.digest(algorithm).ok_or(none)?;
        let derivation = derive(entry, algorithm);
        registers.entry(register).or_default().push(Logged { entry, digest, derivation });
    }
    Ok(registers)
}

/// Counts the runtime digests that the log already contains at its end.
pub(super) fn told(events: &[Logged<'_>], runtime: &[Digest]) -> usize {
    let ends_with = |count: &usize| {
        let tail = events.len().checked_sub(*count).and_then(|begin| events.get(begin..));
        let first = runtime.get(..*count);
        tail.zip(first).is_some_and(|(tail, first)| tail.iter().map(|event| &event.digest).eq(first))
    };
    (1..=runtime.len().min(events.len())).rev().find(ends_with).unwrap_or(0)
}

/// Collects what the comparison of all registers finds.
#[derive(Debug, Default)]
pub(super) struct Findings<'a> {
    reasons: Vec<Reason>,
    notes: Vec<Note>,
    missing: Vec<Missing<'a>>,
    extra: Vec<Extra<'a>>,
    /// The registers with a retried ExitBootServices.
    retried: BTreeSet<Register>,
    /// The number of records that a digest or a name identifies as the predicted event.
    agreed: usize,
    /// The predictions for each register, to recognise repetitions.
    foreseen: BTreeMap<(Register, Digest), &'a Event>,
}

#[derive(Debug)]
struct Missing<'a> {
    register: Register,
    position: usize,
    event: &'a Event,
}

#[derive(Debug)]
struct Extra<'a> {
    register: Register,
    position: usize,
    event: &'a Entry,
    digest: Digest,
}

impl<'a> Findings<'a> {
    /// Compares one register's records with its predicted events.
    pub(super) fn compare(&mut self, register: Register, predicted: &[&'a Event], logged: &[Logged<'a>]) {
        for event in predicted {
            if let Expected::Exact(digest) = event.expected {
                self.foreseen.entry((register, digest)).or_insert(event);
            }
        }
        self.contradictions(register, logged);
        let (mut next, mut at) = (0usize, 0usize);
        loop {
            (next, at) = match (predicted.get(next), logged.get(at)) {
                (None, None) => return,
                (None, Some(record)) => {
                    self.extra(register, at, record);
                    (next, at.saturating_add(1))
                }
                (Some(event), record) if let Some(most) = is_run(event) => {
                    let after = predicted.get(next.saturating_add(1)).copied();
                    let records = record.map_or(&[][..], |_| logged.get(at..).unwrap_or_default());
                    let taken = self.run(register, event, most, after, records);
                    (next.saturating_add(1), at.saturating_add(taken))
                }
                (Some(event), None) => {
                    self.missing(register, next, event);
                    (next.saturating_add(1), at)
                }
                (Some(event), Some(record)) if fits(event, record) => {
                    let before = next.checked_sub(1).and_then(|before| predicted.get(before)).copied();
                    self.fitting(register, at, (before, event), record);
                    (next.saturating_add(1), at.saturating_add(1))
                }
                (Some(event), Some(record))
                    if is_retry(event, record, logged.get(at.saturating_add(1)))
                        && self.retried.insert(register) =>
                {
                    self.notes.push(Note::ExitRetried { register });
                    (next, at.saturating_add(2))
                }
                (Some(event), Some(record)) => {
                    self.mismatch(register, (predicted, next, event), (logged, at, record))
                }
            };
        }
    }

    /// Reports the records whose digest does not match their own data.
    fn contradictions(&mut self, register: Register, logged: &[Logged<'a>]) {
        for record in logged {
            let expected = match &record.derivation {
                Derivation::Contradicted { expected, .. } => *expected,
                // Firmware that hashes other bytes than it logs is none whose events are predicted.
                Derivation::NotDerivable(WhyNot::FirmwareText) => {
                    record.digest.algorithm().of(record.entry.data.as_deref().unwrap_or_default())
                }
                _ => continue,
            };
            self.reasons.push(Reason::Contradicted {
                register,
                offset: record.entry.offset,
                subject: subject(record.entry),
                expected,
                found: record.digest,
            });
        }
    }

    /// Notes the records of a run, at most `most`. Returns their number.
    fn run(
        &mut self,
        register: Register,
        event: &Event,
        most: u32,
        after: Option<&Event>,
        records: &[Logged<'a>],
    ) -> usize {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let run = records.iter().take(most).take_while(|record| in_run(event, after, record));
        run.map(|record| self.given(register, event, record)).count()
    }

    /// Reports a record that is not the predicted event, and returns where prediction and log go on: at the later prediction
    /// that the record identifies, at the later record that the event identifies, or one further in both.
    fn mismatch(
        &mut self,
        register: Register,
        (predicted, next, event): (&[&'a Event], usize, &'a Event),
        (logged, at, record): (&[Logged<'a>], usize, &Logged<'a>),
    ) -> (usize, usize) {
        let later = predicted.iter().skip(next.saturating_add(1));
        let skipped = later.take_while(|event| !names(event, record)).count().saturating_add(1);
        let found = next.saturating_add(skipped);
        if predicted.get(found).is_some() {
            for (place, event) in predicted.iter().enumerate().skip(next).take(skipped) {
                if is_run(event).is_none() {
                    self.missing(register, place, event);
                }
            }
            return (found, at);
        }
        let later = logged.iter().skip(at.saturating_add(1));
        let passed = later.take_while(|record| !names(event, record)).count().saturating_add(1);
        let found = at.saturating_add(passed);
        if logged.get(found).is_some() {
            for (place, record) in logged.iter().enumerate().skip(at).take(passed) {
                self.extra(register, place, record);
            }
            return (next, found);
        }
        self.reasons.push(Reason::Differs {
            register,
            position: at.saturating_add(1),
            offset: record.entry.offset,
            subject: event.subject.clone(),
            expected: wanted(event),
            found: record.digest,
        });
        (next.saturating_add(1), at.saturating_add(1))
    }

    /// Tells whether a register has the two extra events of a retried ExitBootServices.
    pub(super) fn is_retried(&self, register: Register) -> bool {
        self.retried.contains(&register)
    }

    fn missing(&mut self, register: Register, place: usize, event: &'a Event) {
        self.missing.push(Missing { register, position: place.saturating_add(1), event });
    }

    fn extra(&mut self, register: Register, place: usize, record: &Logged<'a>) {
        let position = place.saturating_add(1);
        self.extra.push(Extra { register, position, event: record.entry, digest: record.digest });
    }

    /// Returns how many records a digest or a name identifies as the predicted events.
    pub(super) fn agreed(&self) -> usize {
        self.agreed
    }

    fn fitting(
        &mut self,
        register: Register,
        place: usize,
        (before, event): (Option<&Event>, &Event),
        record: &Logged<'_>,
    ) {
        if names(event, record) {
            self.agreed = self.agreed.saturating_add(1);
        }
        let algorithm = record.digest.algorithm();
        if event.kind == EventType::EV_IPL
            && let Some(found) = record.entry.data.as_deref()
            // A section's name comes before its content, and the record of either says the name.
            && let Some(expected) = labels(event, algorithm).or_else(|| labels(before?, algorithm))
            && section_name(found).as_deref() != Some(expected.as_bytes())
        {
            self.reasons.push(Reason::Relabelled {
                register,
                position: place.saturating_add(1),
                offset: record.entry.offset,
                expected: expected.into(),
                found: subject(record.entry),
            });
        }
        if event.kind != record.entry.kind {
            self.reasons.push(Reason::Kind {
                register,
                position: place.saturating_add(1),
                subject: event.subject.clone(),
                expected: event.kind,
                found: record.entry.kind,
            });
        }
        if matches!(event.expected, Expected::PlatformGiven(_)) {
            self.given(register, event, record);
        }
    }

    fn given(&mut self, register: Register, event: &Event, record: &Logged<'_>) {
        let value = match &event.expected {
            Expected::PlatformGiven(PlatformRule::Variable { .. }) => value(record.entry),
            _ => None,
        };
        self.notes.push(Note::PlatformGiven {
            register,
            subject: event.subject.clone(),
            value,
            rule: wanted(event),
            digest: record.digest,
        });
    }

    /// Returns all findings; a moved event counts once.
    pub(super) fn told(mut self) -> (Vec<Reason>, Vec<Note>) {
        for extra in self.extra {
            let (register, position, offset) = (extra.register, extra.position, extra.event.offset);
            let same = |missing: &Missing<'_>| missing.event.expected == Expected::Exact(extra.digest);
            let here = self.missing.iter().position(|missing| missing.register == register && same(missing));
            let place = here.or_else(|| self.missing.iter().position(same));
            let reason = match (place, self.foreseen.get(&(register, extra.digest))) {
                (Some(place), _) => {
                    let missing = self.missing.remove(place);
                    let subject = missing.event.subject.clone();
                    if missing.register == register {
                        Reason::OutOfOrder { register, expected: missing.position, found: position, subject }
                    } else {
                        Reason::OtherRegister { expected: missing.register, found: register, offset, subject }
                    }
                }
                (None, Some(event)) => {
                    Reason::Repeated { register, position, offset, subject: event.subject.clone() }
                }
                (None, None) => Reason::Unexpected {
                    register,
                    position,
                    offset,
                    kind: extra.event.kind,
                    subject: subject(extra.event),
                    digest: extra.digest,
                },
            };
            self.reasons.push(reason);
        }
        self.reasons.extend(self.missing.iter().map(|missing| Reason::Missing {
            register: missing.register,
            position: missing.position,
            subject: missing.event.subject.clone(),
        }));
        (self.reasons, self.notes)
    }
}

/// Recognises a failed ExitBootServices and the kernel's second call before the one that succeeds.
fn is_retry(event: &Event, failed: &Logged<'_>, again: Option<&Logged<'_>>) -> bool {
    let of = |text: &[u8]| failed.digest.algorithm().of(text);
    let action = |record: &Logged<'_>, text| {
        record.entry.kind == EventType::EV_EFI_ACTION && record.digest == of(text)
    };
    event.expected == Expected::Exact(of(SUCCEEDED))
        && action(failed, FAILED)
        && again.is_some_and(|again| action(again, INVOKED))
}

/// Returns the maximum length of a run of platform-given events; `None` if the event is not a run.
fn is_run(event: &Event) -> Option<u32> {
    match &event.expected {
        Expected::PlatformGiven(PlatformRule::FromData { at_most }) if *at_most != 1 => Some(*at_most),
        _ => None,
    }
}

/// Tells whether a record belongs to a run rather than to the prediction after it. Of the boot variables, only BootOrder
/// and Boot#### may belong to one.
fn in_run(event: &Event, after: Option<&Event>, record: &Logged<'_>) -> bool {
    let derived = matches!(record.derivation, Derivation::Derived(_));
    let named = match record.entry.kind {
        EventType::EV_EFI_VARIABLE_BOOT | EventType::EV_EFI_VARIABLE_BOOT2 => {
            let variable = record.entry.data.as_deref().and_then(replay::Variable::read);
            variable.is_some_and(|variable| is_numbered(variable.name) || is_boot_order(variable.name))
        }
        _ => true,
    };
    event.kind == record.entry.kind && derived && named && !after.is_some_and(|after| names(after, record))
}

/// Tells whether a record's digest is the predicted one; a wrong type is a reason of its own.
fn fits(event: &Event, record: &Logged<'_>) -> bool {
    match &event.expected {
        Expected::Exact(digest) => *digest == record.digest,
        Expected::PlatformGiven(PlatformRule::OneOf { digests }) => digests.contains(&record.digest),
        Expected::PlatformGiven(PlatformRule::BootOption { description }) => {
            event.kind == record.entry.kind && is_boot_option(record, description)
        }
        Expected::PlatformGiven(PlatformRule::FromData { .. }) => in_run(event, None, record),
        Expected::PlatformGiven(PlatformRule::Variable { name }) => {
            event.kind == record.entry.kind && is_variable(record, name)
        }
        Expected::PlatformGiven(PlatformRule::Unjudged) => event.kind == record.entry.kind,
    }
}

/// Tells whether a record identifies the predicted event; a rule that fits anything identifies nothing.
fn names(event: &Event, record: &Logged<'_>) -> bool {
    let any = matches!(
        event.expected,
        Expected::PlatformGiven(PlatformRule::Unjudged | PlatformRule::FromData { .. })
    );
    !any && fits(event, record)
}

/// Returns the section whose name a predicted event measures; `None` for other events.
fn labels(event: &Event, algorithm: Algorithm) -> Option<&'static str> {
    let label =
        |name: &&&str| event.expected == Expected::Exact(algorithm.of_pieces([name.as_bytes(), &[0][..]]));
    stub::MEASURED.iter().find(label).copied().filter(|_| event.kind == EventType::EV_IPL)
}

/// Tells whether a record is a variable of this name, with the digest of its own data. The vendors' GUIDs: UEFI 2.10, 3.3 and
/// 32.4.1.
fn is_variable(record: &Logged<'_>, name: &str) -> bool {
    let vendor = if matches!(name, "db" | "dbx" | "dbt" | "dbr") { IMAGE_SECURITY } else { GLOBAL };
    let data = record.entry.data.as_deref().filter(|_| matches!(record.derivation, Derivation::Derived(_)));
    let Some(data) = data.filter(|data| data.starts_with(&vendor)) else { return false };
    let variable = replay::Variable::read(data);
    variable.is_some_and(|variable| letters(variable.name).as_deref() == Some(name.as_bytes()))
}

/// Describes a variable's value: in hexadecimal if it is short, else by its length.
fn value(entry: &Entry) -> Option<String> {
    let variable = replay::Variable::read(entry.data.as_deref()?)?;
    Some(match variable.value {
        [] => "empty".to_string(),
        value if value.len() <= 8 => hex::encode(value),
        value => alloc::format!("{} bytes", value.len()),
    })
}

/// Describes what a prediction accepts, without listing digests.
fn wanted(event: &Event) -> String {
    match &event.expected {
        Expected::Exact(digest) => digest.to_string(),
        Expected::PlatformGiven(PlatformRule::OneOf { digests }) => {
            alloc::format!("one of {} known digests", digests.len())
        }
        Expected::PlatformGiven(rule) => rule.to_string(),
    }
}

/// Tells whether a record is a boot option with the digest of its value. EFI_LOAD_OPTION, UEFI 2.10, 3.1.3: [attributes
/// u32, length of paths u16, description in UTF-16 with a NUL, paths, optional data]. BootOrder never is one.
fn is_boot_option(record: &Logged<'_>, description: &str) -> bool {
    let boot =
        matches!(record.entry.kind, EventType::EV_EFI_VARIABLE_BOOT | EventType::EV_EFI_VARIABLE_BOOT2);
    let derived = matches!(record.derivation, Derivation::Derived(_));
    let data = record.entry.data.as_deref().filter(|_| boot && derived);
    data.and_then(replay::Variable::read).is_some_and(|variable| {
        is_numbered(variable.name) && is_load_option(variable.value, description).is_some()
    })
}

/// Returns a UTF-16 name as Latin-1; `None` if it has other characters.
fn letters(name: &[u8]) -> Option<Vec<u8>> {
    let letter = |unit: &[u8]| match unit {
        [letter, 0] => Some(*letter),
        _ => None,
    };
    name.chunks(2).map(letter).collect()
}

/// Tells whether a name is `Boot` plus four hexadecimal digits.
fn is_numbered(name: &[u8]) -> bool {
    let letters = letters(name).unwrap_or_default();
    let digits = letters.strip_prefix(b"Boot");
    digits.is_some_and(|digits| digits.len() == 4 && digits.iter().all(u8::is_ascii_hexdigit))
}

fn is_boot_order(name: &[u8]) -> bool {
    letters(name).as_deref() == Some(b"BootOrder")
}

/// Checks a load option: active, with this description prefix and well-formed device paths.
fn is_load_option(value: &[u8], description: &str) -> Option<()> {
    const ACTIVE: u32 = 1;
    let mut reader = Reader::new(value, 0);
    let attributes = reader.u32("attributes").ok()?;
    let length = reader.u16("the paths' length").ok()?;
    let mut wanted = description.encode_utf16();
    let mut differs = false;
    loop {
        match reader.u16("a letter").ok()? {
            0 => break,
            letter => differs |= wanted.next().is_some_and(|wanted| wanted != letter),
        }
    }
    if attributes & ACTIVE == 0 || differs || wanted.next().is_some() {
        return None;
    }
    let paths = reader.take("paths", length.into()).ok()?;
    let mut reader = Reader::new(paths, 0);
    let mut last = None;
    while !reader.rest().is_empty() {
        let (kind, subtype) = (reader.u8("a node's type").ok()?, reader.u8("a node's subtype").ok()?);
        let length = reader.u16("a node's length").ok()?;
        reader.take("a node", length.checked_sub(4)?.into()).ok()?;
        last = Some((kind, subtype));
    }
    (last == Some((0x7f, 0xff))).then_some(())
}
