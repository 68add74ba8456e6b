//! What backup and restore do where maintenance is done: taking a stream as it is on disk, and making
//! a restored one current.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::checkpoint::{Checkpointer, Scope, open_file};
use super::super::error::CheckpointError;
use super::super::id_keeper::IdKeeper;
use super::super::jobs::Wait;
use super::super::keys::{self, kind};
use super::super::maintenance::Maintenance;
use super::super::open::serve;
use super::super::stored::{Counters, encode_extents, encode_manifest};
use super::error::RestoreError;
use super::restore::RestoredStream;
use crate::error::ReadError;
use crate::format::backup::Values;
use crate::format::id_page::IdEntry;
use crate::ids::{Lsn, SegmentId, StreamId, TimestampNs};
use crate::meta::MetaBatch;
use crate::stream::core::StreamCore;
use crate::stream::extent::{Extent, SealedFile};
use crate::stream::snapshot::Positions;

/// Message ids in one value of a backup.
const IDS_PER_VALUE: usize = 4096;

/// A stream as it is on disk at one position of the log.
pub(in crate::store) struct Snapshot {
    /// Operations up to here are contained.
    pub lsn: Lsn,
    /// Its values in the metadata, without the lists of its files: keys behind the stream's prefix, and
    /// values.
    pub values: Values,
    /// Its files. They stay on disk as long as somebody holds them.
    pub extents: Arc<Vec<Extent>>,
}

impl Maintenance {
    /// Seals what a stream has in the log, and returns the stream as it is on disk then: it and its
    /// consumers at one position of the log. `None` if it was deleted.
    pub(in crate::store) fn snapshot(
        &mut self,
        core: &Arc<StreamCore>,
        wait: Wait<'_>,
    ) -> Result<Option<Snapshot>, CheckpointError> {
        self.checkpoint(Scope::Exactly(core.id), wait)?;
        let (extents, deleted) = {
            let data = core.lock();
            (data.extents.clone(), data.deleted)
        };
        let mut values = self.checkpointer.values_of(core.id);
        // What speaks of files of this store.
        let of_files = [kind::EXTENTS, kind::RUNS];
        values.retain(|(key, _)| key.first().is_none_or(|kind| !of_files.contains(kind)));
        let positions = values.iter().find(|(key, _)| key == &[kind::POSITIONS]);
        let positions = positions.and_then(|(_, value)| Positions::decode(value).ok());
        let Some(positions) = positions.filter(|_| !deleted) else {
            return Ok(None);
        };
        values.extend(ids_of(core, &positions)?);
        values.sort();
        Ok(Some(Snapshot {
            lsn: positions.applied,
            values,
            extents,
        }))
    }

    /// Makes a restored stream current.
    pub(in crate::store) fn install_restored(
        &mut self,
        restored: RestoredStream,
    ) -> Result<Arc<StreamCore>, RestoreError> {
        self.checkpointer.install_restored(restored)
    }
}

/// The message ids that a stream knows, as values of a backup: entries whose hashes are those of any
/// stream with the same seed.
fn ids_of(core: &StreamCore, at: &Positions) -> Result<Values, CheckpointError> {
    let shared = &core.shared;
    let unreadable = |error: ReadError| {
        CheckpointError::from_io(shared.dir.join("ids"), std::io::Error::other(error))
    };
    let now = TimestampNs(shared.env.clock.now_ns());
    let mut values = Values::new();
    let mut count = 0;
    for id in core.ids_of(now).map_err(unreadable)? {
        let id = id.map_err(unreadable)?;
        if id.seq.0 > at.last_seq {
            continue;
        }
        if count % IDS_PER_VALUE == 0 {
            let number = values.len() as u64;
            let key = [&[kind::IDS][..], &number.to_be_bytes()].concat();
            values.push((key, Vec::new()));
        }
        if let Some((_, value)) = values.last_mut() {
            let hash = id.hash ^ core.id_mask();
            IdEntry { hash, ..id }.encode(value);
        }
        count += 1;
    }
    Ok(values)
}

impl Checkpointer {
    /// What the metadata holds of a stream: keys behind the stream's prefix, and values.
    fn values_of(&self, stream: StreamId) -> Values {
        let prefix = keys::stream(stream);
        let values = self.meta.scan_prefix(&prefix);
        values
            .map(|(key, value)| (key[prefix.len()..].to_vec(), value.to_vec()))
            .collect()
    }

    /// Gives out numbers of sealed files, ascending.
    pub(in crate::store) fn reserve_files(&mut self, count: usize) -> Vec<SegmentId> {
        (0..count).map(|_| self.next_segment()).collect()
    }

    /// Makes the files of a restored stream, and everything else of it, current with one commit.
    fn install_restored(
        &mut self,
        restored: RestoredStream,
    ) -> Result<Arc<StreamCore>, RestoreError> {
        self.settle_in_doubt()?;
        let RestoredStream {
            id,
            values,
            files,
            ids,
            stream,
        } = restored;
        let opened: BTreeMap<SegmentId, Arc<SealedFile>> = files
            .iter()
            .map(|manifest| {
                let file = open_file(&self.shared, &self.layout, *manifest);
                (manifest.id, Arc::new(file))
            })
            .collect();
        // Before the commit: what cannot serve must not become durable.
        let core = serve(&self.shared, &self.layout, &opened, id, stream);
        let core = core.map_err(|error| {
            let error = std::io::Error::other(error.to_string());
            RestoreError::io(self.layout.meta_dir(), error)
        })?;
        core.lock().config_dirty = false;
        let mut batch = MetaBatch::default();
        let prefix = keys::stream(id);
        for (key, value) in &values {
            batch.put(&[&prefix[..], key].concat(), value);
        }
        let extents = encode_extents(core.lock().extents.iter());
        batch.put(&keys::stream_value(id, kind::EXTENTS), &extents);
        for manifest in &files {
            batch.put(&keys::segment(manifest.id), &encode_manifest(manifest));
        }
        let window = core.lock().id_window();
        let ids = self.prepare_ids(&ids, window)?;
        IdKeeper::put(&ids, &mut batch);
        let counters = self.meta.get(keys::COUNTERS).map(Counters::decode);
        let checkpoint = match counters {
            Some(Ok(counters)) => counters.checkpoint,
            _ => Lsn(0),
        };
        batch.put(keys::COUNTERS, &self.counters(checkpoint).encode());
        for file in opened.values() {
            self.files.add(file.clone());
            self.files.list(id, file.id);
        }
        if let Err(error) = self.commit_files(&mut batch, &BTreeSet::new()) {
            self.failed_ids(ids);
            self.doubt(files.iter().map(|file| file.id));
            return Err(error.into());
        }
        self.committed_ids(ids);
        let mut catalogue = self.catalogue.lock();
        catalogue.by_name.insert(core.name.clone(), core.clone());
        Ok(core)
    }
}
