//! A stored message as readers and consumers see it.

use bytes::Bytes;

use crate::format::record::Record;
use crate::ids::{Seq, TimestampNs};

/// One stored message. Cloning shares the bytes.
///
/// Subject, headers, payload and message id lie one behind the other in a single buffer, so that a
/// message costs one reference count wherever it is passed, and headers and payload can be written
/// out as one slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Position in the stream.
    pub seq: Seq,
    /// Time of admission.
    pub ts: TimestampNs,
    /// Record flags, see [`crate::format::record`].
    pub flags: u8,
    /// The record's checksum, computed once at admission.
    pub crc: u32,
    subject_len: u32,
    headers_len: u32,
    payload_len: u32,
    body: Bytes,
}

/// Lengths of the parts of a message body, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLayout {
    /// Subject bytes.
    pub subject: u32,
    /// Header bytes.
    pub headers: u32,
    /// Payload bytes.
    pub payload: u32,
}

impl Message {
    /// Builds a message over `body`, which holds subject, headers, payload and message id in this
    /// order. `None` when the lengths do not fit the body.
    pub fn from_body(
        seq: Seq,
        ts: TimestampNs,
        flags: u8,
        crc: u32,
        layout: BodyLayout,
        body: Bytes,
    ) -> Option<Message> {
        let fixed =
            u64::from(layout.subject) + u64::from(layout.headers) + u64::from(layout.payload);
        if fixed > body.len() as u64 {
            return None;
        }
        Some(Message {
            seq,
            ts,
            flags,
            crc,
            subject_len: layout.subject,
            headers_len: layout.headers,
            payload_len: layout.payload,
            body,
        })
    }

    /// The subject.
    pub fn subject(&self) -> &[u8] {
        &self.body[..self.subject_len as usize]
    }

    /// The header block; empty when there is none.
    pub fn headers(&self) -> &[u8] {
        let at = self.subject_len as usize;
        &self.body[at..at + self.headers_len as usize]
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        let at = (self.subject_len + self.headers_len) as usize;
        &self.body[at..at + self.payload_len as usize]
    }

    /// Headers and payload as one slice.
    pub fn headers_and_payload(&self) -> &[u8] {
        let at = self.subject_len as usize;
        &self.body[at..at + (self.headers_len + self.payload_len) as usize]
    }

    /// The deduplication id given at admission; empty when there was none.
    pub fn msg_id(&self) -> &[u8] {
        &self.body[(self.subject_len + self.headers_len + self.payload_len) as usize..]
    }

    /// The subject as a shared slice.
    pub fn subject_bytes(&self) -> Bytes {
        self.body.slice(..self.subject_len as usize)
    }

    /// The header block as a shared slice.
    pub fn headers_bytes(&self) -> Bytes {
        let at = self.subject_len as usize;
        self.body.slice(at..at + self.headers_len as usize)
    }

    /// The payload as a shared slice.
    pub fn payload_bytes(&self) -> Bytes {
        let at = (self.subject_len + self.headers_len) as usize;
        self.body.slice(at..at + self.payload_len as usize)
    }

    /// The message as a log record.
    pub fn as_record(&self) -> Record<'_> {
        Record {
            seq: self.seq,
            ts: self.ts,
            subject: self.subject(),
            headers: self.headers(),
            payload: self.payload(),
            msg_id: self.msg_id(),
            flags: self.flags,
            crc: self.crc,
        }
    }

    /// Length of the whole body in bytes.
    pub fn body_len(&self) -> usize {
        self.body.len()
    }

    /// Lengths of the parts.
    pub fn layout(&self) -> BodyLayout {
        BodyLayout {
            subject: self.subject_len,
            headers: self.headers_len,
            payload: self.payload_len,
        }
    }
}
