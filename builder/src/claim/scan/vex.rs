//! Yields what OpenVEX documents say about a vulnerability in an image's package, and new such documents.
//!
//! # Shape
//! ```text
//! statement = vulnerability (name, aliases) · products (each with subcomponents) · status · timestamp
//! ```
//! A product is the image (by the digest of its disk or its UKI, or by the name that this program gives it)
//! or a package itself, by package URL. A package URL without version or qualifiers matches all versions and
//! all qualifiers. If several statements match, the latest counts; of equally late ones, the last.
//!
//! # Source
//! OpenVEX 0.2.0: "The VEX statement", "Data inheritance"; RFC 3339 (timestamps).
//!
//! # Not here
//! Who signed a document: naming it on the command line means trusting it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The context of the documents that are read and written.
const CONTEXT: &str = "https://openvex.dev/ns/v0.2.0";

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not the JSON of an OpenVEX document.
    #[error("not an OpenVEX document")]
    Json(#[source] serde_json::Error),
    /// It has another context.
    #[error("the document has the context {found:?}, expected {CONTEXT:?}")]
    Context {
        /// The context found.
        found: String,
    },
    /// A statement has no time, or a malformed one.
    #[error("statement {number} has the time {found:?}, expected one of RFC 3339")]
    Time {
        /// The statement, counted from 1.
        number: usize,
        /// The time found.
        found: String,
    },
    /// A statement clears a product without saying why.
    #[error("statement {number} says not_affected without justification or impact statement")]
    Unjustified {
        /// The statement, counted from 1.
        number: usize,
    },
    /// A statement names no product.
    #[error("statement {number} names no product")]
    NoProduct {
        /// The statement, counted from 1.
        number: usize,
    },
}

/// The status that a statement gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The product is not affected.
    NotAffected,
    /// The product is affected.
    Affected,
    /// This version of the product contains the fix.
    Fixed,
    /// The status is not known yet.
    UnderInvestigation,
}

impl Status {
    /// Returns whether it means that no action is needed.
    pub fn clears(self) -> bool {
        matches!(self, Status::NotAffected | Status::Fixed)
    }
}

/// Why a product is not affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Justification {
    /// The component is not in it.
    ComponentNotPresent,
    /// The code is not in it.
    VulnerableCodeNotPresent,
    /// The code never runs.
    VulnerableCodeNotInExecutePath,
    /// An adversary cannot control the code.
    VulnerableCodeCannotBeControlledByAdversary,
    /// Another measure prevents exploitation.
    InlineMitigationsAlreadyExist,
}

/// Names of a vulnerability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vulnerability {
    /// Its name.
    pub name: String,
    /// Its other names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// Names of a product, or of a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Component {
    /// An IRI, often a package URL.
    #[serde(rename = "@id", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Other names, by their kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub identifiers: BTreeMap<String, String>,
    /// Digests, by IANA's name for the algorithm.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hashes: BTreeMap<String, String>,
    /// The parts that the statement is about; empty means all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subcomponents: Vec<Component>,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The vulnerability that it is about.
    pub vulnerability: Vulnerability,
    /// When it was made, if it does not share the document's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// The products that it is about.
    #[serde(default)]
    pub products: Vec<Component>,
    /// The status.
    pub status: Status,
    /// Why the product is not affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<Justification>,
    /// Why the product is not affected, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impact_statement: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_statement: Option<String>,
    /// How the status was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_notes: Option<String>,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The context of version 0.2.0.
    #[serde(rename = "@context")]
    pub context: String,
    /// Its id.
    #[serde(rename = "@id")]
    pub id: String,
    /// Its author.
    pub author: String,
    /// When it was made.
    pub timestamp: String,
    /// Its version.
    pub version: u64,
    /// The tool that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tooling: Option<String>,
    /// Its statements.
    pub statements: Vec<Statement>,
}

/// The subject of a statement.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Names of the image: package URL and digests.
    pub image: &'a ImageName,
    /// Package URL of the package.
    pub purl: &'a str,
    /// Names of the vulnerability.
    pub names: &'a [String],
}

/// Names of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// As `pkg:generic/NAME@VERSION`.
    pub purl: String,
    /// SHA-256 of disk and UKI.
    pub sha256: Vec<String>,
}

impl Document {
    /// Makes an empty document with the supported context.
    pub fn new(id: String, author: String, timestamp: String) -> Self {
        let tooling = Some(format!("proofmark/{}", env!("CARGO_PKG_VERSION")));
        Document {
            context: CONTEXT.to_owned(),
            id,
            author,
            timestamp,
            version: 1,
            tooling,
            statements: Vec::new(),
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Error`] if it is not an OpenVEX document, or a statement is incomplete.
    pub fn parse(bytes: &[u8]) -> Result<Document, Error> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(rename = "@context")]
            context: String,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(Error::Json)?;
        if head.context != CONTEXT {
            return Err(Error::Context { found: head.context });
        }
        let document: Document = serde_json::from_slice(bytes).map_err(Error::Json)?;
        for (number, statement) in (1..).zip(&document.statements) {
            let time = document.time_of(statement);
            if instant(time).is_none() {
                return Err(Error::Time { number, found: time.to_owned() });
            }
            let why = statement.justification.is_some() || statement.impact_statement.is_some();
            if statement.status == Status::NotAffected && !why {
                return Err(Error::Unjustified { number });
            }
            let named = |product: &Component| {
                product.id.is_some() || !product.identifiers.is_empty() || !product.hashes.is_empty()
            };
            let parts =
                statement.products.iter().flat_map(|product| product.subcomponents.iter().chain([product]));
            if statement.products.is_empty() || !parts.into_iter().all(named) {
                return Err(Error::NoProduct { number });
            }
        }
        Ok(document)
    }

    /// Formats the document as text that ends with a newline.
    pub fn to_text(&self) -> String {
        // JSON can hold all of it: strings, numbers, lists and maps keyed by string.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    fn time_of<'a>(&'a self, statement: &'a Statement) -> &'a str {
        statement.timestamp.as_deref().unwrap_or(&self.timestamp)
    }
}

/// Returns the statement in these documents that counts for a subject.
pub fn statement<'a>(documents: &'a [Document], subject: &Subject<'_>) -> Option<&'a Statement> {
    let all = documents.iter().flat_map(|document| {
        document.statements.iter().map(move |statement| (instant(document.time_of(statement)), statement))
    });
    all.filter(|(_, statement)| statement.fits(subject))
        .max_by_key(|(time, _)| *time)
        .map(|(_, statement)| statement)
}

impl Statement {
    fn fits(&self, subject: &Subject<'_>) -> bool {
        let mut names = [&self.vulnerability.name].into_iter().chain(&self.vulnerability.aliases);
        if !names.any(|name| subject.names.contains(name)) {
            return false;
        }
        self.products.iter().any(|product| {
            let is_image = product.is_image(subject.image);
            let parts = &product.subcomponents;
            match parts.is_empty() {
                true => is_image || product.is_package(subject.purl),
                false => is_image && parts.iter().any(|part| part.is_package(subject.purl)),
            }
        })
    }
}

impl Component {
    /// Returns every package URL that it goes by.
    fn purls(&self) -> impl Iterator<Item = &str> {
        self.id.iter().chain(self.identifiers.get("purl")).map(String::as_str)
    }

    fn is_image(&self, image: &ImageName) -> bool {
        let by_digest = |digest: &String| image.sha256.iter().any(|own| own.eq_ignore_ascii_case(digest));
        match self.hashes.get("sha-256") {
            // A digest is more specific than a name.
            Some(digest) => by_digest(digest),
            None => self.purls().any(|purl| names(purl, &image.purl)),
        }
    }

    fn is_package(&self, purl: &str) -> bool {
        self.purls().any(|own| names(own, purl))
    }
}

/// Splits a package URL into type and name, version, and qualifiers.
fn parts(purl: &str) -> Option<(&str, Option<&str>, Vec<&str>)> {
    let rest = purl.strip_prefix("pkg:")?;
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let (rest, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
    let (name, version) = match rest.rsplit_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (rest, None),
    };
    Some((name, version, qualifiers.split('&').filter(|one| !one.is_empty()).collect()))
}

/// Returns whether `pattern` matches `purl`: parts that the pattern leaves out match anything.
fn names(pattern: &str, purl: &str) -> bool {
    let (Some(pattern), Some(purl)) = (parts(pattern), parts(purl)) else { return false };
    // Other tools also encode colons and tildes.
    let same = |a: &str, b: &str| decoded(a) == decoded(b);
    same(pattern.0, purl.0)
        && pattern.1.is_none_or(|version| purl.1.is_some_and(|own| same(version, own)))
        && pattern.2.iter().all(|one| purl.2.iter().any(|own| same(one, own)))
}

/// Decodes percent-encoded text to bytes.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let byte = match (first, after.split_first_chunk::<2>()) {
            (b'%', Some((digits, _))) => {
                std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            _ => None,
        };
        out.push(byte.unwrap_or(*first));
        rest = after.get(if byte.is_some() { 2 } else { 0 }..).unwrap_or(&[]);
    }
    out
}

/// Converts an RFC 3339 time to nanoseconds since 1970; `None` if it is malformed.
pub fn instant(text: &str) -> Option<i128> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = format!("{}T{}Z", date.replace('-', ""), clock.replace(':', ""));
    if date.matches('-').count() != 2 || clock.matches(':').count() != 2 {
        return None;
    }
    let seconds = i128::from(crate::lock::moment_seconds(&plain)?);
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(after) => {
            let end = after.find(|char: char| !char.is_ascii_digit()).unwrap_or(after.len());
            after.split_at_checked(end).filter(|(fraction, _)| !fraction.is_empty())?
        }
        None => ("", rest),
    };
    let nanoseconds: i128 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let (sign, zone) = match zone.split_at_checked(1)? {
                ("+", zone) => (1, zone),
                ("-", zone) => (-1, zone),
                _ => return None,
            };
            let (hours, minutes) = zone.split_once(':')?;
            if hours.len() != 2 || minutes.len() != 2 || !digits(hours) || !digits(minutes) {
                return None;
            }
            sign * (hours.parse::<i128>().ok()? * 3600 + minutes.parse::<i128>().ok()? * 60)
        }
    };
    Some((seconds - offset) * 1_000_000_000 + nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURL: &str = "pkg:deb/debian/libc6@2.41-12%2Bdeb13u4?arch=amd64&distro=trixie";

    fn image() -> ImageName {
        ImageName { purl: "pkg:generic/small@1".into(), sha256: vec!["ab".repeat(32)] }
    }

    fn document(statements: &str) -> Result<Document, Error> {
        let text = format!(
            r#"{{"@context":"https://openvex.dev/ns/v0.2.0","@id":"https://openvex.dev/docs/example/1","author":"A",
               "timestamp":"2026-01-08T18:02:03-06:00","version":1,"statements":[{statements}]}}"#
        );
        Document::parse(text.as_bytes())
    }

    fn found(statements: &str) -> Option<Status> {
        let documents = [document(statements).unwrap()];
        let names = ["GHSA-1".to_owned(), "CVE-1".to_owned()];
        let subject = Subject { image: &image(), purl: PURL, names: &names };
        statement(&documents, &subject).map(|statement| statement.status)
    }

    fn fixed(products: &str) -> Option<Status> {
        found(&format!(r#"{{"vulnerability":{{"name":"CVE-1"}},"products":[{products}],"status":"fixed"}}"#))
    }

    #[test]
    fn a_statement_fits_by_package_by_image_or_by_both() {
        let digest = "AB".repeat(32);
        for (products, expected) in [
            (r#"{"@id":"pkg:deb/debian/libc6"}"#.to_owned(), true),
            (r#"{"@id":"pkg:deb/debian/libc6@2.41-12+deb13u4?arch=amd64"}"#.to_owned(), true),
            (r#"{"@id":"pkg:deb/debian/libc6@2.41-12"}"#.to_owned(), false),
            (r#"{"@id":"pkg:deb/debian/libc6?arch=arm64"}"#.to_owned(), false),
            (r#"{"@id":"pkg:deb/debian/libc"}"#.to_owned(), false),
            (
                r#"{"@id":"https://x.example/","identifiers":{"purl":"pkg:deb/debian/libc6"}}"#.to_owned(),
                true,
            ),
            (r#"{"@id":"pkg:generic/small@1"}"#.to_owned(), true),
            (r#"{"@id":"pkg:generic/small@2"}"#.to_owned(), false),
            (format!(r#"{{"hashes":{{"sha-256":"{digest}"}}}}"#), true),
            (
                format!(r#"{{"@id":"pkg:generic/small@1","hashes":{{"sha-256":"{}"}}}}"#, "cd".repeat(32)),
                false,
            ),
            (
                r#"{"@id":"pkg:generic/small@1","subcomponents":[{"@id":"pkg:deb/debian/libc6"}]}"#
                    .to_owned(),
                true,
            ),
            (
                r#"{"@id":"pkg:generic/small@1","subcomponents":[{"@id":"pkg:deb/debian/x"}]}"#.to_owned(),
                false,
            ),
            (
                r#"{"@id":"pkg:generic/other","subcomponents":[{"@id":"pkg:deb/debian/libc6"}]}"#.to_owned(),
                false,
            ),
        ] {
            assert_eq!(fixed(&products).is_some(), expected, "{products}");
        }
    }

    #[test]
    fn a_statement_fits_by_any_name_of_the_vulnerability() {
        let with = |vulnerability: &str| {
            let product = r#"[{"@id":"pkg:deb/debian/libc6"}]"#;
            found(&format!(r#"{{"vulnerability":{vulnerability},"products":{product},"status":"affected"}}"#))
        };
        assert_eq!(with(r#"{"name":"GHSA-1"}"#), Some(Status::Affected));
        assert_eq!(with(r#"{"name":"x","aliases":["CVE-1"]}"#), Some(Status::Affected));
        assert_eq!(with(r#"{"name":"CVE-2"}"#), None);
    }

    #[test]
    fn the_latest_statement_counts() {
        let one = |time: &str, status: &str| {
            format!(
                r#"{{"vulnerability":{{"name":"CVE-1"}},"timestamp":"{time}","products":[{{"@id":"pkg:deb/debian/libc6"}}],
                   "status":"{status}"}}"#
            )
        };
        let later = one("2026-01-09T00:00:00Z", "affected");
        let earlier = one("2026-01-09T00:30:00+01:00", "fixed");
        assert_eq!(found(&format!("{later},{earlier}")), Some(Status::Affected));
        assert_eq!(found(&format!("{earlier},{later}")), Some(Status::Affected));
        let same = one("2026-01-09T00:00:00.000Z", "fixed");
        assert_eq!(found(&format!("{later},{same}")), Some(Status::Fixed));
    }

    #[test]
    fn times_are_read_in_every_zone() {
        let second = 1_000_000_000;
        assert_eq!(instant("1970-01-01T00:00:01Z"), Some(second));
        assert_eq!(instant("1970-01-01T01:00:01.5+01:00"), Some(second * 3 / 2));
        assert_eq!(instant("1969-12-31T23:00:01-01:00"), None);
        assert_eq!(instant("1970-01-01T00:00:01-01:00"), Some(3601 * second));
        for bad in
            ["", "1970-01-01", "1970-01-01T00:00:01", "1970-01-01T00:00:01+1", "1970-13-01T00:00:01Z", "é"]
        {
            assert_eq!(instant(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_document_that_is_not_whole_is_refused() {
        let product = r#""products":[{"@id":"pkg:deb/debian/libc6"}]"#;
        let named = r#""vulnerability":{"name":"CVE-1"}"#;
        let refused = |text: &str| document(text).unwrap_err();
        let unjustified = refused(&format!(r#"{{{named},{product},"status":"not_affected"}}"#));
        assert!(matches!(unjustified, Error::Unjustified { number: 1 }));
        let time = refused(&format!(r#"{{{named},{product},"status":"fixed","timestamp":"yesterday"}}"#));
        assert!(matches!(time, Error::Time { number: 1, .. }));
        let nothing = refused(&format!(r#"{{{named},"status":"fixed"}}"#));
        assert!(matches!(nothing, Error::NoProduct { number: 1 }));
        let nameless = refused(&format!(r#"{{{named},"products":[{{}}],"status":"fixed"}}"#));
        assert!(matches!(nameless, Error::NoProduct { number: 1 }));
        assert!(matches!(refused(&format!(r#"{{{named},{product},"status":"fine"}}"#)), Error::Json(_)));
        let why =
            refused(&format!(r#"{{{named},{product},"status":"not_affected","justification":"luck"}}"#));
        assert!(matches!(why, Error::Json(_)));
        let old = br#"{"@context":"https://openvex.dev/ns","@id":"x","author":"A","timestamp":"x","version":1,"statements":[]}"#;
        assert!(matches!(Document::parse(old), Err(Error::Context { .. })));
        assert!(matches!(Document::parse(b"{}"), Err(Error::Json(_))));
    }

    #[test]
    fn a_document_that_is_written_reads_back() {
        let mut document = Document::new("x".into(), "A".into(), "2026-01-08T18:02:03Z".into());
        document.statements.push(Statement {
            vulnerability: Vulnerability { name: "CVE-1".into(), aliases: vec!["GHSA-1".into()] },
            timestamp: None,
            products: vec![Component { id: Some(PURL.into()), ..Component::default() }],
            status: Status::NotAffected,
            justification: Some(Justification::VulnerableCodeNotInExecutePath),
            impact_statement: None,
            action_statement: None,
            status_notes: None,
        });
        let text = document.to_text();
        assert!(text.contains("\"vulnerable_code_not_in_execute_path\""), "{text}");
        assert_eq!(Document::parse(text.as_bytes()).unwrap(), document);
    }
}
