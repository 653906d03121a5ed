//! Yields the path of the `proofmark` program, as it is in this workspace now.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Builds the program in the profile of this test, and gives its path.
///
/// # Panics
/// When cargo cannot build it.
pub fn proofmark() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", "proofmark", "--bin", "proofmark"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let done = command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).status();
        assert!(done.is_ok_and(|status| status.success()), "cargo cannot build the program");
        // A test's program is in target/PROFILE/deps.
        let test = std::env::current_exe().unwrap_or_default();
        let profile = test.parent().and_then(|deps| deps.parent()).map(|folder| folder.join("proofmark"));
        profile
            .filter(|program| program.is_file())
            .unwrap_or_else(|| panic!("no program beside {}", test.display()))
    };
    PROGRAM.get_or_init(build).clone()
}
