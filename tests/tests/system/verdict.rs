//! The program's verdicts on evidence, as text, JSON and exit code: an honest boot is accepted only by name, each
//! forgery is refused with its reason, and unreadable evidence is an error.
//!
//! # Not here
//! Each single forgery, and real machines' logs: `ovmf-measure`'s own tests.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // all of it is a test

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha384};
use system_tests::program;
use tempfile::TempDir;

/// A record: register index, type, hashed bytes, data.
type Record = (u32, u32, &'static [u8], &'static [u8]);

const SEPARATOR: u32 = 4;
const ACTION: u32 = 0x8000_0007;
const PE: u32 = 0x8000_0003;
const IPL: u32 = 0xd;

/// An honest boot.
const BOOT: [Record; 6] = [
    (1, SEPARATOR, &[0; 4], &[0; 4]),
    (2, ACTION, b"Calling EFI Application from Boot Option", b"Calling EFI Application from Boot Option"),
    (2, SEPARATOR, &[0; 4], &[0; 4]),
    (2, PE, b"uki", b"a path"),
    (3, IPL, b".linux\0", b".\0l\0i\0n\0u\0x\0\0\0"),
    (3, IPL, b"kernel", b".\0l\0i\0n\0u\0x\0\0\0"),
];

fn sha384(bytes: &[u8]) -> Vec<u8> {
    Sha384::digest(bytes).to_vec()
}

fn log(records: &[Record]) -> Vec<u8> {
    let mut first = b"Spec ID Event03\0".to_vec();
    first.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 12, 0, 48, 0, 0]);
    let mut bytes = [1u32.to_le_bytes(), 3u32.to_le_bytes()].concat();
    bytes.resize(28, 0);
    bytes.extend((first.len() as u32).to_le_bytes());
    bytes.extend(first);
    for (index, kind, hashed, data) in records {
        bytes.extend(index.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend([1, 0, 0, 0, 12, 0]);
        bytes.extend(sha384(hashed));
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(*data);
    }
    bytes.resize(bytes.len() + 64, 0xff);
    bytes
}

fn registers(records: &[Record]) -> [Vec<u8>; 4] {
    [1, 2, 3, 4].map(|index| {
        let of_it = records.iter().filter(|record| record.0 == index);
        of_it.fold(vec![0; 48], |value, record| sha384(&[value, sha384(record.2)].concat()))
    })
}

/// A quote of a machine that ran these records.
fn quote(records: &[Record]) -> Vec<u8> {
    let mut bytes = vec![4, 0, 2, 0, 0x81, 0, 0, 0];
    bytes.resize(48 + 120, 0);
    bytes.extend((1u64 << 28).to_le_bytes());
    bytes.extend(3u64.to_le_bytes());
    bytes.extend(sha384(b"firmware"));
    bytes.resize(48 + 328, 0);
    bytes.extend(registers(records).concat());
    bytes.resize(48 + 584, 0);
    bytes.extend([1, 0, 0, 0, 9]);
    bytes
}

fn reference(profile: &str) -> Value {
    let events: Vec<Value> = BOOT
        .iter()
        .map(|(index, kind, hashed, _)| {
            let kind = match *kind {
                SEPARATOR => "EV_SEPARATOR",
                ACTION => "EV_EFI_ACTION",
                PE => "EV_EFI_BOOT_SERVICES_APPLICATION",
                _ => "EV_IPL",
            };
            json!({
                "pcr": ([0, 7, 4, 11][*index as usize]),
                "type": kind,
                "subject": "predicted",
                "expected": {"exact": hex::encode(sha384(hashed))},
                "witness": "both",
                "source": {"file": "rule", "rule": "test"},
            })
        })
        .collect();
    let [rtmr0, rtmr1, rtmr2, rtmr3] = registers(&BOOT).map(hex::encode);
    json!({
        "format": 1,
        "image": {"name": "image", "version": "1", "profile": profile},
        "subjects": [],
        "platforms": [{
            "name": "qemu-tdx",
            "kind": "tdx",
            "algorithm": "sha384",
            "shape": {"memory": "4G"},
            "mrtd": [{"digest": hex::encode(sha384(b"firmware")), "source": "test"}],
            "registers": {"rtmr0": rtmr0, "rtmr1": rtmr1, "rtmr2": rtmr2, "rtmr3": rtmr3},
            "events": events,
        }],
    })
}

/// A folder with the evidence of an honest boot.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Self {
        let case = Case { folder: tempfile::tempdir().unwrap() };
        case.write("log", &log(&BOOT));
        case.write("quote", &quote(&BOOT));
        case.write("reference.json", reference("release").to_string().as_bytes());
        case.write("debug.json", reference("debug").to_string().as_bytes());
        case
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Runs the program with the words of `line`; returns its exit code and output.
    #[track_caller]
    fn run(&self, line: &str) -> (i32, String) {
        let output = Command::new(program::proofmark())
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .env("HOME", Path::new("/nonexistent"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    #[track_caller]
    fn json(&self, line: &str) -> (i32, Value) {
        let (code, text) = self.run(&format!("--json {line}"));
        (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }
}

const APPRAISE: &str = "appraise --evidence quote --log log --reference reference.json";

#[test]
fn an_honest_boot_is_accepted_by_name_only() {
    let case = Case::new();
    let (code, text) = case.run(APPRAISE);
    assert_eq!(code, 4, "{text}");
    assert!(
        text.starts_with("refused: image 1 (release) on qemu-tdx, memory 4G\nsignature: not verified\n"),
        "{text}"
    );
    let (code, text) = case.run(&format!("{APPRAISE} --allow unverified-quote"));
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("accepted: ") && text.contains("signature: not verified"), "{text}");
    let policy = r#"{"allow": ["unverified_quote"]}"#;
    case.write("policy.json", policy.as_bytes());
    case.write("policy.toml", br#"allow = ["unverified_quote"]"#);
    for policy in ["policy.json", "policy.toml"] {
        let (code, verdict) = case.json(&format!("{APPRAISE} --policy {policy}"));
        assert_eq!((code, &verdict["answer"]), (0, &json!("accepted")), "{verdict}");
        assert_eq!(verdict["signature"], "not_verified");
        assert_eq!(verdict["reasons"], json!([]));
    }
}

#[test]
fn one_file_with_both_is_evidence_too() {
    let case = Case::new();
    let both = json!({"quote": hex::encode(quote(&BOOT)), "log": hex::encode(log(&BOOT))});
    case.write("both.json", both.to_string().as_bytes());
    let line = "appraise --evidence both.json --reference reference.json --allow unverified-quote";
    assert_eq!(case.run(line).0, 0);
    let (code, text) = case.run(&format!("{line} --log log"));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("a separate one is given too"), "{text}");
}

#[test]
fn a_debug_image_a_wrong_nonce_and_another_platform_are_refused() {
    let case = Case::new();
    let line = format!("{APPRAISE} --allow unverified-quote");
    let reasons = |line: &str| {
        let (code, verdict) = case.json(line);
        assert_eq!(code, if verdict["reasons"] == json!([]) { 0 } else { 4 }, "{verdict}");
        let reasons = verdict["reasons"].as_array().unwrap().iter();
        reasons.map(|reason| reason["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let debug = line.replace("reference.json", "debug.json");
    assert_eq!(reasons(&debug), ["debug_image"]);
    assert_eq!(reasons(&format!("{debug} --allow debug-image")), [""; 0]);
    assert_eq!(reasons(&format!("{line} --platform gcp-c3")), ["no_platform"]);
    assert_eq!(reasons(&format!("{line} --report-data {}", "ab".repeat(64))), ["field"]);
    assert_eq!(reasons(&format!("{line} --report-data {}", "00".repeat(64))), [""; 0]);
}

#[test]
fn a_forged_log_is_refused_with_its_reason() {
    let case = Case::new();
    let mut relabelled = BOOT;
    relabelled[3].0 = 1;
    let mut changed = BOOT;
    changed[1].3 = b"Calling something else";
    let mut swapped = BOOT;
    swapped.swap(4, 5);
    let cases: [(&[Record], &str); 5] = [
        (&relabelled, "other_register"),
        (&changed, "contradicted"),
        (&swapped, "out_of_order"),
        (&BOOT[..4], "missing"),
        (&[BOOT[0], BOOT[1], BOOT[2], BOOT[3], (2, PE, b"evil", b""), BOOT[4], BOOT[5]], "unexpected"),
    ];
    for (records, reason) in cases {
        case.write("log", &log(records));
        // Whether the quote is from the honest boot or from one that really went this way.
        for ran in [&BOOT[..], records] {
            case.write("quote", &quote(ran));
            let (code, verdict) = case.json(&format!("{APPRAISE} --allow unverified-quote"));
            assert_eq!((code, &verdict["answer"]), (4, &json!("refused")), "{reason}: {verdict}");
            let mut found = verdict["reasons"].as_array().unwrap().iter();
            assert!(found.any(|found| found["reason"] == reason), "{reason}: {verdict}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_verdict() {
    let case = Case::new();
    case.write("cut", &log(&BOOT)[..100]);
    case.write("nothing", b"");
    case.write("wrong.json", br#"{"format": 2}"#);
    case.write("policy.json", br#"{"allow": ["everything"]}"#);
    for (line, words) in [
        ("eventlog cut", "at offset"),
        ("eventlog nothing", "needs 4 bytes, found 0"),
        ("eventlog absent", "cannot read absent"),
        ("appraise --evidence cut --log log --reference reference.json", "expected quote version 4 or 5"),
        ("appraise --evidence quote --log cut --reference reference.json", "cannot read cut"),
        ("appraise --evidence quote --reference reference.json", "no event log"),
        ("appraise --evidence quote --log log --reference wrong.json", "expected format 1, found 2"),
        ("appraise --evidence quote --log log --reference reference.json --policy policy.json", "everything"),
    ] {
        let (code, text) = case.run(line);
        assert_eq!(code, 1, "{line}: {text}");
        assert!(text.contains(words) && text.starts_with("error: "), "{line}: {text}");
    }
}

#[test]
fn a_log_is_told_event_by_event() {
    let case = Case::new();
    let (code, told) = case.json("eventlog log");
    assert_eq!(code, 0);
    let expected = registers(&BOOT).map(hex::encode);
    for (index, value) in expected.iter().enumerate() {
        assert_eq!(told["registers"][format!("rtmr{index}")], json!(value));
    }
    let events = told["events"].as_array().unwrap();
    assert_eq!(events.len(), BOOT.len());
    let first = &events[1];
    assert_eq!(first["register"], "rtmr1");
    assert_eq!(first["type"], "EV_EFI_ACTION");
    assert_eq!(first["digest"], hex::encode(sha384(BOOT[1].2)));
    assert_eq!(first["subject"], "Calling EFI Application from Boot Option");
    assert_eq!(first["derivation"], "derived");
    let [begin, length] = [0, 1].map(|at| first["source"]["ranges"][0][at].as_u64().unwrap() as usize);
    assert_eq!(&log(&BOOT)[begin..begin + length], BOOT[1].3);
    let mut changed = BOOT;
    changed[1].3 = b"Calling something else";
    case.write("changed", &log(&changed));
    let (code, text) = case.run("eventlog changed");
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("1 contradict their data"), "{text}");
}
