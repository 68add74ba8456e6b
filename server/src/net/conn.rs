//! The shared part of a connection: what others than its own tasks may use.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::close::CloseReason;
use super::outbound::{Frame, Outbound, PushError, Pushed};
use crate::protocol::connect::ConnectOptions;
use crate::routing::{Account, ClientSubscription};

/// A client connection.
pub struct Conn {
    id: u64,
    peer: SocketAddr,
    start: SystemTime,
    account: Arc<Account>,
    out: Outbound,
    echo: AtomicBool,
    headers: AtomicBool,
    protocol: AtomicU8,
    first_pong_sent: AtomicBool,
    details: Mutex<Details>,
    subs: Mutex<HashMap<Bytes, Arc<ClientSubscription>>>,
    in_messages: AtomicU64,
    in_bytes: AtomicU64,
    rtt_ns: AtomicU64,
    last_activity_ns: AtomicU64,
    close_reason: OnceLock<CloseReason>,
    closing: Notify,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conn({}, {})", self.id, self.peer)
    }
}

/// What the client said about itself.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// Client program.
    pub name: String,
    /// Language of its library.
    pub lang: String,
    /// Version of its library.
    pub version: String,
    /// User it authenticated as.
    pub user: Option<String>,
}

impl Conn {
    pub(crate) fn new(
        id: u64,
        peer: SocketAddr,
        account: Arc<Account>,
        max_pending: usize,
    ) -> Arc<Conn> {
        let defaults = ConnectOptions::default();
        Arc::new(Conn {
            id,
            peer,
            start: SystemTime::now(),
            account,
            out: Outbound::new(max_pending),
            echo: AtomicBool::new(defaults.echo),
            headers: AtomicBool::new(defaults.headers),
            protocol: AtomicU8::new(0),
            first_pong_sent: AtomicBool::new(false),
            details: Mutex::default(),
            subs: Mutex::default(),
            in_messages: AtomicU64::new(0),
            in_bytes: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(0),
            last_activity_ns: AtomicU64::new(0),
            close_reason: OnceLock::new(),
            closing: Notify::new(),
        })
    }

    /// Number of the connection, unique in the life of the server.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Address of the client.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// When it was accepted.
    pub fn start(&self) -> SystemTime {
        self.start
    }

    /// The account it publishes and subscribes in.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// What the client said about itself.
    pub fn details(&self) -> Details {
        self.details.lock().clone()
    }

    /// Round trip of the last answered PING (CORE-047).
    pub fn rtt(&self) -> Option<Duration> {
        match self.rtt_ns.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        }
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        self.rtt_ns
            .store((rtt.as_nanos() as u64).max(1), Ordering::Relaxed);
    }

    /// Messages and bytes (headers plus bodies) received from the client.
    pub fn in_totals(&self) -> (u64, u64) {
        (
            self.in_messages.load(Ordering::Relaxed),
            self.in_bytes.load(Ordering::Relaxed),
        )
    }

    pub(crate) fn count_in(&self, messages: u64, bytes: u64) {
        self.in_messages.fetch_add(messages, Ordering::Relaxed);
        self.in_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// When the client last sent something.
    pub fn last_activity(&self) -> SystemTime {
        self.start + Duration::from_nanos(self.last_activity_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn set_last_activity(&self, since_start: Duration) {
        self.last_activity_ns
            .store(since_start.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The outbound buffer.
    pub fn outbound(&self) -> &Outbound {
        &self.out
    }

    pub(crate) fn apply(&self, options: &ConnectOptions, user: Option<String>) {
        self.echo.store(options.echo, Ordering::Relaxed);
        self.headers.store(options.headers, Ordering::Relaxed);
        self.protocol
            .store(u8::from(options.protocol == 1), Ordering::Relaxed);
        *self.details.lock() = Details {
            name: options.name.clone(),
            lang: options.lang.clone(),
            version: options.version.clone(),
            user,
        };
    }

    /// Notes that a PONG was sent. Returns true the first time.
    pub(crate) fn note_pong(&self) -> bool {
        !self.first_pong_sent.swap(true, Ordering::Relaxed)
    }

    /// True when the client takes INFO at any time (CORE-027, CORE-029).
    pub(crate) fn takes_async_info(&self) -> bool {
        self.protocol.load(Ordering::Relaxed) >= 1 && self.first_pong_sent.load(Ordering::Relaxed)
    }

    /// Ends the connection; only the first reason counts. Its read loop does the rest.
    pub(crate) fn close(&self, reason: CloseReason) {
        if self.close_reason.set(reason).is_ok() {
            if reason.discards_output() {
                self.out.close(true);
            }
            self.closing.notify_one();
        }
    }

    /// Why it was closed; none while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason.get().copied()
    }

    /// Waits for [`Conn::close`].
    pub(crate) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Appends protocol text, for example a `-ERR` line. Returns whether the caller has to flush the
    /// outbound buffer.
    pub(crate) fn send(&self, size: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        match self.out.push(size, write) {
            Ok(Pushed::Queued { promised, .. }) => promised,
            Ok(Pushed::Refused) | Err(PushError::Closed) => false,
            Err(PushError::Overflow) => {
                self.close(CloseReason::SlowConsumerPendingBytes);
                false
            }
        }
    }

    /// Delivers a message to one of its subscriptions. `origin` is the publishing connection.
    pub(crate) fn deliver(
        &self,
        sub: &ClientSubscription,
        frame: &Frame<'_>,
        origin: Option<&Arc<Conn>>,
    ) -> Pushed {
        if sub.closed.load(Ordering::Relaxed) {
            return Pushed::Refused;
        }
        if !self.echo.load(Ordering::Relaxed) && origin.is_some_and(|origin| origin.id == self.id) {
            return Pushed::Refused;
        }
        let mut frame = *frame;
        if !frame.headers.is_empty() && !self.headers.load(Ordering::Relaxed) {
            frame.headers = b"";
        }
        let count = sub.delivered.fetch_add(1, Ordering::Relaxed) + 1;
        let max = sub.max.load(Ordering::Relaxed);
        if max > 0 && count > max {
            return Pushed::Refused;
        }
        let pushed = self.out.push_message(&sub.sid, &frame);
        if max > 0 && count == max {
            self.remove_subscription(sub);
        }
        match pushed {
            Ok(pushed) => pushed,
            Err(PushError::Closed) => Pushed::Refused,
            Err(PushError::Overflow) => {
                self.close(CloseReason::SlowConsumerPendingBytes);
                Pushed::Refused
            }
        }
    }

    /// Number of subscriptions.
    pub fn subscription_count(&self) -> usize {
        self.subs.lock().len()
    }

    /// Its subscriptions, in no particular order.
    pub fn subscriptions(&self) -> Vec<Arc<ClientSubscription>> {
        self.subs.lock().values().cloned().collect()
    }

    pub(crate) fn subscription(&self, sid: &[u8]) -> Option<Arc<ClientSubscription>> {
        self.subs.lock().get(sid).cloned()
    }

    /// Keeps a subscription under its sid. Refused when the sid is in use.
    pub(crate) fn add_subscription(&self, sub: &Arc<ClientSubscription>) -> bool {
        match self.subs.lock().entry(sub.sid.clone()) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Arc::clone(sub));
                true
            }
        }
    }

    /// Forgets a subscription here and in the account.
    pub(crate) fn remove_subscription(&self, sub: &ClientSubscription) {
        {
            let mut subs = self.subs.lock();
            if subs.get(&sub.sid).is_some_and(|have| have.id == sub.id) {
                subs.remove(&sub.sid);
            }
        }
        self.account.unsubscribe_client(sub);
    }

    /// Forgets all subscriptions.
    pub(crate) fn remove_all_subscriptions(&self) {
        let subs = std::mem::take(&mut *self.subs.lock());
        for sub in subs.values() {
            self.account.unsubscribe_client(sub);
        }
    }
}
