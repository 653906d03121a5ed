//! Tests the initrd's init with Debian's kernel: it boots what the command line says, and nothing else.
//!
//! # Shape
//!
//! The image comes from the reference tools (`mkfs.erofs`, `veritysetup`, `sfdisk`, `cpio`), the kernel
//! from trixie's `linux-image-cloud-amd64`, and QEMU boots them without firmware, under TCG. Each boot
//! ends after 120 s at the latest.
//!
//! The kernel's package is `PROOFMARK_KERNEL_DEB`; by default, apt fetches it from this machine's own mirror and
//! checks Debian's signature.
//!
//! # Not here
//!
//! Our own writers, OVMF and the UKI.

use proofmark_guest::init::cmdline::{Boot, Filesystem, Geometry, PartUuid, RootHash, Salt};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use system_tests::{debian, direct, tool};

const ROOT: &str = "6c0ad2d4-54c1-4d31-a1c1-0d9a3c5f0e11";
const TREE: &str = "0f7f1dbb-1d5a-4f5d-9b67-8a1a5f3b2c22";
const ROOT_START: u64 = 2048 * 512;
const TREE_START: u64 = 8192 * 512;
const STARTED: &str = "THE ROOT HAS STARTED";

/// In loading order; a `?` where the hardware may lack it.
const MODULES: [&str; 9] = [
    "virtio_blk",
    "dm-mod",
    "dm-bufio",
    "reed_solomon",
    "?sha256-ssse3",
    "dm-verity",
    "?crc32c-intel",
    "libcrc32c",
    "erofs",
];

/// Runs a tool to its end and returns its output.
fn run(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("tools print text")
}

/// The programs that the tests need.
const TOOLS: [&str; 5] = ["qemu-system-x86_64", "mkfs.erofs", "veritysetup", "sfdisk", "cpio"];

/// Returns the folder of the kernel's package: `PROOFMARK_KERNEL_DEB`, unpacked, or trixie's.
fn kernel(folder: &Path) -> Option<PathBuf> {
    if let Some(package) = std::env::var_os("PROOFMARK_KERNEL_DEB") {
        tool::find("dpkg-deb")?;
        let unpacked = folder.join("kernel");
        run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked));
        return Some(unpacked);
    }
    let target = env!("CARGO_TARGET_TMPDIR");
    let name = debian::apt(target)?.dependency("linux-image-cloud-amd64").expect("a kernel package");
    debian::package(target, &name)
}

/// Finds the only file below `folder` whose name `passes`.
fn find(folder: &Path, passes: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("reads").map(|entry| entry.expect("reads").path()).collect();
    entries.sort();
    entries.iter().find_map(|path| match path.is_dir() && !path.is_symlink() {
        true => find(path, passes),
        false => passes(path.file_name()?.to_str()?).then(|| path.clone()),
    })
}

/// An image that boots, which each test then changes.
struct Machine {
    folder: tempfile::TempDir,
    kernel: PathBuf,
    boot: Boot,
}

impl Machine {
    /// Builds the image; `None`, with a loud message, when a tool is missing outside CI.
    fn new() -> Option<Self> {
        if !TOOLS.iter().all(|name| tool::find(name).is_some()) {
            return None;
        }
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("creates");
        let unpacked = kernel(folder.path())?;
        let at = |name: &str| folder.path().join(name);

        for made in ["root/sbin", "root/dev", "root/proc", "root/sys", "initrd/modules"] {
            fs::create_dir_all(at(made)).expect("creates");
        }
        let flags =
            ["--edition=2024", "--crate-type=bin", "-Cpanic=abort", "-Copt-level=s", "-Cstrip=symbols"];
        let link = [
            "-Crelocation-model=static",
            "-Clinker=rust-lld",
            "-Clinker-flavor=ld.lld",
            "-Clink-arg=-nostdlib",
        ];
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/guest_boot/first.rs");
        let target = "--target=x86_64-unknown-linux-gnu";
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
        run(rustc.arg(target).args(flags).args(link).arg("-o").arg(at("root/sbin/init")).arg(program));
        // Padded beyond one block, the program lies in data blocks of its own instead of beside its inode.
        let program = File::options().write(true).open(at("root/sbin/init")).expect("opens");
        program.set_len(16384).expect("sets the length");
        let filler: Vec<u8> =
            (0..900_000_u32).flat_map(|number| number.to_le_bytes()).take(1_500_000).collect();
        fs::write(at("root/filler"), filler).expect("writes");
        let mut make = Command::new("mkfs.erofs");
        run(make.args(["--all-root", "-T0"]).arg(at("root.erofs")).arg(at("root")));
        let mut format = Command::new("/usr/sbin/veritysetup");
        let told = run(format.args(["format", "--salt=00112233"]).arg(at("root.erofs")).arg(at("tree")));
        let hash = told.lines().find_map(|line| line.strip_prefix("Root hash:")).expect("a root hash").trim();

        let disk = File::create(at("disk")).expect("creates");
        disk.set_len(16 << 20).expect("sets the length");
        let mut table = Command::new("/usr/sbin/sfdisk");
        let mut table = table.arg("-q").arg(at("disk")).stdin(Stdio::piped()).spawn().expect("starts");
        let script =
            format!("label: gpt\nstart=2048, size=6144, uuid={ROOT}\nstart=8192, size=2048, uuid={TREE}\n");
        table.stdin.take().expect("piped").write_all(script.as_bytes()).expect("writes");
        assert!(table.wait().expect("ends").success());
        let image = fs::read(at("root.erofs")).expect("reads");
        assert!(image.len() as u64 <= TREE_START - ROOT_START, "{}", image.len());
        for (start, bytes) in [(ROOT_START, &image), (TREE_START, &fs::read(at("tree")).expect("reads"))] {
            let mut disk = &disk;
            disk.seek(SeekFrom::Start(start)).expect("seeks");
            disk.write_all(bytes).expect("writes");
        }

        let mut list = String::new();
        for module in MODULES {
            let (mark, name) = module.split_at(usize::from(module.starts_with('?')));
            let found = find(&unpacked, &|file| file == format!("{name}.ko.xz")).expect("the kernel has it");
            fs::copy(found, at("initrd/modules").join(format!("{name}.ko.xz"))).expect("copies");
            list += &format!("{mark}/modules/{name}.ko.xz\n");
        }
        fs::write(at("initrd/modules.load"), list).expect("writes");
        fs::write(at("initrd/init"), proofmark_guest::INIT).expect("writes");
        fs::set_permissions(at("initrd/init"), fs::Permissions::from_mode(0o755)).expect("sets the mode");
        let pack = "find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 > ../initrd.cpio";
        run(Command::new("sh").args(["-c", pack]).current_dir(at("initrd")));

        let guid = |text: &str| PartUuid::parse(text.as_bytes()).expect("a GUID");
        let boot = Boot {
            root: guid(ROOT),
            verity: guid(TREE),
            filesystem: Filesystem::Erofs,
            root_hash: RootHash(hex::decode(hash).expect("hex").try_into().expect("32 bytes")),
            salt: Salt::new(&[0, 0x11, 0x22, 0x33]).expect("short"),
            geometry: Geometry::new(4096, image.len() as u64 / 4096, 1).expect("fits"),
            profile: None,
        };
        let kernel = find(&unpacked, &|file| file.starts_with("vmlinuz-")).expect("a kernel");
        Some(Self { folder, kernel, boot })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Flips one bit of a disk.
    fn flip(&self, disk: &str, offset: u64) {
        let mut disk = File::options().read(true).write(true).open(self.at(disk)).expect("opens");
        let mut byte = [0];
        disk.seek(SeekFrom::Start(offset)).expect("seeks");
        disk.read_exact(&mut byte).expect("reads");
        disk.seek(SeekFrom::Start(offset)).expect("seeks");
        disk.write_all(&[byte[0] ^ 1]).expect("writes");
    }

    /// The offset on the disk of the first program's text.
    fn program(&self) -> u64 {
        let image = fs::read(self.at("root.erofs")).expect("reads");
        let place = image.windows(STARTED.len()).position(|bytes| bytes == STARTED.as_bytes());
        ROOT_START + place.expect("the program is stored plain") as u64
    }

    /// Boots with our words on the command line and these disks, and returns the console's text. A disk is a file
    /// of the folder, optionally after a QEMU filter and a blank.
    fn boot(&self, words: &str, disks: &[&str]) -> String {
        let disk = |disk: &&str| {
            let (filter, name) = disk.split_once(' ').unwrap_or(("", disk));
            format!("{filter}{}", direct::disk(self.folder.path(), name))
        };
        let boot = direct::Boot {
            kernel: &self.kernel,
            initrd: &self.at("initrd.cpio"),
            command_line: &format!("console=ttyS0 panic=-1 {words} EVIL=1 evil"),
            disks: &disks.iter().map(disk).collect::<Vec<_>>(),
        };
        direct::boot(boot, &self.at("console"))
    }
}

/// Asserts that the boot ended in a panic before the root's first program, with these words on the console.
#[track_caller]
fn refused(console: &str, why: &[&str]) {
    assert!(!console.contains(STARTED), "it booted");
    assert!(console.contains("Kernel panic - not syncing"), "no panic");
    for words in why {
        assert!(console.contains(words), "the console does not say {words:?}");
    }
}

#[test]
fn a_verified_root_is_booted_with_nothing_of_the_command_line() {
    let Some(machine) = Machine::new() else { return };
    let console = machine.boot(&machine.boot.to_string(), &["disk"]);
    let said: Vec<&str> = console.lines().skip_while(|line| !line.ends_with(STARTED)).collect();
    let expected = [
        "argument /sbin/init",
        "variable PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "variable HOME=/",
        "variable TERM=linux",
    ];
    assert_eq!(said.get(1..5), Some(&expected[..]));
    assert!(!said.iter().any(|line| line.contains("EVIL") || line.contains("evil")), "{said:?}");
    let verified = format!("verified by {}", machine.boot.root_hash);
    assert!(console.contains(&verified));
}

#[test]
fn a_changed_bit_of_a_program_stops_it_from_running() {
    let Some(machine) = Machine::new() else { return };
    let program = machine.program();
    machine.flip("disk", program);
    let block = (program - ROOT_START) / 4096;
    assert_ne!(block, 0, "the superblock's block would stop the mount already");
    let block = format!("data block {block} is corrupted");
    refused(&machine.boot(&machine.boot.to_string(), &["disk"]), &[&block, "dm-verity device corrupted"]);
}

#[test]
fn a_changed_bit_of_the_hash_tree_stops_the_boot() {
    let Some(machine) = Machine::new() else { return };
    machine.flip("disk", TREE_START + 4096);
    let why = ["metadata block 1 is corrupted", "dm-verity device corrupted"];
    refused(&machine.boot(&machine.boot.to_string(), &["disk"]), &why);
}

#[test]
fn another_root_hash_stops_the_boot() {
    let Some(mut machine) = Machine::new() else { return };
    machine.boot.root_hash.0[31] ^= 1;
    let why = ["metadata block 1 is corrupted", "dm-verity device corrupted"];
    refused(&machine.boot(&machine.boot.to_string(), &["disk"]), &why);
}

/// A host that could make chosen reads fail could choose which files the system does without.
#[test]
fn a_block_that_cannot_be_read_stops_the_boot() {
    let Some(machine) = Machine::new() else { return };
    let sector = machine.program() / 4096 * 8;
    let fault = format!(
        "[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\nsector = \"{sector}\"\nonce = \"off\"\n"
    );
    fs::write(machine.at("fault"), fault).expect("writes");
    let disk = format!("blkdebug:{}: disk", machine.at("fault").display());
    refused(
        &machine.boot(&machine.boot.to_string(), &[&disk]),
        &["I/O error", "dm-verity device has I/O error"],
    );
}

#[test]
fn a_missing_word_stops_the_boot_before_any_module_is_loaded() {
    let Some(machine) = Machine::new() else { return };
    let words = machine.boot.to_string();
    let words: Vec<&str> = words.split(' ').filter(|word| !word.starts_with("proofmark.salt=")).collect();
    let console = machine.boot(&words.join(" "), &["disk"]);
    refused(
        &console,
        &["proofmark-init: refusing to boot: reading /proc/cmdline: proofmark.salt is missing"],
    );
    assert!(!console.contains("virtio_blk"));
}

/// The kernel finds the disks in any order; whichever it takes must match the root hash.
#[test]
fn of_two_disks_with_the_same_guids_the_changed_one_never_runs() {
    let Some(machine) = Machine::new() else { return };
    fs::copy(machine.at("disk"), machine.at("twin")).expect("copies");
    let program = machine.program();
    machine.flip("twin", program);
    let console = machine.boot(&machine.boot.to_string(), &["disk", "twin"]);
    let block = format!("data block {} is corrupted", (program - ROOT_START) / 4096);
    assert!(console.contains(STARTED) != console.contains(&block), "{console}");
}
