//! Makes a run anew from the blocks of its segment.
//!
//! Subjects are sorted in RAM, a bounded part at a time: where a stream has more of them than fit,
//! each part becomes a temporary run, and these are merged.

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::merge::MergeCopy;
use super::sorter::Sorter;
use super::{MergeInput, Run, RunError, RunIdentity, RunManifest, RunSource};
use super::{RunWriter, SealedRun};
use crate::cache::{Cache, FileKey};
use crate::error::{Corrupt, ReadError};
use crate::format::file_header::FileKind;
use crate::ids::{SegmentId, StreamId};
use crate::io::Env;
use crate::message::BodyLayout;
use crate::segment::{Segment, SubjectItem};

/// A rebuilt run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuiltRun {
    /// The new file.
    pub sealed: SealedRun,
    /// Ranges of the segment that could not be read: their messages are not in the run.
    pub lost: Vec<Corrupt>,
}

/// Few messages take less room in a segment.
const MESSAGE_BYTES_GUESS: u64 = 16;
/// RAM for subjects that are being sorted. The vectors that hold them may reserve twice as much.
const SORT_BYTES_MAX: usize = 8 << 20;
/// Temporary runs kept open.
const PARTS_OPEN_MAX: u32 = 64;

/// Writes the run of `segment` at `path`, replacing what is there, and makes it durable.
///
/// `size_of` must give the accounted size that the stream layer uses: a pure function of the
/// message's lengths, so that the rebuilt run equals the first one. Memory is bounded, whatever the
/// segment holds; only subjects that are too long for key pages are all kept until the end.
///
/// # Errors
///
/// [`RunError::Io`] only; unreadable messages are in [`RebuiltRun::lost`].
pub fn rebuild_run(
    env: &Env,
    path: &Path,
    store_uuid: u128,
    segment: &Segment,
    size_of: &dyn Fn(&BodyLayout) -> u32,
    cache: &Cache,
) -> Result<RebuiltRun, RunError> {
    let rebuild = Rebuild {
        env,
        path,
        store_uuid,
        sort_bytes_max: SORT_BYTES_MAX,
    };
    rebuild.run(segment, size_of, cache)
}

/// What a rebuild is told.
pub(super) struct Rebuild<'a> {
    pub env: &'a Env,
    pub path: &'a Path,
    pub store_uuid: u128,
    pub sort_bytes_max: usize,
}

impl Rebuild<'_> {
    pub fn run(
        &self,
        segment: &Segment,
        size_of: &dyn Fn(&BodyLayout) -> u32,
        cache: &Cache,
    ) -> Result<RebuiltRun, RunError> {
        let path = self.path;
        let io_error = |error| RunError::io(path, error);
        let new = path.with_extension("idx.new");
        remove(self.env, &new).map_err(io_error)?;
        let keys_max = segment.manifest().file_bytes / MESSAGE_BYTES_GUESS;
        let source = RunSource::Segment(*segment.manifest());
        let writer = RunWriter::new(self.env, &new, self.store_uuid, source, keys_max);
        let mut build = Build {
            rebuild: self,
            writer: writer.map_err(io_error)?,
            stream: None,
            sorter: Sorter::default(),
            parts: Vec::new(),
            // The parts have pages of their own, which nobody else reads.
            cache: Arc::new(Cache::new(0, PARTS_OPEN_MAX)),
            lost: Vec::new(),
        };
        let mut failed = None;
        let scanned = segment.scan_subjects(&mut |item| match build.take(item, size_of) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        match (scanned, failed) {
            (Ok(()), None) => {}
            (_, Some(error)) => return Err(io_error(error)),
            (Err(ReadError::Io { file, source }), None) => {
                return Err(RunError::Io { file, source });
            }
            (Err(error), None) => {
                let error = io::Error::new(ErrorKind::InvalidData, error.to_string());
                return Err(io_error(error));
            }
        }
        let (sealed, lost) = build.finish().map_err(io_error)?;
        self.env.io.rename(&new, path).map_err(io_error)?;
        if let Some(dir) = path.parent() {
            self.env.io.sync_dir(dir).map_err(io_error)?;
        }
        cache.forget_content(FileKey::new(FileKind::Index, segment.manifest().id.0));
        tracing::info!(
            file = %path.display(),
            keys = sealed.keys,
            lost = lost.len(),
            "index run was rebuilt"
        );
        Ok(RebuiltRun { sealed, lost })
    }
}

fn remove(env: &Env, path: &Path) -> io::Result<()> {
    match env.io.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

struct Build<'a> {
    rebuild: &'a Rebuild<'a>,
    writer: RunWriter,
    stream: Option<StreamId>,
    sorter: Sorter,
    /// Sorted parts of the current stream, ascending by sequence.
    parts: Vec<Part>,
    cache: Arc<Cache>,
    lost: Vec<Corrupt>,
}

impl Build<'_> {
    fn take(
        &mut self,
        item: SubjectItem<'_>,
        size_of: &dyn Fn(&BodyLayout) -> u32,
    ) -> io::Result<()> {
        let SubjectItem::Message {
            stream,
            seq,
            subject,
            layout,
        } = item
        else {
            if let SubjectItem::Lost(report) = item {
                self.lost.push(report);
            }
            return Ok(());
        };
        if self.stream != Some(stream) {
            self.write_stream()?;
            self.stream = Some(stream);
        } else if self.sorter.bytes() >= self.rebuild.sort_bytes_max {
            self.write_part()?;
        }
        let size = size_of(&layout);
        if self.sorter.add(stream, subject, seq, size) {
            return Ok(());
        }
        self.write_part()?;
        match self.sorter.add(stream, subject, seq, size) {
            true => Ok(()),
            false => Err(io::Error::new(ErrorKind::InvalidData, "a huge subject")),
        }
    }

    /// Makes a temporary run of what is in RAM.
    fn write_part(&mut self) -> io::Result<()> {
        if self.sorter.is_empty() {
            return Ok(());
        }
        let Rebuild {
            env,
            path,
            store_uuid,
            ..
        } = *self.rebuild;
        let number = self.parts.len() as u64;
        let path = path.with_extension(format!("idx.part{number}"));
        remove(env, &path)?;
        let id = SegmentId(number);
        let source = RunSource::Merged(id);
        let guard = Temporary {
            env: env.clone(),
            path,
        };
        let mut writer = RunWriter::new(env, &guard.path, store_uuid, source, 1)?;
        self.sorter.write(&mut writer)?;
        let sealed = writer.finish_temporary()?;
        let wanted = RunIdentity::Exactly(RunManifest {
            id,
            file_bytes: sealed.file_bytes,
            footer_digest: sealed.footer_digest,
        });
        let run = Run::open(env, &guard.path, store_uuid, &wanted, self.cache.clone());
        self.parts.push(Part {
            run: Arc::new(run.map_err(io::Error::other)?),
            _file: guard,
        });
        Ok(())
    }

    /// Writes the subjects of the current stream.
    fn write_stream(&mut self) -> io::Result<()> {
        if self.parts.is_empty() {
            return self.sorter.write(&mut self.writer);
        }
        self.write_part()?;
        let parts = std::mem::take(&mut self.parts);
        let inputs = parts.iter().map(|part| MergeInput {
            run: part.run.clone(),
            scope: None,
        });
        let mut merge = MergeCopy::new(inputs.collect()).map_err(io::Error::other)?;
        merge
            .advance(&mut self.writer, usize::MAX, &mut |_, _| {})
            .map_err(io::Error::other)?;
        for number in 0..parts.len() as u64 {
            // Parts of another stream get the same numbers.
            self.cache
                .forget_content(FileKey::new(FileKind::Index, number));
            self.cache
                .forget_file(FileKey::new(FileKind::Index, number));
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<(SealedRun, Vec<Corrupt>)> {
        self.write_stream()?;
        let sealed = self.writer.finish(self.lost.len() as u64)?;
        Ok((sealed, self.lost))
    }
}

/// A temporary run.
struct Part {
    run: Arc<Run>,
    _file: Temporary,
}

/// A file that goes with its owner.
struct Temporary {
    env: Env,
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What stays behind is removed by the next start, or replaced.
        let _ = self.env.io.remove(&self.path);
    }
}
