//! What all streams of a store share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use super::damage::DamageLog;
use super::jobs::Jobs;
use super::key_use::Rekey;
use super::options::StoreOptions;
use super::scrub::ScrubControl;
use super::space::SpaceMetrics;
use crate::cache::Cache;
use crate::dedup::IdFiles;
use crate::error::Stopped;
use crate::format::op::Op;
use crate::ids::{ConsumerId, Lsn, Seq, StreamId, TimestampNs};
use crate::io::Env;
use crate::stream::core::{append_error, change_error};
use crate::stream::erase::ErasureCount;
use crate::stream::state::TailRam;
use crate::stream::{AppendError, ChangeError};
use crate::wal::{Class, CommitQueue, DurableBatch, EnqueueError, StreamGate};

/// Longest wait for tails to shrink before an append is tried again.
const TAIL_WAIT_MAX: Duration = Duration::from_secs(1);

/// Called after each commit batch.
pub(crate) type Observer = Arc<dyn Fn(&DurableBatch<'_>) + Send + Sync>;

/// Refusals for lack of space between two checkpoints that try to find some.
const REFUSALS_PER_RETRY: u64 = 64;

/// Environment, log, cache and budgets.
pub(crate) struct StoreShared {
    pub env: Env,
    pub dir: PathBuf,
    pub uuid: u128,
    pub dedup_seed: u64,
    pub queue: Arc<CommitQueue>,
    pub cache: Arc<Cache>,
    /// Files of message ids.
    pub ids: IdFiles,
    /// RAM held by tails of file streams and its budget, in bytes.
    tail_ram: AtomicU64,
    /// What of it are message ids.
    ids_ram: AtomicU64,
    tail_ram_budget: u64,
    log_bytes_max: u64,
    /// Appends that wait for tails to shrink.
    tail_room: Condvar,
    tail_waiters: Mutex<()>,
    /// Appends refused because the log found no disk space.
    refusals: AtomicU64,
    /// Set while checkpoints fail for lack of disk space.
    pub out_of_space: AtomicBool,
    pub wake: Wake,
    pub space: SpaceMetrics,
    pub erasures: ErasureCount,
    /// Index runs may have to be merged, or lists of them written.
    pub index_work: AtomicBool,
    pub index_merge_parts: usize,
    pub index_merge_span_min: u64,
    pub jobs: Jobs,
    pub damage: Arc<DamageLog>,
    pub scrub: ScrubControl,
    /// When maintenance looks for messages that are too old, if nothing asks for it earlier.
    expiry_at: AtomicI64,
    observers: RwLock<Arc<[Observer]>>,
    next_consumer: AtomicU64,
    /// Deleted consumers that no checkpoint holds.
    deleted_consumers: Mutex<Vec<(StreamId, ConsumerId, Lsn)>>,
    pub rekey: Rekey,
    /// In manual mode, what a caller that waits does itself.
    pump: OnceLock<Box<dyn Fn(Pump) + Send + Sync>>,
}

/// Work that a waiting caller does itself in manual mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pump {
    /// Make what is queued durable.
    Commit,
    /// Also make room: checkpoints, if they are due.
    Upkeep,
    /// Do what callers wait for.
    Jobs,
}

/// Wakes the maintenance thread.
#[derive(Default)]
pub(crate) struct Wake {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    /// Asks for a round of maintenance.
    pub fn ask(&self) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if !*asked {
            *asked = true;
            self.changed.notify_all();
        }
    }

    /// Waits until asked, at most `timeout`.
    pub fn wait(&self, timeout: Option<Duration>) {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut asked = match timeout {
            Some(timeout) => {
                let waited = self
                    .changed
                    .wait_timeout_while(asked, timeout, |asked| !*asked);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait_while(asked, |asked| !*asked);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        *asked = false;
    }
}

impl StoreShared {
    pub fn new(
        env: Env,
        dir: PathBuf,
        uuid: u128,
        queue: Arc<CommitQueue>,
        cache: Arc<Cache>,
        options: &StoreOptions,
        next_consumer: u64,
    ) -> StoreShared {
        StoreShared {
            env,
            dir,
            uuid,
            dedup_seed: StoreShared::dedup_seed_of(uuid),
            queue,
            cache,
            ids: IdFiles::default(),
            tail_ram: AtomicU64::new(0),
            ids_ram: AtomicU64::new(0),
            tail_ram_budget: options.tail_bytes_max,
            log_bytes_max: options
                .wal
                .file_bytes
                .saturating_mul(u64::from(options.wal.files_max)),
            tail_room: Condvar::new(),
            tail_waiters: Mutex::default(),
            refusals: AtomicU64::new(0),
            out_of_space: AtomicBool::new(false),
            wake: Wake::default(),
            space: SpaceMetrics::default(),
            erasures: ErasureCount::default(),
            index_work: AtomicBool::new(true),
            index_merge_parts: options.index_merge_parts.max(2) as usize,
            index_merge_span_min: options.index_merge_span_min,
            jobs: Jobs::default(),
            damage: Arc::default(),
            scrub: ScrubControl::default(),
            expiry_at: AtomicI64::new(i64::MAX),
            observers: RwLock::new(Arc::from([])),
            next_consumer: AtomicU64::new(next_consumer),
            deleted_consumers: Mutex::default(),
            rekey: Rekey::default(),
            pump: OnceLock::new(),
        }
    }

    /// Whether an append may be given a sequence now (A9, A10).
    pub fn room_for_append(&self) -> Result<(), AppendError> {
        if let Err(error) = self.queue.room(Class::Append) {
            if error == EnqueueError::NoSpace
                && self
                    .refusals
                    .fetch_add(1, Ordering::Relaxed)
                    .is_multiple_of(REFUSALS_PER_RETRY)
            {
                // A checkpoint may give log files back, or find that there is space again.
                self.wake.ask();
            }
            if error == EnqueueError::Full && self.queue.log_is_full() {
                // Few large messages can fill files long before half of the log's bytes are used.
                self.wake.ask();
            }
            return Err(append_error(error));
        }
        if self.tails_full() {
            self.wake.ask();
            let full = self.out_of_space.load(Ordering::Relaxed);
            return Err(if full {
                AppendError::NoSpace
            } else {
                AppendError::Busy
            });
        }
        Ok(())
    }

    /// Seed of the hashes of message ids.
    pub fn dedup_seed_of(uuid: u128) -> u64 {
        (uuid >> 64) as u64 ^ uuid as u64
    }

    /// Logs an operation that is no append. It may use the log's reserve, and does not wait for
    /// room in the queue: what it stands for frees space or is small. When the reserve is used up
    /// as well it is refused until a checkpoint has freed some of the log.
    pub fn log_control(&self, op: &Op<'_>) -> Result<Lsn, ChangeError> {
        self.log_control_unit(1, None, |out| op.encode(out))
    }

    /// As [`StoreShared::log_control`] for several operations that belong together; `touched` names
    /// the last message among them.
    pub fn log_control_unit(
        &self,
        ops: u32,
        touched: Option<(&Arc<StreamGate>, Seq)>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Lsn, ChangeError> {
        self.room_for_control()?;
        self.queue
            .enqueue(Class::Control, ops, touched, encode)
            .map_err(change_error)
    }

    /// Whether an operation that is no append may be logged now. Ask before anything changes.
    pub fn room_for_control(&self) -> Result<(), ChangeError> {
        match self.queue.room(Class::Control) {
            Ok(()) => Ok(()),
            Err(EnqueueError::Full) if self.queue.log_has_room() => Ok(()),
            Err(EnqueueError::Full) => {
                self.wake.ask();
                Err(ChangeError::NoSpace)
            }
            Err(error) => Err(change_error(error)),
        }
    }

    /// True when the disk has no room for another log file and the present ones are full: only a
    /// checkpoint can make room for appends.
    pub fn log_is_stuck(&self) -> bool {
        self.queue.room(Class::Append) == Err(EnqueueError::NoSpace)
    }

    /// True when a checkpoint should make log space reusable.
    pub fn log_is_half_full(&self) -> bool {
        self.queue.metrics().log_used_bytes() > self.log_bytes_max / 2
    }

    /// True when log space should be made reusable, or nothing goes on.
    pub fn log_wants_release(&self) -> bool {
        self.log_is_half_full()
            || self.queue.log_is_full()
            || self.log_is_stuck()
            || self.queue.is_stalled()
    }

    pub fn tail_ram_budget(&self) -> u64 {
        self.tail_ram_budget
    }

    pub fn tail_ram(&self) -> u64 {
        self.tail_ram.load(Ordering::Relaxed)
    }

    /// True when tails hold so much that appends have to wait for a checkpoint.
    fn tails_full(&self) -> bool {
        self.tail_ram() > self.tail_ram_budget || self.ids_ram() > self.tail_ram_budget / 2
    }

    /// Blocks while appends are refused as busy: the queue or the tails are full, and that can end.
    pub fn wait_room(&self) {
        // When the store stopped, the next append says so.
        let _ = self.queue.wait_room(Class::Append);
        let waiting = self
            .tail_waiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let full = |_: &mut ()| {
            let hopeless =
                self.out_of_space.load(Ordering::Relaxed) || self.queue.stopped().is_some();
            self.tails_full() && !hopeless
        };
        // The wait is bounded: whatever ends it, the append is tried again.
        let waited = self
            .tail_room
            .wait_timeout_while(waiting, TAIL_WAIT_MAX, full);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Whoever waits calls `pump` instead of blocking; for manual mode.
    pub fn pump_with(&self, pump: Box<dyn Fn(Pump) + Send + Sync>) {
        let first = self.pump.set(pump).is_ok();
        debug_assert!(first, "set once, when the store is opened");
    }

    /// In manual mode, does work that a caller is about to wait for.
    pub fn pump(&self, work: Pump) {
        if let Some(pump) = self.pump.get() {
            pump(work);
        }
    }

    /// Returns when everything up to `lsn` is durable.
    pub fn settle(&self, lsn: Lsn) -> Result<(), AppendError> {
        if let Some(pump) = self.pump.get() {
            pump(Pump::Commit);
            if self.queue.durable_lsn() < lsn && self.queue.stopped().is_none() {
                // The log cannot take it before a checkpoint has made room.
                pump(Pump::Upkeep);
                pump(Pump::Commit);
            }
            if self.queue.durable_lsn() >= lsn {
                return Ok(());
            }
            let stopped = self.queue.stopped().unwrap_or(Stopped::Closed);
            return Err(AppendError::Stopped(stopped));
        }
        self.queue.ticket(lsn).wait().map_err(AppendError::Stopped)
    }

    /// True when whoever waits does the work himself.
    pub fn is_pumped(&self) -> bool {
        self.pump.get().is_some()
    }

    /// As [`StoreShared::wait_room`], or makes the room itself in manual mode.
    pub fn make_room(&self) {
        match self.pump.get() {
            Some(pump) => pump(Pump::Upkeep),
            None => self.wait_room(),
        }
    }

    /// True when tails should be flushed: at half the budget, so that appends go on meanwhile. Ids
    /// are flushed earlier: their messages may be gone long since, and they are small elsewhere.
    pub fn wants_flush(&self) -> bool {
        self.tail_ram() > self.tail_ram_budget / 2 || self.ids_ram() > self.tail_ram_budget / 8
    }

    fn ids_ram(&self) -> u64 {
        self.ids_ram.load(Ordering::Relaxed)
    }

    /// Books a change of one tail's size.
    pub fn tail_ram_changed(&self, before: TailRam, after: TailRam) {
        book(&self.ids_ram, before.ids_bytes, after.ids_bytes);
        book(&self.tail_ram, before.total(), after.total());
        if after.total() < before.total() && !self.tails_full() {
            self.tail_room.notify_all();
        } else if self.wants_flush() {
            self.wake.ask();
        }
    }

    /// Something that may be in a sealed file was removed.
    pub fn space_changed(&self) {
        if self.space.change() {
            self.wake.ask();
        }
    }

    /// A message will be too old at `at`; wakes maintenance if it would look later.
    pub fn expires_at(&self, at: TimestampNs) {
        if self.plan_expiry(at) > at {
            self.wake.ask();
        }
    }

    /// Forgets what is planned. Whoever adds a message from here on asks maintenance himself.
    pub fn begin_expiry(&self) {
        self.expiry_at.store(i64::MAX, Ordering::Release);
    }

    /// Maintenance will look at `at`, unless it does so earlier; returns when it would have.
    pub fn plan_expiry(&self, at: TimestampNs) -> TimestampNs {
        TimestampNs(self.expiry_at.fetch_min(at.0, Ordering::AcqRel))
    }

    /// A new consumer's id.
    pub fn next_consumer_id(&self) -> ConsumerId {
        ConsumerId(self.next_consumer.fetch_add(1, Ordering::Relaxed))
    }

    /// The id the next consumer gets.
    pub fn peek_consumer_id(&self) -> u64 {
        self.next_consumer.load(Ordering::Relaxed)
    }

    /// Notes a deletion for the next checkpoint.
    pub fn consumer_deleted(&self, stream: StreamId, consumer: ConsumerId, lsn: Lsn) {
        self.lock_deleted().push((stream, consumer, lsn));
    }

    /// Deletions of consumers that no checkpoint holds.
    pub fn deleted_consumers(&self) -> Vec<(StreamId, ConsumerId, Lsn)> {
        self.lock_deleted().clone()
    }

    /// Drops deletions that a checkpoint holds now.
    pub fn forget_deleted_consumers(&self, done: &[(StreamId, ConsumerId, Lsn)]) {
        self.lock_deleted().retain(|entry| !done.contains(entry));
    }

    fn lock_deleted(&self) -> MutexGuard<'_, Vec<(StreamId, ConsumerId, Lsn)>> {
        self.deleted_consumers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn observe(&self, observer: Observer) {
        let mut observers = self
            .observers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *observers = observers.iter().cloned().chain([observer]).collect();
    }

    /// Makes an append to a memory stream visible and says so.
    pub fn announce_memory(&self, gate: &Arc<StreamGate>, seq: Seq) {
        gate.raise(seq);
        let streams = [(gate.id(), seq)];
        let batch = DurableBatch {
            lsn: Lsn(0),
            streams: &streams,
            ops: 0,
            bytes: 0,
            sync_ns: 0,
        };
        let observers = self
            .observers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for observer in observers.iter() {
            observer(&batch);
        }
    }
}

/// Adds the difference to a sum.
fn book(sum: &AtomicU64, before: u64, after: u64) {
    if after > before {
        sum.fetch_add(after - before, Ordering::Relaxed);
    } else if after < before {
        sum.fetch_sub(before - after, Ordering::Relaxed);
    }
}
