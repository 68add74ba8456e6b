//! Tickets: the promise that an op will be durable, to be waited for in whatever way suits the
//! caller. Nothing is registered until somebody waits.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::error::Stopped;
use crate::ids::Lsn;
use crate::wal::queue::CommitQueue;

/// Resolves when its op is durable. Waiting is possible as a blocking call, as a future (of any
/// runtime) and as a callback. Dropping a ticket changes nothing about the op.
pub struct Ticket {
    queue: Arc<CommitQueue>,
    lsn: Lsn,
    /// Key in the queue's waiters while a poll is pending.
    registered: Option<u64>,
}

impl Ticket {
    pub(crate) fn new(queue: Arc<CommitQueue>, lsn: Lsn) -> Ticket {
        Ticket {
            queue,
            lsn,
            registered: None,
        }
    }

    /// The op.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Whether the op is on disk.
    pub fn is_durable(&self) -> bool {
        self.queue.durable_lsn() >= self.lsn
    }

    /// Blocks until the op is durable or the store stopped. Not for manual mode, where the caller
    /// itself has to pump the store.
    pub fn wait(&self) -> Result<(), Stopped> {
        let mut ticket = self.clone();
        block_on(|waker| ticket.poll_with(waker))
    }

    /// Calls `callback` once: at once if the outcome is known, else on the committer's thread. It
    /// must be quick.
    pub fn on_durable(self, callback: impl FnOnce(Result<(), Stopped>) + Send + 'static) {
        let mut waiters = self.queue.waiters().lock();
        let Some(outcome) = self.outcome() else {
            waiters.insert(self.lsn, Waiter::Callback(Box::new(callback)));
            return;
        };
        drop(waiters);
        callback(outcome);
    }

    fn outcome(&self) -> Option<Result<(), Stopped>> {
        // The reason first: everything that was durable when the store stopped stays so.
        let stopped = self.queue.stopped();
        if self.is_durable() {
            return Some(Ok(()));
        }
        stopped.map(Err)
    }

    fn poll_with(&mut self, waker: &Waker) -> Poll<Result<(), Stopped>> {
        let mut waiters = self.queue.waiters().lock();
        // Looked at under the lock: the committer publishes before it takes the lock.
        if let Some(outcome) = self.outcome() {
            if let Some(id) = self.registered.take() {
                waiters.remove(self.lsn, id);
            }
            return Poll::Ready(outcome);
        }
        let waiter = Waiter::Waker(waker.clone());
        match self.registered {
            Some(id) => waiters.replace(self.lsn, id, waiter),
            None => self.registered = Some(waiters.insert(self.lsn, waiter)),
        }
        Poll::Pending
    }
}

impl Clone for Ticket {
    fn clone(&self) -> Ticket {
        Ticket::new(Arc::clone(&self.queue), self.lsn)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("lsn", &self.lsn)
            .field("is_durable", &self.is_durable())
            .finish_non_exhaustive()
    }
}

impl Future for Ticket {
    type Output = Result<(), Stopped>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_with(context.waker())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(id) = self.registered {
            self.queue.waiters().lock().remove(self.lsn, id);
        }
    }
}

enum Waiter {
    Waker(Waker),
    Callback(Box<dyn FnOnce(Result<(), Stopped>) + Send>),
}

/// Who waits, by lsn. Grows with the callers that wait, not with the ops.
#[derive(Default)]
pub(crate) struct Waiters {
    list: Mutex<WaiterList>,
}

#[derive(Default)]
pub(crate) struct WaiterList {
    by_lsn: BTreeMap<(Lsn, u64), Waiter>,
    next_id: u64,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, WaiterList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits for `lsn` or less that it is durable.
    pub(crate) fn resolve_through(&self, lsn: Lsn) {
        let resolved = {
            let mut list = self.lock();
            match list.by_lsn.first_key_value() {
                Some(((first, _), _)) if *first <= lsn => {}
                _ => return,
            }
            let later = list.by_lsn.split_off(&(Lsn(lsn.0.saturating_add(1)), 0));
            std::mem::replace(&mut list.by_lsn, later)
        };
        for waiter in resolved.into_values() {
            waiter.resolve(Ok(()));
        }
    }

    /// Tells everybody that the store stopped.
    pub(crate) fn resolve_all(&self, stopped: Stopped) {
        let all = std::mem::take(&mut self.lock().by_lsn);
        for waiter in all.into_values() {
            waiter.resolve(Err(stopped));
        }
    }
}

impl WaiterList {
    fn insert(&mut self, lsn: Lsn, waiter: Waiter) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.by_lsn.insert((lsn, id), waiter);
        id
    }

    fn replace(&mut self, lsn: Lsn, id: u64, waiter: Waiter) {
        self.by_lsn.insert((lsn, id), waiter);
    }

    fn remove(&mut self, lsn: Lsn, id: u64) {
        self.by_lsn.remove(&(lsn, id));
    }
}

impl Waiter {
    fn resolve(self, outcome: Result<(), Stopped>) {
        match self {
            Waiter::Waker(waker) => waker.wake(),
            Waiter::Callback(callback) => callback(outcome),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Blocks the thread until `poll` is ready. `poll` keeps the waker it is given while it is not.
pub(crate) fn block_on<T>(mut poll: impl FnMut(&Waker) -> Poll<T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(value) = poll(&waker) {
            return value;
        }
        // May return early; the poll decides.
        std::thread::park();
    }
}
