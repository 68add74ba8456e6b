//! Counters of the commit path.

use std::sync::atomic::{AtomicU64, Ordering};

use super::queue::Class;

/// Buckets of [`CommitCounts::sync_buckets`].
pub const SYNC_BUCKETS: usize = 24;

/// Counters that only rise, except `log_used_bytes`. Read them with [`CommitMetrics::counts`].
#[derive(Debug, Default)]
pub struct CommitMetrics {
    append_ops: AtomicU64,
    append_bytes: AtomicU64,
    control_ops: AtomicU64,
    control_bytes: AtomicU64,
    frames: AtomicU64,
    frame_bytes: AtomicU64,
    syncs: AtomicU64,
    sync_ns: AtomicU64,
    sync_ns_max: AtomicU64,
    sync_buckets: [AtomicU64; SYNC_BUCKETS],
    log_used_bytes: AtomicU64,
    log_stalls: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitCounts {
    /// Ops enqueued as [`Class::Append`].
    pub append_ops: u64,
    /// Their encoded bytes.
    pub append_bytes: u64,
    /// Ops enqueued as [`Class::Control`].
    pub control_ops: u64,
    /// Their encoded bytes.
    pub control_bytes: u64,
    /// Frames made durable.
    pub frames: u64,
    /// Their bytes, heads included.
    pub frame_bytes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Time spent in them, in nanoseconds.
    pub sync_ns: u64,
    /// The slowest one, in nanoseconds.
    pub sync_ns_max: u64,
    /// Syncs by duration: bucket `i` counts those below `2^i` microseconds that no lower bucket
    /// counts; the last one takes the rest.
    pub sync_buckets: [u64; SYNC_BUCKETS],
    /// Bytes of the log that are not released yet.
    pub log_used_bytes: u64,
    /// How often the committer had to wait for log space with ops in hand.
    pub log_stalls: u64,
}

impl CommitMetrics {
    pub(super) fn count_enqueued(&self, class: Class, ops: u32, bytes: u64) {
        let (op_counter, byte_counter) = match class {
            Class::Append => (&self.append_ops, &self.append_bytes),
            Class::Control => (&self.control_ops, &self.control_bytes),
        };
        op_counter.fetch_add(u64::from(ops), Ordering::Relaxed);
        byte_counter.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_commit(&self, frame_bytes: u64, sync_ns: u64) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.frame_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_ns.fetch_add(sync_ns, Ordering::Relaxed);
        self.sync_ns_max.fetch_max(sync_ns, Ordering::Relaxed);
        let bucket = (64 - (sync_ns / 1000).leading_zeros() as usize).min(SYNC_BUCKETS - 1);
        self.sync_buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_stall(&self) {
        self.log_stalls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_log_used(&self, bytes: u64) {
        self.log_used_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of the log that are not released yet: the store checkpoints when they pass half of the
    /// log's limit.
    pub fn log_used_bytes(&self) -> u64 {
        self.log_used_bytes.load(Ordering::Relaxed)
    }

    /// All counters. They are read one after the other, so they may differ by what happens
    /// meanwhile.
    pub fn counts(&self) -> CommitCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CommitCounts {
            append_ops: read(&self.append_ops),
            append_bytes: read(&self.append_bytes),
            control_ops: read(&self.control_ops),
            control_bytes: read(&self.control_bytes),
            frames: read(&self.frames),
            frame_bytes: read(&self.frame_bytes),
            syncs: read(&self.syncs),
            sync_ns: read(&self.sync_ns),
            sync_ns_max: read(&self.sync_ns_max),
            sync_buckets: self.sync_buckets.each_ref().map(read),
            log_used_bytes: read(&self.log_used_bytes),
            log_stalls: read(&self.log_stalls),
        }
    }
}
