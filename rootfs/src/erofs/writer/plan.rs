//! Yields everything that goes into the image, from a tree, before the layout.

use std::collections::BTreeMap;

use super::directory::Directory;
use super::item::{Body, Data, FrameOf, Item, flat, inode_len};
use super::packed::Packed;
use super::xattr::xattrs;
use super::{Error, Options, Source, TARGET_LEN};
use crate::content::{Content, Form, Packing, SMALL};
use crate::erofs::format::{self, BLOCK, MAP_HEADER_SIZE, SLOT};
use crate::path::TreePath;
use crate::tree::{Kind, Node, Tree};

/// Everything that goes into the image, before the layout.
pub(super) struct Plan<'a> {
    pub(super) items: Vec<Item<'a>>,
    pub(super) directories: Vec<Directory<'a>>,
    pub(super) packed: Packed<'a>,
}

impl<'a> Plan<'a> {
    pub(super) fn list(tree: &'a Tree, options: &Options) -> Result<Self, Error> {
        let mut plan = Plan { items: Vec::new(), directories: Vec::new(), packed: Packed::default() };
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut children: BTreeMap<usize, Vec<(&'a str, usize)>> = BTreeMap::new();
        let mut links = Vec::new();
        for (path, node) in tree.iter() {
            if let Kind::HardLink(target) = &node.kind {
                links.push((path, target));
                continue;
            }
            let number = plan.items.len();
            let item = plan.item(path, node, options.packing)?;
            plan.items.push(item);
            numbers.insert(path.as_str(), number);
            if node.is_directory() {
                children.insert(number, vec![(".", number)]);
            }
            plan.enter(path, number, &numbers, &mut children)?;
        }
        for (path, target) in links {
            let number = plan.follow(tree, path, target, &numbers)?;
            if let Some(item) = plan.items.get_mut(number) {
                item.nlink += 1;
            }
            plan.enter(path, number, &numbers, &mut children)?;
        }
        for (number, entries) in children {
            let directory = Directory::new(entries);
            if let Some(item) = plan.items.get_mut(number) {
                item.size = directory.size;
                item.body = flat(Data::Directory(plan.directories.len()), directory.size, item.xattrs.len());
            }
            plan.directories.push(directory);
        }
        Ok(plan)
    }

    /// Adds a name to its parent directory, and `..` to the directory it names.
    fn enter(
        &mut self,
        path: &'a TreePath,
        number: usize,
        numbers: &BTreeMap<&str, usize>,
        children: &mut BTreeMap<usize, Vec<(&'a str, usize)>>,
    ) -> Result<(), Error> {
        let text = path.as_str();
        let above = text.rsplit_once('/').map_or("", |(above, _)| above);
        let orphan = || if path.is_root() { Error::Root } else { Error::Orphan(path.clone()) };
        let parent = *numbers.get(above).ok_or_else(orphan)?;
        if let Some(own) = children.get_mut(&number) {
            own.push(("..", parent));
            if let Some(item) = self.items.get_mut(parent).filter(|_| !path.is_root()) {
                item.nlink += 1;
            }
        }
        let siblings = children.get_mut(&parent).ok_or_else(orphan)?;
        if !path.is_root() {
            siblings.push((path.name(), number));
        }
        Ok(())
    }

    /// Follows a chain of hard links to the item of their file.
    fn follow(
        &self,
        tree: &Tree,
        path: &TreePath,
        target: &TreePath,
        numbers: &BTreeMap<&str, usize>,
    ) -> Result<usize, Error> {
        let wrong = || Error::HardLink { path: path.clone(), target: target.clone() };
        let mut here = target;
        for _ in 0..tree.len() {
            match tree.get(here).map(|node| &node.kind) {
                Some(Kind::HardLink(next)) => here = next,
                Some(Kind::File(_)) => return numbers.get(here.as_str()).copied().ok_or_else(wrong),
                _ => return Err(wrong()),
            }
        }
        Err(wrong())
    }

    fn item(&mut self, path: &TreePath, node: &'a Node, packing: Packing) -> Result<Item<'a>, Error> {
        let xattrs = xattrs(path, node)?;
        let (kind, nlink, size, device, body) = match &node.kind {
            // Two links: its name and "."; every subdirectory adds a "..". Its size and body follow from its entries.
            Kind::Directory => (format::S_IFDIR, 2, 0, 0, Body::Empty),
            Kind::File(content) => {
                let body = self.file(content, node, xattrs.len(), packing);
                (format::S_IFREG, 1, content.len(), 0, body)
            }
            Kind::Symlink(target) => {
                if target.is_empty() || target.len() > TARGET_LEN {
                    return Err(Error::Target { path: path.clone(), found: target.len() });
                }
                let size = target.len() as u64;
                let body = flat(Data::Slice(target.as_bytes(), None), size, xattrs.len());
                (format::S_IFLNK, 1, size, 0, body)
            }
            Kind::HardLink(target) => {
                return Err(Error::HardLink { path: path.clone(), target: target.clone() });
            }
            &Kind::CharDevice { major, minor } | &Kind::BlockDevice { major, minor } => {
                let device = format::encode_dev(major, minor);
                let device = device.ok_or_else(|| Error::Device { path: path.clone(), major, minor })?;
                let character = matches!(node.kind, Kind::CharDevice { .. });
                (if character { format::S_IFCHR } else { format::S_IFBLK }, 1, 0, device, Body::Empty)
            }
            Kind::Fifo => (format::S_IFIFO, 1, 0, 0, Body::Empty),
        };
        let mode = kind | node.mode & !format::S_IFMT;
        Ok(Item { node: Some(node), mode, nlink, size, device, xattrs, body, place: 0 })
    }

    fn file(&mut self, content: &'a Content, node: &Node, xattrs: usize, packing: Packing) -> Body<'a> {
        let digest = content.sha256();
        match (content.form(), packing) {
            _ if content.is_empty() => Body::Empty,
            (Form::Clusters(clusters), Packing::Zstd(_))
                if clusters.frames().all(|frame| frame.stored || frame.input > BLOCK) =>
            {
                let frames = clusters
                    .frames()
                    .map(|frame| FrameOf {
                        input: frame.input,
                        stored: frame.stored,
                        bytes: Source::Slice(frame.bytes),
                        len: frame.bytes.len(),
                    })
                    .collect();
                Body::Clusters { frames, digest: Some(digest) }
            }
            (Form::Clusters(_), _) => flat(Data::Content(content), content.len(), xattrs),
            (Form::Raw(blob), Packing::Zstd(_)) if blob.len() < SMALL => {
                // An inode takes whole slots: data that fits into the slots that a map header would take costs nothing.
                let head = inode_len(node, content.len()) + xattrs;
                let packed = head.next_multiple_of(8) + MAP_HEADER_SIZE;
                if (head + blob.len()).next_multiple_of(SLOT) <= packed.next_multiple_of(SLOT) {
                    return flat(Data::Slice(blob, Some(digest)), content.len(), xattrs);
                }
                Body::Packed(self.packed.add(digest, blob))
            }
            (Form::Raw(blob), _) => flat(Data::Slice(blob, Some(digest)), content.len(), xattrs),
        }
    }
}
