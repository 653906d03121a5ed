//! Yields dpkg's database of installed packages, for vulnerability scanners, from the packages' control stanzas.
//!
//! # Shape
//! ```text
//! var/lib/dpkg/status                 a stanza for each package, by name, with Status: install ok installed
//! var/lib/dpkg/info/NAME.list         its paths in the image, one per line; NAME:ARCH where it is Multi-Arch: same
//! var/lib/dpkg/info/NAME.md5sums      as in the package
//! ```
//!
//! # Source
//! deb-control(5), dpkg `lib/dpkg/dump.c` and `lib/dpkg/db-ctrl-access.c` (names of the info files).
//!
//! # Not here
//! Conffiles and triggers: nothing is upgraded in a read-only image.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::content::Content;
use crate::path::{self, TreePath};
use crate::tree::{self, Node, Origin, Tree};

const DIRECTORY: &str = "var/lib/dpkg";

/// Fields of an archive's index that the database does not have.
const INDEX_FIELDS: [&str; 6] = ["Filename", "Size", "MD5sum", "SHA1", "SHA256", "Description-md5"];

/// Why a database cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A stanza lacks a field.
    #[error("control stanza {name:?} has no field {field}")]
    Field {
        /// The package, if known.
        name: String,
        /// The field.
        field: &'static str,
    },
    /// A line that is neither a field nor a continuation.
    #[error("control stanza {name:?}: line {line} is not a field: {text:?}")]
    Line {
        /// The package, if known.
        name: String,
        /// The line, from 1.
        line: usize,
        /// The text of the line.
        text: String,
    },
    /// A package is listed twice.
    #[error("package {0} is listed twice")]
    Twice(String),
    /// A name that is not a valid file name.
    #[error("package name {0:?} is not valid")]
    Name(String),
    /// The tree cannot be changed.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A string is not a path.
    #[error(transparent)]
    Path(#[from] path::Error),
}

/// An installed package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package<'p> {
    /// Its control stanza.
    pub control: &'p str,
    /// The `md5sums` member of its control archive.
    pub md5sums: Option<&'p str>,
}

/// A stanza: its fields in order, each with the lines that continue it.
struct Stanza<'p> {
    fields: Vec<(&'p str, String)>,
}

impl<'p> Stanza<'p> {
    fn parse(control: &'p str) -> Result<Self, Error> {
        let mut stanza = Stanza { fields: Vec::new() };
        for (index, line) in control.trim_matches('\n').lines().enumerate() {
            let wrong = || Error::Line {
                name: stanza.value("Package").unwrap_or("").to_owned(),
                line: index + 1,
                text: line.to_owned(),
            };
            if line.starts_with([' ', '\t']) && !line.trim().is_empty() {
                let error = wrong();
                let (_, value) = stanza.fields.last_mut().ok_or(error)?;
                value.push('\n');
                value.push_str(line);
                continue;
            }
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(wrong());
            }
            stanza.fields.push((name, value.trim().to_owned()));
        }
        Ok(stanza)
    }

    fn value(&self, wanted: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }

    fn require(&self, field: &'static str) -> Result<&str, Error> {
        let name = self.value("Package").unwrap_or("").to_owned();
        self.value(field).filter(|value| !value.is_empty()).ok_or(Error::Field { name, field })
    }

    /// The stanza in the form of the database.
    fn installed(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.fields {
            if name.eq_ignore_ascii_case("Status")
                || INDEX_FIELDS.iter().any(|no| no.eq_ignore_ascii_case(name))
            {
                continue;
            }
            let gap = if value.is_empty() || value.starts_with('\n') { "" } else { " " };
            let _ = writeln!(text, "{name}:{gap}{value}");
            if name.eq_ignore_ascii_case("Package") {
                text.push_str("Status: install ok installed\n");
            }
        }
        text
    }
}

/// Writes the database for `packages`; the lists hold the paths whose origin is the package.
///
/// # Errors
/// [`Error`] if a stanza is damaged or a package is listed twice.
pub fn apply(tree: &mut Tree, packages: &[Package<'_>]) -> Result<(), Error> {
    let mut paths: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (path, node) in tree.iter() {
        if let Origin::Debian { name, .. } = &node.origin {
            let text = if path.is_root() { "/.".to_owned() } else { path.to_string() };
            paths.entry(name).or_default().push(text);
        }
    }
    let mut stanzas: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for package in packages {
        let stanza = Stanza::parse(package.control)?;
        let name = stanza.require("Package")?;
        stanza.require("Version")?;
        let architecture = stanza.require("Architecture")?;
        let valid = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "+-.".contains(char);
        if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || !name.chars().all(valid) {
            return Err(Error::Name(name.to_owned()));
        }
        let key = (name.to_owned(), architecture.to_owned());
        if stanzas.insert(key, stanza.installed()).is_some() {
            return Err(Error::Twice(name.to_owned()));
        }
        let base = match stanza.value("Multi-Arch") {
            Some("same") => format!("{name}:{architecture}"),
            _ => name.to_owned(),
        };
        let mut list = paths.get(name).cloned().unwrap_or_default();
        if list.first().is_none_or(|first| first != "/.") {
            list.insert(0, "/.".to_owned());
        }
        files.insert(format!("{base}.list"), list.join("\n") + "\n");
        if let Some(md5sums) = package.md5sums {
            files.insert(format!("{base}.md5sums"), md5sums.to_owned());
        }
    }
    let status = stanzas.into_values().collect::<Vec<_>>().join("\n");
    let directory = TreePath::new(DIRECTORY)?;
    let file = |text: String| Node::file(0o644, Content::raw(text), Origin::fix_up("dpkg_status"));
    tree.replace(directory.join("status")?, file(status + "\n"))?;
    for (name, text) in files {
        tree.replace(directory.join("info")?.join(&name)?, file(text))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn tree() -> Tree {
        let mut tree = Tree::new(Origin::fix_up("base"));
        for (name, owner) in [("usr/bin/a", "a"), ("usr/lib/libb.so.1", "libb1")] {
            let node = Node::file(0o644, Content::raw("x"), Origin::debian(owner, "1"));
            tree.insert(path(name), node).unwrap();
        }
        tree
    }

    const LIBB: &str = "Package: libb1\nSource: b\nVersion: 1:2\nArchitecture: amd64\nMulti-Arch: same\n\
                        Description: b\n More of it.\n .\n End.\nFilename: pool/b.deb\n";
    const A: &str = "Package: a\nVersion: 1\nArchitecture: all\nConffiles:\n /etc/a 0\n";

    fn read(tree: &Tree, name: &str) -> String {
        String::from_utf8(tree.read(&path(&format!("{DIRECTORY}/{name}"))).unwrap().into_owned()).unwrap()
    }

    fn package(control: &str) -> Package<'_> {
        Package { control, md5sums: None }
    }

    #[test]
    fn packages_are_sorted_by_name_and_marked_installed() {
        let mut tree = tree();
        let libb = Package { control: LIBB, md5sums: Some("00  usr/lib/libb.so.1\n") };
        apply(&mut tree, &[libb, package(A)]).unwrap();
        assert_eq!(
            read(&tree, "status"),
            "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nConffiles:\n /etc/a 0\n\n\
             Package: libb1\nStatus: install ok installed\nSource: b\nVersion: 1:2\nArchitecture: amd64\n\
             Multi-Arch: same\nDescription: b\n More of it.\n .\n End.\n\n"
        );
        assert_eq!(read(&tree, "info/libb1:amd64.list"), "/.\n/usr/lib\n/usr/lib/libb.so.1\n");
        assert_eq!(read(&tree, "info/libb1:amd64.md5sums"), "00  usr/lib/libb.so.1\n");
        assert!(read(&tree, "info/a.list").ends_with("/usr/bin/a\n"));
    }

    #[test]
    fn damaged_stanzas_are_refused() {
        let refused = |list: &[Package<'_>]| apply(&mut tree(), list).unwrap_err();
        assert_eq!(refused(&[package(A), package(A)]), Error::Twice("a".into()));
        let error = refused(&[package("Package: a\nVersion: 1\n")]);
        assert_eq!(error.to_string(), "control stanza \"a\" has no field Architecture");
        let error = refused(&[package("Package: a\n\nVersion: 1\n")]);
        assert!(matches!(error, Error::Line { line: 2, .. }), "{error}");
        assert!(matches!(refused(&[package(" x\n")]), Error::Line { line: 1, .. }));
        let evil = "Package: ../a\nVersion: 1\nArchitecture: all\n";
        assert_eq!(refused(&[package(evil)]), Error::Name("../a".into()));
    }
}
