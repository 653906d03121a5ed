//! Fuzzes one target, which FUZZ_TARGET names as the folder of its crate and its own name: `measure/quote`.
//!
//! # Not here
//! What a target does (`fuzzing` in each crate), and how long it runs (`ci/fuzz`).

#![no_main]

use std::process::exit;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

/// A target's name, and what it does.
type Target = (&'static str, fn(&[u8]));

/// Folders of crates, and the targets of each.
const FOLDERS: [(&str, &[Target]); 7] = [
    ("builder", &proofmark::fuzzing::TARGETS),
    ("builder/image", &proofmark_image::fuzzing::TARGETS),
    ("builder/trust", &proofmark_trust::fuzzing::TARGETS),
    ("measure", &ovmf_measure::fuzzing::TARGETS),
    ("rootfs", &rootfs::fuzzing::TARGETS),
    ("rootfs/guest", &proofmark_guest::fuzzing::TARGETS),
    ("rootfs/verity", &dm_verity_tool::fuzzing::TARGETS),
];

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let all = || {
        FOLDERS.iter().flat_map(|(folder, targets)| {
            targets.iter().map(move |(name, target)| (format!("{folder}/{name}"), *target))
        })
    };
    let found = all().find(|(name, _)| *name == wanted).map(|(_, target)| target);
    found.unwrap_or_else(|| {
        let names: Vec<String> = all().map(|(name, _)| name).collect();
        eprintln!("FUZZ_TARGET names no target: {wanted:?}; there are: {}", names.join(" "));
        exit(2)
    })
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
