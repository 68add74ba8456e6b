//! Whether a directory is a place where data lasts, and how much fits there (LIM-001).

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatFs, statfs};

// Numbers of `statfs(2)`.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

/// Share of the free space for streams, in percent (LIM-001).
const FILE_BYTES_PERCENT: u64 = 75;
/// When the free space is not known (LIM-001).
const FILE_BYTES_FALLBACK: u64 = 1 << 40;
/// Share of the machine's memory for streams, in percent (LIM-001).
const MEMORY_BYTES_PERCENT: u64 = 75;
/// When the machine's memory is not known (LIM-001).
const MEMORY_BYTES_FALLBACK: u64 = 256 << 20;

/// Where a directory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    /// As far as is known, on a disk.
    Disk,
    /// In a container's layer, which goes with the container.
    Overlay,
    /// In memory.
    Memory(&'static str),
}

/// Why a data directory cannot be used.
#[derive(Debug)]
pub(super) enum StoreDirError {
    /// The file system is in memory.
    InMemory {
        path: PathBuf,
        file_system: &'static str,
    },
    /// It does not exist and cannot be looked at or created.
    Unusable { path: PathBuf, reason: io::Error },
}

impl fmt::Display for StoreDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InMemory { path, file_system } => write!(
                f,
                "data directory {} is on {file_system}, which lives in memory and is gone after a \
                 reboot: choose a directory on a disk with -sd, or accept the loss with --ephemeral",
                path.display()
            ),
            Self::Unusable { path, reason } => write!(
                f,
                "cannot use data directory {}: {reason}: create it with write permission for this \
                 user, or choose another with -sd",
                path.display()
            ),
        }
    }
}

/// Creates the directory when it is missing, after a look at the medium it lies on.
pub(super) fn prepare(path: &Path, is_memory_accepted: bool) -> Result<Medium, StoreDirError> {
    let unusable = |reason| StoreDirError::Unusable {
        path: path.to_owned(),
        reason,
    };
    let medium = medium(&file_system(path).map_err(unusable)?);
    if let (Medium::Memory(file_system), false) = (medium, is_memory_accepted) {
        return Err(StoreDirError::InMemory {
            path: path.to_owned(),
            file_system,
        });
    }
    std::fs::create_dir_all(path).map_err(unusable)?;
    Ok(medium)
}

/// The file system of the path or, while that does not exist, of its closest existing parent.
fn file_system(path: &Path) -> io::Result<StatFs> {
    let absolute = std::path::absolute(path)?;
    let mut failure = io::ErrorKind::NotFound.into();
    for ancestor in absolute.ancestors() {
        match statfs(ancestor) {
            Ok(stat) => return Ok(stat),
            Err(error) if error == rustix::io::Errno::NOENT => failure = error.into(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(failure)
}

fn medium(stat: &StatFs) -> Medium {
    // The width and sign of the field differ between machines; the numbers have 32 bits.
    #[allow(clippy::unnecessary_cast, reason = "the type differs between machines")]
    match stat.f_type as u64 & 0xffff_ffff {
        TMPFS_MAGIC => Medium::Memory("tmpfs"),
        RAMFS_MAGIC => Medium::Memory("ramfs"),
        OVERLAYFS_SUPER_MAGIC => Medium::Overlay,
        _ => Medium::Disk,
    }
}

/// Bytes for file streams: a share of what is free and what the directory holds already. Without
/// the latter the limit would shrink with every restart, below what is stored.
pub(super) fn file_bytes_default(path: &Path) -> u64 {
    let Ok(stat) = file_system(path) else {
        return FILE_BYTES_FALLBACK;
    };
    #[allow(clippy::unnecessary_cast, reason = "the types differ between machines")]
    let free_bytes = (stat.f_bavail as u64).saturating_mul(stat.f_bsize as u64);
    share(
        free_bytes.saturating_add(used_bytes(path)),
        FILE_BYTES_PERCENT,
    )
}

/// Bytes on disk below `path`. Symbolic links are not followed.
fn used_bytes(path: &Path) -> u64 {
    let mut folders = vec![path.to_owned()];
    let mut total_bytes: u64 = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => total_bytes = total_bytes.saturating_add(metadata.blocks() * 512),
                Err(_) => {}
            }
        }
    }
    total_bytes
}

/// Bytes for memory streams: a share of what this process may use.
pub(super) fn memory_bytes_default() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()?
                .checked_mul(1024)
        });
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let known = [machine, container].into_iter().flatten().min();
    known.map_or(MEMORY_BYTES_FALLBACK, |bytes| {
        share(bytes, MEMORY_BYTES_PERCENT)
    })
}

fn share(bytes: u64, percent: u64) -> u64 {
    bytes / 100 * percent + bytes % 100 * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_refused_unless_accepted() {
        let shared_memory = Path::new("/dev/shm");
        if !matches!(
            file_system(shared_memory).map(|stat| medium(&stat)),
            Ok(Medium::Memory(_))
        ) {
            // This machine has no file system in memory to look at.
            return;
        }
        let path = shared_memory.join(format!("riverlog-test-{}/data", std::process::id()));
        let error = prepare(&path, false).unwrap_err().to_string();
        assert!(
            error.contains("tmpfs") && error.contains("--ephemeral"),
            "{error}"
        );
        assert!(!path.exists(), "nothing is created when refused");
        assert!(matches!(prepare(&path, true).unwrap(), Medium::Memory(_)));
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_created_and_a_file_is_no_directory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        prepare(&path, true).unwrap();
        assert!(path.is_dir());
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = prepare(&path, true).unwrap_err().to_string();
            assert!(error.starts_with("cannot use data directory "), "{error}");
        }
    }

    #[test]
    fn stored_data_counts_as_available() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/x"), vec![1; 1 << 20]).unwrap();
        assert!(used_bytes(folder.path()) >= 1 << 20);
        assert!(file_bytes_default(folder.path()) > 0);
        assert!(memory_bytes_default() > 1 << 20);
        assert_eq!(share(1001, 75), 750);
        assert_eq!(share(25_276_502_016, 75), 18_957_376_512);
    }
}
