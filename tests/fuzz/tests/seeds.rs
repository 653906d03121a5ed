//! Replays every seed, and truncations of it, through its fuzz target.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fuzz_targets::targets;
use ovmf_measure::boot::Plan;
use ovmf_measure::esp;
use ovmf_measure::firmware::Firmware;
use ovmf_measure::gpt::Gpt;
use ovmf_measure::log::{Area, Log};
use ovmf_measure::quote::{Quote, Report};
use ovmf_measure::volume::Profile;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The seeds of a target.
fn of(name: &str) -> Vec<Vec<u8>> {
    let folder = seeds().join(name);
    let seeds: Vec<_> = entries(&folder)
        .iter()
        .filter(|path| !path.is_dir())
        .map(|path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        .collect();
    assert!(!seeds.is_empty(), "{} is empty", folder.display());
    seeds
}

#[test]
fn every_seed_and_its_truncations_pass_their_target() {
    for (name, target) in targets() {
        target(&[]);
        for seed in of(&name) {
            let length = seed.len();
            let fractions =
                [length / 4, length / 3, length / 2, length * 2 / 3, length.saturating_sub(1), length];
            for end in [1, 4, 64, 512].into_iter().chain(fractions) {
                target(&seed[..end.min(length)]);
            }
        }
    }
}

#[test]
fn every_folder_of_seeds_has_a_target() {
    let mut found = BTreeSet::new();
    let mut todo = vec![seeds()];
    while let Some(folder) = todo.pop() {
        let (folders, files): (Vec<_>, Vec<_>) = entries(&folder).into_iter().partition(|path| path.is_dir());
        if !files.is_empty() {
            found.insert(folder.strip_prefix(seeds()).unwrap().to_str().unwrap().to_owned());
        }
        todo.extend(folders);
    }
    assert_eq!(found, targets().map(|(name, _)| name).collect());
}

#[test]
fn every_target_of_measurements_has_a_seed_that_is_read() {
    let read = |name: &str, bytes: &[u8]| match name {
        "measure/firmware" => Firmware::read(bytes).is_ok() || Profile::read(bytes).is_ok(),
        "measure/gpt" => Gpt::read(bytes).is_ok() || esp::boot_program(&bytes).is_ok(),
        "measure/log" => Log::read_any(bytes).is_ok() || Area::read(bytes).is_ok(),
        "measure/pe" => Plan::read(bytes, None).is_ok(),
        "measure/quote" => Quote::read(bytes).is_ok() || Report::read(bytes).is_ok(),
        _ => false,
    };
    for (name, _) in targets().filter(|(name, _)| name.starts_with("measure/")) {
        assert!(of(&name).iter().any(|seed| read(&name, seed)), "no seed of {name} is valid");
    }
}
