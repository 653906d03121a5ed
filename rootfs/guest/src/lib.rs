//! The programs inside the image, and what the builder must know about them.
//!
//! # Shape
//!
//! [`INIT`] is the first process of the initrd, a static ELF of x86_64. It reads the kernel command
//! line that [`init::cmdline::Boot`] writes, and the list of modules that [`init::modules`] describes.
//!
//! # Source
//!
//! `README.md` tells how to reproduce the bytes from the source.
//!
//! # Not here
//!
//! The initrd's archive and the other words of the command line: the builder makes them.

/// The bytes of `/init`, the same wherever they are compiled with the pinned toolchain.
pub const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/proofmark-init"));

pub mod init;
