//! `proofmark audit`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use ovmf_measure::digest::{Algorithm, Digest};
use ovmf_measure::reference::Reference;
use ovmf_measure::stub::Uki;
use proofmark::amount;
use proofmark::claim::file;
use proofmark::claim::reference::{self as values, Detail, Mismatch};
use proofmark::host::output;
use proofmark::host::raw_disk::{Pass, StoredTree};
use proofmark_guest::init::cmdline::Boot;

use super::measure;
use crate::cli::{Format, Session};
use crate::failure::{NO, hinted};

/// Computes all reference values of an image again from its bytes, the root file system's hash included, and compares
/// them with a document. What differs is said register by register: the first event, and the input that it points to.
///
/// Exits with 0 when everything agrees, and with 4 when something does not.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A folder that `proofmark build` wrote, or a raw disk.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// The document: reference-values.json.
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    #[command(flatten)]
    firmware: measure::FirmwareFiles,
    /// Print every event of every register, not only what differs.
    #[arg(long)]
    explain: bool,
}

/// Audits.
pub fn run(arguments: &Arguments, session: &Session) -> anyhow::Result<ExitCode> {
    let document = measure::document(&arguments.reference)?;
    let place = measure::place(&arguments.image)?;
    let opened = measure::open(&place)?;
    let machines = measure::machines(&document)
        .with_context(|| format!("{} lists a machine that is not known", arguments.reference.display()))?;
    let uki = Uki::read(&opened.uki)?;
    let command_line = uki.section(".cmdline").map(|piece| piece.bytes.to_vec()).unwrap_or_default();
    let boot = Boot::parse(&command_line).map_err(|error| {
        let message = format!("the measured command line names no root file system: {error}");
        hinted(message, "audit an image that `proofmark build` wrote")
    })?;
    let stage = session.progress.stage("hash disk", opened.disk.bytes());
    // The values need nothing of the root file system, and of the whole disk no more than its name.
    let inputs = opened.inputs(&machines, &values::ORDERS);
    let firmware = || place.firmware(&machines, &arguments.firmware, session);
    let program = || (Algorithm::Sha256.of(&opened.uki), is_beside(&opened.uki, place.folder.as_deref()));
    let (pass, (hashed, (uki, beside))) = rayon::join(
        || opened.disk.pass(&boot, &|bytes| stage.advance(bytes)),
        || rayon::join(|| values::hash(&inputs, firmware), program),
    );
    let (pass, hashed, beside) = (pass?, hashed?, beside?);
    stage.done(&amount::bytes(opened.disk.bytes()));
    let disk = Some(Digest::Sha256(pass.sha256.0));
    let computed = hashed.document(values::Files { uki, disk, disk_bytes: opened.disk.bytes() })?;
    let mut mismatches = of_root(&pass, &boot);
    if !beside {
        mismatches.push(mismatch(
            "uki",
            file::UKI,
            "the program in the disk's system partition".to_owned(),
            "another file".to_owned(),
            "image.efi or the disk: one of them was changed",
        ));
    }
    mismatches.extend(values::compare(&document, &computed));
    say(&document, &computed, &mismatches, arguments, session)?;
    Ok(if mismatches.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

/// Whether the program that a folder has beside its disk, if it has one, is the one in the disk.
fn is_beside(program: &[u8], folder: Option<&Path>) -> anyhow::Result<bool> {
    let Some(path) = folder.map(|folder| folder.join(file::UKI)) else { return Ok(true) };
    let compare = || -> io::Result<bool> {
        let mut beside = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            opened => opened?,
        };
        if beside.metadata()?.len() != program.len() as u64 {
            return Ok(false);
        }
        let mut piece = [0; 64 << 10];
        for expected in program.chunks(piece.len()) {
            let found = piece.get_mut(..expected.len()).unwrap_or_default();
            beside.read_exact(found)?;
            if found != expected {
                return Ok(false);
            }
        }
        Ok(true)
    };
    compare().with_context(|| format!("cannot read {}", path.display()))
}

fn mismatch(register: &str, subject: &str, expected: String, found: String, points_to: &str) -> Mismatch {
    Mismatch {
        platform: None,
        register: register.to_owned(),
        event: None,
        subject: subject.to_owned(),
        expected,
        found,
        points_to: points_to.to_owned(),
    }
}

fn of_root(pass: &Pass, boot: &Boot) -> Vec<Mismatch> {
    let mut all = Vec::new();
    let (expected, found) = (hex::encode(boot.root_hash.0), hex::encode(pass.root_hash));
    if expected != found {
        let points_to = "the root file system: its bytes are not those of the measured command line";
        all.push(mismatch("root hash", "root file system", expected, found, points_to));
    } else if let StoredTree::Differs(at) = pass.tree {
        let expected = "the tree of the root file system".to_owned();
        let found = format!("other bytes from {at:#x} of its partition on");
        all.push(mismatch("root hash", "hash tree", expected, found, "the partition root-verity"));
    }
    all
}

fn say(
    document: &Reference,
    computed: &Reference,
    mismatches: &[Mismatch],
    arguments: &Arguments,
    session: &Session,
) -> anyhow::Result<()> {
    if session.format == Format::Json {
        let platforms: Vec<_> = computed
            .platforms
            .iter()
            .map(|platform| {
                serde_json::json!({
                    "platform": platform.name,
                    "algorithm": platform.algorithm,
                    "shape": platform.shape,
                    "mrtd": platform.mrtd,
                    "registers": values::registers_json(platform),
                    "events": values::events_json(platform),
                })
            })
            .collect();
        let mut answer = serde_json::json!({
            "agrees": mismatches.is_empty(),
            "mismatches": mismatches,
            "platforms": platforms,
        });
        // With one machine its registers stand where `measure` has them.
        if let ([only], Some(map)) = (computed.platforms.as_slice(), answer.as_object_mut()) {
            map.insert("registers".to_owned(), values::registers_json(only));
            map.insert("events".to_owned(), values::events_json(only));
        }
        return Ok(output::print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?);
    }
    let mut text = String::new();
    let detail = if arguments.explain { Detail::Explained } else { Detail::Values };
    for platform in &computed.platforms {
        text.push_str(&values::text(platform, detail));
    }
    for mismatch in mismatches {
        let platform = mismatch.platform.as_deref().unwrap_or("the image");
        let event = mismatch.event.map_or(String::new(), |index| format!(", event {index}"));
        text.push_str(&format!(
            "DIFFERS {platform}: {}{event}, {}\n  expected {}\n  found    {}\n  points to {}\n",
            mismatch.register, mismatch.subject, mismatch.expected, mismatch.found, mismatch.points_to
        ));
    }
    text.push_str(&match mismatches.len() {
        0 => format!(
            "agrees: {} {} ({}), {} machines, root file system hashed again\n",
            document.image.name,
            document.image.version,
            document.image.profile,
            document.platforms.len()
        ),
        count => format!("{count} values do not agree with {}\n", arguments.reference.display()),
    });
    Ok(output::print(&text)?)
}
