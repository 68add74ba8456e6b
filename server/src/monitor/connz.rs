//! `/connz`: the connections (MON-003, MON-004).

use jiff::Timestamp;
use serde::Serialize;

use super::query::{BadRequest, LIMIT_DEFAULT, Query};
use super::varz::elapsed;
use super::{Connection, Monitor, Subscription, format, subsz};

#[derive(Serialize)]
pub(super) struct Connz {
    server_id: String,
    now: String,
    num_connections: usize,
    total: usize,
    offset: usize,
    limit: usize,
    connections: Vec<ConnectionShown>,
}

#[derive(Serialize)]
struct ConnectionShown {
    cid: u64,
    kind: &'static str,
    r#type: &'static str,
    ip: String,
    port: u16,
    start: String,
    last_activity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<String>,
    uptime: String,
    idle: String,
    pending_bytes: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    subscriptions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lang: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorized_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions_list: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions_list_detail: Option<Vec<subsz::SubscriptionShown>>,
}

/// Which connections a request is about.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    Closed,
    Any,
}

/// How much it wants to know of subscriptions.
#[derive(Clone, Copy, PartialEq)]
enum Subscriptions {
    None,
    Subjects,
    Detail,
}

struct Options {
    state: State,
    subscriptions: Subscriptions,
    is_auth_shown: bool,
}

pub(super) fn connz(monitor: &Monitor, query: &Query, now: Timestamp) -> Result<Connz, BadRequest> {
    let options = Options {
        state: state(query)?,
        subscriptions: match query.text("subs") {
            Some("detail") => Subscriptions::Detail,
            _ if query.bool("subs")? => Subscriptions::Subjects,
            _ => Subscriptions::None,
        },
        is_auth_shown: query.bool("auth")?,
    };
    let sort = sort_key(query.text("sort").unwrap_or("cid"), options.state)?;
    let mut page = query.page(LIMIT_DEFAULT)?;
    let cid = query.count("cid")?;
    let mut connections = connections(monitor, &options, query);
    let total = connections.len();
    if cid > 0 {
        connections.retain(|connection| connection.cid == cid);
        page.limit = 1;
    }
    retain_matching(&mut connections, query);
    sort(&mut connections, now);
    let shown: Vec<ConnectionShown> = page
        .cut(connections)
        .into_iter()
        .map(|connection| show(connection, &options, now))
        .collect();
    Ok(Connz {
        server_id: monitor.identity().server_id,
        now: now.to_string(),
        num_connections: shown.len(),
        total,
        offset: page.offset,
        limit: page.limit,
        connections: shown,
    })
}

fn state(query: &Query) -> Result<State, BadRequest> {
    match query.text("state").map(str::to_ascii_lowercase).as_deref() {
        None | Some("open") => Ok(State::Open),
        Some("closed") => Ok(State::Closed),
        Some("any" | "all") => Ok(State::Any),
        Some(other) => Err(BadRequest(format!("Error decoding state for {other}"))),
    }
}

fn connections(monitor: &Monitor, options: &Options, query: &Query) -> Vec<Connection> {
    let Some(server) = monitor.server.get() else {
        return Vec::new();
    };
    let needs_subscriptions =
        options.subscriptions != Subscriptions::None || query.text("filter_subject").is_some();
    let mut connections = Vec::new();
    if options.state != State::Closed {
        connections = server.connections(needs_subscriptions);
    }
    if options.state != State::Open {
        connections.extend(server.closed_connections());
    }
    connections
}

fn retain_matching(connections: &mut Vec<Connection>, query: &Query) {
    if let Some(user) = query.text("user") {
        connections.retain(|connection| connection.user.as_deref() == Some(user));
    }
    if let Some(account) = query.text("acc") {
        connections.retain(|connection| connection.account == account);
    }
    if let Some(subject) = query.text("filter_subject") {
        let subscribes = |list: &[Subscription]| {
            list.iter()
                .any(|subscription| subsz::matches(subject, &subscription.subject))
        };
        connections.retain(|connection| subscribes(&connection.subscription_list));
    }
}

type Sort = fn(&mut [Connection], Timestamp);

/// Most first for amounts, earliest first for ids and starts.
fn sort_key(name: &str, state: State) -> Result<Sort, BadRequest> {
    use std::cmp::Reverse;
    if name == "stop" || name == "reason" {
        if state != State::Closed {
            return Err(BadRequest(format!(
                "sort by {name} only valid on closed connections"
            )));
        }
    } else if name == "uptime" && state == State::Closed {
        return Ok(|c, _| c.sort_by_key(|c| c.stop.map(|stop| elapsed(c.start, stop))));
    }
    Ok(match name {
        "cid" => |c, _| c.sort_by_key(|c| c.cid),
        "start" => |c, _| c.sort_by_key(|c| c.start),
        "subs" => |c, _| c.sort_by_key(|c| Reverse(c.subscriptions)),
        "pending" => |c, _| c.sort_by_key(|c| Reverse(c.pending_bytes)),
        "msgs_to" => |c, _| c.sort_by_key(|c| Reverse(c.out_msgs)),
        "msgs_from" => |c, _| c.sort_by_key(|c| Reverse(c.in_msgs)),
        "bytes_to" => |c, _| c.sort_by_key(|c| Reverse(c.out_bytes)),
        "bytes_from" => |c, _| c.sort_by_key(|c| Reverse(c.in_bytes)),
        "last" => |c, _| c.sort_by_key(|c| Reverse(c.last_activity)),
        "idle" => |c, now| c.sort_by_key(|c| Reverse(elapsed(c.last_activity, now))),
        "uptime" => |c, now| c.sort_by_key(|c| elapsed(c.start, c.stop.unwrap_or(now))),
        "rtt" => |c, _| c.sort_by_key(|c| Reverse(c.rtt)),
        "stop" => |c, _| c.sort_by_key(|c| Reverse(c.stop)),
        "reason" => |c, _| c.sort_by(|a, b| a.reason.cmp(&b.reason)),
        other => return Err(BadRequest(format!("invalid sorting option: {other}"))),
    })
}

fn show(connection: Connection, options: &Options, now: Timestamp) -> ConnectionShown {
    let until = connection.stop.unwrap_or(now);
    let list = connection.subscription_list;
    let subjects =
        (options.subscriptions == Subscriptions::Subjects && !list.is_empty()).then(|| {
            list.iter()
                .map(|subscription| subscription.subject.clone())
                .collect()
        });
    let detail = (options.subscriptions == Subscriptions::Detail && !list.is_empty()).then(|| {
        list.into_iter()
            .map(subsz::SubscriptionShown::without_account)
            .collect()
    });
    let account = options.is_auth_shown.then_some(connection.account);
    ConnectionShown {
        cid: connection.cid,
        kind: "Client",
        r#type: "nats",
        ip: connection.ip,
        port: connection.port,
        start: connection.start.to_string(),
        last_activity: connection.last_activity.to_string(),
        stop: connection.stop.map(|stop| stop.to_string()),
        reason: connection.reason,
        rtt: connection
            .rtt
            .filter(|rtt| !rtt.is_zero())
            .map(format::duration),
        uptime: format::uptime(elapsed(connection.start, until)),
        idle: format::uptime(elapsed(connection.last_activity, until)),
        pending_bytes: connection.pending_bytes,
        in_msgs: connection.in_msgs,
        out_msgs: connection.out_msgs,
        in_bytes: connection.in_bytes,
        out_bytes: connection.out_bytes,
        subscriptions: connection.subscriptions,
        name: connection.name.filter(|text| !text.is_empty()),
        lang: connection.lang.filter(|text| !text.is_empty()),
        version: connection.version.filter(|text| !text.is_empty()),
        authorized_user: connection.user.filter(|_| options.is_auth_shown),
        name_tag: account.clone(),
        account,
        subscriptions_list: subjects,
        subscriptions_list_detail: detail,
    }
}
