//! The changes themselves, shared by live operations and by the replay of recorded events. They
//! are silent about sequences they do not know, so that an effect may be applied twice.

use std::collections::BTreeMap;

use roaring::RoaringTreemap;

use super::config::{AckPolicy, ConsumerConfig};
use super::delivery_counts::DeliveryCounts;
use super::events::EventKind;
use super::notice::Notice;
use super::pending::{PendingEntry, Tick};
use super::redelivery_queue::RedeliveryQueue;
use super::state::{ConsumerState, SeqPair};
use crate::ids::{Seq, TimestampNs};

/// What a message was to the consumer before it was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    Pending,
    GivenUp,
    Unknown,
}

/// What decides when open messages are due.
pub(super) struct Dues<'a> {
    pub(super) config: &'a ConsumerConfig,
    pub(super) queue: &'a RedeliveryQueue,
    pub(super) urgent: &'a RoaringTreemap,
    pub(super) delayed: &'a BTreeMap<u64, Tick>,
    pub(super) deliveries: &'a DeliveryCounts,
}

impl Dues<'_> {
    /// When an open message is due; `None` if it is queued already, or never.
    pub(super) fn of(&self, seq: u64, sent: Tick) -> Option<TimestampNs> {
        if self.queue.contains(seq) {
            return None;
        }
        if self.urgent.contains(seq) {
            return Some(TimestampNs(i64::MIN));
        }
        if let Some(due) = self.delayed.get(&seq) {
            return Some(due.start());
        }
        let wait_ns = self.config.wait_ns(self.deliveries.get(seq))?;
        let wait_ns = i64::try_from(wait_ns).unwrap_or(i64::MAX);
        Some(TimestampNs(sent.start().0.saturating_add(wait_ns)))
    }
}

impl ConsumerState {
    /// Distance of a delivered sequence from the highest delivered one, as recorded.
    pub(super) fn distance(&self, seq: u64) -> u64 {
        self.delivered.stream - seq
    }

    /// Notes the deadline of a message, unless it is queued.
    pub(super) fn arm(&mut self, seq: u64) {
        if let Some(entry) = self.open.pending.get(seq) {
            let due = self.dues().of(seq, entry.sent);
            self.open.pending.arm(seq, due);
        }
    }

    /// Recomputes every deadline.
    pub(super) fn arm_all(&mut self) {
        let mut pending = std::mem::take(&mut self.open.pending);
        let dues = self.dues();
        pending.arm_all(|seq, sent| dues.of(seq, sent));
        self.open.pending = pending;
    }

    fn dues(&self) -> Dues<'_> {
        Dues {
            config: &self.config,
            queue: &self.open.queue,
            urgent: &self.open.urgent,
            delayed: &self.open.delayed,
            deliveries: &self.open.deliveries,
        }
    }

    pub(super) fn apply_deliver(&mut self, seq: u64, tick: Tick) {
        self.delivered.consumer += 1;
        self.delivered.stream = seq;
        self.unlist_through(seq);
        self.next = self.next.max(seq + 1);
        self.clock = tick;
        if self.config.ack == AckPolicy::None {
            self.floor = self.delivered;
            return;
        }
        let entry = PendingEntry {
            consumer_seq: self.delivered.consumer,
            sent: tick,
        };
        let due = self.dues().of(seq, tick);
        self.open.pending.push(seq, entry, due);
        self.open.changed.note(seq);
    }

    pub(super) fn apply_redeliver(&mut self, seq: u64, tick: Tick) {
        self.delivered.consumer += 1;
        self.clock = tick;
        if !self.open.pending.contains(seq) {
            return;
        }
        let deliveries = self.open.deliveries.get(seq).saturating_add(1);
        self.open.deliveries.set(seq, deliveries);
        self.open.urgent.remove(seq);
        self.open.delayed.remove(&seq);
        self.open.pending.set_sent(seq, tick);
        self.open.changed.note(seq);
        self.arm(seq);
    }

    pub(super) fn apply_undeliver(&mut self, seq: u64) {
        if self.config.ack == AckPolicy::None {
            self.delivered = SeqPair {
                consumer: self.delivered.consumer.saturating_sub(1),
                stream: seq.saturating_sub(1),
            };
            self.floor = self.delivered;
            self.open.listed.insert(seq);
            self.open.changed.note(seq);
        } else if self.open.pending.contains(seq) {
            self.open.changed.note(seq);
            let deliveries = self.open.deliveries.get(seq).saturating_sub(1);
            self.open.deliveries.set(seq, deliveries);
            self.open.delayed.remove(&seq);
            self.open.urgent.insert(seq);
            self.arm(seq);
        }
    }

    pub(super) fn apply_nak(&mut self, seq: u64) {
        if self.open.pending.contains(seq) {
            self.open.changed.note(seq);
            self.open.delayed.remove(&seq);
            self.open.urgent.insert(seq);
            self.arm(seq);
        }
    }

    pub(super) fn apply_nak_until(&mut self, seq: u64, due: Tick) {
        if self.open.pending.contains(seq) {
            self.open.changed.note(seq);
            self.open.urgent.remove(seq);
            self.open.delayed.insert(seq, due);
            self.arm(seq);
        }
    }

    pub(super) fn apply_progress(&mut self, seq: u64, tick: Tick) {
        self.clock = tick;
        if self.open.pending.contains(seq) {
            self.open.changed.note(seq);
            self.open.delayed.remove(&seq);
            self.open.pending.set_sent(seq, tick);
            self.arm(seq);
        }
    }

    /// Gives a message up: no further delivery is allowed. The reported floor stays (T-58).
    pub(super) fn give_up(&mut self, seq: u64, deliveries: u32) {
        let distance = self.distance(seq);
        self.events.record(EventKind::GiveUp, seq, distance, None);
        self.apply_give_up(seq);
        self.notices.push(Notice::MaxDeliveries {
            seq: Seq(seq),
            deliveries: u64::from(deliveries),
        });
    }

    pub(super) fn apply_give_up(&mut self, seq: u64) {
        if self.open.pending.remove(seq).is_some() {
            self.open.queue.forget(seq);
            self.open.urgent.remove(seq);
            self.open.delayed.remove(&seq);
            self.open.exhausted.insert(seq);
            self.open.changed.note(seq);
        }
    }

    /// Removes one message from pending, or from the given-up ones. The floor moves only when the
    /// lowest open message leaves.
    pub(super) fn apply_ack(&mut self, seq: u64) {
        let is_lowest = self
            .open
            .pending
            .first()
            .is_some_and(|(lowest, _)| lowest == seq);
        self.drop_message(seq);
        if is_lowest {
            self.raise_floor();
        }
    }

    /// Acknowledges everything delivered up to `seq` (T-64); the removed messages.
    pub(super) fn apply_ack_all(&mut self, seq: u64) -> RoaringTreemap {
        let mut removed = RoaringTreemap::new();
        while let Some((first, _)) = self.open.pending.first()
            && first <= seq
        {
            self.drop_message(first);
            removed.insert(first);
        }
        while let Some(first) = self.open.exhausted.min()
            && first <= seq
        {
            self.drop_message(first);
            removed.insert(first);
        }
        let consumer = match self.open.pending.first() {
            Some((_, entry)) => entry.consumer_seq - 1,
            None => self.delivered.consumer,
        };
        self.raise_floor_to(SeqPair {
            consumer,
            stream: seq,
        });
        removed
    }

    /// Forgets a message that was pending or given up.
    pub(super) fn drop_message(&mut self, seq: u64) -> Dropped {
        let dropped = if self.open.pending.remove(seq).is_some() {
            self.open.queue.forget(seq);
            self.open.urgent.remove(seq);
            self.open.delayed.remove(&seq);
            Dropped::Pending
        } else if self.open.exhausted.remove(seq) {
            Dropped::GivenUp
        } else {
            return Dropped::Unknown;
        };
        self.open.deliveries.set(seq, 1);
        self.open.changed.note(seq);
        dropped
    }

    /// Moves the floor to just below the lowest unacknowledged message, or to the last delivery
    /// when there is none (T-43, T-65).
    pub(super) fn raise_floor(&mut self) {
        self.raise_floor_to(match self.open.pending.first() {
            Some((seq, entry)) => SeqPair {
                consumer: entry.consumer_seq - 1,
                stream: seq - 1,
            },
            None => self.delivered,
        });
    }

    fn raise_floor_to(&mut self, to: SeqPair) {
        self.floor.consumer = self.floor.consumer.max(to.consumer);
        self.floor.stream = self.floor.stream.max(to.stream);
    }

    /// Drops listed messages below `to`.
    pub(super) fn unlist_below(&mut self, to: u64) {
        while let Some(first) = self.open.listed.min()
            && first < to
        {
            self.events.unlisted(first);
            self.unlist(first);
        }
    }

    pub(super) fn unlist(&mut self, seq: u64) {
        if self.open.listed.remove(seq) {
            self.open.changed.note(seq);
        }
    }

    /// Drops listed messages up to `seq`, silently.
    pub(super) fn unlist_through(&mut self, seq: u64) {
        while let Some(first) = self.open.listed.min()
            && first <= seq
        {
            self.unlist(first);
        }
    }
}
