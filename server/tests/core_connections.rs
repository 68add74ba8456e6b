//! The life of a connection: INFO, limits, timers, the end, and what monitoring sees of it.

mod raw;

use std::net::TcpListener;
use std::time::Duration;

use raw::{Raw, TestServer, options};
use riverlog_server::net::close::CloseReason;
use riverlog_server::server::{Options, Server, StartError, WriteTimeout};

/// Waits until the server remembers `count` closed connections and returns their reasons.
fn closed(test: &TestServer, count: usize) -> Vec<CloseReason> {
    loop {
        let closed = test.server.closed_connections();
        if closed.len() >= count {
            return closed.iter().map(|closed| closed.reason).collect();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn info_comes_first_and_tells_who_the_server_is() {
    // CORE-001, CORE-002, CORE-048.
    let test = TestServer::start(options());
    let mut raw = test.open();
    let info = raw.info();
    let id = info["server_id"].as_str().unwrap();
    assert!(id.len() == 56 && id.starts_with('N'), "{id}");
    assert_eq!(info["server_name"], id);
    assert_eq!(info["version"], "2.15.1");
    assert_eq!(info["riverlog"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["proto"], 1);
    assert_eq!(info["host"], "127.0.0.1");
    assert_eq!(info["port"], test.server.client_addr().port());
    assert_eq!(info["headers"], true);
    assert_eq!(info["max_payload"], 1024 * 1024);
    assert_eq!(info["client_id"], 1);
    assert_eq!(info["client_ip"], "127.0.0.1");
    assert_eq!(info["api_lvl"], 5);
    assert!(info["go"].is_string());
    for absent in [
        "auth_required",
        "jetstream",
        "ldm",
        "connect_info",
        "tls_required",
    ] {
        assert!(info.get(absent).is_none(), "{absent}");
    }
    let (_durable, receiver) = tokio::sync::watch::channel(0);
    test.server.attach_jetstream(receiver);
    assert_eq!(test.open().info()["jetstream"], true);
}

#[test]
fn name_and_advertised_address_are_configured() {
    // CORE-048.
    for (advertise, host, port) in [
        ("example.org:4333", "example.org", 4333),
        ("example.org", "example.org", 0),
    ] {
        let test = TestServer::start(Options {
            server_name: Some("river".into()),
            client_advertise: Some(advertise.into()),
            ..options()
        });
        let info = test.open().info();
        assert_eq!(info["server_name"], "river");
        assert_eq!(info["host"], host);
        let port = if port == 0 {
            test.server.client_addr().port()
        } else {
            port
        };
        assert_eq!(info["port"], port);
    }
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let result = runtime.block_on(Server::start(Options { port, ..options() }));
    let Err(error @ StartError::Bind { .. }) = result else {
        panic!("started")
    };
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{port}")),
        "{error}"
    );
}

#[test]
fn info_follows_the_first_pong_of_protocol_1() {
    // CORE-027, CORE-028.
    let test = TestServer::start(options());
    let mut raw = test.raw();
    raw.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\nPING\r\n");
    raw.expect("PONG\r\n");
    let info = raw.info();
    assert_eq!(info["connect_info"], true);
    assert_eq!(info["remote_account"], "$G");
    raw.expect("PONG\r\n");
    let mut old = test.raw();
    old.send("CONNECT {\"verbose\":false,\"protocol\":0}\r\nPING\r\n");
    old.expect("PONG\r\n");
    old.settle();
}

#[test]
fn a_silent_client_is_pinged_and_then_closed() {
    // CORE-004.
    let test = TestServer::start(Options {
        ping_interval: Duration::from_millis(20),
        ping_max: 2,
        ..options()
    });
    let mut raw = test.raw();
    raw.expect("PING\r\nPING\r\n-ERR 'Stale Connection'\r\n");
    raw.expect_close();
    assert_eq!(closed(&test, 1), [CloseReason::StaleConnection]);
    assert_eq!(test.server.stats().stale_connections, 1);
}

#[test]
fn a_client_that_answers_stays_and_its_round_trip_is_known() {
    // CORE-004, CORE-047.
    let test = TestServer::start(Options {
        ping_interval: Duration::from_millis(100),
        ping_max: 5,
        ..options()
    });
    let mut raw = test.raw();
    for _ in 0..7 {
        raw.expect("PING\r\n");
        raw.send("PONG\r\n");
    }
    let stats = test.server.connections().remove(0);
    assert!(stats.rtt.is_some_and(|rtt| rtt > Duration::ZERO));
}

#[test]
fn a_client_that_does_not_read_is_closed_when_too_much_waits() {
    // CORE-033.
    let test = TestServer::start(Options {
        max_pending: 1024 * 1024,
        no_fast_producer_stall: true,
        ..options()
    });
    let mut slow = test.client();
    slow.send("SUB a 1\r\n");
    slow.settle();
    let mut publisher = test.client();
    let message = format!("PUB a 100000\r\n{}\r\n", "x".repeat(100_000));
    while test.server.stats().slow_consumers_pending_bytes == 0 {
        publisher.send(&message);
        publisher.settle();
    }
    assert_eq!(closed(&test, 1), [CloseReason::SlowConsumerPendingBytes]);
    assert_eq!(
        CloseReason::SlowConsumerPendingBytes.to_string(),
        "Slow Consumer (Pending Bytes)"
    );
    // Nobody else suffers.
    publisher.settle();
    assert_eq!(test.server.stats().connections, 1);
}

#[test]
fn a_client_that_does_not_read_is_closed_when_a_flush_takes_too_long() {
    // CORE-034.
    let test = TestServer::start(Options {
        write_deadline: Duration::from_millis(50),
        ..options()
    });
    let mut slow = test.client();
    slow.send("SUB a 1\r\n");
    slow.settle();
    let mut publisher = test.client();
    let message = format!("PUB a 100000\r\n{}\r\n", "x".repeat(100_000));
    while test.server.stats().slow_consumers_write_deadline == 0 {
        publisher.send(&message);
        publisher.settle();
    }
    assert_eq!(closed(&test, 1), [CloseReason::SlowConsumerWriteDeadline]);
}

#[test]
fn a_slow_flush_may_be_retried_instead() {
    // CORE-034.
    let test = TestServer::start(Options {
        write_deadline: Duration::from_millis(1),
        write_timeout: WriteTimeout::Retry,
        ..options()
    });
    let mut slow = test.client();
    slow.send("SUB a 1\r\n");
    slow.settle();
    let mut publisher = test.client();
    let body = "x".repeat(1_000_000);
    for _ in 0..20 {
        publisher.send(format!("PUB a 1000000\r\n{body}\r\n"));
    }
    publisher.settle();
    std::thread::sleep(Duration::from_millis(30));
    for _ in 0..20 {
        slow.expect(format!("MSG a 1 1000000\r\n{body}\r\n"));
    }
}

#[test]
fn a_fast_producer_is_slowed_down_rather_than_its_receiver_closed() {
    // CORE-035.
    let test = TestServer::start(Options {
        max_pending: 8 * 1024 * 1024,
        ..options()
    });
    let mut receiver = test.client();
    receiver.send("SUB a 1\r\n");
    receiver.settle();
    const COUNT: usize = 4000;
    let body = "x".repeat(10_000);
    let producer = std::thread::spawn({
        let mut publisher = test.client();
        let message = format!("PUB a 10000\r\n{body}\r\n");
        move || (0..COUNT).for_each(|_| publisher.send(&message))
    });
    let want = format!("MSG a 1 10000\r\n{body}\r\n");
    for _ in 0..COUNT {
        receiver.expect(&want);
    }
    producer.join().unwrap();
    assert_eq!(test.server.stats().slow_consumers_pending_bytes, 0);
}

#[test]
fn too_many_connections_are_refused() {
    // CORE-036.
    let test = TestServer::start(Options {
        max_connections: 1,
        ..options()
    });
    let first = test.client();
    let mut second = test.open();
    second.expect("-ERR 'maximum connections exceeded'\r\n");
    second.expect_close();
    drop(first);
    closed(&test, 1);
    test.client().settle();
}

#[test]
fn too_many_subscriptions_and_tokens_are_refused() {
    // CORE-037, CORE-038.
    let test = TestServer::start(Options {
        max_subscriptions: 2,
        max_sub_tokens: 3,
        ..options()
    });
    let mut raw = test.client();
    raw.send("SUB a 1\r\nSUB a.b.c.d 2\r\nSUB b 2\r\nSUB c 3\r\nPUB c 0\r\n\r\nUNSUB 1\r\nSUB c 3\r\nPUB c 0\r\n\r\n");
    raw.expect(
        "-ERR 'Permissions Violation for Subscription to \"a.b.c.d\", too many tokens'\r\n\
         -ERR 'maximum subscriptions exceeded'\r\nMSG c 3 0\r\n\r\n",
    );
}

#[test]
fn closed_connections_are_remembered_with_their_reason() {
    // CORE-046.
    let test = TestServer::start(Options {
        max_closed_clients: 3,
        ..options()
    });
    let end = |script: &str| {
        let before = test.server.stats().total_connections;
        let mut raw = test.connect("\"verbose\":false,\"name\":\"n\"");
        raw.try_send(script);
        if script.is_empty() {
            drop(raw);
        } else {
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut raw.stream, &mut rest);
        }
        while test
            .server
            .closed_connections()
            .last()
            .is_none_or(|closed| closed.conn.cid <= before)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for script in [
        "BAD\r\n",
        "PUB a x\r\n",
        "PUB a 9999999\r\n",
        "-ERR\t'x'\r\n",
        "",
    ] {
        end(script);
    }
    let closed = test.server.closed_connections();
    let reasons: Vec<String> = closed
        .iter()
        .map(|closed| closed.reason.to_string())
        .collect();
    assert_eq!(
        reasons,
        [
            "Maximum Message Payload Exceeded",
            "Parse Error",
            "Client Closed"
        ]
    );
    assert!(closed.iter().all(|closed| closed.conn.details.name == "n"));
}

#[test]
fn counters_cover_messages_headers_and_subscriptions() {
    let test = TestServer::start(options());
    let mut raw = test.connect(
        "\"verbose\":false,\"headers\":true,\"name\":\"c\",\"lang\":\"l\",\"version\":\"1\"",
    );
    raw.send("SUB a 1\r\nSUB a q 2\r\nUNSUB 2 9\r\nPUB a 5\r\nhello\r\nHPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
    raw.expect("MSG a 1 5\r\nhello\r\nMSG a 2 5\r\nhello\r\n");
    raw.send("PING\r\n");
    while raw.line() != "PONG" {}
    let stats = test.server.stats();
    assert_eq!((stats.in_msgs, stats.in_bytes), (2, 19));
    assert_eq!((stats.out_msgs, stats.out_bytes), (4, 38));
    assert_eq!(
        (
            stats.connections,
            stats.total_connections,
            stats.subscriptions
        ),
        (1, 1, 2)
    );
    let conn = test.server.connections().remove(0);
    assert_eq!(
        (conn.in_msgs, conn.in_bytes, conn.out_msgs, conn.out_bytes),
        (2, 19, 4, 38)
    );
    assert_eq!(
        (conn.details.name.as_str(), conn.details.lang.as_str()),
        ("c", "l")
    );
    assert_eq!(&*conn.account, "$G");
    let subs = test.server.subscriptions_of(conn.cid).unwrap();
    assert_eq!(
        (subs[0].subject.as_str(), subs[0].delivered, subs[0].max),
        ("a", 2, 0)
    );
    assert_eq!(
        (subs[1].queue.as_deref(), subs[1].delivered, subs[1].max),
        (Some("q"), 2, 9)
    );
    assert!(test.server.subscriptions_of(99).is_none());
    // They survive the connection.
    drop(raw);
    closed(&test, 1);
    let stats = test.server.stats();
    assert_eq!(
        (
            stats.in_msgs,
            stats.out_bytes,
            stats.connections,
            stats.subscriptions
        ),
        (2, 38, 0, 0)
    );
}

#[test]
fn a_client_that_stops_sending_still_gets_its_answers() {
    let test = TestServer::start(options());
    let mut raw = test.client();
    raw.send("SUB a 1\r\nPUB a 2\r\nhi\r\n");
    raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
    raw.expect("MSG a 1 2\r\nhi\r\n");
    raw.expect_close();
}

#[test]
fn shutdown_flushes_and_closes_everybody() {
    let test = TestServer::start(options());
    let mut clients: Vec<Raw> = (0..3).map(|_| test.client()).collect();
    for raw in &mut clients {
        raw.send("SUB a 1\r\n");
        raw.settle();
    }
    clients[0].send("PUB a 2\r\nhi\r\n");
    clients[0].settle_after("MSG a 1 2\r\nhi\r\n");
    test.runtime.block_on(test.server.shutdown());
    assert_eq!(test.server.stats().connections, 0);
    for raw in &mut clients[1..] {
        raw.expect("MSG a 1 2\r\nhi\r\n");
        raw.expect_close();
    }
    assert!(std::net::TcpStream::connect(test.server.client_addr()).is_err());
    assert!(
        test.server
            .closed_connections()
            .iter()
            .all(|closed| closed.reason == CloseReason::ServerShutdown)
    );
}

#[test]
fn lame_duck_mode_says_so_and_then_closes_one_by_one() {
    // CORE-029, CORE-030.
    let test = TestServer::start(options());
    let mut new = test.raw();
    new.send("CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n");
    new.expect("PONG\r\n");
    assert!(new.info().get("ldm").is_none());
    let mut old = test.client();
    test.runtime.block_on(
        test.server
            .lame_duck(Duration::from_millis(10), Duration::from_millis(30)),
    );
    assert_eq!(new.info()["ldm"], true);
    new.expect_close();
    old.expect_close();
    assert!(std::net::TcpStream::connect(test.server.client_addr()).is_err());
}
