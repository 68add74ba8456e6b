//! The bytes of one file: sparse, and cheap to copy.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Smallest unit that a disk writes whole or not at all, in bytes.
pub(super) const SECTOR: u64 = 512;
/// Unit of the page cache and of space accounting, in bytes.
pub(super) const PAGE: u64 = 4096;

type Page = [u8; PAGE as usize];

/// Content of a file. Pages that were never written read as zeros and take no memory, so a
/// preallocated file costs nothing; pages are shared between copies until one is changed.
#[derive(Clone, Default)]
pub(super) struct Image {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn has_page(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// Pages from `first` on that hold content.
    pub(super) fn pages_from(&self, first: u64) -> u64 {
        self.pages.range(first..).count() as u64
    }

    /// Reads up to the end of the file; returns the bytes read.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let available = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        self.peek(&mut buf[..available], offset);
        available
    }

    /// Reads regardless of the length of the file.
    pub(super) fn peek(&self, buf: &mut [u8], offset: u64) {
        for_each_page(offset, buf.len(), |page, in_page, in_buf| {
            match self.pages.get(&page) {
                Some(content) => buf[in_buf].copy_from_slice(&content[in_page]),
                None => buf[in_buf].fill(0),
            }
        });
    }

    /// Writes and extends the file if needed.
    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        self.poke(data, offset);
        if !data.is_empty() {
            self.len = self.len.max(offset + data.len() as u64);
        }
    }

    /// Writes without changing the length. Bytes beyond it appear when the file grows over them:
    /// sectors that reached the device before the new length did.
    pub(super) fn poke(&mut self, data: &[u8], offset: u64) {
        for_each_page(offset, data.len(), |page, in_page, in_data| {
            let content = self
                .pages
                .entry(page)
                .or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(content)[in_page].copy_from_slice(&data[in_data]);
        });
    }

    /// Sets the length. A cut discards what lies beyond.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.discard_from(len);
        }
        self.len = len;
    }

    /// Sets the length, and discards what lies beyond also if the file grows.
    pub(super) fn settle(&mut self, len: u64) {
        self.discard_from(len);
        self.len = len;
    }

    fn discard_from(&mut self, len: u64) {
        drop(self.pages.split_off(&len.div_ceil(PAGE)));
        if let Some(content) = self.pages.get_mut(&(len / PAGE)) {
            Arc::make_mut(content)[(len % PAGE) as usize..].fill(0);
        }
    }

    /// Inverts the bits of `mask` in the byte at `offset`.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        let mut byte = [0];
        self.peek(&mut byte, offset);
        self.poke(&[byte[0] ^ mask], offset);
    }
}

/// Calls `f(page number, range in the page, range in the buffer)` for each page touched.
fn for_each_page(
    offset: u64,
    len: usize,
    mut f: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let in_page = (at % PAGE) as usize;
        let n = (PAGE as usize - in_page).min(len - done);
        f(at / PAGE, in_page..in_page + n, done..done + n);
        done += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(image: &Image) -> Vec<u8> {
        let mut buf = vec![7; image.len() as usize + 3];
        let n = image.read(&mut buf, 0);
        buf.truncate(n);
        buf
    }

    #[test]
    fn growing_after_a_cut_reads_zeros() {
        let mut image = Image::default();
        image.write(&[1; 10_000], 0);
        image.set_len(3);
        image.set_len(10_000);
        let mut want = vec![0; 10_000];
        want[..3].fill(1);
        assert_eq!(content(&image), want);
    }

    #[test]
    fn copies_do_not_see_later_writes() {
        let mut image = Image::default();
        image.write(b"old", 4095);
        let copy = image.clone();
        image.write(b"new", 4095);
        assert_eq!(&content(&copy)[4095..], b"old");
        assert_eq!(&content(&image)[4095..], b"new");
    }

    #[test]
    fn bytes_beyond_the_end_appear_on_growth_unless_settled() {
        let mut image = Image::default();
        image.poke(b"early", 0);
        assert_eq!(content(&image), b"");
        let mut settled = image.clone();
        settled.settle(0);
        settled.set_len(5);
        image.set_len(5);
        assert_eq!(content(&image), b"early");
        assert_eq!(content(&settled), [0; 5]);
    }
}
