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
//! Each part: `host::locking`. Where the lock is written: `host::recipe_folder`.

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
    /// A part of it cannot be had.
    #[error(transparent)]
    Part(#[from] locking::Error),
    /// What was locked does not make an image.
    #[error("the packages of profile {profile} do not make an image")]
    Assemble {
        /// The profile.
        profile: &'static str,
        /// Why.
        source: Box<assemble::Error>,
    },
    /// An application does not accept its configuration.
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

/// What is to be locked, and what binds it.
pub struct Request<'a> {
    /// The recipe, by profile.
    pub recipes: &'a [Recipe],
    /// The lock before: its ids and dates bind the new one.
    pub previous: Option<&'a Lock>,
    /// Judges what a registry attests of npm packages.
    pub registry: &'a Registry,
    /// Names of npm packages that may lose their attestations, or come from another repository.
    pub accept_lost_provenance: &'a [String],
    /// Seconds since 1970: what expires and what lies in the future is judged by it.
    pub now: u64,
}

/// What came of locking.
#[derive(Debug)]
pub struct Locked {
    /// The lock.
    pub lock: Lock,
    /// What a person may want to know.
    pub remarks: Vec<String>,
}

/// Makes a lock from what the mirrors have now.
///
/// # Errors
/// [`Error`] of the first thing that is wrong.
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

/// Assembles each profile, which chooses the ids of its accounts, and gives its tree.
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
