//! `proofmark export`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use ovmf_measure::reference::Reference;
use proofmark::claim::export::{self, corim, rvps};
use proofmark::claim::file;
use proofmark::host::built::Built;
use proofmark::host::files;
use proofmark::session::Session;

use crate::failure::hinted;

/// The longest document of reference values, in bytes; real ones have some hundred kilobytes.
const MAX_REFERENCE: u64 = 64 << 20;

/// Writes an image's reference values or bill of materials in a form that others import.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The form.
    #[arg(value_enum, value_name = "FORM")]
    form: Form,
    /// Folder of an image that `proofmark build` wrote.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The image's reference values [default: reference-values.json in IMAGE].
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Export only the values of this platform.
    #[arg(long, value_name = "NAME")]
    platform: Option<String>,
    /// Whose names the values of `rvps` have.
    #[arg(long, value_enum, value_name = "NAMES", default_value_t = Names::Upstream)]
    names: Names,
    /// XFAM of the TDs, for `rvps`: the platform decides it, not the image.
    #[arg(long, value_name = "HEX")]
    xfam: Option<String>,
    /// The file to write [default: standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// A message for Trustee's reference value provider service.
    Rvps,
    /// A Concise Reference Integrity Manifest, unsigned.
    Corim,
    /// The bill of materials in CycloneDX form.
    Cyclonedx,
    /// The bill of materials in SPDX form.
    Spdx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Names {
    /// The names of Trustee.
    Upstream,
    /// The names of Alibaba Cloud's Trustee.
    Alibaba,
}

/// Exports.
pub fn run(arguments: &Arguments, session: &Session) -> anyhow::Result<ExitCode> {
    let built = Built::open(&arguments.image)?;
    let bytes = match arguments.form {
        Form::Cyclonedx => sbom(&built, file::CYCLONEDX)?,
        Form::Spdx => sbom(&built, file::SPDX)?,
        Form::Rvps => {
            let reference = reference(arguments, &built)?;
            let names = match arguments.names {
                Names::Upstream => rvps::Names::Upstream,
                Names::Alibaba => rvps::Names::Alibaba,
            };
            let xfam = arguments.xfam.as_deref().map(xfam).transpose()?;
            let platform = arguments.platform.as_deref();
            let exported = rvps::message(&reference, names, platform, xfam)?;
            tell(&exported.left_out, session);
            exported.document.into_bytes()
        }
        Form::Corim => {
            let exported = corim::document(&reference(arguments, &built)?, arguments.platform.as_deref())?;
            tell(&exported.left_out, session);
            exported.document
        }
    };
    match &arguments.out {
        Some(path) => {
            files::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        None if arguments.form == Form::Corim && io::stdout().is_terminal() => {
            return Err(hinted(
                "a CoRIM is binary, and standard output is a terminal",
                "name a file with --out FILE",
            ));
        }
        None => match io::stdout().write_all(&bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            done => done?,
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks sixteen hexadecimal digits, as a quote shows them.
fn xfam(text: &str) -> anyhow::Result<&str> {
    let right = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let wrong =
        || hinted(format!("{text:?} is not an XFAM"), "give the 8 bytes of a quote's field as 16 digits");
    right.then_some(text).ok_or_else(wrong)
}

fn tell(left_out: &[String], session: &Session) {
    for one in left_out {
        session.progress.note(&format!("remark: {one} is left out: it depends on the platform"));
    }
}

fn sbom(built: &Built, name: &str) -> anyhow::Result<Vec<u8>> {
    built.output(name)?.ok_or_else(|| {
        let message = format!("{} has no {name}", built.folder.display());
        hinted(message, "build the image again with this version of proofmark")
    })
}

/// Reads a file; `None` when it does not exist.
fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    use std::io::Read;
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_REFERENCE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_REFERENCE {
            return Err(io::Error::other(format!("more than {MAX_REFERENCE} bytes")));
        }
        Ok(bytes)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => Ok(Some(other.with_context(|| format!("cannot read {}", path.display()))?)),
    }
}

/// Reads the reference values, which must be those of the image.
fn reference(arguments: &Arguments, built: &Built) -> anyhow::Result<Reference> {
    let (bytes, path) = match &arguments.reference {
        Some(path) => (read(path)?, path.clone()),
        None => {
            let beside = built.folder.join(file::VALUES);
            (if beside.exists() { built.output(file::VALUES)? } else { None }, beside)
        }
    };
    let bytes = bytes.ok_or_else(|| {
        let message = format!("{} is not there", path.display());
        hinted(message, "list machines in the recipe's table `measure`, or name a file with --reference FILE")
    })?;
    let reference: Reference =
        serde_json::from_slice(&bytes).with_context(|| format!("cannot parse {}", path.display()))?;
    export::is_of(&reference, &built.manifest).with_context(|| format!("cannot use {}", path.display()))?;
    Ok(reference)
}
