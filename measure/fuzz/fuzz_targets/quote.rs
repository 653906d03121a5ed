//! Any bytes as a quote, and as a TDREPORT.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ovmf_measure::fuzzing::quote(bytes));
