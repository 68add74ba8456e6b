//! Reads from an index run.

use std::cell::Cell;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::RunError;
use crate::cache::{Cache, FileKey};
use crate::format::FormatError;
use crate::format::cipher::Opener;
use crate::format::cursor::Cursor;
use crate::format::file_header::FileKind;
use crate::format::footer::{self, Footer};
use crate::format::key_page::{
    KeyPage, PAGED_SUBJECT_BYTES_MAX, Place, Value, decode_key, decode_long, decode_posting,
    encode_key,
};
use crate::format::page::{self, PAGE_BYTES, PageKind};
use crate::ids::{Seq, StreamId};
use crate::io::{Env, IoFile};
use crate::segment::SegmentManifest;
use crate::subject::Filter;

/// An open run. The first key of each page stays in memory; pages go through the cache.
pub struct Run {
    env: Env,
    path: PathBuf,
    key: FileKey,
    opener: Opener,
    cache: Arc<Cache>,
    footer: Footer,
    separators: Vec<Separator>,
}

/// What a run knows of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectEntry {
    /// Number of messages.
    pub count: u64,
    /// First sequence.
    pub first: Seq,
    /// Last sequence.
    pub last: Seq,
    /// Sum of the messages' accounted sizes.
    pub bytes: u64,
    place: Postings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Postings {
    One(u32),
    Inline {
        encoded: Bytes,
        page_no: u32,
    },
    Pages {
        page_no: u32,
        offset: u32,
        further: u32,
    },
}

/// A callback over entries, which are decoded on demand: key, decoder, whether to go on.
type Visitor<'v> = dyn FnMut(
        &[u8],
        &dyn Fn() -> Result<SubjectEntry, FormatError>,
    ) -> Result<ControlFlow<()>, FormatError>
    + 'v;
/// Number and first key of a key page.
type Separator = (u32, Box<[u8]>);

impl Run {
    /// Opens the run of a segment: reads the footer and the first key of each page.
    ///
    /// # Errors
    ///
    /// [`RunError::Missing`] and [`RunError::Damaged`] are mended by
    /// [`rebuild_run`](super::rebuild_run).
    pub fn open(
        env: &Env,
        path: &Path,
        store_uuid: u128,
        source: &SegmentManifest,
        cache: Arc<Cache>,
    ) -> Result<Run, RunError> {
        let key = FileKey::new(FileKind::Index, source.id.0);
        let file = match cache.file(env, key, path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(RunError::Missing),
            Err(error) => return Err(RunError::io(path, error)),
        };
        let footer = read_footer(&*file, path, store_uuid, source)?;
        let mut run = Run {
            env: env.clone(),
            path: path.to_owned(),
            key,
            opener: env.opener(FileKind::Index, store_uuid, source.id.0),
            cache,
            footer,
            separators: Vec::new(),
        };
        run.separators = run.read_separators()?;
        Ok(run)
    }

    /// Number of subjects, counted per stream.
    pub fn keys(&self) -> u64 {
        self.footer.items[0]
    }

    /// Number of messages.
    pub fn postings_count(&self) -> u64 {
        self.footer.items[1]
    }

    /// True if the run was rebuilt from a damaged segment: messages of its lost ranges are not in
    /// it. [`Segment::scan`](crate::segment::Segment::scan) names these ranges.
    pub fn is_partial(&self) -> bool {
        self.footer.items[2] > 0
    }

    /// What is known of one subject.
    pub fn lookup(
        &self,
        stream: StreamId,
        subject: &[u8],
    ) -> Result<Option<SubjectEntry>, RunError> {
        let mut key = Vec::with_capacity(8 + subject.len());
        encode_key(stream, subject, &mut key);
        let mut found = None;
        let mut take = |at: &[u8], entry: &dyn Fn() -> Result<SubjectEntry, FormatError>| {
            if at == key {
                found = Some(entry()?);
            }
            Ok(match at < &key[..] {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        };
        if subject.len() > PAGED_SUBJECT_BYTES_MAX {
            self.visit_long(&mut take)?;
        } else {
            // The key can only be on one page.
            self.seek(&key, 1, &mut take)?;
        }
        Ok(found)
    }

    /// Visits the subjects of a stream that match: first those that fit key pages, then the longer
    /// ones, both in the order of [`compare_subjects`](super::compare_subjects).
    pub fn matching(
        &self,
        stream: StreamId,
        filter: &Filter,
        visit: &mut dyn FnMut(&[u8], &SubjectEntry) -> ControlFlow<()>,
    ) -> Result<(), RunError> {
        if let Some(subject) = filter.literal() {
            if let Some(entry) = self.lookup(stream, subject)? {
                // One subject: there is nothing behind it to stop before.
                let _ = visit(subject, &entry);
            }
            return Ok(());
        }
        let mut prefix = Vec::new();
        encode_key(stream, filter.prefix(), &mut prefix);
        let mut subject = Vec::new();
        let stopped = Cell::new(false);
        let mut take = |key: &[u8], entry: &dyn Fn() -> Result<SubjectEntry, FormatError>| {
            if !key.starts_with(&prefix) {
                return Ok(match key < &prefix[..] {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                });
            }
            decode_key(key, &mut subject)?;
            if !filter.matches(&subject) {
                return Ok(ControlFlow::Continue(()));
            }
            let flow = visit(&subject, &entry()?);
            stopped.set(flow.is_break());
            Ok(flow)
        };
        self.seek(&prefix, usize::MAX, &mut take)?;
        if self.footer.section_pages[2] > 0 {
            // The visitor's own wish to stop reaches over the border; running out of keys does not.
            self.visit_long(&mut |key, entry| {
                if stopped.get() {
                    return Ok(ControlFlow::Break(()));
                }
                take(key, entry)
            })?;
        }
        Ok(())
    }

    /// Visits the keys that are too long for key pages.
    fn visit_long(&self, visit: &mut Visitor<'_>) -> Result<(), RunError> {
        let start = self.footer.section_start(2);
        let mut joined = Vec::new();
        for index in 0..self.footer.section_pages[2] {
            joined.extend_from_slice(&self.page(PageKind::LongKeys, start + index)?);
        }
        let joined = Bytes::from(joined);
        let mut cursor = Cursor::new(&joined);
        while !cursor.rest().is_empty() {
            let (key, value) =
                decode_long(&mut cursor).map_err(|error| self.damaged(start, error))?;
            let entry = || SubjectEntry::decode(&joined, value, start);
            match visit(key, &entry) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(error) => return Err(self.damaged(start, error)),
            }
        }
        Ok(())
    }

    /// Visits the sequences and sizes of a subject from `from` on, ascending.
    pub fn postings(
        &self,
        entry: &SubjectEntry,
        from: Seq,
        visit: &mut dyn FnMut(Seq, u32) -> ControlFlow<()>,
    ) -> Result<(), RunError> {
        let chunks = self.chunks(entry);
        // The last chunk that starts at or before `from`: later ones cannot hold anything earlier.
        let (mut low, mut high) = (0, chunks);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let starts_behind = match self.chunk(entry, middle)?.first() {
                Some((seq, _)) => *seq > from,
                None => true,
            };
            if starts_behind {
                high = middle;
            } else {
                low = middle;
            }
        }
        for index in low..chunks {
            for (seq, size) in self.chunk(entry, index)? {
                if seq >= from && visit(seq, size).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Visits the sequences and sizes of a subject up to and including `to`, descending.
    pub fn postings_rev(
        &self,
        entry: &SubjectEntry,
        to: Seq,
        visit: &mut dyn FnMut(Seq, u32) -> ControlFlow<()>,
    ) -> Result<(), RunError> {
        for index in (0..self.chunks(entry)).rev() {
            for (seq, size) in self.chunk(entry, index)?.into_iter().rev() {
                if seq <= to && visit(seq, size).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn chunks(&self, entry: &SubjectEntry) -> u32 {
        match entry.place {
            Postings::One(_) | Postings::Inline { .. } => 1,
            // Both numbers come from disk; pages end where the file does.
            Postings::Pages {
                page_no, further, ..
            } => {
                let pages = self.footer.section_pages[0];
                further.min(pages.saturating_sub(page_no)).saturating_add(1)
            }
        }
    }

    /// Decodes part `index` of a posting list.
    fn chunk(&self, entry: &SubjectEntry, index: u32) -> Result<Vec<(Seq, u32)>, RunError> {
        match &entry.place {
            Postings::One(size) => Ok(vec![(entry.first, *size)]),
            Postings::Inline { encoded, page_no } => {
                decode_list(Cursor::new(encoded), entry.first, entry.count)
                    .map_err(|error| self.damaged(*page_no, error))
            }
            Postings::Pages {
                page_no, offset, ..
            } => {
                let page_no = page_no.saturating_add(index);
                let offset = if index == 0 { *offset as usize } else { 0 };
                let payload = self.page(PageKind::Postings, page_no)?;
                let chunk = payload.get(offset..).unwrap_or_default();
                let mut cursor = Cursor::new(chunk);
                cursor
                    .varint()
                    .and_then(|count| decode_list(cursor, Seq(0), count))
                    .map_err(|error| self.damaged(page_no, error))
            }
        }
    }

    /// Visits entries from the first key not below `start`, on at most `pages_max` pages; the visitor decodes an entry only if
    /// it needs it.
    fn seek(
        &self,
        start: &[u8],
        pages_max: usize,
        visit: &mut Visitor<'_>,
    ) -> Result<(), RunError> {
        let first = self
            .separators
            .partition_point(|(_, key)| &**key <= start)
            .saturating_sub(1);
        let pages = self.separators.iter().skip(first).take(pages_max);
        for (page_no, _) in pages {
            let payload = self.page(PageKind::Keys, *page_no)?;
            match visit_page(&payload, *page_no, start, visit) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(error) => return Err(self.damaged(*page_no, error)),
            }
        }
        Ok(())
    }

    fn page(&self, kind: PageKind, page_no: u32) -> Result<Bytes, RunError> {
        if let Some(payload) = self.cache.page(self.key, page_no) {
            return Ok(payload);
        }
        let file = match self.cache.file(&self.env, self.key, &self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(RunError::Missing),
            Err(error) => return Err(RunError::io(&self.path, error)),
        };
        let mut bytes = vec![0_u8; PAGE_BYTES];
        let offset = self.footer.page_offset(page_no);
        let read = file
            .read_at(&mut bytes, offset)
            .map_err(|error| unreadable(&self.path, offset, &error))?;
        let len = page::decode(&self.opener, kind, page_no, &mut bytes[..read])
            .map_err(|error| self.damaged(page_no, error))?
            .len();
        let payload = Bytes::from(bytes).slice(page::HEAD_BYTES..page::HEAD_BYTES + len);
        self.cache.put_page(self.key, page_no, payload.clone());
        Ok(payload)
    }

    fn read_separators(&self) -> Result<Vec<Separator>, RunError> {
        let mut separators = Vec::new();
        let start = self.footer.section_start(1);
        for index in 0..self.footer.section_pages[1] {
            let payload = self.page(PageKind::KeySeparators, start + index)?;
            let mut cursor = Cursor::new(&payload);
            while !cursor.rest().is_empty() {
                let (page_no, key) = take_separator(&mut cursor)
                    .map_err(|error| self.damaged(start + index, error))?;
                separators.push((page_no, key.into()));
            }
        }
        Ok(separators)
    }

    fn damaged(&self, page_no: u32, error: FormatError) -> RunError {
        damaged(&self.path, self.footer.page_offset(page_no), &error)
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("path", &self.path)
            .field("keys", &self.keys())
            .finish_non_exhaustive()
    }
}

fn visit_page(
    payload: &Bytes,
    page_no: u32,
    start: &[u8],
    visit: &mut Visitor<'_>,
) -> Result<ControlFlow<()>, FormatError> {
    let mut page = KeyPage::new(payload)?;
    page.seek(start)?;
    while let Some(value) = page.next_value()? {
        if page.key() < start {
            continue;
        }
        let bytes = payload.get(value).ok_or(FormatError::Truncated)?;
        let entry = || SubjectEntry::decode(payload, bytes, page_no);
        if visit(page.key(), &entry)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

impl SubjectEntry {
    /// Decodes a value that is part of `payload`.
    fn decode(payload: &Bytes, value: &[u8], page_no: u32) -> Result<SubjectEntry, FormatError> {
        let value = Value::decode(value)?;
        Ok(SubjectEntry {
            count: value.count,
            first: value.first,
            last: value.last,
            bytes: value.bytes,
            place: match value.place {
                Place::One(size) => Postings::One(size),
                Place::Inline(encoded) => Postings::Inline {
                    encoded: payload.slice_ref(encoded),
                    page_no,
                },
                Place::Pages {
                    page_no,
                    offset,
                    further,
                } => Postings::Pages {
                    page_no,
                    offset,
                    further,
                },
            },
        })
    }
}

fn read_footer(
    file: &dyn IoFile,
    path: &Path,
    store_uuid: u128,
    source: &SegmentManifest,
) -> Result<Footer, RunError> {
    let file_bytes = file.len().map_err(|error| RunError::io(path, error))?;
    let offset = file_bytes.saturating_sub(footer::BYTES as u64);
    let mut bytes = [0_u8; footer::BYTES];
    let read = file
        .read_at(&mut bytes, offset)
        .map_err(|error| unreadable(path, offset, &error))?;
    let footer = Footer::decode(
        FileKind::Index,
        store_uuid,
        source.id.0,
        file_bytes,
        &bytes[..read],
    )
    .map_err(|error| damaged(path, offset, &error))?;
    if footer.source_digest != source.footer_digest {
        let error = FormatError::ChecksumMismatch {
            what: "segment that the index was made from",
            stored: footer.source_digest,
            computed: source.footer_digest,
        };
        return Err(damaged(path, offset, &error));
    }
    Ok(footer)
}

fn damaged(path: &Path, offset: u64, error: &FormatError) -> RunError {
    RunError::Damaged {
        file: path.to_owned(),
        offset,
        reason: error.to_string(),
    }
}

/// A place that the device cannot read is as good as damaged: a run made anew is a new file.
fn unreadable(path: &Path, offset: u64, error: &std::io::Error) -> RunError {
    RunError::Damaged {
        file: path.to_owned(),
        offset,
        reason: format!("cannot be read: {error}"),
    }
}

fn take_separator<'a>(cursor: &mut Cursor<'a>) -> Result<(u32, &'a [u8]), FormatError> {
    let page_no = u32::try_from(cursor.varint()?).map_err(|_| FormatError::OutOfRange {
        what: "page number",
    })?;
    Ok((page_no, cursor.sized_bytes()?))
}

/// Decodes `count` postings. A posting takes at least two bytes, so the count is bounded by the
/// bytes at hand before anything is allocated.
fn decode_list(
    mut cursor: Cursor<'_>,
    from: Seq,
    count: u64,
) -> Result<Vec<(Seq, u32)>, FormatError> {
    if count > cursor.rest().len() as u64 / 2 {
        return Err(FormatError::Truncated);
    }
    let mut list = Vec::with_capacity(count as usize);
    let mut last = from;
    for _ in 0..count {
        let posting = decode_posting(&mut cursor, last)?;
        last = posting.0;
        list.push(posting);
    }
    Ok(list)
}
