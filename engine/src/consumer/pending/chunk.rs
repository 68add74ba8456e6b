//! A block of unacknowledged messages that were delivered one after the other.

use super::column::Column;
use super::{PendingEntry, Tick};
use crate::ids::TimestampNs;

/// Messages per chunk.
pub(super) const SLOTS_MAX: usize = 1024;

const WORD_BITS: usize = u64::BITS as usize;

/// Up to [`SLOTS_MAX`] messages in stream order. A slot whose message is gone stays until the
/// chunk is packed.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    seqs: Column,
    consumer_seqs: Column,
    sent: Column,
    live: [u64; SLOTS_MAX / WORD_BITS],
    slots: usize,
    live_slots: usize,
    /// No message of the chunk is due before this; `None` if none ever is. May lie too low.
    pub(super) due_low: Option<TimestampNs>,
}

impl Chunk {
    pub(super) fn new() -> Chunk {
        Chunk {
            seqs: Column::ascending(),
            consumer_seqs: Column::ascending(),
            sent: Column::constant(),
            live: [0; SLOTS_MAX / WORD_BITS],
            slots: 0,
            live_slots: 0,
            due_low: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.live_slots
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots == SLOTS_MAX
    }

    /// Whether most slots are of messages that are gone.
    pub(super) fn is_sparse(&self) -> bool {
        self.slots >= 64 && self.live_slots * 4 < self.slots
    }

    /// Adds a message above all others.
    pub(super) fn push(&mut self, seq: u64, entry: PendingEntry) {
        debug_assert!(!self.is_full());
        let slot = self.slots;
        self.seqs.push(slot, seq as i64);
        self.consumer_seqs.push(slot, entry.consumer_seq as i64);
        self.sent.push(slot, entry.sent.0);
        self.live[slot / WORD_BITS] |= 1 << (slot % WORD_BITS);
        self.slots += 1;
        self.live_slots += 1;
    }

    pub(super) fn get(&self, seq: u64) -> Option<PendingEntry> {
        Some(self.entry(self.find(seq)?))
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<PendingEntry> {
        let slot = self.find(seq)?;
        self.live[slot / WORD_BITS] &= !(1 << (slot % WORD_BITS));
        self.live_slots -= 1;
        Some(self.entry(slot))
    }

    pub(super) fn set_sent(&mut self, seq: u64, sent: Tick) {
        if let Some(slot) = self.find(seq) {
            self.sent.set(slot, self.slots, sent.0);
        }
    }

    pub(super) fn first(&self) -> Option<(u64, PendingEntry)> {
        self.iter().next()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, PendingEntry)> + '_ {
        let words = self.live.iter().enumerate().filter(|&(_, &word)| word != 0);
        words.flat_map(move |(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                let slot = at * WORD_BITS + bit;
                Some((self.seq(slot), self.entry(slot)))
            })
        })
    }

    pub(super) fn shrink(&mut self) {
        self.seqs.shrink();
        self.consumer_seqs.shrink();
        self.sent.shrink();
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.seqs.heap_bytes() + self.consumer_seqs.heap_bytes() + self.sent.heap_bytes()
    }

    /// Slot of a message that is not gone.
    fn find(&self, seq: u64) -> Option<usize> {
        let first = self.seq(0);
        let slot = if self.seqs.is_straight() {
            usize::try_from(seq.checked_sub(first)?).ok()?
        } else {
            let (mut low, mut high) = (0, self.slots);
            while low < high {
                let middle = low + (high - low) / 2;
                if self.seq(middle) < seq {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low
        };
        let live = slot < self.slots
            && self.live[slot / WORD_BITS] >> (slot % WORD_BITS) & 1 == 1
            && self.seq(slot) == seq;
        live.then_some(slot)
    }

    fn seq(&self, slot: usize) -> u64 {
        self.seqs.get(slot) as u64
    }

    fn entry(&self, slot: usize) -> PendingEntry {
        PendingEntry {
            consumer_seq: self.consumer_seqs.get(slot) as u64,
            sent: Tick(self.sent.get(slot)),
        }
    }
}
