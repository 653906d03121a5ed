//! Yields log entries and proofs from transparency logs, by one trait: a folder, a Rekor v2, a Rekor v1.
//!
//! # Shape
//! ```text
//! submit       envelope -> the log's entry, in the format of sigstore bundles, and its proof
//! checkpoint   the last published state
//! consistency  proof between two sizes
//! ```
//! Every answer of a log is checked here against the request and the policy before it is returned.
//!
//! # Not here
//! Formats and verification: `trust::transparency`.

pub mod audit;
pub mod directory;
pub mod medium;
pub mod monitor;
pub mod rekor_v1;
pub mod rekor_v2;
pub mod serve;
pub mod web;
pub mod witness;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use self::directory::Novelty;
use crate::advice::{Advice, Advised, OUTSIDE};
use crate::trust::Verified;
use crate::trust::envelope::Envelope;
use crate::trust::image_policy::log_id;
use crate::trust::transparency::entry::Verifier;
use crate::trust::transparency::merkle::{self, Hash};
use crate::trust::transparency::note::{self, Note};
use crate::trust::transparency::proof::{self, Proof};
use crate::trust::transparency::tlog_policy::{self as policy, Accepted, Policy};

/// Why a log failed or is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder's log failed.
    #[error(transparent)]
    Directory(#[from] directory::Error),
    /// The server cannot be reached, or is too slow.
    #[error("{url} does not answer")]
    Unreachable {
        /// The URL requested.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answers with an error status.
    #[error("{url} answers {status}: {message}")]
    Status {
        /// The URL requested.
        url: String,
        /// HTTP status.
        status: u16,
        /// Its message, truncated.
        message: String,
    },
    /// The answer is malformed.
    #[error("{url} gives a malformed answer: {reason}")]
    Malformed {
        /// The URL requested.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer does not match the request.
    #[error("{log} logged something other than what was sent: {reason}")]
    Other {
        /// The log.
        log: String,
        /// The difference.
        reason: String,
    },
    /// The log's proof is invalid.
    #[error("invalid proof from {log}")]
    Proof {
        /// The log.
        log: String,
        /// Why.
        source: proof::Error,
    },
    /// The policy does not accept the log's state.
    #[error("the state of {log} is refused")]
    Policy {
        /// The log.
        log: String,
        /// Why.
        source: policy::Error,
    },
    /// The log's state is not a note.
    #[error("the state of {log} is refused")]
    Note {
        /// The log.
        log: String,
        /// Why.
        source: note::Error,
    },
    /// The tiles do not give a proof.
    #[error("cannot build a proof from the tiles of {log}")]
    Tiles {
        /// The log.
        log: String,
        /// Why.
        source: merkle::Error,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Directory(inner) => inner.advice(),
            Error::Unreachable { .. } => {
                Some(Advice::outside("run the command again: it resumes where it stopped"))
            }
            Error::Status { .. } => Some(Advice { hint: None, exit_code: OUTSIDE }),
            _ => None,
        }
    }
}

/// An envelope to be logged.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The envelope.
    pub envelope: &'a Envelope,
    /// The key or certificate that verifies it.
    pub verifier: &'a Verifier,
}

/// A log's entry with its proof.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The entry, in the format of bundles (`TransparencyLogEntry`).
    pub entry: Value,
    /// The leaf's bytes.
    pub body: Vec<u8>,
    /// Its proof.
    pub proof: Proof,
    /// Whether the entry is new.
    pub novelty: Novelty,
}

/// A transparency log.
pub trait TransparencyLog {
    /// Returns the log's name, for messages.
    fn name(&self) -> &str;

    /// Logs an envelope, or finds its existing entry.
    ///
    /// # Errors
    /// [`Error`].
    fn submit(&mut self, submission: Submission<'_>) -> Result<Recorded, Error>;

    /// Returns the last published state, if the policy accepts it.
    ///
    /// # Errors
    /// [`Error`].
    fn checkpoint(&self) -> Result<Note, Error>;

    /// Returns the consistency proof between two sizes of the log.
    ///
    /// # Errors
    /// [`Error`].
    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, Error>;
}

/// A log in a folder, with witnesses as the policy says.
pub struct Folder<'a, C> {
    /// The writer.
    pub writer: directory::Writer<medium::Disk>,
    /// The cosigners.
    pub cosigners: C,
    /// The policy.
    pub policy: &'a Policy,
}

impl<C: directory::Cosigners> TransparencyLog for Folder<'_, C> {
    fn name(&self) -> &str {
        self.writer.key().name()
    }

    fn submit(&mut self, submission: Submission<'_>) -> Result<Recorded, Error> {
        self.writer.keep_blob(&submission.envelope.to_bytes())?;
        let body = submission.envelope.entry(submission.verifier.clone()).to_bytes();
        let logged = self.writer.append(std::slice::from_ref(&body), &self.cosigners)?;
        let name = self.name().to_owned();
        let Some(logged) = logged.into_iter().next() else {
            return Err(Error::Other { log: name, reason: "nothing was logged".to_owned() });
        };
        let proof =
            Proof { extra: None, index: logged.index, hashes: logged.proof, checkpoint: logged.checkpoint };
        let accepted =
            proof.verify(&body, self.policy).map_err(|source| Error::Proof { log: name, source })?;
        let entry = bundled(&proof, &accepted, &body);
        Ok(Recorded { entry, body, proof, novelty: logged.novelty })
    }

    fn checkpoint(&self) -> Result<Note, Error> {
        let note = directory::Directory::open(self.writer.folder()).checkpoint()?;
        let refused = |source| Error::Policy { log: self.name().to_owned(), source };
        self.policy.accept(&note).map_err(refused)?;
        Ok(note)
    }

    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
        let files = directory::Directory::open(self.writer.folder());
        let tree = crate::trust::transparency::tile::Tree::new(&files, new);
        merkle::prove_consistency(&tree, old, new)
            .map_err(|source| Error::Tiles { log: self.name().to_owned(), source })
    }
}

/// Formats an entry of a Rekor v2, or of a similar log, for bundles.
pub fn bundled(proof: &Proof, accepted: &Verified<Accepted>, body: &[u8]) -> Value {
    let index = proof.index.to_string();
    let checkpoint = accepted.checkpoint();
    json!({
        "logIndex": index,
        "logId": {"keyId": STANDARD.encode(log_id(accepted.log()))},
        "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
        "inclusionProof": {
            "logIndex": index,
            "rootHash": checkpoint.root().to_base64(),
            "treeSize": checkpoint.size().to_string(),
            "hashes": proof.hashes.iter().map(|hash| hash.to_base64()).collect::<Vec<_>>(),
            "checkpoint": {"envelope": proof.checkpoint.to_string()},
        },
        "canonicalizedBody": STANDARD.encode(body),
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    /// Returns a folder of recorded cases; `None`, with a loud message, if this machine does not have it.
    pub fn vectors(below: &str) -> Option<PathBuf> {
        let folder = std::env::var_os("PROOFMARK_VECTORS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from)
            .join(below);
        if !folder.is_dir() {
            eprintln!("SKIPPED: {} is not there; set PROOFMARK_VECTORS", folder.display());
            return None;
        }
        Some(folder)
    }
}
