//! Helpers of the end-to-end tests.
//!
//! [`TestServer`] starts the broker as a separate process on a fresh directory, can kill it without
//! warning and start it again on the same data. [`Client`] speaks the NATS protocol over a blocking
//! socket and shows every byte it got, so that tests can pin exact frames. The methods in [`js`] are
//! the JetStream requests in their raw JSON form: what a test states is what goes over the wire.
//!
//! Environment:
//! - `RIVERLOG_TEST_SERVER=/path/to/binary` tests that binary instead of the workspace's `riverlog`.
//!   It has to accept the flags of nats-server, so the reference server can be used to check the tests.
//!   Set `RIVERLOG_TEST_PEER=1` with it: what only Riverlog promises is then not asked of it.
//! - `RIVERLOG_TEST_LOG=1` prints the server's log even when the test passes.
//! - `RIVERLOG_KILL_ROUNDS=n` rounds of the kill test (default 3).

mod binary;
mod client;
pub mod js;
mod json;
mod server;

pub use binary::server_binary;
pub use client::{Client, ConnectOptions, Msg, Sub};
pub use json::{assert_json, assert_json_has};
pub use server::{ServerBuilder, TestServer};

use std::time::Duration;

/// How long a test waits for something that must happen. Generous: a loaded machine is not a failure.
pub const WAIT: Duration = Duration::from_secs(20);

/// How long a test listens for something that must not happen.
pub const QUIET: Duration = Duration::from_millis(400);

/// Whether the server under test is a peer, which does not keep consumer acks over a power cut.
pub fn is_peer() -> bool {
    std::env::var_os("RIVERLOG_TEST_PEER").is_some()
}

/// Nanoseconds of a number of milliseconds: durations in JetStream JSON are nanoseconds.
pub const fn ms_as_ns(ms: u64) -> u64 {
    ms * 1_000_000
}

/// Nanoseconds of a number of seconds.
pub const fn secs_as_ns(secs: u64) -> u64 {
    secs * 1_000_000_000
}
