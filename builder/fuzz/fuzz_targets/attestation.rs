//! Any bytes as what a registry attests of a package, and as the keys of a registry: an error is fine, a panic is a bug, and
//! so is what nobody signed and is believed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use proofmark::trust::attestation::Registry;
use proofmark::trust::bundle::Sigstore;

fn public() -> Sigstore {
    Sigstore::public().expect("the root that is built in is read")
}

static NPM: LazyLock<Registry> = LazyLock::new(|| Registry::npm(public()).expect("the pinned keys are read"));

fuzz_target!(|bytes: &[u8]| {
    let _ = Registry::new(bytes, public());
    // Nothing has this digest, so that nothing can be signed of it.
    assert!(NPM.judge(bytes, "gundam-visor", "1.0.1", &[0; 64]).is_err());
});
