#![no_main]

use libfuzzer_sys::fuzz_target;
use rootfs::fixup::ca_bundle::{certificate, subject_hash};

fuzz_target!(|bytes: &[u8]| {
    let _ = subject_hash(bytes);
    if let Ok(der) = certificate(bytes) {
        let _ = subject_hash(&der);
    }
});
