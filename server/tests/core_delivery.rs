//! Several connections: who gets what, and in which order.

mod raw;

use std::collections::HashSet;

use raw::{Raw, TestServer, options};

/// A quiet client with these subscriptions in place.
fn subscriber(test: &TestServer, subscriptions: &str) -> Raw {
    let mut raw = test.client();
    raw.send(subscriptions);
    raw.settle();
    raw
}

#[test]
fn every_matching_subscription_gets_the_message_once() {
    // CORE-020.
    let test = TestServer::start(options());
    let mut two = subscriber(&test, "SUB a.b 1\r\nSUB a.* 2\r\n");
    let mut one = subscriber(&test, "SUB > 1\r\n");
    let mut none = subscriber(&test, "SUB a 1\r\nSUB a.b.c 2\r\n");
    test.client().send("PUB a.b r 2\r\nhi\r\n");
    one.expect("MSG a.b 1 r 2\r\nhi\r\n");
    let mut lines = [two.line(), two.line(), two.line(), two.line()];
    lines.sort();
    assert_eq!(lines, ["MSG a.b 1 r 2", "MSG a.b 2 r 2", "hi", "hi"]);
    for raw in [&mut one, &mut two, &mut none] {
        raw.settle();
    }
}

#[test]
fn one_member_of_each_queue_group_gets_the_message() {
    // CORE-021.
    let test = TestServer::start(options());
    let mut members: Vec<Raw> = (0..3)
        .map(|_| subscriber(&test, "SUB jobs.* workers 1\r\nSUB jobs.> others 2\r\n"))
        .collect();
    let mut plain = subscriber(&test, "SUB jobs.a 1\r\n");
    let mut publisher = test.client();
    const COUNT: usize = 300;
    for number in 0..COUNT {
        publisher.send(format!("PUB jobs.a 3\r\n{number:03}\r\n"));
    }
    publisher.settle();
    for number in 0..COUNT {
        plain.expect(format!("MSG jobs.a 1 3\r\n{number:03}\r\n"));
    }
    let mut seen = [HashSet::new(), HashSet::new()];
    for member in &mut members {
        member.send("PING\r\n");
        let mut got = [0, 0];
        let mut line = member.line();
        while line != "PONG" {
            let group = usize::from(line != "MSG jobs.a 1 3");
            assert!(
                line == "MSG jobs.a 1 3" || line == "MSG jobs.a 2 3",
                "{line}"
            );
            assert!(seen[group].insert(member.line()), "delivered twice");
            got[group] += 1;
            line = member.line();
        }
        // Chance leaves nobody of three without one of 300.
        assert!(got.iter().all(|count| *count > 0), "{got:?}");
    }
    assert!(seen.iter().all(|numbers| numbers.len() == COUNT));
}

#[test]
fn a_queue_member_that_cannot_take_a_message_is_passed_over() {
    // CORE-021, CORE-025.
    let test = TestServer::start(options());
    let mut other = subscriber(&test, "SUB a q 1\r\n");
    let mut silent = test.connect("\"verbose\":false,\"echo\":false");
    silent.send("SUB a q 1\r\n");
    for _ in 0..50 {
        silent.send("PUB a 0\r\n\r\n");
    }
    silent.settle();
    other.expect("MSG a 1 0\r\n\r\n".repeat(50));
}

#[test]
fn a_request_is_answered_over_the_reply_subject() {
    // CORE-022.
    let test = TestServer::start(options());
    let mut service = subscriber(&test, "SUB svc 1\r\n");
    let mut client = subscriber(&test, "SUB any.reply.* 5\r\n");
    client.send("PUB svc any.reply.7 2\r\nhi\r\n");
    service.expect("MSG svc 1 any.reply.7 2\r\nhi\r\n");
    service.send("PUB any.reply.7 3\r\nyes\r\n");
    client.expect("MSG any.reply.7 5 3\r\nyes\r\n");
}

#[test]
fn messages_of_one_publisher_arrive_in_order() {
    // CORE-050.
    let test = TestServer::start(options());
    let mut receiver = subscriber(&test, "SUB > 1\r\n");
    let mut publishers: Vec<Raw> = (0..3).map(|_| test.client()).collect();
    const COUNT: u32 = 500;
    for number in 0..COUNT {
        for (at, publisher) in publishers.iter_mut().enumerate() {
            publisher.send(format!("PUB p.{at} 4\r\n{number:04}\r\n"));
        }
    }
    let mut next = [0; 3];
    for _ in 0..COUNT * 3 {
        let line = receiver.line();
        let at: usize = line
            .strip_prefix("MSG p.")
            .and_then(|rest| rest[..1].parse().ok())
            .unwrap();
        assert_eq!(receiver.line(), format!("{:04}", next[at]));
        next[at] += 1;
    }
    assert_eq!(next, [COUNT; 3]);
}

#[test]
fn a_change_of_subscriptions_takes_effect_at_once() {
    // CORE-045: what a publisher remembers about a subject is forgotten with every change.
    let test = TestServer::start(options());
    let mut publisher = test.client();
    let mut receiver = test.client();
    for round in 0..20 {
        for _ in 0..5 {
            publisher.send("PUB a 0\r\n\r\n");
        }
        publisher.settle();
        receiver.settle();
        receiver.send(format!(
            "SUB {} {round}\r\n",
            if round % 2 == 0 { "a" } else { "*" }
        ));
        receiver.settle();
        publisher.send("PUB a 0\r\n\r\nPUB a 0\r\n\r\n");
        receiver.expect(format!("MSG a {round} 0\r\n\r\n").repeat(2));
        receiver.send(format!("UNSUB {round}\r\n"));
        receiver.settle();
    }
}

#[test]
fn subscriptions_end_with_their_connection() {
    let test = TestServer::start(options());
    let mut requester = test.connect("\"verbose\":false,\"headers\":true,\"no_responders\":true");
    let service = subscriber(&test, "SUB svc 1\r\n");
    requester.send("SUB r 1\r\nPUB svc r 0\r\n\r\n");
    requester.settle();
    drop(service);
    while test.server.stats().connections > 1 {
        std::thread::yield_now();
    }
    assert_eq!(test.server.stats().subscriptions, 1);
    requester.send("PUB svc r 0\r\n\r\n");
    requester.expect("HMSG r 1 35 35\r\nNATS/1.0 503\r\nNats-Subject: svc\r\n\r\n\r\n");
}

#[test]
fn unique_subjects_between_repeated_ones_are_routed_right() {
    let test = TestServer::start(options());
    let mut receiver = subscriber(&test, "SUB inbox.* 1\r\nSUB hot 2\r\n");
    let mut publisher = test.client();
    let mut want = String::new();
    for number in 0..2000 {
        publisher.send(format!(
            "PUB inbox.{number} 0\r\n\r\nPUB hot 0\r\n\r\nPUB cold.{} 0\r\n\r\n",
            number % 40
        ));
        want += &format!("MSG inbox.{number} 1 0\r\n\r\nMSG hot 2 0\r\n\r\n");
    }
    receiver.expect(want);
    receiver.settle();
}
