//! Keeps beside a lock what others signed about its inputs: they forget it, and nobody can sign it again.
//!
//! # Shape
//! ```text
//! recipe.lock                 names each document by path, size and SHA-256
//! recipe.lock.d/ARCHIVE/PATH  the document: InRelease files, and what npm registries attest
//! ```
//! Laid out as a vendored folder is, and a part of the lock: committed with it, complete, and nothing else in it.
//!
//! # Not here
//! Whether the documents are right: `resolve::inrelease`, `claim::attestation`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use rootfs::content::Sha256Digest;

use super::files;
use super::store::{self, Store};
use crate::lock::{Blob, Lock};

/// Why documents are not beside a lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store lacks one.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The file system refuses.
    #[error("cannot {deed} {}", path.display())]
    Io {
        /// What was to be done.
        deed: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is there is not what the lock names.
    #[error("{} is missing, or not what the lock names", path.display())]
    Other {
        /// The document.
        path: PathBuf,
    },
    /// There is something that the lock does not name.
    #[error("{} is not named by the lock", path.display())]
    Unnamed {
        /// The file.
        path: PathBuf,
    },
}

/// The folder of a lock's documents.
pub fn folder(lock: &Path) -> PathBuf {
    let mut name = lock.as_os_str().to_owned();
    name.push(".d");
    PathBuf::from(name)
}

/// Where a document is in such a folder.
pub fn place(folder: &Path, blob: &Blob) -> PathBuf {
    folder.join(blob.archive.name()).join(&blob.path)
}

/// Writes the documents that a lock names from the store to its folder.
///
/// # Errors
/// [`Error::Store`], [`Error::Io`].
pub fn write(lock: &Lock, folder: &Path, store: &Store) -> Result<(), Error> {
    for blob in lock.blobs_to_carry() {
        let path = place(folder, &blob);
        if !fits(&path, &blob)? {
            let bytes = store.read(&blob.sha256, &blob.label)?;
            files::write(&path, &bytes).map_err(|source| Error::Io { deed: "write", path, source })?;
        }
    }
    Ok(())
}

/// Removes from the folder what a lock does not name: to be done once the lock is written.
///
/// # Errors
/// [`Error::Io`].
pub fn sweep(lock: &Lock, folder: &Path) -> Result<(), Error> {
    let named = named(lock, folder);
    walk(folder, &mut |path| {
        if named.contains(path) {
            return Ok(());
        }
        let removed = std::fs::remove_file(path);
        removed.map_err(|source| Error::Io { deed: "remove", path: path.to_owned(), source })
    })
}

/// Checks that the folder has all documents that a lock names, and nothing else.
///
/// # Errors
/// [`Error::Other`], [`Error::Unnamed`], [`Error::Io`].
pub fn check(lock: &Lock, folder: &Path) -> Result<(), Error> {
    for blob in lock.blobs_to_carry() {
        let path = place(folder, &blob);
        if !fits(&path, &blob)? {
            return Err(Error::Other { path });
        }
    }
    let named = named(lock, folder);
    walk(folder, &mut |path| match named.contains(path) {
        true => Ok(()),
        false => Err(Error::Unnamed { path: path.to_owned() }),
    })
}

fn named(lock: &Lock, folder: &Path) -> BTreeSet<PathBuf> {
    lock.blobs_to_carry().iter().map(|blob| place(folder, blob)).collect()
}

/// Whether a file has the bytes that it should.
fn fits(path: &Path, blob: &Blob) -> Result<bool, Error> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() != blob.size => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        _ => {}
    }
    match std::fs::read(path) {
        Ok(bytes) => Ok(Sha256Digest::of(&bytes) == blob.sha256),
        Err(source) => Err(Error::Io { deed: "read", path: path.to_owned(), source }),
    }
}

/// Visits every file below a folder, which need not be there.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let wrong = |source| Error::Io { deed: "read", path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(wrong(error)),
    };
    for entry in entries {
        let entry = entry.map_err(wrong)?;
        let path = entry.path();
        if entry.file_type().map_err(wrong)?.is_dir() {
            walk(&path, visit)?;
        } else {
            visit(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::store::Expected;
    use super::*;

    /// A lock with one archive and one attested package, a store that has their documents, and a folder.
    fn world() -> (Lock, Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let mut lock = crate::lock::tests::sample();
        let keep = |mut bytes: &[u8]| {
            let expected = Expected::AtMost(64);
            store.insert(&mut bytes, &expected, &|_| {}).unwrap().0.to_string()
        };
        lock.archives.truncate(1);
        (lock.archives[0].sha256, lock.archives[0].size) = (keep(b"release"), 7);
        lock.npm.truncate(1);
        (lock.npm[0].attestations, lock.npm[0].attestations_size) = (keep(b"attested"), 8);
        (lock, store, folder)
    }

    #[test]
    fn what_a_lock_names_is_written_and_what_it_does_not_is_removed() {
        let (lock, store, folder) = world();
        let beside = self::folder(&folder.path().join("recipe.lock"));
        assert!(beside.ends_with("recipe.lock.d"));
        assert!(matches!(check(&lock, &beside), Err(Error::Other { .. })));
        write(&lock, &beside, &store).unwrap();
        check(&lock, &beside).unwrap();
        let release = beside.join("debian").join(&lock.archives[0].path);
        assert_eq!(std::fs::read(&release).unwrap(), b"release");
        let attested = beside.join("npm").join(lock.npm[0].attestations_path());
        assert_eq!(std::fs::read(&attested).unwrap(), b"attested");

        // Of the same size, of another, and one too many.
        std::fs::write(&release, b"Release").unwrap();
        let error = check(&lock, &beside).unwrap_err();
        assert!(matches!(&error, Error::Other { path } if *path == release), "{error}");
        std::fs::write(&attested, b"").unwrap();
        write(&lock, &beside, &store).unwrap();
        check(&lock, &beside).unwrap();
        let stale = beside.join("debian/dists/older/InRelease");
        std::fs::create_dir_all(stale.parent().unwrap()).unwrap();
        std::fs::write(&stale, b"older").unwrap();
        let error = check(&lock, &beside).unwrap_err();
        assert!(matches!(&error, Error::Unnamed { path } if *path == stale), "{error}");
        sweep(&lock, &beside).unwrap();
        assert!(!stale.exists());
        check(&lock, &beside).unwrap();
    }

    #[test]
    fn what_the_store_lacks_cannot_be_written() {
        let (mut lock, store, folder) = world();
        lock.archives[0].sha256 = "00".repeat(32);
        let error = write(&lock, folder.path(), &store).unwrap_err();
        assert!(matches!(error, Error::Store(_)), "{error}");
        std::fs::write(folder.path().join("debian"), b"no folder").unwrap();
        let (lock, ..) = world();
        let error = write(&lock, folder.path(), &store).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}
