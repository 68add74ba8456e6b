//! Hashes of message ids.

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use crate::ids::StreamId;

/// Hash of a stream and one of its message ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IdHash(pub u128);

/// How a stream hashes its ids.
///
/// The seed is the stream's own and goes with its ids, so that they keep their meaning where they are
/// restored; by default it comes from the store's identity, so that collisions cannot be prepared
/// elsewhere. The mask keeps the ids of streams apart that have the same seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdKey {
    seed: u64,
    mask: u128,
}

impl IdKey {
    /// The key of a stream that hashes with `seed`.
    pub fn new(store_seed: u64, stream: StreamId, seed: u64) -> IdKey {
        IdKey {
            seed,
            mask: xxh3_128_with_seed(&stream.0.to_le_bytes(), store_seed),
        }
    }

    /// The seed of a stream that was created in this store.
    pub fn default_seed(store_seed: u64, stream: StreamId) -> u64 {
        xxh3_64_with_seed(&stream.0.to_le_bytes(), store_seed)
    }

    /// What the hashes of a stream differ by from those of another one with the same seed.
    pub fn mask(self) -> u128 {
        self.mask
    }

    /// Hashes an id.
    pub fn hash(self, id: &[u8]) -> IdHash {
        IdHash(xxh3_128_with_seed(id, self.seed) ^ self.mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_id_differs_from_stream_to_stream() {
        let key = |stream, seed| IdKey::new(7, StreamId(stream), seed);
        let id = b"order-1";
        assert_eq!(key(1, 5).hash(id), key(1, 5).hash(id));
        assert_ne!(key(1, 5).hash(id), key(2, 5).hash(id));
        assert_ne!(key(1, 5).hash(id), key(1, 6).hash(id));
        assert_ne!(key(1, 5).hash(id), key(1, 5).hash(b"order-2"));
        assert_ne!(
            IdKey::default_seed(7, StreamId(1)),
            IdKey::default_seed(7, StreamId(2))
        );
    }
}
