//! The plain programs that the commit path is measured against: `write` and `fdatasync`, no more.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{BenchResult, Doing};

/// One file per stream, one sync per message.
pub struct FilePerStream {
    files: Vec<File>,
}

impl FilePerStream {
    /// Creates the files.
    pub fn create(dir: &Path, streams: usize) -> BenchResult<FilePerStream> {
        std::fs::create_dir_all(dir).doing("creating a directory")?;
        let files = (0..streams)
            .map(|n| File::create(dir.join(n.to_string())).doing("creating a file"))
            .collect::<BenchResult<_>>()?;
        Ok(FilePerStream { files })
    }

    /// Appends `message` to the files in turn for about `time`, each thread to its share of them,
    /// and syncs after every message. Returns messages per second.
    pub fn run(&mut self, threads: usize, message: &[u8], time: Duration) -> BenchResult<f64> {
        let share = self.files.len().div_ceil(threads);
        let start = Instant::now();
        let written: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> = self
                .files
                .chunks_mut(share)
                .map(|files| scope.spawn(move || append_in_turn(files, message, start, time)))
                .collect();
            let joined = workers
                .into_iter()
                .map(|worker| worker.join().expect("a worker"));
            joined.sum::<BenchResult<u64>>()
        })?;
        Ok(written as f64 / start.elapsed().as_secs_f64())
    }
}

fn append_in_turn(
    files: &mut [File],
    message: &[u8],
    start: Instant,
    time: Duration,
) -> BenchResult<u64> {
    let mut written = 0;
    while start.elapsed() < time {
        for file in files.iter_mut() {
            file.write_all(message).doing("writing")?;
            file.sync_data().doing("syncing")?;
            written += 1;
        }
    }
    Ok(written)
}

/// Bytes of one file of [`RawLog`] and how many there are: the log of a store at rest.
const LOG_FILE_BYTES: u64 = 64 << 20;
const LOG_FILES: usize = 8;

/// A ring of preallocated files, written batch by batch, each batch synced.
pub struct RawLog {
    files: Vec<File>,
    at: u64,
}

impl RawLog {
    /// Creates the files and writes them once, because the first write to a preallocated block costs
    /// more than the following ones.
    pub fn create(dir: &Path) -> BenchResult<RawLog> {
        std::fs::create_dir_all(dir).doing("creating a directory")?;
        let mut files = Vec::new();
        for n in 0..LOG_FILES {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(true);
            let file = options
                .open(dir.join(n.to_string()))
                .doing("creating a file")?;
            // SAFETY: the descriptor is open; the call touches no memory of this process.
            let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, LOG_FILE_BYTES as i64) };
            if result != 0 {
                return Err(std::io::Error::last_os_error()).doing("preallocating");
            }
            files.push(file);
        }
        let mut log = RawLog { files, at: 0 };
        let filled = LOG_FILE_BYTES * LOG_FILES as u64;
        log.run(1 << 20, filled, Duration::from_secs(60))?;
        Ok(log)
    }

    /// Writes `total` bytes in batches of `batch`, at most for `time`. Returns bytes per second.
    pub fn run(&mut self, batch: usize, total: u64, time: Duration) -> BenchResult<f64> {
        let content = vec![7u8; batch];
        let (start, mut written) = (Instant::now(), 0);
        while written < total && start.elapsed() < time {
            let (file, offset) = (self.at / LOG_FILE_BYTES, self.at % LOG_FILE_BYTES);
            if offset + batch as u64 > LOG_FILE_BYTES {
                self.at = (file + 1) % self.files.len() as u64 * LOG_FILE_BYTES;
                continue;
            }
            let file = &self.files[file as usize % self.files.len()];
            file.write_all_at(&content, offset).doing("writing")?;
            file.sync_data().doing("syncing")?;
            self.at = (self.at + batch as u64) % (LOG_FILE_BYTES * self.files.len() as u64);
            written += batch as u64;
        }
        Ok(written as f64 / start.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::{FilePerStream, RawLog};
    use std::time::Duration;

    #[test]
    fn every_stream_gets_its_messages() {
        let dir = tempfile::tempdir().expect("directory");
        let mut files = FilePerStream::create(dir.path(), 5).expect("files");
        let rate = files
            .run(2, b"message", Duration::from_millis(300))
            .expect("a run");
        assert!(rate > 0.0);
        let sizes = crate::measure::os::files(dir.path()).expect("files");
        assert_eq!(sizes.len(), 5);
        let mut total = 0;
        for path in sizes {
            let len = std::fs::metadata(path).expect("size").len();
            assert_eq!(len % 7, 0);
            total += len;
        }
        // Which files get one in so short a time is the scheduler's choice.
        assert!(total > 0);
    }

    #[test]
    fn the_ring_goes_round() {
        let dir = tempfile::tempdir().expect("directory");
        let file = std::fs::File::create(dir.path().join("0")).expect("a file");
        let mut log = RawLog {
            files: vec![file],
            at: super::LOG_FILE_BYTES - 100,
        };
        assert!(log.run(80, 240, Duration::from_secs(9)).expect("a run") > 0.0);
        assert_eq!(log.at, 160);
    }
}
