//! Yields what Debian's archive signs: releases, by pinned keys, and the stanzas that they and package indexes are made of.
//!
//! # Shape
//! ```text
//! InRelease bytes + keys + time ─ inrelease ─> InRelease (path -> size, SHA-256)
//! control text ─ control ─> stanzas of fields
//! ```
//!
//! # Not here
//! What a package index means, and which packages are chosen: `resolve`.

pub mod control;
pub mod inrelease;
pub mod keys;
