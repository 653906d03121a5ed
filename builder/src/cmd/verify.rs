//! `proofmark verify`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use proofmark::flow::verify::{self, Answer};
use proofmark::host::{clock, output, small_file};
use proofmark::session::Session;
use proofmark::trust::Verified;
use proofmark::trust::bundle::{self, Artifact, Checked, PublicKey, Signer, Sigstore, Verify};
use serde_json::json;

use crate::failure::{NO, hinted};
use crate::format::Format;
use crate::options::firmware::FirmwareFiles;

/// Largest artifact that is held in memory, as signatures of Ed25519 keys need it; larger ones are read once.
const MOST_IN_MEMORY: u64 = 64 << 20;

/// Checks whether a claim holds, without the network. Exits with 0 if it does, and with 4 and the reason if not.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Folder of an image, with the bundles that were published beside it.
    #[arg(value_name = "OUT", requires = "policy")]
    image: Option<PathBuf>,
    /// Whom and what to trust: identities, logs, quorum, rebuilders, builders, version, age, deny list.
    #[arg(long, value_name = "FILE", requires = "image")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    firmware: FirmwareFiles,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Check whether a sigstore bundle holds for a file.
    Bundle(BundleArguments),
}

/// Checks signature, certificate, log entries, inclusion proofs, checkpoints, promises and time stamps of a bundle of
/// version 0.1 to 0.3.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("signer").required(true).args(["key", "identity"])))]
struct BundleArguments {
    /// The bundle.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Public key that must have signed, PEM.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["identity", "issuer"])]
    key: Option<PathBuf>,
    /// Name that the signer's certificate must have: a full mail address or URI.
    #[arg(long, value_name = "NAME", requires = "issuer")]
    identity: Option<String>,
    /// Issuer that must have vouched for the name: a full URL.
    #[arg(long, value_name = "URL", requires = "identity")]
    issuer: Option<String>,
    /// Keys of logs and authorities to trust [default: Sigstore's public instance, as built in].
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// The signed file, or its digest.
    #[arg(value_name = "FILE|sha256:HEX")]
    artifact: String,
}

/// Verifies a claim, and prints the verdict.
pub fn run(
    arguments: &Arguments,
    format: Format,
    session: &dyn Fn() -> anyhow::Result<Session>,
) -> anyhow::Result<ExitCode> {
    match (&arguments.what, &arguments.image, &arguments.policy) {
        (Some(What::Bundle(arguments)), ..) => bundle(arguments, format),
        (None, Some(folder), Some(policy)) => image(folder, policy, &arguments.firmware, session, format),
        _ => Err(hinted("nothing to verify is named", "give OUT --policy FILE, or bundle --bundle FILE")),
    }
}

fn image(
    folder: &Path,
    policy: &Path,
    firmware: &FirmwareFiles,
    session: &dyn Fn() -> anyhow::Result<Session>,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let session = || session().map_err(|error| format!("{error:#}"));
    let verdict = match verify::verify(folder, policy, firmware.files(), &session, clock::now())? {
        Answer::Judged(verdict) => verdict,
        Answer::Changed(reason) => return refused(&[reason], format),
    };
    if format == Format::Json {
        output::print(&format!("{}\n", serde_json::to_string_pretty(&verdict)?))?;
        return Ok(if verdict.holds() { ExitCode::SUCCESS } else { ExitCode::from(NO) });
    }
    let mut text = String::new();
    for accepted in &verdict.accepted {
        let logs: Vec<_> =
            accepted.logs.iter().map(|(log, index)| format!("entry {index} of {log}")).collect();
        text += &format!("{}: signed by {}, {}\n", accepted.bundle, accepted.identity, logs.join(", "));
    }
    for (bundle, reasons) in &verdict.passed_over {
        text += &format!("passed over: {bundle}: {}\n", reasons.join("; "));
    }
    output::print(&text)?;
    if !verdict.holds() {
        let reasons: Vec<String> = verdict.problems.iter().map(ToString::to_string).collect();
        return refused(&reasons, format);
    }
    output::print("verified\n")?;
    Ok(ExitCode::SUCCESS)
}

fn refused(reasons: &[String], format: Format) -> anyhow::Result<ExitCode> {
    output::print(&match format {
        Format::Text => reasons.iter().map(|reason| format!("refused: {reason}\n")).collect(),
        Format::Json => {
            format!("{}\n", serde_json::to_string_pretty(&json!({"verified": false, "reasons": reasons}))?)
        }
    })?;
    Ok(ExitCode::from(NO))
}

fn bundle(arguments: &BundleArguments, format: Format) -> anyhow::Result<ExitCode> {
    let verifier = match &arguments.trusted_root {
        Some(path) => Sigstore::new(&small_file::read(path)?)
            .with_context(|| format!("cannot trust {}", path.display()))?,
        None => Sigstore::public()?,
    };
    let signer = match (&arguments.key, &arguments.identity, &arguments.issuer) {
        (Some(path), None, None) => {
            let text = String::from_utf8(small_file::read(path)?)
                .with_context(|| format!("{} is not text", path.display()))?;
            let key = PublicKey::from_pem(&text).with_context(|| format!("cannot use {}", path.display()))?;
            Signer::Key(key)
        }
        (None, Some(name), Some(issuer)) => Signer::Identity { name: name.clone(), issuer: issuer.clone() },
        _ => {
            return Err(hinted(
                "the expected signer is not named",
                "give --key FILE, or --identity NAME and --issuer URL",
            ));
        }
    };
    let document = small_file::read(&arguments.bundle)?;
    let verdict = match arguments.artifact.strip_prefix("sha256:") {
        Some(text) => {
            let mut digest = [0; 32];
            hex::decode_to_slice(text, &mut digest)
                .with_context(|| format!("{text} is not a hexadecimal SHA-256"))?;
            verifier.verify(&document, Artifact::Sha256(digest), &signer)
        }
        None => {
            let path = Path::new(&arguments.artifact);
            let cannot = || format!("cannot read {}", path.display());
            let mut file = File::open(path).with_context(cannot)?;
            let metadata = file.metadata().with_context(cannot)?;
            if metadata.is_file() && metadata.len() <= MOST_IN_MEMORY {
                let mut bytes = Vec::new();
                file.take(MOST_IN_MEMORY + 1).read_to_end(&mut bytes).with_context(cannot)?;
                verifier.verify(&document, Artifact::Bytes(&bytes), &signer)
            } else {
                verifier.verify(&document, Artifact::Stream(&mut file), &signer)
            }
        }
    };
    match verdict {
        Ok(checked) => {
            output::print(&told(&checked, format)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(bundle::Error::Refused { reason }) => {
            output::print(&match format {
                Format::Text => format!("refused: {reason}\n"),
                Format::Json => {
                    format!(
                        "{}\n",
                        serde_json::to_string_pretty(&json!({"verified": false, "reason": reason}))?
                    )
                }
            })?;
            Ok(ExitCode::from(NO))
        }
        Err(error) => {
            Err(anyhow::Error::from(error).context(format!("cannot judge {}", arguments.bundle.display())))
        }
    }
}

fn told(checked: &Verified<Checked>, format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        let entries: Vec<_> = checked
            .entries()
            .iter()
            .map(|entry| json!({"index": entry.index, "kind": entry.kind, "log": hex::encode(&entry.log)}))
            .collect();
        let answer = json!({
            "verified": true,
            "payload_type": checked.payload().map(|payload| &payload.kind),
            "entries": entries,
            "times": checked.times(),
        });
        return Ok(format!("{}\n", serde_json::to_string_pretty(&answer)?));
    }
    let mut text = match checked.signer() {
        Signer::Key(_) => "verified: signed by the key\n".to_owned(),
        Signer::Identity { name, issuer } => {
            format!("verified: signed by {name}, for whom {issuer} vouches\n")
        }
    };
    for entry in checked.entries() {
        text += &format!("entry {} of log {}: {}\n", entry.index, hex::encode(&entry.log), entry.kind);
    }
    for time in checked.times() {
        text += &format!("signed before {time}, in seconds since 1970\n");
    }
    Ok(text)
}
