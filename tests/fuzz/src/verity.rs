//! Fuzz targets of dm-verity-tool: superblocks and hash trees.

use dm_verity_tool::{BlockSize, HashOffset, RootHash, Salt, Superblock, Uuid, verify};

use crate::Target;

/// Every target of this crate.
pub const TARGETS: [Target; 2] = [("stored_tree", stored_tree), ("superblock", superblock)];

/// Reads bytes as a superblock, and writes it back.
pub fn superblock(bytes: &[u8]) {
    if let Ok(superblock) = Superblock::from_bytes(bytes) {
        assert_eq!(Some(superblock.to_bytes().as_slice()), bytes.get(..Superblock::LENGTH));
    }
}

/// Checks any data against any hash area. A valid superblock comes first, since chance does not find one.
///
/// The input: number of data blocks (8 bytes), data and hash block sizes (a byte each, 512 shifted left by it
/// modulo 11), hash offset in sectors (2), root hash (32), length of the data (2), the data, the tree. Integers are
/// little-endian.
pub fn stored_tree(bytes: &[u8]) {
    let Some((data_blocks, rest)) = bytes.split_first_chunk() else { return };
    let Some(([data_bits, hash_bits], rest)) = rest.split_first_chunk() else { return };
    let Some((sector, rest)) = rest.split_first_chunk() else { return };
    let Some((root, rest)) = rest.split_first_chunk() else { return };
    let Some((length, rest)) = rest.split_first_chunk() else { return };
    let (data, tree) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));

    let size = |bits: &u8| BlockSize::new(512 << (bits % 11)).expect("a power of two in range");
    let uuid = Uuid::from_bytes([0; 16]);
    let data_blocks = u64::from_le_bytes(*data_blocks);
    let made = Superblock::new(uuid, size(data_bits), size(hash_bits), data_blocks, Salt::default());
    let Ok(superblock) = made else { return };
    let offset = u64::from(u16::from_le_bytes(*sector)) * 512;
    let offset = HashOffset::new(offset).expect("a multiple of 512");
    let area = [&superblock.to_bytes(), tree].concat();
    let _ = verify(data, &area[..], offset, RootHash(*root), 8);
}
