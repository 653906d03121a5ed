//! Compares what a machine with a TPM measures of our image with the prediction: event by event, with none left over.
//!
//! # Shape
//! ```text
//! recipes/minimal, built ─ its initrd replaced by one that prints ─> disk
//! QEMU (TCG) + OVMF + swtpm, with `proofmark run`'s arguments:  /sys/kernel/security/tpm0/binary_bios_measurements,
//!                                                               /sys/class/tpm/tpm0/pcr-sha{256,384}/N ─> serial port
//! ovmf_measure::boot, from firmware, machine and disk           ─> the same events, the same registers
//! ```
//! What changes between two boots is patched into the finished disk, so everything else stays what the build wrote.
//! OVMF is trixie's, which measures the most (ACPI too); the installed one is booted once as well.
//!
//! # Not here
//! TDX's registers, which come from the same list of events. Whether the image's own init works: `boot`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::num::{NonZeroU8, NonZeroU16};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ovmf_measure::acpi::{self, Qemu};
use ovmf_measure::boot::{self, Code};
use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::event::{Expected, PlatformRule, Register};
use ovmf_measure::firmware::Firmware;
use ovmf_measure::log::Log;
use ovmf_measure::pe::Pe;
use ovmf_measure::reference::{Platform, RegisterKind};
use ovmf_measure::replay::{Derivation, derive, replay};
use ovmf_measure::shape::{self, Before, Hashed, Name, Start};
use ovmf_measure::stub::{self, Uki};
use ovmf_measure::variable::{IMAGE_SECURITY, Store};
use ovmf_measure::volume::Profile;
use proofmark::host::machine::{self, Accelerator, End, Environment, Memory, Request, Tpm};
use proofmark::image::cpio;
use proofmark::image::disk::{HEAD, Layout, Partition, Role, TAIL, Table, guid};
use proofmark::image::esp::{self, Esp};
use proofmark::image::sign::Signer;
use proofmark::image::uki;
use serde_json::Value;
use system_tests::debian;
use system_tests::inputs::Inputs;
use system_tests::tool::{find, skipped};

/// Time limit for a machine, on a busy computer.
const LIMIT: Duration = Duration::from_secs(300);
const BANKS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha384];
/// The kernel's own: IMA extends it as the system starts, and the firmware's logs do not contain it.
const IMA: u8 = 10;
/// Registers that hold all ones until a late launch resets them.
const LATE_LAUNCH: Range<u8> = 17..23;
const LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// A build of OVMF: code, and the variables it ships with.
struct Ovmf {
    code: PathBuf,
    variables: PathBuf,
}

impl Ovmf {
    /// The files of a package below `root`: for instance `_4M.secboot`, and the variables that go with it.
    fn of(root: &Path, code: &str, variables: &str) -> Self {
        let folder = root.join("usr/share/OVMF");
        let file = |kind: &str, name: &str| folder.join(format!("OVMF_{kind}{name}.fd"));
        Ovmf { code: file("CODE", code), variables: file("VARS", variables) }
    }

    /// Variables and code as they lie in memory, one after the other.
    fn image(&self) -> Vec<u8> {
        [fs::read(&self.variables).unwrap(), fs::read(&self.code).unwrap()].concat()
    }
}

/// A folder for one test, and what it boots with.
struct Bench {
    folder: tempfile::TempDir,
    qemu: PathBuf,
    version: String,
    trixie: PathBuf,
    environment: Environment,
    image: Disk,
}

impl Bench {
    /// Makes it; `None`, with a loud message, when a program or the firmware is missing outside CI.
    fn new() -> Option<Self> {
        let environment = Environment::of_this_process();
        let qemu = find(machine::QEMU)?;
        find(machine::SWTPM)?;
        let told = Command::new(&qemu).arg("--version").output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let version = told.split_whitespace().nth(3).unwrap().to_owned();
        let known: Result<Qemu, acpi::Error> = version.parse();
        if let Err(error) = known {
            skipped(&error.to_string());
            return None;
        }
        let shared = env!("CARGO_TARGET_TMPDIR");
        let trixie = debian::package(shared, "ovmf")?;
        let folder = tempfile::Builder::new().prefix("measured").tempdir_in(shared).unwrap();
        let image = Disk::built(folder.path());
        Some(Bench { folder, qemu, version, trixie, environment, image })
    }

    fn plain(&self) -> Ovmf {
        Ovmf::of(&self.trixie, "_4M", "_4M")
    }
}

/// The init of the test's initrd.
fn init(folder: &Path) -> Vec<u8> {
    let program = folder.join("init");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/measured_boot/init.rs");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    rustc.args(["--edition=2024", "--crate-type=bin", "--target=x86_64-unknown-linux-gnu"]);
    rustc.args(["-Cpanic=abort", "-Copt-level=s", "-Cstrip=symbols", "-Crelocation-model=static"]);
    rustc.args(["-Clinker=rust-lld", "-Clinker-flavor=ld.lld", "-Clink-arg=-nostdlib", "-o"]);
    let done = rustc.arg(&program).arg(source).stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    fs::read(program).unwrap()
}

/// One of our disks, in memory.
#[derive(Clone)]
struct Disk {
    bytes: Vec<u8>,
    /// The range of its UKI.
    uki: Range<usize>,
}

impl Disk {
    /// The image of `recipes/minimal`, with an initrd that prints what was measured.
    fn built(folder: &Path) -> Self {
        let out = Inputs::minimal().image("release");
        let bytes = fs::read(out.join("disk.raw")).unwrap();
        let uki = fs::read(out.join("image.efi")).unwrap();
        let manifest: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
        let partitions = manifest["disk"]["partitions"].as_array().unwrap();
        let esp = partitions.iter().find(|one| one["name"] == "esp").unwrap();
        let esp = usize::try_from(esp["first_lba"].as_u64().unwrap()).unwrap() * 512;
        let at = (esp..bytes.len()).step_by(512).find(|&at| bytes[at..].starts_with(&uki)).unwrap();
        let mut disk = Disk { bytes, uki: at..at + uki.len() };
        disk.exchange_initrd(&init(folder), "the first");
        disk
    }

    /// The range of a UKI section on the disk.
    fn section(&self, name: &str) -> Range<usize> {
        let pe = Pe::read(&self.bytes[self.uki.clone()]).unwrap();
        let trimmed = |section: &&ovmf_measure::pe::Section| section.name.is(name);
        let section = pe.sections().iter().find(trimmed).unwrap();
        let start = self.uki.start + section.file_offset as usize;
        start..start + section.memory_size as usize
    }

    /// Replaces the initrd; the kernel skips the zeros behind it.
    fn exchange_initrd(&mut self, init: &[u8], note: &str) {
        let entries = [
            cpio::Entry { path: "init", mode: 0o755, content: cpio::Content::File(init) },
            cpio::Entry { path: "note", mode: 0o644, content: cpio::Content::File(note.as_bytes()) },
        ];
        let mut archive = Vec::new();
        cpio::write(&entries, &mut archive).unwrap();
        let place = self.section(".initrd");
        assert!(archive.len() <= place.len());
        archive.resize(place.len(), 0);
        self.bytes[place].copy_from_slice(&archive);
    }

    /// Replaces text that a section contains once by text of equal length.
    fn exchange(&mut self, section: &str, from: &str, to: &str) {
        assert_eq!(from.len(), to.len());
        let place = self.section(section);
        let found: Vec<usize> =
            place.clone().filter(|&at| self.bytes[at..place.end].starts_with(from.as_bytes())).collect();
        let [at] = found[..] else { panic!("{section} has {from:?} {} times", found.len()) };
        self.bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }

    fn table(&self) -> Table {
        Table::read(&self.bytes[..HEAD], self.bytes.len() as u64).unwrap()
    }

    /// Gives the disk another GUID, in both tables.
    fn rename(&mut self) {
        let table = self.table();
        let partition = |entry: &proofmark::image::disk::Entry| Partition {
            kind: entry.kind().unwrap(),
            guid: entry.guid,
            bytes: entry.bytes(),
        };
        let partitions: Vec<Partition> = table.entries.iter().map(partition).collect();
        let same = Layout::new(table.disk, &partitions).unwrap();
        assert_eq!(same.head()[..], self.bytes[..HEAD]);
        let other = Layout::new(guid(&[7; 32], Role::Disk), &partitions).unwrap();
        self.bytes[..HEAD].copy_from_slice(&other.head());
        let tail = self.bytes.len() - TAIL;
        self.bytes[tail..].copy_from_slice(&other.tail());
    }

    /// Signs the UKI, and rewrites the ESP with it.
    fn sign(&mut self, signer: &Signer) {
        let signed = signer.sign(self.bytes[self.uki.clone()].to_vec()).unwrap();
        self.replace(&signed);
    }

    /// Moves the UKI's sections, and these, to another stub; `false`, with a loud message, when a program is missing.
    fn exchange_stub(&mut self, stub: &[u8], more: &[(&str, &[u8])]) -> bool {
        let names = [".osrel", ".cmdline", ".initrd", ".uname", ".linux"];
        let mut parts: Vec<(&str, Vec<u8>)> =
            names.iter().map(|name| (*name, self.bytes[self.section(name)].to_vec())).collect();
        parts.extend(more.iter().map(|(name, content)| (*name, content.to_vec())));
        let sections: Vec<uki::Section<'_>> =
            parts.iter().map(|(name, content)| uki::Section { name, content }).collect();
        let made = match uki::build(stub, &sections) {
            Ok(made) => made,
            // Version 252 has sections that are not aligned, which only binutils extends.
            Err(uki::Error::Stub(_)) => {
                let Some(made) = extended(stub, &sections) else { return false };
                made
            }
            Err(error) => panic!("{error}"),
        };
        self.replace(&made);
        true
    }

    /// Rewrites the ESP with another UKI.
    fn replace(&mut self, signed: &[u8]) {
        let table = self.table();
        let esp = table
            .entries
            .iter()
            .find(|entry| entry.kind() == Some(proofmark::image::disk::Kind::Esp))
            .unwrap();
        let volume = esp::Volume { id: 1, label: *b"ESP        " };
        let files = [esp::File { path: esp::BOOT_PATH, content: signed }];
        let made = Esp::new(&files, volume).unwrap();
        assert!(made.bytes() <= esp.bytes());
        let mut bytes = Vec::new();
        made.write(&mut bytes).unwrap();
        let start = usize::try_from(esp.first.offset()).unwrap();
        self.bytes[start..start + bytes.len()].copy_from_slice(&bytes);
        let at = (start..).step_by(512).find(|&at| self.bytes[at..].starts_with(signed)).unwrap();
        self.uki = at..at + signed.len();
    }
}

/// Adds sections to a stub with objcopy, as its manual page says.
fn extended(stub: &[u8], sections: &[uki::Section<'_>]) -> Option<Vec<u8>> {
    let objcopy = find("objcopy")?;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name.trim_start_matches('.'));
    let mut command = Command::new(objcopy);
    let mut address = 0x10_0000;
    for section in sections {
        fs::write(path(section.name), section.content).unwrap();
        let name = section.name;
        command.arg(format!("--add-section={name}={}", path(name).display()));
        command.arg(format!("--set-section-flags={name}=data,alloc,load,readonly"));
        command.arg(format!("--change-section-vma={name}={address:#x}"));
        address += section.content.len().next_multiple_of(0x1_0000);
    }
    fs::write(path("stub"), stub).unwrap();
    let done = command.args([path("stub"), path("image")]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(fs::read(path("image")).unwrap())
}

/// A machine to boot.
#[derive(Clone, Copy)]
struct Shape {
    vcpus: u16,
    mebibytes: u64,
    /// Disks other than the boot disk.
    drives: u8,
    start: Start,
}

const SMALL: Shape = Shape { vcpus: 1, mebibytes: 512, drives: 0, start: Start::Disk };

/// What a boot reported about its measurements.
struct Told {
    log: Log,
    registers: BTreeMap<(Algorithm, u8), Digest>,
}

impl Told {
    fn read(console: &str) -> Self {
        let mut files = BTreeMap::new();
        let mut lines = console.lines().map(str::trim_end);
        while let Some(line) = lines.next() {
            let Some((_, path)) = line.split_once("FILE /") else { continue };
            let hex: String = lines.by_ref().take_while(|line| *line != "END").collect();
            files.insert(
                format!("/{path}"),
                hex::decode(&hex).unwrap_or_else(|error| panic!("{path}: {error}")),
            );
        }
        let log = files.get(LOG).unwrap_or_else(|| panic!("no log on the console\n{console}"));
        let log = Log::read(log, RegisterKind::Tpm).unwrap();
        let mut registers = BTreeMap::new();
        for (bank, name) in BANKS.into_iter().zip(["256", "384"]) {
            for index in 0..24 {
                let value = &files[&format!("/sys/class/tpm/tpm0/pcr-sha{name}/{index}")];
                let value = String::from_utf8(value.clone()).unwrap().trim().to_lowercase();
                registers.insert((bank, index), value.parse().unwrap());
            }
        }
        Told { log, registers }
    }
}

impl Bench {
    fn boot(&self, ovmf: &Ovmf, disk: &Disk, shape: Shape) -> Told {
        let begun = Instant::now();
        let path = self.folder.path().join("disk.raw");
        fs::write(&path, &disk.bytes).unwrap();
        let drive = |number| {
            let path = self.folder.path().join(format!("drive{number}"));
            File::create(&path).unwrap().set_len(1 << 20).unwrap();
            path
        };
        let kernel = self.folder.path().join("image.efi");
        fs::write(&kernel, &disk.bytes[disk.uki.clone()]).unwrap();
        let request = Request {
            accelerator: Accelerator::Tcg,
            vcpus: NonZeroU16::new(shape.vcpus).unwrap(),
            memory: format!("{}M", shape.mebibytes).parse::<Memory>().unwrap(),
            firmware: machine::Firmware { code: ovmf.code.clone(), variables: Some(ovmf.variables.clone()) },
            disk: path,
            kernel: (shape.start == Start::Kernel).then_some(kernel),
            drives: (0..shape.drives).map(drive).collect(),
            forwards: Vec::new(),
            credentials: Vec::new(),
            tpm: Tpm::Emulated,
        };
        let console = self.folder.path().join("console");
        let sink = Box::new(File::create(&console).unwrap());
        let mut machine =
            machine::Machine::start(&self.qemu, &request, &self.environment, vec![sink]).unwrap();
        let said = || String::from_utf8_lossy(&fs::read(&console).unwrap()).into_owned();
        let end = loop {
            if let Some(end) = machine.end().unwrap() {
                break end;
            }
            assert!(begun.elapsed() < LIMIT, "no end\n{}", said());
            thread::sleep(Duration::from_millis(50));
        };
        machine.console().finish().unwrap();
        assert_eq!(end, End::PoweredOff, "{}", said());
        eprintln!("booted in {:.1} s", begun.elapsed().as_secs_f64());
        Told::read(&said())
    }

    fn predict(&self, ovmf: &Ovmf, disk: &Disk, shape: Shape, bank: Algorithm) -> Platform {
        self.reference(ovmf, disk, shape, bank).unwrap()
    }

    /// The prediction for one bank.
    fn reference(
        &self,
        ovmf: &Ovmf,
        disk: &Disk,
        shape: Shape,
        bank: Algorithm,
    ) -> Result<Platform, shape::Error> {
        let image = ovmf.image();
        // bookworm's 4 MiB builds contain nothing about TDX.
        let firmware = Firmware::read_for(&image, false).unwrap();
        let profile = Profile::read(&image).unwrap();
        let variables = fs::read(&ovmf.variables).unwrap();
        let code = Code::read(bank, &profile, &firmware, Some(&variables), &[]).unwrap();
        let hashed =
            Hashed { firmware: &firmware, code: &code, sha256: Algorithm::Sha256.of(&image), mrtd: &[] };
        let machine = shape::Shape {
            memory: shape.mebibytes << 20,
            vcpus: NonZeroU16::new(shape.vcpus).unwrap(),
            qemu: self.version.clone(),
            start: shape.start,
            // Disk, network, entropy source.
            devices: NonZeroU8::new(3 + shape.drives).unwrap(),
            // What TCG emulates.
            ..shape::Shape::usual(Name::QemuTpm)
        };
        let uki = &disk.bytes[disk.uki.clone()];
        let image = boot::Plan::read(uki, Some(&disk.bytes[..HEAD])).unwrap().hash(bank).unwrap();
        shape::reference(Name::QemuTpm, &machine, &Before::Firmware(hashed), &image)
    }
}

/// Asserts that every event of the log is the next predicted one, that none is left over, and that the registers are
/// what both lead to. Returns the subjects whose values the platform gives.
fn agree(told: &Told, predicted: &Platform, bank: Algorithm) -> Vec<String> {
    let mut given = Vec::new();
    let mut entries = told.log.entries.iter().filter(|entry| entry.is_extended()).enumerate().peekable();
    for event in &predicted.events {
        let at_most = match event.expected {
            Expected::PlatformGiven(PlatformRule::FromData { at_most }) => at_most,
            _ => 1,
        };
        for number in 0..at_most {
            let fits = |entry: &ovmf_measure::log::Entry| {
                (entry.index, entry.kind) == (u32::from(event.pcr), event.kind)
            };
            let Some((place, entry)) = entries.next_if(|(_, entry)| fits(entry)) else {
                assert!(number > 0, "{bank:?}: {event:?} is not next: {:?}", entries.peek());
                break;
            };
            let digest = entry.digest(bank).unwrap();
            match &event.expected {
                Expected::Exact(expected) => {
                    assert_eq!(digest, expected, "{bank:?}: event {place}: {}", event.subject);
                }
                Expected::PlatformGiven(PlatformRule::FromData { .. }) => {
                    let derived = derive(entry, bank);
                    assert!(
                        matches!(derived, Derivation::Derived(_)),
                        "event {place}: {}: {derived:?}",
                        event.subject
                    );
                    given.push(event.subject.clone());
                }
                Expected::PlatformGiven(_) => given.push(event.subject.clone()),
            }
        }
    }
    assert_eq!(entries.next(), None, "{bank:?}: an event more than predicted");

    // The TPM holds what the log leads to: only the kernel's own extends are missing from the log.
    let replayed = replay(&told.log, bank).unwrap();
    for index in (0..24).filter(|&index| index != IMA) {
        let idle = if LATE_LAUNCH.contains(&index) { all_ones(bank) } else { bank.zero() };
        let expected = replayed.get(&Register::Pcr(index)).copied().unwrap_or(idle);
        assert_eq!(told.registers[&(bank, index)], expected, "{bank:?}: PCR {index}");
    }
    for (register, value) in &predicted.registers {
        let Register::Pcr(index) = *register else { panic!("{register} of a TPM") };
        assert_eq!(told.registers[&(bank, index)], *value, "{bank:?}: PCR {index}");
    }
    // PCR 0 holds code that changed itself before it was measured. Registers without a predicted event have no value.
    let open = |index: &u8| {
        let mut events = predicted.events.iter().filter(|event| event.pcr == *index);
        events.any(|event| matches!(event.expected, Expected::PlatformGiven(_)))
    };
    let known = [1, 2, 3, 4, 5, 6, 7, 9, 11].into_iter().filter(|index| !open(index));
    assert!(known.map(Register::Pcr).eq(predicted.registers.keys().copied()), "{:?}", predicted.registers);
    given
}

fn all_ones(bank: Algorithm) -> Digest {
    match bank {
        Algorithm::Sha256 => Digest::Sha256([0xff; 32]),
        Algorithm::Sha384 => Digest::Sha384([0xff; 48]),
    }
}

/// Boots, and asserts the prediction in both banks; only the firmware's own code may be left to the platform.
fn boots_as_predicted(bench: &Bench, ovmf: &Ovmf, disk: &Disk, shape: Shape) -> Told {
    boots_but_for(bench, ovmf, disk, shape, &["PEIFV"])
}

/// The same, where these events may be left to the platform.
fn boots_but_for(bench: &Bench, ovmf: &Ovmf, disk: &Disk, shape: Shape, platform: &[&str]) -> Told {
    let told = bench.boot(ovmf, disk, shape);
    for bank in BANKS {
        let mut given = agree(&told, &bench.predict(ovmf, disk, shape, bank), bank);
        given.dedup();
        assert_eq!(given, platform, "the platform gives something else");
    }
    let extended = told.log.entries.iter().filter(|entry| entry.is_extended()).count();
    eprintln!("{extended} events, each as predicted");
    told
}

/// The predicted registers whose values differ.
fn moved(bench: &Bench, ovmf: &Ovmf, before: (&Disk, Shape), after: (&Disk, Shape)) -> BTreeSet<u8> {
    let bank = Algorithm::Sha384;
    let values = |(disk, shape)| bench.predict(ovmf, disk, shape, bank).registers;
    let (before, after) = (values(before), values(after));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let differing = before.iter().filter(|(register, value)| after[register] != **value);
    let index = |register: &Register| match register {
        Register::Pcr(index) => *index,
        other => panic!("{other} of a TPM"),
    };
    differing.map(|(register, _)| index(register)).collect()
}

#[test]
fn every_event_of_a_boot_is_predicted_and_only_pcr_1_moves_with_the_machine() {
    let Some(bench) = Bench::new() else { return };
    let (ovmf, disk) = (bench.plain(), &bench.image);
    let base = boots_as_predicted(&bench, &ovmf, disk, SMALL);
    let shapes = [
        ("two vCPUs", Shape { vcpus: 2, ..SMALL }),
        ("more memory", Shape { mebibytes: 1024, ..SMALL }),
        ("a second disk", Shape { drives: 1, ..SMALL }),
    ];
    for (name, shape) in shapes {
        eprintln!("{name}");
        let told = boots_as_predicted(&bench, &ovmf, disk, shape);
        let really = (0..16).filter(|&index| index != IMA).filter(|&index| {
            told.registers[&(Algorithm::Sha384, index)] != base.registers[&(Algorithm::Sha384, index)]
        });
        let predicted = moved(&bench, &ovmf, (disk, SMALL), (disk, shape));
        assert_eq!(really.collect::<BTreeSet<u8>>(), predicted, "{name}");
        assert_eq!(predicted, BTreeSet::from([1]), "{name}");
    }
}

/// With QEMU's `-kernel`, the UKI is measured before the machine's variables, and nothing of the disk is measured.
#[test]
fn a_uki_that_qemu_is_given_as_its_kernel_is_measured_as_predicted() {
    let Some(bench) = Bench::new() else { return };
    let direct = Shape { start: Start::Kernel, ..SMALL };
    boots_as_predicted(&bench, &bench.plain(), &bench.image, direct);
}

/// A change of a disk.
type Change<'a> = &'a dyn Fn(&mut Disk);

/// PCR 4: the UKI, and the kernel in it. 5: the GPT. 9: the kernel's command line and initrd. 11: the UKI's sections.
#[test]
fn each_change_of_the_image_moves_exactly_its_registers() {
    let Some(bench) = Bench::new() else { return };
    let ovmf = bench.plain();
    let init = init(bench.folder.path());
    let changes: [(&str, Change<'_>, &[u8]); 5] = [
        // A text in the real-mode code, which does not run.
        ("kernel", &|disk| disk.exchange(".linux", "Probing EDD", "Probing Edd"), &[4, 11]),
        ("initrd", &|disk| disk.exchange_initrd(&init, "the second"), &[4, 9, 11]),
        ("command line", &|disk| disk.exchange(".cmdline", "loglevel=4", "loglevel=3"), &[4, 9, 11]),
        (
            "root hash",
            &|disk| {
                let place = disk.section(".cmdline");
                let word = "proofmark.roothash=";
                let text = String::from_utf8(disk.bytes[place].to_vec()).unwrap();
                let digit = &text[text.find(word).unwrap() + word.len()..][..1];
                let other = if digit == "0" { "1" } else { "0" };
                disk.exchange(".cmdline", &format!("{word}{digit}"), &format!("{word}{other}"));
            },
            &[4, 9, 11],
        ),
        ("GPT", &Disk::rename, &[5]),
    ];
    for (name, change, registers) in changes {
        eprintln!("{name}");
        let mut disk = bench.image.clone();
        change(&mut disk);
        // This boot is as predicted, and so is the boot of the unchanged image: see the test above.
        boots_as_predicted(&bench, &ovmf, &disk, SMALL);
        let moved = moved(&bench, &ovmf, (&bench.image, SMALL), (&disk, SMALL));
        assert_eq!(moved, registers.iter().copied().collect(), "{name}");
    }
}

/// A UKI with the stub of each of Debian's suites: each measures other sections, and combines another initrd.
#[test]
fn each_stub_of_debian_is_predicted_and_an_unknown_one_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let ovmf = bench.plain();
    for suite in ["bookworm", "bookworm-backports", "trixie", "sid"] {
        let shared = env!("CARGO_TARGET_TMPDIR");
        let Some(package) = debian::package_of(shared, suite, "systemd-boot-efi") else { continue };
        let stub = fs::read(package.join("usr/lib/systemd/boot/efi/linuxx64.efi.stub")).unwrap();
        // Ends on no multiple of four, which shows whether the stub pads.
        let key = &b"not a key, but handed on"[..];
        for more in [&[][..], &[(".pcrpkey", key), (".pcrsig", b"{ }")]] {
            let mut disk = bench.image.clone();
            if !disk.exchange_stub(&stub, more) {
                continue;
            }
            let uki = &disk.bytes[disk.uki.clone()];
            let version = match Uki::read(uki) {
                Ok(read) => read.version(),
                // sid moves on.
                Err(stub::Error::Version { found }) if suite == "sid" => {
                    skipped(&format!("sid's stub has no known rules: {found}"));
                    continue;
                }
                Err(error) => panic!("{suite}: {error}"),
            };
            eprintln!("{suite}: {version:?}, {} more sections", more.len());
            // From a disk, this one also hands on a secret that it makes.
            let (disk_given, kernel_given): (&[&str], &[&str]) = match version.measures_smbios() {
                true => (&["PEIFV", "SMBIOS type 1", "initrd"], &["PEIFV", "SMBIOS type 1"]),
                false => (&["PEIFV"], &["PEIFV"]),
            };
            boots_but_for(&bench, &ovmf, &disk, SMALL, disk_given);
            let start = Shape { start: Start::Kernel, ..SMALL };
            if more.is_empty() || version.passes_on_secret() {
                boots_but_for(&bench, &ovmf, &disk, start, kernel_given);
            }
        }
    }
    let mut other = bench.image.clone();
    other.exchange(".sdmagic", "systemd-stub 257", "systemd-stub 259");
    let refused = boot::Plan::read(&other.bytes[other.uki.clone()], None);
    assert!(matches!(refused, Err(boot::Error::Stub(stub::Error::Version { .. }))));
}

/// OVMF's own key for tests, and its certificate in PEM.
fn snakeoil(bench: &Bench) -> Option<Signer> {
    let keys = bench.trixie.join("usr/share/ovmf");
    let opened = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-nocrypt", "-passin", "pass:snakeoil", "-in"])
        .arg(keys.join("PkKek-1-snakeoil.key"))
        .output();
    let Some(opened) = opened.ok().filter(|done| done.status.success()) else {
        skipped("openssl does not open OVMF's key for tests");
        return None;
    };
    let certificate = fs::read(keys.join("PkKek-1-snakeoil.pem")).unwrap();
    Some(Signer::new(&opened.stdout, &certificate).unwrap())
}

/// The keys are OVMF's own test keys: one signs the UKI, and the firmware's db holds its certificate.
#[test]
fn with_secure_boot_the_keys_and_the_certificate_that_let_the_uki_pass_are_predicted_too() {
    let Some(bench) = Bench::new() else { return };
    let Some(signer) = snakeoil(&bench) else { return };
    let mut disk = bench.image.clone();
    disk.sign(&signer);
    let ovmf = Ovmf::of(&bench.trixie, "_4M.secboot", "_4M.snakeoil");
    // These variables come from a machine that ran once; they contain its boot options.
    boots_but_for(&bench, &ovmf, &disk, SMALL, &["PEIFV", "BootOrder and Boot####"]);
    // An unsigned UKI is not started, and so has no values.
    let unsigned = bench.reference(&ovmf, &bench.image, SMALL, Algorithm::Sha384);
    assert!(matches!(unsigned, Err(shape::Error::Boot(boot::Error::NotSigned { expected: 1 }))));
}

/// A UKI's hash in db lets it pass, signed by somebody else or not at all; in dbx it does not pass, whatever is in db.
#[test]
fn with_secure_boot_a_hash_in_db_lets_the_uki_pass_and_dbx_forbids_it() {
    let Some(bench) = Bench::new() else { return };
    let Some(signer) = snakeoil(&bench) else { return };
    let ovmf = Ovmf::of(&bench.trixie, "_4M.secboot", "_4M.snakeoil");
    let store = fs::read(&ovmf.variables).unwrap();
    let read = Store::read(&store).unwrap();
    let own = read.data(&IMAGE_SECURITY, "db").unwrap().to_vec();
    let with = |variables: &[(&str, &[u8])]| {
        let mut bytes = store.clone();
        variables.iter().for_each(|(name, data)| put_variable(&mut bytes, name, data));
        let folder = tempfile::tempdir_in(bench.folder.path()).unwrap().keep();
        let path = folder.join("variables.fd");
        fs::write(&path, bytes).unwrap();
        Ovmf { code: ovmf.code.clone(), variables: path }
    };
    let unsigned = &bench.image;
    let mut signed = bench.image.clone();
    signed.sign(&signer);
    for (disk, name) in [(unsigned, "unsigned"), (&signed, "signed by somebody else")] {
        let hash = uki_hash(disk);
        // Two lists of other types before it, and another entry in the same list.
        let db = [
            list(CERTIFICATE, &[b"no certificate"]),
            list([7; 16], &[b"x"]),
            list(SHA256, &[&[1; 32], &hash]),
        ];
        eprintln!("{name}, its hash in db");
        let allowed = with(&[("db", &db.concat())]);
        boots_but_for(&bench, &allowed, disk, SMALL, &["PEIFV", "BootOrder and Boot####"]);
        let forbidden = with(&[("db", &[&own[..], &db.concat()].concat()), ("dbx", &list(SHA256, &[&hash]))]);
        let refused = bench.reference(&forbidden, disk, SMALL, Algorithm::Sha256);
        assert!(matches!(refused, Err(shape::Error::Boot(boot::Error::SecureBoot(_)))), "{name}");
    }
    let refused = bench.reference(&with(&[("dbx", &own)]), &signed, SMALL, Algorithm::Sha256);
    assert!(matches!(refused, Err(shape::Error::Boot(boot::Error::SecureBoot(_)))));
    // What dbx has of others changes its own event only.
    let other = with(&[("dbx", &list(SHA256, &[&[1; 32], &[2; 32]]))]);
    boots_but_for(&bench, &other, &signed, SMALL, &["PEIFV", "BootOrder and Boot####"]);
}

/// EFI_CERT_X509_GUID and EFI_CERT_SHA256_GUID.
const CERTIFICATE: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
const SHA256: [u8; 16] =
    [0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28];

/// A signature list.
fn list(kind: [u8; 16], entries: &[&[u8]]) -> Vec<u8> {
    let size = 16 + entries[0].len();
    let word = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let head = [&kind[..], &word(28 + size * entries.len()), &word(0), &word(size)].concat();
    entries.iter().fold(head, |bytes, entry| [&bytes[..], &[5; 16], entry].concat())
}

fn uki_hash(disk: &Disk) -> Vec<u8> {
    let uki = Pe::read(&disk.bytes[disk.uki.clone()]).unwrap();
    uki.authenticode_digest::<sha2::Sha256>().unwrap().to_vec()
}

/// Replaces or adds a variable of the image security namespace in a store, as firmware does.
fn put_variable(store: &mut [u8], name: &str, data: &[u8]) {
    let word = |store: &[u8], at: usize| u32::from_le_bytes(store[at..at + 4].try_into().unwrap()) as usize;
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut at = usize::from(u16::from_le_bytes([store[48], store[49]])) + 28;
    while store[at..at + 2] == [0xaa, 0x55] {
        let (names, datas) = (word(store, at + 36), word(store, at + 40));
        if store[at + 44..at + 60] == IMAGE_SECURITY && store[at + 60..at + 60 + names] == name {
            store[at + 2] = 0x3c;
        }
        at = (at + 60 + names + datas).next_multiple_of(4);
    }
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap().to_le_bytes();
    // Valid; non-volatile, for boot and run time, authenticated by time: the first of December 2026.
    let time = [0xea, 7, 12, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let head = [&[0xaa, 0x55, 0x3f, 0, 0x27, 0, 0, 0][..], &[0; 8], &time, &[0; 4]].concat();
    let record = [&head[..], &length(&name), &length(data), &IMAGE_SECURITY, &name, data].concat();
    store[at..at + record.len()].copy_from_slice(&record);
}

#[test]
fn the_installed_firmware_measures_what_is_predicted_for_it() {
    let Some(bench) = Bench::new() else { return };
    let ovmf = Ovmf::of(Path::new("/"), "_4M", "_4M");
    if !ovmf.code.is_file() {
        skipped("no installed OVMF: apt-get install ovmf");
        return;
    }
    boots_as_predicted(&bench, &ovmf, &bench.image, SMALL);
}
