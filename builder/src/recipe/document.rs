//! Yields the tables of one `recipe.toml`, as they are written.
//!
//! # Shape
//! Every key is optional here; what a whole recipe needs is checked when the documents that extend each other are
//! laid upon each other (`recipe`). The JSON Schema that editors use is derived from these types.
//!
//! # Not here
//! What the values mean together: `recipe`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

/// One `recipe.toml`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[schemars(title = "Proofmark recipe", rename = "Recipe")]
pub struct Document {
    /// Other recipe files (paths relative to this one) whose parts come first; this one adds to their lists and
    /// overrides their single values.
    #[schemars(with = "Vec<String>")]
    pub extends: Vec<Spanned<String>>,
    /// What the image is called.
    pub image: Image,
    /// Debian packages.
    pub debian: Debian,
    /// The kernel, its modules and its command line.
    pub kernel: Kernel,
    /// Node.js.
    pub node: Option<Node>,
    /// Applications from the npm registry.
    #[schemars(with = "Vec<NpmApplication>")]
    pub npm: Vec<Spanned<NpmApplication>>,
    /// Files of the recipe's own.
    #[schemars(with = "Vec<File>")]
    pub files: Vec<Spanned<File>>,
    /// Symbolic links.
    #[schemars(with = "Vec<Link>")]
    pub links: Vec<Spanned<Link>>,
    /// Directories, mostly mount points.
    #[schemars(with = "Vec<Directory>")]
    pub directories: Vec<Spanned<Directory>>,
    /// System users.
    #[schemars(with = "Vec<User>")]
    pub users: Vec<Spanned<User>>,
    /// System groups.
    #[schemars(with = "Vec<Group>")]
    pub groups: Vec<Spanned<Group>>,
    /// Units.
    pub systemd: Systemd,
    /// Debian alternatives: name to the path that it shall point to, as `awk = "/usr/bin/mawk"`.
    pub alternatives: BTreeMap<String, String>,
    /// The root file system.
    pub filesystem: Filesystem,
    /// The disk.
    pub disk: Disk,
    /// The machines whose reference values are computed.
    pub measure: Measure,
    /// What the library lint may pass over.
    pub lint: Lint,
    /// What a profile adds.
    pub profiles: Profiles,
}

/// What the image is called.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Image {
    /// Name: lower-case letters, digits, `-`, `.` and `_`; `IMAGE_ID` of os-release.
    #[schemars(with = "Option<String>")]
    pub name: Option<Spanned<String>>,
    /// Version: letters, digits, `.`, `_`, `+`, `~` and `-`; `IMAGE_VERSION` of os-release.
    #[schemars(with = "Option<String>")]
    pub version: Option<Spanned<String>>,
    /// Host name of the machine; the image's name when absent.
    pub hostname: Option<String>,
}

/// Debian packages.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Debian {
    /// Code name of the release, as `trixie`; its updates and security suites are always used with it.
    pub suite: Option<String>,
    /// Moment of the archive (`YYYYMMDDTHHMMSSZ`): the lock takes nothing newer, and the default mirror is the dated
    /// snapshot of it. Absent: the moment of locking.
    #[schemars(with = "Option<String>")]
    pub snapshot: Option<Spanned<String>>,
    /// Packages wanted. Their dependencies come along; recommended packages do not.
    #[schemars(with = "Vec<String>")]
    pub packages: Vec<Spanned<String>>,
    /// Packages that must not be installed: the packages that depend on them do without.
    #[schemars(with = "Vec<String>")]
    pub exclude: Vec<Spanned<String>>,
    /// Files of Debian packages to leave out.
    #[schemars(with = "Vec<Omit>")]
    pub omit: Vec<Spanned<Omit>>,
    /// What to do about maintainer scripts that are not known, by package.
    pub scripts: BTreeMap<String, ScriptRule>,
}

/// Files to leave out, and why.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Omit {
    /// Globs of paths. `*` stays inside of one path component, `**` crosses them. For Debian packages relative to the
    /// root of the image, for npm applications to their target.
    pub paths: Vec<String>,
    /// Globs of paths that are kept although `paths` match them.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Why they are not needed.
    pub reason: String,
}

impl From<&Omit> for rootfs::omit::Rule {
    fn from(omit: &Omit) -> Self {
        rootfs::omit::Rule { paths: omit.paths.clone(), keep: omit.keep.clone() }
    }
}

/// What to do about the maintainer scripts of a package.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ScriptRule {
    /// What to do.
    pub action: ScriptAction,
    /// Why that is right.
    pub reason: String,
}

/// What to do about a maintainer script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptAction {
    /// Do without whatever it does.
    Ignore,
}

/// The kernel, its modules and its command line.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Kernel {
    /// Debian package of the kernel; a metapackage will do.
    pub package: Option<String>,
    /// Debian package that holds the UEFI stub; `systemd-boot-efi` when absent.
    pub stub_package: Option<String>,
    /// Modules of the root file system, with what they depend on: all others are left out.
    pub modules: Vec<String>,
    /// Modules that the initrd loads, in this order, with what they depend on.
    pub initrd_modules: Vec<String>,
    /// Words of the measured command line; what the verity root needs is put in front. All together have at most 2,047 bytes
    /// of printable ASCII.
    #[schemars(with = "Vec<String>")]
    pub command_line: Vec<Spanned<String>>,
}

/// Node.js.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Node {
    /// Exact version, as `22.19.0`.
    pub version: String,
    /// Where `bin/node` goes.
    pub target: String,
    /// Exact version of the npm client that resolves dependencies while locking; it does not enter the image.
    pub npm_client: String,
}

/// An application from the npm registry.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NpmApplication {
    /// Name of the package.
    pub name: String,
    /// Exact version: no tag, no range.
    pub version: String,
    /// The directory in which its `node_modules` lies.
    pub target: String,
    /// Files to leave out.
    #[serde(default)]
    pub omit: Vec<Omit>,
    /// Where its configuration lies in the image, and how it checks it: run at build time with the pinned Node.
    #[serde(default)]
    pub validate: Option<Validate>,
}

/// How an application checks its configuration.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Validate {
    /// Program below the application's target, run by the pinned Node, as `node_modules/x/x.mjs`.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Environment variable that names the configuration.
    pub variable: String,
    /// Path of the configuration in the image.
    pub config: String,
}

/// A file of the recipe's own.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// Path of the file in the folder of the recipe file that names it. Either this or `text`.
    pub source: Option<String>,
    /// The content itself. Either this or `source`.
    pub text: Option<String>,
    /// Absolute path in the image.
    pub target: String,
    /// Permissions in octal; `0644` when absent.
    pub mode: Option<String>,
    /// Name of the owner; `root` when absent.
    pub owner: Option<String>,
    /// Name of the group; the owner's name when absent.
    pub group: Option<String>,
    /// Whether it takes the place of a package's file. Without it two sources of one path are an error.
    #[serde(default)]
    pub replace: bool,
}

/// A symbolic link.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Link {
    /// Absolute path of the link in the image.
    pub path: String,
    /// What it points to, as written.
    pub target: String,
    /// Whether it takes the place of a package's file.
    #[serde(default)]
    pub replace: bool,
}

/// A directory.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Directory {
    /// Absolute path in the image.
    pub path: String,
    /// Permissions in octal; `0755` when absent.
    pub mode: Option<String>,
    /// Name of the owner; `root` when absent.
    pub owner: Option<String>,
    /// Name of the group; the owner's name when absent.
    pub group: Option<String>,
}

/// A system user; its group has the same name.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// Name.
    pub name: String,
    /// Numeric id; the lock pins a free one below 1000 when absent.
    pub id: Option<u32>,
    /// Home directory; `/nonexistent` when absent.
    pub home: Option<String>,
    /// Shell; `/usr/sbin/nologin` when absent.
    pub shell: Option<String>,
    /// Full name.
    pub comment: Option<String>,
    /// Further groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// A system group.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Group {
    /// Name.
    pub name: String,
    /// Numeric id; the lock pins a free one below 1000 when absent.
    pub id: Option<u32>,
}

/// Units.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Systemd {
    /// Units to enable. No other is.
    pub enable: Vec<String>,
    /// Units that must never start.
    pub mask: Vec<String>,
    /// What the machine boots to; `multi-user.target` when absent.
    pub default_target: Option<String>,
}

/// The root file system.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Filesystem {
    /// How it is compressed; `zstd` when absent.
    pub compression: Option<Compression>,
    /// Level of zstd, 1 to 19; 3 when absent.
    #[schemars(with = "Option<i32>")]
    pub level: Option<Spanned<i32>>,
}

/// How a file system is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    None,
    /// By zstd.
    Zstd,
}

/// The disk.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Disk {
    /// Size of the whole disk, as `512M` or `2G`; as small as can be when absent. The partition table is measured, so
    /// it never changes later.
    #[schemars(with = "Option<String>")]
    pub size: Option<Spanned<String>>,
}

/// The machines whose reference values are computed: `build` writes `reference-values.json` for them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Measure {
    /// Debian package of the firmware that machines of QEMU have, as `ovmf`: locked, never installed into the image.
    #[schemars(with = "Option<String>")]
    pub firmware: Option<Spanned<String>>,
    /// Platforms, each with the shapes of its machines.
    #[schemars(with = "Vec<MeasuredPlatform>")]
    pub platforms: Vec<Spanned<MeasuredPlatform>>,
}

/// A platform, and the shapes of its machines: every combination of the lists.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MeasuredPlatform {
    /// `qemu-tdx`, `qemu-tpm`, `gcp-c3` or `alicloud-tdx`.
    pub platform: String,
    /// Sizes of memory, as `4G`; that alone when absent.
    #[serde(default)]
    pub memory: Vec<String>,
    /// Numbers of processors, for QEMU; 2 when absent.
    #[serde(default)]
    pub vcpus: Vec<u16>,
    /// Versions of QEMU, as `10.0`; that alone when absent.
    #[serde(default)]
    pub qemu: Vec<String>,
    /// Virtio devices of the machine, for QEMU; 3 when absent: disk, network card, entropy source.
    #[serde(default)]
    pub devices: Option<u8>,
    /// Bits of the guest's physical addresses, for QEMU; 46 when absent, 40 for `qemu-tpm`.
    #[serde(default)]
    pub address_bits: Option<u8>,
    /// Whose processor the guest sees, for QEMU; `intel` when absent, `amd` for `qemu-tpm`.
    #[serde(default)]
    pub vendor: Option<Vendor>,
    /// The machine starts `image.efi` as QEMU's `-kernel`, rather than from the disk; only for QEMU.
    #[serde(default)]
    pub direct: bool,
}

/// Whose processor a guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Vendor {
    /// `GenuineIntel`.
    Intel,
    /// `AuthenticAMD`; also what QEMU emulates without KVM.
    Amd,
}

/// What the library lint may pass over.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Lint {
    /// Libraries that may be absent, with the reason.
    pub absent: BTreeMap<String, String>,
}

/// What the profiles add.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Profiles {
    /// For production.
    pub release: Overlay,
    /// For development: never to be trusted with a secret.
    pub debug: Overlay,
}

/// What a profile adds.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Overlay {
    /// Further Debian packages.
    #[schemars(with = "Vec<String>")]
    pub packages: Vec<Spanned<String>>,
    /// Further words of the command line.
    #[schemars(with = "Vec<String>")]
    pub command_line: Vec<Spanned<String>>,
    /// Further modules of the root file system.
    pub modules: Vec<String>,
    /// Further files.
    #[schemars(with = "Vec<File>")]
    pub files: Vec<Spanned<File>>,
    /// Further symbolic links.
    #[schemars(with = "Vec<Link>")]
    pub links: Vec<Spanned<Link>>,
    /// Further directories.
    #[schemars(with = "Vec<Directory>")]
    pub directories: Vec<Spanned<Directory>>,
    /// Further users.
    #[schemars(with = "Vec<User>")]
    pub users: Vec<Spanned<User>>,
    /// Further units.
    pub systemd: Systemd,
}
