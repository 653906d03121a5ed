//! Other people's verifiers judge what is published beside an image, and forgeries of it.
//!
//! # Shape
//! `@sigstore/verify` from npm is installed into a folder of the tests. `cosign` and `sigstore-go-verification` are run
//! when this machine has them, or the folder that `PROOFMARK_SIGSTORE_TOOLS` names; Debian packages both.
//!
//! | verifier | a key's bundle in a log like Rekor v2 |
//! | --- | --- |
//! | `@sigstore/verify` 4.1.3 | accepted, forgeries refused |
//! | `cosign` 3.1.1 | accepted, forgeries refused |
//! | `sigstore-go` 1.3.0 | wants a time, which such a log does not give: refused whatever is in it |
//! | `sigstore` (PyPI) 4.5.1 | knows no managed keys: not run |
//! | `rekor-cli` 1.5.3 | asks servers of the first generation: not run |

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proofmark::claim::envelope::SigningKey;
use proofmark::claim::provenance::statement::Statement;
use proofmark::claim::transparency::note::{self, Role};
use proofmark::claim::transparency::policy::Policy;
use proofmark::host::log::Folder;
use proofmark::host::log::directory::{Unwitnessed, Writer};
use proofmark::host::publish::{Publisher, Who};
use proofmark::host::signer::Signer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::npm::skipped;

/// What npm is asked for; the one that is bundled with npm 11 does not know envelopes in logs of the second generation.
const NPM: &str = "@sigstore/verify@4.1.3";

const SCRIPT: &str = r#"
const { readFileSync } = require('node:fs');
const { createPublicKey } = require('node:crypto');
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');
const [bundle, root, key] = process.argv.slice(2);
const read = (path) => readFileSync(path, 'utf8');
const publicKey = createPublicKey(read(key));
const trust = toTrustMaterial(TrustedRoot.fromJSON(JSON.parse(read(root))), () => ({ publicKey, validFor: () => true }));
const verifier = new Verifier(trust, { tlogThreshold: 1, ctlogThreshold: 0, timestampThreshold: 0 });
verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(read(bundle)))));
"#;

/// A published statement about a file.
struct Published {
    root: tempfile::TempDir,
}

impl Published {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let disk = b"a disk".repeat(1000);
        fs::write(root.path().join("disk.raw"), &disk).unwrap();
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "disk.raw", "digest": {"sha256": hex::encode(Sha256::digest(&disk))}}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {"buildDefinition": {"buildType": "x", "externalParameters": {}},
                "runDetails": {"builder": {"id": "https://example.org/builder"}}},
        });
        let statement = Statement::parse(statement.to_string().as_bytes()).unwrap();
        let key = note::SigningKey::new("log.example/reference", Role::Log, &[1; 32]).unwrap();
        let text = format!("log {}\nquorum none\n", key.public());
        let policy = Policy::parse(&text).unwrap();
        let mut writer = Writer::init(&root.path().join("log"), key).unwrap();
        // In company, so that there is something to prove.
        let others: Vec<Vec<u8>> = (0..300u32).map(|number| number.to_be_bytes().to_vec()).collect();
        writer.append(&others, &Unwitnessed).unwrap();
        let who = Who::Key(Signer::Key(SigningKey::from_seed(&[2; 32]).unwrap()));
        let log = Folder { writer, cosigners: Unwitnessed, policy: &policy };
        let mut publisher = Publisher {
            folder: root.path(),
            who: &who,
            logs: vec![Box::new(log)],
            stamps: None,
            authorities: None,
            policy: &policy,
            policy_text: &text,
        };
        publisher.publish("provenance", &statement).unwrap();
        drop(publisher);
        Published { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Bundles that must be refused, by what is forged.
    fn forgeries(&self) -> Vec<(&'static str, PathBuf)> {
        let text = fs::read(self.path("provenance.sigstore.json")).unwrap();
        let good: Value = serde_json::from_slice(&text).unwrap();
        let proof = "/verificationMaterial/tlogEntries/0/inclusionProof";
        let mut forgeries = Vec::new();
        let mut forge = |name: &'static str, pointer: &str, change: &dyn Fn(&Value) -> Value| {
            let mut bundle = good.clone();
            let place = bundle.pointer_mut(pointer).unwrap();
            *place = change(place);
            let path = self.path(&format!("forged-{name}.json"));
            fs::write(&path, bundle.to_string()).unwrap();
            forgeries.push((name, path));
        };
        let flip = |value: &Value| {
            let mut bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            json!(STANDARD.encode(bytes))
        };
        forge("signature", "/dsseEnvelope/signatures/0/sig", &flip);
        forge("payload", "/dsseEnvelope/payload", &flip);
        forge("hash", &format!("{proof}/hashes/0"), &flip);
        forge("body", "/verificationMaterial/tlogEntries/0/canonicalizedBody", &flip);
        forge("checkpoint", &format!("{proof}/checkpoint/envelope"), &|value| {
            json!(value.as_str().unwrap().replacen("\n301\n", "\n302\n", 1))
        });
        forgeries
    }

    /// Holds a verifier to the good bundle and to the forgeries.
    fn judged(&self, name: &str, run: &dyn Fn(&Path) -> Output) {
        let output = run(&self.path("provenance.sigstore.json"));
        assert!(output.status.success(), "{name} refuses what we publish: {output:?}");
        for (forgery, path) in self.forgeries() {
            assert!(!run(&path).status.success(), "{name} accepts a forged {forgery}");
        }
    }
}

#[test]
fn npms_verifier_accepts_what_is_published_and_refuses_forgeries() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sigstore-npm");
    fs::create_dir_all(&folder).unwrap();
    let installed = folder.join("node_modules/@sigstore/verify/package.json");
    if !installed.is_file() {
        let install = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", NPM])
            .current_dir(&folder)
            .output();
        match install {
            Ok(output) if output.status.success() => {}
            other => return skipped(&format!("npm cannot install {NPM}: {other:?}")),
        }
    }
    let script = folder.join("verify.js");
    fs::write(&script, SCRIPT).unwrap();
    let published = Published::new();
    published.judged("@sigstore/verify", &|bundle| {
        Command::new("node")
            .arg(&script)
            .arg(bundle)
            .args([published.path("trusted_root.json"), published.path("signer.pub")])
            .output()
            .unwrap()
    });
}

/// A program of Debian's, on this machine or in the folder that was named.
fn tool(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("PROOFMARK_SIGSTORE_TOOLS");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = named.into_iter().map(PathBuf::from).collect();
    folders.extend(std::env::split_paths(&path));
    folders.into_iter().map(|folder| folder.join(name)).find(|program| program.is_file())
}

#[test]
fn cosign_accepts_what_is_published_and_refuses_forgeries() {
    let Some(cosign) = tool("cosign") else {
        // Debian stable has no version that knows such logs: CI does not install it.
        eprintln!("SKIPPED: no cosign of version 3; set PROOFMARK_SIGSTORE_TOOLS");
        return;
    };
    let published = Published::new();
    published.judged("cosign", &|bundle| {
        Command::new(&cosign)
            .args(["verify-blob-attestation", "--type", "slsaprovenance1", "--bundle"])
            .arg(bundle)
            .arg("--key")
            .arg(published.path("signer.pub"))
            .arg("--trusted-root")
            .arg(published.path("trusted_root.json"))
            .arg(published.path("disk.raw"))
            .env("HOME", published.root.path())
            .output()
            .unwrap()
    });
}

#[test]
fn sigstore_go_wants_a_time_that_such_a_log_does_not_give() {
    let Some(program) = tool("sigstore-go-verification") else {
        eprintln!("SKIPPED: no sigstore-go-verification; set PROOFMARK_SIGSTORE_TOOLS");
        return;
    };
    let published = Published::new();
    let output = Command::new(program)
        .args(["-requireCTlog=false", "-publicKey"])
        .arg(published.path("signer.pub"))
        .arg("-trustedrootJSONpath")
        .arg(published.path("trusted_root.json"))
        .arg("-artifact")
        .arg(published.path("disk.raw"))
        .arg(published.path("provenance.sigstore.json"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("timestamp"), "{said}");
}
