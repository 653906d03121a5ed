//! A description for people of what a record says was measured.
//!
//! # Shape
//!
//! A variable's name, a file's path, a section's name, the text of an action or command, a label; otherwise the type's
//! name. Text in a log is foreign: unprintable characters become `.`, and at most [`MOST`] characters are shown.
//!
//! # Not here
//!
//! Proof: a quote covers none of this text.

use alloc::format;
use alloc::string::{String, ToString};

use super::derive::{DSTACK_RUNTIME, Variable, section_name};
use crate::event::EventType;
use crate::log::Entry;
use crate::read::Reader;

/// The maximum number of characters shown of a log's text.
const MOST: usize = 120;

/// The label at the start of the data for an item of QEMU's fw_cfg.
const FW_CFG: &[u8] = b"QEMU FW CFG\0";

/// Describes what the record says was measured.
pub fn subject(entry: &Entry) -> String {
    let Some(data) = entry.data.as_deref() else { return named(entry.kind) };
    match entry.kind {
        EventType::EV_SEPARATOR => match data {
            [0, 0, 0, 0] | [0xff, 0xff, 0xff, 0xff] => "separator".into(),
            _ => "separator that reports an error".into(),
        },
        EventType::EV_EFI_VARIABLE_DRIVER_CONFIG
        | EventType::EV_EFI_VARIABLE_AUTHORITY
        | EventType::EV_EFI_VARIABLE_BOOT
        | EventType::EV_EFI_VARIABLE_BOOT2 => match Variable::begin(data) {
            Some((variable, _)) => variable_name(&variable, entry.kind),
            None => "malformed variable".into(),
        },
        EventType::EV_EFI_GPT_EVENT | EventType::EV_EFI_GPT_EVENT2 => {
            let count = Reader::new(data, 92).u64("the number of partitions");
            count.map_or_else(|_| named(entry.kind), |count| format!("GPT with {count} partitions"))
        }
        EventType::EV_EFI_BOOT_SERVICES_APPLICATION
        | EventType::EV_EFI_BOOT_SERVICES_DRIVER
        | EventType::EV_EFI_RUNTIME_SERVICES_DRIVER => match file_path(data) {
            Some(path) => format!("PE file {path}"),
            None => "PE file from memory".into(),
        },
        EventType::EV_IPL => match section_name(data) {
            Some(name) => format!("section {}", printable(&name)),
            None => text(data, entry.kind),
        },
        EventType::EV_EVENT_TAG => match data.get(8..) {
            Some(text) if super::derive::tag(data).is_some() => printable(until_nul(text)),
            _ => text(data, entry.kind),
        },
        // A length, then as many characters.
        EventType::EV_EFI_HANDOFF_TABLES2
        | EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2
        | EventType::EV_POST_CODE2 => {
            let name = data.split_first().and_then(|(length, rest)| rest.get(..usize::from(*length)));
            name.map_or_else(|| named(entry.kind), |name| printable(until_nul(name)))
        }
        // A label with its NUL, then the item's name: edk2 OvmfPkg/Library/QemuFwCfgLib, from edk2-stable202505 on.
        EventType::EV_PLATFORM_CONFIG_FLAGS if data.starts_with(FW_CFG) => {
            let name = data.strip_prefix(FW_CFG).unwrap_or_default();
            format!("QEMU FW CFG {}", printable(until_nul(name)))
        }
        DSTACK_RUNTIME => text(data.strip_prefix(b":").unwrap_or(data), entry.kind),
        _ => text(data, entry.kind),
    }
}

fn named(kind: EventType) -> String {
    kind.to_string()
}

/// Shows the data up to a NUL if they are text, in ASCII or UTF-16; otherwise the type.
fn text(data: &[u8], kind: EventType) -> String {
    let wide: alloc::vec::Vec<u8> = data.chunks(2).filter_map(|unit| unit.first().copied()).collect();
    let ascii = until_nul(data);
    let chosen = if data.get(1) == Some(&0) { until_nul(&wide) } else { ascii };
    let shown = !chosen.is_empty() && chosen.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t'));
    if shown { printable(chosen) } else { named(kind) }
}

fn until_nul(data: &[u8]) -> &[u8] {
    data.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn printable(bytes: &[u8]) -> String {
    let mut shown: String = bytes
        .iter()
        .take(MOST)
        .map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' })
        .collect();
    if bytes.len() > MOST {
        shown.push('…');
    }
    shown
}

/// Shows UTF-16 up to a NUL.
fn wide(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|unit| match unit {
        [low, high] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    });
    let units = units.take(MOST).take_while(|unit| *unit != 0);
    char::decode_utf16(units)
        .map(|letter| letter.ok().filter(|letter| !letter.is_control()).unwrap_or('.'))
        .collect()
}

/// Returns a variable's name, and a boot option's description.
fn variable_name(variable: &Variable<'_>, kind: EventType) -> String {
    let name = wide(variable.name);
    let option = name.len() == 8 && name.starts_with("Boot") && name != "BootNext";
    let described = matches!(kind, EventType::EV_EFI_VARIABLE_BOOT | EventType::EV_EFI_VARIABLE_BOOT2);
    if option
        && described
        && let Some(description) = variable.value.get(6..)
    {
        return format!("variable {name} ({})", wide(description));
    }
    format!("variable {name}")
}

/// Returns the file path in the device path of UEFI_IMAGE_LOAD_EVENT data, [address, length, link time address, length of
/// the path, path]; `None` for an image loaded from memory. TCG PC Client Platform Firmware Profile 1.06, 10.2.3; UEFI
/// 2.10, 10.3.
fn file_path(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data, 24);
    let length = reader.u64("a device path's length").ok()?;
    let path = reader.take("a device path", length).ok()?;
    let mut reader = Reader::new(path, 0);
    loop {
        let kind = reader.u8("a node's type").ok()?;
        let subtype = reader.u8("a node's subtype").ok()?;
        let length = reader.u16("a node's length").ok()?;
        let node = reader.take("a node", length.checked_sub(4)?.into()).ok()?;
        match (kind, subtype) {
            (4, 4) => return Some(wide(node)),
            (0x7f, _) => return None,
            _ => {}
        }
    }
}
