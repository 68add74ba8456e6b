//! Makes the result of a compaction current.
//!
//! One metadata commit names the new files, gives every touched stream its new list of extents, and
//! drops the old files. Before it everything removed so far is durable: what was left out of the new
//! files must not come back with a restart. A crash leaves the old state or the new one, and files
//! that the next start removes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::job::Finished;
use super::measure::by_id;
use crate::ids::{Lsn, SegmentId, StreamId};
use crate::invariants;
use crate::meta::MetaBatch;
use crate::store::checkpoint::Checkpointer;
use crate::store::error::CheckpointError;
use crate::store::keys::{self, kind};
use crate::store::stored::{encode_extents, encode_manifest};
use crate::stream::core::StreamCore;
use crate::stream::extent::Extent;
use crate::stream::state::StreamData;

/// Makes everything up to a log position durable.
pub(super) type Wait<'a> = &'a mut dyn FnMut(Lsn) -> Result<(), CheckpointError>;

/// Replaces `inputs` by `outputs`.
///
/// # Errors
///
/// Nothing has changed then, and the outputs are taken care of.
pub(super) fn install(
    store: &mut Checkpointer,
    inputs: &BTreeSet<SegmentId>,
    outputs: &[Finished],
    wait: Wait<'_>,
) -> Result<(), CheckpointError> {
    // First of all: a stream that is not here any more was deleted before, and its deletion is
    // durable after the wait.
    let streams = by_id(store.catalogue.file_streams());
    let prepared = prepare(store, outputs, wait);
    prepared.inspect_err(|_| discard(store, outputs))?;
    let change = Change::of(store, &streams, inputs, outputs);
    let mut batch = change.batch;
    for output in outputs {
        let id = output.file.id;
        let listing = change.listing.get(&id);
        store.files.add(output.file.clone());
        for stream in listing.into_iter().flatten() {
            store.files.list(*stream, id);
        }
        if listing.is_some() {
            let manifest = encode_manifest(output.file.segment.manifest());
            batch.put(&keys::segment(id), &manifest);
        }
    }
    if let Err(error) = store.commit_files(&mut batch, &change.unlisted) {
        store.doubt(outputs.iter().map(|output| output.file.id));
        return Err(error);
    }
    for (core, extents) in change.extents {
        let mut data = core.lock();
        if !data.deleted {
            data.set_extents(extents);
            data.layout_epoch += 1;
            if data.erasures.iter().next().is_some() {
                // Merged runs know the subjects of what is to leave the disk. They are made anew.
                let runs = data.runs.clone();
                runs.iter().for_each(|run| data.drop_run(run));
                store.shared.index_work.store(true, Ordering::Release);
            }
            invariants::debug_check(&data);
        }
    }
    Ok(())
}

fn prepare(
    store: &mut Checkpointer,
    outputs: &[Finished],
    wait: Wait<'_>,
) -> Result<(), CheckpointError> {
    if !outputs.is_empty() {
        let dir = store.layout.seg_dir();
        let synced = store.shared.env.io.sync_dir(&dir);
        synced.map_err(|error| CheckpointError::from_io(dir, error))?;
    }
    wait(store.shared.queue.assigned_lsn())?;
    store.settle_in_doubt()
}

/// No commit names these.
fn discard(store: &mut Checkpointer, outputs: &[Finished]) {
    for output in outputs {
        store.files.remove(output.file.id);
    }
}

/// What a compaction changes.
#[derive(Default)]
struct Change {
    batch: MetaBatch,
    extents: Vec<(Arc<StreamCore>, Vec<Extent>)>,
    unlisted: BTreeSet<(SegmentId, StreamId)>,
    /// Streams that list each output.
    listing: BTreeMap<SegmentId, BTreeSet<StreamId>>,
}

impl Change {
    fn of(
        store: &Checkpointer,
        streams: &HashMap<StreamId, Arc<StreamCore>>,
        inputs: &BTreeSet<SegmentId>,
        outputs: &[Finished],
    ) -> Change {
        let mut change = Change::default();
        let touched: BTreeSet<StreamId> = inputs
            .iter()
            .filter_map(|id| store.files.get(*id))
            .flat_map(|listed| listed.streams.iter().copied())
            .collect();
        for stream in touched {
            let key = keys::stream_value(stream, kind::EXTENTS);
            let Some(core) = streams.get(&stream) else {
                // What else the metadata has of it stays until its deletion leaves the log.
                change.batch.delete(&key);
                let all = store.files.of_stream(stream);
                change.unlisted.extend(all.map(|id| (id, stream)));
                continue;
            };
            let extents = {
                let data = core.lock();
                if data.deleted {
                    // Since a moment ago: nobody knows yet whether that is durable.
                    continue;
                }
                replaced(&data, stream, inputs, outputs)
            };
            for extent in &extents {
                if outputs.iter().any(|o| o.file.id == extent.file.id) {
                    let listing = change.listing.entry(extent.file.id).or_default();
                    listing.insert(stream);
                }
            }
            change.batch.put(&key, &encode_extents(&extents));
            let inputs = inputs.iter().map(|id| (*id, stream));
            change.unlisted.extend(inputs);
            change.extents.push((core.clone(), extents));
        }
        change
    }
}

/// A stream's extents afterwards. Of the outputs only those with something live: the rest was
/// removed while they were written.
fn replaced(
    data: &StreamData,
    stream: StreamId,
    inputs: &BTreeSet<SegmentId>,
    outputs: &[Finished],
) -> Vec<Extent> {
    let kept = data.extents.iter().filter(|e| !inputs.contains(&e.file.id));
    let new = outputs.iter().filter_map(|o| o.extents.get(&stream));
    let new = new.filter(|extent| data.live_in(extent.first, extent.last) > 0);
    let mut extents: Vec<Extent> = kept.chain(new).cloned().collect();
    extents.sort_by_key(|extent| extent.first);
    extents
}
