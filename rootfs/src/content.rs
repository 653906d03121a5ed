//! Yields the content of one file: raw, or as independently compressed clusters.
//!
//! # Shape
//! ```text
//! raw       one range of a blob
//! clusters  input:  | 256 KiB | 256 KiB | … | rest |        CLUSTER bytes each, the last one shorter
//!           frames: | zstd | zstd | raw | … |  one blob, a frame an input cluster
//! ```
//! A frame that would not save a 4 KiB block is kept raw. Files are compressed as they are unpacked: memory stays near
//! the size of the finished image, archives are processed in parallel, and the file system writer, which uses these
//! very clusters, compresses only small files.
//!
//! # Source
//! The cluster is what EROFS calls a physical cluster: `Z_EROFS_PCLUSTER_MAX_SIZE` (1 MiB) bounds it
//! (Linux `fs/erofs/erofs_fs.h`).
//!
//! # Not here
//! The layout of clusters in an image: `erofs`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Input bytes of one cluster. Node.js and OpenClaw take 102.7 MB in clusters of 128 KiB, and 96.9 MB in clusters of
/// this size; a random page read takes 0.20 ms instead of 0.16.
pub const CLUSTER: usize = 256 * 1024;

/// The block size of the file system; clusters are rounded up to blocks.
pub const BLOCK: usize = 4096;

/// Files shorter than this are kept raw: the file system writer packs them together.
pub const SMALL: usize = 64 * 1024;

/// How many bytes of a large file are held uncompressed while it is packed: a whole number of clusters.
const WINDOW: usize = 32 * CLUSTER;

/// Why the content of a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A frame does not decompress to its expected length.
    #[error("cluster {index} does not decompress to {expected} bytes")]
    Frame {
        /// Index of the cluster in its file, from 0.
        index: usize,
        /// Length of the input of that cluster, in bytes.
        expected: usize,
    },
    /// Frame ends that do not fit their blob.
    #[error("{what} of a compressed file: expected {expected}, found {found}")]
    Shape {
        /// Which number.
        what: &'static str,
        /// The number it must be.
        expected: u64,
        /// The number that was found.
        found: u64,
    },
}

/// A shared range of bytes, of a memory map or a vector.
#[derive(Clone)]
pub struct Blob {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Blob {
    /// Takes all the bytes of `owner`.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let range = 0..owner.as_ref().len();
        Blob { owner: Arc::new(owner), range }
    }

    /// A part of these bytes, shared; `None` if `range` is out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Option<Blob> {
        self.get(range.clone())?;
        let start = self.range.start;
        Some(Blob { owner: Arc::clone(&self.owner), range: start + range.start..start + range.end })
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or(&[])
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.len())
    }
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

impl Sha256Digest {
    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Sha256Digest(Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).ok().map(|()| Sha256Digest(digest))
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The compressor of [`Packing::Zstd`] and its version: another version gives other bytes.
pub fn compressor() -> String {
    format!("zstd {}", zstd::zstd_safe::version_string())
}

/// How the content of files is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Raw,
    /// Compressed by zstd at this level (1 to 22), cluster by cluster.
    Zstd(i32),
}

/// The bytes of one file, and their digest.
#[derive(Debug, Clone)]
pub struct Content {
    len: u64,
    sha256: Sha256Digest,
    form: Form,
}

/// How the bytes are held.
#[derive(Debug, Clone)]
pub enum Form {
    /// As they are.
    Raw(Blob),
    /// As compressed clusters.
    Clusters(Clusters),
}

/// The compressed clusters of one file.
#[derive(Debug, Clone)]
pub struct Clusters {
    len: usize,
    frames: Blob,
    /// Where each frame ends in `frames`.
    ends: Arc<[u32]>,
}

/// One cluster of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Length of the input, in bytes: [`CLUSTER`], or less for the last one.
    pub input: usize,
    /// A zstd frame, or the input itself when `stored`.
    pub bytes: &'a [u8],
    /// Whether `bytes` is the input itself.
    pub stored: bool,
}

impl Clusters {
    /// Restores clusters from their [`Clusters::frames_blob`] and [`Clusters::ends`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the ends do not cover `frames`, decrease, or do not match `len` in number.
    pub fn new(len: usize, frames: Blob, ends: Arc<[u32]>) -> Result<Self, Error> {
        let count = len.div_ceil(CLUSTER);
        let shape = |what, expected: usize, found: usize| Error::Shape {
            what,
            expected: expected as u64,
            found: found as u64,
        };
        if ends.len() != count {
            return Err(shape("number of clusters", count, ends.len()));
        }
        let mut start = 0;
        for (index, &end) in ends.iter().enumerate() {
            let input = CLUSTER.min(len - index * CLUSTER);
            let end = end as usize;
            if end <= start || end - start > input {
                return Err(shape("end of a cluster", start + input, end));
            }
            start = end;
        }
        if start != frames.len() {
            return Err(shape("length of all clusters", frames.len(), start));
        }
        Ok(Clusters { len, frames, ends })
    }

    /// All frames, concatenated.
    pub fn frames_blob(&self) -> &Blob {
        &self.frames
    }

    /// Where each frame ends in [`Clusters::frames_blob`].
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The frames in order.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        (0..self.ends.len()).map(|index| self.frame(index))
    }

    fn frame(&self, index: usize) -> Frame<'_> {
        let start =
            index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |&end| end as usize);
        let end = self.ends.get(index).map_or(start, |&end| end as usize);
        let input = CLUSTER.min(self.len.saturating_sub(index * CLUSTER));
        let bytes = self.frames.get(start..end).unwrap_or(&[]);
        Frame { input, bytes, stored: bytes.len() == input }
    }

    fn unpack(&self, index: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let frame = self.frame(index);
        if frame.stored {
            out.extend_from_slice(frame.bytes);
            return Ok(());
        }
        let wrong = Error::Frame { index, expected: frame.input };
        let plain = zstd::bulk::decompress(frame.bytes, frame.input).map_err(|_| wrong.clone())?;
        if plain.len() != frame.input {
            return Err(wrong);
        }
        out.extend_from_slice(&plain);
        Ok(())
    }
}

impl Content {
    /// Holds `bytes` as they are.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Content::from_blob(Blob::new(bytes.into()))
    }

    /// Holds the bytes of `blob` as they are, shared.
    pub fn from_blob(blob: Blob) -> Self {
        Content { len: blob.len() as u64, sha256: Sha256Digest::of(&blob), form: Form::Raw(blob) }
    }

    /// Restores content from the parts of an earlier [`Content::pack`]; the digest is trusted.
    pub fn from_parts(sha256: Sha256Digest, form: Form) -> Self {
        let len = match &form {
            Form::Raw(blob) => blob.len(),
            Form::Clusters(clusters) => clusters.len,
        };
        Content { len: len as u64, sha256, form }
    }

    /// Stores `bytes` as `packing` asks: files of at least [`SMALL`] bytes become clusters, unless their first cluster
    /// does not shrink by an eighth, as in a file that is already compressed.
    pub fn pack(bytes: &[u8], packing: Packing) -> Self {
        let sha256 = Sha256Digest::of(bytes);
        let form = match packing {
            Packing::Zstd(level) if bytes.len() >= SMALL => compress(bytes, level).map(Form::Clusters),
            _ => None,
        };
        let form = form.unwrap_or_else(|| Form::Raw(Blob::new(bytes.to_vec())));
        Content { len: bytes.len() as u64, sha256, form }
    }

    /// Reads `len` bytes and packs them as [`Content::pack`] does, holding no more than 4 MiB of a large file
    /// uncompressed.
    ///
    /// # Errors
    /// Errors of `reader`, and [`io::ErrorKind::UnexpectedEof`] if it ends early.
    pub fn pack_from(reader: &mut impl Read, len: u64, packing: Packing) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut start = Vec::new();
        read_part(reader, WINDOW.min(len as usize), &mut start)?;
        let packer = match packing {
            Packing::Zstd(level) if len > WINDOW as u64 => Packer::new(&start, level),
            _ => None,
        };
        let Some(mut packer) = packer else {
            read_part(reader, len as usize - start.len(), &mut start)?;
            return Ok(match packing {
                // A large file that is not worth compressing.
                Packing::Zstd(_) if len > WINDOW as u64 => Content::from_blob(Blob::new(start)),
                _ => Content::pack(&start, packing),
            });
        };
        let too_long = || io::Error::other("a file of more than 4 GiB once compressed");
        let mut left = len as usize;
        while left > 0 {
            hasher.update(&start);
            packer.push(&start).map_err(|TooLong| too_long())?;
            left -= start.len();
            start.clear();
            read_part(reader, WINDOW.min(left), &mut start)?;
        }
        let clusters = packer.finish().ok_or_else(too_long)?;
        Ok(Content { len, sha256: Sha256Digest(hasher.finalize().into()), form: Form::Clusters(clusters) })
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest of the bytes.
    pub fn sha256(&self) -> Sha256Digest {
        self.sha256
    }

    /// How the bytes are held.
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// All the bytes.
    ///
    /// # Errors
    /// [`Error::Frame`] when a cluster is damaged.
    pub fn read(&self) -> Result<Cow<'_, [u8]>, Error> {
        self.read_range(0..self.len)
    }

    /// The bytes of `range`, clamped to the length of the file; decompresses only the clusters it touches.
    ///
    /// # Errors
    /// [`Error::Frame`] when a cluster is damaged.
    pub fn read_range(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        let end = range.end.min(self.len) as usize;
        let start = (range.start as usize).min(end);
        match &self.form {
            Form::Raw(blob) => Ok(Cow::Borrowed(blob.get(start..end).unwrap_or(&[]))),
            Form::Clusters(_) if start == end => Ok(Cow::Borrowed(&[])),
            Form::Clusters(clusters) => {
                let first = start / CLUSTER;
                let mut plain = Vec::with_capacity(end - first * CLUSTER);
                for index in first..end.div_ceil(CLUSTER) {
                    clusters.unpack(index, &mut plain)?;
                }
                plain.truncate(end - first * CLUSTER);
                plain.drain(..start - first * CLUSTER);
                Ok(Cow::Owned(plain))
            }
        }
    }
}

/// Appends exactly `len` bytes; the buffer grows only as they arrive.
fn read_part(reader: &mut impl Read, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let before = out.len();
    reader.take(len as u64).read_to_end(out)?;
    if out.len() - before < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Compresses one cluster; `None` if that saves no block. The frame has a content size and no checksum: exactly what
/// the kernel's decoder needs.
fn frame(input: &[u8], level: i32) -> Option<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
    }
    let frame = COMPRESSOR.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(there, _)| *there != level) {
            *slot = Some((level, zstd::bulk::Compressor::new(level).ok()?));
        }
        slot.as_mut()?.1.compress(input).ok()
    })?;
    (frame.len().div_ceil(BLOCK) < input.len().div_ceil(BLOCK)).then_some(frame)
}

/// The frames of a file exceed 32-bit offsets.
#[derive(Debug)]
struct TooLong;

/// A file that is packed while it is read.
struct Packer {
    level: i32,
    len: usize,
    frames: Vec<u8>,
    ends: Vec<u32>,
}

impl Packer {
    /// Starts with the first bytes of a file; `None` if its first cluster does not shrink by an eighth, as in a file
    /// that is already compressed.
    fn new(start: &[u8], level: i32) -> Option<Self> {
        let first = start.get(..CLUSTER.min(start.len()))?;
        let packed = frame(first, level)?;
        (packed.len() <= first.len() - first.len() / 8).then(|| Packer {
            level,
            len: 0,
            frames: Vec::new(),
            ends: Vec::new(),
        })
    }

    /// Takes the next bytes: a whole number of clusters, except in the last call.
    fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        let frames: Vec<Option<Vec<u8>>> =
            bytes.par_chunks(CLUSTER).map(|input| frame(input, self.level)).collect();
        for (input, frame) in bytes.chunks(CLUSTER).zip(&frames) {
            self.frames.extend_from_slice(frame.as_deref().unwrap_or(input));
            self.ends.push(u32::try_from(self.frames.len()).map_err(|_| TooLong)?);
        }
        self.len += bytes.len();
        Ok(())
    }

    fn finish(mut self) -> Option<Clusters> {
        self.frames.shrink_to_fit();
        Clusters::new(self.len, Blob::new(self.frames), self.ends.into()).ok()
    }
}

fn compress(bytes: &[u8], level: i32) -> Option<Clusters> {
    let mut packer = Packer::new(bytes, level)?;
    for window in bytes.chunks(WINDOW) {
        packer.push(window).ok()?;
    }
    packer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|i| b"the quick brown fox "[(i * i / 7) % 20]).collect()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as u8
            })
            .collect()
    }

    #[test]
    fn packed_content_reads_back_whole_and_by_range() {
        for len in [0, 1, SMALL - 1, SMALL, CLUSTER - 1, CLUSTER, CLUSTER + 1, 3 * CLUSTER + 17] {
            let bytes = text(len);
            let content = Content::pack(&bytes, Packing::Zstd(3));
            assert_eq!(content.read().unwrap(), bytes, "{len}");
            assert_eq!(content.len(), len as u64);
            assert_eq!(content.sha256(), Sha256Digest::of(&bytes));
            for range in
                [0..1, 5..5, 1..CLUSTER, CLUSTER - 1..CLUSTER + 1, CLUSTER..2 * CLUSTER, 7..usize::MAX]
            {
                let want = &bytes[range.start.min(len)..range.end.min(len)];
                assert_eq!(content.read_range(range.start as u64..range.end as u64).unwrap(), want);
            }
        }
    }

    #[test]
    fn packing_from_a_stream_gives_what_packing_from_memory_gives() {
        for bytes in
            [text(0), text(1000), text(WINDOW - 1), text(WINDOW), text(2 * WINDOW + 5), noise(WINDOW + 5)]
        {
            let whole = Content::pack(&bytes, Packing::Zstd(3));
            let stream = Content::pack_from(&mut &bytes[..], bytes.len() as u64, Packing::Zstd(3)).unwrap();
            assert_eq!(stream.sha256(), whole.sha256());
            match (stream.form(), whole.form()) {
                (Form::Raw(a), Form::Raw(b)) => assert!(a[..] == b[..]),
                (Form::Clusters(a), Form::Clusters(b)) => {
                    assert!(a.frames_blob()[..] == b.frames_blob()[..]);
                    assert_eq!(a.ends(), b.ends());
                }
                _ => panic!("{} bytes are packed in two ways", bytes.len()),
            }
        }
    }

    #[test]
    fn a_stream_that_ends_too_soon_is_an_error() {
        for len in [10, WINDOW + 10] {
            let bytes = text(len - 1);
            let error = Content::pack_from(&mut &bytes[..], len as u64, Packing::Zstd(3)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn large_text_is_compressed_and_noise_is_not() {
        assert!(matches!(Content::pack(&text(SMALL), Packing::Zstd(3)).form(), Form::Clusters(_)));
        assert!(matches!(Content::pack(&noise(SMALL), Packing::Zstd(3)).form(), Form::Raw(_)));
        assert!(matches!(Content::pack(&text(SMALL), Packing::Raw).form(), Form::Raw(_)));
        assert!(matches!(Content::pack(&text(SMALL - 1), Packing::Zstd(3)).form(), Form::Raw(_)));
    }

    #[test]
    fn a_cluster_that_does_not_shrink_is_stored() {
        let mut bytes = text(CLUSTER);
        bytes.extend(noise(CLUSTER));
        let content = Content::pack(&bytes, Packing::Zstd(3));
        let Form::Clusters(clusters) = content.form() else { panic!("not compressed") };
        let stored: Vec<bool> = clusters.frames().map(|frame| frame.stored).collect();
        assert_eq!(stored, [false, true]);
        assert_eq!(content.read().unwrap(), bytes);
    }

    #[test]
    fn frame_ends_that_do_not_fit_are_refused() {
        let blob = || Blob::new(vec![0u8; 10]);
        assert!(Clusters::new(CLUSTER, blob(), Arc::from([10u32])).is_ok());
        assert!(Clusters::new(CLUSTER, blob(), Arc::from([9u32])).is_err());
        assert!(Clusters::new(CLUSTER, blob(), Arc::from([5u32, 10])).is_err());
        assert!(Clusters::new(2 * CLUSTER, blob(), Arc::from([7u32, 5])).is_err());
        assert!(Clusters::new(9, blob(), Arc::from([10u32])).is_err());
    }

    #[test]
    fn a_damaged_cluster_is_an_error() {
        let clusters = Clusters::new(CLUSTER, Blob::new(vec![7u8; 10]), Arc::from([10u32])).unwrap();
        let content = Content::from_parts(Sha256Digest([0; 32]), Form::Clusters(clusters));
        assert_eq!(content.read().unwrap_err(), Error::Frame { index: 0, expected: CLUSTER });
    }

    #[test]
    fn a_slice_out_of_bounds_is_none() {
        let blob = Blob::new(vec![1u8, 2, 3]);
        let part = blob.slice(1..3).unwrap();
        assert_eq!(&*part, [2, 3]);
        assert_eq!(&*part.slice(1..2).unwrap(), [3]);
        assert!(part.slice(1..3).is_none());
    }
}
