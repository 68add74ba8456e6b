//! Opening and checking a backup.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::super::keys;
use super::super::recovery::{Recovered, RecoveredStream};
use super::super::verify::missing_in;
use super::super::verify::sealed::Contents;
use super::Place;
use super::error::BackupError;
use crate::cache::Cache;
use crate::error::Corrupt;
use crate::format::FormatError;
use crate::format::backup::{DataFile, Manifest};
use crate::format::file_header::{FileHeader, FileKind};
use crate::ids::{SegmentId, Seq, StreamId, TimestampNs};
use crate::io::{Env, OpenMode};
use crate::segment::{Segment, SegmentManifest};

/// Room for the tables of the data file that is being read.
const CACHE_BYTES: u64 = 1 << 20;

/// A backup whose manifest was read.
pub(super) struct Backup {
    pub env: Env,
    pub place: Place,
    /// Identity of this backup; its files are bound to it.
    pub uuid: u128,
    pub manifest: Manifest,
}

impl Backup {
    /// Reads the manifest in `dir`; `None` if there is none.
    pub fn open(env: &Env, dir: &Path) -> Result<Option<Backup>, BackupError> {
        let place = Place::new(dir);
        let path = place.manifest();
        let file = match env.io.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BackupError::io(path, error)),
        };
        let at = |error| BackupError::io(place.manifest(), error);
        let len = usize::try_from(file.len().map_err(at)?).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        // The length is the file's own: what is allocated is on disk.
        if bytes.try_reserve_exact(len).is_err() {
            return Err(BackupError::damaged(path, "the manifest is too large"));
        }
        bytes.resize(len, 0);
        let read = file.read_at(&mut bytes, 0).map_err(at)?;
        bytes.truncate(read);
        let unreadable = |error: FormatError| match error {
            FormatError::NewerVersion { .. } => BackupError::NewerVersion {
                file: place.manifest(),
            },
            error => BackupError::damaged(place.manifest(), error),
        };
        let header = FileHeader::decode(&bytes).map_err(unreadable)?;
        if header.kind != FileKind::Backup {
            return Err(BackupError::damaged(path, "it is another kind of file"));
        }
        let uuid = header.store_uuid;
        let opener = env.opener(FileKind::Backup, uuid, 0).of_key(header.key);
        let manifest = Manifest::open(&opener, &bytes).map_err(unreadable)?;
        Ok(Some(Backup {
            env: env.clone(),
            place,
            uuid,
            manifest,
        }))
    }

    /// As [`Backup::open`]; without a manifest the directory is no backup.
    pub fn open_existing(env: &Env, dir: &Path) -> Result<Backup, BackupError> {
        let missing = || BackupError::NotABackup {
            dir: dir.to_path_buf(),
        };
        Backup::open(env, dir)?.ok_or_else(missing)
    }

    /// A data file, to be read as a segment.
    pub fn segment(&self, file: &DataFile) -> Segment {
        let manifest = SegmentManifest {
            id: SegmentId(file.no),
            file_bytes: file.file_bytes,
            bytes: 0,
            key: file.key,
            footer_digest: file.footer_digest,
        };
        let cache = Arc::new(Cache::new(CACHE_BYTES, 2));
        let path = self.place.data(file.no);
        Segment::open(&self.env, &path, self.uuid, manifest, cache)
    }

    /// The stream without its messages, from the values of the manifest.
    pub fn stream(&self) -> Result<RecoveredStream, BackupError> {
        stream_of(self.manifest.stream, &self.manifest.values)
            .map_err(|error| BackupError::damaged(self.place.manifest(), error))
    }
}

/// A stream from its values in the metadata.
pub(super) fn stream_of(
    id: StreamId,
    values: &[(Vec<u8>, Vec<u8>)],
) -> Result<RecoveredStream, FormatError> {
    let mut recovered = Recovered::default();
    for (suffix, value) in values {
        let key = [&keys::stream(id)[..], suffix].concat();
        let key = keys::parse_stream(&key).ok_or(FormatError::OutOfRange { what: "key" })?;
        recovered.take_value(key, value)?;
    }
    let what = "backup without configuration";
    let stream = recovered.streams.remove(&id);
    stream.ok_or(FormatError::OutOfRange { what })
}

/// What a check of a backup found. [`fmt::Display`] prints it for an operator.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupCheck {
    /// Directory of the backup.
    pub dir: PathBuf,
    /// Name of the stream.
    pub stream: String,
    /// When the backup was made.
    pub taken_at: TimestampNs,
    /// Live messages at that time.
    pub msgs: u64,
    /// Ranges of messages that were unreadable when it was made.
    pub lost_before: Vec<(Seq, Seq)>,
    /// Ranges of messages that are unreadable in the backup.
    pub lost: Vec<Corrupt>,
    /// Damage that costs no message, by file.
    pub harmless: Vec<(PathBuf, String)>,
    /// Data files.
    pub files: u64,
    /// Bytes that were read and checked.
    pub bytes: u64,
}

impl BackupCheck {
    /// True if everything the backup holds is readable, so that it can be restored.
    pub fn is_intact(&self) -> bool {
        self.lost.is_empty() && self.harmless.is_empty()
    }
}

impl fmt::Display for BackupCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (first, last) in &self.lost_before {
            writeln!(f, "lost before the backup: sequences {first} to {last}")?;
        }
        for lost in &self.lost {
            let (first, last, file) = (lost.first, lost.last, lost.file.display());
            let reason = &lost.reason;
            writeln!(f, "lost: sequences {first} to {last}: {file}: {reason}")?;
        }
        for (file, what) in &self.harmless {
            writeln!(f, "harmless: {}: {what}", file.display())?;
        }
        let verdict = match (self.is_intact(), self.lost.is_empty()) {
            (true, _) => "intact",
            (false, true) => "damaged, no message is lost",
            (false, false) => "damaged",
        };
        write!(
            f,
            "{}: {verdict}: stream {:?}, {} messages; {} files, {} bytes checked",
            self.dir.display(),
            self.stream,
            self.msgs,
            self.files,
            self.bytes
        )
    }
}

/// See [`Store::verify_backup`](crate::Store::verify_backup).
pub(super) fn check(env: &Env, dir: &Path) -> Result<BackupCheck, BackupError> {
    let backup = Backup::open_existing(env, dir)?;
    let stream = backup.stream()?;
    let data = &stream.data;
    let mut check = BackupCheck {
        dir: dir.to_path_buf(),
        stream: data.config.name.clone(),
        taken_at: backup.manifest.taken_at,
        msgs: data.live_in(data.first_seq, data.last_seq),
        lost_before: backup.manifest.lost.clone(),
        lost: Vec::new(),
        harmless: Vec::new(),
        files: 0,
        bytes: 0,
    };
    let id = backup.manifest.stream;
    let nowhere = |seq: u64| Corrupt {
        stream: id,
        first: Seq(seq),
        last: Seq(seq),
        file: backup.place.manifest(),
        offset: 0,
        reason: "no data file holds this sequence".into(),
    };
    let nothing = RoaringTreemap::new();
    let lose = |check: &mut BackupCheck,
                (first, last): (u64, u64),
                held: &RoaringTreemap,
                why: &dyn Fn(u64) -> Corrupt| {
        for range in missing_in(data, first, last, held) {
            for (first, last) in without(range, &backup.manifest.lost) {
                check.lost.push(Corrupt {
                    stream: id,
                    first: Seq(first),
                    last: Seq(last),
                    ..why(first)
                });
            }
        }
    };
    let mut next = data.first_seq;
    for file in &backup.manifest.files {
        let (first, last) = (file.first.0, file.last.0);
        if next < first {
            lose(&mut check, (next, first - 1), &nothing, &nowhere);
        }
        next = last + 1;
        let segment = backup.segment(file);
        check.files += 1;
        match Contents::read(&segment, &mut |_, _| {}) {
            Ok(contents) => {
                check.bytes += contents.check.report.bytes;
                let why = |seq| contents.reason(&segment, id, seq);
                lose(&mut check, (first, last), contents.seqs(id), &why);
                for (_, what) in &contents.check.report.harmless {
                    let path = segment.path().to_path_buf();
                    check.harmless.push((path, what.clone()));
                }
            }
            Err(error) => {
                let why = |seq| Corrupt {
                    file: segment.path().to_path_buf(),
                    reason: error.to_string(),
                    ..nowhere(seq)
                };
                lose(&mut check, (first, last), &nothing, &why);
            }
        }
    }
    if next <= data.last_seq {
        lose(&mut check, (next, data.last_seq), &nothing, &nowhere);
    }
    Ok(check)
}

/// What of a range is in none of `ranges`, which ascend.
fn without((first, last): (u64, u64), ranges: &[(Seq, Seq)]) -> Vec<(u64, u64)> {
    let mut rest = Vec::new();
    let mut next = first;
    for (from, to) in ranges.iter().filter(|(_, to)| to.0 >= first) {
        if from.0 > last {
            break;
        }
        if next < from.0 {
            rest.push((next, from.0 - 1));
        }
        next = next.max(to.0 + 1);
    }
    if next <= last {
        rest.push((next, last));
    }
    rest
}
