//! Backups of single streams: made while the stream serves, incremental, restored into any store.
//!
//! A backup is a directory: `MANIFEST` and `data/<n>.seg`. A data file is a segment with messages of
//! the one stream, every one of them verified when it was copied. The manifest names the data files
//! and holds everything else of the stream as it was at one position of the log. It is written last
//! and renamed into place, so a directory always holds one complete backup: the one before, or the
//! new one. Data files that the manifest does not name are leftovers.

mod current;
mod error;
mod read;
mod restore;
mod source;
mod write;

use std::path::{Path, PathBuf};

pub use error::{BackupError, RestoreError};
pub use read::BackupCheck;
pub use restore::RestoreReport;
pub use source::BackupSource;
pub use write::BackupReport;

use super::{Store, StoreOptions};
use crate::io::Env;
use crate::stream::Stream;

/// Names in a backup's directory.
#[derive(Clone, Debug)]
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new(dir: &Path) -> Place {
        Place {
            dir: dir.to_path_buf(),
        }
    }

    fn manifest(&self) -> PathBuf {
        self.dir.join("MANIFEST")
    }

    fn new_manifest(&self) -> PathBuf {
        self.dir.join("MANIFEST.new")
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn data(&self, no: u64) -> PathBuf {
        self.data_dir().join(format!("{no:016x}.seg"))
    }

    /// The number in a data file's name.
    fn parse(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(".seg").filter(|d| d.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    }
}

impl Stream {
    /// Copies the stream into a backup in `dir`, while it goes on serving: configuration, positions,
    /// removals, message ids, the exact state of its consumers, and all live messages, as they are
    /// together at one position of the log. `dir` is empty or new, or holds an earlier backup of this
    /// stream: then only what is new is copied. On return the backup is on disk. If it fails, an
    /// earlier backup in `dir` is as it was.
    ///
    /// Everything the stream has in the log is sealed first. Messages that cannot be read are left
    /// out and reported. What is acknowledged meanwhile may or may not be in the backup; what was
    /// acknowledged before is.
    ///
    /// # Errors
    ///
    /// See [`BackupError`].
    pub fn backup(&self, dir: &Path) -> Result<BackupReport, BackupError> {
        write::backup(&self.core, dir)
    }
}

impl Store {
    /// Restores the backup in `dir` as a new stream, with the name it had or another one: the same
    /// sequences, timestamps, removals and message ids, and its consumers as they were. All of it is
    /// durable on return; after an error or a crash there is no such stream.
    ///
    /// # Errors
    ///
    /// See [`RestoreError`]. Every byte is verified first: a damaged backup is not restored.
    pub fn restore(
        &self,
        dir: &Path,
        name: Option<&str>,
    ) -> Result<(Stream, RestoreReport), RestoreError> {
        restore::restore(&self.inner.shared, &self.inner.catalogue, dir, name)
    }

    /// Reads and checks every byte of the backup in `dir`, on the real disk. Nothing is changed. Of the
    /// options the keys count.
    ///
    /// # Errors
    ///
    /// If there is no backup, its manifest is unreadable, or the system fails a call. Damaged data
    /// files are in the report.
    pub fn verify_backup(dir: &Path, options: &StoreOptions) -> Result<BackupCheck, BackupError> {
        Store::verify_backup_in(&Env::real(), dir, options)
    }

    /// As [`Store::verify_backup`], in the given environment.
    pub fn verify_backup_in(
        env: &Env,
        dir: &Path,
        options: &StoreOptions,
    ) -> Result<BackupCheck, BackupError> {
        read::check(&options.env(env.clone()), dir)
    }
}
