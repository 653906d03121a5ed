//! Tests the values of two machines and a TPM in every format.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use base64::Engine;
use ovmf_measure::digest::Algorithm;
use ovmf_measure::event::{Event, EventType, PlatformRule, Source, Witness};
use ovmf_measure::reference::{Format1, Image, Mrtd, Profile, Subject};
use serde_json::Value;

use super::*;

fn digest(name: &str) -> Digest {
    Algorithm::Sha384.of(name.as_bytes())
}

fn hex(name: &str) -> String {
    hex::encode(digest(name).as_bytes())
}

fn event(pcr: u8, kind: EventType, subject: &str, expected: Expected) -> Event {
    let source = Source { file: "uki".into(), ranges: Vec::new(), rule: "x".into() };
    Event { pcr, kind, subject: subject.into(), expected, witness: Witness::Both, source }
}

fn tdx(memory: &str, rtmr1: &str) -> Platform {
    let program = EventType::EV_EFI_BOOT_SERVICES_APPLICATION;
    Platform {
        name: "qemu-tdx".into(),
        kind: RegisterKind::Tdx,
        algorithm: Algorithm::Sha384,
        shape: BTreeMap::from([("memory".into(), memory.into())]),
        mrtd: vec![Mrtd { digest: digest("mrtd"), source: "x".into() }],
        attributes: None,
        registers: BTreeMap::from([(Register::Rtmr(1), digest(rtmr1)), (Register::Rtmr(2), digest("rtmr2"))]),
        events: vec![
            event(
                1,
                EventType::EV_EFI_VARIABLE_BOOT,
                "Boot0001",
                Expected::PlatformGiven(PlatformRule::Unjudged),
            ),
            event(4, program, "UKI", Expected::Exact(digest("uki"))),
            event(4, program, "kernel in the UKI", Expected::Exact(digest("kernel"))),
            event(9, EventType::EV_IPL, "command line", Expected::Exact(digest("cmdline"))),
            event(9, EventType::EV_IPL, "initrd", Expected::Exact(digest("initrd"))),
        ],
    }
}

fn tpm() -> Platform {
    Platform {
        name: "qemu-tpm".into(),
        kind: RegisterKind::Tpm,
        algorithm: Algorithm::Sha256,
        registers: BTreeMap::from([(Register::Pcr(4), Algorithm::Sha256.of(b"pcr4"))]),
        mrtd: Vec::new(),
        events: Vec::new(),
        ..tdx("1", "x")
    }
}

fn reference() -> Reference {
    Reference {
        format: Format1,
        image: Image { name: "small".into(), version: "7".into(), profile: Profile::Release },
        subjects: vec![Subject { name: "uki".into(), sha256: Algorithm::Sha256.of(b"uki"), bytes: 3 }],
        platforms: vec![tdx("2G", "a"), tdx("4G", "b"), tpm()],
    }
}

fn payload(message: &str) -> Value {
    let message: Value = serde_json::from_str(message).unwrap();
    assert_eq!((message["version"].as_str(), message["type"].as_str()), (Some("0.1.0"), Some("sample")));
    let payload =
        base64::engine::general_purpose::STANDARD.decode(message["payload"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[test]
fn trustee_gets_the_registers_of_all_machines_under_its_names() {
    let exported =
        rvps::message(&reference(), rvps::Names::Upstream, None, Some("E702060000000000")).unwrap();
    let mut both = [hex("a"), hex("b")];
    both.sort();
    let expected = serde_json::json!({
        "mr_td": [hex("mrtd")], "rtmr_1": both, "rtmr_2": [hex("rtmr2")], "xfam": ["e702060000000000"]
    });
    assert_eq!(payload(&exported.document), expected);
    assert_eq!(exported.left_out, ["rtmr0 of qemu-tdx (memory=2G)", "rtmr0 of qemu-tdx (memory=4G)"]);
}

#[test]
fn alibaba_gets_the_digests_of_what_is_started() {
    let exported = rvps::message(&reference(), rvps::Names::Alibaba, None, None).unwrap();
    let expected = serde_json::json!({
        "measurement.uki.SHA-384": [hex("uki")],
        "measurement.kernel.SHA-384": [hex("kernel")],
        "measurement.kernel_cmdline.SHA-384": [hex("cmdline")],
        "measurement.initrd.SHA-384": [hex("initrd")],
    });
    assert_eq!(payload(&exported.document), expected);
}

#[test]
fn a_platform_that_is_not_there_is_refused() {
    let error = rvps::message(&reference(), rvps::Names::Upstream, Some("gcp-c3"), None).unwrap_err();
    assert_eq!(error.to_string(), "the reference values have no TDX platform \"gcp-c3\"");
    assert!(rvps::message(&reference(), rvps::Names::Upstream, Some("qemu-tpm"), None).is_err());
    assert!(corim::document(&reference(), Some("none")).is_err());
}

#[test]
fn values_of_which_none_is_known_are_refused() {
    let mut reference = reference();
    for platform in &mut reference.platforms {
        platform.registers.clear();
        platform.mrtd.clear();
        platform.events.clear();
    }
    assert!(matches!(rvps::message(&reference, rvps::Names::Upstream, None, None), Err(Error::Empty)));
    assert!(matches!(rvps::message(&reference, rvps::Names::Alibaba, None, None), Err(Error::Empty)));
    assert!(matches!(corim::document(&reference, None), Err(Error::Empty)));
}

#[test]
fn a_corim_holds_every_value_by_name_and_as_the_intel_profile_has_it() {
    use ::corim::types::comid::ComidTag;
    use ::corim::types::corim::{ConciseTagChoice, CorimMap};
    use ::corim::types::measurement::{Digest as CorimDigest, IntegrityRegisterId};

    let exported = corim::document(&reference(), Some("qemu-tdx")).unwrap();
    assert_eq!(exported.document[..3], [0xd9, 0x01, 0xf5], "CBOR tag 501");
    // The crate's own reader also checks the structure.
    let (corim, comids): (CorimMap, Vec<ComidTag>) =
        ::corim::validate::decode_and_validate(&exported.document).unwrap();
    assert!(corim.profile.is_some());
    assert!(corim.tags.iter().all(|tag| matches!(tag, ConciseTagChoice::Comid(_))));
    assert_eq!(comids.len(), 2);
    let triples = comids[1].triples.reference_triples.as_ref().unwrap();
    let measurements = &triples[0].1;
    let expected = |name: &str| vec![CorimDigest::new(7, digest(name).as_bytes().to_vec())];
    let names: Vec<String> = measurements.iter().map(|one| format!("{:?}", one.mkey)).collect();
    assert_eq!(measurements.len(), 4, "{names:?}");
    assert_eq!(measurements[0].mval.digests, Some(expected("mrtd")));
    assert_eq!(measurements[1].mval.digests, Some(expected("b")));
    let registers = measurements[3].mval.integrity_registers.as_ref().unwrap();
    assert_eq!(registers.0[&IntegrityRegisterId::Uint(2)], expected("rtmr2"));
    assert!(measurements[3].mval.extra_entries.contains_key(&-83));
    assert_eq!(exported, corim::document(&reference(), Some("qemu-tdx")).unwrap());
    let all = corim::document(&reference(), None).unwrap();
    let (corim, comids): (CorimMap, Vec<ComidTag>) =
        ::corim::validate::decode_and_validate(&all.document).unwrap();
    assert!(corim.profile.is_none(), "a TPM has no place in the Intel profile");
    assert_eq!(comids.len(), 3);
}
