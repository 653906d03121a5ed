//! The verbs, one per file.

pub mod bench;
pub mod dump;
pub mod format;
pub mod verify;
