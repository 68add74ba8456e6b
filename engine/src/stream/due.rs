//! When something is due: in a tail for each message that has a timer, in a sealed file the first
//! time only. RAM follows the tails and the number of files, not the data.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::format::timers::TimerKind;
use crate::ids::TimestampNs;
use crate::message::Message;

/// Accounted RAM of one timer of a tail, in bytes.
pub(super) const TIMER_BYTES: u64 = 40;

/// Due time and sequence.
pub(super) type Due = (TimestampNs, u64);

fn due_of(message: &Message, kind: TimerKind) -> Option<Due> {
    let at = match kind {
        TimerKind::Expiry => message.expires_at(),
        TimerKind::Notice => message.notify_at(),
    };
    Some((at?, message.seq.0))
}

/// Timers of the live messages of a tail.
#[derive(Debug, Default)]
pub(super) struct TailTimers {
    expiries: BTreeSet<Due>,
    notices: BTreeSet<Due>,
}

impl TailTimers {
    fn both(&mut self) -> [(TimerKind, &mut BTreeSet<Due>); 2] {
        [
            (TimerKind::Expiry, &mut self.expiries),
            (TimerKind::Notice, &mut self.notices),
        ]
    }

    /// Notes what is due for a message; returns the RAM that takes, in bytes.
    pub fn add(&mut self, message: &Message) -> u64 {
        if message.flags == 0 {
            return 0;
        }
        let mut added = 0;
        for (kind, timers) in self.both() {
            if let Some(due) = due_of(message, kind)
                && timers.insert(due)
            {
                added += TIMER_BYTES;
            }
        }
        added
    }

    /// Forgets a message; returns the RAM that gives back, in bytes.
    pub fn remove(&mut self, message: &Message) -> u64 {
        if message.flags == 0 {
            return 0;
        }
        let mut removed = 0;
        for (kind, timers) in self.both() {
            if let Some(due) = due_of(message, kind)
                && timers.remove(&due)
            {
                removed += TIMER_BYTES;
            }
        }
        removed
    }

    /// Timers of a kind behind `after`, earliest first.
    pub fn after(&self, kind: TimerKind, after: Option<Due>) -> impl Iterator<Item = Due> + '_ {
        let timers = match kind {
            TimerKind::Expiry => &self.expiries,
            TimerKind::Notice => &self.notices,
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        timers.range((start, Bound::Unbounded)).copied()
    }
}

/// When something in a sealed file is due next, at the earliest.
#[derive(Debug)]
pub(crate) struct ExtentTimers {
    /// As the file was sealed: what a restart begins with.
    sealed: [TimestampNs; 2],
    next: [AtomicI64; 2],
}

impl ExtentTimers {
    /// The earliest times of what was sealed; [`TimestampNs::FAR`] for never.
    pub fn new(first_expiry: TimestampNs, first_notice: TimestampNs) -> ExtentTimers {
        ExtentTimers {
            sealed: [first_expiry, first_notice],
            next: [first_expiry, first_notice].map(|at| AtomicI64::new(at.0)),
        }
    }

    /// The earliest time as the file was sealed.
    pub fn sealed(&self, kind: TimerKind) -> TimestampNs {
        self.sealed[index(kind)]
    }

    /// Nothing in the file is due before; [`TimestampNs::FAR`] for never.
    pub fn next(&self, kind: TimerKind) -> TimestampNs {
        TimestampNs(self.next[index(kind)].load(Ordering::Relaxed))
    }

    /// What was due before `at` is gone for good.
    pub fn advance(&self, kind: TimerKind, at: TimestampNs) {
        self.next[index(kind)].fetch_max(at.0, Ordering::Relaxed);
    }
}

fn index(kind: TimerKind) -> usize {
    match kind {
        TimerKind::Expiry => 0,
        TimerKind::Notice => 1,
    }
}
