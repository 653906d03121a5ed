//! Tests of the module above.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use alloc::vec::Vec;

use super::*;
use crate::pe::specimen::image;

const BY_OWN: &[u8] = include_bytes!("specimen/by-own.efi");
const BY_OWN_AND_OTHER: &[u8] = include_bytes!("specimen/by-own-and-other.efi");
const BY_LEAF: &[u8] = include_bytes!("specimen/by-leaf.efi");
const BY_LEAF_384: &[u8] = include_bytes!("specimen/by-leaf-384.efi");
const BY_UNDER: &[u8] = include_bytes!("specimen/by-under.efi");
const BY_EC: &[u8] = include_bytes!("specimen/by-ec.efi");
const OWN: &[u8] = include_bytes!("specimen/own.der");
const OTHER: &[u8] = include_bytes!("specimen/other.der");
const ROOT: &[u8] = include_bytes!("specimen/root.der");
const OTHER_ROOT: &[u8] = include_bytes!("specimen/otherroot.der");
const INTERMEDIATE: &[u8] = include_bytes!("specimen/intermediate.der");
const LEAF: &[u8] = include_bytes!("specimen/leaf.der");
const FAKE: &[u8] = include_bytes!("specimen/fake.der");
const EC: &[u8] = include_bytes!("specimen/ec.der");

fn unsigned() -> Vec<u8> {
    image(&[(".text", &[0x90; 600])])
}

/// An entry with the given owner.
fn entry(owner: u8, data: &[u8]) -> Vec<u8> {
    [&[owner; OWNER][..], data].concat()
}

fn list(kind: [u8; 16], entries: &[Vec<u8>]) -> Vec<u8> {
    let size = entries[0].len();
    let mut bytes = kind.to_vec();
    bytes.extend(((LIST + entries.concat().len()) as u32).to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend((size as u32).to_le_bytes());
    bytes.extend(entries.concat());
    bytes
}

fn certificate(der: &[u8]) -> Vec<u8> {
    list(X509, &[entry(1, der)])
}

fn kind_of(kinds: &[([u8; 16], Hash)], hash: Hash) -> [u8; 16] {
    kinds.iter().find(|(_, known)| *known == hash).unwrap().0
}

/// A list with hashes that are nobody's, and the image's.
fn image_hash(hash: Hash) -> Vec<u8> {
    let bytes = unsigned();
    let digest = hash.of_image(&Pe::read(&bytes).unwrap()).unwrap();
    let others = [7, 8].map(|byte| entry(byte, &alloc::vec![byte; hash.size()]));
    list(kind_of(&IMAGES, hash), &[others[0].clone(), entry(2, &digest), others[1].clone()])
}

/// A list with the hash of a certificate's TBS, revoked at a time.
fn certificate_hash(hash: Hash, der: &[u8], time: [u8; TIME]) -> Vec<u8> {
    let digest = hash.of(&pkcs7::to_be_signed(der).unwrap());
    let other = alloc::vec![9; hash.size() + TIME];
    list(kind_of(&CERTIFICATES, hash), &[entry(3, &other), entry(4, &[&digest[..], &time].concat())])
}

fn judge(program: &[u8], db: &[u8], dbx: &[u8]) -> Result<Vec<u8>, Error> {
    let program = Program::read(&Pe::read(program).unwrap(), None).unwrap();
    program.authority(db, dbx).map(<[u8]>::to_vec)
}

fn allowed(program: &[u8], db: &[u8], dbx: &[u8]) -> Vec<u8> {
    judge(program, db, dbx).unwrap()
}

fn not_allowed(program: &[u8], db: &[u8], certificates: usize) {
    assert_eq!(judge(program, db, &[]), Err(Error::NotAllowed { certificates }));
}

fn forbidden(program: &[u8], db: &[u8], dbx: &[u8]) {
    assert!(judge(program, db, &[]).is_ok(), "db alone lets it pass");
    let judged = judge(program, db, dbx);
    assert!(matches!(judged, Err(Error::Forbidden { .. })), "{judged:?}");
}

fn unknown(program: &[u8], db: &[u8], dbx: &[u8]) {
    let judged = judge(program, db, dbx);
    assert!(matches!(judged, Err(Error::Unknown { .. })), "{judged:?}");
}

#[test]
fn an_unsigned_image_passes_by_its_sha256_in_db_only() {
    let program = unsigned();
    not_allowed(&program, &[], 0);
    not_allowed(&program, &certificate(OWN), 1);
    let db = [certificate(OTHER), image_hash(Hash::Sha256)].concat();
    let digest = Hash::Sha256.of_image(&Pe::read(&program).unwrap()).unwrap();
    assert_eq!(allowed(&program, &db, &[]), entry(2, &digest));
    forbidden(&program, &db, &image_hash(Hash::Sha256));
    // Firmware compares an unsigned image with hashes of SHA-256; some also with others.
    not_allowed(&program, &image_hash(Hash::Sha384), 0);
    unknown(&program, &db, &image_hash(Hash::Sha384));
    unknown(&program, &db, &image_hash(Hash::Sha512));
    // A certificate in dbx does not concern it.
    assert!(judge(&program, &db, &certificate(OTHER)).is_ok());
}

#[test]
fn a_signed_image_passes_by_its_certificate_whatever_is_beside_it() {
    not_allowed(BY_OWN, &certificate(OTHER), 1);
    let entries = [OTHER, FAKE].map(|der| entry(5, der));
    let db = [
        list([0xee; 16], &[entry(1, &[1; 20]), entry(1, &[2; 20])]),
        certificate(OTHER),
        list(X509, &entries[..1]),
        list(X509, &[entry(6, OWN)]),
        certificate(OWN),
        image_hash(Hash::Sha256),
    ]
    .concat();
    // The first entry that fits, with its owner: not the hash, nor the same certificate of another owner.
    assert_eq!(allowed(BY_OWN, &db, &[]), entry(6, OWN));
    assert_eq!(allowed(BY_OWN, &db, &certificate(OTHER)), entry(6, OWN));
}

#[test]
fn a_signed_image_passes_by_its_hash_in_its_signature_s_algorithm() {
    let db = [certificate(OTHER), image_hash(Hash::Sha256)].concat();
    let digest = |hash: Hash| hash.of_image(&Pe::read(BY_OWN).unwrap()).unwrap();
    assert_eq!(allowed(BY_OWN, &db, &[]), entry(2, &digest(Hash::Sha256)));
    not_allowed(BY_OWN, &image_hash(Hash::Sha384), 0);
    assert_eq!(allowed(BY_LEAF_384, &image_hash(Hash::Sha384), &[]), entry(2, &digest(Hash::Sha384)));
    not_allowed(BY_LEAF_384, &image_hash(Hash::Sha256), 0);
}

#[test]
fn an_image_passes_by_any_certificate_of_its_chain() {
    for program in [BY_LEAF, BY_LEAF_384] {
        for der in [LEAF, INTERMEDIATE, ROOT] {
            assert_eq!(allowed(program, &certificate(der), &[]), entry(1, der));
        }
        let db = [certificate(OTHER_ROOT), certificate(OWN)].concat();
        not_allowed(program, &db, 2);
        // The root's name is not the root.
        not_allowed(program, &certificate(FAKE), 1);
    }
    // Who is not an authority issues nothing.
    unknown(BY_UNDER, &certificate(ROOT), &[]);
    unknown(BY_UNDER, &certificate(LEAF), &[]);
}

#[test]
fn dbx_forbids_by_certificate_by_hash_and_by_the_hash_of_a_certificate() {
    let own = certificate(OWN);
    forbidden(BY_OWN, &own, &own);
    let several = [image_hash_of_nobody(), certificate(OTHER), certificate(OWN)].concat();
    forbidden(BY_OWN, &own, &several);
    for hash in Hash::ALL {
        forbidden(BY_OWN, &own, &image_hash(hash));
        forbidden(BY_OWN, &own, &certificate_hash(hash, OWN, [0; TIME]));
        // Revoked from a time on: nobody reads the time of the signature.
        forbidden(
            BY_OWN,
            &own,
            &certificate_hash(hash, OWN, [0xea, 7, 12, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        );
        assert!(judge(BY_OWN, &own, &certificate_hash(hash, OTHER, [0; TIME])).is_ok());
    }
    // Also if only the hash lets the image pass.
    forbidden(BY_OWN, &image_hash(Hash::Sha256), &own);
    for der in [LEAF, INTERMEDIATE, ROOT] {
        forbidden(BY_LEAF, &certificate(ROOT), &certificate(der));
    }
    forbidden(BY_LEAF, &certificate(ROOT), &certificate_hash(Hash::Sha256, INTERMEDIATE, [0; TIME]));
    assert!(judge(BY_LEAF, &certificate(ROOT), &certificate(OTHER_ROOT)).is_ok());
}

fn image_hash_of_nobody() -> Vec<u8> {
    list(kind_of(&IMAGES, Hash::Sha256), &[entry(1, &[1; 32]), entry(1, &[2; 32])])
}

#[test]
fn a_certificate_of_db_whose_hash_is_revoked_lets_nothing_pass() {
    let dbx = certificate_hash(Hash::Sha256, ROOT, [0; TIME]);
    let judged = judge(BY_LEAF, &certificate(ROOT), &dbx);
    assert_eq!(judged, Err(Error::NotAllowed { certificates: 1 }));
    // The image's hash still does: the root is not in the signature.
    let db = [certificate(ROOT), image_hash(Hash::Sha256)].concat();
    assert!(judge(BY_LEAF, &db, &dbx).is_ok());
}

#[test]
fn each_signature_of_several_may_let_the_image_pass_and_each_may_forbid_it() {
    assert_eq!(allowed(BY_OWN_AND_OTHER, &certificate(OWN), &[]), entry(1, OWN));
    assert_eq!(allowed(BY_OWN_AND_OTHER, &certificate(OTHER), &[]), entry(1, OTHER));
    let both = [certificate(OTHER), certificate(OWN)].concat();
    assert_eq!(allowed(BY_OWN_AND_OTHER, &both, &[]), entry(1, OWN), "the first signature is judged first");
    forbidden(BY_OWN_AND_OTHER, &both, &certificate(OTHER));
    forbidden(BY_OWN_AND_OTHER, &both, &certificate(OWN));
}

#[test]
fn a_signature_over_another_image_lets_nothing_pass() {
    let mut changed = BY_OWN.to_vec();
    changed[0x800] ^= 1;
    not_allowed(&changed, &certificate(OWN), 1);
}

#[test]
fn a_changed_signature_is_not_judged() {
    let at = |part: &[u8]| BY_OWN.windows(part.len()).rposition(|window| window == part).unwrap();
    // The last bytes are those of the RSA signature; the attributes are before it.
    for place in [BY_OWN.len() - 40, at(b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04") + 16] {
        let mut changed = BY_OWN.to_vec();
        changed[place] ^= 1;
        unknown(&changed, &certificate(OWN), &[]);
    }
    // The image's digest inside: the attributes no longer fit.
    let digest = Hash::Sha256.of_image(&Pe::read(BY_OWN).unwrap()).unwrap();
    let mut changed = BY_OWN.to_vec();
    changed[at(&digest)] ^= 1;
    unknown(&changed, &certificate(OWN), &[]);
    unknown(BY_EC, &certificate(EC), &[]);
}

#[test]
fn a_certificate_that_only_lies_in_the_table_signed_nothing() {
    let table = Pe::read(BY_OWN).unwrap().certificates().to_vec();
    let start = BY_OWN.len() - table.len();
    // Bytes of a certificate behind the signature, as firmware would not read them.
    let length = (8 + OTHER.len()) as u32;
    let mut more = [&length.to_le_bytes()[..], &[0, 2, 2, 0], OTHER].concat();
    more.resize(more.len().next_multiple_of(8), 0);
    let mut image = [&BY_OWN[..start], &table, &more].concat();
    let size = (table.len() + more.len()) as u32;
    let directory = Pe::read(BY_OWN).unwrap().certificate_directory().unwrap();
    image[directory + 4..directory + 8].copy_from_slice(&size.to_le_bytes());
    assert!(Pe::read(&image).is_ok());
    unknown(&image, &certificate(OTHER), &[]);
}

#[test]
fn a_damaged_certificate_table_is_refused() {
    let start = BY_OWN.len() - Pe::read(BY_OWN).unwrap().certificates().len();
    for length in [0u32, 7, 8, 0xffff] {
        let mut image = BY_OWN.to_vec();
        image[start..start + 4].copy_from_slice(&length.to_le_bytes());
        let judged = judge(&image, &certificate(OWN), &[]);
        assert!(matches!(judged, Err(Error::Table { .. })), "{length}: {judged:?}");
    }
    let mut image = BY_OWN.to_vec();
    image[start + 6] = 1;
    unknown(&image, &certificate(OWN), &[]);
}

#[test]
fn malformed_databases_are_refused_by_name_and_offset() {
    let good = certificate(OWN);
    let refused = |field: usize, value: u32| {
        let mut bytes = [good.clone(), good.clone()].concat();
        bytes[good.len() + field..good.len() + field + 4].copy_from_slice(&value.to_le_bytes());
        for (db, dbx, name) in [(&bytes, &good, "db"), (&good, &bytes, "dbx")] {
            match judge(BY_OWN, db, dbx) {
                Err(Error::List { database, offset, .. }) => {
                    assert_eq!((database, offset), (name, good.len()))
                }
                other => panic!("{field} {value}: {other:?}"),
            }
        }
    };
    for value in [0, 27, good.len() as u32 + 1, u32::MAX] {
        refused(16, value);
    }
    refused(20, u32::MAX);
    for value in [0, 16, 17, u32::MAX] {
        refused(24, value);
    }
    // Entries of a size that their type does not have, which firmware compares in part or not at all.
    let odd = list(kind_of(&IMAGES, Hash::Sha256), &[entry(1, &[1; 33])]);
    assert!(matches!(judge(BY_OWN, &odd, &[]), Err(Error::List { field: "entry size", .. })));
    let odd = list(kind_of(&CERTIFICATES, Hash::Sha256), &[entry(1, &[1; 32])]);
    assert!(matches!(judge(BY_OWN, &good, &odd), Err(Error::List { field: "entry size", .. })));
    // Bytes behind the last list.
    assert!(judge(BY_OWN, &[&good[..], &[0; 5]].concat(), &[]).is_err());
}

#[test]
fn what_is_not_a_certificate_in_db_is_passed_over() {
    let db = [certificate(&[0x30; 40]), certificate(OWN)].concat();
    assert_eq!(allowed(BY_OWN, &db, &[]), entry(1, OWN));
}
