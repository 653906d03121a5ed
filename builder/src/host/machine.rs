//! Yields a virtual machine that boots a disk, from the QEMU and firmware found on this machine.
//!
//! # Shape
//! ```text
//! disk.raw --(snapshot=on: guest writes go to an unlinked temporary file)--> virtio-blk
//! OVMF code, a fresh copy of its variables                               --> pflash
//! 127.0.0.1:HOST                                                         --> the guest's own address:GUEST
//! ttyS0  <-> QEMU's standard input and output  <-> [`Console`]
//! QMP    <-> a socket in a private folder       -> how the machine ended
//! ```
//! QEMU, and swtpm if requested, are child processes: they end with this one and leave nothing behind.
//!
//! # Source
//! qemu-system-x86_64(1), QEMU 7.2 and later; the QMP events SHUTDOWN, STOP and their reasons:
//! qapi/run-state.json.
//!
//! # Not here
//! Confidential machines (TDX, SEV-SNP), which clouds run; the meaning of an image.

mod accelerator;
mod command;
pub mod console;
pub mod ready;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::num::NonZeroU16;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ExitStatus};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use self::accelerator::{Accelerator, Choice, choose};
pub use self::command::{Plan, command};

use self::console::{Console, Sink};
use super::tool::running::{Running, Start};
use super::tool::{self, Tail};

/// QEMU's program.
pub const QEMU: &str = "qemu-system-x86_64";
/// The TPM emulator's program.
pub const SWTPM: &str = "swtpm";

/// Time limit for QEMU or swtpm to become reachable; they need 0.1 s on an idle machine.
const START: Duration = Duration::from_secs(30);
/// Pause between two polls.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest line of QMP that is read, in bytes.
const MAX_EVENT: u64 = 1 << 16;

/// Why a machine cannot be started or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not installed.
    #[error("{program} is not in PATH")]
    NoProgram {
        /// Its name.
        program: &'static str,
    },
    /// No firmware was found.
    #[error("no OVMF firmware in any of {}", listed(.tried))]
    NoFirmware {
        /// Where the search looked.
        tried: Vec<PathBuf>,
    },
    /// The given firmware is code only, without variables beside it.
    #[error("{} has only code, and its variables are not beside it: expected {}", code.display(), expected.display())]
    NoVariables {
        /// The code.
        code: PathBuf,
        /// Where the variables are expected.
        expected: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program ended or did not respond before the machine was up.
    #[error("{program} did not start{said}")]
    NotStarted {
        /// The program.
        program: &'static str,
        /// The end of its stderr.
        said: Tail,
    },
    /// A program cannot be started, or its state is lost.
    #[error(transparent)]
    Tool(#[from] tool::Error),
    /// The text is not a size.
    #[error("expected a size such as 512M or 2G, found {found:?}")]
    Memory {
        /// The text given.
        found: String,
    },
    /// The text is not a pair of ports.
    #[error("expected HOST:GUEST, two port numbers from 1 to 65535, found {found:?}")]
    Forward {
        /// The text given.
        found: String,
    },
    /// The text is not a credential.
    #[error(
        "expected NAME=VALUE or NAME=@FILE, where NAME is made of letters, digits, `.`, `_` and `-`, found {found:?}"
    )]
    Credential {
        /// The name given; never the value.
        found: String,
    },
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("\n  {}", path.display())).collect()
}

/// A machine's memory, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory(u32);

impl FromStr for Memory {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Memory { found: text.to_owned() };
        let (number, factor) = match (text.strip_suffix(['M', 'm']), text.strip_suffix(['G', 'g'])) {
            (Some(number), _) => (number, 1),
            (_, Some(number)) => (number, 1024),
            _ => return Err(wrong()),
        };
        let number: u32 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).filter(|&size| size > 0).map(Memory).ok_or_else(wrong)
    }
}

/// A port of 127.0.0.1 that forwards to a port of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Port on this machine, on loopback only.
    pub host: NonZeroU16,
    /// Port of the guest's network interface: the guest's own loopback cannot be reached.
    pub guest: NonZeroU16,
}

impl FromStr for Forward {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let ports =
            text.split_once(':').and_then(|(host, guest)| Some((host.parse().ok()?, guest.parse().ok()?)));
        let (host, guest) = ports.ok_or_else(|| Error::Forward { found: text.to_owned() })?;
        Ok(Forward { host, guest })
    }
}

/// Returns a free port of 127.0.0.1.
///
/// # Errors
/// The system's error.
pub fn free_port() -> io::Result<NonZeroU16> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    NonZeroU16::new(port).ok_or_else(|| io::Error::other("port 0 was given"))
}

/// A secret for systemd in the guest.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The name by which units request it.
    pub name: String,
    /// Its content.
    pub value: Value,
}

/// Where a credential's content is.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// In this value.
    Given(String),
    /// In a file.
    File(PathBuf),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.name)
    }
}

impl FromStr for Credential {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.len() == name.len() || name.is_empty() || !name.bytes().all(plain) {
            return Err(Error::Credential { found: name.to_owned() });
        }
        let value = match value.strip_prefix('@') {
            Some(file) => Value::File(file.into()),
            None => Value::Given(value.to_owned()),
        };
        Ok(Credential { name: name.to_owned(), value })
    }
}

/// Firmware of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// The code, or the whole firmware.
    pub code: PathBuf,
    /// The variables, if in a separate file; they are copied.
    pub variables: Option<PathBuf>,
}

impl Firmware {
    /// Returns the firmware in a file; if the file's name says that it is code only, its variables must be
    /// beside it.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::NoVariables`].
    pub fn given(code: &Path) -> Result<Self, Error> {
        fs::metadata(code).map_err(|source| Error::File { path: code.to_owned(), source })?;
        let name = code.file_name().unwrap_or_default().to_string_lossy();
        let named = name.replace(".secboot", "").replace("CODE", "VARS").replace("code", "vars");
        if !name.contains("CODE") && !name.contains("code") {
            return Ok(Firmware { code: code.to_owned(), variables: None });
        }
        // QEMU's own 32-bit and 64-bit builds share their variables.
        let names = [named.replace("x86_64", "i386"), named];
        let beside = names.map(|name| code.with_file_name(name));
        match beside.iter().find(|path| path.is_file()) {
            Some(variables) => Ok(Firmware { code: code.to_owned(), variables: Some(variables.clone()) }),
            None => {
                let [_, expected] = beside;
                Err(Error::NoVariables { code: code.to_owned(), expected })
            }
        }
    }

    /// Finds the first installed firmware, in the places where distributions put it.
    ///
    /// # Errors
    /// [`Error::NoFirmware`].
    pub fn find(qemu: &Path) -> Result<Self, Error> {
        Self::first_of(places(qemu))
    }

    fn first_of(places: Vec<PathBuf>) -> Result<Self, Error> {
        let found = places.iter().find_map(|code| Firmware::given(code).ok());
        found.ok_or(Error::NoFirmware { tried: places })
    }
}

/// Lists where distributions install firmware without Secure Boot: 4 MiB builds first; a UKI of 100 MB hardly
/// needs larger variables.
fn places(qemu: &Path) -> Vec<PathBuf> {
    let fixed = [
        // Debian, Ubuntu.
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_CODE.fd",
        // Fedora.
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        // Arch Linux.
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2-ovmf/x64/OVMF_CODE.fd",
        // openSUSE.
        "/usr/share/qemu/ovmf-x86_64-4m-code.bin",
        // Gentoo.
        "/usr/share/edk2-ovmf/OVMF_CODE.fd",
        // NixOS.
        "/run/libvirt/nix-ovmf/OVMF_CODE.fd",
        // A single-file build.
        "/usr/share/ovmf/OVMF.fd",
        "/usr/share/qemu/OVMF.fd",
    ];
    let mut places: Vec<PathBuf> = fixed.iter().map(PathBuf::from).collect();
    // Firmware bundled with QEMU, as in Nix and in builds from source.
    let program = fs::canonicalize(qemu).unwrap_or_else(|_| qemu.to_owned());
    if let Some(prefix) = program.parent().and_then(Path::parent) {
        places.push(prefix.join("share/qemu/edk2-x86_64-code.fd"));
    }
    places
}

/// The parts of this process's environment that matter here.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Search path for programs.
    pub path: OsString,
    /// The whole environment of QEMU and swtpm, except for the temporary folder.
    pub variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Returns this process's environment: QEMU gets only the variables that it may need to find libraries.
    pub fn of_this_process() -> Self {
        let kept = ["PATH", "HOME", "LD_LIBRARY_PATH"];
        let variables =
            kept.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?))).collect();
        Environment { path: std::env::var_os("PATH").unwrap_or_default(), variables }
    }

    /// Finds a program.
    ///
    /// # Errors
    /// [`Error::NoProgram`].
    pub fn find(&self, program: &'static str) -> Result<PathBuf, Error> {
        std::env::split_paths(&self.path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
            .ok_or(Error::NoProgram { program })
    }

    fn start(&self, program: &Path, arguments: Vec<OsString>, folder: &Path) -> Result<Running, tool::Error> {
        let mut environment = self.variables.clone();
        // QEMU's overlay is created here and unlinked at once.
        environment.insert("TMPDIR".into(), folder.into());
        Start { program: program.to_owned(), arguments, environment, folder: folder.to_owned() }.start()
    }
}

fn private_folder() -> Result<tempfile::TempDir, Error> {
    let made = tempfile::Builder::new().prefix("proofmark-run-").tempdir();
    made.map_err(|source| Error::File { path: std::env::temp_dir(), source })
}

/// A request for a machine.
#[derive(Debug)]
pub struct Request {
    /// How instructions run.
    pub accelerator: Accelerator,
    /// Processors.
    pub vcpus: NonZeroU16,
    /// Memory.
    pub memory: Memory,
    /// The firmware.
    pub firmware: Firmware,
    /// The disk to boot; it is never written.
    pub disk: PathBuf,
    /// A UKI to start before any disk.
    pub kernel: Option<PathBuf>,
    /// Further disks, which are written.
    pub drives: Vec<PathBuf>,
    /// Forwarded ports.
    pub forwards: Vec<Forward>,
    /// Secrets for the guest.
    pub credentials: Vec<Credential>,
    /// Whether the machine has a TPM.
    pub tpm: Tpm,
}

/// Whether a machine has a TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tpm {
    /// No.
    Absent,
    /// Yes: a new TPM 2.0, emulated by swtpm.
    Emulated,
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest powered it off.
    PoweredOff,
    /// The guest asked for a reboot, as a panicking kernel also does.
    Reset,
    /// QEMU cannot continue with this guest.
    Stuck(Tail),
    /// QEMU ended for another reason.
    Lost(ExitStatus, Tail),
}

/// An event that QMP reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Shutdown,
    Reset,
    Stop,
}

/// A running machine; it ends on drop.
#[derive(Debug)]
pub struct Machine {
    qemu: Running,
    _tpm: Option<Running>,
    console: Console,
    events: Arc<Mutex<Option<Event>>>,
    listener: Option<JoinHandle<()>>,
    started: Instant,
    _folder: tempfile::TempDir,
}

/// Returns the firmware with a copy of its variables, which the machine may write.
fn own_variables(firmware: &Firmware, copy: PathBuf) -> Result<Firmware, Error> {
    let code = absolute(&firmware.code)?;
    let Some(variables) = &firmware.variables else { return Ok(Firmware { code, variables: None }) };
    let copied = fs::read(variables).and_then(|bytes| fs::write(&copy, bytes));
    copied.map_err(|source| Error::File { path: variables.clone(), source })?;
    Ok(Firmware { code, variables: Some(copy) })
}

/// Waits until QEMU connects to its control socket.
fn connected(
    listener: &UnixListener,
    qemu: &mut Running,
    started: Instant,
    control: &Path,
) -> Result<UnixStream, Error> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(source) => return Err(Error::File { path: control.to_owned(), source }),
        }
        if qemu.ended()?.is_some() || started.elapsed() > START {
            return Err(Error::NotStarted { program: QEMU, said: qemu.stderr() });
        }
        thread::sleep(PAUSE);
    }
}

impl Machine {
    /// Starts a machine and passes its console to the sinks.
    ///
    /// # Errors
    /// [`Error`]; then nothing is left running.
    pub fn start(
        qemu: &Path,
        request: &Request,
        environment: &Environment,
        sinks: Vec<Sink>,
    ) -> Result<Self, Error> {
        let folder = private_folder()?;
        let at = |name: &str| folder.path().join(name);
        let firmware = own_variables(&request.firmware, at("variables.fd"))?;
        let disk = absolute(&request.disk)?;
        File::open(&disk).map_err(|source| Error::File { path: disk.clone(), source })?;
        let kernel = request.kernel.as_deref().map(absolute).transpose()?;
        let drives = request.drives.iter().map(|drive| absolute(drive)).collect::<Result<Vec<_>, _>>()?;
        let mut strings = Vec::new();
        for (number, credential) in request.credentials.iter().enumerate() {
            let path = at(&format!("string{number}"));
            let text = smbios_string(credential)?;
            // The folder is private; a command line is not.
            fs::write(&path, text).map_err(|source| Error::File { path: path.clone(), source })?;
            strings.push(path);
        }
        let tpm = match request.tpm {
            Tpm::Absent => None,
            Tpm::Emulated => Some(start_tpm(environment, folder.path())?),
        };
        let control = at("control");
        let listener = UnixListener::bind(&control)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|source| Error::File { path: control.clone(), source })?;
        let plan = Plan {
            accelerator: request.accelerator,
            vcpus: request.vcpus,
            memory: request.memory,
            firmware: &firmware,
            disk: &disk,
            kernel: kernel.as_deref(),
            drives: &drives,
            forwards: &request.forwards,
            strings: &strings,
            tpm: tpm.as_ref().map(|(_, socket)| socket.as_path()),
            control: &control,
        };
        let started = Instant::now();
        let mut qemu = environment.start(qemu, command(&plan), folder.path())?;
        let stream = connected(&listener, &mut qemu, started, &control)?;
        let console = match qemu.stdout() {
            Some(stream) => Console::read(stream, sinks),
            None => Console::read(io::empty(), sinks),
        };
        let events = Arc::new(Mutex::new(None));
        let told = Arc::clone(&events);
        let listener = thread::spawn(move || {
            // If QMP breaks off, QEMU's exit status still tells that it ended.
            let _ = stream.set_nonblocking(false).and_then(|()| listen(stream, &told));
        });
        Ok(Machine {
            qemu,
            _tpm: tpm.map(|(running, _)| running),
            console,
            events,
            listener: Some(listener),
            started,
            _folder: folder,
        })
    }

    /// Returns how long the machine has been running.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the guest's console output.
    pub fn console(&mut self) -> &mut Console {
        &mut self.console
    }

    /// Returns the guest's keyboard input, once.
    pub fn keys(&mut self) -> Option<ChildStdin> {
        self.qemu.stdin()
    }

    /// Returns how the machine ended, if it has.
    ///
    /// # Errors
    /// When QEMU's state is lost.
    pub fn end(&mut self) -> Result<Option<End>, Error> {
        let status = self.qemu.ended()?;
        if status.is_some()
            && let Some(listener) = self.listener.take()
        {
            // QEMU has closed its end of the socket; a panic of the listener would have ended this process.
            let _ = listener.join();
        }
        let event = self.events.lock().map_or(None, |event| *event);
        Ok(match (status, event) {
            (Some(status), Some(Event::Shutdown)) if status.success() => Some(End::PoweredOff),
            (Some(status), Some(Event::Reset)) if status.success() => Some(End::Reset),
            (Some(status), _) => Some(End::Lost(status, self.qemu.stderr())),
            (None, Some(Event::Stop)) => Some(End::Stuck(self.qemu.stderr())),
            (None, _) => None,
        })
    }

    /// Stops the machine at once.
    pub fn stop(&mut self) {
        self.qemu.stop();
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Encodes a credential as an SMBIOS type 11 string (systemd.system-credentials(7), systemd 252 and later).
fn smbios_string(credential: &Credential) -> Result<String, Error> {
    let value = match &credential.value {
        Value::Given(text) => text.clone().into_bytes(),
        Value::File(path) => fs::read(path).map_err(|source| Error::File { path: path.clone(), source })?,
    };
    Ok(format!("io.systemd.credential.binary:{}={}", credential.name, STANDARD.encode(value)))
}

/// Starts a new TPM; returns it and its socket.
fn start_tpm(environment: &Environment, folder: &Path) -> Result<(Running, PathBuf), Error> {
    let program = environment.find(SWTPM)?;
    let state = folder.join("tpm");
    fs::create_dir(&state).map_err(|source| Error::File { path: state.clone(), source })?;
    let socket = folder.join("tpm.socket");
    // Relative to its working folder: swtpm's options have no quoting.
    let arguments = ["socket", "--tpm2", "--tpmstate", "dir=tpm", "--ctrl", "type=unixio,path=tpm.socket"];
    let begun = Instant::now();
    let mut running = environment.start(&program, arguments.map(OsString::from).into(), folder)?;
    while !socket.exists() {
        if running.ended()?.is_some() || begun.elapsed() > START {
            return Err(Error::NotStarted { program: SWTPM, said: running.stderr() });
        }
        thread::sleep(PAUSE);
    }
    Ok((running, socket))
}

/// Reads QMP to its end, and keeps the event that tells how the machine ended.
fn listen(stream: UnixStream, told: &Mutex<Option<Event>>) -> io::Result<()> {
    (&stream).write_all(b"{\"execute\": \"qmp_capabilities\"}\n")?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if (&mut stream).take(MAX_EVENT).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if let (Some(event), Ok(mut told)) = (event(&line), told.lock()) {
            told.get_or_insert(event);
        }
    }
}

/// Returns the event in a line of QMP, if it ends the machine.
fn event(line: &[u8]) -> Option<Event> {
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    match line.get("event")?.as_str()? {
        "STOP" => Some(Event::Stop),
        "SHUTDOWN" => match line.get("data")?.get("reason")?.as_str()? {
            "guest-shutdown" => Some(Event::Shutdown),
            "guest-reset" | "guest-panic" => Some(Event::Reset),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
