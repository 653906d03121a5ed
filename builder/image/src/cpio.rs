//! Yields an initrd archive (cpio, "newc") from an ordered list of entries, and the zstd frame around it.
//!
//! # Shape
//!
//! ```text
//! entry   = header (110 bytes of ASCII) name NUL pad4 content pad4
//! header  = "070701" then 13 numbers of 8 lowercase hexadecimal digits each:
//!           inode mode uid gid links mtime size devmajor devminor rdevmajor rdevminor namesize check
//! archive = entry… trailer       trailer = an entry named "TRAILER!!!" without content
//! ```
//!
//! Owner, group, mtime and device are 0 and inodes count from 1, so the archive depends only on its entries.
//!
//! # Source
//!
//! `Documentation/driver-api/early-userspace/buffer-format.rst` and `init/initramfs.c` of Linux 6.12: parents
//! must come before their children, a name holds at most `PATH_MAX` bytes. `lib/decompress_unzstd.c`: one
//! frame, window of at most 128 MiB. GNU cpio 2.13 lists and extracts the output of [`write`].
//!
//! # Not here
//!
//! What belongs in an initrd (`pipeline`); the archives that systemd-stub adds at boot (`ovmf-measure`).

use std::collections::BTreeSet;
use std::io::{self, Write};

const MAGIC: &[u8; 6] = b"070701";
const HEADER_LENGTH: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// Linux skips entries with `name_len <= 0 || name_len > PATH_MAX`; the length includes the NUL.
const PATH_MAX: usize = 4096;
/// The permission, set-id and sticky bits of a mode.
const PERMISSIONS: u16 = 0o7777;
const TYPE_MASK: u32 = 0o170_000;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A directory.
    Directory,
    /// A regular file and its bytes, at most 4 GiB - 1.
    File(&'a [u8]),
    /// A symbolic link and its target.
    Symlink(&'a str),
    /// A character device and its numbers.
    CharacterDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device and its numbers.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl<'a> Content<'a> {
    /// `S_IFMT` of the mode.
    fn type_bits(&self) -> u32 {
        match self {
            Content::Directory => 0o040_000,
            Content::File(_) => 0o100_000,
            Content::Symlink(_) => 0o120_000,
            Content::CharacterDevice { .. } => 0o020_000,
            Content::BlockDevice { .. } => 0o060_000,
        }
    }

    fn bytes(&self) -> &'a [u8] {
        match self {
            Content::File(bytes) => bytes,
            Content::Symlink(target) => target.as_bytes(),
            _ => &[],
        }
    }

    fn device(&self) -> (u32, u32) {
        match *self {
            Content::CharacterDevice { major, minor } | Content::BlockDevice { major, minor } => {
                (major, minor)
            }
            _ => (0, 0),
        }
    }
}

/// One entry of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The relative path, with components joined by single slashes.
    pub path: &'a str,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    /// Kind and bytes.
    pub content: Content<'a>,
}

/// Why an archive could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path is absolute, empty, or has an empty, `.` or `..` component or a NUL.
    #[error("initrd path {path:?} is not a plain relative path")]
    Path {
        /// The path as given.
        path: String,
    },
    /// The path exceeds the kernel's limit.
    #[error("initrd path of {found} bytes, expected at most {limit}", limit = PATH_MAX - 1)]
    PathLength {
        /// Length found.
        found: usize,
    },
    /// Two entries share a path.
    #[error("initrd path {path:?} occurs twice")]
    Twice {
        /// The path.
        path: String,
    },
    /// An entry comes before its directory, so the kernel would drop the entry silently.
    #[error("initrd path {path:?} comes before its directory {parent:?}")]
    Orphan {
        /// The path.
        path: String,
        /// The missing directory.
        parent: String,
    },
    /// The mode has bits other than permissions.
    #[error("mode {found:#o} of initrd path {path:?}, expected at most 0o7777")]
    Mode {
        /// The path.
        path: String,
        /// The mode found.
        found: u16,
    },
    /// A file is too large for the format.
    #[error("initrd file {path:?} has {found} bytes, expected at most 4294967295")]
    Size {
        /// The path.
        path: String,
        /// The size found.
        found: usize,
    },
    /// A link's target is empty or has a NUL.
    #[error("initrd link {path:?} has the unusable target {target:?}")]
    Target {
        /// The path.
        path: String,
        /// The target.
        target: String,
    },
    /// The archive ends inside an entry.
    #[error("cpio archive ends at {length}, expected {needed} bytes at offset {offset}")]
    Truncated {
        /// Where the read began.
        offset: usize,
        /// How many bytes were needed there.
        needed: usize,
        /// The archive's length.
        length: usize,
    },
    /// A field has a value that the format does not allow.
    #[error("cpio {field} at offset {offset}: expected {expected}, found {found}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// Its offset in the archive.
        offset: usize,
        /// What is allowed.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// Writing failed.
    #[error("cannot write the initrd")]
    Io(#[from] io::Error),
}

/// Writes an archive of `entries` in their order and gives its length in bytes.
///
/// # Errors
///
/// A path that the kernel would refuse, drop or place elsewhere; a mode or size outside the format's range; a
/// failed write.
pub fn write(entries: &[Entry<'_>], out: &mut impl Write) -> Result<u64, Error> {
    let mut directories = BTreeSet::new();
    let mut paths = BTreeSet::new();
    let mut written = 0;
    let mut inode = 0;
    for entry in entries {
        check(entry)?;
        if let Some((parent, _)) = entry.path.rsplit_once('/')
            && !directories.contains(parent)
        {
            return Err(Error::Orphan { path: entry.path.into(), parent: parent.into() });
        }
        if !paths.insert(entry.path) {
            return Err(Error::Twice { path: entry.path.into() });
        }
        if entry.content == Content::Directory {
            directories.insert(entry.path);
        }
        inode += 1;
        let links = if entry.content == Content::Directory { 2 } else { 1 };
        let mode = entry.content.type_bits() | u32::from(entry.mode);
        written += write_entry(out, inode, mode, links, entry)?;
    }
    let trailer = Entry { path: TRAILER, mode: 0, content: Content::File(&[]) };
    written += write_entry(out, 0, 0, 1, &trailer)?;
    Ok(written)
}

fn check(entry: &Entry<'_>) -> Result<(), Error> {
    let path = || entry.path.to_owned();
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if entry.path.contains('\0') || entry.path == TRAILER || !entry.path.split('/').all(plain) {
        return Err(Error::Path { path: path() });
    }
    if entry.path.len() >= PATH_MAX {
        return Err(Error::PathLength { found: entry.path.len() });
    }
    if entry.mode > PERMISSIONS {
        return Err(Error::Mode { path: path(), found: entry.mode });
    }
    let bytes = entry.content.bytes();
    if u32::try_from(bytes.len()).is_err() {
        return Err(Error::Size { path: path(), found: bytes.len() });
    }
    if let Content::Symlink(target) = entry.content
        && (target.is_empty() || target.len() >= PATH_MAX || target.contains('\0'))
    {
        return Err(Error::Target { path: path(), target: target.into() });
    }
    Ok(())
}

fn write_entry(
    out: &mut impl Write,
    inode: u32,
    mode: u32,
    links: u32,
    entry: &Entry<'_>,
) -> Result<u64, Error> {
    let content = entry.content.bytes();
    let (major, minor) = entry.content.device();
    let name_size = entry.path.len() + 1;
    let content_size = content.len();
    write!(
        out,
        "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{mtime:08x}{content_size:08x}\
         {device:08x}{device:08x}{major:08x}{minor:08x}{name_size:08x}{check:08x}",
        uid = 0,
        gid = 0,
        mtime = 0,
        device = 0,
        check = 0,
    )?;
    out.write_all(entry.path.as_bytes())?;
    let name_end = HEADER_LENGTH + name_size;
    out.write_all(zeros(1 + padding(name_end)))?;
    out.write_all(content)?;
    out.write_all(zeros(padding(content_size)))?;
    Ok((name_end + padding(name_end) + content_size + padding(content_size)) as u64)
}

/// The number of bytes from `offset` to the next multiple of 4.
fn padding(offset: usize) -> usize {
    offset.wrapping_neg() % 4
}

/// At most four zero bytes.
fn zeros(count: usize) -> &'static [u8] {
    [0; 4].get(..count).unwrap_or(&[0; 4])
}

/// Reads the entries of an archive and checks that only zeros follow its trailer.
///
/// It reads back the output of [`write`]. It may refuse another tool's archive, for instance for owners other
/// than root.
///
/// # Errors
///
/// A truncated archive, or any field that [`write`] would not have written.
pub fn read(archive: &[u8]) -> Result<Vec<Entry<'_>>, Error> {
    let mut reader = Reader { archive, offset: 0 };
    let mut entries = Vec::new();
    loop {
        let start = reader.offset;
        let magic = reader.take(MAGIC.len())?;
        if magic != MAGIC {
            let found = magic.escape_ascii().to_string();
            return Err(Error::Field { field: "magic", offset: start, expected: "070701", found });
        }
        let inode = reader.number("inode")?;
        let mode_offset = reader.offset;
        let mode = reader.number("mode")?;
        for field in ["uid", "gid"] {
            reader.expect(field, "0", |value| value == 0)?;
        }
        let links = reader.number("links")?;
        reader.expect("mtime", "0", |value| value == 0)?;
        let size = reader.number("size")?;
        for field in ["devmajor", "devminor"] {
            reader.expect(field, "0", |value| value == 0)?;
        }
        let major = reader.number("rdevmajor")?;
        let minor = reader.number("rdevminor")?;
        let name_size =
            reader.expect("namesize", "2 to 4096", |value| (2..=PATH_MAX as u32).contains(&value))?;
        reader.expect("check", "0", |value| value == 0)?;
        let path = reader.name(name_size as usize)?;
        let content_offset = reader.offset;
        let content = reader.take(size as usize)?;
        reader.pad()?;
        if path == TRAILER {
            return reader.rest_is_zero().map(|()| entries);
        }
        let expect = |field, offset, expected, found: u32, good: bool| {
            if good {
                Ok(())
            } else {
                Err(Error::Field { field, offset, expected, found: found.to_string() })
            }
        };
        expect("inode", start + 6, "entries counted from 1", inode, inode as usize == entries.len() + 1)?;
        let mode_bits = (mode & u32::from(PERMISSIONS)) as u16;
        let content = match mode & TYPE_MASK {
            0o040_000 => Content::Directory,
            0o100_000 => Content::File(content),
            0o120_000 => Content::Symlink(text("link target", content_offset, content)?),
            0o020_000 => Content::CharacterDevice { major, minor },
            0o060_000 => Content::BlockDevice { major, minor },
            _ => {
                let found = format!("{mode:#o}");
                let expected = "directory, file, link or device";
                return Err(Error::Field { field: "mode", offset: mode_offset, expected, found });
            }
        };
        expect("mode", mode_offset, "16 bits", mode, mode <= 0o177_777)?;
        expect("size", start + 54, "0 for this type", size, size as usize == content.bytes().len())?;
        let nodes = if content == Content::Directory { 2 } else { 1 };
        expect("links", start + 38, "2 for a directory, else 1", links, links == nodes)?;
        expect("rdevmajor", start + 78, "0 for this type", major, (major, minor) == content.device())?;
        entries.push(Entry { path, mode: mode_bits, content });
    }
}

struct Reader<'a> {
    archive: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let end = self.offset.checked_add(count);
        let Some(bytes) = end.and_then(|end| self.archive.get(self.offset..end)) else {
            let (offset, length) = (self.offset, self.archive.len());
            return Err(Error::Truncated { offset, needed: count, length });
        };
        self.offset += count;
        Ok(bytes)
    }

    fn number(&mut self, field: &'static str) -> Result<u32, Error> {
        let offset = self.offset;
        let digits = self.take(8)?;
        // `from_str_radix` would accept a sign and uppercase digits.
        let hexadecimal = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let value = std::str::from_utf8(digits).ok().and_then(|text| u32::from_str_radix(text, 16).ok());
        value.filter(|_| hexadecimal).ok_or_else(|| {
            let found = digits.escape_ascii().to_string();
            Error::Field { field, offset, expected: "8 lower-case hexadecimal digits", found }
        })
    }

    fn expect(
        &mut self,
        field: &'static str,
        expected: &'static str,
        good: impl Fn(u32) -> bool,
    ) -> Result<u32, Error> {
        let offset = self.offset;
        let value = self.number(field)?;
        if good(value) {
            Ok(value)
        } else {
            Err(Error::Field { field, offset, expected, found: value.to_string() })
        }
    }

    fn name(&mut self, size: usize) -> Result<&'a str, Error> {
        let offset = self.offset;
        let bytes = self.take(size)?;
        let name = match bytes.split_last() {
            Some((0, name)) if !name.contains(&0) => name,
            _ => {
                let found = bytes.escape_ascii().to_string();
                return Err(Error::Field { field: "name", offset, expected: "one NUL, at its end", found });
            }
        };
        self.pad()?;
        text("name", offset, name)
    }

    fn pad(&mut self) -> Result<(), Error> {
        let offset = self.offset;
        let bytes = self.take(padding(offset))?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let found = bytes.escape_ascii().to_string();
        Err(Error::Field { field: "padding", offset, expected: "zeros", found })
    }

    fn rest_is_zero(&self) -> Result<(), Error> {
        let rest = self.archive.get(self.offset..).unwrap_or_default();
        match rest.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(at) => Err(Error::Field {
                field: "end",
                offset: self.offset + at,
                expected: "zeros after the trailer",
                found: "other bytes".into(),
            }),
        }
    }
}

fn text<'a>(field: &'static str, offset: usize, bytes: &'a [u8]) -> Result<&'a str, Error> {
    std::str::from_utf8(bytes).map_err(|_| {
        let found = bytes.escape_ascii().to_string();
        Error::Field { field, offset, expected: "UTF-8", found }
    })
}

/// Compresses an archive into one zstd frame that the kernel's decompressor accepts.
///
/// With one thread and the pinned libzstd, the frame depends only on archive and level. It states its content
/// size and carries a checksum, which the kernel verifies.
///
/// # Errors
///
/// An error from libzstd. Levels outside its range are clamped.
pub fn compress(archive: &[u8], level: i32) -> Result<Vec<u8>, Error> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    compressor.include_checksum(true)?;
    Ok(compressor.compress(archive)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn initrd() -> Vec<Entry<'static>> {
        vec![
            Entry { path: "dev", mode: 0o755, content: Content::Directory },
            Entry {
                path: "dev/console",
                mode: 0o600,
                content: Content::CharacterDevice { major: 5, minor: 1 },
            },
            Entry { path: "dev/vda", mode: 0o660, content: Content::BlockDevice { major: 254, minor: 0 } },
            Entry { path: "init", mode: 0o755, content: Content::File(b"#!\n") },
            Entry { path: "lib", mode: 0o777, content: Content::Symlink("usr/lib") },
            Entry { path: "empty", mode: 0o444, content: Content::File(b"") },
        ]
    }

    fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        let length = write(entries, &mut out).unwrap();
        assert_eq!(length, out.len() as u64);
        out
    }

    fn refusal(entries: &[Entry<'_>]) -> Error {
        write(entries, &mut Vec::new()).unwrap_err()
    }

    fn file(path: &str) -> Entry<'_> {
        Entry { path, mode: 0o644, content: Content::File(b"x") }
    }

    #[test]
    fn an_archive_reads_back_as_it_was_written() {
        let bytes = archive(&initrd());
        assert_eq!(read(&bytes).unwrap(), initrd());
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn an_empty_list_is_a_lone_trailer() {
        let bytes = archive(&[]);
        assert_eq!(bytes.len(), 124);
        assert!(bytes.starts_with(b"0707010000000000000000"));
        assert!(read(&bytes).unwrap().is_empty());
    }

    #[test]
    fn the_first_header_is_the_one_of_the_specification() {
        let bytes = archive(&[Entry { path: "a", mode: 0o755, content: Content::Directory }]);
        let expected = b"070701000000010000\
            41ed000000000000000000000002000000000000000000000000\
            000000000000000000000000000000020000000\
            0a\0";
        assert_eq!(
            bytes.get(..expected.len()).unwrap().escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }

    #[test]
    fn the_kernel_gets_one_checked_frame_that_states_its_size() {
        let bytes = archive(&initrd());
        let frame = compress(&bytes, 19).unwrap();
        assert_eq!(frame, compress(&bytes, 19).unwrap());
        assert!(frame.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
        assert_ne!(frame[4] & 0x04, 0, "the descriptor announces the checksum");
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&frame).unwrap(), Some(bytes.len() as u64));
        assert_eq!(zstd::zstd_safe::find_frame_compressed_size(&frame).unwrap(), frame.len());
        assert_eq!(zstd::bulk::decompress(&frame, bytes.len()).unwrap(), bytes);
    }

    #[test]
    fn paths_that_leave_the_archive_are_refused() {
        for path in ["", "/init", "a//b", "./init", "../init", "a/", "a\0b", "TRAILER!!!"] {
            assert!(matches!(refusal(&[file(path)]), Error::Path { .. }), "{path:?}");
        }
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_is_refused() {
        assert!(write(&[file(&"a".repeat(PATH_MAX - 1))], &mut io::sink()).is_ok());
        assert!(matches!(refusal(&[file(&"a".repeat(PATH_MAX))]), Error::PathLength { found: PATH_MAX }));
    }

    #[test]
    fn a_path_given_twice_is_refused() {
        assert!(matches!(refusal(&[file("a"), file("a")]), Error::Twice { .. }));
    }

    #[test]
    fn an_entry_before_its_directory_is_refused() {
        let parent_is_a_file = refusal(&[file("a"), file("a/b")]);
        assert_eq!(parent_is_a_file.to_string(), r#"initrd path "a/b" comes before its directory "a""#);
    }

    #[test]
    fn a_mode_with_type_bits_is_refused() {
        let entry = Entry { mode: 0o10644, ..file("a") };
        assert!(matches!(refusal(&[entry]), Error::Mode { found: 0o10644, .. }));
    }

    #[test]
    fn a_link_without_a_target_is_refused() {
        for target in ["", "a\0b"] {
            let entry = Entry { content: Content::Symlink(target), ..file("a") };
            assert!(matches!(refusal(&[entry]), Error::Target { .. }));
        }
    }

    #[test]
    fn a_failed_write_is_reported() {
        assert!(matches!(write(&initrd(), &mut [0; 100].as_mut_slice()), Err(Error::Io(_))));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = archive(&initrd());
        for length in 0..bytes.len() {
            assert!(matches!(read(&bytes[..length]), Err(Error::Truncated { .. })), "{length}");
        }
    }

    #[test]
    fn every_field_that_the_writer_would_not_write_is_refused() {
        let bytes = archive(&initrd());
        // Offsets in the first header ("dev"), and the bytes written there.
        let wrong: [(usize, &str, &str); 14] = [
            (0, "070702", "magic"),
            (6, "00000002", "inode"),
            (6, "+0000001", "inode"),
            (14, "0000c1ed", "mode"),
            (14, "000141ed", "mode"),
            (14, "000081ED", "mode"),
            (22, "00000001", "uid"),
            (38, "00000001", "links"),
            (46, "00000001", "mtime"),
            (62, "00000001", "devmajor"),
            (78, "00000001", "rdevmajor"),
            (94, "00000001", "namesize"),
            (94, "00001001", "namesize"),
            (102, "00000001", "check"),
        ];
        for (offset, text, name) in wrong {
            let mut changed = bytes.clone();
            changed[offset..offset + text.len()].copy_from_slice(text.as_bytes());
            match read(&changed) {
                Err(Error::Field { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_directory_with_content_is_refused() {
        let mut bytes = archive(&[Entry { content: Content::File(b"abcd"), ..file("a") }]);
        bytes[14..22].copy_from_slice(b"000041ed");
        assert!(matches!(read(&bytes), Err(Error::Field { field: "size", .. })));
    }

    #[test]
    fn names_and_padding_of_other_writers_are_refused() {
        let bytes = archive(&[file("ab")]);
        for (offset, byte, name) in
            [(111, 0, "name"), (112, b'c', "name"), (113, 1, "magic"), (117, 1, "padding")]
        {
            let mut changed = bytes.clone();
            changed[offset] = byte;
            match read(&changed) {
                Err(Error::Field { field, .. }) => assert!(field == name || offset == 113, "{field}"),
                Ok(_) => assert_eq!(offset, 113, "not a padding byte"),
                other => panic!("{other:?}"),
            }
        }
        let mut not_text = bytes.clone();
        not_text[110] = 0xff;
        assert!(matches!(read(&not_text), Err(Error::Field { field: "name", .. })));
        let mut longer = bytes;
        longer.extend([0, 0, 1]);
        assert!(matches!(read(&longer), Err(Error::Field { field: "end", .. })));
    }

    proptest! {
        #[test]
        fn any_files_read_back(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let names: Vec<String> = (0..contents.len()).map(|index| format!("file-{index:0>width$}", width = index + 1)).collect();
            let entries: Vec<Entry<'_>> = names
                .iter()
                .zip(&contents)
                .map(|(path, content)| Entry { path, mode: 0o600, content: Content::File(content) })
                .collect();
            let bytes = archive(&entries);
            prop_assert_eq!(read(&bytes).unwrap(), entries);
        }

        #[test]
        fn a_changed_byte_is_refused_or_means_another_list(at in 0usize..700, byte: u8) {
            let good = archive(&initrd());
            let trailer = good.len() - 124;
            let at = at % trailer;
            let mut bytes = good.clone();
            bytes[at] = byte;
            if let Ok(entries) = read(&bytes) {
                prop_assert_eq!(entries == initrd(), bytes == good);
            }
        }
    }
}
