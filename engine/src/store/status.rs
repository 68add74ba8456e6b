//! A store's resources at one moment.

use crate::error::Stopped;

/// What a store holds in RAM against its budgets, and whether it accepts appends. The numbers are
/// read one after the other, so they may differ by what happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStatus {
    /// Streams.
    pub streams: usize,
    /// Bytes of messages that are in the log but in no sealed file yet.
    pub tail_bytes: u64,
    /// Their budget: [`crate::StoreOptions::tail_bytes_max`].
    pub tail_bytes_max: u64,
    /// Bytes of blocks and index pages kept for readers.
    pub cache_bytes: u64,
    /// Bytes of operations that wait for their sync.
    pub queue_bytes: u64,
    /// Bytes of the log that a start would replay.
    pub log_bytes: u64,
    /// The disk is full: appends are refused, reads, acknowledgements and deletes go on.
    pub out_of_space: bool,
    /// Why nothing is acknowledged any more, if so.
    pub stopped: Option<Stopped>,
}
