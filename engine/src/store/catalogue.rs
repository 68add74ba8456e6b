//! The streams of a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Storage;
use crate::ids::{Lsn, StreamId};
use crate::stream::core::StreamCore;

/// Streams by name, and what was deleted since the last checkpoint.
///
/// A creation or deletion is logged and entered under one hold of the lock: whoever reads the
/// catalogue after a log position sees every stream whose creation lies before it.
#[derive(Default)]
pub(crate) struct Catalogue {
    inner: Mutex<Inner>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub by_name: BTreeMap<String, Arc<StreamCore>>,
    /// Names of streams that are being restored.
    pub reserved: BTreeSet<String>,
    pub deleted: Vec<(StreamId, Lsn)>,
    pub next_stream_id: u64,
}

impl Inner {
    /// Whether no other stream may have this name.
    pub fn is_taken(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.reserved.contains(name)
    }
}

impl Catalogue {
    pub fn new(next_stream_id: u64) -> Catalogue {
        let inner = Inner {
            next_stream_id,
            ..Inner::default()
        };
        Catalogue {
            inner: Mutex::new(inner),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of this name.
    pub fn get(&self, name: &str) -> Option<Arc<StreamCore>> {
        self.lock().by_name.get(name).cloned()
    }

    /// All streams, in name order.
    pub fn all(&self) -> Vec<Arc<StreamCore>> {
        self.lock().by_name.values().cloned().collect()
    }

    /// All streams with a log, in name order.
    pub fn file_streams(&self) -> Vec<Arc<StreamCore>> {
        let inner = self.lock();
        inner
            .by_name
            .values()
            .filter(|core| core.storage == Storage::File)
            .cloned()
            .collect()
    }

    /// Deletions that no checkpoint holds.
    pub fn deleted(&self) -> Vec<(StreamId, Lsn)> {
        self.lock().deleted.clone()
    }

    /// Drops deletions that a checkpoint holds now.
    pub fn forget_deleted(&self, done: &[(StreamId, Lsn)]) {
        self.lock().deleted.retain(|entry| !done.contains(entry));
    }

    /// The id the next stream gets.
    pub fn next_stream_id(&self) -> u64 {
        self.lock().next_stream_id
    }
}
