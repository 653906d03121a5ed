//! Yields the registry that this machine's npm is configured to use.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use super::tool;

/// Time limit for this machine's npm to report its registry.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the registry that this machine's npm is configured to use, if npm is installed.
pub fn of_this_machine() -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let program =
        std::env::split_paths(&path).map(|folder| folder.join("npm")).find(|file| file.is_file())?;
    let environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let run = tool::Run {
        program,
        arguments: ["config", "get", "registry"].map(OsString::from).to_vec(),
        environment,
        folder: std::env::current_dir().ok()?,
        limit: PATIENCE,
    };
    let output = tool::run(&run).ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let registry = text.trim();
    registry.contains("://").then(|| registry.to_owned())
}
