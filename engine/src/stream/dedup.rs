//! Message ids seen within a stream's deduplication window.
//!
//! Ids are kept as 128-bit hashes seeded with the store's identity. They are independent of the
//! messages that carried them: an id outlives deletion, purge, acknowledgement and restart until
//! its window has passed.

use std::collections::{HashMap, VecDeque};

use crate::format::varint;
use crate::ids::{Seq, TimestampNs};

/// Hash of a message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdHash(pub u128);

impl IdHash {
    /// Hashes `id` with the store's own seed, so that collisions cannot be prepared elsewhere.
    pub fn of(seed: u64, id: &[u8]) -> IdHash {
        IdHash(xxhash_rust::xxh3::xxh3_128_with_seed(id, seed))
    }
}

/// The window. Entries leave in order of admission.
#[derive(Debug, Default)]
pub struct DedupWindow {
    by_hash: HashMap<IdHash, (Seq, TimestampNs)>,
    by_time: VecDeque<(TimestampNs, IdHash)>,
    /// Entries of `by_time` that no metadata value holds yet, counted from the back.
    unsaved: usize,
}

impl DedupWindow {
    /// Sequence first stored with this id, if it is still inside the window at `now`.
    pub fn get(&self, hash: IdHash, now: TimestampNs, window_ns: u64) -> Option<Seq> {
        let (seq, ts) = self.by_hash.get(&hash)?;
        (!expired(*ts, now, window_ns)).then_some(*seq)
    }

    /// Remembers an id.
    pub fn insert(&mut self, hash: IdHash, seq: Seq, ts: TimestampNs) {
        self.by_hash.insert(hash, (seq, ts));
        self.by_time.push_back((ts, hash));
        self.unsaved += 1;
    }

    /// Forgets what is older than the window at `now`; a window of 0 forgets everything.
    pub fn expire(&mut self, now: TimestampNs, window_ns: u64) {
        while let Some((ts, hash)) = self.by_time.front().copied() {
            if !expired(ts, now, window_ns) {
                break;
            }
            self.by_time.pop_front();
            if self
                .by_hash
                .get(&hash)
                .is_some_and(|(_, newest)| *newest == ts)
            {
                self.by_hash.remove(&hash);
            }
        }
        self.unsaved = self.unsaved.min(self.by_time.len());
    }

    /// Encodes the entries added since the last call, oldest first; `None` when there are none.
    /// The second value is the time of the youngest.
    pub fn take_unsaved(&mut self) -> Option<(Vec<u8>, TimestampNs)> {
        if self.unsaved == 0 {
            return None;
        }
        let start = self.by_time.len() - self.unsaved;
        let mut out = Vec::with_capacity(self.unsaved * 32);
        let mut youngest = TimestampNs(i64::MIN);
        for (ts, hash) in self.by_time.range(start..) {
            let seq = self.by_hash.get(hash).map_or(0, |(seq, _)| seq.0);
            out.extend_from_slice(&ts.0.to_le_bytes());
            out.extend_from_slice(&hash.0.to_le_bytes());
            varint::encode(seq, &mut out);
            youngest = youngest.max(*ts);
        }
        self.unsaved = 0;
        Some((out, youngest))
    }

    /// Takes back a [`DedupWindow::take_unsaved`] whose result was not stored.
    pub fn unsave(&mut self, taken: &[u8]) {
        let mut window = DedupWindow::default();
        if window.load(taken) {
            self.unsaved = (self.unsaved + window.by_time.len()).min(self.by_time.len());
        }
    }

    /// Restores entries written by [`DedupWindow::take_unsaved`]; `false` when they do not parse.
    pub fn load(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some((ts, rest)) = bytes.split_first_chunk::<8>() else {
                return false;
            };
            let Some((hash, rest)) = rest.split_first_chunk::<16>() else {
                return false;
            };
            let Ok((seq, rest)) = varint::decode(rest) else {
                return false;
            };
            let ts = TimestampNs(i64::from_le_bytes(*ts));
            let hash = IdHash(u128::from_le_bytes(*hash));
            if seq > 0 {
                self.by_hash.insert(hash, (Seq(seq), ts));
                self.by_time.push_back((ts, hash));
            }
            bytes = rest;
        }
        true
    }
}

fn expired(ts: TimestampNs, now: TimestampNs, window_ns: u64) -> bool {
    now.0.saturating_sub(ts.0) >= i64::try_from(window_ns).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_until_its_window_has_passed() {
        let mut window = DedupWindow::default();
        let id = IdHash::of(7, b"order-1");
        window.insert(id, Seq(3), TimestampNs(1_000));
        assert_eq!(window.get(id, TimestampNs(1_999), 1_000), Some(Seq(3)));
        assert_eq!(window.get(id, TimestampNs(2_000), 1_000), None);
        window.expire(TimestampNs(1_999), 1_000);
        assert_eq!(window.by_hash.len(), 1);
        window.expire(TimestampNs(2_000), 1_000);
        assert!(window.by_hash.is_empty());
    }

    #[test]
    fn an_id_used_again_after_its_window_is_kept_for_the_second_window() {
        let mut window = DedupWindow::default();
        let id = IdHash::of(7, b"order-1");
        window.insert(id, Seq(3), TimestampNs(0));
        window.insert(id, Seq(9), TimestampNs(1_500));
        window.expire(TimestampNs(1_600), 1_000);
        assert_eq!(window.get(id, TimestampNs(1_600), 1_000), Some(Seq(9)));
    }

    #[test]
    fn saved_entries_come_back() {
        let mut window = DedupWindow::default();
        for n in 0..100u64 {
            window.insert(
                IdHash::of(1, &n.to_le_bytes()),
                Seq(n + 1),
                TimestampNs(n as i64),
            );
        }
        let (bytes, youngest) = window.take_unsaved().expect("entries");
        assert_eq!(youngest, TimestampNs(99));
        assert!(window.take_unsaved().is_none());
        let mut copy = DedupWindow::default();
        assert!(copy.load(&bytes));
        for n in 0..100u64 {
            let id = IdHash::of(1, &n.to_le_bytes());
            assert_eq!(copy.get(id, TimestampNs(99), 1_000), Some(Seq(n + 1)));
        }
        assert!(!DedupWindow::default().load(&bytes[..bytes.len() - 1]));
    }
}
