//! `STREAM.MSG.GET` and `STREAM.MSG.DELETE` (SAPI-020..023).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use riverlog_engine::Message;
use riverlog_engine::ids::Seq;
use serde::Serialize;

use super::super::direct::{self, GetRequest};
use super::super::errors::{self, ApiError};
use super::super::json::{Fields, JsonError, ObjectFromJson, is_empty_body, parse_object};
use super::super::shared::Shared;
use super::super::time::format_time;
use super::reply::{self, Answer};
use super::route::Route;
use super::stream_info::find_stream;

#[derive(Serialize)]
struct GetReply {
    message: StoredMessage,
}

#[derive(Serialize)]
struct StoredMessage {
    subject: String,
    seq: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    hdrs: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    time: String,
}

impl StoredMessage {
    fn new(message: &Message, headers: bool) -> StoredMessage {
        StoredMessage {
            subject: String::from_utf8_lossy(message.subject()).into_owned(),
            seq: message.seq.0,
            hdrs: if headers {
                STANDARD.encode(message.headers())
            } else {
                String::new()
            },
            data: STANDARD.encode(message.payload()),
            time: format_time(message.ts),
        }
    }
}

pub(super) fn get(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    if is_empty_body(body) {
        return Err(errors::BAD_REQUEST);
    }
    let unknown = shared.options.unknown_fields();
    let request: GetRequest =
        parse_object(body, "JSApiMsgGetRequest", unknown).map_err(errors::invalid_json)?;
    let only_direct = request.batch != 0
        || request.max_bytes != 0
        || !request.multi_last.is_empty()
        || request.up_to_seq != 0
        || request.up_to_time.is_some();
    if request.selects_nothing() || request.is_contradictory() || only_direct {
        return Err(errors::BAD_REQUEST);
    }
    let stream = find_stream(shared, &route.stream)?;
    let message = direct::find(&stream, &request).map_err(errors::stream_general)?;
    let message = message.ok_or(errors::NO_MESSAGE_FOUND)?;
    let message = StoredMessage::new(&message, !request.no_hdr);
    Ok(reply::success(
        "stream_msg_get_response",
        GetReply { message },
        None,
    ))
}

#[derive(Default)]
struct DeleteRequest {
    seq: u64,
    no_erase: bool,
}

impl ObjectFromJson for DeleteRequest {
    fn read_fields(f: &mut Fields) -> Result<DeleteRequest, JsonError> {
        let mut r = DeleteRequest::default();
        f.read("seq", &mut r.seq)?;
        // A deleted message is never shown again either way; its bytes go with the next rewrite of
        // their file.
        f.read("no_erase", &mut r.no_erase)?;
        Ok(r)
    }
}

pub(super) fn delete(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    if is_empty_body(body) {
        return Err(errors::BAD_REQUEST);
    }
    let unknown = shared.options.unknown_fields();
    let request: DeleteRequest =
        parse_object(body, "JSApiMsgDeleteRequest", unknown).map_err(errors::invalid_json)?;
    let stream = find_stream(shared, &route.stream)?;
    let config = stream.config();
    if config.sealed {
        return Err(errors::STREAM_SEALED);
    }
    if config.deny_delete {
        return Err(errors::stream_msg_delete_failed(
            "message delete not permitted",
        ));
    }
    let deleted = stream
        .engine
        .delete(Seq(request.seq))
        .map_err(errors::stream_msg_delete_failed)?;
    let ticket = deleted.ok_or_else(|| errors::sequence_not_found(request.seq))?;
    for consumer in stream.consumers() {
        super::super::advisories::publish_notices(shared, &consumer);
    }
    Ok(reply::done("stream_msg_delete_response", Some(ticket)))
}
