//! The hash tree and the root hash, from the data in one pass.
//!
//! # Shape
//!
//! A [`Hasher`] takes the data in chunks of any length and keeps one digest of 32 bytes for each block:
//! memory use is the tree and at most one block. All threads of rayon's current pool hash long chunks; a
//! caller that fills chunks on its own threads hashes them there with a [`LeafHasher`] and appends the
//! [`Leaves`] in order. Either way the bytes are the same.
//!
//! # Source
//!
//! cryptsetup `lib/verity/verity_hash.c`, `create_or_verify`; see the crate's page for the picture.
//!
//! # Not here
//!
//! Where blocks lie ([`crate::layout`]); reading a tree back ([`crate::verdict`]).

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::layout::{self, Layout};
use crate::parameters::{BlockSize, HashOffset, Parameters, Uuid};
use crate::superblock::{Superblock, SuperblockError};

/// The SHA-256 of one salted block.
pub type Digest = [u8; 32];

/// What one task of the thread pool hashes at a time, in bytes: a fifth of a millisecond, and fits a core's
/// own cache.
const TASK: usize = 256 * 1024;

/// Data that has no hash tree, or a root hash that is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The data does not end with a block.
    #[error("the last data block has {found} bytes, expected {block_size}: pad the data to whole blocks")]
    PartialBlock {
        /// The bytes behind the last whole block.
        found: usize,
        /// The size of a data block.
        block_size: BlockSize,
    },
    /// Leaves were appended while a block was not yet whole.
    #[error("leaves appended behind {pending} bytes of an unfinished block")]
    UnfinishedBlock {
        /// The bytes of the unfinished block.
        pending: usize,
    },
    /// The data has no block, or more than a superblock can describe.
    #[error(transparent)]
    Count(#[from] SuperblockError),
    /// The text is not a root hash.
    #[error("root hash `{found}`, expected 64 hexadecimal digits")]
    RootHash {
        /// The text as given.
        found: String,
    },
}

/// The digest that stands for every byte of the data under a salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootHash(pub [u8; 32]);

impl fmt::Display for RootHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

impl FromStr for RootHash {
    type Err = TreeError;

    fn from_str(text: &str) -> Result<Self, TreeError> {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(_) => Err(TreeError::RootHash { found: text.into() }),
        }
    }
}

/// Hashes whole data blocks on any thread; the salt is hashed only once.
#[derive(Debug, Clone)]
pub struct LeafHasher {
    salted: Sha256,
    block_size: BlockSize,
}

impl LeafHasher {
    fn new(parameters: &Parameters, block_size: BlockSize) -> Self {
        Self { salted: Sha256::new_with_prefix(parameters.salt.as_bytes()), block_size }
    }

    /// Hashes these blocks, on this thread alone.
    ///
    /// # Errors
    ///
    /// [`TreeError::PartialBlock`] when the bytes are not whole blocks.
    pub fn hash(&self, blocks: &[u8]) -> Result<Leaves, TreeError> {
        let size = self.block_size.length();
        match blocks.len() % size {
            0 => {
                let mut digests = vec![[0; 32]; blocks.len() / size];
                self.fill(blocks, &mut digests);
                Ok(Leaves(digests))
            }
            found => Err(TreeError::PartialBlock { found, block_size: self.block_size }),
        }
    }

    fn fill(&self, blocks: &[u8], digests: &mut [Digest]) {
        for (block, digest) in blocks.chunks_exact(self.block_size.length()).zip(digests) {
            let mut hasher = self.salted.clone();
            hasher.update(block);
            *digest = hasher.finalize().into();
        }
    }

    /// Fills one digest for each block, on all threads of the current pool if that is worth it.
    pub(crate) fn fill_in_parallel(&self, blocks: &[u8], digests: &mut [Digest]) {
        let size = self.block_size.length();
        let blocks_per_task = (TASK / size).max(1);
        if digests.len() <= blocks_per_task {
            self.fill(blocks, digests);
        } else {
            blocks
                .par_chunks(blocks_per_task * size)
                .zip(digests.par_chunks_mut(blocks_per_task))
                .for_each(|(blocks, digests)| self.fill(blocks, digests));
        }
    }
}

/// The digests of consecutive data blocks, made by a [`LeafHasher`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaves(Vec<Digest>);

/// Takes the data in chunks of any length and yields the tree.
#[derive(Debug, Clone)]
pub struct Hasher {
    parameters: Parameters,
    leaf: LeafHasher,
    leaves: Vec<Digest>,
    /// The start of a block that the last chunk did not finish; shorter than a block.
    pending: Vec<u8>,
}

impl Hasher {
    /// Makes a hasher without data.
    pub fn new(parameters: &Parameters) -> Self {
        Self {
            leaf: LeafHasher::new(parameters, parameters.data_block_size),
            parameters: parameters.clone(),
            leaves: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Takes the next bytes of the data.
    pub fn update(&mut self, chunk: &[u8]) {
        let size = self.parameters.data_block_size.length();
        let mut chunk = chunk;
        if !self.pending.is_empty() {
            let missing = size - self.pending.len();
            let (head, rest) = chunk.split_at_checked(missing).unwrap_or((chunk, &[]));
            self.pending.extend_from_slice(head);
            chunk = rest;
            if self.pending.len() < size {
                return;
            }
            let block = std::mem::take(&mut self.pending);
            self.hash_blocks(&block);
        }
        let (blocks, rest) = chunk.split_at(chunk.len() - chunk.len() % size);
        self.hash_blocks(blocks);
        self.pending.extend_from_slice(rest);
    }

    fn hash_blocks(&mut self, blocks: &[u8]) {
        let start = self.leaves.len();
        self.leaves.resize(start + blocks.len() / self.parameters.data_block_size.length(), [0; 32]);
        let (_, digests) = self.leaves.split_at_mut(start);
        self.leaf.fill_in_parallel(blocks, digests);
    }

    /// Gives a hasher of leaves for other threads, with the parameters of this one.
    pub fn leaf_hasher(&self) -> LeafHasher {
        self.leaf.clone()
    }

    /// Takes the next blocks of the data as leaves from this hasher's [`Hasher::leaf_hasher`].
    ///
    /// # Errors
    ///
    /// [`TreeError::UnfinishedBlock`] if [`Hasher::update`] stopped within a block.
    pub fn append(&mut self, leaves: Leaves) -> Result<(), TreeError> {
        match self.pending.len() {
            0 => {
                self.leaves.extend(leaves.0);
                Ok(())
            }
            pending => Err(TreeError::UnfinishedBlock { pending }),
        }
    }

    /// Builds the tree over the leaves.
    ///
    /// # Errors
    ///
    /// [`TreeError::PartialBlock`] if the data does not end with a whole block, [`TreeError::Count`] if there
    /// was no data.
    pub fn finish(self) -> Result<HashTree, TreeError> {
        let Self { parameters, leaves, pending, .. } = self;
        if !pending.is_empty() {
            return Err(TreeError::PartialBlock {
                found: pending.len(),
                block_size: parameters.data_block_size,
            });
        }
        let data_blocks = leaves.len() as u64;
        let hasher = LeafHasher::new(&parameters, parameters.hash_block_size);
        // Between 16 and 16384.
        let fan_out = layout::fan_out(parameters.hash_block_size) as usize;
        let mut levels = Vec::new();
        let mut below = leaves;
        while below.len() > 1 {
            let blocks = below.len().div_ceil(fan_out);
            below.resize(blocks * fan_out, [0; 32]);
            let mut above = vec![[0; 32]; blocks];
            hasher.fill_in_parallel(below.as_flattened(), &mut above);
            levels.push(std::mem::replace(&mut below, above));
        }
        levels.reverse();
        let root_hash = RootHash(below.first().copied().ok_or(SuperblockError::NoData)?);
        let uuid = parameters.uuid.unwrap_or_else(|| derived_uuid(root_hash));
        let superblock = Superblock::new(
            uuid,
            parameters.data_block_size,
            parameters.hash_block_size,
            data_blocks,
            parameters.salt,
        )?;
        Ok(HashTree { superblock, root_hash, levels })
    }
}

/// The default UUID of a tree: see [`Parameters`].
fn derived_uuid(RootHash(digest): RootHash) -> Uuid {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(digest.into_iter().skip(16)) {
        *to = from;
    }
    Uuid::derived(bytes)
}

/// A hash tree, its superblock and its root hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashTree {
    superblock: Superblock,
    root_hash: RootHash,
    /// Top first, each padded to whole hash blocks.
    levels: Vec<Vec<Digest>>,
}

impl HashTree {
    /// Returns the root hash.
    pub const fn root_hash(&self) -> RootHash {
        self.root_hash
    }

    /// Returns the superblock.
    pub const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Returns the number of data blocks.
    pub const fn data_blocks(&self) -> u64 {
        self.superblock.data_blocks()
    }

    /// Returns the layout of the levels.
    pub fn layout(&self) -> Layout {
        self.superblock.layout()
    }

    /// Returns the bytes of the levels, top first, in whole hash blocks; a single data block has none.
    pub fn levels(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.levels.iter().map(|level| level.as_flattened())
    }

    /// Returns the digests of the data blocks.
    pub(crate) fn leaves(&self) -> &[Digest] {
        match self.levels.last() {
            None => std::slice::from_ref(&self.root_hash.0),
            // The length came from memory, so it fits.
            Some(level) => level.get(..self.data_blocks() as usize).unwrap_or(level),
        }
    }

    /// Returns the length of the hash area at this offset, in bytes: superblock, padding, levels.
    pub fn length(&self, offset: HashOffset) -> u64 {
        let levels: usize = self.levels().map(<[u8]>::len).sum();
        Superblock::LENGTH as u64 + self.padding(offset) + levels as u64
    }

    fn padding(&self, offset: HashOffset) -> u64 {
        layout::padding(offset, self.superblock.hash_block_size())
    }

    /// Writes superblock, padding and levels to a stream positioned at the hash offset.
    ///
    /// # Errors
    ///
    /// Errors of the stream.
    pub fn write_to(&self, mut stream: impl Write, offset: HashOffset) -> io::Result<()> {
        stream.write_all(&self.superblock.to_bytes())?;
        io::copy(&mut io::Read::take(io::repeat(0), self.padding(offset)), &mut stream)?;
        self.levels().try_for_each(|level| stream.write_all(level))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parameters::Salt;

    fn parameters(data: u32, hash: u32, salt: &[u8]) -> Parameters {
        Parameters {
            salt: Salt::new(salt).unwrap(),
            data_block_size: BlockSize::new(data).unwrap(),
            hash_block_size: BlockSize::new(hash).unwrap(),
            uuid: None,
        }
    }

    /// Bytes that differ from block to block.
    fn data(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 512 + at * 7) as u8).collect()
    }

    fn tree(parameters: &Parameters, data: &[u8]) -> HashTree {
        let mut hasher = Hasher::new(parameters);
        hasher.update(data);
        hasher.finish().unwrap()
    }

    fn area(tree: &HashTree, offset: HashOffset) -> Vec<u8> {
        let mut bytes = Vec::new();
        tree.write_to(&mut bytes, offset).unwrap();
        bytes
    }

    /// The tree as in the text of the specification: block by block, level by level.
    fn by_the_book(parameters: &Parameters, data: &[u8]) -> (RootHash, Vec<u8>) {
        let salted = |block: &[u8]| -> Digest {
            Sha256::new().chain_update(parameters.salt.as_bytes()).chain_update(block).finalize().into()
        };
        let hash_block = parameters.hash_block_size.length();
        let mut digests: Vec<Digest> = data.chunks(parameters.data_block_size.length()).map(salted).collect();
        let mut area = Vec::new();
        while digests.len() > 1 {
            let mut level = digests.concat();
            level.resize(level.len().next_multiple_of(hash_block), 0);
            digests = level.chunks(hash_block).map(salted).collect();
            area = [level, area].concat();
        }
        (RootHash(digests[0]), area)
    }

    #[test]
    fn no_data_is_refused() {
        let finished = Hasher::new(&Parameters::default()).finish();
        assert!(matches!(finished, Err(TreeError::Count(SuperblockError::NoData))));
    }

    #[test]
    fn a_partial_last_block_is_refused_with_its_length() {
        for (length, expected) in [(1, 1), (4095, 4095), (4097, 1), (3 * 4096 + 17, 17)] {
            let mut hasher = Hasher::new(&Parameters::default());
            hasher.update(&data(length));
            let finished = hasher.finish();
            assert!(matches!(finished, Err(TreeError::PartialBlock { found, .. }) if found == expected));
        }
    }

    #[test]
    fn leaves_after_an_unfinished_block_are_refused() {
        let mut hasher = Hasher::new(&Parameters::default());
        let leaves = hasher.leaf_hasher().hash(&[0; 4096]).unwrap();
        hasher.update(&[0; 10]);
        assert!(matches!(hasher.append(leaves), Err(TreeError::UnfinishedBlock { pending: 10 })));
        let partial = hasher.leaf_hasher().hash(&[0; 4097]);
        assert!(matches!(partial, Err(TreeError::PartialBlock { found: 1, .. })));
    }

    #[test]
    fn one_block_has_no_level_and_its_digest_is_the_root() {
        let tree = tree(&Parameters::default(), &data(4096));
        assert_eq!(tree.levels().len(), 0);
        assert_eq!(tree.root_hash().0, <Digest>::from(Sha256::digest(data(4096))));
        assert_eq!(area(&tree, HashOffset::ZERO).len(), 4096);
    }

    #[test]
    fn the_tree_is_that_of_the_specification_at_every_boundary() {
        for blocks in [1, 2, 127, 128, 129, 16384, 16385] {
            // Small data blocks under large hash blocks: the boundaries are the same as with 4096.
            let parameters = parameters(512, 4096, b"salt");
            let data = data(blocks * 512);
            let tree = tree(&parameters, &data);
            let (root, levels) = by_the_book(&parameters, &data);
            assert_eq!(tree.root_hash(), root, "{blocks}");
            assert_eq!(tree.levels().flatten().copied().collect::<Vec<_>>(), levels, "{blocks}");
            let laid_out: Vec<u64> = tree.layout().levels().iter().map(|level| level.blocks * 4096).collect();
            assert_eq!(tree.levels().map(|level| level.len() as u64).collect::<Vec<_>>(), laid_out);
        }
    }

    #[test]
    fn equal_input_gives_an_equal_uuid_and_other_data_another() {
        let uuid = |data: &[u8]| tree(&Parameters::default(), data).superblock().uuid();
        assert_eq!(uuid(&[1; 4096]), uuid(&[1; 4096]));
        assert_ne!(uuid(&[1; 4096]), uuid(&[2; 4096]));
        let given = Uuid::from_bytes([9; 16]);
        let parameters = Parameters { uuid: Some(given), ..Parameters::default() };
        assert_eq!(tree(&parameters, &[1; 4096]).superblock().uuid(), given);
    }

    #[test]
    fn the_area_has_the_length_it_says_at_any_offset() {
        let tree = tree(&Parameters::default(), &data(4096 * 130));
        for offset in [0, 512, 3584, 4096, 532_480, 532_992] {
            let offset = HashOffset::new(offset).unwrap();
            let area = area(&tree, offset);
            assert_eq!(area.len() as u64, tree.length(offset));
            let start = (tree.superblock().hash_start_block(offset) * 4096 - offset.bytes()) as usize;
            assert_eq!(area[start..], tree.levels().flatten().copied().collect::<Vec<_>>());
            assert!(area[512..start].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_root_hash_reads_as_it_prints() {
        let root = RootHash([0xa5; 32]);
        assert_eq!(root.to_string().parse::<RootHash>().unwrap(), root);
        for wrong in ["", "a5", &"z".repeat(64), &"a".repeat(65)] {
            assert!(matches!(wrong.parse::<RootHash>(), Err(TreeError::RootHash { .. })));
        }
    }

    #[test]
    fn a_stream_that_fails_is_reported() {
        let tree = tree(&Parameters::default(), &data(4096 * 2));
        for room in [0, 511, 600, 4100] {
            assert!(tree.write_to(vec![0; room].as_mut_slice(), HashOffset::ZERO).is_err(), "{room}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_chunking_on_any_thread_gives_the_same_tree(
            data_bits in 9_u32..=13,
            hash_bits in 9_u32..=13,
            blocks in 1_usize..300,
            salt in proptest::collection::vec(any::<u8>(), 0..=256),
            cuts in proptest::collection::vec(0.0..1.0, 0..12),
            appended in proptest::collection::vec(any::<bool>(), 13),
        ) {
            let parameters = parameters(1 << data_bits, 1 << hash_bits, &salt);
            let data = data(blocks << data_bits);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at: f64| (at * data.len() as f64) as usize).collect();
            cuts.push(data.len());
            cuts.sort_unstable();
            let mut hasher = Hasher::new(&parameters);
            let mut start = 0;
            for (end, by_leaves) in cuts.into_iter().zip(appended) {
                let chunk = &data[start..end];
                start = end;
                match hasher.leaf_hasher().hash(chunk) {
                    Ok(leaves) if by_leaves && hasher.pending.is_empty() => hasher.append(leaves).unwrap(),
                    _ => hasher.update(chunk),
                }
            }
            let tree = hasher.finish().unwrap();
            let (root, levels) = by_the_book(&parameters, &data);
            prop_assert_eq!(tree.root_hash(), root);
            prop_assert_eq!(tree.levels().flatten().copied().collect::<Vec<_>>(), levels);
        }
    }
}
