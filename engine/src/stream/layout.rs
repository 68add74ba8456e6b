//! Where the parts of a stream are at one moment, and what happens when one does not answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::StreamCore;
use super::extent::Extent;
use super::index_part::{IndexPart, PartFailure, PartSource};
use super::merged_run::MergedRun;
use super::state::StreamData;
use super::tail::Tail;
use crate::error::{Corrupt, ReadError};
use crate::ids::{SegmentId, Seq};
use crate::index::{AnyRun, RunError};

/// How often a question starts over because the stream changed meanwhile. Each round means that
/// somebody else made progress; past this many the caller tries again.
const ATTEMPTS_MAX: u32 = 10_000;

/// Where the parts of a stream were at one moment.
pub(super) struct Layout {
    pub extents: Arc<Vec<Extent>>,
    pub parts: Arc<Vec<IndexPart>>,
    pub frozen: Option<Arc<Tail>>,
    pub layout_epoch: u64,
    pub removal_epoch: u64,
}

/// A question to the index was not answered.
#[derive(Debug)]
pub(super) enum IndexError {
    /// There is no answer.
    Read(ReadError),
    /// The part of this number failed.
    Part(usize, PartFailure),
    /// Messages moved between tail and sealed files.
    Moved,
}

impl From<ReadError> for IndexError {
    fn from(error: ReadError) -> IndexError {
        IndexError::Read(error)
    }
}

impl StreamData {
    pub(super) fn layout(&self) -> Layout {
        Layout {
            extents: self.extents.clone(),
            parts: self.index_parts.clone(),
            frozen: self.frozen.clone(),
            layout_epoch: self.layout_epoch,
            removal_epoch: self.removal_epoch,
        }
    }

    /// As long as tails and sealed data are where `layout` says.
    pub(super) fn is_at(&self, layout: &Layout) -> Result<(), IndexError> {
        match self.layout_epoch == layout.layout_epoch {
            true => Ok(()),
            false => Err(IndexError::Moved),
        }
    }
}

impl Layout {
    /// The run of a part.
    pub fn open(&self, part: usize) -> Result<AnyRun, IndexError> {
        match self.parts.get(part) {
            Some(found) => found
                .open()
                .map_err(|failure| IndexError::Part(part, failure)),
            None => Err(IndexError::Moved),
        }
    }

    /// Asks a part.
    pub fn ask<T>(
        &self,
        part: usize,
        question: impl FnOnce(&AnyRun) -> Result<T, RunError>,
    ) -> Result<T, IndexError> {
        let run = self.open(part)?;
        question(&run).map_err(|error| failed(part, &run, error))
    }
}

/// The open run of a part failed.
pub(super) fn failed(part: usize, run: &AnyRun, error: RunError) -> IndexError {
    IndexError::Part(part, PartFailure::Run(Some(run.clone()), error))
}

impl StreamCore {
    /// Asks the stream's index. Where a part of it is missing or damaged it is replaced by what it
    /// was made from, and the question is asked again (I9).
    pub(super) fn with_index<T>(
        &self,
        question: &mut dyn FnMut(&Layout) -> Result<T, IndexError>,
    ) -> Result<T, ReadError> {
        let mut mended = Vec::new();
        for _ in 0..ATTEMPTS_MAX {
            let layout = self.lock().layout();
            match question(&layout) {
                Ok(answer) => return Ok(answer),
                Err(IndexError::Read(error)) => return Err(error),
                Err(IndexError::Moved) => {}
                Err(IndexError::Part(part, failure)) => {
                    self.mend(&layout, part, failure, &mut mended)?;
                }
            }
        }
        let error = io::Error::new(io::ErrorKind::TimedOut, "the stream changes too often");
        Err(ReadError::io(&self.shared.dir, error))
    }

    fn mend(
        &self,
        layout: &Layout,
        part: usize,
        failure: PartFailure,
        mended: &mut Vec<SegmentId>,
    ) -> Result<(), ReadError> {
        let Some(part) = layout.parts.get(part).filter(|part| self.has_part(part)) else {
            // A file that left meanwhile is no damage: ask those that came in its place.
            return Ok(());
        };
        let (opened, error) = match failure {
            PartFailure::Read(error) => return Err(error),
            PartFailure::Run(_, RunError::Io { file, source }) => {
                return Err(ReadError::Io { file, source });
            }
            PartFailure::Run(opened, error) => (opened, error),
        };
        match &part.source {
            PartSource::Merged(run) => {
                tracing::warn!(stream = %self.name, %error, "a merged index run is dropped");
                self.drop_run(run);
                Ok(())
            }
            PartSource::File(file) if mended.contains(&file.id) => {
                // A file just written is read back damaged: the device cannot be trusted with it.
                Err(ReadError::io(&self.shared.dir, io::Error::other(error)))
            }
            PartSource::File(file) => {
                tracing::warn!(%error, "rebuilding an index run from its segment");
                mended.push(file.id);
                file.replace_index(opened.as_ref())
            }
        }
    }

    /// True while the source of `part` answers for the stream.
    fn has_part(&self, part: &IndexPart) -> bool {
        let parts = self.lock().index_parts.clone();
        parts.iter().any(|listed| listed.has_source_of(part))
    }

    /// Goes on without a merged run: the runs that it was made from answer again. Maintenance
    /// removes it.
    pub(crate) fn drop_run(&self, run: &Arc<MergedRun>) {
        self.lock().drop_run(run);
        self.shared.index_work.store(true, Ordering::Release);
        self.shared.wake.ask();
    }

    /// True while the file of `extent` belongs to the stream. A file leaves when nothing in it is
    /// live any more or another one takes its place: a reader that still looks at it looks again.
    pub(super) fn has_file(&self, extent: &Extent) -> bool {
        let extents = self.lock().extents.clone();
        extents
            .iter()
            .any(|listed| Arc::ptr_eq(&listed.file, &extent.file))
    }

    /// True while what `extent` holds belongs to the stream: its file is listed, or was replaced and
    /// something in it is live. Once neither is so, nobody needs to know what is wrong with it.
    pub(super) fn lists(&self, extent: &Extent) -> bool {
        let data = self.lock();
        let mut listed = data.extents.iter().map(|listed| listed.file.id);
        listed.any(|id| id == extent.file.id) || data.live_in(extent.first, extent.last) > 0
    }

    /// Live messages of a part above `above` that damage hides from its index.
    pub(super) fn live_loss(
        &self,
        part: &IndexPart,
        above: u64,
    ) -> Result<Option<Corrupt>, IndexError> {
        let PartSource::File(file) = &part.source else {
            return Ok(None);
        };
        let lost = match file.lost(self.id) {
            Err(_) if !self.has_part(part) => return Err(IndexError::Moved),
            lost => lost?,
        };
        if lost.is_empty() {
            return Ok(None);
        }
        let data = self.lock();
        let is_live = |damage: &Corrupt| {
            let first = damage.first.0.max(part.first).max(above.saturating_add(1));
            data.live_in(first, damage.last.0.min(part.last)) > 0
        };
        Ok(lost.into_iter().find(is_live))
    }

    /// An error if live messages above `above` are missing in the index of a damaged file, also
    /// when its blocks are read again: an answer without them would be wrong (I4). True if they
    /// were found this time.
    pub(super) fn look_for_lost(&self, part: &IndexPart, above: u64) -> Result<bool, IndexError> {
        if self.live_loss(part, above)?.is_none() {
            return Ok(false);
        }
        if let PartSource::File(file) = &part.source {
            file.look_again()?;
        }
        match self.live_loss(part, above)? {
            Some(damage) => Err(ReadError::Corrupt(Box::new(damage)).into()),
            None => Ok(true),
        }
    }

    /// An error if the index does not know every live message.
    pub(super) fn check_whole(&self, layout: &Layout) -> Result<(), IndexError> {
        for part in layout.parts.iter() {
            self.look_for_lost(part, 0)?;
        }
        Ok(())
    }

    /// A live sequence that no part of the stream holds: reported, never silently absent (I4).
    pub(super) fn missing(&self, seq: u64) -> ReadError {
        ReadError::Corrupt(Box::new(Corrupt {
            stream: self.id,
            first: Seq(seq),
            last: Seq(seq),
            file: self.shared.dir.clone(),
            offset: 0,
            reason: "no segment holds this sequence".into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{IndexError, PartFailure};
    use crate::config::StreamConfig;
    use crate::error::ReadError;
    use crate::io::Env;
    use crate::io::sim::{SimClock, SimDisk};
    use crate::store::{Store, StoreOptions, Threads};
    use crate::stream::{Append, PurgeRequest, Stream};

    /// A store with a stream of three durable messages, one nanosecond apart.
    fn fixture() -> (Store, Stream) {
        let clock = SimClock::new(1_000);
        let env = Env::simulated(&SimDisk::new(1), &clock, 1);
        let options = StoreOptions {
            threads: Threads::Manual,
            ..StoreOptions::default()
        };
        let (store, _) = Store::open_in(env, Path::new("/data"), options).expect("a store");
        let config = StreamConfig {
            name: "S".into(),
            ..StreamConfig::default()
        };
        let (stream, _) = store.create_stream(config).expect("a stream");
        for n in 1..=3 {
            clock.set_ns(1_000 + n);
            let append = Append {
                subject: b"s",
                ..Append::default()
            };
            stream.append_nosync(&append).expect("accepted");
        }
        store.commit();
        (store, stream)
    }

    #[test]
    fn a_reader_that_still_looks_at_a_removed_file_finds_nothing_there() {
        let (store, stream) = fixture();
        let core = &stream.core;
        store.checkpoint().expect("sealed");
        let before = core.lock().layout();
        stream.purge(&PurgeRequest::default()).expect("purged");
        store.checkpoint().expect("the file is unlisted");
        // It stays as long as somebody looks at it.
        before.open(0).expect("still there");
        // A part that failed and is no part any more is no damage: the next look is at what is there.
        let mut rounds = 0;
        let found = core.with_index(&mut |now| {
            rounds += 1;
            match rounds {
                1 => {
                    let gone = ReadError::io("", std::io::ErrorKind::NotFound.into());
                    Err(IndexError::Part(0, PartFailure::Read(gone)))
                }
                _ => Ok(now.parts.len()),
            }
        });
        assert_eq!(found.expect("no error"), 0);
    }
}
