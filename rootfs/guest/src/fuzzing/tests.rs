//! Every seed of `fuzz/seeds` goes through its target.

use std::fs;
use std::path::Path;

use super::*;

/// The names in a folder, sorted, without extension.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let name = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

#[test]
fn each_target_has_seeds_and_each_folder_of_seeds_a_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let targets = TARGETS.map(|(name, _)| name);
    assert_eq!(names(&fuzz.join("seeds")), targets);
    for name in targets {
        assert!(!names(&fuzz.join("seeds").join(name)).is_empty(), "{name} has no seeds");
    }
}

#[test]
fn no_seed_and_no_truncation_of_one_panics() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (name, target) in TARGETS {
        target(&[]);
        for seed in fs::read_dir(seeds.join(name)).unwrap() {
            let bytes = fs::read(seed.unwrap().path()).unwrap();
            let length = bytes.len();
            for end in [length, length.saturating_sub(1), length / 2, length / 4, 1] {
                target(bytes.get(..end).unwrap_or(&bytes));
            }
        }
    }
}
