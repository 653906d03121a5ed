//! What a relying party allows, from its policy's file or the strict defaults.
//!
//! # Shape
//!
//! ```text
//! allow             exceptions by name: "unverified_quote", "debug_image"; none
//! platforms         the reference's platforms that may decide; all when empty
//! attributes        required ["SEPT_VE_DISABLE"], allowed ["LASS", "PKS"]: any other bit of TDATTRIBUTES refuses
//! xfam              the extended state that a TD may use; tracing (PT, LBR) and what has no name refuses
//! mrtd              values that are accepted besides the reference's, where a platform publishes none; none
//! mr_config_id, mr_owner, mr_owner_config, mr_service_td     zeros
//! mr_seam           the accepted measurements of the TDX module; any when empty, and the verdict says so
//! report_data       the nonce that the quote must hold; not judged when absent, and the verdict says so
//! runtime           {register: digests that the running system extends, in order}; none
//! unjudged          registers that nobody looks at, and the verdict says so; none
//! ```
//!
//! # Source
//!
//! Intel TDX Module ABI 1.5, TD_ATTRIBUTES and XFAM. DEBUG lets the host read a TD, MIGRATABLE lets it move one, PERFMON and
//! the profiling bits let it watch one, and without SEPT_VE_DISABLE the host can inject #VE into the kernel at any page.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::event::Register;
use crate::quote::{Attributes, Bytes, Xfam};

/// Holds what a relying party allows; [`Policy::default`] is the strictest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What is allowed although it is refused otherwise.
    pub allow: BTreeSet<Exception>,
    /// The names of the reference's platforms that may decide; all when empty.
    pub platforms: BTreeSet<String>,
    /// What a TD's attributes must be.
    pub attributes: AttributeRule,
    /// The extended state that a TD may use.
    pub xfam: BitNames<Xfam>,
    /// The MRTD that are accepted besides the reference's.
    pub mrtd: Vec<Digest>,
    /// What MRCONFIGID must be.
    pub mr_config_id: Bytes<48>,
    /// What MROWNER must be.
    pub mr_owner: Bytes<48>,
    /// What MROWNERCONFIG must be.
    pub mr_owner_config: Bytes<48>,
    /// What MRSERVICETD must be; zeros, which is no service TD, when absent.
    pub mr_service_td: Option<Digest>,
    /// The accepted MRSEAM; any when empty.
    pub mr_seam: Vec<Digest>,
    /// What REPORTDATA must be.
    pub report_data: Option<Bytes<64>>,
    /// What the running system extends after its boot, in order.
    pub runtime: BTreeMap<Register, Vec<Digest>>,
    /// The registers that are not looked at; never MRTD, RTMR1, RTMR2 or PCR 4.
    pub unjudged: BTreeSet<Register>,
}

/// Names what is refused unless a policy names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exception {
    /// A quote, a TDREPORT or PCR values whose signature nobody has verified: anybody could have written them.
    UnverifiedQuote,
    /// An image of the debug profile: its operator can look into it.
    DebugImage,
}

/// Says what a TD's attributes must be: each bit that is neither required nor allowed must be clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttributeRule {
    /// The bits that must be set.
    pub required: BitNames<Attributes>,
    /// The bits that may be set.
    pub allowed: BitNames<Attributes>,
}

/// Writes a set of bits as the list of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitNames<T>(pub T);

impl Policy {
    /// Tells whether an exception is allowed.
    pub fn allows(&self, exception: Exception) -> bool {
        self.allow.contains(&exception)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            allow: BTreeSet::new(),
            platforms: BTreeSet::new(),
            attributes: AttributeRule::default(),
            xfam: BitNames(Xfam(DEFAULT_XFAM)),
            mrtd: Vec::new(),
            mr_config_id: Bytes::default(),
            mr_owner: Bytes::default(),
            mr_owner_config: Bytes::default(),
            mr_service_td: None,
            mr_seam: Vec::new(),
            report_data: None,
            runtime: BTreeMap::new(),
            unjudged: BTreeSet::new(),
        }
    }
}

/// X87, SSE, AVX, OPMASK, ZMM_HI256, HI16_ZMM, PKRU, CET_U, CET_S, UINTR, XTILECFG, XTILEDATA: state of programs.
const DEFAULT_XFAM: u64 = 0x0006_5ae7;
/// SEPT_VE_DISABLE.
const DEFAULT_REQUIRED: u64 = 1 << 28;
/// LASS and PKS, which protect a kernel from its programs.
const DEFAULT_ALLOWED: u64 = 1 << 27 | 1 << 30;

impl Default for AttributeRule {
    fn default() -> Self {
        AttributeRule {
            required: BitNames(Attributes(DEFAULT_REQUIRED)),
            allowed: BitNames(Attributes(DEFAULT_ALLOWED)),
        }
    }
}

macro_rules! bit_names {
    ($($set:ident),*) => {$(
        impl Serialize for BitNames<$set> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.names())
            }
        }

        impl<'de> Deserialize<'de> for BitNames<$set> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut bits = 0;
                for name in Vec::<String>::deserialize(deserializer)? {
                    let bit = $set::bit(&name).ok_or_else(|| {
                        serde::de::Error::custom(format_args!("expected the name of a bit, as SSE or \"bit 7\", found {name:?}"))
                    })?;
                    bits |= 1u64 << bit;
                }
                Ok(BitNames($set(bits)))
            }
        }
    )*};
}

bit_names!(Attributes, Xfam);
