//! The fields of a TDX quote or TDREPORT, from its bytes.
//!
//! # Shape
//!
//! ```text
//! quote v4     [header 48, TD report body 584, length u32, signature data]
//! quote v5     [header 48, body type u16, body length u32, body 584 (type 2) or 648 (type 3), length u32, signature data]
//! TDREPORT     [REPORTMACSTRUCT 256, TEE_TCB_INFO 239, reserved 17, TDINFO_STRUCT 512]
//! ```
//!
//! Numbers are little-endian. Bytes after a quote are not part of it: configfs-tsm adds padding. Version 3 is SGX only.
//!
//! # Source
//!
//! Intel TDX DCAP Quoting Library API, A.3 (quotes); Intel TDX Module ABI, TDREPORT_STRUCT, TD_ATTRIBUTES, XFAM. Checked
//! with quotes and reports of Google Cloud and bare metal, and with the logs that replay to their registers.
//!
//! # Not here
//!
//! Verifying the signature: a quote that reads well may still be forged; see [`crate::appraise::Evidence`].

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Algorithm, Digest};
use crate::read::{Reader, Truncated};

/// Length of a TD report body of TDX 1.0, and of TDX 1.5.
const BODY_1_0: u64 = 584;
const BODY_1_5: u64 = 648;
/// The TEE type of a TD in a quote's header; 0 is SGX.
const TEE_TDX: u32 = 0x81;
/// Lengths of a TDREPORT and of the two structures that it hashes.
const REPORT: usize = 1024;
const TCB_INFO: usize = 239;
const TD_INFO: usize = 512;
/// Offsets of TEE_TCB_INFO and TDINFO_STRUCT in a TDREPORT.
const TCB_INFO_AT: usize = 256;
const TD_INFO_AT: usize = 512;

/// Bytes that are not a digest; as text, lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes<const N: usize>(pub [u8; N]);

impl<const N: usize> Bytes<N> {
    /// Tells whether all are zero.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

impl<const N: usize> Default for Bytes<N> {
    fn default() -> Self {
        Bytes([0; N])
    }
}

impl<const N: usize> fmt::Display for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text is not the expected number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits, found {found:?}")]
pub struct NotBytes {
    /// The number of digits.
    pub expected: usize,
    /// The text.
    pub found: String,
}

impl<const N: usize> core::str::FromStr for Bytes<N> {
    type Err = NotBytes;

    fn from_str(text: &str) -> Result<Self, NotBytes> {
        let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Bytes).ok_or_else(|| NotBytes { expected: N.saturating_mul(2), found: text.into() })
    }
}

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! bit_sets {
    ($($(#[$about:meta])* $name:ident { $($bit:literal = $text:literal),* $(,)? })*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The bits that the specification names, in ascending order.
            pub const NAMED: &[(u32, &str)] = &[$(($bit, $text)),*];

            /// Returns the names of the set bits; an unnamed bit is called `bit 7`.
            pub fn names(self) -> Vec<String> {
                (0..u64::BITS).filter(|bit| self.has(*bit)).map(Self::name).collect()
            }

            /// Returns the bit with a name, the inverse of [`Self::name`].
            pub fn bit(name: &str) -> Option<u32> {
                (0..u64::BITS).find(|bit| Self::name(*bit) == name)
            }

            /// Tells whether a bit is set.
            pub const fn has(self, bit: u32) -> bool {
                bit < u64::BITS && (self.0 >> bit) & 1 == 1
            }

            /// Returns the name of a bit.
            pub fn name(bit: u32) -> String {
                let named = Self::NAMED.iter().find(|(number, _)| *number == bit);
                named.map_or_else(|| alloc::format!("bit {bit}"), |(_, name)| (*name).into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#018x}", self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let number = text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
                number.map($name).ok_or_else(|| {
                    serde::de::Error::custom(format_args!("expected 0x and up to 16 hexadecimal digits, found {text:?}"))
                })
            }
        }
    )*};
}

bit_sets! {
    /// A TD's attributes; TDX Module ABI 1.5, TD_ATTRIBUTES. As text, `0x` and 16 digits.
    Attributes {
        0 = "DEBUG",
        4 = "HGS_PLUS_PROF",
        5 = "PERF_PROF",
        6 = "PMT_PROF",
        16 = "ICSSD",
        27 = "LASS",
        28 = "SEPT_VE_DISABLE",
        29 = "MIGRATABLE",
        30 = "PKS",
        31 = "KL",
        62 = "TPA",
        63 = "PERFMON",
    }

    /// The extended state that a TD may use, with the bits of XCR0 and IA32_XSS; TDX Module ABI 1.5, XFAM. As text, `0x` and
    /// 16 digits.
    Xfam {
        0 = "X87",
        1 = "SSE",
        2 = "AVX",
        3 = "BNDREGS",
        4 = "BNDCSR",
        5 = "OPMASK",
        6 = "ZMM_HI256",
        7 = "HI16_ZMM",
        8 = "PT",
        9 = "PKRU",
        10 = "PASID",
        11 = "CET_U",
        12 = "CET_S",
        13 = "HDC",
        14 = "UINTR",
        15 = "LBR",
        16 = "HWP",
        17 = "XTILECFG",
        18 = "XTILEDATA",
        19 = "APX",
    }
}

/// Bytes are not a TD's quote, or not a TDREPORT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end inside a field.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The version is unsupported.
    #[error("expected quote version 4 or 5 at offset 0, found {found}")]
    Version {
        /// The version.
        found: u16,
    },
    /// The quote is not a TD's.
    #[error("expected TEE type {TEE_TDX:#x} (TDX) at offset 4, found {found:#x}")]
    TeeType {
        /// The type; 0 is SGX.
        found: u32,
    },
    /// The body type is unsupported.
    #[error("expected body type 2 (TDX 1.0) or 3 (TDX 1.5) at offset 48, found {found}")]
    BodyType {
        /// The type; 1 is an SGX enclave's.
        found: u16,
    },
    /// The body's length does not match its type.
    #[error("expected a body of {expected} bytes at offset 50, found {found}")]
    BodyLength {
        /// The length for its type.
        expected: u64,
        /// The length in the quote.
        found: u32,
    },
    /// There is no signature.
    #[error("expected signature data at offset {offset}, found none")]
    NoSignature {
        /// Offset of their length.
        offset: usize,
    },
    /// A TDREPORT has the wrong length.
    #[error("expected a TDREPORT of {REPORT} bytes, found {found}")]
    ReportLength {
        /// Its length.
        found: usize,
    },
    /// A TDREPORT is not a TD's.
    #[error("expected report type {TEE_TDX:#x} (TDX) at offset 0, found {found:#x}")]
    ReportType {
        /// The type.
        found: u8,
    },
    /// A TDREPORT's hash of one of its structures is wrong.
    #[error("expected {part} to have the hash at offset {offset}, {expected}, found {found}")]
    ReportHash {
        /// The structure.
        part: &'static str,
        /// Offset of the hash.
        offset: usize,
        /// The hash in the TDREPORT.
        expected: Digest,
        /// The hash of the structure.
        found: Digest,
    },
}

/// A TD's identity: the fields that a policy judges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Td {
    /// Security versions of the TDX module and its components.
    pub tee_tcb_svn: Bytes<16>,
    /// The measurement of the TDX module.
    pub mr_seam: Digest,
    /// The signer of the TDX module; zeros for Intel.
    pub mr_signer_seam: Digest,
    /// The attributes of the TDX module; zero for a production module.
    pub seam_attributes: u64,
    /// The attributes of the TD.
    pub attributes: Attributes,
    /// The extended state that the TD may use.
    pub xfam: Xfam,
    /// The measurement of the TD's initial memory.
    pub mrtd: Digest,
    /// Configuration set by the host; covered by the quote only.
    pub mr_config_id: Bytes<48>,
    /// The owner, set by the host.
    pub mr_owner: Bytes<48>,
    /// The owner's configuration, set by the host.
    pub mr_owner_config: Bytes<48>,
    /// RTMR0 to RTMR3.
    pub rtmr: [Digest; 4],
    /// Data from the TD's software, such as a nonce or a key's hash.
    pub report_data: Bytes<64>,
    /// The hash of the service TDs bound to this one; `None` in TDX 1.0, which lacks the field.
    pub mr_service_td: Option<Digest>,
}

/// A quote whose signature is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// 4 or 5.
    pub version: u16,
    /// The layout of the body.
    pub body: Body,
    /// The type of the attestation key: 2 is ECDSA-256 with P-256.
    pub attestation_key_type: u16,
    /// The vendor of the quoting enclave.
    pub qe_vendor: Bytes<16>,
    /// Data from the quoting enclave.
    pub user_data: Bytes<20>,
    /// The TD.
    pub td: Td,
    /// The signed bytes: header and body.
    pub signed: Vec<u8>,
    /// The signature data, for a verifier.
    pub signature: Vec<u8>,
    /// The number of bytes after the quote, up to the last one that is not zero. Nothing covers them: a sender added them.
    pub trailing: usize,
}

/// The layout of a TD report body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Body {
    /// 584 bytes.
    Tdx10,
    /// 648 bytes: TEE_TCB_SVN_2 and MRSERVICETD follow.
    Tdx15,
}

impl Quote {
    /// Reads a quote of version 4 or 5.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn read(bytes: &[u8]) -> Result<Quote, Error> {
        let mut reader = Reader::new(bytes, 0);
        let version = reader.u16("the quote's version")?;
        if !matches!(version, 4 | 5) {
            return Err(Error::Version { found: version });
        }
        let attestation_key_type = reader.u16("the attestation key's type")?;
        let tee = reader.u32("the TEE type")?;
        if tee != TEE_TDX {
            return Err(Error::TeeType { found: tee });
        }
        reader.array::<4>("reserved bytes")?;
        let qe_vendor = Bytes(reader.array("the quoting enclave's vendor")?);
        let user_data = Bytes(reader.array("the header's user data")?);
        let body = if version == 4 { Body::Tdx10 } else { body_type(&mut reader)? };
        let body_length = if body == Body::Tdx10 { BODY_1_0 } else { BODY_1_5 };
        let td = td(Reader::new(reader.take("the TD report body", body_length)?, 0), body)?;
        let signed = bytes.get(..reader.offset()).unwrap_or_default().to_vec();
        let offset = reader.offset();
        let length = reader.u32("the length of the signature data")?;
        if length == 0 {
            return Err(Error::NoSignature { offset });
        }
        let signature = reader.take("the signature data", length.into())?.to_vec();
        // A buffer's padding is harmless.
        let last = reader.rest().iter().rposition(|byte| *byte != 0);
        Ok(Quote {
            version,
            body,
            attestation_key_type,
            qe_vendor,
            user_data,
            td,
            signed,
            signature,
            trailing: last.map_or(0, |last| last.saturating_add(1)),
        })
    }
}

/// Reads body type and length of a version 5 quote.
fn body_type(reader: &mut Reader<'_>) -> Result<Body, Error> {
    let kind = reader.u16("the body's type")?;
    let length = reader.u32("the body's length")?;
    let (body, expected) = match kind {
        2 => (Body::Tdx10, BODY_1_0),
        3 => (Body::Tdx15, BODY_1_5),
        found => return Err(Error::BodyType { found }),
    };
    if u64::from(length) == expected { Ok(body) } else { Err(Error::BodyLength { expected, found: length }) }
}

/// Reads a TD report body.
fn td(mut reader: Reader<'_>, body: Body) -> Result<Td, Truncated> {
    let sha384 = |reader: &mut Reader<'_>, what| reader.array(what).map(Digest::Sha384);
    Ok(Td {
        tee_tcb_svn: Bytes(reader.array("TEE_TCB_SVN")?),
        mr_seam: sha384(&mut reader, "MRSEAM")?,
        mr_signer_seam: sha384(&mut reader, "MRSIGNERSEAM")?,
        seam_attributes: reader.u64("SEAMATTRIBUTES")?,
        attributes: Attributes(reader.u64("TDATTRIBUTES")?),
        xfam: Xfam(reader.u64("XFAM")?),
        mrtd: sha384(&mut reader, "MRTD")?,
        mr_config_id: Bytes(reader.array("MRCONFIGID")?),
        mr_owner: Bytes(reader.array("MROWNER")?),
        mr_owner_config: Bytes(reader.array("MROWNERCONFIG")?),
        rtmr: rtmrs(&mut reader)?,
        report_data: Bytes(reader.array("REPORTDATA")?),
        mr_service_td: match body {
            Body::Tdx10 => None,
            Body::Tdx15 => {
                reader.array::<16>("TEE_TCB_SVN_2")?;
                Some(sha384(&mut reader, "MRSERVICETD")?)
            }
        },
    })
}

fn rtmrs(reader: &mut Reader<'_>) -> Result<[Digest; 4], Truncated> {
    let mut registers = [Algorithm::Sha384.zero(); 4];
    for (register, name) in registers.iter_mut().zip(["RTMR0", "RTMR1", "RTMR2", "RTMR3"]) {
        *register = Digest::Sha384(reader.array(name)?);
    }
    Ok(registers)
}

/// A TDREPORT. Only the machine that made it can check its MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The TD.
    pub td: Td,
    /// The security version of the processor.
    pub cpu_svn: Bytes<16>,
    /// The MAC of REPORTMACSTRUCT, with a key of the machine.
    pub mac: Bytes<32>,
}

impl Report {
    /// Reads a TDREPORT and checks the hashes of its structures.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn read(bytes: &[u8]) -> Result<Report, Error> {
        if bytes.len() != REPORT {
            return Err(Error::ReportLength { found: bytes.len() });
        }
        let mut reader = Reader::new(bytes, 0);
        let kind = reader.u8("the report's type")?;
        if u32::from(kind) != TEE_TDX {
            return Err(Error::ReportType { found: kind });
        }
        reader.take("subtype, version and reserved bytes", 15)?;
        let cpu_svn = Bytes(reader.array("CPUSVN")?);
        let parts = [("TEE_TCB_INFO", TCB_INFO_AT, TCB_INFO), ("TDINFO_STRUCT", TD_INFO_AT, TD_INFO)];
        for (part, at, length) in parts {
            let offset = reader.offset();
            let expected = Digest::Sha384(reader.array(part)?);
            let found = Algorithm::Sha384.of(Reader::new(bytes, at).take(part, length as u64)?);
            if expected != found {
                return Err(Error::ReportHash { part, offset, expected, found });
            }
        }
        let report_data = Bytes(reader.array("REPORTDATA")?);
        reader.take("reserved bytes", 32)?;
        let mac = Bytes(reader.array("the MAC")?);
        let mut tcb = Reader::new(bytes, TCB_INFO_AT);
        tcb.take("VALID", 8)?;
        let mut info = Reader::new(bytes, TD_INFO_AT);
        let sha384 = |reader: &mut Reader<'_>, what| reader.array(what).map(Digest::Sha384);
        let td = Td {
            tee_tcb_svn: Bytes(tcb.array("TEE_TCB_SVN")?),
            mr_seam: sha384(&mut tcb, "MRSEAM")?,
            mr_signer_seam: sha384(&mut tcb, "MRSIGNERSEAM")?,
            seam_attributes: tcb.u64("SEAMATTRIBUTES")?,
            attributes: Attributes(info.u64("TDATTRIBUTES")?),
            xfam: Xfam(info.u64("XFAM")?),
            mrtd: sha384(&mut info, "MRTD")?,
            mr_config_id: Bytes(info.array("MRCONFIGID")?),
            mr_owner: Bytes(info.array("MROWNER")?),
            mr_owner_config: Bytes(info.array("MROWNERCONFIG")?),
            rtmr: rtmrs(&mut info)?,
            report_data,
            mr_service_td: Some(sha384(&mut info, "SERVTD_HASH")?),
        };
        Ok(Report { td, cpu_svn, mac })
    }
}

#[cfg(test)]
mod tests;
