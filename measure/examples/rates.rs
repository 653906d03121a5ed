//! Measures the time of MRTD against plain SHA-384 of as many bytes, and the cost of one more machine shape.
//!
//! `cargo run --release -p ovmf-measure --example rates -- FIRMWARE UKI DISK`: firmware with TDX metadata, a UKI, and a disk
//! that boots it. Prints the ratio, and in microseconds MRTD, the hashing of an image, and one more shape.

#![allow(clippy::print_stdout)] // the results

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use ovmf_measure::boot::{Code, Plan};
use ovmf_measure::digest::Algorithm;
use ovmf_measure::firmware::Firmware;
use ovmf_measure::gpt;
use ovmf_measure::mrtd::{Order, mrtd};
use ovmf_measure::shape::{self, Before, Hashed, Name, Shape};
use ovmf_measure::volume::Profile;

/// Rounds; the fastest counts.
const ROUNDS: u32 = 20;
const PAGE: u64 = 4096;
/// Bytes hashed for each page, and for each measured chunk of 256 bytes (TDH.MEM.PAGE.ADD, TDH.MR.EXTEND).
const OF_PAGE: u64 = 128;
const OF_CHUNK: u64 = 128 + 256;

fn fastest<T>(mut work: impl FnMut() -> T) -> Duration {
    let once = |_| {
        let begun = Instant::now();
        std::hint::black_box(work());
        begun.elapsed()
    };
    (0..ROUNDS).map(once).min().unwrap_or_default()
}

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [firmware, uki, disk] = paths.as_slice() else {
        return Err("usage: rates FIRMWARE UKI DISK".into());
    };
    let (image, uki) = (std::fs::read(firmware)?, std::fs::read(uki)?);
    let mut head = vec![0; gpt::TABLE];
    File::open(disk)?.read_exact(&mut head)?;

    let firmware = Firmware::read(&image)?;
    let added = firmware.sections().iter().filter(|section| !section.is_added_later());
    let bytes: u64 = added
        .map(|section| {
            let chunks = if section.content_is_measured() { section.memory_size / 256 } else { 0 };
            section.memory_size / PAGE * OF_PAGE + chunks * OF_CHUNK
        })
        .sum();
    let plain = vec![0x5a_u8; usize::try_from(bytes)?];
    let bare = fastest(|| Algorithm::Sha384.of(&plain));
    let ours = fastest(|| mrtd(&firmware, Order::SinglePass));
    println!("mrtd_ratio {:.3}", ours.as_secs_f64() / bare.as_secs_f64());
    println!("mrtd_us {} of {bytes} bytes", ours.as_micros());

    let plan = Plan::read(&uki, Some(&head))?;
    let hashing = fastest(|| plan.hash(Algorithm::Sha384));
    println!("image_us {}", hashing.as_micros());

    let hashed = plan.hash(Algorithm::Sha384)?;
    let profile = Profile::read(&image)?;
    let code = Code::read(Algorithm::Sha384, &profile, &firmware, None, &[])?;
    let value = [(Order::SinglePass, mrtd(&firmware, Order::SinglePass))];
    let sha256 = Algorithm::Sha256.of(&image);
    let mut vcpus = 0;
    let shape = fastest(|| {
        vcpus += 1;
        let shape = Shape { vcpus: NonZeroU16::MIN.saturating_add(vcpus), ..Shape::usual(Name::QemuTdx) };
        let given = Hashed { firmware: &firmware, code: &code, sha256, mrtd: &value };
        shape::reference(Name::QemuTdx, &shape, &Before::Firmware(given), &hashed)
            .map(|found| found.events.len())
    });
    println!("shape_us {}", shape.as_micros());
    Ok(())
}
