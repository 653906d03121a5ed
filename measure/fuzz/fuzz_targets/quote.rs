//! Any bytes as a quote and as a TDREPORT: read or refused; what is read is judged without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ovmf_measure::quote::{Quote, Report};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(quote) = Quote::read(bytes) {
        assert!(bytes.starts_with(&quote.signed));
        assert_eq!(quote.signed.len() + 4 + quote.signature.len() + quote.trailing, bytes.len());
        assert!(quote.td.attributes.names().len() <= 64 && quote.td.xfam.names().len() <= 64);
    }
    let _ = Report::read(bytes);
});
