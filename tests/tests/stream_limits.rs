//! Limits of a stream (spec rows SCFG-010..017, PUB-021; T-12..T-14, T-21, T-22).

use std::time::Duration;

use riverlog_tests::{Client, TestServer, WAIT, assert_json_has, ms_as_ns};
use serde_json::{Value, json};

fn with_stream(config: Value, test: impl Fn(&mut Client)) {
    let server = TestServer::start();
    for storage in ["file", "memory"] {
        let mut client = server.connect();
        let mut config = config.clone();
        config["name"] = json!("S");
        config["subjects"] = json!(["s.>"]);
        config["storage"] = json!(storage);
        client.create_stream(&config);
        test(&mut client);
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

/// Waits until the stream holds exactly these sequences: expiry runs some time after its moment.
#[track_caller]
fn await_seqs(client: &mut Client, expected: &[u64]) {
    let mut last = client.stored_seqs("S");
    let steps = WAIT.as_millis() / 50;
    for _ in 0..steps {
        if last == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
        last = client.stored_seqs("S");
    }
    assert_eq!(last, expected);
}

#[test]
fn max_msgs_drops_the_oldest_or_refuses_the_newest() {
    with_stream(json!({"max_msgs": 3}), |client| {
        client.store_many("s.a", 5);
        assert_eq!(client.stored_seqs("S"), [3, 4, 5]);
    });
    with_stream(json!({"max_msgs": 3, "discard": "new"}), |client| {
        client.store_many("s.a", 3);
        client.refused("s.a", &[], "x", (503, 10077, "maximum messages exceeded"));
        assert_eq!(client.stored_seqs("S"), [1, 2, 3]);
        client.delete_msg("S", 1);
        assert_eq!(client.store("s.a", "x"), 4);
    });
}

#[test]
fn max_bytes_counts_subject_payload_and_overhead() {
    // T-18: file 30 bytes per message (34 with headers), memory 16.
    for (storage, per_message) in [("file", 30 + 3 + 100), ("memory", 16 + 3 + 100)] {
        let server = TestServer::start();
        let mut client = server.connect();
        for (discard, left) in [("old", [2, 3, 4]), ("new", [1, 2, 3])] {
            client.create_stream(
                &json!({"name": "S", "subjects": ["s.>"], "storage": storage,
                "max_bytes": 3 * per_message, "discard": discard}),
            );
            for _ in 0..3 {
                client.store("s.a", &"x".repeat(100));
            }
            assert_eq!(client.stream_state("S")["bytes"], 3 * per_message);
            if discard == "new" {
                let error = (503, 10077, "maximum bytes exceeded");
                client.refused("s.a", &[], "", error);
            } else {
                client.store("s.a", &"x".repeat(100));
            }
            assert_eq!(client.stored_seqs("S"), left);
            client.api_ok("STREAM.DELETE.S", &Value::Null);
        }
    }
}

#[test]
fn header_bytes_are_accounted() {
    let server = TestServer::start();
    let mut client = server.connect();
    // Header block "NATS/1.0\r\nA: b\r\n\r\n" is 18 bytes.
    for (storage, expected) in [("file", 34 + 3 + 18 + 4), ("memory", 16 + 3 + 18 + 4)] {
        client.create_stream(&json!({"name": "S", "subjects": ["s.>"], "storage": storage}));
        client.store_with("s.a", &[("A", "b")], "body");
        assert_eq!(client.stream_state("S")["bytes"], expected, "{storage}");
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

#[test]
fn max_age_expires_messages_one_by_one() {
    with_stream(
        json!({"max_age": ms_as_ns(400), "duplicate_window": ms_as_ns(100)}),
        |client| {
            client.store_all(&["s.a", "s.b"]);
            await_seqs(client, &[]);
            assert_eq!(client.stream_span("S"), (3, 2, 0));
            assert_eq!(client.store("s.a", "x"), 3);
        },
    );
}

#[test]
fn max_msgs_per_subject_keeps_the_newest_of_each_subject() {
    with_stream(json!({"max_msgs_per_subject": 2}), |client| {
        client.store_all(&["s.a", "s.b", "s.a", "s.a", "s.b", "s.b", "s.c"]);
        assert_eq!(client.stored_seqs("S"), [3, 4, 5, 6, 7]);
        assert_json_has(
            &client.api_ok("STREAM.INFO.S", &json!({"subjects_filter": ">"}))["state"],
            &json!({"num_subjects": 3, "subjects": {"s.a": 2, "s.b": 2, "s.c": 1}}),
        );
    });
}

#[test]
fn discard_new_with_a_subject_limit_replaces_within_the_subject() {
    // T-13
    let config = json!({"max_msgs": 4, "max_msgs_per_subject": 2, "discard": "new"});
    with_stream(config, |client| {
        client.store_all(&["s.a", "s.a", "s.b", "s.c"]);
        // s.a is at its own maximum, so its oldest message makes room although the stream is full.
        assert_eq!(client.store("s.a", "x"), 5);
        client.refused("s.b", &[], "x", (503, 10077, "maximum messages exceeded"));
        assert_eq!(client.stored_seqs("S"), [2, 3, 4, 5]);
    });
}

#[test]
fn discard_new_per_subject_refuses_within_the_subject() {
    // T-14
    let config = json!({"max_msgs_per_subject": 2, "discard": "new",
        "discard_new_per_subject": true, "allow_rollup_hdrs": true});
    with_stream(config, |client| {
        client.store_all(&["s.a", "s.a", "s.b"]);
        let error = (503, 10077, "maximum messages per subject exceeded");
        client.refused("s.a", &[], "x", error);
        assert_eq!(client.store("s.b", "x"), 4);
        assert_eq!(client.store_with("s.a", &[("Nats-Rollup", "sub")], "x"), 5);
        assert_eq!(client.stored_seqs("S"), [3, 4, 5]);
    });
}

#[test]
fn lowering_limits_trims_at_once_only_with_discard_old() {
    // T-12
    let lowered = |discard: &str, limit: Value| {
        let mut config = json!({"name": "S", "subjects": ["s.>"], "discard": discard});
        config
            .as_object_mut()
            .expect("object")
            .extend(limit.as_object().expect("object").clone());
        config
    };
    let server = TestServer::start();
    let mut client = server.connect();
    let cases: [(&str, Value, &[u64]); 4] = [
        ("old", json!({"max_msgs": 2}), &[5, 6]),
        ("new", json!({"max_msgs": 2}), &[1, 2, 3, 4, 5, 6]),
        ("old", json!({"max_msgs_per_subject": 1}), &[5, 6]),
        ("new", json!({"max_msgs_per_subject": 1}), &[5, 6]),
    ];
    for storage in ["file", "memory"] {
        for (discard, limit, left) in &cases {
            let mut config = lowered(discard, json!({"storage": storage}));
            client.create_stream(&config);
            client.store_all(&["s.a", "s.b", "s.a", "s.b", "s.a", "s.b"]);
            config = lowered(discard, limit.clone());
            config["storage"] = json!(storage);
            client.update_stream(&config);
            assert_eq!(client.stored_seqs("S"), *left, "{storage} {config}");
            if left.len() == 6 {
                client.refused("s.a", &[], "x", (503, 10077, "maximum messages exceeded"));
            }
            client.api_ok("STREAM.DELETE.S", &Value::Null);
        }
        client.create_stream(&lowered("old", json!({"storage": storage})));
        client.store_all(&["s.a", "s.b"]);
        let age = json!({"max_age": ms_as_ns(200), "duplicate_window": ms_as_ns(100), "storage": storage});
        client.update_stream(&lowered("old", age));
        await_seqs(&mut client, &[]);
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

#[test]
fn several_limits_are_applied_in_order_from_the_front() {
    // T-22
    with_stream(
        json!({"max_msgs": 3, "max_msgs_per_subject": 2}),
        |client| {
            client.store_all(&["s.a", "s.b", "s.c"]);
            client.store("s.a", "x");
            assert_eq!(client.stored_seqs("S"), [2, 3, 4]);
            client.store("s.a", "x");
            assert_eq!(client.stored_seqs("S"), [3, 4, 5]);
            // The subject limit removes 4, so nothing has to go from the front.
            client.store("s.a", "x");
            assert_eq!(client.stored_seqs("S"), [3, 5, 6]);
        },
    );
}
