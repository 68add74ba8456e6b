//! Messages delivered and not yet acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::TimestampNs;

/// Width of a [`Tick`] in bits of nanoseconds: about 0.26 ms.
const TICK_SHIFT: u32 = 18;

/// A point in time rounded down to 2^18 ns. Delivery times are kept in ticks: neighbours share
/// one, so they cost next to nothing in memory and in the log, and a message is due again at most
/// one tick early, never late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(pub(super) i64);

impl Tick {
    pub(super) fn of(time: TimestampNs) -> Tick {
        Tick(time.0 >> TICK_SHIFT)
    }

    pub(super) fn start(self) -> TimestampNs {
        TimestampNs(self.0.saturating_mul(1 << TICK_SHIFT))
    }
}

/// What is known of one unacknowledged message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingEntry {
    /// Consumer sequence of its first delivery. Redeliveries keep it (T-43, T-65).
    pub(super) consumer_seq: u64,
    /// Time of its last delivery, or of the last sign of progress.
    pub(super) sent: Tick,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    entry: PendingEntry,
    /// Deadline in the timer set; `None` while queued for redelivery or without a deadline.
    due: Option<TimestampNs>,
}

/// The unacknowledged messages in stream order. First deliveries come in ascending order, so both
/// sequences ascend together.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingTable {
    slots: BTreeMap<u64, Slot>,
    timers: BTreeSet<(TimestampNs, u64)>,
}

impl PendingTable {
    pub(super) fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.slots.contains_key(&seq)
    }

    pub(super) fn get(&self, seq: u64) -> Option<PendingEntry> {
        self.slots.get(&seq).map(|slot| slot.entry)
    }

    pub(super) fn first(&self) -> Option<(u64, PendingEntry)> {
        let (&seq, slot) = self.slots.first_key_value()?;
        Some((seq, slot.entry))
    }

    pub(super) fn last_seq(&self) -> Option<u64> {
        self.slots.last_key_value().map(|(&seq, _)| seq)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, PendingEntry)> + '_ {
        self.slots.iter().map(|(&seq, slot)| (seq, slot.entry))
    }

    /// Adds a first delivery. `seq` lies above every message in the table.
    pub(super) fn push(&mut self, seq: u64, entry: PendingEntry, due: Option<TimestampNs>) {
        debug_assert!(self.last_seq().is_none_or(|last| last < seq));
        self.slots.insert(seq, Slot { entry, due });
        if let Some(due) = due {
            self.timers.insert((due, seq));
        }
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<PendingEntry> {
        let slot = self.slots.remove(&seq)?;
        if let Some(due) = slot.due {
            self.timers.remove(&(due, seq));
        }
        Some(slot.entry)
    }

    pub(super) fn set_sent(&mut self, seq: u64, sent: Tick) {
        if let Some(slot) = self.slots.get_mut(&seq) {
            slot.entry.sent = sent;
        }
    }

    /// Sets or clears the deadline of a message.
    pub(super) fn arm(&mut self, seq: u64, due: Option<TimestampNs>) {
        let Some(slot) = self.slots.get_mut(&seq) else {
            return;
        };
        if let Some(old) = slot.due {
            self.timers.remove(&(old, seq));
        }
        slot.due = due;
        if let Some(due) = due {
            self.timers.insert((due, seq));
        }
    }

    /// Earliest deadline of a message that is not queued for redelivery.
    pub(super) fn next_due(&self) -> Option<TimestampNs> {
        self.timers.first().map(|&(due, _)| due)
    }

    /// Disarms every message whose deadline is at or before `now` and returns them in stream
    /// order.
    pub(super) fn take_due(&mut self, now: TimestampNs) -> Vec<u64> {
        let mut due = Vec::new();
        while let Some(&(deadline, seq)) = self.timers.first()
            && deadline <= now
        {
            self.timers.pop_first();
            if let Some(slot) = self.slots.get_mut(&seq) {
                slot.due = None;
            }
            due.push(seq);
        }
        due.sort_unstable();
        due
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.timers.clear();
    }
}
