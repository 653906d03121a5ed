//! Yields the command line's parsed arguments, and runs the verb that they name.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use proofmark::host::fetch::Network;
use proofmark::host::mirror::{Given, Mirrors};
use proofmark::host::npm_registry;
use proofmark::host::progress::Progress;
use proofmark::host::store::Store;
use proofmark::session::Session;

use crate::cmd;
use crate::format::Format;

/// Builds measured confidential VM images from declarative recipes.
#[derive(Debug, Parser)]
#[command(name = "proofmark", version, about, max_term_width = 110, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// Print one JSON document on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print nothing but errors.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Folder of fetched files and of what is derived from them [default: the user's cache folder].
    #[arg(long, global = true, env = "PROOFMARK_STORE", value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Never use the network.
    #[arg(long, global = true)]
    pub offline: bool,
    /// A folder that `proofmark vendor` wrote, to take files from; may be given several times.
    #[arg(long, global = true, value_name = "DIR")]
    pub vendor: Vec<PathBuf>,
    /// A mirror of Debian's archive.
    #[arg(long, global = true, value_name = "URL")]
    pub debian_mirror: Vec<String>,
    /// A mirror of Debian's security archive.
    #[arg(long, global = true, value_name = "URL")]
    pub debian_security_mirror: Vec<String>,
    /// An npm registry.
    #[arg(long, global = true, value_name = "URL")]
    pub npm_registry: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a recipe to start from.
    New(cmd::new::Arguments),
    /// Build the image of a recipe.
    Build(cmd::build::Arguments),
    /// Resolve a recipe's packages and write recipe.lock beside it.
    Lock(cmd::lock::Arguments),
    /// Show what a new lock would change, package by package; --write writes it.
    Update(cmd::update::Arguments),
    /// Bring everything that a lock names into the store.
    Fetch(cmd::fetch::Arguments),
    /// Write everything that a lock names to a folder that serves as a mirror.
    Vendor(cmd::vendor::Arguments),
    /// Boot an image in QEMU on a copy-on-write overlay; the image itself is never written.
    Run(Box<cmd::run::Arguments>),
    /// Show which package, recipe line or fix-up brought a path into an image.
    Why(cmd::why::Arguments),
    /// Show where the bytes of an image are: by package and by folder, largest first.
    Size(cmd::size::Arguments),
    /// Compute the registers and events of a machine that booted an image.
    Measure(Box<cmd::measure::Arguments>),
    /// Recompute all reference values of an image from its bytes, and compare them with a document.
    Audit(cmd::audit::Arguments),
    /// Show what differs between two images, locks or recipes.
    Diff(cmd::diff::Arguments),
    /// Check the inputs of a lock again, starting from Debian's keys and npm's digests.
    Inputs(cmd::inputs::Arguments),
    /// Sign and log how an image was built and what it measures to.
    Publish(cmd::publish::Arguments),
    /// Build an image again, compare it byte for byte, and sign that it is the same.
    Rebuild(cmd::rebuild::Arguments),
    /// Make a key that signs statements, a log, or a witness's cosignatures.
    Key(cmd::key::Arguments),
    /// Make, write, serve and watch transparency logs.
    Log(cmd::log::Arguments),
    /// Check whether a signed claim holds, without the network.
    Verify(cmd::verify::Arguments),
    /// Write an image's reference values or bill of materials in a form that others import.
    Export(cmd::export::Arguments),
    /// List the known vulnerabilities that affect an image, from a database that you bring along.
    Scan(cmd::scan::Arguments),
    /// Show what an event log says: registers, events, and which digests its data explain.
    Eventlog(cmd::eventlog::Arguments),
    /// Judge a machine's evidence by reference values and a policy.
    Appraise(Box<cmd::appraise::Arguments>),
    /// Print the JSON Schema of recipes.
    Schema(cmd::schema::Arguments),
    /// Print completions for bash, zsh or fish.
    Completions(cmd::completions::Arguments),
    /// Print a manual page.
    Man(cmd::man::Arguments),
}

/// Makes the session that the flags, the environment and the configuration file describe.
fn session_of(common: &Common) -> anyhow::Result<Session> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let home = |name: &str, below: &str| -> Option<PathBuf> {
        let own = variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        own.or_else(|| Some(PathBuf::from(variable("HOME")?).join(below)))
    };
    let root = match &common.store {
        Some(root) => root.clone(),
        None => home("XDG_CACHE_HOME", ".cache").map(|cache| cache.join("proofmark")).context(
            "no folder for the store: neither --store, PROOFMARK_STORE, XDG_CACHE_HOME nor HOME is set",
        )?,
    };
    let flags = Given {
        debian: common.debian_mirror.clone(),
        debian_security: common.debian_security_mirror.clone(),
        npm: common.npm_registry.clone(),
        vendor: common.vendor.iter().map(std::path::absolute).collect::<Result<_, _>>()?,
    };
    let configuration = match home("XDG_CONFIG_HOME", ".config") {
        Some(folder) => Given::from_file(&folder.join("proofmark/config.toml"))?,
        None => Given::default(),
    };
    let given = vec![flags, Given::from_environment(&variable), configuration];
    Ok(Session {
        progress: if common.quiet { Progress::Silent } else { Progress::detect() },
        store: Store::open(&root)?,
        mirrors: Mirrors::new(given, Box::new(npm_registry::of_this_machine)),
        network: if common.offline { Network::Offline } else { Network::Allowed },
    })
}

/// Runs the verb that the arguments name.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let session = || session_of(&arguments.common);
    let format = if arguments.common.json { Format::Json } else { Format::Text };
    match &arguments.verb {
        Verb::Build(verb) => cmd::build::run(verb, &session()?, format),
        Verb::Lock(verb) => cmd::lock::run(verb, &session()?, format),
        Verb::Update(verb) => cmd::update::run(verb, &session()?, format),
        Verb::Fetch(verb) => cmd::fetch::run(verb, &session()?, format),
        Verb::Vendor(verb) => cmd::vendor::run(verb, &session()?, format),
        Verb::Run(verb) => cmd::run::run(verb, &session()?, format),
        Verb::Why(verb) => cmd::why::run(verb, format),
        Verb::Size(verb) => cmd::size::run(verb, format),
        Verb::Measure(verb) => cmd::measure::run(verb, &session()?, format),
        Verb::Audit(verb) => cmd::audit::run(verb, &session()?, format),
        Verb::Diff(verb) => cmd::diff::run(verb, &session()?, format),
        Verb::Inputs(verb) => cmd::inputs::run(verb, &session()?, format),
        Verb::Publish(verb) => cmd::publish::run(verb, &session()?, format),
        Verb::Rebuild(verb) => cmd::rebuild::run(verb, &session()?, format),
        Verb::Key(verb) => cmd::key::run(verb),
        Verb::Log(verb) => cmd::log::run(verb, format),
        Verb::Verify(verb) => cmd::verify::run(verb, format, &session),
        Verb::Export(verb) => cmd::export::run(verb, &session()?),
        Verb::Scan(verb) => cmd::scan::run(verb, &session()?, format),
        Verb::Eventlog(verb) => cmd::eventlog::run(verb, format),
        Verb::Appraise(verb) => cmd::appraise::run(verb, format),
        Verb::Schema(verb) => cmd::schema::run(verb),
        Verb::New(verb) => cmd::new::run(verb, format),
        Verb::Completions(verb) => cmd::completions::run(verb, Arguments::command()),
        Verb::Man(verb) => cmd::man::run(verb, Arguments::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clap lets an option of a verb hide a common one, and then panics when the common one is read.
    #[test]
    fn no_verb_has_an_option_named_like_a_common_one() {
        Arguments::command().debug_assert();
        let program = Arguments::command();
        let common: Vec<&clap::Arg> = program.get_arguments().collect();
        assert!(common.iter().any(|option| option.get_long() == Some("vendor")));
        for verb in program.get_subcommands() {
            let below = verb.get_subcommands().flat_map(clap::Command::get_arguments);
            for option in verb.get_arguments().chain(below) {
                for other in &common {
                    assert_ne!(option.get_id(), other.get_id(), "{}", verb.get_name());
                    assert!(
                        option.get_long().is_none() || option.get_long() != other.get_long(),
                        "{}",
                        verb.get_name()
                    );
                }
            }
        }
    }
}
