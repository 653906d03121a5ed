//! Yields whether a version is affected, from a record of the Open Source Vulnerability format.
//!
//! # Shape
//! ```text
//! record.affected[]  package (ecosystem, name) · versions, each equal or not · ranges, each a list of events in order
//! event              introduced: affected from here · fixed: not from here · last_affected: not after · limit: no further
//! ```
//! Debian's versions compare in dpkg's order, those of npm and crates by Semantic Versioning. A record
//! without anything comparable gives [`Answer::Unknown`], never "not affected".
//!
//! # Source
//! OSV schema 1.7, "affected fields" and "Evaluation"; Debian's records name source packages.
//!
//! # Not here
//! Where records come from (`host::osv`); what a VEX document says about them (`vex`).

use std::cmp::Ordering;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::trust::debian::version::Version;

/// Why bytes are not a usable record.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are not the JSON of a record.
    #[error("not a record of the OSV format")]
    Json(#[source] serde_json::Error),
    /// The record has a later schema version.
    #[error("record {id} has schema version {found}, expected 1")]
    SchemaVersion {
        /// The record's id.
        id: String,
        /// Its schema version.
        found: String,
    },
    /// The record has no id.
    #[error("record has an empty id")]
    NoId,
}

/// Reads a list that may be `null`.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// One vulnerability.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Record {
    /// Schema version of the record; absent in the oldest.
    #[serde(default)]
    pub schema_version: Option<String>,
    /// Its id, as `GHSA-…` or `DEBIAN-CVE-…`.
    pub id: String,
    /// When it was last modified; of two records with one id, the later counts.
    pub modified: String,
    /// Set if the record is withdrawn.
    #[serde(default)]
    pub withdrawn: Option<String>,
    /// Other ids of the same vulnerability.
    #[serde(default, deserialize_with = "list")]
    pub aliases: Vec<String>,
    /// The vulnerabilities that this one follows from.
    #[serde(default, deserialize_with = "list")]
    pub upstream: Vec<String>,
    /// A one-line description.
    #[serde(default)]
    pub summary: Option<String>,
    /// How bad it is.
    #[serde(default, deserialize_with = "list")]
    pub severity: Vec<Severity>,
    /// The packages that it affects.
    #[serde(default, deserialize_with = "list")]
    pub affected: Vec<Affected>,
}

/// How bad a vulnerability is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Severity {
    /// The type, as `CVSS_V3`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A vector, or a word.
    pub score: String,
}

/// A package that a vulnerability affects.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Affected {
    /// The package; absent for sources without a package.
    #[serde(default)]
    pub package: Option<PackageName>,
    /// How bad it is there.
    #[serde(default, deserialize_with = "list")]
    pub severity: Vec<Severity>,
    /// Ranges of affected versions.
    #[serde(default, deserialize_with = "list")]
    pub ranges: Vec<Range>,
    /// Affected versions.
    #[serde(default, deserialize_with = "list")]
    pub versions: Vec<String>,
    /// Data specific to the ecosystem, such as Debian's urgency.
    #[serde(default)]
    pub ecosystem_specific: Value,
}

/// Names a package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PackageName {
    /// The ecosystem, as `npm` or `Debian:13`.
    pub ecosystem: String,
    /// Its name there.
    pub name: String,
}

/// A range of versions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Range {
    /// `SEMVER`, `ECOSYSTEM` or `GIT`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its events, in any order.
    #[serde(default, deserialize_with = "list")]
    pub events: Vec<Event>,
}

/// One event; exactly one of the fields is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Affected from this version on; `0` comes before all versions.
    pub introduced: Option<String>,
    /// Not affected from this version on.
    pub fixed: Option<String>,
    /// Not affected after this version.
    pub last_affected: Option<String>,
    /// The range says nothing from this version on.
    pub limit: Option<String>,
}

/// The kind of an event, ordered as events at equal versions are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Introduced,
    LastAffected,
    Fixed,
    Limit,
}

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ecosystem {
    /// A Debian release, by its number if known.
    Debian(Option<u32>),
    /// The npm registry.
    Npm,
    /// crates.io.
    Crates,
}

impl Ecosystem {
    /// Returns its name in records.
    pub fn name(&self) -> String {
        match self {
            Ecosystem::Debian(None) => "Debian".to_owned(),
            Ecosystem::Debian(Some(release)) => format!("Debian:{release}"),
            Ecosystem::Npm => "npm".to_owned(),
            Ecosystem::Crates => "crates.io".to_owned(),
        }
    }

    /// Returns whether a record for the ecosystem `named` applies to packages of this one. A Debian record
    /// without a release applies to every release; one with a release also applies if the package's release
    /// is unknown.
    pub fn is(&self, named: &str) -> bool {
        let (base, release) = named.split_once(':').unwrap_or((named, ""));
        match self {
            Ecosystem::Debian(own) => {
                let same = own.is_none_or(|own| release.is_empty() || release == own.to_string());
                base == "Debian" && same
            }
            Ecosystem::Npm => base == "npm",
            Ecosystem::Crates => base == "crates.io",
        }
    }

    /// Compares two versions; the error is the one that is malformed.
    fn compare(&self, a: &str, b: &str) -> Result<Ordering, String> {
        match self {
            Ecosystem::Debian(_) => {
                let read =
                    |text| Version::read(text).map_err(|_| format!("{text:?} is no version of Debian's"));
                Ok(read(a)?.cmp(&read(b)?))
            }
            Ecosystem::Npm | Ecosystem::Crates => {
                let read = |text: &str| {
                    semver::Version::parse(text.trim_start_matches(['v', '=']))
                        .map_err(|_| format!("{text:?} is no version of Semantic Versioning"))
                };
                Ok(read(a)?.cmp_precedence(&read(b)?))
            }
        }
    }
}

/// Whether a version is affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The version is not affected.
    No,
    /// The version is affected; the fixing versions are sorted as text.
    Yes {
        /// Versions that fix it.
        fixed: Vec<String>,
    },
    /// The record has nothing comparable, or a version is malformed.
    Unknown(String),
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// [`Error`] if the bytes are not a usable record.
    pub fn parse(bytes: &[u8]) -> Result<Record, Error> {
        let record: Record = serde_json::from_slice(bytes).map_err(Error::Json)?;
        if record.id.is_empty() {
            return Err(Error::NoId);
        }
        if let Some(found) = &record.schema_version
            && found != "1"
            && !found.starts_with("1.")
        {
            return Err(Error::SchemaVersion { id: record.id, found: found.clone() });
        }
        Ok(record)
    }

    /// Returns all names of this vulnerability, and of those that it follows from.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&self.id].into_iter().chain(&self.aliases).chain(&self.upstream).map(String::as_str)
    }
}

impl Affected {
    /// Returns whether `version` of the package in `ecosystem` is affected.
    pub fn answer(&self, ecosystem: &Ecosystem, version: &str) -> Answer {
        let mut fixed: Vec<String> = Vec::new();
        let mut unknown = None;
        let listed = self.versions.iter().any(|one| {
            one == version || ecosystem.compare(one, version).is_ok_and(|order| order == Ordering::Equal)
        });
        let mut affected = listed;
        let mut compared = !self.versions.is_empty();
        for range in self.ranges.iter().filter(|range| range.kind != "GIT") {
            compared = true;
            match range.holds(ecosystem, version) {
                Ok(holds) => affected |= holds,
                Err(reason) => unknown = unknown.or(Some(reason)),
            }
        }
        if affected {
            let later = |text: &str| {
                ecosystem.compare(text, version).map_or(true, |order| order == Ordering::Greater)
            };
            let events =
                self.ranges.iter().filter(|range| range.kind != "GIT").flat_map(|range| &range.events);
            fixed.extend(events.filter_map(|event| event.fixed.clone()).filter(|text| later(text)));
            fixed.sort();
            fixed.dedup();
            return Answer::Yes { fixed };
        }
        match unknown {
            Some(reason) => Answer::Unknown(reason),
            None if !compared => Answer::Unknown("it names no versions that can be compared".to_owned()),
            None => Answer::No,
        }
    }
}

impl Range {
    /// Returns whether the range contains a version; the error says what cannot be compared.
    fn holds(&self, ecosystem: &Ecosystem, version: &str) -> Result<bool, String> {
        if !matches!(self.kind.as_str(), "SEMVER" | "ECOSYSTEM") {
            return Err(format!("its range has the type {:?}, which is not known", self.kind));
        }
        if self.kind == "SEMVER" && matches!(ecosystem, Ecosystem::Debian(_)) {
            return Err("its range is one of Semantic Versioning, which Debian's versions are not".to_owned());
        }
        // The version itself must be well-formed, even if the range names only `0`.
        ecosystem.compare(version, version)?;
        let mut events: Vec<(Kind, &str)> = Vec::new();
        for event in &self.events {
            let set = [
                (Kind::Introduced, &event.introduced),
                (Kind::LastAffected, &event.last_affected),
                (Kind::Fixed, &event.fixed),
                (Kind::Limit, &event.limit),
            ];
            let mut set = set.into_iter().filter_map(|(kind, text)| Some((kind, text.as_deref()?)));
            match (set.next(), set.next()) {
                (Some(one), None) => events.push(one),
                _ => return Err("one of its events does not say exactly one thing".to_owned()),
            }
        }
        if !events.iter().any(|(kind, _)| *kind == Kind::Introduced) {
            return Err("its range does not say where it begins".to_owned());
        }
        let first = |kind: Kind, text: &str| kind == Kind::Introduced && text == "0";
        let mut limits = events.iter().filter(|(kind, _)| *kind == Kind::Limit).peekable();
        if limits.peek().is_some() {
            let mut before = false;
            for (_, limit) in limits {
                before |= *limit == "*" || ecosystem.compare(version, limit)? == Ordering::Less;
            }
            if !before {
                return Ok(false);
            }
        }
        events.retain(|(kind, _)| *kind != Kind::Limit);
        for (kind, text) in &events {
            if !first(*kind, text) {
                ecosystem.compare(text, text)?;
            }
        }
        events.sort_by(|a, b| {
            let order = match (first(a.0, a.1), first(b.0, b.1)) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                // Each was compared with itself above, so each is well-formed.
                (false, false) => ecosystem.compare(a.1, b.1).unwrap_or(Ordering::Equal),
            };
            order.then(a.0.cmp(&b.0))
        });
        let mut affected = false;
        for (kind, text) in events {
            let order =
                if first(kind, text) { Ordering::Greater } else { ecosystem.compare(version, text)? };
            match kind {
                Kind::Introduced if order != Ordering::Less => affected = true,
                Kind::Fixed if order != Ordering::Less => affected = false,
                Kind::LastAffected if order == Ordering::Greater => affected = false,
                _ => {}
            }
        }
        Ok(affected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: Ecosystem = Ecosystem::Debian(Some(13));

    fn affected(json: &str) -> Affected {
        serde_json::from_str(json).unwrap()
    }

    fn range(kind: &str, events: &str) -> Affected {
        affected(&format!(r#"{{"ranges":[{{"type":"{kind}","events":[{events}]}}]}}"#))
    }

    fn is(affected: &Affected, ecosystem: &Ecosystem, version: &str) -> bool {
        match affected.answer(ecosystem, version) {
            Answer::Yes { .. } => true,
            Answer::No => false,
            Answer::Unknown(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn every_range_of_the_specification_is_evaluated_as_it_says() {
        let unfixed = range("SEMVER", r#"{"introduced":"0"}"#);
        assert!(is(&unfixed, &Ecosystem::Npm, "0.0.0-alpha") && is(&unfixed, &Ecosystem::Npm, "99.0.0"));
        let fixed = range("SEMVER", r#"{"introduced":"0"},{"fixed":"1.0.2"}"#);
        for (version, expected) in
            [("0.0.1", true), ("1.0.2-rc.1", true), ("1.0.2", false), ("1.0.2+build", false)]
        {
            assert_eq!(is(&fixed, &Ecosystem::Npm, version), expected, "{version}");
        }
        let two = range(
            "SEMVER",
            r#"{"fixed":"3.2.5"},{"introduced":"3.0.0"},{"fixed":"1.0.2"},{"introduced":"1.0.0"}"#,
        );
        for (version, expected) in [
            ("0.9.0", false),
            ("1.0.0", true),
            ("1.0.2", false),
            ("2.9.9", false),
            ("3.0.0", true),
            ("3.2.5", false),
        ] {
            assert_eq!(is(&two, &Ecosystem::Npm, version), expected, "{version}");
        }
        let last = range("ECOSYSTEM", r#"{"introduced":"0"},{"last_affected":"2.1.214"}"#);
        for (version, expected) in [("2.1.213", true), ("2.1.214", true), ("2.1.215", false)] {
            assert_eq!(is(&last, &Ecosystem::Npm, version), expected, "{version}");
            assert_eq!(is(&last, &DEBIAN, version), expected, "{version}");
        }
        let limited = range("SEMVER", r#"{"introduced":"1.0.0"},{"limit":"1.5.0"}"#);
        for (version, expected) in [("1.4.9", true), ("1.5.0", false), ("2.0.0", false)] {
            assert_eq!(is(&limited, &Ecosystem::Npm, version), expected, "{version}");
        }
        let star = range("SEMVER", r#"{"introduced":"1.0.0"},{"limit":"*"}"#);
        assert!(is(&star, &Ecosystem::Npm, "7.0.0"));
        let at_once = range("SEMVER", r#"{"introduced":"1.0.0"},{"fixed":"1.0.0"}"#);
        assert!(!is(&at_once, &Ecosystem::Npm, "1.0.0"));
    }

    #[test]
    fn the_versions_of_debian_are_in_the_order_of_dpkg() {
        let fixed = range("ECOSYSTEM", r#"{"introduced":"0"},{"fixed":"1:2.0~rc2-3+deb13u1"}"#);
        for (version, expected) in [
            ("2.5-1", true),
            ("1:2.0~rc1-9", true),
            ("1:2.0~rc2-3", true),
            ("1:2.0~rc2-3+deb13u1~1", true),
            ("1:2.0~rc2-3+deb13u1", false),
            ("1:2.0-1", false),
        ] {
            assert_eq!(is(&fixed, &DEBIAN, version), expected, "{version}");
        }
    }

    #[test]
    fn versions_that_are_listed_are_affected_beside_all_ranges() {
        let both = affected(
            r#"{"versions":["1.0","0:3-1"],"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"5"},{"fixed":"6"}]},
               {"type":"GIT","repo":"x","events":[{"introduced":"0"}]}]}"#,
        );
        for (version, expected) in [("1.0", true), ("3-1", true), ("4", false), ("5.5", true), ("6", false)] {
            assert_eq!(is(&both, &DEBIAN, version), expected, "{version}");
        }
        let Answer::Yes { fixed } = both.answer(&DEBIAN, "5.5") else { panic!("not affected") };
        assert_eq!(fixed, ["6"]);
    }

    #[test]
    fn what_cannot_be_compared_is_not_taken_for_a_no() {
        let unknown = |affected: &Affected, ecosystem: &Ecosystem, version: &str| {
            assert!(
                matches!(affected.answer(ecosystem, version), Answer::Unknown(_)),
                "{affected:?} {version}"
            );
        };
        unknown(&affected("{}"), &DEBIAN, "1");
        unknown(&range("GIT", r#"{"introduced":"0"}"#), &Ecosystem::Npm, "1.0.0");
        unknown(&range("SEMVER", r#"{"introduced":"0"},{"fixed":"9.0.0"}"#), &DEBIAN, "1");
        unknown(&range("TABLE", r#"{"introduced":"0"}"#), &DEBIAN, "1");
        unknown(&range("ECOSYSTEM", r#"{"fixed":"9"}"#), &DEBIAN, "1");
        unknown(&range("ECOSYSTEM", r#"{"introduced":"0","fixed":"9"}"#), &DEBIAN, "1");
        unknown(&range("ECOSYSTEM", r#"{}"#), &DEBIAN, "1");
        unknown(&range("ECOSYSTEM", r#"{"introduced":"0"},{"fixed":"1_0"}"#), &DEBIAN, "1");
        unknown(&range("SEMVER", r#"{"introduced":"0"},{"fixed":"next"}"#), &Ecosystem::Npm, "1.0.0");
        unknown(&range("SEMVER", r#"{"introduced":"0"}"#), &Ecosystem::Npm, "latest");
        let no = range("ECOSYSTEM", r#"{"introduced":"2"}"#);
        assert_eq!(no.answer(&DEBIAN, "1"), Answer::No);
    }

    #[test]
    fn a_record_of_another_release_of_debian_does_not_count() {
        for (named, expected) in [
            ("Debian:13", true),
            ("Debian", true),
            ("Debian:12", false),
            ("npm", false),
            ("Debian:130", false),
        ] {
            assert_eq!(DEBIAN.is(named), expected, "{named}");
        }
        assert!(Ecosystem::Debian(None).is("Debian:12"));
        assert!(Ecosystem::Npm.is("npm") && !Ecosystem::Npm.is("PyPI"));
    }

    #[test]
    fn a_record_is_read_as_databases_write_it() {
        let record = Record::parse(
            br#"{"schema_version":"1.2.0","id":"GHSA-r9p9-mrjm-926w","modified":"2021-03-08T16:02:43Z",
                "aliases":["CVE-2020-28498"],"upstream":null,"summary":"x","references":[{"type":"WEB","url":"y"}],
                "severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:C/C:H/I:N/A:N"}],
                "affected":[{"package":{"ecosystem":"npm","name":"elliptic"},
                "ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"6.5.4"}]}]}],
                "database_specific":{"severity":"MODERATE"}}"#,
        )
        .unwrap();
        assert!(is(&record.affected[0], &Ecosystem::Npm, "6.5.3"));
        assert!(!is(&record.affected[0], &Ecosystem::Npm, "6.5.4"));
        assert_eq!(record.names().collect::<Vec<_>>(), ["GHSA-r9p9-mrjm-926w", "CVE-2020-28498"]);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for bad in ["", "[]", "{}", r#"{"id":"x"}"#, r#"{"id":7,"modified":"x"}"#] {
            assert!(matches!(Record::parse(bad.as_bytes()), Err(Error::Json(_))), "{bad}");
        }
        assert!(matches!(Record::parse(br#"{"id":"","modified":"x"}"#), Err(Error::NoId)));
        let later = br#"{"id":"x","modified":"x","schema_version":"2.0.0"}"#;
        assert!(matches!(Record::parse(later), Err(Error::SchemaVersion { .. })));
    }
}
