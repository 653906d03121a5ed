//! A PE image: its sections, its certificate table, and the bytes that its Authenticode digest covers.
//!
//! # Shape
//!
//! ```text
//! 0             "MZ", at 0x3c the offset of the next line (u32)
//! pe            "PE\0\0", file header (20 bytes), optional header (112 bytes + 8 per data directory)
//! table         40 bytes per section: name, memory size, address, file size, file offset, …, characteristics
//! headers end   the sections' bytes; then the certificate table, if signed
//!
//! digest        the headers except CheckSum and the certificate table's entry, each section's bytes in file order, the
//!               rest of the file except the certificates
//! ```
//!
//! [`Pe::read`] accepts what firmware loads; [`Pe::read_strict`] also checks what a tool relies on that adds sections or a
//! signature.
//!
//! # Source
//!
//! Microsoft *PE Format*; *Windows Authenticode Portable Executable Signature Format*; edk2
//! `SecurityPkg/Library/DxeTpm2MeasureBootLib` and `OvmfPkg/Tcg/TdTcg2Dxe/MeasureBootPeCoff.c`: no zero padding is hashed.
//! The `authenticode` crate selects the hashed bytes. This module reads the headers for it, and refuses an image whose
//! sections share bytes, which no compiler makes. OVMF measures what is computed here.
//!
//! # Not here
//!
//! Writing images; the content of certificates; relocations, imports and whatever else a loader needs.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use authenticode::{PeOffsetError, PeOffsets, PeTrait};
use sha2::digest::Output;

use crate::field;
use crate::preimage::{Piece, Preimage};

/// Size of the signature and the file header in bytes.
const FILE_HEADER: usize = 24;
/// Size of the optional header up to its data directories, in bytes.
const OPTIONAL_HEADER: usize = 112;
/// Size of a row of the section table in bytes.
pub const SECTION_HEADER: usize = 40;
/// Offset of SizeOfInitializedData in the optional header.
pub const SIZE_OF_INITIALIZED_DATA: usize = 8;
/// Offset of SizeOfImage in the optional header.
pub const SIZE_OF_IMAGE: usize = 56;
/// Offset of CheckSum in the optional header.
pub const CHECK_SUM: usize = 64;
/// Offset of DllCharacteristics in the optional header.
pub const DLL_CHARACTERISTICS: usize = 70;
const SECTION_ALIGNMENT: usize = 32;
const FILE_ALIGNMENT: usize = 36;
const SIZE_OF_HEADERS: usize = 60;
const SUBSYSTEM: usize = 68;
const DIRECTORIES: usize = 108;
/// Index of the certificate table among the data directories.
const CERTIFICATE_TABLE: usize = 4;
/// `IMAGE_FILE_MACHINE_AMD64`.
const AMD64: u16 = 0x8664;
/// PE32+.
const MAGIC: u16 = 0x20b;
/// The loader's limit.
const MOST_SECTIONS: u16 = 96;
/// `IMAGE_SUBSYSTEM_EFI_APPLICATION`.
pub const EFI_APPLICATION: u16 = 10;
/// `IMAGE_DLLCHARACTERISTICS_NX_COMPAT`.
pub const NX_COMPAT: u16 = 0x100;

/// Bytes are not a supported PE image, or a section cannot be extracted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file ends inside a structure.
    #[error("PE image of {length} bytes: expected {needed} bytes of {what} at offset {offset:#x}")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Its offset.
        offset: u64,
        /// Its length.
        needed: u64,
        /// The file's length.
        length: usize,
    },
    /// A field has a value that is not allowed.
    #[error("PE image, {field} at offset {offset:#x}: expected {expected}, found {found:#x}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its offset.
        offset: usize,
        /// The allowed values.
        expected: &'static str,
        /// Its value.
        found: u64,
    },
    /// Two sections overlap in the file or in memory, or a section overlaps the headers.
    #[error("PE section {name}: expected to begin at {expected:#x} {space} or later, found {found:#x}")]
    Overlap {
        /// The later section.
        name: Name,
        /// `in the file` or `in memory`.
        space: &'static str,
        /// The end of what precedes it.
        expected: u64,
        /// Where it begins.
        found: u64,
    },
    /// A section is larger in memory than in the file.
    #[error("PE section {name}: expected {expected} bytes in the file, found {found}")]
    NotInFile {
        /// The section.
        name: Name,
        /// Its size in memory.
        expected: u32,
        /// Its size in the file.
        found: u32,
    },
    /// A section that may occur once occurs again.
    #[error("PE section {name} at index {index}: expected it once, found it before")]
    Twice {
        /// The section.
        name: Name,
        /// Index of the second one.
        index: usize,
    },
    /// A section is missing.
    #[error("PE image has no section {name}")]
    Missing {
        /// The section.
        name: String,
    },
}

/// A section's name: up to eight bytes, zero-padded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub [u8; 8]);

impl Name {
    /// Makes a name of 1 to 8 printable ASCII characters; `None` for other text.
    pub fn new(text: &str) -> Option<Self> {
        let mut name = [0; 8];
        name.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Name(name))
    }

    /// Tells whether it is this text.
    pub fn is(&self, text: &str) -> bool {
        let (name, rest) = self.0.split_at(text.len().min(8));
        name == text.as_bytes() && rest.iter().all(|byte| *byte == 0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
        write!(f, "{}", self.0.get(..length).unwrap_or_default().escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A row of the section table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: Name,
    /// Its size in memory in bytes.
    pub memory_size: u32,
    /// Its address in memory, relative to the image base.
    pub address: u32,
    /// Its size in the file in bytes.
    pub file_size: u32,
    /// Its offset in the file.
    pub file_offset: u32,
    /// Its `IMAGE_SCN_*` flags.
    pub characteristics: u32,
}

impl Section {
    fn read(row: &[u8]) -> Section {
        let double = |offset| field::u32(row, offset).unwrap_or_default();
        Section {
            name: Name(field::array(row, 0).unwrap_or_default()),
            memory_size: double(8),
            address: double(12),
            file_size: double(16),
            file_offset: double(20),
            characteristics: double(36),
        }
    }

    /// Returns the end of its memory.
    pub fn memory_end(&self) -> u64 {
        u64::from(self.address).saturating_add(self.memory_size.into())
    }

    /// Returns the end of its bytes in the file.
    pub fn file_end(&self) -> u64 {
        u64::from(self.file_offset).saturating_add(self.file_size.into())
    }
}

/// A PE image with valid headers.
#[derive(Debug, Clone)]
pub struct Pe<'a> {
    bytes: &'a [u8],
    /// Offset of the signature.
    signature: usize,
    /// Offset of the section table.
    table: usize,
    size_of_headers: usize,
    directories: usize,
    /// Range of the certificate table in the file; `None` without that data directory.
    certificates: Option<Range<usize>>,
    sections: Vec<Section>,
}

impl<'a> Pe<'a> {
    /// Reads the headers of an image for x86-64.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let input = Input(bytes);
        let signature = input.signature()?;
        // The headers lie in the file: sums of their offsets do not overflow.
        let optional = signature + FILE_HEADER;
        let count = input.u16(signature + 6);
        let field = "the number of sections";
        demand(field, signature + 6, "at most 96", count, count <= MOST_SECTIONS)?;
        let size = usize::from(input.u16(signature + 20));
        let directories = input.u32(optional + DIRECTORIES);
        let room = size.checked_sub(OPTIONAL_HEADER).map(|rest| rest / 8);
        let (field, expected) = ("the number of data directories", "those that the header has room for");
        let fit = room.is_some_and(|room| directories as usize <= room);
        demand(field, optional + DIRECTORIES, expected, directories, fit)?;
        let table = optional + size;
        let table_size = SECTION_HEADER * usize::from(count);
        let rows = input.slice("the section table", table, table_size)?;
        let size_of_headers = input.u32(optional + SIZE_OF_HEADERS);
        let expected = "the section table and at most the file";
        let fit = (table + table_size..=bytes.len()).contains(&(size_of_headers as usize));
        demand("the size of the headers", optional + SIZE_OF_HEADERS, expected, size_of_headers, fit)?;
        let mut pe = Pe {
            bytes,
            signature,
            table,
            size_of_headers: size_of_headers as usize,
            directories: directories as usize,
            certificates: None,
            sections: rows.chunks_exact(SECTION_HEADER).map(Section::read).collect(),
        };
        let end = pe.check_file()?;
        pe.certificates = pe.certificate_range(end)?;
        Ok(pe)
    }

    /// Reads an image and also checks what a tool relies on that adds sections or a signature: at least one section, valid
    /// alignments, sections in memory order that do not overlap and lie inside the image's size, and a certificate table, if
    /// there is one, at the end of the file.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn read_strict(bytes: &'a [u8]) -> Result<Self, Error> {
        let pe = Pe::read(bytes)?;
        let expected = "at least 0x40";
        demand("the offset of the PE header", 0x3c, expected, pe.signature as u64, pe.signature >= 0x40)?;
        let count = pe.sections.len();
        demand("the number of sections", pe.signature + 6, "1 to 96", count as u64, count > 0)?;
        let field = "the number of data directories";
        let found = pe.directories as u64;
        demand(field, pe.optional_header() + DIRECTORIES, "at most 16", found, pe.directories <= 16)?;
        let (file, section) = (pe.file_alignment(), pe.section_alignment());
        let fit = file.is_power_of_two() && (0x20..=0x10000).contains(&file);
        let expected = "a power of two from 0x20 to 0x10000";
        demand("the file alignment", pe.optional_header() + FILE_ALIGNMENT, expected, file, fit)?;
        let fit = section.is_power_of_two() && section >= file;
        let expected = "a power of two, at least the file alignment";
        demand("the section alignment", pe.optional_header() + SECTION_ALIGNMENT, expected, section, fit)?;
        pe.check_memory()?;
        pe.check_certificates()?;
        Ok(pe)
    }

    /// Checks that the sections' bytes are in the file, after the headers, and do not overlap. Returns the end of the last.
    fn check_file(&self) -> Result<u64, Error> {
        let mut order: Vec<&Section> = self.sections.iter().filter(|section| section.file_size > 0).collect();
        order.sort_by_key(|section| section.file_offset);
        let mut end = self.size_of_headers as u64;
        for section in order {
            let found = u64::from(section.file_offset);
            if found < end {
                return Err(Error::Overlap {
                    name: section.name,
                    space: "in the file",
                    expected: end,
                    found,
                });
            }
            let (offset, length) = (section.file_offset as usize, section.file_size as usize);
            Input(self.bytes).slice("a section", offset, length)?;
            end = section.file_end();
        }
        Ok(end)
    }

    /// Returns the certificate table's range, which must be in the file, after the sections.
    fn certificate_range(&self, sections_end: u64) -> Result<Option<Range<usize>>, Error> {
        let Some(entry) = self.certificate_directory() else { return Ok(None) };
        let input = Input(self.bytes);
        let (start, length) = (input.u32(entry) as usize, input.u32(entry + 4) as usize);
        if length > 0 {
            input.slice("the certificate table", start, length)?;
            let fit = start as u64 >= sections_end;
            demand("the certificate table's offset", entry, "behind the sections", start as u64, fit)?;
        }
        Ok(Some(start..start.saturating_add(length)))
    }

    /// Checks that sections ascend in memory without overlap, inside the image's size.
    fn check_memory(&self) -> Result<(), Error> {
        let alignment = self.section_alignment();
        let mut end = self.size_of_headers as u64;
        for (index, section) in self.sections.iter().enumerate() {
            let offset = self.table + SECTION_HEADER * index + 12;
            let expected = "a multiple of the section alignment";
            let fit = section.address.is_multiple_of(alignment);
            demand("a section's address", offset, expected, section.address, fit)?;
            let found = u64::from(section.address);
            if found < end {
                return Err(Error::Overlap { name: section.name, space: "in memory", expected: end, found });
            }
            end = section.memory_end();
        }
        let found = self.size_of_image();
        let expected = "at least the end of the last section";
        let fit = u64::from(found) >= end;
        demand("the size of the image", self.optional_header() + SIZE_OF_IMAGE, expected, found, fit)
    }

    /// Checks that the certificate table, if there is one, is aligned and ends the file.
    fn check_certificates(&self) -> Result<(), Error> {
        let (Some(entry), Some(range)) = (self.certificate_directory(), &self.certificates) else {
            return Ok(());
        };
        if *range == (0..0) {
            return Ok(());
        }
        let expected = "a multiple of 8";
        let fit = range.start.is_multiple_of(8);
        demand("the certificate table's offset", entry, expected, range.start as u64, fit)?;
        let fit = !range.is_empty() && range.end == self.bytes.len();
        let expected = "the rest of the file";
        demand("the certificate table's size", entry + 4, expected, range.len() as u64, fit)
    }

    /// Returns the whole file.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the section table.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Returns the only section with a name; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Twice`].
    pub fn section(&self, name: &str) -> Result<Option<&Section>, Error> {
        let mut all = self.sections.iter().enumerate().filter(|(_, section)| section.name.is(name));
        let Some((_, section)) = all.next() else { return Ok(None) };
        match all.next() {
            Some((index, second)) => Err(Error::Twice { name: second.name, index }),
            None => Ok(Some(section)),
        }
    }

    /// Returns a section's bytes with its size in memory, and their offset in the file.
    ///
    /// # Errors
    ///
    /// [`Error::NotInFile`].
    pub fn content(&self, section: &Section) -> Result<Piece<'a>, Error> {
        self.in_memory(section).map(|bytes| Piece::of_file(section.file_offset.into(), bytes))
    }

    /// Returns the bytes of the only section with a name, with its size in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::Twice`], [`Error::NotInFile`].
    pub fn extract(&self, name: &str) -> Result<&'a [u8], Error> {
        let section = self.section(name)?.ok_or_else(|| Error::Missing { name: name.into() })?;
        self.in_memory(section)
    }

    fn in_memory(&self, section: &Section) -> Result<&'a [u8], Error> {
        let (offset, length) = (section.file_offset as usize, section.memory_size as usize);
        let bytes =
            field::bytes(self.bytes, offset, length).filter(|_| section.memory_size <= section.file_size);
        bytes.ok_or(Error::NotInFile {
            name: section.name,
            expected: section.memory_size,
            found: section.file_size,
        })
    }

    /// Returns the certificate table, empty if the image is not signed.
    pub fn certificates(&self) -> &'a [u8] {
        self.certificates.clone().and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    /// Returns the preimage of the Authenticode digest, for a file that holds the image at offset `at`.
    ///
    /// # Errors
    ///
    /// [`Error::Field`] if the certificates leave no room for the sections.
    pub fn authenticode(&self, at: u64) -> Result<Preimage<'a>, Error> {
        let mut recorder = Recorder { image: self.bytes, at, pieces: Vec::new() };
        authenticode::authenticode_digest(self, &mut recorder).map_err(|_| Error::Field {
            field: "the certificate table's size",
            offset: self.optional_header() + OPTIONAL_HEADER + 8 * CERTIFICATE_TABLE + 4,
            expected: "at most what is behind the sections",
            found: self.certificates.as_ref().map_or(0, ExactSizeIterator::len) as u64,
        })?;
        Ok(Preimage::new(recorder.pieces))
    }

    /// Computes the Authenticode digest with any hash, such as `authenticode_digest::<Sha256>()`.
    ///
    /// # Errors
    ///
    /// As [`Pe::authenticode`].
    pub fn authenticode_digest<D: sha2::Digest>(&self) -> Result<Output<D>, Error> {
        let mut hasher = D::new();
        self.authenticode(0)?.parts().for_each(|part| hasher.update(part));
        Ok(hasher.finalize())
    }

    /// Returns the subsystem, such as [`EFI_APPLICATION`].
    pub fn subsystem(&self) -> u16 {
        Input(self.bytes).u16(self.optional_header() + SUBSYSTEM)
    }

    /// Returns the `IMAGE_DLLCHARACTERISTICS_*` flags, such as [`NX_COMPAT`].
    pub fn dll_characteristics(&self) -> u16 {
        Input(self.bytes).u16(self.optional_header() + DLL_CHARACTERISTICS)
    }

    /// Returns SizeOfInitializedData.
    pub fn size_of_initialized_data(&self) -> u32 {
        Input(self.bytes).u32(self.optional_header() + SIZE_OF_INITIALIZED_DATA)
    }

    /// Returns SizeOfImage.
    pub fn size_of_image(&self) -> u32 {
        Input(self.bytes).u32(self.optional_header() + SIZE_OF_IMAGE)
    }

    /// Returns SizeOfHeaders.
    pub const fn size_of_headers(&self) -> usize {
        self.size_of_headers
    }

    /// Returns FileAlignment.
    pub fn file_alignment(&self) -> u32 {
        Input(self.bytes).u32(self.optional_header() + FILE_ALIGNMENT)
    }

    /// Returns SectionAlignment.
    pub fn section_alignment(&self) -> u32 {
        Input(self.bytes).u32(self.optional_header() + SECTION_ALIGNMENT)
    }

    /// Returns the offset of the file header, after the signature.
    pub const fn file_header(&self) -> usize {
        self.signature + 4
    }

    /// Returns the offset of the optional header.
    pub const fn optional_header(&self) -> usize {
        self.signature + FILE_HEADER
    }

    /// Returns the offset of the section table.
    pub const fn section_table(&self) -> usize {
        self.table
    }

    /// Returns the offset of the certificate table's data directory; `None` if the header has no room for it.
    pub fn certificate_directory(&self) -> Option<usize> {
        let entry = self.optional_header() + OPTIONAL_HEADER + 8 * CERTIFICATE_TABLE;
        (self.directories > CERTIFICATE_TABLE).then_some(entry)
    }
}

fn demand(
    field: &'static str,
    offset: usize,
    expected: &'static str,
    found: impl Into<u64>,
    fit: bool,
) -> Result<(), Error> {
    if fit { Ok(()) } else { Err(Error::Field { field, offset, expected, found: found.into() }) }
}

/// Reads foreign bytes.
#[derive(Clone, Copy)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn slice(self, what: &'static str, offset: usize, needed: usize) -> Result<&'a [u8], Error> {
        field::bytes(self.0, offset, needed).ok_or(Error::Truncated {
            what,
            offset: offset as u64,
            needed: needed as u64,
            length: self.0.len(),
        })
    }

    /// Reads a field of headers that are known to be in the file.
    fn u16(self, offset: usize) -> u16 {
        field::u16(self.0, offset).unwrap_or_default()
    }

    /// Reads a field of headers that are known to be in the file.
    fn u32(self, offset: usize) -> u32 {
        field::u32(self.0, offset).unwrap_or_default()
    }

    /// Returns the offset of the signature of a PE32+ image for x86-64 whose headers are in the file.
    fn signature(self) -> Result<usize, Error> {
        self.slice("the DOS header", 0, 64)?;
        demand("the DOS header's magic", 0, "\"MZ\"", self.u16(0), self.u16(0) == 0x5a4d)?;
        let pe = self.u32(60) as usize;
        self.slice("the headers", pe, FILE_HEADER + OPTIONAL_HEADER)?;
        demand("the signature", pe, "\"PE\"", self.u32(pe), self.u32(pe) == 0x4550)?;
        let machine = self.u16(pe + 4);
        demand("the machine", pe + 4, "0x8664 (x86-64)", machine, machine == AMD64)?;
        let magic = self.u16(pe + FILE_HEADER);
        let field = "the optional header's magic";
        demand(field, pe + FILE_HEADER, "0x20b (PE32+)", magic, magic == MAGIC)?;
        Ok(pe)
    }
}

impl PeTrait for Pe<'_> {
    fn data(&self) -> &[u8] {
        self.bytes
    }

    fn num_sections(&self) -> usize {
        self.sections.len()
    }

    fn section_data_range(&self, index: usize) -> Result<Range<usize>, PeOffsetError> {
        let section = index.checked_sub(1).and_then(|index| self.sections.get(index)).ok_or(PeOffsetError)?;
        // edk2 skips a section without bytes in the file.
        let start = if section.file_size == 0 { 0 } else { section.file_offset as usize };
        Ok(start..start.checked_add(section.file_size as usize).ok_or(PeOffsetError)?)
    }

    fn certificate_table_range(&self) -> Result<Option<Range<usize>>, PeOffsetError> {
        Ok(self.certificates.clone())
    }

    fn offsets(&self) -> Result<PeOffsets, PeOffsetError> {
        let check_sum = self.optional_header().checked_add(CHECK_SUM).ok_or(PeOffsetError)?;
        let after_check_sum = check_sum.checked_add(4).ok_or(PeOffsetError)?;
        // Without that directory only CheckSum is skipped.
        let (security_data_dir, after_security_data_dir) = match self.certificate_directory() {
            Some(entry) => (entry, entry.checked_add(8).ok_or(PeOffsetError)?),
            None => (after_check_sum, after_check_sum),
        };
        Ok(PeOffsets {
            check_sum,
            after_check_sum,
            security_data_dir,
            after_security_data_dir,
            after_header: self.size_of_headers,
        })
    }
}

/// Records what would be hashed.
struct Recorder<'a> {
    image: &'a [u8],
    at: u64,
    pieces: Vec<Piece<'a>>,
}

impl digest::Update for Recorder<'_> {
    fn update(&mut self, data: &[u8]) {
        let start = (data.as_ptr() as usize).saturating_sub(self.image.as_ptr() as usize);
        let Some(bytes) = field::bytes(self.image, start, data.len()).filter(|bytes| !bytes.is_empty())
        else {
            return;
        };
        let offset = self.at.saturating_add(start as u64);
        match self.pieces.last_mut() {
            // Adjacent pieces become one range, which is easier to audit.
            Some(last)
                if last.offset.map(|offset| offset.saturating_add(last.bytes.len() as u64))
                    == Some(offset) =>
            {
                let first = start.saturating_sub(last.bytes.len());
                let joined = last.bytes.len().saturating_add(bytes.len());
                last.bytes = field::bytes(self.image, first, joined).unwrap_or_default().into();
            }
            _ => self.pieces.push(Piece::of_file(offset, bytes)),
        }
    }
}

#[cfg(test)]
pub(crate) mod specimen {
    use alloc::vec::Vec;

    pub(crate) const PE: usize = 0x80;
    pub(crate) const OPTIONAL: usize = PE + 24;
    pub(crate) const TABLE: usize = OPTIONAL + 112 + 16 * 8;
    pub(crate) const HEADERS: usize = 0x800;

    pub(crate) fn set(image: &mut [u8], at: usize, bytes: &[u8]) {
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes an EFI application of these sections, aligned to 512 bytes in the file.
    pub(crate) fn image(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut image = alloc::vec![0; HEADERS];
        set(&mut image, 0, b"MZ");
        set(&mut image, 60, &(PE as u32).to_le_bytes());
        set(&mut image, PE, b"PE\0\0");
        set(&mut image, PE + 4, &super::AMD64.to_le_bytes());
        set(&mut image, PE + 6, &(sections.len() as u16).to_le_bytes());
        set(&mut image, PE + 20, &240u16.to_le_bytes());
        set(&mut image, OPTIONAL, &super::MAGIC.to_le_bytes());
        set(&mut image, OPTIONAL + 32, &0x1000u32.to_le_bytes());
        set(&mut image, OPTIONAL + 36, &0x200u32.to_le_bytes());
        set(&mut image, OPTIONAL + 68, &super::EFI_APPLICATION.to_le_bytes());
        set(&mut image, OPTIONAL + 60, &(HEADERS as u32).to_le_bytes());
        set(&mut image, OPTIONAL + 64, &0x1234_5678u32.to_le_bytes());
        set(&mut image, OPTIONAL + 108, &16u32.to_le_bytes());
        let mut address = 0x1000u32;
        for (index, (name, content)) in sections.iter().enumerate() {
            let row = TABLE + 40 * index;
            let offset = image.len() as u32;
            let size = (content.len() as u32).next_multiple_of(512);
            set(&mut image, row, name.as_bytes());
            set(&mut image, row + 8, &(content.len() as u32).to_le_bytes());
            set(&mut image, row + 12, &address.to_le_bytes());
            set(&mut image, row + 16, &size.to_le_bytes());
            set(&mut image, row + 20, &offset.to_le_bytes());
            image.extend_from_slice(content);
            image.resize((offset + size) as usize, 0);
            address = (address + content.len() as u32).next_multiple_of(0x1000);
        }
        set(&mut image, OPTIONAL + 56, &address.to_le_bytes());
        image
    }
}

#[cfg(test)]
mod tests;
