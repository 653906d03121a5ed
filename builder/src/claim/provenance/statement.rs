//! Yields the statements signed about an image: how it was built, what it measures to, that it was rebuilt.
//!
//! # Shape
//! ```text
//! in-toto Statement v1   {_type, subject: [{name, digest: {sha256}}], predicateType, predicate}, names sorted
//! predicates
//!   https://slsa.dev/provenance/v1                  how it was built: recipe, lock, every input; by which builder
//!   <REFERENCE>                                     what it measures to: `reference-values.json` of the image
//!   https://slsa.dev/verification_summary/v1        a rebuilder found the same bytes
//! ```
//! Subjects are files; registers are not digests of artifacts, so they are in the predicate. Nothing in a
//! statement depends on when, where or by whom it was made: two builders of the same image sign the same
//! bytes.
//!
//! # Source
//! in-toto attestation framework v1 (`statement.md`, `digest_set.md`); SLSA 1.2, provenance v1 and verification
//! summary v1.
//!
//! # Not here
//! Signatures: `trust::envelope`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::claim::file;
use crate::claim::manifest::Manifest;

/// The type of every statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The predicate type for how an image was built.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// The predicate type for what an image measures to; `docs/provenance.md` describes it.
pub const REFERENCE: &str =
    "https://github.com/proofmark/proofmark/blob/main/docs/provenance.md#reference-values-v1";
/// The predicate type for what a verifier found.
pub const SUMMARY: &str = "https://slsa.dev/verification_summary/v1";
/// The build type of images.
pub const BUILD_TYPE: &str = "https://github.com/proofmark/proofmark/blob/main/docs/provenance.md#image-v1";
/// The builder that statements name by default: this program, no matter who runs it.
pub const BUILDER: &str = concat!("https://github.com/proofmark/proofmark@", env!("CARGO_PKG_VERSION"));
/// What a rebuilder checked, in a verification summary.
pub const REPRODUCED: &str =
    "https://github.com/proofmark/proofmark/blob/main/docs/provenance.md#reproduced-v1";

/// Why bytes are not a usable statement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not JSON of this shape.
    #[error("the payload is not an in-toto statement")]
    Shape(#[source] serde_json::Error),
    /// The statement has another type or version.
    #[error("the statement's {field} is {found:?}, expected {expected:?}")]
    Field {
        /// Which member.
        field: &'static str,
        /// The value found.
        found: String,
        /// The value expected.
        expected: &'static str,
    },
    /// The statement has no subject, or a subject has no SHA-256.
    #[error("the statement has no subject, or one without a SHA-256")]
    Subject,
    /// A required member is missing.
    #[error("the statement has no {field}")]
    Missing {
        /// Which member.
        field: &'static str,
    },
}

/// A file that a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Digests by algorithm, in hexadecimal.
    pub digest: BTreeMap<String, String>,
    /// Its name.
    pub name: String,
}

/// A statement. Members are in the order of their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// [`STATEMENT`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// The claim about the subjects.
    pub predicate: Value,
    /// The type of the predicate.
    #[serde(rename = "predicateType")]
    pub predicate_kind: String,
    /// The files.
    pub subject: Vec<Subject>,
}

fn subject(name: &str, sha256: &str) -> Subject {
    Subject { digest: BTreeMap::from([("sha256".to_owned(), sha256.to_owned())]), name: name.to_owned() }
}

/// Returns the subjects of an image's statements: the disk and the UKI.
fn subjects(manifest: &Manifest) -> Vec<Subject> {
    let named =
        [file::DISK, file::UKI].into_iter().filter_map(|name| Some((name, manifest.outputs.get(name)?)));
    named.map(|(name, output)| subject(name, &output.sha256)).collect()
}

impl Statement {
    fn new(predicate_kind: &str, subject: Vec<Subject>, predicate: Value) -> Self {
        Statement {
            kind: STATEMENT.to_owned(),
            predicate,
            predicate_kind: predicate_kind.to_owned(),
            subject,
        }
    }

    /// States how an image was built: every input and output by digest, and the manifest that names them.
    pub fn provenance(manifest: &Manifest, builder: &str, manifest_sha256: &str) -> Self {
        let mut dependencies = vec![json!({
            "name": file::LOCK,
            "digest": {"sha256": manifest.lock_sha256},
        })];
        let mut inputs: Vec<_> = manifest.inputs.iter().collect();
        inputs.sort();
        for input in inputs {
            let annotations = match input.version.as_str() {
                "" => json!({"kind": input.kind, "size": input.size}),
                version => json!({"kind": input.kind, "size": input.size, "version": version}),
            };
            dependencies.push(json!({
                "name": input.name,
                "digest": {"sha256": input.sha256},
                "annotations": annotations,
            }));
        }
        let mut byproducts: Vec<Value> = manifest
            .outputs
            .iter()
            .filter(|(name, _)| *name != file::DISK && *name != file::UKI)
            .map(|(name, output)| json!({"name": name, "digest": {"sha256": output.sha256}}))
            .collect();
        byproducts.push(json!({"name": file::MANIFEST, "digest": {"sha256": manifest_sha256}}));
        byproducts.push(json!({
            "name": "dm-verity root hash",
            "annotations": {"rootHash": manifest.verity.root_hash, "algorithm": manifest.verity.algorithm},
        }));
        let predicate = json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "recipe": manifest.name,
                    "version": manifest.version,
                    "profile": manifest.profile.name(),
                },
                "internalParameters": {"commandLine": manifest.command_line, "epoch": manifest.epoch},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {
                    "id": builder,
                    "version": {
                        manifest.tool.name.as_str(): manifest.tool.version,
                        "compressor": manifest.tool.compressor,
                    },
                },
                "byproducts": byproducts,
            },
        });
        Self::new(PROVENANCE, subjects(manifest), predicate)
    }

    /// States what an image measures to; `values` is the document of reference values beside the image.
    pub fn reference(manifest: &Manifest, values: Value) -> Self {
        let mut subjects = subjects(manifest);
        // Other files that the values were computed from, such as the firmware.
        let known: Vec<String> =
            subjects.iter().filter_map(|subject| subject.digest.get("sha256").cloned()).collect();
        let more = values.get("subjects").and_then(Value::as_array).into_iter().flatten();
        for file in more {
            if let (Some(name), Some(sha256)) =
                (file.get("name").and_then(Value::as_str), file.get("sha256").and_then(Value::as_str))
                && !known.iter().any(|known| known == sha256)
            {
                subjects.push(subject(name, sha256));
            }
        }
        Self::new(REFERENCE, subjects, values)
    }

    /// States that an image was built again and every output had the same bytes.
    pub fn reproduced(manifest: &Manifest, builder: &str, manifest_sha256: &str) -> Self {
        let predicate = json!({
            "verifier": {"id": builder, "version": {manifest.tool.name.as_str(): manifest.tool.version}},
            "resourceUri": format!("pkg:generic/{}@{}", manifest.name, manifest.version),
            "policy": {"uri": REPRODUCED, "digest": {"sha256": manifest.lock_sha256}},
            "inputAttestations": [{"digest": {"sha256": manifest_sha256}, "uri": file::MANIFEST}],
            "verificationResult": "PASSED",
            "verifiedLevels": ["PROOFMARK_REPRODUCED"],
            "slsaVersion": "1.2",
        });
        Self::new(SUMMARY, subjects(manifest), predicate)
    }

    /// Reads a statement.
    ///
    /// # Errors
    /// [`Error`] says why it is not a usable statement.
    pub fn parse(payload: &[u8]) -> Result<Self, Error> {
        let statement: Statement = serde_json::from_slice(payload).map_err(Error::Shape)?;
        if statement.kind != STATEMENT {
            return Err(Error::Field { field: "_type", found: statement.kind, expected: STATEMENT });
        }
        let whole = |subject: &Subject| {
            subject.digest.get("sha256").is_some_and(|digest| {
                digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            })
        };
        if statement.subject.is_empty() || !statement.subject.iter().all(whole) {
            return Err(Error::Subject);
        }
        Ok(statement)
    }

    /// Returns the payload as canonical JSON.
    pub fn to_payload(&self) -> Vec<u8> {
        // serde_json's map sorts the members of objects; the struct declares its own members in sorted order.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns the SHA-256 of the subject with this name.
    pub fn digest_of(&self, name: &str) -> Option<&str> {
        let subject = self.subject.iter().find(|subject| subject.name == name)?;
        subject.digest.get("sha256").map(String::as_str)
    }

    /// Returns a string in the predicate, by JSON pointer.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub fn text(&self, field: &'static str) -> Result<&str, Error> {
        self.predicate.pointer(field).and_then(Value::as_str).ok_or(Error::Missing { field })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::claim::manifest;
    use crate::recipe::Profile;

    pub fn manifest() -> Manifest {
        let output = |digit: &str| manifest::Output { size: 1, sha256: digit.repeat(64) };
        Manifest {
            form: manifest::FORM.to_owned(),
            name: "minimal".to_owned(),
            version: "1.2.0".to_owned(),
            profile: Profile::Release,
            tool: manifest::Tool {
                name: "proofmark".to_owned(),
                version: "0.1.0".to_owned(),
                compressor: "zstd".to_owned(),
            },
            lock_sha256: "9".repeat(64),
            epoch: 7,
            kernel: manifest::Kernel { release: "6.12".to_owned(), initrd_modules: Vec::new(), modules: 0 },
            command_line: "ro".to_owned(),
            filesystem: manifest::Filesystem {
                kind: "erofs".to_owned(),
                uuid: String::new(),
                size: 1,
                compression: "none".to_owned(),
                paths: 1,
            },
            verity: manifest::Verity {
                root_hash: "8".repeat(64),
                salt: String::new(),
                algorithm: "sha256".to_owned(),
                block_size: 4096,
                data_blocks: 1,
                hash_start: 1,
                uuid: String::new(),
            },
            disk: manifest::Disk { guid: String::new(), size: 1, partitions: Vec::new() },
            uki: Vec::new(),
            secure_boot: None,
            inputs: ["b", "a"]
                .map(|name| manifest::Input {
                    kind: "deb".to_owned(),
                    name: name.to_owned(),
                    version: "1".to_owned(),
                    size: 3,
                    sha256: "7".repeat(64),
                })
                .to_vec(),
            outputs: BTreeMap::from([
                ("disk.raw".to_owned(), output("1")),
                ("image.efi".to_owned(), output("2")),
                ("contents.json".to_owned(), output("3")),
            ]),
        }
    }

    #[test]
    fn a_provenance_names_every_input_and_output() {
        let statement = Statement::provenance(&manifest(), "https://example.org/builder", &"5".repeat(64));
        let payload = statement.to_payload();
        assert_eq!(Statement::parse(&payload).unwrap(), statement);
        assert_eq!(statement.digest_of("disk.raw"), Some("1".repeat(64).as_str()));
        assert_eq!(statement.text("/runDetails/builder/id").unwrap(), "https://example.org/builder");
        assert!(matches!(statement.text("/nothing"), Err(Error::Missing { .. })));
        let text = String::from_utf8(payload).unwrap();
        for (name, digit) in
            [("recipe.lock", "9"), ("a", "7"), ("contents.json", "3"), ("manifest.json", "5")]
        {
            let digest = digit.repeat(64);
            assert!(text.contains(&format!(r#"{{"sha256":"{digest}"}},"name":"{name}""#)), "{name}: {text}");
        }
        assert!(text.find("\"name\":\"a\"").unwrap() < text.find("\"name\":\"b\"").unwrap());
        assert!(text.contains(&"8".repeat(64)));
    }

    #[test]
    fn equal_images_give_equal_payloads_whatever_the_order_of_inputs() {
        let mut other = manifest();
        other.inputs.reverse();
        let of = |manifest: &Manifest| Statement::provenance(manifest, "b", "5").to_payload();
        assert_eq!(of(&manifest()), of(&other));
        let text = String::from_utf8(of(&other)).unwrap();
        assert!(text.starts_with(r#"{"_type":"#));
        let parsed: Value = serde_json::from_str(&text).unwrap();
        // serde_json's map is sorted; if it were not, this text would differ.
        assert_eq!(parsed.to_string(), text);
    }

    #[test]
    fn reference_values_bring_their_firmware_as_subject() {
        let values = json!({"format": 1, "subjects": [
            {"name": "firmware", "sha256": "4".repeat(64), "bytes": 1},
            {"name": "disk", "sha256": "1".repeat(64), "bytes": 1},
        ]});
        let statement = Statement::reference(&manifest(), values.clone());
        assert_eq!(statement.predicate, values);
        let names: Vec<_> = statement.subject.iter().map(|subject| subject.name.as_str()).collect();
        assert_eq!(names, ["disk.raw", "image.efi", "firmware"]);
    }

    #[test]
    fn what_is_no_statement_is_refused() {
        let good = String::from_utf8(Statement::reproduced(&manifest(), "b", "x").to_payload()).unwrap();
        Statement::parse(good.as_bytes()).unwrap();
        let digest = "1".repeat(64);
        for (from, to) in [
            ("Statement/v1", "Statement/v0.1"),
            ("\"subject\":[", "\"subject\":[],\"x\":["),
            (digest.as_str(), "11"),
            (digest.as_str(), &"G".repeat(64)),
            ("sha256\":\"1", "sha512\":\"1"),
            ("predicateType", "predicateKind"),
        ] {
            assert!(Statement::parse(good.replacen(from, to, 1).as_bytes()).is_err(), "{from} to {to}");
        }
        assert!(Statement::parse(b"").is_err());
    }
}
