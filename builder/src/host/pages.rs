//! Yields memory for files that are read whole, in large pages where the system has them.
//!
//! A page of 4 KiB that is touched for the first time costs more than to read and to hash what it is to hold.
//!
//! # Source
//! madvise(2), `MADV_HUGEPAGE`; where the system has no such pages, the memory is as any other.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut};

/// Bytes, zero at first.
#[derive(Debug)]
pub struct Pages {
    // A mapping has no length of nothing.
    map: Option<MmapMut>,
}

impl Pages {
    /// So many bytes.
    ///
    /// # Errors
    /// When the system has no such memory.
    pub fn zeroed(length: usize) -> io::Result<Self> {
        if length == 0 {
            return Ok(Pages { map: None });
        }
        let map = MmapMut::map_anon(length)?;
        // Advice alone: a system that does not know it says so, and nothing is lost.
        let _ = map.advise(Advice::HugePage);
        Ok(Pages { map: Some(map) })
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.map.as_deref_mut().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_long_as_asked_for_zero_and_can_be_written() {
        for length in [0, 1, 4096, (2 << 20) + 5] {
            let mut pages = Pages::zeroed(length).unwrap();
            assert_eq!(pages.len(), length);
            assert!(pages.iter().all(|byte| *byte == 0));
            pages.fill(7);
            assert!(pages.iter().all(|byte| *byte == 7));
        }
        assert!(Pages::zeroed(isize::MAX as usize).is_err());
    }
}
