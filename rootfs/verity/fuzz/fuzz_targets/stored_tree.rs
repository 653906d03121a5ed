#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dm_verity_tool::fuzzing::stored_tree(bytes));
