//! The order of stages of each verb, one flow per file, callable as a library.
//!
//! # Shape
//! ```text
//! lock      releases* ─> debs* ─> npm* ─> attestations* ─> review* ─> accounts (assemble) ─> configurations*
//! build     fetch* ─> assemble ─> configurations* ─> image (pipeline) ─> documents ─> manifest ─> folder*
//! publish   statements ─> for each: envelope* ─> stamp* ─> logs* ─> bundle ─> judged ─> files*
//! rebuild   build* ─> compare
//! measure   open* ─> firmware* ─> values        audit: the same from every byte of the disk, and compared
//! verify    bundles* ─> verdict                                                            (* = an effect)
//! ```
//! A flow parses no arguments and prints no results. Its effects are those of `host`; it reports progress through
//! `host::progress`.
//!
//! # Not here
//! Command-line arguments and printed results: `cmd`.

pub mod audit;
pub mod build;
pub mod lock;
pub mod measure;
pub mod publish;
pub mod rebuild;
pub mod verify;
