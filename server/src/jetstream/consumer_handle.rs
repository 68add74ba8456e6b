//! A live consumer: the engine's consumer with its configuration and waiting pull requests.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use riverlog_engine as engine;
use riverlog_engine::ids::TimestampNs;

use super::delivery;
use super::delivery::flow::FlowControl;
use super::delivery::replay::Replay;
use super::shared::Shared;
use super::stream_handle::StreamHandle;
use super::time::now;
use super::timers::{Armed, Timed};
use super::types::consumer_config::ConsumerConfig;
use super::waiting::WaitQueue;
use crate::routing::interest::{InterestListener, ListenerId};

/// Delivery marks usually travel to the log with the acknowledgements that follow; without any they
/// go by themselves after this time, in nanoseconds.
const FLUSH_DELAY_NS: i64 = 20_000_000;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const RUN_AGAIN: u8 = 2;

/// A consumer.
pub(crate) struct ConsumerHandle {
    pub name: Arc<str>,
    pub engine: engine::Consumer,
    pub waiting: Mutex<WaitQueue>,
    /// Of a push consumer.
    pub flow: Mutex<FlowControl>,
    /// Of a consumer that keeps the gaps between messages.
    pub replay: Mutex<Replay>,
    /// `$JS.ACK.<stream>.<consumer>.`
    pub ack_prefix: Box<[u8]>,
    pub stream: Weak<StreamHandle>,
    config: RwLock<Arc<ConsumerConfig>>,
    shared: Weak<Shared>,
    armed: Armed,
    flush_timer: Arc<FlushTimer>,
    /// Whether a delivery task runs, and whether it has to look again: at most one runs.
    running: AtomicU8,
    /// Listed with the stream to be woken by new messages.
    hungry: AtomicBool,
    deleted: AtomicBool,
    /// Last request, delivery or acknowledgement.
    last_active: AtomicI64,
    /// When delivery marks go to the log at the latest; `i64::MAX` = there are none.
    flush_at: AtomicI64,
    /// Whether somebody listened to the deliver subject when deliveries were last tried.
    bound: AtomicBool,
    /// When something last went to the deliver subject.
    last_sent: AtomicI64,
    /// Registration for changes of interest in the deliver subject.
    watched: Mutex<Option<(Bytes, ListenerId)>>,
    /// Random share of the time until an inactive consumer is removed, so that many made together
    /// are not removed together (CCFG-028).
    inactive_jitter_ns: i64,
}

impl ConsumerHandle {
    pub fn new(
        shared: &Arc<Shared>,
        stream: &Arc<StreamHandle>,
        engine: engine::Consumer,
        config: ConsumerConfig,
    ) -> Arc<ConsumerHandle> {
        let ack_prefix = format!("$JS.ACK.{}.{}.", stream.name, engine.name());
        Arc::new_cyclic(|this| ConsumerHandle {
            name: engine.name().into(),
            engine,
            waiting: Mutex::default(),
            flow: Mutex::default(),
            replay: Mutex::default(),
            ack_prefix: ack_prefix.into_bytes().into(),
            stream: Arc::downgrade(stream),
            config: RwLock::new(Arc::new(config)),
            shared: Arc::downgrade(shared),
            armed: Armed::default(),
            flush_timer: Arc::new(FlushTimer {
                armed: Armed::default(),
                consumer: Weak::clone(this),
            }),
            running: AtomicU8::new(IDLE),
            hungry: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            last_active: AtomicI64::new(now().0),
            flush_at: AtomicI64::new(i64::MAX),
            bound: AtomicBool::new(false),
            last_sent: AtomicI64::new(now().0),
            watched: Mutex::default(),
            inactive_jitter_ns: rand::random_range(100_000_000..1_000_000_000),
        })
    }

    /// Configuration in force.
    pub fn config(&self) -> Arc<ConsumerConfig> {
        Arc::clone(&self.config.read())
    }

    /// Puts a configuration in force that the engine already has.
    pub fn set_config(&self, config: ConsumerConfig) {
        *self.config.write() = Arc::new(config);
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    /// Somebody uses the consumer.
    pub fn touch(&self, now: TimestampNs) {
        self.last_active.store(now.0, Ordering::Relaxed);
    }

    /// A message was delivered.
    pub fn note_delivery(&self, now: TimestampNs) {
        self.touch(now);
        if self.flush_at.load(Ordering::Relaxed) == i64::MAX {
            let at = now.0.saturating_add(FLUSH_DELAY_NS);
            self.flush_at.store(at, Ordering::Relaxed);
        }
    }

    /// Has the delivery task run when delivery marks have to go to the log, if there are any.
    pub fn arm_flush(&self, shared: &Shared) {
        let at = self.flush_at.load(Ordering::Relaxed);
        if at != i64::MAX {
            shared.timers.arm(&self.flush_timer, TimestampNs(at));
        }
    }

    /// Whether delivery marks have to go to the log now; they count as logged then.
    pub fn take_flush(&self, now: TimestampNs) -> bool {
        let due = self.flush_at.load(Ordering::Relaxed) <= now.0;
        if due {
            self.flush_at.store(i64::MAX, Ordering::Relaxed);
        }
        due
    }

    pub fn last_active(&self) -> TimestampNs {
        TimestampNs(self.last_active.load(Ordering::Relaxed))
    }

    /// When the consumer is removed unless somebody uses it; `None` = never.
    pub fn inactive_at(&self) -> Option<TimestampNs> {
        let threshold = self.config().inactive_threshold;
        let at = self.last_active().0.saturating_add(threshold);
        (threshold > 0).then(|| TimestampNs(at.saturating_add(self.inactive_jitter_ns)))
    }

    /// Whether somebody listens to the deliver subject (CCFG-026, CCFG-027, T-109).
    pub fn is_bound(&self, shared: &Shared) -> bool {
        let config = self.config();
        let subject = config.deliver_subject.as_bytes();
        if config.deliver_group.is_empty() {
            return shared.account.has_interest(subject);
        }
        shared
            .account
            .has_queue_interest(subject, config.deliver_group.as_bytes())
    }

    /// Notes whether somebody listens. Returns whether that changed.
    pub fn note_bound(&self, bound: bool) -> bool {
        self.bound.swap(bound, Ordering::Relaxed) != bound
    }

    /// Something went to the deliver subject.
    pub fn note_sent(&self, now: TimestampNs) {
        self.last_sent.store(now.0, Ordering::Relaxed);
    }

    /// When something last went to the deliver subject.
    pub fn last_sent(&self) -> TimestampNs {
        TimestampNs(self.last_sent.load(Ordering::Relaxed))
    }

    /// Has deliveries tried whenever interest in the deliver subject changes.
    pub fn watch_deliver_subject(self: &Arc<Self>, shared: &Shared) {
        let config = self.config();
        let wanted = Bytes::copy_from_slice(config.deliver_subject.as_bytes());
        let mut watched = self.watched.lock();
        if watched
            .as_ref()
            .is_some_and(|(subject, _)| *subject == wanted)
        {
            return;
        }
        if let Some((subject, id)) = watched.take() {
            shared.account.unwatch_interest(&subject, id);
        }
        if !wanted.is_empty() {
            let listener = Arc::new(DeliverInterest(Arc::downgrade(self)));
            let (id, _) = shared.account.watch_interest(&wanted, listener);
            *watched = Some((wanted, id));
        }
    }

    /// Ends [`ConsumerHandle::watch_deliver_subject`].
    pub fn unwatch(&self, shared: &Shared) {
        if let Some((subject, id)) = self.watched.lock().take() {
            shared.account.unwatch_interest(&subject, id);
        }
    }

    /// Has deliveries tried by a task of its own. Returns at once; many calls make one run.
    pub fn schedule(self: &Arc<Self>) {
        let next = |state| match state {
            IDLE => Some(RUNNING),
            RUNNING => Some(RUN_AGAIN),
            _ => None,
        };
        let before = self
            .running
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if before == Ok(IDLE)
            && let Some(shared) = self.shared.upgrade()
        {
            let runtime = shared.runtime.clone();
            runtime.spawn(delivery::run(shared, Arc::clone(self)));
        }
    }

    /// The delivery task looks now: what was asked for before is covered.
    pub fn begin_run(&self) {
        self.running.store(RUNNING, Ordering::Release);
    }

    /// The delivery task is about to end. False when it was asked to look again.
    pub fn end_run(&self) -> bool {
        self.running
            .compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Has the consumer woken by the next message of its stream. Returns true when it was not
    /// listed before: a message may have come in between, so the caller looks once more.
    pub fn become_hungry(self: &Arc<Self>) -> bool {
        if self.hungry.swap(true, Ordering::AcqRel) {
            return false;
        }
        if let Some(stream) = self.stream.upgrade() {
            stream.add_hungry(self);
        }
        true
    }

    /// Ends [`ConsumerHandle::become_hungry`] for a consumer that is gone.
    pub fn forget_hunger(self: &Arc<Self>, stream: &StreamHandle) {
        if self.hungry.load(Ordering::Acquire) {
            stream.remove_hungry(self);
        }
    }

    /// Called by the stream after it took the consumer off its list.
    pub fn wake_hungry(self: &Arc<Self>) {
        self.hungry.store(false, Ordering::Release);
        self.schedule();
    }

    /// Has the delivery task run at `at`.
    pub fn arm(self: &Arc<Self>, shared: &Shared, at: Option<TimestampNs>) {
        if let Some(at) = at {
            shared.timers.arm(self, at);
        }
    }
}

/// The timer for delivery marks. It is apart from the one for deadlines: taking turns, a near and a
/// far deadline would leave an entry for the far one behind each time.
struct FlushTimer {
    armed: Armed,
    consumer: Weak<ConsumerHandle>,
}

impl Timed for FlushTimer {
    fn armed(&self) -> &Armed {
        &self.armed
    }

    fn fire(self: Arc<Self>) {
        if let Some(consumer) = self.consumer.upgrade() {
            consumer.schedule();
        }
    }
}

impl Timed for ConsumerHandle {
    fn armed(&self) -> &Armed {
        &self.armed
    }

    fn fire(self: Arc<Self>) {
        self.schedule();
    }
}

/// Wakes a push consumer.
struct DeliverInterest(Weak<ConsumerHandle>);

impl InterestListener for DeliverInterest {
    fn interest_changed(&self, _subject: &Bytes, _present: bool) {
        if let Some(consumer) = self.0.upgrade() {
            consumer.schedule();
        }
    }
}
