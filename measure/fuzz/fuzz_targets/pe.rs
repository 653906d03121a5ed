//! Any bytes as a PE image, and as a UKI.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ovmf_measure::fuzzing::pe(bytes));
