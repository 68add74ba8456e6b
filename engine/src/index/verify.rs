//! Checks every page of a run, past the cache and in steps, and compares it with its segment.

use std::io::ErrorKind;
use std::path::Path;

use super::RunError;
use super::reader::{Run, RunIdentity, read_footer};
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::format::footer::{self, Footer};
use crate::format::page::{self, PAGE_BYTES};
use crate::ids::{Seq, StreamId};
use crate::io::{Env, OpenMode};
use crate::subject::Filter;

/// A step reads this many pages.
const STEP_PAGES: u32 = 64;

/// A check of a run under way.
#[derive(Debug, Default)]
pub(crate) struct RunCheck {
    /// Bytes that were read and checked.
    pub bytes: u64,
    /// Offset and what was found there.
    pub damage: Vec<(u64, String)>,
    /// The file is not there.
    pub missing: bool,
    place: Option<(Footer, u32)>,
}

impl RunCheck {
    /// Checks the next part; true when everything was checked.
    ///
    /// # Errors
    ///
    /// Only [`RunError::Io`]. The step can be tried again.
    pub fn step(
        &mut self,
        env: &Env,
        path: &Path,
        store_uuid: u128,
        wanted: &RunIdentity,
    ) -> Result<bool, RunError> {
        let file = match env.io.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.missing = true;
                return Ok(true);
            }
            Err(error) => return Err(RunError::io(path, error)),
        };
        let file_no = wanted.file_no().0;
        let (footer, first) = match self.place.take() {
            Some(place) => place,
            None => {
                let mut header = [0_u8; file_header::BYTES];
                let len = file.read_at(&mut header, 0);
                let len = len.map_err(|error| RunError::io(path, error))?;
                match FileHeader::decode(&header[..len]) {
                    Ok(h) if h.kind == FileKind::Index && h.file_no == file_no => {}
                    Ok(_) => self.harm(0, "the header names another file"),
                    Err(error) => self.harm(0, error),
                }
                self.bytes += len as u64;
                match read_footer(&*file, path, store_uuid, wanted) {
                    Ok(footer) => {
                        self.bytes += footer::BYTES as u64;
                        (footer, 0)
                    }
                    Err(RunError::Damaged { offset, reason, .. }) => {
                        self.harm(offset, reason);
                        return Ok(true);
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let opener = env.opener(FileKind::Index, store_uuid, file_no);
        let end = footer.section_start(footer.section_pages.len());
        let mut bytes = vec![0_u8; PAGE_BYTES];
        let until = end.min(first.saturating_add(STEP_PAGES));
        for page_no in first..until {
            let offset = footer.page_offset(page_no);
            let read = file.read_at(&mut bytes, offset);
            let len = match read {
                Ok(len) => len,
                Err(error) => {
                    self.place = Some((footer, page_no));
                    return Err(RunError::io(path, error));
                }
            };
            self.bytes += len as u64;
            if let Err(error) = page::decode_any(&opener, page_no, &mut bytes[..len]) {
                self.harm(offset, error);
            }
        }
        self.place = Some((footer, until));
        Ok(until == end)
    }

    fn harm(&mut self, offset: u64, what: impl ToString) {
        self.damage.push((offset, what.to_string()));
    }
}

/// A sum over a set of postings that does not depend on their order: two sets that differ have,
/// with all but certainty, different sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PostingsSum {
    count: u64,
    sum: u128,
}

impl PostingsSum {
    /// Adds one message.
    pub fn add(&mut self, subject: &[u8], seq: Seq, size: u32) {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&seq.0.to_le_bytes());
        hasher.update(&size.to_le_bytes());
        hasher.update(subject);
        self.count += 1;
        self.sum = self.sum.wrapping_add(hasher.digest128());
    }

    /// What a run holds of a stream.
    pub fn of_run(run: &Run, stream: StreamId) -> Result<PostingsSum, RunError> {
        let mut sum = PostingsSum::default();
        let mut failed = None;
        run.matching(stream, &Filter::all(), &mut |subject, entry| {
            let visited = run.postings(&entry, Seq(0), &mut |seq, size| {
                sum.add(subject, seq, size);
                std::ops::ControlFlow::Continue(())
            });
            match visited {
                Ok(()) => std::ops::ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    std::ops::ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(sum), Err)
    }

    /// Number of messages.
    pub fn count(&self) -> u64 {
        self.count
    }
}
