//! Appraises a quote and its event log against reference values.
//!
//! `cargo run -p ovmf-measure --example appraise -- quote.bin ccel.bin reference-values.json`
//!
//! Prints the verdict with every reason and note. Exit codes: 0 accepted, 4 refused, 1 not appraised.

#![allow(clippy::print_stdout)] // the verdict

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use ovmf_measure::appraise::{Answer, Evidence, Exception, Policy, appraise};
use ovmf_measure::log::Log;
use ovmf_measure::quote::Quote;
use ovmf_measure::reference::Reference;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [quote, log, reference] = paths.as_slice() else {
        return Err("usage: appraise QUOTE LOG REFERENCE".into());
    };
    let quote = Quote::read(&fs::read(quote)?)?;
    let log = Log::read_any(&fs::read(log)?)?;
    let reference: Reference = serde_json::from_slice(&fs::read(reference)?)?;

    // This crate does not verify the quote's signature. Allow this only if your program has verified it.
    let policy = Policy { allow: [Exception::UnverifiedQuote].into(), ..Policy::default() };
    let verdict = appraise(&Evidence::of_quote(&quote, log), &reference, &policy)?;

    println!("{} (signature {})", verdict.answer(), verdict.signature());
    verdict.reasons().iter().for_each(|reason| println!("reason: {reason}"));
    verdict.notes().iter().for_each(|note| println!("note: {note}"));
    Ok(match verdict.answer() {
        Answer::Accepted => ExitCode::SUCCESS,
        Answer::Refused => ExitCode::from(4),
    })
}
