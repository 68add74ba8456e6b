//! Why a measurement cannot be counted.

use std::fmt;

use riverlog_engine::{AppendError, ChangeError, OpenError, ReadError, Stopped};

/// Why a run cannot be counted.
#[derive(Debug)]
pub enum BenchError {
    /// The operating system refused something: what, and why.
    Io(&'static str, std::io::Error),
    /// A contender broke its protocol or a promise, or a check of the benchmark failed.
    Failed(String),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, err) => write!(f, "{what}: {err}"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for BenchError {}

/// Result of everything here.
pub type BenchResult<T> = Result<T, BenchError>;

/// An error of the engine ends the measurement: its text is all that is needed.
macro_rules! from_engine {
    ($($error:ty),*) => {
        $(impl From<$error> for BenchError {
            fn from(err: $error) -> BenchError {
                BenchError::Failed(err.to_string())
            }
        })*
    };
}

from_engine!(AppendError, ChangeError, OpenError, ReadError, Stopped);

/// Ends a measurement whose answer is wrong: a fast wrong answer is no figure.
pub(crate) fn check(holds: bool, otherwise: impl FnOnce() -> String) -> BenchResult<()> {
    if holds {
        return Ok(());
    }
    Err(BenchError::Failed(otherwise()))
}

/// Adds what was being done to an I/O error.
pub(crate) trait Doing<T> {
    fn doing(self, what: &'static str) -> BenchResult<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: &'static str) -> BenchResult<T> {
        self.map_err(|err| BenchError::Io(what, err))
    }
}
