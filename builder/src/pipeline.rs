//! Yields an image from an assembled tree: the table of stages, on one page.
//!
//! # Shape
//! ```text
//! recipe ─> lock ─> fetch* ─> assemble ─> filesystem ─> verity ─> uki ─> disk ─> manifest, SBOM     (* = an effect)
//!
//! disk:  | GPT | root (EROFS) | root-verity | ESP: \EFI\BOOT\BOOTX64.EFI = UKI | GPT |
//! ```
//! The disk is written from its first byte to its last, so one pass gives file, hash tree and digest: the ESP, whose
//! UKI carries the root hash, lies last.
//!
//! # Source
//! UAPI Group: Discoverable Partitions Specification, Unified Kernel Image. The command line of the verity root is
//! `proofmark_guest::init::cmdline`'s.
//!
//! # Not here
//! Files, the network, the clock: `host` and `cmd`.

use std::io::{self, Write};
use std::num::NonZeroU64;

use dm_verity_tool::{BlockSize, HashOffset, HashTree, Hasher, Parameters, Salt};
use proofmark_guest::init::cmdline::{
    Boot, Filesystem, Geometry, PartUuid, Profile as BootProfile, RootHash,
};
use rootfs::content::Sha256Digest;
use rootfs::erofs;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::assemble::{self, Assembled};
use crate::claim::contents::Contents;
use crate::claim::manifest::{self, Manifest, Part};
use crate::claim::sbom::{self, Bom};
use crate::image::disk::{self, Kind, Layout, Partition, Role};
use crate::image::esp::{self, Esp};
use crate::image::sign::{self, Signer};
use crate::image::{cpio, uki};
use crate::lock::{Lock, Tool};
use crate::recipe::{Profile, Recipe};

/// Size of data and hash blocks: a page of the machines that boot the image.
const BLOCK: u32 = 4096;
/// Level of zstd for the initrd, whose modules are compressed already.
const INITRD_LEVEL: i32 = 9;

/// Why no image could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system cannot be written.
    #[error("cannot make the file system")]
    Filesystem(#[from] erofs::WriteError),
    /// Its hash tree cannot be made.
    #[error("cannot make the hash tree")]
    Verity(#[from] dm_verity_tool::TreeError),
    /// The initrd cannot be written.
    #[error("cannot make the initrd")]
    Initrd(#[from] cpio::Error),
    /// The UKI cannot be put together.
    #[error("cannot make the UKI")]
    Uki(#[from] uki::Error),
    /// The UKI cannot be signed.
    #[error("cannot sign the UKI")]
    Sign(#[from] sign::Error),
    /// The ESP cannot be written.
    #[error("cannot make the ESP")]
    Esp(#[from] esp::Error),
    /// The partitions do not fit.
    #[error("cannot place the partitions")]
    Disk(#[from] disk::Error),
    /// The recipe's size is too small.
    #[error("the disk needs {needed} bytes, and the recipe says {given}")]
    Size {
        /// What is needed.
        needed: u64,
        /// What the recipe says.
        given: u64,
    },
    /// The disk cannot be written.
    #[error("cannot write the disk")]
    Write(#[source] io::Error),
    /// The geometry does not fit on a command line.
    #[error("the root file system is too large for dm-verity: {0} blocks")]
    Geometry(u64),
}

/// What takes the bytes of a disk, from the first to the last.
pub trait DiskSink: Write {
    /// Takes so many zeros; they may be left out of the file.
    ///
    /// # Errors
    /// What the file system says.
    fn zeros(&mut self, bytes: u64) -> io::Result<()>;
}

/// What this program puts into every image.
pub fn tool() -> Tool {
    let init = Sha256Digest::of(proofmark_guest::INIT).to_string();
    Tool { compressor: rootfs::content::compressor(), init }
}

/// What came of a build beside the disk.
#[derive(Debug)]
pub struct Image {
    /// The UKI.
    pub uki: Vec<u8>,
    /// The disk's first sectors: all of the partition table that is measured.
    pub head: Vec<u8>,
    /// Everything in the root file system.
    pub contents: Contents,
    /// Where each node of the tree that is no hard link lies in the file system, in the order of the tree.
    pub places: Vec<erofs::Place>,
    /// The manifest, without the digests of the outputs.
    pub manifest: Manifest,
}

/// Which image this is: the digest that all its GUIDs and its salt are derived from.
fn identity(recipe: &Recipe, lock_sha256: &Sha256Digest) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in ["proofmark image", &recipe.name, &recipe.version, recipe.profile.name()] {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.update(lock_sha256.0);
    hasher.finalize().into()
}

/// Makes the image and writes its disk to `out`; `told` hears of each part of the disk as it is written.
///
/// # Errors
/// [`Error`] of the stage that failed.
pub fn image(
    recipe: &Recipe,
    lock: &Lock,
    lock_sha256: Sha256Digest,
    assembled: &Assembled,
    signer: Option<&Signer>,
    out: &mut dyn DiskSink,
    told: &dyn Fn(u64),
) -> Result<Image, Error> {
    let identity = identity(recipe, &lock_sha256);
    let guid = |role| disk::guid(&identity, role);

    // Filesystem: laid out, so that its size is known.
    let options = erofs::Options {
        uuid: guid(Role::Filesystem).into_bytes(),
        mtime: lock.epoch(),
        label: erofs::Label::new("root").unwrap_or_default(),
        packing: assemble::packing(recipe),
    };
    let filesystem = erofs::Image::new(&assembled.tree, &options)?;

    // Verity: the geometry.
    let salt: [u8; 32] = Sha256::new_with_prefix(b"verity salt\0").chain_update(identity).finalize().into();
    let parameters = Parameters {
        salt: Salt::new(salt).unwrap_or_default(),
        data_block_size: BlockSize::default(),
        hash_block_size: BlockSize::default(),
        uuid: Some(dm_verity_tool::Uuid::from_bytes(guid(Role::HashTree).into_bytes())),
    };
    let blocks = filesystem.size() / u64::from(BLOCK);
    let too_large = || Error::Geometry(blocks);
    let tree_layout =
        dm_verity_tool::Layout::new(NonZeroU64::new(blocks).ok_or_else(too_large)?, BlockSize::default());
    let verity_bytes = (1 + tree_layout.hash_blocks()) * u64::from(BLOCK);
    let geometry = Geometry::new(BLOCK, blocks, 1).ok_or_else(too_large)?;

    // UKI: its size does not depend on the root hash.
    let initrd = initrd(assembled)?;
    let sbat = uki::merge_sbat(&assembled.stub, &assembled.kernel, uki::SBAT_UKI)?;
    let make_uki = |root_hash: [u8; 32]| -> Result<(Vec<u8>, String, Vec<Part>), Error> {
        let part_uuid = |kind| PartUuid(guid(Role::Partition(kind)).to_bytes_le());
        let boot = Boot {
            root: part_uuid(Kind::Root),
            verity: part_uuid(Kind::RootVerity),
            filesystem: Filesystem::Erofs,
            root_hash: RootHash(root_hash),
            salt: proofmark_guest::init::cmdline::Salt::new(&salt).ok_or_else(too_large)?,
            geometry,
            profile: Some(match recipe.profile {
                Profile::Release => BootProfile::Release,
                Profile::Debug => BootProfile::Debug,
            }),
        };
        let words = recipe.kernel.command_line.iter().map(|word| format!(" {word}"));
        let command_line = format!("{boot}{}", words.collect::<String>());
        let sections = [
            (".osrel", &*assembled.os_release),
            (".cmdline", command_line.as_bytes()),
            (".uname", assembled.kernel_release.as_bytes()),
            (".sbat", &*sbat),
            (".initrd", &*initrd),
            (".linux", &*assembled.kernel),
        ]
        .map(|(name, content)| uki::Section { name, content });
        let mut image = uki::build(&assembled.stub, &sections)?;
        if let Some(signer) = signer {
            image = signer.sign(image)?;
        }
        let parts = sections.iter().map(|section| part(section.name, section.content)).collect();
        Ok((image, command_line, parts))
    };
    let volume = esp::Volume { id: disk::volume_id(&identity), label: *b"ESP        " };
    let (placeholder, _, _) = make_uki([0; 32])?;
    let esp_bytes = Esp::new(&[esp::File { path: esp::BOOT_PATH, content: &placeholder }], volume)?.bytes();
    drop(placeholder);

    // Disk: every place is known now.
    let partition = |kind, bytes| Partition { kind, guid: guid(Role::Partition(kind)), bytes };
    let partitions = [
        partition(Kind::Root, filesystem.size()),
        partition(Kind::RootVerity, verity_bytes),
        partition(Kind::Esp, esp_bytes),
    ];
    let mut layout = Layout::new(guid(Role::Disk), &partitions)?;
    if let Some(given) = recipe.disk_size {
        let needed = layout.bytes();
        layout = layout.grown_to(given).ok_or(Error::Size { needed, given })?;
    }
    let mut disk = Cursor { out, at: 0, told };
    let head = layout.head();
    disk.write(&head)?;
    let place = |disk: &mut Cursor<'_>, number: usize| {
        let start = layout.partitions().get(number).map_or(0, |placed| placed.first.offset());
        disk.zeros_until(start)
    };
    place(&mut disk, 0)?;
    let mut hasher = Hasher::new(&parameters);
    let mut failure = None;
    let written = filesystem.write_to(|chunk| {
        hasher.update(chunk);
        disk.write(chunk).map_err(|error| {
            failure = Some(error);
            io::ErrorKind::Other.into()
        })
    });
    match (written, failure) {
        (_, Some(error)) => return Err(error),
        (written, None) => written?,
    }
    let hash_tree = hasher.finish()?;
    place(&mut disk, 1)?;
    let mut bytes = Vec::new();
    hash_tree.write_to(&mut bytes, HashOffset::ZERO).map_err(Error::Write)?;
    disk.write(&bytes)?;
    place(&mut disk, 2)?;
    let (uki, command_line, uki_parts) = make_uki(hash_tree.root_hash().0)?;
    let esp = Esp::new(&[esp::File { path: esp::BOOT_PATH, content: &uki }], volume)?;
    esp.write(&mut disk)?;
    disk.zeros_until(layout.tail_offset())?;
    disk.write(&layout.tail())?;

    let contents = Contents::of(&assembled.tree);
    let manifest = Manifest {
        form: manifest::FORM.to_owned(),
        name: recipe.name.clone(),
        version: recipe.version.clone(),
        profile: recipe.profile,
        tool: manifest::Tool {
            name: "proofmark".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            compressor: tool().compressor,
        },
        lock_sha256: lock_sha256.to_string(),
        epoch: lock.epoch(),
        kernel: manifest::Kernel {
            release: assembled.kernel_release.clone(),
            initrd_modules: assembled.initrd_modules.iter().map(|(name, _)| name.clone()).collect(),
            modules: assembled.modules,
        },
        command_line,
        filesystem: manifest::Filesystem {
            kind: "erofs".to_owned(),
            uuid: guid(Role::Filesystem).to_string(),
            size: filesystem.size(),
            compression: recipe.compression.map_or("none".to_owned(), |level| format!("zstd:{level}")),
            paths: assembled.tree.len(),
        },
        verity: verity_of(&hash_tree, &salt, guid(Role::HashTree)),
        disk: disk_of(&layout),
        uki: uki_parts,
        secure_boot: signer.map(|signer| manifest::SecureBoot {
            certificate_sha256: hex::encode(signer.certificate_sha256()),
            note: "The UKI is signed: Secure Boot variables and the signer's db entry are measured besides, and a \
                   machine with other keys gives other values (RTMR0, PCR 7)."
                .to_owned(),
        }),
        inputs: inputs(recipe, lock, assembled),
        outputs: Default::default(),
    };
    Ok(Image { uki, head: head.to_vec(), contents, places: filesystem.places().to_vec(), manifest })
}

/// Makes the bill of materials of an image.
///
/// # Errors
/// [`sbom::Error`] when the parts are not of one image.
pub fn bom(recipe: &Recipe, lock: &Lock, assembled: &Assembled, image: &Image) -> Result<Bom, sbom::Error> {
    Bom::of(&sbom::Given {
        recipe,
        lock,
        assembled,
        places: &image.places,
        module_list: &module_list(assembled),
        manifest: &image.manifest,
        uki: &image.uki,
    })
}

/// The place on the disk that is written next.
struct Cursor<'a> {
    out: &'a mut dyn DiskSink,
    at: u64,
    told: &'a dyn Fn(u64),
}

impl Cursor<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(Error::Write)?;
        self.at += bytes.len() as u64;
        (self.told)(bytes.len() as u64);
        Ok(())
    }

    fn zeros_until(&mut self, offset: u64) -> Result<(), Error> {
        self.out.zeros(offset.saturating_sub(self.at)).map_err(Error::Write)?;
        self.at = self.at.max(offset);
        Ok(())
    }
}

impl Write for Cursor<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.at += count as u64;
        (self.told)(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn part(name: &str, bytes: &[u8]) -> Part {
    Part { name: name.to_owned(), size: bytes.len() as u64, sha256: Sha256Digest::of(bytes).to_string() }
}

/// Where a module lies in the initrd.
fn module_path(name: &str) -> String {
    format!("modules/{}", name.trim_start_matches('?'))
}

/// The list of modules that the init loads.
fn module_list(assembled: &Assembled) -> String {
    let line = |(name, _): &(String, Vec<u8>)| {
        let mark = if name.starts_with('?') { "?" } else { "" };
        format!("{mark}/{}\n", module_path(name))
    };
    assembled.initrd_modules.iter().map(line).collect()
}

/// The initrd: our init, the list of modules, and the modules.
fn initrd(assembled: &Assembled) -> Result<Vec<u8>, Error> {
    let modules = &assembled.initrd_modules;
    let list = module_list(assembled);
    let paths: Vec<String> = modules.iter().map(|(name, _)| module_path(name)).collect();
    let mut entries = vec![
        cpio::Entry { path: "init", mode: 0o755, content: cpio::Content::File(proofmark_guest::INIT) },
        cpio::Entry { path: "modules", mode: 0o755, content: cpio::Content::Directory },
        cpio::Entry { path: "modules.load", mode: 0o644, content: cpio::Content::File(list.as_bytes()) },
    ];
    for (path, (_, content)) in paths.iter().zip(modules) {
        entries.push(cpio::Entry { path, mode: 0o644, content: cpio::Content::File(content) });
    }
    let mut archive = Vec::new();
    cpio::write(&entries, &mut archive)?;
    Ok(cpio::compress(&archive, INITRD_LEVEL)?)
}

fn verity_of(tree: &HashTree, salt: &[u8], uuid: Uuid) -> manifest::Verity {
    manifest::Verity {
        root_hash: tree.root_hash().to_string(),
        salt: hex::encode(salt),
        algorithm: "sha256".to_owned(),
        block_size: BLOCK,
        data_blocks: tree.data_blocks(),
        hash_start: tree.superblock().hash_start_block(HashOffset::ZERO),
        uuid: uuid.to_string(),
    }
}

fn disk_of(layout: &Layout) -> manifest::Disk {
    manifest::Disk {
        guid: layout.disk().to_string(),
        size: layout.bytes(),
        partitions: layout
            .partitions()
            .iter()
            .map(|placed| manifest::Partition {
                name: placed.partition.kind.name().to_owned(),
                type_guid: placed.partition.kind.type_guid().to_string(),
                guid: placed.partition.guid.to_string(),
                first_lba: placed.first.0,
                last_lba: placed.last.0,
            })
            .collect(),
    }
}

/// Everything that went in.
fn inputs(recipe: &Recipe, lock: &Lock, assembled: &Assembled) -> Vec<manifest::Input> {
    let input = |kind: &str, name: &str, version: &str, size, sha256: String| manifest::Input {
        kind: kind.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        size,
        sha256,
    };
    let debs = lock
        .debs_of(recipe.profile)
        .map(|deb| input("deb", &deb.name, &deb.version, deb.size, deb.sha256.clone()));
    let firmware = lock
        .firmware
        .iter()
        .map(|deb| input("firmware", &deb.name, &deb.version, deb.size, deb.sha256.clone()));
    let npm = lock
        .npm
        .iter()
        .filter(|npm| npm.role != crate::lock::NpmRole::Client)
        .map(|npm| input("npm", &npm.name, &npm.version, npm.size, npm.sha256.clone()));
    let files = assembled
        .recipe_files
        .iter()
        .map(|(path, size, digest)| input("recipe", path, "", *size, digest.to_string()));
    let init = part("proofmark-init", proofmark_guest::INIT);
    let init = input("guest", &init.name, env!("CARGO_PKG_VERSION"), init.size, init.sha256);
    let mut all: Vec<manifest::Input> = debs.chain(firmware).chain(npm).chain(files).chain([init]).collect();
    all.sort();
    all.dedup();
    all
}
