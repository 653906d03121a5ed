//! The program publishes an image, verifies what it published, and refuses forgeries, all through its command line.
//!
//! # Shape
//! An image of a few bytes with a real manifest stands in for a built one: signing and logging do not depend on the
//! disk's content. The log is a folder; the witness is the program itself.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use proofmark::claim::contents;
use proofmark::claim::manifest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::authorities::{Authorities, Fulcio, ISSUER, NAME, token};
use system_tests::inputs::Inputs;
use system_tests::outcome::Outcome;
use system_tests::program;

struct Lab {
    root: tempfile::TempDir,
    program: PathBuf,
}

/// An image's folder; `disk` are the disk's bytes.
fn image(folder: &Path, version: &str, disk: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    let contents = json!({"form": contents::FORM, "origins": [], "paths": []}).to_string();
    let files: [(&str, &[u8]); 4] = [
        ("disk.raw", disk),
        ("image.efi", b"a UKI"),
        ("contents.json", contents.as_bytes()),
        ("recipe.lock", b"a lock"),
    ];
    let mut outputs = serde_json::Map::new();
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
        let sha256 = hex::encode(Sha256::digest(bytes));
        outputs.insert(name.to_owned(), json!({"size": bytes.len(), "sha256": sha256}));
    }
    let manifest = json!({
        "form": manifest::FORM, "name": "minimal", "version": version, "profile": "release",
        "tool": {"name": "proofmark", "version": "0.1.0", "compressor": "zstd"},
        "lock_sha256": hex::encode(Sha256::digest(b"a lock")), "epoch": 1,
        "kernel": {"release": "6.12", "initrd_modules": [], "modules": 0},
        "command_line": "ro",
        "filesystem": {"kind": "erofs", "uuid": "", "size": 1, "compression": "none", "paths": 0},
        "verity": {"root_hash": "ab", "salt": "", "algorithm": "sha256", "block_size": 4096, "data_blocks": 1,
            "hash_start": 1, "uuid": ""},
        "disk": {"guid": "", "size": disk.len(), "partitions": []},
        "uki": [], "inputs": [], "outputs": outputs,
    });
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

impl Lab {
    fn new() -> Self {
        let lab = Lab { root: tempfile::tempdir().unwrap(), program: program::proofmark() };
        image(&lab.path("out"), "1.2.0", b"a disk");
        lab.run(&["key", "builder.key"]).succeeded();
        lab.run(&["key", "--log", "log.example/images", "log.key"]).succeeded();
        lab.run(&["log", "init", "log", "--key", "log.key"]).succeeded();
        lab.logs("quorum none\n");
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.root.path()).env("PROOFMARK_STORE", self.path("store"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(arguments))
    }

    /// Writes the policies: for logs, with these extra lines; and for images.
    fn logs(&self, more: &str) {
        let log = self.read("log.key.pub");
        fs::write(self.path("tlog-policy"), format!("log {}\n{more}", log.trim())).unwrap();
        let policy = "format = 1\nimage = \"minimal\"\nminimum_version = \"1.0\"\nlog_policy = \"tlog-policy\"\n\
                      reference_values = \"not-demanded\"\nbuilders = [\"https://example.org/b\"]\n\
                      [[identities]]\nname = \"builder\"\nkey = \"builder.key.pub\"\n";
        fs::write(self.path("policy.toml"), policy).unwrap();
    }

    fn publish(&self) -> Outcome {
        let mut arguments =
            vec!["publish", "out", "--key", "builder.key", "--builder", "https://example.org/b"];
        arguments.extend(["--log", "log", "--log-key", "log.key", "--log-policy", "tlog-policy"]);
        self.run(&arguments)
    }

    fn verify(&self) -> Outcome {
        self.run(&["verify", "out", "--policy", "policy.toml"])
    }

    #[track_caller]
    fn refused(&self, part: &str) {
        let outcome = self.verify();
        assert_eq!(outcome.code, Some(4), "{outcome:?}");
        assert!(outcome.stdout.contains(part), "{part}: {outcome:?}");
    }
}

#[test]
fn what_is_published_is_verified_and_publishing_again_changes_nothing() {
    let lab = Lab::new();
    lab.publish().succeeded();
    assert!(lab.verify().succeeded().stdout.ends_with("verified\n"));
    let bundle = lab.read("out/provenance.sigstore.json");
    assert!(lab.publish().succeeded().stdout.contains("as before"));
    assert_eq!(lab.read("out/provenance.sigstore.json"), bundle);
    let mut by_key = vec!["verify", "bundle", "--bundle", "out/provenance.sigstore.json"];
    by_key.extend(["--key", "builder.key.pub", "--trusted-root", "out/trusted_root.json"]);
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(b"a disk")));
    for artifact in ["out/disk.raw", &digest] {
        let arguments: Vec<&str> = by_key.iter().copied().chain([artifact]).collect();
        lab.run(&arguments).succeeded();
    }
    for (artifact, code) in [("out/image.efi", 0), ("builder.key.pub", 4), ("nothing", 1), ("sha256:12", 1)] {
        let arguments: Vec<&str> = by_key.iter().copied().chain([artifact]).collect();
        assert_eq!(lab.run(&arguments).code, Some(code), "{artifact}");
    }
    assert_eq!(lab.run(&by_key).code, Some(2));
    assert_eq!(lab.run(&["verify", "bundle", "--bundle", "x", "out/disk.raw"]).code, Some(2));
    let clean = lab.run(&["--json", "log", "audit", "log", "--policy", "tlog-policy"]).succeeded();
    let report: Value = serde_json::from_str(&clean.stdout).unwrap();
    assert_eq!((report["size"].as_u64(), report["findings"].as_array().map(Vec::len)), (Some(1), Some(0)));
}

#[test]
fn a_changed_image_key_log_or_version_is_refused() {
    let lab = Lab::new();
    lab.refused("no identity in the policy has signed");
    lab.publish().succeeded();
    fs::write(lab.path("out/disk.raw"), b"another disk").unwrap();
    lab.refused("disk.raw");
    image(&lab.path("out"), "1.2.0", b"another disk");
    lab.refused("no identity in the policy has signed");
    image(&lab.path("out"), "1.2.0", b"a disk");
    lab.verify().succeeded();
    // An output that cannot be read is no answer.
    let disk = fs::read(lab.path("out/disk.raw")).unwrap();
    fs::remove_file(lab.path("out/disk.raw")).unwrap();
    fs::create_dir(lab.path("out/disk.raw")).unwrap();
    let outcome = lab.verify();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("cannot read out/disk.raw"), "{outcome:?}");
    fs::remove_dir(lab.path("out/disk.raw")).unwrap();
    fs::write(lab.path("out/disk.raw"), disk).unwrap();
    let policy = lab.read("policy.toml");
    for (from, to, part) in [
        ("minimum_version = \"1.0\"", "minimum_version = \"1.10\"", "older than 1.10"),
        ("image = \"minimal\"", "image = \"other\"", "the policy is for \"other\""),
        ("https://example.org/b", "https://example.org/c", "is not allowed"),
        ("reference_values = \"not-demanded\"", "", "reference values"),
        ("log_policy", "maximum_age_days = 1\ntimes = [\"stamp\"]\nlog_policy", "no trusted stamp"),
    ] {
        fs::write(lab.path("policy.toml"), policy.replacen(from, to, 1)).unwrap();
        lab.refused(part);
    }
    fs::write(lab.path("policy.toml"), &policy).unwrap();
    // Another key with the same log's name, and another builder's key.
    let key = lab.read("builder.key.pub");
    fs::remove_file(lab.path("builder.key")).unwrap();
    lab.run(&["key", "builder.key"]).succeeded();
    lab.refused("no identity in the policy has signed");
    fs::write(lab.path("builder.key.pub"), key).unwrap();
    lab.verify().succeeded();
    fs::remove_file(lab.path("log.key")).unwrap();
    lab.run(&["key", "--log", "log.example/images", "log.key"]).succeeded();
    lab.logs("quorum none\n");
    lab.refused("no identity in the policy has signed");
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let lab = Lab::new();
    for key in ["builder.key", "log.key"] {
        fs::set_permissions(lab.path(key), fs::Permissions::from_mode(0o644)).unwrap();
        let outcome = lab.publish();
        assert_eq!(outcome.code, Some(1));
        assert!(
            outcome.stderr.contains("0644") && outcome.stderr.contains("hint: run `chmod 600"),
            "{outcome:?}"
        );
        fs::set_permissions(lab.path(key), fs::Permissions::from_mode(0o600)).unwrap();
    }
    lab.publish().succeeded();
    assert_eq!(lab.run(&["key", "builder.key"]).code, Some(1));
}

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_witness_is_demanded_and_a_monitor_tells_of_strangers_and_forks() {
    let lab = Lab::new();
    lab.run(&["key", "--witness", "witness.example/w", "witness.key"]).succeeded();
    let log = lab.read("log.key.pub");
    let mut arguments =
        vec!["log", "witness", "--key", "witness.key", "--state", "witness", "--log", log.trim()];
    arguments.extend(["--listen", "127.0.0.1:0"]);
    let mut child = lab.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let witness = Running(child);
    let address = line.trim().strip_prefix("listening at ").unwrap().to_owned();
    let lines = format!("witness w {} {address}\nquorum w\n", lab.read("witness.key.pub").trim());
    lab.logs(&lines);
    let monitor = |code: i32, part: &str| {
        let mut arguments = vec!["log", "monitor", "log", "--policy", "tlog-policy", "--state", "seen"];
        arguments.extend(["--key", "builder.key.pub", "--known", "out"]);
        let outcome = lab.run(&arguments);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.stdout.contains(part), "{part}: {outcome:?}");
    };
    monitor(4, "quorum_lost");
    lab.publish().succeeded();
    assert!(lab.read("out/provenance.tlog-proof").contains("witness.example/w"));
    let policy = lab.read("policy.toml");
    let timed = policy.replacen("log_policy", "times = [\"witness\"]\nlog_policy", 1);
    fs::write(lab.path("policy.toml"), &timed).unwrap();
    lab.verify().succeeded();
    // A cosignature can be had at any time for an old entry: it is no proof of a young one.
    fs::write(lab.path("policy.toml"), format!("maximum_age_days = 1\n{timed}")).unwrap();
    lab.verify().refused(1, &["policy.toml", "line 1", "maximum_age_days needs \"stamp\""]);
    fs::write(lab.path("policy.toml"), timed).unwrap();
    monitor(0, "1 new ones are ours");
    // The witness is gone: nothing more is published, and nothing is lost.
    drop(witness);
    let old = lab.path("kept");
    fs::rename(lab.path("out"), &old).unwrap();
    image(&lab.path("out"), "1.3.0", b"a third disk");
    let outcome = lab.publish();
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(outcome.stderr.contains("witnesses did not cosign"), "{outcome:?}");
    assert!(!lab.path("out/provenance.sigstore.json").exists());
    monitor(0, "1 entries");
}

/// A real image, and a signed statement that lies about one of its registers.
#[test]
fn signed_reference_values_are_computed_again_from_the_image_and_rebuilders_compare_every_byte() {
    let inputs = Inputs::minimal();
    let lab = Lab::new();
    fs::remove_dir_all(lab.path("out")).unwrap();
    let run = |arguments: &[&str]| {
        Outcome::of(lab.command(arguments).arg("--offline").env("PROOFMARK_STORE", &inputs.store))
    };
    let recipe = inputs.recipe();
    let recipe = recipe.to_str().unwrap();
    run(&["build", recipe, "--out", "out"]).succeeded();
    let policy = lab.read("policy.toml").replace("\"1.0\"", "\"1\"");
    let policy = policy.replace("reference_values = \"not-demanded\"\n", "");
    fs::write(lab.path("policy.toml"), policy).unwrap();
    let verify = || run(&["verify", "out", "--policy", "policy.toml"]);

    let values = lab.read("out/reference-values.json");
    let manifest = lab.read("out/manifest.json");
    lab.publish().succeeded();
    assert!(verify().succeeded().stdout.ends_with("verified\n"));

    // Another party rebuilds it, and signs under its own name.
    let rebuilt = run(&["--json", "rebuild", "out", recipe]).succeeded();
    let said: Value = serde_json::from_str(&rebuilt.stdout).unwrap();
    assert_eq!(said, json!({"reproduced": true, "differ": []}));
    let demanding = lab.read("policy.toml").replace("log_policy", "rebuilders = 2\nlog_policy")
        + "[[identities]]\nname = \"auditor\"\nkey = \"auditor.key.pub\"\n";
    lab.run(&["key", "auditor.key"]).succeeded();
    fs::write(lab.path("policy.toml"), demanding).unwrap();
    let alone = verify();
    assert_eq!(alone.code, Some(4), "{alone:?}");
    assert!(alone.stdout.contains("refused: 2 identities must agree"), "{alone:?}");
    // Without the firmware, there is nothing to compute the values from.
    lab.refused("with --firmware FILE");
    let mut again =
        vec!["rebuild", "out", recipe, "--key", "auditor.key", "--log", "log", "--log-key", "log.key"];
    again.extend(["--builder", "https://example.org/b"]);
    run(&again).succeeded();
    assert!(verify().succeeded().stdout.ends_with("verified\n"));

    // One digit of one register is wrong, in a document that the right key signed and logged.
    let document: Value = serde_json::from_str(&values).unwrap();
    let right = document["platforms"][0]["registers"]["rtmr1"].as_str().unwrap();
    let digit = if right.starts_with('0') { "1" } else { "0" };
    let forged = values.replace(right, &format!("{digit}{}", &right[1..]));
    let sha256 = |text: &str| hex::encode(Sha256::digest(text));
    for name in fs::read_dir(lab.path("out")).unwrap().map(|entry| entry.unwrap().file_name()) {
        let name = name.into_string().unwrap();
        if name.contains("sigstore")
            || name.contains("dsse")
            || name.contains("tlog")
            || name == "publish.json"
        {
            fs::remove_file(lab.path("out").join(name)).unwrap();
        }
    }
    fs::write(lab.path("out/reference-values.json"), &forged).unwrap();
    fs::write(lab.path("out/manifest.json"), manifest.replace(&sha256(&values), &sha256(&forged))).unwrap();
    let single = lab.read("policy.toml").replace("rebuilders = 2\n", "");
    fs::write(lab.path("policy.toml"), single).unwrap();
    lab.publish().succeeded();
    let refused = verify();
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stdout.contains("reference values: qemu-tdx"), "{refused:?}");
    assert!(refused.stdout.contains("rtmr1") && refused.stdout.contains(right), "{refused:?}");
    let other = run(&["rebuild", "out", recipe]);
    assert_eq!(other.code, Some(4), "{other:?}");
    assert!(other.stdout.contains("not reproduced: reference-values.json differ"), "{other:?}");
}

#[test]
fn who_has_no_key_signs_by_a_token_of_its_identity() {
    let lab = Lab::new();
    let authorities = Authorities::new(lab.path("authorities"));
    let secret = lab.path("token");
    let write = |text: &str, mode: u32| {
        fs::write(&secret, text).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
    };
    write(&format!("{}\n", token()), 0o600);
    let stamp = format!("{}/stamp", authorities.address);
    let root = authorities.folder.join("root.json");
    let mut keyless = vec!["publish", "out", "--fulcio", &authorities.address, "--identity-token", "token"];
    keyless.extend(["--trusted-root", root.to_str().unwrap(), "--builder", "https://example.org/b"]);
    keyless.extend(["--log", "log", "--log-key", "log.key", "--log-policy", "tlog-policy"]);
    let timed: Vec<&str> = keyless.iter().copied().chain(["--timestamp-authority", &stamp]).collect();
    let publish = || lab.run(&timed);
    let nothing = || assert!(!lab.path("out/provenance.dsse.json").exists());

    lab.run(&keyless).refused(1, &["nothing proves when it was used", "--timestamp-authority"]);
    *authorities.fulcio.lock().unwrap() = Fulcio::Denies;
    publish().refused(3, &["401", "the identity token is not believed", "new identity token"]);
    nothing();
    *authorities.fulcio.lock().unwrap() = Fulcio::Other;
    publish().refused(1, &["for another key"]);
    nothing();
    // The trust root names a log of certificates: a certificate that no log holds is not accepted.
    *authorities.fulcio.lock().unwrap() = Fulcio::Unlogged;
    publish().refused(1, &["would be refused", "SCT"]);
    assert!(!lab.path("out/provenance.sigstore.json").exists());
    fs::remove_file(lab.path("out/provenance.dsse.json")).unwrap();
    *authorities.fulcio.lock().unwrap() = Fulcio::Certifies;
    let good = fs::read_to_string(&secret).unwrap();
    write(&good, 0o644);
    publish().refused(1, &["0644", "chmod 600"]);
    write("no token", 0o600);
    publish().refused(1, &["the identity token cannot be used", "three parts"]);
    nothing();
    write(&good, 0o600);

    let before = *authorities.asked.lock().unwrap();
    publish().succeeded();
    let names = ["out/provenance.sigstore.json", "out/provenance.crt", "out/publish.json"];
    let files = names.map(|name| lab.read(name));
    assert!(!lab.path("out/signer.pub").exists());
    // The key is gone, and no new one is requested: its signatures stay valid.
    assert!(publish().succeeded().stdout.contains("as before"));
    assert_eq!(names.map(|name| lab.read(name)), files);
    assert_eq!(*authorities.asked.lock().unwrap(), before + 1);

    let policy = |name: &str, issuer: &str| {
        let text = format!(
            "format = 1\nimage = \"minimal\"\nminimum_version = \"1.0\"\nlog_policy = \"tlog-policy\"\n\
             trusted_root = \"authorities/root.json\"\nreference_values = \"not-demanded\"\n\
             maximum_age_days = 1\ntimes = [\"stamp\"]\nbuilders = [\"https://example.org/b\"]\n\
             [[identities]]\nname = \"ci\"\ncertificate = \"{name}\"\nissuer = \"{issuer}\"\n"
        );
        fs::write(lab.path("policy.toml"), text).unwrap();
    };
    policy(NAME, ISSUER);
    assert!(lab.verify().succeeded().stdout.ends_with("verified\n"));
    let mut bundle = vec!["verify", "bundle", "--bundle", "out/provenance.sigstore.json", "--identity", NAME];
    bundle.extend(["--issuer", ISSUER, "--trusted-root", "out/trusted_root.json", "out/disk.raw"]);
    lab.run(&bundle).succeeded();
    for (name, issuer) in [(NAME, "https://id.example.com"), ("https://ci.example.org/other", ISSUER)] {
        policy(name, issuer);
        lab.refused("no identity in the policy has signed");
    }
    // Another certificate authority and another time-stamp authority, with the same names.
    policy(NAME, ISSUER);
    let others = Authorities::new(lab.path("others"));
    let read = |folder: &Path| -> Value {
        serde_json::from_str(&fs::read_to_string(folder.join("root.json")).unwrap()).unwrap()
    };
    for authority in ["certificateAuthorities", "timestampAuthorities"] {
        let mut root = read(&authorities.folder);
        root[authority] = read(&others.folder)[authority].clone();
        fs::write(lab.path("root.json"), root.to_string()).unwrap();
        let text = lab.read("policy.toml").replace("authorities/root.json", "root.json");
        fs::write(lab.path("policy.toml"), text).unwrap();
        lab.refused("no identity in the policy has signed");
        policy(NAME, ISSUER);
    }
    lab.verify().succeeded();
}
