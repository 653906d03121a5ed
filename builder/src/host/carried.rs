//! Keeps signed documents about a lock's inputs beside it: issuers drop them, and cannot sign them again.
//!
//! # Shape
//! ```text
//! recipe.lock                 names each document by path, size and SHA-256
//! recipe.lock.d/ARCHIVE/PATH  the document: InRelease files, and npm attestations
//! ```
//! The layout is that of a vendored folder. The folder is part of the lock: committed with it, complete,
//! nothing else in it.
//!
//! # Not here
//! Whether the documents are valid: `trust::debian::inrelease`, `trust::attestation`.

use std::collections::BTreeMap;
use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use rootfs::content::Sha256Digest;

use super::files::{self, NewFolder};
use super::store::{self, Store};
use crate::advice::{Advice, Advised};
use crate::lock::{Blob, Lock};

/// Why a lock's documents cannot be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store lacks a document.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file system operation failed.
    #[error("cannot {deed} {}", path.display())]
    Io {
        /// The operation that failed.
        deed: &'static str,
        /// The path it failed on.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A document is missing, or does not match the lock.
    #[error("{} is missing or does not match the lock", path.display())]
    Other {
        /// The document.
        path: PathBuf,
    },
    /// A new lock would replace the folder, which holds a file that is not a document of any lock.
    #[error("{} is not a document of the lock, and would be lost when `proofmark lock` replaces its folder", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The folder holds a file that the lock does not name.
    #[error("{} is not named by the lock", path.display())]
    Unnamed {
        /// The file.
        path: PathBuf,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        Some(Advice::failed(match self {
            Error::Foreign { .. } => {
                "move it elsewhere: the folder holds only what others signed about the lock's inputs"
            }
            Error::Other { .. } | Error::Unnamed { .. } => {
                "the folder beside the lock is part of it: undo the changes there, or run `proofmark lock` \
                 on the recipe for a new lock"
            }
            _ => return None,
        }))
    }
}

/// Returns the folder of a lock's documents.
pub fn folder(lock: &Path) -> PathBuf {
    let mut name = lock.as_os_str().to_owned();
    name.push(".d");
    PathBuf::from(name)
}

/// Returns the path of a document in such a folder.
pub fn place(folder: &Path, blob: &Blob) -> PathBuf {
    folder.join(blob.archive.name()).join(&blob.path)
}

/// Writes a lock's documents from the store to a new folder, to replace the old one once the lock is written.
/// A symbolic link in its place is replaced, not followed.
///
/// # Errors
/// [`Error::Foreign`], [`Error::Store`], [`Error::Io`].
pub fn prepare(lock: &Lock, folder: &Path, store: &Store) -> Result<NewFolder, Error> {
    let write = |path: &Path, source| Error::Io { deed: "write", path: path.to_owned(), source };
    if std::fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir()) {
        only_documents(folder, folder)?;
    }
    let new = NewFolder::begin(folder).map_err(|source| write(folder, source))?;
    for blob in lock.blobs_to_carry() {
        let path = place(new.path(), &blob);
        files::write(&path, &store.read(&blob.sha256, &blob.label)?)
            .map_err(|source| write(&path, source))?;
    }
    Ok(new)
}

/// Checks that every file below a folder could be a document of this lock or another: an archive's InRelease
/// file, or an npm attestation.
fn only_documents(folder: &Path, below: &Path) -> Result<(), Error> {
    let wrong = |source| Error::Io { deed: "read", path: below.to_owned(), source };
    for entry in std::fs::read_dir(below).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let path = entry.path();
        if entry.file_type().map_err(wrong)?.is_dir() {
            only_documents(folder, &path)?;
            continue;
        }
        let relative = path.strip_prefix(folder).unwrap_or(&path);
        let release = relative.file_name() == Some("InRelease".as_ref()) && relative.components().count() > 2;
        if !release && !relative.starts_with("npm/-/npm/v1/attestations") {
            return Err(Error::Foreign { path });
        }
    }
    Ok(())
}

/// Checks that the folder has all documents that a lock names, and nothing else, not even symbolic links.
///
/// # Errors
/// [`Error::Other`], [`Error::Unnamed`], [`Error::Io`].
pub fn check(lock: &Lock, folder: &Path) -> Result<(), Error> {
    let mut named: BTreeMap<PathBuf, Blob> =
        lock.blobs_to_carry().into_iter().map(|blob| (place(folder, &blob), blob)).collect();
    let kind = match std::fs::symlink_metadata(folder) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(Error::Io { deed: "read", path: folder.to_owned(), source }),
    };
    if let Some(kind) = kind {
        look(folder, kind, &mut named)?;
    }
    match named.into_keys().next() {
        Some(path) => Err(Error::Other { path }),
        None => Ok(()),
    }
}

/// Removes what exists at and below a path from the set of named documents.
fn look(path: &Path, kind: FileType, named: &mut BTreeMap<PathBuf, Blob>) -> Result<(), Error> {
    let wrong = |source| Error::Io { deed: "read", path: path.to_owned(), source };
    if kind.is_dir() {
        for entry in std::fs::read_dir(path).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            look(&entry.path(), entry.file_type().map_err(wrong)?, named)?;
        }
        return Ok(());
    }
    let Some(blob) = named.remove(path).filter(|_| kind.is_file()) else {
        return Err(Error::Unnamed { path: path.to_owned() });
    };
    let length = std::fs::metadata(path).map_err(wrong)?.len();
    if length != blob.size || Sha256Digest::of(&std::fs::read(path).map_err(wrong)?) != blob.sha256 {
        return Err(Error::Other { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::store::Expected;
    use super::*;

    /// Returns a lock with one archive and one attested package, a store with their documents, and a folder.
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
    fn what_a_lock_names_takes_the_place_of_what_was_there() {
        let (lock, store, folder) = world();
        let beside = self::folder(&folder.path().join("recipe.lock"));
        assert!(beside.ends_with("recipe.lock.d"));
        let write = || prepare(&lock, &beside, &store).unwrap().finish().unwrap();
        let refused = || check(&lock, &beside).unwrap_err();
        assert!(matches!(refused(), Error::Other { .. }));
        write();
        check(&lock, &beside).unwrap();
        let release = beside.join("debian").join(&lock.archives[0].path);
        assert_eq!(std::fs::read(&release).unwrap(), b"release");
        let attested = beside.join("npm").join(lock.npm[0].attestations_path());
        assert_eq!(std::fs::read(&attested).unwrap(), b"attested");

        // Same size, another size, missing, one file too many.
        for bytes in [&b"Release"[..], b""] {
            std::fs::write(&release, bytes).unwrap();
            assert!(matches!(refused(), Error::Other { path } if path == release));
        }
        std::fs::remove_file(&release).unwrap();
        assert!(matches!(refused(), Error::Other { path } if path == release));
        write();
        let stale = beside.join("debian/dists/older/InRelease");
        std::fs::create_dir_all(stale.parent().unwrap()).unwrap();
        std::fs::write(&stale, b"older").unwrap();
        assert!(matches!(refused(), Error::Unnamed { path } if path == stale));
        write();
        assert!(!stale.exists());
        check(&lock, &beside).unwrap();
    }

    #[test]
    fn a_link_is_no_document_and_nobody_writes_through_it() {
        use std::os::unix::fs::symlink;
        let (lock, store, folder) = world();
        let beside = self::folder(&folder.path().join("recipe.lock"));
        let write = || prepare(&lock, &beside, &store).unwrap().finish().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        write();
        std::fs::rename(&beside, &elsewhere).unwrap();
        std::fs::write(elsewhere.join("mine"), b"mine").unwrap();
        symlink(&elsewhere, &beside).unwrap();
        assert!(matches!(check(&lock, &beside), Err(Error::Unnamed { path }) if path == beside));
        write();
        check(&lock, &beside).unwrap();
        assert!(!beside.is_symlink() && elsewhere.join("mine").is_file());

        let release = beside.join("debian").join(&lock.archives[0].path);
        std::fs::remove_file(&release).unwrap();
        symlink(elsewhere.join("debian").join(&lock.archives[0].path), &release).unwrap();
        assert!(matches!(check(&lock, &beside), Err(Error::Unnamed { path }) if path == release));
        write();
        std::fs::remove_dir_all(beside.join("debian")).unwrap();
        std::fs::write(beside.join("debian"), b"no folder").unwrap();
        assert!(matches!(check(&lock, &beside), Err(Error::Unnamed { .. })));
    }

    #[test]
    fn a_file_that_no_lock_wrote_is_not_deleted() {
        let (lock, store, folder) = world();
        let beside = self::folder(&folder.path().join("recipe.lock"));
        prepare(&lock, &beside, &store).unwrap().finish().unwrap();
        for name in ["notes.txt", "debian/notes.txt", "InRelease", "npm/notes/x"] {
            let path = beside.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, b"mine").unwrap();
            let error = prepare(&lock, &beside, &store).unwrap_err();
            assert!(matches!(&error, Error::Foreign { path: found } if *found == path), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), b"mine");
            std::fs::remove_file(&path).unwrap();
        }
        prepare(&lock, &beside, &store).unwrap();
    }

    #[test]
    fn what_the_store_lacks_leaves_all_as_it_was() {
        let (mut lock, store, folder) = world();
        let beside = folder.path().join("recipe.lock.d");
        prepare(&lock, &beside, &store).unwrap().finish().unwrap();
        let before = lock.clone();
        lock.archives[0].sha256 = "00".repeat(32);
        let error = prepare(&lock, &beside, &store).unwrap_err();
        assert!(matches!(error, Error::Store(_)), "{error}");
        check(&before, &beside).unwrap();
        std::fs::write(folder.path().join("file"), b"no folder").unwrap();
        let error = prepare(&before, &folder.path().join("file/recipe.lock.d"), &store).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}
