//! Builds images of the recipe `minimal` in different environments: every byte of every output is the same.
//!
//! # Not here
//! Whether the image boots.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // all of it is a test

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use system_tests::inputs::{self, Inputs};
use system_tests::outcome::Outcome;
use system_tests::tool::find;
use system_tests::{folder, program};

const OUTPUTS: [&str; 8] = [
    "contents.json",
    "disk.raw",
    "image.efi",
    "manifest.json",
    "recipe.lock",
    "reference-values.json",
    "sbom.cdx.json",
    "sbom.spdx.json",
];
/// The user `nobody` and the group `nogroup` of Debian's base-passwd.
const NOBODY: u32 = 65534;

/// Fails with the first file that differs, and where.
#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let names = |path: &Path| {
        let mut names: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(one), OUTPUTS);
    assert_eq!(names(other), OUTPUTS);
    for name in OUTPUTS {
        let (a, b) = (fs::read(one.join(name)).unwrap(), fs::read(other.join(name)).unwrap());
        let place = a.iter().zip(&b).position(|(a, b)| a != b);
        let (a, b) = (a.len(), b.len());
        assert!(place.is_none() && a == b, "{name} differs at byte {place:?}; its lengths are {a} and {b}");
    }
}

/// The first processor that this process may use.
fn first_processor() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    list.trim().split(['-', ',']).next().unwrap().to_owned()
}

/// Gives a folder and everything in it to a user, who alone may read it.
fn give_away(path: &Path, to: Option<u32>) {
    for entry in folder::paths(path).unwrap() {
        let entry = path.join(entry);
        let mode = if entry.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(&entry, Permissions::from_mode(mode)).unwrap();
        chown(&entry, to, to).unwrap();
    }
}

/// A build in a plain environment: two processors, the current time, this user.
fn build(inputs: &Inputs, store: &Path, out: &Path, more: &[&str]) -> Outcome {
    let mut command = inputs::proofmark(store);
    command.args(["--offline", "build"]).args(more).arg("--out").arg(out).arg(inputs.recipe());
    Outcome::of(&mut command).succeeded()
}

/// The command line before the program: another umask, one processor, another time and another user.
fn strange_environment() -> Vec<String> {
    let mut before: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| before.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["sh", "-c", r#"umask 077; exec "$@""#, "sh"]);
    // Without one of these programs, its part of the environment is not compared, which `find` tells.
    if find("taskset").is_some() {
        add(&["taskset", "-c", &first_processor()]);
    }
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: not root, so there is no other user to build as");
    } else if find("setpriv").is_some() {
        let id = NOBODY.to_string();
        add(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    if find("faketime").is_some() {
        add(&["faketime", "2031-01-01 00:00:00"]);
    }
    before
}

#[test]
fn two_builds_in_unlike_environments_give_the_same_bytes() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
    let before = strange_environment();

    let far = root.path().join("far away/b\u{fc}ro/4");
    let (recipes, store, home) = (far.join("Rezepte"), far.join("store"), far.join("home"));
    inputs::copy(&inputs.recipes, &recipes).unwrap();
    inputs.copy_store(&store).unwrap();
    fs::create_dir(&home).unwrap();
    give_away(&far, rustix::process::getuid().is_root().then_some(NOBODY));
    for above in [root.path().join("far away"), root.path().join("far away/b\u{fc}ro")] {
        fs::set_permissions(above, Permissions::from_mode(0o755)).unwrap();
    }
    let strange_program = root.path().join("pm");
    fs::copy(program::proofmark(), &strange_program).unwrap();
    fs::set_permissions(&strange_program, Permissions::from_mode(0o755)).unwrap();

    for profile in ["release", "debug"] {
        let plain = root.path().join(profile);
        build(&inputs, &inputs.store, &plain, &["--fresh", "--profile", profile]);

        // In the recipe's own folder, and to the program's default folder.
        let mut words = before.iter();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(&strange_program).args(["--offline", "build", "--profile", profile]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", &home);
        command.env("PROOFMARK_STORE", &store).env("TZ", "Pacific/Kiritimati").env("RAYON_NUM_THREADS", "1");
        command.env("LC_ALL", "tr_TR.UTF-8").env("LANG", "tr_TR.UTF-8").env("TMPDIR", &home);
        let built = Outcome::of(command.current_dir(recipes.join("minimal"))).succeeded();
        assert!(built.stdout.contains("built in"), "{}", built.stdout);
        let suffix = if profile == "debug" { "-debug" } else { "" };
        assert_same(&plain, &recipes.join(format!("minimal/out/minimal-1{suffix}")));
    }
}

#[test]
fn a_build_from_a_vendored_folder_and_an_empty_store_gives_the_same_bytes() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let vendor: PathBuf = inputs.vendored();
    let (plain, auditor) = (root.path().join("plain"), root.path().join("auditor"));
    build(&inputs, &inputs.store, &plain, &[]);
    let folder = vendor.to_str().unwrap();
    build(&inputs, &root.path().join("store"), &auditor, &["--vendor", folder]);
    assert_same(&plain, &auditor);
}

#[test]
fn a_fresh_build_equals_one_from_caches() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    inputs.copy_store(&store).unwrap();
    let out = |name: &str| root.path().join(name);
    let first = build(&inputs, &store, &out("first"), &[]);
    assert!(first.stderr.contains(", 0 of "), "{}", first.stderr);
    let cached = build(&inputs, &store, &out("cached"), &[]);
    assert!(cached.stdout.contains("built in"), "{}", cached.stdout);
    assert!(cached.stderr.contains("archives from the cache"), "{}", cached.stderr);
    assert!(!cached.stderr.contains(", 0 of "), "{}", cached.stderr);
    let fresh = build(&inputs, &store, &out("fresh"), &["--fresh"]);
    assert!(fresh.stderr.contains(", 0 of "), "{}", fresh.stderr);
    assert_same(&out("first"), &out("cached"));
    assert_same(&out("first"), &out("fresh"));
    // Nothing changed: the outputs stay as they are, byte for byte.
    let again = build(&inputs, &store, &out("first"), &[]);
    assert!(again.stdout.contains("nothing changed"), "{}", again.stdout);
    assert_same(&out("first"), &out("fresh"));
}
