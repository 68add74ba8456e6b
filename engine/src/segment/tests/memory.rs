//! Files in memory whose bytes a test can see and damage.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::io::{DirEntry, Env, Io, IoFile, OpenMode};

/// A file system that is one flat set of files.
pub struct MemoryIo {
    files: Mutex<BTreeMap<PathBuf, Arc<MemoryFile>>>,
    reads: Arc<AtomicU64>,
    writes_left: Arc<AtomicU64>,
}

pub struct MemoryFile {
    pub bytes: Mutex<Vec<u8>>,
    reads: Arc<AtomicU64>,
    /// Reads that touch these offsets fail.
    bad: Mutex<Range<u64>>,
    /// Writes that still succeed.
    writes_left: Arc<AtomicU64>,
}

impl MemoryIo {
    /// An empty file system, and an environment made of it.
    pub fn env() -> (Arc<MemoryIo>, Env) {
        let io = Arc::new(MemoryIo {
            files: Mutex::default(),
            reads: Arc::default(),
            writes_left: Arc::new(AtomicU64::new(u64::MAX)),
        });
        let env = Env {
            io: io.clone(),
            ..Env::real()
        };
        (io, env)
    }

    /// Content of a file.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        self.files.lock().unwrap()[path]
            .bytes
            .lock()
            .unwrap()
            .clone()
    }

    /// Creates or replaces a file.
    pub fn set(&self, path: &Path, bytes: Vec<u8>) {
        let file = Arc::new(MemoryFile {
            bytes: Mutex::new(bytes),
            reads: self.reads.clone(),
            bad: Mutex::new(0..0),
            writes_left: self.writes_left.clone(),
        });
        self.files.lock().unwrap().insert(path.to_owned(), file);
    }

    /// Makes reads that touch these offsets of a file fail.
    pub fn set_bad(&self, path: &Path, bad: Range<u64>) {
        *self.files.lock().unwrap()[path].bad.lock().unwrap() = bad;
    }

    /// Lets this many further writes and syncs succeed, and no more.
    pub fn fail_writes_after(&self, writes: u64) {
        self.writes_left.store(writes, Ordering::Relaxed);
    }

    /// Number of reads of any file so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

impl Io for MemoryIo {
    fn create_dir_all(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn IoFile>> {
        if mode == OpenMode::CreateNew {
            if self.files.lock().unwrap().contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            self.set(path, Vec::new());
        }
        match self.files.lock().unwrap().get(path) {
            Some(file) => Ok(file.clone()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut files = self.files.lock().unwrap();
        let file = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }
    fn remove(&self, path: &Path) -> Result<()> {
        let removed = self.files.lock().unwrap().remove(path);
        removed.map(drop).ok_or(ErrorKind::NotFound.into())
    }
    fn list(&self, _dir: &Path) -> Result<Vec<DirEntry>> {
        Ok(Vec::new())
    }
    fn sync_dir(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }
    fn lock(&self, _path: &Path) -> Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
    fn free_bytes(&self, _dir: &Path) -> Result<u64> {
        Ok(u64::MAX)
    }
}

impl MemoryFile {
    fn count_write(&self) -> Result<()> {
        let left = self.writes_left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        self.writes_left.store(left - 1, Ordering::Relaxed);
        Ok(())
    }
}

impl IoFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bad = self.bad.lock().unwrap();
        if offset < bad.end && bad.start < offset + buf.len() as u64 {
            return Err(Error::other("bad sector"));
        }
        let bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let len = buf.len().min(bytes.len() - start);
        buf[..len].copy_from_slice(&bytes[start..start + len]);
        Ok(len)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.count_write()?;
        let mut bytes = self.bytes.lock().unwrap();
        let end = offset as usize + buf.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(buf);
        Ok(())
    }
    fn sync_data(&self) -> Result<()> {
        self.count_write()
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    fn allocate(&self, len: u64) -> Result<()> {
        self.set_len(len)
    }
    fn len(&self) -> Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
    fn drop_cache(&self) {}
}
