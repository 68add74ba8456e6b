//! Sealed data: immutable files of compressed, checksummed blocks.
//!
//! A segment holds one *extent* for each of its streams: consecutive blocks, ascending in sequence.
//! A file with one large extent and a file with ten thousand small ones (a *pack*) are the same
//! format. `seg/<id>.seg` is: file header, blocks, block table pages, table separator pages, extent
//! pages, timer pages, footer.
//!
//! A read costs at most one table page and one block. What is damaged answers
//! [`Corrupt`](crate::error::Corrupt) for exactly the messages it held, and everything else keeps
//! serving; where block table or footer is damaged, the table is made again from the block heads.

mod copy;
mod decoded;
mod expected;
mod lookup;
mod reader;
mod rebuild;
mod subjects;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod verify;
mod walk;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

pub use crate::format::block::Codec;
pub use crate::format::block_table::ExtentInfo;
use crate::format::file_header::FileKind;
use crate::format::footer::{self, Footer};
use crate::format::key_ring::KeyId;
use crate::ids::SegmentId;
use crate::io::{Env, OpenMode};

pub(crate) use decoded::{BlockCursor, WeakCursor};
pub use decoded::{DecodedBlock, LoadedBlock, Messages, Stretch};
pub(crate) use expected::{ExpectedBlock, Proof};
pub use reader::{ScanItem, Segment};
pub(crate) use subjects::SubjectItem;
pub use timers::TimersDue;
pub(crate) use verify::SegmentCheck;
pub use verify::VerifyReport;
pub use writer::{SealedSegment, SegmentWriter};

/// What the metadata log remembers of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentManifest {
    /// Which segment.
    pub id: SegmentId,
    /// Length of the file.
    pub file_bytes: u64,
    /// Accounted size of its messages, in bytes.
    pub bytes: u64,
    /// Digest of the footer. A file whose footer has another digest is not the one that was
    /// sealed.
    pub footer_digest: u64,
    /// The key that the file is encrypted with.
    pub key: Option<KeyId>,
}

/// The manifest of a segment as its own footer tells it: for a file of which nobody else knows.
///
/// # Errors
///
/// `InvalidData` if the footer is unreadable.
pub(crate) fn manifest_of(
    env: &Env,
    path: &Path,
    store_uuid: u128,
    id: SegmentId,
) -> io::Result<SegmentManifest> {
    let file = env.io.open(path, OpenMode::Read)?;
    let file_bytes = file.len()?;
    let mut bytes = [0_u8; footer::BYTES];
    let offset = file_bytes.saturating_sub(footer::BYTES as u64);
    let len = file.read_at(&mut bytes, offset)?;
    let kind = FileKind::Segment;
    let footer = Footer::decode(kind, store_uuid, id.0, file_bytes, &bytes[..len])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(SegmentManifest {
        id,
        file_bytes,
        // Told by the extents, which may be damaged; nobody asks.
        bytes: 0,
        footer_digest: Footer::digest_of(&footer.encode()),
        key: footer.key,
    })
}

/// Path of a segment in the segment directory.
pub fn segment_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{:016x}.seg", id.0))
}
