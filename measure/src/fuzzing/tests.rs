extern crate std;

use alloc::vec::Vec;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

#[test]
fn every_seed_and_its_truncations_pass_their_target() {
    for (name, target) in TARGETS {
        target(&[]);
        let seeds = files(&fuzz().join("seeds").join(name));
        assert!(!seeds.is_empty(), "fuzz/seeds/{name} is empty");
        for seed in seeds {
            let bytes = fs::read(&seed).unwrap();
            target(&bytes);
            let length = bytes.len();
            for cut in [1, 4, 64, 512, length / 3, length / 2, length.saturating_sub(1)] {
                target(bytes.get(..cut).unwrap_or_default());
            }
        }
    }
}

#[test]
fn every_target_has_seeds_of_which_one_is_read() {
    let read = |name: &str, bytes: &[u8]| match name {
        "firmware" => Firmware::read(bytes).is_ok() || Profile::read(bytes).is_ok(),
        "gpt" => Gpt::read(bytes).is_ok() || esp::boot_program(&bytes).is_ok(),
        "log" => Log::read_any(bytes).is_ok() || Area::read(bytes).is_ok(),
        "pe" => Plan::read(bytes, None).is_ok(),
        "quote" => Quote::read(bytes).is_ok() || Report::read(bytes).is_ok(),
        _ => false,
    };
    for (name, _) in TARGETS {
        let seeds = files(&fuzz().join("seeds").join(name));
        let valid = seeds.iter().filter(|seed| read(name, &fs::read(seed).unwrap())).count();
        assert!(valid > 0, "no seed in fuzz/seeds/{name} is valid");
    }
}

#[test]
fn every_folder_of_seeds_has_a_target() {
    let folders = files(&fuzz().join("seeds"));
    let names: Vec<&str> = folders.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(names, TARGETS.map(|(name, _)| name));
}
