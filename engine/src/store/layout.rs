//! Names of files in a data directory.

use std::path::{Path, PathBuf};

use crate::ids::{IdFileId, SegmentId};

/// Paths below one data directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub fn new(dir: &Path) -> Layout {
        Layout {
            dir: dir.to_path_buf(),
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Exclusive lock of the process that has the store open.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("LOCK")
    }

    /// Format version and identity of the store.
    pub fn format(&self) -> PathBuf {
        self.dir.join("FORMAT")
    }

    pub fn format_temporary(&self) -> PathBuf {
        self.dir.join("FORMAT.new")
    }

    /// Disk space kept aside; its content means nothing.
    pub fn reserve(&self) -> PathBuf {
        self.dir.join("RESERVE")
    }

    pub fn wal_dir(&self) -> PathBuf {
        self.dir.join("wal")
    }

    pub fn meta_dir(&self) -> PathBuf {
        self.dir.join("meta")
    }

    pub fn seg_dir(&self) -> PathBuf {
        self.dir.join("seg")
    }

    pub fn idx_dir(&self) -> PathBuf {
        self.dir.join("idx")
    }

    /// Damaged files that a repair replaced.
    pub fn quarantine_dir(&self) -> PathBuf {
        self.dir.join("quarantine")
    }

    pub fn index(&self, id: SegmentId) -> PathBuf {
        crate::index::run_path(&self.idx_dir(), id)
    }

    pub fn segment(&self, id: SegmentId) -> PathBuf {
        crate::segment::segment_path(&self.seg_dir(), id)
    }

    pub fn ids_dir(&self) -> PathBuf {
        self.dir.join("ids")
    }

    pub fn id_file(&self, id: IdFileId) -> PathBuf {
        self.ids_dir().join(format!("{:016x}.ids", id.0))
    }

    /// The file number in a name of the `ids` directory.
    pub fn parse_id_file(name: &str) -> Option<IdFileId> {
        let number = name.strip_suffix(".ids")?;
        u64::from_str_radix(number, 16).ok().map(IdFileId)
    }

    /// True for the name of what the making of an index run leaves behind when it is interrupted.
    pub fn is_unfinished_index(name: &str) -> bool {
        let Some((file, rest)) = name.split_once(".idx.") else {
            return false;
        };
        let is_part = |rest: &str| {
            let number = rest.strip_prefix("part");
            number.is_some_and(|number| number.parse::<u64>().is_ok())
        };
        u64::from_str_radix(file, 16).is_ok() && (rest == "new" || is_part(rest))
    }

    /// The file number in a name of the `seg` or `idx` directory.
    pub fn parse(name: &str) -> Option<SegmentId> {
        let number = name
            .strip_suffix(".seg")
            .or_else(|| name.strip_suffix(".idx"))?;
        u64::from_str_radix(number, 16).ok().map(SegmentId)
    }
}
