//! Any bytes as firmware: its sections, volumes and variables are read or refused; what is read is measured without a
//! panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ovmf_measure::firmware::{Firmware, Kind};
use ovmf_measure::mrtd::{Order, mrtd};
use ovmf_measure::td_hob;
use ovmf_measure::variable::Store;
use ovmf_measure::volume::Profile;

fuzz_target!(|bytes: &[u8]| {
    let _ = Profile::read(bytes);
    if let Ok(store) = Store::read(bytes) {
        let _ = (store.secure_boot(), store.has_boot_options(), store.certificates());
    }
    let Ok(firmware) = Firmware::read(bytes) else { return };
    // What a section has in the image is small here; what it takes of memory may be half a gigabyte of zeros.
    if firmware.sections().iter().map(|section| section.memory_size).sum::<u64>() <= 16 << 20 {
        let _ = mrtd(&firmware, Order::SinglePass);
        let _ = mrtd(&firmware, Order::TwoPass);
    }
    for memory in [0, 1 << 20, 2 << 30, 16 << 30, u64::MAX] {
        let _ = td_hob::qemu(&firmware, memory);
        let _ = td_hob::google(firmware.sections(), memory);
    }
    for section in firmware.sections() {
        assert_eq!(firmware.data(section).len(), section.data_size as usize);
    }
    let _ = firmware.section(Kind::Cfv).map(|section| Store::read(firmware.data(section)));
});
