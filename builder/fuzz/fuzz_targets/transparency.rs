//! Any bytes as each thing that a log or a witness says: an error is fine, a panic is a bug, and what is read is written
//! as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::trust::transparency::checkpoint::Checkpoint;
use proofmark::trust::transparency::entry::Entry;
use proofmark::trust::transparency::merkle::{self, Hash};
use proofmark::trust::transparency::note::{Note, SigningKey, VerifierKey};
use proofmark::trust::transparency::tlog_policy::Policy;
use proofmark::trust::transparency::proof::Proof;
use proofmark::trust::transparency::tile::{Kind, Name};
use proofmark::trust::transparency::witness::Request;

fuzz_target!(|bytes: &[u8]| {
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
    // Numbers and hashes, as proofs of anything.
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
});
