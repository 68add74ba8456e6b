//! A consumer over a toy stream.

use std::collections::BTreeMap;

use crate::consumer::{
    AckPolicy, ConsumerConfig, ConsumerState, Delivered, Notice, Plan, Purge, RemovalReason,
    StartPosition,
};
use crate::ids::{Seq, TimestampNs};

/// Nanoseconds of a millisecond: the unit of time in these tests.
pub(super) const MS: u64 = 1_000_000;

pub(super) fn at(ms: u64) -> TimestampNs {
    TimestampNs((ms * MS) as i64)
}

/// Explicit acknowledgements, 1 s wait.
pub(super) fn explicit() -> ConsumerConfig {
    ConsumerConfig {
        name: "c".to_owned(),
        ack: AckPolicy::Explicit,
        ack_wait_ns: 1000 * MS,
        ..ConsumerConfig::default()
    }
}

/// A stream whose messages are either matched by the consumer or not, and the consumer.
pub(super) struct Bench {
    pub(super) state: ConsumerState,
    /// Stored messages, and whether the consumer's filter matches them.
    pub(super) stored: BTreeMap<u64, bool>,
    pub(super) last: u64,
}

impl Bench {
    pub(super) fn new(config: ConsumerConfig, messages: u64) -> Bench {
        Bench::starting(config, messages, 1)
    }

    pub(super) fn starting(config: ConsumerConfig, messages: u64, next: u64) -> Bench {
        let start = StartPosition {
            next: Seq(next),
            listed: Vec::new(),
        };
        let stored = (1..=messages).map(|seq| (seq, true)).collect();
        Bench {
            state: ConsumerState::new(config, &start),
            stored,
            last: messages,
        }
    }

    pub(super) fn publish(&mut self, matches: bool) -> u64 {
        self.last += 1;
        self.stored.insert(self.last, matches);
        self.last
    }

    /// Delivers what is due, if anything: sequence, consumer sequence, delivery count.
    pub(super) fn fetch(&mut self, ms: u64) -> Option<(u64, u64, u64)> {
        let now = at(ms);
        loop {
            let (
                seq,
                Delivered {
                    consumer_seq,
                    deliveries,
                },
            ) = match self.state.plan(now) {
                Plan::Redeliver(seq) => (seq, self.state.redeliver(seq, now).expect("planned")),
                Plan::Listed(seq) if self.stored.contains_key(&seq.0) => {
                    (seq, self.state.deliver_new(seq, seq, now).expect("planned"))
                }
                Plan::Listed(seq) => {
                    self.state.skip_to(seq, seq.next()).expect("planned");
                    continue;
                }
                Plan::New { from } => {
                    let mut ahead = self.stored.range(from.0..);
                    match ahead
                        .find(|&(_, &matches)| matches)
                        .map(|(&seq, _)| Seq(seq))
                    {
                        Some(seq) => (
                            seq,
                            self.state.deliver_new(from, seq, now).expect("planned"),
                        ),
                        None => {
                            let end = from.max(Seq(self.last + 1));
                            self.state.skip_to(from, end).expect("planned");
                            return None;
                        }
                    }
                }
                Plan::Blocked(_) => return None,
            };
            return Some((seq.0, consumer_seq, deliveries));
        }
    }

    /// Sequences of everything that is due.
    pub(super) fn fetch_all(&mut self, ms: u64) -> Vec<u64> {
        let due = std::iter::from_fn(|| self.fetch(ms)).take(10_000);
        let seqs: Vec<u64> = due.map(|(seq, ..)| seq).collect();
        assert!(seqs.len() < 10_000, "deliveries without end");
        seqs
    }

    pub(super) fn fetch_n(&mut self, n: usize, ms: u64) -> Vec<u64> {
        (0..n)
            .filter_map(|_| self.fetch(ms))
            .map(|(seq, ..)| seq)
            .collect()
    }

    pub(super) fn ack(&mut self, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            self.state.ack(Seq(seq), at(0));
        }
    }

    /// Delivered and floor as (consumer, stream), then open and redelivered messages.
    pub(super) fn info(&self) -> [(u64, u64); 3] {
        let info = self.state.info();
        [
            (info.delivered.consumer_seq, info.delivered.stream_seq.0),
            (info.ack_floor.consumer_seq, info.ack_floor.stream_seq.0),
            (info.num_ack_pending, info.num_redelivered),
        ]
    }

    pub(super) fn notices(&mut self) -> Vec<Notice> {
        self.state.take_notices().into()
    }

    pub(super) fn delete(&mut self, seq: u64, reason: RemovalReason) {
        self.stored.remove(&seq);
        self.state.message_removed(Seq(seq), reason);
    }

    pub(super) fn purge_below(&mut self, resume: u64) {
        self.stored.retain(|&seq, _| seq >= resume);
        self.state.purged(
            Purge::Covering {
                resume: Seq(resume),
            },
            |_| false,
        );
    }

    /// A restart: the state comes back from a snapshot.
    pub(super) fn restart(&mut self) {
        let mut bytes = Vec::new();
        self.state.drain_events(&mut Vec::new());
        self.state.encode_snapshot(&mut bytes);
        let config = self.state.config().clone();
        self.state = ConsumerState::decode_snapshot(config, &bytes).expect("own snapshot");
    }
}
