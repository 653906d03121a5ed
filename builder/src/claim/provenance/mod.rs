//! Yields what a builder claims of an image, and whether to believe it, from signed statements and a policy.
//!
//! # Not here
//! Signing: `host::signer`. Logs: `trust::transparency`. Evidence of a running machine: `ovmf-measure`.

pub mod image_verdict;
pub mod statement;
