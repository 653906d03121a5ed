//! Fuzz targets: what the fuzzer, and an ordinary test, do with any bytes. An error is fine, a panic is a bug.
//!
//! # Shape
//! ```text
//! bytes ── measure/quote ──> nothing, or a panic          named after the crate's folder and the parser
//! seeds/measure/quote/       valid inputs, which the fuzzer starts from and the test replays
//! ```
//!
//! # Not here
//! The fuzzer's program (`main.rs`), and how long it runs (`ci/fuzz`).

// A panic here is a bug found, reported where it happens.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

pub mod builder;
pub mod guest;
pub mod image;
pub mod measure;
pub mod rootfs;
pub mod trust;
pub mod verity;

/// A target's name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// The folder of each crate, and its targets.
const FOLDERS: [(&str, &[Target]); 7] = [
    ("builder", &builder::TARGETS),
    ("builder/image", &image::TARGETS),
    ("builder/trust", &trust::TARGETS),
    ("measure", &measure::TARGETS),
    ("rootfs", &rootfs::TARGETS),
    ("rootfs/guest", &guest::TARGETS),
    ("rootfs/verity", &verity::TARGETS),
];

/// Every target, with its whole name, as `measure/quote`.
pub fn targets() -> impl Iterator<Item = (String, fn(&[u8]))> {
    FOLDERS.iter().flat_map(|(folder, targets)| {
        targets.iter().map(move |(name, target)| (format!("{folder}/{name}"), *target))
    })
}
