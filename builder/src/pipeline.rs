//! Yields an image from an assembled tree: the table of stages, on one page.
//!
//! # Shape
//! ```text
//! recipe ─> lock ─> fetch* ─> assemble ─> filesystem ─> verity ─> uki ─> disk ─> manifest, SBOM     (* = an effect)
//!
//! disk:  | GPT | root (EROFS) | root-verity | ESP: \EFI\BOOT\BOOTX64.EFI = UKI | GPT |
//! ```
//! The disk is written from its first byte to its last, so one pass gives the file, the hash tree and the
//! digest. The ESP lies last, because its UKI carries the root hash.
//!
//! # Source
//! UAPI Group: Discoverable Partitions Specification, Unified Kernel Image. `proofmark_guest::init::cmdline`
//! defines the command line of the verity root.
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
use crate::image::{command_line, cpio, uki};
use crate::lock::{Lock, Tool};
use crate::recipe::{self, Place, Profile, Recipe};

/// Size of data and hash blocks: the page size of the machines that boot the image.
const BLOCK: u32 = 4096;
/// The zstd level for the initrd, whose modules are already compressed.
const INITRD_LEVEL: i32 = 9;

/// Why the image cannot be made.
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
    /// The command line, with what boots the root, is longer than the kernel keeps.
    #[error("{place}: {message}")]
    CommandLine {
        /// The word that does not fit.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// The UKI cannot be assembled.
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
    /// The disk size in the recipe is too small.
    #[error("the disk needs {needed} bytes, but the recipe says {given}")]
    Size {
        /// The size needed.
        needed: u64,
        /// The size in the recipe.
        given: u64,
    },
    /// The disk cannot be written.
    #[error("cannot write the disk")]
    Write(#[source] io::Error),
    /// The geometry does not fit on a kernel command line.
    #[error("the root file system is too large for dm-verity: {0} blocks")]
    Geometry(u64),
}

/// Receives the bytes of a disk, from the first to the last.
pub trait DiskSink: Write {
    /// Writes this many zeros; the file may be sparse there.
    ///
    /// # Errors
    /// The file system's error.
    fn zeros(&mut self, bytes: u64) -> io::Result<()>;
}

/// Returns the parts of this program that enter every image.
pub fn tool() -> Tool {
    let init = Sha256Digest::of(proofmark_guest::INIT).to_string();
    Tool { compressor: rootfs::content::compressor(), init }
}

/// What a build produces besides the disk.
#[derive(Debug)]
pub struct Image {
    /// The UKI.
    pub uki: Vec<u8>,
    /// The disk's first sectors: the measured part of the partition table.
    pub head: Vec<u8>,
    /// The list of everything in the root file system.
    pub contents: Contents,
    /// Where each node of the tree, except hard links, lies in the file system, in the order of the tree.
    pub places: Vec<erofs::Place>,
    /// The manifest, without the digests of the outputs.
    pub manifest: Manifest,
}

/// Makes the image and writes its disk to `out`; `told` receives the size of each part as it is written.
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
    let identity = Identity::of(recipe, &lock_sha256);
    // Lay everything out first, so that every size and place is known before the first byte is written.
    let filesystem = filesystem(recipe, lock, assembled, &identity)?;
    let verity = Verity::of(filesystem.size(), &identity)?;
    let program = Program::of(recipe, assembled, signer, &identity, &verity)?;
    let layout = layout(recipe, &identity, [filesystem.size(), verity.bytes, program.esp_bytes()?])?;
    // Write the disk, from the first byte to the last.
    let head = layout.head();
    let mut disk = Disk::begin(&layout, &head, out, told)?;
    let hash_tree = disk.root(&filesystem, &verity)?;
    disk.hash_tree(&hash_tree)?;
    let uki = program.uki(hash_tree.root_hash().0)?;
    disk.esp(&uki.bytes, program.volume)?;
    disk.end()?;
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
        kernel: kernel_of(assembled),
        command_line: uki.command_line,
        filesystem: filesystem_of(recipe, assembled, &identity, filesystem.size()),
        verity: verity_of(&hash_tree, &verity.salt, identity.guid(Role::HashTree)),
        disk: disk_of(&layout),
        uki: uki.parts,
        secure_boot: signer.map(secure_boot_of),
        inputs: inputs(recipe, lock, assembled),
        outputs: Default::default(),
    };
    Ok(Image {
        uki: uki.bytes,
        head: head.to_vec(),
        contents: Contents::of(&assembled.tree),
        places: filesystem.places().to_vec(),
        manifest,
    })
}

/// Identifies the image: all its GUIDs and its salt derive from this digest.
struct Identity([u8; 32]);

impl Identity {
    fn of(recipe: &Recipe, lock_sha256: &Sha256Digest) -> Self {
        let mut hasher = Sha256::new();
        for part in ["proofmark image", &recipe.name, &recipe.version, recipe.profile.name()] {
            hasher.update(part.as_bytes());
            hasher.update([0]);
        }
        hasher.update(lock_sha256.0);
        Identity(hasher.finalize().into())
    }

    fn guid(&self, role: Role) -> Uuid {
        disk::guid(&self.0, role)
    }
}

/// Lays out the root file system without writing it.
fn filesystem<'a>(
    recipe: &Recipe,
    lock: &Lock,
    assembled: &'a Assembled,
    identity: &Identity,
) -> Result<erofs::Image<'a>, Error> {
    let options = erofs::Options {
        uuid: identity.guid(Role::Filesystem).into_bytes(),
        mtime: lock.epoch(),
        label: erofs::Label::new("root").unwrap_or_default(),
        packing: assemble::packing(recipe),
    };
    Ok(erofs::Image::new(&assembled.tree, &options)?)
}

/// The parameters of the hash tree, which the command line passes to the kernel.
struct Verity {
    salt: [u8; 32],
    parameters: Parameters,
    geometry: Geometry,
    /// Size of the superblock and the tree.
    bytes: u64,
}

impl Verity {
    fn of(filesystem: u64, identity: &Identity) -> Result<Self, Error> {
        let salt: [u8; 32] =
            Sha256::new_with_prefix(b"verity salt\0").chain_update(identity.0).finalize().into();
        let parameters = Parameters {
            salt: Salt::new(salt).unwrap_or_default(),
            data_block_size: BlockSize::default(),
            hash_block_size: BlockSize::default(),
            uuid: Some(dm_verity_tool::Uuid::from_bytes(identity.guid(Role::HashTree).into_bytes())),
        };
        let blocks = filesystem / u64::from(BLOCK);
        let too_large = || Error::Geometry(blocks);
        let blocks_of_data = NonZeroU64::new(blocks).ok_or_else(too_large)?;
        let layout = dm_verity_tool::Layout::new(blocks_of_data, BlockSize::default());
        let bytes = (1 + layout.hash_blocks()) * u64::from(BLOCK);
        let geometry = Geometry::new(BLOCK, blocks, 1).ok_or_else(too_large)?;
        Ok(Verity { salt, parameters, geometry, bytes })
    }
}

/// Everything in the UKI except the root hash, on which its size does not depend.
struct Program<'a> {
    recipe: &'a Recipe,
    assembled: &'a Assembled,
    signer: Option<&'a Signer>,
    initrd: Vec<u8>,
    sbat: Vec<u8>,
    /// The boot parameters of the root, except its hash.
    boot: Boot,
    volume: esp::Volume,
}

/// A UKI, and what the manifest says of it.
struct BuiltUki {
    bytes: Vec<u8>,
    command_line: String,
    parts: Vec<Part>,
}

impl<'a> Program<'a> {
    fn of(
        recipe: &'a Recipe,
        assembled: &'a Assembled,
        signer: Option<&'a Signer>,
        identity: &Identity,
        verity: &Verity,
    ) -> Result<Self, Error> {
        let part_uuid = |kind| PartUuid(identity.guid(Role::Partition(kind)).to_bytes_le());
        let boot = Boot {
            root: part_uuid(Kind::Root),
            verity: part_uuid(Kind::RootVerity),
            filesystem: Filesystem::Erofs,
            root_hash: RootHash([0; 32]),
            salt: proofmark_guest::init::cmdline::Salt::new(&verity.salt)
                .expect("the salt has 32 bytes, and 256 are allowed"),
            geometry: verity.geometry,
            profile: Some(match recipe.profile {
                Profile::Release => BootProfile::Release,
                Profile::Debug => BootProfile::Debug,
            }),
        };
        Ok(Program {
            recipe,
            assembled,
            signer,
            initrd: initrd(assembled)?,
            sbat: uki::merge_sbat(&assembled.stub, &assembled.kernel, uki::SBAT_UKI)?,
            boot,
            volume: esp::Volume { id: disk::volume_id(&identity.0), label: *b"ESP        " },
        })
    }

    /// Returns the size of the ESP that holds it.
    fn esp_bytes(&self) -> Result<u64, Error> {
        let uki = self.uki([0; 32])?.bytes;
        Ok(Esp::new(&[esp::File { path: esp::BOOT_PATH, content: &uki }], self.volume)?.bytes())
    }

    /// Builds the UKI that boots a root file system with this hash.
    fn uki(&self, root_hash: [u8; 32]) -> Result<BuiltUki, Error> {
        let Program { recipe, assembled, .. } = self;
        let boot = Boot { root_hash: RootHash(root_hash), ..self.boot };
        let mut command_line = boot.to_string();
        for (index, word) in recipe.kernel.command_line.iter().enumerate() {
            command_line.push(' ');
            command_line.push_str(word);
            if command_line.len() > command_line::MOST
                && let Some(place) = recipe.kernel.command_line_places.get(index)
            {
                let message = recipe::too_long(command_line.len());
                return Err(Error::CommandLine { place: place.clone(), message });
            }
        }
        let sections = [
            (".osrel", &*assembled.os_release),
            (".cmdline", command_line.as_bytes()),
            (".uname", assembled.kernel_release.as_bytes()),
            (".sbat", &*self.sbat),
            (".initrd", &*self.initrd),
            (".linux", &*assembled.kernel),
        ]
        .map(|(name, content)| uki::Section { name, content });
        let mut bytes = uki::build(&assembled.stub, &sections)?;
        if let Some(signer) = self.signer {
            bytes = signer.sign(bytes)?;
        }
        let parts = sections.iter().map(|section| part(section.name, section.content)).collect();
        Ok(BuiltUki { bytes, command_line, parts })
    }
}

/// Returns the places of the partitions, in disk order: root, hash tree, ESP.
fn layout(recipe: &Recipe, identity: &Identity, bytes: [u64; 3]) -> Result<Layout, Error> {
    let [root, tree, esp] = bytes;
    let partition = |kind, bytes| Partition { kind, guid: identity.guid(Role::Partition(kind)), bytes };
    let partitions =
        [partition(Kind::Root, root), partition(Kind::RootVerity, tree), partition(Kind::Esp, esp)];
    let layout = Layout::new(identity.guid(Role::Disk), &partitions)?;
    let needed = layout.bytes();
    match recipe.disk_size {
        Some(given) => layout.grown_to(given).ok_or(Error::Size { needed, given }),
        None => Ok(layout),
    }
}

/// Makes the bill of materials of an image.
///
/// # Errors
/// [`sbom::Error`] if the parts are not of one image.
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

/// A disk being written.
struct Disk<'a> {
    layout: &'a Layout,
    cursor: Cursor<'a>,
}

impl<'a> Disk<'a> {
    /// Writes the partition table.
    fn begin(
        layout: &'a Layout,
        head: &[u8],
        out: &'a mut dyn DiskSink,
        told: &'a dyn Fn(u64),
    ) -> Result<Self, Error> {
        let mut cursor = Cursor { out, at: 0, told };
        cursor.write(head)?;
        Ok(Disk { layout, cursor })
    }

    /// Pads up to the start of a partition.
    fn to(&mut self, kind: Kind) -> Result<(), Error> {
        let placed = self.layout.partitions().iter().find(|placed| placed.partition.kind == kind);
        self.cursor.zeros_until(placed.map_or(0, |placed| placed.first.offset()))
    }

    /// Writes the root file system and returns the hash tree of what was written.
    fn root(&mut self, filesystem: &erofs::Image<'_>, verity: &Verity) -> Result<HashTree, Error> {
        self.to(Kind::Root)?;
        let mut hasher = Hasher::new(&verity.parameters);
        let mut failure = None;
        let written = filesystem.write_to(|chunk| {
            hasher.update(chunk);
            self.cursor.write(chunk).map_err(|error| {
                failure = Some(error);
                io::ErrorKind::Other.into()
            })
        });
        match (written, failure) {
            (_, Some(error)) => return Err(error),
            (written, None) => written?,
        }
        Ok(hasher.finish()?)
    }

    fn hash_tree(&mut self, tree: &HashTree) -> Result<(), Error> {
        self.to(Kind::RootVerity)?;
        let mut bytes = Vec::new();
        tree.write_to(&mut bytes, HashOffset::ZERO).map_err(Error::Write)?;
        self.cursor.write(&bytes)
    }

    fn esp(&mut self, uki: &[u8], volume: esp::Volume) -> Result<(), Error> {
        self.to(Kind::Esp)?;
        let esp = Esp::new(&[esp::File { path: esp::BOOT_PATH, content: uki }], volume)?;
        esp.write(&mut self.cursor)?;
        Ok(())
    }

    /// Writes the second partition table.
    fn end(mut self) -> Result<(), Error> {
        self.cursor.zeros_until(self.layout.tail_offset())?;
        self.cursor.write(&self.layout.tail())
    }
}

/// The position on the disk that is written next.
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

/// Returns the path of a module in the initrd.
fn module_path(name: &str) -> String {
    format!("modules/{}", name.trim_start_matches('?'))
}

/// Returns the list of modules that the init loads.
fn module_list(assembled: &Assembled) -> String {
    let line = |(name, _): &(String, Vec<u8>)| {
        let mark = if name.starts_with('?') { "?" } else { "" };
        format!("{mark}/{}\n", module_path(name))
    };
    assembled.initrd_modules.iter().map(line).collect()
}

/// Builds the initrd: our init, the list of modules, and the modules.
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

fn kernel_of(assembled: &Assembled) -> manifest::Kernel {
    manifest::Kernel {
        release: assembled.kernel_release.clone(),
        initrd_modules: assembled.initrd_modules.iter().map(|(name, _)| name.clone()).collect(),
        modules: assembled.modules,
    }
}

fn filesystem_of(
    recipe: &Recipe,
    assembled: &Assembled,
    identity: &Identity,
    size: u64,
) -> manifest::Filesystem {
    manifest::Filesystem {
        kind: "erofs".to_owned(),
        uuid: identity.guid(Role::Filesystem).to_string(),
        size,
        compression: recipe.compression.map_or("none".to_owned(), |level| format!("zstd:{level}")),
        paths: assembled.tree.len(),
    }
}

fn secure_boot_of(signer: &Signer) -> manifest::SecureBoot {
    manifest::SecureBoot {
        certificate_sha256: hex::encode(signer.certificate_sha256()),
        note:
            "The UKI is signed: Secure Boot variables and the signer's db entry are measured besides, and a \
               machine with other keys gives other values (RTMR0, PCR 7)."
                .to_owned(),
    }
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

/// Lists everything that goes into the image.
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
