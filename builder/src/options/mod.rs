//! Options that several verbs share.

pub mod firmware;
pub mod registry;
pub mod signing;
pub mod tlog;
