//! Whole-program tests.

pub mod folder;
pub mod program;
