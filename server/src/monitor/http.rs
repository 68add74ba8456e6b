//! Requests and the forms of answers.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query as AxumQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::TcpListener;

use super::query::{BadRequest, Query};
use super::{Monitor, connz, healthz, index, jsz, subsz, varz};

/// Answers requests until the future is dropped.
///
/// # Errors
/// The listener failed for good.
pub async fn serve(listener: TcpListener, monitor: Arc<Monitor>) -> std::io::Result<()> {
    let router = Router::new().fallback(answer).with_state(monitor);
    axum::serve(listener, router).await
}

/// The pages, under one name per page so that they can be counted.
fn page(path: &str) -> Option<&'static str> {
    [
        "/",
        "/varz",
        "/connz",
        "/subsz",
        "/jsz",
        "/healthz",
        "/routez",
        "/accountz",
        "/raftz",
    ]
    .into_iter()
    .find(|page| *page == path)
    .or(match path {
        "" => Some("/"),
        "/subscriptionsz" => Some("/subsz"),
        _ => None,
    })
}

async fn answer(State(monitor): State<Arc<Monitor>>, request: Request) -> Response {
    let base_path = monitor.config().monitor.base_path.clone();
    let path = request.uri().path().strip_prefix(base_path.as_str());
    let Some(page) = path.and_then(page) else {
        return not_found();
    };
    let query = match AxumQuery::<HashMap<String, String>>::try_from_uri(request.uri()) {
        Ok(AxumQuery(arguments)) => Query(arguments),
        Err(error) => return error.into_response(),
    };
    monitor.count_request(page);
    let now = Timestamp::now();
    let result = match page {
        "/" => return Html(index::page(&monitor.identity().server_name)).into_response(),
        "/raftz" => return (StatusCode::NOT_FOUND, "No Raft nodes registered").into_response(),
        "/healthz" => healthz::healthz(&monitor, &query).map(|health| {
            let body = serde_json::to_string(&health);
            json(health.code, body, &query)
        }),
        "/varz" => Ok(pretty(&varz::varz(&monitor, now), &query)),
        "/connz" => connz::connz(&monitor, &query, now).map(|connz| pretty(&connz, &query)),
        "/subsz" => subsz::subsz(&monitor, &query, now).map(|subsz| pretty(&subsz, &query)),
        "/jsz" => jsz::jsz(&monitor, &query, now).map(|jsz| pretty(&jsz, &query)),
        "/accountz" => Ok(pretty(&Accountz::new(&monitor, now), &query)),
        _ => Ok(pretty(&Routez::new(&monitor, now), &query)),
    };
    result.unwrap_or_else(|BadRequest(reason)| (StatusCode::BAD_REQUEST, reason).into_response())
}

fn pretty(value: &impl Serialize, query: &Query) -> Response {
    json(StatusCode::OK, serde_json::to_string_pretty(value), query)
}

fn json(code: StatusCode, body: serde_json::Result<String>, query: &Query) -> Response {
    let Ok(body) = body else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let (kind, body) = match query.text("callback").filter(|name| is_callback(name)) {
        Some(callback) => ("application/javascript", format!("{callback}({body})")),
        None => ("application/json", body),
    };
    let any_origin = (
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(kind));
    (code, [any_origin, kind], body).into_response()
}

/// Only the name of a function may stand before the answer: anything else would let a link run
/// code of its author's choice in the page that follows it.
fn is_callback(name: &str) -> bool {
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.');
    name.len() <= 128
        && name.chars().all(is_name_char)
        && !name.starts_with(|c: char| c.is_ascii_digit() || c == '.')
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// `/routez` of a server that has no routes; dashboards ask for it.
#[derive(Serialize)]
struct Routez {
    server_id: String,
    server_name: String,
    now: String,
    num_routes: u64,
    routes: [(); 0],
}

impl Routez {
    fn new(monitor: &Monitor, now: Timestamp) -> Self {
        let identity = monitor.identity();
        Self {
            server_id: identity.server_id,
            server_name: identity.server_name,
            now: now.to_string(),
            num_routes: 0,
            routes: [],
        }
    }
}

/// `/accountz`: the accounts (MON-009).
#[derive(Serialize)]
struct Accountz {
    server_id: String,
    now: String,
    system_account: String,
    accounts: Vec<String>,
}

impl Accountz {
    fn new(monitor: &Monitor, now: Timestamp) -> Self {
        let system_account = monitor
            .config()
            .system_account
            .clone()
            .unwrap_or_else(|| "$SYS".to_owned());
        Self {
            server_id: monitor.identity().server_id,
            now: now.to_string(),
            accounts: vec![system_account.clone(), "$G".to_owned()],
            system_account,
        }
    }
}
