//! Yields the files of one npm tarball as a layer, and a tally of the omit rules.
//!
//! # Shape
//! ```text
//! gzip( tar: package/package.json, package/lib/a.js, … )   the first component may have any name and is dropped
//!   ──> node_modules/NAME/package.json, …                  root:root, directories 0755
//!       mode ((tar mode | 0666 | 0600) & ~022), | 0111 for files named in `bin`, 0755 for those linked in `.bin`
//! ```
//! As npm does: links and devices are dropped; `.gitignore` becomes `.npmignore` unless the package has that one;
//! a linked program loses the carriage return at the end of its `#!` line; if a path occurs twice, the last one counts.
//! Unlike npm, which gives files to the user who runs it: set-user-id, set-group-id and sticky bits are dropped.
//!
//! The whole archive is unpacked in memory, and its files are slices of it; omitted files are neither hashed nor
//! compressed.
//!
//! # Source
//! pacote `lib/fetcher.js` (filter, modes, strip), node-tar `unpack.js`, bin-links `fix-bin.js`, under umask 022;
//! POSIX.1-2017 pax interchange format; RFC 1952.
//!
//! # Not here
//! Whether the bytes match the lock: `integrity`.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read};
use std::ops::Deref;

use flate2::bufread::MultiGzDecoder;
use libdeflater::{Crc, Decompressor};
use tar::{Archive, EntryType};

use super::layout::Package;
use crate::content::{Content, Packing};
use crate::layer::Layer;
use crate::omit::{Omit, Tally};
use crate::path::{self, TreePath};
use crate::tree::{Node, Origin};

/// The most bytes that a tarball may unpack to, regardless of its size.
const MAX_UNPACKED: u64 = 2 << 30;

/// The most bytes that a tarball may unpack to, per byte of its own; the tarballs of OpenClaw reach 17.
const MAX_RATIO: u64 = 256;

/// Bytes that any tarball may unpack to, since small ones compress best.
const SLACK: u64 = 1 << 20;

/// How far `fix-bin.js` looks for the end of the `#!` line, in bytes.
const SHEBANG: usize = 2048;

/// Why a tarball is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not a gzipped tar archive, or is damaged.
    #[error("tarball of {package} cannot be read")]
    Read {
        /// Name and version of the package.
        package: String,
        /// Why.
        source: io::Error,
    },
    /// It unpacks to more bytes than its size justifies.
    #[error("tarball of {package} unpacks to more than {limit} bytes")]
    TooLarge {
        /// Name and version of the package.
        package: String,
        /// What is allowed.
        limit: u64,
    },
    /// A file that ends before its size.
    #[error("tarball of {package} ends in {path:?}: expected {expected} bytes, found {found}")]
    Truncated {
        /// Name and version of the package.
        package: String,
        /// The file.
        path: String,
        /// Its size.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A path that is not UTF-8, is absolute, or escapes.
    #[error("tarball of {package} has the path {path:?}, which is {what}")]
    Path {
        /// Name and version of the package.
        package: String,
        /// The path.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A path that is both a file and a folder, or lies below a file.
    #[error("tarball of {package} has {path:?} as a file and as a folder")]
    Clash {
        /// Name and version of the package.
        package: String,
        /// The path.
        path: String,
    },
    /// A kind of entry that npm does not write and whose meaning is unknown.
    #[error("tarball of {package} has {path:?}, which is {what}")]
    Kind {
        /// Name and version of the package.
        package: String,
        /// The path.
        path: String,
        /// What it is.
        what: String,
    },
    /// A wanted file that is missing.
    #[error("tarball of {package} has no file {path:?}")]
    Missing {
        /// Name and version of the package.
        package: String,
        /// The path.
        path: String,
    },
    /// A path that is not valid in the image.
    #[error("a file of {package} has no valid path in the image")]
    Place {
        /// Name and version of the package.
        package: String,
        /// Why.
        source: path::Error,
    },
}

/// Where and how the files of an application are stored.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The application's root, which holds `node_modules`.
    pub root: &'a TreePath,
    /// What stays out.
    pub omit: &'a Omit,
    /// How contents are stored.
    pub packing: Packing,
}

/// The unpacked files of a tarball.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// Its folders, then its files in the order of their paths, then its links in `.bin`.
    pub layer: Layer,
    /// What each rule kept out.
    pub omitted: Tally,
}

/// Unpacks the tarball of a package to its location in the lock.
///
/// # Errors
/// [`Error`] for the first entry that is refused.
pub fn unpack(tarball: &[u8], package: &Package, destination: &Destination) -> Result<Unpacked, Error> {
    let entry = &package.entry;
    let origin = Origin::Npm {
        name: (&*entry.name).into(),
        version: (&*entry.version).into(),
        location: (&*entry.location).into(),
    };
    let contents = Contents::read(tarball, package, destination, &origin)?;
    let mut omitted = Tally::new(destination.omit.len());
    let (kept, emptied) = contents.sort(&mut omitted)?;
    let place = |path: &str| {
        let wrong = |source| Error::Place { package: contents.subject.clone(), source };
        destination.root.join(path).map_err(wrong)
    };
    let folder = |path: &str| Ok((place(path)?, Node::directory(0o755, origin.clone())));

    let mut layer = Layer::default();
    if !kept.is_empty() || omitted.total().files == 0 {
        layer.entries.push(folder(&entry.location)?);
    }
    for path in &contents.folders {
        if ancestors(path).any(|above| contents.files.contains_key(above)) {
            return Err(Error::Clash { package: contents.subject, path: path.clone() });
        }
        // Folders that the rules emptied are dropped; folders that the package ships empty stay, as in npm.
        if !emptied.contains(path.as_str()) || kept.contains(path.as_str()) {
            layer.entries.push(folder(&format!("{}/{path}", entry.location))?);
        }
    }
    let mut links = Vec::new();
    for link in &package.links {
        let there = kept.contains(link.file.as_str())
            || (contents.folders.contains(&link.file) && !emptied.contains(link.file.as_str()));
        match destination.omit.rule(&link.path) {
            _ if !there => {}
            Some(rule) => omitted.count(rule, 0),
            None => links.push((place(&link.path)?, Node::symlink(&link.target, origin.clone()))),
        }
    }
    for (path, fate) in contents.files {
        if let Fate::Kept(node) = fate {
            layer.entries.push((place(&format!("{}/{path}", entry.location))?, node));
        }
    }
    layer.entries.extend(links);
    Ok(Unpacked { layer, omitted })
}

/// The content of a tarball, by the paths in the package.
struct Contents {
    /// Name and version, for errors.
    subject: String,
    /// What becomes of each file; a package may have a path twice, and then the last one counts.
    files: BTreeMap<String, Fate>,
    /// The folders that have an entry.
    folders: BTreeSet<String>,
}

impl Contents {
    fn read(
        tarball: &[u8],
        package: &Package,
        destination: &Destination,
        origin: &Origin,
    ) -> Result<Self, Error> {
        let entry = &package.entry;
        let subject = format!("{}@{}", entry.name, entry.version);
        let programs: BTreeSet<&str> = entry.bin.values().map(|file| &**file).collect();
        let linked: BTreeSet<&str> = package.links.iter().map(|link| link.file.as_str()).collect();
        let mut files: BTreeMap<String, Fate> = BTreeMap::new();
        let mut folders: BTreeSet<String> = BTreeSet::new();
        // The paths to which a .gitignore was renamed; a real .npmignore may still follow.
        let mut renamed: BTreeSet<String> = BTreeSet::new();

        read(tarball, &subject, |item| {
            let Item { mut path, kind, mode, size, content } = item;
            if kind == ItemKind::Folder {
                folders.insert(path);
                return Ok(());
            }
            if let Some(folder) =
                path.strip_suffix(".gitignore").filter(|rest| rest.is_empty() || rest.ends_with('/'))
            {
                let npmignore = format!("{folder}.npmignore");
                if files.contains_key(&npmignore) && !renamed.contains(&npmignore) {
                    return Ok(());
                }
                renamed.insert(npmignore.clone());
                path = npmignore;
            } else {
                renamed.remove(&path);
            }
            if let Some(rule) = destination.omit.rule(&format!("{}/{path}", entry.location)) {
                files.insert(path, Fate::Omitted { rule, size });
                return Ok(());
            }
            let is_linked = linked.contains(path.as_str());
            let fixed = if is_linked { without_carriage_return(content) } else { None };
            let mode = match (is_linked, programs.contains(path.as_str())) {
                (true, _) => 0o755,
                (false, true) => file_mode(mode | 0o111),
                (false, false) => file_mode(mode),
            };
            let content = Content::pack(fixed.as_deref().unwrap_or(content), destination.packing);
            files.insert(path, Fate::Kept(Node::file(mode, content, origin.clone())));
            Ok(())
        })?;
        Ok(Contents { subject, files, folders })
    }

    /// The kept paths with their parent folders, and the folders from which a rule omitted a file.
    fn sort(&self, omitted: &mut Tally) -> Result<(BTreeSet<&str>, BTreeSet<&str>), Error> {
        let mut kept: BTreeSet<&str> = BTreeSet::new();
        let mut emptied: BTreeSet<&str> = BTreeSet::new();
        for (path, fate) in &self.files {
            // The path has a folder entry, or lies below another file.
            if self.folders.contains(path) || ancestors(path).any(|folder| self.files.contains_key(folder)) {
                return Err(Error::Clash { package: self.subject.clone(), path: path.clone() });
            }
            match fate {
                Fate::Kept(_) => {
                    kept.insert(path);
                    kept.extend(ancestors(path));
                }
                Fate::Omitted { rule, size } => {
                    omitted.count(*rule, *size);
                    emptied.extend(ancestors(path));
                }
            }
        }
        Ok((kept, emptied))
    }
}

/// Extracts single files of a tarball, from their path in the package to their path in the image. Their modes are those
/// of the archive, made readable as npm does.
///
/// # Errors
/// [`Error`] for the first entry that is refused, or [`Error::Missing`] if a wanted file is missing.
pub fn pick(
    tarball: &[u8],
    wanted: &BTreeMap<&str, TreePath>,
    origin: &Origin,
    packing: Packing,
) -> Result<Layer, Error> {
    let subject = origin.to_string();
    let mut found = BTreeMap::new();
    read(tarball, &subject, |item| {
        if let (ItemKind::File, Some(place)) = (item.kind, wanted.get(item.path.as_str())) {
            let content = Content::pack(item.content, packing);
            found.insert(
                item.path,
                (place.clone(), Node::file(file_mode(item.mode), content, origin.clone())),
            );
        }
        Ok(())
    })?;
    if let Some(missing) = wanted.keys().find(|path| !found.contains_key(**path)) {
        return Err(Error::Missing { package: subject, path: (*missing).to_owned() });
    }
    Ok(Layer { entries: found.into_values().collect(), ..Layer::default() })
}

/// Extracts all files of a tarball, to their paths in the package.
///
/// # Errors
/// [`Error`] for the first entry that is refused.
pub fn all(tarball: &[u8], origin: &Origin, packing: Packing) -> Result<Layer, Error> {
    let subject = origin.to_string();
    let mut files = BTreeMap::new();
    read(tarball, &subject, |item| {
        if item.kind == ItemKind::File {
            let place = TreePath::new(&item.path)
                .map_err(|source| Error::Place { package: subject.clone(), source })?;
            let content = Content::pack(item.content, packing);
            files.insert(item.path, (place, Node::file(file_mode(item.mode), content, origin.clone())));
        }
        Ok(())
    })?;
    Ok(Layer { entries: files.into_values().collect(), ..Layer::default() })
}

/// What becomes of a file.
enum Fate {
    Kept(Node),
    Omitted { rule: usize, size: u64 },
}

/// pacote `#entryMode`, and umask 022.
fn file_mode(mode: u32) -> u16 {
    (((mode | 0o666) & 0o777) & !0o022) as u16
}

/// `fix-bin.js`: the file without the carriage return at the end of its `#!` line; `None` if there is none. npm
/// rewrites the file as text, so bytes that are not UTF-8 are replaced, here as there.
fn without_carriage_return(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.iter().take(SHEBANG).position(|&byte| byte == b'\n')?;
    let line = bytes.get(..end)?;
    let fixed = line.strip_suffix(b"\r")?;
    if fixed.len() < 3 || !fixed.starts_with(b"#!") {
        return None;
    }
    let rest = bytes.get(end..)?;
    let text = [String::from_utf8_lossy(fixed), String::from_utf8_lossy(rest)];
    Some(text.concat().into_bytes())
}

/// The folders above `path`, the outermost last, without `path` itself and the root.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/'), |(folder, _)| folder.rsplit_once('/'))
        .map(|(folder, _)| folder)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    File,
    Folder,
}

/// An entry of the archive, its path without the first component.
struct Item<'a> {
    path: String,
    kind: ItemKind,
    mode: u32,
    size: u64,
    content: &'a [u8],
}

/// The content of a tarball, in a buffer that this thread reuses: fresh pages cost more than unpacking.
struct Plain {
    buffer: Vec<u8>,
    len: usize,
}

/// The most memory that a thread keeps for its next tarball, in bytes.
const KEPT: usize = 64 << 20;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Plain {
    /// Unpacks gzip: a file of one member, as npm writes them, with libdeflate, in a third of the time of a stream; any
    /// other as a stream, which also names the error.
    fn of(tarball: &[u8], package: &str) -> Result<Self, Error> {
        let limit = MAX_UNPACKED.min(SLACK + MAX_RATIO * tarball.len() as u64);
        if let Some(plain) = Plain::of_one_member(tarball, limit) {
            return Ok(plain);
        }
        let mut buffer = Vec::new();
        let read = MultiGzDecoder::new(tarball).take(limit + 1).read_to_end(&mut buffer);
        if buffer.len() as u64 > limit {
            return Err(Error::TooLarge { package: package.to_owned(), limit });
        }
        read.map_err(|source| Error::Read { package: package.to_owned(), source })?;
        Ok(Plain { len: buffer.len(), buffer })
    }

    /// The content of a gzip file of one member and at most `limit` bytes; `None` for any other file, also a damaged
    /// one.
    fn of_one_member(file: &[u8], limit: u64) -> Option<Self> {
        // RFC 1952, 2.3.1: the last member ends with the CRC and the length of its content. The first member is the
        // only one exactly if both match what was unpacked.
        let (_, &trailer) = file.split_last_chunk::<8>()?;
        let [sum, len] = [u64::from_le_bytes(trailer) as u32, (u64::from_le_bytes(trailer) >> 32) as u32];
        if u64::from(len) > limit {
            return None;
        }
        let len = len as usize;
        // A tarball that is unpacked meanwhile finds no buffer, and makes its own.
        let mut plain = Plain { buffer: BUFFER.take(), len };
        if plain.buffer.len() < len {
            plain.buffer = vec![0; len];
        }
        let written = Decompressor::new().gzip_decompress(file, plain.buffer.get_mut(..len)?).ok()?;
        let mut crc = Crc::new();
        crc.update(&plain);
        (written == len && crc.sum() == sum).then_some(plain)
    }
}

impl Deref for Plain {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or(&[])
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.len() <= KEPT {
            let other = BUFFER.take();
            BUFFER.set(if buffer.len() < other.len() { other } else { buffer });
        }
    }
}

/// Calls `each` with the files and folders of a tarball.
fn read(
    tarball: &[u8],
    package: &str,
    mut each: impl FnMut(Item<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let wrong = |source: io::Error| Error::Read { package: package.to_owned(), source };
    let plain = Plain::of(tarball, package)?;
    // A cursor seeks over skipped entries; a slice would be read.
    let mut archive = Archive::new(Cursor::new(&*plain));
    for entry in archive.entries_with_seek().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size = entry.size();
        let kind = entry.header().entry_type();
        let kind = match kind {
            // Pre-POSIX archives mark a folder by a trailing slash.
            EntryType::Regular | EntryType::Continuous if raw.ends_with('/') => ItemKind::Folder,
            EntryType::Regular | EntryType::Continuous => ItemKind::File,
            EntryType::Directory => ItemKind::Folder,
            EntryType::Link | EntryType::Symlink | EntryType::Char | EntryType::Block | EntryType::Fifo => {
                continue;
            }
            EntryType::XGlobalHeader => {
                let mut header = Vec::new();
                entry.read_to_end(&mut header).map_err(wrong)?;
                global_header(&header, package, &raw)?;
                continue;
            }
            other => {
                let what = format!("an entry of type {:?}", char::from(other.as_byte()));
                return Err(Error::Kind { package: package.to_owned(), path: raw, what });
            }
        };
        if std::str::from_utf8(&entry.path_bytes()).is_err() {
            return Err(bad(package, raw, "not UTF-8"));
        }
        let Some(path) = strip(&raw, package)? else {
            if kind == ItemKind::Folder {
                continue;
            }
            return Err(bad(package, raw, "not in a folder"));
        };
        let rest = usize::try_from(entry.raw_file_position()).ok().and_then(|start| plain.get(start..));
        let rest = rest.unwrap_or_default();
        let content = usize::try_from(size).ok().and_then(|size| rest.get(..size));
        let content = content.ok_or_else(|| Error::Truncated {
            package: package.to_owned(),
            path: raw,
            expected: size,
            found: rest.len() as u64,
        })?;
        let mode = entry.header().mode().unwrap_or(0);
        each(Item { path, kind, mode, size, content })?;
    }
    Ok(())
}

fn bad(package: &str, path: String, what: &'static str) -> Error {
    Error::Path { package: package.to_owned(), path, what }
}

/// A path without its first component, normalised; `None` if nothing remains.
fn strip(raw: &str, package: &str) -> Result<Option<String>, Error> {
    if raw.starts_with('/') {
        return Err(bad(package, raw.to_owned(), "absolute"));
    }
    if raw.split(['/', '\\']).any(|part| part == "..") {
        return Err(bad(package, raw.to_owned(), "outside the package"));
    }
    let Some((_, rest)) = raw.split_once('/') else { return Ok(None) };
    let path = TreePath::new(rest).map_err(|error| {
        let what = match error {
            path::Error::Escapes(_) => "outside the package",
            path::Error::Nul(_) => "one with a NUL byte",
            path::Error::TooLong(_) => "one with a component of more than 255 bytes",
        };
        bad(package, raw.to_owned(), what)
    })?;
    Ok((!path.is_root()).then(|| path.as_str().to_owned()))
}

/// A global header may only be a comment, as Git writes it: anything else would change the entries after it.
fn global_header(header: &[u8], package: &str, path: &str) -> Result<(), Error> {
    for extension in tar::PaxExtensions::new(header) {
        let extension = extension.map_err(|source| Error::Read { package: package.to_owned(), source })?;
        if extension.key_bytes() != b"comment" {
            let what = format!("a global header with {:?}", String::from_utf8_lossy(extension.key_bytes()));
            return Err(Error::Kind { package: package.to_owned(), path: path.to_owned(), what });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
