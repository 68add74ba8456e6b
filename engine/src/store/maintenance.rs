//! Background work: checkpoints, and messages that have become too old.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::catalogue::Catalogue;
use super::checkpoint::{Checkpointer, Scope, note_space};
use super::compact::{Compactor, Effort, Next};
use super::error::CheckpointError;
use super::merge_runs::RunMerger;
use super::options::Threads;
use super::reserve::Reserve;
use super::scrub::Scrubber;
use super::shared::StoreShared;
use crate::ids::{Lsn, TimestampNs};
use crate::stream::core::StreamCore;

/// After a failed checkpoint the next attempt waits this long, unless asked earlier.
const RETRY: Duration = Duration::from_millis(500);

/// Shortest pause between two rounds of expiry: what is due within it leaves together, as one write.
const EXPIRY_PAUSE_MIN: Duration = Duration::from_millis(20);

/// Longest pause while something is due: the clock may be set forward meanwhile.
const EXPIRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Messages that could not be removed for their age are tried again after this long.
const EXPIRY_RETRY_NS: i64 = 10_000_000_000;

/// Performs maintenance; owned by one thread, or by the caller in manual mode.
pub(crate) struct Maintenance {
    shared: Arc<StoreShared>,
    catalogue: Arc<Catalogue>,
    pub(super) checkpointer: Checkpointer,
    reserve: Reserve,
    compactor: Compactor,
    merger: RunMerger,
    /// The last round left index runs to merge.
    is_merging: bool,
    scrubber: Scrubber,
    effort: Effort,
}

/// When maintenance has to look again, if nobody asks earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// At once.
    None,
    /// At this time.
    Until(TimestampNs),
    /// Not by itself.
    Idle,
}

impl Maintenance {
    pub(super) fn new(
        checkpointer: Checkpointer,
        reserve: Reserve,
        compactor: Compactor,
        merger: RunMerger,
        scrubber: Scrubber,
        threads: Threads,
    ) -> Maintenance {
        Maintenance {
            shared: checkpointer.shared.clone(),
            catalogue: checkpointer.catalogue.clone(),
            checkpointer,
            reserve,
            compactor,
            merger,
            is_merging: false,
            scrubber,
            effort: match threads {
                Threads::Background => Effort::Background,
                Threads::Manual => Effort::Manual,
            },
        }
    }

    /// Does what callers wait for.
    pub fn run_jobs(&mut self, wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>) {
        while let Some(job) = self.shared.jobs.take() {
            job(self, wait);
        }
    }

    /// One round: expires, then checkpoints if RAM or log space ask for it, then does one step of
    /// compaction, one of merging index runs and one of the work on message ids, if they are due.
    pub fn round(
        &mut self,
        wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>,
    ) -> Result<Pause, CheckpointError> {
        // First: expiry needs room in the log as well.
        let made_room = self.free_log(wait);
        let now = TimestampNs(self.shared.env.clock.now_ns());
        let mut next_due = None;
        self.shared.begin_expiry();
        for core in self.catalogue.all() {
            // Left by an earlier life of the store, or by a failure.
            core.settle_claims_or_later();
            if core.expiry_at() <= now {
                expire(&core, now);
            }
            let due = core.expiry_at();
            if due < TimestampNs::FAR {
                next_due = Some(next_due.map_or(due, |known: TimestampNs| known.min(due)));
            }
        }
        if let Some(due) = next_due {
            self.shared.plan_expiry(due);
        }
        made_room?;
        if self.shared.wants_flush() {
            self.checkpoint(Scope::LargeTails, wait)?;
            if self.shared.wants_flush() {
                self.checkpoint(Scope::All, wait)?;
            }
        }
        let more_ids = self.ids_step(wait)?;
        let next_due = next_due.into_iter().chain(self.checkpointer.ids_due());
        let compaction = self
            .compactor
            .step(&mut self.checkpointer, self.effort, wait)?;
        self.is_merging = self.merger.step(&mut self.checkpointer, wait)?;
        let scrub = self
            .scrubber
            .step(&self.checkpointer.files, &self.catalogue);
        let next_due = next_due.chain(scrub).min();
        if more_ids {
            return Ok(Pause::None);
        }
        Ok(match (compaction, next_due) {
            (Next::Now, _) => Pause::None,
            _ if self.is_merging => Pause::None,
            (Next::At(at), due) => {
                let at = TimestampNs(at);
                Pause::Until(due.map_or(at, |due| due.min(at)))
            }
            (Next::Idle, Some(due)) => Pause::Until(due),
            (Next::Idle, None) => Pause::Idle,
        })
    }

    /// True if the last round left index runs to merge.
    pub fn is_merging(&self) -> bool {
        self.is_merging
    }

    /// A step of the work on message ids, or in manual mode all of it. True when there is more.
    fn ids_step(
        &mut self,
        wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>,
    ) -> Result<bool, CheckpointError> {
        loop {
            let more = self.checkpointer.ids_step(wait)?;
            if !more || self.effort == Effort::Background {
                return Ok(more);
            }
        }
    }

    /// Runs compaction until nothing is due any more.
    pub fn compact(
        &mut self,
        wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let store = &mut self.checkpointer;
        while self.compactor.step(store, Effort::Full, wait)? == Next::Now {}
        Ok(())
    }

    /// Seals everything and gives up compaction and merges that are under way.
    pub fn close(
        &mut self,
        wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        self.compactor.abandon(&mut self.checkpointer);
        self.checkpointer.abandon_ids();
        self.checkpoint(Scope::All, wait)
    }

    /// Makes log space reusable if much of it is used, and waits until the log knows.
    fn free_log(
        &mut self,
        wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        if !self.shared.log_wants_release() {
            return Ok(());
        }
        self.checkpoint(Scope::All, wait)?;
        wait(self.shared.queue.assigned_lsn())
    }

    /// Runs a checkpoint and notes whether the disk had room for it.
    pub fn checkpoint(
        &mut self,
        scope: Scope,
        wait: &mut dyn FnMut(Lsn) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let mut result = self.checkpointer.run(scope, false, wait);
        let full = |result: &Result<(), _>| matches!(result, Err(CheckpointError::NoSpace { .. }));
        if full(&result) && self.compactor.abandon(&mut self.checkpointer) {
            // What a compaction has written so far is worth less than the checkpoint.
            result = self.checkpointer.run(scope, false, wait);
        }
        note_space(&self.shared, full(&result));
        self.shared.index_work.store(true, Ordering::Release);
        if result.is_ok() {
            self.compactor.files_changed(&self.shared);
            self.reserve.keep();
        }
        result
    }

    /// The maintenance thread: works when asked or due, and idles otherwise.
    pub fn run(mut self, stop: &dyn Fn() -> bool) -> Maintenance {
        let queue = self.shared.queue.clone();
        let mut wait = move |lsn: Lsn| queue.wait_settled(lsn).map_err(CheckpointError::Stopped);
        let _closing = CloseJobs(self.shared.clone());
        loop {
            self.run_jobs(&mut wait);
            let pause = match self.round(&mut wait) {
                Ok(Pause::None) => Some(Duration::ZERO),
                Ok(Pause::Until(due)) => Some(self.until(due)),
                Ok(Pause::Idle) => None,
                Err(CheckpointError::Stopped(_)) => None,
                Err(error) => {
                    tracing::error!(%error, "checkpoint failed; the log still holds everything");
                    Some(RETRY)
                }
            };
            if stop() {
                return self;
            }
            self.shared.wake.wait(pause);
            if stop() {
                return self;
            }
        }
    }

    fn until(&self, due: TimestampNs) -> Duration {
        let now = self.shared.env.clock.now_ns();
        let until = u64::try_from(due.0.saturating_sub(now)).unwrap_or(0);
        Duration::from_nanos(until).clamp(EXPIRY_PAUSE_MIN, EXPIRY_PAUSE_MAX)
    }
}

/// Removes what is due in one stream and plans when to look again.
fn expire(core: &StreamCore, now: TimestampNs) {
    core.begin_expiry();
    match core.expire(now) {
        Ok((_, Some(due))) => core.plan_expiry(due),
        Ok((_, None)) => {}
        Err(error) => {
            tracing::warn!(stream = %core.name, %error, "cannot expire messages");
            core.plan_expiry(TimestampNs(now.0.saturating_add(EXPIRY_RETRY_NS)));
        }
    }
}

/// Tells whoever waits for a job, however the thread ends.
struct CloseJobs(Arc<StoreShared>);

impl Drop for CloseJobs {
    fn drop(&mut self) {
        self.0.jobs.close();
    }
}
