//! Hashed data, from a file, a block device or a pipe.
//!
//! # Shape
//!
//! If the input is seekable, each thread reads pieces into its own buffer, small enough for the core's cache,
//! and hashes them there; the leaves are appended in order. A pipe is read in order. Memory use is one piece
//! per thread, and the tree.
//!
//! # Not here
//!
//! A memory map: a file that shrinks meanwhile would kill the program instead of causing an error.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use dm_verity_tool::{BlockSize, Hasher};
use rayon::prelude::*;

use crate::failure::Hint;

/// The bytes that a thread reads and hashes at a time; at least a block.
const PIECE: u32 = 256 * 1024;

/// The pieces that are hashed before their leaves are appended: 64 MiB of data.
const PIECES: u64 = 256;

/// An open image.
pub struct Image {
    path: PathBuf,
    file: File,
    length: Length,
}

/// How the length of an image is known.
#[derive(Clone, Copy)]
enum Length {
    /// A seekable image, with its length in bytes.
    Known(u64),
    /// A pipe, whose length is known at its end.
    Unknown,
}

impl Image {
    /// Opens an image.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot open {}", path.display());
        let mut file = File::open(path).with_context(cannot)?;
        let metadata = file.metadata().with_context(cannot)?;
        let length = match metadata.file_type() {
            kind if kind.is_file() => Length::Known(metadata.len()),
            kind if kind.is_block_device() => {
                Length::Known(file.seek(SeekFrom::End(0)).with_context(cannot)?)
            }
            kind if kind.is_dir() => bail!("{} is a folder, expected an image", path.display()),
            _ => Length::Unknown,
        };
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Returns the length in bytes, if it is known in advance.
    pub fn length(&self) -> Option<u64> {
        match self.length {
            Length::Known(length) => Some(length),
            Length::Unknown => None,
        }
    }

    /// Hashes the first `data_blocks` blocks, or the whole image.
    pub fn hash(
        self,
        hasher: Hasher,
        block_size: BlockSize,
        data_blocks: Option<u64>,
    ) -> anyhow::Result<Hasher> {
        let name = self.path.display().to_string();
        let wanted = data_blocks.map(|blocks| blocks.saturating_mul(u64::from(block_size.bytes())));
        match (self.length, wanted) {
            (Length::Known(found), Some(expected)) if found < expected => too_short(found, expected),
            (Length::Known(length), wanted) => self.hash_pieces(hasher, block_size, wanted.unwrap_or(length)),
            (Length::Unknown, wanted) => self.hash_pipe(hasher, wanted),
        }
        .with_context(|| format!("cannot hash {name}"))
    }

    fn hash_pieces(&self, mut hasher: Hasher, block_size: BlockSize, length: u64) -> anyhow::Result<Hasher> {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let size = u64::from(block_size.bytes());
        if !length.is_multiple_of(size) {
            return Err(Hint::error(
                format!("{length} bytes are not whole blocks of {size}: {} too many", length % size),
                "pad the image, or say with --data-blocks how much of it to cover",
            ));
        }
        let piece = u64::from(PIECE.max(block_size.bytes()));
        let leaf_hasher = hasher.leaf_hasher();
        let leaves = |number: u64| {
            let start = number * piece;
            let length = piece.min(length - start) as usize;
            BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(buffer.len().max(length), 0);
                let (bytes, _) = buffer.split_at_mut(length);
                self.file.read_exact_at(bytes, start).with_context(|| format!("cannot read at {start}"))?;
                Ok(leaf_hasher.hash(bytes)?)
            })
        };
        let end = length.div_ceil(piece);
        for first in (0..end).step_by(PIECES as usize) {
            let numbers = first..end.min(first + PIECES);
            let leaves: Vec<anyhow::Result<_>> = numbers.into_par_iter().map(leaves).collect();
            for leaves in leaves {
                hasher.append(leaves?)?;
            }
        }
        Ok(hasher)
    }

    fn hash_pipe(&self, mut hasher: Hasher, wanted: Option<u64>) -> anyhow::Result<Hasher> {
        let mut buffer = Vec::new();
        let mut found = 0;
        loop {
            let next = wanted.map_or(u64::MAX, |wanted| wanted - found).min(u64::from(PIECE) * 16);
            buffer.clear();
            match (&self.file).take(next).read_to_end(&mut buffer).context("cannot read")? {
                0 => break,
                length => found += length as u64,
            }
            hasher.update(&buffer);
        }
        match wanted {
            Some(expected) if found < expected => too_short(found, expected),
            _ => Ok(hasher),
        }
    }
}

fn too_short(found: u64, expected: u64) -> anyhow::Result<Hasher> {
    bail!("{found} bytes, expected {expected}")
}
