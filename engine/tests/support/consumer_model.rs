//! The rules of a consumer with explicit acknowledgements, as plainly as possible.

use std::collections::BTreeSet;

use riverlog_engine::consumer::ConsumerConfig;

/// When an open message is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    AfterWait,
    AtOnce,
    At(i64),
}

/// A message that was delivered and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    seq: u64,
    sent_ns: i64,
    deliveries: u64,
    due: Due,
}

/// A delivery: sequence, number of the delivery, how often the message was delivered.
pub type ModelDelivery = (u64, u64, u64);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelConsumer {
    pub config: ConsumerConfig,
    /// Number of the last delivery, and the highest sequence delivered.
    pub delivered: (u64, u64),
    /// Everything below was looked at.
    pub next: u64,
    open: Vec<Open>,
    queue: Vec<u64>,
    given_up: BTreeSet<u64>,
    pub acked: BTreeSet<u64>,
}

/// Delivery times count in steps of 2^18 ns.
fn tick(ns: i64) -> i64 {
    ns >> 18 << 18
}

impl ModelConsumer {
    pub fn new(config: ConsumerConfig, first_seq: u64) -> ModelConsumer {
        ModelConsumer {
            config,
            delivered: (0, first_seq - 1),
            next: first_seq,
            ..ModelConsumer::default()
        }
    }

    pub fn wants(&self, subject: &str) -> bool {
        self.config.filters.is_empty() || self.config.filters.iter().any(|filter| filter == subject)
    }

    pub fn num_ack_pending(&self) -> u64 {
        self.open.len() as u64
    }

    /// Whether a message may not leave a stream that keeps what somebody needs.
    pub fn needs(&self, seq: u64, subject: &str) -> bool {
        let held = self.given_up.contains(&seq) || self.open.iter().any(|open| open.seq == seq);
        self.wants(subject) && (held || seq >= self.next)
    }

    /// What can be acknowledged, in order.
    pub fn held(&self) -> Vec<u64> {
        let open = self.open.iter().map(|open| open.seq);
        let mut held: Vec<u64> = open.chain(self.given_up.iter().copied()).collect();
        held.sort_unstable();
        held
    }

    /// What can be refused or extended.
    pub fn open(&self) -> Vec<u64> {
        self.open.iter().map(|open| open.seq).collect()
    }

    fn deadline(&self, open: &Open) -> i64 {
        let steps = &self.config.backoff_ns;
        let step = (open.deliveries as usize).min(steps.len());
        let wait_ns = match step {
            0 => self.config.ack_wait_ns,
            step => steps[step - 1],
        };
        match open.due {
            Due::AtOnce => i64::MIN,
            Due::At(ns) => ns,
            Due::AfterWait => open.sent_ns + wait_ns as i64,
        }
    }

    fn give_up(&mut self, seq: u64) {
        self.open.retain(|open| open.seq != seq);
        self.queue.retain(|queued| *queued != seq);
        self.given_up.insert(seq);
    }

    fn expire(&mut self, now_ns: i64) {
        for open in self.open.clone() {
            if self.deadline(&open) > now_ns || self.queue.contains(&open.seq) {
                continue;
            }
            let redeliveries = open.deliveries.saturating_sub(1).max(1);
            match self.config.max_deliver {
                Some(max) if redeliveries >= max => self.give_up(open.seq),
                _ => self.queue.push(open.seq),
            }
        }
    }

    /// Delivers what is due, else the first of `waiting` (matching messages from `next` on).
    /// `stored` says whether a message is there; `visible` is the last one that may be seen.
    pub fn fetch(
        &mut self,
        now_ns: i64,
        first_seq: u64,
        visible: u64,
        stored: impl Fn(u64) -> bool,
        waiting: impl Fn(u64) -> Option<u64>,
    ) -> Option<ModelDelivery> {
        self.trimmed(first_seq);
        self.expire(now_ns);
        while let Some(seq) = self.queue.first().copied() {
            let max = self.config.max_deliver.unwrap_or(u64::MAX);
            let at = self.open.iter().position(|open| open.seq == seq)?;
            if self.open[at].deliveries >= max {
                self.give_up(seq);
                continue;
            }
            if !stored(seq) {
                self.forget(seq);
                continue;
            }
            self.queue.remove(0);
            self.delivered.0 += 1;
            let open = &mut self.open[at];
            open.deliveries += 1;
            open.sent_ns = tick(now_ns);
            open.due = Due::AfterWait;
            return Some((seq, self.delivered.0, open.deliveries));
        }
        let full = |max: u64| self.open.len() as u64 >= max;
        if self.config.max_ack_pending.is_some_and(full) {
            return None;
        }
        let Some(seq) = waiting(self.next) else {
            self.next = self.next.max(visible + 1);
            return None;
        };
        self.next = seq + 1;
        self.delivered = (self.delivered.0 + 1, seq);
        self.open.push(Open {
            seq,
            sent_ns: tick(now_ns),
            deliveries: 1,
            due: Due::AfterWait,
        });
        Some((seq, self.delivered.0, 1))
    }

    /// The message is acknowledged, terminated or gone.
    pub fn forget(&mut self, seq: u64) {
        self.open.retain(|open| open.seq != seq);
        self.queue.retain(|queued| *queued != seq);
        self.given_up.remove(&seq);
    }

    pub fn ack(&mut self, seq: u64) {
        self.forget(seq);
        self.acked.insert(seq);
    }

    pub fn nak(&mut self, seq: u64, delay_ns: Option<u64>, now_ns: i64) {
        let Some(open) = self.open.iter_mut().find(|open| open.seq == seq) else {
            return;
        };
        open.due = delay_ns.map_or(Due::AtOnce, |delay| Due::At(tick(now_ns + delay as i64)));
        if delay_ns.is_some() {
            self.queue.retain(|queued| *queued != seq);
        } else if !self.queue.contains(&seq) {
            self.queue.push(seq);
        }
    }

    pub fn in_progress(&mut self, seq: u64, now_ns: i64) {
        let Some(open) = self.open.iter_mut().find(|open| open.seq == seq) else {
            return;
        };
        open.sent_ns = tick(now_ns);
        if let Due::At(_) = open.due {
            open.due = Due::AfterWait;
        }
    }

    /// Limits removed everything below.
    pub fn trimmed(&mut self, first_seq: u64) {
        for seq in self.held().into_iter().filter(|seq| *seq < first_seq) {
            self.forget(seq);
        }
    }

    /// The stream was purged; `covering` says that everything this consumer wants was.
    pub fn purged(&mut self, covering: Option<u64>, stored: impl Fn(u64) -> bool) {
        for seq in self.held() {
            let gone = covering.map_or(!stored(seq), |resume| seq < resume);
            if gone {
                self.forget(seq);
            }
        }
        if let Some(resume) = covering {
            self.next = self.next.max(resume);
            self.delivered.1 = self.delivered.1.max(resume - 1);
        }
    }

    /// A restart forgets the order of the queue; what was in it is due.
    pub fn restart(&mut self) {
        self.queue.clear();
    }
}
