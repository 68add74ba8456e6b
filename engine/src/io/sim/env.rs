//! Simulated clock and random bits.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{SimDisk, SimRng};
use crate::io::{Clock, Entropy, Env};

/// A clock that stands still until it is moved. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct SimClock {
    now_ns: Arc<AtomicI64>,
}

impl SimClock {
    /// A clock that shows `now_ns` nanoseconds since the Unix epoch.
    pub fn new(now_ns: i64) -> Self {
        Self {
            now_ns: Arc::new(AtomicI64::new(now_ns)),
        }
    }

    /// Sets the time, also backwards.
    pub fn set_ns(&self, now_ns: i64) {
        self.now_ns.store(now_ns, Ordering::SeqCst);
    }

    /// Moves the time by `by_ns` nanoseconds, also backwards.
    pub fn advance_ns(&self, by_ns: i64) {
        self.now_ns.fetch_add(by_ns, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now_ns(&self) -> i64 {
        self.now_ns.load(Ordering::SeqCst)
    }
}

/// Random bits that repeat for the same seed.
#[derive(Debug)]
pub struct SimEntropy {
    rng: Mutex<SimRng>,
}

impl SimEntropy {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Mutex::new(SimRng::new(seed)),
        }
    }
}

impl Entropy for SimEntropy {
    fn next_u64(&self) -> u64 {
        // The state is one word: a thread that panicked cannot have left it half changed.
        self.rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next_u64()
    }
}

impl Env {
    /// An environment on a simulated disk, with random bits from `seed`.
    ///
    /// After a crash use a new seed: a real process would not draw the same numbers again, and file
    /// epochs that repeat would hide stale data.
    pub fn simulated(disk: &SimDisk, clock: &SimClock, seed: u64) -> Self {
        Self {
            io: Arc::new(disk.clone()),
            clock: Arc::new(clock.clone()),
            entropy: Arc::new(SimEntropy::new(seed)),
            keys: None,
        }
    }
}
