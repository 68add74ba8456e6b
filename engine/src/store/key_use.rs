//! Which keys the files of a store are encrypted with.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::layout::Layout;
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::format::key_ring::KeyId;
use crate::io::{Env, OpenMode};
use crate::wal::log_file;

/// The files of a store that have one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyUse {
    /// The key; `None` stands for files that are not encrypted.
    pub key: Option<KeyId>,
    /// Number of files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Which kinds of files with another key than new ones have are to be rewritten.
#[derive(Debug, Default)]
pub(crate) struct Rekey {
    pub segments: AtomicBool,
    /// Files of message ids.
    pub ids: AtomicBool,
    /// Merged index runs, which are dropped and made anew. The others are rewritten with their segments.
    pub runs: AtomicBool,
}

impl Rekey {
    /// Asks for all of them.
    pub fn ask(&self) {
        for kind in [&self.segments, &self.ids, &self.runs] {
            kind.store(true, Ordering::Release);
        }
    }
}

/// Reads the header of every file.
pub(super) fn keys_in_use(env: &Env, layout: &Layout) -> io::Result<Vec<KeyUse>> {
    let mut found: BTreeMap<Option<KeyId>, KeyUse> = BTreeMap::new();
    for dir in env.io.list(layout.dir())?.iter().filter(|e| e.is_dir) {
        let dir = layout.dir().join(&dir.name);
        for entry in env.io.list(&dir)?.iter().filter(|e| !e.is_dir) {
            let Some(header) = header(env, &dir.join(&entry.name))? else {
                continue;
            };
            // Prepared for the log under a new number: it holds nothing yet.
            let log_no = log_file::file_no(&entry.name, ".wal");
            if header.kind == FileKind::Wal && log_no != Some(header.file_no) {
                continue;
            }
            let key = header.key;
            let used = found.entry(key).or_insert(KeyUse {
                key,
                files: 0,
                bytes: 0,
            });
            used.files += 1;
            used.bytes += entry.len;
        }
    }
    Ok(found.into_values().collect())
}

/// A file's header; `None` if it has none (any more).
pub(super) fn header(env: &Env, path: &Path) -> io::Result<Option<FileHeader>> {
    let file = match env.io.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; file_header::BYTES];
    let read = file.read_at(&mut bytes, 0)?;
    Ok(FileHeader::decode(&bytes[..read]).ok())
}
