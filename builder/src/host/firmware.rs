//! Yields the firmware of QEMU machines, and its profile, from a lock or a file.
//!
//! # Shape
//! ```text
//! lock ─> package in the store ─> one file of it ─> image        kept in the store, by package digest
//! image ─> known ? its profile : unpack it, a third of a second  kept in the store, by image digest
//! ```
//!
//! # Not here
//! What follows from it: `claim::reference`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use ovmf_measure::digest::Digest;
use ovmf_measure::known::{FIRMWARE, FirmwareFile, KnownFirmware};
use ovmf_measure::volume::{self, Profile};
use rootfs::content::{Blob, Sha256Digest};
use rootfs::deb;
use rootfs::path::TreePath;

use super::pages::Pages;
use super::store::{self, Store};
use crate::claim::reference::Firmware;
use crate::lock::Lock;

/// Single-file firmware images in Debian's packages: `ovmf` and `ovmf-generic`, `ovmf-inteltdx`.
const FILES: [&str; 2] = ["usr/share/ovmf/OVMF.fd", "usr/share/ovmf/OVMF.inteltdx.ms.fd"];

/// Why firmware is not available.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock has no firmware.
    #[error("the lock names no firmware, which QEMU machines need")]
    NotLocked,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The package cannot be read.
    #[error("cannot read {label}")]
    Deb {
        /// Name and version.
        label: String,
        /// Why.
        source: deb::Error,
    },
    /// The package has no single-file firmware image.
    #[error("{label} has none of the files {}", FILES.join(", "))]
    NoFile {
        /// Name and version.
        label: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds only part of an image, or the variables are another build's.
    #[error("cannot use {} as firmware", path.display())]
    Part {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ovmf_measure::firmware::Error,
    },
    /// The image is not in a known format.
    #[error("cannot read the volumes of {label}")]
    Volume {
        /// Where it comes from.
        label: String,
        /// Why.
        source: volume::Error,
    },
    /// The program's built-in list of known firmware is damaged.
    #[error("cannot read the list of known firmware")]
    Known(#[source] toml::de::Error),
}

/// Whether derived data in the store may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derived {
    /// It may.
    Taken,
    /// Everything is derived again.
    Ignored,
}

/// Loads the firmware that a lock names.
///
/// # Errors
/// [`Error`].
pub fn locked(store: &Store, lock: &Lock, derived: Derived) -> Result<Firmware, Error> {
    let deb = lock.firmware.as_ref().ok_or(Error::NotLocked)?;
    let blob = lock.blob_of_deb(deb).ok_or(Error::NotLocked)?;
    let key = blob.sha256;
    let label = format!("{} {}", deb.name, deb.version);
    let kept = (derived == Derived::Taken).then(|| kept(store, &key)).flatten();
    let (image, sha256) = match kept {
        Some(kept) => kept,
        None => {
            let bytes = store.read(&blob.sha256, &blob.label)?;
            let unreadable = |source| Error::Deb { label: label.clone(), source };
            let mut image = None;
            for path in FILES {
                let path = TreePath::new(path).map_err(|source| unreadable(source.into()))?;
                image = image.or(deb::file(&bytes, &path).map_err(unreadable)?);
            }
            let image = image.ok_or_else(|| Error::NoFile { label: label.clone() })?;
            let sha256 = Sha256Digest::of(&image);
            let kept = [&sha256.0[..], &image].concat();
            store.keep_derived("firmware", &key, &kept);
            (Blob::new(image), sha256)
        }
    };
    described(store, image, sha256, label)
}

/// Looks up derived data; it is trusted by its own digest, which precedes it.
fn kept(store: &Store, key: &Sha256Digest) -> Option<(Blob, Sha256Digest)> {
    let kept = Blob::new(store.derived("firmware", key)?);
    let (digest, image) = (kept.get(..32)?, kept.slice(32..kept.len())?);
    let sha256 = Sha256Digest::of(&image);
    (sha256.0 == digest).then_some((image, sha256))
}

/// Loads firmware from a file: variables and code, or code whose variables are in another file.
///
/// # Errors
/// [`Error`].
pub fn given(store: &Store, path: &Path, variables: Option<&Path>) -> Result<Firmware, Error> {
    let read =
        |path: &Path| Pages::read(path).map_err(|source| Error::Read { path: path.to_owned(), source });
    let variables = variables.map(read).transpose()?;
    let file = read(path)?;
    let joined = ovmf_measure::firmware::Firmware::joined(&file, variables.as_deref())
        .map_err(|source| Error::Part { path: path.to_owned(), source })?;
    let image = match joined {
        Cow::Owned(image) => Blob::new(image),
        Cow::Borrowed(_) => Blob::new(file),
    };
    let sha256 = Sha256Digest::of(&image);
    described(store, image, sha256, path.display().to_string())
}

fn described(store: &Store, image: Blob, sha256: Sha256Digest, label: String) -> Result<Firmware, Error> {
    let known: FirmwareFile = toml::from_str(FIRMWARE).map_err(Error::Known)?;
    let known = known.find(&Digest::Sha256(sha256.0)).cloned();
    let pei = known.iter().flat_map(|known| &known.pei).map(|seen| seen.digest).collect();
    let profile = match known {
        Some(KnownFirmware { profile, .. }) => profile,
        None => {
            let kept = store.derived("firmware-profile", &sha256);
            let kept = kept.and_then(|bytes| serde_json::from_slice::<Profile>(&bytes).ok());
            match kept.filter(|profile| profile.firmware == Digest::Sha256(sha256.0)) {
                Some(profile) => profile,
                None => {
                    let profile = Profile::read(&image).map_err(|source| Error::Volume { label, source })?;
                    let bytes = serde_json::to_vec(&profile).unwrap_or_default();
                    store.keep_derived("firmware-profile", &sha256, &bytes);
                    profile
                }
            }
        }
    };
    Ok(Firmware { image, profile, pei })
}
