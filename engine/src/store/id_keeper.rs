//! Keeps the files of message ids: writes those of a checkpoint, merges them, removes the expired.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::catalogue::Catalogue;
use super::error::CheckpointError;
use super::keys;
use super::layout::Layout;
use super::share::Share;
use super::shared::StoreShared;
use super::stored::{Counters, encode_id_manifest};
use crate::dedup::merge::{IdMerge, IdSource};
use crate::dedup::writer::IdFileWriter;
use crate::dedup::{IdFile, IdWindow};
use crate::format::id_page::IdEntry;
use crate::ids::{IdFileId, Lsn, StreamId, TimestampNs};
use crate::meta::{MetaBatch, MetaLog};

/// This many files of about the same size become one.
const MERGE_FILES: usize = 8;
/// Files with fewer ids are all of one size.
const SMALL_FILE_IDS: u64 = 4096;
/// A merge does this many ids at a time: a checkpoint never waits for more.
const STEP_IDS: u32 = 32 * 1024;

/// See the [module](self).
pub(super) struct IdKeeper {
    shared: Arc<StoreShared>,
    layout: Layout,
    merge: Option<MergeJob>,
    /// Files whose commit failed: on disk it may have happened all the same, so they stay until a
    /// later commit does not name them.
    in_doubt: Vec<IdFileId>,
    /// Files that no commit names and that could not be removed yet.
    dead: Vec<IdFileId>,
    /// The files were these when a merge failed: another one would not do better.
    failed_at: Option<u64>,
}

/// What a commit changes.
#[derive(Default)]
pub(super) struct IdChange {
    add: Option<Arc<IdFile>>,
    /// [`IdFiles::grown_ns`](crate::dedup::IdFiles::grown_ns) before the windows in `add` were read.
    grown_ns: u64,
    remove: Vec<IdFileId>,
    /// Files whose time of expiry the metadata does not have.
    extended: Vec<Arc<IdFile>>,
}

/// A merge under way.
struct MergeJob {
    inputs: Vec<IdFileId>,
    merge: IdMerge,
    writer: IdFileWriter,
    windows: HashMap<StreamId, IdWindow>,
    now: TimestampNs,
    grown_ns: u64,
    expires: TimestampNs,
}

/// What a step outside a checkpoint works with.
pub(super) struct IdStep<'a> {
    pub meta: &'a mut MetaLog,
    pub catalogue: &'a Catalogue,
    pub next_file: &'a mut u64,
}

type Wait<'a> = &'a mut dyn FnMut(Lsn) -> Result<(), CheckpointError>;

impl IdKeeper {
    pub fn new(shared: Arc<StoreShared>, layout: Layout) -> IdKeeper {
        IdKeeper {
            shared,
            layout,
            merge: None,
            in_doubt: Vec::new(),
            dead: Vec::new(),
            failed_at: None,
        }
    }

    /// Writes the ids of a checkpoint into a file, durable on return, and collects what else its
    /// commit is to change. `grown_ns` was read before the shares were taken.
    pub fn prepare(
        &mut self,
        shares: &[Share],
        grown_ns: u64,
        next_file: &mut u64,
    ) -> Result<IdChange, CheckpointError> {
        let now = self.now();
        let add = self.write(shares, now, next_file)?;
        Ok(IdChange {
            add,
            grown_ns,
            remove: self.expired(now),
            extended: self.extended(),
        })
    }

    /// Writes the ids of a restored stream, in order of their hashes, into a file.
    pub fn prepare_restored(
        &mut self,
        ids: &[IdEntry],
        window: IdWindow,
        next_file: &mut u64,
    ) -> Result<IdChange, CheckpointError> {
        let grown_ns = self.shared.ids.grown_ns();
        let mut change = IdChange {
            grown_ns,
            ..IdChange::default()
        };
        let Some(expires) = ids.iter().map(|id| window.ends(id.ts)).max() else {
            return Ok(change);
        };
        let failed = |error| CheckpointError::from_io(self.layout.ids_dir(), error);
        let mut writer = self.create(next_file, ids.len() as u64).map_err(failed)?;
        for id in ids {
            if let Err(error) = writer.push(id) {
                self.discard(writer);
                return Err(failed(error));
            }
        }
        change.add = self.seal(writer, expires).map_err(failed)?;
        Ok(change)
    }

    /// Adds a change to the commit that makes it durable.
    pub fn put(change: &IdChange, batch: &mut MetaBatch) {
        for file in change.extended.iter().chain(&change.add) {
            batch.put(
                &keys::id_file(file.id()),
                &encode_id_manifest(&file.manifest()),
            );
        }
        for id in &change.remove {
            batch.delete(&keys::id_file(*id));
        }
    }

    /// The commit is durable: admission sees the change from here on.
    pub fn committed(&mut self, change: IdChange) {
        let added = change.add.clone();
        if added.is_some() || !change.remove.is_empty() {
            self.shared.ids.replace(change.add, &change.remove);
        }
        if let Some(file) = added {
            let grown_ns = self.shared.ids.grown_ns().wrapping_sub(change.grown_ns);
            if grown_ns > 0 {
                file.extend(grown_ns);
            }
        }
        self.dead.extend(change.remove);
        self.remove_dead();
    }

    /// The commit failed; on disk it may have happened all the same.
    pub fn failed(&mut self, change: IdChange) {
        self.in_doubt.extend(change.add.map(|file| file.id()));
        for file in change.extended {
            file.mark_unsaved();
        }
    }

    /// Files of failed commits, to be named by none.
    pub fn in_doubt(&self) -> &[IdFileId] {
        &self.in_doubt
    }

    /// A commit that does not name the files of failed ones is durable.
    pub fn settled(&mut self) {
        self.dead.append(&mut self.in_doubt);
        self.remove_dead();
    }

    /// Gives up a merge that is under way.
    pub fn abandon(&mut self) {
        if let Some(job) = self.merge.take() {
            self.discard(job.writer);
        }
    }

    /// When the next file expires.
    pub fn next_due(&self) -> Option<TimestampNs> {
        let files = self.shared.ids.list();
        files.iter().map(|file| file.expires()).min()
    }

    /// One step of a merge if one is due, else the removal of what has expired. True when there is
    /// more to do.
    ///
    /// # Errors
    ///
    /// A commit that failed; nothing is lost.
    pub fn step(&mut self, step: &mut IdStep<'_>, wait: Wait<'_>) -> Result<bool, CheckpointError> {
        self.remove_dead();
        if let Some(job) = self.merge.take() {
            return self.advance(job, step, wait);
        }
        let now = self.now();
        let remove = self.expired(now);
        if !remove.is_empty() {
            let change = IdChange {
                remove,
                ..IdChange::default()
            };
            self.commit(change, step)?;
        }
        let epoch = self.shared.ids.epoch();
        if self.failed_at == Some(epoch) || !self.in_doubt.is_empty() {
            return Ok(false);
        }
        let files = self.shared.ids.list();
        let Some(inputs) = self.rekeyed(&files).or_else(|| mergeable(&files)) else {
            return Ok(false);
        };
        match self.begin(&inputs, step, now) {
            Ok(job) => self.merge = Some(job),
            Err(error) => self.give_up(&error),
        }
        Ok(self.merge.is_some())
    }

    /// Files that have another key than new files have, if all of them are to be rewritten. A damaged
    /// one keeps its key until it has expired.
    fn rekeyed(&self, files: &[Arc<IdFile>]) -> Option<Vec<Arc<IdFile>>> {
        let shared = &self.shared;
        if !shared.rekey.ids.load(Ordering::Acquire) {
            return None;
        }
        let current = shared.env.current_key();
        let other = files
            .iter()
            .filter(|file| !file.is_damaged() && file.key_id() != current);
        let other: Vec<_> = other.take(MERGE_FILES).cloned().collect();
        if other.is_empty() {
            shared.rekey.ids.store(false, Ordering::Release);
            return None;
        }
        Some(other)
    }

    fn begin(
        &self,
        inputs: &[Arc<IdFile>],
        step: &mut IdStep<'_>,
        now: TimestampNs,
    ) -> std::io::Result<MergeJob> {
        let grown_ns = self.shared.ids.grown_ns();
        let windows = step.catalogue.file_streams().into_iter().map(|core| {
            let window = core.lock().id_window();
            (core.id, window)
        });
        let windows = windows.collect();
        let ids = inputs.iter().map(|file| file.entries()).sum();
        let writer = self.create(step.next_file, ids)?;
        let sources = inputs.iter().map(|file| file.cursor().map(IdSource::File));
        let sources = sources.collect::<Result<Vec<_>, _>>();
        let sources = match sources {
            Ok(sources) => sources,
            Err(error) => {
                self.discard(writer);
                return Err(std::io::Error::other(error));
            }
        };
        Ok(MergeJob {
            inputs: inputs.iter().map(|file| file.id()).collect(),
            merge: IdMerge::new(sources),
            writer,
            windows,
            now,
            grown_ns,
            expires: TimestampNs(i64::MIN),
        })
    }

    fn advance(
        &mut self,
        mut job: MergeJob,
        step: &mut IdStep<'_>,
        wait: Wait<'_>,
    ) -> Result<bool, CheckpointError> {
        for _ in 0..STEP_IDS {
            let entry = match job.merge.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    self.finish(job, step, wait)?;
                    return Ok(true);
                }
                Err(error) => {
                    // The damaged file is left out from now on; the others can be merged without it.
                    self.discard(job.writer);
                    tracing::warn!(%error, "message ids are not merged");
                    return Ok(true);
                }
            };
            if let Err(error) = job.take(&entry) {
                self.discard(job.writer);
                self.give_up(&error);
                return Ok(false);
            }
        }
        self.merge = Some(job);
        Ok(true)
    }

    fn finish(
        &mut self,
        job: MergeJob,
        step: &mut IdStep<'_>,
        wait: Wait<'_>,
    ) -> Result<(), CheckpointError> {
        let mut change = IdChange {
            grown_ns: job.grown_ns,
            remove: job.inputs,
            ..IdChange::default()
        };
        match self.seal(job.writer, job.expires) {
            Ok(file) => change.add = file,
            Err(error) => {
                self.give_up(&error);
                return Ok(());
            }
        }
        // What the merge left out is gone for reasons that a crash must not undo: the deletion of a
        // stream, or a shorter window.
        let settled = wait(self.shared.queue.assigned_lsn());
        settled.and_then(|()| self.commit(change, step))
    }

    fn commit(&mut self, change: IdChange, step: &mut IdStep<'_>) -> Result<(), CheckpointError> {
        let mut batch = MetaBatch::default();
        IdKeeper::put(&change, &mut batch);
        if let Some(Ok(counters)) = step.meta.get(keys::COUNTERS).map(Counters::decode) {
            let counters = Counters {
                next_segment: *step.next_file,
                ..counters
            };
            batch.put(keys::COUNTERS, &counters.encode());
        }
        match step.meta.commit(&batch) {
            Ok(()) => {
                self.committed(change);
                Ok(())
            }
            Err(error) => {
                self.failed(change);
                self.failed_at = Some(self.shared.ids.epoch());
                Err(CheckpointError::from_io(self.layout.meta_dir(), error))
            }
        }
    }

    fn give_up(&mut self, error: &std::io::Error) {
        tracing::warn!(%error, "message ids are not merged");
        self.failed_at = Some(self.shared.ids.epoch());
    }

    /// Writes the ids of all shares, sorted; `None` when there are none.
    fn write(
        &mut self,
        shares: &[Share],
        now: TimestampNs,
        next_file: &mut u64,
    ) -> Result<Option<Arc<IdFile>>, CheckpointError> {
        let (order, expires) = sorted(shares, now);
        if order.is_empty() {
            return Ok(None);
        }
        let failed = |error| CheckpointError::from_io(self.layout.ids_dir(), error);
        let mut writer = self.create(next_file, order.len() as u64).map_err(failed)?;
        let mut entries = order.iter().filter_map(|at| at.entry(shares)).peekable();
        while let Some(entry) = entries.next() {
            // The later use of an id counts.
            if entries.peek().is_some_and(|next| next.hash == entry.hash) {
                continue;
            }
            if let Err(error) = writer.push(&entry) {
                self.discard(writer);
                return Err(failed(error));
            }
        }
        self.seal(writer, expires).map_err(failed)
    }

    fn create(&self, next_file: &mut u64, ids: u64) -> std::io::Result<IdFileWriter> {
        let id = IdFileId(*next_file);
        *next_file += 1;
        let (env, path) = (&self.shared.env, self.layout.id_file(id));
        let writer = IdFileWriter::new(env, &path, self.shared.uuid, id, ids);
        // A failed creation may have left an empty file.
        writer.inspect_err(|_| drop(env.io.remove(&path)))
    }

    /// Completes a file; it is durable on return, with its directory entry. Without ids there is none.
    fn seal(
        &self,
        writer: IdFileWriter,
        expires: TimestampNs,
    ) -> std::io::Result<Option<Arc<IdFile>>> {
        if writer.entries() == 0 {
            self.discard(writer);
            return Ok(None);
        }
        let (env, path) = (&self.shared.env, writer.path().to_owned());
        let sealed = writer.finish(expires).and_then(|sealed| {
            env.io.sync_dir(&self.layout.ids_dir())?;
            Ok(sealed)
        });
        let (manifest, filter) = sealed.inspect_err(|_| drop(env.io.remove(&path)))?;
        let (uuid, cache) = (self.shared.uuid, self.shared.cache.clone());
        let file = IdFile::new(env, &path, uuid, manifest, cache, Some(filter));
        Ok(Some(Arc::new(file)))
    }

    /// A file that is not completed is removed: it is named nowhere.
    fn discard(&self, writer: IdFileWriter) {
        let path = writer.path().to_owned();
        drop(writer);
        // What cannot be removed now is an orphan at the next start.
        let _ = self.shared.env.io.remove(&path);
    }

    /// Files in which everything has expired.
    fn expired(&self, now: TimestampNs) -> Vec<IdFileId> {
        let merging = self.merge.as_ref().map(|job| &job.inputs[..]);
        let merging = merging.unwrap_or_default();
        let files = self.shared.ids.list();
        let expired = files.iter().filter(|file| file.expires() <= now);
        expired
            .map(|file| file.id())
            .filter(|id| !merging.contains(id))
            .collect()
    }

    fn extended(&self) -> Vec<Arc<IdFile>> {
        let mut files = self.shared.ids.list();
        files.retain(|file| file.take_unsaved());
        files
    }

    fn remove_dead(&mut self) {
        let (io, layout, cache) = (&self.shared.env.io, &self.layout, &self.shared.cache);
        self.dead.retain(|id| {
            // An open file keeps its space.
            cache.forget_file(IdFile::key_of(*id));
            match io.remove(&layout.id_file(*id)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(file = id.0, %error, "cannot remove a dead file of ids");
                    true
                }
                _ => false,
            }
        });
    }

    fn now(&self) -> TimestampNs {
        TimestampNs(self.shared.env.clock.now_ns())
    }
}

impl MergeJob {
    /// Writes an id that is still known.
    fn take(&mut self, entry: &IdEntry) -> std::io::Result<()> {
        let Some(window) = self.windows.get(&entry.stream) else {
            return Ok(());
        };
        if !window.holds(entry.seq, entry.ts, self.now) {
            return Ok(());
        }
        self.expires = self.expires.max(window.ends(entry.ts));
        self.writer.push(entry)
    }
}

/// Where an id of a share is.
struct At {
    high_bits: u64,
    share: u32,
    position: u32,
}

impl At {
    fn entry(&self, shares: &[Share]) -> Option<IdEntry> {
        let share = shares.get(self.share as usize)?;
        let id = share.ids.as_ref()?.get(self.position)?;
        Some(IdEntry {
            hash: id.hash.0,
            stream: share.core.id,
            seq: id.seq,
            ts: id.ts,
        })
    }
}

/// The ids of all shares that are known at `now`, by hash and then age, and when the last expires.
fn sorted(shares: &[Share], now: TimestampNs) -> (Vec<At>, TimestampNs) {
    let ids = shares.iter().map(|share| share.ids.as_ref());
    let total = ids.map(|ids| ids.map_or(0, |ids| ids.iter().len())).sum();
    let mut order = Vec::with_capacity(total);
    let mut expires = TimestampNs(i64::MIN);
    for (number, share) in shares.iter().enumerate() {
        let ids = share.ids.iter().flat_map(|ids| ids.iter());
        for (position, id) in ids.enumerate() {
            if share.id_window.holds(id.seq, id.ts, now) {
                expires = expires.max(share.id_window.ends(id.ts));
                order.push(At {
                    high_bits: (id.hash.0 >> 64) as u64,
                    share: number as u32,
                    position: position as u32,
                });
            }
        }
    }
    order.sort_unstable_by(|a, b| {
        let full = |at: &At| (at.entry(shares).map(|id| id.hash), at.share, at.position);
        let high_bits = a.high_bits.cmp(&b.high_bits);
        high_bits.then_with(|| full(a).cmp(&full(b)))
    });
    (order, expires)
}

/// Files of about the same size, enough of them to be merged.
fn mergeable(files: &[Arc<IdFile>]) -> Option<Vec<Arc<IdFile>>> {
    let size = |file: &IdFile| {
        (file.entries() / SMALL_FILE_IDS)
            .checked_ilog(8)
            .map(|n| n + 1)
    };
    let whole = || files.iter().filter(|file| !file.is_damaged());
    let smallest_first = whole().map(|file| size(file));
    let mut sizes: Vec<Option<u32>> = smallest_first.collect();
    sizes.sort_unstable();
    let full = sizes
        .windows(MERGE_FILES)
        .find(|run| run[0] == run[MERGE_FILES - 1])?;
    let of_size = whole().filter(|file| size(file) == full[0]);
    Some(of_size.take(MERGE_FILES).cloned().collect())
}
