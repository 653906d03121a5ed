//! `proofmark publish`.

use std::path::PathBuf;
use std::process::ExitCode;

use proofmark::claim::file;
use proofmark::claim::provenance::statement::BUILDER;
use proofmark::flow::publish;
use proofmark::session::Session;

use crate::format::Format;
use crate::options::signing::Signing;
use crate::options::tlog::{Logs, told};

/// Signs how an image was built and what it measures to, logs it, and writes bundles and proofs beside the image.
/// Repeating it changes nothing; after a failure it continues where it stopped.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("who").required(true).args(["key", "sign_command", "fulcio"])))]
#[command(group(clap::ArgGroup::new("where").required(true).multiple(true).args(["log", "rekor_v2", "rekor_v1"])))]
pub struct Arguments {
    /// Folder of an image that `proofmark build` wrote.
    #[arg(value_name = "OUT")]
    image: PathBuf,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    logs: Logs,
    /// Who builds, as verifiers' policies name it [default: this program and its version].
    #[arg(long, value_name = "URI", default_value = BUILDER, hide_default_value = true)]
    builder: String,
}

/// Publishes an image.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let built = publish::whole(&arguments.image)?;
    let statements = publish::statements(&built, &arguments.builder)?;
    if statements.len() == 1 {
        session.progress.note(&format!("there is no {}: only the provenance is signed", file::VALUES));
    }
    let who = arguments.signing.who()?;
    let published = arguments.logs.publisher(&arguments.image, &arguments.signing, &who, |publisher| {
        let each = statements.iter();
        each.map(|(kind, statement)| Ok(publish::publish(publisher, kind, statement)?)).collect()
    })?;
    told(&published, format)?;
    Ok(ExitCode::SUCCESS)
}
