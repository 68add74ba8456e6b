//! Parts of a delivered message (DLV-001, CCFG-022).

use bytes::{Bytes, BytesMut};
use riverlog_engine::{Delivery, Message};

use super::super::ack_subject::{AckToken, write_token};
use super::super::consumer_handle::ConsumerHandle;
use super::super::types::consumer_config::ConsumerConfig;
use crate::protocol::headers;

/// Bytes of one allocation that acknowledgement subjects are cut from.
const ACK_SUBJECT_CHUNK: usize = 16 * 1024;
/// Longest five tokens: numbers of up to 20 digits and the dots between.
const TOKEN_BYTES_MAX: usize = 5 * 20 + 4;

/// Makes acknowledgement subjects with few allocations.
#[derive(Default)]
pub(super) struct AckSubjects(BytesMut);

impl AckSubjects {
    /// The reply subject of a delivery.
    pub fn make(&mut self, consumer: &ConsumerHandle, delivery: &Delivery) -> Bytes {
        let token = AckToken {
            delivered: delivery.deliveries,
            stream_seq: delivery.message.seq.0,
            consumer_seq: delivery.consumer_seq,
            ts: delivery.message.ts,
            pending: delivery.num_pending,
        };
        if self.0.capacity() < consumer.ack_prefix.len() + TOKEN_BYTES_MAX {
            self.0.reserve(ACK_SUBJECT_CHUNK);
        }
        self.0.extend_from_slice(&consumer.ack_prefix);
        write_token(&mut self.0, &token);
        self.0.split().freeze()
    }
}

/// Headers and payload as the consumer wants them.
pub(super) fn content(config: &ConsumerConfig, message: &Message) -> (Option<Bytes>, Bytes) {
    let stored = message.headers_bytes();
    if config.headers_only {
        let size = message.payload().len().to_string();
        let block = headers::append(&stored, b"Nats-Msg-Size", size.as_bytes());
        return (Some(block.into()), Bytes::new());
    }
    (
        (!stored.is_empty()).then_some(stored),
        message.payload_bytes(),
    )
}
