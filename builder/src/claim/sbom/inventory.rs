//! Yields a [`Bom`] from the lock, the assembled tree, the place of every file and the manifest.
//!
//! # Shape
//! One pass over the tree assigns every file to its origin. The control stanza and copyright file describe a
//! Debian package; its own `package.json` describes an npm package: licence, authors, what it needs. A
//! `package.json` with a name deeper in a package is a package that the archive bundles; it may lack a
//! version.
//!
//! # Source
//! deb-control(5); package.json(5), Node.js "Modules: loading from node_modules folders" (what a name
//! resolves to).
//!
//! # Not here
//! The documents: `cyclonedx`, `spdx`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rayon::prelude::*;
use rootfs::content::{self, Content, Sha256Digest};
use rootfs::erofs::Place;
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Node, Origin, Tree};
use serde::Deserialize;
use serde_json::Value;
use sha1::{Digest, Sha1};
use uuid::Uuid;

use super::{Algorithm, Bom, Fact, File, Layer, LooseFile, Package, Role, Source, Supplier, Tool, licence};
use crate::assemble::{self, Assembled};
use crate::claim::manifest::Manifest;
use crate::image::disk::Kind as PartitionKind;
use crate::lock::{Deb, Lock, Npm, NpmRole};
use crate::recipe::Recipe;
use crate::resolve::relation;
use crate::trust::debian::{control, version};
use crate::trust::purl;

/// The longest `package.json` that is read, in bytes; real ones reach some hundred kilobytes.
const MAX_DOCUMENT: u64 = 16 << 20;

/// How many hard links a chain may have.
const MAX_LINKS: usize = 40;

/// The public archive of Debian's history; a current mirror has the same files at the same paths.
const SNAPSHOT: &str = "https://snapshot.debian.org/archive";

/// The public registry of npm.
const REGISTRY: &str = "https://registry.npmjs.org";

/// Why the bill of materials cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The number of places from the file system writer does not match the tree.
    #[error("the file system has {found} inodes, expected {expected}")]
    Places {
        /// Nodes of the tree that have an inode.
        expected: usize,
        /// Places.
        found: usize,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Content {
        /// The file.
        path: TreePath,
        /// Why.
        source: content::Error,
    },
}

/// What an image was made of.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its lock.
    pub lock: &'a Lock,
    /// The tree, and what goes into the UKI.
    pub assembled: &'a Assembled,
    /// Where each node, except hard links, lies, in the order of the tree.
    pub places: &'a [Place],
    /// The list of modules in the initrd.
    pub module_list: &'a str,
    /// The image's manifest; its outputs are not used.
    pub manifest: &'a Manifest,
    /// The UKI.
    pub uki: &'a [u8],
}

/// The fields of a `package.json` that matter here; a field of the wrong type counts as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PackageJson {
    name: Value,
    version: Value,
    license: Value,
    licenses: Value,
    author: Value,
    repository: Value,
    homepage: Value,
    description: Value,
    dependencies: Value,
    optional_dependencies: Value,
    peer_dependencies: Value,
}

/// A package, and what determines its needs.
struct Draft<'a> {
    package: Package,
    told: Told<'a>,
}

enum Told<'a> {
    Debian(&'a str),
    Npm(&'a Npm, Box<PackageJson>),
    /// A package in the archive of another, which its reference names.
    Bundled(String),
    Ours,
}

impl Bom {
    /// Takes the inventory of an image.
    ///
    /// # Errors
    /// [`Error`] if the parts are not of one image.
    pub fn of(given: &Given<'_>) -> Result<Bom, Error> {
        let tree = &given.assembled.tree;
        let (mut files, loose) = files(given)?;
        let mut extracted = BTreeMap::new();
        let mut drafts = debian(given, &mut files, &mut extracted);
        drafts.extend(npm(given, &mut files));
        drafts.extend(bundled(tree, &drafts));
        drafts.push(guest());
        drafts.extend(given.lock.firmware.as_ref().map(|deb| firmware(given, deb)));
        drafts.sort_by(|a, b| a.package.reference.cmp(&b.package.reference));
        let needs = needs(&drafts);
        let numbers: BTreeMap<String, usize> = drafts
            .iter()
            .enumerate()
            .map(|(number, draft)| (draft.package.reference.clone(), number))
            .collect();
        let packages = drafts.into_iter().zip(needs).map(|(draft, needs)| {
            let within = match &draft.told {
                Told::Bundled(owner) => numbers.get(owner).copied(),
                _ => None,
            };
            Package { needs, within, ..draft.package }
        });
        let packages = packages.collect();
        let manifest = given.manifest;
        let uki = Sha256Digest::of(given.uki);
        let facts = vec![
            Fact { name: "proofmark:profile", value: manifest.profile.name().to_owned() },
            Fact { name: "proofmark:lock-sha256", value: manifest.lock_sha256.clone() },
            Fact { name: "proofmark:root-hash", value: manifest.verity.root_hash.clone() },
            Fact { name: "proofmark:uki-sha256", value: uki.to_string() },
        ];
        let identity: String = facts.iter().map(|fact| format!("{} {}\n", fact.name, fact.value)).collect();
        let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, env!("CARGO_PKG_REPOSITORY").as_bytes());
        Ok(Bom {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            profile: manifest.profile.name(),
            epoch: manifest.epoch,
            serial: Uuid::new_v5(&namespace, format!("sbom\n{identity}").as_bytes()),
            tool: Tool {
                name: "proofmark",
                version: env!("CARGO_PKG_VERSION"),
                compressor: manifest.tool.compressor.clone(),
            },
            facts,
            layers: layers(given, &uki),
            packages,
            loose,
            extracted,
        })
    }
}

/// Lists what is measured, and under which name.
fn layers(given: &Given<'_>, uki: &Sha256Digest) -> Vec<Layer> {
    let manifest = given.manifest;
    let verity = &manifest.verity;
    let mut facts = vec![
        Fact { name: "proofmark:block-size", value: verity.block_size.to_string() },
        Fact { name: "proofmark:data-blocks", value: verity.data_blocks.to_string() },
        Fact { name: "proofmark:measured-by", value: "dm-verity root hash in uki:.cmdline".to_owned() },
        Fact { name: "proofmark:root-hash", value: verity.root_hash.clone() },
    ];
    if let Some(partition) =
        manifest.disk.partitions.iter().find(|partition| partition.name == PartitionKind::Root.name())
    {
        facts.push(Fact { name: "proofmark:first-lba", value: partition.first_lba.to_string() });
        facts.push(Fact { name: "proofmark:partition", value: partition.guid.clone() });
    }
    facts.sort();
    let measured = |how: &str| vec![Fact { name: "proofmark:measured-by", value: how.to_owned() }];
    let stub = &given.assembled.stub;
    let mut layers = vec![
        Layer {
            id: "root".to_owned(),
            description: "Root file system (EROFS), checked block by block".to_owned(),
            size: manifest.filesystem.size,
            sha256: None,
            facts,
        },
        Layer {
            id: "uki".to_owned(),
            description: "Unified kernel image, \\EFI\\BOOT\\BOOTX64.EFI of the EFI system partition"
                .to_owned(),
            size: given.uki.len() as u64,
            sha256: Some(uki.to_string()),
            facts: measured("firmware, as a PE image"),
        },
        Layer {
            id: "uki:stub".to_owned(),
            description: "UEFI stub that the sections were added to".to_owned(),
            size: stub.len() as u64,
            sha256: Some(Sha256Digest::of(stub).to_string()),
            facts: measured("firmware, as part of the PE image"),
        },
    ];
    for part in &manifest.uki {
        layers.push(Layer {
            id: format!("uki:{}", part.name),
            description: format!("Section {} of the UKI", part.name),
            size: part.size,
            sha256: Some(part.sha256.clone()),
            facts: measured("firmware, as part of the PE image; the stub, as a section"),
        });
    }
    layers
}

type Files<'a> = BTreeMap<&'a Origin, Vec<File>>;

/// Collects every regular file under each of its names, by origin, and the files that no package brought.
fn files<'a>(given: &Given<'a>) -> Result<(Files<'a>, Vec<LooseFile>), Error> {
    let tree = &given.assembled.tree;
    let nodes: Vec<(&TreePath, &Node)> =
        tree.iter().filter(|(_, node)| !matches!(node.kind, Kind::HardLink(_))).collect();
    let wrong = || Error::Places { expected: nodes.len(), found: given.places.len() };
    if nodes.len() != given.places.len() {
        return Err(wrong());
    }
    let mut files: Files<'a> = BTreeMap::new();
    let mut loose = Vec::new();
    let mut places = given.places.iter();
    for (path, node) in tree.iter() {
        let (content, place): (&Content, &Place) = match &node.kind {
            Kind::HardLink(target) => {
                let Some(target) = end(tree, target) else { continue };
                let number = nodes.binary_search_by(|(path, _)| (*path).cmp(target)).map_err(|_| wrong())?;
                let place = given.places.get(number).ok_or_else(wrong)?;
                match tree.get(target).and_then(Node::content) {
                    Some(content) => (content, place),
                    None => continue,
                }
            }
            kind => {
                let place = places.next().ok_or_else(wrong)?;
                match kind {
                    Kind::File(content) => (content, place),
                    _ => continue,
                }
            }
        };
        let file =
            File { path: path.to_string(), sha256: content.sha256().to_string(), place: blocks(place) };
        match &node.origin {
            Origin::Debian { .. } | Origin::Npm { .. } => files.entry(&node.origin).or_default().push(file),
            origin => {
                let bytes = content.read().map_err(|source| Error::Content { path: path.clone(), source })?;
                let sha1 = hex::encode(Sha1::digest(&bytes));
                loose.push(LooseFile { file, size: content.len(), sha1, origin: origin.to_string() });
            }
        }
    }
    let list = given.module_list.as_bytes();
    loose.push(LooseFile {
        file: File {
            path: "uki:.initrd/modules.load".to_owned(),
            sha256: Sha256Digest::of(list).to_string(),
            place: "uki:.initrd".to_owned(),
        },
        size: list.len() as u64,
        sha1: hex::encode(Sha1::digest(list)),
        origin: "fix-up:initrd".to_owned(),
    });
    Ok((files, loose))
}

/// Follows a chain of hard links to the file at its end.
fn end<'a>(tree: &'a Tree, mut target: &'a TreePath) -> Option<&'a TreePath> {
    for _ in 0..MAX_LINKS {
        match &tree.get(target)?.kind {
            Kind::HardLink(next) => target = next,
            Kind::File(_) => return Some(target),
            _ => return None,
        }
    }
    None
}

/// Formats `root:` and the blocks, each range by its first and last.
fn blocks(place: &Place) -> String {
    let text = |range: &Range<u32>| match range.len() {
        0 => String::new(),
        1 => range.start.to_string(),
        _ => format!("{}-{}", range.start, range.end - 1),
    };
    let (inode, data) = (text(&place.inode), text(&place.data));
    let comma = if data.is_empty() { "" } else { "," };
    format!("root:{inode}{comma}{data}")
}

/// Describes a Debian package, with the licence texts that SPDX has no name for.
fn describe<'a>(
    given: &Given<'a>,
    modules: &Modules<'_>,
    deb: &'a Deb,
) -> (Draft<'a>, Vec<licence::Extracted>) {
    let assembled = given.assembled;
    let origin = Origin::debian(&deb.name, &deb.version);
    let stub = assembled.stub_origin.as_ref() == Some(&origin);
    let text = assembled.controls.get(&origin).map_or("", String::as_str);
    let stanza = control::stanzas(text.as_bytes()).next().and_then(Result::ok);
    let value = |field: &str| stanza.as_ref().and_then(|stanza| stanza.value(field));
    let copyright = match stub {
        true => assembled.stub_copyright.clone(),
        false => assemble::copyright(&assembled.tree, &origin),
    };
    let stated = copyright.as_deref().and_then(licence::of_copyright);
    let archive = given.lock.archives.iter().find(|archive| archive.suite == deb.suite);
    let mut package = Package {
        direct: deb.wanted_by == "recipe",
        source: Some(source_of(deb, value("Source"))),
        hashes: vec![(Algorithm::Sha256, deb.sha256.clone())],
        download: archive
            .map(|archive| format!("{SNAPSHOT}/{}/{}/{}", deb.archive, archive.snapshot, deb.path)),
        supplier: Supplier::Organization("Debian".to_owned()),
        maintainer: value("Maintainer").map(line),
        licence: stated.as_ref().map(|stated| stated.expression.clone()),
        homepage: value("Homepage").and_then(url),
        description: value("Description").map(line),
        facts: vec![
            Fact { name: "proofmark:architecture", value: deb.architecture.clone() },
            Fact { name: "proofmark:path", value: deb.path.clone() },
            Fact { name: "proofmark:suite", value: deb.suite.clone() },
        ],
        ..empty(
            origin.to_string(),
            &deb.name,
            &deb.version,
            purl::deb(&deb.name, &deb.version, &deb.architecture, &given.recipe.debian.suite),
        )
    };
    if copyright.is_some() && package.licence.is_none() {
        package.licence_text = Some(format!("see /usr/share/doc/{}/copyright", deb.name));
    }
    if !stub {
        // dpkg's database in the image lists it, even if all its files are left out.
        package.layers.insert("root".to_owned());
    }
    let section = |path: &str, sha256: String, place: &str| File {
        path: path.to_owned(),
        sha256,
        place: place.to_owned(),
    };
    if stub {
        let sha256 = Sha256Digest::of(&assembled.stub).to_string();
        package.files.push(section("uki:stub", sha256, "uki:stub"));
    }
    if assembled.kernel_origin == origin
        && let Some(part) = given.manifest.uki.iter().find(|part| part.name == ".linux")
    {
        package.files.push(section("uki:.linux", part.sha256.clone(), "uki:.linux"));
    }
    for (name, content) in modules.get(&origin).into_iter().flatten() {
        let sha256 = Sha256Digest::of(content).to_string();
        package.files.push(section(&format!("uki:.initrd/modules/{name}"), sha256, "uki:.initrd"));
    }
    let extracted = stated.map(|stated| stated.extracted.into_iter().collect()).unwrap_or_default();
    (Draft { package, told: Told::Debian(text) }, extracted)
}

fn debian<'a>(
    given: &Given<'a>,
    files: &mut Files<'_>,
    extracted: &mut BTreeMap<String, licence::Extracted>,
) -> Vec<Draft<'a>> {
    let assembled = given.assembled;
    let modules = initrd_modules(assembled);
    let debs: Vec<&Deb> = given.lock.debs_of(given.recipe.profile).collect();
    let described: Vec<_> = debs.into_par_iter().map(|deb| describe(given, &modules, deb)).collect();
    let mut drafts = Vec::new();
    for (mut draft, texts) in described {
        extracted.extend(texts.into_iter().map(|text| (text.id.clone(), text)));
        let origin = Origin::debian(&draft.package.name, &draft.package.version);
        place(&mut draft.package, files.remove(&origin));
        drafts.push(draft);
    }
    drafts
}

/// Adds the files to a package, with the layers that they lie in.
fn place(package: &mut Package, files: Option<Vec<File>>) {
    package.files.splice(0..0, files.unwrap_or_default());
    for file in &package.files {
        let layer = match file.place.strip_prefix("root:") {
            Some(_) => "root",
            None => &file.place,
        };
        if !package.layers.contains(layer) {
            package.layers.insert(layer.to_owned());
        }
    }
}

/// Modules of the initrd, by the package that brought them.
type Modules<'a> = BTreeMap<Origin, Vec<(&'a str, &'a [u8])>>;

fn initrd_modules(assembled: &Assembled) -> Modules<'_> {
    let wanted: BTreeMap<&str, &[u8]> = assembled
        .initrd_modules
        .iter()
        .map(|(name, content)| (name.trim_start_matches('?'), content.as_slice()))
        .collect();
    let mut found: BTreeMap<Origin, Vec<(&str, &[u8])>> = BTreeMap::new();
    let Ok(folder) = TreePath::new("usr/lib/modules") else { return found };
    for (path, node) in assembled.tree.below(&folder) {
        if let Some((name, content)) = wanted.get_key_value(path.name())
            && node.content().is_some()
        {
            found.entry(node.origin.clone()).or_default().push((name, content));
        }
    }
    found
}

/// deb-control(5): `Source: NAME (VERSION)`; a part is absent if it equals the package's own.
fn source_of(deb: &Deb, field: Option<&str>) -> Source {
    let field = field.unwrap_or("").trim();
    let (name, rest) = field.split_once('(').unwrap_or((field, ""));
    let own =
        |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
    let name = own(name.trim(), &deb.name);
    let version = match rest.trim_end().trim_end_matches(')').trim() {
        // A rebuild of the same source adds a suffix.
        "" => deb.version.split("+b").next().unwrap_or(&deb.version).to_owned(),
        version => version.to_owned(),
    };
    let purl = purl::deb(&name, &version, "source", deb.suite.split('-').next().unwrap_or_default());
    Source { name, version, purl }
}

fn npm<'a>(given: &Given<'a>, files: &mut Files<'_>) -> Vec<Draft<'a>> {
    let tree = &given.assembled.tree;
    let roots: BTreeMap<&str, &str> =
        given.recipe.npm.iter().map(|app| (app.name.as_str(), app.target.as_str())).collect();
    let origin_of = |npm: &Npm| Origin::Npm {
        name: npm.name.as_str().into(),
        version: npm.version.as_str().into(),
        location: npm.location.as_str().into(),
    };
    // A package that the recipe's rules omit entirely is not in the image.
    let present: Vec<&'a Npm> = given
        .lock
        .npm
        .iter()
        .filter(|npm| npm.role != NpmRole::Client && files.contains_key(&origin_of(npm)))
        .collect();
    let describe = |npm: &&'a Npm| -> Draft<'a> {
        let target = roots.get(npm.application.as_str()).copied().unwrap_or_default();
        let path = TreePath::new(&format!("{target}/{}/package.json", npm.location)).ok();
        let document = path.and_then(|path| package_json(tree, &path)).unwrap_or_default();
        let stated = match licence_field(&document) {
            Some(stated) => stated,
            None => npm.license.clone(),
        };
        let expression = licence::of_npm(&stated);
        let integrity = npm.integrity.strip_prefix("sha512-").and_then(|text| {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text).ok()
        });
        let mut hashes = vec![(Algorithm::Sha256, npm.sha256.clone())];
        hashes.extend(integrity.map(|digest| (Algorithm::Sha512, hex::encode(digest))));
        let top = npm.location == format!("node_modules/{}", npm.application);
        let mut facts = Vec::new();
        if !npm.location.is_empty() {
            facts.push(Fact { name: "cdx:npm:package:path", value: npm.location.clone() });
            facts.push(Fact { name: "proofmark:application", value: npm.application.clone() });
        }
        let package = Package {
            role: if top || npm.role == NpmRole::Node { Role::Application } else { Role::Library },
            direct: top || npm.role == NpmRole::Node,
            hashes,
            download: Some(format!("{REGISTRY}/{}", npm.path)),
            supplier: supplier(&document, &npm.name),
            licence_text: (expression.is_none() && !stated.is_empty()).then(|| line(&stated)),
            licence: expression,
            homepage: document.homepage.as_str().and_then(url),
            description: document.description.as_str().map(line).filter(|text| !text.is_empty()),
            facts,
            ..empty(origin_of(npm).to_string(), &npm.name, &npm.version, purl::npm(&npm.name, &npm.version))
        };
        Draft { package, told: Told::Npm(npm, Box::new(document)) }
    };
    let mut drafts: Vec<Draft<'a>> = present.par_iter().map(describe).collect();
    let mut nodes = Vec::new();
    for (draft, npm) in drafts.iter_mut().zip(&present) {
        place(&mut draft.package, files.remove(&origin_of(npm)));
        if npm.role == NpmRole::Node {
            nodes.push(node(npm, &draft.package));
        }
    }
    drafts.extend(nodes);
    drafts
}

/// Describes Node.js itself, under the name that vulnerability databases use.
fn node<'a>(npm: &Npm, carrier: &Package) -> Draft<'a> {
    let version = &npm.version;
    let package = Package {
        role: Role::Application,
        cpe: Some(format!("cpe:2.3:a:nodejs:node.js:{version}:*:*:*:*:*:*:*")),
        supplier: Supplier::Organization("OpenJS Foundation".to_owned()),
        homepage: Some("https://nodejs.org/".to_owned()),
        description: Some("JavaScript runtime".to_owned()),
        layers: carrier.layers.clone(),
        ..empty(format!("node@{version}"), "node", version, purl::generic("node", version))
    };
    Draft { package, told: Told::Bundled(carrier.reference.clone()) }
}

/// Finds packages inside another package's archive.
fn bundled<'a>(tree: &Tree, drafts: &[Draft<'_>]) -> Vec<Draft<'a>> {
    let documents: Vec<(&Package, &File)> = drafts
        .iter()
        .flat_map(|draft| draft.package.files.iter().map(move |file| (draft, file)))
        .filter(|(_, file)| file.path.ends_with("/package.json"))
        .filter(|(draft, file)| match &draft.told {
            Told::Npm(npm, _) => !file.path.ends_with(&format!("/{}/package.json", npm.location)),
            _ => true,
        })
        .map(|(draft, file)| (&draft.package, file))
        .collect();
    let describe = |(owner, file): &(&Package, &File)| -> Option<Draft<'a>> {
        let document = package_json(tree, &TreePath::new(&file.path).ok()?)?;
        let text = |value: &Value| value.as_str().map(line).filter(|text| !text.is_empty());
        let (name, version) = (text(&document.name)?, text(&document.version));
        if name == owner.name && version.as_ref().is_none_or(|version| *version == owner.version) {
            return None;
        }
        let mut facts = vec![Fact { name: "cdx:npm:package:bundled", value: "true".to_owned() }];
        let (purl, version) = match version {
            Some(version) => (purl::npm(&name, &version), version),
            // An entry point with its own name: a lookup must not find a version of another package.
            None => {
                facts.push(Fact { name: "proofmark:version-of", value: owner.name.clone() });
                (purl::npm_of_no_version(&name), owner.version.clone())
            }
        };
        let stated = licence_field(&document).unwrap_or_default();
        let expression = licence::of_npm(&stated);
        let folder = file.path.trim_end_matches("/package.json").to_owned();
        facts.push(Fact { name: "cdx:npm:package:path", value: folder.clone() });
        let package = Package {
            supplier: supplier(&document, &name),
            licence_text: (expression.is_none() && !stated.is_empty()).then(|| line(&stated)),
            licence: expression,
            homepage: document.homepage.as_str().and_then(url),
            description: text(&document.description),
            facts,
            layers: BTreeSet::from(["root".to_owned()]),
            ..empty(format!("npm:{name}@{version} (bundled {folder})"), &name, &version, purl)
        };
        Some(Draft { package, told: Told::Bundled(owner.reference.clone()) })
    };
    documents.par_iter().filter_map(describe).collect()
}

/// Describes the init of the initrd.
fn guest<'a>() -> Draft<'a> {
    let (name, version) = ("proofmark-guest", env!("CARGO_PKG_VERSION"));
    let sha256 = Sha256Digest::of(proofmark_guest::INIT).to_string();
    let file =
        File { path: "uki:.initrd/init".to_owned(), sha256: sha256.clone(), place: "uki:.initrd".to_owned() };
    let package = Package {
        role: Role::Application,
        direct: true,
        hashes: vec![(Algorithm::Sha256, sha256)],
        supplier: Supplier::Organization("Proofmark".to_owned()),
        licence: Some("Apache-2.0".to_owned()),
        homepage: url(env!("CARGO_PKG_REPOSITORY")),
        description: Some("First process of the initrd; it holds no crate but Rust's core".to_owned()),
        layers: BTreeSet::from(["uki:.initrd".to_owned()]),
        files: vec![file],
        ..empty(format!("crate:{name}@{version}"), name, version, purl::cargo(name, version))
    };
    Draft { package, told: Told::Ours }
}

/// Describes the firmware that the reference values are computed for.
fn firmware<'a>(given: &Given<'_>, deb: &Deb) -> Draft<'a> {
    let package = Package {
        role: Role::Firmware,
        direct: true,
        source: None,
        hashes: vec![(Algorithm::Sha256, deb.sha256.clone())],
        supplier: Supplier::Organization("Debian".to_owned()),
        description: Some(
            "Firmware of QEMU that reference values are computed for; not in the image".to_owned(),
        ),
        facts: vec![
            Fact { name: "proofmark:path", value: deb.path.clone() },
            Fact { name: "proofmark:suite", value: deb.suite.clone() },
        ],
        ..empty(
            format!("firmware:{}={}", deb.name, deb.version),
            &deb.name,
            &deb.version,
            purl::deb(&deb.name, &deb.version, &deb.architecture, &given.recipe.debian.suite),
        )
    };
    Draft { package, told: Told::Ours }
}

fn empty(reference: String, name: &str, version: &str, purl: String) -> Package {
    Package {
        reference,
        role: Role::Library,
        name: name.to_owned(),
        version: version.to_owned(),
        purl,
        cpe: None,
        source: None,
        hashes: Vec::new(),
        download: None,
        supplier: Supplier::Organization(String::new()),
        maintainer: None,
        licence: None,
        licence_text: None,
        homepage: None,
        description: None,
        facts: Vec::new(),
        layers: BTreeSet::new(),
        files: Vec::new(),
        needs: BTreeSet::new(),
        within: None,
        direct: false,
    }
}

fn package_json(tree: &Tree, path: &TreePath) -> Option<PackageJson> {
    let content = tree.content(path).ok().filter(|content| content.len() <= MAX_DOCUMENT)?;
    serde_json::from_slice(&content.read().ok()?).ok()
}

/// Returns the licence that a package states, in the current form or an older one.
fn licence_field(document: &PackageJson) -> Option<String> {
    let one = |value: &Value| value.as_str().or_else(|| value.get("type")?.as_str()).map(str::to_owned);
    one(&document.license).or_else(|| {
        let list: Vec<String> = document.licenses.as_array()?.iter().filter_map(one).collect();
        (!list.is_empty()).then(|| list.join(" OR "))
    })
}

/// Returns the author, else the owner of the scope, else the owner of the repository, else the publisher.
fn supplier(document: &PackageJson, name: &str) -> Supplier {
    let text = |value: &Value, field: &str| {
        let text = value.as_str().or_else(|| value.get(field)?.as_str());
        text.map(str::to_owned).unwrap_or_default()
    };
    let author = text(&document.author, "name");
    let author = line(author.split(['<', '(']).next().unwrap_or_default());
    if !author.is_empty() {
        return Supplier::Person(author);
    }
    if let Some((scope, _)) = name.split_once('/') {
        return Supplier::Organization(format!("{scope} at npm"));
    }
    let repository = text(&document.repository, "url");
    let path = repository.split_once("github.com").or_else(|| repository.split_once("github:"));
    let owner =
        path.and_then(|(_, path)| path.trim_start_matches(['/', ':']).split('/').next()).unwrap_or("");
    if !owner.is_empty() {
        return Supplier::Organization(format!("{owner} at github.com"));
    }
    Supplier::Organization(format!("publisher of {name} at npm"))
}

/// Returns the first line of a text, limited in length and without unprintable characters.
fn line(text: &str) -> String {
    let first = text.trim().lines().next().unwrap_or_default();
    first.chars().filter(|char| !char.is_control()).take(200).collect::<String>().trim().to_owned()
}

/// Returns a web address in the form that every validator accepts.
fn url(text: &str) -> Option<String> {
    let text = text.trim();
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#', ':']).next()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let named = host.contains('.') && host.bytes().all(plain) && !host.starts_with(['-', '.']);
    let whole = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"{}|\\^`[]%".contains(&byte));
    (named && whole && text.matches('#').count() <= 1).then(|| text.to_owned())
}

/// For every draft, lists the numbers of the drafts that it needs.
fn needs(drafts: &[Draft<'_>]) -> Vec<BTreeSet<usize>> {
    let mut debs: BTreeMap<&str, usize> = BTreeMap::new();
    let mut provided: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let stanzas: Vec<Option<control::Stanza<'_>>> = drafts
        .iter()
        .map(|draft| match draft.told {
            Told::Debian(text) => control::stanzas(text.as_bytes()).next().and_then(Result::ok),
            _ => None,
        })
        .collect();
    for (number, (draft, stanza)) in drafts.iter().zip(&stanzas).enumerate() {
        match &draft.told {
            Told::Debian(_) => {
                debs.insert(&draft.package.name, number);
                let provides = stanza.as_ref().and_then(|stanza| stanza.value("Provides")).unwrap_or("");
                for group in relation::read(provides).unwrap_or_default() {
                    for one in group.alternatives {
                        provided.entry(one.name).or_default().push(number);
                    }
                }
            }
            Told::Npm(npm, _) if npm.role == NpmRole::Application => {
                places.insert((&npm.application, &npm.location), number);
            }
            _ => {}
        }
    }
    drafts
        .iter()
        .zip(&stanzas)
        .map(|(draft, stanza)| match &draft.told {
            Told::Debian(_) => {
                let fields = ["Pre-Depends", "Depends"].into_iter();
                let values = fields.filter_map(|field| stanza.as_ref()?.value(field));
                values.flat_map(|value| debian_needs(value, drafts, &debs, &provided)).collect()
            }
            Told::Npm(npm, document) => npm_needs(npm, document, &places),
            _ => BTreeSet::new(),
        })
        .collect()
}

/// Takes, from each group of alternatives, the first that is in the image.
fn debian_needs(
    value: &str,
    drafts: &[Draft<'_>],
    debs: &BTreeMap<&str, usize>,
    provided: &BTreeMap<&str, Vec<usize>>,
) -> Vec<usize> {
    let real = |one: &relation::Alternative<'_>| {
        let number = *debs.get(one.name)?;
        let version = version::Version::read(&drafts.get(number)?.package.version).ok()?;
        one.admits(&version).then_some(number)
    };
    let virtually = |one: &relation::Alternative<'_>| provided.get(one.name)?.first().copied();
    let groups = relation::read(value).unwrap_or_default();
    groups
        .iter()
        .filter_map(|group| group.alternatives.iter().find_map(|one| real(one).or_else(|| virtually(one))))
        .collect()
}

/// Resolves each name, from the package's own folder upwards.
fn npm_needs(npm: &Npm, document: &PackageJson, places: &BTreeMap<(&str, &str), usize>) -> BTreeSet<usize> {
    let lists = [&document.dependencies, &document.optional_dependencies, &document.peer_dependencies];
    let names = lists.into_iter().filter_map(Value::as_object).flat_map(|list| list.keys());
    let lookup = |name: &str| {
        let mut folder = npm.location.as_str();
        loop {
            let place = if folder.is_empty() {
                format!("node_modules/{name}")
            } else {
                format!("{folder}/node_modules/{name}")
            };
            if let Some(number) = places.get(&(npm.application.as_str(), place.as_str())) {
                return Some(*number);
            }
            if folder.is_empty() {
                return None;
            }
            folder = folder.rfind("/node_modules/").and_then(|end| folder.get(..end)).unwrap_or("");
        }
    };
    names.filter_map(|name| lookup(name)).collect()
}
