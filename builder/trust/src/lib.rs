//! Yields verdicts on others' statements: Debian's releases, transparency logs, signed envelopes and bundles,
//! attestations of npm packages, and the evidence of machines.
//!
//! # Shape
//!
//! ```text
//! InRelease, keys ─ debian ──────────────────> what an archive holds
//! bundle, trust root ─ bundle ───────────────> who signed what, and which logs hold it
//! tiles, notes, proofs ─ transparency ───────> what an append-only log holds
//! a registry's answer ─ attestation ─────────> where a package was built
//! quote, event log ─ evidence ───────────────> what a machine says about itself
//! ```
//!
//! Every module here is pure: bytes, keys and a time in, a judgement out. Accepted input becomes a
//! [`Verified`] value, which nothing outside this crate can construct.
//!
//! # Not here
//!
//! Files, the network and the clock (`host`); claims about an image (`claim`).

pub mod attestation;
pub mod bundle;
pub mod debian;
pub mod envelope;
pub mod evidence;
pub mod image_policy;
pub mod purl;
pub mod transparency;
mod verified;

pub use verified::Verified;
