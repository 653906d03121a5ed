//! Yields a folder of this machine as a tree, or as lines that list everything a file system stores about it.
//!
//! # Not here
//! Inputs of images: only tests read folders.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rootfs::content::{Content, Packing, Sha256Digest};
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Node, Origin, Tree};

/// All paths below `folder`, relative to it and sorted; the folder itself is the empty path.
///
/// # Errors
/// The system's error.
pub fn paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = vec![PathBuf::new()];
    let mut todo = vec![PathBuf::new()];
    while let Some(here) = todo.pop() {
        for entry in fs::read_dir(folder.join(&here))? {
            let entry = entry?;
            let path = here.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                todo.push(path.clone());
            }
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Extended attributes of a path, links not followed.
fn xattrs(path: &Path) -> io::Result<BTreeMap<Box<str>, Box<[u8]>>> {
    let mut names = vec![0; 65536];
    let len = match rustix::fs::llistxattr(path, &mut names) {
        Ok(len) => len,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut all = BTreeMap::new();
    for name in names.get(..len).unwrap_or(&[]).split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65536];
        let len = rustix::fs::lgetxattr(path, name, &mut value)?;
        value.truncate(len);
        all.insert(String::from_utf8_lossy(name).into(), value.into());
    }
    Ok(all)
}

/// Reads a folder into a tree, including hard links, devices and attributes, but not sockets or names that are not
/// UTF-8.
///
/// # Errors
/// The system's error.
pub fn tree(folder: &Path, packing: Packing) -> io::Result<Tree> {
    let origin = Origin::fix_up("folder");
    let mut tree = Tree::new(origin.clone());
    let mut seen: BTreeMap<(u64, u64), TreePath> = BTreeMap::new();
    for relative in paths(folder)? {
        let Some(path) = relative.to_str().and_then(|text| TreePath::new(text).ok()) else { continue };
        let full = folder.join(&relative);
        let meta = fs::symlink_metadata(&full)?;
        let kind = match kind(&full, &meta)? {
            Some(kind) => kind,
            None if meta.is_file() => {
                let first = seen.entry((meta.dev(), meta.ino())).or_insert_with(|| path.clone());
                if *first == path {
                    Kind::File(Content::pack(&fs::read(&full)?, packing))
                } else {
                    Kind::HardLink(first.clone())
                }
            }
            None => continue,
        };
        let (mode, uid, gid) = ((meta.mode() & 0o7777) as u16, meta.uid(), meta.gid());
        let node = Node { mode, uid, gid, xattrs: xattrs(&full)?, kind, origin: origin.clone() };
        tree.replace(path, node).map_err(io::Error::other)?;
    }
    Ok(tree)
}

/// The kind of an entry; `None` for a regular file or an unknown kind.
fn kind(path: &Path, meta: &Metadata) -> io::Result<Option<Kind>> {
    let kind = meta.file_type();
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Ok(if kind.is_dir() {
        Some(Kind::Directory)
    } else if kind.is_symlink() {
        Some(Kind::Symlink(String::from_utf8_lossy(fs::read_link(path)?.as_os_str().as_bytes()).into()))
    } else if kind.is_char_device() {
        Some(Kind::CharDevice { major, minor })
    } else if kind.is_block_device() {
        Some(Kind::BlockDevice { major, minor })
    } else if kind.is_fifo() {
        Some(Kind::Fifo)
    } else {
        None
    })
}

/// One line per path; further names of a file refer to its first path.
///
/// # Errors
/// The system's error.
pub fn dump_folder(folder: &Path) -> io::Result<Vec<String>> {
    dump_tree(&tree(folder, Packing::Raw)?)
}

/// The same lines for a tree.
///
/// # Errors
/// When a file's content is damaged.
pub fn dump_tree(tree: &Tree) -> io::Result<Vec<String>> {
    let mut first: BTreeMap<TreePath, TreePath> = BTreeMap::new();
    let mut lines = Vec::with_capacity(tree.len());
    for (path, node) in tree.iter() {
        let mut end = (path.clone(), node);
        while let Kind::HardLink(target) = &end.1.kind {
            end = (target.clone(), tree.get(target).ok_or_else(|| io::Error::other("dangling hard link"))?);
        }
        let (end, node) = end;
        let kind = match &node.kind {
            Kind::File(content) => {
                let same = first.entry(end).or_insert_with(|| path.clone());
                let bytes = content.read().map_err(io::Error::other)?;
                format!("file {} {} as {same}", bytes.len(), Sha256Digest::of(&bytes))
            }
            other => format!("{other:?}"),
        };
        lines.push(format!("{path} {:o} {}:{} {:?} {kind}", node.mode, node.uid, node.gid, node.xattrs));
    }
    Ok(lines)
}
