//! A run merged from the runs of several sealed files, of one stream.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::file_index::IndexPlace;
use crate::cache::FileKey;
use crate::format::file_header::FileKind;
use crate::ids::Lsn;
use crate::index::{Run, RunError, RunIdentity, RunManifest};

/// What is known of a merged run without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MergedRunInfo {
    pub manifest: RunManifest,
    /// How often its messages were merged; the runs of sealed files have level 0.
    pub level: u8,
    /// First and last sequence that it answers for.
    pub first: u64,
    pub last: u64,
    pub keys: u64,
    pub postings: u64,
    /// It does not know messages whose removal the log holds up to here.
    pub lsn: Lsn,
}

/// A merged run; opened on first use.
pub(crate) struct MergedRun {
    info: MergedRunInfo,
    place: IndexPlace,
    opened: RwLock<Option<Arc<Run>>>,
    /// Serialises opening; protects nothing else.
    opening: Mutex<()>,
}

impl std::ops::Deref for MergedRun {
    type Target = MergedRunInfo;

    fn deref(&self) -> &MergedRunInfo {
        &self.info
    }
}

impl std::fmt::Debug for MergedRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MergedRun").field(&self.info).finish()
    }
}

impl MergedRun {
    pub fn new(info: MergedRunInfo, place: IndexPlace) -> MergedRun {
        MergedRun {
            info,
            place,
            opened: RwLock::new(None),
            opening: Mutex::new(()),
        }
    }

    /// The open run. One that is missing or damaged is to be dropped: it is derived.
    pub fn open(&self) -> Result<Arc<Run>, RunError> {
        if let Some(run) = self.current() {
            return Ok(run);
        }
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = self.current() {
            return Ok(run);
        }
        let IndexPlace {
            env,
            store_uuid,
            path,
            cache,
        } = &self.place;
        let wanted = RunIdentity::Exactly(self.info.manifest);
        let run = Arc::new(Run::open(env, path, *store_uuid, &wanted, cache.clone())?);
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(run.clone());
        Ok(run)
    }

    fn current(&self) -> Option<Arc<Run>> {
        self.opened
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for MergedRun {
    fn drop(&mut self) {
        // An open file keeps its space.
        let key = FileKey::new(FileKind::Index, self.info.manifest.id.0);
        self.place.cache.forget_file(key);
    }
}
