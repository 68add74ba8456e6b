//! `CONSUMER.NAMES` and `CONSUMER.LIST` (CAPI-012).

use std::sync::Arc;

use serde::Serialize;

use super::super::errors::{self, ApiError};
use super::super::json::{Fields, JsonError, ObjectFromJson};
use super::super::limits::{LIST_PAGE, NAMES_PAGE};
use super::super::shared::Shared;
use super::super::types::consumer_info::ConsumerInfo;
use super::consumer_manage::consumer_info;
use super::reply::{self, Answer, Page};
use super::route::Route;
use super::stream_info::{find_stream, optional_body};

#[derive(Default)]
struct ListRequest {
    offset: i64,
}

impl ObjectFromJson for ListRequest {
    fn read_fields(f: &mut Fields) -> Result<ListRequest, JsonError> {
        let mut r = ListRequest::default();
        f.read("offset", &mut r.offset)?;
        Ok(r)
    }
}

#[derive(Serialize)]
struct NamesReply {
    #[serde(flatten)]
    page: Page,
    consumers: Vec<String>,
}

pub(super) fn names(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    let request: ListRequest = optional_body(shared, body, "JSApiConsumersRequest")?;
    let consumers = find_stream(shared, &route.stream)?.consumers();
    let page = Page::new(consumers.len(), request.offset, NAMES_PAGE);
    let consumers = page
        .slice(&consumers)
        .iter()
        .map(|c| c.name.to_string())
        .collect();
    let after = Some(shared.store.barrier());
    Ok(reply::success(
        "consumer_names_response",
        NamesReply { page, consumers },
        after,
    ))
}

#[derive(Serialize)]
struct ListReply {
    #[serde(flatten)]
    page: Page,
    consumers: Vec<ConsumerInfo>,
}

pub(super) fn list(shared: &Arc<Shared>, route: &Route, body: &[u8]) -> Result<Answer, ApiError> {
    let request: ListRequest = optional_body(shared, body, "JSApiConsumersRequest")?;
    let stream = find_stream(shared, &route.stream)?;
    let consumers = stream.consumers();
    let page = Page::new(consumers.len(), request.offset, LIST_PAGE);
    let consumers: Result<Vec<_>, _> = page
        .slice(&consumers)
        .iter()
        .map(|consumer| consumer_info(shared, &stream, consumer))
        .collect();
    let consumers = consumers.map_err(errors::stream_general)?;
    let after = Some(shared.store.barrier());
    Ok(reply::success(
        "consumer_list_response",
        ListReply { page, consumers },
        after,
    ))
}
