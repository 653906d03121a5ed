//! The verbs, one a file.

pub mod diff;
pub mod schema;
pub mod size;
pub mod why;
