//! The only place where the engine touches the operating system.
//!
//! Everything above works on [`Io`], [`IoFile`], [`Clock`] and [`Entropy`]: the real disk and the
//! simulated one run the same engine code. All calls block; none is made while a lock is held.

use std::io::{ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;

use crate::format::cipher::{Opener, Sealer};
use crate::format::file_header::FileKind;
use crate::format::key_ring::{KeyId, KeyRing};

pub mod disk;
pub(crate) mod read_only;
pub mod sim;
pub mod system;

/// How [`Io::open`] opens a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// An existing file, for reading only.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A new file for reading and writing; an existing one is an error (`AlreadyExists`).
    CreateNew,
}

/// One entry of [`Io::list`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Name without the directory.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
}

/// A file system. Creation, rename and removal of a file are durable only after [`Io::sync_dir`]
/// of its directory; file content only after [`IoFile::sync_data`].
pub trait Io: Send + Sync + 'static {
    /// Creates a directory and its missing parents, durably; existing ones are fine.
    ///
    /// On return the entry of `dir` survives a power cut, also when an earlier process created it
    /// and was killed before it could sync the parent.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn IoFile>>;
    /// Renames a file or directory; an existing target file is replaced atomically.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Lists a directory, sorted by name.
    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;
    /// Takes an exclusive advisory lock on `path` (created if missing) until the value is dropped.
    /// Held by another process: `ErrorKind::WouldBlock`.
    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>>;
    /// Bytes that an unprivileged writer may still add to the file system of `dir`.
    fn free_bytes(&self, dir: &Path) -> Result<u64>;
}

/// An open file. Calls at different offsets may run at the same time.
#[expect(clippy::len_without_is_empty, reason = "a file is not a collection")]
pub trait IoFile: Send + Sync {
    /// Reads at `offset` into `buf` until it is full or the file ends; returns the bytes read.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Reads exactly `buf.len()` bytes at `offset`.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file ends first; `buf` then holds unspecified bytes.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let n = self.read_at(buf, offset)?;
        if n < buf.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
    /// Reads `len` bytes at `offset`, fewer only where the file ends.
    fn read_vec_at(&self, len: usize, offset: u64) -> Result<Vec<u8>> {
        let mut buf = vec![0; len];
        let n = self.read_at(&mut buf, offset)?;
        buf.truncate(n);
        Ok(buf)
    }
    /// Writes all of `buf` at `offset`, extending the file if needed.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()>;
    /// Makes all earlier writes, and the length, durable. After an error nothing is known about
    /// them, and a retry proves nothing.
    fn sync_data(&self) -> Result<()>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Reserves disk space for the first `len` bytes and extends the file to `len` if shorter.
    /// Fails with `StorageFull` where space is short; a file system without the call extends only.
    /// After an error the length is somewhere between the old one and `len`.
    fn allocate(&self, len: u64) -> Result<()>;
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// Drops clean cached pages of the file, where the system can: the next read sees the device.
    fn drop_cache(&self);
}

/// Wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since the Unix epoch.
    fn now_ns(&self) -> i64;
}

/// Unpredictable numbers for identities and file epochs.
pub trait Entropy: Send + Sync + 'static {
    /// The next 64 random bits.
    fn next_u64(&self) -> u64;
}

/// What the engine needs from outside.
#[derive(Clone)]
pub struct Env {
    /// File system.
    pub io: Arc<dyn Io>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Random bits.
    pub entropy: Arc<dyn Entropy>,
    /// Keys of an encrypted store.
    pub keys: Option<Arc<KeyRing>>,
}

impl Env {
    /// The machine's own file systems, clock and random numbers.
    pub fn real() -> Self {
        Self {
            io: Arc::new(disk::DiskIo::new()),
            clock: Arc::new(system::SystemClock),
            entropy: Arc::new(system::SystemEntropy),
            keys: None,
        }
    }

    /// The key of files that are begun now; `None` where they are not encrypted.
    pub(crate) fn current_key(&self) -> Option<KeyId> {
        self.keys.as_ref().map(|keys| keys.current().id())
    }

    /// What writes the units of a file that is begun now.
    pub(crate) fn sealer(&self, kind: FileKind, store_uuid: u128, file_no: u64) -> Sealer {
        let salt = self.keys.as_ref().map_or(0, |_| self.entropy.next_u64());
        Sealer::new(self.keys.as_deref(), salt, kind, store_uuid, file_no)
    }

    /// What reads the units of a file.
    pub(crate) fn opener(&self, kind: FileKind, store_uuid: u128, file_no: u64) -> Opener {
        Opener::new(self.keys.clone(), kind, store_uuid, file_no)
    }
}
