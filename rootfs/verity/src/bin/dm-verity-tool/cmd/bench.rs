//! `bench`: measures how fast an image is hashed.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use dm_verity_tool::{Hasher, Parameters, Salt};
use serde::Serialize;

use crate::image::Image;
use crate::report::{Style, print_json};

/// Measure how fast DATA is read and hashed: the first round warms the cache, the fastest of the others counts
#[derive(clap::Args)]
#[command(hide = true)]
pub struct Bench {
    /// The image: a file or a block device
    data: PathBuf,

    /// Number of measured rounds
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: std::num::NonZeroU32,

    /// The salt, in hexadecimal
    #[arg(long, value_name = "HEX", default_value = "-")]
    salt: Salt,

    #[command(flatten)]
    style: Style,
}

#[derive(Serialize)]
struct Rate {
    bytes: u64,
    threads: usize,
    seconds: f64,
    bytes_per_second: f64,
    root_hash: String,
}

impl Bench {
    /// Runs the verb.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let bytes = Image::open(&self.data)?.length().context("a pipe cannot be read twice")?;
        let parameters = Parameters { salt: self.salt.clone(), ..Parameters::default() };
        let round = || {
            let start = Instant::now();
            let hasher = Hasher::new(&parameters);
            let tree = Image::open(&self.data)?.hash(hasher, parameters.data_block_size, None)?.finish()?;
            anyhow::Ok((start.elapsed().as_secs_f64(), tree.root_hash()))
        };
        let (_, root_hash) = round()?;
        let mut seconds = f64::INFINITY;
        for _ in 0..self.rounds.get() {
            seconds = seconds.min(round()?.0);
        }
        let threads = rayon::current_num_threads();
        let rate = bytes as f64 / seconds;
        if self.style.is_json() {
            let root_hash = root_hash.to_string();
            print_json(&Rate { bytes, threads, seconds, bytes_per_second: rate, root_hash })?;
        } else {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{bytes} bytes, {threads} threads, {seconds:.3} s, {:.2} GB/s", rate / 1e9)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
