//! Yields the paths of the programs under test.
//!
//! # Shape
//! ```text
//! PROOFMARK_PROGRAMS=FOLDER   the programs are there, as in `target/release`; nothing is built
//! not set                     cargo builds them, in the profile of the test
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names the folder of the programs, so that tests judge the very files that a user runs.
const FOLDER: &str = "PROOFMARK_PROGRAMS";

/// The path of `proofmark`.
///
/// # Panics
/// When it does not exist, or cargo cannot build it.
pub fn proofmark() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| find("proofmark")).clone()
}

/// The path of `ovmf-measure`.
///
/// # Panics
/// When it does not exist, or cargo cannot build it.
pub fn ovmf_measure() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| find("ovmf-measure")).clone()
}

/// The path of `dm-verity-tool`.
///
/// # Panics
/// If it is missing, or cargo cannot build it.
pub fn dm_verity_tool() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| find("dm-verity-tool")).clone()
}

/// The package of this name has the program of the same name.
fn find(name: &str) -> PathBuf {
    let folder = match std::env::var_os(FOLDER) {
        Some(folder) => PathBuf::from(folder),
        None => build(name),
    };
    let program = folder.join(name);
    assert!(program.is_file(), "no {name} in {}", folder.display());
    program
}

/// Builds a program and returns its folder.
fn build(name: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", name, "--bin", name]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let done = command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).status();
    assert!(done.is_ok_and(|status| status.success()), "cargo cannot build {name}");
    // A test's program is in target/PROFILE/deps.
    let test = std::env::current_exe().unwrap_or_default();
    test.ancestors().nth(2).map(Path::to_owned).unwrap_or_default()
}
