//! Yields the bytes of an EROFS image from a [`Tree`](crate::tree::Tree), and the tree from such bytes.
//!
//! # Shape
//! ```text
//! block 0        superblock at 1024, then the compression configuration
//! from block 1   inodes, 32-byte slots: | inode | xattrs | cluster index or last, partial block of the data |
//! then           directory blocks
//! then           the packed inode's clusters: all small files, one after the other, compressed together
//! then           file data in the order of paths: whole blocks, or compressed clusters
//! ```
//! Blocks have 4096 bytes; a node number (nid) is the index of an inode's slot. Equal files share their data.
//! [`Image::new`] lays out the image; [`Image::write_to`] then writes the bytes in order, without seeking.
//!
//! # Source
//! Linux `fs/erofs/erofs_fs.h` and `zmap.c` (6.12), `Documentation/filesystems/erofs.rst`; checked against
//! `fsck.erofs` 1.8 and by mounting (`tests/tests/erofs_reference.rs`).
//!
//! # Not here
//! The hash tree over the image: `dm-verity-tool`. Compression of large files: [`crate::content`].

mod format;
mod reader;
mod writer;

pub use format::Label;
pub use reader::{Entry, Error as ReadError, FileType, Inode, Nid, Reader};
pub use writer::{Error as WriteError, Image, Options, Place};

#[cfg(test)]
mod tests;
