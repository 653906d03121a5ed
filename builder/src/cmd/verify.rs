//! `proofmark verify`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use ovmf_measure::digest::Algorithm;
use ovmf_measure::reference::Reference;
use proofmark::claim::file;
use proofmark::claim::provenance::verdict::{self, Image, Recompute};
use proofmark::claim::reference::{Files, Hashed, ORDERS};
use proofmark::host::built::Built;
use proofmark::host::fetch::{self, Network};
use proofmark::host::output;
use proofmark::trust::Verified;
use proofmark::trust::bundle::{self, Artifact, Checked, PublicKey, Signer, Sigstore, Verify};
use proofmark::trust::image_policy::Policy;
use rootfs::content::Sha256Digest;
use serde_json::json;

use super::measure::{self, FirmwareFiles, Opened, hashed};
use crate::cli::{Format, Session};
use crate::failure::{NO, hinted};

/// Largest artifact that is held in memory, as signatures of Ed25519 keys need it; larger ones are read once.
const MOST_IN_MEMORY: u64 = 64 << 20;

/// Says whether a claim holds, without the network. Exits with 0 when it does, and with 4 and the reason when not.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Folder of an image, with the bundles that were published beside it.
    #[arg(value_name = "OUT", requires = "policy")]
    image: Option<PathBuf>,
    /// Whom and what to believe: identities, logs, quorum, rebuilders, builders, version, age, deny list.
    #[arg(long, value_name = "FILE", requires = "image")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    firmware: FirmwareFiles,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Say whether a sigstore bundle holds for a file.
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
    /// Name that the signer's certificate must have: a mail address or a URI, whole.
    #[arg(long, value_name = "NAME", requires = "issuer")]
    identity: Option<String>,
    /// Who must have vouched for the name: a URL, whole.
    #[arg(long, value_name = "URL", requires = "identity")]
    issuer: Option<String>,
    /// Keys of logs and authorities to trust [default: Sigstore's public instance, as built in].
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// What was signed, or its digest.
    #[arg(value_name = "FILE|sha256:HEX")]
    artifact: String,
}

/// Says it.
pub fn run(
    arguments: &Arguments,
    format: Format,
    session: &dyn Fn() -> anyhow::Result<Session>,
) -> anyhow::Result<ExitCode> {
    match (&arguments.what, &arguments.image, &arguments.policy) {
        (Some(What::Bundle(arguments)), ..) => bundle(arguments, format),
        (None, Some(folder), Some(policy)) => {
            let firmware = &arguments.firmware;
            image(folder, policy, &FromImage { folder, firmware, session }, format)
        }
        _ => Err(hinted("what to verify is not said", "give OUT --policy FILE, or bundle --bundle FILE")),
    }
}

/// Computes the reference values of the image in a folder.
struct FromImage<'a> {
    folder: &'a Path,
    firmware: &'a FirmwareFiles,
    session: &'a dyn Fn() -> anyhow::Result<Session>,
}

impl FromImage<'_> {
    fn values(&self, signed: &serde_json::Value) -> anyhow::Result<serde_json::Value> {
        let signed: Reference =
            serde_json::from_value(signed.clone()).context("the signed document is malformed")?;
        // What is verified is what is here: nothing is fetched.
        let session = Session { network: Network::Offline, ..(self.session)()? };
        let place = measure::place(self.folder)?;
        let machines = measure::machines(&signed)?;
        let missing = |error: anyhow::Error| match error.downcast_ref::<fetch::Error>() {
            Some(_) => error.context(
                "the firmware is needed: name it by --firmware FILE, or bring it by `proofmark fetch`",
            ),
            None => error,
        };
        let firmware = || place.firmware(&machines, self.firmware, &session);
        let document = |opened: &Opened, hashed: &Hashed<'_>| {
            Ok(hashed.document(Files {
                uki: Algorithm::Sha256.of(&opened.uki),
                disk: place.disk_digest()?,
                disk_bytes: opened.disk.bytes(),
            })?)
        };
        let values = hashed(&place, &machines, &ORDERS, firmware, document).map_err(missing)?;
        Ok(serde_json::to_value(values)?)
    }
}

impl Recompute for FromImage<'_> {
    fn recompute(&self, signed: &serde_json::Value) -> Result<serde_json::Value, String> {
        self.values(signed).map_err(|error| format!("{error:#}"))
    }
}

fn image(folder: &Path, path: &Path, values: &FromImage<'_>, format: Format) -> anyhow::Result<ExitCode> {
    let text = String::from_utf8(read(path)?).with_context(|| format!("{} is no text", path.display()))?;
    let beside = path.parent().unwrap_or(Path::new(""));
    let policy = Policy::parse(&text, &|name| std::fs::read(beside.join(name)))
        .with_context(|| format!("cannot use {}", path.display()))?;
    let built = Built::open(folder)?;
    let absent = match built.check_outputs() {
        Ok(absent) => absent,
        // A file that is not the one of the manifest is no failure of this program, but an answer.
        Err(error) => return refused(&[proofmark::host::chain(&error)], format),
    };
    let cannot = || format!("cannot read {}", folder.display());
    let manifest = std::fs::read(folder.join(file::MANIFEST)).with_context(cannot)?;
    let mut bundles = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.ends_with(".sigstore.json") {
            bundles.insert(name, read(&path)?);
        }
    }
    let image =
        Image { manifest: &built.manifest, manifest_sha256: Sha256Digest::of(&manifest).to_string(), absent };
    let verdict = verdict::judge(&policy, &image, &bundles, values, super::now());
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

/// Reads a file that must be small.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut bytes = Vec::new();
    let most = bundle::MOST_BYTES as u64;
    file.take(most + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > most {
        anyhow::bail!("{} is longer than {most} bytes", path.display());
    }
    Ok(bytes)
}

fn bundle(arguments: &BundleArguments, format: Format) -> anyhow::Result<ExitCode> {
    let verifier = match &arguments.trusted_root {
        Some(path) => {
            Sigstore::new(&read(path)?).with_context(|| format!("cannot trust {}", path.display()))?
        }
        None => Sigstore::public()?,
    };
    let signer = match (&arguments.key, &arguments.identity, &arguments.issuer) {
        (Some(path), None, None) => {
            let text =
                String::from_utf8(read(path)?).with_context(|| format!("{} is no text", path.display()))?;
            let key = PublicKey::from_pem(&text).with_context(|| format!("cannot use {}", path.display()))?;
            Signer::Key(key)
        }
        (None, Some(name), Some(issuer)) => Signer::Identity { name: name.clone(), issuer: issuer.clone() },
        _ => {
            return Err(hinted(
                "who must have signed is not said",
                "give --key FILE, or --identity NAME and --issuer URL",
            ));
        }
    };
    let document = read(&arguments.bundle)?;
    let verdict = match arguments.artifact.strip_prefix("sha256:") {
        Some(text) => {
            let mut digest = [0; 32];
            hex::decode_to_slice(text, &mut digest)
                .with_context(|| format!("{text} is no SHA-256 in hexadecimal"))?;
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
