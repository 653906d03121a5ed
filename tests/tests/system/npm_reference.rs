//! Compares the layout of npm packages with npm's own: kinds, modes, link targets and bytes of every path.
//!
//! npm is the machine's, with the registry that it is configured for. `PROOFMARK_OPENCLAW` names a folder with the
//! `package.json` and `package-lock.json` of OpenClaw; the default is `../shared/openclaw` beside the checkout.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;
use rootfs::content::{Packing, Sha256Digest};
use rootfs::npm::engines;
use rootfs::npm::layout::lay_out;
use rootfs::npm::lock::{LINUX_X64_GLIBC, PackageLock};
use rootfs::npm::tarball::{Destination, unpack};
use rootfs::omit::{Omit, Rule, Tally};
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Origin, Tree};
use system_tests::npm::{Npm, openclaw};
use system_tests::tool::skipped;

/// An application with an alias, a scope, nested packages, programs, and packages for other platforms.
const SMALL: &str = r#"{"name":"small","version":"1.0.0","private":true,"dependencies":{
    "@lydell/node-pty":"1.1.0","string-width-cjs":"npm:string-width@4.2.3","wrap-ansi":"8.1.0","semver":"7.7.3",
    "which":"5.0.0","rimraf":"5.0.10"}}"#;

fn npm() -> Npm {
    Npm::new(env!("CARGO_TARGET_TMPDIR"))
}

/// The entry at a path, in comparable form.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Directory(u32),
    File(u32, Sha256Digest),
    Link(String),
}

fn on_disk(root: &Path, relative: &str, found: &mut BTreeMap<String, Found>) {
    for entry in fs::read_dir(root.join(relative)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{relative}/{}", entry.file_name().to_str().unwrap());
        let meta = entry.metadata().unwrap();
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            found.insert(path, Found::Link(target.to_str().unwrap().to_owned()));
        } else if meta.is_dir() {
            on_disk(root, &path, found);
            found.insert(path, Found::Directory(mode));
        } else if path != "node_modules/.package-lock.json" {
            found.insert(path, Found::File(mode, Sha256Digest::of(&fs::read(entry.path()).unwrap())));
        }
    }
}

fn lay_out_in_memory(lock: &[u8], omit: &Omit) -> (Tree, Tally) {
    let start = Instant::now();
    let lock = PackageLock::parse(lock).unwrap();
    let entries = lock.select(&LINUX_X64_GLIBC).unwrap();
    engines::check(entries.iter().copied(), "22.19.0").unwrap();
    let packages = lay_out(entries);
    let read = start.elapsed();
    let tarballs: Vec<Vec<u8>> =
        packages.iter().map(|package| npm().cached(&package.entry.integrity).unwrap()).collect();
    let start = Instant::now();
    let root = TreePath::root();
    let destination = Destination { root: &root, omit, packing: Packing::Raw };
    let unpacked: Vec<_> = packages
        .par_iter()
        .zip(&tarballs)
        .map(|(package, tarball)| unpack(tarball, package, &destination).unwrap())
        .collect();
    let unpacking = start.elapsed();
    let start = Instant::now();
    let mut tree = Tree::new(Origin::fix_up("test"));
    let mut omitted = Tally::new(omit.len());
    for one in unpacked {
        omitted.add(&one.omitted);
        for (path, node) in one.layer.entries {
            tree.insert(path, node).unwrap();
        }
    }
    eprintln!(
        "{} of {} packages: lock read in {read:?}, unpacked in {unpacking:?}, {} paths merged in {:?}",
        packages.len(),
        lock.entries().len(),
        tree.len(),
        start.elapsed()
    );
    (tree, omitted)
}

fn in_memory(tree: &Tree) -> BTreeMap<String, Found> {
    let found = |(path, node): (&TreePath, &rootfs::tree::Node)| {
        let found = match &node.kind {
            Kind::Directory => Found::Directory(node.mode.into()),
            Kind::File(content) => Found::File(node.mode.into(), content.sha256()),
            Kind::Symlink(target) => Found::Link(target.to_string()),
            other => panic!("{path} is a {}", other.name()),
        };
        (path.as_str().to_owned(), found)
    };
    tree.below(&TreePath::new("node_modules").unwrap()).map(found).collect()
}

/// Lets npm install the application, and compares the result.
fn compare(application: &Path) -> Option<usize> {
    let folder = match npm().installed(application) {
        Ok(folder) => folder,
        Err(why) => {
            skipped(&why);
            return None;
        }
    };
    let mut want = BTreeMap::new();
    on_disk(&folder, "node_modules", &mut want);
    let lock = fs::read(folder.join("package-lock.json")).unwrap();
    let found = in_memory(&lay_out_in_memory(&lock, &Omit::nothing()).0);
    let paths: std::collections::BTreeSet<_> = want.keys().chain(found.keys()).collect();
    let differing: Vec<String> = paths
        .into_iter()
        .filter(|path| want.get(*path) != found.get(*path))
        .map(|path| format!("{path}: npm {:?}, here {:?}", want.get(path), found.get(path)))
        .collect();
    assert!(
        differing.is_empty(),
        "{} paths differ:\n{}",
        differing.len(),
        differing[..20.min(differing.len())].join("\n")
    );
    Some(want.len())
}

#[test]
fn a_small_application_is_laid_out_as_npm_does() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("package.json"), SMALL).unwrap();
    if let Err(why) = npm().run(folder.path(), &["install", "--package-lock-only"]) {
        return skipped(&why);
    }
    if let Some(paths) = compare(folder.path()) {
        assert!(paths > 200, "{paths}");
    }
}

#[test]
fn openclaw_is_laid_out_as_npm_does() {
    let Some(material) = openclaw() else {
        return skipped("no package-lock.json of OpenClaw: set PROOFMARK_OPENCLAW");
    };
    let Some(paths) = compare(&material) else { return };
    assert!(paths > 45_000, "{paths}");

    let lock = fs::read(material.join("package-lock.json")).unwrap();
    let rules = ["node_modules/**/*.map", "node_modules/none/**"].map(Rule::new);
    let (tree, omitted) = lay_out_in_memory(&lock, &Omit::new(&rules).unwrap());
    assert!(tree.iter().all(|(path, _)| !path.name().ends_with(".map")));
    let maps = omitted.by_rule()[0];
    eprintln!("source maps: {} files, {} bytes", maps.files, maps.bytes);
    assert!(maps.files > 8_000 && maps.bytes > 70_000_000);
    assert_eq!(omitted.stale().collect::<Vec<_>>(), [1]);
}
