//! Yields the register values of machines that boot an image, from the bytes of its disk.
//!
//! # Shape
//! ```text
//! folder or disk ─ open* ─> disk's head, UKI ─┬─ hash ─> values of each machine
//! lock's or given firmware* ──────────────────┘                                  (* = an effect)
//! ```

use std::io;
use std::path::{Path, PathBuf};

use ovmf_measure::digest::{self, Digest};
use ovmf_measure::mrtd::Order;
use ovmf_measure::reference::{Image, Profile, Reference};
use ovmf_measure::shape::{self, Name, Shape};
use ovmf_measure::stub::{self, Uki};

use crate::advice::{Advice, Advised};
use crate::claim::file;
use crate::claim::manifest::Manifest;
use crate::claim::reference::{self as values, Firmware, Hashed};
use crate::host::fetch;
use crate::host::firmware::{self, Derived};
use crate::host::pages::Pages;
use crate::host::raw_disk::{self, RawDisk};
use crate::host::small_file;
use crate::lock::{self, Lock};
use crate::session::Session;

/// Why an image's values cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder has no disk.
    #[error("{} is not an image: there is no {}", path.display(), disk.display())]
    NoImage {
        /// The path that was given.
        path: PathBuf,
        /// The missing disk.
        disk: PathBuf,
    },
    /// The path is neither a folder nor a regular file.
    #[error("{} is neither an image's folder nor a disk image", path.display())]
    NoDisk {
        /// The path.
        path: PathBuf,
    },
    /// The disk cannot be read.
    #[error(transparent)]
    Disk(#[from] raw_disk::Error),
    /// The disk does not boot a UKI.
    #[error("the program that the disk boots is not a UKI")]
    Uki(#[from] stub::Error),
    /// There is neither firmware nor a lock.
    #[error("QEMU machines need firmware, and no lock names one")]
    NoLock,
    /// The lock names no firmware.
    #[error("{} names no firmware", lock.display())]
    NoFirmware {
        /// The lock.
        lock: PathBuf,
    },
    /// The lock names no archive of the firmware.
    #[error("the lock's firmware is not in any archive")]
    NoArchive,
    /// A document cannot be read, or is too long.
    #[error(transparent)]
    File(#[from] small_file::Error),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lock is invalid.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The firmware's package cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The firmware cannot be read.
    #[error(transparent)]
    Firmware(#[from] firmware::Error),
    /// The manifest's digest of the disk is malformed.
    #[error(transparent)]
    Digest(#[from] digest::NotADigest),
    /// A machine is unknown.
    #[error(transparent)]
    Machine(#[from] shape::Error),
    /// The values cannot be computed.
    #[error(transparent)]
    Values(#[from] values::Error),
    /// A document is malformed.
    #[error("cannot parse {}", path.display())]
    Document {
        /// The document.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::NoImage { .. } | Error::NoDisk { .. } => Some(Advice::failed(
                "name a folder that `proofmark build` wrote, such as out/minimal-1, or a raw disk",
            )),
            Error::NoLock | Error::NoFirmware { .. } => {
                Some(Advice::failed("name the firmware with --firmware FILE"))
            }
            Error::Lock(inner) => inner.advice(),
            Error::Fetch(inner) => inner.advice(),
            _ => None,
        }
    }
}

/// The firmware of a QEMU machine, where it differs from the one in the image's lock.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirmwareFiles<'a> {
    /// Variables and code in one file, or code alone.
    pub firmware: Option<&'a Path>,
    /// The variables, for firmware whose file holds code alone.
    pub variables: Option<&'a Path>,
}

/// Where an image's files are.
#[derive(Debug)]
pub struct Place {
    /// The image's folder; `None` for a raw disk.
    pub folder: Option<PathBuf>,
    disk: PathBuf,
}

/// An image, opened for measuring and auditing.
pub struct Opened {
    /// The disk.
    pub disk: RawDisk,
    /// The program that firmware starts.
    pub uki: Pages,
    /// The image's name, version and profile, as its os-release gives them.
    pub image: Image,
}

impl Place {
    /// Finds the files of an image's folder or of a raw disk.
    ///
    /// # Errors
    /// [`Error::NoImage`], [`Error::NoDisk`].
    pub fn find(path: &Path) -> Result<Self, Error> {
        let folder = path.is_dir().then(|| path.to_owned());
        let disk = match &folder {
            Some(folder) => folder.join(file::DISK),
            None => path.to_owned(),
        };
        match disk.is_file() {
            true => Ok(Place { folder, disk }),
            false if folder.is_none() && disk.exists() => Err(Error::NoDisk { path: disk }),
            false => Err(Error::NoImage { path: path.to_owned(), disk }),
        }
    }

    /// Reads the measured parts of an image.
    ///
    /// # Errors
    /// [`Error::Disk`], [`Error::Uki`].
    pub fn open(&self) -> Result<Opened, Error> {
        let disk = RawDisk::open(&self.disk)?;
        let uki = disk.boot_program()?;
        let read = Uki::read(&uki)?;
        let release = read.section(".osrel").map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned());
        let release = release.unwrap_or_default();
        let field = |name: &str| {
            let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().trim_matches('"').to_owned()
        };
        let image = Image {
            name: field("IMAGE_ID"),
            version: field("IMAGE_VERSION"),
            // An image is a release image only if it says so.
            profile: match field("PROOFMARK_PROFILE").as_str() {
                "release" => Profile::Release,
                _ => Profile::Debug,
            },
        };
        Ok(Opened { disk, uki, image })
    }

    /// The firmware, if one of the machines is QEMU's: the given file, or the one that the folder's lock names.
    ///
    /// # Errors
    /// [`Error`] when it is needed and cannot be read.
    pub fn firmware(
        &self,
        machines: &[(Name, Shape)],
        given: FirmwareFiles<'_>,
        session: &Session,
    ) -> Result<Option<Firmware>, Error> {
        if !machines.iter().any(|(name, _)| name.is_qemu()) {
            return Ok(None);
        }
        if let Some(path) = given.firmware {
            return Ok(Some(firmware::given(&session.store, path, given.variables)?));
        }
        let lock = self.folder.as_ref().map(|folder| folder.join(file::LOCK)).filter(|path| path.is_file());
        let path = lock.ok_or(Error::NoLock)?;
        let text =
            std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let lock = Lock::parse(&text, &path)?;
        let deb = lock.firmware.as_ref().ok_or(Error::NoFirmware { lock: path })?;
        let blob = lock.blob_of_deb(deb).ok_or(Error::NoArchive)?;
        session.fetcher().ensure(&[blob], session.progress)?;
        Ok(Some(firmware::locked(&session.store, &lock, Derived::Taken)?))
    }

    /// The disk's digest as the manifest gives it; `None` without a manifest.
    ///
    /// # Errors
    /// [`Error::Digest`].
    pub fn disk_digest(&self) -> Result<Option<Digest>, Error> {
        if let Some(folder) = &self.folder
            && let Ok(bytes) = std::fs::read(folder.join(file::MANIFEST))
            && let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes)
            && let Some(output) = manifest.outputs.get(file::DISK)
        {
            return Ok(Some(output.sha256.parse()?));
        }
        Ok(None)
    }
}

impl Opened {
    /// The inputs of the image's reference values.
    pub fn inputs<'a>(&'a self, machines: &'a [(Name, Shape)], orders: &'a [Order]) -> values::Inputs<'a> {
        let (image, disk_head) = (self.image.clone(), self.disk.head());
        values::Inputs { image, uki: &self.uki, disk_head, machines, orders }
    }
}

/// Opens and hashes an image for the given machines, while the firmware is looked up.
///
/// # Errors
/// [`Error`], including what `then` returns.
pub fn hashed<T>(
    place: &Place,
    machines: &[(Name, Shape)],
    orders: &[Order],
    firmware: impl FnOnce() -> Result<Option<Firmware>, Error> + Send,
    then: impl FnOnce(&Opened, &Hashed<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    std::thread::scope(|scope| {
        // Reading the lock and the firmware takes as long as reading the image.
        let firmware = scope.spawn(firmware);
        let firmware = || firmware.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let opened = place.open()?;
        then(&opened, &values::hash(&opened.inputs(machines, orders), firmware)?)
    })
}

/// The machines of a document, each once: a TPM has an entry for each bank.
///
/// # Errors
/// [`Error::Machine`].
pub fn machines(document: &Reference) -> Result<Vec<(Name, Shape)>, Error> {
    let mut all: Vec<(Name, Shape)> = Vec::new();
    for platform in &document.platforms {
        let name: Name = platform.name.parse()?;
        let machine = (name, Shape::from_words(name, &platform.shape)?);
        if !all.contains(&machine) {
            all.push(machine);
        }
    }
    Ok(all)
}

/// Reads a document of reference values.
///
/// # Errors
/// [`Error::File`], [`Error::Document`].
pub fn document(path: &Path) -> Result<Reference, Error> {
    let text = small_file::read(path)?;
    serde_json::from_slice(&text).map_err(|source| Error::Document { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_said_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let told = |path: &Path| Place::find(path).unwrap_err().to_string();
        let none = folder.path().join("none");
        assert_eq!(told(&none), format!("{0} is not an image: there is no {0}", none.display()));
        assert!(told(folder.path()).ends_with("/disk.raw"));
        assert_eq!(told(Path::new("/dev/null")), "/dev/null is neither an image's folder nor a disk image");
    }
}
