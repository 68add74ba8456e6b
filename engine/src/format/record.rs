//! A message as it travels through the log: identity, bytes and the checksum that ties them
//! together for life.

use super::cursor::Cursor;
use super::{FormatError, varint};
use crate::ids::{Seq, StreamId, TimestampNs};

/// One message, borrowing its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Bits that the stream layer defines; stored and checksummed, not interpreted here.
    pub flags: u8,
    /// [`record_crc`] of all the above and the stream's id. Computed once, when the message is
    /// accepted; every later reader and copier verifies it and never computes it anew.
    pub crc: u32,
}

/// Bytes the fixed part of the checksummed identity takes.
const IDENTITY_BYTES: usize = 8 + 8 + 8 + 1 + 4 * 4;

/// Messages of up to this many checksummed bytes are copied together first.
const CONTIGUOUS_BYTES_MAX: usize = 512;

/// The checksum (CRC-32, ISO-HDLC) of a message: stream id, sequence, timestamp, flags, the four
/// lengths (`u32`), then subject, headers, payload and message id.
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
    let parts = [subject, headers, payload, msg_id];
    let mut identity = [0_u8; IDENTITY_BYTES];
    identity[0..8].copy_from_slice(&stream.0.to_le_bytes());
    identity[8..16].copy_from_slice(&seq.0.to_le_bytes());
    identity[16..24].copy_from_slice(&ts.0.to_le_bytes());
    identity[24] = flags;
    for (i, part) in parts.iter().enumerate() {
        let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
        identity[25 + 4 * i..29 + 4 * i].copy_from_slice(&len.to_le_bytes());
    }
    let total: usize = IDENTITY_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
    if total <= CONTIGUOUS_BYTES_MAX {
        // One run over contiguous bytes is several times faster than one over each short part.
        let mut buffer = [0_u8; CONTIGUOUS_BYTES_MAX];
        let mut end = 0;
        for part in [&identity[..], subject, headers, payload, msg_id] {
            buffer[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        return crc32fast::hash(&buffer[..end]);
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&identity);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

impl<'a> Record<'a> {
    /// The checksum that this record should carry in `stream`.
    pub fn computed_crc(&self, stream: StreamId) -> u32 {
        record_crc(
            stream,
            self.seq,
            self.ts,
            self.flags,
            self.subject,
            self.headers,
            self.payload,
            self.msg_id,
        )
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

    /// Appends the record: `flags1 ts8 crc4 seq~ slen~ hlen~ plen~ mlen~`, then the four byte
    /// strings (`~`: variable-length integer).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut fixed = [0_u8; 13];
        fixed[0] = self.flags;
        fixed[1..9].copy_from_slice(&self.ts.0.to_le_bytes());
        fixed[9..13].copy_from_slice(&self.crc.to_le_bytes());
        out.reserve(self.encoded_len());
        out.extend_from_slice(&fixed);
        varint::encode(self.seq.0, out);
        let parts = [self.subject, self.headers, self.payload, self.msg_id];
        for part in parts {
            varint::encode(part.len() as u64, out);
        }
        for part in parts {
            out.extend_from_slice(part);
        }
    }

    /// Bytes that [`Record::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        let parts = [self.subject, self.headers, self.payload, self.msg_id];
        13 + varint::encoded_len(self.seq.0)
            + parts
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
            crc,
        };
        record.verify(stream)?;
        Ok(record)
    }
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
            covered.push(6);
            for len in [3, 0, payload_len as u32, 2] {
                covered.extend_from_slice(&len.to_le_bytes());
            }
            covered.extend_from_slice(b"a.b");
            covered.extend_from_slice(&payload);
            covered.extend_from_slice(b"id");
            let crc = record_crc(stream, seq, ts, 6, b"a.b", b"", &payload, b"id");
            assert_eq!(crc, crc32fast::hash(&covered), "payload of {payload_len}");
        }
    }
}
