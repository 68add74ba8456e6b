//! Publish acks and the conditions a publisher may attach (spec rows PUB-001..019; T-15, T-16,
//! T-23..T-28, T-39).

use riverlog_tests::{Client, QUIET, TestServer};
use serde_json::{Value, json};

const LAST_SEQ: &str = "Nats-Expected-Last-Sequence";
const LAST_SUBJECT_SEQ: &str = "Nats-Expected-Last-Subject-Sequence";
const LAST_SUBJECT_SEQ_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const LAST_MSG_ID: &str = "Nats-Expected-Last-Msg-Id";
const MSG_ID: &str = "Nats-Msg-Id";
const ROLLUP: &str = "Nats-Rollup";

fn with_stream(config: Value, test: impl Fn(&mut Client)) {
    let server = TestServer::start();
    for storage in ["file", "memory"] {
        let mut client = server.connect();
        let mut config = config.clone();
        config["name"] = json!("S");
        config["storage"] = json!(storage);
        client.create_stream(&config);
        test(&mut client);
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

#[test]
fn acks_have_exactly_the_documented_bytes() {
    with_stream(json!({"subjects": ["s.>"]}), |client| {
        let ack = client.request("s.a", b"x");
        assert_eq!(ack.text(), r#"{"stream":"S","seq":1}"#);
        assert_eq!((ack.reply, ack.header_block), (None, vec![]));
        let ack = client.request_with("s.a", &[(MSG_ID, "m")], b"x");
        assert_eq!(ack.text(), r#"{"stream":"S","seq":2}"#);
        let ack = client.request_with("s.a", &[(MSG_ID, "m")], b"x");
        assert_eq!(ack.text(), r#"{"stream":"S","seq":2,"duplicate": true}"#);
        let ack = client.request_with("s.a", &[(LAST_SEQ, "7")], b"x");
        assert_eq!(
            ack.text(),
            r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 2"},"stream":"S","seq":0}"#
        );
    });
}

#[test]
fn without_reply_subject_the_message_is_stored_silently() {
    with_stream(json!({"subjects": ["s.>"]}), |client| {
        client.publish("s.a", None, b"one");
        client.publish_with("s.a", None, &[(LAST_SEQ, "99")], b"refused");
        client.flush();
        assert_eq!(client.store("s.a", "two"), 2);
        assert_eq!(client.stored_seqs("S"), [1, 2]);
    });
}

#[test]
fn a_subject_of_no_stream_gets_no_responders() {
    with_stream(json!({"subjects": ["s.>"]}), |client| {
        let answer = client.request("other", b"x");
        assert_eq!(
            answer.header_text(),
            "NATS/1.0 503\r\nNats-Subject: other\r\n\r\n"
        );
    });
}

#[test]
fn plain_subscribers_get_stored_messages_too() {
    with_stream(json!({"subjects": ["s.>"]}), |client| {
        let sub = client.subscribe("s.*");
        client.store_with("s.a", &[("Key", "Value")], "x");
        let msg = client.next(sub);
        assert_eq!(
            (msg.subject.as_str(), msg.text(), msg.header("Key")),
            ("s.a", "x", Some("Value"))
        );
    });
}

#[test]
fn expected_stream_and_last_sequence() {
    with_stream(json!({"subjects": ["s.>"]}), |client| {
        let other = [("Nats-Expected-Stream", "T")];
        client.refused(
            "s.a",
            &other,
            "x",
            (400, 10060, "expected stream does not match"),
        );
        // T-26: 0 means a stream that was never used; purge does not bring that back.
        assert_eq!(
            client.store_with(
                "s.a",
                &[(LAST_SEQ, "0"), ("Nats-Expected-Stream", "S")],
                "x"
            ),
            1
        );
        client.refused(
            "s.a",
            &[(LAST_SEQ, "0")],
            "x",
            (400, 10071, "wrong last sequence: 1"),
        );
        assert_eq!(client.store_with("s.a", &[(LAST_SEQ, "1")], "x"), 2);
        client.purge("S", &Value::Null);
        client.refused(
            "s.a",
            &[(LAST_SEQ, "0")],
            "x",
            (400, 10071, "wrong last sequence: 2"),
        );
        // T-27: what is no number never matches.
        for bad in ["abc", "-1", "1.5"] {
            client.refused(
                "s.a",
                &[(LAST_SEQ, bad)],
                "x",
                (400, 10071, "wrong last sequence: 2"),
            );
        }
        assert_eq!(client.store_with("s.a", &[(LAST_SEQ, "2")], "x"), 3);
    });
}

#[test]
fn expected_last_message_id() {
    with_stream(json!({"subjects": ["s.>"]}), |client| {
        client.store_with("s.a", &[(MSG_ID, "first")], "x");
        client.refused(
            "s.a",
            &[(LAST_MSG_ID, "zz")],
            "x",
            (400, 10070, "wrong last msg ID: first"),
        );
        client.store_with("s.a", &[(LAST_MSG_ID, "first"), (MSG_ID, "second")], "x");
        client.store_with("s.a", &[(LAST_MSG_ID, "second")], "no id");
        // A last message without id means: the last id is empty.
        client.refused(
            "s.a",
            &[(LAST_MSG_ID, "second")],
            "x",
            (400, 10070, "wrong last msg ID: "),
        );
    });
}

#[test]
fn expected_last_sequence_of_the_subject() {
    with_stream(json!({"subjects": ["s.>"]}), |client| {
        assert_eq!(client.store_with("s.a", &[(LAST_SUBJECT_SEQ, "0")], "x"), 1);
        assert_eq!(client.store("s.b", "x"), 2);
        client.refused(
            "s.a",
            &[(LAST_SUBJECT_SEQ, "0")],
            "x",
            (400, 10071, "wrong last sequence: 1"),
        );
        client.refused(
            "s.a",
            &[(LAST_SUBJECT_SEQ, "2")],
            "x",
            (400, 10071, "wrong last sequence: 1"),
        );
        assert_eq!(client.store_with("s.a", &[(LAST_SUBJECT_SEQ, "1")], "x"), 3);
        client.refused(
            "s.c",
            &[(LAST_SUBJECT_SEQ, "3")],
            "x",
            (400, 10071, "wrong last sequence: 0"),
        );
        // T-25: an emptied subject counts as never used.
        client.purge("S", &json!({"filter": "s.a"}));
        client.refused(
            "s.a",
            &[(LAST_SUBJECT_SEQ, "3")],
            "x",
            (400, 10071, "wrong last sequence: 0"),
        );
        assert_eq!(client.store_with("s.a", &[(LAST_SUBJECT_SEQ, "0")], "x"), 4);
    });
}

#[test]
fn expected_last_sequence_over_a_wildcard_subject() {
    // T-23, T-24
    with_stream(json!({"subjects": ["kv.>"]}), |client| {
        client.store_all(&[
            "kv.1.foo", "kv.1.bar", "kv.2.foo", "kv.3.bar", "kv.1.baz", "kv.1.bar",
        ]);
        let with = |seq: &'static str, subject: &'static str| {
            [(LAST_SUBJECT_SEQ, seq), (LAST_SUBJECT_SEQ_SUBJECT, subject)]
        };
        for wrong in ["0", "1", "2", "5", "7"] {
            let text = (400, 10071, "wrong last sequence: 6");
            client.refused("kv.1.bar", &with(wrong, "kv.1.*"), "x", text);
        }
        assert_eq!(client.store_with("kv.1.bar", &with("6", "kv.1.*"), "x"), 7);
        // kv.* matches none of the three-token subjects.
        assert_eq!(client.store_with("kv.1.bar", &with("0", "kv.*"), "x"), 8);
        assert_eq!(client.store_with("kv.9.x", &with("3", "kv.2.foo"), "x"), 9);
        let reply =
            client.js_publish_with("kv.1.bar", &[(LAST_SUBJECT_SEQ_SUBJECT, "kv.1.*")], "x");
        assert_eq!(reply["error"]["code"], 400, "{reply}");
        assert_eq!(reply["error"]["err_code"], 10193, "{reply}");
    });
}

#[test]
fn rollup_replaces_a_subject_or_the_whole_stream() {
    // T-15
    let config = json!({"subjects": ["s.>"], "allow_rollup_hdrs": true, "max_msgs_per_subject": 5});
    with_stream(config, |client| {
        client.store_all(&["s.a", "s.b", "s.a", "s.a"]);
        assert_eq!(client.store_with("s.a", &[(ROLLUP, "sub")], "x"), 5);
        assert_eq!(client.stored_seqs("S"), [2, 5]);
        client.store("s.c", "x");
        assert_eq!(client.store_with("s.a", &[(ROLLUP, "ALL")], "x"), 7);
        assert_eq!(client.stored_seqs("S"), [7]);
        assert_eq!(client.stream_span("S"), (7, 7, 1));
    });
}

#[test]
fn rollup_without_permission_or_with_a_bad_value_stores_nothing() {
    // T-16
    with_stream(json!({"subjects": ["s.>"]}), |client| {
        client.store("s.a", "x");
        client.refused(
            "s.a",
            &[(ROLLUP, "sub")],
            "x",
            (500, 10111, "rollup not permitted"),
        );
        assert_eq!(client.stream_span("S"), (1, 1, 1));
    });
    with_stream(
        json!({"subjects": ["s.>"], "allow_rollup_hdrs": true}),
        |client| {
            client.store("s.a", "x");
            let reply = client.js_publish_with("s.a", &[(ROLLUP, "zork")], "x");
            assert!(reply["error"]["code"].is_u64(), "{reply}");
            assert_eq!(client.stream_span("S"), (1, 1, 1));
        },
    );
}

#[test]
fn no_ack_streams_store_without_answering() {
    // T-39
    with_stream(json!({"subjects": ["s.>"], "no_ack": true}), |client| {
        assert_eq!(client.try_request("s.a", &[], b"x", QUIET), None);
        assert_eq!(
            client.try_request("s.a", &[(LAST_SEQ, "9")], b"x", QUIET),
            None
        );
        assert_eq!(client.stream_span("S"), (1, 1, 1));
    });
}

#[test]
fn messages_above_the_size_limit_are_refused() {
    // PUB-019: headers and payload count together.
    with_stream(json!({"subjects": ["s.>"], "max_msg_size": 64}), |client| {
        client.store("s.a", &"x".repeat(64));
        let text = (400, 10054, "message size exceeds maximum allowed");
        client.refused("s.a", &[], &"x".repeat(65), text);
        // NATS/1.0 CR LF, A: b CR LF, CR LF are 18 bytes.
        client.store_with("s.a", &[("A", "b")], &"x".repeat(46));
        client.refused("s.a", &[("A", "b")], &"x".repeat(47), text);
        assert_eq!(client.stream_span("S"), (1, 2, 2));
    });
}

#[test]
fn stored_headers_come_back_byte_for_byte() {
    with_stream(json!({"subjects": ["s.>"]}), |client| {
        let headers = [
            ("Key", "one"),
            ("key", "two"),
            ("Key", "three"),
            ("Empty", ""),
        ];
        client.store_with("s.a", &headers, "body");
        client.create_consumer("S", "C", &json!({}));
        let msg = client.fetch("S", "C", 1).remove(0);
        assert_eq!(
            msg.header_text(),
            "NATS/1.0\r\nKey: one\r\nkey: two\r\nKey: three\r\nEmpty: \r\n\r\n"
        );
        assert_eq!(msg.text(), "body");
    });
}
