//! A stream's share of a sealed file.

use std::sync::{Arc, OnceLock, Weak};

use super::due::ExtentTimers;
use super::file_index::{FileIndex, IndexPlace, OpenedIndex};
use crate::error::{Corrupt, ReadError};
use crate::ids::{SegmentId, StreamId};
use crate::index::{AnyRun, Run};
use crate::segment::{ExtentInfo, Segment};
use crate::store::shared::StoreShared;

/// A sealed data file with its subjects.
pub(crate) struct SealedFile {
    pub id: SegmentId,
    pub segment: Segment,
    index: FileIndex,
    /// Whom to wake when the last reader is gone; set when the file is about to be unlinked.
    waiting: OnceLock<Weak<StoreShared>>,
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        if let Some(shared) = self.waiting.get().and_then(Weak::upgrade) {
            shared.wake.ask();
        }
    }
}

impl std::fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedFile")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl SealedFile {
    pub fn new(segment: Segment, index: IndexPlace) -> SealedFile {
        SealedFile {
            id: segment.manifest().id,
            segment,
            index: FileIndex::new(index),
            waiting: OnceLock::new(),
        }
    }

    /// Wakes maintenance when nobody holds the file any more.
    pub fn wake_when_dropped(&self, shared: &Arc<StoreShared>) {
        // A second call changes nothing: it is the same store.
        let _ = self.waiting.set(Arc::downgrade(shared));
    }

    /// Ranges of a stream that are damaged and missing in the index.
    pub fn lost(&self, stream: StreamId) -> Result<Vec<Corrupt>, ReadError> {
        self.index.lost(&self.segment, stream)
    }

    /// Makes the index anew, whatever there is.
    pub fn rebuild_index(&self) -> Result<(), ReadError> {
        self.index.rebuild_now(&self.segment)
    }

    /// Rebuilds the index if something is missing in it.
    pub fn look_again(&self) -> Result<(), ReadError> {
        self.index.look_again(&self.segment)
    }

    /// The subjects of the file, made anew from its blocks if need be.
    pub fn index(&self) -> Result<Arc<OpenedIndex>, ReadError> {
        self.index.open(&self.segment)
    }

    /// The file's own run if it is there and whole; nothing is made anew.
    pub fn ready_index(&self) -> Option<Arc<Run>> {
        self.index.ready(&self.segment)
    }

    /// Rebuilds the index that `damaged` came from, unless somebody did so meanwhile.
    pub fn replace_index(&self, damaged: Option<&AnyRun>) -> Result<(), ReadError> {
        self.index.replace(&self.segment, damaged)
    }

    /// Removes the index: merged runs answer in its place.
    pub fn discard_index(&self) -> std::io::Result<()> {
        self.index.discard()
    }
}

/// Consecutive sequences of one stream in a sealed file.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub first: u64,
    pub last: u64,
    pub msgs: u64,
    pub bytes: u64,
    pub first_ts: i64,
    pub last_ts: i64,
    pub timers: Arc<ExtentTimers>,
    pub file: Arc<SealedFile>,
}

impl Extent {
    /// What a file holds of a stream, just sealed.
    pub fn sealed(info: &ExtentInfo, file: &Arc<SealedFile>) -> Extent {
        Extent {
            first: info.first_seq.0,
            last: info.last_seq.0,
            msgs: info.msgs,
            bytes: info.bytes,
            first_ts: info.first_ts.0,
            last_ts: info.last_ts.0,
            timers: Arc::new(ExtentTimers::new(info.first_expiry, info.first_notice)),
            file: file.clone(),
        }
    }
}
