//! `proofmark rebuild`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use proofmark::claim::file;
use proofmark::claim::manifest::Manifest;
use proofmark::claim::provenance::statement::{BUILDER, Statement};
use proofmark::host::output;
use rootfs::content::Sha256Digest;
use serde_json::json;

use super::publish::{Logs, Signing, told, whole};
use crate::cli::{Format, Session};
use crate::failure::{NO, hinted};

/// Builds an image again from its recipe and lock, from fetched files only, and compares every output byte for byte. When
/// all are equal and a key is given, it signs and logs a verification summary that says so. Exits with 4 when they are not.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("who").args(["key", "sign_command", "fulcio"]).requires("where")))]
#[command(group(
    clap::ArgGroup::new("where").multiple(true).args(["log", "rekor_v2", "rekor_v1"]).requires("who")
))]
pub struct Arguments {
    /// Folder of the image that somebody built.
    #[arg(value_name = "OUT")]
    image: PathBuf,
    /// Folder of its recipe, with the lock that it was built from [default: recipes/NAME, by the image's name].
    #[arg(value_name = "RECIPE")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    logs: Logs,
    /// Who rebuilds, as verifiers' policies name it [default: this program and its version].
    #[arg(long, value_name = "URI", default_value = BUILDER, hide_default_value = true)]
    builder: String,
}

/// Names of outputs that differ, or that only one has.
fn differences(theirs: &Manifest, ours: &Manifest) -> Vec<String> {
    let names = theirs.outputs.keys().chain(ours.outputs.keys());
    let mut differ: Vec<String> =
        names.filter(|name| theirs.outputs.get(*name) != ours.outputs.get(*name)).cloned().collect();
    differ.sort();
    differ.dedup();
    if differ.is_empty() && theirs.to_text() != ours.to_text() {
        differ.push(file::MANIFEST.to_owned());
    }
    differ
}

/// Rebuilds.
pub fn run(arguments: &Arguments, session: &Session) -> anyhow::Result<ExitCode> {
    let built = whole(&arguments.image)?;
    // A signer that cannot sign is better known before the work than after it.
    let who = arguments.signing.is_given().then(|| arguments.signing.who()).transpose()?;
    let usual = || Path::new("recipes").join(&built.manifest.name);
    let recipe = arguments.recipe.clone().unwrap_or_else(usual);
    let loaded = super::load(&recipe)?;
    let (text, _) = loaded.lock()?;
    let lock = Sha256Digest::of(text.as_bytes()).to_string();
    if lock != built.manifest.lock_sha256 {
        return Err(hinted(
            format!(
                "{} was built from another lock: SHA-256 {}, found {lock}",
                arguments.image.display(),
                built.manifest.lock_sha256
            ),
            "check out the recipe and lock that the image was built from",
        ));
    }
    if built.manifest.secure_boot.is_some() {
        return Err(hinted(
            "the image's UKI is signed for Secure Boot, with a key that only its builder has",
            "compare the unsigned image: build it without --secure-boot-key",
        ));
    }
    let scratch = tempfile::tempdir().context("no place to build")?;
    let folder = scratch.path().join("image");
    let profile = built.manifest.profile;
    let again = super::build::make(&super::build::Arguments::again(&recipe, profile, &folder), session)?;
    let differ = differences(&built.manifest, &again.manifest);
    if !differ.is_empty() {
        let text = format!("not reproduced: {} differ\n", differ.join(", "));
        output::print(&match session.format {
            Format::Text => text,
            Format::Json => format!("{}\n", json!({"reproduced": false, "differ": differ})),
        })?;
        return Ok(ExitCode::from(NO));
    }
    let Some(who) = who else {
        output::print(&match session.format {
            Format::Text => format!("reproduced: all {} outputs are equal\n", again.manifest.outputs.len()),
            Format::Json => format!("{}\n", json!({"reproduced": true, "differ": []})),
        })?;
        return Ok(ExitCode::SUCCESS);
    };
    let own = arguments.image.join(file::MANIFEST);
    let own = std::fs::read(&own).with_context(|| format!("cannot read {}", own.display()))?;
    let digest = Sha256Digest::of(&own).to_string();
    let statement = Statement::reproduced(&built.manifest, &arguments.builder, &digest);
    let kind = format!("reproduced-{}", who.id()?.get(..8).unwrap_or_default());
    let published = arguments.logs.publisher(&arguments.image, &arguments.signing, &who, |publisher| {
        Ok(vec![publisher.publish(&kind, &statement)?])
    })?;
    told(&published, session.format)?;
    Ok(ExitCode::SUCCESS)
}
