//! Work that a caller has done where maintenance is done, and waits for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use super::error::CheckpointError;
use super::maintenance::Maintenance;
use super::shared::{Pump, StoreShared};
use crate::error::Stopped;
use crate::ids::Lsn;

/// Makes everything up to a log position durable, or says that the store stopped.
pub(crate) type Wait<'a> = &'a mut dyn FnMut(Lsn) -> Result<(), CheckpointError>;

type Job = Box<dyn FnOnce(&mut Maintenance, Wait<'_>) + Send>;

/// Jobs that wait for maintenance: each has a caller that waits for it, so there are no more of them
/// than callers.
#[derive(Default)]
pub(crate) struct Jobs {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Job>,
    /// Nobody does maintenance any more.
    is_closed: bool,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job that waits longest.
    pub fn take(&self) -> Option<Job> {
        self.lock().waiting.pop_front()
    }

    /// Whoever waits for a job, or brings one later, is told that the store is closed.
    pub fn close(&self) {
        let waiting = {
            let mut inner = self.lock();
            inner.is_closed = true;
            std::mem::take(&mut inner.waiting)
        };
        drop(waiting);
    }
}

impl StoreShared {
    /// Runs `work` where maintenance is done, between two of its rounds, and returns its result.
    ///
    /// # Errors
    ///
    /// If the store was closed before.
    pub fn in_maintenance<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Maintenance, Wait<'_>) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (sender, receiver) = mpsc::sync_channel(1);
        {
            let mut inner = self.jobs.lock();
            if inner.is_closed {
                return Err(Stopped::Closed);
            }
            inner.waiting.push_back(Box::new(move |maintenance, wait| {
                // The caller waits for it, unless it panicked.
                let _ = sender.send(work(maintenance, wait));
            }));
        }
        self.wake.ask();
        self.pump(Pump::Jobs);
        receiver.recv().map_err(|_| Stopped::Closed)
    }
}
