//! `/jsz`: JetStream (MON-011, MON-012, MON-016).

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::query::{BadRequest, LIMIT_DEFAULT, Query};
use super::{
    JetStreamLimitsShown, JetStreamStats, JetStreamStoreShown, Monitor, StreamDetail,
    StreamDetailOptions,
};

/// JetStream API level announced to clients.
const API_LEVEL: u8 = 5;

/// The only account.
const ACCOUNT: &str = "$G";

#[derive(Serialize)]
pub(super) struct Api {
    level: u8,
    total: u64,
    errors: u64,
}

/// The totals that `/varz` and `/jsz` share.
#[derive(Serialize)]
pub(super) struct Stats {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    accounts: u64,
    ha_assets: u64,
    api: Api,
}

impl From<JetStreamStats> for Stats {
    fn from(stats: JetStreamStats) -> Self {
        Self {
            memory: stats.memory,
            storage: stats.storage,
            reserved_memory: stats.reserved_memory,
            reserved_storage: stats.reserved_storage,
            accounts: stats.accounts,
            ha_assets: 0,
            api: Api {
                level: API_LEVEL,
                total: stats.api_total,
                errors: stats.api_errors,
            },
        }
    }
}

#[derive(Serialize)]
pub(super) struct Jsz {
    #[serde(flatten)]
    stats: Stats,
    server_id: String,
    now: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    config: JetStreamStoreShown,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<JetStreamLimitsShown>,
    streams: u64,
    consumers: u64,
    messages: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    account_details: Vec<AccountDetail>,
    total: usize,
}

#[derive(Serialize)]
struct AccountDetail {
    name: &'static str,
    id: &'static str,
    #[serde(flatten)]
    stats: Stats,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stream_detail: Vec<StreamShown>,
}

#[derive(Serialize)]
struct StreamShown {
    name: String,
    created: String,
    cluster: Cluster,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Value>,
    state: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consumer_detail: Vec<Value>,
}

/// Every stream is led by its only server.
#[derive(Serialize)]
struct Cluster {
    leader: String,
}

impl StreamShown {
    fn new(detail: StreamDetail, leader: &str) -> Self {
        Self {
            name: detail.name,
            created: detail.created,
            cluster: Cluster {
                leader: leader.to_owned(),
            },
            config: detail.config,
            state: detail.state,
            consumer_detail: detail.consumers,
        }
    }
}

pub(super) fn jsz(monitor: &Monitor, query: &Query, now: Timestamp) -> Result<Jsz, BadRequest> {
    let detail = StreamDetailOptions {
        consumers: query.bool("consumers")?,
        config: query.bool("config")?,
    };
    let with_streams = query.bool("streams")? || detail.consumers;
    let with_accounts = query.bool("accounts")? || with_streams;
    // Accepted because dashboards send them; every stream is led by its only server.
    query.bool("leader-only")?;
    query.bool("stream-leader-only")?;
    query.bool("raft")?;
    let page = query.page(LIMIT_DEFAULT)?;
    let account = query.text("acc");

    let Some((jetstream, shown)) = monitor.jetstream.get() else {
        return Ok(disabled(monitor, now));
    };
    let stats = jetstream.stats();
    let is_account_shown = account.map_or(with_accounts, |name| name == ACCOUNT);
    let account_details = is_account_shown.then(|| AccountDetail {
        name: ACCOUNT,
        id: ACCOUNT,
        stats: Stats::from(stats),
        stream_detail: if with_streams {
            // Paging counts accounts, and with one account selected its streams.
            let leader = monitor.identity().server_name;
            let mut streams = jetstream.streams(detail);
            if account.is_some() {
                streams = page.cut(streams);
            }
            streams
                .into_iter()
                .map(|stream| StreamShown::new(stream, &leader))
                .collect()
        } else {
            Vec::new()
        },
    });
    Ok(Jsz {
        stats: Stats::from(stats),
        server_id: monitor.identity().server_id,
        now: now.to_string(),
        disabled: false,
        config: shown.config.clone(),
        limits: Some(shown.limits.clone()),
        streams: stats.streams,
        consumers: stats.consumers,
        messages: stats.messages,
        bytes: stats.bytes,
        account_details: account_details.into_iter().collect(),
        total: 1,
    })
}

fn disabled(monitor: &Monitor, now: Timestamp) -> Jsz {
    let mut stats = Stats::from(JetStreamStats::default());
    stats.api.level = 0;
    Jsz {
        stats,
        server_id: monitor.identity().server_id,
        now: now.to_string(),
        disabled: true,
        config: JetStreamStoreShown::default(),
        limits: None,
        streams: 0,
        consumers: 0,
        messages: 0,
        bytes: 0,
        account_details: Vec::new(),
        total: 0,
    }
}
