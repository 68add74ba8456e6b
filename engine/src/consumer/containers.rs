//! The parts in which a consumer's state is kept by checkpoints.
//!
//! Everything known about single messages lies in containers of 65,536 sequences each; positions and
//! counters are the head. A checkpoint writes the head and the containers that changed since the
//! last one, so that its cost follows what happened and not what is open.

use std::collections::BTreeSet;

use roaring::RoaringTreemap;

use super::codec::{ConsumerFormatError, RUN_MAX, Reader, ahead, put_i64, put_u64};
use super::config::AckPolicy;
use super::pending::{PendingEntry, Tick};
use super::state::ConsumerState;

/// Sequences of a container, as a power of two.
const SEQS_SHIFT: u32 = 16;

/// The container of a sequence.
pub(super) fn container_of(seq: u64) -> u64 {
    seq >> SEQS_SHIFT
}

/// First sequence of a container, and the one behind its last.
fn bounds(number: u64) -> (u64, u64) {
    let first = number << SEQS_SHIFT;
    (first, first + (1 << SEQS_SHIFT))
}

/// Containers that changed since the last checkpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Changed {
    /// Noted last, and in the set: changes come in runs.
    latest: Option<u64>,
    numbers: BTreeSet<u64>,
}

impl Changed {
    pub(super) fn note(&mut self, seq: u64) {
        let number = container_of(seq);
        if self.latest != Some(number) {
            self.latest = Some(number);
            self.numbers.insert(number);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    fn note_all(&mut self, seqs: impl Iterator<Item = u64>) {
        seqs.for_each(|seq| self.note(seq));
    }
}

impl ConsumerState {
    /// The containers that changed since the last call: their stored form, or `None` for one that
    /// holds nothing any more.
    pub fn take_changed(&mut self) -> Vec<(u64, Option<Vec<u8>>)> {
        if self.open.changed.is_empty() {
            self.open.shrink();
            return Vec::new();
        }
        let changed = std::mem::take(&mut self.open.changed);
        let numbers = changed.numbers.into_iter();
        let containers = numbers
            .map(|number| {
                let mut out = Vec::new();
                let holds = self.encode_container(number, &mut out);
                (number, holds.then_some(out))
            })
            .collect();
        self.open.shrink();
        containers
    }

    /// Takes back a [`ConsumerState::take_changed`] that was not kept.
    pub fn put_back_changed(&mut self, numbers: impl Iterator<Item = u64>) {
        let mut numbers = numbers.peekable();
        if numbers.peek().is_some() {
            self.open.changed.numbers.extend(numbers);
        }
    }

    /// Notes that every container changes.
    pub(super) fn note_all_changed(&mut self) {
        let mut held = self.container_numbers();
        if !held.is_empty() {
            self.open.changed.numbers.append(&mut held);
        }
    }

    /// Numbers of the containers that hold something, ascending.
    pub(super) fn container_numbers(&self) -> BTreeSet<u64> {
        let open = self.open.pending.iter().map(|(seq, _)| seq);
        let mut held = Changed::default();
        held.note_all(
            open.chain(self.open.listed.iter())
                .chain(self.open.exhausted.iter()),
        );
        held.numbers
    }

    /// Appends the stored form of a container; returns whether it holds anything.
    pub(super) fn encode_container(&self, number: u64, out: &mut Vec<u8>) -> bool {
        let (first, end) = bounds(number);
        let pending = || self.open.pending.range(first, end);
        let base = pending().next().map_or(0, |(_, entry)| entry.sent.0);
        put_i64(out, base);
        let mut holds = pending().next().is_some();
        for set in [&self.open.listed, &self.open.exhausted, &self.open.urgent] {
            holds |= put_part(out, set, first, end);
        }
        put_u64(out, self.open.delayed.range(first..end).count() as u64);
        let mut at = first;
        for (&seq, due) in self.open.delayed.range(first..end) {
            put_u64(out, seq - at);
            put_i64(out, due.0.wrapping_sub(base));
            at = seq;
        }
        let counts: Vec<(u64, u32)> = self.open.deliveries.range(first, end).collect();
        put_u64(out, counts.len() as u64);
        at = first;
        for (seq, count) in counts {
            put_u64(out, seq - at);
            put_u64(out, u64::from(count));
            at = seq;
        }
        put_pending(out, pending(), first, base);
        holds
    }

    /// Adds the content of a container. Containers come in ascending order, behind
    /// [`ConsumerState::decode_head`]. After an error the state must be thrown away.
    pub fn load_container(&mut self, number: u64, bytes: &[u8]) -> Result<(), ConsumerFormatError> {
        if number > container_of(self.next) {
            return Err(ConsumerFormatError::BadValue);
        }
        let (first, end) = bounds(number);
        let end = end.min(self.next);
        let mut reader = Reader::new(bytes);
        let base = reader.i64()?;
        self.open.listed |= reader.part(first, end)?;
        self.open.exhausted |= reader.part(first, end)?;
        self.open.urgent |= reader.part(first, end)?;
        let mut seq = first;
        for _ in 0..reader.count()? {
            seq = below(ahead(seq, reader.u64()?)?, end)?;
            let due = Tick(base.wrapping_add(reader.i64()?));
            self.open.delayed.insert(seq, due);
        }
        seq = first;
        for _ in 0..reader.count()? {
            seq = below(ahead(seq, reader.u64()?)?, end)?;
            let count = u32::try_from(reader.u64()?).map_err(|_| ConsumerFormatError::BadNumber)?;
            if count == 1 || self.open.deliveries.get(seq) != 1 {
                return Err(ConsumerFormatError::BadValue);
            }
            self.open.deliveries.set(seq, count);
        }
        self.load_pending(&mut reader, first, base)?;
        reader.finish()
    }

    fn load_pending(
        &mut self,
        reader: &mut Reader<'_>,
        first: u64,
        base: i64,
    ) -> Result<(), ConsumerFormatError> {
        if self.open.pending.last().is_some_and(|last| last >= first) {
            return Err(ConsumerFormatError::BadValue);
        }
        let end = bounds(container_of(first)).1;
        let (mut seq, mut consumer_seq, mut sent) = (first, 0u64, base);
        for _ in 0..reader.count()? {
            let len = reader.u64()?;
            seq = ahead(seq, reader.u64()?)?;
            consumer_seq = ahead(consumer_seq, reader.u64()?)?;
            sent = sent.wrapping_add(reader.i64()?);
            let seq_end = ahead(seq, len)?;
            let consumer_end = ahead(consumer_seq, len)?;
            // Each number must be possible before that many entries are made.
            if self.config.ack == AckPolicy::None
                || len > RUN_MAX
                || seq_end > end.min(self.delivered.stream + 1)
                || consumer_end > self.delivered.consumer + 1
            {
                return Err(ConsumerFormatError::BadValue);
            }
            for step in 0..len {
                let entry = PendingEntry {
                    consumer_seq: consumer_seq + step,
                    sent: Tick(sent),
                };
                self.open.pending.push(seq + step, entry, None);
            }
            (seq, consumer_seq) = (seq_end, consumer_end);
        }
        Ok(())
    }
}

fn below(seq: u64, end: u64) -> Result<u64, ConsumerFormatError> {
    match seq < end {
        true => Ok(seq),
        false => Err(ConsumerFormatError::BadValue),
    }
}

/// The sequences of a set in `first..end`, as runs; returns whether there are any.
fn put_part(out: &mut Vec<u8>, set: &RoaringTreemap, first: u64, end: u64) -> bool {
    let mut seqs = set.iter();
    seqs.advance_to(first);
    let part = seqs.take_while(|&seq| seq < end).map(|seq| seq - first);
    super::codec::put_runs(out, part)
}

/// Runs of consecutive stream and consumer sequences sent in the same tick.
fn put_pending(
    out: &mut Vec<u8>,
    pending: impl Iterator<Item = (u64, PendingEntry)>,
    first: u64,
    base: i64,
) {
    let mut runs: Vec<(u64, PendingEntry, u64)> = Vec::new();
    for (seq, entry) in pending {
        match runs.last_mut() {
            Some((run, start, len))
                if *len < RUN_MAX
                    && *run + *len == seq
                    && start.consumer_seq + *len == entry.consumer_seq
                    && start.sent == entry.sent =>
            {
                *len += 1;
            }
            _ => runs.push((seq, entry, 1)),
        }
    }
    put_u64(out, runs.len() as u64);
    let (mut seq_end, mut consumer_end, mut sent) = (first, 0, base);
    for (seq, entry, len) in runs {
        put_u64(out, len);
        put_u64(out, seq - seq_end);
        put_u64(out, entry.consumer_seq - consumer_end);
        put_i64(out, entry.sent.0.wrapping_sub(sent));
        seq_end = seq + len;
        consumer_end = entry.consumer_seq + len;
        sent = entry.sent.0;
    }
}
