//! Yields a disk's file and its digest from its bytes in order: one thread writes and hashes in parallel.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rootfs::content::Sha256Digest;
use sha2::{Digest, Sha256};

use crate::pipeline::DiskSink;

/// Parts of the disk that may queue for the thread: bounds memory.
const WAITING: usize = 8;

enum Part {
    Bytes(Vec<u8>),
    Zeros(u64),
}

/// A disk that is being written.
#[derive(Debug)]
pub struct DiskFile {
    parts: Option<SyncSender<Part>>,
    thread: Option<JoinHandle<io::Result<(u64, Sha256Digest)>>>,
}

impl DiskFile {
    /// Creates the file, which must not exist.
    ///
    /// # Errors
    /// The file system's error.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::create_new(path)?;
        let (parts, receiver) = sync_channel(WAITING);
        let thread =
            std::thread::Builder::new().name("disk".to_owned()).spawn(move || take(&file, &receiver))?;
        Ok(DiskFile { parts: Some(parts), thread: Some(thread) })
    }

    /// Waits until everything is written and synced; returns size and digest.
    ///
    /// # Errors
    /// What the file system said.
    pub fn finish(mut self) -> io::Result<(u64, Sha256Digest)> {
        self.join()
    }

    fn join(&mut self) -> io::Result<(u64, Sha256Digest)> {
        drop(self.parts.take());
        let Some(thread) = self.thread.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that writes the disk panicked")))
    }

    fn send(&mut self, part: Part) -> io::Result<()> {
        let sent = self.parts.as_ref().is_some_and(|parts| parts.send(part).is_ok());
        if sent {
            return Ok(());
        }
        // The thread ended early and holds the cause.
        self.join().and(Err(io::ErrorKind::BrokenPipe.into()))
    }
}

impl Write for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(Part::Bytes(bytes.to_vec()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskSink for DiskFile {
    fn zeros(&mut self, bytes: u64) -> io::Result<()> {
        self.send(Part::Zeros(bytes))
    }
}

fn take(file: &File, parts: &Receiver<Part>) -> io::Result<(u64, Sha256Digest)> {
    static ZEROS: [u8; 65536] = [0; 65536];
    let mut hasher = Sha256::new();
    let mut at = 0;
    while let Ok(part) = parts.recv() {
        match part {
            Part::Bytes(bytes) => {
                file.write_all_at(&bytes, at)?;
                hasher.update(&bytes);
                at += bytes.len() as u64;
            }
            Part::Zeros(count) => {
                let mut left = count;
                while left > 0 {
                    let step = left.min(ZEROS.len() as u64);
                    hasher.update(ZEROS.get(..step as usize).unwrap_or(&ZEROS));
                    left -= step;
                }
                at += count;
            }
        }
    }
    file.set_len(at)?;
    file.sync_all()?;
    Ok((at, Sha256Digest(hasher.finalize().into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_written_with_its_holes_and_hashed_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        let mut disk = DiskFile::create(&path).unwrap();
        disk.write_all(b"head").unwrap();
        disk.zeros(100_000).unwrap();
        disk.write_all(b"tail").unwrap();
        disk.zeros(3).unwrap();
        let (size, digest) = disk.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(size, 100_011);
        assert_eq!(bytes.len() as u64, size);
        assert_eq!((&bytes[..4], &bytes[100_004..100_008]), (&b"head"[..], &b"tail"[..]));
        assert_eq!(digest, Sha256Digest::of(&bytes));
    }

    #[test]
    fn a_disk_that_cannot_be_written_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(DiskFile::create(&folder.path().join("none/disk.raw")).is_err());
        let mut disk = DiskFile::create(Path::new("/dev/full")).err();
        assert_eq!(disk.take().unwrap().kind(), io::ErrorKind::AlreadyExists);
    }
}
