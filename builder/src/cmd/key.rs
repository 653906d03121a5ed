//! `proofmark key`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use proofmark::host::{files, output, signer};
use proofmark::trust::envelope;
use proofmark::trust::transparency::note::{Role, SigningKey};

use crate::failure::hinted;

/// Makes a new key and writes it to a file that only its owner can read; its public half goes to FILE.pub and to
/// standard output. Without --log or --witness, the key signs statements of images: ECDSA P-256, PKCS #8 in PEM.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Make the key of a log of this name (a URL without scheme): Ed25519.
    #[arg(long, value_name = "NAME", conflicts_with = "witness")]
    log: Option<String>,
    /// Make the key of a witness of this name (a URL without scheme): Ed25519.
    #[arg(long, value_name = "NAME")]
    witness: Option<String>,
    /// File to write; it must not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Makes the key.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (secret, public) = match (&arguments.log, &arguments.witness) {
        (None, None) => {
            let key = envelope::SigningKey::from_seed(&signer::random()?)?;
            (key.to_secret_pem()?, key.public().pem()?)
        }
        (log, witness) => {
            let role = if log.is_some() { Role::Log } else { Role::Witness };
            let name = log.as_ref().or(witness.as_ref()).map(String::as_str).unwrap_or_default();
            let key = SigningKey::new(name, role, &signer::random()?).map_err(|error| {
                hinted(
                    format!("{name:?} cannot name a key: {error}"),
                    "give a name like log.example.org/images",
                )
            })?;
            (key.to_secret_text(), format!("{}\n", key.public()))
        }
    };
    if arguments.file.exists() {
        return Err(hinted(
            format!("{} already exists", arguments.file.display()),
            "keys are never overwritten: name another file",
        ));
    }
    signer::keep_secret(&arguments.file, &secret)?;
    let mut beside = arguments.file.clone().into_os_string();
    beside.push(".pub");
    files::write(beside.as_ref(), public.as_bytes())
        .with_context(|| format!("cannot write {}", beside.display()))?;
    output::print(&public)?;
    Ok(ExitCode::SUCCESS)
}
