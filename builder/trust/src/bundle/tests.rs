use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::transparency::note::tests::vectors;

struct Case {
    bundle: &'static str,
    artifact: &'static str,
    key: &'static str,
    root: &'static str,
}

const KEYED: [Case; 5] = [
    Case { bundle: "image", artifact: "image.raw", key: "builder.pub", root: "trusted_root.json" },
    Case { bundle: "image.ts", artifact: "image.raw", key: "builder.pub", root: "trusted_root_ts.json" },
    Case {
        bundle: "image.rekor2",
        artifact: "image.raw",
        key: "builder.pub",
        root: "trusted_root_rekor2.json",
    },
    Case { bundle: "v1", artifact: "v1.raw", key: "v1.pub", root: "v1.trusted_root.json" },
    Case { bundle: "cos", artifact: "image.raw", key: "cos.pub", root: "trusted_root_rekor2.json" },
];

struct Lab {
    folder: PathBuf,
}

impl Lab {
    fn open() -> Option<Self> {
        vectors("sigstore/local-bundles").map(|folder| Lab { folder })
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(name)).unwrap()
    }

    fn bundle(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(&format!("{name}.sigstore.json"))).unwrap()
    }

    fn key(&self, name: &str) -> Signer {
        Signer::Key(PublicKey::from_pem(&String::from_utf8(self.read(name)).unwrap()).unwrap())
    }

    fn verify(&self, bundle: &Value, case: &Case) -> Result<Verified<Checked>, Error> {
        let artifact = self.read(case.artifact);
        Sigstore::new(&self.read(case.root)).unwrap().verify(
            bundle.to_string().as_bytes(),
            Artifact::Bytes(&artifact),
            &self.key(case.key),
        )
    }
}

fn builder() -> Signer {
    Signer::Identity {
        name: "https://builds.example.org/cvm/builder-1".to_owned(),
        issuer: "https://id.example.org".to_owned(),
    }
}

#[test]
fn bundles_of_managed_keys_are_accepted_from_bytes_stream_and_digest() {
    let Some(lab) = Lab::open() else { return };
    for case in &KEYED {
        let bundle = lab.bundle(case.bundle);
        let checked = lab.verify(&bundle, case).unwrap_or_else(|error| panic!("{}: {error}", case.bundle));
        assert_eq!(checked.entries().len(), 1);
        assert_eq!(checked.payload().unwrap().kind, "application/vnd.in-toto+json");
        assert_eq!(*checked.signer(), lab.key(case.key));
        let text = bundle.to_string();
        let artifact = lab.read(case.artifact);
        let verifier = Sigstore::new(&lab.read(case.root)).unwrap();
        let digest = Sha256::digest(&artifact).into();
        for artifact in [Artifact::Stream(&mut artifact.as_slice()), Artifact::Sha256(digest)] {
            let again = verifier.verify(text.as_bytes(), artifact, &lab.key(case.key)).unwrap();
            assert_eq!(again, checked);
        }
    }
}

#[test]
fn an_identity_of_a_given_authority_is_accepted_and_another_refused() {
    let Some(lab) = Lab::open() else { return };
    let verifier = Sigstore::new(&lab.read("trusted_root_ca.json")).unwrap();
    let bundle = lab.bundle("image.ca").to_string();
    let artifact = lab.read("image.raw");
    let verify = |signer: &Signer| verifier.verify(bundle.as_bytes(), Artifact::Bytes(&artifact), signer);
    let Err(Error::Refused { reason }) = verify(&Signer::Identity {
        name: "https://builds.example.org/another".to_owned(),
        issuer: "https://id.example.org".to_owned(),
    }) else {
        panic!("another identity was accepted")
    };
    assert!(reason.contains("identity mismatch"), "{reason}");
    assert!(verify(&lab.key("builder.pub")).is_err_and(|error| error.is_refusal()));
    let checked = verify(&builder()).unwrap();
    assert_eq!(*checked.signer(), builder());
    assert!(!checked.times().is_empty());
    // The certificate's authority is not in this root.
    let other = Sigstore::new(&lab.read("trusted_root_ts.json")).unwrap();
    assert!(
        other.verify(bundle.as_bytes(), Artifact::Bytes(&artifact), &builder()).unwrap_err().is_refusal()
    );
}

/// Changes one bit of base64 text.
pub fn flip(value: &mut Value) {
    let mut bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    *value = json!(STANDARD.encode(bytes));
}

#[test]
fn every_forgery_of_a_bundle_is_refused() {
    type Forge = fn(&mut Value);
    let forgeries: [(&str, Forge); 13] = [
        ("signature", |bundle| flip(&mut bundle["dsseEnvelope"]["signatures"][0]["sig"])),
        ("payload", |bundle| flip(&mut bundle["dsseEnvelope"]["payload"])),
        ("payload type", |bundle| bundle["dsseEnvelope"]["payloadType"] = json!("application/json")),
        ("index", |bundle| {
            let entry = &mut bundle["verificationMaterial"]["tlogEntries"][0];
            entry["logIndex"] = json!("3");
            entry["inclusionProof"]["logIndex"] = json!("3");
        }),
        ("body", |bundle| flip(&mut bundle["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"])),
        ("proof", |bundle| {
            let hashes = &mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["hashes"];
            match hashes.get_mut(0) {
                Some(hash) => flip(hash),
                None => *hashes = json!(["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]),
            }
        }),
        ("extra hash", |bundle| {
            let proof = &mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"];
            if proof["hashes"].is_null() {
                proof["hashes"] = json!([]);
            }
            let hash = json!("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
            proof["hashes"].as_array_mut().unwrap().push(hash);
        }),
        ("checkpoint", |bundle| {
            let checkpoint =
                &mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["checkpoint"];
            let text = checkpoint["envelope"].as_str().unwrap();
            let (body, signature) = text.rsplit_once(' ').unwrap();
            let mut signature = STANDARD.decode(signature.trim_end()).unwrap();
            // If there are several signatures, the last is a witness's: then the text is changed instead.
            let last = signature.len() - 1;
            signature[last] ^= 1;
            let forged = format!("{body} {}\n", STANDARD.encode(signature));
            let lines = text.lines().filter(|line| line.starts_with('\u{2014}')).count();
            checkpoint["envelope"] =
                json!(if lines == 1 { forged } else { text.replacen("\n\n", "\nmore\n\n", 1) });
        }),
        ("no checkpoint", |bundle| {
            let proof = &mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"];
            proof.as_object_mut().unwrap().remove("checkpoint");
        }),
        ("no proof", |bundle| {
            let entry = &mut bundle["verificationMaterial"]["tlogEntries"][0];
            entry.as_object_mut().unwrap().remove("inclusionProof");
        }),
        ("no entry", |bundle| bundle["verificationMaterial"]["tlogEntries"] = json!([])),
        ("an unproven entry beside a proven one", |bundle| {
            let entries = bundle["verificationMaterial"]["tlogEntries"].as_array_mut().unwrap();
            let mut bare = entries[0].clone();
            bare.as_object_mut().unwrap().remove("inclusionProof");
            bare.as_object_mut().unwrap().remove("inclusionPromise");
            entries.push(bare);
        }),
        ("two signatures", |bundle| {
            let signatures = bundle["dsseEnvelope"]["signatures"].as_array_mut().unwrap();
            let again = signatures[0].clone();
            signatures.push(again);
        }),
    ];
    let Some(lab) = Lab::open() else { return };
    for case in &KEYED {
        for (name, forge) in &forgeries {
            let mut bundle = lab.bundle(case.bundle);
            forge(&mut bundle);
            assert!(lab.verify(&bundle, case).is_err(), "{}: {name} was accepted", case.bundle);
        }
    }
}

#[test]
fn another_artifact_key_or_log_is_refused() {
    let Some(lab) = Lab::open() else { return };
    let [case, ..] = &KEYED;
    let bundle = lab.bundle(case.bundle).to_string();
    let verifier = Sigstore::new(&lab.read(case.root)).unwrap();
    let refused = |verifier: &Sigstore, artifact: &[u8], key: &str| {
        let error = verifier.verify(bundle.as_bytes(), Artifact::Bytes(artifact), &lab.key(key)).unwrap_err();
        assert!(error.is_refusal(), "{error}");
    };
    let image = lab.read(case.artifact);
    refused(&verifier, b"another image", case.key);
    refused(&verifier, &image, "v1.pub");
    refused(&Sigstore::new(&lab.read("v1.trusted_root.json")).unwrap(), &image, case.key);
    refused(&Sigstore::public().unwrap(), &image, case.key);
}

#[test]
fn a_promise_of_a_first_generation_log_is_checked() {
    let Some(lab) = Lab::open() else { return };
    let case = &KEYED[3];
    let mut bundle = lab.bundle(case.bundle);
    let entry = &mut bundle["verificationMaterial"]["tlogEntries"][0];
    let time: i64 = entry["integratedTime"].as_str().unwrap().parse().unwrap();
    entry["integratedTime"] = json!((time - 1).to_string());
    assert!(lab.verify(&bundle, case).unwrap_err().is_refusal());
    let mut bundle = lab.bundle(case.bundle);
    flip(&mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionPromise"]["signedEntryTimestamp"]);
    assert!(lab.verify(&bundle, case).unwrap_err().is_refusal());
}

#[test]
fn a_changed_time_stamp_is_refused() {
    let Some(lab) = Lab::open() else { return };
    let case = &KEYED[1];
    let mut bundle = lab.bundle(case.bundle);
    let stamps = &mut bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"];
    flip(&mut stamps[0]["signedTimestamp"]);
    assert!(lab.verify(&bundle, case).unwrap_err().is_refusal());
}

#[test]
fn what_is_no_bundle_root_or_key_is_unreadable() {
    let verifier = Sigstore::public().unwrap();
    let signer = builder();
    for text in
        [&b""[..], b"{}", b"[1", b"\xff", br#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.9+json"}"#]
    {
        let error = verifier.verify(text, Artifact::Sha256([0; 32]), &signer).unwrap_err();
        assert!(matches!(error, Error::Bundle { .. }), "{error}");
    }
    for text in [&b""[..], b"{}", b"\xff"] {
        assert!(matches!(Sigstore::new(text), Err(Error::TrustRoot { .. })));
    }
    for text in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert!(matches!(PublicKey::from_pem(text), Err(Error::Key { .. })), "{text}");
    }
}
