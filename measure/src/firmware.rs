//! The sections of a TDVF firmware image, from its bytes.
//!
//! # Shape
//!
//! ```text
//! 0                 CFV: variables        BFV: code                                  both named by the sections
//! descriptor - 16   e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae
//! descriptor        "TDVF"  length u32  version u32 = 1  count u32                   little-endian
//!                   count x [data offset u32, data size u32, address u64, memory size u64, type u32, attributes u32]
//! end - 0x32        … [content, length u16, GUID] backwards from the footer 96b582de-1fb2-45f7-baea-a366c55a082d;
//!                   the content of e47a6535-984a-4798-865e-4685a7bf8ec2 ends in the descriptor's offset from the end
//! end - 0x20        the footer's end; td-shim has the descriptor's offset from the start here, and no table
//! ```
//!
//! # Source
//!
//! Intel TDX Virtual Firmware Design Guide, 11; edk2 `OvmfPkg/ResetVector/X64/IntelTdxMetadata.nasm.inc` and
//! `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm` (the table). Five images of Debian are read as other tools read them.
//!
//! # Not here
//!
//! The files inside the volumes ([`crate::volume`]), the variables ([`crate::variable`]).

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::field;
use crate::variable::{self, Store};

/// Where the table of GUIDs ends, from the end of the image.
const TABLE_END: usize = 0x20;
/// A GUID and the u16 before it.
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
/// A page of a TD's memory, in bytes.
pub const PAGE: u64 = 4096;
/// The most sections: QEMU's and td-shim's images have at most a dozen.
const MOST_SECTIONS: u32 = 64;
/// The most memory that one section may take: a kernel inside td-shim has some tens of MiB.
pub const MOST_MEMORY: u64 = 512 << 20;

/// An address in the guest's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gpa(pub u64);

/// Says what a section is for; TDX Virtual Firmware Design Guide, table 11-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Code: the boot firmware volume.
    Bfv,
    /// Variables: the configuration firmware volume.
    Cfv,
    /// Where the VMM writes the list of hand-off blocks.
    TdHob,
    /// Memory for the firmware's first steps.
    TempMem,
    /// Memory that the guest keeps.
    PermMem,
    /// A kernel inside the image.
    Payload,
    /// Its parameters.
    PayloadParameter,
    /// One that this code knows no use of.
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

/// One section: bytes of the image, and the memory that they are loaded into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// What it is for.
    pub kind: Kind,
    /// Where its bytes begin in the image.
    pub data_offset: u32,
    /// How many bytes of the image it has; the rest of its memory is zero.
    pub data_size: u32,
    /// Where it is in memory, at a page.
    pub address: Gpa,
    /// How much memory it takes, in whole pages, at most [`MOST_MEMORY`].
    pub memory_size: u64,
    /// Bit 0: the content is measured into MRTD; bit 1: its pages are added later, by the guest.
    pub attributes: u32,
}

impl Section {
    /// Tells whether its content is measured into MRTD.
    pub const fn content_is_measured(&self) -> bool {
        self.attributes & 1 != 0
    }

    /// Tells whether its pages are added by the guest, and thus not measured at all.
    pub const fn is_added_later(&self) -> bool {
        self.attributes & 2 != 0
    }

    /// Gives the address behind its memory.
    pub const fn end(&self) -> u64 {
        // The reader checked the sum.
        self.address.0.saturating_add(self.memory_size)
    }
}

/// Says why bytes are no TDVF image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The image ends inside a structure, or points outside of itself.
    #[error("firmware of {length} bytes: expected {needed} bytes of {what} at offset {offset:#x}")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Where it would begin.
        offset: u64,
        /// How long it would be.
        needed: u64,
        /// The image's length.
        length: usize,
    },
    /// There is no table of GUIDs, or none of its entries tells of a TD.
    #[error("firmware has no TDX metadata: expected the GUID {expected} at or before offset {offset:#x}")]
    NoMetadata {
        /// The GUID that is missing.
        expected: &'static str,
        /// Where the search ended.
        offset: usize,
    },
    /// A field has a value that is not allowed.
    #[error("firmware, {field} at offset {offset:#x}: expected {expected}, found {found:#x}")]
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
    /// Two sections share memory.
    #[error(
        "firmware sections {first} and {second} share memory: one ends at {end:#x}, the next begins at {start:#x}"
    )]
    Overlap {
        /// Index of the one at the lower address.
        first: usize,
        /// Index of the other.
        second: usize,
        /// Where the first ends.
        end: u64,
        /// Where the second begins.
        start: u64,
    },
    /// The file holds code and no variables.
    #[error("firmware is code alone, whose variables are in a file of their own: expected that file too")]
    CodeAlone {
        /// Why it does not begin with variables.
        source: variable::Error,
    },
    /// There is no section of this kind.
    #[error("firmware has no section of kind {kind:?}")]
    Missing {
        /// The kind.
        kind: Kind,
    },
}

/// A firmware image whose sections were read and lie inside it.
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
    /// [`Error`]: an image without metadata, cut short, with sections outside of it or over one another.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
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

    /// Reads an image; where no TD is asked for, it needs no metadata, has then no sections, and there is no MRTD of it.
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

    /// Gives the image as it lies in memory: Debian and others deliver code and variables in two files too, of which QEMU maps
    /// the variables right below the code. A file that begins with variables is the whole already, and is given back as it is.
    ///
    /// # Errors
    ///
    /// [`Error::CodeAlone`].
    pub fn joined<'f>(file: &'f [u8], variables: Option<&[u8]>) -> Result<Cow<'f, [u8]>, Error> {
        match (Store::read(file), variables) {
            (Ok(_), _) => Ok(file.into()),
            (Err(_), Some(variables)) => Ok([variables, file].concat().into()),
            // Whatever it begins with: what has its sections where the metadata say is whole.
            (Err(_), None) if Firmware::read(file).is_ok() => Ok(file.into()),
            (Err(source), None) => Err(Error::CodeAlone { source }),
        }
    }

    /// Gives the whole image.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Gives the sections, in the order of the metadata.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Gives the bytes of the image that a section is filled with.
    pub fn data(&self, section: &Section) -> &'a [u8] {
        field::bytes(self.bytes, section.data_offset as usize, section.data_size as usize).unwrap_or_default()
    }

    /// Gives the first section of a kind.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`].
    pub fn section(&self, kind: Kind) -> Result<&Section, Error> {
        self.sections.iter().find(|section| section.kind == kind).ok_or(Error::Missing { kind })
    }
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

/// Finds where the descriptor begins.
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
    // Each step goes at least 18 bytes back: no table is a circle.
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

/// td-shim: the descriptor's offset stands where the table would end.
fn descriptor_of_td_shim(bytes: &[u8], at: usize) -> Result<usize, Error> {
    let missing = Error::NoMetadata { expected: "96b582de-1fb2-45f7-baea-a366c55a082d", offset: at };
    let offset = field::u32(bytes, at).ok_or(missing.clone())? as usize;
    let guid = offset.checked_sub(16).and_then(|start| field::array::<16>(bytes, start));
    if guid == Some(DESCRIPTOR_GUID) { Ok(offset) } else { Err(missing) }
}

#[cfg(test)]
pub(crate) mod specimen {
    use super::*;

    /// Makes an image of 64 KiB with these sections, whose metadata stands before the table.
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

    /// Code and variables as OVMF has them, small.
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
    use super::specimen::{image, put, sections};
    use super::*;

    #[test]
    fn code_alone_is_joined_with_its_variables_and_a_whole_image_is_left_alone() {
        let code = Section { data_offset: 0x1000, data_size: 0xf000, memory_size: 0xf000, ..sections()[0] };
        let whole = image(&[code]);
        assert_eq!(Firmware::joined(&whole, None), Ok(Cow::Borrowed(whole.as_slice())));
        let (variables, code) = whole.split_at(0x1000);
        let refused = Firmware::joined(code, None).unwrap_err();
        assert!(matches!(refused, Error::CodeAlone { .. }), "{refused}");
        assert_eq!(Firmware::joined(code, Some(variables)), Ok(Cow::Owned(whole.clone())));
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
    fn metadata_of_td_shim_are_found_by_their_offset() {
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
        // With its end alone the sections' data are outside.
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
    fn a_table_that_leads_in_a_circle_or_outside_is_refused() {
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
    fn a_count_of_sections_that_no_image_has_is_refused() {
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
    fn another_signature_or_version_is_refused() {
        for at in [0xf000, 0xf008] {
            let mut bytes = image(&sections());
            put(&mut bytes, at, &2u32.to_le_bytes());
            assert!(matches!(Firmware::read(&bytes), Err(Error::Field { offset, .. }) if offset == at));
        }
    }

    #[test]
    fn sections_outside_of_the_image_or_of_memory_are_refused() {
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
