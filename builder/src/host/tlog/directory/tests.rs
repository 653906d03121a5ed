use std::cell::RefCell;
use std::fs;

use super::*;
use crate::trust::transparency::note::Role;

fn key() -> SigningKey {
    SigningKey::new("log.example", Role::Log, &[1; 32]).unwrap()
}

fn entries(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers.map(|number| format!("entry {number}").into_bytes()).collect()
}

/// Returns all entries of a log, after checking its tiles, proofs and checkpoint.
fn checked(folder: &Path) -> Vec<Vec<u8>> {
    let log = Directory::open(folder);
    let checkpoint = Checkpoint::verified(&log.checkpoint().unwrap(), key().public()).unwrap();
    let size = checkpoint.size();
    let tree = Tree::new(&log, size);
    assert_eq!(merkle::root(&tree, size).unwrap(), checkpoint.root());
    let mut all = Vec::new();
    let mut frontier = Frontier::default();
    for name in tile::names(size) {
        let bytes = log.tile(&name).unwrap();
        match name.kind() {
            Kind::Hashes(_) => drop(name.hashes(&bytes).unwrap()),
            Kind::Entries => {
                let entries = entries_of(&name, &bytes).unwrap();
                for entry in entries.into_iter().take(usize::from(name.width())) {
                    frontier.push(merkle::leaf(entry), &mut |_, _, _| {});
                    all.push(entry.to_vec());
                }
            }
        }
    }
    assert_eq!(frontier.root(), checkpoint.root());
    all
}

fn holds(logged: &Logged, entry: &[u8]) {
    let checkpoint = Checkpoint::verified(&logged.checkpoint, key().public()).unwrap();
    let leaf = merkle::leaf(entry);
    merkle::verify_inclusion(&leaf, logged.index, checkpoint.size(), &logged.proof, &checkpoint.root())
        .unwrap();
}

#[test]
fn entries_are_logged_once_and_proven_across_tiles_and_openings() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("log");
    drop(Writer::init(&folder, key()).unwrap());
    let mut size = 0;
    for step in [1, 2, 252, 1, 1, 300, 70_000 % 511, 3] {
        let mut log = Writer::open(&folder, key()).unwrap();
        assert_eq!(log.state().size(), size);
        let new = entries(size..size + step);
        for (index, (logged, entry)) in (size..).zip(log.append(&new, &Unwitnessed).unwrap().iter().zip(&new))
        {
            assert_eq!((logged.index, logged.novelty), (index, Novelty::New));
            holds(logged, entry);
        }
        size += step;
        let old = entries(size / 2..size / 2 + 1);
        let again = log.append(&old, &Unwitnessed).unwrap();
        assert_eq!((again[0].index, again[0].novelty), (size / 2, Novelty::Known));
        holds(&again[0], &old[0]);
        drop(log);
        assert_eq!(checked(&folder), entries(0..size));
    }
    assert!(folder.join("tile/entries/001").is_file() && folder.join("tile/1/000.p/4").is_file());
    assert!(!folder.join(SIGNED).exists());
}

#[test]
fn equal_entries_of_one_append_share_a_place() {
    let root = tempfile::tempdir().unwrap();
    let mut log = Writer::init(root.path(), key()).unwrap();
    let logged = log.append(&[b"a".to_vec(), b"b".to_vec(), b"a".to_vec()], &Unwitnessed).unwrap();
    assert_eq!(logged.iter().map(|logged| logged.index).collect::<Vec<_>>(), [0, 1, 0]);
    assert!(matches!(log.append(&[vec![0; 65_536]], &Unwitnessed), Err(Error::Entry(_))));
    assert!(matches!(
        log.append(&vec![Vec::new(); MOST_ENTRIES + 1], &Unwitnessed),
        Err(Error::TooMany { .. })
    ));
    assert_eq!(log.append(&[b"c".to_vec()], &Unwitnessed).unwrap()[0].index, 2);
}

#[test]
fn an_envelope_lies_under_its_digest() {
    let root = tempfile::tempdir().unwrap();
    let log = Writer::init(root.path(), key()).unwrap();
    let files = Directory::open(root.path());
    assert!(files.damaged_blobs().unwrap().is_empty());
    for _ in 0..2 {
        log.keep_blob(b"{}").unwrap();
        assert!(files.damaged_blobs().unwrap().is_empty());
    }
    let place = root.path().join(blob_path(&<sha2::Sha256 as sha2::Digest>::digest(b"{}").into()));
    fs::write(&place, b"[]").unwrap();
    assert_eq!(files.damaged_blobs().unwrap(), [place.file_name().unwrap().to_str().unwrap()]);
}

#[test]
fn there_is_one_writer_and_one_log_in_a_folder() {
    let root = tempfile::tempdir().unwrap();
    let log = Writer::init(root.path(), key()).unwrap();
    assert!(matches!(Writer::open(root.path(), key()), Err(Error::Busy { .. })));
    drop(log);
    assert!(matches!(Writer::init(root.path(), key()), Err(Error::Taken { .. })));
    let other = SigningKey::new("log.example", Role::Log, &[2; 32]).unwrap();
    assert!(matches!(Writer::open(root.path(), other), Err(Error::Checkpoint { .. })));
    assert!(matches!(Writer::open(&root.path().join("tile"), key()), Err(Error::Io { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Writer::open(empty.path(), key()), Err(Error::Missing { .. })));
}

#[test]
fn a_changed_tile_stops_the_writer_before_it_signs() {
    let root = tempfile::tempdir().unwrap();
    let mut log = Writer::init(root.path(), key()).unwrap();
    log.append(&entries(0..3), &Unwitnessed).unwrap();
    let tile = root.path().join("tile/0/000.p/3");
    let good = fs::read(&tile).unwrap();
    let mut bad = good.clone();
    bad[5] ^= 1;
    fs::write(&tile, &bad).unwrap();
    let error = log.append(&entries(3..4), &Unwitnessed).unwrap_err();
    assert!(matches!(error, Error::NoExtension { old: 3, new: 4, .. }), "{error}");
    drop(log);
    assert!(matches!(Writer::open(root.path(), key()), Err(Error::Tiles { size: 3, .. })));
    fs::write(&tile, &good).unwrap();
    let mut log = Writer::open(root.path(), key()).unwrap();
    log.append(&entries(3..4), &Unwitnessed).unwrap();
    assert_eq!(checked(root.path()), entries(0..4));
}

#[test]
fn a_writer_whose_checkpoint_was_moved_on_or_rolled_back_signs_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut log = Writer::init(root.path(), key()).unwrap();
    log.append(&entries(0..2), &Unwitnessed).unwrap();
    let later = Checkpoint::new("log.example", 9, merkle::leaf(b"x")).unwrap().sign(&key()).unwrap();
    fs::write(root.path().join(CHECKPOINT), later.to_string()).unwrap();
    assert!(matches!(log.append(&entries(2..3), &Unwitnessed), Err(Error::Changed)));
    // It cannot continue either.
    assert!(matches!(log.append(&entries(2..3), &Unwitnessed), Err(Error::Changed)));
    drop(log);
    assert!(matches!(Writer::open(root.path(), key()), Err(Error::Tiles { .. })));
}

#[test]
fn two_signed_states_that_do_not_follow_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut log = Writer::init(root.path(), key()).unwrap();
    log.append(&entries(0..2), &Unwitnessed).unwrap();
    drop(log);
    for size in [2, 3] {
        let fork = Checkpoint::new("log.example", size, merkle::leaf(b"fork")).unwrap().sign(&key()).unwrap();
        fs::write(root.path().join(SIGNED), fork.to_string()).unwrap();
        assert!(matches!(Writer::open(root.path(), key()), Err(Error::Forked { .. })));
    }
}

/// A witness that records requests, and agrees when told to.
struct Asked {
    states: RefCell<Vec<Checkpoint>>,
    agrees: Result<(), &'static str>,
}

impl Cosigners for Asked {
    fn cosign(
        &self,
        signed: &mut Note,
        prove: &dyn Fn(u64) -> Result<Vec<Hash>, merkle::Error>,
    ) -> Result<(), String> {
        let checkpoint = Checkpoint::verified(signed, key().public()).unwrap();
        if let Some(last) = self.states.borrow().last()
            && last.size() > 0
        {
            let proof = prove(last.size()).unwrap();
            merkle::verify_consistency(
                last.size(),
                checkpoint.size(),
                &proof,
                &last.root(),
                &checkpoint.root(),
            )
            .unwrap();
        }
        self.states.borrow_mut().push(checkpoint);
        self.agrees.map_err(str::to_owned)
    }
}

#[test]
fn a_state_that_no_witness_cosigned_is_not_published_and_not_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let mut log = Writer::init(root.path(), key()).unwrap();
    let deaf = Asked { states: RefCell::default(), agrees: Err("nobody answers") };
    let error = log.append(&entries(0..2), &deaf).unwrap_err();
    assert!(
        matches!(&error, Error::Unwitnessed { size: 2, reason } if reason == "nobody answers"),
        "{error}"
    );
    assert!(checked(root.path()).is_empty());
    drop(log);
    // The next writer builds on it: a witness may have seen it.
    let mut log = Writer::open(root.path(), key()).unwrap();
    assert_eq!(log.state().size(), 2);
    assert!(matches!(log.append(&entries(7..8), &deaf), Err(Error::Unwitnessed { size: 3, .. })));
    assert!(matches!(log.append(&[], &deaf), Err(Error::Unwitnessed { size: 3, .. })));
    let willing = Asked { states: deaf.states, agrees: Ok(()) };
    log.append(&[], &willing).unwrap();
    assert_eq!(checked(root.path()), [entries(0..2), entries(7..8)].concat());
}

/// How a machine crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// The process is killed; what it wrote stays.
    Killed,
    /// Power is lost: renames that were not settled are undone.
    Power,
    /// Power is lost: every second such rename is undone.
    PartOfPower,
}

/// An unsettled rename: folder, file, and the file's old content.
type Loose = (PathBuf, PathBuf, Option<Vec<u8>>);

/// A disk that fails at its n-th operation.
struct Mortal {
    disk: Disk,
    left: Cell<u32>,
    death: Death,
    /// Unsettled renames.
    loose: RefCell<Vec<Loose>>,
}

impl Mortal {
    fn new(folder: &Path, operations: u32, death: Death) -> Self {
        Mortal { disk: Disk::new(folder), left: Cell::new(operations), death, loose: RefCell::default() }
    }

    /// Tells whether the machine still works.
    fn lives(&self) -> io::Result<()> {
        match self.left.get() {
            0 => Err(io::Error::other("dead")),
            left => {
                self.left.set(left - 1);
                if left == 1 {
                    if self.death != Death::Killed {
                        for (number, (_, file, before)) in self.loose.borrow().iter().rev().enumerate() {
                            let place = self.disk.root().join(file);
                            match before {
                                _ if self.death == Death::PartOfPower && number % 2 == 1 => {}
                                Some(bytes) => fs::write(place, bytes).unwrap(),
                                None => fs::remove_file(place).unwrap(),
                            }
                        }
                    }
                    return Err(io::Error::other("dies"));
                }
                Ok(())
            }
        }
    }
}

impl Medium for Mortal {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match self.left.get() {
            0 => Err(io::Error::other("dead")),
            _ => self.disk.read(path),
        }
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.lives()?;
        self.disk.make_folder(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.lives() {
            if error.to_string() == "dies" {
                self.disk.write(path, &bytes[..bytes.len() / 2])?;
            }
            return Err(error);
        }
        self.disk.write(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lives()?;
        let before = self.disk.read(to)?;
        self.disk.rename(from, to)?;
        self.loose.borrow_mut().push((to.parent().unwrap().to_owned(), to.to_owned(), before));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lives()?;
        self.disk.remove(path)
    }

    fn settle(&self, folder: &Path) -> io::Result<()> {
        self.lives()?;
        self.loose.borrow_mut().retain(|(loose, ..)| loose != folder);
        self.disk.settle(folder)
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_crash_at_any_write_loses_and_forks_nothing() {
    let root = tempfile::tempdir().unwrap();
    let before = root.path().join("before");
    // Two entries short of a full tile: the append fills it and begins the next, on two levels.
    Writer::init(&before, key()).unwrap().append(&entries(0..254), &Unwitnessed).unwrap();
    fs::remove_dir_all(before.join("index")).unwrap();
    let mut survived = 0;
    for death in [Death::Killed, Death::Power, Death::PartOfPower] {
        for operations in 1.. {
            let folder = root.path().join(format!("{death:?}-{operations}"));
            copy(&before, &folder);
            let witness = Asked { states: RefCell::default(), agrees: Ok(()) };
            let mortal = Mortal::new(&folder, operations, death);
            let mut log = Writer::open_on(mortal, &folder, key()).unwrap();
            let outcome = log.append(&entries(254..258), &witness);
            let dead = log.medium.left.get() == 0;
            drop(log);
            let published = checked(&folder);
            assert!(published == entries(0..254) || published == entries(0..258), "{death:?} {operations}");
            if outcome.is_ok() {
                assert_eq!(published.len(), 258);
            }
            // The next writer logs something else, and its log extends each state that a witness saw.
            let mut log = Writer::open(&folder, key()).unwrap();
            log.append(&entries(1000..1003), &witness).unwrap();
            let last = log.state().clone();
            drop(log);
            let all = checked(&folder);
            assert!(
                all == [entries(0..254), entries(1000..1003)].concat()
                    || all == [entries(0..258), entries(1000..1003)].concat()
            );
            let files = Directory::open(&folder);
            let tree = Tree::new(&files, last.size());
            for state in witness.states.borrow().iter() {
                let proof = merkle::prove_consistency(&tree, state.size(), last.size()).unwrap();
                merkle::verify_consistency(state.size(), last.size(), &proof, &state.root(), &last.root())
                    .unwrap();
            }
            fs::remove_dir_all(&folder).unwrap();
            if !dead {
                survived += 1;
                assert!(operations > 20, "only {operations} operations");
                break;
            }
        }
    }
    assert_eq!(survived, 3);
}

#[test]
fn a_crash_while_a_log_is_made_leaves_none_or_an_empty_one() {
    for operations in 1..5 {
        let root = tempfile::tempdir().unwrap();
        let mortal = Mortal::new(root.path(), operations, Death::Power);
        let made = Writer::init_on(mortal, root.path(), key()).map(drop);
        match Writer::open(root.path(), key()) {
            Ok(log) => assert_eq!(log.state().size(), 0),
            Err(Error::Missing { .. }) => {
                assert!(made.is_err());
                Writer::init(root.path(), key()).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}
