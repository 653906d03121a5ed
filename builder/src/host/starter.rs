//! Yields a folder with a recipe to start from.
//!
//! # Shape
//! ```text
//! FOLDER/recipe.toml          one package, one service, with comments; named after the folder
//! FOLDER/base/recipe.toml     systemd, kernel, network: the base that the recipe extends
//! FOLDER/recipe.schema.json   completion in editors
//! ```
//! The folder must be absent or empty: nothing is overwritten.

use std::io;
use std::path::{Path, PathBuf};

use super::files::{self, NewFolder};
use crate::advice::{Advice, Advised};
use crate::recipe;

const RECIPE: &str = include_str!("../starter/recipe.toml");
/// The base of this repository's own recipes.
const BASE: &str = include_str!("../../../recipes/shared/recipe.toml");
/// The name of a recipe when the folder's name is not a valid image name.
const USUAL_NAME: &str = "hello";

/// Why the folder cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path exists and is not an empty folder.
    #[error("{} exists and is not an empty folder", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// A file system operation failed.
    #[error("cannot write {}", folder.display())]
    Write {
        /// The folder.
        folder: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Taken { .. } => Some(Advice::failed("name a folder that is absent or empty")),
            Error::Write { .. } => None,
        }
    }
}

/// Writes the folder, and returns the image's name.
///
/// # Errors
/// [`Error`]; then nothing is written.
pub fn write(folder: &Path) -> Result<String, Error> {
    let failed = |source| Error::Write { folder: folder.to_owned(), source };
    let taken = match std::fs::symlink_metadata(folder) {
        Ok(metadata) => !metadata.is_dir() || std::fs::read_dir(folder).map_err(failed)?.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(failed(error)),
    };
    if taken {
        return Err(Error::Taken { folder: folder.to_owned() });
    }
    let name = name_of(folder);
    let new = NewFolder::begin(folder).map_err(failed)?;
    let recipe = RECIPE.replace("NAME", &name).replace("FOLDER", &folder.display().to_string());
    for (path, text) in [
        ("recipe.toml", recipe.as_str()),
        ("base/recipe.toml", BASE),
        ("recipe.schema.json", &recipe::schema()),
    ] {
        files::write(&new.path().join(path), text.as_bytes()).map_err(failed)?;
    }
    match new.finish_over(&[]).map_err(failed)? {
        None => Ok(name),
        // Something came into the empty folder meanwhile.
        Some(kept) => Err(Error::Taken { folder: kept }),
    }
}

/// Returns the folder's name, if it is a valid image name.
fn name_of(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = absolute.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if recipe::is_plain_name(name) { name.to_owned() } else { USUAL_NAME.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::recipe::Profile;

    #[test]
    fn a_new_recipe_loads_in_both_profiles_and_bears_the_folders_name() {
        let root = tempfile::tempdir().unwrap();
        for (folder, expected) in [("web-server", "web-server"), ("My Recipe", USUAL_NAME)] {
            let folder = root.path().join(folder);
            assert_eq!(write(&folder).unwrap(), expected);
            for profile in Profile::ALL {
                let file = recipe::file_of(&folder);
                let loaded = recipe::load(&file, profile, &|path: &Path| fs::read(path)).unwrap();
                assert_eq!((loaded.name.as_str(), loaded.version.as_str()), (expected, "1"));
            }
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_there_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let [empty, full, file] = ["empty", "full", "file"].map(|name| root.path().join(name));
        fs::create_dir(&empty).unwrap();
        write(&empty).unwrap();
        fs::create_dir(&full).unwrap();
        fs::write(full.join("mine"), "mine").unwrap();
        fs::write(&file, "mine").unwrap();
        for taken in [&empty, &full, &file] {
            let error = write(taken).unwrap_err();
            assert!(matches!(error, Error::Taken { .. }) && error.advice().is_some(), "{error}");
        }
        assert_eq!(fs::read(full.join("mine")).unwrap(), b"mine");
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }
}
