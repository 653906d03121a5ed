//! Which blocks of an image do not match its root hash, from the data and the stored tree.
//!
//! # Shape
//!
//! The tree is checked from the top: a block is sound if it matches the digest above it; blocks below a
//! corrupt block are not checked, since nothing vouches for their digests (the kernel refuses all of them).
//! Then each data block is checked against its leaf. A mismatch is a [`Verdict`]; an image that cannot be
//! checked is a [`VerifyError`].
//!
//! # Source
//!
//! The kernel's `drivers/md/dm-verity-target.c`, `verity_verify_level`: top-down. The zeros after a level's
//! last digest are checked too, so that a superblock that counts too few blocks cannot pass.
//!
//! # Not here
//!
//! Trust in the superblock beyond that: the root hash vouches for the data, given salt and geometry.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;

use crate::layout;
use crate::parameters::{HashOffset, Parameters};
use crate::superblock::{Superblock, SuperblockError};
use crate::tree::{Digest, HashTree, Hasher, RootHash, TreeError};

/// Why an image could not be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The superblock is not valid.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The stream of the hash area failed.
    #[error("cannot read the hash tree")]
    ReadTree(#[source] io::Error),
    /// The hash area ends too early.
    #[error("the hash tree ends after {found} bytes of level {level}, expected {expected}")]
    TreeTruncated {
        /// The level, 0 for the leaves; the padding before the tree counts as the level above the top.
        level: usize,
        /// The length of the level in bytes.
        expected: u64,
        /// The bytes found.
        found: u64,
    },
    /// The stream of the data failed.
    #[error("cannot read the data")]
    ReadData(#[source] io::Error),
    /// The data ends too early.
    #[error("data of {found} bytes, the superblock expects {expected}")]
    DataTruncated {
        /// The length according to the superblock, in bytes.
        expected: u64,
        /// The bytes found.
        found: u64,
    },
    /// The data was hashed with other parameters than the stored tree's.
    #[error("the data was hashed with other parameters than the superblock's")]
    OtherParameters,
    /// The tree over the data cannot be built.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// One mismatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A data block differs from the one that was hashed.
    Data {
        /// The block, counted from 0.
        block: u64,
        /// The digest in the tree.
        expected: Digest,
        /// The digest of the block.
        found: Digest,
    },
    /// A block of the tree differs from the one that was written.
    Tree {
        /// The level, 0 for the leaves.
        level: usize,
        /// The block within its level, counted from 0.
        block: u64,
        /// The digest in the level above, or the root hash.
        expected: Digest,
        /// The digest of the block.
        found: Digest,
        /// The data blocks that can no longer be checked.
        data: Range<u64>,
    },
    /// A level continues after its last digest: the superblock counts too few blocks.
    Padding {
        /// The level, 0 for the leaves.
        level: usize,
        /// The number of digests according to the superblock.
        digests: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { block, expected, found } => {
                write!(out, "data block {block}: {}, expected {}", hex::encode(found), hex::encode(expected))
            }
            Self::Tree { level, block, expected, found, data } => write!(
                out,
                "hash block {block} of level {level} (over data blocks {} to {}): {}, expected {}",
                data.start,
                data.end - 1,
                hex::encode(found),
                hex::encode(expected)
            ),
            Self::Padding { level, digests } => {
                write!(out, "level {level} goes on behind its {digests} digests, expected zeros")
            }
        }
    }
}

/// The faults of an image; the list is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// The first faults: those of the tree from the top, then those of the data.
    pub faults: Vec<Fault>,
    /// The number of faults, listed or not.
    pub count: u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Every block of the tree and the data matches the root hash.
    Intact,
    /// Some blocks do not match.
    Corrupt(Corruption),
}

/// A superblock and its tree as stored, not yet checked.
#[derive(Debug, Clone)]
pub struct StoredTree {
    superblock: Superblock,
    /// Top first.
    levels: Vec<Vec<u8>>,
}

impl StoredTree {
    /// Reads superblock and tree from a stream positioned at the hash offset.
    ///
    /// Memory use grows with the actual data, not with what the superblock claims.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Superblock`], [`VerifyError::ReadTree`], [`VerifyError::TreeTruncated`].
    pub fn read(mut area: impl Read, offset: HashOffset) -> Result<Self, VerifyError> {
        let superblock = Superblock::read(&mut area)?;
        let layout = superblock.layout();
        let count = layout.levels().len();
        if count > 0 {
            let padding = layout::padding(offset, superblock.hash_block_size());
            read_exactly(&mut area, padding, count)?;
        }
        let mut levels = Vec::with_capacity(count);
        for (number, level) in (0..count).rev().zip(layout.levels()) {
            let length = level.blocks * u64::from(superblock.hash_block_size().bytes());
            levels.push(read_exactly(&mut area, length, number)?);
        }
        Ok(Self { superblock, levels })
    }

    /// Returns the superblock.
    pub const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Starts to hash the data with the stored parameters; it needs the first
    /// [`Superblock::data_length`] bytes.
    pub fn hasher(&self) -> Hasher {
        Hasher::new(&Parameters {
            salt: self.superblock.salt().clone(),
            data_block_size: self.superblock.data_block_size(),
            hash_block_size: self.superblock.hash_block_size(),
            uuid: Some(self.superblock.uuid()),
        })
    }

    /// Checks the stored tree against the root hash, and the data, as hashed by [`StoredTree::hasher`],
    /// against the stored tree; lists at most `limit` faults.
    ///
    /// # Errors
    ///
    /// [`VerifyError::DataTruncated`] if the data is shorter than the superblock says,
    /// [`VerifyError::OtherParameters`], [`VerifyError::Tree`].
    pub fn judge(&self, data: Hasher, root: RootHash, limit: usize) -> Result<Verdict, VerifyError> {
        let computed = data.finish()?;
        if computed.data_blocks() < self.superblock.data_blocks() {
            let (expected, found) = (self.superblock.data_length(), computed.superblock().data_length());
            return Err(VerifyError::DataTruncated { expected, found });
        }
        if *computed.superblock() != self.superblock {
            return Err(VerifyError::OtherParameters);
        }
        let mut faults = Faults { limit, listed: Vec::new(), count: 0 };
        self.walk(&computed, root, &mut faults);
        Ok(match faults {
            Faults { count: 0, .. } => Verdict::Intact,
            Faults { listed, count, .. } => Verdict::Corrupt(Corruption { faults: listed, count }),
        })
    }

    fn walk(&self, computed: &HashTree, root: RootHash, faults: &mut Faults) {
        let hash_block_size = self.superblock.hash_block_size();
        let hasher = Hasher::new(&Parameters {
            data_block_size: hash_block_size,
            salt: self.superblock.salt().clone(),
            ..Parameters::default()
        })
        .leaf_hasher();
        let fan_out = layout::fan_out(hash_block_size);
        let layout = self.superblock.layout();
        let numbers = (0..self.levels.len()).rev();

        // The digests of this level in the level above, and which blocks of that level are sound.
        let mut expected: &[Digest] = std::slice::from_ref(&root.0);
        let mut sound = vec![Soundness::Sound];
        for ((number, bytes), level) in numbers.zip(&self.levels).zip(layout.levels()) {
            let mut digests = vec![[0; 32]; bytes.len() / hash_block_size.length()];
            hasher.fill_in_parallel(bytes, &mut digests);
            let span = fan_out.saturating_pow(number as u32 + 1);
            let mut here = Vec::with_capacity(digests.len());
            for ((block, found), expected) in (0..).zip(&digests).zip(expected) {
                let soundness = match above(&sound, block, fan_out) {
                    Soundness::Sound if found == expected => Soundness::Sound,
                    Soundness::Sound => {
                        let start = block * span;
                        let end = start.saturating_add(span).min(self.superblock.data_blocks());
                        faults.push(Fault::Tree {
                            level: number,
                            block,
                            expected: *expected,
                            found: *found,
                            data: start..end,
                        });
                        Soundness::Unknown
                    }
                    Soundness::Unknown => Soundness::Unknown,
                };
                here.push(soundness);
            }
            let (entries, _) = bytes.as_chunks::<32>();
            // The level was read whole, so its length fits.
            let behind = entries.get(level.digests as usize..).unwrap_or_default();
            if here.last() == Some(&Soundness::Sound) && behind.iter().any(|entry| *entry != [0; 32]) {
                faults.push(Fault::Padding { level: number, digests: level.digests });
            }
            expected = entries;
            sound = here;
        }
        for ((block, found), expected) in (0..).zip(computed.leaves()).zip(expected) {
            if above(&sound, block, fan_out) == Soundness::Sound && found != expected {
                faults.push(Fault::Data { block, expected: *expected, found: *found });
            }
        }
    }
}

/// Whether the digests in a hash block can be trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Soundness {
    Sound,
    Unknown,
}

/// Returns whether the block above this one is sound; the root hash is the block above the top.
fn above(sound: &[Soundness], block: u64, fan_out: u64) -> Soundness {
    // Fits: the slice it indexes has an entry for it.
    sound.get((block / fan_out) as usize).copied().unwrap_or(Soundness::Unknown)
}

struct Faults {
    limit: usize,
    listed: Vec<Fault>,
    count: u64,
}

impl Faults {
    fn push(&mut self, fault: Fault) {
        self.count += 1;
        if self.listed.len() < self.limit {
            self.listed.push(fault);
        }
    }
}

fn read_exactly(stream: &mut impl Read, expected: u64, level: usize) -> Result<Vec<u8>, VerifyError> {
    let mut bytes = Vec::new();
    let found = stream.take(expected).read_to_end(&mut bytes).map_err(VerifyError::ReadTree)? as u64;
    if found == expected { Ok(bytes) } else { Err(VerifyError::TreeTruncated { level, expected, found }) }
}

/// Checks the data and the hash area, both as streams, against a root hash; lists at most `limit` faults.
///
/// The stream of the area is positioned at the hash offset. Only the data that the superblock covers is read.
///
/// # Errors
///
/// [`VerifyError`], every variant but [`VerifyError::OtherParameters`].
pub fn verify(
    data: impl Read,
    area: impl Read,
    offset: HashOffset,
    root: RootHash,
    limit: usize,
) -> Result<Verdict, VerifyError> {
    let stored = StoredTree::read(area, offset)?;
    let expected = stored.superblock.data_length();
    let mut hasher = stored.hasher();
    let mut data = data.take(expected);
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut found = 0;
    loop {
        chunk.clear();
        match data.by_ref().take(CHUNK as u64).read_to_end(&mut chunk).map_err(VerifyError::ReadData)? {
            0 => break,
            length => found += length as u64,
        }
        hasher.update(&chunk);
    }
    if found < expected {
        return Err(VerifyError::DataTruncated { expected, found });
    }
    stored.judge(hasher, root, limit)
}

/// The bytes of data that are read at a time: enough for every thread.
const CHUNK: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parameters::{BlockSize, Salt};

    const BLOCK: usize = 512;

    /// 600 data blocks under hash blocks of 16 digests: levels of 1, 3 and 38 blocks.
    fn image() -> (Vec<u8>, Vec<u8>, RootHash) {
        let size = BlockSize::new(BLOCK as u32).unwrap();
        let parameters = Parameters {
            salt: Salt::new([1, 2, 3]).unwrap(),
            data_block_size: size,
            hash_block_size: size,
            uuid: None,
        };
        let data: Vec<u8> = (0..600 * BLOCK).map(|at| (at / BLOCK + at) as u8).collect();
        let mut hasher = Hasher::new(&parameters);
        hasher.update(&data);
        let tree = hasher.finish().unwrap();
        let mut area = Vec::new();
        tree.write_to(&mut area, HashOffset::ZERO).unwrap();
        (data, area, tree.root_hash())
    }

    fn judge(data: &[u8], area: &[u8], root: RootHash) -> Verdict {
        verify(data, area, HashOffset::ZERO, root, 100).unwrap()
    }

    fn faults(verdict: Verdict) -> Vec<String> {
        let Verdict::Corrupt(corruption) = verdict else { panic!("intact") };
        assert_eq!(corruption.count, corruption.faults.len() as u64);
        let short = |fault: &Fault| fault.to_string().split(": ").next().unwrap().to_owned();
        corruption.faults.iter().map(short).collect()
    }

    #[test]
    fn what_was_written_is_intact() {
        let (data, area, root) = image();
        assert_eq!(judge(&data, &area, root), Verdict::Intact);
    }

    #[test]
    fn every_corrupt_data_block_is_listed() {
        let (mut data, area, root) = image();
        for block in [0, 17, 599] {
            data[block * BLOCK + 5] ^= 1;
        }
        let found = faults(judge(&data, &area, root));
        assert_eq!(found, ["data block 0", "data block 17", "data block 599"]);
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let (data, area, root) = image();
        let zeros = vec![0; data.len()];
        let verdict = verify(&zeros[..], &area[..], HashOffset::ZERO, root, 7).unwrap();
        let Verdict::Corrupt(corruption) = verdict else { panic!("intact") };
        assert_eq!((corruption.faults.len(), corruption.count), (7, 600));
    }

    #[test]
    fn a_corrupt_hash_block_is_named_with_the_data_under_it() {
        let (data, mut area, root) = image();
        // Superblock, level 2 (1 block), level 1 (3 blocks), level 0.
        area[BLOCK * (1 + 1 + 1)] ^= 1;
        let found = faults(judge(&data, &area, root));
        assert_eq!(found, ["hash block 1 of level 1 (over data blocks 256 to 511)"]);
    }

    #[test]
    fn corrupt_blocks_in_several_places_are_all_found() {
        let (mut data, mut area, root) = image();
        area[BLOCK * 5 + 1] ^= 0x80; // leaves of data blocks 0 to 15
        data[3 * BLOCK] ^= 1; // not judged
        data[16 * BLOCK] ^= 1;
        let found = faults(judge(&data, &area, root));
        assert_eq!(found, ["hash block 0 of level 0 (over data blocks 0 to 15)", "data block 16"]);
    }

    #[test]
    fn another_root_hash_is_a_corrupt_top() {
        let (data, area, _) = image();
        let found = faults(judge(&data, &area, RootHash([0; 32])));
        assert_eq!(found, ["hash block 0 of level 2 (over data blocks 0 to 599)"]);
    }

    #[test]
    fn another_salt_is_a_corrupt_top() {
        let (data, mut area, root) = image();
        area[88] ^= 1;
        let found = faults(judge(&data, &area, root));
        assert_eq!(found, ["hash block 0 of level 2 (over data blocks 0 to 599)"]);
    }

    #[test]
    fn a_superblock_that_counts_too_few_blocks_does_not_pass() {
        let (data, mut area, root) = image();
        area[72..80].copy_from_slice(&599_u64.to_le_bytes());
        let found = faults(judge(&data, &area, root));
        assert_eq!(found, ["level 0 goes on behind its 599 digests, expected zeros"]);
    }

    #[test]
    fn a_single_data_block_is_checked_against_the_root_itself() {
        let mut hasher = Hasher::new(&Parameters::default());
        hasher.update(&[3; 4096]);
        let tree = hasher.finish().unwrap();
        let superblock = tree.superblock().to_bytes();
        assert_eq!(judge(&[3; 4096], &superblock, tree.root_hash()), Verdict::Intact);
        assert_eq!(faults(judge(&[4; 4096], &superblock, tree.root_hash())), ["data block 0"]);
    }

    #[test]
    fn a_truncated_tree_is_an_error_at_every_length() {
        let (data, area, root) = image();
        for length in 0..area.len() {
            match verify(&data[..], &area[..length], HashOffset::ZERO, root, 1) {
                Err(VerifyError::Superblock(SuperblockError::Truncated { found })) => {
                    assert_eq!(found, length)
                }
                Err(VerifyError::TreeTruncated { .. }) => assert!(length >= 512),
                other => panic!("{length}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_truncated_level_is_named() {
        let (data, area, root) = image();
        let read = verify(&data[..], &area[..BLOCK * 2 + 9], HashOffset::ZERO, root, 1);
        assert!(matches!(read, Err(VerifyError::TreeTruncated { level: 1, expected: 1536, found: 9 })));
    }

    #[test]
    fn a_count_that_no_file_holds_costs_no_memory() {
        let (data, mut area, root) = image();
        area[72..80].copy_from_slice(&(1_u64 << 53).to_le_bytes());
        let read = verify(&data[..], &area[..], HashOffset::ZERO, root, 1);
        assert!(matches!(read, Err(VerifyError::TreeTruncated { .. })));
    }

    #[test]
    fn truncated_data_is_an_error() {
        let (data, area, root) = image();
        for length in [0, 100, data.len() - 1, data.len() - BLOCK] {
            let read = verify(&data[..length], &area[..], HashOffset::ZERO, root, 1);
            assert!(matches!(read, Err(VerifyError::DataTruncated { found, .. }) if found == length as u64));
        }
        let stored = StoredTree::read(&area[..], HashOffset::ZERO).unwrap();
        let mut hasher = stored.hasher();
        hasher.update(&data[..BLOCK]);
        let judged = stored.judge(hasher, root, 1);
        assert!(matches!(judged, Err(VerifyError::DataTruncated { expected: 307_200, found: 512 })));
    }

    #[test]
    fn data_after_the_covered_blocks_is_not_read() {
        let (mut data, area, root) = image();
        data.extend([9; 700]);
        assert_eq!(judge(&data, &area, root), Verdict::Intact);
    }

    #[test]
    fn a_hasher_of_other_parameters_or_without_whole_blocks_is_refused() {
        let (data, area, root) = image();
        let stored = StoredTree::read(&area[..], HashOffset::ZERO).unwrap();
        let mut other = Hasher::new(&Parameters {
            data_block_size: stored.superblock().data_block_size(),
            ..Parameters::default()
        });
        other.update(&data);
        assert!(matches!(stored.judge(other, root, 1), Err(VerifyError::OtherParameters)));
        let mut partial = stored.hasher();
        partial.update(&data[1..]);
        assert!(matches!(stored.judge(partial, root, 1), Err(VerifyError::Tree(_))));
    }

    #[test]
    fn a_stream_that_fails_is_reported() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let (data, area, root) = image();
        let read = verify(Broken, &area[..], HashOffset::ZERO, root, 1);
        assert!(matches!(read, Err(VerifyError::ReadData(_))));
        let read = verify(&data[..], area[..600].chain(Broken), HashOffset::ZERO, root, 1);
        assert!(matches!(read, Err(VerifyError::ReadTree(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_changed_bit_of_data_or_tree_is_intact(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let (mut data, mut area, root) = image();
            let at = at.index(data.len() + area.len() - 512);
            match at.checked_sub(data.len()) {
                None => data[at] ^= 1 << bit,
                Some(at) => area[512 + at] ^= 1 << bit,
            }
            prop_assert_ne!(judge(&data, &area, root), Verdict::Intact);
        }

        #[test]
        fn no_changed_byte_of_the_superblock_panics(at in 0..512_usize, byte: u8) {
            let (data, mut area, root) = image();
            area[at] = byte;
            let _ = verify(&data[..], &area[..], HashOffset::ZERO, root, 3);
        }
    }
}
