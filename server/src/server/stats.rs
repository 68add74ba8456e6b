//! Snapshots for monitoring.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::Server;
use crate::net::close::CloseReason;
use crate::net::conn::{Conn, Details};

/// Counters of the whole server.
#[derive(Clone, Debug)]
pub struct ServerStats {
    /// When the server was made.
    pub start: SystemTime,
    /// Open connections.
    pub connections: usize,
    /// Connections accepted since the start.
    pub total_connections: u64,
    /// Subscriptions, those of the server itself included.
    pub subscriptions: usize,
    /// Messages received from clients.
    pub in_msgs: u64,
    /// Bytes of them, headers plus bodies.
    pub in_bytes: u64,
    /// Messages sent to clients.
    pub out_msgs: u64,
    /// Bytes of them, headers plus bodies.
    pub out_bytes: u64,
    /// Clients closed because too much was waiting for them.
    pub slow_consumers_pending_bytes: u64,
    /// Clients closed because a flush took too long.
    pub slow_consumers_write_deadline: u64,
    /// Clients closed because they did not answer PINGs.
    pub stale_connections: u64,
    /// Lame duck mode is on.
    pub lame_duck: bool,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnStats {
    /// Number of the connection.
    pub cid: u64,
    /// Client address.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub start: SystemTime,
    /// When the client last sent something.
    pub last_activity: SystemTime,
    /// Round trip of the last answered PING.
    pub rtt: Option<Duration>,
    /// Bytes waiting to be written.
    pub pending_bytes: usize,
    /// Messages received from it.
    pub in_msgs: u64,
    /// Bytes of them, headers plus bodies.
    pub in_bytes: u64,
    /// Messages sent to it.
    pub out_msgs: u64,
    /// Bytes of them, headers plus bodies.
    pub out_bytes: u64,
    /// Number of subscriptions.
    pub subscriptions: usize,
    /// Account.
    pub account: Arc<str>,
    /// What the client said about itself.
    pub details: Details,
}

/// One subscription of a connection.
#[derive(Clone, Debug)]
pub struct SubscriptionStats {
    /// Subject, possibly with wildcards; lossy when it is not UTF-8.
    pub subject: String,
    /// Queue group.
    pub queue: Option<String>,
    /// Client's id of it.
    pub sid: String,
    /// Messages delivered since SUB.
    pub delivered: u64,
    /// Limit set by UNSUB; 0 = none.
    pub max: u64,
    /// Connection it belongs to.
    pub cid: u64,
}

/// A connection that ended.
#[derive(Clone, Debug)]
pub struct ClosedConn {
    /// Its last state.
    pub conn: ConnStats,
    /// When it ended.
    pub stop: SystemTime,
    /// Why.
    pub reason: CloseReason,
}

impl ConnStats {
    pub(super) fn of(conn: &Conn) -> ConnStats {
        let (in_msgs, in_bytes) = conn.in_totals();
        let (out_msgs, out_bytes) = conn.outbound().totals();
        ConnStats {
            cid: conn.id(),
            peer: conn.peer(),
            start: conn.start(),
            last_activity: conn.last_activity(),
            rtt: conn.rtt(),
            pending_bytes: conn.outbound().pending_bytes(),
            in_msgs,
            in_bytes,
            out_msgs,
            out_bytes,
            subscriptions: conn.subscription_count(),
            account: Arc::clone(conn.account().name()),
            details: conn.details(),
        }
    }
}

impl Server {
    /// Counters of the whole server.
    pub fn stats(&self) -> ServerStats {
        let shared = &self.shared;
        let (open, mut input, mut output) = {
            let conns = shared.conns.lock();
            let open: Vec<_> = conns.open.values().cloned().collect();
            (open, conns.closed_in, conns.closed_out)
        };
        for conn in &open {
            let (messages, bytes) = conn.in_totals();
            input = (input.0 + messages, input.1 + bytes);
            let (messages, bytes) = conn.outbound().totals();
            output = (output.0 + messages, output.1 + bytes);
        }
        ServerStats {
            start: shared.start,
            connections: open.len(),
            total_connections: shared.totals.connections.load(Ordering::Relaxed),
            subscriptions: self.account().subscription_count(),
            in_msgs: input.0,
            in_bytes: input.1,
            out_msgs: output.0,
            out_bytes: output.1,
            slow_consumers_pending_bytes: shared.totals.slow_pending.load(Ordering::Relaxed),
            slow_consumers_write_deadline: shared.totals.slow_deadline.load(Ordering::Relaxed),
            stale_connections: shared.totals.stale.load(Ordering::Relaxed),
            lame_duck: shared.is_lame_duck(),
        }
    }

    /// All open connections, ordered by number.
    pub fn connections(&self) -> Vec<ConnStats> {
        let mut stats: Vec<_> = self
            .shared
            .conns()
            .iter()
            .map(|conn| ConnStats::of(conn))
            .collect();
        stats.sort_by_key(|conn| conn.cid);
        stats
    }

    /// Connections that ended, oldest first, as many as are remembered (CORE-046).
    pub fn closed_connections(&self) -> Vec<ClosedConn> {
        self.shared.conns.lock().closed.iter().cloned().collect()
    }

    /// Subscriptions of one connection, ordered by sid; none when there is no such connection.
    pub fn subscriptions_of(&self, cid: u64) -> Option<Vec<SubscriptionStats>> {
        let conn = self.shared.conns.lock().open.get(&cid).cloned()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut subs: Vec<_> = conn
            .subscriptions()
            .iter()
            .map(|sub| SubscriptionStats {
                subject: text(&sub.subject),
                queue: sub.queue.as_ref().map(|queue| text(queue)),
                sid: text(&sub.sid),
                delivered: sub.delivered(),
                max: sub.max(),
                cid,
            })
            .collect();
        subs.sort_by(|a, b| a.sid.cmp(&b.sid));
        Some(subs)
    }
}
