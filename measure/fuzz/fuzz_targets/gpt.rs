//! Any bytes as the beginning of a disk, and as a system partition: read or refused; what is read lies inside.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ovmf_measure::esp;
use ovmf_measure::gpt::Gpt;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(gpt) = Gpt::read(bytes) {
        let preimage = gpt.preimage();
        assert_eq!(preimage.len(), 100 + preimage.ranges(0).iter().skip(1).map(|range| range.1 as usize).sum::<usize>());
        let _ = gpt.partitions().count();
    }
    if let Ok(pieces) = esp::boot_program(&bytes) {
        for (offset, length) in pieces {
            assert!(offset.checked_add(length).is_some_and(|end| end <= bytes.len() as u64));
        }
    }
});
