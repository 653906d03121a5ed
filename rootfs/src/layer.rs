//! Yields what one archive adds to an image: its entries, in the order in which it names them.
//!
//! # Not here
//! Reading an archive (`deb`, `npm`), laying layers upon each other (`merge`).

use crate::path::TreePath;
use crate::tree::Node;

/// The entries of one archive.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// Path and node, in the order of the archive.
    pub entries: Vec<(TreePath, Node)>,
}
