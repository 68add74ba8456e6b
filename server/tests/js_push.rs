//! Push consumers: interest, queue groups, heartbeats, flow control.

mod js;

use js::{Client, TestServer, payloads};
use serde_json::{Value, json};

const MS: u64 = 1_000_000;

fn filled(count: usize) -> (TestServer, Client) {
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["s.>"]}));
    for i in 1..=count {
        client.put("s.a", &i.to_string());
    }
    (server, client)
}

fn push(extra: Value) -> Value {
    let mut config =
        json!({"durable_name": "c", "ack_policy": "explicit", "deliver_subject": "deliver"});
    config
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    config
}

#[test]
fn deliveries_follow_interest() {
    // CCFG-026, CAPI-023, DLV-003
    let (_server, mut client) = filled(2);
    let info = client.create_consumer("S", push(json!({})));
    assert!(info.get("push_bound").is_none());
    assert_eq!(client.settle(), []);
    client.send("SUB deliver 7\r\n");
    let messages = [client.next(), client.next()];
    assert_eq!(payloads(&messages), ["1", "2"]);
    assert_eq!(
        (messages[0].subject.as_str(), messages[0].sid.as_str()),
        ("s.a", "7")
    );
    assert_eq!(messages[1].ack_token(), (1, 2, 2, 0));
    client.ack(&messages[0], "+ACK");
    let info = client.consumer_info("S", "c");
    assert_eq!(
        (&info["push_bound"], &info["num_ack_pending"]),
        (&json!(true), &json!(1))
    );
    client.send("UNSUB 7\r\n");
    client.put("s.a", "3");
    assert!(client.consumer_info("S", "c").get("push_bound").is_none());
    assert_eq!(client.settle(), []);
    client.send("SUB deliver 8\r\n");
    assert_eq!(client.next().payload, "3");
}

#[test]
fn a_deliver_group_is_served_alone() {
    // CCFG-027, T-109
    let (_server, mut client) = filled(1);
    client.send("SUB deliver 6\r\n");
    client.create_consumer("S", push(json!({"deliver_group": "q"})));
    assert_eq!(client.settle(), []);
    client.send("SUB deliver q 7\r\nSUB deliver q 8\r\n");
    assert_ne!(client.next().sid, "6");
    for i in 0..10 {
        client.put("s.a", &i.to_string());
        assert_ne!(client.next().sid, "6");
    }
    assert_eq!(client.settle(), []);
}

#[test]
fn redelivery_and_room() {
    // DLV-012, DLV-015
    let (_server, mut client) = filled(3);
    client.send("SUB deliver 7\r\n");
    client.create_consumer(
        "S",
        push(json!({"ack_wait": 200 * MS, "max_ack_pending": 2})),
    );
    let first = [client.next(), client.next()];
    assert_eq!(payloads(&first), ["1", "2"]);
    assert_eq!(first[0].ack_token().0, 1);
    let again = [client.next(), client.next()];
    assert_eq!(payloads(&again), ["1", "2"]);
    assert_eq!(again[0].ack_token().0, 2);
    client.ack(&again[0], "");
    client.wait_for("the third message", |client| client.next().payload == "3");
}

#[test]
fn heartbeats_when_nothing_else_comes() {
    // CCFG-021, T-54
    let (_server, mut client) = filled(1);
    client.send("SUB deliver 7\r\n");
    client.create_consumer("S", push(json!({"idle_heartbeat": 100 * MS})));
    assert_eq!(client.next().payload, "1");
    for _ in 0..2 {
        assert_eq!(
            client.next().headers,
            "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 1\r\n\r\n"
        );
    }
}

#[test]
fn flow_control_asks_and_waits() {
    // CCFG-020, DLV-027, T-107
    let (_server, mut client) = filled(0);
    let payload = "x".repeat(100_000);
    for _ in 0..40 {
        client.put("s.a", &payload);
    }
    client.send("SUB deliver 7\r\n");
    let ordered = json!({
        "name": "o", "deliver_subject": "deliver", "ack_policy": "none", "max_deliver": 1,
        "flow_control": true, "idle_heartbeat": 100 * MS, "mem_storage": true, "num_replicas": 1,
    });
    client.create_consumer("S", ordered);
    let mut count = 0;
    let mut requests = Vec::new();
    let mut stalled = String::new();
    while stalled.is_empty() {
        let msg = client.next();
        match msg.status() {
            "100 FlowControl Request" => requests.push((count, msg.reply)),
            "100 Idle Heartbeat" => {
                stalled = msg.header("Nats-Consumer-Stalled").unwrap_or("").to_owned();
            }
            _ => count += 1,
        }
    }
    // More than 1 MiB and at most 2 MiB, each message a little more than 100,000 bytes.
    assert_eq!(requests, [(11, stalled.clone())]);
    assert_eq!(count, 21);
    client.publish(&stalled, "", &[], "");
    while count < 40 {
        let msg = client.next();
        if msg.status() == "100 FlowControl Request" {
            client.publish(&msg.reply, "", &[], "");
        } else if msg.status().is_empty() {
            count += 1;
        }
    }
}

#[test]
fn an_ephemeral_leaves_with_its_receiver() {
    // CAPI-022, T-81
    let (_server, mut client) = filled(0);
    client.send("SUB deliver 7\r\n");
    let config = json!({"name": "e", "deliver_subject": "deliver", "inactive_threshold": 50 * MS});
    client.create_consumer("S", config);
    client.send("UNSUB 7\r\n");
    client.wait_for("removal", |client| {
        client.ok("CONSUMER.NAMES.S", Value::Null)["total"] == 0
    });
}

#[test]
fn pulls_and_changes_that_are_refused() {
    // PULL-005, CCFG-047, CCFG-048
    let (_server, mut client) = filled(0);
    client.create_consumer("S", push(json!({})));
    client.pull("S", "c", "1");
    assert_eq!(client.next().status(), "409 Consumer is push based");
    let body = |config: Value| json!({"stream_name": "S", "config": config});
    let pull = body(json!({"durable_name": "c", "ack_policy": "explicit"}));
    let refused = client.refused("CONSUMER.CREATE.S.c", pull);
    assert_eq!(
        refused,
        (
            10012,
            "can not update push consumer to pull based".to_owned()
        )
    );
    client.send("SUB deliver 7\r\n");
    let moved = body(push(json!({"deliver_subject": "other"})));
    assert_eq!(
        client.refused("CONSUMER.CREATE.S.c", moved.clone()).0,
        10013
    );
    client.send("UNSUB 7\r\nSUB other 8\r\n");
    client.ok("CONSUMER.CREATE.S.c", moved);
    client.put("s.a", "x");
    assert_eq!(client.next().sid, "8");
}

#[test]
fn push_consumers_survive_a_restart() {
    let (server, mut client) = filled(1);
    client.create_consumer("S", push(json!({})));
    drop(client);
    let server = server.restart();
    let mut client = server.client();
    client.send("SUB deliver 7\r\n");
    assert_eq!(client.next().payload, "1");
}
