use alloc::string::ToString;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

const SHA1: (u16, u16) = (0x0004, 20);
const SHA256: (u16, u16) = (0x000b, 32);
const SHA384: (u16, u16) = (0x000c, 48);
const SM3: (u16, u16) = (0x0012, 32);

/// The first record, which lists the banks.
fn first(index: u32, banks: &[(u16, u16)]) -> Vec<u8> {
    let mut data = b"Spec ID Event03\0".to_vec();
    data.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    data.extend((banks.len() as u32).to_le_bytes());
    for (id, length) in banks {
        data.extend(id.to_le_bytes());
        data.extend(length.to_le_bytes());
    }
    data.push(0);
    old_record(index, 3, &data)
}

/// A record in the older layout.
fn old_record(index: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = index.to_le_bytes().to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend([0; 20]);
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

fn record(index: u32, kind: EventType, digests: &[(u16, u16)], data: &[u8]) -> Vec<u8> {
    let mut bytes = index.to_le_bytes().to_vec();
    bytes.extend(kind.0.to_le_bytes());
    bytes.extend((digests.len() as u32).to_le_bytes());
    for (id, length) in digests {
        bytes.extend(id.to_le_bytes());
        bytes.extend((0..*length).map(|_| *id as u8));
    }
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

fn sample() -> Vec<u8> {
    let mut bytes = first(1, &[SHA384]);
    bytes.extend(record(1, EventType::EV_SEPARATOR, &[SHA384], &[0; 4]));
    bytes.extend(record(3, EventType::EV_IPL, &[SHA384], b"x"));
    bytes
}

#[test]
fn a_log_reads_the_same_with_and_without_padding() {
    let bare = Log::read_any(&sample()).unwrap();
    assert_eq!(bare.kind, RegisterKind::Tdx);
    assert_eq!(bare.entries.len(), 2);
    assert_eq!(bare.length, sample().len());
    for fill in [0x00, 0xff] {
        for padding in [8, 9, 4096] {
            let mut padded = sample();
            padded.resize(padded.len() + padding, fill);
            assert_eq!(Log::read_any(&padded).unwrap(), bare);
        }
    }
}

#[test]
fn more_records_than_firmware_has_room_for_are_refused() {
    let one = record(1, EventType::EV_SEPARATOR, &[SHA384], &[0; 4]);
    let of = |count: usize| [first(1, &[SHA384]), one.repeat(count)].concat();
    assert_eq!(Log::read_any(&of(MOST_RECORDS)).unwrap().entries.len(), MOST_RECORDS);
    let offset = of(MOST_RECORDS).len();
    assert_eq!(Log::read_any(&of(MOST_RECORDS + 1)), Err(Error::TooMany { offset }));
}

#[test]
fn records_behind_the_padding_are_refused() {
    let mut bytes = sample();
    let end = bytes.len();
    bytes.extend([0xff; 16]);
    bytes.extend(record(1, EventType::EV_SEPARATOR, &[SHA384], &[0; 4]));
    let error = Log::read_any(&bytes).unwrap_err();
    assert_eq!(error, Error::Padding { end, fill: 0xff, offset: end + 16, found: 1 });
}

#[test]
fn a_record_without_a_register_is_no_padding() {
    let mut bytes = first(1, &[SHA384]);
    bytes.extend(record(u32::MAX, EventType::EV_NO_ACTION, &[SHA384], b"SP800-155 Event3"));
    bytes.extend(record(1, EventType::EV_SEPARATOR, &[SHA384], &[0; 4]));
    let log = Log::read_any(&bytes).unwrap();
    assert_eq!(log.kind, RegisterKind::Tdx);
    let extended: Vec<bool> = log.entries.iter().map(Entry::is_extended).collect();
    assert_eq!(extended, [false, true]);
}

#[test]
fn digests_of_known_banks_are_kept_and_others_are_skipped() {
    let banks = [SHA1, SHA256, SHA384, SM3];
    let mut bytes = first(0, &banks);
    bytes.extend(record(7, EventType::EV_SEPARATOR, &banks, &[0; 4]));
    let log = Log::read_any(&bytes).unwrap();
    assert_eq!(log.kind, RegisterKind::Tpm);
    assert_eq!(log.algorithms(), [Algorithm::Sha256, Algorithm::Sha384]);
    let entry = &log.entries[0];
    assert_eq!(entry.digest(Algorithm::Sha256), Some(&Digest::Sha256([0x0b; 32])));
    assert_eq!(entry.digest(Algorithm::Sha384), Some(&Digest::Sha384([0x0c; 48])));
    assert_eq!(entry.register(log.kind), Some(Register::Pcr(7)));
}

#[test]
fn an_index_in_a_ccel_is_the_rtmr_plus_one() {
    let log = Log::read(&sample(), RegisterKind::Tdx).unwrap();
    let registers: Vec<_> = log.entries.iter().map(|entry| entry.register(log.kind)).collect();
    assert_eq!(registers, [Some(Register::Rtmr(0)), Some(Register::Rtmr(2))]);
    let entry = |index| Entry { index, ..log.entries[0].clone() }.register(RegisterKind::Tdx);
    assert_eq!(entry(0), Some(Register::Mrtd));
    assert_eq!(entry(5), None);
    assert_eq!(entry(u32::MAX), None);
}

#[test]
fn a_log_with_only_sha1_is_refused_by_name() {
    for data in [&b"Spec ID Event00\0\0\0\0\0"[..], b"Spec ID Event02\0\0\0\0\0"] {
        let error = Log::read_any(&old_record(0, 3, data)).unwrap_err();
        assert!(matches!(error, Error::Sha1Only { .. }), "{error}");
        assert!(error.to_string().contains("Spec ID Event0"), "{error}");
    }
    let bare = Log::read_any(&old_record(0, 8, b"version")).unwrap_err();
    assert_eq!(bare, Error::Sha1Only { found: "EV_S_CRTM_VERSION".into() });
    let spec_id_3 = Log::read_any(&first(0, &[SHA1])).unwrap_err();
    assert_eq!(spec_id_3, Error::NoBank { found: "0x0004".into() });
}

#[test]
fn invalid_banks_are_refused() {
    let refused = |banks: &[(u16, u16)]| Log::read_any(&first(1, banks)).unwrap_err();
    assert!(matches!(refused(&[]), Error::BankCount { found: 0, .. }));
    assert!(matches!(refused(&[SHA384; 2]), Error::Bank { id: 0x0c, .. }));
    assert!(matches!(refused(&[(0x0c, 32)]), Error::Bank { length: 32, .. }));
    assert!(matches!(refused(&[(0x77, 0)]), Error::Bank { length: 0, .. }));
    let mut huge = first(1, &[SHA384]);
    huge[56..60].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = Log::read_any(&huge).unwrap_err();
    assert_eq!(error, Error::BankCount { offset: 56, found: u32::MAX });
}

#[test]
fn a_record_with_a_digest_for_no_bank_is_refused() {
    let with = |digests: &[(u16, u16)]| {
        let mut bytes = first(1, &[SHA384, SHA256]);
        bytes.extend(record(1, EventType::EV_SEPARATOR, digests, &[0; 4]));
        Log::read_any(&bytes)
    };
    assert!(with(&[SHA256, SHA384]).is_ok());
    assert!(matches!(with(&[SHA1]), Err(Error::DigestBank { found: 4, .. })));
    assert!(matches!(with(&[SHA384, SHA384]), Err(Error::DigestBank { found: 12, .. })));
    assert!(matches!(with(&[SHA384, SHA256, SHA256]), Err(Error::DigestCount { found: 3, .. })));
}

#[test]
fn counts_and_lengths_beyond_the_bytes_are_refused_with_their_offset() {
    let mut bytes = first(1, &[SHA384]);
    let begin = bytes.len();
    bytes.extend(record(1, EventType::EV_IPL, &[SHA384], b"data"));
    let count = begin + 8;
    let mut many = bytes.clone();
    many[count..count + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = Log::read_any(&many).unwrap_err();
    assert_eq!(error, Error::DigestCount { offset: count, expected: 1, found: u32::MAX });
    let length = begin + 62;
    bytes[length..length + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = Log::read_any(&bytes).unwrap_err();
    let message = alloc::format!("a record's data at offset {} needs 4294967295 bytes, found 4", length + 4);
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_truncated_log_is_refused_unless_cut_between_records() {
    let whole = sample();
    let second = first(1, &[SHA384]).len();
    let third = second + record(1, EventType::EV_SEPARATOR, &[SHA384], &[0; 4]).len();
    for cut in 0..whole.len() {
        match Log::read_any(&whole[..cut]) {
            Ok(log) => assert!([second, third].contains(&cut) && log.length == cut, "{cut}"),
            Err(error) => assert!(matches!(error, Error::Truncated(_)), "{cut}: {error}"),
        }
    }
}

#[test]
fn bytes_that_are_not_a_log_are_refused() {
    assert!(matches!(Log::read_any(&[]), Err(Error::Truncated(_))));
    assert!(matches!(Log::read_any(&[0; 64]), Err(Error::NoSpecId { .. })));
    assert!(matches!(Log::read_any(&old_record(0, 0x7777, b"")), Err(Error::NoSpecId { .. })));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Log::read_any(&bytes);
    }

    #[test]
    fn a_changed_byte_never_panics(place in 0usize..200, value in any::<u8>()) {
        let mut bytes = sample();
        if let Some(byte) = bytes.get_mut(place) {
            *byte = value;
        }
        if let Ok(log) = Log::read_any(&bytes) {
            prop_assert!(log.length <= bytes.len());
        }
    }
}
