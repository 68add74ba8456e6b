//! One timer queue for all consumers. Something is in it only while it has a deadline,
//! so an idle server has no timers.
//!
//! A target remembers the earliest deadline it is queued for ([`Armed`]). Arming it for a later time
//! does nothing: it fires early, looks at the clock and arms itself again. So a busy consumer costs
//! one queue entry per deadline passed, not one per message.

use std::cmp::{Ordering as Order, Reverse};
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use riverlog_engine::ids::TimestampNs;
use tokio::sync::Notify;

use super::time::now;

/// The clock may jump: it is looked at this often while something is due later.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Something with deadlines.
pub(crate) trait Timed: Send + Sync {
    /// The deadline it is queued for.
    fn armed(&self) -> &Armed;
    /// The deadline passed, or an earlier one was armed before. Must not block.
    fn fire(self: Arc<Self>);
}

/// The deadline a target is queued for, in nanoseconds since the epoch.
pub(crate) struct Armed(AtomicI64);

impl Default for Armed {
    fn default() -> Armed {
        Armed(AtomicI64::new(i64::MAX))
    }
}

struct Entry {
    at: i64,
    target: Weak<dyn Timed>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Order {
        self.at.cmp(&other.at)
    }
}

/// The queue.
#[derive(Default)]
pub(crate) struct Timers {
    heap: Mutex<BinaryHeap<Reverse<Entry>>>,
    earlier: Notify,
}

impl Timers {
    /// Has `target` fire at `at` or before.
    pub fn arm<T: Timed + 'static>(&self, target: &Arc<T>, at: TimestampNs) {
        let before = target.armed().0.fetch_min(at.0, Ordering::AcqRel);
        if at.0 >= before {
            return;
        }
        let weak: Weak<dyn Timed> = Arc::downgrade(&(Arc::clone(target) as Arc<dyn Timed>));
        let mut heap = self.heap.lock();
        let first = heap.peek().is_none_or(|Reverse(entry)| at.0 < entry.at);
        heap.push(Reverse(Entry {
            at: at.0,
            target: weak,
        }));
        drop(heap);
        if first {
            self.earlier.notify_one();
        }
    }

    /// Fires targets for ever.
    pub async fn run(self: Arc<Timers>) {
        loop {
            match self.fire_due(now()) {
                Some(wait) => {
                    tokio::select! {
                        () = tokio::time::sleep(wait.min(SLEEP_MAX)) => {}
                        () = self.earlier.notified() => {}
                    }
                }
                None => self.earlier.notified().await,
            }
        }
    }

    /// Fires what is due and returns how long nothing else is.
    fn fire_due(&self, now: TimestampNs) -> Option<Duration> {
        loop {
            let entry = {
                let mut heap = self.heap.lock();
                let at = heap.peek().map(|Reverse(entry)| entry.at)?;
                if at > now.0 {
                    return Some(Duration::from_nanos((at - now.0).unsigned_abs()));
                }
                heap.pop()?.0
            };
            let Some(target) = entry.target.upgrade() else {
                continue;
            };
            // A target that was armed for an earlier time since then has another entry.
            let armed = &target.armed().0;
            let current =
                armed.compare_exchange(entry.at, i64::MAX, Ordering::AcqRel, Ordering::Acquire);
            if current.is_ok() {
                target.fire();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counter {
        armed: Armed,
        fired: AtomicI64,
    }

    impl Timed for Counter {
        fn armed(&self) -> &Armed {
            &self.armed
        }
        fn fire(self: Arc<Self>) {
            self.fired.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_target_fires_once_for_the_earliest_time() {
        let timers = Timers::default();
        let target = Arc::new(Counter::default());
        for at in [50, 70, 30] {
            timers.arm(&target, TimestampNs(at));
        }
        assert_eq!(
            timers.fire_due(TimestampNs(20)),
            Some(Duration::from_nanos(10))
        );
        assert_eq!(target.fired.load(Ordering::Relaxed), 0);
        assert_eq!(timers.fire_due(TimestampNs(60)), None);
        assert_eq!(target.fired.load(Ordering::Relaxed), 1);
        timers.arm(&target, TimestampNs(80));
        assert_eq!(timers.fire_due(TimestampNs(80)), None);
        assert_eq!(target.fired.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn targets_that_are_gone_are_skipped() {
        let timers = Timers::default();
        let target = Arc::new(Counter::default());
        timers.arm(&target, TimestampNs(10));
        drop(target);
        assert_eq!(timers.fire_due(TimestampNs(10)), None);
    }
}
