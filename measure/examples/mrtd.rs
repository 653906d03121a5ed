//! Prints MRTD of a firmware file, for both orders in which VMMs add pages.
//!
//! `cargo run -p ovmf-measure --example mrtd -- OVMF.fd`

#![allow(clippy::print_stdout)] // the result

use std::error::Error;

use ovmf_measure::firmware::Firmware;
use ovmf_measure::mrtd::{Order, mrtd};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: mrtd OVMF.fd")?;
    let image = std::fs::read(path)?;
    let firmware = Firmware::read(&image)?;
    println!("single pass  {}", mrtd(&firmware, Order::SinglePass));
    println!("two pass     {}", mrtd(&firmware, Order::TwoPass));
    Ok(())
}
