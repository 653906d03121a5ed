//! Yields the files of npm packages from a package-lock and tarballs, as `npm ci --ignore-scripts` lays them out.
//!
//! # Shape
//! ```text
//! package-lock.json ──lock──> Entry … ──select──> Entry … ──layout──> Package …        (pure text, once)
//!                                      └─engines: may they run on this Node.js?
//! Package + its tarball ──integrity, tarball (omit)──> Layer + what was omitted (one call per tarball, in parallel)
//! ```
//! No package manager and no install script runs: the lock's `packages` map determines the tree.
//!
//! # Source
//! npm 11 as it ships (`@npmcli/arborist`, `pacote`, `bin-links`, `npm-install-checks`, node-tar); the system test
//! `npm_reference` compares the result with a real `npm ci --ignore-scripts`, path by path.
//!
//! # Not here
//! Resolving versions, which npm itself does (`proofmark lock`); npm's own `node_modules/.package-lock.json`, which
//! nothing reads at run time; modification times, since an image has a single one.

pub mod engines;
pub mod integrity;
pub mod layout;
pub mod lock;
pub mod tarball;
