//! An account: one isolated subject space.
//!
//! # The seam for parts of the server that live on subjects (JetStream, system services)
//!
//! - [`Account::subscribe`] puts an [`InternalSubscriber`] into the trie. Its `deliver` is called
//!   synchronously by whoever publishes, usually the read loop of a connection, and must not block.
//! - [`Inbound::origin`](super::Inbound::origin) names the publishing connection.
//!   [`Origin::queue_ack`](super::Origin::queue_ack) queues an acknowledgement on that connection; it
//!   goes out, in one batch with its neighbours, when the durable position passes its LSN
//!   ([`crate::net::acks`]).
//! - [`Account::publish`] and [`Account::deliver_to`] send single messages. Whoever sends many keeps a
//!   [`Publisher`] ([`Account::publisher`]): it caches matches and wakes each receiving connection
//!   once per batch.
//! - [`Account::has_interest`] and [`Account::watch_interest`] tell whether anybody would receive a
//!   message, and when that changes.
//!
//! A message reaches receivers in the order in which one publisher sent it (CORE-050).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use super::interest::{InterestListener, InterestListeners, ListenerId};
use super::publisher::{Message, Publisher};
use super::subscriber::{ClientSubscription, InternalSubscriber, Subscriber};
use super::trie::{EntryId, InvalidSubject, Matches, Trie};

/// Name of the account of everybody when none is configured (AUTH-001).
pub const GLOBAL_ACCOUNT: &str = "$G";

static NEXT_ENTRY_ID: AtomicU64 = AtomicU64::new(1);

/// A fresh identity for a subscription.
pub(crate) fn next_entry_id() -> EntryId {
    NEXT_ENTRY_ID.fetch_add(1, Ordering::Relaxed)
}

/// One isolated subject space with its subscriptions.
pub struct Account {
    name: Arc<str>,
    trie: RwLock<Trie<Subscriber>>,
    /// Changes with every change of the trie; cached matches of an older generation are stale.
    generation: AtomicU64,
    interest: InterestListeners,
}

/// Handle of a subscription made with [`Account::subscribe`]. Dropping it does not unsubscribe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalSubscription {
    id: EntryId,
    subject: Bytes,
    queue: Option<Bytes>,
}

impl Account {
    /// An empty account.
    pub fn new(name: &str) -> Arc<Account> {
        Arc::new(Account {
            name: name.into(),
            trie: RwLock::new(Trie::default()),
            generation: AtomicU64::new(1),
            interest: InterestListeners::default(),
        })
    }

    /// Name, for example `$G`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Number of subscriptions, internal ones included.
    pub fn subscription_count(&self) -> usize {
        self.trie.read().len()
    }

    /// Subscribes a part of the server. `subject` may have wildcards; with a `queue` only one member
    /// of the group gets each message.
    pub fn subscribe(
        &self,
        subject: &[u8],
        queue: Option<&[u8]>,
        subscriber: Arc<dyn InternalSubscriber>,
    ) -> Result<InternalSubscription, InvalidSubject> {
        let handle = InternalSubscription {
            id: next_entry_id(),
            subject: Bytes::copy_from_slice(subject),
            queue: queue.map(Bytes::copy_from_slice),
        };
        let entry = Subscriber::Internal(subscriber);
        self.insert(&handle.subject, handle.queue.as_ref(), handle.id, entry)?;
        Ok(handle)
    }

    /// Ends a subscription made with [`Account::subscribe`]. A delivery that is under way on another
    /// thread may still arrive.
    pub fn unsubscribe(&self, subscription: &InternalSubscription) {
        self.remove(
            &subscription.subject,
            subscription.queue.as_ref(),
            subscription.id,
        );
    }

    pub(crate) fn subscribe_client(
        &self,
        sub: &Arc<ClientSubscription>,
    ) -> Result<(), InvalidSubject> {
        let entry = Subscriber::Client(Arc::clone(sub));
        self.insert(&sub.subject, sub.queue.as_ref(), sub.id, entry)
    }

    /// Takes a client subscription out of the trie; later calls do nothing.
    pub(crate) fn unsubscribe_client(&self, sub: &ClientSubscription) {
        if !sub.closed.swap(true, Ordering::AcqRel) {
            self.remove(&sub.subject, sub.queue.as_ref(), sub.id);
        }
    }

    fn insert(
        &self,
        subject: &Bytes,
        queue: Option<&Bytes>,
        id: EntryId,
        entry: Subscriber,
    ) -> Result<(), InvalidSubject> {
        {
            let mut trie = self.trie.write();
            trie.insert(subject, queue, id, entry)?;
            self.generation.fetch_add(1, Ordering::Release);
        }
        self.interest
            .subscription_changed(subject, |subject| self.has_interest(subject));
        Ok(())
    }

    fn remove(&self, subject: &Bytes, queue: Option<&Bytes>, id: EntryId) {
        let removed = {
            let mut trie = self.trie.write();
            let removed = trie.remove(subject, queue, id);
            if removed.is_some() {
                self.generation.fetch_add(1, Ordering::Release);
            }
            removed
        };
        if removed.is_some() {
            self.interest
                .subscription_changed(subject, |subject| self.has_interest(subject));
        }
    }

    /// True when a message published to the literal `subject` would reach anybody, be it a
    /// connection or a part of the server.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        self.trie.read().has_match(subject)
    }

    /// True when a member of queue group `queue` would receive a message published to `subject`.
    pub fn has_queue_interest(&self, subject: &[u8], queue: &[u8]) -> bool {
        let mut matches = Matches::default();
        self.collect(subject, &mut matches);
        matches.groups.iter().any(|group| group.queue == queue)
    }

    /// Calls `listener` whenever interest in the literal `subject` appears or disappears. Also
    /// returns whether there is interest now; no change after that is missed.
    pub fn watch_interest(
        &self,
        subject: &[u8],
        listener: Arc<dyn InterestListener>,
    ) -> (ListenerId, bool) {
        self.interest
            .add(subject, listener, || self.has_interest(subject))
    }

    /// Ends a registration made with [`Account::watch_interest`].
    pub fn unwatch_interest(&self, subject: &[u8], id: ListenerId) {
        self.interest.remove(subject, id);
    }

    /// Changes with every change of a subscription.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Collects everything matching `subject` into `out` and returns the generation it is true for.
    pub(crate) fn collect(&self, subject: &[u8], out: &mut Matches<Subscriber>) -> u64 {
        let trie = self.trie.read();
        let generation = self.generation();
        trie.collect(subject, out);
        generation
    }

    /// A sender for many messages.
    pub fn publisher(self: &Arc<Self>) -> Publisher {
        Publisher::new(Arc::clone(self))
    }

    /// Publishes one message of the server. Returns whether anybody received it.
    pub fn publish(
        self: &Arc<Self>,
        subject: &Bytes,
        reply: Option<&Bytes>,
        headers: Option<&Bytes>,
        payload: &Bytes,
    ) -> bool {
        self.publisher().publish(&Message {
            subject,
            reply,
            headers,
            payload,
        })
    }

    /// Sends one message to the subscribers of `route` while its MSG line shows `shown` (consumer
    /// delivery, WIRE section 11). Returns whether anybody received it.
    pub fn deliver_to(
        self: &Arc<Self>,
        route: &Bytes,
        shown: &Bytes,
        reply: Option<&Bytes>,
        headers: Option<&Bytes>,
        payload: &Bytes,
    ) -> bool {
        self.publisher().deliver_to(
            route,
            &Message {
                subject: shown,
                reply,
                headers,
                payload,
            },
        )
    }
}
