//! Yields the files of a package of Debian trixie, whatever this machine runs.
//!
//! # Shape
//! ```text
//! target/tmp/trixie/PACKAGE/   fetched once from `PROOFMARK_DEBIAN_MIRROR`, default deb.debian.org, and unpacked
//! ```
//!
//! # Not here
//! Signatures: the mirror's index is believed, and the package must have the digest that it tells.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rootfs::content::Sha256Digest;

use crate::tool::skipped;

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Gives the folder with a package's files below `target` (a test's `CARGO_TARGET_TMPDIR`); none, and a loud word, when
/// it cannot be fetched outside CI.
///
/// # Panics
/// When what was fetched is not what the index tells, or cannot be written.
pub fn package(target: &str, name: &str) -> Option<PathBuf> {
    let folder = Path::new(target).join("trixie");
    fs::create_dir_all(&folder).expect("makes the folder");
    let files = folder.join(name);
    // One test fetches, the others wait.
    let lock = File::create(folder.join("lock")).expect("makes the lock");
    lock.lock().expect("locks");
    if files.is_dir() {
        return Some(files);
    }
    let mirror = std::env::var("PROOFMARK_DEBIAN_MIRROR");
    let mirror = mirror.unwrap_or_else(|_| "http://deb.debian.org/debian".into());
    let fetch = |url: &str, to: &Path| {
        let to = to.to_string_lossy();
        run("curl", &["-fsSL", "--retry", "3", "--max-time", "300", "-o", &to, url])
    };
    let index = folder.join("Packages");
    if !index.is_file() {
        let packed = folder.join("Packages.xz");
        let url = format!("{mirror}/dists/trixie/main/binary-amd64/Packages.xz");
        if !fetch(&url, &packed) || !run("xz", &["-df", &packed.to_string_lossy()]) {
            skipped("the package index of trixie cannot be fetched");
            return None;
        }
    }
    let text = fs::read_to_string(&index).expect("reads the index");
    let stanza = text.split("\n\n").find(|stanza| stanza.starts_with(&format!("Package: {name}\n")));
    let field = |field: &str| {
        let lines = stanza.unwrap_or_else(|| panic!("trixie has no {name}")).lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
        values.next().unwrap_or_else(|| panic!("{name} has no {field}"))
    };
    let archive = folder.join(format!("{name}.deb"));
    if !fetch(&format!("{mirror}/{}", field("Filename")), &archive) {
        skipped(&format!("{name} of trixie cannot be fetched"));
        return None;
    }
    let bytes = fs::read(&archive).expect("reads the package");
    assert_eq!(Sha256Digest::of(&bytes).to_string(), field("SHA256"), "{name}");
    let unpacked = folder.join(format!("{name}.new"));
    let _ = fs::remove_dir_all(&unpacked);
    assert!(run("dpkg-deb", &["-x", &archive.to_string_lossy(), &unpacked.to_string_lossy()]), "{name}");
    fs::rename(&unpacked, &files).expect("renames the folder");
    Some(files)
}
