//! Any list of modules, of devices, any `uevent` and any GPT header is read or refused without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark_guest::init::{modules, partition};

fuzz_target!(|bytes: &[u8]| {
    for module in modules::list(bytes).flatten() {
        assert!(module.path.starts_with('/') && !module.path.contains(char::is_whitespace));
    }
    let _ = partition::devices(bytes).count();
    let _ = (partition::device(bytes), partition::sector(bytes), partition::name(bytes));
    let index = partition::index(bytes).unwrap_or(1);
    if let Some(header) = bytes.first_chunk() {
        let _ = partition::entry(header, 4096, index);
    }
});
