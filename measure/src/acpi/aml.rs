//! Terms of AML, ACPI's bytecode, from their parts.
//!
//! # Shape
//!
//! ```text
//! Device, Scope, Method, If …   opcode ‖ PkgLength ‖ name or predicate ‖ terms
//! Store, Equal, Index …         opcode ‖ operands ‖ target (0 for none)
//! ResourceTemplate              Buffer(descriptors ‖ 79 00)
//! ```
//! Each function makes one term, and a term is its bytes. Functions are named after ASL terms.
//!
//! # Source
//!
//! ACPI Specification 6.5, 20.2 (AML grammar) and 6.4 (resource data types). Where the grammar allows several encodings,
//! QEMU's (hw/acpi/aml-build.c): lengths in their shortest form; of the integers, only 0 and 1 have their own opcodes.
//!
//! # Not here
//!
//! The terms of a machine: [`dsdt`](super::dsdt).

use alloc::string::String;
use alloc::vec::Vec;

/// The bytes of one term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term(pub(super) Vec<u8>);

/// The prefix of a two-byte opcode.
const EXTENDED: u8 = 0x5b;

/// The access size of a region's field (20.2.5.2, AccessType).
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    Any = 0,
    Byte = 1,
    DWord = 3,
}

/// Whether access to a field takes the global lock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lock {
    NoLock = 0,
    Lock = 1,
}

/// What a write to a field does to the other bits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Update {
    Preserve = 0,
    WriteAsZeros = 2,
}

/// The address space of a region.
#[derive(Clone, Copy, Debug)]
pub(super) enum Space {
    SystemMemory = 0,
    SystemIo = 1,
    PciConfig = 2,
}

/// Whether calls of a method are serialized.
#[derive(Clone, Copy, Debug)]
pub(super) enum Serial {
    NotSerialized = 0,
    Serialized = 8,
}

/// A part of a region's field, in bits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bits {
    Named(&'static str, u32),
    Reserved(u32),
}

fn joined(head: &[u8], terms: &[Term]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    for Term(term) in terms {
        bytes.extend_from_slice(term);
    }
    bytes
}

/// Encodes a length of at most 28 bits, as it stands (20.2.4).
fn length(bytes: u32) -> Vec<u8> {
    let follow = match bytes {
        0..=0x3f => return [bytes as u8].into(),
        0x40..=0xfff => 1,
        0x1000..=0xf_ffff => 2,
        _ => 3,
    };
    let mut encoded = Vec::from([(follow << 6) as u8 | (bytes & 0xf) as u8]);
    encoded.extend_from_slice(bytes.wrapping_shr(4).to_le_bytes().get(..follow).unwrap_or_default());
    encoded
}

/// Makes a term with a PkgLength, which counts itself.
fn package_of(opcode: &[u8], head: &[u8], terms: &[Term]) -> Term {
    let body = joined(head, terms);
    let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let own = match bytes {
        0..=0x3e => 1,
        0x3f..=0xffd => 2,
        0xffe..=0xf_fffc => 3,
        _ => 4,
    };
    Term([opcode, &length(bytes.saturating_add(own)), &body].concat())
}

fn name_bytes(path: &str) -> Vec<u8> {
    let plain = path.trim_start_matches(['\\', '^']);
    let mut bytes = path.as_bytes().get(..path.len() - plain.len()).unwrap_or_default().to_vec();
    if plain.is_empty() {
        bytes.push(0);
        return bytes;
    }
    let segments: Vec<&str> = plain.split('.').collect();
    match segments.len() {
        1 => {}
        2 => bytes.push(0x2e),
        more => bytes.extend([0x2f, more as u8]),
    }
    for segment in segments {
        let mut padded = [b'_'; 4];
        for (to, from) in padded.iter_mut().zip(segment.bytes()) {
            *to = from;
        }
        bytes.extend(padded);
    }
    bytes
}

/// The name of an object.
pub(super) fn name(path: &str) -> Term {
    Term(name_bytes(path))
}

/// Calls a method.
pub(super) fn call(path: &str, arguments: &[Term]) -> Term {
    Term(joined(&name_bytes(path), arguments))
}

/// An integer.
pub(super) fn int(value: u64) -> Term {
    let bytes = value.to_le_bytes();
    let (prefix, size) = match value {
        0 | 1 => (None, 1),
        2..=0xff => (Some(0x0a), 1),
        0x100..=0xffff => (Some(0x0b), 2),
        0x1_0000..=0xffff_ffff => (Some(0x0c), 4),
        _ => (Some(0x0e), 8),
    };
    Term(prefix.into_iter().chain(bytes.into_iter().take(size)).collect())
}

/// A string.
pub(super) fn string(text: &str) -> Term {
    Term([&[0x0d], text.as_bytes(), &[0]].concat())
}

/// A local variable of a method, 0 to 7.
pub(super) fn local(number: u8) -> Term {
    Term([0x60 + number].into())
}

/// An argument of a method, 0 to 6.
pub(super) fn arg(number: u8) -> Term {
    Term([0x68 + number].into())
}

/// No target.
pub(super) fn none() -> Term {
    Term([0].into())
}

/// The debug object.
pub(super) fn debug() -> Term {
    Term([EXTENDED, 0x31].into())
}

/// An EISA identifier such as `PNP0A08`: five bits per letter, four per digit, most significant byte first (19.6.37).
pub(super) fn eisa_id(text: &str) -> Term {
    let (letters, digits) = text.split_at_checked(3).unwrap_or_default();
    let vendor = letters.bytes().fold(0, |id: u32, byte| id << 5 | u32::from(byte & 0x1f));
    let id = digits.chars().fold(vendor, |id, digit| id << 4 | digit.to_digit(16).unwrap_or_default());
    Term([&[0x0c][..], &id.to_be_bytes()].concat())
}

/// A UUID as a buffer of 16 bytes; the first three groups are little-endian (19.6.142).
pub(super) fn to_uuid(text: &str) -> Term {
    let digits: Vec<u8> =
        text.bytes().filter_map(|byte| char::from(byte).to_digit(16)).map(|it| it as u8).collect();
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let ordered: Vec<u8> = ORDER.iter().filter_map(|&at| bytes.get(at).copied()).collect();
    buffer(&ordered)
}

/// A buffer.
pub(super) fn buffer(bytes: &[u8]) -> Term {
    package_of(&[0x11], &joined(&[], &[int(bytes.len() as u64), Term(bytes.to_vec())]), &[])
}

/// A package of at most 255 elements; missing ones are uninitialized.
pub(super) fn package(elements: u8, terms: &[Term]) -> Term {
    package_of(&[0x12], &[elements], terms)
}

/// Declares a named object.
pub(super) fn name_decl(path: &str, value: Term) -> Term {
    Term(joined(&[&[0x08], &name_bytes(path)[..]].concat(), &[value]))
}

pub(super) fn scope(path: &str, terms: &[Term]) -> Term {
    package_of(&[0x10], &name_bytes(path), terms)
}

pub(super) fn device(path: &str, terms: &[Term]) -> Term {
    package_of(&[EXTENDED, 0x82], &name_bytes(path), terms)
}

/// A processor without a register block.
pub(super) fn processor(path: &str, id: u8, terms: &[Term]) -> Term {
    package_of(&[EXTENDED, 0x83], &[&name_bytes(path)[..], &[id, 0, 0, 0, 0, 0]].concat(), terms)
}

pub(super) fn method(path: &str, arguments: u8, serial: Serial, terms: &[Term]) -> Term {
    package_of(&[0x14], &[&name_bytes(path)[..], &[arguments | serial as u8]].concat(), terms)
}

pub(super) fn mutex(path: &str) -> Term {
    Term([&[EXTENDED, 0x01], &name_bytes(path)[..], &[0]].concat())
}

/// Acquires a mutex without timeout.
pub(super) fn acquire(path: &str) -> Term {
    Term([&[EXTENDED, 0x23], &name_bytes(path)[..], &[0xff, 0xff]].concat())
}

pub(super) fn release(path: &str) -> Term {
    Term([&[EXTENDED, 0x27], &name_bytes(path)[..]].concat())
}

pub(super) fn operation_region(path: &str, space: Space, offset: Term, bytes: u64) -> Term {
    Term(joined(&[&[EXTENDED, 0x80], &name_bytes(path)[..], &[space as u8]].concat(), &[offset, int(bytes)]))
}

pub(super) fn field(region: &str, access: Access, lock: Lock, update: Update, bits: &[Bits]) -> Term {
    let flags = access as u8 | (lock as u8) << 4 | (update as u8) << 5;
    let mut head = [&name_bytes(region)[..], &[flags]].concat();
    for part in bits {
        let (name, bits) = match *part {
            Bits::Named(name, bits) => (name_bytes(name), bits),
            Bits::Reserved(bits) => ([0].into(), bits),
        };
        head.extend(name);
        head.extend(length(bits));
    }
    package_of(&[EXTENDED, 0x81], &head, &[])
}

pub(super) fn create_dword_field(source: Term, at: Term, path: &str) -> Term {
    Term(joined(&[0x8a], &[source, at, name(path)]))
}

pub(super) fn if_(predicate: Term, terms: &[Term]) -> Term {
    package_of(&[0xa0], &predicate.0, terms)
}

pub(super) fn else_(terms: &[Term]) -> Term {
    package_of(&[0xa1], &[], terms)
}

pub(super) fn while_(predicate: Term, terms: &[Term]) -> Term {
    package_of(&[0xa2], &predicate.0, terms)
}

pub(super) fn break_() -> Term {
    Term([0xa5].into())
}

pub(super) fn return_(value: Term) -> Term {
    Term(joined(&[0xa4], &[value]))
}

pub(super) fn store(value: Term, target: Term) -> Term {
    Term(joined(&[0x70], &[value, target]))
}

pub(super) fn notify(object: Term, value: Term) -> Term {
    Term(joined(&[0x86], &[object, value]))
}

pub(super) fn increment(target: Term) -> Term {
    Term(joined(&[0x75], &[target]))
}

pub(super) fn size_of(object: Term) -> Term {
    Term(joined(&[0x87], &[object]))
}

pub(super) fn deref_of(reference: Term) -> Term {
    Term(joined(&[0x83], &[reference]))
}

pub(super) fn index(object: Term, at: Term) -> Term {
    Term(joined(&[0x88], &[object, at, none()]))
}

pub(super) fn to_hex_string(value: Term, target: Term) -> Term {
    Term(joined(&[0x98], &[value, target]))
}

pub(super) fn to_buffer(value: Term, target: Term) -> Term {
    Term(joined(&[0x96], &[value, target]))
}

pub(super) fn add(left: Term, right: Term, target: Term) -> Term {
    Term(joined(&[0x72], &[left, right, target]))
}

pub(super) fn subtract(left: Term, right: Term, target: Term) -> Term {
    Term(joined(&[0x74], &[left, right, target]))
}

pub(super) fn shift_left(value: Term, bits: Term) -> Term {
    Term(joined(&[0x79], &[value, bits, none()]))
}

pub(super) fn shift_right(value: Term, bits: Term, target: Term) -> Term {
    Term(joined(&[0x7a], &[value, bits, target]))
}

pub(super) fn and(left: Term, right: Term, target: Term) -> Term {
    Term(joined(&[0x7b], &[left, right, target]))
}

pub(super) fn or(left: Term, right: Term, target: Term) -> Term {
    Term(joined(&[0x7d], &[left, right, target]))
}

pub(super) fn l_and(left: Term, right: Term) -> Term {
    Term(joined(&[0x90], &[left, right]))
}

pub(super) fn l_or(left: Term, right: Term) -> Term {
    Term(joined(&[0x91], &[left, right]))
}

pub(super) fn l_not(value: Term) -> Term {
    Term(joined(&[0x92], &[value]))
}

pub(super) fn l_equal(left: Term, right: Term) -> Term {
    Term(joined(&[0x93], &[left, right]))
}

pub(super) fn l_greater(left: Term, right: Term) -> Term {
    Term(joined(&[0x94], &[left, right]))
}

pub(super) fn l_less(left: Term, right: Term) -> Term {
    Term(joined(&[0x95], &[left, right]))
}

/// Not less.
pub(super) fn l_greater_equal(left: Term, right: Term) -> Term {
    l_not(l_less(left, right))
}

/// A list of resources: descriptors and an end tag without checksum, 0 (6.4.2.9).
pub(super) fn resource_template(descriptors: &[Term]) -> Term {
    let mut bytes = joined(&[], descriptors);
    bytes.extend([0x79, 0x00]);
    buffer(&bytes)
}

/// I/O ports, all 16 bits decoded (6.4.2.5).
pub(super) fn io(port: u16, alignment: u8, ports: u8) -> Term {
    let [low, high] = port.to_le_bytes();
    Term([0x47, 1, low, high, low, high, alignment, ports].into())
}

/// A PIC interrupt, edge-triggered and active high (6.4.2.1).
pub(super) fn irq_no_flags(number: u8) -> Term {
    let [low, high] = (1_u16 << (number & 15)).to_le_bytes();
    Term([0x22, low, high].into())
}

/// A PIC interrupt, level-triggered, active low, shared.
pub(super) fn irq_shared(number: u8) -> Term {
    let [low, high] = (1_u16 << (number & 15)).to_le_bytes();
    Term([0x23, low, high, 0x18].into())
}

/// A consumed interrupt, one of `numbers`: level-triggered, active high, shared (6.4.3.6).
pub(super) fn interrupts(numbers: &[u32]) -> Term {
    let bytes = 2 + 4 * numbers.len();
    let mut descriptor = Vec::from([0x89, bytes as u8, (bytes >> 8) as u8, 0b1001, numbers.len() as u8]);
    numbers.iter().for_each(|number| descriptor.extend(number.to_le_bytes()));
    Term(descriptor)
}

/// Whether memory is writable.
#[derive(Clone, Copy, Debug)]
pub(super) enum Write {
    ReadOnly = 0,
    ReadWrite = 1,
}

/// Memory below 4 GiB (6.4.3.4).
pub(super) fn memory32_fixed(base: u32, bytes: u32, write: Write) -> Term {
    Term([&[0x86, 9, 0, write as u8][..], &base.to_le_bytes(), &bytes.to_le_bytes()].concat())
}

/// The resource type of an address range, with its flags (6.4.3.5).
#[derive(Clone, Copy, Debug)]
pub(super) enum Range {
    /// Read-write memory.
    Memory { cacheable: Cacheable },
    /// I/O ports, ISA and non-ISA.
    Io,
    /// Bus numbers.
    Bus,
}

/// Whether memory is cacheable.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cacheable {
    No = 0,
    Yes = 1,
}

/// The size of the numbers in a range's descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) enum Width {
    Word = 2,
    DWord = 4,
    QWord = 8,
}

/// The range `first..=last`: produced, with fixed ends, positive decode (6.4.3.5).
pub(super) fn range(width: Width, range: Range, first: u64, last: u64) -> Term {
    let (tag, size) = match width {
        Width::Word => (0x88, 13),
        Width::DWord => (0x87, 23),
        Width::QWord => (0x8a, 43),
    };
    let (kind, flags) = match range {
        Range::Memory { cacheable } => (0, 1 | (cacheable as u8) << 1),
        Range::Io => (1, 3),
        Range::Bus => (2, 0),
    };
    let mut descriptor = Vec::from([tag, size, 0, kind, 0b1100, flags]);
    // Granularity, minimum, maximum, translation, length.
    for number in [0, first, last, 0, last.wrapping_sub(first).wrapping_add(1)] {
        descriptor.extend(number.to_le_bytes().into_iter().take(width as usize));
    }
    Term(descriptor)
}

/// The name of function 0 of a PCI device, by slot.
pub(super) fn slot_name(slot: u8) -> String {
    alloc::format!("S{:02X}", slot << 3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use alloc::vec;

    #[test]
    fn integers_take_the_shortest_form() {
        for (value, bytes) in [
            (0, vec![0x00]),
            (1, vec![0x01]),
            (2, vec![0x0a, 2]),
            (0xff, vec![0x0a, 0xff]),
            (0x100, vec![0x0b, 0, 1]),
            (0xffff, vec![0x0b, 0xff, 0xff]),
            (0x1_0000, vec![0x0c, 0, 0, 1, 0]),
            (0xffff_ffff, vec![0x0c, 0xff, 0xff, 0xff, 0xff]),
            (0x1_0000_0000, vec![0x0e, 0, 0, 0, 0, 1, 0, 0, 0]),
        ] {
            assert_eq!(int(value).0, bytes, "{value:#x}");
        }
    }

    #[test]
    fn a_length_counts_itself_at_every_width() {
        // Opcode and name take 1 + 4 bytes; the length covers everything but the opcode.
        for body in [0, 0x3e - 4, 0x3f - 4, 0xffd - 4, 0xffe - 4, 0xf_fffc - 4, 0xf_fffd - 4] {
            let bytes = scope("ABCD", &[Term(vec![0xa5; body])]).0;
            let follow = usize::from(bytes[1] >> 6);
            let mut length = usize::from(bytes[1] & if follow == 0 { 0x3f } else { 0xf });
            for (at, &byte) in bytes[2..2 + follow].iter().enumerate() {
                length |= usize::from(byte) << (4 + 8 * at);
            }
            assert_eq!(length, bytes.len() - 1, "{body:#x}");
            let shortest = [0x3f, 0xfff, 0xf_ffff, 0xfff_ffff].iter().position(|&most| length <= most);
            assert_eq!(shortest, Some(follow), "{body:#x}");
        }
    }

    #[test]
    fn names_keep_their_root_and_segments_are_padded() {
        assert_eq!(name("\\").0, b"\\\0");
        assert_eq!(name("_SB").0, b"_SB_");
        assert_eq!(name("\\_SB.PCI0").0, b"\\\x2e_SB_PCI0");
        assert_eq!(name("\\_SB.PCI0.PRES").0, b"\\\x2f\x03_SB_PCI0PRES");
    }

    #[test]
    fn eisa_identifiers_and_uuids_are_those_of_the_specification() {
        // ACPI 19.6.37: EISAID("PNP0C09") is 0x090CD041.
        assert_eq!(eisa_id("PNP0C09").0, [0x0c, 0x41, 0xd0, 0x0c, 0x09]);
        assert_eq!(eisa_id("PNP0A08").0, [0x0c, 0x41, 0xd0, 0x0a, 0x08]);
        let uuid = to_uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766").0;
        assert_eq!(uuid[..4], [0x11, 0x13, 0x0a, 16]);
        assert_eq!(hex::encode(&uuid[4..]), "5b4ddb33f71f1c4096577441c03dd766");
    }

    #[test]
    fn a_range_has_its_length() {
        let memory = range(Width::DWord, Range::Memory { cacheable: Cacheable::Yes }, 0xa_0000, 0xb_ffff).0;
        assert_eq!(
            hex::encode(memory),
            "871700000c0300000000 00000a00 ffff0b00 00000000 00000200".replace(' ', "")
        );
    }
}
