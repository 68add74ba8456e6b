//! The payload of a segment's pages: block table, its separators, and extents.
//!
//! All entries have a fixed length, so that a page is searched without parsing it. Table entries are
//! sorted by stream and sequence. `max_ts` is the largest timestamp of the extent up to and
//! including the block: it never falls, also where timestamps do, so that the first block with a
//! message at or after a time is found by binary search.

use super::FormatError;
use super::block::BlockHead;
use super::cursor::Cursor;
use super::page::PAYLOAD_BYTES_MAX;
use crate::ids::{Seq, StreamId, TimestampNs};

/// Something with a fixed encoded length that fills pages.
pub trait Entry: Sized {
    /// Encoded length in bytes.
    const BYTES: usize;
    /// Entries in a full page.
    const PER_PAGE: usize = PAYLOAD_BYTES_MAX / Self::BYTES;
    /// Appends the entry.
    fn encode(&self, out: &mut Vec<u8>);
    /// Decodes an entry.
    fn decode(input: &[u8]) -> Result<Self, FormatError>;

    /// Number of entries in a page.
    fn count(payload: &[u8]) -> usize {
        payload.len() / Self::BYTES
    }
    /// Entry number `index` of a page.
    fn at(payload: &[u8], index: usize) -> Option<Self> {
        let start = index.checked_mul(Self::BYTES)?;
        let bytes = payload.get(start..start.checked_add(Self::BYTES)?)?;
        Self::decode(bytes).ok()
    }
    /// Number of leading entries for which `holds` is true, if it is true for a prefix of them.
    fn partition_point(payload: &[u8], holds: impl Fn(&Self) -> bool) -> usize {
        let (mut low, mut high) = (0, Self::count(payload));
        while low < high {
            let middle = low + (high - low) / 2;
            if Self::at(payload, middle).is_some_and(|entry| holds(&entry)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Where a block is and what it holds: `stream8 first_seq8 last_seq8 max_ts8 offset8 disk_len4
/// content_digest8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// Stream of its records.
    pub stream: StreamId,
    /// First sequence.
    pub first_seq: Seq,
    /// Last sequence.
    pub last_seq: Seq,
    /// Largest timestamp of the extent up to here.
    pub max_ts: TimestampNs,
    /// Offset of the block's head in the file.
    pub offset: u64,
    /// Bytes behind the head.
    pub disk_len: u32,
    /// Digest of the raw bytes.
    pub content_digest: u64,
}

impl BlockRef {
    /// True if `head` is that of the block.
    pub fn names(&self, head: &BlockHead) -> bool {
        head.stream == self.stream
            && head.first_seq == self.first_seq
            && head.last_seq == self.last_seq
            && head.disk_len == self.disk_len
            && head.content_digest == self.content_digest
    }
}

impl Entry for BlockRef {
    const BYTES: usize = 52;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stream.0.to_le_bytes());
        out.extend_from_slice(&self.first_seq.0.to_le_bytes());
        out.extend_from_slice(&self.last_seq.0.to_le_bytes());
        out.extend_from_slice(&self.max_ts.0.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.disk_len.to_le_bytes());
        out.extend_from_slice(&self.content_digest.to_le_bytes());
    }

    fn decode(input: &[u8]) -> Result<BlockRef, FormatError> {
        let mut cursor = Cursor::new(input);
        Ok(BlockRef {
            stream: StreamId(cursor.u64()?),
            first_seq: Seq(cursor.u64()?),
            last_seq: Seq(cursor.u64()?),
            max_ts: TimestampNs(cursor.i64()?),
            offset: cursor.u64()?,
            disk_len: cursor.u32()?,
            content_digest: cursor.u64()?,
        })
    }
}

/// The start of a table page: `stream8 first_seq8 max_ts8` of its first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Separator {
    /// Stream of the page's first block.
    pub stream: StreamId,
    /// First sequence of that block.
    pub first_seq: Seq,
    /// Its largest timestamp so far.
    pub max_ts: TimestampNs,
}

impl Entry for Separator {
    const BYTES: usize = 24;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stream.0.to_le_bytes());
        out.extend_from_slice(&self.first_seq.0.to_le_bytes());
        out.extend_from_slice(&self.max_ts.0.to_le_bytes());
    }

    fn decode(input: &[u8]) -> Result<Separator, FormatError> {
        let mut cursor = Cursor::new(input);
        Ok(Separator {
            stream: StreamId(cursor.u64()?),
            first_seq: Seq(cursor.u64()?),
            max_ts: TimestampNs(cursor.i64()?),
        })
    }
}

impl From<&BlockRef> for Separator {
    fn from(block: &BlockRef) -> Separator {
        Separator {
            stream: block.stream,
            first_seq: block.first_seq,
            max_ts: block.max_ts,
        }
    }
}

/// All that a segment holds of one stream: `stream8 first_seq8 last_seq8 first_ts8 last_ts8 msgs8
/// bytes8 block_first4 blocks4 first_expiry8 first_notice8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentInfo {
    /// The stream.
    pub stream: StreamId,
    /// First sequence.
    pub first_seq: Seq,
    /// Last sequence.
    pub last_seq: Seq,
    /// Timestamp of the first message.
    pub first_ts: TimestampNs,
    /// Timestamp of the last message.
    pub last_ts: TimestampNs,
    /// Number of messages.
    pub msgs: u64,
    /// Bytes of all subjects, headers, payloads and message ids.
    pub bytes: u64,
    /// Position of the first block in the block table.
    pub block_first: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// When the first message expires by its own life time; [`TimestampNs::FAR`] for never.
    pub first_expiry: TimestampNs,
    /// When the first message is to be reported; [`TimestampNs::FAR`] for never.
    pub first_notice: TimestampNs,
}

impl Entry for ExtentInfo {
    const BYTES: usize = 80;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stream.0.to_le_bytes());
        out.extend_from_slice(&self.first_seq.0.to_le_bytes());
        out.extend_from_slice(&self.last_seq.0.to_le_bytes());
        out.extend_from_slice(&self.first_ts.0.to_le_bytes());
        out.extend_from_slice(&self.last_ts.0.to_le_bytes());
        out.extend_from_slice(&self.msgs.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.block_first.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        out.extend_from_slice(&self.first_expiry.0.to_le_bytes());
        out.extend_from_slice(&self.first_notice.0.to_le_bytes());
    }

    fn decode(input: &[u8]) -> Result<ExtentInfo, FormatError> {
        let mut cursor = Cursor::new(input);
        Ok(ExtentInfo {
            stream: StreamId(cursor.u64()?),
            first_seq: Seq(cursor.u64()?),
            last_seq: Seq(cursor.u64()?),
            first_ts: TimestampNs(cursor.i64()?),
            last_ts: TimestampNs(cursor.i64()?),
            msgs: cursor.u64()?,
            bytes: cursor.u64()?,
            block_first: cursor.u32()?,
            blocks: cursor.u32()?,
            first_expiry: TimestampNs(cursor.i64()?),
            first_notice: TimestampNs(cursor.i64()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: u64) -> BlockRef {
        BlockRef {
            stream: StreamId(1),
            first_seq: Seq(10 * n),
            last_seq: Seq(10 * n + 9),
            max_ts: TimestampNs(-5 + n as i64),
            offset: 64 + n,
            disk_len: 7,
            content_digest: u64::MAX - n,
        }
    }

    fn check<E: Entry + PartialEq + std::fmt::Debug>(entries: &[E]) {
        let mut page = Vec::new();
        for entry in entries {
            entry.encode(&mut page);
        }
        assert_eq!(page.len(), entries.len() * E::BYTES);
        assert_eq!(E::count(&page), entries.len());
        for (i, entry) in entries.iter().enumerate() {
            assert_eq!(E::at(&page, i).as_ref(), Some(entry));
        }
        assert_eq!(E::at(&page, entries.len()), None);
        assert_eq!(E::at(&page, usize::MAX), None);
        page.pop();
        assert_eq!(E::at(&page, entries.len() - 1), None);
    }

    #[test]
    fn entries_round_trip() {
        let blocks: Vec<BlockRef> = (0..5).map(block).collect();
        check(&blocks);
        check(&blocks.iter().map(Separator::from).collect::<Vec<_>>());
        check(&[ExtentInfo {
            stream: StreamId(1),
            first_seq: Seq(2),
            last_seq: Seq(3),
            first_ts: TimestampNs(-4),
            last_ts: TimestampNs(5),
            msgs: 6,
            bytes: 7,
            block_first: 8,
            blocks: 9,
            first_expiry: TimestampNs(10),
            first_notice: TimestampNs::FAR,
        }]);
    }

    #[test]
    fn partition_point_finds_the_border() {
        let mut page = Vec::new();
        for n in 0..BlockRef::PER_PAGE as u64 {
            block(n).encode(&mut page);
        }
        assert!(page.len() <= PAYLOAD_BYTES_MAX);
        for border in 0..=BlockRef::PER_PAGE {
            let found = BlockRef::partition_point(&page, |b| b.first_seq.0 < 10 * border as u64);
            assert_eq!(found, border);
        }
        assert_eq!(BlockRef::partition_point(&[], |_| true), 0);
    }
}
