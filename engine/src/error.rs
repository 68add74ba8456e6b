//! Errors that callers act on. Damage always says which stream, which sequences and which file.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::ids::{Seq, StreamId};

/// A read could not be answered. The rest of the stream keeps serving.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// Stored bytes do not match their checksum. Only this range is affected.
    Corrupt(Box<Corrupt>),
    /// The operating system failed the read.
    Io {
        /// File that was read.
        file: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// Stored message ids do not match their checksum. An id that may be among them is refused until
    /// the window of all ids in the file has passed: it may be a duplicate.
    DamagedIds(Box<DamagedIds>),
}

/// Where message ids are damaged, and how it was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedIds {
    /// Damaged file.
    pub file: PathBuf,
    /// Byte offset of the damaged page in the file.
    pub offset: u64,
    /// What was expected and what was found.
    pub reason: String,
}

/// What is damaged, and how it was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// Stream the sequences belong to.
    pub stream: StreamId,
    /// First sequence that cannot be answered.
    pub first: Seq,
    /// Last sequence that cannot be answered.
    pub last: Seq,
    /// Damaged file.
    pub file: PathBuf,
    /// Byte offset of the damaged unit in the file.
    pub offset: u64,
    /// What was expected and what was found.
    pub reason: String,
}

impl ReadError {
    /// Wraps a system error.
    pub fn io(file: impl Into<PathBuf>, source: io::Error) -> ReadError {
        ReadError::Io {
            file: file.into(),
            source: Arc::new(source),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Corrupt(c) => write!(
                f,
                "sequences {} to {} of stream {} are damaged: {} at offset {}: {}",
                c.first,
                c.last,
                c.stream,
                c.file.display(),
                c.offset,
                c.reason
            ),
            ReadError::Io { file, source } => write!(f, "cannot read {}: {source}", file.display()),
            ReadError::DamagedIds(d) => write!(
                f,
                "message ids are damaged: {} at offset {}: {}",
                d.file.display(),
                d.offset,
                d.reason
            ),
        }
    }
}

impl std::error::Error for ReadError {}

/// The store has stopped acknowledging: a write or sync failed, or it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// A write or sync failed; nothing is acknowledged any more. Close the process and reopen.
    Poisoned,
    /// The store was closed.
    Closed,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stopped::Poisoned => "the store stopped after a failed write or sync",
            Stopped::Closed => "the store is closed",
        })
    }
}

impl std::error::Error for Stopped {}
