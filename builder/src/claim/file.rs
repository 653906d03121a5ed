//! Names the files of the folder that an image is built into.

/// The image itself, a raw disk.
pub const DISK: &str = "disk.raw";
/// The program that the firmware starts, also stored on the disk's system partition.
pub const UKI: &str = "image.efi";
/// The inputs and outputs: [`super::manifest`].
pub const MANIFEST: &str = "manifest.json";
/// Every path of the root file system: [`super::contents`].
pub const CONTENTS: &str = "contents.json";
/// The lock that the image was built from.
pub const LOCK: &str = "recipe.lock";
/// What a boot measures, if the recipe lists machines: [`super::reference`].
pub const VALUES: &str = "reference-values.json";
/// The bill of materials in CycloneDX form: [`super::sbom::cyclonedx`].
pub const CYCLONEDX: &str = "sbom.cdx.json";
/// The bill of materials in SPDX form: [`super::sbom::spdx`].
pub const SPDX: &str = "sbom.spdx.json";
