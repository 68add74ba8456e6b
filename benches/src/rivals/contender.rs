//! What a contender can be asked to do.

use std::fmt::Display;
use std::path::Path;

use crate::error::{BenchError, BenchResult};

/// Bytes of a payload.
pub const PAYLOAD_BYTES: usize = 256;
/// RAM that a contender may use for caching, in bytes, where it can be told.
pub const CACHE_BYTES: u64 = 64 << 20;

/// A crate and how it is driven.
pub struct Rival {
    /// Name of the crate.
    pub name: &'static str,
    /// The call that makes an append durable.
    pub durable_by: &'static str,
    /// Opens or creates a store.
    pub open: fn(&Path) -> BenchResult<Box<dyn Contender>>,
    /// Whether [`Contender::read_all`] works on a store that is open.
    pub reads_all: bool,
    /// Whether [`Contender::get`] works.
    pub reads_by_number: bool,
    /// Whether [`Contender::put_keys`] and [`Contender::get_key`] work.
    pub has_keys: bool,
    /// What it cannot do, in words; empty when it does everything.
    pub cannot: &'static str,
}

/// An open store.
pub trait Contender: Send + Sync {
    /// Appends a payload to lane `lane` and returns when it is on disk. Lanes are only used where
    /// one sequence cannot have several writers.
    fn append(&self, lane: u64, payload: &[u8]) -> BenchResult<()>;

    /// Appends payloads to lane 0 and returns when all are on disk.
    fn append_batch(&self, payloads: &[Vec<u8>]) -> BenchResult<()>;

    /// Hands every payload of lane 0 to `visit`, in the order in which they were appended.
    fn read_all(&self, visit: &mut dyn FnMut(&[u8]) -> BenchResult<()>) -> BenchResult<()> {
        let _ = visit;
        Err(BenchError::Failed("cannot read while open".into()))
    }

    /// Payload number `n` of lane 0, from 0.
    fn get(&self, n: u64) -> BenchResult<Option<Vec<u8>>> {
        let _ = n;
        Err(BenchError::Failed("cannot read by number".into()))
    }

    /// Stores values under keys and returns when all are on disk.
    fn put_keys(&self, values: &[(String, Vec<u8>)]) -> BenchResult<()> {
        let _ = values;
        Err(BenchError::Failed("has no keys".into()))
    }

    /// The newest value of a key.
    fn get_key(&self, key: &str) -> BenchResult<Option<Vec<u8>>> {
        let _ = key;
        Err(BenchError::Failed("has no keys".into()))
    }

    /// How many payloads of lane 0 were there when the store was opened, read and checked on the
    /// way; for stores that can only be read then.
    fn checked_at_open(&self) -> Option<u64> {
        None
    }
}

/// Turns an error of another crate into one of ours.
pub fn foreign(error: impl Display) -> BenchError {
    BenchError::Failed(error.to_string())
}
