//! A consumer of a stream: ties the delivery state machine to messages, log and index.
//!
//! Locks: the consumer's lock is never held across a read, and never taken while the stream's lock
//! is held; the stream's and the commit queue's locks may be taken under it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use roaring::RoaringTreemap;

use super::core::StreamCore;
use super::read::Resolved;
use super::snapshot::{put_consumer, put_consumer_config};
use super::types::ChangeError;
use crate::config::ConfigError;
use crate::consumer::{
    AckOutcome, AckPolicy, Acked, BlockReason, ConsumerConfig, ConsumerState, ConsumerStateInfo,
    Delivered, Notice, PendingCount, Plan, Purge, RemovalReason,
};
use crate::error::{Corrupt, ReadError};
use crate::format::op::Op;
use crate::ids::{ConsumerId, Lsn, Seq, TimestampNs};
use crate::message::Message;
use crate::subject::Filter;

/// Events collected before they are handed to the log while deliveries go on.
const UNLOGGED_EVENTS_MAX: u32 = 256;
/// Re-plans of one `next` call; each means that somebody else moved the consumer meanwhile.
const ATTEMPTS_MAX: u32 = 10_000;

/// One consumer.
pub(crate) struct ConsumerCore {
    pub id: ConsumerId,
    pub name: String,
    pub created: TimestampNs,
    stream: Weak<StreamCore>,
    data: Mutex<ConsumerData>,
}

pub(crate) struct ConsumerData {
    pub state: ConsumerState,
    filters: Arc<[Filter]>,
    pending: PendingCount,
    /// Removal epoch of the stream up to which `pending` is exact.
    pending_epoch: u64,
    /// `pending` counts messages from here on. The position may be further, where limits removed
    /// what lies between.
    pending_from: u64,
    resolved: Resolved,
    /// The stream's first sequence when the consumer last looked.
    first_seq: u64,
    /// Drained batches the log has not taken, oldest first.
    unlogged: VecDeque<Vec<u8>>,
    events_since_log: u32,
    /// Acknowledged messages that could not be removed from the stream yet.
    overdue: RoaringTreemap,
    pub last_lsn: Lsn,
    pub dirty_since: Option<Lsn>,
    pub config_dirty: bool,
    pub deleted: bool,
}

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

/// The answer to an acknowledgement.
#[derive(Clone, Debug)]
pub struct AckResult {
    /// What it did.
    pub outcome: AckOutcome,
    /// Durable when the store's durable position reaches this.
    pub lsn: Lsn,
}

impl ConsumerCore {
    pub fn new(
        id: ConsumerId,
        created: TimestampNs,
        stream: &Arc<StreamCore>,
        state: ConsumerState,
    ) -> Result<Arc<ConsumerCore>, ConfigError> {
        let filters = compile(&state.config().filters)?;
        Ok(Arc::new(ConsumerCore {
            id,
            name: state.config().name.clone(),
            created,
            stream: Arc::downgrade(stream),
            data: Mutex::new(ConsumerData {
                state,
                filters,
                pending: PendingCount::default(),
                pending_epoch: 0,
                pending_from: 0,
                resolved: Resolved::default(),
                first_seq: 0,
                unlogged: VecDeque::new(),
                events_since_log: 0,
                overdue: RoaringTreemap::new(),
                last_lsn: Lsn(0),
                dirty_since: None,
                config_dirty: true,
                deleted: false,
            }),
        }))
    }

    pub fn lock(&self) -> MutexGuard<'_, ConsumerData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self, stream: &StreamCore, data: &ConsumerData) -> bool {
        stream.is_file() && !data.state.config().memory
    }

    /// Hands recorded events to the log; returns the position of the last one.
    fn log_events(&self, stream: &StreamCore, data: &mut ConsumerData) -> Result<Lsn, ChangeError> {
        data.events_since_log = 0;
        if !self.logs(stream, data) {
            return Ok(Lsn(0));
        }
        let mut batch = Vec::new();
        if data.state.drain_events(&mut batch) > 0 {
            data.unlogged.push_back(batch);
        }
        while let Some(events) = data.unlogged.front() {
            let op = Op::ConsumerDelta {
                stream: stream.id,
                consumer: self.id,
                events,
            };
            let lsn = stream.shared.log_control(&op)?;
            data.touched(lsn);
            data.unlogged.pop_front();
        }
        Ok(data.last_lsn)
    }

    /// Logs whatever is not logged yet.
    pub fn flush(&self) -> Result<Lsn, ChangeError> {
        let Some(stream) = self.stream.upgrade() else {
            return Err(ChangeError::NotFound);
        };
        self.log_events(&stream, &mut self.lock())
    }

    /// The consumer's share of a checkpoint and the log position it contains; `None` when nothing
    /// changed. Events are drained and the state is encoded under one hold of the lock: an event
    /// that the state contains must not be replayed on top of it.
    pub fn freeze(&self) -> Option<(Lsn, Vec<u8>)> {
        let stream = self.stream.upgrade()?;
        let mut data = self.lock();
        // What the log does not take stays collected; its batch numbers are in the state.
        let _ = self.log_events(&stream, &mut data);
        let unchanged = data.dirty_since.is_none() && !data.config_dirty;
        if data.state.config().memory || data.deleted || unchanged {
            return None;
        }
        let mut value = Vec::new();
        put_consumer(&data.state, self.created, data.last_lsn, &mut value);
        data.config_dirty = false;
        Some((data.last_lsn, value))
    }

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
        &self,
        now: TimestampNs,
        fits: &mut dyn FnMut(&Message) -> bool,
    ) -> Result<Next, ReadError> {
        let Some(stream) = self.stream.upgrade() else {
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
    fn after_next(&self, stream: &StreamCore, next: &Next) {
        let mut data = self.lock();
        data.events_since_log += 1;
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
        &self,
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
        let Ok(delivered) = self.lock().state.deliver_new(seq, seq, now) else {
            return Ok(None);
        };
        Ok(Some(Next::message(message, delivered, num_pending)))
    }

    fn deliver_new(
        &self,
        stream: &StreamCore,
        from: Seq,
        now: TimestampNs,
        fits: &mut dyn FnMut(&Message) -> bool,
    ) -> Result<Option<Next>, ReadError> {
        let visible = stream.visible_seq();
        let (filters, mut resolved) = {
            let mut data = self.lock();
            (data.filters.clone(), std::mem::take(&mut data.resolved))
        };
        let mut found = stream.next_message(&filters, from.0, &mut resolved);
        if matches!(found, Err(ReadError::Corrupt(_))) {
            // Once more: a device may have erred only this time.
            found = stream.next_message(&filters, from.0, &mut resolved);
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
        self.lock().resolved = resolved;
        let Some(message) = found? else {
            if visible >= from.0 {
                let _ = self.lock().state.skip_to(from, Seq(visible + 1));
            }
            return Ok(Some(Next::Idle(Idle::NoMessages)));
        };
        if !fits(&message) {
            return Ok(Some(Next::TooLarge(message)));
        }
        let seq = message.seq;
        // Counted before the delivery moves the position, so that the count covers this message.
        let before = self.num_pending()?;
        let (delivered, ack) = {
            let mut data = self.lock();
            let Ok(delivered) = data.state.deliver_new(from, seq, now) else {
                return Ok(None);
            };
            // No match lies before it: it was the first one when they were counted.
            data.pending.delivered(seq);
            data.pending_from = seq.0 + 1;
            (delivered, data.state.config().ack)
        };
        let num_pending = before.saturating_sub(1);
        if ack == AckPolicy::None {
            // Delivered counts as acknowledged (T-68).
            if let Err(error) = self.release(stream, &Acked::One(seq)) {
                tracing::warn!(stream = %stream.name, %seq, %error, "a delivered message stays");
            }
        }
        Ok(Some(Next::message(message, delivered, num_pending)))
    }

    /// Messages waiting for their first delivery. Exact: without a filter from the sequence range
    /// and its tombstones, with one from the index, kept up to date step by step.
    pub fn num_pending(&self) -> Result<u64, ReadError> {
        let Some(stream) = self.stream.upgrade() else {
            return Ok(0);
        };
        let visible = stream.visible_seq();
        let (filters, position, listed, known, epoch, counted_from) = {
            let data = self.lock();
            let known = data.pending.get().zip(data.pending.as_of());
            let listed = data.state.listed().count() as u64;
            (
                data.filters.clone(),
                data.state.next_seq(),
                listed,
                known,
                data.pending_epoch,
                data.pending_from,
            )
        };
        if filters.is_empty() {
            return Ok(listed + stream.num_pending(&[], position.0)?);
        }
        let (stale, now_epoch) = {
            let data = stream.lock();
            (
                data.removed_at_or_after(position.0.min(counted_from), epoch),
                data.removal_epoch,
            )
        };
        if let Some((count, as_of)) = known
            && !stale
        {
            if as_of.0 >= visible {
                return Ok(listed + count);
            }
            if let Some(more) = stream.count_in_ram(&filters, as_of.0 + 1, visible) {
                let mut data = self.lock();
                if data.pending.as_of() == Some(as_of) && data.state.next_seq() == position {
                    data.pending.set(count + more, Seq(visible));
                    data.pending_epoch = now_epoch;
                    data.pending_from = position.0;
                }
                return Ok(listed + count + more);
            }
        }
        let count = stream.num_pending(&filters, position.0)?;
        let mut data = self.lock();
        if data.state.next_seq() == position && stream.visible_seq() == visible {
            data.pending.set(count, Seq(visible));
            data.pending_epoch = now_epoch;
            data.pending_from = position.0;
        }
        Ok(listed + count)
    }

    /// Applies an acknowledgement of any kind and logs it.
    pub fn acknowledge(
        &self,
        change: impl FnOnce(&mut ConsumerState) -> AckOutcome,
    ) -> Result<AckResult, ChangeError> {
        let Some(stream) = self.stream.upgrade() else {
            return Err(ChangeError::NotFound);
        };
        let (outcome, mut lsn) = {
            let mut data = self.lock();
            if data.deleted {
                return Err(ChangeError::NotFound);
            }
            let outcome = change(&mut data.state);
            match self.log_events(&stream, &mut data) {
                Ok(lsn) => (outcome, lsn),
                Err(error) => {
                    // It is acknowledged all the same, and will be said so with the next event.
                    if let AckOutcome::Applied(acked) = &outcome {
                        data.note_overdue(acked);
                    }
                    return Err(error);
                }
            }
        };
        if let Some(released) = self.release_overdue(&stream)? {
            lsn = lsn.max(released);
        }
        if let AckOutcome::Applied(acked) = &outcome {
            lsn = lsn.max(self.release(&stream, acked)?);
        }
        Ok(AckResult { outcome, lsn })
    }

    /// Removes from the stream what nobody needs any more; what could not be removed is kept in
    /// mind, because the consumer itself will not hear of it again.
    fn release(&self, stream: &StreamCore, acked: &Acked) -> Result<Lsn, ChangeError> {
        let released = stream.release(acked);
        if released.is_err() {
            self.lock().note_overdue(acked);
        }
        released
    }

    /// Tries again what an earlier [`ConsumerCore::release`] could not remove.
    fn release_overdue(&self, stream: &StreamCore) -> Result<Option<Lsn>, ChangeError> {
        let overdue = {
            let mut data = self.lock();
            if data.overdue.is_empty() {
                return Ok(None);
            }
            std::mem::take(&mut data.overdue)
        };
        self.release(stream, &Acked::Many(overdue)).map(Some)
    }

    /// Takes back a delivery that reached nobody.
    pub fn undeliver(&self, seq: Seq, consumer_seq: u64) -> bool {
        let mut data = self.lock();
        let before = data.state.next_seq();
        let taken = data.state.undeliver(seq, consumer_seq);
        if data.state.next_seq() < before {
            data.pending.invalidate();
        }
        taken
    }

    /// Counters as of now.
    pub fn info(&self) -> ConsumerStateInfo {
        let first_seq = self.stream.upgrade().map(|stream| stream.lock().first_seq);
        let mut data = self.lock();
        if let Some(first_seq) = first_seq {
            data.catch_up(first_seq);
        }
        data.state.info()
    }

    pub fn take_notices(&self) -> VecDeque<Notice> {
        self.lock().state.take_notices()
    }

    /// A message was deleted on request.
    pub fn message_deleted(&self, seq: Seq) {
        self.lock()
            .state
            .message_removed(seq, RemovalReason::Deleted);
    }

    /// The stream was purged.
    pub fn purged(&self, stream: &StreamCore, filter: Option<&Filter>) {
        let (first_seq, last_seq) = {
            let data = stream.lock();
            (data.first_seq, data.last_seq)
        };
        let wider = {
            let data = self.lock();
            filter.is_none_or(|filter| {
                !data.filters.is_empty() && data.filters.iter().all(|own| own.is_subset_of(filter))
            })
        };
        let purge = if wider {
            let filters = self.lock().filters.clone();
            let mut resolved = Resolved::default();
            let visible = stream.visible_seq();
            let next = stream.next_message(&filters, first_seq, &mut resolved);
            let resume = match next {
                Ok(Some(message)) => message.seq,
                // Nobody can tell where the first match is: nothing may be passed over.
                Err(_) => Seq(stream.lock().tombstones.next_live(first_seq)),
                // What is admitted but not durable yet may still match.
                Ok(None) => {
                    let from = first_seq.max(visible + 1);
                    Seq(stream.lock().tombstones.next_live(from).min(last_seq + 1))
                }
            };
            Purge::Covering { resume }
        } else {
            Purge::Partial {
                first_seq: Seq(first_seq),
            }
        };
        let mut data = self.lock();
        data.pending.invalidate();
        data.state.purged(purge, |seq| stream.lock().is_live(seq.0));
    }

    /// Replaces the configuration.
    pub fn update_config(&self, config: ConsumerConfig) -> Result<Lsn, ChangeError> {
        let Some(stream) = self.stream.upgrade() else {
            return Err(ChangeError::NotFound);
        };
        let filters = compile(&config.filters)?;
        let mut data = self.lock();
        if data.deleted {
            return Err(ChangeError::NotFound);
        }
        let old = data.state.config();
        if old.name != config.name || old.ack != config.ack || old.memory != config.memory {
            return Err(ConfigError::Fixed("name, ack policy or memory storage").into());
        }
        self.log_events(&stream, &mut data)?;
        let lsn = if self.logs(&stream, &data) {
            let mut encoded = Vec::new();
            put_consumer_config(&config, &mut encoded);
            let (created, consumer) = (self.created, self.id);
            let op = Op::ConsumerPut {
                stream: stream.id,
                consumer,
                created,
                config: &encoded,
            };
            let lsn = stream.shared.log_control(&op)?;
            data.touched(lsn);
            lsn
        } else {
            Lsn(0)
        };
        data.state.update_config(config);
        data.config_dirty = true;
        stream.lock().set_interest(self.id, Some(filters.clone()));
        data.set_filters(filters);
        Ok(lsn)
    }

    pub fn config(&self) -> ConsumerConfig {
        self.lock().state.config().clone()
    }
}

impl ConsumerData {
    /// Notes the log position of an operation on this consumer.
    pub fn touched(&mut self, lsn: Lsn) {
        self.last_lsn = lsn;
        self.dirty_since.get_or_insert(lsn);
    }

    fn note_overdue(&mut self, acked: &Acked) {
        match acked {
            Acked::Nothing => {}
            Acked::One(seq) => {
                self.overdue.insert(seq.0);
            }
            Acked::Many(seqs) => self.overdue |= seqs,
        }
    }

    pub fn filters(&self) -> &Arc<[Filter]> {
        &self.filters
    }

    fn set_filters(&mut self, filters: Arc<[Filter]>) {
        self.filters = filters;
        self.pending.invalidate();
        self.resolved = Resolved::default();
    }

    /// Learns how far the stream's front has moved because of limits (T-11).
    fn catch_up(&mut self, first_seq: u64) {
        if first_seq > self.first_seq {
            self.first_seq = first_seq;
            self.state.trimmed(Seq(first_seq));
        }
    }
}

pub(crate) fn compile(filters: &[String]) -> Result<Arc<[Filter]>, ConfigError> {
    filters
        .iter()
        .map(|text| Filter::new(text.as_bytes()).map_err(|_| ConfigError::Filter(text.clone())))
        .collect()
}

impl ConsumerCore {
    /// Counts anew at the next question.
    pub fn forget_counts(&self) {
        let mut data = self.lock();
        data.pending.invalidate();
        data.resolved = Resolved::default();
    }
}
