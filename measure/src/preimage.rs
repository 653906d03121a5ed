//! The bytes that one or more events hash, as pieces of files and bytes made by a rule, without copying.
//!
//! # Shape
//!
//! ```text
//! pieces    [from a file at an offset | made by a rule] …
//! cuts      after which pieces a digest is taken: if one preimage is a prefix of another, both cost one pass
//! ```
//!
//! # Not here
//!
//! Threads: callers may move a [`Pass`] between threads, and advance several in step.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use sha2::Digest as _;

use crate::digest::{Algorithm, Digest};
use crate::sha384::{self, Block, LANES, Sha384};

/// A piece of a preimage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its offset in a file; `None` if a rule makes it.
    pub offset: Option<u64>,
    /// Its bytes.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Piece<'a> {
    /// Makes a piece of bytes in a file.
    pub const fn of_file(offset: u64, bytes: &'a [u8]) -> Self {
        Piece { offset: Some(offset), bytes: Cow::Borrowed(bytes) }
    }

    /// Makes a piece of bytes that a rule makes.
    pub const fn made(bytes: Vec<u8>) -> Self {
        Piece { offset: None, bytes: Cow::Owned(bytes) }
    }
}

/// The input of one hashing pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preimage<'a> {
    pieces: Vec<Piece<'a>>,
    cuts: Vec<usize>,
}

impl<'a> Preimage<'a> {
    /// Makes a preimage with one cut, at the end.
    pub fn new(pieces: Vec<Piece<'a>>) -> Self {
        let cuts = alloc::vec![pieces.len()];
        Preimage { pieces, cuts }
    }

    /// Appends pieces and a cut after them.
    #[must_use]
    pub fn followed_by(mut self, pieces: Vec<Piece<'a>>) -> Self {
        self.pieces.extend(pieces);
        self.cuts.push(self.pieces.len());
        self
    }

    /// Returns its length in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// Tells whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes of its pieces, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &*piece.bytes)
    }

    /// Returns offset and length of each piece of a file that the digest at a cut covers.
    pub fn ranges(&self, cut: usize) -> Vec<(u64, u64)> {
        let count = self.cuts.get(cut).copied().unwrap_or_default();
        let pieces = self.pieces.iter().take(count);
        pieces.filter_map(|piece| Some((piece.offset?, piece.bytes.len() as u64))).collect()
    }

    /// Hashes it: one digest for each cut.
    pub fn digests(&self, algorithm: Algorithm) -> Vec<Digest> {
        self.pass(algorithm).finish()
    }

    /// Starts a pass over it.
    pub fn pass(&self, algorithm: Algorithm) -> Pass<'_> {
        let hasher = match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(Sha384::new()),
        };
        let mut pass =
            Pass { preimage: self, hasher, piece: 0, inside: 0, left: self.len(), digests: Vec::new() };
        pass.cut();
        pass
    }
}

/// Hashes all preimages in one thread, those of similar length in step: for each, one digest per cut.
pub fn digests(preimages: &[Preimage<'_>], algorithm: Algorithm) -> Vec<Vec<Digest>> {
    let mut order: Vec<usize> = (0..preimages.len()).collect();
    order.sort_by_key(|index| preimages.get(*index).map(|preimage| core::cmp::Reverse(preimage.len())));
    let pass = |index: &usize| preimages.get(*index).map(|preimage| preimage.pass(algorithm));
    let mut passes: Vec<Pass<'_>> = order.iter().filter_map(pass).collect();
    Pass::advance_all(&mut passes, usize::MAX);
    let mut all: Vec<(usize, Vec<Digest>)> =
        order.into_iter().zip(passes.into_iter().map(Pass::finish)).collect();
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, digests)| digests).collect()
}

#[derive(Debug, Clone)]
enum Hasher {
    Sha256(sha2::Sha256),
    Sha384(Sha384),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha384(hasher) => hasher.update(bytes),
        }
    }

    fn digest(&self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => Digest::Sha256(hasher.clone().finalize().into()),
            Hasher::Sha384(hasher) => Digest::Sha384(hasher.digest()),
        }
    }
}

/// A hashing pass over a [`Preimage`] that advances in parts, so that a few threads can share several passes evenly.
#[derive(Debug, Clone)]
pub struct Pass<'p> {
    preimage: &'p Preimage<'p>,
    hasher: Hasher,
    /// The current piece, and how many bytes of it are hashed.
    piece: usize,
    inside: usize,
    left: usize,
    digests: Vec<Digest>,
}

impl<'p> Pass<'p> {
    /// The maximum number of passes that go in step.
    pub const LANES: usize = LANES;

    /// Returns how many bytes are left to hash.
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Hashes `bytes` more bytes, or all that are left.
    pub fn advance(&mut self, bytes: usize) {
        let mut wanted = bytes;
        while self.advance_by(&mut wanted, usize::MAX) {}
    }

    /// Hashes `bytes` more bytes of each pass, or all that are left. SHA-384 passes go in step, [`Pass::LANES`] at a time:
    /// four take about 1.5 times as long as one.
    pub fn advance_all(passes: &mut [Pass<'p>], bytes: usize) {
        for passes in passes.chunks_mut(LANES) {
            let mut wanted = [bytes; LANES];
            while Pass::step(passes, &mut wanted) {}
        }
    }

    /// Hashes the same number of blocks of each pass; `false` when nothing is left to do.
    fn step(passes: &mut [Pass<'p>], wanted: &mut [usize; LANES]) -> bool {
        let mut steps: Vec<(&mut Pass<'p>, &mut usize, &'p [Block])> = Vec::with_capacity(LANES);
        for (pass, wanted) in passes.iter_mut().zip(wanted) {
            let blocks = pass.blocks(wanted);
            if !blocks.is_empty() {
                steps.push((pass, wanted, blocks));
            }
        }
        if let [(pass, wanted, _)] = steps.as_mut_slice() {
            pass.advance(core::mem::take(*wanted));
            return false;
        }
        let lanes = steps.iter_mut().filter_map(|(pass, _, blocks)| match &mut pass.hasher {
            Hasher::Sha384(hasher) => Some((hasher, *blocks)),
            Hasher::Sha256(_) => None,
        });
        let count = sha384::update_in_step(&mut lanes.collect::<Vec<_>>());
        for (pass, wanted, blocks) in &mut steps {
            let bytes = blocks.get(..count).unwrap_or_default().as_flattened().len();
            **wanted = wanted.saturating_sub(bytes);
            pass.pass_over(bytes);
        }
        !steps.is_empty()
    }

    /// Hashes what cannot go in step: all of SHA-256, the rest of a started block, and the end of a piece. Returns the whole
    /// blocks that come next within `wanted`; none when `wanted` is used up.
    fn blocks(&mut self, wanted: &mut usize) -> &'p [Block] {
        loop {
            let (blocks, limit) = match &self.hasher {
                Hasher::Sha384(hasher) if hasher.missing() > 0 => (Default::default(), hasher.missing()),
                Hasher::Sha384(_) => (self.part(*wanted).as_chunks().0, usize::MAX),
                Hasher::Sha256(_) => (Default::default(), usize::MAX),
            };
            if !blocks.is_empty() || !self.advance_by(wanted, limit) {
                return blocks;
            }
        }
    }

    /// Hashes up to `wanted` bytes of the current piece, at most `limit`; `false` if there are none.
    fn advance_by(&mut self, wanted: &mut usize, limit: usize) -> bool {
        let part = self.part(limit.min(*wanted));
        self.hasher.update(part);
        *wanted = wanted.saturating_sub(part.len());
        self.pass_over(part.len());
        !part.is_empty()
    }

    /// Returns the next bytes of the current piece, at most `bytes`.
    fn part(&self, bytes: usize) -> &'p [u8] {
        let piece = self.preimage.pieces.get(self.piece);
        let rest = piece.and_then(|piece| piece.bytes.get(self.inside..)).unwrap_or_default();
        rest.get(..bytes).unwrap_or(rest)
    }

    /// Advances past hashed bytes of the current piece.
    fn pass_over(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
        self.inside = self.inside.saturating_add(bytes);
        let piece = self.preimage.pieces.get(self.piece);
        if piece.is_some_and(|piece| piece.bytes.len() == self.inside) {
            (self.piece, self.inside) = (self.piece.saturating_add(1), 0);
            self.cut();
        }
    }

    /// Takes the digests of the cuts before the next piece, and skips empty pieces.
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

    /// Hashes what is left and returns one digest for each cut.
    pub fn finish(mut self) -> Vec<Digest> {
        self.advance(usize::MAX);
        self.digests
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_cut_gives_the_digest_of_everything_before_it() {
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
    fn a_pass_in_parts_of_any_length_gives_the_same_digests() {
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

    proptest! {
        #[test]
        fn passes_in_step_give_the_same_digests_as_alone(
            passes in proptest::collection::vec(
                (any::<bool>(), proptest::collection::vec((any::<u8>(), 0_usize..700, any::<bool>()), 0..6)),
                0..=2 * LANES,
            ),
            steps in proptest::collection::vec(0_usize..1500, 1..8),
        ) {
            let files: Vec<Vec<Vec<u8>>> = passes
                .iter()
                .map(|(_, pieces)| {
                    let bytes = |(seed, length, _): &(u8, usize, bool)| {
                        (0..*length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(*seed)).collect()
                    };
                    pieces.iter().map(bytes).collect()
                })
                .collect();
            let mut preimages = Vec::new();
            for ((_, pieces), files) in passes.iter().zip(&files) {
                let mut preimage = Preimage::default();
                for ((_, _, cut), bytes) in pieces.iter().zip(files) {
                    preimage.pieces.push(Piece::of_file(0, bytes));
                    if *cut {
                        preimage.cuts.push(preimage.pieces.len());
                    }
                }
                preimages.push(preimage);
            }
            let algorithm = |index: usize| if passes[index].0 { Algorithm::Sha384 } else { Algorithm::Sha256 };
            let mut all: Vec<Pass<'_>> =
                preimages.iter().enumerate().map(|(index, preimage)| preimage.pass(algorithm(index))).collect();
            let mut lefts: Vec<usize> = preimages.iter().map(Preimage::len).collect();
            for bytes in steps {
                Pass::advance_all(&mut all, bytes);
                lefts.iter_mut().for_each(|left| *left = left.saturating_sub(bytes));
                prop_assert_eq!(all.iter().map(Pass::left).collect::<Vec<_>>(), lefts.clone());
            }
            Pass::advance_all(&mut all, usize::MAX);
            for algorithm in [Algorithm::Sha256, Algorithm::Sha384] {
                let expected: Vec<_> = preimages.iter().map(|preimage| preimage.digests(algorithm)).collect();
                prop_assert_eq!(digests(&preimages, algorithm), expected);
            }
            for (index, (pass, preimage)) in all.into_iter().zip(&preimages).enumerate() {
                prop_assert_eq!(pass.left(), 0);
                let bytes = |cut: &usize| files[index].iter().take(*cut).flatten().copied().collect::<Vec<u8>>();
                let expected: Vec<Digest> =
                    preimage.cuts.iter().map(|cut| algorithm(index).of(&bytes(cut))).collect();
                prop_assert_eq!(pass.finish(), expected);
            }
        }
    }
}
