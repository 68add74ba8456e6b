//! A message as it travels through the log: identity, bytes and the checksum that ties them
//! together for life.

use super::cursor::Cursor;
use super::{FormatError, varint};
use crate::ids::{Seq, StreamId, TimestampNs};

/// Bits of [`Record::flags`]. Each number has one meaning for good; a record with other bits is
/// unreadable, because they may say that fields follow.
pub mod flag {
    /// The message lives for `ttl_ns`, which is stored.
    pub const TTL: u8 = 1;
    /// The message is never removed for its age.
    pub const NEVER: u8 = 2;
    /// The message is to be reported at `notify_at`, which is stored.
    pub const NOTIFY: u8 = 4;
    /// The message stands for the last one of its subject, which expired.
    pub const MARKER: u8 = 8;
    /// When the message expires as the last one of its subject, nothing takes its place.
    pub const NO_MARKER: u8 = 16;

    const KNOWN: u8 = TTL | NEVER | NOTIFY | MARKER | NO_MARKER;

    /// False for bits without a meaning, and for a life time of a message that lives for ever.
    pub fn are_valid(flags: u8) -> bool {
        flags & !KNOWN == 0 && flags & (TTL | NEVER) != TTL | NEVER
    }
}

/// One message, borrowing its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// Position in the stream.
    pub seq: Seq,
    /// When it was accepted.
    pub ts: TimestampNs,
    /// Subject.
    pub subject: &'a [u8],
    /// Header block, opaque to the engine; empty if there is none.
    pub headers: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// Deduplication id; empty if there is none.
    pub msg_id: &'a [u8],
    /// Bits of [`flag`].
    pub flags: u8,
    /// Nanoseconds after `ts` when the message expires; 0 without [`flag::TTL`].
    pub ttl_ns: u64,
    /// When the message is to be reported; 0 without [`flag::NOTIFY`].
    pub notify_at: TimestampNs,
    /// [`record_crc`] of all the above and the stream's id. Computed once, when the message is
    /// accepted; every later reader and copier verifies it and never computes it anew.
    pub crc: u32,
}

/// Bytes the fixed part of the checksummed identity takes, and most bytes of its optional part.
const IDENTITY_BYTES: usize = 8 + 8 + 8 + 1 + 4 * 4;
const TIMERS_BYTES_MAX: usize = 8 + 8;

/// Messages of up to this many checksummed bytes are copied together first.
const CONTIGUOUS_BYTES_MAX: usize = 512;

/// [`Record::computed_crc`] of a record without timers.
#[expect(
    clippy::too_many_arguments,
    reason = "the fields of a record, before it exists"
)]
pub fn record_crc(
    stream: StreamId,
    seq: Seq,
    ts: TimestampNs,
    flags: u8,
    subject: &[u8],
    headers: &[u8],
    payload: &[u8],
    msg_id: &[u8],
) -> u32 {
    let record = Record {
        seq,
        ts,
        subject,
        headers,
        payload,
        msg_id,
        flags,
        ..Record::default()
    };
    record.computed_crc(stream)
}

impl<'a> Record<'a> {
    /// The checksum (CRC-32, ISO-HDLC) that this record should carry in `stream`: stream id,
    /// sequence, timestamp, flags, the four lengths (`u32`), what of `ttl_ns` and `notify_at` the
    /// flags announce (8 bytes each), then subject, headers, payload and message id.
    pub fn computed_crc(&self, stream: StreamId) -> u32 {
        let parts = self.parts();
        let mut identity = [0_u8; IDENTITY_BYTES + TIMERS_BYTES_MAX];
        identity[0..8].copy_from_slice(&stream.0.to_le_bytes());
        identity[8..16].copy_from_slice(&self.seq.0.to_le_bytes());
        identity[16..24].copy_from_slice(&self.ts.0.to_le_bytes());
        identity[24] = self.flags;
        for (i, part) in parts.iter().enumerate() {
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            identity[25 + 4 * i..29 + 4 * i].copy_from_slice(&len.to_le_bytes());
        }
        let mut identity_len = IDENTITY_BYTES;
        for (bit, value) in [
            (flag::TTL, self.ttl_ns.to_le_bytes()),
            (flag::NOTIFY, self.notify_at.0.to_le_bytes()),
        ] {
            if self.flags & bit != 0 {
                identity[identity_len..identity_len + 8].copy_from_slice(&value);
                identity_len += 8;
            }
        }
        let identity = &identity[..identity_len];
        let total: usize = identity_len + parts.iter().map(|part| part.len()).sum::<usize>();
        if total <= CONTIGUOUS_BYTES_MAX {
            // One run over contiguous bytes is several times faster than one over each short part.
            let mut buffer = [0_u8; CONTIGUOUS_BYTES_MAX];
            let mut end = 0;
            for part in [identity].into_iter().chain(parts) {
                buffer[end..end + part.len()].copy_from_slice(part);
                end += part.len();
            }
            return crc32fast::hash(&buffer[..end]);
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(identity);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }

    fn parts(&self) -> [&'a [u8]; 4] {
        [self.subject, self.headers, self.payload, self.msg_id]
    }

    /// When the message expires by its own life time, if it has one.
    pub fn expires_at(&self) -> Option<TimestampNs> {
        (self.flags & flag::TTL != 0).then(|| expiry(self.ts, self.ttl_ns))
    }

    /// When the message is to be reported, if ever.
    pub fn due_for_notice(&self) -> Option<TimestampNs> {
        (self.flags & flag::NOTIFY != 0).then_some(self.notify_at)
    }

    /// Compares [`Record::crc`] with the bytes.
    pub fn verify(&self, stream: StreamId) -> Result<(), FormatError> {
        let computed = self.computed_crc(stream);
        if computed == self.crc {
            return Ok(());
        }
        Err(FormatError::ChecksumMismatch {
            what: "record",
            stored: u64::from(self.crc),
            computed: u64::from(computed),
        })
    }

    /// Appends the record: `flags1 ts8 crc4 seq~ [ttl_ns~] [notify_at~] slen~ hlen~ plen~ mlen~`,
    /// then the four byte strings (`~`: variable-length integer).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut fixed = [0_u8; 13];
        fixed[0] = self.flags;
        fixed[1..9].copy_from_slice(&self.ts.0.to_le_bytes());
        fixed[9..13].copy_from_slice(&self.crc.to_le_bytes());
        out.reserve(self.encoded_len());
        out.extend_from_slice(&fixed);
        varint::encode(self.seq.0, out);
        self.encode_timers(out);
        let parts = self.parts();
        for part in parts {
            varint::encode(part.len() as u64, out);
        }
        for part in parts {
            out.extend_from_slice(part);
        }
    }

    /// Appends what of `ttl_ns` and `notify_at` the flags announce.
    pub(super) fn encode_timers(&self, out: &mut Vec<u8>) {
        if self.flags & flag::TTL != 0 {
            varint::encode(self.ttl_ns, out);
        }
        if self.flags & flag::NOTIFY != 0 {
            varint::encode(varint::zigzag(self.notify_at.0), out);
        }
    }

    fn timers_len(&self) -> usize {
        let ttl_ns = varint::encoded_len(self.ttl_ns);
        let notify_at = varint::encoded_len(varint::zigzag(self.notify_at.0));
        [(flag::TTL, ttl_ns), (flag::NOTIFY, notify_at)]
            .iter()
            .filter(|(bit, _)| self.flags & bit != 0)
            .map(|(_, len)| len)
            .sum()
    }

    /// Bytes that [`Record::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        13 + varint::encoded_len(self.seq.0)
            + self.timers_len()
            + self
                .parts()
                .iter()
                .map(|p| varint::encoded_len(p.len() as u64) + p.len())
                .sum::<usize>()
    }

    /// Takes a record of `stream` from the cursor and verifies its checksum.
    pub fn decode(stream: StreamId, input: &mut Cursor<'a>) -> Result<Record<'a>, FormatError> {
        let flags = input.u8()?;
        let ts = TimestampNs(input.i64()?);
        let crc = input.u32()?;
        let seq = Seq(input.varint()?);
        let (ttl_ns, notify_at) = decode_timers(flags, input)?;
        let mut lens = [0_u64; 4];
        for len in &mut lens {
            *len = input.varint()?;
        }
        let record = Record {
            seq,
            ts,
            subject: input.bytes(lens[0])?,
            headers: input.bytes(lens[1])?,
            payload: input.bytes(lens[2])?,
            msg_id: input.bytes(lens[3])?,
            flags,
            ttl_ns,
            notify_at,
            crc,
        };
        record.verify(stream)?;
        Ok(record)
    }
}

/// When a message of `ts` with this life time expires.
pub(crate) fn expiry(ts: TimestampNs, ttl_ns: u64) -> TimestampNs {
    let ttl_ns = i64::try_from(ttl_ns).unwrap_or(i64::MAX);
    TimestampNs(ts.0.saturating_add(ttl_ns))
}

/// Takes what of `ttl_ns` and `notify_at` the flags announce.
pub(super) fn decode_timers(
    flags: u8,
    input: &mut Cursor<'_>,
) -> Result<(u64, TimestampNs), FormatError> {
    if !flag::are_valid(flags) {
        return Err(FormatError::OutOfRange {
            what: "record flags",
        });
    }
    let ttl_ns = match flags & flag::TTL {
        0 => 0,
        _ => input.varint()?,
    };
    let notify_at = match flags & flag::NOTIFY {
        0 => 0,
        _ => varint::unzigzag(input.varint()?),
    };
    Ok((ttl_ns, TimestampNs(notify_at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_does_not_depend_on_how_it_is_computed() {
        for payload_len in [0, 1, 100, 400, 460, 470, 480, 600, 5_000] {
            let payload = vec![0x5a; payload_len];
            let (stream, seq, ts) = (StreamId(3), Seq(4), TimestampNs(5));
            let mut covered = Vec::new();
            covered.extend_from_slice(&3_u64.to_le_bytes());
            covered.extend_from_slice(&4_u64.to_le_bytes());
            covered.extend_from_slice(&5_u64.to_le_bytes());
            covered.push(flag::MARKER);
            for len in [3, 0, payload_len as u32, 2] {
                covered.extend_from_slice(&len.to_le_bytes());
            }
            covered.extend_from_slice(b"a.b");
            covered.extend_from_slice(&payload);
            covered.extend_from_slice(b"id");
            let crc = record_crc(stream, seq, ts, flag::MARKER, b"a.b", b"", &payload, b"id");
            assert_eq!(crc, crc32fast::hash(&covered), "payload of {payload_len}");
        }
    }

    #[test]
    fn timers_are_stored_and_covered_by_the_checksum() {
        let stream = StreamId(3);
        let mut record = Record {
            seq: Seq(4),
            ts: TimestampNs(5),
            subject: b"a",
            flags: flag::TTL | flag::NOTIFY | flag::MARKER,
            ttl_ns: 1 << 40,
            notify_at: TimestampNs(-7),
            ..Record::default()
        };
        record.crc = record.computed_crc(stream);
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(bytes.len(), record.encoded_len());
        let decode = |bytes: &[u8]| {
            Record::decode(stream, &mut Cursor::new(bytes))
                .ok()
                .is_some()
        };
        assert_eq!(Record::decode(stream, &mut Cursor::new(&bytes)), Ok(record));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!decode(&bytes), "bit {bit} went unnoticed");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..bytes.len() {
            assert!(!decode(&bytes[..len]));
        }
    }

    #[test]
    fn flags_without_a_meaning_are_refused() {
        for flags in [32, 64, 128, flag::TTL | flag::NEVER] {
            let mut record = Record {
                seq: Seq(1),
                flags,
                ..Record::default()
            };
            record.crc = record.computed_crc(StreamId(1));
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let decoded = Record::decode(StreamId(1), &mut Cursor::new(&bytes));
            let what = "record flags";
            assert_eq!(decoded, Err(FormatError::OutOfRange { what }), "{flags}");
        }
    }
}
