//! What each kind of ack does and when messages come again (spec rows ACK-*, DLV-012..018; T-09,
//! T-56..T-69, T-116).

use std::time::Duration;

use riverlog_tests::js::Positions;
use riverlog_tests::{Client, Msg, QUIET, TestServer, WAIT, ms_as_ns, secs_as_ns};
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

fn seqs(msgs: &[Msg]) -> Vec<u64> {
    msgs.iter().map(Msg::stream_seq).collect()
}

fn short_wait() -> Value {
    json!({"ack_wait": ms_as_ns(300)})
}

#[test]
fn positive_acks_move_the_floor() {
    // ACK-001, ACK-008
    for payload in ["", "+ACK", "+OK"] {
        with_consumer(2, &json!({}), |client| {
            let msgs = client.fetch("S", "C", 2);
            client.ack_with(&msgs[0], payload);
            let expected = Positions {
                delivered: (2, 2),
                floor: (1, 1),
                ack_pending: 1,
                pending: 0,
            };
            client.await_positions("S", "C", expected);
        });
    }
}

#[test]
fn acks_without_reply_subject_count_too() {
    with_consumer(3, &json!({}), |client| {
        for msg in client.fetch("S", "C", 3) {
            client.publish(msg.reply_subject(), None, b"+ACK");
        }
        let expected = Positions {
            delivered: (3, 3),
            floor: (3, 3),
            ack_pending: 0,
            pending: 0,
        };
        client.await_positions("S", "C", expected);
    });
}

#[test]
fn unacknowledged_messages_come_again_in_stream_order() {
    // DLV-012, T-56
    with_consumer(3, &short_wait(), |client| {
        client.fetch("S", "C", 3);
        for round in 2..4 {
            let again = client.fetch("S", "C", 3);
            assert_eq!(seqs(&again), [1, 2, 3]);
            assert!(again.iter().all(|msg| msg.delivery().delivered == round));
        }
    });
}

#[test]
fn redeliveries_come_before_new_messages() {
    // DLV-013
    with_consumer(5, &json!({}), |client| {
        for msg in client.fetch("S", "C", 3) {
            client.ack_with(&msg, "-NAK");
        }
        assert_eq!(seqs(&client.fetch("S", "C", 5)), [1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_nak_brings_the_message_back_at_once() {
    // ACK-002
    with_consumer(2, &json!({}), |client| {
        let msgs = client.fetch("S", "C", 2);
        client.ack_with(&msgs[1], "-NAK");
        client.ack_with(&msgs[0], "-NAK");
        // In order of arrival of the naks.
        let again = client.fetch("S", "C", 2);
        assert_eq!(seqs(&again), [2, 1]);
        assert_eq!(again[0].delivery().delivered, 2);
        assert_eq!(client.consumer_info("S", "C")["num_redelivered"], 2);
    });
}

#[test]
fn a_nak_with_delay_holds_the_message_back() {
    // ACK-003, T-61: the delay wins over the ack wait, in both directions.
    for (config, payload) in [
        (
            json!({"ack_wait": secs_as_ns(600)}),
            "-NAK {\"delay\": 300000000}",
        ),
        (json!({"ack_wait": secs_as_ns(600)}), "-NAK 300ms"),
        (json!({"ack_wait": ms_as_ns(100)}), "-NAK 1s"),
    ] {
        with_consumer(1, &config, |client| {
            let msg = client.fetch("S", "C", 1).remove(0);
            client.ack_with(&msg, payload);
            assert_eq!(client.consumer_info("S", "C")["num_ack_pending"], 1);
            assert!(client.fetch_available("S", "C", 1).is_empty());
            let again = client.fetch("S", "C", 1).remove(0);
            assert_eq!((again.stream_seq(), again.delivery().delivered), (1, 2));
        });
    }
    // What is no delay means: now.
    for payload in ["-NAK zork", "-NAK {\"delay\": 0}"] {
        with_consumer(1, &json!({"ack_wait": secs_as_ns(600)}), |client| {
            let msg = client.fetch("S", "C", 1).remove(0);
            client.ack_with(&msg, payload);
            assert_eq!(client.fetch("S", "C", 1)[0].delivery().delivered, 2);
        });
    }
}

#[test]
fn work_in_progress_restarts_the_ack_wait() {
    // ACK-004
    with_consumer(1, &json!({"ack_wait": ms_as_ns(1500)}), |client| {
        let msg = client.fetch("S", "C", 1).remove(0);
        for _ in 0..20 {
            client.ack_with(&msg, "+WPI");
            std::thread::sleep(Duration::from_millis(150));
        }
        assert!(
            client.fetch_available("S", "C", 1).is_empty(),
            "twice the ack wait has passed"
        );
        assert_eq!(client.fetch("S", "C", 1)[0].delivery().delivered, 2);
    });
}

#[test]
fn a_terminated_message_never_comes_again() {
    // ACK-005, ACK-006
    with_consumer(2, &short_wait(), |client| {
        let advisories = client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.C");
        let msgs = client.fetch("S", "C", 2);
        client.ack_with(&msgs[0], "+TERM bad data");
        client.ack(&msgs[1]);
        let expected = Positions {
            delivered: (2, 2),
            floor: (2, 2),
            ack_pending: 0,
            pending: 0,
        };
        client.await_positions("S", "C", expected);
        std::thread::sleep(QUIET);
        assert!(client.fetch_available("S", "C", 1).is_empty());
        let advisory = client.next(advisories).json();
        assert_eq!(advisory["type"], "io.nats.jetstream.advisory.v1.terminated");
        assert_eq!(
            (&advisory["stream_seq"], &advisory["reason"]),
            (&json!(1), &json!("bad data"))
        );
    });
}

#[test]
fn acks_of_messages_that_are_not_pending_are_answered_without_effect() {
    // ACK-011, ACK-013, T-62
    with_consumer(2, &json!({}), |client| {
        let msgs = client.fetch("S", "C", 2);
        client.ack(&msgs[0]);
        for payload in ["+ACK", "-NAK", "+WPI", "+TERM"] {
            client.ack_with(&msgs[0], payload);
        }
        let expected = Positions {
            delivered: (2, 2),
            floor: (1, 1),
            ack_pending: 1,
            pending: 0,
        };
        client.await_positions("S", "C", expected);
        assert!(client.fetch_available("S", "C", 1).is_empty());
    });
}

#[test]
fn acks_of_undelivered_messages_are_ignored() {
    // T-63
    with_consumer(3, &json!({}), |client| {
        let msg = client.fetch("S", "C", 1).remove(0);
        let forged = msg.reply_subject().replacen(".1.1.1.", ".1.3.3.", 1);
        assert_ne!(forged, msg.reply_subject());
        assert_eq!(client.try_request(&forged, &[], b"+ACK", QUIET), None);
        let expected = Positions {
            delivered: (1, 1),
            floor: (0, 0),
            ack_pending: 1,
            pending: 2,
        };
        client.await_positions("S", "C", expected);
        let others = client.fetch("S", "C", 2);
        assert_eq!(seqs(&others), [2, 3]);
    });
}

#[test]
fn ack_all_acknowledges_everything_before_it() {
    // ACK-009, T-64
    with_consumer(5, &json!({"ack_policy": "all"}), |client| {
        let msgs = client.fetch("S", "C", 4);
        client.ack(&msgs[2]);
        let expected = Positions {
            delivered: (4, 4),
            floor: (3, 3),
            ack_pending: 1,
            pending: 1,
        };
        client.await_positions("S", "C", expected);
        client.ack(&msgs[0]);
        client.await_positions("S", "C", expected);
    });
}

#[test]
fn without_ack_policy_delivered_means_acknowledged() {
    // ACK-010, T-68
    with_consumer(3, &json!({"ack_policy": "none"}), |client| {
        let msgs = client.fetch("S", "C", 2);
        client.publish(msgs[0].reply_subject(), None, b"-NAK");
        client.flush();
        let expected = Positions {
            delivered: (2, 2),
            floor: (2, 2),
            ack_pending: 0,
            pending: 1,
        };
        client.await_positions("S", "C", expected);
        let rest = client.fetch_available("S", "C", 5);
        assert_eq!(seqs(&rest), [3]);
    });
}

#[test]
fn a_late_ack_of_an_earlier_delivery_counts() {
    // T-65
    with_consumer(1, &short_wait(), |client| {
        let first = client.fetch("S", "C", 1).remove(0);
        let again = client.fetch("S", "C", 1).remove(0);
        assert_eq!(again.delivery().delivered, 2);
        client.ack(&first);
        let expected = Positions {
            delivered: (2, 1),
            floor: (2, 1),
            ack_pending: 0,
            pending: 0,
        };
        client.await_positions("S", "C", expected);
        std::thread::sleep(QUIET);
        assert!(client.fetch_available("S", "C", 1).is_empty());
    });
}

#[test]
fn ack_and_next_answers_with_messages() {
    // ACK-007, T-66
    with_consumer(4, &json!({}), |client| {
        let msg = client.fetch("S", "C", 1).remove(0);
        let inbox = client.new_inbox();
        let sub = client.subscribe(&inbox);
        client.publish(msg.reply_subject(), Some(&inbox), b"+NXT 2");
        assert_eq!(client.next(sub).stream_seq(), 2);
        assert_eq!(client.next(sub).stream_seq(), 3);
        let expected = Positions {
            delivered: (3, 3),
            floor: (1, 1),
            ack_pending: 2,
            pending: 1,
        };
        client.await_positions("S", "C", expected);
        assert_eq!(client.next_within(sub, QUIET), None);
    });
}

#[test]
fn no_new_message_while_too_many_are_unacknowledged() {
    // DLV-015, T-67, T-117
    with_consumer(5, &json!({"max_ack_pending": 2}), |client| {
        let msgs = client.fetch("S", "C", 2);
        let sub = client.pull_start("S", "C", &json!({"batch": 5, "expires": secs_as_ns(60)}));
        assert_eq!(client.next_within(sub, QUIET), None);
        client.ack_with(&msgs[0], "-NAK");
        let again = client.next(sub);
        assert_eq!((again.stream_seq(), again.delivery().delivered), (1, 2));
        client.ack(&msgs[1]);
        assert_eq!(client.next(sub).stream_seq(), 3);
        assert_eq!(client.next_within(sub, QUIET), None);
        client.ack(&again);
        assert_eq!(client.next(sub).stream_seq(), 4);
    });
}

#[test]
fn after_the_last_allowed_delivery_one_advisory_is_sent() {
    // DLV-014, T-58
    with_consumer(
        1,
        &json!({"max_deliver": 2, "ack_wait": ms_as_ns(200)}),
        |client| {
            let advisories = client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.C");
            for delivered in 1..=2 {
                assert_eq!(client.fetch("S", "C", 1)[0].delivery().delivered, delivered);
            }
            let sub = client.pull_start("S", "C", &json!({"expires": secs_as_ns(60)}));
            let advisory = client.next(advisories).json();
            assert_eq!(
                advisory["type"],
                "io.nats.jetstream.advisory.v1.max_deliver"
            );
            assert_eq!(advisory["stream"], "S");
            assert_eq!(advisory["consumer"], "C");
            assert_eq!(
                (&advisory["stream_seq"], &advisory["deliveries"]),
                (&json!(1), &json!(2))
            );
            assert_eq!(client.consumer_info("S", "C")["num_ack_pending"], 0);
            client.store("s.a", "next");
            assert_eq!(client.next(sub).stream_seq(), 2);
            assert_eq!(client.next_within(advisories, QUIET), None);
            // T-60: raising the limit later does not revive it.
            let raised = json!({"max_deliver": 5, "ack_wait": ms_as_ns(200)});
            client.create_consumer("S", "C", &raised);
            assert_eq!(client.fetch("S", "C", 1)[0].stream_seq(), 2);
        },
    );
}

#[test]
fn backoff_steps_replace_the_ack_wait() {
    // T-57, T-116: the ack wait is the first step; the last step repeats.
    let config = json!({"backoff": [ms_as_ns(100), ms_as_ns(300)], "max_deliver": 4});
    with_consumer(1, &config, |client| {
        assert_eq!(
            client.consumer_info("S", "C")["config"]["ack_wait"],
            ms_as_ns(100)
        );
        let sub = client.pull_start("S", "C", &json!({"batch": 9, "expires": secs_as_ns(60)}));
        for delivered in 1..=4 {
            assert_eq!(client.next(sub).delivery().delivered, delivered);
        }
        assert_eq!(client.next_within(sub, QUIET), None);
    });
}

#[test]
fn a_shorter_ack_wait_applies_to_messages_already_delivered() {
    // T-69
    with_consumer(1, &json!({"ack_wait": secs_as_ns(600)}), |client| {
        client.fetch("S", "C", 1);
        client.create_consumer("S", "C", &json!({"ack_wait": ms_as_ns(100)}));
        assert_eq!(client.fetch("S", "C", 1)[0].delivery().delivered, 2);
    });
}

#[test]
fn deleting_a_pending_message_terminates_it() {
    // T-09, DLV-018
    with_consumer(3, &json!({}), |client| {
        let advisories = client.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.C");
        client.fetch("S", "C", 2);
        client.delete_msg("S", 1);
        let advisory = client.next(advisories).json();
        assert_eq!(advisory["stream_seq"], 1);
        assert_eq!(advisory["deliveries"], 1);
        assert_eq!(advisory["reason"], "Unacknowledged message was deleted");
        let info = client.consumer_info("S", "C");
        assert_eq!(
            (&info["num_ack_pending"], &info["num_pending"]),
            (&json!(1), &json!(1))
        );
    });
}

#[test]
fn work_queues_remove_what_was_acknowledged_or_terminated() {
    // DLV-025
    let server = TestServer::start();
    let mut client = server.connect();
    client.create_stream(&json!({"name": "W", "subjects": ["w"], "retention": "workqueue"}));
    client.store_many("w", 4);
    client.create_consumer("W", "C", &json!({}));
    let msgs = client.fetch("W", "C", 3);
    client.ack(&msgs[1]);
    client.ack_with(&msgs[0], "+TERM");
    client.ack_with(&msgs[2], "-NAK");
    await_stored(&mut client, "W", &[3, 4]);
    // T-114: a message that was delivered before is new for the next consumer.
    client.api_ok("CONSUMER.DELETE.W.C", &Value::Null);
    client.create_consumer("W", "D", &json!({}));
    let msg = client.fetch("W", "D", 1).remove(0).delivery();
    assert_eq!((msg.stream_seq, msg.delivered), (3, 1));
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
