//! The bytes that one or more events hash, as pieces of files and of what a rule makes, without a copy.
//!
//! # Shape
//!
//! ```text
//! pieces    [from a file at an offset | made by a rule] …
//! cuts      after which pieces a digest is taken: two digests of which one hashes more than the other cost one pass
//! ```
//!
//! # Not here
//!
//! Threads: each [`Preimage`] is hashed by itself, so that a caller may give every one to another thread.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use sha2::Digest as _;

use crate::digest::{Algorithm, Digest};

/// One piece of what is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where it begins in its file; `None` where a rule makes it.
    pub offset: Option<u64>,
    /// Its bytes.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Piece<'a> {
    /// Takes bytes of a file.
    pub const fn of_file(offset: u64, bytes: &'a [u8]) -> Self {
        Piece { offset: Some(offset), bytes: Cow::Borrowed(bytes) }
    }

    /// Takes bytes that a rule makes.
    pub const fn made(bytes: Vec<u8>) -> Self {
        Piece { offset: None, bytes: Cow::Owned(bytes) }
    }
}

/// What is hashed in one pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preimage<'a> {
    pieces: Vec<Piece<'a>>,
    cuts: Vec<usize>,
}

impl<'a> Preimage<'a> {
    /// Takes pieces of which one digest is taken, at their end.
    pub fn new(pieces: Vec<Piece<'a>>) -> Self {
        let cuts = alloc::vec![pieces.len()];
        Preimage { pieces, cuts }
    }

    /// Appends pieces, behind which one more digest is taken.
    #[must_use]
    pub fn followed_by(mut self, pieces: Vec<Piece<'a>>) -> Self {
        self.pieces.extend(pieces);
        self.cuts.push(self.pieces.len());
        self
    }

    /// Tells how many bytes are hashed.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// Tells whether nothing is hashed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the offset and the length of every piece of a file that the digest at a cut covers.
    pub fn ranges(&self, cut: usize) -> Vec<(u64, u64)> {
        let count = self.cuts.get(cut).copied().unwrap_or_default();
        let pieces = self.pieces.iter().take(count);
        pieces.filter_map(|piece| Some((piece.offset?, piece.bytes.len() as u64))).collect()
    }

    /// Hashes it; one digest for each cut.
    pub fn digests(&self, algorithm: Algorithm) -> Vec<Digest> {
        match algorithm {
            Algorithm::Sha256 => {
                self.hash(sha2::Sha256::new(), |hash| Digest::Sha256(hash.finalize().into()))
            }
            Algorithm::Sha384 => {
                self.hash(sha2::Sha384::new(), |hash| Digest::Sha384(hash.finalize().into()))
            }
        }
    }

    fn hash<H: sha2::Digest + Clone>(&self, mut hasher: H, digest: fn(H) -> Digest) -> Vec<Digest> {
        let mut done = 0;
        let take = |cut: &usize| {
            for piece in self.pieces.iter().take(*cut).skip(done) {
                hasher.update(&piece.bytes);
            }
            done = *cut;
            digest(hasher.clone())
        };
        self.cuts.iter().map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cut_gives_the_digest_of_all_that_is_before_it() {
        let preimage = Preimage::new(alloc::vec![Piece::of_file(7, b"ab"), Piece::made(alloc::vec![b'c'])])
            .followed_by(alloc::vec![Piece::of_file(9, b"d")]);
        for algorithm in [Algorithm::Sha256, Algorithm::Sha384] {
            assert_eq!(preimage.digests(algorithm), [algorithm.of(b"abc"), algorithm.of(b"abcd")]);
        }
        assert_eq!(preimage.ranges(0), [(7, 2)]);
        assert_eq!(preimage.ranges(1), [(7, 2), (9, 1)]);
        assert_eq!(preimage.len(), 4);
    }
}
