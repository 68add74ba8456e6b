//! How often messages were delivered, where that is not once.

use roaring::RoaringTreemap;

/// Delivery counts in bit planes: plane `n` holds the messages whose number of redeliveries has
/// bit `n`. Messages that were delivered once cost nothing, redelivered ones a bit or two.
#[derive(Clone, Debug, Default)]
pub(super) struct DeliveryCounts {
    planes: Vec<RoaringTreemap>,
    /// Messages whose only delivery was taken back.
    never: RoaringTreemap,
    redelivered: u64,
}

impl DeliveryCounts {
    /// Deliveries of a message; 1 if nothing else is known.
    pub(super) fn get(&self, seq: u64) -> u32 {
        if self.planes.is_empty() && self.never.is_empty() {
            return 1;
        }
        if self.never.contains(seq) {
            return 0;
        }
        self.redeliveries(seq).saturating_add(1)
    }

    pub(super) fn set(&mut self, seq: u64, count: u32) {
        let old = self.redeliveries(seq);
        let new = count.saturating_sub(1);
        if count == 0 {
            self.never.insert(seq);
        } else if !self.never.is_empty() {
            self.never.remove(seq);
        }
        for bit in 0..u32::BITS - (old | new).leading_zeros() {
            let plane = bit as usize;
            if self.planes.len() <= plane {
                self.planes.push(RoaringTreemap::new());
            }
            if new >> bit & 1 == 1 {
                self.planes[plane].insert(seq);
            } else {
                self.planes[plane].remove(seq);
            }
        }
        while self.planes.last().is_some_and(RoaringTreemap::is_empty) {
            self.planes.pop();
        }
        self.redelivered -= u64::from(old > 0);
        self.redelivered += u64::from(new > 0);
    }

    /// Whether every message counts 1.
    pub(super) fn is_empty(&self) -> bool {
        self.redelivered == 0 && self.never.is_empty()
    }

    /// Messages delivered more than once.
    pub(super) fn redelivered(&self) -> u64 {
        self.redelivered
    }

    /// Messages with a count other than 1, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.range(0, u64::MAX)
    }

    /// Those in `first..end`.
    pub(super) fn range(&self, first: u64, end: u64) -> impl Iterator<Item = (u64, u32)> + '_ {
        let mut found = RoaringTreemap::new();
        for plane in self.planes.iter().chain([&self.never]) {
            let mut seqs = plane.iter();
            seqs.advance_to(first);
            found.extend(seqs.take_while(|&seq| seq < end));
        }
        found.into_iter().map(|seq| (seq, self.get(seq)))
    }

    pub(super) fn clear(&mut self) {
        *self = DeliveryCounts::default();
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let planes = self.planes.iter().chain([&self.never]);
        planes.map(RoaringTreemap::serialized_size).sum()
    }

    fn redeliveries(&self, seq: u64) -> u32 {
        let planes = self.planes.iter().enumerate();
        planes
            .map(|(bit, plane)| u32::from(plane.contains(seq)) << bit)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_come_back(
            changes in vec((0u64..20, prop_oneof![0u32..5, any::<u32>()]), 0..60)
        ) {
            let mut counts = DeliveryCounts::default();
            let mut plain: BTreeMap<u64, u32> = BTreeMap::new();
            for (seq, count) in changes {
                counts.set(seq, count);
                plain.insert(seq, count);
                plain.retain(|_, count| *count != 1);
                prop_assert_eq!(counts.get(seq), count);
                let expected: Vec<_> = plain.iter().map(|(&seq, &count)| (seq, count)).collect();
                prop_assert_eq!(counts.iter().collect::<Vec<_>>(), expected);
                let redelivered = plain.values().filter(|&&count| count > 1).count() as u64;
                prop_assert_eq!(counts.redelivered(), redelivered);
            }
        }
    }
}
