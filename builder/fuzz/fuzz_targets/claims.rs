//! Any bytes as an envelope, a statement, a policy and a sigstore bundle: an error is fine, a panic is a bug.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::trust::bundle::{Artifact, PublicKey, Signer, Sigstore, Verify};
use proofmark::trust::envelope::Envelope;
use proofmark::trust::image_policy::Policy;
use proofmark::claim::provenance::statement::Statement;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert_eq!(Envelope::parse(&envelope.to_bytes()).expect("a written envelope is read"), envelope);
    }
    if let Ok(statement) = Statement::parse(bytes) {
        assert_eq!(Statement::parse(&statement.to_payload()).expect("a written statement is read"), statement);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Policy::parse(text, &|_| Ok(bytes.to_vec()));
        let _ = PublicKey::from_pem(text);
    }
    let _ = Sigstore::new(bytes);
    let verifier = Sigstore::public().expect("the root that is built in is read");
    let signer = Signer::Identity { name: String::new(), issuer: String::new() };
    assert!(verifier.verify(bytes, Artifact::Sha256([0; 32]), &signer).is_err());
});
