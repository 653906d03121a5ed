//! Fuzzes one target, which FUZZ_TARGET names: `measure/quote`.
//!
//! # Not here
//! What a target does: the library.

#![no_main]

use std::process::exit;
use std::sync::LazyLock;

use fuzz_targets::targets;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = targets().find(|(name, _)| *name == wanted).map(|(_, target)| target);
    found.unwrap_or_else(|| {
        let names: Vec<String> = targets().map(|(name, _)| name).collect();
        eprintln!("FUZZ_TARGET names no target: {wanted:?}; there are: {}", names.join(" "));
        exit(2)
    })
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
