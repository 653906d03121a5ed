//! Yields an inode to be laid out: its fields, and what follows it.

use super::Source;
use super::xattr::xattr_icount;
use crate::content::{Content, Sha256Digest};
use crate::erofs::format::{
    self, BLOCK, COMPRESSED_FULL, FLAT_INLINE, FLAT_PLAIN, INDEX_SIZE, MAP_HEADER_SIZE, RawInode,
};
use crate::tree::Node;

/// One inode to be laid out.
pub(super) struct Item<'a> {
    pub(super) node: Option<&'a Node>,
    pub(super) mode: u16,
    pub(super) nlink: u32,
    pub(super) size: u64,
    pub(super) device: u32,
    pub(super) xattrs: Vec<u8>,
    pub(super) body: Body<'a>,
    /// Byte offset in the area of inodes.
    pub(super) place: u64,
}

/// Where the data of an inode goes, and what follows the inode.
pub(super) enum Body<'a> {
    /// No data.
    Empty,
    /// Whole blocks, and the `inline` last bytes after the inode.
    Flat { data: Data<'a>, inline: usize },
    /// At this offset of the packed inode.
    Packed(u64),
    /// Compressed clusters.
    Clusters { frames: Vec<FrameOf<'a>>, digest: Option<Sha256Digest> },
}

/// Data that is not compressed in the image.
#[derive(Clone, Copy)]
pub(super) enum Data<'a> {
    Directory(usize),
    Slice(&'a [u8], Option<Sha256Digest>),
    Content(&'a Content),
}

/// A physical cluster: the length of its input, and its bytes.
pub(super) struct FrameOf<'a> {
    pub(super) input: usize,
    pub(super) stored: bool,
    pub(super) bytes: Source<'a>,
    pub(super) len: usize,
}

/// Bytes of the inode of a node with this much data; assumes a small link count, which is not known yet.
pub(super) fn inode_len(node: &Node, size: u64) -> usize {
    RawInode {
        layout: FLAT_PLAIN,
        xattr_icount: 0,
        mode: 0,
        nlink: 1,
        size,
        u: 0,
        ino: 0,
        uid: node.uid,
        gid: node.gid,
    }
    .len()
}

/// Puts the last, partial block of the data after the inode if both fit into one block, even with an extended inode.
pub(super) fn flat(data: Data<'_>, size: u64, xattrs: usize) -> Body<'_> {
    let rest = (size % BLOCK as u64) as usize;
    let fits = format::EXTENDED_SIZE + xattrs + rest <= BLOCK;
    Body::Flat { data, inline: if fits { rest } else { 0 } }
}

impl Item<'_> {
    pub(super) fn raw(&self, ino: u32) -> RawInode {
        RawInode {
            layout: match &self.body {
                Body::Flat { inline: 1.., .. } => FLAT_INLINE,
                Body::Empty | Body::Flat { .. } => FLAT_PLAIN,
                Body::Packed(_) | Body::Clusters { .. } => COMPRESSED_FULL,
            },
            xattr_icount: xattr_icount(self.xattrs.len()).unwrap_or(0),
            mode: self.mode,
            nlink: self.nlink,
            size: self.size,
            u: self.device,
            ino,
            uid: self.node.map_or(0, |node| node.uid),
            gid: self.node.map_or(0, |node| node.gid),
        }
    }

    /// Bytes of the inode and everything that follows it.
    pub(super) fn space(&self) -> usize {
        let head = self.raw(0).len() + self.xattrs.len();
        let map = head.next_multiple_of(8) + MAP_HEADER_SIZE;
        match &self.body {
            Body::Empty => head,
            Body::Flat { inline, .. } => head + inline,
            Body::Packed(_) => map,
            // Z_EROFS_FULL_INDEX_ALIGN leaves 8 bytes between header and index.
            Body::Clusters { .. } => map + 8 + self.size.div_ceil(BLOCK as u64) as usize * INDEX_SIZE,
        }
    }
}
