//! Writes a damaged file's replacement and makes it current.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::super::checkpoint::{Checkpointer, open_file};
use super::super::error::CheckpointError;
use super::super::jobs::Wait;
use super::super::keys::{self, kind};
use super::super::layout::Layout;
use super::super::shared::StoreShared;
use super::super::stored::{encode_extents, encode_manifest};
use super::super::verify::missing_in;
use super::fetch::Fetch;
use super::report::RepairError;
use super::source::RangeSource;
use crate::config::Compression;
use crate::ids::{SegmentId, Seq};
use crate::index::rebuild_run;
use crate::io::OpenMode;
use crate::meta::MetaBatch;
use crate::segment::{Codec, ExtentInfo, ScanItem, SegmentManifest, SegmentWriter};
use crate::stream::core::StreamCore;
use crate::stream::extent::{Extent, SealedFile};
use crate::stream::file_index::size_by_layout;

/// Bytes of a damaged file that are set aside at a time.
const COPY_BYTES: usize = 1 << 20;

/// A stream's extent in a damaged file of which nothing is lost any more, once the ranges that the
/// source has are there.
pub(super) struct Part {
    pub core: Arc<StreamCore>,
    pub extent: Extent,
    /// Lost ranges that the source has.
    pub gaps: Vec<(u64, u64)>,
}

/// A written replacement that no commit names.
pub(super) struct Replacement {
    manifest: Option<SegmentManifest>,
    id: SegmentId,
    parts: Vec<Written>,
}

struct Written {
    core: Arc<StreamCore>,
    old: Extent,
    info: Option<ExtentInfo>,
    seqs: RoaringTreemap,
}

/// Writes what is live of `parts` into the file `id`.
pub(super) fn write(
    shared: &Arc<StoreShared>,
    layout: &Layout,
    id: SegmentId,
    parts: Vec<Part>,
    source: Option<&dyn RangeSource>,
) -> Result<Replacement, RepairError> {
    let path = layout.segment(id);
    let at = |error| RepairError::io(&path, error);
    let mut writer = SegmentWriter::new(&shared.env, &path, shared.uuid, id).map_err(at)?;
    let mut written = Vec::new();
    for part in parts {
        let codec = match part.core.compression() {
            Compression::None => Codec::None,
            Compression::S2 => Codec::S2,
        };
        writer.begin_extent(part.core.id, codec).map_err(at)?;
        let mut push = Push {
            part: &part,
            source,
            path: &path,
            writer: &mut writer,
            next_gap: 0,
            seqs: RoaringTreemap::new(),
        };
        push.all()?;
        written.push(Written {
            seqs: push.seqs,
            info: None,
            old: part.extent,
            core: part.core,
        });
    }
    let sealed = writer.finish().map_err(at)?;
    for part in &mut written {
        let of_stream = |info: &&ExtentInfo| info.stream == part.core.id;
        part.info = sealed.extents.iter().find(of_stream).copied();
    }
    let holds_any = written.iter().any(|part| part.info.is_some());
    let dir = layout.seg_dir();
    let synced = shared.env.io.sync_dir(&dir);
    synced.map_err(|error| RepairError::io(dir, error))?;
    Ok(Replacement {
        manifest: holds_any.then_some(sealed.manifest),
        id,
        parts: written,
    })
}

/// Copies one part in order of sequence: what is readable, and between that what the source has.
struct Push<'a> {
    part: &'a Part,
    source: Option<&'a dyn RangeSource>,
    path: &'a PathBuf,
    writer: &'a mut SegmentWriter,
    next_gap: usize,
    seqs: RoaringTreemap,
}

impl Push<'_> {
    fn all(&mut self) -> Result<(), RepairError> {
        let part = self.part;
        let extent = &part.extent;
        let segment = &extent.file.segment;
        let (first, last) = (Seq(extent.first), Seq(extent.last));
        let mut failed = None;
        let walked = segment.walk(part.core.id, first, last, &mut |item| {
            let ScanItem::Block(block) = item else {
                return ControlFlow::Continue(());
            };
            let live: Vec<bool> = {
                let data = part.core.lock();
                let inside = |seq: Seq| first <= seq && seq <= last;
                let live = block.iter();
                live.map(|m| inside(m.seq) && data.is_live(m.seq.0))
                    .collect()
            };
            for (message, _) in block.iter().zip(live).filter(|(_, live)| *live) {
                let pushed = self
                    .gaps_before(message.seq.0)
                    .and_then(|()| self.push(&message));
                if let Err(error) = pushed {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        match (failed, walked) {
            (Some(error), _) => return Err(error),
            (None, Err(crate::error::ReadError::Io { source, .. }))
                if source.kind() == ErrorKind::NotFound => {}
            (None, Err(error)) => {
                let error = std::io::Error::other(error.to_string());
                return Err(RepairError::io(segment.path(), error));
            }
            (None, Ok(())) => {}
        }
        self.gaps_before(u64::MAX)
    }

    /// Writes what the source has of the lost ranges below `seq`.
    fn gaps_before(&mut self, seq: u64) -> Result<(), RepairError> {
        while let Some((first, last)) = self.part.gaps.get(self.next_gap).copied()
            && first < seq
        {
            self.next_gap += 1;
            let Some(source) = self.source else { continue };
            let fetch = Fetch {
                core: &self.part.core,
                segment: &self.part.extent.file.segment,
                source,
            };
            let mut next = first;
            while next <= last {
                let piece = fetch.piece(next, last)?;
                for message in &piece.messages {
                    if self.part.core.lock().is_live(message.seq.0) {
                        self.push(message)?;
                    }
                }
                next = piece.last.saturating_add(1);
            }
        }
        Ok(())
    }

    fn push(&mut self, message: &crate::message::Message) -> Result<(), RepairError> {
        let pushed = self.writer.push(&message.as_record());
        pushed.map_err(|error| RepairError::io(self.path, error))?;
        self.seqs.insert(message.seq.0);
        Ok(())
    }
}

/// Puts a copy of a damaged file where nothing touches it. Places that cannot be read become zeros.
pub(super) fn set_aside(
    shared: &StoreShared,
    layout: &Layout,
    file: &SealedFile,
) -> Result<Option<PathBuf>, RepairError> {
    let io = &shared.env.io;
    let from = match io.open(file.segment.path(), OpenMode::Read) {
        Ok(from) => from,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RepairError::io(file.segment.path(), error)),
    };
    let dir = layout.quarantine_dir();
    io.create_dir_all(&dir)
        .map_err(|error| RepairError::io(&dir, error))?;
    let path = dir.join(format!("{:016x}.seg", file.id.0));
    let at = |error| RepairError::io(&path, error);
    match io.remove(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(error)),
        // A copy that an interrupted repair made, whole or not.
        _ => {}
    }
    let to = io.open(&path, OpenMode::CreateNew).map_err(at)?;
    let len = from.len().map_err(at)?;
    let mut offset = 0;
    let mut bytes = vec![0; COPY_BYTES];
    while offset < len {
        let part = usize::try_from(len - offset).unwrap_or(usize::MAX);
        let part = &mut bytes[..part.min(COPY_BYTES)];
        match from.read_at(part, offset) {
            Ok(read) => part[read..].fill(0),
            Err(_) => part.fill(0),
        }
        to.write_at(part, offset).map_err(at)?;
        offset += part.len() as u64;
    }
    to.sync_data().map_err(at)?;
    io.sync_dir(&dir)
        .map_err(|error| RepairError::io(&dir, error))?;
    Ok(Some(path))
}

/// Makes a replacement current for every stream that still has the damaged extent and nothing live
/// that the replacement lacks. Returns how many streams that are.
pub(super) fn install(
    store: &mut Checkpointer,
    replacement: Replacement,
    wait: Wait<'_>,
) -> Result<usize, CheckpointError> {
    let Replacement {
        manifest,
        id,
        parts,
    } = replacement;
    // What was removed while the file was written must not come back with a restart.
    let prepared = wait(store.shared.queue.assigned_lsn()).and_then(|()| store.settle_in_doubt());
    if let Err(error) = prepared {
        store.files.remove(id);
        store.files.unlink();
        return Err(error);
    }
    let file = manifest.map(|manifest| Arc::new(open_file(&store.shared, &store.layout, manifest)));
    let mut batch = MetaBatch::default();
    let mut unlisted = BTreeSet::new();
    let mut changed = Vec::new();
    let mut is_named = false;
    for part in &parts {
        let Some(extents) = extents_after(part, file.as_ref()) else {
            continue;
        };
        let stream = part.core.id;
        let key = keys::stream_value(stream, kind::EXTENTS);
        batch.put(&key, &encode_extents(&extents));
        unlisted.insert((part.old.file.id, stream));
        is_named |= extents.iter().any(|extent| extent.file.id == id);
        changed.push((part.core.clone(), extents));
    }
    if let (Some(file), true) = (&file, is_named) {
        batch.put(
            &keys::segment(id),
            &encode_manifest(file.segment.manifest()),
        );
        store.files.add(file.clone());
        for (core, extents) in &changed {
            if extents.iter().any(|extent| extent.file.id == id) {
                store.files.list(core.id, id);
            }
        }
    } else {
        store.files.remove(id);
    }
    if changed.is_empty() {
        store.files.unlink();
        return Ok(0);
    }
    if let Err(error) = store.commit_files(&mut batch, &unlisted) {
        store.doubt([id].into_iter());
        return Err(error);
    }
    let count = changed.len();
    for (core, extents) in changed {
        let mut data = core.lock();
        if !data.deleted {
            data.set_extents(extents);
            data.layout_epoch += 1;
            data.priors.clear();
        }
    }
    drop((parts, file));
    store.files.unlink();
    Ok(count)
}

/// A stream's extents with the replacement; `None` if it has to stay as it is.
fn extents_after(part: &Written, file: Option<&Arc<SealedFile>>) -> Option<Vec<Extent>> {
    let data = part.core.lock();
    let old = &part.old;
    if data.deleted {
        return None;
    }
    let is_old = |extent: &Extent| {
        extent.file.id == old.file.id && extent.first == old.first && extent.last == old.last
    };
    let position = data.extents.iter().position(is_old)?;
    if !missing_in(&data, old.first, old.last, &part.seqs).is_empty() {
        return None;
    }
    let mut extents = data.extents.as_ref().clone();
    extents.remove(position);
    if let (Some(info), Some(file)) = (&part.info, file)
        && data.live_in(info.first_seq.0, info.last_seq.0) > 0
    {
        let new = Extent::sealed(info, file);
        extents.insert(position, new);
    }
    Some(extents)
}

/// Writes the subjects of the replacement. A failure costs that work later, nothing else.
pub(super) fn index(shared: &StoreShared, layout: &Layout, replacement: &Replacement) {
    let Some(manifest) = replacement.manifest else {
        return;
    };
    let file = open_file(shared, layout, manifest);
    let run = layout.index(manifest.id);
    let (env, cache) = (&shared.env, &shared.cache);
    if let Err(error) = rebuild_run(
        env,
        &run,
        shared.uuid,
        &file.segment,
        &size_by_layout,
        cache,
    ) {
        tracing::warn!(%error, "an index run was not written");
    }
}
