//! Faults around a build: a kill at any moment, damage, lying mirrors, a full disk, a lock that does not fit.
//! Each ends in a clear error or in a complete image, and the store works afterwards.
//!
//! # Not here
//! Images that change after they were built do not boot: `guest_boot`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // all of it is a test

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rootfs::content::Sha256Digest;
use serde_json::Value;
use system_tests::inputs::{self, Inputs};
use system_tests::mirror::{Answer, Mirror};
use system_tests::outcome::Outcome;
use system_tests::tool::skipped;
use system_tests::{folder, program};

/// How many times a run is killed.
const KILLS: u64 = 30;

/// Pseudorandom numbers, the same in each run (splitmix64, by Sebastiano Vigna).
fn number(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The moment of a kill: somewhere in its own part, when `whole` is divided equally among the kills.
fn moment(kill: u64, whole: Duration) -> Duration {
    whole.mul_f64((kill as f64 + (number(kill) % 1000) as f64 / 1000.0) / KILLS as f64)
}

/// Starts a command and kills it with signal 9 after this long; returns whether it was still running.
fn kill_after(command: &mut Command, wait: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    thread::sleep(wait);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.success() || status.signal() == Some(9), "{status}");
    status.signal() == Some(9)
}

/// The root hash of the image in `out`, whose files must be complete and match the manifest.
#[track_caller]
fn whole(out: &Path) -> String {
    let manifest: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    let outputs = manifest["outputs"].as_object().unwrap();
    assert_eq!(outputs.len() + 1, fs::read_dir(out).unwrap().count());
    for (name, output) in outputs {
        let found = Sha256Digest::of(&fs::read(out.join(name)).unwrap()).to_string();
        assert_eq!(output["sha256"].as_str(), Some(found.as_str()), "{name}");
    }
    manifest["verity"]["root_hash"].as_str().unwrap().to_owned()
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Files in a store whose content does not match their name.
fn damaged(store: &Path) -> Vec<PathBuf> {
    let blobs = store.join("blobs/sha256");
    let paths = folder::paths(&blobs).unwrap().into_iter().map(|path| blobs.join(path));
    paths
        .filter(|path| path.is_file())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            Sha256Digest::of(&fs::read(path).unwrap()).to_string() != name
        })
        .collect()
}

/// The lock's entry for the package `name`: the lines of its block, as key and value.
fn locked(lock: &Path, name: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(lock).unwrap();
    let block = text.split("\n\n").find(|block| {
        block.starts_with("[[deb]]") && block.lines().any(|line| line == format!("name = \"{name}\""))
    });
    let lines = block.unwrap().lines().filter_map(|line| line.split_once(" = "));
    lines.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
}

/// The path of a package in the store.
fn stored(store: &Path, package: &BTreeMap<String, String>) -> PathBuf {
    let digest = &package["sha256"];
    store.join("blobs/sha256").join(&digest[..2]).join(digest)
}

/// A build of the recipe that may use these mirrors only.
fn build(inputs: &Inputs, store: &Path, mirrors: &[&Mirror], out: &Path) -> Command {
    let mut command = inputs::proofmark(store);
    for mirror in mirrors {
        command.args(mirror.flags());
    }
    command.arg("build").arg("--out").arg(out).arg(inputs.recipe());
    command
}

#[test]
fn a_build_killed_at_any_moment_leaves_the_old_image_or_the_new_one() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let (store, out) = (root.path().join("store"), root.path().join("images/out"));
    inputs.copy_store(&store).unwrap();
    let fresh = || {
        let mut command = build(&inputs, &store, &[], &out);
        command.args(["--fresh", "--offline"]);
        command
    };
    let start = Instant::now();
    Outcome::of(&mut fresh()).succeeded();
    // The first run is the slowest: a kill just after the end is harmless.
    let mut length = start.elapsed();
    let hash = whole(&out);

    let mut killed = 0;
    for kill in 0..KILLS {
        // Every other time there is an old image.
        let old = kill % 2 == 0;
        if old && !out.exists() {
            Outcome::of(&mut fresh()).succeeded();
        } else if !old && out.exists() {
            fs::remove_dir_all(&out).unwrap();
        }
        let early = kill_after(&mut fresh(), moment(kill, length));
        killed += u64::from(early);
        length = if early { length } else { length.mul_f64(0.8) };
        assert!(out.exists() || !old, "kill {kill} took the old image away");
        if out.exists() {
            assert_eq!(whole(&out), hash, "kill {kill}");
        }
    }
    assert!(killed > KILLS / 2, "only {killed} builds were killed before they ended");
    Outcome::of(&mut fresh()).succeeded();
    assert_eq!(whole(&out), hash);
    assert_eq!(names(out.parent().unwrap()), ["out"]);
    assert_eq!(damaged(&store), Vec::<PathBuf>::new());
}

#[test]
fn a_fetch_killed_at_any_moment_leaves_only_whole_files_and_the_next_one_ends_well() {
    let inputs = Inputs::minimal();
    let mirror = Mirror::start(&inputs.vendored(), |_| Answer::Whole).unwrap();
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    let fetch = || {
        let mut command = inputs::proofmark(&store);
        command.args(mirror.flags()).arg("fetch").arg(inputs.recipe());
        command
    };
    let start = Instant::now();
    Outcome::of(&mut fetch()).succeeded();
    // The first run is the slowest: a kill just after the end is harmless.
    let mut length = start.elapsed();
    let all = folder::paths(&store.join("blobs")).unwrap();

    let mut killed = 0;
    for kill in 0..KILLS {
        // Two times out of three, the run continues where the killed one stopped.
        if kill % 3 == 0 {
            fs::remove_dir_all(&store).unwrap();
        }
        let early = kill_after(&mut fetch(), moment(kill, length));
        killed += u64::from(early);
        length = if early { length } else { length.mul_f64(0.8) };
        if store.join("blobs/sha256").exists() {
            assert_eq!(damaged(&store), Vec::<PathBuf>::new(), "kill {kill}");
        }
    }
    assert!(killed > KILLS / 3, "only {killed} fetches were killed before they ended");
    Outcome::of(&mut fetch()).succeeded();
    assert_eq!(folder::paths(&store.join("blobs")).unwrap(), all);
    let (out, clean) = (root.path().join("out"), root.path().join("clean"));
    Outcome::of(build(&inputs, &store, &[], &out).arg("--offline")).succeeded();
    Outcome::of(build(&inputs, &inputs.store, &[], &clean).args(["--offline", "--fresh"])).succeeded();
    assert_eq!(whole(&out), whole(&clean));
}

#[test]
fn a_damaged_file_in_the_store_is_never_built_from_and_is_fetched_anew() {
    let inputs = Inputs::minimal();
    let mirror = Mirror::start(&inputs.vendored(), |_| Answer::Whole).unwrap();
    let root = tempfile::tempdir().unwrap();
    let (store, out, clean) = (root.path().join("store"), root.path().join("out"), root.path().join("clean"));
    inputs.copy_store(&store).unwrap();
    Outcome::of(build(&inputs, &inputs.store, &[], &clean).args(["--offline", "--fresh"])).succeeded();
    let hash = whole(&clean);
    let mut fresh = build(&inputs, &store, &[&mirror], &out);
    fresh.arg("--fresh");
    let (one, other) = (locked(&inputs.lock(), "passwd"), locked(&inputs.lock(), "mount"));
    let (one_file, other_file) = (stored(&store, &one), stored(&store, &other));

    // Tampered: the size is right, so the damage shows when the file is read. It is then removed, and the next run
    // fetches it.
    let bytes = fs::read(&one_file).unwrap();
    let mut tampered = bytes.clone();
    tampered[bytes.len() / 2] ^= 1;
    fs::write(&one_file, &tampered).unwrap();
    let outcome = Outcome::of(&mut fresh);
    outcome.refused(1, &["passwd", &one["version"], "damaged", &one["sha256"], "run the command again"]);
    assert!(!out.exists() && !one_file.exists());
    Outcome::of(&mut fresh).succeeded();
    assert_eq!(whole(&out), hash);
    assert_eq!(fs::read(&one_file).unwrap(), bytes);

    // Truncated, and swapped: the size is wrong, so the files are fetched before anything is built.
    for damage in ["truncated", "swapped"] {
        fs::remove_dir_all(&out).unwrap();
        if damage == "truncated" {
            fs::write(&one_file, &bytes[..bytes.len() / 2]).unwrap();
        } else {
            let between = store.join("between");
            fs::rename(&one_file, &between).unwrap();
            fs::rename(&other_file, &one_file).unwrap();
            fs::rename(&between, &other_file).unwrap();
        }
        let asked = mirror.asked().len();
        let offline = Outcome::of(build(&inputs, &store, &[], &out).args(["--fresh", "--offline"]));
        offline.refused(3, &["is not in the store", "proofmark fetch"]);
        assert!(!out.exists());
        Outcome::of(&mut fresh).succeeded();
        assert_eq!(whole(&out), hash);
        assert_eq!(mirror.asked().len() - asked, if damage == "truncated" { 1 } else { 2 });
        assert_eq!(damaged(&store), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_damaged_cache_is_not_believed() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let (store, out) = (root.path().join("store"), root.path().join("out"));
    inputs.copy_store(&store).unwrap();
    let mut command = build(&inputs, &store, &[], &out);
    command.arg("--offline");
    Outcome::of(&mut command).succeeded();
    let hash = whole(&out);
    let derived = store.join("derived");
    for (index, path) in folder::paths(&derived).unwrap().into_iter().enumerate() {
        let path = derived.join(path);
        if path.is_file() {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            if index % 2 == 0 {
                bytes.truncate(middle)
            } else {
                bytes[middle] ^= 1
            }
            fs::write(&path, bytes).unwrap();
        }
    }
    fs::remove_dir_all(&out).unwrap();
    let rebuilt = Outcome::of(&mut command).succeeded();
    assert!(rebuilt.stderr.contains(", 0 of "), "{}", rebuilt.stderr);
    assert_eq!(whole(&out), hash);
}

#[test]
fn a_mirror_that_lies_is_named_with_both_ways_on_and_the_next_mirror_is_asked() {
    let inputs = Inputs::minimal();
    let vendor = inputs.vendored();
    let good = Mirror::start(&vendor, |_| Answer::Whole).unwrap();
    let root = tempfile::tempdir().unwrap();
    let (store, out) = (root.path().join("store"), root.path().join("out"));
    inputs.copy_store(&store).unwrap();
    let package = locked(&inputs.lock(), "passwd");
    let file = stored(&store, &package);
    let size: u64 = package["size"].parse().unwrap();
    let swapped = fs::read(stored(&store, &locked(&inputs.lock(), "mount"))).unwrap();
    let mut same_size = swapped.clone();
    same_size.resize(size as usize, 0);
    let announced = format!("expected {size} bytes, found {} announced", size + 1);
    let more = format!("expected {size} bytes, found more than {size}");
    let other = format!("expected {size} bytes, found {} announced", swapped.len());
    let digest = format!("expected SHA-256 {}", package["sha256"]);
    let path = format!("{}/{}", package["archive"], package["path"]);
    let cases = [
        (Answer::Missing, "404", 3),
        (Answer::WrongSize, announced.as_str(), 3),
        (Answer::Longer, &more, 3),
        // HTTP itself detects an early close, which may be a passing fault: the two runs without another mirror ask
        // four times each, and the run whose next mirror has the file asks once.
        (Answer::Truncated, "Peer disconnected", 4 + 4 + 1),
        (Answer::Tampered, &digest, 3),
        (Answer::Instead(swapped), &other, 3),
        (Answer::Instead(same_size), &digest, 3),
    ];
    for (answer, said, times) in cases {
        let told = answer.clone();
        let bad = Mirror::start(&vendor, move |_| told.clone()).unwrap();
        let fetch = |mirrors: &[&Mirror]| {
            let mut command = inputs::proofmark(&store);
            for mirror in mirrors {
                command.args(mirror.flags());
            }
            Outcome::of(command.arg("fetch").arg(inputs.recipe()))
        };
        fs::remove_file(&file).unwrap();
        let url = format!("{}/{path}", bad.url());
        let ways = ["proofmark update", "--vendor DIR", "snapshot.debian.org"];
        let parts = [&["passwd", package["version"].as_str(), url.as_str(), said], &ways[..]].concat();
        fetch(&[&bad]).refused(3, &parts);
        let mut command = build(&inputs, &store, &[&bad], &out);
        Outcome::of(command.arg("--fresh")).refused(3, &parts);
        assert!(!out.exists() && !file.exists(), "{answer:?}");
        assert_eq!(names(root.path()), ["store"]);
        assert_eq!(names(&store.join("temporary")), [""; 0], "{answer:?}");
        // The next mirror is asked, and its answer is right.
        fetch(&[&bad, &good]).succeeded();
        assert_eq!(bad.asked(), vec![path.as_str(); times], "{answer:?}");
        assert_eq!(damaged(&store), Vec::<PathBuf>::new());
    }
    assert_eq!(good.asked(), [path.as_str(); 7]);
}

#[test]
fn a_mirror_that_stalls_is_given_up() {
    let inputs = Inputs::minimal();
    let vendor = inputs.vendored();
    let root = tempfile::tempdir().unwrap();
    let store = root.path().join("store");
    inputs.copy_store(&store).unwrap();
    let packages = ["netbase", "login"].map(|name| locked(&inputs.lock(), name));
    for package in &packages {
        fs::remove_file(stored(&store, package)).unwrap();
    }
    let silent = packages[0]["path"].clone();
    let script = move |path: &str| if path.ends_with(&silent) { Answer::Silent } else { Answer::Stalled };
    let bad = Mirror::start(&vendor, script).unwrap();
    let good = Mirror::start(&vendor, |_| Answer::Whole).unwrap();
    let start = Instant::now();
    let mut refused = inputs::proofmark(&store);
    refused.args(bad.flags()).arg("fetch").arg(inputs.recipe());
    let both = thread::spawn(move || Outcome::of(&mut refused));
    // At the same time, with a second mirror.
    let second = root.path().join("second");
    inputs::copy(&store, &second).unwrap();
    let mut command = inputs::proofmark(&second);
    command.args(bad.flags()).args(good.flags()).arg("fetch").arg(inputs.recipe());
    Outcome::of(&mut command).succeeded();
    both.join().unwrap().refused(3, &["timeout", &bad.url(), "proofmark update", "--vendor DIR"]);
    assert!(start.elapsed() < Duration::from_secs(100), "{:?}", start.elapsed());
    assert_eq!(good.asked().len(), 2);
    for package in &packages {
        assert!(stored(&second, package).is_file() && !stored(&store, package).exists());
    }
}

/// The recipe with a new lock, and a vendored folder for it; `None` when no such lock can be made.
fn of_today(inputs: &Inputs, root: &Path) -> Option<(Inputs, PathBuf)> {
    let today = match inputs.locked_now(&root.join("today")) {
        Ok(today) => today,
        Err(why) => {
            skipped(&format!("no lock of today can be had, so no mirror serves one: {why}"));
            return None;
        }
    };
    let vendor = root.join("vendor");
    let mut command = inputs::proofmark(&today.store);
    Outcome::of(command.args(["--offline", "vendor"]).arg(&vendor).arg(today.recipe())).succeeded();
    Some((today, vendor))
}

#[test]
fn a_tampered_unsigned_old_or_swapped_index_is_refused() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let Some((today, vendor)) = of_today(&inputs, root.path()) else { return };
    // The lock carries what was signed, and nothing that another lock carried.
    let mut command = inputs::proofmark(&today.store);
    Outcome::of(command.args(["--offline", "lock", "--check"]).arg(today.recipe())).succeeded();
    let text = fs::read_to_string(today.lock()).unwrap();
    let lock = |answer: fn(&str, &Path) -> Answer| {
        let folder = vendor.clone();
        let mirror = Mirror::start(&vendor, move |path| answer(path, &folder)).unwrap();
        let mut command = inputs::proofmark(&root.path().join("store"));
        command.args(mirror.flags()).arg("lock").arg(today.recipe());
        let outcome = Outcome::of(&mut command);
        (outcome, mirror.url())
    };

    fn unsigned(path: &str, folder: &Path) -> Answer {
        if !path.ends_with("dists/trixie/InRelease") {
            return Answer::Whole;
        }
        let text = fs::read_to_string(folder.join(path)).unwrap();
        let (_, rest) = text.split_once("\n\n").unwrap();
        let (body, _) = rest.split_once("-----BEGIN PGP SIGNATURE").unwrap();
        Answer::Instead(body.as_bytes().to_vec())
    }
    let (outcome, url) = lock(unsigned);
    outcome.refused(3, &["InRelease of trixie", &url, "not signed"]);

    let (outcome, url) =
        lock(
            |path, _| {
                if path.ends_with("dists/trixie/InRelease") { Answer::Tampered } else { Answer::Whole }
            },
        );
    outcome.refused(3, &["InRelease of trixie", &url, "does not match the text"]);

    fn swapped(path: &str, folder: &Path) -> Answer {
        if !path.ends_with("dists/trixie/InRelease") {
            return Answer::Whole;
        }
        let other = path.replace("trixie", "trixie-updates");
        Answer::Instead(fs::read(folder.join(other)).unwrap())
    }
    let (outcome, url) = lock(swapped);
    outcome.refused(3, &["InRelease of trixie", &url, "expected `trixie`"]);

    let (outcome, url) =
        lock(|path, _| if path.contains("/by-hash/") { Answer::Tampered } else { Answer::Whole });
    outcome.refused(3, &["package index of trixie", &url, "expected SHA-256"]);

    // A lock that has seen a newer file than the mirror serves.
    let date = text.lines().find(|line| line.starts_with("date = ")).unwrap();
    fs::write(today.lock(), text.replacen(date, "date = \"20991231T000000Z\"", 1)).unwrap();
    let before = fs::read(today.lock()).unwrap();
    let (outcome, url) = lock(|_, _| Answer::Whole);
    outcome.refused(3, &["InRelease of trixie", &url, "older than"]);
    assert_eq!(fs::read(today.lock()).unwrap(), before, "a refusal leaves the lock as it was");

    // The same mirror, when it serves the right file.
    fs::write(today.lock(), &text).unwrap();
    let (outcome, _) = lock(|_, _| Answer::Whole);
    outcome.succeeded();
    assert_eq!(fs::read_to_string(today.lock()).unwrap(), text);
    assert_eq!(names(&today.recipe()), ["files", "recipe.lock", "recipe.lock.d", "recipe.toml"]);
}

#[test]
fn a_lock_asks_the_next_mirror_only_for_what_the_first_does_not_serve_rightly() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let Some((today, vendor)) = of_today(&inputs, root.path()) else { return };
    let text = fs::read_to_string(today.lock()).unwrap();
    for tampered in [&[][..], &["debian/dists/trixie/InRelease"]] {
        let script =
            move |path: &str| if tampered.contains(&path) { Answer::Tampered } else { Answer::Whole };
        let first = Mirror::start(&vendor, script).unwrap();
        let second = Mirror::start(&vendor, |_| Answer::Whole).unwrap();
        let mut command = inputs::proofmark(&today.store);
        command.args(first.flags()).args(second.flags()).arg("lock").arg(today.recipe());
        Outcome::of(&mut command).succeeded();
        let releases = first.asked().into_iter().filter(|path| path.ends_with("/InRelease")).count();
        assert_eq!(releases, 3, "{:?}", first.asked());
        assert_eq!(second.asked(), tampered);
        assert_eq!(fs::read_to_string(today.lock()).unwrap(), text);
    }
}

/// Runs the program with a disk of 20 MiB mounted; returns the outcome and the disk's content afterwards.
fn on_a_small_disk(command: &Command, disk: &Path) -> Option<(Outcome, String)> {
    let user = if rustix::process::getuid().is_root() { &[][..] } else { &["--user", "--map-root-user"] };
    let script =
        "mount -t tmpfs -o size=20m tmpfs \"$DISK\" || exit 77; \"$@\"; code=$?; find \"$DISK\"; exit $code";
    let mut wrapped = Command::new("unshare");
    wrapped.args(user).args(["--mount", "sh", "-c", script, "sh"]).arg(command.get_program());
    wrapped.args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        wrapped.env(name, value.unwrap());
    }
    wrapped.env("DISK", disk);
    let outcome = Outcome::of(&mut wrapped);
    if outcome.code == Some(77) || outcome.stderr.starts_with("unshare:") {
        skipped(&format!("no small disk can be mounted: {}", outcome.stderr));
        return None;
    }
    let found = outcome.stdout.clone();
    Some((outcome, found))
}

#[test]
fn a_full_disk_is_named_and_nothing_half_is_left_on_it() {
    let inputs = Inputs::minimal();
    let mirror = Mirror::start(&inputs.vendored(), |_| Answer::Whole).unwrap();
    let root = tempfile::tempdir().unwrap();
    let disk = root.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut command = build(&inputs, &inputs.store, &[], &disk.join("out"));
    command.args(["--offline", "--fresh"]);
    let Some((outcome, found)) = on_a_small_disk(&command, &disk) else { return };
    outcome.refused(1, &["No space left", "make room"]);
    assert_eq!(found.trim(), disk.to_str().unwrap());

    let store = disk.join("store");
    let mut command = inputs::proofmark(&store);
    command.args(mirror.flags()).arg("fetch").arg(inputs.recipe());
    let Some((outcome, found)) = on_a_small_disk(&command, &disk) else { return };
    outcome.refused(1, &["No space left", store.to_str().unwrap(), "make room"]);
    assert!(!found.contains("temporary/"), "{found}");
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_anything_is_made() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "mine").unwrap();
    let out = file.join("out");
    let mut command = build(&inputs, &inputs.store, &[], &out);
    let outcome = Outcome::of(command.arg("--offline"));
    outcome.refused(1, &["cannot write", out.to_str().unwrap(), "--out DIR"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");

    // A folder that belongs to somebody else.
    let (theirs, store) = (root.path().join("theirs"), root.path().join("store"));
    fs::create_dir(&theirs).unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let out = theirs.join("out");
    inputs.copy_store(&store).unwrap();
    let mut command = build(&inputs, &store, &[], &out);
    command.arg("--offline");
    if rustix::process::getuid().is_root() {
        // Root may write everywhere.
        let program = root.path().join("pm");
        let recipes = root.path().join("recipes");
        fs::copy(program::proofmark(), &program).unwrap();
        inputs::copy(&inputs.recipes, &recipes).unwrap();
        for entry in folder::paths(&store).unwrap() {
            std::os::unix::fs::chown(store.join(entry), Some(65534), Some(65534)).unwrap();
        }
        let copied = Inputs { recipes, store: store.clone() };
        let inner = build(&copied, &store, &[], &out);
        let mut outer = Command::new("setpriv");
        outer.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
        outer.args(inner.get_args()).arg("--offline").env_clear();
        for (name, value) in inner.get_envs() {
            outer.env(name, value.unwrap());
        }
        command = outer;
    }
    let outcome = Outcome::of(&mut command);
    outcome.refused(1, &["cannot write", out.to_str().unwrap(), "ermission denied", "--out DIR"]);
    assert_eq!(names(&theirs), [""; 0]);
}

#[test]
fn a_build_deletes_nothing_that_no_build_wrote() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let run = |out: &Path, more: &[&str]| {
        let mut command = build(&inputs, &inputs.store, &[], out);
        Outcome::of(command.args(more).arg("--offline"))
    };
    fs::create_dir_all(path("work/.git")).unwrap();
    fs::create_dir_all(path("work/src")).unwrap();
    fs::write(path("work/src/precious.c"), "int main;").unwrap();
    fs::write(path("file"), "hello").unwrap();
    std::os::unix::fs::symlink("work", path("link")).unwrap();
    inputs::copy(&inputs.recipes, &path("recipes")).unwrap();
    let before = folder::paths(root.path()).unwrap();
    let mut own = inputs::proofmark(&inputs.store);
    own.args(["--offline", "build", "minimal", "--out", "minimal"]).current_dir(path("recipes"));
    Outcome::of(&mut own).refused(1, &["minimal", "did not write it", "--out DIR"]);
    run(&path("work"), &[]).refused(1, &["work", "did not write it", "--out DIR"]);
    run(&path("file"), &[]).refused(1, &["file", "not a folder", "--out DIR"]);
    run(&path("link"), &[]).refused(1, &["symbolic link", "--out DIR"]);
    assert_eq!(folder::paths(root.path()).unwrap(), before);
    assert!(path("link").is_symlink());

    // A build's outputs are replaced; files that somebody added stay, including signatures of the same bytes.
    let out = path("out");
    run(&out, &[]).succeeded();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    fs::write(out.join("provenance.sigstore.json"), "signed").unwrap();
    let disk = fs::read(out.join("disk.raw")).unwrap();
    fs::write(out.join("disk.raw"), "damaged").unwrap();
    run(&out, &[]).succeeded();
    assert!(fs::read(out.join("disk.raw")).unwrap() == disk);
    assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(out.join("provenance.sigstore.json")).unwrap(), "signed");
    run(&out, &["--profile", "debug"])
        .refused(1, &["provenance.sigstore.json", "different bytes", "raise the version"]);
    assert!(fs::read(out.join("disk.raw")).unwrap() == disk);
}

/// A copy of the recipes that a test may edit.
fn edited(inputs: &Inputs, root: &Path, file: &str, from: &str, to: &str) -> Inputs {
    let recipes = root.join("recipes");
    if recipes.exists() {
        fs::remove_dir_all(&recipes).unwrap();
    }
    inputs::copy(&inputs.recipes, &recipes).unwrap();
    let path = recipes.join("minimal").join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from:?} is not in {file}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    Inputs { recipes, store: inputs.store.clone() }
}

#[test]
fn a_lock_that_does_not_fit_the_recipe_is_refused_and_the_check_says_no() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let check = |inputs: &Inputs| {
        Outcome::of(
            inputs::proofmark(&inputs.store).args(["--offline", "lock", "--check"]).arg(inputs.recipe()),
        )
    };
    check(&inputs).succeeded();
    let more = "[debian]\npackages = [\"sed\"]\n\n[systemd]";
    let stale = edited(&inputs, root.path(), "recipe.toml", "[systemd]", more);
    let parts = [stale.lock().display().to_string(), "is stale".to_owned(), "`proofmark lock`".to_owned()];
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Outcome::of(build(&stale, &stale.store, &[], &out).arg("--offline")).refused(1, &parts);
    Outcome::of(inputs::proofmark(&stale.store).args(["--offline", "fetch"]).arg(stale.recipe()))
        .refused(1, &parts);
    check(&stale).refused(4, &parts);

    // What the lock carries is a part of it.
    let release = "debian/dists/trixie/InRelease";
    let of = format!("recipe.lock.d/{release}");
    let tampered = edited(&inputs, root.path(), &of, "Codename: trixie", "Codename: Trixie");
    check(&tampered)
        .refused(4, &["trixie/InRelease is missing or does not match the lock", "`proofmark lock`"]);
    fs::remove_file(tampered.carried().join(release)).unwrap();
    check(&tampered).refused(4, &["trixie/InRelease is missing or does not match the lock"]);
    fs::copy(inputs.carried().join(release), tampered.carried().join(release)).unwrap();
    check(&tampered).succeeded();
    fs::write(tampered.carried().join("more"), "").unwrap();
    check(&tampered).refused(4, &["more is not named by the lock"]);

    let stale = edited(&inputs, root.path(), "recipe.toml", "[systemd]", more);
    fs::remove_file(stale.lock()).unwrap();
    let outcome = Outcome::of(build(&stale, &stale.store, &[], &out).arg("--offline"));
    outcome.refused(1, &["recipe.lock is not there", "`proofmark lock`"]);
    assert_eq!(names(root.path()), ["recipes"]);
}

#[test]
fn an_image_whose_program_lacks_a_library_is_refused() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let program =
        "[[files]]\nsource = \"files/lost\"\ntarget = \"/usr/bin/lost\"\nmode = \"0755\"\n\n[systemd]";
    let lost = edited(&inputs, root.path(), "recipe.toml", "[systemd]", program);
    let sources = tempfile::tempdir().unwrap();
    let compile = |name: &str, text: &str, flags: &[&str]| {
        let source = sources.path().join(name).with_extension("c");
        fs::write(&source, text).unwrap();
        let mut command = Command::new("cc");
        Outcome::of(command.arg(&source).args(flags).arg("-o").arg(sources.path().join(name))).succeeded();
    };
    compile(
        "libabsent.so",
        "int absent(void) { return 1; }",
        &["-shared", "-fPIC", "-Wl,-soname,libabsent.so.1"],
    );
    let library = sources.path().join("libabsent.so");
    let main = "int absent(void); int main(void) { return absent(); }";
    compile("lost", main, &["-Wl,--no-as-needed", library.to_str().unwrap()]);
    fs::copy(sources.path().join("lost"), lost.recipe().join("files/lost")).unwrap();

    // An old image stays unchanged.
    Outcome::of(build(&inputs, &inputs.store, &[], &out).arg("--offline")).succeeded();
    let image = whole(&out);
    Outcome::of(build(&lost, &lost.store, &[], &out).arg("--offline"))
        .refused(1, &["lacks", "/usr/bin/lost", "libabsent.so.1"]);
    assert_eq!(whole(&out), image);
    assert_eq!(names(root.path()), ["out", "recipes"]);
}

/// As `proofmark build … | head -n 1`: the image is written, and a broken pipe is not reported.
#[test]
fn a_build_whose_summary_nobody_reads_succeeds() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = build(&inputs, &inputs.store, &[], &out);
    let child = command.arg("--offline").stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("panicked"), "{said}");
    assert!(out.join("manifest.json").is_file());
}

#[test]
fn a_lock_edited_by_hand_is_refused() {
    let inputs = Inputs::minimal();
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let package = locked(&inputs.lock(), "passwd");
    let line = |key: &str| format!("{key} = \"{}\"", package[key]);
    let version = "version = 1\n";
    let other_digest = format!("sha256 = \"{}\"", "0".repeat(64));
    let cases = [
        (line("sha256"), "sha256 = \"abc\"".to_owned(), 1, "sha256 of passwd is wrong"),
        (line("path"), "path = \"../../etc/passwd\"".to_owned(), 1, "path of passwd is wrong"),
        (line("path"), "path = \"/etc/passwd\"".to_owned(), 1, "path of passwd is wrong"),
        (line("path"), "path = \"http://evil.example/x.deb\"".to_owned(), 1, "path of passwd is wrong"),
        (line("path"), "paht = \"x\"".to_owned(), 1, "unknown field `paht`"),
        (version.to_owned(), "version = 2\n".to_owned(), 1, "has version 2, expected 1"),
        // No mirror can serve a digest that no file has.
        (line("sha256"), other_digest, 3, "passwd"),
    ];
    for (from, to, code, said) in cases {
        let wrong = edited(&inputs, root.path(), "recipe.lock", &from, &to);
        let outcome = Outcome::of(build(&wrong, &wrong.store, &[], &out).arg("--offline"));
        outcome.refused(code, &[said]);
        if code == 1 {
            assert!(outcome.stderr.contains(wrong.lock().to_str().unwrap()), "{}", outcome.stderr);
        }
        assert_eq!(names(root.path()), ["recipes"], "{to}");
    }
}

#[test]
fn an_offline_build_from_an_empty_store_says_what_is_missing_and_asks_nobody() {
    let inputs = Inputs::minimal();
    let mirror = Mirror::start(&inputs.vendored(), |_| Answer::Whole).unwrap();
    let root = tempfile::tempdir().unwrap();
    let (store, out) = (root.path().join("store"), root.path().join("out"));
    let outcome = Outcome::of(build(&inputs, &store, &[&mirror], &out).arg("--offline"));
    outcome.refused(3, &["is not in the store", "more files", "proofmark fetch", "--vendor DIR"]);
    assert_eq!(mirror.asked(), [""; 0]);
    assert_eq!(names(root.path()), ["store"]);
}
