//! Yields the parts of an image: locked files and unpacked layers from the store, and the recipe's files.
//!
//! # Not here
//! How the locked files got into the store: `fetch`.

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

/// A store as the source of an assembly; it shows progress.
pub struct Material<'a> {
    store: &'a Store,
    derived: Derived,
    stage: &'a Stage,
    /// Number of layers unpacked.
    made: AtomicUsize,
    /// Keys of the layers found unpacked.
    kept: Mutex<BTreeSet<Sha256Digest>>,
}

impl<'a> Material<'a> {
    /// Uses the files of `store`; layers unpacked earlier are reused or ignored.
    pub fn new(store: &'a Store, derived: Derived, stage: &'a Stage) -> Self {
        Material { store, derived, stage, made: AtomicUsize::new(0), kept: Mutex::default() }
    }

    /// Returns how many layers were found unpacked, and how many there are.
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
            // The layer found was damaged.
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
