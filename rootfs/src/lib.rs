//! Packages in, filesystem image out.
//!
//! # Shape
//! ```text
//! archives ──unpack──> Layer ──merge──> Tree ──fix-ups──> Tree ──erofs──> bytes of the image
//! (.deb, .tgz)         entries          path -> Node       accounts, units, ld.so.cache, …
//! ```
//! A [`tree::Tree`] lives in memory only: there is no root directory on the disk, nothing is owned, mounted or run.
//! Each [`tree::Node`] knows its [`tree::Origin`], which answers who brought a path.
//!
//! # Not here
//! Host paths, processes, the network, the environment and the clock: all of it comes in by argument.

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
