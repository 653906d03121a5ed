//! Yields the transparency logs that take a statement, and the policy that they must satisfy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use proofmark::flow::publish::Published;
use proofmark::host::publication::{Publisher, Who};
use proofmark::host::tlog::directory::Writer;
use proofmark::host::tlog::rekor_v1::RekorV1;
use proofmark::host::tlog::rekor_v2::RekorV2;
use proofmark::host::tlog::web::PATIENCE;
use proofmark::host::tlog::witness::Asking;
use proofmark::host::tlog::{Folder, TransparencyLog};
use proofmark::host::{output, signer, small_file};
use proofmark::trust::transparency::note;
use proofmark::trust::transparency::tlog_policy::Policy;

use super::signing::Signing;
use crate::failure::hinted;
use crate::format::Format;

/// Where statements are logged.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Folder of a log that `proofmark log init` made.
    #[arg(long, value_name = "DIR", requires = "log_key")]
    log: Option<PathBuf>,
    /// That log's key.
    #[arg(long, value_name = "FILE", requires = "log")]
    log_key: Option<PathBuf>,
    /// Address of a Rekor v2.
    #[arg(long, value_name = "URL", requires = "log_policy")]
    rekor_v2: Option<String>,
    /// Address of that Rekor's tiles [default: the Rekor's, with /api/v2].
    #[arg(long, value_name = "URL", requires = "rekor_v2")]
    rekor_v2_tiles: Option<String>,
    /// Address of a Rekor v1.
    #[arg(long, value_name = "URL", requires = "log_policy")]
    rekor_v1: Option<String>,
    /// Logs and witnesses (tlog-policy) to demand [default: the log in the folder, without witnesses].
    #[arg(long, value_name = "FILE")]
    log_policy: Option<PathBuf>,
    /// Seconds to wait for a log's answer.
    #[arg(long, value_name = "SECONDS")]
    log_patience: Option<u64>,
}

impl Logs {
    /// Hands a publisher with these logs to `work`.
    pub fn publisher(
        &self,
        folder: &Path,
        signing: &Signing,
        who: &Who,
        work: impl FnOnce(&mut Publisher<'_>) -> anyhow::Result<Vec<Published>>,
    ) -> anyhow::Result<Vec<Published>> {
        if matches!(who, Who::Keyless(_)) && signing.timestamp_authority.is_none() && self.rekor_v1.is_none()
        {
            return Err(hinted(
                "a Fulcio certificate is valid for minutes, and nothing proves when it was used",
                "give a time: --timestamp-authority URL, or --rekor-v1 URL",
            ));
        }
        let mut authorities = None;
        if let Some(path) = &signing.trusted_root {
            let bytes = small_file::read(path)?;
            let root: serde_json::Value =
                serde_json::from_slice(&bytes).with_context(|| format!("cannot use {}", path.display()))?;
            authorities = Some(root);
        }
        let mut writer = None;
        if let (Some(folder), Some(key)) = (&self.log, &self.log_key) {
            writer = Some(Writer::open(folder, signing_key(key)?)?);
        }
        let (policy, text) = match (&self.log_policy, &writer) {
            (Some(path), _) => policy(path)?,
            (None, Some(writer)) => {
                let text = format!("log {}\nquorum none\n", writer.key());
                (Policy::parse(&text)?, text)
            }
            (None, None) => return Err(hinted("the trusted logs are not named", "give --log-policy FILE")),
        };
        let patience = patience(self.log_patience);
        let mut logs: Vec<Box<dyn TransparencyLog + '_>> = Vec::new();
        if let Some(writer) = writer {
            logs.push(Box::new(Folder { writer, cosigners: Asking { policy: &policy }, policy: &policy }));
        }
        if let Some(url) = &self.rekor_v2 {
            let tiles = self.rekor_v2_tiles.as_deref();
            logs.push(Box::new(RekorV2::new(url, tiles, &policy, patience)));
        }
        if let Some(url) = &self.rekor_v1 {
            logs.push(Box::new(RekorV1::new(url, &policy, Some(patience))));
        }
        let mut publisher = Publisher {
            folder,
            who,
            logs,
            stamps: signing.timestamp_authority.as_deref(),
            authorities: authorities.as_ref(),
            policy: &policy,
            policy_text: &text,
        };
        work(&mut publisher)
    }
}

/// Reads the signing key of a log or witness.
pub fn signing_key(path: &Path) -> anyhow::Result<note::SigningKey> {
    let text = signer::secret(path)?;
    note::SigningKey::parse(&text).with_context(|| format!("cannot use {}", path.display()))
}

/// Reads a policy of logs, and its text.
pub fn policy(path: &Path) -> anyhow::Result<(Policy, String)> {
    let text = String::from_utf8(small_file::read(path)?)
        .with_context(|| format!("{} is not text", path.display()))?;
    let policy = Policy::parse(&text).with_context(|| format!("cannot use {}", path.display()))?;
    Ok((policy, text))
}

/// How long to wait for a log's answer.
fn patience(seconds: Option<u64>) -> Duration {
    seconds.map_or(PATIENCE, Duration::from_secs)
}

/// Prints what was published.
pub fn told(published: &[Published], format: Format) -> anyhow::Result<()> {
    output::print(&match format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(published)?),
        Format::Text => {
            let mut text = String::new();
            for published in published {
                for (log, index) in &published.logs {
                    let new = if published.asked.contains(log) { "" } else { ", as before" };
                    text += &format!("{}.sigstore.json: entry {index} of {log}{new}\n", published.kind);
                }
            }
            text
        }
    })?;
    Ok(())
}
