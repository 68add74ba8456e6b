//! Finding the block of a sequence: separators in memory, then one table page.

use std::sync::Arc;

use bytes::Bytes;

use crate::format::block_table::{BlockRef, Entry, Separator};
use crate::format::footer::Footer;
use crate::ids::{Seq, StreamId, TimestampNs};

/// Sequences that exist but cannot be found any more: their block's head is unreadable and the
/// block table too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub stream: StreamId,
    pub first: Seq,
    pub last: Seq,
    pub offset: u64,
    pub reason: Arc<str>,
}

/// Highest sequence that a hole of unknown extent names; one below the largest, so that a reader
/// can go on behind it.
pub(super) const SEQ_UNKNOWN_END: Seq = Seq(u64::MAX - 1);

/// The block table of an open segment.
#[derive(Debug)]
pub(super) struct Table {
    /// First entry of each page, ascending.
    pub separators: Vec<Separator>,
    pub pages: Pages,
    /// Ascending by stream and sequence. Empty unless the table was rebuilt.
    pub holes: Vec<Hole>,
    /// Streams without any entry may have been in the file: where and why that is unknown.
    pub unknown: Option<(u64, Arc<str>)>,
}

/// Where table pages come from.
#[derive(Debug)]
pub(super) enum Pages {
    /// The file; the footer says where.
    File(Footer),
    /// Rebuilt from block heads.
    Memory(Vec<Bytes>),
}

impl Table {
    /// A table in memory. `blocks` must be sorted by stream and sequence.
    pub fn from_blocks(
        blocks: &[BlockRef],
        holes: Vec<Hole>,
        unknown: Option<(u64, Arc<str>)>,
    ) -> Table {
        let chunks = blocks.chunks(BlockRef::PER_PAGE);
        let separators = chunks
            .clone()
            .filter_map(|page| page.first().map(Separator::from))
            .collect();
        let pages = chunks
            .map(|page| {
                let mut payload = Vec::with_capacity(page.len() * BlockRef::BYTES);
                for block in page {
                    block.encode(&mut payload);
                }
                Bytes::from(payload)
            })
            .collect();
        Table {
            separators,
            pages: Pages::Memory(pages),
            holes,
            unknown,
        }
    }

    /// Position of the page that holds the last entry not behind (`stream`, `seq`).
    pub fn page_of(&self, stream: StreamId, seq: Seq) -> Option<usize> {
        self.separators
            .partition_point(|s| (s.stream, s.first_seq) <= (stream, seq))
            .checked_sub(1)
    }

    /// Position of the page that holds the last entry of `stream` whose largest timestamp so far
    /// is below `ts`, or the page before the stream's first separator.
    pub fn page_before_time(&self, stream: StreamId, ts: TimestampNs) -> Option<usize> {
        self.separators
            .partition_point(|s| s.stream < stream || (s.stream == stream && s.max_ts < ts))
            .checked_sub(1)
    }

    /// The first hole that covers (`stream`, `seq`) or lies between it and `end`.
    pub fn hole(&self, stream: StreamId, seq: Seq, end: Seq) -> Option<&Hole> {
        self.holes
            .iter()
            .find(|hole| hole.stream == stream && hole.last >= seq && hole.first < end)
    }
}
