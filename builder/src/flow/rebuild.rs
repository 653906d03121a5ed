//! Yields the outputs of an image that a second build, from recipe, lock and fetched files only, does not reproduce.

use std::io;
use std::path::{Path, PathBuf};

use rootfs::content::Sha256Digest;

use super::build::{self, Request};
use crate::advice::{Advice, Advised};
use crate::claim::file;
use crate::claim::manifest::Manifest;
use crate::host::firmware::Derived;
use crate::host::recipe_folder::{self, RecipeFolder};
use crate::session::Session;

/// Why an image cannot be built again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe or its lock cannot be loaded.
    #[error(transparent)]
    Recipe(#[from] recipe_folder::Error),
    /// The image was built from another lock.
    #[error("{} was built from a different lock: SHA-256 {expected}, found {found}", image.display())]
    OtherLock {
        /// The image's folder.
        image: PathBuf,
        /// The digest of the image's lock, as the manifest gives it.
        expected: String,
        /// The digest of the lock beside the recipe.
        found: String,
    },
    /// The image is signed.
    #[error("the image's UKI is signed for Secure Boot, with a key that only its builder has")]
    Signed,
    /// No temporary folder can be made.
    #[error("cannot make a folder to build in")]
    Scratch(#[source] io::Error),
    /// The build failed.
    #[error(transparent)]
    Build(#[from] build::Error),
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Recipe(inner) => inner.advice(),
            Error::Build(inner) => inner.advice(),
            Error::OtherLock { .. } => {
                Some(Advice::failed("check out the recipe and lock that the image was built from"))
            }
            Error::Signed => {
                Some(Advice::failed("compare the unsigned image: build it without --secure-boot-key"))
            }
            Error::Scratch(_) => None,
        }
    }
}

/// The result of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The manifest of the new image.
    pub manifest: Manifest,
    /// Names of outputs that differ, or that only one of the two images has.
    pub differ: Vec<String>,
}

/// Builds the image in a folder again, and compares every output byte for byte.
///
/// # Errors
/// [`Error`] when it cannot be built again.
pub fn rebuild(image: &Path, theirs: &Manifest, recipe: &Path, session: &Session) -> Result<Rebuilt, Error> {
    let folder = RecipeFolder::open(recipe)?;
    let (text, _) = folder.lock()?;
    let found = Sha256Digest::of(text.as_bytes()).to_string();
    if found != theirs.lock_sha256 {
        let expected = theirs.lock_sha256.clone();
        return Err(Error::OtherLock { image: image.to_owned(), expected, found });
    }
    if theirs.secure_boot.is_some() {
        return Err(Error::Signed);
    }
    let scratch = tempfile::tempdir().map_err(Error::Scratch)?;
    let request = Request {
        folder: &folder,
        profile: theirs.profile,
        signer: None,
        target: &scratch.path().join("image"),
        derived: Derived::Ignored,
    };
    let (manifest, _) = build::build(&request, session)?;
    let differ = differences(theirs, &manifest);
    Ok(Rebuilt { manifest, differ })
}

/// Names of outputs that differ, or that only one of the two images has.
fn differences(theirs: &Manifest, ours: &Manifest) -> Vec<String> {
    let names = theirs.outputs.keys().chain(ours.outputs.keys());
    let mut differ: Vec<String> =
        names.filter(|name| theirs.outputs.get(*name) != ours.outputs.get(*name)).cloned().collect();
    differ.sort();
    differ.dedup();
    if differ.is_empty() && theirs.to_text() != ours.to_text() {
        differ.push(file::MANIFEST.to_owned());
    }
    differ
}
