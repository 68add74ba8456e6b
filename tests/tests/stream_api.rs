//! The stream requests answer with the reference's JSON (spec rows JSAPI-001..013, SAPI-001..014).

use riverlog_tests::{QUIET, TestServer, assert_json, assert_json_has};
use serde_json::{Value, json};

/// Configuration of a new stream with defaults, as every reply shows it.
fn default_config(name: &str, subjects: &[&str]) -> Value {
    json!({
        "name": name, "subjects": subjects, "retention": "limits", "max_consumers": -1,
        "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": -1,
        "max_msg_size": -1, "discard": "old", "storage": "file", "num_replicas": 1,
        "duplicate_window": 120_000_000_000_u64, "compression": "none", "allow_direct": false,
        "mirror_direct": false, "sealed": false, "deny_delete": false, "deny_purge": false,
        "allow_rollup_hdrs": false, "consumer_limits": {}, "allow_msg_ttl": false,
        "metadata": {"_nats.level": "<any>", "_nats.req.level": "0", "_nats.ver": "<any>"},
    })
}

fn never_used_state() -> Value {
    json!({
        "messages": 0, "bytes": 0, "first_seq": 0, "first_ts": "0001-01-01T00:00:00Z",
        "last_seq": 0, "last_ts": "0001-01-01T00:00:00Z", "consumer_count": 0,
    })
}

#[test]
fn create_answers_the_whole_configuration_and_is_idempotent() {
    let server = TestServer::start();
    let mut client = server.connect();
    let expected = json!({
        "type": "io.nats.jetstream.api.v1.stream_create_response",
        "config": default_config("ORDERS", &["orders.>"]),
        "created": "<time>", "state": never_used_state(), "ts": "<time>", "did_create": true,
    });
    let config = json!({"name": "ORDERS", "subjects": ["orders.>"]});
    let first = client.create_stream(&config);
    assert_json(&first, &expected);
    let again = client.create_stream(&config);
    assert_json(&again, &expected);
    assert_eq!(first["created"], again["created"]);

    // Compared after defaulting (T-90): an omitted limit, 0 and -1 are the same configuration.
    let same = json!({"name": "ORDERS", "subjects": ["orders.>"], "max_msgs": 0, "max_age": 0,
        "retention": "limits", "storage": "file", "num_replicas": 0});
    assert_json(&client.create_stream(&same), &expected);
    let different = json!({"name": "ORDERS", "subjects": ["orders.>"], "max_msgs": 5});
    let text = "stream name already in use with a different configuration";
    client.api_err("STREAM.CREATE.ORDERS", &different, 400, 10058, text);

    // No subjects: the stream's name is its subject.
    let reply = client.create_stream(&json!({"name": "plain"}));
    assert_eq!(reply["config"]["subjects"], json!(["plain"]));
}

#[test]
fn memory_streams_and_every_limit_are_echoed() {
    let server = TestServer::start();
    let mut client = server.connect();
    let config = json!({
        "name": "LIMITED", "description": "all limits", "subjects": ["a", "b.*"],
        "storage": "memory", "retention": "workqueue", "max_consumers": 7, "max_msgs": 10,
        "max_bytes": 100_000, "max_age": 3_600_000_000_000_u64, "max_msgs_per_subject": 3,
        "max_msg_size": 512, "discard": "new", "duplicate_window": 60_000_000_000_u64,
        "allow_direct": true, "deny_delete": true, "metadata": {"owner": "tests"},
    });
    let reply = client.create_stream(&config);
    let mut expected = config.clone();
    expected["metadata"]["_nats.req.level"] = json!("0");
    assert_json_has(&reply["config"], &expected);
    let info = client.api_ok("STREAM.INFO.LIMITED", &Value::Null);
    assert_json_has(&info["config"], &expected);
}

#[test]
fn info_shows_configuration_state_and_subjects() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    client.store_all(&["s.a", "s.b", "s.a"]);
    client.create_consumer("S", "C", &json!({}));
    let info = client.api_ok("STREAM.INFO.S", &Value::Null);
    assert_json_has(
        &info,
        &json!({
            "type": "io.nats.jetstream.api.v1.stream_info_response",
            "config": default_config("S", &["s.>"]), "created": "<time>", "ts": "<time>",
            "state": {"messages": 3, "first_seq": 1, "last_seq": 3, "first_ts": "<time>",
                "last_ts": "<time>", "num_subjects": 2, "consumer_count": 1,
                // Each message is accounted with 30 bytes, its subject and its payload (T-18).
                "bytes": 3 * (30 + 3 + 1)},
        }),
    );
    client.delete_msg("S", 2);
    let body = json!({"subjects_filter": ">", "deleted_details": true});
    let info = client.api_ok("STREAM.INFO.S", &body);
    assert_json_has(
        &info["state"],
        &json!({"messages": 2, "num_deleted": 1, "deleted": [2], "subjects": {"s.a": 2}}),
    );
    let body = json!({"subjects_filter": "s.b"});
    let info = client.api_ok("STREAM.INFO.S", &body);
    assert_eq!(info["state"]["subjects"], Value::Null);
}

#[test]
fn update_changes_what_may_change_and_refuses_the_rest() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "U", "subjects": ["u"], "max_msgs": 10}));
    client.store("u", "kept");
    let reply = client.update_stream(
        &json!({"name": "U", "subjects": ["u", "v.*"], "max_msgs": 20, "description": "d"}),
    );
    assert_json_has(
        &reply,
        &json!({
            "type": "io.nats.jetstream.api.v1.stream_update_response",
            "config": {"name": "U", "subjects": ["u", "v.*"], "max_msgs": 20, "description": "d"},
            "state": {"messages": 1, "last_seq": 1},
        }),
    );
    assert_eq!(client.store("v.1", "new subject"), 2);

    let refused: [(Value, u64, u64, &str); 3] = [
        (
            json!({"name": "U", "subjects": ["u"], "storage": "memory"}),
            500,
            10052,
            "stream configuration update can not change storage type",
        ),
        (
            json!({"name": "U", "subjects": ["u"], "retention": "workqueue"}),
            500,
            10052,
            "stream configuration update can not change retention policy to/from workqueue",
        ),
        (
            json!({"name": "V", "subjects": ["u"]}),
            400,
            10056,
            "stream name in subject does not match request",
        ),
    ];
    for (body, code, err_code, text) in refused {
        client.api_err("STREAM.UPDATE.U", &body, code, err_code, text);
    }
    client.api_err(
        "STREAM.UPDATE.NONE",
        &json!({"name": "NONE"}),
        404,
        10059,
        "stream not found",
    );
}

#[test]
fn a_subject_removed_by_update_gets_no_responders() {
    // T-40: old messages stay readable.
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "R", "subjects": ["keep", "drop"]}));
    client.store_all(&["keep", "drop"]);
    client.update_stream(&json!({"name": "R", "subjects": ["keep"]}));
    assert_eq!(client.request("drop", b"x").status(), "503");
    assert_eq!(client.store("keep", "x"), 3);
    assert_eq!(client.stored_seqs("R"), [1, 2, 3]);
}

#[test]
fn names_and_list_are_sorted_filtered_and_paged() {
    let server = TestServer::start();
    let mut client = server.connect();
    let names = client.api_ok("STREAM.NAMES", &Value::Null);
    assert_json(
        &names,
        &json!({"type": "io.nats.jetstream.api.v1.stream_names_response",
            "total": 0, "offset": 0, "limit": 1024, "streams": null}),
    );
    for name in ["C", "A", "B"] {
        client.create_stream(&json!({"name": name, "subjects": [format!("{name}.>")]}));
    }
    let names = client.api_ok("STREAM.NAMES", &Value::Null);
    assert_json(
        &names,
        &json!({"type": "io.nats.jetstream.api.v1.stream_names_response",
            "total": 3, "offset": 0, "limit": 1024, "streams": ["A", "B", "C"]}),
    );
    // The subject filter keeps the streams whose subjects collide with it.
    for (filter, expected) in [("B.x", json!(["B"])), ("*.y", json!(["A", "B", "C"]))] {
        let names = client.api_ok("STREAM.NAMES", &json!({"subject": filter}));
        assert_eq!(names["streams"], expected, "{filter}");
    }
    let names = client.api_ok("STREAM.NAMES", &json!({"subject": "zz"}));
    assert_eq!(names["streams"], Value::Null);
    let names = client.api_ok("STREAM.NAMES", &json!({"offset": 2}));
    assert_json_has(&names, &json!({"total": 3, "offset": 2, "streams": ["C"]}));

    let list = client.api_ok("STREAM.LIST", &json!({"offset": 1}));
    assert_json_has(
        &list,
        &json!({"type": "io.nats.jetstream.api.v1.stream_list_response", "total": 3, "offset": 1,
            "limit": 256}),
    );
    let found: Vec<&Value> = list["streams"]
        .as_array()
        .expect("streams")
        .iter()
        .map(|s| &s["config"]["name"])
        .collect();
    assert_eq!(found, ["B", "C"]);
}

#[test]
fn delete_removes_the_stream_and_its_subjects() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "D", "subjects": ["d"]}));
    client.store("d", "x");
    client.create_consumer("D", "C", &json!({}));
    let text = "expected an empty request payload";
    client.api_err("STREAM.DELETE.D", &json!({"a": 1}), 400, 10038, text);
    let reply = client.api_ok("STREAM.DELETE.D", &json!({}));
    assert_json(
        &reply,
        &json!({"type": "io.nats.jetstream.api.v1.stream_delete_response", "success": true}),
    );
    let text = "stream not found";
    for suffix in [
        "STREAM.DELETE.D",
        "STREAM.INFO.D",
        "CONSUMER.INFO.D.C",
        "STREAM.PURGE.D",
    ] {
        client.api_err(suffix, &Value::Null, 404, 10059, text);
    }
    assert_eq!(client.request("d", b"x").status(), "503");
    // The name is free again and starts from nothing.
    client.create_stream(&json!({"name": "D", "subjects": ["d"]}));
    assert_eq!(client.store("d", "y"), 1);
}

#[test]
fn bad_create_requests_get_the_documented_errors() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "TAKEN", "subjects": ["taken.>"]}));
    let mismatch = "stream name in subject does not match request";
    let cases: Vec<(&str, Value, u64, u64, &str)> = vec![
        (
            "STREAM.CREATE.X",
            json!({"name": "Y"}),
            400,
            10056,
            mismatch,
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "zork": 1}),
            400,
            10025,
            "invalid JSON: json: unknown field \"zork\"",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "subjects": ["taken.1"]}),
            400,
            10065,
            "subjects overlap with an existing stream",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "subjects": ["x", "x"]}),
            500,
            10052,
            "subject \"x\" overlaps with \"x\"",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "subjects": ["x.*", "x.1"]}),
            500,
            10052,
            "subject \"x.*\" overlaps with \"x.1\"",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "subjects": ["x..y"]}),
            500,
            10052,
            "invalid subject",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "num_replicas": 3}),
            500,
            10074,
            "replicas > 1 not supported in non-clustered mode",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "num_replicas": 6}),
            500,
            10052,
            "maximum replicas is 5",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "num_replicas": -1}),
            400,
            10133,
            "replicas count cannot be negative",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "max_age": 5}),
            500,
            10052,
            "max age needs to be >= 100ms",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "max_age": -5}),
            500,
            10052,
            "max age can not be negative",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "max_age": 1_000_000_000, "duplicate_window": 2_000_000_000}),
            500,
            10052,
            "duplicates window can not be larger then max age",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "duplicate_window": -1}),
            500,
            10052,
            "duplicates window can not be negative",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "sealed": true}),
            500,
            10052,
            "stream configuration for create can not be sealed",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "deny_purge": true, "allow_rollup_hdrs": true}),
            500,
            10052,
            "roll-ups require the purge permission",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "discard_new_per_subject": true}),
            500,
            10052,
            "discard new per subject requires discard new policy to be set",
        ),
        (
            "STREAM.CREATE.X",
            json!({"name": "X", "retention": "zork"}),
            400,
            10025,
            "invalid JSON: can not unmarshal \"\\\"zork\\\"\"",
        ),
    ];
    client.check_api_errors(&cases);
    client.api_err("STREAM.CREATE.X", &Value::Null, 400, 10056, mismatch);
    let answer = client
        .request("$JS.API.STREAM.CREATE.X", b"{not json")
        .json();
    assert_json_has(
        &answer,
        &json!({"type": "io.nats.jetstream.api.v1.stream_create_response",
        "error": {"code": 400, "err_code": 10025, "description": "<any>"}}),
    );
    // Nothing was created by a refused request.
    let names = client.api_ok("STREAM.NAMES", &Value::Null);
    assert_eq!(names["streams"], json!(["TAKEN"]));
}

#[test]
fn account_info_counts_streams_and_consumers() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "A", "subjects": ["a"]}));
    client.create_stream(&json!({"name": "M", "subjects": ["m"], "storage": "memory"}));
    client.create_consumer("A", "C", &json!({}));
    client.store("a", "0123456789");
    client.store("m", "0123456789");
    let info = client.api_ok("INFO", &Value::Null);
    assert_json_has(
        &info,
        &json!({
            "type": "io.nats.jetstream.api.v1.account_info_response", "streams": 2, "consumers": 1,
            "storage": 30 + 1 + 10, "memory": 16 + 1 + 10,
            "limits": {"max_memory": -1, "max_storage": -1, "max_streams": -1,
                "max_consumers": -1, "max_ack_pending": -1, "memory_max_stream_bytes": -1,
                "storage_max_stream_bytes": -1, "max_bytes_required": false},
            "api": {"level": "<any>", "total": "<any>", "errors": "<any>"},
        }),
    );
}

#[test]
fn requests_nobody_knows_are_ignored_and_unknown_streams_are_not_found() {
    let server = TestServer::start();
    let mut client = server.connect();
    // JSAPI-007: neither an answer nor a 503.
    assert_eq!(
        client.try_request("$JS.API.STREAM.TEMPLATE.NAMES", &[], b"", QUIET),
        None
    );
    assert_eq!(
        client.try_request("$JS.API.NO.SUCH.THING", &[], b"", QUIET),
        None
    );
    for suffix in [
        "STREAM.INFO.X",
        "CONSUMER.NAMES.X",
        "CONSUMER.INFO.X.C",
        "STREAM.DELETE.X",
    ] {
        client.api_err(suffix, &Value::Null, 404, 10059, "stream not found");
    }
}

#[test]
fn without_jetstream_the_api_has_no_responders() {
    let server = TestServer::builder().without_jetstream().start();
    let mut client = server.connect();
    assert_eq!(client.request("$JS.API.INFO", b"").status(), "503");
    assert_eq!(client.info["jetstream"], Value::Null);
}
