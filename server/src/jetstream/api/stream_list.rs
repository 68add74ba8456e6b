//! `STREAM.NAMES` and `STREAM.LIST` (SAPI-012, SAPI-013).

use std::sync::Arc;

use serde::Serialize;

use super::super::errors::ApiError;
use super::super::json::{Fields, JsonError, ObjectFromJson};
use super::super::limits::{LIST_PAGE, NAMES_PAGE};
use super::super::shared::Shared;
use super::super::stream_handle::StreamHandle;
use super::super::types::stream_info::StreamInfo;
use super::super::validate::subjects;
use super::reply::{self, Answer, Page};
use super::stream_info::{optional_body, stream_info};

#[derive(Default)]
struct ListRequest {
    offset: i64,
    subject: String,
}

impl ObjectFromJson for ListRequest {
    fn read_fields(f: &mut Fields) -> Result<ListRequest, JsonError> {
        let mut r = ListRequest::default();
        f.read("offset", &mut r.offset)?;
        f.read("subject", &mut r.subject)?;
        Ok(r)
    }
}

/// Streams whose subjects have something in common with the wanted one.
fn matching(shared: &Shared, request: &ListRequest) -> Vec<Arc<StreamHandle>> {
    let mut streams = shared.streams();
    if !request.subject.is_empty() {
        streams.retain(|stream| {
            let config = stream.config();
            config
                .subjects
                .iter()
                .any(|subject| subjects::collide(subject, &request.subject))
        });
    }
    streams
}

#[derive(Serialize)]
struct NamesReply {
    #[serde(flatten)]
    page: Page,
    /// An empty page is `null`.
    streams: Option<Vec<String>>,
}

pub(super) fn names(shared: &Arc<Shared>, body: &[u8]) -> Result<Answer, ApiError> {
    let request: ListRequest = optional_body(shared, body, "JSApiStreamNamesRequest")?;
    let streams = matching(shared, &request);
    let page = Page::new(streams.len(), request.offset, NAMES_PAGE);
    let names: Vec<String> = page
        .slice(&streams)
        .iter()
        .map(|s| s.name.to_string())
        .collect();
    let streams = (!names.is_empty()).then_some(names);
    let after = Some(shared.store.barrier());
    Ok(reply::success(
        "stream_names_response",
        NamesReply { page, streams },
        after,
    ))
}

#[derive(Serialize)]
struct ListReply {
    #[serde(flatten)]
    page: Page,
    streams: Vec<StreamInfo>,
}

pub(super) fn list(shared: &Arc<Shared>, body: &[u8]) -> Result<Answer, ApiError> {
    let request: ListRequest = optional_body(shared, body, "JSApiStreamListRequest")?;
    let streams = matching(shared, &request);
    let page = Page::new(streams.len(), request.offset, LIST_PAGE);
    let streams = page
        .slice(&streams)
        .iter()
        .map(|s| stream_info(shared, s))
        .collect();
    let after = Some(shared.store.barrier());
    Ok(reply::success(
        "stream_list_response",
        ListReply { page, streams },
        after,
    ))
}
