//! The subjects of one sealed file, however they can be had.
//!
//! The index is derived and never wins over the data (I9): a missing or damaged run is rebuilt from
//! the blocks, and where no file can be written it is kept in memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::cache::{Cache, FileKey};
use crate::config::Storage;
use crate::error::{Corrupt, ReadError};
use crate::format::file_header::FileKind;
use crate::ids::StreamId;
use crate::index::{AnyRun, MemoryRun, Run, RunError, RunIdentity, rebuild_run};
use crate::io::Env;
use crate::limits::accounted_bytes;
use crate::message::{BodyLayout, Message};
use crate::segment::Segment;

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
    opened: RwLock<Option<Arc<OpenedIndex>>>,
    /// Serialises opening and rebuilding; protects nothing else.
    opening: Mutex<()>,
}

/// The open index of a file.
pub(crate) struct OpenedIndex {
    pub run: AnyRun,
    /// Ranges of the file that could not be read when its index was rebuilt: their messages are
    /// missing in it.
    lost: Vec<Corrupt>,
}

impl OpenedIndex {
    /// True if messages are missing in it, of whatever stream.
    pub fn is_partial(&self) -> bool {
        !self.lost.is_empty()
    }
}

impl FileIndex {
    pub fn new(place: IndexPlace) -> FileIndex {
        FileIndex {
            place,
            opened: RwLock::new(None),
            opening: Mutex::new(()),
        }
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
            first: crate::ids::Seq(0),
            last: crate::ids::Seq(u64::MAX),
            file: self.place.path.clone(),
            offset: 0,
            reason: "neither the index nor its segment can be read".into(),
        }
    }

    /// Rebuilds an incomplete index: what was unreadable may be readable now.
    pub fn look_again(&self, segment: &Segment) -> Result<(), ReadError> {
        let opened = self.open(segment)?;
        if opened.is_partial() {
            self.replace(segment, Some(&opened.run))?;
        }
        Ok(())
    }

    /// Makes the index anew, whatever there is.
    pub fn rebuild_now(&self, segment: &Segment) -> Result<(), ReadError> {
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        self.rebuild(segment).map(|_| ())
    }

    /// Gives back what an open index holds and removes its file: nobody needs it any more. Whoever
    /// asks all the same makes it anew.
    pub fn discard(&self) -> std::io::Result<()> {
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.forget_file();
        match self.place.env.io.remove(&self.place.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn forget_file(&self) {
        if let Some(id) = self.file_no() {
            let key = FileKey::new(FileKind::Index, id);
            self.place.cache.forget_content(key);
        }
    }

    fn file_no(&self) -> Option<u64> {
        let name = self.place.path.file_stem()?.to_str()?;
        u64::from_str_radix(name, 16).ok()
    }

    fn current(&self) -> Option<Arc<OpenedIndex>> {
        self.opened
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, run: AnyRun, lost: Vec<Corrupt>) -> Arc<OpenedIndex> {
        let opened = Arc::new(OpenedIndex { run, lost });
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Some(opened.clone());
        opened
    }

    /// The open index.
    pub fn open(&self, segment: &Segment) -> Result<Arc<OpenedIndex>, ReadError> {
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
            Ok(run) => Ok(self.set(AnyRun::File(Arc::new(run)), Vec::new())),
            Err(RunError::Io { file, source }) => Err(ReadError::Io { file, source }),
            Err(error) => {
                tracing::warn!(%error, "rebuilding an index run from its segment");
                self.rebuild(segment)
            }
        }
    }

    /// The file's run if it is there and whole; nothing is made anew.
    pub fn ready(&self, segment: &Segment) -> Option<Arc<Run>> {
        let opened = match self.current() {
            Some(opened) => opened,
            None => {
                let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
                match self.current() {
                    Some(opened) => opened,
                    None => {
                        let run = self
                            .open_file(segment)
                            .ok()
                            .filter(|run| !run.is_partial())?;
                        self.set(AnyRun::File(Arc::new(run)), Vec::new())
                    }
                }
            }
        };
        match &opened.run {
            AnyRun::File(run) if !opened.is_partial() => Some(run.clone()),
            _ => None,
        }
    }

    /// Rebuilds what `damaged` came from, unless somebody did so meanwhile.
    pub fn replace(&self, segment: &Segment, damaged: Option<&AnyRun>) -> Result<(), ReadError> {
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.current(), damaged) {
            (Some(current), Some(damaged)) if !current.run.is(damaged) => Ok(()),
            (Some(_), None) => Ok(()),
            _ => self.rebuild(segment).map(|_| ()),
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

    fn rebuild(&self, segment: &Segment) -> Result<Arc<OpenedIndex>, ReadError> {
        let IndexPlace {
            env,
            store_uuid,
            path,
            cache,
        } = &self.place;
        let rebuilt = rebuild_run(env, path, *store_uuid, segment, &size_by_layout, cache)
            .and_then(|rebuilt| Ok((self.open_file(segment)?, rebuilt.lost)));
        match rebuilt {
            Ok((run, mut lost)) => {
                if run.postings_count() == 0 {
                    // A sealed file holds messages.
                    lost.push(self.everything());
                }
                Ok(self.set(AnyRun::File(Arc::new(run)), lost))
            }
            Err(error) => {
                tracing::warn!(%error, "keeping an index in memory: its file cannot be written");
                let (run, mut lost) = MemoryRun::build(segment)?;
                if run.is_empty() {
                    lost.push(self.everything());
                }
                Ok(self.set(AnyRun::Memory(Arc::new(run)), lost))
            }
        }
    }
}

/// The accounted size of a sealed message: sealed messages belong to file streams.
pub(crate) fn accounted_size(message: &Message) -> u32 {
    size_by_layout(&message.layout())
}

/// As [`accounted_size`], from the lengths of the message's parts.
pub(crate) fn size_by_layout(layout: &BodyLayout) -> u32 {
    let (subject, headers) = (layout.subject as usize, layout.headers as usize);
    let size = accounted_bytes(Storage::File, subject, headers, layout.payload as usize);
    u32::try_from(size).unwrap_or(u32::MAX)
}
