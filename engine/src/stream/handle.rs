//! The public handles of streams and consumers.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::core::StreamCore;
use super::cursor::{ConsumerCore, compile};
use super::deliver::Next;
use super::erase::Erasure;
use super::follow::Follower;
use super::messages::Messages;
use super::place::Place;
use super::release::{AckResult, Final};
use super::remove::Removed;
use super::types::{
    Append, AppendError, Appended, BatchError, ChangeError, PurgeRequest, StreamState,
};
use crate::config::{ConfigError, Retention, StreamConfig};
use crate::consumer::{ConsumerConfig, ConsumerState, ConsumerStateInfo, Notice};
use crate::error::ReadError;
use crate::format::op::Op;
use crate::format::timers::TimerKind;
use crate::ids::{ConsumerId, Lsn, Seq, StreamId, TimestampNs};
use crate::invariants::is_visible;
use crate::message::Message;
use crate::subject::Filter;
use crate::ticket::Ticket;

/// A stream: ordered messages with subjects.
///
/// A handle is cheap to clone and usable from any thread. After the stream's deletion every
/// operation fails or finds nothing.
#[derive(Clone)]
pub struct Stream {
    pub(crate) core: Arc<StreamCore>,
}

impl Stream {
    /// Name, unique in the store.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Identity, never reused.
    pub fn id(&self) -> StreamId {
        self.core.id
    }

    /// Configuration in force.
    pub fn config(&self) -> StreamConfig {
        self.core.lock().config.clone()
    }

    /// Time of creation.
    pub fn created(&self) -> TimestampNs {
        self.core.lock().created
    }

    /// True once the stream was deleted.
    pub fn is_deleted(&self) -> bool {
        self.core.lock().deleted
    }

    /// Appends a message and returns when it is on disk. While the store has no room for it, it waits.
    ///
    /// # Errors
    ///
    /// The condition or limit that refused the message; nothing changed. After
    /// [`AppendError::Stopped`] nobody knows whether the message will be there after a restart.
    pub fn append(&self, append: &Append<'_>) -> Result<Appended, AppendError> {
        loop {
            match self.append_nosync(append) {
                Ok(appended) => {
                    self.core.shared.settle(appended.lsn)?;
                    return Ok(appended);
                }
                Err(AppendError::Busy) => self.core.shared.make_room(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Appends messages in order and returns when all of them are on disk: one sync for the batch.
    /// Messages of other writers may lie between them.
    ///
    /// # Errors
    ///
    /// The first message that was refused ends the batch; those before it are stored.
    pub fn append_batch(&self, batch: &[Append<'_>]) -> Result<Vec<Appended>, BatchError> {
        let mut appended: Vec<Appended> = Vec::with_capacity(batch.len());
        let mut refused = None;
        for append in batch {
            let done = loop {
                match self.append_nosync(append) {
                    Err(AppendError::Busy) => self.core.shared.make_room(),
                    done => break done,
                }
            };
            match done {
                Ok(done) => appended.push(done),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let last = appended.iter().map(|done| done.lsn).max();
        let settled = last.map_or(Ok(()), |lsn| self.core.shared.settle(lsn));
        match settled.err().or(refused) {
            None => Ok(appended),
            Some(refused) => Err(BatchError { appended, refused }),
        }
    }

    /// Appends a message without waiting for the disk. It is durable when the store's durable
    /// position reaches [`Appended::lsn`]; until then no reader sees it, and nobody may be told.
    ///
    /// # Errors
    ///
    /// The condition or limit that refused the message, or [`AppendError::Busy`] while there is no
    /// room; nothing changed.
    pub fn append_nosync(&self, append: &Append<'_>) -> Result<Appended, AppendError> {
        self.core.append_nosync(append)
    }

    /// A ticket for a log position returned by an operation on this store.
    pub fn ticket(&self, lsn: Lsn) -> Ticket {
        self.core.shared.queue.ticket(lsn)
    }

    /// The message at `seq`; `None` when it was removed, not stored or is not durable.
    pub fn get(&self, seq: Seq) -> Result<Option<Message>, ReadError> {
        self.core.get(seq.0).inspect(|message| self.check(message))
    }

    /// I2, wherever a message leaves the engine.
    fn check(&self, message: &Option<Message>) {
        debug_assert!(
            message
                .as_ref()
                .is_none_or(|m| is_visible(m.seq.0, self.core.visible_seq()))
        );
    }

    /// The newest message whose subject matches.
    pub fn last_by_subject(&self, filter: &Filter) -> Result<Option<Message>, ReadError> {
        loop {
            let Some(seq) = self.core.last_matching(filter)? else {
                return Ok(None);
            };
            if let Some(message) = self.core.get(seq)? {
                return Ok(Some(message));
            }
        }
    }

    /// The first message at or after `from` that matches any filter; with no filters, the first
    /// message.
    pub fn next_message(
        &self,
        filters: &[Filter],
        from: Seq,
    ) -> Result<Option<Message>, ReadError> {
        self.core
            .next_message(filters, from.0, &mut Place::default())
            .inspect(|message| self.check(message))
    }

    /// The messages of a range of sequences that match any filter, all of them with no filter,
    /// ascending.
    ///
    /// Between two steps the iterator holds at most one block of messages in memory, and neither a
    /// file nor a lock: messages removed meanwhile are passed over, messages that become durable
    /// meanwhile are found.
    pub fn messages(&self, filters: &[Filter], range: RangeInclusive<Seq>) -> Messages {
        Messages::new(self.core.clone(), filters, &range)
    }

    /// As [`Stream::messages`] from `from` on, but waits for messages to come.
    pub fn follow(&self, filters: &[Filter], from: Seq) -> Follower {
        Follower::new(self.core.clone(), filters, from)
    }

    /// The first sequence whose message is not older than `ts`; one past the last when all are.
    pub fn seq_at(&self, ts: TimestampNs) -> Result<Seq, ReadError> {
        self.core.seq_at(ts).map(Seq)
    }

    /// Number of messages at or after `from` that match any filter; with no filters, all.
    pub fn num_pending(&self, filters: &[Filter], from: Seq) -> Result<u64, ReadError> {
        self.core.num_pending(filters, from.0)
    }

    /// Messages per matching subject, in subject order.
    pub fn subjects(&self, filter: &Filter) -> Result<BTreeMap<Bytes, u64>, ReadError> {
        self.core.subjects(filter)
    }

    /// Number of subjects with messages.
    pub fn num_subjects(&self) -> Result<u64, ReadError> {
        self.core.num_subjects()
    }

    /// Counters and positions, including what is admitted but not durable yet: wait for a
    /// [`crate::Store::barrier`] before showing them to somebody who must not see that.
    pub fn state(&self) -> StreamState {
        self.core.state()
    }

    /// Removed sequences between first and last, ascending, at most `max`.
    pub fn deleted(&self, max: usize) -> Vec<u64> {
        self.core.deleted(max)
    }

    /// Replaces the configuration and applies stricter limits at once. Name and storage are fixed.
    pub fn update_config(&self, config: StreamConfig) -> Result<Ticket, ChangeError> {
        config.check()?;
        let lsn = {
            let mut data = self.core.lock();
            if data.deleted {
                return Err(ChangeError::NotFound);
            }
            if config.name != data.config.name {
                return Err(ConfigError::Fixed("name").into());
            }
            if config.storage != data.config.storage {
                return Err(ConfigError::Fixed("storage").into());
            }
            let mut encoded = Vec::new();
            config.encode(&mut encoded);
            let created = data.created;
            let changed = TimestampNs(self.core.shared.env.clock.now_ns());
            let op = Op::StreamPut {
                stream: self.core.id,
                created,
                changed,
                config: &encoded,
            };
            let lsn = self.core.log(&mut data, &op)?;
            let decided = data.config.retention == Retention::Interest;
            let grown_ns = data.change_config(config, changed);
            if self.core.is_file() {
                self.core.shared.ids.window_grew(grown_ns);
            }
            if !decided {
                data.abandon_everything();
            }
            lsn
        };
        self.core.enforce_limits()?;
        // A new maximum age counts at once.
        self.core.plan_expiry(TimestampNs(i64::MIN));
        self.core.settle_claims_or_later();
        self.core.shared.wake.ask();
        Ok(self.ticket(lsn))
    }

    /// Removes the message at `seq`, and sees to it that its bytes leave the disk within the given
    /// time; `None` when there is no such message.
    ///
    /// The removal takes effect at once, as with [`Stream::delete`]. Then sealed files that hold the
    /// message are rewritten without it, and the files of the log that hold it are removed, as soon
    /// as the deadline comes near; a restart goes on with what is pending. When [`Erasure`] says so,
    /// the message's headers and payload are in no file of the store. What that cannot cover: blocks
    /// of the disk that the file system has freed but not overwritten, copies made elsewhere, and
    /// files a reader still holds open, which are waited for. The subject may stay in an index, and
    /// the message id in the metadata. A file with damaged blocks is not rewritten, so that an
    /// erasure in it stays pending until the file is repaired. Deleting the stream ends the
    /// supervision: its bytes then go when its files are compacted.
    ///
    /// # Errors
    ///
    /// As for [`Stream::delete`].
    pub fn erase(&self, seq: Seq, within: Duration) -> Result<Option<Erasure>, ChangeError> {
        self.core.erase(seq.0, within)
    }

    /// Removes one message; `None` when there is none.
    pub fn delete(&self, seq: Seq) -> Result<Option<Ticket>, ChangeError> {
        let Some(removed) = self.core.delete(seq.0)? else {
            return Ok(None);
        };
        for consumer in self.consumer_cores() {
            consumer.message_deleted(seq);
        }
        Ok(Some(self.ticket(removed.lsn)))
    }

    /// Removes messages by filter, position or count. Many of them (thousands) leave in steps: after a
    /// failure or a crash in between a part is removed, and the call can be repeated. Fewer leave
    /// together or not at all.
    pub fn purge(&self, request: &PurgeRequest) -> Result<(u64, Ticket), ChangeError> {
        let removed = self.core.purge(request)?;
        for consumer in self.consumer_cores() {
            consumer.purged(&self.core, request.filter.as_ref());
        }
        Ok((removed.msgs, self.ticket(removed.lsn)))
    }

    /// Removes the messages whose time is over at `now`, by their own life time or the stream's
    /// maximum age; returns when the next one is due. The store does so itself in time.
    pub fn expire(&self, now: TimestampNs) -> Result<(Removed, Option<TimestampNs>), ChangeError> {
        self.core.expire(now)
    }

    /// The first `max` messages whose [`Append::notify_at`] has come at `now`, with that time,
    /// earliest first. A message is returned again and again until it is removed, for instance
    /// replaced by one with another time; what is not durable yet is left out.
    ///
    /// # Errors
    ///
    /// [`ReadError::Io`] if the system failed a read. A message that is damaged is returned like
    /// any other: reading it says so.
    pub fn due_notices(
        &self,
        now: TimestampNs,
        max: usize,
    ) -> Result<Vec<(Seq, TimestampNs)>, ReadError> {
        self.core.due_notices(now, max)
    }

    /// [`Stream::due_notices`] returns nothing before this time; `None` while no message has one.
    /// It can be earlier than the first notice if messages were removed.
    pub fn next_notice(&self) -> Option<TimestampNs> {
        self.core.lock().next_timer(TimerKind::Notice)
    }

    /// Creates a consumer. [`ChangeError::Exists`] when the name is taken.
    pub fn create_consumer(
        &self,
        config: ConsumerConfig,
    ) -> Result<(Consumer, Ticket), ChangeError> {
        if config.name.is_empty() || config.name.len() > StreamConfig::NAME_BYTES_MAX {
            return Err(ConfigError::Name.into());
        }
        let filters = compile(&config.filters)?;
        let start = self.core.start_position(&config, &filters)?;
        let mut consumers = self.lock_consumers();
        if self.is_deleted() {
            return Err(ChangeError::NotFound);
        }
        if consumers.contains_key(config.name.as_str()) {
            return Err(ChangeError::Exists);
        }
        let shared = &self.core.shared;
        let id = shared.next_consumer_id();
        let created = TimestampNs(shared.env.clock.now_ns());
        let state = ConsumerState::new(config, &start);
        let core = ConsumerCore::new(id, created, &self.core, state)?;
        let lsn = self.log_consumer(&core, created)?;
        let filters = core.lock().filters().clone();
        self.core.lock().interest.insert(&core, &filters);
        consumers.insert(core.name.clone(), core.clone());
        Ok((
            Consumer {
                stream: self.clone(),
                core,
            },
            self.ticket(lsn),
        ))
    }

    /// Logs a new consumer with its configuration and start, as one unit.
    fn log_consumer(
        &self,
        core: &Arc<ConsumerCore>,
        created: TimestampNs,
    ) -> Result<Lsn, ChangeError> {
        let mut data = core.lock();
        core.note_changed(&mut data);
        if !self.core.is_file() || data.state.config().memory {
            return Ok(Lsn(0));
        }
        let mut value = Vec::new();
        super::snapshot::put_consumer_creation(&data.state, &mut value);
        let (stream, consumer) = (self.core.id, core.id);
        let op = Op::ConsumerPut {
            stream,
            consumer,
            created,
            config: &value,
        };
        let lsn = self.core.shared.log_control(&op)?;
        data.touched(lsn);
        Ok(lsn)
    }

    /// The consumer of this name.
    pub fn consumer(&self, name: &str) -> Option<Consumer> {
        let core = self.lock_consumers().get(name).cloned()?;
        Some(Consumer {
            stream: self.clone(),
            core,
        })
    }

    /// All consumers, in name order.
    pub fn consumers(&self) -> Vec<Consumer> {
        let cores = self.consumer_cores();
        cores
            .into_iter()
            .map(|core| Consumer {
                stream: self.clone(),
                core,
            })
            .collect()
    }

    /// Deletes a consumer.
    pub fn delete_consumer(&self, name: &str) -> Result<Ticket, ChangeError> {
        let mut consumers = self.lock_consumers();
        let Some(core) = consumers.get(name).cloned() else {
            return Err(ChangeError::NotFound);
        };
        let lsn = core.delete(&self.core)?;
        consumers.remove(name);
        drop(consumers);
        self.core.settle_claims_or_later();
        Ok(self.ticket(lsn))
    }

    fn lock_consumers(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<ConsumerCore>>> {
        self.core.lock_consumers()
    }

    fn consumer_cores(&self) -> Vec<Arc<ConsumerCore>> {
        self.lock_consumers().values().cloned().collect()
    }
}

impl StreamCore {
    pub(crate) fn lock_consumers(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<ConsumerCore>>> {
        self.consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A consumer: a named cursor over a stream with acknowledgement and redelivery.
///
/// A handle is cheap to clone and usable from any thread. Time is always an argument.
#[derive(Clone)]
pub struct Consumer {
    stream: Stream,
    core: Arc<ConsumerCore>,
}

impl Consumer {
    /// Name, unique in the stream.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Identity, never reused.
    pub fn id(&self) -> ConsumerId {
        self.core.id
    }

    /// The stream it reads.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Time of creation.
    pub fn created(&self) -> TimestampNs {
        self.core.created
    }

    /// Configuration in force.
    pub fn config(&self) -> ConsumerConfig {
        self.core.config()
    }

    /// Replaces the configuration; positions and pending messages stay.
    pub fn update_config(&self, config: ConsumerConfig) -> Result<Ticket, ChangeError> {
        self.core
            .update_config(config)
            .map(|lsn| self.stream.ticket(lsn))
    }

    /// True once the consumer was deleted.
    pub fn is_deleted(&self) -> bool {
        self.core.lock().deleted || self.stream.is_deleted()
    }

    /// Delivers the next message at `now`, redeliveries first. `fits` may refuse a message for its
    /// size; it is then returned untouched.
    pub fn next(
        &self,
        now: TimestampNs,
        fits: &mut dyn FnMut(&Message) -> bool,
    ) -> Result<Next, ReadError> {
        let next = self.core.next(now, fits)?;
        if let Next::Message(delivery) = &next {
            let durable = self.stream.core.visible_seq();
            debug_assert!(is_visible(delivery.message.seq.0, durable));
        }
        Ok(next)
    }

    /// Takes back a delivery that reached nobody; the message is due at once.
    pub fn undeliver(&self, seq: Seq, consumer_seq: u64) -> bool {
        self.core.undeliver(seq, consumer_seq)
    }

    /// Acknowledges a message, or with [`crate::consumer::AckPolicy::All`] everything up to it.
    pub fn ack(&self, seq: Seq, now: TimestampNs) -> Result<AckResult, ChangeError> {
        self.core.finish(seq, Final::Ack, now)
    }

    /// Asks for redelivery, at once or after `delay_ns`.
    pub fn nak(
        &self,
        seq: Seq,
        delay_ns: Option<u64>,
        now: TimestampNs,
    ) -> Result<AckResult, ChangeError> {
        self.core.respond(|state| state.nak(seq, delay_ns, now))
    }

    /// Gives a message up: it is never redelivered.
    pub fn term(&self, seq: Seq, now: TimestampNs) -> Result<AckResult, ChangeError> {
        self.core.finish(seq, Final::Term, now)
    }

    /// Restarts the time until redelivery.
    pub fn in_progress(&self, seq: Seq, now: TimestampNs) -> Result<AckResult, ChangeError> {
        self.core.respond(|state| state.in_progress(seq, now))
    }

    /// Starts over at `next`.
    pub fn reset(&self, next: Seq) -> Result<Lsn, ChangeError> {
        self.core.reset(next)
    }

    /// Positions and counters.
    pub fn info(&self) -> ConsumerStateInfo {
        self.core.info()
    }

    /// Messages waiting for their first delivery, exact.
    pub fn num_pending(&self) -> Result<u64, ReadError> {
        self.core.num_pending()
    }

    /// When something will be due although nobody asks: redelivery, or the end of a pause.
    pub fn next_deadline(&self) -> Option<TimestampNs> {
        self.core.lock().state.next_deadline()
    }

    /// Moves what is due at `now` to the redelivery queue.
    pub fn expire(&self, now: TimestampNs) {
        self.core.expire(now);
    }

    /// The first sequence the consumer has not looked at yet.
    pub fn position(&self) -> Seq {
        self.core.lock().state.next_seq()
    }

    /// What happened since the last call and may be worth telling.
    pub fn take_notices(&self) -> VecDeque<Notice> {
        self.core.take_notices()
    }

    /// Hands delivery marks that are still collected to the log.
    pub fn flush(&self) -> Result<Ticket, ChangeError> {
        self.core.flush().map(|lsn| self.stream.ticket(lsn))
    }
}
