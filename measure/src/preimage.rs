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
//! Threads: each [`Preimage`] is hashed by itself, and a [`Pass`] over one may go on in another thread than it began in.

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
        self.pass(algorithm).finish()
    }

    /// Begins to hash it.
    pub fn pass(&self, algorithm: Algorithm) -> Pass<'_> {
        let hasher = match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(sha2::Sha384::new()),
        };
        let mut pass =
            Pass { preimage: self, hasher, piece: 0, inside: 0, left: self.len(), digests: Vec::new() };
        pass.cut();
        pass
    }
}

#[derive(Debug, Clone)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha384(hasher) => hasher.update(bytes),
        }
    }

    fn digest(&self) -> Digest {
        match self.clone() {
            Hasher::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Hasher::Sha384(hasher) => Digest::Sha384(hasher.finalize().into()),
        }
    }
}

/// A [`Preimage`] that is being hashed, a part at a time: several of them share a few threads evenly.
#[derive(Debug, Clone)]
pub struct Pass<'p> {
    preimage: &'p Preimage<'p>,
    hasher: Hasher,
    /// The piece that is hashed next, and how many bytes of it are done.
    piece: usize,
    inside: usize,
    left: usize,
    digests: Vec<Digest>,
}

impl Pass<'_> {
    /// Tells how many bytes are not hashed yet.
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Hashes so many bytes more, or all that are left.
    pub fn advance(&mut self, bytes: usize) {
        let mut wanted = bytes.min(self.left);
        while wanted > 0 {
            let Some(piece) = self.preimage.pieces.get(self.piece) else { return };
            let rest = piece.bytes.get(self.inside..).unwrap_or_default();
            let part = rest.get(..wanted).unwrap_or(rest);
            self.hasher.update(part);
            wanted = wanted.saturating_sub(part.len());
            self.left = self.left.saturating_sub(part.len());
            self.inside = self.inside.saturating_add(part.len());
            if part.len() == rest.len() {
                (self.piece, self.inside) = (self.piece.saturating_add(1), 0);
                self.cut();
            }
        }
    }

    /// Takes the digests of the cuts before the next piece; pieces of nothing are passed over.
    fn cut(&mut self) {
        loop {
            let cuts = self.preimage.cuts.iter().skip(self.digests.len());
            let count = cuts.take_while(|cut| **cut <= self.piece).count();
            self.digests.extend((0..count).map(|_| self.hasher.digest()));
            match self.preimage.pieces.get(self.piece) {
                Some(piece) if piece.bytes.is_empty() => self.piece = self.piece.saturating_add(1),
                _ => return,
            }
        }
    }

    /// Gives one digest for each cut; hashes what is left.
    pub fn finish(mut self) -> Vec<Digest> {
        self.advance(usize::MAX);
        self.digests
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

    #[test]
    fn a_pass_gives_the_same_digests_in_parts_of_any_length() {
        let piece = |bytes| Piece::of_file(0, bytes);
        let preimages = [
            Preimage::default(),
            Preimage::new(alloc::vec![]),
            Preimage::new(alloc::vec![piece(b"")]).followed_by(alloc::vec![piece(b"ab"), piece(b"")]),
            Preimage::new(alloc::vec![piece(b"abc"), piece(b""), piece(b"d")])
                .followed_by(alloc::vec![])
                .followed_by(alloc::vec![piece(b""), piece(b"efghij")]),
        ];
        let expected: [&[&[u8]]; 4] = [&[], &[b""], &[b"", b"ab"], &[b"abcd", b"abcd", b"abcdefghij"]];
        for (preimage, expected) in preimages.iter().zip(expected) {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha384] {
                let expected: Vec<Digest> = expected.iter().map(|bytes| algorithm.of(bytes)).collect();
                for step in 1..=11 {
                    let mut pass = preimage.pass(algorithm);
                    let mut left = preimage.len();
                    while pass.left() > 0 {
                        assert_eq!(pass.left(), left);
                        pass.advance(step);
                        left = left.saturating_sub(step);
                    }
                    assert_eq!(pass.finish(), expected, "{preimage:?} by {step}");
                }
                assert_eq!(preimage.digests(algorithm), expected);
            }
        }
    }
}
