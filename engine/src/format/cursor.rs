//! Reading numbers and slices from the front of a byte slice.

use super::{FormatError, varint};

/// A read position. Every method takes its value from the front or fails with
/// [`FormatError::Truncated`]; slices borrow from the input.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the front of `input`.
    pub fn new(input: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: input }
    }

    /// What has not been taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes the next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(FormatError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Takes one byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    /// Takes a little-endian `u16`.
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Takes a little-endian `u32`.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes a little-endian `u64`.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes a little-endian `i64`.
    pub fn i64(&mut self) -> Result<i64, FormatError> {
        self.array().map(i64::from_le_bytes)
    }

    /// Takes a variable-length integer.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let (value, rest) = varint::decode(self.rest)?;
        self.rest = rest;
        Ok(value)
    }

    /// Takes the next `len` bytes.
    pub fn bytes(&mut self, len: u64) -> Result<&'a [u8], FormatError> {
        let len = usize::try_from(len).map_err(|_| FormatError::Truncated)?;
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(FormatError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes a variable-length length and that many bytes.
    pub fn sized_bytes(&mut self) -> Result<&'a [u8], FormatError> {
        let len = self.varint()?;
        self.bytes(len)
    }
}
