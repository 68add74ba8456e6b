//! `/varz`: facts, limits and counters (MON-002, MON-018).

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{JetStreamLimitsShown, JetStreamStoreShown, Monitor, StoreStats, format, jsz, process};
use crate::cli::{NATS_VERSION, VERSION};

/// Blocks of features that this server does not have are there and empty, as in the reference.
#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
pub(super) struct Varz {
    server_id: String,
    server_name: String,
    version: &'static str,
    riverlog: &'static str,
    proto: u8,
    go: &'static str,
    host: String,
    port: u16,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auth_required: bool,
    max_connections: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_subscriptions: Option<usize>,
    ping_interval: u128,
    ping_max: u32,
    http_host: String,
    http_port: u16,
    http_base_path: String,
    https_port: u16,
    #[serde(serialize_with = "format::float")]
    auth_timeout: f64,
    max_control_line: usize,
    max_payload: usize,
    max_pending: usize,
    cluster: Empty,
    gateway: Empty,
    leaf: Empty,
    mqtt: Empty,
    websocket: Empty,
    jetstream: JetStreamVarz,
    tls_timeout: u8,
    write_deadline: u128,
    start: String,
    now: String,
    uptime: String,
    mem: u64,
    cores: usize,
    gomaxprocs: usize,
    #[serde(serialize_with = "format::float")]
    cpu: f64,
    connections: u64,
    total_connections: u64,
    routes: u64,
    remotes: u64,
    leafnodes: u64,
    in_msgs: u64,
    in_bytes: u64,
    in_client_msgs: u64,
    in_client_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    out_client_msgs: u64,
    out_client_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    stalled_clients: u64,
    subscriptions: u64,
    http_req_stats: BTreeMap<&'static str, u64>,
    config_load_time: String,
    config_digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_account: Option<String>,
    slow_consumer_stats: ByKind,
    stale_connection_stats: ByKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreStats>,
}

#[derive(Serialize)]
struct ByKind {
    clients: u64,
    routes: u64,
    gateways: u64,
    leafs: u64,
}

impl ByKind {
    fn clients(clients: u64) -> Self {
        Self {
            clients,
            routes: 0,
            gateways: 0,
            leafs: 0,
        }
    }
}

/// Empty when JetStream is off.
#[derive(Serialize)]
struct JetStreamVarz {
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<JetStreamStoreShown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<jsz::Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<JetStreamLimitsShown>,
}

pub(super) fn varz(monitor: &Monitor, now: Timestamp) -> Varz {
    let config = monitor.config();
    let identity = monitor.identity();
    let counters = monitor
        .server
        .get()
        .map(|server| server.counters())
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jetstream = match monitor.jetstream.get() {
        Some((jetstream, shown)) => JetStreamVarz {
            limits: Some(shown.limits.clone()),
            config: Some(shown.config.clone()),
            stats: Some(jsz::Stats::from(jetstream.stats())),
        },
        None => JetStreamVarz {
            config: None,
            stats: None,
            limits: None,
        },
    };
    let requests = monitor
        .requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Varz {
        server_id: identity.server_id,
        server_name: identity.server_name,
        version: NATS_VERSION,
        riverlog: VERSION,
        proto: 1,
        go: "none",
        host: config.host.clone(),
        port: identity.port,
        auth_required: config.auth.credentials != crate::config::options::Credentials::None,
        max_connections: count_or_unlimited(config.limits.connections_max),
        max_subscriptions: config.limits.subscriptions_max,
        ping_interval: config.limits.ping_interval.as_nanos(),
        ping_max: config.limits.pings_max,
        http_host: config
            .monitor
            .host
            .clone()
            .unwrap_or_else(|| config.host.clone()),
        http_port: monitor.http_port,
        http_base_path: config.monitor.base_path.clone(),
        https_port: 0,
        auth_timeout: config.auth.timeout.as_secs_f64(),
        max_control_line: config.limits.control_line_bytes_max,
        max_payload: config.limits.payload_bytes_max,
        max_pending: config.limits.pending_bytes_max,
        cluster: Empty {},
        gateway: Empty {},
        leaf: Empty {},
        mqtt: Empty {},
        websocket: Empty {},
        jetstream,
        tls_timeout: 2,
        write_deadline: config.limits.write_deadline.as_nanos(),
        start: monitor.start.to_string(),
        now: now.to_string(),
        uptime: format::uptime(elapsed(monitor.start, now)),
        mem: process::memory_bytes(),
        cores,
        gomaxprocs: cores,
        cpu: monitor.usage.cpu_percent(),
        connections: counters.connections,
        total_connections: counters.total_connections,
        routes: 0,
        remotes: 0,
        leafnodes: 0,
        in_msgs: counters.in_msgs,
        in_bytes: counters.in_bytes,
        in_client_msgs: counters.in_msgs,
        in_client_bytes: counters.in_bytes,
        out_msgs: counters.out_msgs,
        out_bytes: counters.out_bytes,
        out_client_msgs: counters.out_msgs,
        out_client_bytes: counters.out_bytes,
        slow_consumers: counters.slow_consumers,
        stale_connections: counters.stale_connections,
        stalled_clients: counters.stalled_clients,
        subscriptions: counters.subscriptions,
        http_req_stats: requests,
        config_load_time: monitor.config_loaded().to_string(),
        config_digest: config.digest.clone(),
        tags: config.server_tags.clone(),
        metadata: config.server_metadata.clone(),
        system_account: (!config.no_system_account).then(|| {
            config
                .system_account
                .clone()
                .unwrap_or_else(|| "$SYS".to_owned())
        }),
        slow_consumer_stats: ByKind::clients(counters.slow_consumers),
        stale_connection_stats: ByKind::clients(counters.stale_connections),
        store: monitor.store.get().map(|stats| stats()),
    }
}

/// -1 stands for no limit, as in the configuration.
fn count_or_unlimited(limit: Option<usize>) -> i64 {
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

/// Time from `since` to `until`, zero when the clock was set back.
pub(super) fn elapsed(since: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(since)).unwrap_or_default()
}
