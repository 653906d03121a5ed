//! Holds the layout of npm packages against what npm itself gives: kinds, modes, link targets and bytes of every path.
//!
//! npm is the machine's, with the registry that it is configured for. `PROOFMARK_OPENCLAW` names a folder with the
//! `package.json` and `package-lock.json` of OpenClaw; without it, `../shared/openclaw` beside the checkout is looked at.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rayon::prelude::*;
use rootfs::content::{Packing, Sha256Digest};
use rootfs::npm::engines;
use rootfs::npm::layout::{Package, lay_out};
use rootfs::npm::lock::{LINUX_X64_GLIBC, PackageLock};
use rootfs::npm::omit::{Omit, Rule, Tally};
use rootfs::npm::tarball::{Destination, unpack};
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Origin, Tree};

/// An application with an alias, a scope, nested packages, programs, and packages for other platforms.
const SMALL: &str = r#"{"name":"small","version":"1.0.0","private":true,"dependencies":{
    "@lydell/node-pty":"1.1.0","string-width-cjs":"npm:string-width@4.2.3","wrap-ansi":"8.1.0","semver":"7.7.3",
    "which":"5.0.0","rimraf":"5.0.10"}}"#;

/// Says loudly that a check did not happen; fails where it must.
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
}

/// Runs npm in `folder` with a cache of the tests' own, under umask 022.
fn npm(folder: &Path, arguments: &[&str]) -> bool {
    let cache = cache();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"umask 022; exec npm "$@""#, "sh"]).args(arguments).current_dir(folder);
    command.args([
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--omit-lockfile-registry-resolved=true",
        "--cache",
    ]);
    let output = command.arg(&cache).output();
    match output {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("npm {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            eprintln!("npm {arguments:?}: {error}");
            false
        }
    }
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm-cache")
}

/// The tarball of a package out of npm's cache, which is keyed by integrity.
fn tarball(package: &Package) -> Vec<u8> {
    let hex: String = package.entry.integrity.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = cache().join("_cacache/content-v2/sha512").join(&hex[..2]).join(&hex[2..4]).join(&hex[4..]);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What lies at a path, in comparable form.
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
    let tarballs: Vec<Vec<u8>> = packages.iter().map(tarball).collect();
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

/// The folder in which npm installed this application; kept, for npm takes half a minute or more.
fn installed(application: &Path) -> Option<PathBuf> {
    let documents = ["package.json", "package-lock.json"];
    let bytes: Vec<u8> =
        documents.iter().flat_map(|name| fs::read(application.join(name)).unwrap()).collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("npm-ci-{}", Sha256Digest::of(&bytes)));
    let done = folder.join("done");
    if !done.is_file() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for name in documents {
            fs::copy(application.join(name), folder.join(name)).unwrap();
        }
        if !npm(&folder, &["ci"]) {
            return None;
        }
        fs::write(done, "").unwrap();
    }
    Some(folder)
}

/// Lets npm install the application, and compares.
fn compare(application: &Path) -> Option<usize> {
    let Some(folder) = installed(application) else {
        skipped("npm ci did not work");
        return None;
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

fn openclaw() -> Option<PathBuf> {
    let named = std::env::var_os("PROOFMARK_OPENCLAW").map(PathBuf::from);
    let beside = || {
        let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        folders.map(|folder| folder.join("shared/openclaw")).find(|folder| folder.is_dir())
    };
    named.or_else(beside).filter(|folder| folder.join("package-lock.json").is_file())
}

#[test]
fn a_small_application_is_laid_out_as_npm_does() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("package.json"), SMALL).unwrap();
    if !npm(folder.path(), &["install", "--package-lock-only"]) {
        return skipped("npm cannot resolve the small application");
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
