//! Runs an application's own check of its configuration, with the pinned Node.js, before the image is built.

use std::collections::BTreeMap;
use std::error::Error as Any;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rootfs::content::Sha256Digest;
use rootfs::path::{self, TreePath};
use rootfs::tree::{self, Kind, Tree};

use super::progress::Progress;
use super::store::Store;
use super::tool;
use crate::advice::{Advice, Advised};
use crate::lock::{Lock, NpmRole, Validated};
use crate::recipe::Recipe;
use crate::recipe::document::{NpmApplication, Validate};

/// The time limit of a check.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path in the recipe is not a valid path of an image.
    #[error(transparent)]
    Path(#[from] path::Error),
    /// The configuration is not in the image.
    #[error("{application} names a configuration that is not in the image: {config}")]
    Absent {
        /// The application.
        application: String,
        /// The configuration.
        config: String,
        /// Why.
        source: tree::Error,
    },
    /// The recipe has no Node.js.
    #[error("no [node]")]
    NoNode,
    /// The check's temporary folder cannot be made.
    #[error(transparent)]
    Scratch(#[from] io::Error),
    /// A file that the check needs cannot be unpacked.
    #[error("cannot unpack {part}")]
    Unpack {
        /// Which part of the image.
        part: String,
        /// Why.
        source: Box<dyn Any + Send + Sync>,
    },
    /// The application refuses the configuration.
    #[error("{application} refuses the configuration {config}: {why}")]
    Refused {
        /// The application.
        application: String,
        /// The configuration.
        config: String,
        /// What the application printed.
        why: String,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Refused { .. } => Some(Advice::failed("fix the file that the recipe puts there")),
            Error::Scratch(inner) => inner.advice(),
            _ => None,
        }
    }
}

/// Checks the configuration of every application that declares a check. A check that passed for the same
/// application, Node.js and configuration is not repeated: the lock records it, or the store, if it changed
/// since.
///
/// # Errors
/// [`Error`].
pub fn check_all(
    recipe: &Recipe,
    lock: &Lock,
    tree: &Tree,
    store: &Store,
    progress: Progress,
) -> Result<(), Error> {
    for application in &recipe.npm {
        let Some(validate) = &application.validate else { continue };
        let key = key(application, validate, lock, tree)?;
        let known = lock.validated.iter().any(|known| known.key == key.to_string());
        if known || store.derived("validated", &key).is_some() {
            continue;
        }
        let stage = progress.stage(&format!("check {}", validate.config), 0);
        check(recipe, application, validate, tree)?;
        store.keep_derived("validated", &key, b"");
        stage.done("accepted by the application");
    }
    Ok(())
}

/// Runs every application's check of its configuration, and returns what they accepted, for the lock.
///
/// # Errors
/// [`Error`].
pub fn accepted(
    recipe: &Recipe,
    lock: &Lock,
    tree: &Tree,
    store: &Store,
    progress: Progress,
) -> Result<Vec<Validated>, Error> {
    check_all(recipe, lock, tree, store, progress)?;
    recipe
        .npm
        .iter()
        .filter_map(|application| Some((application, application.validate.as_ref()?)))
        .map(|(application, validate)| {
            let key = key(application, validate, lock, tree)?.to_string();
            Ok(Validated { application: application.name.clone(), key })
        })
        .collect()
}

/// Returns the digest of everything that a check depends on.
///
/// # Errors
/// [`Error::Path`], [`Error::Absent`].
pub fn key(
    application: &NpmApplication,
    validate: &Validate,
    lock: &Lock,
    tree: &Tree,
) -> Result<Sha256Digest, Error> {
    let config = tree.content(&TreePath::new(&validate.config)?).map_err(|source| Error::Absent {
        application: application.name.clone(),
        config: validate.config.clone(),
        source,
    })?;
    let mut text = format!("validated/1\n{}\n{application:?}\n", config.sha256());
    for npm in &lock.npm {
        if npm.role == NpmRole::Node
            || (npm.role == NpmRole::Application && npm.application == application.name)
        {
            text.push_str(&format!("{} {}\n", npm.location, npm.sha256));
        }
    }
    Ok(Sha256Digest::of(text.as_bytes()))
}

fn check(
    recipe: &Recipe,
    application: &NpmApplication,
    validate: &Validate,
    tree: &Tree,
) -> Result<(), Error> {
    let node = recipe.node.as_ref().ok_or(Error::NoNode)?;
    let folder = tempfile::Builder::new().prefix("proofmark-check-").tempdir()?;
    let root = folder.path();
    for part in [node.target.as_str(), &application.target, &validate.config] {
        copy(tree, &TreePath::new(part)?, root)
            .map_err(|source| Error::Unpack { part: part.to_owned(), source })?;
    }
    let home = root.join("home");
    fs::create_dir_all(&home)?;
    let inside = |path: &str| -> PathBuf { root.join(path.trim_start_matches('/')) };
    let program = inside(&application.target).join(&validate.program);
    let mut arguments = vec![program.into_os_string()];
    arguments.extend(validate.arguments.iter().map(OsString::from));
    let environment = BTreeMap::from([
        (OsString::from("HOME"), home.clone().into_os_string()),
        (OsString::from("NODE_DISABLE_COMPILE_CACHE"), OsString::from("1")),
        (OsString::from("PATH"), OsString::new()),
        (OsString::from(&validate.variable), inside(&validate.config).into_os_string()),
    ]);
    let run = tool::Run {
        program: inside(&node.target).join("bin/node"),
        arguments,
        environment,
        folder: home,
        limit: PATIENCE,
    };
    tool::run(&run).map_err(|error| Error::Refused {
        application: application.name.clone(),
        config: validate.config.clone(),
        why: super::chain(&error),
    })?;
    Ok(())
}

/// Writes everything at and below `path` to a folder under `root`.
fn copy(tree: &Tree, path: &TreePath, root: &Path) -> Result<(), Box<dyn Any + Send + Sync>> {
    let own = tree.get(path).map(|node| (path, node));
    for (path, node) in own.into_iter().chain(tree.below(path)) {
        let target = root.join(path.as_str());
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        match &node.kind {
            Kind::Directory => fs::create_dir_all(&target)?,
            Kind::Symlink(link) => std::os::unix::fs::symlink(&**link, &target)?,
            Kind::File(content) => {
                fs::write(&target, content.read()?)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(u32::from(node.mode) | 0o400))?;
            }
            Kind::HardLink(_) => fs::write(&target, tree.read(path)?)?,
            _ => {}
        }
    }
    Ok(())
}
