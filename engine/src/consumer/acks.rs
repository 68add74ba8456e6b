//! Acknowledgements: what receivers say about deliveries.

use roaring::RoaringTreemap;

use super::config::AckPolicy;
use super::events::EventKind;
use super::invariants;
use super::notice::{Notice, RemovalReason};
use super::pending::Tick;
use super::state::ConsumerState;
use crate::ids::{Seq, TimestampNs};

/// What became of an acknowledgement.
#[derive(Clone, Debug, PartialEq)]
pub enum AckOutcome {
    /// It changed the state; answer it once the change is durable (ACK-008).
    Applied(Acked),
    /// The message is no longer open: nothing changed, but the sender gets its answer (ACK-011,
    /// T-62).
    AlreadyDone,
    /// The message was never delivered, or the consumer takes no acknowledgements: no answer
    /// (ACK-010, ACK-012, T-63).
    Ignored,
}

/// Messages that this consumer is done with after an acknowledgement. Streams that keep messages
/// only until they are consumed remove them (DLV-024, DLV-025).
#[derive(Clone, Debug, PartialEq)]
pub enum Acked {
    /// None: the message stays open.
    Nothing,
    /// One message.
    One(Seq),
    /// Every message in the set.
    Many(RoaringTreemap),
}

impl ConsumerState {
    /// The receiver is done with `seq`, through the reply of any of its deliveries (T-65). With
    /// [`AckPolicy::All`] this covers everything delivered before as well.
    pub fn ack(&mut self, seq: Seq, now: TimestampNs) -> AckOutcome {
        match self.config.ack {
            AckPolicy::None => AckOutcome::Ignored,
            AckPolicy::All => self.ack_all(seq, now),
            AckPolicy::Explicit => self.ack_one(seq, now),
        }
    }

    /// The receiver is done with everything delivered up to `seq` (ACK-009, T-64).
    pub fn ack_all(&mut self, seq: Seq, now: TimestampNs) -> AckOutcome {
        if self.config.ack == AckPolicy::None || !self.was_delivered(seq) {
            return AckOutcome::Ignored;
        }
        let lowest = self.open.pending.first().map(|(first, _)| first);
        if seq.0 <= self.floor.stream || lowest.is_none_or(|lowest| lowest > seq.0) {
            let given_up = self
                .open
                .exhausted
                .min()
                .is_some_and(|first| first <= seq.0);
            if !given_up {
                return AckOutcome::AlreadyDone;
            }
        }
        let distance = self.distance(seq.0);
        self.events.record(EventKind::AckAll, seq.0, distance, None);
        let removed = self.apply_ack_all(seq.0);
        self.last_acked = Some(now);
        invariants::debug_check(self);
        AckOutcome::Applied(Acked::Many(removed))
    }

    /// Messages that an acknowledgement of `seq` finishes, ascending, at most `max`.
    pub fn finishes(&self, seq: Seq, max: usize) -> Vec<u64> {
        let is_open =
            |seq: u64| self.open.pending.contains(seq) || self.open.exhausted.contains(seq);
        match self.config.ack {
            AckPolicy::Explicit if is_open(seq.0) => vec![seq.0],
            AckPolicy::All if self.was_delivered(seq) => {
                let pending = self.open.pending.iter().map(|(seq, _)| seq).take(max);
                let given_up = self.open.exhausted.iter().take(max);
                let mut seqs: Vec<u64> = pending.chain(given_up).collect();
                seqs.retain(|&open| open <= seq.0);
                seqs.sort_unstable();
                seqs.truncate(max);
                seqs
            }
            AckPolicy::None | AckPolicy::All | AckPolicy::Explicit => Vec::new(),
        }
    }

    /// The receiver refuses `seq`: it is due again at once, behind everything already queued, or
    /// after `delay_ns` whatever the wait is (ACK-002, ACK-003, T-61).
    pub fn nak(&mut self, seq: Seq, delay_ns: Option<u64>, now: TimestampNs) -> AckOutcome {
        let Some(entry) = self.open.pending.get(seq.0) else {
            return self.without_effect(seq);
        };
        let distance = self.distance(seq.0);
        match delay_ns {
            None => {
                self.events.record(EventKind::Nak, seq.0, distance, None);
                self.open.queue.push(seq.0);
                self.apply_nak(seq.0);
            }
            Some(delay_ns) => {
                let delay_ns = i64::try_from(delay_ns).unwrap_or(i64::MAX);
                let due = Tick::of(TimestampNs(now.0.saturating_add(delay_ns)));
                let times = Some((due, self.clock));
                self.events
                    .record(EventKind::NakUntil, seq.0, distance, times);
                self.open.queue.take_out(seq.0);
                self.apply_nak_until(seq.0, due);
            }
        }
        self.notices.push(Notice::Nak {
            seq,
            consumer_seq: entry.consumer_seq,
            deliveries: u64::from(self.open.deliveries.get(seq.0)),
        });
        invariants::debug_check(self);
        AckOutcome::Applied(Acked::Nothing)
    }

    /// The receiver wants `seq` never again (ACK-005). Acts like an acknowledgement.
    pub fn term(&mut self, seq: Seq, now: TimestampNs) -> AckOutcome {
        let entry = self.open.pending.get(seq.0);
        let deliveries = u64::from(self.open.deliveries.get(seq.0));
        let outcome = self.ack(seq, now);
        if let (AckOutcome::Applied(_), Some(entry)) = (&outcome, entry) {
            self.notices.push(Notice::Terminated {
                seq,
                consumer_seq: entry.consumer_seq,
                deliveries,
                reason: RemovalReason::Terminated,
            });
        }
        outcome
    }

    /// The receiver is still working on `seq`: its wait starts again (ACK-004). A message already
    /// queued for redelivery stays queued.
    pub fn in_progress(&mut self, seq: Seq, now: TimestampNs) -> AckOutcome {
        if !self.open.pending.contains(seq.0) {
            return self.without_effect(seq);
        }
        let tick = Tick::of(now);
        let distance = self.distance(seq.0);
        self.events.record(
            EventKind::Progress,
            seq.0,
            distance,
            Some((tick, self.clock)),
        );
        self.apply_progress(seq.0, tick);
        invariants::debug_check(self);
        AckOutcome::Applied(Acked::Nothing)
    }

    fn ack_one(&mut self, seq: Seq, now: TimestampNs) -> AckOutcome {
        if !self.open.pending.contains(seq.0) && !self.open.exhausted.contains(seq.0) {
            return self.without_effect(seq);
        }
        let distance = self.distance(seq.0);
        self.events.record(EventKind::Ack, seq.0, distance, None);
        self.apply_ack(seq.0);
        self.last_acked = Some(now);
        invariants::debug_check(self);
        AckOutcome::Applied(Acked::One(seq))
    }

    fn without_effect(&self, seq: Seq) -> AckOutcome {
        if self.config.ack != AckPolicy::None && self.was_delivered(seq) {
            AckOutcome::AlreadyDone
        } else {
            AckOutcome::Ignored
        }
    }

    fn was_delivered(&self, seq: Seq) -> bool {
        seq.0 > 0 && seq.0 <= self.delivered.stream
    }
}
