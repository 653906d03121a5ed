//! Yields stand-ins for Fulcio with its log of certificates, and for a time-stamp authority: openssl signs, and this
//! program listens on loopback.
//!
//! # Shape
//! ```text
//! leaf.ext ─> certificate ─ its TBSCertificate, signed by the log ─> the same certificate with the log's timestamp
//! ```
//! RFC 6962 §3.2 defines what a log signs, §3.3 how a certificate carries it.

// A wrong step here is a failed test: it panics where it happens.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proofmark::host::tlog::serve::{Request, Response, serve};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::outcome::Outcome;

/// The identity in the authority's certificates.
pub const NAME: &str = "https://ci.example.org/images/.github/workflows/build.yml@refs/heads/main";
/// Who vouched for that identity.
pub const ISSUER: &str = "https://id.example.org";

/// Runs openssl in a folder.
#[track_caller]
fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    Outcome::of(command.args(arguments.split(' ')).current_dir(folder)).succeeded();
}

/// How the certificate authority behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fulcio {
    /// It certifies the key.
    Certifies,
    /// It certifies a key of its own.
    Other,
    /// It certifies the key, but logs the certificate nowhere.
    Unlogged,
    /// It rejects the token.
    Denies,
}

/// A certificate authority like Fulcio, and a time-stamp authority, made with openssl in a folder.
pub struct Authorities {
    /// Keys and certificates; `root.json` is the trust root of both authorities.
    pub folder: PathBuf,
    /// Address that issues certificates; `/stamp` below it issues time stamps.
    pub address: String,
    /// How the certificate authority behaves.
    pub fulcio: Arc<Mutex<Fulcio>>,
    /// How many certificates were requested.
    pub asked: Arc<Mutex<u32>>,
}

impl Authorities {
    /// Makes the keys, and listens on loopback until the process ends.
    pub fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        for name in ["ca", "tsa", "stamper", "other", "ct"] {
            openssl(&folder, &format!("ecparam -name prime256v1 -genkey -noout -out {name}.key"));
        }
        let root = "-days 2 -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
        for name in ["ca", "tsa"] {
            openssl(
                &folder,
                &format!("req -x509 -new -key {name}.key -subj /O=example/CN={name} {root} -out {name}.crt"),
            );
        }
        write("stamper.ext", "keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping\n");
        openssl(&folder, "req -new -key stamper.key -subj /O=example/CN=stamper -out stamper.csr");
        openssl(
            &folder,
            "x509 -req -in stamper.csr -CA tsa.crt -CAkey tsa.key -CAcreateserial -days 2 -extfile stamper.ext -out stamper.crt",
        );
        write(
            "tsa.cnf",
            "[tsa]\ndefault_tsa=it\n[it]\nserial=tsa.serial\ncrypto_device=builtin\nsigner_cert=stamper.crt\n\
             signer_key=stamper.key\nsigner_digest=sha256\ndefault_policy=1.2.3.4\ndigests=sha256\n\
             ess_cert_id_chain=no\ness_cert_id_alg=sha256\n",
        );
        write("tsa.serial", "01\n");
        write(
            "leaf.ext",
            &format!(
                "keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\nsubjectAltName=critical,URI:{NAME}\n\
                 1.3.6.1.4.1.57264.1.1=DER:{}\n1.3.6.1.4.1.57264.1.8=ASN1:UTF8String:{ISSUER}\n",
                // The issuer's first extension holds its bare letters; a careful verifier reads the second.
                colons(ISSUER.as_bytes())
            ),
        );
        openssl(&folder, "pkey -in other.key -pubout -out other.pub");
        let raw = |name: &str| {
            openssl(&folder, &format!("x509 -in {name}.crt -outform DER -out {name}.der"));
            json!({"rawBytes": STANDARD.encode(fs::read(folder.join(format!("{name}.der"))).unwrap())})
        };
        let authority = |chain: &[&str]| {
            let chain: Vec<Value> = chain.iter().map(|name| raw(name)).collect();
            json!([{"subject": {"organization": "example", "commonName": chain.len().to_string()},
                "uri": "https://authority.example.org", "certChain": {"certificates": chain},
                "validFor": {"start": "2020-01-01T00:00:00Z"}}])
        };
        let spki = public(&folder, "ct");
        let root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "certificateAuthorities": authority(&["ca"]),
            "timestampAuthorities": authority(&["stamper", "tsa"]),
            "tlogs": [],
            "ctlogs": [{"baseUrl": "https://certificates.example.org", "hashAlgorithm": "SHA2_256",
                "logId": {"keyId": STANDARD.encode(Sha256::digest(&spki))},
                "publicKey": {"rawBytes": STANDARD.encode(&spki), "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": "2020-01-01T00:00:00Z"}}}],
        });
        write("root.json", &root.to_string());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (fulcio, asked) = (Arc::new(Mutex::new(Fulcio::Certifies)), Arc::new(Mutex::new(0)));
        let (shared, count, place) = (Arc::clone(&fulcio), Arc::clone(&asked), folder.clone());
        thread::spawn(move || {
            let answer = &mut |request: Request| {
                Some(match request.path.as_str() {
                    "/stamp" => stamped(&place, &request.body),
                    _ => {
                        *count.lock().unwrap() += 1;
                        certified(&place, &request.body, *shared.lock().unwrap())
                    }
                })
            };
            serve(&listener, answer, &|_| {})
        });
        Authorities { folder, address, fulcio, asked }
    }
}

fn stamped(folder: &Path, query: &[u8]) -> Response {
    fs::write(folder.join("query"), query).unwrap();
    openssl(folder, "ts -reply -config tsa.cnf -queryfile query -out reply");
    let body = fs::read(folder.join("reply")).unwrap();
    Response { status: 200, kind: "application/timestamp-reply", body }
}

fn certified(folder: &Path, request: &[u8], fulcio: Fulcio) -> Response {
    let request: Value = serde_json::from_slice(request).unwrap();
    let key = &request["publicKeyRequest"];
    fs::write(folder.join("asked.pub"), key["publicKey"]["content"].as_str().unwrap()).unwrap();
    fs::write(folder.join("proof"), STANDARD.decode(key["proofOfPossession"].as_str().unwrap()).unwrap())
        .unwrap();
    fs::write(folder.join("subject"), "repo:images").unwrap();
    openssl(folder, "dgst -sha256 -verify asked.pub -signature proof subject");
    let token = request["credentials"]["oidcIdentityToken"].as_str().unwrap();
    if fulcio == Fulcio::Denies || !token.ends_with(".signed") {
        let body = br#"{"code":16,"message":"the identity token is not believed"}"#.to_vec();
        return Response { status: 401, kind: "application/json", body };
    }
    let whose = if fulcio == Fulcio::Other { "other.pub" } else { "asked.pub" };
    let issue = |extensions: &str| {
        openssl(
            folder,
            &format!(
                "x509 -new -force_pubkey {whose} -subj / -CA ca.crt -CAkey ca.key -set_serial 7 -days 1 -extfile {extensions} -out leaf.crt"
            ),
        );
        openssl(folder, "x509 -in leaf.crt -outform DER -out leaf.der");
        fs::read(folder.join("leaf.der")).unwrap()
    };
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    if fulcio == Fulcio::Unlogged {
        issue("leaf.ext");
    } else {
        // The two certificates may differ only in the timestamp: both have to begin in the same second.
        let mut begins = String::new();
        while begins.is_empty() || begins != dates(folder) {
            let list = logged(folder, tbs(&issue("leaf.ext")));
            begins = dates(folder);
            let extension = format!("1.3.6.1.4.1.11129.2.4.2=DER:{}\n", colons(&list));
            fs::write(folder.join("logged.ext"), read("leaf.ext") + &extension).unwrap();
            issue("logged.ext");
        }
    }
    let chain = json!({"certificates": [read("leaf.crt"), read("ca.crt")]});
    let body = json!({"signedCertificateEmbeddedSct": {"chain": chain}}).to_string().into_bytes();
    Response { status: 201, kind: "application/json", body }
}

/// Bytes as openssl's configuration writes them.
fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// When the certificate of the leaf begins and ends.
fn dates(folder: &Path) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-dates", "-in", "leaf.crt"]).current_dir(folder);
    Outcome::of(&mut command).succeeded().stdout
}

/// The TBSCertificate of a certificate (RFC 5280 §4.1), both of 256 to 65535 bytes.
fn tbs(certificate: &[u8]) -> &[u8] {
    let inner = &certificate[4..];
    assert_eq!([&certificate[..2], &inner[..2]], [[0x30, 0x82]; 2]);
    &inner[..4 + usize::from(u16::from_be_bytes([inner[2], inner[3]]))]
}

/// The list of one signed timestamp for a certificate, as an extension carries it.
fn logged(folder: &Path, tbs: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = u64::try_from(now).unwrap().to_be_bytes();
    let issuer = Sha256::digest(public(folder, "ca"));
    let log = Sha256::digest(public(folder, "ct"));
    // v1, certificate_timestamp; precert_entry; no extensions.
    let signed = [&[0, 0], &now[..], &[0, 1], &issuer, &[0], &length(tbs), tbs, &[0, 0]].concat();
    fs::write(folder.join("logged"), signed).unwrap();
    openssl(folder, "dgst -sha256 -sign ct.key -out logged.sig logged");
    let signature = fs::read(folder.join("logged.sig")).unwrap();
    // v1; SHA-256 and ECDSA.
    let stamp = [&[0], &log[..], &now, &[0, 0], &[4, 3], &length(&signature), &signature].concat();
    let item = [&length(&stamp), &stamp[..]].concat();
    let list = [&length(&item), &item[..]].concat();
    [&[0x04, u8::try_from(list.len()).ok().filter(|length| *length < 0x80).unwrap()], &list[..]].concat()
}

/// The public half of a key, as DER.
fn public(folder: &Path, key: &str) -> Vec<u8> {
    openssl(folder, &format!("pkey -in {key}.key -pubout -outform DER -out public.der"));
    fs::read(folder.join("public.der")).unwrap()
}

/// An identity token of the form that issuers give, which the authority believes.
pub fn token() -> String {
    format!("e30.{}.signed", URL_SAFE_NO_PAD.encode(r#"{"sub":"repo:images"}"#))
}
