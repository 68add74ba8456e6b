//! A stream's share of a sealed file.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::error::ReadError;
use crate::ids::SegmentId;
use crate::index::MemoryRun as Run;
use crate::segment::Segment;

/// A sealed data file with its subjects.
#[derive(Debug)]
pub(crate) struct SealedFile {
    pub id: SegmentId,
    pub segment: Segment,
    run: OnceLock<Arc<Run>>,
    /// Serialises building the run; protects nothing else.
    building: Mutex<()>,
}

impl SealedFile {
    pub fn new(segment: Segment) -> SealedFile {
        SealedFile {
            id: segment.manifest().id,
            segment,
            run: OnceLock::new(),
            building: Mutex::new(()),
        }
    }

    /// The subjects of the file: derived from the data, never stored beside it (I9).
    pub fn run(&self) -> Result<Arc<Run>, ReadError> {
        if let Some(run) = self.run.get() {
            return Ok(run.clone());
        }
        let _one_builder = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = self.run.get() {
            return Ok(run.clone());
        }
        let run = Arc::new(Run::build(&self.segment)?);
        Ok(self.run.get_or_init(|| run).clone())
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
    pub file: Arc<SealedFile>,
}
