//! Admission of pull requests (PULL rows), inside the read loop of the requesting connection.

use std::sync::Arc;

use bytes::Bytes;
use riverlog_engine::ids::TimestampNs;

use super::consumer_handle::ConsumerHandle;
use super::publish_headers::requires_newer_api;
use super::pull_request::{PullRequest, status, status_with_pending};
use super::removal;
use super::shared::Shared;
use super::time::now;
use super::waiting::Waiting;
use crate::routing::{self, Inbound};

/// Takes a message to `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>`. False when there is no such
/// consumer.
pub(crate) fn deliver(shared: &Arc<Shared>, target: &str, message: &Inbound<'_>) -> bool {
    let Some((stream, consumer)) = target.split_once('.') else {
        return false;
    };
    let Some(consumer) = shared
        .stream(stream)
        .and_then(|stream| stream.consumer(consumer))
    else {
        return false;
    };
    // PULL-001: nowhere to deliver to.
    let Some(reply) = message.reply.filter(|reply| !reply.is_empty()) else {
        return true;
    };
    if requires_newer_api(message.headers.map(|block| &block[..])) {
        send(shared, reply, status("412 Required Api Level"));
        return true;
    }
    request(shared, &consumer, reply, message.payload);
    true
}

/// Admits a request that is answered on `reply`.
pub(crate) fn request(
    shared: &Arc<Shared>,
    consumer: &Arc<ConsumerHandle>,
    reply: &Bytes,
    body: &[u8],
) {
    let now = now();
    consumer.touch(now);
    match admit(shared, consumer, reply, body, now) {
        // Deleted meanwhile: whoever deleted it may not have seen this request.
        Ok(()) if consumer.is_deleted() => removal::end_waiting(shared, consumer),
        Ok(()) => consumer.schedule(),
        Err(Some(block)) => send(shared, reply, block),
        Err(None) => {}
    }
}

/// Queues the request. The error is a status to answer with, or nothing.
fn admit(
    shared: &Arc<Shared>,
    consumer: &Arc<ConsumerHandle>,
    reply: &Bytes,
    body: &[u8],
    now: TimestampNs,
) -> Result<(), Option<Vec<u8>>> {
    let config = consumer.config();
    if config.is_push() {
        return Err(Some(status("409 Consumer is push based")));
    }
    let refused = |text: String| Some(status(&text));
    let request = PullRequest::parse(body, now).map_err(refused)?;
    request.check_limits(&config, now).map_err(refused)?;
    if request.has_group {
        return Err(Some(status(
            "400 Bad Request - Not a priority group consumer",
        )));
    }
    if request.expires.is_some_and(|at| at <= now) {
        let block = status_with_pending("408 Request Timeout", request.batch, request.max_bytes);
        return Err(Some(block));
    }
    if request.no_wait && requests_pending(consumer) {
        return Err(Some(status("408 Requests Pending")));
    }
    let waits = !request.no_wait || request.expires.is_some();
    let heartbeat = request.heartbeat_ns > 0;
    let max = usize::try_from(config.max_waiting).unwrap_or(usize::MAX);
    let mut waiting = consumer.waiting.lock();
    if waiting.len() >= max && waiting.may_sweep(now) {
        waiting.remove_if(|waiting| {
            waiting.is_expired(now) || !shared.account.has_interest(&waiting.reply)
        });
    }
    if waiting.len() >= max {
        if !waits
            && consumer
                .engine
                .num_pending()
                .is_ok_and(|pending| pending == 0)
        {
            return Err(Some(status("404 No Messages")));
        }
        // PULL-012: a request with heartbeats notices their absence.
        return Err((!heartbeat).then(|| status("409 Exceeded MaxWaiting")));
    }
    waiting.push(Waiting::new(reply.clone(), request, now));
    Ok(())
}

/// PULL-009: what is there already belongs to the requests before.
fn requests_pending(consumer: &ConsumerHandle) -> bool {
    let outstanding = consumer.waiting.lock().outstanding();
    if outstanding == 0 {
        return false;
    }
    let pending = consumer.engine.num_pending().unwrap_or(0);
    pending > 0 && pending <= outstanding
}

fn send(shared: &Arc<Shared>, reply: &Bytes, block: Vec<u8>) {
    let mut publisher = shared.account.publisher();
    publisher.publish(&routing::Message {
        subject: reply,
        reply: None,
        headers: Some(&Bytes::from(block)),
        payload: &Bytes::new(),
    });
}
