//! Yields the bytes of an EROFS image, in order, from a tree.
//!
//! # Shape
//! ```text
//! Tree ──list──> inodes, directory entries ──place──> address of every inode and block ──emit──> pieces
//! ```
//! A piece is a position and a source of bytes: the arena of structures made here, or the tree. Gaps between pieces are
//! zeros. Writing copies pieces into chunks, a batch of chunks at a time, in parallel.
//!
//! Where the bytes of a file go:
//!
//! | file | place |
//! | --- | --- |
//! | compressed clusters | each in the fewest blocks, right-aligned after zeros; a stored one as plain blocks |
//! | small, when compressing | the packed inode, whole |
//! | so small that it fits into the slot of its inode | after the inode |
//! | any other | whole blocks; the last, partial one after the inode if both fit into one block |
//!
//! # Source
//! Linux `fs/erofs` (6.12): `erofs_fs.h`, `zmap.c`, `inode.c`, `namei.c`.
//!
//! # Not here
//! The structures themselves: `format`.

mod directory;
mod item;
mod layout;
mod packed;
mod plan;
mod room;
mod xattr;

use std::io;
use std::ops::Range;

use rayon::prelude::*;

use super::format::Label;
use crate::content::{self, Content, Packing};
use crate::path::TreePath;
use crate::tree::Tree;

use plan::Plan;

/// The block at which inodes begin; node numbers count from there.
const META_BLOCK: u32 = 1;

/// Bytes that one thread fills at a time and the sink receives at once.
const CHUNK: usize = 512 * 1024;

/// Bytes of the longest target of a symbolic link (Linux `PATH_MAX`, less the NUL).
const TARGET_LEN: usize = 4095;

/// Why a tree cannot become an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A hard link whose target is not a regular file.
    #[error("hard link {path} points to {target}, which is not a regular file of the tree")]
    HardLink {
        /// The link.
        path: TreePath,
        /// Its target.
        target: TreePath,
    },
    /// A path whose parent is not a directory of the tree.
    #[error("{0} has no parent directory in the tree")]
    Orphan(TreePath),
    /// The root is not a directory.
    #[error("the root of the tree is not a directory")]
    Root,
    /// A symbolic link whose target is empty or too long.
    #[error("the link target of {path} has {found} bytes, expected 1 to {TARGET_LEN}")]
    Target {
        /// The link.
        path: TreePath,
        /// Length of its target.
        found: usize,
    },
    /// A device number that does not fit.
    #[error("device number {major}:{minor} of {path} does not fit into 12 and 20 bits")]
    Device {
        /// The device.
        path: TreePath,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// An extended attribute that EROFS cannot name or hold.
    #[error("extended attribute {name:?} of {path} {what}")]
    Xattr {
        /// The path that has it.
        path: TreePath,
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More blocks than 32 bits can number.
    #[error("the image would have more than {} blocks", u32::MAX)]
    TooLarge,
    /// Compression failed.
    #[error("cannot compress the small files")]
    Compress(#[source] io::Error),
    /// The content of a file cannot be read.
    #[error("cannot read the content of a file")]
    Content(#[source] content::Error),
    /// The sink failed.
    #[error("cannot write the image")]
    Sink(#[source] io::Error),
}

/// The parameters of an image, apart from its tree.
#[derive(Debug, Clone)]
pub struct Options {
    /// The volume's UUID.
    pub uuid: [u8; 16],
    /// The time of all files, in seconds since 1970.
    pub mtime: u64,
    /// The volume's name.
    pub label: Label,
    /// Whether files are compressed; with [`Packing::Raw`], compressed content is written decompressed.
    pub packing: Packing,
}

/// A laid-out image, ready to be written.
#[derive(Debug)]
pub struct Image<'a> {
    size: u64,
    /// Sorted by position, without overlap.
    pieces: Vec<Piece<'a>>,
    /// The structures made here.
    arena: Vec<u8>,
    /// The place of every inode, in the order of the tree.
    places: Vec<Place>,
}

/// The blocks of an image that hold one inode and its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Blocks of the inode and what follows it: attributes, an index, the last part of the data.
    pub inode: Range<u32>,
    /// Blocks of the data; small files share blocks, and so do equal files.
    pub data: Range<u32>,
}

/// Bytes at a position of the image.
#[derive(Debug)]
struct Piece<'a> {
    at: u64,
    len: u64,
    source: Source<'a>,
}

/// The source of bytes.
#[derive(Debug)]
enum Source<'a> {
    /// This offset of the arena.
    Arena(usize),
    /// The tree.
    Slice(&'a [u8]),
    /// This offset of a file to be decompressed.
    Content(&'a Content, u64),
    /// A cluster of the packed inode.
    Cluster(Vec<u8>),
}

impl<'a> Image<'a> {
    /// Lays out the image. Compresses the small files, in parallel, and holds the result until it is written.
    ///
    /// # Errors
    /// [`Error`] if EROFS cannot hold the tree.
    pub fn new(tree: &'a Tree, options: &Options) -> Result<Self, Error> {
        Plan::list(tree, options)?.lay_out(options)
    }

    /// Length of the image in bytes, a multiple of 4096.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The places of all nodes that are not hard links, in the order of the tree.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Writes all bytes of the image to `sink`, in order, 512 KiB at a time (less the last time). Uses all threads of
    /// the current rayon pool, and two chunks of memory per thread.
    ///
    /// # Errors
    /// [`Error::Sink`] if `sink` fails, and [`Error::Content`] if a file of the tree is damaged.
    pub fn write_to(&self, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), Error> {
        let batch = (2 * rayon::current_num_threads()).clamp(2, 32);
        let mut chunks = vec![vec![0u8; CHUNK]; batch];
        let mut at = 0;
        while at < self.size {
            chunks.par_iter_mut().enumerate().try_for_each(|(index, chunk)| {
                let start = self.size.min(at + (index * CHUNK) as u64);
                let len = (self.size - start).min(CHUNK as u64) as usize;
                chunk.resize(len, 0);
                self.fill(start, chunk)
            })?;
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                sink(chunk).map_err(Error::Sink)?;
                at += chunk.len() as u64;
            }
        }
        Ok(())
    }

    fn fill(&self, start: u64, out: &mut [u8]) -> Result<(), Error> {
        out.fill(0);
        let end = start + out.len() as u64;
        let first = self.pieces.partition_point(|piece| piece.at + piece.len <= start);
        for piece in self.pieces.get(first..).unwrap_or(&[]) {
            if piece.at >= end {
                break;
            }
            let from = start.max(piece.at);
            let len = (end.min(piece.at + piece.len) - from) as usize;
            let skip = from - piece.at;
            let at = (from - start) as usize;
            let Some(target) = out.get_mut(at..at + len) else { continue };
            let copy = |target: &mut [u8], bytes: &[u8], skip: usize| {
                if let Some(bytes) = bytes.get(skip..skip + len) {
                    target.copy_from_slice(bytes);
                }
            };
            match &piece.source {
                Source::Arena(offset) => copy(target, &self.arena, offset + skip as usize),
                Source::Slice(bytes) => copy(target, bytes, skip as usize),
                Source::Cluster(bytes) => copy(target, bytes, skip as usize),
                Source::Content(content, offset) => {
                    let range = offset + skip..offset + skip + len as u64;
                    copy(target, &content.read_range(range).map_err(Error::Content)?, 0);
                }
            }
        }
        Ok(())
    }
}

impl<'a> Source<'a> {
    /// The same bytes, without the first `skip`.
    fn from(&self, skip: u64) -> Source<'a> {
        match self {
            Source::Arena(offset) => Source::Arena(offset + skip as usize),
            Source::Slice(bytes) => Source::Slice(bytes.get(skip as usize..).unwrap_or(&[])),
            Source::Content(content, offset) => Source::Content(content, offset + skip),
            Source::Cluster(bytes) => Source::Cluster(bytes.get(skip as usize..).unwrap_or(&[]).to_vec()),
        }
    }
}
