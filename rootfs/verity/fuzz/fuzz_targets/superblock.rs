//! Any 512 bytes are refused, or are exactly what their superblock is written as.
#![no_main]

use dm_verity_tool::Superblock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(superblock) = Superblock::from_bytes(bytes) {
        assert_eq!(Some(superblock.to_bytes().as_slice()), bytes.get(..Superblock::LENGTH));
    }
});
