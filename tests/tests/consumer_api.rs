//! The consumer requests answer with the reference's JSON (spec rows CCFG-*, CAPI-*).

use riverlog_tests::{TestServer, assert_json, assert_json_has, ms_as_ns, secs_as_ns};
use serde_json::{Value, json};

fn default_config(name: &str) -> Value {
    json!({
        "durable_name": name, "name": name, "deliver_policy": "all", "ack_policy": "explicit",
        "ack_wait": 30_000_000_000_u64, "max_deliver": -1, "replay_policy": "instant",
        "max_waiting": 512, "max_ack_pending": 1000, "num_replicas": 0,
        "metadata": {"_nats.level": "<any>", "_nats.req.level": "0", "_nats.ver": "<any>"},
    })
}

fn fresh_info(name: &str, pending: u64) -> Value {
    json!({
        "stream_name": "S", "name": name, "created": "<time>", "config": default_config(name),
        "delivered": {"consumer_seq": 0, "stream_seq": 0},
        "ack_floor": {"consumer_seq": 0, "stream_seq": 0},
        "num_ack_pending": 0, "num_redelivered": 0, "num_waiting": 0, "num_pending": pending,
        "ts": "<time>",
    })
}

#[test]
fn create_and_info_show_the_whole_configuration_and_position() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    client.store_many("s.a", 3);
    let reply = client.create_consumer("S", "C", &json!({}));
    let mut expected = fresh_info("C", 3);
    expected["type"] = json!("io.nats.jetstream.api.v1.consumer_create_response");
    assert_json(&reply, &expected);
    // The same request again answers the same consumer.
    let again = client.create_consumer("S", "C", &json!({}));
    assert_json(&again, &expected);
    assert_eq!(again["created"], reply["created"]);

    let mut info = client.consumer_info("S", "C");
    expected["type"] = json!("io.nats.jetstream.api.v1.consumer_info_response");
    // The reference names the leader only sometimes.
    info.as_object_mut().expect("object").remove("cluster");
    assert_json(&info, &expected);

    let msg = client.fetch("S", "C", 1).remove(0);
    client.ack(&msg);
    assert_json_has(
        &client.consumer_info("S", "C"),
        &json!({
            "delivered": {"consumer_seq": 1, "stream_seq": 1, "last_active": "<time>"},
            "ack_floor": {"consumer_seq": 1, "stream_seq": 1, "last_active": "<time>"},
            "num_ack_pending": 0, "num_pending": 2,
        }),
    );
}

#[test]
fn every_way_of_creating_works() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    let body = |config: Value| json!({"stream_name": "S", "config": config});
    let explicit = json!({"ack_policy": "explicit"});
    // Old form of durables.
    let reply = client.api_ok(
        "CONSUMER.DURABLE.CREATE.S.old",
        &body(json!({"durable_name": "old", "ack_policy": "explicit"})),
    );
    assert_eq!(reply["name"], "old");
    // Old form of ephemerals: the server chooses the name.
    let reply = client.api_ok("CONSUMER.CREATE.S", &body(explicit));
    let name = reply["name"].as_str().expect("name").to_string();
    assert_eq!(name.len(), 8);
    assert_json_has(
        &reply["config"],
        &json!({"inactive_threshold": secs_as_ns(5)}),
    );
    assert_eq!(reply["config"]["durable_name"], Value::Null);
    // Named, with the filter in the subject.
    let reply = client.api_ok(
        "CONSUMER.CREATE.S.named.s.a",
        &body(
            json!({"name": "named", "ack_policy": "explicit", "filter_subject": "s.a",
            "inactive_threshold": secs_as_ns(60)}),
        ),
    );
    assert_json_has(
        &reply["config"],
        &json!({"name": "named", "filter_subject": "s.a", "inactive_threshold": secs_as_ns(60)}),
    );
    // The default acknowledge policy is none; then nothing may be pending.
    let reply = client.api_ok(
        "CONSUMER.CREATE.S.none",
        &body(json!({"durable_name": "none"})),
    );
    assert_eq!(reply["config"]["ack_policy"], "none");
    assert_eq!(reply["config"]["max_ack_pending"], Value::Null);
    let names = client.api_ok("CONSUMER.NAMES.S", &Value::Null);
    assert_eq!(names["total"], 4);
}

#[test]
fn all_settings_are_echoed() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    client.store_many("s.a", 5);
    let config = json!({
        "description": "everything", "deliver_policy": "by_start_sequence", "opt_start_seq": 3,
        "ack_wait": secs_as_ns(2), "max_deliver": 4, "filter_subject": "s.*",
        "replay_policy": "instant", "max_waiting": 9, "max_ack_pending": 11, "headers_only": true,
        "max_batch": 10, "max_expires": secs_as_ns(5), "max_bytes": 4096,
        "inactive_threshold": secs_as_ns(100), "mem_storage": true, "num_replicas": 1,
        "backoff": [secs_as_ns(2), secs_as_ns(3)], "metadata": {"k": "v"},
    });
    let reply = client.create_consumer("S", "C", &config);
    assert_json_has(&reply["config"], &config);
    assert_json_has(&client.consumer_info("S", "C")["config"], &config);
    assert_eq!(reply["num_pending"], 3);
}

#[test]
fn action_decides_between_create_and_update() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    let request = |action: &str, description: &str| {
        json!({"stream_name": "S", "action": action, "config": {"durable_name": "C",
            "ack_policy": "explicit", "description": description}})
    };
    let suffix = "CONSUMER.CREATE.S.C";
    let text = "consumer does not exist";
    client.api_err(suffix, &request("update", "a"), 400, 10149, text);
    client.api_ok(suffix, &request("create", "a"));
    client.api_ok(suffix, &request("create", "a"));
    let text = "consumer already exists";
    client.api_err(suffix, &request("create", "b"), 400, 10148, text);
    let reply = client.api_ok(suffix, &request("update", "b"));
    assert_eq!(reply["config"]["description"], "b");
    let reply = client.api_ok(suffix, &request("", "c"));
    assert_eq!(reply["config"]["description"], "c");
}

#[test]
fn names_list_and_delete() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    let names = client.api_ok("CONSUMER.NAMES.S", &Value::Null);
    assert_json(
        &names,
        &json!({"type": "io.nats.jetstream.api.v1.consumer_names_response", "total": 0,
            "offset": 0, "limit": 1024, "consumers": []}),
    );
    for name in ["C", "A", "B"] {
        client.create_consumer("S", name, &json!({}));
    }
    let names = client.api_ok("CONSUMER.NAMES.S", &Value::Null);
    assert_json_has(&names, &json!({"total": 3, "consumers": ["A", "B", "C"]}));
    let list = client.api_ok("CONSUMER.LIST.S", &json!({"offset": 1}));
    assert_json_has(
        &list,
        &json!({"type": "io.nats.jetstream.api.v1.consumer_list_response", "total": 3, "offset": 1,
            "limit": 256}),
    );
    let found: Vec<&Value> = list["consumers"]
        .as_array()
        .expect("list")
        .iter()
        .map(|info| &info["name"])
        .collect();
    assert_eq!(found, ["B", "C"]);
    assert_eq!(client.stream_state("S")["consumer_count"], 3);

    let text = "expected an empty request payload";
    client.api_err("CONSUMER.DELETE.S.B", &json!({"a": 1}), 400, 10038, text);
    assert_json(
        &client.api_ok("CONSUMER.DELETE.S.B", &Value::Null),
        &json!({"type": "io.nats.jetstream.api.v1.consumer_delete_response", "success": true}),
    );
    for suffix in ["CONSUMER.DELETE.S.B", "CONSUMER.INFO.S.B"] {
        client.api_err(suffix, &Value::Null, 404, 10014, "consumer not found");
    }
    assert_eq!(client.stream_state("S")["consumer_count"], 2);
    // Requests to the deleted consumer find nobody.
    let subject = "$JS.API.CONSUMER.MSG.NEXT.S.B";
    assert_eq!(client.request(subject, b"").status(), "503");
}

#[test]
fn deleting_a_consumer_wakes_its_waiting_pulls() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    client.create_consumer("S", "C", &json!({}));
    let sub = client.pull_start("S", "C", &json!({"expires": secs_as_ns(60)}));
    client.flush();
    client.api_ok("CONSUMER.DELETE.S.C", &Value::Null);
    assert_eq!(client.next(sub).status(), "409 Consumer Deleted");
}

#[test]
fn bad_create_requests_get_the_documented_errors() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    client.create_stream(&json!({"name": "W", "subjects": ["w.>"], "retention": "workqueue"}));
    let body = |config: Value| json!({"stream_name": "S", "config": config});
    let c = |mut config: Value| {
        config["durable_name"] = json!("C");
        if config["ack_policy"].is_null() {
            config["ack_policy"] = json!("explicit");
        }
        body(config)
    };
    let w = |config: Value| {
        let mut request = c(config);
        request["stream_name"] = json!("W");
        request
    };
    let new = "CONSUMER.CREATE.S.C";
    let work = "CONSUMER.CREATE.W.C";
    let cases = [
        (
            "CONSUMER.CREATE.X.C",
            json!({"stream_name": "X", "config": {"durable_name": "C"}}),
            404,
            10059,
            "stream not found",
        ),
        (
            new,
            json!({"stream_name": "X", "config": {"durable_name": "C"}}),
            400,
            10056,
            "stream name in subject does not match request",
        ),
        (
            "CONSUMER.CREATE.S",
            body(json!({"durable_name": "C"})),
            400,
            10020,
            "consumer expected to be ephemeral but a durable name was set in request",
        ),
        (
            "CONSUMER.DURABLE.CREATE.S.C",
            body(json!({})),
            400,
            10018,
            "consumer expected to be durable but a durable name was not set",
        ),
        (
            "CONSUMER.DURABLE.CREATE.S.C",
            body(json!({"durable_name": "D"})),
            400,
            10017,
            "consumer name in subject does not match durable name in request",
        ),
        (
            "CONSUMER.CREATE.S.C.s.a",
            c(json!({"filter_subject": "s.b"})),
            400,
            10131,
            "Consumer create request did not match filtered subject from create subject",
        ),
        (
            "CONSUMER.CREATE.S.C.s.a",
            c(json!({"filter_subjects": ["s.a"]})),
            400,
            10137,
            "consumer with multiple subject filters cannot use subject based API",
        ),
        (
            new,
            c(json!({"filter_subject": "s.a", "filter_subjects": ["s.b"]})),
            400,
            10136,
            "consumer cannot have both FilterSubject and FilterSubjects specified",
        ),
        (
            new,
            c(json!({"filter_subjects": ["s.a", ""]})),
            400,
            10139,
            "consumer filter in FilterSubjects cannot be empty",
        ),
        (
            new,
            c(json!({"filter_subjects": ["s.>", "s.a"]})),
            400,
            10138,
            "consumer subject filters cannot overlap",
        ),
        (
            new,
            c(json!({"ack_wait": -1})),
            400,
            10183,
            "consumer ack wait needs to be positive",
        ),
        (
            new,
            c(json!({"backoff": [1, 2, 3], "max_deliver": 2})),
            400,
            10116,
            "max deliver is required to be > length of backoff values",
        ),
        (
            new,
            c(json!({"max_expires": 500})),
            400,
            10115,
            "consumer max request expires needs to be >= 1ms",
        ),
        (
            new,
            c(json!({"flow_control": true})),
            400,
            10089,
            "consumer flow control requires a push based consumer",
        ),
        (
            new,
            c(json!({"idle_heartbeat": secs_as_ns(1)})),
            400,
            10088,
            "consumer idle heartbeat requires a push based consumer",
        ),
        (
            new,
            c(json!({"rate_limit_bps": 1000})),
            400,
            10086,
            "consumer in pull mode can not have rate limit set",
        ),
        (
            new,
            c(json!({"deliver_policy": "by_start_sequence"})),
            400,
            10094,
            "consumer delivery policy is deliver by start sequence, but optional start sequence is not set",
        ),
        (
            new,
            c(json!({"deliver_policy": "by_start_time"})),
            400,
            10094,
            "consumer delivery policy is deliver by start time, but optional start time is not set",
        ),
        (
            new,
            c(json!({"opt_start_seq": 2})),
            400,
            10094,
            "consumer delivery policy is deliver all, but optional start sequence is also set",
        ),
        (
            new,
            c(json!({"deliver_policy": "last_per_subject"})),
            400,
            10094,
            "consumer delivery policy is deliver last per subject, but optional filter subject is not set",
        ),
        (
            new,
            c(json!({"num_replicas": 2})),
            500,
            10074,
            "replicas > 1 not supported in non-clustered mode",
        ),
        (
            new,
            c(json!({"sample_freq": "zork"})),
            400,
            10095,
            "failed to parse consumer sampling configuration: strconv.Atoi: parsing \"zork\": invalid syntax",
        ),
        (
            new,
            c(json!({"zork": 1})),
            400,
            10025,
            "invalid JSON: json: unknown field \"zork\"",
        ),
        (
            new,
            c(json!({"ack_policy": "zork"})),
            400,
            10025,
            "invalid JSON: can not unmarshal \"\\\"zork\\\"\"",
        ),
        (
            work,
            w(json!({"ack_policy": "none"})),
            400,
            10084,
            "consumer in pull mode requires explicit ack policy on workqueue stream",
        ),
        (
            work,
            w(json!({"ack_policy": "all"})),
            400,
            10098,
            "workqueue stream requires explicit ack",
        ),
        (
            work,
            w(json!({"deliver_policy": "new"})),
            400,
            10101,
            "consumer must be deliver all on workqueue stream",
        ),
    ];
    client.check_api_errors(&cases);
    let text = "stream name in subject does not match request";
    client.api_err(new, &Value::Null, 400, 10056, text);
    let names = client.api_ok("CONSUMER.NAMES.S", &Value::Null);
    assert_eq!(names["consumers"], json!([]));
}

#[test]
fn updates_change_what_may_change() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    client.create_consumer("S", "C", &json!({}));
    let changes = json!({"description": "d", "ack_wait": secs_as_ns(3), "max_deliver": 5,
        "max_ack_pending": 7, "headers_only": true, "max_batch": 3, "metadata": {"k": "v"}});
    let reply = client.create_consumer("S", "C", &changes);
    assert_json_has(&reply["config"], &changes);
    for (field, value) in [
        ("deliver_policy", json!("new")),
        ("ack_policy", json!("all")),
        ("replay_policy", json!("original")),
        ("max_waiting", json!(5)),
        ("mem_storage", json!(true)),
    ] {
        let reply = client.api(
            "CONSUMER.CREATE.S.C",
            &json!({"stream_name": "S", "config":
                {"durable_name": "C", "ack_policy": "explicit", field: value}}),
        );
        // Set after the literal, since the table overrides `ack_policy` too.
        assert_eq!(reply["error"]["err_code"], 10012, "{field}: {reply}");
        assert_eq!(reply["error"]["code"], 500, "{field}: {reply}");
    }
}

#[test]
fn workqueue_consumers_must_not_overlap() {
    // CCFG-041, T-84
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "W", "subjects": ["w.>"], "retention": "workqueue"}));
    client.create_consumer("W", "a", &json!({"filter_subject": "w.a.*"}));
    client.create_consumer("W", "b", &json!({"filter_subject": "w.b"}));
    let overlap = (
        400,
        10100,
        "filtered consumer not unique on workqueue stream",
    );
    client.create_consumer_err("W", "c", &json!({"filter_subject": "w.*.x"}), overlap);
    let several = (
        400,
        10099,
        "multiple non-filtered consumers not allowed on workqueue stream",
    );
    client.create_consumer_err("W", "c", &json!({}), several);
    client.api_ok("CONSUMER.DELETE.W.a", &Value::Null);
    client.create_consumer("W", "c", &json!({"filter_subject": "w.*.x"}));
}

#[test]
fn the_consumer_limit_of_a_stream_is_enforced() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"], "max_consumers": 1}));
    client.create_consumer("S", "A", &json!({}));
    client.create_consumer_err(
        "S",
        "B",
        &json!({}),
        (400, 10026, "maximum consumers limit reached"),
    );
    client.api_ok("CONSUMER.DELETE.S.A", &Value::Null);
    client.create_consumer("S", "B", &json!({}));
}

#[test]
fn idle_ephemerals_disappear_and_durables_stay() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    let body = json!({"stream_name": "S", "config": {"name": "E", "ack_policy": "explicit",
        "inactive_threshold": ms_as_ns(200)}});
    client.api_ok("CONSUMER.CREATE.S.E", &body);
    client.create_consumer("S", "D", &json!({}));
    for _ in 0..400 {
        let names = client.api_ok("CONSUMER.NAMES.S", &Value::Null);
        if names["consumers"] == json!(["D"]) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("the ephemeral consumer is still there");
}

#[test]
fn pause_holds_deliveries_until_resumed() {
    // CAPI-015, T-79
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    client.create_consumer("S", "C", &json!({}));
    client.store("s.a", "x");
    let reply = client.api_ok(
        "CONSUMER.PAUSE.S.C",
        &json!({"pause_until": "2100-01-01T00:00:00Z"}),
    );
    assert_json(
        &reply,
        &json!({"type": "io.nats.jetstream.api.v1.consumer_pause_response", "paused": true,
            "pause_until": "2100-01-01T00:00:00Z", "pause_remaining": "<any>"}),
    );
    assert_json_has(
        &client.consumer_info("S", "C"),
        &json!({"paused": true, "pause_remaining": "<any>", "num_pending": 1}),
    );
    assert!(client.fetch_available("S", "C", 1).is_empty());
    let expired = client.pull("S", "C", &json!({"expires": ms_as_ns(50)}));
    assert_eq!(expired.status(), "408 Request Timeout");
    let reply = client.api_ok("CONSUMER.PAUSE.S.C", &Value::Null);
    assert_eq!(reply["paused"], false);
    assert_eq!(client.fetch("S", "C", 1)[0].stream_seq(), 1);
}
