use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::ServerConfig;

struct FakeServer;

fn time(second: u32) -> Timestamp {
    format!("2026-01-02T03:04:{second:02}Z").parse().unwrap()
}

fn subscription(cid: u64, subject: &str, queue: Option<&str>) -> Subscription {
    Subscription {
        account: "$G".to_owned(),
        subject: subject.to_owned(),
        queue: queue.map(str::to_owned),
        sid: "1".to_owned(),
        msgs: 2,
        max: 0,
        cid,
    }
}

fn connection(cid: u64) -> Connection {
    Connection {
        cid,
        ip: "127.0.0.1".to_owned(),
        port: 1000,
        start: time(1),
        last_activity: time(2),
        stop: None,
        reason: None,
        rtt: Some(Duration::from_micros(509)),
        pending_bytes: 0,
        in_msgs: cid,
        in_bytes: 10,
        out_msgs: 3,
        out_bytes: 30,
        subscriptions: 1,
        name: Some(format!("c{cid}")),
        lang: None,
        version: Some(String::new()),
        user: (cid == 6).then(|| "u".to_owned()),
        account: "$G".to_owned(),
        subscription_list: Vec::new(),
    }
}

impl ServerMonitor for FakeServer {
    fn counters(&self) -> ServerCounters {
        ServerCounters {
            connections: 2,
            in_msgs: 11,
            slow_consumers: 4,
            ..Default::default()
        }
    }

    fn connections(&self, subscriptions: bool) -> Vec<Connection> {
        let mut connections = vec![connection(6), connection(5)];
        if subscriptions {
            connections[0].subscription_list = vec![subscription(6, "a.*", Some("q"))];
            connections[1].subscription_list = vec![subscription(5, "b", None)];
        }
        connections
    }

    fn closed_connections(&self) -> Vec<Connection> {
        let reason = Some("Client Closed".to_owned());
        vec![Connection {
            stop: Some(time(9)),
            reason,
            ..connection(3)
        }]
    }

    fn subscription_stats(&self) -> SubscriptionStats {
        SubscriptionStats {
            num_subscriptions: 2,
            num_matches: 4,
            num_cache_hits: 1,
            ..Default::default()
        }
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        vec![
            subscription(6, "a.*", Some("q")),
            subscription(5, "b", None),
        ]
    }
}

struct FakeJetStream {
    problems: Vec<JetStreamProblem>,
}

impl JetStreamMonitor for FakeJetStream {
    fn stats(&self) -> JetStreamStats {
        JetStreamStats {
            accounts: 1,
            streams: 1,
            messages: 7,
            api_total: 9,
            ..Default::default()
        }
    }

    fn streams(&self, detail: StreamDetailOptions) -> Vec<StreamDetail> {
        vec![StreamDetail {
            name: "S".to_owned(),
            created: "2026-01-02T03:04:05Z".to_owned(),
            config: detail.config.then(|| Value::from("config")),
            state: Value::from("state"),
            consumers: if detail.consumers {
                vec![Value::from("C")]
            } else {
                Vec::new()
            },
        }]
    }

    fn has_stream(&self, stream: &str) -> bool {
        stream == "S"
    }

    fn has_consumer(&self, _: &str, consumer: &str) -> bool {
        consumer == "C"
    }

    fn problems(&self) -> Vec<JetStreamProblem> {
        self.problems.clone()
    }
}

struct Endpoint {
    monitor: Arc<Monitor>,
    address: SocketAddr,
}

impl Endpoint {
    async fn start(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let monitor = Arc::new(Monitor::new(Arc::new(config), time(0), address.port()));
        tokio::spawn(serve(listener, Arc::clone(&monitor)));
        Self { monitor, address }
    }

    async fn ready(config: ServerConfig, jetstream: Option<FakeJetStream>) -> Self {
        let endpoint = Self::start(config).await;
        let identity = Identity {
            server_id: "NID".to_owned(),
            server_name: "n".to_owned(),
            port: 4222,
        };
        endpoint.monitor.set_server(identity, Arc::new(FakeServer));
        if let Some(jetstream) = jetstream {
            let config = JetStreamStoreShown {
                max_memory: 1,
                ..Default::default()
            };
            let shown = JetStreamConfigShown {
                config,
                limits: JetStreamLimitsShown::default(),
            };
            endpoint.monitor.set_jetstream(Arc::new(jetstream), shown);
        }
        endpoint.monitor.set_phase(Phase::Ready);
        endpoint
    }

    /// Status line, header block and body of a GET.
    async fn get(&self, target: &str) -> (String, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let (status, headers) = head.split_once("\r\n").unwrap();
        (
            status[9..12].to_owned(),
            headers.to_ascii_lowercase(),
            body.to_owned(),
        )
    }

    async fn json(&self, target: &str) -> Value {
        let (status, _, body) = self.get(target).await;
        assert_eq!(status, "200", "{target}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn check(&self, target: &str, status: &str, body: &str) {
        let found = self.get(target).await;
        assert_eq!(
            (found.0.as_str(), found.2.as_str()),
            (status, body),
            "{target}"
        );
    }
}

fn healthy() -> Option<FakeJetStream> {
    Some(FakeJetStream {
        problems: Vec::new(),
    })
}

fn jetstream_config() -> ServerConfig {
    let mut config = ServerConfig::default();
    config.jetstream.enabled = true;
    config
}

#[tokio::test]
async fn varz_has_the_fields_of_the_reference() {
    let mut config = jetstream_config();
    config.digest = "sha256:1".to_owned();
    config.server_tags = vec!["t".to_owned()];
    let endpoint = Endpoint::ready(config, healthy()).await;
    let (_, headers, body) = endpoint.get("/varz").await;
    assert!(headers.contains("content-type: application/json"));
    assert!(headers.contains("access-control-allow-origin: *"));
    assert!(
        body.starts_with("{\n  \"server_id\": \"NID\",\n  \"server_name\": \"n\",\n"),
        "{body}"
    );

    let varz = endpoint.json("/varz").await;
    // Names and JSON types of the reference's /varz, `git_commit` and `feature_flags` aside.
    for (kind, names) in [
        (
            "string",
            "server_id server_name version go host http_host http_base_path start now uptime \
          config_load_time config_digest system_account",
        ),
        (
            "number",
            "proto port max_connections ping_interval ping_max http_port https_port \
          auth_timeout max_control_line max_payload max_pending tls_timeout write_deadline mem \
          cores gomaxprocs cpu connections total_connections routes remotes leafnodes in_msgs \
          in_bytes in_client_msgs in_client_bytes out_msgs out_bytes out_client_msgs \
          out_client_bytes slow_consumers stale_connections stalled_clients subscriptions",
        ),
        (
            "object",
            "cluster gateway leaf mqtt websocket jetstream http_req_stats \
          slow_consumer_stats stale_connection_stats",
        ),
        ("array", "tags"),
    ] {
        for name in names.split_whitespace() {
            let found = match &varz[name] {
                Value::String(_) => "string",
                Value::Number(_) => "number",
                Value::Object(_) => "object",
                Value::Array(_) => "array",
                _ => "nothing",
            };
            assert_eq!(found, kind, "{name}");
        }
    }
    assert_eq!(varz["in_msgs"], 11);
    assert_eq!(varz["slow_consumer_stats"]["clients"], 4);
    assert_eq!(varz["http_req_stats"]["/varz"], 2);
    assert_eq!(varz["ping_interval"], 120_000_000_000_u64);
    assert_eq!(varz["jetstream"]["config"]["max_memory"], 1);
    assert_eq!(varz["jetstream"]["stats"]["api"]["level"], 5);
    assert_eq!(varz["start"], "2026-01-02T03:04:00Z");
}

#[tokio::test]
async fn connections_are_selected_sorted_and_paged() {
    let endpoint = Endpoint::ready(ServerConfig::default(), None).await;
    for (target, expected) in [
        ("/connz", "5 6"),
        ("/connz?sort=msgs_from", "6 5"),
        ("/connz?sort=msgs_from&limit=1", "6"),
        ("/connz?offset=1", "6"),
        ("/connz?cid=6", "6"),
        ("/connz?cid=99", ""),
        ("/connz?state=closed", "3"),
        ("/connz?state=any", "3 5 6"),
        ("/connz?state=closed&sort=stop", "3"),
        ("/connz?user=u", "6"),
        ("/connz?acc=$G", "5 6"),
        ("/connz?acc=X", ""),
        ("/connz?filter_subject=a.b", "6"),
    ] {
        let connz = endpoint.json(target).await;
        let list = connz["connections"].as_array().unwrap();
        let cids: Vec<String> = list.iter().map(|one| one["cid"].to_string()).collect();
        assert_eq!(cids.join(" "), expected, "{target}");
        assert_eq!(connz["num_connections"], list.len());
    }
    let sorts = "cid start subs pending msgs_to msgs_from bytes_to bytes_from last idle uptime rtt";
    for sort in sorts.split(' ') {
        endpoint.json(&format!("/connz?sort={sort}")).await;
    }
    let one = &endpoint.json("/connz?cid=6").await["connections"][0];
    assert_eq!(one["rtt"], "509µs");
    assert_eq!(one["name"], "c6");
    assert!(one.get("lang").is_none() && one.get("version").is_none() && one.get("stop").is_none());
    assert!(one.get("authorized_user").is_none() && one.get("subscriptions_list").is_none());
    let one = &endpoint.json("/connz?cid=6&auth=1&subs=1").await["connections"][0];
    assert_eq!(one["authorized_user"], "u");
    assert_eq!(one["account"], "$G");
    assert_eq!(one["subscriptions_list"][0], "a.*");
    let one = &endpoint.json("/connz?cid=6&subs=detail").await["connections"][0];
    assert_eq!(one["subscriptions_list_detail"][0]["qgroup"], "q");
    let closed = &endpoint.json("/connz?state=closed").await["connections"][0];
    assert_eq!(closed["reason"], "Client Closed");
    assert_eq!(closed["uptime"], "8s");
    for (target, reason) in [
        ("/connz?sort=bad", "invalid sorting option: bad"),
        (
            "/connz?sort=stop",
            "sort by stop only valid on closed connections",
        ),
        ("/connz?state=foo", "Error decoding state for foo"),
        (
            "/connz?limit=x",
            "Error decoding int for 'limit': strconv.Atoi: parsing \"x\": invalid syntax",
        ),
    ] {
        endpoint.check(target, "400", reason).await;
    }
}

#[tokio::test]
async fn subscriptions_are_listed_and_tested() {
    let endpoint = Endpoint::ready(ServerConfig::default(), None).await;
    let subsz = endpoint.json("/subsz").await;
    assert_eq!(subsz["num_subscriptions"], 2);
    assert_eq!(subsz["cache_hit_rate"], 0.25);
    assert!(subsz.get("subscriptions_list").is_none());
    let subsz = endpoint.json("/subscriptionsz?subs=1&test=a.x").await;
    assert_eq!(subsz["total"], 1);
    assert_eq!(subsz["subscriptions_list"][0]["subject"], "a.*");
    assert_eq!(subsz["subscriptions_list"][0]["account"], "$G");
    let reason = "invalid test subject, must be valid publish subject";
    endpoint.check("/subsz?test=a.*", "400", reason).await;
}

#[tokio::test]
async fn jsz_shows_as_much_as_is_asked_for() {
    let endpoint = Endpoint::ready(jetstream_config(), healthy()).await;
    let jsz = endpoint.json("/jsz").await;
    assert_eq!(jsz["messages"], 7);
    assert_eq!(jsz["api"]["total"], 9);
    assert!(jsz.get("account_details").is_none() && jsz.get("disabled").is_none());
    let jsz = endpoint.json("/jsz?accounts=1").await;
    assert_eq!(jsz["account_details"][0]["name"], "$G");
    assert!(jsz["account_details"][0].get("stream_detail").is_none());
    let jsz = endpoint.json("/jsz?streams=1").await;
    let stream = &jsz["account_details"][0]["stream_detail"][0];
    assert_eq!(stream["name"], "S");
    assert!(stream.get("config").is_none() && stream.get("consumer_detail").is_none());
    let jsz = endpoint.json("/jsz?consumers=1&config=1").await;
    let stream = &jsz["account_details"][0]["stream_detail"][0];
    assert_eq!(stream["config"], "config");
    assert_eq!(stream["cluster"]["leader"], "n");
    assert_eq!(stream["consumer_detail"][0], "C");
    assert!(
        endpoint
            .json("/jsz?acc=X")
            .await
            .get("account_details")
            .is_none()
    );

    let endpoint = Endpoint::ready(ServerConfig::default(), None).await;
    let jsz = endpoint.json("/jsz").await;
    assert_eq!(jsz["disabled"], true);
    assert_eq!(jsz["api"]["level"], 0);
}

#[tokio::test]
async fn health_of_a_healthy_server() {
    let endpoint = Endpoint::ready(jetstream_config(), healthy()).await;
    let ok = "{\"status\":\"ok\"}";
    for target in [
        "/healthz",
        "/healthz?details=1",
        "/healthz?js-enabled-only=true",
        "/healthz?js-server-only=1",
        "/healthz?account=$G",
        "/healthz?account=$G&stream=S",
        "/healthz?account=$G&stream=S&consumer=C",
    ] {
        endpoint.check(target, "200", ok).await;
    }
    for (target, status, body) in [
        (
            "/healthz?stream=x",
            "400",
            r#"{"status":"error","error":"\"account\" must not be empty when checking stream health"}"#,
        ),
        (
            "/healthz?account=$G&consumer=x",
            "400",
            r#"{"status":"error","error":"\"stream\" must not be empty when checking consumer health"}"#,
        ),
        (
            "/healthz?account=x",
            "404",
            r#"{"status":"unavailable","error":"JetStream account \"x\" not found"}"#,
        ),
        (
            "/healthz?account=$G&stream=NO",
            "404",
            r#"{"status":"unavailable","error":"JetStream stream \"NO\" not found on account \"$G\""}"#,
        ),
        (
            "/healthz?account=$G&stream=S&consumer=X",
            "404",
            r#"{"status":"unavailable","error":"JetStream consumer \"X\" not found for stream \"S\" on account \"$G\""}"#,
        ),
        (
            "/healthz?details=true&account=$G&stream=NO",
            "404",
            r#"{"status":"error","errors":[{"type":"STREAM","account":"$G","stream":"NO","error":"JetStream stream \"NO\" not found on account \"$G\""}]}"#,
        ),
        (
            "/healthz?js-enabled-only=x",
            "400",
            "Error decoding boolean for 'js-enabled-only': strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
    ] {
        endpoint.check(target, status, body).await;
    }
}

#[tokio::test]
async fn health_while_starting_stopping_and_when_something_is_wrong() {
    let endpoint = Endpoint::start(jetstream_config()).await;
    endpoint
        .monitor
        .set_phase(Phase::Starting("recovering: 3 of 10 streams".to_owned()));
    let recovering = r#"{"status":"unavailable","error":"recovering: 3 of 10 streams"}"#;
    endpoint.check("/healthz", "503", recovering).await;
    endpoint
        .check("/healthz?js-enabled-only=true", "503", recovering)
        .await;
    endpoint.json("/varz").await;
    endpoint.monitor.set_phase(Phase::Ready);
    let down = r#"{"status":"unavailable","error":"JetStream is not available"}"#;
    endpoint
        .check("/healthz?js-enabled-only=true", "503", down)
        .await;
    endpoint.monitor.set_phase(Phase::Stopping);
    let stopping = r#"{"status":"unavailable","error":"server is shutting down"}"#;
    endpoint.check("/healthz", "503", stopping).await;

    let problem = |stream: Option<&str>| {
        let problem = JetStreamProblem {
            stream: stream.map(str::to_owned),
            error: "damaged".to_owned(),
        };
        Some(FakeJetStream {
            problems: vec![problem],
        })
    };
    let damaged = r#"{"status":"unavailable","error":"damaged"}"#;
    let ok = "{\"status\":\"ok\"}";
    let endpoint = Endpoint::ready(jetstream_config(), problem(Some("S"))).await;
    endpoint.check("/healthz", "503", damaged).await;
    endpoint
        .check("/healthz?js-server-only=true", "200", ok)
        .await;
    let endpoint = Endpoint::ready(jetstream_config(), problem(None)).await;
    endpoint
        .check("/healthz?js-server-only=true", "503", damaged)
        .await;

    let endpoint = Endpoint::ready(ServerConfig::default(), None).await;
    endpoint
        .check("/healthz?js-enabled-only=true", "200", ok)
        .await;
}

#[tokio::test]
async fn other_pages_and_paths() {
    let endpoint = Endpoint::ready(ServerConfig::default(), None).await;
    let (status, headers, body) = endpoint.get("/").await;
    assert_eq!(status, "200");
    assert!(headers.contains("text/html"));
    assert!(body.contains("./varz") && body.contains("./healthz"));
    endpoint.check("/nope", "404", "404 page not found\n").await;
    endpoint
        .check("/varz/x", "404", "404 page not found\n")
        .await;
    endpoint
        .check("/raftz", "404", "No Raft nodes registered")
        .await;
    assert_eq!(endpoint.json("/routez").await["num_routes"], 0);
    assert_eq!(endpoint.json("/accountz").await["accounts"][1], "$G");

    let mut config = ServerConfig::default();
    config.monitor.base_path = "/base".to_owned();
    let endpoint = Endpoint::ready(config, None).await;
    endpoint
        .check("/base/healthz", "200", "{\"status\":\"ok\"}")
        .await;
    endpoint
        .check("/healthz", "404", "404 page not found\n")
        .await;
    assert_eq!(endpoint.get("/base/").await.0, "200");
}

#[tokio::test]
async fn a_callback_is_a_name_and_nothing_else() {
    let endpoint = Endpoint::ready(ServerConfig::default(), None).await;
    let (_, headers, body) = endpoint.get("/healthz?callback=app.show").await;
    assert!(headers.contains("content-type: application/javascript"));
    assert_eq!(body, "app.show({\"status\":\"ok\"})");
    for callback in ["alert(1)//", "a;b", "1a", ".a", "a%20b"] {
        endpoint
            .check(
                &format!("/healthz?callback={callback}"),
                "200",
                "{\"status\":\"ok\"}",
            )
            .await;
    }
}
