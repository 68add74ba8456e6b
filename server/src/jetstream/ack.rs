//! Acknowledgements of deliveries (ACK rows), applied inside the read loop of the connection that
//! sent them. The answer, if one is asked for, waits until the change is durable.

use std::sync::Arc;

use bytes::Bytes;
use riverlog_engine::consumer::AckOutcome;
use riverlog_engine::ids::Seq;
use riverlog_engine::{AckResult, ChangeError, Lsn};

use super::ack_subject::{self, AckKind};
use super::advisories;
use super::consumer_handle::ConsumerHandle;
use super::pull;
use super::shared::Shared;
use super::stream_handle::StreamHandle;
use super::time::now;
use super::types::enums::AckPolicy;
use crate::net::acks::{AckBody, PendingAck};
use crate::routing::{Inbound, InternalSubscriber};

/// Takes everything published under `$JS.ACK`.
pub(crate) struct AckSubscriber {
    pub shared: Arc<Shared>,
}

impl InternalSubscriber for AckSubscriber {
    fn deliver(&self, message: &Inbound<'_>) -> bool {
        let Some(target) = std::str::from_utf8(message.subject)
            .ok()
            .and_then(ack_subject::parse)
        else {
            return false;
        };
        let Some(stream) = self.shared.stream(target.stream) else {
            return false;
        };
        let Some(consumer) = stream.consumer(target.consumer) else {
            return false;
        };
        if consumer.config().ack_policy == AckPolicy::None {
            return false;
        }
        if let Some(kind) = AckKind::parse(message.payload) {
            let seq = Seq(target.stream_seq);
            apply(&self.shared, &stream, &consumer, message, seq, &kind);
        }
        true
    }
}

/// Takes answers to flow control requests, `$JS.FC.<stream>.<consumer>.<token>`.
pub(crate) struct FlowSubscriber {
    pub shared: Arc<Shared>,
}

impl InternalSubscriber for FlowSubscriber {
    fn deliver(&self, message: &Inbound<'_>) -> bool {
        let tokens = std::str::from_utf8(message.subject)
            .ok()
            .and_then(|subject| {
                let mut tokens = subject.strip_prefix("$JS.FC.")?.split('.');
                Some((tokens.next()?, tokens.next()?))
            });
        let consumer = tokens.and_then(|(stream, consumer)| {
            self.shared
                .stream(stream)
                .and_then(|stream| stream.consumer(consumer))
        });
        let Some(consumer) = consumer else {
            return false;
        };
        if consumer.flow.lock().answered(message.subject) {
            consumer.schedule();
        }
        true
    }
}

fn apply(
    shared: &Arc<Shared>,
    stream: &Arc<StreamHandle>,
    consumer: &Arc<ConsumerHandle>,
    message: &Inbound<'_>,
    seq: Seq,
    kind: &AckKind<'_>,
) {
    let now = now();
    consumer.touch(now);
    let engine = &consumer.engine;
    let result = match kind {
        AckKind::Ack | AckKind::Next(_) => engine.ack(seq, now),
        AckKind::Nak(delay_ns) => engine.nak(seq, *delay_ns, now),
        AckKind::InProgress => engine.in_progress(seq, now),
        AckKind::Term(_) => engine.term(seq, now),
    };
    match result {
        Ok(result) => {
            let reason = if let AckKind::Term(reason) = kind {
                reason
            } else {
                ""
            };
            publish_notices(shared, stream, consumer, reason);
            continue_delivery(shared, consumer);
            if let AckKind::Next(rest) = kind {
                next(shared, consumer, message, rest);
            } else {
                answer(shared, message, &result);
            }
        }
        Err(error) => log_refused(stream, consumer, seq, &error),
    }
}

/// An acknowledgement makes room under `max_ack_pending`, or makes a message due.
fn continue_delivery(shared: &Arc<Shared>, consumer: &Arc<ConsumerHandle>) {
    if consumer.waiting.lock().is_empty() && !consumer.config().is_push() {
        let due = consumer.engine.next_deadline();
        consumer.arm(shared, due);
    } else {
        consumer.schedule();
    }
}

fn publish_notices(
    shared: &Arc<Shared>,
    stream: &StreamHandle,
    consumer: &ConsumerHandle,
    reason: &str,
) {
    for notice in consumer.engine.take_notices() {
        advisories::publish_notice(shared, &stream.name, &consumer.name, &notice, reason);
    }
}

/// ACK-007, T-66: the pull is answered on the reply subject of the acknowledgement.
fn next(shared: &Arc<Shared>, consumer: &Arc<ConsumerHandle>, message: &Inbound<'_>, body: &[u8]) {
    if let Some(reply) = message.reply.filter(|reply| !reply.is_empty()) {
        pull::request(shared, consumer, reply, body);
    }
}

/// ACK-008: an empty message once the change is durable.
fn answer(shared: &Arc<Shared>, message: &Inbound<'_>, result: &AckResult) {
    let Some(reply) = message.reply.filter(|reply| !reply.is_empty()) else {
        return;
    };
    if result.outcome == AckOutcome::Ignored {
        return;
    }
    let Lsn(lsn) = result.lsn;
    match message.origin {
        Some(origin) => origin.queue_ack(PendingAck {
            lsn,
            reply: reply.clone(),
            body: AckBody::Raw(Bytes::new()),
            admitted_bytes: 0,
        }),
        None => shared.publish_after(
            Some(shared.store.ticket(result.lsn)),
            reply.clone(),
            Bytes::new(),
        ),
    }
}

fn log_refused(stream: &StreamHandle, consumer: &ConsumerHandle, seq: Seq, error: &ChangeError) {
    if !matches!(error, ChangeError::NotFound) {
        tracing::warn!(stream = %stream.name, consumer = %consumer.name, %seq, %error,
            "an acknowledgement was not applied");
    }
}
