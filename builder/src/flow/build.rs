//! Yields an image in its folder, built from a recipe and its lock.
//!
//! # Shape
//! ```text
//! unchanged*? ─> done
//! fetch* ─> assemble ─> configurations* ─> pipeline::image ─> disk.raw*
//!              firmware* ─┘                   ├─ contents, SBOMs, reference values ─> files*
//!                                             └─ manifest ─> folder*                             (* = an effect)
//! ```
//!
//! # Not here
//! How an image is made: `pipeline`.

use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ovmf_measure::digest::Digest;
use rootfs::content::Sha256Digest;

use crate::advice::{Advice, Advised};
use crate::amount;
use crate::assemble::{self, Assembled, IdChoice};
use crate::claim::file;
use crate::claim::manifest::{Manifest, Output};
use crate::claim::reference::{self, Firmware, Hashed};
use crate::claim::sbom::{self, cyclonedx, spdx};
use crate::host::disk_file::DiskFile;
use crate::host::firmware::{self, Derived};
use crate::host::material::Material;
use crate::host::outputs::{self, Outputs, Written};
use crate::host::recipe_folder::{self, RecipeFolder};
use crate::host::{configuration, earlier_build, fetch};
use crate::image::sign::Signer;
use crate::lock::Lock;
use crate::pipeline::{self, Image};
use crate::recipe::{Profile, Recipe};
use crate::session::Session;

/// Why no image was built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe or its lock cannot be loaded.
    #[error(transparent)]
    Recipe(#[from] recipe_folder::Error),
    /// It cannot be determined whether anything changed.
    #[error(transparent)]
    Earlier(#[from] earlier_build::Error),
    /// The image's folder cannot be used.
    #[error(transparent)]
    Outputs(#[from] outputs::Error),
    /// An input cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The inputs do not make a tree.
    #[error(transparent)]
    Assemble(#[from] assemble::Error),
    /// There is no firmware to compute the reference values from.
    #[error(transparent)]
    Firmware(#[from] firmware::Error),
    /// An application rejects its configuration.
    #[error(transparent)]
    Configuration(#[from] configuration::Error),
    /// The tree does not make an image.
    #[error(transparent)]
    Image(#[from] pipeline::Error),
    /// The disk cannot be written.
    #[error("cannot write disk.raw")]
    Disk(#[source] io::Error),
    /// The files beside the disk cannot be written.
    #[error("cannot write {}", folder.display())]
    Write {
        /// The image's folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bill of materials cannot be made.
    #[error("cannot make the bill of materials")]
    Sbom(#[source] sbom::Error),
    /// The reference values cannot be computed.
    #[error(transparent)]
    Reference(#[from] reference::Error),
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Recipe(inner) => inner.advice(),
            Error::Earlier(inner) => inner.advice(),
            Error::Outputs(inner) => inner.advice(),
            Error::Fetch(inner) => inner.advice(),
            Error::Assemble(inner) => inner.advice(),
            Error::Configuration(inner) => inner.advice(),
            _ => None,
        }
    }
}

/// What to build, from what, and where.
pub struct Request<'a> {
    /// The recipe and its lock.
    pub folder: &'a RecipeFolder,
    /// Which of the recipe's two images.
    pub profile: Profile,
    /// Signs the UKI for Secure Boot.
    pub signer: Option<&'a Signer>,
    /// The image's folder.
    pub target: &'a Path,
    /// Whether to reuse what was derived before, including an unchanged image.
    pub derived: Derived,
}

/// The result of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The image was built.
    Built,
    /// The image is already there, built from the same inputs.
    Unchanged,
}

/// Builds an image.
///
/// # Errors
/// [`Error`] of the first stage that fails; the image's folder keeps what it held.
pub fn build(request: &Request<'_>, session: &Session) -> Result<(Manifest, Outcome), Error> {
    let recipe = request.folder.recipe(request.profile)?;
    let (lock_text, lock) = request.folder.lock()?;
    let key = earlier_build::inputs_key(recipe, &lock_text, request.signer)?;
    if request.derived == Derived::Taken
        && let Some(manifest) = earlier_build::unchanged(&session.store, request.target, &key)
    {
        return Ok((manifest, Outcome::Unchanged));
    }
    // Find out first whether the image has a place, before anything is fetched or made.
    let folder = Outputs::begin(request.target)?;
    let build = Build { request, session, recipe, lock: &lock, lock_text: &lock_text, folder: &folder };
    let (assembled, firmware) = build.assembled()?;
    configuration::check_all(recipe, &lock, &assembled.tree, &session.store, session.progress)?;
    let manifest = build.written(&assembled, firmware)?;
    folder.finish()?;
    earlier_build::remember(&session.store, request.target, &key);
    Ok((manifest, Outcome::Built))
}

/// A running build: what all its stages read.
struct Build<'a> {
    request: &'a Request<'a>,
    session: &'a Session,
    recipe: &'a Recipe,
    lock: &'a Lock,
    lock_text: &'a str,
    folder: &'a Outputs,
}

impl Build<'_> {
    /// Fetches what the lock names, and assembles the tree while the firmware is read.
    ///
    /// The process ends after a build, and the kernel frees its memory faster as a whole than file by file.
    fn assembled(&self) -> Result<(ManuallyDrop<Assembled>, Option<Firmware>), Error> {
        let Build { recipe, lock, session, .. } = *self;
        let derived = self.request.derived;
        let blobs = lock.blobs(&[self.request.profile]);
        session.fetcher().ensure(&blobs, session.progress)?;
        let stage = session.progress.stage("assemble", blobs.iter().map(|blob| blob.size).sum());
        let material = Material::new(&session.store, derived, &stage);
        let (assembled, firmware) = rayon::join(
            || assemble::assemble(recipe, lock, IdChoice::Pinned(&lock.ids), &material),
            || -> Result<Option<Firmware>, Error> {
                let needed = recipe.measure.machines.iter().any(|(name, _)| name.is_qemu());
                Ok(if needed { Some(firmware::locked(&session.store, lock, derived)?) } else { None })
            },
        );
        let (assembled, firmware) = (ManuallyDrop::new(assembled?), firmware?);
        let (found, all) = material.found();
        stage.done(&format!("{} paths, {found} of {all} archives from the cache", assembled.tree.len()));
        for remark in &assembled.remarks {
            session.progress.note(&format!("remark: {remark}"));
        }
        Ok((assembled, firmware))
    }

    /// Makes the image and writes everything into its folder, with the manifest last.
    fn written(&self, assembled: &Assembled, firmware: Option<Firmware>) -> Result<Manifest, Error> {
        let stage = self.session.progress.stage("write disk", 0);
        let mut file = DiskFile::create(&self.folder.path().join(file::DISK)).map_err(Error::Disk)?;
        let image = self.image(assembled, &mut file, &|bytes| stage.advance(bytes))?;
        let inputs = reference::Inputs {
            image: reference::image_of(&self.recipe.name, &self.recipe.version, self.recipe.profile),
            uki: &image.uki,
            disk_head: &image.head,
            machines: &self.recipe.measure.machines,
            orders: &reference::ORDERS,
        };
        // The file system needs time to write the disk; everything else is made and written meanwhile.
        let (finished, beside) = std::thread::scope(|scope| {
            let beside = scope.spawn(|| self.beside(assembled, &image, &inputs, firmware));
            (file.finish(), beside.join())
        });
        let (bytes, sha256) = finished.map_err(Error::Disk)?;
        let (beside, written) = match beside {
            Ok(beside) => beside?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        stage.done(&format!("{}; {}", amount::bytes(bytes), beside.took()));
        self.last(&image, &Written { name: file::DISK, size: bytes, sha256 }, &beside, &written)
    }

    /// Makes the image and writes its disk, while its libraries are checked.
    fn image(
        &self,
        assembled: &Assembled,
        file: &mut DiskFile,
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<Image, Error> {
        let lock_sha256 = Sha256Digest::of(self.lock_text.as_bytes());
        let (image, checked) = rayon::join(
            || {
                let signer = self.request.signer;
                pipeline::image(self.recipe, self.lock, lock_sha256, assembled, signer, file, &|bytes| {
                    told(bytes)
                })
            },
            || assemble::check_libraries(self.recipe, &assembled.tree),
        );
        // `lock` only reports missing libraries; here they are an error.
        checked?;
        Ok(image?)
    }

    /// Makes the files beside the disk, and writes those that do not need its digest.
    fn beside<'a>(
        &self,
        assembled: &Assembled,
        image: &Image,
        inputs: &'a reference::Inputs<'a>,
        firmware: Option<Firmware>,
    ) -> Result<(Beside<'a>, Vec<Written>), Error> {
        let beside = Beside::make(self.recipe, self.lock, assembled, image, inputs, firmware)?;
        let files = [
            (file::UKI, &*image.uki),
            (file::CONTENTS, beside.contents.as_bytes()),
            (file::CYCLONEDX, beside.cyclonedx.as_bytes()),
            (file::SPDX, beside.spdx.as_bytes()),
            (file::LOCK, self.lock_text.as_bytes()),
        ];
        let written = self.write(&files)?;
        Ok((beside, written))
    }

    /// Writes the reference values, which name the disk, and the manifest, which names every file.
    fn last(
        &self,
        image: &Image,
        disk: &Written,
        beside: &Beside<'_>,
        written: &[Written],
    ) -> Result<Manifest, Error> {
        let uki = written.iter().find(|file| file.name == file::UKI);
        let uki = uki.map_or_else(|| Sha256Digest::of(&image.uki), |file| file.sha256);
        let files = reference::Files {
            uki: Digest::Sha256(uki.0),
            disk: Some(Digest::Sha256(disk.sha256.0)),
            disk_bytes: disk.size,
        };
        let values = beside.values.as_ref().map(|hashed| hashed.document(files)).transpose()?;
        let values = values.as_ref().map(reference::to_text);
        let values: Vec<_> = values.iter().map(|text| (file::VALUES, text.as_bytes())).collect();
        let listed: Vec<Written> = values.iter().map(|(name, bytes)| Written::of(name, bytes)).collect();
        let mut manifest = image.manifest.clone();
        for Written { name, size, sha256 } in written.iter().chain(&listed).chain([disk]) {
            let output = Output { size: *size, sha256: sha256.to_string() };
            manifest.outputs.insert((*name).to_owned(), output);
        }
        let text = manifest.to_text();
        let last: Vec<_> = values.into_iter().chain([(file::MANIFEST, text.as_bytes())]).collect();
        self.write(&last)?;
        Ok(manifest)
    }

    fn write(&self, files: &[(&'static str, &[u8])]) -> Result<Vec<Written>, Error> {
        let unwritable = |source| Error::Write { folder: self.request.target.to_owned(), source };
        self.folder.write(files).map_err(unwritable)
    }
}

/// The documents made from an image while its disk is being written.
struct Beside<'a> {
    contents: String,
    cyclonedx: String,
    spdx: String,
    /// The reference values without the disk's digest; `None` when the recipe lists no machine.
    values: Option<Hashed<'a>>,
    sbom_took: Duration,
    measure_took: Duration,
}

impl<'a> Beside<'a> {
    fn make(
        recipe: &Recipe,
        lock: &Lock,
        assembled: &Assembled,
        image: &Image,
        inputs: &'a reference::Inputs<'a>,
        firmware: Option<Firmware>,
    ) -> Result<Self, Error> {
        let sbom = || {
            let started = Instant::now();
            let bom = pipeline::bom(recipe, lock, assembled, image).map_err(Error::Sbom)?;
            let texts = rayon::join(|| cyclonedx::document(&bom), || spdx::document(&bom));
            Ok::<_, Error>((texts, started.elapsed()))
        };
        let values = || {
            let started = Instant::now();
            let firmware = || Ok::<_, Error>(firmware);
            let some = !inputs.machines.is_empty();
            let values = some.then(|| reference::hash(inputs, firmware)).transpose()?;
            Ok::<_, Error>((values, started.elapsed()))
        };
        let (sbom, (values, contents)) =
            rayon::join(sbom, || rayon::join(values, || image.contents.to_text()));
        let (((cyclonedx, spdx), sbom_took), (values, measure_took)) = (sbom?, values?);
        Ok(Beside { contents, cyclonedx, spdx, values, sbom_took, measure_took })
    }

    fn took(&self) -> String {
        let [sbom, measure] = [self.sbom_took, self.measure_took].map(|took| took.as_secs_f64() * 1000.0);
        format!("meanwhile SBOM {sbom:.0} ms, reference values {measure:.0} ms")
    }
}
