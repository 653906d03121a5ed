//! Yields nodes of fix-ups: files, links and directories that replace what is there, or fill a gap.
//!
//! # Not here
//! What is written: the modules beside.

use crate::content::Content;
use crate::path::TreePath;
use crate::tree::{Error, Node, Origin, Tree};

/// Puts a regular file of root in the place of whatever is there.
pub(super) fn file(
    tree: &mut Tree,
    path: &str,
    mode: u16,
    bytes: impl Into<Vec<u8>>,
    fix_up: &str,
) -> Result<(), Error> {
    tree.replace(TreePath::new(path)?, Node::file(mode, Content::raw(bytes), Origin::fix_up(fix_up)))
}

/// Puts a symbolic link in the place of whatever is there.
pub(super) fn link(tree: &mut Tree, path: &str, target: &str, fix_up: &str) -> Result<(), Error> {
    tree.replace(TreePath::new(path)?, Node::symlink(target, Origin::fix_up(fix_up)))
}

/// Puts a node where nothing is; gives whether it did.
pub(super) fn missing(tree: &mut Tree, path: &str, node: Node) -> Result<bool, Error> {
    let path = TreePath::new(path)?;
    if tree.get(&path).is_some() {
        return Ok(false);
    }
    tree.insert(path, node).map(|()| true)
}

/// Whether something is at exactly this path.
pub(super) fn exists(tree: &Tree, path: &str) -> Result<bool, Error> {
    Ok(tree.get(&TreePath::new(path)?).is_some())
}

/// The file's text, links followed; `None` when nothing is there.
pub(super) fn text(tree: &Tree, path: &str) -> Result<Option<String>, Error> {
    match tree.read(&TreePath::new(path)?) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(Error::Missing(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
