use proptest::prelude::*;
use sha2::{Sha256, Sha384};

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
fn bytes_after_the_sections_are_hashed_without_padding() {
    let mut bytes = two();
    let bare = digest(&bytes);
    bytes.extend([7; 3]);
    let entry = OPTIONAL + 144;
    let pieces = [&bytes[..OPTIONAL + 64], &bytes[OPTIONAL + 68..entry], &bytes[entry + 8..]];
    assert_eq!(digest(&bytes), Algorithm::Sha384.of_pieces(pieces));
    assert_ne!(digest(&bytes), bare);
}

#[test]
fn a_signature_does_not_change_the_digest() {
    let mut signed = two();
    let start = signed.len() as u32;
    set(&mut signed, OPTIONAL + 144, &start.to_le_bytes());
    set(&mut signed, OPTIONAL + 148, &16u32.to_le_bytes());
    signed.extend([5; 16]);
    assert_eq!(digest(&signed), digest(&two()));
}

#[test]
fn sections_are_hashed_in_file_order() {
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
fn a_section_without_bytes_may_have_any_offset() {
    let mut bytes = two();
    set(&mut bytes, TABLE + 40 + 16, &[0; 4]);
    set(&mut bytes, TABLE + 40 + 20, &[0xff; 4]);
    assert!(Pe::read(&bytes).unwrap().authenticode(0).is_ok());
}

#[test]
fn without_a_certificate_directory_only_the_checksum_is_skipped() {
    let mut bytes = two();
    set(&mut bytes, OPTIONAL + 108, &4u32.to_le_bytes());
    let pieces = [&bytes[..OPTIONAL + 64], &bytes[OPTIONAL + 68..]];
    assert_eq!(digest(&bytes), Algorithm::Sha384.of_pieces(pieces));
}

#[test]
fn content_has_the_size_in_memory_and_must_be_in_the_file() {
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
fn invalid_fields_are_refused() {
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

/// The specimen with bytes set at an offset.
fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut changed = two();
    set(&mut changed, offset, bytes);
    changed
}

/// Row and column of the section table.
fn cell(index: usize, offset: usize) -> usize {
    TABLE + SECTION_HEADER * index + offset
}

#[track_caller]
fn refused_field(image: &[u8]) -> &'static str {
    match Pe::read_strict(image) {
        Err(Error::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_strict_reader_gives_the_same_image() {
    let bytes = two();
    let pe = Pe::read_strict(&bytes).unwrap();
    assert_eq!(pe.sections(), Pe::read(&bytes).unwrap().sections());
    assert_eq!((pe.file_alignment(), pe.section_alignment(), pe.size_of_image()), (0x200, 0x1000, 0x3000));
    assert_eq!((pe.file_header(), pe.optional_header(), pe.section_table()), (PE + 4, OPTIONAL, TABLE));
    assert_eq!(
        (pe.subsystem(), pe.dll_characteristics(), pe.size_of_headers()),
        (EFI_APPLICATION, 0, HEADERS)
    );
    assert_eq!(pe.certificate_directory(), Some(OPTIONAL + 144));
    assert_eq!(pe.bytes(), bytes);
}

#[test]
fn a_strict_reader_refuses_every_field_outside_its_range() {
    let wrong: &[(usize, &[u8], &str)] = &[
        (PE + 6, &[0, 0], "the number of sections"),
        (PE + 6, &[97, 0], "the number of sections"),
        (PE + 20, &[239, 0], "the number of data directories"),
        (OPTIONAL + 36, &[0; 4], "the file alignment"),
        (OPTIONAL + 36, &3u32.to_le_bytes(), "the file alignment"),
        (OPTIONAL + 36, &0x20000u32.to_le_bytes(), "the file alignment"),
        (OPTIONAL + 32, &0x100u32.to_le_bytes(), "the section alignment"),
        (OPTIONAL + 32, &0x1800u32.to_le_bytes(), "the section alignment"),
        (OPTIONAL + SIZE_OF_IMAGE, &0x2000u32.to_le_bytes(), "the size of the image"),
        (OPTIONAL + 60, &0x100u32.to_le_bytes(), "the size of the headers"),
        (OPTIONAL + 108, &17u32.to_le_bytes(), "the number of data directories"),
        (cell(0, 12), &0x1001u32.to_le_bytes(), "a section's address"),
    ];
    for (offset, bytes, field) in wrong {
        assert_eq!(refused_field(&with(*offset, bytes)), *field, "{offset:#x}");
    }
    // A PE header that overlaps the DOS header: its SizeOfCode is the header's offset.
    let mut early = two();
    early.copy_within(PE..HEADERS, 0x20);
    set(&mut early, 0x3c, &0x20u32.to_le_bytes());
    assert!(Pe::read(&early).is_ok());
    assert_eq!(refused_field(&early), "the offset of the PE header");
}

#[test]
fn sections_that_overlap_are_refused() {
    let in_file = Pe::read(&with(cell(1, 20), &(HEADERS as u32 + 0x200).to_le_bytes())).unwrap_err();
    assert!(matches!(in_file, Error::Overlap { space: "in the file", .. }), "{in_file}");
    let headers = Pe::read(&with(cell(0, 20), &0x200u32.to_le_bytes())).unwrap_err();
    assert!(matches!(headers, Error::Overlap { space: "in the file", .. }), "{headers}");
    let in_memory = with(cell(1, 12), &0x1000u32.to_le_bytes());
    assert!(Pe::read(&in_memory).is_ok());
    let message = "PE section .data: expected to begin at 0x12bc in memory or later, found 0x1000";
    assert_eq!(alloc::format!("{}", Pe::read_strict(&in_memory).unwrap_err()), message);
}

#[test]
fn a_section_that_is_absent_repeated_or_not_in_the_file_is_not_extracted() {
    let bytes = two();
    let pe = Pe::read(&bytes).unwrap();
    assert_eq!(pe.extract(".data"), Ok(&[2; 100][..]));
    assert_eq!(pe.extract(".linux"), Err(Error::Missing { name: ".linux".into() }));
    assert_eq!(pe.extract("a name too long"), Err(Error::Missing { name: "a name too long".into() }));
    let twice = with(cell(0, 0), b".data\0");
    let error = Pe::read(&twice).unwrap().extract(".data").unwrap_err();
    assert!(matches!(error, Error::Twice { index: 1, .. }), "{error}");
    let mut uninitialized = with(cell(1, 8), &0x201u32.to_le_bytes());
    set(&mut uninitialized, OPTIONAL + SIZE_OF_IMAGE, &0x3000u32.to_le_bytes());
    let error = Pe::read_strict(&uninitialized).unwrap().extract(".data").unwrap_err();
    assert!(matches!(error, Error::NotInFile { expected: 0x201, found: 0x200, .. }), "{error}");
}

#[test]
fn a_strict_reader_refuses_a_certificate_table_that_does_not_end_the_file() {
    let directory = OPTIONAL + 144;
    let signed = |offset: u32, size: u32| {
        let mut bytes = two();
        bytes.extend([0xcc; 16]);
        set(&mut bytes, directory, &offset.to_le_bytes());
        set(&mut bytes, directory + 4, &size.to_le_bytes());
        bytes
    };
    let end = two().len() as u32;
    assert_eq!(Pe::read_strict(&signed(end, 16)).unwrap().certificates(), [0xcc; 16]);
    for (offset, size, field) in [
        (end + 4, 12, "the certificate table's offset"),
        (end - 8, 24, "the certificate table's offset"),
        (0, 16, "the certificate table's offset"),
        (end, 8, "the certificate table's size"),
        (end + 16, 0, "the certificate table's size"),
    ] {
        assert_eq!(refused_field(&signed(offset, size)), field, "{offset:#x} {size}");
    }
    for (offset, size) in [(end, 24), (end, u32::MAX), (end + 0x1000, 16)] {
        let error = Pe::read(&signed(offset, size)).unwrap_err();
        assert!(matches!(error, Error::Truncated { what: "the certificate table", .. }), "{error}");
    }
}

#[test]
fn the_digest_skips_only_checksum_directory_and_certificates() {
    let bytes = two();
    let digest = |bytes: &[u8]| Pe::read(bytes).unwrap().authenticode_digest::<Sha256>().unwrap();
    let directory = OPTIONAL + 144;
    let mut signed = bytes.clone();
    set(&mut signed, OPTIONAL + CHECK_SUM, &[1, 2, 3, 4]);
    set(&mut signed, directory, &(bytes.len() as u32).to_le_bytes());
    set(&mut signed, directory + 4, &8u32.to_le_bytes());
    signed.extend([7; 8]);
    assert_eq!(digest(&signed), digest(&bytes));
    let skipped = |at: usize| {
        (OPTIONAL + CHECK_SUM..OPTIONAL + CHECK_SUM + 4).contains(&at)
            || (directory..directory + 8).contains(&at)
    };
    for at in (0..bytes.len()).filter(|at| !skipped(*at)) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        if Pe::read(&changed).is_ok() {
            assert_ne!(digest(&changed), digest(&bytes), "{at:#x}");
        }
    }
}

#[test]
fn a_digest_with_any_hash_is_that_of_the_preimage() {
    let bytes = two();
    let pe = Pe::read(&bytes).unwrap();
    let preimage = pe.authenticode(0).unwrap();
    let sha384 = pe.authenticode_digest::<Sha384>().unwrap();
    assert_eq!(preimage.digests(Algorithm::Sha384)[0].as_bytes(), sha384.as_slice());
    assert_eq!(preimage.parts().map(<[u8]>::len).sum::<usize>(), preimage.len());
}

#[test]
fn names_are_one_to_eight_printable_characters() {
    assert!(Name::new(".sdmagic").unwrap().is(".sdmagic"));
    for name in ["", ".sdmagics", ". x", "\u{e4}"] {
        assert!(Name::new(name).is_none(), "{name:?}");
    }
    assert_eq!(alloc::format!("{}", Name(*b"a\0\xffb\0\0\0\0")), r"a\x00\xffb");
}

proptest! {
    #[test]
    fn changed_bytes_are_refused_or_read_within_bounds(
        changes in proptest::collection::vec((0usize..0x280, any::<u8>()), 1..6),
    ) {
        let mut bytes = two();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let _ = Pe::read_strict(&bytes);
        if let Ok(pe) = Pe::read(&bytes) {
            if let Ok(preimage) = pe.authenticode(0) {
                prop_assert!(preimage.len() <= bytes.len());
            }
            for section in pe.sections() {
                let _ = pe.content(section);
            }
        }
    }
}
