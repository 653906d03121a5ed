//! Yields packages of Debian trixie and apt's own view of them, whatever this machine runs.
//!
//! # Shape
//! ```text
//! TARGET/debian/root/            a root for apt with nothing installed, and the indexes of trixie's three suites
//!               packages/NAME/   a package's files, unpacked once
//! TARGET/debian-SUITE/           the same for one other suite
//! ```
//! `TARGET` is a test's `CARGO_TARGET_TMPDIR`. The mirrors are those of this machine's own apt; apt checks Debian's
//! signatures. One test fetches while the others wait.
//!
//! # Not here
//! How proofmark resolves and fetches packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::tool::{find, skipped};

/// The release's suites, by the names of their folders.
pub const SUITES: [&str; 3] = ["trixie", "trixie-updates", "trixie-security"];
/// How long an index stays valid: mirrors drop packages that a newer index no longer lists.
const FRESH: Duration = Duration::from_secs(6 * 3600);
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A root for apt with nothing installed, and the indexes of its suites.
#[derive(Debug, Clone)]
pub struct Apt {
    folder: PathBuf,
    suites: Vec<String>,
}

/// Locks the folder below `target`; the lock is held as long as the file lives.
fn guard(folder: &Path) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let file = File::create(folder.join("lock"))?;
    file.lock()?;
    Ok(file)
}

/// Returns apt's root below `target`; `None`, with a loud message, when this machine has no apt or reaches no mirror.
///
/// # Panics
/// In CI, when it is unavailable, or when it cannot be written.
pub fn apt(target: &str) -> Option<Apt> {
    prepared(Apt { folder: Path::new(target).join("debian"), suites: SUITES.map(str::to_owned).to_vec() })
}

fn prepared(apt: Apt) -> Option<Apt> {
    for name in ["apt-get", "dpkg-deb"] {
        find(name)?;
    }
    let _guard = guard(&apt.folder).unwrap_or_else(|error| panic!("{}: {error}", apt.folder.display()));
    match apt.prepare() {
        Ok(()) => Some(apt),
        Err(why) => {
            skipped(&why);
            None
        }
    }
}

/// Returns the folder of a package's files below `target`; `None`, with a loud message, when it is unavailable.
///
/// # Panics
/// In CI, when it is unavailable.
pub fn package(target: &str, name: &str) -> Option<PathBuf> {
    let unpacked = apt(target)?.unpacked(name);
    unpacked.map_err(|why| skipped(&why)).ok()
}

/// Returns the folder of the files of another suite's package; `None`, with a loud message, when it is unavailable.
///
/// # Panics
/// In CI, when it is unavailable.
pub fn package_of(target: &str, suite: &str, name: &str) -> Option<PathBuf> {
    let folder = Path::new(target).join(format!("debian-{suite}"));
    let unpacked = prepared(Apt { folder, suites: vec![suite.to_owned()] })?.unpacked(name);
    unpacked.map_err(|why| skipped(&why)).ok()
}

/// The suites' lines of `sources.list`, with the mirrors of this machine's own configuration.
fn sources(suites: &[String]) -> String {
    let mut files: Vec<PathBuf> = vec!["/etc/apt/sources.list".into()];
    files.extend(
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path()),
    );
    let text: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_ascii_whitespace).filter(|word| word.starts_with("http"));
    let urls: BTreeSet<&str> = words.map(|word| word.trim_end_matches('/')).collect();
    let mirror = |end: &str, usual: &str| {
        urls.iter().find(|url| url.ends_with(end)).map_or_else(|| usual.to_owned(), |url| (*url).to_owned())
    };
    let main = mirror("/debian", "http://deb.debian.org/debian");
    let security = mirror("/debian-security", "http://deb.debian.org/debian-security");
    let line = |suite: &String| {
        let url = if suite.ends_with("security") { &security } else { &main };
        format!("deb [signed-by={KEYRING}] {url} {suite} main\n")
    };
    suites.iter().map(line).collect()
}

impl Apt {
    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Makes the root and its indexes, unless they exist and are fresh.
    fn prepare(&self) -> Result<(), String> {
        let updated = self.folder.join("updated");
        let age = fs::metadata(&updated).ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        if age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        let make = || {
            for folder in [
                "etc/apt/apt.conf.d",
                "etc/apt/sources.list.d",
                "etc/apt/preferences.d",
                "etc/apt/trusted.gpg.d",
                "var/lib/apt/lists/partial",
                "var/cache/apt/archives/partial",
                "var/lib/dpkg",
            ] {
                fs::create_dir_all(self.root().join(folder))?;
            }
            fs::write(self.root().join("etc/apt/sources.list"), sources(&self.suites))
        };
        make().map_err(|error| error.to_string())?;
        self.run("apt-get", &self.folder, &["update", "--error-on=any"])?;
        // What was unpacked may be older than what the new index names.
        let _ = fs::remove_dir_all(self.folder.join("packages"));
        fs::write(updated, "").map_err(|error| error.to_string())
    }

    /// Runs one of apt's programs in `folder`, and returns its output.
    ///
    /// # Errors
    /// The program's standard error.
    pub fn run(&self, program: &str, folder: &Path, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(program);
        command.current_dir(folder).arg("-o").arg(format!("Dir={}", self.root().display()));
        command.args(["-o", "Dir::State::status=/dev/null", "-o", "APT::Architecture=amd64"]);
        command.args(["-o", "APT::Architectures=amd64", "-o", "APT::Sandbox::User="]);
        command.args(["-o", "Acquire::GzipIndexes=false", "-o", "Acquire::Languages=none"]);
        let output = command.args(arguments).env("LC_ALL", "C").output();
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        String::from_utf8(output.stdout).map_err(|error| format!("{program}: {error}"))
    }

    /// Reads one of apt's lists by the end of its name.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn list(&self, end: &str) -> Vec<u8> {
        let lists = self.root().join("var/lib/apt/lists");
        let mut files = fs::read_dir(&lists).into_iter().flatten().flatten().map(|entry| entry.path());
        let found = files.find(|path| path.to_string_lossy().ends_with(end));
        found
            .and_then(|path| fs::read(path).ok())
            .unwrap_or_else(|| panic!("{} has no {end}", lists.display()))
    }

    /// Names and versions that apt would install for `roots`, without recommended packages.
    ///
    /// # Errors
    /// apt's message.
    pub fn install(&self, roots: &[&str]) -> Result<BTreeMap<String, String>, String> {
        let arguments = [&["-s", "install", "--no-install-recommends"], roots].concat();
        let said = self.run("apt-get", &self.folder, &arguments)?;
        // Inst name (version Suite [architecture])
        let lines = said.lines().filter_map(|line| line.strip_prefix("Inst "));
        let named = lines.filter_map(|line| {
            let (name, rest) = line.split_once(" (")?;
            Some((name.to_owned(), rest.split_once(' ')?.0.to_owned()))
        });
        Ok(named.collect())
    }

    /// The first dependency of a package: for instance the kernel of `linux-image-cloud-amd64`.
    ///
    /// # Errors
    /// apt's message, or that the package has no dependency.
    pub fn dependency(&self, name: &str) -> Result<String, String> {
        let shown = self.run("apt-cache", &self.folder, &["depends", name])?;
        let first = shown.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        first.map(str::to_owned).ok_or_else(|| format!("{name} depends on nothing"))
    }

    /// The folder of a package's files.
    ///
    /// # Errors
    /// The message of apt or dpkg.
    pub fn unpacked(&self, name: &str) -> Result<PathBuf, String> {
        let told = |error: io::Error| error.to_string();
        let packages = self.folder.join("packages");
        let _guard = guard(&packages).map_err(told)?;
        let files = packages.join(name);
        if files.is_dir() {
            return Ok(files);
        }
        let scratch = tempfile::tempdir_in(&packages).map_err(told)?;
        self.run("apt-get", scratch.path(), &["download", name])?;
        let mut entries = fs::read_dir(scratch.path()).map_err(told)?.flatten().map(|entry| entry.path());
        let archive = entries.find(|path| path.extension().is_some_and(|end| end == "deb"));
        let archive = archive.ok_or_else(|| format!("apt downloaded nothing for {name}"))?;
        let unpacked = scratch.path().join("files");
        let done = Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked).output().map_err(told)?;
        if !done.status.success() {
            return Err(format!("{}: {}", archive.display(), String::from_utf8_lossy(&done.stderr)));
        }
        fs::rename(&unpacked, &files).map_err(told)?;
        Ok(files)
    }
}
