//! Merges runs into one, in steps and with memory for a few pages.

use std::io;
use std::sync::Arc;

use super::any_run::{AnyCursor, AnyEntry, AnyRun, KeyMerge};
use super::cursor::OwnedKey;
use super::postings::PostingCursor;
use super::reader::{Run, Use};
use super::writer::{RunWriter, SealedRun};
use super::{Posting, RunError};
use crate::ids::{Seq, StreamId};

/// A run to merge, or a part of it.
#[derive(Debug)]
pub struct MergeInput {
    /// The run.
    pub run: Arc<Run>,
    /// The only stream and the only sequences of it to take; all when there is none.
    pub scope: Option<MergeScope>,
}

/// Sequences of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeScope {
    /// The stream.
    pub stream: StreamId,
    /// First sequence.
    pub first: Seq,
    /// Last sequence.
    pub last: Seq,
}

/// A merge went wrong; the output is to be removed.
#[derive(Debug)]
pub enum MergeError {
    /// The input of this index cannot be read.
    Input(usize, RunError),
    /// Two inputs hold the same sequences, or a key is none.
    Overlap,
    /// The output cannot be written.
    Output(io::Error),
}

impl From<io::Error> for MergeError {
    fn from(error: io::Error) -> MergeError {
        MergeError::Output(error)
    }
}

impl std::fmt::Display for MergeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MergeError::Input(_, error) => error.fmt(f),
            MergeError::Overlap => f.write_str("index runs overlap"),
            MergeError::Output(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MergeError {}

/// Drops from postings of a stream what is not to be kept.
pub type Retain<'a> = dyn FnMut(StreamId, &mut Vec<Posting>) + 'a;

/// A merge under way. Dropping it leaves a file that nothing names.
pub struct Merge {
    copy: MergeCopy,
    writer: RunWriter,
}

/// A merge without the run that it writes.
pub(super) struct MergeCopy {
    inputs: Vec<MergeInput>,
    keys: KeyMerge,
    open: Option<OpenKey>,
    key: OwnedKey,
    entries: Vec<(usize, AnyEntry)>,
}

/// The subject whose postings are being copied.
struct OpenKey {
    stream: StreamId,
    /// Input and the rest of its list, the last one first.
    lists: Vec<(usize, PostingCursor)>,
    last: Option<Seq>,
}

impl Merge {
    /// Begins to merge `inputs` into `writer`. Where they know the same stream, their sequences must
    /// not overlap.
    pub fn new(inputs: Vec<MergeInput>, writer: RunWriter) -> Result<Merge, MergeError> {
        let copy = MergeCopy::new(inputs)?;
        Ok(Merge { copy, writer })
    }

    /// Handles about `budget` keys and postings; true when there is nothing left but
    /// [`Merge::finish`]. `retain` sees every posting once.
    pub fn advance(&mut self, budget: usize, retain: &mut Retain<'_>) -> Result<bool, MergeError> {
        self.copy.advance(&mut self.writer, budget, retain)
    }

    /// Completes the file and syncs it; the directory is the caller's to sync.
    pub fn finish(self) -> io::Result<SealedRun> {
        self.writer.finish(0)
    }
}

impl MergeCopy {
    /// See [`Merge::new`].
    pub fn new(inputs: Vec<MergeInput>) -> Result<MergeCopy, MergeError> {
        let mut cursors = Vec::with_capacity(inputs.len());
        for (index, MergeInput { run, scope }) in inputs.iter().enumerate() {
            let prefix = match &scope {
                Some(scope) => scope.stream.0.to_be_bytes().to_vec(),
                None => Vec::new(),
            };
            let cursor = AnyCursor::new(AnyRun::File(run.clone()), prefix, None, Use::Once)
                .map_err(|error| MergeError::Input(index, error))?;
            cursors.push(cursor);
        }
        Ok(MergeCopy {
            inputs,
            keys: KeyMerge::new(cursors),
            open: None,
            key: Default::default(),
            entries: Vec::new(),
        })
    }

    /// See [`Merge::advance`].
    pub fn advance(
        &mut self,
        writer: &mut RunWriter,
        budget: usize,
        retain: &mut Retain<'_>,
    ) -> Result<bool, MergeError> {
        let mut done = 0;
        while done < budget {
            if self.open.is_none() && !self.begin_key(writer)? {
                return Ok(true);
            }
            done += 1 + self.copy_some(writer, retain)?;
        }
        Ok(false)
    }

    /// Begins with the lowest key; false when there is none.
    fn begin_key(&mut self, writer: &mut RunWriter) -> Result<bool, MergeError> {
        let taken = self.keys.take(&mut self.key, &mut self.entries);
        if !taken.map_err(|(index, error)| MergeError::Input(index, error))? {
            return Ok(false);
        }
        let (is_long, key) = &self.key;
        let stream = key.first_chunk().ok_or(MergeError::Overlap)?;
        let stream = StreamId(u64::from_be_bytes(*stream));
        let mut lists = Vec::new();
        for (index, entry) in self.entries.drain(..) {
            let AnyEntry::File(entry) = entry else {
                continue;
            };
            let scope = self.inputs.get(index).and_then(|input| input.scope);
            let first = scope.map_or(entry.first, |scope| scope.first.max(entry.first));
            lists.push((first, index, PostingCursor::new(entry)));
        }
        lists.sort_by_key(|(first, _, _)| std::cmp::Reverse(*first));
        writer.begin_key(key, *is_long)?;
        self.open = Some(OpenKey {
            stream,
            lists: lists
                .into_iter()
                .map(|(_, index, list)| (index, list))
                .collect(),
            last: None,
        });
        Ok(true)
    }

    /// Copies the next part of a posting list; returns how many postings that were.
    fn copy_some(
        &mut self,
        writer: &mut RunWriter,
        retain: &mut Retain<'_>,
    ) -> Result<usize, MergeError> {
        let Some(open) = &mut self.open else {
            return Ok(0);
        };
        let Some((index, list)) = open.lists.last_mut() else {
            writer.end_subject()?;
            self.open = None;
            return Ok(0);
        };
        let index = *index;
        let MergeInput { run, scope } = &self.inputs[index];
        let part = list
            .next(run)
            .map_err(|error| MergeError::Input(index, error))?;
        let Some(mut postings) = part else {
            open.lists.pop();
            return Ok(0);
        };
        let count = postings.len();
        if let Some(scope) = scope {
            postings.retain(|(seq, _)| (scope.first..=scope.last).contains(seq));
        }
        retain(open.stream, &mut postings);
        for (seq, size) in postings {
            if open.last.is_some_and(|last| last >= seq) {
                return Err(MergeError::Overlap);
            }
            writer.push_posting(seq, size)?;
            open.last = Some(seq);
        }
        Ok(count)
    }
}

impl std::fmt::Debug for Merge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merge")
            .field("inputs", &self.copy.inputs.len())
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}
