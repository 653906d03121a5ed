//! Yields the recipe `minimal` with everything that its lock names, in a store that all tests share.
//!
//! # Shape
//! ```text
//! target/tmp/proofmark/store/          fetched once, and never damaged: tests that damage it take a copy
//!                      vendor-LOCK/    the same files, laid out as a mirror
//!                      image-LOCK-*/   what a build made from them
//!                      fresh-LOCK/     recipes with a new lock, when no mirror has the files of the committed one
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rootfs::content::Sha256Digest;

use crate::outcome::Outcome;
use crate::{folder, program};

/// An address where nothing listens: requests through it are refused at once.
const NOBODY: &str = "http://127.0.0.1:1";

/// A recipe, and where its files are.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Folder of recipes.
    pub recipes: PathBuf,
    /// The store that holds everything that its lock names.
    pub store: PathBuf,
}

/// The tests' own folder below `target`.
fn kept() -> PathBuf {
    let program = program::proofmark();
    let target = program.ancestors().nth(2).unwrap_or(Path::new("/tmp"));
    target.join("tmp/proofmark")
}

/// Returns a folder of recorded cases of other projects; `None`, with a loud message, if this machine does not have it.
pub fn vectors(below: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PROOFMARK_VECTORS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"));
    let folder = folder.join(below);
    if !folder.is_dir() {
        eprintln!("SKIPPED: {} is not there; set PROOFMARK_VECTORS", folder.display());
        return None;
    }
    Some(folder)
}

/// Copies a folder of files and folders.
///
/// # Errors
/// The system's error.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for path in folder::paths(from)? {
        let source = from.join(&path);
        if source.is_dir() {
            fs::create_dir_all(to.join(&path))?;
        } else {
            fs::copy(&source, to.join(&path))?;
        }
    }
    Ok(())
}

/// The program with a store, a clean environment, and access only to mirrors on this machine.
pub fn proofmark(store: &Path) -> Command {
    let mut command = Command::new(program::proofmark());
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", kept().join("home")).env("PROOFMARK_STORE", store);
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env(proxy, NOBODY);
    }
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    command
}

/// The program with a store, and the mirrors of this machine and its user.
fn online(store: &Path) -> Command {
    let mut command = Command::new(program::proofmark());
    command.env("PROOFMARK_STORE", store);
    command
}

impl Inputs {
    /// The committed recipe and lock; a new lock when no mirror has the committed lock's files any more.
    ///
    /// # Panics
    /// When neither is available.
    pub fn minimal() -> Inputs {
        let kept = kept();
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
        let _guard = guard(&kept);
        let inputs = Inputs { recipes: committed, store: kept.join("store") };
        let fetched = Outcome::of(online(&inputs.store).arg("fetch").arg(inputs.recipe()));
        if fetched.code != Some(3) {
            fetched.succeeded();
            return inputs;
        }
        eprintln!(
            "THE COMMITTED LOCK CANNOT BE FETCHED ANY MORE; A LOCK OF TODAY IS USED.\n{}",
            fetched.stderr
        );
        let fresh =
            Inputs { recipes: kept.join(format!("fresh-{}", inputs.lock_digest())), ..inputs.clone() };
        let there = fresh.recipe().join("recipe.lock").is_file()
            && Outcome::of(online(&fresh.store).arg("fetch").arg(fresh.recipe())).code == Some(0);
        if !there {
            inputs.locked_now(&fresh.recipes).unwrap_or_else(|why| panic!("{why}"));
        }
        fresh
    }

    /// A copy of the recipes in `folder`, with a new lock. The files that the old lock carried are not copied; a
    /// document that no lock names takes their place, and the new lock must remove it.
    ///
    /// # Errors
    /// The program's message, for instance when there is no network.
    pub fn locked_now(&self, folder: &Path) -> Result<Inputs, String> {
        copy(&self.recipes, folder).map_err(|error| error.to_string())?;
        let inputs = Inputs { recipes: folder.to_owned(), store: self.store.clone() };
        let stale = inputs.carried().join("debian/dists/older/InRelease");
        let replace = || -> io::Result<()> {
            if inputs.carried().exists() {
                fs::remove_dir_all(inputs.carried())?;
            }
            fs::create_dir_all(stale.parent().unwrap_or(folder))?;
            fs::write(&stale, "of no lock")
        };
        replace().map_err(|error| error.to_string())?;
        let locked = Outcome::of(online(&self.store).arg("lock").arg(inputs.recipe()));
        if locked.code == Some(0) { Ok(inputs) } else { Err(locked.stderr) }
    }

    /// Folder of the recipe.
    pub fn recipe(&self) -> PathBuf {
        self.recipes.join("minimal")
    }

    /// The recipe's lock.
    pub fn lock(&self) -> PathBuf {
        self.recipe().join("recipe.lock")
    }

    /// The folder of the files that the lock carries.
    pub fn carried(&self) -> PathBuf {
        self.recipe().join("recipe.lock.d")
    }

    fn lock_digest(&self) -> String {
        let digest = Sha256Digest::of(&fs::read(self.lock()).unwrap_or_default()).to_string();
        digest.get(..16).unwrap_or_default().to_owned()
    }

    /// The outputs of a build of the recipe, in the profile `release` or `debug`. Tests share the folder and do not
    /// write to it.
    ///
    /// # Panics
    /// When it cannot be built.
    pub fn image(&self, profile: &str) -> PathBuf {
        let kept = kept();
        let _guard = guard(&kept);
        let folder = kept.join(format!("image-{}-{profile}", self.lock_digest()));
        let mut build = online(&self.store);
        build.arg("build").arg(self.recipe()).args(["--profile", profile, "--quiet", "--out"]).arg(&folder);
        Outcome::of(&mut build).succeeded();
        folder
    }

    /// A folder that `proofmark vendor` wrote. Tests share it and do not write to it.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn vendored(&self) -> PathBuf {
        let kept = kept();
        let _guard = guard(&kept);
        let folder = kept.join(format!("vendor-{}", self.lock_digest()));
        if !folder.join("recipe.lock").is_file() {
            Outcome::of(online(&self.store).arg("vendor").arg(&folder).arg(self.recipe())).succeeded();
        }
        folder
    }

    /// Copies the store's fetched files to `folder`, but nothing derived.
    ///
    /// # Errors
    /// The system's error.
    pub fn copy_store(&self, folder: &Path) -> io::Result<()> {
        copy(&self.store.join("blobs"), &folder.join("blobs"))
    }
}

/// Locks the shared folder: tests run at the same time, each in its own process.
fn guard(kept: &Path) -> File {
    let held = fs::create_dir_all(kept).and_then(|()| {
        let file = File::create(kept.join("held"))?;
        file.lock()?;
        Ok(file)
    });
    held.unwrap_or_else(|error| panic!("cannot hold {}: {error}", kept.display()))
}
