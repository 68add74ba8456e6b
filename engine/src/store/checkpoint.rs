//! Moves tails into sealed files and makes log space reusable.
//!
//! A checkpoint takes, stream by stream and each under its own lock, everything that changed:
//! messages, positions, tombstones, message ids, consumers. Each stream's share names the log
//! position it contains, so streams need not be frozen at one moment. The share is durable when one
//! metadata commit names the sealed files; only then are log files released (I7) and files that
//! nobody names any more removed (I6). A crash anywhere before that leaves orphans that the next
//! start removes, and the log still has everything.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::catalogue::Catalogue;
use super::damage::FoundBy;
use super::error::CheckpointError;
use super::files::FileList;
use super::id_keeper::{IdChange, IdKeeper, IdStep};
use super::keys::{self, kind};
use super::layout::Layout;
use super::share::{Share, freeze};
use super::shared::StoreShared;
use super::stored::{Counters, encode_manifest};
use crate::config::Compression;
use crate::dedup::IdWindow;
use crate::format::id_page::IdEntry;
use crate::ids::{ConsumerId, Lsn, SegmentId, Seq, StreamId, TimestampNs};
use crate::index::{RunSource, RunWriter, compare_subjects};
use crate::meta::{MetaBatch, MetaLog};
use crate::segment::{Codec, ExtentInfo, SealedSegment, Segment, SegmentManifest, SegmentWriter};
use crate::stream::core::StreamCore;
use crate::stream::extent::{Extent, SealedFile};
use crate::stream::file_index::IndexPlace;

/// Tails of at least this many bytes get a file of their own; smaller ones share one.
pub(super) const OWN_FILE_BYTES_MIN: u64 = 1 << 20;

/// Performs checkpoints; owned by whoever does maintenance.
pub(crate) struct Checkpointer {
    pub(super) shared: Arc<StoreShared>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) layout: Layout,
    pub(super) meta: MetaLog,
    next_segment: u64,
    pub(super) files: FileList,
    /// Sealed files whose commit failed: on disk it may have happened all the same, so they stay
    /// until a later commit does not name them.
    in_doubt: Vec<SegmentId>,
    ids: IdKeeper,
}

/// Which streams a checkpoint covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All changed streams: afterwards the log up to now is free.
    All,
    /// Only streams with large tails: frees RAM.
    LargeTails,
    /// Only this stream, and it together with its consumers at one position of the log.
    Exactly(StreamId),
}

impl Checkpointer {
    pub fn new(
        shared: Arc<StoreShared>,
        catalogue: Arc<Catalogue>,
        layout: Layout,
        meta: MetaLog,
        next_segment: u64,
    ) -> Checkpointer {
        Checkpointer {
            files: FileList::new(shared.clone(), layout.clone()),
            ids: IdKeeper::new(shared.clone(), layout.clone()),
            shared,
            catalogue,
            layout,
            meta,
            next_segment,
            in_doubt: Vec::new(),
        }
    }

    /// Moves the metadata to the key of new files.
    pub fn use_current_key(&mut self) -> Result<(), CheckpointError> {
        let moved = self.meta.use_current_key();
        moved.map_err(|error| CheckpointError::from_io(self.layout.meta_dir(), error))
    }

    /// Commits a change of metadata that belongs to no checkpoint.
    pub(super) fn commit(&mut self, batch: &MetaBatch) -> Result<(), CheckpointError> {
        let committed = self.meta.commit(batch);
        committed.map_err(|error| CheckpointError::from_io(self.layout.meta_dir(), error))
    }

    /// Whether the metadata names merged index runs of a stream.
    pub(super) fn names_runs_of(&self, stream: StreamId) -> bool {
        let key = keys::stream_value(stream, kind::RUNS);
        self.meta.get(&key).is_some()
    }

    /// Runs a checkpoint; without changes only if forced, or if the log needs the space that an
    /// earlier one did not give back. `wait` makes everything up to a log position durable as far as
    /// the log can take it, or says that the store stopped.
    pub fn run(
        &mut self,
        scope: Scope,
        force: bool,
        wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        self.run_at(self.shared.queue.assigned_lsn(), scope, force, wait)
    }

    /// `assigned` is a position that the log has reached. Operations that come in after it was read
    /// and before their stream is frozen are in the share and not in what is released.
    pub(super) fn run_at(
        &mut self,
        assigned: Lsn,
        scope: Scope,
        force: bool,
        wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let grown_ns = self.shared.ids.grown_ns();
        let mut shares = Vec::new();
        let mut untouched = Vec::new();
        for core in self.catalogue.file_streams() {
            match freeze(&core, scope) {
                Some(share) => shares.push(share),
                None => untouched.push(core),
            }
        }
        // A share contains every operation of its stream up to `assigned`.
        let free = untouched
            .iter()
            .map(|core| before_dirty(core, assigned))
            .min();
        let free = free.unwrap_or(assigned).min(assigned);
        // A stream leaves the metadata together with its last operation in the log: what is left
        // of it there can be replayed only on top of the stream as it was.
        let mut deleted = self.catalogue.deleted();
        deleted.retain(|(_, lsn)| *lsn <= free);
        // So does a consumer: replay of its deletion needs to know what it held.
        let mut consumers_deleted = self.shared.deleted_consumers();
        consumers_deleted.retain(|(_, _, lsn)| *lsn <= free);
        let changed = shares.len() + deleted.len() + consumers_deleted.len() > 0;
        let releases = self.shared.log_wants_release() && free > self.shared.queue.released_lsn();
        if !changed && !force && !releases {
            return Ok(());
        }
        let result = self.write(
            &mut shares,
            free,
            &deleted,
            &consumers_deleted,
            grown_ns,
            wait,
        );
        if let Err(error) = result {
            for share in shares {
                share.thaw();
            }
            return Err(error);
        }
        for share in shares {
            share.install(&self.shared);
        }
        self.catalogue.forget_deleted(&deleted);
        self.shared.forget_deleted_consumers(&consumers_deleted);
        self.shared.queue.release_through(free);
        self.files.unlink();
        Ok(())
    }

    /// One step of the work on message ids that is no part of a checkpoint. True when there is more.
    pub fn ids_step(
        &mut self,
        wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>,
    ) -> Result<bool, CheckpointError> {
        let mut step = IdStep {
            meta: &mut self.meta,
            catalogue: &self.catalogue,
            next_file: &mut self.next_segment,
        };
        self.ids.step(&mut step, wait)
    }

    /// Writes the ids of a restored stream.
    pub(super) fn prepare_ids(
        &mut self,
        ids: &[IdEntry],
        window: IdWindow,
    ) -> Result<IdChange, CheckpointError> {
        self.ids
            .prepare_restored(ids, window, &mut self.next_segment)
    }

    /// See [`IdKeeper::committed`].
    pub(super) fn committed_ids(&mut self, change: IdChange) {
        self.ids.committed(change);
    }

    /// See [`IdKeeper::failed`].
    pub(super) fn failed_ids(&mut self, change: IdChange) {
        self.ids.failed(change);
    }

    /// Gives up a merge of message ids that is under way.
    pub fn abandon_ids(&mut self) {
        self.ids.abandon();
    }

    /// When the next file of message ids expires.
    pub fn ids_due(&self) -> Option<TimestampNs> {
        self.ids.next_due()
    }

    fn write(
        &mut self,
        shares: &mut [Share],
        free: Lsn,
        deleted: &[(StreamId, Lsn)],
        consumers_deleted: &[(StreamId, ConsumerId, Lsn)],
        grown_ns: u64,
        wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        // Not only the positions of the shares: a consumer's share can hold the effect of an operation
        // on its stream that came in after the stream's own share was taken. Where the log cannot
        // take what is queued, this checkpoint is what makes room: it is durable with its own
        // commit then, before the log holds it, and a restart goes on behind its position.
        wait(self.shared.queue.assigned_lsn())?;
        self.settle_in_doubt()?;
        let mut batch = MetaBatch::default();
        let first_segment = self.next_segment;
        let sealed = self.seal(shares, &mut batch).and_then(|()| {
            let next_file = &mut self.next_segment;
            self.ids.prepare(shares, grown_ns, next_file)
        });
        let ids = sealed.inspect_err(|_| {
            for id in (first_segment..self.next_segment).map(SegmentId) {
                // Named by no commit yet.
                self.files.remove(id);
            }
            shares.iter_mut().for_each(|share| share.sealed = None);
            self.files.unlink();
        })?;
        IdKeeper::put(&ids, &mut batch);
        let mut unlisted = BTreeSet::new();
        for share in shares.iter() {
            self.put_share(share, &mut batch, &mut unlisted);
        }
        for (stream, _) in deleted {
            for (key, _) in self.meta.scan_prefix(&keys::stream(*stream)) {
                batch.delete(key);
            }
            unlisted.extend(self.files.of_stream(*stream).map(|id| (id, *stream)));
        }
        for (stream, consumer, _) in consumers_deleted {
            batch.delete(&keys::consumer(*stream, *consumer));
            let containers = keys::consumer_containers(*stream, *consumer);
            for (key, _) in self.meta.scan_prefix(&containers) {
                batch.delete(key);
            }
        }
        batch.put(keys::COUNTERS, &self.counters(free).encode());
        let scrub = self.shared.scrub.place_to_store();
        if let Some(place) = &scrub {
            batch.put(keys::SCRUB, place);
        }
        let committed = self.commit_files(&mut batch, &unlisted);
        if let Err(error) = committed {
            self.ids.failed(ids);
            self.doubt((first_segment..self.next_segment).map(SegmentId));
            return Err(error);
        }
        if let Some(place) = scrub {
            self.shared.scrub.stored(&place);
        }
        // Before the shares are installed: streams then drop these ids from RAM.
        self.ids.committed(ids);
        Ok(())
    }

    /// Commits `batch` together with what becomes of the files when `unlisted` streams leave them:
    /// those that nobody lists afterwards leave the metadata too, and then the disk.
    pub(super) fn commit_files(
        &mut self,
        batch: &mut MetaBatch,
        unlisted: &BTreeSet<(SegmentId, StreamId)>,
    ) -> Result<(), CheckpointError> {
        let dead = self.files.dead_without(unlisted);
        for id in &dead {
            batch.delete(&keys::segment(*id));
        }
        let committed = self.meta.commit(batch);
        committed.map_err(|error| CheckpointError::from_io(self.layout.meta_dir(), error))?;
        for (id, stream) in unlisted {
            self.files.unlist(*stream, *id);
        }
        for id in dead {
            self.files.remove(id);
        }
        Ok(())
    }

    /// Notes files that a failed commit may have named all the same.
    pub(super) fn doubt(&mut self, ids: impl Iterator<Item = SegmentId>) {
        for id in ids {
            self.files.forget(id);
            self.in_doubt.push(id);
        }
    }

    /// The number of a new sealed file.
    pub(super) fn next_segment(&mut self) -> SegmentId {
        let id = SegmentId(self.next_segment);
        self.next_segment += 1;
        id
    }

    /// Removes what a failed commit left behind, before another one takes more space.
    pub(super) fn settle_in_doubt(&mut self) -> Result<(), CheckpointError> {
        if self.in_doubt.is_empty() && self.ids.in_doubt().is_empty() {
            return Ok(());
        }
        let mut batch = MetaBatch::default();
        for id in self.ids.in_doubt() {
            batch.delete(&keys::id_file(*id));
        }
        for id in &self.in_doubt {
            batch.delete(&keys::segment(*id));
        }
        let committed = self.meta.commit(&batch);
        committed.map_err(|error| CheckpointError::from_io(self.layout.meta_dir(), error))?;
        for id in std::mem::take(&mut self.in_doubt) {
            self.files.remove(id);
        }
        self.files.unlink();
        self.ids.settled();
        Ok(())
    }

    pub(super) fn counters(&self, checkpoint: Lsn) -> Counters {
        Counters {
            next_stream: self.catalogue.next_stream_id(),
            next_consumer: self.shared.peek_consumer_id(),
            next_segment: self.next_segment,
            checkpoint,
        }
    }

    /// Writes frozen tails into sealed files: large ones each into one, the others into a shared
    /// one. All are durable on return, with their directory entries.
    fn seal(&mut self, shares: &mut [Share], batch: &mut MetaBatch) -> Result<(), CheckpointError> {
        let (mut own, mut shared): (Vec<&mut Share>, Vec<&mut Share>) = (Vec::new(), Vec::new());
        for share in shares.iter_mut() {
            match &share.frozen {
                Some(tail) if tail.live() == 0 => {}
                Some(tail) if tail.ram_bytes() >= OWN_FILE_BYTES_MIN => own.push(share),
                Some(_) => shared.push(share),
                None => {}
            }
        }
        let any = !own.is_empty() || !shared.is_empty();
        for share in own {
            self.seal_file(&mut [share], batch)?;
        }
        if !shared.is_empty() {
            self.seal_file(&mut shared, batch)?;
        }
        if any {
            let dir = self.layout.seg_dir();
            let synced = self.shared.env.io.sync_dir(&dir);
            synced.map_err(|error| CheckpointError::from_io(dir, error))?;
        }
        Ok(())
    }

    fn seal_file(
        &mut self,
        shares: &mut [&mut Share],
        batch: &mut MetaBatch,
    ) -> Result<(), CheckpointError> {
        let id = self.next_segment();
        let path = self.layout.segment(id);
        let sealed = self.write_segment(id, shares);
        let sealed = sealed.map_err(|error| self.discard(&path, error))?;
        self.write_index(&sealed.manifest, shares);
        batch.put(&keys::segment(id), &encode_manifest(&sealed.manifest));
        let file = Arc::new(open_file(&self.shared, &self.layout, sealed.manifest));
        self.files.add(file.clone());
        for share in shares.iter_mut() {
            let of_stream = |info: &&ExtentInfo| info.stream == share.core.id;
            let Some(info) = sealed.extents.iter().find(of_stream) else {
                continue;
            };
            share.sealed = Some(Extent::sealed(info, &file));
            self.files.list(share.core.id, id);
        }
        Ok(())
    }

    fn write_segment(
        &self,
        id: SegmentId,
        shares: &[&mut Share],
    ) -> std::io::Result<SealedSegment> {
        let shared = &self.shared;
        let path = self.layout.segment(id);
        let mut writer = SegmentWriter::new(&shared.env, &path, shared.uuid, id)?;
        for share in shares {
            let codec = match share.core.compression() {
                Compression::None => Codec::None,
                Compression::S2 => Codec::S2,
            };
            writer.begin_extent(share.core.id, codec)?;
            let Some(tail) = &share.frozen else { continue };
            for message in tail.iter_from(0) {
                writer.push(&message.as_record())?;
            }
        }
        writer.finish()
    }

    /// Writes the subjects of a sealed file. They can be derived from it at any time: a failure
    /// costs that work later, nothing else.
    fn write_index(&self, manifest: &SegmentManifest, shares: &[&mut Share]) {
        let path = self.layout.index(manifest.id);
        if let Err(error) = self.try_write_index(&path, manifest, shares) {
            tracing::warn!(file = %path.display(), %error, "an index run was not written");
            // What is there is incomplete.
            let _ = self.shared.env.io.remove(&path);
        }
    }

    fn try_write_index(
        &self,
        path: &Path,
        manifest: &SegmentManifest,
        shares: &[&mut Share],
    ) -> std::io::Result<()> {
        let mut by_stream: Vec<&Share> = shares.iter().map(|share| &**share).collect();
        by_stream.sort_by_key(|share| share.core.id);
        let tails = by_stream.iter().filter_map(|share| share.frozen.as_ref());
        let keys = tails.map(|tail| tail.subjects().count() as u64).sum();
        let source = RunSource::Segment(*manifest);
        let (env, uuid) = (&self.shared.env, self.shared.uuid);
        let mut writer = RunWriter::new(env, path, uuid, source, keys)?;
        let mut postings = Vec::new();
        for share in by_stream {
            let Some(tail) = &share.frozen else { continue };
            let mut subjects: Vec<_> = tail.subjects().collect();
            subjects.sort_unstable_by(|a, b| compare_subjects(a.0, b.0));
            for (subject, seqs) in subjects {
                postings.clear();
                postings.extend(seqs.iter().map(|(seq, size)| (Seq(seq), size)));
                writer.push(share.core.id, subject, &postings)?;
            }
        }
        writer.finish(0)?;
        Ok(())
    }

    /// A file that could not be completed is removed: it is named nowhere.
    fn discard(&self, path: &Path, error: std::io::Error) -> CheckpointError {
        let _ = self.shared.env.io.remove(path);
        CheckpointError::from_io(path, error)
    }

    fn put_share(
        &mut self,
        share: &Share,
        batch: &mut MetaBatch,
        unlisted: &mut BTreeSet<(SegmentId, StreamId)>,
    ) {
        let id = share.core.id;
        batch.put(&keys::stream_value(id, kind::POSITIONS), &share.positions);
        if let Some(config) = &share.config {
            batch.put(&keys::stream_value(id, kind::CONFIG), config);
        }
        for (container, bits) in &share.tombstones {
            let key = keys::numbered(id, kind::TOMBSTONES, *container);
            match bits {
                Some(bits) => batch.put(&key, bits),
                None => batch.delete(&key),
            }
        }
        if share.sealed.is_some() || !share.dead.is_empty() {
            batch.put(
                &keys::stream_value(id, kind::EXTENTS),
                &share.extents_value(),
            );
            unlisted.extend(share.dead.iter().map(|segment| (*segment, id)));
        }
        if let Some(erasures) = &share.erasures {
            put_erasures(id, erasures, batch);
        }
        if let Some(claims) = &share.claims {
            let key = keys::stream_value(id, kind::CLAIMS);
            match claims.is_empty() {
                true => batch.delete(&key),
                false => batch.put(&key, claims),
            }
        }
        for consumer in &share.consumers {
            batch.put(&keys::consumer(id, consumer.core.id), &consumer.head);
            for (container, value) in &consumer.containers {
                let key = keys::consumer_container(id, consumer.core.id, *container);
                match value {
                    Some(value) => batch.put(&key, value),
                    None => batch.delete(&key),
                }
            }
        }
    }
}

/// Stores a stream's pending erasures; none when there are none.
pub(super) fn put_erasures(stream: StreamId, value: &[u8], batch: &mut MetaBatch) {
    let key = keys::stream_value(stream, kind::ERASURES);
    match value.is_empty() {
        true => batch.delete(&key),
        false => batch.put(&key, value),
    }
}

/// Opens a sealed file; nothing is read before its first use.
pub(crate) fn open_file(
    shared: &StoreShared,
    layout: &Layout,
    manifest: SegmentManifest,
) -> SealedFile {
    let path = layout.segment(manifest.id);
    let cache = shared.cache.clone();
    let index = IndexPlace {
        env: shared.env.clone(),
        store_uuid: shared.uuid,
        path: layout.index(manifest.id),
        cache: cache.clone(),
    };
    let (damage, clock) = (shared.damage.clone(), shared.env.clock.clone());
    let segment = Segment::open(&shared.env, &path, shared.uuid, manifest, cache);
    let segment = segment.reporting_to(Arc::new(move |range| {
        damage.note(range, FoundBy::Read, TimestampNs(clock.now_ns()));
    }));
    SealedFile::new(segment, index)
}

/// Last position before a stream's first operation that is not in a checkpoint.
fn before_dirty(core: &StreamCore, assigned: Lsn) -> Lsn {
    let mut oldest = core.lock().dirty_since;
    let consumers = core.lock_changed_consumers().clone();
    for consumer in consumers {
        let dirty = consumer.lock().dirty_since;
        oldest = match (oldest, dirty) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    oldest.map_or(assigned, |lsn| Lsn(lsn.0.saturating_sub(1)))
}

/// Whether the last attempt failed for lack of space; resets the mark.
pub(crate) fn note_space(shared: &StoreShared, full: bool) {
    shared.out_of_space.store(full, Ordering::Relaxed);
    shared.queue.report_disk_full(full);
}
