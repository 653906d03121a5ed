//! Yields packages of the registry that the machine's npm is configured for, and what that npm makes of them.
//!
//! # Not here
//! How proofmark fetches packages, which needs no npm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rootfs::content::Sha256Digest;
use rootfs::npm::integrity::Integrity;

/// The folder with the `package.json` and `package-lock.json` of OpenClaw: `PROOFMARK_OPENCLAW`, or `shared/openclaw`
/// beside a folder above the checkout.
pub fn openclaw() -> Option<PathBuf> {
    let named = std::env::var_os("PROOFMARK_OPENCLAW").map(PathBuf::from);
    let beside = || {
        let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        folders.map(|folder| folder.join("shared/openclaw")).find(|folder| folder.is_dir())
    };
    named.or_else(beside).filter(|folder| folder.join("package-lock.json").is_file())
}

/// The machine's npm, with a cache for the tests.
#[derive(Debug, Clone)]
pub struct Npm {
    kept: PathBuf,
}

impl Npm {
    /// An npm that keeps what it fetches and installs in `kept`.
    pub fn new(kept: &str) -> Self {
        Npm { kept: kept.into() }
    }

    fn cache(&self) -> PathBuf {
        self.kept.join("npm-cache")
    }

    /// Runs npm in `folder` under umask 022, without scripts.
    ///
    /// # Errors
    /// npm's message.
    pub fn run(&self, folder: &Path, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"umask 022; exec npm "$@""#, "sh"]).args(arguments).current_dir(folder);
        command.args([
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--omit-lockfile-registry-resolved=true",
        ]);
        let output = command.arg("--cache").arg(self.cache()).output();
        let output = output.map_err(|error| format!("npm {arguments:?}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("npm {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The registry that npm is configured for.
    ///
    /// # Errors
    /// When npm does not name one.
    pub fn registry(&self) -> Result<String, String> {
        let output = Command::new("npm").args(["config", "get", "registry"]).output();
        let output = output.map_err(|error| format!("npm: {error}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A tarball from npm's cache, which is keyed by integrity.
    ///
    /// # Errors
    /// When the cache does not have it.
    pub fn cached(&self, integrity: &Integrity) -> Result<Vec<u8>, String> {
        let hex: String = integrity.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let (first, rest) = hex.split_at(2);
        let (second, rest) = rest.split_at(2);
        let path = self.cache().join("_cacache/content-v2/sha512").join(first).join(second).join(rest);
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The tarball of a package.
    ///
    /// # Errors
    /// When the registry does not have it.
    pub fn tarball(&self, name: &str, version: &str) -> Result<Vec<u8>, String> {
        let path = self.kept.join(format!("{name}-{version}.tgz"));
        if !path.is_file() {
            self.run(&self.kept, &["pack", &format!("{name}@{version}")])?;
        }
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The folder in which npm installed this application; it is kept, because npm takes half a minute or more. One test
    /// installs while the others wait.
    ///
    /// # Errors
    /// When npm fails.
    pub fn installed(&self, application: &Path) -> Result<PathBuf, String> {
        let read = |name: &str| {
            fs::read(application.join(name)).map_err(|error| format!("{}: {error}", application.display()))
        };
        let documents =
            [("package.json", read("package.json")?), ("package-lock.json", read("package-lock.json")?)];
        let bytes: Vec<u8> = documents.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let folder = self.kept.join(format!("npm-ci-{}", Sha256Digest::of(&bytes)));
        let done = folder.join("done");
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(&folder).map_err(failed)?;
        // Held as long as the file is open.
        let lock = fs::File::create(folder.with_extension("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        if !done.is_file() {
            for (name, bytes) in &documents {
                fs::write(folder.join(name), bytes).map_err(failed)?;
            }
            self.run(&folder, &["ci"])?;
            fs::write(done, "").map_err(failed)?;
        }
        Ok(folder)
    }
}
