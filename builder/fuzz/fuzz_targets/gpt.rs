//! Any bytes as both partition tables of a disk.
//!
//! The first 8 bytes are the disk's size. So that the fuzzer passes them, the check sums are mended, as an attacker
//! would.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::image::disk::Table;

fn crc(bytes: &[u8]) -> [u8; 4] {
    let fold = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    (!bytes.iter().fold(u32::MAX, fold)).to_le_bytes()
}

fn mend(table: &mut [u8], header: usize, entries: usize) {
    if table.len() < header + 92 || table.len() < entries + 16384 {
        return;
    }
    let sum = crc(&table[entries..entries + 16384]);
    table[header + 88..header + 92].copy_from_slice(&sum);
    table[header + 16..header + 20].fill(0);
    let sum = crc(&table[header..header + 92]);
    table[header + 16..header + 20].copy_from_slice(&sum);
}

fuzz_target!(|bytes: &[u8]| {
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
});
