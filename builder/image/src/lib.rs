//! The layers around a root filesystem: initrd, unified kernel image, EFI system partition and disk.
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
//! Every module here is pure: bytes or readers in, bytes or writers out. Times, GUIDs and labels come in by
//! argument; the same arguments give the same bytes.
//!
//! # Not here
//!
//! Files, keys' whereabouts, the network and the clock (`host`); what the parts measure to (`ovmf-measure`).

pub mod cpio;
pub mod disk;
pub mod esp;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod pe;
pub mod sign;
pub mod uki;
