//! Yields a lock from a recipe: asks the mirrors, verifies, resolves, reads every package, and plans the accounts.
//!
//! # Shape
//! ```text
//! InRelease* ─ verify ─> Packages* ─ solve (release, debug) ─> debs* ─ review of scripts ─┐
//! Node*, npm* ─ npm --package-lock-only* ─> tarballs* ────────────────────────────────────┼─> lock
//! all of it ─ assemble (release, debug) ─> ids of users and groups ───────────────────────┘   (* = an effect)
//! ```
//!
//! # Not here
//! Each part: `host::locking`. Writing the lock: `host::recipe_folder`.

use rootfs::tree::Tree;

use crate::advice::{Advice, Advised};
use crate::assemble::{self, IdChoice, assemble, check_libraries};
use crate::host::configuration;
use crate::host::firmware::Derived;
use crate::host::locking::{self, Locking};
use crate::host::material::Material;
use crate::lock::{self, Ids, Lock};
use crate::recipe::{self, Recipe};
use crate::session::Session;
use crate::trust::attestation::Registry;

/// Why no lock could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no recipe.
    #[error("there is no recipe to lock")]
    NoRecipe,
    /// A part of the lock cannot be made.
    #[error(transparent)]
    Part(#[from] locking::Error),
    /// The locked packages do not make an image.
    #[error("the packages of profile {profile} do not make an image")]
    Assemble {
        /// The profile.
        profile: &'static str,
        /// Why.
        source: Box<assemble::Error>,
    },
    /// An application rejects its configuration.
    #[error(transparent)]
    Configuration(#[from] configuration::Error),
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Part(inner) => inner.advice(),
            Error::Configuration(inner) => inner.advice(),
            Error::NoRecipe | Error::Assemble { .. } => None,
        }
    }
}

/// What to lock, and what constrains it.
pub struct Request<'a> {
    /// The recipe, once for each profile.
    pub recipes: &'a [Recipe],
    /// The previous lock: its ids and dates constrain the new one.
    pub previous: Option<&'a Lock>,
    /// Judges a registry's attestations of npm packages.
    pub registry: &'a Registry,
    /// Names of npm packages that may lose their attestations, or come from another repository.
    pub accept_lost_provenance: &'a [String],
    /// Seconds since 1970, to judge what has expired and what lies in the future.
    pub now: u64,
}

/// The result of locking.
#[derive(Debug)]
pub struct Locked {
    /// The lock.
    pub lock: Lock,
    /// Remarks that a person may want to read.
    pub remarks: Vec<String>,
}

/// Makes a lock from what the mirrors hold now.
///
/// # Errors
/// [`Error`] of the first problem found.
pub fn lock(request: &Request<'_>, session: &Session) -> Result<Locked, Error> {
    let Request { recipes, previous, .. } = *request;
    let first = recipes.first().ok_or(Error::NoRecipe)?;
    let fetcher = session.fetcher();
    let parts = Locking {
        fetcher: &fetcher,
        progress: session.progress,
        now: request.now,
        registry: request.registry,
        accept_lost_provenance: request.accept_lost_provenance,
    };
    let mut remarks = Vec::new();
    let releases = parts.releases(first, previous)?;
    let debs = parts.debs(recipes, &releases, &mut remarks)?;
    let firmware = parts.firmware(first, &releases)?;
    let mut npm = parts.npm(first)?;
    parts.attestations(&mut npm, previous, &mut remarks)?;
    let mut lock = Lock {
        version: lock::VERSION,
        recipe: recipe::lock_digest(recipes),
        tool: crate::pipeline::tool(),
        ids: previous.map(|lock| lock.ids.clone()).unwrap_or_default(),
        archives: releases.into_iter().map(|release| release.archive).collect(),
        debs,
        firmware,
        npm,
        validated: Vec::new(),
    };
    parts.review(recipes, &mut lock, &mut remarks)?;
    let (ids, trees) = accounts(recipes, &lock, &mut remarks, session)?;
    lock.ids = ids;
    for (recipe, tree) in recipes.iter().zip(&trees) {
        let accepted = configuration::accepted(recipe, &lock, tree, &session.store, session.progress)?;
        lock.validated.extend(accepted);
    }
    lock.validated.sort();
    lock.validated.dedup();
    remarks.sort();
    remarks.dedup();
    Ok(Locked { lock, remarks })
}

/// Assembles each profile, which chooses the ids of its accounts, and returns the ids and the trees.
fn accounts(
    recipes: &[Recipe],
    lock: &Lock,
    remarks: &mut Vec<String>,
    session: &Session,
) -> Result<(Ids, Vec<Tree>), Error> {
    let mut all = Ids::default();
    let mut trees = Vec::new();
    for recipe in recipes {
        let stage = session.progress.stage(&format!("assemble ({})", recipe.profile.name()), 0);
        let material = Material::new(&session.store, Derived::Taken, &stage);
        let mut known = lock.ids.clone();
        known.users.extend(all.users.clone());
        known.groups.extend(all.groups.clone());
        let failed = |source| Error::Assemble { profile: recipe.profile.name(), source: Box::new(source) };
        let assembled = assemble(recipe, lock, IdChoice::Choose(&known), &material).map_err(failed)?;
        stage.done(&format!("{} paths", assembled.tree.len()));
        all.users.extend(assembled.ids.users);
        all.groups.extend(assembled.ids.groups);
        remarks.extend(assembled.remarks);
        remarks.extend(check_libraries(recipe, &assembled.tree).map_err(failed)?);
        trees.push(assembled.tree);
    }
    Ok((all, trees))
}
