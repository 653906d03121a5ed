//! `proofmark build`: builds the image of a recipe.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use proofmark::amount;
use proofmark::claim::manifest::Manifest;
use proofmark::flow::build::{self, Outcome, Request};
use proofmark::host::firmware::Derived;
use proofmark::host::output;
use proofmark::host::recipe_folder::RecipeFolder;
use proofmark::image::sign::Signer;
use proofmark::recipe::{Profile, Recipe};
use proofmark::session::Session;

use crate::format::Format;

/// Which recipe, which profile, and where the outputs go.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the recipe.
    #[arg(default_value = ".")]
    recipe: PathBuf,
    /// Which of the recipe's two images: debug has a login, and verifiers refuse it.
    #[arg(long, value_enum, default_value_t = ProfileChoice::Release)]
    profile: ProfileChoice,
    /// Folder to write the outputs into [default: out/NAME-VERSION, with -debug for that profile].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Ignore everything that was derived before; only fetched files are used.
    #[arg(long)]
    fresh: bool,
    /// Sign the UKI for Secure Boot with this key (PKCS #8, PEM or DER). It changes the measurement.
    #[arg(long, value_name = "FILE", requires = "secure_boot_certificate")]
    secure_boot_key: Option<PathBuf>,
    /// The certificate of that key (X.509, PEM or DER).
    #[arg(long, value_name = "FILE", requires = "secure_boot_key")]
    secure_boot_certificate: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ProfileChoice {
    Release,
    Debug,
}

/// Builds an image, and reports the result.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let folder = RecipeFolder::open(&arguments.recipe)?;
    let profile = match arguments.profile {
        ProfileChoice::Release => Profile::Release,
        ProfileChoice::Debug => Profile::Debug,
    };
    let target = match &arguments.out {
        Some(out) => out.clone(),
        None => Path::new("out").join(folder_name(folder.recipe(profile)?)),
    };
    let signer = signer(arguments)?;
    let request = Request {
        folder: &folder,
        profile,
        signer: signer.as_ref(),
        target: &target,
        derived: if arguments.fresh { Derived::Ignored } else { Derived::Taken },
    };
    let (manifest, outcome) = build::build(&request, session)?;
    tell(&manifest, outcome, &target, started.elapsed(), format)?;
    Ok(ExitCode::SUCCESS)
}

fn folder_name(recipe: &Recipe) -> String {
    let suffix = if recipe.profile == Profile::Debug { "-debug" } else { "" };
    format!("{}-{}{suffix}", recipe.name, recipe.version)
}

fn signer(arguments: &Arguments) -> anyhow::Result<Option<Signer>> {
    let (Some(key), Some(certificate)) = (&arguments.secure_boot_key, &arguments.secure_boot_certificate)
    else {
        return Ok(None);
    };
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let signer = Signer::new(&read(key)?, &read(certificate)?);
    Ok(Some(signer.with_context(|| format!("cannot sign with {}", key.display()))?))
}

fn tell(
    manifest: &Manifest,
    outcome: Outcome,
    target: &Path,
    took: Duration,
    format: Format,
) -> io::Result<()> {
    let took = took.as_secs_f64();
    let what = match outcome {
        Outcome::Built => "built",
        Outcome::Unchanged => "nothing changed",
    };
    if format == Format::Json {
        return output::print(&manifest.to_text());
    }
    let Manifest { name, version, profile, .. } = manifest;
    let mut text = format!("{name} {version} ({}): {what} in {took:.2} s\n", profile.name());
    let mut line = |what: &str, value: &str| text.push_str(&format!("  {what:<21}  {value}\n"));
    line("folder", &target.display().to_string());
    for (name, output) in &manifest.outputs {
        line(name, &format!("{:>10}  sha256 {}", amount::bytes(output.size), output.sha256));
    }
    line("root hash", &manifest.verity.root_hash);
    line("kernel", &manifest.kernel.release);
    line("inputs", &manifest.inputs.len().to_string());
    if *profile == Profile::Debug {
        text.push_str("  This is the debug image: it has a login. Give it no secret.\n");
    }
    output::print(&text)
}
