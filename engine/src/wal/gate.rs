//! What readers and consumers of one stream may see.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::ids::{Seq, StreamId};

/// The durable end of a stream. Readers show nothing above it; only the committer raises it, after
/// the sync that made the sequences durable.
#[derive(Debug)]
pub struct StreamGate {
    id: StreamId,
    durable_seq: AtomicU64,
    /// Where the batch under construction notes this stream: batch number (upper 32 bits) and index
    /// (lower 32 bits). A hint, checked before use, written under the queue's lock only.
    touched_hint: AtomicU64,
    /// Number of waiters, so that raising a gate nobody waits at costs one load.
    waiting: AtomicU64,
    waiters: Mutex<GateWaiters>,
}

#[derive(Debug, Default)]
struct GateWaiters {
    list: Vec<(u64, Waker)>,
    next_id: u64,
}

impl StreamGate {
    /// A gate for a stream whose messages up to `durable_seq` are durable.
    pub fn new(id: StreamId, durable_seq: Seq) -> Arc<StreamGate> {
        Arc::new(StreamGate {
            id,
            durable_seq: AtomicU64::new(durable_seq.0),
            touched_hint: AtomicU64::new(u64::MAX),
            waiting: AtomicU64::new(0),
            waiters: Mutex::default(),
        })
    }

    /// The stream.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The last sequence that may be shown.
    pub fn durable_seq(&self) -> Seq {
        Seq(self.durable_seq.load(Ordering::SeqCst))
    }

    /// Opens the gate up to `seq`; it never closes again.
    pub(crate) fn raise(&self, seq: Seq) {
        // Sequentially consistent with `wait`: either this sees the waiter, or the waiter sees `seq`.
        self.durable_seq.fetch_max(seq.0, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    /// Has the waker called when the gate is raised or [`StreamGate::wake`] is called, once. `id` is
    /// that of an earlier registration it replaces. Look at the gate after this, not before.
    pub(crate) fn wait(&self, id: Option<u64>, waker: &Waker) -> u64 {
        let mut waiters = self.lock_waiters();
        if let Some(id) = id {
            waiters.list.retain(|(known, _)| *known != id);
        }
        let id = waiters.next_id;
        waiters.next_id += 1;
        waiters.list.push((id, waker.clone()));
        self.waiting
            .store(waiters.list.len() as u64, Ordering::SeqCst);
        id
    }

    /// Takes a registration back.
    pub(crate) fn forget(&self, id: u64) {
        let mut waiters = self.lock_waiters();
        waiters.list.retain(|(known, _)| *known != id);
        self.waiting
            .store(waiters.list.len() as u64, Ordering::SeqCst);
    }

    /// Wakes everybody who waits.
    pub(crate) fn wake(&self) {
        let woken = {
            let mut waiters = self.lock_waiters();
            self.waiting.store(0, Ordering::SeqCst);
            std::mem::take(&mut waiters.list)
        };
        for (_, waker) in woken {
            waker.wake();
        }
    }

    fn lock_waiters(&self) -> MutexGuard<'_, GateWaiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hint(&self) -> u64 {
        self.touched_hint.load(Ordering::Relaxed)
    }

    pub(super) fn set_hint(&self, hint: u64) {
        self.touched_hint.store(hint, Ordering::Relaxed);
    }
}
