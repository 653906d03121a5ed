//! Transparency logs: written in a folder, or asked over HTTP.

pub mod directory;
pub mod medium;
