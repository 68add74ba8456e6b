//! The sealed files of a store: which streams list them, and how they leave the disk.
//!
//! A file leaves in two steps. When no commit names it any more (I6) it leaves the list; it is
//! unlinked when the last reader that still looks at it is done. So whoever holds a
//! [`SealedFile`] can read it, whatever happens to the stream meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Weak};

use super::layout::Layout;
use super::shared::StoreShared;
use crate::cache::FileKey;
use crate::format::file_header::FileKind;
use crate::ids::{SegmentId, StreamId};
use crate::io::Io;
use crate::stream::extent::SealedFile;

/// A file that the metadata names, or is about to.
pub(super) struct Listed {
    pub file: Arc<SealedFile>,
    /// Streams that have messages in it.
    pub streams: BTreeSet<StreamId>,
}

/// A file that no commit names.
struct Leaving {
    id: SegmentId,
    /// Gone when nobody reads it any more.
    readers: Weak<SealedFile>,
}

/// All sealed files.
pub(super) struct FileList {
    shared: Arc<StoreShared>,
    layout: Layout,
    listed: BTreeMap<SegmentId, Listed>,
    leaving: Vec<Leaving>,
}

impl FileList {
    pub fn new(shared: Arc<StoreShared>, layout: Layout) -> FileList {
        FileList {
            shared,
            layout,
            listed: BTreeMap::new(),
            leaving: Vec::new(),
        }
    }

    /// Adds a file that no stream lists yet.
    pub fn add(&mut self, file: Arc<SealedFile>) {
        let streams = BTreeSet::new();
        self.listed.insert(file.id, Listed { file, streams });
    }

    /// Notes that a stream lists a file.
    pub fn list(&mut self, stream: StreamId, id: SegmentId) {
        if let Some(listed) = self.listed.get_mut(&id) {
            listed.streams.insert(stream);
        }
    }

    /// Notes that a stream does not list a file any more.
    pub fn unlist(&mut self, stream: StreamId, id: SegmentId) {
        if let Some(listed) = self.listed.get_mut(&id) {
            listed.streams.remove(&stream);
        }
    }

    pub fn get(&self, id: SegmentId) -> Option<&Listed> {
        self.listed.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Listed> {
        self.listed.values()
    }

    /// The files that a stream lists.
    pub fn of_stream(&self, stream: StreamId) -> impl Iterator<Item = SegmentId> + '_ {
        self.listed
            .iter()
            .filter(move |(_, listed)| listed.streams.contains(&stream))
            .map(|(id, _)| *id)
    }

    /// Files that nobody lists once `unlisted` are gone.
    pub fn dead_without(&self, unlisted: &BTreeSet<(SegmentId, StreamId)>) -> Vec<SegmentId> {
        self.listed
            .iter()
            .filter(|(id, listed)| {
                let range = (**id, StreamId(0))..=(**id, StreamId(u64::MAX));
                let gone = unlisted.range(range);
                gone.filter(|(_, stream)| listed.streams.contains(stream))
                    .count()
                    == listed.streams.len()
            })
            .map(|(id, _)| *id)
            .collect()
    }

    /// Takes a file out of the list, without touching the disk.
    pub fn forget(&mut self, id: SegmentId) {
        self.listed.remove(&id);
    }

    /// Takes a file that no commit names out of the list, and unlinks it when nobody reads it.
    pub fn remove(&mut self, id: SegmentId) {
        let readers = match self.listed.remove(&id) {
            Some(listed) => {
                listed.file.wake_when_dropped(&self.shared);
                Arc::downgrade(&listed.file)
            }
            None => Weak::new(),
        };
        self.leaving.push(Leaving { id, readers });
    }

    /// Files that are still to be unlinked.
    pub fn leaving(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.leaving.iter().map(|leaving| leaving.id)
    }

    /// Unlinks files whose last reader is gone. One that cannot be unlinked is tried again.
    pub fn unlink(&mut self) {
        let (io, cache, layout) = (&self.shared.env.io, &self.shared.cache, &self.layout);
        self.leaving.retain(|leaving| {
            if leaving.readers.strong_count() > 0 {
                return true;
            }
            let id = leaving.id;
            let removed = remove_if_there(io, &layout.segment(id))
                .and_then(|()| remove_if_there(io, &layout.index(id)));
            // An open file keeps its space.
            for kind in [FileKind::Segment, FileKind::Index] {
                cache.forget_file(FileKey::new(kind, id.0));
            }
            removed
                .inspect_err(
                    |error| tracing::warn!(segment = id.0, %error, "cannot remove a sealed file"),
                )
                .is_err()
        });
    }
}

fn remove_if_there(io: &Arc<dyn Io>, path: &Path) -> std::io::Result<()> {
    match io.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::StreamConfig;
    use crate::ids::Seq;
    use crate::io::Env;
    use crate::io::sim::{SimClock, SimDisk};
    use crate::store::{Store, StoreOptions, Threads};
    use crate::stream::Append;

    fn sealed_files(disk: &SimDisk) -> usize {
        let files = disk.files();
        let sealed = files.iter().filter(|(path, _)| path.ends_with(".seg"));
        sealed.count()
    }

    /// A reader resolves positions under the lock and reads afterwards: what it found must be there
    /// until it is done, also when the file was rewritten meanwhile.
    #[test]
    fn a_replaced_file_stays_for_its_last_reader() {
        let disk = SimDisk::new(1);
        let env = Env::simulated(&disk, &SimClock::new(1), 1);
        let mut options = StoreOptions {
            threads: Threads::Manual,
            ..StoreOptions::default()
        };
        options.compaction.slack_bytes = 0;
        let (store, _) = Store::open_in(env, Path::new("/data"), options).expect("a store");
        let config = StreamConfig {
            name: "S".into(),
            ..StreamConfig::default()
        };
        let (stream, _) = store.create_stream(config).expect("a stream");
        for _ in 0..10 {
            let append = Append {
                subject: b"s",
                payload: &[7; 100],
                ..Append::default()
            };
            stream.append(&append).expect("stored");
        }
        store.checkpoint().expect("sealed");
        let reader = stream.core.lock().extents.clone();
        for seq in 1..=6 {
            stream.delete(Seq(seq)).expect("deleted");
        }
        store.compact().expect("compacted");
        assert_eq!(store.space().compactions, 1);
        assert_eq!(sealed_files(&disk), 2);
        // Nothing of it is in RAM.
        stream.core.shared.cache.clear();
        let file = &reader.first().expect("an extent").file;
        let read = file.segment.get(stream.id(), Seq(8)).expect("readable");
        assert_eq!(read.map(|message| message.payload().len()), Some(100));
        drop(reader);
        store.step().expect("upkeep");
        assert_eq!(sealed_files(&disk), 1);
        let read = stream.get(Seq(8)).expect("readable");
        assert_eq!(read.map(|message| message.payload().len()), Some(100));
    }
}
