//! Restoring a backup as a new stream.
//!
//! The messages are written into sealed files of the store first, which nothing names: a crash leaves
//! orphans that the next start removes. Then one metadata commit makes the files and everything else
//! of the stream current, and it serves.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::super::catalogue::Catalogue;
use super::super::keys::kind;
use super::super::layout::Layout;
use super::super::recovery::RecoveredStream;
use super::super::shared::StoreShared;
use super::super::stored::StoredExtent;
use super::super::verify::missing_in;
use super::error::{BackupError, RestoreError};
use super::read::{Backup, stream_of};
use crate::cache::FileKey;
use crate::config::{Compression, StreamConfig};
use crate::dedup::IdKey;
use crate::error::ReadError;
use crate::format::FormatError;
use crate::format::backup::{DataFile, Values};
use crate::format::file_header::FileKind;
use crate::format::id_page::IdEntry;
use crate::format::op::SeqRange;
use crate::format::record::Record;
use crate::ids::{Lsn, SegmentId, Seq, StreamId};
use crate::index::rebuild_run;
use crate::message::Message;
use crate::segment::{Codec, ScanItem, Segment, SegmentManifest, SegmentWriter};
use crate::stream::Stream;
use crate::stream::file_index::{accounted_size, size_by_layout};
use crate::stream::snapshot::{Positions, StoredConsumer, get_consumer, put_consumer_head};

/// What a restore did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RestoreReport {
    /// Messages restored.
    pub msgs: u64,
    /// First live sequence.
    pub first_seq: Seq,
    /// Last sequence ever given.
    pub last_seq: Seq,
    /// Consumers restored.
    pub consumers: usize,
    /// Ranges of messages that were unreadable when the backup was made; they count as removed now.
    pub lost: Vec<(Seq, Seq)>,
}

/// A stream whose messages are in sealed files that no commit names yet.
pub(in crate::store) struct RestoredStream {
    pub id: StreamId,
    /// What the metadata is to hold of it: keys behind the stream's prefix, and values.
    pub values: Values,
    /// The files, all of which the stream lists.
    pub files: Vec<SegmentManifest>,
    /// Its message ids, in order of their hashes.
    pub ids: Vec<IdEntry>,
    pub stream: RecoveredStream,
}

pub(super) fn restore(
    shared: &Arc<StoreShared>,
    catalogue: &Arc<Catalogue>,
    dir: &Path,
    name: Option<&str>,
) -> Result<(Stream, RestoreReport), RestoreError> {
    let backup = Backup::open_existing(&shared.env, dir)?;
    let stream = backup.stream()?;
    let name = name.unwrap_or(&stream.data.config.name).to_owned();
    if name.is_empty() || name.len() > StreamConfig::NAME_BYTES_MAX {
        return Err(RestoreError::Name);
    }
    let reserved = Reserved::new(catalogue, &name).ok_or(RestoreError::Exists)?;
    let count = backup.manifest.files.len();
    let ids = shared.in_maintenance(move |m, _| m.checkpointer.reserve_files(count))?;
    let layout = Layout::new(&shared.dir);
    let mut sealing = Sealing {
        shared,
        backup: &backup,
        layout: &layout,
        id: reserved.id,
        source: &stream,
        seqs: RoaringTreemap::new(),
        bytes: 0,
        files: Vec::new(),
        extents: Vec::new(),
    };
    let sealed = sealing.all(&ids).and_then(|()| sealing.restored(&name));
    let restored = match sealed {
        Ok(restored) => restored,
        Err(error) => {
            discard(shared, &layout, ids);
            return Err(error);
        }
    };
    let report = RestoreReport {
        msgs: restored.stream.data.msgs,
        first_seq: Seq(restored.stream.data.first_seq),
        last_seq: Seq(restored.stream.data.last_seq),
        consumers: restored.stream.consumers.len(),
        lost: backup.manifest.lost.clone(),
    };
    let core = shared.in_maintenance(move |m, _| m.install_restored(restored))??;
    drop(reserved);
    shared.wake.ask();
    Ok((Stream { core }, report))
}

/// A name and an id that no other stream gets meanwhile.
struct Reserved<'a> {
    catalogue: &'a Catalogue,
    name: String,
    id: StreamId,
}

impl<'a> Reserved<'a> {
    fn new(catalogue: &'a Catalogue, name: &str) -> Option<Reserved<'a>> {
        let mut inner = catalogue.lock();
        if inner.is_taken(name) {
            return None;
        }
        inner.reserved.insert(name.to_owned());
        let id = StreamId(inner.next_stream_id);
        inner.next_stream_id += 1;
        Some(Reserved {
            catalogue,
            name: name.to_owned(),
            id,
        })
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.catalogue.lock().reserved.remove(&self.name);
    }
}

/// Removes files of a restore that failed. What cannot be removed, the next start removes.
fn discard(shared: &StoreShared, layout: &Layout, ids: Vec<SegmentId>) {
    for id in ids {
        for (kind, path) in [
            (FileKind::Segment, layout.segment(id)),
            (FileKind::Index, layout.index(id)),
        ] {
            shared.cache.forget_content(FileKey::new(kind, id.0));
            let _ = shared.env.io.remove(&path);
        }
    }
}

/// Writes the messages of a backup into sealed files of the store.
struct Sealing<'a> {
    shared: &'a Arc<StoreShared>,
    backup: &'a Backup,
    layout: &'a Layout,
    /// The new stream.
    id: StreamId,
    /// The stream as the backup has it.
    source: &'a RecoveredStream,
    /// What was written: sequences, and the sum of accounted sizes.
    seqs: RoaringTreemap,
    bytes: u64,
    files: Vec<SegmentManifest>,
    extents: Vec<StoredExtent>,
}

impl Sealing<'_> {
    fn all(&mut self, ids: &[SegmentId]) -> Result<(), RestoreError> {
        for (file, id) in self.backup.manifest.files.iter().zip(ids) {
            self.file(file, *id)?;
        }
        for dir in [self.layout.seg_dir(), self.layout.idx_dir()] {
            let synced = self.shared.env.io.sync_dir(&dir);
            synced.map_err(|error| RestoreError::io(dir, error))?;
        }
        Ok(())
    }

    fn file(&mut self, file: &DataFile, id: SegmentId) -> Result<(), RestoreError> {
        let (env, uuid) = (&self.shared.env, self.shared.uuid);
        let path = self.layout.segment(id);
        let at = |error| RestoreError::io(&path, error);
        let mut writer = SegmentWriter::new(env, &path, uuid, id).map_err(at)?;
        let codec = match self.source.data.config.compression {
            Compression::None => Codec::None,
            Compression::S2 => Codec::S2,
        };
        writer.begin_extent(self.id, codec).map_err(at)?;
        let mut failed: Option<RestoreError> = None;
        let segment = self.backup.segment(file);
        let source = self.backup.manifest.stream;
        let walked = segment.walk(source, Seq(0), Seq(u64::MAX), &mut |item| {
            let block = match item {
                ScanItem::Block(block) => block,
                ScanItem::Lost(damage) => {
                    let what = ReadError::Corrupt(Box::new(damage));
                    let damaged = BackupError::damaged(segment.path(), what);
                    failed = Some(damaged.into());
                    return ControlFlow::Break(());
                }
            };
            for message in block.iter() {
                let seq = message.seq.0;
                if !self.source.data.is_live(seq) || self.seqs.contains(seq) {
                    continue;
                }
                // The block verified the checksum that binds these bytes to the source.
                if let Err(error) = writer.push(&rebound(&message, self.id)) {
                    failed = Some(at(error));
                    return ControlFlow::Break(());
                }
                self.seqs.insert(seq);
                self.bytes += u64::from(accounted_size(&message));
            }
            ControlFlow::Continue(())
        });
        if let Some(error) = failed {
            return Err(error);
        }
        walked.map_err(|error| BackupError::damaged(segment.path(), error))?;
        let sealed = writer.finish().map_err(at)?;
        let Some(info) = sealed.extents.first() else {
            // All of it was removed before this backup was made.
            return env.io.remove(&path).map_err(at);
        };
        self.files.push(sealed.manifest);
        self.extents.push(StoredExtent {
            file: id,
            first: info.first_seq.0,
            last: info.last_seq.0,
            msgs: info.msgs,
            bytes: info.bytes,
            first_ts: info.first_ts.0,
            last_ts: info.last_ts.0,
            first_expiry: info.first_expiry,
            first_notice: info.first_notice,
        });
        self.index(sealed.manifest);
        Ok(())
    }

    /// Writes the subjects of a file. A failure costs that work later, nothing else.
    fn index(&self, manifest: SegmentManifest) {
        let (env, uuid) = (&self.shared.env, self.shared.uuid);
        let cache = self.shared.cache.clone();
        let path = self.layout.segment(manifest.id);
        let segment = Segment::open(env, &path, uuid, manifest, cache.clone());
        let run = self.layout.index(manifest.id);
        if let Err(error) = rebuild_run(env, &run, uuid, &segment, &size_by_layout, &cache) {
            tracing::warn!(%error, "an index run was not written");
        }
    }

    /// The stream as it is to be in the store.
    fn restored(&mut self, name: &str) -> Result<RestoredStream, RestoreError> {
        let data = &self.source.data;
        let manifest = &self.backup.manifest;
        let mut lost = Vec::new();
        for (first, last) in missing_in(data, data.first_seq, data.last_seq, &self.seqs) {
            let known = manifest.lost.iter();
            let mut known = known.filter(|(from, to)| from.0 <= first && last <= to.0);
            if known.next().is_none() {
                let what = format!("sequences {first} to {last} are in no data file");
                return Err(BackupError::damaged(self.backup.place.manifest(), what).into());
            }
            lost.push(SeqRange {
                first: Seq(first),
                count: last - first + 1,
            });
        }
        let damaged = |error| BackupError::damaged(self.backup.place.manifest(), error);
        let mut stream = self.backup.stream()?;
        stream.data.apply_remove(&lost, 0);
        stream.data.bytes = self.bytes;
        let values = self.values(name, &mut stream).map_err(damaged)?;
        let mut stream = stream_of(self.id, &values).map_err(damaged)?;
        stream.extents = std::mem::take(&mut self.extents);
        Ok(RestoredStream {
            id: self.id,
            values,
            files: std::mem::take(&mut self.files),
            ids: self.ids().map_err(damaged)?,
            stream,
        })
    }

    /// The message ids of the stream, as those of the new one.
    fn ids(&self) -> Result<Vec<IdEntry>, FormatError> {
        let mask = IdKey::new(self.shared.dedup_seed, self.id, 0).mask();
        let values = self.backup.manifest.values.iter();
        let mut ids = Vec::new();
        for (_, value) in values.filter(|(key, _)| key.first() == Some(&kind::IDS)) {
            ids.extend(IdEntry::decode_all(value)?.map(|id| IdEntry {
                hash: id.hash ^ mask,
                stream: self.id,
                ..id
            }));
        }
        ids.sort_unstable_by_key(|id| id.hash);
        Ok(ids)
    }

    /// The values of the stream with its new name and ids. No position of the source's log means
    /// anything here: the values contain no operation of this store's log.
    fn values(&self, name: &str, stream: &mut RecoveredStream) -> Result<Values, FormatError> {
        let mut values = BTreeMap::new();
        // New ids of consumers, whose heads sort before their containers.
        let mut consumers = BTreeMap::new();
        for (key, value) in &self.backup.manifest.values {
            match key.first() {
                Some(&kind::CONFIG) => {
                    let config = StreamConfig {
                        name: name.to_owned(),
                        ..stream.data.config.clone()
                    };
                    let mut value = stream.data.created.0.to_le_bytes().to_vec();
                    config.encode(&mut value);
                    values.insert(key.clone(), value);
                }
                Some(&kind::POSITIONS) => {
                    let positions = Positions {
                        applied: Lsn(0),
                        ..Positions::of(&stream.data)
                    };
                    values.insert(key.clone(), positions.encode());
                }
                Some(&kind::CONSUMER) => {
                    let (StoredConsumer::Head(state, created, _), Some(old)) =
                        (get_consumer(value)?, number(key))
                    else {
                        continue;
                    };
                    let id = self.shared.next_consumer_id().0;
                    consumers.insert(old, id);
                    let mut value = Vec::new();
                    put_consumer_head(&state, created, Lsn(0), &mut value);
                    values.insert(renumbered(key, id), value);
                }
                Some(&kind::CONSUMER_CONTAINER) => {
                    let id = number(key).and_then(|old| consumers.get(&old));
                    if let Some(id) = id {
                        values.insert(renumbered(key, *id), value.clone());
                    }
                }
                // They go into a file of the store.
                Some(&kind::IDS) => {}
                // What was to be erased is in no file of this store.
                Some(&kind::ERASURES) => {}
                _ => drop(values.insert(key.clone(), value.clone())),
            }
        }
        // What the loss of messages changed.
        for (container, bits) in stream.data.tombstones.take_dirty() {
            let key = [&[kind::TOMBSTONES][..], &container.to_be_bytes()].concat();
            match bits {
                Some(bits) => drop(values.insert(key, bits)),
                None => drop(values.remove(&key)),
            }
        }
        Ok(values.into_iter().collect())
    }
}

/// The number behind a key's kind.
fn number(key: &[u8]) -> Option<u64> {
    let (number, _) = key.get(1..)?.split_first_chunk::<8>()?;
    Some(u64::from_be_bytes(*number))
}

/// The key with another number.
fn renumbered(key: &[u8], id: u64) -> Vec<u8> {
    let rest = key.get(9..).unwrap_or_default();
    [&key[..1], &id.to_be_bytes(), rest].concat()
}

/// The record of a message in another stream: the same bytes, bound to the new id.
fn rebound(message: &Message, stream: StreamId) -> Record<'_> {
    let mut record = message.as_record();
    record.crc = record.computed_crc(stream);
    record
}
