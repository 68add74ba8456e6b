//! Reads from an index run.

use std::cell::Cell;
use std::io::ErrorKind;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::postings::SubjectEntry;
use super::separators::Separators;
use super::{RunError, RunManifest};
use crate::cache::{Cache, FileKey};
use crate::format::FormatError;
use crate::format::bloom::Bloom;
use crate::format::cipher::Opener;
use crate::format::cursor::Cursor;
use crate::format::file_header::FileKind;
use crate::format::footer::{self, Footer};
use crate::format::key_page::{
    KeyPage, PAGED_SUBJECT_BYTES_MAX, decode_key, decode_long, encode_key, key_hash,
};
use crate::format::key_ring::KeyId;
use crate::format::page::{self, PAGE_BYTES, PageKind};
use crate::ids::{SegmentId, StreamId};
use crate::io::{Env, IoFile};
use crate::segment::SegmentManifest;
use crate::subject::Filter;

/// Pages that opening reads at once.
const PAGES_PER_READ: u32 = 16;
/// Pages that a walk reads at once, at most.
const WALK_PAGES_MAX: u32 = 64;
/// Pages that a walk may leave out: to read them too costs less than another read.
const SKIPPED_PAGES_MAX: u32 = 8;

/// What a run must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunIdentity {
    /// The run of this segment.
    OfSegment(SegmentManifest),
    /// Exactly this file.
    Exactly(RunManifest),
}

impl RunIdentity {
    pub(super) fn file_no(&self) -> SegmentId {
        match self {
            RunIdentity::OfSegment(manifest) => manifest.id,
            RunIdentity::Exactly(manifest) => manifest.id,
        }
    }

    /// A run that is written when its segment is, or later, is encrypted if the segment is.
    fn key(&self) -> Option<KeyId> {
        match self {
            RunIdentity::OfSegment(manifest) => manifest.key,
            RunIdentity::Exactly(_) => None,
        }
    }
}

/// Whether a page that is read is kept for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It may be asked for again.
    Again,
    /// A walk over the whole file, which must not displace what others use.
    Once,
}

/// An open run. The filter and the first key of each page stay in memory; pages go through the
/// cache.
pub struct Run {
    env: Env,
    path: PathBuf,
    key: FileKey,
    opener: Opener,
    cache: Arc<Cache>,
    footer: Footer,
    separators: Separators,
    filter: Bloom,
    walk: Walk,
}

/// How far the last walk over pages came. Several walks at once share it and then read fewer pages
/// ahead; what they find does not depend on it.
#[derive(Debug, Default)]
struct Walk(AtomicU64);

impl Walk {
    /// Number of pages that a walk reads which goes on at `start`: more and more.
    fn pages_from(&self, start: u32) -> u32 {
        let state = self.0.load(Ordering::Relaxed);
        let (end, pages) = ((state >> 32) as u32, state as u32);
        let goes_on = start
            .checked_sub(end)
            .is_some_and(|skipped| skipped <= SKIPPED_PAGES_MAX);
        let pages = match goes_on {
            true => (2 * pages).clamp(1, WALK_PAGES_MAX),
            false => 1,
        };
        let state = u64::from(end) << 32 | u64::from(pages);
        self.0.store(state, Ordering::Relaxed);
        pages
    }

    fn was_read_to(&self, end: u32) {
        let pages = self.0.load(Ordering::Relaxed) as u32;
        let state = u64::from(end) << 32 | u64::from(pages);
        self.0.store(state, Ordering::Relaxed);
    }
}

/// A subject as runs know it, prepared once for all of them.
#[derive(Clone, Debug)]
pub struct SubjectKey {
    key: Vec<u8>,
    hash: u64,
    is_long: bool,
}

impl SubjectKey {
    /// The key of a subject of a stream.
    pub fn new(stream: StreamId, subject: &[u8]) -> SubjectKey {
        let mut key = Vec::with_capacity(8 + subject.len());
        encode_key(stream, subject, &mut key);
        SubjectKey {
            hash: key_hash(&key),
            is_long: subject.len() > PAGED_SUBJECT_BYTES_MAX,
            key,
        }
    }

    /// The key's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.key
    }

    /// True if it is not on a key page.
    pub(super) fn is_long(&self) -> bool {
        self.is_long
    }
}

/// A callback over entries, which are decoded on demand: key, decoder, whether to go on.
type Visitor<'v> = dyn FnMut(
        &[u8],
        &dyn Fn() -> Result<SubjectEntry, FormatError>,
    ) -> Result<ControlFlow<()>, FormatError>
    + 'v;

impl Run {
    /// Opens a run: reads the footer, the first key of each page and the filter.
    ///
    /// # Errors
    ///
    /// [`RunError::Missing`] and [`RunError::Damaged`]: it must be made anew.
    pub fn open(
        env: &Env,
        path: &Path,
        store_uuid: u128,
        wanted: &RunIdentity,
        cache: Arc<Cache>,
    ) -> Result<Run, RunError> {
        let file_no = wanted.file_no().0;
        let key = FileKey::new(FileKind::Index, file_no);
        let file = match cache.file(env, key, path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(RunError::Missing),
            Err(error) => return Err(RunError::io(path, error)),
        };
        let footer = read_footer(&*file, path, store_uuid, wanted)?;
        let mut run = Run {
            env: env.clone(),
            path: path.to_owned(),
            key,
            opener: env
                .opener(FileKind::Index, store_uuid, file_no)
                .of_key(wanted.key()),
            cache,
            footer,
            separators: Separators::default(),
            filter: Bloom::default(),
            walk: Walk::default(),
        };
        let mut separators = Separators::default();
        run.read_section(&*file, 1, PageKind::KeySeparators, &mut |payload| {
            separators.push_page(payload)
        })?;
        run.separators = separators;
        let mut filter = Bloom::default();
        run.read_section(&*file, 3, PageKind::Filter, &mut |payload| {
            filter.push_page(payload)
        })?;
        run.filter = filter;
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

    /// Bytes of the keys that are too long for key pages.
    pub fn long_key_bytes_max(&self) -> u64 {
        u64::from(self.footer.section_pages[2]) * PAGE_BYTES as u64
    }

    /// RAM held besides cached pages, in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.filter.ram_bytes() + self.separators.ram_bytes()
    }

    /// Pages of keys and postings.
    pub(super) fn data_pages(&self) -> u32 {
        self.footer.section_pages[0]
    }

    pub(super) fn separators(&self) -> &Separators {
        &self.separators
    }

    /// True if the filter says that the subject is absent.
    pub fn excludes(&self, subject: &SubjectKey) -> bool {
        !self.filter.maybe_contains(subject.hash)
    }

    /// What is known of one subject. Most absent ones cost no page.
    pub fn lookup(&self, subject: &SubjectKey) -> Result<Option<SubjectEntry>, RunError> {
        if self.excludes(subject) {
            return Ok(None);
        }
        let key = subject.bytes();
        let mut found = None;
        let mut take = |at: &[u8], entry: &dyn Fn() -> Result<SubjectEntry, FormatError>| {
            if at == key {
                found = Some(entry()?);
            }
            Ok(match at < key {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        };
        if subject.is_long {
            self.visit_long(&mut take)?;
        } else {
            // The key can only be on one page.
            self.seek(key, 1, &mut take)?;
        }
        Ok(found)
    }

    /// Visits the subjects of a stream that match: first those that fit key pages, then the longer
    /// ones, both in the order of [`compare_subjects`](super::compare_subjects).
    pub fn matching(
        &self,
        stream: StreamId,
        filter: &Filter,
        visit: &mut dyn FnMut(&[u8], SubjectEntry) -> ControlFlow<()>,
    ) -> Result<(), RunError> {
        if let Some(subject) = filter.literal() {
            if let Some(entry) = self.lookup(&SubjectKey::new(stream, subject))? {
                // One subject: there is nothing behind it to stop before.
                let _ = visit(subject, entry);
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
            let flow = visit(&subject, entry()?);
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

    /// The keys that are too long for key pages, as one stream of bytes.
    pub(super) fn long_keys(&self, uses: Use) -> Result<Bytes, RunError> {
        let start = self.footer.section_start(2);
        let mut joined = Vec::new();
        let end = start + self.footer.section_pages[2];
        for page_no in start..end {
            let page = self.page_of_walk(PageKind::LongKeys, page_no, page_no..end, uses)?;
            joined.extend_from_slice(&page);
        }
        Ok(Bytes::from(joined))
    }

    /// An error in the keys that are too long for key pages.
    pub(super) fn damaged_long(&self, error: FormatError) -> RunError {
        self.damaged(self.footer.section_start(2), error)
    }

    /// Visits the keys that are too long for key pages.
    fn visit_long(&self, visit: &mut Visitor<'_>) -> Result<(), RunError> {
        let start = self.footer.section_start(2);
        let joined = self.long_keys(Use::Again)?;
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

    /// Visits entries from the first key not below `start`, on at most `pages_max` pages; the
    /// visitor decodes an entry only if it needs it.
    fn seek(
        &self,
        start: &[u8],
        pages_max: usize,
        visit: &mut Visitor<'_>,
    ) -> Result<(), RunError> {
        let first = self.separators.page_of(start);
        let last = first.saturating_add(pages_max).min(self.separators.len());
        for index in first..last {
            let page_no = self.separators.page_no(index);
            let payload = match pages_max {
                1 => self.page(PageKind::Keys, page_no, Use::Again)?,
                _ => self.page_of_walk(PageKind::Keys, page_no, page_no..page_no, Use::Again)?,
            };
            match visit_page(payload, page_no, start, visit) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(error) => return Err(self.damaged(page_no, error)),
            }
        }
        Ok(())
    }

    /// The payload of a page, from the cache or from the file.
    pub(super) fn page(&self, kind: PageKind, page_no: u32, uses: Use) -> Result<Bytes, RunError> {
        match self.cache.page(self.key, kind, page_no) {
            Some(payload) => Ok(payload),
            None => self.read_pages(kind, page_no, page_no..page_no.saturating_add(1), uses),
        }
    }

    /// As [`Run::page`] where others will be asked for soon: those of `near` are read with it, and
    /// those behind it if the last read ended in front of it. What is used once is read by itself.
    pub(super) fn page_of_walk(
        &self,
        kind: PageKind,
        page_no: u32,
        near: Range<u32>,
        uses: Use,
    ) -> Result<Bytes, RunError> {
        if uses == Use::Once {
            return self.page(kind, page_no, uses);
        }
        if let Some(payload) = self.cache.page(self.key, kind, page_no) {
            return Ok(payload);
        }
        let pages_max = self.cache.pages_ahead_max().clamp(1, WALK_PAGES_MAX);
        let start = near.start.min(page_no);
        let start = start.max(page_no.saturating_sub(pages_max - 1));
        let further = self.walk.pages_from(start).min(pages_max);
        let further = start.saturating_add(further).min(self.data_pages());
        let end = further.max(near.end).min(start.saturating_add(pages_max));
        let end = end.max(page_no.saturating_add(1));
        self.walk.was_read_to(end);
        self.read_pages(kind, page_no, start..end, uses)
    }

    /// Reads the pages of `range`, which are of any kind, and returns one of them.
    fn read_pages(
        &self,
        kind: PageKind,
        page_no: u32,
        range: Range<u32>,
        uses: Use,
    ) -> Result<Bytes, RunError> {
        let file = match self.cache.file(&self.env, self.key, &self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(RunError::Missing),
            Err(error) => return Err(RunError::io(&self.path, error)),
        };
        let offset = self.footer.page_offset(range.start);
        let mut bytes = match file.read_vec_at(PAGE_BYTES * range.len(), offset) {
            Ok(bytes) => bytes,
            // Nobody asked for the others.
            Err(_) if range.len() > 1 => {
                return self.read_pages(kind, page_no, page_no..page_no.saturating_add(1), uses);
            }
            Err(error) => return Err(unreadable(&self.path, offset, &error)),
        };
        let mut wanted = Err(FormatError::Truncated);
        for (at, page) in range.zip(bytes.chunks_mut(PAGE_BYTES)) {
            // Each page is copied: a slice would keep all of them in memory.
            let decoded = page::decode_any(&self.opener, at, page)
                .map(|(found, payload)| (found, Bytes::copy_from_slice(payload)));
            if let Ok((found, payload)) = &decoded
                && uses == Use::Again
            {
                self.cache.put_page(self.key, *found, at, payload.clone());
            }
            if at == page_no {
                wanted = decoded;
            }
        }
        let payload = wanted.and_then(|(found, payload)| match found == kind {
            true => Ok(payload),
            false => Err(FormatError::UnknownKind {
                what: "page",
                found: found as u8,
            }),
        });
        payload.map_err(|error| self.damaged(page_no, error))
    }

    /// Reads all pages of a section past the cache: what they hold stays in memory.
    fn read_section(
        &self,
        file: &dyn IoFile,
        section: usize,
        kind: PageKind,
        take: &mut dyn FnMut(&[u8]) -> Result<(), FormatError>,
    ) -> Result<(), RunError> {
        let start = self.footer.section_start(section);
        let pages = self.footer.section_pages[section];
        let mut bytes = vec![0_u8; PAGE_BYTES * PAGES_PER_READ.min(pages) as usize];
        for index in (0..pages).step_by(PAGES_PER_READ as usize) {
            let first = start + index;
            let offset = self.footer.page_offset(first);
            let wanted = PAGE_BYTES * PAGES_PER_READ.min(pages - index) as usize;
            let read = file
                .read_at(&mut bytes[..wanted], offset)
                .map_err(|error| unreadable(&self.path, offset, &error))?;
            let mut rest = &mut bytes[..read];
            for page_no in first..first + PAGES_PER_READ.min(pages - index) {
                let (page, behind) = rest.split_at_mut(PAGE_BYTES.min(rest.len()));
                rest = behind;
                page::decode(&self.opener, kind, page_no, page)
                    .and_then(&mut *take)
                    .map_err(|error| self.damaged(page_no, error))?;
            }
        }
        Ok(())
    }

    pub(super) fn damaged(&self, page_no: u32, error: FormatError) -> RunError {
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
    payload: Bytes,
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
        let payload = page.payload();
        let bytes = payload.get(value).ok_or(FormatError::Truncated)?;
        let entry = || SubjectEntry::decode(payload, bytes, page_no);
        if visit(page.key(), &entry)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

pub(super) fn read_footer(
    file: &dyn IoFile,
    path: &Path,
    store_uuid: u128,
    wanted: &RunIdentity,
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
        wanted.file_no().0,
        file_bytes,
        &bytes[..read],
    )
    .map_err(|error| damaged(path, offset, &error))?;
    let digest = match (wanted, bytes.first_chunk::<{ footer::BYTES }>()) {
        (RunIdentity::OfSegment(segment), _) => (footer.source_digest, segment.footer_digest),
        (RunIdentity::Exactly(run), Some(bytes)) => (Footer::digest_of(bytes), run.footer_digest),
        (RunIdentity::Exactly(run), None) => (0, run.footer_digest),
    };
    let (stored, computed) = digest;
    if stored != computed {
        let error = FormatError::ChecksumMismatch {
            what: "what the index was made from",
            stored,
            computed,
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
