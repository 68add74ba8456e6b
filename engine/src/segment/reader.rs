//! Reads from a segment.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::decoded::{DecodedBlock, LoadedBlock, Stretch};
use super::rebuild;
use super::table::{Hole, Pages, SEQ_UNKNOWN_END, Table};
use super::{ExtentInfo, SegmentManifest};
use crate::cache::{Cache, FileKey};
use crate::error::{Corrupt, ReadError};
use crate::format::FormatError;
use crate::format::block::{BlockHead, HEAD_BYTES};
use crate::format::block_table::{BlockRef, Entry, Separator};
use crate::format::file_header::FileKind;
use crate::format::footer::{self, Footer};
use crate::format::identity::FileIdentity;
use crate::format::page::{self, PAGE_BYTES, PageKind};
use crate::ids::{Seq, StreamId, TimestampNs};
use crate::io::{Env, IoFile};
use crate::message::Message;

/// A sealed segment. Opening reads nothing; the footer and the first entry of each table page are
/// read when they are first needed and stay in memory (24 bytes for each 78 blocks).
pub struct Segment {
    env: Env,
    pub(super) path: PathBuf,
    store_uuid: u128,
    pub(super) manifest: SegmentManifest,
    key: FileKey,
    pub(super) identity: FileIdentity,
    cache: Arc<Cache>,
    table: RwLock<Option<Arc<Table>>>,
}

/// Names the check that fails for a valid footer that is not the one the metadata log knows.
const SEALED_FOOTER: &str = "footer of the sealed file";

/// What [`Segment::scan`] comes across.
#[derive(Debug)]
pub enum ScanItem {
    /// Readable messages.
    Block(Arc<DecodedBlock>),
    /// Messages that are lost.
    Lost(Corrupt),
}

/// Why the block table gave no answer.
enum Miss {
    /// A table page is unreadable.
    TableDamaged(FormatError),
    /// The answer is a damage report or a system error.
    Failed(ReadError),
}

/// Why a block could not be loaded.
pub(super) enum LoadError {
    Damaged(String),
    Io(ReadError),
}

impl Segment {
    /// Opens a segment without reading it.
    pub fn open(
        env: &Env,
        path: &Path,
        store_uuid: u128,
        manifest: SegmentManifest,
        cache: Arc<Cache>,
    ) -> Segment {
        Segment {
            env: env.clone(),
            path: path.to_owned(),
            store_uuid,
            manifest,
            key: FileKey::new(FileKind::Segment, manifest.id.0),
            identity: FileIdentity::new(FileKind::Segment, store_uuid, manifest.id.0),
            cache,
            table: RwLock::new(None),
        }
    }

    /// What the metadata log knows of the segment.
    pub fn manifest(&self) -> &SegmentManifest {
        &self.manifest
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The message with this sequence; `None` if the segment was sealed without it.
    ///
    /// # Errors
    ///
    /// [`ReadError::Corrupt`] if it was there, or may have been, and cannot be read.
    pub fn get(&self, stream: StreamId, seq: Seq) -> Result<Option<Message>, ReadError> {
        let Some(found) = self.with_table(|table| self.locate(table, stream, seq, false))? else {
            return Ok(None);
        };
        match self.load_or_corrupt(&found)?.stretch(seq) {
            Some(Stretch::Good(block)) => Ok(block.get(seq)),
            Some(Stretch::Lost {
                first,
                last,
                reason,
            }) if first <= seq => Err(self.lost(&found, first, last, &reason)),
            _ => Ok(None),
        }
    }

    /// The messages around `seq`: the block that covers it, or else the first one behind it;
    /// `None` at the end of the stream's extent. Go on with the block's last sequence plus one.
    ///
    /// # Errors
    ///
    /// [`ReadError::Corrupt`] if the messages there are lost; go on behind its `last`.
    pub fn block(
        &self,
        stream: StreamId,
        at_or_after: Seq,
    ) -> Result<Option<Arc<DecodedBlock>>, ReadError> {
        let mut seq = at_or_after;
        while let Some(found) = self.with_table(|table| self.locate(table, stream, seq, true))? {
            match self.load_or_corrupt(&found)?.stretch(seq) {
                Some(Stretch::Good(block)) => return Ok(Some(block)),
                Some(Stretch::Lost {
                    first,
                    last,
                    reason,
                }) => return Err(self.lost(&found, first, last, &reason)),
                None if found.last_seq >= seq => seq = Seq(found.last_seq.0.saturating_add(1)),
                None => break,
            }
        }
        Ok(None)
    }

    /// The first sequence whose timestamp is `ts` or later, also where timestamps do not ascend.
    ///
    /// # Errors
    ///
    /// [`ReadError::Corrupt`] if damage hides whether an earlier one would have matched.
    pub fn first_seq_at_or_after(
        &self,
        stream: StreamId,
        ts: TimestampNs,
    ) -> Result<Option<Seq>, ReadError> {
        let start = self.with_table(|table| self.locate_time(table, stream, ts))?;
        let Some(mut seq) = start else {
            return Ok(None);
        };
        while let Some(block) = self.block(stream, seq)? {
            if let Some(message) = block.iter_from(seq).find(|message| message.ts >= ts) {
                return Ok(Some(message.seq));
            }
            seq = block.last_seq().next();
        }
        Ok(None)
    }

    /// What the segment holds of each stream, ascending by stream.
    ///
    /// # Errors
    ///
    /// [`ReadError::Corrupt`] if that is unreadable and cannot be counted anew either.
    pub fn extents(&self) -> Result<Vec<ExtentInfo>, ReadError> {
        let table = self.table()?;
        if let Pages::File(footer) = &table.pages
            && let Some(extents) = self.extents_from_pages(footer)?
        {
            return Ok(extents);
        }
        let mut extents: Vec<ExtentInfo> = Vec::new();
        let mut lost = None;
        self.scan(&mut |item| match item {
            ScanItem::Block(block) => {
                count_block(&mut extents, &block);
                ControlFlow::Continue(())
            }
            ScanItem::Lost(corrupt) => {
                lost = Some(corrupt);
                ControlFlow::Break(())
            }
        })?;
        match lost {
            Some(corrupt) => Err(ReadError::Corrupt(Box::new(corrupt))),
            None => Ok(extents),
        }
    }

    /// Visits everything in the segment, ascending by stream and sequence, past the cache.
    ///
    /// # Errors
    ///
    /// Only [`ReadError::Io`]; damage is visited.
    pub fn scan(
        &self,
        visit: &mut dyn FnMut(ScanItem) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let table = self.whole_table()?;
        for hole in &table.holes {
            if visit(ScanItem::Lost(self.hole_report(hole))).is_break() {
                return Ok(());
            }
        }
        if let Some((offset, reason)) = &table.unknown {
            let report = self.unknown_report(StreamId(0), *offset, reason);
            if visit(ScanItem::Lost(report)).is_break() {
                return Ok(());
            }
        }
        for page in 0..table.separators.len() {
            let payload = self.entries(&table, page).map_err(|miss| self.fail(miss))?;
            for index in 0..BlockRef::count(&payload) {
                let Some(found) = BlockRef::at(&payload, index) else {
                    continue;
                };
                if self.scan_block(&found, visit)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn scan_block(
        &self,
        found: &BlockRef,
        visit: &mut dyn FnMut(ScanItem) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let loaded = match self.read_block(found) {
            Ok(loaded) => loaded,
            Err(LoadError::Io(error)) => return Err(error),
            Err(LoadError::Damaged(reason)) => {
                let (first, last) = (found.first_seq, found.last_seq);
                let report = self.report(found.stream, first, last, found.offset, reason);
                return Ok(visit(ScanItem::Lost(report)));
            }
        };
        for stretch in loaded.stretches() {
            let item = match stretch {
                Stretch::Good(block) => ScanItem::Block(block),
                Stretch::Lost {
                    first,
                    last,
                    reason,
                } => ScanItem::Lost(self.report(
                    found.stream,
                    first,
                    last,
                    found.offset,
                    reason.to_string(),
                )),
            };
            if visit(item).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Finds the block that covers `seq`; with `or_after` else the first one behind it.
    fn locate(
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
    fn locate_time(
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
    fn entries(&self, table: &Table, page: usize) -> Result<Bytes, Miss> {
        match &table.pages {
            Pages::Memory(pages) => Ok(pages.get(page).cloned().unwrap_or_default()),
            Pages::File(footer) => {
                let page_no = footer.section_start(0) + page as u32;
                self.page(footer, PageKind::Table, page_no)
            }
        }
    }

    fn page(&self, footer: &Footer, kind: PageKind, page_no: u32) -> Result<Bytes, Miss> {
        if let Some(payload) = self.cache.page(self.key, page_no) {
            return Ok(payload);
        }
        let file = self.file().map_err(Miss::Failed)?;
        let mut bytes = vec![0_u8; PAGE_BYTES];
        // A sector that the device cannot read is as good as damaged: the blocks still tell.
        file.read_exact_at(&mut bytes, footer.page_offset(page_no))
            .map_err(|_| Miss::TableDamaged(FormatError::Truncated))?;
        let len = page::decode(self.identity, kind, page_no, &bytes)
            .map_err(Miss::TableDamaged)?
            .len();
        let payload = Bytes::from(bytes).slice(page::HEAD_BYTES..page::HEAD_BYTES + len);
        self.cache.put_page(self.key, page_no, payload.clone());
        Ok(payload)
    }

    /// Runs a lookup; if a table page turns out to be damaged, once more with a rebuilt table.
    fn with_table<T>(&self, lookup: impl Fn(&Table) -> Result<T, Miss>) -> Result<T, ReadError> {
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
    fn whole_table(&self) -> Result<Arc<Table>, ReadError> {
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

    fn table(&self) -> Result<Arc<Table>, ReadError> {
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

    fn rebuild(&self, reason: &FormatError) -> Result<Arc<Table>, ReadError> {
        tracing::warn!(
            file = %self.path.display(),
            %reason,
            "block table is damaged; reading the blocks to make it anew"
        );
        let file = self.file()?;
        let footer = self.read_footer(&*file).ok();
        let table = rebuild::rebuild(&*file, self.identity, &self.manifest, footer.as_ref())
            .map_err(|error| ReadError::io(&self.path, error))?;
        Ok(self.keep(table))
    }

    fn extents_from_pages(&self, footer: &Footer) -> Result<Option<Vec<ExtentInfo>>, ReadError> {
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

    fn load_or_corrupt(&self, found: &BlockRef) -> Result<LoadedBlock, ReadError> {
        if let Some(block) = self.cache.block(self.key, found.offset) {
            return Ok(block);
        }
        match self.read_block(found) {
            Ok(block) => {
                // Damaged bytes are read again the next time: the fault may not be the disk's.
                if block.damage().is_none() {
                    self.cache.put_block(self.key, found.offset, block.clone());
                }
                Ok(block)
            }
            Err(LoadError::Io(error)) => Err(error),
            Err(LoadError::Damaged(reason)) => {
                let (first, last) = (found.first_seq, found.last_seq);
                let report = self.report(found.stream, first, last, found.offset, reason);
                Err(ReadError::Corrupt(Box::new(report)))
            }
        }
    }

    /// Reads and checks a block, past the cache.
    pub(super) fn read_block(&self, found: &BlockRef) -> Result<LoadedBlock, LoadError> {
        let len = HEAD_BYTES as u64 + u64::from(found.disk_len);
        let in_file = found
            .offset
            .checked_add(len)
            .is_some_and(|end| end <= self.manifest.file_bytes);
        if !in_file {
            return Err(LoadError::Damaged(
                "the block table points behind the end of the file".to_owned(),
            ));
        }
        let file = self.file().map_err(LoadError::Io)?;
        let mut bytes = vec![0_u8; len as usize];
        match file.read_at(&mut bytes, found.offset) {
            Ok(read) if read == bytes.len() => {}
            Ok(_) => return Err(LoadError::Damaged("the file ends in the block".to_owned())),
            Err(error) => return Err(LoadError::Io(ReadError::io(&self.path, error))),
        }
        let head = BlockHead::decode(self.identity, found.offset, &bytes)
            .map_err(|error| LoadError::Damaged(error.to_string()))?;
        let same = head.stream == found.stream
            && head.first_seq == found.first_seq
            && head.last_seq == found.last_seq
            && head.disk_len == found.disk_len
            && head.content_digest == found.content_digest;
        if !same {
            return Err(LoadError::Damaged(
                "the block is not the one named by the block table".to_owned(),
            ));
        }
        Ok(LoadedBlock::decode(&head, Bytes::from(bytes)))
    }

    pub(super) fn file(&self) -> Result<Arc<dyn IoFile>, ReadError> {
        self.cache
            .file(&self.env, self.key, &self.path)
            .map_err(|error: io::Error| ReadError::io(&self.path, error))
    }

    /// The block entries of the table as it can be read now, page by page, for checks.
    pub(super) fn all_blocks(&self) -> Result<(Arc<Table>, Vec<BlockRef>), ReadError> {
        let table = self.whole_table()?;
        let mut blocks = Vec::new();
        for page in 0..table.separators.len() {
            let payload = self.entries(&table, page).map_err(|miss| self.fail(miss))?;
            let count = BlockRef::count(&payload);
            blocks.extend((0..count).filter_map(|at| BlockRef::at(&payload, at)));
        }
        Ok((table, blocks))
    }

    pub(super) fn report(
        &self,
        stream: StreamId,
        first: Seq,
        last: Seq,
        offset: u64,
        reason: String,
    ) -> Corrupt {
        Corrupt {
            stream,
            first,
            last,
            file: self.path.clone(),
            offset,
            reason,
        }
    }

    pub(super) fn hole_report(&self, hole: &Hole) -> Corrupt {
        let reason = hole.reason.to_string();
        self.report(hole.stream, hole.first, hole.last, hole.offset, reason)
    }

    pub(super) fn unknown_report(&self, stream: StreamId, offset: u64, reason: &str) -> Corrupt {
        self.report(stream, Seq(0), SEQ_UNKNOWN_END, offset, reason.to_owned())
    }

    fn lost(&self, found: &BlockRef, first: Seq, last: Seq, reason: &FormatError) -> ReadError {
        let reason = reason.to_string();
        let report = self.report(found.stream, first, last, found.offset, reason);
        ReadError::Corrupt(Box::new(report))
    }

    fn corrupt(&self, report: Corrupt) -> Miss {
        Miss::Failed(ReadError::Corrupt(Box::new(report)))
    }

    /// A miss that a rebuilt table leaves.
    fn fail(&self, miss: Miss) -> ReadError {
        match miss {
            Miss::Failed(error) => error,
            Miss::TableDamaged(error) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
                ReadError::io(&self.path, error)
            }
        }
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment")
            .field("path", &self.path)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

/// Adds a block, which comes in order, to the extents counted so far.
fn count_block(extents: &mut Vec<ExtentInfo>, block: &DecodedBlock) {
    let block_first = extents.last().map_or(0, |e| e.block_first + e.blocks);
    if extents.last().is_none_or(|e| e.stream != block.stream()) {
        extents.push(ExtentInfo {
            stream: block.stream(),
            first_seq: block.first_seq(),
            last_seq: block.last_seq(),
            first_ts: block.iter().next().map_or(TimestampNs(0), |m| m.ts),
            last_ts: TimestampNs(0),
            msgs: 0,
            bytes: 0,
            block_first,
            blocks: 0,
        });
    }
    let Some(extent) = extents.last_mut() else {
        return;
    };
    extent.blocks += 1;
    extent.last_seq = block.last_seq();
    for message in block.iter() {
        extent.msgs += 1;
        extent.bytes += message.body_len() as u64;
        extent.last_ts = message.ts;
    }
}
