//! `proofmark run`: boots an image in QEMU, and shows its console or waits until it answers.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use proofmark::claim::file;
use proofmark::flow::measure;
use proofmark::host::machine::console::{Keys, Sink};
use proofmark::host::machine::ready::{Answer, Ready};
use proofmark::host::machine::{
    self, Accelerator, Choice, Credential, End, Environment, Error, Firmware, Forward, Machine, Memory, QEMU,
    Request, SWTPM, Tpm,
};
use proofmark::host::progress::Progress;
use proofmark::recipe::Profile;
use proofmark::session::Session;
use serde_json::json;

use crate::failure::hinted;
use crate::format::Format;

/// Default time in seconds for a guest to become ready: without KVM on a busy machine it takes minutes.
const PATIENCE: u64 = 600;
/// Pause between two checks of the machine.
const PAUSE: Duration = Duration::from_millis(50);
/// Interval between lines of progress without a terminal.
const EVERY: Duration = Duration::from_secs(15);
/// Characters of a console line that progress shows.
const SHOWN: usize = 60;

/// Boots an image in QEMU with OVMF. What the guest writes goes to a temporary overlay; the image is never written.
///
/// The serial console is shown on standard output. It takes keys when standard input and output are both terminals;
/// Ctrl-C ends the machine. With --until-ready, only its last lines are shown, if the guest does not become ready.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A folder that `proofmark build` wrote, or a raw disk.
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// Memory, such as 512M or 2G.
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    pub memory: Memory,
    /// Processors.
    #[arg(long, value_name = "NUMBER", default_value = "2")]
    pub vcpus: NonZeroU16,
    /// Forward a port of 127.0.0.1 to a port of the guest; may be given several times.
    #[arg(long, value_name = "HOST:GUEST")]
    pub forward: Vec<Forward>,
    /// OVMF's code, with its variables beside it, or firmware in one file [default: the distribution's].
    #[arg(long, value_name = "FILE", env = "PROOFMARK_OVMF")]
    pub firmware: Option<PathBuf>,
    /// How instructions run; auto uses KVM if a small guest really runs under it.
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub accel: Accel,
    /// Give systemd in the guest a credential; may be given several times. Debug images only.
    #[arg(long, value_name = "NAME=VALUE|NAME=@FILE")]
    pub credential: Vec<Credential>,
    /// Give the guest a new, emulated TPM 2.0.
    #[arg(long)]
    pub tpm: bool,
    /// Start this UKI with QEMU's -kernel, whatever the disk's system partition holds.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Attach another raw disk, which the guest may write; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub drive: Vec<PathBuf>,
    /// Also write the serial console to a file.
    #[arg(long, value_name = "FILE")]
    pub console: Option<PathBuf>,
    /// Wait until the guest answers over HTTP with status 200, print the base URL, then end the machine.
    #[arg(long)]
    pub until_ready: bool,
    /// The guest's port to ask, through a forward to a free port unless --forward names one.
    #[arg(long, value_name = "PORT", default_value = "18790", requires = "until_ready")]
    pub ready_port: NonZeroU16,
    /// The path to ask.
    #[arg(long, value_name = "PATH", default_value = "/readyz", requires = "until_ready")]
    pub ready_path: String,
    /// The URL to ask, instead of a port of the guest.
    #[arg(long, value_name = "URL", requires = "until_ready", conflicts_with_all = ["ready_port", "ready_path"])]
    pub ready_url: Option<String>,
    /// Once the guest is ready, let it run until it ends or Ctrl-C.
    #[arg(long, requires = "until_ready")]
    pub keep_running: bool,
    /// End the machine after this many seconds and fail; with --until-ready, only if it is not ready by then [default
    /// with --until-ready: 600].
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// How instructions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// KVM when a small guest runs under it, else TCG.
    Auto,
    /// On this processor, through the kernel.
    Kvm,
    /// By translation: everywhere, but slowly.
    Tcg,
}

/// What ended the wait.
enum Outcome {
    Ready,
    Ended(End),
    Interrupted,
    TimedOut(Duration),
}

/// Runs an image.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let image = Image::open(&arguments.image)?;
    if image.profile == Some(Profile::Release) && !arguments.credential.is_empty() {
        return Err(hinted(
            format!(
                "{} is a release image, which ignores credentials of the host: in a confidential machine the host \
                 is the adversary",
                arguments.image.display()
            ),
            "build the recipe's debug profile and run that, or leave --credential out",
        ));
    }
    let environment = Environment::of_this_process();
    let qemu = environment.find(QEMU).map_err(advise)?;
    if arguments.tpm {
        environment.find(SWTPM).map_err(advise)?;
    }
    let firmware = match &arguments.firmware {
        Some(firmware) => Firmware::given(firmware),
        None => Firmware::find(&qemu),
    };
    let firmware = firmware.map_err(advise)?;
    let choice = match arguments.accel {
        Accel::Auto => machine::choose(&qemu, &environment).map_err(advise)?,
        Accel::Kvm => Choice { accelerator: Accelerator::Kvm, reason: "asked for".to_owned() },
        Accel::Tcg => Choice { accelerator: Accelerator::Tcg, reason: "asked for".to_owned() },
    };
    session.progress.note(&format!("accelerator: {} ({})", choice.accelerator.name(), choice.reason));

    let mut forwards = arguments.forward.clone();
    let url = arguments.until_ready.then(|| ready_url(arguments, &mut forwards)).transpose()?;
    let request = Request {
        accelerator: choice.accelerator,
        vcpus: arguments.vcpus,
        memory: arguments.memory,
        firmware,
        disk: image.disk,
        kernel: arguments.kernel.clone(),
        drives: arguments.drive.clone(),
        forwards,
        credentials: arguments.credential.clone(),
        tpm: if arguments.tpm { Tpm::Emulated } else { Tpm::Absent },
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("cannot catch signals")?;
    }
    let sinks = sinks(arguments, format)?;
    let machine = Machine::start(&qemu, &request, &environment, sinks).map_err(advise)?;
    let mut guest = Guest { machine, interrupted, session, format, accelerator: choice.accelerator };
    match url {
        Some(url) => guest.until_ready(arguments, &url),
        None => guest.until_the_end(arguments),
    }
}

/// A disk, and what is known about it.
#[derive(Debug)]
struct Image {
    disk: PathBuf,
    profile: Option<Profile>,
}

/// The part of a manifest that matters here.
#[derive(Debug, serde::Deserialize)]
struct Head {
    profile: Profile,
}

impl Image {
    /// Opens the image of a folder, or a disk; a manifest beside a disk is trusted.
    fn open(path: &Path) -> anyhow::Result<Self> {
        let meta = fs::metadata(path).map_err(|source| {
            anyhow::Error::new(source).context(format!("cannot open {}", path.display()))
        })?;
        let disk = if meta.is_dir() { path.join(file::DISK) } else { path.to_owned() };
        if !meta.is_dir() && !meta.is_file() {
            return Err(measure::Error::NoDisk { path: disk }.into());
        }
        if !disk.is_file() {
            return Err(hinted(
                format!("{} holds no disk.raw", path.display()),
                "name the folder that `proofmark build` wrote, such as out/NAME-VERSION, or a raw disk",
            ));
        }
        let manifest = disk.with_file_name(file::MANIFEST);
        // A manifest does not describe other disks beside it.
        let own = disk.file_name().is_some_and(|name| name == file::DISK);
        let profile = match fs::read(&manifest) {
            Ok(text) if own => {
                let head: Head = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is not an image manifest", manifest.display()))?;
                Some(head.profile)
            }
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", manifest.display())),
        };
        Ok(Image { disk, profile })
    }
}

/// The URL that tells readiness; if its port is the guest's, it is forwarded.
fn ready_url(arguments: &Arguments, forwards: &mut Vec<Forward>) -> anyhow::Result<String> {
    if let Some(url) = &arguments.ready_url {
        return Ok(url.clone());
    }
    let host = match forwards.iter().find(|forward| forward.guest == arguments.ready_port) {
        Some(forward) => forward.host,
        None => {
            let host = machine::free_port().context("no free port of 127.0.0.1")?;
            forwards.push(Forward { host, guest: arguments.ready_port });
            host
        }
    };
    Ok(format!("http://127.0.0.1:{host}/{}", arguments.ready_path.trim_start_matches('/')))
}

/// Where the console goes: a file, and standard output unless that is for results.
fn sinks(arguments: &Arguments, format: Format) -> anyhow::Result<Vec<Sink>> {
    let mut sinks: Vec<Sink> = Vec::new();
    if format == Format::Text && !arguments.until_ready {
        sinks.push(Box::new(io::stdout()));
    }
    if let Some(path) = &arguments.console {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        sinks.push(Box::new(file));
    }
    Ok(sinks)
}

/// A guest that is being watched.
struct Guest<'a> {
    machine: Machine,
    interrupted: Arc<AtomicBool>,
    session: &'a Session,
    format: Format,
    accelerator: Accelerator,
}

impl Guest<'_> {
    /// Waits for readiness, reports it, and ends the machine.
    fn until_ready(&mut self, arguments: &Arguments, url: &str) -> anyhow::Result<ExitCode> {
        let ready = Ready::ask(url);
        let limit = Duration::from_secs(arguments.timeout.unwrap_or(PATIENCE));
        let outcome = self.wait(Some(limit), Some(&ready))?;
        let seconds = self.machine.age().as_secs_f64();
        match outcome {
            Outcome::Ready => {}
            Outcome::TimedOut(limit) => {
                let answer = match ready.answer() {
                    Answer::NotYet(why) => why,
                    Answer::None | Answer::Ready => "none".to_owned(),
                };
                let limit = limit.as_secs();
                let what = format!(
                    "the guest was not ready within {limit} s; the last answer of {url} was: {answer}"
                );
                return Err(self.failure(&what));
            }
            outcome => return Err(self.failure(&format!("{}, before it was ready", told(&outcome)))),
        }
        self.session.progress.note(&format!("ready after {seconds:.1} s"));
        match self.format {
            Format::Text => say(url)?,
            Format::Json => {
                let document = json!({
                    "ready": true,
                    "url": url,
                    "seconds": rounded(seconds),
                    "accelerator": self.accelerator.name(),
                });
                say(&document.to_string())?;
            }
        }
        if arguments.keep_running {
            match self.wait(None, None)? {
                Outcome::Ended(End::PoweredOff) | Outcome::Interrupted => {}
                outcome => return Err(self.failure(&told(&outcome))),
            }
        }
        self.close()
    }

    /// Shows the console until the guest switches the machine off.
    fn until_the_end(&mut self, arguments: &Arguments) -> anyhow::Result<ExitCode> {
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let keys = if terminal { self.machine.keys().map(Keys::pass_to) } else { None };
        let outcome = self.wait(arguments.timeout.map(Duration::from_secs), None)?;
        drop(keys);
        let seconds = self.machine.age().as_secs_f64();
        if !matches!(outcome, Outcome::Ended(End::PoweredOff)) {
            return Err(self.failure(&told(&outcome)));
        }
        self.session.progress.note(&format!("the guest switched itself off after {seconds:.1} s"));
        if self.format == Format::Json {
            let document = json!({
                "ended": "powered-off",
                "seconds": rounded(seconds),
                "accelerator": self.accelerator.name(),
            });
            say(&document.to_string())?;
        }
        self.close()
    }

    /// Waits until an event ends the wait; shows progress while waiting for readiness.
    fn wait(&mut self, limit: Option<Duration>, ready: Option<&Ready>) -> anyhow::Result<Outcome> {
        let progress = self.session.progress;
        let stage = (ready.is_some() && progress == Progress::Terminal).then(|| progress.stage("boot", 0));
        let mut noted = Duration::ZERO;
        let mut failed = 0;
        loop {
            let age = self.machine.age();
            for unit in self.machine.console().failed().iter().skip(failed) {
                failed += 1;
                progress.note(&format!("{unit} failed"));
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Ok(Outcome::Interrupted);
            }
            if ready.is_some_and(|ready| ready.answer() == Answer::Ready) {
                return Ok(Outcome::Ready);
            }
            if let Some(end) = self.machine.end()? {
                return Ok(Outcome::Ended(end));
            }
            if let Some(limit) = limit.filter(|&limit| age >= limit) {
                return Ok(Outcome::TimedOut(limit));
            }
            if let Some(stage) = &stage {
                stage.now(&format!("boot  {}", self.last_line()));
            } else if ready.is_some() && age >= noted + EVERY {
                noted = age;
                progress.note(&format!("boot {:>4} s  {}", age.as_secs(), self.last_line()));
            }
            thread::sleep(PAUSE);
        }
    }

    /// The last line of the console.
    fn last_line(&mut self) -> String {
        self.machine.console().last().chars().take(SHOWN).collect()
    }

    /// Ends the machine, and makes sure that the whole console is written.
    fn close(&mut self) -> anyhow::Result<ExitCode> {
        self.machine.stop();
        self.machine.console().finish().context("cannot write all of the console")?;
        Ok(ExitCode::SUCCESS)
    }

    /// Ends the machine, and returns a failure with the last lines of the console if they were not shown.
    fn failure(&mut self, what: &str) -> anyhow::Error {
        self.machine.stop();
        // Report only the first failure.
        let _ = self.machine.console().finish();
        let failed = self.machine.console().failed();
        let what = if failed.is_empty() {
            what.to_owned()
        } else {
            format!("{what}; units that failed: {}", failed.join(", "))
        };
        let lines: String = self.machine.console().all().iter().map(|line| format!("\n  {line}")).collect();
        if lines.is_empty() {
            return anyhow::anyhow!("{what}; the console said nothing");
        }
        anyhow::anyhow!("{what}; the last lines of the console:{lines}")
    }
}

/// Describes what happened, for people.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ready => "the guest is ready".to_owned(),
        Outcome::Ended(End::PoweredOff) => "the guest switched itself off".to_owned(),
        Outcome::Ended(End::Reset) => {
            "the guest asked for a reboot, as a kernel that panics does, and is not started again".to_owned()
        }
        Outcome::Ended(End::Stuck(said)) => format!("QEMU cannot go on{said}"),
        Outcome::Ended(End::Lost(status, said)) => format!("QEMU ended with {status}{said}"),
        Outcome::Interrupted => "interrupted".to_owned(),
        Outcome::TimedOut(limit) => format!("timed out after {} s", limit.as_secs()),
    }
}

/// Prints a line to standard output.
fn say(line: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// Rounds to tenths of a second.
fn rounded(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

/// Adds what to do next, if that is known.
fn advise(error: Error) -> anyhow::Error {
    let hint = match &error {
        Error::NoProgram { program } if *program == SWTPM => {
            "install it: `apt-get install swtpm` (Debian, Ubuntu), `dnf install swtpm` (Fedora)"
        }
        Error::NoProgram { .. } => {
            "install QEMU: `apt-get install qemu-system-x86` (Debian, Ubuntu), `dnf install qemu-system-x86-core` \
             (Fedora)"
        }
        Error::NoFirmware { .. } => {
            "install OVMF: `apt-get install ovmf` (Debian, Ubuntu), `dnf install edk2-ovmf` (Fedora); or name it by \
             --firmware FILE or PROOFMARK_OVMF"
        }
        _ => return error.into(),
    };
    hinted(error.to_string(), hint)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        run: Arguments,
    }

    fn read(words: &[&str]) -> Result<Arguments, clap::Error> {
        Ok(Program::try_parse_from(["run"].iter().chain(words))?.run)
    }

    #[test]
    fn the_flags_fit_together() {
        Program::command().debug_assert();
        let plain = read(&["out"]).unwrap();
        assert!(plain.accel == Accel::Auto && plain.forward.is_empty() && !plain.until_ready);
        for words in [
            &["out", "--ready-port", "80"][..],
            &["out", "--keep-running"],
            &["out", "--until-ready", "--ready-url", "http://x/", "--ready-port", "80"],
            &["out", "--forward", "80"],
            &["out", "--memory", "2"],
            &["out", "--vcpus", "0"],
            &["out", "--credential", "secret"],
            &[],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn the_ready_port_is_forwarded_unless_it_already_is() {
        let arguments = read(&["out", "--until-ready", "--forward", "8080:18790"]).unwrap();
        let mut forwards = arguments.forward.clone();
        assert_eq!(ready_url(&arguments, &mut forwards).unwrap(), "http://127.0.0.1:8080/readyz");
        assert_eq!(forwards, arguments.forward);

        let arguments = read(&["out", "--until-ready", "--ready-port", "80", "--ready-path", "up"]).unwrap();
        let mut forwards = Vec::new();
        let url = ready_url(&arguments, &mut forwards).unwrap();
        let [forward] = forwards[..] else { panic!("{forwards:?}") };
        assert_eq!(forward.guest.get(), 80);
        assert_eq!(url, format!("http://127.0.0.1:{}/up", forward.host));

        let arguments = read(&["out", "--until-ready", "--ready-url", "http://127.0.0.1:9/x"]).unwrap();
        let mut forwards = Vec::new();
        assert_eq!(ready_url(&arguments, &mut forwards).unwrap(), "http://127.0.0.1:9/x");
        assert!(forwards.is_empty());
    }

    #[test]
    fn a_folder_is_an_image_by_its_disk_and_its_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk.raw");
        let error = Image::open(folder.path()).unwrap_err();
        assert!(error.to_string().ends_with("holds no disk.raw"), "{error}");
        let error = Image::open(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.to_string(), "/dev/null is neither an image's folder nor a disk image");
        fs::write(&disk, "").unwrap();
        assert_eq!(Image::open(folder.path()).unwrap().profile, None);
        let manifest = folder.path().join("manifest.json");
        for profile in Profile::ALL {
            fs::write(&manifest, format!("{{\"profile\": \"{}\", \"more\": 1}}", profile.name())).unwrap();
            assert_eq!(Image::open(folder.path()).unwrap().profile, Some(profile));
            assert_eq!(Image::open(&disk).unwrap().profile, Some(profile));
        }
        fs::write(&manifest, "{").unwrap();
        let error = Image::open(folder.path()).unwrap_err();
        assert!(error.to_string().ends_with("is not an image manifest"), "{error}");
        let other = folder.path().join("other.raw");
        fs::write(&other, "").unwrap();
        assert_eq!(Image::open(&other).unwrap().profile, None);
        assert!(Image::open(&folder.path().join("none")).is_err());
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_install() {
        for (program, hint) in [(QEMU, "qemu-system-x86"), (SWTPM, "swtpm")] {
            let error = advise(Error::NoProgram { program });
            let hinted = error.downcast_ref::<crate::failure::Hinted>().unwrap();
            assert!(hinted.hint.contains(&format!("apt-get install {hint}")), "{}", hinted.hint);
        }
        let error = advise(Error::NoFirmware { tried: Vec::new() });
        assert!(
            error.downcast_ref::<crate::failure::Hinted>().unwrap().hint.contains("apt-get install ovmf")
        );
    }
}
