//! Compares the ACPI files that `ovmf-measure` makes with those of stock QEMU, byte for byte.
//!
//! # Shape
//! ```text
//! qemu -S -qtest: no code runs; the test writes the chipset's registers as OVMF does, and reads fw_cfg by DMA
//! ```
//! The installed QEMU gives the reference for its own version, over many shapes. For versions that are not installed,
//! `PROOFMARK_VECTORS` (a folder; default `shared/vectors` beside the checkout) has digests of dumps
//! made the same way.
//!
//! # Not here
//! Whether OVMF writes these registers so and measures these files: `measured_boot`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::num::{NonZeroU8, NonZeroU16};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ovmf_measure::acpi::{Machine, Qemu, Smm, Switch, Tables, Tpm, Vendor, dynamic_window};
use ovmf_measure::boot::{Start, boot_order};
use ovmf_measure::digest::Algorithm;
use proofmark::host::machine::{self, Accelerator, Firmware, Memory, Plan};
use serde_json::Value;
use system_tests::inputs;
use system_tests::tool::{find, skipped};

/// Time limit for one answer of QEMU, on a busy computer.
const LIMIT: Duration = Duration::from_secs(60);
/// Address in the machine's memory where the test keeps what it reads and writes.
const DATA: u64 = 0x10_0000;

/// A process that is killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A paused machine, whose registers and memory the test reads and writes.
struct Still {
    _qemu: Running,
    answers: BufReader<UnixStream>,
}

impl Still {
    fn start(qemu: &Path, arguments: &[OsString], folder: &Path) -> Self {
        let socket = folder.join("qtest");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = Command::new(qemu);
        command.args(["-S", "-accel", "tcg", "-qtest-log", "/dev/null", "-qtest"]);
        command.arg(format!("unix:{}", socket.display())).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut running = Running(command.spawn().unwrap());
        listener.set_nonblocking(true).unwrap();
        let begun = std::time::Instant::now();
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            assert!(running.0.try_wait().unwrap().is_none(), "QEMU ended: {command:?}");
            assert!(begun.elapsed() < LIMIT, "QEMU does not connect: {command:?}");
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Still { _qemu: running, answers: BufReader::new(stream) }
    }

    /// Sends one command of the `-qtest` protocol; returns what follows `OK`.
    fn tell(&mut self, command: &str) -> String {
        self.answers.get_mut().write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer = line.strip_prefix("OK").unwrap_or_else(|| panic!("{command}: {line}"));
        answer.trim().to_owned()
    }

    fn read(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        let answer = self.tell(&format!("read {address:#x} {bytes:#x}"));
        hex::decode(answer.trim_start_matches("0x")).unwrap()
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        self.tell(&format!("write {address:#x} {:#x} 0x{}", bytes.len(), hex::encode(bytes)));
    }

    /// Writes a register of a device on bus 0.
    fn configure(&mut self, slot: u32, function: u32, register: u32, value: u32) {
        let address = 1 << 31 | slot << 11 | function << 8 | register;
        self.tell(&format!("outl 0xcf8 {address:#x}"));
        self.tell(&format!("outl 0xcfc {value:#x}"));
    }

    /// Writes what OVMF has written when it asks for the tables: PCIEXBAR, PMBASE, ACPI_CNTL, and the lowest 64-bit
    /// BAR, with decoding enabled.
    fn configure_as_ovmf_does(&mut self, window: u64) {
        self.configure(0, 0, 0x64, 0);
        self.configure(0, 0, 0x60, 0xe000_0001);
        self.configure(0x1f, 0, 0x40, 0x600);
        self.configure(0x1f, 0, 0x44, 0x80);
        self.configure(1, 0, 0x20, window as u32);
        self.configure(1, 0, 0x24, (window >> 32) as u32);
        self.configure(1, 0, 0x04, 2);
    }

    /// Requests from QEMU what an OVMF with system management mode requests (OvmfPkg/SmmControl2Dxe): all features.
    fn negotiate(&mut self) {
        let files = self.files();
        let key = |name: &str| files.iter().find(|(other, ..)| other == name).unwrap().1;
        self.write(DATA, &7_u64.to_le_bytes());
        self.transfer(key("etc/smi/requested-features"), 0x10, 8); // write
        assert_eq!(self.item(key("etc/smi/features-ok"), 1), [1]);
    }

    /// Reads an item of fw_cfg by DMA (docs/specs/fw_cfg.rst).
    fn item(&mut self, key: u16, bytes: u32) -> Vec<u8> {
        self.transfer(key, 2, bytes); // read
        self.read(DATA, bytes as usize)
    }

    fn transfer(&mut self, key: u16, deed: u32, bytes: u32) {
        const COMMAND: u64 = 0x1000;
        let control = u32::from(key) << 16 | 8 | deed; // select
        let command = [&control.to_be_bytes()[..], &bytes.to_be_bytes(), &DATA.to_be_bytes()].concat();
        self.write(COMMAND, &command);
        self.tell("outl 0x514 0x0");
        self.tell(&format!("outl 0x518 {:#x}", (COMMAND as u32).swap_bytes()));
        assert_eq!(self.read(COMMAND, 4), [0; 4], "the transfer failed");
    }

    /// All files of fw_cfg: name, key and size.
    fn files(&mut self) -> Vec<(String, u16, u32)> {
        const DIRECTORY: u16 = 0x19;
        let count = u32::from_be_bytes(self.item(DIRECTORY, 4).try_into().unwrap());
        let entries = self.item(DIRECTORY, 4 + 64 * count);
        let entry = |entry: &[u8]| {
            let name = entry[8..].split(|&byte| byte == 0).next().unwrap();
            let size = u32::from_be_bytes(entry[..4].try_into().unwrap());
            let key = u16::from_be_bytes(entry[4..6].try_into().unwrap());
            (String::from_utf8(name.to_vec()).unwrap(), key, size)
        };
        entries[4..].chunks(64).map(entry).collect()
    }
}

/// Reports where the first byte differs, in which file, and the bytes around it.
fn compare(shape: &str, made: &Tables, still: &mut Still) {
    let files = still.files();
    for (name, made) in made.measured() {
        let &(_, key, size) = files
            .iter()
            .find(|(other, ..)| other == name)
            .unwrap_or_else(|| panic!("{shape}: QEMU has no {name}"));
        let real = still.item(key, size);
        if let Some(at) = (0..made.len().max(real.len())).find(|&at| made.get(at) != real.get(at)) {
            let around = |bytes: &[u8]| {
                hex::encode(&bytes[at.saturating_sub(16).min(bytes.len())..(at + 16).min(bytes.len())])
            };
            panic!("{shape}: {name} differs at {at:#x}\n  made {}\n  QEMU {}", around(made), around(&real));
        }
    }
    // Other files that the loader would allocate, and firmware measure, would be named by its commands, which are
    // equal.
}

/// The installed QEMU and its version; `None`, with a loud message, when it is missing outside CI.
fn installed() -> Option<(PathBuf, Qemu)> {
    let named = std::env::var_os("PROOFMARK_QEMU").map(PathBuf::from);
    let qemu = named.or_else(|| find(machine::QEMU))?;
    let told = Command::new(&qemu).arg("--version").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let version = told.split_whitespace().nth(3).unwrap();
    eprintln!("{} is {version}", qemu.display());
    match version.parse() {
        Ok(version) => Some((qemu, version)),
        Err(error) => {
            skipped(&error.to_string());
            None
        }
    }
}

fn shape(qemu: Qemu, vcpus: u16, mebibytes: u64, devices: u8) -> Machine {
    Machine {
        qemu,
        vcpus: NonZeroU16::new(vcpus).unwrap(),
        memory: mebibytes << 20,
        devices: NonZeroU8::new(devices).unwrap(),
        window: dynamic_window(46, Vendor::Intel).unwrap(),
        pic: Switch::Off,
        hpet: Switch::Off,
        smm: Smm::Off,
        tpm: Tpm::Absent,
    }
}

/// QEMU's arguments for a machine without a TPM. Its memory is reserved, not used.
fn arguments(machine: &Machine) -> Vec<OsString> {
    let word = |switch| if switch == Switch::On { "on" } else { "off" };
    let Machine { pic, hpet, smm, .. } = machine;
    let mut words = format!(
        "-cpu qemu64 -nodefaults -no-user-config -display none -serial null -machine \
         q35,hpet={},smm={},pic={},memory-backend=ram -smp {vcpus} -m {mebibytes}M -object \
         memory-backend-ram,id=ram,size={mebibytes}M,reserve=off",
        word(*hpet),
        word(if *smm == Smm::Off { Switch::Off } else { Switch::On }),
        word(*pic),
        vcpus = machine.vcpus,
        mebibytes = machine.memory >> 20,
    );
    words += &" -device virtio-rng-pci".repeat(usize::from(machine.devices.get()));
    words.split(' ').map(OsString::from).collect()
}

#[test]
fn each_file_is_stock_qemus_for_many_shapes() {
    let Some((qemu, version)) = installed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let base = |vcpus, mebibytes, devices| shape(version, vcpus, mebibytes, devices);
    let shapes = [
        base(1, 1024, 1),
        base(2, 2048, 5),
        Machine { pic: Switch::On, ..base(2, 2048, 5) },
        base(3, 2815, 2),
        base(4, 2816, 3),
        base(8, 3072, 4),
        base(9, 4096, 9),
        base(16, 8192, 6),
        base(33, 16_384, 7),
        base(64, 65_536, 9),
        base(255, 2048, 30),
        Machine { window: 0x10_0000_0000, ..base(2, 6144, 2) },
        Machine { window: 0xe0_0000_4000, ..base(2, 512, 3) },
        Machine { hpet: Switch::On, ..base(2, 4096, 2) },
        Machine { smm: Smm::On, ..base(12, 4096, 2) },
        Machine { smm: Smm::Negotiated, ..base(5, 2048, 3) },
        Machine { hpet: Switch::On, smm: Smm::On, pic: Switch::On, ..base(1, 1536, 8) },
    ];
    for machine in &shapes {
        let mut still = Still::start(&qemu, &arguments(machine), folder.path());
        still.configure_as_ovmf_does(machine.window);
        if machine.smm == Smm::Negotiated {
            still.negotiate();
        }
        compare(&format!("{machine:?}"), &machine.tables().unwrap(), &mut still);
    }
}

/// A TPM emulator for QEMU; `None` when it is missing outside CI.
fn emulator(folder: &Path) -> Option<(Running, PathBuf)> {
    let socket = folder.join("tpm.socket");
    fs::create_dir(folder.join("tpm")).unwrap();
    let mut command = Command::new(machine::SWTPM);
    command.args(["socket", "--tpm2", "--tpmstate", "dir=tpm", "--ctrl", "type=unixio,path=tpm.socket"]);
    let Ok(child) = command.current_dir(folder).spawn() else {
        skipped("no swtpm: apt-get install swtpm");
        return None;
    };
    let running = Running(child);
    let begun = std::time::Instant::now();
    while !socket.exists() {
        assert!(begun.elapsed() < LIMIT, "swtpm makes no socket");
        std::thread::sleep(Duration::from_millis(5));
    }
    Some((running, socket))
}

/// The machine of `proofmark run`, with its own arguments.
#[test]
fn each_file_is_that_of_the_machine_that_run_starts() {
    let Some((qemu, version)) = installed() else { return };
    for (tpm, drives, start) in [
        (Tpm::Absent, 0_u8, Start::Disk),
        (Tpm::Crb, 0, Start::Disk),
        (Tpm::Crb, 2, Start::Disk),
        (Tpm::Crb, 0, Start::Kernel),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let emulator = match tpm {
            Tpm::Absent => None,
            Tpm::Crb => {
                let Some(emulator) = emulator(folder.path()) else { return };
                Some(emulator)
            }
        };
        // No code runs, so the firmware may be empty.
        for (name, bytes) in [
            ("code", 1 << 20),
            ("variables", 1 << 17),
            ("disk", 1 << 20),
            ("drive", 1 << 20),
            ("kernel", 1 << 16),
        ] {
            fs::File::create(at(name)).unwrap().set_len(bytes).unwrap();
        }
        let _control = UnixListener::bind(at("control")).unwrap();
        let drives: Vec<PathBuf> = (0..drives)
            .map(|number| {
                let path = at(&format!("drive{number}"));
                fs::copy(at("drive"), &path).unwrap();
                path
            })
            .collect();
        let kernel = at("kernel");
        let plan = Plan {
            accelerator: Accelerator::Tcg,
            vcpus: NonZeroU16::new(2).unwrap(),
            memory: "2048M".parse::<Memory>().unwrap(),
            firmware: &Firmware { code: at("code"), variables: Some(at("variables")) },
            disk: &at("disk"),
            kernel: (start == Start::Kernel).then_some(&*kernel),
            drives: &drives,
            forwards: &[],
            strings: &[],
            tpm: emulator.as_ref().map(|(_, socket)| socket.as_path()),
            control: &at("control"),
        };
        let machine = Machine {
            pic: Switch::On,
            hpet: Switch::On,
            smm: Smm::On,
            tpm,
            // Disk, network, entropy source.
            ..shape(version, 2, 2048, 3 + drives.len() as u8)
        };
        let mut still = Still::start(&qemu, &machine::command(&plan), folder.path());
        still.configure_as_ovmf_does(machine.window);
        compare(&format!("{machine:?}"), &machine.tables().unwrap(), &mut still);
        compare_early_items(start, &mut still);
    }
}

/// Compares the fw_cfg items that firmware of 2025.05 and later measures first, present or absent.
fn compare_early_items(start: Start, still: &mut Still) {
    const BOOT_MENU: u16 = 0x0e;
    assert_eq!(still.item(BOOT_MENU, 2), [0, 0]);
    let files = still.files();
    let &(_, key, size) = files.iter().find(|(name, ..)| name == "bootorder").unwrap();
    assert_eq!(still.item(key, size), boot_order(start, 1));
    let others =
        ["etc/extra-pci-roots", "etc/boot-menu-wait", "etc/reserved-memory-end", "opt/ovmf/X-PciMmio64Mb"];
    assert!(!files.iter().any(|(name, ..)| others.contains(&name.as_str())), "{files:?}");
}

/// The machine that QEMU's arguments describe, as the vectors list them.
fn described(version: Qemu, arguments: &[&str]) -> Machine {
    let after = |name: &str| {
        let at = arguments.iter().position(|&word| word == name).unwrap();
        arguments[at + 1]
    };
    let options = after("-machine");
    let switch =
        |name: &str| match options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
        {
            Some("off") => Switch::Off,
            _ => Switch::On,
        };
    let devices = arguments.iter().filter(|word| word.starts_with("virtio-")).count();
    Machine {
        pic: switch("pic"),
        hpet: switch("hpet"),
        smm: if switch("smm") == Switch::Off { Smm::Off } else { Smm::On },
        ..shape(
            version,
            after("-smp").parse().unwrap(),
            after("-m").strip_suffix('M').unwrap().parse().unwrap(),
            u8::try_from(devices).unwrap(),
        )
    }
}

#[test]
fn each_digest_is_that_of_a_dump_of_three_versions_of_qemu() {
    let Some(folder) = inputs::vectors("qemu-acpi-qtest") else { return };
    let mut compared = 0;
    for (name, version) in [("qemu-7.2", Qemu::V7_2), ("qemu-10.0", Qemu::V10_0), ("qemu-11.1", Qemu::V11_1)]
    {
        let index = fs::read(folder.join(name).join("index.json")).unwrap();
        let index: Vec<Value> = serde_json::from_slice(&index).unwrap();
        for dump in index {
            let arguments: Vec<&str> =
                dump["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
            let made = described(version, &arguments).tables().unwrap();
            for (file, bytes) in made.measured() {
                let made = Algorithm::Sha384.of(bytes).to_string();
                assert_eq!(dump["sha384"][file], made, "{name} {} {file}", dump["name"]);
                compared += 1;
            }
        }
    }
    eprintln!("{compared} digests compared");
    assert!(compared > 0);
}
