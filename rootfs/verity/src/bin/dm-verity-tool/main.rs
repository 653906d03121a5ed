//! The program `dm-verity-tool`: hash trees of images as files, with the library's bytes.
//!
//! # Shape
//!
//! `main` reads the command line and maps a failure to an exit code; one verb is one file in `cmd`; `image`
//! reads data, `output` writes files, `report` prints.
//!
//! # Source
//!
//! The verbs and options of `veritysetup` (cryptsetup 2.6.1), as far as they make sense without a kernel.
//!
//! # Not here
//!
//! `open` and `close`, which want the kernel's device mapper; anything of the format, which is the library.

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

    /// Hash on so many threads; without it, on one for each core
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
