//! Publish acknowledgements that wait until their operation is durable.
//!
//! An acknowledgement means durable. A stream's internal subscriber runs in the read loop of the
//! publishing connection; it appends to the log, learns the LSN, queues a [`PendingAck`] on that
//! connection and returns, so that the connection goes on with its next frame. When the durable
//! position moves, the read loop sends every acknowledgement it covers and wakes the receivers once.
//!
//! The queue also counts the payload bytes that were admitted but are not durable yet. When it is
//! full the connection stops reading until half of it has drained, so the pressure of a slow disk
//! reaches the publisher in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::encode;

/// Most acknowledgements waiting per connection.
pub const ACKS_MAX: usize = 64 * 1024;
/// Most payload bytes admitted but not durable per connection.
pub const ADMITTED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An acknowledgement that goes out once the durable position is at least `lsn`.
#[derive(Clone, Debug)]
pub struct PendingAck {
    /// Position of the operation in the log; 0 when nothing has to be waited for.
    pub lsn: u64,
    /// Where to send it; empty when the publisher wants none and only the bytes are counted.
    pub reply: Bytes,
    /// What to send.
    pub body: AckBody,
    /// Bytes admitted by the operation, for back-pressure.
    pub admitted_bytes: usize,
}

/// Content of an acknowledgement (WIRE section 10).
#[derive(Clone, Debug)]
pub enum AckBody {
    /// `{"stream":"S","seq":1[,"duplicate": true]}`
    PubAck {
        /// Everything before the sequence, from [`AckBody::stream_part`]; made once per stream.
        stream_part: Arc<str>,
        /// Sequence of the stored message, or of the original of a duplicate.
        seq: u64,
        /// The message was known already.
        duplicate: bool,
    },
    /// Any other body.
    Raw(Bytes),
}

impl AckBody {
    /// The start of an acknowledgement, up to and including `"seq":`.
    pub fn stream_part(stream: &str, domain: Option<&str>) -> Arc<str> {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match domain {
            None => format!("{{\"stream\":{},\"seq\":", quoted(stream)).into(),
            Some(domain) => format!(
                "{{\"stream\":{},\"domain\":{},\"seq\":",
                quoted(stream),
                quoted(domain)
            )
            .into(),
        }
    }

    /// Appends the body.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            AckBody::PubAck {
                stream_part,
                seq,
                duplicate,
            } => {
                out.extend_from_slice(stream_part.as_bytes());
                encode::number(out, *seq);
                out.extend_from_slice(if *duplicate {
                    b",\"duplicate\": true}"
                } else {
                    b"}"
                });
            }
            AckBody::Raw(body) => out.extend_from_slice(body),
        }
    }
}

/// Acknowledgements of one connection, in the order of its messages.
#[derive(Debug, Default)]
pub struct AckQueue {
    entries: VecDeque<PendingAck>,
    admitted_bytes: usize,
    blocked: bool,
}

impl AckQueue {
    /// Adds one.
    pub fn push(&mut self, ack: PendingAck) {
        self.admitted_bytes += ack.admitted_bytes;
        self.entries.push_back(ack);
    }

    /// Takes the next one if it is covered by `durable_lsn`.
    pub fn pop_durable(&mut self, durable_lsn: u64) -> Option<PendingAck> {
        let ack = self.entries.pop_front_if(|ack| ack.lsn <= durable_lsn)?;
        self.admitted_bytes -= ack.admitted_bytes;
        Some(ack)
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True while the connection must not read: from full until half empty.
    pub fn blocks_reading(&mut self) -> bool {
        let over = |part: usize| {
            self.entries.len() >= ACKS_MAX / part
                || self.admitted_bytes >= ADMITTED_BYTES_MAX / part
        };
        self.blocked = if self.blocked { over(2) } else { over(1) };
        self.blocked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(lsn: u64, admitted_bytes: usize) -> PendingAck {
        PendingAck {
            lsn,
            reply: Bytes::from_static(b"r"),
            body: AckBody::Raw(Bytes::new()),
            admitted_bytes,
        }
    }

    fn text(body: &AckBody) -> String {
        let mut out = Vec::new();
        body.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bodies_have_the_exact_bytes_of_the_protocol() {
        let pub_ack = |domain, duplicate| AckBody::PubAck {
            stream_part: AckBody::stream_part("ORDERS", domain),
            seq: 22,
            duplicate,
        };
        assert_eq!(
            text(&pub_ack(None, false)),
            r#"{"stream":"ORDERS","seq":22}"#
        );
        assert_eq!(
            text(&pub_ack(None, true)),
            r#"{"stream":"ORDERS","seq":22,"duplicate": true}"#
        );
        assert_eq!(
            text(&pub_ack(Some("hub"), false)),
            r#"{"stream":"ORDERS","domain":"hub","seq":22}"#
        );
        assert_eq!(text(&AckBody::Raw(Bytes::from_static(b"x"))), "x");
    }

    #[test]
    fn acknowledgements_leave_in_order_and_only_when_durable() {
        let mut queue = AckQueue::default();
        for lsn in [3, 4, 4, 7] {
            queue.push(ack(lsn, 1));
        }
        assert!(queue.pop_durable(2).is_none());
        let popped: Vec<u64> = std::iter::from_fn(|| queue.pop_durable(4))
            .map(|ack| ack.lsn)
            .collect();
        assert_eq!(popped, [3, 4, 4]);
        assert!(!queue.is_empty());
        assert_eq!(queue.pop_durable(100).map(|ack| ack.lsn), Some(7));
        assert!(queue.is_empty());
    }

    #[test]
    fn reading_stops_at_the_byte_bound_and_resumes_at_half() {
        let mut queue = AckQueue::default();
        for lsn in 1..=4 {
            assert!(!queue.blocks_reading());
            queue.push(ack(lsn, ADMITTED_BYTES_MAX / 4));
        }
        assert!(queue.blocks_reading());
        queue.pop_durable(1);
        queue.pop_durable(2);
        assert!(queue.blocks_reading());
        queue.pop_durable(3);
        assert!(!queue.blocks_reading());
    }

    #[test]
    fn reading_stops_at_the_count_bound() {
        let mut queue = AckQueue::default();
        for lsn in 0..ACKS_MAX as u64 {
            queue.push(ack(lsn, 0));
        }
        assert!(queue.blocks_reading());
        while queue.pop_durable(ACKS_MAX as u64 / 2).is_some() {}
        assert!(!queue.blocks_reading());
    }
}
