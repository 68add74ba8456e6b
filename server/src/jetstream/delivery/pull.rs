//! One slice of delivery to waiting pull requests.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use riverlog_engine as engine;
use riverlog_engine::ids::TimestampNs;
use riverlog_engine::{Idle, Message, Next};

use super::super::ack_subject::{AckToken, write_token};
use super::super::consumer_handle::ConsumerHandle;
use super::super::limits::DELIVERY_SLICE_MESSAGES;
use super::super::pull_request::{heartbeat, status, status_with_pending};
use super::super::shared::Shared;
use super::super::time::now;
use super::super::types::consumer_config::ConsumerConfig;
use super::super::types::enums::ReplayPolicy;
use super::super::waiting::{Back, Booked, Waiting};
use super::frame::{AckSubjects, content};
use super::{Slice, rest, settle};
use crate::routing::{self, Publisher};

pub(super) struct PullRound<'a> {
    shared: &'a Arc<Shared>,
    consumer: &'a Arc<ConsumerHandle>,
    config: Arc<ConsumerConfig>,
    publisher: Publisher,
    ack_subjects: AckSubjects,
    now: TimestampNs,
}

/// Whether the slice goes on.
#[derive(PartialEq)]
enum Step {
    Again,
    Idle,
}

impl<'a> PullRound<'a> {
    pub fn new(shared: &'a Arc<Shared>, consumer: &'a Arc<ConsumerHandle>) -> PullRound<'a> {
        PullRound {
            shared,
            consumer,
            config: consumer.config(),
            publisher: shared.account.publisher(),
            ack_subjects: AckSubjects::default(),
            now: now(),
        }
    }

    pub fn run(&mut self) -> Slice {
        self.end_expired();
        let slice = self.serve_slice();
        self.send_heartbeats();
        self.publisher.flush();
        settle(self.shared, self.consumer, self.now);
        if matches!(slice, Slice::Idle) {
            let next = self.consumer.waiting.lock().next_deadline();
            self.consumer.arm(self.shared, next);
            rest(self.shared, self.consumer, &self.config, self.now);
        }
        slice
    }

    fn serve_slice(&mut self) -> Slice {
        for _ in 0..DELIVERY_SLICE_MESSAGES {
            if self.serve_next() == Step::Idle {
                return Slice::Idle;
            }
            if let Some(receiver) = self.publisher.take_behind() {
                return Slice::Behind(receiver);
            }
        }
        Slice::More
    }

    fn serve_next(&mut self) -> Step {
        let Some(waiting) = self.consumer.waiting.lock().take() else {
            return Step::Idle;
        };
        let (back, step) = self.serve(waiting);
        self.consumer.waiting.lock().served(back);
        step
    }

    fn serve(&mut self, waiting: Waiting) -> (Back, Step) {
        let max_bytes = waiting.request.max_bytes;
        let frame_bytes = if max_bytes > 0 { self.frame_bytes() } else { 0 };
        let replays = self.config.replay_policy == ReplayPolicy::Original;
        let mut held = None;
        let mut fits = |message: &Message| {
            if replays {
                held = self.consumer.replay.lock().holds(message, self.now);
            }
            let small =
                max_bytes == 0 || self.size(message, frame_bytes) <= max_bytes.unsigned_abs();
            small && held.is_none()
        };
        match self.consumer.engine.next(self.now, &mut fits) {
            Ok(Next::Message(delivery)) => (self.deliver(waiting, &delivery), Step::Again),
            Ok(Next::TooLarge(_)) if held.is_some() => {
                self.consumer.arm(self.shared, held);
                (Back::Front(waiting), Step::Idle)
            }
            Ok(Next::TooLarge(_)) => {
                self.end(&waiting, "409 Message Size Exceeds MaxBytes");
                (Back::Finished, Step::Again)
            }
            Ok(Next::Idle(idle)) => self.idle(waiting, idle),
            Err(error) => {
                let (stream, consumer) = (self.stream_name(), &*self.consumer.name);
                tracing::error!(%stream, consumer, %error, "a message cannot be delivered");
                (Back::Front(waiting), Step::Idle)
            }
        }
    }

    /// Bytes of the acknowledgement subject of the next delivery (PULL-016).
    fn frame_bytes(&self) -> usize {
        let token = AckToken {
            delivered: 1,
            stream_seq: self.consumer.engine.position().0,
            consumer_seq: self.consumer.engine.info().delivered.consumer_seq + 1,
            ts: self.now,
            pending: self
                .consumer
                .engine
                .num_pending()
                .unwrap_or(0)
                .saturating_sub(1),
        };
        let mut subject = BytesMut::new();
        write_token(&mut subject, &token);
        self.consumer.ack_prefix.len() + subject.len()
    }

    fn size(&self, message: &Message, ack_subject_bytes: usize) -> u64 {
        let body = if self.config.headers_only {
            0
        } else {
            message.payload().len()
        };
        (message.subject().len() + ack_subject_bytes + message.headers().len() + body) as u64
    }

    fn deliver(&mut self, mut waiting: Waiting, delivery: &engine::Delivery) -> Back {
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
        if !self.publisher.deliver_to(&waiting.reply, &frame) {
            // Nobody is there any more (T-77).
            self.consumer
                .engine
                .undeliver(message.seq, delivery.consumer_seq);
            return Back::Finished;
        }
        waiting.restart_heartbeat(self.now);
        self.consumer.note_delivery(self.now);
        if self.config.replay_policy == ReplayPolicy::Original {
            self.consumer.replay.lock().delivered(message, self.now);
        }
        match waiting.book(size) {
            Booked::More => Back::Behind(waiting),
            Booked::Done => Back::Finished,
            Booked::BatchCompleted => {
                self.end(&waiting, "409 Batch Completed");
                Back::Finished
            }
        }
    }

    fn idle(&mut self, waiting: Waiting, idle: Idle) -> (Back, Step) {
        match idle {
            Idle::NoMessages if self.consumer.become_hungry() => {
                (Back::Front(waiting), Step::Again)
            }
            Idle::NoMessages | Idle::Paused => {
                let back = if self.ends_empty(&waiting) {
                    Back::Finished
                } else {
                    Back::Front(waiting)
                };
                self.end_no_wait();
                (back, Step::Idle)
            }
            // T-67: nobody is sent away; one acknowledgement resumes.
            Idle::AckPendingFull => (Back::Front(waiting), Step::Idle),
        }
    }

    /// A request that does not wait ends where the stream ends, unless it may still wait for its
    /// first message (PULL-008, PULL-010, PULL-011). Returns whether it ended.
    fn ends_empty(&mut self, waiting: &Waiting) -> bool {
        let ends = ends_at_end_of_stream(waiting);
        if ends {
            self.send_status(&waiting.reply, status("404 No Messages"));
        }
        ends
    }

    fn end_no_wait(&mut self) {
        let ended = self
            .consumer
            .waiting
            .lock()
            .remove_if(ends_at_end_of_stream);
        for waiting in ended {
            self.send_status(&waiting.reply, status("404 No Messages"));
        }
    }

    fn end_expired(&mut self) {
        let now = self.now;
        let expired = self
            .consumer
            .waiting
            .lock()
            .remove_if(|waiting| waiting.is_expired(now));
        for waiting in expired {
            self.end(&waiting, "408 Request Timeout");
        }
    }

    fn send_heartbeats(&mut self) {
        let mut due: Vec<Bytes> = Vec::new();
        for waiting in self.consumer.waiting.lock().iter_mut() {
            if waiting.heartbeat_at.is_some_and(|at| at <= self.now) {
                waiting.restart_heartbeat(self.now);
                due.push(waiting.reply.clone());
            }
        }
        if due.is_empty() {
            return;
        }
        let position = self.consumer.engine.position().0.saturating_sub(1);
        let block = heartbeat(self.consumer.engine.info().delivered.consumer_seq, position);
        let block = Bytes::from(block);
        for reply in due {
            if !self.publish_block(&reply, &block) {
                self.consumer
                    .waiting
                    .lock()
                    .remove_if(|waiting| waiting.reply == reply);
            }
        }
    }

    fn end(&mut self, waiting: &Waiting, text: &str) {
        let request = &waiting.request;
        self.send_status(
            &waiting.reply,
            status_with_pending(text, request.batch, request.max_bytes),
        );
    }

    fn send_status(&mut self, reply: &Bytes, block: Vec<u8>) {
        self.publish_block(reply, &Bytes::from(block));
    }

    fn publish_block(&mut self, reply: &Bytes, block: &Bytes) -> bool {
        self.publisher.publish(&routing::Message {
            subject: reply,
            reply: None,
            headers: Some(block),
            payload: &Bytes::new(),
        })
    }

    fn stream_name(&self) -> Arc<str> {
        self.consumer
            .stream
            .upgrade()
            .map_or_else(|| "".into(), |stream| Arc::clone(&stream.name))
    }
}

fn ends_at_end_of_stream(waiting: &Waiting) -> bool {
    waiting.request.no_wait && (waiting.request.expires.is_none() || waiting.delivered > 0)
}
