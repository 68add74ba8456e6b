//! What a repair is allowed to do, did, and left.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::super::error::{CheckpointError, OpenError};
use super::super::open::RecoveryReport;
use super::source::SourceError;
use crate::error::{Corrupt, Stopped};
use crate::ids::Seq;

/// What a repair may do.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct RepairOptions {
    /// Remove messages that are lost and that no source has, so that the stream reads clean. The same
    /// for acknowledged operations that are damaged in the log of a store that does not open. Default
    /// off: they stay reported as damaged.
    pub give_up: bool,
}

impl RepairOptions {
    /// With [`RepairOptions::give_up`].
    pub fn give_up(mut self, give_up: bool) -> RepairOptions {
        self.give_up = give_up;
        self
    }
}

/// What a repair did. [`fmt::Display`] prints it for an operator.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Sealed files that were checked.
    pub files: u64,
    /// Bytes that were read and checked.
    pub bytes: u64,
    /// Index runs that were made anew.
    pub indexes_rebuilt: Vec<PathBuf>,
    /// Ranges of messages that came back from the source.
    pub restored: Vec<RestoredRange>,
    /// Ranges of messages that were removed because nobody has them.
    pub given_up: Vec<Corrupt>,
    /// Ranges of messages that stay damaged.
    pub left: Vec<Corrupt>,
    /// Damaged files that were replaced, where they are now.
    pub quarantined: Vec<PathBuf>,
    /// What opening the store found; `None` if it was open.
    pub recovery: Option<RecoveryReport>,
}

/// Messages that a repair got back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredRange {
    /// Name of the stream.
    pub stream: String,
    /// First sequence.
    pub first: Seq,
    /// Last sequence.
    pub last: Seq,
    /// Number of messages.
    pub msgs: u64,
    /// The file's block table proves that they are what was lost. Otherwise the source vouches for
    /// them. Never true in an encrypted file, which keeps no digest of what its blocks hold.
    pub proven: bool,
}

/// A repair had to stop. What it had done until then stays, and it can be run again.
#[derive(Debug)]
#[non_exhaustive]
pub enum RepairError {
    /// The store cannot be opened, and there is nothing a repair may do about it.
    Open(OpenError),
    /// The source could not answer.
    Source(SourceError),
    /// The disk is full.
    NoSpace {
        /// File that could not be written.
        file: PathBuf,
    },
    /// The system failed a call.
    Io {
        /// File or directory.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Lost messages could not be removed.
    NotRemoved(String),
    /// The store stopped.
    Stopped(Stopped),
}

impl RepairReport {
    /// True if nothing is damaged any more.
    pub fn is_clean(&self) -> bool {
        self.left.is_empty()
    }
}

impl RepairError {
    pub(super) fn io(file: impl Into<PathBuf>, source: io::Error) -> RepairError {
        let file = file.into();
        match source.kind() {
            io::ErrorKind::StorageFull => RepairError::NoSpace { file },
            _ => RepairError::Io { file, source },
        }
    }
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.indexes_rebuilt {
            writeln!(f, "index rebuilt: {}", file.display())?;
        }
        for range in &self.restored {
            let RestoredRange {
                stream,
                first,
                last,
                msgs,
                proven,
            } = range;
            let proof = match proven {
                true => "proven",
                false => "as the source has them",
            };
            writeln!(
                f,
                "restored: stream {stream:?}, sequences {first} to {last}, {msgs} messages, {proof}"
            )?;
        }
        for (what, ranges) in [("given up", &self.given_up), ("left damaged", &self.left)] {
            for range in ranges {
                let (first, last, file) = (range.first, range.last, range.file.display());
                let (stream, reason) = (range.stream, &range.reason);
                writeln!(
                    f,
                    "{what}: stream {stream}, sequences {first} to {last}: {file}: {reason}"
                )?;
            }
        }
        for file in &self.quarantined {
            writeln!(f, "set aside: {}", file.display())?;
        }
        let verdict = match self.is_clean() {
            true => "nothing is damaged",
            false => "damage is left",
        };
        let (files, bytes) = (self.files, self.bytes);
        write!(f, "{verdict}; {files} files, {bytes} bytes checked")
    }
}

impl fmt::Display for RepairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepairError::Open(error) => error.fmt(f),
            RepairError::Source(error) => write!(f, "the source of messages: {error}"),
            RepairError::NoSpace { file } => {
                write!(f, "no disk space left to write {}", file.display())
            }
            RepairError::Io { file, source } => write!(f, "{}: {source}", file.display()),
            RepairError::NotRemoved(what) => f.write_str(what),
            RepairError::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl std::error::Error for RepairError {}

impl From<Stopped> for RepairError {
    fn from(stopped: Stopped) -> RepairError {
        RepairError::Stopped(stopped)
    }
}

impl From<CheckpointError> for RepairError {
    fn from(error: CheckpointError) -> RepairError {
        match error {
            CheckpointError::NoSpace { file } => RepairError::NoSpace { file },
            CheckpointError::Io { file, source } => RepairError::Io { file, source },
            CheckpointError::Stopped(stopped) => RepairError::Stopped(stopped),
        }
    }
}
