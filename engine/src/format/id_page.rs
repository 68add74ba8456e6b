//! Pages of message ids: entries of one size, sorted by hash.
//!
//! An entry is `hash16 stream8 seq8 ts8`. The hash covers the stream as well as the id, so that no
//! two entries of a file have the same one; as a number it is spread evenly over all 128 bits, and
//! where an entry is can be computed from it.

use super::FormatError;
use super::page::PAYLOAD_BYTES_MAX;
use crate::ids::{Seq, StreamId, TimestampNs};

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 40;
/// Entries of a full page; only the last page of a file may have fewer.
pub const PAGE_ENTRIES: usize = PAYLOAD_BYTES_MAX / ENTRY_BYTES;

/// A message id that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdEntry {
    /// Hash of stream and id.
    pub hash: u128,
    /// The stream.
    pub stream: StreamId,
    /// The sequence that the message with this id got.
    pub seq: Seq,
    /// When.
    pub ts: TimestampNs,
}

impl IdEntry {
    /// Appends the entry's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&self.stream.0.to_le_bytes());
        out.extend_from_slice(&self.seq.0.to_le_bytes());
        out.extend_from_slice(&self.ts.0.to_le_bytes());
    }

    /// Entries one behind the other, in any order.
    pub fn decode_all(bytes: &[u8]) -> Result<impl Iterator<Item = IdEntry>, FormatError> {
        match bytes.as_chunks::<ENTRY_BYTES>() {
            (entries, []) => Ok(entries.iter().map(IdEntry::decode)),
            _ => Err(FormatError::Truncated),
        }
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> IdEntry {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        IdEntry {
            hash: u128::from(number(0)) | u128::from(number(8)) << 64,
            stream: StreamId(number(16)),
            seq: Seq(number(24)),
            ts: TimestampNs(number(32) as i64),
        }
    }
}

/// The entries of a page's payload, in order.
#[derive(Clone, Copy, Debug)]
pub struct IdPage<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> IdPage<'a> {
    /// Takes a payload apart.
    ///
    /// # Errors
    ///
    /// If it does not consist of at least one entry, or the hashes do not ascend.
    pub fn decode(payload: &'a [u8]) -> Result<IdPage<'a>, FormatError> {
        let (entries, rest) = payload.as_chunks::<ENTRY_BYTES>();
        let page = IdPage { entries };
        let ascends = page.iter().is_sorted_by(|a, b| a.hash < b.hash);
        if entries.is_empty() || !rest.is_empty() || !ascends {
            return Err(FormatError::OutOfRange {
                what: "entries of message ids",
            });
        }
        Ok(page)
    }

    /// All entries.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = IdEntry> + ExactSizeIterator + 'a {
        self.entries.iter().map(IdEntry::decode)
    }

    /// Lowest and highest hash.
    pub fn range(&self) -> Option<(u128, u128)> {
        let (first, last) = (self.entries.first()?, self.entries.last()?);
        Some((IdEntry::decode(first).hash, IdEntry::decode(last).hash))
    }

    /// The entry with this hash.
    pub fn find(&self, hash: u128) -> Option<IdEntry> {
        let at = self
            .entries
            .binary_search_by_key(&hash, |bytes| IdEntry::decode(bytes).hash);
        at.ok().map(|at| IdEntry::decode(&self.entries[at]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(hash: u128) -> IdEntry {
        IdEntry {
            hash,
            stream: StreamId(hash as u64 ^ 5),
            seq: Seq(hash as u64 >> 3),
            ts: TimestampNs(-(hash as i64 >> 5)),
        }
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        for hashes in [[3, 2], [2, 2]] {
            let mut payload = Vec::new();
            for hash in hashes {
                entry(hash).encode(&mut payload);
            }
            assert!(IdPage::decode(&payload).is_err(), "{hashes:?}");
        }
        assert!(IdPage::decode(&[]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn entries_come_back(hashes in proptest::collection::btree_set(any::<u128>(), 1..=PAGE_ENTRIES)) {
            let mut payload = Vec::new();
            hashes.iter().for_each(|hash| entry(*hash).encode(&mut payload));
            let page = IdPage::decode(&payload).expect("entries");
            let expected: Vec<_> = hashes.iter().map(|hash| entry(*hash)).collect();
            prop_assert_eq!(page.iter().collect::<Vec<_>>(), expected);
            for hash in &hashes {
                prop_assert_eq!(page.find(*hash), Some(entry(*hash)));
                let next = hash.wrapping_add(1);
                prop_assert_eq!(page.find(next).is_some(), hashes.contains(&next));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, hash: u128) {
            if let Ok(page) = IdPage::decode(&bytes) {
                _ = (page.find(hash), page.range());
            }
        }
    }
}
