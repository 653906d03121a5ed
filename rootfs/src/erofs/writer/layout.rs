//! Yields the pieces of the image, each with its place, from the plan.

use std::collections::BTreeMap;
use std::ops::Range;

use super::item::{Body, Data, FrameOf, Item};
use super::plan::Plan;
use super::room::{Blocks, Slots};
use super::{Error, Image, META_BLOCK, Options, Piece, Place, Source};
use crate::content::{CLUSTER, Packing, Sha256Digest};
use crate::erofs::format::{
    self, ADVISE_BIG_PCLUSTER_1, BLOCK, BLOCK_BITS, COMPAT_MTIME, COMPAT_SB_CHKSUM, COMPRESSION_ZSTD,
    D0_CBLKCNT, FRAGMENT_INODE, INCOMPAT_COMPR_CFGS, INCOMPAT_FRAGMENTS, INCOMPAT_ZERO_PADDING,
    LCLUSTER_HEAD1, LCLUSTER_NONHEAD, LCLUSTER_PLAIN, SLOT, SUPER_MAGIC, SUPER_OFFSET, SuperBlock, deltas,
    lcluster,
};

impl<'a> Plan<'a> {
    /// Gives every inode and every block its place.
    pub(super) fn lay_out(mut self, options: &Options) -> Result<Image<'a>, Error> {
        let nodes = self.items.len();
        let packed = self.pack(options.packing)?;
        // The root comes first, so that its number fits into the superblock's 16 bits.
        let mut slots = Slots::default();
        for item in &mut self.items {
            item.place = slots.place(item.space());
        }
        let packed_nid =
            packed.and_then(|number| self.items.get(number)).map(|item| item.place / SLOT as u64);

        let mut emit = Emit::new(u64::from(META_BLOCK) + slots.end / BLOCK as u64, options, self.items.len());
        let mut directories = Vec::new();
        for directory in &self.directories {
            let at = emit.arena.len();
            directory.write(&self.items, &mut emit.arena);
            directories.push(at);
        }
        // Directories first, then the packed inode, then all others: what is read most lies together.
        let order = |item: &Item<'_>| match &item.body {
            Body::Flat { data: Data::Directory(_), .. } => 0,
            Body::Clusters { digest: None, .. } => 1,
            _ => 2,
        };
        let mut items: Vec<(u32, Item<'a>)> = (1..).zip(self.items).collect();
        items.sort_by_key(|(_, item)| order(item));
        for (ino, item) in items {
            emit.item(ino, item, &directories)?;
        }
        emit.superblock(options, nodes as u64, packed_nid)?;

        emit.pieces.sort_unstable_by_key(|piece| piece.at);
        emit.places.truncate(nodes);
        let size = emit.blocks.0 * BLOCK as u64;
        Ok(Image { size, pieces: emit.pieces, arena: emit.arena, places: emit.places })
    }

    /// Compresses the small files, if any, into the packed inode, and returns its number.
    fn pack(&mut self, packing: Packing) -> Result<Option<usize>, Error> {
        let (Packing::Zstd(level), 1..) = (packing, self.packed.len) else { return Ok(None) };
        let frames = self.packed.compress(level)?;
        let number = self.items.len();
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
        Ok(Some(number))
    }
}

/// The position and length of the last, partial block of data, after its inode.
struct Inline {
    at: u64,
    len: usize,
}

/// The part of the image that is laid out.
struct Emit<'a> {
    blocks: Blocks,
    mtime: u64,
    pieces: Vec<Piece<'a>>,
    arena: Vec<u8>,
    /// The first block of flat data already laid out, by its digest and the length of its inline part.
    known: BTreeMap<(Sha256Digest, usize), u32>,
    /// Map header and index of clusters already laid out, as a range of the arena, and the blocks of their data.
    indexes: BTreeMap<Sha256Digest, (Range<usize>, Range<u32>)>,
    compressed: bool,
    /// The first block of each cluster of the packed inode, and the end of the last one.
    packed: Vec<u32>,
    places: Vec<Place>,
}

impl<'a> Emit<'a> {
    fn new(first_block: u64, options: &Options, items: usize) -> Self {
        Emit {
            blocks: Blocks(first_block),
            mtime: options.mtime,
            pieces: Vec::with_capacity(2 * items),
            arena: Vec::with_capacity(64 * items),
            known: BTreeMap::new(),
            indexes: BTreeMap::new(),
            compressed: false,
            packed: vec![0],
            places: vec![Place::default(); items],
        }
    }

    /// Lays out an inode, what follows it, and its data.
    fn item(&mut self, ino: u32, item: Item<'a>, directories: &[usize]) -> Result<(), Error> {
        let mut inode = item.raw(ino);
        let at = u64::from(META_BLOCK) * BLOCK as u64 + item.place;
        let start = self.arena.len();
        let head = inode.len() + item.xattrs.len();
        // Padding before a map header, the header and the index of clusters.
        let mut index = Vec::new();
        let mut data_blocks = 0..0;
        let mut behind = 0;
        match item.body {
            Body::Empty => {}
            Body::Flat { data, inline } => {
                behind = inline as u64;
                let inline = Inline { at: at + head as u64, len: inline };
                data_blocks = self.flat(data, item.size, inline, directories)?;
                if !data_blocks.is_empty() {
                    inode.u = data_blocks.start;
                }
            }
            Body::Packed(offset) => {
                index.resize(head.next_multiple_of(8) - head, 0);
                index.extend((offset | FRAGMENT_INODE).to_le_bytes());
                data_blocks = self.packed_blocks(offset, item.size);
            }
            Body::Clusters { frames, digest } => {
                index.resize(head.next_multiple_of(8) - head, 0);
                data_blocks = self.compressed(frames, digest, start + head, &mut index)?;
                inode.u = data_blocks.len() as u32;
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

    /// Lays out uncompressed data, and returns its whole blocks; equal data is laid out once.
    fn flat(
        &mut self,
        data: Data<'a>,
        size: u64,
        inline: Inline,
        directories: &[usize],
    ) -> Result<Range<u32>, Error> {
        let whole = size - inline.len as u64;
        let (digest, source) = match data {
            Data::Directory(number) => (None, Source::Arena(directories.get(number).copied().unwrap_or(0))),
            Data::Slice(bytes, digest) => (digest, Source::Slice(bytes)),
            Data::Content(content) => (Some(content.sha256()), Source::Content(content, 0)),
        };
        if inline.len > 0 {
            self.pieces.push(Piece { at: inline.at, len: inline.len as u64, source: source.from(whole) });
        }
        if whole == 0 {
            return Ok(0..0);
        }
        let key = digest.map(|digest| (digest, inline.len));
        let first = match key.and_then(|key| self.known.get(&key)) {
            Some(&first) => first,
            None => {
                let first = self.blocks.take(whole)?;
                self.pieces.push(Piece { at: u64::from(first) * BLOCK as u64, len: whole, source });
                first
            }
        };
        if let Some(key) = key {
            self.known.insert(key, first);
        }
        Ok(first..first + whole.div_ceil(BLOCK as u64) as u32)
    }

    /// The blocks that hold these bytes of the packed inode.
    fn packed_blocks(&self, offset: u64, size: u64) -> Range<u32> {
        let cluster = |byte: u64| (byte / CLUSTER as u64) as usize;
        let block = |cluster: usize| self.packed.get(cluster).copied().unwrap_or(0);
        block(cluster(offset))..block(cluster((offset + size).saturating_sub(1)) + 1)
    }

    /// Lays out compressed clusters, appends their map header and index to `index`, which goes to `index_at` in the
    /// arena, and returns their blocks; equal data is laid out once.
    fn compressed(
        &mut self,
        frames: Vec<FrameOf<'a>>,
        digest: Option<Sha256Digest>,
        index_at: usize,
        index: &mut Vec<u8>,
    ) -> Result<Range<u32>, Error> {
        self.compressed = true;
        if let Some((range, blocks)) = digest.and_then(|digest| self.indexes.get(&digest).cloned()) {
            index.extend_from_slice(self.arena.get(range).unwrap_or(&[]));
            return Ok(blocks);
        }
        let blocks: u64 = frames.iter().map(|frame| frame.len.div_ceil(BLOCK) as u64).sum();
        let first = self.blocks.take(blocks * BLOCK as u64)?;
        let blocks = first..first + blocks as u32;
        let skip = index.len();
        index.extend([0; 4]);
        index.extend(ADVISE_BIG_PCLUSTER_1.to_le_bytes());
        index.extend([COMPRESSION_ZSTD, 0]);
        index.extend([0; 8]);
        if digest.is_none() {
            self.packed = vec![first];
            self.packed.extend(frames.iter().scan(first, |end, frame| {
                *end += frame.len.div_ceil(BLOCK) as u32;
                Some(*end)
            }));
        }
        self.clusters(frames, first, index);
        if let Some(digest) = digest {
            let range = index_at + skip..index_at + index.len();
            self.indexes.insert(digest, (range, blocks.clone()));
        }
        Ok(blocks)
    }

    /// Lays out physical clusters from block `first` on, and writes their index.
    fn clusters(&mut self, frames: Vec<FrameOf<'a>>, first: u32, index: &mut Vec<u8>) {
        let mut block = first;
        for frame in frames {
            let blocks = frame.len.div_ceil(BLOCK) as u32;
            let logical = frame.input.div_ceil(BLOCK) as u16;
            if frame.stored {
                // A plain physical cluster is one block.
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

    /// Writes the superblock with its checksum, and the compression configuration.
    fn superblock(&mut self, options: &Options, inos: u64, packed_nid: Option<u64>) -> Result<(), Error> {
        let mut incompat = 0;
        if self.compressed {
            incompat |= INCOMPAT_ZERO_PADDING | INCOMPAT_COMPR_CFGS;
        }
        if packed_nid.is_some() {
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
            blocks: u32::try_from(self.blocks.0).map_err(|_| Error::TooLarge)?,
            meta_blkaddr: META_BLOCK,
            xattr_blkaddr: 0,
            uuid: options.uuid,
            volume_name: options.label,
            feature_incompat: incompat,
            available_compr_algs: if self.compressed { 1 << COMPRESSION_ZSTD } else { 0 },
            dirblkbits: 0,
            packed_nid: packed_nid.unwrap_or(0),
        };
        let block = |superblock: &SuperBlock| {
            let mut block = superblock.to_bytes();
            if self.compressed {
                block.extend(format::zstd_cfgs(CLUSTER.ilog2()));
            }
            block.resize(BLOCK - SUPER_OFFSET, 0);
            block
        };
        superblock.checksum = format::checksum(&block(&superblock));
        let block = block(&superblock);
        let (at, len) = (SUPER_OFFSET as u64, block.len() as u64);
        self.pieces.push(Piece { at, len, source: Source::Arena(self.arena.len()) });
        self.arena.extend(block);
        Ok(())
    }
}
