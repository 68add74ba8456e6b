//! Who can receive a message: subscriptions of connections, and parts of the server itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::trie::EntryId;
use crate::net::acks::{AckQueue, PendingAck};
use crate::net::conn::Conn;

/// What the trie of an account stores.
#[derive(Clone)]
pub enum Subscriber {
    /// Subscription of a connection.
    Client(Arc<ClientSubscription>),
    /// Part of the server. Counts as interest unless it says that it does not know the receiver.
    Internal(Arc<dyn InternalSubscriber>),
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subscriber::Client(sub) => write!(f, "Client({}, {:?})", sub.conn.id(), sub.sid),
            Subscriber::Internal(_) => f.write_str("Internal"),
        }
    }
}

/// A part of the server that receives messages.
pub trait InternalSubscriber: Send + Sync {
    /// Takes one message. Runs on the thread of whoever publishes, usually inside the read loop of a
    /// connection: it must not block, wait or hold a lock that is held across I/O. It may publish
    /// through the account, and change subscriptions of the account.
    ///
    /// Returns whether the message found its receiver here. `false` counts as no interest: a request
    /// to something that does not exist is answered with 503.
    fn deliver(&self, message: &Inbound<'_>) -> bool;
}

/// A message on its way to an [`InternalSubscriber`].
///
/// All parts are slices of the publisher's read buffer: keeping one keeps up to 64 KiB alive, so what
/// is kept for longer than a commit should be copied.
pub struct Inbound<'a> {
    /// Subject it was published to.
    pub subject: &'a Bytes,
    /// Reply subject.
    pub reply: Option<&'a Bytes>,
    /// Whole header block, from `NATS/1.0` to the empty line.
    pub headers: Option<&'a Bytes>,
    /// Body without headers.
    pub payload: &'a Bytes,
    /// The connection that published it; none for messages made by the server.
    pub origin: Option<&'a Origin<'a>>,
}

/// The publishing connection as seen from inside its own read loop.
pub struct Origin<'a> {
    conn: &'a Arc<Conn>,
    acks: &'a std::cell::RefCell<AckQueue>,
}

impl<'a> Origin<'a> {
    /// Made by the read loop of `conn`.
    pub(crate) fn new(conn: &'a Arc<Conn>, acks: &'a std::cell::RefCell<AckQueue>) -> Self {
        Origin { conn, acks }
    }

    /// The connection: identity, client name, counters.
    pub fn conn(&self) -> &'a Arc<Conn> {
        self.conn
    }

    /// Queues an acknowledgement that goes out once the store's durable position has reached
    /// `ack.lsn`. Order is kept per connection. See [`crate::net::acks`].
    pub fn queue_ack(&self, ack: PendingAck) {
        self.acks.borrow_mut().push(ack);
    }
}

/// A subscription of a connection.
#[derive(Debug)]
pub struct ClientSubscription {
    /// Identity in the trie.
    pub(crate) id: EntryId,
    /// Owner. The connection forgets its subscriptions when it closes, which breaks the cycle.
    pub(crate) conn: Arc<Conn>,
    /// Subject, possibly with wildcards.
    pub subject: Bytes,
    /// Queue group.
    pub queue: Option<Bytes>,
    /// Chosen by the client; repeated in every MSG line.
    pub sid: Bytes,
    /// Messages delivered since SUB.
    pub(crate) delivered: AtomicU64,
    /// Subscription ends with this many deliveries; 0 = never.
    pub(crate) max: AtomicU64,
    /// Set once it left the trie: a result matched before that must not deliver any more.
    pub(crate) closed: AtomicBool,
}

impl ClientSubscription {
    /// Messages delivered since SUB.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Limit set by `UNSUB sid max`; 0 = none.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }
}
