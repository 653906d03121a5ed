//! Yields free space: slots for inodes, and blocks for data.

use std::collections::BTreeSet;

use super::Error;
use crate::erofs::format::{BLOCK, SLOT};

/// Allocates space for inodes: an inode of at most one block never crosses a block boundary; each goes into the
/// smallest gap that fits.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) end: u64,
    /// Free bytes at the end of a block, and that block's end.
    gaps: BTreeSet<(usize, u64)>,
}

impl Slots {
    pub(super) fn place(&mut self, len: usize) -> u64 {
        let len = len.next_multiple_of(SLOT);
        let gap = self.gaps.range((len, 0)..).next().copied();
        let (free, end) = gap.unwrap_or_else(|| {
            let room = len.next_multiple_of(BLOCK);
            self.end += room as u64;
            (room, self.end)
        });
        self.gaps.remove(&(free, end));
        if free > len {
            self.gaps.insert((free - len, end));
        }
        end - free as u64
    }
}

/// Allocates blocks in order.
pub(super) struct Blocks(pub(super) u64);

impl Blocks {
    pub(super) fn take(&mut self, len: u64) -> Result<u32, Error> {
        let first = u32::try_from(self.0).map_err(|_| Error::TooLarge)?;
        self.0 += len.div_ceil(BLOCK as u64);
        if self.0 > u64::from(u32::MAX) { Err(Error::TooLarge) } else { Ok(first) }
    }
}
