//! Fuzz targets of the guest: what the init reads before it trusts anything.

use proofmark_guest::init::cmdline::Boot;
use proofmark_guest::init::{modules, partition};

use crate::Target;

/// Every target of this crate.
pub const TARGETS: [Target; 2] = [("cmdline", cmdline), ("lists", lists)];

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
