//! Yields an image's statements, signed and logged, beside the image.
//!
//! # Shape
//! ```text
//! manifest, documents beside it* ─> statements
//! each: envelope* ─> stamp* ─> logs* ─> entries, checked ─> bundle ─> judged as a verifier will ─> files*
//!       (* = an effect, taken once: the journal knows what is done)
//! ```
//! A repeated publication finds what was done before: an envelope is signed once, an entry is logged once, and a log
//! that already has the entry is only asked for its proof.
//!
//! # Not here
//! Each step: `host::publication`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::advice::{Advice, Advised};
use crate::claim::file;
use crate::claim::provenance::statement::Statement;
use crate::host::built::{self, Built};
use crate::host::publication::{self, Publisher};

/// Why no statements can be made about an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image cannot be opened.
    #[error(transparent)]
    Built(#[from] built::Error),
    /// A file that the manifest names is missing.
    #[error("{} has no {name}, which its manifest names", folder.display())]
    Absent {
        /// The image's folder.
        folder: PathBuf,
        /// The file.
        name: String,
    },
    /// The reference values cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The document.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The reference values are malformed.
    #[error("cannot use {}", path.display())]
    Values {
        /// The document.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Built(inner) => inner.advice(),
            Error::Absent { .. } => Some(Advice::failed("only whole images can be signed: build it again")),
            _ => None,
        }
    }
}

/// The result of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The statement's kind, which is part of the files' names.
    pub kind: String,
    /// SHA-256 of the payload.
    pub payload: String,
    /// Index of the entry in each log.
    pub logs: BTreeMap<String, u64>,
    /// Logs that the envelope was sent to this time; the others already had it.
    pub asked: Vec<String>,
}

/// Opens an image that has every file that its manifest names, unchanged.
///
/// # Errors
/// [`Error::Built`], [`Error::Absent`].
pub fn whole(folder: &Path) -> Result<Built, Error> {
    let built = Built::open(folder)?;
    if let Some(name) = built.check_outputs()?.first() {
        return Err(Error::Absent { folder: folder.to_owned(), name: name.clone() });
    }
    Ok(built)
}

/// What a builder states about an image, by kind: how it was built and, if it has any, its reference values.
///
/// # Errors
/// [`Error::Read`], [`Error::Values`].
pub fn statements(image: &Built, builder: &str) -> Result<Vec<(&'static str, Statement)>, Error> {
    let provenance = Statement::provenance(&image.manifest, builder, &image.manifest_sha256.to_string());
    let mut all = vec![("provenance", provenance)];
    let path = image.folder.join(file::VALUES);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let values = serde_json::from_slice(&bytes).map_err(|source| Error::Values { path, source })?;
            all.push(("reference-values", Statement::reference(&image.manifest, values)));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Read { path, source }),
    }
    Ok(all)
}

/// Signs and logs a statement, unless that was done before, and writes the files.
///
/// # Errors
/// [`publication::Error`]; the journal keeps what was done, and the next call continues from there.
pub fn publish(
    publisher: &mut Publisher<'_>,
    kind: &str,
    statement: &Statement,
) -> Result<Published, publication::Error> {
    let payload = statement.to_payload();
    let digest = hex::encode(Sha256::digest(&payload));
    let signed = publisher.envelope(kind, payload)?;
    let mut progress = publisher.done(kind, &signed)?;
    publisher.stamp(&mut progress, &signed)?;
    let asked = publisher.log(&mut progress, &signed)?;
    let entries = publisher.entries(&mut progress)?;
    let bundle = publisher.bundle(&mut progress, &signed, &entries);
    publisher.holds(kind, statement, &signed, &bundle)?;
    publisher.finish(kind, &signed, &entries, &bundle)?;
    Ok(Published { kind: kind.to_owned(), payload: digest, logs: entries.logs, asked })
}

#[cfg(test)]
mod tests;
