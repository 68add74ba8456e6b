//! The in-memory end of a stream: messages that are in the write-ahead log but in no segment yet.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::due::{Due, TailTimers};
use crate::format::record::Record;
use crate::format::timers::TimerKind;
use crate::ids::Seq;
use crate::message::{BodyLayout, Message, MessageTimers};

/// Smallest and largest arena chunk, in bytes: small streams stay small, busy ones allocate rarely.
/// What a chunk has left is not accounted, so that the smallest one is what 100,000 streams with a
/// message each hold beyond the budget.
const CHUNK_BYTES_MIN: usize = 256;
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Accounted RAM of one slot besides its body, in bytes.
const SLOT_BYTES: u64 = 112;

/// A sequence and the accounted size of its message.
type SeqSize = (u64, u32);

/// Live sequences of one subject in a tail, ascending, with their accounted sizes. Where subjects
/// are many most have one message, which takes no allocation.
#[derive(Debug)]
pub enum SubjectSeqs {
    /// The only one.
    One((u64, u32)),
    /// Any number.
    Many(VecDeque<(u64, u32)>),
}

impl SubjectSeqs {
    fn slices(&self) -> (&[SeqSize], &[SeqSize]) {
        match self {
            SubjectSeqs::One(one) => (std::slice::from_ref(one), &[]),
            SubjectSeqs::Many(many) => many.as_slices(),
        }
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        match self {
            SubjectSeqs::One(_) => 1,
            SubjectSeqs::Many(many) => many.len(),
        }
    }

    /// Newest sequence and its size.
    pub fn last(&self) -> Option<(u64, u32)> {
        match self {
            SubjectSeqs::One(one) => Some(*one),
            SubjectSeqs::Many(many) => many.back().copied(),
        }
    }

    /// All, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u32)> + '_ {
        let (front, back) = self.slices();
        front.iter().chain(back).copied()
    }

    /// Number of sequences in `first..=last`.
    pub fn count_in(&self, first: u64, last: u64) -> u64 {
        let (front, back) = self.slices();
        let below = |wanted: &dyn Fn(u64) -> bool| {
            front.partition_point(|(seq, _)| wanted(*seq))
                + back.partition_point(|(seq, _)| wanted(*seq))
        };
        let before = below(&|seq| seq < first);
        let up_to = below(&|seq| seq <= last);
        up_to.saturating_sub(before) as u64
    }

    /// Accounted size of the message at `seq`.
    fn size_of(&self, seq: u64) -> Option<u32> {
        match self {
            SubjectSeqs::One((one, size)) => (*one == seq).then_some(*size),
            SubjectSeqs::Many(many) => {
                let at = many.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
                many.get(at).map(|(_, size)| *size)
            }
        }
    }

    fn push(&mut self, seq: u64, size: u32) {
        match self {
            SubjectSeqs::One(one) => {
                *self = SubjectSeqs::Many(VecDeque::from([*one, (seq, size)]));
            }
            SubjectSeqs::Many(many) => many.push_back((seq, size)),
        }
    }

    /// Removes a sequence and returns its size.
    fn remove(&mut self, seq: u64) -> Option<u32> {
        let size = self.size_of(seq)?;
        match self {
            SubjectSeqs::One(_) => *self = SubjectSeqs::Many(VecDeque::new()),
            SubjectSeqs::Many(many) if many.front().is_some_and(|(first, _)| *first == seq) => {
                many.pop_front();
            }
            SubjectSeqs::Many(many) => {
                let at = many.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
                many.remove(at);
            }
        }
        Some(size)
    }
}

/// Messages by sequence, and sequences by subject.
#[derive(Debug, Default)]
pub struct Tail {
    base: u64,
    slots: VecDeque<Option<Message>>,
    subjects: HashMap<Box<[u8]>, SubjectSeqs>,
    chunk: BytesMut,
    bytes: u64,
    live: u64,
    timers: TailTimers,
    live_bytes: u64,
}

impl Tail {
    /// An empty tail whose first message will be `next`.
    pub fn starting_at(next: Seq) -> Tail {
        Tail {
            base: next.0,
            ..Tail::default()
        }
    }

    /// First sequence that this tail answers for.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Sequence after the last one.
    pub fn end(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// Number of live messages.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Accounted size of the live messages, in bytes.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// RAM held, in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a message behind the last one. The sequence must be [`Tail::end`].
    pub fn push(&mut self, record: &Record<'_>, size: u32) {
        debug_assert_eq!(record.seq.0, self.end());
        let len = record.subject.len()
            + record.headers.len()
            + record.payload.len()
            + record.msg_id.len();
        let body = self.store(
            len,
            [
                record.subject,
                record.headers,
                record.payload,
                record.msg_id,
            ],
        );
        let layout = BodyLayout {
            subject: record.subject.len() as u32,
            headers: record.headers.len() as u32,
            payload: record.payload.len() as u32,
        };
        let message = Message::from_body(
            record.seq,
            record.ts,
            MessageTimers {
                flags: record.flags,
                ttl_ns: record.ttl_ns,
                notify_at: record.notify_at,
            },
            record.crc,
            layout,
            body,
        );
        debug_assert!(message.is_some(), "the body was built from these lengths");
        if let Some(message) = &message {
            self.bytes += self.timers.add(message);
        }
        self.slots.push_back(message);
        self.index(record.subject, record.seq.0, size, len as u64);
    }

    /// Puts an older tail, whose messages end where this one begins, in front. `live` says of each
    /// of its messages whether it is kept.
    pub fn prepend(&mut self, older: &Tail, live: &[bool]) {
        let newer = std::mem::replace(self, Tail::starting_at(Seq(older.base)));
        for (message, live) in older.iter_from(0).zip(live) {
            if *live {
                self.adopt(message, older);
            }
        }
        for message in newer.iter_from(0) {
            self.adopt(message, &newer);
        }
        let next = newer.end().max(older.end());
        self.skip_to(Seq(next));
        self.chunk = newer.chunk;
    }

    /// Makes `next` the sequence of the next message; the ones skipped are dead.
    pub fn skip_to(&mut self, next: Seq) {
        if self.live == 0 && self.end() != next.0 {
            *self = Tail::starting_at(next);
        }
        while self.end() < next.0 {
            self.slots.push_back(None);
        }
    }

    fn adopt(&mut self, message: &Message, from: &Tail) {
        self.skip_to(message.seq);
        let seqs = from.subjects.get(message.subject());
        let found = seqs.and_then(|seqs| seqs.size_of(message.seq.0));
        debug_assert!(
            found.is_some(),
            "a live message is listed under its subject"
        );
        let size = found.unwrap_or(0);
        self.bytes += self.timers.add(message);
        self.slots.push_back(Some(message.clone()));
        self.index(
            message.subject(),
            message.seq.0,
            size,
            message.body_len() as u64,
        );
    }

    fn index(&mut self, subject: &[u8], seq: u64, size: u32, body_len: u64) {
        self.bytes += body_len + SLOT_BYTES;
        self.live += 1;
        self.live_bytes += u64::from(size);
        match self.subjects.get_mut(subject) {
            Some(seqs) => seqs.push(seq, size),
            None => {
                let seqs = SubjectSeqs::One((seq, size));
                self.bytes += subject.len() as u64 + SLOT_BYTES;
                self.subjects.insert(subject.into(), seqs);
            }
        }
    }

    fn store(&mut self, len: usize, parts: [&[u8]; 4]) -> Bytes {
        if self.chunk.capacity() - self.chunk.len() < len {
            let grown = usize::try_from(self.bytes).unwrap_or(usize::MAX);
            let capacity = grown.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(len);
            self.chunk = BytesMut::with_capacity(capacity);
        }
        for part in parts {
            self.chunk.extend_from_slice(part);
        }
        self.chunk.split().freeze()
    }

    /// The live message at `seq`.
    pub fn get(&self, seq: u64) -> Option<&Message> {
        let at = seq.checked_sub(self.base)?;
        self.slots.get(usize::try_from(at).ok()?)?.as_ref()
    }

    /// Removes the message at `seq`.
    pub fn remove(&mut self, seq: u64) {
        let Some(at) = seq
            .checked_sub(self.base)
            .and_then(|at| usize::try_from(at).ok())
        else {
            return;
        };
        let Some(message) = self.slots.get_mut(at).and_then(Option::take) else {
            return;
        };
        let timers = self.timers.remove(&message);
        self.bytes = self
            .bytes
            .saturating_sub(message.body_len() as u64 + SLOT_BYTES + timers);
        self.live -= 1;
        if let Some(seqs) = self.subjects.get_mut(message.subject()) {
            let size = seqs.remove(seq).unwrap_or(0);
            self.live_bytes = self.live_bytes.saturating_sub(u64::from(size));
            if seqs.len() == 0 {
                self.bytes = self
                    .bytes
                    .saturating_sub(message.subject().len() as u64 + SLOT_BYTES);
                self.subjects.remove(message.subject());
            }
        }
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
    }

    /// Removes everything below `seq`; the tail then answers from `seq` on at the earliest.
    pub fn remove_below(&mut self, seq: u64) {
        if seq >= self.end() {
            *self = Tail::starting_at(Seq(seq.max(self.end())));
            return;
        }
        while self.base < seq {
            let at = self.base;
            self.remove(at);
            if self.base == at {
                self.slots.pop_front();
                self.base += 1;
            }
        }
    }

    /// Live sequences of a subject.
    pub fn subject(&self, subject: &[u8]) -> Option<&SubjectSeqs> {
        self.subjects.get(subject)
    }

    /// Number of subjects with live messages.
    pub fn subjects_len(&self) -> u64 {
        self.subjects.len() as u64
    }

    /// Subjects with live messages, in no particular order.
    pub fn subjects(&self) -> impl Iterator<Item = (&[u8], &SubjectSeqs)> {
        self.subjects
            .iter()
            .map(|(subject, seqs)| (&**subject, seqs))
    }

    /// What is due, earliest first, behind `after`.
    pub(super) fn due_after(
        &self,
        kind: TimerKind,
        after: Option<Due>,
    ) -> impl Iterator<Item = Due> + '_ {
        self.timers.after(kind, after)
    }

    /// Live messages from `seq` on, ascending.
    pub fn iter_from(&self, seq: u64) -> impl Iterator<Item = &Message> {
        let skip = usize::try_from(seq.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.slots.range(skip.min(self.slots.len())..).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TimestampNs;

    fn push(tail: &mut Tail, seq: u64, subject: &str) {
        let record = Record {
            seq: Seq(seq),
            ts: TimestampNs(seq as i64),
            flags: 0,
            crc: 0,
            subject: subject.as_bytes(),
            headers: b"",
            payload: b"payload",
            msg_id: b"",
            ..Record::default()
        };
        tail.push(&record, 10);
    }

    #[test]
    fn a_chunk_is_not_much_larger_than_what_the_tail_holds() {
        let mut tail = Tail::starting_at(Seq(1));
        for seq in 1..=20_000 {
            push(&mut tail, seq, "a");
            let spare = tail.chunk.capacity() as u64;
            assert!(spare <= tail.ram_bytes().max(256), "{spare} spare bytes");
        }
    }

    #[test]
    fn messages_and_subjects_follow_removals() {
        let mut tail = Tail::starting_at(Seq(5));
        for (seq, subject) in [(5, "a"), (6, "b"), (7, "a"), (8, "c")] {
            push(&mut tail, seq, subject);
        }
        assert_eq!(
            tail.get(7).map(|m| m.subject().to_vec()),
            Some(b"a".to_vec())
        );
        assert_eq!(tail.subject(b"a").map(SubjectSeqs::len), Some(2));
        tail.remove(7);
        assert_eq!(tail.get(7), None);
        assert_eq!(
            tail.subject(b"a").and_then(SubjectSeqs::last),
            Some((5, 10))
        );
        tail.remove(5);
        assert!(tail.subject(b"a").is_none());
        assert_eq!((tail.base(), tail.end(), tail.live()), (6, 9, 2));
        tail.remove_below(8);
        assert_eq!((tail.base(), tail.end(), tail.live()), (8, 9, 1));
        tail.remove_below(20);
        assert_eq!(
            (tail.base(), tail.end(), tail.live(), tail.ram_bytes()),
            (20, 20, 0, 0)
        );
        push(&mut tail, 20, "z");
        assert_eq!(
            tail.iter_from(0).map(|m| m.seq.0).collect::<Vec<_>>(),
            vec![20]
        );
    }

    #[test]
    fn ram_returns_to_zero_when_everything_is_removed() {
        let mut tail = Tail::starting_at(Seq(1));
        for seq in 1..=1000 {
            push(&mut tail, seq, if seq % 3 == 0 { "x" } else { "y" });
        }
        for seq in (1..=1000).rev() {
            tail.remove(seq);
        }
        assert_eq!((tail.live(), tail.ram_bytes(), tail.base()), (0, 0, 1001));
        assert_eq!(tail.live_bytes(), 0);
    }
}
