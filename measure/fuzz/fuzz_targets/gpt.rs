//! Any bytes as the start of a disk, and as a system partition.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ovmf_measure::fuzzing::gpt(bytes));
