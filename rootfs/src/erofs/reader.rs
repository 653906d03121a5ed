//! Yields the content of an EROFS image: inodes, directories, bytes, or the whole tree.
//!
//! # Shape
//! The image is a slice, usually a memory map. The reader never reads a place twice that could change, never allocates
//! more than the image or the caller's limit, and checks every number before use.
//!
//! # Source
//! Linux `fs/erofs` (6.12). It reads what `writer` writes: 4096-byte blocks, flat and fully indexed zstd inodes,
//! fragments that are whole files, inline extended attributes. Everything else is refused by name.
//!
//! # Not here
//! Whether the image is the expected one: `dm-verity-tool`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::sync::Arc;

use super::format::{
    self, BLOCK, BLOCK_BITS, COMPACT_SIZE, COMPAT_SB_CHKSUM, COMPRESSED_FULL, COMPRESSION_ZSTD, D0_CBLKCNT,
    DIRENT_SIZE, EXTENDED_SIZE, FLAT_INLINE, FLAT_PLAIN, FRAGMENT_INODE, Fields, INCOMPAT_KNOWN, INDEX_SIZE,
    LCLUSTER_HEAD1, LCLUSTER_NONHEAD, LCLUSTER_PLAIN, MAP_HEADER_SIZE, NAME_LEN, PCLUSTER_MAX_DSIZE,
    RawInode, SLOT, SUPER_MAGIC, SUPER_OFFSET, SUPER_SIZE, SuperBlock, XATTR_ENTRY_SIZE, XATTR_HEADER_SIZE,
    XATTR_PREFIXES,
};
use crate::content::Content;
use crate::path::{self, TreePath};
use crate::tree::{self, Kind, Node, Origin, Tree};

/// Bytes of the longest path that is accepted (Linux `PATH_MAX`).
const PATH_LEN: usize = 4096;

/// The most bytes of all paths together, per byte of the image; a chain of one-letter directories takes 21.
const PATHS_PER_BYTE: u64 = 64;

/// Why an image cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number other than the expected one.
    #[error("{what} at byte {offset} of the image: expected {expected}, found {found}")]
    Field {
        /// Which number.
        what: &'static str,
        /// The offset of the number, or of its structure.
        offset: u64,
        /// What it must be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A feature that this reader does not know.
    #[error("unknown {what} {found:#x} at byte {offset} of the image")]
    Unknown {
        /// What it is.
        what: &'static str,
        /// Where it is.
        offset: u64,
        /// Its number.
        found: u64,
    },
    /// Bytes past the end of the image.
    #[error("{what} has {len} bytes at byte {offset}, but the image has {size}")]
    Outside {
        /// What should be there.
        what: &'static str,
        /// Where it starts.
        offset: u64,
        /// How long it is.
        len: u64,
        /// Length of the image.
        size: u64,
    },
    /// A directory entry with an invalid name.
    #[error("entry {name:?} of the directory at byte {offset} {what}")]
    Name {
        /// Where the directory's inode is.
        offset: u64,
        /// The name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A directory with two parents.
    #[error("directory {nid} appears a second time at {path}")]
    Again {
        /// Its number.
        nid: u64,
        /// The second path.
        path: TreePath,
    },
    /// Data that does not decompress.
    #[error("the cluster at byte {offset} does not decompress to {expected} bytes")]
    Frame {
        /// Where it starts.
        offset: u64,
        /// Its expected length.
        expected: usize,
    },
    /// More than the caller's limit.
    #[error("{what} needs {found} bytes, the limit is {limit}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// What is allowed.
        limit: u64,
    },
    /// An invalid path.
    #[error(transparent)]
    Path(#[from] path::Error),
    /// Names that do not form a tree.
    #[error(transparent)]
    Tree(#[from] tree::Error),
}

/// The number of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nid(pub u64);

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A symbolic link.
    Symlink,
}

impl FileType {
    fn of_mode(mode: u16) -> Option<Self> {
        Some(match mode & format::S_IFMT {
            format::S_IFREG => FileType::File,
            format::S_IFDIR => FileType::Directory,
            format::S_IFCHR => FileType::CharDevice,
            format::S_IFBLK => FileType::BlockDevice,
            format::S_IFIFO => FileType::Fifo,
            format::S_IFLNK => FileType::Symlink,
            _ => return None,
        })
    }

    fn of_entry(number: u8) -> Option<Self> {
        Some(match number {
            1 => FileType::File,
            2 => FileType::Directory,
            3 => FileType::CharDevice,
            4 => FileType::BlockDevice,
            5 => FileType::Fifo,
            7 => FileType::Symlink,
            _ => return None,
        })
    }
}

/// One inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub nid: Nid,
    /// What it is.
    pub file_type: FileType,
    /// Permissions: the low 12 bits of the mode.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub nlink: u32,
    /// Length of the data in bytes.
    pub size: u64,
    /// Modification time, in seconds since 1970.
    pub mtime: u64,
    /// Major and minor number, of devices.
    pub device: (u32, u32),
    /// Extended attributes by their full name.
    pub xattrs: BTreeMap<Box<str>, Box<[u8]>>,
    layout: u16,
    block: u32,
    /// Where it starts, and where its inode and attributes end.
    offset: u64,
    behind: u64,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The inode that it names.
    pub nid: Nid,
    /// Its kind.
    pub file_type: FileType,
}

/// Data of one physical cluster.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Position and length in the file.
    start: u64,
    len: usize,
    /// Position and length in the image.
    at: u64,
    packed: usize,
    plain: bool,
}

/// An open image.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    superblock: SuperBlock,
    packed: Vec<Extent>,
    packed_len: u64,
    /// The extent of the packed inode that was decompressed last.
    last: RefCell<Option<(u64, Vec<u8>)>>,
}

/// A budget, so that a small image cannot make the reader use much memory.
struct Budget {
    what: &'static str,
    limit: u64,
    used: u64,
}

impl Budget {
    fn spend(&mut self, len: u64) -> Result<(), Error> {
        self.used = self.used.saturating_add(len);
        if self.used <= self.limit {
            return Ok(());
        }
        Err(Error::Limit { what: self.what, found: self.used, limit: self.limit })
    }
}

fn outside(what: &'static str, offset: u64, len: u64, size: usize) -> Error {
    Error::Outside { what, offset, len, size: size as u64 }
}

fn expect(what: &'static str, offset: u64, expected: u64, found: u64) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Field { what, offset, expected, found }) }
}

impl<'a> Reader<'a> {
    /// Reads the superblock, and the extents of the packed inode.
    ///
    /// # Errors
    /// [`Error`] if this is not an image, or is damaged, or has unknown features.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let offset = SUPER_OFFSET as u64;
        let block = bytes.get(..BLOCK).and_then(|block| block.get(SUPER_OFFSET..));
        let block = block.ok_or_else(|| outside("superblock", offset, SUPER_SIZE as u64, bytes.len()))?;
        let (fixed, _) = block
            .split_first_chunk::<SUPER_SIZE>()
            .ok_or_else(|| outside("superblock", offset, SUPER_SIZE as u64, bytes.len()))?;
        let superblock = SuperBlock::from_bytes(fixed);
        expect("magic number", offset, SUPER_MAGIC.into(), superblock.magic.into())?;
        if superblock.feature_compat & COMPAT_SB_CHKSUM != 0 {
            let sum = format::checksum(block);
            expect("checksum of the superblock", offset, sum.into(), superblock.checksum.into())?;
        }
        expect("logarithm of the block size", offset, BLOCK_BITS.into(), superblock.blkszbits.into())?;
        expect("superblock extensions", offset, 0, superblock.sb_extslots.into())?;
        expect("directory block bits", offset, 0, superblock.dirblkbits.into())?;
        let unknown = superblock.feature_incompat & !INCOMPAT_KNOWN;
        if unknown != 0 {
            return Err(Error::Unknown { what: "feature", offset, found: unknown.into() });
        }
        let algorithms = superblock.available_compr_algs & !(1 << COMPRESSION_ZSTD);
        if algorithms != 0 {
            return Err(Error::Unknown { what: "compression", offset, found: algorithms.into() });
        }
        let len = u64::from(superblock.blocks) * BLOCK as u64;
        if len > bytes.len() as u64 {
            return Err(outside("image", 0, len, bytes.len()));
        }
        let bytes = bytes.get(..len as usize).unwrap_or(bytes);
        let mut reader =
            Reader { bytes, superblock, packed: Vec::new(), packed_len: 0, last: RefCell::new(None) };
        if reader.superblock.feature_incompat & format::INCOMPAT_FRAGMENTS != 0
            && reader.superblock.packed_nid != 0
        {
            let inode = reader.inode(Nid(reader.superblock.packed_nid))?;
            expect("layout of the packed inode", inode.offset, COMPRESSED_FULL.into(), inode.layout.into())?;
            reader.packed = reader.extents(&inode)?;
            reader.packed_len = inode.size;
        }
        Ok(reader)
    }

    /// The volume's UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.superblock.uuid
    }

    /// The time of all files, in seconds since 1970.
    pub fn build_time(&self) -> u64 {
        self.superblock.build_time
    }

    /// The root directory.
    pub fn root(&self) -> Nid {
        Nid(self.superblock.root_nid.into())
    }

    fn get(&self, what: &'static str, offset: u64, len: u64) -> Result<&'a [u8], Error> {
        let range = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(len).ok())
            .and_then(|(offset, len)| self.bytes.get(offset..offset.checked_add(len)?));
        range.ok_or_else(|| outside(what, offset, len, self.bytes.len()))
    }

    /// Reads an inode.
    ///
    /// # Errors
    /// [`Error`] if it lies outside the image or is not valid.
    pub fn inode(&self, nid: Nid) -> Result<Inode, Error> {
        let wrong = || outside("inode number", nid.0, 0, self.bytes.len());
        let meta = u64::from(self.superblock.meta_blkaddr) * BLOCK as u64;
        let offset = nid.0.checked_mul(SLOT as u64).and_then(|at| at.checked_add(meta)).ok_or_else(wrong)?;
        let format = Fields(self.get("inode", offset, COMPACT_SIZE as u64)?).u16();
        let len = if RawInode::is_extended(format) { EXTENDED_SIZE } else { COMPACT_SIZE } as u64;
        let (raw, mtime) = RawInode::read(self.get("inode", offset, len)?);
        let file_type = FileType::of_mode(raw.mode);
        let unknown = |what, found| Error::Unknown { what, offset, found };
        let file_type = file_type.ok_or_else(|| unknown("file type", raw.mode.into()))?;
        match (raw.layout, file_type) {
            (FLAT_PLAIN | FLAT_INLINE, _) | (COMPRESSED_FULL, FileType::File) => {}
            _ => return Err(unknown("data layout", raw.layout.into())),
        }
        let attributes = match raw.xattr_icount {
            0 => 0,
            count => (XATTR_HEADER_SIZE + (usize::from(count) - 1) * XATTR_ENTRY_SIZE) as u64,
        };
        let xattrs = self.xattrs(offset + len, attributes)?;
        let device = match file_type {
            FileType::CharDevice | FileType::BlockDevice => format::decode_dev(raw.u),
            _ => (0, 0),
        };
        Ok(Inode {
            nid,
            file_type,
            mode: raw.mode & !format::S_IFMT,
            uid: raw.uid,
            gid: raw.gid,
            nlink: raw.nlink,
            size: raw.size,
            mtime: mtime.unwrap_or(self.superblock.build_time),
            device,
            xattrs,
            layout: raw.layout,
            block: raw.u,
            offset,
            behind: offset + len + attributes,
        })
    }

    fn xattrs(&self, offset: u64, len: u64) -> Result<BTreeMap<Box<str>, Box<[u8]>>, Error> {
        let mut all = BTreeMap::new();
        let bytes = self.get("extended attributes", offset, len)?;
        let Some((header, mut rest)) = bytes.split_first_chunk::<XATTR_HEADER_SIZE>() else { return Ok(all) };
        let mut header = Fields(header);
        let _filter = header.u32();
        expect("number of shared extended attributes", offset, 0, header.u8().into())?;
        while !rest.is_empty() {
            let mut fields = Fields(rest);
            let (name_len, index, value_len) = (fields.u8(), fields.u8(), fields.u16());
            let name_end = XATTR_ENTRY_SIZE + usize::from(name_len);
            let end = name_end + usize::from(value_len);
            let short = || outside("extended attribute", offset, end as u64, rest.len());
            let name = rest.get(XATTR_ENTRY_SIZE..name_end).ok_or_else(short)?;
            let value = rest.get(name_end..end).ok_or_else(short)?;
            let unknown =
                || Error::Unknown { what: "extended attribute's prefix", offset, found: index.into() };
            let (_, prefix) = XATTR_PREFIXES.iter().find(|(at, _)| *at == index).ok_or_else(unknown)?;
            let name = std::str::from_utf8(name).map_err(|error| Error::Unknown {
                what: "extended attribute's name",
                offset,
                found: error.valid_up_to() as u64,
            })?;
            all.insert(format!("{prefix}{name}").into(), value.into());
            rest = rest.get(end.next_multiple_of(XATTR_ENTRY_SIZE)..).ok_or_else(short)?;
        }
        Ok(all)
    }

    /// The entries of a directory, in order, `.` and `..` included.
    ///
    /// # Errors
    /// [`Error`] if it is not a directory, or its blocks are not valid.
    pub fn entries(&self, inode: &Inode) -> Result<Vec<Entry>, Error> {
        let offset = inode.offset;
        if inode.file_type != FileType::Directory {
            return Err(Error::Unknown { what: "directory", offset, found: inode.mode.into() });
        }
        let data = self.flat(inode)?;
        let mut entries: Vec<Entry> = Vec::new();
        for block in data.chunks(BLOCK) {
            let mut fields = Fields(block);
            let _nid = fields.u64();
            let names = usize::from(fields.u16());
            if names < DIRENT_SIZE || names % DIRENT_SIZE != 0 || names > block.len() {
                let expected = DIRENT_SIZE as u64;
                return Err(Error::Field {
                    what: "offset of the first name",
                    offset,
                    expected,
                    found: names as u64,
                });
            }
            let mut heads = Fields(block.get(..names).unwrap_or(&[]));
            let mut names_end: Vec<(u64, usize, u8)> = Vec::with_capacity(names / DIRENT_SIZE);
            for _ in 0..names / DIRENT_SIZE {
                let (nid, start, kind, _reserved) = (heads.u64(), heads.u16(), heads.u8(), heads.u8());
                names_end.push((nid, usize::from(start), kind));
            }
            let ends = names_end.iter().skip(1).map(|&(_, start, _)| Some(start)).chain([None]);
            for (&(nid, start, kind), end) in names_end.iter().zip(ends) {
                let name = match end {
                    Some(end) => block.get(start..end),
                    // The last name ends at the end of the block or at the first NUL.
                    None => block.get(start..).and_then(|rest| rest.split(|&byte| byte == 0).next()),
                };
                let bad = |what| Error::Name { offset, name: String::new(), what };
                let name = name.filter(|_| start >= names).ok_or_else(|| bad("lies outside its block"))?;
                let name = std::str::from_utf8(name).map_err(|_| bad("is not UTF-8"))?;
                let bad = |what| Error::Name { offset, name: name.to_owned(), what };
                if name.is_empty() || name.len() > NAME_LEN || name.contains(['/', '\0']) {
                    return Err(bad("is not a valid file name"));
                }
                if entries.last().is_some_and(|before| before.name.as_str() >= name) {
                    return Err(bad("is not after the previous name"));
                }
                let file_type = FileType::of_entry(kind).ok_or_else(|| bad("has an unknown type"))?;
                entries.push(Entry { name: name.to_owned(), nid: Nid(nid), file_type });
            }
        }
        for (dot, own) in [(".", Some(inode.nid)), ("..", None)] {
            let found = entries.iter().find(|entry| entry.name == dot);
            if found.is_none_or(|entry| own.is_some_and(|own| own != entry.nid)) {
                return Err(Error::Name {
                    offset,
                    name: dot.to_owned(),
                    what: "is missing or refers to another inode",
                });
            }
        }
        Ok(entries)
    }

    /// Data that is not compressed.
    fn flat(&self, inode: &Inode) -> Result<Cow<'a, [u8]>, Error> {
        let at = u64::from(inode.block) * BLOCK as u64;
        let rest = if inode.layout == FLAT_INLINE { inode.size % BLOCK as u64 } else { 0 };
        let whole = inode.size - rest;
        let tail = self.get("inline data of an inode", inode.behind, rest)?;
        if inode.behind % BLOCK as u64 + rest > BLOCK as u64 {
            return Err(Error::Field {
                what: "end of the inline data of an inode",
                offset: inode.behind,
                expected: BLOCK as u64,
                found: inode.behind % BLOCK as u64 + rest,
            });
        }
        let blocks = if whole == 0 { &[] } else { self.get("data", at, whole)? };
        Ok(match (blocks.is_empty(), tail.is_empty()) {
            (_, true) => Cow::Borrowed(blocks),
            (true, _) => Cow::Borrowed(tail),
            _ => Cow::Owned([blocks, tail].concat()),
        })
    }

    /// The data of an inode: the bytes of a file, or the target of a symbolic link.
    ///
    /// # Errors
    /// [`Error::Limit`] for more than `limit` bytes; any other [`Error`] for invalid data.
    pub fn read(&self, inode: &Inode, limit: u64) -> Result<Cow<'a, [u8]>, Error> {
        if inode.size > limit {
            return Err(Error::Limit { what: "data of an inode", found: inode.size, limit });
        }
        if inode.layout != COMPRESSED_FULL {
            return self.flat(inode);
        }
        let header = inode.behind.next_multiple_of(8);
        let header = Fields(self.get("map header", header, MAP_HEADER_SIZE as u64)?).u64();
        if header & FRAGMENT_INODE != 0 {
            return self.fragment(inode, header ^ FRAGMENT_INODE).map(Cow::Owned);
        }
        let mut out = Vec::new();
        for extent in self.extents(inode)? {
            out.extend_from_slice(&self.unpack(&extent)?);
        }
        Ok(Cow::Owned(out))
    }

    /// A file in the packed inode.
    fn fragment(&self, inode: &Inode, at: u64) -> Result<Vec<u8>, Error> {
        let end = at.checked_add(inode.size).filter(|&end| end <= self.packed_len);
        let end = end.ok_or(Error::Field {
            what: "end of a fragment",
            offset: inode.offset,
            expected: self.packed_len,
            found: at.saturating_add(inode.size),
        })?;
        let mut out = Vec::new();
        let first = self.packed.partition_point(|extent| extent.start + extent.len as u64 <= at);
        for extent in self.packed.get(first..).unwrap_or(&[]) {
            if extent.start >= end {
                break;
            }
            let mut last = self.last.borrow_mut();
            let plain = match last.take_if(|(at, _)| *at == extent.start) {
                Some((_, plain)) => plain,
                None => self.unpack(extent)?.into_owned(),
            };
            let from = at.saturating_sub(extent.start) as usize;
            let to = plain.len().min((end - extent.start) as usize);
            out.extend_from_slice(plain.get(from..to).unwrap_or(&[]));
            *last = Some((extent.start, plain));
        }
        Ok(out)
    }

    fn unpack(&self, extent: &Extent) -> Result<Cow<'a, [u8]>, Error> {
        let bytes = self.get("cluster", extent.at, extent.packed as u64)?;
        let wrong = Error::Frame { offset: extent.at, expected: extent.len };
        if extent.plain {
            return bytes.get(..extent.len).map(Cow::Borrowed).ok_or(wrong);
        }
        let padding = bytes.iter().take(BLOCK).position(|&byte| byte != 0).ok_or_else(|| wrong.clone())?;
        let frame = bytes.get(padding..).unwrap_or(&[]);
        let plain = zstd::bulk::decompress(frame, extent.len).map_err(|_| wrong.clone())?;
        if plain.len() == extent.len { Ok(Cow::Owned(plain)) } else { Err(wrong) }
    }

    /// The physical clusters of an inode with an index; together they cover its data.
    fn extents(&self, inode: &Inode) -> Result<Vec<Extent>, Error> {
        let at = inode.behind.next_multiple_of(8);
        let mut header = Fields(self.get("map header", at, MAP_HEADER_SIZE as u64)?);
        let (unused, advise, algorithm, bits) = (header.u32(), header.u16(), header.u8(), header.u8());
        expect("inline or fragment offset", at, 0, unused.into())?;
        expect("advise", at, format::ADVISE_BIG_PCLUSTER_1.into(), advise.into())?;
        expect("compression", at, COMPRESSION_ZSTD.into(), algorithm.into())?;
        expect("cluster bits", at, 0, bits.into())?;
        let count = inode.size.div_ceil(BLOCK as u64);
        let at = at + MAP_HEADER_SIZE as u64 + 8;
        let index = self.get("cluster index", at, count.saturating_mul(INDEX_SIZE as u64))?;
        let (rows, _) = index.as_chunks::<INDEX_SIZE>();
        let mut extents: Vec<Extent> = Vec::new();
        // The logical clusters of the last extent, in order.
        let mut seen = 0u64;
        for (number, row) in rows.iter().enumerate() {
            let mut fields = Fields(row);
            let (kind, start) = (fields.u16(), fields.u16());
            let offset = at + (number * INDEX_SIZE) as u64;
            expect("start of a cluster in its block", offset, 0, start.into())?;
            let logical = number as u64 * BLOCK as u64;
            let here = (inode.size - logical).min(BLOCK as u64) as usize;
            match kind {
                LCLUSTER_PLAIN | LCLUSTER_HEAD1 => {
                    let block = u64::from(fields.u32()) * BLOCK as u64;
                    let plain = kind == LCLUSTER_PLAIN;
                    extents.push(Extent { start: logical, len: here, at: block, packed: BLOCK, plain });
                    seen = 1;
                }
                LCLUSTER_NONHEAD => {
                    let (back, _ahead) = (fields.u16(), fields.u16());
                    let Some(extent) = extents.last_mut().filter(|extent| !extent.plain) else {
                        return Err(Error::Field {
                            what: "type of a cluster",
                            offset,
                            expected: LCLUSTER_HEAD1.into(),
                            found: kind.into(),
                        });
                    };
                    if seen == 1 && back & D0_CBLKCNT != 0 {
                        extent.packed = usize::from(back & !D0_CBLKCNT) * BLOCK;
                    } else {
                        expect("distance to the head of a cluster", offset, seen, back.into())?;
                    }
                    extent.len += here;
                    seen += 1;
                    if extent.len > PCLUSTER_MAX_DSIZE {
                        return Err(Error::Field {
                            what: "length of a cluster",
                            offset,
                            expected: PCLUSTER_MAX_DSIZE as u64,
                            found: extent.len as u64,
                        });
                    }
                }
                _ => return Err(Error::Unknown { what: "type of a cluster", offset, found: kind.into() }),
            }
        }
        Ok(extents)
    }

    /// Reads everything: the first path of an inode, in the order of paths, becomes the file, other paths its hard
    /// links.
    ///
    /// # Errors
    /// [`Error::Limit`] if files and targets of symbolic links have more than `limit` bytes together, hard links
    /// counted once; any other [`Error`] for an invalid image.
    pub fn tree(&self, origin: &Origin, limit: u64) -> Result<Tree, Error> {
        let mut left = limit;
        let mut tree = Tree::new(origin.clone());
        let mut files: BTreeMap<Nid, TreePath> = BTreeMap::new();
        let size = self.bytes.len() as u64;
        let mut heads = Budget { what: "all inodes", limit: size, used: 0 };
        for (path, inode) in self.walk()? {
            let kind = match inode.file_type {
                FileType::Directory => Kind::Directory,
                FileType::File => match files.get(&inode.nid) {
                    Some(first) => Kind::HardLink(first.clone()),
                    None => {
                        files.insert(inode.nid, path.clone());
                        let bytes = self.read(&inode, left)?;
                        left -= bytes.len() as u64;
                        Kind::File(Content::raw(bytes.into_owned()))
                    }
                },
                FileType::Symlink => {
                    let target = self.read(&inode, left.min(PATH_LEN as u64))?;
                    left -= target.len() as u64;
                    let target = std::str::from_utf8(&target).map_err(|_| Error::Name {
                        offset: inode.offset,
                        name: String::new(),
                        what: "is a symbolic link whose target is not UTF-8",
                    })?;
                    Kind::Symlink(target.into())
                }
                FileType::CharDevice => Kind::CharDevice { major: inode.device.0, minor: inode.device.1 },
                FileType::BlockDevice => Kind::BlockDevice { major: inode.device.0, minor: inode.device.1 },
                FileType::Fifo => Kind::Fifo,
            };
            let Inode { mode, uid, gid, .. } = *inode;
            // The attributes of a hard link are its file's. Any other inode with two names becomes two nodes.
            let xattrs = match kind {
                Kind::HardLink(_) => BTreeMap::new(),
                _ => {
                    heads.spend(inode.behind - inode.offset)?;
                    inode.xattrs.clone()
                }
            };
            tree.replace(path, Node { mode, uid, gid, xattrs, kind, origin: origin.clone() })?;
        }
        Ok(tree)
    }

    /// All paths and their inodes, in the order of paths; checks the link counts.
    ///
    /// # Errors
    /// [`Error`] if a directory has two parents, or anything is damaged.
    pub fn walk(&self) -> Result<BTreeMap<TreePath, Arc<Inode>>, Error> {
        let size = self.bytes.len() as u64;
        let root = Arc::new(self.inode(self.root())?);
        let mut nodes = BTreeMap::from([(TreePath::root(), Arc::clone(&root))]);
        let mut inodes = BTreeMap::from([(root.nid, Arc::clone(&root))]);
        let mut links: BTreeMap<Nid, u32> = BTreeMap::from([(root.nid, 2)]);
        // Two directories never share blocks, nor two inodes their attributes.
        let mut blocks = Budget { what: "all directories", limit: size, used: 0 };
        let mut heads = Budget { what: "all inodes", limit: size, used: root.behind - root.offset };
        let limit = size.saturating_mul(PATHS_PER_BYTE);
        let mut paths = Budget { what: "all paths", limit, used: 0 };
        let mut todo = vec![(TreePath::root(), root)];
        while let Some((path, directory)) = todo.pop() {
            blocks.spend(directory.size)?;
            for entry in self.entries(&directory)? {
                if entry.name == "." || entry.name == ".." {
                    continue;
                }
                let len = path.as_str().len() + 1 + entry.name.len();
                if len > PATH_LEN {
                    return Err(Error::Limit { what: "a path", found: len as u64, limit: PATH_LEN as u64 });
                }
                paths.spend(len as u64)?;
                let below = path.join(&entry.name)?;
                let (inode, again) = match inodes.entry(entry.nid) {
                    btree_map::Entry::Occupied(there) => (Arc::clone(there.get()), true),
                    btree_map::Entry::Vacant(free) => {
                        let inode = Arc::new(self.inode(entry.nid)?);
                        heads.spend(inode.behind - inode.offset)?;
                        (Arc::clone(free.insert(inode)), false)
                    }
                };
                if inode.file_type != entry.file_type {
                    let what = "has another type than its inode";
                    return Err(Error::Name { offset: directory.offset, name: entry.name, what });
                }
                let is_directory = inode.file_type == FileType::Directory;
                *links.entry(inode.nid).or_insert(u32::from(is_directory)) += 1;
                if is_directory {
                    *links.entry(directory.nid).or_default() += 1;
                    if again {
                        return Err(Error::Again { nid: inode.nid.0, path: below });
                    }
                    todo.push((below.clone(), Arc::clone(&inode)));
                }
                nodes.insert(below, inode);
            }
        }
        for inode in nodes.values() {
            let found = links.get(&inode.nid).copied().unwrap_or(0);
            expect("number of links", inode.offset, found.into(), inode.nlink.into())?;
        }
        Ok(nodes)
    }
}
