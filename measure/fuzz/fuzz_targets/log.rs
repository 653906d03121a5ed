//! Any bytes as an event log: read or refused; what is read replays, is derived and is named without a panic, and the
//! log's records take no more room than its bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ovmf_measure::log::{Area, Log};
use ovmf_measure::replay;

fuzz_target!(|bytes: &[u8]| {
    let _ = Area::read(bytes);
    let Ok(log) = Log::read_any(bytes) else { return };
    assert!(log.length <= bytes.len());
    let data: usize = log.entries.iter().filter_map(|entry| entry.data.as_ref()).map(Vec::len).sum();
    assert!(data <= bytes.len());
    for algorithm in log.algorithms() {
        let replayed = replay::replay(&log, algorithm);
        assert_eq!(replayed.is_ok(), replay::findings(&log, algorithm).is_ok());
    }
    for entry in &log.entries {
        assert!(replay::subject(entry).chars().count() <= 300);
    }
});
