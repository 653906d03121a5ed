//! Holds the resolver, the version order and the archive's signatures against apt and dpkg themselves.
//!
//! Needs apt, dpkg and a Debian mirror (the one in the machine's own apt configuration). Without apt the tests say
//! so and pass, unless `CI=true`: then they fail.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use proofmark::resolve::packages;
use proofmark::resolve::scripts::{self, Script, ScriptKind, Table};
use proofmark::resolve::solve::{Essential, Request, Suite, Universe, solve};
use proofmark::resolve::version::Version;
use proofmark::trust::debian::inrelease::{self, Expected, InReleaseError};
use proofmark::trust::debian::keys::{Keyring, UnixTime};

const SUITES: [&str; 3] = ["trixie", "trixie-updates", "trixie-security"];

/// A root for apt with nothing installed and trixie's fresh indexes, kept for all tests of this process.
struct Apt {
    root: tempfile::TempDir,
}

/// Makes the root, or says why there is none.
fn apt() -> Option<&'static Apt> {
    static APT: OnceLock<Option<Apt>> = OnceLock::new();
    APT.get_or_init(|| {
        if Command::new("apt-get").arg("--version").output().is_err() {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "apt-get is missing");
            eprintln!("SKIPPED: apt-get is missing, nothing is compared");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        for folder in [
            "etc/apt/apt.conf.d",
            "etc/apt/sources.list.d",
            "etc/apt/preferences.d",
            "etc/apt/trusted.gpg.d",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/lib/dpkg",
        ] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("etc/apt/sources.list"), sources()).unwrap();
        let apt = Apt { root };
        apt.run(&["update"]);
        Some(apt)
    })
    .as_ref()
}

/// Writes trixie's three suites with the mirrors and the keyring of the machine's own configuration.
fn sources() -> String {
    let mut files: Vec<PathBuf> = vec!["/etc/apt/sources.list".into()];
    files.extend(fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|e| e.path()));
    let text: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let urls: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_ascii_whitespace)
        .filter(|word| word.starts_with("http"))
        .map(|word| word.trim_end_matches('/'))
        .collect();
    let find = |end: &str| {
        let found = urls.iter().find(|url| url.ends_with(end));
        (*found.unwrap_or_else(|| panic!("the machine's apt sources have no URL that ends in {end}")))
            .to_owned()
    };
    let (main, security) = (find("/debian"), find("/debian-security"));
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    SUITES
        .iter()
        .map(|suite| {
            let url = if suite.ends_with("security") { &security } else { &main };
            format!("deb [signed-by={keyring}] {url} {suite} main\n")
        })
        .collect()
}

impl Apt {
    fn run(&self, arguments: &[&str]) -> String {
        self.run_in(self.root.path(), arguments)
    }

    fn run_in(&self, folder: &Path, arguments: &[&str]) -> String {
        let output = Command::new("apt-get")
            .current_dir(folder)
            .arg("-o")
            .arg(format!("Dir={}", self.root.path().display()))
            .args(["-o", "Dir::State::status=/dev/null", "-o", "APT::Architecture=amd64"])
            .args(["-o", "APT::Architectures=amd64", "-o", "APT::Sandbox::User=root"])
            .args(["-o", "Acquire::GzipIndexes=false", "-o", "Acquire::Languages=none"])
            .args(arguments)
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "apt-get {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Reads a file of apt's lists by its end.
    fn list(&self, end: &str) -> Vec<u8> {
        let lists = self.root.path().join("var/lib/apt/lists");
        let mut files = fs::read_dir(&lists).unwrap().map(|entry| entry.unwrap().path());
        let found = files.find(|path: &PathBuf| path.to_string_lossy().ends_with(end));
        fs::read(found.unwrap_or_else(|| panic!("{} has no {end}", Path::new(&lists).display()))).unwrap()
    }

    fn indexes(&self) -> Vec<Vec<u8>> {
        SUITES.iter().map(|suite| self.list(&format!("_dists_{suite}_main_binary-amd64_Packages"))).collect()
    }

    /// The names and versions that apt would install.
    fn install(&self, roots: &[&str]) -> BTreeMap<String, String> {
        let mut arguments = vec!["-s", "install", "--no-install-recommends"];
        arguments.extend(roots);
        let said = self.run(&arguments);
        // Inst name (version Suite [architecture])
        let lines = said.lines().filter_map(|line| line.strip_prefix("Inst "));
        lines
            .map(|line| {
                let (name, rest) = line.split_once(" (").unwrap();
                (name.to_owned(), rest.split_once(' ').unwrap().0.to_owned())
            })
            .collect()
    }
}

fn same_choice(essential: Essential, sets: &[&[&str]]) {
    let Some(apt) = apt() else { return };
    let indexes = apt.indexes();
    let start = Instant::now();
    let suites = SUITES
        .iter()
        .zip(&indexes)
        .map(|(name, bytes)| Suite { name, packages: packages::read(bytes, "amd64").unwrap() });
    let universe = Universe::merge(suites.collect()).unwrap();
    let read = start.elapsed();
    // Not `?essential`: apt counts itself among them, although its stanza does not say so.
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
        let theirs = apt.install(&asked);
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

/// What the recipes are made of.
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
    let names: Vec<String> = apt.install(BASE).into_keys().collect();
    let mut arguments = vec!["download"];
    arguments.extend(names.iter().map(String::as_str));
    apt.run_in(folder.path(), &arguments);
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
    // Real neighbours: every version beside that of the 200th package after it.
    let indexes = apt.indexes();
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
