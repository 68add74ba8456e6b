//! Operations: what the log is made of. An op carries its effects (an eviction names the sequences
//! it removes), so that replaying it needs no look-up and gives the same state every time.

use std::borrow::Cow;

use super::cursor::Cursor;
use super::record::Record;
use super::{FormatError, varint};
use crate::ids::{ConsumerId, Seq, StreamId, TimestampNs};

/// Kind bytes. A number is never given a second meaning.
pub mod kind {
    /// [`super::Op::Append`]
    pub const APPEND: u8 = 1;
    /// [`super::Op::Remove`]
    pub const REMOVE: u8 = 2;
    /// [`super::Op::Trim`]
    pub const TRIM: u8 = 3;
    /// [`super::Op::Skip`]
    pub const SKIP: u8 = 4;
    /// [`super::Op::StreamPut`]
    pub const STREAM_PUT: u8 = 5;
    /// [`super::Op::StreamDelete`]
    pub const STREAM_DELETE: u8 = 6;
    /// [`super::Op::ConsumerPut`]
    pub const CONSUMER_PUT: u8 = 7;
    /// [`super::Op::ConsumerDelete`]
    pub const CONSUMER_DELETE: u8 = 8;
    /// [`super::Op::ConsumerDelta`]
    pub const CONSUMER_DELTA: u8 = 9;
    /// [`super::Op::Erase`]
    pub const ERASE: u8 = 10;
}

/// Consecutive sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// The first one.
    pub first: Seq,
    /// How many; at least 1.
    pub count: u64,
}

impl SeqRange {
    /// The last sequence of the range, or `None` if there is none (empty or past the last `u64`).
    pub fn last(&self) -> Option<Seq> {
        self.first
            .0
            .checked_add(self.count.checked_sub(1)?)
            .map(Seq)
    }
}

/// One change of a stream, a consumer or the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// A message was appended.
    Append {
        /// The stream.
        stream: StreamId,
        /// The message.
        record: Record<'a>,
    },
    /// Messages were removed one by one.
    Remove {
        /// The stream.
        stream: StreamId,
        /// The sequences. Any order decodes; ascending is the shortest.
        ranges: Cow<'a, [SeqRange]>,
        /// Live messages that this removed.
        msgs: u64,
        /// Their logical bytes.
        bytes: u64,
    },
    /// Everything below `first_seq` was removed.
    Trim {
        /// The stream.
        stream: StreamId,
        /// The new first sequence.
        first_seq: Seq,
        /// Live messages that this removed.
        msgs: u64,
        /// Their logical bytes.
        bytes: u64,
    },
    /// The sequences up to `last_seq` are given without a message.
    Skip {
        /// The stream.
        stream: StreamId,
        /// The new last sequence.
        last_seq: Seq,
    },
    /// A stream was created or its configuration replaced.
    StreamPut {
        /// The stream.
        stream: StreamId,
        /// When it was created.
        created: TimestampNs,
        /// When it got this configuration.
        changed: TimestampNs,
        /// Encoded configuration.
        config: &'a [u8],
    },
    /// A stream was deleted, with its consumers.
    StreamDelete {
        /// The stream.
        stream: StreamId,
    },
    /// A consumer was created or its configuration replaced.
    ConsumerPut {
        /// The stream.
        stream: StreamId,
        /// The consumer.
        consumer: ConsumerId,
        /// When it was created.
        created: TimestampNs,
        /// Encoded configuration.
        config: &'a [u8],
    },
    /// A consumer was deleted.
    ConsumerDelete {
        /// The stream.
        stream: StreamId,
        /// The consumer.
        consumer: ConsumerId,
    },
    /// Deliveries and acknowledgements of a consumer.
    ConsumerDelta {
        /// The stream.
        stream: StreamId,
        /// The consumer.
        consumer: ConsumerId,
        /// Encoded events.
        events: &'a [u8],
    },
    /// A message was removed, and its bytes must leave the disk.
    Erase {
        /// The stream.
        stream: StreamId,
        /// The message.
        seq: Seq,
        /// Its logical bytes.
        bytes: u64,
        /// When its bytes must be gone.
        deadline: TimestampNs,
    },
}

impl<'a> Op<'a> {
    /// The stream the op belongs to.
    pub fn stream(&self) -> StreamId {
        match self {
            Op::Append { stream, .. }
            | Op::Remove { stream, .. }
            | Op::Trim { stream, .. }
            | Op::Skip { stream, .. }
            | Op::StreamPut { stream, .. }
            | Op::StreamDelete { stream }
            | Op::ConsumerPut { stream, .. }
            | Op::ConsumerDelete { stream, .. }
            | Op::ConsumerDelta { stream, .. }
            | Op::Erase { stream, .. } => *stream,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Op::Append { .. } => kind::APPEND,
            Op::Remove { .. } => kind::REMOVE,
            Op::Trim { .. } => kind::TRIM,
            Op::Skip { .. } => kind::SKIP,
            Op::StreamPut { .. } => kind::STREAM_PUT,
            Op::StreamDelete { .. } => kind::STREAM_DELETE,
            Op::ConsumerPut { .. } => kind::CONSUMER_PUT,
            Op::ConsumerDelete { .. } => kind::CONSUMER_DELETE,
            Op::ConsumerDelta { .. } => kind::CONSUMER_DELTA,
            Op::Erase { .. } => kind::ERASE,
        }
    }

    /// Appends the op: `kind1 stream~ body`, and for every kind but `Append` (whose record has its
    /// own checksum) a `crc4` of these bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(self.kind());
        varint::encode(self.stream().0, out);
        match self {
            Op::Append { record, .. } => {
                record.encode(out);
                return;
            }
            Op::Remove {
                ranges,
                msgs,
                bytes,
                ..
            } => {
                varint::encode(*msgs, out);
                varint::encode(*bytes, out);
                encode_ranges(ranges, out);
            }
            Op::Trim {
                first_seq,
                msgs,
                bytes,
                ..
            } => {
                varint::encode(first_seq.0, out);
                varint::encode(*msgs, out);
                varint::encode(*bytes, out);
            }
            Op::Skip { last_seq, .. } => varint::encode(last_seq.0, out),
            Op::StreamPut {
                created,
                changed,
                config,
                ..
            } => {
                out.extend_from_slice(&created.0.to_le_bytes());
                out.extend_from_slice(&changed.0.to_le_bytes());
                encode_sized(config, out);
            }
            Op::StreamDelete { .. } => {}
            Op::ConsumerPut {
                consumer,
                created,
                config,
                ..
            } => {
                varint::encode(consumer.0, out);
                out.extend_from_slice(&created.0.to_le_bytes());
                encode_sized(config, out);
            }
            Op::ConsumerDelete { consumer, .. } => varint::encode(consumer.0, out),
            Op::ConsumerDelta {
                consumer, events, ..
            } => {
                varint::encode(consumer.0, out);
                encode_sized(events, out);
            }
            Op::Erase {
                seq,
                bytes,
                deadline,
                ..
            } => {
                varint::encode(seq.0, out);
                varint::encode(*bytes, out);
                out.extend_from_slice(&deadline.0.to_le_bytes());
            }
        }
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// Takes one op from the front of `input`; returns it and the rest. Checksums are verified.
    pub fn decode(input: &'a [u8]) -> Result<(Op<'a>, &'a [u8]), FormatError> {
        let mut cursor = Cursor::new(input);
        let kind = cursor.u8()?;
        let stream = StreamId(cursor.varint()?);
        if kind == kind::APPEND {
            let record = Record::decode(stream, &mut cursor)?;
            return Ok((Op::Append { stream, record }, cursor.rest()));
        }
        let op = decode_body(kind, stream, &mut cursor)?;
        let checked = &input[..input.len() - cursor.rest().len()];
        let stored = cursor.u32()?;
        let computed = crc32fast::hash(checked);
        if stored != computed {
            return Err(FormatError::ChecksumMismatch {
                what: "op",
                stored: u64::from(stored),
                computed: u64::from(computed),
            });
        }
        Ok((op, cursor.rest()))
    }
}

fn decode_body<'a>(
    kind: u8,
    stream: StreamId,
    cursor: &mut Cursor<'a>,
) -> Result<Op<'a>, FormatError> {
    Ok(match kind {
        kind::REMOVE => {
            let msgs = cursor.varint()?;
            let bytes = cursor.varint()?;
            let ranges = Cow::Owned(decode_ranges(cursor)?);
            Op::Remove {
                stream,
                ranges,
                msgs,
                bytes,
            }
        }
        kind::TRIM => Op::Trim {
            stream,
            first_seq: Seq(cursor.varint()?),
            msgs: cursor.varint()?,
            bytes: cursor.varint()?,
        },
        kind::SKIP => Op::Skip {
            stream,
            last_seq: Seq(cursor.varint()?),
        },
        kind::STREAM_PUT => Op::StreamPut {
            stream,
            created: TimestampNs(cursor.i64()?),
            changed: TimestampNs(cursor.i64()?),
            config: cursor.sized_bytes()?,
        },
        kind::STREAM_DELETE => Op::StreamDelete { stream },
        kind::CONSUMER_PUT => Op::ConsumerPut {
            stream,
            consumer: ConsumerId(cursor.varint()?),
            created: TimestampNs(cursor.i64()?),
            config: cursor.sized_bytes()?,
        },
        kind::CONSUMER_DELETE => Op::ConsumerDelete {
            stream,
            consumer: ConsumerId(cursor.varint()?),
        },
        kind::CONSUMER_DELTA => Op::ConsumerDelta {
            stream,
            consumer: ConsumerId(cursor.varint()?),
            events: cursor.sized_bytes()?,
        },
        kind::ERASE => Op::Erase {
            stream,
            seq: Seq(cursor.varint()?),
            bytes: cursor.varint()?,
            deadline: TimestampNs(cursor.i64()?),
        },
        found => return Err(FormatError::UnknownKind { what: "op", found }),
    })
}

fn encode_sized(bytes: &[u8], out: &mut Vec<u8>) {
    varint::encode(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// `n~`, then per range the zigzag distance of its first sequence from the end of the range before
/// (from 0 for the first one) and its count.
fn encode_ranges(ranges: &[SeqRange], out: &mut Vec<u8>) {
    varint::encode(ranges.len() as u64, out);
    let mut end = 0_u64;
    for range in ranges {
        debug_assert!(range.last().is_some(), "an empty range would not decode");
        varint::encode(varint::zigzag(range.first.0.wrapping_sub(end) as i64), out);
        varint::encode(range.count, out);
        end = range.first.0.wrapping_add(range.count);
    }
}

fn decode_ranges(cursor: &mut Cursor<'_>) -> Result<Vec<SeqRange>, FormatError> {
    let count = cursor.varint()?;
    // A range takes at least two bytes, so the bytes at hand bound the allocation.
    if count > cursor.rest().len() as u64 / 2 {
        return Err(FormatError::Truncated);
    }
    let mut ranges = Vec::with_capacity(count as usize);
    let mut end = 0_u64;
    for _ in 0..count {
        let first = end.wrapping_add(varint::unzigzag(cursor.varint()?) as u64);
        let range = SeqRange {
            first: Seq(first),
            count: cursor.varint()?,
        };
        if range.last().is_none() {
            return Err(FormatError::OutOfRange {
                what: "removed range",
            });
        }
        end = first.wrapping_add(range.count);
        ranges.push(range);
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::format::record::flag;

    /// An op with owned bytes, for generators.
    #[derive(Clone, Debug)]
    pub(crate) struct Sample {
        kind: u8,
        numbers: [u64; 5],
        bytes: [Vec<u8>; 4],
        ranges: Vec<SeqRange>,
    }

    impl Sample {
        pub(crate) fn op(&self) -> Op<'_> {
            let [a, b, c, d, e] = self.numbers;
            let stream = StreamId(a);
            let consumer = ConsumerId(b);
            let created = TimestampNs(c as i64);
            match self.kind {
                kind::APPEND => {
                    let [subject, headers, payload, msg_id] = self.bytes.each_ref();
                    let mut flags = d as u8;
                    if !flag::are_valid(flags) {
                        flags &= flag::NOTIFY | flag::MARKER | flag::TTL;
                    }
                    let has = |bit| u64::from(flags & bit != 0);
                    let mut record = Record {
                        seq: Seq(b),
                        ts: created,
                        subject,
                        headers,
                        payload,
                        msg_id,
                        flags,
                        ttl_ns: e * has(flag::TTL),
                        notify_at: TimestampNs((e * has(flag::NOTIFY)) as i64),
                        crc: 0,
                    };
                    record.crc = record.computed_crc(stream);
                    Op::Append { stream, record }
                }
                kind::REMOVE => Op::Remove {
                    stream,
                    ranges: Cow::Borrowed(&self.ranges),
                    msgs: d,
                    bytes: e,
                },
                kind::TRIM => Op::Trim {
                    stream,
                    first_seq: Seq(b),
                    msgs: d,
                    bytes: e,
                },
                kind::SKIP => Op::Skip {
                    stream,
                    last_seq: Seq(b),
                },
                kind::STREAM_PUT => Op::StreamPut {
                    stream,
                    created,
                    changed: TimestampNs(created.0.wrapping_mul(3)),
                    config: &self.bytes[0],
                },
                kind::STREAM_DELETE => Op::StreamDelete { stream },
                kind::CONSUMER_PUT => Op::ConsumerPut {
                    stream,
                    consumer,
                    created,
                    config: &self.bytes[0],
                },
                kind::CONSUMER_DELETE => Op::ConsumerDelete { stream, consumer },
                kind::CONSUMER_DELTA => Op::ConsumerDelta {
                    stream,
                    consumer,
                    events: &self.bytes[0],
                },
                _ => Op::Erase {
                    stream,
                    seq: Seq(b),
                    bytes: d,
                    deadline: created,
                },
            }
        }
    }

    fn range() -> impl Strategy<Value = SeqRange> {
        (any::<u64>(), 1_u64..1000).prop_map(|(first, count)| SeqRange {
            first: Seq(first.min(u64::MAX - 1000)),
            count,
        })
    }

    pub(crate) fn sample() -> impl Strategy<Value = Sample> {
        let number = prop_oneof![0_u64..300, any::<u64>()];
        let bytes = vec(any::<u8>(), 0..40);
        (
            kind::APPEND..=kind::ERASE,
            [
                number.clone(),
                number.clone(),
                number.clone(),
                number.clone(),
                number,
            ],
            [bytes.clone(), bytes.clone(), bytes.clone(), bytes],
            vec(range(), 0..6),
        )
            .prop_map(|(kind, numbers, bytes, ranges)| Sample {
                kind,
                numbers,
                bytes,
                ranges,
            })
    }

    fn encoded(op: &Op<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        op.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn round_trip_leaves_the_rest(sample in sample(), tail: Vec<u8>) {
            let mut bytes = encoded(&sample.op());
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(Op::decode(&bytes), Ok((sample.op(), &tail[..])));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, kind in 0_u8..12) {
            let _ = Op::decode(&bytes);
            let mut with_kind = vec![kind];
            with_kind.extend_from_slice(&bytes);
            let _ = Op::decode(&with_kind);
        }

        #[test]
        fn every_truncation_is_an_error(sample in sample()) {
            let bytes = encoded(&sample.op());
            for len in 0..bytes.len() {
                prop_assert!(Op::decode(&bytes[..len]).is_err(), "cut at {}", len);
            }
        }

        #[test]
        fn every_bit_flip_is_an_error(sample in sample()) {
            let bytes = encoded(&sample.op());
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(Op::decode(&bad).is_err(), "bit {} of {:?}", bit, bytes);
            }
        }
    }

    #[test]
    fn a_huge_range_count_is_refused_before_allocation() {
        let mut bytes = vec![kind::REMOVE, 1, 0, 0];
        varint::encode(u64::MAX, &mut bytes);
        assert_eq!(Op::decode(&bytes), Err(FormatError::Truncated));
    }

    #[test]
    fn an_unknown_kind_is_named() {
        assert_eq!(
            Op::decode(&[200, 1, 0, 0, 0, 0]),
            Err(FormatError::UnknownKind {
                what: "op",
                found: 200
            })
        );
    }
}
