//! `/healthz`: can this server do its work? (MON-013, MON-014, MON-016)
//!
//! Answers from the first moment on: while the store recovers it says how far it is.

use axum::http::StatusCode;
use serde::Serialize;

use super::query::{BadRequest, Query};
use super::{Monitor, Phase};

/// The only account.
const ACCOUNT: &str = "$G";

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Health {
    #[serde(skip)]
    pub(super) code: StatusCode,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Finding>,
}

/// One thing found wrong; listed with `details=true`.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Finding {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<String>,
    error: String,
}

impl Finding {
    fn new(kind: &'static str, error: String) -> Self {
        Self {
            r#type: kind,
            account: None,
            stream: None,
            consumer: None,
            error,
        }
    }
}

impl Health {
    fn ok() -> Self {
        Self {
            code: StatusCode::OK,
            status: "ok",
            error: None,
            errors: Vec::new(),
        }
    }

    fn bad_request(error: &str) -> Self {
        let (code, error) = (StatusCode::BAD_REQUEST, Some(error.to_owned()));
        Self {
            code,
            status: "error",
            error,
            errors: Vec::new(),
        }
    }

    fn found(code: StatusCode, findings: Vec<Finding>, is_detailed: bool) -> Self {
        if is_detailed {
            return Self {
                code,
                status: "error",
                error: None,
                errors: findings,
            };
        }
        let error = findings.into_iter().next().map(|finding| finding.error);
        Self {
            code,
            status: "unavailable",
            error,
            errors: Vec::new(),
        }
    }
}

pub(super) fn healthz(monitor: &Monitor, query: &Query) -> Result<Health, BadRequest> {
    let (account, stream, consumer) = (
        query.text("account"),
        query.text("stream"),
        query.text("consumer"),
    );
    let is_detailed = query.bool("details")?;
    let is_enabled_only = query.bool("js-enabled-only")? || query.bool("js-enabled")?;
    let is_server_only = query.bool("js-server-only")? || query.bool("js-meta-only")?;
    if stream.is_some() && account.is_none() {
        let reason = "\"account\" must not be empty when checking stream health";
        return Ok(Health::bad_request(reason));
    }
    if consumer.is_some() && stream.is_none() {
        let reason = "\"stream\" must not be empty when checking consumer health";
        return Ok(Health::bad_request(reason));
    }

    let unavailable = |kind, error: String| {
        let findings = vec![Finding::new(kind, error)];
        Health::found(StatusCode::SERVICE_UNAVAILABLE, findings, is_detailed)
    };
    match monitor.phase() {
        Phase::Starting(progress) => return Ok(unavailable("CONN", progress)),
        Phase::Stopping => return Ok(unavailable("CONN", "server is shutting down".to_owned())),
        Phase::Ready | Phase::LameDuck => {}
    }
    let Some(jetstream) = monitor.jetstream() else {
        if monitor.config().jetstream.enabled {
            return Ok(unavailable(
                "JETSTREAM",
                "JetStream is not available".to_owned(),
            ));
        }
        return Ok(Health::ok());
    };

    let problems = jetstream.problems();
    let (store, streams): (Vec<_>, Vec<_>) = problems
        .into_iter()
        .partition(|problem| problem.stream.is_none());
    if !store.is_empty() {
        let findings = store
            .into_iter()
            .map(|problem| Finding::new("JETSTREAM", problem.error))
            .collect();
        return Ok(Health::found(
            StatusCode::SERVICE_UNAVAILABLE,
            findings,
            is_detailed,
        ));
    }
    if is_enabled_only || is_server_only {
        return Ok(Health::ok());
    }
    if let Some(missing) = missing(jetstream.as_ref(), account, stream, consumer) {
        return Ok(Health::found(
            StatusCode::NOT_FOUND,
            vec![missing],
            is_detailed,
        ));
    }
    let findings: Vec<Finding> = streams
        .into_iter()
        .filter(|problem| stream.is_none() || stream == problem.stream.as_deref())
        .map(|problem| Finding {
            account: Some(ACCOUNT.to_owned()),
            stream: problem.stream,
            ..Finding::new("STREAM", problem.error)
        })
        .collect();
    if findings.is_empty() {
        return Ok(Health::ok());
    }
    Ok(Health::found(
        StatusCode::SERVICE_UNAVAILABLE,
        findings,
        is_detailed,
    ))
}

/// The first name of the request that does not exist.
fn missing(
    jetstream: &dyn super::JetStreamMonitor,
    account: Option<&str>,
    stream: Option<&str>,
    consumer: Option<&str>,
) -> Option<Finding> {
    let owned = |text: &str| Some(text.to_owned());
    let account = account?;
    if account != ACCOUNT {
        let error = format!("JetStream account {account:?} not found");
        return Some(Finding {
            account: owned(account),
            ..Finding::new("ACCOUNT", error)
        });
    }
    let stream = stream?;
    if !jetstream.has_stream(stream) {
        let error = format!("JetStream stream {stream:?} not found on account {account:?}");
        return Some(Finding {
            account: owned(account),
            stream: owned(stream),
            ..Finding::new("STREAM", error)
        });
    }
    let consumer = consumer?;
    if jetstream.has_consumer(stream, consumer) {
        return None;
    }
    let error = format!(
        "JetStream consumer {consumer:?} not found for stream {stream:?} on account {account:?}"
    );
    Some(Finding {
        account: owned(account),
        stream: owned(stream),
        consumer: owned(consumer),
        ..Finding::new("CONSUMER", error)
    })
}
