//! How pull requests are answered and ended (spec rows PULL-*; T-70..T-79).

use riverlog_tests::{Client, Msg, QUIET, TestServer, ms_as_ns, secs_as_ns};
use serde_json::{Value, json};

/// A stream with messages 1..=count on `s.a` and a consumer `C`, once per storage type.
fn with_consumer(count: u64, config: &Value, test: impl Fn(&mut Client)) {
    let server = TestServer::start();
    for storage in ["file", "memory"] {
        let mut client = server.connect();
        client.create_stream(&json!({"name": "S", "subjects": ["s.>"], "storage": storage}));
        client.store_many("s.a", count);
        client.create_consumer("S", "C", config);
        test(&mut client);
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

fn pending(msg: &Msg) -> (Option<&str>, Option<&str>) {
    (
        msg.header("Nats-Pending-Messages"),
        msg.header("Nats-Pending-Bytes"),
    )
}

fn raw_pull(client: &mut Client, body: &[u8]) -> riverlog_tests::Sub {
    let inbox = client.new_inbox();
    let sub = client.subscribe(&inbox);
    client.publish("$JS.API.CONSUMER.MSG.NEXT.S.C", Some(&inbox), body);
    sub
}

#[test]
fn the_body_may_be_empty_a_number_or_json() {
    // PULL-002
    with_consumer(10, &json!({}), |client| {
        for (body, count) in [("", 1), ("3", 3), ("{\"batch\":2}", 2), ("{}", 1)] {
            let sub = raw_pull(client, body.as_bytes());
            for _ in 0..count {
                assert!(client.next(sub).status().is_empty());
            }
            assert_eq!(client.next_within(sub, QUIET), None, "{body:?}");
            client.unsubscribe(sub);
        }
    });
}

#[test]
fn bad_bodies_are_answered_with_400() {
    // PULL-004, T-76
    with_consumer(1, &json!({}), |client| {
        let sub = raw_pull(client, b"{zork");
        assert!(client.next(sub).status().starts_with("400 Bad Request"));
        let body = json!({"idle_heartbeat": secs_as_ns(1)});
        let reply = client.pull("S", "C", &body);
        assert_eq!(
            reply.status(),
            "400 Bad Request - heartbeat value too large"
        );
        let body = json!({"expires": secs_as_ns(1), "idle_heartbeat": ms_as_ns(501)});
        let reply = client.pull("S", "C", &body);
        assert_eq!(
            reply.status(),
            "400 Bad Request - heartbeat value too large"
        );
        // T-91: unknown fields are tolerated here.
        let reply = client.pull("S", "C", &json!({"batch": 1, "zork": 1, "no_wait": true}));
        assert_eq!(reply.seqs(), [1]);
    });
}

#[test]
fn without_wait_the_end_of_the_stream_ends_the_request() {
    // PULL-008, PULL-010, T-70, T-71
    with_consumer(2, &json!({}), |client| {
        let reply = client.pull("S", "C", &json!({"batch": 5, "no_wait": true}));
        assert_eq!(
            (reply.seqs(), reply.status()),
            (vec![1, 2], "404 No Messages")
        );
        let reply = client.pull("S", "C", &json!({"batch": 5, "no_wait": true}));
        assert_eq!((reply.seqs(), reply.status()), (vec![], "404 No Messages"));
        let end = reply.end.expect("status message");
        assert_eq!(end.header_text(), "NATS/1.0 404 No Messages\r\n\r\n");
        assert_eq!((end.payload, end.reply), (vec![], None));
        // With expires it waits.
        let body = json!({"batch": 1, "no_wait": true, "expires": ms_as_ns(100)});
        let reply = client.pull("S", "C", &body);
        assert_eq!(reply.status(), "408 Request Timeout");
        assert_eq!(
            pending(&reply.end.expect("status message")),
            (Some("1"), Some("0"))
        );
    });
}

#[test]
fn an_expired_request_tells_what_it_did_not_get() {
    // PULL-006, T-72
    with_consumer(2, &json!({}), |client| {
        let reply = client.pull("S", "C", &json!({"batch": 5, "expires": ms_as_ns(200)}));
        assert_eq!(
            (reply.seqs(), reply.status()),
            (vec![1, 2], "408 Request Timeout")
        );
        assert_eq!(
            reply.end.expect("status message").header_text(),
            "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\nNats-Pending-Bytes: 0\r\n\r\n"
        );
        let body = json!({"batch": 3, "expires": ms_as_ns(200), "max_bytes": 1000});
        let reply = client.pull("S", "C", &body);
        assert_eq!(
            pending(&reply.end.expect("status message")),
            (Some("3"), Some("1000"))
        );
    });
    // Nothing is sent when the batch was filled.
    with_consumer(2, &json!({}), |client| {
        let sub = client.pull_start("S", "C", &json!({"batch": 2, "expires": ms_as_ns(100)}));
        assert_eq!(
            (client.next(sub).stream_seq(), client.next(sub).stream_seq()),
            (1, 2)
        );
        assert_eq!(client.next_within(sub, QUIET), None);
    });
}

#[test]
fn without_expires_a_request_waits_until_it_is_filled() {
    // PULL-007
    with_consumer(1, &json!({}), |client| {
        let sub = client.pull_start("S", "C", &json!({"batch": 2}));
        assert_eq!(client.next(sub).stream_seq(), 1);
        assert_eq!(client.next_within(sub, QUIET), None);
        assert_eq!(client.consumer_info("S", "C")["num_waiting"], 1);
        client.store("s.a", "x");
        assert_eq!(client.next(sub).stream_seq(), 2);
        assert_eq!(client.consumer_info("S", "C")["num_waiting"], 0);
    });
}

#[test]
fn waiting_requests_take_turns() {
    // PULL-020
    with_consumer(0, &json!({}), |client| {
        let wait = json!({"batch": 2, "expires": secs_as_ns(60)});
        let first = client.pull_start("S", "C", &wait);
        let second = client.pull_start("S", "C", &wait);
        client.flush();
        client.store_many("s.a", 4);
        assert_eq!(client.next(first).stream_seq(), 1);
        assert_eq!(client.next(second).stream_seq(), 2);
        assert_eq!(client.next(first).stream_seq(), 3);
        assert_eq!(client.next(second).stream_seq(), 4);
    });
}

#[test]
fn too_many_waiting_requests_are_refused() {
    // PULL-012, T-73
    with_consumer(0, &json!({"max_waiting": 2}), |client| {
        let wait = json!({"batch": 5, "expires": secs_as_ns(60)});
        let subs = [
            client.pull_start("S", "C", &wait),
            client.pull_start("S", "C", &wait),
        ];
        client.flush();
        let refused = client.pull("S", "C", &wait);
        assert_eq!(refused.status(), "409 Exceeded MaxWaiting");
        let silent = json!({"expires": secs_as_ns(60), "idle_heartbeat": secs_as_ns(30)});
        let sub = client.pull_start("S", "C", &silent);
        assert_eq!(client.next_within(sub, QUIET), None);
        client.store_many("s.a", 2);
        assert_eq!(subs.map(|sub| client.next(sub).stream_seq()), [1, 2]);
    });
}

#[test]
fn byte_limits_of_a_request() {
    // PULL-016, PULL-017, T-74, T-75
    let server = TestServer::start();
    for storage in ["file", "memory"] {
        let mut client = server.connect();
        client.create_stream(&json!({"name": "S", "subjects": ["s.>"], "storage": storage}));
        client.create_consumer("S", "C", &json!({}));
        for _ in 0..6 {
            client.store("s.a", &"x".repeat(1000));
        }
        let reply = client.pull(
            "S",
            "C",
            &json!({"batch": 1, "max_bytes": 500, "expires": secs_as_ns(60)}),
        );
        assert_eq!(reply.status(), "409 Message Size Exceeds MaxBytes");
        assert_eq!(
            pending(&reply.end.expect("status message")),
            (Some("1"), Some("500"))
        );

        // Each message takes its subject, ack subject and payload: more than 1000, less than 1100.
        let reply = client.pull(
            "S",
            "C",
            &json!({"batch": 10, "max_bytes": 2300, "expires": secs_as_ns(60)}),
        );
        assert_eq!(reply.seqs(), [1, 2]);
        assert_eq!(reply.status(), "409 Message Size Exceeds MaxBytes");
        assert_eq!(
            reply
                .end
                .expect("status message")
                .header("Nats-Pending-Messages"),
            Some("8")
        );

        let sub = client.pull_start(
            "S",
            "C",
            &json!({"batch": 2, "max_bytes": 5000, "expires": secs_as_ns(60)}),
        );
        assert_eq!(
            (client.next(sub).stream_seq(), client.next(sub).stream_seq()),
            (3, 4)
        );
        let end = client.next(sub);
        assert_eq!(end.status(), "409 Batch Completed");
        assert_eq!(end.header("Nats-Pending-Messages"), Some("0"));

        let sub = client.pull_start(
            "S",
            "C",
            &json!({"batch": 0, "max_bytes": 5000, "expires": secs_as_ns(60)}),
        );
        assert_eq!(client.next(sub).stream_seq(), 5);
        let end = client.next(sub);
        assert_eq!(end.status(), "409 Batch Completed");
        assert_eq!(end.header("Nats-Pending-Messages"), Some("-1"));
        // The message no request could take is still there.
        assert_eq!(client.fetch("S", "C", 1)[0].stream_seq(), 6);
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

#[test]
fn limits_of_the_consumer_refuse_larger_requests() {
    // PULL-013..015
    let config = json!({"max_batch": 5, "max_expires": secs_as_ns(1), "max_bytes": 1024});
    with_consumer(1, &config, |client| {
        for (body, status) in [
            (json!({"batch": 6}), "409 Exceeded MaxRequestBatch of 5"),
            (
                json!({"batch": 1, "expires": secs_as_ns(2)}),
                "409 Exceeded MaxRequestExpires of 1s",
            ),
            (
                json!({"batch": 1, "max_bytes": 2048}),
                "409 Exceeded MaxRequestMaxBytes of 1024",
            ),
        ] {
            assert_eq!(client.pull("S", "C", &body).status(), status, "{body}");
        }
        assert_eq!(client.fetch_available("S", "C", 1).len(), 1);
    });
}

#[test]
fn heartbeats_arrive_while_a_request_waits() {
    // PULL-018, WIRE section 12
    with_consumer(2, &json!({}), |client| {
        for msg in client.fetch("S", "C", 2) {
            client.ack(&msg);
        }
        let body = json!({"batch": 1, "expires": secs_as_ns(20), "idle_heartbeat": ms_as_ns(200)});
        let sub = client.pull_start("S", "C", &body);
        for _ in 0..2 {
            let beat = client.next(sub);
            assert_eq!(
                beat.header_text(),
                "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 2\r\nNats-Last-Stream: 2\r\n\r\n"
            );
            assert!(beat.payload.is_empty());
        }
        client.store("s.a", "x");
        let msg = std::iter::repeat_with(|| client.next(sub)).find(|msg| msg.status().is_empty());
        assert_eq!(msg.expect("iterator has no end").stream_seq(), 3);
    });
}

#[test]
fn a_request_nobody_listens_to_any_more_is_dropped() {
    // PULL-019, T-77
    with_consumer(0, &json!({}), |client| {
        let gone = client.pull_start("S", "C", &json!({"batch": 5, "expires": secs_as_ns(60)}));
        client.flush();
        client.unsubscribe(gone);
        client.flush();
        client.store("s.a", "x");
        let msg = client.fetch("S", "C", 1).remove(0).delivery();
        assert_eq!((msg.stream_seq, msg.delivered), (1, 1));
    });
}

#[test]
fn requests_of_a_closed_connection_are_dropped() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    // The server may learn of the end of the connection after it has sent the message.
    client.create_consumer("S", "C", &json!({"ack_wait": secs_as_ns(1)}));
    {
        let mut other = server.connect();
        other.pull_start("S", "C", &json!({"batch": 5, "expires": secs_as_ns(60)}));
        other.flush();
    }
    client.store("s.a", "x");
    let msg = client.fetch("S", "C", 1).remove(0).delivery();
    assert_eq!(msg.stream_seq, 1);
}

#[test]
fn filtered_consumers_deliver_only_matching_messages() {
    let server = TestServer::start();
    let mut client = server.connect();
    for storage in ["file", "memory"] {
        client.create_stream(&json!({"name": "S", "subjects": ["s.>"], "storage": storage}));
        client.store_all(&["s.a", "s.b", "s.c.1", "s.a", "s.c.2", "s.b"]);
        let cases: [(&str, Value, &[u64]); 5] = [
            ("one", json!({"filter_subject": "s.a"}), &[1, 4]),
            ("star", json!({"filter_subject": "s.*"}), &[1, 2, 4, 6]),
            ("rest", json!({"filter_subject": "s.c.>"}), &[3, 5]),
            (
                "two",
                json!({"filter_subjects": ["s.b", "s.c.1"]}),
                &[2, 3, 6],
            ),
            ("all", json!({"filter_subject": "s.>"}), &[1, 2, 3, 4, 5, 6]),
        ];
        for (name, config, expected) in &cases {
            let reply = client.create_consumer("S", name, config);
            assert_eq!(reply["num_pending"], expected.len(), "{config}");
            let msgs = client.fetch_available("S", name, 10);
            let seqs: Vec<u64> = msgs.iter().map(Msg::stream_seq).collect();
            assert_eq!(seqs, *expected, "{config}");
        }
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

#[test]
fn a_large_backlog_arrives_complete_and_in_order() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s.>"]}));
    let count = 20_000_u64;
    for number in 1..count {
        client.publish("s.a", None, format!("message {number}").as_bytes());
    }
    assert_eq!(client.store("s.a", &format!("message {count}")), count);
    let config = json!({"max_ack_pending": -1});
    client.create_consumer("S", "C", &config);
    let mut expected = 1;
    while expected <= count {
        for msg in client.fetch("S", "C", 500) {
            let delivery = msg.delivery();
            assert_eq!(delivery.stream_seq, expected);
            assert_eq!(delivery.pending, count - expected);
            assert_eq!(msg.text(), format!("message {expected}"));
            client.publish(msg.reply_subject(), None, b"");
            expected += 1;
        }
    }
    assert!(client.fetch_available("S", "C", 1).is_empty());
}
