//! The first key of each key page of a run, which stay in memory.

use crate::format::FormatError;
use crate::format::cursor::Cursor;

/// Page numbers and keys, ascending; the keys stand in one allocation.
#[derive(Debug, Default)]
pub(super) struct Separators {
    page_nos: Vec<u32>,
    /// Where each key ends in `keys`.
    ends: Vec<u32>,
    keys: Vec<u8>,
}

impl Separators {
    /// Adds the separators of a page.
    pub fn push_page(&mut self, payload: &[u8]) -> Result<(), FormatError> {
        let out_of_range = || FormatError::OutOfRange {
            what: "key separators",
        };
        let mut cursor = Cursor::new(payload);
        while !cursor.rest().is_empty() {
            let page_no = u32::try_from(cursor.varint()?).map_err(|_| out_of_range())?;
            self.keys.extend_from_slice(cursor.sized_bytes()?);
            let end = u32::try_from(self.keys.len()).map_err(|_| out_of_range())?;
            self.page_nos.push(page_no);
            self.ends.push(end);
        }
        Ok(())
    }

    /// Number of key pages.
    pub fn len(&self) -> usize {
        self.page_nos.len()
    }

    /// Number of the key page at `index`.
    pub fn page_no(&self, index: usize) -> u32 {
        self.page_nos.get(index).copied().unwrap_or(u32::MAX)
    }

    /// RAM held, in bytes.
    pub fn ram_bytes(&self) -> u64 {
        (self.keys.capacity() + 4 * (self.page_nos.capacity() + self.ends.capacity())) as u64
    }

    /// Index of the only key page that can hold `key`.
    pub fn page_of(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.saturating_sub(1)
    }

    fn key(&self, index: usize) -> &[u8] {
        let start = match index.checked_sub(1) {
            Some(before) => self.ends[before] as usize,
            None => 0,
        };
        &self.keys[start..self.ends[index] as usize]
    }
}
