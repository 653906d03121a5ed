//! Yields durable files under one folder, by the few operations whose order makes a log safe against crashes.
//!
//! # Shape
//! ```text
//! write     a file beside its place: its bytes, then fsync
//! rename    it to its place, in one step
//! settle    fsync of a folder: renames in it last from here on
//! ```
//! A reader sees a file's old bytes or its new ones. After a loss of power, what was not settled may be undone.
//!
//! # Not here
//! Which files, and in which order: `directory`. Tests put another medium there, which fails at any operation.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes: a bundle of entries has up to 17 MiB.
const MOST_BYTES: u64 = 64 << 20;

/// Operations on files under a folder; paths are relative to it.
pub trait Medium {
    /// The bytes of a file; `None` when there is none.
    ///
    /// # Errors
    /// What the file system says.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// Makes a folder, with those above it, and settles where it is named.
    ///
    /// # Errors
    /// What the file system says.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Writes a file whole, and has it written to the disk; what was there is gone.
    ///
    /// # Errors
    /// What the file system says; then part of the bytes may be there.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Gives a file another name, in place of what had it.
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file away.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Has a folder's names written to the disk.
    ///
    /// # Errors
    /// What the file system says.
    fn settle(&self, folder: &Path) -> io::Result<()>;
}

/// Files of this machine.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Files under a folder.
    pub fn new(root: &Path) -> Self {
        Disk { root: root.to_owned() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Medium for Disk {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.root.join(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than 64 MiB"));
        }
        Ok(Some(bytes))
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut made = self.root.clone();
        for part in path.components() {
            let above = made.clone();
            made.push(part);
            match fs::create_dir(&made) {
                Ok(()) => File::open(&above)?.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(self.root.join(path))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.root.join(path))
    }

    fn settle(&self, folder: &Path) -> io::Result<()> {
        File::open(self.root.join(folder))?.sync_all()
    }
}
