//! MRTD, from the sections of a firmware image.
//!
//! # Shape
//!
//! ```text
//! MRTD = SHA-384( for each section, in the order of the metadata, that is not added later:
//!    each page of 4096 bytes     "MEM.PAGE.ADD", zeros, at 16 the page's address u64, zeros to 128
//!    each 256 bytes of a page    "MR.EXTEND",    zeros, at 16 their address u64,      zeros to 128, the 256 bytes
//! )                              the second line only where the section's content is measured
//! ```
//!
//! A page is followed by its own sixteen extensions ([`Order::SinglePass`]), or all pages of a section come before all
//! of its extensions ([`Order::TwoPass`]): this depends on the VMM, not on the firmware.
//!
//! # Source
//!
//! Intel TDX Module ABI, TDH.MEM.PAGE.ADD and TDH.MR.EXTEND; QEMU `target/i386/kvm/tdx.c`. Single pass: upstream KVM and
//! QEMU from 10.1, Google; two pass: Intel's and Ubuntu's QEMU 8, as a quote of such a machine shows. Five images of
//! Debian give the values that five other tools give.

use sha2::{Digest as _, Sha384};

use crate::digest::Digest;
use crate::firmware::{Firmware, PAGE};

/// Says in which order the VMM adds pages and extends MRTD by their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Page by page.
    SinglePass,
    /// All pages of a section, then all of its content.
    TwoPass,
}

const BLOCK: usize = 128;
const CHUNK: usize = 256;
const PAGE_BYTES: usize = PAGE as usize;
const EXTENSIONS: usize = PAGE_BYTES / CHUNK * (BLOCK + CHUNK);

/// Gives a TD's MRTD after the VMM has loaded the firmware.
pub fn mrtd(firmware: &Firmware<'_>, order: Order) -> Digest {
    let mut hasher = Sha384::new();
    // One page's blocks lie in one buffer: the hash of many small pieces takes a third longer.
    let mut buffer = [0; BLOCK + EXTENSIONS];
    for section in firmware.sections().iter().filter(|section| !section.is_added_later()) {
        let data = firmware.data(section);
        let pages = || (0..section.memory_size / PAGE).map(|index| index.saturating_mul(PAGE));
        let content = section.content_is_measured();
        let extend = |hasher: &mut Sha384, buffer: &mut [u8; BLOCK + EXTENSIONS], offset: u64, add: Add| {
            let address = section.address.0.saturating_add(offset);
            let (page_block, extensions) = buffer.split_at_mut(BLOCK);
            write_block(page_block, b"MEM.PAGE.ADD", address);
            write_extensions(extensions, data, offset, address);
            hasher.update(match add {
                Add::WithContent => buffer.as_slice(),
                Add::ContentAlone => extensions,
            });
        };
        let add = |hasher: &mut Sha384, offset: u64| {
            let mut block = [0; BLOCK];
            write_block(&mut block, b"MEM.PAGE.ADD", section.address.0.saturating_add(offset));
            hasher.update(block);
        };
        match (order, content) {
            (_, false) => pages().for_each(|offset| add(&mut hasher, offset)),
            (Order::SinglePass, true) => {
                pages().for_each(|offset| extend(&mut hasher, &mut buffer, offset, Add::WithContent));
            }
            (Order::TwoPass, true) => {
                pages().for_each(|offset| add(&mut hasher, offset));
                pages().for_each(|offset| extend(&mut hasher, &mut buffer, offset, Add::ContentAlone));
            }
        }
    }
    Digest::Sha384(hasher.finalize().into())
}

#[derive(Clone, Copy)]
enum Add {
    WithContent,
    ContentAlone,
}

fn write_block(block: &mut [u8], name: &[u8], address: u64) {
    block.fill(0);
    if let Some(place) = block.get_mut(..name.len()) {
        place.copy_from_slice(name);
    }
    if let Some(place) = block.get_mut(16..24) {
        place.copy_from_slice(&address.to_le_bytes());
    }
}

/// Fills in the sixteen extensions of the page that begins `offset` bytes into a section.
fn write_extensions(extensions: &mut [u8], data: &[u8], offset: u64, address: u64) {
    let page = usize::try_from(offset).ok().and_then(|start| data.get(start..)).unwrap_or_default();
    for (index, extension) in extensions.chunks_exact_mut(BLOCK + CHUNK).enumerate() {
        let start = index.saturating_mul(CHUNK);
        let (block, chunk) = extension.split_at_mut(BLOCK);
        write_block(block, b"MR.EXTEND", address.saturating_add(start as u64));
        let rest = page.get(start..).unwrap_or_default();
        let (filled, zeros) = chunk.split_at_mut(rest.len().min(CHUNK));
        filled.copy_from_slice(rest.get(..filled.len()).unwrap_or_default());
        zeros.fill(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use alloc::vec::Vec;

    use super::*;
    use crate::firmware::specimen::{image, sections};

    /// The rule as the specification words it, one piece after another.
    fn by_the_book(bytes: &[u8], order: Order) -> Digest {
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
    fn both_orders_follow_the_book_and_differ() {
        let bytes = image(&sections());
        let firmware = Firmware::read(&bytes).unwrap();
        for order in [Order::SinglePass, Order::TwoPass] {
            assert_eq!(mrtd(&firmware, order), by_the_book(&bytes, order), "{order:?}");
        }
        assert_ne!(mrtd(&firmware, Order::SinglePass), mrtd(&firmware, Order::TwoPass));
    }

    #[test]
    fn a_bit_of_the_code_moves_it_and_a_bit_of_the_variables_does_not() {
        let mut bytes = image(&sections());
        let before = mrtd(&Firmware::read(&bytes).unwrap(), Order::SinglePass);
        bytes[0x10] ^= 1;
        assert_eq!(mrtd(&Firmware::read(&bytes).unwrap(), Order::SinglePass), before);
        bytes[0x2010] ^= 1;
        assert_ne!(mrtd(&Firmware::read(&bytes).unwrap(), Order::SinglePass), before);
    }

    #[test]
    fn memory_beyond_the_data_is_zero_and_pages_added_later_do_not_count() {
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
