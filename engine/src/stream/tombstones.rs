//! The set of removed sequences inside a stream's live range.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringBitmap;

/// Sequences per container. One container is one metadata value, so a delete dirties little.
const CONTAINER_SEQS: u64 = 1 << 16;
/// Highest position in a container.
const LOW_MAX: u32 = (CONTAINER_SEQS - 1) as u32;

/// Removed sequences between `first_seq` and `last_seq` of a stream, in containers of 65,536.
#[derive(Clone, Debug, Default)]
pub struct Tombstones {
    containers: BTreeMap<u64, RoaringBitmap>,
    dirty: BTreeSet<u64>,
    len: u64,
}

fn split(seq: u64) -> (u64, u32) {
    (seq / CONTAINER_SEQS, (seq % CONTAINER_SEQS) as u32)
}

impl Tombstones {
    /// Number of removed sequences.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Adds `count` sequences from `first`.
    pub fn insert_range(&mut self, first: u64, count: u64) {
        let mut at = first;
        let end = first.saturating_add(count);
        while at < end {
            let (container, low) = split(at);
            let stop = end.min((container + 1).saturating_mul(CONTAINER_SEQS));
            let high = low + (stop - at) as u32;
            self.len += self
                .containers
                .entry(container)
                .or_default()
                .insert_range(low..high);
            self.dirty.insert(container);
            at = stop;
        }
    }

    /// True when `seq` is removed.
    pub fn contains(&self, seq: u64) -> bool {
        if self.len == 0 {
            return false;
        }
        let (container, low) = split(seq);
        self.containers
            .get(&container)
            .is_some_and(|bits| bits.contains(low))
    }

    /// Number of removed sequences in `first..=last`. Costs one step per container in between.
    pub fn count_in(&self, first: u64, last: u64) -> u64 {
        if self.len == 0 || first > last {
            return 0;
        }
        let (low_container, low) = split(first);
        let (high_container, high) = split(last);
        self.containers
            .range(low_container..=high_container)
            .map(|(container, bits)| {
                let from = if *container == low_container { low } else { 0 };
                let to = if *container == high_container {
                    high
                } else {
                    LOW_MAX
                };
                match (from, to) {
                    (0, LOW_MAX) => bits.len(),
                    _ => bits.range_cardinality(from..=to),
                }
            })
            .sum()
    }

    /// The first sequence at or after `seq` that is not removed.
    pub fn next_live(&self, seq: u64) -> u64 {
        let mut at = seq;
        if self.len == 0 {
            return at;
        }
        loop {
            let (container, low) = split(at);
            let Some(bits) = self.containers.get(&container) else {
                return at;
            };
            let full_to_end = bits.range_cardinality(low..CONTAINER_SEQS as u32)
                == CONTAINER_SEQS - u64::from(low);
            if full_to_end {
                at = (container + 1) * CONTAINER_SEQS;
                continue;
            }
            if !bits.contains(low) {
                return at;
            }
            // `known` starts a run of removed sequences; halve towards its end.
            let (mut known, mut end) = (low, CONTAINER_SEQS as u32);
            while end - known > 1 {
                let middle = known + (end - known) / 2;
                if bits.range_cardinality(low..=middle) == u64::from(middle - low) + 1 {
                    known = middle;
                } else {
                    end = middle;
                }
            }
            return container * CONTAINER_SEQS + u64::from(known) + 1;
        }
    }

    /// The last sequence at or before `seq` that is not removed; `None` below 1.
    pub fn prev_live(&self, seq: u64) -> Option<u64> {
        let mut at = seq;
        while at > 0 {
            let (container, low) = split(at);
            let Some(bits) = self.containers.get(&container) else {
                return Some(at);
            };
            if !bits.contains(low) {
                return Some(at);
            }
            let removed_from =
                |first: u32| bits.range_cardinality(first..=low) == u64::from(low - first) + 1;
            if removed_from(0) {
                at = (container * CONTAINER_SEQS).checked_sub(1)?;
                continue;
            }
            // From `known` on all are removed, from `end` on not; halve towards the border.
            let (mut end, mut known) = (0, low);
            while known - end > 1 {
                let middle = end + (known - end) / 2;
                if removed_from(middle) {
                    known = middle;
                } else {
                    end = middle;
                }
            }
            let live = container * CONTAINER_SEQS + u64::from(known) - 1;
            return (live > 0).then_some(live);
        }
        None
    }

    /// Forgets everything below `seq`; returns how many sequences that were.
    pub fn remove_below(&mut self, seq: u64) -> u64 {
        if self.len == 0 {
            return 0;
        }
        let (container, low) = split(seq);
        let kept = self.containers.split_off(&container);
        let gone = std::mem::replace(&mut self.containers, kept);
        let mut removed = 0;
        for (container, bits) in gone {
            removed += bits.len();
            self.dirty.insert(container);
        }
        if let Some(bits) = self.containers.get_mut(&container) {
            let cut = bits.remove_range(0..low);
            if cut > 0 {
                self.dirty.insert(container);
                removed += cut;
            }
            if bits.is_empty() {
                self.containers.remove(&container);
                self.dirty.insert(container);
            }
        }
        self.len -= removed;
        removed
    }

    /// All removed sequences, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.containers.iter().flat_map(|(container, bits)| {
            bits.iter()
                .map(move |low| container * CONTAINER_SEQS + u64::from(low))
        })
    }

    /// Containers changed since the last call: number and serialised bits, `None` when empty. They are
    /// also brought into their smallest form: at most two bytes for a removed sequence and one bit for
    /// each of the container.
    pub fn take_dirty(&mut self) -> Vec<(u64, Option<Vec<u8>>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .map(|container| {
                let bytes = self.containers.get_mut(&container).map(|bits| {
                    // Runs of removed sequences take a few bytes instead of one bit each, on disk
                    // and from here on in memory.
                    bits.optimize();
                    let mut out = Vec::with_capacity(bits.serialized_size());
                    // Writing into a Vec cannot fail.
                    let _ = bits.serialize_into(&mut out);
                    out
                });
                (container, bytes)
            })
            .collect()
    }

    /// Marks containers for the next [`Tombstones::take_dirty`].
    pub fn mark_dirty(&mut self, containers: impl Iterator<Item = u64>) {
        self.dirty.extend(containers);
    }

    /// Restores one container; `false` when the bytes are not a container.
    pub fn load_container(&mut self, container: u64, bytes: &[u8]) -> bool {
        if container > u64::MAX / CONTAINER_SEQS {
            return false;
        }
        let Ok(bits) = RoaringBitmap::deserialize_from(bytes) else {
            return false;
        };
        if bits
            .max()
            .is_some_and(|max| u64::from(max) >= CONTAINER_SEQS)
        {
            return false;
        }
        self.len += bits.len();
        if let Some(old) = self.containers.insert(container, bits) {
            self.len -= old.len();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Range(u64, u64),
        Below(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0..200_000u64).prop_map(|a| Change::Range(a, 1)),
            (0..200_000u64, 0..70_000u64).prop_map(|(a, n)| Change::Range(a, n)),
            (0..200_000u64).prop_map(Change::Below),
        ]
    }

    #[test]
    fn long_runs_take_no_memory_to_speak_of() {
        let mut set = Tombstones::default();
        for block in 0..2_000_u64 {
            set.insert_range(block * 1_000 + 1, 999);
        }
        let stored: usize = set
            .take_dirty()
            .iter()
            .filter_map(|(_, bytes)| bytes.as_ref().map(Vec::len))
            .sum();
        assert!(stored < 16 * 1024, "{stored} bytes for 2,000 runs");
        assert_eq!(set.prev_live(1_999), Some(1_000));
        set.insert_range(1_000, 1);
        assert_eq!(set.prev_live(1_999), None);
        assert_eq!(set.len(), 2_000 * 999 + 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_a_plain_set(
            changes in proptest::collection::vec(change(), 1..12),
            probe in 0..280_000u64,
        ) {
            let mut set = Tombstones::default();
            let mut saved = Tombstones::default();
            let mut model = BTreeSet::new();
            for change in changes {
                match change {
                    Change::Range(first, count) => {
                        set.insert_range(first, count);
                        model.extend(first..first + count);
                    }
                    Change::Below(seq) => {
                        let kept = model.split_off(&seq);
                        prop_assert_eq!(set.remove_below(seq), model.len() as u64);
                        model = kept;
                    }
                }
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!(set.contains(probe), model.contains(&probe));
            let mut live = probe;
            while model.contains(&live) { live += 1; }
            prop_assert_eq!(set.next_live(probe), live);
            let mut back = probe;
            while back > 0 && model.contains(&back) { back -= 1; }
            prop_assert_eq!(set.prev_live(probe), (back > 0).then_some(back));
            prop_assert_eq!(
                set.count_in(probe / 2, probe),
                model.range(probe / 2..=probe).count() as u64
            );
            for (container, bytes) in set.take_dirty() {
                if let Some(bytes) = bytes {
                    prop_assert!(saved.load_container(container, &bytes));
                }
            }
            prop_assert!(saved.iter().eq(model.iter().copied()));
            prop_assert_eq!(saved.len(), set.len());
        }

        #[test]
        fn garbage_is_no_container(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut set = Tombstones::default();
            set.load_container(0, &bytes);
            prop_assert_eq!(set.len(), set.iter().count() as u64);
        }
    }
}
