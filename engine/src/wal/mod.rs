//! The write-ahead log: one for the whole store, one sync for everybody who waits.
//!
//! Callers encode ops into the [`queue`]; the [`committer`] writes them frame by frame with the
//! [`writer`], syncs, and opens the streams' [`gate`]s; after a restart, [`recover`](mod@recover)
//! hands the ops back in order. FORMAT.md has the bytes.
//!
//! Invariants: nothing is acknowledged before its frame was synced (I1); `durable_lsn` never moves
//! back and lsns have no gaps (I3); a file is reused only after the store said that its ops are
//! durable elsewhere (I7); after a failed write or sync nothing is acknowledged any more (I15).

mod batch;
pub mod committer;
pub mod gate;
pub(crate) mod log_file;
pub mod metrics;
pub mod queue;
pub mod recover;
pub mod writer;

pub use committer::{Committer, Step};
pub use gate::StreamGate;
pub use queue::{Class, CommitQueue, DurableBatch, EnqueueError, QueueOptions};
pub use recover::{RecoverError, WalRecovered, recover};
pub use writer::Wal;

/// Size of the log.
#[derive(Clone, Copy, Debug)]
pub struct WalOptions {
    /// Bytes of one preallocated log file. A frame that does not fit into one gets a larger file.
    pub file_bytes: u64,
    /// Files the log may have, at least 2; with `file_bytes` the most disk space it takes.
    pub files_max: u32,
    /// Bytes of log space that appends leave to acknowledgements, deletes and metadata.
    pub control_reserve_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions {
            file_bytes: 64 << 20,
            files_max: 16,
            control_reserve_bytes: 4 << 20,
        }
    }
}

#[cfg(test)]
mod tests;
