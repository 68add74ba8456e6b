//! The ids of several sources in one order, the newest use of each.

use super::IdWindow;
use super::file::IdCursor;
use crate::error::ReadError;
use crate::format::id_page::IdEntry;
use crate::ids::{StreamId, TimestampNs};

/// Ids in order of their hashes.
pub(crate) enum IdSource {
    File(IdCursor),
    Sorted(std::vec::IntoIter<IdEntry>),
}

impl IdSource {
    fn next(&mut self) -> Result<Option<IdEntry>, ReadError> {
        match self {
            IdSource::File(cursor) => cursor.next(),
            IdSource::Sorted(entries) => Ok(entries.next()),
        }
    }
}

/// A merge of a few sources.
pub(crate) struct IdMerge {
    /// With the first entry that was not merged yet, if it was read.
    sources: Vec<(IdSource, Option<IdEntry>)>,
}

impl IdMerge {
    pub fn new(sources: impl IntoIterator<Item = IdSource>) -> IdMerge {
        IdMerge {
            sources: sources.into_iter().map(|source| (source, None)).collect(),
        }
    }

    /// The next id; `None` at the end.
    ///
    /// # Errors
    ///
    /// A page that cannot be read is reported once; going on leaves its ids out.
    pub fn next(&mut self) -> Result<Option<IdEntry>, ReadError> {
        let mut newest: Option<IdEntry> = None;
        for (source, head) in &mut self.sources {
            if head.is_none() {
                *head = source.next()?;
            }
            if let Some(entry) = *head {
                let comes_first =
                    newest.is_none_or(|newest| (entry.hash, newest.seq) < (newest.hash, entry.seq));
                if comes_first {
                    newest = Some(entry);
                }
            }
        }
        if let Some(newest) = newest {
            for (_, head) in &mut self.sources {
                head.take_if(|entry| entry.hash == newest.hash);
            }
        }
        Ok(newest)
    }
}

/// The ids that one stream knows at one moment, in order of their hashes.
pub(crate) struct IdsOf {
    merge: IdMerge,
    stream: StreamId,
    window: IdWindow,
    now: TimestampNs,
}

impl IdsOf {
    pub fn new(merge: IdMerge, stream: StreamId, window: IdWindow, now: TimestampNs) -> IdsOf {
        IdsOf {
            merge,
            stream,
            window,
            now,
        }
    }
}

impl Iterator for IdsOf {
    type Item = Result<IdEntry, ReadError>;

    /// A page that cannot be read is reported once; going on leaves its ids out.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.merge.next().transpose()? {
                Ok(entry)
                    if entry.stream == self.stream
                        && self.window.holds(entry.seq, entry.ts, self.now) =>
                {
                    return Some(Ok(entry));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
