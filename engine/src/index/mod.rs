//! Subject index: which sequences have which subject.
//!
//! A *run* is an immutable sorted map from (stream, subject) to the sequences and sizes of its
//! messages. There is one for each segment; merged runs hold what several of them know of one
//! stream. Runs are derived: one that is missing or damaged is made anew, from the segment's blocks
//! in the end, and gives the same answers. They never name file offsets, so data and index can be
//! rewritten without each other.

mod any_run;
mod cursor;
mod memory;
mod merge;
mod postings;
mod reader;
mod rebuild;
mod separators;
mod sorter;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::format::key_page::compare_subjects;
use crate::ids::{SegmentId, Seq};

pub(crate) use any_run::{AnyCursor, AnyEntry, AnyRun, KeyMerge};
pub(crate) use cursor::OwnedKey;
pub use memory::MemoryRun;
pub use merge::{Merge, MergeError, MergeInput, MergeScope};
pub use postings::SubjectEntry;
pub(crate) use reader::Use;
pub use reader::{Run, RunIdentity, SubjectKey};
pub use rebuild::{RebuiltRun, rebuild_run};
pub(crate) use verify::{PostingsSum, RunCheck};
pub use writer::{RunSource, RunWriter, SealedRun};

/// A sequence and the accounted size of its message.
pub type Posting = (Seq, u32);

/// What the metadata log remembers of a merged run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunManifest {
    /// Number of the file.
    pub id: SegmentId,
    /// Length of the file.
    pub file_bytes: u64,
    /// Digest of the footer. A file whose footer has another digest is not the one that was made.
    pub footer_digest: u64,
}

/// A run cannot answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RunError {
    /// There is no such file: rebuild it.
    Missing,
    /// The file is damaged or unreadable, or belongs to another segment or store: rebuild it.
    Damaged {
        /// The file.
        file: PathBuf,
        /// Offset of the damaged unit.
        offset: u64,
        /// What was found.
        reason: String,
    },
    /// The operating system failed a call.
    Io {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
}

impl RunError {
    fn io(file: &Path, error: io::Error) -> RunError {
        RunError::Io {
            file: file.to_owned(),
            source: Arc::new(error),
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Missing => f.write_str("the index run is missing"),
            RunError::Damaged {
                file,
                offset,
                reason,
            } => write!(
                f,
                "index run {} is damaged at offset {offset}: {reason}",
                file.display()
            ),
            RunError::Io { file, source } => write!(f, "index run {}: {source}", file.display()),
        }
    }
}

impl std::error::Error for RunError {}

/// Path of a segment's run in the index directory.
pub fn run_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{:016x}.idx", id.0))
}
