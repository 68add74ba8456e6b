//! Reads a file of message ids.
//!
//! Where the pages are follows from the manifest, so that neither header nor footer is needed for an
//! answer. The hashes are spread evenly: where one is can be computed to within a few pages, and from
//! the first page read to within one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::writer::{filter_key, page_offset};
use crate::cache::{Cache, FileKey};
use crate::error::{DamagedIds, ReadError};
use crate::format::FormatError;
use crate::format::bloom::Bloom;
use crate::format::cipher::Opener;
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::format::footer::{self, Footer};
use crate::format::id_page::{ENTRY_BYTES, IdEntry, IdPage, PAGE_ENTRIES};
use crate::format::key_ring::KeyId;
use crate::format::page::{self, PAGE_BYTES, PageKind};
use crate::ids::{IdFileId, TimestampNs};
use crate::io::{Env, IoFile};

/// Guesses from the hash before a search halves what is left.
const GUESSES: u32 = 6;
/// Unreadable pages that a search steps over on each side before it gives up.
const STEPS_OVER: u32 = 4;
/// Pages that a pass over the whole file reads at once.
const PAGES_AT_ONCE: u32 = 32;

/// What the metadata knows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdManifest {
    pub id: IdFileId,
    pub file_bytes: u64,
    pub footer_digest: u64,
    /// The key that the file is encrypted with.
    pub key: Option<KeyId>,
    pub entries: u64,
    /// Times of the first and last id admitted.
    pub oldest: TimestampNs,
    pub youngest: TimestampNs,
    /// When the last of the ids expires.
    pub expires: TimestampNs,
}

impl IdManifest {
    /// Whether a file of this length has a page for every id.
    pub fn holds_its_entries(&self) -> bool {
        let overhead = (file_header::BYTES + footer::BYTES) as u64;
        let pages = self.file_bytes.checked_sub(overhead);
        pages.is_some_and(|bytes| {
            let pages = bytes / PAGE_BYTES as u64;
            bytes.is_multiple_of(PAGE_BYTES as u64)
                && pages <= u64::from(u32::MAX)
                && (1..=pages).contains(&self.entries.div_ceil(PAGE_ENTRIES as u64))
        })
    }
}

/// A sealed file of ids; nothing is read before its first use.
pub(crate) struct IdFile {
    env: Env,
    path: PathBuf,
    store_uuid: u128,
    manifest: IdManifest,
    key: FileKey,
    opener: Opener,
    cache: Arc<Cache>,
    id_pages: u32,
    filter_pages: u32,
    filter: OnceLock<Bloom>,
    /// Serialises loading of the filter; protects nothing else.
    loading: Mutex<()>,
    /// As in the manifest, or later when a window was made longer.
    expires: AtomicI64,
    /// The metadata has an earlier time.
    expires_unsaved: AtomicBool,
    /// A pass could not read a page: the file is left as it is until it has expired.
    damaged: AtomicBool,
}

impl IdFile {
    /// The file at `path`. `filter` saves reading it.
    pub fn new(
        env: &Env,
        path: &Path,
        store_uuid: u128,
        manifest: IdManifest,
        cache: Arc<Cache>,
        filter: Option<Bloom>,
    ) -> IdFile {
        let overhead = (file_header::BYTES + footer::BYTES) as u64;
        let pages = manifest.file_bytes.saturating_sub(overhead) / PAGE_BYTES as u64;
        let id_pages = manifest.entries.div_ceil(PAGE_ENTRIES as u64).min(pages);
        let number = |pages: u64| u32::try_from(pages).unwrap_or(u32::MAX);
        IdFile {
            env: env.clone(),
            path: path.to_owned(),
            store_uuid,
            manifest,
            key: IdFile::key_of(manifest.id),
            opener: env
                .opener(FileKind::Ids, store_uuid, manifest.id.0)
                .of_key(manifest.key),
            cache,
            id_pages: number(id_pages),
            filter_pages: number(pages - id_pages),
            filter: filter.map(OnceLock::from).unwrap_or_default(),
            loading: Mutex::default(),
            expires: AtomicI64::new(manifest.expires.0),
            expires_unsaved: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        }
    }

    pub fn id(&self) -> IdFileId {
        self.manifest.id
    }

    /// What the cache knows the file as.
    pub fn key_of(id: IdFileId) -> FileKey {
        FileKey::new(FileKind::Ids, id.0)
    }

    /// The key that the file is encrypted with.
    pub fn key_id(&self) -> Option<KeyId> {
        self.manifest.key
    }

    pub fn entries(&self) -> u64 {
        self.manifest.entries
    }

    /// The manifest with the present time of expiry.
    pub fn manifest(&self) -> IdManifest {
        IdManifest {
            expires: self.expires(),
            ..self.manifest
        }
    }

    /// When the last of the ids expires.
    pub fn expires(&self) -> TimestampNs {
        TimestampNs(self.expires.load(Ordering::Acquire))
    }

    /// Some window was made longer by `grown_ns`.
    pub fn extend(&self, grown_ns: u64) {
        let grown = i64::try_from(grown_ns).unwrap_or(i64::MAX);
        let later = |at: i64| Some(at.saturating_add(grown));
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        if self.expires.fetch_update(set, fetch, later).is_ok() {
            self.expires_unsaved.store(true, Ordering::Release);
        }
    }

    /// Whether the metadata is to be told of a later expiry; resets the mark.
    pub fn take_unsaved(&self) -> bool {
        self.expires_unsaved.swap(false, Ordering::AcqRel)
    }

    /// Sets the mark again: the metadata was not told.
    pub fn mark_unsaved(&self) {
        self.expires_unsaved.store(true, Ordering::Release);
    }

    /// True once a pass over the file could not read a page.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// RAM of the filter, in bytes.
    #[cfg(test)]
    pub fn filter_ram_bytes(&self) -> u64 {
        self.filter.get().map_or(0, Bloom::ram_bytes)
    }

    /// Whether the id may be in the file; `None` when its filter is not loaded.
    pub fn maybe_contains(&self, hash: u128) -> Option<bool> {
        let filter = self.filter.get()?;
        Some(filter.maybe_contains(filter_key(hash)))
    }

    /// Finds an id. Loads the filter if it is not there.
    ///
    /// # Errors
    ///
    /// If the id may be in the file but its page cannot be read.
    pub fn find(&self, hash: u128) -> Result<Option<IdEntry>, ReadError> {
        let filter = self.load_filter()?;
        if !filter.maybe_contains(filter_key(hash)) {
            return Ok(None);
        }
        self.search(hash)
    }

    pub(super) fn search(&self, hash: u128) -> Result<Option<IdEntry>, ReadError> {
        // The pages that can hold the hash, and the hashes that bound them.
        let mut pages = (0, self.id_pages);
        let mut bounds = (0, u128::MAX);
        for round in 0.. {
            if pages.0 >= pages.1 {
                break;
            }
            let guess = match round < GUESSES {
                true => interpolate(pages, bounds, hash),
                false => pages.0 + (pages.1 - pages.0) / 2,
            };
            let (at, payload) = match self.page(guess) {
                Ok(payload) => (guess, payload),
                Err(error) => self.beside(guess, pages, hash, error)?,
            };
            let page = IdPage::decode(&payload).map_err(|error| self.corrupt(at, error))?;
            let Some((first, last)) = page.range() else {
                break;
            };
            if hash < first {
                (pages.1, bounds.1) = (at, first);
            } else if hash > last {
                (pages.0, bounds.0) = (at + 1, last);
            } else {
                return Ok(page.find(hash));
            }
        }
        Ok(None)
    }

    /// Page `bad` cannot be read: a readable page near it which shows that the hash is not there, or
    /// `error`.
    fn beside(
        &self,
        bad: u32,
        pages: (u32, u32),
        hash: u128,
        error: ReadError,
    ) -> Result<(u32, Bytes), ReadError> {
        let behind = (bad + 1)..pages.1.min(bad + 1 + STEPS_OVER);
        let before = (pages.0.max(bad.saturating_sub(STEPS_OVER))..bad).rev();
        for (at, is_behind) in behind
            .map(|at| (at, true))
            .chain(before.map(|at| (at, false)))
        {
            let Ok(payload) = self.page(at) else {
                continue;
            };
            let Ok(Some((first, last))) = IdPage::decode(&payload).map(|page| page.range()) else {
                continue;
            };
            if (is_behind && hash >= first) || (!is_behind && hash <= last) {
                return Ok((at, payload));
            }
        }
        Err(error)
    }

    /// The checked payload of a page of ids.
    fn page(&self, page_no: u32) -> Result<Bytes, ReadError> {
        if let Some(payload) = self.cache.page(self.key, PageKind::Ids, page_no) {
            return Ok(payload);
        }
        let mut bytes = vec![0; PAGE_BYTES];
        self.read_pages(&*self.open()?, page_no, &mut bytes)?;
        let len = self.checked(PageKind::Ids, page_no, &mut bytes)?.len();
        let payload = Bytes::from(bytes).slice(page::HEAD_BYTES..page::HEAD_BYTES + len);
        self.cache
            .put_page(self.key, PageKind::Ids, page_no, payload.clone());
        Ok(payload)
    }

    fn checked<'a>(
        &self,
        kind: PageKind,
        page_no: u32,
        bytes: &'a mut [u8],
    ) -> Result<&'a [u8], ReadError> {
        let payload = page::decode(&self.opener, kind, page_no, bytes);
        let payload = payload.map_err(|error| self.corrupt(page_no, error))?;
        if kind == PageKind::Ids {
            let page = IdPage::decode(payload).map_err(|error| self.corrupt(page_no, error))?;
            let before = u64::from(page_no) * PAGE_ENTRIES as u64;
            let expected = self
                .manifest
                .entries
                .saturating_sub(before)
                .min(PAGE_ENTRIES as u64);
            if page.iter().len() as u64 != expected {
                let what = "number of message ids";
                return Err(self.corrupt(page_no, FormatError::OutOfRange { what }));
            }
        }
        Ok(payload)
    }

    /// Reads whole pages from `page_no` on.
    fn read_pages(
        &self,
        file: &dyn IoFile,
        page_no: u32,
        bytes: &mut [u8],
    ) -> Result<(), ReadError> {
        match file.read_exact_at(bytes, page_offset(page_no)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(self.corrupt(page_no, FormatError::Truncated))
            }
            Err(error) => Err(ReadError::io(&self.path, error)),
        }
    }

    fn open(&self) -> Result<Arc<dyn IoFile>, ReadError> {
        let file = self.cache.file(&self.env, self.key, &self.path);
        file.map_err(|error| ReadError::io(&self.path, error))
    }

    fn corrupt(&self, page_no: u32, error: FormatError) -> ReadError {
        ReadError::DamagedIds(Box::new(DamagedIds {
            file: self.path.clone(),
            offset: page_offset(page_no),
            reason: error.to_string(),
        }))
    }

    /// The filter; read if it is not loaded, made anew if it is damaged.
    ///
    /// # Errors
    ///
    /// Only [`ReadError::Io`].
    fn load_filter(&self) -> Result<&Bloom, ReadError> {
        if let Some(filter) = self.filter.get() {
            return Ok(filter);
        }
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = self.filter.get() {
            return Ok(filter);
        }
        let filter = match self.read_filter() {
            Err(error @ ReadError::DamagedIds(_)) => {
                tracing::warn!(%error, "making the filter of message ids anew");
                self.rebuild_filter()?
            }
            other => other?,
        };
        Ok(self.filter.get_or_init(|| filter))
    }

    fn read_filter(&self) -> Result<Bloom, ReadError> {
        let file = self.open()?;
        let mut filter = Bloom::default();
        let end = self.id_pages + self.filter_pages;
        let mut bytes = Vec::new();
        let mut page_no = self.id_pages;
        while page_no < end {
            let count = (end - page_no).min(PAGES_AT_ONCE);
            bytes.resize(count as usize * PAGE_BYTES, 0);
            self.read_pages(&*file, page_no, &mut bytes)?;
            for page in bytes.chunks_mut(PAGE_BYTES) {
                let payload = self.checked(PageKind::Filter, page_no, page)?;
                let pushed = filter.push_page(payload);
                pushed.map_err(|error| self.corrupt(page_no, error))?;
                page_no += 1;
            }
        }
        Ok(filter)
    }

    /// Without all ids a filter would exclude some of them: then there is none.
    fn rebuild_filter(&self) -> Result<Bloom, ReadError> {
        let file = self.open()?;
        let mut filter = Bloom::with_capacity(self.manifest.entries);
        for page_no in 0..self.id_pages {
            let mut bytes = vec![0; PAGE_BYTES];
            let read = self.read_pages(&*file, page_no, &mut bytes);
            match read.and_then(|()| self.checked(PageKind::Ids, page_no, &mut bytes)) {
                Ok(payload) => {
                    let page = IdPage::decode(payload);
                    let page = page.map_err(|error| self.corrupt(page_no, error))?;
                    page.iter()
                        .for_each(|entry| filter.insert(filter_key(entry.hash)));
                }
                Err(error @ ReadError::DamagedIds(_)) => {
                    tracing::error!(%error, "publishes whose id may be there are refused");
                    return Ok(Bloom::default());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(filter)
    }

    /// All ids in order of their hashes, past the cache.
    pub fn cursor(self: &Arc<IdFile>) -> Result<IdCursor, ReadError> {
        Ok(IdCursor {
            handle: self.open()?,
            file: self.clone(),
            next_page: 0,
            entries: Vec::new().into_iter(),
        })
    }

    /// Reads and checks the whole file, past the cache. `paced` is called with the bytes read after
    /// each step and may wait.
    ///
    /// # Errors
    ///
    /// Only [`ReadError::Io`]; damage is in the report.
    pub fn verify(&self, paced: &mut dyn FnMut(u64)) -> Result<IdFileReport, ReadError> {
        let mut report = IdFileReport::default();
        let file = self.open()?;
        self.verify_ends(&*file, &mut report)?;
        let mut bytes = vec![0; PAGE_BYTES];
        for page_no in 0..self.id_pages + self.filter_pages {
            let is_filter = page_no >= self.id_pages;
            let kind = match is_filter {
                true => PageKind::Filter,
                false => PageKind::Ids,
            };
            let read = self.read_pages(&*file, page_no, &mut bytes);
            match read.and_then(|()| self.checked(kind, page_no, &mut bytes)) {
                Ok(_) if is_filter => {}
                Ok(payload) => report.ids += (payload.len() / ENTRY_BYTES) as u64,
                Err(ReadError::DamagedIds(damage)) if is_filter => {
                    report.harmless.push((damage.offset, damage.reason));
                }
                Err(ReadError::DamagedIds(damage)) => report.lost.push(*damage),
                Err(error) => return Err(error),
            }
            report.bytes += PAGE_BYTES as u64;
            paced(PAGE_BYTES as u64);
        }
        Ok(report)
    }

    /// Header and footer only repeat what the metadata says.
    fn verify_ends(&self, file: &dyn IoFile, report: &mut IdFileReport) -> Result<(), ReadError> {
        let read = |bytes: &mut [u8], offset| {
            let read = file.read_at(bytes, offset);
            read.map_err(|error| ReadError::io(&self.path, error))
        };
        let mut header = [0; file_header::BYTES];
        let len = read(&mut header, 0)?;
        report.bytes += len as u64;
        match FileHeader::decode(&header[..len]) {
            Ok(h)
                if h.kind == FileKind::Ids
                    && h.file_no == self.manifest.id.0
                    && h.store_uuid == self.store_uuid => {}
            Ok(_) => report
                .harmless
                .push((0, "the header names another file".into())),
            Err(error) => report.harmless.push((0, error.to_string())),
        }
        let mut footer = [0; footer::BYTES];
        let file_bytes = self.manifest.file_bytes;
        let offset = file_bytes.saturating_sub(footer::BYTES as u64);
        let len = read(&mut footer, offset)?;
        report.bytes += len as u64;
        let id = self.manifest.id.0;
        let decoded = Footer::decode(
            FileKind::Ids,
            self.store_uuid,
            id,
            file_bytes,
            &footer[..len],
        );
        match decoded {
            Ok(_) if Footer::digest_of(&footer) == self.manifest.footer_digest => {}
            Ok(_) => report
                .harmless
                .push((offset, "the metadata names another footer".into())),
            Err(error) => report.harmless.push((offset, error.to_string())),
        }
        Ok(())
    }
}

impl std::fmt::Debug for IdFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdFile")
            .field("path", &self.path)
            .field("entries", &self.manifest.entries)
            .finish_non_exhaustive()
    }
}

/// Result of [`IdFile::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IdFileReport {
    /// Bytes that were read and checked.
    pub bytes: u64,
    /// Ids that are readable.
    pub ids: u64,
    /// Pages whose ids are lost.
    pub lost: Vec<DamagedIds>,
    /// Damage that costs no id: offset and what was found.
    pub harmless: Vec<(u64, String)>,
}

/// A pass over a file, which stays open meanwhile.
pub(crate) struct IdCursor {
    handle: Arc<dyn IoFile>,
    file: Arc<IdFile>,
    next_page: u32,
    entries: std::vec::IntoIter<IdEntry>,
}

impl IdCursor {
    /// The next id; `None` at the end.
    ///
    /// # Errors
    ///
    /// A page that cannot be read is reported once; the pass then goes on behind it.
    pub fn next(&mut self) -> Result<Option<IdEntry>, ReadError> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Ok(Some(entry));
            }
            if self.next_page >= self.file.id_pages {
                return Ok(None);
            }
            if let Err(error) = self.fill() {
                self.file.damaged.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    }

    fn fill(&mut self) -> Result<(), ReadError> {
        let (file, handle) = (&self.file, &*self.handle);
        let count = (file.id_pages - self.next_page).min(PAGES_AT_ONCE);
        let mut bytes = vec![0; count as usize * PAGE_BYTES];
        let mut entries = Vec::with_capacity(count as usize * PAGE_ENTRIES);
        if let Err(error) = file.read_pages(handle, self.next_page, &mut bytes) {
            // One page at a time, so that one is lost at most.
            bytes.resize(PAGE_BYTES, 0);
            if file.read_pages(handle, self.next_page, &mut bytes).is_err() {
                self.next_page += 1;
                return Err(error);
            }
        }
        for page in bytes.chunks_mut(PAGE_BYTES) {
            let page_no = self.next_page;
            let checked = file.checked(PageKind::Ids, page_no, page);
            if checked.is_err() && !entries.is_empty() {
                // Reported when it is the first of what is read.
                break;
            }
            self.next_page += 1;
            let decoded = IdPage::decode(checked?);
            entries.extend(decoded.map_err(|e| file.corrupt(page_no, e))?.iter());
        }
        self.entries = entries.into_iter();
        Ok(())
    }
}

/// The page in `pages` where a hash stands if hashes are spread evenly between `bounds`.
fn interpolate(pages: (u32, u32), bounds: (u128, u128), hash: u128) -> u32 {
    let count = u128::from(pages.1 - pages.0);
    let high = |number: u128| number >> 64;
    let span = high(bounds.1.saturating_sub(bounds.0)).max(1);
    let offset = high(hash.saturating_sub(bounds.0));
    let guess = (offset * count / span).min(count - 1);
    // Below the number of pages.
    pages.0 + guess as u32
}
