//! Names the files of the folder that an image is built into.

/// The image itself, a raw disk.
pub const DISK: &str = "disk.raw";
/// The program that firmware starts, as it lies on the disk's system partition too.
pub const UKI: &str = "image.efi";
/// What went in and what came out: [`super::manifest`].
pub const MANIFEST: &str = "manifest.json";
/// Every path of the root file system: [`super::contents`].
pub const CONTENTS: &str = "contents.json";
/// The lock that it was built from.
pub const LOCK: &str = "recipe.lock";
/// What a boot measures, where the recipe lists machines: [`super::reference`].
pub const VALUES: &str = "reference-values.json";
/// The bill of materials as CycloneDX: [`super::sbom::cyclonedx`].
pub const CYCLONEDX: &str = "sbom.cdx.json";
/// The bill of materials as SPDX: [`super::sbom::spdx`].
pub const SPDX: &str = "sbom.spdx.json";
