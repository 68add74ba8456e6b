//! One connection, one script: what a client sends and the exact bytes it gets.
//!
//! Every expectation was seen on the reference server as well.

mod raw;

use raw::{TestServer, options};

const QUIET: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
const HEADERS: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";

/// Sends each script on a connection of its own; it stays open.
#[track_caller]
fn answers(cases: &[(&str, &str)]) {
    let test = TestServer::start(options());
    for (script, want) in cases {
        let mut raw = test.raw();
        raw.send(script);
        raw.expect(want);
        raw.settle();
    }
}

/// Sends each script on a connection of its own; it is closed after the answer.
#[track_caller]
fn closes(cases: &[(&str, &str)]) {
    let test = TestServer::start(options());
    for (script, want) in cases {
        let mut raw = test.raw();
        raw.try_send(script);
        raw.expect(want);
        raw.expect_close();
    }
}

#[test]
fn ping_is_answered_in_any_spelling() {
    // CORE-004, CORE-013, CORE-052.
    answers(&[
        ("PING\r\n", "PONG\r\n"),
        ("ping\nPiNg\r\n", "PONG\r\nPONG\r\n"),
        ("PINGxyz\r\nPING abc\r\n", "PONG\r\nPONG\r\n"),
        (&format!("{QUIET}PONG\r\nPING\r\n"), "PONG\r\n"),
    ]);
}

#[test]
fn verbose_is_the_default_and_ok_comes_before_the_message() {
    // CORE-003, CORE-011, CORE-052.
    answers(&[
        (
            "SUB a 1\r\nPUB a 2\r\nhi\r\nUNSUB 99\r\n",
            "+OK\r\n+OK\r\nMSG a 1 2\r\nhi\r\n+OK\r\n",
        ),
        ("CONNECT {}\r\n", "+OK\r\n"),
        ("CONNECT null\r\n", "+OK\r\n"),
        (
            "CONNECT {\"headers\":true,\"no_responders\":true}\r\nSUB r 9\r\nPUB a r 0\r\n\r\n",
            "+OK\r\n+OK\r\n+OK\r\nHMSG r 9 33 33\r\nNATS/1.0 503\r\nNats-Subject: a\r\n\r\n\r\n",
        ),
    ]);
}

#[test]
fn a_second_connect_changes_what_it_names() {
    // CORE-052.
    answers(&[
        (
            &format!("{QUIET}CONNECT {{\"verbose\":true}}\r\nPING\r\n"),
            "+OK\r\nPONG\r\n",
        ),
        (
            &format!("{QUIET}SUB a 1\r\nCONNECT {{\"echo\":false}}\r\nPUB a 1\r\nx\r\nPING\r\n"),
            "PONG\r\n",
        ),
    ]);
}

#[test]
fn published_messages_come_back_on_the_own_subscription() {
    // CORE-005, CORE-007, CORE-009, CORE-019, CORE-020, CORE-022.
    answers(&[
        (
            &format!("{QUIET}SUB foo.* 1\r\nPUB foo.bar _INBOX.a 5\r\nhello\r\n"),
            "MSG foo.bar 1 _INBOX.a 5\r\nhello\r\n",
        ),
        (
            &format!("{QUIET}sub\tfoo 1\npub  foo \t0\n\r\n"),
            "MSG foo 1 0\r\n\r\n",
        ),
        (
            &format!("{QUIET}SUB foo*bar s\r\nPUB foo*bar 1\r\nx\r\nPUB fooxbar 0\r\n\r\n"),
            "MSG foo*bar s 1\r\nx\r\n",
        ),
        (
            &format!("{QUIET}SUB a.> 1\r\nPUB a 0\r\n\r\nPUB a.b 0\r\n\r\nPUB a.b.c 0\r\n\r\n"),
            "MSG a.b 1 0\r\n\r\nMSG a.b.c 1 0\r\n\r\n",
        ),
        (
            &format!(
                "{QUIET}SUB a.*.c 1\r\nPUB a.b.c 0\r\n\r\nPUB a.c 0\r\n\r\nPUB a.b.d 0\r\n\r\n"
            ),
            "MSG a.b.c 1 0\r\n\r\n",
        ),
        // Nothing matches a subject with an empty token.
        (
            &format!(
                "{QUIET}SUB > 1\r\nPUB foo. 1\r\nx\r\nPUB .foo 1\r\nx\r\nPUB a..b 1\r\nx\r\nPING\r\n"
            ),
            "PONG\r\n",
        ),
    ]);
}

#[test]
fn headers_are_passed_on_unchanged_and_stripped_for_clients_without() {
    // CORE-006, CORE-009, CORE-010, CORE-031, CORE-032.
    let odd = "NATS/1.0 \r\nA:1\r\nA: 2\r\na:\r\n\r\n";
    let (headers, total) = (odd.len(), odd.len() + 2);
    answers(&[
        (
            &format!(
                "{HEADERS}SUB foo.bar 1\r\nHPUB foo.bar 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n"
            ),
            "HMSG foo.bar 1 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n",
        ),
        (
            &format!("{HEADERS}SUB a 1\r\nHPUB a r {headers} {total}\r\n{odd}hi\r\n"),
            &format!("HMSG a 1 r {headers} {total}\r\n{odd}hi\r\n"),
        ),
        (
            &format!("{HEADERS}SUB a 1\r\nHPUB a 0 2\r\nhi\r\n"),
            "MSG a 1 2\r\nhi\r\n",
        ),
        (
            &format!("{HEADERS}SUB a 1\r\nHPUB a 4 6\r\nJUNKhi\r\n"),
            "HMSG a 1 4 6\r\nJUNKhi\r\n",
        ),
    ]);
    let test = TestServer::start(options());
    let mut plain = test.connect("\"verbose\":false");
    plain.send("SUB a 1\r\n");
    plain.settle();
    test.client()
        .send("HPUB a r 22 27\r\nNATS/1.0\r\nBar: Baz\r\n\r\nhello\r\n");
    plain.expect("MSG a 1 r 5\r\nhello\r\n");
}

#[test]
fn an_invalid_subscription_leaves_the_connection_open() {
    // CORE-007, CORE-018.
    answers(&[
        (
            "SUB foo..bar 1\r\nSUB foo.>.x 2\r\nSUB . 3\r\nSUB ok 4\r\n",
            "-ERR 'Invalid Subject'\r\n-ERR 'Invalid Subject'\r\n-ERR 'Invalid Subject'\r\n+OK\r\n",
        ),
        // The sid of a refused subscription is free.
        (
            &format!("{QUIET}SUB a..b 1\r\nSUB a 1\r\nPUB a 0\r\n\r\n"),
            "-ERR 'Invalid Subject'\r\nMSG a 1 0\r\n\r\n",
        ),
    ]);
}

#[test]
fn a_sid_in_use_keeps_its_first_subscription() {
    // CORE-007.
    answers(&[(
        &format!("{QUIET}SUB a 1\r\nSUB b 1\r\nPUB a 1\r\nx\r\nPUB b 1\r\ny\r\nPING\r\n"),
        "MSG a 1 1\r\nx\r\nPONG\r\n",
    )]);
}

#[test]
fn unsubscribe_at_once_or_after_a_number_of_deliveries() {
    // CORE-008, CORE-044.
    answers(&[
        (
            &format!("{QUIET}SUB a 1\r\nUNSUB 1\r\nPUB a 0\r\n\r\nPING\r\n"),
            "PONG\r\n",
        ),
        (
            &format!(
                "{QUIET}SUB a 1\r\nUNSUB 1 2\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nPUB a 1\r\n3\r\nPING\r\n"
            ),
            "MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\nPONG\r\n",
        ),
        (
            &format!(
                "{QUIET}SUB a 1\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nUNSUB 1 2\r\nPUB a 1\r\n3\r\nPING\r\n"
            ),
            "MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\nPONG\r\n",
        ),
        (
            &format!("{QUIET}SUB a q 1\r\nUNSUB 1 1\r\nPUB a 1\r\n1\r\nPUB a 1\r\n2\r\nPING\r\n"),
            "MSG a 1 1\r\n1\r\nPONG\r\n",
        ),
        (
            &format!("{QUIET}SUB a 1\r\nUNSUB 1 x\r\nPUB a 1\r\n1\r\nPING\r\n"),
            "PONG\r\n",
        ),
        // After its end the sid is free.
        (
            &format!("{QUIET}SUB a 1\r\nUNSUB 1 1\r\nPUB a 0\r\n\r\nSUB b 1\r\nPUB b 0\r\n\r\n"),
            "MSG a 1 0\r\n\r\nMSG b 1 0\r\n\r\n",
        ),
    ]);
}

#[test]
fn without_echo_own_messages_do_not_come_back() {
    // CORE-025.
    let quiet = "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false}\r\n";
    answers(&[
        (
            &format!("{quiet}SUB a 1\r\nSUB a q 2\r\nPUB a 1\r\nx\r\nPING\r\n"),
            "PONG\r\n",
        ),
        (
            "CONNECT {\"verbose\":false,\"echo\":false,\"headers\":true,\"no_responders\":true}\r\n\
             SUB r 9\r\nSUB a 1\r\nPUB a r 0\r\n\r\n",
            "HMSG r 9 33 33\r\nNATS/1.0 503\r\nNats-Subject: a\r\n\r\n\r\n",
        ),
    ]);
}

#[test]
fn a_request_nobody_hears_is_answered_with_503() {
    // CORE-023.
    answers(&[
        (
            &format!("{HEADERS}SUB r.* 9\r\nPUB nobody r.1 0\r\n\r\n"),
            "HMSG r.1 9 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n",
        ),
        // Only a plain subscription hears of it, and only a request asks for it.
        (
            &format!("{HEADERS}SUB r.* q 9\r\nPUB nobody r.1 0\r\n\r\nPING\r\n"),
            "PONG\r\n",
        ),
        (
            &format!("{HEADERS}SUB r 9\r\nPUB nobody 0\r\n\r\nPING\r\n"),
            "PONG\r\n",
        ),
        (
            &format!("{QUIET}SUB r 9\r\nPUB nobody r 0\r\n\r\nPING\r\n"),
            "PONG\r\n",
        ),
    ]);
}

#[test]
fn reserved_names_are_refused_and_the_connection_stays() {
    // CORE-041, CORE-042, CORE-043.
    let reply = |name: &str| {
        format!("-ERR 'Permissions Violation for Publish with Reply of \"{name}\"'\r\n")
    };
    answers(&[
        ("PUB a $JS.ACK.x 0\r\n\r\n", &reply("$JS.ACK.x")),
        ("PUB a $JS.ACK. 0\r\n\r\n", "+OK\r\n"),
        ("PUB a _R_. 0\r\n\r\n", &reply("_R_.")),
        ("PUB a _GR_.x 0\r\n\r\n", &reply("_GR_.x")),
        (
            "SUB a _sys_ 1\r\n",
            "-ERR 'Permissions Violation for Subscription to \"a\" using queue \"_sys_\"'\r\n",
        ),
        (
            "PUB $NRG.x 0\r\n\r\n",
            "-ERR 'Permissions Violation for Publish to \"$NRG.x\"'\r\n",
        ),
    ]);
}

#[test]
fn pedantic_clients_hear_of_bad_publish_subjects() {
    // CORE-026.
    let error = "-ERR 'Invalid Publish Subject'\r\n";
    answers(&[(
        "CONNECT {\"verbose\":false}\r\nSUB > 1\r\nPUB foo.* 1\r\nx\r\nPUB foo. 1\r\nx\r\nPING\r\n",
        &format!("{error}MSG foo.* 1 1\r\nx\r\n{error}PONG\r\n"),
    )]);
}

#[test]
fn a_client_may_send_what_a_server_sends() {
    // CORE-015: these verbs are known.
    answers(&[(&format!("{QUIET}+OK\r\nINFO {{}}\r\nPING\r\n"), "PONG\r\n")]);
    closes(&[(&format!("{QUIET}-ERR 'x'\r\nPING\r\n"), "")]);
}

#[test]
fn what_is_not_the_protocol_closes_with_an_error() {
    // CORE-012, CORE-015.
    let error = "-ERR 'Unknown Protocol Operation'\r\n";
    closes(&[
        ("GET / HTTP/1.0\r\n\r\n", error),
        ("\r\n", error),
        (" PING\r\n", error),
        ("PUB\r\n", error),
        (&format!("{QUIET}PUB a 2\r\nhixx"), error),
        (
            &format!("{QUIET}SUB a 1\r\nPUB a 2\r\nhi\r\nBAD\r\n"),
            &format!("MSG a 1 2\r\nhi\r\n{error}"),
        ),
    ]);
}

#[test]
fn malformed_arguments_close_without_an_error() {
    // CORE-006, CORE-051.
    closes(&[
        (&format!("{QUIET}HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n"), ""),
        (&format!("{HEADERS}HPUB a 13 12\r\n"), ""),
        ("PUB a -1\r\n", ""),
        ("PUB a x\r\n", ""),
        ("PUB \r\n", ""),
        ("PUB a b c 1\r\n", ""),
        ("SUB a\r\n", ""),
        ("UNSUB 1 2 3\r\n", ""),
        ("CONNECT {\"verbose\":tru}\r\n", ""),
        ("CONNECT {\"verbose\":1}\r\n", ""),
        ("CONNECT \r\n", ""),
        ("CONNECT []\r\n", ""),
    ]);
}

#[test]
fn a_bad_connect_closes_with_its_error() {
    // CORE-024, CORE-027.
    closes(&[
        (
            "CONNECT {\"protocol\":2}\r\n",
            "-ERR 'invalid client protocol'\r\n",
        ),
        (
            "CONNECT {\"protocol\":-1}\r\n",
            "-ERR 'invalid client protocol'\r\n",
        ),
        (
            "CONNECT {\"no_responders\":true}\r\n",
            "-ERR 'no responders requires headers support'\r\n",
        ),
        (
            "CONNECT {\"account\":\"x\"}\r\n",
            "-ERR 'Authorization Violation'\r\n",
        ),
        (
            "CONNECT {\"new_account\":true}\r\n",
            "-ERR 'Authorization Violation'\r\n",
        ),
    ]);
}

#[test]
fn a_control_line_may_have_4096_bytes_of_arguments() {
    // CORE-016.
    let error = "-ERR 'maximum control line exceeded'\r\n";
    answers(&[(
        &format!("{QUIET}SUB {} 1\r\nPING\r\n", "x".repeat(4094)),
        "PONG\r\n",
    )]);
    closes(&[
        (&format!("{QUIET}SUB {} 1\r\n", "x".repeat(4095)), error),
        (&format!("{QUIET}PUB {} 0\r\n", "x".repeat(4095)), error),
        (&format!("{QUIET}SUB {}", "x".repeat(9000)), error),
    ]);
}

#[test]
fn a_payload_may_have_one_mebibyte_with_headers() {
    // CORE-017, CORE-014.
    let test = TestServer::start(options());
    let mut raw = test.client();
    assert_eq!(
        test.raw().stream.peer_addr().ok(),
        Some(test.server.client_addr())
    );
    let body = "b".repeat(1024 * 1024 - 12);
    raw.send("SUB a 1\r\n");
    raw.send(format!("HPUB a 12 1048576\r\nNATS/1.0\r\n\r\n{body}\r\n"));
    raw.expect(format!("HMSG a 1 12 1048576\r\nNATS/1.0\r\n\r\n{body}\r\n"));
    raw.send("HPUB a 12 1048577\r\n");
    raw.expect("-ERR 'Maximum Payload Violation'\r\n");
    raw.expect_close();
    // The client may be in the middle of sending it.
    let mut raw = test.client();
    raw.try_send(format!(
        "PUB a 1048577\r\n{}\r\n",
        "b".repeat(1024 * 1024 + 1)
    ));
    raw.expect("-ERR 'Maximum Payload Violation'\r\n");
    raw.expect_close();
}

#[test]
fn any_fragmentation_gives_the_same_answer() {
    // CORE-014.
    let test = TestServer::start(options());
    let script = "SUB foo.* 1\r\nHPUB foo.a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPUB foo.b 3\r\na\r\n\r\nUNSUB 1\r\nPING\r\n";
    let want = "HMSG foo.a 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nMSG foo.b 1 3\r\na\r\n\r\nPONG\r\n";
    let mut raw = test.client();
    for byte in script.as_bytes().chunks(1) {
        raw.send(byte);
    }
    raw.expect(want);
    for at in 1..script.len() {
        raw.send(&script[..at]);
        raw.send(&script[at..]);
        raw.expect(want);
    }
}
