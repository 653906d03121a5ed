//! Any bytes as a PE image: headers, sections, digest, and as a stub and a kernel to build from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proofmark::image::pe::Pe;
use proofmark::image::uki::{self, Section};
use sha2::Sha256;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Pe::read(bytes) else { return };
    let covered: usize = image.authenticode_parts().iter().map(|part| part.len()).sum();
    assert!(covered <= bytes.len());
    let _ = image.authenticode::<Sha256>();
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
        let built = Pe::read(&built).expect("what is built can be read");
        for section in sections {
            assert_eq!(built.extract(section.name).expect("every section is there"), section.content);
        }
    }
});
