//! Yields /usr/lib/os-release, which identifies the image, from the distribution's file.
//!
//! # Shape
//! The distribution's lines in their order, without the keys below, then `VARIANT_ID`, `IMAGE_ID`, `IMAGE_VERSION` and
//! `PROOFMARK_PROFILE`. The same bytes belong in the UKI's `.osrel` section, so that the profile is measured twice.
//!
//! # Source
//! os-release(5); UAPI group, "Unified Kernel Image", `.osrel`.
//!
//! # Not here
//! /etc/os-release: `base-files` ships that link.

use super::write;
use crate::path::TreePath;
use crate::tree::{self, Tree};

const NAME: &str = "os_release";
const PATH: &str = "usr/lib/os-release";

/// Why os-release cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value that the format does not allow.
    #[error("invalid value {key}={value:?}: use lower-case letters, digits, \".\", \"_\" and \"-\"")]
    Value {
        /// Its key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// The distribution's file has a line that is not an assignment.
    #[error("{path}:{line}: expected KEY=value, found {text:?}")]
    Line {
        /// The file.
        path: TreePath,
        /// The line, from 1.
        line: u32,
        /// Its text.
        text: String,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// The platform of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image<'a> {
    /// The recipe's name.
    pub id: &'a str,
    /// The recipe's version.
    pub version: &'a str,
    /// The profile, such as `release` or `debug`.
    pub profile: &'a str,
}

/// Replaces the file, and returns its bytes.
///
/// # Errors
/// [`Error::Value`] for a name, version or profile that os-release cannot hold.
pub fn apply(tree: &mut Tree, image: &Image<'_>) -> Result<Vec<u8>, Error> {
    let fields = [
        ("VARIANT_ID", image.profile),
        ("IMAGE_ID", image.id),
        ("IMAGE_VERSION", image.version),
        ("PROOFMARK_PROFILE", image.profile),
    ];
    for (key, value) in fields {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if value.is_empty() || !value.bytes().all(allowed) {
            return Err(Error::Value { key, value: value.to_owned() });
        }
    }
    let path = TreePath::new(PATH).map_err(tree::Error::from)?;
    let before = String::from_utf8_lossy(&tree.read(&path)?).into_owned();
    let mut text = String::new();
    for (line, assignment) in (1..).zip(before.lines()) {
        let kept = match assignment.split_once('=') {
            _ if assignment.trim().is_empty() || assignment.starts_with('#') => false,
            // VARIANT is the readable form of VARIANT_ID; a stale one would mislead.
            Some((key, _)) => key != "VARIANT" && fields.iter().all(|(ours, _)| *ours != key),
            None => return Err(Error::Line { path, line, text: assignment.to_owned() }),
        };
        if kept {
            text.push_str(assignment);
            text.push('\n');
        }
    }
    text.extend(fields.iter().map(|(key, value)| format!("{key}={value}\n")));
    write::file(tree, PATH, 0o644, text.as_bytes(), NAME)?;
    Ok(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::tree::{Node, Origin};

    fn tree(text: &'static str) -> Tree {
        let mut tree = Tree::new(Origin::fix_up("test"));
        let node = Node::file(0o644, Content::raw(text), Origin::debian("base-files", "13"));
        tree.insert(TreePath::new(PATH).unwrap(), node).unwrap();
        tree.insert(
            TreePath::new("etc/os-release").unwrap(),
            Node::symlink("../usr/lib/os-release", Origin::fix_up("t")),
        )
        .unwrap();
        tree
    }

    const IMAGE: Image<'static> = Image { id: "openclaw", version: "1.0", profile: "debug" };

    #[test]
    fn our_fields_replace_the_distributions_and_come_last() {
        let mut tree = tree("# c\nID=debian\nIMAGE_ID=other\nVARIANT=\"Server\"\nVERSION_ID=\"13\"\n");
        let bytes = apply(&mut tree, &IMAGE).unwrap();
        let want = "ID=debian\nVERSION_ID=\"13\"\nVARIANT_ID=debug\nIMAGE_ID=openclaw\nIMAGE_VERSION=1.0\n\
                    PROOFMARK_PROFILE=debug\n";
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), want);
        assert_eq!(*tree.read(&TreePath::new("etc/os-release").unwrap()).unwrap(), bytes);
    }

    #[test]
    fn applying_twice_changes_nothing() {
        let mut tree = tree("ID=debian\n");
        let once = apply(&mut tree, &IMAGE).unwrap();
        assert_eq!(apply(&mut tree, &IMAGE).unwrap(), once);
    }

    #[test]
    fn values_that_could_inject_lines_are_refused() {
        for id in ["", "a b", "a\nROOT=1", "\"", "Upper", "$x"] {
            let image = Image { id, ..IMAGE };
            assert!(matches!(
                apply(&mut tree("ID=debian\n"), &image),
                Err(Error::Value { key: "IMAGE_ID", .. })
            ));
        }
    }

    #[test]
    fn a_line_without_an_assignment_and_a_missing_file_are_refused() {
        assert!(matches!(apply(&mut tree("ID=debian\nwhat\n"), &IMAGE), Err(Error::Line { line: 2, .. })));
        let mut empty = Tree::new(Origin::fix_up("test"));
        assert!(matches!(apply(&mut empty, &IMAGE), Err(Error::Tree(_))));
    }
}
