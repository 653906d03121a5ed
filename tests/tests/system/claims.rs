//! Claims about a whole image: known vulnerabilities, exports, and the chains from Debian's keys and npm's to its
//! packages.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // all of it is a test

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proofmark::host::signer::Signer;
use proofmark::host::stamp::stamp;
use proofmark::host::tlog::directory::{Unwitnessed, Writer};
use proofmark::host::tlog::{Folder, Submission, TransparencyLog};
use proofmark::trust::envelope::{IN_TOTO, SigningKey};
use proofmark::trust::image_policy::{add_authorities, log_in_root, trust_root};
use proofmark::trust::transparency::entry::Verifier;
use proofmark::trust::transparency::note;
use proofmark::trust::transparency::tlog_policy::Policy;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use system_tests::authorities::Authorities;
use system_tests::inputs::{self, Inputs};
use system_tests::outcome::Outcome;
use tempfile::TempDir;

/// An image of the recipe `minimal`, and a folder to work in.
struct Built {
    inputs: Inputs,
    folder: TempDir,
}

impl Built {
    fn new() -> Built {
        let built = Built { inputs: Inputs::minimal(), folder: TempDir::new().unwrap() };
        let out = built.out();
        Outcome::of(built.proofmark().arg("build").arg(built.inputs.recipe()).arg("--out").arg(out))
            .succeeded();
        built
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn proofmark(&self) -> Command {
        inputs::proofmark(&self.inputs.store)
    }

    fn write(&self, name: &str, document: &Value) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, document.to_string()).unwrap();
        path
    }

    fn scan(&self, more: &[&str]) -> Outcome {
        let osv = self.folder.path().join("osv");
        Outcome::of(self.proofmark().arg("scan").arg(self.out()).arg("--osv").arg(osv).args(more))
    }

    /// The version of the package systemd in the lock.
    fn systemd(&self) -> String {
        let lock: toml::Table = fs::read_to_string(self.out().join("recipe.lock")).unwrap().parse().unwrap();
        let debs = lock["deb"].as_array().unwrap();
        let systemd = debs.iter().find(|deb| deb["name"].as_str() == Some("systemd")).unwrap();
        systemd["version"].as_str().unwrap().to_owned()
    }
}

fn record(id: &str, ecosystem: &str, name: &str, events: Value) -> Value {
    json!({
        "schema_version": "1.7.0",
        "id": id,
        "modified": "2026-10-01T12:00:00Z",
        "upstream": [format!("CVE-{id}")],
        "summary": "It breaks.",
        "affected": [{
            "package": {"ecosystem": ecosystem, "name": name},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }],
    })
}

#[test]
fn an_image_is_clear_until_a_record_of_the_database_names_what_is_in_it() {
    let built = Built::new();
    let version = built.systemd();
    let osv = built.folder.path().join("osv");
    fs::create_dir(&osv).unwrap();
    built.scan(&[]).refused(1, &["has no record"]);
    built.write(
        "osv/one.json",
        &record("A", "Debian:13", "systemd", json!([{"introduced": "0"}, {"fixed": "1"}])),
    );
    built.write("osv/npm.json", &record("N", "npm", "systemd", json!([{"introduced": "0"}])));
    let outcome = built.scan(&[]).succeeded();
    assert!(outcome.stdout.contains("0 affected, 0 unknown"), "{}", outcome.stdout);

    // Fixed in this very version: not affected. Fixed in the next: affected.
    built.write(
        "osv/B.json",
        &record("B", "Debian:13", "systemd", json!([{"introduced": "0"}, {"fixed": version}])),
    );
    built.scan(&[]).succeeded();
    let next = format!("{version}+1");
    let affected = record("C", "Debian:13", "systemd", json!([{"introduced": "0"}, {"fixed": next}]));
    built.write("osv/C.json", &affected);
    let outcome = built.scan(&[]);
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    assert!(outcome.stdout.contains(&format!("fixed in {next}")), "{}", outcome.stdout);

    // The digest of the database is printed, and can be pinned.
    let json: Value = serde_json::from_str(&built.scan(&["--json"]).stdout).unwrap();
    assert_eq!(json["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(json["predicateType"], "https://in-toto.io/attestation/vulns/v0.2");
    let disk: Value = serde_json::from_slice(&fs::read(built.out().join("manifest.json")).unwrap()).unwrap();
    assert_eq!(json["subject"][0]["digest"]["sha256"], disk["outputs"]["disk.raw"]["sha256"]);
    let scanner = &json["predicate"]["scanner"];
    assert_eq!(scanner["db"]["lastUpdate"], "2026-10-01T12:00:00Z");
    let results = scanner["result"].as_array().unwrap();
    assert!(results.iter().all(|row| row["id"] == "C") && !results.is_empty(), "{results:#?}");
    let digest = scanner["db"]["version"].as_str().unwrap().to_owned();
    assert_eq!(built.scan(&["--osv-digest", &digest]).code, Some(4));
    built.write("osv/D.json", &record("D", "Debian:13", "other", json!([{"introduced": "0"}])));
    built.scan(&["--osv-digest", &digest]).refused(1, &["is not the requested database"]);

    // A VEX document that we write and somebody edits clears the finding.
    let out = built.folder.path().join("vex.json");
    built.scan(&["--vex-out", out.to_str().unwrap(), "--author", "A. Uditor"]);
    let mut vex: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(
        built.scan(&["--vex", out.to_str().unwrap()]).code,
        Some(4),
        "under investigation is no all-clear"
    );
    for statement in vex["statements"].as_array_mut().unwrap() {
        assert_eq!(statement["status"], "under_investigation");
        statement["status"] = "not_affected".into();
    }
    let unjustified = built.write("edited.json", &vex);
    let outcome = built.scan(&["--vex", unjustified.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("not_affected without justification"), "{}", outcome.stderr);
    for statement in vex["statements"].as_array_mut().unwrap() {
        statement["justification"] = "vulnerable_code_not_in_execute_path".into();
    }
    let edited = built.write("edited.json", &vex);
    let outcome = built.scan(&["--vex", edited.to_str().unwrap()]).succeeded();
    assert!(outcome.stdout.contains("cleared   C in deb:"), "{}", outcome.stdout);

    // A withdrawn record has no effect; a damaged one stops the scan.
    let mut withdrawn = affected;
    withdrawn["withdrawn"] = "2026-10-02T00:00:00Z".into();
    built.write("osv/C.json", &withdrawn);
    built.scan(&[]).succeeded();
    fs::write(osv.join("E.json"), "{\"id\": ").unwrap();
    built.scan(&[]).refused(1, &["E.json"]);
}

#[test]
fn a_bill_of_materials_that_was_changed_is_neither_scanned_nor_exported() {
    let built = Built::new();
    let export = |form: &str| Outcome::of(built.proofmark().args(["export", form]).arg(built.out()));
    let cyclonedx = export("cyclonedx").succeeded().stdout;
    let path = built.out().join("sbom.cdx.json");
    assert_eq!(cyclonedx, fs::read_to_string(&path).unwrap());
    assert!(export("spdx").succeeded().stdout.contains("SPDX-2.3"));
    fs::write(&path, cyclonedx.replacen("libc6", "libc7", 1)).unwrap();
    export("cyclonedx").refused(1, &["does not match the manifest"]);
    built.write("osv/one.json", &record("A", "npm", "x", json!([{"introduced": "0"}])));
    built.scan(&[]).refused(1, &["does not match the manifest"]);

    let values = built.out().join("reference-values.json");
    let text = fs::read_to_string(&values).unwrap();
    assert!(export("rvps").succeeded().stdout.contains("\"type\": \"sample\""));
    fs::write(&values, text.replacen("qemu-tdx", "qemu-tdy", 1)).unwrap();
    export("rvps").refused(1, &["does not match the manifest"]);
    fs::remove_file(&values).unwrap();
    export("rvps").refused(1, &["reference-values.json is not there"]);
}

#[test]
fn reference_values_of_another_image_are_not_exported() {
    let built = Built::new();
    let path = built.write(
        "reference.json",
        &json!({"format": 1, "image": {"name": "other", "version": "1", "profile": "release"}, "subjects": [], "platforms": []}),
    );
    let outcome = Outcome::of(
        built.proofmark().args(["export", "corim"]).arg(built.out()).arg("--reference").arg(path),
    );
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.contains("for another image: name is other, expected minimal"),
        "{}",
        outcome.stderr
    );
}

/// The recipe `minimal` with a lock whose releases are available: mirrors keep only the newest, and the lock may be
/// older.
fn with_releases(folder: &Path) -> Inputs {
    let inputs = Inputs::minimal();
    let vendored = inputs.vendored();
    let lock = fs::read_to_string(inputs.lock()).unwrap().parse::<toml::Table>().unwrap();
    let there = |archive: &toml::Value| {
        let word = |key: &str| archive[key].as_str().unwrap();
        ["path", "index-path"].iter().all(|key| vendored.join(word("name")).join(word(key)).is_file())
    };
    if lock["archive"].as_array().unwrap().iter().all(there) {
        return inputs;
    }
    eprintln!("NO MIRROR HAS THE RELEASES OF THE LOCK ANY MORE; A LOCK OF TODAY IS USED.");
    inputs.locked_now(&folder.join("today")).unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn the_chain_from_debians_keys_to_every_package_is_whole_without_a_network() {
    let folder = TempDir::new().unwrap();
    let check = |recipe: &Path, vendored: &Path| {
        let store = folder.path().join("store");
        Outcome::of(
            inputs::proofmark(&store)
                .args(["--offline", "--json", "inputs"])
                .arg(recipe)
                .arg("--vendor")
                .arg(vendored),
        )
    };
    let inputs = with_releases(folder.path());
    let vendored = inputs.vendored();
    let first = check(&inputs.recipe(), &vendored);
    let findings: Value = serde_json::from_str(&first.succeeded().stdout).unwrap();
    assert_eq!(findings["suites"].as_array().unwrap().len(), 3, "{findings}");
    assert!(findings["debs"].as_u64().unwrap() > 60, "{findings}");

    // Without the releases of the mirror: the lock carries them.
    let recipes = folder.path().join("recipes");
    inputs::copy(&inputs.recipes, &recipes).unwrap();
    let (bare, empty) = (folder.path().join("bare"), folder.path().join("empty"));
    let lock = recipes.join("minimal/recipe.lock");
    let named = fs::read_to_string(&lock).unwrap().parse::<toml::Table>().unwrap();
    for archive in named["archive"].as_array().unwrap() {
        let suite =
            format!("{}/dists/{}", archive["name"].as_str().unwrap(), archive["suite"].as_str().unwrap());
        fs::create_dir_all(bare.join(&suite)).unwrap();
        symlink(vendored.join(&suite).join("main"), bare.join(&suite).join("main")).unwrap();
    }
    for archive in ["debian", "debian-security"] {
        let pool = format!("{archive}/pool");
        if vendored.join(&pool).is_dir() {
            symlink(vendored.join(&pool), bare.join(&pool)).unwrap();
        }
    }
    let from_bare = || {
        if empty.exists() {
            fs::remove_dir_all(&empty).unwrap();
        }
        let mut command = inputs::proofmark(&empty);
        // By a name that is not complete, as people call a recipe.
        command.args(["--offline", "--json", "inputs", "minimal"]).current_dir(&recipes);
        Outcome::of(command.arg("--vendor").arg(&bare))
    };
    let again: Value = serde_json::from_str(&from_bare().succeeded().stdout).unwrap();
    assert_eq!(again, findings);
    fs::remove_dir_all(recipes.join("minimal/recipe.lock.d")).unwrap();
    from_bare().refused(3, &["trixie InRelease", "--vendor DIR"]);

    // One word of the lock is changed: the signed index does not match it.
    let text = fs::read_to_string(&lock).unwrap();
    let parsed: toml::Table = text.parse().unwrap();
    let deb = &parsed["deb"].as_array().unwrap()[0];
    let archive = &parsed["archive"].as_array().unwrap()[0];
    let word = |table: &toml::Value, key: &str| table[key].as_str().unwrap().to_owned();
    let name = word(deb, "name");
    let version = word(deb, "version");
    let signer = archive["signed-by"].as_array().unwrap()[0].as_str().unwrap().to_owned();
    for (from, to, said) in [
        (
            format!("name = \"{name}\"\nversion = \"{version}\""),
            format!("name = \"{name}\"\nversion = \"{version}0\""),
            "is not in the signed index",
        ),
        (word(archive, "date"), "20200101T000000Z".to_owned(), "the date of"),
        (signer.clone(), signer.replace(|char: char| char.is_ascii_digit(), "F"), "the signers of"),
    ] {
        assert!(text.contains(&from), "{from}");
        fs::write(&lock, text.replacen(&from, &to, 1)).unwrap();
        let outcome = check(&recipes.join("minimal"), &vendored);
        assert_eq!(outcome.code, Some(4), "{said}: {}", outcome.stderr);
        assert!(outcome.stdout.contains(said), "{said}: {}", outcome.stdout);
    }
}

/// A registry with one package, its key, and the log and time-stamp authority of its attestations.
struct Registry {
    folder: TempDir,
    document: Value,
}

impl Registry {
    const TARBALL: &[u8] = b"what the package holds does not matter here";

    fn new() -> Registry {
        let folder = TempDir::new().unwrap();
        let authorities = Authorities::new(folder.path().join("authorities"));
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let public = key.public().der().unwrap();
        let kind = "https://github.com/npm/attestation/tree/main/specs/publish/v0.1";
        let sha512 = hex::encode(Sha512::digest(Registry::TARBALL));
        let statement = json!({"_type": "https://in-toto.io/Statement/v0.1", "predicateType": kind,
            "subject": [{"name": "pkg:npm/%40s/tiny@1.0.0", "digest": {"sha512": sha512}}],
            "predicate": {"name": "@s/tiny", "version": "1.0.0", "registry": "https://registry.example.org"}});
        let envelope = Signer::Key(key).envelope(IN_TOTO, statement.to_string().into_bytes()).unwrap();
        let own = note::SigningKey::new("log.example.org", note::Role::Log, &[8; 32]).unwrap();
        let writer = Writer::init(&folder.path().join("log"), own).unwrap();
        let logs = log_in_root(writer.key(), None);
        let policy = Policy::parse(&format!("log {}\nquorum none\n", writer.key())).unwrap();
        let verifier = Verifier::Key(public.clone());
        let mut log = Folder { writer, cosigners: Unwitnessed, policy: &policy };
        let entry = log.submit(Submission { envelope: &envelope, verifier: &verifier }).unwrap().entry;
        let patience = std::time::Duration::from_secs(20);
        let time = stamp(&format!("{}/stamp", authorities.address), &envelope.signature, patience).unwrap();
        let mut bundle: Value = serde_json::from_str(&envelope.bundle(&verifier, &[entry], &[time])).unwrap();
        bundle["verificationMaterial"]["publicKey"]["hint"] = json!("the registry's");
        let mut root = trust_root(&[logs]);
        let given = fs::read(authorities.folder.join("root.json")).unwrap();
        add_authorities(&mut root, &serde_json::from_slice(&given).unwrap());
        fs::write(folder.path().join("root.json"), root.to_string()).unwrap();
        let keys = json!({"keys": [{"keyId": "the registry's", "keyUsage": "npm:attestations", "publicKey": {
            "rawBytes": STANDARD.encode(public), "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": "2020-01-01T00:00:00Z"}}}]});
        fs::write(folder.path().join("keys.json"), keys.to_string()).unwrap();
        let document = json!({"attestations": [{"predicateType": kind, "bundle": bundle}]});
        Registry { folder, document }
    }

    /// Serves the package from a vendored folder; returns its entry in a lock.
    fn serve(&self, document: &Value) -> String {
        let write = |path: &str, bytes: &[u8]| {
            let path = self.folder.path().join("vendor/npm").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let document = document.to_string();
        write("@s/tiny/-/tiny-1.0.0.tgz", Registry::TARBALL);
        write("-/npm/v1/attestations/@s%2ftiny@1.0.0", document.as_bytes());
        format!(
            "\n[[npm]]\nrole = \"application\"\napplication = \"tiny\"\nlocation = \"node_modules/@s/tiny\"\n\
             name = \"@s/tiny\"\nversion = \"1.0.0\"\npath = \"@s/tiny/-/tiny-1.0.0.tgz\"\nsize = {}\n\
             sha256 = \"{}\"\nintegrity = \"sha512-{}\"\nattestations = \"{}\"\nattestations-size = {}\n",
            Registry::TARBALL.len(),
            hex::encode(Sha256::digest(Registry::TARBALL)),
            STANDARD.encode(Sha512::digest(Registry::TARBALL)),
            hex::encode(Sha256::digest(&document)),
            document.len(),
        )
    }
}

#[test]
fn what_a_registry_attests_is_judged_without_a_network() {
    let registry = Registry::new();
    let inputs = with_releases(registry.folder.path());
    let recipes = registry.folder.path().join("recipes");
    inputs::copy(&inputs.recipes, &recipes).unwrap();
    let lock = recipes.join("minimal/recipe.lock");
    let text = fs::read_to_string(&lock).unwrap();
    let (npm, rest) = ("npm = []\n", text.replacen("npm = []\n", "", 1));
    assert!(text.contains(npm));
    let at = |name: &str| registry.folder.path().join(name);
    let check = |entry: &str, trust: &[(&str, &str)]| {
        fs::write(&lock, format!("{rest}{entry}")).unwrap();
        let mut command = inputs::proofmark(&inputs.store);
        command.args(["--offline", "--json", "inputs"]).arg(recipes.join("minimal"));
        command.arg("--vendor").arg(inputs.vendored()).arg("--vendor").arg(at("vendor"));
        for (flag, name) in trust {
            command.arg(flag).arg(at(name));
        }
        Outcome::of(&mut command)
    };
    let trust = [("--npm-keys", "keys.json"), ("--npm-trusted-root", "root.json")];
    let right = registry.serve(&registry.document);
    let findings: Value = serde_json::from_str(&check(&right, &trust).succeeded().stdout).unwrap();
    assert_eq!((&findings["npm"], &findings["attested"]), (&json!(1), &json!(1)), "{findings}");
    assert_eq!((&findings["unattested"], &findings["sources"]), (&json!(0), &json!({})), "{findings}");

    let refused = |entry: &str, trust: &[(&str, &str)], said: &str| {
        let outcome = check(entry, trust);
        assert_eq!(outcome.code, Some(4), "{said}: {}", outcome.stderr);
        assert!(outcome.stdout.contains(said), "{said}: {}", outcome.stdout);
    };
    // Only the test knows its registry.
    refused(&right, &[], "names an unknown registry key");
    refused(&right, &trust[..1], "attestation 1 cannot be trusted");
    // The lock names a build as the source, but nothing attests it.
    let built = format!("{right}source = \"https://code.example.org/tiny\"\n");
    refused(&built, &trust, "the lock says \\\"https://code.example.org/tiny");
    let mut forged = registry.document.clone();
    forged["attestations"][0]["bundle"]["dsseEnvelope"]["signatures"][0]["sig"] = json!("MAYCAQECAQE=");
    refused(&registry.serve(&forged), &trust, "attestation 1 cannot be trusted");

    fs::write(at("keys.json"), "{}").unwrap();
    let outcome = check(&right, &trust);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("not a list of registry keys"), "{}", outcome.stderr);
}
