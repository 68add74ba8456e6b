//! Pull consumers: configuration, delivery, acknowledgement, redelivery, lifetime.

mod js;

use js::{Client, Msg, TestServer, payloads};
use serde_json::{Value, json};

const MS: u64 = 1_000_000;

/// A server whose stream `S` holds messages 1 to `count` on subject `s.a`.
fn filled(count: usize) -> (TestServer, Client) {
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["s.>"]}));
    for i in 1..=count {
        client.put("s.a", &i.to_string());
    }
    (server, client)
}

fn durable(extra: Value) -> Value {
    let mut config = json!({"durable_name": "c", "ack_policy": "explicit"});
    let object = config.as_object_mut().unwrap();
    object.extend(extra.as_object().unwrap().clone());
    config
}

fn positions(info: &Value) -> (u64, u64, u64, u64) {
    let number = |a: &str, b: &str| info[a][b].as_u64().unwrap();
    (
        number("delivered", "consumer_seq"),
        number("delivered", "stream_seq"),
        number("ack_floor", "consumer_seq"),
        number("ack_floor", "stream_seq"),
    )
}

fn tokens(messages: &[Msg]) -> Vec<(u64, u64, u64, u64)> {
    messages.iter().map(Msg::ack_token).collect()
}

#[test]
fn a_new_consumer_shows_its_whole_configuration() {
    // CAPI-001, CAPI-011, CCFG-049
    let (_server, mut client) = filled(3);
    let mut reply = client.create_consumer("S", durable(json!({"filter_subject": "s.a"})));
    for field in ["created", "ts"] {
        reply.as_object_mut().unwrap().remove(field);
    }
    assert_eq!(
        reply,
        json!({
            "type": "io.nats.jetstream.api.v1.consumer_create_response",
            "stream_name": "S", "name": "c",
            "config": {
                "durable_name": "c", "name": "c", "deliver_policy": "all",
                "ack_policy": "explicit", "ack_wait": 30_000_000_000_u64, "max_deliver": -1,
                "filter_subject": "s.a", "replay_policy": "instant", "max_waiting": 512,
                "max_ack_pending": 1000, "num_replicas": 0,
                "metadata": {"_nats.level": "5", "_nats.req.level": "0", "_nats.ver": "2.15.1"},
            },
            "delivered": {"consumer_seq": 0, "stream_seq": 0},
            "ack_floor": {"consumer_seq": 0, "stream_seq": 0},
            "num_ack_pending": 0, "num_redelivered": 0, "num_waiting": 0, "num_pending": 3,
        })
    );
}

#[test]
fn create_requests_that_are_refused() {
    // CAPI-002..009
    let (_server, mut client) = filled(0);
    let body = |config: Value| json!({"stream_name": "S", "config": config});
    for (subject, body, err_code) in [
        (
            "CONSUMER.CREATE.S",
            body(json!({"durable_name": "c"})),
            10020,
        ),
        (
            "CONSUMER.CREATE.S.c",
            body(json!({"durable_name": "d"})),
            10017,
        ),
        ("CONSUMER.DURABLE.CREATE.S.c", body(json!({})), 10018),
        (
            "CONSUMER.DURABLE.CREATE.S.c",
            body(json!({"durable_name": "d"})),
            10017,
        ),
        ("CONSUMER.CREATE.S.c.s.a", body(json!({})), 10131),
        (
            "CONSUMER.CREATE.S.c.s.a",
            body(json!({"filter_subjects": ["s.a"]})),
            10137,
        ),
        ("CONSUMER.CREATE.S.a/b", body(json!({})), 10127),
        (
            "CONSUMER.CREATE.S.c",
            json!({"stream_name": "T", "config": {}}),
            10056,
        ),
        (
            "CONSUMER.CREATE.T.c",
            json!({"stream_name": "T", "config": {}}),
            10059,
        ),
        (
            "CONSUMER.CREATE.S.c",
            json!({"stream_name": "S", "config": {}, "action": "update"}),
            10149,
        ),
        (
            "CONSUMER.CREATE.S.c",
            body(json!({"num_replicas": 3})),
            10074,
        ),
        (
            "CONSUMER.CREATE.S.c",
            body(json!({"priority_policy": "overflow", "priority_groups": ["a"]})),
            10012,
        ),
        ("CONSUMER.INFO.S.c", Value::Null, 10014),
        ("CONSUMER.INFO.S.c", json!({"a": 1}), 10038),
        ("CONSUMER.DELETE.S.c", Value::Null, 10014),
        ("CONSUMER.PAUSE.S.c", Value::Null, 10014),
        ("CONSUMER.NAMES.T", Value::Null, 10059),
    ] {
        assert_eq!(
            client.refused(subject, body.clone()).0,
            err_code,
            "{subject} {body}"
        );
    }
}

#[test]
fn create_can_update_and_repeat() {
    // CAPI-006, CAPI-007, CCFG-045, CCFG-046, T-89
    let (_server, mut client) = filled(0);
    client.create_consumer("S", durable(json!({})));
    client.create_consumer("S", durable(json!({"metadata": {"_nats.ver": "1"}})));
    let reply = client.create_consumer(
        "S",
        durable(json!({"ack_wait": 5, "filter_subject": "s.b"})),
    );
    assert_eq!(
        (
            &reply["config"]["ack_wait"],
            &reply["config"]["filter_subject"]
        ),
        (&json!(5), &json!("s.b"))
    );
    let with_action = |action: &str| json!({"stream_name": "S", "action": action, "config": durable(json!({"ack_wait": 7}))});
    assert_eq!(
        client
            .refused("CONSUMER.CREATE.S.c", with_action("create"))
            .0,
        10148
    );
    client.ok("CONSUMER.CREATE.S.c", with_action("update"));
    client.ok("CONSUMER.CREATE.S.c", with_action("create"));
    let fixed = json!({"stream_name": "S", "config": durable(json!({"deliver_policy": "new"}))});
    let refused = client.refused("CONSUMER.CREATE.S.c", fixed);
    assert_eq!(
        refused,
        (10012, "deliver policy can not be updated".to_owned())
    );
}

#[test]
fn names_are_generated_and_listed() {
    // CCFG-002, CAPI-012
    let (_server, mut client) = filled(0);
    let reply = client.ok(
        "CONSUMER.CREATE.S",
        json!({"stream_name": "S", "config": {}}),
    );
    let name = reply["name"].as_str().unwrap().to_owned();
    assert_eq!(name.len(), 8);
    assert!(reply["config"].get("name").is_none());
    client.create_consumer("S", durable(json!({})));
    let names = client.ok("CONSUMER.NAMES.S", Value::Null);
    let mut wanted = vec![name, "c".to_owned()];
    wanted.sort();
    assert_eq!(
        (&names["consumers"], &names["limit"]),
        (&json!(wanted), &json!(1024))
    );
    let list = client.ok("CONSUMER.LIST.S", json!({"offset": 1}));
    assert_eq!(list["consumers"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&list["total"], &list["offset"], &list["limit"]),
        (&json!(2), &json!(1), &json!(256))
    );
    client.ok("CONSUMER.DELETE.S.c", Value::Null);
    assert_eq!(client.ok("CONSUMER.NAMES.S", Value::Null)["total"], 1);
}

#[test]
fn a_stream_takes_so_many_consumers() {
    // CAPI-008
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "max_consumers": 1}));
    client.create_consumer("S", durable(json!({})));
    let body = json!({"stream_name": "S", "config": {"name": "d"}});
    assert_eq!(client.refused("CONSUMER.CREATE.S.d", body).0, 10026);
}

#[test]
fn a_delivery_carries_subject_headers_and_positions() {
    // DLV-001, DLV-003..005
    let (_server, mut client) = filled(0);
    client.put("s.a", "1");
    client.put_with("s.b", &[("X", "y")], "2");
    client.create_consumer("S", durable(json!({})));
    let messages = client.fetch("S", "c", 2);
    assert_eq!(
        (messages[0].subject.as_str(), messages[0].headers.as_str()),
        ("s.a", "")
    );
    assert_eq!(messages[1].headers, "NATS/1.0\r\nX: y\r\n\r\n");
    assert!(messages[0].reply.starts_with("$JS.ACK.S.c.1.1.1."));
    assert_eq!(tokens(&messages), [(1, 1, 1, 1), (1, 2, 2, 0)]);
}

#[test]
fn headers_only() {
    // CCFG-022
    let (_server, mut client) = filled(0);
    client.put("s.a", "hello");
    client.put_with("s.a", &[("X", "y")], "hey");
    client.create_consumer("S", durable(json!({"headers_only": true})));
    let messages = client.fetch("S", "c", 2);
    assert_eq!(messages[0].headers, "NATS/1.0\r\nNats-Msg-Size: 5\r\n\r\n");
    assert_eq!(
        messages[1].headers,
        "NATS/1.0\r\nX: y\r\nNats-Msg-Size: 3\r\n\r\n"
    );
    assert_eq!(payloads(&messages), ["", ""]);
}

#[test]
fn start_positions() {
    // DLV-006..011, T-46, T-48
    let (_server, mut client) = filled(0);
    for subject in ["s.x", "s.y", "s.x", "s.z"] {
        client.put(subject, "old");
    }
    for (policy, extra, wanted) in [
        ("all", json!({}), vec![1, 2, 3, 4, 5]),
        ("last", json!({}), vec![4, 5]),
        ("last", json!({"filter_subject": "s.x"}), vec![3, 5]),
        ("new", json!({}), vec![5]),
        (
            "by_start_sequence",
            json!({"opt_start_seq": 3}),
            vec![3, 4, 5],
        ),
        (
            "by_start_time",
            json!({"opt_start_time": "2000-01-01T00:00:00Z"}),
            vec![1, 2, 3, 4, 5],
        ),
        (
            "last_per_subject",
            json!({"filter_subjects": ["s.x", "s.y"]}),
            vec![2, 3, 5],
        ),
    ] {
        let mut config = durable(extra);
        config["deliver_policy"] = json!(policy);
        let info = client.create_consumer("S", config);
        assert_eq!(info["num_pending"], wanted.len() - 1, "{policy}");
        client.put("s.x", "new");
        let got: Vec<u64> = client
            .fetch("S", "c", wanted.len())
            .iter()
            .map(|m| m.ack_token().1)
            .collect();
        assert_eq!(got, wanted, "{policy}");
        client.ok("CONSUMER.DELETE.S.c", Value::Null);
        client.ok("STREAM.MSG.DELETE.S", json!({"seq": 5}));
        client.ok("STREAM.DELETE.S", Value::Null);
        client.create_stream(json!({"name": "S", "subjects": ["s.>"]}));
        for subject in ["s.x", "s.y", "s.x", "s.z"] {
            client.put(subject, "old");
        }
    }
}

#[test]
fn acknowledgements_move_the_floor() {
    // DLV-016, ACK-001, ACK-008, T-43
    let (_server, mut client) = filled(11);
    client.create_consumer("S", durable(json!({})));
    let messages = client.fetch("S", "c", 11);
    client.ack(&messages[0], "-NAK");
    for msg in &messages[1..10] {
        client.ack(msg, "+ACK");
    }
    let info = client.consumer_info("S", "c");
    assert_eq!(positions(&info), (11, 11, 0, 0));
    assert_eq!(info["num_ack_pending"], 2);
    let again = client.fetch("S", "c", 1);
    assert_eq!(again[0].ack_token(), (2, 1, 12, 0));
    client.ack(&again[0], "");
    assert_eq!(positions(&client.consumer_info("S", "c")), (12, 11, 10, 10));
    client.ack(&messages[10], "+OK");
    let info = client.consumer_info("S", "c");
    assert_eq!(positions(&info), (12, 11, 12, 11));
    assert_eq!(
        (&info["num_ack_pending"], &info["num_redelivered"]),
        (&json!(0), &json!(0))
    );
    // ACK-011: again is fine. ACK-012: never delivered is not.
    client.ack(&messages[10], "+ACK");
    let inbox = client.inbox();
    client.publish("$JS.ACK.S.c.1.99.99.1.0", &inbox, &[], "");
    assert_eq!(client.settle(), []);
}

#[test]
fn ack_all_and_ack_none() {
    // ACK-009, ACK-010, T-64, T-68
    let (_server, mut client) = filled(3);
    client.create_consumer("S", json!({"durable_name": "c", "ack_policy": "all"}));
    let messages = client.fetch("S", "c", 3);
    client.ack(&messages[1], "+ACK");
    let info = client.consumer_info("S", "c");
    assert_eq!(
        (positions(&info), &info["num_ack_pending"]),
        ((3, 3, 2, 2), &json!(1))
    );
    client.create_consumer("S", json!({"durable_name": "n", "ack_policy": "none"}));
    client.fetch("S", "n", 3);
    let info = client.consumer_info("S", "n");
    assert_eq!(
        (positions(&info), &info["num_ack_pending"]),
        ((3, 3, 3, 3), &json!(0))
    );
}

#[test]
fn unacknowledged_messages_come_again_in_order() {
    // DLV-012, DLV-013, T-56
    let (_server, mut client) = filled(4);
    client.create_consumer("S", durable(json!({"ack_wait": 100 * MS})));
    client.fetch("S", "c", 3);
    client.pull("S", "c", "4");
    let all: Vec<Msg> = (0..4).map(|_| client.next()).collect();
    let (first, again): (Vec<_>, Vec<_>) = tokens(&all).into_iter().partition(|token| token.0 == 1);
    assert_eq!(first.iter().map(|token| token.1).collect::<Vec<_>>(), [4]);
    assert_eq!(
        again.iter().map(|token| token.1).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(client.consumer_info("S", "c")["num_redelivered"], 3);
}

#[test]
fn nak_with_delay_term_and_progress() {
    // ACK-002..007, ADV-007, ADV-008, T-61
    let (_server, mut client) = filled(3);
    client.create_consumer("S", durable(json!({"ack_wait": 30_000 * MS})));
    client.send("SUB $JS.EVENT.ADVISORY.CONSUMER.*.S.c 2\r\n");
    let messages = client.fetch("S", "c", 2);
    client.ack(&messages[0], "-NAK {\"delay\": 500000000}");
    client.ack(&messages[1], "+TERM no use");
    let mut events: Vec<Msg> = (0..2).map(|_| client.next()).collect();
    events.sort_by(|a, b| a.subject.cmp(&b.subject));
    let event: Value = serde_json::from_str(&events[0].payload).unwrap();
    assert_eq!(
        (&event["stream_seq"], &event["deliveries"]),
        (&json!(1), &json!(1))
    );
    let event: Value = serde_json::from_str(&events[1].payload).unwrap();
    assert_eq!(
        (&event["stream_seq"], &event["reason"]),
        (&json!(2), &json!("no use"))
    );
    assert_eq!(client.consumer_info("S", "c")["num_ack_pending"], 1);
    client.pull("S", "c", "2");
    assert_eq!(client.next().ack_token().1, 3);
    let again = client.next();
    assert_eq!(again.ack_token(), (2, 1, 4, 0));
    client.ack(&again, "+WPI");
    assert_eq!(client.consumer_info("S", "c")["num_ack_pending"], 2);
}

#[test]
fn next_message_on_acknowledgement() {
    // ACK-007, T-66
    let (_server, mut client) = filled(2);
    client.create_consumer("S", durable(json!({})));
    let first = client.fetch("S", "c", 1).remove(0);
    let inbox = client.inbox();
    client.publish(&first.reply, &inbox, &[], "+NXT {\"batch\":1}");
    assert_eq!(client.next().ack_token().1, 2);
    assert_eq!(client.consumer_info("S", "c")["num_ack_pending"], 1);
}

#[test]
fn deliveries_are_limited() {
    // DLV-014, ADV-006, T-55, T-58
    let (_server, mut client) = filled(1);
    client.send("SUB $JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.* 2\r\n");
    client.create_consumer("S", durable(json!({"ack_wait": 50 * MS, "max_deliver": 1})));
    client.fetch("S", "c", 1);
    let event = client.next();
    assert_eq!(
        event.subject,
        "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c"
    );
    let event: Value = serde_json::from_str(&event.payload).unwrap();
    assert_eq!(
        (&event["stream_seq"], &event["deliveries"]),
        (&json!(1), &json!(1))
    );
    let info = client.consumer_info("S", "c");
    assert_eq!(
        (&info["num_ack_pending"], &info["num_redelivered"]),
        (&json!(0), &json!(0))
    );
    client.pull("S", "c", r#"{"no_wait":true}"#);
    assert_eq!(client.next().status(), "404 No Messages");
}

#[test]
fn backoff_steps() {
    // CCFG-012, T-57, T-116
    let (_server, mut client) = filled(1);
    client.create_consumer(
        "S",
        durable(json!({"backoff": [20 * MS, 40 * MS], "max_deliver": 3})),
    );
    client.pull("S", "c", "4");
    let got: Vec<u64> = (0..3).map(|_| client.next().ack_token().0).collect();
    assert_eq!(got, [1, 2, 3]);
    client.wait_for("giving up", |client| {
        client.consumer_info("S", "c")["num_ack_pending"] == 0
    });
}

#[test]
fn deliveries_stop_while_too_many_are_open() {
    // DLV-015, T-67
    let (_server, mut client) = filled(3);
    client.create_consumer("S", durable(json!({"max_ack_pending": 1})));
    client.pull("S", "c", "3");
    let first = client.next();
    assert_eq!(client.settle(), []);
    client.ack(&first, "+ACK");
    let second = client.next();
    assert_eq!(second.ack_token().1, 2);
    client.ack(&second, "+TERM");
    assert_eq!(client.next().ack_token().1, 3);
}

#[test]
fn requests_that_end_at_once() {
    // PULL-004, PULL-008, PULL-013..015, PULL-018, PULL-022, T-76
    let (_server, mut client) = filled(0);
    client.create_consumer(
        "S",
        durable(json!({"max_batch": 2, "max_expires": 1500 * MS, "max_bytes": 100})),
    );
    for (body, status) in [
        (r#"{"no_wait":true}"#, "404 No Messages"),
        ("{", "400 Bad Request - unexpected end of JSON input"),
        ("3", "409 Exceeded MaxRequestBatch of 2"),
        (
            r#"{"expires":3600000000000}"#,
            "409 Exceeded MaxRequestExpires of 1.5s",
        ),
        (
            r#"{"batch":1,"max_bytes":101}"#,
            "409 Exceeded MaxRequestMaxBytes of 100",
        ),
        (
            r#"{"idle_heartbeat":5}"#,
            "400 Bad Request - heartbeat value too large",
        ),
    ] {
        client.pull("S", "c", body);
        assert_eq!(client.next().status(), status, "{body}");
    }
    let answer = client.request_with(
        "$JS.API.CONSUMER.MSG.NEXT.S.c",
        &[("Nats-Required-Api-Level", "6")],
        "",
    );
    assert_eq!(answer.headers, "NATS/1.0 412 Required Api Level\r\n\r\n");
}

#[test]
fn expiry_and_heartbeats() {
    // PULL-006, PULL-018, T-70, T-72
    let (_server, mut client) = filled(2);
    client.create_consumer("S", durable(json!({})));
    client.pull(
        "S",
        "c",
        r#"{"batch":5,"expires":1200000000,"idle_heartbeat":500000000,"max_bytes":1000}"#,
    );
    let messages = [client.next(), client.next()];
    let used: usize = messages
        .iter()
        .map(|m| m.subject.len() + m.reply.len() + m.payload.len())
        .sum();
    let beat = client.next();
    assert_eq!(
        beat.headers,
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 2\r\nNats-Last-Stream: 2\r\n\r\n"
    );
    let mut end = client.next();
    while end.status() == "100 Idle Heartbeat" {
        end = client.next();
    }
    assert_eq!(
        end.headers,
        format!(
            "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\nNats-Pending-Bytes: {}\r\n\r\n",
            1000 - used
        )
    );
}

#[test]
fn no_wait_gets_what_is_there() {
    // PULL-010, T-71
    let (_server, mut client) = filled(2);
    client.create_consumer("S", durable(json!({})));
    client.pull(
        "S",
        "c",
        r#"{"batch":5,"no_wait":true,"expires":5000000000}"#,
    );
    assert_eq!(payloads(&[client.next(), client.next()]), ["1", "2"]);
    assert_eq!(client.next().status(), "404 No Messages");
}

#[test]
fn requests_are_limited_in_bytes() {
    // PULL-016, PULL-017, T-45, T-74, T-75
    let (_server, mut client) = filled(0);
    for _ in 0..4 {
        client.put("s.a", &"x".repeat(100));
    }
    client.create_consumer("S", durable(json!({})));
    client.pull("S", "c", r#"{"batch":10,"max_bytes":50}"#);
    let end = client.next();
    assert_eq!(end.status(), "409 Message Size Exceeds MaxBytes");
    assert_eq!(end.header("Nats-Pending-Messages"), Some("10"));
    assert_eq!(client.consumer_info("S", "c")["num_pending"], 4);
    client.pull("S", "c", r#"{"batch":10,"max_bytes":300}"#);
    let first = client.next();
    assert_eq!(first.ack_token().1, 1);
    client.next();
    assert_eq!(client.next().status(), "409 Message Size Exceeds MaxBytes");
    client.pull("S", "c", r#"{"batch":1,"max_bytes":5000}"#);
    client.next();
    assert_eq!(client.next().status(), "409 Batch Completed");
    client.pull("S", "c", r#"{"batch":0,"max_bytes":5000}"#);
    client.next();
    assert_eq!(client.next().header("Nats-Pending-Messages"), Some("-1"));
}

#[test]
fn messages_go_to_requests_in_turn() {
    // PULL-020
    let (server, mut client) = filled(0);
    client.create_consumer("S", durable(json!({})));
    let mut other = server.client();
    client.pull("S", "c", "2");
    client.settle();
    other.send("SUB other 9\r\n");
    other.publish("$JS.API.CONSUMER.MSG.NEXT.S.c", "other", &[], "2");
    other.settle();
    assert_eq!(client.consumer_info("S", "c")["num_waiting"], 2);
    let mut publisher = server.client();
    for i in 1..=4 {
        publisher.put("s.a", &i.to_string());
    }
    assert_eq!(payloads(&[client.next(), client.next()]), ["1", "3"]);
    assert_eq!(payloads(&[other.next(), other.next()]), ["2", "4"]);
}

#[test]
fn waiting_requests_are_limited() {
    // PULL-012, T-73
    let (_server, mut client) = filled(0);
    client.create_consumer("S", durable(json!({"max_waiting": 1})));
    client.pull("S", "c", "1");
    client.pull("S", "c", "1");
    assert_eq!(client.next().status(), "409 Exceeded MaxWaiting");
    client.pull(
        "S",
        "c",
        r#"{"batch":1,"expires":5000000000,"idle_heartbeat":1000000000}"#,
    );
    assert_eq!(client.settle(), []);
}

#[test]
fn a_receiver_that_left_gets_nothing() {
    // PULL-026, T-77
    let (server, mut client) = filled(0);
    client.create_consumer("S", durable(json!({})));
    let mut gone = server.client();
    gone.pull("S", "c", "5");
    gone.settle();
    drop(gone);
    client.wait_for("the disconnect", |client| {
        client.consumer_info("S", "c")["num_waiting"] == 0 || {
            client.put("s.a", "x");
            true
        }
    });
    client.put("s.a", "y");
    let message = client.fetch("S", "c", 1).remove(0);
    assert_eq!(message.ack_token().0, 1);
    assert_eq!(message.ack_token().1, 1);
}

#[test]
fn filters_select_messages() {
    // CCFG-013, CCFG-014, T-51..T-54
    let (_server, mut client) = filled(0);
    for subject in ["s.a", "s.b", "s.c.d", "s.a", "s.b"] {
        client.put(subject, subject);
    }
    client.create_consumer("S", durable(json!({"filter_subjects": ["s.a", "s.c.*"]})));
    let messages = client.fetch("S", "c", 3);
    assert_eq!(payloads(&messages), ["s.a", "s.c.d", "s.a"]);
    assert_eq!(
        tokens(&messages),
        [(1, 1, 1, 2), (1, 3, 2, 1), (1, 4, 3, 0)]
    );
    let info = client.create_consumer("S", durable(json!({"filter_subject": "s.b"})));
    assert_eq!(
        (&info["num_pending"], &info["num_ack_pending"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(client.fetch("S", "c", 1)[0].ack_token().1, 5);
    client.create_consumer("S", json!({"durable_name": "n", "filter_subject": "none"}));
    assert_eq!(client.consumer_info("S", "n")["num_pending"], 0);
}

#[test]
fn waiting_requests_hear_of_new_messages() {
    let (server, mut client) = filled(0);
    let mut publisher = server.client();
    for storage in ["file", "memory"] {
        let name = format!("T_{storage}");
        client.create_stream(json!({"name": name, "storage": storage}));
        client.create_consumer(&name, durable(json!({})));
        client.pull(&name, "c", "100");
        client.settle();
        for i in 0..100 {
            publisher.put(&name, &i.to_string());
        }
        for i in 0..100 {
            assert_eq!(client.next().payload, i.to_string());
        }
    }
}

#[test]
fn pausing_holds_deliveries_back() {
    // CAPI-015, DLV-020, T-79, T-80
    let (_server, mut client) = filled(1);
    client.create_consumer("S", durable(json!({})));
    let paused = client.ok(
        "CONSUMER.PAUSE.S.c",
        json!({"pause_until": "2100-01-01T00:00:00Z"}),
    );
    assert_eq!(
        (&paused["paused"], &paused["pause_until"]),
        (&json!(true), &json!("2100-01-01T00:00:00Z"))
    );
    let info = client.consumer_info("S", "c");
    assert_eq!(
        (
            &info["paused"],
            &info["config"]["metadata"]["_nats.req.level"]
        ),
        (&json!(true), &json!("1"))
    );
    client.pull("S", "c", r#"{"no_wait":true}"#);
    assert_eq!(client.next().status(), "404 No Messages");
    client.pull("S", "c", "1");
    assert_eq!(client.settle(), []);
    client.create_consumer("S", durable(json!({})));
    assert_eq!(client.consumer_info("S", "c")["paused"], true);
    let resumed = client.ok("CONSUMER.PAUSE.S.c", Value::Null);
    assert_eq!(resumed["pause_until"], "0001-01-01T00:00:00Z");
    assert_eq!(client.next().payload, "1");
}

#[test]
fn purging_and_deleting_with_a_consumer() {
    // T-01, T-09, T-10
    let (_server, mut client) = filled(6);
    client.send("SUB $JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.c 2\r\n");
    client.create_consumer("S", durable(json!({})));
    let messages = client.fetch("S", "c", 3);
    client.ack(&messages[0], "");
    client.ok("STREAM.MSG.DELETE.S", json!({"seq": 2}));
    let event: Value = serde_json::from_str(&client.next().payload).unwrap();
    assert_eq!(event["reason"], "Unacknowledged message was deleted");
    client.ok("STREAM.MSG.DELETE.S", json!({"seq": 5}));
    let info = client.consumer_info("S", "c");
    assert_eq!(
        (&info["num_ack_pending"], &info["num_pending"]),
        (&json!(1), &json!(2))
    );
    client.ok("STREAM.PURGE.S", Value::Null);
    let info = client.consumer_info("S", "c");
    assert_eq!(
        (&info["num_ack_pending"], &info["num_pending"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(positions(&info).3, 6);
    client.put("s.a", "7");
    assert_eq!(client.fetch("S", "c", 1)[0].payload, "7");
}

#[test]
fn work_queues_remove_what_is_done() {
    // DLV-025, CCFG-038..041, T-84
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "W", "subjects": ["w.*"], "retention": "workqueue"}));
    let body = |config: Value| json!({"stream_name": "W", "config": config});
    let other = body(json!({"durable_name": "d", "ack_policy": "explicit"}));
    client.create_consumer("W", durable(json!({"filter_subject": "w.a"})));
    assert_eq!(client.refused("CONSUMER.CREATE.W.d", other).0, 10099);
    let other =
        body(json!({"durable_name": "d", "ack_policy": "explicit", "filter_subject": "w.*"}));
    assert_eq!(client.refused("CONSUMER.CREATE.W.d", other).0, 10100);
    client.put("w.a", "1");
    client.put("w.a", "2");
    let messages = client.fetch("W", "c", 2);
    client.ack(&messages[0], "");
    assert_eq!(client.state("W")["messages"], 1);
    client.ack(&messages[1], "+TERM");
    assert_eq!(client.state("W")["messages"], 0);
}

#[test]
fn interest_streams_keep_what_somebody_needs() {
    // DLV-024, DLV-026, PUB-031, T-85..T-87
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "I", "subjects": ["i.*"], "retention": "interest"}));
    assert_eq!(client.put("i.a", "nobody"), 1);
    assert_eq!(client.state("I")["messages"], 0);
    client.create_consumer("I", durable(json!({"filter_subject": "i.a"})));
    client.create_consumer("I", json!({"durable_name": "d", "ack_policy": "explicit"}));
    client.put("i.a", "both");
    client.put("i.b", "one");
    let message = client.fetch("I", "c", 1).remove(0);
    client.ack(&message, "");
    assert_eq!(client.state("I")["messages"], 2);
    let message = client.fetch("I", "d", 1).remove(0);
    client.ack(&message, "");
    assert_eq!(client.state("I")["messages"], 1);
    client.ok("CONSUMER.DELETE.I.d", Value::Null);
    client.wait_for("removal", |client| client.state("I")["messages"] == 0);
}

#[test]
fn consumers_survive_a_restart() {
    // DLV-021, CAPI-010
    let (server, mut client) = filled(5);
    client.create_consumer("S", durable(json!({"description": "kept"})));
    let messages = client.fetch("S", "c", 3);
    client.ack(&messages[0], "");
    let before = client.consumer_info("S", "c");
    drop(client);
    let server = server.restart();
    let mut client = server.client();
    let after = client.consumer_info("S", "c");
    assert_eq!(
        (&after["config"], &after["created"]),
        (&before["config"], &before["created"])
    );
    assert_eq!(positions(&after), positions(&before));
    assert_eq!(
        (&after["num_ack_pending"], &after["num_pending"]),
        (&json!(2), &json!(2))
    );
    client.ack(&messages[1], "");
    client.ack(&messages[2], "");
    let message = client.fetch("S", "c", 1).remove(0);
    assert_eq!(message.ack_token(), (1, 4, 4, 1));
}

#[test]
fn ephemerals_leave_when_nobody_uses_them() {
    // CCFG-028, CAPI-022, T-82
    let (_server, mut client) = filled(1);
    client.create_consumer("S", json!({"name": "e", "inactive_threshold": 20 * MS}));
    client.create_consumer("S", durable(json!({})));
    let used = client.create_consumer("S", json!({"name": "u", "inactive_threshold": 300 * MS}));
    assert_eq!(used["config"]["inactive_threshold"], 300 * MS);
    client.fetch("S", "u", 1);
    client.pull("S", "u", "1");
    client.wait_for("removal", |client| {
        client.ok("CONSUMER.NAMES.S", Value::Null)["consumers"] == json!(["c", "u"])
    });
}

#[test]
fn replay_keeps_the_gaps() {
    // CCFG-015, DLV-019
    let (_server, mut client) = filled(1);
    std::thread::sleep(std::time::Duration::from_millis(300));
    client.put("s.a", "2");
    client.create_consumer("S", durable(json!({"replay_policy": "original"})));
    let start = std::time::Instant::now();
    client.pull("S", "c", "2");
    assert_eq!(payloads(&[client.next(), client.next()]), ["1", "2"]);
    // Never earlier than it was stored after the first one.
    assert!(start.elapsed() >= std::time::Duration::from_millis(300));
}
