//! What a purge does to consumers (T-01..T-04, T-11).

use riverlog_tests::js::Positions;
use riverlog_tests::{Client, QUIET, TestServer, ms_as_ns};
use serde_json::{Value, json};

fn with_stream(test: impl Fn(&mut Client)) {
    let server = TestServer::start();
    for storage in ["file", "memory"] {
        let mut client = server.connect();
        client.create_stream(&json!({"name": "S", "subjects": ["foo.>"], "storage": storage}));
        test(&mut client);
        client.api_ok("STREAM.DELETE.S", &Value::Null);
    }
}

#[test]
fn a_full_purge_settles_everything_delivered() {
    // T-01
    with_stream(|client| {
        client.store_many("foo.a", 100);
        client.create_consumer("S", "C", &json!({}));
        let msgs = client.fetch("S", "C", 75);
        client.ack_all_of(&msgs[..50]);
        assert_eq!(client.purge("S", &Value::Null), 100);
        let positions = client.consumer_positions("S", "C");
        assert_eq!((positions.ack_pending, positions.pending), (0, 0));
        assert_eq!(positions.delivered, (75, 100));
        assert_eq!(positions.floor, (75, 100));
        assert_eq!(client.store("foo.a", "next"), 101);
        let msg = client.fetch("S", "C", 1).remove(0).delivery();
        assert_eq!(
            (msg.stream_seq, msg.consumer_seq, msg.delivered),
            (101, 76, 1)
        );
    });
}

#[test]
fn purged_messages_are_not_redelivered() {
    // T-02
    with_stream(|client| {
        client.store_many("foo.a", 50);
        client.create_consumer("S", "C", &json!({"ack_wait": ms_as_ns(300)}));
        client.fetch("S", "C", 50);
        // The first one comes again, so the ack wait has passed for it.
        assert_eq!(client.fetch("S", "C", 1)[0].delivery().delivered, 2);
        client.purge("S", &Value::Null);
        std::thread::sleep(QUIET);
        assert!(client.fetch_available("S", "C", 10).is_empty());
        let positions = client.consumer_positions("S", "C");
        assert_eq!((positions.ack_pending, positions.pending), (0, 0));
        assert_eq!(positions.floor.1, 50);
    });
}

#[test]
fn a_purge_narrower_than_the_filter_keeps_the_other_pending_messages() {
    // T-03: six messages a/b alternating, four delivered, then a purged.
    with_stream(|client| {
        client.store_all(&["foo.a", "foo.b", "foo.a", "foo.b", "foo.a", "foo.b"]);
        client.create_consumer(
            "S",
            "C",
            &json!({"filter_subject": "foo.>", "ack_wait": ms_as_ns(300)}),
        );
        client.fetch("S", "C", 4);
        assert_eq!(client.purge("S", &json!({"filter": "foo.a"})), 3);
        let positions = client.consumer_positions("S", "C");
        assert_eq!((positions.ack_pending, positions.pending), (2, 1));
        let mut seqs: Vec<u64> = client
            .fetch("S", "C", 3)
            .iter()
            .map(|msg| msg.stream_seq())
            .collect();
        seqs.sort_unstable();
        assert_eq!(seqs, [2, 4, 6]);
    });
}

#[test]
fn a_purge_as_wide_as_the_filter_moves_the_consumer_on() {
    // T-04
    with_stream(|client| {
        client.store_all(&["foo.a", "foo.b", "foo.a", "foo.b"]);
        client.create_consumer("S", "C", &json!({"filter_subject": "foo.a"}));
        client.fetch("S", "C", 1);
        assert_eq!(client.purge("S", &json!({"filter": "foo.a"})), 2);
        let positions = client.consumer_positions("S", "C");
        assert_eq!((positions.ack_pending, positions.pending), (0, 0));
        assert!(client.fetch_available("S", "C", 5).is_empty());
        client.store_all(&["foo.b", "foo.a"]);
        assert_eq!(client.fetch("S", "C", 1)[0].stream_seq(), 6);
    });
}

#[test]
fn a_purge_up_to_a_sequence_leaves_the_rest_pending() {
    with_stream(|client| {
        client.store_many("foo.a", 10);
        client.create_consumer("S", "C", &json!({}));
        let msgs = client.fetch("S", "C", 6);
        client.ack(&msgs[4]);
        client.purge("S", &json!({"seq": 4}));
        let expected = Positions {
            delivered: (6, 6),
            floor: (3, 3),
            ack_pending: 2,
            pending: 4,
        };
        client.await_positions("S", "C", expected);
        client.ack(&msgs[3]);
        let expected = Positions {
            delivered: (6, 6),
            floor: (5, 5),
            ack_pending: 1,
            pending: 4,
        };
        client.await_positions("S", "C", expected);
    });
}

#[test]
fn messages_dropped_by_limits_while_pending_are_not_redelivered() {
    // T-11
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "S", "subjects": ["s"], "max_msgs": 2}));
    client.store_many("s", 2);
    client.create_consumer("S", "C", &json!({"ack_wait": ms_as_ns(300)}));
    client.fetch("S", "C", 2);
    client.store_many("s", 2);
    std::thread::sleep(QUIET);
    let seqs: Vec<u64> = client
        .fetch("S", "C", 2)
        .iter()
        .map(|msg| msg.stream_seq())
        .collect();
    assert_eq!(seqs, [3, 4]);
}
