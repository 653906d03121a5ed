//! Yields a verdict on an image, from the bundles published beside it and a policy.
//!
//! # Shape
//! ```text
//! policy*, image*, bundles* ─ verdict::judge ─> verdict
//!                                └─ recompute*: the reference values that the image gives     (* = an effect)
//! ```
//! Only local files are judged: nothing is fetched.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use ovmf_measure::digest::Algorithm;
use ovmf_measure::reference::Reference;
use serde_json::Value;

use super::measure::{self, FirmwareFiles, Opened, Place, hashed};
use crate::advice::{Advice, Advised};
use crate::claim::provenance::image_verdict::{self as verdict, Image, Recompute, Verdict};
use crate::claim::reference::{Files, Hashed, ORDERS};
use crate::host::built::{self, Built};
use crate::host::fetch::Network;
use crate::host::{chain, small_file};
use crate::session::Session;
use crate::trust::image_policy::{self, Policy};

/// Why no verdict was reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A policy or a bundle cannot be read.
    #[error(transparent)]
    File(#[from] small_file::Error),
    /// The policy is not UTF-8.
    #[error("{} is not text", path.display())]
    Text {
        /// The policy.
        path: PathBuf,
        /// Why.
        source: FromUtf8Error,
    },
    /// The policy is invalid.
    #[error("cannot use {}", path.display())]
    Policy {
        /// The policy.
        path: PathBuf,
        /// Why.
        source: image_policy::Error,
    },
    /// The image cannot be opened.
    #[error(transparent)]
    Built(#[from] built::Error),
    /// The image's folder cannot be read.
    #[error("cannot read {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Built(inner) => inner.advice(),
            Error::Policy { .. } => Some(Advice::failed("see the section Policy of docs/provenance.md")),
            _ => None,
        }
    }
}

/// The result of a verification.
#[derive(Debug)]
pub enum Answer {
    /// The bundles were judged.
    Judged(Verdict),
    /// A file does not match the manifest, with the reason.
    Changed(String),
}

/// Makes a session when one is needed, or says for people why not.
pub type MakeSession<'a> = &'a dyn Fn() -> Result<Session, String>;

/// Judges the image in a folder by a policy.
///
/// # Errors
/// [`Error`] when something cannot be read.
pub fn verify(
    folder: &Path,
    policy: &Path,
    firmware: FirmwareFiles<'_>,
    session: MakeSession<'_>,
    now: u64,
) -> Result<Answer, Error> {
    let policy = read_policy(policy)?;
    let opened = Built::open(folder).and_then(|built| built.check_outputs().map(|absent| (built, absent)));
    let (built, absent) = match opened {
        Ok(opened) => opened,
        // A file that does not match the manifest is an answer; one that cannot be read is not.
        Err(error @ built::Error::Other { .. }) => return Ok(Answer::Changed(chain(&error))),
        Err(error) => return Err(error.into()),
    };
    let cannot = |source| Error::Folder { folder: folder.to_owned(), source };
    let mut bundles = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.ends_with(".sigstore.json") {
            bundles.insert(name, small_file::read(&path)?);
        }
    }
    let manifest_sha256 = built.manifest_sha256.to_string();
    let image = Image { manifest: &built.manifest, manifest_sha256, absent };
    let values = FromImage { folder, firmware, session };
    Ok(Answer::Judged(verdict::judge(&policy, &image, &bundles, &values, now)))
}

/// Reads a policy and the files that it names, relative to its folder.
fn read_policy(path: &Path) -> Result<Policy, Error> {
    let text = String::from_utf8(small_file::read(path)?)
        .map_err(|source| Error::Text { path: path.to_owned(), source })?;
    let beside = path.parent().unwrap_or(Path::new(""));
    Policy::parse(&text, &|name| std::fs::read(beside.join(name)))
        .map_err(|source| Error::Policy { path: path.to_owned(), source })
}

/// Computes the reference values of the image in a folder.
struct FromImage<'a> {
    folder: &'a Path,
    firmware: FirmwareFiles<'a>,
    session: MakeSession<'a>,
}

impl FromImage<'_> {
    fn values(&self, signed: &Reference, session: &Session) -> Result<Reference, measure::Error> {
        let place = Place::find(self.folder)?;
        let machines = measure::machines(signed)?;
        let (given, machines) = (self.firmware, &machines);
        let firmware = || place.firmware(machines, given, session);
        let document = |opened: &Opened, hashed: &Hashed<'_>| {
            Ok(hashed.document(Files {
                uki: Algorithm::Sha256.of(&opened.uki),
                disk: place.disk_digest()?,
                disk_bytes: opened.disk.bytes(),
            })?)
        };
        hashed(&place, machines, &ORDERS, firmware, document)
    }
}

impl Recompute for FromImage<'_> {
    fn recompute(&self, signed: &Value) -> Result<Value, String> {
        let signed: Reference = serde_json::from_value(signed.clone())
            .map_err(|error| format!("the signed document is malformed: {error}"))?;
        let session = Session { network: Network::Offline, ..(self.session)()? };
        let values = self.values(&signed, &session).map_err(|error| match error {
            measure::Error::Fetch(_) => format!(
                "firmware is needed: name it with --firmware FILE, or fetch it with `proofmark fetch`: {}",
                chain(&error)
            ),
            error => chain(&error),
        })?;
        serde_json::to_value(values).map_err(|error| error.to_string())
    }
}
