//! Compares the resolver, the version order and the archive's signatures with apt and dpkg themselves.
//!
//! Needs apt, dpkg and a Debian mirror (the one in the machine's own apt configuration). Without apt the tests say
//! so and pass, unless `CI=true`: then they fail.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use proofmark::resolve::packages;
use proofmark::resolve::scripts::{self, Script, ScriptKind, Table};
use proofmark::resolve::solve::{Essential, Request, Suite, Universe, solve};
use proofmark::trust::debian::inrelease::{self, Expected, InReleaseError};
use proofmark::trust::debian::keys::{Keyring, UnixTime};
use proofmark::trust::debian::version::Version;
use system_tests::debian::{self, Apt, SUITES};

fn apt() -> Option<Apt> {
    debian::apt(env!("CARGO_TARGET_TMPDIR"))
}

/// The suites' package indexes.
fn indexes(apt: &Apt) -> Vec<Vec<u8>> {
    SUITES.iter().map(|suite| apt.list(&format!("_dists_{suite}_main_binary-amd64_Packages"))).collect()
}

fn same_choice(essential: Essential, sets: &[&[&str]]) {
    let Some(apt) = apt() else { return };
    let indexes = indexes(&apt);
    let start = Instant::now();
    let suites = SUITES
        .iter()
        .zip(&indexes)
        .map(|(name, bytes)| Suite { name, packages: packages::read(bytes, "amd64").unwrap() });
    let universe = Universe::merge(suites.collect()).unwrap();
    let read = start.elapsed();
    // Not `?essential`: apt counts itself as essential, although its stanza does not say so.
    let first = packages::read(&indexes[0], "amd64").unwrap();
    let mut all_essential: Vec<&str> = first.iter().filter(|p| p.essential).map(|p| p.name).collect();
    all_essential.sort_unstable();
    assert!(all_essential.len() > 10);
    for roots in sets {
        let start = Instant::now();
        let solution = solve(&universe, &Request { roots, essential, exclude: &[] })
            .unwrap_or_else(|error| panic!("{roots:?}: {error}"));
        let took = start.elapsed();
        let ours: BTreeMap<String, String> = solution
            .chosen
            .iter()
            .map(|chosen| (chosen.package.name.to_owned(), chosen.package.version.to_string()))
            .collect();
        let mut asked = Vec::new();
        if essential == Essential::Included {
            asked.extend(&all_essential);
        }
        asked.extend(*roots);
        let theirs = apt.install(&asked).unwrap();
        let more: Vec<_> = ours.iter().filter(|(name, version)| theirs.get(*name) != Some(version)).collect();
        let less: Vec<_> = theirs.iter().filter(|(name, version)| ours.get(*name) != Some(version)).collect();
        assert!(more.is_empty() && less.is_empty(), "{roots:?}: only ours {more:?}, only apt's {less:?}");
        eprintln!("{roots:?} {essential:?}: {} packages, read {read:?}, solved {took:?}", ours.len());
    }
}

const SETS: &[&[&str]] = &[
    &[
        "systemd",
        "systemd-sysv",
        "udev",
        "dbus-broker",
        "libpam-systemd",
        "linux-image-cloud-amd64",
        "nftables",
        "ca-certificates",
        "openssh-server",
    ],
    &["mmdebstrap"],
    &["nginx", "postgresql"],
    &["curl", "python3"],
];

#[test]
fn the_choice_equals_apts_with_the_essential_set() {
    same_choice(Essential::Included, SETS);
}

#[test]
fn the_choice_equals_apts_without_the_essential_set() {
    same_choice(Essential::OnlyIfNeeded, SETS);
}

#[test]
fn the_choice_equals_apts_for_packages_with_many_alternatives() {
    same_choice(
        Essential::OnlyIfNeeded,
        &[
            &["build-essential", "debhelper", "devscripts"],
            &["exim4", "mutt", "cron"],
            &["gnome-core"],
            &["texlive-latex-base"],
            &["docker.io", "podman", "qemu-system-x86"],
            &["default-jre-headless", "r-base-core", "octave"],
            &["apache2", "php", "mariadb-server"],
            &["network-manager", "cryptsetup", "lvm2", "mdadm"],
        ],
    );
}

/// The packages that recipes are made of.
const BASE: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus-broker",
    "libpam-systemd",
    "linux-image-cloud-amd64",
    "systemd-boot-efi",
    "ca-certificates",
    "openssh-server",
    "nftables",
    "base-files",
    "base-passwd",
    "libc-bin",
    "login",
    "passwd",
    "util-linux",
    "coreutils",
    "bash",
    "dash",
    "findutils",
    "grep",
    "sed",
    "tar",
    "gzip",
    "procps",
    "iproute2",
    "tzdata",
    "netbase",
    "kmod",
    "systemd-resolved",
    "systemd-timesyncd",
];

#[test]
fn every_maintainer_script_of_the_base_packages_is_reviewed() {
    let Some(apt) = apt() else { return };
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = apt.install(BASE).unwrap().into_keys().collect();
    let mut arguments = vec!["download"];
    arguments.extend(names.iter().map(String::as_str));
    apt.run("apt-get", folder.path(), &arguments).unwrap();
    let mut scripts: Vec<(String, ScriptKind, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let archive = entry.unwrap().path();
        let package = archive.file_name().unwrap().to_str().unwrap().split_once('_').unwrap().0.to_owned();
        let control = tempfile::tempdir().unwrap();
        let status = Command::new("dpkg-deb").arg("-e").arg(&archive).arg(control.path()).status().unwrap();
        assert!(status.success());
        for member in fs::read_dir(control.path()).unwrap() {
            let member = member.unwrap();
            if let Some(kind) = ScriptKind::from_member(member.file_name().to_str().unwrap()) {
                scripts.push((package.clone(), kind, fs::read(member.path()).unwrap()));
            }
        }
    }
    let list = scripts.iter().map(|(package, kind, bytes)| Script { package, kind: *kind, bytes });
    let start = Instant::now();
    let review = scripts::review(list, &Table::shipped().unwrap(), &BTreeMap::new())
        .unwrap_or_else(|unknown| panic!("{unknown}"));
    eprintln!("{} packages, {} scripts, judged in {:?}", names.len(), review.judged.len(), start.elapsed());
    assert!(review.judged.len() > 150);
}

#[test]
fn the_real_suites_are_signed_by_the_pinned_keys() {
    let Some(apt) = apt() else { return };
    let keyring = Keyring::debian().unwrap();
    let now = UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    for suite in SUITES {
        let file = apt.list(&format!("_dists_{suite}_InRelease"));
        let expected = Expected { suite, architecture: "amd64", now, previous: None };
        let start = Instant::now();
        let release =
            inrelease::verify(&file, &keyring, &expected).unwrap_or_else(|error| panic!("{suite}: {error}"));
        eprintln!("{suite}: {:?}, {} indexes, {:?}", release.signers, release.indexes.len(), start.elapsed());
        assert_eq!(release.codename, suite);
        let index = apt.list(&format!("_dists_{suite}_main_binary-amd64_Packages"));
        assert_eq!(release.index("main/binary-amd64/Packages").unwrap().size, index.len() as u64);
        let mut tampered = file.clone();
        let place = tampered.windows(8).position(|window| window == b"SHA256:\n").unwrap() + 10;
        tampered[place] ^= 1;
        let error = inrelease::verify(&tampered, &keyring, &expected).unwrap_err();
        assert!(matches!(error, InReleaseError::BadSignature(_)), "{error}");
    }
}

#[test]
fn versions_compare_as_dpkg_compares_them() {
    let Some(apt) = apt() else { return };
    let mut pairs: Vec<(String, String)> = [
        ("1.0", "1.00"),
        ("1.0", "1.0-0"),
        ("0:1.0", "1.0"),
        ("1.0~rc1", "1.0"),
        ("1.0~~", "1.0~"),
        ("1.0~~a", "1.0~~"),
        ("1.0-1", "1.0-1+b1"),
        ("1:0.1", "9.9"),
        ("1.0a", "1.0+"),
        ("1.0a", "1.0"),
        ("1.2.3-a-b", "1.2.3-a-c"),
        ("00012", "12"),
        ("1.0+", "1.0."),
        ("1.0.", "1.0~"),
        ("1-1-1", "1-1"),
        ("9999999999999999999999", "10000000000000000000000"),
        ("2.0.a", "2.0.0"),
        ("1.a.1", "1.1.a"),
    ]
    .map(|(a, b)| (a.to_owned(), b.to_owned()))
    .into();
    // Real versions: each with that of the 200th package after it.
    let indexes = indexes(&apt);
    let all = packages::read(&indexes[0], "amd64").unwrap();
    let versions: Vec<_> = all.iter().step_by(200).map(|package| package.version.to_string()).collect();
    pairs.extend(versions.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())));
    for (a, b) in &pairs {
        let ours = Version::read(a).unwrap().cmp(&Version::read(b).unwrap());
        let operator = match ours {
            Ordering::Less => "lt",
            Ordering::Equal => "eq",
            Ordering::Greater => "gt",
        };
        let status = Command::new("dpkg").args(["--compare-versions", a, operator, b]).status().unwrap();
        assert!(status.success(), "dpkg does not say {a} {operator} {b}");
    }
    eprintln!("{} pairs", pairs.len());
}
