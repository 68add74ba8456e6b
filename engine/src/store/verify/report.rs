//! What a check of a store found.

use std::fmt;
use std::path::PathBuf;

use crate::error::Corrupt;
use crate::ids::{Seq, StreamId};

/// The result of [`Store::verify`](crate::Store::verify). [`fmt::Display`] prints it for an operator.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The store's directory.
    pub dir: PathBuf,
    /// Everything that is not as it should be, in the order it was found.
    pub findings: Vec<Finding>,
    /// Streams with a log, by id; empty if the metadata is unreadable.
    pub streams: Vec<VerifiedStream>,
    /// Files that were checked.
    pub files: u64,
    /// Bytes that were read and checked.
    pub bytes: u64,
}

/// A stream as the metadata and the log describe it, and what of it cannot be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifiedStream {
    /// Identity.
    pub id: StreamId,
    /// Name.
    pub name: String,
    /// First live sequence.
    pub first_seq: Seq,
    /// Last sequence given.
    pub last_seq: Seq,
    /// Live messages, readable or not.
    pub msgs: u64,
    /// Live messages that are readable.
    pub msgs_readable: u64,
    /// Ranges of lost messages, ascending: each live message in a range is lost, and no other one
    /// is. The last one of a range may be followed by removed sequences.
    pub lost: Vec<Corrupt>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it means.
    pub kind: FindingKind,
    /// The file.
    pub file: PathBuf,
    /// Where in the file, in bytes; `None` if it concerns all of it.
    pub offset: Option<u64>,
    /// What was found.
    pub what: String,
}

/// What a [`Finding`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// The store does not open like this.
    Refuses,
    /// Acknowledged messages or operations cannot be read.
    Lost,
    /// The end of a log was torn: it was never acknowledged, unless it is the very last
    /// acknowledged frame that is damaged. The two cannot be told apart.
    Cut,
    /// Derived data is damaged or missing. It is made anew from the messages when it is needed.
    Derived,
    /// Damage that costs nothing: what it hit exists a second time or is not needed.
    Harmless,
    /// A file that nothing names, left by an interruption or a repair.
    Orphan,
}

impl FindingKind {
    fn label(self) -> &'static str {
        match self {
            FindingKind::Refuses => "does not open",
            FindingKind::Lost => "lost",
            FindingKind::Cut => "cut",
            FindingKind::Derived => "derived",
            FindingKind::Harmless => "harmless",
            FindingKind::Orphan => "orphan",
        }
    }
}

impl VerifyReport {
    /// True if nothing is damaged. Files that nothing names are no damage.
    pub fn is_intact(&self) -> bool {
        let orphan = |finding: &Finding| finding.kind == FindingKind::Orphan;
        self.findings.iter().all(orphan) && self.lost().next().is_none()
    }

    /// True if the store can be opened as it is.
    pub fn opens(&self) -> bool {
        !self.has(FindingKind::Refuses)
    }

    /// Whether there is a finding of this kind.
    pub fn has(&self, kind: FindingKind) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind)
    }

    /// All ranges of lost messages, by stream.
    pub fn lost(&self) -> impl Iterator<Item = &Corrupt> {
        self.streams.iter().flat_map(|stream| &stream.lost)
    }

    /// The stream of this name.
    pub fn stream(&self, name: &str) -> Option<&VerifiedStream> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    pub(super) fn find(
        &mut self,
        kind: FindingKind,
        file: impl Into<PathBuf>,
        offset: Option<u64>,
        what: impl ToString,
    ) {
        self.findings.push(Finding {
            kind,
            file: file.into(),
            offset,
            what: what.to_string(),
        });
    }
}

impl VerifiedStream {
    /// Live messages that are lost.
    pub fn msgs_lost(&self) -> u64 {
        self.msgs.saturating_sub(self.msgs_readable)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.label(), self.file.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        for stream in &self.streams {
            for lost in &stream.lost {
                let Corrupt {
                    first,
                    last,
                    file,
                    offset,
                    reason,
                    ..
                } = lost;
                writeln!(
                    f,
                    "lost: stream {:?}, sequences {first} to {last}: {} at offset {offset}: {reason}",
                    stream.name,
                    file.display()
                )?;
            }
        }
        let (mut msgs, mut lost) = (0, 0);
        for stream in &self.streams {
            msgs += stream.msgs;
            lost += stream.msgs_lost();
        }
        let verdict = match (self.opens(), self.is_intact()) {
            (false, _) => "the store does not open",
            (true, true) => "intact",
            (true, false) if lost > 0 => "damaged",
            (true, false) => "damaged, no message is lost",
        };
        write!(
            f,
            "{}: {verdict}: {} streams, {msgs} messages, {lost} lost; {} files, {} bytes checked",
            self.dir.display(),
            self.streams.len(),
            self.files,
            self.bytes
        )
    }
}
