//! The reference model: what a stream and its consumer must look like, with plain maps and loops.

use std::collections::BTreeMap;

use riverlog_engine::consumer::ConsumerConfig;
use riverlog_engine::{Discard, Retention, Storage, StreamConfig};

use super::consumer_model::{ModelConsumer, ModelDelivery};

/// A message of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelMessage {
    pub subject: String,
    pub payload: Vec<u8>,
    /// Accounted bytes besides subject and payload (LIM-012, LIM-013).
    pub overhead: u64,
    pub ts_ns: i64,
    /// Its own life time; the largest one also outlives the maximum age.
    pub ttl_ns: Option<i64>,
}

impl ModelMessage {
    fn size(&self) -> u64 {
        (self.subject.len() + self.payload.len()) as u64 + self.overhead
    }
}

/// A stream of the model.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ModelStream {
    pub msgs: BTreeMap<u64, ModelMessage>,
    pub last_seq: u64,
    pub last_ts_ns: i64,
    /// Sequence and time of the message that an id came with.
    pub ids: BTreeMap<String, (u64, i64)>,
    pub consumer: ModelConsumer,
}

/// What an append answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelAppend {
    Stored(u64),
    Duplicate(u64),
    Refused,
}

impl ModelStream {
    pub fn first_seq(&self) -> u64 {
        self.msgs
            .keys()
            .next()
            .copied()
            .unwrap_or(self.last_seq + 1)
    }

    pub fn bytes(&self) -> u64 {
        self.msgs.values().map(ModelMessage::size).sum()
    }

    pub fn subjects(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for message in self.msgs.values() {
            *counts.entry(message.subject.clone()).or_default() += 1;
        }
        counts
    }

    fn of_subject(&self, subject: &str) -> Vec<u64> {
        let matching = self
            .msgs
            .iter()
            .filter(|(_, message)| message.subject == subject);
        matching.map(|(seq, _)| *seq).collect()
    }

    pub fn append(
        &mut self,
        config: &StreamConfig,
        subject: &str,
        payload: &[u8],
        id: Option<&str>,
        now_ns: i64,
    ) -> ModelAppend {
        let window = i64::try_from(config.dedup_window_ns).unwrap_or(i64::MAX);
        match id.and_then(|id| self.ids.get(id)) {
            Some((seq, ts)) if now_ns - ts < window => return ModelAppend::Duplicate(*seq),
            _ => {}
        }
        let ts_ns = now_ns.max(self.last_ts_ns);
        let message = ModelMessage {
            subject: subject.into(),
            payload: payload.to_vec(),
            overhead: match config.storage {
                Storage::File => 30,
                Storage::Memory => 16,
            },
            ts_ns,
            ttl_ns: None,
        };
        let mut victims = Vec::new();
        let own = self.of_subject(subject);
        let mut at_limit = false;
        if let Some(max) = config.msgs_per_subject_max {
            at_limit = own.len() as u64 >= max;
            if at_limit {
                if config.discard == Discard::New && config.discard_new_per_subject {
                    return ModelAppend::Refused;
                }
                victims = own[..own.len() + 1 - max as usize].to_vec();
            }
        }
        if config.discard == Discard::New {
            let freed: u64 = victims.iter().map(|seq| self.msgs[seq].size()).sum();
            let full = config
                .msgs_max
                .is_some_and(|max| self.msgs.len() as u64 >= max);
            let bytes = self.bytes() - freed + message.size();
            if (full && !at_limit) || config.bytes_max.is_some_and(|max| bytes > max) {
                return ModelAppend::Refused;
            }
        }
        self.last_seq += 1;
        self.last_ts_ns = ts_ns;
        let seq = self.last_seq;
        self.msgs.insert(seq, message);
        if let Some(id) = id {
            self.ids.insert(id.into(), (seq, ts_ns));
        }
        if config.retention == Retention::Interest && !self.consumer.wants(subject) {
            self.msgs.remove(&seq);
        }
        for victim in victims {
            self.msgs.remove(&victim);
        }
        if config.discard == Discard::Old {
            while config
                .msgs_max
                .is_some_and(|max| self.msgs.len() as u64 > max)
                || config.bytes_max.is_some_and(|max| self.bytes() > max)
            {
                self.msgs.pop_first();
            }
        }
        ModelAppend::Stored(seq)
    }

    /// Removes what is too old and lies below a sequence.
    pub fn expire(&mut self, config: &StreamConfig, below: u64, now_ns: i64) {
        let age_max = config.age_max_ns.unwrap_or(u64::MAX);
        let age_max = i64::try_from(age_max).unwrap_or(i64::MAX);
        self.msgs.retain(|seq, message| {
            let life_ns = match message.ttl_ns {
                Some(i64::MAX) => i64::MAX,
                ttl_ns => ttl_ns.unwrap_or(i64::MAX).min(age_max),
            };
            *seq >= below || message.ts_ns.saturating_add(life_ns) > now_ns
        });
    }

    /// Deletes a message on request.
    pub fn delete(&mut self, seq: u64) -> bool {
        let deleted = self.msgs.remove(&seq).is_some();
        if deleted {
            self.consumer.forget(seq);
        }
        deleted
    }

    /// Acknowledges or terminates: a stream that keeps what is needed lets go of it.
    pub fn ack(&mut self, config: &StreamConfig, seq: u64) {
        self.consumer.ack(seq);
        if config.retention != Retention::Limits {
            self.msgs.remove(&seq);
        }
    }

    /// The consumer is replaced by a new one.
    pub fn replace_consumer(&mut self, config: &StreamConfig, consumer: ConsumerConfig) {
        if config.retention == Retention::Interest {
            self.msgs.clear();
        }
        self.consumer = ModelConsumer::new(consumer, self.first_seq());
    }

    pub fn purge(&mut self, subject: Option<&str>, below: Option<u64>, keep: Option<u64>) -> u64 {
        let mut victims: Vec<u64> = self
            .msgs
            .iter()
            .filter(|(_, message)| subject.is_none_or(|subject| message.subject == subject))
            .map(|(seq, _)| *seq)
            .filter(|seq| below.is_none_or(|below| *seq < below))
            .collect();
        let kept = usize::try_from(keep.unwrap_or(0)).unwrap_or(usize::MAX);
        victims.truncate(victims.len().saturating_sub(kept));
        for seq in &victims {
            self.msgs.remove(seq);
        }
        if let (None, Some(below), None) = (subject, below, keep)
            && below > self.last_seq
        {
            self.last_seq = below - 1;
        }
        self.purge_consumer(subject);
        victims.len() as u64
    }

    fn purge_consumer(&mut self, subject: Option<&str>) {
        let filters = &self.consumer.config.filters;
        let covering = subject.is_none_or(|subject| {
            !filters.is_empty() && filters.iter().all(|filter| filter == subject)
        });
        let (msgs, consumer) = (&self.msgs, &self.consumer);
        let resume = msgs
            .iter()
            .find(|(_, message)| consumer.wants(&message.subject))
            .map_or(self.last_seq + 1, |(seq, _)| *seq);
        let resume = covering.then_some(resume);
        self.consumer
            .purged(resume, |seq| self.msgs.contains_key(&seq));
    }

    /// The next delivery of the consumer.
    pub fn next(&mut self, now_ns: i64) -> Option<ModelDelivery> {
        let (msgs, wants) = (&self.msgs, self.consumer.clone());
        let waiting = |from: u64| {
            msgs.range(from..)
                .find(|(_, message)| wants.wants(&message.subject))
                .map(|(seq, _)| *seq)
        };
        let stored = |seq: u64| msgs.contains_key(&seq);
        let first_seq = msgs.keys().next().copied().unwrap_or(self.last_seq + 1);
        self.consumer
            .fetch(now_ns, first_seq, self.last_seq, stored, waiting)
    }

    /// Messages that wait for their first delivery.
    pub fn num_pending(&self) -> u64 {
        let waiting = self.msgs.range(self.consumer.next..);
        waiting
            .filter(|(_, message)| self.consumer.wants(&message.subject))
            .count() as u64
    }
}
