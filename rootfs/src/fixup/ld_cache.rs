//! Yields `/etc/ld.so.cache` and the soname links of libraries, from the libraries of the tree and `/etc/ld.so.conf`.
//!
//! # Shape
//! ```text
//! header 48 B | entries 24 B each, by descending soname | strings, tails shared | extensions (4 B aligned)
//! ```
//! Numbers are little-endian. An entry: flags u32, soname u32, path u32 (offsets from the start of the file),
//! 0 u32, hwcap u64. Extensions: the generator's name, and the names of used `glibc-hwcaps` folders.
//!
//! # Source
//! glibc 2.41 `sysdeps/generic/dl-cache.h` (struct `cache_file_new`), with Debian's list of system directories.
//! Equal to the bytes that ldconfig of trixie writes (`tests/tests/fixup_b_reference.rs`).
//!
//! # Not here
//! Removing stale links, as ldconfig also does; its private `aux-cache`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use globset::GlobBuilder;

use crate::content::Content;
use crate::elf::{self, Elf};
use crate::path::{self, TreePath};
use crate::tree::{self, Kind, Node, Origin, Tree};

/// Where the dynamic linker looks for the cache.
const CACHE: &str = "etc/ld.so.cache";
const CONF: &str = "etc/ld.so.conf";

/// Directories that are always searched, in order (Debian's `trusted-dirs.h` for amd64).
pub const SYSTEM_DIRECTORIES: [&str; 4] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"];

/// Links to the dynamic linker are never changed (Debian's patch `local-ldconfig-ignore-ld.so.diff`).
const LOADERS: [&str; 3] = ["ld-linux-x86-64.so.2", "ld-linux.so.2", "ld-linux-x32.so.2"];

/// `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`.
const FLAGS: u32 = 0x303;
const LITTLE_ENDIAN: u8 = 2;
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
const TAG_GENERATOR: u32 = 0;
const TAG_HWCAPS: u32 = 1;
const HWCAP_EXTENSION: u64 = 1 << 62;
const MAX_ISA_LEVEL: u32 = 0x3ff;

/// The greatest depth of `include` lines.
const MAX_INCLUDES: usize = 16;

/// Why the cache cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A library is damaged.
    #[error("cannot read the library {path}")]
    Library {
        /// The library.
        path: TreePath,
        /// Why.
        source: elf::Error,
    },
    /// A configuration file includes itself, directly or through others.
    #[error("{0} is included more than {MAX_INCLUDES} levels deep")]
    IncludeDepth(TreePath),
    /// An invalid `include` pattern.
    #[error("{path}: invalid include pattern {pattern:?}")]
    Pattern {
        /// The configuration file.
        path: TreePath,
        /// The pattern.
        pattern: String,
    },
    /// More bytes than a 32-bit offset can address.
    #[error("the cache would have {0} bytes, expected less than 4 GiB")]
    TooLarge(usize),
    /// An ISA level that the format cannot hold.
    #[error("{path} needs ISA level {found}, expected at most {MAX_ISA_LEVEL}")]
    IsaLevel {
        /// The library.
        path: TreePath,
        /// Its level.
        found: u32,
    },
    /// The tree cannot be read or changed.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A string is not a path.
    #[error(transparent)]
    Path(#[from] path::Error),
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of libraries in the cache.
    pub libraries: usize,
    /// Links that were added or changed.
    pub links: Vec<TreePath>,
}

/// A directory that the dynamic linker searches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchDirectory {
    /// As configured, such as `/lib/x86_64-linux-gnu`: the spelling in the cache.
    pub spelled: String,
    /// The directory, with links resolved.
    pub path: TreePath,
    /// The folder of `glibc-hwcaps`, such as `x86-64-v3`.
    pub hwcaps: Option<String>,
}

/// The generator name that ldconfig of this tree's glibc writes; `None` if `libc.so.6` is not Debian's.
pub fn generator(tree: &Tree) -> Option<String> {
    let libc = TreePath::new("usr/lib/x86_64-linux-gnu/libc.so.6").ok()?;
    let place = tree.resolve(&libc).ok()?;
    let Origin::Debian { version, .. } = &tree.get(&place)?.origin else { return None };
    let upstream = version.rsplit_once('-').map_or(&**version, |(upstream, _)| upstream);
    Some(format!("ldconfig (Debian GLIBC {version}) stable release version {upstream}"))
}

/// The directories that the dynamic linker searches, in order: those of `/etc/ld.so.conf`, then the system's.
///
/// # Errors
/// [`Error::IncludeDepth`], [`Error::Pattern`], [`Error::Tree`].
pub fn directories(tree: &Tree) -> Result<Vec<SearchDirectory>, Error> {
    let mut spelled = Vec::new();
    let conf = TreePath::new(CONF)?;
    if tree.content(&conf).is_ok() {
        configured(tree, &conf, 0, &mut spelled)?;
    }
    spelled.extend(SYSTEM_DIRECTORIES.map(str::to_owned));
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    for spelled in spelled {
        let Ok(path) =
            TreePath::new(&spelled).map_err(tree::Error::from).and_then(|path| tree.resolve(&path))
        else {
            continue;
        };
        if !tree.get(&path).is_some_and(Node::is_directory) || !seen.insert(path.clone()) {
            continue;
        }
        let folder = path.join("glibc-hwcaps")?;
        list.push(SearchDirectory { spelled: spelled.clone(), path, hwcaps: None });
        let Ok(folder) = tree.resolve(&folder) else { continue };
        for (child, _) in tree.children(&folder) {
            let name = child.name();
            if name.starts_with('.') || name.contains(':') {
                continue;
            }
            let Ok(path) = tree.resolve(child) else { continue };
            if tree.get(&path).is_some_and(Node::is_directory) && seen.insert(path.clone()) {
                let spelled = format!("{spelled}/glibc-hwcaps/{name}");
                list.push(SearchDirectory { spelled, path, hwcaps: Some(name.to_owned()) });
            }
        }
    }
    Ok(list)
}

/// Reads one configuration file.
fn configured(tree: &Tree, conf: &TreePath, depth: usize, out: &mut Vec<String>) -> Result<(), Error> {
    if depth > MAX_INCLUDES {
        return Err(Error::IncludeDepth(conf.clone()));
    }
    let bytes = tree.read(conf)?.into_owned();
    for line in String::from_utf8_lossy(&bytes).lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        let word = line.split([' ', '\t']).next().unwrap_or("");
        if line.is_empty() || (word.eq_ignore_ascii_case("hwcap") && word.len() < line.len()) {
            continue;
        }
        if word == "include" && word.len() < line.len() {
            for pattern in line.split([' ', '\t']).skip(1).filter(|pattern| !pattern.is_empty()) {
                for file in included(tree, conf, pattern)? {
                    configured(tree, &file, depth + 1, out)?;
                }
            }
            continue;
        }
        let directory = line.trim_end_matches('/');
        if !directory.is_empty() {
            out.push(directory.to_owned());
        }
    }
    Ok(())
}

/// The files that an `include` pattern names, in the order of their names.
fn included(tree: &Tree, conf: &TreePath, pattern: &str) -> Result<Vec<TreePath>, Error> {
    let wrong = || Error::Pattern { path: conf.clone(), pattern: pattern.to_owned() };
    let full = if pattern.starts_with('/') {
        TreePath::new(pattern)?
    } else {
        conf.parent().unwrap_or_else(TreePath::root).join(pattern)?
    };
    let glob = GlobBuilder::new(full.as_str()).literal_separator(true).build().map_err(|_| wrong())?;
    let matcher = glob.compile_matcher();
    // The part before the first wildcard is a directory that must exist.
    let fixed = full.as_str().split(['*', '?', '[']).next().unwrap_or("");
    let above = TreePath::new(fixed.rsplit_once('/').map_or("", |(above, _)| above))?;
    let mut files: Vec<TreePath> = Vec::new();
    if tree.get(&full).is_some() {
        files.push(full.clone());
    } else {
        files.extend(
            tree.below(&above)
                .map(|(path, _)| path.clone())
                .filter(|path| matcher.is_match(path.as_str()) && !path.name().starts_with('.')),
        );
    }
    files.retain(|path| tree.content(path).is_ok());
    Ok(files)
}

/// Compares library names as the dynamic linker does, with digits as numbers (`_dl_cache_libcmp`).
fn library_order(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    let number = |text: &mut &[u8]| {
        let mut value = 0i32;
        while let Some((digit @ b'0'..=b'9', rest)) = text.split_first() {
            value = value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
            *text = rest;
        }
        value
    };
    while let Some((&a, rest_left)) = left.split_first() {
        let b = right.first().copied().unwrap_or(0);
        match (a.is_ascii_digit(), b.is_ascii_digit()) {
            (true, true) => match number(&mut left).cmp(&number(&mut right)) {
                Ordering::Equal => {}
                unequal => return unequal,
            },
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) if a != b => return (a as i8).cmp(&(b as i8)),
            (false, false) => {
                left = rest_left;
                right = right.get(1..).unwrap_or(&[]);
            }
        }
    }
    if right.is_empty() { Ordering::Equal } else { Ordering::Less }
}

/// Whether a file of this name can be a library (`_dl_is_dso`) and is not a temporary file of a package manager.
fn is_library_name(name: &str) -> bool {
    ((name.starts_with("lib") || name.starts_with("ld-")) && name.contains(".so"))
        || name.starts_with("ld.so.")
        || name.starts_with("ld64.so.")
}

fn is_temporary(name: &str) -> bool {
    name.contains(';')
        || name.contains(".#prelink#")
        || name.ends_with(".dpkg-new")
        || name.ends_with(".dpkg-tmp")
}

/// One library of a directory.
#[derive(Debug, Clone)]
struct Library {
    name: String,
    by_link: bool,
    isa_level: u32,
}

/// The libraries of one directory by soname.
fn scan(tree: &Tree, directory: &SearchDirectory) -> Result<BTreeMap<String, Library>, Error> {
    let mut found: BTreeMap<String, Library> = BTreeMap::new();
    for (path, node) in tree.children(&directory.path) {
        let name = path.name();
        let is_link = matches!(node.kind, Kind::Symlink(_));
        let regular = matches!(node.kind, Kind::File(_) | Kind::HardLink(_));
        let looks_right = is_library_name(name) || (is_link && directory.hwcaps.is_some());
        if !(is_link || regular) || !looks_right || is_temporary(name) {
            continue;
        }
        let Ok(content) = tree.content(path) else { continue };
        let Some((own, isa_level)) =
            library(content).map_err(|source| Error::Library { path: path.clone(), source })?
        else {
            continue;
        };
        if isa_level > MAX_ISA_LEVEL {
            return Err(Error::IsaLevel { path: path.clone(), found: isa_level });
        }
        let own = own.unwrap_or_else(|| name.to_owned());
        // A link counts as a link only as `SONAME -> file` or `name.so -> SONAME`; any other is treated as a file.
        let by_link = is_link && (name == own || (name.ends_with(".so") && own.starts_with(name)));
        let soname = if by_link { name.to_owned() } else { own };
        let new = Library { name: name.to_owned(), by_link, isa_level };
        match found.get_mut(&soname) {
            None => {
                found.insert(soname, new);
            }
            Some(old) => {
                let newer = library_order(&old.name, name).is_lt();
                if (!by_link && old.by_link) || (by_link == old.by_link && newer) {
                    *old = new;
                }
            }
        }
    }
    Ok(found)
}

/// The soname and the ISA level of a library; `None` if the dynamic linker cannot load it.
fn library(content: &Content) -> Result<Option<(Option<String>, u32)>, elf::Error> {
    let head = content.read_range(0..6)?;
    // Linker scripts and 32-bit files are not libraries for this machine.
    if !elf::is_elf(&head) || head.get(4..6) != Some(&[2, 1]) {
        return Ok(None);
    }
    let elf = Elf::open(content)?;
    if elf.kind != elf::SHARED {
        return Ok(None);
    }
    let Some(dynamic) = elf.dynamic()? else { return Ok(None) };
    Ok(Some((dynamic.soname, elf.isa_level()?)))
}

/// One entry of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    soname: String,
    path: String,
    hwcaps: Option<String>,
    isa_level: u32,
}

/// The order in the cache: descending names; the more specific first.
fn entry_order(left: &Entry, right: &Entry) -> Ordering {
    library_order(&right.soname, &left.soname).then_with(|| match (&left.hwcaps, &right.hwcaps) {
        (Some(left), Some(right)) => left.cmp(right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    })
}

/// Adds missing soname links, and writes the cache; `generator` is the generator name in the cache (see
/// [`generator()`]).
///
/// # Errors
/// [`Error`] if a library or a configuration file is damaged.
pub fn apply(tree: &mut Tree, generator: &str) -> Result<Report, Error> {
    let mut entries = Vec::new();
    let mut hwcaps = BTreeSet::new();
    let mut links = Vec::new();
    for directory in directories(tree)? {
        hwcaps.extend(directory.hwcaps.clone());
        for (soname, library) in scan(tree, &directory)? {
            let file = match &directory.hwcaps {
                Some(_) => library.name,
                None => {
                    if !library.by_link {
                        links.extend(link(tree, &directory.path, &library.name, &soname)?);
                    }
                    soname.clone()
                }
            };
            let path = format!("{}/{file}", directory.spelled);
            let isa_level = library.isa_level;
            entries.push(Entry { soname, path, hwcaps: directory.hwcaps.clone(), isa_level });
        }
    }
    entries.sort_by(entry_order);
    let bytes = write(&entries, &hwcaps, generator)?;
    let node = Node::file(0o644, Content::raw(bytes), Origin::fix_up("ld_cache"));
    tree.replace(TreePath::new(CACHE)?, node)?;
    Ok(Report { libraries: entries.len(), links })
}

/// Points `soname` to the library `file` in the same directory; returns the link if it was added or changed.
fn link(tree: &mut Tree, directory: &TreePath, file: &str, soname: &str) -> Result<Option<TreePath>, Error> {
    let (place, library) = (directory.join(soname)?, directory.join(file)?);
    if let Ok(there) = tree.resolve(&place) {
        let is_link = matches!(tree.get(&place).map(|node| &node.kind), Some(Kind::Symlink(_)));
        if there == tree.resolve(&library)? || LOADERS.contains(&soname) || !is_link {
            return Ok(None);
        }
    } else if tree.get(&place).is_some_and(|node| !matches!(node.kind, Kind::Symlink(_))) {
        return Ok(None);
    }
    tree.replace(place.clone(), Node::symlink(file, Origin::fix_up("ld_cache")))?;
    Ok(Some(place))
}

/// The strings of the cache and their offsets; a string that is the tail of another is not repeated.
fn strings<'e>(texts: impl Iterator<Item = &'e str>) -> (Vec<u8>, BTreeMap<&'e str, usize>) {
    let mut sorted: Vec<&str> = texts.collect::<BTreeSet<_>>().into_iter().collect();
    // Descending order of the reversed strings puts each string right after those that end with it.
    sorted.sort_by(|left, right| right.bytes().rev().cmp(left.bytes().rev()));
    let mut bytes = Vec::new();
    let mut places = BTreeMap::new();
    let mut before: Option<(&str, usize)> = None;
    for text in sorted {
        let at = match before {
            Some((longer, start)) if longer.ends_with(text) => start + longer.len() - text.len(),
            _ => {
                let at = bytes.len();
                bytes.extend(text.bytes().chain([0]));
                at
            }
        };
        places.insert(text, at);
        before = Some((text, at));
    }
    (bytes, places)
}

fn write(entries: &[Entry], hwcaps: &BTreeSet<String>, generator: &str) -> Result<Vec<u8>, Error> {
    let used: BTreeSet<&str> = entries.iter().filter_map(|entry| entry.hwcaps.as_deref()).collect();
    let texts = entries.iter().flat_map(|entry| [entry.soname.as_str(), entry.path.as_str()]);
    // The strings also include the names of folders without libraries.
    let (table, places) = strings(texts.chain(hwcaps.iter().map(String::as_str)));
    let start = 48 + entries.len() * 24;
    let extensions = (start + table.len()).next_multiple_of(4);
    if u32::try_from(extensions + 64 + generator.len() + 4 * used.len()).is_err() {
        return Err(Error::TooLarge(extensions));
    }
    let place = |text: &str| (start + places.get(text).copied().unwrap_or(0)) as u32;
    let mut out = Vec::with_capacity(extensions + 128);
    out.extend(b"glibc-ld.so.cache1.1");
    out.extend((entries.len() as u32).to_le_bytes());
    out.extend((table.len() as u32).to_le_bytes());
    out.extend([LITTLE_ENDIAN, 0, 0, 0]);
    out.extend((extensions as u32).to_le_bytes());
    out.extend([0; 12]);
    for entry in entries {
        let hwcap = entry.hwcaps.as_deref().map_or(0, |name| {
            let index = used.iter().position(|used| *used == name).unwrap_or(0) as u64;
            HWCAP_EXTENSION | u64::from(entry.isa_level) << 32 | index
        });
        for word in [FLAGS, place(&entry.soname), place(&entry.path), 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(hwcap.to_le_bytes());
    }
    out.extend(&table);
    out.resize(extensions, 0);
    let sections = if used.is_empty() { 1 } else { 2 };
    let names_at = extensions + 8 + 16 * sections;
    let generator_at = names_at + 4 * used.len();
    let mut words =
        vec![EXTENSION_MAGIC, sections as u32, TAG_GENERATOR, 0, generator_at as u32, generator.len() as u32];
    if !used.is_empty() {
        words.extend([TAG_HWCAPS, 0, names_at as u32, 4 * used.len() as u32]);
        words.extend(used.iter().map(|name| place(name)));
    }
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    out.extend(generator.bytes());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::shared_object;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn origin() -> Origin {
        Origin::debian("libc6", "2.41-12+deb13u4")
    }

    fn add(tree: &mut Tree, place: &str, bytes: impl Into<Vec<u8>>) {
        tree.insert(path(place), Node::file(0o644, Content::raw(bytes), origin())).unwrap();
    }

    fn tree() -> Tree {
        let mut tree = Tree::new(origin());
        tree.insert(path("lib"), Node::symlink("usr/lib", origin())).unwrap();
        let library = |soname| shared_object(Some(soname), &[], None, None, &[]);
        add(&mut tree, "usr/lib/x86_64-linux-gnu/libc.so.6", library("libc.so.6"));
        add(&mut tree, "usr/lib/x86_64-linux-gnu/libz.so.1.3.1", library("libz.so.1"));
        add(&mut tree, "usr/lib/x86_64-linux-gnu/libz.so.1.10", library("libz.so.1"));
        add(&mut tree, "etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
        add(&mut tree, "etc/ld.so.conf.d/b.conf", "# none\n/lib/x86_64-linux-gnu/ # ours\nhwcap 0 x\n");
        tree
    }

    #[test]
    fn the_newest_library_gets_the_soname_link_and_one_entry() {
        let mut tree = tree();
        let report = apply(&mut tree, "me").unwrap();
        assert_eq!(report.libraries, 2);
        assert_eq!(report.links, [path("usr/lib/x86_64-linux-gnu/libz.so.1")]);
        let link = tree.resolve(&report.links[0]).unwrap();
        assert_eq!(link, path("usr/lib/x86_64-linux-gnu/libz.so.1.10"));
        let cache = tree.read(&path(CACHE)).unwrap().into_owned();
        assert_eq!(&cache[..20], b"glibc-ld.so.cache1.1");
        let at = u32::from_le_bytes(cache[52..56].try_into().unwrap()) as usize;
        assert!(cache[at..].starts_with(b"libz.so.1\0"));
        assert!(cache.ends_with(b"me"));
        assert_eq!(apply(&mut tree, "me").unwrap().links, []);
        assert_eq!(tree.read(&path(CACHE)).unwrap(), cache);
    }

    #[test]
    fn configured_directories_come_first_and_once() {
        let list = directories(&tree()).unwrap();
        let spelled: Vec<&str> = list.iter().map(|directory| directory.spelled.as_str()).collect();
        assert_eq!(spelled, ["/lib/x86_64-linux-gnu", "/lib"]);
    }

    #[test]
    fn an_include_that_includes_itself_is_refused() {
        let mut tree = tree();
        add(&mut tree, "etc/ld.so.conf.d/a.conf", "include a.conf\n");
        assert!(matches!(directories(&tree), Err(Error::IncludeDepth(_))));
    }

    #[test]
    fn an_invalid_pattern_is_refused() {
        let mut tree = tree();
        add(&mut tree, "etc/ld.so.conf.d/a.conf", "include /etc/[.conf\n");
        assert!(matches!(directories(&tree), Err(Error::Pattern { .. })));
    }

    #[test]
    fn a_damaged_library_is_named() {
        let mut tree = tree();
        let mut bytes = shared_object(None, &[], None, None, &[]);
        bytes.truncate(100);
        add(&mut tree, "usr/lib/libbad.so.1", bytes);
        let error = apply(&mut tree, "me").unwrap_err();
        assert_eq!(error.to_string(), "cannot read the library /usr/lib/libbad.so.1");
    }

    #[test]
    fn digits_in_names_compare_as_numbers() {
        assert_eq!(library_order("libz.so.1.10", "libz.so.1.9"), Ordering::Greater);
        assert_eq!(library_order("liba.so", "liba1.so"), Ordering::Less);
        assert_eq!(library_order("liba.so.1", "liba.so"), Ordering::Greater);
        assert_eq!(library_order("liba.so", "liba.so.1"), Ordering::Less);
        assert_eq!(library_order("liba.so.01", "liba.so.1"), Ordering::Equal);
    }

    #[test]
    fn the_generator_follows_the_version_of_glibc() {
        let want = "ldconfig (Debian GLIBC 2.41-12+deb13u4) stable release version 2.41";
        assert_eq!(generator(&tree()).as_deref(), Some(want));
        assert_eq!(generator(&Tree::new(origin())), None);
    }

    proptest::proptest! {
        #[test]
        fn each_string_stands_where_the_table_says(texts in proptest::collection::vec("[ab/]{0,5}", 0..30)) {
            let (bytes, places) = strings(texts.iter().map(String::as_str));
            for text in &texts {
                let found = bytes[places[text.as_str()]..].split(|&byte| byte == 0).next().unwrap();
                proptest::prop_assert_eq!(found, text.as_bytes());
            }
        }
    }
}
