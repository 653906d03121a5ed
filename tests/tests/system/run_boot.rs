//! Tests `proofmark run` with a guest of 512 bytes: how it ends, what it shows, and that nothing stays behind.
//!
//! # Shape
//! The guest is a boot sector that SeaBIOS starts: it writes to its disk, says so on the serial port, then switches
//! the machine off, resets it, or waits. QEMU runs it under TCG, with a time limit.
//!
//! # Not here
//! OVMF's path to a UKI, and images of recipes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of tests fail as tests do

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use system_tests::{program, tool};

const SAID: &str = "THE GUEST IS UP";
/// Time limit for a guest in seconds, on a very busy machine.
const LIMIT: &str = "120";

/// How the guest ends.
#[derive(Clone, Copy)]
enum Then {
    SwitchOff,
    Reset,
    Wait,
}

/// A disk of 1 MiB whose first sector is the guest.
fn disk(then: Then) -> Vec<u8> {
    let then: &[u8] = match then {
        // PM1a_CNT.SLP_EN, where SeaBIOS puts ICH9's registers: mov dx, 0x604; mov ax, 0x2000; out dx, ax.
        Then::SwitchOff => &[0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef],
        // The reset control register: mov dx, 0xcf9; mov al, 6; out dx, al.
        Then::Reset => &[0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee],
        Then::Wait => &[],
    };
    let mut code = vec![
        0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00,
        0x7c, // segments 0, stack below 0x7c00
        0xb8, 0x01, 0x03, 0xbb, 0x00, 0x7c, 0xb9, 0x02, 0x00, 0xba, 0x80,
        0x00, // write one sector to the second
        0xcd, 0x13, 0x72, 0, // int 0x13; jc the end
        0xbe, 0, 0x7d, 0xfc, // mov si, 0x7d00; cld
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, // each byte to the serial port, until 0
    ];
    let jump = 26;
    code.extend_from_slice(then);
    code[jump] = (code.len() - jump - 1) as u8;
    code.extend_from_slice(&[0xf4, 0xeb, 0xfd]); // hlt, for ever
    let mut disk = vec![0; 1 << 20];
    disk[..code.len()].copy_from_slice(&code);
    let text = format!("{SAID}\r\n");
    disk[0x100..0x100 + text.len()].copy_from_slice(text.as_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// A folder with a disk, and what it takes to run it.
struct Bench {
    folder: tempfile::TempDir,
    firmware: PathBuf,
}

impl Bench {
    /// Makes it; `None`, with a loud message, when QEMU or SeaBIOS is missing outside CI.
    fn new(then: Then) -> Option<Self> {
        tool::find("qemu-system-x86_64")?;
        let paths = ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"];
        let firmware = tool::file(&paths, "seabios")?;
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // QEMU needs commas doubled, and shells need blanks quoted.
        let folder = tempfile::Builder::new().prefix("a, b").tempdir_in(shared).expect("creates");
        fs::write(folder.path().join("disk.raw"), disk(then)).expect("writes");
        Some(Bench { folder, firmware })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = program();
        command.arg("--store").arg(self.at("store")).arg("run").arg(self.at("disk.raw"));
        command
            .arg("--firmware")
            .arg(&self.firmware)
            .args(["--accel", "tcg", "--memory", "64M", "--vcpus", "1"]);
        command.args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        finish(&mut self.command(words))
    }

    /// The digest of the disk.
    fn digest(&self) -> String {
        hex::encode(Sha256::digest(fs::read(self.at("disk.raw")).expect("reads")))
    }

    /// The number of processes with the disk on their command line.
    fn processes(&self) -> usize {
        let name = self.folder.path().file_name().and_then(|name| name.to_str()).expect("text");
        // The part of the name after the comma, which is doubled there.
        let (_, name) = name.split_once(", ").expect("a comma");
        let lines = fs::read_dir("/proc").expect("reads").flatten().map(|entry| entry.path().join("cmdline"));
        lines
            .filter(|line| fs::read(line).is_ok_and(|line| String::from_utf8_lossy(&line).contains(name)))
            .count()
    }

    fn nothing_is_left(&self) {
        let begun = Instant::now();
        while self.processes() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "QEMU is still there");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn program() -> Command {
    let mut command = Command::new(program::proofmark());
    command.stdin(Stdio::null()).env_remove("PROOFMARK_OVMF").env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

fn finish(command: &mut Command) -> Output {
    let output = command.output().expect("starts");
    eprintln!("{command:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asserts that it failed, and that it printed each of these.
#[track_caller]
fn failed(output: &Output, code: i32, said: &[&str]) {
    assert_eq!(output.status.code(), Some(code));
    for part in said {
        assert!(text(&output.stderr).contains(part), "does not say {part:?}");
    }
}

#[test]
fn a_guest_that_switches_itself_off_ends_well_and_the_image_is_as_before() {
    let Some(bench) = Bench::new(Then::SwitchOff) else { return };
    let before = bench.digest();
    let console = bench.at("console");
    let output = bench.run(&["--timeout", LIMIT, "--console", console.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains(SAID));
    assert_eq!(fs::read(console).expect("reads"), output.stdout);
    // The guest speaks only after its write has succeeded.
    assert_eq!(bench.digest(), before);
    bench.nothing_is_left();
}

#[test]
fn a_guest_that_asks_for_a_reboot_has_failed() {
    let Some(bench) = Bench::new(Then::Reset) else { return };
    let output = bench.run(&["--timeout", LIMIT]);
    failed(&output, 1, &["error: the guest asked for a reboot", SAID]);
    bench.nothing_is_left();
}

#[test]
fn a_guest_that_ends_before_it_is_ready_has_failed_and_its_last_words_are_told() {
    let Some(bench) = Bench::new(Then::SwitchOff) else { return };
    let output = bench.run(&["--timeout", LIMIT, "--until-ready"]);
    failed(&output, 1, &["error: the guest switched itself off, before it was ready", SAID]);
    assert_eq!(text(&output.stdout), "");
    bench.nothing_is_left();
}

#[test]
fn a_guest_that_never_answers_is_ended_when_the_time_is_up() {
    let Some(bench) = Bench::new(Then::Wait) else { return };
    let output = bench.run(&["--timeout", "15", "--until-ready", "--json"]);
    failed(
        &output,
        1,
        &["error: the guest was not ready within 15 s; the last answer of http://127.0.0.1:", SAID],
    );
    assert_eq!(text(&output.stdout), "");
    bench.nothing_is_left();
}

#[test]
fn a_ready_guest_is_told_and_ended() {
    let Some(bench) = Bench::new(Then::Wait) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/readyz", listener.local_addr().expect("bound"));
    let server = thread::spawn(move || {
        for status in ["503 Service Unavailable", "200 OK"] {
            let (mut stream, _) = listener.accept().expect("accepts");
            let _ = stream.read(&mut [0; 1024]).expect("reads");
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .expect("writes");
        }
    });
    let output = bench.run(&["--timeout", LIMIT, "--until-ready", "--ready-url", &url, "--json"]);
    assert_eq!(output.status.code(), Some(0));
    server.join().expect("ends");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!((&told["ready"], &told["url"]), (&true.into(), &url.as_str().into()));
    assert_eq!(told["accelerator"], "tcg");
    assert!(told["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    bench.nothing_is_left();
}

/// Starts a guest that waits, and returns the program once the guest is up.
fn started(bench: &Bench) -> Child {
    let console = bench.at("console");
    let mut command = bench.command(&["--timeout", LIMIT, "--console", console.to_str().expect("text")]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let begun = Instant::now();
    while !fs::read(&console).is_ok_and(|said| text(&said).contains(SAID)) {
        assert!(begun.elapsed() < Duration::from_secs(100), "the guest does not come up");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(bench.processes() > 1);
    child
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let process = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(process, signal).expect("signals");
}

#[test]
fn an_interrupt_ends_the_machine() {
    let Some(bench) = Bench::new(Then::Wait) else { return };
    let child = started(&bench);
    signal(&child, rustix::process::Signal::INT);
    let output = child.wait_with_output().expect("ends");
    failed(&output, 1, &["error: interrupted"]);
    bench.nothing_is_left();
}

#[test]
fn the_machine_does_not_outlive_a_killed_program() {
    let Some(bench) = Bench::new(Then::Wait) else { return };
    if tool::find("setpriv").is_none() {
        return;
    }
    let mut child = started(&bench);
    child.kill().expect("kills");
    child.wait().expect("ends");
    bench.nothing_is_left();
}

#[test]
fn a_machine_with_a_tpm_and_credentials_starts_and_leaves_nothing() {
    let Some(bench) = Bench::new(Then::SwitchOff) else { return };
    if tool::find("swtpm").is_none() {
        return;
    }
    let secret = bench.at("secret");
    fs::write(&secret, "hidden").expect("writes");
    let credential = format!("b=@{}", secret.display());
    let output =
        bench.run(&["--timeout", LIMIT, "--tpm", "--credential", "a=shown", "--credential", &credential]);
    assert_eq!(output.status.code(), Some(0));
    bench.nothing_is_left();
}

#[test]
fn a_release_image_takes_no_credentials() {
    let folder = tempfile::tempdir().expect("creates");
    fs::write(folder.path().join("disk.raw"), "").expect("writes");
    fs::write(folder.path().join("manifest.json"), "{\"profile\": \"release\"}").expect("writes");
    let mut command = program();
    command.arg("--store").arg(folder.path().join("store")).arg("run").arg(folder.path());
    let output = finish(command.args(["--credential", "token=secret"]));
    failed(
        &output,
        1,
        &["is a release image, which ignores credentials of the host", "hint: build the recipe's debug"],
    );
    assert!(!text(&output.stderr).contains("secret"));
}

#[test]
fn what_is_missing_or_wrong_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().expect("creates");
    let disk = folder.path().join("disk.raw");
    fs::write(&disk, "").expect("writes");
    let command = |words: &[&str]| {
        let mut command = program();
        command.arg("--store").arg(folder.path().join("store")).arg("run").args(words);
        command
    };
    let disk = disk.to_str().expect("text");
    let output = finish(command(&[disk]).env("PATH", folder.path()));
    let hint = "hint: install QEMU: `apt-get install qemu-system-x86`";
    failed(&output, 1, &["error: qemu-system-x86_64 is not in PATH", hint]);
    failed(&finish(&mut command(&["/no/such/image"])), 1, &["error: cannot open /no/such/image"]);
    failed(&finish(&mut command(&[disk, "--forward", "80"])), 2, &["expected HOST:GUEST"]);
    if tool::find("qemu-system-x86_64").is_some() {
        let output = finish(&mut command(&[disk, "--firmware", "/no/such/firmware"]));
        failed(&output, 1, &["error: cannot use /no/such/firmware", "No such file"]);
    }
}
