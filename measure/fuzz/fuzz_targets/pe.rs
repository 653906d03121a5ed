//! Any bytes as a UKI: read or refused; what is read hashes no more bytes than there are, and each range is inside.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ovmf_measure::boot::Plan;
use ovmf_measure::pe::Pe;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(pe) = Pe::read(bytes)
        && let Ok(preimage) = pe.authenticode(0)
    {
        assert!(preimage.len() <= bytes.len());
        for (offset, length) in preimage.ranges(0) {
            assert!(offset.checked_add(length).is_some_and(|end| end <= bytes.len() as u64));
        }
        for section in pe.sections() {
            let _ = pe.content(section);
        }
    }
    let _ = Plan::read(bytes, None).map(|plan| plan.hash(ovmf_measure::digest::Algorithm::Sha256));
});
