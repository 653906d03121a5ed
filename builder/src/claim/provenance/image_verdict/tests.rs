use std::cell::Cell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::super::statement::BUILD_TYPE;
use super::super::statement::tests::manifest;
use super::*;
use crate::trust::envelope::{self, Envelope, IN_TOTO, pae};
use crate::trust::transparency::checkpoint::Checkpoint;
use crate::trust::transparency::entry::Verifier;
use crate::trust::transparency::merkle::{self, Frontier};
use crate::trust::transparency::note::{Note, Role, SigningKey};
use crate::trust::transparency::{cosignature, note};

const BUILDER: &str = "https://example.org/builder";
/// When the witness cosigns.
const TIME: u64 = 1_795_000_000;
const MANIFEST: &str = "6666666666666666666666666666666666666666666666666666666666666666";

/// Everyone who takes part.
struct World {
    builders: [envelope::SigningKey; 3],
    log: SigningKey,
    witness: SigningKey,
    manifest: Manifest,
    policy: String,
    /// How many bundles were made: each is in a larger tree of the log.
    made: Cell<u32>,
}

fn world() -> World {
    World {
        builders: [1, 2, 3].map(|number| envelope::SigningKey::from_seed(&[number; 32]).unwrap()),
        log: SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap(),
        witness: SigningKey::new("witness.example", Role::Witness, &[2; 32]).unwrap(),
        manifest: manifest(),
        made: Cell::new(0),
        policy: format!(
            "format = 1\nimage = \"minimal\"\nbuilders = [\"{BUILDER}\"]\nlog_policy = \"logs\"\n\
             times = [\"witness\"]\nminimum_version = \"1.1\"\n\
             [[identities]]\nname = \"one\"\nkey = \"0\"\n[[identities]]\nname = \"two\"\nkey = \"1\"\n"
        ),
    }
}

/// The image's values, in the document shape that verifiers expect.
fn values() -> Value {
    json!({"format": 1, "image": {"name": "minimal", "version": "1.2.0", "profile": "release"}, "subjects": []})
}

struct Values(Result<Value, String>);

impl Recompute for Values {
    fn recompute(&self, _: &Value) -> Result<Value, String> {
        self.0.clone()
    }
}

impl World {
    fn provenance(&self) -> Statement {
        Statement::provenance(&self.manifest, BUILDER, MANIFEST)
    }

    fn policy(&self) -> Policy {
        let read = |name: &str| {
            Ok(match name {
                "logs" => {
                    let (log, witness) = (self.log.public(), self.witness.public());
                    format!("log {log}\nwitness w {witness}\nquorum w\n").into_bytes()
                }
                number => {
                    let number: usize = number.parse().map_err(std::io::Error::other)?;
                    self.builders[number].public().pem().unwrap().into_bytes()
                }
            })
        };
        Policy::parse(&self.policy, &read).unwrap()
    }

    /// Makes a bundle of a statement: cosigned, at index 1 in a log of two entries, the next one at index 2 of three, then 4
    /// of five.
    fn bundle(&self, statement: &Statement, builder: usize) -> Value {
        self.bundle_by(statement, builder, &self.log, Some(&self.witness))
    }

    fn bundle_by(
        &self,
        statement: &Statement,
        builder: usize,
        log: &SigningKey,
        witness: Option<&SigningKey>,
    ) -> Value {
        let payload = statement.to_payload();
        let signature = self.builders[builder].sign(&pae(IN_TOTO, &payload));
        let envelope = Envelope { kind: IN_TOTO.to_owned(), payload, signature };
        let verifier = Verifier::Key(self.builders[builder].public().der().unwrap());
        let body = envelope.entry(verifier.clone()).to_bytes();
        let mut frontier = Frontier::default();
        let index = 1u64 << self.made.replace(self.made.get() + 1);
        for _ in 0..index {
            frontier.push(merkle::leaf(b"other"), &mut |_, _, _| {});
        }
        let others = frontier.root();
        frontier.push(merkle::leaf(&body), &mut |_, _, _| {});
        let size = index + 1;
        let checkpoint = Checkpoint::new(log.public().name(), size, frontier.root()).unwrap();
        let mut note = checkpoint.sign(log).unwrap();
        if let Some(witness) = witness {
            note.add(cosignature::sign(&note, witness, TIME).unwrap());
        }
        let root = crate::trust::image_policy::log_in_root(log.public(), None);
        let entry = json!({
            "logIndex": index.to_string(),
            "logId": root["logId"],
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "integratedTime": "0",
            "inclusionProof": {
                "logIndex": index.to_string(),
                "rootHash": frontier.root().to_base64(),
                "treeSize": size.to_string(),
                "hashes": [others.to_base64()],
                "checkpoint": {"envelope": note.to_string()},
            },
            "canonicalizedBody": STANDARD.encode(&body),
        });
        serde_json::from_str(&envelope.bundle(&verifier, &[entry], &[])).unwrap()
    }

    fn judge(&self, bundles: &[&Value]) -> Verdict {
        self.judge_at(bundles, &Values(Ok(values())), TIME + 86_400)
    }

    fn judge_at(&self, bundles: &[&Value], recompute: &dyn Recompute, now: u64) -> Verdict {
        let named = (0..).zip(bundles);
        let bundles =
            named.map(|(number, bundle)| (format!("{number}"), bundle.to_string().into_bytes())).collect();
        let image =
            Image { manifest: &self.manifest, manifest_sha256: MANIFEST.to_owned(), absent: Vec::new() };
        judge(&self.policy(), &image, &bundles, recompute, now)
    }

    fn references(&self) -> Value {
        self.bundle(&Statement::reference(&self.manifest, values()), 0)
    }
}

#[test]
fn an_image_of_a_known_builder_in_a_witnessed_log_is_believed() {
    let world = world();
    let verdict = world.judge(&[&world.bundle(&world.provenance(), 0), &world.references()]);
    assert!(verdict.holds(), "{verdict:?}");
    assert_eq!(verdict.accepted.len(), 2);
    let accepted = &verdict.accepted[0];
    assert_eq!((accepted.identity.as_str(), accepted.time), ("one", Some(TIME)));
    assert_eq!(accepted.logs, BTreeMap::from([("log.example".to_owned(), 1)]));
}

#[test]
fn an_entry_that_anyone_added_under_our_name_adds_nothing() {
    let world = world();
    // Signed by a stranger, logged by our log, about our image.
    let forged = world.bundle(&world.provenance(), 2);
    let verdict = world.judge(&[&forged]);
    assert!(verdict.problems.contains(&Problem::NoProvenance), "{verdict:?}");
    assert!(verdict.passed_over.contains_key("0"));
    // Our envelope beside the stranger's entry.
    let mut mixed = world.bundle(&world.provenance(), 0);
    mixed["verificationMaterial"]["tlogEntries"] = forged["verificationMaterial"]["tlogEntries"].clone();
    assert!(world.judge(&[&mixed]).problems.contains(&Problem::NoProvenance));
    // The stranger's envelope beside our entry.
    let mut mixed = forged.clone();
    let good = world.bundle(&world.provenance(), 0);
    mixed["verificationMaterial"] = good["verificationMaterial"].clone();
    assert!(world.judge(&[&mixed]).problems.contains(&Problem::NoProvenance));
    // Nor does it count against the image beside good statements.
    assert!(world.judge(&[&forged, &good, &world.references()]).holds());
}

#[test]
fn forged_signatures_payloads_indices_proofs_and_checkpoints_are_refused() {
    let world = world();
    let good = world.bundle(&world.provenance(), 0);
    let entry = "/verificationMaterial/tlogEntries/0";
    let at = |below: &str| format!("{entry}{below}");
    let other = STANDARD.encode([7; 32]);
    let text = good.pointer(&at("/inclusionProof/checkpoint/envelope")).unwrap().as_str().unwrap();
    for (pointer, value) in [
        ("/dsseEnvelope/signatures/0/sig".to_owned(), json!(STANDARD.encode([0; 70]))),
        ("/dsseEnvelope/payload".to_owned(), json!(STANDARD.encode(world.references().to_string()))),
        (at("/logIndex"), json!("0")),
        (at("/inclusionProof/hashes/0"), json!(other)),
        (at("/inclusionProof/rootHash"), json!(other)),
        (at("/inclusionProof/treeSize"), json!("3")),
        (at("/inclusionProof/logIndex"), json!("0")),
        (at("/inclusionProof/checkpoint/envelope"), json!(text.replacen("\n2\n", "\n3\n", 1))),
        (at("/canonicalizedBody"), json!(STANDARD.encode("{}"))),
        (at("/logId/keyId"), json!(other)),
    ] {
        let mut forged = good.clone();
        *forged.pointer_mut(&pointer).unwrap() = value;
        let verdict = world.judge(&[&forged, &world.references()]);
        assert!(verdict.problems.contains(&Problem::NoProvenance), "{pointer}: {verdict:?}");
    }
}

#[test]
fn another_log_or_a_missing_cosignature_is_refused() {
    let world = world();
    let other = SigningKey::new("log.example", Role::Log, &[9; 32]).unwrap();
    let stranger = SigningKey::new("witness.example", Role::Witness, &[9; 32]).unwrap();
    for (log, witness) in [(&other, Some(&world.witness)), (&world.log, None), (&world.log, Some(&stranger))]
    {
        let bundle = world.bundle_by(&world.provenance(), 0, log, witness);
        let verdict = world.judge(&[&bundle, &world.references()]);
        assert!(verdict.problems.contains(&Problem::NoProvenance), "{verdict:?}");
    }
    let bundle = world.bundle_by(&world.provenance(), 0, &world.log, None);
    let verdict = world.judge(&[&bundle]);
    assert!(verdict.passed_over["0"][0].contains("quorum \"w\" is not met"), "{verdict:?}");
    let _: fn(&Note, &note::VerifierKey) -> Result<u64, note::Error> = cosignature::verify;
}

#[test]
fn an_older_version_another_name_or_profile_is_refused() {
    let mut world = world();
    let replay = |world: &World| {
        let bundle = world.bundle(&world.provenance(), 0);
        world.judge(&[&bundle, &world.references()]).problems
    };
    world.manifest.version = "1.0.9".to_owned();
    let least = Problem::Version { least: "1.1".to_owned(), found: "1.0.9".to_owned() };
    assert!(replay(&world).contains(&least));
    world.manifest = manifest();
    world.manifest.name = "other".to_owned();
    assert!(matches!(replay(&world).as_slice(), [Problem::Name { .. }, ..]));
    world.manifest = manifest();
    world.manifest.profile = crate::recipe::Profile::Debug;
    assert!(replay(&world).contains(&Problem::Profile("debug".to_owned())));
}

#[test]
fn a_statement_of_other_files_or_another_builder_is_refused() {
    let world = world();
    let refused = |statement: &Statement, part: &str| {
        let verdict = world.judge(&[&world.bundle(statement, 0), &world.references()]);
        let found = verdict
            .problems
            .iter()
            .any(|problem| matches!(problem, Problem::Statement { reason, .. } if reason.contains(part)));
        assert!(found && !verdict.holds(), "{part}: {verdict:?}");
    };
    refused(&Statement::provenance(&world.manifest, "https://example.org/other", MANIFEST), "is not allowed");
    refused(
        &Statement::provenance(&world.manifest, BUILDER, &"0".repeat(64)),
        "/runDetails/byproducts/1/digest",
    );
    let mut other = world.manifest.clone();
    other.version = "1.3.0".to_owned();
    refused(&Statement::provenance(&other, BUILDER, MANIFEST), "externalParameters/version");
    let mut other = world.manifest.clone();
    other.outputs.get_mut("image.efi").unwrap().sha256 = "0".repeat(64);
    refused(&Statement::provenance(&other, BUILDER, MANIFEST), "its image.efi differs");
    let mut other = world.provenance();
    other.predicate["buildDefinition"]["buildType"] = json!(format!("{BUILD_TYPE}x"));
    refused(&other, "buildType");
    // Whatever it claims is compared, and nothing may be left out.
    let mut other = world.provenance();
    other.predicate["runDetails"]["byproducts"][2]["annotations"]["rootHash"] = json!("0".repeat(64));
    refused(&other, "byproducts/2/annotations/rootHash");
    let mut other = world.provenance();
    other.predicate["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap().truncate(1);
    refused(&other, "resolvedDependencies/1");
    let mut other = world.provenance();
    other.predicate["buildDefinition"]["internalParameters"]["commandLine"] = json!("ro debug");
    refused(&other, "internalParameters/commandLine");
    let mut other = world.provenance();
    other.predicate["runDetails"]["more"] = json!(1);
    refused(&other, "/runDetails/more");
    let mut other = world.provenance();
    other.subject.retain(|subject| subject.name == "disk.raw");
    refused(&other, "/subject/1");
    let mut other = Statement::reference(&world.manifest, values());
    other.subject.retain(|subject| subject.name == "disk.raw");
    refused(&other, "/subject/1");
    // Another disk: no bundle about it concerns this image.
    let mut other = world.manifest.clone();
    other.outputs.get_mut("disk.raw").unwrap().sha256 = "0".repeat(64);
    let bundle = world.bundle(&Statement::provenance(&other, BUILDER, MANIFEST), 0);
    assert!(world.judge(&[&bundle]).problems.contains(&Problem::NoProvenance));
}

#[test]
fn reference_values_that_are_not_the_images_are_refused() {
    let world = world();
    let provenance = world.bundle(&world.provenance(), 0);
    let verdict = world.judge(&[&provenance]);
    assert_eq!(verdict.problems, [Problem::NoReferenceValues]);
    let bundles = [&provenance, &world.references()];
    let mut other = values();
    other["subjects"] = json!([1]);
    for answer in [Ok(other), Err("no firmware".to_owned())] {
        let verdict = world.judge_at(&bundles, &Values(answer), TIME);
        assert!(matches!(verdict.problems.as_slice(), [Problem::ReferenceValues(_)]), "{verdict:?}");
    }
    let mut lax = super::tests::world();
    lax.policy = lax.policy.replace("image =", "reference_values = \"not-demanded\"\nimage =");
    assert!(lax.judge(&[&provenance]).holds());
}

#[test]
fn so_many_distinct_identities_must_agree() {
    let mut world = world();
    world.policy = world.policy.replace("image =", "rebuilders = 2\nimage =");
    let one = world.bundle(&world.provenance(), 0);
    let values = world.references();
    let expected = Problem::Rebuilders { expected: 2, found: BTreeSet::from(["one".to_owned()]) };
    assert_eq!(world.judge(&[&one, &values]).problems, std::slice::from_ref(&expected));
    // The same signer counts once, even with two bundles.
    assert_eq!(world.judge(&[&one, &one, &values]).problems, std::slice::from_ref(&expected));
    let two = world.bundle(&world.provenance(), 1);
    assert!(world.judge(&[&one, &two, &values]).holds());
    let again = world.bundle(&Statement::reproduced(&world.manifest, BUILDER, MANIFEST), 1);
    assert!(world.judge(&[&one, &again, &values]).holds());
    // A summary of another manifest, or by a stranger, does not count.
    let other = world.bundle(&Statement::reproduced(&world.manifest, BUILDER, "x"), 1);
    assert!(world.judge(&[&one, &other, &values]).problems.contains(&expected));
    let stranger = world.bundle(&Statement::reproduced(&world.manifest, BUILDER, MANIFEST), 2);
    assert!(world.judge(&[&one, &stranger, &values]).problems.contains(&expected));
}

#[test]
fn two_statements_for_one_image_are_a_contradiction() {
    let mut world = world();
    let one = world.bundle(&world.provenance(), 0);
    world.policy = world.policy.replace("builders = [", "builders = [\"https://example.org/other\", ");
    let other = Statement::provenance(&world.manifest, "https://example.org/other", MANIFEST);
    let verdict = world.judge(&[&one, &world.bundle(&other, 1), &world.references()]);
    assert!(matches!(verdict.problems.as_slice(), [Problem::Contradiction { .. }]), "{verdict:?}");
}

#[test]
fn a_log_that_signed_two_trees_of_one_size_is_forked() {
    let mut world = world();
    // Without a witness nobody else would notice: each bundle holds an entry of its own at index 1.
    let one = world.bundle(&world.provenance(), 0);
    world.made.set(0);
    let two = world.bundle(&world.provenance(), 1);
    let verdict = world.judge(&[&one, &two, &one]);
    let fork = |bundles: [&str; 2]| Problem::Fork {
        log: "log.example".to_owned(),
        size: 2,
        bundles: bundles.map(str::to_owned).to_vec(),
    };
    assert!(verdict.problems.contains(&fork(["0", "1"])), "{verdict:?}");
    world.policy = world.policy.replace("image =", "reference_values = \"not-demanded\"\nimage =");
    assert!(world.judge(&[&one, &one]).holds());
}

#[test]
fn an_age_counts_up_to_the_most_that_is_allowed_and_never_from_the_future() {
    const DAY: u64 = 86_400;
    let refused = |signed, now, part: &str| {
        let Some(Problem::Age(reason)) = age(signed, 2 * DAY, now) else { panic!("{part}") };
        assert!(reason.contains(part), "{part}: {reason}");
    };
    for now in [TIME - SKEW, TIME, TIME + 2 * DAY] {
        assert_eq!(age(Some(TIME), 2 * DAY, now), None);
    }
    refused(Some(TIME), TIME + 2 * DAY + 1, "signed 2 days ago, at most 2 are allowed");
    refused(Some(TIME), TIME + 3 * DAY, "signed 3 days ago, at most 2 are allowed");
    refused(Some(TIME), TIME - SKEW - 1, "in the future");
    refused(None, TIME, "no trusted stamp");
}

#[test]
fn an_old_a_future_or_an_untimed_signature_is_refused() {
    let mut world = world();
    let bundles = [&world.bundle(&world.provenance(), 0), &world.references()];
    let values = Values(Ok(values()));
    assert!(world.judge_at(&bundles, &values, TIME + 200 * 86_400).holds());
    // A cosignature of this minute says nothing of when the image was signed: no stamp does.
    for times in ["\"witness\", \"stamp\"", "\"stamp\""] {
        world.policy = world
            .policy
            .replace("times = [\"witness\"]", &format!("maximum_age_days = 2\ntimes = [{times}]"));
        for now in [TIME, TIME + 86_400, TIME + 3 * 86_400] {
            let problems = world.judge_at(&bundles, &values, now).problems;
            assert!(matches!(problems.as_slice(), [Problem::Age(_)]), "{times}: {problems:?}");
        }
        world.policy = world
            .policy
            .replace(&format!("maximum_age_days = 2\ntimes = [{times}]"), "times = [\"witness\"]");
    }
}

#[test]
fn what_is_on_the_deny_list_is_refused() {
    let world = world();
    let provenance = world.provenance();
    let bundles = [&world.bundle(&provenance, 0), &world.references()];
    let key = hex::encode(Sha256::digest(world.builders[0].public().der().unwrap()));
    let payload = hex::encode(Sha256::digest(provenance.to_payload()));
    for deny in [
        format!("images = [\"{}\"]", "1".repeat(64)),
        "versions = [\"1.2.0\"]".to_owned(),
        format!("keys = [\"{key}\"]"),
        format!("statements = [\"{payload}\"]"),
    ] {
        let mut world = super::tests::world();
        world.policy += &format!("[deny]\n{deny}\n");
        let verdict = world.judge(&bundles);
        assert!(!verdict.holds(), "{deny}");
    }
}

#[test]
fn an_absent_output_and_an_unreadable_bundle_are_told() {
    let world = world();
    let image = Image {
        manifest: &world.manifest,
        manifest_sha256: MANIFEST.to_owned(),
        absent: vec!["image.efi".to_owned()],
    };
    let bundles = BTreeMap::from([("x".to_owned(), b"[".to_vec())]);
    let verdict = judge(&world.policy(), &image, &bundles, &Values(Err(String::new())), TIME);
    assert!(verdict.problems.contains(&Problem::Absent("image.efi".to_owned())));
    assert!(verdict.passed_over["x"][0].contains("cannot read the bundle"));
    for problem in &verdict.problems {
        assert!(!problem.to_string().is_empty());
    }
}
