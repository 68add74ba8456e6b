//! Makes a run anew from the blocks of its segment.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::Path;

use super::{RunError, RunSource, RunWriter, SealedRun};
use crate::cache::{Cache, FileKey};
use crate::error::{Corrupt, ReadError};
use crate::format::file_header::FileKind;
use crate::format::key_page::{decode_key, encode_key};
use crate::ids::{Seq, StreamId};
use crate::io::Env;
use crate::message::Message;
use crate::segment::{DecodedBlock, ScanItem, Segment};

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

/// Sequences and sizes by encoded key, of one stream.
type Postings = BTreeMap<Vec<u8>, Vec<(Seq, u32)>>;

/// Writes the run of `segment` at `path`, replacing what is there, and makes it durable.
///
/// `size_of` must give the accounted size that the stream layer uses: a pure function of the
/// message, so that the rebuilt run equals the first one. Memory is bounded by the subjects and
/// sequences of the largest extent.
///
/// # Errors
///
/// [`RunError::Io`] only; unreadable messages are in [`RebuiltRun::lost`].
pub fn rebuild_run(
    env: &Env,
    path: &Path,
    store_uuid: u128,
    segment: &Segment,
    size_of: &dyn Fn(&Message) -> u32,
    cache: &Cache,
) -> Result<RebuiltRun, RunError> {
    let io_error = |error| RunError::io(path, error);
    let part = path.with_extension("idx.new");
    match env.io.remove(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_error(error)),
        _ => {}
    }
    let mut build = Build {
        writer: new_writer(env, &part, store_uuid, segment).map_err(io_error)?,
        size_of,
        stream: None,
        postings: Postings::new(),
        lost: Vec::new(),
    };
    let mut failed = None;
    let scanned = segment.scan(&mut |item| match build.take(item) {
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
    env.io.rename(&part, path).map_err(io_error)?;
    if let Some(dir) = path.parent() {
        env.io.sync_dir(dir).map_err(io_error)?;
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

fn new_writer(
    env: &Env,
    path: &Path,
    store_uuid: u128,
    segment: &Segment,
) -> io::Result<RunWriter> {
    // The filter shrinks to what it needs.
    let keys_max = segment.manifest().file_bytes / MESSAGE_BYTES_GUESS;
    let source = RunSource::Segment(*segment.manifest());
    RunWriter::new(env, path, store_uuid, source, keys_max)
}

struct Build<'a> {
    writer: RunWriter,
    size_of: &'a dyn Fn(&Message) -> u32,
    stream: Option<StreamId>,
    postings: Postings,
    lost: Vec<Corrupt>,
}

impl Build<'_> {
    fn take(&mut self, item: ScanItem) -> io::Result<()> {
        match item {
            ScanItem::Lost(report) => self.lost.push(report),
            ScanItem::Block(block) => {
                if self.stream != Some(block.stream()) {
                    self.write_stream()?;
                    self.stream = Some(block.stream());
                }
                self.take_block(&block);
            }
        }
        Ok(())
    }

    fn take_block(&mut self, block: &DecodedBlock) {
        for message in block.iter() {
            let mut key = Vec::new();
            encode_key(block.stream(), message.subject(), &mut key);
            let posting = (message.seq, (self.size_of)(&message));
            self.postings.entry(key).or_default().push(posting);
        }
    }

    fn write_stream(&mut self) -> io::Result<()> {
        let mut subject = Vec::new();
        for (key, postings) in std::mem::take(&mut self.postings) {
            // The key was encoded from a stream and a subject.
            if let Ok(stream) = decode_key(&key, &mut subject) {
                self.writer.push(stream, &subject, &postings)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<(SealedRun, Vec<Corrupt>)> {
        self.write_stream()?;
        let sealed = self.writer.finish(self.lost.len() as u64)?;
        Ok((sealed, self.lost))
    }
}
