//! Streams that keep messages only as long as somebody wants them (spec rows DLV-024, PUB-031; T-33,
//! T-85..T-87).

use std::time::Duration;

use riverlog_tests::{Client, TestServer, WAIT};
use serde_json::{Value, json};

#[test]
fn interest_streams_keep_messages_until_everybody_acknowledged() {
    // DLV-024, T-86, T-87
    let server = TestServer::start();
    let mut client = server.connect();
    let config = json!({"name": "I", "subjects": ["i.>"], "retention": "interest"});
    client.create_stream(&config);
    client.create_consumer("I", "A", &json!({}));
    client.create_consumer("I", "B", &json!({"filter_subject": "i.b"}));
    client.store_all(&["i.a", "i.b", "i.b"]);
    for msg in client.fetch("I", "A", 2) {
        client.ack(&msg);
    }
    await_stored(&mut client, "I", &[2, 3]);
    let msg = client.fetch("I", "B", 1).remove(0);
    client.ack(&msg);
    await_stored(&mut client, "I", &[3]);
    client.api_ok("CONSUMER.DELETE.I.A", &Value::Null);
    assert_eq!(client.store("i.a", "nobody wants this"), 4);
    await_stored(&mut client, "I", &[3]);
    client.api_ok("CONSUMER.DELETE.I.B", &Value::Null);
    await_stored(&mut client, "I", &[]);
    assert_eq!(client.stream_span("I"), (5, 4, 0));
}

#[test]
fn interest_streams_without_consumers_remember_ids_too() {
    // T-33, T-85
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"], "retention": "interest"}));
    for (id, seq, duplicate) in [("a", 1, false), ("a", 1, true), ("b", 2, false)] {
        let ack = client.js_publish_with("s.a", &[("Nats-Msg-Id", id)], "x");
        assert_eq!(
            (&ack["seq"], ack["duplicate"] == true),
            (&json!(seq), duplicate),
            "{ack}"
        );
    }
    assert_eq!(client.stream_span("S"), (3, 2, 0));
}

#[track_caller]
fn await_stored(client: &mut Client, stream: &str, expected: &[u64]) {
    let mut last = client.stored_seqs(stream);
    for _ in 0..WAIT.as_millis() / 20 {
        if last == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
        last = client.stored_seqs(stream);
    }
    assert_eq!(last, expected);
}
