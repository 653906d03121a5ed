//! Yields hashes and proofs of a Merkle tree, and verifies proofs, from the hashes of its perfect subtrees.
//!
//! # Shape
//! ```text
//! level 2              (2, 0)                 the perfect subtree (level, index) covers the leaves
//! level 1      (1, 0)        (1, 1)           [index << level, (index + 1) << level)
//! level 0   (0, 0) (0, 1)  (0, 2) (0, 3)  ... leaf hash = SHA-256(0x00 || entry), node = SHA-256(0x01 || left || right)
//! ```
//! A tree of any size is made of perfect subtrees, largest first. Sizes and indices count leaves.
//!
//! # Source
//! RFC 6962 §2.1, §2.1.1, §2.1.2; RFC 9162 §2.1.3.2 and §2.1.4.2 (verification of proofs).
//!
//! # Not here
//! Where subtrees lie: `tile`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// Why a proof is invalid, or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The leaf is outside the tree.
    #[error("leaf {index} is outside a tree of {size}")]
    Index {
        /// The leaf.
        index: u64,
        /// The number of leaves in the tree.
        size: u64,
    },
    /// The older tree is larger than the newer one, or empty, so nothing can be proven about it.
    #[error("no consistency proof leads from a tree of {old} leaves to one of {new}")]
    Sizes {
        /// The number of leaves in the older tree.
        old: u64,
        /// The number of leaves in the newer tree.
        new: u64,
    },
    /// The proof does not have as many hashes as the tree's shape requires.
    #[error("proof has {found} hashes, expected {expected}")]
    Length {
        /// How many the shape requires.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The proof leads to another root.
    #[error("proof leads to root {found}, expected {expected}")]
    Root {
        /// The expected root.
        expected: Hash,
        /// The root that the proof leads to.
        found: Hash,
    },
    /// A subtree's hash is not available.
    #[error("no hash for subtree {index} of level {level}: {reason}")]
    Subtree {
        /// Its level.
        level: u8,
        /// Its index in the level.
        index: u64,
        /// Why.
        reason: String,
    },
}

/// SHA-256 of a leaf or node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Reads 44 characters of base64.
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Hash)
    }

    /// Writes 44 characters of base64.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.to_base64())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Hashes an entry.
pub fn leaf(entry: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// Hashes two siblings.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The root of the tree without leaves.
pub fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

/// Supplies the hashes of perfect subtrees.
pub trait Subtrees {
    /// The hash of a perfect subtree.
    ///
    /// # Errors
    /// [`Error::Subtree`].
    fn hash(&self, level: u8, index: u64) -> Result<Hash, Error>;
}

/// The largest power of two below `size`, which is at least 2.
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The root over leaves `[start, start + size)`, where `start` is a multiple of a power of two >= `size`.
fn range(subtrees: &dyn Subtrees, start: u64, size: u64) -> Result<Hash, Error> {
    if size == 0 {
        return Ok(empty_root());
    }
    if size.is_power_of_two() {
        let level = size.trailing_zeros() as u8;
        return subtrees.hash(level, start >> level);
    }
    let left = split(size);
    Ok(node(&range(subtrees, start, left)?, &range(subtrees, start + left, size - left)?))
}

/// The root of a tree of `size` leaves.
///
/// # Errors
/// Those of the subtrees.
pub fn root(subtrees: &dyn Subtrees, size: u64) -> Result<Hash, Error> {
    range(subtrees, 0, size)
}

/// Proves that leaf `index` is in the tree of `size` leaves; hashes run from the leaf's sibling up.
///
/// # Errors
/// [`Error::Index`], and those of the subtrees.
pub fn prove_inclusion(subtrees: &dyn Subtrees, index: u64, size: u64) -> Result<Vec<Hash>, Error> {
    if index >= size {
        return Err(Error::Index { index, size });
    }
    let (mut start, mut rest) = (0, size);
    let mut proof = Vec::new();
    while rest > 1 {
        let left = split(rest);
        if index - start < left {
            proof.push(range(subtrees, start + left, rest - left)?);
            rest = left;
        } else {
            proof.push(range(subtrees, start, left)?);
            start += left;
            rest -= left;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proves that the tree of `new` leaves begins with the tree of `old` leaves.
///
/// # Errors
/// [`Error::Sizes`] when `old` is 0 or larger than `new`, and those of the subtrees.
pub fn prove_consistency(subtrees: &dyn Subtrees, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
    if old == 0 || old > new {
        return Err(Error::Sizes { old, new });
    }
    let (mut start, mut rest, mut wanted) = (0, new, old);
    let mut proof = Vec::new();
    // Whether the current subtree begins with the whole older tree. If so, the verifier knows its root.
    let mut whole = true;
    while wanted != rest {
        let left = split(rest);
        if wanted <= left {
            proof.push(range(subtrees, start + left, rest - left)?);
            rest = left;
        } else {
            proof.push(range(subtrees, start, left)?);
            start += left;
            rest -= left;
            wanted -= left;
            whole = false;
        }
    }
    if !whole {
        proof.push(range(subtrees, start, rest)?);
    }
    proof.reverse();
    Ok(proof)
}

/// How many hashes a proof for leaf `index` of `size` has: those below the point where its path meets the
/// tree's right border, and those on the border.
fn lengths(index: u64, size: u64) -> (u32, u32) {
    let inner = 64 - (index ^ (size - 1)).leading_zeros();
    let border = index.checked_shr(inner).unwrap_or(0).count_ones();
    (inner, border)
}

/// Which hashes lead up to a root: both sides for the newer root, only the left side for the older one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sides {
    Left,
    Both,
}

/// Climbs from a leaf, or a subtree in its place, through the hashes below the border.
fn climb(mut at: Hash, index: u64, hashes: &[Hash], sides: Sides) -> Hash {
    for (level, hash) in hashes.iter().enumerate() {
        if index >> level & 1 == 1 {
            at = node(hash, &at);
        } else if sides == Sides::Both {
            at = node(&at, hash);
        }
    }
    at
}

fn climb_border(mut at: Hash, hashes: &[Hash]) -> Hash {
    for hash in hashes {
        at = node(hash, &at);
    }
    at
}

fn equal(found: Hash, expected: &Hash) -> Result<(), Error> {
    if found == *expected { Ok(()) } else { Err(Error::Root { expected: *expected, found }) }
}

/// Computes the root that an inclusion proof leads to.
///
/// # Errors
/// [`Error::Index`], [`Error::Length`].
pub fn root_of_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash]) -> Result<Hash, Error> {
    if index >= size {
        return Err(Error::Index { index, size });
    }
    let (inner, border) = lengths(index, size);
    let expected = (inner + border) as usize;
    let wrong = Error::Length { expected, found: proof.len() };
    if proof.len() != expected {
        return Err(wrong);
    }
    let Some((below, above)) = proof.split_at_checked(inner as usize) else { return Err(wrong) };
    Ok(climb_border(climb(*leaf, index, below, Sides::Both), above))
}

/// Checks that a leaf is in a tree.
///
/// # Errors
/// The reason why the proof is invalid.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), Error> {
    equal(root_of_inclusion(leaf, index, size, proof)?, root)
}

/// Checks that a tree begins with an older one, which is not empty.
///
/// # Errors
/// The reason why the proof is invalid.
pub fn verify_consistency(
    old: u64,
    new: u64,
    proof: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), Error> {
    if old > new {
        return Err(Error::Sizes { old, new });
    }
    if old == new {
        if !proof.is_empty() {
            return Err(Error::Length { expected: 0, found: proof.len() });
        }
        return equal(*old_root, new_root);
    }
    if old == 0 {
        return Err(Error::Sizes { old, new });
    }
    // The path from the older tree's last perfect subtree.
    let (inner, border) = lengths(old - 1, new);
    let shift = old.trailing_zeros();
    let inner = inner - shift.min(inner);
    // If the older tree is one perfect subtree, its root takes the place of the first hash.
    let single = old.is_power_of_two();
    let expected = (inner + border) as usize + usize::from(!single);
    let wrong = || Error::Length { expected, found: proof.len() };
    if proof.len() != expected {
        return Err(wrong());
    }
    let (seed, rest) = match proof.split_first() {
        _ if single => (old_root, proof),
        Some(parts) => parts,
        None => return Err(wrong()),
    };
    let (below, above) = rest.split_at_checked(inner as usize).ok_or_else(wrong)?;
    let path = (old - 1) >> shift;
    equal(climb_border(climb(*seed, path, below, Sides::Left), above), old_root)?;
    equal(climb_border(climb(*seed, path, below, Sides::Both), above), new_root)
}

/// The roots of the perfect subtrees that make up a tree: all that appending needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Largest first.
    roots: Vec<Hash>,
}

impl Frontier {
    /// Computes the frontier of a tree of `size` leaves.
    ///
    /// # Errors
    /// Those of the subtrees.
    pub fn of(subtrees: &dyn Subtrees, size: u64) -> Result<Self, Error> {
        let mut roots = Vec::new();
        let mut start = 0u64;
        for level in (0..64u8).rev() {
            if size >> level & 1 == 1 {
                roots.push(subtrees.hash(level, start >> level)?);
                start += 1 << level;
            }
        }
        Ok(Frontier { size, roots })
    }

    /// The number of leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf, and reports level, index and hash of each perfect subtree it completes, leaf first.
    pub fn push(&mut self, leaf: Hash, completed: &mut dyn FnMut(u8, u64, Hash)) {
        let mut at = leaf;
        let index = self.size;
        completed(0, index, at);
        let mut level = 0;
        while index >> level & 1 == 1 {
            let Some(left) = self.roots.pop() else { break };
            at = node(&left, &at);
            level += 1;
            completed(level, index >> level, at);
        }
        self.roots.push(at);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        let Some(last) = roots.next() else { return empty_root() };
        roots.fold(*last, |right, left| node(left, &right))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A tree in memory.
    pub struct Memory(pub BTreeMap<(u8, u64), Hash>);

    impl Memory {
        pub fn of(size: u64) -> (Self, Vec<Hash>) {
            let mut hashes = BTreeMap::new();
            let mut frontier = Frontier::default();
            let mut roots = vec![frontier.root()];
            for index in 0..size {
                frontier.push(leaf(&index.to_be_bytes()), &mut |level, index, hash| {
                    hashes.insert((level, index), hash);
                });
                roots.push(frontier.root());
            }
            (Memory(hashes), roots)
        }
    }

    impl Subtrees for Memory {
        fn hash(&self, level: u8, index: u64) -> Result<Hash, Error> {
            let missing = || Error::Subtree { level, index, reason: "not in memory".to_owned() };
            self.0.get(&(level, index)).copied().ok_or_else(missing)
        }
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proven_and_in_no_other_place() {
        let (memory, roots) = Memory::of(40);
        for size in 1..=40u64 {
            let expected = root(&memory, size).unwrap();
            assert_eq!(expected, roots[size as usize]);
            for index in 0..size {
                let proof = prove_inclusion(&memory, index, size).unwrap();
                let hash = leaf(&index.to_be_bytes());
                verify_inclusion(&hash, index, size, &proof, &expected).unwrap();
                assert!(verify_inclusion(&leaf(b"other"), index, size, &proof, &expected).is_err());
                for other in (0..size + 2).filter(|other| *other != index) {
                    assert!(verify_inclusion(&hash, other, size, &proof, &expected).is_err());
                }
                let longer: Vec<_> = proof.iter().copied().chain([empty_root()]).collect();
                assert!(verify_inclusion(&hash, index, size, &longer, &expected).is_err());
                if let [_, shorter @ ..] = proof.as_slice() {
                    assert!(verify_inclusion(&hash, index, size, shorter, &expected).is_err());
                }
                for at in 0..proof.len() {
                    let mut changed = proof.clone();
                    changed[at].0[at % 32] ^= 1;
                    assert!(verify_inclusion(&hash, index, size, &changed, &expected).is_err());
                }
            }
        }
    }

    #[test]
    fn every_pair_of_small_trees_is_consistent_and_no_other_is() {
        let (memory, roots) = Memory::of(40);
        for new in 1..=40u64 {
            for old in 1..=new {
                let proof = prove_consistency(&memory, old, new).unwrap();
                let (a, b) = (&roots[old as usize], &roots[new as usize]);
                verify_consistency(old, new, &proof, a, b).unwrap();
                assert!(verify_consistency(old, new, &proof, &empty_root(), b).is_err());
                assert!(verify_consistency(old, new, &proof, a, &empty_root()).is_err());
                if old < new {
                    assert!(verify_consistency(old, new, &proof, b, a).is_err());
                    assert!(verify_consistency(new, old, &proof, b, a).is_err());
                }
                for at in 0..proof.len() {
                    let mut changed = proof.clone();
                    changed[at].0[at % 32] ^= 1;
                    assert!(verify_consistency(old, new, &changed, a, b).is_err());
                }
                let longer: Vec<_> = proof.iter().copied().chain([empty_root()]).collect();
                assert!(verify_consistency(old, new, &longer, a, b).is_err());
            }
        }
    }

    #[test]
    fn nothing_is_proven_of_an_empty_tree_or_a_leaf_outside() {
        let (memory, roots) = Memory::of(4);
        assert!(matches!(prove_inclusion(&memory, 4, 4), Err(Error::Index { index: 4, size: 4 })));
        assert!(matches!(prove_consistency(&memory, 0, 4), Err(Error::Sizes { .. })));
        assert!(matches!(prove_consistency(&memory, 5, 4), Err(Error::Sizes { .. })));
        assert!(verify_consistency(0, 4, &[], &roots[0], &roots[4]).is_err());
        assert!(verify_inclusion(&leaf(b""), u64::MAX, u64::MAX, &[], &roots[4]).is_err());
        assert!(verify_inclusion(&leaf(b""), 0, 0, &[], &empty_root()).is_err());
        assert!(matches!(root(&memory, 5), Err(Error::Subtree { .. })));
        assert_eq!(
            hex::encode(empty_root().0),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn a_frontier_read_back_continues_the_same_tree() {
        let (memory, roots) = Memory::of(33);
        for size in 0..33u64 {
            let mut frontier = Frontier::of(&memory, size).unwrap();
            assert_eq!(frontier.root(), roots[size as usize]);
            frontier.push(leaf(&size.to_be_bytes()), &mut |_, _, _| {});
            assert_eq!((frontier.size(), frontier.root()), (size + 1, roots[size as usize + 1]));
        }
    }

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Inclusion {
        leaf_idx: u64,
        tree_size: u64,
        root: String,
        leaf_hash: String,
        proof: Option<Vec<String>>,
        desc: String,
        want_err: bool,
    }

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Consistency {
        size1: u64,
        size2: u64,
        root1: String,
        root2: String,
        proof: Option<Vec<String>>,
        desc: String,
        want_err: bool,
    }

    fn cases<T: serde::de::DeserializeOwned>(folder: &std::path::Path, found: &mut Vec<T>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                cases(&path, found);
            } else {
                found.push(serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap());
            }
        }
    }

    fn proof_of(proof: Option<Vec<String>>) -> Option<Vec<Hash>> {
        proof.unwrap_or_default().iter().map(|hash| Hash::from_base64(hash)).collect()
    }

    #[test]
    fn the_inclusion_proofs_of_transparency_dev_are_judged_as_it_says() {
        let Some(folder) = super::super::note::tests::vectors("sigstore/merkle-testdata/inclusion") else {
            return;
        };
        let mut found: Vec<Inclusion> = Vec::new();
        cases(&folder, &mut found);
        assert!(found.len() > 90, "{}", found.len());
        for case in found {
            let hashes =
                (Hash::from_base64(&case.leaf_hash), Hash::from_base64(&case.root), proof_of(case.proof));
            let holds = match hashes {
                (Some(leaf), Some(root), Some(proof)) => {
                    verify_inclusion(&leaf, case.leaf_idx, case.tree_size, &proof, &root).is_ok()
                }
                _ => false,
            };
            assert_eq!(holds, !case.want_err, "{}", case.desc);
        }
    }

    #[test]
    fn the_consistency_proofs_of_transparency_dev_are_judged_as_it_says() {
        let Some(folder) = super::super::note::tests::vectors("sigstore/merkle-testdata/consistency") else {
            return;
        };
        let mut found: Vec<Consistency> = Vec::new();
        cases(&folder, &mut found);
        assert!(found.len() > 90, "{}", found.len());
        for case in found {
            let hashes =
                (Hash::from_base64(&case.root1), Hash::from_base64(&case.root2), proof_of(case.proof));
            let holds = match hashes {
                (Some(a), Some(b), Some(proof)) => {
                    verify_consistency(case.size1, case.size2, &proof, &a, &b).is_ok()
                }
                // In one case the roots are not SHA-256 at all: equal texts for trees of equal size.
                _ if !case.want_err => case.root1 == case.root2 && case.size1 == case.size2,
                _ => false,
            };
            assert_eq!(holds, !case.want_err, "{}", case.desc);
        }
    }
}
