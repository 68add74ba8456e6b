//! Messages that leave the stream, and the reset of a consumer.

use roaring::RoaringTreemap;

use super::effects::Dropped;
use super::events::EventKind;
use super::invariants;
use super::notice::{Notice, RemovalReason};
use super::redelivery_queue::RedeliveryQueue;
use super::state::{ConsumerState, SeqPair};
use crate::ids::Seq;
use crate::limits::POSITION_MAX;

/// What a purge of the stream means for one consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// The purge covered every message the consumer can match, below some point: it was
    /// unfiltered, or its filter is equal to or wider than the consumer's (T-01, T-02, T-04).
    Covering {
        /// The first message still stored that the consumer matches, or the stream's last
        /// sequence plus one when none is left.
        resume: Seq,
    },
    /// The purge's filter is narrower than the consumer's, or overlaps it (T-03).
    Partial {
        /// First sequence of the stream after the purge; everything below is gone.
        first_seq: Seq,
    },
}

impl ConsumerState {
    /// Message `seq` was removed from the stream (T-09, T-11). Open messages are terminated, and
    /// the notice says why. Removing messages in front of the consumer changes nothing here; see
    /// [`super::PendingCount`].
    pub fn message_removed(&mut self, seq: Seq, reason: RemovalReason) {
        if self.open.listed.contains(seq.0) {
            self.events.unlisted(seq.0);
            self.unlist(seq.0);
        } else if self.open.pending.contains(seq.0) || self.open.exhausted.contains(seq.0) {
            self.notice_removed(seq.0, reason);
            let distance = self.distance(seq.0);
            self.events.record(EventKind::Ack, seq.0, distance, None);
            self.apply_ack(seq.0);
        }
        invariants::debug_check(self);
    }

    /// Everything below `first_seq` left the stream because of a limit (T-11). Cheap when the
    /// consumer has nothing open there.
    pub fn trimmed(&mut self, first_seq: Seq) {
        let below = |lowest: Option<u64>| lowest.is_some_and(|seq| seq < first_seq.0);
        self.unlist_below(first_seq.0);
        let open = below(self.open.pending.first().map(|(seq, _)| seq));
        let given_up = below(self.open.exhausted.min());
        let behind = below(Some(self.floor.stream + 1)) && self.floor != self.trimmed_floor();
        if open || given_up || behind {
            let open = self.open.pending.iter().map(|(seq, _)| seq);
            let open: Vec<u64> = open.take_while(|&seq| seq < first_seq.0).collect();
            for seq in open {
                self.notice_removed(seq, RemovalReason::Limits);
            }
            self.events.trimmed(first_seq.0);
            self.apply_trimmed(first_seq.0);
        }
        invariants::debug_check(self);
    }

    /// The stream was purged. `exists` tells whether an open message is still stored; it is asked
    /// only about messages this consumer holds. No notices are given.
    pub fn purged(&mut self, purge: Purge, exists: impl Fn(Seq) -> bool) {
        match purge {
            Purge::Covering { resume } => {
                self.events.purged_below(resume.0);
                self.apply_purged_below(resume.0);
            }
            Purge::Partial { first_seq } => {
                let gone = |seq: &u64| *seq < first_seq.0 || !exists(Seq(*seq));
                let listed: Vec<u64> = self.open.listed.iter().filter(gone).collect();
                for seq in listed {
                    self.events.unlisted(seq);
                    self.unlist(seq);
                }
                let pending = self.open.pending.iter().map(|(seq, _)| seq);
                let removed: RoaringTreemap = pending
                    .chain(self.open.exhausted.iter())
                    .filter(gone)
                    .collect();
                self.events.purged_partly(first_seq.0, &removed);
                self.apply_purged_partly(first_seq.0, &removed);
            }
        }
        invariants::debug_check(self);
    }

    /// Starts over at `next`: delivery numbers from 1, nothing open, nothing given up (CAPI-016,
    /// T-105). Which positions are allowed is the caller's rule.
    pub fn reset(&mut self, next: Seq) {
        let next = next.0.clamp(1, POSITION_MAX);
        self.events.reset_to(next);
        self.apply_reset(next);
        invariants::debug_check(self);
    }

    pub(super) fn apply_trimmed(&mut self, first_seq: u64) {
        while let Some((seq, _)) = self.open.pending.first()
            && seq < first_seq
        {
            self.drop_message(seq);
        }
        while let Some(seq) = self.open.exhausted.min()
            && seq < first_seq
        {
            self.drop_message(seq);
        }
        if self.floor.stream + 1 < first_seq {
            self.raise_floor();
        }
    }

    pub(super) fn apply_purged_below(&mut self, resume: u64) {
        let resume = resume.max(1);
        self.unlist_through(resume - 1);
        self.next = self.next.max(resume);
        let mut acked = self.floor.consumer;
        while let Some((seq, entry)) = self.open.pending.first()
            && seq < resume
        {
            acked = acked.max(entry.consumer_seq);
            self.drop_message(seq);
        }
        while let Some(seq) = self.open.exhausted.min()
            && seq < resume
        {
            self.drop_message(seq);
        }
        self.delivered.stream = self.delivered.stream.max(resume - 1);
        self.floor.consumer = acked;
        self.floor.stream = self.floor.stream.max(resume - 1);
        if self.open.pending.is_empty() {
            self.floor = self.delivered;
        }
    }

    pub(super) fn apply_purged_partly(&mut self, first_seq: u64, removed: &RoaringTreemap) {
        let mut acked = self.floor.consumer;
        for seq in removed {
            let consumer_seq = self
                .open
                .pending
                .get(seq)
                .map_or(0, |entry| entry.consumer_seq);
            if self.drop_message(seq) == Dropped::Pending {
                acked = acked.max(consumer_seq);
            }
        }
        self.floor.consumer = acked;
        match self.open.pending.first() {
            Some((lowest, _)) => {
                let below = first_seq.min(lowest).saturating_sub(1);
                self.floor.stream = self.floor.stream.max(below);
            }
            None => self.floor = self.delivered,
        }
    }

    pub(super) fn apply_reset(&mut self, next: u64) {
        self.note_all_changed();
        self.delivered = SeqPair {
            consumer: 0,
            stream: next - 1,
        };
        self.floor = self.delivered;
        self.next = next;
        self.open.listed.clear();
        self.open.pending.clear();
        self.open.queue = RedeliveryQueue::default();
        self.open.deliveries.clear();
        self.open.urgent.clear();
        self.open.delayed.clear();
        self.open.exhausted.clear();
    }

    /// Where the floor would be after everything below the stream's first message is forgotten.
    fn trimmed_floor(&self) -> SeqPair {
        match self.open.pending.first() {
            Some((seq, entry)) => SeqPair {
                consumer: self.floor.consumer.max(entry.consumer_seq - 1),
                stream: self.floor.stream.max(seq - 1),
            },
            None => self.delivered,
        }
    }

    fn notice_removed(&mut self, seq: u64, reason: RemovalReason) {
        if let Some(entry) = self.open.pending.get(seq) {
            let redeliveries = self.open.deliveries.get(seq).saturating_sub(1);
            self.notices.push(Notice::Terminated {
                seq: Seq(seq),
                consumer_seq: entry.consumer_seq,
                deliveries: u64::from(redeliveries.max(1)),
                reason,
            });
        }
    }
}
