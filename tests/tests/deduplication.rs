//! A message id is stored once within the window (spec rows DEDUP-001..009; T-28..T-34).

use std::time::Duration;

use riverlog_tests::{Client, TestServer, ms_as_ns, secs_as_ns};
use serde_json::{Value, json};

const MSG_ID: &str = "Nats-Msg-Id";

#[track_caller]
fn publish_id(client: &mut Client, id: &str) -> (u64, bool) {
    let ack = client.js_publish_with("s.a", &[(MSG_ID, id)], "x");
    assert!(ack["error"].is_null(), "{ack}");
    (
        ack["seq"].as_u64().expect("sequence"),
        ack["duplicate"] == true,
    )
}

#[test]
fn duplicates_are_acknowledged_with_the_first_sequence() {
    let server = TestServer::start();
    let mut client = server.connect();
    for storage in ["file", "memory"] {
        client.create_stream(&json!({"name": "S", "subjects": ["s.>"], "storage": storage}));
        assert_eq!(publish_id(&mut client, "a"), (1, false));
        assert_eq!(publish_id(&mut client, "b"), (2, false));
        assert_eq!(publish_id(&mut client, "a"), (1, true));
        // The id counts for the whole stream, whatever the subject or the payload.
        let ack = client.js_publish_with("s.other", &[(MSG_ID, "b")], "different");
        assert_eq!(
            (ack["seq"].as_u64(), ack["duplicate"] == true),
            (Some(2), true)
        );
        assert_eq!(client.stream_span("S"), (1, 2, 2));
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

#[test]
fn the_id_outlives_its_message() {
    // T-29
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"], "max_msgs": 1}));
    publish_id(&mut client, "deleted");
    client.delete_msg("S", 1);
    assert_eq!(publish_id(&mut client, "deleted"), (1, true));
    publish_id(&mut client, "evicted");
    publish_id(&mut client, "purged");
    client.purge("S", &Value::Null);
    assert_eq!(publish_id(&mut client, "evicted"), (2, true));
    assert_eq!(publish_id(&mut client, "purged"), (3, true));
    assert_eq!(client.stream_span("S"), (4, 3, 0));
}

#[test]
fn ids_of_stored_messages_survive_a_restart() {
    // T-30
    let mut server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    publish_id(&mut client, "a");
    publish_id(&mut client, "b");
    server.kill_and_restart();
    let mut client = server.connect();
    assert_eq!(publish_id(&mut client, "a"), (1, true));
    assert_eq!(publish_id(&mut client, "b"), (2, true));
    assert_eq!(publish_id(&mut client, "c"), (3, false));
    // T-31: the last id is known again too.
    let ack = client.js_publish_with("s.a", &[("Nats-Expected-Last-Msg-Id", "c")], "x");
    assert_eq!(ack["seq"], 4, "{ack}");
}

#[test]
fn an_id_can_be_used_again_after_the_window() {
    let server = TestServer::start();
    let mut client = server.connect();
    let window = ms_as_ns(300);
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"], "duplicate_window": window}));
    assert_eq!(publish_id(&mut client, "a"), (1, false));
    // Whenever it is accepted again, it is with a new sequence, and only after the window.
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(50));
        let (seq, duplicate) = publish_id(&mut client, "a");
        if !duplicate {
            assert_eq!(seq, 2);
            return;
        }
        assert_eq!(seq, 1);
    }
    panic!("the id never left a window of 300 ms");
}

#[test]
fn a_refused_message_does_not_register_its_id() {
    // T-34
    let server = TestServer::start();
    let mut client = server.connect();
    client
        .create_stream(&json!({"name": "S", "subjects": ["s.>"], "max_msgs": 1, "discard": "new"}));
    let wrong = [(MSG_ID, "a"), ("Nats-Expected-Last-Sequence", "9")];
    client.refused("s.a", &wrong, "x", (400, 10071, "wrong last sequence: 0"));
    assert_eq!(publish_id(&mut client, "a"), (1, false));
    client.refused(
        "s.a",
        &[(MSG_ID, "b")],
        "x",
        (503, 10077, "maximum messages exceeded"),
    );
    client.purge("S", &Value::Null);
    assert_eq!(publish_id(&mut client, "b"), (2, false));
}

#[test]
fn expectations_are_checked_before_duplicates() {
    // T-28, standalone
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    let headers = [(MSG_ID, "a"), ("Nats-Expected-Last-Subject-Sequence", "0")];
    assert_eq!(client.store_with("s.a", &headers, "x"), 1);
    client.refused("s.a", &headers, "x", (400, 10071, "wrong last sequence: 1"));
}

#[test]
fn the_default_window_follows_max_age() {
    // T-32
    let server = TestServer::start();
    let mut client = server.connect();
    let cases = [
        (json!({"max_age": secs_as_ns(60)}), secs_as_ns(60)),
        (json!({"max_age": secs_as_ns(600)}), secs_as_ns(120)),
        (json!({"duplicate_window": secs_as_ns(10)}), secs_as_ns(10)),
        (json!({}), secs_as_ns(120)),
    ];
    for (mut config, expected) in cases {
        config["name"] = json!("S");
        let reply = client.create_stream(&config);
        assert_eq!(reply["config"]["duplicate_window"], expected, "{config}");
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}
