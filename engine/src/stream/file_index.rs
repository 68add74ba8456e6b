//! The subjects of one sealed file, however they can be had.
//!
//! The index is derived and never wins over the data (I9): a missing or damaged run is rebuilt from
//! the blocks, and where no file can be written it is kept in memory.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::cache::Cache;
use crate::config::Storage;
use crate::error::{Corrupt, ReadError};
use crate::ids::{Seq, StreamId};
use crate::index::{MemoryRun, Run, RunError, RunIdentity, SubjectKey, rebuild_run};
use crate::io::Env;
use crate::limits::accounted_bytes;
use crate::message::Message;
use crate::segment::Segment;
use crate::subject::Filter;

/// A sequence and the accounted size of its message.
pub(crate) type Posting = (u64, u32);

/// A subject and its postings, ascending.
pub(crate) type SubjectPostings = (Box<[u8]>, Vec<Posting>);

/// No stream has this id.
const ANY_STREAM: StreamId = StreamId(0);

/// Where the index of a file is.
#[derive(Clone)]
pub(crate) struct IndexPlace {
    pub env: Env,
    pub store_uuid: u128,
    pub path: PathBuf,
    pub cache: Arc<Cache>,
}

/// Opened on first use.
pub(crate) struct FileIndex {
    place: IndexPlace,
    opened: RwLock<Option<Arc<Opened>>>,
    /// Serialises opening and rebuilding; protects nothing else.
    opening: Mutex<()>,
}

struct Opened {
    run: OpenedRun,
    /// Ranges of the file that could not be read when its index was rebuilt: their messages are
    /// missing in it.
    lost: Vec<Corrupt>,
}

enum OpenedRun {
    File(Box<Run>),
    Memory(MemoryRun),
}

impl FileIndex {
    pub fn new(place: IndexPlace) -> FileIndex {
        FileIndex {
            place,
            opened: RwLock::new(None),
            opening: Mutex::new(()),
        }
    }

    /// All sequences of a subject, ascending.
    pub fn of_subject(
        &self,
        segment: &Segment,
        stream: StreamId,
        subject: &[u8],
    ) -> Result<Vec<Posting>, ReadError> {
        let key = SubjectKey::new(stream, subject);
        self.ask(segment, &mut |opened| match &opened.run {
            OpenedRun::File(run) => match run.lookup(&key)? {
                Some(entry) => all_postings(run, &entry),
                None => Ok(Vec::new()),
            },
            OpenedRun::Memory(run) => {
                let postings = run.lookup(&key).unwrap_or_default().iter();
                Ok(postings.map(|(seq, size)| (seq.0, *size)).collect())
            }
        })
    }

    /// The newest sequence of a subject that `wanted` accepts.
    pub fn last_of_subject(
        &self,
        segment: &Segment,
        stream: StreamId,
        subject: &[u8],
        wanted: &dyn Fn(u64) -> bool,
    ) -> Result<Option<u64>, ReadError> {
        let key = SubjectKey::new(stream, subject);
        self.ask(segment, &mut |opened| match &opened.run {
            OpenedRun::File(run) => {
                let Some(entry) = run.lookup(&key)? else {
                    return Ok(None);
                };
                let mut found = None;
                run.postings_rev(&entry, Seq(u64::MAX), &mut |seq, _| {
                    if wanted(seq.0) {
                        found = Some(seq.0);
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                })?;
                Ok(found)
            }
            OpenedRun::Memory(run) => {
                let postings = run.lookup(&key).unwrap_or_default().iter();
                Ok(postings
                    .rev()
                    .map(|(seq, _)| seq.0)
                    .find(|seq| wanted(*seq)))
            }
        })
    }

    /// Every matching subject with its sequences, ascending.
    pub fn matching(
        &self,
        segment: &Segment,
        stream: StreamId,
        filter: &Filter,
    ) -> Result<Vec<SubjectPostings>, ReadError> {
        self.ask(segment, &mut |opened| {
            let mut found = Vec::new();
            let mut failed = None;
            match &opened.run {
                OpenedRun::File(run) => run.matching(stream, filter, &mut |subject, entry| {
                    match all_postings(run, &entry) {
                        Ok(postings) => found.push((Box::from(subject), postings)),
                        Err(error) => {
                            failed = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                    ControlFlow::Continue(())
                })?,
                OpenedRun::Memory(run) => run.matching(stream, filter, &mut |subject, postings| {
                    let postings = postings.iter().map(|(seq, size)| (seq.0, *size));
                    found.push((Box::from(subject), postings.collect()));
                    ControlFlow::Continue(())
                }),
            }
            match failed {
                Some(error) => Err(error),
                None => Ok(found),
            }
        })
    }

    /// What of a stream is missing in the index because the file is damaged there.
    pub fn lost(&self, segment: &Segment, stream: StreamId) -> Result<Vec<Corrupt>, ReadError> {
        let opened = self.open(segment)?;
        let own = opened
            .lost
            .iter()
            .filter(|lost| lost.stream == stream || lost.stream == ANY_STREAM);
        let of_stream = |lost: &Corrupt| Corrupt {
            stream,
            ..lost.clone()
        };
        Ok(own.map(of_stream).collect())
    }

    /// The loss of a file of which nothing can be read.
    fn everything(&self) -> Corrupt {
        Corrupt {
            stream: ANY_STREAM,
            first: Seq(0),
            last: Seq(u64::MAX),
            file: self.place.path.clone(),
            offset: 0,
            reason: "neither the index nor its segment can be read".into(),
        }
    }

    /// Rebuilds an incomplete index: what was unreadable may be readable now.
    pub fn look_again(&self, segment: &Segment) -> Result<(), ReadError> {
        let opened = self.open(segment)?;
        if !opened.lost.is_empty() {
            self.replace(segment, &opened)?;
        }
        Ok(())
    }

    fn ask<T>(
        &self,
        segment: &Segment,
        question: &mut dyn FnMut(&Opened) -> Result<T, RunError>,
    ) -> Result<T, ReadError> {
        let opened = self.open(segment)?;
        match question(&opened) {
            Ok(answer) => return Ok(answer),
            Err(RunError::Io { file, source }) => return Err(ReadError::Io { file, source }),
            Err(error) => self.complain(&error),
        }
        let rebuilt = self.replace(segment, &opened)?;
        question(&rebuilt).map_err(|error| match error {
            RunError::Io { file, source } => ReadError::Io { file, source },
            // A file just written is read back damaged: the device cannot be trusted with it.
            other => ReadError::io(&self.place.path, std::io::Error::other(other)),
        })
    }

    fn complain(&self, error: &RunError) {
        tracing::warn!(%error, "rebuilding an index run from its segment");
    }

    fn current(&self) -> Option<Arc<Opened>> {
        self.opened
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, run: OpenedRun, lost: Vec<Corrupt>) -> Arc<Opened> {
        let opened = Arc::new(Opened { run, lost });
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(opened.clone());
        opened
    }

    fn open(&self, segment: &Segment) -> Result<Arc<Opened>, ReadError> {
        if let Some(opened) = self.current() {
            return Ok(opened);
        }
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = self.current() {
            return Ok(opened);
        }
        match self.open_file(segment) {
            // What was unreadable when it was written may be readable now.
            Ok(run) if run.is_partial() => self.rebuild(segment),
            Ok(run) => Ok(self.set(OpenedRun::File(Box::new(run)), Vec::new())),
            Err(RunError::Io { file, source }) => Err(ReadError::Io { file, source }),
            Err(error) => {
                self.complain(&error);
                self.rebuild(segment)
            }
        }
    }

    /// Rebuilds what `damaged` came from, unless somebody did so meanwhile.
    fn replace(&self, segment: &Segment, damaged: &Arc<Opened>) -> Result<Arc<Opened>, ReadError> {
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        match self.current() {
            Some(current) if !Arc::ptr_eq(&current, damaged) => Ok(current),
            _ => self.rebuild(segment),
        }
    }

    fn open_file(&self, segment: &Segment) -> Result<Run, RunError> {
        let IndexPlace {
            env,
            store_uuid,
            path,
            cache,
        } = &self.place;
        let wanted = RunIdentity::OfSegment(*segment.manifest());
        Run::open(env, path, *store_uuid, &wanted, cache.clone())
    }

    fn rebuild(&self, segment: &Segment) -> Result<Arc<Opened>, ReadError> {
        let IndexPlace {
            env,
            store_uuid,
            path,
            cache,
        } = &self.place;
        let rebuilt = rebuild_run(env, path, *store_uuid, segment, &accounted_size, cache)
            .and_then(|rebuilt| Ok((self.open_file(segment)?, rebuilt.lost)));
        match rebuilt {
            Ok((run, mut lost)) => {
                if run.postings_count() == 0 {
                    // A sealed file holds messages.
                    lost.push(self.everything());
                }
                Ok(self.set(OpenedRun::File(Box::new(run)), lost))
            }
            Err(error) => {
                tracing::warn!(%error, "keeping an index in memory: its file cannot be written");
                let (run, mut lost) = MemoryRun::build(segment)?;
                if run.is_empty() {
                    lost.push(self.everything());
                }
                Ok(self.set(OpenedRun::Memory(run), lost))
            }
        }
    }
}

fn all_postings(run: &Run, entry: &crate::index::SubjectEntry) -> Result<Vec<Posting>, RunError> {
    let mut postings = Vec::new();
    run.postings(entry, Seq(0), &mut |seq, size| {
        postings.push((seq.0, size));
        ControlFlow::Continue(())
    })?;
    Ok(postings)
}

/// The accounted size of a sealed message: sealed messages belong to file streams.
pub(crate) fn accounted_size(message: &Message) -> u32 {
    let layout = message.layout();
    let (subject, headers) = (layout.subject as usize, layout.headers as usize);
    let size = accounted_bytes(Storage::File, subject, headers, layout.payload as usize);
    u32::try_from(size).unwrap_or(u32::MAX)
}
