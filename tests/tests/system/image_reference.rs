//! Compares initrd, UKI, signature, ESP and partition table with the tools that others use for them.
//!
//! The tools come from Debian (`cpio dosfstools fdisk gdisk mtools osslsigncode pesign python3 sbsigntool zstd`, and
//! `qemu-system-x86 ovmf` for the boot); systemd-stub, ukify and the kernel are fetched from the current trixie. With
//! `CI=true` a missing tool fails the test; elsewhere the test is skipped with a message.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, which clippy does not see as tests"
)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ovmf_measure::pe::Pe;
use proofmark::image::cpio::{self, Content, Entry};
use proofmark::image::disk::{self, Kind, Layout, Partition, Role, Table};
use proofmark::image::esp::{self, Volume};
use proofmark::image::sign::Signer;
use proofmark::image::uki::{self, Section};
use sha2::{Digest, Sha256};
use system_tests::debian;
use system_tests::tool::{file, find};

const RECIPE: [u8; 32] = [0x5a; 32];
const OS_RELEASE: &[u8] = b"ID=proofmark\nVERSION_ID=1\n";

/// Runs a program to its end.
fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Standard output and error of a run, which must succeed.
fn passes(output: Output) -> String {
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with the files of trixie's current version of a package.
fn trixie(package: &str) -> Option<PathBuf> {
    debian::package(env!("CARGO_TARGET_TMPDIR"), package)
}

/// The stub of trixie's systemd, and a program beside it.
fn stub_and_program() -> Option<(Vec<u8>, Vec<u8>)> {
    let efi = trixie("systemd-boot-efi")?.join("usr/lib/systemd/boot/efi");
    let program = fs::read(efi.join("systemd-bootx64.efi")).unwrap();
    Some((fs::read(efi.join("linuxx64.efi.stub")).unwrap(), program))
}

/// Runs trixie's ukify with its matching pefile.
fn ukify(arguments: &[&str]) -> Option<Output> {
    let program = trixie("systemd-ukify")?.join("usr/bin/ukify");
    let library = trixie("python3-pefile")?.join("usr/lib/python3/dist-packages");
    let python = file(&["/usr/bin/python3"], "python3")?;
    let mut command = Command::new(python);
    command.arg(program).args(arguments).env("PYTHONPATH", library).env("LC_ALL", "C.UTF-8");
    Some(command.stdin(Stdio::null()).output().unwrap())
}

/// A UKI in the order that the build uses.
fn image(stub: &[u8], kernel: &[u8], initrd: &[u8], cmdline: &str) -> Vec<u8> {
    let sbat = uki::merge_sbat(stub, kernel, uki::SBAT_UKI).unwrap();
    let sections = [
        Section { name: ".osrel", content: OS_RELEASE },
        Section { name: ".cmdline", content: cmdline.as_bytes() },
        Section { name: ".uname", content: b"6.12.0-test" },
        Section { name: ".sbat", content: &sbat },
        Section { name: ".initrd", content: initrd },
        Section { name: ".linux", content: kernel },
    ];
    uki::build(stub, &sections).unwrap()
}

fn sample() -> Option<Vec<u8>> {
    let (stub, program) = stub_and_program()?;
    Some(image(&stub, &program, b"not an initrd", "quiet"))
}

#[test]
fn ukify_builds_the_same_bytes() {
    let Some((stub, program)) = stub_and_program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let initrd = vec![0xa5; 100_001];
    let output = folder.path().join("out.efi");
    let arguments = [
        "build".into(),
        format!("--stub={}", file("stub", &stub)),
        format!("--linux={}", file("linux", &program)),
        format!("--initrd={}", file("initrd", &initrd)),
        format!("--os-release=@{}", file("os-release", OS_RELEASE)),
        "--cmdline=root=/dev/dm-0 quiet".into(),
        "--uname=6.12.0-test".into(),
        format!("--output={}", path_text(&output)),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some(built) = ukify(&arguments) else { return };
    passes(built);
    let sbat = uki::merge_sbat(&stub, &program, uki::SBAT_UKI).unwrap();
    let sections = [
        Section { name: ".osrel", content: OS_RELEASE },
        Section { name: ".cmdline", content: b"root=/dev/dm-0 quiet" },
        Section { name: ".uname", content: b"6.12.0-test" },
        Section { name: ".linux", content: &program },
        Section { name: ".initrd", content: &initrd },
        Section { name: ".sbat", content: &sbat },
    ];
    let ours = uki::build(&stub, &sections).unwrap();
    let theirs = fs::read(&output).unwrap();
    let differ = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
    assert_eq!((ours.len(), differ), (theirs.len(), None));
}

#[test]
fn ukify_inspects_every_section() {
    let Some(image) = sample() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.efi");
    fs::write(&path, &image).unwrap();
    let Some(output) = ukify(&["inspect", path_text(&path), "--json=short", "--all"]) else { return };
    let text = passes(output);
    let inspected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let read = Pe::read(&image).unwrap();
    for name in [".osrel", ".cmdline", ".uname", ".sbat", ".initrd", ".linux"] {
        let content = read.extract(name).unwrap();
        assert_eq!(inspected[name]["size"], content.len(), "{name}: {text}");
        assert_eq!(inspected[name]["sha256"], hex::encode(Sha256::digest(content)), "{name}");
    }
}

/// A key and a self-signed certificate of `bits`, as PEM files.
fn key_and_certificate(folder: &Path, bits: u32) -> (PathBuf, PathBuf) {
    let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
    let bits = format!("rsa:{bits}");
    passes(run(
        "openssl",
        [
            "req",
            "-x509",
            "-newkey",
            &bits,
            "-nodes",
            "-subj",
            "/O=Test/CN=Test of Proofmark",
            "-days",
            "36500",
            "-keyout",
            path_text(&key),
            "-out",
            path_text(&certificate),
        ],
    ));
    (key, certificate)
}

#[test]
fn sbverify_and_osslsigncode_accept_a_signature_and_refuse_a_changed_byte() {
    let (Some(sbverify), Some(osslsigncode), Some(_)) =
        (find("sbverify"), find("osslsigncode"), find("openssl"))
    else {
        return;
    };
    let Some(image) = sample() else { return };
    let folder = tempfile::tempdir().unwrap();
    for bits in [2048, 3072, 4096] {
        let (key, certificate) = key_and_certificate(folder.path(), bits);
        let signer = Signer::new(&fs::read(&key).unwrap(), &fs::read(&certificate).unwrap()).unwrap();
        for trailing in [0, 3] {
            let mut image = image.clone();
            image.resize(image.len() + trailing, 7);
            let signed = signer.sign(image).unwrap();
            let path = folder.path().join("signed.efi");
            let verify = |bytes: &[u8]| {
                fs::write(&path, bytes).unwrap();
                let certificate = path_text(&certificate);
                let sbverify = run(&sbverify, ["--cert", certificate, path_text(&path)]);
                let arguments = ["verify", "-CAfile", certificate, "-in", path_text(&path)];
                (sbverify, run(&osslsigncode, arguments))
            };
            let (by_sbverify, by_osslsigncode) = verify(&signed);
            assert!(passes(by_sbverify).contains("Signature verification OK"));
            assert!(passes(by_osslsigncode).contains("Signature verification: ok"));
            let list = passes(run(&sbverify, ["--list", path_text(&path)]));
            assert!(list.contains("signature 1") && list.contains("Test of Proofmark"), "{list}");
            let mut changed = signed;
            changed[5000] ^= 1;
            let (by_sbverify, by_osslsigncode) = verify(&changed);
            assert!(!by_sbverify.status.success() && !by_osslsigncode.status.success());
        }
    }
}

#[test]
fn pesign_gives_the_same_authenticode_digest() {
    let Some(pesign) = find("pesign") else { return };
    let Some((stub, program)) = stub_and_program() else { return };
    let folder = tempfile::tempdir().unwrap();
    for image in [image(&stub, &program, b"initrd", "quiet"), stub, program] {
        let path = folder.path().join("image.efi");
        fs::write(&path, &image).unwrap();
        let digest = hex::encode(Pe::read(&image).unwrap().authenticode_digest::<Sha256>().unwrap());
        let text = passes(run(&pesign, ["-h", "-i", path_text(&path)]));
        assert!(text.contains(&digest), "{digest}: {text}");
    }
}

#[test]
fn a_signature_by_sbsign_leaves_our_digest_as_it_is() {
    let (Some(sbsign), Some(_)) = (find("sbsign"), find("openssl")) else { return };
    let Some(image) = sample() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = key_and_certificate(folder.path(), 2048);
    let (plain, signed) = (folder.path().join("plain.efi"), folder.path().join("signed.efi"));
    fs::write(&plain, &image).unwrap();
    let (key, certificate) = (path_text(&key), path_text(&certificate));
    let arguments = ["--key", key, "--cert", certificate, "--output", path_text(&signed), path_text(&plain)];
    passes(run(sbsign, arguments));
    let signed = fs::read(&signed).unwrap();
    let read = Pe::read(&signed).unwrap();
    assert!(!read.certificates().is_empty());
    let digest = read.authenticode_digest::<Sha256>().unwrap();
    assert_eq!(digest, Pe::read(&image).unwrap().authenticode_digest::<Sha256>().unwrap());
    // sbsign's signature contains the digest, too.
    assert!(read.certificates().windows(32).any(|window| window == digest.as_slice()));
}

fn volume() -> Volume {
    Volume { id: disk::volume_id(&RECIPE), label: *b"ESP        " }
}

#[test]
fn fsck_finds_nothing_and_mtools_read_every_file() {
    let (Some(fsck), Some(mdir), Some(mtype)) = (find("fsck.vfat"), find("mdir"), find("mtype")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("esp.img");
    for length in [0, 12_345_678, 40 << 20, 270 << 20] {
        let uki: Vec<u8> = (0..length).map(|index: u32| (index / 512) as u8).collect();
        let files = [
            esp::File { path: esp::BOOT_PATH, content: &uki },
            esp::File { path: "loader/A file of a long name.conf", content: b"text\n" },
        ];
        let image = esp::build(&files, volume()).unwrap();
        fs::write(&path, &image).unwrap();
        let report = passes(run(&fsck, ["-n", "-v", path_text(&path)]));
        for complaint in ["Free cluster", "differ", "wrong", "Dirty", "not valid", "Leaving"] {
            assert!(!report.contains(complaint), "{report}");
        }
        assert!(report.contains("32 bit entries"), "{report}");
        let listing = passes(run(&mdir, ["-i", path_text(&path), "-/", "-a", "::"]));
        assert!(listing.contains("BOOTX64") && listing.contains("1980-01-01"), "{listing}");
        assert!(listing.contains("A file of a long name.conf"), "{listing}");
        for file in files {
            let output = run(&mtype, ["-i", path_text(&path), &format!("::{}", file.path)]);
            assert!(output.status.success() && output.stdout == file.content, "{}", file.path);
        }
    }
}

fn layout(esp: u64, root: u64, tree: u64) -> Layout {
    let partition = |kind, bytes| Partition { kind, guid: disk::guid(&RECIPE, Role::Partition(kind)), bytes };
    let partitions =
        [partition(Kind::Esp, esp), partition(Kind::Root, root), partition(Kind::RootVerity, tree)];
    Layout::new(disk::guid(&RECIPE, Role::Disk), &partitions).unwrap()
}

/// Writes a sparse disk that holds only its tables.
fn write_tables(layout: &Layout, path: &Path) -> File {
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    file.set_len(layout.bytes()).unwrap();
    file.write_all(&layout.head()).unwrap();
    file.seek(SeekFrom::Start(layout.tail_offset())).unwrap();
    file.write_all(&layout.tail()).unwrap();
    file
}

#[test]
fn sgdisk_and_sfdisk_find_no_problem_and_the_same_table() {
    let (Some(sgdisk), Some(sfdisk)) = (find("sgdisk"), find("sfdisk")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    let layout = layout(34 << 20, (100 << 20) + 4096, 1_000_000);
    let mut file = write_tables(&layout, &path);
    let report = passes(run(&sgdisk, ["-v", path_text(&path)]));
    assert!(report.contains("No problems found"), "{report}");
    let report = passes(run(&sfdisk, ["--verify", path_text(&path)]));
    assert!(report.contains("No errors detected"), "{report}");
    let dump: serde_json::Value =
        serde_json::from_slice(&run(&sfdisk, ["-J", path_text(&path)]).stdout).unwrap();
    let table = &dump["partitiontable"];
    let upper = |guid: &dyn ToString| guid.to_string().to_uppercase();
    assert_eq!((&table["label"], &table["id"]), (&"gpt".into(), &upper(&layout.disk()).into()));
    let attributes = ["GUID:63", "GUID:60", "GUID:60"];
    for (index, placed) in layout.partitions().iter().enumerate() {
        let row = &table["partitions"][index];
        assert_eq!(row["start"], placed.first.0);
        assert_eq!(row["size"], placed.last.0 - placed.first.0 + 1);
        assert_eq!(row["type"], upper(&placed.partition.kind.type_guid()));
        assert_eq!(row["uuid"], upper(&placed.partition.guid));
        assert_eq!(row["name"], placed.partition.kind.name());
        assert_eq!(row["attrs"], attributes[index]);
    }
    // The reader accepts another tool's tables: sgdisk rewrites both, with its own protective MBR.
    passes(run(&sgdisk, ["-c", "2:renamed", path_text(&path)]));
    let mut head = vec![0; disk::HEAD];
    file.rewind().unwrap();
    file.read_exact(&mut head).unwrap();
    let read = Table::read(&head, layout.bytes()).unwrap();
    assert_eq!((read.entries[1].name.as_str(), read.entries.len()), ("renamed", 3));
    let mut tail = vec![0; disk::TAIL];
    file.seek(SeekFrom::Start(layout.tail_offset())).unwrap();
    file.read_exact(&mut tail).unwrap();
    assert_eq!(Table::read_backup(&tail, layout.bytes()).unwrap(), read);
}

fn initrd_entries(init: &[u8]) -> [Entry<'_>; 5] {
    [
        Entry { path: "dev", mode: 0o755, content: Content::Directory },
        Entry { path: "dev/console", mode: 0o600, content: Content::CharacterDevice { major: 5, minor: 1 } },
        Entry { path: "usr", mode: 0o755, content: Content::Directory },
        Entry { path: "bin", mode: 0o777, content: Content::Symlink("usr/bin") },
        Entry { path: "init", mode: 0o755, content: Content::File(init) },
    ]
}

#[test]
fn gnu_cpio_lists_and_zstd_unpacks_the_initrd() {
    let (Some(_), Some(_), Some(_)) = (find("cpio"), find("zstd"), find("sh")) else { return };
    let mut archive = Vec::new();
    cpio::write(&initrd_entries(b"#!/bin/sh\n"), &mut archive).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("initrd.zst");
    fs::write(&path, cpio::compress(&archive, 19).unwrap()).unwrap();
    let script = format!(
        "set -e; cd {0}; zstd -dcq initrd.zst > initrd; cpio -tvn --quiet < initrd",
        path_text(folder.path())
    );
    let listing = passes(run("sh", ["-c", &script]));
    let rows: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
    let modes: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(modes, ["drwxr-xr-x", "crw-------", "drwxr-xr-x", "lrwxrwxrwx", "-rwxr-xr-x"], "{listing}");
    assert!(rows.iter().all(|row| row[2..4] == ["0", "0"]), "{listing}");
    let script = format!(
        "set -e; cd {0}; mkdir x; cd x; cpio -i --quiet ../x/init < ../initrd 2>&1; cpio -iu --quiet init bin < ../initrd",
        path_text(folder.path())
    );
    passes(run("sh", ["-c", &script]));
    assert_eq!(fs::read(folder.path().join("x/init")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::read_link(folder.path().join("x/bin")).unwrap(), Path::new("usr/bin"));
}

/// The kernel of trixie's cloud flavour.
fn cloud_kernel() -> Option<Vec<u8>> {
    let apt = debian::apt(env!("CARGO_TARGET_TMPDIR"))?;
    let boot = trixie(&apt.dependency("linux-image-cloud-amd64").unwrap())?.join("boot");
    let entries = fs::read_dir(boot).unwrap().map(|entry| entry.unwrap().path());
    let kernel = entries.into_iter().find(|path| path_text(path).contains("/vmlinuz-")).unwrap();
    Some(fs::read(kernel).unwrap())
}

/// What the initrd's program writes to the console.
const SAYS: &str = "The initrd of the test runs.";

/// An ELF that writes [`SAYS`] to its standard output and powers off.
fn init() -> Vec<u8> {
    let code_start: u64 = 0x40_0000 + 0x78;
    let mut code: Vec<u8> = Vec::new();
    // write(1, text, length)
    code.extend([0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xbe]);
    let text_at = code.len();
    code.extend([0; 4]);
    code.push(0xba);
    code.extend((SAYS.len() as u32 + 1).to_le_bytes());
    code.extend([0x0f, 0x05]);
    // reboot(0xfee1dead, 0x28121969, 0x4321fedc)
    code.extend([0xb8, 169, 0, 0, 0, 0xbf, 0xad, 0xde, 0xe1, 0xfe, 0xbe, 0x69, 0x19, 0x12, 0x28]);
    code.extend([0xba, 0xdc, 0xfe, 0x21, 0x43, 0x0f, 0x05, 0xeb, 0xfe]);
    let text = code_start as u32 + code.len() as u32;
    code[text_at..text_at + 4].copy_from_slice(&text.to_le_bytes());
    code.extend(SAYS.as_bytes());
    code.push(b'\n');
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    elf.extend(code_start.to_le_bytes());
    elf.extend(64u64.to_le_bytes());
    elf.extend([0; 12]);
    elf.extend([64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let length = 0x78 + code.len() as u64;
    for value in [0, 0x40_0000, 0x40_0000, length, length, 0x1000u64] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// Boots a disk and returns its console's text until it shows `last`, the machine ends, or 90 s pass.
fn boot(qemu: &Path, disk: &Path, code: &Path, variables: &Path, last: &str) -> String {
    let log = disk.with_extension("log");
    let mut command = Command::new(qemu);
    // Without CMPXCHG16B, which returned broken flags about once in some hundred boots.
    command.args(["-cpu", "qemu64,-cx16"]);
    command.args(["-accel", "tcg", "-machine", "q35,smm=on", "-m", "512", "-display", "none"]);
    command.args([
        "-global",
        "driver=cfi.pflash01,property=secure,value=on",
        "-no-reboot",
        "-nic",
        "none",
        "-snapshot",
    ]);
    command.args(["-serial", &format!("file:{}", path_text(&log))]);
    command.args(["-drive", &format!("file={},format=raw,if=virtio", path_text(disk))]);
    command.args(["-drive", &format!("file={},if=pflash,format=raw,readonly=on", path_text(code))]);
    command.args(["-drive", &format!("file={},if=pflash,format=raw", path_text(variables))]);
    let mut machine = command.stdin(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(90);
    while Instant::now() < end && machine.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(200));
        if fs::read(&log).is_ok_and(|said| String::from_utf8_lossy(&said).contains(last)) {
            break;
        }
    }
    let _ = machine.kill();
    machine.wait().unwrap();
    String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned()
}

/// A whole disk that we make around trixie's stub and kernel.
fn bootable_disk(path: &Path, image: &[u8]) {
    let esp = esp::build(&[esp::File { path: esp::BOOT_PATH, content: image }], volume()).unwrap();
    let layout = layout(esp.len() as u64, 4096, 4096);
    let mut file = write_tables(&layout, path);
    file.seek(SeekFrom::Start(layout.partitions()[0].first.offset())).unwrap();
    file.write_all(&esp).unwrap();
}

fn bootable_image() -> Option<Vec<u8>> {
    let (stub, _) = stub_and_program()?;
    let kernel = cloud_kernel()?;
    let mut archive = Vec::new();
    cpio::write(&initrd_entries(&init()), &mut archive).unwrap();
    let initrd = cpio::compress(&archive, 19).unwrap();
    Some(image(&stub, &kernel, &initrd, "console=ttyS0 panic=-1"))
}

/// A firmware file of Debian's ovmf.
fn firmware(name: &str) -> Option<PathBuf> {
    file(&[&format!("/usr/share/OVMF/{name}")], "ovmf")
}

#[test]
#[ignore = "boots a machine, half a minute without KVM"]
fn ovmf_boots_the_disk_up_to_the_initrds_program() {
    let Some(qemu) = find("qemu-system-x86_64") else { return };
    let (Some(code), Some(variables)) = (firmware("OVMF_CODE_4M.secboot.fd"), firmware("OVMF_VARS_4M.fd"))
    else {
        return;
    };
    let Some(image) = bootable_image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    bootable_disk(&disk, &image);
    let start = Instant::now();
    let said = boot(&qemu, &disk, &code, &variables, SAYS);
    eprintln!("{:.1} s\n{said}", start.elapsed().as_secs_f64());
    assert!(said.contains("Linux version") && said.contains(SAYS), "{said}");
}

#[test]
#[ignore = "boots three machines, a minute and a half without KVM"]
fn ovmf_with_secure_boot_boots_the_signed_image_only() {
    let (Some(qemu), Some(_)) = (find("qemu-system-x86_64"), find("openssl")) else { return };
    let (Some(code), Some(variables)) =
        (firmware("OVMF_CODE_4M.secboot.fd"), firmware("OVMF_VARS_4M.snakeoil.fd"))
    else {
        return;
    };
    // The key that Debian enrolled in these variables and published.
    let (Some(key), Some(certificate)) =
        (firmware("../ovmf/PkKek-1-snakeoil.key"), firmware("../ovmf/PkKek-1-snakeoil.pem"))
    else {
        return;
    };
    let Some(image) = bootable_image() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plain_key = folder.path().join("key.pem");
    let arguments = [
        "pkcs8",
        "-topk8",
        "-nocrypt",
        "-passin",
        "pass:snakeoil",
        "-in",
        path_text(&key),
        "-out",
        path_text(&plain_key),
    ];
    passes(run("openssl", arguments));
    let signer = Signer::new(&fs::read(&plain_key).unwrap(), &fs::read(&certificate).unwrap()).unwrap();
    let signed = signer.sign(image.clone()).unwrap();
    let mut changed = signed.clone();
    let cmdline = changed.windows(13).position(|window| window == b"console=ttyS0").unwrap();
    changed[cmdline + 12] = b'1';
    let disk = folder.path().join("disk.raw");
    for (image, expected) in [(&signed, SAYS), (&image, "Access Denied"), (&changed, "Access Denied")] {
        bootable_disk(&disk, image);
        let said = boot(&qemu, &disk, &code, &variables, expected);
        assert!(said.contains(expected), "{expected}: {said}");
        assert_eq!(said.contains("Linux version"), expected == SAYS, "{said}");
    }
}
