//! Whether firmware with Secure Boot starts an image, and which entry of its databases lets it.
//!
//! # Shape
//!
//! ```text
//! db, dbx     signature lists, one after another
//! list        type GUID, list size u32, header size u32, entry size u32 | header | entries
//! entry       owner GUID, data: a certificate, a hash of an image, or a hash of a certificate's TBS and 16 bytes of time
//!
//! unsigned    SHA-256 in dbx -> no;   in db -> yes
//! signed      for each signature: a certificate of its chain, or its hash, in dbx -> no;   the image's hash in dbx -> no;
//!             chain to a certificate in db -> yes;   the image's hash in db -> yes;   else the next signature
//! ```
//!
//! The entry that lets the image pass, with its owner, is what firmware measures into PCR 7 (EV_EFI_VARIABLE_AUTHORITY).
//!
//! # Source
//!
//! UEFI 2.10, 32.4.1 and 32.5.3.3; edk2 `SecurityPkg/Library/DxeImageVerificationLib` (the order of the checks). Booted with
//! OVMF: an image with its certificate or hash in dbx is not started; one with its hash in db is, and one whose chain leads
//! to a root or an authority between in db.
//!
//! What firmware might decide in two ways is refused here: a hash of any known algorithm in dbx counts; a certificate with
//! a time of revocation counts as revoked, since time stamps are not read; a chain with keys other than RSA is unknown.
//!
//! # Not here
//!
//! Whether Secure Boot is on ([`crate::variable`]); signatures and chains ([`pkcs7`]).

mod pkcs7;

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::digest::Digest;
use crate::field;
use crate::pe::{self, Pe};
use pkcs7::{Answer, Signature};

/// Size of a signature list's header in bytes.
const LIST: usize = 28;
/// Size of an owner's GUID in bytes.
const OWNER: usize = 16;
/// Size of an `EFI_TIME` in bytes.
const TIME: usize = 16;
/// Size of a `WIN_CERTIFICATE`'s header in bytes.
const CERTIFICATE_HEADER: usize = 8;
/// `WIN_CERT_TYPE_PKCS_SIGNED_DATA`.
const PKCS_SIGNED_DATA: u16 = 2;
/// a5c059a1-94e4-4aa7-87b5-ab155c2bf072: EFI_CERT_X509_GUID.
const X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// Types of lists with hashes of images: EFI_CERT_SHA256_GUID c1c41626-504c-4092-aca9-41f936934328, EFI_CERT_SHA384_GUID
/// ff3e5307-9fd0-48c9-85f1-8ad56c701e01, EFI_CERT_SHA512_GUID 093e0fae-a6c4-4f50-9f1b-d41e2b89c19a.
const IMAGES: [([u8; 16], Hash); 3] = [
    (
        [0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28],
        Hash::Sha256,
    ),
    (
        [0x07, 0x53, 0x3e, 0xff, 0xd0, 0x9f, 0xc9, 0x48, 0x85, 0xf1, 0x8a, 0xd5, 0x6c, 0x70, 0x1e, 0x01],
        Hash::Sha384,
    ),
    (
        [0xae, 0x0f, 0x3e, 0x09, 0xc4, 0xa6, 0x50, 0x4f, 0x9f, 0x1b, 0xd4, 0x1e, 0x2b, 0x89, 0xc1, 0x9a],
        Hash::Sha512,
    ),
];
/// Types of lists with hashes of certificates: EFI_CERT_X509_SHA256_GUID 3bd2a492-96c0-4079-b420-fcf98ef103ed,
/// EFI_CERT_X509_SHA384_GUID 7076876e-80c2-4ee6-aad2-28b349a6865b, EFI_CERT_X509_SHA512_GUID
/// 446dbf63-2502-4cda-bcfa-2465d2b0fe9d.
const CERTIFICATES: [([u8; 16], Hash); 3] = [
    (
        [0x92, 0xa4, 0xd2, 0x3b, 0xc0, 0x96, 0x79, 0x40, 0xb4, 0x20, 0xfc, 0xf9, 0x8e, 0xf1, 0x03, 0xed],
        Hash::Sha256,
    ),
    (
        [0x6e, 0x87, 0x76, 0x70, 0xc2, 0x80, 0xe6, 0x4e, 0xaa, 0xd2, 0x28, 0xb3, 0x49, 0xa6, 0x86, 0x5b],
        Hash::Sha384,
    ),
    (
        [0x63, 0xbf, 0x6d, 0x44, 0x02, 0x25, 0xda, 0x4c, 0xbc, 0xfa, 0x24, 0x65, 0xd2, 0xb0, 0xfe, 0x9d],
        Hash::Sha512,
    ),
];

/// Why firmware with Secure Boot does not start an image, or nobody can tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A database is not made of signature lists.
    #[error("{database} at offset {offset:#x}: expected a signature list, found one with {field} {found}")]
    List {
        /// `db` or `dbx`.
        database: &'static str,
        /// The list's offset.
        offset: usize,
        /// The field that is wrong.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// No entry lets the image pass.
    #[error("no certificate of db, of {certificates}, signed the image, and db does not have its hash")]
    NotAllowed {
        /// The number of certificates in db.
        certificates: usize,
    },
    /// An entry of dbx forbids the image.
    #[error("Secure Boot is on, and the firmware's dbx has {what}")]
    Forbidden {
        /// What dbx has: the image's hash, or a certificate of its signature's chain.
        what: &'static str,
    },
    /// The image's certificate table is damaged.
    #[error("UKI's certificate table at offset {offset:#x}: expected signatures up to its end at {end:#x}")]
    Table {
        /// Where reading ended.
        offset: usize,
        /// The table's size.
        end: usize,
    },
    /// A signature has a form that this program does not verify.
    #[error("Secure Boot is on, and the UKI's signature cannot be judged: {why}")]
    Unknown {
        /// Why.
        why: &'static str,
    },
}

/// A hash algorithm of Secure Boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    const ALL: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

    const fn size(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }

    pub(crate) fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha256 => Sha256::digest(bytes).to_vec(),
            Hash::Sha384 => Sha384::digest(bytes).to_vec(),
            Hash::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    fn of_image(self, image: &Pe<'_>) -> Result<Vec<u8>, pe::Error> {
        Ok(match self {
            Hash::Sha256 => image.authenticode_digest::<Sha256>()?.to_vec(),
            Hash::Sha384 => image.authenticode_digest::<Sha384>()?.to_vec(),
            Hash::Sha512 => image.authenticode_digest::<Sha512>()?.to_vec(),
        })
    }
}

/// An image as Secure Boot judges it.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its Authenticode digest by each algorithm. An unsigned image has the first only: hashing costs time.
    digests: Vec<(Hash, Vec<u8>)>,
    /// Its certificate table.
    table: Vec<u8>,
}

impl Program {
    /// Hashes an image, except with the algorithm of `known`, its Authenticode digest.
    ///
    /// # Errors
    ///
    /// As [`Pe::authenticode`].
    pub fn read(image: &Pe<'_>, known: Option<&Digest>) -> Result<Self, pe::Error> {
        let table = image.certificates().to_vec();
        let count = if table.is_empty() { 1 } else { Hash::ALL.len() };
        let digest = |hash: Hash| match known {
            Some(Digest::Sha256(digest)) if hash == Hash::Sha256 => Ok((hash, digest.to_vec())),
            Some(Digest::Sha384(digest)) if hash == Hash::Sha384 => Ok((hash, digest.to_vec())),
            _ => Ok((hash, hash.of_image(image)?)),
        };
        let digests = Hash::ALL.into_iter().take(count).map(digest);
        Ok(Program { digests: digests.collect::<Result<_, pe::Error>>()?, table })
    }

    /// Returns the entry of `db`, owner and data, that lets firmware start the image.
    ///
    /// # Errors
    ///
    /// [`Error`]: firmware does not start it, or nobody can tell.
    pub fn authority<'d>(&self, db: &'d [u8], dbx: &[u8]) -> Result<&'d [u8], Error> {
        let (db, dbx) = (Database::read("db", db)?, Database::read("dbx", dbx)?);
        let mut allowed = None;
        if self.table.is_empty() {
            self.check_hashes(&dbx)?;
            allowed = self.in_db(&db, Hash::Sha256);
        }
        for signature in self.signatures()? {
            dbx.check(&signature)?;
            self.check_hashes(&dbx)?;
            let digest = self.digest(signature.hash());
            let genuine = digest.is_some_and(|digest| digest == signature.image_digest());
            if allowed.is_none() && genuine {
                allowed =
                    db.signer(&signature)?.filter(|entry| !dbx.revokes(entry.data)).map(|entry| entry.whole);
            }
            allowed = allowed.or_else(|| self.in_db(&db, signature.hash()));
        }
        allowed.ok_or(Error::NotAllowed { certificates: db.certificates().count() })
    }

    fn digest(&self, hash: Hash) -> Option<&[u8]> {
        self.digests.iter().find(|(found, _)| *found == hash).map(|(_, digest)| digest.as_slice())
    }

    fn in_db<'d>(&self, db: &Database<'d>, hash: Hash) -> Option<&'d [u8]> {
        let digest = self.digest(hash)?;
        db.images(hash).find(|entry| entry.data == digest).map(|entry| entry.whole)
    }

    /// Checks that dbx has no hash of the image.
    fn check_hashes(&self, dbx: &Database<'_>) -> Result<(), Error> {
        for hash in Hash::ALL {
            let forbidden = match self.digest(hash) {
                Some(digest) => dbx.images(hash).any(|entry| entry.data == digest),
                // Not hashed: whether an entry is this image's is unknown.
                None if dbx.images(hash).next().is_some() => {
                    let why = "dbx has SHA-384 or SHA-512 hashes, which firmware may compare with an unsigned image";
                    return Err(Error::Unknown { why });
                }
                None => false,
            };
            if forbidden {
                return Err(Error::Forbidden { what: "the UKI's hash" });
            }
        }
        Ok(())
    }

    /// Reads the signatures. An entry of another type cannot be judged.
    fn signatures(&self) -> Result<Vec<Signature>, Error> {
        let mut signatures = Vec::new();
        let end = self.table.len();
        let mut at = 0usize;
        while at < end {
            let wrong = Error::Table { offset: at, end };
            let length = field::u32(&self.table, at).unwrap_or_default() as usize;
            let entry = field::bytes(&self.table, at, length).filter(|_| length > CERTIFICATE_HEADER);
            let entry = entry.ok_or(wrong)?;
            if field::u16(entry, 6) == Some(PKCS_SIGNED_DATA) {
                signatures.push(Signature::read(entry.get(CERTIFICATE_HEADER..).unwrap_or_default())?);
            } else {
                return Err(Error::Unknown { why: "its type is not PKCS #7 signed data" });
            }
            at = at.saturating_add(length.next_multiple_of(8));
        }
        if at == end { Ok(signatures) } else { Err(Error::Table { offset: at, end }) }
    }
}

/// An entry of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry<'d> {
    kind: [u8; 16],
    /// Owner and data, which firmware measures.
    whole: &'d [u8],
    data: &'d [u8],
}

/// The entries of db or dbx.
struct Database<'d> {
    entries: Vec<Entry<'d>>,
}

impl<'d> Database<'d> {
    /// Reads the lists. Lists of a known type with entries of another size are malformed: firmware compares some of them
    /// only in part, and passes over others.
    fn read(database: &'static str, bytes: &'d [u8]) -> Result<Self, Error> {
        let mut entries = Vec::new();
        let mut offset = 0usize;
        while offset < bytes.len() {
            let wrong = |field, found: usize| Error::List { database, offset, field, found: found as u64 };
            let rest = bytes.get(offset..).unwrap_or_default();
            let word = |at| field::u32(rest, at).unwrap_or_default() as usize;
            let (size, header, entry) = (word(16), word(20), word(24));
            let list = rest.get(..size).filter(|_| size >= LIST).ok_or(wrong("size", size))?;
            let kind: [u8; 16] = field::array(list, 0).unwrap_or_default();
            let body = list.get(LIST.saturating_add(header)..).ok_or(wrong("header size", header))?;
            if entry <= OWNER || !body.len().is_multiple_of(entry) {
                return Err(wrong("entry size", entry));
            }
            let of = |lists: &[([u8; 16], Hash)], more: usize| {
                let found = lists.iter().find(|(known, _)| *known == kind);
                found.map(|(_, hash)| OWNER.saturating_add(hash.size()).saturating_add(more))
            };
            if of(&IMAGES, 0).or(of(&CERTIFICATES, TIME)).is_some_and(|expected| expected != entry) {
                return Err(wrong("entry size", entry));
            }
            for whole in body.chunks_exact(entry) {
                entries.push(Entry { kind, whole, data: whole.get(OWNER..).unwrap_or_default() });
            }
            offset = offset.saturating_add(size);
        }
        Ok(Database { entries })
    }

    fn of_kind(&self, kind: [u8; 16]) -> impl Iterator<Item = Entry<'d>> {
        self.entries.iter().copied().filter(move |entry| entry.kind == kind)
    }

    fn certificates(&self) -> impl Iterator<Item = Entry<'d>> {
        self.of_kind(X509)
    }

    fn images(&self, hash: Hash) -> impl Iterator<Item = Entry<'d>> {
        IMAGES.iter().filter(move |(_, known)| *known == hash).flat_map(|(kind, _)| self.of_kind(*kind))
    }

    /// Returns the first certificate that the signature's chain leads to.
    fn signer(&self, signature: &Signature) -> Result<Option<Entry<'d>>, Error> {
        for entry in self.certificates() {
            match signature.leads_to(entry.data) {
                Answer::Yes => return Ok(Some(entry)),
                Answer::No => {}
                Answer::Unknown(why) => return Err(Error::Unknown { why }),
            }
        }
        Ok(None)
    }

    /// Tells whether a list of hashes revokes a certificate, at whatever time.
    fn revokes(&self, certificate: &[u8]) -> bool {
        let Some(tbs) = pkcs7::to_be_signed(certificate) else { return true };
        CERTIFICATES.iter().any(|(kind, hash)| {
            let digest = hash.of(&tbs);
            self.of_kind(*kind).any(|entry| entry.data.get(..hash.size()) == Some(digest.as_slice()))
        })
    }

    /// Checks, for a dbx, that no entry forbids the signature.
    fn check(&self, signature: &Signature) -> Result<(), Error> {
        if self.signer(signature)?.is_some() {
            return Err(Error::Forbidden { what: "a certificate of the UKI's signature" });
        }
        if signature.certificates().any(|certificate| self.revokes(certificate)) {
            return Err(Error::Forbidden { what: "the hash of a certificate of the UKI's signature" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
