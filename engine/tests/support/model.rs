//! The reference model: what a stream and its consumer must look like, with plain maps and loops.

use std::collections::{BTreeMap, BTreeSet};

use riverlog_engine::{Discard, Storage, StreamConfig};

/// A message of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelMessage {
    pub subject: String,
    pub payload: Vec<u8>,
    /// Accounted bytes besides subject and payload (LIM-012, LIM-013).
    pub overhead: u64,
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
    pub ids: BTreeMap<String, u64>,
    pub acked: BTreeSet<u64>,
    pub delivered: u64,
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
    ) -> ModelAppend {
        if let Some(seq) = id.and_then(|id| self.ids.get(id)) {
            return ModelAppend::Duplicate(*seq);
        }
        let message = ModelMessage {
            subject: subject.into(),
            payload: payload.to_vec(),
            overhead: match config.storage {
                Storage::File => 30,
                Storage::Memory => 16,
            },
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
        let seq = self.last_seq;
        self.msgs.insert(seq, message);
        if let Some(id) = id {
            self.ids.insert(id.into(), seq);
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

    pub fn delete(&mut self, seq: u64) -> bool {
        self.msgs.remove(&seq).is_some()
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
        victims.len() as u64
    }

    /// The next message of a consumer without limits, acknowledging explicitly.
    pub fn next(&mut self, filter: Option<&str>) -> Option<u64> {
        let seq = self.waiting(filter).next()?;
        self.delivered = seq;
        Some(seq)
    }

    pub fn num_pending(&self, filter: Option<&str>) -> u64 {
        self.waiting(filter).count() as u64
    }

    fn waiting<'a>(&'a self, filter: Option<&'a str>) -> impl Iterator<Item = u64> + 'a {
        self.msgs
            .range(self.delivered + 1..)
            .filter(move |(_, message)| filter.is_none_or(|filter| message.subject == filter))
            .map(|(seq, _)| *seq)
    }
}
