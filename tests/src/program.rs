//! Yields the paths of the programs, as they are in this workspace now.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Builds `proofmark` in the profile of this test, and gives its path.
///
/// # Panics
/// When cargo cannot build it.
pub fn proofmark() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("proofmark", "proofmark")).clone()
}

/// Builds `ovmf-measure` likewise.
///
/// # Panics
/// When cargo cannot build it.
pub fn ovmf_measure() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("ovmf-measure", "ovmf-measure")).clone()
}

fn built(package: &str, program: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", package, "--bin", program]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let done = command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).status();
    assert!(done.is_ok_and(|status| status.success()), "cargo cannot build {program}");
    // A test's program is in target/PROFILE/deps.
    let test = std::env::current_exe().unwrap_or_default();
    let profile = test.parent().and_then(|deps| deps.parent()).map(|folder| folder.join(program));
    profile
        .filter(|program| program.is_file())
        .unwrap_or_else(|| panic!("no {program} beside {}", test.display()))
}
