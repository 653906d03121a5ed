//! The bodies of the fuzz targets: any bytes are read or refused; a panic is a bug.
//!
//! # Not here
//!
//! The fuzzer, which `ci/fuzz` runs; seeds are in `fuzz/seeds`. The init itself: this file is not part of its program.

use crate::init::cmdline::Boot;
use crate::init::{modules, partition};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// Every target, by the name of its seeds.
pub const TARGETS: [(&str, Target); 2] = [("cmdline", cmdline), ("lists", lists)];

/// Reads bytes as a command line; what is read is written and read back the same.
pub fn cmdline(bytes: &[u8]) {
    match Boot::parse(bytes) {
        Ok(boot) => assert_eq!(Boot::parse(boot.to_string().as_bytes()), Ok(boot)),
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}

/// Reads bytes as a list of modules, as lists and files of block devices, and as a GPT header.
pub fn lists(bytes: &[u8]) {
    for module in modules::list(bytes).flatten() {
        assert!(module.path.starts_with('/') && !module.path.contains(char::is_whitespace));
    }
    let _ = partition::devices(bytes).count();
    let _ = (partition::device(bytes), partition::sector(bytes), partition::name(bytes));
    let index = partition::index(bytes).unwrap_or(1);
    if let Some(header) = bytes.first_chunk() {
        let _ = partition::entry(header, 4096, index);
    }
}

#[cfg(test)]
mod tests;
