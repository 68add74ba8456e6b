//! Reads and checks every sealed byte once in a period, so that damage is found while it can still be
//! repaired, not when somebody needs the data.
//!
//! Maintenance runs it in steps, spread evenly over the period; a store that was closed for long
//! catches up at a bounded rate. Reads go past the cache. The place between two files is kept with
//! the metadata: written along with ordinary checkpoints, so that an idle store writes nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::catalogue::Catalogue;
use super::damage::FoundBy;
use super::files::FileList;
use super::layout::Layout;
use super::shared::StoreShared;
use super::verify::missing_in;
use super::verify::sealed::Contents;
use crate::error::Corrupt;
use crate::format::FormatError;
use crate::format::cursor::Cursor;
use crate::format::varint;
use crate::ids::{SegmentId, Seq, TimestampNs};
use crate::index::{RunCheck, RunError, RunIdentity};
use crate::stream::core::StreamCore;
use crate::stream::extent::SealedFile;
use crate::stream::index_part::asks_run_of;
use crate::stream::merged_run::MergedRun;

/// Least time between two steps.
const STEP_PAUSE_NS: i64 = 10_000_000;
/// A file that could not be opened is tried again after this long.
const RETRY_NS: i64 = 60_000_000_000;
/// A pass takes this share of the period, in percent, so that it ends in time.
const PASS_PERCENT: u128 = 90;

/// How far the background check of sealed files is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubStatus {
    /// How long a pass over all files takes; zero if it is turned off.
    pub period: Duration,
    /// Whether it was paused.
    pub paused: bool,
    /// When the present pass was begun; `None` between two passes.
    pub started: Option<TimestampNs>,
    /// When the last pass ended; `None` before the first.
    pub finished: Option<TimestampNs>,
    /// Files checked in the present pass: sealed data with its index run, and merged index runs.
    pub files_done: u64,
    /// Files left in the present pass.
    pub files_left: u64,
    /// Bytes checked in the present pass.
    pub bytes_done: u64,
    /// Damaged ranges that were found since the store was opened; [`crate::Store::damage`] lists them.
    pub ranges_damaged: u64,
    /// Files with damage that costs no message, found since the store was opened.
    pub files_harmed: u64,
    /// Index runs that were damaged or missing since the store was opened: they have been made anew, or
    /// dropped where others answer.
    pub indexes_rebuilt: u64,
}

/// What others see and steer.
#[derive(Default)]
pub(crate) struct ScrubControl {
    paused: AtomicBool,
    status: Mutex<ScrubStatus>,
    /// The place to be stored with the next checkpoint.
    place: Mutex<Option<ScrubPlace>>,
}

impl ScrubControl {
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    pub fn status(&self) -> ScrubStatus {
        ScrubStatus {
            paused: self.paused.load(Ordering::Acquire),
            ..self.lock_status().clone()
        }
    }

    fn lock_status(&self) -> MutexGuard<'_, ScrubStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_place(&self) -> MutexGuard<'_, Option<ScrubPlace>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored form of the place, if it has changed since the last one was stored.
    pub fn place_to_store(&self) -> Option<Vec<u8>> {
        self.lock_place().map(|place| place.encode())
    }

    /// That place is stored.
    pub fn stored(&self, value: &[u8]) {
        let mut place = self.lock_place();
        if place.is_some_and(|place| place.encode() == value) {
            *place = None;
        }
    }
}

/// A place between two files of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScrubPlace {
    /// When the pass was begun.
    pub started: TimestampNs,
    /// Files up to here were checked; those of a finished pass all.
    pub done: SegmentId,
    /// Their number and bytes.
    pub files_done: u64,
    pub bytes_done: u64,
    /// When the pass ended.
    pub finished: Option<TimestampNs>,
}

impl ScrubPlace {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![1];
        out.extend_from_slice(&self.started.0.to_le_bytes());
        for number in [self.done.0, self.files_done, self.bytes_done] {
            varint::encode(number, &mut out);
        }
        out.push(u8::from(self.finished.is_some()));
        out.extend_from_slice(&self.finished.unwrap_or_default().0.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<ScrubPlace, FormatError> {
        let mut input = Cursor::new(bytes);
        let version = input.u8()?;
        if version != 1 {
            return Err(FormatError::UnknownKind {
                what: "scrub place",
                found: version,
            });
        }
        let started = TimestampNs(input.i64()?);
        let done = SegmentId(input.varint()?);
        let (files_done, bytes_done) = (input.varint()?, input.varint()?);
        let has_finished = input.u8()? != 0;
        let finished = TimestampNs(input.i64()?);
        Ok(ScrubPlace {
            started,
            done,
            files_done,
            bytes_done,
            finished: has_finished.then_some(finished),
        })
    }
}

/// Performs the check; owned by maintenance.
pub(super) struct Scrubber {
    shared: Arc<StoreShared>,
    layout: Layout,
    period_ns: i64,
    place: Option<ScrubPlace>,
    current: Option<Current>,
    /// As of the last time a file was begun, that one included.
    left: Left,
    /// No step before this time.
    step_at: i64,
    /// The next step is due then.
    due_at: i64,
}

/// The file that is being checked.
enum Current {
    /// A sealed file with its index run.
    Segment(Box<CurrentSegment>),
    /// A merged index run.
    Run {
        core: Arc<StreamCore>,
        run: Arc<MergedRun>,
        check: RunCheck,
    },
}

struct CurrentSegment {
    file: Arc<SealedFile>,
    contents: Contents,
    segment_done: bool,
    run: RunCheck,
}

impl Current {
    fn bytes(&self) -> u64 {
        match self {
            Current::Segment(current) => current.contents.check.report.bytes + current.run.bytes,
            Current::Run { check, .. } => check.bytes,
        }
    }
}

/// Files that are not checked yet.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    files: u64,
    bytes: u64,
}

impl Scrubber {
    /// `place` is where the last one was.
    pub fn new(
        shared: Arc<StoreShared>,
        layout: Layout,
        period: Duration,
        place: Option<ScrubPlace>,
    ) -> Scrubber {
        shared.scrub.lock_status().period = period;
        let scrubber = Scrubber {
            shared,
            layout,
            period_ns: i64::try_from(period.as_nanos()).unwrap_or(i64::MAX),
            place,
            current: None,
            left: Left::default(),
            step_at: i64::MIN,
            due_at: i64::MIN,
        };
        scrubber.report();
        scrubber
    }

    /// Does one step if one is due; returns when the next one is.
    pub fn step(&mut self, files: &FileList, catalogue: &Catalogue) -> Option<TimestampNs> {
        if self.period_ns == 0 || self.shared.scrub.paused.load(Ordering::Acquire) {
            return None;
        }
        if let Some(Current::Segment(current)) = &self.current
            && files.get(current.file.id).is_none()
        {
            // It was replaced: whoever waits for it to go, an erasure for one, does not wait for this.
            self.current = None;
        }
        let now = self.shared.env.clock.now_ns();
        if self.due_at <= now {
            self.due_at = self.due(now);
        }
        if self.due_at > now {
            return Some(TimestampNs(self.due_at));
        }
        self.step_at = now.saturating_add(STEP_PAUSE_NS);
        match self.current.take() {
            Some(current) => self.check(current, catalogue, now),
            None => self.next_file(files, catalogue, now),
        }
        self.report();
        self.due_at = self.due(now);
        Some(TimestampNs(self.due_at))
    }

    /// When the next step is due: the bytes that were checked keep pace with the time.
    fn due(&mut self, now: i64) -> i64 {
        let place = *self.place.get_or_insert(ScrubPlace {
            started: TimestampNs(now),
            ..ScrubPlace::default()
        });
        // A clock that was set back must not stop the check for that long.
        let started = place.started.0.min(now);
        if place.finished.is_some() {
            return started.saturating_add(self.period_ns);
        }
        let current = self.current.as_ref().map_or(0, Current::bytes);
        let done = place.bytes_done.saturating_add(current);
        let total = place.bytes_done.saturating_add(self.left.bytes);
        let total = u128::from(total.max(done).max(1));
        let pass = self.period_ns as u128 * PASS_PERCENT / 100;
        let offset = pass * u128::from(done) / total;
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        started.saturating_add(offset).max(self.step_at)
    }

    fn next_file(&mut self, files: &FileList, catalogue: &Catalogue, now: i64) {
        let Some(place) = &mut self.place else {
            return;
        };
        if place.finished.is_some() {
            *place = ScrubPlace {
                started: TimestampNs(now),
                ..ScrubPlace::default()
            };
        }
        let done = place.done;
        self.left = Left::default();
        let mut next: Option<(SegmentId, Current)> = None;
        for listed in files.iter().filter(|listed| listed.file.id > done) {
            self.left.files += 1;
            self.left.bytes += listed.file.segment.manifest().file_bytes;
            let id = listed.file.id;
            if next.as_ref().is_none_or(|(first, _)| id < *first) {
                let current = CurrentSegment {
                    file: listed.file.clone(),
                    contents: Contents::default(),
                    segment_done: false,
                    run: RunCheck::default(),
                };
                next = Some((id, Current::Segment(Box::new(current))));
            }
        }
        for core in catalogue.file_streams() {
            let runs = core.lock().runs.clone();
            for run in runs.iter().filter(|run| run.manifest.id > done) {
                self.left.files += 1;
                self.left.bytes += run.manifest.file_bytes;
                let id = run.manifest.id;
                if next.as_ref().is_none_or(|(first, _)| id < *first) {
                    let current = Current::Run {
                        core: core.clone(),
                        run: run.clone(),
                        check: RunCheck::default(),
                    };
                    next = Some((id, current));
                }
            }
        }
        match next {
            Some((_, current)) => self.current = Some(current),
            None => {
                place.finished = Some(TimestampNs(now));
                self.moved();
            }
        }
    }

    /// The place changed: it is stored when something else is.
    fn moved(&self) {
        *self.shared.scrub.lock_place() = self.place;
    }

    fn check(&mut self, current: Current, catalogue: &Catalogue, now: i64) {
        match current {
            Current::Segment(current) => self.check_segment(current, catalogue, now),
            Current::Run { core, run, check } => self.check_run(core, run, check, now),
        }
    }

    fn check_run(
        &mut self,
        core: Arc<StreamCore>,
        run: Arc<MergedRun>,
        mut check: RunCheck,
        now: i64,
    ) {
        let id = run.manifest.id;
        let path = self.layout.index(id);
        let (env, uuid) = (&self.shared.env, self.shared.uuid);
        match check.step(env, &path, uuid, &RunIdentity::Exactly(run.manifest)) {
            Ok(false) => {
                self.current = Some(Current::Run { core, run, check });
                return;
            }
            Ok(true) => {}
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "an index run cannot be checked");
                self.step_at = now.saturating_add(RETRY_NS);
            }
        }
        if check.missing || !check.damage.is_empty() {
            tracing::warn!(file = %path.display(), "a damaged merged index run is dropped");
            core.drop_run(&run);
            self.shared.scrub.lock_status().indexes_rebuilt += 1;
        }
        self.checked(id, check.bytes);
    }

    /// A file was checked.
    fn checked(&mut self, id: SegmentId, bytes: u64) {
        if let Some(place) = &mut self.place {
            place.done = id;
            place.files_done += 1;
            place.bytes_done = place.bytes_done.saturating_add(bytes);
        }
        self.left.files = self.left.files.saturating_sub(1);
        self.left.bytes = self.left.bytes.saturating_sub(bytes);
        self.moved();
    }

    fn check_segment(&mut self, mut current: Box<CurrentSegment>, catalogue: &Catalogue, now: i64) {
        if !current.segment_done {
            match current.contents.step(&current.file.segment, &mut |_, _| {}) {
                Ok(false) => {}
                Ok(true) => {
                    current.segment_done = true;
                    self.judge(&current.file, &current.contents, catalogue, None);
                }
                Err(error) => {
                    let missing = error.to_string();
                    current.segment_done = true;
                    self.judge(&current.file, &current.contents, catalogue, Some(&missing));
                }
            }
            self.current = Some(Current::Segment(current));
            return;
        }
        let wanted = RunIdentity::OfSegment(*current.file.segment.manifest());
        let path = self.layout.index(current.file.id);
        let (env, uuid) = (&self.shared.env, self.shared.uuid);
        match current.run.step(env, &path, uuid, &wanted) {
            Ok(false) => {
                self.current = Some(Current::Segment(current));
                return;
            }
            Ok(true) => {}
            Err(RunError::Io { source, .. }) => {
                tracing::warn!(file = %path.display(), %source, "an index run cannot be checked");
                self.step_at = now.saturating_add(RETRY_NS);
            }
            Err(error) => current.run.damage.push((0, error.to_string())),
        }
        let asked = || {
            let streams = catalogue.file_streams();
            let mut parts = streams.iter().map(|core| core.lock().index_parts.clone());
            parts.any(|parts| asks_run_of(&parts, current.file.id))
        };
        if (current.run.missing || !current.run.damage.is_empty()) && asked() {
            self.rebuild_index(&current);
        }
        let bytes = current.contents.check.report.bytes + current.run.bytes;
        self.checked(current.file.id, bytes);
    }

    fn rebuild_index(&self, current: &CurrentSegment) {
        let file = self.layout.index(current.file.id);
        let damage = current.run.damage.first();
        let what = damage.map_or("it is missing", |(_, what)| what);
        tracing::warn!(file = %file.display(), what, "a damaged index run is made anew");
        match current.file.rebuild_index() {
            Ok(()) => self.shared.scrub.lock_status().indexes_rebuilt += 1,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "an index run cannot be made anew");
            }
        }
    }

    /// Notes what of a file is damaged, and which live messages that costs.
    fn judge(
        &self,
        file: &SealedFile,
        contents: &Contents,
        catalogue: &Catalogue,
        missing: Option<&str>,
    ) {
        let report = &contents.check.report;
        if missing.is_none() && report.is_intact() {
            return;
        }
        let now = TimestampNs(self.shared.env.clock.now_ns());
        let mut ranges = 0;
        for core in catalogue.file_streams() {
            let extents = core.lock().extents.clone();
            for extent in extents.iter().filter(|extent| extent.file.id == file.id) {
                let held = contents.seqs(core.id);
                let lost = missing_in(&core.lock(), extent.first, extent.last, held);
                for (first, last) in lost {
                    let known = contents.reason(&file.segment, core.id, first);
                    let range = Corrupt {
                        stream: core.id,
                        first: Seq(first),
                        last: Seq(last),
                        reason: missing.map_or(known.reason.clone(), str::to_owned),
                        ..known
                    };
                    ranges += 1;
                    if self.shared.damage.note(&range, FoundBy::Scrub, now) {
                        tracing::error!(
                            stream = %core.name,
                            first,
                            last,
                            file = %range.file.display(),
                            reason = %range.reason,
                            "stored messages are damaged"
                        );
                    }
                }
            }
        }
        let mut status = self.shared.scrub.lock_status();
        status.ranges_damaged += ranges;
        if ranges == 0 {
            status.files_harmed += 1;
            let harm = report.harmless.first();
            let what = harm.map_or("removed messages are damaged", |(_, what)| what);
            let file = file.segment.path();
            tracing::warn!(file = %file.display(), what, "damage that costs no message");
        }
    }

    fn report(&self) {
        let Some(place) = self.place else { return };
        let mut status = self.shared.scrub.lock_status();
        let current = self.current.as_ref().map_or(0, Current::bytes);
        status.started = place.finished.is_none().then_some(place.started);
        status.finished = place.finished.or(status.finished);
        status.files_done = place.files_done;
        status.bytes_done = place.bytes_done + current;
        status.files_left = match place.finished {
            Some(_) => 0,
            None => self.left.files,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_place_comes_back(numbers: [u64; 3], started: i64, finished: Option<i64>) {
            let place = ScrubPlace {
                started: TimestampNs(started),
                done: SegmentId(numbers[0]),
                files_done: numbers[1],
                bytes_done: numbers[2],
                finished: finished.map(TimestampNs),
            };
            prop_assert_eq!(ScrubPlace::decode(&place.encode()), Ok(place));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = ScrubPlace::decode(&bytes);
        }
    }
}
