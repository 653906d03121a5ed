//! Yields the lock of a recipe: every byte that enters an image, by name, version, size and digest.
//!
//! # Shape
//! `recipe.lock` is TOML: one table of general facts, then sorted blocks, one per input. Paths are relative
//! to a mirror of the named archive; the lock names no host. Digests are SHA-256 in hexadecimal; npm's own
//! digests stand beside them in SRI form.
//!
//! # Not here
//! Making a lock (`resolve`, `flow::lock`) and finding the bytes (`host::fetch`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rootfs::content::Sha256Digest;
use serde::{Deserialize, Serialize};

use crate::advice::{Advice, Advised};
use crate::recipe::Profile;

/// The lock format that this program writes, and the only one that it reads.
pub const VERSION: u32 = 1;

/// Why a lock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not a lock, or an edit broke it.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The lock.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The lock has another format version.
    #[error("{} has version {found}, expected {VERSION}", path.display())]
    Version {
        /// The lock.
        path: PathBuf,
        /// The version that the lock states.
        found: u32,
    },
    /// A value is invalid.
    #[error("{}: {what} of {name} is wrong: {found:?}", path.display())]
    Value {
        /// The lock.
        path: PathBuf,
        /// Which value.
        what: &'static str,
        /// The input that it belongs to.
        name: String,
        /// The value found.
        found: String,
    },
    /// The lock was made from another recipe.
    #[error("{} is stale: {reason}", path.display())]
    Stale {
        /// The lock.
        path: PathBuf,
        /// What does not match.
        reason: String,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        Some(Advice::failed(match self {
            Error::Stale { .. } => "run `proofmark lock` on the recipe, review the difference and commit it",
            _ => "undo manual edits, or run `proofmark lock` on the recipe to make a new lock",
        }))
    }
}

/// A whole lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lock {
    /// Format version of this file: [`VERSION`].
    pub version: u32,
    /// Digest of everything in the recipe that decides what the lock holds.
    pub recipe: String,
    /// The parts of this program that enter an image.
    pub tool: Tool,
    /// Numeric ids of users and groups.
    pub ids: Ids,
    /// Parts of a Debian archive, by name.
    #[serde(default, rename = "archive")]
    pub archives: Vec<Archive>,
    /// Debian packages, by name.
    #[serde(default, rename = "deb")]
    pub debs: Vec<Deb>,
    /// The package of QEMU's firmware, for reference values; it does not enter the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Deb>,
    /// npm packages: Node.js, the npm client and the applications' trees.
    #[serde(default, rename = "npm")]
    pub npm: Vec<Npm>,
    /// Configurations that their applications accepted.
    #[serde(default)]
    pub validated: Vec<Validated>,
}

/// A configuration that its application accepted, so that a build need not check it again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Validated {
    /// Name of the application.
    pub application: String,
    /// Digest of configuration, application and Node.js.
    pub key: String,
}

/// The parts of this program that enter an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tool {
    /// The compressor and its version, as `zstd 1.5.7`: another version produces other bytes.
    pub compressor: String,
    /// SHA-256 of the initrd's init program.
    pub init: String,
}

/// Numeric ids of users and groups, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ids {
    /// Users.
    pub users: BTreeMap<String, u32>,
    /// Groups.
    pub groups: BTreeMap<String, u32>,
}

/// One suite of a Debian archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Archive {
    /// The archive: `debian` or `debian-security`.
    pub name: String,
    /// Suite, as `trixie-updates`.
    pub suite: String,
    /// Path of its InRelease, relative to the archive.
    pub path: String,
    /// Size of the InRelease in bytes.
    pub size: u64,
    /// Digest of the InRelease.
    pub sha256: String,
    /// The date in the InRelease, as `20260912T075541Z`.
    pub date: String,
    /// Primary fingerprints of the pinned keys that signed it.
    pub signed_by: Vec<String>,
    /// Time of the dated snapshot that holds it, as `20260912T200000Z`.
    pub snapshot: String,
    /// Path of its package index, relative to the archive.
    pub index_path: String,
    /// Size of the package index in bytes.
    pub index_size: u64,
    /// Digest of the package index.
    pub index_sha256: String,
}

/// One Debian package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Deb {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture: `amd64` or `all`.
    pub architecture: String,
    /// The archive: `debian` or `debian-security`.
    pub archive: String,
    /// The suite that lists it.
    pub suite: String,
    /// Path relative to the archive.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: String,
    /// Why it is here: `recipe`, or the package that depends on it.
    pub wanted_by: String,
    /// The profiles that include it; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// Digests of its maintainer scripts and what replaces each, as `postinst 0123… inert`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<String>,
}

/// What an npm package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NpmRole {
    /// Node.js itself.
    Node,
    /// The npm client, which does not enter the image.
    Client,
    /// Part of an application.
    Application,
}

/// One npm package in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Npm {
    /// What it is for.
    pub role: NpmRole,
    /// The application that it belongs to; empty for Node.js and the client.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub application: String,
    /// Place in the application, as `node_modules/a/node_modules/b`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Name of the package.
    pub name: String,
    /// Version.
    pub version: String,
    /// Path relative to the registry.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: String,
    /// npm's own digest, as `sha512-…`.
    pub integrity: String,
    /// Its programs: name to path in the package.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bin: BTreeMap<String, String>,
    /// Licence, as the package states it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// The Node.js versions that it supports.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub engines: String,
    /// Digest of the attestations that the registry has for it; empty if there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub attestations: String,
    /// Size of the attestations in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attestations_size: u64,
    /// The repository that it was built from, as an authority certified it; empty if none did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Archive {
    /// Returns the signed release.
    pub fn blob(&self) -> Option<Blob> {
        self.file(&self.path, self.size, &self.sha256)
    }

    /// Returns the package index that the release names.
    pub fn index_blob(&self) -> Option<Blob> {
        self.file(&self.index_path, self.index_size, &self.index_sha256)
    }

    fn file(&self, path: &str, size: u64, sha256: &str) -> Option<Blob> {
        Some(Blob {
            sha256: Sha256Digest::parse(sha256)?,
            size,
            archive: ArchiveKind::named(&self.name)?,
            path: path.to_owned(),
            snapshot: self.snapshot.clone(),
            label: format!("{} {}", self.suite, path.rsplit('/').next().unwrap_or(path)),
        })
    }
}

/// One file to fetch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob {
    /// Digest.
    pub sha256: Sha256Digest,
    /// Size in bytes.
    pub size: u64,
    /// The kind of mirror that has it.
    pub archive: ArchiveKind,
    /// Path relative to the mirror.
    pub path: String,
    /// Time of the dated snapshot, for Debian's archives.
    pub snapshot: String,
    /// Name and version, for people.
    pub label: String,
}

/// The kind of mirror that has a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArchiveKind {
    /// Debian's main archive.
    Debian,
    /// Debian's security archive.
    DebianSecurity,
    /// The npm registry.
    Npm,
}

impl ArchiveKind {
    /// Returns its name in locks and vendored folders.
    pub fn name(self) -> &'static str {
        match self {
            ArchiveKind::Debian => "debian",
            ArchiveKind::DebianSecurity => "debian-security",
            ArchiveKind::Npm => "npm",
        }
    }

    /// Returns the kind with this name.
    pub fn named(name: &str) -> Option<Self> {
        [ArchiveKind::Debian, ArchiveKind::DebianSecurity, ArchiveKind::Npm]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl Lock {
    /// Reads a lock; `path` is for error messages.
    ///
    /// # Errors
    /// [`Error::Syntax`], [`Error::Version`] or [`Error::Value`].
    pub fn parse(text: &str, path: &Path) -> Result<Lock, Error> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let syntax = |error: toml::de::Error| Error::Syntax {
            path: path.to_owned(),
            line: error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |text| text.matches('\n').count() + 1),
            message: error.message().trim().to_owned(),
        };
        let other = |found| Error::Version { path: path.to_owned(), found };
        let lock: Lock = toml::from_str(text).map_err(|error| match toml::from_str::<Head>(text) {
            // A lock of another version may have fields that this program does not know: report the version.
            Ok(head) if head.version != VERSION => other(head.version),
            _ => syntax(error),
        })?;
        if lock.version != VERSION {
            return Err(other(lock.version));
        }
        lock.check(path)?;
        Ok(lock)
    }

    fn check(&self, path: &Path) -> Result<(), Error> {
        let wrong = |what, name: &str, found: &str| Error::Value {
            path: path.to_owned(),
            what,
            name: name.to_owned(),
            found: found.to_owned(),
        };
        let digest = |name: &str, text: &str| {
            let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
            Sha256Digest::parse(text).filter(|_| lower).map(|_| ()).ok_or_else(|| wrong("sha256", name, text))
        };
        let relative = |name: &str, text: &str| {
            let plain = !text.is_empty()
                && !text.contains([':', '?', '#', '\\'])
                && text.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
            plain.then_some(()).ok_or_else(|| wrong("path", name, text))
        };
        digest("the recipe", &self.recipe)?;
        digest("the initrd's program", &self.tool.init)?;
        let mut places = BTreeSet::new();
        for archive in &self.archives {
            digest(&archive.suite, &archive.sha256)?;
            digest(&archive.suite, &archive.index_sha256)?;
            relative(&archive.suite, &archive.path)?;
            relative(&archive.suite, &archive.index_path)?;
            ArchiveKind::named(&archive.name)
                .ok_or_else(|| wrong("archive", &archive.suite, &archive.name))?;
            if !places.insert(format!("suite {}", archive.suite)) {
                return Err(wrong("suite", &archive.suite, "listed twice"));
            }
        }
        let debs = self.debs.iter().map(|deb| ("deb", deb));
        for (role, deb) in debs.chain(self.firmware.iter().map(|deb| ("firmware", deb))) {
            digest(&deb.name, &deb.sha256)?;
            relative(&deb.name, &deb.path)?;
            if !places.insert(format!("{role} {}", deb.name)) {
                return Err(wrong("name", &deb.name, "listed twice"));
            }
            let suite = self.archives.iter().find(|archive| archive.suite == deb.suite);
            if suite.is_none_or(|suite| suite.name != deb.archive) {
                return Err(wrong("suite", &deb.name, &deb.suite));
            }
        }
        for npm in &self.npm {
            let name = format!("{} {}", npm.name, npm.location);
            digest(&name, &npm.sha256)?;
            relative(&name, &npm.path)?;
            if npm.role == NpmRole::Application {
                relative(&name, &npm.location)?;
            }
            if npm.attestations.is_empty() && !npm.source.is_empty() {
                return Err(wrong("source", &name, &npm.source));
            }
            if !npm.attestations.is_empty() {
                digest(&name, &npm.attestations)?;
                relative(&name, &npm.attestations_path())?;
            }
            if !places.insert(format!("npm {} {} {}", npm.role as u8, npm.application, npm.location)) {
                return Err(wrong("location", &name, "listed twice"));
            }
        }
        Ok(())
    }

    /// Checks that this lock was made from a recipe with this digest ([`crate::recipe::lock_digest`]) and
    /// names what this program would put into an image.
    ///
    /// # Errors
    /// [`Error::Stale`].
    pub fn fits(&self, path: &Path, recipe: &str, tool: &Tool) -> Result<(), Error> {
        let stale = |reason: String| Err(Error::Stale { path: path.to_owned(), reason });
        if self.recipe != recipe {
            return stale(
                "the recipe's packages, versions or accounts have changed since it was made".to_owned(),
            );
        }
        if self.tool.compressor != tool.compressor {
            return stale(format!(
                "it was made with {}, but this program compresses with {}",
                self.tool.compressor, tool.compressor
            ));
        }
        if self.tool.init != tool.init {
            return stale(format!(
                "it names the initrd program {}, but this program carries {}",
                self.tool.init, tool.init
            ));
        }
        Ok(())
    }

    /// Formats the lock; equal locks give the same text.
    pub fn to_text(&self) -> String {
        let mut sorted = self.clone();
        sorted.archives.sort_by(|a, b| (&a.name, &a.suite).cmp(&(&b.name, &b.suite)));
        sorted.debs.sort_by(|a, b| a.name.cmp(&b.name));
        let key = |npm: &Npm| (npm.role, npm.application.clone(), npm.location.clone(), npm.name.clone());
        sorted.npm.sort_by_key(key);
        // TOML can hold all of it: strings, integers, lists and maps of them, with the tables last.
        let body = toml::to_string(&sorted).unwrap_or_default();
        format!(
            "# What an image is made of, written by `proofmark lock`. Change the recipe, not this file.\n{body}"
        )
    }

    /// Returns the packages of a profile.
    pub fn debs_of(&self, profile: Profile) -> impl Iterator<Item = &Deb> {
        self.debs.iter().filter(move |deb| deb.profiles.is_empty() || deb.profiles.contains(&profile))
    }

    /// Returns the newest date of its archives in seconds since 1970: the time of every file in the image.
    pub fn epoch(&self) -> u64 {
        self.archives.iter().filter_map(|archive| moment_seconds(&archive.date)).max().unwrap_or(0)
    }

    /// Returns the file of a Debian package.
    pub fn blob_of_deb(&self, deb: &Deb) -> Option<Blob> {
        let archive = self.archives.iter().find(|archive| archive.suite == deb.suite)?;
        Some(Blob {
            sha256: Sha256Digest::parse(&deb.sha256)?,
            size: deb.size,
            archive: ArchiveKind::named(&deb.archive)?,
            path: deb.path.clone(),
            snapshot: archive.snapshot.clone(),
            label: format!("{} {}", deb.name, deb.version),
        })
    }

    /// Returns the package indices of the archives, from which an auditor resolves again.
    pub fn blobs_of_indices(&self) -> Vec<Blob> {
        self.archives.iter().filter_map(Archive::index_blob).collect()
    }

    /// Returns what others signed about the inputs and the lock carries beside it: the signed releases and
    /// the registries' attestations.
    pub fn blobs_to_carry(&self) -> Vec<Blob> {
        let releases = self.archives.iter().filter_map(Archive::blob);
        releases.chain(self.blobs_of_attestations()).collect()
    }

    fn blobs_of_attestations(&self) -> Vec<Blob> {
        let mut all: Vec<Blob> = self.npm.iter().filter_map(Npm::attestations_blob).collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        all.dedup();
        all
    }

    /// Returns every file that a build of these profiles reads, without duplicates, ordered by path.
    pub fn blobs(&self, profiles: &[Profile]) -> Vec<Blob> {
        let debs = profiles
            .iter()
            .flat_map(|profile| self.debs_of(*profile))
            .chain(&self.firmware)
            .filter_map(|deb| self.blob_of_deb(deb));
        let npm = self.npm.iter().filter_map(Npm::blob);
        let mut all: Vec<Blob> = debs.chain(npm).collect();
        all.sort_by(|a, b| (a.archive, &a.path).cmp(&(b.archive, &b.path)));
        all.dedup();
        all
    }
}

impl Npm {
    /// Returns the file of this package.
    pub fn blob(&self) -> Option<Blob> {
        Some(Blob {
            sha256: Sha256Digest::parse(&self.sha256)?,
            size: self.size,
            archive: ArchiveKind::Npm,
            path: self.path.clone(),
            snapshot: String::new(),
            label: format!("{}@{}", self.name, self.version),
        })
    }

    /// Returns the path of this package's attestations, relative to the registry.
    pub fn attestations_path(&self) -> String {
        format!("-/npm/v1/attestations/{}@{}", self.name.replace('/', "%2f"), self.version)
    }

    /// Returns the file of its attestations, if the registry has any.
    pub fn attestations_blob(&self) -> Option<Blob> {
        Some(Blob {
            sha256: Sha256Digest::parse(&self.attestations)?,
            size: self.attestations_size,
            path: self.attestations_path(),
            label: format!("attestations of {}@{}", self.name, self.version),
            ..self.blob()?
        })
    }
}

/// Converts a time such as `20260912T075541Z` to seconds since 1970; `None` if it is malformed.
pub fn moment_seconds(moment: &str) -> Option<u64> {
    let number = |range| moment.get(range).and_then(|digits: &str| digits.parse::<u64>().ok());
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
    if moment.len() != 16 || !moment.ends_with('Z') || year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    // Days from the civil calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let of_era = year % 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let days = (year / 400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some((days.checked_sub(719_468)?) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Formats seconds since 1970, as `20260912T075541Z`.
pub fn moment(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let rest = seconds % 86_400;
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small lock for tests.
    pub(crate) fn sample() -> Lock {
        let digest = |byte: &str| byte.repeat(32);
        Lock {
            version: VERSION,
            recipe: digest("aa"),
            tool: Tool { compressor: "zstd 1.5.7".into(), init: digest("bb") },
            ids: Ids {
                users: BTreeMap::from([("root".into(), 0)]),
                groups: BTreeMap::from([("root".into(), 0), ("tss".into(), 998)]),
            },
            archives: vec![Archive {
                name: "debian".into(),
                suite: "trixie".into(),
                path: "dists/trixie/InRelease".into(),
                size: 1,
                sha256: digest("cc"),
                date: "20260912T075541Z".into(),
                signed_by: vec!["ABCD".into()],
                snapshot: "20260912T200000Z".into(),
                index_path: "dists/trixie/main/binary-amd64/Packages.xz".into(),
                index_size: 2,
                index_sha256: digest("dd"),
            }],
            debs: ["b", "a"]
                .map(|name| Deb {
                    name: name.into(),
                    version: "1:2-3".into(),
                    architecture: "amd64".into(),
                    archive: "debian".into(),
                    suite: "trixie".into(),
                    path: format!("pool/{name}.deb"),
                    size: 10,
                    sha256: digest("ee"),
                    wanted_by: "recipe".into(),
                    profiles: if name == "b" { vec![Profile::Debug] } else { vec![] },
                    scripts: vec![],
                })
                .to_vec(),
            firmware: None,
            npm: vec![Npm {
                role: NpmRole::Application,
                application: "x".into(),
                location: "node_modules/x".into(),
                name: "x".into(),
                version: "1.0.0".into(),
                path: "x/-/x-1.0.0.tgz".into(),
                size: 5,
                sha256: digest("ff"),
                integrity: "sha512-AA==".into(),
                bin: BTreeMap::from([("x".into(), "x.js".into())]),
                license: "MIT".into(),
                engines: String::new(),
                attestations: String::new(),
                attestations_size: 0,
                source: String::new(),
            }],
            validated: vec![],
        }
    }

    #[test]
    fn a_lock_reads_back_as_it_was_and_is_sorted() {
        let text = sample().to_text();
        let read = Lock::parse(&text, Path::new("recipe.lock")).unwrap();
        assert_eq!(read.to_text(), text);
        assert_eq!(read.debs.iter().map(|deb| deb.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(read.debs_of(Profile::Release).count(), 1);
        assert_eq!(read.blobs(&Profile::ALL).len(), 3);
    }

    #[test]
    fn a_lock_that_says_what_cannot_be_is_refused() {
        let text = sample().to_text();
        let digest = "ee".repeat(32);
        for (from, to, what) in [
            ("version = 1", "version = 2", "version 2"),
            ("pool/a.deb", "pool/../../a.deb", "path"),
            ("pool/a.deb", "/pool/a.deb", "path"),
            ("pool/a.deb", "http://host/a.deb", "path"),
            (digest.as_str(), "ee", "sha256"),
            ("size = 10", "size = \"ten\"", "invalid type"),
            ("name = \"a\"", "name = \"b\"", "twice"),
            ("wanted-by", "wantd-by", "unknown field"),
            ("suite = \"trixie\"\npath = \"pool", "suite = \"sid\"\npath = \"pool", "suite"),
        ] {
            let bad = text.replace(from, to);
            assert_ne!(bad, text, "{from}");
            let error = Lock::parse(&bad, Path::new("recipe.lock")).unwrap_err().to_string();
            assert!(error.contains(what), "{from} -> {to}: {error}");
        }
        // The path of attestations is made from the name and the version.
        let mut lock = sample();
        (lock.npm[0].attestations, lock.npm[0].version) = (digest, "1/../../../x".into());
        let error = Lock::parse(&lock.to_text(), Path::new("recipe.lock")).unwrap_err().to_string();
        assert!(error.contains("path"), "{error}");
        // A source repository without attestations.
        let mut lock = sample();
        lock.npm[0].source = "https://code.example.org/x".into();
        let error = Lock::parse(&lock.to_text(), Path::new("recipe.lock")).unwrap_err().to_string();
        assert!(error.contains("source"), "{error}");
    }

    #[test]
    fn a_stale_lock_says_what_does_not_fit() {
        let lock = sample();
        let path = Path::new("recipe.lock");
        let reason = |recipe: &str, tool: &Tool| lock.fits(path, recipe, tool).unwrap_err().to_string();
        assert!(lock.fits(path, &lock.recipe, &lock.tool).is_ok());
        assert!(reason("00", &lock.tool).contains("recipe's packages"));
        let other = Tool { compressor: "zstd 9".into(), ..lock.tool.clone() };
        assert!(reason(&lock.recipe, &other).contains("compresses with zstd 9"));
        let other = Tool { init: "00".into(), ..lock.tool.clone() };
        assert!(reason(&lock.recipe, &other).contains("initrd program"));
    }

    #[test]
    fn moments_and_seconds_are_one_another() {
        for (text, seconds) in
            [("19700101T000000Z", 0), ("20000229T120000Z", 951_825_600), ("20260912T075541Z", 1_789_199_741)]
        {
            assert_eq!(moment_seconds(text), Some(seconds), "{text}");
            assert_eq!(moment(seconds), text);
        }
        for text in ["", "today", "2026-09-12T07:55Z", "19691231T000000Z", "20261301T000000Z"] {
            assert_eq!(moment_seconds(text), None, "{text}");
        }
    }
}
