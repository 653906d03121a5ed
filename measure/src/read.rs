//! Numbers and byte strings read in order from foreign bytes: what is missing is an error with its offset, never a panic.
//!
//! # Not here
//!
//! The meaning of the bytes: each format's own module has it.

/// The bytes end before a field does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at offset {offset} needs {expected} bytes, found {found}")]
pub struct Truncated {
    /// The field.
    pub what: &'static str,
    /// Its offset.
    pub offset: usize,
    /// Bytes that it needs.
    pub expected: u64,
    /// Bytes available from `offset` on.
    pub found: usize,
}

/// Reads one field after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Starts at `offset`; any offset past the end acts as the end.
    pub(crate) const fn new(bytes: &'a [u8], offset: usize) -> Self {
        Reader { bytes, offset }
    }

    /// Returns the offset of the next field.
    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    /// Returns the bytes not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    /// Takes `count` bytes.
    pub(crate) fn take(&mut self, what: &'static str, count: u64) -> Result<&'a [u8], Truncated> {
        let rest = self.rest();
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken =
            taken.ok_or(Truncated { what, offset: self.offset, expected: count, found: rest.len() })?;
        self.offset = self.offset.saturating_add(taken.len());
        Ok(taken)
    }

    /// Takes an array.
    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Truncated> {
        let truncated = Truncated { what, offset: self.offset, expected: N as u64, found: self.rest().len() };
        let taken = self.take(what, N as u64)?;
        taken.try_into().map_err(|_| truncated)
    }

    /// Takes one byte.
    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, Truncated> {
        self.array::<1>(what).map(u8::from_le_bytes)
    }

    /// Takes a little-endian number of 2 bytes.
    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, Truncated> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// Takes a little-endian number of 4 bytes.
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Truncated> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// Takes a little-endian number of 8 bytes.
    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Truncated> {
        self.array(what).map(u64::from_le_bytes)
    }
}
