//! Yields the mirrors that may have a file, the preferred one first.
//!
//! # Shape
//! The order is: flags, environment, the user's configuration, the machine's own apt and npm configuration,
//! built-in defaults. All of them are tried: what they serve is checked against the lock.
//!
//! | what | environment | `config.toml`, table `[mirrors]` |
//! | --- | --- | --- |
//! | Debian | `PROOFMARK_DEBIAN_MIRROR` | `debian = ["…"]` |
//! | Debian security | `PROOFMARK_DEBIAN_SECURITY_MIRROR` | `debian-security = ["…"]` |
//! | npm | `PROOFMARK_NPM_REGISTRY` | `npm = ["…"]` |
//! | vendored folders | `PROOFMARK_VENDOR` | `vendor = ["…"]` |
//!
//! `{snapshot}` in a URL stands for the lock's snapshot time.
//!
//! # Source
//! sources.list(5) for one-line and deb822 sources.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;

use crate::lock::{ArchiveKind, Blob};

const DEBIAN: &str = "https://snapshot.debian.org/archive/debian/{snapshot}/";
const DEBIAN_SECURITY: &str = "https://snapshot.debian.org/archive/debian-security/{snapshot}/";
const NPM: &str = "https://registry.npmmirror.com/";

/// Code names and aliases under which apt sources name Debian's own suites.
const DEBIAN_SUITES: [&str; 12] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "stable",
    "oldstable",
    "oldoldstable",
    "testing",
    "unstable",
    "experimental",
];

/// Why the user's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct Error {
    /// The configuration.
    path: PathBuf,
    /// What is wrong.
    message: String,
}

/// Mirrors from one source of configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Given {
    /// Debian's main archive.
    pub debian: Vec<String>,
    /// Debian's security archive.
    pub debian_security: Vec<String>,
    /// npm registries.
    pub npm: Vec<String>,
    /// Vendored folders.
    pub vendor: Vec<PathBuf>,
}

impl Given {
    fn of(&self, kind: ArchiveKind) -> &[String] {
        match kind {
            ArchiveKind::Debian => &self.debian,
            ArchiveKind::DebianSecurity => &self.debian_security,
            ArchiveKind::Npm => &self.npm,
        }
    }

    /// Reads the environment; `variable` returns the value of a variable.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let words = |name: &str| -> Vec<String> {
            variable(name)
                .map(|text| text.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default()
        };
        Given {
            debian: words("PROOFMARK_DEBIAN_MIRROR"),
            debian_security: words("PROOFMARK_DEBIAN_SECURITY_MIRROR"),
            npm: words("PROOFMARK_NPM_REGISTRY"),
            vendor: words("PROOFMARK_VENDOR").into_iter().map(PathBuf::from).collect(),
        }
    }

    /// Reads the user's configuration; empty when the file does not exist.
    ///
    /// # Errors
    /// [`Error`] when it cannot be read or parsed.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        #[derive(Deserialize, Default)]
        #[serde(deny_unknown_fields, default)]
        struct Configuration {
            mirrors: Given,
        }
        let wrong = |message: String| Error { path: path.to_owned(), message };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let parsed: Result<Configuration, _> = toml::from_str(&text);
                parsed.map(|parsed| parsed.mirrors).map_err(|error| wrong(error.to_string()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Given::default()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}

/// All mirrors that may be asked.
pub struct Mirrors {
    given: Vec<Given>,
    apt: OnceLock<(Vec<String>, Vec<String>)>,
    npm: OnceLock<Option<String>>,
    /// Asks the machine's npm for its registry.
    ask_npm: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

impl std::fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mirrors({:?})", self.given)
    }
}

impl Mirrors {
    /// Combines the given mirrors, the preferred first, with the machine's own and the defaults.
    pub fn new(given: Vec<Given>, ask_npm: Box<dyn Fn() -> Option<String> + Send + Sync>) -> Self {
        Mirrors { given, apt: OnceLock::new(), npm: OnceLock::new(), ask_npm }
    }

    /// Lists the base URLs or folders of an archive, without duplicates.
    pub fn bases(&self, kind: ArchiveKind, snapshot: &str) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for given in &self.given {
            all.extend(given.vendor.iter().map(|folder| folder.join(kind.name()).display().to_string()));
            all.extend(given.of(kind).iter().cloned());
        }
        match kind {
            ArchiveKind::Debian => all.extend(self.apt().0.iter().cloned()),
            ArchiveKind::DebianSecurity => all.extend(self.apt().1.iter().cloned()),
            ArchiveKind::Npm => all.extend(self.npm.get_or_init(|| (self.ask_npm)()).clone()),
        }
        all.push(
            match kind {
                ArchiveKind::Debian => DEBIAN,
                ArchiveKind::DebianSecurity => DEBIAN_SECURITY,
                ArchiveKind::Npm => NPM,
            }
            .to_owned(),
        );
        let mut seen = std::collections::BTreeSet::new();
        all.into_iter()
            .map(|base| base.replace("{snapshot}", snapshot).trim_end_matches('/').to_owned())
            .filter(|base| seen.insert(base.clone()))
            .collect()
    }

    /// Lists the places of a file, the preferred one first.
    pub fn places(&self, blob: &Blob) -> Vec<String> {
        let bases = self.bases(blob.archive, &blob.snapshot);
        bases.into_iter().map(|base| format!("{base}/{}", blob.path)).collect()
    }

    fn apt(&self) -> &(Vec<String>, Vec<String>) {
        self.apt.get_or_init(|| {
            let mut texts = Vec::new();
            let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
            if let Ok(folder) = std::fs::read_dir("/etc/apt/sources.list.d") {
                let mut more: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
                more.sort();
                files.extend(more);
            }
            for file in files {
                let one_line = file.extension().is_some_and(|extension| extension == "list");
                let deb822 = file.extension().is_some_and(|extension| extension == "sources");
                if let (true, Ok(text)) = (one_line || deb822, std::fs::read_to_string(&file)) {
                    texts.push((one_line, text));
                }
            }
            let sources =
                texts.iter().flat_map(
                    |(one_line, text)| {
                        if *one_line { one_line_sources(text) } else { deb822_sources(text) }
                    },
                );
            debian_sources(sources)
        })
    }
}

/// Picks Debian's own archives from `(URL, suite)` pairs: main, and security.
fn debian_sources(sources: impl Iterator<Item = (String, String)>) -> (Vec<String>, Vec<String>) {
    let (mut main, mut security) = (Vec::new(), Vec::new());
    for (url, suite) in sources {
        let base = suite.split(['-', '/']).next().unwrap_or("");
        if !DEBIAN_SUITES.contains(&base) || !(url.starts_with("http://") || url.starts_with("https://")) {
            continue;
        }
        let list = if suite.contains("security") { &mut security } else { &mut main };
        if !list.contains(&url) {
            list.push(url);
        }
    }
    (main, security)
}

fn one_line_sources(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next()?.trim().strip_prefix("deb ")?.trim();
            let line = match line.strip_prefix('[') {
                Some(options) => options.split_once(']')?.1,
                None => line,
            };
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect()
}

fn deb822_sources(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| -> Vec<String> {
            let mut words = Vec::new();
            let mut inside = false;
            for line in stanza.lines().filter(|line| !line.starts_with('#')) {
                if !line.starts_with([' ', '\t']) {
                    let (key, value) = line.split_once(':').unwrap_or((line, ""));
                    inside = key.eq_ignore_ascii_case(name);
                    if inside {
                        words.extend(value.split_whitespace().map(str::to_owned));
                    }
                } else if inside {
                    words.extend(line.split_whitespace().map(str::to_owned));
                }
            }
            words
        };
        let disabled = field("Enabled").first().is_some_and(|word| word.eq_ignore_ascii_case("no"));
        if disabled || !field("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        for url in field("URIs") {
            all.extend(field("Suites").into_iter().map(|suite| (url.clone(), suite)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_both_forms_are_read_and_others_passed_over() {
        let deb822 = "# comment\nTypes: deb deb-src\nURIs: http://a.example/debian/ https://b.example/debian\nSuites: \
                      trixie trixie-updates\nComponents: main\n\nTypes: deb\nURIs: http://a.example/security\nSuites:\n \
                      trixie-security\n\nTypes: deb\nURIs: http://no.example/\nSuites: nodistro\n\nEnabled: no\nTypes: \
                      deb\nURIs: http://off.example\nSuites: trixie\n";
        let list = "deb [arch=amd64 signed-by=/x] http://c.example/debian bookworm main # x\n# deb http://d.example/debian \
                    sid main\ndeb-src http://e.example/debian sid main\ndeb cdrom:[x]/ sid main\n";
        let (main, security) =
            debian_sources(deb822_sources(deb822).into_iter().chain(one_line_sources(list)));
        assert_eq!(main, ["http://a.example/debian/", "https://b.example/debian", "http://c.example/debian"]);
        assert_eq!(security, ["http://a.example/security"]);
    }

    #[test]
    fn given_mirrors_come_first_and_the_snapshot_is_filled_in() {
        let flags =
            Given { npm: vec!["http://flag.example/".into()], vendor: vec!["/v".into()], ..Given::default() };
        let environment = Given::from_environment(&|name| match name {
            "PROOFMARK_NPM_REGISTRY" => Some("http://one.example http://flag.example".into()),
            "PROOFMARK_DEBIAN_MIRROR" => Some("http://deb.example/{snapshot}".into()),
            _ => None,
        });
        let mirrors =
            Mirrors::new(vec![flags, environment], Box::new(|| Some("http://machine.example/".into())));
        assert_eq!(
            mirrors.bases(ArchiveKind::Npm, ""),
            [
                "/v/npm",
                "http://flag.example",
                "http://one.example",
                "http://machine.example",
                NPM.trim_end_matches('/')
            ]
        );
        let debian = mirrors.bases(ArchiveKind::Debian, "20260912T200000Z");
        assert_eq!(debian[..2], ["/v/debian", "http://deb.example/20260912T200000Z"]);
        assert_eq!(debian.last().unwrap(), "https://snapshot.debian.org/archive/debian/20260912T200000Z");
    }

    #[test]
    fn a_configuration_with_an_unknown_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert!(Given::from_file(&path).unwrap().npm.is_empty());
        std::fs::write(&path, "[mirrors]\nnpm = [\"http://x.example\"]\n").unwrap();
        assert_eq!(Given::from_file(&path).unwrap().npm, ["http://x.example"]);
        std::fs::write(&path, "[mirrors]\nnmp = []\n").unwrap();
        assert!(Given::from_file(&path).unwrap_err().to_string().contains("unknown field `nmp`"));
    }
}
