use proptest::prelude::*;
use sha2::{Sha256, Sha384};

use super::specimen::{HEADERS, OPTIONAL, PE, TABLE, image, set};
use super::*;

fn two() -> Vec<u8> {
    image(&[(".text", &[0x90; 700]), (".sbat", b"sbat,1,\n")])
}

/// The specimen image with bytes set at an offset.
fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut changed = two();
    set(&mut changed, offset, bytes);
    changed
}

fn refused_field(image: &[u8]) -> &'static str {
    match Pe::read(image) {
        Err(Error::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

/// Row and column of the section table.
fn cell(index: usize, offset: usize) -> usize {
    TABLE + SECTION_HEADER * index + offset
}

#[test]
fn sections_are_read_and_extracted_without_padding() {
    let bytes = two();
    let read = Pe::read(&bytes).unwrap();
    let names: Vec<String> = read.sections().iter().map(|section| section.name.to_string()).collect();
    assert_eq!(names, [".text", ".sbat"]);
    assert_eq!(read.extract(".text").unwrap(), [0x90; 700]);
    assert_eq!(read.extract(".sbat").unwrap(), b"sbat,1,\n");
    assert_eq!(read.subsystem(), EFI_APPLICATION);
    assert!(read.certificates().is_empty());
}

#[test]
fn every_truncation_is_refused() {
    let bytes = two();
    for length in 0..bytes.len() {
        assert!(Pe::read(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_header_beyond_the_file_is_refused() {
    for offset in [0x3d0u32, 0xffff_fffc, u32::MAX] {
        assert!(Pe::read(&with(0x3c, &offset.to_le_bytes())).is_err());
    }
    let error = Pe::read(b"MZ").unwrap_err();
    assert_eq!(error.to_string(), "PE image ends at 2, expected 4 bytes of PE header offset at offset 0x3c");
}

#[test]
fn every_field_outside_of_its_range_is_refused() {
    let wrong: &[(usize, &[u8], &str)] = &[
        (0, b"ZM", "DOS signature"),
        (0x3c, &[0x3f, 0, 0, 0], "PE header offset"),
        (PE, b"PE\0\x01", "PE signature"),
        (PE + 4, &0x014cu16.to_le_bytes(), "machine"),
        (PE + 4, &0xaa64u16.to_le_bytes(), "machine"),
        (PE + 6, &[0, 0], "number of sections"),
        (PE + 6, &[97, 0], "number of sections"),
        (PE + 20, &[239, 0], "size of optional header"),
        (OPTIONAL, &0x10bu16.to_le_bytes(), "optional header magic"),
        (OPTIONAL + 36, &[0; 4], "file alignment"),
        (OPTIONAL + 36, &3u32.to_le_bytes(), "file alignment"),
        (OPTIONAL + 36, &0x20000u32.to_le_bytes(), "file alignment"),
        (OPTIONAL + 32, &0x100u32.to_le_bytes(), "section alignment"),
        (OPTIONAL + 32, &0x1800u32.to_le_bytes(), "section alignment"),
        (OPTIONAL + SIZE_OF_IMAGE, &0x2000u32.to_le_bytes(), "size of image"),
        (OPTIONAL + 60, &0x100u32.to_le_bytes(), "size of headers"),
        (OPTIONAL + 108, &17u32.to_le_bytes(), "number of data directories"),
        (cell(0, 12), &0x1001u32.to_le_bytes(), "section address"),
    ];
    for (offset, bytes, field) in wrong {
        assert_eq!(refused_field(&with(*offset, bytes)), *field, "{offset:#x}");
    }
}

#[test]
fn sections_beyond_the_file_are_refused() {
    for (offset, value) in [(16, 0x1_0000u32), (20, 0x1_0000), (20, u32::MAX), (16, u32::MAX)] {
        let error = Pe::read(&with(cell(1, offset), &value.to_le_bytes())).unwrap_err();
        assert!(matches!(error, Error::Truncated { what: "a section", .. }), "{error}");
    }
}

#[test]
fn sections_that_overlap_are_refused() {
    let in_file = Pe::read(&with(cell(1, 20), &0x600u32.to_le_bytes())).unwrap_err();
    assert!(matches!(in_file, Error::Overlap { space: "of the file", expected: 0x800, found: 0x600, .. }));
    let headers = Pe::read(&with(cell(0, 20), &0x200u32.to_le_bytes())).unwrap_err();
    assert!(matches!(headers, Error::Overlap { space: "of the file", .. }));
    let in_memory = Pe::read(&with(cell(1, 12), &0x1000u32.to_le_bytes())).unwrap_err();
    assert_eq!(
        in_memory.to_string(),
        "PE section .sbat begins at 0x1000 in memory, expected at least 0x12bc"
    );
}

#[test]
fn a_section_that_is_absent_twice_or_not_in_the_file_is_not_extracted() {
    let bytes = two();
    let read = Pe::read(&bytes).unwrap();
    assert_eq!(read.extract(".linux"), Err(Error::Missing { name: ".linux".into() }));
    assert_eq!(read.extract("a name too long"), Err(Error::Missing { name: "a name too long".into() }));
    let twice = with(cell(0, 0), b".sbat\0");
    let error = Pe::read(&twice).unwrap().extract(".sbat").unwrap_err();
    assert_eq!(error, Error::Ambiguous { name: ".sbat".into(), found: 2 });
    let uninitialized = with(cell(1, 8), &0x201u32.to_le_bytes());
    let mut uninitialized = uninitialized;
    set(&mut uninitialized, OPTIONAL + SIZE_OF_IMAGE, &0x3000u32.to_le_bytes());
    let error = Pe::read(&uninitialized).unwrap().extract(".sbat").unwrap_err();
    assert!(matches!(error, Error::NotInFile { expected: 0x201, found: 0x200, .. }));
}

#[test]
fn a_certificate_table_that_does_not_end_the_file_is_refused() {
    let directory = OPTIONAL + OPTIONAL_HEADER + 8 * CERTIFICATE_TABLE;
    let signed = |offset: u32, size: u32| {
        let mut bytes = two();
        bytes.extend([0xcc; 16]);
        set(&mut bytes, directory, &offset.to_le_bytes());
        set(&mut bytes, directory + 4, &size.to_le_bytes());
        bytes
    };
    let end = two().len() as u32;
    let good = signed(end, 16);
    assert_eq!(Pe::read(&good).unwrap().certificates(), [0xcc; 16]);
    for (offset, size, field) in [
        (end + 4, 12, "certificate table offset"),
        (end - 8, 24, "certificate table offset"),
        (0, 16, "certificate table offset"),
        (end, 8, "certificate table size"),
        (end, 24, "certificate table size"),
        (end, u32::MAX, "certificate table size"),
        (end + 0x1000, 16, "certificate table size"),
        (end + 16, 0, "certificate table size"),
    ] {
        assert_eq!(refused_field(&signed(offset, size)), field, "{offset:#x} {size}");
    }
}

#[test]
fn the_digest_leaves_out_check_sum_directory_and_certificates_only() {
    let bytes = two();
    let digest = Pe::read(&bytes).unwrap().authenticode::<Sha256>();
    let directory = OPTIONAL + OPTIONAL_HEADER + 8 * CERTIFICATE_TABLE;
    let mut signed = bytes.clone();
    set(&mut signed, OPTIONAL + CHECK_SUM, &[1, 2, 3, 4]);
    set(&mut signed, directory, &(bytes.len() as u32).to_le_bytes());
    set(&mut signed, directory + 4, &8u32.to_le_bytes());
    signed.extend([7; 8]);
    assert_eq!(Pe::read(&signed).unwrap().authenticode::<Sha256>(), digest);
    let left_out = |at: usize| {
        (OPTIONAL + CHECK_SUM..OPTIONAL + CHECK_SUM + 4).contains(&at)
            || (directory..directory + 8).contains(&at)
    };
    for at in (0..bytes.len()).filter(|at| !left_out(*at)) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        if let Ok(read) = Pe::read(&changed) {
            assert_ne!(read.authenticode::<Sha256>(), digest, "{at:#x}");
        }
    }
}

#[test]
fn trailing_bytes_are_hashed_without_padding() {
    let mut bytes = two();
    bytes.extend([1, 2, 3]);
    let digest = Pe::read(&bytes).unwrap().authenticode::<Sha384>();
    let mut parts = bytes[..OPTIONAL + CHECK_SUM].to_vec();
    let directory = OPTIONAL + OPTIONAL_HEADER + 8 * CERTIFICATE_TABLE;
    parts.extend_from_slice(&bytes[OPTIONAL + CHECK_SUM + 4..directory]);
    parts.extend_from_slice(&bytes[directory + 8..]);
    assert_eq!(digest, Sha384::digest(parts));
}

#[test]
fn sections_are_hashed_in_the_order_of_the_file() {
    let swapped = {
        let mut bytes = two();
        // The first section in memory comes after the second in the file.
        set(&mut bytes, cell(0, 20), &0x600u32.to_le_bytes());
        set(&mut bytes, cell(1, 20), &(HEADERS as u32).to_le_bytes());
        bytes
    };
    let parts = Pe::read(&swapped).unwrap().authenticode_parts().concat();
    assert!(parts.ends_with(&swapped[HEADERS..]));
    assert_eq!(parts.len(), swapped.len() - 12);
}

#[test]
fn an_image_without_a_certificate_directory_is_hashed_whole() {
    let bytes = with(OPTIONAL + 108, &4u32.to_le_bytes());
    let read = Pe::read(&bytes).unwrap();
    assert_eq!(read.certificate_directory(), None);
    assert_eq!(read.authenticode_parts().concat().len(), bytes.len() - 4);
}

#[test]
fn names_are_one_to_eight_printable_bytes() {
    assert_eq!(Name::new(".sdmagic").unwrap().to_string(), ".sdmagic");
    for name in ["", ".sdmagics", ". x", "ä"] {
        assert!(Name::new(name).is_none(), "{name:?}");
    }
    assert_eq!(Name(*b"a\0\xffb\0\0\0\0").to_string(), r"a\x00\xffb");
}

proptest! {
    #[test]
    fn changed_bytes_are_refused_or_read_within_bounds(changes in proptest::collection::vec((0usize..0x200, any::<u8>()), 1..6)) {
        let mut bytes = two();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Ok(read) = Pe::read(&bytes) {
            let covered: usize = read.authenticode_parts().iter().map(|part| part.len()).sum();
            prop_assert!(covered <= bytes.len());
            for section in read.sections() {
                let _ = read.extract(&section.name.to_string());
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Pe::read(&bytes).is_err() || bytes.starts_with(b"MZ"));
    }
}
