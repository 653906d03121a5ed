use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::*;
use crate::event::{EventType, PlatformRule, Source, Witness};
use crate::log::{Bank, Entry};
use crate::quote::{Body, Bytes};
use crate::reference::{Format1, Image, Mrtd};

const SHA384: Algorithm = Algorithm::Sha384;

fn h(text: &str) -> Digest {
    SHA384.of(text.as_bytes())
}

/// A record of register `index` whose digest is that of its data.
fn plain(index: u32, kind: EventType, data: &[u8]) -> Entry {
    Entry { offset: 0, index, kind, digests: [SHA384.of(data)].into(), data_at: 0, data: Some(data.into()) }
}

/// A record whose digest is of something else.
fn opaque(index: u32, kind: EventType, what: &str, data: &[u8]) -> Entry {
    Entry { digests: [h(what)].into(), ..plain(index, kind, data) }
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = [7u8; 16].to_vec();
    bytes.extend((name.len() as u64).to_le_bytes());
    bytes.extend((value.len() as u64).to_le_bytes());
    bytes.extend(wide(name));
    bytes.extend(value);
    bytes
}

fn load_option(attributes: u32, description: &str, end: [u8; 2]) -> Vec<u8> {
    let mut bytes = attributes.to_le_bytes().to_vec();
    bytes.extend(4u16.to_le_bytes());
    bytes.extend(wide(description));
    bytes.extend([0, 0, end[0], end[1], 4, 0]);
    bytes
}

fn boot_option(index: u32, name: &str, value: &[u8]) -> Entry {
    let data = variable(name, value);
    Entry { data: Some(data), ..plain(index, EventType::EV_EFI_VARIABLE_BOOT, value) }
}

const SEPARATOR: EventType = EventType::EV_SEPARATOR;
const PE: EventType = EventType::EV_EFI_BOOT_SERVICES_APPLICATION;
const ACTION: EventType = EventType::EV_EFI_ACTION;

/// An honest boot.
fn entries() -> Vec<Entry> {
    [
        opaque(1, EventType::EV_EFI_HANDOFF_TABLES2, "hob", b"\x08TdxTable"),
        plain(1, EventType::EV_EFI_VARIABLE_DRIVER_CONFIG, &variable("SecureBoot", &[])),
        plain(1, SEPARATOR, &[0; 4]),
        opaque(1, EventType::EV_PLATFORM_CONFIG_FLAGS, "acpi", b"ACPI DATA"),
        boot_option(1, "Boot0001", &load_option(1, "UEFI disk 0815", [0x7f, 0xff])),
        plain(2, ACTION, b"Calling EFI Application from Boot Option"),
        plain(2, SEPARATOR, &[0; 4]),
        plain(2, EventType::EV_EFI_GPT_EVENT, b"gpt"),
        opaque(2, PE, "uki", b"path"),
        opaque(3, EventType::EV_IPL, ".linux\0", &wide(".linux\0")),
        opaque(3, EventType::EV_IPL, "kernel", &wide(".linux\0")),
        plain(2, ACTION, b"Exit Boot Services Invocation"),
        plain(2, ACTION, b"Exit Boot Services Returned with Success"),
    ]
    .into_iter()
    .enumerate()
    .map(|(offset, entry)| Entry { offset, ..entry })
    .collect()
}

fn log_of(entries: Vec<Entry>) -> Log {
    Log {
        kind: RegisterKind::Tdx,
        banks: [Bank { id: 0x0c, length: 48 }].into(),
        length: entries.len(),
        entries,
    }
}

fn td_of(log: &Log) -> Td {
    let registers = replay::replay(log, SHA384).unwrap();
    Td {
        tee_tcb_svn: Bytes([3; 16]),
        mr_seam: h("module"),
        mr_signer_seam: SHA384.zero(),
        seam_attributes: 0,
        attributes: Attributes(1 << 28),
        xfam: Xfam(0x6_02e7),
        mrtd: h("mrtd"),
        mr_config_id: Bytes::default(),
        mr_owner: Bytes::default(),
        mr_owner_config: Bytes::default(),
        rtmr: [0, 1, 2, 3].map(|index| registers[&Register::Rtmr(index)]),
        report_data: Bytes::default(),
        mr_service_td: Some(SHA384.zero()),
    }
}

fn evidence_of(td: Td, log: Log) -> Evidence<Unverified> {
    let quote = Quote {
        version: 4,
        body: Body::Tdx15,
        attestation_key_type: 2,
        qe_vendor: Bytes([1; 16]),
        user_data: Bytes([2; 20]),
        td,
        signed: Vec::new(),
        signature: Vec::new(),
        trailing: 0,
    };
    Evidence::of_quote(&quote, log)
}

/// Evidence of a machine that actually ran these events.
fn ran(entries: Vec<Entry>) -> Evidence<Unverified> {
    let log = log_of(entries);
    evidence_of(td_of(&log), log)
}

/// Evidence of the honest machine with a log of these events.
fn forged(entries: Vec<Entry>) -> Evidence<Unverified> {
    evidence_of(td_of(&log_of(self::entries())), log_of(entries))
}

fn predicted() -> Vec<Event> {
    let subjects = [
        "TD HOB",
        "SecureBoot",
        "separator",
        "ACPI tables",
        "Boot0001",
        "call",
        "separator",
        "GPT",
        "UKI",
        ".linux name",
        ".linux",
        "exit",
        "exit succeeded",
    ];
    let entries = entries();
    let events = entries.iter().zip(subjects).map(|(entry, subject)| Event {
        pcr: match entry.index {
            1 => 1,
            2 => 4,
            _ => 11,
        },
        kind: entry.kind,
        subject: subject.into(),
        expected: match subject {
            "ACPI tables" => given(PlatformRule::OneOf { digests: [h("other"), h("acpi")].into() }),
            "Boot0001" => given(PlatformRule::BootOption { description: "UEFI disk".into() }),
            _ => Expected::Exact(entry.digests[0]),
        },
        witness: Witness::Both,
        source: Source { file: "rule".into(), ranges: Vec::new(), rule: "test".into() },
    });
    events.collect()
}

fn given(rule: PlatformRule) -> Expected {
    Expected::PlatformGiven(rule)
}

fn reference() -> Reference {
    let td = td_of(&log_of(entries()));
    let registers = [1, 2, 3].map(|index| (Register::Rtmr(index), td.rtmr[usize::from(index)]));
    Reference {
        format: Format1,
        image: Image { name: "image".into(), version: "1".into(), profile: Profile::Release },
        subjects: Vec::new(),
        platforms: [Platform {
            name: "qemu-tdx".into(),
            kind: RegisterKind::Tdx,
            algorithm: SHA384,
            shape: BTreeMap::new(),
            mrtd: [Mrtd { digest: h("mrtd"), source: "test".into() }].into(),
            attributes: None,
            registers: registers.into(),
            events: predicted(),
        }]
        .into(),
    }
}

fn lenient() -> Policy {
    Policy { allow: [Exception::UnverifiedQuote].into(), ..Policy::default() }
}

fn judged_by(evidence: &Evidence<Unverified>, policy: &Policy) -> Verdict {
    appraise(evidence, &reference(), policy).unwrap()
}

/// The reasons to refuse, as text.
fn against(evidence: &Evidence<Unverified>) -> Vec<String> {
    let verdict = judged_by(evidence, &lenient());
    assert_eq!(verdict.answer() == Answer::Accepted, verdict.reasons().is_empty());
    verdict.reasons().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_refused_for(evidence: &Evidence<Unverified>, words: &str) {
    let reasons = against(evidence);
    assert!(reasons.iter().any(|reason| reason.contains(words)), "{words:?} is not among {reasons:#?}");
}

#[test]
fn an_honest_boot_is_accepted_and_the_verdict_notes_what_was_not_judged() {
    let verdict = judged_by(&ran(entries()), &lenient());
    assert_eq!(verdict.reasons(), []);
    assert_eq!(verdict.answer(), Answer::Accepted);
    assert_eq!(verdict.signature(), Signature::NotVerified);
    assert_eq!(verdict.platform().unwrap().name, "qemu-tdx");
    let notes: Vec<String> = verdict.notes().iter().map(ToString::to_string).collect();
    for words in ["signature: not verified", "freshness", "TDX module", "ACPI tables", "Boot0001"] {
        assert!(notes.iter().any(|note| note.contains(words)), "{words}: {notes:#?}");
    }
}

#[test]
fn an_unverified_quote_is_refused_unless_the_policy_allows_it() {
    let verdict = judged_by(&ran(entries()), &Policy::default());
    assert_eq!(verdict.answer(), Answer::Refused);
    assert_eq!(verdict.reasons(), [Reason::SignatureNotVerified]);
}

#[test]
fn a_debug_image_is_refused_unless_the_policy_allows_it() {
    let mut reference = reference();
    reference.image.profile = Profile::Debug;
    let evidence = ran(entries());
    let verdict = appraise(&evidence, &reference, &lenient()).unwrap();
    assert_eq!(verdict.reasons(), [Reason::DebugImage { image: "image".into() }]);
    let mut policy = lenient();
    policy.allow.insert(Exception::DebugImage);
    let verdict = appraise(&evidence, &reference, &policy).unwrap();
    assert_eq!(verdict.answer(), Answer::Accepted);
    assert!(verdict.notes().contains(&Note::DebugImage { image: "image".into() }));
}

#[test]
fn another_mrtd_is_refused() {
    let log = log_of(entries());
    let td = Td { mrtd: h("other firmware"), ..td_of(&log) };
    assert_refused_for(&evidence_of(td, log), "mrtd is");
}

#[test]
fn without_an_mrtd_in_the_reference_only_a_policy_can_accept_one() {
    let mut reference = reference();
    reference.platforms[0].mrtd.clear();
    let evidence = ran(entries());
    let refused = appraise(&evidence, &reference, &lenient()).unwrap();
    assert!(matches!(refused.reasons(), [Reason::Mrtd { accepted, .. }] if accepted.is_empty()));
    let policy = Policy { mrtd: [h("mrtd")].into(), ..lenient() };
    assert_eq!(appraise(&evidence, &reference, &policy).unwrap().answer(), Answer::Accepted);
    let policy = Policy { mrtd: [h("other")].into(), ..lenient() };
    assert_eq!(appraise(&evidence, &reference, &policy).unwrap().answer(), Answer::Refused);
}

#[test]
fn each_field_of_a_td_must_satisfy_the_policy() {
    let log = log_of(entries());
    let honest = td_of(&log);
    let attributes = |bits| Td { attributes: Attributes(bits), ..honest.clone() };
    let cases = [
        (attributes(1 << 28 | 1), "attribute DEBUG is set"),
        (attributes(0), "attribute SEPT_VE_DISABLE is not set"),
        (attributes(1 << 28 | 1 << 29), "attribute MIGRATABLE is set"),
        (attributes(1 << 28 | 1 << 63), "attribute PERFMON is set"),
        (attributes(1 << 28 | 1 << 31), "attribute KL is set"),
        (attributes(1 << 28 | 1 << 40), "attribute bit 40 is set"),
        (Td { xfam: Xfam(0x6_02e7 | 1 << 8), ..honest.clone() }, "the TD may use PT"),
        (Td { xfam: Xfam(1 << 33), ..honest.clone() }, "the TD may use bit 33"),
        (Td { mr_config_id: Bytes([1; 48]), ..honest.clone() }, "mr_config_id is 01"),
        (Td { mr_owner: Bytes([1; 48]), ..honest.clone() }, "mr_owner is 01"),
        (Td { mr_owner_config: Bytes([1; 48]), ..honest.clone() }, "mr_owner_config is 01"),
        (Td { mr_service_td: Some(h("x")), ..honest.clone() }, "mr_service_td is"),
        (Td { mr_signer_seam: h("x"), ..honest.clone() }, "mr_signer_seam is"),
        (Td { seam_attributes: 1, ..honest.clone() }, "seam_attributes is 1"),
    ];
    for (td, words) in cases {
        let reasons = against(&evidence_of(td, log.clone()));
        assert!(reasons.iter().any(|reason| reason.contains(words)), "{words:?} is not among {reasons:#?}");
        let expected = if words.contains("bit 33") || words.contains("SEPT") { 1..=2 } else { 1..=1 };
        assert!(expected.contains(&reasons.len()), "{reasons:#?}");
    }
    assert_eq!(against(&evidence_of(attributes(1 << 28 | 1 << 30 | 1 << 27), log)), [""; 0]);
}

#[test]
fn what_a_policy_requires_must_be_present() {
    let evidence = ran(entries());
    let reasons = |policy: &Policy| judged_by(&evidence, policy).reasons().len();
    let nonce = Policy { report_data: Some(Bytes([9; 64])), ..lenient() };
    assert_eq!(reasons(&nonce), 1);
    let nonce = Policy { report_data: Some(Bytes([0; 64])), ..lenient() };
    assert_eq!(reasons(&nonce), 0);
    assert!(!judged_by(&evidence, &nonce).notes().contains(&Note::FreshnessNotJudged));
    assert_eq!(reasons(&Policy { mr_seam: [h("other")].into(), ..lenient() }), 1);
    assert_eq!(reasons(&Policy { mr_seam: [h("module")].into(), ..lenient() }), 0);
    let elsewhere = Policy { platforms: ["gcp-c3".to_string()].into(), ..lenient() };
    assert!(matches!(judged_by(&evidence, &elsewhere).reasons(), [Reason::NoPlatform { .. }]));
}

#[test]
fn the_reference_s_attributes_must_be_the_td_s() {
    let mut reference = reference();
    reference.platforms[0].attributes = Some(Attributes(1 << 28 | 1 << 30));
    let verdict = appraise(&ran(entries()), &reference, &lenient()).unwrap();
    assert!(matches!(verdict.reasons(), [Reason::Attributes { .. }]));
}

#[test]
fn a_relabelled_register_is_refused_in_a_forged_log_and_in_a_real_one() {
    let mut entries = entries();
    entries[8].index = 1;
    assert_refused_for(&forged(entries.clone()), "UKI was extended into rtmr0");
    assert_refused_for(&forged(entries.clone()), "but the log replays to");
    assert_refused_for(&ran(entries.clone()), "UKI was extended into rtmr0");
    entries[8].index = 7;
    assert_refused_for(&forged(entries.clone()), "register number 7");
    entries[8].index = 0;
    assert_refused_for(&forged(entries), "extends MRTD");
}

#[test]
fn a_moved_or_duplicated_separator_is_refused() {
    let mut moved = entries();
    moved[6].index = 1;
    assert_refused_for(&ran(moved.clone()), "separator was extended into rtmr0");
    assert_refused_for(&forged(moved), "rtmr1 is");
    let mut later = entries();
    later.swap(6, 8);
    assert_refused_for(&ran(later), "should be event");
    let mut twice = entries();
    twice.insert(7, twice[6].clone());
    assert_refused_for(&ran(twice.clone()), "repeats separator");
    assert_refused_for(&forged(twice), "rtmr1 is");
}

#[test]
fn a_good_digest_in_rtmr3_instead_is_refused() {
    let mut entries = entries();
    entries[8].index = 4;
    assert_refused_for(&ran(entries.clone()), "UKI was extended into rtmr3");
    entries[8].index = 2;
    entries.push(opaque(4, PE, "uki", b"path"));
    assert_refused_for(&ran(entries), "rtmr3: event 1");
}

#[test]
fn an_extra_pe_is_refused_wherever_it_is_loaded() {
    for place in 5..=entries().len() {
        let mut entries = entries();
        entries.insert(place, opaque(2, PE, "evil", b"path"));
        assert_refused_for(&ran(entries.clone()), "was not predicted: EV_EFI_BOOT_SERVICES_APPLICATION");
        assert_refused_for(&forged(entries), "rtmr1 is");
    }
}

#[test]
fn data_changed_under_an_intact_digest_is_refused() {
    for place in [1, 2, 4, 5, 6, 7, 11] {
        let mut entries = entries();
        let data = entries[place].data.as_mut().unwrap();
        *data.last_mut().unwrap() ^= 1;
        assert_refused_for(&forged(entries), "but its data give");
    }
}

#[test]
fn a_type_changed_under_an_intact_digest_is_refused() {
    for place in 0..entries().len() {
        let mut entries = entries();
        entries[place].kind = EventType::EV_COMPACT_HASH;
        assert!(!against(&forged(entries)).is_empty(), "{place}");
    }
}

#[test]
fn an_event_hidden_as_no_action_is_refused() {
    let mut entries = entries();
    entries[8].kind = EventType::EV_NO_ACTION;
    assert_refused_for(&forged(entries), "(UKI) is missing");
}

#[test]
fn a_retried_exit_of_boot_services_is_accepted_once_and_only_in_its_place() {
    let failed = plain(2, ACTION, b"Exit Boot Services Returned with Failure");
    let again = plain(2, ACTION, b"Exit Boot Services Invocation");
    let with = |place: usize, extra: &[&Entry]| {
        let mut entries = entries();
        entries.splice(place..place, extra.iter().map(|entry| (*entry).clone()));
        judged_by(&ran(entries), &lenient())
    };
    let end = entries().len() - 1;
    let honest = with(end, &[&failed, &again]);
    assert_eq!(honest.reasons(), []);
    assert!(honest.notes().contains(&Note::ExitRetried { register: Register::Rtmr(1) }));
    let cases: [(usize, &[&Entry]); 6] = [
        (end, &[&failed]),
        (end, &[&again, &failed]),
        (end, &[&failed, &again, &failed, &again]),
        (end + 1, &[&failed, &again]),
        (end - 1, &[&failed, &again]),
        (5, &[&failed, &again]),
    ];
    for (place, extra) in cases {
        assert_eq!(with(place, extra).answer(), Answer::Refused, "{place}: {extra:?}");
    }
    let relabelled = Entry { kind: PE, ..failed };
    assert_eq!(with(end, &[&relabelled, &again]).answer(), Answer::Refused);
}

#[test]
fn swapped_events_are_refused() {
    let mut swapped = entries();
    swapped.swap(9, 10);
    assert_refused_for(&ran(swapped.clone()), "should be event");
    assert_refused_for(&forged(swapped), "rtmr2 is");
}

#[test]
fn a_log_cut_short_is_refused_at_every_length() {
    for length in 0..entries().len() {
        let mut entries = entries();
        entries.truncate(length);
        assert_refused_for(&forged(entries.clone()), "is missing");
        assert_refused_for(&forged(entries), "but the log replays to");
    }
}

#[test]
fn a_log_of_another_boot_is_refused() {
    let mut other = entries();
    other[0] = opaque(1, EventType::EV_EFI_HANDOFF_TABLES2, "more memory", b"\x08TdxTable");
    let evidence = forged(other);
    assert_refused_for(&evidence, "rtmr0 is");
    assert_refused_for(&evidence, "should be TD HOB");
}

#[test]
fn another_kernel_is_refused_with_the_event_that_differs() {
    let mut other = entries();
    other[10] = opaque(3, EventType::EV_IPL, "other kernel", &wide(".linux\0"));
    let reasons = against(&ran(other));
    assert_eq!(reasons.len(), 2, "{reasons:#?}");
    assert!(reasons[0].contains("rtmr2 is") && reasons[0].contains("the reference has"), "{reasons:#?}");
    assert!(reasons[1].contains("rtmr2: event 2 at offset 0 should be .linux"), "{reasons:#?}");
}

#[test]
fn platform_given_events_must_satisfy_their_rule() {
    let with = |place: usize, entry: Entry| {
        let mut entries = entries();
        entries[place] = Entry { offset: place, ..entry };
        against(&ran(entries))
    };
    let flags = EventType::EV_PLATFORM_CONFIG_FLAGS;
    assert_eq!(with(3, opaque(1, flags, "other", b"ACPI DATA")), [""; 0]);
    assert_eq!(with(3, opaque(1, flags, "evil", b"ACPI DATA")).len(), 1);
    let serial = load_option(1, "UEFI disk 4711", [0x7f, 0xff]);
    assert_eq!(with(4, boot_option(1, "Boot0003", &serial)), [""; 0]);
    let refused = [
        boot_option(1, "Boot0003", &load_option(0, "UEFI disk 4711", [0x7f, 0xff])),
        boot_option(1, "Boot0003", &load_option(1, "UEFI net", [0x7f, 0xff])),
        boot_option(1, "Boot0003", &load_option(1, "UEFI", [0x7f, 0xff])),
        boot_option(1, "Boot0003", &load_option(1, "UEFI disk 4711", [4, 4])),
        boot_option(1, "BootOrder", &serial),
        boot_option(1, "Boot0003", b"short"),
        Entry { data: None, ..boot_option(1, "Boot0003", &serial) },
        Entry { digests: [h("other")].into(), ..boot_option(1, "Boot0003", &serial) },
        plain(1, EventType::EV_EFI_ACTION, &serial),
    ];
    for entry in refused {
        assert!(!with(4, entry.clone()).is_empty(), "{entry:?}");
    }
}

/// Counts the reasons against a boot with these further events, when a run of up to `at_most` of a type is accepted.
fn with_run(kind: EventType, at_most: u32, extra: &[Entry]) -> usize {
    let mut reference = reference();
    let run = Event { kind, expected: given(PlatformRule::FromData { at_most }), ..predicted()[0].clone() };
    reference.platforms[0].events.push(run);
    let all = entries().into_iter().chain(extra.iter().cloned()).collect();
    appraise(&ran(all), &reference, &lenient()).unwrap().reasons().len()
}

#[test]
fn a_run_of_platform_given_events_has_a_maximum_length() {
    let kind = EventType::EV_EFI_VARIABLE_AUTHORITY;
    let with = |extra: &[Entry]| with_run(kind, 2, extra);
    let derived = plain(1, kind, &variable("db", b"certificate"));
    assert_eq!(with(&[]), 0);
    assert_eq!(with(&[derived.clone(), derived.clone()]), 0);
    assert_eq!(with(&[derived.clone(), derived.clone(), derived]), 1);
    assert_ne!(with(&[opaque(1, kind, "evil", b"certificate")]), 0);
}

#[test]
fn a_run_of_boot_variables_holds_only_boot_variables() {
    let kind = EventType::EV_EFI_VARIABLE_BOOT2;
    let with = |name: &str| {
        let order = plain(1, kind, &variable("BootOrder", &[1, 0]));
        with_run(
            kind,
            3,
            &[order, plain(1, kind, &variable(name, &load_option(1, "UEFI disk", [0x7f, 0xff])))],
        )
    };
    assert_eq!(with("Boot000A"), 0);
    for name in ["BootNext", "Boot00001", "Boot000G", "SecureBoot", ""] {
        assert_eq!(with(name), 1, "{name}");
    }
}

#[test]
fn runtime_events_are_accepted_only_as_the_policy_lists_them() {
    let log = log_of(entries());
    let mut td = td_of(&log);
    td.rtmr[3] = td.rtmr[3].extended(&h("first")).extended(&h("second"));
    let evidence = evidence_of(td, log);
    assert_refused_for(&evidence, "rtmr3 is");
    let listed = |digests: &[&str]| {
        let digests = digests.iter().map(|text| h(text)).collect();
        let runtime = [(Register::Rtmr(3), digests)].into();
        judged_by(&evidence, &Policy { runtime, ..lenient() }).reasons().len()
    };
    assert_eq!(listed(&["first", "second"]), 0);
    assert_ne!(listed(&["second", "first"]), 0);
    assert_ne!(listed(&["first"]), 0);
    let runtime = [(Register::Rtmr(3), [h("first"), h("second")].into())].into();
    let policy = Policy { runtime, ..lenient() };
    // The same with a log that contains the first, or both.
    for told in [&["first"][..], &["first", "second"]] {
        let mut entries = entries();
        entries.extend(told.iter().map(|text| opaque(4, EventType::EV_EVENT_TAG, text, b"")));
        let log = log_of(entries);
        let mut td = td_of(&log_of(self::entries()));
        td.rtmr[3] = td.rtmr[3].extended(&h("first")).extended(&h("second"));
        let evidence = evidence_of(td, log);
        assert_eq!(judged_by(&evidence, &policy).reasons(), []);
    }
    let unjudged = Policy { unjudged: [Register::Rtmr(3)].into(), ..lenient() };
    let verdict = judged_by(&evidence, &unjudged);
    assert_eq!(verdict.answer(), Answer::Accepted);
    assert!(verdict.notes().contains(&Note::NotJudged { register: Register::Rtmr(3) }));
}

#[test]
fn a_policy_cannot_exempt_the_registers_that_identify_the_image() {
    for register in [Register::Mrtd, Register::Rtmr(1), Register::Rtmr(2), Register::Pcr(4)] {
        let policy = Policy { unjudged: [register].into(), ..lenient() };
        assert_eq!(appraise(&ran(entries()), &reference(), &policy), Err(Error::Unjudged { register }));
    }
}

#[test]
fn an_inconsistent_reference_is_an_error() {
    let with = |change: fn(&mut Platform)| {
        let mut reference = reference();
        change(&mut reference.platforms[0]);
        appraise(&ran(entries()), &reference, &lenient()).unwrap_err()
    };
    let error = with(|platform| {
        platform.registers.insert(Register::Rtmr(1), h("other"));
    });
    assert!(matches!(error, Error::Inconsistent { register: Register::Rtmr(1), .. }));
    let error = with(|platform| {
        platform.registers.insert(Register::Pcr(1), h("other"));
    });
    assert!(matches!(error, Error::Foreign { .. }));
    let error = with(|platform| platform.algorithm = Algorithm::Sha256);
    assert!(matches!(error, Error::Foreign { .. }));
    let sha256 = Expected::Exact(Algorithm::Sha256.of(b""));
    let mut reference = reference();
    reference.platforms[0].events[0].expected = sha256;
    let error = appraise(&ran(entries()), &reference, &lenient()).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }));
}

#[test]
fn one_of_several_shapes_decides() {
    let mut reference = reference();
    let mut other = reference.platforms[0].clone();
    other.events[0].expected = Expected::Exact(h("more memory"));
    other.shape.insert("memory".into(), "8G".into());
    reference.platforms.insert(0, other);
    let verdict = appraise(&ran(entries()), &reference, &lenient()).unwrap();
    assert_eq!(verdict.answer(), Answer::Accepted);
    assert!(verdict.platform().unwrap().shape.is_empty());
}

/// The honest boot as recorded by a TPM, with its reference.
fn tpm() -> (Log, BTreeMap<u8, Digest>, Reference) {
    let mut log = log_of(entries());
    log.kind = RegisterKind::Tpm;
    for entry in &mut log.entries {
        entry.index = [0, 1, 4, 11][entry.index as usize];
    }
    let registers = replay::replay(&log, SHA384).unwrap();
    let values = (0..16).map(|pcr| (pcr, registers[&Register::Pcr(pcr)])).collect();
    let mut reference = reference();
    reference.platforms[0].kind = RegisterKind::Tpm;
    reference.platforms[0].name = "qemu-tpm".into();
    reference.platforms[0].registers = [(Register::Pcr(4), registers[&Register::Pcr(4)])].into();
    (log, values, reference)
}

#[test]
fn pcrs_are_judged_by_the_same_closed_world() {
    let (log, values, reference) = tpm();
    let reasons = |values: &BTreeMap<u8, Digest>, log: &Log| -> Vec<String> {
        let evidence = Evidence::of_pcrs(SHA384, values.clone(), log.clone()).unwrap();
        let verdict = appraise(&evidence, &reference, &lenient()).unwrap();
        verdict.reasons().iter().map(ToString::to_string).collect()
    };
    assert_eq!(reasons(&values, &log), [""; 0]);
    let mut extended = values.clone();
    extended.insert(2, h("option ROM"));
    assert_eq!(reasons(&extended, &log).len(), 1);
    let mut less = values.clone();
    less.remove(&4);
    assert!(reasons(&less, &log)[0].contains("pcr.4 is logged or predicted, but the evidence lacks it"));
    let mut later = values.clone();
    later.insert(10, h("IMA"));
    assert!(reasons(&later, &log)[0].starts_with("pcr.10 is "), "nothing was predicted or logged for PCR 10");
    let evidence = Evidence::of_pcrs(SHA384, later, log.clone()).unwrap();
    let policy = Policy { unjudged: [Register::Pcr(10)].into(), ..lenient() };
    let verdict = appraise(&evidence, &reference, &policy).unwrap();
    assert_eq!(verdict.reasons(), []);
    let not_judged = |note: &&Note| matches!(note, Note::NotJudged { .. });
    let not_judged: Vec<&Note> = verdict.notes().iter().filter(not_judged).collect();
    assert_eq!(not_judged, [&Note::NotJudged { register: Register::Pcr(10) }]);
    let mut logged = log.clone();
    logged.entries.push(plain(9, EventType::EV_EVENT_TAG, b"x"));
    assert!(!reasons(&values, &logged).is_empty());
}

#[test]
fn a_pcr_that_nothing_explains_is_refused_until_the_policy_names_it() {
    let (log, mut values, reference) = tpm();
    values.extend((16..24).map(|pcr| (pcr, replay::reset_value(Register::Pcr(pcr), SHA384))));
    let judge = |values: &BTreeMap<u8, Digest>, policy: &Policy| {
        let evidence = Evidence::of_pcrs(SHA384, values.clone(), log.clone()).unwrap();
        appraise(&evidence, &reference, policy).unwrap().reasons().to_vec()
    };
    assert_eq!(judge(&values, &lenient()), []);
    for pcr in [8, 9, 10, 12, 13, 14, 15, 16, 17, 22, 23] {
        let mut extended = values.clone();
        extended.insert(pcr, extended[&pcr].extended(&h("later")));
        let found = judge(&extended, &lenient());
        assert!(
            matches!(found[..], [Reason::Replay { register: Register::Pcr(at), .. }] if at == pcr),
            "{found:?}"
        );
        let runtime = |digests: &[&str]| {
            let digests = digests.iter().map(|text| h(text)).collect();
            Policy { runtime: [(Register::Pcr(pcr), digests)].into(), ..lenient() }
        };
        assert_eq!(judge(&extended, &runtime(&["later"])), []);
        // What the policy demands is looked at, also when nothing was extended, something else was, or the value is withheld.
        assert_ne!(judge(&values, &runtime(&["later"])), []);
        assert_ne!(judge(&extended, &runtime(&["other"])), []);
        extended.remove(&pcr);
        let found = judge(&extended, &runtime(&["later"]));
        assert_eq!(found, [Reason::NoValue { register: Register::Pcr(pcr) }]);
    }
    for pcr in [8, 12, 13, 14] {
        let mut withheld = values.clone();
        withheld.remove(&pcr);
        assert_eq!(judge(&withheld, &lenient()), [Reason::NoValue { register: Register::Pcr(pcr) }]);
    }
}

#[test]
fn a_section_under_another_name_is_refused() {
    let with = |place: usize, data: Option<Vec<u8>>| {
        let mut all = entries();
        all[place].data = data;
        let verdict = judged_by(&ran(all), &lenient());
        verdict.reasons().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // The name, then the content.
    for place in [9, 10] {
        assert_eq!(with(place, Some(wide(".linux\0"))), [""; 0]);
        assert_eq!(with(place, None), [""; 0], "a log may be stored without data");
        for data in [wide(".initrd\0"), wide(".linux"), b".linux\0".to_vec(), Vec::new()] {
            let reasons = with(place, Some(data));
            assert!(reasons.iter().any(|reason| reason.contains("is of section .linux")), "{reasons:?}");
        }
    }
}

#[test]
fn a_variable_is_accepted_under_its_own_name_only_and_its_value_is_told() {
    let vendor = crate::variable::GLOBAL;
    let named = |vendor: [u8; 16], name: &str, value: &[u8]| {
        let mut data = variable(name, value);
        data[..16].copy_from_slice(&vendor);
        plain(1, EventType::EV_EFI_VARIABLE_DRIVER_CONFIG, &data)
    };
    let mut reference = reference();
    reference.platforms[0].events[1].expected = given(PlatformRule::Variable { name: "SecureBoot".into() });
    reference.platforms[0].registers.remove(&Register::Rtmr(0));
    let with = |entry: Option<Entry>| {
        let mut all = entries();
        all.splice(1..2, entry);
        appraise(&ran(all), &reference, &lenient()).unwrap()
    };
    let verdict = with(Some(named(vendor, "SecureBoot", &[1])));
    assert_eq!(verdict.reasons(), []);
    let told = |note: &Note| note.to_string().contains("SecureBoot (01) is platform-given");
    assert!(verdict.notes().iter().any(told), "{:?}", verdict.notes());
    for wrong in [
        None,
        Some(named(vendor, "SetupMode", &[1])),
        Some(named(vendor, "SecureBoo", &[1])),
        Some(named(crate::variable::IMAGE_SECURITY, "SecureBoot", &[1])),
        Some(Entry { data: None, ..named(vendor, "SecureBoot", &[1]) }),
    ] {
        assert_ne!(with(wrong.clone()).reasons(), [], "{wrong:?}");
    }
}

#[test]
fn the_closest_platform_is_the_one_whose_events_were_logged() {
    let mut reference = reference();
    // Another cloud, with little of its own to contradict: it predicts only the image.
    let mut other = reference.platforms[0].clone();
    other.name = "other-cloud".into();
    other.mrtd.clear();
    other.registers.clear();
    other.events.drain(..5);
    reference.platforms.insert(0, other);
    let mut changed = entries();
    for entry in &mut changed[..3] {
        *entry = Entry { digests: [h("updated")].into(), ..entry.clone() };
    }
    changed.truncate(5);
    for known in [true, false] {
        if !known {
            reference.platforms[1].mrtd.clear();
        }
        let verdict = appraise(&ran(changed.clone()), &reference, &lenient()).unwrap();
        assert_eq!(verdict.platform().unwrap().name, self::reference().platforms[0].name);
    }
}

#[test]
fn evidence_of_another_kind_or_bank_finds_no_platform() {
    let (log, values, reference) = tpm();
    let evidence = Evidence::of_pcrs(SHA384, values.clone(), log.clone()).unwrap();
    let verdict = appraise(&evidence, &self::reference(), &lenient()).unwrap();
    assert!(matches!(verdict.reasons(), [Reason::NoPlatform { kind: RegisterKind::Tpm, .. }]));
    let verdict = appraise(&ran(entries()), &reference, &lenient()).unwrap();
    assert!(matches!(verdict.reasons(), [Reason::NoPlatform { kind: RegisterKind::Tdx, .. }]));
    let mixed = Evidence::of_pcrs(Algorithm::Sha256, values, log.clone()).unwrap_err();
    assert!(matches!(mixed, Error::PcrAlgorithm { pcr: 0, .. }));
    let far = Evidence::of_pcrs(SHA384, [(24, h(""))].into(), log).unwrap_err();
    assert_eq!(far, Error::PcrNumber { found: 24 });
}

#[test]
fn bytes_that_a_sender_added_to_a_quote_are_refused() {
    let log = log_of(entries());
    let evidence = Evidence { trailing: 3, ..evidence_of(td_of(&log), log) };
    assert_eq!(judged_by(&evidence, &lenient()).reasons(), [Reason::Trailing { found: 3 }]);
}

#[test]
fn a_tdreport_is_evidence_like_a_quote() {
    let log = log_of(entries());
    let report = Report { td: td_of(&log), cpu_svn: Bytes([0; 16]), mac: Bytes([0; 32]) };
    let verdict = judged_by(&Evidence::of_report(&report, log), &lenient());
    assert_eq!(verdict.answer(), Answer::Accepted);
    assert_eq!(verdict.signature(), Signature::NotVerified);
}

#[test]
fn a_policy_file_names_bits_and_rejects_unknown_names() {
    let strict: Policy = serde_json::from_str("{}").unwrap();
    assert_eq!(strict, Policy::default());
    let text = serde_json::to_string(&strict).unwrap();
    assert!(text.contains(r#""required":["SEPT_VE_DISABLE"],"allowed":["LASS","PKS"]"#), "{text}");
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), strict);
    let debug: Policy = serde_json::from_str(
        r#"{"allow": ["unverified_quote"], "attributes": {"required": [], "allowed": ["DEBUG", "bit 7"]},
            "runtime": {"rtmr3": []}, "unjudged": ["pcr.10"]}"#,
    )
    .unwrap();
    assert_eq!(debug.attributes.allowed.0, Attributes(0x81));
    for wrong in [
        r#"{"alow": []}"#,
        r#"{"allow": ["everything"]}"#,
        r#"{"attributes": {"allowed": ["debug"]}}"#,
        r#"{"unjudged": ["pcr.24"]}"#,
        r#"{"mr_owner": "00"}"#,
        r#"[["unverified_quote"]]"#,
        r#"[]"#,
        r#"{"attributes": [[], ["DEBUG"]]}"#,
        r#"{"runtime": {"rtmr3": [], "rtmr3": []}}"#,
        r#"{"runtime": [["rtmr3", []]]}"#,
        r#"{"allow": [], "allow": ["unverified_quote"]}"#,
    ] {
        assert!(serde_json::from_str::<Policy>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_reference_document_round_trips() {
    let reference = reference();
    let text = serde_json::to_string(&reference).unwrap();
    assert_eq!(serde_json::from_str::<Reference>(&text).unwrap(), reference);
    let later = text.replacen("\"format\":1", "\"format\":2", 1);
    let error = serde_json::from_str::<Reference>(&later).unwrap_err();
    assert!(error.to_string().contains("expected format 1, found 2"), "{error}");
}

#[test]
fn a_verdict_as_json_names_each_reason() {
    let verdict = judged_by(&forged(Vec::new()), &Policy::default());
    let json = serde_json::to_value(&verdict).unwrap();
    assert_eq!(json["answer"], "refused");
    assert_eq!(json["signature"], "not_verified");
    assert_eq!(json["reasons"][0]["reason"], "signature_not_verified");
    assert_eq!(json["reasons"].as_array().unwrap().len(), verdict.reasons().len());
}
