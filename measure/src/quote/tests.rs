use alloc::string::ToString;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

/// A report body with a different byte in each field.
fn body(length: usize) -> Vec<u8> {
    let fields = [16, 48, 48, 8, 8, 8, 48, 48, 48, 48, 48, 48, 48, 48, 64, 16, 48];
    let mut bytes = Vec::new();
    for (number, field) in (1u8..).zip(fields) {
        bytes.resize(bytes.len() + field, number);
    }
    bytes.truncate(length);
    bytes
}

fn quote(version: u16, body_type: Option<(u16, u32)>, body: &[u8]) -> Vec<u8> {
    let mut bytes = version.to_le_bytes().to_vec();
    bytes.extend([2, 0, 0x81, 0, 0, 0]);
    bytes.resize(48, 0xee);
    if let Some((kind, length)) = body_type {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(length.to_le_bytes());
    }
    bytes.extend(body);
    bytes.extend(5u32.to_le_bytes());
    bytes.extend(b"signs");
    bytes
}

#[test]
fn each_version_gives_the_same_td() {
    let v4 = Quote::read(&quote(4, None, &body(584))).unwrap();
    let v5 = Quote::read(&quote(5, Some((2, 584)), &body(584))).unwrap();
    let v5_15 = Quote::read(&quote(5, Some((3, 648)), &body(648))).unwrap();
    assert_eq!(v4.td, v5.td);
    assert_eq!(v4.td.mr_service_td, None);
    assert_eq!(v5_15.td.mr_service_td, Some(Digest::Sha384([17; 48])));
    assert_eq!(Td { mr_service_td: None, ..v5_15.td }, v4.td);
    assert_eq!(v4.td.tee_tcb_svn, Bytes([1; 16]));
    assert_eq!(v4.td.attributes, Attributes(0x0505_0505_0505_0505));
    assert_eq!(v4.td.xfam, Xfam(0x0606_0606_0606_0606));
    assert_eq!(v4.td.mrtd, Digest::Sha384([7; 48]));
    assert_eq!(v4.td.mr_config_id, Bytes([8; 48]));
    assert_eq!(v4.td.mr_owner, Bytes([9; 48]));
    assert_eq!(v4.td.mr_owner_config, Bytes([10; 48]));
    assert_eq!(v4.td.rtmr, [11, 12, 13, 14].map(|byte| Digest::Sha384([byte; 48])));
    assert_eq!(v4.td.report_data, Bytes([15; 64]));
    assert_eq!((v4.signed.len(), v5.signed.len(), v5_15.signed.len()), (632, 638, 702));
    assert_eq!(v4.signature, b"signs");
}

#[test]
fn bytes_after_a_quote_are_not_part_of_it() {
    let mut bytes = quote(4, None, &body(584));
    let alone = Quote::read(&bytes).unwrap();
    assert_eq!(alone.trailing, 0);
    bytes.extend([0; 4]);
    assert_eq!(Quote::read(&bytes).unwrap(), alone);
    bytes.extend(b"more\0");
    assert_eq!(Quote::read(&bytes).unwrap(), Quote { trailing: 8, ..alone });
}

#[test]
fn quotes_that_are_not_a_td_s_are_refused() {
    let v4 = quote(4, None, &body(584));
    assert_eq!(Quote::read(&quote(3, None, &body(584))), Err(Error::Version { found: 3 }));
    let mut sgx = v4.clone();
    sgx[4] = 0;
    assert_eq!(Quote::read(&sgx), Err(Error::TeeType { found: 0 }));
    let enclave = quote(5, Some((1, 384)), &body(584));
    assert_eq!(Quote::read(&enclave), Err(Error::BodyType { found: 1 }));
    let short = quote(5, Some((3, 584)), &body(648));
    assert_eq!(Quote::read(&short), Err(Error::BodyLength { expected: 648, found: 584 }));
    let mut unsigned = v4[..632].to_vec();
    unsigned.extend([0; 4]);
    assert_eq!(Quote::read(&unsigned), Err(Error::NoSignature { offset: 632 }));
    for cut in 0..v4.len() {
        assert!(matches!(Quote::read(&v4[..cut]), Err(Error::Truncated(_))), "{cut}");
    }
}

fn report() -> Vec<u8> {
    let mut bytes = alloc::vec![0u8; 1024];
    bytes[0] = 0x81;
    bytes[512 + 16..512 + 64].fill(7);
    bytes[512 + 208..512 + 256].fill(11);
    bytes[512 + 400..512 + 448].fill(17);
    bytes[128..192].fill(15);
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    let (tcb, info) = (Algorithm::Sha384.of(&bytes[256..495]), Algorithm::Sha384.of(&bytes[512..]));
    bytes[32..80].copy_from_slice(tcb.as_bytes());
    bytes[80..128].copy_from_slice(info.as_bytes());
}

#[test]
fn a_report_gives_its_td() {
    let report = Report::read(&report()).unwrap();
    assert_eq!(report.td.mrtd, Digest::Sha384([7; 48]));
    assert_eq!(report.td.rtmr[0], Digest::Sha384([11; 48]));
    assert_eq!(report.td.mr_service_td, Some(Digest::Sha384([17; 48])));
    assert_eq!(report.td.report_data, Bytes([15; 64]));
}

#[test]
fn bytes_that_are_not_a_tdreport_are_refused() {
    let whole = report();
    assert_eq!(Report::read(&whole[1..]), Err(Error::ReportLength { found: 1023 }));
    let mut other = whole.clone();
    other[0] = 0;
    assert_eq!(Report::read(&other), Err(Error::ReportType { found: 0 }));
    for place in [300, 1000] {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        assert!(matches!(Report::read(&changed), Err(Error::ReportHash { .. })), "{place}");
    }
}

#[test]
fn bits_have_names_and_names_have_bits() {
    let attributes = Attributes(0x8000_0000_1000_0003);
    assert_eq!(attributes.names(), ["DEBUG", "bit 1", "SEPT_VE_DISABLE", "PERFMON"]);
    assert_eq!(attributes.to_string(), "0x8000000010000003");
    assert_eq!(Xfam(0x6_02e7).names().len(), 9);
    for bit in 0..64 {
        assert_eq!(Attributes::bit(&Attributes::name(bit)), Some(bit));
        assert_eq!(Xfam::bit(&Xfam::name(bit)), Some(bit));
    }
    assert_eq!(Attributes::bit("debug"), None);
    assert!(!Attributes(u64::MAX).has(64));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
        let _ = Quote::read(&bytes);
        let _ = Report::read(&bytes);
    }

    #[test]
    fn a_changed_byte_never_panics(place in 0usize..711, value in any::<u8>()) {
        let mut bytes = quote(5, Some((3, 648)), &body(648));
        bytes[place] = value;
        let _ = Quote::read(&bytes);
    }
}
