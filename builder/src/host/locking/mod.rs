//! Yields the parts of a lock, one by one, from what the mirrors have now: verified, resolved, reviewed.
//!
//! # Shape
//! ```text
//! releases      InRelease* ─ verify ─> Packages*
//! debs          Packages ─ solve (release, debug) ─> debs;  debs* ─> review of their scripts
//! npm           Node*, npm* ─ npm --package-lock-only* ─> tarballs*                          (* = an effect)
//! attestations  registries' attestations* of the tarballs ─> verified; a loss is an alarm
//! ```
//!
//! # Not here
//! Their order: `flow::lock`.

mod attestations;
mod debs;
mod npm;
mod releases;

use std::io;

use rootfs::deb;
use rootfs::npm::integrity;

pub use releases::Release;

use super::fetch::{self, Fetcher, tried};
use super::npm_resolver;
use super::progress::Progress;
use super::store;
use crate::advice::{Advice, Advised};
use crate::assemble::listed;
use crate::recipe;
use crate::resolve::packages::PackagesError;
use crate::resolve::scripts::{self, UnknownScripts};
use crate::resolve::solve::SolveError;
use crate::trust::attestation;
use crate::trust::debian::inrelease::InReleaseError;
use crate::trust::debian::keys::KeyringError;

/// The architecture of all images.
const ARCHITECTURE: &str = "amd64";

/// Why a lock cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The pinned keys cannot be read.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// No mirror has a trustworthy InRelease.
    #[error("no mirror gives an InRelease of {suite} that can be trusted{}", tried(.attempts))]
    InRelease {
        /// The suite.
        suite: String,
        /// Each mirror, and its problem.
        attempts: Vec<(String, String)>,
    },
    /// A signed InRelease lacks a needed entry.
    #[error("the InRelease of {suite} cannot be used")]
    Index {
        /// The suite.
        suite: String,
        /// Why.
        source: InReleaseError,
    },
    /// A package index cannot be read.
    #[error("cannot read the package index of {suite}")]
    Packages {
        /// The suite.
        suite: String,
        /// Why.
        source: PackagesError,
    },
    /// A package index cannot be decompressed.
    #[error("cannot decompress the package index of {suite}")]
    Decompress {
        /// The suite.
        suite: String,
        /// Why.
        source: io::Error,
    },
    /// No set of packages satisfies the recipe.
    #[error("the packages of profile {profile} cannot be resolved")]
    Solve {
        /// The profile.
        profile: &'static str,
        /// Why.
        source: SolveError,
    },
    /// No suite has the firmware's package.
    #[error("{place}: no suite has a package {name}")]
    Firmware {
        /// Its name.
        name: String,
        /// Where the recipe names it.
        place: recipe::Place,
    },
    /// A package cannot be read.
    #[error("cannot read {label}")]
    Deb {
        /// Name and version.
        label: String,
        /// Why.
        source: deb::Error,
    },
    /// The list of reviewed scripts cannot be read.
    #[error(transparent)]
    Table(#[from] scripts::TableError),
    /// Some maintainer scripts are not reviewed.
    #[error(transparent)]
    Scripts(#[from] UnknownScripts),
    /// npm cannot be run.
    #[error(transparent)]
    Resolver(#[from] npm_resolver::Error),
    /// npm's resolution cannot be used.
    #[error(transparent)]
    Npm(#[from] crate::resolve::npm::Error),
    /// A registry's document cannot be used.
    #[error("no registry describes {label}{}", tried(.attempts))]
    Manifest {
        /// Name and version.
        label: String,
        /// Each registry, and its problem.
        attempts: Vec<(String, String)>,
    },
    /// Packages had attestations in the earlier lock, or came from another repository, and have lost that.
    #[error("packages have lost their provenance:{}", listed(.packages))]
    LostProvenance {
        /// Name, version, and the loss.
        packages: Vec<String>,
    },
    /// The digest of a package's tarball is not valid.
    #[error("the integrity of {label} cannot be read")]
    Integrity {
        /// Name and version.
        label: String,
        /// Why.
        source: integrity::Error,
    },
    /// A package's attestations are about something else, or their signatures are invalid.
    #[error("the registry's attestations of {label} do not match it")]
    Attestation {
        /// Name and version.
        label: String,
        /// Why.
        source: attestation::Error,
    },
    /// It is unknown whether a package that had attestations still has them.
    #[error("cannot fetch the attestations of {label}, which had some before{}", tried(.attempts))]
    UnknownProvenance {
        /// Name and version.
        label: String,
        /// Each registry, and the outcome.
        attempts: Vec<(String, String)>,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Fetch(inner) => inner.advice(),
            Error::Store(inner) => inner.advice(),
            Error::InRelease { .. } => Some(Advice::outside(
                "the lock stays as it was: name a mirror that serves the suite as Debian signed it, with --debian-mirror or \
                 --debian-security-mirror, and check this machine's clock",
            )),
            Error::LostProvenance { .. } => Some(Advice::failed(
                "the lock stays as it was: find out why before you accept it, since a stolen account publishes without \
                 attestations, or from its own repository; then pass --accept-lost-provenance NAME",
            )),
            Error::UnknownProvenance { .. } => {
                Some(Advice::outside("try again later, or pass --accept-lost-provenance NAME"))
            }
            _ => None,
        }
    }
}

/// The hint for an attestation that is refused but may be valid.
pub const NEWER_KEYS: &str = "if npm's registry or Sigstore has keys that proofmark does not know yet, pass them with \
                              --npm-keys FILE and --npm-trusted-root FILE, as Sigstore's TUF repository has them";

impl Advised for attestation::Error {
    fn advice(&self) -> Option<Advice> {
        use attestation::Error as Attested;
        Some(match self {
            Attested::UnknownKey { .. } | Attested::Outdated { .. } | Attested::Signature { .. } => {
                Advice::failed(format!("the lock stays as it was; {NEWER_KEYS}"))
            }
            Attested::Keys(_) | Attested::Trust(_) => Advice::failed(
                "name files as Sigstore's TUF repository has them: registry.npmjs.org/keys.json with --npm-keys, \
                 trusted_root.json with --npm-trusted-root",
            ),
            _ => Advice::failed(
                "the lock stays as it was: take another version of the package in the recipe, and ask its \
                 publishers",
            ),
        })
    }
}

/// The inputs of a lock.
pub struct Locking<'a> {
    /// Fetches files, and has the store.
    pub fetcher: &'a Fetcher<'a>,
    /// Shows progress.
    pub progress: Progress,
    /// Seconds since 1970, for checks of expired and future dates.
    pub now: u64,
    /// Verifies a registry's attestations of npm packages.
    pub registry: &'a attestation::Registry,
    /// npm packages that may lose their attestations, or come from another repository.
    pub accept_lost_provenance: &'a [String],
}
