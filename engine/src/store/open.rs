//! Opening: one path, whether the last stop was clean or not.
//!
//! 1. Lock the directory, read or create `FORMAT`.
//! 2. Read the metadata log: streams, consumers, sealed files, checkpoint position.
//! 3. Replay the write-ahead log behind the checkpoint. No sealed file is read.
//! 4. Checkpoint what was replayed into new files, so that nothing depends on what the page cache
//!    happened to hold, then start a new log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalogue::Catalogue;
use super::checkpoint::{Checkpointer, Scope, note_space, open_file};
use super::compact::Compactor;
use super::damage::FoundBy;
use super::error::{CheckpointError, OpenError};
use super::identity;
use super::keys;
use super::layout::Layout;
use super::maintenance::Maintenance;
use super::merge_runs::{RunMerger, open_run};
use super::options::StoreOptions;
use super::recovery::{Recovered, RecoveredStream};
use super::reserve::Reserve;
use super::scrub::{ScrubPlace, Scrubber};
use super::shared::StoreShared;
use crate::cache::Cache;
use crate::dedup::IdFile;
use crate::error::Corrupt;
use crate::format::FormatError;
use crate::ids::{Lsn, SegmentId, Seq, StreamId, TimestampNs};
use crate::io::Env;
use crate::meta::{MetaError, MetaLog};
use crate::stream::core::StreamCore;
use crate::stream::cursor::ConsumerCore;
use crate::stream::due::ExtentTimers;
use crate::stream::extent::{Extent, SealedFile};
use crate::stream::state::TailRam;
use crate::wal::recover::{Cut, LostRange};
use crate::wal::{
    self, CommitQueue, Committer, QueueOptions, RecoverError, StreamGate, Wal, WalRecovered,
};

/// What opening found and did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// A new store was created.
    pub created: bool,
    /// Streams found.
    pub streams: usize,
    /// Operations replayed from the log.
    pub ops_replayed: u64,
    /// Bytes of the log that were read.
    pub log_bytes_read: u64,
    /// An incomplete end of the log that was cut off; what it held was never acknowledged, unless
    /// the last acknowledged bytes themselves were damaged.
    pub cut: Option<Cut>,
    /// Ranges of acknowledged operations that were lost to damage (salvage only).
    pub lost: Vec<LostRange>,
    /// Unfinished files that were removed.
    pub orphans_removed: usize,
}

/// What opening assembles.
pub(super) struct Opened {
    pub shared: Arc<StoreShared>,
    pub catalogue: Arc<Catalogue>,
    pub maintenance: Maintenance,
    pub committer: Committer,
    pub lock: Box<dyn Send + Sync>,
    pub report: RecoveryReport,
}

pub(super) fn open(env: Env, dir: &Path, options: &StoreOptions) -> Result<Opened, OpenError> {
    let env = options.env(env);
    let layout = Layout::new(dir);
    let io = env.io.clone();
    io.create_dir_all(dir)
        .map_err(|error| OpenError::io(dir, error))?;
    let lock = io
        .lock(&layout.lock())
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::Locked {
                file: layout.lock(),
            },
            _ => OpenError::io(layout.lock(), error),
        })?;
    let mut report = RecoveryReport::default();
    let identity = identity::read_or_create(&env, &layout)?;
    let (uuid, created) = (identity.uuid, identity.created);
    report.created = created;
    let meta = MetaLog::open(&env, &layout.meta_dir(), uuid);
    let mut meta = meta.map_err(|error| meta_error(&env, error))?;
    let scrub_place = meta.get(keys::SCRUB).map(<[u8]>::to_vec);
    let mut recovered = read_meta(&meta, &layout, uuid)?;
    check_keys(&env, &layout, &recovered)?;
    if identity.key.is_some() && meta.key().is_none() {
        return Err(not_encrypted(layout.meta_dir()));
    }
    let replayed = replay(&env, &layout, uuid, options, &mut recovered)?;
    if identity.key.is_some() && replayed.ops_plain > 0 {
        return Err(not_encrypted(layout.wal_dir()));
    }
    report.streams = recovered.streams.len();
    report.ops_replayed = recovered.ops_applied;
    report.log_bytes_read = replayed.bytes_read;
    report.cut = replayed.cut.clone();
    report.lost = replayed.lost.clone();
    let keep = !replayed.lost.is_empty();
    recovered.drop_doubtful_runs(Lsn(replayed.next_lsn.0 - 1), !keep);
    let orphans = match (meta.settle(), keep) {
        (Ok(()), false) => Orphans::Remove,
        (Ok(()), true) => Orphans::Rename,
        (Err(error), _) => {
            tracing::warn!(%error, "files that no metadata names stay until the next start");
            Orphans::Leave
        }
    };
    report.orphans_removed = remove_orphans(&env, &layout, &mut recovered, orphans)?;

    let queue_options = QueueOptions {
        bytes_max: options.queue_bytes_max,
    };
    let queue = CommitQueue::new(queue_options, replayed.next_lsn);
    let cache = Arc::new(Cache::new(options.cache_bytes_max, options.open_files_max));
    let shared = Arc::new(StoreShared::new(
        env.clone(),
        dir.to_path_buf(),
        uuid,
        queue.clone(),
        cache,
        options,
        recovered.next_consumer,
    ));
    let catalogue = Arc::new(Catalogue::new(recovered.next_stream));
    let mut checkpointer = Checkpointer::new(
        shared.clone(),
        catalogue.clone(),
        layout.clone(),
        meta,
        recovered.next_segment,
    );
    let checkpoint = recovered.checkpoint;
    let mut merger = RunMerger::new(shared.clone(), catalogue.clone(), layout.clone());
    for (id, stream) in &recovered.streams {
        for run in &stream.runs {
            merger.adopt(*id, run.manifest.id);
        }
    }
    let place = scrub_place.and_then(|value| ScrubPlace::decode(&value).ok());
    let period = options.scrub_period;
    let scrubber = Scrubber::new(shared.clone(), layout.clone(), period, place);
    note_lost(&shared, &recovered, &replayed);
    enter(&shared, &catalogue, &layout, &mut checkpointer, recovered)?;
    let behind = created || Lsn(replayed.next_lsn.0 - 1) != checkpoint;
    // Everything replayed came from the log on disk: there is nothing to wait for.
    let full = match checkpointer.run(Scope::All, behind, &mut |_| Ok(())) {
        Ok(()) => false,
        Err(CheckpointError::NoSpace { file }) => {
            // The old log still has everything, and stays. What is deleted now makes room for the
            // next attempt.
            tracing::warn!(file = %file.display(), "no disk space left: what the log holds stays in memory");
            true
        }
        Err(error) => return Err(error.into()),
    };
    let mut reserve = Reserve::new(&env, &layout, options.wal.file_bytes);
    match full {
        true => reserve.give_up(),
        false => checkpointer.use_current_key()?,
    }
    let wal = Wal::create(
        &env,
        &layout.wal_dir(),
        uuid,
        options.wal,
        replayed.next_lsn,
        replayed.old_files,
    )
    .map_err(|error| OpenError::io(layout.wal_dir(), error))?;
    note_space(&shared, full);
    if !full {
        reserve.keep();
        // Last: from then on everything that counts has this key. On a full disk the old log does
        // not have it yet.
        if identity.key != env.current_key() {
            identity::write(&env, &layout, uuid)?;
        }
    }
    let committer = Committer::new(&env, queue, wal);
    let compactor = Compactor::new(&shared, options.compaction, options.wal.file_bytes);
    let maintenance = Maintenance::new(
        checkpointer,
        reserve,
        compactor,
        merger,
        scrubber,
        options.threads,
    );
    Ok(Opened {
        shared,
        catalogue,
        maintenance,
        committer,
        lock,
        report,
    })
}

/// What a salvage gave up stays known while the store is open.
fn note_lost(shared: &StoreShared, recovered: &Recovered, replayed: &WalRecovered) {
    let now = TimestampNs(shared.env.clock.now_ns());
    let (file, offset) = match replayed.lost.first() {
        Some(lost) => (lost.file.clone(), lost.offset),
        None => (shared.dir.join("wal"), 0),
    };
    for (stream, first, last) in &recovered.lost {
        let range = Corrupt {
            stream: *stream,
            first: Seq(*first),
            last: Seq(*last),
            file: file.clone(),
            offset,
            reason: "the operations that stored them are damaged in the log".into(),
        };
        shared.damage.note(&range, FoundBy::Recovery, now);
    }
}

/// Every file that is needed must be readable, before anything is changed.
pub(super) fn check_keys(
    env: &Env,
    layout: &Layout,
    recovered: &Recovered,
) -> Result<(), OpenError> {
    let segments = recovered.segments.values();
    let segments = segments.map(|file| (file.key, layout.segment(file.id)));
    let id_files = recovered.id_files.values();
    let id_files = id_files.map(|file| (file.key, layout.id_file(file.id)));
    for (key, file) in segments.chain(id_files) {
        let given = |key| {
            env.keys
                .as_ref()
                .is_some_and(|keys| keys.get(key).is_some())
        };
        if let Some(key) = key.filter(|key| !given(*key)) {
            return Err(identity::key_missing(env, file, key));
        }
    }
    Ok(())
}

/// A store names its key when everything that counts is encrypted with it.
fn not_encrypted(file: PathBuf) -> OpenError {
    OpenError::Damaged {
        file,
        what: "not encrypted in an encrypted store: somebody wrote it who has no key".to_owned(),
        remedy: "restore it from a backup",
    }
}

fn meta_error(env: &Env, error: MetaError) -> OpenError {
    match error {
        MetaError::KeyMissing {
            file,
            key: Some(key),
        } => identity::key_missing(env, file, key),
        MetaError::Io { file, source } => OpenError::io(file, source),
        MetaError::NewerVersion { file, source } => newer(file, &source),
        other => OpenError::Damaged {
            file: other.file().to_path_buf(),
            what: other.to_string(),
            remedy: "restore the meta directory from a backup; the messages in wal and seg are untouched",
        },
    }
}

fn newer(file: PathBuf, source: &FormatError) -> OpenError {
    let (found, supported) = match source {
        FormatError::NewerVersion {
            found, supported, ..
        } => (*found, *supported),
        _ => (0, 0),
    };
    OpenError::NewerVersion {
        file,
        found: u64::from(found),
        supported: u64::from(supported),
    }
}

fn read_meta(meta: &MetaLog, layout: &Layout, uuid: u128) -> Result<Recovered, OpenError> {
    let seed = StoreShared::dedup_seed_of(uuid);
    Recovered::from_meta(meta, seed).map_err(|error| OpenError::Damaged {
        file: layout.meta_dir(),
        what: format!("a metadata value cannot be used: {error}"),
        remedy: "start the version that wrote it, or restore the meta directory from a backup",
    })
}

fn replay(
    env: &Env,
    layout: &Layout,
    uuid: u128,
    options: &StoreOptions,
    recovered: &mut Recovered,
) -> Result<WalRecovered, OpenError> {
    let after = recovered.checkpoint;
    recovered.salvage = options.salvage;
    wal::recover(env, &layout.wal_dir(), uuid, after, options.salvage, &mut |lsn, op| {
        recovered.apply(lsn, &op)
    })
    .map_err(|error| match error {
        RecoverError::Io { file, source } => OpenError::io(file, source),
        RecoverError::NewerVersion { file, source } => newer(file, &source),
        RecoverError::KeyMissing { file, key: Some(key) } => identity::key_missing(env, file, key),
        RecoverError::AckedDataDamaged(ref lost) | RecoverError::NotAuthentic(ref lost) => OpenError::Damaged {
            file: lost.file.clone(),
            what: error.to_string(),
            remedy: "restore the file, or a meta directory as new as the log, from a backup; or open with salvage to give up exactly that range",
        },
        other => OpenError::Damaged {
            file: layout.wal_dir(),
            what: other.to_string(),
            remedy: "restore the log files from a backup",
        },
    })
}

/// What becomes of files that no commit names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Orphans {
    Remove,
    /// Operations are missing from the log: sealed files may hold what it has lost (A5).
    Rename,
    /// A power cut may still bring back metadata that names them.
    Leave,
}

/// Removes sealed files, of messages or of ids, that no commit names, and index runs that no stream
/// is answered from: a checkpoint or a merge was interrupted before its commit, and the log or other
/// files still had everything. Their numbers are not used again.
fn remove_orphans(
    env: &Env,
    layout: &Layout,
    recovered: &mut Recovered,
    orphans: Orphans,
) -> Result<usize, OpenError> {
    // The index directory may have been deleted with everything in it: it is derived.
    let idx_dir = layout.idx_dir();
    env.io
        .create_dir_all(&idx_dir)
        .map_err(|error| OpenError::io(&idx_dir, error))?;
    let index_files = recovered.index_files();
    let ids_dir = layout.ids_dir();
    env.io
        .create_dir_all(&ids_dir)
        .map_err(|error| OpenError::io(&ids_dir, error))?;
    let mut removed = 0;
    for dir in [layout.seg_dir(), idx_dir, ids_dir] {
        let entries = env
            .io
            .list(&dir)
            .map_err(|error| OpenError::io(&dir, error))?;
        for entry in entries {
            let Some((number, named)) = recovered.file_named(&entry.name, &index_files) else {
                if dir == layout.idx_dir() && Layout::is_unfinished_index(&entry.name) {
                    let file = dir.join(&entry.name);
                    let gone = env.io.remove(&file);
                    gone.map_err(|error| OpenError::io(&file, error))?;
                }
                continue;
            };
            recovered.next_segment = recovered.next_segment.max(number.saturating_add(1));
            if named || orphans == Orphans::Leave {
                continue;
            }
            let file: PathBuf = dir.join(&entry.name);
            if orphans == Orphans::Rename && dir != layout.idx_dir() {
                let kept = dir.join(format!("{}.kept", entry.name));
                tracing::error!(file = %kept.display(), "a sealed file that no metadata names is kept");
                env.io
                    .rename(&file, &kept)
                    .map_err(|error| OpenError::io(&file, error))?;
                continue;
            }
            env.io
                .remove(&file)
                .map_err(|error| OpenError::io(&file, error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Turns recovered state into serving streams.
fn enter(
    shared: &Arc<StoreShared>,
    catalogue: &Catalogue,
    layout: &Layout,
    checkpointer: &mut Checkpointer,
    recovered: Recovered,
) -> Result<(), OpenError> {
    let files: std::collections::BTreeMap<SegmentId, Arc<SealedFile>> = recovered
        .segments
        .iter()
        .map(|(id, manifest)| (*id, Arc::new(open_file(shared, layout, *manifest))))
        .collect();
    for file in files.values() {
        checkpointer.files.add(file.clone());
    }
    let id_files = recovered.id_files.values().map(|manifest| {
        let path = layout.id_file(manifest.id);
        let cache = shared.cache.clone();
        let file = IdFile::new(&shared.env, &path, shared.uuid, *manifest, cache, None);
        Arc::new(file)
    });
    shared.ids.replace(id_files, &[]);
    shared.ids.window_grew(recovered.windows_grown_ns);
    let mut inner = catalogue.lock();
    inner.deleted = recovered.deleted;
    for (id, stream) in recovered.streams {
        for stored in &stream.extents {
            checkpointer.files.list(id, stored.file);
        }
        let core = serve(shared, layout, &files, id, stream)?;
        inner.by_name.insert(core.name.clone(), core);
    }
    for (stream, consumer, lsn) in recovered.deleted_consumers {
        shared.consumer_deleted(stream, consumer, lsn);
    }
    Ok(())
}

pub(super) fn serve(
    shared: &Arc<StoreShared>,
    layout: &Layout,
    files: &std::collections::BTreeMap<SegmentId, Arc<SealedFile>>,
    id: StreamId,
    stream: RecoveredStream,
) -> Result<Arc<StreamCore>, OpenError> {
    let mut data = stream.data;
    let mut extents = Vec::with_capacity(stream.extents.len());
    for stored in &stream.extents {
        let Some(file) = files.get(&stored.file) else {
            return Err(OpenError::Damaged {
                file: layout.meta_dir(),
                what: format!(
                    "stream {id} lists segment {}, which has no manifest",
                    stored.file
                ),
                remedy: "restore the meta directory from a backup",
            });
        };
        extents.push(Extent {
            first: stored.first,
            last: stored.last,
            msgs: stored.msgs,
            bytes: stored.bytes,
            first_ts: stored.first_ts,
            last_ts: stored.last_ts,
            timers: Arc::new(ExtentTimers::new(stored.first_expiry, stored.first_notice)),
            file: file.clone(),
        });
    }
    data.set_extents(extents);
    let runs = stream
        .runs
        .iter()
        .map(|run| Arc::new(open_run(shared, layout, *run)));
    data.set_runs(runs.collect());
    shared.tail_ram_changed(TailRam::default(), data.tail_ram());
    shared.erasures.add(data.erasures.iter().count() as u64);
    let gate = StreamGate::new(id, Seq(data.last_seq));
    let core = StreamCore::new(id, gate, shared.clone(), data);
    for (consumer_id, consumer) in stream.consumers {
        let built = ConsumerCore::new(consumer_id, consumer.created, &core, consumer.state);
        let built = built.map_err(|error| OpenError::Damaged {
            file: layout.meta_dir(),
            what: format!("consumer {consumer_id} of stream {id}: {error}"),
            remedy: "start the version that wrote it, or restore the meta directory from a backup",
        })?;
        {
            let mut data = built.lock();
            data.last_lsn = consumer.applied;
            data.dirty_since = consumer.dirty_since;
            data.config_dirty = false;
            if data.dirty_since.is_some() {
                built.note_changed(&mut data);
            }
        }
        let filters = built.lock().filters().clone();
        core.lock().interest.insert(&built, &filters);
        core.lock_consumers().insert(built.name.clone(), built);
    }
    Ok(core)
}
