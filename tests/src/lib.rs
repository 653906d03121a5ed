//! Whole-program tests.

pub mod folder;
