//! The platforms and firmware that are known beforehand, as the texts of their files.
//!
//! # Shape
//!
//! ```text
//! platforms/NAME.toml       one platform that decides for itself: [`crate::platform::PlatformFile`]
//! platforms/firmware.toml   [[firmware]] profile and PEIFV's digests of an image, by its SHA-256: [`FirmwareFile`]
//! ```
//!
//! # Not here
//!
//! Reading TOML: callers bring their own reader for serde's types.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::platform::Seen;
use crate::volume::Profile;

/// The text of each platform's file, by its name.
pub const PLATFORMS: [(&str, &str); 2] = [
    ("gcp-c3", include_str!("../platforms/gcp-c3.toml")),
    ("alicloud-tdx", include_str!("../platforms/alicloud-tdx.toml")),
];

/// The text of the file of known firmware.
pub const FIRMWARE: &str = include_str!("../platforms/firmware.toml");

/// A file of firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareFile {
    /// Each image.
    pub firmware: Vec<KnownFirmware>,
}

impl FirmwareFile {
    /// Finds an image by its SHA-256.
    pub fn find(&self, sha256: &Digest) -> Option<&KnownFirmware> {
        self.firmware.iter().find(|known| known.profile.firmware == *sha256)
    }
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownFirmware {
    /// Where it comes from.
    pub origin: alloc::string::String,
    /// What it does.
    pub profile: Profile,
    /// PEIFV as it was measured.
    #[serde(default)]
    pub pei: Vec<Seen>,
}
