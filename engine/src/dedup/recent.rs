//! The ids that no file holds yet.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashTable;

use super::{IdHash, IdWindow};
use crate::format::id_page::IdEntry;
use crate::ids::{Seq, StreamId, TimestampNs};

/// Accounted RAM of one id, in bytes: an entry, its slot in the table, and room to grow.
const ID_RAM_BYTES: u64 = 48;

/// An id and its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecentId {
    pub hash: IdHash,
    pub seq: Seq,
    pub ts: TimestampNs,
}

/// Ids of one stream in order of admission, and where the newest use of each is.
#[derive(Debug, Default)]
pub(crate) struct FrozenIds {
    entries: VecDeque<RecentId>,
    /// Entries that have left at the front, modulo 2^32.
    left: u32,
    /// Numbers of entries, modulo 2^32. Entry `n` is at `n - left`.
    newest: HashTable<u32>,
}

impl FrozenIds {
    /// All uses, oldest first. A hash can be there twice; the later one counts.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &RecentId> {
        self.entries.iter()
    }

    /// The use at `position` of [`FrozenIds::iter`].
    pub fn get(&self, position: u32) -> Option<&RecentId> {
        self.entries.get(position as usize)
    }

    pub fn ram_bytes(&self) -> u64 {
        self.entries.len() as u64 * ID_RAM_BYTES
    }

    fn find(&self, hash: IdHash) -> Option<RecentId> {
        let at = |number: &u32| self.entry(*number);
        let number = self.newest.find(low_bits(hash), |number| {
            at(number).is_some_and(|entry| entry.hash == hash)
        })?;
        at(number).copied()
    }

    fn entry(&self, number: u32) -> Option<&RecentId> {
        self.entries.get(number.wrapping_sub(self.left) as usize)
    }

    fn push(&mut self, id: RecentId) {
        let number = self.left.wrapping_add(self.entries.len() as u32);
        self.entries.push_back(id);
        let (entries, left) = (&self.entries, self.left);
        let hash_at = |number: &u32| {
            let entry = entries.get(number.wrapping_sub(left) as usize);
            entry.map_or(IdHash(0), |entry| entry.hash)
        };
        let slot = self.newest.entry(
            low_bits(id.hash),
            |number| hash_at(number) == id.hash,
            |number| low_bits(hash_at(number)),
        );
        slot.insert(number);
    }

    fn pop(&mut self) {
        let Some(front) = self.entries.front().copied() else {
            return;
        };
        let number = self.left;
        // A later use of the same id has its own number.
        let slot = self
            .newest
            .find_entry(low_bits(front.hash), |at| *at == number);
        if let Ok(slot) = slot {
            slot.remove();
        }
        self.entries.pop_front();
        self.left = self.left.wrapping_add(1);
    }
}

/// See the [module](self). At most 2^32 ids.
#[derive(Debug, Default)]
pub(crate) struct RecentIds {
    active: FrozenIds,
    /// On their way into a file.
    frozen: Option<Arc<FrozenIds>>,
}

impl RecentIds {
    /// The newest use of an id, expired or not.
    pub fn get(&self, hash: IdHash) -> Option<RecentId> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.find(hash));
        self.active.find(hash).or_else(frozen)
    }

    /// Remembers an id. Times do not run backwards.
    pub fn insert(&mut self, hash: IdHash, seq: Seq, ts: TimestampNs) {
        self.active.push(RecentId { hash, seq, ts });
    }

    /// Forgets what has expired at `now`.
    pub fn expire(&mut self, now: TimestampNs, window: IdWindow) {
        while let Some(front) = self.active.entries.front()
            && !window.holds(front.seq, front.ts, now)
        {
            self.active.pop();
        }
    }

    /// RAM of the ids that are not on their way into a file, in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.active.ram_bytes()
    }

    /// Hands the ids over to be written; they stay known until [`RecentIds::drop_frozen`].
    pub fn freeze(&mut self) -> Option<Arc<FrozenIds>> {
        debug_assert!(self.frozen.is_none(), "one checkpoint at a time");
        if self.active.entries.is_empty() {
            return None;
        }
        self.frozen = Some(Arc::new(std::mem::take(&mut self.active)));
        self.frozen.clone()
    }

    /// A file that everybody can ask holds the frozen ids now.
    pub fn drop_frozen(&mut self) {
        self.frozen = None;
    }

    /// Takes frozen ids back: they were not written.
    pub fn thaw(&mut self) {
        let Some(frozen) = self.frozen.take() else {
            return;
        };
        let newer = std::mem::take(&mut self.active);
        for id in frozen.iter().chain(newer.iter()) {
            self.active.push(*id);
        }
    }

    /// Forgets everything that is not on its way into a file.
    pub fn clear(&mut self) {
        self.active = FrozenIds::default();
    }

    /// The newest use of every id, frozen ones included, in order of their hashes.
    pub fn sorted(&self, stream: StreamId) -> Vec<IdEntry> {
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.iter());
        let entry = |id: &RecentId| IdEntry {
            hash: id.hash.0,
            stream,
            seq: id.seq,
            ts: id.ts,
        };
        let mut entries: Vec<IdEntry> = frozen.chain(self.active.iter()).map(entry).collect();
        entries.sort_unstable_by_key(|entry| (entry.hash, std::cmp::Reverse(entry.seq)));
        entries.dedup_by_key(|entry| entry.hash);
        entries
    }
}

fn low_bits(hash: IdHash) -> u64 {
    hash.0 as u64
}
