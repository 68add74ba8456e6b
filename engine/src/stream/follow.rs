//! Reading a stream as it grows.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::core::StreamCore;
use super::messages::Messages;
use crate::error::{ReadError, Stopped};
use crate::ids::{Lsn, Seq};
use crate::message::Message;
use crate::subject::Filter;
use crate::ticket::{Ticket, block_on};

/// Why a follower has no next message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FollowError {
    /// What comes next cannot be read. After [`ReadError::Corrupt`] the next call goes on behind it.
    Read(ReadError),
    /// The stream was deleted.
    Deleted,
    /// The store stopped: nothing new will come. Everything durable was returned before.
    Stopped(Stopped),
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FollowError::Read(error) => error.fmt(f),
            FollowError::Deleted => f.write_str("the stream was deleted"),
            FollowError::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl std::error::Error for FollowError {}

/// Returns the messages of a stream one by one and waits for those to come: see
/// [`crate::Stream::follow`]. Only durable messages are returned. Several followers do not disturb
/// each other; a position that has to survive a restart is a [`crate::Consumer`].
#[derive(Debug)]
pub struct Follower {
    core: Arc<StreamCore>,
    messages: Messages,
    /// Resolves when the store stops, never otherwise.
    stop: Ticket,
    /// Key in the gate's waiters while a poll is pending.
    registered: Option<u64>,
}

impl Follower {
    pub(crate) fn new(core: Arc<StreamCore>, filters: &[Filter], from: Seq) -> Follower {
        // Behind the last position that anything can be given.
        let stop = core.shared.queue.ticket(Lsn(u64::MAX));
        let messages = Messages::new(core.clone(), filters, &(from..=Seq(u64::MAX - 1)));
        Follower {
            core,
            messages,
            stop,
            registered: None,
        }
    }

    /// Where the next message is looked for.
    pub fn position(&self) -> Seq {
        self.messages.position()
    }

    /// Goes on at `seq`, forwards or backwards.
    pub fn seek(&mut self, seq: Seq) {
        self.messages.seek(seq);
    }

    /// The next message if it is there already.
    pub fn try_next(&mut self) -> Result<Option<Message>, FollowError> {
        match self.messages.step() {
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(error)) => Err(FollowError::Read(error)),
            None if self.core.lock().deleted => Err(FollowError::Deleted),
            None => Ok(None),
        }
    }

    /// The next message; blocks until there is one. Not for manual mode.
    pub fn wait_next(&mut self) -> Result<Message, FollowError> {
        block_on(|waker| self.poll_with(waker))
    }

    /// The next message, as a future of any runtime.
    pub fn next_message(&mut self) -> NextMessage<'_> {
        NextMessage(self)
    }

    /// The next message; while there is none the task's waker is kept and called once something
    /// may have changed.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, FollowError>> {
        self.poll_with(context.waker())
    }

    fn poll_with(&mut self, waker: &Waker) -> Poll<Result<Message, FollowError>> {
        // Registered before it is looked: what becomes visible afterwards wakes.
        self.registered = Some(self.core.gate.wait(self.registered, waker));
        let stopped = Pin::new(&mut self.stop).poll(&mut Context::from_waker(waker));
        let outcome = match self.try_next() {
            Ok(None) => match stopped {
                Poll::Ready(Err(stopped)) => Err(FollowError::Stopped(stopped)),
                _ => return Poll::Pending,
            },
            Ok(Some(message)) => Ok(message),
            Err(error) => Err(error),
        };
        self.forget_waker();
        Poll::Ready(outcome)
    }

    fn forget_waker(&mut self) {
        if let Some(id) = self.registered.take() {
            self.core.gate.forget(id);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.forget_waker();
    }
}

/// See [`Follower::next_message`]. Dropping it loses no message.
#[derive(Debug)]
pub struct NextMessage<'f>(&'f mut Follower);

impl Future for NextMessage<'_> {
    type Output = Result<Message, FollowError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_next(context)
    }
}
