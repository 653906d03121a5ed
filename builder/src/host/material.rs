//! Yields what an image is assembled of: locked files and unpacked layers of the store, and files of the recipe.
//!
//! # Not here
//! How the locked files came into the store: `fetch`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rootfs::content::{self, Sha256Digest};
use rootfs::layer::Layer;

use super::firmware::Derived;
use super::progress::Stage;
use super::store::Store;
use crate::assemble::{Source, Unavailable};
use crate::lock::Blob;

/// A store as the source of an assembly, which shows its progress.
pub struct Material<'a> {
    store: &'a Store,
    derived: Derived,
    stage: &'a Stage,
    /// How many layers were made.
    made: AtomicUsize,
    /// Keys of the layers that were found and not made again.
    kept: Mutex<BTreeSet<Sha256Digest>>,
}

impl<'a> Material<'a> {
    /// The files of `store`; layers that were unpacked before are taken from it, or ignored.
    pub fn new(store: &'a Store, derived: Derived, stage: &'a Stage) -> Self {
        Material { store, derived, stage, made: AtomicUsize::new(0), kept: Mutex::default() }
    }

    /// How many layers were found unpacked, and how many there were.
    pub fn found(&self) -> (usize, usize) {
        let kept = self.kept.lock().map_or(0, |kept| kept.len());
        (kept, kept + self.made.load(Ordering::Relaxed))
    }
}

impl Source for Material<'_> {
    fn blob(&self, blob: &Blob) -> Result<content::Blob, Unavailable> {
        Ok(self.store.read(&blob.sha256, &blob.label)?)
    }

    fn derived(&self, key: &Sha256Digest) -> Option<content::Blob> {
        let bytes = match self.derived {
            Derived::Taken => self.store.derived("layer", key)?,
            Derived::Ignored => return None,
        };
        if let Ok(mut kept) = self.kept.lock() {
            kept.insert(*key);
        }
        Some(content::Blob::new(bytes))
    }

    fn keep(&self, key: &Sha256Digest, layer: &Layer) {
        self.made.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut kept) = self.kept.lock() {
            // What was found was damaged.
            kept.remove(key);
        }
        if self.derived == Derived::Taken {
            self.store.keep_derived("layer", key, &layer.to_bytes());
        }
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn unpacked(&self, bytes: u64) {
        self.stage.advance(bytes);
    }
}
