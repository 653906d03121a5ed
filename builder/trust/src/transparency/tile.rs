//! Yields the names of a log's tiles, their hashes, and the entries in bundles, from tree sizes and bytes.
//!
//! # Shape
//! ```text
//! tile/<L>/<N>[.p/<W>]         hashes of level 8L: W (256 without .p/W) times 32 bytes
//! tile/entries/<N>[.p/<W>]     W entries: length u16 (big-endian), bytes
//! N                            index in groups of three digits, all but the last with x: 1234067 is x001/x234/067
//! ```
//! Tile (L, N) holds the hashes of the perfect subtrees of level 8L with index 256N to 256N + W - 1.
//!
//! # Source
//! C2SP `tlog-tiles`, "Merkle Tree" and "Log Entries".
//!
//! # Not here
//! Fetching, which implementations of [`Source`] do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use super::merkle::{self, Hash, Subtrees};

/// The number of hashes or entries in a full tile.
pub const WIDTH: u16 = 256;
/// The number of tree levels that one level of tiles spans.
pub const HEIGHT: u8 = 8;
/// The most levels of tiles: 2^64 leaves would need 8.
pub const LEVELS: u8 = 8;
/// The longest entry bundle, in bytes.
pub const MOST_BUNDLE: usize = 256 * (2 + 65535);

/// Why a tile is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name breaks the format.
    #[error("{name:?} is not a tile name")]
    Name {
        /// The name.
        name: String,
    },
    /// The tile's length does not match its width.
    #[error("{name} has {found} bytes, expected {expected}")]
    Length {
        /// Which tile.
        name: Name,
        /// The number of bytes that the width requires.
        expected: usize,
        /// The number of bytes found.
        found: usize,
    },
    /// The bundle ends inside an entry, or continues after its last one.
    #[error("{name} is truncated or has trailing data at offset {offset}, in entry {entry}")]
    Entries {
        /// Which bundle.
        name: Name,
        /// Which of its entries.
        entry: u16,
        /// The offset in the bundle.
        offset: usize,
    },
    /// The entry is longer than a bundle can hold.
    #[error("an entry has {found} bytes, expected at most 65535")]
    Entry {
        /// Its length.
        found: usize,
    },
}

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Hashes of a level of tiles.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// A tile's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    kind: Kind,
    index: u64,
    /// 1 to 256.
    width: u16,
}

impl Name {
    /// Names tile `index` of a tree of `size` leaves, with its width; `None` if the tree has no such tile.
    pub fn in_tree(kind: Kind, index: u64, size: u64) -> Option<Self> {
        let level = match kind {
            Kind::Hashes(level) if level >= LEVELS => return None,
            Kind::Hashes(level) => level,
            Kind::Entries => 0,
        };
        let hashes = size >> (HEIGHT * level);
        let width = hashes.checked_sub(index.checked_mul(u64::from(WIDTH))?)?.min(u64::from(WIDTH));
        let width = u16::try_from(width).ok()?;
        (width > 0).then_some(Name { kind, index, width })
    }

    /// What it holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its index in its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// The same tile at full width.
    pub fn full(&self) -> Self {
        Name { width: WIDTH, ..*self }
    }

    /// Reads a name, as [`Display`](fmt::Display) writes it.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Name { name: text.to_owned() };
        let rest = text.strip_prefix("tile/").ok_or_else(wrong)?;
        let (kind, rest) = rest.split_once('/').ok_or_else(wrong)?;
        let kind = match kind {
            "entries" => Kind::Entries,
            _ => Kind::Hashes(kind.parse().ok().filter(|level| *level < LEVELS).ok_or_else(wrong)?),
        };
        let (path, width) = match rest.split_once(".p/") {
            Some((path, width)) => (path, width.parse().ok().filter(|width| (1..WIDTH).contains(width))),
            None => (rest, Some(WIDTH)),
        };
        let mut index = 0u64;
        for group in path.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            let number: u64 = digits.parse().map_err(|_| wrong())?;
            index = index.checked_mul(1000).and_then(|index| index.checked_add(number)).ok_or_else(wrong)?;
        }
        let name = Name { kind, index, width: width.ok_or_else(wrong)? };
        // Each name has exactly one text.
        if name.to_string() == text { Ok(name) } else { Err(wrong()) }
    }

    /// The hashes in a tile of this name.
    ///
    /// # Errors
    /// [`Error::Length`].
    pub fn hashes(&self, bytes: &[u8]) -> Result<Vec<Hash>, Error> {
        let expected = usize::from(self.width) * 32;
        if bytes.len() != expected {
            return Err(Error::Length { name: *self, expected, found: bytes.len() });
        }
        let (hashes, _) = bytes.as_chunks::<32>();
        Ok(hashes.iter().map(|hash| Hash(*hash)).collect())
    }

    /// The entries in a bundle of this name.
    ///
    /// # Errors
    /// [`Error::Entries`].
    pub fn entries<'a>(&self, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, Error> {
        let mut rest = bytes;
        let mut entries = Vec::new();
        for entry in 0..self.width {
            let wrong = Error::Entries { name: *self, entry, offset: bytes.len() - rest.len() };
            let Some((length, after)) = rest.split_first_chunk() else { return Err(wrong) };
            let Some((bytes, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))
            else {
                return Err(wrong);
            };
            entries.push(bytes);
            rest = after;
        }
        if !rest.is_empty() {
            let offset = bytes.len() - rest.len();
            return Err(Error::Entries { name: *self, entry: self.width, offset });
        }
        Ok(entries)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Hashes(level) => write!(out, "tile/{level}/")?,
            Kind::Entries => out.write_str("tile/entries/")?,
        }
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut index = self.index / 1000;
        while index > 0 {
            groups.push(format!("x{:03}/", index % 1000));
            index /= 1000;
        }
        groups.iter().rev().try_for_each(|group| out.write_str(group))?;
        if self.width < WIDTH { write!(out, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// Encodes an entry as it appears in a bundle.
///
/// # Errors
/// [`Error::Entry`].
pub fn in_bundle(entry: &[u8]) -> Result<Vec<u8>, Error> {
    let length = u16::try_from(entry.len()).map_err(|_| Error::Entry { found: entry.len() })?;
    Ok([&length.to_be_bytes()[..], entry].concat())
}

/// Names all tiles of a tree of `size` leaves: the hashes level by level, then the entry bundles.
pub fn names(size: u64) -> impl Iterator<Item = Name> {
    let kinds = (0..LEVELS).map(Kind::Hashes).chain([Kind::Entries]);
    kinds.flat_map(move |kind| (0..).map_while(move |index| Name::in_tree(kind, index, size)))
}

/// A source of tiles.
pub trait Source {
    /// Gives a tile's bytes. If only the full tile still exists, its first bytes stand for a partial one.
    ///
    /// # Errors
    /// The reason why the tile is not available, as a message for the user.
    fn tile(&self, name: &Name) -> Result<Vec<u8>, String>;
}

/// The tree in the tiles of a source. Trust nothing in it before its root is compared with a checkpoint's.
pub struct Tree<'a> {
    source: &'a dyn Source,
    size: u64,
    read: RefCell<BTreeMap<Name, Vec<Hash>>>,
}

impl<'a> Tree<'a> {
    /// Creates the tree of `size` leaves.
    pub fn new(source: &'a dyn Source, size: u64) -> Self {
        Tree { source, size, read: RefCell::default() }
    }

    /// Reads the hashes of a tile through a cache.
    fn tile(&self, name: Name) -> Result<Vec<Hash>, String> {
        if let Some(hashes) = self.read.borrow().get(&name) {
            return Ok(hashes.clone());
        }
        let bytes = self.source.tile(&name)?;
        let hashes = name.hashes(&bytes).map_err(|error| error.to_string())?;
        let mut read = self.read.borrow_mut();
        // Walks go left to right, so tiles read long ago are not needed again.
        if read.len() > 1024 {
            read.clear();
        }
        read.insert(name, hashes.clone());
        Ok(hashes)
    }
}

impl Subtrees for Tree<'_> {
    fn hash(&self, level: u8, index: u64) -> Result<Hash, merkle::Error> {
        let wrong = |reason: String| merkle::Error::Subtree { level, index, reason };
        let (tiles, above) = (level / HEIGHT, level % HEIGHT);
        // The subtree's root is computed from this many hashes of the tile.
        let count = 1usize << above;
        let first = index.checked_shl(u32::from(above)).filter(|first| first >> above == index);
        let first = first.ok_or_else(|| wrong("outside the tree".to_owned()))?;
        let name = Name::in_tree(Kind::Hashes(tiles), first / u64::from(WIDTH), self.size);
        let name = name.ok_or_else(|| wrong("outside the tree".to_owned()))?;
        let hashes = self.tile(name).map_err(wrong)?;
        let at = (first % u64::from(WIDTH)) as usize;
        let part = hashes.get(at..at + count).ok_or_else(|| wrong("outside the tree".to_owned()))?;
        let mut row = part.to_vec();
        while row.len() > 1 {
            row = row.as_chunks::<2>().0.iter().map(|[left, right]| merkle::node(left, right)).collect();
        }
        row.first().copied().ok_or_else(|| wrong("outside the tree".to_owned()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::super::checkpoint::Checkpoint;
    use super::super::note::{Note, VerifierKey, tests::vectors};
    use super::*;

    /// A log's folder.
    pub struct Folder(pub PathBuf);

    impl Source for Folder {
        fn tile(&self, name: &Name) -> Result<Vec<u8>, String> {
            std::fs::read(self.0.join(name.to_string())).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn a_name_has_one_text() {
        for (kind, index, size, text) in [
            (Kind::Hashes(0), 0, 1, "tile/0/000.p/1"),
            (Kind::Hashes(0), 0, 256, "tile/0/000"),
            (Kind::Hashes(1), 0, 300, "tile/1/000.p/1"),
            (Kind::Entries, 1_234_067, 1_234_067 * 256 + 9, "tile/entries/x001/x234/067.p/9"),
            (Kind::Entries, 1000, u64::MAX, "tile/entries/x001/000"),
        ] {
            let name = Name::in_tree(kind, index, size).unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(Name::parse(text).unwrap(), name);
        }
        assert_eq!(Name::in_tree(Kind::Hashes(0), 1, 256), None);
        assert_eq!(Name::in_tree(Kind::Hashes(8), 0, u64::MAX), None);
        assert_eq!(Name::in_tree(Kind::Hashes(1), u64::MAX, u64::MAX), None);
        for text in [
            "",
            "tile/0",
            "tile/8/000",
            "tile/0/0",
            "tile/0/000.p/256",
            "tile/0/000.p/0",
            "tile/0/1000",
            "tile/0/x000/001",
            "tile/0/x001/x000",
            "tile/-1/000",
            "tile/00/000",
            "tile/0/000.p/01",
            "tile/0/+01",
            "tile/entries/",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "tile/0/000/",
            "/tile/0/000",
        ] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn all_names_of_a_tree_are_told() {
        let told = |size| names(size).map(|name| name.to_string()).collect::<Vec<_>>();
        assert!(told(0).is_empty());
        assert_eq!(told(2), ["tile/0/000.p/2", "tile/entries/000.p/2"]);
        assert_eq!(
            told(257),
            ["tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/1"]
        );
    }

    #[test]
    fn a_bundle_that_breaks_off_or_goes_on_is_refused() {
        let name = Name::parse("tile/entries/000.p/2").unwrap();
        let bytes = [in_bundle(b"one").unwrap(), in_bundle(b"").unwrap()].concat();
        assert_eq!(name.entries(&bytes).unwrap(), [&b"one"[..], b""]);
        for length in 0..bytes.len() {
            assert!(matches!(name.entries(&bytes[..length]), Err(Error::Entries { .. })), "{length}");
        }
        let error = name.entries(&[&bytes[..], b"x"].concat()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tile/entries/000.p/2 is truncated or has trailing data at offset 7, in entry 2"
        );
        assert!(in_bundle(&[0; 65536]).is_err());
        assert!(matches!(Name::parse("tile/0/000.p/2").unwrap().hashes(&[0; 63]), Err(Error::Length { .. })));
    }

    /// All checkpoints of the log in Tessera's tests.
    fn tessera() -> Option<(Folder, Vec<Checkpoint>)> {
        let folder = vectors("sigstore/tessera-testlog/log")?;
        let key = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
        let key = VerifierKey::parse(key).unwrap();
        let checkpoints = (0..16).map(|size| {
            let note =
                Note::parse(&std::fs::read(folder.join(format!("checkpoint.{size}"))).unwrap()).unwrap();
            let checkpoint = Checkpoint::verified(&note, &key).unwrap();
            assert_eq!(checkpoint.size(), size);
            checkpoint
        });
        let checkpoints = checkpoints.collect();
        Some((Folder(folder), checkpoints))
    }

    #[test]
    fn the_log_of_tessera_is_consistent_and_includes_its_entries() {
        let Some((folder, checkpoints)) = tessera() else { return };
        let (mut included, mut consistent) = (0, 0);
        for new in &checkpoints[1..] {
            let tree = Tree::new(&folder, new.size());
            assert_eq!(merkle::root(&tree, new.size()).unwrap(), new.root());
            let name = Name::in_tree(Kind::Entries, 0, new.size()).unwrap();
            let bundle = folder.tile(&name).unwrap();
            for (index, entry) in (0..).zip(name.entries(&bundle).unwrap()) {
                let proof = merkle::prove_inclusion(&tree, index, new.size()).unwrap();
                let leaf = merkle::leaf(entry);
                merkle::verify_inclusion(&leaf, index, new.size(), &proof, &new.root()).unwrap();
                included += 1;
            }
            for old in &checkpoints[1..new.size() as usize] {
                let proof = merkle::prove_consistency(&tree, old.size(), new.size()).unwrap();
                let roots = (&old.root(), &new.root());
                merkle::verify_consistency(old.size(), new.size(), &proof, roots.0, roots.1).unwrap();
                consistent += 1;
            }
        }
        assert_eq!((included, consistent), (120, 105));
        assert_eq!(checkpoints[0].root(), merkle::empty_root());
    }

    #[test]
    fn a_tree_of_many_tiles_is_the_tree_in_memory() {
        struct Made(BTreeMap<String, Vec<u8>>);
        impl Source for Made {
            fn tile(&self, name: &Name) -> Result<Vec<u8>, String> {
                self.0.get(&name.to_string()).cloned().ok_or_else(|| "not made".to_owned())
            }
        }
        let size = 70_000;
        let (memory, _) = merkle::tests::Memory::of(size);
        let mut made = BTreeMap::new();
        for name in names(size) {
            let Kind::Hashes(level) = name.kind() else { continue };
            let first = name.index() * 256;
            let hashes = (first..first + u64::from(name.width()))
                .flat_map(|index| memory.0[&(level * 8, index)].0)
                .collect::<Vec<u8>>();
            made.insert(name.to_string(), hashes);
        }
        let made = Made(made);
        let tree = Tree::new(&made, size);
        let root = merkle::root(&memory, size).unwrap();
        assert_eq!(merkle::root(&tree, size).unwrap(), root);
        for index in [0, 255, 256, 65_535, 65_536, 69_999] {
            let proof = merkle::prove_inclusion(&tree, index, size).unwrap();
            merkle::verify_inclusion(&merkle::leaf(&index.to_be_bytes()), index, size, &proof, &root)
                .unwrap();
        }
        assert!(tree.hash(17, 0).is_err());
        assert!(tree.hash(0, u64::MAX).is_err());
        assert!(tree.hash(63, 3).is_err());
    }
}
