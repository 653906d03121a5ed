//! Yields memory for files that are read whole, in large pages where the system has them.
//!
//! A page of 4 KiB that is touched for the first time costs more than to read and to hash what it is to hold.
//!
//! # Source
//! madvise(2), `MADV_HUGEPAGE`; where the system has no such pages, the memory is as any other.

use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, DerefMut};
use std::path::Path;

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

    /// What a file holds; of a pipe, all that comes.
    ///
    /// # Errors
    /// When it cannot be read, and when it becomes shorter meanwhile.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        // What is no file says nothing of its length.
        if !metadata.is_file() {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let mut pages = Pages::zeroed(bytes.len())?;
            pages.copy_from_slice(&bytes);
            return Ok(pages);
        }
        let mut pages = Pages::zeroed(usize::try_from(metadata.len()).unwrap_or(usize::MAX))?;
        file.read_exact(&mut pages)?;
        Ok(pages)
    }
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        self
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
    use std::io::Write;
    use std::os::fd::AsRawFd;

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
    fn a_file_and_a_pipe_are_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for content in [&b""[..], b"0123456789"] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(*Pages::read(&path).unwrap(), *content);
        }
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"piped").unwrap();
        drop(writer);
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        assert_eq!(*Pages::read(Path::new(&path)).unwrap(), *b"piped");
    }

    #[test]
    fn a_folder_and_a_file_that_is_not_there_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |path: &Path| Pages::read(path).unwrap_err().kind();
        assert_eq!(kind(folder.path()), io::ErrorKind::IsADirectory);
        assert_eq!(kind(&folder.path().join("none")), io::ErrorKind::NotFound);
    }
}
