//! A file system on which nothing can be changed: what checks a store must not touch it.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;

use super::{DirEntry, Io, IoFile, OpenMode};

/// Passes reads on to another file system and refuses everything else.
pub struct ReadOnlyIo(Arc<dyn Io>);

impl ReadOnlyIo {
    /// Protects `io`.
    pub fn new(io: Arc<dyn Io>) -> ReadOnlyIo {
        ReadOnlyIo(io)
    }
}

fn refuse<T>() -> Result<T> {
    Err(Error::from(ErrorKind::ReadOnlyFilesystem))
}

impl Io for ReadOnlyIo {
    fn create_dir_all(&self, _dir: &Path) -> Result<()> {
        refuse()
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn IoFile>> {
        match mode {
            OpenMode::Read => self.0.open(path, mode),
            OpenMode::ReadWrite | OpenMode::CreateNew => refuse(),
        }
    }

    fn rename(&self, _from: &Path, _to: &Path) -> Result<()> {
        refuse()
    }

    fn remove(&self, _path: &Path) -> Result<()> {
        refuse()
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        self.0.list(dir)
    }

    fn sync_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>> {
        // Taking a lock creates its file: open first, so that a missing one stays missing.
        self.0.open(path, OpenMode::Read)?;
        self.0.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        self.0.free_bytes(dir)
    }
}
