//! Blocked Bloom filter: says of most absent keys that they are absent, never of a present one.
//!
//! The filter is a sequence of lines of 64 bytes, one cache line each. A key is a 64-bit hash. Its
//! line is `(hash >> 32) * lines >> 32`; in that line it sets six bits, bit `i` being
//! `(hash * 0x9e3779b97f4a7c15 mod 2^64) >> (10 + 9 * i) mod 512`. Bit `b` of a line is bit
//! `b mod 8` of its byte `b / 8`.
//!
//! On disk, pages of 63 lines follow one another; only the last may be shorter. No page means no
//! filter, which excludes nothing.
//!
//! Since a line is chosen by the high bits of the hash, a filter of `n * f` lines becomes one of
//! `n` lines by joining each `f` neighbours: a filter sized for too many keys shrinks to fit.

use super::FormatError;
use super::page::PAYLOAD_BYTES_MAX;

/// Bytes of a line.
pub const LINE_BYTES: usize = 64;
/// Lines of a full page.
pub const PAGE_LINES: usize = PAYLOAD_BYTES_MAX / LINE_BYTES;
/// Bits that a filter is given for each key: about one absent key in 200 passes.
pub const BITS_PER_KEY: u64 = 12;
/// Bits that each key sets.
const PROBES: u32 = 6;
const BITS_PER_LINE: u64 = 8 * LINE_BYTES as u64;
const WORDS: usize = LINE_BYTES / 8;
/// Odd, so that hashes are mapped one to one.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(64))]
struct Line([u64; WORDS]);

/// A set of key hashes with false positives. Without lines it may contain everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bloom {
    lines: Vec<Line>,
}

/// Lines for `keys` keys, at least one.
fn lines_for(keys: u64) -> u64 {
    keys.saturating_mul(BITS_PER_KEY)
        .div_ceil(BITS_PER_LINE)
        .clamp(1, u64::from(u32::MAX))
}

impl Bloom {
    /// An empty set for at most `keys` keys; more make it less selective. Allocates 1.5 bytes per
    /// key.
    pub fn with_capacity(keys: u64) -> Bloom {
        let lines = lines_for(keys);
        // A multiple of a power of two that is at most a sixteenth of it, so that it can shrink.
        let step = (lines / 16).max(1).next_power_of_two();
        let lines = lines.next_multiple_of(step).min(u64::from(u32::MAX));
        Bloom {
            lines: vec![Line::default(); usize::try_from(lines).unwrap_or(usize::MAX)],
        }
    }

    /// True when there are no lines: nothing is excluded.
    pub fn is_absent(&self) -> bool {
        self.lines.is_empty()
    }

    /// RAM held, in bytes.
    pub fn ram_bytes(&self) -> u64 {
        (self.lines.len() * LINE_BYTES) as u64
    }

    /// Adds a key.
    pub fn insert(&mut self, hash: u64) {
        let at = self.line_of(hash);
        if let Some(Line(words)) = self.lines.get_mut(at) {
            for (word, mask) in probes(hash) {
                words[word] |= mask;
            }
        }
    }

    /// False only if the key was never added.
    pub fn maybe_contains(&self, hash: u64) -> bool {
        match self.lines.get(self.line_of(hash)) {
            Some(Line(words)) => probes(hash).all(|(word, mask)| words[word] & mask != 0),
            None => self.lines.is_empty(),
        }
    }

    /// Gives back what a filter of `keys` keys does not need; the set stays the same.
    pub fn shrink_to(&mut self, keys: u64) {
        let wanted = usize::try_from(lines_for(keys)).unwrap_or(usize::MAX);
        let mut factor = 1;
        while self.lines.len().is_multiple_of(2 * factor)
            && self.lines.len() / (2 * factor) >= wanted
        {
            factor *= 2;
        }
        if factor == 1 {
            return;
        }
        let join = |lines: &[Line]| {
            let mut joined = Line::default();
            for line in lines {
                for (into, from) in joined.0.iter_mut().zip(line.0) {
                    *into |= from;
                }
            }
            joined
        };
        self.lines = self.lines.chunks(factor).map(join).collect();
    }

    /// The payloads of its pages, in order.
    pub fn pages(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.lines.chunks(PAGE_LINES).map(|lines| {
            let words = lines.iter().flat_map(|line| line.0);
            words.flat_map(u64::to_le_bytes).collect()
        })
    }

    /// Adds the lines of the next page, while a filter is read.
    ///
    /// # Errors
    ///
    /// If the page before was not full, or this one does not consist of lines.
    pub fn push_page(&mut self, payload: &[u8]) -> Result<(), FormatError> {
        let (lines, rest) = payload.as_chunks::<LINE_BYTES>();
        let fits = self.lines.len().is_multiple_of(PAGE_LINES)
            && rest.is_empty()
            && (1..=PAGE_LINES).contains(&lines.len())
            && u32::try_from(self.lines.len() + lines.len()).is_ok();
        if !fits {
            return Err(FormatError::OutOfRange {
                what: "filter page",
            });
        }
        self.lines.extend(lines.iter().map(|bytes| {
            let mut line = Line::default();
            for (word, bytes) in line.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            line
        }));
        Ok(())
    }

    fn line_of(&self, hash: u64) -> usize {
        // Below the number of lines, which fits 32 bits.
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }
}

/// Word and bit of each probe.
fn probes(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let mixed = hash.wrapping_mul(MULTIPLIER);
    (0..PROBES).map(move |i| {
        let bit = (mixed >> (10 + 9 * i)) % BITS_PER_LINE;
        ((bit / 64) as usize, 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn hashes(seed: u64, count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |n| xxh3_64(&[seed.to_le_bytes(), n.to_le_bytes()].concat()))
    }

    fn filter_of(capacity: u64, seed: u64, count: u64) -> Bloom {
        let mut bloom = Bloom::with_capacity(capacity);
        hashes(seed, count).for_each(|hash| bloom.insert(hash));
        bloom
    }

    fn reread(bloom: &Bloom) -> Bloom {
        let mut read = Bloom::default();
        for page in bloom.pages() {
            assert!(page.len() <= PAYLOAD_BYTES_MAX);
            read.push_page(&page).expect("a page of a filter");
        }
        read
    }

    #[test]
    fn few_absent_keys_pass() {
        for count in [100, 1_000, 50_000] {
            let mut bloom = filter_of(count, 1, count);
            let passed = |bloom: &Bloom| {
                let absent = hashes(2, 100_000);
                absent.filter(|hash| bloom.maybe_contains(*hash)).count()
            };
            assert!(passed(&bloom) < 1_000, "{count}: {}", passed(&bloom));
            bloom = filter_of(9 * count, 1, count);
            bloom.shrink_to(count);
            assert!(passed(&bloom) < 1_000, "{count}: {}", passed(&bloom));
        }
    }

    #[test]
    fn shrinking_gives_back_what_was_not_needed() {
        let mut bloom = filter_of(80_000, 1, 10_000);
        let before = bloom.ram_bytes();
        bloom.shrink_to(10_000);
        assert!(bloom.ram_bytes() <= before / 8, "{}", bloom.ram_bytes());
        assert!(bloom.ram_bytes() >= 10_000 * BITS_PER_KEY / 8);
    }

    #[test]
    fn without_lines_nothing_is_excluded() {
        let mut none = Bloom::default();
        none.insert(1);
        assert!(none.is_absent() && none.maybe_contains(1) && none.maybe_contains(u64::MAX));
        assert!(!Bloom::with_capacity(0).maybe_contains(1));
    }

    #[test]
    fn pages_that_are_no_filter_are_refused() {
        for len in [0, 1, 63, 65, PAYLOAD_BYTES_MAX] {
            assert!(Bloom::default().push_page(&vec![0; len]).is_err(), "{len}");
        }
        let mut bloom = Bloom::default();
        assert!(bloom.push_page(&[0; 2 * LINE_BYTES]).is_ok());
        assert!(
            bloom.push_page(&[0; LINE_BYTES]).is_err(),
            "behind a short page"
        );
    }

    #[test]
    fn bits_are_where_the_format_says() {
        let hash = 0x8000_0000_1234_5678_u64;
        let mut bloom = Bloom {
            lines: vec![Line::default(); 4],
        };
        bloom.insert(hash);
        let page = bloom.pages().next().expect("a page");
        let mut expected = vec![0_u8; 4 * LINE_BYTES];
        for i in 0..6 {
            let bit = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (10 + 9 * i)) as usize % 512;
            expected[2 * 64 + bit / 8] |= 1 << (bit % 8);
        }
        assert_eq!(page, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_present_key_is_never_excluded(
            hashes in proptest::collection::vec(any::<u64>(), 0..400),
            capacity in 0..20_000_u64,
            shrunk in 0..500_u64,
        ) {
            let mut bloom = Bloom::with_capacity(capacity);
            hashes.iter().for_each(|hash| bloom.insert(*hash));
            prop_assert!(hashes.iter().all(|hash| bloom.maybe_contains(*hash)));
            bloom.shrink_to(shrunk);
            prop_assert!(hashes.iter().all(|hash| bloom.maybe_contains(*hash)));
            prop_assert_eq!(reread(&bloom), bloom);
        }

        #[test]
        fn arbitrary_pages_never_panic(
            pages in proptest::collection::vec((0..70_usize, 0..3_usize, any::<u8>()), 0..4),
            hash: u64,
        ) {
            let mut bloom = Bloom::default();
            for (lines, more, byte) in pages {
                let _ = bloom.push_page(&vec![byte; lines * LINE_BYTES + more]);
            }
            let _ = bloom.maybe_contains(hash);
        }
    }
}
