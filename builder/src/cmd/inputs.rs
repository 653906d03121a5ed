//! `proofmark inputs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::host::recipe_folder::RecipeFolder;
use proofmark::host::{chain, locking, output};
use proofmark::lock::{Blob, Lock};
use proofmark::recipe::Profile;
use proofmark::resolve::chain as debian;
use proofmark::session::Session;
use proofmark::trust::attestation::Registry;
use proofmark::trust::debian::keys::Keyring;
use rootfs::content::Sha256Digest;
use rootfs::npm::integrity::Integrity;
use serde::Serialize;

use crate::failure;
use crate::format::Format;
use crate::options::registry::RegistryTrust;

/// Checks the inputs of a lock again, starting from Debian's keys and npm's digests: every signature of an archive,
/// every index, every package in it, every tarball, and the registries' attestations. Takes files from the store,
/// from vendored folders and, unless --offline is given, from mirrors, and trusts none of them. Exits with 4 when a
/// check fails.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the recipe.
    #[arg(default_value = ".")]
    recipe: PathBuf,
    #[command(flatten)]
    registry: RegistryTrust,
}

/// What was checked, and which checks failed.
#[derive(Debug, Default, Serialize)]
struct Findings {
    /// Suites whose chain is complete.
    suites: Vec<String>,
    /// Debian packages that a signed index lists.
    debs: usize,
    /// npm packages whose tarball has the digest that the registry gives.
    npm: usize,
    /// npm packages with attestations that are signed correctly.
    attested: usize,
    /// Repositories whose builds made these packages, as authorities certified, and how many packages each made.
    sources: BTreeMap<String, usize>,
    /// npm packages without attestations.
    unattested: usize,
    /// What failed.
    problems: Vec<String>,
}

/// Checks the inputs.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let loaded = RecipeFolder::open(&arguments.recipe)?;
    let (_, lock) = loaded.lock()?;
    let registry = arguments.registry.registry()?;
    let fetcher = loaded.carrying(session.fetcher());
    fetcher.ensure(&lock.blobs(&Profile::ALL), session.progress)?;
    fetcher.ensure(&lock.blobs_to_carry(), session.progress)?;
    fetcher.ensure(&lock.blobs_of_indices(), session.progress)?;
    let mut findings = Findings::default();
    debian_part(&lock, session, &mut findings)?;
    npm_part(&lock, &registry, session, &mut findings)?;
    match format {
        Format::Json => output::print(&format!("{}\n", serde_json::to_string_pretty(&findings)?))?,
        Format::Text => {
            let mut text = String::new();
            for problem in &findings.problems {
                text.push_str(&format!("does not match: {problem}\n"));
            }
            text.push_str(&format!("suites     {}\n", findings.suites.join(", ")));
            text.push_str(&format!("debian     {} packages in signed indices\n", findings.debs));
            text.push_str(&format!("npm        {} tarballs of the registry's digest\n", findings.npm));
            text.push_str(&format!(
                "attested   {} npm packages, {} without attestations\n",
                findings.attested, findings.unattested
            ));
            for (source, packages) in &findings.sources {
                text.push_str(&format!("built in   {source}: {packages}\n"));
            }
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

fn npm_part(
    lock: &Lock,
    registry: &Registry,
    session: &Session,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let mut refused = false;
    for npm in &lock.npm {
        let Some(blob) = npm.blob() else { continue };
        let bytes = session.store.read(&blob.sha256, &blob.label)?;
        let found = Integrity::of(&bytes);
        if found.to_string() != npm.integrity {
            findings.problems.push(format!("{} is not the tarball of {}", blob.label, npm.integrity));
            continue;
        }
        findings.npm += 1;
        let Some(Blob { sha256, label, .. }) = npm.attestations_blob() else {
            findings.unattested += 1;
            continue;
        };
        let document = session.store.read(&sha256, &label)?;
        match registry.judge(&document, &npm.name, &npm.version, &found.0) {
            Ok(attested) if attested.source() != npm.source => {
                let (found, locked) = (attested.source(), &npm.source);
                let problem = format!("{label}: built in {found:?}, the lock says {locked:?}");
                findings.problems.push(problem);
            }
            Ok(attested) => {
                findings.attested += 1;
                for source in attested.into_inner().sources {
                    *findings.sources.entry(source).or_default() += 1;
                }
            }
            Err(error) => {
                refused = true;
                findings.problems.push(format!("{label}: {}", chain(&error)));
            }
        }
    }
    if refused {
        session.progress.note(locking::NEWER_KEYS);
    }
    Ok(())
}
