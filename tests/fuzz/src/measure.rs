//! Fuzz targets of ovmf-measure: firmware, disks, event logs, PE images and quotes.

use ovmf_measure::boot::Plan;
use ovmf_measure::digest::Algorithm;
use ovmf_measure::esp;
use ovmf_measure::firmware::{Firmware, Kind};
use ovmf_measure::gpt::Gpt;
use ovmf_measure::log::{Area, Log};
use ovmf_measure::mrtd::{Order, mrtd};
use ovmf_measure::pe::Pe;
use ovmf_measure::quote::{Quote, Report};
use ovmf_measure::replay;
use ovmf_measure::secure_boot::Program;
use ovmf_measure::td_hob;
use ovmf_measure::variable::Store;
use ovmf_measure::volume::Profile;

use crate::Target;

/// Every target of this crate.
pub const TARGETS: [Target; 5] =
    [("firmware", firmware), ("gpt", gpt), ("log", log), ("pe", pe), ("quote", quote)];

/// Reads firmware: its sections, volumes and variables, and measures them.
pub fn firmware(bytes: &[u8]) {
    let _ = Profile::read(bytes);
    if let Ok(store) = Store::read(bytes) {
        let _ = (store.secure_boot(), store.has_boot_options(), store.certificates());
    }
    let Ok(firmware) = Firmware::read(bytes) else { return };
    // A section with few bytes in the image may take half a gigabyte of zeros in memory.
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
}

/// Reads the start of a disk, and a system partition; everything found lies inside.
pub fn gpt(bytes: &[u8]) {
    if let Ok(gpt) = Gpt::read(bytes) {
        let preimage = gpt.preimage();
        let entries: usize = preimage.ranges(0).iter().skip(1).map(|range| range.1 as usize).sum();
        assert_eq!(preimage.len(), 100 + entries);
        let _ = gpt.partitions().count();
    }
    if let Ok(pieces) = esp::boot_program(&bytes) {
        for (offset, length) in pieces {
            assert!(offset.checked_add(length).is_some_and(|end| end <= bytes.len() as u64));
        }
    }
}

/// Reads an event log, and replays, derives and describes it; its records take no more room than its bytes.
pub fn log(bytes: &[u8]) {
    let _ = Area::read(bytes);
    let Ok(log) = Log::read_any(bytes) else { return };
    assert!(log.length <= bytes.len());
    let data: usize = log.entries.iter().filter_map(|entry| entry.data.as_ref()).map(|data| data.len()).sum();
    assert!(data <= bytes.len());
    for algorithm in log.algorithms() {
        let replayed = replay::replay(&log, algorithm);
        assert_eq!(replayed.is_ok(), replay::findings(&log, algorithm).is_ok());
    }
    for entry in &log.entries {
        assert!(replay::subject(entry).chars().count() <= 300);
    }
}

/// Reads a PE image and a UKI; the hashed ranges lie inside and are no longer than the file.
pub fn pe(bytes: &[u8]) {
    let _ = Pe::read_strict(bytes);
    if let Ok(pe) = Pe::read(bytes)
        && let Ok(program) = Program::read(&pe, None)
    {
        // Signatures, and databases.
        let _ = (program.authority(&[], &[]), program.authority(bytes, &[]), program.authority(&[], bytes));
    }
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
    let _ = Plan::read(bytes, None).map(|plan| plan.hash(Algorithm::Sha256));
}

/// Reads a quote and a TDREPORT; a quote's parts add up to its bytes.
pub fn quote(bytes: &[u8]) {
    if let Ok(quote) = Quote::read(bytes) {
        assert!(bytes.starts_with(&quote.signed));
        assert!(quote.signed.len() + 4 + quote.signature.len() + quote.trailing <= bytes.len());
        assert!(quote.td.attributes.names().len() <= 64 && quote.td.xfam.names().len() <= 64);
    }
    let _ = Report::read(bytes);
}
