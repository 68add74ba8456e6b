//! Keys and values of an index run's pages.
//!
//! A key is the stream (`u64`, big-endian) and the subject with its bytes reordered so that `.`
//! sorts first: then all subjects that share leading tokens are neighbours, and a wildcard filter
//! can start at its literal tokens.
//!
//! Key page: entries `shared~ suffix_len~ value_len~ suffix value`, where `shared` bytes are those
//! of the key before; every 16th entry shares none and its offset (`u16`) is listed behind the
//! entries, followed by the number of these offsets (`u16`).
//!
//! Value: `count~ first_seq~`, then for one posting `size~`, for several `seq_span~ bytes~ place~`.
//! Place 0: the postings follow as `seq_step~ size~`, the first step being 0. Else `place - 1` is
//! the number of the posting page where they start, followed by `offset~ further_pages~`.
//!
//! Posting page: chunks `count~ before~ first_seq~ size~ (seq_step~ size~)...`, `before` being the
//! number of postings of the list in earlier chunks. A list that needs several pages goes on at
//! offset 0 of the next.
//!
//! Separator page: `page_no~ key_len~ key` for each key page, ascending; the key is above every key
//! of the pages before and not above the first of its own.
//!
//! Long keys, those of subjects above [`PAGED_SUBJECT_BYTES_MAX`], are not searched but read from front to
//! back: `key_len~ value_len~ key value`, ascending, as one stream of bytes cut into pages.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::cursor::Cursor;
use super::page::PAYLOAD_BYTES_MAX;
use super::{FormatError, varint};
use crate::ids::{Seq, StreamId};

/// Longest subject, in bytes, of a key page: the key, a value with postings and the bookkeeping of
/// an entry fit.
pub const PAGED_SUBJECT_BYTES_MAX: usize = 3_600;
/// Postings that encode to more bytes go to posting pages.
pub const INLINE_POSTINGS_BYTES_MAX: usize = 256;
/// Entries from one whole key to the next.
const RESTART_INTERVAL: usize = 16;
/// Longest value: five numbers and the postings.
const VALUE_BYTES_MAX: usize = 5 * varint::BYTES_MAX + INLINE_POSTINGS_BYTES_MAX;
const STREAM_BYTES: usize = 8;

const _: () = assert!(
    // Three lengths, one offset and the number of offsets.
    9 + STREAM_BYTES + PAGED_SUBJECT_BYTES_MAX + VALUE_BYTES_MAX + 4 <= PAYLOAD_BYTES_MAX
);

/// Appends a long key with its value.
pub fn encode_long(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    varint::encode(key.len() as u64, out);
    varint::encode(value.len() as u64, out);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// Takes a long key and its value.
pub fn decode_long<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a [u8], &'a [u8]), FormatError> {
    let key_len = cursor.varint()?;
    let value_len = cursor.varint()?;
    Ok((cursor.bytes(key_len)?, cursor.bytes(value_len)?))
}

/// Swaps the order of bytes so that `.` comes first and the others keep theirs.
fn to_key_byte(byte: u8) -> u8 {
    match byte {
        b'.' => 0,
        0..b'.' => byte + 1,
        _ => byte,
    }
}

fn from_key_byte(byte: u8) -> u8 {
    match byte {
        0 => b'.',
        1..=b'.' => byte - 1,
        _ => byte,
    }
}

/// Appends the key of a subject, or of its first bytes.
pub fn encode_key(stream: StreamId, subject: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&stream.0.to_be_bytes());
    out.extend(subject.iter().copied().map(to_key_byte));
}

/// The hash of a key for the filter.
pub fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The order of subjects in a run: as bytes, but with `.` before every other.
pub fn compare_subjects(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    match a.iter().zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => to_key_byte(*a).cmp(&to_key_byte(*b)),
        None => a.len().cmp(&b.len()),
    }
}

/// Splits a key; the subject replaces the content of `subject`.
pub fn decode_key(key: &[u8], subject: &mut Vec<u8>) -> Result<StreamId, FormatError> {
    let (stream, rest) = key
        .split_first_chunk::<STREAM_BYTES>()
        .ok_or(FormatError::Truncated)?;
    subject.clear();
    subject.extend(rest.iter().copied().map(from_key_byte));
    Ok(StreamId(u64::from_be_bytes(*stream)))
}

/// Where an entry's postings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// There is one, of this size.
    One(u32),
    /// In the value.
    Inline(&'a [u8]),
    /// In posting pages.
    Pages {
        /// Number of the first page.
        page_no: u32,
        /// Offset in its payload.
        offset: u32,
        /// Pages after the first.
        further: u32,
    },
}

/// A decoded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Number of postings.
    pub count: u64,
    /// First sequence.
    pub first: Seq,
    /// Last sequence.
    pub last: Seq,
    /// Sum of all sizes.
    pub bytes: u64,
    /// Where the postings are.
    pub place: Place<'a>,
}

impl<'a> Value<'a> {
    /// Appends the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::encode(self.count, out);
        varint::encode(self.first.0, out);
        if let Place::One(size) = self.place {
            return varint::encode(u64::from(size), out);
        }
        varint::encode(self.last.0.wrapping_sub(self.first.0), out);
        varint::encode(self.bytes, out);
        match self.place {
            Place::One(_) => {}
            Place::Inline(postings) => {
                out.push(0);
                out.extend_from_slice(postings);
            }
            Place::Pages {
                page_no,
                offset,
                further,
            } => {
                varint::encode(u64::from(page_no) + 1, out);
                varint::encode(u64::from(offset), out);
                varint::encode(u64::from(further), out);
            }
        }
    }

    /// Decodes a value.
    pub fn decode(input: &'a [u8]) -> Result<Value<'a>, FormatError> {
        let mut cursor = Cursor::new(input);
        let count = cursor.varint()?;
        let first = Seq(cursor.varint()?);
        if count == 1 {
            let size = short(cursor.varint()?)?;
            return Ok(Value {
                count,
                first,
                last: first,
                bytes: u64::from(size),
                place: Place::One(size),
            });
        }
        let span = cursor.varint()?;
        let last = first.0.checked_add(span).ok_or(OUT_OF_RANGE)?;
        if count == 0 || count - 1 > span {
            return Err(OUT_OF_RANGE);
        }
        let bytes = cursor.varint()?;
        let place = match cursor.varint()? {
            0 => Place::Inline(cursor.rest()),
            place => Place::Pages {
                page_no: short(place - 1)?,
                offset: short(cursor.varint()?)?,
                further: short(cursor.varint()?)?,
            },
        };
        Ok(Value {
            count,
            first,
            last: Seq(last),
            bytes,
            place,
        })
    }
}

const OUT_OF_RANGE: FormatError = FormatError::OutOfRange {
    what: "index value",
};

fn short(value: u64) -> Result<u32, FormatError> {
    u32::try_from(value).map_err(|_| OUT_OF_RANGE)
}

/// Appends postings as steps from `from`.
pub fn encode_postings(mut from: Seq, postings: &[(Seq, u32)], out: &mut Vec<u8>) {
    for (seq, size) in postings {
        varint::encode(seq.0.wrapping_sub(from.0), out);
        varint::encode(u64::from(*size), out);
        from = *seq;
    }
}

/// Takes one posting.
pub fn decode_posting(cursor: &mut Cursor<'_>, from: Seq) -> Result<(Seq, u32), FormatError> {
    let step = cursor.varint()?;
    let seq = from.0.checked_add(step).ok_or(OUT_OF_RANGE)?;
    Ok((Seq(seq), short(cursor.varint()?)?))
}

/// Bytes that postings take in a chunk, without the two numbers in front of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkSize {
    bytes: usize,
    count: u64,
    last: Seq,
}

impl ChunkSize {
    /// Counts one more posting if the chunk, which comes after `before` others, then still fits
    /// `space` bytes.
    pub fn add(&mut self, before: u64, (seq, size): (Seq, u32), space: usize) -> bool {
        let bytes = self.bytes
            + varint::encoded_len(seq.0.wrapping_sub(self.last.0))
            + varint::encoded_len(u64::from(size));
        let head = varint::encoded_len(self.count + 1) + varint::encoded_len(before);
        if bytes + head > space {
            return false;
        }
        *self = ChunkSize {
            bytes,
            count: self.count + 1,
            last: seq,
        };
        true
    }
}

/// Appends postings as one chunk that comes after `before` others of its list.
pub fn encode_chunk(before: u64, postings: &[(Seq, u32)], out: &mut Vec<u8>) {
    varint::encode(postings.len() as u64, out);
    varint::encode(before, out);
    encode_postings(Seq(0), postings, out);
}

/// The numbers in front of a chunk's postings: how many there are, and how many came before.
pub fn decode_chunk_head(cursor: &mut Cursor<'_>) -> Result<(u64, u64), FormatError> {
    Ok((cursor.varint()?, cursor.varint()?))
}

/// Fills key pages.
#[derive(Debug, Default)]
pub struct KeyPageBuilder {
    payload: Vec<u8>,
    restarts: Vec<u16>,
    count: usize,
    last_key: Vec<u8>,
}

impl KeyPageBuilder {
    /// True before the first entry.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds an entry; false if it does not fit any more.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> bool {
        let is_restart = self.count.is_multiple_of(RESTART_INTERVAL);
        let shared = if is_restart {
            0
        } else {
            let same = key.iter().zip(&self.last_key).take_while(|(a, b)| a == b);
            same.count()
        };
        let suffix = &key[shared..];
        let head = [shared, suffix.len(), value.len()].map(|n| n as u64);
        let head_bytes: usize = head.iter().map(|n| varint::encoded_len(*n)).sum();
        let trailer = 2 * (self.restarts.len() + usize::from(is_restart) + 1);
        let bytes = head_bytes + suffix.len() + value.len() + trailer;
        if self.payload.len() + bytes > PAYLOAD_BYTES_MAX {
            return false;
        }
        if is_restart {
            self.restarts.push(self.payload.len() as u16);
        }
        for n in head {
            varint::encode(n, &mut self.payload);
        }
        self.payload.extend_from_slice(suffix);
        self.payload.extend_from_slice(value);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.count += 1;
        true
    }

    /// Completes the page and starts over.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut payload = std::mem::take(&mut self.payload);
        for restart in self.restarts.drain(..) {
            payload.extend_from_slice(&restart.to_le_bytes());
        }
        let restarts = self.count.div_ceil(RESTART_INTERVAL) as u16;
        payload.extend_from_slice(&restarts.to_le_bytes());
        self.count = 0;
        payload
    }
}

/// Walks the entries of a key page.
#[derive(Clone, Debug)]
pub struct KeyPage {
    payload: Bytes,
    /// Where the entries end and the offsets of whole keys begin.
    entries_end: usize,
    restarts: usize,
    at: usize,
    key: Vec<u8>,
}

impl KeyPage {
    /// Starts before the first entry.
    pub fn new(payload: Bytes) -> Result<KeyPage, FormatError> {
        let (rest, count) = payload
            .split_last_chunk::<2>()
            .ok_or(FormatError::Truncated)?;
        let bytes = 2 * usize::from(u16::from_le_bytes(*count));
        let entries_end = rest.len().checked_sub(bytes).ok_or(OUT_OF_RANGE)?;
        Ok(KeyPage {
            entries_end,
            restarts: bytes / 2,
            payload,
            at: 0,
            key: Vec::new(),
        })
    }

    /// The key of the entry that [`KeyPage::next_value`] returned last.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The page's payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Moves to the next entry and returns where its value is in the payload.
    pub fn next_value(&mut self) -> Result<Option<std::ops::Range<usize>>, FormatError> {
        let entries = self.payload.get(..self.entries_end).unwrap_or_default();
        let rest = entries.get(self.at..).ok_or(OUT_OF_RANGE)?;
        if rest.is_empty() {
            return Ok(None);
        }
        let mut cursor = Cursor::new(rest);
        let shared = cursor.varint()?;
        let suffix_len = cursor.varint()?;
        let value_len = cursor.varint()?;
        let suffix = cursor.bytes(suffix_len)?;
        let start = entries.len() - cursor.rest().len();
        cursor.bytes(value_len)?;
        let shared = usize::try_from(shared).unwrap_or(usize::MAX);
        if shared > self.key.len() {
            return Err(OUT_OF_RANGE);
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        self.at = entries.len() - cursor.rest().len();
        Ok(Some(start..self.at))
    }

    /// Moves before the first entry whose key is not below `key`, as far as whole keys tell; up to
    /// 15 smaller entries may come first.
    pub fn seek(&mut self, key: &[u8]) -> Result<(), FormatError> {
        let (mut low, mut high) = (0, self.restarts);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            self.restart(middle)?;
            self.next_value()?;
            if self.key.as_slice() <= key {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.restart(low)
    }

    fn restart(&mut self, index: usize) -> Result<(), FormatError> {
        let restarts = self.payload.get(self.entries_end..).unwrap_or_default();
        self.at = match restarts.get(2 * index..2 * index + 2) {
            Some(&[low, high]) if index < self.restarts => {
                usize::from(u16::from_le_bytes([low, high]))
            }
            _ => 0,
        };
        self.key.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(stream: u64, subject: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_key(StreamId(stream), subject, &mut out);
        out
    }

    #[test]
    fn keys_sort_by_stream_then_token_by_token() {
        let ordered = ["a", "a.b", "a.b.c", "a.c", "a!", "a-", "a/", "aa", "b"];
        for pair in ordered.windows(2) {
            assert!(
                key(1, pair[0].as_bytes()) < key(1, pair[1].as_bytes()),
                "{pair:?}"
            );
        }
        assert!(key(1, b"z") < key(2, b"a") && key(255, b"") < key(256, b""));
    }

    #[test]
    fn every_byte_survives_a_key() {
        let subject: Vec<u8> = (0..=255).collect();
        let mut found = Vec::new();
        assert_eq!(decode_key(&key(77, &subject), &mut found), Ok(StreamId(77)));
        assert_eq!(found, subject);
        assert!(decode_key(&[0; 7], &mut found).is_err());
    }

    #[test]
    fn the_largest_entry_fits_a_page() {
        let mut builder = KeyPageBuilder::default();
        let key = key(u64::MAX, &[b'x'; PAGED_SUBJECT_BYTES_MAX]);
        assert!(builder.push(&key, &[1; VALUE_BYTES_MAX]));
        assert!(builder.finish().len() <= PAYLOAD_BYTES_MAX);
    }

    #[test]
    fn a_chunk_takes_the_bytes_that_its_size_says() {
        let postings: Vec<(Seq, u32)> = (1..=1000).map(|n| (Seq(1000 * n), 500)).collect();
        for (space, before) in [
            (0, 0),
            (5, 0),
            (6, 0),
            (6, 200),
            (7, 200),
            (100, 9),
            (4080, 1),
        ] {
            let mut size = ChunkSize::default();
            let count = postings
                .iter()
                .take_while(|posting| size.add(before, **posting, space))
                .count();
            let mut out = Vec::new();
            encode_chunk(before, &postings[..count], &mut out);
            assert!(count == 0 || out.len() <= space);
            assert_eq!(count > 0, space >= 6 + usize::from(before > 127));
            if count < postings.len() {
                out.clear();
                encode_chunk(before, &postings[..=count], &mut out);
                assert!(out.len() > space, "one more would not fit");
            }
        }
    }

    proptest! {
        #[test]
        fn subjects_compare_like_their_keys(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(compare_subjects(&a, &b), key(1, &a).cmp(&key(1, &b)));
        }

        #[test]
        fn values_round_trip(first in 0..u64::MAX / 2, count in 1..100_u64, bytes: u32, pages: bool) {
            let place = match (count, pages) {
                (1, _) => Place::One(bytes),
                (_, true) => Place::Pages { page_no: bytes, offset: 4000, further: 3 },
                (_, false) => Place::Inline(b"postings"),
            };
            let last = Seq(first + (count - 1) * 3);
            let value = Value { count, first: Seq(first), last, bytes: bytes.into(), place };
            let mut out = Vec::new();
            value.encode(&mut out);
            prop_assert_eq!(Value::decode(&out), Ok(value));
        }

        #[test]
        fn pages_hold_what_was_pushed(
            subjects in prop::collection::btree_map("[a-c.]{1,30}", prop::collection::vec(any::<u8>(), 0..40), 1..200),
            probe in "[a-c.]{1,30}",
        ) {
            let mut entries: Vec<(Vec<u8>, Vec<u8>)> =
                subjects.into_iter().map(|(s, v)| (key(3, s.as_bytes()), v)).collect();
            entries.sort();
            let mut builder = KeyPageBuilder::default();
            let fitting = entries.iter().take_while(|(k, v)| builder.push(k, v)).count();
            entries.truncate(fitting);
            let payload = builder.finish();
            prop_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
            let mut page = KeyPage::new(Bytes::from(payload.clone())).unwrap();
            for (k, v) in &entries {
                let value = page.next_value().unwrap().unwrap();
                prop_assert_eq!((page.key(), &payload[value]), (&k[..], &v[..]));
            }
            prop_assert_eq!(page.next_value(), Ok(None));
            let probe = key(3, probe.as_bytes());
            page.seek(&probe).unwrap();
            let mut first = None;
            for _ in 0..=RESTART_INTERVAL {
                if page.next_value().unwrap().is_some() && page.key() >= &probe[..] {
                    first = Some(page.key().to_vec());
                    break;
                }
            }
            let expect = entries.iter().map(|(k, _)| k).find(|k| **k >= probe);
            prop_assert_eq!(first.as_ref(), expect);
        }

        #[test]
        fn garbage_pages_end(payload: Vec<u8>, probe: Vec<u8>) {
            if let Ok(mut page) = KeyPage::new(Bytes::from(payload.clone())) {
                let _ = page.seek(&probe);
                for _ in 0..=payload.len() {
                    match page.next_value() {
                        Ok(Some(value)) => { let _ = Value::decode(&payload[value]); }
                        _ => break,
                    }
                }
            }
        }
    }
}
