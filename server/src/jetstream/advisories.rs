//! Events published under `$JS.EVENT.ADVISORY` (ADV rows). Nothing is formatted unless somebody
//! listens.

use std::sync::Arc;

use bytes::Bytes;
use riverlog_engine::consumer::{Notice, RemovalReason};
use riverlog_engine::ids::TimestampNs;
use serde::Serialize;

use super::consumer_handle::ConsumerHandle;
use super::shared::Shared;
use super::stream_handle::StreamHandle;
use super::time::now;
use super::types::as_time;
use super::types::stream_config::some_time;

#[derive(Serialize)]
struct Event<'a, T: Serialize> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    #[serde(serialize_with = "as_time::serialize")]
    timestamp: TimestampNs,
    #[serde(flatten)]
    body: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

fn publish<T: Serialize>(shared: &Arc<Shared>, kind: &'static str, subject: String, body: T) {
    if !shared.account.has_interest(subject.as_bytes()) {
        return;
    }
    let event = Event {
        kind,
        id: nuid::next().to_string(),
        timestamp: now(),
        body,
        domain: shared.options.domain.as_deref(),
    };
    match serde_json::to_vec(&event) {
        Ok(json) => {
            shared
                .account
                .publish(&Bytes::from(subject), None, None, &Bytes::from(json));
        }
        Err(error) => tracing::error!(kind, %error, "an advisory could not be formatted"),
    }
}

/// What happened to a stream or consumer (ADV-002, ADV-003).
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    Create,
    Modify,
    Delete,
}

impl Action {
    fn token(self) -> &'static str {
        match self {
            Action::Create => "CREATED",
            Action::Modify => "UPDATED",
            Action::Delete => "DELETED",
        }
    }
}

/// A stream was created, changed or deleted.
pub(crate) fn stream_action(shared: &Arc<Shared>, stream: &str, action: Action) {
    #[derive(Serialize)]
    struct Body<'a> {
        stream: &'a str,
        action: Action,
    }
    let subject = format!("$JS.EVENT.ADVISORY.STREAM.{}.{stream}", action.token());
    let kind = "io.nats.jetstream.advisory.v1.stream_action";
    publish(shared, kind, subject, Body { stream, action });
}

/// A consumer was created or deleted.
pub(crate) fn consumer_action(shared: &Arc<Shared>, stream: &str, consumer: &str, action: Action) {
    #[derive(Serialize)]
    struct Body<'a> {
        stream: &'a str,
        consumer: &'a str,
        action: Action,
    }
    let subject = format!(
        "$JS.EVENT.ADVISORY.CONSUMER.{}.{stream}.{consumer}",
        action.token()
    );
    let kind = "io.nats.jetstream.advisory.v1.consumer_action";
    publish(
        shared,
        kind,
        subject,
        Body {
            stream,
            consumer,
            action,
        },
    );
}

/// A consumer was deleted, by request or for inactivity.
pub(crate) fn consumer_deleted(
    shared: &Arc<Shared>,
    stream: &StreamHandle,
    consumer: &ConsumerHandle,
) {
    consumer_action(shared, &stream.name, &consumer.name, Action::Delete);
}

/// A consumer was paused or resumed (ADV-004).
pub(crate) fn consumer_paused(
    shared: &Arc<Shared>,
    stream: &str,
    consumer: &str,
    pause_until: Option<TimestampNs>,
) {
    #[derive(Serialize)]
    struct Body<'a> {
        stream: &'a str,
        consumer: &'a str,
        paused: bool,
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_time")]
        pause_until: Option<TimestampNs>,
    }
    let paused = pause_until.is_some_and(|until| until > now());
    let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.{stream}.{consumer}");
    let kind = "io.nats.jetstream.advisory.v1.consumer_pause";
    publish(
        shared,
        kind,
        subject,
        Body {
            stream,
            consumer,
            paused,
            pause_until,
        },
    );
}

/// Publishes what happened to messages of a consumer since the last call (ADV-006..008).
pub(crate) fn publish_notices(shared: &Arc<Shared>, consumer: &ConsumerHandle) {
    let notices = consumer.engine.take_notices();
    if notices.is_empty() {
        return;
    }
    let Some(stream) = consumer.stream.upgrade() else {
        return;
    };
    for notice in notices {
        publish_notice(shared, &stream.name, &consumer.name, &notice, "");
    }
}

#[derive(Serialize)]
struct MessageEvent<'a> {
    stream: &'a str,
    consumer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_seq: Option<u64>,
    stream_seq: u64,
    deliveries: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

/// Publishes one event; `reason` is what a receiver that gave a message up said (ACK-006).
pub(crate) fn publish_notice(
    shared: &Arc<Shared>,
    stream: &str,
    consumer: &str,
    notice: &Notice,
    reason: &str,
) {
    let (token, kind, event) = match *notice {
        Notice::MaxDeliveries { seq, deliveries } => (
            "MAX_DELIVERIES",
            "io.nats.jetstream.advisory.v1.max_deliver",
            MessageEvent {
                stream,
                consumer,
                consumer_seq: None,
                stream_seq: seq.0,
                deliveries,
                reason: "",
            },
        ),
        Notice::Nak {
            seq,
            consumer_seq,
            deliveries,
        } => (
            "MSG_NAKED",
            "io.nats.jetstream.advisory.v1.nak",
            MessageEvent {
                stream,
                consumer,
                consumer_seq: Some(consumer_seq),
                stream_seq: seq.0,
                deliveries,
                reason: "",
            },
        ),
        Notice::Terminated {
            seq,
            consumer_seq,
            deliveries,
            reason: removal,
        } => (
            "MSG_TERMINATED",
            "io.nats.jetstream.advisory.v1.terminated",
            MessageEvent {
                stream,
                consumer,
                consumer_seq: Some(consumer_seq),
                stream_seq: seq.0,
                deliveries,
                reason: match removal {
                    RemovalReason::Terminated => reason,
                    RemovalReason::Deleted => "Unacknowledged message was deleted",
                    RemovalReason::Limits => "Message deleted by stream limits",
                },
            },
        ),
    };
    let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.{token}.{stream}.{consumer}");
    publish(shared, kind, subject, event);
}

/// The API queue overflowed (ADV-017).
pub(crate) fn api_limit_reached(shared: &Arc<Shared>, dropped: u64) {
    #[derive(Serialize)]
    struct Body<'a> {
        server: &'a str,
        dropped: u64,
    }
    let kind = "io.nats.jetstream.advisory.v1.api_limit_reached";
    let subject = "$JS.EVENT.ADVISORY.API.LIMIT_REACHED".to_owned();
    publish(
        shared,
        kind,
        subject,
        Body {
            server: &shared.server_name,
            dropped,
        },
    );
}

/// Who sent an API request.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ClientInfo {
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_time")]
    pub start: Option<TimestampNs>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    #[serde(skip_serializing_if = "super::types::is_zero_u64")]
    pub id: u64,
    pub acc: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ver: String,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "super::types::is_zero_u64")]
    pub rtt: u64,
    pub server: String,
    pub kind: &'static str,
    pub client_type: &'static str,
}

/// Subject of [`api_audit`].
pub(crate) const API_AUDIT: &str = "$JS.EVENT.ADVISORY.API";

/// An API request was answered (ADV-001).
pub(crate) fn api_audit(
    shared: &Arc<Shared>,
    client: &ClientInfo,
    subject: &str,
    request: &str,
    response: &str,
) {
    #[derive(Serialize)]
    struct Body<'a> {
        server: &'a str,
        client: &'a ClientInfo,
        subject: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        request: &'a str,
        response: &'a str,
    }
    let kind = "io.nats.jetstream.advisory.v1.api_audit";
    let body = Body {
        server: &shared.server_name,
        client,
        subject,
        request,
        response,
    };
    publish(shared, kind, API_AUDIT.to_owned(), body);
}
