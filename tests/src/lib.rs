//! Yields what whole-program tests share.

pub mod authorities;
pub mod chat;
pub mod debian;
pub mod direct;
pub mod document;
pub mod folder;
pub mod inputs;
pub mod mirror;
pub mod model;
pub mod npm;
pub mod outcome;
pub mod program;
pub mod pypi;
pub mod rekor_v1;
pub mod tool;
