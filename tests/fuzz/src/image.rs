//! Fuzz targets of proofmark-image: initrd, partition tables, PE images.

use ovmf_measure::pe::Pe;
use proofmark_image::cpio as initrd;
use proofmark_image::disk::Table;
use proofmark_image::uki::{self, Section};
use sha2::Sha256;

use crate::Target;

/// Every target of this crate.
pub const TARGETS: [Target; 3] = [("cpio", cpio), ("gpt", gpt), ("pe", pe)];

/// Reads an initrd archive; if its entries can be written, they read back equal.
pub fn cpio(bytes: &[u8]) {
    let Ok(entries) = initrd::read(bytes) else { return };
    let mut written = Vec::new();
    if initrd::write(&entries, &mut written).is_ok() {
        assert_eq!(initrd::read(&written).expect("what is written can be read"), entries);
    }
}

/// Reads both partition tables of a disk, whose size is the first 8 bytes, also with corrected checksums, as
/// an attacker would.
pub fn gpt(bytes: &[u8]) {
    let Some((size, table)) = bytes.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    let _ = (Table::read(table, size), Table::read_backup(table, size));
    let mut primary = table.to_vec();
    mend(&mut primary, 512, 1024);
    let mut backup = table.to_vec();
    mend(&mut backup, 16384, 0);
    for table in [Table::read(&primary, size), Table::read_backup(&backup, size)].into_iter().flatten() {
        for entry in &table.entries {
            assert!(entry.first <= entry.last && entry.bytes() <= size);
        }
    }
}

fn mend(table: &mut [u8], header: usize, entries: usize) {
    if table.len() < header + 92 || table.len() < entries + 16384 {
        return;
    }
    let sum = crc32fast::hash(&table[entries..entries + 16384]).to_le_bytes();
    table[header + 88..header + 92].copy_from_slice(&sum);
    table[header + 16..header + 20].fill(0);
    let sum = crc32fast::hash(&table[header..header + 92]).to_le_bytes();
    table[header + 16..header + 20].copy_from_slice(&sum);
}

/// Reads a PE image: headers, sections and digest; then builds from it as both stub and kernel.
pub fn pe(bytes: &[u8]) {
    let Ok(image) = Pe::read_strict(bytes) else { return };
    let covered: usize =
        image.authenticode(0).expect("a strict reader leaves room").parts().map(<[u8]>::len).sum();
    assert!(covered <= bytes.len());
    let _ = image.authenticode_digest::<Sha256>();
    for section in image.sections() {
        let _ = image.extract(&section.name.to_string());
    }
    let _ = uki::merge_sbat(bytes, bytes, "");
    let sections = [
        Section { name: ".cmdline", content: b"quiet" },
        Section { name: ".sbat", content: b"sbat,1\n" },
        Section { name: ".linux", content: bytes },
    ];
    if let Ok(built) = uki::build(bytes, &sections) {
        let built = Pe::read_strict(&built).expect("what is built can be read");
        for section in sections {
            assert_eq!(built.extract(section.name).expect("every section is there"), section.content);
        }
    }
}
