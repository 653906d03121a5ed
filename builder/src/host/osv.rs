//! Yields the records of a vulnerability database in a folder, and the digest that identifies the database.
//!
//! # Shape
//! ```text
//! FOLDER/**/*.json   one record each, as in unpacked exports of osv.dev (`Debian/all.zip`, `npm/all.zip`)
//! digest             SHA-256 of the lines "DIGEST  PATH\n", sorted by path:
//!                    cd FOLDER && find -L . -type f -name '*.json' -printf '%P\n' | LC_ALL=C sort |
//!                        xargs -d '\n' sha256sum | sha256sum
//! ```
//! Every file is read and must be a record: a damaged one stops the scan, for it could be the one that
//! matters. Of two records with the same ID, the one modified later counts.
//!
//! # Source
//! OSV schema 1.7: `id` and `modified`.
//!
//! # Not here
//! Fetching a database: a scan does not use the network.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rootfs::content::Sha256Digest;
use sha2::{Digest, Sha256};

use crate::claim::scan::osv::{self, Record};
use crate::claim::scan::vex;

/// Longest record, in bytes; real ones are some hundred kilobytes.
const MAX_RECORD: u64 = 64 << 20;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is longer than any record.
    #[error("{} has more than {MAX_RECORD} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A file's name cannot be part of the digest.
    #[error("{} has a name that is not UTF-8 or has a line break", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// A file is not a record.
    #[error("cannot use {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: osv::Error,
    },
    /// A record has an invalid time.
    #[error("{}: invalid modification time {found:?}, expected RFC 3339", path.display())]
    Modified {
        /// The file.
        path: PathBuf,
        /// The time found.
        found: String,
    },
    /// The folder has no records.
    #[error("{} has no records: no file name ends in .json", folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// The database is not the requested one.
    #[error("{} is not the requested database: expected digest {expected}, found {found}", folder.display())]
    Other {
        /// The folder.
        folder: PathBuf,
        /// Requested digest.
        expected: String,
        /// Actual digest.
        found: String,
    },
}

impl Error {
    /// Returns the next step to suggest, if known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Empty { .. } => Some(
                "unpack an osv.dev export there, such as Debian/all.zip or npm/all.zip, one file per record",
            ),
            Error::Record { .. } | Error::Modified { .. } => {
                Some("fetch the database again, or remove the file if it is not a record")
            }
            Error::Other { .. } => Some("the database changes daily: use the pinned one, or pin this one"),
            _ => None,
        }
    }
}

/// The relevant part of a database.
#[derive(Debug)]
pub struct Database {
    /// Records that name a requested package, by ID; withdrawn ones are included.
    pub records: Vec<Record>,
    /// The digest of the whole database.
    pub sha256: Sha256Digest,
    /// Number of all records in the database.
    pub count: usize,
    /// When its newest record was modified.
    pub modified: String,
    /// Its ecosystems, without their releases.
    pub ecosystems: BTreeSet<String>,
}

/// Reads a database; keeps the records that name a package in `names`.
///
/// # Errors
/// [`Error`] of the first bad file, in path order.
pub fn read(folder: &Path, names: &BTreeSet<&str>) -> Result<Database, Error> {
    let files = files(folder)?;
    if files.is_empty() {
        return Err(Error::Empty { folder: folder.to_owned() });
    }
    let read_one = |name: &String| -> Result<One, Error> {
        let path = folder.join(name);
        let failed = |source| Error::Read { path: path.clone(), source };
        let mut bytes = Vec::new();
        File::open(&path).map_err(failed)?.take(MAX_RECORD + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_RECORD {
            return Err(Error::TooLong { path });
        }
        let sha256 = Sha256Digest::of(&bytes);
        let record = Record::parse(&bytes).map_err(|source| Error::Record { path: path.clone(), source })?;
        let at = vex::instant(&record.modified);
        let at = at.ok_or_else(|| Error::Modified { path, found: record.modified.clone() })?;
        let packages = || record.affected.iter().filter_map(|affected| affected.package.as_ref());
        let ecosystems = packages().map(|package| base(&package.ecosystem).to_owned()).collect();
        let wanted = packages().any(|package| names.contains(package.name.as_str()));
        let modified = record.modified.clone();
        Ok(One { sha256, at, modified, ecosystems, record: wanted.then_some(record) })
    };
    let read: Vec<One> = files.par_iter().map(read_one).collect::<Result<_, _>>()?;
    let mut hasher = Sha256::new();
    for (name, one) in files.iter().zip(&read) {
        hasher.update(format!("{}  {name}\n", one.sha256));
    }
    let count = read.len();
    let newest = read.iter().max_by_key(|one| one.at).map(|one| one.modified.clone()).unwrap_or_default();
    let mut ecosystems = BTreeSet::new();
    let mut records: BTreeMap<String, (i128, Record)> = BTreeMap::new();
    for one in read {
        ecosystems.extend(one.ecosystems);
        let Some(record) = one.record else { continue };
        if records.get(&record.id).is_none_or(|(at, _)| *at < one.at) {
            records.insert(record.id.clone(), (one.at, record));
        }
    }
    Ok(Database {
        records: records.into_values().map(|(_, record)| record).collect(),
        sha256: Sha256Digest(hasher.finalize().into()),
        count,
        modified: newest,
        ecosystems,
    })
}

/// Checks that a database is the requested one.
///
/// # Errors
/// [`Error::Other`].
pub fn is_the_one(database: &Database, folder: &Path, expected: &str) -> Result<(), Error> {
    let found = database.sha256.to_string();
    let expected = expected.trim_start_matches("sha256:").to_ascii_lowercase();
    if found == expected {
        return Ok(());
    }
    Err(Error::Other { folder: folder.to_owned(), expected, found })
}

/// Returns an ecosystem without its release.
pub fn base(ecosystem: &str) -> &str {
    ecosystem.split(':').next().unwrap_or(ecosystem)
}

/// One file of a database.
struct One {
    sha256: Sha256Digest,
    at: i128,
    modified: String,
    ecosystems: BTreeSet<String>,
    record: Option<Record>,
}

/// Returns the paths of all records below the folder, sorted.
fn files(folder: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(here) = todo.pop() {
        let path = folder.join(&here);
        let failed = |source| Error::Read { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let below = here.join(entry.file_name());
            let meta =
                fs::metadata(entry.path()).map_err(|source| Error::Read { path: entry.path(), source })?;
            if meta.is_dir() && entry.file_type().map_err(failed)?.is_dir() {
                todo.push(below);
            } else if meta.is_file() && below.extension() == Some(OsStr::new("json")) {
                let name = below.to_str().filter(|name| !name.contains('\n'));
                names.push(name.ok_or_else(|| Error::Name { path: entry.path() })?.to_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, modified: &str, name: &str) -> String {
        format!(
            r#"{{"id":"{id}","modified":"{modified}","affected":[{{"package":{{"ecosystem":"Debian:13","name":"{name}"}}}}]}}"#
        )
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn names() -> BTreeSet<&'static str> {
        BTreeSet::from(["curl"])
    }

    #[test]
    fn records_are_read_from_all_folders_and_the_digest_is_that_of_their_list() {
        let (a, b) =
            (record("A", "2026-01-01T00:00:00Z", "curl"), record("B", "2026-02-01T00:00:00Z", "other"));
        let folder = folder(&[("x/A.json", &a), ("B.json", &b), ("README.txt", "no record")]);
        let database = read(folder.path(), &names()).unwrap();
        assert_eq!((database.count, database.records.len()), (2, 1));
        assert_eq!(database.modified, "2026-02-01T00:00:00Z");
        assert_eq!(database.ecosystems, BTreeSet::from(["Debian".to_owned()]));
        let line = |name: &str, text: &str| format!("{}  {name}\n", Sha256Digest::of(text.as_bytes()));
        let list = format!("{}{}", line("B.json", &b), line("x/A.json", &a));
        assert_eq!(database.sha256, Sha256Digest::of(list.as_bytes()));
        is_the_one(&database, folder.path(), &format!("sha256:{}", database.sha256)).unwrap();
        assert!(matches!(is_the_one(&database, folder.path(), &"00".repeat(32)), Err(Error::Other { .. })));
    }

    #[test]
    fn of_two_records_of_one_name_the_later_counts() {
        let early = record("A", "2026-01-01T02:00:00+02:00", "curl");
        let late = record("A", "2026-01-01T00:00:01Z", "curl")
            .replace("\"affected\"", "\"withdrawn\":\"x\",\"affected\"");
        for files in [[("1.json", &early), ("2.json", &late)], [("1.json", &late), ("2.json", &early)]] {
            let folder = folder(&files.map(|(name, text)| (name, text.as_str())));
            let database = read(folder.path(), &names()).unwrap();
            assert_eq!(database.records.len(), 1);
            assert!(database.records[0].withdrawn.is_some());
        }
    }

    #[test]
    fn what_is_no_database_is_refused() {
        let empty = folder(&[("all.zip", "x")]);
        assert!(matches!(read(empty.path(), &names()), Err(Error::Empty { .. })));
        let damaged = folder(&[("A.json", "{}")]);
        let error = read(damaged.path(), &names()).unwrap_err();
        assert!(error.to_string().contains("A.json"), "{error}");
        assert!(error.hint().is_some());
        let timeless = folder(&[("A.json", &record("A", "never", "curl"))]);
        assert!(matches!(read(timeless.path(), &names()), Err(Error::Modified { .. })));
        assert!(matches!(read(&empty.path().join("none"), &names()), Err(Error::Read { .. })));
        let lines = folder(&[("A\nB.json", &record("A", "2026-01-01T00:00:00Z", "curl"))]);
        assert!(matches!(read(lines.path(), &names()), Err(Error::Name { .. })));
    }
}
