use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::bundle::tests::flip;
use super::*;

/// What npm's registry serves for `gundam-visor@1.0.1`, a package made to test such documents, byte for byte.
pub const DOCUMENT: &[u8] = include_bytes!("specimen/gundam-visor-1.0.1.json");
/// SHA-512 of its tarball.
pub const SHA512: &str = "8d9d7972f676516c75014aa074e11ae604d98f0b64ec6725a61e2838ff3dab162118fa71433fb31e1550d30bd0dec9d086ce032b94457b583900c507acf39c40";
/// Where it was built.
pub const SOURCE: &str = "https://github.com/ramonpetgrave64/gundam-visor";
/// The key of the registry that signed it.
const KEY: &str = "SHA256:jl3bwswu80PjjokCgh0o2w5c2U4LhQAE57gj9cz1kzA";

/// The registry and the Sigstore instance that signed it.
pub fn npm() -> Registry {
    Registry::npm(Sigstore::public().unwrap()).unwrap()
}

fn sha512() -> [u8; 64] {
    hex::decode(SHA512).unwrap().try_into().unwrap()
}

fn judge(document: &[u8]) -> Result<Verified<Attested>, Error> {
    npm().judge(document, "gundam-visor", "1.0.1", &sha512())
}

fn real() -> Value {
    serde_json::from_slice(DOCUMENT).unwrap()
}

#[test]
fn what_npms_registry_serves_is_believed() {
    let attested = judge(DOCUMENT).unwrap();
    assert_eq!(attested.published, KEY);
    assert_eq!(attested.sources, BTreeSet::from([SOURCE.to_owned()]));
    // The publish attestation alone names no source; without it, the rest is not trusted.
    let alone = |index: usize| {
        let document = json!({"attestations": [real()["attestations"][index]]});
        judge(document.to_string().as_bytes())
    };
    let attested = alone(0).unwrap();
    assert_eq!((attested.published.as_str(), attested.sources.len()), (KEY, 0));
    assert!(matches!(alone(1), Err(Error::Unpublished)));
}

#[test]
fn another_name_version_or_tarball_is_refused() {
    let registry = npm();
    let mut other = sha512();
    other[0] ^= 1;
    for (name, version, digest) in
        [("gundam", "1.0.1", sha512()), ("gundam-visor", "1.0.2", sha512()), ("gundam-visor", "1.0.1", other)]
    {
        let error = registry.judge(DOCUMENT, name, version, &digest).unwrap_err();
        assert!(matches!(error, Error::OtherSubject { number: 1, .. }), "{error}");
    }
}

#[test]
fn every_forgery_of_either_attestation_is_refused() {
    type Forge = fn(&mut Value);
    let forgeries: [(&str, Forge); 8] = [
        ("signature", |bundle| flip(&mut bundle["dsseEnvelope"]["signatures"][0]["sig"])),
        ("payload", |bundle| {
            let payload = &mut bundle["dsseEnvelope"]["payload"];
            let text = String::from_utf8(STANDARD.decode(payload.as_str().unwrap()).unwrap()).unwrap();
            *payload = json!(STANDARD.encode(text + " "));
        }),
        ("body", |bundle| flip(&mut bundle["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"])),
        ("promise", |bundle| {
            flip(
                &mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionPromise"]["signedEntryTimestamp"],
            );
        }),
        ("time", |bundle| {
            bundle["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = json!("1717453100");
        }),
        ("proof", |bundle| {
            flip(&mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["hashes"][3]);
        }),
        ("root", |bundle| {
            flip(&mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["rootHash"]);
        }),
        ("no entry", |bundle| bundle["verificationMaterial"]["tlogEntries"] = json!([])),
    ];
    for number in [1, 2] {
        for (name, forge) in &forgeries {
            let mut document = real();
            forge(&mut document["attestations"][number - 1]["bundle"]);
            let error = judge(document.to_string().as_bytes()).unwrap_err();
            let right = matches!(error, Error::Signature { number: found, .. } if found == number);
            assert!(right, "{name} of attestation {number}: {error}");
        }
    }
    let refused = |document: &Value| {
        let error = judge(document.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Signature { .. }), "{error}");
    };
    let mut document = real();
    let chain = &mut document["attestations"][1]["bundle"]["verificationMaterial"]["x509CertificateChain"];
    flip(&mut chain["certificates"][0]["rawBytes"]);
    refused(&document);
    // Each attestation has the other's log entry.
    let mut document = real();
    let original = real();
    let entries = |document: &Value, index: usize| {
        document["attestations"][index]["bundle"]["verificationMaterial"]["tlogEntries"].clone()
    };
    for (index, other) in [(0, 1), (1, 0)] {
        let material = &mut document["attestations"][index]["bundle"]["verificationMaterial"];
        material["tlogEntries"] = entries(&original, other);
    }
    refused(&document);
}

/// The error for a document with one unsigned attestation.
fn unsigned(kind: &str, stated: &str, material: Value) -> Error {
    let statement = json!({"subject": [{"name": "pkg:npm/%40s/d@1.0.0", "digest": {"sha512": SHA512}}],
        "predicateType": stated});
    let envelope = json!({"payload": STANDARD.encode(statement.to_string())});
    let bundle = json!({"verificationMaterial": material, "dsseEnvelope": envelope});
    let document = json!({"attestations": [{"predicateType": kind, "bundle": bundle}]});
    npm().judge(document.to_string().as_bytes(), "@s/d", "1.0.0", &sha512()).unwrap_err()
}

#[test]
fn each_kind_is_signed_by_whom_it_should_be() {
    let (publish, provenance) = (format!("{PUBLISH}v0.1"), format!("{PROVENANCE}v1"));
    let certificate = |der: &[u8]| json!({"certificate": {"rawBytes": STANDARD.encode(der)}});
    let build = real()["attestations"][1]["bundle"]["verificationMaterial"]["x509CertificateChain"].clone();
    let key = json!({"publicKey": {"hint": KEY}});
    let both = json!({"publicKey": {"hint": KEY}, "x509CertificateChain": build});
    for (kind, material) in [
        (&provenance, key.clone()),
        (&publish, json!({ "x509CertificateChain": build })),
        (&publish, json!({})),
        (&provenance, json!({})),
        (&provenance, json!({"x509CertificateChain": {"certificates": []}})),
        (&publish, both.clone()),
        (&provenance, both),
        (&provenance, json!({"certificate": build["certificates"][0], "x509CertificateChain": build})),
    ] {
        let error = unsigned(kind, kind, material);
        assert!(matches!(error, Error::OtherSigner { number: 1, .. }), "{error}");
    }
    let error = unsigned(&publish, &provenance, key.clone());
    assert!(matches!(error, Error::OtherKind { number: 1, .. }), "{error}");
    let person = Certificate::from_pem(include_str!("specimen/person.pem")).unwrap();
    let error = unsigned(&provenance, &provenance, certificate(person.der()));
    let Error::NoBuild { signer, .. } = &error else { panic!("{error}") };
    assert_eq!(signer, "someone@example.org");
    let error = unsigned(&provenance, &provenance, certificate(b"none"));
    assert!(matches!(error, Error::Signature { number: 1, .. }), "{error}");
    let error = unsigned(&publish, &publish, json!({"publicKey": {"hint": "SHA256:other"}}));
    assert!(matches!(&error, Error::UnknownKey { key, .. } if key == "SHA256:other"), "{error}");
    let error = unsigned(&publish, &publish, key);
    assert!(matches!(error, Error::Signature { number: 1, .. }), "{error}");
}

#[test]
fn a_key_of_the_registry_counts_in_its_time_and_for_its_use() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut keys: Value = serde_json::from_slice(NPM_KEYS).unwrap();
        for key in keys["keys"].as_array_mut().unwrap() {
            change(key);
        }
        let registry = Registry::new(keys.to_string().as_bytes(), Sigstore::public().unwrap()).unwrap();
        registry.judge(DOCUMENT, "gundam-visor", "1.0.1", &sha512())
    };
    with(&|_| {}).unwrap();
    let error = with(&|key| key["publicKey"]["validFor"]["end"] = json!("2024-06-03T22:18:00Z")).unwrap_err();
    assert!(matches!(error, Error::Outdated { number: 1, .. }), "{error}");
    let error =
        with(&|key| key["publicKey"]["validFor"] = json!({"start": "2024-06-03T22:18:02Z"})).unwrap_err();
    assert!(matches!(error, Error::Outdated { number: 1, .. }), "{error}");
    with(&|key| {
        key["publicKey"]["validFor"] =
            json!({"start": "2024-06-03T22:18:01Z", "end": "2024-06-03T22:18:01Z"});
    })
    .unwrap();
    let error = with(&|key| key["keyUsage"] = json!("npm:signatures")).unwrap_err();
    assert!(matches!(error, Error::UnknownKey { number: 1, .. }), "{error}");
    let newer = "SHA256:DhQ8wR5APBvFHLF/+Tc+AYvPOdTpcIDqOhxsBHRwC7U";
    let error = with(&|key| {
        let id = if key["keyId"] == newer { KEY } else { newer };
        key["keyId"] = json!(id);
        key["publicKey"]["validFor"] = json!({"start": "2020-01-01T00:00:00Z"});
    })
    .unwrap_err();
    assert!(matches!(error, Error::Signature { number: 1, .. }), "{error}");
}

#[test]
fn what_is_no_list_of_keys_is_refused() {
    let read = |keys: &str| Registry::new(keys.as_bytes(), Sigstore::public().unwrap()).err().unwrap();
    for keys in ["", "{}", r#"{"keys":[{}]}"#] {
        assert!(matches!(read(keys), Error::Keys(_)), "{keys}");
    }
    let key =
        |public: Value| json!({"keys": [{"keyId": "a", "keyUsage": USAGE, "publicKey": public}]}).to_string();
    let public = real_key();
    let mut timeless = public.clone();
    timeless.as_object_mut().unwrap().remove("validFor");
    let mut broken = public.clone();
    broken["rawBytes"] = json!("AAAA");
    for public in [json!({}), timeless, broken] {
        assert!(matches!(read(&key(public.clone())), Error::Trust(_)), "{public}");
    }
    assert!(Registry::new(key(public).as_bytes(), Sigstore::public().unwrap()).is_ok());
}

fn real_key() -> Value {
    let keys: Value = serde_json::from_slice(NPM_KEYS).unwrap();
    keys["keys"][0]["publicKey"].clone()
}

#[test]
fn what_is_no_document_is_refused() {
    let refused = |text: &str| judge(text.as_bytes()).unwrap_err();
    assert!(matches!(refused(""), Error::Json(_)));
    assert!(matches!(refused("{}"), Error::Json(_)));
    assert!(matches!(refused(r#"{"attestations":[]}"#), Error::Empty));
    let with =
        |bundle: &str| refused(&format!(r#"{{"attestations":[{{"predicateType":"","bundle":{bundle}}}]}}"#));
    assert!(matches!(with("{}"), Error::Payload { what: "the bundle", .. }));
    let two = r#"{"dsseEnvelope":{"payload":"e30="},"messageSignature":{}}"#;
    assert!(matches!(with(two), Error::Payload { what: "which of two things is signed", .. }));
    let payload = |text: &str| with(&format!(r#"{{"dsseEnvelope":{{"payload":"{text}"}}}}"#));
    assert!(matches!(payload("!"), Error::Payload { what: "the payload's base64", .. }));
    assert!(matches!(payload("AAAA"), Error::Payload { what: "the statement", .. }));
    assert!(matches!(payload("e30="), Error::OtherSubject { .. }));
}

#[test]
fn the_keys_of_npms_registry_are_those_that_their_table_names() {
    let readme = include_str!("../../keys/npm/README.md");
    let digest = hex::encode(Sha256::digest(NPM_KEYS));
    assert!(readme.contains(&digest), "{digest}");
    let registry = npm();
    let expected = [
        (
            "SHA256:jl3bwswu80PjjokCgh0o2w5c2U4LhQAE57gj9cz1kzA",
            1_669_852_800,       // 2022-12-01
            Some(1_738_108_800), // 2025-01-29
        ),
        ("SHA256:DhQ8wR5APBvFHLF/+Tc+AYvPOdTpcIDqOhxsBHRwC7U", 1_736_726_400, None),
    ];
    assert_eq!(registry.keys.len(), expected.len());
    for ((id, key), (name, from, until)) in registry.keys.iter().zip(expected) {
        assert!(id == name && readme.contains(name));
        assert!(key.is_valid_at(from) && !key.is_valid_at(from - 1));
        let end = until.unwrap_or(i64::MAX - 1);
        assert!(key.is_valid_at(end) && (until.is_none() || !key.is_valid_at(end + 1)));
    }
}
