//! Any bytes as firmware.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ovmf_measure::fuzzing::firmware(bytes));
