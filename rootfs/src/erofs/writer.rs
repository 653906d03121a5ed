//! Yields the bytes of an EROFS image, in order, from a tree.
//!
//! # Shape
//! ```text
//! Tree ──list──> inodes, directory entries ──place──> address of every inode and block ──emit──> pieces
//! ```
//! A piece is a position and where its bytes are: in the arena of structures made here, or in the tree. Between
//! pieces there are zeros. Writing is copying pieces, in parallel, one batch of chunks after the other.
//!
//! Where the bytes of a file go:
//!
//! | file | place |
//! | --- | --- |
//! | compressed clusters | each in the fewest blocks, right-aligned behind zeros; a stored one as plain blocks |
//! | small, when compressing | the packed inode, whole |
//! | so small that its inode has room | behind the inode |
//! | any other | whole blocks; the last, partial one behind the inode when it fits into a block with it |
//!
//! # Source
//! Linux `fs/erofs` (6.12): `erofs_fs.h`, `zmap.c`, `inode.c`, `namei.c`.
//!
//! # Not here
//! The structures themselves: `format`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use rayon::prelude::*;

use super::format::{
    self, ADVISE_BIG_PCLUSTER_1, BLOCK, BLOCK_BITS, COMPAT_MTIME, COMPAT_SB_CHKSUM, COMPRESSED_FULL,
    COMPRESSION_ZSTD, D0_CBLKCNT, DIRENT_SIZE, FLAT_INLINE, FLAT_PLAIN, FRAGMENT_INODE, INCOMPAT_COMPR_CFGS,
    INCOMPAT_FRAGMENTS, INCOMPAT_ZERO_PADDING, INDEX_SIZE, LCLUSTER_HEAD1, LCLUSTER_NONHEAD, LCLUSTER_PLAIN,
    Label, MAP_HEADER_SIZE, RawInode, SLOT, SUPER_MAGIC, SUPER_OFFSET, SuperBlock, XATTR_ENTRY_SIZE,
    XATTR_HEADER_SIZE, XATTR_PREFIXES, deltas, lcluster,
};
use crate::content::{self, CLUSTER, Content, Form, Packing, SMALL, Sha256Digest};
use crate::path::TreePath;
use crate::tree::{Kind, Node, Tree};

/// The block at which inodes begin; their numbers count from there.
const META_BLOCK: u32 = 1;

/// Bytes that are filled by one thread at a time, and given to the sink at once.
const CHUNK: usize = 512 * 1024;

/// Bytes of the longest target of a symbolic link (Linux `PATH_MAX`, less the NUL).
const TARGET_LEN: usize = 4095;

/// Why a tree cannot become an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A hard link that names no regular file.
    #[error("hard link {path} names {target}, which is no regular file of the tree")]
    HardLink {
        /// The link.
        path: TreePath,
        /// What it names.
        target: TreePath,
    },
    /// A path whose parent is no directory of the tree.
    #[error("{0} does not lie in a directory")]
    Orphan(TreePath),
    /// The root is no directory.
    #[error("the root of the tree is no directory")]
    Root,
    /// A symbolic link whose target no kernel takes.
    #[error("the target of {path} has {found} bytes, expected 1 to {TARGET_LEN}")]
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
        /// Whose it is.
        path: TreePath,
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More blocks than 32 bits count.
    #[error("the image would have more than {} blocks", u32::MAX)]
    TooLarge,
    /// Compression failed.
    #[error("cannot compress the small files")]
    Compress(#[source] io::Error),
    /// The bytes of a file cannot be given.
    #[error("cannot read the content of a file")]
    Content(#[source] content::Error),
    /// The sink did not take the bytes.
    #[error("cannot write the image")]
    Sink(#[source] io::Error),
}

/// What an image is given besides its tree.
#[derive(Debug, Clone)]
pub struct Options {
    /// The volume's UUID.
    pub uuid: [u8; 16],
    /// The one time of all files, in seconds since 1970.
    pub mtime: u64,
    /// The volume's name.
    pub label: Label,
    /// Whether files are compressed; with [`Packing::Raw`], compressed content is written as it was before.
    pub packing: Packing,
}

/// An image whose every byte has its place.
#[derive(Debug)]
pub struct Image<'a> {
    size: u64,
    /// In the order of their positions, without overlap.
    pieces: Vec<Piece<'a>>,
    /// The structures that were made here.
    arena: Vec<u8>,
    /// Of every inode, in the order of the tree.
    places: Vec<Place>,
}

/// The blocks of an image that hold one inode and its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Blocks of the inode, with what lies behind it: attributes, an index, the last part of the data.
    pub inode: Range<u32>,
    /// Blocks of the data; files that are small or equal share theirs.
    pub data: Range<u32>,
}

/// Bytes at a position of the image.
#[derive(Debug)]
struct Piece<'a> {
    at: u64,
    len: u64,
    source: Source<'a>,
}

/// Where bytes come from.
#[derive(Debug)]
enum Source<'a> {
    /// This offset of the arena.
    Arena(usize),
    /// The tree.
    Slice(&'a [u8]),
    /// This offset of a file that has to be decompressed.
    Content(&'a Content, u64),
    /// The packed inode's cluster.
    Cluster(Vec<u8>),
}

/// One inode on its way into the image.
struct Item<'a> {
    node: Option<&'a Node>,
    mode: u16,
    nlink: u32,
    size: u64,
    device: u32,
    xattrs: Vec<u8>,
    body: Body<'a>,
    /// Byte offset in the area of inodes.
    place: u64,
}

/// Where the data of an inode goes, and what is behind the inode.
enum Body<'a> {
    /// Nothing at all.
    Empty,
    /// Whole blocks, the rest behind the inode (when there is a rest and it is not in a block of its own).
    Flat { data: Data<'a>, inline: usize },
    /// At this offset of the packed inode.
    Packed(u64),
    /// Compressed clusters: length of the input, and the bytes that are kept of it.
    Clusters { frames: Vec<FrameOf<'a>>, digest: Option<Sha256Digest> },
}

/// Data that is not compressed in the image.
#[derive(Clone, Copy)]
enum Data<'a> {
    Directory(usize),
    Slice(&'a [u8], Option<Sha256Digest>),
    Content(&'a Content),
}

/// A physical cluster: the logical clusters it stands for, and its bytes.
struct FrameOf<'a> {
    input: usize,
    stored: bool,
    bytes: Source<'a>,
    len: usize,
}

/// Entries of a directory, and how they fall into blocks.
struct Directory<'a> {
    /// Name and number of the item, sorted; `.` and `..` included.
    entries: Vec<(&'a str, usize)>,
    /// How many entries each block has.
    blocks: Vec<usize>,
    size: u64,
}

impl<'a> Directory<'a> {
    fn new(mut entries: Vec<(&'a str, usize)>) -> Self {
        entries.sort_unstable();
        let mut blocks = Vec::new();
        let (mut count, mut used) = (0, 0);
        for (name, _) in &entries {
            let need = DIRENT_SIZE + name.len();
            if used + need > BLOCK {
                blocks.push(count);
                (count, used) = (0, 0);
            }
            count += 1;
            used += need;
        }
        let size = (blocks.len() * BLOCK + used) as u64;
        blocks.push(count);
        Directory { entries, blocks, size }
    }

    /// All blocks, the last one short.
    fn write(&self, items: &[Item<'_>], out: &mut Vec<u8>) {
        let start = out.len();
        let mut entries = self.entries.iter();
        for (index, &count) in self.blocks.iter().enumerate() {
            out.resize(start + index * BLOCK, 0);
            let mut name_at = count * DIRENT_SIZE;
            for (name, item) in entries.clone().take(count) {
                let (place, mode) = items.get(*item).map_or((0, 0), |item| (item.place, item.mode));
                out.extend((place / SLOT as u64).to_le_bytes());
                out.extend((name_at as u16).to_le_bytes());
                out.extend([file_type(mode), 0]);
                name_at += name.len();
            }
            for (name, _) in entries.by_ref().take(count) {
                out.extend(name.as_bytes());
            }
        }
    }
}

/// The `EROFS_FT_…` of a mode, which are the generic `FT_…` (`include/linux/fs_types.h`).
fn file_type(mode: u16) -> u8 {
    match mode & format::S_IFMT {
        format::S_IFREG => 1,
        format::S_IFDIR => 2,
        format::S_IFCHR => 3,
        format::S_IFBLK => 4,
        format::S_IFIFO => 5,
        format::S_IFLNK => 7,
        _ => 0,
    }
}

/// Finds room for inodes: nothing of at most a block crosses one, gaps are filled by what fits them best.
#[derive(Default)]
struct Slots {
    end: u64,
    /// Free bytes at the end of a block, and that block's end.
    gaps: BTreeSet<(usize, u64)>,
}

impl Slots {
    fn place(&mut self, len: usize) -> u64 {
        let len = len.next_multiple_of(SLOT);
        let gap = self.gaps.range((len, 0)..).next().copied();
        let (free, end) = gap.unwrap_or_else(|| {
            let room = len.next_multiple_of(BLOCK);
            self.end += room as u64;
            (room, self.end)
        });
        self.gaps.remove(&(free, end));
        if free > len {
            self.gaps.insert((free - len, end));
        }
        end - free as u64
    }
}

/// Hands out blocks, one after the other.
struct Blocks(u64);

impl Blocks {
    fn take(&mut self, len: u64) -> Result<u32, Error> {
        let first = u32::try_from(self.0).map_err(|_| Error::TooLarge)?;
        self.0 += len.div_ceil(BLOCK as u64);
        if self.0 > u64::from(u32::MAX) { Err(Error::TooLarge) } else { Ok(first) }
    }
}

/// Small files, one after the other.
#[derive(Default)]
struct Packed<'a> {
    files: Vec<(u64, &'a [u8])>,
    offsets: BTreeMap<Sha256Digest, u64>,
    len: u64,
}

impl<'a> Packed<'a> {
    fn add(&mut self, digest: Sha256Digest, bytes: &'a [u8]) -> u64 {
        *self.offsets.entry(digest).or_insert_with(|| {
            let at = self.len;
            self.files.push((at, bytes));
            self.len += bytes.len() as u64;
            at
        })
    }

    /// The input of one cluster.
    fn gather(&self, index: usize, out: &mut Vec<u8>) {
        out.clear();
        let start = (index * CLUSTER) as u64;
        let end = self.len.min(start + CLUSTER as u64);
        let first = self.files.partition_point(|&(at, bytes)| at + bytes.len() as u64 <= start);
        for &(at, bytes) in self.files.get(first..).unwrap_or(&[]) {
            if at >= end {
                break;
            }
            let from = start.saturating_sub(at) as usize;
            let to = bytes.len().min((end - at) as usize);
            out.extend_from_slice(bytes.get(from..to).unwrap_or(&[]));
        }
    }

    fn compress(&self, level: i32) -> Result<Vec<FrameOf<'a>>, Error> {
        let count = self.len.div_ceil(CLUSTER as u64) as usize;
        (0..count)
            .into_par_iter()
            .map_init(
                || (zstd::bulk::Compressor::new(level), Vec::new()),
                |(compressor, input), index| {
                    self.gather(index, input);
                    let compressor = compressor.as_mut().map_err(|error| io::Error::from(error.kind()))?;
                    let packed = compressor.compress(input)?;
                    let stored = packed.len().div_ceil(BLOCK) >= input.len().div_ceil(BLOCK);
                    let bytes = if stored { input.clone() } else { packed };
                    let (input, len) = (input.len(), bytes.len());
                    Ok(FrameOf { input, stored, bytes: Source::Cluster(bytes), len })
                },
            )
            .collect::<io::Result<_>>()
            .map_err(Error::Compress)
    }
}

impl<'a> Image<'a> {
    /// Gives every byte of the image its place. Small files are compressed here, in parallel; what comes out is held
    /// until it is written.
    ///
    /// # Errors
    /// [`Error`] when the tree has something that EROFS cannot hold.
    pub fn new(tree: &'a Tree, options: &Options) -> Result<Self, Error> {
        Plan::list(tree, options)?.lay_out(options)
    }

    /// Length of the image in bytes, a multiple of 4096.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where every node of the tree that is no hard link lies, in the order of the tree.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Gives all bytes of the image to `sink`, in order, 512 KiB at once (the last time less). Filling takes all
    /// threads of the current pool and twice as many chunks of memory.
    ///
    /// # Errors
    /// What `sink` returned, and [`Error::Content`] when a file of the tree is damaged.
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

/// Everything that goes into the image, before it has a place.
struct Plan<'a> {
    items: Vec<Item<'a>>,
    directories: Vec<Directory<'a>>,
    packed: Packed<'a>,
}

impl<'a> Plan<'a> {
    fn list(tree: &'a Tree, options: &Options) -> Result<Self, Error> {
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

    /// Puts a name into the directory above it, and what that directory is to its child.
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

    /// The item that a hard link names, at the end of a chain of them.
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
            // Its name and "."; every directory in it adds a "..". Its size and body follow from its entries.
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
                // An inode takes whole slots: what fits beside it, where a map header would lie, costs nothing.
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

    fn lay_out(mut self, options: &Options) -> Result<Image<'a>, Error> {
        let nodes = self.items.len();
        let inos = nodes as u64;
        let mut packed_item = None;
        if let (Packing::Zstd(level), 1..) = (options.packing, self.packed.len) {
            let frames = self.packed.compress(level)?;
            packed_item = Some(self.items.len());
            self.items.push(Item {
                node: None,
                mode: format::S_IFREG | 0o400,
                nlink: 1,
                size: self.packed.len,
                device: 0,
                xattrs: Vec::new(),
                body: Body::Clusters { frames, digest: None },
                place: 0,
            });
        }

        // The root comes first, so that its number fits into the superblock's 16 bits.
        let mut slots = Slots::default();
        for item in &mut self.items {
            item.place = slots.place(item.space());
        }

        let mut emit = Emit {
            blocks: Blocks(u64::from(META_BLOCK) + slots.end / BLOCK as u64),
            mtime: options.mtime,
            pieces: Vec::with_capacity(2 * self.items.len()),
            arena: Vec::with_capacity(64 * self.items.len()),
            known: BTreeMap::new(),
            indexes: BTreeMap::new(),
            compressed: false,
            packed: vec![0],
            places: vec![Place::default(); self.items.len()],
        };
        let mut directories = Vec::new();
        for directory in &self.directories {
            let at = emit.arena.len();
            directory.write(&self.items, &mut emit.arena);
            directories.push(at);
        }
        // Directories first, then the packed inode, then all the others: what is read most lies together.
        let order = |item: &Item<'_>| match &item.body {
            Body::Flat { data: Data::Directory(_), .. } => 0,
            Body::Clusters { digest: None, .. } => 1,
            _ => 2,
        };
        let packed_nid =
            packed_item.and_then(|number| self.items.get(number)).map_or(0, |item| item.place / SLOT as u64);
        let mut items: Vec<(u32, Item<'a>)> = (1..).zip(self.items).collect();
        items.sort_by_key(|(_, item)| order(item));
        for (ino, item) in items {
            emit.item(ino, item, &directories)?;
        }

        let size = emit.blocks.0 * BLOCK as u64;
        let mut incompat = 0;
        if emit.compressed {
            incompat |= INCOMPAT_ZERO_PADDING | INCOMPAT_COMPR_CFGS;
        }
        if packed_item.is_some() {
            incompat |= INCOMPAT_FRAGMENTS;
        }
        let mut superblock = SuperBlock {
            magic: SUPER_MAGIC,
            checksum: 0,
            feature_compat: COMPAT_SB_CHKSUM | COMPAT_MTIME,
            blkszbits: BLOCK_BITS,
            sb_extslots: 0,
            root_nid: 0,
            inos,
            build_time: options.mtime,
            build_time_nsec: 0,
            blocks: u32::try_from(emit.blocks.0).map_err(|_| Error::TooLarge)?,
            meta_blkaddr: META_BLOCK,
            xattr_blkaddr: 0,
            uuid: options.uuid,
            volume_name: options.label,
            feature_incompat: incompat,
            available_compr_algs: if emit.compressed { 1 << COMPRESSION_ZSTD } else { 0 },
            dirblkbits: 0,
            packed_nid,
        };
        let block = |superblock: &SuperBlock| {
            let mut block = superblock.to_bytes();
            if emit.compressed {
                block.extend(format::zstd_cfgs(CLUSTER.ilog2()));
            }
            block.resize(BLOCK - SUPER_OFFSET, 0);
            block
        };
        superblock.checksum = format::checksum(&block(&superblock));
        let block = block(&superblock);
        let (at, len) = (SUPER_OFFSET as u64, block.len() as u64);
        emit.pieces.push(Piece { at, len, source: Source::Arena(emit.arena.len()) });
        emit.arena.extend(block);
        emit.pieces.sort_unstable_by_key(|piece| piece.at);
        emit.places.truncate(nodes);
        Ok(Image { size, pieces: emit.pieces, arena: emit.arena, places: emit.places })
    }
}

/// Bytes of the inode of a node with this much data; the number of links is not known yet and taken as small.
fn inode_len(node: &Node, size: u64) -> usize {
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

/// Decides how much of the data goes behind the inode: the last, partial block, when both fit into one block even if
/// the inode is an extended one.
fn flat(data: Data<'_>, size: u64, xattrs: usize) -> Body<'_> {
    let rest = (size % BLOCK as u64) as usize;
    let fits = format::EXTENDED_SIZE + xattrs + rest <= BLOCK;
    Body::Flat { data, inline: if fits { rest } else { 0 } }
}

/// The inline extended attributes of a node, header included; nothing when it has none.
fn xattrs(path: &TreePath, node: &Node) -> Result<Vec<u8>, Error> {
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
            .ok_or_else(|| wrong("has a name that EROFS has no number for"))?;
        if suffix.is_empty()
            == XATTR_PREFIXES.iter().any(|&(at, prefix)| at == index && prefix.ends_with('.'))
        {
            return Err(wrong("has a name that EROFS has no number for"));
        }
        let len = u8::try_from(suffix.len()).map_err(|_| wrong("has a name of more than 255 bytes"))?;
        let value_len = u16::try_from(value.len()).map_err(|_| wrong("has more than 65535 bytes"))?;
        out.extend([len, index]);
        out.extend(value_len.to_le_bytes());
        out.extend(suffix.as_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(XATTR_ENTRY_SIZE), 0);
        if xattr_icount(out.len()).is_none() {
            return Err(wrong("makes all of them too long"));
        }
    }
    Ok(out)
}

/// `i_xattr_icount` of attributes that take `len` bytes.
fn xattr_icount(len: usize) -> Option<u16> {
    match len.checked_sub(XATTR_HEADER_SIZE) {
        None => Some(0),
        Some(entries) => u16::try_from(entries / XATTR_ENTRY_SIZE + 1).ok(),
    }
}

impl Item<'_> {
    fn raw(&self, ino: u32) -> RawInode {
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

    /// Bytes of the inode and all that is behind it.
    fn space(&self) -> usize {
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

/// What was laid out so far.
struct Emit<'a> {
    blocks: Blocks,
    mtime: u64,
    pieces: Vec<Piece<'a>>,
    arena: Vec<u8>,
    /// First block of flat data that is there already, by its digest and the length of what is not in blocks.
    known: BTreeMap<(Sha256Digest, usize), u32>,
    /// Map header and index of clusters that are there already, in the arena, and the blocks they take.
    indexes: BTreeMap<Sha256Digest, (Range<usize>, Range<u32>)>,
    compressed: bool,
    /// The block at which each cluster of the packed inode begins, and where the last one ends.
    packed: Vec<u32>,
    places: Vec<Place>,
}

impl<'a> Emit<'a> {
    fn item(&mut self, ino: u32, item: Item<'a>, directories: &[usize]) -> Result<(), Error> {
        let mut inode = item.raw(ino);
        let at = u64::from(META_BLOCK) * BLOCK as u64 + item.place;
        let start = self.arena.len();
        let head = inode.len() + item.xattrs.len();
        let mut index = Vec::new();
        let mut data_blocks = 0..0;
        let mut behind = 0;
        match item.body {
            Body::Empty => {}
            Body::Flat { data, inline } => {
                behind = inline as u64;
                let whole = item.size - inline as u64;
                let (digest, source) = match data {
                    Data::Directory(number) => {
                        (None, Source::Arena(directories.get(number).copied().unwrap_or(0)))
                    }
                    Data::Slice(bytes, digest) => (digest, Source::Slice(bytes)),
                    Data::Content(content) => (Some(content.sha256()), Source::Content(content, 0)),
                };
                if inline > 0 {
                    let source = source.from(whole);
                    self.pieces.push(Piece { at: at + head as u64, len: inline as u64, source });
                }
                if whole > 0 {
                    let key = digest.map(|digest| (digest, inline));
                    inode.u = match key.and_then(|key| self.known.get(&key)) {
                        Some(&first) => first,
                        None => {
                            let first = self.blocks.take(whole)?;
                            self.pieces.push(Piece {
                                at: u64::from(first) * BLOCK as u64,
                                len: whole,
                                source,
                            });
                            first
                        }
                    };
                    if let Some(key) = key {
                        self.known.insert(key, inode.u);
                    }
                    data_blocks = inode.u..inode.u + whole.div_ceil(BLOCK as u64) as u32;
                }
            }
            Body::Packed(offset) => {
                index.resize(head.next_multiple_of(8) - head, 0);
                index.extend((offset | FRAGMENT_INODE).to_le_bytes());
                let cluster = |byte: u64| (byte / CLUSTER as u64) as usize;
                let block = |cluster: usize| self.packed.get(cluster).copied().unwrap_or(0);
                data_blocks =
                    block(cluster(offset))..block(cluster((offset + item.size).saturating_sub(1)) + 1);
            }
            Body::Clusters { frames, digest } => {
                self.compressed = true;
                index.resize(head.next_multiple_of(8) - head, 0);
                let before = digest.and_then(|digest| self.indexes.get(&digest).cloned());
                inode.u = match before {
                    Some((range, blocks)) => {
                        index.extend_from_slice(self.arena.get(range).unwrap_or(&[]));
                        data_blocks = blocks;
                        data_blocks.len() as u32
                    }
                    None => {
                        let blocks: u64 = frames.iter().map(|frame| frame.len.div_ceil(BLOCK) as u64).sum();
                        let first = self.blocks.take(blocks * BLOCK as u64)?;
                        let skip = index.len();
                        index.extend([0; 4]);
                        index.extend(ADVISE_BIG_PCLUSTER_1.to_le_bytes());
                        index.extend([COMPRESSION_ZSTD, 0]);
                        index.extend([0; 8]);
                        data_blocks = first..first + blocks as u32;
                        if digest.is_none() {
                            self.packed = vec![first];
                            self.packed.extend(frames.iter().scan(first, |end, frame| {
                                *end += frame.len.div_ceil(BLOCK) as u32;
                                Some(*end)
                            }));
                        }
                        self.clusters(frames, first, &mut index);
                        if let Some(digest) = digest {
                            let end = start + head + index.len();
                            self.indexes.insert(digest, (start + head + skip..end, data_blocks.clone()));
                        }
                        blocks as u32
                    }
                };
            }
        }
        inode.write(self.mtime, &mut self.arena);
        self.arena.extend(item.xattrs);
        self.arena.extend(index);
        let len = (self.arena.len() - start) as u64;
        self.pieces.push(Piece { at, len, source: Source::Arena(start) });
        if let Some(place) = self.places.get_mut(ino as usize - 1) {
            let block = |byte: u64| (byte / BLOCK as u64) as u32;
            *place = Place { inode: block(at)..block(at + len + behind - 1) + 1, data: data_blocks };
        }
        Ok(())
    }

    /// Lays physical clusters one after the other from block `first` on, and writes their index.
    fn clusters(&mut self, frames: Vec<FrameOf<'a>>, first: u32, index: &mut Vec<u8>) {
        let mut block = first;
        for frame in frames {
            let blocks = frame.len.div_ceil(BLOCK) as u32;
            let logical = frame.input.div_ceil(BLOCK) as u16;
            if frame.stored {
                // A plain physical cluster has one block.
                for number in 0..blocks {
                    index.extend(lcluster(LCLUSTER_PLAIN, block + number));
                }
            } else {
                index.extend(lcluster(LCLUSTER_HEAD1, block));
                for number in 1..logical {
                    let back = if number == 1 { blocks as u16 | D0_CBLKCNT } else { number };
                    index.extend(lcluster(LCLUSTER_NONHEAD, deltas(back, logical - number)));
                }
            }
            let padding = if frame.stored { 0 } else { blocks as usize * BLOCK - frame.len };
            let at = u64::from(block) * BLOCK as u64 + padding as u64;
            self.pieces.push(Piece { at, len: frame.len as u64, source: frame.bytes });
            block += blocks;
        }
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
