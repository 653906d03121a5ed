//! Whether a record's digest follows from its own data, by the rule of its type.
//!
//! # Shape
//!
//! ```text
//! EV_SEPARATOR, EV_EFI_ACTION, EV_EFI_GPT_EVENT, …              the data
//! EV_ACTION, EV_S_CRTM_VERSION                                  the data; some firmware hashes other bytes
//! EV_EFI_VARIABLE_DRIVER_CONFIG, _AUTHORITY, _BOOT2             the data: UEFI_VARIABLE_DATA, names and all; old shims log
//!                                                               some bytes more than the variable, and one more than they hash
//! EV_EFI_VARIABLE_BOOT                                          the variable's value only
//! EV_EVENT_TAG "AAEL"                                           the data, header and all
//! EV_IPL of grub, "grub_cmd: …" and "kernel_cmdline: …"         the text after the label; one patched grub adds a NUL
//! EV_IPL of systemd-stub, a section's name in UTF-16            the name in ASCII with its NUL, or the section
//! 0x08000001 of dstack                                          type, ":", name, ":", value
//! anything else                                                 a file, table or section that the log does not hold
//! ```
//!
//! # Source
//!
//! TCG PC Client Platform Firmware Profile 1.06, 10.4.1; edk2 SecurityPkg/Tcg/Tcg2Dxe and OvmfPkg/Tcg/TdTcg2Dxe; grub
//! grub-core/commands/tpm.c; systemd src/boot/measure.c; dstack cc-eventlog (checked with RTMR3 of one of its quotes).

use alloc::vec::Vec;
use core::fmt;

use crate::digest::{Algorithm, Digest};
use crate::event::EventType;
use crate::log::Entry;
use crate::read::Reader;

/// The tag of Confidential Containers' runtime events: "AAEL".
const TAG_AAEL: u32 = 0x4141_454c;
/// The tags of Linux' EFI stub: drivers/firmware/efi/libstub/efistub.h.
const TAG_LOAD_OPTIONS: u32 = 0x8f3b_22ed;
const TAG_INITRD: u32 = 0x8f3b_22ec;
/// The type of dstack's runtime events.
pub(super) const DSTACK_RUNTIME: EventType = EventType(0x0800_0001);

/// How a record's digest relates to its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Derivation {
    /// The rule gives the digest.
    Derived(Rule),
    /// The rule applies to every record of this type and gives another digest.
    Contradicted {
        /// The rule.
        rule: Rule,
        /// The digest by the rule.
        expected: Digest,
    },
    /// The log does not hold what was hashed.
    NotDerivable(WhyNot),
}

/// What a digest is computed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The event data.
    EventData,
    /// The variable in the event data, without the last byte or all bytes after it.
    VariableWithoutSurplus,
    /// The value of the variable in the event data.
    VariableValue,
    /// The name of a section in ASCII with its NUL.
    SectionName,
    /// The text after the label, without its NUL.
    LabelledText,
    /// The text after the label, with its NUL.
    LabelledTextNul,
    /// dstack's type, name and value.
    DstackRuntime,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::EventData => "the hash of the event data",
            Rule::VariableWithoutSurplus => {
                "the hash of the variable; more bytes were logged than hashed, as old shims do"
            }
            Rule::VariableValue => "the hash of the variable's value",
            Rule::SectionName => "the hash of the section's name in ASCII with its NUL",
            Rule::LabelledText => "the hash of the text after the label",
            Rule::LabelledTextNul => "the hash of the text after the label with its NUL",
            Rule::DstackRuntime => "the hash of type, name and value",
        })
    }
}

/// Why the log does not determine a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNot {
    /// The record extends nothing.
    NoAction,
    /// The log was stored without event data.
    NoData,
    /// The record has no digest for the algorithm.
    NoDigest,
    /// The Authenticode digest of a PE file; the data name the file.
    PeFile,
    /// Bytes that the firmware chose instead of the text in the data.
    FirmwareText,
    /// A firmware volume; the data give its address.
    FirmwareVolume,
    /// A table in memory; the data give its address.
    Table,
    /// A blob; the data are a label.
    Label,
    /// A section's content; the data are its name.
    SectionContent,
    /// The kernel's command line; the data are a label.
    LoadOptions,
    /// The initrd; the data are a label.
    Initrd,
    /// The data do not have the format of their type.
    Malformed,
    /// No rule is known for the type.
    UnknownType,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WhyNot::NoAction => "the record extends nothing",
            WhyNot::NoData => "the log was stored without event data",
            WhyNot::NoDigest => "the record has no digest for this bank",
            WhyNot::PeFile => "the Authenticode hash of a PE file, which the event data only name",
            WhyNot::FirmwareText => "the hash of other bytes than the text, as some firmware takes them",
            WhyNot::FirmwareVolume => "the hash of a firmware volume; the event data only give its address",
            WhyNot::Table => "the hash of a table; the event data only give its address",
            WhyNot::Label => "the hash of something that the event data only name",
            WhyNot::SectionContent => "the hash of a section's content, which the event data only name",
            WhyNot::LoadOptions => "the hash of the kernel's command line, which the event data only name",
            WhyNot::Initrd => "the hash of the initrd, which the event data only name",
            WhyNot::Malformed => "the event data do not have the format of their type",
            WhyNot::UnknownType => "no rule is known for this type",
        })
    }
}

/// Compares the record's digest with its data.
pub fn derive(entry: &Entry, algorithm: Algorithm) -> Derivation {
    use Derivation::NotDerivable;

    if !entry.is_extended() {
        return NotDerivable(WhyNot::NoAction);
    }
    let Some(digest) = entry.digest(algorithm) else { return NotDerivable(WhyNot::NoDigest) };
    let Some(data) = entry.data.as_deref() else { return NotDerivable(WhyNot::NoData) };
    let whole = algorithm.of(data) == *digest;
    let must = |rule: Rule, expected: Digest| {
        if expected == *digest {
            Derivation::Derived(rule)
        } else {
            Derivation::Contradicted { rule, expected }
        }
    };
    // A type without a rule of its own may still hold what was hashed.
    let may = |why: WhyNot| if whole { Derivation::Derived(Rule::EventData) } else { NotDerivable(why) };
    match entry.kind {
        EventType::EV_ACTION | EventType::EV_S_CRTM_VERSION => may(WhyNot::FirmwareText),
        EventType::EV_EFI_VARIABLE_AUTHORITY if !whole && hashes_less(data, digest) => {
            Derivation::Derived(Rule::VariableWithoutSurplus)
        }
        EventType::EV_SEPARATOR
        | EventType::EV_EFI_ACTION
        | EventType::EV_OMIT_BOOT_DEVICE_EVENTS
        | EventType::EV_EFI_GPT_EVENT
        | EventType::EV_EFI_GPT_EVENT2
        | EventType::EV_EFI_VARIABLE_DRIVER_CONFIG
        | EventType::EV_EFI_VARIABLE_AUTHORITY
        | EventType::EV_EFI_VARIABLE_BOOT2 => must(Rule::EventData, algorithm.of(data)),
        EventType::EV_EFI_VARIABLE_BOOT if whole => Derivation::Derived(Rule::EventData),
        EventType::EV_EFI_VARIABLE_BOOT => match Variable::read(data) {
            Some(variable) => must(Rule::VariableValue, algorithm.of(variable.value)),
            None => must(Rule::EventData, algorithm.of(data)),
        },
        EventType::EV_EFI_BOOT_SERVICES_APPLICATION
        | EventType::EV_EFI_BOOT_SERVICES_DRIVER
        | EventType::EV_EFI_RUNTIME_SERVICES_DRIVER => NotDerivable(WhyNot::PeFile),
        EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB
        | EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2
        | EventType::EV_S_CRTM_CONTENTS
        | EventType::EV_POST_CODE2 => may(WhyNot::FirmwareVolume),
        EventType::EV_EFI_HANDOFF_TABLES | EventType::EV_EFI_HANDOFF_TABLES2 => may(WhyNot::Table),
        EventType::EV_PLATFORM_CONFIG_FLAGS
        | EventType::EV_POST_CODE
        | EventType::EV_TABLE_OF_DEVICES
        | EventType::EV_CPU_MICROCODE
        | EventType::EV_COMPACT_HASH
        | EventType::EV_NONHOST_CODE
        | EventType::EV_NONHOST_CONFIG
        | EventType::EV_NONHOST_INFO
        | EventType::EV_IPL_PARTITION_DATA
        | EventType::EV_EFI_HCRTM_EVENT => may(WhyNot::Label),
        EventType::EV_IPL => ipl(data, digest, may),
        EventType::EV_EVENT_TAG => match tag(data) {
            Some(TAG_AAEL) => must(Rule::EventData, algorithm.of(data)),
            Some(TAG_LOAD_OPTIONS) => may(WhyNot::LoadOptions),
            Some(TAG_INITRD) => may(WhyNot::Initrd),
            Some(_) => may(WhyNot::Label),
            None => may(WhyNot::Malformed),
        },
        // A log converted from dstack's JSON has ":name:value" as data.
        DSTACK_RUNTIME if data.first() == Some(&b':') => {
            must(Rule::DstackRuntime, algorithm.of_pieces([&DSTACK_RUNTIME.0.to_le_bytes()[..], data]))
        }
        _ => may(WhyNot::UnknownType),
    }
}

/// The most bytes after a variable that old shims log.
const SURPLUS: usize = 8;

/// Tells whether a digest is that of a variable with fewer bytes after it than the data have: without the last, or none.
fn hashes_less(data: &[u8], digest: &Digest) -> bool {
    let surplus = Variable::begin(data).map_or(0, |(_, rest)| rest.len());
    let of_all_but = |count: usize| {
        let hashed = data.len().checked_sub(count).and_then(|length| data.get(..length));
        hashed.is_some_and(|hashed| digest.algorithm().of(hashed) == *digest)
    };
    (1..=SURPLUS).contains(&surplus) && (of_all_but(1) || of_all_but(surplus))
}

/// Derives a boot loader's event.
fn ipl(data: &[u8], digest: &Digest, may: impl Fn(WhyNot) -> Derivation) -> Derivation {
    let algorithm = digest.algorithm();
    if let Some(text) = labelled(data) {
        if algorithm.of(text) == *digest {
            return Derivation::Derived(Rule::LabelledText);
        }
        if algorithm.of_pieces([text, &[0][..]]) == *digest {
            return Derivation::Derived(Rule::LabelledTextNul);
        }
        return Derivation::Contradicted { rule: Rule::LabelledText, expected: algorithm.of(text) };
    }
    match section_name(data) {
        Some(name) if algorithm.of_pieces([name.as_slice(), &[0][..]]) == *digest => {
            Derivation::Derived(Rule::SectionName)
        }
        Some(_) => may(WhyNot::SectionContent),
        None => may(WhyNot::Label),
    }
}

/// Returns the text after grub's label for a command or a command line, up to the NUL.
fn labelled(data: &[u8]) -> Option<&[u8]> {
    const LABELS: [&[u8]; 5] =
        [b"grub_cmd: ", b"grub_cmd ", b"kernel_cmdline: ", b"grub_kernel_cmdline ", b"module_cmdline: "];
    let text = LABELS.iter().find_map(|label| data.strip_prefix(*label))?;
    text.split(|byte| *byte == 0).next()
}

/// Returns a section's name in ASCII if the data are exactly that, in UTF-16 with a NUL. The name starts with `.`.
pub(crate) fn section_name(data: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    for unit in data.chunks_exact(2) {
        match unit {
            [letter, 0] if letter.is_ascii() => name.push(*letter),
            _ => return None,
        }
    }
    let ends = data.len().is_multiple_of(2) && name.pop() == Some(0);
    (ends && name.first() == Some(&b'.') && !name.contains(&0)).then_some(name)
}

/// Returns the tag of EV_EVENT_TAG data, [tag u32, length u32, `length` bytes].
pub(super) fn tag(data: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(data, 0);
    let tag = reader.u32("a tag").ok()?;
    let length = reader.u32("a tag's length").ok()?;
    (usize::try_from(length) == Ok(reader.rest().len())).then_some(tag)
}

/// A variable in a log: UEFI_VARIABLE_DATA, TCG PC Client Platform Firmware Profile 1.06, 10.2.6.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variable<'a> {
    /// The name in UTF-16, without a NUL.
    pub(crate) name: &'a [u8],
    /// The value.
    pub(crate) value: &'a [u8],
}

impl<'a> Variable<'a> {
    /// Reads [GUID, characters u64, bytes u64, name, value]; trailing bytes are refused.
    pub(crate) fn read(data: &'a [u8]) -> Option<Variable<'a>> {
        Variable::begin(data).filter(|(_, rest)| rest.is_empty()).map(|(variable, _)| variable)
    }

    /// Reads a variable, and returns the bytes after it.
    pub(crate) fn begin(data: &'a [u8]) -> Option<(Variable<'a>, &'a [u8])> {
        let mut reader = Reader::new(data, 16);
        let characters = reader.u64("a name's length").ok()?;
        let bytes = reader.u64("a value's length").ok()?;
        let name = reader.take("a name", characters.checked_mul(2)?).ok()?;
        let value = reader.take("a value", bytes).ok()?;
        Some((Variable { name, value }, reader.rest()))
    }
}
