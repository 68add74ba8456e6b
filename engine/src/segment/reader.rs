//! Reads from a segment.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use super::decoded::{DecodedBlock, LoadedBlock, Stretch};
use super::lookup::Miss;
use super::table::{Hole, Pages, SEQ_UNKNOWN_END, Table};
use super::{ExtentInfo, SegmentManifest};
use crate::cache::{Cache, FileKey};
use crate::config::Storage;
use crate::error::{Corrupt, ReadError};
use crate::format::FormatError;
use crate::format::block::{BlockHead, HEAD_BYTES};
use crate::format::block_table::{BlockRef, Entry};
use crate::format::cipher::Opener;
use crate::format::file_header::FileKind;
use crate::format::key_ring::KeyId;
use crate::format::timers::Timer;
use crate::ids::{Seq, StreamId, TimestampNs};
use crate::io::{Env, IoFile};
use crate::limits::accounted_bytes;
use crate::message::Message;

/// A sealed segment. Opening reads nothing; the footer and the first entry of each table page are
/// read when they are first needed and stay in memory (24 bytes for each 78 blocks).
pub struct Segment {
    pub(super) env: Env,
    pub(super) path: PathBuf,
    pub(super) store_uuid: u128,
    pub(super) manifest: SegmentManifest,
    pub(super) key: FileKey,
    pub(super) opener: Opener,
    pub(super) cache: Arc<Cache>,
    pub(super) table: RwLock<Option<Arc<Table>>>,
    /// Timers made anew from the messages, because a timer page is damaged.
    pub(super) timers: RwLock<Option<Arc<[Timer]>>>,
    on_damage: Option<OnDamage>,
}

/// Told of lost messages that a read came across.
pub(crate) type OnDamage = Arc<dyn Fn(&Corrupt) + Send + Sync>;

/// What [`Segment::scan`] comes across.
#[derive(Debug)]
pub enum ScanItem {
    /// Readable messages.
    Block(Arc<DecodedBlock>),
    /// Messages that are lost.
    Lost(Corrupt),
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
            opener: env
                .opener(FileKind::Segment, store_uuid, manifest.id.0)
                .of_key(manifest.key),
            cache,
            table: RwLock::new(None),
            timers: RwLock::new(None),
            on_damage: None,
        }
    }

    /// Tells `on_damage` what of lost messages reads come across.
    pub(crate) fn reporting_to(self, on_damage: OnDamage) -> Segment {
        Segment {
            on_damage: Some(on_damage),
            ..self
        }
    }

    fn noted(&self, report: Corrupt) -> ReadError {
        if let Some(on_damage) = &self.on_damage {
            on_damage(&report);
        }
        ReadError::Corrupt(Box::new(report))
    }

    /// What the metadata log knows of the segment.
    pub fn manifest(&self) -> &SegmentManifest {
        &self.manifest
    }

    /// The key that the file is encrypted with.
    pub fn key_id(&self) -> Option<KeyId> {
        self.manifest.key
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
        let block = self.covering(stream, seq)?;
        Ok(block.and_then(|block| block.get(seq)))
    }

    /// The messages around `seq`, which may itself be missing among them; `None` if the segment was
    /// sealed without it.
    ///
    /// # Errors
    ///
    /// As for [`Segment::get`].
    pub(crate) fn covering(
        &self,
        stream: StreamId,
        seq: Seq,
    ) -> Result<Option<Arc<DecodedBlock>>, ReadError> {
        let Some(found) = self.with_table(|table| self.locate(table, stream, seq, false))? else {
            return Ok(None);
        };
        match self.load_or_corrupt(&found)?.stretch(seq) {
            Some(Stretch::Good(block)) => Ok(Some(block)),
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
        for lost in self.lost_by_table(&table) {
            if visit(ScanItem::Lost(lost)).is_break() {
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

    /// What a table that was rebuilt cannot name the blocks of.
    pub(super) fn lost_by_table(&self, table: &Table) -> Vec<Corrupt> {
        let holes = table.holes.iter().map(|hole| self.hole_report(hole));
        let unknown = table
            .unknown
            .as_ref()
            .map(|(offset, reason)| self.unknown_report(StreamId(0), *offset, reason));
        holes.chain(unknown).collect()
    }

    pub(super) fn scan_block(
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
                Err(self.noted(self.report(found.stream, first, last, found.offset, reason)))
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
        let bytes = match file.read_vec_at(len as usize, found.offset) {
            Ok(bytes) if bytes.len() as u64 == len => bytes,
            Ok(_) => return Err(LoadError::Damaged("the file ends in the block".to_owned())),
            Err(error) => return Err(LoadError::Io(ReadError::io(&self.path, error))),
        };
        let head = BlockHead::decode(self.opener.identity(), found.offset, &bytes)
            .map_err(|error| LoadError::Damaged(error.to_string()))?;
        if !found.names(&head) {
            return Err(LoadError::Damaged(
                "the block is not the one named by the block table".to_owned(),
            ));
        }
        Ok(LoadedBlock::decode(
            &self.opener,
            found.offset,
            &head,
            bytes,
        ))
    }

    pub(super) fn file(&self) -> Result<Arc<dyn IoFile>, ReadError> {
        self.cache
            .file(&self.env, self.key, &self.path)
            .map_err(|error: io::Error| ReadError::io(&self.path, error))
    }

    /// The block entries of the table as it can be read now, page by page, for checks.
    #[cfg(test)]
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
        self.noted(self.report(found.stream, first, last, found.offset, reason))
    }

    pub(super) fn corrupt(&self, report: Corrupt) -> Miss {
        Miss::Failed(self.noted(report))
    }

    /// A miss that a rebuilt table leaves.
    pub(super) fn fail(&self, miss: Miss) -> ReadError {
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
            first_expiry: TimestampNs::FAR,
            first_notice: TimestampNs::FAR,
        });
    }
    let Some(extent) = extents.last_mut() else {
        return;
    };
    extent.blocks += 1;
    extent.last_seq = block.last_seq();
    for message in block.iter() {
        extent.msgs += 1;
        let layout = message.layout();
        let (subject, headers) = (layout.subject as usize, layout.headers as usize);
        extent.bytes += accounted_bytes(Storage::File, subject, headers, layout.payload as usize);
        extent.last_ts = message.ts;
        let due = |at: Option<TimestampNs>| at.unwrap_or(TimestampNs::FAR);
        extent.first_expiry = extent.first_expiry.min(due(message.expires_at()));
        extent.first_notice = extent.first_notice.min(due(message.notify_at()));
    }
}
