//! Publishing: acknowledgements, preconditions, deduplication, limits.

mod js;

use js::{Client, TestServer};
use serde_json::{Value, json};

const MSG_ID: &str = "Nats-Msg-Id";
const LAST_SEQ: &str = "Nats-Expected-Last-Sequence";
const LAST_SUBJECT_SEQ: &str = "Nats-Expected-Last-Subject-Sequence";
const SUBJECT_OF_LAST: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const ROLLUP: &str = "Nats-Rollup";

#[track_caller]
fn refused(client: &mut Client, subject: &str, headers: &[(&str, &str)]) -> (u64, String) {
    let ack = client.put_any(subject, headers, "x");
    assert_eq!(ack["seq"], 0, "{ack}");
    let text = ack["error"]["description"].as_str().unwrap().to_owned();
    (ack["error"]["err_code"].as_u64().unwrap(), text)
}

#[test]
fn acknowledgements_have_the_exact_bytes() {
    // PUB-001..003, WIRE section 10
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "ORDERS", "subjects": ["orders.*"]}));
    let ack = client.request("orders.new", "x");
    assert_eq!(
        (ack.payload.as_str(), ack.headers.as_str()),
        (r#"{"stream":"ORDERS","seq":1}"#, "")
    );
    client.publish("orders.new", "", &[], "silent");
    assert_eq!(client.settle(), []);
    assert_eq!(client.put("orders.new", "y"), 3);
    let ack = client.request_with("orders.new", &[("Nats-Expected-Stream", "X")], "x");
    assert_eq!(
        ack.payload,
        r#"{"error":{"code":400,"err_code":10060,"description":"expected stream does not match"},"stream":"ORDERS","seq":0}"#
    );
    client.put_with("orders.new", &[(MSG_ID, "1")], "x");
    let ack = client.request_with("orders.new", &[(MSG_ID, "1")], "x");
    assert_eq!(
        ack.payload,
        r#"{"stream":"ORDERS","seq":4,"duplicate": true}"#
    );
    // PUB-005
    assert!(
        client
            .request("other", "x")
            .headers
            .starts_with("NATS/1.0 503\r\n")
    );
}

#[test]
fn the_domain_is_part_of_acknowledgements() {
    let server = TestServer::start_with(|options| options.domain = Some("hub".to_owned()));
    let mut client = server.client();
    client.create_stream(json!({"name": "S"}));
    assert_eq!(
        client.request("S", "x").payload,
        r#"{"stream":"S","domain":"hub","seq":1}"#
    );
}

#[test]
fn many_acknowledgements_arrive_in_order() {
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S"}));
    let inbox = client.inbox();
    for i in 0..2000 {
        client.publish("S", &inbox, &[], &format!("{i}"));
    }
    for seq in 1..=2000 {
        assert_eq!(
            client.next().payload,
            format!(r#"{{"stream":"S","seq":{seq}}}"#)
        );
    }
}

#[test]
fn expectations_about_sequences() {
    // PUB-008..011, T-23..T-27
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["kv.>"]}));
    for subject in [
        "kv.1.foo", "kv.1.bar", "kv.2.foo", "kv.9", "kv.1.baz", "kv.1.bar",
    ] {
        client.put(subject, "x");
    }
    let mut check = |headers: &[(&str, &str)], want: Result<u64, &str>| {
        let ack = client.put_any("kv.1.bar", headers, "x");
        match want {
            Ok(seq) => assert_eq!(ack["seq"], seq, "{ack}"),
            Err(text) => assert_eq!(ack["error"]["description"], text, "{ack}"),
        }
    };
    check(&[(LAST_SEQ, "5")], Err("wrong last sequence: 6"));
    check(&[(LAST_SEQ, "0")], Err("wrong last sequence: 6"));
    check(&[(LAST_SEQ, "x")], Err("wrong last sequence: 6"));
    check(&[(LAST_SEQ, "6")], Ok(7));
    check(&[(LAST_SUBJECT_SEQ, "6")], Err("wrong last sequence: 7"));
    check(&[(LAST_SUBJECT_SEQ, "7")], Ok(8));
    check(
        &[(LAST_SUBJECT_SEQ, "8"), (SUBJECT_OF_LAST, "kv.1.*")],
        Ok(9),
    );
    check(
        &[(LAST_SUBJECT_SEQ, "3"), (SUBJECT_OF_LAST, "kv.2.foo")],
        Ok(10),
    );
    check(
        &[(LAST_SUBJECT_SEQ, "0"), (SUBJECT_OF_LAST, "kv.3.*")],
        Ok(11),
    );
    check(
        &[(SUBJECT_OF_LAST, "kv.2.foo")],
        Err("missing sequence for expected last sequence per subject"),
    );
    // T-25
    client.ok("STREAM.PURGE.S", json!({"filter": "kv.2.foo"}));
    let text = refused(&mut client, "kv.2.foo", &[(LAST_SUBJECT_SEQ, "3")]);
    assert_eq!(text, (10071, "wrong last sequence: 0".to_owned()));
    client.put_with("kv.2.foo", &[(LAST_SUBJECT_SEQ, "0")], "x");
}

#[test]
fn the_last_message_id_can_be_expected() {
    // PUB-009
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S"}));
    let expect = "Nats-Expected-Last-Msg-Id";
    assert_eq!(
        refused(&mut client, "S", &[(expect, "a")]),
        (10070, "wrong last msg ID: ".to_owned())
    );
    client.put_with("S", &[(MSG_ID, "a")], "x");
    client.put_with("S", &[(expect, "a"), (MSG_ID, "b")], "x");
    assert_eq!(
        refused(&mut client, "S", &[(expect, "a")]),
        (10070, "wrong last msg ID: b".to_owned())
    );
}

#[test]
fn duplicates_are_acknowledged_and_not_stored() {
    // DEDUP-001..004, T-29, T-30, T-34
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S"}));
    let id = |id: &'static str| [(MSG_ID, id)];
    assert_eq!(
        client.put_with("S", &id("a"), "1"),
        json!({"stream": "S", "seq": 1})
    );
    let duplicate = json!({"stream": "S", "seq": 1, "duplicate": true});
    assert_eq!(client.put_with("S", &id("a"), "2"), duplicate);
    client.ok("STREAM.MSG.DELETE.S", json!({"seq": 1}));
    assert_eq!(client.put_with("S", &id("a"), "3"), duplicate);
    refused(&mut client, "S", &[(MSG_ID, "b"), (LAST_SEQ, "9")]);
    assert_eq!(client.put_with("S", &id("b"), "4")["seq"], 2);
    drop(client);
    let server = server.restart();
    let mut client = server.client();
    assert_eq!(client.put_with("S", &id("b"), "5")["duplicate"], true);
    assert_eq!(client.state("S")["messages"], 1);
}

#[test]
fn rollups_replace_older_messages() {
    // PUB-014, T-15, T-16
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["s.*"], "allow_rollup_hdrs": true}));
    client.create_stream(json!({"name": "N"}));
    for subject in ["s.a", "s.a", "s.b"] {
        client.put(subject, "x");
    }
    client.put_with("s.a", &[(ROLLUP, "SUB")], "x");
    assert_eq!(client.state("S")["messages"], 2);
    client.put_with("s.c", &[(ROLLUP, "all")], "x");
    let state = client.state("S");
    assert_eq!(
        (&state["messages"], &state["first_seq"]),
        (&json!(1), &json!(5))
    );
    let text = refused(&mut client, "s.a", &[(ROLLUP, "x")]);
    assert_eq!(text, (10111, "rollup value invalid: \"x\"".to_owned()));
    let text = refused(&mut client, "N", &[(ROLLUP, "sub")]);
    assert_eq!(text, (10111, "rollup not permitted".to_owned()));
}

#[test]
fn headers_of_features_that_are_off_are_refused() {
    // T-35, PUB-028
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S"}));
    for (header, value, err_code) in [
        ("Nats-TTL", "5s", 10166),
        ("Nats-TTL", "abc", 10165),
        ("Nats-Incr", "1", 10168),
        ("Nats-Batch-Id", "x", 10174),
        ("Nats-Schedule", "@every 1s", 10188),
        ("Nats-Stream-Source", "x", 10227),
    ] {
        assert_eq!(
            refused(&mut client, "S", &[(header, value)]).0,
            err_code,
            "{header}"
        );
    }
    assert_eq!(client.state("S")["messages"], 0);
    client.create_stream(json!({"name": "T", "allow_msg_ttl": true}));
    let text = refused(&mut client, "T", &[("Nats-TTL", "0")]);
    assert_eq!(text, (10165, "invalid per-message TTL".to_owned()));
}

#[test]
fn sizes_are_limited() {
    // PUB-019, PUB-020
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "max_msg_size": 20}));
    client.create_stream(json!({"name": "H"}));
    client.put("S", &"x".repeat(20));
    assert_eq!(
        client.put_any("S", &[], &"x".repeat(21))["error"]["err_code"],
        10054
    );
    assert_eq!(refused(&mut client, "S", &[("A", "bcdef")]).0, 10054);
    let long = "x".repeat(65_600);
    assert_eq!(refused(&mut client, "H", &[("A", &long)]).0, 10097);
}

#[test]
fn discard_old_drops_from_the_front() {
    // T-18, T-22, SCFG-013
    let server = TestServer::start();
    let mut client = server.client();
    for storage in ["file", "memory"] {
        client.create_stream(
            json!({"name": "S", "subjects": ["s.*"], "storage": storage, "max_msgs": 3}),
        );
        for i in 0..5 {
            client.put(&format!("s.{i}"), "x");
        }
        assert_eq!(client.state("S")["first_seq"], 3);
        let one = if storage == "file" {
            30 + 3 + 1
        } else {
            16 + 3 + 1
        };
        assert_eq!(client.state("S")["bytes"], 3 * one);
        client.ok(
            "STREAM.UPDATE.S",
            json!({"name": "S", "subjects": ["s.*"], "storage": storage, "max_bytes": 2 * one}),
        );
        assert_eq!(client.state("S")["messages"], 2);
        client.ok("STREAM.DELETE.S", Value::Null);
    }
    client.create_stream(json!({"name": "S", "subjects": ["s.*"], "max_msgs_per_subject": 2}));
    for subject in ["s.a", "s.a", "s.b", "s.a"] {
        client.put(subject, "x");
    }
    let state = client.state("S");
    assert_eq!(
        (&state["messages"], &state["first_seq"]),
        (&json!(3), &json!(2))
    );
}

#[test]
fn discard_new_refuses() {
    // PUB-021, T-13, T-14
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["s.*"], "discard": "new", "max_msgs": 2, "max_msgs_per_subject": 1}));
    client.put("s.a", "x");
    client.put("s.b", "x");
    assert_eq!(
        refused(&mut client, "s.c", &[]),
        (10077, "maximum messages exceeded".to_owned())
    );
    assert_eq!(client.put("s.a", "replaced"), 3);
    client.create_stream(json!({"name": "P", "subjects": ["p.*"], "discard": "new", "max_msgs_per_subject": 1, "discard_new_per_subject": true}));
    client.put("p.a", "x");
    assert_eq!(
        refused(&mut client, "p.a", &[]),
        (10077, "maximum messages per subject exceeded".to_owned())
    );
    client.put("p.b", "x");
    client
        .create_stream(json!({"name": "B", "subjects": ["b"], "discard": "new", "max_bytes": 70}));
    client.put("b", "x");
    client.put("b", "x");
    assert_eq!(
        refused(&mut client, "b", &[]),
        (10077, "maximum bytes exceeded".to_owned())
    );
}

#[test]
fn old_messages_expire() {
    // SCFG-012
    let server = TestServer::start();
    let mut client = server.client();
    for storage in ["file", "memory"] {
        let name = format!("S_{storage}");
        client.create_stream(json!({"name": name, "storage": storage, "max_age": 100_000_000}));
        client.put(&name, "x");
        client.wait_for("expiry", |client| client.state(&name)["messages"] == 0);
        assert_eq!(client.state(&name)["first_seq"], 2);
        assert_eq!(client.put(&name, "y"), 2);
        client.wait_for("the next expiry", |client| {
            client.state(&name)["messages"] == 0
        });
    }
}

#[test]
fn a_stream_without_acknowledgements_is_silent() {
    // SCFG-018, T-39
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "no_ack": true, "max_msg_size": 3}));
    let inbox = client.inbox();
    client.publish("S", &inbox, &[], "x");
    client.publish("S", &inbox, &[], "too large");
    assert_eq!(client.settle(), []);
    client.wait_for("the message", |client| client.state("S")["messages"] == 1);
}

#[test]
fn server_headers_are_not_stored() {
    // PUB-026, PUB-027
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "allow_direct": true}));
    let block = "NATS/1.0 503 Oops\r\nA: b\r\nNats-Request-Info: {}\r\n\r\n";
    client.send(format!(
        "HPUB S {} {}\r\n{block}x\r\n",
        block.len(),
        block.len() + 1
    ));
    client.wait_for("the message", |client| client.state("S")["messages"] == 1);
    let got = client.request("$JS.API.DIRECT.GET.S", r#"{"seq":1}"#);
    assert!(
        got.headers
            .starts_with("NATS/1.0\r\nA: b\r\nNats-Stream: S\r\n"),
        "{}",
        got.headers
    );
}

#[test]
fn direct_gets() {
    // DGET-001..011
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["s.>"], "allow_direct": true}));
    client.put("s.a", "1");
    client.put_with("s.b", &[("X", "y")], "2");
    client.put("s.a", "3");
    let got = client.request("$JS.API.DIRECT.GET.S", r#"{"seq":2}"#);
    assert_eq!(
        (
            got.payload.as_str(),
            got.header("X"),
            got.header("Nats-Sequence")
        ),
        ("2", Some("y"), Some("2"))
    );
    assert_eq!(
        (got.header("Nats-Subject"), got.header("Nats-Stream")),
        (Some("s.b"), Some("S"))
    );
    assert!(got.header("Nats-Time-Stamp").unwrap().ends_with('Z'));
    for (subject, body, payload) in [
        ("", r#"{"last_by_subj":"s.*"}"#, "3"),
        ("", r#"{"next_by_subj":"s.a","seq":2}"#, "3"),
        (".s.b", "", "2"),
        (".s.a", "{}", "3"),
    ] {
        let got = client.request(&format!("$JS.API.DIRECT.GET.S{subject}"), body);
        assert_eq!(got.payload, payload, "{subject} {body}");
    }
    for (subject, body, status) in [
        ("", "", "408 Empty Request"),
        ("", "x", "408 Malformed Request"),
        ("", r#"{"seq":1,"last_by_subj":"a"}"#, "408 Bad Request"),
        ("", r#"{"seq":99}"#, "404 Message Not Found"),
        (".none", "", "404 Message Not Found"),
        ("", r#"{"multi_last":["none"]}"#, "404 No Results"),
    ] {
        let got = client.request(&format!("$JS.API.DIRECT.GET.S{subject}"), body);
        assert_eq!(got.status(), status, "{subject} {body}");
    }
}

#[test]
fn direct_gets_of_many() {
    // DGET-010..018
    let server = TestServer::start();
    let mut client = server.client();
    client.create_stream(json!({"name": "S", "subjects": ["s.>"], "allow_direct": true}));
    for i in 0..6 {
        client.put(["s.a", "s.b"][i % 2], &i.to_string());
    }
    let mut get = |body: &str| {
        let inbox = client.inbox();
        client.publish("$JS.API.DIRECT.GET.S", &inbox, &[], body);
        let mut all = client.settle();
        let end = all.pop().unwrap();
        let all: Vec<String> = all
            .iter()
            .map(|m| {
                let header = |key| m.header(key).unwrap_or("-");
                format!(
                    "{}/{}/{}",
                    m.payload,
                    header("Nats-Num-Pending"),
                    header("Nats-Last-Sequence")
                )
            })
            .collect();
        (all.join(" "), end.headers.replace("\r\n", "|"))
    };
    let eob = |rest: &str| format!("NATS/1.0 204 EOB|{rest}||");
    assert_eq!(
        get(r#"{"batch":2,"next_by_subj":"s.a"}"#),
        (
            "0/2/0 2/1/1".into(),
            eob("Nats-Num-Pending: 1|Nats-Last-Sequence: 3")
        )
    );
    assert_eq!(
        get(r#"{"batch":9,"seq":5,"max_bytes":1}"#),
        (
            "4/1/0".into(),
            eob("Nats-Num-Pending: 1|Nats-Last-Sequence: 5")
        )
    );
    assert_eq!(
        get(r#"{"multi_last":["s.*"]}"#),
        (
            "4/1/0 5/0/5".into(),
            eob("Nats-Num-Pending: 0|Nats-Last-Sequence: 6|Nats-UpTo-Sequence: 6")
        )
    );
    assert_eq!(
        get(r#"{"multi_last":["s.a","s.b"],"up_to_seq":3,"batch":1}"#),
        (
            "1/1/0".into(),
            eob("Nats-Num-Pending: 1|Nats-Last-Sequence: 2|Nats-UpTo-Sequence: 3")
        )
    );
}
