//! The commit queue: callers put encoded ops in, the committer takes them out frame by frame.
//!
//! While one frame is written and synced, the next ones collect; there is no timer. The lock is
//! held for the encoding of one caller's ops and never across I/O. The queue is bounded in bytes:
//! callers ask [`CommitQueue::room`] before they give a sequence, so a refused append leaves no
//! trace. [`CommitQueue::enqueue`] itself does not refuse for space, because by then the op is part
//! of the in-memory state; it can overshoot the bound by one call per concurrent caller.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::task::{Poll, Waker};
use std::{fmt, io};

use super::batch::Batch;
use super::gate::StreamGate;
use super::metrics::CommitMetrics;
use crate::error::Stopped;
use crate::ids::{Lsn, Seq, StreamId};
use crate::ticket::{Ticket, Waiters, block_on};

/// Ops collect in a frame until it holds this many bytes. Larger frames gain no throughput.
pub const FRAME_PAYLOAD_BYTES_TARGET: usize = 1 << 20;
/// Largest payload of a frame, which bounds the ops of one enqueue call.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// Default of [`QueueOptions::bytes_max`].
pub const QUEUE_BYTES_MAX_DEFAULT: u64 = 8 << 20;

/// Frames under construction that are kept for reuse.
const BATCHES_KEPT_MAX: usize = 16;
/// Refusals for lack of space between two attempts to find some. Counted, not timed: whoever wants
/// to write pays for the attempt.
const REFUSALS_PER_RETRY: u64 = 64;

/// Who asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// New messages.
    Append,
    /// Acknowledgements, deletes, metadata: they may use the reserve, so that a full log can still
    /// be emptied.
    Control,
}

/// Why ops were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The queue holds its bytes or the log waits for a checkpoint: wait with
    /// [`CommitQueue::wait_room`] and try again.
    Full,
    /// The disk is full. Refused before a sequence is given; accepted again once there is space.
    NoSpace,
    /// One call's ops exceed [`FRAME_PAYLOAD_BYTES_MAX`].
    TooLarge,
    /// A write or sync failed; nothing is accepted any more.
    Poisoned,
    /// The store was closed.
    Closed,
}

impl fmt::Display for EnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EnqueueError::Full => "the commit queue is full",
            EnqueueError::NoSpace => "no space left for the log",
            EnqueueError::TooLarge => "the operation is too large for the log",
            EnqueueError::Poisoned => "the store stopped after a failed write or sync",
            EnqueueError::Closed => "the store is closed",
        })
    }
}

impl std::error::Error for EnqueueError {}

/// What one sync made durable.
#[derive(Clone, Copy, Debug)]
pub struct DurableBatch<'a> {
    /// Everything up to here is durable.
    pub lsn: Lsn,
    /// Streams with new messages, each with its last durable sequence.
    pub streams: &'a [(StreamId, Seq)],
    /// Operations in the batch; 0 for an append to a memory stream, which has no log.
    pub ops: u32,
    /// Their bytes in the log.
    pub bytes: u64,
    /// How long the sync took, in nanoseconds.
    pub sync_ns: u64,
}

/// Called by the committer after each sync.
pub type DurableObserver = Box<Observer>;

/// The function behind a [`DurableObserver`].
pub type Observer = dyn Fn(&DurableBatch<'_>) + Send + Sync;

/// The failure that poisoned the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoisonCause {
    /// What failed.
    pub operation: &'static str,
    /// Kind of the system's error.
    pub kind: io::ErrorKind,
    /// Number of the system's error, if it has one.
    pub os_error: Option<i32>,
}

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueOptions {
    /// Bytes that may wait for their sync. An op larger than this is taken when the queue has room
    /// at all.
    pub bytes_max: u64,
}

impl Default for QueueOptions {
    fn default() -> QueueOptions {
        QueueOptions {
            bytes_max: QUEUE_BYTES_MAX_DEFAULT,
        }
    }
}

const RUNNING: u8 = 0;
const CLOSING: u8 = 1;
const CLOSED: u8 = 2;
const POISONED: u8 = 3;

struct State {
    /// Oldest first; ops are added to the last one.
    batches: VecDeque<Batch>,
    reusable: Vec<Batch>,
    next_lsn: u64,
    batch_number: u32,
    /// The committer waits on `work`.
    committer_waits: bool,
    /// The committer has something to do besides frames.
    poked: bool,
    poison: Option<PoisonCause>,
}

/// See the [module](self).
pub struct CommitQueue {
    options: QueueOptions,
    state: Mutex<State>,
    work: Condvar,
    status: AtomicU8,
    durable_lsn: AtomicU64,
    assigned_lsn: AtomicU64,
    /// Bytes ever enqueued, and those of them whose frame is synced.
    enqueued_bytes: AtomicU64,
    finished_bytes: AtomicU64,
    /// `enqueued_bytes` may rise to this before the log is full.
    log_limit_bytes: AtomicU64,
    control_reserve_bytes: AtomicU64,
    log_disk_full: AtomicBool,
    /// The committer holds a frame that no log file can take before one is released.
    log_stalled: AtomicBool,
    /// Asks whoever releases files to do so.
    on_stall: OnceLock<Box<dyn Fn() + Send + Sync>>,
    store_disk_full: AtomicBool,
    refusals: AtomicU64,
    released_lsn: AtomicU64,
    /// Requests that what the log holds does not stay on disk, and those that were carried out.
    retire_requests: AtomicU64,
    retired: AtomicU64,
    /// No op up to here is in a file of the log.
    gone_lsn: AtomicU64,
    waiters: Waiters,
    room_waiters: Mutex<Vec<Waker>>,
    observers: RwLock<Arc<Vec<Arc<Observer>>>>,
    metrics: CommitMetrics,
}

impl fmt::Debug for CommitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitQueue")
            .field("durable_lsn", &self.durable_lsn())
            .field("assigned_lsn", &self.assigned_lsn())
            .field("stopped", &self.stopped())
            .finish_non_exhaustive()
    }
}

impl CommitQueue {
    /// A queue whose next op gets `next_lsn`; everything before it is durable already. It accepts
    /// ops for the log once its committer exists.
    pub fn new(options: QueueOptions, next_lsn: Lsn) -> Arc<CommitQueue> {
        assert!(next_lsn.0 > 0, "lsn 0 means none");
        let state = State {
            batches: VecDeque::new(),
            reusable: Vec::new(),
            next_lsn: next_lsn.0,
            batch_number: 0,
            committer_waits: false,
            poked: false,
            poison: None,
        };
        Arc::new(CommitQueue {
            options,
            state: Mutex::new(state),
            work: Condvar::new(),
            status: AtomicU8::new(RUNNING),
            durable_lsn: AtomicU64::new(next_lsn.0 - 1),
            assigned_lsn: AtomicU64::new(next_lsn.0 - 1),
            enqueued_bytes: AtomicU64::new(0),
            finished_bytes: AtomicU64::new(0),
            log_limit_bytes: AtomicU64::new(0),
            control_reserve_bytes: AtomicU64::new(0),
            log_disk_full: AtomicBool::new(false),
            log_stalled: AtomicBool::new(false),
            on_stall: OnceLock::new(),
            store_disk_full: AtomicBool::new(false),
            refusals: AtomicU64::new(0),
            released_lsn: AtomicU64::new(0),
            retire_requests: AtomicU64::new(0),
            retired: AtomicU64::new(0),
            gone_lsn: AtomicU64::new(0),
            waiters: Waiters::default(),
            room_waiters: Mutex::new(Vec::new()),
            observers: RwLock::new(Arc::new(Vec::new())),
            metrics: CommitMetrics::default(),
        })
    }

    /// Whether a small op may be enqueued now. Ask before giving a sequence. Cheap: a few atomics.
    pub fn room(&self, class: Class) -> Result<(), EnqueueError> {
        self.room_for(class, 0)
    }

    /// Whether an op of `bytes` encoded bytes may be enqueued now.
    pub fn room_for(&self, class: Class, bytes: u64) -> Result<(), EnqueueError> {
        self.check_running()?;
        if bytes > FRAME_PAYLOAD_BYTES_MAX as u64 {
            return Err(EnqueueError::TooLarge);
        }
        let enqueued = self.enqueued_bytes.load(Ordering::Acquire);
        let queued = self.queued_bytes();
        if queued > 0 && queued + bytes > self.options.bytes_max {
            return Err(EnqueueError::Full);
        }
        let reserve = match class {
            Class::Append => self.control_reserve_bytes.load(Ordering::Acquire),
            Class::Control => 0,
        };
        // A very large op gets a log file of its own, so only the usual size must be at hand.
        let needed = bytes.min(FRAME_PAYLOAD_BYTES_TARGET as u64).max(1);
        if enqueued + needed + reserve <= self.log_limit_bytes.load(Ordering::Acquire) {
            return Ok(());
        }
        if !self.is_disk_full() {
            return Err(EnqueueError::Full);
        }
        let refusals = self.refusals.fetch_add(1, Ordering::Relaxed);
        if refusals.is_multiple_of(REFUSALS_PER_RETRY) {
            self.poke();
        }
        Err(EnqueueError::NoSpace)
    }

    /// Whether appends are refused because of the log: only a release helps.
    pub fn log_is_full(&self) -> bool {
        let enqueued = self.enqueued_bytes.load(Ordering::Acquire);
        let reserve = self.control_reserve_bytes.load(Ordering::Acquire);
        enqueued + reserve >= self.log_limit_bytes.load(Ordering::Acquire)
    }

    /// Whether the log can take what is queued and one more operation, its reserve included. Past
    /// that only a release helps, and a checkpoint that waits for the queue would wait for ever.
    pub fn log_has_room(&self) -> bool {
        let enqueued = self.enqueued_bytes.load(Ordering::Acquire);
        enqueued < self.log_limit_bytes.load(Ordering::Acquire)
    }

    /// Blocks while the answer of [`CommitQueue::room`] is `Full`. Not for manual mode, where the
    /// caller itself has to pump the committer.
    pub fn wait_room(&self, class: Class) -> Result<(), EnqueueError> {
        block_on(|waker| self.poll_room(class, waker))
    }

    /// As [`CommitQueue::room`], but while the answer is `Full` the waker is kept and called once,
    /// after the next commit or release.
    pub fn poll_room(&self, class: Class, waker: &Waker) -> Poll<Result<(), EnqueueError>> {
        self.poll_changed(waker, || match self.room(class) {
            Err(EnqueueError::Full) => None,
            answer => Some(answer),
        })
    }

    /// The answer, or the waker is kept and called once, after the next commit, release or stall.
    fn poll_changed<T>(&self, waker: &Waker, answer: impl FnOnce() -> Option<T>) -> Poll<T> {
        let mut waiting = self
            .room_waiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock: a change that comes afterwards sees the waker.
        if let Some(answer) = answer() {
            return Poll::Ready(answer);
        }
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        Poll::Pending
    }

    /// Adds `ops` ops, encoded by `encode` (which only appends), as one unit: they reach the log in
    /// one frame, so after a crash all of them are there or none. Returns the lsn of the last one.
    /// `touched` is the stream whose messages these are, and its last sequence now.
    ///
    /// # Errors
    /// `Poisoned`, `Closed` or `TooLarge`. Never for want of room: see the module.
    pub fn enqueue(
        &self,
        class: Class,
        ops: u32,
        touched: Option<(&Arc<StreamGate>, Seq)>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Lsn, EnqueueError> {
        assert!(ops > 0, "an lsn is given per op");
        let mut guard = self.lock().map_err(|_| EnqueueError::Poisoned)?;
        self.check_running()?;
        let state = &mut *guard;
        let batch = state.open_batch(ops);
        let before = batch.frame.len();
        encode(&mut batch.frame);
        assert!(batch.frame.len() >= before, "encode only appends");
        if batch.payload_bytes() > FRAME_PAYLOAD_BYTES_MAX {
            batch.frame.truncate(before);
            if batch.ops == 0 {
                // The committer never sees a frame without ops.
                state.batches.pop_back();
            }
            return Err(EnqueueError::TooLarge);
        }
        let bytes = (batch.frame.len() - before) as u64;
        batch.ops += ops;
        batch.op_bytes += bytes;
        if let Some((gate, seq)) = touched {
            batch.touch(gate, seq);
        }
        state.next_lsn += u64::from(ops);
        let last = state.next_lsn - 1;
        self.assigned_lsn.store(last, Ordering::Release);
        self.enqueued_bytes.fetch_add(bytes, Ordering::AcqRel);
        self.metrics.count_enqueued(class, ops, bytes);
        let wake = std::mem::take(&mut state.committer_waits);
        drop(guard);
        if wake {
            self.work.notify_one();
        }
        Ok(Lsn(last))
    }

    /// Everything up to here is on disk.
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.durable_lsn.load(Ordering::Acquire))
    }

    /// The last lsn given so far.
    pub fn assigned_lsn(&self) -> Lsn {
        Lsn(self.assigned_lsn.load(Ordering::Acquire))
    }

    /// Bytes that wait for their sync.
    pub fn queued_bytes(&self) -> u64 {
        // `finished` first: it never passes `enqueued`, so the difference cannot be negative.
        let finished = self.finished_bytes.load(Ordering::Acquire);
        self.enqueued_bytes
            .load(Ordering::Acquire)
            .saturating_sub(finished)
    }

    /// Blocks until `lsn` is durable, or until the log cannot take it before files are released:
    /// whoever releases them must not wait for it. Not for manual mode.
    pub fn wait_settled(&self, lsn: Lsn) -> Result<(), Stopped> {
        block_on(|waker| self.poll_changed(waker, || self.settled(lsn)))
    }

    /// What [`CommitQueue::wait_settled`] waits for; `None` while it may still come.
    pub fn settled(&self, lsn: Lsn) -> Option<Result<(), Stopped>> {
        // The reason first: everything that was durable when the store stopped stays so.
        let stopped = self.stopped();
        if self.durable_lsn() >= lsn || self.log_stalled.load(Ordering::SeqCst) {
            return Some(Ok(()));
        }
        stopped.map(Err)
    }

    /// The log cannot take the next frame; whoever waits for it in order to make room is told.
    pub(super) fn report_stall(&self) {
        self.log_stalled.store(true, Ordering::SeqCst);
        self.wake_room();
        // Everybody may be waiting for this very frame: nobody else would ask.
        if let Some(ask) = self.on_stall.get() {
            ask();
        }
    }

    /// Whether the committer waits for log files to be released.
    pub fn is_stalled(&self) -> bool {
        self.log_stalled.load(Ordering::SeqCst)
    }

    /// Has `ask` called whenever the log cannot take the next frame. The first one counts.
    pub fn on_stall(&self, ask: Box<dyn Fn() + Send + Sync>) {
        let _ = self.on_stall.set(ask);
    }

    /// A ticket that resolves when `lsn` is durable.
    pub fn ticket(self: &Arc<Self>, lsn: Lsn) -> Ticket {
        Ticket::new(Arc::clone(self), lsn)
    }

    /// Has `observer` called after each sync, on the committer's thread and without a lock held. It
    /// must be quick: it delays the next sync.
    pub fn on_durable(&self, observer: DurableObserver) {
        let mut observers = self
            .observers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::clone(&observers);
        list.push(Arc::from(observer));
        *observers = Arc::new(list);
    }

    /// Tells the committer that ops up to `lsn` are durable elsewhere and the log files that hold
    /// nothing later can be reused. Call it only after the metadata commit that says so is durable.
    pub fn release_through(&self, lsn: Lsn) {
        self.released_lsn.fetch_max(lsn.0, Ordering::AcqRel);
        self.poke();
    }

    /// The lsn up to which files may be reused.
    pub fn released_lsn(&self) -> Lsn {
        Lsn(self.released_lsn.load(Ordering::Acquire))
    }

    /// Asks that no op logged so far stays on disk once it is released. The answer is
    /// [`CommitQueue::gone_lsn`].
    pub fn retire(&self) {
        self.retire_requests.fetch_add(1, Ordering::AcqRel);
        self.poke();
    }

    /// Whether all such requests were carried out: a release from now on lets the ops go.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire) == self.retire_requests.load(Ordering::Acquire)
    }

    /// No file of the log holds an op up to here.
    pub fn gone_lsn(&self) -> Lsn {
        Lsn(self.gone_lsn.load(Ordering::Acquire))
    }

    /// The store found the disk full (or no longer full) outside the log: while it is, a log that
    /// is full answers `NoSpace` and not `Full`, because no checkpoint will empty it.
    pub fn report_disk_full(&self, full: bool) {
        self.store_disk_full.store(full, Ordering::Release);
        self.wake_room();
    }

    /// Whether the log or the store last failed to get disk space.
    pub fn is_disk_full(&self) -> bool {
        self.log_disk_full.load(Ordering::Acquire) || self.store_disk_full.load(Ordering::Acquire)
    }

    /// Wakes the committer for what is not a frame: released files, a new attempt to get space.
    pub fn poke(&self) {
        let Ok(mut state) = self.lock() else { return };
        state.poked = true;
        let wake = std::mem::take(&mut state.committer_waits);
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    /// Refuses further ops; the committer still writes what is queued and then ends.
    pub fn close(&self) {
        let closing =
            self.status
                .compare_exchange(RUNNING, CLOSING, Ordering::AcqRel, Ordering::Acquire);
        if closing.is_ok() {
            self.poke();
            self.wake_room();
        }
    }

    /// Why no ticket above [`CommitQueue::durable_lsn`] will resolve any more; `None` while the
    /// committer works.
    pub fn stopped(&self) -> Option<Stopped> {
        match self.status.load(Ordering::Acquire) {
            POISONED => Some(Stopped::Poisoned),
            CLOSED => Some(Stopped::Closed),
            _ => None,
        }
    }

    /// What poisoned the store, if something did.
    pub fn poison_cause(&self) -> Option<PoisonCause> {
        match self.state.lock() {
            Ok(state) => state.poison,
            Err(_) => Some(PoisonCause {
                operation: "encode",
                kind: io::ErrorKind::Other,
                os_error: None,
            }),
        }
    }

    /// Counters of the commit path.
    pub fn metrics(&self) -> &CommitMetrics {
        &self.metrics
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    fn check_running(&self) -> Result<(), EnqueueError> {
        match self.status.load(Ordering::Acquire) {
            RUNNING => Ok(()),
            POISONED => Err(EnqueueError::Poisoned),
            _ => Err(EnqueueError::Closed),
        }
    }

    /// A panic while the lock was held left half an op in a batch: the store is poisoned then.
    fn lock(&self) -> Result<MutexGuard<'_, State>, Stopped> {
        self.state.lock().map_err(|_| {
            self.status.store(POISONED, Ordering::Release);
            Stopped::Poisoned
        })
    }
}

/// The committer's side.
impl CommitQueue {
    /// The oldest batch, or `None` if nothing is queued.
    pub(super) fn take(&self) -> Result<Option<Batch>, Stopped> {
        Ok(self.lock()?.batches.pop_front())
    }

    /// Whether nothing is queued.
    pub(super) fn is_drained(&self) -> bool {
        self.state
            .lock()
            .is_ok_and(|state| state.batches.is_empty())
    }

    /// Requests to retire the files of the log that were not carried out; `None` if there is none.
    pub(super) fn retire_request(&self) -> Option<u64> {
        let asked = self.retire_requests.load(Ordering::Acquire);
        (asked != self.retired.load(Ordering::Acquire)).then_some(asked)
    }

    /// The requests up to this one were carried out.
    pub(super) fn note_retired(&self, request: u64) {
        self.retired.store(request, Ordering::Release);
    }

    /// No file of the log holds an op up to `lsn`.
    pub(super) fn note_gone(&self, lsn: Lsn) {
        self.gone_lsn.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// Opens the gates of a synced batch, raises `durable_lsn`, tells observers and waiters, and
    /// takes the buffers back. `streams` is scratch space.
    pub(super) fn publish(&self, batch: Batch, sync_ns: u64, streams: &mut Vec<(StreamId, Seq)>) {
        let lsn = batch.last_lsn();
        streams.clear();
        // Gates first: whoever sees the lsn durable may read its messages at once.
        for (gate, seq) in &batch.touched {
            gate.raise(*seq);
            streams.push((gate.id(), *seq));
        }
        self.log_stalled.store(false, Ordering::SeqCst);
        let before = self.durable_lsn.fetch_max(lsn.0, Ordering::AcqRel);
        debug_assert!(before < lsn.0, "durable_lsn only rises (I3)");
        self.finished_bytes
            .fetch_add(batch.op_bytes, Ordering::AcqRel);
        let observers = Arc::clone(
            &self
                .observers
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for observer in observers.iter() {
            observer(&DurableBatch {
                lsn,
                streams,
                ops: batch.ops,
                bytes: batch.op_bytes,
                sync_ns,
            });
        }
        self.waiters.resolve_through(lsn);
        self.recycle(batch);
    }

    fn recycle(&self, mut batch: Batch) {
        batch.reset(0, Lsn(0));
        if let Ok(mut state) = self.lock()
            && state.reusable.len() < BATCHES_KEPT_MAX
        {
            state.reusable.push(batch);
        }
    }

    /// The log has room for `room_bytes` besides what is queued.
    pub(super) fn set_log_room(&self, room_bytes: u64, reserve_bytes: u64, disk_full: bool) {
        let finished = self.finished_bytes.load(Ordering::Acquire);
        self.control_reserve_bytes
            .store(reserve_bytes, Ordering::Release);
        self.log_limit_bytes
            .store(finished.saturating_add(room_bytes), Ordering::Release);
        self.log_disk_full.store(disk_full, Ordering::Release);
    }

    pub(super) fn wake_room(&self) {
        let waiting = {
            let mut waiting = self
                .room_waiters
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Blocks until there is something to do; `frames` false: something besides frames.
    pub(super) fn wait_work(&self, frames: bool) {
        let Ok(mut state) = self.lock() else { return };
        while !(state.poked || (frames && !state.batches.is_empty())) {
            state.committer_waits = true;
            match self.work.wait(state) {
                Ok(woken) => state = woken,
                Err(_) => return,
            }
        }
        state.committer_waits = false;
    }

    /// Takes note of the poke, if there was one.
    pub(super) fn take_poke(&self) -> bool {
        self.lock()
            .is_ok_and(|mut state| std::mem::take(&mut state.poked))
    }

    pub(super) fn is_closing(&self) -> bool {
        self.status.load(Ordering::Acquire) == CLOSING
    }

    /// Nothing is written any more; whoever waits gets an error.
    pub(super) fn stop(&self, cause: Option<PoisonCause>) {
        let status = if cause.is_some() { POISONED } else { CLOSED };
        if let Ok(mut state) = self.state.lock() {
            state.poison = state.poison.or(cause);
        }
        self.status.store(status, Ordering::Release);
        self.waiters.resolve_all(if cause.is_some() {
            Stopped::Poisoned
        } else {
            Stopped::Closed
        });
        self.wake_room();
    }
}

impl State {
    /// The batch that takes the next `ops` ops.
    fn open_batch(&mut self, ops: u32) -> &mut Batch {
        let fits = self.batches.back().is_some_and(|last| {
            last.payload_bytes() < FRAME_PAYLOAD_BYTES_TARGET && last.ops.checked_add(ops).is_some()
        });
        if !fits {
            let mut batch = self.reusable.pop().unwrap_or_default();
            self.batch_number = self.batch_number.wrapping_add(1);
            batch.reset(self.batch_number, Lsn(self.next_lsn));
            self.batches.push_back(batch);
        }
        let last = self.batches.len() - 1;
        &mut self.batches[last]
    }
}
