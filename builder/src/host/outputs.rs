//! Yields the folder that an image is built into, without deleting anything that a build did not write.
//!
//! # Shape
//! ```text
//! OUT absent or empty       -> the new image
//! OUT of an earlier build   -> its outputs are replaced; other files stay, even signatures of the same bytes
//! anything else             -> refused, and left unchanged
//! ```
//! A folder belongs to an earlier build if it has a proofmark manifest. The build wrote the manifest and the
//! outputs that it names.
//!
//! # Not here
//! The contents of the outputs: [`crate::claim::file`].

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileType};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rootfs::content::Sha256Digest;

use super::files::NewFolder;
use super::publication;
use crate::advice::{Advice, Advised};
use crate::claim::file;
use crate::claim::manifest::{self, Manifest};

/// The longest manifest that is read, in bytes: real ones are under 1 MiB.
const MAX_MANIFEST: u64 = 64 << 20;

/// Why an image cannot be written to a folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target exists and is not a folder.
    #[error("{} is {what}, not a folder", target.display())]
    NotAFolder {
        /// The target.
        target: PathBuf,
        /// `a symbolic link` or `a file`.
        what: &'static str,
    },
    /// The folder is not empty, and no build wrote it.
    #[error("{} is not empty, and `proofmark build` did not write it: it has {name:?} but no manifest of this version", target.display())]
    Foreign {
        /// The folder.
        target: PathBuf,
        /// The name of a file in it.
        name: OsString,
    },
    /// The folder belongs to an earlier build, and holds something that cannot be kept.
    #[error("{} was not written by `proofmark build`", path.display())]
    InTheWay {
        /// What cannot be kept.
        path: PathBuf,
    },
    /// The folder holds signatures of an image with other bytes.
    #[error("{} signs the image already there, and this build gives different bytes", path.display())]
    Signed {
        /// One of the signed documents.
        path: PathBuf,
    },
    /// The image is in its place, and something that appeared there during the build is beside it.
    #[error("the image is in {}, but something appeared there meanwhile: it is in {} now", target.display(), kept.display())]
    Kept {
        /// The folder.
        target: PathBuf,
        /// Where the earlier folder is now.
        kept: PathBuf,
    },
    /// A file system operation failed.
    #[error("cannot write {}", target.display())]
    Unwritable {
        /// The folder.
        target: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        let other = "name a folder that is empty or absent, with --out DIR";
        let hint = match self {
            Error::NotAFolder { what: "a symbolic link", .. } => {
                "name the folder that it leads to, with --out DIR".to_owned()
            }
            Error::NotAFolder { .. } | Error::Foreign { .. } => other.to_owned(),
            Error::InTheWay { path } => format!("move {} elsewhere, or {other}", path.display()),
            Error::Signed { .. } => format!(
                "raise the version in recipe.toml, or {other}; to give up the signatures, delete them first"
            ),
            Error::Kept { kept, .. } => {
                format!("nothing is lost: move what you need out of {}", kept.display())
            }
            Error::Unwritable { source, .. } if source.kind() == io::ErrorKind::StorageFull => return None,
            Error::Unwritable { .. } => "name a folder that you may write to, with --out DIR".to_owned(),
        };
        Some(Advice::failed(hint))
    }
}

/// What exists at the target path.
#[derive(Debug, Default)]
struct Found {
    /// The manifest's text; empty if there is no manifest.
    manifest: Vec<u8>,
    /// Names of the files that the earlier build wrote.
    written: Vec<OsString>,
    /// Names of the other files.
    others: Vec<OsString>,
}

impl Found {
    /// Examines a folder.
    fn of(target: &Path) -> Result<Self, Error> {
        let unwritable = |source| Error::Unwritable { target: target.to_owned(), source };
        match fs::symlink_metadata(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
            Err(error) => return Err(unwritable(error)),
            Ok(metadata) if metadata.is_dir() => {}
            Ok(metadata) => {
                let what = if metadata.is_symlink() { "a symbolic link" } else { "a file" };
                return Err(Error::NotAFolder { target: target.to_owned(), what });
            }
        }
        let mut entries: Vec<(OsString, FileType)> = Vec::new();
        for entry in fs::read_dir(target).map_err(unwritable)? {
            let entry = entry.map_err(unwritable)?;
            entries.push((entry.file_name(), entry.file_type().map_err(unwritable)?));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let Some((first, _)) = entries.first() else { return Ok(Found::default()) };
        let Some((manifest, outputs)) = manifest_of(target) else {
            return Err(Error::Foreign { target: target.to_owned(), name: first.clone() });
        };
        let mut found = Found { manifest, ..Found::default() };
        for (name, kind) in entries {
            let ours = outputs.contains(&name);
            // A folder cannot be linked into the new one, and a build writes neither folders nor links.
            if kind.is_dir() || (ours && !kind.is_file()) {
                return Err(Error::InTheWay { path: target.join(name) });
            }
            if ours { found.written.push(name) } else { found.others.push(name) }
        }
        Ok(found)
    }
}

/// Returns the manifest of an earlier build and the names of the files that it wrote; `None` without one.
fn manifest_of(target: &Path) -> Option<(Vec<u8>, BTreeSet<OsString>)> {
    let path = target.join(file::MANIFEST);
    let metadata = fs::symlink_metadata(&path).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_MANIFEST {
        return None;
    }
    let bytes = fs::read(&path).ok()?;
    let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
    if manifest.form != manifest::FORM {
        return None;
    }
    let is_plain = |name: &&String| Path::new(name.as_str()).file_name() == Some(OsStr::new(name.as_str()));
    let outputs = manifest.outputs.keys().filter(is_plain).map(OsString::from);
    let names = outputs.chain([OsString::from(file::MANIFEST)]).collect();
    Some((bytes, names))
}

/// A file of the image's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Sha256Digest,
}

impl Written {
    /// Describes a file with these bytes.
    pub fn of(name: &'static str, bytes: &[u8]) -> Self {
        Written { name, size: bytes.len() as u64, sha256: Sha256Digest::of(bytes) }
    }
}

/// The output folder while it is being written.
#[derive(Debug)]
pub struct Outputs {
    new: NewFolder,
    target: PathBuf,
}

impl Outputs {
    /// Begins the folder `target`; an existing one stays as it is until [`Outputs::finish`].
    ///
    /// # Errors
    /// [`Error`] when it cannot be replaced, or not without loss.
    pub fn begin(target: &Path) -> Result<Self, Error> {
        Found::of(target)?;
        let unwritable = |source| Error::Unwritable { target: target.to_owned(), source };
        Ok(Outputs { new: NewFolder::begin(target).map_err(unwritable)?, target: target.to_owned() })
    }

    /// Returns the path to write to.
    pub fn path(&self) -> &Path {
        self.new.path()
    }

    /// Writes files and syncs them to disk: all are handed to the file system before the first is waited for.
    ///
    /// # Errors
    /// The file system's error.
    pub fn write(&self, files: &[(&'static str, &[u8])]) -> io::Result<Vec<Written>> {
        let write = |&(name, bytes): &(&'static str, &[u8])| {
            let mut file = File::create_new(self.path().join(name))?;
            file.write_all(bytes)?;
            Ok((file, Written::of(name, bytes)))
        };
        let all: Vec<(File, Written)> =
            files.par_iter().with_max_len(1).map(write).collect::<io::Result<_>>()?;
        all.iter().try_for_each(|(file, _)| file.sync_all())?;
        Ok(all.into_iter().map(|(_, written)| written).collect())
    }

    /// Renames the folder to its target in one step. Files in it must already be synced.
    ///
    /// # Errors
    /// [`Error`]; except for [`Error::Kept`], the earlier folder is then still there, whole.
    pub fn finish(self) -> Result<(), Error> {
        let Outputs { new, target } = self;
        let unwritable = |source| Error::Unwritable { target: target.clone(), source };
        // Examined again: the folder may have changed during the build.
        let found = Found::of(&target)?;
        let manifest = fs::read(new.path().join(file::MANIFEST)).map_err(unwritable)?;
        if found.manifest != manifest
            && let Some(signed) = found.others.iter().find(|name| publication::is_published(name))
        {
            return Err(Error::Signed { path: target.join(signed) });
        }
        for name in &found.others {
            match fs::hard_link(target.join(name), new.path().join(name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(Error::InTheWay { path: target.join(name) });
                }
                done => done.map_err(unwritable)?,
            }
        }
        let known: Vec<OsString> = found.written.into_iter().chain(found.others).collect();
        match new.finish_over(&known).map_err(unwritable)? {
            None => Ok(()),
            Some(kept) => Err(Error::Kept { target: target.clone(), kept }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::explain::tests::manifest as sample;
    use crate::claim::manifest::Output;

    fn manifest(version: &str) -> String {
        let mut manifest = sample();
        manifest.version = version.to_owned();
        let output = Output { size: 1, sha256: "00".repeat(32) };
        manifest.outputs.insert(file::DISK.to_owned(), output);
        manifest.to_text()
    }

    /// Builds a disk and its manifest.
    fn build(target: &Path, version: &str) -> Result<(), Error> {
        let outputs = Outputs::begin(target)?;
        fs::write(outputs.path().join(file::DISK), version).unwrap();
        fs::write(outputs.path().join(file::MANIFEST), manifest(version)).unwrap();
        outputs.finish()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_absent_an_empty_and_a_built_folder_are_written() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        build(&target, "1").unwrap();
        build(&target, "2").unwrap();
        assert_eq!(fs::read_to_string(target.join(file::DISK)).unwrap(), "2");
        let empty = root.path().join("empty");
        fs::create_dir(&empty).unwrap();
        build(&empty, "1").unwrap();
        assert_eq!(names(root.path()), ["empty", "out"]);
        assert_eq!(names(&target), [file::DISK, file::MANIFEST]);
    }

    #[test]
    fn a_folder_of_someone_else_is_refused_and_keeps_all_that_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let sources = root.path().join("src");
        fs::create_dir_all(sources.join(".git")).unwrap();
        fs::write(sources.join("precious.c"), "int main;").unwrap();
        for manifest in [None, Some("{}"), Some("{\"form\": \"another-program/1\"}"), Some("not JSON")] {
            if let Some(text) = manifest {
                fs::write(sources.join(file::MANIFEST), text).unwrap();
            }
            let before = names(&sources);
            let error = build(&sources, "1").unwrap_err();
            assert!(matches!(&error, Error::Foreign { .. }), "{error}");
            assert!(error.advice().unwrap().hint.unwrap().contains("--out DIR"));
            assert_eq!(names(&sources), before);
        }
        assert_eq!(names(root.path()), ["src"]);
    }

    #[test]
    fn a_file_and_a_link_are_refused_and_stay() {
        let root = tempfile::tempdir().unwrap();
        let [file, folder, link] = ["file", "folder", "link"].map(|name| root.path().join(name));
        fs::write(&file, "hello").unwrap();
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        for (target, what) in [(&file, "a file"), (&link, "a symbolic link")] {
            let error = build(target, "1").unwrap_err();
            assert!(matches!(&error, Error::NotAFolder { what: found, .. } if *found == what), "{error}");
            assert!(error.advice().is_some());
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "hello");
        assert!(link.is_symlink() && names(&folder).is_empty());
    }

    #[test]
    fn what_a_build_did_not_write_stays_beside_the_new_outputs() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        build(&target, "1").unwrap();
        fs::write(target.join("notes.txt"), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", target.join("link")).unwrap();
        build(&target, "2").unwrap();
        assert_eq!(fs::read_to_string(target.join("notes.txt")).unwrap(), "mine");
        assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("nowhere"));
        assert_eq!(names(&target), [file::DISK, "link", file::MANIFEST, "notes.txt"]);
        assert_eq!(names(root.path()), ["out"]);

        for name in [".git", file::DISK] {
            let _ = fs::remove_file(target.join(name));
            fs::create_dir(target.join(name)).unwrap();
            let error = build(&target, "3").unwrap_err();
            assert!(matches!(&error, Error::InTheWay { path } if *path == target.join(name)), "{error}");
            fs::remove_dir(target.join(name)).unwrap();
        }
    }

    #[test]
    fn signatures_stay_with_the_same_bytes_and_other_bytes_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        build(&target, "1").unwrap();
        for name in ["provenance.dsse.json", "provenance.sigstore.json", publication::JOURNAL] {
            fs::write(target.join(name), "signed").unwrap();
        }
        fs::remove_file(target.join(file::DISK)).unwrap();
        build(&target, "1").unwrap();
        assert_eq!(fs::read_to_string(target.join("provenance.sigstore.json")).unwrap(), "signed");
        let before = names(&target);
        assert_eq!(before.len(), 5);

        let error = build(&target, "2").unwrap_err();
        assert!(matches!(&error, Error::Signed { .. }), "{error}");
        assert!(error.advice().unwrap().hint.unwrap().contains("raise the version"));
        assert_eq!(fs::read_to_string(target.join(file::DISK)).unwrap(), "1");
        assert_eq!((names(&target), names(root.path())), (before, vec!["out".to_owned()]));
    }

    #[test]
    fn what_appears_during_the_build_is_refused_at_its_end() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        let outputs = Outputs::begin(&target).unwrap();
        fs::write(outputs.path().join(file::MANIFEST), manifest("1")).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("precious.c"), "int main;").unwrap();
        assert!(matches!(outputs.finish(), Err(Error::Foreign { .. })));
        assert_eq!(names(&target), ["precious.c"]);
        assert_eq!(names(root.path()), ["out"]);
    }
}
