//! Yields a Secure Boot signature over a PE image, from an RSA key and its certificate.
//!
//! # Shape
//!
//! ```text
//! image            unsigned, padded with zeros to a multiple of 8
//! WIN_CERTIFICATE  length u32, revision u16 = 0x0200, type u16 = 0x0002, then padded with zeros to 8:
//!   ContentInfo  signedData
//!     content      SpcIndirectDataContent { SpcPeImageData, sha256, Authenticode digest of the image }
//!     certificate  the signer's
//!     signerInfo   issuer and serial, contentType, messageDigest; RSA PKCS #1 v1.5 with SHA-256
//! ```
//!
//! There is no signing time and PKCS #1 v1.5 uses no randomness, so key, certificate and image determine the
//! signature. Signing does not change the image's Authenticode digest (it does not cover the certificate
//! table, and the length of every UKI is a multiple of 8). It does change what a machine with Secure Boot
//! measures: the firmware adds the key that verified the image (RTMR0, PCR 7), and systemd-stub up to 257
//! then starts the inner kernel without its own event (RTMR1).
//!
//! # Source
//!
//! *Windows Authenticode Portable Executable Signature Format* (2008); RFC 5652 §5 (SignedData, attributes);
//! RFC 8017 §9.2 (PKCS #1 v1.5); UEFI 2.10 §32.2.4 (WIN_CERTIFICATE). `sbverify`, `osslsigncode verify` and OVMF
//! with Secure Boot accept it.
//!
//! # Not here
//!
//! Where the key comes from (`host`), verification of others' signatures, time stamps, chains. The
//! certificate's validity period is not checked: firmware has no trusted clock either. The `rsa` crate is the
//! one that `pgp` depends on; its timing leak (RUSTSEC-2023-0071) needs many observed operations, and a build
//! does one.

use std::fmt;

use ovmf_measure::pe::{self, Pe};
use rsa::pkcs8::der::{self, Decode, Reader, SliceReader, Tag, Tagged, asn1::AnyRef};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey};
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use sha2::{Digest, Sha256};

/// The smallest accepted modulus, in bits.
pub const LEAST_BITS: usize = 2048;
/// How a PEM block begins (RFC 7468, section 2).
const BEGIN: &[u8] = b"-----BEGIN ";
/// Length of the header before the signature in a `WIN_CERTIFICATE`.
const CERTIFICATE_HEADER: usize = 8;
/// `WIN_CERT_REVISION_2_0`.
const REVISION: u16 = 0x0200;
/// `WIN_CERT_TYPE_PKCS_SIGNED_DATA`.
const PKCS_SIGNED_DATA: u16 = 0x0002;

/// DER of the object identifiers, tag and length included.
mod oid {
    /// 1.2.840.113549.1.7.2.
    pub const SIGNED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
    /// 1.2.840.113549.1.9.3.
    pub const CONTENT_TYPE: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03";
    /// 1.2.840.113549.1.9.4.
    pub const MESSAGE_DIGEST: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04";
    /// 1.2.840.113549.1.1.1.
    pub const RSA_ENCRYPTION: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    /// 2.16.840.1.101.3.4.2.1.
    pub const SHA256: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01";
    /// 1.3.6.1.4.1.311.2.1.4.
    pub const SPC_INDIRECT_DATA: &[u8] = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x04";
    /// 1.3.6.1.4.1.311.2.1.15.
    pub const SPC_PE_IMAGE_DATA: &[u8] = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0f";
}

/// DER tags.
mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const OCTET_STRING: u8 = 0x04;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
    /// `[0]`, constructed.
    pub const CONTEXT_0: u8 = 0xa0;
}

/// `NULL`.
const NULL: &[u8] = b"\x05\x00";
/// `SpcPeImageData`: no flags, the file an empty Unicode `SpcString`; what `sbsign` writes.
const PE_IMAGE_DATA: &[u8] = b"\x30\x09\x03\x01\x00\xa0\x04\xa2\x02\x80\x00";
/// `DigestInfo` up to the digest (RFC 8017 §9.2, note 1).
const DIGEST_INFO: &[u8] = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";

/// Why a signer could not be made or an image could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The PEM text holds something else.
    #[error("{what} is a PEM block {found:?}, expected {expected:?}")]
    PemLabel {
        /// `key` or `certificate`.
        what: &'static str,
        /// The required label.
        expected: &'static str,
        /// Its label.
        found: String,
    },
    /// The text is not one PEM block as RFC 7468, section 3 describes it.
    #[error("{what} is not one well-formed PEM block: {found}")]
    Pem {
        /// `key` or `certificate`.
        what: &'static str,
        /// What is wrong with it.
        found: pem_rfc7468::Error,
    },
    /// The key is not a PKCS #8 RSA key.
    #[error("cannot read the key as a PKCS #8 RSA key")]
    Key(#[source] rsa::pkcs8::Error),
    /// The key is too short.
    #[error("key has {found} bits, expected at least {expected}", expected = LEAST_BITS)]
    KeyLength {
        /// Its length in bits.
        found: usize,
    },
    /// The certificate is not X.509 in DER.
    #[error("cannot read the certificate")]
    Certificate(#[source] der::Error),
    /// The certificate's key is not an RSA key.
    #[error("cannot read the certificate's key as an RSA key")]
    CertificateKey(#[source] rsa::pkcs8::spki::Error),
    /// The certificate is for another key.
    #[error("the certificate's key is not the given key's public half")]
    Mismatch,
    /// The image cannot be read.
    #[error("cannot read the image to sign")]
    Image(#[from] pe::Error),
    /// The image is already signed.
    #[error("image is signed already ({found} bytes of certificates)")]
    Signed {
        /// Length of its certificate table.
        found: usize,
    },
    /// The optional header has no entry for a certificate table.
    #[error("image has no room for a certificate table in its data directories")]
    NoDirectory,
    /// The signed image would exceed 4 GiB.
    #[error("signed image of {found} bytes, expected less than 4 GiB")]
    TooLarge {
        /// Its length.
        found: usize,
    },
    /// The RSA operation failed.
    #[error("cannot sign")]
    Rsa(#[source] rsa::Error),
}

/// A key and its certificate.
pub struct Signer {
    key: RsaPrivateKey,
    /// The whole certificate.
    certificate: Vec<u8>,
    /// `IssuerAndSerialNumber`, tag and length included.
    identity: Vec<u8>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer {{ certificate: {:x?}, .. }}", self.certificate_sha256())
    }
}

impl Signer {
    /// Takes a PKCS #8 key and an X.509 certificate, each as PEM or DER.
    ///
    /// # Errors
    ///
    /// Malformed or encrypted input, a key that is not RSA or is shorter than [`LEAST_BITS`], or another
    /// key's certificate.
    pub fn new(key: &[u8], certificate: &[u8]) -> Result<Self, Error> {
        let key = RsaPrivateKey::from_pkcs8_der(&der("key", "PRIVATE KEY", key)?).map_err(Error::Key)?;
        let found = key.n().bits();
        if found < LEAST_BITS {
            return Err(Error::KeyLength { found });
        }
        let certificate = der("certificate", "CERTIFICATE", certificate)?.into_owned();
        let Subject { identity, public_key } = Subject::read(&certificate).map_err(Error::Certificate)?;
        let public = RsaPublicKey::from_public_key_der(public_key).map_err(Error::CertificateKey)?;
        if public != key.to_public_key() {
            return Err(Error::Mismatch);
        }
        Ok(Signer { key, certificate, identity })
    }

    /// The SHA-256 of the certificate's DER, with which a manifest names it.
    pub fn certificate_sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate).into()
    }

    /// Signs an image: appends the signature in place and returns the signed image.
    ///
    /// # Errors
    ///
    /// An image that is not PE, is already signed, has no place for the signature, or is too large.
    pub fn sign(&self, mut image: Vec<u8>) -> Result<Vec<u8>, Error> {
        image.resize(image.len().next_multiple_of(8), 0);
        let read = Pe::read_strict(&image)?;
        if !read.certificates().is_empty() {
            return Err(Error::Signed { found: read.certificates().len() });
        }
        let directory = read.certificate_directory().ok_or(Error::NoDirectory)?;
        let signature = self.signed_data(&read.authenticode_digest::<Sha256>()?.into())?;

        let offset = image.len();
        let size = (CERTIFICATE_HEADER + signature.len()).next_multiple_of(8);
        let too_large = |_| Error::TooLarge { found: offset + size };
        u32::try_from(offset + size).map_err(too_large)?;
        let entry = image.get_mut(directory..directory + 8).ok_or(Error::NoDirectory)?;
        entry.copy_from_slice(&[(offset as u32).to_le_bytes(), (size as u32).to_le_bytes()].concat());
        image.reserve_exact(size);
        image.extend((size as u32).to_le_bytes());
        image.extend(REVISION.to_le_bytes());
        image.extend(PKCS_SIGNED_DATA.to_le_bytes());
        image.extend(signature);
        image.resize(offset + size, 0);
        Ok(image)
    }

    /// The `ContentInfo` for an image with this Authenticode digest.
    fn signed_data(&self, image_digest: &[u8; 32]) -> Result<Vec<u8>, Error> {
        let sha256 = tlv(tag::SEQUENCE, &[oid::SHA256, NULL]);
        let digest_info = tlv(tag::SEQUENCE, &[&sha256, &tlv(tag::OCTET_STRING, &[image_digest])]);
        let data = tlv(tag::SEQUENCE, &[oid::SPC_PE_IMAGE_DATA, PE_IMAGE_DATA]);
        let indirect_data = [data, digest_info].concat();
        // The digest covers only the value, not the sequence's tag and length.
        let message_digest = tlv(tag::OCTET_STRING, &[&Sha256::digest(&indirect_data)]);

        let attribute = |name: &[u8], value: &[u8]| tlv(tag::SEQUENCE, &[name, &tlv(tag::SET, &[value])]);
        // In DER's order for a SET OF: by encoding, which here means by length.
        let attributes = [
            attribute(oid::CONTENT_TYPE, oid::SPC_INDIRECT_DATA),
            attribute(oid::MESSAGE_DIGEST, &message_digest),
        ]
        .concat();
        // They are signed as a SET, but stored under an implicit tag (RFC 5652 §5.4).
        let signature = self.rsa(&tlv(tag::SET, &[&attributes]))?;

        let version = tlv(tag::INTEGER, &[&[1]]);
        let signer_info = tlv(
            tag::SEQUENCE,
            &[
                &version,
                &self.identity,
                &sha256,
                &tlv(tag::CONTEXT_0, &[&attributes]),
                &tlv(tag::SEQUENCE, &[oid::RSA_ENCRYPTION, NULL]),
                &tlv(tag::OCTET_STRING, &[&signature]),
            ],
        );
        let content = tlv(tag::CONTEXT_0, &[&tlv(tag::SEQUENCE, &[&indirect_data])]);
        let signed_data = tlv(
            tag::SEQUENCE,
            &[
                &version,
                &tlv(tag::SET, &[&sha256]),
                &tlv(tag::SEQUENCE, &[oid::SPC_INDIRECT_DATA, &content]),
                &tlv(tag::CONTEXT_0, &[&self.certificate]),
                &tlv(tag::SET, &[&signer_info]),
            ],
        );
        Ok(tlv(tag::SEQUENCE, &[oid::SIGNED_DATA, &tlv(tag::CONTEXT_0, &[&signed_data])]))
    }

    /// Signs with PKCS #1 v1.5 and SHA-256, and verifies the result: a faulty signature would reveal the key.
    fn rsa(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let padding = || Pkcs1v15Sign { hash_len: Some(32), prefix: DIGEST_INFO.into() };
        let digest = Sha256::digest(message);
        let signature = self.key.sign(padding(), &digest).map_err(Error::Rsa)?;
        self.key.to_public_key().verify(padding(), &digest, &signature).map_err(Error::Rsa)?;
        Ok(signature)
    }
}

/// The parts of a certificate that a signature needs.
struct Subject<'a> {
    identity: Vec<u8>,
    public_key: &'a [u8],
}

impl<'a> Subject<'a> {
    /// RFC 5280 §4.1: version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo.
    fn read(certificate: &'a [u8]) -> der::Result<Self> {
        let outer = AnyRef::from_der(certificate)?;
        outer.tag().assert_eq(Tag::Sequence)?;
        let to_be_signed = AnyRef::decode(&mut SliceReader::new(outer.value())?)?;
        to_be_signed.tag().assert_eq(Tag::Sequence)?;
        let mut fields = SliceReader::new(to_be_signed.value())?;
        if fields.peek_byte() == Some(tag::CONTEXT_0) {
            fields.tlv_bytes()?;
        }
        let mut element = |tag: Tag| {
            let bytes = fields.tlv_bytes()?;
            AnyRef::from_der(bytes)?.tag().assert_eq(tag)?;
            Ok::<_, der::Error>(bytes)
        };
        let serial = element(Tag::Integer)?;
        element(Tag::Sequence)?;
        let issuer = element(Tag::Sequence)?;
        element(Tag::Sequence)?;
        element(Tag::Sequence)?;
        let public_key = element(Tag::Sequence)?;
        Ok(Subject { identity: tlv(tag::SEQUENCE, &[issuer, serial]), public_key })
    }
}

/// One DER element of `tag` around the concatenated `parts`.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let significant: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | significant.len() as u8);
            out.extend(significant);
        }
    }
    out.extend(parts.concat());
    out
}

/// The DER bytes of an input that may be PEM.
fn der<'a>(
    what: &'static str,
    expected: &'static str,
    input: &'a [u8],
) -> Result<std::borrow::Cow<'a, [u8]>, Error> {
    if !input.windows(BEGIN.len()).any(|window| window == BEGIN) {
        return Ok(input.into());
    }
    let (found, bytes) = pem_rfc7468::decode_vec(input).map_err(|found| Error::Pem { what, found })?;
    if found != expected {
        return Err(Error::PemLabel { what, expected, found: found.to_owned() });
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::super::specimen::{OPTIONAL, image, set};
    use super::*;

    const KEY: &[u8] = include_bytes!("specimen/key.pem");
    const CERTIFICATE: &[u8] = include_bytes!("specimen/certificate.pem");

    fn signer() -> Signer {
        Signer::new(KEY, CERTIFICATE).unwrap()
    }

    fn unsigned() -> Vec<u8> {
        image(&[(".text", &[0x90; 700])])
    }

    #[test]
    fn a_signature_is_a_certificate_table_at_the_end() {
        let signed = signer().sign(unsigned()).unwrap();
        let read = Pe::read_strict(&signed).unwrap();
        let table = read.certificates();
        assert_eq!(table.len() % 8, 0);
        assert_eq!(table[..4], (table.len() as u32).to_le_bytes());
        assert_eq!(table[4..8], [0, 2, 2, 0]);
        assert_eq!(
            read.authenticode_digest::<Sha256>().unwrap(),
            Pe::read_strict(&unsigned()).unwrap().authenticode_digest::<Sha256>().unwrap()
        );
        let differ = |at: &usize| signed[*at] != unsigned()[*at];
        let changed: Vec<usize> = (0..unsigned().len()).filter(differ).collect();
        assert!(changed.iter().all(|at| (OPTIONAL + 144..OPTIONAL + 152).contains(at)), "{changed:?}");
    }

    #[test]
    fn the_same_key_and_image_give_the_same_signature() {
        assert_eq!(signer().sign(unsigned()).unwrap(), signer().sign(unsigned()).unwrap());
    }

    #[test]
    fn the_signature_names_digest_and_attributes_and_verifies() {
        let signer = signer();
        let signed = signer.sign(unsigned()).unwrap();
        let read = Pe::read_strict(&signed).unwrap();
        let table = read.certificates();
        let image_digest = read.authenticode_digest::<Sha256>().unwrap();
        let has = |bytes: &[u8]| table.windows(bytes.len()).any(|window| window == bytes);
        assert!(has(&[DIGEST_INFO, &image_digest].concat()));
        assert!(has(&signer.certificate));
        // The attributes as stored; the signature covers them under the tag of a SET.
        let start = table.windows(2).position(|window| window == [tag::CONTEXT_0, 0x4c]).unwrap();
        let mut attributes = table[start..start + 2 + 0x4c].to_vec();
        attributes[0] = tag::SET;
        let padding = Pkcs1v15Sign { hash_len: Some(32), prefix: DIGEST_INFO.into() };
        let signature =
            table.windows(4).position(|window| window == [tag::OCTET_STRING, 0x82, 1, 0]).unwrap();
        let signature = &table[signature + 4..][..256];
        signer.key.to_public_key().verify(padding, &Sha256::digest(&attributes), signature).unwrap();
    }

    #[test]
    fn an_image_of_odd_length_is_padded_first() {
        let mut odd = unsigned();
        odd.extend([1, 2, 3]);
        let signed = signer().sign(odd.clone()).unwrap();
        odd.extend([0; 5]);
        let digest = Pe::read_strict(&odd).unwrap().authenticode_digest::<Sha256>().unwrap();
        assert_eq!(Pe::read_strict(&signed).unwrap().authenticode_digest::<Sha256>().unwrap(), digest);
    }

    #[test]
    fn der_and_pem_make_the_same_signer() {
        let key = der("key", "PRIVATE KEY", KEY).unwrap();
        let certificate = der("certificate", "CERTIFICATE", CERTIFICATE).unwrap();
        let from_der = Signer::new(&key, &certificate).unwrap();
        assert_eq!(from_der.sign(unsigned()).unwrap(), signer().sign(unsigned()).unwrap());
        assert_eq!(from_der.certificate_sha256(), <[u8; 32]>::from(Sha256::digest(&certificate)));
        let dos = String::from_utf8(CERTIFICATE.to_vec()).unwrap().replace('\n', "\r\n");
        assert!(Signer::new(KEY, format!("subject=x\n{dos}").as_bytes()).is_ok());
    }

    #[test]
    fn debug_output_shows_no_key() {
        let text = format!("{:?}", signer());
        assert!(text.len() < 200 && text.starts_with("Signer { certificate: ["), "{text}");
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let ec = include_bytes!("specimen/ec-key.pem");
        assert!(matches!(Signer::new(ec, CERTIFICATE), Err(Error::Key(_))));
        assert!(matches!(Signer::new(b"\x30\x00", CERTIFICATE), Err(Error::Key(_))));
        let short = include_bytes!("specimen/short-key.pem");
        assert!(matches!(Signer::new(short, CERTIFICATE), Err(Error::KeyLength { found: 1024 })));
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let other = include_bytes!("specimen/other-key.pem");
        assert!(matches!(Signer::new(other, CERTIFICATE), Err(Error::Mismatch)));
        let ec = include_bytes!("specimen/ec-certificate.pem");
        assert!(matches!(Signer::new(KEY, ec), Err(Error::CertificateKey(_))));
    }

    #[test]
    fn malformed_certificates_are_refused() {
        let good = der("certificate", "CERTIFICATE", CERTIFICATE).unwrap();
        for length in 0..good.len() {
            assert!(matches!(Signer::new(KEY, &good[..length]), Err(Error::Certificate(_))), "{length}");
        }
        let mut longer = good.into_owned();
        longer.push(0);
        assert!(matches!(Signer::new(KEY, &longer), Err(Error::Certificate(_))));
        assert!(matches!(Signer::new(KEY, b"\x04\x02\x30\x00"), Err(Error::Certificate(_))));
    }

    #[test]
    fn pem_of_another_kind_is_refused() {
        let refusal = |key: &str| Signer::new(key.as_bytes(), CERTIFICATE).unwrap_err();
        let error = refusal("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n");
        let text = r#"key is a PEM block "RSA PRIVATE KEY", expected "PRIVATE KEY""#;
        assert_eq!(error.to_string(), text);
        let encrypted =
            refusal("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        assert!(matches!(encrypted, Error::PemLabel { .. }));
        let twice = [CERTIFICATE, CERTIFICATE].concat();
        assert!(matches!(Signer::new(KEY, &twice), Err(Error::Pem { what: "certificate", .. })));
        assert!(matches!(refusal("-----BEGIN PRIVATE KEY-----\nAAAA\n"), Error::Pem { what: "key", .. }));
        assert!(matches!(
            refusal("-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----"),
            Error::Pem { .. }
        ));
    }

    #[test]
    fn an_image_that_is_signed_is_refused() {
        let signed = signer().sign(unsigned()).unwrap();
        assert!(matches!(signer().sign(signed), Err(Error::Signed { .. })));
    }

    #[test]
    fn an_image_that_cannot_hold_a_signature_is_refused() {
        assert!(matches!(signer().sign(b"MZ".to_vec()), Err(Error::Image(_))));
        let mut few = unsigned();
        set(&mut few, OPTIONAL + 108, &4u32.to_le_bytes());
        assert!(matches!(signer().sign(few), Err(Error::NoDirectory)));
    }

    #[test]
    fn lengths_are_encoded_in_the_fewest_bytes() {
        let length =
            |count: usize| tlv(4, &[&vec![0; count]])[1..].iter().take(3).copied().collect::<Vec<u8>>();
        assert_eq!(length(0x7f)[0], 0x7f);
        assert_eq!(length(0x80)[..2], [0x81, 0x80]);
        assert_eq!(length(0x100), [0x82, 1, 0]);
    }
}
