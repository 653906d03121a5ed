//! The fields of a TDX quote or TDREPORT, from its bytes.

use serde::{Deserialize, Serialize};

/// Holds the attributes of a TD; TDX Module ABI, TDATTRIBUTES.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(pub u64);
