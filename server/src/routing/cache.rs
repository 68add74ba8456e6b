//! Remembered matches of one publisher.

use std::hash::BuildHasher;

use super::account::Account;
use super::subscriber::Subscriber;
use super::trie::Matches;

/// A direct-mapped table from subject to matches, valid for one generation of the account's trie
/// (CORE-045).
///
/// It belongs to one publisher, so a hit takes no lock. A subject is stored when it is seen twice
/// without another subject of the same slot between: a stream of unique subjects (reply inboxes)
/// neither allocates nor drives out what is used again and again.
#[derive(Default)]
pub struct MatchCache {
    hasher: foldhash::fast::RandomState,
    slots: Vec<Slot>,
    /// Result of the last lookup that was not stored.
    scratch: Matches<Subscriber>,
}

#[derive(Default)]
struct Slot {
    /// Hash of the last subject that missed here.
    missed: u64,
    /// 0: empty.
    generation: u64,
    subject: Vec<u8>,
    matches: Matches<Subscriber>,
}

/// The table starts small, since most connections publish to few subjects.
const SLOTS_MIN: usize = 8;
/// And never grows beyond this.
const SLOTS_MAX: usize = 1024;
/// Longer subjects are not remembered.
const SUBJECT_BYTES_MAX: usize = 256;

impl MatchCache {
    /// Everything matching the literal `subject` now.
    pub fn lookup(&mut self, account: &Account, subject: &[u8]) -> &Matches<Subscriber> {
        let generation = account.generation();
        let hash = self.hasher.hash_one(subject);
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS_MIN, Slot::default);
        }
        let mut at = hash as usize & (self.slots.len() - 1);
        let slot = &self.slots[at];
        if slot.generation == generation && slot.subject == subject {
            return &self.slots[at].matches;
        }
        if slot.missed != hash || subject.len() > SUBJECT_BYTES_MAX {
            self.slots[at].missed = hash;
            self.scratch.clear();
            account.collect(subject, &mut self.scratch);
            return &self.scratch;
        }
        if slot.generation == generation && self.slots.len() < SLOTS_MAX {
            self.grow();
            at = hash as usize & (self.slots.len() - 1);
        }
        let slot = &mut self.slots[at];
        slot.subject.clear();
        slot.subject.extend_from_slice(subject);
        slot.matches.clear();
        slot.generation = account.collect(subject, &mut slot.matches);
        &slot.matches
    }

    /// Doubles the table because two subjects in use fell into one slot.
    fn grow(&mut self) {
        let doubled = self.slots.len() * 2;
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(doubled, Slot::default);
        for slot in old.into_iter().filter(|slot| slot.generation != 0) {
            let at = self.hasher.hash_one(slot.subject.as_slice()) as usize & (doubled - 1);
            self.slots[at] = slot;
        }
    }
}
