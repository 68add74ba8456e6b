//! One slice of delivery to a deliver subject.

use std::sync::Arc;

use bytes::Bytes;
use riverlog_engine::ids::TimestampNs;
use riverlog_engine::{Delivery, Idle, Message, Next};

use super::super::consumer_handle::ConsumerHandle;
use super::super::limits::DELIVERY_SLICE_MESSAGES;
use super::super::pull_request::{push_heartbeat, status};
use super::super::shared::Shared;
use super::super::time::now;
use super::super::types::consumer_config::ConsumerConfig;
use super::super::types::enums::ReplayPolicy;
use super::frame::{AckSubjects, content};
use super::{Slice, rest, settle};
use crate::routing::{self, Publisher};

/// A queue group that appears beside other subscriptions of the deliver subject is not announced;
/// it is looked for this often, in nanoseconds.
const GROUP_CHECK_NS: i64 = 250_000_000;

pub(super) struct PushRound<'a> {
    shared: &'a Arc<Shared>,
    consumer: &'a Arc<ConsumerHandle>,
    config: Arc<ConsumerConfig>,
    route: Bytes,
    publisher: Publisher,
    ack_subjects: AckSubjects,
    now: TimestampNs,
}

impl<'a> PushRound<'a> {
    pub fn new(shared: &'a Arc<Shared>, consumer: &'a Arc<ConsumerHandle>) -> PushRound<'a> {
        let config = consumer.config();
        PushRound {
            shared,
            consumer,
            route: Bytes::copy_from_slice(config.deliver_subject.as_bytes()),
            config,
            publisher: shared.account.publisher(),
            ack_subjects: AckSubjects::default(),
            now: now(),
        }
    }

    pub fn run(&mut self) -> Slice {
        let bound = self.consumer.is_bound(self.shared);
        if self.consumer.note_bound(bound) && bound {
            self.consumer.flow.lock().restart();
        }
        let slice = if bound {
            self.deliver_slice()
        } else {
            Slice::Idle
        };
        if bound {
            self.consumer.touch(self.now);
            self.heartbeat();
        } else if !self.config.deliver_group.is_empty()
            && self.shared.account.has_interest(&self.route)
        {
            let at = TimestampNs(self.now.0.saturating_add(GROUP_CHECK_NS));
            self.consumer.arm(self.shared, Some(at));
        }
        self.publisher.flush();
        settle(self.shared, self.consumer, self.now);
        if matches!(slice, Slice::Idle) {
            rest(self.shared, self.consumer, &self.config, self.now);
        }
        slice
    }

    fn deliver_slice(&mut self) -> Slice {
        for _ in 0..DELIVERY_SLICE_MESSAGES {
            if self.config.flow_control && self.consumer.flow.lock().is_full() {
                return Slice::Idle;
            }
            let replays = self.config.replay_policy == ReplayPolicy::Original;
            let mut held = None;
            let mut fits = |message: &Message| {
                if replays {
                    held = self.consumer.replay.lock().holds(message, self.now);
                }
                held.is_none()
            };
            match self.consumer.engine.next(self.now, &mut fits) {
                Ok(Next::Message(delivery)) => {
                    if !self.deliver(&delivery) {
                        return Slice::Idle;
                    }
                }
                Ok(Next::Idle(Idle::NoMessages)) if self.consumer.become_hungry() => {}
                Ok(Next::TooLarge(_)) => {
                    self.consumer.arm(self.shared, held);
                    return Slice::Idle;
                }
                Ok(Next::Idle(_)) => return Slice::Idle,
                Err(error) => {
                    let consumer = &*self.consumer.name;
                    tracing::error!(consumer, %error, "a message cannot be delivered");
                    return Slice::Idle;
                }
            }
            if let Some(receiver) = self.publisher.take_behind() {
                return Slice::Behind(receiver);
            }
        }
        Slice::More
    }

    /// Returns whether somebody got it.
    fn deliver(&mut self, delivery: &Delivery) -> bool {
        let message = &delivery.message;
        let reply = self.ack_subjects.make(self.consumer, delivery);
        let subject = message.subject_bytes();
        let (headers, payload) = content(&self.config, message);
        let size =
            subject.len() + reply.len() + headers.as_ref().map_or(0, Bytes::len) + payload.len();
        let frame = routing::Message {
            subject: &subject,
            reply: Some(&reply),
            headers: headers.as_ref(),
            payload: &payload,
        };
        if !self.send(&frame) {
            self.consumer
                .engine
                .undeliver(message.seq, delivery.consumer_seq);
            return false;
        }
        self.consumer.note_delivery(self.now);
        if self.config.replay_policy == ReplayPolicy::Original {
            self.consumer.replay.lock().delivered(message, self.now);
        }
        self.consumer.note_sent(self.now);
        if self.config.flow_control && self.consumer.flow.lock().sent(size) {
            self.request_flow();
        }
        true
    }

    fn send(&mut self, frame: &routing::Message<'_>) -> bool {
        if self.config.deliver_group.is_empty() {
            return self.publisher.deliver_to(&self.route, frame);
        }
        let group = self.config.deliver_group.as_bytes();
        self.publisher.deliver_to_queue(&self.route, group, frame)
    }

    fn request_flow(&mut self) {
        let Some(stream) = self.consumer.stream.upgrade() else {
            return;
        };
        let token: String = (0..4)
            .map(|_| char::from(rand::random_range(b'A'..=b'Z')))
            .collect();
        let subject = Bytes::from(format!(
            "$JS.FC.{}.{}.{token}",
            stream.name, self.consumer.name
        ));
        self.send_status(status("100 FlowControl Request"), Some(&subject));
        self.consumer.flow.lock().requested(subject);
    }

    /// ADR-9: after some time without a message the receiver hears where it should be.
    fn heartbeat(&mut self) {
        let every = self.config.idle_heartbeat;
        if every <= 0 {
            return;
        }
        let due = self.consumer.last_sent().0.saturating_add(every);
        if due <= self.now.0 {
            let flow = self.consumer.flow.lock();
            let stalled = flow.open_request().filter(|_| flow.is_full()).cloned();
            drop(flow);
            let engine = &self.consumer.engine;
            let position = engine.position().0.saturating_sub(1);
            let consumer_seq = engine.info().delivered.consumer_seq;
            self.send_status(
                push_heartbeat(consumer_seq, position, stalled.as_deref()),
                None,
            );
            self.consumer.note_sent(self.now);
        }
        let next = self.consumer.last_sent().0.saturating_add(every);
        self.consumer.arm(self.shared, Some(TimestampNs(next)));
    }

    fn send_status(&mut self, block: Vec<u8>, reply: Option<&Bytes>) {
        let route = self.route.clone();
        let block = Bytes::from(block);
        self.send(&routing::Message {
            subject: &route,
            reply,
            headers: Some(&block),
            payload: &Bytes::new(),
        });
    }
}
