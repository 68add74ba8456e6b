//! Why a metadata log could not be opened, and what was cut off one that was.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::format::FormatError;
use crate::format::key_ring::KeyId;

/// Why a metadata log could not be opened. Nothing on disk was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum MetaError {
    /// The directory has no metadata log: a new store, or one whose files are gone. Which of the
    /// two, the caller knows.
    Absent {
        /// The directory.
        dir: PathBuf,
    },
    /// Committed metadata cannot be read.
    Damaged {
        /// The file.
        file: PathBuf,
        /// Offset of the first damaged frame, 0 for the file's header.
        offset: u64,
        /// What is wrong with it.
        reason: FormatError,
    },
    /// The file is encrypted with a key that was not given.
    KeyMissing {
        /// The file.
        file: PathBuf,
        /// The key that its header names.
        key: Option<KeyId>,
    },
    /// The file belongs to another store.
    WrongStore {
        /// The file.
        file: PathBuf,
    },
    /// A newer version wrote the file.
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// The version.
        source: FormatError,
    },
    /// The system failed a call.
    Io {
        /// The file or directory.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl MetaError {
    /// The file or directory concerned.
    pub fn file(&self) -> &Path {
        match self {
            MetaError::Absent { dir: file }
            | MetaError::Damaged { file, .. }
            | MetaError::KeyMissing { file, .. }
            | MetaError::WrongStore { file }
            | MetaError::NewerVersion { file, .. }
            | MetaError::Io { file, .. } => file,
        }
    }

    pub(super) fn io(file: &Path) -> impl FnOnce(io::Error) -> MetaError {
        move |source| MetaError::Io {
            file: file.to_owned(),
            source,
        }
    }
}

impl fmt::Display for MetaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetaError::Absent { dir } => write!(f, "no metadata log in {}", dir.display()),
            MetaError::Damaged {
                file,
                offset,
                reason,
            } => write!(
                f,
                "the metadata log is damaged: {} at offset {offset}: {reason}",
                file.display()
            ),
            MetaError::KeyMissing { file, key } => write!(
                f,
                "{} is encrypted with key {}, which was not given",
                file.display(),
                key.map_or("unknown".to_owned(), |key| key.to_string())
            ),
            MetaError::WrongStore { file } => {
                write!(f, "{} belongs to another store", file.display())
            }
            MetaError::NewerVersion { file, source } => write!(f, "{}: {source}", file.display()),
            MetaError::Io { file, source } => write!(f, "{}: {source}", file.display()),
        }
    }
}

impl std::error::Error for MetaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MetaError::Io { source, .. } => Some(source),
            MetaError::NewerVersion { source, .. } | MetaError::Damaged { reason: source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }
}

/// A torn commit at the end of the log, which nothing says was ever durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaCut {
    /// The file.
    pub file: PathBuf,
    /// Where it was cut.
    pub offset: u64,
    /// What was found there.
    pub reason: FormatError,
}
