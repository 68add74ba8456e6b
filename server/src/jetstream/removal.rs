//! Removal of consumers: on request, with their stream, or because nobody uses them.

use std::sync::Arc;

use bytes::Bytes;
use riverlog_engine::ids::TimestampNs;
use riverlog_engine::{ChangeError, Ticket};

use super::advisories;
use super::consumer_handle::ConsumerHandle;
use super::pull_request::{status, status_with_pending};
use super::shared::Shared;
use super::stream_handle::StreamHandle;
use super::time::now;
use super::types::enums::AckPolicy;
use super::waiting::Waiting;
use crate::routing;

/// Deletes a consumer. `None` when somebody else did before.
pub(crate) fn delete_consumer(
    shared: &Arc<Shared>,
    stream: &Arc<StreamHandle>,
    consumer: &Arc<ConsumerHandle>,
) -> Result<Option<Ticket>, ChangeError> {
    if !stream.remove_consumer(&consumer.name) {
        return Ok(None);
    }
    consumer.mark_deleted();
    consumer.unwatch(shared);
    let ticket = match stream.engine.delete_consumer(&consumer.name) {
        Ok(ticket) => ticket,
        Err(ChangeError::NotFound) => return Ok(None),
        Err(error) => return Err(error),
    };
    consumer.forget_hunger(stream);
    end_waiting(shared, consumer);
    advisories::consumer_deleted(shared, stream, consumer);
    Ok(Some(ticket))
}

/// Tells everybody who waits that the consumer is gone (CAPI-014).
pub(crate) fn end_waiting(shared: &Arc<Shared>, consumer: &ConsumerHandle) {
    let all = consumer.waiting.lock().take_all();
    send_all(shared, &all, |_| status("409 Consumer Deleted"));
}

/// Tells everybody who waits that the server stops (PULL-021).
pub(crate) fn end_waiting_for_shutdown(shared: &Arc<Shared>, consumer: &ConsumerHandle) {
    let all = consumer.waiting.lock().take_all();
    send_all(shared, &all, |waiting| {
        let request = &waiting.request;
        status_with_pending("409 Server Shutdown", request.batch, request.max_bytes)
    });
}

fn send_all(shared: &Arc<Shared>, all: &[Waiting], block: impl Fn(&Waiting) -> Vec<u8>) {
    if all.is_empty() {
        return;
    }
    let mut publisher = shared.account.publisher();
    for waiting in all {
        publisher.publish(&routing::Message {
            subject: &waiting.reply,
            reply: None,
            headers: Some(&Bytes::from(block(waiting))),
            payload: &Bytes::new(),
        });
    }
}

/// Removes a consumer that nobody has used for its inactivity threshold, or sets the timer for it
/// (CAPI-022, T-82).
pub(crate) fn check_inactivity(shared: &Arc<Shared>, consumer: &Arc<ConsumerHandle>) {
    let Some(at) = consumer.inactive_at() else {
        return;
    };
    let now = now();
    if now < at {
        consumer.arm(shared, Some(at));
        return;
    }
    if is_waited_for(shared, consumer) || has_open_deliveries(consumer, now) {
        consumer.touch(now);
        consumer.arm(shared, consumer.inactive_at());
        return;
    }
    let Some(stream) = consumer.stream.upgrade() else {
        return;
    };
    let shared = Arc::clone(shared);
    let consumer = Arc::clone(consumer);
    let runtime = shared.runtime.clone();
    // The lock for changes may be held by a request that reads from disk.
    runtime.spawn_blocking(move || {
        let _changes = shared.changes.lock();
        if let Err(error) = delete_consumer(&shared, &stream, &consumer) {
            tracing::warn!(stream = %stream.name, consumer = %consumer.name, %error,
                "an inactive consumer could not be removed");
        }
    });
}

/// Requests whose client is gone do not keep a consumer.
fn is_waited_for(shared: &Shared, consumer: &ConsumerHandle) -> bool {
    if consumer.config().is_push() {
        return consumer.is_bound(shared);
    }
    let mut waiting = consumer.waiting.lock();
    waiting.remove_if(|waiting| !shared.account.has_interest(&waiting.reply));
    !waiting.is_empty()
}

/// Whether the acknowledgement of the latest delivery may still come.
fn has_open_deliveries(consumer: &ConsumerHandle, now: TimestampNs) -> bool {
    let config = consumer.config();
    if config.ack_policy == AckPolicy::None || config.is_push() {
        return false;
    }
    let info = consumer.engine.info();
    let last = info.delivered.last_active.unwrap_or(TimestampNs(0)).0;
    info.num_ack_pending > 0 && now.0 < last.saturating_add(config.ack_wait)
}
