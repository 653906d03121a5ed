//! Reference values of a measured boot: bytes in, digests out.
//!
//! # Shape
//!
//! ```text
//! firmware ─ mrtd ─────────────────────────────> MRTD
//! firmware, machine ─ td_hob, variable, acpi ─┐
//! UKI ─ pe, stub, linux ──────────────────────┼─ boot ─> [Event] ─ replay ─> RTMR0..3, PCRs
//! disk ─ gpt ─────────────────────────────────┘              │
//! evidence: quote, log ──────────────────────────────────── appraise ─> verdict
//! ```
//!
//! # Not here
//!
//! Files, processes, network, environment, clock and threads: bytes come in as arguments.
#![no_std]

extern crate alloc;

pub mod acpi;
pub mod appraise;
pub mod boot;
pub mod digest;
pub mod esp;
pub mod event;
mod field;
pub mod firmware;
pub mod gpt;
pub mod known;
pub mod linux;
pub mod log;
pub mod mrtd;
pub mod pe;
pub mod platform;
pub mod preimage;
pub mod quote;
mod read;
pub mod reference;
pub mod replay;
pub mod secure_boot;
mod sha384;
pub mod shape;
pub mod stub;
pub mod td_hob;
pub mod variable;
pub mod volume;

pub use read::Truncated;

/// The examples of the README are compiled with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
