//! Yields programs of PyPI, in a virtual environment for the tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rootfs::content::Sha256Digest;

use crate::tool::skipped;

/// The folder with the programs of packages, each named with its version, in an environment that is kept in `kept`;
/// `None`, with a loud message, when they are unavailable.
///
/// # Panics
/// When `kept` cannot be written, and in CI when the programs are unavailable.
#[allow(clippy::unwrap_used)] // A wrong step here is a failed test.
pub fn programs(name: &str, packages: &[&str], kept: &Path) -> Option<PathBuf> {
    fs::create_dir_all(kept).unwrap();
    let guard = File::create(kept.join(format!("{name}.lock"))).unwrap();
    guard.lock().unwrap();
    let digest = Sha256Digest::of(packages.concat().as_bytes()).to_string();
    let folder = kept.join(format!("{name}-{}", digest.get(..8).unwrap_or_default()));
    let programs = folder.join("bin");
    if folder.join("done").is_file() {
        return Some(programs);
    }
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            eprintln!("{command:?}: {error}");
            false
        }
    };
    let made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
        && run(Command::new(programs.join("pip")).args(["install", "--quiet"]).args(packages));
    if !made {
        skipped(&format!("{name} cannot be fetched from PyPI"));
        return None;
    }
    fs::write(folder.join("done"), "").unwrap();
    Some(programs)
}
