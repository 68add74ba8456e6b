//! A consumer of a stream: ties the delivery state machine to messages, log and index.
//!
//! Locks: the consumer's lock is never held across a read, and never taken while the stream's lock
//! is held; the stream's and the commit queue's locks may be taken under it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::core::StreamCore;
use super::place::Place;
use super::release::Unit;
use super::snapshot::{put_consumer_config, put_consumer_head};
use super::types::ChangeError;
use crate::config::{ConfigError, Retention};
use crate::consumer::{
    Claim, ConsumerConfig, ConsumerState, ConsumerStateInfo, Notice, PendingCount, Purge,
    RemovalReason,
};
use crate::format::op::Op;
use crate::ids::{ConsumerId, Lsn, Seq, TimestampNs};
use crate::subject::Filter;

/// One consumer.
pub(crate) struct ConsumerCore {
    pub id: ConsumerId,
    pub name: Arc<str>,
    pub created: TimestampNs,
    stream: Weak<StreamCore>,
    data: Mutex<ConsumerData>,
}

pub(crate) struct ConsumerData {
    pub state: ConsumerState,
    pub(super) filters: Arc<[Filter]>,
    pub(super) pending: PendingCount,
    /// Removal epoch of the stream up to which `pending` is exact.
    pub(super) pending_epoch: u64,
    /// `pending` counts messages from here on. The position may be further, where limits removed
    /// what lies between.
    pub(super) pending_from: u64,
    /// `None` unless it reads sealed messages.
    pub(super) place: Option<Box<Place>>,
    /// The stream's first sequence when the consumer last looked.
    first_seq: u64,
    pub(super) events_since_log: u32,
    /// Messages that leave the stream with the events that are not logged yet, and their accounted
    /// sizes.
    pub(super) leaving: Vec<(u64, u32)>,
    /// Batches that the log refused while a checkpoint needed them out of the way, oldest first.
    unlogged: Vec<Vec<u8>>,
    pub last_lsn: Lsn,
    pub dirty_since: Option<Lsn>,
    pub config_dirty: bool,
    pub deleted: bool,
    /// In the stream's list of changed consumers.
    noted: bool,
}

/// A consumer's share of a checkpoint.
pub(crate) struct ConsumerShare {
    pub core: Arc<ConsumerCore>,
    /// Operations up to here are contained.
    pub applied: Lsn,
    pub head: Vec<u8>,
    /// The containers that changed, `None` for those that hold nothing any more.
    pub containers: Vec<(u64, Option<Vec<u8>>)>,
}

impl ConsumerShare {
    /// Notes what was marked as saved, after a failure.
    pub fn thaw(&self) {
        let mut data = self.core.lock();
        data.config_dirty = true;
        self.core.note_changed(&mut data);
        let numbers = self.containers.iter().map(|(number, _)| *number);
        data.state.put_back_changed(numbers);
    }

    /// The checkpoint is durable.
    pub fn install(&self) {
        let mut data = self.core.lock();
        data.unlogged = Vec::new();
        let newer = data.last_lsn > self.applied;
        data.dirty_since = newer.then(|| Lsn(self.applied.0 + 1));
    }
}

impl ConsumerCore {
    pub fn new(
        id: ConsumerId,
        created: TimestampNs,
        stream: &Arc<StreamCore>,
        state: ConsumerState,
    ) -> Result<Arc<ConsumerCore>, ConfigError> {
        let filters = compile(&state.config().filters)?;
        let filters = stream.lock().interest.shared(filters);
        Ok(Arc::new(ConsumerCore {
            id,
            name: state.config().name.as_str().into(),
            created,
            stream: Arc::downgrade(stream),
            data: Mutex::new(ConsumerData {
                state,
                filters,
                pending: PendingCount::default(),
                pending_epoch: 0,
                pending_from: 0,
                place: None,
                first_seq: 0,
                events_since_log: 0,
                leaving: Vec::new(),
                unlogged: Vec::new(),
                last_lsn: Lsn(0),
                dirty_since: None,
                config_dirty: true,
                deleted: false,
                noted: false,
            }),
        }))
    }

    pub fn lock(&self) -> MutexGuard<'_, ConsumerData> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn upgrade_stream(&self) -> Option<Arc<StreamCore>> {
        self.stream.upgrade()
    }

    fn logs(&self, stream: &StreamCore, data: &ConsumerData) -> bool {
        stream.is_file() && !data.state.config().memory
    }

    /// Tells the next checkpoint to look at this consumer. Called before an operation is logged.
    pub fn note_changed(self: &Arc<Self>, data: &mut ConsumerData) {
        if !data.noted
            && let Some(stream) = self.stream.upgrade()
            && stream.is_file()
        {
            data.noted = true;
            stream.lock_changed_consumers().push(self.clone());
        }
    }

    /// As above, if something happened that is not logged.
    pub(super) fn note_events(self: &Arc<Self>, data: &mut ConsumerData) {
        if data.state.has_events() {
            self.note_changed(data);
        }
    }

    /// Hands recorded events to the log, together with the removals they cause, as one unit;
    /// returns the position of the last one. Nothing changes when the log refuses.
    pub(super) fn log_events(
        self: &Arc<Self>,
        stream: &StreamCore,
        data: &mut ConsumerData,
    ) -> Result<Lsn, ChangeError> {
        data.events_since_log = 0;
        let quiet = !data.state.has_events() && data.leaving.is_empty();
        if quiet && data.unlogged.is_empty() {
            return Ok(data.last_lsn);
        }
        self.note_changed(data);
        if stream.is_file() {
            stream.shared.room_for_control()?;
        }
        let mut batch = Vec::new();
        data.state.encode_events(&mut batch);
        let mut unit = Unit {
            consumer: self.id,
            batches: Vec::new(),
        };
        if self.logs(stream, data) {
            let refused = data.unlogged.iter().map(Vec::as_slice);
            let own = Some(&batch[..]).filter(|batch| !batch.is_empty());
            unit.batches = refused.chain(own).collect();
        }
        let changed = !unit.batches.is_empty();
        let (first, last) = stream.log_unit(&unit, &mut data.leaving)?;
        if changed {
            let batches = unit.batches.len() as u64;
            data.touched(first);
            data.last_lsn = Lsn(first.0 + batches - 1);
        }
        data.state.events_logged();
        data.leaving.clear();
        data.unlogged.clear();
        Ok(last.max(data.last_lsn))
    }

    /// Makes a state without recorded events, so that it can be kept by a checkpoint. What the log
    /// does not take is kept in mind until the checkpoint is durable.
    fn settle_events(self: &Arc<Self>, stream: &StreamCore, data: &mut ConsumerData) {
        if self.log_events(stream, data).is_ok() {
            return;
        }
        let mut batch = Vec::new();
        if data.state.drain_events(&mut batch) > 0 {
            data.unlogged.push(batch);
        }
        // The checkpoint may make the deliveries durable before the log takes the removals. The
        // stream's share is taken after this one, and knows them then.
        let leaving = std::mem::take(&mut data.leaving);
        if !leaving.is_empty() {
            stream
                .lock()
                .abandon_open(leaving.into_iter().map(|(seq, _)| seq));
        }
    }

    /// Logs whatever is not logged yet.
    pub fn flush(self: &Arc<Self>) -> Result<Lsn, ChangeError> {
        let Some(stream) = self.stream.upgrade() else {
            return Err(ChangeError::NotFound);
        };
        self.log_events(&stream, &mut self.lock())
    }

    /// The consumer's share of a checkpoint; `None` when nothing changed. Events are drained and the
    /// state is encoded under one hold of the lock: an event that the state contains must not be
    /// replayed on top of it.
    pub fn freeze(self: &Arc<Self>) -> Option<ConsumerShare> {
        let stream = self.stream.upgrade()?;
        self.freeze_locked(&stream, &mut self.lock())
    }

    /// As [`ConsumerCore::freeze`], for whoever holds the lock.
    pub fn freeze_locked(
        self: &Arc<Self>,
        stream: &StreamCore,
        data: &mut ConsumerData,
    ) -> Option<ConsumerShare> {
        self.settle_events(stream, data);
        data.noted = false;
        if !data.unlogged.is_empty() {
            self.note_changed(data);
        }
        let unchanged = data.dirty_since.is_none() && !data.config_dirty;
        if data.state.config().memory || data.deleted || unchanged {
            return None;
        }
        let mut head = Vec::new();
        put_consumer_head(&data.state, self.created, data.last_lsn, &mut head);
        data.config_dirty = false;
        Some(ConsumerShare {
            core: self.clone(),
            applied: data.last_lsn,
            head,
            containers: data.state.take_changed(),
        })
    }

    /// Takes back a delivery that reached nobody.
    pub fn undeliver(self: &Arc<Self>, seq: Seq, consumer_seq: u64) -> bool {
        let mut data = self.lock();
        let before = data.state.next_seq();
        let taken = data.state.undeliver(seq, consumer_seq);
        if data.state.next_seq() < before {
            data.pending.invalidate();
        }
        self.note_events(&mut data);
        taken
    }

    /// Counters as of now.
    pub fn info(self: &Arc<Self>) -> ConsumerStateInfo {
        let first_seq = self.stream.upgrade().map(|stream| stream.lock().first_seq);
        let mut data = self.lock();
        if let Some(first_seq) = first_seq {
            data.catch_up(first_seq);
        }
        self.note_events(&mut data);
        data.state.info()
    }

    pub fn take_notices(&self) -> VecDeque<Notice> {
        self.lock().state.take_notices()
    }

    /// A message was deleted on request.
    pub fn message_deleted(self: &Arc<Self>, seq: Seq) {
        let mut data = self.lock();
        data.state.message_removed(seq, RemovalReason::Deleted);
        self.note_events(&mut data);
    }

    /// Moves what is due at `now` to the redelivery queue.
    pub fn expire(self: &Arc<Self>, now: TimestampNs) {
        let mut data = self.lock();
        data.state.expire(now);
        self.note_events(&mut data);
    }

    /// The stream was purged.
    pub fn purged(self: &Arc<Self>, stream: &StreamCore, filter: Option<&Filter>) {
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
            let mut place = Place::default();
            let visible = stream.visible_seq();
            let next = stream.next_message(&filters, first_seq, &mut place);
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
        self.note_events(&mut data);
    }

    /// Replaces the configuration.
    pub fn update_config(self: &Arc<Self>, config: ConsumerConfig) -> Result<Lsn, ChangeError> {
        let Some(stream) = self.stream.upgrade() else {
            return Err(ChangeError::NotFound);
        };
        let filters = compile(&config.filters)?;
        let filters = stream.lock().interest.shared(filters);
        let mut data = self.lock();
        if data.deleted {
            return Err(ChangeError::NotFound);
        }
        let old = data.state.config();
        if old.name != config.name || old.ack != config.ack || old.memory != config.memory {
            return Err(ConfigError::Fixed("name, ack policy or memory storage").into());
        }
        let filters_differ = old.filters != config.filters;
        self.log_events(&stream, &mut data)?;
        let mut encoded = Vec::new();
        put_consumer_config(&config, &mut encoded);
        let op = Op::ConsumerPut {
            stream: stream.id,
            consumer: self.id,
            created: self.created,
            config: &encoded,
        };
        let claim = filters_differ.then(|| data.claim());
        let lsn = self.log_and_abandon(&stream, &mut data, &op, claim)?;
        let mut interest = stream.lock();
        interest.interest.remove(self.id, &data.filters);
        interest.interest.insert(self, &filters);
        drop(interest);
        data.state.update_config(config);
        data.config_dirty = true;
        data.set_filters(filters);
        drop(data);
        stream.settle_claims_or_later();
        Ok(lsn)
    }

    /// Starts over at `next`.
    pub fn reset(self: &Arc<Self>, next: Seq) -> Result<Lsn, ChangeError> {
        let Some(stream) = self.stream.upgrade() else {
            return Err(ChangeError::NotFound);
        };
        let mut data = self.lock();
        if data.deleted {
            return Err(ChangeError::NotFound);
        }
        self.log_events(&stream, &mut data)?;
        if stream.is_file() {
            stream.shared.room_for_control()?;
        }
        let claim = data.claim();
        // A batch of its own: replay looks at what the consumer needed before it.
        data.state.reset(next);
        let mut batch = Vec::new();
        data.state.encode_events(&mut batch);
        let op = Op::ConsumerDelta {
            stream: stream.id,
            consumer: self.id,
            events: &batch,
        };
        let lsn = self.log_and_abandon(&stream, &mut data, &op, Some(claim))?;
        data.state.events_logged();
        data.forget_counts();
        drop(data);
        stream.settle_claims_or_later();
        Ok(lsn)
    }

    /// Marks the consumer as deleted; it is no longer asked what it needs.
    pub fn delete(self: &Arc<Self>, stream: &StreamCore) -> Result<Lsn, ChangeError> {
        let mut data = self.lock();
        let claim = data.claim();
        let op = Op::ConsumerDelete {
            stream: stream.id,
            consumer: self.id,
        };
        let lsn = self.log_and_abandon(stream, &mut data, &op, Some(claim))?;
        data.deleted = true;
        stream.lock().interest.remove(self.id, &data.filters);
        Ok(lsn)
    }

    /// Logs an operation, if this consumer is logged at all, and gives a claim to the stream. Both
    /// happen under the stream's lock, so that a checkpoint of the stream holds both or neither.
    fn log_and_abandon(
        self: &Arc<Self>,
        stream: &StreamCore,
        data: &mut ConsumerData,
        op: &Op<'_>,
        claim: Option<Claim>,
    ) -> Result<Lsn, ChangeError> {
        let logs = self.logs(stream, data);
        self.note_changed(data);
        let mut held = stream.lock();
        let mut lsn = Lsn(0);
        if logs {
            lsn = stream.shared.log_control(op)?;
            data.touched(lsn);
            if matches!(op, Op::ConsumerDelete { .. }) {
                stream.shared.consumer_deleted(stream.id, self.id, lsn);
            }
        }
        if let Some(claim) = claim
            && held.config.retention == Retention::Interest
        {
            held.abandon(claim);
            if logs {
                held.touched(lsn, lsn);
            }
        }
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

    /// What the consumer needs now.
    fn claim(&self) -> Claim {
        let mut claim = self.state.claim();
        // Delivered, but not known to the log yet.
        claim.open.extend(self.leaving.iter().map(|(seq, _)| *seq));
        claim
    }

    /// Counts anew at the next question.
    fn forget_counts(&mut self) {
        self.pending.invalidate();
        self.place = None;
    }

    pub fn filters(&self) -> &Arc<[Filter]> {
        &self.filters
    }

    fn set_filters(&mut self, filters: Arc<[Filter]>) {
        self.filters = filters;
        self.forget_counts();
    }

    /// Learns how far the stream's front has moved because of limits (T-11).
    pub(super) fn catch_up(&mut self, first_seq: u64) {
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
