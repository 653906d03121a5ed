//! SHA-384 of one stream, or of several streams in step.
//!
//! # Shape
//!
//! ```text
//! state     8 words of 64 bits; the digest is the first 6
//! block     128 bytes; a stream ends with its remaining bytes ‖ 0x80 ‖ zeros ‖ its length in bits (u128, big-endian)
//! in step   one whole block of each of up to four streams at a time
//! ```
//!
//! A stream is a chain: each block depends on the one before, so the processor stalls. Blocks of different streams are
//! independent, and a 256-bit register holds one word of four streams.
//!
//! # Source
//!
//! FIPS 180-4: 5.1.2 (padding), 5.3.4 (the first state), 6.5 (SHA-384).
//!
//! # Not here
//!
//! Compressing a single stream, which is left to `sha2`; going in step without the feature `simd`.

#[cfg(feature = "simd")]
mod step;

/// The number of streams that go in step.
pub const LANES: usize = 4;

const BLOCK: usize = 128;
/// Bytes at the end of the last block that hold the length.
const LENGTH: usize = 16;

pub(crate) type Block = [u8; BLOCK];
type State = [u64; 8];

/// The first 64 bits of the fractional parts of the square roots of the ninth to the sixteenth prime.
const FIRST: State = [
    0xcbbb_9d5d_c105_9ed8,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
    0x152f_ecd8_f70e_5939,
    0x6733_2667_ffc0_0b31,
    0x8eb4_4a87_6858_1511,
    0xdb0c_2e0d_64f9_8fa7,
    0x47b5_481d_befa_4fa4,
];

/// A SHA-384 computation in progress.
#[derive(Debug, Clone)]
pub(crate) struct Sha384 {
    state: State,
    /// The incomplete block: its first `filled` bytes, fewer than a block.
    rest: Block,
    filled: usize,
    /// Bytes hashed so far.
    length: u128,
}

impl Sha384 {
    /// Starts a stream.
    pub(crate) const fn new() -> Self {
        Sha384 { state: FIRST, rest: [0; BLOCK], filled: 0, length: 0 }
    }

    /// Returns how many bytes complete the current block; 0 at a block boundary.
    pub(crate) const fn missing(&self) -> usize {
        match self.filled {
            0 => 0,
            filled => BLOCK.saturating_sub(filled),
        }
    }

    /// Hashes the stream's next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.length = self.length.wrapping_add(bytes.len() as u128);
        let (head, bytes) = bytes.split_at(self.missing().min(bytes.len()));
        self.keep(head);
        if self.filled == BLOCK {
            sha2::block_api::compress512(&mut self.state, &[self.rest]);
            self.filled = 0;
        }
        let (blocks, tail) = bytes.as_chunks();
        sha2::block_api::compress512(&mut self.state, blocks);
        self.keep(tail);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.rest.iter_mut().skip(self.filled).zip(bytes).for_each(|(place, byte)| *place = *byte);
        self.filled = self.filled.saturating_add(bytes.len());
    }

    /// Returns the digest of everything hashed so far.
    pub(crate) fn digest(&self) -> [u8; 48] {
        let mut last = [[0; BLOCK]; 2];
        let bytes = last.as_flattened_mut();
        let rest = self.rest.iter().take(self.filled).chain(&[0x80]);
        bytes.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
        let count = if self.filled < BLOCK - LENGTH { 1 } else { 2 };
        let bits = self.length.wrapping_mul(8).to_be_bytes();
        let end = bytes.iter_mut().skip(count * BLOCK - LENGTH);
        end.zip(bits).for_each(|(place, byte)| *place = byte);
        let mut state = self.state;
        sha2::block_api::compress512(&mut state, last.get(..count).unwrap_or_default());
        let mut digest = [0; 48];
        digest
            .iter_mut()
            .zip(state.iter().flat_map(|word| word.to_be_bytes()))
            .for_each(|(to, byte)| *to = byte);
        digest
    }
}

/// Hashes the same number of blocks of up to [`LANES`] streams, each at a block boundary: as many as the shortest list
/// has. Returns that number.
pub(crate) fn update_in_step(lanes: &mut [(&mut Sha384, &[Block])]) -> usize {
    debug_assert!(lanes.len() <= LANES && lanes.iter().all(|(stream, _)| stream.missing() == 0));
    let count = lanes.iter().map(|(_, blocks)| blocks.len()).min().unwrap_or_default();
    let done = lanes.len() > 1 && compress_in_step(lanes);
    for (stream, blocks) in lanes {
        let blocks = blocks.get(..count).unwrap_or_default();
        if !done {
            sha2::block_api::compress512(&mut stream.state, blocks);
        }
        stream.length = stream.length.wrapping_add(blocks.as_flattened().len() as u128);
    }
    count
}

/// Compresses blocks of several streams in step. Returns `false`, having done nothing, if the processor cannot.
#[cfg(feature = "simd")]
fn compress_in_step(lanes: &mut [(&mut Sha384, &[Block])]) -> bool {
    // An unused lane hashes the first stream's blocks again; its result is dropped.
    let mut over = [FIRST; LANES];
    let mut blocks = [lanes.first().map(|(_, blocks)| *blocks).unwrap_or_default(); LANES];
    let mut states = over.each_mut();
    for ((state, blocks), (stream, given)) in states.iter_mut().zip(&mut blocks).zip(lanes) {
        (*state, *blocks) = (&mut stream.state, given);
    }
    step::compress(&mut states, blocks)
}

#[cfg(not(feature = "simd"))]
fn compress_in_step(_: &mut [(&mut Sha384, &[Block])]) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;
    use sha2::Digest as _;

    use super::*;

    fn by_sha2(bytes: &[u8]) -> [u8; 48] {
        sha2::Sha384::digest(bytes).into()
    }

    #[test]
    fn a_stream_of_every_length_around_a_block_has_the_digest_of_sha2() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(5 * BLOCK).collect();
        for length in 0..=bytes.len() {
            let (head, tail) = bytes[..length].split_at(length / 3);
            let mut stream = Sha384::new();
            stream.update(head);
            assert_eq!(stream.digest(), by_sha2(head));
            stream.update(tail);
            assert_eq!(stream.digest(), by_sha2(&bytes[..length]), "{length} bytes");
            assert_eq!((length + stream.missing()) % BLOCK, 0);
        }
    }

    #[cfg(all(feature = "simd", target_arch = "x86_64"))]
    #[test]
    fn a_processor_with_avx2_compresses_in_step() {
        extern crate std;
        let mut over = [FIRST; LANES];
        let able = std::is_x86_feature_detected!("avx2");
        assert_eq!(step::compress(&mut over.each_mut(), [&[[7; BLOCK]]; LANES]), able);
        let mut alone = FIRST;
        sha2::block_api::compress512(&mut alone, &[[7; BLOCK]]);
        assert_eq!(over, if able { [alone; LANES] } else { [FIRST; LANES] });
    }

    proptest! {
        #[test]
        fn streams_in_step_have_the_digests_of_sha2(
            streams in proptest::collection::vec((any::<u64>(), 0_usize..9, 0_usize..3 * BLOCK), 1..=LANES),
        ) {
            let bytes: Vec<(Vec<u8>, usize)> = streams.into_iter().map(|(seed, blocks, tail)| {
                let byte = |at: u64| (at.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
                ((0..(blocks * BLOCK + tail) as u64).map(byte).collect(), blocks)
            }).collect();
            let mut hashers: Vec<Sha384> = bytes.iter().map(|_| Sha384::new()).collect();
            let mut lanes: Vec<(&mut Sha384, &[Block])> = hashers
                .iter_mut()
                .zip(&bytes)
                .map(|(hasher, (bytes, blocks))| (hasher, &bytes.as_chunks().0[..*blocks]))
                .collect();
            let count = update_in_step(&mut lanes);
            prop_assert_eq!(count, bytes.iter().map(|(_, blocks)| *blocks).min().unwrap());
            for (hasher, (bytes, _)) in hashers.iter_mut().zip(&bytes) {
                hasher.update(&bytes[count * BLOCK..]);
                prop_assert_eq!(hasher.digest(), by_sha2(bytes));
            }
        }
    }
}
