//! The consumer's state and the two-step delivery.

use std::collections::VecDeque;
use std::fmt;

use roaring::RoaringTreemap;

use super::config::{AckPolicy, ConsumerConfig};
use super::effects::Dues;
use super::events::{EventKind, EventLog};
use super::invariants;
use super::notice::{Notice, Notices};
use super::open::{Lazy, Open};
use super::pending::Tick;
use crate::ids::{Seq, TimestampNs};
use crate::limits::POSITION_MAX;

/// Where a new consumer starts, computed by the stream from the deliver policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartPosition {
    /// First sequence to consider, at least 1. With `listed` this is where it goes on after them.
    pub next: Seq,
    /// Messages to deliver first: the snapshot of [`super::DeliverPolicy::LastPerSubject`]
    /// (T-46). Ascending, all below `next`.
    pub listed: Vec<Seq>,
}

/// A pair of consumer and stream sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SeqPair {
    pub(super) consumer: u64,
    pub(super) stream: u64,
}

/// What may be delivered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// This message again; commit with [`ConsumerState::redeliver`]. When it is gone from the
    /// stream, report it with [`ConsumerState::message_removed`].
    Redeliver(Seq),
    /// Exactly this message, for the first time; commit with [`ConsumerState::deliver_new`], or
    /// [`ConsumerState::skip_to`] its successor when it is gone.
    Listed(Seq),
    /// The first matching message at or after `from`; commit with
    /// [`ConsumerState::deliver_new`], or [`ConsumerState::skip_to`] when nothing matches.
    New {
        /// The consumer's position.
        from: Seq,
    },
    /// Nothing, whatever the stream holds.
    Blocked(BlockReason),
}

/// Why nothing may be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockReason {
    /// As many messages are unacknowledged as allowed; redeliveries are still planned (DLV-015).
    AckPendingFull,
    /// Delivery is paused (T-79).
    Paused,
}

/// A committed delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Counts every delivery of this consumer, redeliveries included (DLV-004).
    pub consumer_seq: u64,
    /// How often the message has been delivered, this time included.
    pub deliveries: u64,
}

/// The plan is out of date: somebody else delivered, acknowledged or removed in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved;

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the consumer has moved since the delivery was planned")
    }
}

impl std::error::Error for Moved {}

/// One end of a consumer's progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerPosition {
    /// Delivery number.
    pub consumer_seq: u64,
    /// Stream sequence.
    pub stream_seq: Seq,
    /// When it last moved, if known. Not restored by a restart.
    pub last_active: Option<TimestampNs>,
}

/// Counters of a consumer (CAPI-011).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerStateInfo {
    /// The last delivery and the highest message delivered so far (T-54).
    pub delivered: ConsumerPosition,
    /// Everything up to here is acknowledged. A message that was given up holds the reported
    /// floor until the next acknowledgement (T-58).
    pub ack_floor: ConsumerPosition,
    /// Messages delivered and neither acknowledged nor given up.
    pub num_ack_pending: u64,
    /// Messages delivered more than once and not acknowledged, given-up ones included. Always 0
    /// when only one delivery is allowed (T-55).
    pub num_redelivered: u64,
}

/// State machine of one consumer. See the module documentation for its use.
#[derive(Clone, Debug)]
pub struct ConsumerState {
    pub(super) config: ConsumerConfig,
    pub(super) delivered: SeqPair,
    pub(super) floor: SeqPair,
    /// First stream sequence not looked at yet.
    pub(super) next: u64,
    /// What is known of single messages. Nothing of most consumers at most times.
    pub(super) open: Lazy<Open>,
    /// Time of the last delivery: the base of recorded times.
    pub(super) clock: Tick,
    pub(super) last_delivered: Option<TimestampNs>,
    pub(super) last_acked: Option<TimestampNs>,
    /// Until then delivery is paused, if that time has not been seen to pass.
    pub(super) resume_at: Option<TimestampNs>,
    pub(super) notices: Notices,
    pub(super) events: EventLog,
}

impl ConsumerState {
    /// A consumer that has delivered nothing yet. A start behind [`POSITION_MAX`] is moved there. Recording its creation is the caller's part.
    pub fn new(config: ConsumerConfig, start: &StartPosition) -> ConsumerState {
        let next = start.next.0.clamp(1, POSITION_MAX);
        let listed: RoaringTreemap = start
            .listed
            .iter()
            .map(|seq| seq.0)
            .filter(|&seq| seq > 0 && seq < next)
            .collect();
        let below = SeqPair {
            consumer: 0,
            stream: listed.min().unwrap_or(next) - 1,
        };
        let mut state = ConsumerState {
            delivered: below,
            floor: below,
            next,
            open: Lazy::default(),
            clock: Tick::default(),
            last_delivered: None,
            last_acked: None,
            resume_at: config.pause_until,
            notices: Notices::default(),
            events: EventLog::new(!config.memory),
            config,
        };
        if !listed.is_empty() {
            state.open.listed = listed;
        }
        state.note_all_changed();
        invariants::debug_check(&state);
        state
    }

    /// The settings in force.
    pub fn config(&self) -> &ConsumerConfig {
        &self.config
    }

    /// Replaces the settings. Positions, pending messages and given-up messages stay (T-53,
    /// T-60); deadlines follow the new waits (T-69). Name, start and acknowledgement policy must
    /// not differ (CCFG-046).
    pub fn update_config(&mut self, config: ConsumerConfig) {
        debug_assert_eq!(self.config.ack, config.ack);
        let waits_differ = self.config.ack_wait_ns != config.ack_wait_ns
            || self.config.backoff_ns != config.backoff_ns;
        self.resume_at = config.pause_until;
        self.config = config;
        if waits_differ {
            self.arm_all();
        }
    }

    /// Stops deliveries before `until`; `None` resumes at once. The caller records the changed
    /// [`ConsumerState::config`].
    pub fn pause(&mut self, until: Option<TimestampNs>) {
        self.config.pause_until = until;
        self.resume_at = until;
    }

    /// Whether delivery is paused at `now`.
    pub fn is_paused(&self, now: TimestampNs) -> bool {
        self.config.pause_until.is_some_and(|until| now < until)
    }

    /// Moves everything whose wait is over at `now` to the redelivery queue, or gives it up when
    /// no further delivery is allowed (T-55). Called by [`ConsumerState::plan`]; call it at
    /// [`ConsumerState::next_deadline`] when nobody asks for messages.
    pub fn expire(&mut self, now: TimestampNs) {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
        }
        if self.open.pending.next_due().is_none_or(|due| due > now) {
            return;
        }
        let open = &mut *self.open;
        let dues = Dues {
            config: &self.config,
            queue: &open.queue,
            urgent: &open.urgent,
            delayed: &open.delayed,
            deliveries: &open.deliveries,
        };
        let mut expired = open.pending.take_due(now, |seq, sent| dues.of(seq, sent));
        if let Some(max) = self.config.deliveries_max() {
            expired.retain(|&seq| {
                let deliveries = self.open.deliveries.get(seq);
                // A message delivered once and due again is queued even at a limit above one: it
                // is given up when its next delivery is attempted (T-58).
                let exhausted = deliveries > 0 && u64::from((deliveries - 1).max(1)) >= max;
                if exhausted {
                    self.give_up(seq, deliveries);
                }
                !exhausted
            });
        }
        self.open.queue.push_expired(&expired);
        invariants::debug_check(self);
    }

    /// What may be delivered at `now`. Messages without an allowed delivery left are given up on
    /// the way (T-58).
    pub fn plan(&mut self, now: TimestampNs) -> Plan {
        self.expire(now);
        if self.is_paused(now) {
            return Plan::Blocked(BlockReason::Paused);
        }
        while !self.open.queue.is_empty()
            && let Some(seq) = self.open.queue.front()
        {
            let deliveries = self.open.deliveries.get(seq);
            match self.config.deliveries_max() {
                Some(max) if u64::from(deliveries) >= max => self.give_up(seq, deliveries),
                _ => return Plan::Redeliver(Seq(seq)),
            }
        }
        if self.is_ack_pending_full() {
            return Plan::Blocked(BlockReason::AckPendingFull);
        }
        match self.open.listed.min() {
            Some(seq) => Plan::Listed(Seq(seq)),
            None => Plan::New {
                from: Seq(self.next),
            },
        }
    }

    /// Commits the first delivery of `seq`, found by a plan that started at `from` (for
    /// [`Plan::Listed`] both are the listed message).
    pub fn deliver_new(
        &mut self,
        from: Seq,
        seq: Seq,
        now: TimestampNs,
    ) -> Result<Delivered, Moved> {
        if from.0 != self.position() || seq < from || self.is_ack_pending_full() {
            return Err(Moved);
        }
        if seq != from && !self.open.listed.is_empty() {
            return Err(Moved);
        }
        let tick = Tick::of(now);
        let gap = seq.0 - self.delivered.stream - 1;
        self.events
            .record(EventKind::Deliver, seq.0, gap, Some((tick, self.clock)));
        self.apply_deliver(seq.0, tick);
        self.last_delivered = Some(now);
        if self.config.ack == AckPolicy::None {
            self.last_acked = Some(now);
        }
        invariants::debug_check(self);
        Ok(Delivered {
            consumer_seq: self.delivered.consumer,
            deliveries: 1,
        })
    }

    /// Commits another delivery of `seq`.
    pub fn redeliver(&mut self, seq: Seq, now: TimestampNs) -> Result<Delivered, Moved> {
        if !self.open.queue.contains(seq.0) {
            return Err(Moved);
        }
        let tick = Tick::of(now);
        let distance = self.distance(seq.0);
        self.events.record(
            EventKind::Redeliver,
            seq.0,
            distance,
            Some((tick, self.clock)),
        );
        self.open.queue.take_out(seq.0);
        self.apply_redeliver(seq.0, tick);
        self.last_delivered = Some(now);
        invariants::debug_check(self);
        Ok(Delivered {
            consumer_seq: self.delivered.consumer,
            deliveries: u64::from(self.open.deliveries.get(seq.0)),
        })
    }

    /// Moves the position from `from` to `to` because nothing in between is to be delivered.
    pub fn skip_to(&mut self, from: Seq, to: Seq) -> Result<(), Moved> {
        if from.0 != self.position() {
            return Err(Moved);
        }
        if to <= from {
            return Ok(());
        }
        if self.open.listed.is_empty() {
            self.next = to.0;
            self.events.position_moved();
        } else {
            self.unlist_below(to.0);
        }
        invariants::debug_check(self);
        Ok(())
    }

    /// Takes back a committed delivery that reached nobody (T-77, PULL-026): the delivery is not
    /// counted and the message is due at once. Without acknowledgements only the latest delivery
    /// can be taken back, and its consumer sequence is used again. Returns whether it was.
    pub fn undeliver(&mut self, seq: Seq, consumer_seq: u64) -> bool {
        let known = match self.config.ack {
            AckPolicy::None => {
                seq.0 == self.delivered.stream && consumer_seq == self.delivered.consumer
            }
            AckPolicy::All | AckPolicy::Explicit => self.open.pending.contains(seq.0),
        };
        if !known || consumer_seq == 0 {
            return false;
        }
        let distance = self.distance(seq.0);
        self.events
            .record(EventKind::Undeliver, seq.0, distance, None);
        if self.config.ack != AckPolicy::None {
            self.open.queue.push(seq.0);
        }
        self.apply_undeliver(seq.0);
        invariants::debug_check(self);
        true
    }

    /// When [`ConsumerState::expire`] or [`ConsumerState::plan`] may next have something new to
    /// say, without a message or an acknowledgement arriving. Never later than the truth.
    pub fn next_deadline(&self) -> Option<TimestampNs> {
        match (self.open.pending.next_due(), self.resume_at) {
            (Some(due), Some(resume)) => Some(due.min(resume)),
            (due, resume) => due.or(resume),
        }
    }

    /// Counters for the owner.
    pub fn info(&self) -> ConsumerStateInfo {
        let position = |pair: SeqPair, last_active| ConsumerPosition {
            consumer_seq: pair.consumer,
            stream_seq: Seq(pair.stream),
            last_active,
        };
        ConsumerStateInfo {
            delivered: position(self.delivered, self.last_delivered),
            ack_floor: position(self.floor, self.last_acked),
            num_ack_pending: self.open.pending.len(),
            num_redelivered: match self.config.deliveries_max() {
                Some(1) => 0,
                _ => self.open.deliveries.redelivered(),
            },
        }
    }

    /// The first sequence that has not been looked at: the scan position (T-54), and the start of
    /// a count of messages waiting for their first delivery, which excludes
    /// [`ConsumerState::listed`].
    pub fn next_seq(&self) -> Seq {
        Seq(self.next)
    }

    /// Messages of the start snapshot that are still to be delivered (T-46).
    pub fn listed(&self) -> impl Iterator<Item = Seq> + '_ {
        self.open.listed.iter().map(Seq)
    }

    /// Whether this consumer may still need message `seq`: not delivered yet, unacknowledged, or
    /// given up and kept as a dead letter (T-59). Says nothing about filters.
    pub fn holds(&self, seq: Seq) -> bool {
        seq.0 >= self.next
            || self.open.pending.contains(seq.0)
            || self.open.listed.contains(seq.0)
            || self.open.exhausted.contains(seq.0)
    }

    /// Notices since the last call.
    pub fn take_notices(&mut self) -> VecDeque<Notice> {
        self.notices.take()
    }

    /// Whether [`ConsumerState::take_notices`] has something.
    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// Notices that were dropped because nobody took them in time.
    pub fn notices_dropped(&self) -> u64 {
        self.notices.dropped()
    }

    /// Memory held for open and given-up messages, in bytes, to within the reserves of the
    /// collections used.
    pub fn memory_bytes(&self) -> u64 {
        let sets = [&self.open.listed, &self.open.urgent, &self.open.exhausted];
        let sets: usize = sets.map(RoaringTreemap::serialized_size).iter().sum();
        let delayed = self.open.delayed.len() * 2 * size_of::<(u64, Tick)>();
        let queue = self.open.queue.heap_bytes();
        let counts = self.open.deliveries.heap_bytes();
        (self.open.pending.heap_bytes() + counts + sets + delayed + queue) as u64
    }

    /// Sequence the next plan starts from.
    fn position(&self) -> u64 {
        self.open.listed.min().unwrap_or(self.next)
    }

    fn is_ack_pending_full(&self) -> bool {
        self.config
            .ack_pending_max()
            .is_some_and(|max| self.open.pending.len() >= max)
    }
}
