//! What the operating system knows about this process and its files.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::error::{BenchError, BenchResult, Doing};
use crate::versus::process::cpu_seconds;

/// Memory, I/O and CPU time of this process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident bytes now.
    pub rss_bytes: u64,
    /// Most resident bytes since the start or [`reset_peak`].
    pub rss_peak_bytes: u64,
    /// Bytes given back by read calls, from the page cache or not.
    pub read_call_bytes: u64,
    /// Bytes handed to write calls.
    pub write_call_bytes: u64,
    /// Bytes that were fetched from the device.
    pub device_read_bytes: u64,
    /// Bytes that were made dirty and will reach the device.
    pub device_write_bytes: u64,
    /// User and system time of all threads, in seconds.
    pub cpu_seconds: f64,
}

impl Usage {
    /// Reads `/proc/self`.
    pub fn now() -> BenchResult<Usage> {
        let status = fs::read_to_string("/proc/self/status").doing("reading /proc/self/status")?;
        let io = fs::read_to_string("/proc/self/io").doing("reading /proc/self/io")?;
        Ok(Usage {
            rss_bytes: field(&status, "VmRSS:")? * 1024,
            rss_peak_bytes: field(&status, "VmHWM:")? * 1024,
            read_call_bytes: field(&io, "rchar:")?,
            write_call_bytes: field(&io, "wchar:")?,
            device_read_bytes: field(&io, "read_bytes:")?,
            device_write_bytes: field(&io, "\nwrite_bytes:")?,
            cpu_seconds: cpu_seconds(std::process::id())?,
        })
    }
}

fn field(text: &str, name: &str) -> BenchResult<u64> {
    let value = text.split_once(name).and_then(|(_, rest)| {
        rest.split_ascii_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
    });
    value.ok_or_else(|| BenchError::Failed(format!("no {name} in /proc/self")))
}

/// Lets the peak of the resident size start over.
pub fn reset_peak() -> BenchResult<()> {
    fs::write("/proc/self/clear_refs", "5").doing("writing /proc/self/clear_refs")
}

/// Number of CPUs this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// All files below a directory, in path order.
pub fn files(dir: &Path) -> BenchResult<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).doing("listing a directory")? {
        let path = entry.doing("listing a directory")?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Sum of the lengths of all files below a directory; 0 when it does not exist.
pub fn file_bytes(dir: &Path) -> BenchResult<u64> {
    if !dir.exists() {
        return Ok(0);
    }
    // A file may disappear between the listing and this call.
    let sizes = files(dir)?;
    Ok(sizes
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|meta| meta.len())
        .sum())
}

/// Writes back everything below `dir` and asks the system to forget it, so that the next read comes
/// from the device. What the system keeps all the same shows in [`resident_bytes`].
pub fn drop_page_cache(dir: &Path) -> BenchResult<()> {
    for path in files(dir)? {
        let Ok(file) = File::open(&path) else {
            continue;
        };
        file.sync_all().doing("syncing a file")?;
        // SAFETY: the descriptor is open; the call touches no memory of this process.
        let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    Ok(())
}

/// Bytes of a file that are in the page cache.
pub fn resident_bytes(path: &Path) -> BenchResult<u64> {
    const PAGE: usize = 4096;
    let file = File::open(path).doing("opening a file")?;
    let len = file.metadata().doing("sizing a file")?.len() as usize;
    if len == 0 {
        return Ok(0);
    }
    let mut pages = vec![0u8; len.div_ceil(PAGE)];
    // SAFETY: a fresh read-only mapping of `len` bytes, not touched, unmapped below.
    let map = unsafe {
        let (prot, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        libc::mmap(std::ptr::null_mut(), len, prot, flags, file.as_raw_fd(), 0)
    };
    if map == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error()).doing("mapping a file");
    }
    // SAFETY: `map` is the mapping above and `pages` has one byte for each of its pages.
    let result = unsafe { libc::mincore(map, len, pages.as_mut_ptr()) };
    let error = std::io::Error::last_os_error();
    // SAFETY: nothing refers to the mapping any more.
    unsafe { libc::munmap(map, len) };
    if result != 0 {
        return Err(error).doing("asking for resident pages");
    }
    Ok(pages.iter().filter(|page| **page & 1 == 1).count() as u64 * PAGE as u64)
}

/// Keeps this thread, and the threads it will start, on one CPU.
pub fn pin_to_one_cpu() -> BenchResult<()> {
    // SAFETY: an all-zero set is valid; `CPU_SET` and the call stay inside it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).doing("pinning to a CPU");
    }
    Ok(())
}

/// Ends this process as `kill -9` does: nothing is flushed, dropped or closed.
pub fn kill_self() -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: signals this process only.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    // The signal is on its way.
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::{Usage, drop_page_cache, file_bytes, files, resident_bytes};

    #[test]
    fn usage_of_this_process_is_plausible() {
        let usage = Usage::now().expect("usage");
        assert!(usage.rss_bytes > 100_000 && usage.rss_peak_bytes >= usage.rss_bytes / 2);
        assert!(usage.read_call_bytes > 0);
    }

    #[test]
    fn files_are_found_sized_and_resident_once_they_were_written() {
        let dir = tempfile::tempdir().expect("directory");
        std::fs::create_dir(dir.path().join("sub")).expect("sub directory");
        let path = dir.path().join("sub/file");
        std::fs::write(&path, vec![1; 10_000]).expect("file");
        assert_eq!(
            files(dir.path()).expect("files"),
            std::slice::from_ref(&path)
        );
        assert_eq!(file_bytes(dir.path()).expect("bytes"), 10_000);
        assert!(resident_bytes(&path).expect("pages") <= 12_288);
        drop_page_cache(dir.path()).expect("dropped");
    }
}
