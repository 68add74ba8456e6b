//! Options of a store.

use std::sync::Arc;
use std::time::Duration;

use crate::format::key_ring::KeyRing;
use crate::io::Env;
use crate::wal::WalOptions;

/// Who runs the store's background work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// Two threads of the store: the committer and maintenance.
    #[default]
    Background,
    /// The caller, with [`crate::Store::step`]; for simulation and single-threaded embedding.
    Manual,
}

/// How space is given back. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionOptions {
    /// Bytes that compaction reads and writes per second at most. 0 turns it off: only files in
    /// which nothing is live any more are removed then. Default 64 MiB.
    pub bytes_per_second_max: u64,
    /// A compacted file holds about this much, more only for a single larger message.
    /// Default 64 MiB.
    pub output_bytes_max: u64,
    /// Sealed files below this are small: eight of about the same size are merged.
    /// Default 8 MiB.
    pub small_file_bytes: u64,
    /// So much dead data in small and shared files is not worth compacting. Default 1 MiB.
    pub slack_bytes: u64,
}

impl Default for CompactionOptions {
    fn default() -> CompactionOptions {
        CompactionOptions {
            bytes_per_second_max: 64 << 20,
            output_bytes_max: 64 << 20,
            small_file_bytes: 8 << 20,
            slack_bytes: 1 << 20,
        }
    }
}

/// Budgets and modes. Budgets are in bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Write-ahead log.
    pub wal: WalOptions,
    /// RAM for messages that are in the log but in no sealed file yet. Default 64 MiB.
    pub tail_bytes_max: u64,
    /// RAM for blocks and index pages read from sealed files. Default 64 MiB.
    pub cache_bytes_max: u64,
    /// Sealed files kept open. Default 512.
    pub open_files_max: u32,
    /// RAM for operations on their way to the log. Default 8 MiB.
    pub queue_bytes_max: u64,
    /// Compaction of sealed files.
    pub compaction: CompactionOptions,
    /// Neighbouring index runs of a stream that are merged into one. At least 2; default 8. Fewer
    /// mean quicker lookups and more writing.
    pub index_merge_parts: u32,
    /// Sequences that neighbouring index runs of a stream must span to be merged; smaller ones are
    /// merged when they are very many. Default 4,096.
    pub index_merge_span_min: u64,
    /// Open although acknowledged data in the log is damaged: exactly the damaged operations are
    /// given up and listed in the report. Default off.
    pub salvage: bool,
    /// Who runs the background work.
    pub threads: Threads,
    /// Encryption at rest: every file that is begun from now on is encrypted with the ring's current
    /// key (AES-256-GCM); files of its other keys, and plain ones, stay readable. Default none.
    ///
    /// What is encrypted: messages with their subjects, headers and ids, names and configurations,
    /// indexes. What stays readable: sizes, sequences, timestamps, how many messages and streams
    /// there are. Each part of a file is authenticated where it belongs, so nobody without the
    /// key can change or move one unnoticed; that a whole file was replaced by an older
    /// copy of itself, or the end of the log cut off, encryption does not notice.
    ///
    /// A store that was opened with a key once does not open without it. Losing the key loses the
    /// data. To rotate, see [`KeyRing`]; [`crate::Store::keys_in_use`] says which keys are still
    /// needed.
    pub encryption: Option<KeyRing>,
    /// Every sealed byte is read and checked once in this time, in the background. Default 14 days;
    /// zero turns it off.
    pub scrub_period: Duration,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            wal: WalOptions::default(),
            tail_bytes_max: 64 << 20,
            cache_bytes_max: 64 << 20,
            open_files_max: 512,
            queue_bytes_max: 8 << 20,
            compaction: CompactionOptions::default(),
            index_merge_parts: 8,
            index_merge_span_min: 4096,
            salvage: false,
            threads: Threads::default(),
            encryption: None,
            scrub_period: Duration::from_secs(14 * 24 * 3600),
        }
    }
}

impl StoreOptions {
    /// The environment of a store with these options.
    pub(super) fn env(&self, mut env: Env) -> Env {
        if let Some(keys) = &self.encryption {
            env.keys = Some(Arc::new(keys.clone()));
        }
        env
    }
}
