//! Yields what a builder claims about an image, and whether to trust it, from signed statements and a policy.
//!
//! # Not here
//! Signing: `host::signer`. Logs: `trust::transparency`. Evidence from a running machine: `ovmf-measure`.

pub mod image_verdict;
pub mod statement;
