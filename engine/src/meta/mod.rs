//! Small durable state as key and value.
//!
//! The whole map is one checksummed image. A commit writes a new image beside the current one and
//! takes its place with a rename, so that a crash leaves either the old or the new one.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::format::cursor::Cursor;
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::format::{FormatError, varint};
use crate::io::{Env, OpenMode};

const CURRENT: &str = "current.meta";
const TEMPORARY: &str = "new.meta";

/// Changes that become durable together.
#[derive(Debug, Default)]
pub struct MetaBatch {
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl MetaBatch {
    /// Sets a value.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.changes.push((key.to_vec(), Some(value.to_vec())));
    }

    /// Removes a value.
    pub fn delete(&mut self, key: &[u8]) {
        self.changes.push((key.to_vec(), None));
    }
}

/// The metadata could not be read. Nothing was changed.
#[derive(Debug)]
pub enum MetaError {
    /// The system failed a call.
    Io {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A newer version wrote it.
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// Version found.
        found: u16,
        /// Newest version this build reads.
        supported: u16,
    },
    /// It does not match its checksum, belongs to another store, or is missing.
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was found.
        what: String,
    },
}

impl MetaError {
    /// The file concerned.
    pub fn file(&self) -> &Path {
        match self {
            MetaError::Io { file, .. }
            | MetaError::NewerVersion { file, .. }
            | MetaError::Damaged { file, .. } => file,
        }
    }
}

impl fmt::Display for MetaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetaError::Io { file, source } => write!(f, "{}: {source}", file.display()),
            MetaError::NewerVersion {
                file,
                found,
                supported,
            } => write!(
                f,
                "{} has version {found}, this build reads up to {supported}",
                file.display()
            ),
            MetaError::Damaged { what, .. } => write!(f, "the metadata is damaged: {what}"),
        }
    }
}

impl std::error::Error for MetaError {}

/// The durable map.
pub struct MetaLog {
    env: Env,
    dir: PathBuf,
    store_uuid: u128,
    commits: u64,
    map: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MetaLog {
    /// Creates an empty map in an empty directory; durable on return.
    pub fn create(env: &Env, dir: &Path, store_uuid: u128) -> io::Result<MetaLog> {
        let (env, dir) = (env.clone(), dir.to_path_buf());
        let mut meta = MetaLog {
            env,
            dir,
            store_uuid,
            commits: 0,
            map: BTreeMap::new(),
        };
        meta.commit(&MetaBatch::default())?;
        Ok(meta)
    }

    /// Reads the map of an existing store.
    pub fn open(env: &Env, dir: &Path, store_uuid: u128) -> Result<MetaLog, MetaError> {
        let file = dir.join(CURRENT);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => MetaError::Damaged {
                file: file.clone(),
                what: "the file is missing".into(),
            },
            _ => MetaError::Io {
                file: file.clone(),
                source,
            },
        };
        let opened = env.io.open(&file, OpenMode::Read).map_err(failed)?;
        let len = opened.len().map_err(failed)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let read = opened.read_at(&mut bytes, 0).map_err(failed)?;
        bytes.truncate(read);
        let (commits, map) = decode(&bytes, store_uuid).map_err(|error| match error {
            FormatError::NewerVersion {
                found, supported, ..
            } => MetaError::NewerVersion {
                file: file.clone(),
                found,
                supported,
            },
            error => MetaError::Damaged {
                file: file.clone(),
                what: error.to_string(),
            },
        })?;
        Ok(MetaLog {
            env: env.clone(),
            dir: dir.to_path_buf(),
            store_uuid,
            commits,
            map,
        })
    }

    /// A value.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.map.get(key).map(Vec::as_slice)
    }

    /// All values whose keys start with `prefix`, in key order.
    pub fn scan_prefix(&self, prefix: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let prefix = prefix.to_vec();
        self.map
            .range::<[u8], _>(from)
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
            .take_while(move |(key, _)| key.starts_with(&prefix))
    }

    /// Makes changes durable as one unit. After an error the map is what it was before, on disk and
    /// in memory.
    pub fn commit(&mut self, batch: &MetaBatch) -> io::Result<()> {
        let mut undo = Vec::with_capacity(batch.changes.len());
        for (key, value) in &batch.changes {
            let old = match value {
                Some(value) => self.map.insert(key.clone(), value.clone()),
                None => self.map.remove(key),
            };
            undo.push((key.clone(), old));
        }
        let written = self.write();
        if written.is_err() {
            for (key, old) in undo.into_iter().rev() {
                match old {
                    Some(value) => self.map.insert(key, value),
                    None => self.map.remove(&key),
                };
            }
        }
        written
    }

    fn write(&mut self) -> io::Result<()> {
        let io = &self.env.io;
        let temporary = self.dir.join(TEMPORARY);
        match io.remove(&temporary) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let image = encode(self.commits + 1, self.store_uuid, &self.map);
        let file = io.open(&temporary, OpenMode::CreateNew)?;
        file.write_at(&image, 0)?;
        file.sync_data()?;
        io.rename(&temporary, &self.dir.join(CURRENT))?;
        io.sync_dir(&self.dir)?;
        self.commits += 1;
        Ok(())
    }
}

/// File header, `digest8` of the rest (seeded by its length), then per entry `key_len~ value_len~`
/// and both.
fn encode(commits: u64, store_uuid: u128, map: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let header = FileHeader {
        kind: FileKind::Meta,
        store_uuid,
        file_no: 0,
        epoch: commits,
        base: 0,
    };
    let mut out = header.encode().to_vec();
    out.extend_from_slice(&[0; 8]);
    let start = out.len();
    for (key, value) in map {
        varint::encode(key.len() as u64, &mut out);
        varint::encode(value.len() as u64, &mut out);
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    let digest = xxh3_64(&out[start..]);
    out[file_header::BYTES..start].copy_from_slice(&digest.to_le_bytes());
    out
}

type Image = (u64, BTreeMap<Vec<u8>, Vec<u8>>);

fn decode(bytes: &[u8], store_uuid: u128) -> Result<Image, FormatError> {
    let header = FileHeader::decode(bytes)?;
    if header.kind != FileKind::Meta || header.store_uuid != store_uuid {
        return Err(FormatError::OutOfRange {
            what: "identity of the metadata",
        });
    }
    let mut input = Cursor::new(
        bytes
            .get(file_header::BYTES..)
            .ok_or(FormatError::Truncated)?,
    );
    let stored = input.u64()?;
    let computed = xxh3_64(input.rest());
    if stored != computed {
        return Err(FormatError::ChecksumMismatch {
            what: "metadata",
            stored,
            computed,
        });
    }
    let mut map = BTreeMap::new();
    while !input.rest().is_empty() {
        let key_len = input.varint()?;
        let value_len = input.varint()?;
        let key = input.bytes(key_len)?.to_vec();
        map.insert(key, input.bytes(value_len)?.to_vec());
    }
    Ok((header.epoch, map))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::{CrashMatrix, SimClock, SimDisk};

    fn env(disk: &SimDisk) -> Env {
        Env::simulated(disk, &SimClock::new(0), 1)
    }

    fn batch(n: u8) -> MetaBatch {
        let mut batch = MetaBatch::default();
        batch.put(&[b'k', n % 3], &[n; 40]);
        batch.delete(&[b'k', (n + 1) % 3]);
        batch
    }

    fn contents(meta: &MetaLog) -> Vec<(Vec<u8>, Vec<u8>)> {
        meta.scan_prefix(b"k")
            .map(|(k, v)| (k.to_vec(), v.to_vec()))
            .collect()
    }

    #[test]
    fn a_commit_is_all_or_nothing_wherever_the_power_goes() {
        let dir = Path::new("/meta");
        let report = CrashMatrix::new(3)
            .run(
                |disk| {
                    let mut states = Vec::new();
                    let env = env(disk);
                    if env.io.create_dir_all(dir).is_err() {
                        return states;
                    }
                    let Ok(mut meta) = MetaLog::create(&env, dir, 9) else {
                        return states;
                    };
                    states.push((true, contents(&meta)));
                    for n in 0..5 {
                        let committed = meta.commit(&batch(n)).is_ok();
                        let mut next = meta.map.clone();
                        if !committed {
                            for (key, value) in batch(n).changes {
                                match value {
                                    Some(value) => next.insert(key, value),
                                    None => next.remove(&key),
                                };
                            }
                        }
                        states.push((committed, next.into_iter().collect()));
                        if !committed {
                            break;
                        }
                    }
                    states
                },
                |survivor, states, _| {
                    let Some(acked) = states.iter().rposition(|(committed, _)| *committed) else {
                        return Ok(());
                    };
                    let meta = MetaLog::open(&env(&survivor), dir, 9).map_err(|e| e.to_string())?;
                    let found = contents(&meta);
                    match states[acked..].iter().any(|(_, state)| *state == found) {
                        true => Ok(()),
                        false => Err(format!("{found:?} is none of {:?}", &states[acked..])),
                    }
                },
            )
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.points > 10);
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_nothing_is_changed() {
        let disk = SimDisk::new(1);
        let dir = Path::new("/meta");
        env(&disk).io.create_dir_all(dir).expect("directory");
        let mut meta = MetaLog::create(&env(&disk), dir, 9).expect("created");
        meta.commit(&batch(1)).expect("committed");
        let path = dir.join(CURRENT);
        let len = disk.read_file(&path).expect("file").len();
        // Bytes the header keeps for later are the only ones without a meaning.
        for offset in 0..len as u64 {
            for bit in 0..8 {
                let damaged = disk.fork();
                damaged.corrupt(&path, offset, 1 << bit).expect("flipped");
                let before = damaged.read_file(&path).expect("file");
                let opened = MetaLog::open(&env(&damaged), dir, 9);
                assert!(opened.is_err(), "bit {bit} of byte {offset}");
                assert_eq!(damaged.read_file(&path).expect("file"), before);
            }
        }
    }
}
