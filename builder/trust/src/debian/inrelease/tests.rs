use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, SignatureConfig, Subpacket, SubpacketData};
use pgp::types::{Duration, KeyDetails, Password, SignedUser, Tag, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

/// 2026-11-21T00:00:00 UTC, a Saturday.
const DATE: u64 = 1_795_219_200;
const NOW: UnixTime = UnixTime(DATE + 3600);
const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn text() -> String {
    format!(
        "Origin: Debian\nSuite: stable-security\nCodename: trixie-security\nDate: Sat, 21 Nov 2026 00:00:00 UTC\n\
             Valid-Until: Sat, 28 Nov 2026 00:00:00 UTC\nAcquire-By-Hash: yes\nArchitectures: all amd64\n\
             Components: main contrib\nMD5Sum:\n d41d8cd98f00b204e9800998ecf8427e 0 main/only-md5\n\
             SHA256:\n {DIGEST}        0 main/binary-amd64/Packages\n {DIGEST}       20 main/binary-amd64/Packages.xz"
    )
}

const EXPECTED: Expected<'static> =
    Expected { suite: "trixie-security", architecture: "amd64", now: NOW, previous: None };

fn subpackets(created: u64, key: &impl KeyDetails, more: Vec<SubpacketData>) -> Vec<Subpacket> {
    let created = SubpacketData::SignatureCreationTime(Timestamp::from_secs(u32::try_from(created).unwrap()));
    let all = [created, SubpacketData::IssuerFingerprint(key.fingerprint())].into_iter().chain(more);
    all.map(|data| Subpacket::regular(data).unwrap()).collect()
}

/// A key from a seed, created ten days before `DATE` and valid for `days` (0: forever).
fn key(seed: u64, days: u32, certificate_hash: HashAlgorithm) -> (SignedSecretKey, SignedPublicKey) {
    let made = DATE - 864_000;
    let mut builder = SecretKeyParamsBuilder::default();
    builder
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .created_at(Timestamp::from_secs(u32::try_from(made).unwrap()))
        .primary_user_id(format!("Key {seed} <{seed}@example.org>"));
    let secret = builder.build().unwrap().generate(StdRng::seed_from_u64(seed)).unwrap();
    let public = secret.primary_key.public_key();
    let id = secret.details.users[0].id.clone();
    let mut config = SignatureConfig::v4(SignatureType::CertPositive, public.algorithm(), certificate_hash);
    let mut flags = KeyFlags::default();
    flags.set_sign(true);
    flags.set_certify(true);
    let expiry = SubpacketData::KeyExpirationTime(Duration::from_secs(days * 86_400));
    config.hashed_subpackets = subpackets(made, public, vec![SubpacketData::KeyFlags(flags), expiry]);
    let signature =
        config.sign_certification(&secret.primary_key, public, &Password::empty(), Tag::UserId, &id).unwrap();
    let mut certificate = SignedPublicKey::from(secret.clone());
    certificate.details.users = vec![SignedUser::new(id, vec![signature])];
    (secret, certificate)
}

fn ring(certificates: &[&SignedPublicKey]) -> Keyring {
    let armored: Vec<Vec<u8>> =
        certificates.iter().map(|c| c.to_armored_bytes(ArmorOptions::default()).unwrap()).collect();
    Keyring::read(&armored.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

/// Clearsigns `text` with each key at `created`, with `more` in the signatures.
fn sign_with(
    text: &str,
    keys: &[&SignedSecretKey],
    created: u64,
    hash: HashAlgorithm,
    more: &[SubpacketData],
) -> String {
    let message = CleartextSignedMessage::new_many(text, |text| {
        keys.iter()
            .map(|key| {
                let public = key.primary_key.public_key();
                let mut config = SignatureConfig::v4(SignatureType::Text, public.algorithm(), hash);
                config.hashed_subpackets = subpackets(created, public, more.to_vec());
                config.sign(&key.primary_key, &Password::empty(), text.as_bytes())
            })
            .collect()
    });
    message.unwrap().to_armored_string(ArmorOptions::default()).unwrap()
}

fn sign(text: &str, keys: &[&SignedSecretKey]) -> String {
    sign_with(text, keys, DATE, HashAlgorithm::Sha256, &[])
}

/// Signs `text` with a good key and verifies it under `expected`.
fn outcome(text: &str, expected: &Expected<'_>) -> Result<Verified<InRelease>, InReleaseError> {
    let (secret, public) = key(1, 0, HashAlgorithm::Sha256);
    verify(sign(text, &[&secret]).as_bytes(), &ring(&[&public]), expected)
}

#[test]
fn a_good_file_yields_its_table_and_signer() {
    let (secret, public) = key(1, 0, HashAlgorithm::Sha256);
    let file = sign(&text(), &[&secret]);
    let release = verify(file.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap();
    let own: [u8; 20] = public.fingerprint().as_bytes().try_into().unwrap();
    assert_eq!(release.signers, [Fingerprint(own)]);
    assert_eq!((release.suite.as_str(), release.codename.as_str()), ("stable-security", "trixie-security"));
    assert_eq!((release.date, release.valid_until), (UnixTime(DATE), Some(UnixTime(DATE + 7 * 86_400))));
    assert!(release.acquire_by_hash);
    assert_eq!(release.components, ["main", "contrib"]);
    let entry = release.index("main/binary-amd64/Packages.xz").unwrap();
    assert_eq!((entry.size, hex::encode(entry.sha256)), (20, DIGEST.to_owned()));
    assert_eq!(release.sha256, <[u8; 32]>::from(Sha256::digest(file.as_bytes())));
}

#[test]
fn escaped_lines_and_other_line_ends_do_not_matter() {
    let (secret, public) = key(1, 0, HashAlgorithm::Sha256);
    let odd = text().replace("Origin: Debian", "Origin: Debian\nDescription: x\n - from here\n -----BEGIN");
    let file = sign(&odd.replace("\n - from", "\n\t- from"), &[&secret]);
    assert!(verify(file.as_bytes(), &ring(&[&public]), &EXPECTED).is_ok());
    let crlf = file.replace('\n', "\r\n");
    assert!(verify(crlf.as_bytes(), &ring(&[&public]), &EXPECTED).is_ok());
    let trailing = file.replace("Suite: stable-security\n", "Suite: stable-security \t\n");
    assert_eq!(verify(trailing.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap().suite, "stable-security");
    // The signer escapes a line that begins with a hyphen; as a field name, it is not deb822.
    let dashed = sign(&format!("-{}", text()), &[&secret]);
    assert!(dashed.contains("\n- -Origin"));
    let error = verify(dashed.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    assert!(matches!(error, InReleaseError::Control(ControlError::NoName { line: 1, .. })), "{error}");
}

#[test]
fn an_unsigned_file_is_refused() {
    let (_, public) = key(1, 0, HashAlgorithm::Sha256);
    for file in [text(), String::new(), format!("\n{BEGIN_MESSAGE}\n")] {
        let error = verify(file.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
        assert!(matches!(error, InReleaseError::Unsigned), "{error}");
    }
}

#[test]
fn a_file_without_a_pinned_signer_is_refused() {
    let (secret, _) = key(1, 0, HashAlgorithm::Sha256);
    let (_, other) = key(2, 0, HashAlgorithm::Sha256);
    let error = verify(sign(&text(), &[&secret]).as_bytes(), &ring(&[&other]), &EXPECTED).unwrap_err();
    assert!(matches!(&error, InReleaseError::NoPinnedSigner(signers) if signers.len() == 1), "{error}");
    let file = sign(&text(), &[&secret]);
    let (head, _) = file.split_once(BEGIN_SIGNATURE).unwrap();
    let empty = format!("{head}{BEGIN_SIGNATURE}\n\n{END_SIGNATURE}\n");
    assert!(verify(empty.as_bytes(), &ring(&[&other]), &EXPECTED).is_err());
}

#[test]
fn an_unknown_signer_beside_a_pinned_one_is_ignored() {
    let (first, _) = key(1, 0, HashAlgorithm::Sha256);
    let (second, pinned) = key(2, 0, HashAlgorithm::Sha256);
    let file = sign(&text(), &[&first, &second]);
    assert_eq!(verify(file.as_bytes(), &ring(&[&pinned]), &EXPECTED).unwrap().signers.len(), 1);
}

#[test]
fn a_tampered_text_is_refused() {
    let (secret, public) = key(1, 0, HashAlgorithm::Sha256);
    let file = sign(&text(), &[&secret]);
    for (from, to) in
        [("Packages\n", "Packagez\n"), ("amd64", "arm64"), ("SHA256:\n", "SHA256:\n\n"), (" 20 ", " 21 ")]
    {
        let tampered = file.replace(from, to);
        assert_ne!(tampered, file);
        let error = verify(tampered.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
        assert!(matches!(error, InReleaseError::BadSignature(_)), "{from}: {error}");
    }
}

#[test]
fn a_forged_signature_spoils_a_good_one() {
    let (first, one) = key(1, 0, HashAlgorithm::Sha256);
    let (second, two) = key(2, 0, HashAlgorithm::Sha256);
    let good = sign(&text(), &[&first, &second]);
    assert_eq!(verify(good.as_bytes(), &ring(&[&one, &two]), &EXPECTED).unwrap().signers.len(), 2);
    // A signature by the second key over another text, added to the first key's good one.
    let other = CleartextSignedMessage::from_string(&sign("x", &[&second])).unwrap().0;
    let own = CleartextSignedMessage::from_string(&sign(&text(), &[&first])).unwrap().0;
    let both = [own.signatures(), other.signatures()].concat();
    let mixed = CleartextSignedMessage::new_many(&text(), |_| Ok(both)).unwrap();
    let mixed = mixed.to_armored_string(ArmorOptions::default()).unwrap();
    let error = verify(mixed.as_bytes(), &ring(&[&one, &two]), &EXPECTED).unwrap_err();
    assert!(matches!(error, InReleaseError::BadSignature(_)), "{error}");
}

#[test]
fn text_outside_the_signed_block_is_refused() {
    let (secret, public) = key(1, 0, HashAlgorithm::Sha256);
    let file = sign(&text(), &[&secret]);
    let before = verify(format!("Suite: x\n{file}").as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    assert!(matches!(before, InReleaseError::Unsigned), "{before}");
    let after = verify(format!("{file}\nSuite: x\n").as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    assert!(matches!(after, InReleaseError::Outside { .. }), "{after}");
    let twice = verify(format!("{file}{file}").as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    assert!(matches!(twice, InReleaseError::Outside { .. }), "{twice}");
    let header = file.replacen("Hash: SHA256\n", "Hash: SHA256\nSuite: x\n", 1);
    let header = verify(header.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    assert!(matches!(header, InReleaseError::Frame { line: 3, .. }), "{header}");
    let early = file.replacen("Suite:", "-----END PGP SIGNATURE-----\nSuite:", 1);
    let early = verify(early.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    assert!(matches!(early, InReleaseError::Frame { .. }), "{early}");
    let blank = verify(format!("{file}\n \n").as_bytes(), &ring(&[&public]), &EXPECTED);
    assert!(blank.is_ok());
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let (secret, public) = key(1, 0, HashAlgorithm::Sha256);
    let file = sign(&text(), &[&secret]);
    let ring = ring(&[&public]);
    for end in (0..file.trim_end().len()).step_by(7) {
        assert!(verify(&file.as_bytes()[..end], &ring, &EXPECTED).is_err(), "{end}");
    }
}

#[test]
fn an_expired_key_is_refused() {
    let (secret, public) = key(1, 10, HashAlgorithm::Sha256);
    let file = sign_with(&text(), &[&secret], DATE - 10, HashAlgorithm::Sha256, &[]);
    let just = Expected { now: UnixTime(DATE - 1), ..EXPECTED };
    assert!(verify(file.as_bytes(), &ring(&[&public]), &just).is_ok());
    let error = verify(file.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    let expired = KeyFault::Expired(UnixTime(DATE));
    assert!(matches!(&error, InReleaseError::Key { fault, .. } if *fault == expired), "{error}");
}

#[test]
fn a_key_from_the_future_is_refused() {
    let (secret, public) = key(1, 0, HashAlgorithm::Sha256);
    let early = Expected { now: UnixTime(DATE - 900_000), ..EXPECTED };
    let error = verify(sign(&text(), &[&secret]).as_bytes(), &ring(&[&public]), &early).unwrap_err();
    assert!(matches!(error, InReleaseError::Key { .. }), "{error}");
}

#[test]
fn an_expired_signature_is_refused() {
    let (secret, public) = key(1, 0, HashAlgorithm::Sha256);
    let expiry = [SubpacketData::SignatureExpirationTime(Duration::from_secs(600))];
    let file = sign_with(&text(), &[&secret], DATE, HashAlgorithm::Sha256, &expiry);
    let error = verify(file.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    assert!(matches!(error, InReleaseError::NotCurrent(_)), "{error}");
    let soon = Expected { now: UnixTime(DATE + 599), ..EXPECTED };
    assert!(verify(file.as_bytes(), &ring(&[&public]), &soon).is_ok());
    let future = sign_with(&text(), &[&secret], NOW.0 + 601, HashAlgorithm::Sha256, &[]);
    let error = verify(future.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    assert!(matches!(error, InReleaseError::NotCurrent(_)), "{error}");
}

#[test]
fn a_revoked_key_is_refused() {
    let (secret, mut public) = key(1, 0, HashAlgorithm::Sha256);
    let own = secret.primary_key.public_key();
    let mut config =
        SignatureConfig::v4(SignatureType::KeyRevocation, own.algorithm(), HashAlgorithm::Sha256);
    config.hashed_subpackets = subpackets(DATE, own, Vec::new());
    let revocation = config.sign_key(&secret.primary_key, &Password::empty(), own).unwrap();
    public.details.revocation_signatures.push(revocation);
    let error = verify(sign(&text(), &[&secret]).as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    assert!(matches!(error, InReleaseError::Key { fault: KeyFault::Revoked, .. }), "{error}");
}

#[test]
fn a_key_whose_self_signature_is_weak_or_absent_is_refused() {
    let (secret, mut public) = key(1, 0, HashAlgorithm::Sha256);
    public.details.users[0].signatures =
        key(2, 0, HashAlgorithm::Sha256).1.details.users[0].signatures.clone();
    let error = verify(sign(&text(), &[&secret]).as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
    assert!(matches!(error, InReleaseError::Key { fault: KeyFault::MayNotSign, .. }), "{error}");
}

#[test]
fn a_signature_with_a_weak_hash_is_refused() {
    let (secret, public) = key(1, 0, HashAlgorithm::Sha256);
    for hash in [HashAlgorithm::Sha1, HashAlgorithm::Md5] {
        // rpgp does not make such signatures with this kind of key; only the algorithm's number matters.
        let strong = CleartextSignedMessage::from_string(&sign(&text(), &[&secret])).unwrap().0;
        let made = &strong.signatures()[0];
        let mut config = made.config().unwrap().clone();
        config.hash_alg = hash;
        let value = made.signed_hash_value().unwrap();
        let weak = Signature::from_config(config, value, made.signature().unwrap().clone()).unwrap();
        let file = CleartextSignedMessage::new_many(&text(), |_| Ok(vec![weak])).unwrap();
        let file = file.to_armored_string(ArmorOptions::default()).unwrap();
        let error = verify(file.as_bytes(), &ring(&[&public]), &EXPECTED).unwrap_err();
        assert!(matches!(error, InReleaseError::WeakHash { .. }), "{error}");
    }
}

#[test]
fn an_index_that_only_weak_hashes_list_is_refused() {
    let release = outcome(&text(), &EXPECTED).unwrap();
    assert!(matches!(release.index("main/only-md5"), Err(InReleaseError::WeakIndex(_))));
    assert!(matches!(release.index("main/none"), Err(InReleaseError::NoIndex(_))));
    let error = outcome(&text().replace("SHA256:", "SHA1:"), &EXPECTED).unwrap_err();
    assert!(matches!(error, InReleaseError::OnlyWeakTables), "{error}");
}

#[test]
fn a_file_past_its_time_is_refused() {
    let last = UnixTime(DATE + 7 * 86_400);
    assert!(outcome(&text(), &Expected { now: last, ..EXPECTED }).is_ok());
    let error = outcome(&text(), &Expected { now: UnixTime(last.0 + 1), ..EXPECTED }).unwrap_err();
    assert!(matches!(error, InReleaseError::Expired { .. }), "{error}");
}

#[test]
fn a_file_from_the_future_is_refused() {
    let late = text().replace("21 Nov 2026 00:00:00", "21 Nov 2026 01:10:00");
    assert!(outcome(&late, &EXPECTED).is_ok());
    let late = text().replace("21 Nov 2026 00:00:00", "21 Nov 2026 01:10:01");
    let error = outcome(&late, &EXPECTED).unwrap_err();
    assert!(matches!(error, InReleaseError::Future { .. }), "{error}");
}

#[test]
fn a_rolled_back_date_is_refused() {
    assert!(outcome(&text(), &Expected { previous: Some(UnixTime(DATE)), ..EXPECTED }).is_ok());
    let error = outcome(&text(), &Expected { previous: Some(UnixTime(DATE + 1)), ..EXPECTED }).unwrap_err();
    assert!(matches!(error, InReleaseError::RolledBack { .. }), "{error}");
}

#[test]
fn another_suite_or_architecture_is_refused() {
    assert!(outcome(&text(), &Expected { suite: "stable-security", ..EXPECTED }).is_ok());
    let error = outcome(&text(), &Expected { suite: "trixie", ..EXPECTED }).unwrap_err();
    assert!(matches!(error, InReleaseError::WrongSuite { .. }), "{error}");
    let error = outcome(&text(), &Expected { architecture: "riscv64", ..EXPECTED }).unwrap_err();
    assert!(matches!(error, InReleaseError::WrongArchitecture { .. }), "{error}");
}

#[test]
fn malformed_tables_are_refused() {
    for (from, to) in [
        ("main/binary-amd64/Packages.xz", "../Packages.xz"),
        ("main/binary-amd64/Packages.xz", "/Packages.xz"),
        (" 20 ", " -1 "),
        (" 20 ", " "),
        (" 20 ", " 20 20 "),
        ("e3b0", "E3B0"),
        ("e3b0", "e3b"),
    ] {
        let error = outcome(&text().replace(from, to), &EXPECTED).unwrap_err();
        assert!(matches!(error, InReleaseError::Field { field: "SHA256", .. }), "{to}: {error}");
    }
    let twice = text().replace("Packages.xz", "Packages");
    assert!(matches!(outcome(&twice, &EXPECTED), Err(InReleaseError::TwoDigests(_))));
    let two = text().replace("Origin: Debian", "Origin: Debian\n\nOrigin: Debian");
    assert!(matches!(outcome(&two, &EXPECTED), Err(InReleaseError::Stanzas(2))));
    for field in ["Date", "Codename", "Architectures", "Components"] {
        let error = outcome(&text().replace(&format!("{field}:"), "Other:"), &EXPECTED).unwrap_err();
        assert!(matches!(error, InReleaseError::Missing(missing) if missing == field), "{error}");
    }
    let error = outcome(&text().replace("By-Hash: yes", "By-Hash: 1"), &EXPECTED).unwrap_err();
    assert!(matches!(error, InReleaseError::Field { field: "Acquire-By-Hash", .. }), "{error}");
}

#[test]
fn dates_are_read_and_nonsense_is_refused() {
    for (text, seconds) in [
        ("Thu, 01 Jan 1970 00:00:00 UTC", 0),
        ("Tue, 29 Feb 2000 12:00:00 UTC", 951_825_600),
        ("Sat, 21 Nov 2026 00:00:00 UTC", DATE),
        ("Sat,  5 Sep 2026 07:55:41 +0000", 1_788_594_941),
    ] {
        assert_eq!(read_date(text), Some(UnixTime(seconds)), "{text}");
    }
    for text in [
        "",
        "Sat, 21 Nov 2026 00:00:00",
        "Sun, 21 Nov 2026 00:00:00 UTC",
        "Sat, 21 Nov 2026 00:00:00 CET",
        "Sat, 31 Nov 2026 00:00:00 UTC",
        "Mon, 29 Feb 2027 00:00:00 UTC",
        "Sat, 21 Nov 2026 24:00:00 UTC",
        "Sat, 21 nov 2026 00:00:00 UTC",
        "Sat 21 Nov 2026 00:00:00 UTC",
        "Sat, 21 Nov 20260 00:00:00 UTC",
        "Sat, -1 Nov 2026 00:00:00 UTC",
        "Sat, 21 Nov 2026 0:0 UTC",
    ] {
        assert_eq!(read_date(text), None, "{text}");
    }
}

#[test]
fn the_pinned_keys_are_those_of_the_readme() {
    let readme = include_str!("../../../keys/debian/README.md");
    let ring = Keyring::debian().unwrap();
    let all: Vec<String> = ring.fingerprints().map(|fingerprint| fingerprint.to_string()).collect();
    assert_eq!(all.len(), 6);
    for fingerprint in all {
        assert!(readme.contains(&fingerprint), "{fingerprint}");
    }
    assert!(matches!(Keyring::read(&[]), Err(keys::KeyringError::Empty)));
    assert!(matches!(Keyring::read(&[b"x"]), Err(keys::KeyringError::Unreadable { index: 0, .. })));
}

proptest::proptest! {
    #[test]
    fn any_change_of_a_byte_is_refused_or_harmless(place in 0usize..2000, byte in 0u8..128) {
        let (secret, public) = key(1, 0, HashAlgorithm::Sha256);
        let mut file = sign(&text(), &[&secret]).into_bytes();
        let place = place % file.len();
        file[place] = byte;
        let good = verify(sign(&text(), &[&secret]).as_bytes(), &ring(&[&public]), &EXPECTED).unwrap().into_inner();
        if let Ok(release) = verify(&file, &ring(&[&public]), &EXPECTED) {
            let release = InRelease { sha256: good.sha256, ..release.into_inner() };
            proptest::prop_assert_eq!(release, good);
        }
    }
}
