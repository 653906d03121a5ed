//! `proofmark appraise`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use ovmf_measure::appraise::{self, Exception, Policy};
use ovmf_measure::quote::Bytes;
use ovmf_measure::reference::Reference;
use proofmark::claim::appraisal;
use proofmark::host::{output, small_file};
use proofmark::trust::evidence;
use serde::de::DeserializeOwned;

use crate::failure::{NO, hinted};
use crate::format::Format;

/// Judges a machine's evidence: the log must lead to the registers of the quote, and every event must be the next one
/// that the reference values predict, with none missing and none extra. Prints every reason for a refusal.
///
/// Signatures are not verified yet. A quote is refused for that alone, unless --allow unverified-quote or the policy
/// allows it; the verdict then says so.
///
/// Exits with 0 when the evidence is accepted, and with 4 when it is refused.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A quote or TDREPORT, or a JSON document with one or with PCR values, and optionally with the event log.
    #[arg(long, value_name = "FILE")]
    evidence: PathBuf,
    /// The event log of the same boot, if the evidence does not contain it.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The reference values of the image: reference-values.json.
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    /// What is allowed, as JSON or TOML [default: the strictest].
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Allow by name what is otherwise refused; may be given several times.
    #[arg(long, value_name = "WHAT")]
    allow: Vec<Allowed>,
    /// Accept only by platforms of this name; may be given several times.
    #[arg(long, value_name = "NAME")]
    platform: Vec<String>,
    /// The report data that the quote must have, such as your nonce: 128 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    report_data: Option<Bytes<64>>,
}

/// What can be allowed by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Allowed {
    /// A quote, TDREPORT or PCR values whose signature was not verified.
    UnverifiedQuote,
    /// An image of the debug profile.
    DebugImage,
}

impl From<Allowed> for Exception {
    fn from(allowed: Allowed) -> Self {
        match allowed {
            Allowed::UnverifiedQuote => Exception::UnverifiedQuote,
            Allowed::DebugImage => Exception::DebugImage,
        }
    }
}

/// Judges the evidence.
pub fn run(arguments: &Arguments, format: Format) -> anyhow::Result<ExitCode> {
    let reference: Reference = document(&arguments.reference)?;
    let mut policy: Policy = match &arguments.policy {
        Some(path) => document(path)?,
        None => Policy::default(),
    };
    policy.allow.extend(arguments.allow.iter().copied().map(Exception::from));
    policy.platforms.extend(arguments.platform.iter().cloned());
    policy.report_data = arguments.report_data.or(policy.report_data);
    let beside = arguments.log.as_ref().map(|path| {
        let bytes = small_file::read_at_most(path, "event log", small_file::EVIDENCE)?;
        evidence::read_log(&bytes).with_context(|| format!("cannot read {}", path.display()))
    });
    let named = || format!("cannot read {}", arguments.evidence.display());
    let parts =
        evidence::read(&small_file::read_at_most(&arguments.evidence, "evidence", small_file::EVIDENCE)?)
            .with_context(named)?;
    let evidence = parts.with_log(beside.transpose()?, &reference).map_err(|error| match error {
        evidence::Error::NoLog => hinted(error.to_string(), "name the log of the same boot with --log FILE"),
        evidence::Error::TwoLogs => hinted(error.to_string(), "leave out --log"),
        other => anyhow::Error::from(other).context(named()),
    })?;
    let verdict = appraise::appraise(&evidence, &reference, &policy).context("there is no verdict")?;
    match format {
        Format::Text => output::print(&appraisal::to_text(&verdict))?,
        Format::Json => {
            let answer = appraisal::Answer::from(&verdict);
            output::print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?;
        }
    }
    Ok(match verdict.answer() {
        appraise::Answer::Accepted => ExitCode::SUCCESS,
        appraise::Answer::Refused => ExitCode::from(NO),
    })
}

/// Reads JSON, or TOML if the file's name says so.
fn document<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = small_file::read(path)?;
    let named = || format!("cannot read {}", path.display());
    if path.extension().is_some_and(|extension| extension == "toml") {
        let text = String::from_utf8(bytes).with_context(named)?;
        return toml::from_str(&text).with_context(named);
    }
    serde_json::from_slice(&bytes).with_context(named)
}
