//! Finding blocks: the table as it is in memory, its pages, and what happens when they are damaged.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::reader::Segment;
use super::rebuild;
use super::table::{Pages, SEQ_UNKNOWN_END, Table};
use super::{ExtentInfo, SegmentManifest};
use crate::error::ReadError;
use crate::format::FormatError;
use crate::format::block_table::{BlockRef, Entry, Separator};
use crate::format::file_header::FileKind;
use crate::format::footer::{self, Footer};
use crate::format::page::{self, PAGE_BYTES, PageKind};
use crate::ids::{Seq, StreamId, TimestampNs};
use crate::io::IoFile;

/// Names the check that fails for a valid footer that is not the one the metadata log knows.
const SEALED_FOOTER: &str = "footer of the sealed file";

/// A file that remembers a read that the system failed.
struct Watched {
    file: Arc<dyn IoFile>,
    failure: Mutex<Option<io::Error>>,
}

impl Watched {
    fn new(file: Arc<dyn IoFile>) -> Watched {
        Watched {
            file,
            failure: Mutex::new(None),
        }
    }

    fn failure(self) -> Option<io::Error> {
        self.failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl IoFile for Watched {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(buf, offset);
        if let Err(error) = &read {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            *failure = Some(io::Error::new(error.kind(), error.to_string()));
        }
        read
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn drop_cache(&self) {
        self.file.drop_cache();
    }
}

/// Why the block table gave no answer.
pub(super) enum Miss {
    /// A table page is unreadable.
    TableDamaged(FormatError),
    /// The answer is a damage report or a system error.
    Failed(ReadError),
}

impl Segment {
    /// Finds the block that covers `seq`; with `or_after` else the first one behind it.
    pub(super) fn locate(
        &self,
        table: &Table,
        stream: StreamId,
        seq: Seq,
        or_after: bool,
    ) -> Result<Option<BlockRef>, Miss> {
        let mut next_page = 0;
        let mut before = None;
        let mut after = None;
        if let Some(page) = table.page_of(stream, seq) {
            let payload = self.entries(table, page)?;
            let at =
                BlockRef::partition_point(&payload, |b| (b.stream, b.first_seq) <= (stream, seq));
            before = at.checked_sub(1).and_then(|at| BlockRef::at(&payload, at));
            after = BlockRef::at(&payload, at);
            next_page = page + 1;
        }
        if let Some(found) = before.filter(|b| b.stream == stream && b.last_seq >= seq) {
            return Ok(Some(found));
        }
        if after.is_none() {
            after = self.first_of_page(table, next_page, stream)?;
        }
        let after = after.filter(|b| b.stream == stream);
        let end = match after {
            Some(after) if or_after => after.first_seq,
            None if or_after => Seq(u64::MAX),
            _ => Seq(seq.0.saturating_add(1)),
        };
        if let Some(hole) = table.hole(stream, seq, end) {
            return Err(self.corrupt(self.hole_report(hole)));
        }
        if let Some((offset, reason)) = &table.unknown
            && seq <= SEQ_UNKNOWN_END
            && after.is_none()
            && before.is_none_or(|b| b.stream != stream)
            && table.hole(stream, Seq(0), Seq(u64::MAX)).is_none()
        {
            return Err(self.corrupt(self.unknown_report(stream, *offset, reason)));
        }
        Ok(after.filter(|_| or_after))
    }

    /// First sequence of the first block with a message at or after `ts`.
    pub(super) fn locate_time(
        &self,
        table: &Table,
        stream: StreamId,
        ts: TimestampNs,
    ) -> Result<Option<Seq>, Miss> {
        let mut next_page = 0;
        let mut before = None;
        let mut after = None;
        if let Some(page) = table.page_before_time(stream, ts) {
            let payload = self.entries(table, page)?;
            let at = BlockRef::partition_point(&payload, |b| {
                b.stream < stream || (b.stream == stream && b.max_ts < ts)
            });
            before = at.checked_sub(1).and_then(|at| BlockRef::at(&payload, at));
            after = BlockRef::at(&payload, at);
            next_page = page + 1;
        }
        if after.is_none() {
            after = self.first_of_page(table, next_page, stream)?;
        }
        let before = before.filter(|b| b.stream == stream);
        let after = after.filter(|b| b.stream == stream);
        let start = before.map_or(Seq(0), |b| Seq(b.last_seq.0.saturating_add(1)));
        let end = after.map_or(Seq(u64::MAX), |b| b.first_seq);
        if let Some(hole) = table.hole(stream, start, end) {
            return Err(self.corrupt(self.hole_report(hole)));
        }
        if after.is_none() && before.is_none() {
            // Says whether the stream is absent or unknown.
            self.locate(table, stream, Seq(0), true)?;
        }
        Ok(after.map(|b| b.first_seq))
    }

    /// The first entry of a page, read only if the page starts with `stream`.
    fn first_of_page(
        &self,
        table: &Table,
        page: usize,
        stream: StreamId,
    ) -> Result<Option<BlockRef>, Miss> {
        match table.separators.get(page) {
            Some(separator) if separator.stream == stream => {
                Ok(BlockRef::at(&self.entries(table, page)?, 0))
            }
            _ => Ok(None),
        }
    }

    /// The entries of table page `page`.
    pub(super) fn entries(&self, table: &Table, page: usize) -> Result<Bytes, Miss> {
        match &table.pages {
            Pages::Memory(pages) => Ok(pages.get(page).cloned().unwrap_or_default()),
            Pages::File(footer) => {
                let page_no = footer.section_start(0) + page as u32;
                self.page(footer, PageKind::Table, page_no)
            }
        }
    }

    pub(super) fn page(
        &self,
        footer: &Footer,
        kind: PageKind,
        page_no: u32,
    ) -> Result<Bytes, Miss> {
        if let Some(payload) = self.cache.page(self.key, kind, page_no) {
            return Ok(payload);
        }
        let file = self.file().map_err(Miss::Failed)?;
        let mut bytes = vec![0_u8; PAGE_BYTES];
        // A sector that the device cannot read is as good as damaged: the blocks still tell.
        file.read_exact_at(&mut bytes, footer.page_offset(page_no))
            .map_err(|_| Miss::TableDamaged(FormatError::Truncated))?;
        let len = page::decode(&self.opener, kind, page_no, &mut bytes)
            .map_err(Miss::TableDamaged)?
            .len();
        let payload = Bytes::from(bytes).slice(page::HEAD_BYTES..page::HEAD_BYTES + len);
        self.cache
            .put_page(self.key, kind, page_no, payload.clone());
        Ok(payload)
    }

    /// Runs a lookup; if a table page turns out to be damaged, once more with a rebuilt table.
    pub(super) fn with_table<T>(
        &self,
        lookup: impl Fn(&Table) -> Result<T, Miss>,
    ) -> Result<T, ReadError> {
        match lookup(&*self.table()?) {
            Ok(found) => Ok(found),
            Err(Miss::Failed(error)) => Err(error),
            Err(Miss::TableDamaged(reason)) => {
                let table = self.rebuild(&reason)?;
                lookup(&table).map_err(|miss| self.fail(miss))
            }
        }
    }

    /// A table of which every page is readable.
    pub(super) fn whole_table(&self) -> Result<Arc<Table>, ReadError> {
        let table = self.table()?;
        for page in 0..table.separators.len() {
            match self.entries(&table, page) {
                Ok(_) => {}
                Err(Miss::Failed(error)) => return Err(error),
                Err(Miss::TableDamaged(reason)) => return self.rebuild(&reason),
            }
        }
        Ok(table)
    }

    pub(super) fn table(&self) -> Result<Arc<Table>, ReadError> {
        let known = self
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match known {
            Some(table) => Ok(table),
            None => match self.load_table() {
                Ok(table) => Ok(self.keep(table)),
                Err(Miss::Failed(error)) => Err(error),
                Err(Miss::TableDamaged(reason)) => self.rebuild(&reason),
            },
        }
    }

    fn keep(&self, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Some(table.clone());
        table
    }

    fn load_table(&self) -> Result<Table, Miss> {
        let file = self.file().map_err(Miss::Failed)?;
        let footer = match self.read_footer(&*file) {
            Ok(footer) => footer,
            Err(
                error @ (FormatError::NewerVersion { .. }
                | FormatError::ChecksumMismatch {
                    what: SEALED_FOOTER,
                    ..
                }),
            ) => return Ok(rebuild::nothing_is_readable(&error.to_string())),
            Err(error) => return Err(Miss::TableDamaged(error)),
        };
        let mut separators = Vec::new();
        for index in 0..footer.section_pages[1] {
            let page_no = footer.section_start(1) + index;
            let payload = self.page(&footer, PageKind::TableSeparators, page_no)?;
            let count = Separator::count(&payload);
            separators.extend((0..count).filter_map(|at| Separator::at(&payload, at)));
        }
        if separators.len() != footer.section_pages[0] as usize {
            return Err(Miss::TableDamaged(FormatError::OutOfRange {
                what: "number of table pages",
            }));
        }
        Ok(Table {
            separators,
            pages: Pages::File(footer),
            holes: Vec::new(),
            unknown: None,
        })
    }

    /// The footer, if it is the sealed one. A place the device cannot read is as good as damaged.
    fn read_footer(&self, file: &dyn IoFile) -> Result<Footer, FormatError> {
        let mut bytes = [0_u8; footer::BYTES];
        let offset = self.manifest.file_bytes.checked_sub(footer::BYTES as u64);
        file.read_exact_at(&mut bytes, offset.ok_or(FormatError::Truncated)?)
            .map_err(|_| FormatError::Truncated)?;
        self.decode_footer(&bytes)
    }

    pub(super) fn decode_footer(&self, bytes: &[u8]) -> Result<Footer, FormatError> {
        let SegmentManifest { id, file_bytes, .. } = self.manifest;
        let footer = Footer::decode(FileKind::Segment, self.store_uuid, id.0, file_bytes, bytes)?;
        let (stored, computed) = (
            self.manifest.footer_digest,
            Footer::digest_of(&footer.encode()),
        );
        if stored != computed {
            return Err(FormatError::ChecksumMismatch {
                what: SEALED_FOOTER,
                stored,
                computed,
            });
        }
        Ok(footer)
    }

    pub(super) fn rebuild(&self, reason: &FormatError) -> Result<Arc<Table>, ReadError> {
        tracing::warn!(
            file = %self.path.display(),
            %reason,
            "block table is damaged; reading the blocks to make it anew"
        );
        let file = Watched::new(self.file()?);
        let footer = self.read_footer(&file).ok();
        let table = rebuild::rebuild(&file, &self.opener, &self.manifest, footer.as_ref())
            .map_err(|error| ReadError::io(&self.path, error))?;
        let is_whole = table.holes.is_empty() && table.unknown.is_none();
        match file.failure() {
            // What the device refuses to read now it may read later: nothing is called lost for it.
            Some(error) if !is_whole => Err(ReadError::io(&self.path, error)),
            _ => Ok(self.keep(table)),
        }
    }

    pub(super) fn extents_from_pages(
        &self,
        footer: &Footer,
    ) -> Result<Option<Vec<ExtentInfo>>, ReadError> {
        let mut extents = Vec::new();
        for index in 0..footer.section_pages[2] {
            let page_no = footer.section_start(2) + index;
            match self.page(footer, PageKind::Extents, page_no) {
                Ok(payload) => {
                    let count = ExtentInfo::count(&payload);
                    extents.extend((0..count).filter_map(|at| ExtentInfo::at(&payload, at)));
                }
                Err(Miss::TableDamaged(_)) => return Ok(None),
                Err(Miss::Failed(error)) => return Err(error),
            }
        }
        Ok((extents.len() as u64 == footer.items[1]).then_some(extents))
    }
}
