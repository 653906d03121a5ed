//! Yields whom to trust about npm packages, and which packages may lose attestations, from the command line.

use std::path::PathBuf;

use anyhow::Context;
use proofmark::host::small_file;
use proofmark::trust::attestation::Registry;
use proofmark::trust::bundle::Sigstore;

/// Whom to trust about npm packages.
#[derive(Debug, clap::Args)]
pub struct RegistryTrust {
    /// Keys with which the npm registry signs what it publishes, as in Sigstore's TUF repository [default: npm's, as
    /// built in].
    #[arg(long, value_name = "FILE")]
    npm_keys: Option<PathBuf>,
    /// Keys of the logs and authorities that attest npm packages [default: Sigstore's public instance, as built in].
    #[arg(long, value_name = "FILE")]
    npm_trusted_root: Option<PathBuf>,
}

impl RegistryTrust {
    /// Reads the files that were given.
    pub fn registry(&self) -> anyhow::Result<Registry> {
        let trusted = |path: &PathBuf| format!("cannot trust {}", path.display());
        let verifier = match &self.npm_trusted_root {
            Some(path) => Sigstore::new(&small_file::read(path)?).with_context(|| trusted(path))?,
            None => Sigstore::public()?,
        };
        match &self.npm_keys {
            Some(path) => Registry::new(&small_file::read(path)?, verifier).with_context(|| trusted(path)),
            None => Ok(Registry::npm(verifier)?),
        }
    }
}

/// Whom to trust about packages, and which may lose attestations from one lock to the next.
#[derive(Debug, clap::Args)]
pub struct Provenance {
    #[command(flatten)]
    pub registry: RegistryTrust,
    /// An npm package that had attestations and may now have none, or come from another repository; may be given
    /// several times.
    #[arg(long, value_name = "NAME")]
    pub accept_lost_provenance: Vec<String>,
}
