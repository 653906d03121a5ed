//! Yields a suite's index table from a clearsigned `InRelease` file that a pinned key signed.
//!
//! # Shape
//! ```text
//! -----BEGIN PGP SIGNED MESSAGE-----
//! Hash: SHA256                        (only Hash headers)
//!                                     (empty line)
//! Origin: Debian                      (one deb822 stanza; lines that begin with `-` are escaped as `- -`)
//! SHA256:
//!  <64 hex digits> <bytes> <path below the suite's folder>
//! -----BEGIN PGP SIGNATURE-----
//! ...                                 (one or more signature packets)
//! -----END PGP SIGNATURE-----
//! ```
//! The parser reads the text as it was hashed: unescaped, without white space at line ends.
//!
//! # Source
//! RFC 9580 section 7 (cleartext signatures); Debian repository format, "Release files"; Debian's three
//! trixie suites as of November 2026.
//!
//! # Not here
//! Which keys are pinned ([`super::keys`]); fetching; what an index says (`resolve::packages`).

use std::collections::{BTreeMap, BTreeSet};

use pgp::armor::Dearmor;
use pgp::packet::{Packet, PacketParser, Signature, SignatureType, SignatureVersion};
use sha2::{Digest, Sha256};

use super::control::{self, ControlError, Stanza, is_safe_path, read_sha256, read_size};
use super::keys::{self, Fingerprint, KeyFault, Keyring, UnixTime};
use crate::Verified;

/// The most signatures that are checked; Debian's files carry up to three.
const MAX_SIGNATURES: usize = 16;

/// Why an `InRelease` file is refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum InReleaseError {
    /// The file does not begin with the cleartext header.
    #[error("the file is not signed: it does not begin with `{BEGIN_MESSAGE}`")]
    Unsigned,
    /// The cleartext frame is broken.
    #[error("line {line}: {what}")]
    Frame { line: usize, what: &'static str },
    /// Something follows the signature.
    #[error("line {line} stands outside the signed text")]
    Outside { line: usize },
    /// The signature block is not OpenPGP.
    #[error("the signature block cannot be read: {0}")]
    SignatureBlock(String),
    /// No pinned key signed.
    #[error("no signer is pinned: {}", .0.join(", "))]
    NoPinnedSigner(Vec<String>),
    /// A signature claims a pinned key, but the key did not sign this text.
    #[error("the signature by {0} does not match the text")]
    BadSignature(Fingerprint),
    /// The signature is genuine, but its key may not sign.
    #[error("the signing key {signer} {fault}")]
    Key { signer: Fingerprint, fault: KeyFault },
    /// The signature's digest is broken.
    #[error("the signature by {signer} uses the weak hash {hash}")]
    WeakHash { signer: Fingerprint, hash: String },
    /// The signature is not for text, expired, from the future, or has an unknown critical subpacket.
    #[error("the signature by {0} is expired, not yet valid or of an unknown kind")]
    NotCurrent(Fingerprint),
    /// The signed text is not deb822.
    #[error("the signed text is malformed")]
    Control(#[from] ControlError),
    /// The signed text is not exactly one stanza.
    #[error("the signed text has {0} stanzas, expected 1")]
    Stanzas(usize),
    /// A required field is missing.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A field cannot be read.
    #[error("the field `{field}` holds `{found}`")]
    Field { field: &'static str, found: String },
    /// The suite is not the requested one.
    #[error("this is suite `{suite}`, codename `{codename}`, expected `{expected}`")]
    WrongSuite { suite: String, codename: String, expected: String },
    /// The suite lacks the requested architecture.
    #[error("the suite is for {}, expected `{expected}`", .found.join(", "))]
    WrongArchitecture { found: Vec<String>, expected: String },
    /// The suite's `Valid-Until` has passed.
    #[error("expired at {}, and the time is {}", .valid_until.0, .now.0)]
    Expired { valid_until: UnixTime, now: UnixTime },
    /// The file is from the future.
    #[error("dated {}, after the current time {}", .date.0, .now.0)]
    Future { date: UnixTime, now: UnixTime },
    /// The file is older than one seen earlier.
    #[error("dated {}, older than the {} seen before", .date.0, .previous.0)]
    RolledBack { date: UnixTime, previous: UnixTime },
    /// The file has no SHA-256 table.
    #[error("the indexes are listed only by weak hashes")]
    OnlyWeakTables,
    /// Only MD5 or SHA-1 covers an index.
    #[error("the index `{0}` is listed only by a weak hash")]
    WeakIndex(String),
    /// The suite does not have an index.
    #[error("the suite has no index `{0}`")]
    NoIndex(String),
    /// One path has two digests.
    #[error("the index `{0}` is listed twice, differently")]
    TwoDigests(String),
}

/// What the caller asked the mirror for.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'e> {
    /// The codename or the suite's name, as in the URL: `trixie`, `trixie-security`.
    pub suite: &'e str,
    /// The architecture, for example `amd64`.
    pub architecture: &'e str,
    /// The current time; for a dated snapshot, the snapshot's time.
    pub now: UnixTime,
    /// The date of the newest file seen for this suite, if any.
    pub previous: Option<UnixTime>,
}

/// The size and digest of one index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The size in bytes.
    pub size: u64,
    /// The digest.
    pub sha256: [u8; 32],
}

/// A suite as its signers describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InRelease {
    /// The digest of the whole file, signatures included.
    pub sha256: [u8; 32],
    /// The primary fingerprints of the pinned keys with a good signature, sorted.
    pub signers: Vec<Fingerprint>,
    /// `Suite`, for example `stable`.
    pub suite: String,
    /// `Codename`, for example `trixie`.
    pub codename: String,
    /// `Date`.
    pub date: UnixTime,
    /// `Date` as written, for the lock.
    pub date_text: String,
    /// `Valid-Until`, which Debian's main archive does not set.
    pub valid_until: Option<UnixTime>,
    /// Whether indexes may also be fetched as `by-hash/SHA256/<digest>` in their folder.
    pub acquire_by_hash: bool,
    /// The components that the suite names, for example `main`.
    pub components: Vec<String>,
    /// Maps paths below the suite's folder to size and digest.
    pub indexes: BTreeMap<String, IndexEntry>,
    /// Paths that only weak digests cover.
    pub weak_indexes: BTreeSet<String>,
}

impl InRelease {
    /// Finds an index by its path below the suite's folder, for example `main/binary-amd64/Packages.xz`.
    pub fn index(&self, path: &str) -> Result<IndexEntry, InReleaseError> {
        match self.indexes.get(path) {
            Some(entry) => Ok(*entry),
            None if self.weak_indexes.contains(path) => Err(InReleaseError::WeakIndex(path.into())),
            None => Err(InReleaseError::NoIndex(path.into())),
        }
    }
}

/// Verifies the signatures first, then compares the signed text with what was asked for.
pub fn verify(
    bytes: &[u8],
    keyring: &Keyring,
    expected: &Expected<'_>,
) -> Result<Verified<InRelease>, InReleaseError> {
    let frame = Frame::read(bytes)?;
    let canonical = frame.lines.join("\r\n");
    let signers = good_signers(&frame.signatures, canonical.as_bytes(), keyring, expected.now)?;
    let text = frame.lines.join("\n");
    Ok(Verified::by_its_judge(stated(text.as_bytes(), signers, Sha256::digest(bytes).into(), expected)?))
}

/// Reads a signed text and compares it with what was asked for.
fn stated(
    text: &[u8],
    signers: Vec<Fingerprint>,
    sha256: [u8; 32],
    expected: &Expected<'_>,
) -> Result<InRelease, InReleaseError> {
    let stanzas = control::stanzas(text).collect::<Result<Vec<_>, _>>()?;
    let [stanza] = stanzas.as_slice() else { return Err(InReleaseError::Stanzas(stanzas.len())) };
    let release = read_release(stanza, signers, sha256)?;
    check(&release, stanza, expected)?;
    Ok(release)
}

/// Tells whether an unsigned text would be accepted if signed, so that the fuzzer gets past the signature.
#[doc(hidden)]
pub fn is_acceptable_once_signed(text: &[u8], expected: &Expected<'_>) -> bool {
    stated(text, Vec::new(), [0; 32], expected).is_ok()
}

const BEGIN_MESSAGE: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &str = "-----END PGP SIGNATURE-----";

/// The parts of a clearsigned file; the text is as it was hashed except for line ends.
struct Frame {
    lines: Vec<String>,
    signatures: Vec<Signature>,
}

impl Frame {
    fn read(bytes: &[u8]) -> Result<Self, InReleaseError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| ControlError::NotUtf8 { offset: error.valid_up_to() })?;
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).zip(1..);
        let frame = |line, what| InReleaseError::Frame { line, what };
        if lines.next().is_none_or(|(line, _)| line.trim_end_matches([' ', '\t']) != BEGIN_MESSAGE) {
            return Err(InReleaseError::Unsigned);
        }
        loop {
            match lines.next() {
                Some((line, _)) if line.trim_end_matches([' ', '\t']).is_empty() => break,
                Some((line, _)) if line.starts_with("Hash: ") => {}
                Some((_, number)) => return Err(frame(number, "expected a Hash header or an empty line")),
                None => return Err(frame(1, "the file ends in its headers")),
            }
        }
        let mut signed = Vec::new();
        let begin = loop {
            let Some((line, number)) = lines.next() else {
                return Err(frame(signed.len(), "the file ends before its signature"));
            };
            if line.trim_end_matches([' ', '\t']) == BEGIN_SIGNATURE {
                break number;
            }
            if line.contains('\r') {
                return Err(frame(number, "a carriage return inside a line"));
            }
            let unescaped = match line.strip_prefix("- ") {
                Some(unescaped) => unescaped,
                None if line.starts_with('-') => return Err(frame(number, "an unescaped hyphen")),
                None => line,
            };
            signed.push(unescaped.trim_end_matches([' ', '\t']).to_owned());
        };
        let mut block = format!("{BEGIN_SIGNATURE}\n");
        loop {
            let Some((line, _)) = lines.next() else {
                return Err(frame(begin, "the signature block has no end"));
            };
            let line = line.trim_end_matches([' ', '\t']);
            block.push_str(line);
            block.push('\n');
            if line == END_SIGNATURE {
                break;
            }
            if line.starts_with('-') {
                return Err(frame(begin, "the signature block has a second frame"));
            }
        }
        if let Some((_, line)) = lines.find(|(line, _)| !line.trim().is_empty()) {
            return Err(InReleaseError::Outside { line });
        }
        Ok(Frame { lines: signed, signatures: read_signatures(&block)? })
    }
}

fn read_signatures(block: &str) -> Result<Vec<Signature>, InReleaseError> {
    let mut dearmor = Dearmor::new(block.as_bytes());
    dearmor.read_header().map_err(|error| InReleaseError::SignatureBlock(error.to_string()))?;
    let mut signatures = Vec::new();
    for packet in PacketParser::new(std::io::BufReader::new(dearmor)) {
        match packet {
            Ok(Packet::Signature(signature)) if signatures.len() < MAX_SIGNATURES => {
                signatures.push(signature)
            }
            Ok(Packet::Signature(_)) => {
                return Err(InReleaseError::SignatureBlock("too many signatures".into()));
            }
            Ok(_) => return Err(InReleaseError::SignatureBlock("a packet that is not a signature".into())),
            Err(error) => return Err(InReleaseError::SignatureBlock(error.to_string())),
        }
    }
    Ok(signatures)
}

/// Collects the pinned signers. One forged signature is fatal; an unknown or expired signer is not.
fn good_signers(
    signatures: &[Signature],
    canonical: &[u8],
    keyring: &Keyring,
    now: UnixTime,
) -> Result<Vec<Fingerprint>, InReleaseError> {
    let mut good = BTreeSet::new();
    let mut unknown = Vec::new();
    let mut refused = None;
    for signature in signatures {
        let Some(checked) = keyring.check(signature, canonical, now) else {
            unknown.push(claimed_signer(signature));
            continue;
        };
        let signer = checked.primary;
        let kind = matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary))
            && matches!(signature.version(), SignatureVersion::V4);
        let fault = if !keys::is_strong(signature.hash_alg()) {
            let hash = signature.hash_alg().map_or_else(|| "unknown".into(), |hash| hash.to_string());
            InReleaseError::WeakHash { signer, hash }
        } else if !checked.genuine {
            return Err(InReleaseError::BadSignature(signer));
        } else if let Err(fault) = checked.usable {
            InReleaseError::Key { signer, fault }
        } else if !kind || !keys::is_current(signature, now) {
            InReleaseError::NotCurrent(signer)
        } else {
            good.insert(signer);
            continue;
        };
        refused.get_or_insert(fault);
    }
    match refused {
        _ if !good.is_empty() => Ok(good.into_iter().collect()),
        Some(fault) => Err(fault),
        None => Err(InReleaseError::NoPinnedSigner(unknown)),
    }
}

fn claimed_signer(signature: &Signature) -> String {
    let fingerprint =
        signature.issuer_fingerprint().first().map(|claimed| hex::encode_upper(claimed.as_bytes()));
    fingerprint
        .or_else(|| signature.issuer_key_id().first().map(|id| id.to_string().to_uppercase()))
        .unwrap_or_else(|| "an unnamed signer".into())
}

fn read_release(
    stanza: &Stanza<'_>,
    signers: Vec<Fingerprint>,
    sha256: [u8; 32],
) -> Result<InRelease, InReleaseError> {
    let need = |field| stanza.value(field).ok_or(InReleaseError::Missing(field));
    let bad = |field, found: &str| InReleaseError::Field { field, found: found.into() };
    let date_text = need("Date")?;
    let date = read_date(date_text).ok_or_else(|| bad("Date", date_text))?;
    let valid_until = match stanza.value("Valid-Until") {
        None => None,
        Some(text) => Some(read_date(text).ok_or_else(|| bad("Valid-Until", text))?),
    };
    let acquire_by_hash = match stanza.value("Acquire-By-Hash") {
        None | Some("no") => false,
        Some("yes") => true,
        Some(other) => return Err(bad("Acquire-By-Hash", other)),
    };
    let mut indexes = BTreeMap::new();
    let table = stanza.field("SHA256").ok_or(InReleaseError::OnlyWeakTables)?;
    for line in table.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split_ascii_whitespace();
        let (digest, size, path, rest) = (words.next(), words.next(), words.next(), words.next());
        let entry = digest.and_then(read_sha256).zip(size.and_then(read_size));
        let (Some((sha256, size)), Some(path), None) = (entry, path.filter(|path| is_safe_path(path)), rest)
        else {
            return Err(bad("SHA256", line));
        };
        let entry = IndexEntry { size, sha256 };
        if indexes.insert(path.to_owned(), entry).is_some_and(|other| other != entry) {
            return Err(InReleaseError::TwoDigests(path.into()));
        }
    }
    let weak = ["MD5Sum", "SHA1"].into_iter().filter_map(|field| stanza.field(field));
    let weak = weak.flat_map(|field| field.lines()).filter_map(|line| line.split_ascii_whitespace().nth(2));
    let weak_indexes = weak.filter(|path| !indexes.contains_key(*path)).map(str::to_owned).collect();
    Ok(InRelease {
        sha256,
        signers,
        suite: stanza.value("Suite").unwrap_or_default().into(),
        codename: need("Codename")?.into(),
        date,
        date_text: date_text.into(),
        valid_until,
        acquire_by_hash,
        components: need("Components")?.split_ascii_whitespace().map(str::to_owned).collect(),
        indexes,
        weak_indexes,
    })
}

fn check(release: &InRelease, stanza: &Stanza<'_>, expected: &Expected<'_>) -> Result<(), InReleaseError> {
    let InRelease { suite, codename, date, .. } = release;
    if expected.suite != suite && expected.suite != codename {
        return Err(InReleaseError::WrongSuite {
            suite: suite.clone(),
            codename: codename.clone(),
            expected: expected.suite.into(),
        });
    }
    let architectures = stanza.value("Architectures").ok_or(InReleaseError::Missing("Architectures"))?;
    if !architectures.split_ascii_whitespace().any(|found| found == expected.architecture) {
        return Err(InReleaseError::WrongArchitecture {
            found: architectures.split_ascii_whitespace().map(str::to_owned).collect(),
            expected: expected.architecture.into(),
        });
    }
    let now = expected.now;
    if date.0 > now.0.saturating_add(keys::MAX_AHEAD) {
        return Err(InReleaseError::Future { date: *date, now });
    }
    if let Some(valid_until) = release.valid_until.filter(|valid_until| *valid_until < now) {
        return Err(InReleaseError::Expired { valid_until, now });
    }
    match expected.previous {
        Some(previous) if *date < previous => Err(InReleaseError::RolledBack { date: *date, previous }),
        _ => Ok(()),
    }
}

/// Reads a date as Release files write it, `Sat, 12 Sep 2026 07:55:41 UTC`; zones other than UTC are refused.
pub fn read_date(text: &str) -> Option<UnixTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [weekday, day, month, year, clock, zone] = words.as_slice() else { return None };
    if !matches!(*zone, "UTC" | "GMT" | "+0000") {
        return None;
    }
    let number = |text: &str, from: u64, to: u64| -> Option<u64> {
        let value = read_size(text).filter(|_| text.len() <= 4)?;
        (from..=to).contains(&value).then_some(value)
    };
    let month = u64::try_from(MONTHS.iter().position(|name| name == month)?).ok()? + 1;
    let year = number(year, 1970, 9999)?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let day = number(day, 1, length)?;
    let clock: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = clock.as_slice() else { return None };
    let seconds = number(hour, 0, 23)? * 3600 + number(minute, 0, 59)? * 60 + number(second, 0, 60)?;
    // Days from the civil date (Hinnant): years begin in March, so the leap day comes last.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    let named = DAYS.get(usize::try_from(days % 7).ok()?)?;
    (weekday.strip_suffix(',') == Some(*named)).then_some(UnixTime(days * 86_400 + seconds))
}

#[cfg(test)]
mod tests;
