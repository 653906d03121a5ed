//! Yields who signs, from the command line.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use proofmark::host::publication::{Keyless, Token, Who};
use proofmark::host::signer::{self, Signer};
use proofmark::trust::bundle::Certificate;
use proofmark::trust::envelope::VerifyingKey;

use crate::failure::hinted;

/// Who signs.
#[derive(Debug, clap::Args)]
pub struct Signing {
    /// File of the key: ECDSA P-256, PKCS #8 PEM, readable by its owner alone.
    #[arg(long, value_name = "FILE", conflicts_with = "public_key")]
    key: Option<PathBuf>,
    /// Program that signs: it gets a file to sign as its last argument, and prints the signature (DER or base64).
    #[arg(long, value_name = "PROGRAM", requires = "public_key")]
    sign_command: Option<PathBuf>,
    /// An argument of that program, before the file; may be given several times.
    #[arg(long, value_name = "ARGUMENT", requires = "sign_command", allow_hyphen_values = true)]
    sign_argument: Vec<OsString>,
    /// Public key of that program, PEM.
    #[arg(long, value_name = "FILE", requires = "sign_command")]
    public_key: Option<PathBuf>,
    /// Address of a Fulcio: it certifies this run's temporary key for the identity that the token names.
    #[arg(long, value_name = "URL", requires_all = ["identity_token", "trusted_root"], conflicts_with_all = ["key", "certificate"])]
    fulcio: Option<String>,
    /// File of the identity token (OIDC) that says who runs this, readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "fulcio")]
    identity_token: Option<PathBuf>,
    /// Certificate of the key, PEM: verifiers then ask for its name and issuer, not for the key.
    #[arg(long, value_name = "FILE", requires = "timestamp_authority", requires = "trusted_root")]
    certificate: Option<PathBuf>,
    /// Address of an authority that stamps the time on signatures (RFC 3161); certificates need it.
    #[arg(long, value_name = "URL", requires = "trusted_root")]
    pub timestamp_authority: Option<String>,
    /// Trust root with the authorities of the certificate and the time stamps.
    #[arg(long, value_name = "FILE")]
    pub trusted_root: Option<PathBuf>,
}

impl Signing {
    /// Whether a signer is given.
    pub fn is_given(&self) -> bool {
        self.key.is_some() || self.sign_command.is_some() || self.fulcio.is_some()
    }

    fn signer(&self) -> anyhow::Result<Signer> {
        if let Some(path) = &self.key {
            return Ok(Signer::from_file(path)?);
        }
        let (Some(program), Some(path)) = (&self.sign_command, &self.public_key) else {
            return Err(hinted("the signer is not named", "give --key FILE"));
        };
        let public =
            VerifyingKey::from_pem(&text(path)?).with_context(|| format!("cannot use {}", path.display()))?;
        let program = std::path::absolute(program)?.into_os_string();
        let command = [program].into_iter().chain(self.sign_argument.iter().cloned()).collect();
        Ok(Signer::Command { command, environment: environment(), public })
    }

    /// Who signs.
    pub fn who(&self) -> anyhow::Result<Who> {
        if let (Some(address), Some(path)) = (&self.fulcio, &self.identity_token) {
            let token = Token(signer::secret(path)?);
            return Ok(Who::Keyless(Keyless { address: address.clone(), token, issued: OnceCell::new() }));
        }
        Ok(match &self.certificate {
            Some(path) => Who::Certified(self.signer()?, certificate(path)?),
            None => Who::Key(self.signer()?),
        })
    }
}

fn text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The one certificate in a PEM file.
fn certificate(path: &Path) -> anyhow::Result<Certificate> {
    let read = Certificate::from_pem(&text(path)?);
    read.with_context(|| format!("{} is not a PEM file with one certificate", path.display()))
}

/// The environment of a signing command: this program's own.
fn environment() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().collect()
}
