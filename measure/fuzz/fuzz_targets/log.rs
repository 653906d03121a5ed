//! Any bytes as an event log.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ovmf_measure::fuzzing::log(bytes));
