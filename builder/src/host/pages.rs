//! Yields memory for files that are read whole, in huge pages where the system has them.
//!
//! The first touch of a 4 KiB page costs more than reading and hashing its content.
//!
//! # Source
//! madvise(2), `MADV_HUGEPAGE`; on systems without huge pages, the memory is ordinary.

use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, DerefMut};
use std::path::Path;

use memmap2::{Advice, MmapMut};

/// A buffer, initially zero.
#[derive(Debug)]
pub struct Pages {
    // `None` if empty: a mapping cannot have length 0.
    map: Option<MmapMut>,
}

impl Pages {
    /// Allocates `length` zero bytes.
    ///
    /// # Errors
    /// When the system has not enough memory.
    pub fn zeroed(length: usize) -> io::Result<Self> {
        if length == 0 {
            return Ok(Pages { map: None });
        }
        let map = MmapMut::map_anon(length)?;
        // Only advice: a system without huge pages returns an error, and nothing is lost.
        let _ = map.advise(Advice::HugePage);
        Ok(Pages { map: Some(map) })
    }

    /// Reads a file whole; a pipe to its end.
    ///
    /// # Errors
    /// When it cannot be read, or becomes shorter while being read.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        // Only a regular file knows its length.
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
