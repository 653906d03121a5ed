//! Yields fetched files by their digest, and data derived from them.
//!
//! # Shape
//! ```text
//! STORE/blobs/sha256/ab/abcd…      a fetched file
//! STORE/sri/sha512/ab/abcd…        its SHA-256, by its SHA-512, which npm's locks use
//! STORE/derived/<kind>/ab/abcd…    made from blobs; may be deleted at any time
//! ```
//!
//! # Not here
//! Fetching: `host::fetch`.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rootfs::content::{Blob, Sha256Digest};
use sha2::{Digest, Sha256, Sha512};

use super::pages::Pages;
use crate::advice::{Advice, Advised};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system operation failed.
    #[error("cannot {deed} {}", path.display())]
    Io {
        /// The operation that failed.
        deed: &'static str,
        /// The path it failed on.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// A file does not match its name. It has been removed.
    #[error("{label} was damaged in the store: expected SHA-256 {expected}, found {found}; it is removed")]
    Damaged {
        /// Name of the file, for messages.
        label: String,
        /// The expected digest.
        expected: Sha256Digest,
        /// The actual digest.
        found: Sha256Digest,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        let Error::Damaged { .. } = self else { return None };
        Some(Advice::failed("run the command again to fetch it again"))
    }
}

/// Why a file cannot be added to the store.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// Its size differs.
    #[error("expected {expected} bytes, found {}{found}", if *.more { "more than " } else { "" })]
    Size {
        /// The expected size.
        expected: u64,
        /// The number of bytes read.
        found: u64,
        /// Whether there were more bytes.
        more: bool,
    },
    /// Its digest differs.
    #[error("expected {expected}, found {found}")]
    Digest {
        /// The expected digest.
        expected: String,
        /// The actual digest.
        found: String,
    },
    /// Its source failed.
    #[error("{0}")]
    Source(io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What is known about a file before it arrives.
#[derive(Debug, Clone)]
pub enum Expected {
    /// Its SHA-256 and size.
    Sha256(Sha256Digest, u64),
    /// Its SHA-512 and a maximum size.
    Sha512([u8; 64], u64),
    /// Only a maximum size: the file is signed, and the caller verifies it.
    AtMost(u64),
}

impl Expected {
    /// Returns the maximum size.
    pub fn at_most(&self) -> u64 {
        match self {
            Expected::Sha256(_, size) | Expected::Sha512(_, size) | Expected::AtMost(size) => *size,
        }
    }
}

/// A folder of files named by their digest.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store in `root`, and creates it if it does not exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(root: &Path) -> Result<Self, Error> {
        for part in ["blobs/sha256", "sri/sha512", "derived", "temporary"] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(|source| Error::Io { deed: "make", path, source })?;
        }
        sweep(&root.join("temporary"));
        Ok(Store { root: root.to_owned() })
    }

    /// Returns the store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn place(&self, kind: &str, hex: &str) -> PathBuf {
        self.root.join(kind).join(hex.get(..2).unwrap_or("")).join(hex)
    }

    /// Returns the path for a file with this digest, which may not exist.
    pub fn path(&self, digest: &Sha256Digest) -> PathBuf {
        self.place("blobs/sha256", &digest.to_string())
    }

    /// Tells whether a file of this digest and size is in the store. Its bytes are checked when read.
    pub fn has(&self, digest: &Sha256Digest, size: u64) -> bool {
        fs::metadata(self.path(digest)).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// Returns the SHA-256 and size of the file with this SHA-512, if the store has it.
    pub fn find_sha512(&self, digest: &[u8; 64]) -> Option<(Sha256Digest, u64)> {
        let text = fs::read_to_string(self.place("sri/sha512", &hex::encode(digest))).ok()?;
        let sha256 = Sha256Digest::parse(text.trim())?;
        let size = fs::metadata(self.path(&sha256)).ok()?.len();
        Some((sha256, size))
    }

    /// Returns the bytes of a file. `label` is for messages.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Damaged`] when it does not match its name: it is then removed.
    pub fn read(&self, digest: &Sha256Digest, label: &str) -> Result<Blob, Error> {
        let path = self.path(digest);
        let bytes =
            fs::read(&path).map_err(|source| Error::Io { deed: "read", path: path.clone(), source })?;
        let found = Sha256Digest::of(&bytes);
        if found != *digest {
            // The next user fetches it again.
            fs::remove_file(&path).map_err(|source| Error::Io { deed: "remove", path, source })?;
            return Err(Error::Damaged { label: label.to_owned(), expected: *digest, found });
        }
        Ok(Blob::new(bytes))
    }

    /// Adds the bytes of `reader` to the store, if they match; tells `progress` the length of each part.
    ///
    /// # Errors
    /// [`InsertError`]; then nothing was added.
    pub fn insert(
        &self,
        reader: &mut dyn Read,
        expected: &Expected,
        progress: &dyn Fn(u64),
    ) -> Result<(Sha256Digest, u64), InsertError> {
        let folder = self.root.join("temporary");
        let io = |deed, path: &Path, source| Error::Io { deed, path: path.to_owned(), source };
        let mut file = tempfile::Builder::new()
            .tempfile_in(&folder)
            .map_err(|source| io("write in", &folder, source))?;
        let limit = expected.at_most();
        let (mut sha256, mut sha512) = (Sha256::new(), Sha512::new());
        let mut buffer = vec![0; 128 * 1024];
        let mut size = 0u64;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(InsertError::Source(error)),
            };
            size += count as u64;
            if size > limit {
                return Err(InsertError::Size { expected: limit, found: limit, more: true });
            }
            let part = buffer.get(..count).unwrap_or(&[]);
            sha256.update(part);
            if matches!(expected, Expected::Sha512(..)) {
                sha512.update(part);
            }
            file.write_all(part).map_err(|source| io("write", file.path(), source))?;
            progress(count as u64);
        }
        let digest = Sha256Digest(sha256.finalize().into());
        match expected {
            Expected::Sha256(_, expected) if size != *expected => {
                return Err(InsertError::Size { expected: *expected, found: size, more: false });
            }
            Expected::Sha256(expected, _) if digest != *expected => {
                let (expected, found) = (format!("SHA-256 {expected}"), digest.to_string());
                return Err(InsertError::Digest { expected, found });
            }
            Expected::Sha512(expected, _) => {
                let found: [u8; 64] = sha512.finalize().into();
                if found != *expected {
                    let expected = format!("SHA-512 {}", hex::encode(expected));
                    return Err(InsertError::Digest { expected, found: hex::encode(found) });
                }
                let path = self.place("sri/sha512", &hex::encode(found));
                super::files::write(&path, digest.to_string().as_bytes())
                    .map_err(|source| io("write", &path, source))?;
            }
            _ => {}
        }
        let path = self.path(&digest);
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(|source| io("make", folder, source))?;
        file.as_file().sync_all().map_err(|source| io("write", &path, source))?;
        file.persist(&path).map_err(|error| io("write", &path, error.error))?;
        Ok((digest, size))
    }

    /// Returns the data derived under this key, if any.
    pub fn derived(&self, kind: &str, key: &Sha256Digest) -> Option<Pages> {
        Pages::read(&self.place(&format!("derived/{kind}"), &key.to_string())).ok()
    }

    /// Keeps data derived under this key. Failure is silent: a cache that cannot be written only costs time.
    pub fn keep_derived(&self, kind: &str, key: &Sha256Digest, bytes: &[u8]) {
        let path = self.place(&format!("derived/{kind}"), &key.to_string());
        let kept = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder)?;
            let mut file = tempfile::Builder::new().tempfile_in(self.root.join("temporary"))?;
            file.write_all(bytes)?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        let _ = kept();
    }
}

/// Deletes what killed runs left behind: no fetch stands still for a day. Other containers may use the store
/// too, so process IDs mean nothing here.
fn sweep(folder: &Path) {
    const LEFT_BEHIND: Duration = Duration::from_secs(24 * 60 * 60);
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > LEFT_BEHIND)) {
            // A leftover is untidy, not wrong: failing to delete it does not fail this run.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    fn files(store: &Store) -> usize {
        let count = |path: PathBuf| fs::read_dir(path).unwrap().count();
        count(store.root().join("blobs/sha256")) + count(store.root().join("temporary"))
    }

    fn insert(store: &Store, bytes: &[u8], expected: Expected) -> Result<(Sha256Digest, u64), InsertError> {
        store.insert(&mut &bytes[..], &expected, &|_| {})
    }

    #[test]
    fn what_is_expected_is_taken_and_read_back() {
        let (_folder, store) = store();
        let digest = Sha256Digest::of(b"hello");
        assert!(!store.has(&digest, 5));
        insert(&store, b"hello", Expected::Sha256(digest, 5)).unwrap();
        assert!(store.has(&digest, 5));
        assert_eq!(&*store.read(&digest, "hello").unwrap(), b"hello");
        let sha512: [u8; 64] = Sha512::digest(b"world").into();
        assert_eq!(store.find_sha512(&sha512), None);
        insert(&store, b"world", Expected::Sha512(sha512, 100)).unwrap();
        assert_eq!(store.find_sha512(&sha512), Some((Sha256Digest::of(b"world"), 5)));
    }

    #[test]
    fn what_is_not_expected_leaves_no_trace() {
        let (_folder, store) = store();
        let digest = Sha256Digest::of(b"hello");
        for (bytes, expected, part) in [
            (&b"hell"[..], Expected::Sha256(digest, 5), "expected 5 bytes, found 4"),
            (b"hello!", Expected::Sha256(digest, 5), "expected 5 bytes, found more than 5"),
            (b"hallo", Expected::Sha256(digest, 5), "expected SHA-256"),
            (b"hello", Expected::Sha512([0; 64], 5), "expected SHA-512"),
            (b"hello", Expected::AtMost(4), "more than 4"),
        ] {
            let error = insert(&store, bytes, expected).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert_eq!(files(&store), 0);
        }
    }

    #[test]
    fn a_source_that_breaks_leaves_no_trace() {
        struct Breaks;
        impl Read for Breaks {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("line is dead"))
            }
        }
        let (_folder, store) = store();
        let error = store.insert(&mut Breaks, &Expected::AtMost(9), &|_| {}).unwrap_err();
        assert_eq!(error.to_string(), "line is dead");
        assert_eq!(files(&store), 0);
    }

    #[test]
    fn a_damaged_file_is_refused_and_removed() {
        let (_folder, store) = store();
        let digest = Sha256Digest::of(b"hello");
        insert(&store, b"hello", Expected::Sha256(digest, 5)).unwrap();
        fs::write(store.path(&digest), b"hallo").unwrap();
        assert!(matches!(store.read(&digest, "x 1"), Err(Error::Damaged { label, .. }) if label == "x 1"));
        assert!(!store.has(&digest, 5));
        fs::write(store.path(&digest), b"hell").unwrap();
        assert!(!store.has(&digest, 5));
    }

    #[test]
    fn what_a_killed_run_left_is_swept_away_after_a_day() {
        let (_folder, store) = store();
        for (name, hours) in [("old", 25), ("new", 1)] {
            let file = fs::File::create(store.root().join("temporary").join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
        }
        Store::open(store.root()).unwrap();
        let left = fs::read_dir(store.root().join("temporary")).unwrap();
        assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["new"]);
    }

    #[test]
    fn derived_files_come_back_under_their_key() {
        let (_folder, store) = store();
        let key = Sha256Digest::of(b"key");
        assert!(store.derived("layer", &key).is_none());
        store.keep_derived("layer", &key, b"value");
        assert_eq!(*store.derived("layer", &key).unwrap(), *b"value");
    }
}
