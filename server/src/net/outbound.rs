//! What is on its way to a client.

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::protocol::encode;

/// Parts of a message as they are written.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Subject shown to the client.
    pub subject: &'a [u8],
    /// Empty: none.
    pub reply: &'a [u8],
    /// Empty: none.
    pub headers: &'a [u8],
    /// Body.
    pub payload: &'a [u8],
}

/// Outcome of delivering something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The client did not get it.
    Refused,
    /// It is in the buffer.
    Queued {
        /// The write loop sleeps: the caller must call [`Outbound::wake`], now or at the end of its
        /// batch.
        wake: bool,
        /// The buffer is mostly full.
        stalled: bool,
    },
}

/// Why an append failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    Closed,
    /// The append would exceed the bound; nothing was written, the buffer is closed now.
    Overflow,
}

/// What the write loop finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Data,
    /// Wait for [`Outbound::writable`].
    Nothing,
    /// Closed and everything was taken.
    Closed,
}

/// The outbound buffer of a connection, bounded in bytes.
#[derive(Debug)]
pub struct Outbound {
    state: Mutex<State>,
    writable: Notify,
    drained: Notify,
    abort: Notify,
    max_pending: usize,
}

#[derive(Debug, Default)]
struct State {
    buf: Vec<u8>,
    /// Bytes taken by the write loop and not written yet.
    in_flight: usize,
    /// The write loop runs, or somebody has promised to wake it.
    awake: bool,
    /// Nothing is accepted any more.
    closed: bool,
    messages: u64,
    bytes: u64,
}

/// A buffer that grew beyond this is given back when it is empty.
const KEEP_BYTES_MAX: usize = 256 * 1024;

impl Outbound {
    /// An empty buffer for at most `max_pending` bytes.
    pub fn new(max_pending: usize) -> Outbound {
        Outbound {
            state: Mutex::default(),
            writable: Notify::new(),
            drained: Notify::new(),
            abort: Notify::new(),
            max_pending,
        }
    }

    /// Appends a message. `sid` is the client's id of the subscription.
    pub(crate) fn push_message(&self, sid: &[u8], frame: &Frame<'_>) -> Result<Pushed, PushError> {
        let size = frame.headers.len() + frame.payload.len();
        let mut state = self.state.lock();
        let pushed = self.push_locked(&mut state, size, |buf| {
            encode::message(
                buf,
                frame.subject,
                sid,
                frame.reply,
                frame.headers,
                frame.payload,
            );
        })?;
        state.messages += 1;
        state.bytes += size as u64;
        Ok(pushed)
    }

    /// Appends anything else, of about `size` bytes.
    pub(crate) fn push(
        &self,
        size: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Pushed, PushError> {
        self.push_locked(&mut self.state.lock(), size, write)
    }

    fn push_locked(
        &self,
        state: &mut State,
        size: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Pushed, PushError> {
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.buf.len() + state.in_flight + size > self.max_pending {
            state.closed = true;
            state.buf = Vec::new();
            return Err(PushError::Overflow);
        }
        write(&mut state.buf);
        let pending = state.buf.len() + state.in_flight;
        let wake = !std::mem::replace(&mut state.awake, true);
        Ok(Pushed::Queued {
            wake,
            stalled: pending > self.stall_bytes(),
        })
    }

    fn stall_bytes(&self) -> usize {
        self.max_pending / 4 * 3
    }

    /// Wakes the write loop.
    pub fn wake(&self) {
        self.writable.notify_one();
    }

    /// Accepts nothing from now on. The write loop ends after what is queued, or at once with
    /// `discard`.
    pub(crate) fn close(&self, discard: bool) {
        let mut state = self.state.lock();
        state.closed = true;
        if discard {
            state.buf = Vec::new();
            self.abort.notify_one();
        }
        drop(state);
        self.wake();
    }

    /// Bytes waiting to be written.
    pub fn pending_bytes(&self) -> usize {
        let state = self.state.lock();
        state.buf.len() + state.in_flight
    }

    /// Messages and bytes (headers plus bodies) appended so far.
    pub fn totals(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.messages, state.bytes)
    }

    /// True when the buffer is so full that a fast producer should pause (CORE-035).
    pub(crate) fn is_stalled(&self) -> bool {
        let state = self.state.lock();
        !state.closed && state.buf.len() + state.in_flight > self.stall_bytes()
    }

    /// Waits until the write loop has written something.
    pub(crate) async fn drained(&self) {
        self.drained.notified().await;
    }

    /// Waits for [`Outbound::wake`].
    pub(crate) async fn writable(&self) {
        self.writable.notified().await;
    }

    /// Waits for a close with `discard`.
    pub(crate) async fn aborted(&self) {
        self.abort.notified().await;
    }

    /// Swaps the queued bytes with `spare`, which must be empty.
    pub(crate) fn take(&self, spare: &mut Vec<u8>) -> Taken {
        let mut state = self.state.lock();
        if state.buf.is_empty() {
            state.awake = false;
            return if state.closed {
                Taken::Closed
            } else {
                Taken::Nothing
            };
        }
        std::mem::swap(&mut state.buf, spare);
        state.in_flight = spare.len();
        Taken::Data
    }

    /// Notes that everything taken was written, and empties the buffer for its next use.
    pub(crate) fn written(&self, taken: &mut Vec<u8>) {
        self.state.lock().in_flight = 0;
        if taken.capacity() > KEEP_BYTES_MAX {
            *taken = Vec::new();
        } else {
            taken.clear();
        }
        self.drained.notify_waiters();
    }
}
