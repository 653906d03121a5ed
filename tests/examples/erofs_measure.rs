//! `erofs_measure FOLDER IMAGE [raw|LEVEL]`: packs a folder into an image and says how long that took and how large it
//! is.

#![allow(clippy::print_stdout)] // a measurement, printed for the person who asks for it

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use rootfs::content::{Form, Packing};
use rootfs::erofs::{Image, Label, Options};

/// Time that this process has had, in user mode and in the kernel, from the hundredths in `/proc/self/stat`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, image, packing @ ..] = arguments.as_slice() else {
        return Err("usage: erofs_measure FOLDER IMAGE [raw|LEVEL]".into());
    };
    let packing = match packing.first().map(String::as_str) {
        Some("raw") => Packing::Raw,
        Some(level) => Packing::Zstd(level.parse()?),
        None => Packing::Zstd(3),
    };
    let start = Instant::now();
    let tree = system_tests::folder::tree(Path::new(folder), packing)?;
    println!("{:7.3} s  read and packed {} paths", start.elapsed().as_secs_f64(), tree.len());
    let (mut small, mut large, mut clusters) = ((0, 0), (0, 0), (0, 0));
    for content in tree.iter().filter_map(|(_, node)| node.content()) {
        let sum = match content.form() {
            Form::Clusters(_) => &mut clusters,
            Form::Raw(blob) if blob.len() < rootfs::content::SMALL => &mut small,
            Form::Raw(_) => &mut large,
        };
        *sum = (sum.0 + 1, sum.1 + content.len());
    }
    println!("files and bytes: small {small:?}, large and raw {large:?}, clusters {clusters:?}");
    let before = cpu_seconds();
    let options = Options { uuid: [1; 16], mtime: 1_700_000_000, label: Label::default(), packing };
    let start = Instant::now();
    let planned = Image::new(&tree, &options)?;
    let plan = start.elapsed().as_secs_f64();
    println!("{:7.2} s of one processor to lay out", cpu_seconds() - before);
    let start = Instant::now();
    planned.write_to(|_| Ok(()))?;
    let fill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut file = File::create(image)?;
    planned.write_to(|bytes| file.write_all(bytes))?;
    let write = start.elapsed().as_secs_f64();
    let rate = planned.size() as f64 / 1e6 / (plan + write);
    println!(
        "{plan:7.3} s laid out, {fill:.3} s filled, {write:.3} s filled and written: {:.1} MB, {rate:.0} MB/s",
        planned.size() as f64 / 1e6
    );
    Ok(())
}
