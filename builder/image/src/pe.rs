//! Yields the sections of a PE32+ image and the bytes that its Authenticode digest covers, from its bytes.
//!
//! # Shape
//!
//! ```text
//! 0x00            DOS header: "MZ", at 0x3c the offset of the next line (u32)
//! pe              "PE\0\0", file header (20 bytes), optional header (112 bytes + 8 per data directory)
//! section table   40 bytes per section
//! size_of_headers the sections' bytes, each at a multiple of the file alignment
//! end             certificate table, if signed
//! ```
//!
//! All integers are little-endian; every offset is in bytes from the start of the file.
//!
//! # Source
//!
//! PE Format (Microsoft, revision 2024) and *Windows Authenticode Portable Executable Signature Format* §"Calculating
//! the PE Image Hash", as edk2 does it in `OvmfPkg/Tcg/TdTcg2Dxe/MeasureBootPeCoff.c`: no zero padding is
//! hashed. Tested with Debian's systemd-stub 257 and cloud kernel 6.12; osslsigncode and pesign agree on the
//! digest.
//!
//! # Not here
//!
//! Adding sections (`uki`), signatures (`sign`), relocations, imports and everything else that a loader does.

use std::fmt;

use sha2::digest::{Digest, Output};

/// Length of a section header.
pub(super) const SECTION_HEADER: usize = 40;
/// Length of the optional header up to its data directories.
const OPTIONAL_HEADER: usize = 112;
/// Offsets in the optional header.
pub(super) const SIZE_OF_INITIALIZED_DATA: usize = 8;
pub(super) const SIZE_OF_IMAGE: usize = 56;
pub(super) const CHECK_SUM: usize = 64;
pub(super) const DLL_CHARACTERISTICS: usize = 70;
/// Index of the certificate table among the data directories.
const CERTIFICATE_TABLE: usize = 4;
/// `IMAGE_FILE_MACHINE_AMD64`.
const AMD64: u16 = 0x8664;
/// `PE32+`.
const MAGIC: u16 = 0x20b;
/// The PE format's loader limit.
const MOST_SECTIONS: u16 = 96;
/// `IMAGE_SUBSYSTEM_EFI_APPLICATION`.
pub const EFI_APPLICATION: u16 = 10;
/// `IMAGE_DLLCHARACTERISTICS_NX_COMPAT`.
pub const NX_COMPAT: u16 = 0x100;

/// Why bytes are not an image that this module can read safely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file ends inside a structure.
    #[error("PE image ends at {length}, expected {needed} bytes of {what} at offset {offset:#x}")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Its length.
        needed: u64,
        /// The file's length.
        length: usize,
    },
    /// A field has a value that is not allowed.
    #[error("PE {field} at offset {offset:#x}: expected {expected}, found {found:#x}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its offset.
        offset: usize,
        /// What is allowed.
        expected: &'static str,
        /// The value found.
        found: u64,
    },
    /// Two sections overlap in the file or in memory, or one overlaps the headers.
    #[error("PE section {name} begins at {found:#x} {space}, expected at least {expected:#x}")]
    Overlap {
        /// The later section.
        name: Name,
        /// `of the file` or `in memory`.
        space: &'static str,
        /// Where the previous one ends.
        expected: u64,
        /// Where this one begins.
        found: u64,
    },
    /// The requested section is absent.
    #[error("PE section {name} is missing")]
    Missing {
        /// The section's name.
        name: String,
    },
    /// There are several sections with the requested name.
    #[error("PE section {name} occurs {found} times, expected once")]
    Ambiguous {
        /// The section's name.
        name: String,
        /// How often it occurs.
        found: usize,
    },
    /// The section is larger in memory than in the file, so the file does not hold all its bytes.
    #[error("PE section {name} has {expected} bytes in memory but {found} in the file")]
    NotInFile {
        /// The section's name.
        name: Name,
        /// Size in memory.
        expected: u32,
        /// Size in the file.
        found: u32,
    },
}

/// A section's name: up to eight bytes, zero-filled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name([u8; 8]);

impl Name {
    pub(super) const SBAT: Name = Name(*b".sbat\0\0\0");

    /// Takes a name of 1 to 8 printable ASCII bytes.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; 8];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Name(bytes))
    }

    /// The eight bytes as in the section table.
    pub fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        write!(f, "{}", self.0.get(..length).unwrap_or_default().escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One row of the section table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: Name,
    /// Its size in memory, in bytes.
    pub virtual_size: u32,
    /// Its address in memory, relative to the image base.
    pub virtual_address: u32,
    /// Its size in the file, in bytes, a multiple of the file alignment.
    pub file_size: u32,
    /// Its offset in the file.
    pub file_offset: u32,
    /// `IMAGE_SCN_*` flags.
    pub characteristics: u32,
}

impl Section {
    fn file_end(&self) -> u64 {
        u64::from(self.file_offset) + u64::from(self.file_size)
    }

    pub(super) fn virtual_end(&self) -> u64 {
        u64::from(self.virtual_address) + u64::from(self.virtual_size)
    }
}

/// An image whose structure was checked.
#[derive(Clone, Debug)]
pub struct Pe<'a> {
    bytes: &'a [u8],
    file_header: usize,
    optional_header: usize,
    section_table: usize,
    size_of_initialized_data: u32,
    size_of_headers: u32,
    file_alignment: u32,
    section_alignment: u32,
    subsystem: u16,
    dll_characteristics: u16,
    /// Offset of the certificate table's directory entry, if the header has room for it.
    certificate_directory: Option<usize>,
    /// Length of the certificate table at the end of the file, 0 if absent.
    certificates: usize,
    sections: Vec<Section>,
}

impl<'a> Pe<'a> {
    /// Reads and checks the headers of a PE32+ image for x86-64.
    ///
    /// # Errors
    ///
    /// Not PE32+, another machine, a structure beyond the end of the file, sections that overlap or are out
    /// of order, or a certificate table that does not end the file.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let input = Input(bytes);
        let mz = input.u16("DOS signature", 0)?;
        demand("DOS signature", 0, "0x5a4d", mz, |mz| mz == 0x5a4d)?;
        let signature = input.u32("PE header offset", 0x3c)? as usize;
        demand("PE header offset", 0x3c, "at least 0x40", signature as u64, |offset| offset >= 0x40)?;
        let pe = input.u32("PE signature", signature)?;
        demand("PE signature", signature, "0x4550", pe, |pe| pe == 0x4550)?;

        let file_header = signature + 4;
        let machine = input.u16("machine", file_header)?;
        demand("machine", file_header, "0x8664 (x86-64)", machine, |machine| machine == u64::from(AMD64))?;
        let count = input.u16("number of sections", file_header + 2)?;
        let most = u64::from(MOST_SECTIONS);
        demand("number of sections", file_header + 2, "1 to 96", count, |count| (1..=most).contains(&count))?;
        let optional_size = input.u16("size of optional header", file_header + 16)?;

        let optional_header = file_header + 20;
        let magic = input.u16("optional header magic", optional_header)?;
        demand("optional header magic", optional_header, "0x20b (PE32+)", magic, |it| {
            it == u64::from(MAGIC)
        })?;
        let at = |offset: usize| optional_header + offset;
        let size_of_initialized_data = input.u32("size of initialized data", at(SIZE_OF_INITIALIZED_DATA))?;
        let section_alignment = input.u32("section alignment", at(32))?;
        let file_alignment = input.u32("file alignment", at(36))?;
        let expected = "a power of two from 0x20 to 0x10000";
        demand("file alignment", at(36), expected, file_alignment, |alignment| {
            alignment.is_power_of_two() && (0x20..=0x10000).contains(&alignment)
        })?;
        let expected = "a power of two, at least the file alignment";
        demand("section alignment", at(32), expected, section_alignment, |alignment| {
            alignment.is_power_of_two() && alignment >= file_alignment.into()
        })?;
        let size_of_image = input.u32("size of image", at(SIZE_OF_IMAGE))?;
        let size_of_headers = input.u32("size of headers", at(60))?;
        let subsystem = input.u16("subsystem", at(68))?;
        let dll_characteristics = input.u16("DLL characteristics", at(DLL_CHARACTERISTICS))?;
        let directories = input.u32("number of data directories", at(108))?;
        demand("number of data directories", at(108), "at most 16", directories, |count| count <= 16)?;
        let needed = OPTIONAL_HEADER as u64 + 8 * u64::from(directories);
        let expected = "room for the data directories";
        demand("size of optional header", file_header + 16, expected, optional_size, |size| size >= needed)?;

        let section_table = optional_header + usize::from(optional_size);
        let table_end = (section_table + SECTION_HEADER * usize::from(count)) as u64;
        let expected = "at least the end of the section table";
        demand("size of headers", at(60), expected, size_of_headers, |size| size >= table_end)?;
        input.slice("headers", 0, size_of_headers as usize)?;

        let mut sections = Vec::with_capacity(usize::from(count));
        for index in 0..usize::from(count) {
            sections.push(input.section(section_table + SECTION_HEADER * index)?);
        }

        let certificate_directory =
            (directories as usize > CERTIFICATE_TABLE).then(|| at(OPTIONAL_HEADER + 8 * CERTIFICATE_TABLE));
        let mut image = Pe {
            bytes,
            file_header,
            optional_header,
            section_table,
            size_of_initialized_data,
            size_of_headers,
            file_alignment,
            section_alignment,
            subsystem,
            dll_characteristics,
            certificate_directory,
            certificates: 0,
            sections,
        };
        image.check_memory(size_of_image)?;
        let end = image.check_file(input)?;
        image.certificates = image.check_certificates(input, end)?;
        Ok(image)
    }

    /// Checks that sections ascend in memory without overlap, within the image's size.
    fn check_memory(&self, size_of_image: u32) -> Result<(), Error> {
        let mut end = u64::from(self.size_of_headers);
        for (index, section) in self.sections.iter().enumerate() {
            let offset = self.section_table + SECTION_HEADER * index + 12;
            let address = section.virtual_address;
            let expected = "a multiple of the section alignment";
            demand("section address", offset, expected, address, |it| {
                it % u64::from(self.section_alignment) == 0
            })?;
            if u64::from(address) < end {
                let (name, found) = (section.name, address.into());
                return Err(Error::Overlap { name, space: "in memory", expected: end, found });
            }
            end = section.virtual_end();
        }
        let offset = self.optional_header + SIZE_OF_IMAGE;
        demand("size of image", offset, "at least the end of the last section", size_of_image, |size| {
            size >= end
        })
    }

    /// Checks that the sections' bytes lie in the file after the headers and do not overlap. Returns the end
    /// of the last.
    fn check_file(&self, input: Input<'_>) -> Result<u64, Error> {
        let mut end = u64::from(self.size_of_headers);
        for section in self.in_file_order() {
            input.slice("a section", section.file_offset as usize, section.file_size as usize)?;
            if u64::from(section.file_offset) < end {
                let (name, found) = (section.name, section.file_offset.into());
                return Err(Error::Overlap { name, space: "of the file", expected: end, found });
            }
            end = section.file_end();
        }
        Ok(end)
    }

    /// Checks that the certificate table, if any, ends the file. Returns its length.
    fn check_certificates(&self, input: Input<'_>, sections_end: u64) -> Result<usize, Error> {
        let Some(directory) = self.certificate_directory else { return Ok(0) };
        let offset = input.u32("certificate table offset", directory)?;
        let size = input.u32("certificate table size", directory + 4)?;
        if (offset, size) == (0, 0) {
            return Ok(0);
        }
        let expected = "a multiple of 8 behind the last section";
        demand("certificate table offset", directory, expected, offset, |it| {
            it % 8 == 0 && it >= sections_end
        })?;
        let rest = (input.0.len() as u64).checked_sub(offset.into());
        let expected = "the rest of the file";
        demand("certificate table size", directory + 4, expected, size, |size| {
            size != 0 && Some(size) == rest
        })?;
        Ok(size as usize)
    }

    /// Sections that have bytes in the file, by offset.
    fn in_file_order(&self) -> Vec<&Section> {
        let mut sections: Vec<&Section> =
            self.sections.iter().filter(|section| section.file_size != 0).collect();
        sections.sort_by_key(|section| section.file_offset);
        sections
    }

    /// The whole file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The section table, in its order.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The kind of program, for instance [`EFI_APPLICATION`].
    pub fn subsystem(&self) -> u16 {
        self.subsystem
    }

    /// `IMAGE_DLLCHARACTERISTICS_*` flags.
    pub fn dll_characteristics(&self) -> u16 {
        self.dll_characteristics
    }

    /// The certificate table, empty if the image is not signed.
    pub fn certificates(&self) -> &'a [u8] {
        self.bytes.get(self.bytes.len() - self.certificates..).unwrap_or_default()
    }

    /// The bytes of a section as in memory: its virtual size, without the padding in the file.
    ///
    /// # Errors
    ///
    /// No section or several with that name, or one that is larger in memory than in the file.
    pub fn extract(&self, name: &str) -> Result<&'a [u8], Error> {
        let named = |section: &&Section| Name::new(name) == Some(section.name);
        let section = match self.sections.iter().filter(named).count() {
            0 => None,
            1 => self.sections.iter().find(named),
            found => return Err(Error::Ambiguous { name: name.into(), found }),
        };
        let section = section.ok_or_else(|| Error::Missing { name: name.into() })?;
        if section.virtual_size > section.file_size {
            let (expected, found) = (section.virtual_size, section.file_size);
            return Err(Error::NotInFile { name: section.name, expected, found });
        }
        Input(self.bytes).slice("a section", section.file_offset as usize, section.virtual_size as usize)
    }

    /// The parts of the file that the Authenticode digest covers, in the order of hashing.
    ///
    /// These are the headers without checksum and certificate directory, then the sections by file offset,
    /// then the bytes from the sum of those sizes up to the certificates.
    pub fn authenticode_parts(&self) -> Vec<&'a [u8]> {
        let part = |start: usize, end: usize| self.bytes.get(start..end).unwrap_or_default();
        let headers_end = self.size_of_headers as usize;
        let check_sum = self.optional_header + CHECK_SUM;
        let mut parts = vec![part(0, check_sum)];
        match self.certificate_directory {
            Some(directory) => {
                parts.push(part(check_sum + 4, directory));
                parts.push(part(directory + 8, headers_end));
            }
            None => parts.push(part(check_sum + 4, headers_end)),
        }
        let mut hashed = headers_end;
        for section in self.in_file_order() {
            parts.push(part(
                section.file_offset as usize,
                section.file_offset as usize + section.file_size as usize,
            ));
            hashed += section.file_size as usize;
        }
        parts.push(part(hashed, self.bytes.len() - self.certificates));
        parts
    }

    /// The Authenticode digest, for instance `authenticode::<Sha256>()`.
    pub fn authenticode<D: Digest>(&self) -> Output<D> {
        let mut digest = D::new();
        for part in self.authenticode_parts() {
            digest.update(part);
        }
        digest.finalize()
    }

    pub(super) fn file_header(&self) -> usize {
        self.file_header
    }

    pub(super) fn optional_header(&self) -> usize {
        self.optional_header
    }

    pub(super) fn section_table(&self) -> usize {
        self.section_table
    }

    pub(super) fn size_of_initialized_data(&self) -> u32 {
        self.size_of_initialized_data
    }

    pub(super) fn size_of_headers(&self) -> u32 {
        self.size_of_headers
    }

    pub(super) fn file_alignment(&self) -> u32 {
        self.file_alignment
    }

    pub(super) fn section_alignment(&self) -> u32 {
        self.section_alignment
    }

    pub(super) fn certificate_directory(&self) -> Option<usize> {
        self.certificate_directory
    }
}

fn demand(
    field: &'static str,
    offset: usize,
    expected: &'static str,
    found: impl Into<u64>,
    allowed: impl FnOnce(u64) -> bool,
) -> Result<(), Error> {
    let found = found.into();
    if allowed(found) { Ok(()) } else { Err(Error::Field { field, offset, expected, found }) }
}

/// Bounds-checked reads from foreign bytes.
#[derive(Clone, Copy)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn slice(self, what: &'static str, offset: usize, needed: usize) -> Result<&'a [u8], Error> {
        let end = offset.checked_add(needed);
        end.and_then(|end| self.0.get(offset..end)).ok_or(Error::Truncated {
            what,
            offset: offset as u64,
            needed: needed as u64,
            length: self.0.len(),
        })
    }

    fn array<const N: usize>(self, what: &'static str, offset: usize) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(what, offset, N)?);
        Ok(array)
    }

    fn u16(self, what: &'static str, offset: usize) -> Result<u16, Error> {
        Ok(u16::from_le_bytes(self.array(what, offset)?))
    }

    fn u32(self, what: &'static str, offset: usize) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(what, offset)?))
    }

    fn section(self, offset: usize) -> Result<Section, Error> {
        let what = "section header";
        Ok(Section {
            name: Name(self.array(what, offset)?),
            virtual_size: self.u32(what, offset + 8)?,
            virtual_address: self.u32(what, offset + 12)?,
            file_size: self.u32(what, offset + 16)?,
            file_offset: self.u32(what, offset + 20)?,
            characteristics: self.u32(what, offset + 36)?,
        })
    }
}

#[cfg(test)]
pub(super) mod specimen {
    //! A small well-formed image.

    use super::*;

    /// The offset of the PE signature.
    pub const PE: usize = 0x40;
    /// The offset of the optional header.
    pub const OPTIONAL: usize = PE + 24;
    /// The offset of the section table.
    pub const TABLE: usize = OPTIONAL + OPTIONAL_HEADER + 8 * 16;
    /// The size of the headers, with room for 7 sections.
    pub const HEADERS: usize = 0x400;

    /// Sets bytes of an image.
    pub fn set(image: &mut [u8], offset: usize, bytes: &[u8]) {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// An NX-compatible EFI application with these sections.
    pub fn image(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut image = vec![0; HEADERS];
        set(&mut image, 0, b"MZ");
        set(&mut image, 0x3c, &(PE as u32).to_le_bytes());
        set(&mut image, PE, b"PE\0\0");
        set(&mut image, PE + 4, &AMD64.to_le_bytes());
        set(&mut image, PE + 6, &(sections.len() as u16).to_le_bytes());
        set(&mut image, PE + 20, &240u16.to_le_bytes());
        set(&mut image, OPTIONAL, &MAGIC.to_le_bytes());
        set(&mut image, OPTIONAL + 32, &0x1000u32.to_le_bytes());
        set(&mut image, OPTIONAL + 36, &0x200u32.to_le_bytes());
        set(&mut image, OPTIONAL + 60, &(HEADERS as u32).to_le_bytes());
        set(&mut image, OPTIONAL + 68, &EFI_APPLICATION.to_le_bytes());
        set(&mut image, OPTIONAL + DLL_CHARACTERISTICS, &NX_COMPAT.to_le_bytes());
        set(&mut image, OPTIONAL + 108, &16u32.to_le_bytes());
        let mut address = 0x1000u32;
        for (index, (name, content)) in sections.iter().enumerate() {
            let row = TABLE + SECTION_HEADER * index;
            let size = content.len() as u32;
            let offset = image.len() as u32;
            set(&mut image, row, Name::new(name).unwrap().bytes());
            set(&mut image, row + 8, &size.to_le_bytes());
            set(&mut image, row + 12, &address.to_le_bytes());
            set(&mut image, row + 16, &size.next_multiple_of(0x200).to_le_bytes());
            set(&mut image, row + 20, &offset.to_le_bytes());
            address = (address + size).next_multiple_of(0x1000);
            image.extend_from_slice(content);
            image.resize(image.len().next_multiple_of(0x200), 0);
        }
        set(&mut image, OPTIONAL + SIZE_OF_IMAGE, &address.to_le_bytes());
        image
    }
}

#[cfg(test)]
mod tests;
