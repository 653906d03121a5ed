//! Any hash area over any data gives a verdict or an error; a valid superblock is put in front, since chance
//! does not find one.
#![no_main]

use dm_verity_tool::{BlockSize, HashOffset, RootHash, Salt, Superblock, Uuid, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u8, u8, u16, [u8; 32], &[u8], &[u8])| {
    let (data_blocks, data_bits, hash_bits, sector, root, data, tree) = input;
    let size = |bits: u8| BlockSize::new(512 << (bits % 11)).expect("a power of two in range");
    let uuid = Uuid::from_bytes([0; 16]);
    let Ok(superblock) = Superblock::new(uuid, size(data_bits), size(hash_bits), data_blocks, Salt::default())
    else {
        return;
    };
    let offset = HashOffset::new(u64::from(sector) * 512).expect("a multiple of 512");
    let area = [&superblock.to_bytes(), tree].concat();
    let _ = verify(data, &area[..], offset, RootHash(root), 8);
});
