//! `STREAM.DELETE` and `STREAM.PURGE` (SAPI-014..019).

use std::sync::Arc;

use riverlog_engine::ids::Seq;
use riverlog_engine::{ChangeError, Filter, PurgeRequest};
use serde::Serialize;

use super::super::advisories::{self, Action};
use super::super::errors::{self, ApiError};
use super::super::json::{Fields, JsonError, ObjectFromJson, is_empty_body};
use super::super::removal;
use super::super::shared::Shared;
use super::reply::{self, Answer};
use super::route::Route;
use super::stream_info::{find_stream, optional_body};

pub(super) fn delete(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    if !is_empty_body(body) {
        return Err(errors::NOT_EMPTY_REQUEST);
    }
    let _changes = shared.changes.lock();
    let stream = find_stream(shared, &route.stream)?;
    let ticket = match shared.store.delete_stream(&route.stream) {
        Ok(ticket) => Some(ticket),
        Err(ChangeError::NotFound) => None,
        Err(error) => return Err(errors::stream_delete(error)),
    };
    stream.unsubscribe(shared);
    shared.remove_stream(&stream);
    for consumer in stream.take_consumers() {
        consumer.mark_deleted();
        consumer.unwatch(shared);
        removal::end_waiting(shared, &consumer);
        advisories::consumer_deleted(shared, &stream, &consumer);
    }
    advisories::stream_action(shared, &stream.name, Action::Delete);
    Ok(reply::done("stream_delete_response", ticket))
}

#[derive(Default)]
struct PurgeBody {
    filter: String,
    seq: u64,
    keep: u64,
}

impl ObjectFromJson for PurgeBody {
    fn read_fields(f: &mut Fields) -> Result<PurgeBody, JsonError> {
        let mut b = PurgeBody::default();
        f.read("filter", &mut b.filter)?;
        f.read("seq", &mut b.seq)?;
        f.read("keep", &mut b.keep)?;
        Ok(b)
    }
}

#[derive(Serialize)]
struct PurgeReply {
    success: bool,
    purged: u64,
}

pub(super) fn purge(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    let stream = find_stream(shared, &route.stream)?;
    let config = stream.config();
    if config.sealed {
        return Err(errors::STREAM_SEALED);
    }
    if config.deny_purge {
        return Err(errors::stream_purge_failed("stream purge not permitted"));
    }
    let body: PurgeBody = optional_body(shared, body, "JSApiStreamPurgeRequest")?;
    if body.seq > 0 && body.keep > 0 {
        return Err(errors::BAD_REQUEST);
    }
    let kind = "stream_purge_response";
    let filter = match body.filter.as_str() {
        "" => None,
        text => match Filter::new(text.as_bytes()) {
            Ok(filter) => Some(filter),
            // Matches nothing.
            Err(_) => {
                return Ok(reply::success(
                    kind,
                    PurgeReply {
                        success: true,
                        purged: 0,
                    },
                    None,
                ));
            }
        },
    };
    let request = PurgeRequest {
        filter,
        below: (body.seq > 0).then_some(Seq(body.seq)),
        keep: (body.keep > 0).then_some(body.keep),
    };
    let (purged, ticket) = stream
        .engine
        .purge(&request)
        .map_err(errors::stream_purge_failed)?;
    for consumer in stream.consumers() {
        consumer.schedule();
    }
    Ok(reply::success(
        kind,
        PurgeReply {
            success: true,
            purged,
        },
        Some(ticket),
    ))
}
