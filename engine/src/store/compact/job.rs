//! One compaction: copies what is live in some files into new ones, step by step.
//!
//! Records are checked and copied as they are: their checksums are those of their acceptance (I11).
//! What was removed when a record's turn came is left out; tombstones are not touched, so a message
//! that is removed later is dead in the new file as it was in the old one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use super::erase::Erased;
use super::measure::by_id;
use super::output_index::{Copied, OutputIndex};
use crate::config::Compression;
use crate::error::ReadError;
use crate::ids::{SegmentId, Seq, StreamId};
use crate::segment::{Codec, DecodedBlock, SegmentWriter};
use crate::store::checkpoint::{Checkpointer, open_file};
use crate::store::error::CheckpointError;
use crate::stream::core::StreamCore;
use crate::stream::extent::{Extent, SealedFile};

/// Why a job cannot go on.
#[derive(Debug)]
pub(super) enum Failure {
    /// This file is damaged: what is lost in it is reported as long as it is not rewritten.
    Damaged(SegmentId, String),
    /// A call failed; the job may work later.
    Failed(CheckpointError),
}

/// Part of a stream that goes into one output: its extents in input files with no extent in another
/// file between them. An output has at most one extent of a stream, and nothing of the stream in
/// other files lies inside it.
struct Part {
    core: Arc<StreamCore>,
    first: u64,
    last: u64,
}

/// An extent that is being copied.
struct Source {
    extent: Extent,
    /// Where copying goes on.
    next: Seq,
}

/// The stream whose part is being copied.
struct Copying {
    core: Arc<StreamCore>,
    codec: Codec,
    sources: VecDeque<Source>,
    /// The current output has an extent of the stream.
    begun: bool,
}

/// A new file that is not complete.
struct Output {
    id: SegmentId,
    path: PathBuf,
    writer: SegmentWriter,
    copied: Copied,
}

/// A complete new file that no commit names yet.
pub(super) struct Finished {
    pub file: Arc<SealedFile>,
    /// What it holds, by stream.
    pub extents: BTreeMap<StreamId, Extent>,
}

/// See the [module](self).
pub(super) struct Job {
    /// The files that are replaced. Held, so that they can be read to the end.
    pub inputs: BTreeMap<SegmentId, Arc<SealedFile>>,
    /// Erasures that the job was begun for.
    pub erases: Vec<Erased>,
    /// Parts by output; a stream has at most one in each.
    levels: VecDeque<VecDeque<Part>>,
    copying: Option<Copying>,
    output: Option<Output>,
    /// The index of the output that was completed last.
    index: Option<OutputIndex>,
    pub outputs: Vec<Finished>,
    output_bytes_max: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
}

impl Job {
    /// Plans a job for `inputs`.
    pub fn plan(
        store: &Checkpointer,
        inputs: &[SegmentId],
        streams: &[Arc<StreamCore>],
        output_bytes_max: u64,
    ) -> Job {
        let mut files = BTreeMap::new();
        let mut listing = BTreeSet::new();
        for listed in inputs.iter().filter_map(|id| store.files.get(*id)) {
            files.insert(listed.file.id, listed.file.clone());
            listing.extend(&listed.streams);
        }
        let streams = by_id(streams.to_vec());
        let mut levels: VecDeque<VecDeque<Part>> = VecDeque::new();
        for core in listing.iter().filter_map(|id| streams.get(id)) {
            for (level, (first, last)) in parts_of(core, &files).into_iter().enumerate() {
                if levels.len() == level {
                    levels.push_back(VecDeque::new());
                }
                let core = core.clone();
                levels[level].push_back(Part { core, first, last });
            }
        }
        Job {
            inputs: files,
            erases: Vec::new(),
            levels,
            copying: None,
            output: None,
            index: None,
            outputs: Vec::new(),
            output_bytes_max,
            bytes_read: 0,
            bytes_written: 0,
        }
    }

    /// Outputs that the job writes at least.
    pub fn outputs_min(&self) -> usize {
        self.levels.len()
    }

    /// Copies about `bytes` more, or does a part of an output's index. True when everything is copied
    /// and every output is complete.
    pub fn step(&mut self, store: &mut Checkpointer, bytes: u64) -> Result<bool, Failure> {
        if self.index.is_some() {
            self.index_step(store);
            return Ok(false);
        }
        let end = self.bytes_read.saturating_add(bytes);
        while self.bytes_read < end {
            if self.copying.is_none() && !self.next_part(store)? {
                self.index_step(store);
                return Ok(self.index.is_none());
            }
            self.copy_block(store)?;
        }
        Ok(false)
    }

    fn index_step(&mut self, store: &Checkpointer) {
        self.index = self.index.take().and_then(|index| index.step(store));
    }

    /// Begins with the next part; false when there is none.
    fn next_part(&mut self, store: &mut Checkpointer) -> Result<bool, Failure> {
        while let Some(level) = self.levels.front_mut() {
            let Some(part) = level.pop_front() else {
                self.levels.pop_front();
                self.finish_output(store)?;
                continue;
            };
            let (extents, compression, deleted) = {
                let data = part.core.lock();
                (data.extents.clone(), data.config.compression, data.deleted)
            };
            let sources: VecDeque<Source> = extents
                .iter()
                .filter(|extent| extent.first >= part.first && extent.last <= part.last)
                .filter(|extent| self.inputs.contains_key(&extent.file.id))
                .map(|extent| Source {
                    next: Seq(extent.first),
                    extent: extent.clone(),
                })
                .collect();
            if deleted || sources.is_empty() {
                continue;
            }
            self.copying = Some(Copying {
                core: part.core,
                codec: match compression {
                    Compression::None => Codec::None,
                    Compression::S2 => Codec::S2,
                },
                sources,
                begun: false,
            });
            return Ok(true);
        }
        Ok(false)
    }

    /// Copies the live messages of the next block.
    fn copy_block(&mut self, store: &mut Checkpointer) -> Result<(), Failure> {
        let Some(copying) = &self.copying else {
            return Ok(());
        };
        let core = copying.core.clone();
        let Some(source) = copying.sources.front() else {
            self.copying = None;
            return Ok(());
        };
        let (extent, next) = (source.extent.clone(), source.next);
        // A stretch of which nothing is live is not even read.
        let skipped = {
            let data = core.lock();
            let live = data.tombstones.next_live(next.0.max(data.first_seq));
            Seq(live.max(next.0))
        };
        let block = match skipped.0 > extent.last {
            true => None,
            false => self.read(&extent, core.id, skipped)?,
        };
        let Some(block) = block else {
            self.copying.as_mut().map(|c| c.sources.pop_front());
            let left = core.lock().live_in(next.0, extent.last);
            return check_whole(&extent, &[], left);
        };
        let last = block.last_seq().0.min(extent.last);
        let (live, expected) = {
            let data = core.lock();
            let wanted = |seq: Seq| (skipped.0..=last).contains(&seq.0) && data.is_live(seq.0);
            let live: Vec<bool> = block.iter().map(|message| wanted(message.seq)).collect();
            (live, data.live_in(skipped.0, last))
        };
        check_whole(&extent, &live, expected)?;
        self.push(store, &core, &block, &live)?;
        if let Some(source) = self.copying.as_mut().and_then(|c| c.sources.front_mut()) {
            source.next = block.last_seq().next();
        }
        Ok(())
    }

    fn read(
        &mut self,
        extent: &Extent,
        stream: StreamId,
        from: Seq,
    ) -> Result<Option<Arc<DecodedBlock>>, Failure> {
        match extent.file.segment.block_past_cache(stream, from) {
            Ok(Some((block, bytes))) => {
                self.bytes_read += bytes;
                Ok(Some(block))
            }
            Ok(None) => Ok(None),
            Err(error @ (ReadError::Corrupt(_) | ReadError::DamagedIds(_))) => {
                Err(Failure::Damaged(extent.file.id, error.to_string()))
            }
            Err(ReadError::Io { file, source }) => {
                let source = std::io::Error::new(source.kind(), source.to_string());
                Err(Failure::Failed(CheckpointError::from_io(file, source)))
            }
        }
    }

    fn push(
        &mut self,
        store: &mut Checkpointer,
        core: &StreamCore,
        block: &DecodedBlock,
        live: &[bool],
    ) -> Result<(), Failure> {
        for (message, live) in block.iter().zip(live) {
            if !*live {
                continue;
            }
            let record = message.as_record();
            let len = record.encoded_len() as u64;
            let full = |output: &Output| {
                let bytes = output.writer.bytes();
                bytes >= self.output_bytes_max
                    || (len > self.output_bytes_max / 2 && bytes + len > self.output_bytes_max)
            };
            if self.output.as_ref().is_some_and(full) {
                self.finish_output(store)?;
            }
            if self.output.is_none() {
                self.output = Some(new_output(store)?);
            }
            let (Some(output), Some(copying)) = (&mut self.output, &mut self.copying) else {
                return Ok(());
            };
            let failed = |error| Failure::Failed(CheckpointError::from_io(&output.path, error));
            if !copying.begun {
                let begun = output.writer.begin_extent(core.id, copying.codec);
                begun.map_err(failed)?;
                copying.begun = true;
            }
            output.writer.push(&record).map_err(failed)?;
            let copied = output.copied.entry(core.id).or_default();
            copied.insert(message.seq.0);
        }
        Ok(())
    }

    /// Completes the current output and begins with its index.
    fn finish_output(&mut self, store: &mut Checkpointer) -> Result<(), Failure> {
        let Some(output) = self.output.take() else {
            return Ok(());
        };
        let Output {
            id,
            path,
            writer,
            copied,
        } = output;
        if let Some(copying) = &mut self.copying {
            copying.begun = false;
        }
        let sealed = match writer.finish() {
            Ok(sealed) => sealed,
            Err(error) => {
                store.files.remove(id);
                return Err(Failure::Failed(CheckpointError::from_io(path, error)));
            }
        };
        self.bytes_written += sealed.manifest.file_bytes;
        let shared = store.shared.clone();
        let file = Arc::new(open_file(&shared, &store.layout, sealed.manifest));
        let extents = sealed.extents.iter();
        let extents = extents
            .map(|info| (info.stream, Extent::sealed(info, &file)))
            .collect();
        let finished = Finished { file, extents };
        if let Some(index) = self.index.take() {
            index.complete(store);
        }
        self.index = OutputIndex::begin(store, &finished, copied);
        self.outputs.push(finished);
        Ok(())
    }

    /// Gives up: removes what was written.
    pub fn abandon(mut self, store: &mut Checkpointer) {
        (self.copying, self.index) = (None, None);
        if let Some(output) = self.output.take() {
            store.files.remove(output.id);
        }
        for output in self.outputs.drain(..) {
            let id = output.file.id;
            drop(output);
            store.files.remove(id);
        }
        self.inputs.clear();
        store.files.unlink();
    }
}

fn new_output(store: &mut Checkpointer) -> Result<Output, Failure> {
    let id = store.next_segment();
    let path = store.layout.segment(id);
    let shared = &store.shared;
    match SegmentWriter::new(&shared.env, &path, shared.uuid, id) {
        Ok(writer) => Ok(Output {
            id,
            path,
            writer,
            copied: Copied::new(),
        }),
        Err(error) => {
            store.files.remove(id);
            Err(Failure::Failed(CheckpointError::from_io(path, error)))
        }
    }
}

/// A live message that is not where it should be would be gone for good with the file, and nothing
/// would report it any more (I4).
fn check_whole(extent: &Extent, found: &[bool], expected: u64) -> Result<(), Failure> {
    let found = found.iter().filter(|live| **live).count() as u64;
    if found >= expected {
        return Ok(());
    }
    let missing = format!("{} live messages are missing", expected - found);
    Err(Failure::Damaged(extent.file.id, missing))
}

/// First and last sequences of a stream's neighbouring extents in input files.
fn parts_of(core: &StreamCore, inputs: &BTreeMap<SegmentId, Arc<SealedFile>>) -> Vec<(u64, u64)> {
    let mut parts: Vec<(u64, u64)> = Vec::new();
    let mut adjoins = false;
    for extent in core.lock().extents.iter() {
        let is_input = inputs.contains_key(&extent.file.id);
        match parts.last_mut() {
            Some(part) if is_input && adjoins => part.1 = extent.last,
            _ if is_input => parts.push((extent.first, extent.last)),
            _ => {}
        }
        adjoins = is_input;
    }
    parts
}
