//! What the fuzzer does with any bytes, one function for each target. An error is fine, a panic is a bug.
//!
//! # Not here
//! The fuzzer, which `ci/fuzz` runs. An ordinary test replays the seeds.

// A wrong step here is a found bug: it says so where it happens.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proofmark_trust::debian::control as stanzas;
use proofmark_trust::image_policy::Policy;

use crate::claim::provenance::statement::Statement;
use crate::resolve::solve::{Essential, Request, Suite, Universe, solve};
use crate::resolve::{packages, relation};

/// A target: its name, which is that of its folder of seeds, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this crate.
pub const TARGETS: [Target; 2] = [("control", control), ("provenance", provenance)];

/// A `Packages` file: stanzas, packages and their relations.
pub fn control(bytes: &[u8]) {
    for stanza in stanzas::stanzas(bytes).flatten() {
        for field in &stanza.fields {
            assert!(!field.value.contains('\r'));
            let _ = relation::read(field.value);
        }
    }
    let Ok(packages) = packages::read(bytes, "amd64") else { return };
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    if let Ok(universe) = Universe::merge(vec![Suite { name: "fuzz", packages }]) {
        let _ = solve(&universe, &Request { roots: &names, essential: Essential::Included, exclude: &[] });
    }
}

/// A statement, and a policy that judges statements.
pub fn provenance(bytes: &[u8]) {
    if let Ok(statement) = Statement::parse(bytes) {
        assert_eq!(
            Statement::parse(&statement.to_payload()).expect("a written statement is read"),
            statement
        );
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Policy::parse(text, &|_| Ok(bytes.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_target_has_seeds_and_takes_them() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let folders: BTreeSet<String> = fs::read_dir(&seeds)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(folders, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
        for (name, target) in TARGETS {
            target(b"");
            let mut count = 0;
            for entry in fs::read_dir(seeds.join(name)).unwrap() {
                let bytes = fs::read(entry.unwrap().path()).unwrap();
                for part in [1, 2, 3].map(|part| bytes.len() * part / 3) {
                    target(&bytes[..part]);
                }
                count += 1;
            }
            assert!(count > 0, "{name} has no seeds");
        }
    }
}
