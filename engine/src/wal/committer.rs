//! The committer: one thread (or, in manual mode, whoever calls [`Committer::step`]) that writes
//! what the queue holds, syncs, and publishes.

use std::sync::Arc;

use super::batch::Batch;
use super::queue::{CommitQueue, PoisonCause};
use super::writer::{AppendError, Wal};
use crate::error::Stopped;
use crate::ids::{Lsn, Seq, StreamId};
use crate::invariants;
use crate::io::Env;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing was queued.
    Idle,
    /// A frame of this many ops became durable.
    Committed(u32),
    /// A frame waits for log space: nothing more happens before a release or the next poke.
    NoSpace,
    /// The queue was closed and is empty.
    Closed,
    /// A write or sync failed. No ticket resolves any more.
    Poisoned,
}

/// The only writer of the log.
pub struct Committer {
    queue: Arc<CommitQueue>,
    wal: Wal,
    env: Env,
    /// Taken from the queue and not durable yet; kept while there is no log space.
    in_hand: Option<Batch>,
    /// A mark for the last frame is due.
    mark_due: bool,
    released: Lsn,
    /// Retired files of the log are still to go.
    erasing: bool,
    stopped: bool,
    streams: Vec<(StreamId, Seq)>,
    /// Proves that the crash tests see an acknowledgement before the sync.
    #[cfg(test)]
    pub(super) publish_before_sync: bool,
}

impl Committer {
    /// A committer for `queue` that writes to `wal`; both continue at the same lsn.
    pub fn new(env: &Env, queue: Arc<CommitQueue>, wal: Wal) -> Committer {
        assert_eq!(
            queue.durable_lsn().0 + 1,
            wal.next_lsn().0,
            "queue and log agree on the lsn"
        );
        let mut committer = Committer {
            queue,
            wal,
            env: env.clone(),
            in_hand: None,
            mark_due: false,
            released: Lsn(0),
            erasing: false,
            stopped: false,
            streams: Vec::new(),
            #[cfg(test)]
            publish_before_sync: false,
        };
        if let Err(error) = committer.wal.prepare() {
            committer.poison(&error);
        }
        committer.report_room();
        committer
    }

    /// Writes and publishes one frame, or does what else is due. Blocks for the sync.
    pub fn step(&mut self) -> Step {
        if self.stopped {
            return match self.queue.stopped() {
                Some(Stopped::Closed) => Step::Closed,
                _ => Step::Poisoned,
            };
        }
        let kept_house = self.house_keeping();
        // After the poke that a close gives was taken, and before the queue is looked at: neither
        // the close nor an op that came in before it is missed.
        let closing = self.queue.is_closing();
        match kept_house.and_then(|()| self.commit()) {
            Ok(Step::Idle) if closing && self.queue.is_drained() => {
                self.stopped = true;
                self.queue.stop(None);
                Step::Closed
            }
            Ok(step) => step,
            // No release will come any more; the ops in hand were never acknowledged.
            Err(AppendError::NoSpace) if closing => {
                self.stopped = true;
                self.queue.stop(None);
                Step::Closed
            }
            Err(AppendError::NoSpace) => {
                self.queue.metrics().count_stall();
                self.queue.set_log_room(
                    0,
                    self.wal.control_reserve_bytes(),
                    self.wal.is_disk_full(),
                );
                self.queue.report_stall();
                Step::NoSpace
            }
            Err(error) => {
                self.poison(&error);
                Step::Poisoned
            }
        }
    }

    /// Steps until the queue is closed or poisoned: the body of the committer's thread. Sleeps
    /// while there is nothing to do.
    pub fn run(mut self) {
        loop {
            match self.step() {
                Step::Committed(_) => {}
                Step::Idle => self.queue.wait_work(true),
                // More frames do not help; a release or a poke may.
                Step::NoSpace => self.queue.wait_work(false),
                Step::Closed | Step::Poisoned => return,
            }
        }
    }

    /// Releases files and has a next one ready.
    fn house_keeping(&mut self) -> Result<(), AppendError> {
        // The poke first: a release that comes in after it pokes again.
        let poked = self.queue.take_poke();
        let room = self.wal.room();
        let retire = self.queue.retire_request();
        if let Some(request) = retire
            && self.wal.retire()?
        {
            self.queue.note_retired(request);
            self.erasing = true;
        }
        let released = self.queue.released_lsn();
        if released > self.released || retire.is_some() {
            self.wal.release_through(released)?;
            self.released = released;
        }
        if self.erasing && poked {
            let gone = self.wal.gone_through();
            self.erasing = gone.is_none();
            self.queue.note_gone(gone.unwrap_or(Lsn(0)));
        }
        // A full disk is asked again when a poke says so, not at each step.
        if poked || !self.wal.is_disk_full() {
            self.wal.prepare()?;
        }
        // A frame that fills its file leaves no room; whoever waits is told of the next file.
        if poked || self.wal.room() > room {
            self.report_room();
            self.queue.wake_room();
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<Step, AppendError> {
        if self.in_hand.is_none() {
            self.in_hand = self.queue.take().map_err(|_| AppendError::Io {
                operation: "encode",
                source: std::io::ErrorKind::Other.into(),
            })?;
        }
        let Some(batch) = &mut self.in_hand else {
            return self.mark().map(|()| Step::Idle);
        };
        let durable_lsn = self.queue.durable_lsn();
        self.wal
            .append_frame(batch.first_lsn, batch.ops, durable_lsn, &mut batch.frame)?;
        let frame_bytes = batch.frame.len() as u64;
        let ops = batch.ops;
        #[cfg(test)]
        if self.publish_before_sync {
            self.publish(0);
        }
        let started = self.env.clock.now_ns();
        self.wal.sync()?;
        let sync_ns = self.env.clock.now_ns().saturating_sub(started).max(0) as u64;
        self.queue.metrics().count_commit(frame_bytes, sync_ns);
        self.mark_due = true;
        self.publish(sync_ns);
        Ok(Step::Committed(ops))
    }

    fn publish(&mut self, sync_ns: u64) {
        let Some(batch) = self.in_hand.take() else {
            return;
        };
        // I1, I15: guards what is acknowledged, so it stays on in release builds.
        let synced = invariants::is_synced(batch.last_lsn(), self.wal.synced_lsn());
        #[cfg(test)]
        let synced = synced || self.publish_before_sync;
        assert!(synced && self.queue.stopped().is_none());
        self.queue.publish(batch, sync_ns, &mut self.streams);
        self.report_room();
        self.queue.wake_room();
    }

    /// With nothing left to write, says in the log that the last frame is durable.
    fn mark(&mut self) -> Result<(), AppendError> {
        if std::mem::take(&mut self.mark_due) {
            self.wal.append_mark()?;
        }
        Ok(())
    }

    fn report_room(&self) {
        self.queue.set_log_room(
            self.wal.room(),
            self.wal.control_reserve_bytes(),
            self.wal.is_disk_full(),
        );
        self.queue.metrics().set_log_used(self.wal.used_bytes());
    }

    fn poison(&mut self, error: &AppendError) {
        let cause = match error {
            AppendError::NoSpace => PoisonCause {
                operation: "allocate",
                kind: std::io::ErrorKind::StorageFull,
                os_error: None,
            },
            AppendError::Io { operation, source } => PoisonCause {
                operation,
                kind: source.kind(),
                os_error: source.raw_os_error(),
            },
        };
        tracing::error!(%error, "the log cannot be written; nothing is acknowledged any more");
        self.stopped = true;
        self.queue.stop(Some(cause));
    }
}

impl Drop for Committer {
    /// Without a committer no ticket can resolve: whoever waits is told so, also after a panic.
    fn drop(&mut self) {
        if !self.stopped {
            self.stopped = true;
            self.queue.stop(Some(PoisonCause {
                operation: "commit",
                kind: std::io::ErrorKind::Other,
                os_error: None,
            }));
        }
    }
}
