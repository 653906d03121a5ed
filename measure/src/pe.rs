//! The Authenticode digest and the sections of a PE image, from its bytes.
//!
//! # Shape
//!
//! ```text
//! 0             "MZ", at 0x3c the offset of the next line (u32)
//! pe            "PE\0\0", file header (20 bytes), optional header (112 bytes + 8 per data directory)
//! table         40 bytes a section: name, memory size, address, file size, file offset, …
//! headers end   the sections' bytes; then the certificate table, if signed
//!
//! digest of     the headers but CheckSum and the certificate table's entry, each section's bytes by file offset, the
//!               rest of the file but the certificates
//! ```
//!
//! # Source
//!
//! Microsoft *PE Format*; *Windows Authenticode Portable Executable Signature Format*; edk2
//! `SecurityPkg/Library/DxeTpm2MeasureBootLib` and `OvmfPkg/Tcg/TdTcg2Dxe/MeasureBootPeCoff.c`: no zero padding is hashed.
//! The `authenticode` crate says which bytes are hashed; this module reads the headers for it, and refuses an image
//! whose sections share bytes, since no compiler makes such a one. OVMF measures what is computed here.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use authenticode::{PeOffsetError, PeOffsets, PeTrait};

use crate::field;
use crate::preimage::{Piece, Preimage};

const FILE_HEADER: usize = 24;
const OPTIONAL_HEADER: usize = 112;
const SECTION: usize = 40;
const CHECK_SUM: usize = 64;
/// Index of the certificate table among the data directories.
const CERTIFICATES: usize = 4;
/// `IMAGE_FILE_MACHINE_AMD64`.
const AMD64: u16 = 0x8664;
/// PE32+.
const MAGIC: u16 = 0x20b;
/// The loader's limit.
const MOST_SECTIONS: u16 = 96;

/// Says why bytes are no image that is understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file ends inside a structure.
    #[error("PE image of {length} bytes: expected {needed} bytes of {what} at offset {offset:#x}")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        needed: u64,
        /// The file's length.
        length: usize,
    },
    /// A field has a value that is not allowed.
    #[error("PE image, {field} at offset {offset:#x}: expected {expected}, found {found:#x}")]
    Field {
        /// The field.
        field: &'static str,
        /// Where it is.
        offset: usize,
        /// What is allowed.
        expected: &'static str,
        /// What stands there.
        found: u64,
    },
    /// Two sections share bytes of the file, or one shares them with the headers.
    #[error("PE section {name}: expected to begin at {expected:#x} or later, found {found:#x}")]
    Overlap {
        /// The later one.
        name: Name,
        /// Where what is before it ends.
        expected: u64,
        /// Where it begins.
        found: u64,
    },
    /// A section's bytes are not all in the file.
    #[error("PE section {name}: expected {expected} bytes in the file, found {found}")]
    NotInFile {
        /// The section.
        name: Name,
        /// Its size in memory.
        expected: u32,
        /// Its size in the file.
        found: u32,
    },
    /// A name that may occur once occurs more often.
    #[error("PE section {name} at index {index}: expected it once, found it before")]
    Twice {
        /// The section.
        name: Name,
        /// Index of the second one.
        index: usize,
    },
}

/// A section's name, of up to eight bytes, filled up with zeros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub [u8; 8]);

impl Name {
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

/// One row of the section table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: Name,
    /// Its size in memory.
    pub memory_size: u32,
    /// Its size in the file.
    pub file_size: u32,
    /// Where it begins in the file.
    pub file_offset: u32,
}

/// An image whose headers were read.
#[derive(Debug, Clone)]
pub struct Pe<'a> {
    bytes: &'a [u8],
    /// Where the optional header begins.
    optional: usize,
    headers: usize,
    /// Of the file; `None` without that data directory.
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
        let truncated = |what, offset: usize, needed: usize| Error::Truncated {
            what,
            offset: offset as u64,
            needed: needed as u64,
            length: bytes.len(),
        };
        let wrong =
            |field, offset, expected, found: u64| Err(Error::Field { field, offset, expected, found });
        let dos = field::bytes(bytes, 0, 64).ok_or_else(|| truncated("the DOS header", 0, 64))?;
        let word = |offset| field::u16(bytes, offset).unwrap_or_default();
        let double = |offset| field::u32(bytes, offset).unwrap_or_default();
        if word(0) != 0x5a4d {
            return wrong("the DOS header's magic", 0, "\"MZ\"", word(0).into());
        }
        let pe = field::u32(dos, 60).unwrap_or_default() as usize;
        let optional = pe.saturating_add(FILE_HEADER);
        field::bytes(bytes, pe, FILE_HEADER.saturating_add(OPTIONAL_HEADER))
            .ok_or_else(|| truncated("the headers", pe, FILE_HEADER.saturating_add(OPTIONAL_HEADER)))?;
        // The headers lie in the file: sums of their offsets do not overflow.
        if double(pe) != 0x4550 {
            return wrong("the signature", pe, "\"PE\"", double(pe).into());
        }
        if word(pe + 4) != AMD64 {
            return wrong("the machine", pe + 4, "0x8664 (x86-64)", word(pe + 4).into());
        }
        if word(optional) != MAGIC {
            return wrong("the optional header's magic", optional, "0x20b (PE32+)", word(optional).into());
        }
        let count = word(pe + 6);
        if count > MOST_SECTIONS {
            return wrong("the number of sections", pe + 6, "at most 96", count.into());
        }
        let size = usize::from(word(pe + 20));
        let directories = double(optional + 108) as usize;
        if size < OPTIONAL_HEADER || directories > (size - OPTIONAL_HEADER) / 8 {
            return wrong(
                "the number of data directories",
                optional + 108,
                "those that the header has room for",
                directories as u64,
            );
        }
        let table = optional + size;
        let headers = double(optional + 60) as usize;
        let table_size = SECTION * usize::from(count);
        let rows = field::bytes(bytes, table, table_size)
            .ok_or_else(|| truncated("the section table", table, table_size))?;
        if headers < table + table_size || headers > bytes.len() {
            return wrong(
                "the size of the headers",
                optional + 60,
                "the section table and at most the file",
                headers as u64,
            );
        }
        let mut certificates = None;
        if directories > CERTIFICATES {
            let entry = optional + OPTIONAL_HEADER + 8 * CERTIFICATES;
            let (start, length) = (double(entry) as usize, double(entry + 4) as usize);
            if length > 0 {
                field::bytes(bytes, start, length)
                    .ok_or_else(|| truncated("the certificate table", start, length))?;
            }
            certificates = Some(start..start.saturating_add(length));
        }
        let row = |row: &[u8]| Section {
            name: Name(field::array(row, 0).unwrap_or_default()),
            memory_size: field::u32(row, 8).unwrap_or_default(),
            file_size: field::u32(row, 16).unwrap_or_default(),
            file_offset: field::u32(row, 20).unwrap_or_default(),
        };
        let sections: Vec<Section> = rows.chunks_exact(SECTION).map(row).collect();
        let mut order: Vec<&Section> = sections.iter().filter(|section| section.file_size > 0).collect();
        order.sort_by_key(|section| section.file_offset);
        let mut end = headers as u64;
        for section in order {
            let found = u64::from(section.file_offset);
            if found < end {
                return Err(Error::Overlap { name: section.name, expected: end, found });
            }
            end = found.saturating_add(section.file_size.into());
            if end > bytes.len() as u64 {
                return Err(truncated("a section", section.file_offset as usize, section.file_size as usize));
            }
        }
        if let Some(range) = certificates.as_ref().filter(|range| !range.is_empty())
            && (range.start as u64) < end
        {
            return wrong(
                "the certificate table's offset",
                optional + 144,
                "behind the sections",
                range.start as u64,
            );
        }
        Ok(Pe { bytes, optional, headers, certificates, sections })
    }

    /// Gives the section table.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Gives a section's bytes as they are in memory, and where they begin in the file.
    ///
    /// # Errors
    ///
    /// [`Error::NotInFile`].
    pub fn content(&self, section: &Section) -> Result<Piece<'a>, Error> {
        let (offset, length) = (section.file_offset as usize, section.memory_size as usize);
        let bytes =
            field::bytes(self.bytes, offset, length).filter(|_| section.memory_size <= section.file_size);
        let missing =
            Error::NotInFile { name: section.name, expected: section.memory_size, found: section.file_size };
        Ok(Piece::of_file(offset as u64, bytes.ok_or(missing)?))
    }

    /// Gives the certificate table, empty in an image that is not signed.
    pub fn certificates(&self) -> &'a [u8] {
        self.certificates.clone().and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    /// Gives what its Authenticode digest covers, of a file that holds the image from `at`.
    ///
    /// # Errors
    ///
    /// [`Error::Field`] when the certificates leave no room for the sections.
    pub fn authenticode(&self, at: u64) -> Result<Preimage<'a>, Error> {
        let mut recorder = Recorder { image: self.bytes, at, pieces: Vec::new() };
        authenticode::authenticode_digest(self, &mut recorder).map_err(|_| Error::Field {
            field: "the certificate table's size",
            offset: self.optional + 148,
            expected: "at most what is behind the sections",
            found: self.certificates.as_ref().map_or(0, ExactSizeIterator::len) as u64,
        })?;
        Ok(Preimage::new(recorder.pieces))
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
        // A section without bytes has no place; edk2 leaves it out.
        let start = if section.file_size == 0 { 0 } else { section.file_offset as usize };
        Ok(start..start.checked_add(section.file_size as usize).ok_or(PeOffsetError)?)
    }

    fn certificate_table_range(&self) -> Result<Option<Range<usize>>, PeOffsetError> {
        Ok(self.certificates.clone())
    }

    fn offsets(&self) -> Result<PeOffsets, PeOffsetError> {
        let check_sum = self.optional.checked_add(CHECK_SUM).ok_or(PeOffsetError)?;
        let after_check_sum = check_sum.checked_add(4).ok_or(PeOffsetError)?;
        // Without that directory nothing is left out.
        let (security_data_dir, after_security_data_dir) = match &self.certificates {
            Some(_) => {
                let entry =
                    self.optional.checked_add(OPTIONAL_HEADER + 8 * CERTIFICATES).ok_or(PeOffsetError)?;
                (entry, entry.checked_add(8).ok_or(PeOffsetError)?)
            }
            None => (after_check_sum, after_check_sum),
        };
        Ok(PeOffsets {
            check_sum,
            after_check_sum,
            security_data_dir,
            after_security_data_dir,
            after_header: self.headers,
        })
    }
}

/// Writes down what would be hashed instead of hashing it.
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
            // Neighbours become one range, which is what an auditor would hash.
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

    /// Makes an image of these sections, at multiples of 512 bytes.
    pub(crate) fn image(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut image = alloc::vec![0; HEADERS];
        set(&mut image, 0, b"MZ");
        set(&mut image, 60, &(PE as u32).to_le_bytes());
        set(&mut image, PE, b"PE\0\0");
        set(&mut image, PE + 4, &super::AMD64.to_le_bytes());
        set(&mut image, PE + 6, &(sections.len() as u16).to_le_bytes());
        set(&mut image, PE + 20, &240u16.to_le_bytes());
        set(&mut image, OPTIONAL, &super::MAGIC.to_le_bytes());
        set(&mut image, OPTIONAL + 60, &(HEADERS as u32).to_le_bytes());
        set(&mut image, OPTIONAL + 64, &0x1234_5678u32.to_le_bytes());
        set(&mut image, OPTIONAL + 108, &16u32.to_le_bytes());
        for (index, (name, content)) in sections.iter().enumerate() {
            let row = TABLE + 40 * index;
            let offset = image.len() as u32;
            let size = (content.len() as u32).next_multiple_of(512);
            set(&mut image, row, name.as_bytes());
            set(&mut image, row + 8, &(content.len() as u32).to_le_bytes());
            set(&mut image, row + 16, &size.to_le_bytes());
            set(&mut image, row + 20, &offset.to_le_bytes());
            image.extend_from_slice(content);
            image.resize((offset + size) as usize, 0);
        }
        image
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::specimen::{HEADERS, OPTIONAL, PE, TABLE, image, set};
    use super::*;
    use crate::digest::Algorithm;

    fn two() -> Vec<u8> {
        image(&[(".text", &[1; 700]), (".data", &[2; 100])])
    }

    fn digest(bytes: &[u8]) -> crate::digest::Digest {
        let pe = Pe::read(bytes).unwrap();
        pe.authenticode(0).unwrap().digests(Algorithm::Sha384)[0]
    }

    #[test]
    fn everything_but_checksum_and_certificates_is_hashed() {
        let bytes = two();
        let entry = OPTIONAL + 144;
        let pieces = [&bytes[..OPTIONAL + 64], &bytes[OPTIONAL + 68..entry], &bytes[entry + 8..]];
        assert_eq!(digest(&bytes), Algorithm::Sha384.of_pieces(pieces));
        let ranges = Pe::read(&bytes).unwrap().authenticode(0x1000).unwrap().ranges(0);
        let end = bytes.len() as u64;
        assert_eq!(ranges[0], (0x1000, OPTIONAL as u64 + 64));
        assert_eq!(ranges[2], (0x1000 + entry as u64 + 8, end - entry as u64 - 8));
        let mut changed = bytes.clone();
        set(&mut changed, OPTIONAL + 64, &[9; 4]);
        assert_eq!(digest(&changed), digest(&bytes));
        set(&mut changed, OPTIONAL + 68, &[9; 1]);
        assert_ne!(digest(&changed), digest(&bytes));
    }

    #[test]
    fn bytes_behind_the_sections_count_and_are_not_padded() {
        let mut bytes = two();
        let bare = digest(&bytes);
        bytes.extend([7; 3]);
        let entry = OPTIONAL + 144;
        let pieces = [&bytes[..OPTIONAL + 64], &bytes[OPTIONAL + 68..entry], &bytes[entry + 8..]];
        assert_eq!(digest(&bytes), Algorithm::Sha384.of_pieces(pieces));
        assert_ne!(digest(&bytes), bare);
    }

    #[test]
    fn a_signature_does_not_move_the_digest() {
        let mut signed = two();
        let start = signed.len() as u32;
        set(&mut signed, OPTIONAL + 144, &start.to_le_bytes());
        set(&mut signed, OPTIONAL + 148, &16u32.to_le_bytes());
        signed.extend([5; 16]);
        assert_eq!(digest(&signed), digest(&two()));
    }

    #[test]
    fn sections_are_hashed_by_their_place_in_the_file() {
        let mut bytes = two();
        let first: Vec<u8> = bytes[TABLE..TABLE + 40].to_vec();
        let second: Vec<u8> = bytes[TABLE + 40..TABLE + 80].to_vec();
        set(&mut bytes, TABLE, &second);
        set(&mut bytes, TABLE + 40, &first);
        let last = *Pe::read(&bytes).unwrap().authenticode(0).unwrap().ranges(0).last().unwrap();
        assert_eq!(last.0 + last.1, bytes.len() as u64);
        assert_eq!(last.0, OPTIONAL as u64 + 152);
    }

    #[test]
    fn a_section_without_bytes_may_stand_anywhere() {
        let mut bytes = two();
        set(&mut bytes, TABLE + 40 + 16, &[0; 4]);
        set(&mut bytes, TABLE + 40 + 20, &[0xff; 4]);
        assert!(Pe::read(&bytes).unwrap().authenticode(0).is_ok());
    }

    #[test]
    fn an_image_without_that_directory_is_hashed_whole() {
        let mut bytes = two();
        set(&mut bytes, OPTIONAL + 108, &4u32.to_le_bytes());
        let pieces = [&bytes[..OPTIONAL + 64], &bytes[OPTIONAL + 68..]];
        assert_eq!(digest(&bytes), Algorithm::Sha384.of_pieces(pieces));
    }

    #[test]
    fn content_is_that_of_memory_and_must_be_in_the_file() {
        let bytes = two();
        let pe = Pe::read(&bytes).unwrap();
        assert_eq!(pe.content(&pe.sections()[0]).unwrap(), Piece::of_file(HEADERS as u64, &[1; 700]));
        let mut larger = pe.sections()[0];
        larger.memory_size = 1025;
        assert!(matches!(pe.content(&larger), Err(Error::NotInFile { expected: 1025, found: 1024, .. })));
        assert!(pe.sections()[1].name.is(".data"));
        assert!(!pe.sections()[1].name.is(".dat") && !pe.sections()[1].name.is(".data1234"));
    }

    #[test]
    fn an_image_cut_anywhere_is_refused() {
        let bytes = two();
        for length in (0..bytes.len()).step_by(3) {
            assert!(Pe::read(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn fields_that_no_program_has_are_refused() {
        let refusal = |at, value: &[u8]| {
            let mut bytes = two();
            set(&mut bytes, at, value);
            Pe::read(&bytes).unwrap_err()
        };
        let field = |error| match error {
            Error::Field { field, .. } => field,
            other => panic!("{other}"),
        };
        assert_eq!(field(refusal(0, b"ZM")), "the DOS header's magic");
        assert!(matches!(refusal(60, &[0xff; 4]), Error::Truncated { what: "the headers", .. }));
        assert_eq!(field(refusal(PE, b"NE")), "the signature");
        assert_eq!(field(refusal(PE + 4, &[0x64, 0xaa])), "the machine");
        assert_eq!(field(refusal(PE + 6, &[0xff; 2])), "the number of sections");
        assert_eq!(field(refusal(OPTIONAL, &[0x0b, 1])), "the optional header's magic");
        assert_eq!(field(refusal(OPTIONAL + 108, &[0xff; 4])), "the number of data directories");
        assert_eq!(field(refusal(PE + 20, &[0; 2])), "the number of data directories");
        assert_eq!(field(refusal(OPTIONAL + 60, &[0; 4])), "the size of the headers");
        assert_eq!(field(refusal(OPTIONAL + 60, &[0xff; 4])), "the size of the headers");
        assert!(matches!(
            refusal(OPTIONAL + 148, &[1, 0, 0, 0xff]),
            Error::Truncated { what: "the certificate table", .. }
        ));
        assert_eq!(field(refusal(OPTIONAL + 148, &[1, 0, 0, 0])), "the certificate table's offset");
        assert!(matches!(refusal(TABLE + 20, &[0; 4]), Error::Overlap { found: 0, .. }));
        assert!(matches!(refusal(TABLE + 60, &[0, 9, 0, 0]), Error::Overlap { .. }));
        assert!(matches!(refusal(TABLE + 56, &[0xff; 4]), Error::Truncated { what: "a section", .. }));
    }
}
