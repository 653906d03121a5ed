//! Fuzz targets of proofmark-trust: releases, logs, bundles and attestations.

use std::sync::LazyLock;

use proofmark_trust::attestation::Registry;
use proofmark_trust::bundle::{Artifact, PublicKey, Signer, Sigstore, Verify};
use proofmark_trust::debian::inrelease::{Expected, is_acceptable_once_signed, verify};
use proofmark_trust::debian::keys::{Keyring, UnixTime};
use proofmark_trust::envelope::Envelope;
use proofmark_trust::transparency::checkpoint::Checkpoint;
use proofmark_trust::transparency::entry::Entry;
use proofmark_trust::transparency::merkle::{self, Hash};
use proofmark_trust::transparency::note::{Note, SigningKey, VerifierKey};
use proofmark_trust::transparency::proof::Proof;
use proofmark_trust::transparency::tile::{Kind, Name};
use proofmark_trust::transparency::tlog_policy::Policy;
use proofmark_trust::transparency::witness::Request;

use crate::Target;

/// Every target of this crate.
pub const TARGETS: [Target; 4] = [
    ("attestation", attestation),
    ("claims", claims),
    ("inrelease", inrelease),
    ("transparency", transparency),
];

fn public() -> Sigstore {
    Sigstore::public().expect("the built-in root is read")
}

/// Reads attestations of an npm package, and a registry's keys.
pub fn attestation(bytes: &[u8]) {
    static NPM: LazyLock<Registry> =
        LazyLock::new(|| Registry::npm(public()).expect("the pinned keys are read"));
    let _ = Registry::new(bytes, public());
    // No tarball has this digest, so no signature can be about it.
    assert!(NPM.judge(bytes, "gundam-visor", "1.0.1", &[0; 64]).is_err());
}

/// Reads an envelope, a sigstore bundle, a trust root and a public key.
pub fn claims(bytes: &[u8]) {
    static VERIFIER: LazyLock<Sigstore> = LazyLock::new(public);
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert_eq!(Envelope::parse(&envelope.to_bytes()).expect("a written envelope is read"), envelope);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = PublicKey::from_pem(text);
    }
    let _ = Sigstore::new(bytes);
    let signer = Signer::Identity { name: String::new(), issuer: String::new() };
    assert!(VERIFIER.verify(bytes, Artifact::Sha256([0; 32]), &signer).is_err());
}

/// Reads an `InRelease` file under Debian's keys, and the text that a signature would cover.
pub fn inrelease(bytes: &[u8]) {
    static KEYS: LazyLock<Keyring> =
        LazyLock::new(|| Keyring::debian().expect("the pinned keys are readable"));
    let expected =
        Expected { suite: "trixie", architecture: "amd64", now: UnixTime(1_795_219_200), previous: None };
    // A signature takes milliseconds to verify, and hardly any input has one. So every input also goes to the
    // parser behind the signature.
    let _ = is_acceptable_once_signed(bytes, &expected);
    if bytes.starts_with(b"-----BEGIN PGP")
        && let Ok(release) = verify(bytes, &KEYS, &expected)
    {
        // Only a real Debian file passes.
        assert!(!release.signers.is_empty() && release.codename == "trixie");
    }
}

/// Reads everything that a log or a witness writes, and checks that writing it back changes nothing.
pub fn transparency(bytes: &[u8]) {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(Note::parse(note.to_string().as_bytes()).expect("a written note is read"), note);
        if let Ok(checkpoint) = Checkpoint::parse(note.text()) {
            assert_eq!(checkpoint.to_text(), note.text());
        }
    }
    if let Ok(proof) = Proof::parse(bytes) {
        assert_eq!(Proof::parse(proof.to_string().as_bytes()).expect("a written proof is read"), proof);
    }
    if let Ok(entry) = Entry::parse(bytes) {
        assert_eq!(entry.to_bytes(), bytes);
    }
    if let Ok(request) = Request::parse(bytes) {
        assert_eq!(Request::parse(request.to_text().as_bytes()).expect("a written request is read"), request);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Policy::parse(text);
        let _ = SigningKey::parse(text);
        if let Ok(key) = VerifierKey::parse(text) {
            assert_eq!(VerifierKey::parse(&key.to_string()).expect("a written key is read"), key);
        }
        if let Ok(name) = Name::parse(text) {
            assert_eq!(name.to_string(), text);
        }
    }
    numbers_and_hashes(bytes);
}

/// Verifies proofs made of arbitrary numbers and hashes.
fn numbers_and_hashes(bytes: &[u8]) {
    let Some((numbers, rest)) = bytes.split_first_chunk::<16>() else { return };
    let (a, b) = numbers.split_at(8);
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap_or_default());
    let (a, b) = (number(a), number(b));
    let hashes: Vec<Hash> = rest.as_chunks::<32>().0.iter().map(|hash| Hash(*hash)).collect();
    let root = merkle::empty_root();
    let _ = merkle::verify_inclusion(&root, a, b, &hashes, &root);
    assert!(a == b || merkle::verify_consistency(a, b, &hashes, &root, &root).is_err());
    if let Some(name) = Name::in_tree(Kind::Entries, a % 4, b) {
        let _ = name.entries(rest);
        let _ = name.hashes(rest);
    }
}
