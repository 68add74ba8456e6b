//! Blocks: the units in which sealed messages are stored, compressed, checked and cached.
//!
//! Head, 80 bytes: `magic4 codec1 key1 reserved2 | stream8 first_seq8 last_seq8 | first_ts8 max_ts8 |
//! count4 raw_len4 disk_len4 | content_digest8 disk_digest8 | head_crc4`, then `disk_len` bytes.
//! `head_crc` also covers the identity of the file and the offset of the block. `content_digest`
//! is the XXH3-64 of the raw bytes and the same in whatever file and codec the content is stored;
//! `disk_digest` is that of the bytes on disk and checked before they are decrypted and decompressed.
//! Of an encrypted block the content digest would give something away, and it repeats the other.
//!
//! Raw bytes: records, then the offset (`u32`) of every 16th record, then the number of these
//! offsets (`u32`). A record is `shape1 [seq_step~] ts_step~ [flags1 [ttl_ns~] [notify_at~]]
//! subject_len~ [headers_len~] payload_len~ [msg_id_len~] crc4`, then subject, headers, payload and message id (`~`:
//! variable-length integer). Steps count from the record before; those of every 16th record count
//! from the block's first sequence and timestamp, so that reading can start there.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::cipher::{Opener, Sealer, TRAILER_BYTES, Unit};
use super::cursor::Cursor;
use super::identity::FileIdentity;
use super::record::{self, Record};
use super::{FormatError, varint};
use crate::ids::{Seq, StreamId, TimestampNs};

/// First bytes of a block.
pub const MAGIC: [u8; 4] = *b"RLBk";
/// Bytes of a block's head.
pub const HEAD_BYTES: usize = 80;
const CHECKED_BYTES: usize = HEAD_BYTES - 4;
/// Bytes of the head, up to the digests, that an encrypted block authenticates.
const AUTHENTICATED_BYTES: usize = 60;
/// A block is sealed before a further record would make its raw bytes exceed this. A larger record
/// gets a block of its own.
pub const RAW_BYTES_TARGET: usize = 32 * 1024;
/// Most raw bytes of any block: bounds the memory that a read can need.
pub const RAW_BYTES_MAX: u32 = 128 * 1024 * 1024;
/// Records from one place where reading can start to the next.
pub const RESTART_INTERVAL: u32 = 16;

const SHAPE_HEADERS: u8 = 1;
const SHAPE_MSG_ID: u8 = 2;
const SHAPE_FLAGS: u8 = 4;
const SHAPE_SEQ_STEP: u8 = 8;
const SHAPE_KNOWN: u8 = 15;

/// How a block's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    None = 0,
    /// S2 block format.
    S2 = 1,
}

/// A block's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHead {
    /// How the bytes behind the head are stored.
    pub codec: Codec,
    /// Mark of the key that they are encrypted with; 0 for none.
    pub key: u8,
    /// Stream of all records.
    pub stream: StreamId,
    /// Sequence of the first record.
    pub first_seq: Seq,
    /// Sequence of the last record.
    pub last_seq: Seq,
    /// Timestamp of the first record.
    pub first_ts: TimestampNs,
    /// Largest timestamp.
    pub max_ts: TimestampNs,
    /// Number of records.
    pub count: u32,
    /// Bytes after decompression.
    pub raw_len: u32,
    /// Bytes behind the head.
    pub disk_len: u32,
    /// Digest of the raw bytes; in an encrypted block that of the bytes behind the head.
    pub content_digest: u64,
    /// Digest of the bytes behind the head.
    pub disk_digest: u64,
}

/// Digest of raw or stored block bytes.
pub fn content_digest(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

fn head_crc(identity: FileIdentity, offset: u64, head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&identity.digest(offset, b"").to_le_bytes());
    hasher.update(head);
    hasher.finalize()
}

impl BlockHead {
    /// The head's bytes for a block at `offset` of a file.
    pub fn encode(&self, identity: FileIdentity, offset: u64) -> [u8; HEAD_BYTES] {
        let mut out = [0_u8; HEAD_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = self.codec as u8;
        out[5] = self.key;
        out[8..16].copy_from_slice(&self.stream.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_seq.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.last_seq.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_ts.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.max_ts.0.to_le_bytes());
        out[48..52].copy_from_slice(&self.count.to_le_bytes());
        out[52..56].copy_from_slice(&self.raw_len.to_le_bytes());
        out[56..60].copy_from_slice(&self.disk_len.to_le_bytes());
        out[60..68].copy_from_slice(&self.content_digest.to_le_bytes());
        out[68..76].copy_from_slice(&self.disk_digest.to_le_bytes());
        let crc = head_crc(identity, offset, &out[..CHECKED_BYTES]);
        out[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes the head at the front of `input`, read at `offset` of the file.
    pub fn decode(
        identity: FileIdentity,
        offset: u64,
        input: &[u8],
    ) -> Result<BlockHead, FormatError> {
        let mut cursor = Cursor::new(input);
        let bytes: [u8; HEAD_BYTES] = cursor.array()?;
        let mut cursor = Cursor::new(&bytes);
        if cursor.array()? != MAGIC {
            return Err(FormatError::MagicMismatch { what: "block" });
        }
        let computed = head_crc(identity, offset, &bytes[..CHECKED_BYTES]);
        let codec = cursor.u8()?;
        let key = cursor.u8()?;
        let _reserved = cursor.u16()?;
        let head = BlockHead {
            codec: Codec::None,
            key,
            stream: StreamId(cursor.u64()?),
            first_seq: Seq(cursor.u64()?),
            last_seq: Seq(cursor.u64()?),
            first_ts: TimestampNs(cursor.i64()?),
            max_ts: TimestampNs(cursor.i64()?),
            count: cursor.u32()?,
            raw_len: cursor.u32()?,
            disk_len: cursor.u32()?,
            content_digest: cursor.u64()?,
            disk_digest: cursor.u64()?,
        };
        let stored = cursor.u32()?;
        if stored != computed {
            return Err(FormatError::ChecksumMismatch {
                what: "block head",
                stored: u64::from(stored),
                computed: u64::from(computed),
            });
        }
        let codec = match codec {
            0 => Codec::None,
            1 => Codec::S2,
            found => {
                return Err(FormatError::UnknownKind {
                    what: "block codec",
                    found,
                });
            }
        };
        let head = BlockHead { codec, ..head };
        head.check()?;
        Ok(head)
    }

    fn check(&self) -> Result<(), FormatError> {
        let span = self.last_seq.0.checked_sub(self.first_seq.0);
        let count_fits =
            self.count > 0 && span.is_some_and(|span| u64::from(self.count - 1) <= span);
        if !count_fits || self.last_seq.0 == u64::MAX {
            return Err(FormatError::OutOfRange {
                what: "block sequences",
            });
        }
        let same_digest = self.content_digest == self.disk_digest;
        let stored_fits = match (self.stored_len(), self.codec) {
            (Some(stored), Codec::None) => stored == self.raw_len && same_digest,
            (Some(stored), Codec::S2) => stored <= self.raw_len && (self.key == 0 || same_digest),
            (None, _) => false,
        };
        if self.raw_len > RAW_BYTES_MAX || !stored_fits {
            return Err(FormatError::OutOfRange {
                what: "block length",
            });
        }
        Ok(())
    }

    /// Bytes behind the head without what encryption adds; `None` if there are fewer than it adds.
    fn stored_len(&self) -> Option<u32> {
        match self.key {
            0 => Some(self.disk_len),
            _ => self.disk_len.checked_sub(TRAILER_BYTES as u32),
        }
    }

    /// Bytes of the whole block on disk.
    pub fn block_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.disk_len)
    }
}

/// A finished block: its head and the bytes that follow it on disk.
#[derive(Debug)]
pub struct EncodedBlock<'a> {
    /// The head, to be encoded for the place where the block goes.
    pub head: BlockHead,
    /// Stored bytes.
    pub disk: std::borrow::Cow<'a, [u8]>,
}

impl EncodedBlock<'_> {
    /// Appends the block as it stands at `offset` of a file; returns its head there.
    pub fn seal(self, sealer: &Sealer, offset: u64, out: &mut Vec<u8>) -> BlockHead {
        let mut head = self.head;
        let start = out.len();
        let body = start + HEAD_BYTES;
        out.reserve(HEAD_BYTES + self.disk.len() + TRAILER_BYTES);
        out.resize(body, 0);
        out.extend_from_slice(&self.disk);
        head.key = sealer.mark();
        if head.key != 0 {
            head.disk_len += TRAILER_BYTES as u32;
        }
        let encoded = head.encode(sealer.identity(), offset);
        let authenticated = &encoded[..AUTHENTICATED_BYTES];
        if let Some(trailer) = sealer.seal(Unit::Block(offset), authenticated, &mut out[body..]) {
            out.extend_from_slice(&trailer);
            head.disk_digest = content_digest(&out[body..]);
            head.content_digest = head.disk_digest;
        }
        out[start..body].copy_from_slice(&head.encode(sealer.identity(), offset));
        head
    }
}

/// Collects the records of one block. The buffer is reused from block to block.
#[derive(Debug)]
pub struct BlockBuilder {
    stream: StreamId,
    raw: Vec<u8>,
    restarts: Vec<u32>,
    count: u32,
    first: (Seq, TimestampNs),
    last: (Seq, TimestampNs),
    max_ts: TimestampNs,
}

impl BlockBuilder {
    /// An empty block of `stream`.
    pub fn new(stream: StreamId) -> BlockBuilder {
        BlockBuilder {
            stream,
            raw: Vec::with_capacity(RAW_BYTES_TARGET),
            restarts: Vec::new(),
            count: 0,
            first: (Seq(0), TimestampNs(0)),
            last: (Seq(0), TimestampNs(0)),
            max_ts: TimestampNs(0),
        }
    }

    /// Starts over with an empty block of `stream`.
    pub fn reset(&mut self, stream: StreamId) {
        // One large record must not pin its buffer for the rest of the file.
        if self.raw.capacity() > 4 * RAW_BYTES_TARGET {
            self.raw = Vec::with_capacity(RAW_BYTES_TARGET);
        }
        self.raw.clear();
        self.restarts.clear();
        self.count = 0;
        self.stream = stream;
    }

    /// True before the first record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the record may join the block: always into an empty one, else while the block stays
    /// below [`RAW_BYTES_TARGET`].
    pub fn accepts(&self, record: &Record<'_>) -> bool {
        let trailer = 4 * (self.restarts.len() + 2);
        self.count == 0 || self.raw.len() + record_bytes_max(record) + trailer <= RAW_BYTES_TARGET
    }

    /// Adds a record. Sequences must ascend.
    ///
    /// # Errors
    ///
    /// [`FormatError::OutOfRange`] if the sequence does not ascend or the record is too large for
    /// any block; the block is unchanged.
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), FormatError> {
        if (self.count > 0 && record.seq <= self.last.0) || record.seq.0 == u64::MAX {
            return Err(FormatError::OutOfRange {
                what: "record sequence",
            });
        }
        let end = self.raw.len() + record_bytes_max(record) + 4 * (self.restarts.len() + 2);
        if end > RAW_BYTES_MAX as usize {
            return Err(FormatError::OutOfRange {
                what: "record length",
            });
        }
        if self.count == 0 {
            self.first = (record.seq, record.ts);
            self.max_ts = record.ts;
        }
        let mut from = self.last;
        if self.count.is_multiple_of(RESTART_INTERVAL) {
            self.restarts.push(self.raw.len() as u32);
            from = self.first;
        }
        encode_record(record, from, &mut self.raw);
        self.last = (record.seq, record.ts);
        self.max_ts = self.max_ts.max(record.ts);
        self.count += 1;
        Ok(())
    }

    /// Completes the block, which must not be empty, and stores it as the smaller of raw and S2
    /// where S2 is allowed.
    pub fn finish(&mut self, codec: Codec) -> EncodedBlock<'_> {
        debug_assert!(self.count > 0, "a block has at least one record");
        for restart in &self.restarts {
            self.raw.extend_from_slice(&restart.to_le_bytes());
        }
        let restarts = self.restarts.len() as u32;
        self.raw.extend_from_slice(&restarts.to_le_bytes());
        let digest = content_digest(&self.raw);
        let mut head = BlockHead {
            codec: Codec::None,
            key: 0,
            stream: self.stream,
            first_seq: self.first.0,
            last_seq: self.last.0,
            first_ts: self.first.1,
            max_ts: self.max_ts,
            count: self.count,
            raw_len: self.raw.len() as u32,
            disk_len: self.raw.len() as u32,
            content_digest: digest,
            disk_digest: digest,
        };
        if codec == Codec::S2 {
            let packed = minlz::s2::encode(&self.raw);
            if packed.len() < self.raw.len() {
                head.codec = Codec::S2;
                head.disk_len = packed.len() as u32;
                head.disk_digest = content_digest(&packed);
                return EncodedBlock {
                    head,
                    disk: packed.into(),
                };
            }
        }
        EncodedBlock {
            head,
            disk: (&self.raw[..]).into(),
        }
    }
}

/// Upper bound of a record's bytes in a block.
fn record_bytes_max(record: &Record<'_>) -> usize {
    let parts = [
        record.subject,
        record.headers,
        record.payload,
        record.msg_id,
    ];
    let body: usize = parts.iter().map(|part| part.len()).sum();
    body + 6 + 8 * varint::BYTES_MAX
}

fn encode_record(record: &Record<'_>, from: (Seq, TimestampNs), out: &mut Vec<u8>) {
    let seq_step = record.seq.0.wrapping_sub(from.0.0);
    let mut shape = 0;
    for (bit, present) in [
        (SHAPE_HEADERS, !record.headers.is_empty()),
        (SHAPE_MSG_ID, !record.msg_id.is_empty()),
        (SHAPE_FLAGS, record.flags != 0),
        (SHAPE_SEQ_STEP, seq_step != 1),
    ] {
        if present {
            shape |= bit;
        }
    }
    out.push(shape);
    if seq_step != 1 {
        varint::encode(seq_step, out);
    }
    varint::encode(varint::zigzag(record.ts.0.wrapping_sub(from.1.0)), out);
    if record.flags != 0 {
        out.push(record.flags);
        record.encode_timers(out);
    }
    varint::encode(record.subject.len() as u64, out);
    if !record.headers.is_empty() {
        varint::encode(record.headers.len() as u64, out);
    }
    varint::encode(record.payload.len() as u64, out);
    if !record.msg_id.is_empty() {
        varint::encode(record.msg_id.len() as u64, out);
    }
    out.extend_from_slice(&record.crc.to_le_bytes());
    for part in [
        record.subject,
        record.headers,
        record.payload,
        record.msg_id,
    ] {
        out.extend_from_slice(part);
    }
}

/// Checks the bytes behind a head and decrypts them in place; returns how many of them are the stored
/// block.
///
/// # Errors
///
/// The digest differs, the key is missing, or the block is not what was encrypted.
pub fn open(
    opener: &Opener,
    offset: u64,
    head: &BlockHead,
    disk: &mut [u8],
) -> Result<usize, FormatError> {
    if disk.len() != head.disk_len as usize {
        return Err(FormatError::Truncated);
    }
    check_digest("stored block", head.disk_digest, disk)?;
    let unit = Unit::Block(offset);
    if head.key == 0 {
        opener.take_plain(unit)?;
        return Ok(disk.len());
    }
    let (body, trailer) = disk
        .split_last_chunk_mut::<TRAILER_BYTES>()
        .ok_or(FormatError::Truncated)?;
    let encoded = head.encode(opener.identity(), offset);
    let authenticated = &encoded[..AUTHENTICATED_BYTES];
    opener.open(head.key, unit, authenticated, body, trailer)?;
    Ok(body.len())
}

/// Decompresses what [`open`] checked; `None` if it is the raw bytes themselves.
///
/// # Errors
///
/// A digest or a length differs, or the bytes are no S2 block.
pub fn unpack(head: &BlockHead, stored: &[u8]) -> Result<Option<Vec<u8>>, FormatError> {
    if head.codec == Codec::None {
        return Ok(None);
    }
    let invalid = FormatError::OutOfRange { what: "S2 block" };
    match minlz::s2::decode_len(stored) {
        Ok((len, _)) if len == head.raw_len as usize && len <= RAW_BYTES_MAX as usize => {}
        _ => return Err(invalid),
    }
    let raw = minlz::s2::decode(stored).map_err(|_| invalid)?;
    if head.key == 0 {
        check_digest("block content", head.content_digest, &raw)?;
    }
    Ok(Some(raw))
}

fn check_digest(what: &'static str, stored: u64, bytes: &[u8]) -> Result<(), FormatError> {
    let computed = content_digest(bytes);
    if computed == stored {
        return Ok(());
    }
    Err(FormatError::ChecksumMismatch {
        what,
        stored,
        computed,
    })
}

/// The offsets behind the records: where reading can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarts {
    /// Where the first offset is, which is where the records end.
    pub at: usize,
    /// Number of offsets.
    pub count: usize,
}

impl Restarts {
    /// Finds the offsets of a block with `records` records at the end of its raw bytes.
    pub fn find(raw: &[u8], records: u32) -> Result<Restarts, FormatError> {
        let (_, tail) = raw.split_last_chunk::<4>().ok_or(FormatError::Truncated)?;
        let count = u32::from_le_bytes(*tail);
        let out_of_range = FormatError::OutOfRange {
            what: "record offsets",
        };
        if count != records.div_ceil(RESTART_INTERVAL) {
            return Err(out_of_range);
        }
        let bytes = 4 * (u64::from(count) + 1);
        let at = (raw.len() as u64).checked_sub(bytes).ok_or(out_of_range)?;
        Ok(Restarts {
            at: at as usize,
            count: count as usize,
        })
    }

    /// Offset number `index`; `None` beyond the last or outside the records.
    pub fn get(self, raw: &[u8], index: usize) -> Option<usize> {
        if index >= self.count {
            return None;
        }
        let at = self.at + 4 * index;
        let bytes = raw.get(at..at + 4)?;
        let offset = u32::from_le_bytes(bytes.try_into().ok()?) as usize;
        (offset < self.at).then_some(offset)
    }
}

/// Where a record and its parts are in the raw bytes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSpan {
    /// Sequence.
    pub seq: Seq,
    /// Timestamp.
    pub ts: TimestampNs,
    /// Flags.
    pub flags: u8,
    /// Life time in nanoseconds, if the flags announce one.
    pub ttl_ns: u64,
    /// When to report it, if the flags announce that.
    pub notify_at: TimestampNs,
    /// Stored checksum.
    pub crc: u32,
    /// Length of the subject.
    pub subject_len: u32,
    /// Length of the headers.
    pub headers_len: u32,
    /// Length of the payload.
    pub payload_len: u32,
    /// Subject, headers, payload and message id. The record ends where this does.
    pub body: Range<usize>,
}

impl RecordSpan {
    /// Parses the record at `at` of `records`, whose steps count from `from`. Checks only that it
    /// lies inside.
    pub fn parse(
        records: &[u8],
        at: usize,
        from: (Seq, TimestampNs),
    ) -> Result<RecordSpan, FormatError> {
        let mut cursor = Cursor::new(records.get(at..).ok_or(FormatError::Truncated)?);
        let shape = cursor.u8()?;
        if shape & !SHAPE_KNOWN != 0 {
            return Err(FormatError::UnknownKind {
                what: "record shape",
                found: shape,
            });
        }
        let optional = |cursor: &mut Cursor<'_>, bit: u8, absent: u64| {
            if shape & bit == 0 {
                return Ok(absent);
            }
            cursor.varint()
        };
        let seq_step = optional(&mut cursor, SHAPE_SEQ_STEP, 1)?;
        let ts_step = varint::unzigzag(cursor.varint()?);
        let flags = match shape & SHAPE_FLAGS {
            0 => 0,
            _ => cursor.u8()?,
        };
        let (ttl_ns, notify_at) = record::decode_timers(flags, &mut cursor)?;
        let subject_len = cursor.varint()?;
        let headers_len = optional(&mut cursor, SHAPE_HEADERS, 0)?;
        let payload_len = cursor.varint()?;
        let msg_id_len = optional(&mut cursor, SHAPE_MSG_ID, 0)?;
        let crc = cursor.u32()?;
        let start = records.len() - cursor.rest().len();
        let lens = [subject_len, headers_len, payload_len, msg_id_len];
        let len = lens
            .iter()
            .try_fold(0_u64, |sum, len| sum.checked_add(*len))
            .ok_or(FormatError::Truncated)?;
        cursor.bytes(len)?;
        // The parts are no longer than the block, and blocks are shorter than 4 GiB.
        let short = |len: u64| u32::try_from(len).map_err(|_| FormatError::Truncated);
        Ok(RecordSpan {
            seq: Seq(from.0.0.wrapping_add(seq_step)),
            ts: TimestampNs(from.1.0.wrapping_add(ts_step)),
            flags,
            ttl_ns,
            notify_at,
            crc,
            subject_len: short(subject_len)?,
            headers_len: short(headers_len)?,
            payload_len: short(payload_len)?,
            body: start..start + len as usize,
        })
    }

    /// The record over the raw bytes that it was parsed from.
    pub fn record<'a>(&self, records: &'a [u8]) -> Option<Record<'a>> {
        let body = records.get(self.body.clone())?;
        let (subject, rest) = body.split_at_checked(self.subject_len as usize)?;
        let (headers, rest) = rest.split_at_checked(self.headers_len as usize)?;
        let (payload, msg_id) = rest.split_at_checked(self.payload_len as usize)?;
        Some(Record {
            seq: self.seq,
            ts: self.ts,
            subject,
            headers,
            payload,
            msg_id,
            flags: self.flags,
            ttl_ns: self.ttl_ns,
            notify_at: self.notify_at,
            crc: self.crc,
        })
    }
}
