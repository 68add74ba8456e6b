//! What readers and consumers of one stream may see.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::{Seq, StreamId};

/// The durable end of a stream. Readers show nothing above it; only the committer raises it, after
/// the sync that made the sequences durable.
#[derive(Debug)]
pub struct StreamGate {
    id: StreamId,
    durable_seq: AtomicU64,
    /// Where the batch under construction notes this stream: batch number (upper 32 bits) and index
    /// (lower 32 bits). A hint, checked before use, written under the queue's lock only.
    touched_hint: AtomicU64,
}

impl StreamGate {
    /// A gate for a stream whose messages up to `durable_seq` are durable.
    pub fn new(id: StreamId, durable_seq: Seq) -> Arc<StreamGate> {
        Arc::new(StreamGate {
            id,
            durable_seq: AtomicU64::new(durable_seq.0),
            touched_hint: AtomicU64::new(u64::MAX),
        })
    }

    /// The stream.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The last sequence that may be shown.
    pub fn durable_seq(&self) -> Seq {
        Seq(self.durable_seq.load(Ordering::Acquire))
    }

    /// Opens the gate up to `seq`; it never closes again.
    pub(crate) fn raise(&self, seq: Seq) {
        self.durable_seq.fetch_max(seq.0, Ordering::AcqRel);
    }

    pub(super) fn hint(&self) -> u64 {
        self.touched_hint.load(Ordering::Relaxed)
    }

    pub(super) fn set_hint(&self, hint: u64) {
        self.touched_hint.store(hint, Ordering::Relaxed);
    }
}
