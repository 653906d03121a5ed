//! Yields nodes of fix-ups: files, links and directories that replace what exists, or fill a gap.
//!
//! # Not here
//! What is written: the other modules of [`crate::fixup`].

use crate::content::Content;
use crate::path::TreePath;
use crate::tree::{Error, Node, Origin, Tree};

/// Replaces whatever is at the path with a regular file owned by root.
pub(super) fn file(
    tree: &mut Tree,
    path: &str,
    mode: u16,
    bytes: impl Into<Vec<u8>>,
    fix_up: &str,
) -> Result<(), Error> {
    tree.replace(TreePath::new(path)?, Node::file(mode, Content::raw(bytes), Origin::fix_up(fix_up)))
}

/// Replaces whatever is at the path with a symbolic link.
pub(super) fn link(tree: &mut Tree, path: &str, target: &str, fix_up: &str) -> Result<(), Error> {
    tree.replace(TreePath::new(path)?, Node::symlink(target, Origin::fix_up(fix_up)))
}

/// Adds a node if the path is free; returns whether it did.
pub(super) fn missing(tree: &mut Tree, path: &str, node: Node) -> Result<bool, Error> {
    let path = TreePath::new(path)?;
    if tree.get(&path).is_some() {
        return Ok(false);
    }
    tree.insert(path, node).map(|()| true)
}

/// Whether exactly this path exists.
pub(super) fn exists(tree: &Tree, path: &str) -> Result<bool, Error> {
    Ok(tree.get(&TreePath::new(path)?).is_some())
}

/// The text of a file, following links; `None` if it does not exist.
pub(super) fn text(tree: &Tree, path: &str) -> Result<Option<String>, Error> {
    match tree.read(&TreePath::new(path)?) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(Error::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
