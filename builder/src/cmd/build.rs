//! `proofmark build`: builds the image of a recipe.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use proofmark::assemble::{self, Assembled, IdChoice, Source};
use proofmark::claim::manifest::{Manifest, Output};
use proofmark::claim::reference;
use proofmark::claim::sbom::{cyclonedx, spdx};
use proofmark::host::disk_file::DiskFile;
use proofmark::host::fetch::Fetcher;
use proofmark::host::files::NewFolder;
use proofmark::host::firmware;
use proofmark::host::progress::{Stage, size};
use proofmark::host::raw_disk::RawDisk;
use proofmark::host::store::{self, Store};
use proofmark::image::sign::Signer;
use proofmark::lock::{Blob, Lock};
use proofmark::pipeline;
use proofmark::recipe::{EntryKind, Profile, Recipe, Source as RecipeSource};
use rootfs::content::{self, Sha256Digest};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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

/// Builds.
pub fn run(arguments: &Arguments, session: &Session) -> anyhow::Result<ExitCode> {
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
        return done(&manifest, &target, started, "nothing changed", session);
    }

    let fetcher = Fetcher::new(&session.store, &session.mirrors, session.network);
    let blobs = lock.blobs(&[profile]);
    fetcher.ensure(&blobs, session.progress)?;

    // Before anything is made: is there a place to put it?
    let folder =
        NewFolder::begin(&target).map_err(|source| failure::Unwritable { target: target.clone(), source })?;
    let stage = session.progress.stage("assemble", blobs.iter().map(|blob| blob.size).sum());
    let source =
        BuildSource { store: &session.store, fresh: arguments.fresh, stage: &stage, kept: Mutex::default() };
    let assembled = assemble::assemble(recipe, &lock, IdChoice::Pinned(&lock.ids), &source)?;
    let kept = source.kept.lock().map_or(0, |kept| kept.len());
    stage.done(&format!("{} paths, {kept} of {} archives from the cache", assembled.tree.len(), blobs.len()));
    for remark in &assembled.remarks {
        session.progress.note(&format!("remark: {remark}"));
    }
    super::validate::configurations(recipe, &lock, &assembled.tree, session)?;

    let stage = session.progress.stage("write disk", 0);
    let lock_sha256 = Sha256Digest::of(lock_text.as_bytes());
    let (image, disk, sbom) =
        write_disk(recipe, &lock, lock_sha256, &assembled, signer.as_ref(), folder.path(), &stage)?;
    stage.done(&format!("{}, SBOM {:.0} ms", size(disk.size), sbom.took.as_secs_f64() * 1000.0));
    let mut manifest = image.manifest;
    manifest.outputs = BTreeMap::from([("disk.raw".to_owned(), disk)]);
    let contents = image.contents.to_text();
    for (name, bytes) in [
        ("image.efi", &*image.uki),
        ("contents.json", contents.as_bytes()),
        ("recipe.lock", lock_text.as_bytes()),
        ("sbom.cdx.json", sbom.cyclonedx.as_bytes()),
        ("sbom.spdx.json", sbom.spdx.as_bytes()),
    ] {
        let output = write_synced(&folder.path().join(name), bytes)
            .with_context(|| format!("cannot write {}", target.join(name).display()))?;
        manifest.outputs.insert(name.to_owned(), output);
    }
    if !recipe.measure.machines.is_empty() {
        let name = REFERENCE;
        let text = reference_values(recipe, &lock, &image.uki, &manifest, folder.path(), session)?;
        let output = write_synced(&folder.path().join(name), text.as_bytes())
            .with_context(|| format!("cannot write {}", target.join(name).display()))?;
        manifest.outputs.insert(name.to_owned(), output);
    }
    write_synced(&folder.path().join("manifest.json"), manifest.to_text().as_bytes())
        .with_context(|| format!("cannot write {}", target.join("manifest.json").display()))?;
    folder.finish().with_context(|| format!("cannot write {}", target.display()))?;
    remember(&session.store, &target, &key);
    done(&manifest, &target, started, "built", session)
}

/// The reference values of every machine that the recipe lists.
fn reference_values(
    recipe: &Recipe,
    lock: &Lock,
    uki: &[u8],
    manifest: &Manifest,
    folder: &Path,
    session: &Session,
) -> anyhow::Result<String> {
    let stage = session.progress.stage("measure", 0);
    let machines = &recipe.measure.machines;
    let firmware = match machines.iter().any(|(name, _)| name.is_qemu()) {
        true => Some(firmware::locked(&session.store, lock)?),
        false => None,
    };
    let disk = RawDisk::open(&folder.join("disk.raw"))?;
    let whole = manifest.outputs.get("disk.raw").context("the manifest names no disk")?;
    let sha256 = whole.sha256.parse().context("the disk's digest")?;
    let inputs = reference::Inputs {
        image: reference::image_of(&recipe.name, &recipe.version, recipe.profile),
        uki,
        disk: (sha256, whole.size),
        disk_head: disk.head(),
        firmware: firmware.as_ref(),
        machines,
    };
    let values = reference::compute(&inputs)?;
    stage.done(&format!("{} machines", values.platforms.len()));
    Ok(reference::to_text(&values))
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

/// Reads blobs and derived layers from the store, and the recipe's files.
struct BuildSource<'a> {
    store: &'a Store,
    fresh: bool,
    stage: &'a Stage,
    /// Keys of the layers that were found and not made again.
    kept: Mutex<BTreeSet<Sha256Digest>>,
}

impl Source for BuildSource<'_> {
    fn blob(&self, blob: &Blob) -> Result<content::Blob, store::Error> {
        self.store.read(&blob.sha256, &blob.label)
    }

    fn derived(&self, key: &Sha256Digest) -> Option<content::Blob> {
        let bytes = if self.fresh { None } else { self.store.derived("layer", key) }?;
        if let Ok(mut kept) = self.kept.lock() {
            kept.insert(*key);
        }
        Some(content::Blob::new(bytes))
    }

    fn keep(&self, key: &Sha256Digest, layer: &rootfs::layer::Layer) {
        if let Ok(mut kept) = self.kept.lock() {
            // What was found was damaged.
            kept.remove(key);
        }
        if !self.fresh {
            self.store.keep_derived("layer", key, &layer.to_bytes());
        }
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn unpacked(&self, bytes: u64) {
        self.stage.advance(bytes);
    }
}

fn write_disk(
    recipe: &Recipe,
    lock: &Lock,
    lock_sha256: Sha256Digest,
    assembled: &Assembled,
    signer: Option<&Signer>,
    folder: &Path,
    stage: &Stage,
) -> anyhow::Result<(pipeline::Image, Output, Sbom)> {
    let mut file = DiskFile::create(&folder.join("disk.raw")).context("cannot write disk.raw")?;
    let told = |bytes| stage.advance(bytes);
    let image = pipeline::image(recipe, lock, lock_sha256, assembled, signer, &mut file, &told)?;
    // The file system takes its time to write what it was given: the bill of materials is made meanwhile.
    let (finished, sbom) = rayon::join(|| file.finish(), || sbom(recipe, lock, assembled, &image));
    let (size, sha256) = finished.context("cannot write disk.raw")?;
    Ok((image, Output { size, sha256: sha256.to_string() }, sbom?))
}

/// The bill of materials in both forms.
struct Sbom {
    cyclonedx: String,
    spdx: String,
    took: Duration,
}

fn sbom(
    recipe: &Recipe,
    lock: &Lock,
    assembled: &Assembled,
    image: &pipeline::Image,
) -> anyhow::Result<Sbom> {
    let started = Instant::now();
    let bom = pipeline::bom(recipe, lock, assembled, image).context("cannot make the bill of materials")?;
    let (cyclonedx, spdx) = rayon::join(|| cyclonedx::document(&bom), || spdx::document(&bom));
    Ok(Sbom { cyclonedx, spdx, took: started.elapsed() })
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<Output> {
    use std::io::Write;
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(Output { size: bytes.len() as u64, sha256: Sha256Digest::of(bytes).to_string() })
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

const OUTPUTS: [&str; 7] = [
    "contents.json",
    "disk.raw",
    "image.efi",
    "manifest.json",
    "recipe.lock",
    "sbom.cdx.json",
    "sbom.spdx.json",
];
/// Written where the recipe lists machines.
const REFERENCE: &str = "reference-values.json";

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
    let reference = target.join(REFERENCE).exists().then_some(REFERENCE);
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
    serde_json::from_slice(&fs::read(target.join("manifest.json")).ok()?).ok()
}

fn remember(store: &Store, target: &Path, inputs: &str) {
    let (Ok(key), Ok(files)) = (place_key(target), stats(target)) else { return };
    if let Ok(bytes) = serde_json::to_vec(&Built { inputs: inputs.to_owned(), files }) {
        store.keep_derived("built", &key, &bytes);
    }
}

fn done(
    manifest: &Manifest,
    target: &Path,
    started: Instant,
    what: &str,
    session: &Session,
) -> anyhow::Result<ExitCode> {
    let took = started.elapsed().as_secs_f64();
    match session.format {
        Format::Json => print!("{}", manifest.to_text()),
        Format::Text => {
            println!(
                "{} {} ({}): {what} in {took:.2} s",
                manifest.name,
                manifest.version,
                manifest.profile.name()
            );
            println!("  folder     {}", target.display());
            for (name, output) in &manifest.outputs {
                println!("  {name:<14} {:>11}  sha256 {}", size(output.size), output.sha256);
            }
            println!("  root hash  {}", manifest.verity.root_hash);
            println!("  kernel     {}", manifest.kernel.release);
            println!("  inputs     {}", manifest.inputs.len());
            if manifest.profile == Profile::Debug {
                println!("  This is the debug image: it has a login. Give it no secret.");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
