//! `proofmark eventlog`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use ovmf_measure::digest::Algorithm;
use ovmf_measure::log::Area;
use proofmark::claim::eventlog;
use proofmark::host::{output, small_file};
use proofmark::trust::evidence;

use crate::failure::NO;
use crate::format::Format;

/// Shows what an event log says: the registers that it leads to, each event, and whether its digest is that of its
/// data, where a rule can tell. Reads the log of a TD (/sys/firmware/acpi/tables/data/CCEL) or of a TPM
/// (/sys/kernel/security/tpm0/binary_bios_measurements), or the JSON of a quote with its events.
///
/// A log proves nothing by itself: `proofmark appraise` compares it with a quote and with reference values.
///
/// Exits with 0, and with 4 when data contradict their digest.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The event log.
    #[arg(value_name = "FILE")]
    log: PathBuf,
    /// The ACPI table that names the log's area (/sys/firmware/acpi/tables/CCEL or TPM2).
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Which digests of a TPM's log to take [default: the longest].
    #[arg(long, value_name = "BANK")]
    bank: Option<Bank>,
}

/// A bank of a TPM.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bank {
    Sha256,
    Sha384,
}

/// Reads an event log, and prints it.
pub fn run(arguments: &Arguments, format: Format) -> anyhow::Result<ExitCode> {
    let bytes = small_file::read_at_most(&arguments.log, "event log", small_file::EVIDENCE)?;
    let named = || format!("cannot read {}", arguments.log.display());
    let mut log = evidence::read_log(&bytes).with_context(named)?;
    if let Some(table) = &arguments.table {
        let named = || format!("{} is not the table of this log", table.display());
        let area = Area::read(&small_file::read_at_most(table, "ACPI table", small_file::LOG)?)
            .with_context(named)?;
        area.holds(bytes.len() as u64).with_context(named)?;
        log.kind = area.technology.into();
    }
    let algorithm = match arguments.bank {
        Some(Bank::Sha256) => Algorithm::Sha256,
        Some(Bank::Sha384) => Algorithm::Sha384,
        None => log.algorithms().last().copied().context("the log has no bank")?,
    };
    let told = eventlog::tell(&log, algorithm).with_context(named)?;
    match format {
        Format::Text => output::print(&told.to_text())?,
        Format::Json => output::print(&format!("{}\n", serde_json::to_string_pretty(&told)?))?,
    }
    Ok(match told.answer() {
        eventlog::Answer::Consistent => ExitCode::SUCCESS,
        eventlog::Answer::Contradicted => ExitCode::from(NO),
    })
}
