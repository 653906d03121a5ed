//! An Authenticode signature: its signer, and the certificates that its chain leads to.
//!
//! # Shape
//!
//! ```text
//! SignedData   SpcIndirectDataContent: hash algorithm, the image's digest
//!              certificates: the signer's, and others that issued it
//!              SignerInfo: issuer and serial of the signer, attributes with the content's digest, RSA signature over them
//! chain        the signer ─ issued by ─> … ─ is, or is issued by ─> a certificate of a database
//! ```
//!
//! # Source
//!
//! *Windows Authenticode Portable Executable Signature Format*; RFC 5652, 5.4 (attributes), RFC 5280, 6.1 (chains); edk2
//! `CryptoPkg/Library/BaseCryptLib/Pk/CryptAuthenticode.c` and `CryptPkcs7VerifyCommon.c`: any certificate of a database is
//! an end of the chain (partial chain), times of validity do not count.
//!
//! # Not here
//!
//! Keys other than RSA with PKCS #1 v1.5 and SHA-256, 384 or 512: the answer is unknown.

use alloc::vec::Vec;

use authenticode::AuthenticodeSignature;
use rsa::pkcs8::der::asn1::ObjectIdentifier;
use rsa::pkcs8::der::{Decode, Encode};
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use x509_cert::Certificate;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};

use super::{Error, Hash};

/// The largest accepted modulus in bits.
const MOST_BITS: usize = 16384;
/// The largest number of certificates in a signature: chains are searched among them.
const MOST_CERTIFICATES: usize = 16;
/// rsaEncryption, which some signers name instead of the signature's algorithm.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// messageDigest.
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
/// contentType.
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
/// Extensions that may be critical: basicConstraints, keyUsage, extKeyUsage, subjectAltName, the key identifiers.
const KNOWN_EXTENSIONS: [ObjectIdentifier; 6] = [
    ObjectIdentifier::new_unwrap("2.5.29.19"),
    ObjectIdentifier::new_unwrap("2.5.29.15"),
    ObjectIdentifier::new_unwrap("2.5.29.37"),
    ObjectIdentifier::new_unwrap("2.5.29.17"),
    ObjectIdentifier::new_unwrap("2.5.29.14"),
    ObjectIdentifier::new_unwrap("2.5.29.35"),
];
/// Hash algorithms, signatures with them, and DigestInfo up to the digest (RFC 8017, 9.2, note 1).
const ALGORITHMS: [(ObjectIdentifier, ObjectIdentifier, Hash, &[u8]); 3] = [
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
        Hash::Sha256,
        b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"),
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"),
        Hash::Sha384,
        b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"),
        Hash::Sha512,
        b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
    ),
];

/// An answer that may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    Unknown(&'static str),
}

/// A signature that was made by its signer over what it says of the image; the image's digest is still to be compared.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    hash: Hash,
    image_digest: Vec<u8>,
    /// The signer's certificate, then the others.
    chain: Vec<Link>,
}

/// A certificate, and its DER bytes.
#[derive(Debug, Clone)]
struct Link {
    der: Vec<u8>,
    certificate: Certificate,
}

impl Signature {
    /// Reads a signature and verifies that its signer made it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let unknown = |why| Error::Unknown { why };
        let read = AuthenticodeSignature::from_bytes(bytes)
            .map_err(|_| unknown("it is not an Authenticode signature with one signer"))?;
        let algorithm = |found: &ObjectIdentifier| ALGORITHMS.iter().find(|(digest, ..)| digest == found);
        let (.., hash, _) = algorithm(&read.digest_algorithm().oid)
            .ok_or_else(|| unknown("its digest is not SHA-256, SHA-384 or SHA-512"))?;
        let info = read.signer_info();
        let (_, signed, signer_hash, prefix) = algorithm(&info.digest_alg.oid)
            .ok_or_else(|| unknown("its signer's digest is not SHA-256, SHA-384 or SHA-512"))?;
        let mut chain = Vec::new();
        for certificate in read.certificates() {
            let der = certificate.to_der().map_err(|_| unknown("a certificate in it is malformed"))?;
            chain.push(Link { der, certificate: certificate.clone() });
        }
        if chain.len() > MOST_CERTIFICATES {
            return Err(unknown("it has more than 16 certificates"));
        }
        let signer = chain.iter().position(|link| {
            let tbs = &link.certificate.tbs_certificate;
            matches!(&info.sid, cms::signed_data::SignerIdentifier::IssuerAndSerialNumber(id)
                if id.issuer == tbs.issuer && id.serial_number == tbs.serial_number)
        });
        let signer = signer.ok_or_else(|| unknown("it does not have its signer's certificate"))?;
        chain.swap(0, signer);
        let content = read.encapsulated_content().unwrap_or_default();
        let message = match &info.signed_attrs {
            None => content.to_vec(),
            Some(attributes) => {
                let only = |oid: ObjectIdentifier| {
                    let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
                    let values = &found.next()?.values;
                    values.get(0).filter(|_| values.len() == 1 && found.next().is_none())
                };
                let digest = only(MESSAGE_DIGEST).map(|value| value.value());
                let kind = only(CONTENT_TYPE).and_then(|value| value.decode_as::<ObjectIdentifier>().ok());
                if digest != Some(&signer_hash.of(content))
                    || kind != Some(authenticode::SPC_INDIRECT_DATA_OBJID)
                {
                    return Err(unknown("its attributes are not those of its content"));
                }
                attributes.to_der().map_err(|_| unknown("its attributes are malformed"))?
            }
        };
        if ![RSA, *signed].contains(&info.signature_algorithm.oid) {
            return Err(unknown("it is not an RSA signature with PKCS #1 v1.5"));
        }
        let key = chain.first().and_then(Link::key).ok_or_else(|| unknown("its signer's key is not RSA"))?;
        let padding = Pkcs1v15Sign { hash_len: Some(signer_hash.size()), prefix: (*prefix).into() };
        key.verify(padding, &signer_hash.of(&message), read.signature())
            .map_err(|_| unknown("its signer did not make it"))?;
        Ok(Signature { hash: *hash, image_digest: read.digest().to_vec(), chain })
    }

    /// Returns the algorithm of the image's digest.
    pub(super) const fn hash(&self) -> Hash {
        self.hash
    }

    /// Returns the image's digest that the signer signed.
    pub(super) fn image_digest(&self) -> &[u8] {
        &self.image_digest
    }

    /// Returns the certificates in it, in DER.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().map(|link| link.der.as_slice())
    }

    /// Tells whether the signer's chain ends at, or passes through, this certificate.
    pub(super) fn leads_to(&self, end: &[u8]) -> Answer {
        // What is not a certificate ends no chain; firmware passes over it.
        let Ok(certificate) = Certificate::from_der(end) else { return Answer::No };
        let end = Link { der: end.to_vec(), certificate };
        let mut reached: Vec<usize> = alloc::vec![0];
        let mut unknown = Answer::No;
        let mut next = 0;
        // Each certificate is reached once: the search ends.
        while let Some(link) = reached.get(next).and_then(|index| self.chain.get(*index)) {
            next = next.saturating_add(1);
            if link.der == end.der {
                return Answer::Yes;
            }
            match end.issued(link) {
                Answer::No => {}
                // OpenSSL demands the very certificate here, so that none with the same name takes its place.
                Answer::Yes if link.is_self_issued() => {
                    unknown =
                        Answer::Unknown("a self-signed certificate of its chain has the name of another one");
                }
                Answer::Yes => return Answer::Yes,
                other => unknown = other,
            }
            for (index, issuer) in self.chain.iter().enumerate().filter(|(_, issuer)| issuer.der != link.der)
            {
                match issuer.issued(link) {
                    Answer::Yes if !reached.contains(&index) => reached.push(index),
                    Answer::Unknown(why) => unknown = Answer::Unknown(why),
                    _ => {}
                }
            }
        }
        unknown
    }
}

impl Link {
    fn key(&self) -> Option<RsaPublicKey> {
        let info = &self.certificate.tbs_certificate.subject_public_key_info;
        if info.algorithm.oid != RSA {
            return None;
        }
        let read = rsa::pkcs1::RsaPublicKey::from_der(info.subject_public_key.as_bytes()?).ok()?;
        let number = |number: rsa::pkcs1::UintRef<'_>| rsa::BigUint::from_bytes_be(number.as_bytes());
        RsaPublicKey::new_with_max_size(number(read.modulus), number(read.public_exponent), MOST_BITS).ok()
    }

    fn is_self_issued(&self) -> bool {
        self.certificate.tbs_certificate.issuer == self.certificate.tbs_certificate.subject
    }

    /// Tells whether this certificate issued `other`.
    fn issued(&self, other: &Link) -> Answer {
        let tbs = &other.certificate.tbs_certificate;
        if tbs.issuer != self.certificate.tbs_certificate.subject {
            return Answer::No;
        }
        let oid = other.certificate.signature_algorithm.oid;
        let algorithm = ALGORITHMS.iter().find(|(_, signed, ..)| *signed == oid);
        let (Some((.., hash, prefix)), Some(key)) = (algorithm, self.key()) else {
            return Answer::Unknown(
                "a certificate of its chain is not signed by RSA with SHA-256, SHA-384 or SHA-512",
            );
        };
        let (Ok(message), Some(signature)) = (tbs.to_der(), other.certificate.signature.as_bytes()) else {
            return Answer::No;
        };
        let padding = Pkcs1v15Sign { hash_len: Some(hash.size()), prefix: (*prefix).into() };
        match key.verify(padding, &hash.of(&message), signature) {
            Ok(()) => self.may_issue(),
            Err(_) => Answer::No,
        }
    }

    /// Tells whether the certificate is an authority's. Limits of its paths and names are not evaluated.
    fn may_issue(&self) -> Answer {
        let extensions = self.certificate.tbs_certificate.extensions.iter().flatten();
        let mut authority = false;
        for extension in extensions {
            let value = extension.extn_value.as_bytes();
            if extension.critical && !KNOWN_EXTENSIONS.contains(&extension.extn_id) {
                return Answer::Unknown(
                    "a certificate of its chain has a critical extension that is not known",
                );
            }
            if Some(&extension.extn_id) == KNOWN_EXTENSIONS.first() {
                match BasicConstraints::from_der(value) {
                    Ok(BasicConstraints { ca: true, path_len_constraint: None }) => authority = true,
                    Ok(BasicConstraints { ca: false, .. }) => {}
                    _ => return Answer::Unknown("a certificate of its chain limits the length of paths"),
                }
            }
            if Some(&extension.extn_id) == KNOWN_EXTENSIONS.get(1) {
                match KeyUsage::from_der(value) {
                    Ok(usage) if usage.0.contains(KeyUsages::KeyCertSign) => {}
                    _ => return Answer::Unknown("a certificate of its chain may not sign certificates"),
                }
            }
        }
        match authority {
            true => Answer::Yes,
            false => Answer::Unknown("a certificate of its chain is not an authority's"),
        }
    }
}

/// Returns the part of a certificate that its issuer signed; `None` if it is not a certificate.
pub(super) fn to_be_signed(certificate: &[u8]) -> Option<Vec<u8>> {
    Certificate::from_der(certificate).ok()?.tbs_certificate.to_der().ok()
}
