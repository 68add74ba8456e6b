//! The subjects of a whole segment, read in large pieces and without making messages of records.
//!
//! The digest of a block covers every byte of it, so that records of an intact block are not checked
//! one by one. Where anything is not as it should be the block is read in the careful way, which
//! finds out what of it is lost.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::reader::{ScanItem, Segment};
use crate::error::{Corrupt, ReadError};
use crate::format::FormatError;
use crate::format::block::{self, BlockHead, HEAD_BYTES, RESTART_INTERVAL, RecordSpan, Restarts};
use crate::format::block_table::{BlockRef, Entry};
use crate::ids::{Seq, StreamId};
use crate::io::IoFile;
use crate::message::BodyLayout;

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// What [`Segment::scan_subjects`] comes across.
#[derive(Debug)]
pub(crate) enum SubjectItem<'a> {
    /// A message.
    Message {
        stream: StreamId,
        seq: Seq,
        subject: &'a [u8],
        layout: BodyLayout,
    },
    /// Messages that are lost.
    Lost(Corrupt),
}

type Visitor<'v> = dyn FnMut(SubjectItem<'_>) -> ControlFlow<()> + 'v;

impl Segment {
    /// Visits the subjects of everything in the segment, ascending by stream and sequence, past the
    /// cache.
    ///
    /// # Errors
    ///
    /// Only [`ReadError::Io`]; damage is visited.
    pub(crate) fn scan_subjects(&self, visit: &mut Visitor<'_>) -> Result<(), ReadError> {
        let table = self.whole_table()?;
        for lost in self.lost_by_table(&table) {
            if visit(SubjectItem::Lost(lost)).is_break() {
                return Ok(());
            }
        }
        let file = self.file()?;
        let mut window = Window::default();
        let mut records = Vec::new();
        for page in 0..table.separators.len() {
            let payload = self.entries(&table, page).map_err(|miss| self.fail(miss))?;
            for index in 0..BlockRef::count(&payload) {
                let Some(found) = BlockRef::at(&payload, index) else {
                    continue;
                };
                let bytes = window.block(&*file, &found, self.manifest().file_bytes);
                let raw = bytes.and_then(|bytes| self.parse(&found, bytes, &mut records).ok());
                let flow = match raw {
                    Some(raw) => visit_records(found.stream, &raw, &records, visit),
                    None => self.scan_block(&found, &mut |item| visit_item(item, visit))?,
                };
                if flow.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Finds the records of a block; returns its raw bytes.
    fn parse<'b>(
        &self,
        found: &BlockRef,
        bytes: &'b mut [u8],
        records: &mut Vec<RecordPlace>,
    ) -> Result<Cow<'b, [u8]>, FormatError> {
        records.clear();
        let head = BlockHead::decode(self.opener.identity(), found.offset, bytes)?;
        if !found.names(&head) {
            return Err(FormatError::OutOfRange { what: "block" });
        }
        let body = bytes.get_mut(HEAD_BYTES..).unwrap_or_default();
        let len = block::open(&self.opener, found.offset, &head, body)?;
        let stored = body.get(..len).ok_or(FormatError::Truncated)?;
        let raw = match block::unpack(&head, stored)? {
            Some(raw) => Cow::Owned(raw),
            None => Cow::Borrowed(stored),
        };
        find_records(&head, &raw, records)?;
        Ok(raw)
    }
}

/// Where the subject of a record is, and how long its parts are.
#[derive(Clone, Copy)]
struct RecordPlace {
    seq: Seq,
    subject_at: usize,
    layout: BodyLayout,
}

/// Lists the records of an intact block and checks that they are in order.
fn find_records(
    head: &BlockHead,
    raw: &[u8],
    records: &mut Vec<RecordPlace>,
) -> Result<(), FormatError> {
    let out_of_range = FormatError::OutOfRange { what: "records" };
    let restarts = Restarts::find(raw, head.count)?;
    let bytes = raw.get(..restarts.at).ok_or(FormatError::Truncated)?;
    let first = (head.first_seq, head.first_ts);
    let (mut at, mut from) = (0, first);
    for index in 0..head.count {
        if index.is_multiple_of(RESTART_INTERVAL) {
            from = first;
            if restarts.get(raw, (index / RESTART_INTERVAL) as usize) != Some(at) {
                return Err(out_of_range);
            }
        }
        let span = RecordSpan::parse(bytes, at, from)?;
        let in_order = match records.last() {
            Some(last) => span.seq > last.seq,
            None => span.seq == head.first_seq,
        };
        if !in_order {
            return Err(out_of_range);
        }
        records.push(RecordPlace {
            seq: span.seq,
            subject_at: span.body.start,
            layout: BodyLayout {
                subject: span.subject_len,
                headers: span.headers_len,
                payload: span.payload_len,
            },
        });
        (at, from) = (span.body.end, (span.seq, span.ts));
    }
    let is_whole = records.last().map(|last| last.seq) == Some(head.last_seq) && at == restarts.at;
    is_whole.then_some(()).ok_or(out_of_range)
}

fn visit_records(
    stream: StreamId,
    raw: &[u8],
    records: &[RecordPlace],
    visit: &mut Visitor<'_>,
) -> ControlFlow<()> {
    for record in records {
        let RecordPlace {
            seq,
            subject_at,
            layout,
        } = *record;
        // A record that was parsed lies inside.
        let subject = raw.get(subject_at..subject_at + layout.subject as usize);
        visit(SubjectItem::Message {
            stream,
            seq,
            subject: subject.unwrap_or_default(),
            layout,
        })?;
    }
    ControlFlow::Continue(())
}

fn visit_item(item: ScanItem, visit: &mut Visitor<'_>) -> ControlFlow<()> {
    match item {
        ScanItem::Lost(lost) => visit(SubjectItem::Lost(lost)),
        ScanItem::Block(block) => {
            for message in block.iter() {
                visit(SubjectItem::Message {
                    stream: block.stream(),
                    seq: message.seq,
                    subject: message.subject(),
                    layout: message.layout(),
                })?;
            }
            ControlFlow::Continue(())
        }
    }
}

/// The part of the file that was read last.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
    offset: u64,
    len: usize,
}

impl Window {
    /// The bytes of a block; `None` if it is larger than a window or cannot be read.
    fn block(&mut self, file: &dyn IoFile, found: &BlockRef, file_bytes: u64) -> Option<&mut [u8]> {
        let len = HEAD_BYTES.checked_add(found.disk_len as usize)?;
        if len > READ_BYTES || found.offset.checked_add(len as u64)? > file_bytes {
            return None;
        }
        if self.place_of(found.offset, len).is_none() {
            self.bytes.resize(READ_BYTES, 0);
            self.offset = found.offset;
            self.len = 0;
            self.len = file.read_at(&mut self.bytes, found.offset).ok()?;
        }
        let start = self.place_of(found.offset, len)?;
        self.bytes.get_mut(start..start + len)
    }

    fn place_of(&self, offset: u64, len: usize) -> Option<usize> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        (start.checked_add(len)? <= self.len).then_some(start)
    }
}
