//! Yields the blocks of a directory.

use super::item::Item;
use crate::erofs::format::{self, BLOCK, DIRENT_SIZE, SLOT};

/// The entries of a directory, divided into blocks.
pub(super) struct Directory<'a> {
    /// Name and item number, sorted, including `.` and `..`.
    pub(super) entries: Vec<(&'a str, usize)>,
    /// The number of entries in each block.
    pub(super) blocks: Vec<usize>,
    pub(super) size: u64,
}

impl<'a> Directory<'a> {
    pub(super) fn new(mut entries: Vec<(&'a str, usize)>) -> Self {
        entries.sort_unstable();
        let mut blocks = Vec::new();
        let (mut count, mut used) = (0, 0);
        for (name, _) in &entries {
            let need = DIRENT_SIZE + name.len();
            if used + need > BLOCK {
                blocks.push(count);
                (count, used) = (0, 0);
            }
            count += 1;
            used += need;
        }
        let size = (blocks.len() * BLOCK + used) as u64;
        blocks.push(count);
        Directory { entries, blocks, size }
    }

    /// Writes all blocks; the last one is short.
    pub(super) fn write(&self, items: &[Item<'_>], out: &mut Vec<u8>) {
        let start = out.len();
        let mut entries = self.entries.iter();
        for (index, &count) in self.blocks.iter().enumerate() {
            out.resize(start + index * BLOCK, 0);
            let mut name_at = count * DIRENT_SIZE;
            for (name, item) in entries.clone().take(count) {
                let (place, mode) = items.get(*item).map_or((0, 0), |item| (item.place, item.mode));
                out.extend((place / SLOT as u64).to_le_bytes());
                out.extend((name_at as u16).to_le_bytes());
                out.extend([file_type(mode), 0]);
                name_at += name.len();
            }
            for (name, _) in entries.by_ref().take(count) {
                out.extend(name.as_bytes());
            }
        }
    }
}

/// The `EROFS_FT_…` of a mode, which are the generic `FT_…` (`include/linux/fs_types.h`).
fn file_type(mode: u16) -> u8 {
    match mode & format::S_IFMT {
        format::S_IFREG => 1,
        format::S_IFDIR => 2,
        format::S_IFCHR => 3,
        format::S_IFBLK => 4,
        format::S_IFIFO => 5,
        format::S_IFLNK => 7,
        _ => 0,
    }
}
