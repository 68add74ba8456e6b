//! What is on its way to a client.
//!
//! Exactly one party at a time may move bytes to the socket: whoever appended first to an idle
//! buffer and thereby promised to see to it ([`Outbound::flush`]), or the write loop. A promise is
//! kept by writing a small buffer at once, which saves a switch of tasks, or by handing over to the
//! write loop.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;
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
        /// The buffer was idle: the caller has promised to call [`Outbound::flush`] or
        /// [`Outbound::hand_over`], now or at the end of its batch.
        promised: bool,
        /// The client falls behind; see `is_stalled` for how much.
        behind: bool,
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
pub struct Outbound {
    state: Mutex<State>,
    writable: Notify,
    drained: Notify,
    abort: Notify,
    max_pending: usize,
}

/// Who may move bytes to the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owner {
    /// Nobody has to: there is nothing to write.
    #[default]
    Nobody,
    /// Somebody who appended.
    Promised,
    WriteLoop,
}

/// A socket that can be written to without waiting.
pub(crate) trait TryWrite: Send + Sync {
    /// Writes what fits; `WouldBlock` when nothing does.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

impl TryWrite for OwnedWriteHalf {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        OwnedWriteHalf::try_write(self, bytes)
    }
}

#[derive(Default)]
struct State {
    chunks: Chunks,
    /// An empty chunk for the next message.
    spare: Vec<u8>,
    /// Bytes in `chunks`, and bytes taken by the write loop and not written yet.
    pending: usize,
    owner: Owner,
    /// Nothing is accepted any more.
    closed: bool,
    /// What was queued is thrown away.
    discarded: bool,
    /// For writing without the write loop.
    socket: Option<Arc<dyn TryWrite>>,
    messages: u64,
    bytes: u64,
}

/// Whole protocol elements in the order they are written. Pieces instead of one buffer, since a
/// backlog of megabytes that doubles and moves costs more than it takes to write it.
pub(crate) type Chunks = VecDeque<Vec<u8>>;

/// A chunk is not extended beyond this; a larger message has one of its own.
const CHUNK_BYTES: usize = 64 * 1024;
/// A chunk up to this is kept when everything is written: idle connections should hold little.
const SPARE_BYTES_MAX: usize = 8 * 1024;
/// A client with more than this waiting is behind: its write loop should get to run.
const BEHIND_BYTES: usize = 1024 * 1024;
/// More than this is left to the write loop, which runs beside the producer.
const DIRECT_BYTES_MAX: usize = 16 * 1024;
/// More than the verb, blanks, numbers and line ends around the parts of a message.
const FRAME_BYTES: usize = 64;

impl State {
    /// The chunk to append `size` bytes to.
    fn chunk(&mut self, size: usize) -> &mut Vec<u8> {
        let fits = self
            .chunks
            .back()
            .is_some_and(|chunk| chunk.len() + size <= chunk.capacity().max(CHUNK_BYTES));
        if !fits {
            let chunk = if self.chunks.is_empty() {
                std::mem::take(&mut self.spare)
            } else {
                // There is a backlog: the next chunk will be filled too.
                Vec::with_capacity(CHUNK_BYTES.max(size))
            };
            self.chunks.push_back(chunk);
        }
        let last = self.chunks.len() - 1;
        &mut self.chunks[last]
    }

    /// Keeps a written chunk for the next message, if it is small.
    fn keep(&mut self, mut chunk: Vec<u8>) {
        if chunk.capacity() <= SPARE_BYTES_MAX && !self.closed {
            chunk.clear();
            self.spare = chunk;
        }
    }

    fn discard(&mut self) {
        self.discarded = true;
        self.pending -= self.chunks.iter().map(Vec::len).sum::<usize>();
        self.chunks.clear();
    }
}

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
        let line = FRAME_BYTES + frame.subject.len() + frame.reply.len() + sid.len();
        let mut state = self.state.lock();
        let pushed = self.push_locked(&mut state, line + size, |buf| {
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
        if state.pending + size > self.max_pending {
            state.closed = true;
            state.discard();
            return Err(PushError::Overflow);
        }
        let chunk = state.chunk(size);
        let before = chunk.len();
        write(chunk);
        state.pending += chunk.len() - before;
        let promised = state.owner == Owner::Nobody;
        if promised {
            state.owner = Owner::Promised;
        }
        Ok(Pushed::Queued {
            promised,
            behind: state.pending > BEHIND_BYTES.min(self.stall_bytes()),
        })
    }

    fn stall_bytes(&self) -> usize {
        self.max_pending / 4 * 3
    }

    /// Lets buffers be written without the write loop, until [`Outbound::close`].
    pub(crate) fn set_socket(&self, socket: Arc<dyn TryWrite>) {
        let mut state = self.state.lock();
        if !state.closed {
            state.socket = Some(socket);
        }
    }

    /// Keeps a promise: writes at once what is small, else hands over.
    pub fn flush(&self) {
        if !self.try_write_now() {
            self.hand_over();
        }
    }

    /// Keeps a promise by leaving the rest to the write loop.
    pub fn hand_over(&self) {
        self.state.lock().owner = Owner::WriteLoop;
        self.writable.notify_one();
    }

    /// Returns true when nothing is left to do.
    fn try_write_now(&self) -> bool {
        // The write loop is where the trace of what is sent is made.
        if tracing::enabled!(tracing::Level::TRACE) {
            return false;
        }
        let (socket, mut chunk) = {
            let mut state = self.state.lock();
            if state.closed || state.pending > DIRECT_BYTES_MAX || state.chunks.len() != 1 {
                return false;
            }
            let Some(socket) = state.socket.clone() else {
                return false;
            };
            let Some(chunk) = state.chunks.pop_front() else {
                return false;
            };
            (socket, chunk)
        };
        // An error will meet the write loop as well, which knows what to do.
        let written = socket.try_write(&chunk).unwrap_or(0);
        let mut state = self.state.lock();
        state.pending -= written;
        if written < chunk.len() {
            if state.discarded {
                state.pending -= chunk.len() - written;
            } else {
                chunk.drain(..written);
                state.chunks.push_front(chunk);
            }
            return false;
        }
        state.keep(chunk);
        // More may have come, or a close, while the lock was free.
        let done = state.chunks.is_empty() && !state.closed;
        if done {
            state.owner = Owner::Nobody;
        }
        done
    }

    /// Accepts nothing from now on. The write loop ends after what is queued, or at once with
    /// `discard`.
    pub(crate) fn close(&self, discard: bool) {
        let mut state = self.state.lock();
        state.closed = true;
        state.socket = None;
        if discard {
            state.discard();
            self.abort.notify_one();
        }
        // A promise that is still open will be kept by a hand-over.
        if state.owner == Owner::Nobody {
            state.owner = Owner::WriteLoop;
            self.writable.notify_one();
        }
    }

    /// Bytes waiting to be written.
    pub fn pending_bytes(&self) -> usize {
        self.state.lock().pending
    }

    /// Messages and bytes (headers plus bodies) appended so far.
    pub fn totals(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.messages, state.bytes)
    }

    /// True when the buffer is so full that a fast producer should pause (CORE-035).
    pub(crate) fn is_stalled(&self) -> bool {
        let state = self.state.lock();
        !state.closed && state.pending > self.stall_bytes()
    }

    /// Waits until the write loop has written something.
    pub(crate) async fn drained(&self) {
        self.drained.notified().await;
    }

    /// Waits for a hand-over.
    pub(crate) async fn writable(&self) {
        self.writable.notified().await;
    }

    /// Waits for a close with `discard`.
    pub(crate) async fn aborted(&self) {
        self.abort.notified().await;
    }

    /// For the write loop: swaps the queued chunks with `taken`, which must be empty.
    pub(crate) fn take(&self, taken: &mut Chunks) -> Taken {
        let mut state = self.state.lock();
        if state.owner != Owner::WriteLoop {
            return Taken::Nothing;
        }
        if state.chunks.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            state.owner = Owner::Nobody;
            return Taken::Nothing;
        }
        std::mem::swap(&mut state.chunks, taken);
        Taken::Data
    }

    /// Notes that this many of the taken bytes were written.
    pub(crate) fn written(&self, count: usize) {
        self.state.lock().pending -= count;
        self.drained.notify_waiters();
    }

    /// Forgets what was taken; one chunk may serve again.
    pub(crate) fn recycle(&self, taken: &mut Chunks) {
        if let Some(chunk) = taken.pop_front() {
            self.state.lock().keep(chunk);
        }
        taken.clear();
    }
}

#[cfg(test)]
mod tests;
