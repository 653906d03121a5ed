//! Yields an SPDX licence expression from what a package states: Debian's copyright file or npm's field.
//!
//! # Shape
//! ```text
//! copyright (machine-readable) ─> License: of every Files: stanza ─> A AND (B OR C) AND LicenseRef-Debian-…
//! package.json "license"       ─> the expression, with names in SPDX's spelling
//! ```
//! A name that SPDX does not know becomes a `LicenseRef-Debian-NAME-DIGEST` that carries the text in the
//! file. The digest is of that text, so equal names with different texts stay distinct. An invalid expression
//! gives `None`.
//!
//! # Source
//! Debian copyright-format 1.0 ("License specification", "Short name", "Syntax"); SPDX 2.3 annex D; package.json(5).
//!
//! # Not here
//! Whether a licence permits anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

use rootfs::content::Sha256Digest;

use crate::trust::debian::control::{self, Stanza};

/// A licence without an SPDX name, with its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extracted {
    /// `LicenseRef-…`.
    pub id: String,
    /// The name that the package gives it.
    pub name: String,
    /// Its text, as given by the package.
    pub text: String,
}

/// An expression, and the licences in it without an SPDX name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licence {
    /// A valid SPDX expression.
    pub expression: String,
    /// What its `LicenseRef`s stand for, sorted.
    pub extracted: BTreeSet<Extracted>,
}

/// SPDX's names, keyed by their lower-case form.
static NAMES: LazyLock<BTreeMap<String, &'static str>> = LazyLock::new(|| {
    spdx::identifiers::LICENSES
        .iter()
        .map(|licence| (licence.name.to_ascii_lowercase(), licence.name))
        .collect()
});

/// Debian's short names that differ from SPDX's by more than case, version or a plus.
const DEBIAN_NAMES: [(&str, &str); 6] = [
    ("apache-2", "Apache-2.0"),
    ("artistic", "Artistic-1.0"),
    ("artistic-2", "Artistic-2.0"),
    ("expat", "MIT"),
    ("mpl-2", "MPL-2.0"),
    ("python-2", "Python-2.0"),
];

/// An expression as a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Name(String),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, word) = match self {
            Expression::Name(name) => return f.write_str(name),
            Expression::All(parts) => (parts, " AND "),
            Expression::Any(parts) => (parts, " OR "),
        };
        for (number, part) in parts.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { word })?;
            match (self, part) {
                (Expression::All(_), Expression::Any(_)) => write!(f, "({part})")?,
                _ => write!(f, "{part}")?,
            }
        }
        Ok(())
    }
}

/// Reads the licence that a Debian copyright file states; `None` unless it is machine-readable and has one.
pub fn of_copyright(text: &[u8]) -> Option<Licence> {
    let text = String::from_utf8_lossy(text);
    if !text.trim_start().starts_with("Format:") {
        return None;
    }
    let stanzas: Vec<Stanza<'_>> = control::stanzas(text.as_bytes()).collect::<Result<_, _>>().ok()?;
    let licence = |stanza: &Stanza<'_>| -> Option<(String, String)> {
        let value = stanza.value("License")?;
        let (synopsis, body) = value.split_once('\n').unwrap_or((value, ""));
        Some((synopsis.trim().to_owned(), plain(body)))
    };
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for stanza in &stanzas {
        if let Some((name, body)) = licence(stanza).filter(|(_, body)| !body.is_empty()) {
            texts.entry(name.to_ascii_lowercase()).or_insert(body);
        }
    }
    let stated: BTreeSet<String> = stanzas
        .iter()
        .filter(|stanza| stanza.field("Files").is_some())
        .filter_map(|stanza| licence(stanza).map(|(name, _)| name))
        .filter(|name| !name.is_empty())
        .collect();
    let mut extracted = BTreeSet::new();
    let mut parts: BTreeMap<String, Expression> = BTreeMap::new();
    for synopsis in stated {
        let flat = match parse(&synopsis, &texts, &mut extracted) {
            Expression::All(parts) => parts,
            other => vec![other],
        };
        parts.extend(flat.into_iter().map(|part| (part.to_string(), part)));
    }
    let mut parts: Vec<Expression> = parts.into_values().collect();
    let expression = if parts.len() == 1 { parts.pop()? } else { Expression::All(parts) }.to_string();
    if expression.is_empty() || spdx::Expression::parse_mode(&expression, MODE).is_err() {
        return None;
    }
    Some(Licence { expression, extracted })
}

/// Names must be SPDX's own; deprecated ones still count.
const MODE: spdx::ParseMode = spdx::ParseMode { allow_deprecated: true, ..spdx::ParseMode::STRICT };

/// Reads the expression that an npm package states; `None` if it is not a valid one.
pub fn of_npm(stated: &str) -> Option<String> {
    let stated = stated.trim();
    if stated.is_empty() {
        return None;
    }
    let expression = match spdx::Expression::canonicalize(stated) {
        Ok(Some(better)) => better,
        Ok(None) => stated.to_owned(),
        Err(_) => NAMES.get(&stated.to_ascii_lowercase()).map(|name| (*name).to_owned())?,
    };
    let parsed = spdx::Expression::parse_mode(&expression, MODE).ok()?;
    // npm gives no licence text for a reference to carry.
    let known = parsed.requirements().all(|part| part.req.license.id().is_some());
    known.then_some(expression)
}

/// Unfolds a value: removes the leading space, and the dot that marks an empty line.
fn plain(body: &str) -> String {
    let lines = body.lines().map(|line| match line.trim() {
        "." => "",
        _ => line.strip_prefix([' ', '\t']).unwrap_or(line).trim_end(),
    });
    lines.collect::<Vec<_>>().join("\n").trim_matches('\n').to_owned()
}

/// Reads `A and B or C, and D`: a comma binds more loosely than `or`, and `or` more loosely than `and`.
fn parse(
    synopsis: &str,
    texts: &BTreeMap<String, String>,
    extracted: &mut BTreeSet<Extracted>,
) -> Expression {
    let words: Vec<&str> = synopsis.split_whitespace().collect();
    let is = |word: &str, operator: &str| word.eq_ignore_ascii_case(operator);
    for (operator, comma) in [("or", true), ("and", true), ("or", false), ("and", false)] {
        let mut parts: Vec<Vec<&str>> = vec![Vec::new()];
        for (number, word) in words.iter().enumerate() {
            let before = number.checked_sub(1).and_then(|before| words.get(before));
            let splits = is(word, operator) && (!comma || before.is_some_and(|before| before.ends_with(',')));
            match parts.last_mut() {
                Some(part) if !splits => part.push(word),
                _ => parts.push(Vec::new()),
            }
        }
        if parts.len() > 1 && parts.iter().all(|part| !part.is_empty()) {
            let read = |part: Vec<&str>, extracted: &mut BTreeSet<Extracted>| {
                parse(part.join(" ").trim_end_matches(','), texts, extracted)
            };
            let mut flat: Vec<Expression> = Vec::new();
            for part in parts {
                match (read(part, extracted), operator) {
                    (Expression::All(inner), "and") | (Expression::Any(inner), "or") => flat.extend(inner),
                    (other, _) => flat.push(other),
                }
            }
            flat.sort_by_key(ToString::to_string);
            flat.dedup();
            return match (flat.len(), operator) {
                (1, _) => flat.pop().unwrap_or(Expression::All(Vec::new())),
                (_, "or") => Expression::Any(flat),
                _ => Expression::All(flat),
            };
        }
    }
    Expression::Name(name(synopsis.trim_end_matches(','), texts, extracted))
}

/// Reads one licence, with its exception if there is one.
fn name(stated: &str, texts: &BTreeMap<String, String>, extracted: &mut BTreeSet<Extracted>) -> String {
    let split = stated.split_once(" with ").or_else(|| stated.split_once(" WITH "));
    let known = match split {
        None => known(stated),
        Some((licence, exception)) => {
            let exception = spdx::exception_id(exception.trim());
            known(licence.trim())
                .zip(exception)
                .map(|(licence, exception)| format!("{licence} WITH {}", exception.name))
        }
    };
    known.unwrap_or_else(|| {
        let text = texts.get(&stated.to_ascii_lowercase()).cloned().unwrap_or_else(|| {
            format!("The package's copyright file calls this licence {stated:?} and gives no text for it.")
        });
        let digest = Sha256Digest::of(text.as_bytes()).to_string();
        let safe: String = stated
            .chars()
            .map(|char| if char.is_ascii_alphanumeric() || char == '.' { char } else { '-' })
            .take(60)
            .collect();
        let id = format!("LicenseRef-Debian-{safe}-{}", digest.get(..8).unwrap_or_default());
        extracted.insert(Extracted { id: id.clone(), name: stated.to_owned(), text });
        id
    })
}

/// Returns SPDX's name for one of Debian's short names.
fn known(stated: &str) -> Option<String> {
    let lower = stated.to_ascii_lowercase();
    if let Some((_, name)) = DEBIAN_NAMES.iter().find(|(debian, _)| *debian == lower) {
        return Some((*name).to_owned());
    }
    let (base, later) = match lower.strip_suffix('+').or_else(|| lower.strip_suffix("-or-later")) {
        Some(base) => (base, true),
        None => (lower.strip_suffix("-only").unwrap_or(&lower), false),
    };
    let gnu = ["gpl-", "lgpl-", "agpl-", "gfdl-"].iter().any(|family| base.starts_with(family));
    if gnu {
        let suffix = if later { "-or-later" } else { "-only" };
        // Debian omits a final ".0"; SPDX does not.
        let forms = [format!("{base}{suffix}"), format!("{base}.0{suffix}")];
        return forms.iter().find_map(|form| NAMES.get(form)).map(|name| (*name).to_owned());
    }
    let name = NAMES.get(base).or_else(|| NAMES.get(&format!("{base}.0")))?;
    Some(if later { format!("{name}+") } else { (*name).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(synopses: &[&str]) -> String {
        let mut text =
            "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n".to_owned();
        for synopsis in synopses {
            text.push_str(&format!("\nFiles: *\nCopyright: x\nLicense: {synopsis}\n"));
        }
        of_copyright(text.as_bytes()).unwrap().expression
    }

    #[test]
    fn short_names_of_debian_become_those_of_spdx() {
        for (debian, spdx) in [
            ("GPL-2+", "GPL-2.0-or-later"),
            ("GPL-2", "GPL-2.0-only"),
            ("LGPL-2.1+", "LGPL-2.1-or-later"),
            ("lgpl-3.0-only", "LGPL-3.0-only"),
            ("Expat", "MIT"),
            ("BSD-3-clause", "BSD-3-Clause"),
            ("Apache-2.0", "Apache-2.0"),
            ("GFDL-1.3+", "GFDL-1.3-or-later"),
            ("GPL-2+ or Artistic-2.0", "Artistic-2.0 OR GPL-2.0-or-later"),
            ("GPL-2 with Linux-syscall-note", "GPL-2.0-only WITH Linux-syscall-note"),
            ("Expat and ISC or Zlib", "ISC AND MIT OR Zlib"),
            ("Expat, and ISC or Zlib", "(ISC OR Zlib) AND MIT"),
        ] {
            assert_eq!(expression(&[debian]), spdx, "{debian}");
        }
        assert_eq!(expression(&["Expat", "GPL-2+ or ISC", "Expat"]), "(GPL-2.0-or-later OR ISC) AND MIT");
    }

    #[test]
    fn a_licence_that_spdx_does_not_name_keeps_its_text() {
        let text = "Format: x\n\nFiles: *\nLicense: public-domain\n Do what you want.\n .\n Really.\n\n\
                    Files: y\nLicense: GPL-2+ with OpenSSL exception\n\nLicense: other\n unused\n";
        let licence = of_copyright(text.as_bytes()).unwrap();
        let names: Vec<&str> = licence.extracted.iter().map(|extracted| extracted.name.as_str()).collect();
        assert_eq!(names, ["GPL-2+ with OpenSSL exception", "public-domain"]);
        let domain = licence.extracted.iter().find(|extracted| extracted.name == "public-domain").unwrap();
        assert_eq!(domain.text, "Do what you want.\n\nReally.");
        assert!(domain.id.starts_with("LicenseRef-Debian-public-domain-"), "{}", domain.id);
        assert!(licence.expression.contains(" AND LicenseRef-Debian-"), "{}", licence.expression);
    }

    #[test]
    fn what_is_not_machine_readable_states_nothing() {
        for text in
            ["", "This package was debianised by somebody.\n", "Format: x\n", "Format: x\nformat: y\n"]
        {
            assert_eq!(of_copyright(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(of_copyright(b"Format: x\n\nFiles: *\nLicense: \xff\xfe\n").unwrap().extracted.len(), 1);
    }

    #[test]
    fn npm_expressions_are_written_as_spdx_does_and_others_are_none() {
        assert_eq!(of_npm("MIT").as_deref(), Some("MIT"));
        assert_eq!(of_npm("(MIT OR Apache-2.0)").as_deref(), Some("(MIT OR Apache-2.0)"));
        assert_eq!(of_npm("apache-2.0").as_deref(), Some("Apache-2.0"));
        assert_eq!(of_npm("BlueOak-1.0.0").as_deref(), Some("BlueOak-1.0.0"));
        for none in
            ["", "UNLICENSED", "SEE LICENSE IN LICENSE", "LicenseRef-x", "MIT AND", "(MIT", "Public Domain"]
        {
            assert_eq!(of_npm(none), None, "{none}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_a_valid_expression_or_none(text in "\\PC{0,60}") {
            if let Some(licence) = of_copyright(format!("Format: x\n\nFiles: *\nLicense: {text}\n").as_bytes()) {
                proptest::prop_assert!(spdx::Expression::parse_mode(&licence.expression, MODE).is_ok());
            }
            let _ = of_npm(&text);
        }
    }
}
