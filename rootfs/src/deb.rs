//! Yields the control files and entries of a Debian package.
//!
//! # Shape
//! ```text
//! .deb = ar: debian-binary "2.0\n" | control.tar[.gz|.xz|.zst] | data.tar[.gz|.xz|.zst]
//! ar   = "!<arch>\n", then members: 60 bytes of header (name 16, mtime 12, uid 6, gid 6, mode 8, size 10, "`\n"),
//!        the content, and a newline when its length is odd
//! ```
//!
//! # Source
//! deb(5) of dpkg 1.22; ar(5). Checked against `dpkg-deb` over whole package sets of Debian trixie.
//!
//! # Not here
//! Running maintainer scripts, which never happens. Where `/lib` goes: `merge`.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::content::{Content, Packing};
use crate::layer::Layer;
use crate::omit::{Omitted, Tally};
use crate::path::{self, TreePath};
use crate::tree::{Kind, Node, Origin};

/// The most bytes that an archive member may unpack to.
const MAX_UNPACKED: u64 = 8 << 30;
/// The longest control file that is accepted, in bytes (the largest of dpkg are below 1 MiB).
const MAX_CONTROL: u64 = 64 << 20;

/// Why bytes are not a Debian package.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The outer container is damaged.
    #[error("ar member at offset {offset}: expected {expected}, found {found:?}")]
    Ar {
        /// Offset in the package, in bytes.
        offset: usize,
        /// What was expected.
        expected: &'static str,
        /// What is at that path.
        found: String,
    },
    /// A required member is missing.
    #[error("the package has no member {0}")]
    Missing(&'static str),
    /// A member has an unknown compression.
    #[error("member {0:?} has an unknown compression, expected .gz, .xz, .zst or none")]
    Compression(String),
    /// A member cannot be decompressed, or is not a tar archive.
    #[error("cannot read {member}")]
    Tar {
        /// Name of the member.
        member: String,
        /// Why.
        source: io::Error,
    },
    /// An entry has a name that an image cannot hold.
    #[error(transparent)]
    Path(#[from] path::Error),
    /// An entry has a name or target that is not UTF-8.
    #[error("entry {0:?} is not UTF-8")]
    NotUtf8(String),
    /// An entry has a type that is not allowed in a package.
    #[error("entry {path} has type {kind:?}, which is not allowed in a package")]
    EntryType {
        /// The entry.
        path: TreePath,
        /// The type byte of its tar header.
        kind: char,
    },
}

/// A Debian package, unpacked.
#[derive(Debug)]
pub struct Package {
    /// The control files by name: `control`, `postinst`, `conffiles`, `triggers` and so on.
    pub control: BTreeMap<String, Vec<u8>>,
    /// Its entries in the file system.
    pub layer: Layer,
}

/// The members of an ar archive: name and content.
///
/// # Errors
/// [`Error::Ar`] with the offset of the invalid member.
pub fn members(bytes: &[u8]) -> Result<Vec<(&str, &[u8])>, Error> {
    let wrong = |offset, expected, found: &[u8]| Error::Ar {
        offset,
        expected,
        found: String::from_utf8_lossy(found.get(..16.min(found.len())).unwrap_or(found)).into_owned(),
    };
    let Some(mut rest) = bytes.strip_prefix(b"!<arch>\n") else {
        return Err(wrong(0, "\"!<arch>\\n\"", bytes));
    };
    let mut members = Vec::new();
    while !rest.is_empty() {
        let offset = bytes.len() - rest.len();
        let Some((header, after)) = rest.split_at_checked(60) else {
            return Err(wrong(offset, "60 bytes of member header", rest));
        };
        let field = |range| header.get(range).and_then(|field| str::from_utf8(field).ok()).map(str::trim_end);
        if header.get(58..) != Some(b"`\n") {
            return Err(wrong(offset + 58, "the end of a member header", header.get(58..).unwrap_or(&[])));
        }
        let name = field(0..16).map(|name| name.trim_end_matches('/'));
        let name = name.ok_or_else(|| wrong(offset, "a member name", header))?;
        let size = field(48..58).and_then(|size| size.parse::<usize>().ok());
        let size =
            size.ok_or_else(|| wrong(offset + 48, "a decimal size", header.get(48..).unwrap_or(&[])))?;
        let Some((content, after)) = after.split_at_checked(size) else {
            return Err(wrong(offset + 60, "as many bytes as in the header", after));
        };
        members.push((name, content));
        rest = after.get(size % 2..).unwrap_or(&[]);
    }
    Ok(members)
}

/// Decompresses a member, by the extension of its name.
fn open<'a>(name: &str, bytes: &'a [u8]) -> Result<Box<dyn Read + 'a>, Error> {
    let tar = |source| Error::Tar { member: name.to_owned(), source };
    Ok(match name.rsplit_once(".tar").map(|(_, ending)| ending) {
        Some("") => Box::new(bytes),
        Some(".gz") => Box::new(flate2::bufread::MultiGzDecoder::new(bytes)),
        Some(".xz") => Box::new(xz(bytes).map_err(tar)?),
        Some(".zst") => Box::new(zstd::stream::read::Decoder::with_buffer(bytes).map_err(tar)?),
        _ => return Err(Error::Compression(name.to_owned())),
    })
}

/// Decompresses xz data, such as a package index. It fails at the first byte that is not xz.
pub fn xz_reader(bytes: &[u8]) -> impl Read + '_ {
    liblzma::bufread::XzDecoder::new(bytes)
}

/// Large archives have several blocks, which two threads decode at once. The checksums inside are not verified: the
/// caller has already checked the digest of the whole package.
fn xz(bytes: &[u8]) -> io::Result<liblzma::bufread::XzDecoder<&[u8]>> {
    const WORTH_THREADS: usize = 8 << 20;
    let stream = if bytes.len() >= WORTH_THREADS {
        liblzma::stream::MtStreamBuilder::new()
            .threads(2)
            .memlimit_threading(256 << 20)
            .memlimit_stop(u64::MAX)
            .decoder()
    } else {
        liblzma::stream::Stream::new_stream_decoder(u64::MAX, liblzma::stream::IGNORE_CHECK)
    };
    Ok(liblzma::bufread::XzDecoder::new_stream(bytes, stream.map_err(io::Error::from)?))
}

fn find<'a>(members: &[(&'a str, &'a [u8])], stem: &'static str) -> Result<(&'a str, &'a [u8]), Error> {
    members.iter().find(|(name, _)| name.starts_with(stem)).copied().ok_or(Error::Missing(stem))
}

/// The control files of a package, by name.
///
/// # Errors
/// [`Error`] if the package is damaged.
pub fn control(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let members = members(bytes)?;
    control_of(&members)
}

fn control_of(members: &[(&str, &[u8])]) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let (name, packed) = find(members, "control.tar")?;
    let tar = |source| Error::Tar { member: name.to_owned(), source };
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(open(name, packed)?.take(MAX_CONTROL));
    for entry in archive.entries().map_err(tar)? {
        let mut entry = entry.map_err(tar)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = TreePath::new(&utf8(&entry.path_bytes())?)?;
        let mut text = Vec::new();
        entry.read_to_end(&mut text).map_err(tar)?;
        files.insert(path.as_str().to_owned(), text);
    }
    Ok(files)
}

/// The content of one file of a package, which is unpacked only up to that file; `None` if there is no such file.
///
/// # Errors
/// [`Error`] if the package is damaged.
pub fn file(bytes: &[u8], path: &TreePath) -> Result<Option<Vec<u8>>, Error> {
    let members = members(bytes)?;
    let (name, packed) = find(&members, "data.tar")?;
    let tar = |source| Error::Tar { member: name.to_owned(), source };
    let mut archive = tar::Archive::new(open(name, packed)?.take(MAX_UNPACKED));
    for entry in archive.entries().map_err(tar)? {
        let mut entry = entry.map_err(tar)?;
        if entry.header().entry_type().is_file() && TreePath::new(&utf8(&entry.path_bytes())?)? == *path {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(tar)?;
            return Ok(Some(content));
        }
    }
    Ok(None)
}

fn utf8(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec())
        .map_err(|error| Error::NotUtf8(format!("{}", error.as_bytes().escape_ascii())))
}

/// Returns the number of the rule that omits a path; called for files, not directories.
pub type OmitRule<'a> = &'a (dyn Fn(&TreePath) -> Option<usize> + Sync);

/// Control files that become notes of the layer; they stay out of the image.
const NOTES: [&str; 2] = ["control", "md5sums"];

/// Unpacks a package. What `omit` leaves out is skipped, not hashed, and counted in the layer's tally; the control
/// files `control` and `md5sums` become the layer's notes.
///
/// # Errors
/// [`Error`] if the package is damaged, or holds something that an image cannot.
pub fn unpack(bytes: &[u8], origin: &Origin, omit: OmitRule<'_>, packing: Packing) -> Result<Package, Error> {
    let members = members(bytes)?;
    match members.first() {
        Some(("debian-binary", version)) if version.starts_with(b"2.") => {}
        _ => return Err(Error::Missing("debian-binary")),
    }
    let control = control_of(&members)?;
    let (name, packed) = find(&members, "data.tar")?;
    let mut layer = data(name, packed, origin, omit, packing)?;
    for name in NOTES {
        if let Some(text) = control.get(name) {
            layer.notes.insert(name.to_owned(), String::from_utf8_lossy(text).into_owned());
        }
    }
    Ok(Package { control, layer })
}

fn data(
    name: &str,
    packed: &[u8],
    origin: &Origin,
    omit: OmitRule<'_>,
    packing: Packing,
) -> Result<Layer, Error> {
    let tar = |source| Error::Tar { member: name.to_owned(), source };
    let mut archive = tar::Archive::new(open(name, packed)?.take(MAX_UNPACKED));
    let mut layer = Layer::default();
    for entry in archive.entries().map_err(tar)? {
        let mut entry = entry.map_err(tar)?;
        let path = TreePath::new(&utf8(&entry.path_bytes())?)?;
        let header = entry.header();
        let kind = header.entry_type();
        if let Some(rule) = omit(&path).filter(|_| !kind.is_dir()) {
            let one = (0..=rule).map(|number| match number == rule {
                true => Omitted { files: 1, bytes: entry.size() },
                false => Omitted::default(),
            });
            layer.omitted.add(&Tally::from_rules(one.collect()));
            continue;
        }
        let number = |value: io::Result<u64>| value.map(|value| value as u32).map_err(tar);
        let mode = (header.mode().map_err(tar)? & 0o7777) as u16;
        let (uid, gid) = (number(header.uid())?, number(header.gid())?);
        let device = || -> Result<(u32, u32), Error> {
            let number = |value: io::Result<Option<u32>>| value.map(Option::unwrap_or_default).map_err(tar);
            Ok((number(header.device_major())?, number(header.device_minor())?))
        };
        let device = if kind.is_character_special() || kind.is_block_special() { device()? } else { (0, 0) };
        let (major, minor) = device;
        let link = match entry.link_name_bytes() {
            Some(target) => utf8(&target)?,
            None => String::new(),
        };
        let xattrs = xattrs(&mut entry).map_err(tar)?;
        let kind = match kind {
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let len = entry.size();
                Kind::File(Content::pack_from(&mut entry, len, packing).map_err(tar)?)
            }
            tar::EntryType::Symlink => Kind::Symlink(link.into()),
            tar::EntryType::Link => Kind::HardLink(TreePath::new(&link)?),
            tar::EntryType::Char => Kind::CharDevice { major, minor },
            tar::EntryType::Block => Kind::BlockDevice { major, minor },
            tar::EntryType::Fifo => Kind::Fifo,
            other => return Err(Error::EntryType { path, kind: other.as_byte() as char }),
        };
        layer.entries.push((path, Node { mode, uid, gid, xattrs, kind, origin: origin.clone() }));
    }
    Ok(layer)
}

/// Extended attributes, in the form that GNU tar and others write.
fn xattrs<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<BTreeMap<Box<str>, Box<[u8]>>> {
    let mut found = BTreeMap::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
                found.insert(name.into(), extension.value_bytes().into());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = b"!<arch>\n".to_vec();
        for (name, content) in members {
            out.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len()).bytes(),
            );
            out.extend_from_slice(content);
            if content.len() % 2 == 1 {
                out.push(b'\n');
            }
        }
        out
    }

    fn tar(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, link, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            header.set_uid(0);
            header.set_gid(42);
            header.set_size(content.len() as u64);
            let name = path.as_bytes();
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            if !link.is_empty() {
                header.set_link_name_literal(link).unwrap();
            }
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn deb(data: &[u8]) -> Vec<u8> {
        let control = tar(&[("./control", tar::EntryType::Regular, "", b"Package: x\n")]);
        ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", data)])
    }

    #[test]
    fn one_file_is_read_without_the_others() {
        let package = deb(&tar(&[
            ("./usr/a", tar::EntryType::Regular, "", b"first"),
            ("./usr/b", tar::EntryType::Regular, "", b"second"),
            ("./usr/c", tar::EntryType::Symlink, "b", b""),
        ]));
        let of = |path: &str| file(&package, &TreePath::new(path).unwrap()).unwrap();
        assert_eq!(of("usr/b").as_deref(), Some(&b"second"[..]));
        assert_eq!(of("usr/c"), None);
        assert_eq!(of("usr/d"), None);
        assert!(file(&package[..package.len() / 2], &TreePath::new("usr/b").unwrap()).is_err());
    }

    fn read(bytes: &[u8]) -> Result<Package, Error> {
        unpack(
            bytes,
            &Origin::debian("x", "1"),
            &|path| (path.name() == "unwanted").then_some(2),
            Packing::Zstd(3),
        )
    }

    #[test]
    fn a_package_unpacks_to_its_control_files_and_entries() {
        let data = tar(&[
            ("./", tar::EntryType::Directory, "", b""),
            ("./usr/bin/x", tar::EntryType::Regular, "", b"hello"),
            ("./usr/bin/y", tar::EntryType::Link, "./usr/bin/x", b""),
            ("./usr/bin/z", tar::EntryType::Symlink, "../x", b""),
            ("./unwanted", tar::EntryType::Regular, "", b"never"),
        ]);
        let package = read(&deb(&data)).unwrap();
        assert_eq!(package.control["control"], b"Package: x\n");
        let entries = &package.layer.entries;
        let names: Vec<String> = entries.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(names, ["/", "/usr/bin/x", "/usr/bin/y", "/usr/bin/z"]);
        assert_eq!(package.layer.omitted.by_rule()[2], Omitted { files: 1, bytes: 5 });
        assert_eq!(package.layer.omitted.stale().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(package.layer.notes["control"], "Package: x\n");
        assert_eq!((entries[1].1.mode, entries[1].1.gid), (0o4755, 42));
        assert_eq!(&*entries[1].1.content().unwrap().read().unwrap(), b"hello");
        assert!(matches!(&entries[2].1.kind, Kind::HardLink(target) if target.as_str() == "usr/bin/x"));
        assert!(matches!(&entries[3].1.kind, Kind::Symlink(target) if &**target == "../x"));
    }

    #[test]
    fn compressed_members_are_read() {
        let data = tar(&[("./a", tar::EntryType::Regular, "", b"hello")]);
        let control = tar(&[("./control", tar::EntryType::Regular, "", b"Package: x\n")]);
        let xz = |bytes: &[u8]| {
            let mut out = Vec::new();
            liblzma::read::XzEncoder::new(bytes, 6).read_to_end(&mut out).unwrap();
            out
        };
        let mut gz = Vec::new();
        flate2::read::GzEncoder::new(&control[..], flate2::Compression::fast()).read_to_end(&mut gz).unwrap();
        let package =
            read(&ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &gz), ("data.tar.xz", &xz(&data))]));
        assert_eq!(package.unwrap().layer.entries.len(), 1);
        let zst = zstd::bulk::compress(&data, 3).unwrap();
        let package =
            read(&ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &gz), ("data.tar.zst", &zst)]));
        assert_eq!(package.unwrap().layer.entries.len(), 1);
    }

    #[test]
    fn damaged_packages_are_refused() {
        let data = tar(&[("./a", tar::EntryType::Regular, "", &[7; 2000])]);
        let good = deb(&data);
        assert!(matches!(read(b"not ar"), Err(Error::Ar { offset: 0, .. })));
        assert!(matches!(read(&good[..good.len() - 600]), Err(Error::Ar { .. })));
        assert!(matches!(read(&deb(&data[..1024])), Err(Error::Tar { .. })));
        assert!(matches!(read(&ar(&[("debian-binary", b"2.0\n")])), Err(Error::Missing("control.tar"))));
        assert!(matches!(read(&ar(&[])), Err(Error::Missing("debian-binary"))));
        let mut strange = good.clone();
        let at = strange.windows(8).position(|window| window == b"data.tar").unwrap();
        strange[at..at + 13].copy_from_slice(b"data.tar.lzma");
        assert!(matches!(read(&strange), Err(Error::Compression(name)) if name == "data.tar.lzma"));
    }

    #[test]
    fn entries_that_an_image_cannot_hold_are_refused() {
        let escape = tar(&[("./../etc/passwd", tar::EntryType::Regular, "", b"x")]);
        assert!(matches!(read(&deb(&escape)), Err(Error::Path(path::Error::Escapes(_)))));
        let sparse = tar(&[("./a", tar::EntryType::new(b'V'), "", b"")]);
        assert!(matches!(read(&deb(&sparse)), Err(Error::EntryType { kind: 'V', .. })));
    }
}
