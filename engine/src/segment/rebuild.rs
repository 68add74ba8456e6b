//! Making the block table again from the heads of the blocks themselves.
//!
//! | found in the file | consequence |
//! |---|---|
//! | a valid head at every place from the file header to the pages | the table is complete, nothing is lost |
//! | bytes without a valid head between two blocks of one stream | the sequences between them are lost |
//! | the same between blocks of two streams | what follows the one and precedes the other is lost |
//! | the same, and the extents are unreadable too | streams that have no block left are unknown: reads of any such stream are answered as lost, never as absent |
//! | a footer that is valid but not the one in the metadata | it is another file: everything is lost |

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::SegmentManifest;
use super::table::{Hole, SEQ_UNKNOWN_END, Table};
use super::writer::DATA_OFFSET;
use crate::format::block::{self, BlockHead, HEAD_BYTES};
use crate::format::block_table::{BlockRef, Entry, ExtentInfo};
use crate::format::cipher::Opener;
use crate::format::footer::{self, Footer};
use crate::format::page::{self, PAGE_BYTES, PageKind};
use crate::ids::{Seq, StreamId};
use crate::io::IoFile;

/// Bytes searched at a time for the next block.
const SEARCH_BYTES: usize = 64 * 1024;

/// A stretch of the file without a readable block, with what lies before and behind it.
struct Gap {
    offset: u64,
    before: Option<BlockRef>,
    after: Option<BlockRef>,
}

struct Scan<'a> {
    file: &'a dyn IoFile,
    opener: &'a Opener,
    /// Readable length.
    len: u64,
    blocks: Vec<BlockRef>,
    gaps: Vec<Gap>,
    /// Where the pages start, if that is known.
    pages_offset: Option<u64>,
}

/// Scans the file; `footer` is the sealed one, if it is readable. Fails only if the system fails a read.
pub(super) fn rebuild(
    file: &dyn IoFile,
    opener: &Opener,
    manifest: &SegmentManifest,
    footer: Option<&Footer>,
) -> io::Result<Table> {
    let mut scan = Scan {
        file,
        opener,
        len: file.len()?.min(manifest.file_bytes),
        blocks: Vec::new(),
        gaps: Vec::new(),
        pages_offset: footer.map(|footer| footer.pages_offset),
    };
    if scan.pages_offset.is_none() {
        scan.pages_offset = scan.pages_offset_by_last_page(manifest.file_bytes);
    }
    scan.blocks()?;
    let extents = scan.extents(manifest.file_bytes);
    Ok(scan.table(extents))
}

impl Scan<'_> {
    /// Walks from block to block until the pages or the end of the file.
    fn blocks(&mut self) -> io::Result<()> {
        let mut offset = DATA_OFFSET;
        let mut gap: Option<(u64, Option<BlockRef>)> = None;
        loop {
            let end = self.pages_offset.unwrap_or(self.len);
            if offset >= end.min(self.len) {
                break;
            }
            match self.block_at(offset)? {
                Some(found) => {
                    if let Some((offset, before)) = gap.take() {
                        let after = Some(found);
                        self.gaps.push(Gap {
                            offset,
                            before,
                            after,
                        });
                    }
                    self.blocks.push(found);
                    offset += HEAD_BYTES as u64 + u64::from(found.disk_len);
                }
                None if self.pages_offset.is_none() && self.starts_pages(offset) => {
                    self.pages_offset = Some(offset);
                }
                None => {
                    if gap.is_none() {
                        gap = Some((offset, self.blocks.last().copied()));
                    }
                    let next = self.next_candidate(offset + 1)?;
                    offset = self.pages_offset.map_or(next, |end| next.min(end));
                }
            }
        }
        if gap.is_none() && self.pages_offset != Some(offset) {
            gap = Some((offset, self.blocks.last().copied()));
        }
        if let Some((offset, before)) = gap {
            self.gaps.push(Gap {
                offset,
                before,
                after: None,
            });
        }
        Ok(())
    }

    fn block_at(&self, offset: u64) -> io::Result<Option<BlockRef>> {
        let mut bytes = [0_u8; HEAD_BYTES];
        if self.file.read_at(&mut bytes, offset)? < HEAD_BYTES {
            return Ok(None);
        }
        let Ok(head) = BlockHead::decode(self.opener.identity(), offset, &bytes) else {
            return Ok(None);
        };
        Ok(Some(BlockRef {
            stream: head.stream,
            first_seq: head.first_seq,
            last_seq: head.last_seq,
            max_ts: head.max_ts,
            offset,
            disk_len: head.disk_len,
            content_digest: head.content_digest,
        }))
    }

    fn starts_pages(&self, offset: u64) -> bool {
        let page = self.page_at(offset, 0);
        page.is_some_and(|(kind, _)| kind == PageKind::Table)
    }

    /// A page, if it is readable: one that the device cannot read is as good as damaged.
    fn page_at(&self, offset: u64, page_no: u32) -> Option<(PageKind, Vec<u8>)> {
        let mut bytes = vec![0_u8; PAGE_BYTES];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        let (kind, payload) = page::decode_any(self.opener, page_no, &mut bytes).ok()?;
        Some((kind, payload.to_vec()))
    }

    /// Where the pages start according to the last of them, which knows its number.
    fn pages_offset_by_last_page(&self, file_bytes: u64) -> Option<u64> {
        let at = file_bytes.checked_sub((footer::BYTES + PAGE_BYTES) as u64)?;
        let mut head = [0_u8; page::HEAD_BYTES];
        self.file.read_exact_at(&mut head, at).ok()?;
        let page_no = page::claimed_number(&head);
        self.page_at(at, page_no)?;
        let start = at.checked_sub(u64::from(page_no) * PAGE_BYTES as u64)?;
        (start >= DATA_OFFSET).then_some(start)
    }

    /// Where the magic number of a block starts, at or after `offset`; the end of the file if
    /// nowhere.
    fn next_candidate(&self, mut offset: u64) -> io::Result<u64> {
        let mut buffer = vec![0_u8; SEARCH_BYTES];
        while offset < self.len {
            let read = self.file.read_at(&mut buffer, offset)?;
            let bytes = &buffer[..read];
            let found = bytes
                .windows(block::MAGIC.len())
                .position(|window| window == block::MAGIC);
            if let Some(at) = found {
                return Ok((offset + at as u64).min(self.len));
            }
            // A match may straddle the border; a shorter rest holds none.
            if read < block::MAGIC.len() {
                break;
            }
            offset += (read - block::MAGIC.len() + 1) as u64;
        }
        Ok(self.len)
    }

    /// The extents, if every page from the first to the footer is readable.
    fn extents(&self, file_bytes: u64) -> Option<Vec<ExtentInfo>> {
        let start = self.pages_offset?;
        let space = file_bytes.saturating_sub(footer::BYTES as u64 + start);
        let pages = u32::try_from(space / PAGE_BYTES as u64).unwrap_or(u32::MAX);
        let mut extents = Vec::new();
        let mut is_whole = false;
        for page_no in 0..pages {
            let at = start + u64::from(page_no) * PAGE_BYTES as u64;
            match self.page_at(at, page_no) {
                Some((PageKind::Extents, payload)) => {
                    let count = ExtentInfo::count(&payload);
                    extents.extend((0..count).filter_map(|i| ExtentInfo::at(&payload, i)));
                    is_whole = true;
                }
                Some((PageKind::Timers, _)) if is_whole => break,
                _ => is_whole = false,
            }
        }
        // Behind the extents come timers or the footer, and each extent starts where the one before
        // it ended: a missing page at either end or in the middle shows.
        let mut next = 0_u64;
        let chained = extents.iter().all(|extent: &ExtentInfo| {
            let follows = u64::from(extent.block_first) == next;
            next += u64::from(extent.blocks);
            follows
        });
        (is_whole && chained).then_some(extents)
    }

    fn table(mut self, extents: Option<Vec<ExtentInfo>>) -> Table {
        let reason: Arc<str> = "block heads and block table are unreadable".into();
        let mut holes = Vec::new();
        let mut unknown = None;
        let known: Option<BTreeMap<StreamId, ExtentInfo>> =
            extents.map(|extents| extents.into_iter().map(|e| (e.stream, e)).collect());
        for gap in &self.gaps {
            let mut lose = |stream: StreamId, first: Seq, last: Seq| {
                if first <= last {
                    holes.push(Hole {
                        stream,
                        first,
                        last,
                        offset: gap.offset,
                        reason: reason.clone(),
                    });
                }
            };
            let (before, after) = (gap.before, gap.after);
            if let (Some(before), Some(after)) = (before, after)
                && before.stream == after.stream
            {
                lose(
                    before.stream,
                    Seq(before.last_seq.0 + 1),
                    Seq(after.first_seq.0.saturating_sub(1)),
                );
                continue;
            }
            let extent = |stream| known.as_ref().and_then(|known| known.get(&stream));
            if let Some(before) = before {
                let end = extent(before.stream).map_or(SEQ_UNKNOWN_END, |e| e.last_seq);
                lose(before.stream, Seq(before.last_seq.0 + 1), end);
            }
            if let Some(after) = after {
                let start = extent(after.stream).map_or(Seq(0), |e| e.first_seq);
                lose(
                    after.stream,
                    start,
                    Seq(after.first_seq.0.saturating_sub(1)),
                );
            }
            if known.is_none() {
                unknown = Some((gap.offset, reason.clone()));
            }
        }
        if let (Some(known), Some(gap)) = (known, self.gaps.first()) {
            let left: BTreeSet<StreamId> = self.blocks.iter().map(|b| b.stream).collect();
            let gone = known.values().filter(|e| !left.contains(&e.stream));
            holes.extend(gone.map(|extent| Hole {
                stream: extent.stream,
                first: extent.first_seq,
                last: extent.last_seq,
                offset: gap.offset,
                reason: reason.clone(),
            }));
        }
        holes.sort_by_key(|hole| (hole.stream, hole.first));
        holes.dedup_by(|a, b| (a.stream, a.first, a.last) == (b.stream, b.first, b.last));
        self.blocks.sort_by_key(|b| (b.stream, b.first_seq));
        running_max_ts(&mut self.blocks);
        Table::from_blocks(&self.blocks, holes, unknown)
    }
}

/// The table of a file that is not the sealed one.
pub(super) fn nothing_is_readable(reason: &str) -> Table {
    Table::from_blocks(&[], Vec::new(), Some((0, reason.into())))
}

/// Turns the blocks' own largest timestamps into the largest of the extent so far.
fn running_max_ts(blocks: &mut [BlockRef]) {
    let mut last: Option<BlockRef> = None;
    for block in blocks {
        if let Some(last) = last.filter(|last| last.stream == block.stream) {
            block.max_ts = block.max_ts.max(last.max_ts);
        }
        last = Some(*block);
    }
}
