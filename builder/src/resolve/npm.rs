//! Yields the lock's entries of an npm application, from what npm resolved.
//!
//! # Shape
//! ```text
//! name, exact version ──package_json──> npm install --package-lock-only (host::npm_resolver)
//!                                             │ package-lock.json
//! lock::Npm … <──locked── (sizes and digests of the fetched tarballs) <── Resolved ──resolved┘
//! lock::Npm … ──entry──> rootfs::npm::lock::Entry …                                 (at build time)
//! ```
//!
//! # Source
//! npm's documentation, "package.json" and "package-lock.json".
//!
//! # Not here
//! Running npm (`host::npm_resolver`) and fetching tarballs (`host::fetch`).

use std::collections::BTreeMap;

use rootfs::content::Sha256Digest;
use rootfs::npm::lock::{Entry, LINUX_X64_GLIBC, PackageLock, Wanted};
use rootfs::npm::{engines, integrity, lock as package_lock};

use crate::lock::{Npm, NpmRole};

/// Why an application cannot be locked, or its lock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A version is not exact.
    #[error("{name}@{version} is not an exact version")]
    NotExact {
        /// Name of the package.
        name: String,
        /// What was asked for.
        version: String,
    },
    /// The package-lock is refused.
    #[error("npm's resolution of {application} is refused")]
    Lock {
        /// Name of the application.
        application: String,
        /// Why.
        source: package_lock::Error,
    },
    /// The application is not what was asked for.
    #[error("npm resolved {name} to {found:?}, expected {expected}")]
    Drifted {
        /// Name of the package.
        name: String,
        /// What npm chose; empty if nothing.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// A package does not run on the pinned Node.js.
    #[error("{application} does not run on the pinned Node.js")]
    Engines {
        /// Name of the application.
        application: String,
        /// Which package, and why.
        source: engines::Error,
    },
    /// An integrity value in the lock is invalid.
    #[error("{location} has an invalid integrity value")]
    Integrity {
        /// Place of the package.
        location: String,
        /// Why.
        source: integrity::Error,
    },
}

/// Returns the `package.json` of a folder that holds one application and nothing else. `overrides` sets exact
/// versions of packages below it, by name.
///
/// # Errors
/// [`Error::NotExact`].
pub fn package_json(
    name: &str,
    version: &str,
    overrides: &BTreeMap<String, String>,
) -> Result<String, Error> {
    for (name, version) in std::iter::once((name, version)).chain(overrides.iter().map(|(n, v)| (&**n, &**v)))
    {
        let exact = semver::Version::parse(version).is_ok_and(|parsed| parsed.to_string() == version);
        if !exact {
            return Err(Error::NotExact { name: name.to_owned(), version: version.to_owned() });
        }
    }
    let mut document = serde_json::json!({
        "name": "application",
        "version": "1.0.0",
        "private": true,
        "dependencies": { name: version },
    });
    if let (false, Some(document)) = (overrides.is_empty(), document.as_object_mut()) {
        document.insert("overrides".to_owned(), serde_json::json!(overrides));
    }
    Ok(format!("{document:#}\n"))
}

/// Reads the packages that an image gets for an application from the package-lock that npm wrote: those for
/// the image's platform. All of them must run on Node.js `node`.
///
/// # Errors
/// [`Error::Lock`], [`Error::Drifted`] or [`Error::Engines`].
pub fn resolved(package_lock: &[u8], name: &str, version: &str, node: &str) -> Result<Vec<Entry>, Error> {
    let refused = |source| Error::Lock { application: name.to_owned(), source };
    let lock = PackageLock::parse(package_lock).map_err(refused)?;
    let entries: Vec<Entry> = lock.select(&LINUX_X64_GLIBC).map_err(refused)?.into_iter().cloned().collect();
    let place = format!("node_modules/{name}");
    let found = entries.iter().find(|entry| *entry.location == *place);
    match found {
        Some(entry) if *entry.version == *version && *entry.name == *name => {}
        other => {
            let found = other.map(|entry| format!("{}@{}", entry.name, entry.version)).unwrap_or_default();
            return Err(Error::Drifted { name: name.to_owned(), found, expected: version.to_owned() });
        }
    }
    engines::check(&entries, node)
        .map_err(|source| Error::Engines { application: name.to_owned(), source })?;
    Ok(entries)
}

/// Returns the lock's block for a package whose tarball has this size and digest.
pub fn locked(entry: &Entry, application: &str, size: u64, sha256: Sha256Digest) -> Npm {
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().to_owned();
    Npm {
        role: NpmRole::Application,
        application: application.to_owned(),
        location: entry.location.to_string(),
        name: entry.name.to_string(),
        version: entry.version.to_string(),
        path: entry.tarball_path(),
        size,
        sha256: sha256.to_string(),
        integrity: entry.integrity.to_string(),
        bin: entry.bin.iter().map(|(name, file)| (name.to_string(), file.to_string())).collect(),
        license: text(&entry.license),
        engines: text(&entry.engines),
        attestations: String::new(),
        attestations_size: 0,
        source: String::new(),
    }
}

/// Returns the package that a block of the lock describes.
///
/// # Errors
/// [`Error::Integrity`].
pub fn entry(npm: &Npm) -> Result<Entry, Error> {
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    let integrity = npm
        .integrity
        .parse()
        .map_err(|source| Error::Integrity { location: npm.location.clone(), source })?;
    Ok(Entry {
        location: npm.location.as_str().into(),
        name: npm.name.as_str().into(),
        version: npm.version.as_str().into(),
        integrity,
        bin: npm.bin.iter().map(|(name, file)| (name.as_str().into(), file.as_str().into())).collect(),
        os: Vec::new(),
        cpu: Vec::new(),
        libc: Vec::new(),
        wanted: Wanted::Always,
        has_install_script: false,
        engines: text(&npm.engines),
        license: text(&npm.license),
        needs: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package_lock(version: &str, more: &str) -> String {
        let integrity = rootfs::npm::integrity::Integrity::of(b"");
        format!(
            r#"{{"lockfileVersion":3,"packages":{{"":{{"dependencies":{{"a":"{version}"}}}},
            "node_modules/a":{{"version":"{version}","integrity":"{integrity}","bin":{{"a":"c.js"}},"license":"MIT"{more}}},
            "node_modules/b":{{"version":"2.0.0","integrity":"{integrity}","optional":true,"os":["darwin"]}}}}}}"#
        )
    }

    #[test]
    fn a_package_json_asks_for_exact_versions_only() {
        let overrides = BTreeMap::from([("b".to_owned(), "2.0.0".to_owned())]);
        let text = package_json("@s/a", "1.2.3-rc.1", &overrides).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["dependencies"], serde_json::json!({"@s/a": "1.2.3-rc.1"}));
        assert_eq!(document["overrides"], serde_json::json!({"b": "2.0.0"}));
        for version in ["^1.0.0", "latest", "1.0", "1.0.0 || 2", "npm:b@1.0.0", "http://r/a.tgz", ""] {
            assert!(
                matches!(package_json("a", version, &overrides), Err(Error::NotExact { .. })),
                "{version}"
            );
        }
        let ranges = BTreeMap::from([("b".to_owned(), "^2".to_owned())]);
        assert!(
            matches!(package_json("a", "1.0.0", &ranges), Err(Error::NotExact { name, .. }) if name == "b")
        );
    }

    #[test]
    fn a_package_survives_the_lock() {
        let text = package_lock("1.0.0", r#","engines":{"node":">=22"}"#);
        let entries = resolved(text.as_bytes(), "a", "1.0.0", "22.19.0").unwrap();
        assert_eq!(entries.len(), 1, "{entries:?}");
        let npm = locked(&entries[0], "a", 3, Sha256Digest::of(b"abc"));
        assert_eq!((&*npm.path, npm.size, &*npm.license), ("a/-/a-1.0.0.tgz", 3, "MIT"));
        assert_eq!(entry(&npm).unwrap(), entries[0]);
    }

    #[test]
    fn another_version_than_asked_for_is_refused() {
        let text = package_lock("1.0.1", "");
        let error = resolved(text.as_bytes(), "a", "1.0.0", "22.19.0").unwrap_err();
        assert_eq!(error.to_string(), "npm resolved a to \"a@1.0.1\", expected 1.0.0");
        assert!(matches!(resolved(text.as_bytes(), "c", "1.0.0", "22.19.0"), Err(Error::Drifted { .. })));
    }

    #[test]
    fn a_package_for_another_node_and_a_lock_that_is_none_are_refused() {
        let text = package_lock("1.0.0", r#","engines":{"node":">=24"}"#);
        assert!(matches!(resolved(text.as_bytes(), "a", "1.0.0", "22.19.0"), Err(Error::Engines { .. })));
        assert!(matches!(resolved(b"{}", "a", "1.0.0", "22.19.0"), Err(Error::Lock { .. })));
    }
}
