//! Yields a log in a folder, which any static web server can publish, from entries: one writer, safe against crashes.
//!
//! # Shape
//! ```text
//! DIR/checkpoint                 the last published state, a note signed by the log and its witnesses
//! DIR/tile/...                   hashes and entries (claim::transparency::tile)
//! DIR/index/ab/<leaf hash>       place of an entry, in decimal: a help for the writer, believed by nobody
//! DIR/blobs/<sha256>             envelopes whose entries are in the log; their names bind them
//! DIR/signed                     a state that was signed and is not published: witnesses are being asked
//! DIR/lock                       held by the one writer
//! ```
//! An append writes tiles and settles them; reads them back and proves that the new tree begins with the old one; signs,
//! and settles `signed`; asks the witnesses; puts `checkpoint` in place and settles it; takes `signed` away. A tile that
//! a signed state covers is never written again. A crash before `signed` leaves tiles that nothing refers to; a crash
//! after it leaves a state which the next writer takes up, for a witness may have seen it.
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

/// Where the last published state is.
pub const CHECKPOINT: &str = "checkpoint";
/// Where a state is that was signed and is not published.
const SIGNED: &str = "signed";
/// What the one writer holds.
const LOCK: &str = "lock";
/// Most entries of one append: what it holds in memory is bounded so.
pub const MOST_ENTRIES: usize = 65_536;

/// Why a log cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refuses.
    #[error("cannot {deed} {} in the log", path.display())]
    Io {
        /// What was to be done.
        deed: &'static str,
        /// To what.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// There is no log in the folder.
    #[error("{} holds no log", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// There is a log in the folder.
    #[error("{} holds a log already", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// Another writer is at work.
    #[error("another writer is at work on {}", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// A state in the folder is refused: it is not signed by the log, or malformed.
    #[error("{file} of the log is refused")]
    Checkpoint {
        /// `checkpoint` or `signed`.
        file: &'static str,
        /// Why.
        source: checkpoint::Error,
    },
    /// A note cannot be read or made.
    #[error("{file} of the log is no note")]
    Note {
        /// `checkpoint` or `signed`.
        file: &'static str,
        /// Why.
        source: note::Error,
    },
    /// The tiles do not make the tree that was signed.
    #[error("the tiles of the log do not lead to its checkpoint of {size} entries")]
    Tiles {
        /// Its size.
        size: u64,
        /// Why.
        source: merkle::Error,
    },
    /// The new state would not begin with the old one: nothing was signed.
    #[error("a state of {new} entries is no extension of the last one of {old}: nothing was signed")]
    NoExtension {
        /// Entries in the last state.
        old: u64,
        /// Entries in the new one.
        new: u64,
        /// Why.
        source: merkle::Error,
    },
    /// Another than this writer wrote a state: nothing was signed.
    #[error("the log's checkpoint changed under its writer: nothing was signed")]
    Changed,
    /// There are states which do not follow from each other.
    #[error("the log's folder holds two states which do not follow from each other")]
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
        /// How many.
        found: usize,
    },
    /// The witnesses that are demanded did not cosign; the state is signed, and is published when they do.
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
                Some(Advice::failed("make a log by `proofmark log init DIR --key FILE`"))
            }
            Error::Unwitnessed { .. } => Some(Advice::outside(
                "run the command again when the witnesses answer: what is signed is kept, and nothing is published \
                 without them",
            )),
            _ => None,
        }
    }
}

/// Adds cosignatures to a state that was signed, or says why the state must not be published.
pub trait Cosigners {
    /// Asks for cosignatures. `prove` gives the consistency proof from a smaller size.
    ///
    /// # Errors
    /// Why the quorum is not met, for people.
    fn cosign(
        &self,
        signed: &mut Note,
        prove: &dyn Fn(u64) -> Result<Vec<Hash>, merkle::Error>,
    ) -> Result<(), String>;
}

/// Nobody is asked.
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

/// Whether an entry came to a log just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// It was not there before.
    New,
    /// It was there already.
    Known,
}

/// What a log says of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its place.
    pub index: u64,
    /// Whether it was there before.
    pub novelty: Novelty,
    /// Inclusion proof, in the tree of the checkpoint.
    pub proof: Vec<Hash>,
    /// The published state.
    pub checkpoint: Note,
}

/// Tiles of a medium.
struct Tiles<'a>(&'a dyn Medium);

impl Source for Tiles<'_> {
    fn tile(&self, name: &Name) -> Result<Vec<u8>, String> {
        // A partial tile may be gone once the full one is there.
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
    /// The log in a folder.
    pub fn open(folder: &Path) -> Self {
        Directory { medium: Disk::new(folder) }
    }

    /// Names of the envelopes beside the log that do not lie under their own digest.
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
            // What a killed writer left beside its place.
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
    /// The published state, not yet judged.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Note`], [`Error::Missing`].
    pub fn checkpoint(&self) -> Result<Note, Error> {
        note_of(&self.medium, CHECKPOINT)?.ok_or_else(|| Error::Missing { folder: PathBuf::from(CHECKPOINT) })
    }

    /// What a file of the folder holds.
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

/// The place of an entry in the index.
fn index_path(leaf: &Hash) -> PathBuf {
    let text = hex::encode(leaf.0);
    Path::new("index").join(text.get(..2).unwrap_or_default()).join(text)
}

/// Where an envelope lies, by the SHA-256 of its bytes.
pub fn blob_path(digest: &[u8; 32]) -> PathBuf {
    Path::new("blobs").join(hex::encode(digest))
}

/// Whether the files on the disk are what the writer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Whole,
    /// An operation failed half-way; the files may differ.
    Broken,
}

/// Writes a log. There is one at a time.
pub struct Writer<M> {
    medium: M,
    folder: PathBuf,
    key: SigningKey,
    /// The last state that was signed, and as it is published; without cosignatures while it is not.
    last: Checkpoint,
    published: Note,
    frontier: Frontier,
    /// Folders that were made before.
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
    /// Makes a log without entries in a folder, which may be there but hold no log.
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

    /// Opens a log to write.
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
            // A state left over from before the last one is of no more use; a later one must follow from it.
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

    /// The last state that was signed.
    pub fn state(&self) -> &Checkpoint {
        &self.last
    }

    /// The log's public key.
    pub fn key(&self) -> &VerifierKey {
        self.key.public()
    }

    /// The log's folder.
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

    /// Writes a file beside its place and renames it; its folder is not settled yet.
    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.folder_for(path)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        self.io("write", path, self.medium.write(&beside, bytes))?;
        self.io("rename", path, self.medium.rename(&beside, path))
    }

    /// Keeps an envelope beside the log, under its digest.
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

    /// The place of an entry, when it is in the last state. The index is not believed: the entry's bytes are compared.
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
        // An index from before a crash may point behind the end of the bundle, or to another entry.
        let tiles = Tiles(&self.medium);
        let Ok(bundle) = tiles.tile(&name) else { return Ok(None) };
        let found = entries_of(&name, &bundle).ok().and_then(|entries| {
            let at = usize::try_from(index % width).ok()?;
            (entries.get(at).copied() == Some(entry)).then_some(index)
        });
        Ok(found)
    }

    /// What the log says of the entry at a place of the last state.
    fn logged(&self, index: u64, novelty: Novelty) -> Result<Logged, Error> {
        let tiles = Tiles(&self.medium);
        let size = self.last.size();
        let proof = merkle::prove_inclusion(&Tree::new(&tiles, size), index, size)
            .map_err(|source| Error::Tiles { size, source })?;
        Ok(Logged { index, novelty, proof, checkpoint: self.published.clone() })
    }

    /// Appends those of `entries` that are not in the log, and publishes the new state once `cosigners` agree; tells of
    /// each where it is. An earlier state that was signed and not published is published by this, too.
    ///
    /// # Errors
    /// [`Error`]. After [`Error::Io`] and [`Error::Changed`] the log must be opened anew.
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

    /// Signs a state that follows from the last one, as the disk has both, and settles it.
    fn sign(&mut self, next: &Checkpoint) -> Result<(), Error> {
        // What is on the disk is what counts: not what this process believes.
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

    /// Publishes the last signed state, once the cosigners agree; nothing is done when it is published.
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

/// The entries of a bundle, which may hold more than its name says.
fn entries_of<'a>(name: &Name, bundle: &'a [u8]) -> Result<Vec<&'a [u8]>, tile::Error> {
    name.entries(bundle).or_else(|error| match error {
        tile::Error::Entries { entry, .. } if entry == name.width() => name.full().entries(bundle),
        error => Err(error),
    })
}

/// Checks that `new` follows from `old`, with the tiles of a source.
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

/// The tiles that are not full, while entries come to them.
struct Growing {
    frontier: Frontier,
    /// Hashes of the levels that tiles have, from the first hash of the tile that is not full.
    levels: Vec<Vec<Hash>>,
    /// The entries of the bundle that is not full.
    text: Vec<u8>,
}

impl Growing {
    /// Reads the tiles of a log of `size` entries that are not full.
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

    /// Takes an entry; tiles that it fills go to `files`.
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

    /// The tiles that are not full now, but for those of the `old` size that did not grow: they are on the disk.
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
