//! Yields everything that is wrong with a log, from its checkpoint, tiles and entries.
//!
//! # Shape
//! ```text
//! checkpoint       accepted by the policy
//! bundles          each entry -> leaf -> tree; each is a canonical hashedrekord 0.0.2
//! tiles            every hash of every tile matches the tree
//! root             the tree's root matches the checkpoint's
//! ```
//! Entries are read once, in order; memory holds one row of 256 hashes per level and 32 bytes per entry.
//!
//! # Not here
//! What the entries mean: `monitor`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Error;
use crate::trust::transparency::entry::Entry;
use crate::trust::transparency::merkle::{self, Frontier, Hash};
use crate::trust::transparency::note::Note;
use crate::trust::transparency::tile::{HEIGHT, Kind, LEVELS, Name, Source, WIDTH};
use crate::trust::transparency::tlog_policy::Policy;

/// Most findings that are listed one by one.
const MOST_TOLD: usize = 100;

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// The log's origin.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Its root, base64.
    pub root: String,
    /// Witnesses that cosigned, and their times.
    pub cosigned: BTreeMap<String, u64>,
    /// What is wrong.
    pub findings: Vec<String>,
    /// Number of further findings, not listed.
    pub untold: u64,
    /// What is unusual but not wrong.
    pub remarks: Vec<String>,
}

impl Report {
    fn find(&mut self, what: String) {
        if self.findings.len() < MOST_TOLD {
            self.findings.push(what);
        } else {
            self.untold += 1;
        }
    }

    /// Tells whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Rows of hashes in progress; each is compared with its tile once full.
struct Rows<'a> {
    source: &'a dyn Source,
    rows: Vec<Vec<Hash>>,
    wrong: Vec<String>,
}

impl Rows<'_> {
    fn push(&mut self, level: u8, index: u64, hash: Hash, size: u64) {
        if !level.is_multiple_of(HEIGHT) {
            return;
        }
        let tiles = level / HEIGHT;
        let Some(row) = self.rows.get_mut(usize::from(tiles)) else { return };
        row.push(hash);
        if row.len() == usize::from(WIDTH) {
            let row = std::mem::take(row);
            let name = Name::in_tree(Kind::Hashes(tiles), index / u64::from(WIDTH), size);
            self.compare(name, &row);
        }
    }

    fn compare(&mut self, name: Option<Name>, row: &[Hash]) {
        let Some(name) = name else { return };
        match self.source.tile(&name).and_then(|bytes| name.hashes(&bytes).map_err(|error| error.to_string()))
        {
            Ok(hashes) if hashes == row => {}
            Ok(hashes) => {
                let at = hashes.iter().zip(row).position(|(found, expected)| found != expected);
                self.wrong
                    .push(format!("{name}: hash {} is not that of the entries", at.unwrap_or(hashes.len())));
            }
            Err(reason) => self.wrong.push(format!("{name}: {reason}")),
        }
    }
}

/// Audits a log; `entry` gets each entry.
///
/// # Errors
/// When the checkpoint is refused: nothing can be checked then.
pub fn audit(
    source: &dyn Source,
    checkpoint: &Note,
    policy: &Policy,
    entry: &mut dyn FnMut(u64, &[u8]),
) -> Result<Report, Error> {
    let log = || checkpoint.text().split('\n').next().unwrap_or_default().to_owned();
    let accepted = policy.accept(checkpoint).map_err(|source| Error::Policy { log: log(), source })?;
    let state = accepted.checkpoint();
    let size = state.size();
    let mut report = Report {
        origin: state.origin().to_owned(),
        size,
        root: state.root().to_base64(),
        cosigned: accepted.cosigned().clone(),
        ..Report::default()
    };
    let mut rows = Rows { source, rows: vec![Vec::new(); usize::from(LEVELS)], wrong: Vec::new() };
    let mut frontier = Frontier::default();
    let mut places: BTreeMap<Hash, u64> = BTreeMap::new();
    let mut whole = true;
    'bundles: for number in 0.. {
        let Some(name) = Name::in_tree(Kind::Entries, number, size) else { break };
        let bytes = source.tile(&name);
        let entries = bytes.as_ref().map_err(Clone::clone).and_then(|bytes| {
            let exact = name.entries(bytes);
            // The full bundle may replace a partial one.
            let full = exact.or_else(|error| name.full().entries(bytes).map_err(|_| error));
            full.map_err(|error| error.to_string())
        });
        let entries = match entries {
            Ok(entries) => entries,
            Err(reason) => {
                report.find(format!("{name}: {reason}"));
                whole = false;
                break 'bundles;
            }
        };
        for bytes in entries.into_iter().take(usize::from(name.width())) {
            let index = frontier.size();
            if let Err(error) = Entry::parse(bytes) {
                report.find(format!("entry {index}: {}", crate::host::chain(&error)));
            }
            entry(index, bytes);
            let leaf = merkle::leaf(bytes);
            if let Some(first) = places.insert(leaf, index) {
                report.remarks.push(format!("entry {index} is entry {first} once more"));
            }
            frontier.push(leaf, &mut |level, at, hash| rows.push(level, at, hash, size));
        }
        report.findings.extend(std::mem::take(&mut rows.wrong));
    }
    if whole {
        for level in 0..LEVELS {
            let row = rows.rows.get_mut(usize::from(level)).map(std::mem::take).unwrap_or_default();
            if !row.is_empty() {
                let index = (size >> (HEIGHT * level)) / u64::from(WIDTH);
                rows.compare(Name::in_tree(Kind::Hashes(level), index, size), &row);
            }
        }
        if frontier.root() != state.root() {
            let found = frontier.root();
            report.find(format!("the entries lead to root {found}, the checkpoint says {}", state.root()));
        }
    }
    for wrong in std::mem::take(&mut rows.wrong) {
        report.find(wrong);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::directory::{Directory, Unwitnessed, Writer};
    use super::super::tests::vectors;
    use super::*;
    use crate::trust::transparency::entry::{KEY_DETAILS, Verifier};
    use crate::trust::transparency::note::{Role, SigningKey};

    fn key() -> SigningKey {
        SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap()
    }

    fn entry(number: u64) -> Vec<u8> {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        let (signature, key_details) = (vec![1], KEY_DETAILS.to_owned());
        Entry { digest, signature, key_details, verifier: Verifier::Key(vec![2]) }.to_bytes()
    }

    fn audited(folder: &Path) -> Result<(Report, u64), Error> {
        let policy = Policy::parse(&format!("log {}\nquorum none\n", key().public())).unwrap();
        let log = Directory::open(folder);
        let mut count = 0;
        let report = audit(&log, &log.checkpoint()?, &policy, &mut |_, _| count += 1)?;
        Ok((report, count))
    }

    fn made(folder: &Path, size: u64) {
        let entries: Vec<_> = (0..size).map(entry).collect();
        Writer::init(folder, key()).unwrap().append(&entries, &Unwitnessed).unwrap();
    }

    #[test]
    fn a_whole_log_is_clean() {
        for size in [0, 1, 255, 256, 257, 600] {
            let root = tempfile::tempdir().unwrap();
            made(root.path(), size);
            let (report, count) = audited(root.path()).unwrap();
            assert!(report.is_clean() && report.remarks.is_empty(), "{size}: {report:?}");
            assert_eq!((report.size, count), (size, size));
        }
    }

    #[test]
    fn each_changed_missing_or_longer_file_is_found() {
        let root = tempfile::tempdir().unwrap();
        made(root.path(), 300);
        for file in
            ["tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44"]
        {
            let path = root.path().join(file);
            let good = fs::read(&path).unwrap();
            let mut changed = good.clone();
            changed[good.len() / 2] ^= 1;
            for bytes in [Some(changed), Some([&good[..], b"x"].concat()), Some(good[1..].to_vec()), None] {
                match bytes {
                    Some(bytes) => fs::write(&path, bytes).unwrap(),
                    None => fs::remove_file(&path).unwrap(),
                }
                let (report, _) = audited(root.path()).unwrap();
                assert!(!report.is_clean(), "{file}");
            }
            fs::write(&path, good).unwrap();
        }
        assert!(audited(root.path()).unwrap().0.is_clean());
    }

    #[test]
    fn an_entry_that_is_none_or_a_second_one_is_told() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = Writer::init(root.path(), key()).unwrap();
        writer.append(&[entry(1), b"nonsense".to_vec()], &Unwitnessed).unwrap();
        drop(writer);
        fs::remove_dir_all(root.path().join("index")).unwrap();
        Writer::open(root.path(), key()).unwrap().append(&[entry(1)], &Unwitnessed).unwrap();
        let (report, _) = audited(root.path()).unwrap();
        assert!(report.findings[0].contains("entry 1: the entry is not a hashedrekord"), "{report:?}");
        assert_eq!(report.remarks, ["entry 2 is entry 0 once more"]);
    }

    #[test]
    fn a_checkpoint_of_another_key_is_refused() {
        let root = tempfile::tempdir().unwrap();
        made(root.path(), 2);
        let other = SigningKey::new("log.example", Role::Log, &[2; 32]).unwrap();
        let policy = Policy::parse(&format!("log {}\nquorum none\n", other.public())).unwrap();
        let log = Directory::open(root.path());
        assert!(matches!(
            audit(&log, &log.checkpoint().unwrap(), &policy, &mut |_, _| {}),
            Err(Error::Policy { .. })
        ));
    }

    #[test]
    fn the_store_of_a_real_rekor_is_clean() {
        let Some(folder) = vectors("sigstore/recorded-local/rekor-v2") else { return };
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let lines = format!("log {}\n{}", text("log.vkey").trim(), text("witness-policy.txt"));
        let log = Directory::open(&folder.join("store"));
        let policy = Policy::parse(&lines).unwrap();
        let report = audit(&log, &log.checkpoint().unwrap(), &policy, &mut |_, _| {}).unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.size, report.cosigned.len()), (31, 1));
    }
}
