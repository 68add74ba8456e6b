//! Reading, deleting and purging stored messages (spec rows SAPI-010..022; T-05..T-08, T-19, T-20).

use riverlog_tests::{Client, TestServer, assert_json, assert_json_has};
use serde_json::{Value, json};

/// Both storage types answer alike; each test runs on both.
fn for_each_storage(test: impl Fn(&mut Client, &str)) {
    let server = TestServer::start();
    for storage in ["file", "memory"] {
        let mut client = server.connect();
        test(&mut client, storage);
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

fn with_messages(client: &mut Client, storage: &str, subjects: &[&str]) {
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"], "storage": storage}));
    client.store_all(subjects);
}

#[test]
fn message_get_selects_by_sequence_subject_and_time() {
    for_each_storage(|client, storage| {
        with_messages(client, storage, &[]);
        client.store("s.a", "one");
        client.store_with("s.b", &[("Key", "Value")], "two");
        client.store("s.a", "three");
        client.store("s.c", "");
        let reply = client.api_ok("STREAM.MSG.GET.S", &json!({"seq": 1}));
        assert_json(
            &reply,
            &json!({"type": "io.nats.jetstream.api.v1.stream_msg_get_response",
                "message": {"subject": "s.a", "seq": 1, "data": "b25l", "time": "<time>"}}),
        );
        let reply = client.api_ok("STREAM.MSG.GET.S", &json!({"seq": 2}));
        assert_json(
            &reply["message"],
            // NATS/1.0 CR LF Key: Value CR LF CR LF
            &json!({"subject": "s.b", "seq": 2, "data": "dHdv", "time": "<time>",
                "hdrs": "TkFUUy8xLjANCktleTogVmFsdWUNCg0K"}),
        );
        let time_of_3 =
            client.api_ok("STREAM.MSG.GET.S", &json!({"seq": 3}))["message"]["time"].clone();
        let cases = [
            (json!({"last_by_subj": "s.a"}), 3),
            (json!({"last_by_subj": "s.*"}), 4),
            (json!({"next_by_subj": "s.a", "seq": 2}), 3),
            (json!({"next_by_subj": "s.a", "seq": 1}), 1),
            (json!({"next_by_subj": "s.b"}), 2),
            (json!({"seq": 2, "next_by_subj": "s.>"}), 2),
            (json!({"start_time": time_of_3}), 3),
            (json!({"start_time": time_of_3, "next_by_subj": "s.c"}), 4),
        ];
        for (body, seq) in cases {
            let reply = client.api_ok("STREAM.MSG.GET.S", &body);
            assert_eq!(reply["message"]["seq"], seq, "{body}");
        }
        let not_found = [
            json!({"seq": 5}),
            json!({"last_by_subj": "s.x"}),
            json!({"next_by_subj": "s.b", "seq": 3}),
        ];
        for body in not_found {
            client.api_err("STREAM.MSG.GET.S", &body, 404, 10037, "no message found");
        }
        for body in [
            json!({}),
            json!({"seq": 1, "last_by_subj": "s.a"}),
            json!({"seq": 1, "batch": 2}),
        ] {
            client.api_err("STREAM.MSG.GET.S", &body, 400, 10003, "bad request");
        }
    });
}

#[test]
fn deleting_first_middle_and_last_message_moves_only_what_it_must() {
    // T-08
    for_each_storage(|client, storage| {
        with_messages(client, storage, &["s.a"; 5]);
        client.delete_msg("S", 3);
        assert_json_has(
            &client.stream_state("S"),
            &json!({"first_seq": 1, "last_seq": 5, "messages": 4, "num_deleted": 1}),
        );
        client.delete_msg("S", 1);
        assert_json_has(
            &client.stream_state("S"),
            &json!({"first_seq": 2, "last_seq": 5, "messages": 3, "num_deleted": 1}),
        );
        client.delete_msg("S", 2);
        assert_json_has(
            &client.stream_state("S"),
            &json!({"first_seq": 4, "last_seq": 5, "messages": 2}),
        );
        client.delete_msg("S", 5);
        assert_json_has(
            &client.stream_state("S"),
            &json!({"last_seq": 5, "messages": 1}),
        );
        assert_eq!(client.store("s.a", "x"), 6);
        assert_eq!(client.stored_seqs("S"), [4, 6]);
        // The code differs between the reference's storage types.
        let err_code =
            client.api("STREAM.MSG.DELETE.S", &json!({"seq": 3}))["error"]["err_code"].clone();
        assert!(err_code == 10043 || err_code == 10057, "{err_code}");
        client.api_err(
            "STREAM.MSG.GET.S",
            &json!({"seq": 3}),
            404,
            10037,
            "no message found",
        );
    });
}

#[test]
fn an_emptied_stream_keeps_its_position() {
    // T-20: first_seq = last_seq + 1, zero first_ts, last_ts kept.
    for_each_storage(|client, storage| {
        with_messages(client, storage, &["s.a", "s.b"]);
        let before = client.stream_state("S");
        assert_eq!(client.purge("S", &Value::Null), 2);
        assert_json_has(
            &client.stream_state("S"),
            &json!({"messages": 0, "bytes": 0, "first_seq": 3, "last_seq": 2,
                "first_ts": "0001-01-01T00:00:00Z", "last_ts": before["last_ts"]}),
        );
        assert_eq!(client.store("s.a", "x"), 3);
    });
}

#[test]
fn purge_by_subject_sequence_and_keep() {
    // T-06, T-07 and SAPI-016..018: (purge body, purged, sequences left) on s.a s.b s.a s.b s.a s.c.
    let cases: [(Value, u64, &[u64]); 12] = [
        (json!({"filter": "s.a"}), 3, &[2, 4, 6]),
        (json!({"filter": "s.*"}), 6, &[]),
        (json!({"filter": "s.z"}), 0, &[1, 2, 3, 4, 5, 6]),
        (json!({"seq": 1}), 0, &[1, 2, 3, 4, 5, 6]),
        (json!({"seq": 4}), 3, &[4, 5, 6]),
        (json!({"seq": 4, "filter": "s.a"}), 2, &[2, 4, 5, 6]),
        (json!({"keep": 2}), 4, &[5, 6]),
        (json!({"keep": 6}), 0, &[1, 2, 3, 4, 5, 6]),
        (json!({"keep": 1, "filter": "s.a"}), 2, &[2, 4, 5, 6]),
        // keep counts all matching messages together, not per subject
        (json!({"keep": 1, "filter": "s.*"}), 5, &[6]),
        (json!({"keep": 9, "filter": "s.a"}), 0, &[1, 2, 3, 4, 5, 6]),
        (json!({}), 6, &[]),
    ];
    for_each_storage(|client, storage| {
        for (body, purged, left) in &cases {
            with_messages(client, storage, &["s.a", "s.b", "s.a", "s.b", "s.a", "s.c"]);
            assert_eq!(client.purge("S", body), *purged, "{body}");
            assert_eq!(client.stored_seqs("S"), *left, "{body}");
            assert_eq!(client.store("s.a", "next"), 7, "{body}");
            client.api_ok("STREAM.DELETE.S", &Value::Null);
        }
        with_messages(client, storage, &["s.a"]);
        let both = json!({"seq": 1, "keep": 1});
        client.api_err("STREAM.PURGE.S", &both, 400, 10003, "bad request");
    });
}

#[test]
fn purge_beyond_the_end_jumps_only_without_filter() {
    // T-05
    for_each_storage(|client, storage| {
        with_messages(client, storage, &["s.a"; 10]);
        assert_eq!(
            client.purge("S", &json!({"seq": 1000, "filter": "s.a"})),
            10
        );
        assert_eq!(client.store("s.a", "x"), 11);
        assert_eq!(client.purge("S", &json!({"seq": 1000})), 1);
        assert_eq!(client.stream_span("S"), (1000, 999, 0));
        assert_eq!(client.store("s.a", "x"), 1000);
    });
}

#[test]
fn first_seq_starts_the_numbering_and_survives_a_restart() {
    // T-19
    let mut server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "F", "subjects": ["f"], "first_seq": 1000}));
    assert_eq!(client.stream_span("F"), (1000, 999, 0));
    server.kill_and_restart();
    let mut client = server.connect();
    assert_eq!(client.stream_span("F"), (1000, 999, 0));
    assert_eq!(client.store("f", "x"), 1000);
}

#[test]
fn denied_delete_and_purge_are_refused() {
    for_each_storage(|client, storage| {
        client.create_stream(
            &json!({"name": "S", "subjects": ["s.>"], "storage": storage,
            "deny_delete": true, "deny_purge": true}),
        );
        client.store("s.a", "x");
        let text = "message delete not permitted";
        client.api_err("STREAM.MSG.DELETE.S", &json!({"seq": 1}), 500, 10057, text);
        let text = "stream purge not permitted";
        client.api_err("STREAM.PURGE.S", &Value::Null, 500, 10110, text);
        assert_eq!(client.stored_seqs("S"), [1]);
    });
}

#[test]
fn sealed_streams_refuse_every_change_but_can_be_read() {
    // T-17, SAPI-019
    for_each_storage(|client, storage| {
        with_messages(client, storage, &["s.a"]);
        let sealed = json!({"name": "S", "subjects": ["s.>"], "storage": storage, "sealed": true,
            "max_age": 3_600_000_000_000_u64});
        let reply = client.update_stream(&sealed);
        assert_json_has(
            &reply["config"],
            &json!({"sealed": true, "max_age": 0, "discard": "new", "deny_delete": true,
                "deny_purge": true, "allow_rollup_hdrs": false}),
        );
        let text = "invalid operation on sealed stream";
        client.refused("s.a", &[], "x", (400, 10109, text));
        client.api_err("STREAM.PURGE.S", &Value::Null, 400, 10109, text);
        client.api_err("STREAM.MSG.DELETE.S", &json!({"seq": 1}), 400, 10109, text);
        client.create_consumer("S", "C", &json!({}));
        assert_eq!(client.fetch("S", "C", 1)[0].text(), "x");
        let unsealed = json!({"name": "S", "subjects": ["s.>"], "storage": storage});
        let text = "stream configuration update can not unseal a sealed stream";
        client.api_err("STREAM.UPDATE.S", &unsealed, 500, 10052, text);
    });
}

#[test]
fn one_way_flags_cannot_be_taken_back() {
    // T-17
    let server = TestServer::start();
    let mut client = server.connect();
    let cases = [
        (
            "deny_delete",
            "stream configuration update can not cancel deny message deletes",
        ),
        (
            "deny_purge",
            "stream configuration update can not cancel deny purge",
        ),
    ];
    for (flag, text) in cases {
        client.create_stream(&json!({"name": "W", "subjects": ["w"], flag: true}));
        let without = json!({"name": "W", "subjects": ["w"]});
        client.api_err("STREAM.UPDATE.W", &without, 500, 10052, text);
        client.api_ok("STREAM.DELETE.W", &Value::Null);
    }
}
