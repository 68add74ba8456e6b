//! Configuration of streams, and its stored form.

use std::fmt;

use crate::ids::Seq;

/// Where a stream keeps its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// On disk; survives a restart.
    #[default]
    File,
    /// In memory; gone when the store closes.
    Memory,
}

/// What happens when a limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discard {
    /// The oldest messages make room.
    #[default]
    Old,
    /// The new message is refused.
    New,
}

/// When messages leave a stream besides its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// Never.
    #[default]
    Limits,
    /// When every consumer that wants a message has acknowledged it.
    Interest,
    /// When one consumer has acknowledged it.
    WorkQueue,
}

/// Block compression of sealed data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Blocks are stored as they are.
    #[default]
    None,
    /// S2; a block that does not shrink is stored as it is.
    S2,
}

/// A message without payload that takes the place of the last one of its subject when that leaves for
/// its age or at the end of its life time, but not when it is removed otherwise. Nothing takes the
/// place of a marker, or of a message appended with [`crate::Append::leaves_no_marker`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteMarker {
    /// Header block, at most [`DeleteMarker::HEADERS_BYTES_MAX`] bytes.
    pub headers: Vec<u8>,
    /// Its own life time in nanoseconds; at least 1.
    pub ttl_ns: u64,
}

impl DeleteMarker {
    /// Longest header block, in bytes.
    pub const HEADERS_BYTES_MAX: usize = 64 * 1024;
}

/// Configuration of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamConfig {
    /// Unique name within the store, at most [`StreamConfig::NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Where messages live. Cannot be changed by an update.
    pub storage: Storage,
    /// Highest number of live messages.
    pub msgs_max: Option<u64>,
    /// Highest sum of accounted message sizes, see [`crate::limits::accounted_bytes`].
    pub bytes_max: Option<u64>,
    /// Highest age of a message in nanoseconds; [`crate::Ttl::Never`] excepts a message from it.
    pub age_max_ns: Option<u64>,
    /// What takes the place of the last message of a subject when it expires.
    pub delete_marker: Option<DeleteMarker>,
    /// Highest number of live messages of one subject.
    pub msgs_per_subject_max: Option<u64>,
    /// Whether old messages give way or new ones are refused.
    pub discard: Discard,
    /// With [`Discard::New`]: refuse as well when only the subject is at its maximum.
    pub discard_new_per_subject: bool,
    /// When acknowledged messages are removed.
    pub retention: Retention,
    /// How long a message id is remembered, in nanoseconds; 0 = not at all.
    pub dedup_window_ns: u64,
    /// Compression of sealed blocks.
    pub compression: Compression,
    /// First sequence of a new stream; 0 counts as 1. Ignored by updates.
    pub first_seq: Seq,
    /// Bytes of the embedder, stored and returned unchanged.
    pub attachment: Vec<u8>,
}

impl StreamConfig {
    /// Longest stream or consumer name, in bytes.
    pub const NAME_BYTES_MAX: usize = 4096;
    /// Longest attachment, in bytes.
    pub const ATTACHMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
}

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The name is empty or too long.
    Name,
    /// The attachment is too long.
    Attachment,
    /// The field cannot be changed after creation.
    Fixed(&'static str),
    /// A filter is not a valid subject.
    Filter(String),
    /// A combination that has no meaning; the text says which.
    Invalid(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Name => write!(
                f,
                "a name needs 1 to {} bytes",
                StreamConfig::NAME_BYTES_MAX
            ),
            ConfigError::Attachment => write!(
                f,
                "an attachment can have at most {} bytes",
                StreamConfig::ATTACHMENT_BYTES_MAX
            ),
            ConfigError::Fixed(field) => write!(f, "{field} cannot be changed after creation"),
            ConfigError::Filter(filter) => write!(f, "\"{filter}\" is not a valid subject filter"),
            ConfigError::Invalid(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ConfigError {}
