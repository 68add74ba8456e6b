//! The request side of `$JS.API` (JSAPI rows).
//!
//! Requests are taken in the read loop of the requesting connection and put into one of two bounded
//! queues: changes, and questions (which may be slow, and wait behind nobody's change). A worker per
//! queue answers them in order. What an answer confirms is durable before the answer is sent.
//! Pull requests and direct gets do not come through here.

mod account;
mod consumer_create;
mod consumer_list;
mod consumer_manage;
mod message;
pub(crate) use consumer_manage::consumer_info;
pub(crate) mod reply;
mod route;
mod stream_create;
mod stream_delete;
pub(crate) mod stream_info;
mod stream_list;
mod unsupported;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use riverlog_engine::TimestampNs;
use tokio::sync::mpsc;

use self::reply::Answer;
use self::route::{Operation, Route};
use super::advisories::{self, API_AUDIT, ClientInfo};
use super::errors;
use super::limits::API_QUEUE_MAX;
use super::publish_headers::requires_newer_api;
use super::shared::Shared;
use super::{direct, pull};
use crate::net::conn::Conn;
use crate::routing::{Inbound, InternalSubscriber};

/// One request.
pub(crate) struct Call {
    route: Route,
    subject: Bytes,
    reply: Bytes,
    body: Bytes,
    newer_api: bool,
    conn: Option<Arc<Conn>>,
}

/// The queues.
pub(crate) struct ApiQueues {
    changes: mpsc::Sender<Call>,
    questions: mpsc::Sender<Call>,
    dropped: AtomicU64,
}

impl ApiQueues {
    /// Starts the workers.
    pub fn start(shared: &Arc<Shared>) -> Arc<ApiQueues> {
        let (changes, change_calls) = mpsc::channel(API_QUEUE_MAX);
        let (questions, question_calls) = mpsc::channel(API_QUEUE_MAX);
        for calls in [change_calls, question_calls] {
            shared.runtime.spawn(work(Arc::clone(shared), calls));
        }
        Arc::new(ApiQueues {
            changes,
            questions,
            dropped: AtomicU64::new(0),
        })
    }

    fn push(&self, shared: &Arc<Shared>, call: Call) {
        let queue = if call.route.operation.is_question() {
            &self.questions
        } else {
            &self.changes
        };
        shared.stats.inflight.fetch_add(1, Ordering::Relaxed);
        if queue.try_send(call).is_err() {
            // JSAPI-016: clients run into their timeout and slow down.
            shared.stats.inflight.fetch_sub(1, Ordering::Relaxed);
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            advisories::api_limit_reached(shared, dropped);
        }
    }
}

/// Takes everything published under `$JS.API`.
pub(crate) struct ApiSubscriber {
    pub shared: Arc<Shared>,
    pub queues: Arc<ApiQueues>,
    /// `$JS.API.` or `$JS.<domain>.API.`
    pub prefix: String,
}

impl InternalSubscriber for ApiSubscriber {
    fn deliver(&self, message: &Inbound<'_>) -> bool {
        let rest = std::str::from_utf8(message.subject)
            .ok()
            .and_then(|subject| subject.strip_prefix(self.prefix.as_str()));
        let Some(rest) = rest else {
            return true;
        };
        if let Some(target) = rest.strip_prefix("CONSUMER.MSG.NEXT") {
            let target = target.strip_prefix('.').unwrap_or("");
            return pull::deliver(&self.shared, target, message);
        }
        if let Some(target) = rest.strip_prefix("DIRECT.GET.") {
            return direct::deliver(&self.shared, target, message);
        }
        // JSAPI-007: what nobody knows is swallowed.
        let Some(route) = route::parse(rest) else {
            return true;
        };
        let call = Call {
            route,
            subject: message.subject.clone(),
            reply: message.reply.cloned().unwrap_or_default(),
            body: message.payload.clone(),
            newer_api: requires_newer_api(message.headers.map(|block| &block[..])),
            conn: message.origin.map(|origin| Arc::clone(origin.conn())),
        };
        self.queues.push(&self.shared, call);
        true
    }
}

async fn work(shared: Arc<Shared>, mut calls: mpsc::Receiver<Call>) {
    while let Some(call) = calls.recv().await {
        shared.stats.total.fetch_add(1, Ordering::Relaxed);
        // Handlers may read from disk.
        let answer = tokio::task::block_in_place(|| answer(&shared, &call));
        shared.stats.inflight.fetch_sub(1, Ordering::Relaxed);
        shared.count_answer(answer.is_error);
        audit(&shared, &call, &answer);
        let start = answer.start;
        shared.publish_then(answer.after, call.reply, answer.body, move || {
            if let Some(consumer) = start {
                consumer.schedule();
            }
        });
    }
}

fn answer(shared: &Arc<Shared>, call: &Call) -> Answer {
    let kind = call.route.operation.response_type();
    if call.newer_api {
        return reply::error(call.route.operation, kind, &errors::REQUIRED_API_LEVEL);
    }
    let result = dispatch(shared, call);
    match result {
        Ok(answer) => answer,
        Err(error) => reply::error(call.route.operation, kind, &error),
    }
}

fn dispatch(shared: &Arc<Shared>, call: &Call) -> Result<Answer, errors::ApiError> {
    let route = &call.route;
    match route.operation {
        Operation::AccountInfo => account::info(shared),
        Operation::StreamCreate => stream_create::create(shared, route, &call.body),
        Operation::StreamUpdate => stream_create::update(shared, route, &call.body),
        Operation::StreamInfo => stream_info::info(shared, route, &call.body),
        Operation::StreamNames => stream_list::names(shared, &call.body),
        Operation::StreamList => stream_list::list(shared, &call.body),
        Operation::StreamDelete => stream_delete::delete(shared, route, &call.body),
        Operation::StreamPurge => stream_delete::purge(shared, route, &call.body),
        Operation::MessageGet => message::get(shared, route, &call.body),
        Operation::MessageDelete => message::delete(shared, route, &call.body),
        Operation::ConsumerCreate | Operation::ConsumerCreateDurable => {
            consumer_create::create(shared, route, &call.body)
        }
        Operation::ConsumerInfo => consumer_manage::info(shared, route, &call.body),
        Operation::ConsumerDelete => consumer_manage::delete(shared, route, &call.body),
        Operation::ConsumerPause => consumer_manage::pause(shared, route, &call.body),
        Operation::ConsumerNames => consumer_list::names(shared, route, &call.body),
        Operation::ConsumerList => consumer_list::list(shared, route, &call.body),
        operation => Err(unsupported::refusal(operation)),
    }
}

fn audit(shared: &Arc<Shared>, call: &Call, answer: &Answer) {
    if call.route.operation == Operation::MessageGet
        || !shared.account.has_interest(API_AUDIT.as_bytes())
    {
        return;
    }
    let client = client_info(shared, call);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (subject, body, response) = (text(&call.subject), text(&call.body), text(&answer.body));
    advisories::api_audit(shared, &client, &subject, &body, &response);
}

fn client_info(shared: &Shared, call: &Call) -> ClientInfo {
    let mut info = ClientInfo {
        acc: shared.account.name().to_string(),
        server: shared.server_name.clone(),
        kind: "Client",
        client_type: "nats",
        ..ClientInfo::default()
    };
    if let Some(conn) = &call.conn {
        let details = conn.details();
        let since = conn
            .start()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        info.start = i64::try_from(since.as_nanos()).ok().map(TimestampNs);
        info.host = conn.peer().ip().to_string();
        info.id = conn.id();
        info.user = details.user.unwrap_or_default();
        info.name = details.name;
        info.lang = details.lang;
        info.ver = details.version;
        info.rtt = conn
            .rtt()
            .map_or(0, |rtt| u64::try_from(rtt.as_nanos()).unwrap_or(0));
    }
    info
}
