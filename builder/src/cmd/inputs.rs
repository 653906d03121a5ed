//! `proofmark inputs`.

use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine;
use proofmark::claim::attestation;
use proofmark::host::fetch::Fetcher;
use proofmark::host::{chain, output};
use proofmark::lock::{Blob, Lock};
use proofmark::recipe::Profile;
use proofmark::resolve::chain as debian;
use proofmark::resolve::keys::Keyring;
use rootfs::content::Sha256Digest;
use serde::Serialize;
use sha2::{Digest, Sha512};

use crate::cli::{Format, Session};
use crate::failure;

/// Checks the inputs of a lock again, from Debian's keys and npm's digests on: every signature of an archive, every index,
/// every package in it, every tarball, and what registries attested. Takes files from the store, from vendored folders and,
/// unless told not to, from mirrors; believes none of them. Exits with 4 when something does not fit.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the recipe.
    #[arg(default_value = ".")]
    recipe: PathBuf,
}

/// What was checked, and what does not fit.
#[derive(Debug, Default, Serialize)]
struct Findings {
    /// Suites whose chain is whole.
    suites: Vec<String>,
    /// Debian packages that a signed index lists.
    debs: usize,
    /// npm packages whose tarball has the digest that the registry names.
    npm: usize,
    /// npm packages of which something is attested, and to which it is bound.
    attested: usize,
    /// npm packages of which nothing is attested.
    unattested: usize,
    /// What does not fit.
    problems: Vec<String>,
}

/// Checks.
pub fn run(arguments: &Arguments, session: &Session) -> anyhow::Result<ExitCode> {
    let loaded = super::load(&arguments.recipe)?;
    let (_, lock) = loaded.lock()?;
    let fetcher = Fetcher::new(&session.store, &session.mirrors, session.network);
    fetcher.ensure(&lock.blobs(&Profile::ALL), session.progress)?;
    fetcher.ensure(&lock.blobs_of_archives(), session.progress)?;
    fetcher.ensure(&lock.blobs_of_attestations(), session.progress)?;
    let mut findings = Findings::default();
    debian_part(&lock, session, &mut findings)?;
    npm_part(&lock, session, &mut findings)?;
    match session.format {
        Format::Json => output::print(&format!("{}\n", serde_json::to_string_pretty(&findings)?))?,
        Format::Text => {
            let mut text = String::new();
            for problem in &findings.problems {
                text.push_str(&format!("does not fit: {problem}\n"));
            }
            text.push_str(&format!("suites     {}\n", findings.suites.join(", ")));
            text.push_str(&format!("debian     {} packages in signed indices\n", findings.debs));
            text.push_str(&format!("npm        {} tarballs of the registry's digest\n", findings.npm));
            text.push_str(&format!(
                "attested   {} npm packages, of {} nothing is\n",
                findings.attested, findings.unattested
            ));
            output::print(&text)?;
        }
    }
    Ok(if findings.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(failure::NO) })
}

fn debian_part(lock: &Lock, session: &Session, findings: &mut Findings) -> anyhow::Result<()> {
    let keyring = Keyring::debian()?;
    let read = |sha256: &str, label: &str| {
        let digest = Sha256Digest::parse(sha256).unwrap_or(Sha256Digest([0; 32]));
        session.store.read(&digest, label)
    };
    for archive in &lock.archives {
        let inrelease = read(&archive.sha256, &archive.path)?;
        let index = read(&archive.index_sha256, &archive.index_path)?;
        let debs: Vec<_> = lock.debs.iter().filter(|deb| deb.suite == archive.suite).collect();
        let breaks = debian::check(archive, &inrelease, &index, &debs, &keyring);
        if breaks.is_empty() {
            findings.suites.push(format!("{} {}", archive.suite, archive.date));
            findings.debs += debs.len();
        }
        findings.problems.extend(breaks.iter().map(|one| chain(one)));
    }
    Ok(())
}

fn npm_part(lock: &Lock, session: &Session, findings: &mut Findings) -> anyhow::Result<()> {
    for npm in &lock.npm {
        let Some(blob) = npm.blob() else { continue };
        let bytes = session.store.read(&blob.sha256, &blob.label)?;
        let sha512 = Sha512::digest(&*bytes);
        let stated = npm.integrity.strip_prefix("sha512-").unwrap_or_default();
        if base64::engine::general_purpose::STANDARD.encode(sha512) != stated {
            findings.problems.push(format!("{} is not the tarball of {}", blob.label, npm.integrity));
            continue;
        }
        findings.npm += 1;
        let Some(Blob { sha256, label, .. }) = npm.attestations_blob() else {
            findings.unattested += 1;
            continue;
        };
        let document = session.store.read(&sha256, &label)?;
        match attestation::read(&document, &npm.name, &npm.version, &hex::encode(sha512)) {
            Ok(_) => findings.attested += 1,
            Err(error) => findings.problems.push(format!("{label}: {}", chain(&error))),
        }
    }
    Ok(())
}
