//! Errors of opening and maintaining a store.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::error::Stopped;
use crate::format::key_ring::KeyId;

/// A store could not be opened. Nothing was changed or deleted.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the store open.
    Locked {
        /// The lock file.
        file: PathBuf,
    },
    /// The data was written by a newer version.
    NewerVersion {
        /// File that says so.
        file: PathBuf,
        /// Version found.
        found: u64,
        /// Newest version this build reads.
        supported: u64,
    },
    /// The directory holds other files, but no store.
    NotAStore {
        /// The directory.
        dir: PathBuf,
    },
    /// The store is encrypted, wholly or in part, with a key that was not given. Nothing was changed.
    KeyMissing {
        /// File that needs the key.
        file: PathBuf,
        /// The key.
        key: KeyId,
        /// The keys that were given.
        given: Vec<KeyId>,
    },
    /// Bytes that recovery depends on are damaged.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is damaged, and where.
        what: String,
        /// What the operator can do.
        remedy: &'static str,
    },
    /// The disk is full: recovery needs a little space to make what it read durable again.
    NoSpace {
        /// File that could not be written.
        file: PathBuf,
    },
    /// The operating system failed a call.
    Io {
        /// File or directory.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(file: impl Into<PathBuf>, source: io::Error) -> OpenError {
        let file = file.into();
        match source.kind() {
            io::ErrorKind::StorageFull => OpenError::NoSpace { file },
            _ => OpenError::Io { file, source },
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Locked { file } => write!(
                f,
                "{} is locked: another process has this store open; stop it or use another directory",
                file.display()
            ),
            OpenError::NewerVersion {
                file,
                found,
                supported,
            } => write!(
                f,
                "{} has format version {found}, this build reads up to {supported}: start a newer version",
                file.display()
            ),
            OpenError::NotAStore { dir } => write!(
                f,
                "{} holds files but no store: use an empty directory, or restore its FORMAT file from a backup",
                dir.display()
            ),
            OpenError::KeyMissing { file, key, given } => {
                write!(f, "{} is encrypted with key {key}, ", file.display())?;
                match &given[..] {
                    [] => f.write_str("and no key was given")?,
                    given => {
                        f.write_str("which is not among the keys given:")?;
                        for key in given {
                            write!(f, " {key}")?;
                        }
                    }
                }
                f.write_str("; nothing was changed: open the store with that key")
            }
            OpenError::Damaged { file, what, remedy } => {
                write!(
                    f,
                    "{}: {what}; nothing was changed: {remedy}",
                    file.display()
                )
            }
            OpenError::NoSpace { file } => write!(
                f,
                "no disk space left to write {}: free some and start again, nothing was changed",
                file.display()
            ),
            OpenError::Io { file, source } => write!(f, "{}: {source}", file.display()),
        }
    }
}

impl std::error::Error for OpenError {}

/// A checkpoint could not be completed. The log still holds everything.
#[derive(Debug)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The disk is full; it is tried again.
    NoSpace {
        /// File that could not be written.
        file: PathBuf,
    },
    /// The operating system failed a call.
    Io {
        /// File or directory.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The store stopped meanwhile.
    Stopped(Stopped),
}

impl CheckpointError {
    pub(crate) fn from_io(file: impl Into<PathBuf>, source: io::Error) -> CheckpointError {
        let file = file.into();
        match source.kind() {
            io::ErrorKind::StorageFull => CheckpointError::NoSpace { file },
            _ => CheckpointError::Io { file, source },
        }
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::NoSpace { file } => {
                write!(f, "no disk space left to write {}", file.display())
            }
            CheckpointError::Io { file, source } => write!(f, "{}: {source}", file.display()),
            CheckpointError::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl std::error::Error for CheckpointError {}

impl From<CheckpointError> for OpenError {
    fn from(error: CheckpointError) -> OpenError {
        match error {
            CheckpointError::NoSpace { file } => OpenError::NoSpace { file },
            CheckpointError::Io { file, source } => OpenError::Io { file, source },
            CheckpointError::Stopped(stopped) => OpenError::Io {
                file: PathBuf::new(),
                source: io::Error::other(stopped),
            },
        }
    }
}
