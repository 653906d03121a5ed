//! The files of the platforms and firmware that the crate knows, as text.
//!
//! # Shape
//!
//! ```text
//! platforms/NAME.toml       one platform with firmware of its own: [`crate::platform::PlatformFile`]
//! platforms/firmware.toml   [[firmware]] an image's profile and the digests of its PEIFV: [`FirmwareFile`]
//! ```
//!
//! # Not here
//!
//! Parsing TOML: the types are serde's, and callers bring a parser.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::platform::Seen;
use crate::volume::Profile;

/// The text of each platform's file, by the platform's name.
pub const PLATFORMS: [(&str, &str); 2] = [
    ("gcp-c3", include_str!("../platforms/gcp-c3.toml")),
    ("alicloud-tdx", include_str!("../platforms/alicloud-tdx.toml")),
];

/// The text of the file of known firmware, a [`FirmwareFile`].
pub const FIRMWARE: &str = include_str!("../platforms/firmware.toml");

/// The file of known firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareFile {
    /// The images.
    pub firmware: Vec<KnownFirmware>,
}

impl FirmwareFile {
    /// Finds an image by its SHA-256.
    pub fn find(&self, sha256: &Digest) -> Option<&KnownFirmware> {
        self.firmware.iter().find(|known| known.profile.firmware == *sha256)
    }
}

/// A known firmware image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownFirmware {
    /// Package and path it comes from.
    pub origin: alloc::string::String,
    /// What it measures.
    pub profile: Profile,
    /// Digests of PEIFV found in event logs of this image.
    #[serde(default)]
    pub pei: Vec<Seen>,
}
