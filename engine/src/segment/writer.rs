//! Writes a segment, once and in one pass.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SegmentManifest;
use crate::config::Storage;
use crate::format::block::{BlockBuilder, Codec};
use crate::format::block_table::{BlockRef, Entry, ExtentInfo, Separator};
use crate::format::cipher::Sealer;
use crate::format::file_header::{self, FileKind};
use crate::format::footer::Footer;
use crate::format::page::{self, PageKind};
use crate::format::record::Record;
use crate::format::timers::{Timer, TimerKind, TimerPageBuilder};
use crate::ids::{SegmentId, Seq, StreamId, TimestampNs};
use crate::io::{Env, IoFile, OpenMode};
use crate::limits::accounted_bytes;

/// Bytes collected before they are written.
const WRITE_BYTES: usize = 1024 * 1024;

/// A finished segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// What the metadata log has to remember.
    pub manifest: SegmentManifest,
    /// What the segment holds, ascending by stream.
    pub extents: Vec<ExtentInfo>,
}

/// A segment being written. Dropping it unfinished leaves a file that nothing names.
pub struct SegmentWriter {
    file: Arc<dyn IoFile>,
    path: PathBuf,
    store_uuid: u128,
    id: SegmentId,
    sealer: Sealer,
    buffer: Vec<u8>,
    /// Where the buffer goes in the file.
    buffer_offset: u64,
    builder: BlockBuilder,
    codec: Codec,
    extent: Option<ExtentInfo>,
    extent_max_ts: TimestampNs,
    streams: BTreeSet<StreamId>,
    extents: Vec<ExtentInfo>,
    blocks: Vec<BlockRef>,
    timers: Vec<Timer>,
}

impl SegmentWriter {
    /// Creates the file, which must not exist.
    pub fn new(
        env: &Env,
        path: &Path,
        store_uuid: u128,
        id: SegmentId,
    ) -> io::Result<SegmentWriter> {
        let file = env.io.open(path, OpenMode::CreateNew)?;
        let sealer = env.sealer(FileKind::Segment, store_uuid, id.0);
        Ok(SegmentWriter {
            file,
            path: path.to_owned(),
            store_uuid,
            id,
            buffer: sealer.header().encode().to_vec(),
            sealer,
            buffer_offset: 0,
            builder: BlockBuilder::new(StreamId(0)),
            codec: Codec::None,
            extent: None,
            extent_max_ts: TimestampNs(i64::MIN),
            streams: BTreeSet::new(),
            extents: Vec::new(),
            blocks: Vec::new(),
            timers: Vec::new(),
        })
    }

    /// Bytes written so far; the block being collected is not counted.
    pub fn bytes(&self) -> u64 {
        self.buffer_offset + self.buffer.len() as u64
    }

    /// Starts the messages of a stream, which must not be in this segment yet. An extent to which
    /// nothing is pushed leaves no trace.
    pub fn begin_extent(&mut self, stream: StreamId, codec: Codec) -> io::Result<()> {
        self.end_extent()?;
        if !self.streams.insert(stream) {
            return Err(invalid_input(format!(
                "stream {stream} is already in this segment"
            )));
        }
        self.builder.reset(stream);
        self.codec = codec;
        self.extent_max_ts = TimestampNs(i64::MIN);
        self.extent = Some(ExtentInfo {
            stream,
            first_seq: Seq(0),
            last_seq: Seq(0),
            first_ts: TimestampNs(0),
            last_ts: TimestampNs(0),
            msgs: 0,
            bytes: 0,
            block_first: 0,
            blocks: 0,
            first_expiry: TimestampNs::FAR,
            first_notice: TimestampNs::FAR,
        });
        Ok(())
    }

    /// Adds a message. Sequences must ascend within the extent.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the record does not match its checksum: bytes that went bad in memory are
    /// not sealed as if they were good. `InvalidInput` if the sequence does not ascend, the record
    /// is larger than a block can be, or no extent was begun.
    pub fn push(&mut self, record: &Record<'_>) -> io::Result<()> {
        let Some(extent) = self.extent else {
            return Err(invalid_input("no extent was begun".to_owned()));
        };
        if let Err(error) = record.verify(extent.stream) {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!(
                    "sequence {} of stream {} was damaged in memory: {error}",
                    record.seq, extent.stream
                ),
            ));
        }
        if extent.msgs > 0 && record.seq <= extent.last_seq {
            return Err(invalid_input(format!(
                "sequence {} does not follow {}",
                record.seq, extent.last_seq
            )));
        }
        if !self.builder.accepts(record) {
            self.end_block()?;
        }
        self.builder
            .push(record)
            .map_err(|error| invalid_input(format!("sequence {}: {error}", record.seq)))?;
        // Only now: ending the block before has counted it in the extent.
        if let Some(extent) = &mut self.extent {
            if extent.msgs == 0 {
                extent.first_seq = record.seq;
                extent.first_ts = record.ts;
            }
            extent.last_seq = record.seq;
            extent.last_ts = record.ts;
            extent.msgs += 1;
            let (subject, headers) = (record.subject.len(), record.headers.len());
            extent.bytes += accounted_bytes(Storage::File, subject, headers, record.payload.len());
            let timers = timers_of(extent.stream, record);
            for timer in timers.into_iter().flatten() {
                let first = match timer.kind {
                    TimerKind::Expiry => &mut extent.first_expiry,
                    TimerKind::Notice => &mut extent.first_notice,
                };
                *first = timer.due.min(*first);
                self.timers.push(timer);
            }
        }
        Ok(())
    }

    /// Writes tables and footer and syncs the file. The directory is the caller's to sync.
    pub fn finish(mut self) -> io::Result<SealedSegment> {
        self.end_extent()?;
        let pages_offset = self.bytes();
        // Extents may come in any order of streams; lookups need them sorted.
        self.blocks.sort_by_key(|b| (b.stream, b.first_seq));
        self.extents.sort_by_key(|extent| extent.stream);
        let mut block_first = 0;
        for extent in &mut self.extents {
            extent.block_first = block_first;
            block_first += extent.blocks;
        }
        let separators: Vec<Separator> = self
            .blocks
            .chunks(BlockRef::PER_PAGE)
            .filter_map(|page| page.first().map(Separator::from))
            .collect();
        let blocks = std::mem::take(&mut self.blocks);
        let extents = std::mem::take(&mut self.extents);
        let mut page_no = 0;
        let section_pages = [
            self.write_pages(PageKind::Table, &blocks, &mut page_no)?,
            self.write_pages(PageKind::TableSeparators, &separators, &mut page_no)?,
            self.write_pages(PageKind::Extents, &extents, &mut page_no)?,
            self.write_timers(&mut page_no)?,
        ];
        let footer = Footer {
            kind: FileKind::Segment,
            store_uuid: self.store_uuid,
            file_no: self.id.0,
            pages_offset,
            section_pages,
            items: [
                blocks.len() as u64,
                extents.len() as u64,
                extents.iter().map(|extent| extent.msgs).sum(),
            ],
            source_digest: 0,
            file_bytes: self.bytes() + crate::format::footer::BYTES as u64,
            key: self.sealer.key(),
        };
        let encoded = footer.encode();
        self.buffer.extend_from_slice(&encoded);
        self.write_out()?;
        self.file.sync_data()?;
        // Sealed data is read through the engine's own cache; the kernel's copy would only
        // displace something that is not.
        self.file.drop_cache();
        Ok(SealedSegment {
            manifest: SegmentManifest {
                id: self.id,
                file_bytes: footer.file_bytes,
                bytes: extents.iter().map(|extent| extent.bytes).sum(),
                footer_digest: Footer::digest_of(&encoded),
                key: self.sealer.key(),
            },
            extents,
        })
    }

    fn end_extent(&mut self) -> io::Result<()> {
        self.end_block()?;
        if let Some(extent) = self.extent.take()
            && extent.msgs > 0
        {
            self.extents.push(extent);
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let offset = self.buffer_offset + self.buffer.len() as u64;
        let block = self.builder.finish(self.codec);
        let head = block.seal(&self.sealer, offset, &mut self.buffer);
        self.extent_max_ts = self.extent_max_ts.max(head.max_ts);
        self.blocks.push(BlockRef {
            stream: head.stream,
            first_seq: head.first_seq,
            last_seq: head.last_seq,
            max_ts: self.extent_max_ts,
            offset,
            disk_len: head.disk_len,
            content_digest: head.content_digest,
        });
        if let Some(extent) = &mut self.extent {
            extent.blocks += 1;
        }
        self.builder.reset(head.stream);
        if self.buffer.len() >= WRITE_BYTES {
            self.write_out()?;
        }
        Ok(())
    }

    /// Appends entries as pages of one kind; returns how many.
    fn write_pages<E: Entry>(
        &mut self,
        kind: PageKind,
        entries: &[E],
        page_no: &mut u32,
    ) -> io::Result<u32> {
        let mut pages = 0;
        let mut payload = Vec::with_capacity(page::PAYLOAD_BYTES_MAX);
        for chunk in entries.chunks(E::PER_PAGE) {
            payload.clear();
            for entry in chunk {
                entry.encode(&mut payload);
            }
            self.write_page(kind, &payload, page_no)?;
            pages += 1;
        }
        Ok(pages)
    }

    fn write_page(&mut self, kind: PageKind, payload: &[u8], page_no: &mut u32) -> io::Result<()> {
        page::encode(&self.sealer, kind, *page_no, payload, &mut self.buffer);
        *page_no += 1;
        if self.buffer.len() >= WRITE_BYTES {
            self.write_out()?;
        }
        Ok(())
    }

    /// Appends the timer section; returns its number of pages.
    fn write_timers(&mut self, page_no: &mut u32) -> io::Result<u32> {
        let mut timers = std::mem::take(&mut self.timers);
        timers.sort_unstable();
        let mut builder = TimerPageBuilder::default();
        let mut separators = Vec::new();
        for timer in &timers {
            if builder.push(timer) {
                continue;
            }
            if let Some((payload, separator)) = builder.finish() {
                self.write_page(PageKind::Timers, &payload, page_no)?;
                separators.push(separator);
            }
            let has_room = builder.push(timer);
            debug_assert!(has_room, "an empty page has room for a timer");
        }
        if let Some((payload, separator)) = builder.finish() {
            self.write_page(PageKind::Timers, &payload, page_no)?;
            separators.push(separator);
        }
        let pages = separators.len() as u32;
        Ok(pages + self.write_pages(PageKind::TimerSeparators, &separators, page_no)?)
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.buffer_offset)?;
        self.buffer_offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWriter")
            .field("path", &self.path)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// What is due for a record, by kind.
pub(super) fn timers_of(stream: StreamId, record: &Record<'_>) -> [Option<Timer>; 2] {
    let (subject, headers) = (record.subject.len(), record.headers.len());
    let size = accounted_bytes(Storage::File, subject, headers, record.payload.len());
    let timer = |kind, due| Timer {
        stream,
        kind,
        due,
        seq: record.seq,
        size: u32::try_from(size).unwrap_or(u32::MAX),
    };
    [
        record.expires_at().map(|due| timer(TimerKind::Expiry, due)),
        record
            .due_for_notice()
            .map(|due| timer(TimerKind::Notice, due)),
    ]
}

fn invalid_input(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what)
}

/// Where the first block starts.
pub(super) const DATA_OFFSET: u64 = file_header::BYTES as u64;
