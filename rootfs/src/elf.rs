//! Yields what an ELF file needs from the rest of the image, from its headers and tables.
//!
//! # Shape
//! ```text
//! file header -> program headers -> PT_INTERP, PT_DYNAMIC (names), PT_NOTE (.note.dlopen), PT_GNU_PROPERTY
//! file header -> section headers -> the sections of a relocatable file, by name    (Sections)
//! ```
//! 64-bit, little-endian. [`Elf`] reads ranges of a [`Content`], so that only a few clusters of a large compressed file
//! are decompressed; [`Sections`] needs all bytes.
//!
//! # Source
//! System V gABI chapters 4 and 5; `.note.dlopen`: <https://systemd.io/ELF_DLOPEN_METADATA/>; the ISA level that
//! ldconfig records: x86-64 psABI, `GNU_PROPERTY_X86_ISA_1_NEEDED`.
//!
//! # Not here
//! Looking libraries up: [`crate::fixup::lint`], [`crate::fixup::ld_cache`].

use std::borrow::Cow;

use serde::Deserialize;

use crate::content::{self, CLUSTER, Content};

/// `EM_X86_64`.
pub const X86_64: u16 = 62;

/// `ET_REL`: a relocatable file, such as a kernel module.
pub const RELOCATABLE: u16 = 1;

/// `ET_DYN`: a shared object, or a position-independent executable.
pub const SHARED: u16 = 3;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const SECTION_HEADER: usize = 64;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const PT_GNU_PROPERTY: u32 = 0x6474_e553;

const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_SONAME: u64 = 14;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

const NOTE_DLOPEN: u32 = 0x407c_0c0a;
const NT_GNU_PROPERTY_TYPE_0: u32 = 5;
const X86_ISA_1_NEEDED: u32 = 0xc000_8002;

/// The longest table that is read; the largest known string table has a few MiB.
const MAX_TABLE: u64 = 64 << 20;

/// Why an ELF file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something lies outside the file.
    #[error("{what} at offset {offset} needs {expected} bytes, the file has {found} there")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it begins in the file.
        offset: u64,
        /// Its length, in bytes.
        expected: u64,
        /// Bytes from there to the end of the file.
        found: u64,
    },
    /// An invalid number.
    #[error("{what} at offset {offset} is {found:#x}, expected {expected}")]
    Value {
        /// Which number.
        what: &'static str,
        /// Where it is in the file.
        offset: u64,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: u64,
    },
    /// A string that does not end within its table, or is not UTF-8.
    #[error("{what} at offset {offset} of its table is not a NUL-terminated UTF-8 string")]
    Text {
        /// Which string.
        what: &'static str,
        /// Where it begins in its table.
        offset: u64,
    },
    /// A note that is not valid JSON of its specification.
    #[error("invalid JSON in the dlopen note at offset {offset}: {reason}")]
    Note {
        /// Where it begins in the notes of its segment.
        offset: u64,
        /// The JSON parser's message.
        reason: String,
    },
    /// The content cannot be read.
    #[error("cannot read the file")]
    Content(#[from] content::Error),
}

/// How important a library is that is opened at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Required for the program to work.
    Required,
    /// Wanted in most installations.
    Recommended,
    /// Wanted in some installations.
    Suggested,
}

/// One library that a file declares to open with `dlopen`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Dlopen {
    /// The feature that it is for, such as `tpm`.
    #[serde(default)]
    pub feature: String,
    /// A description of that feature.
    #[serde(default)]
    pub description: String,
    /// How important it is; recommended if the file does not say.
    #[serde(default = "recommended")]
    pub priority: Priority,
    /// Names to try, in order.
    pub soname: Vec<String>,
}

fn recommended() -> Priority {
    Priority::Recommended
}

/// The names in the dynamic section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// `DT_SONAME`.
    pub soname: Option<String>,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<String>,
    /// `DT_RPATH`, split at colons.
    pub rpath: Vec<String>,
    /// `DT_RUNPATH`, split at colons.
    pub runpath: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    length: u64,
    align: u64,
}

/// An ELF file with its header and program headers parsed.
#[derive(Debug)]
pub struct Elf<'a> {
    content: &'a Content,
    head: Cow<'a, [u8]>,
    /// `e_type`.
    pub kind: u16,
    /// `e_machine`.
    pub machine: u16,
    segments: Vec<Segment>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|raw| u16::from_le_bytes(*raw))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|raw| u32::from_le_bytes(*raw))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|raw| u64::from_le_bytes(*raw))
}

/// The string at `offset` of a string table.
fn text<'t>(table: &'t [u8], offset: u64, what: &'static str) -> Result<&'t str, Error> {
    let wrong = Error::Text { what, offset };
    let rest = usize::try_from(offset).ok().and_then(|start| table.get(start..)).ok_or(wrong.clone())?;
    let end = rest.iter().position(|&byte| byte == 0).ok_or(wrong.clone())?;
    rest.get(..end).and_then(|text| std::str::from_utf8(text).ok()).ok_or(wrong)
}

/// Whether a file begins with the ELF magic number.
pub fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

/// Checks what both readers require: magic number, class, byte order, version.
fn check_header(head: &[u8], len: u64) -> Result<(), Error> {
    let value = |what, offset, expected, found| Err(Error::Value { what, offset, expected, found });
    if !is_elf(head) {
        let found = head.first_chunk::<4>().map_or(0, |magic| u32::from_be_bytes(*magic));
        return value("magic", 0, "0x7f454c46", found.into());
    }
    if head.len() < HEADER {
        return Err(Error::Truncated { what: "file header", offset: 0, expected: HEADER as u64, found: len });
    }
    for (what, offset, expected, want) in
        [("class", 4, "2 (64 bits)", 2), ("byte order", 5, "1 (little-endian)", 1), ("version", 6, "1", 1)]
    {
        let found = head.get(offset).copied().unwrap_or(0);
        if found != want {
            return value(what, offset as u64, expected, found.into());
        }
    }
    Ok(())
}

impl<'a> Elf<'a> {
    /// Reads the header and the program headers of `content`.
    ///
    /// # Errors
    /// [`Error`] if it is not a 64-bit little-endian ELF file, or its tables lie outside it.
    pub fn open(content: &'a Content) -> Result<Self, Error> {
        let head = content.read_range(0..CLUSTER as u64)?;
        check_header(&head, content.len())?;
        let half = |at| u16_at(&head, at).unwrap_or(0);
        let (kind, machine, size, count) = (half(16), half(18), half(54), half(56));
        let offset = u64_at(&head, 32).unwrap_or(0);
        if count > 0 && usize::from(size) != PROGRAM_HEADER {
            let (what, expected) = ("size of a program header", "0x38");
            return Err(Error::Value { what, offset: 54, expected, found: size.into() });
        }
        let mut elf = Elf { content, head, kind, machine, segments: Vec::new() };
        let table =
            elf.bytes("program headers", offset, u64::from(count) * PROGRAM_HEADER as u64)?.into_owned();
        elf.segments = table
            .chunks_exact(PROGRAM_HEADER)
            .map(|raw| Segment {
                kind: u32_at(raw, 0).unwrap_or(0),
                offset: u64_at(raw, 8).unwrap_or(0),
                address: u64_at(raw, 16).unwrap_or(0),
                length: u64_at(raw, 32).unwrap_or(0),
                align: u64_at(raw, 48).unwrap_or(0),
            })
            .collect();
        Ok(elf)
    }

    fn bytes(&self, what: &'static str, offset: u64, len: u64) -> Result<Cow<'_, [u8]>, Error> {
        let found = self.content.len().saturating_sub(offset);
        if len > found || len > MAX_TABLE {
            return Err(Error::Truncated { what, offset, expected: len, found });
        }
        let end = offset.saturating_add(len);
        match self.head.get(offset as usize..end as usize) {
            Some(bytes) => Ok(Cow::Borrowed(bytes)),
            None => Ok(self.content.read_range(offset..end)?),
        }
    }

    fn segments(&self, kind: u32) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(move |segment| segment.kind == kind)
    }

    /// The path of the program interpreter: `PT_INTERP`.
    ///
    /// # Errors
    /// [`Error::Truncated`] or [`Error::Text`].
    pub fn interpreter(&self) -> Result<Option<String>, Error> {
        let Some(segment) = self.segments(PT_INTERP).next() else { return Ok(None) };
        let bytes = self.bytes("interpreter", segment.offset, segment.length)?;
        Ok(Some(text(&bytes, 0, "interpreter")?.to_owned()))
    }

    /// The names in the dynamic section; `None` if there is no dynamic section or it has no string table.
    ///
    /// # Errors
    /// [`Error::Truncated`] or [`Error::Text`].
    pub fn dynamic(&self) -> Result<Option<Dynamic>, Error> {
        let Some(segment) = self.segments(PT_DYNAMIC).find(|segment| segment.length > 0) else {
            return Ok(None);
        };
        let table = self.bytes("dynamic section", segment.offset, segment.length)?;
        let entries: Vec<(u64, u64)> = table
            .chunks_exact(16)
            .filter_map(|raw| Some((u64_at(raw, 0)?, u64_at(raw, 8)?)))
            .take_while(|(tag, _)| *tag != DT_NULL)
            .collect();
        let value = |wanted| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
        let Some(address) = value(DT_STRTAB) else { return Ok(None) };
        let load = self
            .segments(PT_LOAD)
            .find(|load| address.checked_sub(load.address).is_some_and(|into| into < load.length));
        // As in ldconfig, an address outside all segments is a file offset.
        let offset = load.map_or(address, |load| (address - load.address).saturating_add(load.offset));
        let rest = self.content.len().saturating_sub(offset);
        let strings = self.bytes("string table", offset, value(DT_STRSZ).unwrap_or(rest))?;
        let mut dynamic = Dynamic::default();
        let paths = |value| -> Result<Vec<String>, Error> {
            let list = text(&strings, value, "search path")?;
            Ok(list.split(':').filter(|part| !part.is_empty()).map(str::to_owned).collect())
        };
        for &(tag, value) in &entries {
            match tag {
                DT_NEEDED => dynamic.needed.push(text(&strings, value, "needed library")?.to_owned()),
                DT_SONAME if dynamic.soname.is_none() => {
                    dynamic.soname = Some(text(&strings, value, "soname")?.to_owned());
                }
                DT_RPATH => dynamic.rpath = paths(value)?,
                DT_RUNPATH => dynamic.runpath = paths(value)?,
                _ => {}
            }
        }
        Ok(Some(dynamic))
    }

    /// The libraries that the file declares to open with `dlopen`.
    ///
    /// # Errors
    /// [`Error::Truncated`], or [`Error::Note`] for a note that does not follow its specification.
    pub fn dlopen(&self) -> Result<Vec<Dlopen>, Error> {
        let mut list = Vec::new();
        for segment in self.segments(PT_NOTE) {
            let notes = self.bytes("notes", segment.offset, segment.length)?;
            for note in Notes::new(&notes, if segment.align == 8 { 8 } else { 4 }) {
                if note.kind != NOTE_DLOPEN || note.owner != b"FDO\0" {
                    continue;
                }
                let end = note.body.iter().position(|&byte| byte == 0).unwrap_or(note.body.len());
                let json = note.body.get(..end).unwrap_or(&[]);
                let entries: Vec<Dlopen> = serde_json::from_slice(json)
                    .map_err(|error| Error::Note { offset: note.offset as u64, reason: error.to_string() })?;
                list.extend(entries);
            }
        }
        Ok(list)
    }

    /// The x86-64 ISA level that the file needs, as ldconfig records it: the highest bit set in
    /// `GNU_PROPERTY_X86_ISA_1_NEEDED`, or 0 without that property.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn isa_level(&self) -> Result<u32, Error> {
        for segment in self.segments(PT_GNU_PROPERTY).filter(|segment| segment.align == 8) {
            let notes = self.bytes("properties", segment.offset, segment.length)?;
            let Some(note) = Notes::new(&notes, 8)
                .find(|note| note.kind == NT_GNU_PROPERTY_TYPE_0 && note.owner == b"GNU\0")
            else {
                continue;
            };
            let mut rest = note.body;
            while let (Some(kind), Some(len)) = (u32_at(rest, 0), u32_at(rest, 4)) {
                if kind > X86_ISA_1_NEEDED {
                    break;
                }
                if kind == X86_ISA_1_NEEDED {
                    let needed = if len == 4 { u32_at(rest, 8).unwrap_or(0) } else { 0 };
                    return Ok(needed.checked_ilog2().unwrap_or(0));
                }
                rest = rest.get(8 + (len as usize).next_multiple_of(8)..).unwrap_or(&[]);
            }
        }
        Ok(0)
    }
}

struct Note<'n> {
    offset: usize,
    kind: u32,
    owner: &'n [u8],
    body: &'n [u8],
}

/// The notes of a segment, up to the first that does not fit.
struct Notes<'n> {
    bytes: &'n [u8],
    at: usize,
    align: usize,
}

impl<'n> Notes<'n> {
    fn new(bytes: &'n [u8], align: usize) -> Self {
        Notes { bytes, at: 0, align }
    }
}

impl<'n> Iterator for Notes<'n> {
    type Item = Note<'n>;

    fn next(&mut self) -> Option<Note<'n>> {
        let offset = self.at;
        let owner_len = u32_at(self.bytes, offset)? as usize;
        let body_len = u32_at(self.bytes, offset + 4)? as usize;
        let kind = u32_at(self.bytes, offset + 8)?;
        let owner = self.bytes.get(offset + 12..)?.get(..owner_len)?;
        let start = (offset + 12 + owner_len).next_multiple_of(self.align);
        let body = self.bytes.get(start..)?.get(..body_len)?;
        self.at = (start + body_len).next_multiple_of(self.align);
        Some(Note { offset, kind, owner, body })
    }
}

/// The sections of a file, by name.
#[derive(Debug)]
pub struct Sections<'a> {
    list: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Sections<'a> {
    /// Reads the section headers of `bytes`. Skips sections whose bytes or name lie outside the file, as libkmod does.
    ///
    /// # Errors
    /// [`Error`] if it is not a 64-bit little-endian ELF file, or has no section table.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        check_header(bytes, bytes.len() as u64)?;
        let offset = u64_at(bytes, 40).unwrap_or(0);
        let half = |at| u16_at(bytes, at).unwrap_or(0);
        let (size, count, names) = (half(58), half(60), half(62));
        if usize::from(size) != SECTION_HEADER {
            let (what, expected) = ("size of a section header", "0x40");
            return Err(Error::Value { what, offset: 58, expected, found: size.into() });
        }
        let expected = u64::from(count) * SECTION_HEADER as u64;
        let table = range(bytes, offset, expected).ok_or(Error::Truncated {
            what: "section headers",
            offset,
            expected,
            found: (bytes.len() as u64).saturating_sub(offset),
        })?;
        let headers: Vec<(u32, Option<&[u8]>)> = table
            .chunks_exact(SECTION_HEADER)
            .map(|raw| {
                let place = u64_at(raw, 24).zip(u64_at(raw, 32));
                let body = place.and_then(|(offset, len)| range(bytes, offset, len));
                (u32_at(raw, 0).unwrap_or(0), body)
            })
            .collect();
        let Some(&(_, Some(names))) = headers.get(usize::from(names)) else {
            let (what, expected) = ("index of the section names", "a section inside the file");
            return Err(Error::Value { what, offset: 62, expected, found: names.into() });
        };
        let list = headers
            .iter()
            .skip(1)
            .filter_map(|&(name, body)| Some((text(names, name.into(), "section name").ok()?, body?)))
            .collect();
        Ok(Sections { list })
    }

    /// The bytes of the first section of this name.
    pub fn named(&self, name: &str) -> Option<&'a [u8]> {
        self.list.iter().find(|(found, _)| *found == name).map(|(_, bytes)| *bytes)
    }
}

fn range(bytes: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..)?.get(..usize::try_from(len).ok()?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A minimal shared object with these names, notes and interpreter.
    pub(crate) fn shared_object(
        soname: Option<&str>,
        needed: &[&str],
        runpath: Option<&str>,
        interpreter: Option<&str>,
        dlopen: &[&str],
    ) -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut add = |text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.bytes().chain([0]));
            at
        };
        let mut dynamic: Vec<(u64, u64)> = needed.iter().map(|name| (DT_NEEDED, add(name))).collect();
        dynamic.extend(soname.map(|name| (DT_SONAME, add(name))));
        dynamic.extend(runpath.map(|path| (DT_RUNPATH, add(path))));
        let mut notes = Vec::new();
        for json in dlopen {
            notes.extend(4u32.to_le_bytes());
            notes.extend((json.len() as u32 + 1).to_le_bytes());
            notes.extend(NOTE_DLOPEN.to_le_bytes());
            notes.extend(b"FDO\0");
            notes.extend(json.bytes().chain([0]));
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        let interpreter: Vec<u8> = interpreter.map_or(vec![], |path| path.bytes().chain([0]).collect());
        let base = 64 + 5 * 56;
        let at_strings = base as u64;
        let at_notes = at_strings + strings.len() as u64;
        let at_interpreter = at_notes + notes.len() as u64;
        let at_dynamic = at_interpreter + interpreter.len() as u64;
        dynamic.extend([(DT_STRTAB, at_strings), (DT_STRSZ, strings.len() as u64), (DT_NULL, 0)]);
        let table: Vec<u8> = dynamic
            .iter()
            .flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat())
            .collect();
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend(SHARED.to_le_bytes());
        file.extend(X86_64.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(0u64.to_le_bytes());
        file.extend(64u64.to_le_bytes());
        file.extend([0; 12]);
        for half in [64u16, 56, 5, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let total = at_dynamic + table.len() as u64;
        let empty_is_nothing = |kind, len| if len == 0 { 0 } else { kind };
        for (kind, offset, len) in [
            (PT_LOAD, 0, total),
            (PT_DYNAMIC, at_dynamic, table.len() as u64),
            (empty_is_nothing(PT_INTERP, interpreter.len()), at_interpreter, interpreter.len() as u64),
            (empty_is_nothing(PT_NOTE, notes.len()), at_notes, notes.len() as u64),
            (0, 0, 0),
        ] {
            file.extend(u32::to_le_bytes(kind));
            file.extend([0; 4]);
            for word in [offset, offset, 0, len, len, 4] {
                file.extend(word.to_le_bytes());
            }
        }
        for part in [strings, notes, interpreter, table] {
            file.extend(part);
        }
        file
    }

    const NOTE: &str =
        r#"[{"feature":"xz","description":"d","priority":"suggested","soname":["liblzma.so.5"]}]"#;

    #[test]
    fn names_interpreter_and_notes_are_read() {
        let file = shared_object(
            Some("liba.so.1"),
            &["libb.so.2", "libc.so.6"],
            Some("$ORIGIN/../x:/opt"),
            Some("/lib64/ld-linux-x86-64.so.2"),
            &[NOTE],
        );
        let content = Content::raw(file);
        let elf = Elf::open(&content).unwrap();
        assert_eq!((elf.kind, elf.machine), (SHARED, X86_64));
        assert_eq!(elf.interpreter().unwrap().as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        let dynamic = elf.dynamic().unwrap().unwrap();
        assert_eq!(dynamic.soname.as_deref(), Some("liba.so.1"));
        assert_eq!(dynamic.needed, ["libb.so.2", "libc.so.6"]);
        assert_eq!(dynamic.runpath, ["$ORIGIN/../x", "/opt"]);
        let notes = elf.dlopen().unwrap();
        assert_eq!((notes.len(), notes[0].priority), (1, Priority::Suggested));
        assert_eq!(notes[0].soname, ["liblzma.so.5"]);
        assert_eq!(elf.isa_level().unwrap(), 0);
    }

    #[test]
    fn a_file_that_is_not_64_bit_elf_is_refused_with_offset_and_value() {
        let good = shared_object(None, &[], None, None, &[]);
        let refused = |at: usize, byte: u8| {
            let mut file = good.clone();
            file[at] = byte;
            Elf::open(&Content::raw(file)).unwrap_err().to_string()
        };
        assert_eq!(refused(4, 1), "class at offset 4 is 0x1, expected 2 (64 bits)");
        assert_eq!(refused(5, 2), "byte order at offset 5 is 0x2, expected 1 (little-endian)");
        assert_eq!(refused(6, 9), "version at offset 6 is 0x9, expected 1");
        assert_eq!(refused(54, 55), "size of a program header at offset 54 is 0x37, expected 0x38");
        assert!(refused(0, b'!').starts_with("magic at offset 0 is 0x21454c46"));
        let short = Elf::open(&Content::raw(good[..40].to_vec())).unwrap_err();
        assert!(matches!(short, Error::Truncated { what: "file header", found: 40, .. }), "{short}");
        let short = Elf::open(&Content::raw(good[..100].to_vec())).unwrap_err();
        assert!(matches!(short, Error::Truncated { what: "program headers", .. }), "{short}");
    }

    #[test]
    fn a_damaged_dlopen_note_is_refused() {
        let content = Content::raw(shared_object(None, &[], None, None, &["{}"]));
        let error = Elf::open(&content).unwrap().dlopen().unwrap_err();
        assert!(matches!(error, Error::Note { offset: 0, .. }), "{error}");
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_of_a_file_panics() {
        let good = shared_object(Some("a"), &["b"], Some("c"), Some("d"), &[NOTE]);
        let look = |bytes: Vec<u8>| {
            let _ = Sections::read(&bytes);
            let content = Content::raw(bytes);
            if let Ok(elf) = Elf::open(&content) {
                let _ = (elf.interpreter(), elf.dynamic(), elf.dlopen(), elf.isa_level());
            }
        };
        for len in 0..good.len() {
            look(good[..len].to_vec());
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut file = good.clone();
                file[at] = value;
                look(file);
            }
        }
    }

    #[test]
    fn a_file_without_sections_is_refused_as_a_module() {
        let error = Sections::read(&shared_object(None, &[], None, None, &[])).unwrap_err();
        assert!(matches!(error, Error::Value { what: "index of the section names", .. }), "{error}");
    }
}
