//! The core server's figures as the monitoring endpoint shows them.

use std::time::SystemTime;

use jiff::Timestamp;

use crate::monitor::{Connection, ServerCounters, ServerMonitor, Subscription, SubscriptionStats};
use crate::server::Server;
use crate::server::stats::{ClosedConn, ConnStats};

pub(super) struct CoreMonitor {
    server: Server,
}

impl CoreMonitor {
    pub(super) fn new(server: Server) -> Self {
        Self { server }
    }

    fn subscriptions_of(&self, cid: u64, account: &str) -> Vec<Subscription> {
        let stats = self.server.subscriptions_of(cid).unwrap_or_default();
        stats
            .into_iter()
            .map(|stats| Subscription {
                account: account.to_owned(),
                subject: stats.subject,
                queue: stats.queue,
                sid: stats.sid,
                msgs: stats.delivered,
                max: stats.max,
                cid: stats.cid,
            })
            .collect()
    }
}

impl ServerMonitor for CoreMonitor {
    fn counters(&self) -> ServerCounters {
        let stats = self.server.stats();
        ServerCounters {
            connections: stats.connections as u64,
            total_connections: stats.total_connections,
            in_msgs: stats.in_msgs,
            in_bytes: stats.in_bytes,
            out_msgs: stats.out_msgs,
            out_bytes: stats.out_bytes,
            slow_consumers: stats.slow_consumers_pending_bytes
                + stats.slow_consumers_write_deadline,
            stale_connections: stats.stale_connections,
            stalled_clients: 0,
            subscriptions: stats.subscriptions as u64,
        }
    }

    fn connections(&self, subscriptions: bool) -> Vec<Connection> {
        let mut connections: Vec<Connection> = self
            .server
            .connections()
            .into_iter()
            .map(connection)
            .collect();
        if subscriptions {
            for connection in &mut connections {
                connection.subscription_list =
                    self.subscriptions_of(connection.cid, &connection.account);
            }
        }
        connections
    }

    fn closed_connections(&self) -> Vec<Connection> {
        let closed = |closed: ClosedConn| Connection {
            stop: Some(timestamp(closed.stop)),
            reason: Some(closed.reason.to_string()),
            ..connection(closed.conn)
        };
        self.server
            .closed_connections()
            .into_iter()
            .map(closed)
            .collect()
    }

    fn subscription_stats(&self) -> SubscriptionStats {
        let num_subscriptions = self.server.account().subscription_count() as u64;
        SubscriptionStats {
            num_subscriptions,
            ..SubscriptionStats::default()
        }
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        let connections = self.server.connections();
        connections
            .iter()
            .flat_map(|conn| self.subscriptions_of(conn.cid, &conn.account))
            .collect()
    }
}

fn connection(stats: ConnStats) -> Connection {
    Connection {
        cid: stats.cid,
        ip: stats.peer.ip().to_canonical().to_string(),
        port: stats.peer.port(),
        start: timestamp(stats.start),
        last_activity: timestamp(stats.last_activity),
        stop: None,
        reason: None,
        rtt: stats.rtt,
        pending_bytes: stats.pending_bytes as u64,
        in_msgs: stats.in_msgs,
        in_bytes: stats.in_bytes,
        out_msgs: stats.out_msgs,
        out_bytes: stats.out_bytes,
        subscriptions: stats.subscriptions as u64,
        name: Some(stats.details.name),
        lang: Some(stats.details.lang),
        version: Some(stats.details.version),
        user: stats.details.user,
        account: stats.account.to_string(),
        subscription_list: Vec::new(),
    }
}

/// A time outside of what can be shown (the years -9999 to 9999) becomes the epoch.
fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}
