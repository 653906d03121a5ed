//! Any bytes as an `InRelease` file, under the real keys: an error is fine, a panic or a pass is a bug.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use proofmark::trust::debian::inrelease::{Expected, verify};
use proofmark::trust::debian::keys::{Keyring, UnixTime};

static KEYS: LazyLock<Keyring> = LazyLock::new(|| Keyring::debian().expect("the pinned keys are readable"));

fuzz_target!(|bytes: &[u8]| {
    let expected =
        Expected { suite: "trixie", architecture: "amd64", now: UnixTime(1_795_219_200), previous: None };
    if let Ok(release) = verify(bytes, &KEYS, &expected) {
        // Only a real file of Debian's passes.
        assert!(!release.signers.is_empty() && release.codename == "trixie");
    }
});
