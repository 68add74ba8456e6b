//! The oldest messages of a stream, read ahead so that eviction needs no I/O under the lock.

use std::collections::VecDeque;

use crate::ids::TimestampNs;

/// What eviction needs to know about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrontEntry {
    pub seq: u64,
    /// Accounted size in bytes.
    pub size: u32,
    pub ts: TimestampNs,
}

/// Consecutive stored messages from the front of the stream. Some may have been removed since.
#[derive(Debug, Default)]
pub(crate) struct FrontWindow {
    entries: VecDeque<FrontEntry>,
}

impl FrontWindow {
    /// The entry of `seq`, which lies at or behind the stream's first sequence.
    pub fn get(&self, seq: u64) -> Option<FrontEntry> {
        let at = self
            .entries
            .binary_search_by_key(&seq, |entry| entry.seq)
            .ok()?;
        self.entries.get(at).copied()
    }

    /// Drops what lies before `first_seq`.
    pub fn advance(&mut self, first_seq: u64) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.seq < first_seq)
        {
            self.entries.pop_front();
        }
    }

    /// Replaces the window.
    pub fn fill(&mut self, entries: impl Iterator<Item = FrontEntry>) {
        self.entries.clear();
        self.entries.extend(entries);
    }

    /// Adds entries behind the present ones.
    pub fn extend(&mut self, entries: impl Iterator<Item = FrontEntry>) {
        let last = self.entries.back().map_or(0, |entry| entry.seq);
        self.entries
            .extend(entries.filter(|entry| entry.seq > last));
    }
}
