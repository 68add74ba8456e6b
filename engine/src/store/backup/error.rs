//! Errors of backups and restores.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::super::error::CheckpointError;
use crate::error::{ReadError, Stopped};

/// A backup could not be made, read or checked.
#[derive(Debug)]
#[non_exhaustive]
pub enum BackupError {
    /// The stream keeps its messages in memory: there is nothing on disk to back up.
    Memory,
    /// The stream was deleted.
    Deleted,
    /// The directory holds something else; it was not touched.
    NotABackup {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds a backup of another stream; it was not touched.
    OtherStream {
        /// The directory.
        dir: PathBuf,
    },
    /// The backup is damaged.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is damaged, and where.
        what: String,
    },
    /// A newer version made the backup.
    NewerVersion {
        /// The file that says so.
        file: PathBuf,
    },
    /// The stream's own data could not be read.
    Read(ReadError),
    /// What the stream has in the log could not be sealed.
    Checkpoint(CheckpointError),
    /// The disk of the backup is full.
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
    /// The store stopped.
    Stopped(Stopped),
}

/// A stream could not be restored. The store has no stream of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreError {
    /// The backup cannot be used.
    Backup(BackupError),
    /// The name is taken.
    Exists,
    /// The name cannot be used.
    Name,
    /// The disk of the store is full.
    NoSpace {
        /// File that could not be written.
        file: PathBuf,
    },
    /// The system failed a call in the store. If it was the last commit that failed, the stream may be
    /// there after a restart, whole.
    Io {
        /// File or directory.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The store stopped.
    Stopped(Stopped),
}

impl BackupError {
    pub(super) fn io(file: impl Into<PathBuf>, source: io::Error) -> BackupError {
        let file = file.into();
        match source.kind() {
            io::ErrorKind::StorageFull => BackupError::NoSpace { file },
            _ => BackupError::Io { file, source },
        }
    }

    pub(super) fn damaged(file: impl Into<PathBuf>, what: impl ToString) -> BackupError {
        BackupError::Damaged {
            file: file.into(),
            what: what.to_string(),
        }
    }
}

impl RestoreError {
    pub(in crate::store) fn io(file: impl Into<PathBuf>, source: io::Error) -> RestoreError {
        let file = file.into();
        match source.kind() {
            io::ErrorKind::StorageFull => RestoreError::NoSpace { file },
            _ => RestoreError::Io { file, source },
        }
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Memory => f.write_str("a stream in memory cannot be backed up"),
            BackupError::Deleted => f.write_str("the stream was deleted"),
            BackupError::NotABackup { dir } => write!(
                f,
                "{} holds no backup: use an empty or a new directory",
                dir.display()
            ),
            BackupError::OtherStream { dir } => {
                write!(f, "{} holds a backup of another stream", dir.display())
            }
            BackupError::Damaged { file, what } => {
                write!(f, "the backup is damaged: {}: {what}", file.display())
            }
            BackupError::NewerVersion { file } => {
                write!(f, "{}: a newer version made this backup", file.display())
            }
            BackupError::Read(error) => error.fmt(f),
            BackupError::Checkpoint(error) => error.fmt(f),
            BackupError::NoSpace { file } => {
                write!(f, "no disk space left to write {}", file.display())
            }
            BackupError::Io { file, source } => write!(f, "{}: {source}", file.display()),
            BackupError::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl std::error::Error for BackupError {}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Backup(error) => error.fmt(f),
            RestoreError::Exists => f.write_str("the name is already in use"),
            RestoreError::Name => f.write_str("the name is empty or too long"),
            RestoreError::NoSpace { file } => {
                write!(f, "no disk space left to write {}", file.display())
            }
            RestoreError::Io { file, source } => write!(f, "{}: {source}", file.display()),
            RestoreError::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl std::error::Error for RestoreError {}

impl From<BackupError> for RestoreError {
    fn from(error: BackupError) -> RestoreError {
        RestoreError::Backup(error)
    }
}

impl From<CheckpointError> for RestoreError {
    fn from(error: CheckpointError) -> RestoreError {
        match error {
            CheckpointError::NoSpace { file } => RestoreError::NoSpace { file },
            CheckpointError::Io { file, source } => RestoreError::Io { file, source },
            CheckpointError::Stopped(stopped) => RestoreError::Stopped(stopped),
        }
    }
}

impl From<Stopped> for BackupError {
    fn from(stopped: Stopped) -> BackupError {
        BackupError::Stopped(stopped)
    }
}

impl From<Stopped> for RestoreError {
    fn from(stopped: Stopped) -> RestoreError {
        RestoreError::Stopped(stopped)
    }
}
