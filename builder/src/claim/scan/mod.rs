//! Yields which known vulnerabilities affect an image, from its bill of materials, a vulnerability database
//! that the user supplies, and VEX documents.
//!
//! # Shape
//! ```text
//! sbom.cdx.json ─ inventory ─> components ─┐
//! OSV records ─────────────────────────────┼─ scan ─> findings ─┬─> in-toto statement, predicate vulns/v0.2
//! OpenVEX documents ───────────────────────┘                    └─> OpenVEX document
//! ```
//! Debian packages are looked up by their source package and its version. If Debian signs a package
//! separately (`linux-signed-amd64`), it is looked up under both source names with its own version, because
//! records name the source that was built (`linux`). Packages of the lock without a file in the image are
//! looked up too: they affect nothing, and a VEX document may say so.
//!
//! # Source
//! in-toto predicate `vulns` 0.2; OSV and OpenVEX: see `osv` and `vex`.
//!
//! # Not here
//! Databases for what has no ecosystem in OSV: Node.js itself, and the code that npm packages are built from.

pub mod osv;
pub mod vex;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::osv::{Answer, Ecosystem, Record, Severity};
use self::vex::{ImageName, Justification, Status, Vulnerability};
use crate::claim::file;
use crate::claim::manifest::Manifest;
use crate::lock::{Lock, NpmRole};
use crate::trust::purl;

/// Why an inventory cannot be taken from a bill of materials.
#[derive(Debug, thiserror::Error)]
#[error("not a bill of materials in CycloneDX's form")]
pub struct InventoryError(#[source] serde_json::Error);

/// Whether a component is in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It is.
    InImage,
    /// It is in the lock, but none of its files is in the image.
    KeptOut,
}

/// A component that may have a vulnerability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its name in the bill of materials.
    pub reference: String,
    /// Its package URL.
    pub purl: String,
    /// Where it comes from.
    pub ecosystem: Ecosystem,
    /// Names and versions to look up; an unknown version is empty.
    pub names: Vec<(String, String)>,
    /// Whether it is in the image.
    pub presence: Presence,
}

/// What a database says of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The component is affected.
    Affected {
        /// Versions that fix it.
        fixed: Vec<String>,
    },
    /// The record cannot be evaluated, so the component counts as affected.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// A vulnerability in a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name of the record.
    pub id: String,
    /// All its names, the record's first.
    pub names: Vec<String>,
    /// A one-line description.
    pub summary: Option<String>,
    /// How bad it is.
    pub severity: Vec<Severity>,
    /// Index of the component.
    pub component: usize,
    /// The name and version that were looked up.
    pub looked_up: (String, String),
    /// What the record says.
    pub verdict: Verdict,
    /// The VEX statement about it.
    pub vex: Option<vex::Statement>,
}

impl Finding {
    /// Returns whether it counts: the component is in the image, and no VEX statement clears it.
    pub fn counts(&self, components: &[Component]) -> bool {
        let here = components.get(self.component).is_none_or(|one| one.presence == Presence::InImage);
        here && !self.vex.as_ref().is_some_and(|statement| statement.status.clears())
    }
}

#[derive(Deserialize)]
struct Bom {
    components: Vec<BomComponent>,
}

#[derive(Deserialize)]
struct BomComponent {
    #[serde(rename = "bom-ref", default)]
    reference: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    purl: String,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    pedigree: BomPedigree,
    #[serde(default)]
    components: Vec<BomComponent>,
}

#[derive(Deserialize, Default)]
struct BomPedigree {
    #[serde(default)]
    ancestors: Vec<BomAncestor>,
}

#[derive(Deserialize)]
struct BomAncestor {
    name: String,
    version: String,
}

/// Debian releases by their code names (distro-info-data).
const RELEASES: [(&str, u32); 6] =
    [("buster", 10), ("bullseye", 11), ("bookworm", 12), ("trixie", 13), ("forky", 14), ("duke", 15)];

/// Lists the components of `sbom.cdx.json`, and those that are only in the lock.
///
/// # Errors
/// [`InventoryError`].
pub fn inventory(document: &[u8], lock: Option<&Lock>) -> Result<Vec<Component>, InventoryError> {
    let bom: Bom = serde_json::from_slice(document).map_err(InventoryError)?;
    let mut all = Vec::new();
    bom.components.iter().for_each(|component| take(component, &mut all));
    let known: BTreeSet<String> = all.iter().map(|component| component.reference.clone()).collect();
    for npm in lock.iter().flat_map(|lock| &lock.npm).filter(|npm| npm.role == NpmRole::Application) {
        // In the same form as the tree's origins.
        let reference = format!("npm:{}@{} ({})", npm.name, npm.version, npm.location);
        if !known.contains(&reference) {
            all.push(Component {
                reference,
                purl: purl::npm(&npm.name, &npm.version),
                ecosystem: Ecosystem::Npm,
                names: vec![(npm.name.clone(), npm.version.clone())],
                presence: Presence::KeptOut,
            });
        }
    }
    all.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(all)
}

fn take(component: &BomComponent, all: &mut Vec<Component>) {
    component.components.iter().for_each(|inner| take(inner, all));
    let Some((kind, rest)) = component.purl.strip_prefix("pkg:").and_then(|purl| purl.split_once('/')) else {
        return;
    };
    let name = match component.group.as_str() {
        "" => component.name.clone(),
        group => format!("{group}/{}", component.name),
    };
    let own = (name, component.version.clone());
    let has_version = rest.split('?').next().is_some_and(|rest| rest.contains('@'));
    let (ecosystem, names) = match kind {
        "deb" => (Ecosystem::Debian(release(rest)), debian_names(own, &component.pedigree)),
        "npm" => (Ecosystem::Npm, vec![own]),
        "cargo" => (Ecosystem::Crates, vec![own]),
        _ => return,
    };
    let unknown = |(name, _)| (name, String::new());
    all.push(Component {
        reference: component.reference.clone(),
        purl: component.purl.clone(),
        ecosystem,
        names: if has_version { names } else { names.into_iter().map(unknown).collect() },
        presence: if component.scope == "excluded" { Presence::KeptOut } else { Presence::InImage },
    });
}

/// Returns the number of the release that a package URL names.
fn release(purl: &str) -> Option<u32> {
    let (_, qualifiers) = purl.split_once('?')?;
    let suite = qualifiers.split('&').find_map(|one| one.strip_prefix("distro="))?;
    let suite = suite.trim_start_matches("debian-");
    RELEASES.iter().find(|(name, _)| *name == suite).map(|(_, number)| *number).or_else(|| suite.parse().ok())
}

/// Returns the source package, and the one that it repackages with a signature.
fn debian_names(own: (String, String), pedigree: &BomPedigree) -> Vec<(String, String)> {
    let Some(source) = pedigree.ancestors.first() else { return vec![own] };
    let mut names = vec![(source.name.clone(), source.version.clone())];
    let unsigned =
        ["-signed-amd64", "-amd64-signed", "-signed"].iter().find_map(|end| source.name.strip_suffix(end));
    names.extend(unsigned.map(|name| (name.to_owned(), own.1)));
    names
}

/// Looks up every component in every record.
pub fn scan(components: &[Component], records: &[Record]) -> Vec<Finding> {
    let mut by_name: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for (number, component) in components.iter().enumerate() {
        for (name, version) in &component.names {
            by_name.entry(name).or_default().push((number, version));
        }
    }
    let mut findings: BTreeMap<(String, usize), Finding> = BTreeMap::new();
    for record in records.iter().filter(|record| record.withdrawn.is_none()) {
        for affected in &record.affected {
            let Some(package) = &affected.package else { continue };
            for (number, version) in by_name.get(package.name.as_str()).into_iter().flatten() {
                let Some(component) = components.get(*number) else { continue };
                if !component.ecosystem.is(&package.ecosystem) {
                    continue;
                }
                let answer = match version.is_empty() {
                    true => Answer::Unknown("the component's version is not known".to_owned()),
                    false => affected.answer(&component.ecosystem, version),
                };
                let verdict = match answer {
                    Answer::No => continue,
                    Answer::Yes { fixed } => Verdict::Affected { fixed },
                    Answer::Unknown(reason) => Verdict::Unknown { reason },
                };
                let finding = Finding {
                    id: record.id.clone(),
                    names: record.names().map(str::to_owned).collect(),
                    summary: record.summary.clone(),
                    severity: severity(record, affected),
                    component: *number,
                    looked_up: (package.name.clone(), (*version).to_owned()),
                    verdict,
                    vex: None,
                };
                let key = (record.id.clone(), *number);
                let clear = matches!(finding.verdict, Verdict::Affected { .. });
                // A record may list a package in several entries: a definite answer overrides an unclear one.
                match findings.get(&key) {
                    Some(there) if !clear || matches!(there.verdict, Verdict::Affected { .. }) => {}
                    _ => {
                        findings.insert(key, finding);
                    }
                }
            }
        }
    }
    findings.into_values().collect()
}

/// Returns the severities from the record and its entry, and the ecosystem's own rating.
fn severity(record: &Record, affected: &osv::Affected) -> Vec<Severity> {
    let mut all: BTreeSet<Severity> = record.severity.iter().chain(&affected.severity).cloned().collect();
    if let Some(urgency) = affected.ecosystem_specific.get("urgency").and_then(|urgency| urgency.as_str()) {
        all.insert(Severity { kind: "debian-urgency".to_owned(), score: urgency.to_owned() });
    }
    all.into_iter().collect()
}

/// Returns the names by which VEX documents may refer to the image.
pub fn image_name(manifest: &Manifest) -> ImageName {
    let digest = |name: &str| manifest.outputs.get(name).map(|output| output.sha256.clone());
    ImageName {
        purl: purl::generic(&manifest.name, &manifest.version),
        sha256: [file::DISK, file::UKI].into_iter().filter_map(digest).collect(),
    }
}

/// Adds to each finding the VEX statement about it.
pub fn apply_vex(
    findings: &mut [Finding],
    components: &[Component],
    image: &ImageName,
    documents: &[vex::Document],
) {
    for finding in findings {
        let Some(component) = components.get(finding.component) else { continue };
        let subject = vex::Subject { image, purl: &component.purl, names: &finding.names };
        finding.vex = vex::statement(documents, &subject).cloned();
    }
}

/// The database that a scan used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// SHA-256 of the list of its files and their digests.
    pub sha256: String,
    /// When its newest record was last modified.
    pub modified: String,
}

/// Formats seconds since 1970 as RFC 3339.
pub fn time(seconds: u64) -> String {
    crate::claim::sbom::time(seconds)
}

/// The start and end of a scan, in RFC 3339 form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub started: String,
    /// When it ended.
    pub finished: String,
}

#[derive(Serialize)]
struct Subject<'a> {
    name: &'a str,
    digest: BTreeMap<&'static str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Subject<'a>>,
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

#[derive(Serialize)]
struct Predicate<'a> {
    scanner: Scanner<'a>,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Scanner<'a> {
    uri: String,
    version: &'static str,
    db: Db<'a>,
    result: Vec<ResultRow<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Db<'a> {
    uri: &'static str,
    version: String,
    last_update: &'a str,
}

#[derive(Serialize)]
struct ResultRow<'a> {
    id: &'a str,
    severity: Vec<SeverityRow<'a>>,
    annotations: Vec<BTreeMap<&'static str, String>>,
}

#[derive(Serialize)]
struct SeverityRow<'a> {
    method: &'a str,
    score: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    scan_started_on: &'a str,
    scan_finished_on: &'a str,
}

/// Returns the in-toto statement of a scan, as text that ends with a newline. It contains every finding in
/// the image, even those that VEX documents clear: the annotations carry what the documents say.
pub fn statement(
    manifest: &Manifest,
    components: &[Component],
    findings: &[Finding],
    database: &Database,
    span: &Span,
) -> String {
    let subject = [file::DISK, file::UKI]
        .into_iter()
        .filter_map(|name| {
            let output = manifest.outputs.get(name)?;
            Some(Subject { name, digest: BTreeMap::from([("sha256", output.sha256.as_str())]) })
        })
        .collect();
    let result = findings
        .iter()
        .filter_map(|finding| {
            let component = components.get(finding.component)?;
            (component.presence == Presence::InImage).then(|| ResultRow {
                id: &finding.id,
                severity: finding
                    .severity
                    .iter()
                    .map(|one| SeverityRow { method: &one.kind, score: &one.score })
                    .collect(),
                annotations: annotations(finding, component, components),
            })
        })
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let statement = Statement {
        kind: "https://in-toto.io/Statement/v1",
        subject,
        predicate_type: "https://in-toto.io/attestation/vulns/v0.2",
        predicate: Predicate {
            scanner: Scanner {
                uri: format!("pkg:cargo/proofmark@{version}"),
                version,
                db: Db {
                    uri: "https://osv.dev/",
                    version: format!("sha256:{}", database.sha256),
                    last_update: &database.modified,
                },
                result,
            },
            metadata: Metadata { scan_started_on: &span.started, scan_finished_on: &span.finished },
        },
    };
    // JSON can hold all of it: strings, lists and maps keyed by string.
    let mut text = serde_json::to_string_pretty(&statement).unwrap_or_default();
    text.push('\n');
    text
}

fn annotations(
    finding: &Finding,
    component: &Component,
    components: &[Component],
) -> Vec<BTreeMap<&'static str, String>> {
    let mut all = vec![
        ("aliases", finding.names.get(1..).unwrap_or_default().join(" ")),
        ("component", component.reference.clone()),
        ("purl", component.purl.clone()),
        (
            "looked-up",
            format!("{} {} {}", component.ecosystem.name(), finding.looked_up.0, finding.looked_up.1),
        ),
    ];
    match &finding.verdict {
        Verdict::Affected { fixed } => {
            all.push(("verdict", "affected".to_owned()));
            all.push(("fixed", fixed.join(" ")));
        }
        Verdict::Unknown { reason } => {
            all.push(("verdict", "unknown".to_owned()));
            all.push(("reason", reason.clone()));
        }
    }
    if let Some(statement) = &finding.vex {
        all.push(("vex-status", word(&statement.status)));
        all.push(("vex-justification", statement.justification.as_ref().map(word).unwrap_or_default()));
    }
    let counts = if finding.counts(components) { "yes" } else { "no" };
    all.push(("counts", counts.to_owned()));
    all.into_iter().filter(|(_, text)| !text.is_empty()).map(|one| BTreeMap::from([one])).collect()
}

/// Returns the word that a document uses for a value.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Returns an OpenVEX document about every finding: the status that other documents give, else under
/// investigation. Packages that the recipe's rules leave out get "component not present".
pub fn openvex(
    image: &ImageName,
    components: &[Component],
    findings: &[Finding],
    author: &str,
    timestamp: &str,
) -> vex::Document {
    let statements: Vec<vex::Statement> = findings
        .iter()
        .filter_map(|finding| {
            let component = components.get(finding.component)?;
            let hashes = |digest: &String| BTreeMap::from([("sha-256".to_owned(), digest.clone())]);
            let part = vex::Component { id: Some(component.purl.clone()), ..vex::Component::default() };
            let product = vex::Component {
                id: Some(image.purl.clone()),
                hashes: image.sha256.first().map(hashes).unwrap_or_default(),
                subcomponents: vec![part],
                ..vex::Component::default()
            };
            let own = vex::Statement {
                vulnerability: Vulnerability {
                    name: finding.id.clone(),
                    aliases: finding.names.get(1..).unwrap_or_default().to_vec(),
                },
                timestamp: None,
                products: vec![product],
                status: Status::UnderInvestigation,
                justification: None,
                impact_statement: None,
                action_statement: None,
                status_notes: None,
            };
            Some(match (&finding.vex, component.presence) {
                (Some(said), _) => vex::Statement {
                    status: said.status,
                    justification: said.justification,
                    impact_statement: said.impact_statement.clone(),
                    action_statement: said.action_statement.clone(),
                    status_notes: said.status_notes.clone(),
                    ..own
                },
                (None, Presence::KeptOut) => vex::Statement {
                    status: Status::NotAffected,
                    justification: Some(Justification::ComponentNotPresent),
                    status_notes: Some("none of its files is in the image".to_owned()),
                    ..own
                },
                (None, Presence::InImage) => own,
            })
        })
        .collect();
    let digest = rootfs::content::Sha256Digest::of(
        format!("{author}\n{timestamp}\n{image:?}\n{statements:?}").as_bytes(),
    );
    let id = format!("https://openvex.dev/docs/public/vex-{digest}");
    let mut document = vex::Document::new(id, author.to_owned(), timestamp.to_owned());
    document.statements = statements;
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    const SBOM: &str = r#"{"components":[
        {"type":"library","bom-ref":"deb:linux-image-6.1=6.1.9-1","name":"linux-image-6.1","version":"6.1.9-1",
         "purl":"pkg:deb/debian/linux-image-6.1@6.1.9-1?arch=amd64&distro=trixie",
         "pedigree":{"ancestors":[{"type":"library","name":"linux-signed-amd64","version":"6.1.9+1","purl":"x"}]}},
        {"type":"library","bom-ref":"npm:@s/d@1.0.0 (node_modules/@s/d)","group":"@s","name":"d","version":"1.0.0",
         "purl":"pkg:npm/%40s/d@1.0.0",
         "components":[{"type":"library","bom-ref":"inner","name":"inner","version":"1.0.0","purl":"pkg:npm/inner"}]},
        {"type":"data","bom-ref":"no-package","name":"files of no package"}]}"#;

    fn components() -> Vec<Component> {
        let mut lock = crate::lock::tests::sample();
        let mut gone = lock.npm.iter().find(|npm| npm.role == NpmRole::Application).unwrap().clone();
        (gone.name, gone.version, gone.location) =
            ("gone".into(), "2.0.0".into(), "node_modules/gone".into());
        lock.npm = vec![gone];
        inventory(SBOM.as_bytes(), Some(&lock)).unwrap()
    }

    fn record(id: &str, ecosystem: &str, name: &str, more: &str) -> Record {
        Record::parse(
            format!(
                r#"{{"id":"{id}","modified":"2026-01-01T00:00:00Z","aliases":["CVE-{id}"],{more}
                   "affected":[{{"package":{{"ecosystem":"{ecosystem}","name":"{name}"}},
                   "ecosystem_specific":{{"urgency":"low"}},
                   "ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}},{{"fixed":"6.1.9-2"}}]}}]}}]}}"#
            )
            .as_bytes(),
        )
        .unwrap()
    }

    fn found(records: &[Record]) -> Vec<(String, String)> {
        let components = components();
        let findings = scan(&components, records);
        findings
            .iter()
            .map(|finding| (finding.id.clone(), components[finding.component].reference.clone()))
            .collect()
    }

    #[test]
    fn components_are_looked_up_by_the_names_that_records_use() {
        let references: Vec<String> = components().into_iter().map(|component| component.reference).collect();
        assert_eq!(
            references,
            [
                "deb:linux-image-6.1=6.1.9-1",
                "inner",
                "npm:@s/d@1.0.0 (node_modules/@s/d)",
                "npm:gone@2.0.0 (node_modules/gone)"
            ]
        );
        let kernel = "deb:linux-image-6.1=6.1.9-1".to_owned();
        assert_eq!(found(&[record("A", "Debian:13", "linux", "")]), [("A".to_owned(), kernel.clone())]);
        assert_eq!(found(&[record("A", "Debian:13", "linux-signed-amd64", "")]), []);
        assert_eq!(found(&[record("A", "Debian:12", "linux", "")]), []);
        assert_eq!(found(&[record("A", "npm", "linux", "")]), []);
        assert_eq!(found(&[record("A", "npm", "@s/d", "")]).len(), 1);
    }

    #[test]
    fn a_withdrawn_record_counts_for_nothing() {
        let withdrawn = record("A", "Debian:13", "linux", r#""withdrawn":"2026-01-02T00:00:00Z","#);
        assert_eq!(found(&[withdrawn]), []);
    }

    #[test]
    fn a_component_without_a_version_is_not_cleared() {
        let components = components();
        let findings = scan(&components, &[record("A", "npm", "inner", "")]);
        assert!(matches!(findings[0].verdict, Verdict::Unknown { .. }), "{findings:?}");
        assert!(findings[0].counts(&components));
    }

    #[test]
    fn what_is_kept_out_does_not_count_and_vex_says_why() {
        let components = components();
        let findings = scan(&components, &[record("A", "npm", "gone", "")]);
        assert_eq!(findings.len(), 1);
        assert!(!findings[0].counts(&components));
        let image = ImageName { purl: "pkg:generic/small@1".into(), sha256: vec!["ab".repeat(32)] };
        let document = openvex(&image, &components, &findings, "A", "2026-01-01T00:00:00Z");
        assert_eq!(document.statements[0].justification, Some(Justification::ComponentNotPresent));
        let read = vex::Document::parse(document.to_text().as_bytes()).unwrap();
        assert_eq!(read, document);
    }

    #[test]
    fn a_document_of_ours_that_somebody_edits_clears_the_finding() {
        let components = components();
        let mut findings = scan(&components, &[record("A", "Debian:13", "linux", "")]);
        assert!(findings[0].counts(&components));
        let image = ImageName { purl: "pkg:generic/small@1".into(), sha256: vec!["ab".repeat(32)] };
        let mut document = openvex(&image, &components, &findings, "A", "2026-01-01T00:00:00Z");
        apply_vex(&mut findings, &components, &image, std::slice::from_ref(&document));
        assert!(findings[0].counts(&components), "under investigation is no all-clear");
        document.statements[0].status = Status::NotAffected;
        document.statements[0].justification = Some(Justification::VulnerableCodeNotInExecutePath);
        apply_vex(&mut findings, &components, &image, std::slice::from_ref(&document));
        assert!(!findings[0].counts(&components));
        let other = ImageName { sha256: vec!["cd".repeat(32)], ..image };
        apply_vex(&mut findings, &components, &other, &[document]);
        assert!(findings[0].counts(&components), "it is about another image");
    }

    #[test]
    fn what_is_no_bill_of_materials_is_refused() {
        for bad in ["", "{}", "{\"components\":7}"] {
            assert!(inventory(bad.as_bytes(), None).is_err(), "{bad}");
        }
    }
}
