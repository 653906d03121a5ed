//! Yields paths inside the image: relative to its root, normalised, unable to escape.
//!
//! # Shape
//! `usr/bin/node` — UTF-8, components joined by one `/`, no leading or trailing `/`, no `.`, `..` or NUL.
//! The root directory is the empty path. [`std::fmt::Display`] prints the leading `/`.
//!
//! # Not here
//! Symbolic links: [`crate::tree::Tree::resolve`] follows them.

use std::borrow::Borrow;
use std::fmt;

/// Why a string is not a path inside the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A `..` component, which could leave the image.
    #[error("path {0:?} has a \"..\" component")]
    Escapes(String),
    /// A NUL byte, which no file system can hold.
    #[error("path {0:?} has a NUL byte")]
    Nul(String),
    /// A component longer than a directory entry allows.
    #[error("path {0:?} has a component of more than 255 bytes")]
    TooLong(String),
}

/// A normalised path inside the image.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Box<str>);

impl TreePath {
    /// The root directory.
    pub fn root() -> Self {
        TreePath("".into())
    }

    /// Normalises `text`: drops a leading `/` or `./`, repeated and trailing slashes and `.` components.
    ///
    /// # Errors
    /// [`Error`] when it has a `..` component, a NUL byte or a component of more than 255 bytes.
    pub fn new(text: &str) -> Result<Self, Error> {
        if text.contains('\0') {
            return Err(Error::Nul(text.to_owned()));
        }
        let mut clean = String::with_capacity(text.len());
        for part in text.split('/') {
            match part {
                "" | "." => continue,
                ".." => return Err(Error::Escapes(text.to_owned())),
                _ if part.len() > 255 => return Err(Error::TooLong(text.to_owned())),
                _ => {}
            }
            if !clean.is_empty() {
                clean.push('/');
            }
            clean.push_str(part);
        }
        Ok(TreePath(clean.into()))
    }

    /// The path without its leading slash; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the root directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<TreePath> {
        if self.is_root() {
            return None;
        }
        Some(TreePath(self.0.rsplit_once('/').map_or("", |(parent, _)| parent).into()))
    }

    /// This path with `relative` below it.
    ///
    /// # Errors
    /// As [`TreePath::new`].
    pub fn join(&self, relative: &str) -> Result<TreePath, Error> {
        TreePath::new(&format!("{}/{relative}", self.0))
    }

    /// Whether this path is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &TreePath) -> bool {
        ancestor.is_root()
            || self.0.strip_prefix(&*ancestor.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The components from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"/{}\"", self.0)
    }
}

impl Borrow<str> for TreePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for TreePath {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        TreePath::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_path_are_one_path() {
        for text in ["usr/bin", "/usr/bin", "./usr/bin", "usr//bin/", "/./usr/./bin/."] {
            assert_eq!(TreePath::new(text).unwrap().as_str(), "usr/bin", "{text}");
        }
        for text in ["", "/", ".", "./", "//"] {
            assert!(TreePath::new(text).unwrap().is_root(), "{text}");
        }
    }

    #[test]
    fn a_path_that_could_escape_is_refused() {
        assert_eq!(TreePath::new("usr/../../etc"), Err(Error::Escapes("usr/../../etc".into())));
        assert_eq!(TreePath::new("a\0b"), Err(Error::Nul("a\0b".into())));
        assert!(matches!(TreePath::new(&"x".repeat(256)), Err(Error::TooLong(_))));
    }

    #[test]
    fn starts_with_compares_whole_components() {
        let path = |text| TreePath::new(text).unwrap();
        assert!(path("usr/lib/x").starts_with(&path("usr/lib")));
        assert!(path("usr/lib").starts_with(&path("usr/lib")));
        assert!(!path("usr/lib64").starts_with(&path("usr/lib")));
        assert!(path("usr").starts_with(&TreePath::root()));
    }

    #[test]
    fn parent_and_name_split_a_path() {
        let path = TreePath::new("usr/bin/node").unwrap();
        assert_eq!(path.name(), "node");
        assert_eq!(path.parent().unwrap().as_str(), "usr/bin");
        assert_eq!(TreePath::new("usr").unwrap().parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
    }
}
