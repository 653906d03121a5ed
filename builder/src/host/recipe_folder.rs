//! Yields a recipe and its lock from a folder.
//!
//! # Shape
//! ```text
//! recipe.toml      the recipe, for both profiles
//! recipe.lock      its lock
//! recipe.lock.d/   what the lock carries: `host::carried`
//! ```
//!
//! # Not here
//! How a lock is made: `flow::lock`.

use std::io;
use std::path::{Path, PathBuf};

use super::carried;
use super::fetch::Fetcher;
use super::files;
use super::store::Store;
use crate::advice::{Advice, Advised};
use crate::lock::{self, Lock};
use crate::recipe::{self, Profile, Recipe};

/// Why a recipe or its lock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe is invalid.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// The recipe has no such profile.
    #[error("the recipe has no such profile")]
    Profile,
    /// The lock does not exist.
    #[error("{} is not there", path.display())]
    NoLock {
        /// Where it is expected.
        path: PathBuf,
    },
    /// The lock is invalid, or for another recipe.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The lock cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The lock.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lock, or the folder beside it, cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The documents that the lock carries are not beside it.
    #[error(transparent)]
    Carried(#[from] carried::Error),
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Recipe(inner) => inner.advice(),
            Error::Lock(inner) => inner.advice(),
            Error::Carried(inner) => inner.advice(),
            Error::NoLock { .. } => {
                Some(Advice::failed("run `proofmark lock` on the recipe, and commit what it writes"))
            }
            _ => None,
        }
    }
}

/// A recipe for both profiles, and the path of its lock.
#[derive(Debug)]
pub struct RecipeFolder {
    /// The recipe for each profile.
    pub recipes: Vec<Recipe>,
    /// The path of its lock, which may not exist.
    pub lock_path: PathBuf,
}

impl RecipeFolder {
    /// Reads the recipe that an argument names, by its folder or its file.
    ///
    /// # Errors
    /// [`Error::Recipe`].
    pub fn open(argument: &Path) -> Result<Self, Error> {
        let file = recipe::file_of(argument);
        let read = |path: &Path| std::fs::read(path);
        let recipes = Profile::ALL
            .iter()
            .map(|profile| recipe::load(&file, *profile, &read))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(RecipeFolder { recipes, lock_path: file.with_extension("lock") })
    }

    /// Returns the recipe for one profile.
    ///
    /// # Errors
    /// [`Error::Profile`].
    pub fn recipe(&self, profile: Profile) -> Result<&Recipe, Error> {
        self.recipes.iter().find(|recipe| recipe.profile == profile).ok_or(Error::Profile)
    }

    /// Makes a fetcher prefer the documents in the folder beside the lock.
    pub fn carrying<'a>(&self, fetcher: Fetcher<'a>) -> Fetcher<'a> {
        let folder = carried::folder(&self.lock_path);
        // Absolute, as for given folders: a relative path would be taken for a mirror's URL.
        fetcher.carrying(std::path::absolute(&folder).unwrap_or(folder))
    }

    /// Returns the lock, as text and parsed; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::Lock`], [`Error::Read`].
    pub fn lock_if_any(&self) -> Result<Option<(String, Lock)>, Error> {
        match std::fs::read_to_string(&self.lock_path) {
            Ok(text) => {
                let lock = Lock::parse(&text, &self.lock_path)?;
                Ok(Some((text, lock)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path: self.lock_path.clone(), source }),
        }
    }

    /// Returns the lock, which must exist and match the recipe.
    ///
    /// # Errors
    /// [`Error::NoLock`], [`Error::Lock`], [`Error::Read`].
    pub fn lock(&self) -> Result<(String, Lock), Error> {
        let Some((text, lock)) = self.lock_if_any()? else {
            return Err(Error::NoLock { path: self.lock_path.clone() });
        };
        lock.fits(&self.lock_path, &recipe::lock_digest(&self.recipes), &crate::pipeline::tool())?;
        Ok((text, lock))
    }

    /// Returns the lock, which must match the recipe, with the documents that it carries beside it.
    ///
    /// # Errors
    /// Those of [`RecipeFolder::lock`], and [`Error::Carried`].
    pub fn whole_lock(&self) -> Result<Lock, Error> {
        let (_, lock) = self.lock()?;
        carried::check(&lock, &carried::folder(&self.lock_path))?;
        Ok(lock)
    }

    /// Writes a lock, and the documents that it carries beside it. There are two renames: a process killed in
    /// between leaves the new lock with the old documents, which the next `lock` replaces.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::Carried`].
    pub fn write_lock(&self, lock: &Lock, store: &Store) -> Result<(), Error> {
        let folder = carried::folder(&self.lock_path);
        let documents = carried::prepare(lock, &folder, store)?;
        files::write(&self.lock_path, lock.to_text().as_bytes())
            .map_err(|source| Error::Write { path: self.lock_path.clone(), source })?;
        documents.finish().map_err(|source| Error::Write { path: folder, source })
    }
}

/// Tells whether an error means that the lock is out of date, not that it cannot be read.
pub fn is_stale(error: &Error) -> bool {
    matches!(
        error,
        Error::Lock(_) | Error::Carried(carried::Error::Other { .. } | carried::Error::Unnamed { .. })
    )
}
