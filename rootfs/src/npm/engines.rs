//! Yields whether packages admit a Node.js version, by the `engines.node` range that each declares.
//!
//! # Source
//! `npm-install-checks` (`checkEngine`) and the range grammar of node-semver. npm itself only warns; a measured build
//! refuses.
//!
//! # Not here
//! `engines.npm`: there is no npm in an image.

use nodejs_semver::{Range, Version};

use super::lock::Entry;

/// Why packages cannot run on a version of Node.js.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Node.js version is not valid.
    #[error("invalid Node.js version {0:?}")]
    Node(String),
    /// A range that is not valid.
    #[error("{name}@{version} ({location}) has an invalid Node.js version range {range:?}")]
    Range {
        /// Name of the package.
        name: String,
        /// Its version.
        version: String,
        /// Its location in the application.
        location: String,
        /// Its range.
        range: String,
    },
    /// A range that does not admit the version.
    #[error("{name}@{version} ({location}) needs Node.js {range:?}, but the recipe pins {node}")]
    Unmet {
        /// Name of the package.
        name: String,
        /// Its version.
        version: String,
        /// Its location in the application.
        location: String,
        /// Its range.
        range: String,
        /// The pinned version.
        node: String,
    },
}

/// Checks that every entry admits Node.js `node`; an entry without a range admits every version.
///
/// # Errors
/// [`Error`] for the first entry that does not.
pub fn check<'a>(entries: impl IntoIterator<Item = &'a Entry>, node: &str) -> Result<(), Error> {
    let pinned = Version::parse(node).map_err(|_| Error::Node(node.to_owned()))?;
    for entry in entries {
        let Some(range) = entry.engines.as_deref() else { continue };
        let subject = || {
            (entry.name.to_string(), entry.version.to_string(), entry.location.to_string(), range.to_owned())
        };
        // An empty range is "*" to node-semver.
        let wanted = if range.trim().is_empty() { "*" } else { range };
        let wanted = Range::parse(wanted).map_err(|_| {
            let (name, version, location, range) = subject();
            Error::Range { name, version, location, range }
        })?;
        if !wanted.satisfies(&pinned) {
            let (name, version, location, range) = subject();
            return Err(Error::Unmet { name, version, location, range, node: node.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::npm::lock::tests::entry;

    fn asks(range: &str) -> Entry {
        Entry { engines: Some(range.into()), ..entry("node_modules/a") }
    }

    #[test]
    fn the_ranges_that_packages_use_are_understood() {
        // The left ones admit 22.19.0, the right ones do not; from real packages, or from node-semver's README.
        let admitted = [
            ">=22.14.0",
            "^20 || ^22",
            ">= 18",
            "*",
            "",
            "x",
            "22",
            "22.x",
            "6.* || 8.* || >= 10.*",
            "~22.19",
            ">=16 || 14 >=14.17",
            "4.x || >=6.0.0",
            "^18 || ^20 || >= 21",
            "18 || 20 || >=22",
            "20.0.0 - 22.19",
            "20 - 22",
            ">=0.6.x",
            "^12.20 || >= 14.13",
            ">=22.19.0",
            ">22.18 <23",
            "=22.19.0",
            "v22.19.0",
        ];
        for range in admitted {
            assert_eq!(check([&asks(range)], "22.19.0"), Ok(()), "{range}");
        }
        let refused = [
            ">=24.16.0 <25 || >=26.1.0",
            "^20",
            "20 || 21",
            "<22",
            "~22.18",
            "20.0.0 - 22.18",
            "21.x",
            ">22.19.0",
            "^22.20.0",
            "22.18.*",
        ];
        for range in refused {
            assert!(matches!(check([&asks(range)], "22.19.0"), Err(Error::Unmet { .. })), "{range}");
        }
    }

    #[test]
    fn a_violation_names_package_range_and_version() {
        let error = check([&entry("node_modules/b"), &asks(">=24")], "22.19.0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "a@1.0.0 (node_modules/a) needs Node.js \">=24\", but the recipe pins 22.19.0"
        );
    }

    #[test]
    fn an_invalid_range_or_version_is_refused() {
        assert!(matches!(check([&asks("latest and greatest")], "22.19.0"), Err(Error::Range { .. })));
        assert_eq!(check([], "twenty-two"), Err(Error::Node("twenty-two".to_owned())));
    }
}
