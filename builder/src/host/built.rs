//! Yields a built image from its output folder: manifest, list of contents, lock and root file system.
//!
//! # Shape
//! ```text
//! FOLDER/manifest.json   inputs and outputs of the build
//! FOLDER/contents.json   every path; checked against the manifest
//! FOLDER/recipe.lock     checked against the manifest
//! FOLDER/disk.raw        its root partition holds the file system
//! ```
//! Everything is bounded and checked. A document in another format, or not matching the manifest, is refused.
//!
//! # Not here
//! Whether a manifest can be trusted, and whether a disk matches its root hash: verification decides that.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootfs::content::Sha256Digest;
use rootfs::erofs::{FileType, Inode, ReadError, Reader};
use rootfs::path::TreePath;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::advice::{Advice, Advised};
use crate::claim::contents::{self, Contents};
use crate::claim::file;
use crate::claim::manifest::{self, Manifest};
use crate::image::disk;
use crate::lock::{self, Lock};

/// The longest manifest or lock, in bytes: real ones are under 1 MiB.
const MAX_DOCUMENT: u64 = 64 << 20;

/// The longest list of contents, in bytes: a real one is about 10 MiB.
const MAX_CONTENTS: u64 = 512 << 20;

/// Size of a block of the partition table, in bytes.
const LBA: u64 = 512;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is not an output folder.
    #[error("{} is not an image: it has no {name}", folder.display())]
    NoImage {
        /// The folder.
        folder: PathBuf,
        /// The file that is missing.
        name: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is longer than the limit.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Another version of the program wrote a document.
    #[error("{} has the form {found:?}, expected {expected:?}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// The format that this program writes.
        expected: &'static str,
        /// The format found.
        found: String,
    },
    /// A document cannot be parsed.
    #[error("cannot parse {}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The list of contents contradicts itself.
    #[error("{}: invalid {what} of {item:?}", path.display())]
    Item {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
        /// The image's path concerned.
        item: String,
    },
    /// A file does not match the manifest.
    #[error("{} does not match the manifest: expected SHA-256 {expected}, found {found}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// Digest in the manifest.
        expected: String,
        /// Digest of the file.
        found: String,
    },
    /// The manifest names an output that is not a plain file name.
    #[error("{}: output {name:?} is not a file name", path.display())]
    Output {
        /// The manifest.
        path: PathBuf,
        /// The output's name.
        name: String,
    },
    /// The lock cannot be used.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The manifest places the file system where it cannot be.
    #[error("{}: the root partition and its file system do not match", path.display())]
    Partition {
        /// The manifest.
        path: PathBuf,
    },
    /// The file system cannot be read.
    #[error("cannot read the file system of {}", path.display())]
    FileSystem {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: ReadError,
    },
    /// A file in the file system does not match the list of contents.
    #[error("{item} in {} does not match contents.json", path.display())]
    Content {
        /// The disk.
        path: PathBuf,
        /// The file.
        item: String,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        let hint = match self {
            Error::NoImage { .. } => "name a folder that `proofmark build` wrote, such as out/minimal-1",
            Error::Form { .. } | Error::Syntax { .. } => {
                "another version of proofmark wrote it: build the image again with this one"
            }
            Error::Other { .. }
            | Error::Content { .. }
            | Error::Item { .. }
            | Error::Output { .. }
            | Error::Partition { .. } => "it was changed after the build: build the image again",
            _ => return None,
        };
        Some(Advice::failed(hint))
    }
}

/// A built image.
#[derive(Debug)]
pub struct Built {
    /// Its output folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// Digest of the manifest's bytes, as they were read.
    pub manifest_sha256: Sha256Digest,
    /// The contents of its root file system.
    pub contents: Contents,
}

impl Built {
    /// Opens an output folder.
    ///
    /// # Errors
    /// [`Error`] when the folder is not one, or its documents are unreadable or do not belong together.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let document = |name, limit| {
            let path = folder.join(name);
            let bytes = read(&path, limit)?;
            let bytes = bytes.ok_or_else(|| Error::NoImage { folder: folder.to_owned(), name })?;
            Ok::<_, Error>((path, bytes))
        };
        let (path, bytes) = document(file::MANIFEST, MAX_DOCUMENT)?;
        let manifest_sha256 = Sha256Digest::of(&bytes);
        let manifest: Manifest = parse(&path, &bytes, manifest::FORM)?;
        let (path, bytes) = document(file::CONTENTS, MAX_CONTENTS)?;
        if let Some(output) = manifest.outputs.get(file::CONTENTS) {
            is_the_one(&path, &output.sha256, Sha256Digest::of(&bytes))?;
        }
        let contents: Contents = parse(&path, &bytes, contents::FORM)?;
        check(&path, &contents)?;
        Ok(Built { folder: folder.to_owned(), manifest, manifest_sha256, contents })
    }

    /// Returns the lock that the image was built from: the given one, or else the one in the folder, if any.
    ///
    /// # Errors
    /// [`Error`] when it cannot be read, or does not match the manifest.
    pub fn lock(&self, given: Option<&Path>) -> Result<Option<Lock>, Error> {
        let path = given.map_or_else(|| self.folder.join(file::LOCK), Path::to_owned);
        let Some(bytes) = read(&path, MAX_DOCUMENT)? else {
            let source = io::ErrorKind::NotFound.into();
            return if given.is_some() { Err(Error::Read { path, source }) } else { Ok(None) };
        };
        is_the_one(&path, &self.manifest.lock_sha256, Sha256Digest::of(&bytes))?;
        Ok(Some(lock_of(&path, bytes)?))
    }

    /// Checks the folder's files against the manifest, and returns the names of the missing outputs.
    ///
    /// # Errors
    /// [`Error`] when a file cannot be read, or does not match the manifest.
    pub fn check_outputs(&self) -> Result<Vec<String>, Error> {
        let mut absent = Vec::new();
        for (name, output) in &self.manifest.outputs {
            let path = self.folder.join(name);
            if Path::new(name).file_name() != Some(OsStr::new(name)) {
                return Err(Error::Output { path: self.folder.join(file::MANIFEST), name: name.clone() });
            }
            let failed = |source| Error::Read { path: path.clone(), source };
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    absent.push(name.clone());
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let mut hasher = Sha256::new();
            let mut chunk = vec![0; 1 << 20];
            loop {
                let count = file.read(&mut chunk).map_err(failed)?;
                let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else { break };
                hasher.update(read);
            }
            is_the_one(&path, &output.sha256, Sha256Digest(hasher.finalize().into()))?;
        }
        Ok(absent)
    }

    /// Returns the bytes of an output, checked against the manifest; `None` when the manifest lacks it.
    ///
    /// # Errors
    /// [`Error`] when it cannot be read, or does not match the manifest.
    pub fn output(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(output) = self.manifest.outputs.get(name) else { return Ok(None) };
        let path = self.folder.join(name);
        let source = || io::ErrorKind::NotFound.into();
        let bytes =
            read(&path, MAX_CONTENTS)?.ok_or_else(|| Error::Read { path: path.clone(), source: source() })?;
        is_the_one(&path, &output.sha256, Sha256Digest::of(&bytes))?;
        Ok(Some(bytes))
    }

    /// Returns the bytes of the root file system; `None` when the folder has no disk.
    ///
    /// # Errors
    /// [`Error`] when they cannot be read, or the manifest does not say where they are.
    pub fn filesystem(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = self.folder.join(file::DISK);
        let failed = |source| Error::Read { path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let whole = file.metadata().map_err(failed)?.len();
        let size = self.manifest.filesystem.size;
        let start = || {
            let root = self
                .manifest
                .disk
                .partitions
                .iter()
                .find(|partition| partition.name == disk::Kind::Root.name())?;
            let start = root.first_lba.checked_mul(LBA)?;
            let end = root.last_lba.checked_add(1)?.checked_mul(LBA)?;
            let fits = end <= whole && start.checked_add(size)? <= end;
            fits.then_some(start)
        };
        let start = start().ok_or_else(|| Error::Partition { path: self.folder.join(file::MANIFEST) })?;
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(size).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Opens the file system that [`Built::filesystem`] returned.
    ///
    /// # Errors
    /// [`Error::FileSystem`].
    pub fn files<'a>(&'a self, filesystem: &'a [u8]) -> Result<Files<'a>, Error> {
        let disk = self.folder.join(file::DISK);
        let failed = |source| Error::FileSystem { path: disk.clone(), source };
        let reader = Reader::new(filesystem).map_err(failed)?;
        let inodes = reader.walk().map_err(failed)?;
        Ok(Files { disk, reader, inodes, contents: &self.contents })
    }
}

/// The files of a root file system.
#[derive(Debug)]
pub struct Files<'a> {
    disk: PathBuf,
    reader: Reader<'a>,
    inodes: BTreeMap<TreePath, Arc<Inode>>,
    contents: &'a Contents,
}

impl Files<'_> {
    /// Returns the content of a file.
    ///
    /// # Errors
    /// [`Error::Content`] when it does not match the list of contents, [`Error::FileSystem`].
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let wrong = || Error::Content { path: self.disk.clone(), item: path.to_owned() };
        let item = self.contents.find(path).ok_or_else(wrong)?;
        let inode = TreePath::new(path).ok().and_then(|path| self.inodes.get(&path)).ok_or_else(wrong)?;
        if inode.file_type != FileType::File || Some(inode.size) != item.size {
            return Err(wrong());
        }
        let bytes = self.reader.read(inode, inode.size);
        let bytes = bytes.map_err(|source| Error::FileSystem { path: self.disk.clone(), source })?;
        if item.sha256.as_ref() != Some(&Sha256Digest::of(&bytes).to_string()) {
            return Err(wrong());
        }
        Ok(bytes.into_owned())
    }
}

/// Reads a lock.
///
/// # Errors
/// [`Error`] when it cannot be read or used.
pub fn lock(path: &Path) -> Result<Lock, Error> {
    let source = || io::ErrorKind::NotFound.into();
    let bytes =
        read(path, MAX_DOCUMENT)?.ok_or_else(|| Error::Read { path: path.to_owned(), source: source() })?;
    lock_of(path, bytes)
}

fn lock_of(path: &Path, bytes: Vec<u8>) -> Result<Lock, Error> {
    let text = String::from_utf8(bytes).map_err(|error| Error::Read {
        path: path.to_owned(),
        source: io::Error::other(error.utf8_error()),
    })?;
    Ok(Lock::parse(&text, path)?)
}

/// Returns the bytes of a file; `None` when it does not exist.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLong { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8], expected: &'static str) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Head {
        form: String,
    }
    let syntax = |source| Error::Syntax { path: path.to_owned(), source };
    let head: Head = serde_json::from_slice(bytes).map_err(syntax)?;
    if head.form != expected {
        return Err(Error::Form { path: path.to_owned(), expected, found: head.form });
    }
    serde_json::from_slice(bytes).map_err(syntax)
}

fn is_the_one(path: &Path, expected: &str, found: Sha256Digest) -> Result<(), Error> {
    let found = found.to_string();
    if found == expected {
        return Ok(());
    }
    Err(Error::Other { path: path.to_owned(), expected: expected.to_owned(), found })
}

/// Checks that every path occurs once, in order, with an origin and a valid kind.
fn check(path: &Path, contents: &Contents) -> Result<(), Error> {
    let mut last: Option<&str> = None;
    for item in &contents.paths {
        let file = item.kind == "file";
        let link = matches!(item.kind.as_str(), "symlink" | "hardlink");
        let device = matches!(item.kind.as_str(), "char" | "block");
        let what = if !item.path.starts_with('/') || last.is_some_and(|last| last >= item.path.as_str()) {
            "position"
        } else if !file && !link && !device && !matches!(item.kind.as_str(), "directory" | "fifo") {
            "kind"
        } else if item.origin >= contents.origins.len() {
            "origin"
        } else if file != item.size.is_some() || file != item.sha256.is_some() {
            "size or digest"
        } else if (link || device) != item.target.is_some() {
            "target"
        } else {
            last = Some(&item.path);
            continue;
        };
        return Err(Error::Item { path: path.to_owned(), what, item: item.path.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rootfs::content::{Content, Packing};
    use rootfs::tree::{Node, Origin, Tree};

    use super::*;
    use crate::claim::explain::tests::manifest as sample;
    use crate::claim::manifest::Output;

    /// An output folder with two files in a real file system, at block 2 of the disk.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(Origin::fix_up("base"));
        for (name, text) in [("a", "alpha\n".to_owned()), ("b", "beta\n".repeat(50_000))] {
            let node =
                Node::file(0o644, Content::pack(text.as_bytes(), Packing::Zstd(3)), Origin::debian("x", "1"));
            tree.insert(TreePath::new(name).unwrap(), node).unwrap();
        }
        let options = rootfs::erofs::Options {
            uuid: [1; 16],
            mtime: 1,
            label: rootfs::erofs::Label::new("x").unwrap(),
            packing: Packing::Zstd(3),
        };
        let mut disk = vec![0; 1024];
        let image = rootfs::erofs::Image::new(&tree, &options).unwrap();
        image
            .write_to(|bytes| {
                disk.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        let mut manifest = sample();
        manifest.filesystem.size = disk.len() as u64 - 1024;
        manifest.disk.partitions[0].last_lba = disk.len() as u64 / 512 - 1;
        let lock = crate::lock::tests::sample().to_text();
        manifest.lock_sha256 = Sha256Digest::of(lock.as_bytes()).to_string();
        let contents = Contents::of(&tree).to_text();
        for (name, bytes) in [("disk.raw", &disk[..]), ("contents.json", contents.as_bytes())] {
            let output = Output { size: bytes.len() as u64, sha256: Sha256Digest::of(bytes).to_string() };
            manifest.outputs.insert(name.into(), output);
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        fs::write(folder.path().join("recipe.lock"), lock).unwrap();
        fs::write(folder.path().join("manifest.json"), manifest.to_text()).unwrap();
        folder
    }

    fn replace(folder: &Path, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert!(text.contains(from), "{name} {from}");
        fs::write(folder.join(name), text.replace(from, to)).unwrap();
    }

    /// Updates the manifest for a changed list of contents.
    fn name_contents(folder: &Path) {
        let old: Manifest = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        let new = Sha256Digest::of(&fs::read(folder.join("contents.json")).unwrap()).to_string();
        replace(folder, "manifest.json", &old.outputs["contents.json"].sha256, &new);
    }

    #[test]
    fn a_folder_opens_and_its_files_are_read() {
        let folder = folder();
        let built = Built::open(folder.path()).unwrap();
        assert!(built.check_outputs().unwrap().is_empty());
        assert_eq!(built.lock(None).unwrap().unwrap().debs.len(), 2);
        let bytes = built.filesystem().unwrap().unwrap();
        let files = built.files(&bytes).unwrap();
        assert_eq!(files.read("/a").unwrap(), b"alpha\n");
        assert_eq!(files.read("/b").unwrap().len(), 250_000);
        assert!(matches!(files.read("/"), Err(Error::Content { .. })));
        assert!(matches!(files.read("/c"), Err(Error::Content { .. })));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let error = Built::open(empty.path()).unwrap_err();
        assert!(error.to_string().ends_with("is not an image: it has no manifest.json"), "{error}");
        assert!(error.advice().is_some());
        let folder = folder();
        fs::remove_file(folder.path().join("contents.json")).unwrap();
        assert!(matches!(Built::open(folder.path()), Err(Error::NoImage { name: "contents.json", .. })));
    }

    #[test]
    fn documents_of_another_form_or_with_unknown_keys_are_refused() {
        let folder = folder();
        replace(folder.path(), "manifest.json", "\"epoch\"", "\"epok\"");
        assert!(matches!(Built::open(folder.path()), Err(Error::Syntax { .. })));
        replace(folder.path(), "manifest.json", manifest::FORM, "proofmark-manifest/9");
        let error = Built::open(folder.path()).unwrap_err();
        assert!(
            error.to_string().contains("\"proofmark-manifest/9\", expected \"proofmark-manifest/1\""),
            "{error}"
        );
        assert!(error.advice().unwrap().hint.unwrap().contains("build the image again with this one"));
    }

    #[test]
    fn documents_that_are_not_the_manifests_are_refused() {
        let folder = folder();
        let built = Built::open(folder.path()).unwrap();
        replace(folder.path(), "recipe.lock", "1.0.0", "1.0.1");
        assert!(matches!(built.lock(None), Err(Error::Other { .. })));
        assert!(matches!(built.lock(Some(Path::new("/none/recipe.lock"))), Err(Error::Read { .. })));
        fs::remove_file(folder.path().join("recipe.lock")).unwrap();
        assert!(built.lock(None).unwrap().is_none());
        replace(folder.path(), "contents.json", "0644", "0600");
        assert!(matches!(Built::open(folder.path()), Err(Error::Other { .. })));
    }

    #[test]
    fn a_list_that_contradicts_itself_is_refused() {
        for (from, to, what) in [
            ("\"/a\"", "\"/z\"", "position"),
            ("\"/a\"", "\"a\"", "position"),
            ("\"file\"", "\"thing\"", "kind"),
            ("\"origin\":0", "\"origin\":9", "origin"),
            ("\"size\":6,", "", "size"),
            ("\"size\":6,", "\"size\":6,\"target\":\"x\",", "target"),
        ] {
            let folder = folder();
            replace(folder.path(), "contents.json", from, to);
            name_contents(folder.path());
            let error = Built::open(folder.path()).unwrap_err();
            assert!(
                matches!(&error, Error::Item { what: found, .. } if found.contains(what)),
                "{from}: {error}"
            );
        }
    }

    #[test]
    fn a_disk_that_was_changed_is_refused_and_one_that_is_gone_is_said_to_be() {
        let folder = folder();
        let built = Built::open(folder.path()).unwrap();
        let disk = folder.path().join("disk.raw");
        let mut bytes = fs::read(&disk).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&disk, &bytes).unwrap();
        assert!(matches!(built.check_outputs(), Err(Error::Other { .. })));
        fs::write(&disk, &bytes[..last]).unwrap();
        assert!(matches!(built.filesystem(), Err(Error::Partition { .. })));
        fs::remove_file(&disk).unwrap();
        assert_eq!(built.check_outputs().unwrap(), ["disk.raw"]);
        assert!(built.filesystem().unwrap().is_none());
    }

    #[test]
    fn a_file_that_the_list_does_not_name_so_is_refused() {
        let folder = folder();
        let digest = Sha256Digest::of(b"alpha\n").to_string();
        replace(folder.path(), "contents.json", &digest, &"00".repeat(32));
        name_contents(folder.path());
        let built = Built::open(folder.path()).unwrap();
        let bytes = built.filesystem().unwrap().unwrap();
        assert!(matches!(built.files(&bytes).unwrap().read("/a"), Err(Error::Content { .. })));
        assert!(matches!(built.files(&bytes[..4096]), Err(Error::FileSystem { .. })));
    }

    #[test]
    fn an_output_outside_of_the_folder_is_refused() {
        let folder = folder();
        replace(folder.path(), "manifest.json", "\"disk.raw\"", "\"../disk.raw\"");
        let built = Built::open(folder.path()).unwrap();
        assert!(matches!(built.check_outputs(), Err(Error::Output { .. })));
    }
}
