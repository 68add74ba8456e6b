//! The rules of consumers once more, as plainly as possible: vectors and loops over everything.

use std::collections::BTreeMap;

use crate::consumer::{AckPolicy, ConsumerConfig, Notice, RemovalReason};
use crate::ids::Seq;

/// When an open message is due.
#[derive(Clone, Copy, Debug)]
enum Due {
    AfterWait,
    AtOnce,
    At(i64),
}

#[derive(Clone, Debug)]
struct Open {
    seq: u64,
    consumer_seq: u64,
    sent_ns: i64,
    deliveries: u64,
    due: Due,
}

/// What an acknowledgement came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Applied(Vec<u64>),
    AlreadyDone,
    Ignored,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) config: ConsumerConfig,
    pub(super) delivered: (u64, u64),
    pub(super) floor: (u64, u64),
    pub(super) notices: Vec<Notice>,
    next: u64,
    listed: Vec<u64>,
    open: Vec<Open>,
    queue: Vec<u64>,
    /// Sequence and deliveries of messages without a delivery left.
    given_up: Vec<(u64, u64)>,
}

/// Delivery times count in steps of 2^18 ns.
fn tick(ns: i64) -> i64 {
    ns >> 18 << 18
}

impl Model {
    pub(super) fn new(config: ConsumerConfig, next: u64, listed: Vec<u64>) -> Model {
        let below = (0, listed.first().copied().unwrap_or(next) - 1);
        Model {
            config,
            delivered: below,
            floor: below,
            notices: vec![],
            next,
            listed,
            open: vec![],
            queue: vec![],
            given_up: vec![],
        }
    }

    fn find(&mut self, seq: u64) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.seq == seq)
    }

    fn deadline(&self, open: &Open) -> Option<i64> {
        let steps = &self.config.backoff_ns;
        let step = (open.deliveries.max(1) as usize).min(steps.len());
        let wait_ns = if step == 0 {
            self.config.ack_wait_ns
        } else {
            steps[step - 1]
        };
        match open.due {
            Due::AtOnce => Some(i64::MIN),
            Due::At(ns) => Some(ns),
            Due::AfterWait if wait_ns == 0 => None,
            Due::AfterWait => Some(open.sent_ns + wait_ns as i64),
        }
    }

    /// Earliest deadline of a message that is not queued.
    pub(super) fn next_deadline(&self) -> Option<i64> {
        let waiting = self
            .open
            .iter()
            .filter(|open| !self.queue.contains(&open.seq));
        waiting.filter_map(|open| self.deadline(open)).min()
    }

    fn give_up(&mut self, seq: u64) {
        let at = self
            .open
            .iter()
            .position(|open| open.seq == seq)
            .expect("open");
        let deliveries = self.open.remove(at).deliveries;
        self.queue.retain(|&queued| queued != seq);
        self.given_up.push((seq, deliveries));
        self.notices.push(Notice::MaxDeliveries {
            seq: Seq(seq),
            deliveries,
        });
    }

    pub(super) fn expire(&mut self, now_ns: i64) {
        for open in self.open.clone() {
            let due = self.deadline(&open).is_some_and(|due| due <= now_ns);
            if !due || self.queue.contains(&open.seq) {
                continue;
            }
            let redeliveries = open.deliveries.saturating_sub(1).max(1);
            match self.config.max_deliver {
                Some(max) if open.deliveries > 0 && redeliveries >= max => self.give_up(open.seq),
                _ => self.queue.push(open.seq),
            }
        }
    }

    /// Delivers what is due: sequence, consumer sequence, delivery count.
    pub(super) fn fetch(
        &mut self,
        now_ns: i64,
        stored: &BTreeMap<u64, bool>,
        last: u64,
    ) -> Option<(u64, u64, u64)> {
        self.expire(now_ns);
        if self
            .config
            .pause_until
            .is_some_and(|until| now_ns < until.0)
        {
            return None;
        }
        while let Some(&seq) = self.queue.first() {
            let max = self.config.max_deliver.unwrap_or(u64::MAX);
            let open = self.find(seq).expect("queued messages are open");
            if open.deliveries >= max {
                self.give_up(seq);
                continue;
            }
            open.deliveries += 1;
            open.sent_ns = tick(now_ns);
            open.due = Due::AfterWait;
            let deliveries = open.deliveries;
            self.queue.remove(0);
            self.delivered.0 += 1;
            return Some((seq, self.delivered.0, deliveries));
        }
        let acks = self.config.ack != AckPolicy::None;
        if acks
            && self
                .config
                .max_ack_pending
                .is_some_and(|max| self.open.len() as u64 >= max)
        {
            return None;
        }
        self.listed.retain(|seq| stored.contains_key(seq));
        let seq = if self.listed.is_empty() {
            let ahead = stored.range(self.next..).find(|&(_, &matches)| matches);
            self.next = ahead.map_or(self.next.max(last + 1), |(&seq, _)| seq + 1);
            *ahead?.0
        } else {
            self.listed.remove(0)
        };
        self.delivered = (self.delivered.0 + 1, seq);
        if acks {
            let (consumer_seq, sent_ns) = (self.delivered.0, tick(now_ns));
            let due = Due::AfterWait;
            self.open.push(Open {
                seq,
                consumer_seq,
                sent_ns,
                deliveries: 1,
                due,
            });
        } else {
            self.floor = self.delivered;
        }
        Some((seq, self.delivered.0, 1))
    }

    fn forget(&mut self, seq: u64) {
        self.open.retain(|open| open.seq != seq);
        self.given_up.retain(|&(given_up, _)| given_up != seq);
        self.queue.retain(|&queued| queued != seq);
    }

    fn raise_floor(&mut self) {
        let to = self
            .open
            .first()
            .map(|open| (open.consumer_seq - 1, open.seq - 1));
        let to = to.unwrap_or(self.delivered);
        self.floor = (self.floor.0.max(to.0), self.floor.1.max(to.1));
    }

    fn finish(&mut self, seq: u64) {
        let is_lowest = self.open.first().is_some_and(|open| open.seq == seq);
        self.forget(seq);
        if is_lowest {
            self.raise_floor();
        }
    }

    fn without_effect(&self, seq: u64) -> Said {
        let acks = self.config.ack != AckPolicy::None;
        if acks && seq > 0 && seq <= self.delivered.1 {
            Said::AlreadyDone
        } else {
            Said::Ignored
        }
    }

    pub(super) fn held(&self) -> Vec<u64> {
        let given_up = self.given_up.iter().map(|&(seq, _)| seq);
        self.open
            .iter()
            .map(|open| open.seq)
            .chain(given_up)
            .collect()
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        let counts = self.open.iter().map(|open| open.deliveries);
        let counts = counts.chain(self.given_up.iter().map(|&(_, deliveries)| deliveries));
        let redelivered = counts.filter(|&deliveries| deliveries > 1).count() as u64;
        let once = self.config.max_deliver == Some(1);
        (self.open.len() as u64, if once { 0 } else { redelivered })
    }

    pub(super) fn ack(&mut self, seq: u64) -> Said {
        let held = self.held();
        match self.config.ack {
            AckPolicy::Explicit if held.contains(&seq) => {
                self.finish(seq);
                Said::Applied(vec![seq])
            }
            AckPolicy::All if seq <= self.delivered.1 && held.iter().any(|&held| held <= seq) => {
                let mut done: Vec<u64> = held.into_iter().filter(|&held| held <= seq).collect();
                done.sort_unstable();
                done.iter().for_each(|&seq| self.forget(seq));
                let lowest = self.open.first().map(|open| open.consumer_seq - 1);
                let consumer_seq = lowest.unwrap_or(self.delivered.0);
                self.floor = (self.floor.0.max(consumer_seq), self.floor.1.max(seq));
                Said::Applied(done)
            }
            _ => self.without_effect(seq),
        }
    }

    pub(super) fn nak(&mut self, seq: u64, delay_ns: Option<u64>, now_ns: i64) -> Said {
        let Some(open) = self.find(seq) else {
            return self.without_effect(seq);
        };
        let (consumer_seq, deliveries) = (open.consumer_seq, open.deliveries);
        open.due = delay_ns.map_or(Due::AtOnce, |delay| Due::At(tick(now_ns + delay as i64)));
        if delay_ns.is_some() {
            self.queue.retain(|&queued| queued != seq);
        } else if !self.queue.contains(&seq) {
            self.queue.push(seq);
        }
        self.notices.push(Notice::Nak {
            seq: Seq(seq),
            consumer_seq,
            deliveries,
        });
        Said::Applied(vec![])
    }

    pub(super) fn term(&mut self, seq: u64) -> Said {
        let open = self.find(seq).cloned();
        let said = self.ack(seq);
        if let Some(Open {
            consumer_seq,
            deliveries,
            ..
        }) = open
        {
            let reason = RemovalReason::Terminated;
            let seq = Seq(seq);
            self.notices.push(Notice::Terminated {
                seq,
                consumer_seq,
                deliveries,
                reason,
            });
        }
        said
    }

    pub(super) fn in_progress(&mut self, seq: u64, now_ns: i64) -> Said {
        let Some(open) = self.find(seq) else {
            return self.without_effect(seq);
        };
        open.sent_ns = tick(now_ns);
        if let Due::At(_) = open.due {
            open.due = Due::AfterWait;
        }
        Said::Applied(vec![])
    }

    pub(super) fn undeliver(&mut self, seq: u64, consumer_seq: u64) -> bool {
        if self.config.ack == AckPolicy::None {
            let latest = consumer_seq > 0 && self.delivered == (consumer_seq, seq);
            if latest {
                self.delivered = (consumer_seq - 1, seq - 1);
                self.floor = self.delivered;
                self.listed.insert(0, seq);
            }
            return latest;
        }
        let Some(open) = self.find(seq) else {
            return false;
        };
        open.deliveries = open.deliveries.saturating_sub(1);
        open.due = Due::AtOnce;
        if !self.queue.contains(&seq) {
            self.queue.push(seq);
        }
        true
    }

    pub(super) fn removed(&mut self, seq: u64, reason: RemovalReason) {
        self.announce(seq, reason);
        if self.held().contains(&seq) {
            self.finish(seq);
        }
    }

    fn announce(&mut self, seq: u64, reason: RemovalReason) {
        if let Some(&mut Open {
            consumer_seq,
            deliveries,
            ..
        }) = self.find(seq)
        {
            let deliveries = deliveries.saturating_sub(1).max(1);
            let seq = Seq(seq);
            self.notices.push(Notice::Terminated {
                seq,
                consumer_seq,
                deliveries,
                reason,
            });
        }
    }

    pub(super) fn trimmed(&mut self, first_seq: u64) {
        for seq in self.held().into_iter().filter(|&seq| seq < first_seq) {
            self.announce(seq, RemovalReason::Limits);
            self.forget(seq);
        }
        if self.floor.1 + 1 < first_seq {
            self.raise_floor();
        }
    }

    pub(super) fn purged_below(&mut self, resume: u64) {
        self.purge_open(|seq| seq < resume);
        self.next = self.next.max(resume);
        self.delivered.1 = self.delivered.1.max(resume - 1);
        self.floor.1 = self.floor.1.max(resume - 1);
        if self.open.is_empty() {
            self.floor = self.delivered;
        }
    }

    pub(super) fn purged_partly(&mut self, first_seq: u64, stored: &BTreeMap<u64, bool>) {
        self.purge_open(|seq| seq < first_seq || !stored.contains_key(&seq));
        match self.open.first() {
            Some(open) => self.floor.1 = self.floor.1.max(first_seq.min(open.seq) - 1),
            None => self.floor = self.delivered,
        }
    }

    fn purge_open(&mut self, gone: impl Fn(u64) -> bool) {
        self.listed.retain(|&seq| !gone(seq));
        for open in self.open.clone().iter().filter(|open| gone(open.seq)) {
            self.floor.0 = self.floor.0.max(open.consumer_seq);
        }
        for seq in self.held().into_iter().filter(|&seq| gone(seq)) {
            self.forget(seq);
        }
    }

    pub(super) fn reset(&mut self, next: u64) {
        let notices = std::mem::take(&mut self.notices);
        *self = Model {
            notices,
            ..Model::new(self.config.clone(), next, vec![])
        };
    }

    /// A restart forgets the order of the queue; what was in it is due.
    pub(super) fn restart(&mut self) {
        self.queue.clear();
    }
}
