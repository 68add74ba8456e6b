//! Erasures: gets the bytes of removed messages off the disk by their deadlines.
//!
//! In this order, each behind the one before:
//!
//! 1. No listed file holds the message: files that may are rewritten, ahead of other compaction and
//!    without regard to its rate. Removal and erasure are one step under the stream's lock, so a copy
//!    that begins later leaves the message out, and no checkpoint writes it any more.
//! 2. Files that were replaced are unlinked, durably.
//! 3. The log's files up to the erasure are closed, released by a checkpoint, and removed instead of
//!    used again.
//! 4. The metadata forgets the erasure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::install::Wait;
use super::job::Job;
use super::{Compactor, Next};
use crate::ids::{Lsn, SegmentId, StreamId};
use crate::meta::MetaBatch;
use crate::store::checkpoint::{Checkpointer, Scope, put_erasures};
use crate::store::error::CheckpointError;
use crate::stream::core::StreamCore;
use crate::stream::erase::Pending;

/// Rewriting begins so long before the deadline. Erasures that come together cost one rewrite.
const EARLY_NS: i64 = 60_000_000_000;
/// First and longest pause while the log's files are on their way.
const POLL_NS: i64 = 20_000_000;
const POLL_NS_MAX: i64 = 10_000_000_000;
/// Files rewritten at once.
const INPUTS_MAX: usize = 16;

/// A stream and a sequence.
pub(super) type Erased = (StreamId, u64);

/// What is known about pending erasures.
#[derive(Default)]
pub(super) struct Progress {
    /// Erasures whose message no listed file holds, with files that did and were not unlinked then.
    clean: BTreeMap<Erased, BTreeSet<SegmentId>>,
    /// The log's files were last closed behind this position.
    retired: Lsn,
    /// A checkpoint has released them since.
    released: bool,
    /// Pause before the next look.
    poll_ns: i64,
}

/// A pending erasure that is due.
struct Due {
    core: Arc<StreamCore>,
    pending: Pending,
    /// The listed file that may hold the message.
    file: Option<SegmentId>,
}

impl Due {
    fn key(&self) -> Erased {
        (self.core.id, self.pending.seq)
    }
}

impl Compactor {
    /// Goes on with what is due. `None` when other work may be done; then also returns when the next
    /// erasure is due.
    pub(super) fn erase(
        &mut self,
        store: &mut Checkpointer,
        now: i64,
        wait: Wait<'_>,
    ) -> Result<(Option<Next>, Option<i64>), CheckpointError> {
        if store.shared.erasures.get() == 0 {
            self.erasures = Progress::default();
            return Ok((None, None));
        }
        let (mut due, later) = due(store, now);
        due.retain(|due| due.file.is_none_or(|file| !self.damaged.contains(&file)));
        let mut rewrite = BTreeSet::new();
        for due in &due {
            if self.erasures.clean.contains_key(&due.key()) {
                continue;
            }
            match due.file {
                Some(file) => {
                    rewrite.insert(file);
                }
                None => self.note_clean(store, due.key()),
            }
        }
        if !rewrite.is_empty() {
            return Ok((self.rewrite(store, now, &due, &rewrite, wait)?, later));
        }
        if due.is_empty() {
            return Ok((None, later));
        }
        Ok((self.clear(store, now, &due, wait)?, later))
    }

    /// Notes that no listed file holds a message.
    pub(super) fn note_clean(&mut self, store: &Checkpointer, erased: Erased) {
        let leaving = store.files.leaving().collect();
        self.erasures.clean.insert(erased, leaving);
    }

    fn rewrite(
        &mut self,
        store: &mut Checkpointer,
        now: i64,
        due: &[Due],
        files: &BTreeSet<SegmentId>,
        wait: Wait<'_>,
    ) -> Result<Option<Next>, CheckpointError> {
        if self.job.as_ref().is_some_and(|job| job.erases.is_empty()) {
            self.abandon(store);
        }
        if self.job.is_none() {
            if now < self.retry_at_ns {
                return Ok(Some(Next::At(self.retry_at_ns)));
            }
            let inputs: Vec<SegmentId> = files.iter().copied().take(INPUTS_MAX).collect();
            let streams = store.catalogue.file_streams();
            let mut job = Job::plan(store, &inputs, &streams, self.options.output_bytes_max);
            let covered = due.iter().filter(|due| {
                let file = due.file.filter(|file| inputs.contains(file));
                file.is_some()
            });
            job.erases = covered.map(Due::key).collect();
            self.job = Some(job);
        }
        self.advance(store, wait)?;
        Ok(Some(Next::Now))
    }

    /// No listed file holds a message of `due` any more: the rest.
    fn clear(
        &mut self,
        store: &mut Checkpointer,
        now: i64,
        due: &[Due],
        wait: Wait<'_>,
    ) -> Result<Option<Next>, CheckpointError> {
        store.settle_in_doubt()?;
        store.files.unlink();
        let leaving: BTreeSet<SegmentId> = store.files.leaving().collect();
        let progress = &mut self.erasures;
        let gone = |due: &&Due| {
            let files = progress.clean.get(&due.key());
            files.is_some_and(|files| files.is_disjoint(&leaving))
        };
        let due: Vec<&Due> = due.iter().filter(gone).collect();
        let Some(last) = due.iter().map(|due| due.pending.lsn).max() else {
            // Some reader still holds a file; maintenance is woken when it lets go.
            return Ok(None);
        };
        let queue = store.shared.queue.clone();
        if queue.gone_lsn() < last {
            if progress.retired < last {
                let assigned = queue.assigned_lsn();
                wait(assigned)?;
                queue.retire();
                progress.retired = assigned;
                progress.released = false;
                progress.poll_ns = POLL_NS;
            }
            // Lets the committer work, where it runs only when asked to.
            wait(queue.assigned_lsn())?;
            if queue.is_retired() && !progress.released {
                store.run(Scope::All, true, wait)?;
                progress.released = true;
                wait(queue.assigned_lsn())?;
            }
            if queue.gone_lsn() < last {
                queue.poke();
                let pause = progress.poll_ns;
                progress.poll_ns = pause.saturating_mul(2).min(POLL_NS_MAX);
                return Ok(Some(Next::At(now.saturating_add(pause))));
            }
        }
        self.finish(store, &due)?;
        Ok(Some(Next::Now))
    }

    fn finish(&mut self, store: &mut Checkpointer, due: &[&Due]) -> Result<(), CheckpointError> {
        for dir in [store.layout.seg_dir(), store.layout.idx_dir()] {
            let synced = store.shared.env.io.sync_dir(&dir);
            synced.map_err(|error| CheckpointError::from_io(dir, error))?;
        }
        let mut streams: BTreeMap<StreamId, (Arc<StreamCore>, Vec<u64>)> = BTreeMap::new();
        for due in due {
            let entry = streams.entry(due.core.id);
            let (_, done) = entry.or_insert_with(|| (due.core.clone(), Vec::new()));
            done.push(due.pending.seq);
        }
        let mut batch = MetaBatch::default();
        for (core, done) in streams.values() {
            let data = core.lock();
            if !data.deleted {
                put_erasures(core.id, &data.erasures.encode(done), &mut batch);
            }
        }
        store.commit_files(&mut batch, &BTreeSet::new())?;
        for (core, done) in streams.values() {
            let removed = core.lock().erasures.remove(done);
            store.shared.erasures.remove(removed);
        }
        for due in due {
            self.erasures.clean.remove(&due.key());
        }
        Ok(())
    }
}

/// Erasures that are due, and when the next one is.
fn due(store: &Checkpointer, now: i64) -> (Vec<Due>, Option<i64>) {
    let (mut found, mut later) = (Vec::new(), None);
    for core in store.catalogue.file_streams() {
        let data = core.lock();
        for pending in data.erasures.iter() {
            let begin = pending.deadline.0.saturating_sub(EARLY_NS);
            if begin > now {
                later = Some(later.map_or(begin, |known: i64| known.min(begin)));
                continue;
            }
            let covers =
                |e: &&crate::stream::extent::Extent| (e.first..=e.last).contains(&pending.seq);
            found.push(Due {
                core: core.clone(),
                pending: *pending,
                file: data
                    .extents
                    .iter()
                    .find(covers)
                    .map(|extent| extent.file.id),
            });
        }
    }
    (found, later)
}
