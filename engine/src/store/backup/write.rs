//! Making a backup.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::super::error::CheckpointError;
use super::Place;
use super::current::Snapshot;
use super::error::BackupError;
use super::read::{Backup, stream_of};
use crate::config::Compression;
use crate::error::{Corrupt, ReadError};
use crate::format::backup::{DataFile, Manifest};
use crate::format::file_header::FileKind;
use crate::ids::{Lsn, SegmentId, Seq, TimestampNs};
use crate::io::{Env, OpenMode};
use crate::segment::{Codec, ScanItem, SegmentWriter};
use crate::stream::core::StreamCore;
use crate::stream::extent::Extent;
use crate::stream::state::StreamData;

/// What a backup did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BackupReport {
    /// Operations of the log up to here are contained.
    pub lsn: Lsn,
    /// Last sequence of the stream in the backup.
    pub last_seq: Seq,
    /// Live messages in the backup.
    pub msgs: u64,
    /// Data files that were written now.
    pub files_written: u64,
    /// Bytes of these files.
    pub bytes_written: u64,
    /// Data files that an earlier backup had written and that are still needed.
    pub files_kept: u64,
    /// Data files that an earlier backup had written and that were removed.
    pub files_removed: u64,
    /// Live messages that could not be read and are not in the backup, by range.
    pub lost: Vec<Corrupt>,
}

pub(super) fn backup(core: &Arc<StreamCore>, dir: &Path) -> Result<BackupReport, BackupError> {
    if !core.is_file() {
        return Err(BackupError::Memory);
    }
    let env = core.shared.env.clone();
    let earlier = prepare(&env, core, dir)?;
    let snapshot = {
        let core = core.clone();
        let taken = core.shared.clone();
        taken.in_maintenance(move |maintenance, wait| maintenance.snapshot(&core, wait))?
    };
    let snapshot = snapshot.map_err(|error| match error {
        CheckpointError::Stopped(stopped) => BackupError::Stopped(stopped),
        error => BackupError::Checkpoint(error),
    })?;
    let snapshot = snapshot.ok_or(BackupError::Deleted)?;
    let stream = stream_of(core.id, &snapshot.values)
        .map_err(|error| BackupError::damaged(core.shared.dir.join("meta"), error))?;
    let place = Place::new(dir);
    let (uuid, next_file) = match &earlier {
        Some(earlier) => (earlier.uuid, earlier.manifest.next_file),
        None => (random_uuid(&env), 1),
    };
    let mut copy = Copy {
        core,
        data: &stream.data,
        env: &env,
        place,
        uuid,
        next_file,
        files: Vec::new(),
        report: BackupReport {
            lsn: snapshot.lsn,
            last_seq: Seq(stream.data.last_seq),
            msgs: stream
                .data
                .live_in(stream.data.first_seq, stream.data.last_seq),
            ..BackupReport::default()
        },
    };
    copy.messages(&snapshot, earlier.as_ref())?;
    copy.finish(snapshot)
}

/// Looks at the directory: creates it, or returns the backup in it. Leftovers of an interrupted
/// backup are removed.
fn prepare(env: &Env, core: &StreamCore, dir: &Path) -> Result<Option<Backup>, BackupError> {
    let place = Place::new(dir);
    let io = &env.io;
    io.create_dir_all(dir)
        .map_err(|error| BackupError::io(dir, error))?;
    let entries = io.list(dir).map_err(|error| BackupError::io(dir, error))?;
    let ours = ["MANIFEST", "MANIFEST.new", "data"];
    if entries.iter().any(|e| !ours.contains(&e.name.as_str())) {
        return Err(BackupError::NotABackup {
            dir: dir.to_path_buf(),
        });
    }
    let earlier = Backup::open(env, dir)?;
    if let Some(earlier) = &earlier {
        let manifest = &earlier.manifest;
        if (manifest.store_uuid, manifest.stream) != (core.shared.uuid, core.id) {
            return Err(BackupError::OtherStream {
                dir: dir.to_path_buf(),
            });
        }
    }
    let data_dir = place.data_dir();
    io.create_dir_all(&data_dir)
        .map_err(|error| BackupError::io(data_dir, error))?;
    let named = earlier.iter().flat_map(|e| &e.manifest.files);
    remove_unnamed(env, &place, &named.copied().collect::<Vec<_>>())?;
    Ok(earlier)
}

/// Removes data files that are not `named`, and returns how many.
fn remove_unnamed(env: &Env, place: &Place, named: &[DataFile]) -> Result<u64, BackupError> {
    let dir = place.data_dir();
    let entries = env.io.list(&dir);
    let entries = entries.map_err(|error| BackupError::io(&dir, error))?;
    let mut removed = 0;
    for entry in entries {
        let Some(no) = Place::parse(&entry.name) else {
            continue;
        };
        if !named.iter().any(|file| file.no == no) {
            let path = dir.join(&entry.name);
            env.io
                .remove(&path)
                .map_err(|error| BackupError::io(path, error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn random_uuid(env: &Env) -> u128 {
    u128::from(env.entropy.next_u64()) << 64 | u128::from(env.entropy.next_u64())
}

/// A backup under way.
struct Copy<'a> {
    core: &'a StreamCore,
    /// The stream at the moment of the backup, without messages.
    data: &'a StreamData,
    env: &'a Env,
    place: Place,
    uuid: u128,
    next_file: u64,
    files: Vec<DataFile>,
    report: BackupReport,
}

impl Copy<'_> {
    /// Copies what an earlier backup does not have.
    fn messages(
        &mut self,
        snapshot: &Snapshot,
        earlier: Option<&Backup>,
    ) -> Result<(), BackupError> {
        let kept: BTreeMap<(SegmentId, u64), &DataFile> = earlier
            .iter()
            .flat_map(|earlier| &earlier.manifest.files)
            .filter(|file| file.is_whole && self.is_there(file))
            .map(|file| ((file.source, file.source_digest), file))
            .collect();
        for extent in snapshot.extents.iter() {
            if self.data.live_in(extent.first, extent.last) == 0 {
                continue;
            }
            let digest = extent.file.segment.manifest().footer_digest;
            match kept.get(&(extent.file.id, digest)) {
                Some(file) => {
                    self.files.push(**file);
                    self.report.files_kept += 1;
                }
                None => self.extent(extent)?,
            }
        }
        Ok(())
    }

    fn is_there(&self, file: &DataFile) -> bool {
        let opened = self.env.io.open(&self.place.data(file.no), OpenMode::Read);
        opened.and_then(|opened| opened.len()).ok() == Some(file.file_bytes)
    }

    /// Copies the live messages of an extent into a data file.
    fn extent(&mut self, extent: &Extent) -> Result<(), BackupError> {
        let no = self.next_file;
        self.next_file += 1;
        let path = self.place.data(no);
        let at = |error| BackupError::io(&path, error);
        let mut writer =
            SegmentWriter::new(self.env, &path, self.uuid, SegmentId(no)).map_err(at)?;
        let codec = match self.data.config.compression {
            Compression::None => Codec::None,
            Compression::S2 => Codec::S2,
        };
        writer.begin_extent(self.core.id, codec).map_err(at)?;
        let mut lost = Vec::new();
        let mut failed = None;
        let (first, last) = (Seq(extent.first), Seq(extent.last));
        let walked = extent
            .file
            .segment
            .walk(self.core.id, first, last, &mut |item| {
                let block = match item {
                    ScanItem::Block(block) => block,
                    ScanItem::Lost(damage) => {
                        lost.push(damage);
                        return ControlFlow::Continue(());
                    }
                };
                for message in block.iter().filter(|m| self.data.is_live(m.seq.0)) {
                    if let Err(error) = writer.push(&message.as_record()) {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            });
        match walked {
            Ok(()) => {}
            Err(ReadError::Io { file, source }) if source.kind() == ErrorKind::NotFound => {
                lost.push(Corrupt {
                    stream: self.core.id,
                    first,
                    last,
                    file,
                    offset: 0,
                    reason: "the file is missing".into(),
                });
            }
            Err(error) => return Err(BackupError::Read(error)),
        }
        if let Some(error) = failed {
            return Err(at(error));
        }
        lost.retain(|damage| {
            let (first, last) = (
                damage.first.0.max(extent.first),
                damage.last.0.min(extent.last),
            );
            self.data.live_in(first, last) > 0
        });
        let sealed = writer.finish().map_err(at)?;
        if let Some(info) = sealed.extents.first() {
            self.files.push(DataFile {
                no,
                file_bytes: sealed.manifest.file_bytes,
                footer_digest: sealed.manifest.footer_digest,
                key: sealed.manifest.key,
                source: extent.file.id,
                source_digest: extent.file.segment.manifest().footer_digest,
                first: info.first_seq,
                last: info.last_seq,
                is_whole: lost.is_empty(),
            });
            self.report.files_written += 1;
            self.report.bytes_written += sealed.manifest.file_bytes;
        }
        for damage in &lost {
            tracing::error!(
                stream = %self.core.name,
                first = damage.first.0,
                last = damage.last.0,
                file = %damage.file.display(),
                "damaged messages are left out of a backup"
            );
        }
        let clipped = lost.into_iter().map(|damage| Corrupt {
            first: damage.first.max(first),
            last: damage.last.min(last),
            ..damage
        });
        self.report.lost.extend(clipped);
        Ok(())
    }

    /// Makes the new backup the one in the directory.
    fn finish(mut self, snapshot: Snapshot) -> Result<BackupReport, BackupError> {
        let io = &self.env.io;
        let (data_dir, dir) = (self.place.data_dir(), self.place.dir.clone());
        io.sync_dir(&data_dir)
            .map_err(|error| BackupError::io(&data_dir, error))?;
        let manifest = Manifest {
            store_uuid: self.core.shared.uuid,
            stream: self.core.id,
            taken_at: TimestampNs(self.env.clock.now_ns()),
            lsn: self.report.lsn,
            next_file: self.next_file,
            values: snapshot.values,
            files: self.files,
            lost: ranges(&self.report.lost),
        };
        let sealer = self.env.sealer(FileKind::Backup, self.uuid, 0);
        let path = self.place.new_manifest();
        let at = |error| BackupError::io(&path, error);
        match io.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(error)),
            _ => {}
        }
        let file = io.open(&path, OpenMode::CreateNew).map_err(at)?;
        file.write_at(&manifest.seal(&sealer), 0).map_err(at)?;
        file.sync_data().map_err(at)?;
        io.rename(&path, &self.place.manifest()).map_err(at)?;
        io.sync_dir(&dir)
            .map_err(|error| BackupError::io(dir, error))?;
        self.report.files_removed = remove_unnamed(self.env, &self.place, &manifest.files)?;
        Ok(self.report)
    }
}

/// Ranges that do not overlap, ascending.
fn ranges(lost: &[Corrupt]) -> Vec<(Seq, Seq)> {
    let mut sorted: Vec<(Seq, Seq)> = lost.iter().map(|l| (l.first, l.last)).collect();
    sorted.sort_unstable();
    let mut ranges: Vec<(Seq, Seq)> = Vec::new();
    for (first, last) in sorted {
        match ranges.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => ranges.push((first, last)),
        }
    }
    ranges
}
