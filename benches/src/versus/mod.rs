//! Riverlog and a peer, driven by the same load on the same disk, in turn.
//!
//! One run is: a fresh directory, a fresh server process, one stream; publish with a number of messages
//! in flight per connection, then read everything back through a pull consumer. Every ack and every
//! payload is checked, so that a figure never counts a message that was lost, doubled or damaged.
//!
//! The load has to be far cheaper than the servers it measures: frames are written in large batches,
//! answers are parsed in place, nothing is allocated per message.

pub mod consume;
pub mod contender;
pub mod histogram;
pub mod payload;
pub mod process;
pub mod publish;
pub mod report;
pub mod round;
pub mod wire;

use std::fmt;

/// Why a run cannot be counted.
#[derive(Debug)]
pub enum BenchError {
    /// The operating system refused something: what, and why.
    Io(&'static str, std::io::Error),
    /// The server answered something that breaks the protocol or a promise.
    Server(String),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, err) => write!(f, "{what}: {err}"),
            Self::Server(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for BenchError {}

/// Result of everything here.
pub type BenchResult<T> = Result<T, BenchError>;

/// Adds what was being done to an I/O error.
pub(crate) trait Doing<T> {
    fn doing(self, what: &'static str) -> BenchResult<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: &'static str) -> BenchResult<T> {
        self.map_err(|err| BenchError::Io(what, err))
    }
}
