//! The verbs, one to a file.

pub mod bench;
pub mod dump;
pub mod format;
pub mod verify;
