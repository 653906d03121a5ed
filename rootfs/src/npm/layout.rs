//! Yields the links of each package in `node_modules/.bin`, from all installed packages.
//!
//! # Shape
//! ```text
//! node_modules/openclaw            bin {"openclaw": "openclaw.mjs"}
//! node_modules/.bin/openclaw    -> ../openclaw/openclaw.mjs
//! ```
//! Every `node_modules` folder has its own `.bin`. Packages are sorted by depth, then by location in English collation
//! order; the first that claims a name in a `.bin` gets it, even if its file does not exist.
//!
//! # Source
//! `@npmcli/arborist` `lib/arborist/rebuild.js` (`sortNodes`: depth, then `localeCompare(path, 'en')`), and
//! `bin-links` (`link-bins.js`, and `seen` in `link-gently.js`). Collation: Unicode CLDR root order.
//!
//! # Not here
//! Whether the file exists, which depends on the tarball: `tarball`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::lock::Entry;

/// One link of a `.bin` folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinLink {
    /// Its path relative to the application's root.
    pub path: String,
    /// What it points to, relative to its folder.
    pub target: String,
    /// The target, relative to its package.
    pub file: String,
}

/// A package and its links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its entry in the lock.
    pub entry: Entry,
    /// Its links, in the order of their names.
    pub links: Vec<BinLink>,
}

/// Returns each entry with its links, in the order of the entries.
pub fn lay_out<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<Package> {
    let entries: Vec<&Entry> = entries.into_iter().collect();
    let mut order: Vec<&Entry> = entries.clone();
    order.sort_by(|a, b| a.depth().cmp(&b.depth()).then_with(|| collate(&a.location, &b.location)));
    let mut claimed = BTreeSet::new();
    let mut links: BTreeMap<&str, Vec<BinLink>> = BTreeMap::new();
    for entry in order {
        let location = &*entry.location;
        // `node_modules/a/node_modules/@s/b` is `@s/b` in `node_modules/a/node_modules`.
        let folder = location.rfind("node_modules/").map_or(0, |start| start + "node_modules".len());
        let (folder, place) = location.split_at_checked(folder).unwrap_or((location, ""));
        for (command, file) in &entry.bin {
            let path = format!("{folder}/.bin/{command}");
            if claimed.insert(path.clone()) {
                let link = BinLink { path, target: format!("..{place}/{file}"), file: file.to_string() };
                links.entry(location).or_default().push(link);
            }
        }
    }
    let package = |entry: &Entry| Package {
        entry: entry.clone(),
        links: links.remove(&*entry.location).unwrap_or_default(),
    };
    entries.into_iter().map(package).collect()
}

/// Compares two locations as the English collation does: punctuation, digits, letters; case only if all else is equal,
/// lower case first.
fn collate(a: &str, b: &str) -> Ordering {
    let weights = |text: &str| -> Vec<(u8, u8)> { text.bytes().map(weight).collect() };
    let case = |text: &str| -> Vec<bool> { text.bytes().map(|byte| byte.is_ascii_uppercase()).collect() };
    weights(a).cmp(&weights(b)).then_with(|| case(a).cmp(&case(b)))
}

/// The primary weight of a character of a location.
fn weight(byte: u8) -> (u8, u8) {
    const PUNCTUATION: &[u8] = b"_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";
    match PUNCTUATION.iter().position(|&one| one == byte) {
        Some(place) => (0, place as u8),
        None => (1, byte.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::npm::lock::tests::entry;

    fn with_bin(location: &str, bin: &[(&str, &str)]) -> Entry {
        let bin = bin.iter().map(|(name, file)| ((*name).into(), (*file).into())).collect();
        Entry { bin, ..entry(location) }
    }

    fn links(entries: &[Entry]) -> Vec<(String, String)> {
        let links = lay_out(entries).into_iter().flat_map(|package| package.links);
        links.map(|link| (link.path, link.target)).collect()
    }

    fn pair(path: &str, target: &str) -> (String, String) {
        (path.to_owned(), target.to_owned())
    }

    #[test]
    fn links_lie_in_the_bin_folder_beside_their_package() {
        let entries = [
            with_bin("node_modules/@s/b", &[("b", "bin/b.js")]),
            with_bin("node_modules/a", &[("a", "cli.js"), ("a2", "cli2.js")]),
            with_bin("node_modules/a/node_modules/c", &[("c", "c")]),
        ];
        let want = [
            pair("node_modules/.bin/b", "../@s/b/bin/b.js"),
            pair("node_modules/.bin/a", "../a/cli.js"),
            pair("node_modules/.bin/a2", "../a/cli2.js"),
            pair("node_modules/a/node_modules/.bin/c", "../c/c"),
        ];
        assert_eq!(links(&entries), want);
    }

    #[test]
    fn the_first_package_in_npms_order_gets_a_contested_name() {
        let entries = [
            with_bin("node_modules/a-b", &[("x", "1")]),
            with_bin("node_modules/@s/z", &[("x", "2")]),
            with_bin("node_modules/A", &[("x", "3")]),
            with_bin("node_modules/a", &[("y", "4")]),
            with_bin("node_modules/Y", &[("y", "5")]),
            with_bin("node_modules/a/node_modules/q", &[("x", "6")]),
        ];
        let want = [
            pair("node_modules/.bin/x", "../@s/z/2"),
            pair("node_modules/.bin/y", "../a/4"),
            pair("node_modules/a/node_modules/.bin/x", "../q/6"),
        ];
        assert_eq!(links(&entries), want);
    }

    #[test]
    fn locations_collate_as_in_node() {
        // Sorted by `localeCompare(…, 'en')` of Node.js 22.
        let sorted = [
            "_a", "-a", ".a", "@a", "a", "A", "a_b", "a-b", "a.b", "a/b", "a~b", "a1", "ab", "aB", "B", "b1",
        ];
        for pair in sorted.windows(2) {
            assert_eq!(collate(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
    }
}
