//! Per-message life times and delete markers (spec rows TTL-001..010, TTL-012, TTL-013, SCFG-034,
//! SCFG-035; T-21, T-35..T-37).

use std::time::Duration;

use riverlog_tests::{Client, Msg, Sub, TestServer, WAIT, assert_json_has, ms_as_ns, secs_as_ns};
use serde_json::{Value, json};

const DISABLED: (u64, u64, &str) = (400, 10166, "per-message TTL is disabled");
const INVALID: (u64, u64, &str) = (400, 10165, "invalid per-message TTL");

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

/// Waits until the stream holds exactly these sequences.
#[track_caller]
fn await_seqs(client: &mut Client, expected: &[u64]) {
    let mut last = client.stored_seqs("S");
    for _ in 0..WAIT.as_millis() / 50 {
        if last == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
        last = client.stored_seqs("S");
    }
    assert_eq!(last, expected);
}

/// Stores a message with a life time; returns its sequence.
#[track_caller]
fn store_ttl(client: &mut Client, subject: &str, ttl: &str) -> u64 {
    client.store_with(subject, &[("Nats-TTL", ttl)], "x")
}

/// All messages from `first` on, through a consumer of their own.
#[track_caller]
fn read_from(client: &mut Client, name: &str, first: u64, count: usize) -> Vec<Msg> {
    let config = json!({"deliver_policy": "by_start_sequence", "opt_start_seq": first});
    client.create_consumer("S", name, &config);
    let msgs = client.fetch("S", name, count);
    client.api_ok(&format!("CONSUMER.DELETE.S.{name}"), &Value::Null);
    msgs
}

/// Waits with the consumer `WATCH` for messages that may be gone before somebody else could ask.
fn watch(client: &mut Client, batch: usize) -> Sub {
    let body = json!({"batch": batch, "expires": secs_as_ns(WAIT.as_secs())});
    client.pull_start("S", "WATCH", &body)
}

#[test]
fn a_message_leaves_at_the_end_of_its_life_and_keeps_its_header() {
    with_stream(json!({"allow_msg_ttl": true}), |client| {
        store_ttl(client, "s.a", "1h30m");
        store_ttl(client, "s.b", "1");
        client.store("s.c", "x");
        store_ttl(client, "s.d", "1.9s");
        store_ttl(client, "s.e", "NEVER");
        let msgs = read_from(client, "C", 1, 1);
        assert_eq!(msgs[0].header("Nats-TTL"), Some("1h30m"));
        await_seqs(client, &[1, 3, 5]);
        let state = client.stream_state("S");
        assert_json_has(&state, &json!({"messages": 3, "last_seq": 5}));
    });
}

#[test]
fn texts_that_are_no_life_time_are_refused() {
    let texts = ["0", "0.5s", "500ms", "-1", "-5s", "abc", "5 s", ""];
    with_stream(json!({"allow_msg_ttl": true}), |client| {
        for text in texts {
            client.refused("s.a", &[("Nats-TTL", text)], "x", INVALID);
        }
        assert_eq!(client.stream_span("S"), (0, 0, 0));
    });
    with_stream(json!({}), |client| {
        for text in ["5", "5s", "never"] {
            client.refused("s.a", &[("Nats-TTL", text)], "x", DISABLED);
        }
        client.refused("s.a", &[("Nats-TTL", "abc")], "x", INVALID);
        // PUB-029: the expected stream comes first, the expected sequence after it.
        let order = [("Nats-Expected-Stream", "X"), ("Nats-TTL", "5")];
        let other = (400, 10060, "expected stream does not match");
        client.refused("s.a", &order, "x", other);
        let order = [("Nats-Expected-Last-Sequence", "9"), ("Nats-TTL", "5")];
        client.refused("s.a", &order, "x", DISABLED);
        let info = client.api_ok("STREAM.INFO.S", &Value::Null);
        client.update_stream(
            &json!({"name": "S", "subjects": ["s.>"], "allow_msg_ttl": true,
            "storage": info["config"]["storage"]}),
        );
        assert_eq!(store_ttl(client, "s.a", "5"), 1);
    });
}

#[test]
fn the_earlier_of_life_time_and_max_age_counts_and_never_is_never() {
    let config = json!({"allow_msg_ttl": true, "max_age": ms_as_ns(1500),
        "duplicate_window": ms_as_ns(1000)});
    with_stream(config, |client| {
        store_ttl(client, "s.a", "never");
        store_ttl(client, "s.b", "1h");
        store_ttl(client, "s.c", "1s");
        client.store("s.d", "x");
        await_seqs(client, &[1]);
        // The one that stays does not keep later ones.
        client.store("s.e", "x");
        await_seqs(client, &[1]);
        assert_eq!(client.stream_span("S"), (1, 5, 1));
    });
}

#[test]
fn the_last_message_of_a_subject_leaves_a_marker_and_the_marker_nothing() {
    let config = json!({"subject_delete_marker_ttl": secs_as_ns(1), "max_msgs_per_subject": 1});
    with_stream(config, |client| {
        client.create_consumer("S", "WATCH", &json!({"deliver_policy": "new"}));
        let watch = watch(client, 4);
        store_ttl(client, "s.value", "1s");
        let purge = [("KV-Operation", "PURGE"), ("Nats-TTL", "1s")];
        client.store_with("s.purged", &purge, "");
        let marker = [("Nats-Marker-Reason", "MaxAge"), ("Nats-TTL", "1s")];
        client.store_with("s.marked", &marker, "");
        let msgs = client.pull_collect(watch, 4).msgs;
        let last = &msgs[3];
        assert_eq!((last.stream_seq(), last.subject.as_str()), (4, "s.value"));
        assert_eq!(last.payload, b"");
        assert_eq!(last.header("Nats-Marker-Reason"), Some("MaxAge"));
        assert_eq!(last.header("Nats-TTL"), Some("1s"));
        assert_eq!(last.header("Nats-Rollup"), Some("sub"));
        await_seqs(client, &[]);
        assert_eq!(client.stream_span("S"), (5, 4, 0));
    });
}

#[test]
fn max_age_leaves_a_marker_and_limits_deletes_and_purges_do_not() {
    let config = json!({"subject_delete_marker_ttl": secs_as_ns(3600), "max_msgs_per_subject": 1,
        "max_msgs": 4, "max_age": ms_as_ns(2000), "duplicate_window": ms_as_ns(1000)});
    with_stream(config, |client| {
        let config = json!({"deliver_policy": "new", "filter_subject": "s.age"});
        client.create_consumer("S", "WATCH", &config);
        let watch = watch(client, 2);
        client.store_all(&["s.limit", "s.delete", "s.purge", "s.age", "s.never"]);
        client.delete_msg("S", 2);
        client.purge("S", &json!({"filter": "s.purge"}));
        store_ttl(client, "s.never", "never");
        let marker = &client.pull_collect(watch, 2).msgs[1];
        assert_eq!((marker.stream_seq(), marker.subject.as_str()), (7, "s.age"));
        assert_eq!(marker.header("Nats-TTL"), Some("1h0m0s"));
        // The marker's own time is longer than the maximum age, which counts for it as well.
        await_seqs(client, &[6]);
        assert_eq!(client.stream_span("S"), (6, 7, 1));
    });
}

#[test]
fn a_life_time_shorter_than_that_of_the_marker_is_raised() {
    let config = json!({"subject_delete_marker_ttl": secs_as_ns(60)});
    with_stream(config, |client| {
        for ttl in ["5", "90s", "never", "1m"] {
            let headers = [("A", "1"), ("Nats-TTL", ttl), ("B", "2")];
            client.store_with("s.a", &headers, "x");
        }
        let msgs = read_from(client, "C", 1, 4);
        let found: Vec<Option<&str>> = msgs.iter().map(|msg| msg.header("Nats-TTL")).collect();
        assert_eq!(found, [Some("60"), Some("90s"), Some("never"), Some("1m")]);
        assert_eq!(msgs[0].header("A"), Some("1"));
        assert_eq!(msgs[0].header("B"), Some("2"));
    });
    // One message per subject: nothing else could have been noticed.
    let config = json!({"subject_delete_marker_ttl": secs_as_ns(60), "max_msgs_per_subject": 1});
    with_stream(config, |client| {
        store_ttl(client, "s.a", "50");
        let msgs = read_from(client, "C", 1, 1);
        assert_eq!(msgs[0].header("Nats-TTL"), Some("50"));
    });
}

#[test]
fn what_expired_while_the_server_was_down_is_removed_and_marked_at_the_start() {
    for stop in [TestServer::stop, TestServer::kill] {
        let mut server = TestServer::start();
        let mut client = server.connect();
        client.create_stream(&json!({"name": "S", "subjects": ["s.>"],
            "subject_delete_marker_ttl": secs_as_ns(3600), "max_msgs_per_subject": 1}));
        store_ttl(&mut client, "s.a", "1s");
        store_ttl(&mut client, "s.b", "1h");
        stop(&mut server);
        std::thread::sleep(Duration::from_millis(1100));
        server.start_again();
        let mut client = server.connect();
        await_seqs(&mut client, &[2, 3]);
        let msgs = read_from(&mut client, "C", 3, 1);
        assert_eq!(msgs[0].header("Nats-Marker-Reason"), Some("MaxAge"));
        assert_eq!(msgs[0].subject, "s.a");
    }
}

#[test]
fn what_a_configuration_may_ask_for() {
    let server = TestServer::start();
    let mut client = server.connect();
    let config = |extra: Value| {
        let mut config = json!({"name": "S", "subjects": ["s.>"]});
        for (key, value) in extra.as_object().expect("an object") {
            config[key] = value.clone();
        }
        config
    };
    let second = secs_as_ns(1);
    client.check_api_errors(&[
        (
            "STREAM.CREATE.S",
            config(json!({"subject_delete_marker_ttl": ms_as_ns(999)})),
            500,
            10052,
            "subject delete marker TTL must be at least 1 second",
        ),
        (
            "STREAM.CREATE.S",
            config(json!({"subject_delete_marker_ttl": -1})),
            500,
            10052,
            "subject delete marker TTL must not be negative",
        ),
        (
            "STREAM.CREATE.S",
            config(json!({"subject_delete_marker_ttl": second, "pedantic": true})),
            500,
            10052,
            "subject delete marker cannot be set if message TTLs are disabled",
        ),
        (
            "STREAM.CREATE.S",
            config(
                json!({"subject_delete_marker_ttl": second, "allow_msg_ttl": true,
                "pedantic": true}),
            ),
            500,
            10052,
            "subject delete marker cannot be set if roll-ups are disabled",
        ),
        (
            "STREAM.CREATE.S",
            config(
                json!({"subject_delete_marker_ttl": second, "allow_rollup_hdrs": true,
                "deny_purge": true}),
            ),
            500,
            10052,
            "roll-ups require the purge permission",
        ),
    ]);
    let created = client.create_stream(&config(json!({"deny_purge": true,
        "subject_delete_marker_ttl": second})));
    assert_json_has(
        &created["config"],
        &json!({"subject_delete_marker_ttl": second, "allow_msg_ttl": true,
            "allow_rollup_hdrs": true, "deny_purge": false}),
    );
    client.api_err(
        "STREAM.UPDATE.S",
        &config(json!({})),
        500,
        10052,
        "message TTL status can not be disabled",
    );
    // Markers can be turned off and on.
    let updated = client.update_stream(&config(json!({"allow_msg_ttl": true})));
    assert!(updated["config"]["subject_delete_marker_ttl"].is_null());
    store_ttl(&mut client, "s.a", "1");
    await_seqs(&mut client, &[]);
    client.update_stream(&config(
        json!({"subject_delete_marker_ttl": secs_as_ns(3600),
        "max_msgs_per_subject": 1}),
    ));
    store_ttl(&mut client, "s.a", "1");
    await_seqs(&mut client, &[3]);
}
