//! Requests and answers of the stream API.

use std::fmt;

use crate::config::ConfigError;
use crate::error::{ReadError, Stopped};
use crate::ids::{Lsn, Seq, TimestampNs};
use crate::message::Ttl;
use crate::subject::Filter;

/// A message to append, with the conditions under which it is accepted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Append<'a> {
    /// Literal subject.
    pub subject: &'a [u8],
    /// Header block, empty for none; opaque to the engine.
    pub headers: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// Deduplication id.
    pub msg_id: Option<&'a [u8]>,
    /// Accept only if this is the stream's last sequence.
    pub expect_last_seq: Option<u64>,
    /// Accept only if this is the last live sequence of the subject (0 = none).
    pub expect_last_subject_seq: Option<ExpectSubject<'a>>,
    /// Accept only if the last message carried this id.
    pub expect_last_msg_id: Option<&'a [u8]>,
    /// Remove older messages once this one is stored.
    pub rollup: Option<Rollup>,
    /// How long it lives; `None` leaves that to the stream's maximum age.
    pub ttl: Option<Ttl>,
    /// When it expires as the last message of its subject, no marker takes its place, see
    /// [`crate::StreamConfig::delete_marker`].
    pub leaves_no_marker: bool,
    /// From this time on the message is in [`crate::Stream::due_notices`] as long as it lives. The
    /// engine does nothing else with it: what is due, the embedder does.
    pub notify_at: Option<TimestampNs>,
}

/// Expected last sequence of a subject.
#[derive(Clone, Copy, Debug)]
pub struct ExpectSubject<'a> {
    /// The sequence; 0 = no live message.
    pub seq: u64,
    /// Look at all subjects that match this filter; `None` = the message's own subject.
    pub filter: Option<&'a Filter>,
}

/// What a rollup message replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollup {
    /// All older messages of its subject.
    Subject,
    /// All older messages of the stream.
    All,
}

/// An accepted append. Durable when the store's durable position reaches `lsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Sequence of the message; of the first one for a duplicate.
    pub seq: Seq,
    /// The id was seen before within the window: nothing was stored.
    pub duplicate: bool,
    /// Wait for this position before telling anybody.
    pub lsn: Lsn,
}

/// An append that was refused. Nothing changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AppendError {
    /// The stream's (or subject's) last sequence is this one.
    WrongLastSeq(u64),
    /// The last message carried this id.
    WrongLastMsgId(String),
    /// `msgs_max` is reached and the stream refuses new messages.
    MsgsExceeded,
    /// `bytes_max` is reached and the stream refuses new messages.
    BytesExceeded,
    /// `msgs_per_subject_max` is reached and the stream refuses new messages.
    MsgsPerSubjectExceeded,
    /// The message is larger than the engine stores.
    TooLarge,
    /// The subject is empty, too long or not literal.
    Subject,
    /// The commit queue is full; try again when it has room.
    Busy,
    /// No disk space for the log. Appends work again once there is; deletes and acks still do.
    NoSpace,
    /// The store stopped.
    Stopped(Stopped),
    /// The stream was deleted.
    Deleted,
    /// Admission needed stored data that could not be read.
    Read(ReadError),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AppendError::WrongLastSeq(seq) => write!(f, "wrong last sequence: {seq}"),
            AppendError::WrongLastMsgId(id) => write!(f, "wrong last message id: {id}"),
            AppendError::MsgsExceeded => f.write_str("maximum messages exceeded"),
            AppendError::BytesExceeded => f.write_str("maximum bytes exceeded"),
            AppendError::MsgsPerSubjectExceeded => {
                f.write_str("maximum messages per subject exceeded")
            }
            AppendError::TooLarge => f.write_str("message too large"),
            AppendError::Subject => f.write_str("subject is empty, too long or not literal"),
            AppendError::Busy => f.write_str("commit queue is full, try again"),
            AppendError::NoSpace => f.write_str("no disk space left for the log"),
            AppendError::Stopped(stopped) => stopped.fmt(f),
            AppendError::Deleted => f.write_str("stream was deleted"),
            AppendError::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AppendError {}

/// A batch of which not every message was accepted.
#[derive(Clone, Debug)]
pub struct BatchError {
    /// The messages before the refused one: stored, and on disk unless the store stopped.
    pub appended: Vec<Appended>,
    /// Why the next one was refused; it and those behind it changed nothing.
    pub refused: AppendError,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.appended.len();
        write!(f, "message {at} of the batch: {}", self.refused)
    }
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.refused)
    }
}

/// A change to a stream or consumer that was refused. Nothing changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// The configuration cannot be used.
    Config(ConfigError),
    /// The name is taken.
    Exists,
    /// There is no such stream or consumer.
    NotFound,
    /// No disk space for the log.
    NoSpace,
    /// The store stopped.
    Stopped(Stopped),
    /// Stored data that the change needs could not be read.
    Read(ReadError),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::Config(error) => error.fmt(f),
            ChangeError::Exists => f.write_str("the name is already in use"),
            ChangeError::NotFound => f.write_str("not found"),
            ChangeError::NoSpace => f.write_str("no disk space left for the log"),
            ChangeError::Stopped(stopped) => stopped.fmt(f),
            ChangeError::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ChangeError {}

impl From<ReadError> for ChangeError {
    fn from(error: ReadError) -> ChangeError {
        ChangeError::Read(error)
    }
}

impl From<ConfigError> for ChangeError {
    fn from(error: ConfigError) -> ChangeError {
        ChangeError::Config(error)
    }
}

/// Counters and positions of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// Live messages.
    pub msgs: u64,
    /// Sum of accounted sizes of live messages, in bytes.
    pub bytes: u64,
    /// First live sequence; `last_seq + 1` when there is none.
    pub first_seq: Seq,
    /// Time of the first live message.
    pub first_ts: Option<TimestampNs>,
    /// Last sequence ever given; `first_seq - 1` before the first.
    pub last_seq: Seq,
    /// Time of the last message ever stored.
    pub last_ts: Option<TimestampNs>,
    /// Removed sequences between first and last.
    pub deleted: u64,
    /// Consumers.
    pub consumers: usize,
}

/// What a purge removes.
#[derive(Clone, Debug, Default)]
pub struct PurgeRequest {
    /// Only messages whose subject matches.
    pub filter: Option<Filter>,
    /// Only messages below this sequence.
    pub below: Option<Seq>,
    /// Keep this many of the newest matching messages.
    pub keep: Option<u64>,
}
