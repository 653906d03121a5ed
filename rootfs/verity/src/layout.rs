//! How many blocks each level of a hash tree has, from the number of data blocks.
//!
//! # Shape
//!
//! ```text
//! fan-out = hash block size / 32
//! level 0 = ceil(data blocks / fan-out) blocks, level n + 1 = ceil(level n / fan-out), ... until 1 block
//! ```
//!
//! One data block has no levels. The levels are stored from the top one (1 block) down to level 0.
//!
//! # Source
//!
//! cryptsetup `lib/verity/verity_hash.c`, `hash_levels`; `lib/verity/verity.c`, `VERITY_hash_offset_block`.
//!
//! # Not here
//!
//! Their content: see [`crate::tree`].

use std::num::NonZeroU64;

use crate::parameters::{BlockSize, HashOffset};
use crate::superblock::Superblock;

/// The length of a digest in bytes, SHA-256.
pub(crate) const DIGEST: u32 = 32;

/// One level of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// The number of digests in the level: one for each block below it.
    pub digests: u64,
    /// The number of hash blocks for these digests.
    pub blocks: u64,
}

/// The levels of a tree, top first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    levels: Vec<Level>,
    hash_block_size: BlockSize,
}

impl Layout {
    /// Lays out the tree over this many data blocks.
    pub fn new(data_blocks: NonZeroU64, hash_block_size: BlockSize) -> Self {
        let fan_out = fan_out(hash_block_size);
        let mut levels = Vec::new();
        let mut below = data_blocks.get();
        while below > 1 {
            let level = Level { digests: below, blocks: below.div_ceil(fan_out) };
            levels.push(level);
            below = level.blocks;
        }
        levels.reverse();
        Self { levels, hash_block_size }
    }

    /// Returns the levels, top first; a single data block has none.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Counts the hash blocks of all levels, without the superblock.
    pub fn hash_blocks(&self) -> u64 {
        // At most 2^64 / 16 + 2^64 / 256 + ..., and one for each of 16 levels: below 2^61.
        self.levels.iter().map(|level| level.blocks).sum()
    }
}

/// Counts the digests in a hash block.
pub(crate) fn fan_out(hash_block_size: BlockSize) -> u64 {
    u64::from(hash_block_size.bytes() / DIGEST)
}

/// Returns the number of the first hash block of the tree, counted from the start of the file or device: the
/// first whole block after the superblock. This is `hash_start_block` of the kernel's table line.
pub(crate) fn hash_start_block(offset: HashOffset, hash_block_size: BlockSize) -> u64 {
    // The offset is below 2^63: no overflow.
    (offset.bytes() + Superblock::LENGTH as u64).div_ceil(u64::from(hash_block_size.bytes()))
}

/// Counts the bytes from the superblock's end to the tree.
pub(crate) fn padding(offset: HashOffset, hash_block_size: BlockSize) -> u64 {
    let tree = hash_start_block(offset, hash_block_size) * u64::from(hash_block_size.bytes());
    tree - offset.bytes() - Superblock::LENGTH as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(data_blocks: u64, hash_block_size: u32) -> Vec<u64> {
        let size = BlockSize::new(hash_block_size).unwrap();
        let layout = Layout::new(NonZeroU64::new(data_blocks).unwrap(), size);
        layout.levels().iter().map(|level| level.blocks).collect()
    }

    #[test]
    fn another_level_begins_past_each_power_of_the_fan_out() {
        assert_eq!(blocks(1, 4096), []);
        assert_eq!(blocks(2, 4096), [1]);
        assert_eq!(blocks(127, 4096), [1]);
        assert_eq!(blocks(128, 4096), [1]);
        assert_eq!(blocks(129, 4096), [1, 2]);
        assert_eq!(blocks(16384, 4096), [1, 128]);
        assert_eq!(blocks(16385, 4096), [1, 2, 129]);
        assert_eq!(blocks(17, 512), [1, 2]);
    }

    #[test]
    fn the_greatest_count_has_sixteen_levels_and_no_overflow() {
        assert_eq!(blocks(u64::MAX, 512).len(), 16);
        let layout = Layout::new(NonZeroU64::MAX, BlockSize::new(512).unwrap());
        assert!(layout.hash_blocks() < 1 << 61);
    }

    #[test]
    fn the_tree_starts_at_the_first_whole_block_after_the_superblock() {
        let at =
            |bytes, size| hash_start_block(HashOffset::new(bytes).unwrap(), BlockSize::new(size).unwrap());
        assert_eq!(at(0, 4096), 1);
        assert_eq!(at(0, 512), 1);
        assert_eq!(at(3584, 4096), 1);
        assert_eq!(at(4096, 4096), 2);
        assert_eq!(at(4608, 4096), 2);
        let gap = |bytes| padding(HashOffset::new(bytes).unwrap(), BlockSize::default());
        assert_eq!((gap(0), gap(3584), gap(4608)), (3584, 0, 3072));
    }
}
