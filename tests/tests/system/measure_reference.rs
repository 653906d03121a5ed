//! Compares `ovmf-measure` with values from other tools and real machines: MRTD, CFV and TD HOB of Debian's firmware,
//! TD HOBs in logs of TDs, Authenticode digests of osslsigncode.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::firmware::{Firmware, Kind};
use ovmf_measure::known::{FIRMWARE, FirmwareFile};
use ovmf_measure::mrtd::{Order, mrtd};
use ovmf_measure::pe::Pe;
use ovmf_measure::td_hob;
use ovmf_measure::volume::Profile;
use rootfs::deb;
use rootfs::path::TreePath;
use serde_json::Value;
use system_tests::inputs;
use system_tests::tool::{find, skipped};

/// Debian packages with firmware, each with the file in it and the image's SHA-256.
const IMAGES: [(&str, &str, &str); 5] = [
    (
        "ovmf_2022.11-6+deb12u2_all.deb",
        "usr/share/ovmf/OVMF.fd",
        "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773",
    ),
    (
        "ovmf_2025.02-8+deb13u1_all.deb",
        "usr/share/ovmf/OVMF.fd",
        "14954040cc754ade0c625ac3470ea46d4c14318b5b1396de4ef77090203d76db",
    ),
    (
        "ovmf-generic_2026.08+ds-2_all.deb",
        "usr/share/ovmf/OVMF.fd",
        "6a3e8f438ad7269f5dfd884647587b88391fb23965bb3aa7902b519438dba129",
    ),
    ("ovmf-inteltdx_2026.08+ds-2_all.deb", "usr/share/ovmf/OVMF.inteltdx.ms.fd", "a265075b"),
    ("ovmf-amdsev_2026.08+ds-2_all.deb", "usr/share/ovmf/OVMF.amdsev.fd", "3e4fd0b3"),
];

/// Firmware images, as many as Debian's mirror still has.
fn images() -> Vec<Vec<u8>> {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("firmware");
    fs::create_dir_all(&kept).unwrap();
    let mut images = Vec::new();
    for (package, path, sha256) in IMAGES {
        let file = kept.join(package);
        if !file.is_file() {
            let url = format!("http://deb.debian.org/debian/pool/main/e/edk2/{package}");
            let part = kept.join(format!("{package}.{}", std::process::id()));
            let got = Command::new("curl").args(["-sf", "--retry", "3", "-o"]).arg(&part).arg(&url).status();
            if !got.is_ok_and(|status| status.success()) {
                eprintln!("SKIPPED: {url} cannot be fetched (any more)");
                continue;
            }
            fs::rename(part, &file).unwrap();
        }
        let image = deb::file(&fs::read(&file).unwrap(), &TreePath::new(path).unwrap()).unwrap().unwrap();
        let found = Algorithm::Sha256.of(&image).to_string();
        assert!(found.starts_with(sha256), "{package}: {found}");
        images.push(image);
    }
    if images.is_empty() {
        skipped("no firmware can be fetched");
    }
    images
}

fn gibibytes(text: &str) -> u64 {
    text.trim_end_matches('G').parse::<u64>().unwrap() << 30
}

#[test]
fn mrtd_cfv_and_td_hobs_of_debians_firmware_are_those_of_five_other_tools() {
    let Some(vectors) = inputs::vectors("") else { return };
    let text = fs::read(vectors.join("debian-ovmf/measurements.json")).unwrap();
    let all: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let mut compared = 0;
    for image in images() {
        let sha256 = Algorithm::Sha256.of(&image).to_string();
        let Some(expected) = all.iter().find(|entry| entry["sha256"] == sha256) else {
            panic!("no vector for {sha256}");
        };
        let firmware = Firmware::read(&image).unwrap();
        assert_eq!(mrtd(&firmware, Order::SinglePass).to_string(), expected["mrtd_single_pass"]);
        assert_eq!(mrtd(&firmware, Order::TwoPass).to_string(), expected["mrtd_two_pass"]);
        let cfv = firmware.data(firmware.section(Kind::Cfv).unwrap());
        assert_eq!(Algorithm::Sha384.of(cfv).to_string(), expected["cfv_sha384"][0]);
        for (memory, digest) in expected["td_hob_sha384"].as_object().unwrap() {
            let list = td_hob::qemu(&firmware, gibibytes(memory)).unwrap();
            assert_eq!(Algorithm::Sha384.of(&list).to_string(), *digest, "{memory}");
            compared += 1;
        }
    }
    eprintln!("{compared} TD HOBs compared");
}

#[test]
fn known_profiles_are_those_of_the_images() {
    let known: FirmwareFile = toml::from_str(FIRMWARE).unwrap();
    for image in images() {
        let sha256 = Algorithm::Sha256.of(&image);
        if let Some(known) = known.find(&sha256) {
            assert_eq!(Profile::read(&image).unwrap(), known.profile, "{}", known.origin);
        }
    }
}

#[test]
fn td_hobs_of_real_machines_are_rebuilt() {
    let Some(vectors) = inputs::vectors("") else { return };
    let image = images().into_iter().find(|image| {
        // Layout of 4 MiB builds up to 2023: one piece of memory at 0x810000.
        Firmware::read(image).unwrap().sections().iter().any(|section| section.address.0 == 0x81_0000)
    });
    let Some(image) = image else { return };
    let firmware = Firmware::read(&image).unwrap();
    // (log, memory): trustee's QEMU machines of 2 and 10 GiB, go-eventlog's of 8 GiB.
    for (log, memory) in [
        ("trustee/CCEL_data_ovmf", 2),
        ("trustee/CCEL_data_grub", 10),
        ("go-eventlog/CCEL_unpadded.data.bin", 8),
    ] {
        let bytes = fs::read(vectors.join(log)).unwrap();
        let list = td_hob::qemu(&firmware, memory << 30).unwrap();
        let digest = Algorithm::Sha384.of(&list);
        let found = bytes.windows(48).any(|window| window == digest.as_bytes());
        assert!(found, "{log} has no digest {digest}");
    }
}

#[test]
fn platforms_of_clouds_read_and_give_the_td_hob_of_their_logs() {
    for (name, text) in ovmf_measure::known::PLATFORMS {
        let file: ovmf_measure::platform::PlatformFile = toml::from_str(text).unwrap();
        assert_eq!(file.name, name);
        let events = file.events(Algorithm::Sha384, 16 << 30).unwrap();
        assert!(events.len() > 10, "{name}");
    }
    let Some(vectors) = inputs::vectors("") else { return };
    let (_, text) = ovmf_measure::known::PLATFORMS[0];
    let file: ovmf_measure::platform::PlatformFile = toml::from_str(text).unwrap();
    let events = file.events(Algorithm::Sha384, 16 << 30).unwrap();
    let ovmf_measure::event::Expected::Exact(digest) = events[0].expected else { panic!("no exact TD HOB") };
    for log in ["go-tdx-guest/ccel_data.dat", "trustee/CCEL_data_gcp", "trustee/CCEL_data_grub_gke"] {
        let bytes = fs::read(vectors.join(log)).unwrap();
        assert!(bytes.windows(48).any(|window| window == digest.as_bytes()), "{log}");
    }
}

#[test]
fn authenticode_is_what_osslsigncode_computes() {
    if find("osslsigncode").is_none() || find("openssl").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-keyout"])
        .arg(at("key"))
        .arg("-out")
        .arg(at("certificate"))
        .output()
        .unwrap();
    assert!(made.status.success());
    for (name, image) in programs() {
        fs::write(at("image"), &image).unwrap();
        let signed = at(&format!("{name}.signed"));
        for hash in ["sha256", "sha384"] {
            let _ = fs::remove_file(&signed);
            let run = Command::new("osslsigncode")
                .args(["sign", "-h", hash, "-certs"])
                .arg(at("certificate"))
                .arg("-key")
                .arg(at("key"))
                .arg("-in")
                .arg(at("image"))
                .arg("-out")
                .arg(&signed)
                .output()
                .unwrap();
            assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
            let verify = Command::new("osslsigncode").arg("verify").arg("-in").arg(&signed).output().unwrap();
            let said = String::from_utf8_lossy(&verify.stdout).into_owned();
            let line = said.lines().find(|line| line.contains("Calculated message digest"));
            let expected = line.unwrap().split_whitespace().next_back().unwrap().to_lowercase();
            let algorithm = if hash == "sha256" { Algorithm::Sha256 } else { Algorithm::Sha384 };
            let bytes = fs::read(&signed).unwrap();
            let pe = Pe::read(&bytes).unwrap();
            let digest: Digest = pe.authenticode(0).unwrap().digests(algorithm)[0];
            assert_eq!(digest.to_string(), expected, "{name} {hash}");
        }
    }
}

/// Programs of this machine, and a UKI of our own.
fn programs() -> Vec<(&'static str, Vec<u8>)> {
    let installed = [
        ("stub", "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"),
        ("boot", "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"),
        ("shim", "/usr/lib/shim/shimx64.efi"),
        ("grub", "/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"),
    ];
    let mut all: Vec<(&str, Vec<u8>)> =
        installed.iter().filter_map(|(name, path)| Some((*name, fs::read(path).ok()?))).collect();
    all.extend(std::env::var_os("PROOFMARK_TEST_UKI").and_then(|path| Some(("uki", fs::read(path).ok()?))));
    if all.is_empty() {
        skipped("no EFI program: apt-get install systemd-boot-efi");
    }
    all
}
