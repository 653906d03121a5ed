//! What a relying party accepts, from a policy file or the strict defaults.
//!
//! # Shape
//!
//! ```text
//! field             meaning                                                          default
//! allow             exceptions: "unverified_quote", "debug_image"                    none
//! platforms         the reference's platforms that may decide; empty: all            empty
//! attributes        required and allowed bits of TDATTRIBUTES; no other may be set   ["SEPT_VE_DISABLE"], ["LASS", "PKS"]
//! xfam              the extended state that a TD may use                             programs' state; not PT, LBR
//! mrtd              further accepted values, for platforms that publish none         none
//! mr_config_id, mr_owner, mr_owner_config, mr_service_td                             zeros
//! mr_seam           accepted measurements of the TDX module; empty: any, noted       empty
//! report_data       the nonce that the quote must hold; absent: not judged, noted    absent
//! runtime           {register: digests that the running system extends, in order}    none
//! unjudged          registers that are not judged, noted                             none
//! ```
//!
//! # Source
//!
//! Intel TDX Module ABI 1.5, TD_ATTRIBUTES and XFAM. DEBUG lets the host read a TD, MIGRATABLE lets it move one, PERFMON
//! and the profiling bits let it observe one; without SEPT_VE_DISABLE the host can inject #VE into the kernel at any page.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::event::Register;
use crate::quote::{Attributes, Bytes, Xfam};

/// What a relying party accepts; [`Policy::default`] is the strictest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, remote = "Self")]
pub struct Policy {
    /// Exceptions to what is otherwise refused.
    pub allow: BTreeSet<Exception>,
    /// The names of the reference's platforms that may decide; if empty, all.
    pub platforms: BTreeSet<String>,
    /// The TD attributes that must or may be set.
    pub attributes: AttributeRule,
    /// The extended state that a TD may use.
    pub xfam: BitNames<Xfam>,
    /// MRTD values accepted in addition to the reference's.
    pub mrtd: Vec<Digest>,
    /// The required MRCONFIGID.
    pub mr_config_id: Bytes<48>,
    /// The required MROWNER.
    pub mr_owner: Bytes<48>,
    /// The required MROWNERCONFIG.
    pub mr_owner_config: Bytes<48>,
    /// The required MRSERVICETD; if absent, zeros: no service TD.
    pub mr_service_td: Option<Digest>,
    /// The accepted MRSEAM values; if empty, any.
    pub mr_seam: Vec<Digest>,
    /// The required REPORTDATA; if absent, not judged.
    pub report_data: Option<Bytes<64>>,
    /// What the running system extends after boot, in order.
    #[serde(deserialize_with = "each_once")]
    pub runtime: BTreeMap<Register, Vec<Digest>>,
    /// The registers that are not judged; never MRTD, RTMR1, RTMR2 or PCR 4.
    pub unjudged: BTreeSet<Register>,
}

/// What is refused unless the policy names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exception {
    /// A quote, TDREPORT or PCR values with an unverified signature: anyone could have made them up.
    UnverifiedQuote,
    /// An image with the debug profile: its operator can inspect it.
    DebugImage,
}

/// The TD attributes that must or may be set; all other bits must be clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, remote = "Self")]
pub struct AttributeRule {
    /// The bits that must be set.
    pub required: BitNames<Attributes>,
    /// The bits that may be set.
    pub allowed: BitNames<Attributes>,
}

/// A set of bits, serialized as the list of their names.
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

/// X87, SSE, AVX, OPMASK, ZMM_HI256, HI16_ZMM, PKRU, CET_U, CET_S, UINTR, XTILECFG, XTILEDATA: the state of programs.
const DEFAULT_XFAM: u64 = 0x0006_5ae7;
/// SEPT_VE_DISABLE.
const DEFAULT_REQUIRED: u64 = 1 << 28;
/// LASS and PKS, which protect the kernel from programs.
const DEFAULT_ALLOWED: u64 = 1 << 27 | 1 << 30;

impl Default for AttributeRule {
    fn default() -> Self {
        AttributeRule {
            required: BitNames(Attributes(DEFAULT_REQUIRED)),
            allowed: BitNames(Attributes(DEFAULT_ALLOWED)),
        }
    }
}

/// Reads a struct from members with names only: a derived `Deserialize` also takes a list, in the order of the members.
struct ByName<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ByName<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

macro_rules! by_name {
    ($($rules:ident),*) => {$(
        impl Serialize for $rules {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $rules {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(ByName(deserializer))
            }
        }
    )*};
}

by_name!(Policy, AttributeRule);

/// Reads a map in which no register occurs twice: of two demands, neither may get lost.
fn each_once<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Register, Vec<Digest>>, D::Error> {
    struct Registers;

    impl<'de> Visitor<'de> for Registers {
        type Value = BTreeMap<Register, Vec<Digest>>;

        fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("digests by register")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((register, digests)) = access.next_entry()? {
                if all.insert(register, digests).is_some() {
                    return Err(serde::de::Error::custom(format_args!("{register} occurs twice")));
                }
            }
            Ok(all)
        }
    }

    deserializer.deserialize_map(Registers)
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
                        serde::de::Error::custom(format_args!("expected the name of a bit, such as SSE or \"bit 7\", found {name:?}"))
                    })?;
                    bits |= 1u64 << bit;
                }
                Ok(BitNames($set(bits)))
            }
        }
    )*};
}

bit_names!(Attributes, Xfam);
