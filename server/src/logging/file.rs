//! A log file that can be opened anew and set aside at a size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Lines are appended with one write each, so several threads need no lock around it.
pub(super) struct LogFile {
    path: PathBuf,
    file: RwLock<Arc<File>>,
    size_bytes: AtomicU64,
    /// 0: the file is never set aside.
    bytes_max: u64,
    /// Files kept, the current one included; 0: all.
    files_max: usize,
    /// One thread at a time sets the file aside; the others go on writing to the old one.
    is_rotating: AtomicBool,
}

impl LogFile {
    pub(super) fn open(path: &Path, bytes_max: u64, files_max: usize) -> io::Result<Self> {
        let file = open_append(path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file: RwLock::new(Arc::new(file)),
            size_bytes: AtomicU64::new(size_bytes),
            bytes_max,
            files_max,
            is_rotating: AtomicBool::new(false),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn append(&self, line: &[u8]) {
        let file = Arc::clone(&self.file.read().unwrap_or_else(PoisonError::into_inner));
        // There is nobody left to tell when the log itself cannot be written.
        let _ = (&*file).write_all(line);
        let line_bytes = line.len() as u64;
        let size_bytes = self.size_bytes.fetch_add(line_bytes, Ordering::Relaxed) + line_bytes;
        if self.bytes_max > 0 && size_bytes > self.bytes_max {
            self.rotate();
        }
    }

    pub(super) fn reopen(&self) -> io::Result<()> {
        let file = open_append(&self.path)?;
        let size_bytes = file.metadata()?.len();
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
        self.size_bytes.store(size_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Renames the file to `<name>.<time>`, starts a new one and removes the oldest.
    fn rotate(&self) {
        if self.is_rotating.swap(true, Ordering::Acquire) {
            return;
        }
        let time = jiff::Timestamp::now().strftime("%Y.%m.%d.%H.%M.%S.%9f");
        let mut set_aside = self.path.clone().into_os_string();
        set_aside.push(format!(".{time}"));
        let result = std::fs::rename(&self.path, set_aside).and_then(|()| self.reopen());
        if result.is_err() {
            // Try again only after the same amount has been written once more.
            self.size_bytes.store(0, Ordering::Relaxed);
        } else if self.files_max > 0 {
            self.remove_oldest();
        }
        self.is_rotating.store(false, Ordering::Release);
    }

    /// The names end in the time, so their order is their age.
    fn remove_oldest(&self) {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return;
        };
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let prefix = format!("{}.", name.to_string_lossy());
        let Ok(entries) = std::fs::read_dir(folder) else {
            return;
        };
        let mut set_aside: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| is_set_aside(&entry.file_name().to_string_lossy(), &prefix))
            .map(|entry| entry.path())
            .collect();
        set_aside.sort();
        let excess = set_aside
            .len()
            .saturating_sub(self.files_max.saturating_sub(1));
        for path in &set_aside[..excess] {
            // A file that cannot be removed is tried again next time.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether `name` is `prefix` and a time such as `2026.01.02.15.04.05.000000000`: nothing else is
/// ours to delete.
fn is_set_aside(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|time| {
        time.len() == 29
            && time.split('.').map(str::len).eq([4, 2, 2, 2, 2, 2, 9])
            && time
                .bytes()
                .all(|byte| byte == b'.' || byte.is_ascii_digit())
    })
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_set_aside_and_only_the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let foreign = folder.path().join("x.log.notes");
        std::fs::write(&foreign, "mine").unwrap();
        let log = LogFile::open(&path, 100, 3).unwrap();
        for i in 0..200 {
            log.append(format!("line {i:03}\n").as_bytes());
        }
        let mut text = String::new();
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "x.log.notes")
            .collect();
        names.sort();
        assert_eq!(names.len(), 3);
        // The current file sorts first but is the newest.
        names.rotate_left(1);
        for name in &names {
            text.push_str(&std::fs::read_to_string(folder.path().join(name)).unwrap());
        }
        let lines: Vec<_> = text.lines().collect();
        let first = 200 - lines.len();
        for (i, line) in lines.iter().enumerate() {
            assert_eq!(*line, format!("line {:03}", first + i));
        }
        assert!(lines.len() > 20);
        assert!(foreign.exists());
    }

    #[test]
    fn without_a_limit_one_file_grows() {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile::open(&folder.path().join("x.log"), 0, 0).unwrap();
        for _ in 0..1000 {
            log.append(b"a line\n");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_names_with_a_time_are_set_aside_files() {
        assert!(is_set_aside(
            "x.log.2026.01.02.15.04.05.000000000",
            "x.log."
        ));
        assert!(!is_set_aside(
            "x.log.2026.01.02.15.04.05.00000000",
            "x.log."
        ));
        assert!(!is_set_aside(
            "x.log.2026.01.02.15.04.05.00000000a",
            "x.log."
        ));
        assert!(!is_set_aside("x.log", "x.log."));
        assert!(!is_set_aside(
            "y.log.2026.01.02.15.04.05.000000000",
            "x.log."
        ));
    }
}
