//! What ties the bytes of a sealed file to that file.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::file_header::FileKind;

/// Seed of every checksum in one sealed file, made of what it holds, its store and its number.
///
/// It is not stored: bytes that belong to another file, or to another store, never pass. Since file
/// numbers are never reused it also rejects what an earlier file left behind on the same disk
/// space. Checksums additionally cover the position inside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity(u64);

impl FileIdentity {
    /// The identity of file number `file_no` of its kind in a store.
    pub fn new(kind: FileKind, store_uuid: u128, file_no: u64) -> FileIdentity {
        let mut bytes = [0_u8; 25];
        bytes[0] = kind as u8;
        bytes[1..17].copy_from_slice(&store_uuid.to_le_bytes());
        bytes[17..25].copy_from_slice(&file_no.to_le_bytes());
        FileIdentity(xxh3_64(&bytes))
    }

    /// XXH3-64 of `bytes`, seeded with this identity and `position`, a number that says where in
    /// the file the bytes belong.
    pub fn digest(self, position: u64, bytes: &[u8]) -> u64 {
        // An odd multiplier maps positions one to one, so two positions never share a seed.
        let seed = self.0 ^ position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        xxh3_64_with_seed(bytes, seed)
    }
}
