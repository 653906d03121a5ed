//! Yields which registers and events differ between two images, and which packages or lines caused it, from
//! the images' reference values and everything else that differs.
//!
//! # Shape
//! ```text
//! platform ─ register: value ─> value
//!              event: digest ─> digest   because deb systemd 257.9 -> 257.13; recipe.toml: …
//! ```
//! What an event hashes names its causes: a section of the UKI comes from certain packages and lines. The
//! command line contains the root hash, so everything in the root file system is a cause of it.
//!
//! # Not here
//! The other differences (`difference`).

use std::collections::BTreeSet;
use std::fmt::Write;

use ovmf_measure::event::{Event, Expected, Register};
use ovmf_measure::reference::{Platform, Reference};
use serde::Serialize;

use super::difference::Difference;
use super::reference::{registers, title};

/// The most causes of one kind to name; the rest is counted.
const MOST_CAUSES: usize = 4;

/// One register that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The machine.
    pub platform: String,
    /// The register.
    pub register: String,
    /// Its value before; `None` if the platform decides, or the machine is new.
    pub before: Option<String>,
    /// Its value after.
    pub after: Option<String>,
    /// The events that differ.
    pub events: Vec<MovedEvent>,
}

/// One event that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MovedEvent {
    /// What is measured.
    pub subject: String,
    /// What was accepted before; `None` if there was no such event.
    pub before: Option<String>,
    /// What is accepted after.
    pub after: Option<String>,
    /// The packages, files and lines that caused it.
    pub because: Vec<String>,
}

/// Compares the machines that both documents have.
pub fn compare(before: &Reference, after: &Reference, difference: &Difference) -> Vec<Moved> {
    let mut all = Vec::new();
    for old in &before.platforms {
        let same = |new: &&Platform| {
            let shape = |platform: &Platform| {
                let words = platform.shape.iter().filter(|(word, _)| *word != "firmware");
                words.map(|(word, value)| (word.clone(), value.clone())).collect::<Vec<_>>()
            };
            new.name == old.name && new.algorithm == old.algorithm && shape(new) == shape(old)
        };
        let Some(new) = after.platforms.iter().find(same) else { continue };
        let (olds, news) = (registers(old), registers(new));
        let of_events = |platform: &Platform| -> BTreeSet<Register> {
            platform.events.iter().filter_map(|event| event.register(platform.kind)).collect()
        };
        let names: BTreeSet<Register> =
            olds.keys().chain(news.keys()).copied().chain(of_events(old)).chain(of_events(new)).collect();
        for name in names {
            let value =
                |values: &std::collections::BTreeMap<Register, _>| values.get(&name).map(ToString::to_string);
            let (value_before, value_after) = (value(&olds), value(&news));
            let mut events = events(old, new, name, difference);
            if name == Register::Mrtd && value_before != value_after {
                events.push(MovedEvent {
                    subject: "firmware's code".to_owned(),
                    before: value_before.clone(),
                    after: value_after.clone(),
                    because: causes("MRTD", difference, &[]),
                });
            }
            if value_before != value_after || !events.is_empty() {
                let platform = title(new);
                let register = name.to_string();
                all.push(Moved { platform, register, before: value_before, after: value_after, events });
            }
        }
    }
    all
}

fn told(event: &Event) -> String {
    match &event.expected {
        Expected::Exact(digest) => digest.to_string(),
        Expected::PlatformGiven(_) => "platform-given".to_owned(),
    }
}

fn events(old: &Platform, new: &Platform, name: Register, difference: &Difference) -> Vec<MovedEvent> {
    let of = |platform: &Platform| -> Vec<Event> {
        platform.events.iter().filter(|event| event.register(platform.kind) == Some(name)).cloned().collect()
    };
    let (olds, news) = (of(old), of(new));
    let sections: Vec<String> = {
        let all = |platform: &Platform| -> BTreeSet<(String, String)> {
            let sections = platform.events.iter().filter(|event| event.subject.starts_with("section "));
            sections.map(|event| (event.subject.clone(), told(event))).collect()
        };
        (&all(old) ^ &all(new))
            .into_iter()
            .map(|(subject, _)| subject)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    let mut moved = Vec::new();
    let count = |events: &[Event], event: &Event| {
        events.iter().filter(|other| other.subject == event.subject).count()
    };
    for event in &olds {
        // Separators and the like repeat; all events with the same subject are compared as one.
        let other = news.iter().find(|other| other.subject == event.subject);
        let (before, after) = (Some(told(event)), other.map(told));
        if before != after || count(&olds, event) != count(&news, event) {
            let because = causes(&event.subject, difference, &sections);
            moved.push(MovedEvent { subject: event.subject.clone(), before, after, because });
        }
    }
    for event in news.iter().filter(|event| !olds.iter().any(|other| other.subject == event.subject)) {
        let because = causes(&event.subject, difference, &sections);
        moved.push(MovedEvent {
            subject: event.subject.clone(),
            before: None,
            after: Some(told(event)),
            because,
        });
    }
    moved.dedup();
    moved
}

/// Names the causes of a change to a subject.
fn causes(subject: &str, difference: &Difference, sections: &[String]) -> Vec<String> {
    let packages = |is: &dyn Fn(&str, &str) -> bool| -> Vec<String> {
        let all = difference.packages.iter().filter(|change| is(&change.kind, &change.name));
        let line = |before: &[String]| if before.is_empty() { "none".to_owned() } else { before.join(", ") };
        named(all.map(|change| {
            format!("{} {} {} -> {}", change.kind, change.name, line(&change.before), line(&change.after))
        }))
    };
    let facts = |is: &dyn Fn(&str) -> bool| -> Vec<String> {
        let all = difference.facts.iter().filter(|change| is(&change.name));
        named(all.map(|change| {
            let (removed, added) = (change.removed.join(" "), change.added.join(" "));
            format!("{}: {removed} -> {added}", change.name)
        }))
    };
    let kernel = |_: &str, name: &str| name.starts_with("linux-image");
    let all = match subject {
        "section .linux" | "section .uname" | "kernel in the UKI" => packages(&kernel),
        "section .initrd" | "initrd" => {
            let mut all = packages(&|kind, name| kernel(kind, name) || kind == "guest");
            all.extend(facts(&|name| name.starts_with("kernel initrd_modules")));
            if subject == "initrd" {
                // The initrd that the stub passes on contains the release's file.
                let handed_on = ["section .initrd", "section .ucode", "section .osrel", "section .pcrpkey"];
                all.extend(sections.iter().filter(|section| handed_on.contains(&section.as_str())).cloned());
            }
            all
        }
        "section .cmdline" | "command line" => {
            let mut all = facts(&|name| name == "command_line");
            if all.iter().any(|line| line.contains("roothash")) {
                // The root hash stands for everything in the root file system.
                all = packages(&|kind, _| kind != "firmware");
                all.extend(named(difference.files.iter().map(|file| format!("file {}", file.path))));
                all.extend(facts(&|name| name.starts_with("inputs recipe") || name == "lock_sha256"));
            }
            all
        }
        "section .osrel" => {
            let mut all = packages(&|_, name| name == "base-files");
            all.extend(facts(&|name| matches!(name, "name" | "version" | "profile")));
            all
        }
        "section .sbat" => packages(&|kind, name| kernel(kind, name) || name == "systemd-boot-efi"),
        "UKI" => {
            let mut all = sections.to_vec();
            all.extend(packages(&|_, name| name == "systemd-boot-efi"));
            all.extend(facts(&|name| name.starts_with("secure_boot")));
            all
        }
        "GPT" => facts(&|name| name == "lock_sha256" || name.starts_with("disk") || name == "version"),
        "MRTD" | "CFV" | "PEIFV" | "DXEFV" | "firmware version" | "SecureBoot" | "PK" | "KEK" | "db"
        | "dbx" => packages(&|kind, _| kind == "firmware"),
        _ => Vec::new(),
    };
    if all.is_empty() { vec!["the machine, or this program's own rules".to_owned()] } else { all }
}

/// Names the first few, and counts the others.
fn named(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(MOST_CAUSES);
    if more > 0 {
        all.truncate(MOST_CAUSES);
        all.push(format!("and {more} more"));
    }
    all
}

/// Formats it for people.
pub fn to_text(all: &[Moved]) -> String {
    let mut out = String::new();
    let short = |value: &Option<String>| match value.as_deref() {
        Some(value) => value.get(..16).filter(|_| value.len() >= 64).unwrap_or(value).to_owned(),
        None => "none".to_owned(),
    };
    for moved in all {
        let (before, after) = (short(&moved.before), short(&moved.after));
        let _ = writeln!(out, "~ register {} of {}: {before} -> {after}", moved.register, moved.platform);
        for event in &moved.events {
            let (before, after) = (short(&event.before), short(&event.after));
            let because = event.because.join("; ");
            let _ = writeln!(out, "    {}: {before} -> {after}, because of {because}", event.subject);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use ovmf_measure::digest::Algorithm;
    use ovmf_measure::event::{EventType, Source, Witness};
    use ovmf_measure::reference::{Format1, Image, Profile, RegisterKind};

    use super::super::difference::{FactChange, PackageChange};
    use super::*;

    fn document(cmdline: &[u8], kernel: &[u8]) -> Reference {
        let event = |pcr, subject: &str, bytes: &[u8]| Event {
            pcr,
            kind: EventType::EV_IPL,
            subject: subject.to_owned(),
            expected: Expected::Exact(Algorithm::Sha384.of(bytes)),
            witness: Witness::Tdx,
            source: Source { file: "uki".into(), ranges: vec![], rule: "x".into() },
        };
        let events = vec![
            event(4, "UKI", &[cmdline, kernel].concat()),
            event(11, "section .cmdline", cmdline),
            event(11, "section .linux", kernel),
        ];
        let registers = ovmf_measure::boot::registers(Algorithm::Sha384, &events);
        let platform = Platform {
            name: "qemu-tdx".into(),
            kind: RegisterKind::Tdx,
            algorithm: Algorithm::Sha384,
            shape: Default::default(),
            mrtd: vec![],
            attributes: None,
            registers,
            events,
        };
        let image = Image { name: "x".into(), version: "1".into(), profile: Profile::Release };
        Reference { format: Format1, image, subjects: vec![], platforms: vec![platform] }
    }

    fn package(name: &str) -> PackageChange {
        let (before, after) = (vec!["1".to_owned()], vec!["2".to_owned()]);
        PackageChange { kind: "deb".into(), name: name.into(), before, after, profile: None }
    }

    #[test]
    fn a_changed_root_moves_the_command_line_because_of_its_packages() {
        let fact = FactChange {
            name: "command_line".into(),
            removed: vec!["proofmark.roothash=a".into()],
            added: vec!["proofmark.roothash=b".into()],
            profile: None,
        };
        let difference =
            Difference { packages: vec![package("bash")], facts: vec![fact], ..Difference::default() };
        let moved = compare(&document(b"a", b"k"), &document(b"b", b"k"), &difference);
        let names: Vec<&str> = moved.iter().map(|moved| moved.register.as_str()).collect();
        assert_eq!(names, ["rtmr1", "rtmr2"]);
        assert_eq!(moved[1].events[0].because, ["deb bash 1 -> 2"]);
        assert_eq!(moved[0].events[0].because, ["section .cmdline"]);
        assert!(to_text(&moved).contains("because of deb bash 1 -> 2"));
    }

    #[test]
    fn a_changed_kernel_points_to_its_package() {
        let difference = Difference {
            packages: vec![package("bash"), package("linux-image-6.12-amd64")],
            ..Difference::default()
        };
        let moved = compare(&document(b"a", b"k"), &document(b"a", b"l"), &difference);
        assert_eq!(moved[1].events.len(), 1);
        assert_eq!(moved[1].events[0].because, ["deb linux-image-6.12-amd64 1 -> 2"]);
    }

    #[test]
    fn equal_documents_move_nothing() {
        assert_eq!(compare(&document(b"a", b"k"), &document(b"a", b"k"), &Difference::default()), []);
    }
}
