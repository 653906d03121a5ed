//! Yields memory for files that are read whole, in large pages where the system has them.
//!
//! A page of 4 KiB that is touched for the first time costs more than to read and to hash what it is to hold.
//!
//! # Source
//! madvise(2), `MADV_HUGEPAGE`; where the system has no such pages, the memory is as any other.

use std::fs::File;
use std::io::{self, Read, Seek};
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

    /// What a file holds from where it stands on; of a pipe, all that comes.
    ///
    /// # Errors
    /// When it cannot be read, and when it becomes shorter meanwhile.
    pub fn rest(file: &mut File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        // What is no file says nothing of its length.
        if !metadata.is_file() {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let mut pages = Pages::zeroed(bytes.len())?;
            pages.copy_from_slice(&bytes);
            return Ok(pages);
        }
        let length = metadata.len().saturating_sub(file.stream_position()?);
        let mut pages = Pages::zeroed(usize::try_from(length).unwrap_or(usize::MAX))?;
        file.read_exact(&mut pages)?;
        Ok(pages)
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
    use std::io::{SeekFrom, Write};
    use std::os::fd::OwnedFd;

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

    #[test]
    fn a_file_is_read_from_where_it_stands_and_a_pipe_to_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        for (from, rest) in [(0, &b"0123456789"[..]), (4, b"456789"), (10, b""), (12, b"")] {
            file.seek(SeekFrom::Start(from)).unwrap();
            assert_eq!(&*Pages::rest(&mut file).unwrap(), rest);
        }
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"piped").unwrap();
        drop(writer);
        assert_eq!(&*Pages::rest(&mut File::from(OwnedFd::from(reader))).unwrap(), b"piped");
    }

    #[test]
    fn a_folder_and_a_file_that_cannot_be_read_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let failed = Pages::rest(&mut File::open(folder.path()).unwrap()).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::IsADirectory);
        let path = folder.path().join("written");
        std::fs::write(&path, "x").unwrap();
        let mut write_only = File::options().write(true).open(&path).unwrap();
        assert!(Pages::rest(&mut write_only).is_err());
    }
}
