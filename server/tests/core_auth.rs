//! Credentials.

mod raw;

use std::time::Duration;

use raw::{TestServer, options};
use riverlog_server::auth::{Auth, User};
use riverlog_server::net::close::CloseReason;
use riverlog_server::server::Options;

const VIOLATION: &str = "-ERR 'Authorization Violation'\r\n";

fn with_auth(auth: Auth) -> TestServer {
    TestServer::start(Options { auth, ..options() })
}

/// Sends CONNECT with these options and expects a welcome.
#[track_caller]
fn accepted(test: &TestServer, options: &str) {
    test.connect(options).settle();
}

/// Sends CONNECT with these options and expects to be thrown out.
#[track_caller]
fn refused(test: &TestServer, options: &str) {
    let mut raw = test.raw();
    raw.try_send(format!("CONNECT {{{options}}}\r\nPING\r\n"));
    raw.expect(VIOLATION);
    raw.expect_close();
}

const QUIET: &str = "\"verbose\":false";

#[test]
fn without_credentials_everybody_is_in_the_global_account() {
    // AUTH-001.
    let test = with_auth(Auth::None);
    assert!(test.open().info().get("auth_required").is_none());
    accepted(&test, QUIET);
    accepted(&test, "\"verbose\":false,\"user\":\"u\",\"pass\":\"p\"");
    let mut raw = test.connect(QUIET);
    raw.settle();
    assert_eq!(&*test.server.connections().pop().unwrap().account, "$G");
}

#[test]
fn user_and_password_are_checked() {
    // AUTH-002, AUTH-006.
    for password in ["secret".to_string(), hash("secret")] {
        let test = with_auth(Auth::User {
            user: "u".into(),
            password,
        });
        assert_eq!(test.open().info()["auth_required"], true);
        accepted(
            &test,
            "\"verbose\":false,\"user\":\"u\",\"pass\":\"secret\"",
        );
        refused(&test, "\"verbose\":false,\"user\":\"u\",\"pass\":\"wrong\"");
        refused(
            &test,
            "\"verbose\":false,\"user\":\"v\",\"pass\":\"secret\"",
        );
        refused(&test, QUIET);
    }
}

fn hash(secret: &str) -> String {
    bcrypt::hash(secret, 4).unwrap()
}

#[test]
fn a_token_is_checked() {
    // AUTH-003.
    for token in ["tok".to_string(), hash("tok")] {
        let test = with_auth(Auth::Token(token));
        accepted(&test, "\"verbose\":false,\"auth_token\":\"tok\"");
        refused(&test, "\"verbose\":false,\"auth_token\":\"nope\"");
        refused(&test, QUIET);
    }
}

#[test]
fn several_users_and_the_one_for_nobody() {
    // AUTH-002, AUTH-008.
    let users = vec![
        User {
            user: "a".into(),
            password: "1".into(),
        },
        User {
            user: "b".into(),
            password: hash("2"),
        },
    ];
    let test = with_auth(Auth::Users {
        users: users.clone(),
        no_auth_user: None,
    });
    accepted(&test, "\"verbose\":false,\"user\":\"a\",\"pass\":\"1\"");
    accepted(&test, "\"verbose\":false,\"user\":\"b\",\"pass\":\"2\"");
    refused(&test, "\"verbose\":false,\"user\":\"b\",\"pass\":\"1\"");
    refused(&test, QUIET);
    let test = with_auth(Auth::Users {
        users,
        no_auth_user: Some("a".into()),
    });
    accepted(&test, QUIET);
    refused(&test, "\"verbose\":false,\"user\":\"c\"");
    // Also without any CONNECT.
    test.raw().settle();
}

#[test]
fn nothing_but_connect_is_accepted_first() {
    // CORE-040.
    let test = with_auth(Auth::Token("t".into()));
    for script in ["PING\r\n", "PUB a 0\r\n\r\n", "SUB a 1\r\n", "GARBAGE\r\n"] {
        let mut raw = test.raw();
        raw.try_send(script);
        raw.expect(VIOLATION);
        raw.expect_close();
    }
    assert!(
        test.server
            .closed_connections()
            .iter()
            .all(|c| c.reason == CloseReason::AuthenticationFailure)
    );
}

#[test]
fn credentials_must_come_in_time() {
    // CORE-039.
    let test = TestServer::start(Options {
        auth: Auth::Token("t".into()),
        auth_timeout: Duration::from_millis(500),
        ..options()
    });
    let mut late = test.raw();
    let mut in_time = test.connect("\"verbose\":false,\"auth_token\":\"t\"");
    late.expect("-ERR 'Authentication Timeout'\r\n");
    late.expect_close();
    in_time.settle();
}

#[test]
fn new_credentials_hold_for_the_next_connect() {
    let test = with_auth(Auth::Token("old".into()));
    let mut before = test.connect("\"verbose\":false,\"auth_token\":\"old\"");
    test.server.set_auth(Auth::Token("new".into()));
    refused(&test, "\"verbose\":false,\"auth_token\":\"old\"");
    accepted(&test, "\"verbose\":false,\"auth_token\":\"new\"");
    before.settle();
}
