//! One byte-budgeted cache for everything read from sealed files, and a bounded set of open files.
//!
//! Sealed files never change and their numbers are never reused, so an entry is never stale. No
//! lock is held while a file is read: a miss reads first and inserts afterwards. Two readers that
//! miss at the same time both read; each gets correct bytes and one of the two copies stays.

use std::hash::{BuildHasherDefault, DefaultHasher, Hash};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::sync::{self, DefaultLifecycle};
use quick_cache::{OptionsBuilder, UnitWeighter, Weighter};

use crate::format::file_header::FileKind;
use crate::format::page::{PAGE_BYTES, PageKind};
use crate::io::{Env, IoFile, OpenMode};
use crate::segment::LoadedBlock;

/// A sealed file of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    kind: FileKind,
    file_no: u64,
}

impl FileKey {
    /// The file of this kind with this number.
    pub fn new(kind: FileKind, file_no: u64) -> FileKey {
        FileKey { kind, file_no }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// The block at an offset.
    Block(FileKey, u64),
    /// A page by kind and number.
    Page(FileKey, PageKind, u32),
}

#[derive(Clone)]
enum Entry {
    Block(LoadedBlock),
    Page(Bytes),
}

/// Accounted bytes of an entry besides its content: key, bookkeeping and allocation headers.
const ENTRY_BYTES: u64 = 160;
/// What is read ahead at once takes at most one part in so many.
const AHEAD_SHARE: u64 = 16;
/// Entries are spread over this many locks. Fixed, not derived from the machine, so that a
/// simulation evicts the same entries everywhere.
const SHARDS: usize = 8;
/// Expected size of an entry; sizes the cache's own tables only.
const ENTRY_BYTES_EXPECTED: u64 = 16 * 1024;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Entry> for ByBytes {
    fn weight(&self, _key: &Key, entry: &Entry) -> u64 {
        ENTRY_BYTES
            + match entry {
                Entry::Block(block) => block.ram_bytes(),
                Entry::Page(_) => PAGE_BYTES as u64,
            }
    }
}

/// A hasher without a random seed: which entries share a shard is the same in every run.
type FixedHasher = BuildHasherDefault<DefaultHasher>;
type Map<K, V, W> = sync::Cache<K, V, W, FixedHasher, DefaultLifecycle<K, V>>;

/// Blocks, pages and open files of one store.
pub struct Cache {
    entries: Map<Key, Entry, ByBytes>,
    files: Map<FileKey, Arc<dyn IoFile>, UnitWeighter>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("entries", &self.entries.len())
            .field("bytes", &self.bytes())
            .field("files", &self.files.len())
            .finish()
    }
}

impl Cache {
    /// A cache of at most `bytes_max` bytes of content that keeps at most about `files_max` files
    /// open. An entry larger than an eighth of the budget may not be kept.
    pub fn new(bytes_max: u64, files_max: u32) -> Cache {
        let expected = usize::try_from(bytes_max / ENTRY_BYTES_EXPECTED).unwrap_or(usize::MAX);
        Cache {
            entries: map(expected.clamp(8, 1 << 24), bytes_max, ByBytes),
            files: map(files_max as usize, u64::from(files_max), UnitWeighter),
        }
    }

    /// Accounted bytes of all entries.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// The open file `key`, opened at `path` if it is not open.
    pub fn file(&self, env: &Env, key: FileKey, path: &Path) -> io::Result<Arc<dyn IoFile>> {
        if let Some(file) = self.files.get(&key) {
            return Ok(file);
        }
        let file = env.io.open(path, OpenMode::Read)?;
        self.files.insert(key, file.clone());
        Ok(file)
    }

    /// Closes a file as soon as no reader uses it. Its blocks and pages fall out by age.
    pub fn forget_file(&self, key: FileKey) {
        self.files.remove(&key);
    }

    /// A cached block.
    pub fn block(&self, file: FileKey, offset: u64) -> Option<LoadedBlock> {
        match self.entries.get(&Key::Block(file, offset)) {
            Some(Entry::Block(block)) => Some(block),
            _ => None,
        }
    }

    /// Keeps a block.
    pub fn put_block(&self, file: FileKey, offset: u64, block: LoadedBlock) {
        self.entries
            .insert(Key::Block(file, offset), Entry::Block(block));
    }

    /// The payload of a cached page.
    pub fn page(&self, file: FileKey, kind: PageKind, page_no: u32) -> Option<Bytes> {
        match self.entries.get(&Key::Page(file, kind, page_no)) {
            Some(Entry::Page(payload)) => Some(payload),
            _ => None,
        }
    }

    /// Keeps the checked payload of a page.
    pub fn put_page(&self, file: FileKey, kind: PageKind, page_no: u32, payload: Bytes) {
        self.entries
            .insert(Key::Page(file, kind, page_no), Entry::Page(payload));
    }

    /// Number of pages that may be read before they are asked for: with more of them a small cache
    /// would lose some before their turn.
    pub fn pages_ahead_max(&self) -> u32 {
        let pages = self.entries.capacity() / (AHEAD_SHARE * PAGE_BYTES as u64);
        u32::try_from(pages).unwrap_or(u32::MAX)
    }

    /// Closes a file and drops what was read from it: for a derived file that was written anew.
    pub fn forget_content(&self, key: FileKey) {
        self.files.remove(&key);
        self.entries.retain(|entry, _| match entry {
            Key::Block(file, _) | Key::Page(file, _, _) => *file != key,
        });
    }

    /// Drops every block and page and closes every file.
    pub fn clear(&self) {
        self.entries.clear();
        self.files.clear();
    }
}

fn map<K, V, W>(items: usize, weight_max: u64, weighter: W) -> Map<K, V, W>
where
    K: Eq + Hash,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    let options = OptionsBuilder::new()
        .shards(SHARDS)
        .estimated_items_capacity(items)
        .weight_capacity(weight_max)
        .build()
        .expect("both capacities are set");
    sync::Cache::with_options(
        options,
        weighter,
        FixedHasher::default(),
        DefaultLifecycle::default(),
    )
}
