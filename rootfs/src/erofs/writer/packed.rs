//! Yields the compressed clusters of the packed inode, from small files.

use std::collections::BTreeMap;
use std::io;

use rayon::prelude::*;

use super::item::FrameOf;
use super::{Error, Source};
use crate::content::{CLUSTER, Sha256Digest};
use crate::erofs::format::BLOCK;

/// Small files, concatenated.
#[derive(Default)]
pub(super) struct Packed<'a> {
    files: Vec<(u64, &'a [u8])>,
    offsets: BTreeMap<Sha256Digest, u64>,
    pub(super) len: u64,
}

impl<'a> Packed<'a> {
    pub(super) fn add(&mut self, digest: Sha256Digest, bytes: &'a [u8]) -> u64 {
        *self.offsets.entry(digest).or_insert_with(|| {
            let at = self.len;
            self.files.push((at, bytes));
            self.len += bytes.len() as u64;
            at
        })
    }

    /// Collects the input of one cluster.
    fn gather(&self, index: usize, out: &mut Vec<u8>) {
        out.clear();
        let start = (index * CLUSTER) as u64;
        let end = self.len.min(start + CLUSTER as u64);
        let first = self.files.partition_point(|&(at, bytes)| at + bytes.len() as u64 <= start);
        for &(at, bytes) in self.files.get(first..).unwrap_or(&[]) {
            if at >= end {
                break;
            }
            let from = start.saturating_sub(at) as usize;
            let to = bytes.len().min((end - at) as usize);
            out.extend_from_slice(bytes.get(from..to).unwrap_or(&[]));
        }
    }

    pub(super) fn compress(&self, level: i32) -> Result<Vec<FrameOf<'a>>, Error> {
        let count = self.len.div_ceil(CLUSTER as u64) as usize;
        (0..count)
            .into_par_iter()
            .map_init(
                || (zstd::bulk::Compressor::new(level), Vec::new()),
                |(compressor, input), index| {
                    self.gather(index, input);
                    let compressor = compressor.as_mut().map_err(|error| io::Error::from(error.kind()))?;
                    let packed = compressor.compress(input)?;
                    let stored = packed.len().div_ceil(BLOCK) >= input.len().div_ceil(BLOCK);
                    let bytes = if stored { input.clone() } else { packed };
                    let (input, len) = (input.len(), bytes.len());
                    Ok(FrameOf { input, stored, bytes: Source::Cluster(bytes), len })
                },
            )
            .collect::<io::Result<_>>()
            .map_err(Error::Compress)
    }
}
