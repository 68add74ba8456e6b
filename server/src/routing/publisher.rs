//! From one message to its receivers.

use std::sync::Arc;

use bytes::Bytes;

use super::account::Account;
use super::cache::MatchCache;
use super::subscriber::{ClientSubscription, Inbound, Origin, Subscriber};
use super::trie::{Group, Matches};
use crate::net::acks::AckBody;
use crate::net::conn::Conn;
use crate::net::outbound::{Frame, Pushed};

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Subject.
    pub subject: &'a Bytes,
    /// Reply subject.
    pub reply: Option<&'a Bytes>,
    /// Whole header block, from `NATS/1.0` to the empty line.
    pub headers: Option<&'a Bytes>,
    /// Body without headers.
    pub payload: &'a Bytes,
}

/// Sends messages into an account.
///
/// Receiving connections are woken by [`Publisher::flush`], which also happens on drop, so that a
/// batch of messages costs each receiver one wake-up and one write. Matches are cached until a
/// subscription of the account changes.
pub struct Publisher {
    account: Arc<Account>,
    cache: MatchCache,
    wake: WakeList,
    ack_scratch: Vec<u8>,
}

/// Connections written to without their write loops in one flush.
const DIRECT_CONNS_MAX: usize = 4;

/// Connections that got something since the last flush.
#[derive(Default)]
struct WakeList {
    conns: Vec<Arc<Conn>>,
    /// A receiver that falls behind: a fast producer should let it catch up (CORE-035).
    behind: Option<Arc<Conn>>,
    /// State of a small generator; the choice of a queue member needs to be fair, not secret.
    random: u64,
}

/// A message and where it goes.
struct Delivery<'a> {
    route: &'a Bytes,
    shown: &'a [u8],
    reply: Option<&'a Bytes>,
    headers: Option<&'a Bytes>,
    payload: Payload<'a>,
    origin: Option<&'a Origin<'a>>,
}

#[derive(Clone, Copy)]
enum Payload<'a> {
    Shared(&'a Bytes),
    /// Formatted into a scratch buffer; an internal subscriber gets a copy.
    Scratch(&'a [u8]),
}

impl Payload<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Payload::Shared(bytes) => bytes,
            Payload::Scratch(bytes) => bytes,
        }
    }
}

impl Publisher {
    pub(crate) fn new(account: Arc<Account>) -> Publisher {
        Publisher {
            account,
            cache: MatchCache::default(),
            wake: WakeList::default(),
            ack_scratch: Vec::new(),
        }
    }

    /// The account it sends into.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Publishes a message of the server. Returns whether anybody received it.
    pub fn publish(&mut self, message: &Message<'_>) -> bool {
        self.deliver_to(message.subject, message)
    }

    /// Sends a message to the subscribers of `route` while the MSG line shows `message.subject`
    /// (consumer delivery, WIRE section 11). Internal subscribers see `route`. Returns whether anybody
    /// received it.
    pub fn deliver_to(&mut self, route: &Bytes, message: &Message<'_>) -> bool {
        self.send(&Delivery {
            route,
            shown: message.subject,
            reply: message.reply,
            headers: message.headers,
            payload: Payload::Shared(message.payload),
            origin: None,
        })
    }

    /// As [`Publisher::deliver_to`], but only to one member of the queue group `queue`.
    pub fn deliver_to_queue(&mut self, route: &Bytes, queue: &[u8], message: &Message<'_>) -> bool {
        let delivery = Delivery {
            route,
            shown: message.subject,
            reply: message.reply,
            headers: message.headers,
            payload: Payload::Shared(message.payload),
            origin: None,
        };
        let matches = self.cache.lookup(&self.account, route);
        match matches.groups.iter().find(|group| group.queue == queue) {
            Some(group) => self.wake.send_to_group(group, &delivery),
            None => false,
        }
    }

    /// Publishes a message received from a connection.
    pub(crate) fn publish_from(&mut self, origin: &Origin<'_>, message: &Message<'_>) -> bool {
        self.send(&Delivery {
            route: message.subject,
            shown: message.subject,
            reply: message.reply,
            headers: message.headers,
            payload: Payload::Shared(message.payload),
            origin: Some(origin),
        })
    }

    /// Sends a publish acknowledgement to `reply`. Returns whether anybody received it.
    pub fn publish_ack(&mut self, reply: &Bytes, body: &AckBody) -> bool {
        let mut scratch = std::mem::take(&mut self.ack_scratch);
        scratch.clear();
        body.write(&mut scratch);
        let delivered = self.send(&Delivery {
            route: reply,
            shown: reply,
            reply: None,
            headers: None,
            payload: Payload::Scratch(&scratch),
            origin: None,
        });
        self.ack_scratch = scratch;
        delivered
    }

    /// The first plain subscription of `conn` that matches `subject`.
    pub(crate) fn own_subscription(
        &mut self,
        subject: &[u8],
        conn: &Arc<Conn>,
    ) -> Option<Arc<ClientSubscription>> {
        let matches = self.cache.lookup(&self.account, subject);
        matches
            .plain
            .iter()
            .find_map(|subscriber| match subscriber {
                Subscriber::Client(sub) if Arc::ptr_eq(&sub.conn, conn) => Some(Arc::clone(sub)),
                _ => None,
            })
    }

    fn send(&mut self, delivery: &Delivery<'_>) -> bool {
        let matches = self.cache.lookup(&self.account, delivery.route);
        self.wake.send_to_all(matches, delivery)
    }

    /// Sees to it that everything sent reaches the sockets.
    pub fn flush(&mut self) {
        // A few small answers are written here and now; a fan-out is work for the write loops.
        let direct = self.wake.conns.len() <= DIRECT_CONNS_MAX;
        for conn in self.wake.conns.drain(..) {
            if direct {
                conn.outbound().flush();
            } else {
                conn.outbound().hand_over();
            }
        }
    }

    /// A receiver that falls behind, if any was seen since the last call.
    pub(crate) fn take_behind(&mut self) -> Option<Arc<Conn>> {
        self.wake.behind.take()
    }

    /// Notes a connection that got something by another way than a message.
    pub(crate) fn wake_later(&mut self, conn: &Arc<Conn>) {
        self.wake.conns.push(Arc::clone(conn));
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.flush();
    }
}

impl WakeList {
    fn send_to_all(&mut self, matches: &Matches<Subscriber>, delivery: &Delivery<'_>) -> bool {
        let mut delivered = false;
        for subscriber in &matches.plain {
            delivered |= self.send_to(subscriber, delivery);
        }
        for group in &matches.groups {
            delivered |= self.send_to_group(group, delivery);
        }
        delivered
    }

    /// The first member that can take it gets it (CORE-021).
    fn send_to_group(&mut self, group: &Group<Subscriber>, delivery: &Delivery<'_>) -> bool {
        let count = group.members.len();
        let start = if count > 1 {
            self.random_below(count)
        } else {
            0
        };
        let (before, after) = group.members.split_at(start);
        after
            .iter()
            .chain(before)
            .any(|member| self.send_to(member, delivery))
    }

    fn send_to(&mut self, subscriber: &Subscriber, delivery: &Delivery<'_>) -> bool {
        let sub = match subscriber {
            Subscriber::Client(sub) => sub,
            Subscriber::Internal(internal) => {
                let copied;
                let payload = match delivery.payload {
                    Payload::Shared(bytes) => bytes,
                    Payload::Scratch(bytes) => {
                        copied = Bytes::copy_from_slice(bytes);
                        &copied
                    }
                };
                return internal.deliver(&Inbound {
                    subject: delivery.route,
                    reply: delivery.reply,
                    headers: delivery.headers,
                    payload,
                    origin: delivery.origin,
                });
            }
        };
        let frame = Frame {
            subject: delivery.shown,
            reply: delivery.reply.map_or(&[], |reply| reply),
            headers: delivery.headers.map_or(&[], |headers| headers),
            payload: delivery.payload.as_slice(),
        };
        match sub
            .conn
            .deliver(sub, &frame, delivery.origin.map(Origin::conn))
        {
            Pushed::Refused => return false,
            Pushed::Queued { promised, behind } => {
                if promised {
                    self.conns.push(Arc::clone(&sub.conn));
                }
                if behind && self.behind.is_none() {
                    self.behind = Some(Arc::clone(&sub.conn));
                }
            }
        }
        true
    }

    fn random_below(&mut self, bound: usize) -> usize {
        if self.random == 0 {
            self.random = rand::random::<u64>() | 1;
        }
        // xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 32) as usize) % bound
    }
}
