//! Sealed data: immutable files of compressed, checksummed blocks.
//!
//! A segment holds one *extent* for each of its streams: consecutive blocks, ascending in sequence.
//! A file with one large extent and a file with ten thousand small ones (a *pack*) are the same
//! format. `seg/<id>.seg` is: file header, blocks, block table pages, table separator pages, extent
//! pages, footer.
//!
//! A read costs at most one table page and one block. What is damaged answers
//! [`Corrupt`](crate::error::Corrupt) for exactly the messages it held, and everything else keeps
//! serving; where block table or footer is damaged, the table is made again from the block heads.

mod decoded;
mod lookup;
mod reader;
mod rebuild;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod verify;
mod writer;

use std::path::{Path, PathBuf};

pub use crate::format::block::Codec;
pub use crate::format::block_table::ExtentInfo;
use crate::ids::SegmentId;

pub use decoded::{DecodedBlock, LoadedBlock, Messages, Stretch};
pub use reader::{ScanItem, Segment};
pub use verify::VerifyReport;
pub use writer::{SealedSegment, SegmentWriter};

/// What the metadata log remembers of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentManifest {
    /// Which segment.
    pub id: SegmentId,
    /// Length of the file.
    pub file_bytes: u64,
    /// Digest of the footer. A file whose footer has another digest is not the one that was
    /// sealed.
    pub footer_digest: u64,
}

/// Path of a segment in the segment directory.
pub fn segment_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{:016x}.seg", id.0))
}
