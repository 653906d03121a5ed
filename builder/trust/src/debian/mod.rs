//! Yields the releases that Debian's archive signs with pinned keys, and the stanzas in releases and package
//! indexes.
//!
//! # Shape
//! ```text
//! InRelease bytes + keys + time ─ inrelease ─> InRelease (path -> size, SHA-256)
//! control text ─ control ─> stanzas of fields
//! version strings ─ version ─> their order
//! ```
//!
//! # Not here
//! What a package index means, and which packages are chosen: `resolve`.

pub mod control;
pub mod inrelease;
pub mod keys;
pub mod version;
