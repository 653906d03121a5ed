//! Tells whether a folder already holds a build's result, by that build's inputs and its files' metadata.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rootfs::content::Sha256Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::store::Store;
use crate::advice::{Advice, Advised};
use crate::claim::file;
use crate::claim::manifest::Manifest;
use crate::image::sign::Signer;
use crate::recipe::{EntryKind, Place, Recipe, Source};

/// Why this cannot be determined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program's own file cannot be examined.
    #[error(transparent)]
    Program(#[from] io::Error),
    /// Something cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A file of the recipe cannot be read.
    #[error("{place}: cannot read {}: {why}", file.display())]
    File {
        /// Where the recipe names it.
        place: Place,
        /// The path in the image.
        path: String,
        /// The file.
        file: PathBuf,
        /// Why.
        why: io::Error,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::File { path, .. } => {
                Some(Advice::failed(format!("{path} comes from it: add the file or remove the entry")))
            }
            Error::Program(inner) => inner.advice(),
            Error::Json(_) => None,
        }
    }
}

/// What was built where, so that an unchanged image is not rebuilt.
#[derive(Serialize, Deserialize)]
struct Built {
    inputs: String,
    files: BTreeMap<String, Stat>,
}

/// A file's metadata; a change of the file changes it.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Stat {
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

const OUTPUTS: [&str; 7] =
    [file::CONTENTS, file::DISK, file::UKI, file::MANIFEST, file::LOCK, file::CYCLONEDX, file::SPDX];

fn stat(path: &Path) -> io::Result<Stat> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path)?;
    Ok(Stat {
        size: metadata.size(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn stats(target: &Path) -> io::Result<BTreeMap<String, Stat>> {
    let reference = target.join(file::VALUES).exists().then_some(file::VALUES);
    OUTPUTS.iter().chain(&reference).map(|name| Ok(((*name).to_owned(), stat(&target.join(name))?))).collect()
}

fn place_key(target: &Path) -> io::Result<Sha256Digest> {
    Ok(Sha256Digest::of(format!("built\n{}", std::path::absolute(target)?.display()).as_bytes()))
}

/// Returns the digest of all inputs of a build: recipe and its files, lock, certificate, and this program.
///
/// # Errors
/// [`Error`].
pub fn inputs_key(recipe: &Recipe, lock: &str, signer: Option<&Signer>) -> Result<String, Error> {
    let mut hasher = Sha256::new();
    let program = stat(&std::env::current_exe()?)?;
    hasher.update(serde_json::to_vec(&program)?);
    hasher.update(serde_json::to_vec(recipe)?);
    hasher.update([0]);
    hasher.update(Sha256::digest(lock));
    hasher.update(signer.map(Signer::certificate_sha256).unwrap_or_default());
    for (path, entry) in &recipe.entries {
        if let EntryKind::File { content: Source::Path(file), .. } = &entry.kind {
            let bytes = fs::read(file).map_err(|why| Error::File {
                place: entry.place.clone(),
                path: path.to_string(),
                file: file.clone(),
                why,
            })?;
            hasher.update(Sha256::digest(bytes));
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

/// Returns the manifest in `target` if it was built from these inputs and not modified since.
pub fn unchanged(store: &Store, target: &Path, inputs: &str) -> Option<Manifest> {
    let built: Built = serde_json::from_slice(&store.derived("built", &place_key(target).ok()?)?).ok()?;
    if built.inputs != inputs || stats(target).ok()? != built.files {
        return None;
    }
    serde_json::from_slice(&fs::read(target.join(file::MANIFEST)).ok()?).ok()
}

/// Records what was built from which inputs.
pub fn remember(store: &Store, target: &Path, inputs: &str) {
    let (Ok(key), Ok(files)) = (place_key(target), stats(target)) else { return };
    if let Ok(bytes) = serde_json::to_vec(&Built { inputs: inputs.to_owned(), files }) {
        store.keep_derived("built", &key, &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{self, Profile};

    fn key(text: &str, profile: Profile) -> String {
        let read = |_: &Path| Ok(text.as_bytes().to_vec());
        let recipe = recipe::load(Path::new("x/recipe.toml"), profile, &read).unwrap();
        inputs_key(&recipe, "", None).unwrap()
    }

    #[test]
    fn whatever_a_recipe_says_is_in_the_key() {
        let text = "[image]\nname = \"a\"\nversion = \"1\"\n[debian]\nsuite = \"trixie\"\n[kernel]\npackage = \"linux\"\n";
        let more = [
            "[systemd]\nmask = [\"a.service\"]\n",
            "[[links]]\npath = \"/a\"\ntarget = \"b\"\n",
            "[[links]]\npath = \"/a\"\ntarget = \"c\"\n",
            "[[users]]\nname = \"a\"\n",
            "[measure]\nfirmware = \"ovmf\"\n[[measure.platforms]]\nplatform = \"qemu-tdx\"\nmemory = [\"4G\"]\n",
            "[alternatives]\n\"awk\" = \"/usr/bin/mawk\"\n",
            "[filesystem]\nlevel = 4\n",
        ];
        let mut keys = vec![key(text, Profile::Release), key(text, Profile::Debug)];
        keys.extend(more.map(|more| key(&format!("{text}{more}"), Profile::Release)));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert_eq!(key(text, Profile::Release), key(text, Profile::Release));
    }
}
