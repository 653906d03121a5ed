//! Little-endian fields and ranges of foreign bytes; each may be missing.

/// Returns `length` bytes from `offset`; `None` unless all of them exist.
pub(crate) fn bytes(from: &[u8], offset: usize, length: usize) -> Option<&[u8]> {
    from.get(offset..offset.checked_add(length)?)
}

/// Returns `N` bytes from `offset`.
pub(crate) fn array<const N: usize>(from: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes(from, offset, N)?.try_into().ok()
}

/// Reads 16 bits at `offset`.
pub(crate) fn u16(from: &[u8], offset: usize) -> Option<u16> {
    array(from, offset).map(u16::from_le_bytes)
}

/// Reads 24 bits at `offset`.
pub(crate) fn u24(from: &[u8], offset: usize) -> Option<u32> {
    let [low, middle, high] = array(from, offset)?;
    Some(u32::from_le_bytes([low, middle, high, 0]))
}

/// Reads 32 bits at `offset`.
pub(crate) fn u32(from: &[u8], offset: usize) -> Option<u32> {
    array(from, offset).map(u32::from_le_bytes)
}

/// Reads 64 bits at `offset`.
pub(crate) fn u64(from: &[u8], offset: usize) -> Option<u64> {
    array(from, offset).map(u64::from_le_bytes)
}
