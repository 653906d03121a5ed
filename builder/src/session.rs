//! Yields what a run of the program works with: the store, the mirrors, and how progress is shown.
//!
//! # Not here
//! Flags, the environment and the configuration file: `cli`.

use crate::host::fetch::{Fetcher, Network};
use crate::host::mirror::Mirrors;
use crate::host::progress::Progress;
use crate::host::store::Store;

/// What a run works with.
#[derive(Debug)]
pub struct Session {
    /// How progress is shown.
    pub progress: Progress,
    /// Fetched files, and what is derived from them.
    pub store: Store,
    /// Where files are fetched from.
    pub mirrors: Mirrors,
    /// Whether the network may be used.
    pub network: Network,
}

impl Session {
    /// Makes a fetcher into the store.
    pub fn fetcher(&self) -> Fetcher<'_> {
        Fetcher::new(&self.store, &self.mirrors, self.network)
    }
}
