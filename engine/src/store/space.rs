//! How the space of sealed files is used, as maintenance last saw it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Space and compaction counters; see [`crate::Store::space`]. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceStatus {
    /// Sealed files.
    pub files: u64,
    /// Their length.
    pub sealed_bytes: u64,
    /// The share of it that live messages have.
    pub live_bytes: u64,
    /// The share that removed messages still have.
    pub dead_bytes: u64,
    /// Compactions that were completed.
    pub compactions: u64,
    /// Compactions that were given up; they are tried again.
    pub compactions_failed: u64,
    /// Files that compactions replaced.
    pub files_replaced: u64,
    /// Files removed because nothing in them was live.
    pub files_dead: u64,
    /// Read by compactions.
    pub compaction_bytes_read: u64,
    /// Written by compactions.
    pub compaction_bytes_written: u64,
}

/// The live counters, and the mark that something changed since the last look.
#[derive(Debug, Default)]
pub(crate) struct SpaceMetrics {
    changed: AtomicBool,
    pub files: AtomicU64,
    pub sealed_bytes: AtomicU64,
    pub live_bytes: AtomicU64,
    pub compactions: AtomicU64,
    pub compactions_failed: AtomicU64,
    pub files_replaced: AtomicU64,
    pub files_dead: AtomicU64,
    pub bytes_read: AtomicU64,
    pub bytes_written: AtomicU64,
}

impl SpaceMetrics {
    /// Notes that there may be something to compact; true if that is news.
    pub fn change(&self) -> bool {
        // The load spares all but the first of many removals the write.
        !self.changed.load(Ordering::Relaxed) && !self.changed.swap(true, Ordering::AcqRel)
    }

    pub fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    /// Before a look: what changes from here on is seen by the next one.
    pub fn begin_look(&self) {
        self.changed.store(false, Ordering::Release);
    }

    pub fn status(&self) -> SpaceStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (sealed_bytes, live_bytes) = (read(&self.sealed_bytes), read(&self.live_bytes));
        SpaceStatus {
            files: read(&self.files),
            sealed_bytes,
            live_bytes,
            dead_bytes: sealed_bytes.saturating_sub(live_bytes),
            compactions: read(&self.compactions),
            compactions_failed: read(&self.compactions_failed),
            files_replaced: read(&self.files_replaced),
            files_dead: read(&self.files_dead),
            compaction_bytes_read: read(&self.bytes_read),
            compaction_bytes_written: read(&self.bytes_written),
        }
    }
}
