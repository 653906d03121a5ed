//! Any command line is refused in words, or read; and what is read is written and read back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark_guest::init::cmdline::Boot;

fuzz_target!(|bytes: &[u8]| {
    match Boot::parse(bytes) {
        Ok(boot) => assert_eq!(Boot::parse(boot.to_string().as_bytes()), Ok(boot)),
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
});
