//! Yields the packages of one index, from the bytes of a decompressed `Packages` file.
//!
//! # Shape
//! One stanza per package; every text field is a slice of the index, and `size` is in bytes.
//!
//! # Source
//! Debian repository format, "Packages Indices"; Debian Policy 5.3 and 5.6.
//!
//! # Not here
//! Authenticity (a verified [`crate::trust::debian::inrelease`] names the index's digest), merging of suites
//! and choice ([`super::solve`]).

use super::relation::is_package_name;
use crate::trust::debian::control::{self, ControlError, Stanza, is_safe_path, read_sha256, read_size};
use crate::trust::debian::version::{Version, VersionError};

/// Why an index cannot be used; `line` is the stanza's first line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackagesError {
    /// The index is not deb822.
    #[error("the package index is malformed")]
    Control(#[from] ControlError),
    /// A stanza lacks a required field.
    #[error("package `{package}` at line {line} has no field `{field}`")]
    Missing {
        /// The package, or `?` if the stanza does not name one.
        package: String,
        /// The stanza's first line.
        line: usize,
        /// The field's name.
        field: &'static str,
    },
    /// A field has an invalid value.
    #[error("package `{package}` at line {line} has the bad {field} `{found}`")]
    Field {
        /// The package as written.
        package: String,
        /// The stanza's first line.
        line: usize,
        /// The field's name.
        field: &'static str,
        /// Its value.
        found: String,
    },
    /// A version is malformed.
    #[error("package `{package}` at line {line} has a bad version")]
    Version {
        /// The package as written.
        package: String,
        /// The stanza's first line.
        line: usize,
        /// Why it is malformed.
        source: VersionError,
    },
    /// A package is for another architecture than the index.
    #[error("package `{package}` at line {line} is for `{found}`, expected `{expected}` or `all`")]
    Architecture {
        /// The package as written.
        package: String,
        /// The stanza's first line.
        line: usize,
        /// Its architecture.
        found: String,
        /// The index's architecture.
        expected: String,
    },
}

/// How much a system needs a package, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are Policy 2.5's")]
pub enum Priority {
    /// The field is absent: apt counts it as 0, before all others.
    Absent,
    Required,
    Important,
    Standard,
    Optional,
    Extra,
}

/// How a package relates to other architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the Multi-Arch specification's")]
pub enum MultiArch {
    No,
    Same,
    Foreign,
    Allowed,
}

/// One package of an index.
#[derive(Debug, Clone)]
pub struct Package<'a> {
    /// The binary package's name.
    pub name: &'a str,
    /// Its version.
    pub version: Version<'a>,
    /// Its architecture, or `all`.
    pub architecture: &'a str,
    /// The source package's name; the package's own if the field is absent.
    pub source: &'a str,
    /// The source package's version; the package's own if the field does not state one.
    pub source_version: &'a str,
    /// What must be configured before the package is unpacked.
    pub pre_depends: &'a str,
    /// What it needs.
    pub depends: &'a str,
    /// What must not be unpacked alongside it.
    pub conflicts: &'a str,
    /// What must not be configured alongside it.
    pub breaks: &'a str,
    /// The virtual packages that it provides.
    pub provides: &'a str,
    /// Recommends, Suggests, Replaces and Enhances: never followed, but apt's last tie-break considers them.
    pub mentions: [&'a str; 4],
    /// Whether every system must have it.
    pub essential: bool,
    /// Whether it is `Protected: yes` (or `Important: yes`), which apt prefers among providers.
    pub protected: bool,
    /// Its priority.
    pub priority: Priority,
    /// Its multi-arch kind.
    pub multi_arch: MultiArch,
    /// Its archive section.
    pub section: &'a str,
    /// Its path below the mirror's root: relative, without `.` or `..` components.
    pub filename: &'a str,
    /// The size of the archive in bytes.
    pub size: u64,
    /// The digest of the archive.
    pub sha256: [u8; 32],
}

/// Reads an index whose packages are for `architecture` or `all`, in the order of the index.
pub fn read<'a>(bytes: &'a [u8], architecture: &str) -> Result<Vec<Package<'a>>, PackagesError> {
    // A stanza of Debian's index is about 800 bytes long.
    let mut packages = Vec::with_capacity(bytes.len() / 700);
    for stanza in control::stanzas(bytes) {
        packages.push(read_stanza(&stanza?, architecture)?);
    }
    Ok(packages)
}

/// The fields of a stanza that matter here, as written.
#[derive(Default)]
struct Fields<'a> {
    name: Option<&'a str>,
    version: Option<&'a str>,
    architecture: Option<&'a str>,
    source: Option<&'a str>,
    pre_depends: &'a str,
    depends: &'a str,
    conflicts: &'a str,
    breaks: &'a str,
    provides: &'a str,
    mentions: [&'a str; 4],
    essential: Option<&'a str>,
    important: Option<&'a str>,
    protected: Option<&'a str>,
    priority: Option<&'a str>,
    multi_arch: Option<&'a str>,
    section: &'a str,
    filename: Option<&'a str>,
    size: Option<&'a str>,
    sha256: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn of(stanza: &Stanza<'a>) -> Self {
        let mut all = Fields::default();
        let [recommends, suggests, replaces, enhances] = &mut all.mentions;
        for field in &stanza.fields {
            let value = field.value;
            match field.name {
                "Package" => all.name = Some(value),
                "Version" => all.version = Some(value),
                "Architecture" => all.architecture = Some(value),
                "Source" => all.source = Some(value),
                "Pre-Depends" => all.pre_depends = value,
                "Depends" => all.depends = value,
                "Conflicts" => all.conflicts = value,
                "Breaks" => all.breaks = value,
                "Provides" => all.provides = value,
                "Recommends" => *recommends = value,
                "Suggests" => *suggests = value,
                "Replaces" => *replaces = value,
                "Enhances" => *enhances = value,
                "Essential" => all.essential = Some(value),
                "Important" => all.important = Some(value),
                "Protected" => all.protected = Some(value),
                "Priority" => all.priority = Some(value),
                "Multi-Arch" => all.multi_arch = Some(value),
                "Section" => all.section = value,
                "Filename" => all.filename = Some(value),
                "Size" => all.size = Some(value),
                "SHA256" => all.sha256 = Some(value),
                _ => {}
            }
        }
        all
    }

    fn priority(&self) -> Priority {
        match self.priority {
            Some("required") => Priority::Required,
            Some("important") => Priority::Important,
            Some("standard") => Priority::Standard,
            Some("optional") => Priority::Optional,
            Some(_) => Priority::Extra,
            None => Priority::Absent,
        }
    }
}

fn read_stanza<'a>(stanza: &Stanza<'a>, wanted: &str) -> Result<Package<'a>, PackagesError> {
    let line = stanza.line;
    let fields = Fields::of(stanza);
    let package = fields.name.unwrap_or("?");
    let missing = |field| PackagesError::Missing { package: package.into(), line, field };
    let bad = |field, found: &str| PackagesError::Field {
        package: package.into(),
        line,
        field,
        found: found.into(),
    };
    let yes = |field, value: Option<&str>| match value {
        None | Some("no") => Ok(false),
        Some("yes") => Ok(true),
        Some(other) => Err(bad(field, other)),
    };
    let name = fields.name.ok_or_else(|| missing("Package"))?;
    if !is_package_name(name) {
        return Err(bad("Package", name));
    }
    let version = Version::read(fields.version.ok_or_else(|| missing("Version"))?)
        .map_err(|source| PackagesError::Version { package: name.into(), line, source })?;
    let architecture = fields.architecture.ok_or_else(|| missing("Architecture"))?;
    if architecture != wanted && architecture != "all" {
        return Err(PackagesError::Architecture {
            package: name.into(),
            line,
            found: architecture.into(),
            expected: wanted.into(),
        });
    }
    let (source, source_version) = match fields.source {
        None => (name, version.as_str()),
        Some(text) => match text.split_once('(') {
            None => (text, version.as_str()),
            Some((source, rest)) => {
                (source.trim(), rest.strip_suffix(')').ok_or_else(|| bad("Source", text))?.trim())
            }
        },
    };
    if !is_package_name(source) {
        return Err(bad("Source", source));
    }
    let filename = fields.filename.ok_or_else(|| missing("Filename"))?;
    if !is_safe_path(filename) {
        return Err(bad("Filename", filename));
    }
    let size_text = fields.size.ok_or_else(|| missing("Size"))?;
    let sha256_text = fields.sha256.ok_or_else(|| missing("SHA256"))?;
    Ok(Package {
        name,
        version,
        architecture,
        source,
        source_version,
        pre_depends: fields.pre_depends,
        depends: fields.depends,
        conflicts: fields.conflicts,
        breaks: fields.breaks,
        provides: fields.provides,
        mentions: fields.mentions,
        essential: yes("Essential", fields.essential)?,
        protected: yes("Important", fields.important)? || yes("Protected", fields.protected)?,
        priority: fields.priority(),
        multi_arch: match fields.multi_arch {
            None | Some("no") => MultiArch::No,
            Some("same") => MultiArch::Same,
            Some("foreign") => MultiArch::Foreign,
            Some("allowed") => MultiArch::Allowed,
            Some(other) => return Err(bad("Multi-Arch", other)),
        },
        section: fields.section,
        filename,
        size: read_size(size_text).ok_or_else(|| bad("Size", size_text))?,
        sha256: read_sha256(sha256_text).ok_or_else(|| bad("SHA256", sha256_text))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "9ea7778e443144ca490668737a8ab22dd3e748bb99e805e22ec055abeb3c7fac";

    fn stanza(replace: &str, with: &str) -> String {
        format!(
            "Package: foo\nVersion: 1.2-3\nArchitecture: amd64\nFilename: pool/main/f/foo/foo_1.2-3_amd64.deb\n\
             Size: 12\nSHA256: {DIGEST}\n"
        )
        .replace(replace, with)
    }

    fn error(replace: &str, with: &str) -> PackagesError {
        read(stanza(replace, with).as_bytes(), "amd64").unwrap_err()
    }

    #[test]
    fn a_full_stanza_is_read() {
        let text = stanza(
            "Size: 12",
            "Source: bar (1.0)\nDepends: aa,\n bb\nPriority: required\nEssential: yes\nMulti-Arch: foreign\nSection: libs\nSize: 12",
        );
        let [package] = <[Package; 1]>::try_from(read(text.as_bytes(), "amd64").unwrap()).unwrap();
        assert_eq!((package.name, package.version.as_str(), package.size), ("foo", "1.2-3", 12));
        assert_eq!((package.source, package.source_version), ("bar", "1.0"));
        assert_eq!(package.depends, "aa,\n bb");
        assert!(package.essential && !package.protected);
        assert_eq!((package.priority, package.multi_arch), (Priority::Required, MultiArch::Foreign));
        assert_eq!(hex::encode(package.sha256), DIGEST);
    }

    #[test]
    fn the_source_defaults_to_the_package() {
        let text = stanza("", "");
        let package = read(text.as_bytes(), "amd64").unwrap().remove(0);
        assert_eq!((package.source, package.source_version), ("foo", "1.2-3"));
    }

    #[test]
    fn a_file_name_that_escapes_is_refused() {
        for path in [
            "../foo.deb",
            "pool/../../foo.deb",
            "/etc/passwd",
            "http://a/b.deb",
            "file:/x",
            "pool//foo.deb",
            "pool/./foo.deb",
            "pool\\foo.deb",
            "pool/%2e%2e/foo.deb",
            "pool/foo.deb?x",
            "pool/",
            "pool/a b.deb",
        ] {
            let error = error("pool/main/f/foo/foo_1.2-3_amd64.deb", path);
            assert!(matches!(error, PackagesError::Field { field: "Filename", .. }), "{path}: {error}");
        }
    }

    #[test]
    fn a_malformed_digest_is_refused() {
        for digest in [&DIGEST[1..], &format!("{DIGEST}0"), &DIGEST.to_uppercase(), &DIGEST.replace('9', "g")]
        {
            assert!(
                matches!(error(DIGEST, digest), PackagesError::Field { field: "SHA256", .. }),
                "{digest}"
            );
        }
    }

    #[test]
    fn a_malformed_size_is_refused() {
        for size in ["-1", "+1", "1.0", "0x1", "99999999999999999999"] {
            let error = error("Size: 12", &format!("Size: {size}"));
            assert!(matches!(error, PackagesError::Field { field: "Size", .. }), "{size}");
        }
    }

    #[test]
    fn a_stanza_without_a_needed_field_is_refused() {
        for field in ["Package", "Version", "Architecture", "Filename", "Size", "SHA256"] {
            let error = error(&format!("{field}:"), "Other:");
            assert!(matches!(error, PackagesError::Missing { field: f, .. } if f == field), "{error}");
        }
    }

    #[test]
    fn a_package_of_another_architecture_is_refused() {
        assert!(matches!(
            error("Architecture: amd64", "Architecture: arm64"),
            PackagesError::Architecture { .. }
        ));
        assert!(read(stanza("Architecture: amd64", "Architecture: all").as_bytes(), "amd64").is_ok());
    }

    #[test]
    fn bad_names_versions_and_flags_are_refused() {
        assert!(matches!(
            error("Package: foo", "Package: f/o"),
            PackagesError::Field { field: "Package", .. }
        ));
        assert!(matches!(error("1.2-3\n", "1_2\n"), PackagesError::Version { .. }));
        assert!(matches!(
            error("Size", "Essential: maybe\nSize"),
            PackagesError::Field { field: "Essential", .. }
        ));
        assert!(matches!(
            error("Size", "Multi-Arch: x\nSize"),
            PackagesError::Field { field: "Multi-Arch", .. }
        ));
        assert!(matches!(error("Size", "Source: a(1\nSize"), PackagesError::Field { field: "Source", .. }));
        assert!(matches!(error("Size: 12", "Size: 12\nSize: 12"), PackagesError::Control(_)));
    }
}
