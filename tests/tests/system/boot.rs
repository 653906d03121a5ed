//! Builds and boots images of the recipes: OVMF, the UKI, the root on verity, and what runs in them.
//!
//! # Shape
//! Each machine runs under TCG in `proofmark run`, with one processor but for one, and ends with its test, after [`LIMIT`] at the
//! latest. The test reads its console, and the ports that it answers on. Refusals that need no firmware boot the UKI's
//! kernel and initrd directly.
//!
//! # Not here
//! The init alone (`guest_boot`), `proofmark run` alone (`run_boot`), the gateway without a machine (`openclaw_chat`).
//! TCG is not a confidential machine: only the measurements of one show what else its host may do.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ovmf_measure::pe::Pe;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::inputs::Inputs;
use system_tests::model::Model;
use system_tests::{chat, direct, program, tool};

/// Time limit for a machine, on a busy computer.
const LIMIT: Duration = Duration::from_secs(420);
/// What `minimal` prints when it is up and no unit failed.
const UP: &str = "0 loaded units listed.";
const KEY: &str = "key-of-the-model-server";
const TOKEN: &str = "token-of-the-gateway-0123456789abcdef";
/// The highest exposure that `systemd-analyze security` may report.
const EXPOSURE: f64 = 1.5;
const SECTOR: u64 = 512;
const BLOCK: u64 = 4096;

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A folder for one test.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// Makes the folder; `None`, with a loud message, when QEMU or OVMF is missing outside CI.
    fn new() -> Option<Self> {
        tool::find("qemu-system-x86_64")?;
        tool::file(&["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd"], "ovmf")?;
        Some(Self::without_machine())
    }

    fn without_machine() -> Self {
        let shared = env!("CARGO_TARGET_TMPDIR");
        Bench { folder: tempfile::Builder::new().prefix("boot").tempdir_in(shared).unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of this folder and returns its path.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Builds a recipe.
    fn build(&self, recipe: &Path, profile: &str) -> Image {
        let folder = self.at(profile);
        let begun = Instant::now();
        let mut command = Command::new(program::proofmark());
        command.arg("build").arg(recipe).args(["--profile", profile, "--quiet", "--out"]).arg(&folder);
        let done = command.stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        eprintln!("{} {profile}: built in {:.1} s", recipe.display(), begun.elapsed().as_secs_f64());
        Image::read(folder)
    }

    /// Builds the release image of a shipped recipe with more lines; the recipe is in a folder of this name.
    fn build_with(&self, name: &str, shipped: &str, more: &str) -> Image {
        let shipped = workspace().join(shipped).canonicalize().unwrap();
        let recipe = self.at(name);
        fs::create_dir_all(&recipe).unwrap();
        let text = format!("extends = [\"{}\"]\n{more}", relative(&recipe, &shipped));
        fs::write(recipe.join("recipe.toml"), text).unwrap();
        fs::copy(shipped.join("recipe.lock"), recipe.join("recipe.lock")).unwrap();
        self.build(&recipe, "release")
    }

    /// Starts a machine.
    fn boot(&self, image: &Path, words: &[String]) -> Machine {
        let console = self.at("console");
        let _ = fs::remove_file(&console);
        let mut command = Command::new(program::proofmark());
        command.arg("run").arg(image).args(["--accel", "tcg", "--console"]).arg(&console);
        command.args(["--timeout", &LIMIT.as_secs().to_string()]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Machine { child: command.spawn().unwrap(), console, begun: Instant::now() }
    }
}

/// The outputs of a build.
struct Image {
    folder: PathBuf,
    manifest: Value,
}

impl Image {
    fn read(folder: PathBuf) -> Self {
        let manifest = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        Image { folder, manifest }
    }

    fn disk(&self) -> PathBuf {
        self.folder.join("disk.raw")
    }

    /// The offset of a partition on the disk, in bytes.
    fn partition(&self, name: &str) -> u64 {
        let partitions = self.manifest["disk"]["partitions"].as_array().unwrap();
        let one = partitions.iter().find(|one| one["name"] == name).unwrap();
        one["first_lba"].as_u64().unwrap() * SECTOR
    }

    /// The offset on the disk of bytes that occur once in the ESP.
    fn in_esp(&self, bytes: &[u8]) -> u64 {
        let start = self.partition("esp");
        let mut disk = File::open(self.disk()).unwrap();
        disk.seek(SeekFrom::Start(start)).unwrap();
        let mut esp = Vec::new();
        disk.read_to_end(&mut esp).unwrap();
        let mut places = (0..esp.len() - bytes.len()).filter(|&at| esp[at..].starts_with(bytes));
        let place = places.next().unwrap();
        assert_eq!(places.next(), None, "more than once");
        start + place as u64
    }

    /// Changes one byte of a copy of the disk.
    fn with_changed_byte(&self, bench: &Bench, offset: u64, change: impl Fn(u8) -> u8) -> PathBuf {
        let copy = bench.at("changed.raw");
        fs::copy(self.disk(), &copy).unwrap();
        let mut disk = File::options().read(true).write(true).open(&copy).unwrap();
        let mut byte = [0];
        disk.seek(SeekFrom::Start(offset)).unwrap();
        disk.read_exact(&mut byte).unwrap();
        let changed = change(byte[0]);
        assert_ne!(changed, byte[0]);
        disk.seek(SeekFrom::Start(offset)).unwrap();
        disk.write_all(&[changed]).unwrap();
        copy
    }

    /// The digest of the UKI on a disk, which firmware measures.
    fn uki_digest(&self, disk: &Path) -> String {
        hex::encode(Sha256::digest(self.uki(disk)))
    }

    /// The UKI on a disk.
    fn uki(&self, disk: &Path) -> Vec<u8> {
        let size = self.manifest["outputs"]["image.efi"]["size"].as_u64().unwrap();
        let mut head = [0; BLOCK as usize];
        File::open(self.folder.join("image.efi")).unwrap().read_exact(&mut head).unwrap();
        let mut disk = File::open(disk).unwrap();
        disk.seek(SeekFrom::Start(self.in_esp(&head))).unwrap();
        let mut uki = Vec::new();
        disk.take(size).read_to_end(&mut uki).unwrap();
        uki
    }
}

/// A running machine, killed on drop.
struct Machine {
    child: Child,
    console: PathBuf,
    begun: Instant,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// The console's text so far.
    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).replace('\r', "")
    }

    /// Waits until the console shows `text`.
    fn wait_for(&mut self, text: &str) -> String {
        loop {
            let ended = self.child.try_wait().unwrap();
            let said = self.said();
            if said.contains(text) {
                eprintln!("{text:?} after {:.1} s", self.seconds());
                return said;
            }
            assert!(ended.is_none(), "{text:?} was never said: {ended:?}\n{said}");
            assert!(self.begun.elapsed() < LIMIT, "{text:?} is not said\n{said}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the machine ends by itself.
    fn wait_for_the_end(&mut self) -> (ExitStatus, String) {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                eprintln!("ended after {:.1} s", self.seconds());
                return (status, self.said());
            }
            let said = self.said();
            assert!(self.begun.elapsed() < LIMIT && !said.contains(UP), "{said}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn minimal() -> Image {
    Image::read(Inputs::minimal().image("release"))
}

/// The words for a machine with one processor, since its guest has one busy thread.
fn on_one(words: &[String]) -> Vec<String> {
    ["--vcpus".to_owned(), "1".to_owned()].into_iter().chain(words.iter().cloned()).collect()
}

/// Asserts that the changed disk does not boot through the firmware; returns the console's text.
fn does_not_boot(bench: &Bench, disk: &Path) -> String {
    let (status, said) = bench.boot(disk, &on_one(&[])).wait_for_the_end();
    // 1: the guest reset the machine, as a panic does.
    assert_eq!(status.code(), Some(1), "{said}");
    panicked(said)
}

/// Asserts that a UKI's kernel, initrd and command line do not boot this disk; returns the console's text.
fn does_not_boot_directly(bench: &Bench, uki: &[u8], disk: &Path) -> String {
    let pe = Pe::read(uki).unwrap();
    let section = |name: &str| {
        let named = |one: &&ovmf_measure::pe::Section| one.name.is(name);
        let one = pe.sections().iter().find(named).unwrap();
        let start = one.file_offset as usize;
        &uki[start..start + one.memory_size as usize]
    };
    let [kernel, initrd] = [".linux", ".initrd"].map(|name| {
        let path = bench.at(name);
        fs::write(&path, section(name)).unwrap();
        path
    });
    let boot = direct::Boot {
        kernel: &kernel,
        initrd: &initrd,
        command_line: std::str::from_utf8(section(".cmdline")).unwrap().trim_end_matches('\0'),
        disks: &[disk.display().to_string()],
    };
    panicked(direct::boot(boot, &bench.at("console")))
}

/// Asserts that the kernel panicked, and that nothing came up before.
fn panicked(said: String) -> String {
    assert!(!said.contains(UP), "{said}");
    assert!(said.contains("Kernel panic"), "{said}");
    said
}

#[test]
fn a_release_image_boots_through_ovmf_and_no_unit_fails() {
    let Some(bench) = Bench::new() else { return };
    // With the two processors that `run` gives it: the other boots have one.
    bench.boot(&minimal().folder, &[]).wait_for(UP);
}

#[test]
fn a_changed_byte_of_the_root_does_not_boot_and_the_console_says_which_block() {
    let Some(bench) = Bench::new() else { return };
    let image = minimal();
    // The superblock of EROFS is in the first block, at 1024.
    let changed =
        image.with_changed_byte(&bench, image.partition("root-x86-64") + 1024 + 40, |byte| byte ^ 1);
    let said = does_not_boot(&bench, &changed);
    assert!(said.contains("data block 0 is corrupted"), "{said}");
    // The measurement does not show this change: what firmware measures is untouched, and verity alone refuses.
    assert_eq!(image.uki_digest(&changed), image.manifest["outputs"]["image.efi"]["sha256"]);
}

#[test]
fn a_changed_byte_of_the_hash_tree_does_not_boot_and_the_console_says_which_block() {
    let Some(bench) = Bench::new() else { return };
    let image = minimal();
    let block = image.manifest["verity"]["hash_start"].as_u64().unwrap();
    let offset = image.partition("root-x86-64-verity") + block * BLOCK + 7;
    let changed = image.with_changed_byte(&bench, offset, |byte| byte ^ 1);
    let said = does_not_boot_directly(&bench, &image.uki(&changed), &changed);
    assert!(said.contains(&format!("metadata block {block} is corrupted")), "{said}");
}

#[test]
fn a_changed_root_hash_on_the_command_line_does_not_boot_and_changes_the_measurement() {
    let Some(bench) = Bench::new() else { return };
    let image = minimal();
    let hash = image.manifest["verity"]["root_hash"].as_str().unwrap();
    let word = format!("proofmark.roothash={hash}");
    let digit = image.in_esp(word.as_bytes()) + word.len() as u64 - 1;
    let changed = image.with_changed_byte(&bench, digit, |byte| if byte == b'0' { b'1' } else { b'0' });
    let said = does_not_boot_directly(&bench, &image.uki(&changed), &changed);
    let block = image.manifest["verity"]["hash_start"].as_u64().unwrap();
    assert!(said.contains(&format!("metadata block {block} is corrupted")), "{said}");
    assert_ne!(image.uki_digest(&changed), image.manifest["outputs"]["image.efi"]["sha256"]);
}

/// A changed word that verity does not need, such as `systemd.import_credentials=no`, or init code that still runs
/// does not stop the boot: only the UKI's measurement shows it, as the second half of the test asserts.
#[test]
fn a_changed_byte_of_the_init_does_not_boot_and_changes_the_measurement() {
    let Some(bench) = Bench::new() else { return };
    let image = minimal();
    // In the initrd's archive: the name, then zeros up to four bytes, then the program.
    let init = image.in_esp(b"init\0\0\x7fELF") + 6;
    let changed = image.with_changed_byte(&bench, init, |byte| byte ^ 1);
    let said = does_not_boot_directly(&bench, &image.uki(&changed), &changed);
    assert!(said.contains("init"), "{said}");
    assert_ne!(image.uki_digest(&changed), image.manifest["outputs"]["image.efi"]["sha256"]);

    let word = image.in_esp(b"systemd.import_credentials=no");
    let open = image.with_changed_byte(&bench, word, |byte| byte ^ 1);
    assert_ne!(image.uki_digest(&open), image.manifest["outputs"]["image.efi"]["sha256"]);
}

/// The credentials that a debug image of OpenClaw takes, as words for `proofmark run`.
fn credentials(bench: &Bench, model: &Model) -> Vec<String> {
    let secrets = json!({"gateway": {"token": TOKEN}, "models": {"bailian": {"apiKey": KEY}}});
    let secrets = bench.write("secrets.json", &secrets.to_string());
    // QEMU's network gives the guest the host's loopback at this address.
    let model = format!("OPENCLAW_MODEL_BASE_URL=http://10.0.2.2:{}/v1\n", model.port());
    let model = bench.write("model.env", &model);
    let word = |name: &str, path: &Path| format!("{name}=@{}", path.display());
    [
        "--credential".into(),
        word("openclaw.secrets", &secrets),
        "--credential".into(),
        word("openclaw.model", &model),
    ]
    .into()
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn the_gateway_answers_a_chat_through_a_forwarded_port_and_tells_no_secret() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.build(&workspace().join("recipes/openclaw"), "debug");
    let model = Model::start("127.0.0.1", KEY).unwrap();
    let port = free_port();
    let mut words = credentials(&bench, &model);
    words.extend(["--forward".to_owned(), format!("{port}:18790")]);
    let machine = bench.boot(&image.folder, &on_one(&words));
    let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if let Err(error) = chat::wait_ready(gateway, LIMIT) {
        panic!("{error}\n{}", machine.said());
    }
    eprintln!("ready after {:.1} s", machine.seconds());

    let wrong = chat::over_http(gateway, "wrong", "Good morning", LIMIT).unwrap_err();
    assert!(wrong.to_string().starts_with("401 "), "{wrong}");
    assert!(model.asked().is_empty(), "a wrong token was good enough");

    let answer = chat::over_http(gateway, TOKEN, "What is the colour of the sky?", LIMIT);
    let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", machine.said()));
    assert!(answer.contains("MODEL HEARD: ") && answer.contains("the colour of the sky"), "{answer}");
    eprintln!("answered over HTTP after {:.1} s", machine.seconds());
    // A gateway whose event loop stalls for seconds, on a busy machine, closes its connections.
    let closed = |answer: &std::io::Result<String>| {
        answer.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
    };
    let mut sessions = ["agent:main:boot", "agent:main:again", "agent:main:last"].into_iter();
    let answer = loop {
        let Some(session) = sessions.next() else { panic!("closed thrice\n{}", machine.said()) };
        let answer = chat::over_websocket(gateway, TOKEN, session, "Good evening", LIMIT);
        if !closed(&answer) {
            break answer;
        }
    };
    let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", machine.said()));
    assert!(answer.contains("MODEL HEARD: ") && answer.contains("Good evening"), "{answer}");
    eprintln!("answered over WebSocket after {:.1} s", machine.seconds());

    assert_eq!(model.refused(), 0);
    let asked = json!(model.asked()).to_string();
    assert!(asked.contains("the colour of the sky"));
    for secret in [TOKEN, KEY] {
        assert!(!asked.contains(secret), "the model was told {secret}");
        assert!(!machine.said().contains(secret), "the console tells {secret}");
    }
}

/// A service that prints to the console what a host's credentials achieved.
const PROBE: &str = r#"[Unit]
Description=Tell what became of the credentials of the host
After=openclaw-gateway.path openclaw-gateway.service systemd-tmpfiles-setup.service

[Service]
Type=oneshot
RemainAfterExit=yes
StandardOutput=tty
TTYPath=/dev/ttyS0
ExecStart=/opt/node/bin/node /etc/probe.mjs
ExecStart=/usr/bin/systemctl show --property=Id,ActiveState,ConditionResult openclaw-gateway.path openclaw-gateway.service

[Install]
WantedBy=multi-user.target
"#;

const PROBE_PROGRAM: &str = r#"import fs from "node:fs";
import net from "node:net";
const list = (path) => { try { return fs.readdirSync(path); } catch (error) { return error.code; } };
const smbios = list("/sys/firmware/dmi/entries").filter((name) => name.startsWith("11-"));
const offered = smbios.map((name) => fs.readFileSync(`/sys/firmware/dmi/entries/${name}/raw`, "latin1")).join();
console.log(`PROBE offered ${offered.includes("io.systemd.credential.binary:openclaw.secrets=")}`);
console.log("PROBE secrets", JSON.stringify(list("/run/openclaw-secrets")));
console.log("PROBE credentials", JSON.stringify(list("/run/credentials/@system")));
const socket = net.connect(18789, "127.0.0.1");
socket.on("connect", () => { console.log("PROBE gateway answers"); process.exit(0); });
socket.on("error", (error) => console.log("PROBE gateway", error.code));
"#;

#[test]
fn a_release_image_takes_no_credentials_of_the_host() {
    let Some(bench) = Bench::new() else { return };
    // The release image as it is, plus one service that inspects it.
    bench.write("probe/probe.service", PROBE);
    bench.write("probe/probe.mjs", PROBE_PROGRAM);
    let image = bench.build_with(
        "probe",
        "recipes/openclaw",
        "[systemd]\nenable = [\"probe.service\"]\n\
         [[files]]\nsource = \"probe.service\"\ntarget = \"/etc/systemd/system/probe.service\"\n\
         [[files]]\nsource = \"probe.mjs\"\ntarget = \"/etc/probe.mjs\"\n",
    );
    let model = Model::start("127.0.0.1", KEY).unwrap();
    let words = credentials(&bench, &model);

    // A well-behaved host does not even try.
    let done =
        Command::new(program::proofmark()).arg("run").arg(&image.folder).args(&words).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("is a release image, which ignores credentials of the host"), "{said}");

    // A malicious host offers them through SMBIOS anyway: without its manifest, the disk could be any disk.
    let alone = bench.at("any.raw");
    fs::hard_link(image.disk(), &alone).unwrap();
    let said = bench.boot(&alone, &on_one(&words)).wait_for("Id=openclaw-gateway.service");
    eprintln!("{}", said.lines().filter(|line| line.contains("PROBE")).collect::<Vec<_>>().join("\n"));
    assert!(said.contains("PROBE offered true"), "{said}");
    assert!(said.contains("PROBE secrets []"), "{said}");
    assert!(said.contains("PROBE credentials \"ENOENT\""), "{said}");
    assert!(said.contains("PROBE gateway ECONNREFUSED"), "{said}");
    assert!(!said.contains(TOKEN) && !said.contains(KEY), "{said}");
}

/// A service whose program fails, and then switches the machine off so that nobody waits for readiness.
const BROKEN: &str = r#"
[systemd]
enable = ["broken.service"]
[[files]]
target = "/etc/systemd/system/broken.service"
text = """
[Service]
ExecStart=/usr/bin/systemctl no-such-verb
[Install]
WantedBy=multi-user.target
"""
[[files]]
target = "/etc/systemd/system/failure@broken.service.service.d/20-off.conf"
text = """
[Service]
ExecStartPost=/usr/bin/systemctl poweroff
"""
"#;

#[test]
fn a_unit_that_fails_is_named_on_the_console_and_by_who_waits() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.build_with("broken", "recipes/minimal", BROKEN);
    let mut command = Command::new(program::proofmark());
    command.arg("run").arg(&image.folder).args(["--accel", "tcg", "--until-ready", "--timeout"]);
    let done = command.arg(LIMIT.as_secs().to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.lines().any(|line| line == "broken.service failed"), "{said}");
    let error = "the guest switched itself off, before it was ready; units that failed: broken.service;";
    assert!(said.contains(error), "{said}");
}

/// The relative path from one folder to another.
fn relative(from: &Path, to: &Path) -> String {
    let from = from.canonicalize().unwrap();
    let shared = from.components().zip(to.components()).take_while(|(one, other)| one == other).count();
    let up = from.components().skip(shared).map(|_| "..".to_owned());
    let down = to.components().skip(shared).map(|part| part.as_os_str().to_str().unwrap().to_owned());
    up.chain(down).collect::<Vec<_>>().join("/")
}

#[test]
fn the_unit_of_the_gateway_is_hardened_by_the_measure_of_the_systemd_in_the_image() {
    let bench = Bench::without_machine();
    if tool::find("dpkg-deb").is_none() {
        return;
    }
    // The image's own systemd-analyze, with the image's libraries, from the very packages that its lock names.
    let vendored = bench.at("vendored");
    let mut vendor = Command::new(program::proofmark());
    vendor.arg("vendor").arg(&vendored).arg(workspace().join("recipes/minimal"));
    let done = vendor.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let root = bench.at("root");
    for package in packages(&vendored) {
        let done = Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let unit = workspace().join("recipes/openclaw/files/openclaw-gateway.service").canonicalize().unwrap();
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let done = Command::new(libraries.join("ld-linux-x86-64.so.2"))
        .arg("--library-path")
        .arg(format!("{0}:{0}/systemd", libraries.display()))
        .arg(root.join("usr/bin/systemd-analyze"))
        .args(["security", "--no-pager", "--offline=true", "--json=off"])
        .arg(unit)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    let words = said.split_once("Overall exposure level for openclaw-gateway.service: ").unwrap().1;
    let exposure: f64 = words.split(' ').next().unwrap().parse().unwrap();
    eprintln!("exposure {exposure}");
    assert!(exposure <= EXPOSURE, "{said}");
}

/// The packages in a folder that `proofmark vendor` wrote, except the kernel, which is large.
fn packages(vendored: &Path) -> Vec<PathBuf> {
    let paths = system_tests::folder::paths(vendored).unwrap().into_iter();
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let wanted = paths.filter(|path| path.extension().is_some_and(|end| end == "deb"));
    wanted.filter(|path| !name(path).starts_with("linux-image")).map(|path| vendored.join(path)).collect()
}
