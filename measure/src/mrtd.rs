//! MRTD, from the sections of a firmware image.
//!
//! # Shape
//!
//! ```text
//! TDH.MNG.INIT        start SHA-384
//! TDH.MEM.PAGE.ADD    each page of 4096 bytes     128 bytes: "MEM.PAGE.ADD" at 0, its GPA u64 at 16, otherwise zeros
//! TDH.MR.EXTEND       each chunk of 256 bytes     128 bytes: "MR.EXTEND" at 0, its GPA u64 at 16, otherwise zeros; the chunk
//! TDH.MR.FINALIZE     the digest is MRTD
//! ```
//!
//! The VMM goes through the sections in the order of the metadata, without those whose pages are added later. Every page is
//! added; chunks are extended only for sections with measured content. A page is followed by its own sixteen chunks
//! ([`Order::SinglePass`]), or all pages of a section precede all of its chunks ([`Order::TwoPass`]): this depends on the
//! VMM, not on the firmware.
//!
//! # Source
//!
//! Intel TDX Application Binary Interface (ABI) Reference 1.5, the four leaves above; QEMU `target/i386/kvm/tdx.c` (the
//! sections). Single pass: upstream KVM, QEMU from 10.1, Google. Two pass: Intel's and Ubuntu's QEMU 8, confirmed by a quote of
//! such a machine. Five other tools compute the same values for five images of Debian.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha384};

use crate::digest::Digest;
use crate::firmware::{Firmware, PAGE};

/// The order in which the VMM adds pages and extends MRTD with their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Page by page.
    SinglePass,
    /// All pages of a section, then all of its content.
    TwoPass,
}

/// Size of an extension buffer in bytes.
const BUFFER: usize = 128;
/// Size of the chunk that TDH.MR.EXTEND measures, in bytes.
const CHUNK: usize = 256;
const PAGE_BYTES: usize = PAGE as usize;
/// What one page adds to MRTD at most, in bytes.
const OF_PAGE: usize = BUFFER + PAGE_BYTES / CHUNK * (BUFFER + CHUNK);

/// Computes MRTD of a TD after the VMM has loaded the firmware.
pub fn mrtd(firmware: &Firmware<'_>, order: Order) -> Digest {
    let mut measurement = Measurement::init();
    for section in firmware.sections().iter().filter(|section| !section.is_added_later()) {
        let data = firmware.data(section);
        let pages = (0..section.memory_size).step_by(PAGE_BYTES);
        let gpa = |offset: u64| section.address.0.saturating_add(offset);
        let measured = section.content_is_measured();
        for page in pages.clone() {
            measurement.page_add(gpa(page));
            if measured && order == Order::SinglePass {
                measurement.extend_page(gpa(page), content(data, page));
            }
        }
        if measured && order == Order::TwoPass {
            for page in pages {
                measurement.extend_page(gpa(page), content(data, page));
            }
        }
    }
    measurement.finalize()
}

/// Returns what the image has for the page at this offset of a section; the rest of the page is zero.
fn content(data: &[u8], offset: u64) -> &[u8] {
    let rest = usize::try_from(offset).ok().and_then(|start| data.get(start..)).unwrap_or_default();
    rest.get(..PAGE_BYTES).unwrap_or(rest)
}

/// The field TDCS.MRTD while the TD is built.
struct Measurement {
    hasher: Sha384,
    /// Bytes to hash next: hashing in small pieces takes a third longer.
    pending: Vec<u8>,
}

impl Measurement {
    /// TDH.MNG.INIT initializes TDCS.MRTD: the SHA-384 computation starts with no input.
    fn init() -> Self {
        Measurement { hasher: Sha384::new(), pending: Vec::with_capacity(OF_PAGE) }
    }

    /// TDH.MEM.PAGE.ADD (ABI 1.5.05.44, 5.3.20): "Extend TDCS.MRTD with the target page GPA. Extension is done using SHA384
    /// with a 128B extension buffer composed as follows: Bytes 0 through 11 contain the ASCII string “MEM.PAGE.ADD”. Bytes 16
    /// through 23 contain the GPA (in little-endian format). All the other bytes contain 0."
    fn page_add(&mut self, gpa: u64) {
        self.update(&extension_buffer(b"MEM.PAGE.ADD", gpa));
    }

    /// TDH.MR.EXTEND (ABI 1.5.05.44, 5.3.44): "Extend TDCS.MRTD with the chunk’s GPA and contents. Extension is done using
    /// SHA384, with three 128B extension buffers. The first extension buffer is composed as follows: Bytes 0 through 8 contain
    /// the ASCII string “MR.EXTEND”. Bytes 16 through 23 contain the GPA (in little-endian format). All the other bytes contain
    /// 0. The other two extension buffers contain the chunk’s contents."
    fn mr_extend(&mut self, gpa: u64, chunk: &[u8; CHUNK]) {
        self.update(&extension_buffer(b"MR.EXTEND", gpa));
        self.update(chunk);
    }

    /// Calls TDH.MR.EXTEND for each chunk of a page, in ascending order.
    fn extend_page(&mut self, gpa: u64, content: &[u8]) {
        for offset in (0..PAGE_BYTES).step_by(CHUNK) {
            let mut chunk = [0; CHUNK];
            let rest = content.get(offset..).unwrap_or_default();
            chunk.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            self.mr_extend(gpa.saturating_add(offset as u64), &chunk);
        }
    }

    /// TDH.MR.FINALIZE completes the SHA-384 computation: nothing changes TDCS.MRTD afterwards.
    fn finalize(mut self) -> Digest {
        self.hasher.update(&self.pending);
        Digest::Sha384(self.hasher.finalize().into())
    }

    fn update(&mut self, bytes: &[u8]) {
        if self.pending.len().saturating_add(bytes.len()) > OF_PAGE {
            self.hasher.update(&self.pending);
            self.pending.clear();
        }
        self.pending.extend_from_slice(bytes);
    }
}

/// Composes the extension buffer with a leaf's name and a GPA.
fn extension_buffer<const N: usize>(name: &[u8; N], gpa: u64) -> [u8; BUFFER] {
    let mut buffer = [0; BUFFER];
    buffer.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    buffer.iter_mut().skip(16).zip(gpa.to_le_bytes()).for_each(|(to, from)| *to = from);
    buffer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use alloc::vec::Vec;

    use super::*;
    use crate::firmware::specimen::{image, sections};

    /// The same rules written in another way, independent of the code above.
    fn independent(bytes: &[u8], order: Order) -> Digest {
        let mut all = Vec::new();
        let block = |all: &mut Vec<u8>, name: &[u8], address: u64| {
            let mut block = [0; 128];
            block[..name.len()].copy_from_slice(name);
            block[16..24].copy_from_slice(&address.to_le_bytes());
            all.extend(block);
        };
        for section in sections() {
            let mut memory = bytes[section.data_offset as usize..][..section.data_size as usize].to_vec();
            memory.resize(section.memory_size as usize, 0);
            if section.attributes & 2 != 0 {
                continue;
            }
            let extend = |all: &mut Vec<u8>, page: u64| {
                for chunk in (page..page + 4096).step_by(256).filter(|_| section.attributes & 1 != 0) {
                    block(all, b"MR.EXTEND", section.address.0 + chunk);
                    all.extend(&memory[chunk as usize..][..256]);
                }
            };
            for page in (0..section.memory_size).step_by(4096) {
                block(&mut all, b"MEM.PAGE.ADD", section.address.0 + page);
                if order == Order::SinglePass {
                    extend(&mut all, page);
                }
            }
            if order == Order::TwoPass {
                (0..section.memory_size).step_by(4096).for_each(|page| extend(&mut all, page));
            }
        }
        crate::digest::Algorithm::Sha384.of(&all)
    }

    #[test]
    fn both_orders_equal_an_independent_computation_and_differ() {
        let bytes = image(&sections());
        let firmware = Firmware::read(&bytes).unwrap();
        for order in [Order::SinglePass, Order::TwoPass] {
            assert_eq!(mrtd(&firmware, order), independent(&bytes, order), "{order:?}");
        }
        assert_ne!(mrtd(&firmware, Order::SinglePass), mrtd(&firmware, Order::TwoPass));
    }

    #[test]
    fn a_bit_of_the_code_changes_mrtd_and_a_bit_of_the_variables_does_not() {
        let mut bytes = image(&sections());
        let before = mrtd(&Firmware::read(&bytes).unwrap(), Order::SinglePass);
        bytes[0x10] ^= 1;
        assert_eq!(mrtd(&Firmware::read(&bytes).unwrap(), Order::SinglePass), before);
        bytes[0x2010] ^= 1;
        assert_ne!(mrtd(&Firmware::read(&bytes).unwrap(), Order::SinglePass), before);
    }

    #[test]
    fn memory_beyond_the_data_is_zero_and_pages_added_later_are_not_measured() {
        let mut longer = sections();
        longer[0].data_size = 0x2801;
        let bytes = image(&longer);
        let short = mrtd(&Firmware::read(&bytes).unwrap(), Order::SinglePass);
        let mut zeroed = image(&sections());
        zeroed[0x4801..0x5000].fill(0);
        assert_eq!(mrtd(&Firmware::read(&zeroed).unwrap(), Order::SinglePass), short);
        let mut later = sections();
        later[2].attributes = 2;
        let without: Vec<_> = sections().into_iter().filter(|s| s.address.0 != 0x81_0000).collect();
        let value = |sections: &[_]| mrtd(&Firmware::read(&image(sections)).unwrap(), Order::SinglePass);
        assert_eq!(value(&later), value(&without));
    }
}
