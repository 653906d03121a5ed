//! The programs that live inside the image, and what the builder must know of them.
//!
//! # Shape
//!
//! [`INIT`] is the first process of the initrd, a static ELF of x86_64. It reads the kernel command
//! line that [`init::cmdline::Boot`] writes, and the list of modules that [`init::modules`] describes.
//!
//! # Source
//!
//! `README.md` tells how to come to the same bytes from the source.
//!
//! # Not here
//!
//! The initrd's archive and the command line's other words: the builder's.

/// The bytes of `/init`, equal wherever they are compiled with the pinned toolchain.
pub const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/proofmark-init"));

pub mod init;
