//! Messages delivered and not yet acknowledged, in two to six bytes each.

mod chunk;
mod column;

use std::collections::{BTreeMap, BTreeSet};

use self::chunk::{Chunk, SLOTS_MAX};
use crate::ids::TimestampNs;

/// Width of a [`Tick`] in bits of nanoseconds: about 0.26 ms.
const TICK_SHIFT: u32 = 18;

/// A point in time rounded down to 2^18 ns. Delivery times are kept in ticks: neighbours share
/// one, so they cost next to nothing in memory and in the log, and a message is due again at most
/// one tick early, never late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(pub(super) i64);

impl Tick {
    pub(super) fn of(time: TimestampNs) -> Tick {
        Tick(time.0 >> TICK_SHIFT)
    }

    pub(super) fn start(self) -> TimestampNs {
        TimestampNs(self.0.saturating_mul(1 << TICK_SHIFT))
    }
}

/// What is known of one unacknowledged message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingEntry {
    /// Consumer sequence of its first delivery. Redeliveries keep it (T-43, T-65).
    pub(super) consumer_seq: u64,
    /// Time of its last delivery, or of the last sign of progress.
    pub(super) sent: Tick,
}

/// The unacknowledged messages in stream order. First deliveries come in ascending order, so both
/// sequences ascend together, and chunks only ever grow at the end.
///
/// Deadlines are not stored: each chunk knows a time before which nothing in it is due, and is
/// looked through when that time comes. Acknowledged or postponed messages leave that time too
/// low; the look then raises it.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingTable {
    /// By a sequence at or below the chunk's first message.
    chunks: BTreeMap<u64, Box<Chunk>>,
    len: u64,
    /// Chunks by the time of their next look.
    looks: BTreeSet<(TimestampNs, u64)>,
}

impl PendingTable {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn contains(&self, seq: u64) -> bool {
        self.get(seq).is_some()
    }

    pub(super) fn get(&self, seq: u64) -> Option<PendingEntry> {
        let (_, chunk) = self.chunks.range(..=seq).next_back()?;
        chunk.get(seq)
    }

    pub(super) fn first(&self) -> Option<(u64, PendingEntry)> {
        // Chunks without messages are dropped at once.
        self.chunks.values().next()?.first()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, PendingEntry)> + '_ {
        self.chunks.values().flat_map(|chunk| chunk.iter())
    }

    /// Messages in `first..end`.
    pub(super) fn range(
        &self,
        first: u64,
        end: u64,
    ) -> impl Iterator<Item = (u64, PendingEntry)> + '_ {
        let from = self.chunks.range(..=first).next_back();
        let from = from.map_or(first, |(&at, _)| at);
        self.chunks
            .range(from..end.max(from))
            .flat_map(|(_, chunk)| chunk.iter())
            .skip_while(move |&(seq, _)| seq < first)
            .take_while(move |&(seq, _)| seq < end)
    }

    /// The highest message.
    pub(super) fn last(&self) -> Option<u64> {
        let (_, chunk) = self.chunks.last_key_value()?;
        chunk.iter().last().map(|(seq, _)| seq)
    }

    /// Adds a first delivery. `seq` lies above every message in the table.
    pub(super) fn push(&mut self, seq: u64, entry: PendingEntry, due: Option<TimestampNs>) {
        debug_assert!(
            self.chunks
                .last_key_value()
                .is_none_or(|(&first, _)| first < seq)
        );
        match self.chunks.last_entry() {
            Some(mut last) if !last.get().is_full() => last.get_mut().push(seq, entry),
            last => {
                if let Some(mut full) = last {
                    full.get_mut().shrink();
                }
                let mut chunk = Box::new(Chunk::new());
                chunk.push(seq, entry);
                self.chunks.insert(seq, chunk);
            }
        }
        self.len += 1;
        self.arm(seq, due);
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<PendingEntry> {
        let (&first, chunk) = self.chunks.range_mut(..=seq).next_back()?;
        let entry = chunk.remove(seq)?;
        self.len -= 1;
        if chunk.len() == 0 {
            let due_low = chunk.due_low;
            self.chunks.remove(&first);
            self.unlook(first, due_low);
        } else if chunk.is_sparse() {
            self.pack(first);
        }
        Some(entry)
    }

    pub(super) fn set_sent(&mut self, seq: u64, sent: Tick) {
        if let Some((_, chunk)) = self.chunks.range_mut(..=seq).next_back() {
            chunk.set_sent(seq, sent);
        }
    }

    /// Notes that a message of the table is due at `due`. A later deadline than noted before is
    /// found when the earlier one has come.
    pub(super) fn arm(&mut self, seq: u64, due: Option<TimestampNs>) {
        let Some(due) = due else { return };
        let Some((&first, chunk)) = self.chunks.range_mut(..=seq).next_back() else {
            return;
        };
        if chunk.due_low.is_none_or(|low| due < low) {
            let before = chunk.due_low.replace(due);
            self.unlook(first, before);
            self.looks.insert((due, first));
        }
    }

    /// A time before which no message is due. May lie too low, until [`PendingTable::take_due`]
    /// at that time has had a look.
    pub(super) fn next_due(&self) -> Option<TimestampNs> {
        self.looks.first().map(|&(due, _)| due)
    }

    /// Every message with a deadline at or before `now`, in stream order. The caller makes sure
    /// that `due_of` no longer gives them one, or arms them again.
    pub(super) fn take_due(
        &mut self,
        now: TimestampNs,
        due_of: impl Fn(u64, Tick) -> Option<TimestampNs>,
    ) -> Vec<u64> {
        let mut due = Vec::new();
        while let Some(&(low, first)) = self.looks.first()
            && low <= now
        {
            self.looks.pop_first();
            let Some(chunk) = self.chunks.get_mut(&first) else {
                continue;
            };
            let mut later: Option<TimestampNs> = None;
            for (seq, entry) in chunk.iter() {
                match due_of(seq, entry.sent) {
                    Some(at) if at <= now => due.push(seq),
                    Some(at) => later = Some(later.map_or(at, |later| later.min(at))),
                    None => {}
                }
            }
            chunk.due_low = later;
            self.looks.extend(later.map(|later| (later, first)));
        }
        due.sort_unstable();
        due
    }

    /// Learns every deadline anew.
    pub(super) fn arm_all(&mut self, due_of: impl Fn(u64, Tick) -> Option<TimestampNs>) {
        self.looks.clear();
        for (&first, chunk) in &mut self.chunks {
            chunk.due_low = chunk
                .iter()
                .filter_map(|(seq, entry)| due_of(seq, entry.sent))
                .min();
            self.looks.extend(chunk.due_low.map(|low| (low, first)));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = PendingTable::default();
    }

    /// Memory in use.
    pub(super) fn heap_bytes(&self) -> usize {
        let per_chunk = size_of::<Chunk>() + 2 * size_of::<(u64, u64, u64)>();
        let chunks = self
            .chunks
            .values()
            .map(|chunk| per_chunk + chunk.heap_bytes());
        chunks.sum()
    }

    fn unlook(&mut self, first: u64, due_low: Option<TimestampNs>) {
        if let Some(low) = due_low {
            self.looks.remove(&(low, first));
        }
    }

    /// Rewrites a sparse chunk without the slots of messages that are gone, together with its
    /// neighbours as long as few messages are left in them, so that a few old messages do not
    /// hold the memory of many.
    fn pack(&mut self, sparse: u64) {
        let Some(len) = self.chunks.get(&sparse).map(|chunk| chunk.len()) else {
            return;
        };
        let before = self.chunks.range(..sparse).next_back();
        let first = match before {
            Some((&before, chunk)) if chunk.len() + len <= SLOTS_MAX / 2 => before,
            _ => sparse,
        };
        let mut packed = Box::new(Chunk::new());
        while let Some((&at, chunk)) = self.chunks.range(first..).next()
            && packed.len() + chunk.len() <= SLOTS_MAX / 2
        {
            let due_low = chunk.due_low;
            chunk
                .iter()
                .for_each(|(seq, entry)| packed.push(seq, entry));
            packed.due_low = match (packed.due_low, due_low) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            self.chunks.remove(&at);
            self.unlook(at, due_low);
        }
        packed.shrink();
        self.looks.extend(packed.due_low.map(|low| (low, first)));
        self.chunks.insert(first, packed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn entry(consumer_seq: u64, sent: i64) -> PendingEntry {
        PendingEntry {
            consumer_seq,
            sent: Tick(sent),
        }
    }

    /// Due four ticks after the last delivery.
    fn due(sent: Tick) -> TimestampNs {
        Tick(sent.0 + 4).start()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push {
            many: u16,
            gap: u8,
            consumer_gap: u8,
        },
        RemoveRange(u16, u16),
        RemoveEvery(u8),
        Touch(u16),
        Take,
        Time(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1u16..800, 0u8..3, 0u8..2).prop_map(|(many, gap, consumer_gap)|
                Step::Push { many, gap, consumer_gap }),
            2 => (0u16..4000, 0u16..1500).prop_map(|(from, many)| Step::RemoveRange(from, many)),
            1 => (2u8..5).prop_map(Step::RemoveEvery),
            2 => (0u16..4000).prop_map(Step::Touch),
            1 => Just(Step::Take),
            2 => (0u16..3).prop_map(Step::Time),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn the_table_behaves_like_a_map(steps in vec(step(), 1..40)) {
            let mut table = PendingTable::default();
            let mut map: BTreeMap<u64, PendingEntry> = BTreeMap::new();
            // Messages that were taken have no deadline any more.
            let mut taken: BTreeSet<u64> = BTreeSet::new();
            let (mut seq, mut consumer_seq, mut now) = (0, 0, 100i64);
            for step in steps {
                match step {
                    Step::Push { many, gap, consumer_gap } => for _ in 0..many {
                        seq += 1 + u64::from(gap);
                        consumer_seq += 1 + u64::from(consumer_gap);
                        let entry = entry(consumer_seq, now);
                        table.push(seq, entry, Some(due(entry.sent)));
                        map.insert(seq, entry);
                    },
                    Step::RemoveRange(from, many) => {
                        for seq in u64::from(from)..u64::from(from) + u64::from(many) {
                            prop_assert_eq!(table.remove(seq), map.remove(&seq));
                        }
                    }
                    Step::RemoveEvery(n) => {
                        let gone: Vec<u64> =
                            map.keys().copied().filter(|seq| seq % u64::from(n) != 0).collect();
                        for seq in gone {
                            prop_assert_eq!(table.remove(seq), map.remove(&seq));
                        }
                    }
                    Step::Touch(seq) => {
                        let seq = u64::from(seq);
                        table.set_sent(seq, Tick(now));
                        if let Some(entry) = map.get_mut(&seq) {
                            entry.sent = Tick(now);
                            taken.remove(&seq);
                            table.arm(seq, Some(due(Tick(now))));
                        }
                    }
                    Step::Take => {
                        let time = Tick(now).start();
                        let due_of = |seq, sent| (!taken.contains(&seq)).then(|| due(sent));
                        let got = table.take_due(time, due_of);
                        let expected: Vec<u64> = map
                            .iter()
                            .filter(|&(&seq, entry)| due_of(seq, entry.sent) <= Some(time))
                            .filter(|&(seq, _)| !taken.contains(seq))
                            .map(|(&seq, _)| seq)
                            .collect();
                        prop_assert_eq!(&got, &expected);
                        taken.extend(got);
                        prop_assert!(table.next_due().is_none_or(|next| next > time));
                    }
                    Step::Time(ticks) => now += i64::from(ticks),
                }
                prop_assert_eq!(table.len(), map.len() as u64);
                let first = map.first_key_value().map(|(&seq, &entry)| (seq, entry));
                prop_assert_eq!(table.first(), first);
            }
            let held: Vec<_> = table.iter().collect();
            let expected: Vec<_> = map.iter().map(|(&seq, &entry)| (seq, entry)).collect();
            prop_assert_eq!(held, expected);
            let due_of = |seq, sent| (!taken.contains(&seq)).then(|| due(sent));
            table.arm_all(due_of);
            let earliest = map.iter().filter_map(|(&seq, entry)| due_of(seq, entry.sent)).min();
            prop_assert_eq!(table.next_due(), earliest);
        }
    }

    #[test]
    fn a_pending_message_takes_a_few_bytes() {
        for (step, bytes_max) in [(1, 3), (3, 5)] {
            let mut table = PendingTable::default();
            for at in 0..100_000u64 {
                let entry = entry(at + 1, (at / 50) as i64);
                table.push(1 + at * step, entry, Some(due(entry.sent)));
            }
            let bytes = table.heap_bytes() as u64;
            assert!(bytes <= 100_000 * bytes_max, "{bytes} bytes");
        }
    }

    #[test]
    fn a_few_old_messages_do_not_hold_the_memory_of_many() {
        let mut table = PendingTable::default();
        for seq in 1..=100_000 {
            table.push(seq, entry(seq, seq as i64), None);
        }
        for seq in (1..=100_000).filter(|seq| seq % 1000 != 0) {
            table.remove(seq);
        }
        assert_eq!(table.len(), 100);
        assert!(table.heap_bytes() < 20_000, "{} bytes", table.heap_bytes());
    }
}
