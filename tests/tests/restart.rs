//! A restart keeps streams, messages and consumers, after a clean stop and after a kill alike
//! (spec rows DLV-021, DLV-022).

use riverlog_tests::js::Positions;
use riverlog_tests::{Client, TestServer, assert_json, is_peer, ms_as_ns, secs_as_ns};
use serde_json::{Value, json};

/// Prepares with one server life, checks with the next; once with a clean stop, once with a kill.
fn over_a_restart(prepare: impl Fn(&mut Client), check: impl Fn(&mut Client)) {
    let restarts: &[fn(&mut TestServer)] =
        &[TestServer::stop_and_restart, TestServer::kill_and_restart];
    // A peer may forget consumer acks when it is killed.
    let restarts = if is_peer() { &restarts[..1] } else { restarts };
    for restart in restarts {
        let mut server = TestServer::start();
        prepare(&mut server.connect());
        restart(&mut server);
        check(&mut server.connect());
    }
}

fn without_ts(mut info: Value) -> Value {
    let fields = info.as_object_mut().expect("info is an object");
    fields.remove("ts");
    fields.remove("cluster");
    info
}

#[test]
fn stream_configurations_and_states_are_the_same() {
    let restarts: [fn(&mut TestServer); 2] =
        [TestServer::stop_and_restart, TestServer::kill_and_restart];
    for restart in restarts {
        let mut server = TestServer::start();
        let mut client = server.connect();
        client.create_stream(&json!({"name": "PLAIN", "subjects": ["p.>"]}));
        client.create_stream(&json!({
            "name": "FULL", "description": "all settings", "subjects": ["f.*"], "max_msgs": 100,
            "max_bytes": 100_000, "max_age": secs_as_ns(3600), "max_msgs_per_subject": 10,
            "max_msg_size": 1000, "discard": "new", "retention": "workqueue", "max_consumers": 4,
            "duplicate_window": secs_as_ns(30), "allow_direct": true, "deny_delete": true,
            "metadata": {"owner": "tests"},
        }));
        client.store_all(&["p.a", "p.b", "p.c", "p.a", "f.a", "f.b"]);
        client.delete_msg("PLAIN", 2);
        client.update_stream(&json!({"name": "PLAIN", "subjects": ["p.>", "q"], "max_msgs": 50}));
        let infos = |client: &mut Client| {
            ["PLAIN", "FULL"]
                .map(|name| without_ts(client.api_ok(&format!("STREAM.INFO.{name}"), &Value::Null)))
        };
        let before = infos(&mut client);
        restart(&mut server);
        let mut client = server.connect();
        for (after, before) in infos(&mut client).iter().zip(&before) {
            assert_json(after, before);
        }
        assert_eq!(client.store("q", "x"), 5);
    }
}

#[test]
fn messages_are_the_same_byte_for_byte() {
    let big = "x".repeat(100_000);
    over_a_restart(
        |client| {
            client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
            client.store("s.a", "plain");
            client.store_with(
                "s.b",
                &[("Key", "Value"), ("Nats-Msg-Id", "id")],
                "with headers",
            );
            client.store("s.c", "");
            client.store("s.d", &big);
            client.store("s.e", "deleted");
            client.delete_msg("S", 5);
        },
        |client| {
            client.create_consumer("S", "C", &json!({}));
            let msgs = client.fetch_available("S", "C", 10);
            let found: Vec<(&str, &str, &str)> = msgs
                .iter()
                .map(|msg| (msg.subject.as_str(), msg.header_text(), msg.text()))
                .collect();
            let headers = "NATS/1.0\r\nKey: Value\r\nNats-Msg-Id: id\r\n\r\n";
            assert_eq!(
                found,
                [
                    ("s.a", "", "plain"),
                    ("s.b", headers, "with headers"),
                    ("s.c", "", ""),
                    ("s.d", "", &big),
                ]
            );
            assert_eq!(client.store("s.a", "x"), 6);
        },
    );
}

#[test]
fn consumers_go_on_where_they_were() {
    over_a_restart(
        |client| {
            client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
            client.store_many("s.a", 10);
            client.create_consumer("S", "C", &json!({"ack_wait": secs_as_ns(600)}));
            let msgs = client.fetch("S", "C", 5);
            client.ack_all_of(&[msgs[0].clone(), msgs[1].clone(), msgs[3].clone()]);
        },
        |client| {
            let expected = Positions {
                delivered: (5, 5),
                floor: (2, 2),
                ack_pending: 2,
                pending: 5,
            };
            assert_eq!(client.consumer_positions("S", "C"), expected);
            let msgs = client.fetch_available("S", "C", 10);
            let seqs: Vec<u64> = msgs.iter().map(|msg| msg.stream_seq()).collect();
            assert_eq!(seqs, [6, 7, 8, 9, 10]);
            assert_eq!(msgs[0].delivery().consumer_seq, 6);
        },
    );
}

#[test]
fn unacknowledged_messages_are_redelivered_after_the_restart() {
    over_a_restart(
        |client| {
            client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
            client.store_many("s.a", 3);
            client.create_consumer("S", "C", &json!({"ack_wait": ms_as_ns(1500)}));
            let msgs = client.fetch("S", "C", 3);
            client.ack(&msgs[1]);
        },
        |client| {
            let mut again = client.fetch("S", "C", 2);
            again.sort_by_key(|msg| msg.stream_seq());
            let found: Vec<(u64, u64)> = again
                .iter()
                .map(|msg| (msg.stream_seq(), msg.delivery().delivered))
                .collect();
            assert_eq!(found, [(1, 2), (3, 2)]);
        },
    );
}

#[test]
fn deleted_streams_and_consumers_stay_deleted() {
    over_a_restart(
        |client| {
            for name in ["KEEP", "DROP"] {
                client.create_stream(&json!({"name": name}));
                client.store(name, "x");
                client.create_consumer(name, "C", &json!({}));
                client.create_consumer(name, "D", &json!({}));
            }
            client.api_ok("STREAM.DELETE.DROP", &Value::Null);
            client.api_ok("CONSUMER.DELETE.KEEP.D", &Value::Null);
        },
        |client| {
            let names = client.api_ok("STREAM.NAMES", &Value::Null);
            assert_eq!(names["streams"], json!(["KEEP"]));
            let names = client.api_ok("CONSUMER.NAMES.KEEP", &Value::Null);
            assert_eq!(names["consumers"], json!(["C"]));
        },
    );
}

#[test]
fn purges_and_work_queue_acks_stay_done() {
    over_a_restart(
        |client| {
            client.create_stream(&json!({"name": "P", "subjects": ["p.>"]}));
            client.store_all(&["p.a", "p.b", "p.a", "p.b"]);
            client.purge("P", &json!({"filter": "p.a"}));
            client
                .create_stream(&json!({"name": "W", "subjects": ["w"], "retention": "workqueue"}));
            client.store_many("w", 3);
            client.create_consumer("W", "C", &json!({}));
            let msgs = client.fetch("W", "C", 2);
            client.ack(&msgs[1]);
            client.create_stream(&json!({"name": "E", "subjects": ["e"]}));
            client.store_many("e", 3);
            client.purge("E", &Value::Null);
        },
        |client| {
            assert_eq!(client.stored_seqs("P"), [2, 4]);
            assert_eq!(client.stored_seqs("W"), [1, 3]);
            assert_eq!(client.stream_span("E"), (4, 3, 0));
            assert_eq!(client.store("e", "x"), 4);
        },
    );
}

#[test]
fn memory_streams_start_empty() {
    let mut server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "F", "subjects": ["f"]}));
    client.create_stream(&json!({"name": "M", "subjects": ["m"], "storage": "memory"}));
    client.store_all(&["f", "m"]);
    server.kill_and_restart();
    let mut client = server.connect();
    assert_eq!(client.stored_seqs("F"), [1]);
    // Whether the definition survives is up to the server; the messages must not be half there.
    let info = client.api("STREAM.INFO.M", &Value::Null);
    let messages = &info["state"]["messages"];
    assert!(messages.is_null() || *messages == 0, "{info}");
}

#[test]
fn many_restarts_lose_nothing() {
    let mut server = TestServer::start();
    server
        .connect()
        .create_stream(&json!({"name": "S", "subjects": ["s"]}));
    for round in 0..8 {
        let mut client = server.connect();
        assert_eq!(client.store("s", &format!("round {round}")), round + 1);
        if round % 2 == 0 {
            server.kill_and_restart()
        } else {
            server.stop_and_restart()
        }
    }
    let mut client = server.connect();
    client.create_consumer("S", "C", &json!({}));
    let texts: Vec<String> = client
        .fetch("S", "C", 8)
        .iter()
        .map(|msg| msg.text().to_string())
        .collect();
    let expected: Vec<String> = (0..8).map(|round| format!("round {round}")).collect();
    assert_eq!(texts, expected);
}
