//! Packages in, filesystem image out.
//!
//! # Shape
//! ```text
//! archives ──unpack──> Layer ──merge──> Tree ──fix-ups──> Tree ──erofs──> bytes of the image
//! (.deb, .tgz)         entries          path -> Node       accounts, units, ld.so.cache, …
//! ```
//! A [`tree::Tree`] lives in memory only: there is no root directory on disk, and nothing is mounted or run.
//! Each [`tree::Node`] knows its [`tree::Origin`]: the package or recipe line that the path comes from.
//!
//! # Not here
//! Host paths, processes, the network, the environment and the clock: everything comes in by argument.

pub mod content;
pub mod deb;
pub mod elf;
pub mod erofs;
pub mod fixup;
pub mod layer;
pub mod merge;
pub mod npm;
pub mod omit;
pub mod path;
pub mod tree;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
