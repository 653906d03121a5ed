//! Checks logs, quotes and reports of real machines against each other: a log replays to its quote's registers, every
//! derivable digest is correct, and no forgery of a real log is accepted.
//!
//! The files are public samples of other projects, in the directory named by `PROOFMARK_VECTORS`. If there is none, the
//! tests say so and prove nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // all of it is a test

use std::collections::BTreeMap;
use std::path::PathBuf;

use ovmf_measure::appraise::{Answer, Evidence, Exception, Policy, Reason, Unverified, Verdict, appraise};
use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::event::{Event, EventType, Expected, Register, Source, Witness};
use ovmf_measure::known::PLATFORMS;
use ovmf_measure::log::{Area, Entry, Log, Technology};
use ovmf_measure::platform::PlatformFile;
use ovmf_measure::quote::{Attributes, Quote, Report};
use ovmf_measure::reference::{Format1, Image, Mrtd, Platform, Profile, Reference, RegisterKind};
use ovmf_measure::replay::{self, Derivation, Finding, derive, replay};
use ovmf_measure::stub::Version;

const SHA384: Algorithm = Algorithm::Sha384;

/// Reads a vector; reports a missing one.
fn vector(name: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("PROOFMARK_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    let path = folder.join(name);
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        eprintln!(
            "SKIPPED: {} is missing; set PROOFMARK_VECTORS to the directory of vectors",
            path.display()
        );
    }
    bytes
}

fn registers(log: &Log) -> [String; 4] {
    let registers = replay(log, SHA384).unwrap();
    [0, 1, 2, 3].map(|index| registers[&Register::Rtmr(index)].to_string())
}

fn quoted(quote: &Quote) -> [String; 4] {
    quote.td.rtmr.map(|register| register.to_string())
}

#[test]
fn google_s_log_replays_to_its_signed_quote_and_fits_its_area() {
    let (Some(log), Some(table), Some(quote)) = (
        vector("go-tdx-guest/ccel_data.dat"),
        vector("go-tdx-guest/ccel_table.dat"),
        vector("go-tdx-guest/cos-113-tdx-quote.dat"),
    ) else {
        return;
    };
    let area = Area::read(&table).unwrap();
    assert_eq!(area, Area { technology: Technology::Tdx, length: 0x4_0000, address: 0xbedb_f000 });
    area.holds(log.len() as u64).unwrap();
    let log = Log::read_any(&log).unwrap();
    assert_eq!(log.kind, RegisterKind::Tdx);
    let quote = Quote::read(&quote).unwrap();
    assert_eq!(registers(&log), quoted(&quote));
    assert!(quote.td.mrtd.to_string().starts_with("dae67181"));
    assert_eq!(quote.td.attributes.names(), ["SEPT_VE_DISABLE"]);
}

#[test]
fn logs_replay_to_the_registers_that_other_projects_compute() {
    let known = [
        ("trustee/CCEL_data_ovmf", "8566f998", "775b9f6b"),
        ("trustee/CCEL_data_grub", "cec0a104", "6c289e0c"),
        ("trustee/CCEL_data_gcp", "33009807", "204d49f7"),
        ("trustee/CCEL_data_grub_gke", "bc994513", "c17cb288"),
        ("trustee/CCEL_AAEL_alibabacloud", "b796e1c1", "3b0b9061"),
        ("go-eventlog/cos-113-intel-tdx-dupe-separator.bin", "a4de2df2", "0ee9366c"),
    ];
    for (name, rtmr0, rtmr1) in known {
        let Some(bytes) = vector(name) else { return };
        let log = Log::read_any(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = registers(&log);
        assert!(found[0].starts_with(rtmr0) && found[1].starts_with(rtmr1), "{name}: {found:?}");
    }
}

#[test]
fn no_digest_of_a_real_log_is_contradicted_by_its_data() {
    let logs = [
        "go-tdx-guest/ccel_data.dat",
        "go-eventlog/cos-113-intel-tdx-dupe-separator.bin",
        "go-eventlog/CCEL_unpadded.data.bin",
        "go-eventlog/event_log.bin",
        "trustee/CCEL_data_ovmf",
        "trustee/CCEL_data_grub",
        "trustee/CCEL_data_gcp",
        "trustee/CCEL_data_grub_gke",
        "trustee/CCEL_AAEL_alibabacloud",
    ];
    let (mut derived, mut not) = (0, 0);
    for name in logs {
        let Some(bytes) = vector(name) else { return };
        let log = Log::read_any(&bytes).unwrap();
        for entry in log.entries.iter().filter(|entry| entry.is_extended()) {
            let subject = replay::subject(entry);
            assert!(!subject.is_empty() && !subject.contains(char::is_control), "{name}: {subject:?}");
            match derive(entry, SHA384) {
                Derivation::Derived(_) => derived += 1,
                Derivation::NotDerivable(_) => not += 1,
                Derivation::Contradicted { .. } => panic!("{name}: {entry:?}"),
            }
        }
    }
    eprintln!("{derived} digests derived, {not} not derivable");
    assert!(derived > 200 && not < derived, "{derived} derived, {not} not");
}

#[test]
fn honest_logs_of_old_shims_and_firmware_are_not_accused() {
    for name in ["sb_cert_eventlog", "cos-85-amd-sev.bin", "gdc-host.bin"] {
        let Some(bytes) = vector(&format!("more-logs/{name}")) else { continue };
        let log = Log::read(&bytes, RegisterKind::Tpm).unwrap();
        for algorithm in log.algorithms() {
            let found = replay::findings(&log, algorithm).unwrap();
            let changed = |finding: &&Finding| matches!(finding, Finding::Contradicted { .. });
            assert_eq!(found.iter().find(changed), None, "{name}, {algorithm}");
        }
    }
}

#[test]
fn a_dynamic_launch_is_replayed_from_zeros() {
    let Some(bytes) = vector("more-logs/drtm.bin") else { return };
    let log = Log::read(&bytes, RegisterKind::Tpm).unwrap();
    let registers = replay(&log, Algorithm::Sha256).unwrap();
    for (pcr, begin) in
        [(17, "42c78f25"), (18, "162bac38"), (19, "b69aa2f1"), (20, "edf88635"), (21, "1769a4dd")]
    {
        let found = registers[&Register::Pcr(pcr)].to_string();
        assert!(found.starts_with(begin), "PCR {pcr}: {found}");
    }
}

#[test]
fn a_second_separator_is_found_where_one_was_moved() {
    let (Some(moved), Some(honest)) =
        (vector("go-eventlog/cos-113-intel-tdx-dupe-separator.bin"), vector("go-tdx-guest/ccel_data.dat"))
    else {
        return;
    };
    let found = |bytes: &[u8]| replay::findings(&Log::read_any(bytes).unwrap(), SHA384).unwrap();
    assert_eq!(found(&honest), []);
    let register = Register::Rtmr(0);
    assert_eq!(found(&moved), [Finding::SecondSeparator { offset: 9484, register }]);
}

#[test]
fn a_log_as_json_replays_to_all_four_registers_of_its_quote() {
    let Some(text) = vector("dstack/tdx-lite-getquote.json") else { return };
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let quote = Quote::read(&hex::decode(document["quote"].as_str().unwrap()).unwrap()).unwrap();
    let events: Vec<serde_json::Value> =
        serde_json::from_str(document["event_log"].as_str().unwrap()).unwrap();
    let mut values = [SHA384.zero(); 4];
    for event in &events {
        let index = event["imr"].as_u64().unwrap() as u32;
        let kind = EventType(event["event_type"].as_u64().unwrap() as u32);
        let digest = match event["digest"].as_str().unwrap() {
            // An event without a digest is dstack's own: the rule gives it.
            "" => {
                let value = hex::decode(event["event_payload"].as_str().unwrap()).unwrap();
                let name = event["event"].as_str().unwrap().as_bytes();
                let data = [&b":"[..], name, b":", &value].concat();
                let unknown = Entry {
                    offset: 0,
                    index,
                    kind,
                    digests: vec![SHA384.zero()],
                    data_at: 0,
                    data: Some(data),
                };
                match derive(&unknown, SHA384) {
                    Derivation::Contradicted { expected, .. } => expected,
                    other => panic!("{other:?}"),
                }
            }
            digest => digest.parse().unwrap(),
        };
        values[index as usize] = values[index as usize].extended(&digest);
    }
    assert_eq!(values, quote.td.rtmr);
}

#[test]
fn quotes_of_each_version_are_read_like_other_projects_do() {
    let quotes = [
        ("trustee/tdx_quote_4.dat", 4, 0x1000_0001),
        ("trustee/tdx_quote_5.dat", 5, 0x1000_0000),
        ("go-tdx-guest/tdx_prod_quote_SPR_E4.dat", 4, 0x4000_0000),
        ("go-tdx-guest/quote_v5_sample.dat", 5, 0x1000_0000),
        ("dcap-qvl/tdx_quote", 4, 0x1000_0000),
        ("intel-qvl/quote.dat", 4, 0),
    ];
    for (name, version, attributes) in quotes {
        let Some(bytes) = vector(name) else { return };
        let quote = Quote::read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(quote.version, version, "{name}");
        assert_eq!(quote.td.mr_service_td.is_some(), version == 5, "{name}");
        assert_eq!(quote.td.attributes, Attributes(attributes), "{name}");
        for cut in (0..bytes.len()).step_by(97) {
            assert!(Quote::read(&bytes[..cut]).is_err() || cut > 4000, "{name}: {cut} bytes");
        }
    }
    let Some(expected) = vector("trustee/parse_tdx_claims_expected.json") else { return };
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let td = Quote::read(&vector("trustee/tdx_quote_4.dat").unwrap()).unwrap().td;
    let body = &expected["quote"]["body"];
    let fields = [
        ("mr_config_id", td.mr_config_id.to_string()),
        ("mr_owner", td.mr_owner.to_string()),
        ("mr_owner_config", td.mr_owner_config.to_string()),
        ("mr_seam", td.mr_seam.to_string()),
        ("mr_td", td.mrtd.to_string()),
        ("mrsigner_seam", td.mr_signer_seam.to_string()),
        ("report_data", td.report_data.to_string()),
        ("rtmr_0", td.rtmr[0].to_string()),
        ("rtmr_1", td.rtmr[1].to_string()),
        ("rtmr_2", td.rtmr[2].to_string()),
        ("rtmr_3", td.rtmr[3].to_string()),
        ("seam_attributes", hex::encode(td.seam_attributes.to_le_bytes())),
        ("tcb_svn", td.tee_tcb_svn.to_string()),
        ("td_attributes", hex::encode(td.attributes.0.to_le_bytes())),
        ("xfam", hex::encode(td.xfam.0.to_le_bytes())),
    ];
    for (name, found) in fields {
        assert_eq!(body[name].as_str(), Some(found.as_str()), "{name}");
    }
    let named = &expected["td_attributes"];
    for (ours, theirs) in
        [(0, "debug"), (28, "septve_disable"), (30, "protection_keys"), (31, "key_locker"), (63, "perfmon")]
    {
        assert_eq!(named[theirs].as_bool(), Some(td.attributes.has(ours)), "{theirs}");
    }
}

#[test]
fn a_report_at_an_offset_in_its_file_is_refused() {
    let Some(bytes) = vector("go-tdx-guest/report.dat") else { return };
    assert!(Report::read(&bytes).is_err());
    // The file is an ioctl request with a report that lacks its first 48 bytes. The rest confirms which bytes each hash
    // covers.
    let hash = |range: std::ops::Range<usize>| SHA384.of(&bytes[range]);
    assert_eq!(hash(0x1d0..0x3d0).as_bytes(), &bytes[0x20..0x50]);
    assert_eq!(&hash(0xd0..0xd0 + 239).as_bytes()[16..], &bytes[..0x20]);
}

/// A reference that predicts exactly a real boot.
fn reference_of(log: &Log, quote: &Quote) -> Reference {
    let events = log.entries.iter().filter(|entry| entry.is_extended()).map(|entry| Event {
        pcr: match entry.index {
            1 => 7,
            2 => 4,
            3 => 8,
            _ => 17,
        },
        kind: entry.kind,
        subject: replay::subject(entry),
        expected: Expected::Exact(*entry.digest(SHA384).unwrap()),
        witness: Witness::Both,
        source: Source { file: "log".into(), ranges: Vec::new(), rule: "as it was".into() },
    });
    Reference {
        format: Format1,
        image: Image { name: "cos-113".into(), version: "113".into(), profile: Profile::Release },
        subjects: Vec::new(),
        platforms: vec![Platform {
            name: "gcp-c3".into(),
            kind: RegisterKind::Tdx,
            algorithm: SHA384,
            shape: BTreeMap::new(),
            mrtd: vec![Mrtd { digest: quote.td.mrtd, source: "the quote".into() }],
            attributes: None,
            registers: replay(log, SHA384).unwrap(),
            events: events.collect(),
        }],
    }
}

/// A real boot with its reference.
fn real() -> Option<(Log, Quote, Reference)> {
    let log = Log::read_any(&vector("go-tdx-guest/ccel_data.dat")?).unwrap();
    let quote = Quote::read(&vector("go-tdx-guest/cos-113-tdx-quote.dat")?).unwrap();
    let reference = reference_of(&log, &quote);
    Some((log, quote, reference))
}

fn verdict(evidence: &Evidence<Unverified>, reference: &Reference) -> Verdict {
    let policy = Policy { allow: [Exception::UnverifiedQuote].into(), ..Policy::default() };
    appraise(evidence, reference, &policy).unwrap()
}

#[test]
fn a_real_boot_is_accepted_by_its_own_reference_and_other_logs_are_not() {
    let Some((log, quote, reference)) = real() else { return };
    let honest = verdict(&Evidence::of_quote(&quote, log.clone()), &reference);
    assert_eq!(honest.reasons(), []);
    for other in [
        "go-eventlog/cos-113-intel-tdx-dupe-separator.bin",
        "trustee/CCEL_data_gcp",
        "trustee/CCEL_data_ovmf",
    ] {
        let Some(bytes) = vector(other) else { return };
        let other = Log::read_any(&bytes).unwrap();
        let refused = verdict(&Evidence::of_quote(&quote, other), &reference);
        assert_eq!(refused.answer(), Answer::Refused);
        let replays = |reason: &&Reason| matches!(reason, Reason::Replay { .. });
        assert!(refused.reasons().iter().any(|reason| replays(&reason)), "{:?}", refused.reasons());
    }
}

/// A named modification of a log.
type Forgery = (&'static str, fn(&mut Vec<Entry>, usize));

#[test]
fn every_forgery_of_a_real_log_is_refused_whether_or_not_the_quote_agrees() {
    let Some((log, quote, reference)) = real() else { return };
    let forgeries: [Forgery; 9] = [
        ("a relabelled register", |entries, at| entries[at].index = entries[at].index % 3 + 1),
        ("a good digest in RTMR3", |entries, at| entries[at].index = 4),
        ("a register that is none", |entries, at| entries[at].index = 9),
        ("a duplicated event", |entries, at| entries.insert(at, entries[at].clone())),
        ("an event left out", |entries, at| drop(entries.remove(at))),
        ("a log cut short", |entries, at| entries.truncate(at)),
        ("an event that extends nothing", |entries, at| entries[at].kind = EventType::EV_NO_ACTION),
        ("another digest", |entries, at| entries[at].digests = vec![SHA384.of(b"evil")]),
        ("an extra PE", |entries, at| {
            let kind = EventType::EV_EFI_BOOT_SERVICES_APPLICATION;
            let data = Some(Vec::new());
            entries.insert(
                at,
                Entry { offset: 0, index: 2, kind, digests: vec![SHA384.of(b"evil")], data_at: 0, data },
            );
        }),
    ];
    for (name, forge) in forgeries {
        for at in 0..log.entries.len() {
            let mut forged = log.clone();
            forge(&mut forged.entries, at);
            let against = |quote: &Quote| {
                let verdict = verdict(&Evidence::of_quote(quote, forged.clone()), &reference);
                assert_eq!(verdict.answer(), Answer::Refused, "{name} at {at}");
            };
            against(&quote);
            // The worse case: the machine actually did what the log says.
            if let Ok(registers) = replay(&forged, SHA384) {
                let mut quote = quote.clone();
                quote.td.rtmr = [0, 1, 2, 3].map(|index| registers[&Register::Rtmr(index)]);
                against(&quote);
            }
        }
    }
}

#[test]
fn swapped_events_of_a_real_log_are_refused_within_a_register() {
    let Some((log, quote, reference)) = real() else { return };
    let mut refused = 0;
    for at in 1..log.entries.len() {
        let mut forged = log.clone();
        forged.entries.swap(at - 1, at);
        let (a, b) = (&log.entries[at - 1], &log.entries[at]);
        let verdict = verdict(&Evidence::of_quote(&quote, forged), &reference);
        // A quote does not cover the order of events in different registers.
        let same = a.index == b.index && a.digests != b.digests;
        assert_eq!(verdict.answer() == Answer::Refused, same, "{at}: {:?}", verdict.reasons());
        refused += usize::from(same);
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn data_changed_under_a_real_digest_are_refused_where_a_rule_covers_them() {
    let Some((log, quote, reference)) = real() else { return };
    let mut bound = 0;
    for at in 0..log.entries.len() {
        let Derivation::Derived(_) = derive(&log.entries[at], SHA384) else { continue };
        let mut forged = log.clone();
        let kind = forged.entries[at].kind;
        let data = forged.entries[at].data.as_mut().unwrap();
        // The last hashed byte: a NUL follows grub's text.
        let place = data.len() - if kind == EventType::EV_IPL { 2 } else { 1 };
        data[place] ^= 1;
        let verdict = verdict(&Evidence::of_quote(&quote, forged), &reference);
        let contradicted = |reason: &Reason| matches!(reason, Reason::Contradicted { .. });
        assert!(verdict.reasons().iter().any(contradicted), "{at}: {:?}", verdict.reasons());
        bound += 1;
    }
    assert!(bound > 25, "{bound}");
}

#[test]
fn a_debug_td_or_another_mrtd_is_refused_with_a_real_log() {
    let Some((log, quote, reference)) = real() else { return };
    let mut debug = quote.clone();
    debug.td.attributes = Attributes(quote.td.attributes.0 | 1);
    let refused = verdict(&Evidence::of_quote(&debug, log.clone()), &reference);
    assert_eq!(refused.reasons(), [Reason::AttributeSet { name: "DEBUG".into() }]);
    let mut other = quote;
    other.td.mrtd = Digest::Sha384([7; 48]);
    let refused = verdict(&Evidence::of_quote(&other, log), &reference);
    assert!(matches!(refused.reasons(), [Reason::Mrtd { .. }]));
}

/// The events of a real log, with those before the image's from a platform's file.
fn by_platform_file(name: &str, log: &Log, memory: u64, before_image: fn(&Entry) -> bool) -> Vec<Event> {
    let text = PLATFORMS.iter().find(|(known, _)| *known == name).unwrap().1;
    let file: PlatformFile = toml::from_str(text).unwrap();
    let mut events = file.events(SHA384, memory).unwrap();
    let exact = log.entries.iter().filter(|entry| entry.is_extended() && !before_image(entry));
    events.extend(exact.map(|entry| Event {
        pcr: [0, 7, 4, 8, 17][entry.index as usize],
        kind: entry.kind,
        subject: replay::subject(entry),
        expected: Expected::Exact(*entry.digest(SHA384).unwrap()),
        witness: Witness::Tdx,
        source: Source { file: "log".into(), ranges: Vec::new(), rule: "as it was".into() },
    }));
    events
}

/// The verdict on a log with its own registers, against these events.
fn verdict_of(log: &Log, events: Vec<Event>) -> Option<Verdict> {
    let mut quote = Quote::read(&vector("go-tdx-guest/cos-113-tdx-quote.dat")?).unwrap();
    let registers = replay(log, SHA384).unwrap();
    quote.td.rtmr = [0, 1, 2, 3].map(|index| registers[&Register::Rtmr(index)]);
    let mut reference = reference_of(log, &quote);
    reference.platforms[0].events = events;
    reference.platforms[0].registers.clear();
    Some(verdict(&Evidence::of_quote(&quote, log.clone()), &reference))
}

#[test]
fn google_s_part_of_three_boots_matches_its_platform_file() {
    let before_image = |entry: &Entry| entry.index == 1 && entry.kind != EventType::EV_EFI_VARIABLE_AUTHORITY;
    for name in ["go-tdx-guest/ccel_data.dat", "trustee/CCEL_data_gcp", "trustee/CCEL_data_grub_gke"] {
        let Some(bytes) = vector(name) else { return };
        let log = Log::read_any(&bytes).unwrap();
        let events = || by_platform_file("gcp-c3", &log, 16 << 30, before_image);
        let Some(verdict) = verdict_of(&log, events()) else { return };
        assert_eq!(verdict.reasons(), [], "{name}");
        // Any other digest is refused.
        for at in (0..log.entries.len()).filter(|at| before_image(&log.entries[*at])) {
            let mut other = log.clone();
            other.entries[at].digests = vec![SHA384.of(b"evil")];
            let refused = verdict_of(&other, events()).unwrap();
            assert_eq!(refused.answer(), Answer::Refused, "{name}: {at}");
        }
        let other = verdict_of(&log, by_platform_file("gcp-c3", &log, 32 << 30, before_image)).unwrap();
        assert_eq!(other.answer(), Answer::Refused, "{name}: another memory size");
    }
}

#[test]
fn alibaba_s_part_of_a_boot_matches_its_platform_file() {
    let Some(bytes) = vector("trustee/CCEL_AAEL_alibabacloud") else { return };
    let log = Log::read_any(&bytes).unwrap();
    let before_image = |entry: &Entry| {
        entry.index == 1 && entry.kind != EventType::EV_EFI_VARIABLE_AUTHORITY
            || entry.kind == EventType::EV_EFI_VARIABLE_BOOT
    };
    let events = || by_platform_file("alicloud-tdx", &log, 16 << 30, before_image);
    let Some(verdict) = verdict_of(&log, events()) else { return };
    assert_eq!(verdict.reasons(), []);
    for at in (0..log.entries.len()).filter(|at| before_image(&log.entries[*at])) {
        let mut other = log.clone();
        other.entries[at].digests = vec![SHA384.of(b"evil")];
        assert_eq!(verdict_of(&other, events()).unwrap().answer(), Answer::Refused, "{at}");
    }
}

/// A stub of version 252, whose UKI also had `.uname` and `.sbat`: it measures neither, and the initrd that it hands on is
/// the section as it is.
#[test]
fn an_older_stub_measures_the_sections_that_its_rules_name() {
    let Some(log) = vector("more-logs/stub252-direct.bin") else { return };
    let log = Log::read_any(&log).unwrap();
    let of = |pcr: u32, kind: EventType| -> Vec<Digest> {
        let entries = log.entries.iter().filter(|entry| (entry.index, entry.kind) == (pcr, kind));
        entries.map(|entry| *entry.digest(SHA384).unwrap()).collect()
    };
    let sections = of(11, EventType::EV_IPL);
    let names = [".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"];
    let known = names.iter().filter(|name| Version(252).knows(name));
    let expected: Vec<Digest> = known.map(|name| SHA384.of(format!("{name}\0").as_bytes())).collect();
    assert_eq!(sections.iter().step_by(2).copied().collect::<Vec<_>>(), expected);
    let [_, initrd] = of(9, EventType::EV_EVENT_TAG)[..] else { panic!("command line and initrd") };
    assert_eq!(sections.last(), Some(&initrd));
    assert!(Version(252).loads_by_firmware() && !Version(252).passes_on_release());
}
