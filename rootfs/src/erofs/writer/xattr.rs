//! Yields the extended attributes that follow an inode.

use super::Error;
use crate::erofs::format::{XATTR_ENTRY_SIZE, XATTR_HEADER_SIZE, XATTR_PREFIXES};
use crate::path::TreePath;
use crate::tree::Node;

/// The inline extended attributes of a node, with their header; empty if it has none.
pub(super) fn xattrs(path: &TreePath, node: &Node) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    if node.xattrs.is_empty() {
        return Ok(out);
    }
    out.resize(XATTR_HEADER_SIZE, 0);
    for (name, value) in &node.xattrs {
        let wrong = |what| Error::Xattr { path: path.clone(), name: name.to_string(), what };
        let (index, suffix) = XATTR_PREFIXES
            .iter()
            .find_map(|&(index, prefix)| Some((index, name.strip_prefix(prefix)?)))
            .filter(|(_, suffix)| !suffix.contains('\0'))
            .ok_or_else(|| wrong("has a name that EROFS cannot encode"))?;
        if suffix.is_empty()
            == XATTR_PREFIXES.iter().any(|&(at, prefix)| at == index && prefix.ends_with('.'))
        {
            return Err(wrong("has a name that EROFS cannot encode"));
        }
        let len = u8::try_from(suffix.len()).map_err(|_| wrong("has a name of more than 255 bytes"))?;
        let value_len = u16::try_from(value.len()).map_err(|_| wrong("has more than 65535 bytes"))?;
        out.extend([len, index]);
        out.extend(value_len.to_le_bytes());
        out.extend(suffix.as_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(XATTR_ENTRY_SIZE), 0);
        if xattr_icount(out.len()).is_none() {
            return Err(wrong("exceeds the total size of attributes"));
        }
    }
    Ok(out)
}

/// `i_xattr_icount` of attributes that take `len` bytes.
pub(super) fn xattr_icount(len: usize) -> Option<u16> {
    match len.checked_sub(XATTR_HEADER_SIZE) {
        None => Some(0),
        Some(entries) => u16::try_from(entries / XATTR_ENTRY_SIZE + 1).ok(),
    }
}
