//! `proofmark scan`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use proofmark::claim::file;
use proofmark::claim::scan::vex::{Document, Status};
use proofmark::claim::scan::{self, Component, Database, Finding, Presence, Span, Verdict};
use proofmark::host::built::Built;
use proofmark::host::{clock, files, osv, output};
use proofmark::session::Session;

use crate::failure::{self, hinted};
use crate::format::Format;

/// Lists the known vulnerabilities that affect an image. Exits with 4 when there is one and no VEX document says
/// otherwise. What cannot be determined counts as affected.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of an image that `proofmark build` wrote.
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Folder of a vulnerability database: records of the OSV format, one per file; nothing is fetched.
    #[arg(long, value_name = "DIR")]
    osv: PathBuf,
    /// The digest that the database must have; it is printed with every result.
    #[arg(long, value_name = "SHA256")]
    osv_digest: Option<String>,
    /// An OpenVEX document to trust; may be given several times.
    #[arg(long, value_name = "FILE")]
    vex: Vec<PathBuf>,
    /// Write an OpenVEX document about everything found.
    #[arg(long, value_name = "FILE")]
    vex_out: Option<PathBuf>,
    /// Who makes the statements of that document.
    #[arg(long, value_name = "NAME", default_value = "Unknown Author")]
    author: String,
}

/// The current time, in RFC 3339 format.
fn time() -> String {
    scan::time(clock::now())
}

/// Scans an image.
pub fn run(arguments: &Arguments, session: &Session, format: Format) -> anyhow::Result<ExitCode> {
    let started = time();
    let built = Built::open(&arguments.image)?;
    let lock = built.lock(None)?;
    let sbom = built.output(file::CYCLONEDX)?.ok_or_else(|| {
        let message = format!("{} has no sbom.cdx.json", arguments.image.display());
        hinted(message, "build the image again with this version of proofmark")
    })?;
    let components = scan::inventory(&sbom, lock.as_ref())
        .with_context(|| format!("cannot use {}", arguments.image.join(file::CYCLONEDX).display()))?;
    let mut documents = Vec::new();
    for path in &arguments.vex {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        documents.push(Document::parse(&bytes).with_context(|| format!("cannot use {}", path.display()))?);
    }
    let names: BTreeSet<&str> =
        components.iter().flat_map(|component| &component.names).map(|(name, _)| name.as_str()).collect();
    let stage = session.progress.stage("read database", 0);
    let database = osv::read(&arguments.osv, &names)?;
    if let Some(expected) = &arguments.osv_digest {
        osv::is_the_one(&database, &arguments.osv, expected)?;
    }
    stage.done(&format!("{} records", database.count));
    let uncovered = uncovered(&components, &database);
    for ecosystem in &uncovered {
        session.progress.note(&format!("remark: the database has no record of {ecosystem}"));
    }
    let mut findings = scan::scan(&components, &database.records);
    let image = scan::image_name(&built.manifest);
    scan::apply_vex(&mut findings, &components, &image, &documents);
    let span = Span { started, finished: time() };
    if let Some(path) = &arguments.vex_out {
        let document = scan::openvex(&image, &components, &findings, &arguments.author, &span.finished);
        files::write(path, document.to_text().as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let known = Database { sha256: database.sha256.to_string(), modified: database.modified.clone() };
    match format {
        Format::Json => {
            output::print(&scan::statement(&built.manifest, &components, &findings, &known, &span))?
        }
        Format::Text => output::print(&text(&components, &findings, &known, &uncovered))?,
    }
    let counts = findings.iter().any(|finding| finding.counts(&components));
    Ok(if counts { ExitCode::from(failure::NO) } else { ExitCode::SUCCESS })
}

/// Ecosystems of the image that the database does not cover.
fn uncovered(components: &[Component], database: &osv::Database) -> BTreeSet<String> {
    let here = components.iter().filter(|component| component.presence == Presence::InImage);
    // The init of the initrd is the only crate, and no database knows it.
    let named = here.map(|component| component.ecosystem.name()).filter(|name| name != "crates.io");
    named.filter(|name| !database.ecosystems.contains(osv::base(name))).collect()
}

fn text(
    components: &[Component],
    findings: &[Finding],
    database: &Database,
    uncovered: &BTreeSet<String>,
) -> String {
    let mut text = String::new();
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in findings {
        let Some(component) = components.get(finding.component) else { continue };
        let (word, why) = match (&finding.vex, &finding.verdict) {
            _ if component.presence == Presence::KeptOut => {
                ("absent", "none of its files is in the image".to_owned())
            }
            (Some(said), _) if said.status.clears() => {
                let word = if said.status == Status::Fixed { "fixed" } else { "cleared" };
                let justification = said.justification.as_ref().map(scan::word);
                (word, justification.or(said.impact_statement.clone()).unwrap_or_default())
            }
            (_, Verdict::Affected { fixed }) if fixed.is_empty() => {
                ("affected", "no fix is known".to_owned())
            }
            (_, Verdict::Affected { fixed }) => ("affected", format!("fixed in {}", fixed.join(", "))),
            (_, Verdict::Unknown { reason }) => ("unknown", reason.clone()),
        };
        *counted.entry(word).or_default() += 1;
        let severity: Vec<&str> = finding.severity.iter().map(|one| one.score.as_str()).collect();
        text.push_str(&format!("{word:<9} {} in {}\n", finding.id, component.reference));
        let (name, version) = &finding.looked_up;
        text.push_str(&format!("          {} {name} {version}: {why}\n", component.ecosystem.name()));
        if !severity.is_empty() {
            text.push_str(&format!("          {}\n", severity.join(", ")));
        }
        if let Some(summary) = &finding.summary {
            let summary: String = summary.chars().filter(|char| !char.is_control()).take(100).collect();
            text.push_str(&format!("          {summary}\n"));
        }
    }
    let words = ["affected", "unknown", "cleared", "fixed", "absent"];
    let words = words.map(|word| format!("{} {word}", counted.get(word).copied().unwrap_or(0)));
    let here = components.iter().filter(|component| component.presence == Presence::InImage).count();
    text.push_str(&format!("{} of {here} packages looked up\n", words.join(", ")));
    text.push_str(&format!("database   sha256 {}, changed {}\n", database.sha256, database.modified));
    for ecosystem in uncovered {
        text.push_str(&format!("not there  {ecosystem}: the database has no record of it\n"));
    }
    text
}
