//! Other projects' verifiers judge what is published beside an image, and forgeries of it.
//!
//! # Shape
//! `@sigstore/verify` from npm and `sigstore` from PyPI are installed into folders for the tests. `cosign`,
//! `sigstore-go-verification` and `rekor-cli` run if this machine or the folder that `PROOFMARK_SIGSTORE_TOOLS` names
//! has them; Debian packages all three.
//!
//! | verifier | a key's bundle in a log like Rekor v2 | in one like Rekor v1 | a logged certificate's, with a time stamp |
//! | --- | --- | --- | --- |
//! | `@sigstore/verify` 4.1.3 | accepted | accepted | accepted |
//! | `cosign` 3.1.1 | accepted | accepted | accepted |
//! | `sigstore-go` 1.3.0 | wants a time, which such a log does not give | accepted | accepted |
//! | `sigstore` (PyPI) 4.5.1 | does not know managed keys: not run | the same | accepted |
//! | `rekor-cli` 1.5.3 | asks only servers of the first generation: not run | accepted | as the first |
//!
//! Every verifier that accepts a bundle refuses its forgeries.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proofmark::claim::provenance::statement::Statement;
use proofmark::flow::publish::publish;
use proofmark::host::publication::{Keyless, Publisher, Token, Who};
use proofmark::host::signer::Signer;
use proofmark::host::tlog::directory::{Unwitnessed, Writer};
use proofmark::host::tlog::{self, Folder, TransparencyLog};
use proofmark::trust::envelope::SigningKey;
use proofmark::trust::transparency::note::{self, Role};
use proofmark::trust::transparency::tlog_policy::Policy;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::authorities::{Authorities, ISSUER, NAME, token};
use system_tests::pypi;
use system_tests::rekor_v1::RekorV1;
use system_tests::tool::skipped;

/// The npm package; the one bundled with npm 11 does not know envelopes in second-generation logs.
const NPM: &str = "@sigstore/verify@4.1.3";

/// The PyPI package.
const PYPI: &str = "sigstore==4.5.1";

const PYTHON: &str = r#"
import sys
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier
from sigstore.verify.policy import Identity
bundle, root, name, issuer = sys.argv[1:]
verifier = Verifier(trusted_root=TrustedRoot.from_file(root))
verifier.verify_dsse(Bundle.from_json(open(bundle).read()), Identity(identity=name, issuer=issuer))
"#;

const SCRIPT: &str = r#"
const { readFileSync } = require('node:fs');
const { createPublicKey } = require('node:crypto');
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');
const [bundle, root, key, subjectAlternativeName, issuer] = process.argv.slice(2);
const read = (path) => readFileSync(path, 'utf8');
const known = () => ({ publicKey: createPublicKey(read(key)), validFor: () => true });
const trust = toTrustMaterial(TrustedRoot.fromJSON(JSON.parse(read(root))), known);
const who = issuer ? { subjectAlternativeName, extensions: { issuer } } : undefined;
const verifier = new Verifier(trust, { tlogThreshold: 1, ctlogThreshold: who ? 1 : 0, timestampThreshold: who ? 1 : 0 });
verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(read(bundle)))), who);
"#;

/// Names and issuers that the certificate does not have.
const OTHERS: [(&str, &str); 2] =
    [("https://ci.example.org/other", ISSUER), (NAME, "https://id.example.com")];

/// Where a bundle has its time stamps, and the only one.
const STAMPS: &str = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps";
const STAMP: &str = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp";

/// Where it has a log's promise, which gives the time.
const PROMISE: &str = "/verificationMaterial/tlogEntries/0/inclusionPromise/signedEntryTimestamp";

/// How many entries of others are in a log.
const OTHER_ENTRIES: u32 = 300;

/// What a verifier does with a bundle's log entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    /// It hashes the entry.
    Read,
    /// It recomputes the entry from what was signed, and looks for that in the log; it ignores the bundle's entry.
    MadeAnew,
}

/// Base64 text with one bit changed.
fn flip(value: &Value) -> Value {
    let mut bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    json!(STANDARD.encode(bytes))
}

/// A published statement about a file.
struct Published {
    root: tempfile::TempDir,
}

impl Published {
    /// Makes one that a key signs.
    fn new() -> Self {
        let who = Who::Key(Signer::Key(SigningKey::from_seed(&[2; 32]).unwrap()));
        Self::by(tempfile::tempdir().unwrap(), &who, None, None)
    }

    /// Makes one that a key signs, with a certificate for this run and a time stamp.
    fn keyless() -> Self {
        let root = tempfile::tempdir().unwrap();
        let authorities = Authorities::new(root.path().join("authorities"));
        let (address, token) = (authorities.address.clone(), Token(token()));
        let who = Who::Keyless(Keyless { address, token, issued: OnceCell::new() });
        let trusted = fs::read(authorities.folder.join("root.json")).unwrap();
        let stamps = format!("{}/stamp", authorities.address);
        Self::by(root, &who, Some(&stamps), Some(&serde_json::from_slice(&trusted).unwrap()))
    }

    fn by(root: tempfile::TempDir, who: &Who, stamps: Option<&str>, authorities: Option<&Value>) -> Self {
        // `cosign` and `sigstore-go` take the host of a log's address as its name.
        let key = note::SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap();
        let text = format!("log {}\nquorum none\n", key.public());
        let policy = Policy::parse(&text).unwrap();
        let mut writer = Writer::init(&root.path().join("log"), key).unwrap();
        // With other entries, so that an inclusion proof is not empty.
        let others: Vec<Vec<u8>> = (0..OTHER_ENTRIES).map(|number| number.to_be_bytes().to_vec()).collect();
        writer.append(&others, &Unwitnessed).unwrap();
        let log = Folder { writer, cosigners: Unwitnessed, policy: &policy };
        Self::publish(root.path(), who, Box::new(log), stamps, authorities, (&policy, &text));
        Published { root }
    }

    /// Makes one that a key signs, in a first-generation log, which gives the time.
    fn in_rekor_v1(rekor: &RekorV1) -> Self {
        let root = tempfile::tempdir().unwrap();
        let who = Who::Key(Signer::Key(SigningKey::from_seed(&[2; 32]).unwrap()));
        let text = format!("log {}\nquorum none\n", rekor.key);
        let policy = Policy::parse(&text).unwrap();
        let log = tlog::rekor_v1::RekorV1::new(&rekor.address, &policy, None);
        Self::publish(root.path(), &who, Box::new(log), None, None, (&policy, &text));
        Published { root }
    }

    fn publish(
        folder: &Path,
        who: &Who,
        log: Box<dyn TransparencyLog + '_>,
        stamps: Option<&str>,
        authorities: Option<&Value>,
        (policy, policy_text): (&Policy, &str),
    ) {
        let disk = b"a disk".repeat(1000);
        fs::write(folder.join("disk.raw"), &disk).unwrap();
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "disk.raw", "digest": {"sha256": hex::encode(Sha256::digest(&disk))}}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {"buildDefinition": {"buildType": "x", "externalParameters": {}},
                "runDetails": {"builder": {"id": "https://example.org/builder"}}},
        });
        let statement = Statement::parse(statement.to_string().as_bytes()).unwrap();
        let mut publisher =
            Publisher { folder, who, logs: vec![log], stamps, authorities, policy, policy_text };
        publish(&mut publisher, "provenance", &statement).unwrap();
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
        forge("signature", "/dsseEnvelope/signatures/0/sig", &flip);
        forge("payload", "/dsseEnvelope/payload", &flip);
        forge("hash", &format!("{proof}/hashes/0"), &flip);
        forge("body", "/verificationMaterial/tlogEntries/0/canonicalizedBody", &flip);
        if good.pointer(PROMISE).is_some() {
            forge("promise", PROMISE, &flip);
            forge("time", "/verificationMaterial/tlogEntries/0/integratedTime", &|value| {
                json!((value.as_str().unwrap().parse::<u64>().unwrap() - 1).to_string())
            });
        }
        if good.pointer(STAMP).is_some() {
            // Near its end, in the signature: a verifier with certificates of its own ignores those in the stamp.
            forge("stamp", STAMP, &|value| {
                let mut bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
                *bytes.iter_mut().rev().nth(7).unwrap() ^= 1;
                json!(STANDARD.encode(bytes))
            });
            // A valid stamp of another signature; and no stamp.
            let other = Published::keyless();
            let other: Value =
                serde_json::from_slice(&fs::read(other.path("provenance.sigstore.json")).unwrap()).unwrap();
            forge("stamp of another", STAMP, &|_| other.pointer(STAMP).unwrap().clone());
            forge("stamp that is not there", STAMPS, &|_| json!([]));
            forge("certificate", "/verificationMaterial/certificate/rawBytes", &flip);
        }
        forge("checkpoint", &format!("{proof}/checkpoint/envelope"), &|value| {
            json!(value.as_str().unwrap().replacen("\n301\n", "\n302\n", 1))
        });
        forgeries
    }

    /// Asserts that a verifier accepts the good bundle and refuses the forgeries.
    fn judged(&self, name: &str, body: Body, run: &dyn Fn(&Path) -> Output) {
        let output = run(&self.path("provenance.sigstore.json"));
        assert!(output.status.success(), "{name} refuses what we publish: {output:?}");
        for (forgery, path) in self.forgeries() {
            if forgery == "body" && body == Body::MadeAnew {
                continue;
            }
            assert!(!run(&path).status.success(), "{name} accepts a forged {forgery}");
        }
    }

    /// The same for a bundle with a certificate; `run` takes the name that it must have, and the issuer that must have
    /// vouched for it.
    fn judged_by_name(&self, name: &str, body: Body, run: &dyn Fn(&Path, &str, &str) -> Output) {
        self.judged(name, body, &|bundle| run(bundle, NAME, ISSUER));
        let good = self.path("provenance.sigstore.json");
        for (other, issuer) in OTHERS {
            assert!(!run(&good, other, issuer).status.success(), "{name} takes {other} of {issuer}");
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
    let rekor = RekorV1::new(OTHER_ENTRIES);
    for published in [Published::new(), Published::in_rekor_v1(&rekor)] {
        published.judged("@sigstore/verify", Body::Read, &|bundle| {
            Command::new("node")
                .arg(&script)
                .arg(bundle)
                .args([published.path("trusted_root.json"), published.path("signer.pub")])
                .output()
                .unwrap()
        });
    }
    let published = Published::keyless();
    let run = |bundle: &Path, name: &str, issuer: &str| {
        let root = published.path("trusted_root.json");
        Command::new("node").arg(&script).arg(bundle).arg(root).args(["none", name, issuer]).output().unwrap()
    };
    published.judged_by_name("@sigstore/verify", Body::Read, &run);
}

#[test]
fn the_verifier_of_pypi_accepts_what_a_certificate_signs_and_refuses_forgeries() {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(programs) = pypi::programs("sigstore-python", &[PYPI], kept) else { return };
    let published = Published::keyless();
    let run = |bundle: &Path, name: &str, issuer: &str| {
        Command::new(programs.join("python3"))
            .args(["-c", PYTHON])
            .arg(bundle)
            .arg(published.path("trusted_root.json"))
            .args([name, issuer])
            .env("HOME", published.root.path())
            .output()
            .unwrap()
    };
    published.judged_by_name("sigstore", Body::Read, &run);
}

/// A Debian program, on this machine or in the named folder.
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
    let run = |published: &Published, bundle: &Path, who: &[&str]| {
        Command::new(&cosign)
            .args(["verify-blob-attestation", "--type", "slsaprovenance1", "--bundle"])
            .arg(bundle)
            .args(who)
            .arg("--trusted-root")
            .arg(published.path("trusted_root.json"))
            .arg(published.path("disk.raw"))
            .env("HOME", published.root.path())
            .output()
            .unwrap()
    };
    let rekor = RekorV1::new(OTHER_ENTRIES);
    for published in [Published::new(), Published::in_rekor_v1(&rekor)] {
        let key = published.path("signer.pub");
        let who = ["--key", key.to_str().unwrap()];
        published.judged("cosign", Body::MadeAnew, &|bundle| run(&published, bundle, &who));
    }
    let published = Published::keyless();
    published.judged_by_name("cosign", Body::MadeAnew, &|bundle, name, issuer| {
        let who = ["--certificate-identity", name, "--certificate-oidc-issuer", issuer];
        run(&published, bundle, &[&["--use-signed-timestamps"], &who[..]].concat())
    });
}

#[test]
fn sigstore_go_accepts_what_has_a_time_and_refuses_forgeries() {
    let Some(program) = tool("sigstore-go-verification") else {
        eprintln!("SKIPPED: no sigstore-go-verification; set PROOFMARK_SIGSTORE_TOOLS");
        return;
    };
    let published = Published::new();
    let run = |published: &Published, bundle: &Path, who: &[&str]| {
        Command::new(&program)
            .args(who)
            .arg("-trustedrootJSONpath")
            .arg(published.path("trusted_root.json"))
            .arg("-artifact")
            .arg(published.path("disk.raw"))
            .arg(bundle)
            .output()
            .unwrap()
    };
    let (bundle, key) = (published.path("provenance.sigstore.json"), published.path("signer.pub"));
    let output = run(&published, &bundle, &["-requireCTlog=false", "-publicKey", key.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("timestamp"), "{said}");

    let published = Published::in_rekor_v1(&RekorV1::new(OTHER_ENTRIES));
    let key = published.path("signer.pub");
    published.judged("sigstore-go", Body::MadeAnew, &|bundle| {
        run(&published, bundle, &["-requireCTlog=false", "-publicKey", key.to_str().unwrap()])
    });
    let published = Published::keyless();
    published.judged_by_name("sigstore-go", Body::MadeAnew, &|bundle, name, issuer| {
        run(&published, bundle, &["-expectedSAN", name, "-expectedIssuer", issuer])
    });
}

#[test]
fn rekors_own_client_finds_what_is_published_and_refuses_forgeries() {
    let Some(program) = tool("rekor-cli") else {
        eprintln!("SKIPPED: no rekor-cli; set PROOFMARK_SIGSTORE_TOOLS");
        return;
    };
    let rekor = RekorV1::new(OTHER_ENTRIES);
    let published = Published::in_rekor_v1(&rekor);
    let run = |verb: &str, envelope: &Path, key: &Path| {
        Command::new(&program)
            .args([verb, "--rekor_server", &rekor.address, "--type", "dsse", "--pki-format", "x509"])
            .arg("--artifact")
            .arg(envelope)
            .arg("--public-key")
            .arg(key)
            .env("HOME", published.root.path())
            .output()
            .unwrap()
    };
    let (envelope, key) = (published.path("provenance.dsse.json"), published.path("signer.pub"));
    let output = run("verify", &envelope, &key);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains(&format!("Entry Index in Current Tree: {OTHER_ENTRIES}\n")),
        "{output:?}"
    );
    // The entry that it would log is already in the log.
    let size = rekor.size();
    let output = run("upload", &envelope, &key);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains(&format!("index {OTHER_ENTRIES}")), "{output:?}");
    assert_eq!(rekor.size(), size);

    let good: Value = serde_json::from_slice(&fs::read(&envelope).unwrap()).unwrap();
    let other = published.path("other.pub");
    fs::write(&other, SigningKey::from_seed(&[3; 32]).unwrap().public().pem().unwrap()).unwrap();
    assert!(!run("verify", &envelope, &other).status.success(), "rekor-cli takes another key");
    for member in ["/signatures/0/sig", "/payload"] {
        let mut forged = good.clone();
        let value = forged.pointer_mut(member).unwrap();
        *value = flip(value);
        let path = published.path("forged.json");
        fs::write(&path, forged.to_string()).unwrap();
        for verb in ["verify", "upload"] {
            assert!(!run(verb, &path, &key).status.success(), "rekor-cli takes a forged {member}");
        }
    }
    assert_eq!(rekor.size(), size);
}
