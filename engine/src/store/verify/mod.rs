//! Checks everything a store keeps on disk and changes nothing.
//!
//! Reads in the order of opening: identity, metadata, log, and then every byte of every sealed file.
//! What is lost is said per stream with exact sequences: a live message is readable, or it is in a
//! reported range.

mod ids;
mod report;
pub(super) mod sealed;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roaring::RoaringTreemap;

pub use report::{Finding, FindingKind, VerifiedStream, VerifyReport};

use self::sealed::{Contents, check_run};
use super::error::OpenError;
use super::identity;
use super::layout::Layout;
use super::open::check_keys;
use super::options::StoreOptions;
use super::recovery::Recovered;
use super::shared::StoreShared;
use crate::cache::Cache;
use crate::error::{Corrupt, ReadError};
use crate::format::file_header::FileHeader;
use crate::ids::{SegmentId, Seq, StreamId};
use crate::index::{RunCheck, RunError, RunIdentity};
use crate::io::read_only::ReadOnlyIo;
use crate::io::{Env, OpenMode};
use crate::meta::{MetaError, MetaLog};
use crate::segment::{Segment, SegmentManifest};
use crate::stream::file_index::accounted_size;
use crate::stream::state::StreamData;
use crate::wal;

/// Room for separators and pages of the file that is being checked.
const CACHE_BYTES: u64 = 4 << 20;

pub(super) fn verify(
    env: &Env,
    dir: &Path,
    options: &StoreOptions,
) -> Result<VerifyReport, OpenError> {
    let env = Env {
        io: Arc::new(ReadOnlyIo::new(env.io.clone())),
        ..options.env(env.clone())
    };
    let layout = Layout::new(dir);
    let _lock = take_lock(&env, &layout)?;
    let mut verify = Verify {
        report: VerifyReport {
            dir: dir.to_path_buf(),
            ..VerifyReport::default()
        },
        env,
        layout,
        uuid: 0,
        streams: BTreeMap::new(),
        index_files: BTreeSet::new(),
    };
    verify.identity()?;
    match verify.state()? {
        Some(recovered) => verify.sealed_files(&recovered),
        None => verify.files_without_metadata()?,
    }
    Ok(verify.report)
}

/// Keeps others from opening the store meanwhile. Where there is no lock file nobody has it open,
/// and none is made.
fn take_lock(env: &Env, layout: &Layout) -> Result<Option<Box<dyn Send + Sync>>, OpenError> {
    match env.io.lock(&layout.lock()) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(OpenError::Locked {
            file: layout.lock(),
        }),
        // A store on a medium that takes no locks can be checked as well.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => Ok(None),
        Err(error) => Err(OpenError::io(layout.lock(), error)),
    }
}

struct Verify {
    env: Env,
    layout: Layout,
    report: VerifyReport,
    uuid: u128,
    streams: BTreeMap<StreamId, Tally>,
    /// Index files that streams are answered from.
    index_files: BTreeSet<SegmentId>,
}

/// What was read of a stream so far.
#[derive(Debug, Default)]
struct Tally {
    msgs: u64,
    bytes: u64,
    lost: Vec<Corrupt>,
}

impl Verify {
    /// Reads `FORMAT`; if it is unreadable, the newest metadata file says whose it is.
    fn identity(&mut self) -> Result<(), OpenError> {
        let file = self.layout.format();
        let (header, bytes) = match self.header(&file) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let dir = self.layout.dir().to_path_buf();
                let entries = self.env.io.list(&dir);
                let entries = entries.map_err(|error| OpenError::io(&dir, error))?;
                if !entries.iter().any(|entry| entry.name == "meta") {
                    return Err(OpenError::NotAStore { dir });
                }
                (Err(crate::format::FormatError::Truncated), Vec::new())
            }
            Err(error) => return Err(OpenError::io(file, error)),
        };
        match header {
            Ok(header) => {
                self.uuid = header.store_uuid;
                self.checked(bytes.len() as u64);
                match identity::check_key(&self.env, &self.layout, &header, &bytes) {
                    Err(missing @ OpenError::KeyMissing { .. }) => return Err(missing),
                    Err(error) => self.report.find(FindingKind::Refuses, file, None, error),
                    Ok(()) => {}
                }
            }
            Err(error) => {
                self.report.find(FindingKind::Refuses, file, Some(0), error);
                let names = self.env.io.list(&self.layout.meta_dir());
                let newest = names.unwrap_or_default().into_iter();
                let newest = newest.rev().find(|entry| entry.name.ends_with(".log"));
                if let Some(entry) = newest
                    && let Ok((Ok(header), _)) =
                        self.header(&self.layout.meta_dir().join(&entry.name))
                {
                    self.uuid = header.store_uuid;
                }
            }
        }
        Ok(())
    }

    /// The header of a file and the bytes it starts with.
    fn header(
        &self,
        file: &Path,
    ) -> std::io::Result<(Result<FileHeader, crate::format::FormatError>, Vec<u8>)> {
        let opened = self.env.io.open(file, OpenMode::Read)?;
        let mut bytes = vec![0; identity::BYTES_MAX];
        let len = opened.read_at(&mut bytes, 0)?;
        bytes.truncate(len);
        Ok((FileHeader::decode(&bytes), bytes))
    }

    fn checked(&mut self, bytes: u64) {
        self.report.files += 1;
        self.report.bytes += bytes;
    }

    /// Metadata and log: the state that opening would recover, or as much of it as there is.
    ///
    /// # Errors
    ///
    /// [`OpenError::KeyMissing`]: without a key nothing can be said.
    fn state(&mut self) -> Result<Option<Recovered>, OpenError> {
        let dir = self.layout.meta_dir();
        let meta = match MetaLog::read(&self.env, &dir, self.uuid) {
            Ok((meta, file, bytes)) => {
                self.checked(bytes);
                self.other_meta_files(&file);
                meta
            }
            Err(MetaError::KeyMissing {
                file,
                key: Some(key),
            }) => return Err(identity::key_missing(&self.env, file, key)),
            Err(error) => {
                let offset = match &error {
                    MetaError::Damaged { offset, .. } => Some(*offset),
                    _ => None,
                };
                let file = error.file().to_path_buf();
                self.report.find(FindingKind::Refuses, file, offset, error);
                return Ok(None);
            }
        };
        if let Some(cut) = meta.cut() {
            let what = format!("a torn metadata commit: {}", cut.reason);
            self.report
                .find(FindingKind::Cut, &cut.file, Some(cut.offset), what);
        }
        let Some(mut recovered) = self.recover(&meta) else {
            return Ok(None);
        };
        check_keys(&self.env, &self.layout, &recovered)?;
        let Err(refusal) = self.replay(&mut recovered, false) else {
            return Ok(Some(recovered));
        };
        if let wal::RecoverError::KeyMissing {
            file,
            key: Some(key),
        } = refusal
        {
            return Err(identity::key_missing(&self.env, file, key));
        }
        let dir = self.layout.wal_dir();
        self.report.find(FindingKind::Refuses, dir, None, refusal);
        let Some(mut salvaged) = self.recover(&meta) else {
            return Ok(None);
        };
        salvaged.salvage = true;
        if let Err(error) = self.replay(&mut salvaged, true) {
            let dir = self.layout.wal_dir();
            self.report.find(FindingKind::Lost, dir, None, error);
        }
        Ok(Some(salvaged))
    }

    fn recover(&mut self, meta: &MetaLog) -> Option<Recovered> {
        let seed = StoreShared::dedup_seed_of(self.uuid);
        match Recovered::from_meta(meta, seed) {
            Ok(recovered) => Some(recovered),
            Err(error) => {
                let what = format!("a metadata value cannot be used: {error}");
                let dir = self.layout.meta_dir();
                self.report.find(FindingKind::Refuses, dir, None, what);
                None
            }
        }
    }

    fn other_meta_files(&mut self, newest: &Path) {
        let dir = self.layout.meta_dir();
        for entry in self.env.io.list(&dir).into_iter().flatten() {
            let file = dir.join(&entry.name);
            if file != newest {
                let what = "left by an interruption; the next start removes it";
                self.report.find(FindingKind::Orphan, file, None, what);
            }
        }
    }

    /// Reads the log as opening does. What it makes of damage is in the table of [`wal::recover`].
    fn replay(
        &mut self,
        recovered: &mut Recovered,
        salvage: bool,
    ) -> Result<(), wal::RecoverError> {
        let dir = self.layout.wal_dir();
        let after = recovered.checkpoint;
        let read = wal::recover(
            &self.env,
            &dir,
            self.uuid,
            after,
            salvage,
            &mut |lsn, op| recovered.apply(lsn, &op),
        )?;
        self.report.files += read.old_files.len() as u64;
        self.report.bytes += read.bytes_read;
        if let Some(cut) = &read.cut {
            let what = format!(
                "the log ends before operation {}: {}; {} valid frames behind it were never \
                 acknowledged",
                cut.lsn, cut.reason, cut.frames_valid
            );
            self.report
                .find(FindingKind::Cut, &cut.file, Some(cut.offset), what);
        }
        for lost in &read.lost {
            let what = format!(
                "acknowledged operations {} to {} are damaged",
                lost.first_lsn, lost.last_lsn
            );
            self.report
                .find(FindingKind::Lost, &lost.file, Some(lost.offset), what);
        }
        if read.harmless_damage > 0 {
            let what = format!(
                "{} damaged places that held nothing that is still needed",
                read.harmless_damage
            );
            self.report.find(FindingKind::Harmless, &dir, None, what);
        }
        let (file, offset) = match read.lost.first() {
            Some(lost) => (lost.file.clone(), lost.offset),
            None => (dir, 0),
        };
        for (stream, first, last) in &recovered.lost {
            self.tally(*stream).lost.push(Corrupt {
                stream: *stream,
                first: Seq(*first),
                last: Seq(*last),
                file: file.clone(),
                offset,
                reason: "the operations that stored them are damaged in the log".into(),
            });
        }
        Ok(())
    }

    fn tally(&mut self, stream: StreamId) -> &mut Tally {
        self.streams.entry(stream).or_default()
    }

    fn sealed_files(&mut self, recovered: &Recovered) {
        self.index_files = recovered.index_files();
        self.orphans(&recovered.segments.keys().copied().collect());
        self.merged_runs(recovered);
        let mut listing: BTreeMap<SegmentId, Vec<StreamId>> = BTreeMap::new();
        for (stream, known) in &recovered.streams {
            for extent in &known.extents {
                listing.entry(extent.file).or_default().push(*stream);
            }
        }
        for (id, streams) in &listing {
            if !recovered.segments.contains_key(id) {
                let what = format!(
                    "stream {:?} lists segment {id}, which has no manifest",
                    streams
                );
                let dir = self.layout.meta_dir();
                self.report.find(FindingKind::Refuses, dir, None, what);
            }
        }
        for (id, manifest) in &recovered.segments {
            let streams = listing.remove(id).unwrap_or_default();
            self.sealed_file(manifest, &streams, recovered);
        }
        self.id_files(recovered);
        for (id, stream) in &recovered.streams {
            self.between_files(*id, recovered);
            self.count_tail(*id, &stream.data);
            self.finish_stream(*id, &stream.data);
        }
    }

    fn segment(&self, manifest: &SegmentManifest) -> Segment {
        let path = self.layout.segment(manifest.id);
        let cache = Arc::new(Cache::new(CACHE_BYTES, 2));
        Segment::open(&self.env, &path, self.uuid, *manifest, cache)
    }

    fn sealed_file(
        &mut self,
        manifest: &SegmentManifest,
        streams: &[StreamId],
        recovered: &Recovered,
    ) {
        let segment = self.segment(manifest);
        let id = manifest.id;
        let is_wanted = |stream: StreamId, seq: u64| {
            recovered.streams.get(&stream).is_some_and(|known| {
                let extents = &known.extents;
                let at = extents.partition_point(|extent| extent.last < seq);
                let listed = extents.get(at);
                listed.is_some_and(|e| e.file == id && e.first <= seq) && known.data.is_live(seq)
            })
        };
        let mut tallies: BTreeMap<StreamId, Tally> = BTreeMap::new();
        let contents = Contents::read(&segment, &mut |stream, message| {
            if is_wanted(stream, message.seq.0) {
                let tally = tallies.entry(stream).or_default();
                tally.msgs += 1;
                tally.bytes += u64::from(accounted_size(message));
            }
        });
        let contents = match contents {
            Ok(contents) => contents,
            Err(error) => {
                let what = match &error {
                    ReadError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                        "the file is missing".to_owned()
                    }
                    error => error.to_string(),
                };
                self.report
                    .find(FindingKind::Lost, segment.path(), None, &what);
                let reason = |stream: StreamId, seq: u64| Corrupt {
                    stream,
                    first: Seq(seq),
                    last: Seq(seq),
                    file: segment.path().to_path_buf(),
                    offset: 0,
                    reason: what.clone(),
                };
                self.lose_missing(id, streams, recovered, &Contents::default(), &reason);
                return;
            }
        };
        self.checked(contents.check.report.bytes);
        for (offset, what) in &contents.check.report.harmless {
            self.report
                .find(FindingKind::Harmless, segment.path(), Some(*offset), what);
        }
        for (stream, read) in tallies {
            let tally = self.tally(stream);
            tally.msgs += read.msgs;
            tally.bytes += read.bytes;
        }
        let reason = |stream: StreamId, seq: u64| contents.reason(&segment, stream, seq);
        self.lose_missing(id, streams, recovered, &contents, &reason);
        self.damage_without_loss(&segment, &contents);
        if self.index_files.contains(&id) {
            self.index_run(id, &segment, &contents);
        }
    }

    /// Notes the live messages that a file should hold and does not.
    fn lose_missing(
        &mut self,
        id: SegmentId,
        streams: &[StreamId],
        recovered: &Recovered,
        contents: &Contents,
        reason: &dyn Fn(StreamId, u64) -> Corrupt,
    ) {
        for stream in streams {
            let Some(known) = recovered.streams.get(stream) else {
                continue;
            };
            for extent in known.extents.iter().filter(|extent| extent.file == id) {
                let held = contents.seqs(*stream);
                let lost = missing_in(&known.data, extent.first, extent.last, held);
                for (first, last) in lost {
                    self.tally(*stream).lost.push(Corrupt {
                        stream: *stream,
                        first: Seq(first),
                        last: Seq(last),
                        ..reason(*stream, first)
                    });
                }
            }
        }
    }

    /// Damage that hit removed messages only.
    fn damage_without_loss(&mut self, segment: &Segment, contents: &Contents) {
        let report = &contents.check.report;
        for damage in report.lost.iter().chain(&report.unreadable) {
            let costs = self.streams.values().flat_map(|tally| &tally.lost);
            let mut costs = costs.filter(|lost| lost.file == damage.file);
            if !costs.any(|lost| lost.offset == damage.offset) {
                let what = format!(
                    "sequences {} to {} of stream {}, all removed: {}",
                    damage.first, damage.last, damage.stream, damage.reason
                );
                let offset = Some(damage.offset);
                self.report
                    .find(FindingKind::Harmless, segment.path(), offset, what);
            }
        }
    }

    fn index_run(&mut self, id: SegmentId, segment: &Segment, contents: &Contents) {
        let path = self.layout.index(id);
        match check_run(&self.env, &path, self.uuid, segment, contents) {
            Ok((bytes, damage)) => {
                self.checked(bytes);
                for (offset, what) in damage {
                    self.report.find(FindingKind::Derived, &path, offset, what);
                }
            }
            Err(RunError::Io { source, .. }) => {
                self.report.find(FindingKind::Derived, &path, None, source);
            }
            Err(error) => self.report.find(FindingKind::Derived, &path, None, error),
        }
    }

    /// Checks every page of the merged index runs.
    fn merged_runs(&mut self, recovered: &Recovered) {
        for run in recovered.streams.values().flat_map(|stream| &stream.runs) {
            let path = self.layout.index(run.manifest.id);
            let wanted = RunIdentity::Exactly(run.manifest);
            let mut check = RunCheck::default();
            let checked = loop {
                match check.step(&self.env, &path, self.uuid, &wanted) {
                    Ok(false) => {}
                    Ok(true) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            self.checked(check.bytes);
            if let Err(error) = checked {
                self.report.find(FindingKind::Derived, &path, None, error);
            }
            if check.missing {
                let what = "the index run is missing";
                self.report.find(FindingKind::Derived, &path, None, what);
            }
            for (offset, what) in check.damage {
                let offset = Some(offset);
                self.report.find(FindingKind::Derived, &path, offset, what);
            }
        }
    }

    /// Live sequences that neither a sealed file nor the log holds.
    fn between_files(&mut self, id: StreamId, recovered: &Recovered) {
        let Some(stream) = recovered.streams.get(&id) else {
            return;
        };
        let data = &stream.data;
        let held: RoaringTreemap = data.tail.iter_from(0).map(|m| m.seq.0).collect();
        let mut next = data.first_seq;
        let mut missing = Vec::new();
        for extent in &stream.extents {
            if next < extent.first {
                missing.extend(missing_in(data, next, extent.first - 1, &held));
            }
            next = next.max(extent.last.saturating_add(1));
        }
        missing.extend(missing_in(data, next, data.last_seq, &held));
        for (first, last) in missing {
            let file = self.layout.meta_dir();
            self.tally(id).lost.push(Corrupt {
                stream: id,
                first: Seq(first),
                last: Seq(last),
                file,
                offset: 0,
                reason: "no file holds these sequences".into(),
            });
        }
    }

    fn count_tail(&mut self, id: StreamId, data: &StreamData) {
        let tally = self.tally(id);
        for message in data.tail.iter_from(0) {
            tally.msgs += 1;
            tally.bytes += u64::from(accounted_size(message));
        }
    }

    fn finish_stream(&mut self, id: StreamId, data: &StreamData) {
        let mut tally = std::mem::take(self.tally(id));
        tally.lost.sort_by_key(|lost| lost.first);
        let live = data.live_in(data.first_seq, data.last_seq);
        let counters = [
            ("messages", data.msgs, live),
            ("bytes", data.bytes, tally.bytes),
        ];
        let all_read = tally.lost.is_empty() && tally.msgs == live;
        for (what, kept, counted) in counters {
            if kept != counted && (all_read || what == "messages") {
                let what = format!(
                    "stream {:?} counts {kept} {what}, there are {counted}",
                    data.config.name
                );
                let dir = self.layout.meta_dir();
                self.report.find(FindingKind::Harmless, dir, None, what);
            }
        }
        self.report.streams.push(VerifiedStream {
            id,
            name: data.config.name.clone(),
            first_seq: Seq(data.first_seq),
            last_seq: Seq(data.last_seq),
            msgs: live,
            msgs_readable: tally.msgs,
            lost: tally.lost,
        });
    }

    /// Files that no metadata names.
    fn orphans(&mut self, named: &BTreeSet<SegmentId>) {
        let index_files = self.index_files.clone();
        for (dir, named) in [
            (self.layout.seg_dir(), named),
            (self.layout.idx_dir(), &index_files),
        ] {
            for entry in self.env.io.list(&dir).into_iter().flatten() {
                let id = Layout::parse(&entry.name);
                if id.is_none_or(|id| !named.contains(&id)) {
                    let file = dir.join(&entry.name);
                    let what = "no metadata names it";
                    self.report.find(FindingKind::Orphan, file, None, what);
                }
            }
        }
        let dir = self.layout.quarantine_dir();
        for entry in self.env.io.list(&dir).into_iter().flatten() {
            let what = "set aside by a repair";
            let file = dir.join(&entry.name);
            self.report.find(FindingKind::Orphan, file, None, what);
        }
    }

    /// Sealed files by themselves: each tells from its own footer what it should hold.
    fn files_without_metadata(&mut self) -> Result<(), OpenError> {
        let dir = self.layout.seg_dir();
        let entries = match self.env.io.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(OpenError::io(dir, error)),
        };
        for entry in entries {
            let Some(id) = Layout::parse(&entry.name) else {
                continue;
            };
            let path: PathBuf = dir.join(&entry.name);
            let manifest = match crate::segment::manifest_of(&self.env, &path, self.uuid, id) {
                Ok(manifest) => manifest,
                Err(error) => {
                    self.report.find(FindingKind::Lost, path, None, error);
                    continue;
                }
            };
            let segment = self.segment(&manifest);
            match Contents::read(&segment, &mut |_, _| {}) {
                Ok(contents) => {
                    let report = contents.check.report;
                    self.checked(report.bytes);
                    for lost in report.lost.iter().chain(&report.unreadable) {
                        let what = ReadError::Corrupt(Box::new(lost.clone()));
                        self.report
                            .find(FindingKind::Lost, &path, Some(lost.offset), what);
                    }
                    for (offset, what) in report.harmless {
                        self.report
                            .find(FindingKind::Harmless, &path, Some(offset), what);
                    }
                }
                Err(error) => self.report.find(FindingKind::Lost, &path, None, error),
            }
        }
        Ok(())
    }
}

/// Live sequences in `first..=last` that are not held, as ranges: a range begins and ends with one of
/// them, and no live sequence in it is held.
pub(super) fn missing_in(
    data: &StreamData,
    first: u64,
    last: u64,
    held: &RoaringTreemap,
) -> Vec<(u64, u64)> {
    let (first, last) = (first.max(data.first_seq), last.min(data.last_seq));
    let mut ranges = Vec::new();
    // Between two held sequences.
    let mut gap = |from: u64, to: u64| {
        let first = data.tombstones.next_live(from);
        if first <= to
            && let Some(last) = data.tombstones.prev_live(to)
        {
            ranges.push((first, last));
        }
    };
    let mut from = first;
    let mut held = held.iter();
    held.advance_to(first);
    for seq in held.take_while(|seq| *seq <= last) {
        if seq > from {
            gap(from, seq - 1);
        }
        from = seq + 1;
    }
    if from <= last {
        gap(from, last);
    }
    ranges
}
