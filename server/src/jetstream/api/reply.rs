//! Bodies of replies: `{"type":…, …}` (ADR-2).

use std::sync::Arc;

use bytes::Bytes;
use riverlog_engine::Ticket;
use serde::Serialize;

use super::super::consumer_handle::ConsumerHandle;
use super::super::errors::ApiError;
use super::super::time::ZERO_TIME;
use super::route::Operation;

/// An answer ready to send.
pub(crate) struct Answer {
    /// JSON.
    pub body: Bytes,
    /// What has to be durable before it is sent.
    pub after: Option<Ticket>,
    /// For the counters.
    pub is_error: bool,
    /// A consumer that starts to deliver once the answer is out, so that a client hears of it first.
    pub start: Option<Arc<ConsumerHandle>>,
}

#[derive(Serialize)]
struct Envelope<'a, T: Serialize> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ApiError>,
    #[serde(flatten)]
    content: T,
}

fn encode<T: Serialize>(kind: &str, error: Option<&ApiError>, content: T) -> Bytes {
    let kind = format!("io.nats.jetstream.api.v1.{kind}");
    match serde_json::to_vec(&Envelope {
        kind,
        error,
        content,
    }) {
        Ok(json) => json.into(),
        Err(error) => {
            // No reply type has a failing serialiser.
            tracing::error!(%error, "a reply could not be formatted");
            Bytes::new()
        }
    }
}

/// A success, sent once `after` is durable.
pub(crate) fn success<T: Serialize>(kind: &str, content: T, after: Option<Ticket>) -> Answer {
    Answer {
        body: encode(kind, None, content),
        after,
        is_error: false,
        start: None,
    }
}

/// `{"success":true}`, sent once `after` is durable.
pub(crate) fn done(kind: &str, after: Option<Ticket>) -> Answer {
    #[derive(Serialize)]
    struct Done {
        success: bool,
    }
    success(kind, Done { success: true }, after)
}

/// Page fields of list replies (JSAPI-012).
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Page {
    pub total: usize,
    pub offset: usize,
    pub limit: usize,
}

impl Page {
    /// The page of `total` items that starts at `offset`.
    pub fn new(total: usize, offset: i64, limit: usize) -> Page {
        Page {
            total,
            offset: usize::try_from(offset).unwrap_or(0).min(total),
            limit,
        }
    }

    /// The items of the page.
    pub fn slice<'a, T>(&self, items: &'a [T]) -> &'a [T] {
        let end = (self.offset + self.limit).min(items.len());
        &items[self.offset.min(end)..end]
    }
}

/// An error. Replies of some operations keep empty fields beside it, as clients are used to.
pub(crate) fn error(operation: Operation, kind: &str, error: &ApiError) -> Answer {
    #[derive(Serialize)]
    struct Nothing {}
    #[derive(Serialize)]
    struct Purged {
        purged: u64,
    }
    #[derive(Serialize)]
    struct Paused {
        paused: bool,
        pause_until: &'static str,
    }
    #[derive(Serialize)]
    struct Consumers {
        #[serde(flatten)]
        page: Page,
        consumers: [u8; 0],
    }
    let page = Page::default();
    let body = match operation {
        Operation::StreamInfo | Operation::StreamNames | Operation::StreamList => {
            encode(kind, Some(error), page)
        }
        Operation::ConsumerNames | Operation::ConsumerList => encode(
            kind,
            Some(error),
            Consumers {
                page,
                consumers: [],
            },
        ),
        Operation::StreamPurge => encode(kind, Some(error), Purged { purged: 0 }),
        Operation::ConsumerPause => encode(
            kind,
            Some(error),
            Paused {
                paused: false,
                pause_until: ZERO_TIME,
            },
        ),
        _ => encode(kind, Some(error), Nothing {}),
    };
    Answer {
        body,
        after: None,
        is_error: true,
        start: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::errors;
    use super::*;

    #[test]
    fn bodies() {
        let body = done("stream_delete_response", None).body;
        assert_eq!(
            body,
            r#"{"type":"io.nats.jetstream.api.v1.stream_delete_response","success":true}"#
        );
        let body = error(
            Operation::StreamPurge,
            "stream_purge_response",
            &errors::STREAM_SEALED,
        )
        .body;
        assert_eq!(
            body,
            r#"{"type":"io.nats.jetstream.api.v1.stream_purge_response","error":{"code":400,"err_code":10109,"description":"invalid operation on sealed stream"},"purged":0}"#
        );
    }

    #[test]
    fn pages() {
        let items = [1, 2, 3, 4, 5];
        assert_eq!(Page::new(5, 2, 2).slice(&items), [3, 4]);
        assert!(Page::new(5, 9, 2).slice(&items).is_empty());
        assert_eq!(Page::new(5, 9, 2).offset, 5);
        assert_eq!(Page::new(5, -1, 10).slice(&items), items);
    }
}
