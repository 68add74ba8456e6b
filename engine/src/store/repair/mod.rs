//! Repairing damage: while the store serves, or as a run over a closed one.
//!
//! | what is damaged | what happens |
//! |---|---|
//! | an index run | it is made anew from its segment |
//! | parts of a segment that hold no live message | the rest is copied into a new file |
//! | messages that a source has | they are checked and copied with the rest into a new file |
//! | messages that nobody has | they stay reported as damaged, or are removed if that is allowed |
//!
//! A new file becomes current with one metadata commit, for each stream for which it holds everything
//! live. When no stream needs the damaged file any more, a copy of it is in the quarantine directory
//! before it leaves. A crash leaves the old state or the new one; the repair can be run again.

mod fetch;
mod replace;
mod report;
mod source;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

pub use report::{RepairError, RepairOptions, RepairReport, RestoredRange};
pub use source::{RangeSource, SourceError};

use self::fetch::Fetch;
use self::replace::Part;
use super::layout::Layout;
use super::options::{StoreOptions, Threads};
use super::shared::StoreShared;
use super::verify::missing_in;
use super::verify::sealed::{Contents, check_run};
use super::{Catalogue, Store};
use crate::error::{Corrupt, ReadError};
use crate::ids::{Lsn, SegmentId, Seq};
use crate::index::RunError;
use crate::io::Env;
use crate::stream::core::StreamCore;
use crate::stream::extent::Extent;
use crate::stream::index_part::asks_run_of;
use crate::stream::{ChangeError, Stream};

impl Store {
    /// Opens the store in `dir`, repairs what can be repaired, and closes it. Messages that are lost
    /// come back from `source` if it has them.
    ///
    /// # Errors
    ///
    /// See [`RepairError`]. It can be run again.
    pub fn repair(
        dir: &Path,
        options: &StoreOptions,
        repair: &RepairOptions,
        source: Option<&dyn RangeSource>,
    ) -> Result<RepairReport, RepairError> {
        Store::repair_in(&Env::real(), dir, options, repair, source)
    }

    /// As [`Store::repair`], in the given environment.
    pub fn repair_in(
        env: &Env,
        dir: &Path,
        options: &StoreOptions,
        repair: &RepairOptions,
        source: Option<&dyn RangeSource>,
    ) -> Result<RepairReport, RepairError> {
        let options = StoreOptions {
            threads: Threads::Manual,
            salvage: options.salvage || repair.give_up,
            ..options.clone()
        };
        let opened = Store::open_in(env.clone(), dir, options);
        let (store, recovery) = opened.map_err(RepairError::Open)?;
        let report = store.repair_damage(repair, source)?;
        store.close();
        Ok(RepairReport {
            recovery: Some(recovery),
            ..report
        })
    }

    /// Repairs what can be repaired while the store serves. Every sealed byte is read.
    ///
    /// # Errors
    ///
    /// As for [`Store::repair`].
    pub fn repair_damage(
        &self,
        options: &RepairOptions,
        source: Option<&dyn RangeSource>,
    ) -> Result<RepairReport, RepairError> {
        let shared = self.inner.shared.clone();
        let mut repair = Repair {
            layout: Layout::new(&shared.dir),
            shared,
            options: *options,
            source,
            report: RepairReport::default(),
        };
        repair.run(&self.inner.catalogue)?;
        Ok(repair.report)
    }
}

struct Repair<'a> {
    shared: Arc<StoreShared>,
    layout: Layout,
    options: RepairOptions,
    source: Option<&'a dyn RangeSource>,
    report: RepairReport,
}

impl Repair<'_> {
    fn run(&mut self, catalogue: &Catalogue) -> Result<(), RepairError> {
        let mut files: BTreeMap<SegmentId, Vec<(Arc<StreamCore>, Extent)>> = BTreeMap::new();
        for core in catalogue.file_streams() {
            let extents = core.lock().extents.clone();
            for extent in extents.iter() {
                let parts = files.entry(extent.file.id).or_default();
                parts.push((core.clone(), extent.clone()));
            }
        }
        for (_, parts) in files {
            self.file(parts)?;
        }
        let assigned = self.shared.queue.assigned_lsn();
        self.settle(assigned)
    }

    fn settle(&self, lsn: Lsn) -> Result<(), RepairError> {
        let settled = self.shared.settle(lsn);
        settled.map_err(|_| {
            let stopped = self.shared.queue.stopped();
            RepairError::Stopped(stopped.unwrap_or(crate::error::Stopped::Closed))
        })
    }

    /// Checks a file, and replaces it if it is damaged.
    fn file(&mut self, parts: Vec<(Arc<StreamCore>, Extent)>) -> Result<(), RepairError> {
        let Some(file) = parts.first().map(|(_, extent)| extent.file.clone()) else {
            return Ok(());
        };
        let segment = &file.segment;
        self.report.files += 1;
        let (contents, missing) = match Contents::read(segment, &mut |_, _| {}) {
            Ok(contents) => (contents, None),
            Err(ReadError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                (Contents::default(), Some("the file is missing"))
            }
            Err(ReadError::Io { file, source }) => {
                let error = std::io::Error::new(source.kind(), source.to_string());
                return Err(RepairError::io(file, error));
            }
            Err(error) => {
                let error = std::io::Error::other(error.to_string());
                return Err(RepairError::io(segment.path(), error));
            }
        };
        self.report.bytes += contents.check.report.bytes;
        if missing.is_none() && contents.check.report.is_intact() {
            return self.index(&parts, &contents);
        }
        let mut whole = Vec::new();
        let all = parts.len();
        for (core, extent) in parts {
            let reason = |seq: u64| {
                let known = contents.reason(segment, core.id, seq);
                match missing {
                    Some(missing) => Corrupt {
                        reason: missing.into(),
                        ..known
                    },
                    None => known,
                }
            };
            let held = contents.seqs(core.id);
            let gaps = missing_in(&core.lock(), extent.first, extent.last, held);
            if let Some(part) = self.part(&core, &extent, gaps, &reason)? {
                whole.push(part);
            }
        }
        if whole.is_empty() {
            return Ok(());
        }
        let leaves = whole.len() == all;
        if leaves && let Some(path) = replace::set_aside(&self.shared, &self.layout, &file)? {
            self.report.quarantined.push(path);
        }
        let path = file.segment.path().to_path_buf();
        drop(file);
        self.replace(whole)?;
        if leaves {
            self.shared.damage.forget_file(&path);
        }
        Ok(())
    }

    fn replace(&mut self, parts: Vec<Part>) -> Result<(), RepairError> {
        let ids = self
            .shared
            .in_maintenance(|m, _| m.checkpointer.reserve_files(1))?;
        let Some(id) = ids.first().copied() else {
            return Ok(());
        };
        let written = replace::write(&self.shared, &self.layout, id, parts, self.source);
        let replacement = written.inspect_err(|_| {
            // Nothing names it; what cannot be removed, the next start removes.
            let _ = self.shared.env.io.remove(&self.layout.segment(id));
        })?;
        replace::index(&self.shared, &self.layout, &replacement);
        let installed = self.shared.in_maintenance(move |m, wait| {
            replace::install(&mut m.checkpointer, replacement, wait)
        })?;
        installed?;
        Ok(())
    }

    /// The part of a damaged file that a stream has, if nothing of it is lost in the end.
    fn part(
        &mut self,
        core: &Arc<StreamCore>,
        extent: &Extent,
        gaps: Vec<(u64, u64)>,
        reason: &dyn Fn(u64) -> Corrupt,
    ) -> Result<Option<Part>, RepairError> {
        let mut restored = Vec::new();
        let mut there = roaring::RoaringTreemap::new();
        if let Some(source) = self.source {
            let fetch = Fetch {
                core,
                segment: &extent.file.segment,
                source,
            };
            for (first, last) in &gaps {
                let mut next = *first;
                while next <= *last {
                    let piece = fetch.piece(next, *last)?;
                    let live = piece.messages.iter().map(|m| m.seq.0);
                    let live: Vec<u64> = {
                        let data = core.lock();
                        live.filter(|seq| data.is_live(*seq)).collect()
                    };
                    if let (Some(first), Some(last)) = (live.first(), live.last()) {
                        restored.push(RestoredRange {
                            stream: core.name.clone(),
                            first: Seq(*first),
                            last: Seq(*last),
                            msgs: live.len() as u64,
                            proven: piece.proven,
                        });
                    }
                    there.extend(live);
                    next = piece.last.saturating_add(1);
                }
            }
        }
        let mut left = Vec::new();
        for (first, last) in &gaps {
            let missing = missing_in(&core.lock(), *first, *last, &there);
            left.extend(missing.into_iter().map(|(first, last)| Corrupt {
                stream: core.id,
                first: Seq(first),
                last: Seq(last),
                ..reason(first)
            }));
        }
        if !left.is_empty() && !self.options.give_up {
            self.report.left.extend(left);
            return Ok(None);
        }
        for lost in left {
            self.give_up(core, lost.first.0, lost.last.0)?;
            tracing::error!(
                stream = %core.name,
                first = lost.first.0,
                last = lost.last.0,
                file = %lost.file.display(),
                "lost messages are given up"
            );
            self.report.given_up.push(lost);
        }
        self.report.restored.extend(restored);
        Ok(Some(Part {
            core: core.clone(),
            extent: extent.clone(),
            gaps,
        }))
    }

    /// Removes live messages that nobody has.
    fn give_up(&self, core: &Arc<StreamCore>, first: u64, last: u64) -> Result<(), RepairError> {
        let stream = Stream { core: core.clone() };
        let live = |from: u64| {
            let data = core.lock();
            data.tombstones.next_live(from.max(data.first_seq))
        };
        let mut seq = live(first);
        while seq <= last {
            match stream.delete(Seq(seq)) {
                Ok(_) => {}
                // Not even its size is known.
                Err(ChangeError::Read(_)) => {
                    core.remove(vec![(seq, 0)]).map_err(not_removed)?;
                    let consumers = core.lock_consumers();
                    let consumers: Vec<_> = consumers.values().cloned().collect();
                    for consumer in consumers {
                        consumer.message_deleted(Seq(seq));
                    }
                }
                Err(error) => return Err(not_removed(error)),
            }
            seq = live(seq + 1);
        }
        Ok(())
    }

    /// Makes the index of an intact file anew if it is damaged.
    fn index(
        &mut self,
        parts: &[(Arc<StreamCore>, Extent)],
        contents: &Contents,
    ) -> Result<(), RepairError> {
        let Some((_, extent)) = parts.first() else {
            return Ok(());
        };
        let file = &extent.file;
        let asked = |core: &StreamCore| {
            let parts = core.lock().index_parts.clone();
            asks_run_of(&parts, file.id)
        };
        if !parts.iter().any(|(core, _)| asked(core)) {
            return Ok(());
        }
        let (env, uuid) = (&self.shared.env, self.shared.uuid);
        let path = self.layout.index(file.id);
        match check_run(env, &path, uuid, &file.segment, contents) {
            Ok((bytes, damage)) => {
                self.report.bytes += bytes;
                if damage.is_empty() {
                    return Ok(());
                }
            }
            // What cannot be read can be written anew all the same.
            Err(RunError::Io { .. }) => {}
            Err(_) => {}
        }
        let rebuilt = file.rebuild_index();
        rebuilt
            .map_err(|error| RepairError::io(&path, std::io::Error::other(error.to_string())))?;
        self.report.indexes_rebuilt.push(path);
        Ok(())
    }
}

fn not_removed(error: ChangeError) -> RepairError {
    match error {
        ChangeError::Stopped(stopped) => RepairError::Stopped(stopped),
        error => RepairError::NotRemoved(error.to_string()),
    }
}
