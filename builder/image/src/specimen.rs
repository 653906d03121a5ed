//! Yields a small well-formed PE image for tests.

use ovmf_measure::pe::{
    DLL_CHARACTERISTICS, EFI_APPLICATION, NX_COMPAT, Name, SECTION_HEADER, SIZE_OF_IMAGE,
};

/// The length of the optional header up to its data directories.
const OPTIONAL_HEADER: usize = 112;

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
    set(&mut image, PE + 4, &0x8664u16.to_le_bytes());
    set(&mut image, PE + 6, &(sections.len() as u16).to_le_bytes());
    set(&mut image, PE + 20, &240u16.to_le_bytes());
    set(&mut image, OPTIONAL, &0x20bu16.to_le_bytes());
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
        set(&mut image, row, &Name::new(name).unwrap().0);
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
