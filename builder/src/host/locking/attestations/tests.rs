//! A registry on loopback gives attestations, and loses them.

use base64::Engine;

use rootfs::content::Sha256Digest;

use super::*;
use crate::host::fetch::{self, Fetcher};
use crate::host::progress::Progress;
use crate::trust::bundle::Sigstore;

/// The npm registry's attestations of `gundam-visor@1.0.1`.
const DOCUMENT: &[u8] = include_bytes!("../../../../trust/src/attestation/specimen/gundam-visor-1.0.1.json");
/// SHA-512 of its tarball.
const SHA512: &str = "8d9d7972f676516c75014aa074e11ae604d98f0b64ec6725a61e2838ff3dab162118fa71433fb31e1550d30bd0dec9d086ce032b94457b583900c507acf39c40";
/// The repository that it was built from.
const SOURCE: &str = "https://github.com/ramonpetgrave64/gundam-visor";

#[test]
fn what_a_package_has_lost_is_told_against_its_version_or_else_all_that_there_were() {
    let npm = |name: &str, version: &str, attested: bool, source: &str| {
        let attestations = if attested { "00".repeat(32) } else { String::new() };
        Npm { attestations, source: source.into(), ..package(name, version) }
    };
    let earlier = [
        npm("a", "1", false, ""),
        npm("a", "2", true, ""),
        npm("b", "1", false, ""),
        npm("c", "1", true, "here"),
        npm("c", "2", true, "there"),
    ];
    let lock = Lock { npm: earlier.to_vec(), ..crate::lock::tests::sample() };
    let before = Before::of(Some(&lock));
    let none = "no longer has attestations";
    for (now, expected) in [
        (npm("a", "1", false, ""), None),
        (npm("a", "2", false, ""), Some(none)),
        (npm("a", "3", false, ""), Some(none)),
        (npm("a", "3", true, ""), None),
        (npm("a", "3", true, "anywhere"), None),
        (npm("b", "2", false, ""), None),
        (npm("d", "1", false, ""), None),
        (npm("c", "1", true, "here"), None),
        (npm("c", "1", true, "there"), Some("was built in here, now there")),
        (npm("c", "3", true, "there"), None),
        (npm("c", "3", true, ""), Some("was built in here or there, now nothing says where")),
        (npm("c", "3", true, "else"), Some("was built in here or there, now else")),
        (npm("c", "3", false, ""), Some(none)),
    ] {
        assert_eq!(before.lost(&now).as_deref(), expected, "{}@{} {}", now.name, now.version, now.source);
    }
    assert_eq!(Before::of(None).lost(&npm("a", "2", false, "")), None);
}

/// Starts a registry on loopback that answers the listed paths, and 404 otherwise; returns its URL.
fn registry(answers: Vec<(String, u16, String)>) -> String {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let path = first.split(' ').nth(1).unwrap();
            let found = answers.iter().find(|(known, ..)| known == path);
            let (status, body) = found.map_or((404, ""), |(_, status, body)| (*status, body.as_str()));
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .unwrap();
        }
    });
    url
}

fn package(name: &str, version: &str) -> Npm {
    let sha512 = hex::decode(SHA512).unwrap();
    let sha512 = base64::engine::general_purpose::STANDARD.encode(sha512);
    let mut npm = crate::lock::tests::sample().npm.remove(0);
    (npm.name, npm.version, npm.integrity) = (name.into(), version.into(), format!("sha512-{sha512}"));
    npm
}

/// Asks a registry about packages, after a lock whose packages had attestations.
fn asked(url: &str, mut npm: Vec<Npm>, before: Option<&Lock>, accepted: &[&str]) -> Result<Vec<Npm>, Error> {
    let folder = tempfile::tempdir().unwrap();
    let store = crate::host::store::Store::open(folder.path()).unwrap();
    let given = crate::host::mirror::Given { npm: vec![url.to_owned()], ..Default::default() };
    let mirrors = crate::host::mirror::Mirrors::new(vec![given], Box::new(|| None));
    let fetcher = Fetcher::new(&store, &mirrors, fetch::Network::Allowed);
    let accepted: Vec<String> = accepted.iter().map(|name| (*name).to_owned()).collect();
    let registry = attestation::Registry::npm(Sigstore::public().unwrap()).unwrap();
    let locking = Locking {
        fetcher: &fetcher,
        registry: &registry,
        progress: Progress::Silent,
        now: 0,
        accept_lost_provenance: &accepted,
    };
    locking.attestations(&mut npm, before, &mut Vec::new())?;
    Ok(npm)
}

#[test]
fn what_a_registry_attests_is_judged_and_locked_and_its_loss_is_an_alarm() {
    let path = |name: &str| format!("/-/npm/v1/attestations/{name}");
    let document = std::str::from_utf8(DOCUMENT).unwrap().to_owned();
    // One letter of the second log entry's promise is changed.
    let forged = document.replacen("MEUCIQCC4erdG64H", "MEUCIQCC4erdG64I", 1);
    assert_ne!(forged, document);
    let url = registry(vec![
        (path("gundam-visor@1.0.1"), 200, document.clone()),
        (path("@s%2fother@1.0.1"), 200, document),
    ]);
    let gundam = |version| package("gundam-visor", version);
    let npm = asked(&url, vec![gundam("1.0.1"), package("plain", "1.0.0")], None, &[]).unwrap();
    assert_eq!(npm[0].attestations, Sha256Digest::of(DOCUMENT).to_string());
    assert_eq!(npm[0].source, SOURCE);
    assert_eq!((npm[1].attestations.as_str(), npm[1].source.as_str()), ("", ""));
    let before = |source: &str| {
        let mut npm = npm.clone();
        npm[0].source = source.into();
        Lock { npm, ..crate::lock::tests::sample() }
    };
    // A newer version has none; the package that never had any is accepted without.
    let newer = || vec![gundam("1.0.2"), package("plain", "1.0.1")];
    let lost = asked(&url, newer(), Some(&before(SOURCE)), &[]).unwrap_err();
    let Error::LostProvenance { packages } = &lost else { panic!("{lost}") };
    assert_eq!(*packages, ["gundam-visor@1.0.2 no longer has attestations"]);
    assert!(asked(&url, newer(), Some(&before(SOURCE)), &["gundam-visor"]).is_ok());
    // It came from another repository before.
    let before = before("https://github.com/another/gundam-visor");
    let lost = asked(&url, vec![gundam("1.0.1")], Some(&before), &[]).unwrap_err();
    let Error::LostProvenance { packages } = &lost else { panic!("{lost}") };
    assert!(packages[0].ends_with(&format!("another/gundam-visor, now {SOURCE}")), "{packages:?}");
    assert!(asked(&url, vec![gundam("1.0.1")], Some(&before), &["gundam-visor"]).is_ok());
    let wrong = asked(&url, vec![package("@s/other", "1.0.1")], None, &[]).unwrap_err();
    let Error::Attestation { source: attestation::Error::OtherSubject { .. }, .. } = wrong else {
        panic!("{wrong}")
    };
    let nameless = Npm { integrity: "sha512-AA==".into(), ..gundam("1.0.1") };
    let wrong = asked(&url, vec![nameless], None, &[]).unwrap_err();
    assert!(matches!(wrong, Error::Integrity { .. }), "{wrong}");
    let url = registry(vec![(path("gundam-visor@1.0.1"), 200, forged)]);
    let wrong = asked(&url, vec![gundam("1.0.1")], None, &[]).unwrap_err();
    let Error::Attestation { source: attestation::Error::Signature { number: 2, .. }, .. } = wrong else {
        panic!("{wrong}")
    };
}

#[test]
fn a_registry_that_does_not_serve_attestations_has_none() {
    let url = registry(vec![("/-/npm/v1/attestations/a@1".into(), 405, String::new())]);
    assert!(asked(&url, vec![package("a", "1")], None, &[]).is_ok());
}
