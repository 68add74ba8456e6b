//! The monitoring endpoint: `/varz`, `/connz`, `/subsz`, `/jsz`, `/healthz` over HTTP (MON-001 ..
//! MON-018), with the reference server's field names so that existing dashboards work.
//!
//! It is started before the store is opened: [`Monitor`] begins without a server and without
//! JetStream, and `/healthz` says what is being waited for. What it shows comes through
//! [`ServerMonitor`] and [`JetStreamMonitor`] as snapshots; a request never holds a lock of the
//! message path while it is answered.

mod connz;
mod format;
mod healthz;
mod http;
mod index;
mod jsz;
mod process;
mod query;
mod subsz;
#[cfg(test)]
mod tests;
mod varz;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::config::ServerConfig;
pub use http::serve;
use process::ProcessUsage;

/// What the broker shows. Every method returns a snapshot.
pub trait ServerMonitor: Send + Sync {
    /// Totals since the start.
    fn counters(&self) -> ServerCounters;
    /// The open client connections, with their subscriptions when `subscriptions` is set.
    fn connections(&self, subscriptions: bool) -> Vec<Connection>;
    /// The remembered closed connections, oldest first.
    fn closed_connections(&self) -> Vec<Connection>;
    /// Figures of the subscription index.
    fn subscription_stats(&self) -> SubscriptionStats;
    /// All subscriptions, those of the server itself included.
    fn subscriptions(&self) -> Vec<Subscription>;
}

/// What JetStream shows. Every method returns a snapshot.
pub trait JetStreamMonitor: Send + Sync {
    /// Totals.
    fn stats(&self) -> JetStreamStats;
    /// One value per stream, by name.
    fn streams(&self, detail: StreamDetailOptions) -> Vec<StreamDetail>;
    /// Whether a stream of that name exists.
    fn has_stream(&self, stream: &str) -> bool;
    /// Whether the stream has a consumer of that name.
    fn has_consumer(&self, stream: &str, consumer: &str) -> bool;
    /// What is wrong with the store or a stream, for `/healthz`; empty when all is well.
    fn problems(&self) -> Vec<JetStreamProblem>;
}

/// Totals of the broker since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Open client connections.
    pub connections: u64,
    /// Client connections ever accepted.
    pub total_connections: u64,
    /// Messages received from clients.
    pub in_msgs: u64,
    /// Payload and header bytes received from clients.
    pub in_bytes: u64,
    /// Messages sent to clients.
    pub out_msgs: u64,
    /// Payload and header bytes sent to clients.
    pub out_bytes: u64,
    /// Connections closed because their client read too slowly.
    pub slow_consumers: u64,
    /// Connections closed because PINGs stayed unanswered.
    pub stale_connections: u64,
    /// Publishers slowed down because of a slow subscriber.
    pub stalled_clients: u64,
    /// Subscriptions, those of the server itself included.
    pub subscriptions: u64,
}

/// One client connection, open or closed.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Connection id.
    pub cid: u64,
    /// The client's address.
    pub ip: String,
    /// The client's port.
    pub port: u16,
    /// When it connected.
    pub start: Timestamp,
    /// When a message last went in or out.
    pub last_activity: Timestamp,
    /// When it was closed, for a closed one.
    pub stop: Option<Timestamp>,
    /// Why it was closed.
    pub reason: Option<String>,
    /// Last measured round trip.
    pub rtt: Option<Duration>,
    /// Bytes waiting to be written.
    pub pending_bytes: u64,
    /// Messages received from it.
    pub in_msgs: u64,
    /// Bytes received from it.
    pub in_bytes: u64,
    /// Messages sent to it.
    pub out_msgs: u64,
    /// Bytes sent to it.
    pub out_bytes: u64,
    /// Number of subscriptions.
    pub subscriptions: u64,
    /// From CONNECT.
    pub name: Option<String>,
    /// From CONNECT.
    pub lang: Option<String>,
    /// From CONNECT.
    pub version: Option<String>,
    /// The user it authenticated as.
    pub user: Option<String>,
    /// Its account.
    pub account: String,
    /// Its subscriptions, when asked for.
    pub subscription_list: Vec<Subscription>,
}

/// One subscription.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Its account.
    pub account: String,
    /// Subject with wildcards.
    pub subject: String,
    /// Queue group.
    pub queue: Option<String>,
    /// The client's id for it.
    pub sid: String,
    /// Messages delivered.
    pub msgs: u64,
    /// Messages after which it ends; 0: none.
    pub max: u64,
    /// The connection it belongs to; 0 for the server itself.
    pub cid: u64,
}

/// Figures of the subscription index.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SubscriptionStats {
    /// Subscriptions.
    pub num_subscriptions: u64,
    /// Subjects in the match cache.
    pub num_cache: u64,
    /// Subscriptions ever added.
    pub num_inserts: u64,
    /// Subscriptions ever removed.
    pub num_removes: u64,
    /// Subjects ever matched.
    pub num_matches: u64,
    /// Matches the cache answered.
    pub num_cache_hits: u64,
}

/// Totals of JetStream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JetStreamStats {
    /// Bytes in memory streams.
    pub memory: u64,
    /// Bytes in file streams.
    pub storage: u64,
    /// Bytes reserved by `max_bytes` of memory streams.
    pub reserved_memory: u64,
    /// Bytes reserved by `max_bytes` of file streams.
    pub reserved_storage: u64,
    /// Accounts that use JetStream.
    pub accounts: u64,
    /// API requests.
    pub api_total: u64,
    /// API requests answered with an error.
    pub api_errors: u64,
    /// Streams.
    pub streams: u64,
    /// Consumers.
    pub consumers: u64,
    /// Messages.
    pub messages: u64,
    /// Bytes of messages.
    pub bytes: u64,
}

/// Figures of the store since it was opened: the price of durability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// Messages handed to the log.
    pub append_ops: u64,
    /// Their bytes.
    pub append_bytes: u64,
    /// Other operations (acknowledgements, configuration) handed to the log.
    pub control_ops: u64,
    /// Their bytes.
    pub control_bytes: u64,
    /// Writes of the log, each with many operations.
    pub frames: u64,
    /// Their bytes.
    pub frame_bytes: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Time spent in them, in nanoseconds.
    pub sync_ns: u64,
    /// The slowest one, in nanoseconds.
    pub sync_ns_max: u64,
    /// Bytes of the log that are still needed.
    pub log_used_bytes: u64,
    /// How often operations had to wait for log space.
    pub log_stalls: u64,
}

/// What `/jsz` wants to know about streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamDetailOptions {
    /// Consumers too.
    pub consumers: bool,
    /// The configuration of streams (and consumers) too.
    pub config: bool,
}

/// One stream of `/jsz`. The values are the JSON of the JetStream API.
#[derive(Clone, Debug, Default)]
pub struct StreamDetail {
    /// Name.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Configuration, when asked for.
    pub config: Option<Value>,
    /// State as in stream info.
    pub state: Value,
    /// Consumer infos, when asked for.
    pub consumers: Vec<Value>,
}

/// Something wrong that makes the server unhealthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JetStreamProblem {
    /// The stream concerned; `None`: the whole store.
    pub stream: Option<String>,
    /// What is wrong, for an operator.
    pub error: String,
}

/// Where the server is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not ready for clients; the text says what is going on.
    Starting(String),
    /// Serving clients.
    Ready,
    /// Serving, but clients are asked to go elsewhere (CORE-030).
    LameDuck,
    /// Stopping.
    Stopping,
}

/// What is known once the client listener is bound.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Public key of the server.
    pub server_id: String,
    /// Name.
    pub server_name: String,
    /// Bound client port.
    pub port: u16,
}

/// What `/varz` and `/jsz` say about how JetStream is configured.
#[derive(Clone, Debug, Default)]
pub struct JetStreamConfigShown {
    /// Store and modes.
    pub config: JetStreamStoreShown,
    /// Limits on what clients may ask for.
    pub limits: JetStreamLimitsShown,
}

/// Limits on what clients may ask for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JetStreamLimitsShown {
    /// Largest batch of a pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_batch: Option<i64>,
    /// Largest `max_ack_pending` of a consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ack_pending: Option<i64>,
    /// Largest duplicate window of a stream, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate_window: Option<i64>,
    /// Consumers of a stream that does not say how many.
    pub default_max_consumers: usize,
}

/// Store and modes of JetStream.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JetStreamStoreShown {
    /// Bytes for memory streams.
    pub max_memory: u64,
    /// Bytes for file streams.
    pub max_storage: u64,
    /// Data directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub store_dir: String,
    /// 0: every acknowledgement waits for the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_interval: Option<u64>,
    /// Every acknowledgement waits for the disk.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sync_always: bool,
    /// JetStream domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Unknown fields of API requests are refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// Reads the figures of the store.
pub type StoreStatsSource = Box<dyn Fn() -> StoreStats + Send + Sync>;

/// The state behind the endpoint.
pub struct Monitor {
    config: RwLock<Arc<ServerConfig>>,
    config_loaded: RwLock<Timestamp>,
    start: Timestamp,
    http_port: u16,
    phase: RwLock<Phase>,
    identity: OnceLock<Identity>,
    server: OnceLock<Arc<dyn ServerMonitor>>,
    jetstream: OnceLock<(Arc<dyn JetStreamMonitor>, JetStreamConfigShown)>,
    store: OnceLock<StoreStatsSource>,
    usage: ProcessUsage,
    requests: Mutex<BTreeMap<&'static str, u64>>,
}

impl Monitor {
    /// A monitor of a server that is starting. `http_port` is the bound one.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, start: Timestamp, http_port: u16) -> Self {
        Self {
            config: RwLock::new(config),
            config_loaded: RwLock::new(start),
            start,
            http_port,
            phase: RwLock::new(Phase::Starting("starting".to_owned())),
            identity: OnceLock::new(),
            server: OnceLock::new(),
            jetstream: OnceLock::new(),
            store: OnceLock::new(),
            usage: ProcessUsage::default(),
            requests: Mutex::new(BTreeMap::new()),
        }
    }

    /// Sets what `/healthz` answers.
    pub fn set_phase(&self, phase: Phase) {
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Sets the broker; the first call counts.
    pub fn set_server(&self, identity: Identity, server: Arc<dyn ServerMonitor>) {
        let _ = self.identity.set(identity);
        let _ = self.server.set(server);
    }

    /// Sets JetStream; the first call counts.
    pub fn set_jetstream(&self, jetstream: Arc<dyn JetStreamMonitor>, shown: JetStreamConfigShown) {
        let _ = self.jetstream.set((jetstream, shown));
    }

    /// Sets the store; the first call counts.
    pub fn set_store(&self, store: StoreStatsSource) {
        let _ = self.store.set(store);
    }

    /// Shows a newly read configuration.
    pub fn set_config(&self, config: Arc<ServerConfig>, loaded: Timestamp) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        *self
            .config_loaded
            .write()
            .unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn config_loaded(&self) -> Timestamp {
        *self
            .config_loaded
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn phase(&self) -> Phase {
        self.phase
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn identity(&self) -> Identity {
        self.identity.get().cloned().unwrap_or_default()
    }

    fn jetstream(&self) -> Option<&Arc<dyn JetStreamMonitor>> {
        self.jetstream.get().map(|(jetstream, _)| jetstream)
    }

    fn count_request(&self, path: &'static str) {
        *self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(path)
            .or_default() += 1;
    }
}
