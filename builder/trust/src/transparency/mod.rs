//! Yields what an append-only log proves, from its tiles, notes and proofs: the formats and checks of C2SP.
//!
//! # Shape
//! ```text
//! entry -> merkle (leaf, proofs) -> tile (where hashes are) -> checkpoint (size, root), a signed note
//!       -> cosignature (a witness saw it) -> policy (which logs, which quorum) -> proof (all in one file)
//! ```
//!
//! # Source
//! RFC 6962 §2; C2SP `tlog-tiles`, `signed-note`, `tlog-checkpoint`, `tlog-cosignature`, `tlog-policy`,
//! `tlog-proof`, `tlog-witness`, as of July 2026. Checked with the proofs of `transparency-dev/merkle`, the
//! log in Tessera's tests, and a Rekor v2 with a witness.
//!
//! # Not here
//! Where tiles and checkpoints come from: `host::tlog`. ML-DSA-44 cosignatures: policies cannot name such
//! witnesses.

pub mod checkpoint;
pub mod cosignature;
pub mod entry;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod tile;
pub mod tlog_policy;
pub mod witness;
