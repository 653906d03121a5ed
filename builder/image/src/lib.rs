//! Yields the layers around a root filesystem: initrd, unified kernel image, EFI system partition and disk.
//!
//! # Shape
//!
//! ```text
//! files ── cpio ──► initrd ──┐
//! stub, kernel, command line ┴─ uki ──► image.efi ── sign ──► image.efi (signed, if a key was given)
//!                                                               └─ esp ──► FAT ──┐
//!                                              filesystem, hash tree ────────────┴─ disk ──► disk.raw
//! ```
//!
//! Every module here is pure: bytes or readers in, bytes or writers out. Times, GUIDs and labels are
//! arguments; the same arguments give the same bytes.
//!
//! # Not here
//!
//! Files, where keys are, the network and the clock (`host`); the parts' measurements (`ovmf-measure`).

pub mod command_line;
pub mod cpio;
pub mod disk;
pub mod esp;
pub mod sign;
#[cfg(test)]
mod specimen;
pub mod uki;
