//! `proofmark log`.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use proofmark::host::tlog::directory::{Cosigners, Directory, MOST_ENTRIES, Unwitnessed, Writer};
use proofmark::host::tlog::medium::Disk;
use proofmark::host::tlog::web::{PATIENCE, Server, Tiles};
use proofmark::host::tlog::witness::{Asking, Own as Witness};
use proofmark::host::tlog::{audit, monitor};
use proofmark::host::{clock, output, small_file};
use proofmark::trust::bundle::PublicKey;
use proofmark::trust::envelope::Envelope;
use proofmark::trust::transparency::note::{Note, VerifierKey};
use proofmark::trust::transparency::tile::Source;

use crate::failure::{NO, hinted};
use crate::format::Format;
use crate::options::tlog::{policy, signing_key};

/// Makes, writes, serves and watches transparency logs. A log is a folder that any static web server can publish.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make an empty log in a folder.
    Init(Init),
    /// Append entries, one per line: canonical hashedrekord 0.0.2. `proofmark publish` does this for images.
    Append(Append),
    /// Check a whole log: checkpoint, every entry, every tile. Exits with 4 when anything is wrong.
    Audit(Audit),
    /// Serve as a witness: cosign the states of logs that follow from those seen before.
    Witness(WitnessArguments),
    /// Look at what is new in a log since the last look. Exits with 4 on an alarm.
    Monitor(Monitor),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// Folder of the log.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The log's key, from `proofmark key --log NAME FILE`. Its name is the log's.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Append {
    /// Folder of the log.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The log's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Logs and witnesses (tlog-policy): the quorum must cosign before anything is published.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// File of entries; `-` is standard input.
    #[arg(value_name = "FILE")]
    entries: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Audit {
    /// Folder or address of the log.
    #[arg(value_name = "DIR|URL")]
    log: String,
    /// Logs and witnesses (tlog-policy) that must have signed the checkpoint.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
}

#[derive(Debug, clap::Args)]
struct WitnessArguments {
    /// The witness's key, from `proofmark key --witness NAME FILE`.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Folder where it keeps what it saw. If you lose it, you must make a new key.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// A log to cosign for, as a verifier key; may be given several times.
    #[arg(long, value_name = "VKEY", required = true)]
    log: Vec<String>,
    /// Address to listen at, without TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7380")]
    listen: SocketAddr,
}

#[derive(Debug, clap::Args)]
struct Monitor {
    /// Folder or address of the log.
    #[arg(value_name = "DIR|URL")]
    log: String,
    /// Logs and witnesses (tlog-policy) that must have signed the checkpoint.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Folder where the last state is kept.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Your public key, PEM; every entry by it must be known. May be given several times.
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// A folder of your images or envelopes: each *.dsse.json in it is known. May be given several times.
    #[arg(long, value_name = "DIR")]
    known: Vec<PathBuf>,
}

/// Runs a verb of `proofmark log`.
pub fn run(arguments: &Arguments, format: Format) -> anyhow::Result<ExitCode> {
    match &arguments.verb {
        Verb::Init(arguments) => init(arguments),
        Verb::Append(arguments) => append(arguments),
        Verb::Audit(arguments) => whole(arguments, format),
        Verb::Witness(arguments) => witness(arguments),
        Verb::Monitor(arguments) => look(arguments, format),
    }
}

fn init(arguments: &Init) -> anyhow::Result<ExitCode> {
    let writer = Writer::init(&arguments.folder, signing_key(&arguments.key)?)?;
    output::print(&format!("{}\n", writer.key()))?;
    Ok(ExitCode::SUCCESS)
}

fn append(arguments: &Append) -> anyhow::Result<ExitCode> {
    let cannot = || format!("cannot read {}", arguments.entries.display());
    let mut text = Vec::new();
    if arguments.entries == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut text).with_context(cannot)?;
    } else {
        text = std::fs::read(&arguments.entries).with_context(cannot)?;
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let entries: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
    for (number, entry) in (1..).zip(&entries) {
        proofmark::trust::transparency::entry::Entry::parse(entry)
            .with_context(|| format!("line {number} cannot be logged"))?;
    }
    let policy = arguments.policy.as_deref().map(policy).transpose()?;
    let cosigners: Box<dyn Cosigners + '_> = match &policy {
        Some((policy, _)) => Box::new(Asking { policy }),
        None => Box::new(Unwitnessed),
    };
    let mut writer = Writer::open(&arguments.folder, signing_key(&arguments.key)?)?;
    for part in entries.chunks(MOST_ENTRIES) {
        writer.append(part, cosigners.as_ref())?;
    }
    let state = writer.state();
    output::print(&format!("{} {} {}\n", state.origin(), state.size(), state.root()))?;
    Ok(ExitCode::SUCCESS)
}

fn is_address(log: &str) -> bool {
    log.starts_with("http://") || log.starts_with("https://")
}

/// Opens a log's tiles and its checkpoint.
fn open(log: &str) -> anyhow::Result<(Box<dyn Source>, Note)> {
    if is_address(log) {
        let server = Server::new(log, PATIENCE);
        let note = server.fetch("checkpoint")?;
        let note = Note::parse(&note).with_context(|| format!("the checkpoint of {log} is refused"))?;
        return Ok((Box::new(Tiles(server)), note));
    }
    let directory = Directory::open(Path::new(log));
    let note = directory.checkpoint().with_context(|| format!("cannot read the log in {log}"))?;
    Ok((Box::new(directory), note))
}

fn whole(arguments: &Audit, format: Format) -> anyhow::Result<ExitCode> {
    let (policy, _) = policy(&arguments.policy)?;
    let (source, checkpoint) = open(&arguments.log)?;
    let report = match audit::audit(source.as_ref(), &checkpoint, &policy, &mut |_, _| {}) {
        Ok(mut report) => {
            if !is_address(&arguments.log) {
                let damaged = Directory::open(Path::new(&arguments.log)).damaged_blobs()?;
                let told = damaged.iter().map(|name| format!("blobs/{name} does not match its name"));
                report.findings.extend(told);
            }
            report
        }
        Err(error @ proofmark::host::tlog::Error::Policy { .. }) => {
            let text = proofmark::host::chain(&error);
            output::print(&match format {
                Format::Text => format!("refused: {text}\n"),
                Format::Json => format!("{}\n", serde_json::json!({"clean": false, "findings": [text]})),
            })?;
            return Ok(ExitCode::from(NO));
        }
        Err(error) => return Err(error.into()),
    };
    let mut text = match format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Format::Text => format!("{}: {} entries, root {}\n", report.origin, report.size, report.root),
    };
    if format == Format::Text {
        for (witness, time) in &report.cosigned {
            text += &format!("cosigned by {witness} at {time}\n");
        }
        for remark in &report.remarks {
            text += &format!("remark: {remark}\n");
        }
        for finding in &report.findings {
            text += &format!("wrong: {finding}\n");
        }
        if report.untold > 0 {
            text += &format!("wrong: {} more\n", report.untold);
        }
        if report.is_clean() {
            text += "nothing is wrong\n";
        }
    }
    output::print(&text)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

fn witness(arguments: &WitnessArguments) -> anyhow::Result<ExitCode> {
    let logs = arguments.log.iter().map(|text| VerifierKey::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let own = Witness::new(signing_key(&arguments.key)?, logs, &arguments.state)?;
    let listener = TcpListener::bind(arguments.listen)
        .with_context(|| format!("cannot listen at {}", arguments.listen))?;
    output::print(&format!("listening at http://{}\n", listener.local_addr()?))?;
    own.serve(&listener, &clock::now, &|remark| eprintln!("{remark}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads our envelopes below a folder: `*.dsse.json`, and those that a log keeps as blobs.
fn envelopes(folder: &Path, own: &mut monitor::Own, depth: u32) -> anyhow::Result<()> {
    let cannot = || format!("cannot read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        if path.is_dir() && depth > 0 {
            envelopes(&path, own, depth - 1)?;
        } else if path.to_string_lossy().ends_with(".dsse.json") {
            let bytes = small_file::read(&path)?;
            let envelope =
                Envelope::parse(&bytes).with_context(|| format!("cannot use {}", path.display()))?;
            own.knows(envelope);
        }
    }
    Ok(())
}

fn look(arguments: &Monitor, format: Format) -> anyhow::Result<ExitCode> {
    let (policy, _) = policy(&arguments.policy)?;
    let mut own = monitor::Own::default();
    for path in &arguments.key {
        let text = String::from_utf8(small_file::read(path)?)?;
        let key = PublicKey::from_pem(&text).with_context(|| format!("cannot use {}", path.display()))?;
        own.verifiers.insert(key.der().to_vec());
    }
    if own.verifiers.is_empty() && !arguments.known.is_empty() {
        return Err(hinted(
            "envelopes are given, but no key",
            "give --key FILE, so that entries by it are looked for",
        ));
    }
    for folder in &arguments.known {
        envelopes(folder, &mut own, 8)?;
    }
    let (source, checkpoint) = open(&arguments.log)?;
    std::fs::create_dir_all(&arguments.state)
        .with_context(|| format!("cannot make {}", arguments.state.display()))?;
    let look = monitor::look(source.as_ref(), &checkpoint, &policy, &own, &Disk::new(&arguments.state))?;
    output::print(&match format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&look)?),
        Format::Text => {
            let since = match look.before {
                Some(before) => format!("{before} entries at the last look"),
                None => "the first look: nothing earlier is proven".to_owned(),
            };
            let mut text =
                format!("{}: {} entries, {since}; {} new ones are ours\n", look.origin, look.now, look.ours);
            for alarm in &look.alarms {
                text += &format!("alarm: {}\n", serde_json::to_string(alarm)?);
            }
            text
        }
    })?;
    Ok(if look.alarms.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}
