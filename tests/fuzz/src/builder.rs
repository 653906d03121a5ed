//! Fuzz targets of proofmark: package indexes, statements and policies.

use proofmark_trust::debian::control as stanzas;
use proofmark_trust::image_policy::Policy;

use proofmark::claim::provenance::statement::Statement;
use proofmark::resolve::solve::{Essential, Request, Suite, Universe, solve};
use proofmark::resolve::{packages, relation};

use crate::Target;

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
