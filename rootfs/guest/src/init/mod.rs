//! The parts of the initrd's first process, compiled with `std` for the builder, the linter and the tests.
//!
//! # Shape
//!
//! `main.rs` here is the root of the program itself, which only `build/main.rs` compiles; this file is
//! the root of the same modules in the library.
//!
//! # Source
//!
//! Ours.
//!
//! # Not here
//!
//! What runs: `boot` and `sys` are private, since only process 1 of a guest should call them. Other crates:
//! the program has only `core`, so its errors are written by hand.

pub mod cmdline;
pub mod line;
pub mod modules;
pub mod partition;
pub mod verity;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(dead_code)] // the caller is main.rs
mod boot;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(dead_code)] // the caller is main.rs
mod sys;
