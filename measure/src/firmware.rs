//! The sections of a TDVF firmware image, from its bytes.
//!
//! # Shape
//!
//! ```text
//! 0                 CFV: variables        BFV: code                                  both listed as sections
//! descriptor - 16   e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae
//! descriptor        "TDVF"  length u32  version u32 = 1  count u32                   little-endian
//!                   count x [data offset u32, data size u32, address u64, memory size u64, type u32, attributes u32]
//! end - 0x32        … [content, length u16, GUID], read backwards from the footer 96b582de-1fb2-45f7-baea-a366c55a082d;
//!                   entry e47a6535-984a-4798-865e-4685a7bf8ec2 ends with the descriptor's offset from the end
//! end - 0x20        end of the footer; td-shim has no table, but the descriptor's offset from the start here
//! ```
//!
//! # Source
//!
//! Intel TDX Virtual Firmware Design Guide, 11; edk2 `OvmfPkg/ResetVector/X64/IntelTdxMetadata.nasm.inc` and
//! `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm` (the table). Checked with five images of Debian against other tools.
//!
//! # Not here
//!
//! The files inside the volumes ([`crate::volume`]), the variables ([`crate::variable`]).

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::field;
use crate::variable::{self, Store};

/// The end of the GUID table, counted from the end of the image.
const TABLE_END: usize = 0x20;
/// Size of an entry's length and GUID.
const ENTRY: usize = 18;
/// 96b582de-1fb2-45f7-baea-a366c55a082d.
const FOOTER: [u8; 16] =
    [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
/// e47a6535-984a-4798-865e-4685a7bf8ec2.
const METADATA_OFFSET: [u8; 16] =
    [0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2];
/// e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae.
const DESCRIPTOR_GUID: [u8; 16] =
    [0xf3, 0xf9, 0xea, 0xe9, 0x8e, 0x16, 0xd5, 0x44, 0xa8, 0xeb, 0x7f, 0x4d, 0x87, 0x38, 0xf6, 0xae];
const DESCRIPTOR: usize = 16;
const SECTION: usize = 32;
/// Size of a page of a TD's memory in bytes.
pub const PAGE: u64 = 4096;
/// The maximum number of sections; images of OVMF and td-shim have at most a dozen.
const MOST_SECTIONS: u32 = 64;
/// The maximum memory of a section in bytes; a kernel inside td-shim takes some tens of MiB.
pub const MOST_MEMORY: u64 = 512 << 20;

/// A guest physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gpa(pub u64);

/// A section's type; TDX Virtual Firmware Design Guide, table 11-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Code: the boot firmware volume.
    Bfv,
    /// Variables: the configuration firmware volume.
    Cfv,
    /// Where the VMM writes the hand-off blocks.
    TdHob,
    /// Temporary memory of the firmware.
    TempMem,
    /// Memory that the guest keeps.
    PermMem,
    /// A kernel inside the image.
    Payload,
    /// The kernel's parameters.
    PayloadParameter,
    /// Any other type.
    Other(u32),
}

impl From<u32> for Kind {
    fn from(kind: u32) -> Kind {
        match kind {
            0 => Kind::Bfv,
            1 => Kind::Cfv,
            2 => Kind::TdHob,
            3 => Kind::TempMem,
            4 => Kind::PermMem,
            5 => Kind::Payload,
            6 => Kind::PayloadParameter,
            other => Kind::Other(other),
        }
    }
}

/// A section: bytes of the image, and the memory that they are loaded into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Its type.
    pub kind: Kind,
    /// Offset of its bytes in the image.
    pub data_offset: u32,
    /// Number of its bytes in the image; the rest of its memory is zero.
    pub data_size: u32,
    /// Its address in memory, page-aligned.
    pub address: Gpa,
    /// Its size in memory: whole pages, at most [`MOST_MEMORY`].
    pub memory_size: u64,
    /// Bit 0: MR.EXTEND, the content is measured into MRTD. Bit 1: PAGE.AUG, the pages are added after MRTD is final.
    pub attributes: u32,
}

impl Section {
    /// Tells whether its content is measured into MRTD.
    pub const fn content_is_measured(&self) -> bool {
        self.attributes & 1 != 0
    }

    /// Tells whether its pages are added after MRTD is final, and thus not measured at all.
    pub const fn is_added_later(&self) -> bool {
        self.attributes & 2 != 0
    }

    /// Returns the end of its memory.
    pub const fn end(&self) -> u64 {
        // The reader checked the sum.
        self.address.0.saturating_add(self.memory_size)
    }
}

/// Bytes are not a valid firmware image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A structure lies outside the image.
    #[error("firmware of {length} bytes: expected {needed} bytes of {what} at offset {offset:#x}")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Its offset.
        offset: u64,
        /// Its length.
        needed: u64,
        /// The image's length.
        length: usize,
    },
    /// There is no GUID table, or no TDX entry in it.
    #[error("firmware has no TDX metadata: expected the GUID {expected} at or before offset {offset:#x}")]
    NoMetadata {
        /// The missing GUID.
        expected: &'static str,
        /// Where the search ended.
        offset: usize,
    },
    /// A field has a value that is not allowed.
    #[error("firmware, {field} at offset {offset:#x}: expected {expected}, found {found:#x}")]
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
    /// Two sections share memory.
    #[error(
        "firmware sections {first} and {second} share memory: one ends at {end:#x}, the next begins at {start:#x}"
    )]
    Overlap {
        /// Index of the one with the lower address.
        first: usize,
        /// Index of the other.
        second: usize,
        /// Where the first ends.
        end: u64,
        /// Where the second begins.
        start: u64,
    },
    /// The file does not fill whole pages, of which a TD is built.
    #[error(
        "firmware of {length} bytes: expected whole pages of 4096 bytes, since no TD can be built from less"
    )]
    Pages {
        /// The file's length.
        length: usize,
    },
    /// The variables do not fit the code.
    #[error("variable store of {found} bytes: expected {expected}")]
    StoreSize {
        /// The length that fits.
        expected: String,
        /// The file's length.
        found: usize,
    },
    /// The file has code but no variables.
    #[error("firmware file has code only: expected the file with its variables too")]
    CodeAlone {
        /// Why the file does not start with variables.
        source: variable::Error,
    },
    /// There is no section of this type.
    #[error("firmware has no {kind:?} section")]
    Missing {
        /// The type.
        kind: Kind,
    },
}

/// A firmware image with valid sections.
#[derive(Debug, Clone)]
pub struct Firmware<'a> {
    bytes: &'a [u8],
    sections: Vec<Section>,
}

impl<'a> Firmware<'a> {
    /// Reads the metadata of an image.
    ///
    /// # Errors
    ///
    /// [`Error`]: no whole pages, no metadata, a truncated image, sections outside the image or overlapping in memory.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        if !bytes.len().is_multiple_of(PAGE as usize) {
            return Err(Error::Pages { length: bytes.len() });
        }
        let descriptor = descriptor(bytes)?;
        let truncated = |what, offset: usize, needed: usize| Error::Truncated {
            what,
            offset: offset as u64,
            needed: needed as u64,
            length: bytes.len(),
        };
        let header = field::bytes(bytes, descriptor, DESCRIPTOR)
            .ok_or_else(|| truncated("the TDX metadata", descriptor, DESCRIPTOR))?;
        let word = |offset| field::u32(header, offset).unwrap_or_default();
        let wrong = |field, at: usize, expected, found: u32| {
            Err(Error::Field { field, offset: descriptor.saturating_add(at), expected, found: found.into() })
        };
        if header.get(..4) != Some(b"TDVF") {
            return wrong("the metadata's signature", 0, "\"TDVF\"", word(0));
        }
        if word(8) != 1 {
            return wrong("the metadata's version", 8, "1", word(8));
        }
        let count = word(12);
        if count > MOST_SECTIONS {
            return wrong("the number of sections", 12, "at most 64", count);
        }
        let table = descriptor.saturating_add(DESCRIPTOR);
        let mut sections = Vec::new();
        for index in 0..count as usize {
            let offset = table.saturating_add(index.saturating_mul(SECTION));
            let row = field::bytes(bytes, offset, SECTION)
                .ok_or_else(|| truncated("a TDX section's description", offset, SECTION))?;
            sections.push(section(bytes, row, offset)?);
        }
        check_overlap(&sections)?;
        Ok(Firmware { bytes, sections })
    }

    /// Reads an image. Without `td`, metadata are optional; an image that lacks them has no sections and no MRTD.
    ///
    /// # Errors
    ///
    /// Those of [`Firmware::read`].
    pub fn read_for(bytes: &'a [u8], td: bool) -> Result<Self, Error> {
        match Firmware::read(bytes) {
            Err(Error::NoMetadata { .. }) if !td => Ok(Firmware { bytes, sections: Vec::new() }),
            read => read,
        }
    }

    /// Returns the image as mapped in memory. Distributions also ship code and variables as two files, and QEMU maps the
    /// variables right below the code. In a file that starts with variables, those given take the place of its own.
    ///
    /// # Errors
    ///
    /// [`Error::CodeAlone`]; [`Error::StoreSize`] for variables that are made for another build of the code.
    pub fn joined<'f>(file: &'f [u8], variables: Option<&[u8]>) -> Result<Cow<'f, [u8]>, Error> {
        match (Store::read(file), variables) {
            (Ok(_), None) => Ok(file.into()),
            (Ok(_), Some(variables)) => {
                check_store(variables, file)?;
                let code = file.get(variables.len()..).unwrap_or_default();
                Ok([variables, code].concat().into())
            }
            (Err(_), Some(variables)) => {
                let joined = [variables, file].concat();
                check_joined(variables, &joined)?;
                Ok(joined.into())
            }
            // An image whose sections are where its metadata say is complete, whatever it starts with.
            (Err(_), None) if Firmware::read(file).is_ok() => Ok(file.into()),
            (Err(source), None) => Err(Error::CodeAlone { source }),
        }
    }

    /// Returns the whole image.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the sections, in the order of the metadata.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Returns a section's bytes in the image.
    pub fn data(&self, section: &Section) -> &'a [u8] {
        field::bytes(self.bytes, section.data_offset as usize, section.data_size as usize).unwrap_or_default()
    }

    /// Returns the first section of a type.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`].
    pub fn section(&self, kind: Kind) -> Result<&Section, Error> {
        self.sections.iter().find(|section| section.kind == kind).ok_or(Error::Missing { kind })
    }
}

/// Checks that a variable store can replace the one that `own` starts with.
///
/// # Errors
///
/// [`Error::StoreSize`]: code finds its variables at fixed addresses, so both lengths, in the header and of the file, must
/// be the same.
pub fn check_store(variables: &[u8], own: &[u8]) -> Result<(), Error> {
    let expected = volume_length(own).unwrap_or(own.len() as u64);
    let found = variables.len();
    match found as u64 == expected && volume_length(variables).is_none_or(|length| length == expected) {
        true => Ok(()),
        false => {
            let expected = alloc::format!("{expected}, the length of the firmware's own");
            Err(Error::StoreSize { expected, found })
        }
    }
}

/// Checks that `joined`, which starts with the variables, is an image that a build makes: OVMF's have 1, 2 or 4 MiB, and a
/// variable store fills its file (edk2 `OvmfPkg/Include/Fdf/OvmfPkgDefines.fdf.inc`).
fn check_joined(variables: &[u8], joined: &[u8]) -> Result<(), Error> {
    let found = variables.len();
    let wrong = |expected| Err(Error::StoreSize { expected, found });
    if let Some(length) = volume_length(variables).filter(|length| *length != found as u64) {
        return wrong(alloc::format!("{length}, the length in its header"));
    }
    if let Ok(firmware) = Firmware::read(joined)
        && let Ok(cfv) = firmware.section(Kind::Cfv)
        && cfv.data_size as usize != found
    {
        return wrong(alloc::format!("{}, as the metadata of the code say", cfv.data_size));
    }
    if !joined.len().is_power_of_two() {
        let code = joined.len().saturating_sub(found);
        let whole = code.checked_next_power_of_two().unwrap_or_default();
        let missing = whole.saturating_sub(code);
        return wrong(alloc::format!("{missing}, which makes {whole} of the code's {code} bytes"));
    }
    Ok(())
}

/// Returns the length in the header of the firmware volume that the bytes start with.
fn volume_length(bytes: &[u8]) -> Option<u64> {
    field::bytes(bytes, 40, 4).filter(|signature| *signature == b"_FVH")?;
    field::u64(bytes, 32)
}

fn section(image: &[u8], row: &[u8], offset: usize) -> Result<Section, Error> {
    let u32_at = |at| field::u32(row, at).unwrap_or_default();
    let u64_at = |at| field::u64(row, at).unwrap_or_default();
    let section = Section {
        data_offset: u32_at(0),
        data_size: u32_at(4),
        address: Gpa(u64_at(8)),
        memory_size: u64_at(16),
        kind: Kind::from(u32_at(24)),
        attributes: u32_at(28),
    };
    let wrong = |field, at: usize, expected, found| {
        Err(Error::Field { field, offset: offset.saturating_add(at), expected, found })
    };
    if field::bytes(image, section.data_offset as usize, section.data_size as usize).is_none() {
        return Err(Error::Truncated {
            what: "a section's data",
            offset: section.data_offset.into(),
            needed: section.data_size.into(),
            length: image.len(),
        });
    }
    if !section.address.0.is_multiple_of(PAGE) {
        return wrong("a section's address", 8, "a multiple of 0x1000", section.address.0);
    }
    if !section.memory_size.is_multiple_of(PAGE) || section.memory_size > MOST_MEMORY {
        return wrong("a section's memory size", 16, "whole pages, at most 512 MiB", section.memory_size);
    }
    if section.address.0.checked_add(section.memory_size).is_none() {
        return wrong("a section's address", 8, "memory that ends below 2^64", section.address.0);
    }
    if u64::from(section.data_size) > section.memory_size {
        return wrong("a section's data size", 4, "at most its memory size", section.data_size.into());
    }
    Ok(section)
}

fn check_overlap(sections: &[Section]) -> Result<(), Error> {
    let mut order: Vec<usize> =
        (0..sections.len()).filter(|i| sections.get(*i).is_some_and(|s| s.memory_size > 0)).collect();
    order.sort_by_key(|index| sections.get(*index).map(|section| section.address));
    for pair in order.windows(2) {
        let [first, second] = pair else { continue };
        if let (Some(low), Some(high)) = (sections.get(*first), sections.get(*second))
            && low.end() > high.address.0
        {
            return Err(Error::Overlap {
                first: *first,
                second: *second,
                end: low.end(),
                start: high.address.0,
            });
        }
    }
    Ok(())
}

/// Finds the descriptor's offset.
fn descriptor(bytes: &[u8]) -> Result<usize, Error> {
    let length = bytes.len();
    let short = Error::Truncated { what: "the table of GUIDs", offset: 0, needed: 0x32, length };
    let table_end = length.checked_sub(TABLE_END).ok_or(short.clone())?;
    let footer = table_end.checked_sub(ENTRY).ok_or(short)?;
    if field::array::<16>(bytes, footer.saturating_add(2)) != Some(FOOTER) {
        return descriptor_of_td_shim(bytes, table_end);
    }
    let total = usize::from(field::u16(bytes, footer).unwrap_or_default());
    let start = table_end.checked_sub(total).filter(|_| total >= ENTRY).ok_or(Error::Field {
        field: "the length of the table of GUIDs",
        offset: footer,
        expected: "18 bytes or more, inside the image",
        found: total as u64,
    })?;
    let missing = |offset| Error::NoMetadata { expected: "e47a6535-984a-4798-865e-4685a7bf8ec2", offset };
    // Each step goes back at least 18 bytes: the loop ends.
    let mut end = footer;
    while end.checked_sub(ENTRY).is_some_and(|entry| entry >= start) {
        let entry = end.saturating_sub(ENTRY);
        let size = usize::from(field::u16(bytes, entry).unwrap_or_default());
        let next =
            end.checked_sub(size).filter(|next| size >= ENTRY && *next >= start).ok_or(Error::Field {
                field: "the length of an entry of the table of GUIDs",
                offset: entry,
                expected: "18 bytes or more, inside the table",
                found: size as u64,
            })?;
        if field::array::<16>(bytes, entry.saturating_add(2)) == Some(METADATA_OFFSET) {
            let at = entry.checked_sub(4).filter(|at| *at >= next).ok_or(missing(entry))?;
            let back = field::u32(bytes, at).unwrap_or_default();
            let descriptor = length.checked_sub(back as usize);
            return descriptor.ok_or(Error::Field {
                field: "the offset of the TDX metadata from the end",
                offset: at,
                expected: "at most the image's length",
                found: back.into(),
            });
        }
        end = next;
    }
    Err(missing(start))
}

/// td-shim has the descriptor's offset where OVMF's table ends.
fn descriptor_of_td_shim(bytes: &[u8], at: usize) -> Result<usize, Error> {
    let missing = Error::NoMetadata { expected: "96b582de-1fb2-45f7-baea-a366c55a082d", offset: at };
    let offset = field::u32(bytes, at).ok_or(missing.clone())? as usize;
    let guid = offset.checked_sub(16).and_then(|start| field::array::<16>(bytes, start));
    if guid == Some(DESCRIPTOR_GUID) { Ok(offset) } else { Err(missing) }
}

#[cfg(test)]
pub(crate) mod specimen {
    use super::*;

    /// Makes an image of 64 KiB with these sections.
    pub(crate) fn image(sections: &[Section]) -> Vec<u8> {
        let mut image: Vec<u8> = (0..0x10000u32).map(|at| (at % 251) as u8).collect();
        let descriptor = 0xf000;
        put(&mut image, descriptor - 16, &DESCRIPTOR_GUID);
        put(&mut image, descriptor, b"TDVF");
        put(&mut image, descriptor + 4, &((DESCRIPTOR + SECTION * sections.len()) as u32).to_le_bytes());
        put(&mut image, descriptor + 8, &1u32.to_le_bytes());
        put(&mut image, descriptor + 12, &(sections.len() as u32).to_le_bytes());
        for (index, section) in sections.iter().enumerate() {
            let kind = match section.kind {
                Kind::Bfv => 0,
                Kind::Cfv => 1,
                Kind::TdHob => 2,
                Kind::TempMem => 3,
                Kind::PermMem => 4,
                Kind::Payload => 5,
                Kind::PayloadParameter => 6,
                Kind::Other(other) => other,
            };
            let at = descriptor + DESCRIPTOR + index * SECTION;
            put(&mut image, at, &section.data_offset.to_le_bytes());
            put(&mut image, at + 4, &section.data_size.to_le_bytes());
            put(&mut image, at + 8, &section.address.0.to_le_bytes());
            put(&mut image, at + 16, &section.memory_size.to_le_bytes());
            put(&mut image, at + 24, &u32::to_le_bytes(kind));
            put(&mut image, at + 28, &section.attributes.to_le_bytes());
        }
        let end = image.len() - TABLE_END;
        put(&mut image, end - 16, &FOOTER);
        put(&mut image, end - 18, &40u16.to_le_bytes());
        put(&mut image, end - 34, &METADATA_OFFSET);
        put(&mut image, end - 36, &22u16.to_le_bytes());
        put(&mut image, end - 40, &((0x10000 - descriptor) as u32).to_le_bytes());
        image
    }

    pub(crate) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Sections like OVMF's, but small.
    pub(crate) fn sections() -> Vec<Section> {
        let section = |kind, data_offset, data_size, address, memory_size, attributes| Section {
            kind,
            data_offset,
            data_size,
            address: Gpa(address),
            memory_size,
            attributes,
        };
        alloc::vec![
            section(Kind::Bfv, 0x2000, 0x3000, 0xffff_2000, 0x3000, 1),
            section(Kind::Cfv, 0, 0x2000, 0xffff_0000, 0x2000, 0),
            section(Kind::TempMem, 0, 0, 0x81_0000, 0x1_0000, 0),
            section(Kind::TdHob, 0, 0, 0x80_9000, 0x2000, 0),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use alloc::string::ToString;

    use super::specimen::{image, put, sections};
    use super::*;

    #[test]
    fn code_only_is_joined_with_its_variables_and_a_whole_image_is_unchanged() {
        let code = Section { data_offset: 0x1000, data_size: 0xf000, memory_size: 0xf000, ..sections()[0] };
        let whole = image(&[code]);
        assert_eq!(Firmware::joined(&whole, None), Ok(Cow::Borrowed(whole.as_slice())));
        let (variables, code) = whole.split_at(0x1000);
        let refused = Firmware::joined(code, None).unwrap_err();
        assert!(matches!(refused, Error::CodeAlone { .. }), "{refused}");
        assert_eq!(Firmware::joined(code, Some(variables)), Ok(Cow::Owned(whole.clone())));
    }

    /// A volume header that says this length, in a file of this length.
    fn volume(says: u64, length: usize) -> Vec<u8> {
        let mut bytes = crate::variable::specimen::store(&[]);
        put(&mut bytes, 32, &says.to_le_bytes());
        bytes.resize(length, 0xff);
        bytes
    }

    #[test]
    fn variables_of_another_build_than_the_code_s_are_refused() {
        // The lengths of OVMF's two builds: variables, code.
        let builds = [(0x2_0000, 0x1e_0000), (0x8_4000, 0x37_c000)];
        for (variables, code) in builds {
            let given = volume(variables as u64, variables);
            let code = alloc::vec![0; code];
            assert_eq!(Firmware::joined(&code, Some(&given)).unwrap().len(), variables + code.len());
            // The same file cut, and with a header of another length.
            let cut = Firmware::joined(&code, Some(&given[..variables - 0x1000]));
            assert!(matches!(cut, Err(Error::StoreSize { .. })), "{cut:?}");
            let other = Firmware::joined(&code, Some(&volume(0x1000, variables)));
            assert!(matches!(other, Err(Error::StoreSize { .. })), "{other:?}");
        }
        for (index, other) in [(0, 1), (1, 0)] {
            let variables = volume(builds[index].0 as u64, builds[index].0);
            let error = Firmware::joined(&alloc::vec![0; builds[other].1], Some(&variables)).unwrap_err();
            let expected = alloc::format!("expected {},", builds[other].0);
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }

    #[test]
    fn variables_replace_those_of_a_whole_image_of_the_same_build_only() {
        let whole = [volume(0x2_0000, 0x2_0000), alloc::vec![7; 0x1e_0000]].concat();
        let mut given = volume(0x2_0000, 0x2_0000);
        given[0x1_0000] = 1;
        let joined = Firmware::joined(&whole, Some(&given)).unwrap();
        assert_eq!((&joined[..0x2_0000], &joined[0x2_0000..]), (&given[..], &whole[0x2_0000..]));
        for other in [volume(0x8_4000, 0x8_4000), volume(0x8_4000, 0x2_0000), volume(0x2_0000, 0x2_1000)] {
            let error = Firmware::joined(&whole, Some(&other)).unwrap_err();
            assert!(matches!(error, Error::StoreSize { .. }), "{error}");
        }
    }

    #[test]
    fn code_with_metadata_takes_the_variables_that_they_describe_only() {
        let bytes = image(&sections());
        let (variables, code) = bytes.split_at(0x2000);
        assert!(Firmware::joined(code, Some(variables)).is_ok());
        let mut other = sections();
        other[1].data_size = 0x1000;
        let bytes = image(&other);
        let error = Firmware::joined(&bytes[0x2000..], Some(&bytes[..0x2000])).unwrap_err();
        assert!(error.to_string().contains("expected 4096, as the metadata"), "{error}");
    }

    #[test]
    fn a_file_that_does_not_end_on_a_page_is_refused() {
        let bytes = image(&sections());
        // Metadata are found from the end: bytes in front of them or a cut there do not hide them.
        let longer = |count| [alloc::vec![0; count], bytes.clone()].concat();
        for count in [1, 0x800, 0xfff, 0x1001] {
            let length = bytes.len() + count;
            assert_eq!(Firmware::read(&longer(count)).unwrap_err(), Error::Pages { length });
            assert_eq!(Firmware::read_for(&longer(count), false).unwrap_err(), Error::Pages { length });
        }
        let length = bytes.len() - 1;
        assert_eq!(Firmware::read(&bytes[1..]).unwrap_err(), Error::Pages { length });
        assert!(Firmware::read(&longer(0x1000)).is_ok());
    }

    #[test]
    fn sections_are_read_in_the_order_of_the_metadata() {
        let bytes = image(&sections());
        let firmware = Firmware::read(&bytes).unwrap();
        assert_eq!(firmware.sections(), sections());
        assert_eq!(firmware.data(&sections()[0]), &bytes[0x2000..0x5000]);
        assert_eq!(firmware.section(Kind::Cfv).unwrap().memory_size, 0x2000);
        assert_eq!(firmware.section(Kind::Payload), Err(Error::Missing { kind: Kind::Payload }));
    }

    #[test]
    fn td_shim_metadata_are_found_by_their_offset() {
        let mut bytes = image(&sections());
        let end = bytes.len() - TABLE_END;
        put(&mut bytes, end - 40, &[0; 40]);
        put(&mut bytes, end, &0xf000u32.to_le_bytes());
        assert_eq!(Firmware::read(&bytes).unwrap().sections(), sections());
        put(&mut bytes, end, &0xf001u32.to_le_bytes());
        assert!(matches!(Firmware::read(&bytes), Err(Error::NoMetadata { .. })));
    }

    #[test]
    fn an_image_cut_anywhere_is_refused() {
        let bytes = image(&sections());
        for length in (0..bytes.len()).step_by(7) {
            assert!(Firmware::read(&bytes[..length]).is_err(), "{length}");
        }
        // With only the end of the image, the sections' data are missing.
        assert!(matches!(Firmware::read(&bytes[0xe000..]), Err(Error::Truncated { .. })));
    }

    #[test]
    fn an_image_without_metadata_is_refused() {
        let mut bytes = image(&sections());
        let end = bytes.len() - TABLE_END;
        put(&mut bytes, end - 34, &[7; 16]);
        assert!(
            matches!(Firmware::read(&bytes), Err(Error::NoMetadata { offset, .. }) if offset == end - 40)
        );
        assert!(matches!(Firmware::read(&[0; 0x1000]), Err(Error::NoMetadata { .. })));
        assert!(matches!(Firmware::read_for(&[0; 0x1000], true), Err(Error::NoMetadata { .. })));
        assert!(Firmware::read_for(&[0; 0x1000], false).unwrap().sections().is_empty());
    }

    #[test]
    fn a_guid_table_with_invalid_lengths_is_refused() {
        for size in [0u16, 17, 23, 0xffff] {
            let mut bytes = image(&sections());
            let end = bytes.len() - TABLE_END;
            put(&mut bytes, end - 36, &size.to_le_bytes());
            let error = Firmware::read(&bytes).unwrap_err();
            assert!(
                matches!(error, Error::Field { field: "the length of an entry of the table of GUIDs", .. }),
                "{error}"
            );
        }
        for total in [0u16, 17, 0xffff] {
            let mut bytes = image(&sections());
            let end = bytes.len() - TABLE_END;
            put(&mut bytes, end - 18, &total.to_le_bytes());
            assert!(Firmware::read(&bytes).is_err(), "{total}");
        }
    }

    #[test]
    fn too_many_sections_are_refused() {
        let mut bytes = image(&sections());
        put(&mut bytes, 0xf00c, &u32::MAX.to_le_bytes());
        let error = Firmware::read(&bytes).unwrap_err();
        assert_eq!(
            error,
            Error::Field {
                field: "the number of sections",
                offset: 0xf00c,
                expected: "at most 64",
                found: u32::MAX.into()
            }
        );
    }

    #[test]
    fn a_wrong_signature_or_version_is_refused() {
        for at in [0xf000, 0xf008] {
            let mut bytes = image(&sections());
            put(&mut bytes, at, &2u32.to_le_bytes());
            assert!(matches!(Firmware::read(&bytes), Err(Error::Field { offset, .. }) if offset == at));
        }
    }

    #[test]
    fn sections_outside_the_image_or_memory_are_refused() {
        let refusal = |change: fn(&mut Section)| {
            let mut sections = sections();
            change(&mut sections[0]);
            Firmware::read(&image(&sections)).unwrap_err()
        };
        assert!(matches!(
            refusal(|s| s.data_offset = 0xff_ffff),
            Error::Truncated { what: "a section's data", .. }
        ));
        assert!(matches!(refusal(|s| s.data_offset = u32::MAX), Error::Truncated { .. }));
        assert!(matches!(
            refusal(|s| s.memory_size = 0x2000),
            Error::Field { field: "a section's data size", .. }
        ));
        assert!(matches!(
            refusal(|s| s.memory_size = 0x3001),
            Error::Field { field: "a section's memory size", .. }
        ));
        assert!(matches!(
            refusal(|s| s.memory_size = 1 << 40),
            Error::Field { field: "a section's memory size", .. }
        ));
        assert!(matches!(refusal(|s| s.address = Gpa(1)), Error::Field { field: "a section's address", .. }));
        assert!(matches!(
            refusal(|s| s.address = Gpa(!0xfff)),
            Error::Field { field: "a section's address", .. }
        ));
    }

    #[test]
    fn sections_that_share_memory_are_refused() {
        let mut sections = sections();
        sections[3].address = Gpa(0x81_f000);
        let error = Firmware::read(&image(&sections)).unwrap_err();
        assert_eq!(error, Error::Overlap { first: 2, second: 3, end: 0x82_0000, start: 0x81_f000 });
    }
}
