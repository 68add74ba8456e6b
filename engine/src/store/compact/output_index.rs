//! The subjects of a file that compaction writes, taken from the index runs of what it was copied
//! from: in steps, and without reading the new file. Where a run of these is missing or damaged the
//! index is made from the new file's blocks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::job::Finished;
use super::measure::by_id;
use crate::ids::{Seq, StreamId};
use crate::index::{Merge, MergeError, MergeInput, MergeScope, RunSource, RunWriter, rebuild_run};
use crate::store::checkpoint::Checkpointer;
use crate::store::merge_runs::LONG_KEY_BYTES_MAX;
use crate::stream::extent::SealedFile;
use crate::stream::file_index::size_by_layout;
use crate::stream::index_part::is_covered;

/// Keys and postings handled in one step: some tens of milliseconds.
const STEP: usize = 1 << 16;
/// Each input holds a page in RAM. A file of many small streams has more.
const INPUTS_MAX: usize = 256;

/// The messages that a file was given, by stream.
pub(super) type Copied = BTreeMap<StreamId, RoaringTreemap>;

/// The making of an index under way.
pub(super) struct OutputIndex {
    file: Arc<SealedFile>,
    path: PathBuf,
    copied: Copied,
    merge: Merge,
}

impl OutputIndex {
    /// Begins with the index of a complete file, or does all there is to do.
    pub fn begin(store: &Checkpointer, output: &Finished, copied: Copied) -> Option<OutputIndex> {
        if answers_elsewhere(store, output) {
            return None;
        }
        let path = store.layout.index(output.file.id);
        let begun = inputs(store, output).map(|inputs| {
            let env = &store.shared.env;
            let source = RunSource::Segment(*output.file.segment.manifest());
            let keys = inputs.iter().map(|input| input.run.keys()).sum::<u64>();
            let msgs = copied.values().map(RoaringTreemap::len).sum();
            let writer = RunWriter::new(env, &path, store.shared.uuid, source, keys.min(msgs))?;
            Merge::new(inputs, writer)
        });
        match begun {
            Some(Ok(merge)) => Some(OutputIndex {
                file: output.file.clone(),
                path,
                copied,
                merge,
            }),
            Some(Err(error)) => {
                tracing::warn!(file = %path.display(), %error, "index runs were not merged");
                from_blocks(store, &output.file);
                None
            }
            None => {
                from_blocks(store, &output.file);
                None
            }
        }
    }

    /// Does a part of the work; `None` when all is done.
    pub fn step(mut self, store: &Checkpointer) -> Option<OutputIndex> {
        let copied = &self.copied;
        let advanced = self.merge.advance(STEP, &mut |stream, postings| {
            let own = copied.get(&stream);
            postings.retain(|(seq, _)| own.is_some_and(|own| own.contains(seq.0)));
        });
        let wanted = copied.values().map(RoaringTreemap::len).sum::<u64>();
        let finished = match advanced {
            Ok(false) => return Some(self),
            Ok(true) => self.merge.finish().map_err(MergeError::Output),
            Err(error) => Err(error),
        };
        let path = self.path.display();
        match finished {
            Ok(sealed) if sealed.postings == wanted => return None,
            Ok(sealed) => {
                let known = sealed.postings;
                tracing::warn!(file = %path, known, wanted, "index runs miss messages");
            }
            Err(error) => tracing::warn!(file = %path, %error, "index runs were not merged"),
        }
        from_blocks(store, &self.file);
        None
    }

    /// Does the rest of the work.
    pub fn complete(self, store: &Checkpointer) {
        let mut left = Some(self);
        while let Some(index) = left {
            left = index.step(store);
        }
    }
}

/// True if merged runs know all messages of a file: nobody asks for its own run.
fn answers_elsewhere(store: &Checkpointer, output: &Finished) -> bool {
    let streams = by_id(store.catalogue.file_streams());
    output.extents.iter().all(|(stream, extent)| {
        streams.get(stream).is_some_and(|core| {
            let runs = core.lock().runs.clone();
            is_covered(&runs, extent.first, extent.last)
        })
    })
}

/// The runs that know the messages of a file; `None` if one of them cannot be used as it is.
fn inputs(store: &Checkpointer, output: &Finished) -> Option<Vec<MergeInput>> {
    let streams = by_id(store.catalogue.file_streams());
    let mut inputs = Vec::new();
    let mut long_key_bytes = 0;
    for (stream, extent) in &output.extents {
        let parts = streams.get(stream)?.lock().index_parts.clone();
        let from = parts.partition_point(|part| part.last < extent.first);
        for part in parts.get(from..).unwrap_or_default() {
            if part.first > extent.last {
                break;
            }
            let run = part.ready()?;
            long_key_bytes += run.long_key_bytes_max();
            if inputs.len() == INPUTS_MAX || long_key_bytes > LONG_KEY_BYTES_MAX {
                return None;
            }
            inputs.push(MergeInput {
                run,
                scope: Some(MergeScope {
                    stream: *stream,
                    first: Seq(part.first.max(extent.first)),
                    last: Seq(part.last.min(extent.last)),
                }),
            });
        }
    }
    Some(inputs)
}

/// Makes the index from the blocks of the file.
fn from_blocks(store: &Checkpointer, file: &SealedFile) {
    let shared = &store.shared;
    let path = store.layout.index(file.id);
    let (env, cache, size) = (&shared.env, &shared.cache, &size_by_layout);
    if let Err(error) = rebuild_run(env, &path, shared.uuid, &file.segment, size, cache) {
        // It is derived: it will be made when it is first needed.
        tracing::warn!(file = %path.display(), %error, "an index run was not written");
        let _ = env.io.remove(&path);
    }
}
