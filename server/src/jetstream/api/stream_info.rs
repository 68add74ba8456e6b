//! `STREAM.INFO` (SAPI-007..011).

use std::collections::BTreeMap;
use std::sync::Arc;

use riverlog_engine::Filter;
use riverlog_engine::ids::Seq;
use serde::Serialize;

use super::super::errors::{self, ApiError};
use super::super::json::{Fields, JsonError, ObjectFromJson, parse_object};
use super::super::limits::SUBJECTS_PAGE;
use super::super::shared::Shared;
use super::super::stream_handle::StreamHandle;
use super::super::time::now;
use super::super::types::stream_info::{ClusterInfo, StreamInfo, StreamState};
use super::super::validate::metadata;
use super::reply::{self, Answer, Page};
use super::route::Route;

/// Interior deletes a reply lists at most.
const DELETED_DETAILS_MAX: usize = 1_000_000;

#[derive(Default)]
struct InfoRequest {
    deleted_details: bool,
    subjects_filter: String,
    offset: i64,
}

impl ObjectFromJson for InfoRequest {
    fn read_fields(f: &mut Fields) -> Result<InfoRequest, JsonError> {
        let mut r = InfoRequest::default();
        f.read("deleted_details", &mut r.deleted_details)?;
        f.read("subjects_filter", &mut r.subjects_filter)?;
        f.read("offset", &mut r.offset)?;
        Ok(r)
    }
}

#[derive(Serialize)]
struct InfoReply {
    #[serde(flatten)]
    page: Page,
    #[serde(flatten)]
    info: StreamInfo,
}

/// Reads a body that may be left out; what is no object or list counts as left out.
pub(super) fn optional_body<T: ObjectFromJson + Default>(
    shared: &Shared,
    body: &[u8],
    root: &'static str,
) -> Result<T, ApiError> {
    if !body.trim_ascii_start().starts_with(b"{") && !body.trim_ascii_start().starts_with(b"[") {
        return Ok(T::default());
    }
    parse_object(body, root, shared.options.unknown_fields()).map_err(errors::invalid_json)
}

pub(super) fn find_stream(shared: &Shared, name: &str) -> Result<Arc<StreamHandle>, ApiError> {
    shared.stream(name).ok_or(errors::STREAM_NOT_FOUND)
}

pub(super) fn info(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    let stream = find_stream(shared, &route.stream)?;
    let request: InfoRequest = optional_body(shared, body, "JSApiStreamInfoRequest")?;
    let mut info = stream_info(shared, &stream);
    metadata::add_dynamic(&mut info.config.metadata);
    info.cluster = Some(ClusterInfo {
        leader: shared.server_id.clone(),
    });
    if request.deleted_details {
        info.state.deleted = stream.engine.deleted(DELETED_DETAILS_MAX);
    }
    let mut page = Page::default();
    if !request.subjects_filter.is_empty() {
        page = add_subjects(&stream, &request, &mut info.state)?;
    }
    // What was counted is durable when the answer goes out.
    let after = Some(shared.store.barrier());
    Ok(reply::success(
        "stream_info_response",
        InfoReply { page, info },
        after,
    ))
}

/// SAPI-009, T-106.
fn add_subjects(
    stream: &StreamHandle,
    request: &InfoRequest,
    state: &mut StreamState,
) -> Result<Page, ApiError> {
    let Ok(filter) = Filter::new(request.subjects_filter.as_bytes()) else {
        return Ok(Page::default());
    };
    let all = stream
        .engine
        .subjects(&filter)
        .map_err(errors::stream_general)?;
    if all.is_empty() {
        return Ok(Page::default());
    }
    let page = Page {
        total: all.len(),
        offset: usize::try_from(request.offset).unwrap_or(0),
        limit: SUBJECTS_PAGE,
    };
    let details: BTreeMap<String, u64> = all
        .into_iter()
        .skip(page.offset)
        .take(page.limit)
        .map(|(subject, count)| (String::from_utf8_lossy(&subject).into_owned(), count))
        .collect();
    state.subjects = (!details.is_empty()).then_some(details);
    Ok(page)
}

/// The info part of replies about a stream.
pub(crate) fn stream_info(shared: &Shared, stream: &StreamHandle) -> StreamInfo {
    StreamInfo {
        config: (*stream.config()).clone(),
        created: stream.engine.created(),
        state: stream_state(stream),
        domain: shared.options.domain.clone(),
        cluster: None,
        ts: now(),
    }
}

/// Counters and positions.
pub(crate) fn stream_state(stream: &StreamHandle) -> StreamState {
    let state = stream.engine.state();
    // SAPI-011: a stream that never held anything shows 0.
    let unused = state.last_seq == Seq(0) && state.first_seq == Seq(1);
    StreamState {
        messages: state.msgs,
        bytes: state.bytes,
        first_seq: if unused { 0 } else { state.first_seq.0 },
        first_ts: state.first_ts,
        last_seq: state.last_seq.0,
        last_ts: state.last_ts,
        num_subjects: stream.engine.num_subjects().unwrap_or(0),
        num_deleted: state.deleted,
        consumer_count: stream.consumer_count() as u64,
        ..StreamState::default()
    }
}
