//! UEFI variables and their events, from a variable store.
//!
//! # Shape
//!
//! ```text
//! CFV       firmware volume header | store: GUID, size u32, format u8 0x5a, state u8 0xfe, 6 bytes | variables
//! variable  0x55aa u16, state u8, 0 u8, attributes u32, count u64, time 16, key u32, name size u32, data size u32,
//!           GUID | name (UTF-16, NUL) | data; variables are aligned to 4
//! event     GUID, name length in characters u64, data length u64, name without NUL, data     (UEFI_VARIABLE_DATA)
//! ```
//!
//! # Source
//!
//! edk2 `MdeModulePkg/Include/Guid/VariableFormat.h`; TCG PC Client Platform Firmware Profile 1.06, 10.2.6. Checked against
//! logs of OVMF with and without enrolled keys.

use alloc::vec::Vec;

use crate::field;

/// 8be4df61-93ca-11d2-aa0d-00e098032b8c.
pub const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// d719b2cb-3d3a-4596-a3bc-dad00e67656f.
pub const IMAGE_SECURITY: [u8; 16] =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
/// f0a30bc7-af08-4556-99c4-001009c93a44, the namespace of SecureBootEnable.
const SECURE_BOOT_ENABLE: [u8; 16] =
    [0xc7, 0x0b, 0xa3, 0xf0, 0x08, 0xaf, 0x56, 0x45, 0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44];
/// aaf32c78-947b-439a-a180-2e144ec37792: a store of authenticated variables.
const STORE: [u8; 16] =
    [0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92];
/// a5c059a1-94e4-4aa7-87b5-ab155c2bf072: a list of X.509 certificates.
const CERTIFICATES: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
const STORE_HEADER: usize = 28;
const HEADER: usize = 60;
/// States of valid variables: added, and added with a replacement in progress.
const VALID: [u8; 2] = [0x3f, 0x3e];

/// A variable store cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a store of authenticated variables.
    #[error("variable store at offset {offset:#x}: expected {expected}, found {found:#x}")]
    Store {
        /// Offset of the field.
        offset: usize,
        /// The expected value.
        expected: &'static str,
        /// Its value.
        found: u64,
    },
    /// A variable exceeds the store.
    #[error("variable at offset {offset:#x}: expected {needed} bytes of name and data, found {found}")]
    Truncated {
        /// Its offset.
        offset: usize,
        /// Length of name and data.
        needed: u64,
        /// Bytes available.
        found: u64,
    },
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Its namespace, as stored.
    pub guid: [u8; 16],
    /// Its name in UTF-16, without the NUL.
    pub name: Vec<u16>,
    /// Its data.
    pub data: &'a [u8],
}

/// The valid variables of a store.
#[derive(Debug, Clone, Default)]
pub struct Store<'a> {
    variables: Vec<Variable<'a>>,
}

impl<'a> Store<'a> {
    /// Reads a CFV, or a file of variables for QEMU.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn read(cfv: &'a [u8]) -> Result<Self, Error> {
        let start = usize::from(field::u16(cfv, 48).unwrap_or_default());
        if field::bytes(cfv, 40, 4) != Some(b"_FVH") || start < 56 {
            let found = field::u32(cfv, 40).unwrap_or_default();
            return Err(Error::Store { offset: 40, expected: "\"_FVH\" (a volume)", found: found.into() });
        }
        let head = field::bytes(cfv, start, STORE_HEADER).unwrap_or_default();
        if field::array(head, 0) != Some(STORE) {
            let found = field::u64(head, 0).unwrap_or_default();
            return Err(Error::Store {
                offset: start,
                expected: "a store of authenticated variables",
                found,
            });
        }
        let size = field::u32(head, 16).unwrap_or_default() as usize;
        let state = field::u16(head, 20).unwrap_or_default();
        let store = field::bytes(cfv, start, size).filter(|_| state == 0xfe5a).ok_or(Error::Store {
            offset: start.saturating_add(16),
            expected: "a size inside the volume, format 0x5a and state 0xfe",
            found: field::u64(head, 16).unwrap_or_default(),
        })?;
        let mut variables = Vec::new();
        let mut at = STORE_HEADER;
        while let Some(head) =
            field::bytes(store, at, HEADER).filter(|head| field::u16(head, 0) == Some(0x55aa))
        {
            let name_size = field::u32(head, 36).unwrap_or_default() as usize;
            let data_size = field::u32(head, 40).unwrap_or_default() as usize;
            let body = at.saturating_add(HEADER);
            let needed = name_size.saturating_add(data_size);
            let found = store.len().saturating_sub(body);
            let both = field::bytes(store, body, needed).ok_or(Error::Truncated {
                offset: start.saturating_add(at),
                needed: needed as u64,
                found: found as u64,
            })?;
            let (name, data) = both.split_at_checked(name_size).unwrap_or_default();
            if head.get(2).is_some_and(|state| VALID.contains(state)) {
                let units = name.chunks_exact(2).map(|unit| field::u16(unit, 0).unwrap_or_default());
                let name = units.take_while(|unit| *unit != 0).collect();
                variables.push(Variable { guid: field::array(head, 44).unwrap_or_default(), name, data });
            }
            at = body.saturating_add(needed).saturating_add(3) & !3;
        }
        Ok(Store { variables })
    }

    /// Returns a variable's data; `None` if it is absent.
    pub fn data(&self, guid: &[u8; 16], name: &str) -> Option<&'a [u8]> {
        let is = |variable: &&Variable<'_>| {
            variable.guid == *guid && variable.name.iter().copied().eq(name.encode_utf16())
        };
        self.variables.iter().find(is).map(|variable| variable.data)
    }

    /// Tells whether the store already has boot options, which the firmware merges its own into.
    pub fn has_boot_options(&self) -> bool {
        let boot: Vec<u16> = "Boot".encode_utf16().collect();
        let of_boot = |variable: &Variable<'_>| {
            let rest = variable.name.strip_prefix(boot.as_slice());
            rest.is_some_and(|rest| rest.len() == 4 || rest.iter().copied().eq("Order".encode_utf16()))
        };
        self.variables.iter().any(|variable| variable.guid == GLOBAL && of_boot(variable))
    }

    /// Tells whether images must be signed: keys are enrolled and Secure Boot is not disabled.
    pub fn secure_boot(&self) -> SecureBoot {
        let enabled = self.data(&SECURE_BOOT_ENABLE, "SecureBootEnable");
        let enrolled = self.data(&GLOBAL, "PK").is_some_and(|key| !key.is_empty());
        match enrolled && enabled.is_none_or(|value| value == [1]) {
            true => SecureBoot::On,
            false => SecureBoot::Off,
        }
    }

    /// Returns the certificate entries of `db`: each is the owner's GUID and a certificate.
    pub fn certificates(&self) -> Vec<&'a [u8]> {
        let mut rest = self.data(&IMAGE_SECURITY, "db").unwrap_or_default();
        let mut entries = Vec::new();
        // A signature list: type, list size u32, header size u32, entry size u32.
        while let Some(size) = field::u32(rest, 16).map(|size| size as usize).filter(|size| *size >= 28) {
            let (list, next) = rest.split_at_checked(size).unwrap_or_default();
            let header = 28usize.saturating_add(field::u32(list, 20).unwrap_or_default() as usize);
            let entry = field::u32(list, 24).unwrap_or_default() as usize;
            if field::array(list, 0) == Some(CERTIFICATES) && entry > 16 {
                entries.extend(list.get(header..).unwrap_or_default().chunks_exact(entry));
            }
            rest = next;
        }
        entries
    }
}

/// Whether images must be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureBoot {
    /// They must.
    On,
    /// They need not.
    Off,
}

/// Returns the bytes that firmware hashes for a variable, name and data (UEFI_VARIABLE_DATA).
pub fn event_data(guid: &[u8; 16], name: &str, data: &[u8]) -> Vec<u8> {
    let name: Vec<u16> = name.encode_utf16().collect();
    let mut bytes = guid.to_vec();
    bytes.extend((name.len() as u64).to_le_bytes());
    bytes.extend((data.len() as u64).to_le_bytes());
    bytes.extend(name.iter().flat_map(|unit| unit.to_le_bytes()));
    bytes.extend_from_slice(data);
    bytes
}

#[cfg(test)]
pub(crate) mod specimen {
    use super::*;

    pub(crate) fn store(variables: &[(&[u8; 16], &str, &[u8], u8)]) -> Vec<u8> {
        let mut bytes = alloc::vec![0; 72];
        bytes[40..44].copy_from_slice(b"_FVH");
        bytes[48] = 72;
        bytes.extend(STORE);
        bytes.extend(0x1000u32.to_le_bytes());
        bytes.extend([0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
        for (guid, name, data, state) in variables {
            let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            bytes.extend([0xaa, 0x55, *state, 0]);
            bytes.extend([0; 32]);
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend((data.len() as u32).to_le_bytes());
            bytes.extend(*guid);
            bytes.extend(name);
            bytes.extend(*data);
            bytes.resize((bytes.len() - 72).next_multiple_of(4) + 72, 0xff);
        }
        bytes.resize(72 + 0x1000, 0xff);
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::specimen::store;
    use super::*;

    #[test]
    fn variables_are_read_and_deleted_ones_are_not() {
        let bytes = store(&[
            (&GLOBAL, "PK", b"old", 0x3c),
            (&GLOBAL, "PK", b"new", 0x3f),
            (&IMAGE_SECURITY, "db", b"d", 0x3e),
        ]);
        let store = Store::read(&bytes).unwrap();
        assert_eq!(store.data(&GLOBAL, "PK"), Some(&b"new"[..]));
        assert_eq!(store.data(&IMAGE_SECURITY, "db"), Some(&b"d"[..]));
        assert_eq!(store.data(&IMAGE_SECURITY, "PK"), None);
    }

    #[test]
    fn boot_options_in_the_store_are_recognised() {
        let has = |name| Store::read(&store(&[(&GLOBAL, name, b"x", 0x3f)])).unwrap().has_boot_options();
        assert!(has("Boot0000") && has("BootOrder"));
        assert!(!has("BootNext2") && !has("Timeout") && !has("Boot"));
    }

    #[test]
    fn secure_boot_needs_a_key_and_must_not_be_disabled() {
        let state = |variables: &[_]| Store::read(&store(variables)).unwrap().secure_boot();
        let switch = |value: &'static [u8]| (&SECURE_BOOT_ENABLE, "SecureBootEnable", value, 0x3f);
        let key = (&GLOBAL, "PK", &b"k"[..], 0x3f);
        assert_eq!(state(&[]), SecureBoot::Off);
        assert_eq!(state(&[switch(&[1])]), SecureBoot::Off);
        assert_eq!(state(&[key]), SecureBoot::On);
        assert_eq!(state(&[key, switch(&[1])]), SecureBoot::On);
        assert_eq!(state(&[key, switch(&[0])]), SecureBoot::Off);
    }

    #[test]
    fn certificates_come_from_certificate_lists_only() {
        let list = |kind: [u8; 16], entries: &[&[u8]]| {
            let mut bytes = kind.to_vec();
            let size = entries[0].len();
            bytes.extend((28 + size as u32 * entries.len() as u32).to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend((size as u32).to_le_bytes());
            bytes.extend(entries.concat());
            bytes
        };
        let db = [list([1; 16], &[&[7; 48]]), list(CERTIFICATES, &[&[8; 20], &[9; 20]])].concat();
        let bytes = store(&[(&IMAGE_SECURITY, "db", &db, 0x3f)]);
        assert_eq!(Store::read(&bytes).unwrap().certificates(), [&[8; 20][..], &[9; 20]]);
        let cut = store(&[(&IMAGE_SECURITY, "db", &db[..60], 0x3f)]);
        assert_eq!(Store::read(&cut).unwrap().certificates(), Vec::<&[u8]>::new());
    }

    #[test]
    fn the_event_of_an_absent_key_has_its_name_only() {
        let digest = crate::digest::Algorithm::Sha384.of(&event_data(&GLOBAL, "PK", &[]));
        assert!(alloc::format!("{digest}").starts_with("6f2e3cbc14f9def8"));
    }

    #[test]
    fn bytes_that_are_not_a_store_are_refused() {
        for at in [40, 48, 72, 88 + 3, 92, 93] {
            let mut bytes = store(&[]);
            bytes[at] ^= 0x80;
            assert!(matches!(Store::read(&bytes), Err(Error::Store { .. })), "{at}");
        }
        for length in [0, 30, 71, 80, 100, 1000] {
            assert!(matches!(Store::read(&store(&[])[..length]), Err(Error::Store { .. })), "{length}");
        }
    }

    #[test]
    fn a_variable_that_exceeds_the_store_is_refused() {
        let mut bytes = store(&[(&GLOBAL, "PK", b"x", 0x3f)]);
        bytes[100 + 40..100 + 44].copy_from_slice(&[0xff; 4]);
        assert!(matches!(Store::read(&bytes), Err(Error::Truncated { offset: 100, .. })));
    }
}
