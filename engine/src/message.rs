//! A stored message as readers and consumers see it.

use bytes::Bytes;

use crate::format::record::{self, Record, flag};
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
    /// Record flags, see [`crate::format::record::flag`].
    pub flags: u8,
    ttl_ns: u64,
    notify_at: TimestampNs,
    /// The record's checksum, computed once at admission.
    pub crc: u32,
    subject_len: u32,
    headers_len: u32,
    payload_len: u32,
    body: Bytes,
}

/// How long a message lives, whatever the stream's maximum age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Until it is removed for another reason than its age.
    Never,
    /// This long after its admission, or as long as the stream's maximum age if that is shorter.
    For {
        /// Nanoseconds.
        ttl_ns: u64,
    },
}

/// What a record says of a message besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageTimers {
    /// Bits of [`crate::format::record::flag`].
    pub flags: u8,
    /// Life time in nanoseconds, if the flags announce one.
    pub ttl_ns: u64,
    /// When to report it, if the flags announce that.
    pub notify_at: TimestampNs,
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
        timers: MessageTimers,
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
            flags: timers.flags,
            ttl_ns: timers.ttl_ns,
            notify_at: timers.notify_at,
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
            ttl_ns: self.ttl_ns,
            notify_at: self.notify_at,
            crc: self.crc,
        }
    }

    /// How long it lives, if that was said at admission.
    pub fn ttl(&self) -> Option<Ttl> {
        if self.flags & flag::NEVER != 0 {
            return Some(Ttl::Never);
        }
        let ttl_ns = self.ttl_ns;
        (self.flags & flag::TTL != 0).then_some(Ttl::For { ttl_ns })
    }

    /// When it expires by its own life time, if it has one. A maximum age of the stream may remove
    /// it earlier.
    pub fn expires_at(&self) -> Option<TimestampNs> {
        (self.flags & flag::TTL != 0).then(|| record::expiry(self.ts, self.ttl_ns))
    }

    /// When the embedder wants to hear of it, if ever.
    pub fn notify_at(&self) -> Option<TimestampNs> {
        (self.flags & flag::NOTIFY != 0).then_some(self.notify_at)
    }

    /// True if it never leaves for its age.
    pub fn is_ageless(&self) -> bool {
        self.flags & flag::NEVER != 0
    }

    /// True for a message that took the place of the last one of its subject, which expired.
    pub fn is_delete_marker(&self) -> bool {
        self.flags & flag::MARKER != 0
    }

    /// True if nothing takes its place when it expires as the last one of its subject.
    pub fn leaves_no_marker(&self) -> bool {
        self.flags & (flag::MARKER | flag::NO_MARKER) != 0
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
