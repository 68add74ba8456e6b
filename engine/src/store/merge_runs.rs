//! Merges the index runs of a stream in the background.
//!
//! Neighbouring parts of a stream's index are merged eight to one, level by level, so that a
//! question about subjects goes to a few runs whatever the number of sealed files. A merge works in
//! short steps between more urgent work. Its output is written, synced, its directory entry synced,
//! and then named by one metadata commit that also leaves out the runs it replaces; only after that
//! are they removed. A crash at any point leaves files that the next start removes. What is dropped
//! because its removal is only in the log is dropped for good once the run is named, so the commit
//! waits until the log has it on disk, and the run says up to where that was.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::catalogue::Catalogue;
use super::checkpoint::Checkpointer;
use super::error::CheckpointError;
use super::key_use::header;
use super::keys::{self, kind};
use super::layout::Layout;
use super::shared::StoreShared;
use super::stored::encode_runs;
use crate::cache::FileKey;
use crate::format::file_header::FileKind;
use crate::ids::{Lsn, SegmentId, Seq, StreamId};
use crate::index::{
    AnyRun, Merge, MergeError, MergeInput, MergeScope, Run, RunManifest, RunSource, RunWriter,
    SealedRun,
};
use crate::meta::MetaBatch;
use crate::stream::core::StreamCore;
use crate::stream::extent::{Extent, SealedFile};
use crate::stream::file_index::IndexPlace;
use crate::stream::index_part::{IndexPart, PartFailure, PartSource};
use crate::stream::merged_run::{MergedRun, MergedRunInfo};

/// So many times the parts of one level that are merged at a time are merged however few messages
/// they hold.
const PARTS_ALWAYS: usize = 8;
/// Keys and postings handled in one step: some tens of milliseconds.
const STEP: usize = 1 << 16;
/// A run with more postings, and few subjects among them, is merged no further: its subjects take
/// little room and are found quickly, and copying its postings would gain nothing.
const USEFUL_POSTINGS_MAX: u64 = 4 << 20;
const USEFUL_KEYS_SHARE: u64 = 8;
/// Subjects too long for key pages are held in RAM while a run is written; more bytes of them are
/// not merged.
pub(super) const LONG_KEY_BYTES_MAX: u64 = 16 << 20;

type Wait<'w> = dyn FnMut(Lsn) -> Result<(), CheckpointError> + 'w;

/// Merges index runs; owned by whoever does maintenance.
pub(super) struct RunMerger {
    shared: Arc<StoreShared>,
    catalogue: Arc<Catalogue>,
    layout: Layout,
    job: Option<Job>,
    /// Merged runs that the metadata log may name.
    stored: BTreeMap<StreamId, BTreeSet<SegmentId>>,
    /// Merged runs that it names no more.
    dead: Vec<SegmentId>,
    /// Sealed files whose own runs may be superfluous.
    covered: Vec<Arc<SealedFile>>,
    /// Sources that cannot be merged; asked again after the next checkpoint.
    refused: BTreeSet<SegmentId>,
}

/// A merge under way.
struct Job {
    core: Arc<StreamCore>,
    id: SegmentId,
    level: u8,
    parts: Vec<IndexPart>,
    merge: Merge,
}

impl RunMerger {
    pub fn new(shared: Arc<StoreShared>, catalogue: Arc<Catalogue>, layout: Layout) -> RunMerger {
        RunMerger {
            shared,
            catalogue,
            layout,
            job: None,
            stored: BTreeMap::new(),
            dead: Vec::new(),
            covered: Vec::new(),
            refused: BTreeSet::new(),
        }
    }

    /// Registers a run found at start.
    pub fn adopt(&mut self, stream: StreamId, run: SegmentId) {
        self.stored.entry(stream).or_default().insert(run);
    }

    /// Does a little of what there is to do; true if there is more.
    pub fn step(
        &mut self,
        checkpointer: &mut Checkpointer,
        wait: &mut Wait<'_>,
    ) -> Result<bool, CheckpointError> {
        self.remove_dead();
        self.discard_covered();
        if self.shared.out_of_space.load(Ordering::Relaxed) {
            // What it holds already is worth more elsewhere.
            self.dead.extend(self.job.take().map(|job| job.id));
            self.remove_dead();
            return Ok(false);
        }
        if self.job.is_some() {
            return self.advance(checkpointer, wait).map(|()| true);
        }
        if self.shared.rekey.runs.swap(false, Ordering::AcqRel) {
            self.drop_rekeyed();
        }
        if !self.shared.index_work.swap(false, Ordering::AcqRel) {
            return Ok(false);
        }
        self.refused.clear();
        let written = self.write_lists(checkpointer);
        if written.is_err() {
            self.shared.index_work.store(true, Ordering::Release);
        }
        written?;
        Ok(self.begin(checkpointer))
    }

    /// Drops merged runs that have another key than new files have.
    fn drop_rekeyed(&self) {
        let current = self.shared.env.current_key();
        for core in self.catalogue.file_streams() {
            let runs = core.lock().runs.clone();
            for run in runs.iter() {
                match header(&self.shared.env, &self.layout.index(run.manifest.id)) {
                    Ok(Some(header)) if header.key == current => {}
                    Ok(_) => core.drop_run(run),
                    Err(error) => {
                        tracing::warn!(run = run.manifest.id.0, %error, "cannot read an index run");
                    }
                }
            }
        }
    }

    /// Looks for runs to merge and begins; false if there is nothing to merge.
    fn begin(&mut self, checkpointer: &mut Checkpointer) -> bool {
        for core in self.catalogue.file_streams() {
            loop {
                let parts = core.lock().index_parts.clone();
                let Some((range, level)) = self.candidate(&core, &parts) else {
                    break;
                };
                let parts = &parts[range];
                // What was refused just now is no candidate any more.
                let Some(inputs) = self.open_inputs(&core, parts) else {
                    continue;
                };
                let id = checkpointer.next_segment();
                match self.start(&core, id, parts, inputs) {
                    Ok(merge) => {
                        self.job = Some(Job {
                            core,
                            id,
                            level: level + 1,
                            parts: parts.to_vec(),
                            merge,
                        });
                        return true;
                    }
                    Err(error) => {
                        self.failed(&core, parts, id, error);
                        self.refused.extend(parts.iter().map(source_id));
                    }
                }
            }
        }
        false
    }

    fn candidate(&self, core: &StreamCore, parts: &[IndexPart]) -> Option<(Range<usize>, u8)> {
        let levels: Vec<Option<u8>> = {
            let data = core.lock();
            let level = |part: &IndexPart| {
                // What is dead leaves with the next checkpoint.
                let is_live = data.live_in(part.first, part.last) > 0;
                let takes_part = is_live && !self.refused.contains(&source_id(part));
                level_of(part).filter(|_| takes_part)
            };
            parts.iter().map(level).collect()
        };
        let span_min = self.shared.index_merge_span_min;
        let is_large = |range: &Range<usize>| {
            let parts = parts.get(range.clone()).unwrap_or_default();
            let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
                return false;
            };
            last.last.saturating_sub(first.first) >= span_min
        };
        candidate(&levels, self.shared.index_merge_parts, &is_large)
    }

    /// The runs of parts; `None` if one of them cannot take part, which is then noted.
    fn open_inputs(&mut self, core: &StreamCore, parts: &[IndexPart]) -> Option<Vec<Arc<Run>>> {
        let mut runs = Vec::with_capacity(parts.len());
        let mut long_key_bytes = 0;
        for part in parts {
            let whole = match &part.source {
                // An index that misses messages of a damaged file must be able to get better.
                PartSource::File(file) => file.index().is_ok_and(|index| !index.is_partial()),
                PartSource::Merged(_) => true,
            };
            match part.open() {
                Ok(AnyRun::File(run)) if whole => {
                    long_key_bytes += run.long_key_bytes_max();
                    runs.push(run);
                }
                Err(PartFailure::Run(..)) => {
                    drop_merged(core, part);
                    self.refused.insert(source_id(part));
                    return None;
                }
                Ok(_) | Err(PartFailure::Read(_)) => {
                    self.refused.insert(source_id(part));
                    return None;
                }
            }
        }
        if long_key_bytes > LONG_KEY_BYTES_MAX {
            self.refused.extend(parts.iter().map(source_id));
            return None;
        }
        Some(runs)
    }

    fn start(
        &self,
        core: &StreamCore,
        id: SegmentId,
        parts: &[IndexPart],
        runs: Vec<Arc<Run>>,
    ) -> Result<Merge, MergeError> {
        let keys = runs.iter().zip(parts).map(|(run, part)| {
            // A shared file also knows other streams' subjects.
            run.keys().min(part.last - part.first + 1)
        });
        let keys_max = keys.sum();
        let inputs = runs.into_iter().zip(parts).map(|(run, part)| MergeInput {
            run,
            scope: Some(MergeScope {
                stream: core.id,
                first: Seq(part.first),
                last: Seq(part.last),
            }),
        });
        let (env, path) = (&self.shared.env, self.layout.index(id));
        let source = RunSource::Merged(id);
        let writer = RunWriter::new(env, &path, self.shared.uuid, source, keys_max)?;
        Merge::new(inputs.collect(), writer)
    }

    fn advance(
        &mut self,
        checkpointer: &mut Checkpointer,
        wait: &mut Wait<'_>,
    ) -> Result<(), CheckpointError> {
        let Some(mut job) = self.job.take() else {
            return Ok(());
        };
        let core = job.core.clone();
        if core.lock().deleted {
            self.dead.push(job.id);
            return Ok(());
        }
        let advanced = job.merge.advance(STEP, &mut |_, postings| {
            let data = core.lock();
            postings.retain(|(seq, _)| data.is_live(seq.0));
        });
        match advanced {
            Ok(false) => {
                self.job = Some(job);
                Ok(())
            }
            Ok(true) => self.complete(job, checkpointer, wait),
            Err(error) => {
                self.failed(&core, &job.parts, job.id, error);
                Ok(())
            }
        }
    }

    /// A merge failed: its output is removed. A damaged input is replaced by what it was made from,
    /// and the merge tried again after that or after the next checkpoint.
    fn failed(&mut self, core: &StreamCore, parts: &[IndexPart], id: SegmentId, error: MergeError) {
        tracing::warn!(stream = %core.name, %error, "index runs were not merged");
        self.dead.push(id);
        if let MergeError::Input(number, _) = error
            && let Some(part) = parts.get(number)
        {
            match &part.source {
                PartSource::Merged(_) => drop_merged(core, part),
                PartSource::File(file) => {
                    // If it cannot be mended now, the next merge fails as this one.
                    let run = part.open().ok();
                    let _ = file.replace_index(run.as_ref());
                }
            }
        }
    }

    /// Makes a finished merge durable and current.
    fn complete(
        &mut self,
        job: Job,
        checkpointer: &mut Checkpointer,
        wait: &mut Wait<'_>,
    ) -> Result<(), CheckpointError> {
        let Job {
            core,
            id,
            level,
            parts,
            merge,
        } = job;
        let idx_dir = self.layout.idx_dir();
        let sealed = merge.finish();
        let sealed = sealed.and_then(|sealed| {
            self.shared.env.io.sync_dir(&idx_dir)?;
            Ok(sealed)
        });
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(error) => {
                self.failed(&core, &parts, id, MergeError::Output(error));
                return Ok(());
            }
        };
        let lsn = self.shared.queue.assigned_lsn();
        if let Err(error) = wait(lsn) {
            self.dead.push(id);
            return Err(error);
        }
        let run = Arc::new(self.merged_run(id, level, &parts, &sealed, lsn));
        let list = with_run(&core.lock().runs, &run);
        let stored = self.stored.entry(core.id).or_default();
        // On disk it may be named even if the commit fails.
        stored.insert(id);
        let mut batch = MetaBatch::default();
        batch.put(
            &keys::stream_value(core.id, kind::RUNS),
            &encode_runs(&list),
        );
        if let Err(error) = checkpointer.commit(&batch) {
            core.lock().runs_dirty = true;
            self.shared.index_work.store(true, Ordering::Release);
            return Err(error);
        }
        let named: BTreeSet<SegmentId> = list.iter().map(|run| run.manifest.id).collect();
        self.dead.extend(stored.difference(&named));
        *stored = named;
        {
            let mut data = core.lock();
            // Somebody may have dropped a damaged one meanwhile.
            let list = with_run(&data.runs, &run);
            data.set_runs(list);
        }
        self.covered
            .extend(parts.iter().filter_map(|part| match &part.source {
                PartSource::File(file) => Some(file.clone()),
                PartSource::Merged(_) => None,
            }));
        self.shared.index_work.store(true, Ordering::Release);
        tracing::debug!(stream = %core.name, level, keys = sealed.keys, "index runs were merged");
        Ok(())
    }

    fn merged_run(
        &self,
        id: SegmentId,
        level: u8,
        parts: &[IndexPart],
        sealed: &SealedRun,
        lsn: Lsn,
    ) -> MergedRun {
        let info = MergedRunInfo {
            manifest: RunManifest {
                id,
                file_bytes: sealed.file_bytes,
                footer_digest: sealed.footer_digest,
            },
            level,
            first: parts.first().map_or(0, |part| part.first),
            last: parts.last().map_or(0, |part| part.last),
            keys: sealed.keys,
            postings: sealed.postings,
            lsn,
        };
        open_run(&self.shared, &self.layout, info)
    }

    /// Writes the lists of merged runs that changed: a run was damaged, or the files whose messages it
    /// knows are gone.
    fn write_lists(&mut self, checkpointer: &mut Checkpointer) -> Result<(), CheckpointError> {
        let mut batch = MetaBatch::default();
        let mut changed = Vec::new();
        for core in self.catalogue.file_streams() {
            let mut data = core.lock();
            let runs = data.runs.clone();
            for run in runs.iter() {
                let covers = |e: &Extent| e.first <= run.last && e.last >= run.first;
                if !data.extents.iter().any(covers) {
                    data.drop_run(run);
                }
            }
            if data.runs_dirty {
                data.runs_dirty = false;
                let key = keys::stream_value(core.id, kind::RUNS);
                match data.runs.is_empty() {
                    true => batch.delete(&key),
                    false => batch.put(&key, &encode_runs(&data.runs)),
                }
                let named = data.runs.iter().map(|run| run.manifest.id).collect();
                drop(data);
                changed.push((core, named));
            }
        }
        if !changed.is_empty()
            && let Err(error) = checkpointer.commit(&batch)
        {
            for (core, _) in changed {
                core.lock().runs_dirty = true;
            }
            return Err(error);
        }
        for (core, named) in changed {
            let stored = self.stored.entry(core.id).or_default();
            self.dead.extend(stored.difference(&named));
            *stored = named;
        }
        // A deleted stream's list leaves the metadata with the stream.
        let dead = &mut self.dead;
        self.stored.retain(|stream, runs| {
            let is_named = checkpointer.names_runs_of(*stream);
            if !is_named {
                dead.extend(runs.iter());
            }
            is_named
        });
        Ok(())
    }

    /// Removes files that no commit names. One that cannot be removed is tried again.
    fn remove_dead(&mut self) {
        let (io, layout, cache) = (&self.shared.env.io, &self.layout, &self.shared.cache);
        self.dead.retain(|id| {
            cache.forget_file(FileKey::new(FileKind::Index, id.0));
            match io.remove(&layout.index(*id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(run = id.0, %error, "cannot remove a dead index run");
                    true
                }
                _ => false,
            }
        });
    }

    /// Removes the runs of sealed files that merged ones cover, for all streams of the file.
    fn discard_covered(&mut self) {
        if self.covered.is_empty() {
            return;
        }
        let mut covered = std::mem::take(&mut self.covered);
        for core in self.catalogue.file_streams() {
            let parts = core.lock().index_parts.clone();
            let asks = |file: &Arc<SealedFile>| {
                parts.iter().any(|part| match &part.source {
                    PartSource::File(own) => Arc::ptr_eq(own, file),
                    PartSource::Merged(_) => false,
                })
            };
            covered.retain(|file| !asks(file));
        }
        for file in covered {
            if let Err(error) = file.discard_index() {
                tracing::warn!(segment = file.id.0, %error, "cannot remove an index run");
            }
        }
    }
}

fn drop_merged(core: &StreamCore, part: &IndexPart) {
    if let PartSource::Merged(run) = &part.source {
        core.lock().drop_run(run);
        core.shared.index_work.store(true, Ordering::Release);
    }
}

/// The list with a new run in place of those that it covers.
fn with_run(runs: &[Arc<MergedRun>], new: &Arc<MergedRun>) -> Vec<Arc<MergedRun>> {
    let kept = runs
        .iter()
        .filter(|run| run.first < new.first || run.last > new.last);
    let mut list: Vec<_> = kept.chain([new]).cloned().collect();
    list.sort_by_key(|run| run.first);
    list
}

/// Number of the file that a part is answered from.
fn source_id(part: &IndexPart) -> SegmentId {
    match &part.source {
        PartSource::File(file) => file.id,
        PartSource::Merged(run) => run.manifest.id,
    }
}

/// Level of a part; `None` where merging it further is of no use.
fn level_of(part: &IndexPart) -> Option<u8> {
    match &part.source {
        PartSource::File(_) => Some(0),
        PartSource::Merged(run) => {
            let few_keys = run.keys < run.postings / USEFUL_KEYS_SHARE;
            let is_done = run.postings > USEFUL_POSTINGS_MAX && few_keys;
            (!is_done && run.level < u8::MAX).then_some(run.level)
        }
    }
}

/// Neighbouring parts to merge, and their level: the first `parts` of the lowest level that has as
/// many without a higher one, or one that cannot be merged, in between; more if these are not large.
fn candidate(
    levels: &[Option<u8>],
    parts: usize,
    is_large: &dyn Fn(&Range<usize>) -> bool,
) -> Option<(Range<usize>, u8)> {
    let mut present: Vec<u8> = levels.iter().flatten().copied().collect();
    present.sort_unstable();
    present.dedup();
    for level in present {
        let mut found: Vec<usize> = Vec::new();
        for (at, other) in levels.iter().enumerate() {
            match other {
                Some(other) if *other < level => {}
                Some(other) if *other == level => found.push(at),
                _ => found.clear(),
            }
            let Some(first) = found.first().filter(|_| found.len() >= parts) else {
                continue;
            };
            let range = *first..at + 1;
            if found.len() >= parts.saturating_mul(PARTS_ALWAYS) || is_large(&range) {
                return Some((range, level));
            }
        }
    }
    None
}

/// Makes a merged run; nothing is read before its first use.
pub(super) fn open_run(shared: &StoreShared, layout: &Layout, info: MergedRunInfo) -> MergedRun {
    let place = IndexPlace {
        env: shared.env.clone(),
        store_uuid: shared.uuid,
        path: layout.index(info.manifest.id),
        cache: shared.cache.clone(),
    };
    MergedRun::new(info, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Levels as digits, `-` for a part that cannot be merged.
    fn found(levels: &str, parts: usize, large_from: usize) -> Option<(Range<usize>, u8)> {
        let level = |c: char| c.to_digit(10).map(|n| n as u8);
        let levels: Vec<_> = levels.chars().map(level).collect();
        candidate(&levels, parts, &|range| range.len() >= large_from)
    }

    #[test]
    fn the_lowest_level_with_enough_neighbours_is_merged() {
        assert_eq!(found("", 2, 0), None);
        assert_eq!(found("0", 2, 0), None);
        assert_eq!(found("000", 4, 0), None);
        assert_eq!(found("1110000", 3, 0), Some((3..6, 0)));
        assert_eq!(found("11100", 3, 0), Some((0..3, 1)));
        assert_eq!(found("2100", 2, 0), Some((2..4, 0)));
        assert_eq!(found("210", 2, 0), None);
    }

    #[test]
    fn a_lower_level_in_between_goes_along_and_others_are_borders() {
        assert_eq!(found("10101", 3, 0), Some((0..5, 1)));
        assert_eq!(found("0100", 3, 0), None);
        assert_eq!(found("00-00", 3, 0), None);
        assert_eq!(found("00-000", 3, 0), Some((3..6, 0)));
    }

    #[test]
    fn small_parts_are_merged_when_they_are_many() {
        assert_eq!(found("0000", 2, 5), None);
        assert_eq!(found("00000", 2, 5), Some((0..5, 0)));
        assert_eq!(found(&"0".repeat(15), 2, 99), None);
        assert_eq!(found(&"0".repeat(20), 2, 99), Some((0..16, 0)));
    }
}
