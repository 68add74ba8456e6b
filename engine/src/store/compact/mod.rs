//! Gives the space of removed messages back, and keeps the number of files low.
//!
//! Maintenance runs compaction in steps, so that a checkpoint never waits for more than one. A look
//! at the files costs RAM and time but no I/O, and happens only after something changed: an idle
//! store writes nothing.
//!
//! What is due, in this order:
//!
//! 1. files in which nothing is live are removed, without copying anything;
//! 2. where more than a third of the length of a stream's large files, or of all other files
//!    together, is dead, the dirtiest are rewritten;
//! 3. eight small neighbours of about the same size are merged.
//!
//! A job that fails is given up and its files are removed; nothing else notices.

mod erase;
mod install;
mod job;
mod measure;
mod output_index;
mod pace;
mod policy;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use install::{Wait, install};
use job::{Failure, Job};
use measure::{Facts, measure};
use pace::Pace;
use policy::Pick;

use super::checkpoint::Checkpointer;
use super::error::CheckpointError;
use super::options::CompactionOptions;
use super::shared::StoreShared;
use crate::ids::SegmentId;

/// Bytes read in one step.
const STEP_BYTES: u64 = 4 << 20;
/// After a failure, and while there is no disk space, the next attempt waits this long.
const RETRY_NS: i64 = 10_000_000_000;
/// Time between two looks at the files; a longer look is followed by a longer pause.
const LOOK_NS: i64 = 1_000_000_000;
/// The pause after a look is at least this many times as long as the look.
const LOOK_PAUSE: i64 = 20;

/// When compaction wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// When something changes.
    Idle,
    /// At a time, in nanoseconds since the epoch.
    At(i64),
    /// At once.
    Now,
}

/// How much a step cares about other work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// Keeps to the rate, and pauses between looks and after failures.
    Background,
    /// Keeps to the rate; for the caller of a store without threads.
    Manual,
    /// As fast as it goes.
    Full,
}

/// The first file that has another key than new files have, if all of them are to be rewritten.
fn rekeyed(store: &Checkpointer, usable: &[Facts]) -> Option<SegmentId> {
    let shared = &store.shared;
    if !shared.rekey.segments.load(Ordering::Acquire) {
        return None;
    }
    let current = shared.env.current_key();
    let has_other_key = |id: SegmentId| {
        let listed = store.files.get(id);
        listed.is_some_and(|listed| listed.file.segment.key_id() != current)
    };
    let found = usable.iter().find(|file| has_other_key(file.id));
    if found.is_none() {
        shared.rekey.segments.store(false, Ordering::Release);
    }
    found.map(|file| file.id)
}

/// Performs compaction; owned by maintenance.
pub(super) struct Compactor {
    options: CompactionOptions,
    /// Space that a job leaves free: the log must be able to go on.
    reserve_bytes: u64,
    pace: Pace,
    job: Option<Job>,
    /// Damaged files. They stay as they are, so that reports of what is lost stay exact.
    damaged: BTreeSet<SegmentId>,
    /// Files whose merge would not lower the number of files.
    unmergeable: BTreeSet<SegmentId>,
    erasures: erase::Progress,
    look_at_ns: i64,
    retry_at_ns: i64,
}

impl Compactor {
    pub fn new(shared: &StoreShared, options: CompactionOptions, reserve_bytes: u64) -> Compactor {
        shared.space.change();
        Compactor {
            options,
            reserve_bytes,
            pace: Pace::new(options.bytes_per_second_max, shared.env.clock.now_ns()),
            job: None,
            damaged: BTreeSet::new(),
            unmergeable: BTreeSet::new(),
            erasures: erase::Progress::default(),
            look_at_ns: i64::MIN,
            retry_at_ns: i64::MIN,
        }
    }

    /// Does one step, if one is due and allowed. An error other than that the store stopped is
    /// returned only with full effort.
    pub fn step(
        &mut self,
        store: &mut Checkpointer,
        effort: Effort,
        wait: Wait<'_>,
    ) -> Result<Next, CheckpointError> {
        let now = store.shared.env.clock.now_ns();
        match self.try_step(store, effort, now, wait) {
            Ok(next) => Ok(next),
            Err(CheckpointError::Stopped(stopped)) => {
                self.abandon(store);
                Err(CheckpointError::Stopped(stopped))
            }
            Err(error) => {
                self.abandon(store);
                let space = &store.shared.space;
                space.compactions_failed.fetch_add(1, Ordering::Relaxed);
                space.change();
                self.retry_at_ns = now.saturating_add(RETRY_NS);
                if effort == Effort::Full {
                    return Err(error);
                }
                tracing::warn!(%error, "compaction failed and is tried again later");
                Ok(Next::At(self.retry_at_ns))
            }
        }
    }

    fn try_step(
        &mut self,
        store: &mut Checkpointer,
        effort: Effort,
        now: i64,
        wait: Wait<'_>,
    ) -> Result<Next, CheckpointError> {
        store.files.unlink();
        let (next, erasure_at) = self.erase(store, now, wait)?;
        if let Some(next) = next {
            return Ok(next);
        }
        let next = self.compact(store, effort, now, wait)?;
        Ok(match (next, erasure_at) {
            (Next::Idle, Some(at)) => Next::At(at),
            (Next::At(next), Some(at)) => Next::At(next.min(at)),
            (next, _) => next,
        })
    }

    /// Does one step of compaction that no deadline asks for.
    fn compact(
        &mut self,
        store: &mut Checkpointer,
        effort: Effort,
        now: i64,
        wait: Wait<'_>,
    ) -> Result<Next, CheckpointError> {
        if self.job.is_none() {
            if effort != Effort::Full && now < self.retry_at_ns {
                return Ok(Next::At(self.retry_at_ns));
            }
            if !store.shared.space.is_changed() && effort != Effort::Full {
                return Ok(Next::Idle);
            }
            if effort == Effort::Background && now < self.look_at_ns {
                return Ok(Next::At(self.look_at_ns));
            }
            if self.look(store, effort, wait)? {
                store.shared.space.change();
                return Ok(Next::Now);
            }
            if self.job.is_none() {
                let failed = self.retry_at_ns > now && store.shared.space.is_changed();
                return Ok(if failed {
                    Next::At(self.retry_at_ns)
                } else {
                    Next::Idle
                });
            }
        }
        if effort != Effort::Full
            && let Some(at) = self.pace.next_at(now)
        {
            return Ok(Next::At(at));
        }
        self.advance(store, wait)?;
        Ok(Next::Now)
    }

    /// Looks at the files: removes dead ones, or begins a job. True if it did all there was to do.
    fn look(
        &mut self,
        store: &mut Checkpointer,
        effort: Effort,
        wait: Wait<'_>,
    ) -> Result<bool, CheckpointError> {
        let clock = store.shared.env.clock.clone();
        let begun = clock.now_ns();
        store.shared.space.begin_look();
        let streams = store.catalogue.file_streams();
        let files = measure(&store.files, &streams);
        self.report(store, &files);
        let ended = clock.now_ns();
        let took = ended.saturating_sub(begun).max(0);
        let pause = LOOK_NS.max(took.saturating_mul(LOOK_PAUSE));
        self.look_at_ns = ended.saturating_add(pause);
        if let Some(Pick::Dead(dead)) = policy::dead(&files) {
            install(store, &dead, &[], wait)?;
            store.files.unlink();
            let space = &store.shared.space;
            let count = dead.len() as u64;
            space.files_dead.fetch_add(count, Ordering::Relaxed);
            return Ok(true);
        }
        if self.options.bytes_per_second_max == 0 && effort != Effort::Full {
            return Ok(false);
        }
        let usable = files.into_iter();
        let usable: Vec<Facts> = usable.filter(|f| !self.damaged.contains(&f.id)).collect();
        let live_of = |inputs: &[SegmentId]| -> u64 {
            let inputs = usable.iter().filter(|file| inputs.contains(&file.id));
            inputs.map(Facts::live_file_bytes).sum()
        };
        let output_bytes_max = self.options.output_bytes_max;
        let plan = |store: &Checkpointer, inputs: &[SegmentId]| {
            Job::plan(store, inputs, &streams, output_bytes_max)
        };
        let picked = policy::pick(usable.clone(), &self.unmergeable, &self.options);
        let (inputs, job) = match picked {
            // What other files have to be rewritten for anyway comes first.
            None => match rekeyed(store, &usable) {
                Some(id) => (vec![id], plan(store, &[id])),
                None => return Ok(false),
            },
            Some(Pick::Dead(_)) => return Ok(false),
            Some(Pick::Dirty(mut inputs)) => {
                let mut job = plan(store, &inputs);
                if job.outputs_min() * 2 > inputs.len() {
                    // Neighbours that do not end up in one file are better left alone.
                    inputs.truncate(1);
                    job = plan(store, &inputs);
                }
                (inputs, job)
            }
            Some(Pick::Small(inputs)) => {
                let job = plan(store, &inputs);
                let outputs = live_of(&inputs) / output_bytes_max.max(1);
                if job.outputs_min().max(outputs as usize + 1) * 2 > inputs.len() {
                    self.unmergeable.extend(inputs);
                    // Others may still be merged.
                    return Ok(true);
                }
                (inputs, job)
            }
        };
        let needed = live_of(&inputs).saturating_add(self.reserve_bytes);
        let free = store.shared.env.io.free_bytes(&store.layout.seg_dir());
        let free = free.map_err(|error| CheckpointError::from_io(store.layout.seg_dir(), error))?;
        if free < needed {
            store.shared.space.change();
            self.retry_at_ns = begun.saturating_add(RETRY_NS);
            return Ok(false);
        }
        self.job = Some(job);
        Ok(false)
    }

    fn report(&self, store: &Checkpointer, files: &[Facts]) {
        let space = &store.shared.space;
        let sum = |of: &dyn Fn(&Facts) -> u64| files.iter().map(of).sum::<u64>();
        space.files.store(files.len() as u64, Ordering::Relaxed);
        let sealed = sum(&|file| file.file_bytes);
        space.sealed_bytes.store(sealed, Ordering::Relaxed);
        let live = sum(&Facts::live_file_bytes);
        space.live_bytes.store(live, Ordering::Relaxed);
    }

    /// One step of the job at hand.
    fn advance(&mut self, store: &mut Checkpointer, wait: Wait<'_>) -> Result<(), CheckpointError> {
        let Some(job) = &mut self.job else {
            return Ok(());
        };
        let before = (job.bytes_read, job.bytes_written);
        let stepped = job.step(store, STEP_BYTES);
        let (read, written) = (job.bytes_read - before.0, job.bytes_written - before.1);
        let space = &store.shared.space;
        space.bytes_read.fetch_add(read, Ordering::Relaxed);
        space.bytes_written.fetch_add(written, Ordering::Relaxed);
        self.pace.spend(read + written);
        match stepped {
            Ok(false) => Ok(()),
            Ok(true) => self.complete(store, wait),
            Err(Failure::Failed(error)) => Err(error),
            Err(Failure::Damaged(id, what)) => {
                let file = store.layout.segment(id);
                tracing::warn!(file = %file.display(), what, "a damaged file is not compacted");
                self.damaged.insert(id);
                self.abandon(store);
                store.shared.space.change();
                Ok(())
            }
        }
    }

    fn complete(
        &mut self,
        store: &mut Checkpointer,
        wait: Wait<'_>,
    ) -> Result<(), CheckpointError> {
        let Some(job) = self.job.take() else {
            return Ok(());
        };
        let inputs: BTreeSet<SegmentId> = job.inputs.keys().copied().collect();
        let installed = install(store, &inputs, &job.outputs, wait);
        let erased = job.erases.clone();
        // Whoever holds a file keeps it on disk.
        drop(job);
        installed?;
        for erased in erased {
            self.note_clean(store, erased);
        }
        store.files.unlink();
        // There may be more to do, and it is known that something changed.
        self.look_at_ns = i64::MIN;
        self.unmergeable.clear();
        self.damaged.retain(|id| store.files.get(*id).is_some());
        let space = &store.shared.space;
        space.compactions.fetch_add(1, Ordering::Relaxed);
        let count = inputs.len() as u64;
        space.files_replaced.fetch_add(count, Ordering::Relaxed);
        space.change();
        Ok(())
    }

    /// A checkpoint added files.
    pub fn files_changed(&mut self, shared: &StoreShared) {
        self.unmergeable.clear();
        shared.space.change();
    }

    /// Gives up what is under way, and the space it takes; false if nothing was.
    pub fn abandon(&mut self, store: &mut Checkpointer) -> bool {
        match self.job.take() {
            Some(job) => {
                job.abandon(store);
                store.shared.space.change();
                true
            }
            None => false,
        }
    }
}
