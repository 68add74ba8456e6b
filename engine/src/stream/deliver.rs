//! Deliveries: plan under the consumer's lock, read without it, commit under it again.

use std::sync::Arc;

use super::core::StreamCore;
use super::cursor::ConsumerCore;
use super::release::Leaving;
use crate::config::Retention;
use crate::consumer::{AckPolicy, BlockReason, Delivered, Moved, Plan, RemovalReason};
use crate::error::{Corrupt, ReadError};
use crate::ids::{Seq, TimestampNs};
use crate::message::Message;

/// Events collected before they are handed to the log while deliveries go on.
const UNLOGGED_EVENTS_MAX: u32 = 256;
/// Re-plans of one `next` call; each means that somebody else moved the consumer meanwhile.
const ATTEMPTS_MAX: u32 = 10_000;

/// The answer to [`crate::Consumer::next`].
#[derive(Clone, Debug)]
pub enum Next {
    /// This message is delivered.
    Message(Box<Delivery>),
    /// The next message does not fit; it was not touched.
    TooLarge(Message),
    /// Nothing to deliver.
    Idle(Idle),
}

impl Next {
    fn message(message: Message, delivered: Delivered, num_pending: u64) -> Next {
        Next::Message(Box::new(Delivery {
            message,
            consumer_seq: delivered.consumer_seq,
            deliveries: delivered.deliveries,
            num_pending,
        }))
    }
}

/// Why nothing was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// No message is waiting.
    NoMessages,
    /// Messages may be waiting, but too many are unacknowledged.
    AckPendingFull,
    /// Delivery is paused.
    Paused,
}

/// A delivered message.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Number of this delivery.
    pub consumer_seq: u64,
    /// How often this message has been delivered, this time included.
    pub deliveries: u64,
    /// Messages still waiting for their first delivery.
    pub num_pending: u64,
}

impl ConsumerCore {
    /// A message to deliver. One that is damaged is reported and passed over, so that it does not
    /// hold up everything behind it; the message itself stays until it is deleted.
    fn read(&self, stream: &StreamCore, seq: Seq) -> Result<Option<Message>, ReadError> {
        match stream.get(seq.0) {
            Err(ReadError::Corrupt(_)) => {}
            read => return read,
        }
        // Once more: a device may have erred only this time.
        match stream.get(seq.0) {
            Err(ReadError::Corrupt(damage)) => {
                self.report_passed_over(&damage);
                Ok(None)
            }
            read => read,
        }
    }

    fn report_passed_over(&self, damage: &Corrupt) {
        tracing::error!(
            consumer = %self.name,
            stream = damage.stream.0,
            first = damage.first.0,
            last = damage.last.0,
            file = %damage.file.display(),
            reason = %damage.reason,
            "damaged messages cannot be delivered and are passed over"
        );
    }

    /// See [`crate::Consumer::next`].
    pub fn next(
        self: &Arc<Self>,
        now: TimestampNs,
        fits: &mut dyn FnMut(&Message) -> bool,
    ) -> Result<Next, ReadError> {
        let Some(stream) = self.upgrade_stream() else {
            return Ok(Next::Idle(Idle::NoMessages));
        };
        for _ in 0..ATTEMPTS_MAX {
            let first_seq = stream.lock().first_seq;
            let plan = {
                let mut data = self.lock();
                data.catch_up(first_seq);
                data.state.plan(now)
            };
            let done = match plan {
                Plan::Redeliver(seq) => self.redeliver(&stream, seq, now, fits)?,
                Plan::Listed(seq) => self.deliver_listed(&stream, seq, now, fits)?,
                Plan::New { from } => self.deliver_new(&stream, from, now, fits)?,
                Plan::Blocked(reason) => Some(Next::Idle(match reason {
                    BlockReason::AckPendingFull => Idle::AckPendingFull,
                    BlockReason::Paused => Idle::Paused,
                })),
            };
            if let Some(next) = done {
                self.after_next(&stream, &next);
                return Ok(next);
            }
        }
        Ok(Next::Idle(Idle::NoMessages))
    }

    /// Delivery marks go to the log in batches; nobody waits for them. Losing one to a crash means
    /// one more delivery, which at-least-once allows.
    fn after_next(self: &Arc<Self>, stream: &StreamCore, next: &Next) {
        let mut data = self.lock();
        data.events_since_log += 1;
        self.note_events(&mut data);
        let idle = !matches!(next, Next::Message(_));
        if (idle && data.state.has_events()) || data.events_since_log >= UNLOGGED_EVENTS_MAX {
            // Not logged now: they stay queued and go with the next acknowledgement.
            let _ = self.log_events(stream, &mut data);
        }
    }

    fn redeliver(
        &self,
        stream: &StreamCore,
        seq: Seq,
        now: TimestampNs,
        fits: &mut dyn FnMut(&Message) -> bool,
    ) -> Result<Option<Next>, ReadError> {
        let Some(message) = self.read(stream, seq)? else {
            self.lock()
                .state
                .message_removed(seq, RemovalReason::Limits);
            return Ok(None);
        };
        if !fits(&message) {
            return Ok(Some(Next::TooLarge(message)));
        }
        let num_pending = self.num_pending()?;
        let Ok(delivered) = self.lock().state.redeliver(seq, now) else {
            return Ok(None);
        };
        Ok(Some(Next::message(message, delivered, num_pending)))
    }

    fn deliver_listed(
        self: &Arc<Self>,
        stream: &StreamCore,
        seq: Seq,
        now: TimestampNs,
        fits: &mut dyn FnMut(&Message) -> bool,
    ) -> Result<Option<Next>, ReadError> {
        let Some(message) = self.read(stream, seq)? else {
            // Gone before its delivery (T-46). If somebody moved the consumer, plan again.
            let _ = self.lock().state.skip_to(seq, seq.next());
            return Ok(None);
        };
        if !fits(&message) {
            return Ok(Some(Next::TooLarge(message)));
        }
        // Counted before the delivery, which must not fail half-way; so this message is included.
        let num_pending = self.num_pending()?.saturating_sub(1);
        let Ok(delivered) = self.commit_first(stream, seq, &message, now) else {
            return Ok(None);
        };
        Ok(Some(Next::message(message, delivered, num_pending)))
    }

    fn deliver_new(
        self: &Arc<Self>,
        stream: &StreamCore,
        from: Seq,
        now: TimestampNs,
        fits: &mut dyn FnMut(&Message) -> bool,
    ) -> Result<Option<Next>, ReadError> {
        let visible = stream.visible_seq();
        let (filters, place) = {
            let mut data = self.lock();
            (data.filters.clone(), data.place.take())
        };
        let mut place = place.unwrap_or_default();
        place.resume();
        let mut found = stream.next_message(&filters, from.0, &mut place);
        if matches!(found, Err(ReadError::Corrupt(_))) {
            // Once more: a device may have erred only this time.
            found = stream.next_message(&filters, from.0, &mut place);
        }
        if let Err(ReadError::Corrupt(damage)) = &found
            && damage.last >= from
        {
            self.report_passed_over(damage);
            let mut data = self.lock();
            data.pending.invalidate();
            let _ = data.state.skip_to(from, damage.last.next());
            return Ok(None);
        }
        place.rest();
        if !place.is_empty() && !matches!(found, Ok(None)) {
            self.lock().place = Some(place);
        }
        let Some(message) = found? else {
            if visible >= from.0 {
                let _ = self.lock().state.skip_to(from, Seq(visible + 1));
            }
            return Ok(Some(Next::Idle(Idle::NoMessages)));
        };
        if !fits(&message) {
            return Ok(Some(Next::TooLarge(message)));
        }
        // Counted before the delivery moves the position, so that the count covers this message.
        let before = self.num_pending()?;
        let Ok(delivered) = self.commit_first(stream, from, &message, now) else {
            return Ok(None);
        };
        let num_pending = before.saturating_sub(1);
        Ok(Some(Next::message(message, delivered, num_pending)))
    }

    /// Commits the first delivery of a message that was planned at `from`. Where nothing is
    /// acknowledged, delivered counts as acknowledged (T-68): the message may leave with it.
    fn commit_first(
        self: &Arc<Self>,
        stream: &StreamCore,
        from: Seq,
        message: &Message,
        now: TimestampNs,
    ) -> Result<Delivered, Moved> {
        let takes_acks = self.lock().state.config().ack != AckPolicy::None;
        let retention = stream.lock().config.retention;
        let stays = takes_acks || retention == Retention::Limits;
        let mut order = (!stays).then(|| stream.lock_release());
        let leaving = match &mut order {
            Some(order) => {
                stream.unneeded(order, vec![Leaving::of(stream, message)], Some(self.id))
            }
            None => Vec::new(),
        };
        let mut data = self.lock();
        // A retention that became stricter asks this consumer after this delivery, or before.
        if !takes_acks && stream.lock().config.retention != retention {
            return Err(Moved);
        }
        let is_new = data.state.listed().next().is_none();
        let delivered = data.state.deliver_new(from, message.seq, now)?;
        if is_new {
            // No match lies before it: it was the first one when they were counted.
            data.pending.delivered(message.seq);
            data.pending_from = message.seq.0 + 1;
        }
        if !leaving.is_empty() {
            data.leaving.extend(leaving);
            if let Err(error) = self.log_events(stream, &mut data) {
                // It leaves as soon as the log takes the delivery.
                tracing::warn!(stream = %stream.name, seq = %message.seq, %error, "a delivered message stays");
            }
        }
        Ok(delivered)
    }
}
