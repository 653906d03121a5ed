//! Yields what breaks the chain from Debian's keys to the packages of a lock: nothing, if the chain is whole.
//!
//! # Shape
//! ```text
//! pinned keys ─ signature ─> InRelease ─ SHA-256 ─> Packages ─ SHA-256 ─> every .deb that the lock takes from the suite
//! ```
//! The lock names all of these bytes by digest, so the check trusts no mirror and reads no clock. A release
//! is judged at the time of the snapshot that the lock names.
//!
//! # Source
//! As `inrelease` and `packages`.
//!
//! # Not here
//! Where the bytes come from.

use std::collections::BTreeMap;
use std::io::{self, Read};

use rootfs::deb;

use super::packages::{self, PackagesError};
use crate::lock::{Archive, Deb, moment, moment_seconds};
use crate::trust::debian::inrelease::{self, InReleaseError};
use crate::trust::debian::keys::{Keyring, UnixTime};

/// The architecture of every image.
const ARCHITECTURE: &str = "amd64";
/// A limit far above the size of an unpacked package index, 60 MB today.
const MAX_INDEX: u64 = 1 << 30;

/// What breaks the chain.
#[derive(Debug, thiserror::Error)]
pub enum Break {
    /// The signed release is not authentic.
    #[error("the InRelease of {suite} cannot be trusted")]
    InRelease {
        /// The suite.
        suite: String,
        /// Why.
        source: InReleaseError,
    },
    /// The lock contradicts the signed release.
    #[error("{what} of {suite} is {found} in the signed release, but {expected} in the lock")]
    Differs {
        /// The value that differs.
        what: &'static str,
        /// The suite.
        suite: String,
        /// The lock's value.
        expected: String,
        /// The release's value.
        found: String,
    },
    /// The package index cannot be read.
    #[error("the package index of {suite} cannot be read")]
    Index {
        /// The suite.
        suite: String,
        /// Why.
        source: PackagesError,
    },
    /// The package index cannot be decompressed.
    #[error("the package index of {suite} cannot be decompressed")]
    Decompress {
        /// The suite.
        suite: String,
        /// Why.
        source: io::Error,
    },
    /// The index has no such package.
    #[error("{package} is not in the signed index of {suite}")]
    Unlisted {
        /// Name, version and digest.
        package: String,
        /// The suite.
        suite: String,
    },
}

/// Checks one suite: its InRelease, its package index as it is served, and the packages that the lock takes from it.
pub fn check(
    archive: &Archive,
    inrelease: &[u8],
    index: &[u8],
    debs: &[&Deb],
    keyring: &Keyring,
) -> Vec<Break> {
    let suite = || archive.suite.clone();
    let at = moment_seconds(&archive.snapshot).or_else(|| moment_seconds(&archive.date)).unwrap_or(0);
    let expected = inrelease::Expected {
        suite: &archive.suite,
        architecture: ARCHITECTURE,
        now: UnixTime(at),
        previous: None,
    };
    let release = match inrelease::verify(inrelease, keyring, &expected) {
        Ok(release) => release,
        Err(source) => return vec![Break::InRelease { suite: suite(), source }],
    };
    let mut breaks = Vec::new();
    let mut same = |what, expected: String, found: String| {
        if expected != found {
            breaks.push(Break::Differs { what, suite: suite(), expected, found });
        }
    };
    same("the date", archive.date.clone(), moment(release.date.0));
    let mut signers: Vec<String> = release.signers.iter().map(ToString::to_string).collect();
    let mut signed_by = archive.signed_by.clone();
    signers.sort();
    signed_by.sort();
    same("the signers", signed_by.join(" "), signers.join(" "));
    let folder = archive.index_path.strip_prefix(&format!("dists/{}/", archive.suite)).unwrap_or_default();
    let folder = folder.split_once("/by-hash/").map_or(folder, |(folder, _)| folder);
    let name = format!("{}/Packages.xz", folder.trim_end_matches("/Packages.xz"));
    match release.index(&name) {
        Ok(entry) => {
            same("the digest of the index", archive.index_sha256.clone(), hex::encode(entry.sha256));
            same("the size of the index", archive.index_size.to_string(), entry.size.to_string());
        }
        Err(source) => breaks.push(Break::InRelease { suite: suite(), source }),
    }
    let mut text = Vec::new();
    if let Err(source) = deb::xz_reader(index).take(MAX_INDEX).read_to_end(&mut text) {
        breaks.push(Break::Decompress { suite: suite(), source });
        return breaks;
    }
    let packages = match packages::read(&text, ARCHITECTURE) {
        Ok(packages) => packages,
        Err(source) => {
            breaks.push(Break::Index { suite: suite(), source });
            return breaks;
        }
    };
    let mut listed: BTreeMap<&str, Vec<&packages::Package>> = BTreeMap::new();
    for package in &packages {
        listed.entry(package.name).or_default().push(package);
    }
    for deb in debs {
        let same = |package: &&packages::Package| {
            deb.version == package.version.as_str()
                && deb.path == package.filename
                && deb.size == package.size
                && deb.sha256 == hex::encode(package.sha256)
        };
        if !listed.get(deb.name.as_str()).is_some_and(|all| all.iter().any(same)) {
            let package = format!("{} {} ({})", deb.name, deb.version, deb.sha256);
            breaks.push(Break::Unlisted { package, suite: suite() });
        }
    }
    breaks
}
