//! Yields durable files under one folder, through the few operations whose order makes a log crash-safe.
//!
//! # Shape
//! ```text
//! write     a file's bytes under a temporary name, then fsync
//! rename    the file into place, in one step
//! settle    fsync of a folder: earlier renames in it are durable from here on
//! ```
//! A reader sees a file's old bytes or its new ones. After a power loss, anything not settled may be undone.
//!
//! # Not here
//! Which files, and in which order: `directory`. Tests use a medium that fails at any operation.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes: a bundle of entries has up to 17 MiB.
const MOST_BYTES: u64 = 64 << 20;

/// Operations on files under a folder; paths are relative to it.
pub trait Medium {
    /// Returns the bytes of a file; `None` if it does not exist.
    ///
    /// # Errors
    /// The file system's error.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// Makes a folder and its parents, and settles the folders that name them.
    ///
    /// # Errors
    /// The file system's error.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Writes and syncs a whole file, replacing its old content.
    ///
    /// # Errors
    /// The file system's error; part of the bytes may then be written.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Renames a file, replacing any file with the new name.
    ///
    /// # Errors
    /// The file system's error.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The file system's error.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Syncs the names in a folder to disk.
    ///
    /// # Errors
    /// The file system's error.
    fn settle(&self, folder: &Path) -> io::Result<()>;
}

/// Files of this machine.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Uses the files under a folder.
    pub fn new(root: &Path) -> Self {
        Disk { root: root.to_owned() }
    }

    /// Returns the folder.
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
