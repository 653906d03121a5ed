//! `proofmark publish`.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use proofmark::claim::file;
use proofmark::claim::provenance::statement::{BUILDER, Byproduct, Statement};
use proofmark::host::built::Built;
use proofmark::host::log::directory::Writer;
use proofmark::host::log::rekor_v1::RekorV1;
use proofmark::host::log::rekor_v2::RekorV2;
use proofmark::host::log::witness::Asking;
use proofmark::host::log::{Folder, TransparencyLog};
use proofmark::host::output;
use proofmark::host::publish::{Keyless, Published, Publisher, Token, Who};
use proofmark::host::signer::{self, Signer};
use proofmark::trust::bundle::Certificate;
use proofmark::trust::envelope::VerifyingKey;
use proofmark::trust::transparency::policy::Policy;
use rootfs::content::Sha256Digest;

use super::log::{environment, patience, policy, signing_key};
use crate::cli::{Format, Session};
use crate::failure::hinted;

/// Documents beside an image which the provenance names when they are there.
const BESIDE: [&str; 4] = [file::MANIFEST, file::VALUES, file::CYCLONEDX, file::SPDX];

/// Signs how an image was built and what it measures to, logs it, and writes bundles and proofs beside the image.
/// Repeating it changes nothing; after a failure it goes on where it was.
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

/// Who signs.
#[derive(Debug, clap::Args)]
pub struct Signing {
    /// File of the key: ECDSA P-256, PKCS #8 PEM, readable by its owner alone.
    #[arg(long, value_name = "FILE", conflicts_with = "public_key")]
    key: Option<PathBuf>,
    /// Program that signs: it gets a file to sign as last argument, and prints the signature (DER or base64).
    #[arg(long, value_name = "PROGRAM", requires = "public_key")]
    sign_command: Option<PathBuf>,
    /// An argument of that program before the file; may be given several times.
    #[arg(long, value_name = "ARGUMENT", requires = "sign_command", allow_hyphen_values = true)]
    sign_argument: Vec<OsString>,
    /// Public key of that program, PEM.
    #[arg(long, value_name = "FILE", requires = "sign_command")]
    public_key: Option<PathBuf>,
    /// Address of a Fulcio: it certifies a key of this run alone for whom the identity token names.
    #[arg(long, value_name = "URL", requires_all = ["identity_token", "trusted_root"], conflicts_with_all = ["key", "certificate"])]
    fulcio: Option<String>,
    /// File of the identity token (OIDC) that says who runs this, readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "fulcio")]
    identity_token: Option<PathBuf>,
    /// Certificate of the key, PEM: verifiers then ask for its name and issuer, not for the key.
    #[arg(long, value_name = "FILE", requires = "timestamp_authority", requires = "trusted_root")]
    certificate: Option<PathBuf>,
    /// Address of an authority that stamps the time on signatures (RFC 3161); certificates need it.
    #[arg(long, value_name = "URL", requires = "trusted_root")]
    timestamp_authority: Option<String>,
    /// Trust root with the authorities of certificate and stamps.
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
}

/// Where it is logged.
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
    /// Address of its tiles [default: the Rekor's, with /api/v2].
    #[arg(long, value_name = "URL", requires = "rekor_v2")]
    rekor_v2_tiles: Option<String>,
    /// Address of a Rekor v1.
    #[arg(long, value_name = "URL", requires = "log_policy")]
    rekor_v1: Option<String>,
    /// Logs and witnesses (tlog-policy) to demand [default: the log in the folder, without witnesses].
    #[arg(long, value_name = "FILE")]
    log_policy: Option<PathBuf>,
    /// Seconds that a log may take for an answer.
    #[arg(long, value_name = "SECONDS")]
    log_patience: Option<u64>,
}

impl Signing {
    /// Whether it is said who signs.
    pub fn is_given(&self) -> bool {
        self.key.is_some() || self.sign_command.is_some() || self.fulcio.is_some()
    }

    fn signer(&self) -> anyhow::Result<Signer> {
        if let Some(path) = &self.key {
            return Ok(Signer::from_file(path)?);
        }
        let (Some(program), Some(path)) = (&self.sign_command, &self.public_key) else {
            return Err(hinted("who signs is not said", "give --key FILE"));
        };
        let public =
            VerifyingKey::from_pem(&text(path)?).with_context(|| format!("cannot use {}", path.display()))?;
        let program = std::path::absolute(program)?.into_os_string();
        let command = [program].into_iter().chain(self.sign_argument.iter().cloned()).collect();
        Ok(Signer::Command { command, environment: environment(), public })
    }

    /// Who signs.
    pub fn who(&self) -> anyhow::Result<Who> {
        if let (Some(address), Some(path)) = (&self.fulcio, &self.identity_token) {
            let token = Token(signer::secret(path)?);
            return Ok(Who::Keyless(Keyless { address: address.clone(), token, issued: OnceCell::new() }));
        }
        Ok(match &self.certificate {
            Some(path) => Who::Certified(self.signer()?, certificate(path)?),
            None => Who::Key(self.signer()?),
        })
    }
}

fn text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The one certificate in a PEM file.
fn certificate(path: &Path) -> anyhow::Result<Certificate> {
    let read = Certificate::from_pem(&text(path)?);
    read.with_context(|| format!("{} is no PEM with one certificate", path.display()))
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
                "a certificate of Fulcio holds for some minutes, and nothing tells when it was used",
                "give a time: --timestamp-authority URL, or --rekor-v1 URL",
            ));
        }
        let mut authorities = None;
        if let Some(path) = &signing.trusted_root {
            let bytes = super::verify::read(path)?;
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
            (None, None) => return Err(hinted("which logs to trust is not said", "give --log-policy FILE")),
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

/// Documents beside the image that its provenance names.
pub fn beside(folder: &Path) -> anyhow::Result<Vec<Byproduct>> {
    let mut found = Vec::new();
    for name in BESIDE {
        match std::fs::read(folder.join(name)) {
            Ok(bytes) => {
                found.push(Byproduct { name: name.to_owned(), sha256: Sha256Digest::of(&bytes).to_string() })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
        }
    }
    Ok(found)
}

/// Opens an image whose files are all there, and those that its manifest names.
pub fn whole(folder: &Path) -> anyhow::Result<Built> {
    let built = Built::open(folder)?;
    if let Some(name) = built.check_outputs()?.first() {
        return Err(hinted(
            format!("{} has no {name}, which its manifest names", folder.display()),
            "statements are signed of whole images only: build it again",
        ));
    }
    Ok(built)
}

/// Says what was published.
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

/// Publishes.
pub fn run(arguments: &Arguments, session: &Session) -> anyhow::Result<ExitCode> {
    let built = whole(&arguments.image)?;
    let provenance = Statement::provenance(&built.manifest, &arguments.builder, &beside(&arguments.image)?);
    let path = arguments.image.join(file::VALUES);
    let values = match std::fs::read(&path) {
        Ok(bytes) => {
            Some(serde_json::from_slice(&bytes).with_context(|| format!("cannot use {}", path.display()))?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            session.progress.note(&format!("there is no {}: only the provenance is signed", file::VALUES));
            None
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut statements = vec![("provenance", provenance)];
    statements
        .extend(values.map(|values| ("reference-values", Statement::reference(&built.manifest, values))));
    let who = arguments.signing.who()?;
    let published = arguments.logs.publisher(&arguments.image, &arguments.signing, &who, |publisher| {
        statements.iter().map(|(kind, statement)| Ok(publisher.publish(kind, statement)?)).collect()
    })?;
    told(&published, session.format)?;
    Ok(ExitCode::SUCCESS)
}
