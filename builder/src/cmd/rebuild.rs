//! `proofmark rebuild`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use proofmark::claim::provenance::statement::{BUILDER, Statement};
use proofmark::flow::rebuild::Rebuilt;
use proofmark::flow::{publish, rebuild};
use proofmark::host::output;
use proofmark::session::Session;
use serde_json::json;

use crate::failure::NO;
use crate::format::Format;
use crate::options::signing::Signing;
use crate::options::tlog::{Logs, told};

/// Builds an image again from its recipe, lock and fetched files only, and compares every output byte for byte. If all
/// are equal and a key is given, signs and logs a verification summary that says so. Exits with 4 if they differ.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("who").args(["key", "sign_command", "fulcio"]).requires("where")))]
#[command(group(
    clap::ArgGroup::new("where").multiple(true).args(["log", "rekor_v2", "rekor_v1"]).requires("who")
))]
pub struct Arguments {
    /// Folder of the image to build again.
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

/// Rebuilds an image.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let built = publish::whole(&arguments.image)?;
    // Find out before the work, not after, that a signer cannot sign.
    let who = arguments.signing.is_given().then(|| arguments.signing.who()).transpose()?;
    let usual = || Path::new("recipes").join(&built.manifest.name);
    let recipe = arguments.recipe.clone().unwrap_or_else(usual);
    let Rebuilt { manifest, differ } = rebuild::rebuild(&arguments.image, &built.manifest, &recipe, session)?;
    if !differ.is_empty() {
        let text = format!("not reproduced: {} differ\n", differ.join(", "));
        output::print(&match format {
            Format::Text => text,
            Format::Json => format!("{}\n", json!({"reproduced": false, "differ": differ})),
        })?;
        return Ok(ExitCode::from(NO));
    }
    let Some(who) = who else {
        output::print(&match format {
            Format::Text => format!("reproduced: all {} outputs are equal\n", manifest.outputs.len()),
            Format::Json => format!("{}\n", json!({"reproduced": true, "differ": []})),
        })?;
        return Ok(ExitCode::SUCCESS);
    };
    // Of the bytes that were compared, whatever lies there by now.
    let digest = built.manifest_sha256.to_string();
    let statement = Statement::reproduced(&built.manifest, &arguments.builder, &digest);
    let kind = format!("reproduced-{}", who.id()?.get(..8).unwrap_or_default());
    let published = arguments.logs.publisher(&arguments.image, &arguments.signing, &who, |publisher| {
        Ok(vec![publish::publish(publisher, &kind, &statement)?])
    })?;
    told(&published, format)?;
    Ok(ExitCode::SUCCESS)
}
