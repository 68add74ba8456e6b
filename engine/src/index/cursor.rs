//! Walks the subjects of a run one by one, without holding anything but a page.

use std::sync::Arc;

use bytes::Bytes;

use super::RunError;
use super::postings::SubjectEntry;
use super::reader::{Run, Use};
use crate::format::FormatError;
use crate::format::cursor::Cursor;
use crate::format::key_page::{KeyPage, decode_long};
use crate::format::page::PageKind;

/// Position of a key in the order of a run: those on key pages come first, then the longer ones,
/// both ascending.
pub(crate) type KeyOrder<'a> = (bool, &'a [u8]);

/// The same, for keeping.
pub(crate) type OwnedKey = (bool, Vec<u8>);

/// A position in a run's keys, among those that start with a prefix.
pub(crate) struct KeyCursor {
    run: Arc<Run>,
    prefix: Vec<u8>,
    at: At,
    key: Vec<u8>,
    entry: Option<SubjectEntry>,
    uses: Use,
}

enum At {
    /// On a key page: index among the key pages, the page's number, and the page.
    Page(usize, u32, KeyPage),
    /// Before the key page of this index.
    Before(usize),
    /// Among the long keys: all of them, and where the next one starts.
    Long(Bytes, usize),
    End,
}

impl KeyCursor {
    /// Stands before the first key that starts with `prefix` and comes after `after`.
    pub fn new(
        run: Arc<Run>,
        prefix: Vec<u8>,
        after: Option<KeyOrder<'_>>,
        uses: Use,
    ) -> Result<KeyCursor, RunError> {
        let mut cursor = KeyCursor {
            run,
            prefix,
            at: At::End,
            key: Vec::new(),
            entry: None,
            uses,
        };
        match after {
            Some((true, _)) => cursor.at = At::Long(cursor.run.long_keys(uses)?, 0),
            _ => {
                let after = after.map_or(&[][..], |(_, key)| key);
                let start = after.max(&cursor.prefix[..]).to_vec();
                cursor.enter_page(cursor.run.separators().page_of(&start), Some(&start))?;
            }
        }
        loop {
            cursor.advance()?;
            let behind = after.is_none_or(|after| cursor.order() > after);
            if cursor.entry.is_none() || behind {
                return Ok(cursor);
            }
        }
    }

    /// The key and what is known of it; `None` at the end.
    pub fn current(&self) -> Option<(KeyOrder<'_>, &SubjectEntry)> {
        Some((self.order(), self.entry.as_ref()?))
    }

    fn order(&self) -> KeyOrder<'_> {
        (matches!(self.at, At::Long(..)), &self.key)
    }

    fn enter_page(&mut self, index: usize, start: Option<&[u8]>) -> Result<(), RunError> {
        if index >= self.run.separators().len() {
            self.at = At::Long(self.run.long_keys(self.uses)?, 0);
            return Ok(());
        }
        let page_no = self.run.separators().page_no(index);
        let payload = self.run.page(PageKind::Keys, page_no, self.uses)?;
        let opened = KeyPage::new(payload).and_then(|mut page| {
            if let Some(start) = start {
                page.seek(start)?;
            }
            Ok(page)
        });
        let page = opened.map_err(|error| self.run.damaged(page_no, error))?;
        self.at = At::Page(index, page_no, page);
        Ok(())
    }

    /// Moves to the next key with the prefix.
    pub fn advance(&mut self) -> Result<(), RunError> {
        self.entry = None;
        loop {
            match &mut self.at {
                At::End => return Ok(()),
                At::Before(index) => {
                    let index = *index;
                    self.enter_page(index, None)?;
                }
                At::Page(index, page_no, page) => {
                    let taken = take_from_page(page, *page_no, &self.prefix);
                    match taken.map_err(|error| self.run.damaged(*page_no, error))? {
                        Taken::Entry(entry) => {
                            self.key.clear();
                            self.key.extend_from_slice(page.key());
                            self.entry = Some(entry);
                            return Ok(());
                        }
                        Taken::Other => {}
                        Taken::PageEnd => self.at = At::Before(*index + 1),
                        Taken::PrefixEnd => {
                            self.at = At::Long(self.run.long_keys(self.uses)?, 0);
                        }
                    }
                }
                At::Long(keys, from) => {
                    let mut cursor = Cursor::new(keys.get(*from..).unwrap_or_default());
                    if cursor.rest().is_empty() {
                        self.at = At::End;
                        return Ok(());
                    }
                    let taken = take_long(&mut cursor, keys);
                    let (key, entry) = taken.map_err(|error| self.run.damaged_long(error))?;
                    *from = keys.len() - cursor.rest().len();
                    if key.starts_with(&self.prefix) {
                        self.key.clear();
                        self.key.extend_from_slice(key);
                        self.entry = Some(entry);
                        return Ok(());
                    }
                }
            }
        }
    }
}

enum Taken {
    Entry(SubjectEntry),
    /// An entry before the prefix.
    Other,
    PageEnd,
    PrefixEnd,
}

fn take_from_page(page: &mut KeyPage, page_no: u32, prefix: &[u8]) -> Result<Taken, FormatError> {
    let Some(value) = page.next_value()? else {
        return Ok(Taken::PageEnd);
    };
    if !page.key().starts_with(prefix) {
        return Ok(match page.key() < prefix {
            true => Taken::Other,
            false => Taken::PrefixEnd,
        });
    }
    let payload = page.payload();
    let bytes = payload.get(value).ok_or(FormatError::Truncated)?;
    SubjectEntry::decode(payload, bytes, page_no).map(Taken::Entry)
}

fn take_long<'a>(
    cursor: &mut Cursor<'a>,
    keys: &Bytes,
) -> Result<(&'a [u8], SubjectEntry), FormatError> {
    let (key, value) = decode_long(cursor)?;
    Ok((key, SubjectEntry::decode(keys, value, 0)?))
}
