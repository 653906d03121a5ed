//! Yields a log from entries, in a folder that any static web server can publish: one writer, crash-safe.
//!
//! # Shape
//! ```text
//! DIR/checkpoint                 the last published state, a note signed by the log and its witnesses
//! DIR/tile/...                   hashes and entries (trust::transparency::tile)
//! DIR/index/ab/<leaf hash>       index of an entry, in decimal: a hint for the writer, never trusted
//! DIR/blobs/<sha256>             envelopes whose entries are in the log, named by their digest
//! DIR/signed                     a state that is signed and not yet published, while witnesses are asked
//! DIR/lock                       held by the only writer
//! ```
//! An append writes tiles and settles them; reads them back and proves that the new tree extends the old one;
//! signs, and settles `signed`; asks the witnesses; puts `checkpoint` in place and settles it; removes
//! `signed`. A tile that a signed state covers is never rewritten. A crash before `signed` leaves tiles that
//! nothing refers to. A crash after it leaves a state that the next writer adopts, for a witness may have
//! seen it.
//!
//! # Source
//! C2SP `tlog-tiles`. The order of writes is Tessera's for POSIX files.
//!
//! # Not here
//! Judging what is in the log: `audit`, `monitor`. Asking witnesses over HTTP: `witness`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::medium::{Disk, Medium};
use crate::advice::{Advice, Advised};
use crate::trust::transparency::checkpoint::{self, Checkpoint};
use crate::trust::transparency::entry;
use crate::trust::transparency::merkle::{self, Frontier, Hash};
use crate::trust::transparency::note::{self, Note, SigningKey, VerifierKey};
use crate::trust::transparency::tile::{self, HEIGHT, Kind, LEVELS, Name, Source, Tree, WIDTH};

/// File name of the last published state.
pub const CHECKPOINT: &str = "checkpoint";
/// File name of a state that is signed and not published.
const SIGNED: &str = "signed";
/// File name of the writer's lock.
const LOCK: &str = "lock";
/// Most entries of one append, which bounds its memory.
pub const MOST_ENTRIES: usize = 65_536;

/// Why a log cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file system operation failed.
    #[error("cannot {deed} {} in the log", path.display())]
    Io {
        /// The operation that failed.
        deed: &'static str,
        /// The path it failed on.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// The folder has no log.
    #[error("{} holds no log", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder already has a log.
    #[error("{} already holds a log", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// Another writer has the lock.
    #[error("another process is writing to {}", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// A state in the folder is refused: malformed, or not signed by the log.
    #[error("the log's {file} is refused")]
    Checkpoint {
        /// `checkpoint` or `signed`.
        file: &'static str,
        /// Why.
        source: checkpoint::Error,
    },
    /// A note cannot be parsed or made.
    #[error("the log's {file} is not a valid note")]
    Note {
        /// `checkpoint` or `signed`.
        file: &'static str,
        /// Why.
        source: note::Error,
    },
    /// The tiles do not match the tree that was signed.
    #[error("the log's tiles do not match its checkpoint of {size} entries")]
    Tiles {
        /// Its size.
        size: u64,
        /// Why.
        source: merkle::Error,
    },
    /// The new state would not extend the old one: nothing was signed.
    #[error("a state of {new} entries does not extend the last state of {old}: nothing was signed")]
    NoExtension {
        /// Entries in the last state.
        old: u64,
        /// Entries in the new one.
        new: u64,
        /// Why.
        source: merkle::Error,
    },
    /// Something other than this writer wrote a state: nothing was signed.
    #[error("the log's checkpoint changed under its writer: nothing was signed")]
    Changed,
    /// The folder holds two states that are not consistent.
    #[error("the log's folder holds two inconsistent states")]
    Forked {
        /// Why.
        source: merkle::Error,
    },
    /// An entry cannot be logged.
    #[error(transparent)]
    Entry(#[from] tile::Error),
    /// More entries than one append takes.
    #[error("{found} entries at once, expected at most {MOST_ENTRIES}")]
    TooMany {
        /// Number of entries.
        found: usize,
    },
    /// The required witnesses did not cosign. The state is signed, and is published once they do.
    #[error("the state of {size} entries is not published: its witnesses did not cosign: {reason}")]
    Unwitnessed {
        /// Entries in the state.
        size: u64,
        /// Why.
        reason: String,
    },
}

impl Advised for Error {
    fn advice(&self) -> Option<Advice> {
        match self {
            Error::Missing { .. } => {
                Some(Advice::failed("create a log with `proofmark log init DIR --key FILE`"))
            }
            Error::Unwitnessed { .. } => Some(Advice::outside(
                "run the command again when the witnesses answer: what is signed is kept, and nothing is published \
                 without them",
            )),
            _ => None,
        }
    }
}

/// Adds cosignatures to a signed state, or says why it must not be published.
pub trait Cosigners {
    /// Requests cosignatures. `prove` returns the consistency proof from a smaller size.
    ///
    /// # Errors
    /// Why the quorum is not met, as text for people.
    fn cosign(
        &self,
        signed: &mut Note,
        prove: &dyn Fn(u64) -> Result<Vec<Hash>, merkle::Error>,
    ) -> Result<(), String>;
}

/// Asks for no cosignatures.
#[derive(Debug, Clone, Copy)]
pub struct Unwitnessed;

impl Cosigners for Unwitnessed {
    fn cosign(
        &self,
        _: &mut Note,
        _: &dyn Fn(u64) -> Result<Vec<Hash>, merkle::Error>,
    ) -> Result<(), String> {
        Ok(())
    }
}

/// Whether an entry is new to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// It was added now.
    New,
    /// It was there already.
    Known,
}

/// A log's answer about an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its index.
    pub index: u64,
    /// Whether it is new.
    pub novelty: Novelty,
    /// Inclusion proof in the tree of the checkpoint.
    pub proof: Vec<Hash>,
    /// The published state.
    pub checkpoint: Note,
}

/// Tiles in a medium.
struct Tiles<'a>(&'a dyn Medium);

impl Source for Tiles<'_> {
    fn tile(&self, name: &Name) -> Result<Vec<u8>, String> {
        // A partial tile may be gone once the full one exists.
        for known in [*name, name.full()] {
            let read = self.0.read(Path::new(&known.to_string())).map_err(|error| error.to_string())?;
            if let Some(mut bytes) = read {
                if known != *name && matches!(name.kind(), Kind::Hashes(_)) {
                    bytes.truncate(usize::from(name.width()) * 32);
                }
                return Ok(bytes);
            }
        }
        Err(format!("{name} is not there"))
    }
}

/// Reads a log's folder.
pub struct Directory<M> {
    medium: M,
}

impl Directory<Disk> {
    /// Opens the log in a folder.
    pub fn open(folder: &Path) -> Self {
        Directory { medium: Disk::new(folder) }
    }

    /// Returns the names of the stored envelopes whose digest does not match their name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn damaged_blobs(&self) -> Result<Vec<String>, Error> {
        use sha2::Digest;
        let folder = self.medium.root().join("blobs");
        let io = |source| Error::Io { deed: "read", path: "blobs".into(), source };
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io(error)),
        };
        let mut damaged = Vec::new();
        for entry in entries {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            // Left by a killed writer, not renamed yet.
            if name.ends_with(".new") {
                continue;
            }
            let bytes = self.medium.read(&Path::new("blobs").join(&name)).map_err(io)?;
            if bytes.is_none_or(|bytes| hex::encode(sha2::Sha256::digest(bytes)) != name) {
                damaged.push(name);
            }
        }
        damaged.sort();
        Ok(damaged)
    }
}

impl<M: Medium> Source for Directory<M> {
    fn tile(&self, name: &Name) -> Result<Vec<u8>, String> {
        Tiles(&self.medium).tile(name)
    }
}

impl<M: Medium> Directory<M> {
    /// Returns the published state, not verified.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Note`], [`Error::Missing`].
    pub fn checkpoint(&self) -> Result<Note, Error> {
        note_of(&self.medium, CHECKPOINT)?.ok_or_else(|| Error::Missing { folder: PathBuf::from(CHECKPOINT) })
    }

    /// Returns the content of a file in the folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn file(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        self.medium.read(path).map_err(|source| Error::Io { deed: "read", path: path.to_owned(), source })
    }
}

fn note_of(medium: &dyn Medium, file: &'static str) -> Result<Option<Note>, Error> {
    let bytes = medium.read(Path::new(file));
    let bytes = bytes.map_err(|source| Error::Io { deed: "read", path: file.into(), source })?;
    bytes.map(|bytes| Note::parse(&bytes).map_err(|source| Error::Note { file, source })).transpose()
}

fn state_of(
    medium: &dyn Medium,
    file: &'static str,
    key: &VerifierKey,
) -> Result<Option<(Note, Checkpoint)>, Error> {
    let Some(note) = note_of(medium, file)? else { return Ok(None) };
    let checkpoint = Checkpoint::verified(&note, key).map_err(|source| Error::Checkpoint { file, source })?;
    Ok(Some((note, checkpoint)))
}

/// Returns the path of an entry in the index.
fn index_path(leaf: &Hash) -> PathBuf {
    let text = hex::encode(leaf.0);
    Path::new("index").join(text.get(..2).unwrap_or_default()).join(text)
}

/// Returns the path of an envelope, by the SHA-256 of its bytes.
pub fn blob_path(digest: &[u8; 32]) -> PathBuf {
    Path::new("blobs").join(hex::encode(digest))
}

/// Whether the files on disk match the writer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Whole,
    /// An operation failed half-way; the files may differ from the writer's state.
    Broken,
}

/// Writes a log. A log has one writer at a time.
pub struct Writer<M> {
    medium: M,
    folder: PathBuf,
    key: SigningKey,
    /// The last signed state and its note, which has no cosignatures until it is published.
    last: Checkpoint,
    published: Note,
    frontier: Frontier,
    /// Folders that exist already.
    made: RefCell<BTreeSet<PathBuf>>,
    condition: Cell<Condition>,
    _lock: File,
}

/// Takes the writer's lock.
fn lock(folder: &Path) -> Result<File, Error> {
    let io = |deed, source: io::Error| Error::Io { deed, path: LOCK.into(), source };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK))
        .map_err(|source| io("open", source))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Busy { folder: folder.to_owned() }),
        Err(error) => Err(io("lock", error.into())),
    }
}

impl Writer<Disk> {
    /// Makes an empty log in a folder, which may exist but must not hold a log.
    ///
    /// # Errors
    /// [`Error::Taken`], [`Error::Io`].
    pub fn init(folder: &Path, key: SigningKey) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(|source| Error::Io {
            deed: "make",
            path: folder.to_owned(),
            source,
        })?;
        Self::init_on(Disk::new(folder), folder, key)
    }

    /// Opens a log for writing.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(folder: &Path, key: SigningKey) -> Result<Self, Error> {
        Self::open_on(Disk::new(folder), folder, key)
    }
}

impl<M: Medium> Writer<M> {
    fn init_on(medium: M, folder: &Path, key: SigningKey) -> Result<Self, Error> {
        let held = lock(folder)?;
        if note_of(&medium, CHECKPOINT)?.is_some() || note_of(&medium, SIGNED)?.is_some() {
            return Err(Error::Taken { folder: folder.to_owned() });
        }
        let sign = |source| Error::Checkpoint { file: CHECKPOINT, source };
        let empty = Checkpoint::new(key.public().name(), 0, merkle::empty_root()).map_err(sign)?;
        let note = empty.sign(&key).map_err(sign)?;
        let writer = Writer {
            medium,
            folder: folder.to_owned(),
            key,
            last: empty,
            published: note.clone(),
            frontier: Frontier::default(),
            made: RefCell::default(),
            condition: Cell::new(Condition::Whole),
            _lock: held,
        };
        writer.put(Path::new(CHECKPOINT), note.to_string().as_bytes())?;
        writer.settle(Path::new(""))?;
        Ok(writer)
    }

    fn open_on(medium: M, folder: &Path, key: SigningKey) -> Result<Self, Error> {
        let held = lock(folder)?;
        let missing = || Error::Missing { folder: folder.to_owned() };
        let (mut note, mut last) = state_of(&medium, CHECKPOINT, key.public())?.ok_or_else(missing)?;
        if let Some((signed, later)) = state_of(&medium, SIGNED, key.public())? {
            // A state from before the last one is obsolete; a later one must extend it.
            let (old, new) = (&last, &later);
            if new.size() >= old.size() {
                follows(&Tiles(&medium), old, new).map_err(|source| Error::Forked { source })?;
                if new.size() > old.size() {
                    (note, last) = (signed, later);
                }
            }
        }
        let tiles = Tiles(&medium);
        let tree = Tree::new(&tiles, last.size());
        let wrong = |source| Error::Tiles { size: last.size(), source };
        let frontier = Frontier::of(&tree, last.size()).map_err(wrong)?;
        if frontier.root() != last.root() {
            return Err(wrong(merkle::Error::Root { expected: last.root(), found: frontier.root() }));
        }
        Ok(Writer {
            medium,
            folder: folder.to_owned(),
            key,
            last,
            published: note,
            frontier,
            made: RefCell::default(),
            condition: Cell::new(Condition::Whole),
            _lock: held,
        })
    }

    /// Returns the last signed state.
    pub fn state(&self) -> &Checkpoint {
        &self.last
    }

    /// Returns the log's public key.
    pub fn key(&self) -> &VerifierKey {
        self.key.public()
    }

    /// Returns the log's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn io(&self, deed: &'static str, path: &Path, result: io::Result<()>) -> Result<(), Error> {
        result.map_err(|source| {
            self.condition.set(Condition::Broken);
            Error::Io { deed, path: path.to_owned(), source }
        })
    }

    fn settle(&self, folder: &Path) -> Result<(), Error> {
        self.io("settle", folder, self.medium.settle(folder))
    }

    fn folder_for(&self, path: &Path) -> Result<(), Error> {
        let folder = path.parent().unwrap_or(Path::new(""));
        if !folder.as_os_str().is_empty() && self.made.borrow_mut().insert(folder.to_owned()) {
            self.io("make", folder, self.medium.make_folder(folder))?;
        }
        Ok(())
    }

    /// Writes a file under a temporary name and renames it; its folder is not settled yet.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.folder_for(path)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        self.io("write", path, self.medium.write(&beside, bytes))?;
        self.io("rename", path, self.medium.rename(&beside, path))
    }

    /// Stores an envelope beside the log, named by its digest.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn keep_blob(&self, bytes: &[u8]) -> Result<(), Error> {
        use sha2::Digest;
        let path = blob_path(&sha2::Sha256::digest(bytes).into());
        let there = self.medium.read(&path);
        if there.is_ok_and(|there| there.as_deref() == Some(bytes)) {
            return Ok(());
        }
        self.put(&path, bytes)?;
        self.settle(Path::new("blobs"))
    }

    /// Returns the index of an entry in the last state, if any. The index is a hint: the entry's bytes are
    /// compared.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn find(&self, entry: &[u8]) -> Result<Option<u64>, Error> {
        let path = index_path(&merkle::leaf(entry));
        let bytes = self.medium.read(&path);
        let bytes = bytes.map_err(|source| Error::Io { deed: "read", path, source })?;
        let index = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| text.parse().ok());
        let Some(index) = index else { return Ok(None) };
        let width = u64::from(WIDTH);
        let Some(name) = Name::in_tree(Kind::Entries, index / width, self.last.size()) else {
            return Ok(None);
        };
        // After a crash, the index may point past the end of the bundle, or to another entry.
        let tiles = Tiles(&self.medium);
        let Ok(bundle) = tiles.tile(&name) else { return Ok(None) };
        let found = entries_of(&name, &bundle).ok().and_then(|entries| {
            let at = usize::try_from(index % width).ok()?;
            (entries.get(at).copied() == Some(entry)).then_some(index)
        });
        Ok(found)
    }

    /// Returns the log's answer about the entry at an index of the last state.
    fn logged(&self, index: u64, novelty: Novelty) -> Result<Logged, Error> {
        let tiles = Tiles(&self.medium);
        let size = self.last.size();
        let proof = merkle::prove_inclusion(&Tree::new(&tiles, size), index, size)
            .map_err(|source| Error::Tiles { size, source })?;
        Ok(Logged { index, novelty, proof, checkpoint: self.published.clone() })
    }

    /// Appends the new ones of `entries`, and publishes the state once `cosigners` agree; returns where each
    /// entry is. This also publishes an earlier state that was signed and not published.
    ///
    /// # Errors
    /// [`Error`]. After [`Error::Io`] and [`Error::Changed`] the log must be reopened.
    pub fn append(&mut self, entries: &[Vec<u8>], cosigners: &dyn Cosigners) -> Result<Vec<Logged>, Error> {
        if self.condition.get() == Condition::Broken {
            return Err(Error::Changed);
        }
        if entries.len() > MOST_ENTRIES {
            return Err(Error::TooMany { found: entries.len() });
        }
        let mut places = Vec::with_capacity(entries.len());
        let mut fresh: Vec<&[u8]> = Vec::new();
        let mut seen: BTreeMap<&[u8], u64> = BTreeMap::new();
        for entry in entries {
            if entry.len() > entry::MOST_BYTES {
                return Err(tile::Error::Entry { found: entry.len() }.into());
            }
            if let Some(index) = seen.get(entry.as_slice()) {
                places.push((*index, Novelty::Known));
            } else if let Some(index) = self.find(entry)? {
                places.push((index, Novelty::Known));
            } else {
                let index = self.last.size() + fresh.len() as u64;
                fresh.push(entry);
                seen.insert(entry, index);
                places.push((index, Novelty::New));
            }
        }
        if !fresh.is_empty() {
            self.extend(&fresh)?;
        }
        self.publish(cosigners)?;
        places.into_iter().map(|(index, novelty)| self.logged(index, novelty)).collect()
    }

    /// Writes tiles for new entries, proves the new state from the disk, signs it, and settles it as signed.
    fn extend(&mut self, fresh: &[&[u8]]) -> Result<(), Error> {
        let old = self.last.size();
        let mut growing = Growing::open(&self.medium, self.frontier.clone(), old)?;
        let mut files: Vec<(Name, Vec<u8>)> = Vec::new();
        for entry in fresh {
            growing.push(entry, &mut files)?;
        }
        growing.partial(old, &mut files);
        let mut folders = BTreeSet::new();
        for (name, bytes) in &files {
            let path = PathBuf::from(name.to_string());
            self.put(&path, bytes)?;
            folders.insert(path.parent().unwrap_or(Path::new("")).to_owned());
        }
        for folder in &folders {
            self.settle(folder)?;
        }
        for (index, entry) in (old..).zip(fresh) {
            self.put(&index_path(&merkle::leaf(entry)), index.to_string().as_bytes())?;
        }
        let refused = |source| Error::Checkpoint { file: SIGNED, source };
        let Growing { frontier, .. } = growing;
        let next = Checkpoint::new(self.last.origin(), frontier.size(), frontier.root()).map_err(refused)?;
        self.sign(&next)?;
        self.frontier = frontier;
        Ok(())
    }

    /// Signs and settles a state that extends the last one, according to the disk.
    fn sign(&mut self, next: &Checkpoint) -> Result<(), Error> {
        // The disk counts, not what this process remembers.
        for file in [CHECKPOINT, SIGNED] {
            if let Some((_, there)) = state_of(&self.medium, file, self.key.public())?
                && there.size() > self.last.size()
            {
                self.condition.set(Condition::Broken);
                return Err(Error::Changed);
            }
        }
        let no = |source| Error::NoExtension { old: self.last.size(), new: next.size(), source };
        if next.size() <= self.last.size() {
            return Err(no(merkle::Error::Sizes { old: self.last.size(), new: next.size() }));
        }
        follows(&Tiles(&self.medium), &self.last, next).map_err(no)?;
        let note = next.sign(&self.key).map_err(|source| Error::Checkpoint { file: SIGNED, source })?;
        self.put(Path::new(SIGNED), note.to_string().as_bytes())?;
        self.settle(Path::new(""))?;
        self.last = next.clone();
        self.published = note;
        Ok(())
    }

    /// Publishes the last signed state once the cosigners agree; writes nothing if it is published already.
    fn publish(&mut self, cosigners: &dyn Cosigners) -> Result<(), Error> {
        let there = state_of(&self.medium, CHECKPOINT, self.key.public())?;
        let missing = || Error::Missing { folder: self.folder.clone() };
        let (mut note, there) = there.ok_or_else(missing)?;
        let size = self.last.size();
        if there.size() == size {
            if there != self.last {
                self.condition.set(Condition::Broken);
                return Err(Error::Changed);
            }
        } else {
            note = self.published.clone();
        }
        let before = note.clone();
        let prove = |old: u64| {
            let tiles = Tiles(&self.medium);
            merkle::prove_consistency(&Tree::new(&tiles, size), old, size)
        };
        cosigners.cosign(&mut note, &prove).map_err(|reason| Error::Unwitnessed { size, reason })?;
        if there.size() != size || note != before {
            self.put(Path::new(CHECKPOINT), note.to_string().as_bytes())?;
            self.settle(Path::new(""))?;
        }
        self.published = note;
        if self.medium.read(Path::new(SIGNED)).is_ok_and(|signed| signed.is_some()) {
            self.io("remove", Path::new(SIGNED), self.medium.remove(Path::new(SIGNED)))?;
            self.settle(Path::new(""))?;
        }
        Ok(())
    }
}

/// Returns the entries of a bundle, which may hold more than its name says.
fn entries_of<'a>(name: &Name, bundle: &'a [u8]) -> Result<Vec<&'a [u8]>, tile::Error> {
    name.entries(bundle).or_else(|error| match error {
        tile::Error::Entries { entry, .. } if entry == name.width() => name.full().entries(bundle),
        error => Err(error),
    })
}

/// Checks that `new` extends `old`, with tiles from a source.
fn follows(source: &dyn Source, old: &Checkpoint, new: &Checkpoint) -> Result<(), merkle::Error> {
    let tree = Tree::new(source, new.size());
    let found = merkle::root(&tree, new.size())?;
    if found != new.root() {
        return Err(merkle::Error::Root { expected: new.root(), found });
    }
    if old.size() == 0 {
        return Ok(());
    }
    let proof = merkle::prove_consistency(&tree, old.size(), new.size())?;
    merkle::verify_consistency(old.size(), new.size(), &proof, &old.root(), &new.root())
}

/// The partial tiles, while entries are added.
struct Growing {
    frontier: Frontier,
    /// Hashes of each tile level, from the first hash of the partial tile on.
    levels: Vec<Vec<Hash>>,
    /// The entries of the partial bundle.
    text: Vec<u8>,
}

impl Growing {
    /// Reads the partial tiles of a log of `size` entries.
    fn open(medium: &dyn Medium, frontier: Frontier, size: u64) -> Result<Self, Error> {
        let tiles = Tiles(medium);
        let mut levels = Vec::new();
        for level in 0..LEVELS {
            let partial = Name::in_tree(Kind::Hashes(level), size >> (HEIGHT * level) >> HEIGHT, size);
            levels.push(match partial {
                Some(name) => tiles
                    .tile(&name)
                    .and_then(|bytes| name.hashes(&bytes).map_err(|error| error.to_string()))
                    .map_err(|reason| {
                        let (level, index) = (level * HEIGHT, name.index());
                        Error::Tiles { size, source: merkle::Error::Subtree { level, index, reason } }
                    })?,
                None => Vec::new(),
            });
        }
        let bundle = Name::in_tree(Kind::Entries, size / u64::from(WIDTH), size);
        let mut text = Vec::new();
        if let Some(name) = bundle {
            let bytes = tiles.tile(&name).map_err(|reason| {
                let source = merkle::Error::Subtree { level: 0, index: name.index(), reason };
                Error::Tiles { size, source }
            })?;
            text.reserve(bytes.len());
            for entry in entries_of(&name, &bytes)?.into_iter().take(usize::from(name.width())) {
                text.extend_from_slice(&tile::in_bundle(entry)?);
            }
        }
        Ok(Growing { frontier, levels, text })
    }

    /// Adds an entry; full tiles go to `files`.
    fn push(&mut self, entry: &[u8], files: &mut Vec<(Name, Vec<u8>)>) -> Result<(), Error> {
        self.text.extend_from_slice(&tile::in_bundle(entry)?);
        let mut full = Vec::new();
        let levels = &mut self.levels;
        self.frontier.push(merkle::leaf(entry), &mut |level, index, hash| {
            if level % HEIGHT == 0
                && let Some(row) = levels.get_mut(usize::from(level / HEIGHT))
            {
                row.push(hash);
                if row.len() == usize::from(WIDTH) {
                    let bytes: Vec<u8> = row.drain(..).flat_map(|hash| hash.0).collect();
                    full.push((Kind::Hashes(level / HEIGHT), index / u64::from(WIDTH), bytes));
                }
            }
        });
        let size = self.frontier.size();
        if size.is_multiple_of(u64::from(WIDTH)) {
            full.push((Kind::Entries, size / u64::from(WIDTH) - 1, std::mem::take(&mut self.text)));
        }
        for (kind, index, bytes) in full {
            if let Some(name) = Name::in_tree(kind, index, size) {
                files.push((name, bytes));
            }
        }
        Ok(())
    }

    /// Adds the partial tiles to `files`, except those unchanged since size `old`: they are on disk.
    fn partial(&self, old: u64, files: &mut Vec<(Name, Vec<u8>)>) {
        let size = self.frontier.size();
        for (level, row) in (0..).zip(&self.levels) {
            let count = size >> (HEIGHT * level);
            if row.is_empty() || count == old >> (HEIGHT * level) {
                continue;
            }
            if let Some(name) = Name::in_tree(Kind::Hashes(level), count / u64::from(WIDTH), size) {
                files.push((name, row.iter().flat_map(|hash| hash.0).collect()));
            }
        }
        if !self.text.is_empty()
            && let Some(name) = Name::in_tree(Kind::Entries, size / u64::from(WIDTH), size)
        {
            files.push((name, self.text.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
