//! Yields how an image differs from a document of reference values, computed from every byte of its disk.
//!
//! # Shape
//! ```text
//! disk ─ pass* ─> digest, root hash, stored tree ─┐
//! disk's head, UKI, firmware* ─ hash ─> values ───┴─ compare with the document ─> mismatches     (* = an effect)
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::reference::Reference;
use ovmf_measure::stub::{self, Uki};
use proofmark_guest::init::cmdline::{self, Boot};

use super::measure::{self, FirmwareFiles, Place};
use crate::advice::{Advice, Advised};
use crate::amount;
use crate::claim::file;
use crate::claim::reference::{self as values, Mismatch};
use crate::host::raw_disk::{self, Pass, StoredTree};
use crate::session::Session;

/// Why an image cannot be audited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image or the document cannot be read.
    #[error(transparent)]
    Measure(#[from] measure::Error),
    /// The document lists an unknown machine.
    #[error("{} lists an unknown machine", document.display())]
    Machine {
        /// The document.
        document: PathBuf,
        /// Why.
        source: measure::Error,
    },
    /// The program that the disk boots cannot be read.
    #[error(transparent)]
    Uki(#[from] stub::Error),
    /// The command line names no root file system.
    #[error("the measured command line names no root file system: {why}")]
    Root {
        /// Why.
        why: cmdline::Error,
    },
    /// The disk cannot be read.
    #[error(transparent)]
    Disk(#[from] raw_disk::Error),
    /// The values cannot be computed.
    #[error(transparent)]
    Values(#[from] values::Error),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Measure(inner) => inner.advice(),
            Error::Root { .. } => Some(Advice::failed("audit an image that `proofmark build` wrote")),
            _ => None,
        }
    }
}

/// The result of an audit.
#[derive(Debug)]
pub struct Audit {
    /// The document.
    pub document: Reference,
    /// The values computed from the image.
    pub computed: Reference,
    /// How they differ.
    pub mismatches: Vec<Mismatch>,
}

/// Recomputes all reference values of the image at `path`, and compares them with the document at `reference`.
///
/// # Errors
/// [`Error`] when the image or the document cannot be read.
pub fn audit(
    path: &Path,
    reference: &Path,
    firmware: FirmwareFiles<'_>,
    session: &Session,
) -> Result<Audit, Error> {
    let document = measure::document(reference)?;
    let place = Place::find(path)?;
    let opened = place.open()?;
    let machines = measure::machines(&document)
        .map_err(|source| Error::Machine { document: reference.to_owned(), source })?;
    let uki = Uki::read(&opened.uki)?;
    let command_line = uki.section(".cmdline").map(|piece| piece.bytes.to_vec()).unwrap_or_default();
    let boot = Boot::parse(&command_line).map_err(|why| Error::Root { why })?;
    let stage = session.progress.stage("hash disk", opened.disk.bytes());
    // The values do not depend on the root file system, and of the whole disk they hold only its digest and size.
    let inputs = opened.inputs(&machines, &values::ORDERS);
    let firmware = || place.firmware(&machines, firmware, session);
    let program = || (Algorithm::Sha256.of(&opened.uki), is_beside(&opened.uki, place.folder.as_deref()));
    let (pass, (hashed, (uki, beside))) = rayon::join(
        || opened.disk.pass(&boot, &|bytes| stage.advance(bytes)),
        || rayon::join(|| values::hash(&inputs, firmware), program),
    );
    let (pass, hashed, beside) = (pass?, hashed?, beside?);
    stage.done(&amount::bytes(opened.disk.bytes()));
    let disk = Some(Digest::Sha256(pass.sha256.0));
    let computed = hashed.document(values::Files { uki, disk, disk_bytes: opened.disk.bytes() })?;
    let mut mismatches = of_root(&pass, &boot);
    if !beside {
        mismatches.push(Mismatch::of_all(
            "uki",
            file::UKI,
            "the program in the disk's system partition".to_owned(),
            "another file".to_owned(),
            "image.efi or the disk: one of them was changed",
        ));
    }
    mismatches.extend(values::compare(&document, &computed));
    Ok(Audit { document, computed, mismatches })
}

/// Whether the UKI file beside the disk, if there is one, equals the program in the disk.
fn is_beside(program: &[u8], folder: Option<&Path>) -> Result<bool, Error> {
    let Some(path) = folder.map(|folder| folder.join(file::UKI)) else { return Ok(true) };
    let compare = || -> io::Result<bool> {
        let mut beside = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            opened => opened?,
        };
        if beside.metadata()?.len() != program.len() as u64 {
            return Ok(false);
        }
        let mut piece = [0; 64 << 10];
        for expected in program.chunks(piece.len()) {
            let found = piece.get_mut(..expected.len()).unwrap_or_default();
            beside.read_exact(found)?;
            if found != expected {
                return Ok(false);
            }
        }
        Ok(true)
    };
    compare().map_err(|source| Error::Read { path: path.clone(), source })
}

fn of_root(pass: &Pass, boot: &Boot) -> Vec<Mismatch> {
    let mut all = Vec::new();
    let (expected, found) = (hex::encode(boot.root_hash.0), hex::encode(pass.root_hash));
    if expected != found {
        let points_to = "the root file system: its bytes are not those of the measured command line";
        all.push(Mismatch::of_all("root hash", "root file system", expected, found, points_to));
    } else if let StoredTree::Differs(at) = pass.tree {
        let expected = "the tree of the root file system".to_owned();
        let found = format!("other bytes from {at:#x} of its partition on");
        all.push(Mismatch::of_all("root hash", "hash tree", expected, found, "the partition root-verity"));
    }
    all
}
