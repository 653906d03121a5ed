//! Any bytes as a `Packages` file: stanzas, packages and their relations; an error is fine, a panic is a bug.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::resolve::solve::{Essential, Request, Suite, Universe, solve};
use proofmark::resolve::{packages, relation};
use proofmark::trust::debian::control;

fuzz_target!(|bytes: &[u8]| {
    for stanza in control::stanzas(bytes).flatten() {
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
});
