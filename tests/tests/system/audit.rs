//! An auditor recomputes the reference values of a published image, and learns which event of which register differs.
//!
//! # Shape
//! ```text
//! recipes/minimal, built ─ one thing changed ─> proofmark audit ─> 0, or 4 with register, event and input
//!                                               proofmark measure = ovmf-measure boot = reference-values.json
//! ```
//!
//! # Not here
//! Whether the values are those of a real boot: `measured_boot`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use system_tests::inputs::{self, Inputs};
use system_tests::outcome::Outcome;
use system_tests::program;

/// An image of the recipe `minimal`, in a folder of its own.
struct Built {
    inputs: Inputs,
    folder: tempfile::TempDir,
}

impl Built {
    fn new() -> Built {
        let built = Built { inputs: Inputs::minimal(), folder: tempfile::tempdir().unwrap() };
        let mut build = built.proofmark();
        Outcome::of(build.arg("build").arg(built.inputs.recipe()).arg("--out").arg(built.at(""))).succeeded();
        built
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    fn proofmark(&self) -> Command {
        let mut command = inputs::proofmark(&self.inputs.store);
        command.arg("--offline");
        command
    }

    fn audit(&self, image: &Path, reference: &Path) -> Outcome {
        Outcome::of(self.proofmark().arg("audit").arg(image).arg("--reference").arg(reference))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let outcome = Outcome::of(self.proofmark().arg("--json").args(arguments)).succeeded();
        serde_json::from_str(&outcome.stdout).unwrap()
    }

    /// Changes the disk where `part` occurs, exactly once, and returns a new file with the change.
    fn changed(&self, part: &[u8], offset: usize, byte: u8) -> PathBuf {
        let mut disk = fs::read(self.at("disk.raw")).unwrap();
        let places: Vec<usize> =
            disk.windows(part.len()).enumerate().filter(|(_, at)| *at == part).map(|(at, _)| at).collect();
        let [place] = places[..] else { panic!("{} places", places.len()) };
        assert_ne!(disk[place + offset], byte);
        disk[place + offset] = byte;
        let path = self.folder.path().join("changed.raw");
        fs::write(&path, disk).unwrap();
        path
    }

    fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.at("manifest.json")).unwrap()).unwrap()
    }

    /// Writes the lock's firmware to a file.
    fn firmware(&self) -> PathBuf {
        let lock: toml::Table = fs::read_to_string(self.at("recipe.lock")).unwrap().parse().unwrap();
        let sha256 = lock["firmware"]["sha256"].as_str().unwrap();
        let deb = fs::read(self.inputs.store.join("blobs/sha256").join(&sha256[..2]).join(sha256)).unwrap();
        let path = rootfs::path::TreePath::new("usr/share/ovmf/OVMF.fd").unwrap();
        let file = self.folder.path().join("OVMF.fd");
        fs::write(&file, rootfs::deb::file(&deb, &path).unwrap().unwrap()).unwrap();
        file
    }
}

#[test]
fn an_audit_names_the_first_event_that_differs_and_the_input_that_it_points_to() {
    let built = Built::new();
    let reference = built.at("reference-values.json");
    let agrees = built.audit(&built.at(""), &reference).succeeded();
    assert!(agrees.stdout.contains("agrees"), "{agrees:?}");
    let firmware = built.firmware();
    let raw = |disk: &Path| {
        let mut command = built.proofmark();
        command.arg("--json").arg("audit").arg(disk).arg("--reference").arg(&reference);
        let outcome = Outcome::of(command.arg("--firmware").arg(&firmware));
        let said: Value = serde_json::from_str(&outcome.stdout).unwrap();
        (outcome.code, said["mismatches"].as_array().unwrap().clone())
    };
    assert_eq!(raw(&built.at("disk.raw")), (Some(0), Vec::new()));

    // A block of the root file system that no register covers: the root hash shows the change.
    let manifest = built.manifest();
    let root = manifest["disk"]["partitions"].as_array().unwrap();
    let root =
        root.iter().find(|one| one["name"] == "root-x86-64").unwrap()["first_lba"].as_u64().unwrap() * 512;
    let mut disk = fs::read(built.at("disk.raw")).unwrap();
    disk[usize::try_from(root).unwrap() + 5 * 4096] ^= 1;
    let other = built.folder.path().join("changed.raw");
    fs::write(&other, &disk).unwrap();
    let (code, mismatches) = raw(&other);
    assert_eq!(code, Some(4));
    let registers = |mismatches: &[Value]| -> Vec<String> {
        let mut all: Vec<String> =
            mismatches.iter().map(|one| one["register"].as_str().unwrap().to_owned()).collect();
        all.sort();
        all.dedup();
        all
    };
    assert_eq!(registers(&mismatches), ["root hash", "subject"], "{mismatches:#?}");

    // A word of the command line: it changes the UKI as a whole, its section, and what the kernel gets.
    let other = built.changed(b"loglevel=4 systemd.gpt_auto=no", 9, b'3');
    let (code, mismatches) = raw(&other);
    assert_eq!(code, Some(4));
    let of = |register: &str, platform: &str| {
        let is = |one: &&Value| {
            one["register"] == register
                && one["platform"].as_str().is_some_and(|name| name.contains(platform))
        };
        mismatches.iter().find(is).unwrap_or_else(|| panic!("{register}: {mismatches:#?}")).clone()
    };
    assert_eq!(of("rtmr1", "qemu-tdx")["subject"], "UKI");
    let told = of("rtmr2", "qemu-tdx");
    assert_eq!(told["subject"], "section .cmdline");
    assert!(told["points_to"].as_str().unwrap().contains("section .cmdline"), "{told}");
    assert!(!mismatches.iter().any(|one| one["register"] == "rtmr0" || one["register"] == "pcr.5"));
    assert_eq!(of("pcr.9", "qemu-tpm")["subject"], "command line");

    // A document with one wrong register.
    let text = fs::read_to_string(&reference).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let right = document["platforms"][0]["registers"]["rtmr2"].as_str().unwrap();
    let digit = if right.starts_with('0') { "1" } else { "0" };
    let lie = built.folder.path().join("lie.json");
    fs::write(&lie, text.replace(right, &format!("{digit}{}", &right[1..]))).unwrap();
    let refused = built.audit(&built.at(""), &lie);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stdout.contains("rtmr2"), "{refused:?}");
    fs::write(&lie, "{}").unwrap();
    let unreadable = built.audit(&built.at(""), &lie);
    assert_eq!(unreadable.code, Some(1), "{unreadable:?}");

    // The UKI beside the disk: a different one, a shorter one, an unreadable one, and none.
    let beside = built.at("image.efi");
    let good = fs::read(&beside).unwrap();
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    for other in [&other[..], &good[..good.len() - 1]] {
        fs::write(&beside, other).unwrap();
        let refused = built.audit(&built.at(""), &reference);
        assert_eq!(refused.code, Some(4), "{refused:?}");
        assert!(refused.stdout.contains("DIFFERS the image: uki, image.efi"), "{refused:?}");
    }
    fs::remove_file(&beside).unwrap();
    built.audit(&built.at(""), &reference).succeeded();
    std::os::unix::fs::symlink("image.efi", &beside).unwrap();
    let unreadable = built.audit(&built.at(""), &reference);
    assert_eq!(unreadable.code, Some(1), "{unreadable:?}");
    assert!(unreadable.stderr.contains("image.efi"), "{unreadable:?}");
}

#[test]
fn both_programs_and_the_document_give_the_same_registers() {
    let built = Built::new();
    let image = built.at("");
    let image = image.to_str().unwrap();
    let document: Value =
        serde_json::from_slice(&fs::read(built.at("reference-values.json")).unwrap()).unwrap();
    let firmware = built.firmware();
    let firmware = firmware.to_str().unwrap();
    let disk = built.at("disk.raw");
    let small = |arguments: &[&str]| -> Value {
        let program = program::ovmf_measure();
        let outcome = Outcome::of(Command::new(program).args(arguments)).succeeded();
        serde_json::from_str(&outcome.stdout).unwrap()
    };
    let platforms = document["platforms"].as_array().unwrap();
    assert!(platforms.len() > 3, "{}", platforms.len());
    for platform in platforms {
        let name = platform["name"].as_str().unwrap();
        let shape = platform["shape"].as_object().unwrap();
        let word = |key: &str| shape.get(key).and_then(Value::as_str);
        let mut words = vec!["--platform", name, "--memory", word("memory").unwrap()];
        for (flag, key) in [("--vcpus", "vcpus"), ("--qemu", "qemu"), ("--devices", "devices")] {
            if let Some(value) = word(key) {
                words.extend([flag, value]);
            }
        }
        words.extend(["--bank", platform["algorithm"].as_str().unwrap()]);
        let measured = built.json(&[&["measure", image], &words[..]].concat());
        let boot = ["boot", "--json", "--disk", disk.to_str().unwrap(), "--firmware", firmware];
        let by_itself = small(&[&boot, &words[..]].concat());
        assert_eq!(measured["registers"], by_itself["registers"], "{name}");
        assert_eq!(measured["events"], by_itself["events"], "{name}");
        for (register, value) in platform["registers"].as_object().unwrap() {
            let pointer = format!("/registers/{}", register.replace('.', "/"));
            assert_eq!(measured.pointer(&pointer), Some(value), "{name}: {register}");
        }
    }

    // With QEMU's -kernel, nothing of the disk is measured.
    let words = ["measure", image, "--platform", "qemu-tdx", "--firmware", firmware];
    let (disk, direct) = (built.json(&words), built.json(&[&words[..], &["--direct"]].concat()));
    let same = |register: &str| disk["registers"][register] == direct["registers"][register];
    assert!(same("mrtd") && same("rtmr2") && !same("rtmr0") && !same("rtmr1"));
    let subjects = |measured: &Value| -> Vec<String> {
        let events = measured["events"].as_array().unwrap();
        events.iter().map(|event| event["subject"].as_str().unwrap().to_owned()).collect()
    };
    assert!(subjects(&disk).contains(&"GPT".to_owned()) && !subjects(&direct).contains(&"GPT".to_owned()));

    // An option that a machine does not have is refused, and not passed over.
    for option in [&["--direct"][..], &["--vcpus", "2"], &["--cpu-vendor", "amd"]] {
        let words = [&["measure", image, "--platform", "gcp-c3", "--memory", "16G"], option].concat();
        let outcome = Outcome::of(built.proofmark().args(words));
        assert_eq!(outcome.code, Some(1), "{option:?}: {outcome:?}");
        assert!(outcome.stderr.contains("gcp-c3 takes only a memory size"), "{}", outcome.stderr);
    }
}
