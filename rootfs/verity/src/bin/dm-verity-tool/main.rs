//! The program `dm-verity-tool`: writes and checks the hash trees of images as files.
//!
//! # Shape
//!
//! `main` reads the command line and maps a failure to an exit code; one verb is one file in `cmd`; `image`
//! reads data, `output` writes files, `report` prints.
//!
//! # Source
//!
//! The verbs and options of `veritysetup` (cryptsetup 2.6.1) that make sense without a kernel.
//!
//! # Not here
//!
//! `open` and `close`, which need the kernel's device mapper; the format, which is in the library.

mod cmd;
mod failure;
mod image;
mod output;
mod report;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Makes and checks the dm-verity hash tree of an image.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,

    /// Number of threads to hash on; one per core by default
    #[arg(long, global = true, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done; verified and intact
  1  failed
  2  wrong usage
  4  verified, and the image does not fit its root hash";

#[derive(Subcommand)]
enum Verb {
    Format(cmd::format::Format),
    Verify(cmd::verify::Verify),
    Dump(cmd::dump::Dump),
    Bench(cmd::bench::Bench),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(cli).unwrap_or_else(|error| failure::tell(&error))
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(threads) = cli.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get());
        pool.build_global().context("cannot start the threads")?;
    }
    match cli.verb {
        Verb::Format(verb) => verb.run(),
        Verb::Verify(verb) => verb.run(),
        Verb::Dump(verb) => verb.run(),
        Verb::Bench(verb) => verb.run(),
    }
}
