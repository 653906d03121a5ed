//! `proofmark build`: builds the image of a recipe.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use ovmf_measure::digest::Digest;
use proofmark::amount;
use proofmark::assemble::{self, Assembled, IdChoice};
use proofmark::claim::file;
use proofmark::claim::manifest::{Manifest, Output};
use proofmark::claim::reference;
use proofmark::claim::sbom::{cyclonedx, spdx};
use proofmark::host::disk_file::DiskFile;
use proofmark::host::fetch::Fetcher;
use proofmark::host::firmware::{self, Derived};
use proofmark::host::material::Material;
use proofmark::host::output;
use proofmark::host::outputs::Outputs;
use proofmark::host::store::Store;
use proofmark::image::sign::Signer;
use proofmark::lock::Lock;
use proofmark::pipeline;
use proofmark::recipe::{EntryKind, Profile, Recipe, Source as RecipeSource};
use rayon::prelude::*;
use rootfs::content::Sha256Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cli::{Format, Session};
use crate::failure;

/// Which recipe, which profile, and where to.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the recipe.
    #[arg(default_value = ".")]
    recipe: PathBuf,
    /// Which of the recipe's two images: debug has a login, and verifiers refuse it.
    #[arg(long, value_enum, default_value_t = ProfileChoice::Release)]
    profile: ProfileChoice,
    /// Folder to write the outputs into [default: out/NAME-VERSION, with -debug for that profile].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Ignore everything that was derived before; only fetched files are used.
    #[arg(long)]
    fresh: bool,
    /// Sign the UKI for Secure Boot with this key (PKCS #8, PEM or DER). It changes the measurement.
    #[arg(long, value_name = "FILE", requires = "secure_boot_certificate")]
    secure_boot_key: Option<PathBuf>,
    /// The certificate of that key (X.509, PEM or DER).
    #[arg(long, value_name = "FILE", requires = "secure_boot_key")]
    secure_boot_certificate: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ProfileChoice {
    Release,
    Debug,
}

impl Arguments {
    /// The arguments of a build of an image that was built before, from fetched files only.
    pub fn again(recipe: &Path, profile: Profile, out: &Path) -> Self {
        Arguments {
            recipe: recipe.to_owned(),
            profile: match profile {
                Profile::Release => ProfileChoice::Release,
                Profile::Debug => ProfileChoice::Debug,
            },
            out: Some(out.to_owned()),
            fresh: true,
            secure_boot_key: None,
            secure_boot_certificate: None,
        }
    }
}

/// An image that lies in its folder now.
pub struct Done {
    /// What it is.
    pub manifest: Manifest,
    target: PathBuf,
    took: Duration,
    /// `built`, or `nothing changed`.
    what: &'static str,
}

/// Builds, and says what came of it.
pub fn run(arguments: &Arguments, session: &Session) -> anyhow::Result<ExitCode> {
    tell(&make(arguments, session)?, session)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds.
pub fn make(arguments: &Arguments, session: &Session) -> anyhow::Result<Done> {
    let started = Instant::now();
    let loaded = super::load(&arguments.recipe)?;
    let profile = match arguments.profile {
        ProfileChoice::Release => Profile::Release,
        ProfileChoice::Debug => Profile::Debug,
    };
    let recipe = loaded.recipe(profile)?;
    let (lock_text, lock) = loaded.lock()?;
    let signer = signer(arguments)?;
    let target = arguments.out.clone().unwrap_or_else(|| Path::new("out").join(folder_name(recipe)));
    let key = inputs_key(recipe, &lock_text, signer.as_ref())?;
    if !arguments.fresh
        && let Some(manifest) = unchanged(&session.store, &target, &key)
    {
        return Ok(Done { manifest, target, took: started.elapsed(), what: "nothing changed" });
    }

    // Before anything is fetched or made: is there a place to put it?
    let folder = Outputs::begin(&target)?;
    let fetcher = Fetcher::new(&session.store, &session.mirrors, session.network);
    let blobs = lock.blobs(&[profile]);
    fetcher.ensure(&blobs, session.progress)?;

    let stage = session.progress.stage("assemble", blobs.iter().map(|blob| blob.size).sum());
    let derived = if arguments.fresh { Derived::Ignored } else { Derived::Taken };
    let material = Material::new(&session.store, derived, &stage);
    let (assembled, firmware) = rayon::join(
        || assemble::assemble(recipe, &lock, IdChoice::Pinned(&lock.ids), &material),
        || firmware_of(recipe, &lock, session, derived),
    );
    // The process ends after this: its memory goes faster as a whole than file by file.
    let (assembled, firmware) = (ManuallyDrop::new(assembled?), firmware?);
    let (found, all) = material.found();
    stage.done(&format!("{} paths, {found} of {all} archives from the cache", assembled.tree.len()));
    for remark in &assembled.remarks {
        session.progress.note(&format!("remark: {remark}"));
    }
    super::validate::configurations(recipe, &lock, &assembled.tree, session)?;

    let stage = session.progress.stage("write disk", 0);
    let mut file = DiskFile::create(&folder.path().join(file::DISK)).context("cannot write disk.raw")?;
    let told = |bytes| stage.advance(bytes);
    let lock_sha256 = Sha256Digest::of(lock_text.as_bytes());
    let (image, checked) = rayon::join(
        || pipeline::image(recipe, &lock, lock_sha256, &assembled, signer.as_ref(), &mut file, &told),
        || assemble::check_libraries(recipe, &assembled.tree),
    );
    // What is lacking is told when it is locked, and refused here.
    checked?;
    let image = image?;
    let inputs = reference::Inputs {
        image: reference::image_of(&recipe.name, &recipe.version, recipe.profile),
        uki: &image.uki,
        disk_head: &image.head,
        machines: &recipe.measure.machines,
        orders: &reference::ORDERS,
    };
    // The file system takes its time to write what it was given: everything else is made and written meanwhile.
    let unwritable = || format!("cannot write {}", target.display());
    let (finished, beside) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let beside = Beside::make(recipe, &lock, &assembled, &image, &inputs, firmware)?;
            let files = [
                (file::UKI, &*image.uki),
                (file::CONTENTS, beside.contents.as_bytes()),
                (file::CYCLONEDX, beside.cyclonedx.as_bytes()),
                (file::SPDX, beside.spdx.as_bytes()),
                (file::LOCK, lock_text.as_bytes()),
            ];
            let written = write_synced(folder.path(), &files).with_context(unwritable)?;
            anyhow::Ok((beside, written))
        });
        (file.finish(), beside.join())
    });
    let (bytes, sha256) = finished.context("cannot write disk.raw")?;
    let (beside, written) = match beside {
        Ok(beside) => beside?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    stage.done(&format!("{}; {}", amount::bytes(bytes), beside.took()));

    let mut manifest = image.manifest.clone();
    let mut list = |name: &str, size, sha256: Sha256Digest| {
        manifest.outputs.insert(name.to_owned(), Output { size, sha256: sha256.to_string() });
    };
    list(file::DISK, bytes, sha256);
    written.iter().for_each(|file| list(file.name, file.size, file.sha256));
    let uki = written.iter().find(|file| file.name == file::UKI).context("the UKI was not written")?;
    let files = reference::Files {
        uki: Digest::Sha256(uki.sha256.0),
        disk: Some(Digest::Sha256(sha256.0)),
        disk_bytes: bytes,
    };
    let values = beside.values.as_ref().map(|hashed| hashed.document(files)).transpose()?;
    let values = values.as_ref().map(reference::to_text);
    let mut last = Vec::new();
    if let Some(text) = &values {
        list(file::VALUES, text.len() as u64, Sha256Digest::of(text.as_bytes()));
        last.push((file::VALUES, text.as_bytes()));
    }
    let text = manifest.to_text();
    last.push((file::MANIFEST, text.as_bytes()));
    write_synced(folder.path(), &last).with_context(unwritable)?;
    folder.finish()?;
    remember(&session.store, &target, &key);
    Ok(Done { manifest, target, took: started.elapsed(), what: "built" })
}

/// The firmware that the reference values of QEMU's machines need.
fn firmware_of(
    recipe: &Recipe,
    lock: &Lock,
    session: &Session,
    derived: Derived,
) -> anyhow::Result<Option<reference::Firmware>> {
    let needed = recipe.measure.machines.iter().any(|(name, _)| name.is_qemu());
    Ok(if needed { Some(firmware::locked(&session.store, lock, derived)?) } else { None })
}

/// What is made of an image while its disk is being written.
struct Beside<'a> {
    contents: String,
    cyclonedx: String,
    spdx: String,
    /// The reference values but for the disk's digest; none when the recipe lists no machine.
    values: Option<reference::Hashed<'a>>,
    sbom_took: Duration,
    measure_took: Duration,
}

impl<'a> Beside<'a> {
    fn make(
        recipe: &Recipe,
        lock: &Lock,
        assembled: &Assembled,
        image: &pipeline::Image,
        inputs: &'a reference::Inputs<'a>,
        firmware: Option<reference::Firmware>,
    ) -> anyhow::Result<Self> {
        let sbom = || {
            let started = Instant::now();
            let bom =
                pipeline::bom(recipe, lock, assembled, image).context("cannot make the bill of materials")?;
            let texts = rayon::join(|| cyclonedx::document(&bom), || spdx::document(&bom));
            anyhow::Ok((texts, started.elapsed()))
        };
        let values = || {
            let started = Instant::now();
            let firmware = || anyhow::Ok(firmware);
            let some = !inputs.machines.is_empty();
            let values = some.then(|| reference::hash(inputs, firmware)).transpose()?;
            anyhow::Ok((values, started.elapsed()))
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

fn folder_name(recipe: &Recipe) -> String {
    let suffix = if recipe.profile == Profile::Debug { "-debug" } else { "" };
    format!("{}-{}{suffix}", recipe.name, recipe.version)
}

fn signer(arguments: &Arguments) -> anyhow::Result<Option<Signer>> {
    let (Some(key), Some(certificate)) = (&arguments.secure_boot_key, &arguments.secure_boot_certificate)
    else {
        return Ok(None);
    };
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let signer = Signer::new(&read(key)?, &read(certificate)?);
    Ok(Some(signer.with_context(|| format!("cannot sign with {}", key.display()))?))
}

/// A file of the image's folder that is on the disk.
struct Written {
    name: &'static str,
    size: u64,
    sha256: Sha256Digest,
}

/// Writes files into a folder, and waits until all are on the disk: all are given to the file system before the first is
/// waited for.
fn write_synced(folder: &Path, files: &[(&'static str, &[u8])]) -> io::Result<Vec<Written>> {
    use std::io::Write;
    let write = |&(name, bytes): &(&'static str, &[u8])| {
        let mut file = fs::File::create_new(folder.join(name))?;
        file.write_all(bytes)?;
        Ok((file, Written { name, size: bytes.len() as u64, sha256: Sha256Digest::of(bytes) }))
    };
    let all: Vec<(fs::File, Written)> =
        files.par_iter().with_max_len(1).map(write).collect::<io::Result<_>>()?;
    all.iter().try_for_each(|(file, _)| file.sync_all())?;
    Ok(all.into_iter().map(|(_, written)| written).collect())
}

/// What was built where, so that an unchanged image is not built again.
#[derive(Serialize, Deserialize)]
struct Built {
    inputs: String,
    files: BTreeMap<String, Stat>,
}

/// How the file system describes a file: whoever changes one changes this.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Stat {
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

const OUTPUTS: [&str; 7] =
    [file::CONTENTS, file::DISK, file::UKI, file::MANIFEST, file::LOCK, file::CYCLONEDX, file::SPDX];

fn stat(path: &Path) -> io::Result<Stat> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path)?;
    Ok(Stat {
        size: metadata.size(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn stats(target: &Path) -> io::Result<BTreeMap<String, Stat>> {
    let reference = target.join(file::VALUES).exists().then_some(file::VALUES);
    OUTPUTS.iter().chain(&reference).map(|name| Ok(((*name).to_owned(), stat(&target.join(name))?))).collect()
}

fn place_key(target: &Path) -> io::Result<Sha256Digest> {
    Ok(Sha256Digest::of(format!("built\n{}", std::path::absolute(target)?.display()).as_bytes()))
}

/// Digest of everything that decides what is built: recipe and its files, lock, certificate, and this program.
fn inputs_key(recipe: &Recipe, lock: &str, signer: Option<&Signer>) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    let program = stat(&std::env::current_exe()?)?;
    hasher.update(serde_json::to_vec(&program)?);
    hasher.update(format!("{recipe:?}\0"));
    hasher.update(Sha256::digest(lock));
    hasher.update(signer.map(Signer::certificate_sha256).unwrap_or_default());
    for (path, entry) in &recipe.entries {
        if let EntryKind::File { content: RecipeSource::Path(file), .. } = &entry.kind {
            let bytes = fs::read(file).map_err(|source| {
                let message = format!("{}: cannot read {}: {source}", entry.place, file.display());
                failure::hinted(
                    message,
                    format!("{path} shall come from it: add the file or take the entry away"),
                )
            })?;
            hasher.update(Sha256::digest(bytes));
        }
    }
    Ok(hex::encode(hasher.finalize()))
}

/// The manifest of what lies in `target`, when it was built from these inputs and nobody touched it since.
fn unchanged(store: &Store, target: &Path, inputs: &str) -> Option<Manifest> {
    let built: Built = serde_json::from_slice(&store.derived("built", &place_key(target).ok()?)?).ok()?;
    if built.inputs != inputs || stats(target).ok()? != built.files {
        return None;
    }
    serde_json::from_slice(&fs::read(target.join(file::MANIFEST)).ok()?).ok()
}

fn remember(store: &Store, target: &Path, inputs: &str) {
    let (Ok(key), Ok(files)) = (place_key(target), stats(target)) else { return };
    if let Ok(bytes) = serde_json::to_vec(&Built { inputs: inputs.to_owned(), files }) {
        store.keep_derived("built", &key, &bytes);
    }
}

fn tell(done: &Done, session: &Session) -> io::Result<()> {
    let Done { manifest, target, took, what } = done;
    let took = took.as_secs_f64();
    if session.format == Format::Json {
        return output::print(&manifest.to_text());
    }
    let Manifest { name, version, profile, .. } = manifest;
    let mut text = format!("{name} {version} ({}): {what} in {took:.2} s\n", profile.name());
    let mut line = |what: &str, value: &str| text.push_str(&format!("  {what:<21}  {value}\n"));
    line("folder", &target.display().to_string());
    for (name, output) in &manifest.outputs {
        line(name, &format!("{:>10}  sha256 {}", amount::bytes(output.size), output.sha256));
    }
    line("root hash", &manifest.verity.root_hash);
    line("kernel", &manifest.kernel.release);
    line("inputs", &manifest.inputs.len().to_string());
    if *profile == Profile::Debug {
        text.push_str("  This is the debug image: it has a login. Give it no secret.\n");
    }
    output::print(&text)
}
