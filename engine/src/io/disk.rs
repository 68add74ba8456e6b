//! The real disk: [`DiskIo`] on `std::fs` with the few calls that std lacks taken from libc.
//!
//! This is the only module of the engine with `unsafe` code. Every unsafe block is one system call
//! on a descriptor that a live `File` owns, or on a buffer that a live reference covers.
//!
//! Errors keep the kind the operating system gave and name the operation and the file, because an
//! operator has to find the broken disk from the message alone.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Result};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DirEntry, Io, IoFile, OpenMode};

/// The file systems of the machine, through the page cache.
#[derive(Clone, Copy, Default, Debug)]
pub struct DiskIo;

impl DiskIo {
    /// Makes the disk; opens nothing.
    pub fn new() -> Self {
        Self
    }
}

impl Io for DiskIo {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        // Every level is made durable before the next one is begun. So after a kill between the
        // two steps only the deepest existing level can be one whose entry was never synced.
        let mut missing = Vec::new();
        let mut level = dir;
        loop {
            match fs::metadata(level) {
                Ok(meta) if meta.is_dir() => break,
                Ok(_) => {
                    return Err(in_op(
                        "create directory",
                        dir,
                        ErrorKind::NotADirectory.into(),
                    ));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => missing.push(level),
                Err(error) => return Err(in_op("create directory", level, error)),
            }
            match parent_of(level) {
                Some(parent) => level = parent,
                None => break,
            }
        }
        if let Some(parent) = parent_of(level) {
            match self.sync_dir(parent) {
                // A parent we may not even list is one this process did not create anything in.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                result => result?,
            }
        }
        for level in missing.into_iter().rev() {
            match fs::create_dir(level) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                result => result.map_err(|error| in_op("create directory", level, error))?,
            }
            if let Some(parent) = parent_of(level) {
                self.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn IoFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => _ = options.write(true),
            OpenMode::CreateNew => _ = options.write(true).create_new(true),
        }
        let open = || {
            let file = options.open(path)?;
            // A read-only open of a directory succeeds on Unix and fails only at the first read.
            if file.metadata()?.is_dir() {
                return Err(ErrorKind::IsADirectory.into());
            }
            Ok(file)
        };
        let file = open().map_err(|error| in_op("open", path, error))?;
        Ok(Arc::new(DiskFile {
            file,
            path: path.to_path_buf(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|error| in_op("rename", from, error))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|error| in_op("remove", path, error))
    }

    fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let list = || {
            let mut entries = Vec::new();
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                // Follows links, so that an operator may put a directory on another disk. An entry
                // that is gone by now, or a dangling link, is not there.
                let meta = match fs::metadata(entry.path()) {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    meta => meta?,
                };
                let is_dir = meta.is_dir();
                entries.push(DirEntry {
                    // A name that is not UTF-8 is never one of ours; the replacement character
                    // keeps it from looking like one.
                    name: entry.file_name().to_string_lossy().into_owned(),
                    is_dir,
                    len: if is_dir { 0 } else { meta.len() },
                });
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        };
        list().map_err(|error| in_op("list", dir, error))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(dir)
            .and_then(|handle| handle.sync_all())
            .map_err(|error| in_op("sync directory", dir, error))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>> {
        // The lock belongs to the open file description: dropping the file, or the end of the
        // process, releases it. The file stays, because removing it would race with a new owner.
        let lock = || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            match file.try_lock() {
                Ok(()) => Ok(file),
                Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
                Err(TryLockError::Error(error)) => Err(error),
            }
        };
        let file = lock().map_err(|error| in_op("lock", path, error))?;
        Ok(Box::new(file))
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64> {
        statvfs_free_bytes(dir).map_err(|error| in_op("stat file system of", dir, error))
    }
}

/// An open file of [`DiskIo`].
struct DiskFile {
    file: File,
    /// Path at open time, for error messages only.
    path: PathBuf,
}

impl DiskFile {
    fn in_op(&self, operation: &'static str, error: io::Error) -> io::Error {
        in_op(operation, &self.path, error)
    }
}

impl IoFile for DiskFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.in_op("read", error)),
            }
        }
        Ok(done)
    }

    fn read_vec_at(&self, len: usize, offset: u64) -> Result<Vec<u8>> {
        let mut buf = Vec::with_capacity(len);
        while buf.len() < len {
            match read_more(&self.file, &mut buf, len, offset) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.in_op("read", error)),
            }
        }
        Ok(buf)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        // `write_all_at` continues after a partial write and after EINTR.
        self.file
            .write_all_at(buf, offset)
            .map_err(|error| self.in_op("write", error))
    }

    fn sync_data(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|error| self.in_op("sync", error))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file
            .set_len(len)
            .map_err(|error| self.in_op("set length of", error))
    }

    fn allocate(&self, len: u64) -> Result<()> {
        let allocate = || {
            if len == 0 {
                return Ok(());
            }
            match fallocate(&self.file, len) {
                Err(error) if lacks_fallocate(&error) => {
                    if self.file.metadata()?.len() < len {
                        self.file.set_len(len)
                    } else {
                        Ok(())
                    }
                }
                result => result,
            }
        };
        allocate().map_err(|error| self.in_op("allocate", error))
    }

    fn len(&self) -> Result<u64> {
        let meta = self
            .file
            .metadata()
            .map_err(|error| self.in_op("stat", error))?;
        Ok(meta.len())
    }

    fn drop_cache(&self) {
        drop_page_cache(&self.file);
    }
}

/// Says which operation on which file failed, and keeps the kind.
fn in_op(operation: &'static str, path: &Path, error: io::Error) -> io::Error {
    let kind = error.kind();
    io::Error::new(
        kind,
        DiskError {
            operation,
            path: path.to_path_buf(),
            error,
        },
    )
}

#[derive(Debug)]
struct DiskError {
    operation: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {} {}: {}",
            self.operation,
            self.path.display(),
            self.error
        )
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// The directory that holds the entry of `path`; none for a root.
fn parent_of(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    })
    .filter(|parent| *parent != path)
}

fn lacks_fallocate(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// Reads on where `buf`, which begins at `offset` of the file, ends, until it has at most `len` bytes;
/// returns how many were added. To fill the memory with zeros first would cost half as much as to
/// read into it.
fn read_more(file: &File, buf: &mut Vec<u8>, len: usize, offset: u64) -> Result<usize> {
    let invalid = || io::Error::from(ErrorKind::InvalidInput);
    let begin = buf.len();
    let at = offset.checked_add(begin as u64).ok_or_else(invalid)?;
    let at = libc::off_t::try_from(at).map_err(|_| invalid())?;
    let spare = buf.spare_capacity_mut();
    let wanted = len.saturating_sub(begin).min(spare.len());
    // SAFETY: the first `wanted` bytes of `spare` are memory of the buffer that nobody else uses, and
    // the call writes no further; `file` keeps the descriptor open meanwhile.
    let read = unsafe { libc::pread(file.as_raw_fd(), spare.as_mut_ptr().cast(), wanted, at) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the call initialised the first `read` bytes behind the old end, and `read <= wanted`,
    // which lies within the capacity.
    unsafe { buf.set_len(begin + read.min(wanted)) };
    Ok(read)
}

#[cfg(target_os = "linux")]
fn fallocate(file: &File, len: u64) -> Result<()> {
    let len = libc::off_t::try_from(len).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    loop {
        // SAFETY: takes no pointers; `file` keeps the descriptor open during the call.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn fallocate(_file: &File, _len: u64) -> Result<()> {
    Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

#[cfg(target_os = "linux")]
fn drop_page_cache(file: &File) {
    // Advice only: the caller must not depend on it, so its result has no meaning.
    // SAFETY: takes no pointers; `file` keeps the descriptor open during the call.
    _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

#[cfg(not(target_os = "linux"))]
fn drop_page_cache(_file: &File) {}

// The width of the fields differs between platforms.
#[allow(clippy::unnecessary_cast)]
fn statvfs_free_bytes(dir: &Path) -> Result<u64> {
    let dir = CString::new(dir.as_os_str().as_bytes())?;
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    loop {
        // SAFETY: `dir` is NUL-terminated, and `stat` has room for the whole struct.
        if unsafe { libc::statvfs(dir.as_ptr(), stat.as_mut_ptr()) } == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: the call succeeded, so it filled the struct.
    let stat = unsafe { stat.assume_init() };
    Ok((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
}

/// Fills `buf` with random bytes from the kernel.
#[cfg(target_os = "linux")]
pub(super) fn fill_random(buf: &mut [u8; 8]) -> Result<()> {
    loop {
        // SAFETY: the pointer and length are those of `buf`.
        let n = unsafe { libc::getrandom(buf.as_mut_ptr().cast(), buf.len(), 0) };
        // Requests of up to 256 bytes are answered whole.
        if usize::try_from(n) == Ok(buf.len()) {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ENOSYS) => return File::open("/dev/urandom")?.read_exact(buf),
            _ => return Err(error),
        }
    }
}

/// Fills `buf` with random bytes from the kernel.
#[cfg(not(target_os = "linux"))]
pub(super) fn fill_random(buf: &mut [u8; 8]) -> Result<()> {
    File::open("/dev/urandom")?.read_exact(buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temp() -> (tempfile::TempDir, DiskIo) {
        (tempfile::tempdir().unwrap(), DiskIo::new())
    }

    #[test]
    fn reads_stop_at_the_end_and_writes_extend() {
        let (dir, io) = temp();
        let file = io.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        file.write_at(b"abc", 5).unwrap();
        file.sync_data().unwrap();
        let mut buf = [9; 10];
        assert_eq!(file.read_at(&mut buf, 2).unwrap(), 6);
        assert_eq!(&buf, b"\0\0\0abc\x09\x09\x09\x09");
        assert_eq!(file.read_at(&mut buf, 8).unwrap(), 0);
        assert_eq!(file.read_vec_at(3, 4).unwrap(), b"\0ab");
        assert_eq!(file.read_vec_at(10, 2).unwrap(), b"\0\0\0abc");
        assert_eq!(file.read_vec_at(10, 8).unwrap(), b"");
        let error = file.read_vec_at(1, u64::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        file.drop_cache();
        assert_eq!(file.len().unwrap(), 8);
        file.set_len(2).unwrap();
        let error = file.read_exact_at(&mut buf, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn allocate_extends_and_never_shrinks() {
        let (dir, io) = temp();
        let file = io.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        file.allocate(0).unwrap();
        file.allocate(10_000).unwrap();
        file.allocate(5_000).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        let error = file.allocate(u64::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn allocating_more_than_the_disk_has_fails() {
        let (dir, io) = temp();
        assert!(io.free_bytes(dir.path()).unwrap() < 1 << 62);
        let file = io.open(&dir.path().join("f"), OpenMode::CreateNew).unwrap();
        // More than the largest file of any file system, so that none begins to reserve it.
        let error = file.allocate(1 << 62).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::FileTooLarge
            ),
            "{error:?}"
        );
    }

    #[test]
    fn a_second_lock_would_block_until_the_first_is_dropped() {
        let (dir, io) = temp();
        let path = dir.path().join("LOCK");
        let first = io.lock(&path).unwrap();
        let error = io.lock(&path).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        drop(first);
        io.lock(&path).unwrap();
    }

    #[test]
    fn directories_are_created_with_parents_and_listed_sorted() {
        let (dir, io) = temp();
        let deep = dir.path().join("a/b/c");
        io.create_dir_all(&deep).unwrap();
        io.create_dir_all(&deep).unwrap();
        io.open(&dir.path().join("a/z"), OpenMode::CreateNew)
            .unwrap()
            .set_len(7)
            .unwrap();
        let names = io.list(&dir.path().join("a")).unwrap();
        let dir_entry = |name: &str, is_dir, len| DirEntry {
            name: name.into(),
            is_dir,
            len,
        };
        assert_eq!(names, [dir_entry("b", true, 0), dir_entry("z", false, 7)]);
        let error = io.create_dir_all(&dir.path().join("a/z/y")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADirectory);
    }

    #[test]
    fn errors_keep_their_kind_and_name_the_file() {
        let (dir, io) = temp();
        let missing = dir.path().join("missing");
        let check = |error: Option<io::Error>, kind, word: &str| {
            let error = error.unwrap();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        };
        check(
            io.open(&missing, OpenMode::Read).err(),
            ErrorKind::NotFound,
            "missing",
        );
        check(io.remove(&missing).err(), ErrorKind::NotFound, "missing");
        check(
            io.rename(&missing, &missing).err(),
            ErrorKind::NotFound,
            "missing",
        );
        check(io.list(&missing).err(), ErrorKind::NotFound, "missing");
        check(io.sync_dir(&missing).err(), ErrorKind::NotFound, "missing");
        check(
            io.free_bytes(&missing).err(),
            ErrorKind::NotFound,
            "missing",
        );
        check(
            io.open(dir.path(), OpenMode::Read).err(),
            ErrorKind::IsADirectory,
            "open",
        );
        let file = dir.path().join("f");
        io.open(&file, OpenMode::CreateNew).unwrap();
        check(
            io.open(&file, OpenMode::CreateNew).err(),
            ErrorKind::AlreadyExists,
            "f",
        );
        check(io.sync_dir(&file).err(), ErrorKind::NotADirectory, "sync");
        let read_only = io.open(&file, OpenMode::Read).unwrap();
        read_only.write_at(b"x", 0).unwrap_err();
    }
}
