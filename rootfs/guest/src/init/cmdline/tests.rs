//! Tests of what the command line is read as, and what is refused.

use super::*;
use proptest::prelude::*;

const ROOT: &str = "6c0ad2d4-54c1-4d31-a1c1-0d9a3c5f0e11";
const TREE: &str = "0f7f1dbb-1d5a-4f5d-9b67-8a1a5f3b2c22";

/// The words of a good command line, each of which a test may change or leave out.
fn good() -> Vec<(&'static str, String)> {
    vec![
        ("root", format!("PARTUUID={ROOT}")),
        ("verity", format!("PARTUUID={TREE}")),
        ("rootfstype", "erofs".into()),
        ("roothash", "0a".repeat(32)),
        ("salt", "00ff".into()),
        ("data_blocks", "2048".into()),
        ("hash_start", "1".into()),
    ]
}

fn line(words: &[(&str, String)]) -> String {
    words.iter().map(|(key, value)| format!("{PREFIX}{key}={value} ")).collect()
}

fn with(key: &'static str, value: &str) -> Result<Boot, Error> {
    let mut words = good();
    words.retain(|(name, _)| *name != key);
    words.push((key, value.to_owned()));
    Boot::parse(line(&words).as_bytes())
}

#[test]
fn a_good_line_is_read_whole() {
    let boot = Boot::parse(format!("console=ttyS0 {}quiet\n", line(&good())).as_bytes()).expect("accepted");
    assert_eq!(boot.root.to_string(), ROOT);
    assert_eq!(boot.verity.to_string(), TREE);
    assert_eq!(boot.root_hash, RootHash([10; 32]));
    assert_eq!(boot.salt.as_bytes(), [0, 255]);
    assert_eq!((boot.geometry.data_blocks(), boot.geometry.hash_start()), (2048, 1));
    assert_eq!((boot.geometry.block_size(), boot.geometry.sectors()), (4096, 16384));
    assert_eq!((boot.filesystem, boot.profile), (Filesystem::Erofs, None));
}

#[test]
fn a_guid_is_held_in_the_byte_order_of_the_table() {
    let guid = PartUuid::parse(b"00112233-4455-6677-8899-aabbccddeeff").expect("a GUID");
    let table = [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
    assert_eq!(guid, PartUuid(table));
}

#[test]
fn optional_words_are_read() {
    assert_eq!(with("block_size", "512").expect("accepted").geometry.sectors(), 2048);
    assert_eq!(with("profile", "debug").expect("accepted").profile, Some(Profile::Debug));
    assert_eq!(with("profile", "release").expect("accepted").profile, Some(Profile::Release));
    assert_eq!(with("salt", "-").expect("accepted").salt.as_bytes(), []);
}

#[test]
fn each_word_that_is_missing_is_named() {
    for (key, _) in good() {
        let words: Vec<_> = good().into_iter().filter(|(name, _)| *name != key).collect();
        assert_eq!(Boot::parse(line(&words).as_bytes()), Err(Error::Missing { key }));
    }
}

#[test]
fn each_word_that_occurs_twice_is_refused_even_with_the_same_value() {
    for word in good() {
        let mut words = good();
        let offset = line(&words).len();
        words.push(word.clone());
        assert_eq!(Boot::parse(line(&words).as_bytes()), Err(Error::Duplicate { offset, key: word.0 }));
    }
}

#[test]
fn each_value_that_is_empty_is_refused() {
    for (key, _) in good() {
        assert!(matches!(with(key, ""), Err(Error::Malformed { key: named, .. }) if named == key), "{key}");
    }
}

#[test]
fn values_with_a_second_spelling_are_refused() {
    let upper = format!("PARTUUID={}", ROOT.to_uppercase());
    for (key, value) in [
        ("root", upper.as_str()),
        ("root", ROOT),
        ("root", "/dev/vda1"),
        ("root", "PARTUUID=6c0ad2d4-54c1-4d31-a1c1-0d9a3c5f0e1"),
        ("root", "PARTUUID=6c0ad2d4-54c1-4d31-a1c1-0d9a3c5f0e1-"),
        ("root", "PARTUUID=6c0ad2d454c-1-4d31-a1c1-0d9a3c5f0e11"),
        ("root", "PARTUUID=------------------------------------"),
        ("root", "PARTUUID=6c0ad2d4054c1-4d31-a1c1-0d9a3c5f0e11"),
        ("rootfstype", "ext4"),
        ("roothash", &"0A".repeat(32)),
        ("roothash", &"0a".repeat(31)),
        ("roothash", &"0a".repeat(33)),
        ("roothash", &"g0".repeat(32)),
        ("salt", "abc"),
        ("salt", "AB"),
        ("salt", &"00".repeat(257)),
        ("data_blocks", "0"),
        ("data_blocks", "+1"),
        ("data_blocks", "01"),
        ("data_blocks", "0x10"),
        ("data_blocks", "18446744073709551616"),
        ("hash_start", "-1"),
        ("hash_start", "00"),
        ("block_size", "8192"),
        ("block_size", "4k"),
        ("profile", "Debug"),
    ] {
        assert!(
            matches!(with(key, value), Err(Error::Malformed { key: named, .. }) if named == key),
            "{key}={value}"
        );
    }
}

#[test]
fn places_beyond_any_disk_are_refused() {
    assert_eq!(with("data_blocks", "2251799813685248"), Err(Error::TooLarge));
    assert_eq!(with("hash_start", "18446744073709551615"), Err(Error::TooLarge));
    assert!(with("data_blocks", "2251799813685247").is_ok());
}

#[test]
fn one_partition_for_both_is_refused() {
    assert_eq!(with("verity", &format!("PARTUUID={ROOT}")), Err(Error::SamePartition));
}

#[test]
fn unknown_words_of_ours_are_refused_with_their_place() {
    for word in ["proofmark.shell=1", "proofmark.=1", "proofmark.root", "proofmark.", "proofmark.Root=x"] {
        let error = Boot::parse(format!("quiet {word} {}", line(&good())).as_bytes()).expect_err("refused");
        assert_eq!(error, Error::Unknown { offset: 6, word: Line::cut(word.as_bytes()) });
    }
}

#[test]
fn words_of_others_are_left_alone() {
    let others = "proofmark xproofmark.root=1 a=proofmark.root=1 Proofmark.x=1 b=\"c proofmark.root=1 d\"";
    assert!(Boot::parse(format!("{others} {}", line(&good())).as_bytes()).is_ok());
}

#[test]
fn quotation_marks_in_words_of_ours_are_refused() {
    for word in
        ["proofmark.salt=\"00 ff\"", "\"proofmark.salt=00\"", "proofmark.salt=00\"", "\"proofmark.x y\""]
    {
        assert_eq!(Boot::parse(format!(" {word}").as_bytes()), Err(Error::Quoted { offset: 1 }), "{word}");
    }
}

#[test]
fn a_quotation_that_hides_a_word_hides_it_from_the_kernel_too() {
    let hidden = line(&good());
    assert_eq!(Boot::parse(format!("x=\" {hidden}").as_bytes()), Err(Error::Missing { key: "root" }));
}

#[test]
fn every_error_says_which_word_it_is_about() {
    assert_eq!(
        with("salt", "x").expect_err("refused").to_string(),
        "proofmark.salt is not - or 2 to 512 hex digits in lower case"
    );
    assert_eq!(Boot::parse(b"").expect_err("refused").to_string(), "proofmark.root is missing");
    let unknown = Boot::parse(b"proofmark.x\x1b[2J=1").expect_err("refused").to_string();
    assert_eq!(unknown, "unknown key at byte 0: proofmark.x?[2J=1");
}

prop_compose! {
    fn boots()(
        root in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        tree in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        hash: [u8; 32],
        salt in prop::collection::vec(any::<u8>(), 0..=256),
        block in prop::sample::select(vec![512, 1024, 2048, 4096]),
        data_blocks in 1..1_u64 << 51,
        hash_start in 0..1_u64 << 51,
        profile in prop::sample::select(vec![None, Some(Profile::Release), Some(Profile::Debug)]),
    ) -> Boot {
        Boot {
            root: PartUuid::parse(root.as_bytes()).expect("a GUID"),
            verity: PartUuid::parse(tree.as_bytes()).expect("a GUID"),
            filesystem: Filesystem::Erofs,
            root_hash: RootHash(hash),
            salt: Salt::new(&salt).expect("at most 256 bytes"),
            geometry: Geometry::new(block, data_blocks, hash_start).expect("fits"),
            profile,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(boot in boots()) {
        prop_assume!(boot.root != boot.verity);
        prop_assert_eq!(Boot::parse(boot.to_string().as_bytes()), Ok(boot));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = Boot::parse(&bytes).map_err(|error| error.to_string());
    }
}
