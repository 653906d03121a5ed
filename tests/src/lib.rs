//! Whole-program tests.

pub mod chat;
pub mod folder;
pub mod model;
pub mod npm;
pub mod program;
