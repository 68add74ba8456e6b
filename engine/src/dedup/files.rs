//! The files of ids of a store, and how admission asks them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::IdHash;
use super::file::IdFile;
use crate::error::ReadError;
use crate::ids::{IdFileId, Seq, StreamId, TimestampNs};

/// What the files of one moment know of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdAnswer {
    /// Which moment: see [`IdFiles::epoch`].
    pub epoch: u64,
    /// The newest use of the id, expired or not.
    pub found: Option<(Seq, TimestampNs)>,
}

/// The files of one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdFileSet {
    epoch: u64,
    files: Vec<Arc<IdFile>>,
}

/// Every file of ids of a store.
///
/// A file is entered before the streams drop the ids in it from RAM, and a stream's lock lies between
/// the two: whoever, under that lock, finds an id neither in RAM nor in an answer whose epoch is the
/// present one, knows that it is new.
#[derive(Debug, Default)]
pub(crate) struct IdFiles {
    current: RwLock<Arc<IdFileSet>>,
    /// The epoch of `current`.
    epoch: AtomicU64,
    /// Sum of all nanoseconds by which windows were made longer.
    grown_ns: AtomicU64,
}

impl IdFiles {
    /// The number of the present set of files.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn current(&self) -> Arc<IdFileSet> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// All files.
    pub fn list(&self) -> Vec<Arc<IdFile>> {
        self.current().files.clone()
    }

    /// Enters and removes files, as one step.
    pub fn replace(&self, add: impl IntoIterator<Item = Arc<IdFile>>, remove: &[IdFileId]) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let kept = current.files.iter().filter(|f| !remove.contains(&f.id()));
        let files = kept.cloned().chain(add).collect();
        let epoch = current.epoch + 1;
        *current = Arc::new(IdFileSet { epoch, files });
        self.epoch.store(epoch, Ordering::Release);
    }

    /// What RAM says of an id: an answer if the filters exclude it from every file. Probes one cache
    /// line for each file.
    pub fn probe(&self, hash: IdHash) -> Option<IdAnswer> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let excluded = |file: &Arc<IdFile>| file.maybe_contains(hash.0) == Some(false);
        current.files.iter().all(excluded).then_some(IdAnswer {
            epoch: current.epoch,
            found: None,
        })
    }

    /// Looks an id up; reads files. `None` when the files changed meanwhile: ask again.
    ///
    /// # Errors
    ///
    /// If the id may be in a file that cannot be read.
    pub fn lookup(&self, stream: StreamId, hash: IdHash) -> Result<Option<IdAnswer>, ReadError> {
        let set = self.current();
        let mut found: Option<(Seq, TimestampNs)> = None;
        for file in &set.files {
            match file.find(hash.0) {
                Ok(Some(entry)) if entry.stream == stream => {
                    found = found.max(Some((entry.seq, entry.ts)));
                }
                Ok(_) => {}
                // It may have been removed since.
                Err(_) if self.epoch() != set.epoch => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(IdAnswer {
            epoch: set.epoch,
            found,
        }))
    }

    /// Some stream's window was made longer by `grown_ns`: what it holds stays known for longer. Called
    /// before any checkpoint can see the new window.
    pub fn window_grew(&self, grown_ns: u64) {
        if grown_ns == 0 {
            return;
        }
        // Before the files are listed: a file that is entered later compares this number.
        self.grown_ns.fetch_add(grown_ns, Ordering::AcqRel);
        for file in self.list() {
            file.extend(grown_ns);
        }
    }

    /// By how much windows have grown so far.
    pub fn grown_ns(&self) -> u64 {
        self.grown_ns.load(Ordering::Acquire)
    }
}
