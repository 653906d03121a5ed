//! Dependency relations, from the text of a relationship field.
//!
//! # Shape
//! ```text
//! field       = group *("," group)
//! group       = alternative *("|" alternative)
//! alternative = name [":" qualifier] ["(" operator version ")"] ["[" architectures "]"] *("<" profiles ">")
//! ```
//!
//! # Source
//! Debian Policy 7.1 and 7.5; deb-src-control(5) for architectures and build profiles.
//!
//! # Not here
//! Whether anything satisfies a relation: [`super::solve`].

use crate::trust::debian::version::{Version, VersionError};

/// Why a relationship field cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelationError {
    /// A package name breaks Policy 5.6.1.
    #[error("`{found}` in relation `{relation}` is not a package name")]
    Name {
        /// The alternative as written.
        relation: String,
        /// The text in place of the name.
        found: String,
    },
    /// The operator is not `<<`, `<=`, `=`, `>=` or `>>`.
    #[error("relation `{relation}` has the unknown operator `{found}`")]
    Operator {
        /// The alternative as written.
        relation: String,
        /// The operator as written.
        found: String,
    },
    /// A bracket is not closed, or text follows the last one.
    #[error("relation `{relation}` ends in `{rest}`, which is not understood")]
    Rest {
        /// The alternative as written.
        relation: String,
        /// What could not be read.
        rest: String,
    },
    /// The version is malformed.
    #[error("relation `{relation}` has a bad version")]
    Version {
        /// The alternative as written.
        relation: String,
        /// Why it is malformed.
        source: VersionError,
    },
}

/// How a version compares with the one named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

/// One package with its restrictions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative<'a> {
    /// The text of this alternative, trimmed.
    pub text: &'a str,
    /// The package name, real or virtual.
    pub name: &'a str,
    /// What follows the colon: `any`, `native` or an architecture.
    pub qualifier: Option<&'a str>,
    /// The version it asks for.
    pub constraint: Option<(Operator, Version<'a>)>,
    /// The text in brackets, negations with their `!`; empty if absent.
    pub architectures: Vec<&'a str>,
    /// The text in angle brackets, one entry per pair; empty if absent.
    pub profiles: Vec<&'a str>,
}

/// Alternatives, one of which is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    /// The text of the whole group, trimmed.
    pub text: &'a str,
    /// At least one alternative, in the order of preference.
    pub alternatives: Vec<Alternative<'a>>,
}

impl Alternative<'_> {
    /// Returns whether `version` satisfies the constraint.
    pub fn admits(&self, version: &Version<'_>) -> bool {
        match &self.constraint {
            None => true,
            Some((Operator::Earlier, wanted)) => version < wanted,
            Some((Operator::EarlierOrEqual, wanted)) => version <= wanted,
            Some((Operator::Equal, wanted)) => version == wanted,
            Some((Operator::LaterOrEqual, wanted)) => version >= wanted,
            Some((Operator::Later, wanted)) => version > wanted,
        }
    }

    /// Returns whether the alternative applies to `architecture`, with no build profile active.
    pub fn applies_to(&self, architecture: &str) -> bool {
        let negated = self.architectures.iter().any(|a| a.starts_with('!'));
        let named = self.architectures.iter().any(|a| a.trim_start_matches('!') == architecture);
        let architecture_fits = self.architectures.is_empty() || (named != negated);
        // A restriction formula holds if all terms of one list hold; without profiles only negated terms do.
        let profile_fits = self.profiles.is_empty()
            || self
                .profiles
                .iter()
                .any(|list| list.split_ascii_whitespace().all(|term| term.starts_with('!')));
        architecture_fits && profile_fits
    }
}

/// Reads a relationship field. An empty field has no groups; an empty group between commas is skipped.
pub fn read(field: &str) -> Result<Vec<Group<'_>>, RelationError> {
    let mut groups = Vec::new();
    for text in field.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let alternatives =
            text.split('|').map(|one| read_alternative(one.trim())).collect::<Result<Vec<_>, _>>()?;
        groups.push(Group { text, alternatives });
    }
    Ok(groups)
}

/// Returns whether `name` fits Policy 5.6.1: two or more of `a-z0-9+-.`, the first a letter or a digit.
pub fn is_package_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() >= 2
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        // Upper case breaks Policy, but Debian's archive has carried it in Provides.
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte))
}

fn read_alternative(text: &str) -> Result<Alternative<'_>, RelationError> {
    let end = text.find(|c: char| c.is_ascii_whitespace() || "([<".contains(c)).unwrap_or(text.len());
    let (head, mut rest) = text.split_at_checked(end).unwrap_or((text, ""));
    let (name, qualifier) = match head.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (head, None),
    };
    if !is_package_name(name) || qualifier.is_some_and(|q| q.is_empty() || q.contains(':')) {
        return Err(RelationError::Name { relation: text.into(), found: head.into() });
    }
    let unread = |rest: &str| RelationError::Rest { relation: text.into(), rest: rest.into() };
    let mut read = Alternative {
        text,
        name,
        qualifier,
        constraint: None,
        architectures: Vec::new(),
        profiles: Vec::new(),
    };
    rest = rest.trim_start();
    if let Some(after) = rest.strip_prefix('(') {
        let (inside, after) = after.split_once(')').ok_or_else(|| unread(rest))?;
        read.constraint = Some(read_constraint(text, inside.trim())?);
        rest = after.trim_start();
    }
    if let Some(after) = rest.strip_prefix('[') {
        let (inside, after) = after.split_once(']').ok_or_else(|| unread(rest))?;
        read.architectures = inside.split_ascii_whitespace().collect();
        rest = after.trim_start();
    }
    while let Some(after) = rest.strip_prefix('<') {
        let (inside, after) = after.split_once('>').ok_or_else(|| unread(rest))?;
        read.profiles.push(inside.trim());
        rest = after.trim_start();
    }
    if rest.is_empty() { Ok(read) } else { Err(unread(rest)) }
}

fn read_constraint<'a>(relation: &'a str, inside: &'a str) -> Result<(Operator, Version<'a>), RelationError> {
    let end = inside.find(|c: char| !"<>=".contains(c)).unwrap_or(inside.len());
    let (sign, version) = inside.split_at_checked(end).unwrap_or((inside, ""));
    let operator = match sign {
        "<<" => Operator::Earlier,
        "<=" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        other => return Err(RelationError::Operator { relation: relation.into(), found: other.into() }),
    };
    let version = Version::read(version.trim())
        .map_err(|source| RelationError::Version { relation: relation.into(), source })?;
    Ok((operator, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_relation_is_read() {
        let groups =
            read("aa (>= 1) | bb:any [amd64 arm64] <!nocheck> <!cross !stage1>, cc,\n dd(<<2:3-4),").unwrap();
        assert_eq!(groups.len(), 3);
        let [first, _, third] = groups.as_slice() else { panic!("three groups") };
        assert_eq!(first.text, "aa (>= 1) | bb:any [amd64 arm64] <!nocheck> <!cross !stage1>");
        let [a, b] = first.alternatives.as_slice() else { panic!("two alternatives") };
        assert_eq!(a.name, "aa");
        assert_eq!(a.constraint, Some((Operator::LaterOrEqual, Version::read("1").unwrap())));
        assert_eq!((b.name, b.qualifier), ("bb", Some("any")));
        assert_eq!(b.architectures, ["amd64", "arm64"]);
        assert_eq!(b.profiles, ["!nocheck", "!cross !stage1"]);
        assert_eq!(
            third.alternatives[0].constraint,
            Some((Operator::Earlier, Version::read("2:3-4").unwrap()))
        );
    }

    #[test]
    fn restrictions_decide_whether_a_relation_applies() {
        for (text, applies) in [
            ("aa", true),
            ("aa [amd64]", true),
            ("aa [arm64]", false),
            ("aa [!arm64 !i386]", true),
            ("aa [!amd64]", false),
            ("aa <!nocheck>", true),
            ("aa <cross>", false),
            ("aa <cross> <!nodoc>", true),
        ] {
            assert_eq!(read(text).unwrap()[0].alternatives[0].applies_to("amd64"), applies, "{text}");
        }
    }

    #[test]
    fn every_operator_admits_what_it_should() {
        for (sign, admitted) in [
            ("<<", [true, false, false]),
            ("<=", [true, true, false]),
            ("=", [false, true, false]),
            (">=", [false, true, true]),
            (">>", [false, false, true]),
        ] {
            let text = format!("aa ({sign} 2)");
            let groups = read(&text).unwrap();
            let got = ["1", "2", "3"].map(|v| groups[0].alternatives[0].admits(&Version::read(v).unwrap()));
            assert_eq!(got, admitted, "{sign}");
        }
    }

    #[test]
    fn a_bad_name_is_refused() {
        for text in ["|aa", "aa | ", "-a", "aa: (>= 1)", "a/b", "a:b:c"] {
            assert!(matches!(read(text), Err(RelationError::Name { .. })), "{text}");
        }
    }

    #[test]
    fn an_unknown_operator_is_refused() {
        for text in ["aa (1)", "aa (== 1)", "aa (< 1)", "aa (<> 1)"] {
            assert!(matches!(read(text), Err(RelationError::Operator { .. })), "{text}");
        }
    }

    #[test]
    fn an_open_bracket_or_trailing_text_is_refused() {
        for text in ["aa (>= 1", "aa [amd64", "aa <x", "aa bb", "aa (>= 1) bb", "aa [x] (>= 1)"] {
            assert!(matches!(read(text), Err(RelationError::Rest { .. })), "{text}");
        }
    }

    #[test]
    fn a_bad_version_is_refused() {
        assert!(matches!(read("aa (>= 1_2)"), Err(RelationError::Version { .. })));
        assert!(matches!(read("aa (>= )"), Err(RelationError::Version { .. })));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in "\\PC{0,60}") {
            let _ = read(&text);
        }
    }
}
