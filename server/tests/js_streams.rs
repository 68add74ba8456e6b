//! Streams: create, update, info, list, delete, purge, message get and delete.

mod js;

use js::TestServer;
use serde_json::{Value, json};

#[test]
fn a_new_stream_shows_its_whole_configuration() {
    // SAPI-001, SCFG-042
    let server = TestServer::start();
    let mut client = server.client();
    let mut reply = client.create_stream(json!({"name": "S", "subjects": ["s.>"]}));
    for field in ["created", "ts"] {
        assert!(reply[field].as_str().unwrap().ends_with('Z'));
        reply.as_object_mut().unwrap().remove(field);
    }
    assert_eq!(
        reply,
        json!({
            "type": "io.nats.jetstream.api.v1.stream_create_response",
            "config": {
                "name": "S", "subjects": ["s.>"], "retention": "limits", "max_consumers": -1,
                "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": -1,
                "max_msg_size": -1, "discard": "old", "storage": "file", "num_replicas": 1,
                "duplicate_window": 120_000_000_000_u64, "compression": "none",
                "allow_direct": false, "mirror_direct": false, "sealed": false,
                "deny_delete": false, "deny_purge": false, "allow_rollup_hdrs": false,
                "consumer_limits": {}, "allow_msg_ttl": false,
                "metadata": {"_nats.level": "5", "_nats.req.level": "0", "_nats.ver": "2.15.1"},
            },
            "state": {
                "messages": 0, "bytes": 0, "first_seq": 0, "first_ts": "0001-01-01T00:00:00Z",
                "last_seq": 0, "last_ts": "0001-01-01T00:00:00Z", "consumer_count": 0,
            },
            "did_create": true,
        })
    );
}

#[test]
fn creating_twice_is_fine_when_the_result_is_the_same() {
    // SAPI-002, T-90, LVL-005
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S"}));
    let again =
        json!({"name": "S", "subjects": ["S"], "max_msgs": 0, "metadata": {"_nats.ver": "x"}});
    assert_eq!(client.create_stream(again)["did_create"], true);
    let other = client.refused("STREAM.CREATE.S", json!({"name": "S", "max_msgs": 5}));
    assert_eq!(other.0, 10058);
}

#[test]
fn requests_that_are_refused() {
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(
        json!({"name": "S", "subjects": ["s.>"], "deny_delete": true, "deny_purge": true}),
    );
    for (subject, body, err_code) in [
        ("STREAM.CREATE.T", json!({"name": "U"}), 10056),
        ("STREAM.CREATE.T", json!({"name": "T", "foo": 1}), 10025),
        (
            "STREAM.CREATE.T",
            json!({"name": "T", "retention": "x"}),
            10025,
        ),
        (
            "STREAM.CREATE.T",
            json!({"name": "T", "subjects": ["s.a"]}),
            10065,
        ),
        ("STREAM.CREATE.a/b", json!({"name": "a/b"}), 10128),
        (
            "STREAM.CREATE.T",
            json!({"name": "T", "mirror": {"name": "S"}}),
            10052,
        ),
        ("STREAM.UPDATE.T", json!({"name": "T"}), 10059),
        (
            "STREAM.UPDATE.S",
            json!({"name": "S", "storage": "memory"}),
            10052,
        ),
        ("STREAM.INFO.T", Value::Null, 10059),
        ("STREAM.DELETE.T", Value::Null, 10059),
        ("STREAM.DELETE.S", json!({"a": 1}), 10038),
        ("STREAM.PURGE.T", Value::Null, 10059),
        ("STREAM.PURGE.S", Value::Null, 10110),
        ("STREAM.MSG.GET.S", Value::Null, 10003),
        ("STREAM.MSG.GET.S", json!({"seq": 1}), 10037),
        (
            "STREAM.MSG.GET.S",
            json!({"seq": 1, "last_by_subj": "s"}),
            10003,
        ),
        ("STREAM.MSG.DELETE.S", json!({"seq": 1}), 10057),
        ("STREAM.MSG.DELETE.T", json!({"seq": 1}), 10059),
        ("STREAM.LEADER.STEPDOWN.S", Value::Null, 10010),
        ("STREAM.SNAPSHOT.S", json!({"deliver_subject": "x"}), 10052),
    ] {
        assert_eq!(
            client.refused(subject, body.clone()).0,
            err_code,
            "{subject} {body}"
        );
    }
}

#[test]
fn requests_to_nothing() {
    // JSAPI-007: unknown API subjects are swallowed; assets that do not exist have no responders.
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S"}));
    for subject in [
        "$JS.API.FOO",
        "$JS.API.STREAM.FOO.S",
        "$JS.API.STREAM.INFO.S.x",
    ] {
        let inbox = client.inbox();
        client.publish(subject, &inbox, &[], "");
        assert_eq!(client.settle(), [], "{subject}");
    }
    for subject in [
        "$JS.API.CONSUMER.MSG.NEXT.S.none",
        "$JS.API.DIRECT.GET.S",
        "$JS.API.DIRECT.GET.none",
        "$JS.ACK.S.none.1.1.1.1.1",
    ] {
        let answer = client.request(subject, "");
        assert_eq!(
            answer.headers,
            format!("NATS/1.0 503\r\nNats-Subject: {subject}\r\n\r\n")
        );
    }
}

#[test]
fn a_newer_api_level_is_refused() {
    // JSAPI-015
    let server = TestServer::start();
    let mut client = server.client();
    let answer = client.request_with("$JS.API.INFO", &[("Nats-Required-Api-Level", "6")], "");
    let answer: Value = serde_json::from_str(&answer.payload).unwrap();
    assert_eq!(answer["error"]["err_code"], 10185);
    let answer = client.request_with("$JS.API.INFO", &[("Nats-Required-Api-Level", "5")], "");
    let answer: Value = serde_json::from_str(&answer.payload).unwrap();
    assert_eq!(answer["api"]["level"], 5);
}

#[test]
fn unknown_fields_are_ignored_when_not_strict() {
    // JSAPI-009
    let server = TestServer::start_with(|options| options.strict = false);
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "foo": 1}));
}

#[test]
fn names_and_lists_are_paged_and_filtered() {
    // SAPI-012, SAPI-013, JSAPI-012
    let server = TestServer::start();
    let mut client = server.client();
    let empty = client.ok("STREAM.NAMES", Value::Null);
    assert_eq!(
        (&empty["total"], &empty["streams"]),
        (&json!(0), &Value::Null)
    );
    for name in ["B", "A", "C"] {
        client.create_stream(json!({"name": name, "subjects": [format!("{name}.*")]}));
    }
    let names = client.ok("STREAM.NAMES", Value::Null);
    assert_eq!(names["streams"], json!(["A", "B", "C"]));
    assert_eq!(
        (&names["total"], &names["limit"]),
        (&json!(3), &json!(1024))
    );
    let names = client.ok("STREAM.NAMES", json!({"offset": 2}));
    assert_eq!(names["streams"], json!(["C"]));
    let names = client.ok("STREAM.NAMES", json!({"subject": "*.x"}));
    assert_eq!(names["total"], 3);
    let list = client.ok("STREAM.LIST", json!({"subject": "B.x"}));
    assert_eq!(list["streams"][0]["config"]["name"], "B");
    assert_eq!((&list["total"], &list["limit"]), (&json!(1), &json!(256)));
    let list = client.ok("STREAM.LIST", json!({"subject": "none"}));
    assert_eq!(list["streams"], json!([]));
}

#[test]
fn an_update_takes_effect() {
    // SCFG-049, SCFG-051, T-12, T-40
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["a", "b"]}));
    for i in 0..5 {
        client.put("a", &i.to_string());
    }
    let update = json!({"name": "S", "subjects": ["b", "c"], "max_msgs": 2});
    let reply = client.ok("STREAM.UPDATE.S", update);
    assert_eq!(reply["config"]["subjects"], json!(["b", "c"]));
    assert!(reply.get("did_create").is_none());
    let state = client.state("S");
    assert_eq!(
        (&state["messages"], &state["first_seq"]),
        (&json!(2), &json!(4))
    );
    assert_eq!(client.put("c", "new"), 6);
    assert!(
        client
            .request("a", "gone")
            .headers
            .starts_with("NATS/1.0 503")
    );
}

#[test]
fn a_sealed_stream_only_reads() {
    // SCFG-029, T-17, PUB-025, SAPI-019
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S"}));
    client.put("S", "x");
    let reply = client.ok("STREAM.UPDATE.S", json!({"name": "S", "sealed": true}));
    assert_eq!(reply["config"]["discard"], "new");
    assert_eq!(client.put_any("S", &[], "y")["error"]["err_code"], 10109);
    assert_eq!(client.refused("STREAM.PURGE.S", Value::Null).0, 10109);
    assert_eq!(
        client.refused("STREAM.MSG.DELETE.S", json!({"seq": 1})).0,
        10109
    );
    assert_eq!(
        client.ok("STREAM.MSG.GET.S", json!({"seq": 1}))["message"]["data"],
        "eA=="
    );
}

#[test]
fn messages_are_found_by_sequence_subject_and_time() {
    // SAPI-021..023
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["s.*"]}));
    client.put("s.a", "1");
    client.put_with("s.b", &[("X", "y")], "2");
    client.put("s.a", "3");
    let mut get = |body: Value| client.ok("STREAM.MSG.GET.S", body)["message"].clone();
    let message = get(json!({"seq": 2}));
    assert_eq!(
        (&message["subject"], &message["seq"]),
        (&json!("s.b"), &json!(2))
    );
    assert_eq!(message["data"], "Mg==");
    assert_eq!(message["hdrs"], "TkFUUy8xLjANClg6IHkNCg0K");
    assert!(get(json!({"seq": 2, "no_hdr": true})).get("hdrs").is_none());
    assert_eq!(get(json!({"last_by_subj": "s.a"}))["seq"], 3);
    assert_eq!(get(json!({"last_by_subj": "s.*"}))["seq"], 3);
    assert_eq!(get(json!({"next_by_subj": "s.a", "seq": 2}))["seq"], 3);
    assert_eq!(get(json!({"next_by_subj": "s.a"}))["seq"], 1);
    assert_eq!(get(json!({"start_time": "2000-01-01T00:00:00Z"}))["seq"], 1);
}

#[test]
fn a_deleted_message_leaves_a_gap() {
    // SAPI-020, T-08
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S"}));
    for i in 1..=4 {
        client.put("S", &i.to_string());
    }
    for seq in [1, 3, 4] {
        client.ok("STREAM.MSG.DELETE.S", json!({"seq": seq}));
    }
    assert_eq!(
        client.refused("STREAM.MSG.DELETE.S", json!({"seq": 3})),
        (10043, "sequence 3 not found".to_owned())
    );
    let info = client.ok("STREAM.INFO.S", json!({"deleted_details": true}));
    let state = &info["state"];
    assert_eq!(
        (&state["messages"], &state["first_seq"], &state["last_seq"]),
        (&json!(1), &json!(2), &json!(4))
    );
    assert_eq!(state["deleted"], json!([3, 4]));
    assert_eq!(client.put("S", "5"), 5);
}

#[test]
fn purges_by_filter_sequence_and_count() {
    // SAPI-015..018, T-05..T-07
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["s.*"]}));
    let fill = |client: &mut js::Client| {
        for i in 0..6 {
            client.put(["s.a", "s.b"][i % 2], "x");
        }
    };
    fill(&mut client);
    let mut purge = |body: Value| client.ok("STREAM.PURGE.S", body)["purged"].clone();
    assert_eq!(purge(json!({"seq": 1})), 0);
    assert_eq!(purge(json!({"filter": "s.a", "keep": 1})), 2);
    assert_eq!(purge(json!({"filter": "s.*", "keep": 9})), 0);
    assert_eq!(purge(json!({"seq": 5})), 2);
    assert_eq!(purge(json!({"keep": 1})), 1);
    assert_eq!(purge(Value::Null), 1);
    assert_eq!(
        client
            .refused("STREAM.PURGE.S", json!({"seq": 1, "keep": 1}))
            .0,
        10003
    );
    let state = client.state("S");
    assert_eq!(
        (&state["first_seq"], &state["last_seq"]),
        (&json!(7), &json!(6))
    );
    assert_eq!(state["first_ts"], "0001-01-01T00:00:00Z");
    assert_eq!(
        client.ok("STREAM.PURGE.S", json!({"seq": 1000}))["purged"],
        0
    );
    assert_eq!(client.put("s.a", "x"), 1000);
}

#[test]
fn subject_details_are_paged() {
    // SAPI-009, T-106
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["s.*"]}));
    for subject in ["s.b", "s.a", "s.b"] {
        client.put(subject, "x");
    }
    let info = client.ok("STREAM.INFO.S", json!({"subjects_filter": ">"}));
    assert_eq!(info["state"]["subjects"], json!({"s.a": 1, "s.b": 2}));
    assert_eq!(
        (&info["total"], &info["limit"]),
        (&json!(2), &json!(100_000))
    );
    let info = client.ok(
        "STREAM.INFO.S",
        json!({"subjects_filter": ">", "offset": 1}),
    );
    assert_eq!(info["state"]["subjects"], json!({"s.b": 2}));
    let info = client.ok("STREAM.INFO.S", json!({"subjects_filter": "none"}));
    assert_eq!(
        (&info["total"], &info["state"].get("subjects")),
        (&json!(0), &None)
    );
}

#[test]
fn deleting_a_stream_frees_its_subjects_and_consumers() {
    // SAPI-014
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["s"]}));
    client.create_consumer("S", json!({"durable_name": "c", "ack_policy": "explicit"}));
    let waiting = client.pull("S", "c", "1");
    client.settle();
    client.ok("STREAM.DELETE.S", Value::Null);
    let status = client.next();
    assert_eq!(
        (status.subject, status.headers.as_str()),
        (waiting, "NATS/1.0 409 Consumer Deleted\r\n\r\n")
    );
    assert!(client.request("s", "x").headers.starts_with("NATS/1.0 503"));
    assert_eq!(client.refused("CONSUMER.INFO.S.c", Value::Null).0, 10059);
    client.create_stream(json!({"name": "T", "subjects": ["s"]}));
    assert_eq!(client.put("s", "x"), 1);
}

#[test]
fn account_info_counts() {
    // JSAPI-013
    let server = TestServer::start_with(|options| options.domain = Some("hub".to_owned()));
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "max_bytes": 1000}));
    client.create_stream(json!({"name": "M", "storage": "memory"}));
    client.put("S", "hello");
    client.refused("STREAM.INFO.none", Value::Null);
    let info = client.ok("INFO", Value::Null);
    assert_eq!(
        (&info["streams"], &info["consumers"]),
        (&json!(2), &json!(0))
    );
    // 30 + subject + payload (LIM-013)
    assert_eq!((&info["storage"], &info["memory"]), (&json!(36), &json!(0)));
    assert_eq!(info["reserved_storage"], 1000);
    assert_eq!(info["domain"], "hub");
    assert_eq!(info["api"], json!({"level": 5, "total": 3, "errors": 1}));
    let answer = client.request("$JS.hub.API.STREAM.NAMES", "");
    assert!(answer.payload.contains(r#""streams":["M","S"]"#));
}

#[test]
fn storage_limits_of_the_server() {
    // SAPI-004, SAPI-005, PUB-023
    let server = TestServer::start_with(|options| {
        options.max_file = Some(1000);
        options.max_memory = Some(100);
        options.limits.max_streams = Some(2);
    });
    let mut client = server.client();
    let large = json!({"name": "S", "max_bytes": 1001});
    assert_eq!(client.refused("STREAM.CREATE.S", large).0, 10047);
    let large = json!({"name": "S", "max_bytes": 101, "storage": "memory"});
    assert_eq!(client.refused("STREAM.CREATE.S", large).0, 10028);
    client.create_stream(json!({"name": "S"}));
    client.create_stream(json!({"name": "M", "storage": "memory"}));
    assert_eq!(
        client.refused("STREAM.CREATE.T", json!({"name": "T"})).0,
        10027
    );
    client.put("M", &"x".repeat(200));
    client.wait_for("the limit", |client| {
        client.put_any("M", &[], "x")["error"]["err_code"] == 10023
    });
    client.put("S", "other kinds of storage are not concerned");
}

#[test]
fn everything_is_there_after_a_restart() {
    let server = TestServer::start();
    let mut client = server.client();
    let config =
        json!({"name": "S", "subjects": ["s.*"], "first_seq": 1000, "metadata": {"a": "b"}});
    let created = client.create_stream(config);
    assert_eq!(client.state("S")["first_seq"], 1000);
    assert_eq!(client.put("s.a", "x"), 1000);
    client.create_stream(json!({"name": "M", "storage": "memory"}));
    drop(client);
    let server = server.restart();
    let mut client = server.client();
    let info = client.ok("STREAM.INFO.S", Value::Null);
    assert_eq!(
        (&info["config"], &info["created"]),
        (&created["config"], &created["created"])
    );
    assert_eq!(info["state"]["messages"], 1);
    assert_eq!(client.put("s.b", "y"), 1001);
    assert_eq!(
        client.ok("STREAM.MSG.GET.S", json!({"seq": 1000}))["message"]["data"],
        "eA=="
    );
}

#[test]
fn advisories_are_published_when_somebody_listens() {
    // ADV-001..003, JSAPI-019
    let server = TestServer::start();
    let mut client = server.client();
    client.send("SUB $JS.EVENT.ADVISORY.> 2\r\n");
    client.settle();
    client.create_stream(json!({"name": "S"}));
    client.create_consumer("S", json!({"durable_name": "c"}));
    client.ok("CONSUMER.DELETE.S.c", Value::Null);
    client.ok("STREAM.DELETE.S", Value::Null);
    let events = client.settle();
    let subjects: Vec<&str> = events
        .iter()
        .map(|event| event.subject.strip_prefix("$JS.EVENT.ADVISORY.").unwrap())
        .collect();
    assert_eq!(
        subjects,
        [
            "STREAM.CREATED.S",
            "API",
            "CONSUMER.CREATED.S.c",
            "API",
            "CONSUMER.DELETED.S.c",
            "API",
            "STREAM.DELETED.S",
            "API",
        ]
    );
    let event: Value = serde_json::from_str(&events[0].payload).unwrap();
    assert_eq!(event["type"], "io.nats.jetstream.advisory.v1.stream_action");
    assert_eq!(
        (&event["stream"], &event["action"]),
        (&json!("S"), &json!("create"))
    );
    let event: Value = serde_json::from_str(&events[1].payload).unwrap();
    assert_eq!(event["subject"], "$JS.API.STREAM.CREATE.S");
    assert_eq!(event["client"]["acc"], "$G");
}
