//! Where a machine keeps its event log, from the ACPI table that describes it.
//!
//! # Shape
//!
//! ```text
//! CCEL   56 bytes    [header 36, technology u8, subtype u8, 2 bytes, length u64, address u64]
//! TPM2   76 bytes    [header 36, …, length u32 at 64, address u64 at 68]
//! header             [signature 4, length u32, revision u8, checksum u8, …]; the bytes of a table sum to 0
//! ```
//!
//! # Source
//!
//! UEFI 2.10, 38.4.1 and ACPI 6.5, 5.2 (CCEL); TCG ACPI Specification 1.4, table 7 (TPM2). Checked with Google Cloud's
//! table.

use alloc::string::String;

use crate::read::{Reader, Truncated};
use crate::reference::RegisterKind;

/// The memory area of an event log, as an ACPI table describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Whose log it is.
    pub technology: Technology,
    /// Length of the area in bytes, padding included.
    pub length: u64,
    /// Its guest physical address.
    pub address: u64,
}

/// Whose log an area holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Technology {
    /// A TD's: a CCEL of type 2.
    Tdx,
    /// A TPM's.
    Tpm,
}

impl From<Technology> for RegisterKind {
    fn from(technology: Technology) -> RegisterKind {
        match technology {
            Technology::Tdx => RegisterKind::Tdx,
            Technology::Tpm => RegisterKind::Tpm,
        }
    }
}

/// Bytes are not a table that describes an event log, or the log does not fit its area.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AreaError {
    /// The table ends inside a field.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// It is a different table.
    #[error("expected CCEL or TPM2 at offset 0, found {found:?}")]
    Signature {
        /// The signature.
        found: String,
    },
    /// The table's length differs from its length field.
    #[error("expected a table of {expected} bytes as its length field says, found {found}")]
    Length {
        /// The length field.
        expected: u32,
        /// The table's length.
        found: usize,
    },
    /// The bytes do not sum to 0.
    #[error("expected the table's bytes to sum to 0x00, found {found:#04x}")]
    Checksum {
        /// The sum.
        found: u8,
    },
    /// The log is not a TD's.
    #[error("expected technology 2 (TDX) at offset 36, found {found}")]
    Technology {
        /// The number.
        found: u8,
    },
    /// The log is longer than its area.
    #[error("expected a log of at most {expected} bytes as the table says, found {found}")]
    Log {
        /// Length of the area.
        expected: u64,
        /// Length of the log.
        found: u64,
    },
}

impl Area {
    /// Reads a CCEL or TPM2 table.
    ///
    /// # Errors
    ///
    /// See [`AreaError`].
    pub fn read(bytes: &[u8]) -> Result<Area, AreaError> {
        let mut reader = Reader::new(bytes, 0);
        let signature = reader.array::<4>("a table's signature")?;
        if !matches!(&signature, b"CCEL" | b"TPM2") {
            return Err(AreaError::Signature { found: String::from_utf8_lossy(&signature).into() });
        }
        let length = reader.u32("a table's length")?;
        if usize::try_from(length) != Ok(bytes.len()) {
            return Err(AreaError::Length { expected: length, found: bytes.len() });
        }
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        if sum != 0 {
            return Err(AreaError::Checksum { found: sum });
        }
        if &signature == b"CCEL" {
            let mut reader = Reader::new(bytes, 36);
            let technology = reader.u8("the technology")?;
            if technology != 2 {
                return Err(AreaError::Technology { found: technology });
            }
            reader.take("the subtype and reserved bytes", 3)?;
            let length = reader.u64("the log's length")?;
            let address = reader.u64("the log's address")?;
            return Ok(Area { technology: Technology::Tdx, length, address });
        }
        let mut reader = Reader::new(bytes, 64);
        let length = reader.u32("the log's length")?.into();
        let address = reader.u64("the log's address")?;
        Ok(Area { technology: Technology::Tpm, length, address })
    }

    /// Checks that a log of this length fits.
    ///
    /// # Errors
    ///
    /// [`AreaError::Log`] if it is too long.
    pub fn holds(&self, bytes: u64) -> Result<(), AreaError> {
        if bytes <= self.length {
            Ok(())
        } else {
            Err(AreaError::Log { expected: self.length, found: bytes })
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    fn table(signature: &[u8; 4], length: u32, technology: u8) -> Vec<u8> {
        let mut table = alloc::vec![0u8; length as usize];
        table[..4].copy_from_slice(signature);
        table[4..8].copy_from_slice(&length.to_le_bytes());
        table[36] = technology;
        if signature == b"CCEL" {
            table[40..48].copy_from_slice(&0x1_0000u64.to_le_bytes());
            table[48..56].copy_from_slice(&0xbedb_f000u64.to_le_bytes());
        } else if length >= 76 {
            table[64..68].copy_from_slice(&0x1_0000u32.to_le_bytes());
            table[68..76].copy_from_slice(&0xbedb_f000u64.to_le_bytes());
        }
        seal(&mut table);
        table
    }

    fn seal(table: &mut [u8]) {
        table[9] = 0;
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        table[9] = sum.wrapping_neg();
    }

    #[test]
    fn both_tables_name_their_area() {
        let tdx = Area::read(&table(b"CCEL", 56, 2)).unwrap();
        assert_eq!(tdx, Area { technology: Technology::Tdx, length: 0x1_0000, address: 0xbedb_f000 });
        let tpm = Area::read(&table(b"TPM2", 76, 0)).unwrap();
        assert_eq!(tpm, Area { technology: Technology::Tpm, length: 0x1_0000, address: 0xbedb_f000 });
        assert_eq!(tdx.holds(0x1_0000), Ok(()));
        let error = tdx.holds(0x1_0001).unwrap_err();
        assert_eq!(error.to_string(), "expected a log of at most 65536 bytes as the table says, found 65537");
    }

    #[test]
    fn bytes_that_are_not_such_a_table_are_refused() {
        let whole = table(b"CCEL", 56, 2);
        for cut in 0..56 {
            assert!(Area::read(&whole[..cut]).is_err(), "{cut} bytes");
        }
        assert!(matches!(Area::read(b"DSDT"), Err(AreaError::Signature { .. })));
        let mut changed = whole.clone();
        changed[50] ^= 1;
        assert!(matches!(Area::read(&changed), Err(AreaError::Checksum { found: _ })));
        assert_eq!(Area::read(&table(b"CCEL", 56, 1)), Err(AreaError::Technology { found: 1 }));
        let without_log = Area::read(&table(b"TPM2", 52, 0)).unwrap_err();
        assert!(matches!(without_log, AreaError::Truncated(_)), "{without_log}");
    }
}
