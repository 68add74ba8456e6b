//! Where consumers start, what they count and how the floor moves (spec rows DLV-*; T-43..T-55).

use riverlog_tests::js::Positions;
use riverlog_tests::{Client, TestServer, ms_as_ns};
use serde_json::{Value, json};

fn with_stream(subjects: &[&str], test: impl Fn(&mut Client)) {
    let server = TestServer::start();
    for storage in ["file", "memory"] {
        let mut client = server.connect();
        client.create_stream(&json!({"name": "S", "subjects": ["a.>", "b.>"], "storage": storage}));
        client.store_all(subjects);
        test(&mut client);
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

#[test]
fn ack_subjects_count_deliveries_and_pending_messages() {
    // DLV-001, DLV-003..005
    with_stream(&["a.1", "b.1", "a.2"], |client| {
        client.create_consumer("S", "C", &json!({"filter_subject": "a.>"}));
        let msgs = client.fetch("S", "C", 2);
        for (msg, subject, (seq, consumer_seq, pending)) in
            [(&msgs[0], "a.1", (1, 1, 1)), (&msgs[1], "a.2", (3, 2, 0))]
        {
            assert_eq!(msg.subject, subject);
            assert!(
                msg.reply_subject().starts_with("$JS.ACK.S.C.1."),
                "{:?}",
                msg.reply
            );
            let delivery = msg.delivery();
            assert_eq!(delivery.delivered, 1);
            assert_eq!(
                (delivery.stream_seq, delivery.consumer_seq),
                (seq, consumer_seq)
            );
            assert_eq!(delivery.pending, pending);
        }
    });
}

#[test]
fn deliver_policies_choose_the_first_message() {
    // DLV-006..011, T-48..T-51: on a.1 b.1 a.2 b.2 a.1, then a.3 and b.3 after creation.
    let cases: [(Value, u64, &[u64]); 16] = [
        (json!({}), 5, &[1, 2, 3, 4, 5, 6, 7]),
        (json!({"deliver_policy": "last"}), 1, &[5, 6, 7]),
        (
            json!({"deliver_policy": "last", "filter_subject": "b.>"}),
            1,
            &[4, 7],
        ),
        (
            json!({"deliver_policy": "last", "filter_subjects": ["a.2", "b.1"]}),
            1,
            &[3],
        ),
        (
            json!({"deliver_policy": "last", "filter_subject": "a.3"}),
            0,
            &[6],
        ),
        (json!({"deliver_policy": "new"}), 0, &[6, 7]),
        (
            json!({"deliver_policy": "new", "filter_subject": "b.>"}),
            0,
            &[7],
        ),
        (
            json!({"deliver_policy": "by_start_sequence", "opt_start_seq": 3}),
            3,
            &[3, 4, 5, 6, 7],
        ),
        (
            json!({"deliver_policy": "by_start_sequence", "opt_start_seq": 2, "filter_subject": "a.>"}),
            2,
            &[3, 5, 6],
        ),
        (
            json!({"deliver_policy": "by_start_sequence", "opt_start_seq": 7}),
            0,
            &[7],
        ),
        (
            json!({"deliver_policy": "by_start_time", "opt_start_time": "2000-01-01T00:00:00Z"}),
            5,
            &[1, 2, 3, 4, 5, 6, 7],
        ),
        (
            json!({"deliver_policy": "by_start_time", "opt_start_time": "2100-01-01T00:00:00Z"}),
            0,
            &[6, 7],
        ),
        (
            json!({"deliver_policy": "last_per_subject", "filter_subject": "a.>"}),
            2,
            &[3, 5, 6],
        ),
        (
            json!({"deliver_policy": "last_per_subject", "filter_subjects": ["a.1", "b.*"]}),
            3,
            &[2, 4, 5, 7],
        ),
        (json!({"filter_subject": "a.nothing"}), 0, &[]),
        (json!({"filter_subjects": ["a.1", "b.1"]}), 3, &[1, 2, 5]),
    ];
    for (config, pending, expected) in &cases {
        with_one_stream(config, *pending, expected);
    }
}

fn with_one_stream(config: &Value, pending: u64, expected: &[u64]) {
    thread_local! {
        static SERVER: TestServer = TestServer::start();
    }
    SERVER.with(|server| {
        for storage in ["file", "memory"] {
            let mut client = server.connect();
            let stream = json!({"name": "S", "subjects": ["a.>", "b.>"], "storage": storage});
            client.create_stream(&stream);
            client.store_all(&["a.1", "b.1", "a.2", "b.2", "a.1"]);
            let reply = client.create_consumer("S", "C", config);
            assert_eq!(reply["num_pending"], pending, "{storage} {config}");
            client.store_all(&["a.3", "b.3"]);
            let msgs = client.fetch_available("S", "C", 20);
            let seqs: Vec<u64> = msgs.iter().map(|msg| msg.stream_seq()).collect();
            assert_eq!(seqs, expected, "{storage} {config}");
            client.api_ok("STREAM.DELETE.S", &Value::Null);
        }
    });
}

#[test]
fn start_by_time_takes_the_first_message_at_or_after_it() {
    with_stream(&["a.1", "a.2", "a.3"], |client| {
        let second =
            client.api_ok("STREAM.MSG.GET.S", &json!({"seq": 2}))["message"]["time"].clone();
        let config = json!({"deliver_policy": "by_start_time", "opt_start_time": second});
        client.create_consumer("S", "C", &config);
        assert_eq!(client.fetch("S", "C", 2)[0].stream_seq(), 2);
    });
}

#[test]
fn start_by_sequence_of_a_removed_message_takes_the_next_one() {
    // DLV-009
    with_stream(&["a.1", "a.2", "a.3", "a.4"], |client| {
        client.purge("S", &json!({"seq": 3}));
        let config = json!({"deliver_policy": "by_start_sequence", "opt_start_seq": 1});
        assert_eq!(client.create_consumer("S", "C", &config)["num_pending"], 2);
        assert_eq!(client.fetch("S", "C", 1)[0].stream_seq(), 3);
    });
}

#[test]
fn a_listed_last_message_that_disappears_is_skipped() {
    // T-46
    with_stream(&["a.1", "a.2", "a.1", "b.1"], |client| {
        let config = json!({"deliver_policy": "last_per_subject", "filter_subject": "a.*"});
        assert_eq!(client.create_consumer("S", "C", &config)["num_pending"], 2);
        client.delete_msg("S", 2);
        client.store("a.9", "x");
        // The reference may end a request at the missing message.
        let mut seqs = Vec::new();
        for _ in 0..50 {
            seqs.extend(
                client
                    .fetch_available("S", "C", 10)
                    .iter()
                    .map(|msg| msg.stream_seq()),
            );
            if seqs.len() >= 2 {
                break;
            }
        }
        assert_eq!(seqs, [3, 5]);
        assert!(client.fetch_available("S", "C", 1).is_empty());
    });
}

#[test]
fn the_floor_waits_for_gaps() {
    // T-43
    with_stream(&["a.1"; 11], |client| {
        client.create_consumer("S", "C", &json!({}));
        let msgs = client.fetch("S", "C", 11);
        client.ack_with(&msgs[0], "-NAK");
        client.ack_all_of(&msgs[1..10]);
        let mut expected = Positions {
            delivered: (11, 11),
            floor: (0, 0),
            ack_pending: 2,
            pending: 0,
        };
        client.await_positions("S", "C", expected);
        let again = client.fetch("S", "C", 1).remove(0);
        assert_eq!(
            (again.delivery().delivered, again.delivery().consumer_seq),
            (2, 12)
        );
        assert_eq!(again.stream_seq(), 1);
        client.ack(&again);
        expected = Positions {
            delivered: (12, 11),
            floor: (10, 10),
            ack_pending: 1,
            pending: 0,
        };
        client.await_positions("S", "C", expected);
        client.ack(&msgs[10]);
        expected = Positions {
            delivered: (12, 11),
            floor: (12, 11),
            ack_pending: 0,
            pending: 0,
        };
        client.await_positions("S", "C", expected);
    });
}

#[test]
fn redeliveries_do_not_change_the_number_of_pending_messages() {
    // T-44
    with_stream(&["a.1"; 5], |client| {
        client.create_consumer("S", "C", &json!({}));
        let first = client.fetch("S", "C", 2);
        assert_eq!(first[1].delivery().pending, 3);
        client.ack_with(&first[0], "-NAK");
        let again = client.fetch("S", "C", 1).remove(0).delivery();
        assert_eq!(
            (again.stream_seq, again.delivered, again.pending),
            (1, 2, 3)
        );
        assert_eq!(client.consumer_positions("S", "C").pending, 3);
    });
}

#[test]
fn a_message_matching_two_filters_is_delivered_once() {
    // T-52
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["foo.>"]}));
    client.store_all(&["foo.a.bar", "foo.b.bar", "foo.a.x", "foo.b.x"]);
    let config = json!({"filter_subjects": ["foo.*.bar", "foo.a.*"]});
    assert_eq!(client.create_consumer("S", "C", &config)["num_pending"], 3);
    let seqs: Vec<u64> = client
        .fetch_available("S", "C", 10)
        .iter()
        .map(|msg| msg.stream_seq())
        .collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[test]
fn changed_filters_apply_from_the_current_position() {
    // T-53
    with_stream(&["a.1", "b.1", "a.2", "b.2", "a.3", "b.3"], |client| {
        client.create_consumer("S", "C", &json!({"filter_subject": "a.>"}));
        let first = client.fetch("S", "C", 1).remove(0);
        let reply = client.create_consumer("S", "C", &json!({"filter_subject": "b.>"}));
        // b.1, b.2 and b.3 lie behind the last delivered sequence 1.
        assert_eq!(reply["num_pending"], 3);
        assert_eq!(reply["num_ack_pending"], 1);
        client.ack_with(&first, "-NAK");
        let seqs: Vec<u64> = client
            .fetch_available("S", "C", 10)
            .iter()
            .map(|msg| msg.stream_seq())
            .collect();
        assert_eq!(seqs, [1, 2, 4, 6]);
    });
}

#[test]
fn delivered_shows_the_last_delivery_not_the_scan_position() {
    // T-54
    with_stream(&["a.1", "b.1", "b.2", "b.3"], |client| {
        client.create_consumer("S", "C", &json!({"filter_subject": "a.>"}));
        let msg = client.fetch("S", "C", 1).remove(0);
        client.fetch_available("S", "C", 1);
        client.ack(&msg);
        let expected = Positions {
            delivered: (1, 1),
            floor: (1, 1),
            ack_pending: 0,
            pending: 0,
        };
        client.await_positions("S", "C", expected);
    });
}

#[test]
fn deleting_an_undelivered_message_lowers_pending() {
    // T-10
    with_stream(&["a.1", "b.1", "a.2"], |client| {
        client.create_consumer("S", "A", &json!({"filter_subject": "a.>"}));
        client.create_consumer("S", "B", &json!({"filter_subject": "b.>"}));
        client.delete_msg("S", 1);
        assert_eq!(client.consumer_positions("S", "A").pending, 1);
        assert_eq!(client.consumer_positions("S", "B").pending, 1);
        assert_eq!(client.fetch("S", "A", 1)[0].stream_seq(), 3);
    });
}

#[test]
fn one_delivery_only_never_counts_as_redelivered() {
    // T-55
    with_stream(&["a.1", "a.2"], |client| {
        client.create_consumer(
            "S",
            "C",
            &json!({"max_deliver": 1, "ack_wait": ms_as_ns(200)}),
        );
        client.fetch("S", "C", 2);
        for _ in 0..400 {
            let info = client.consumer_info("S", "C");
            assert_eq!(info["num_redelivered"], 0, "{info}");
            if info["num_ack_pending"] == 0 {
                assert!(client.fetch_available("S", "C", 5).is_empty());
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("the messages are still pending after their ack wait");
    });
}

#[test]
fn headers_only_replaces_the_payload_by_its_size() {
    // CCFG-022
    with_stream(&[], |client| {
        client.store("a.1", "12345");
        client.store_with("a.1", &[("K", "v")], "1234567");
        client.create_consumer("S", "C", &json!({"headers_only": true}));
        let msgs = client.fetch("S", "C", 2);
        assert_eq!(
            msgs[0].header_text(),
            "NATS/1.0\r\nNats-Msg-Size: 5\r\n\r\n"
        );
        assert_eq!(
            msgs[1].header_text(),
            "NATS/1.0\r\nK: v\r\nNats-Msg-Size: 7\r\n\r\n"
        );
        assert!(msgs.iter().all(|msg| msg.payload.is_empty()));
    });
}
