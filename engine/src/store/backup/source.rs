//! A backup as a source of messages for a repair.

use std::ops::ControlFlow;
use std::path::Path;

use super::super::options::StoreOptions;
use super::super::repair::{RangeSource, SourceError};
use super::error::BackupError;
use super::read::Backup;
use crate::error::ReadError;
use crate::ids::{Seq, StreamId};
use crate::io::Env;
use crate::message::Message;
use crate::segment::ScanItem;

/// A backup from which [`Store::repair`](crate::Store::repair) takes messages.
pub struct BackupSource {
    backup: Backup,
    stream: String,
}

impl BackupSource {
    /// The backup in `dir`, on the real disk. Of the options the keys count.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<BackupSource, BackupError> {
        BackupSource::open_in(&Env::real(), dir, options)
    }

    /// As [`BackupSource::open`], in the given environment.
    pub fn open_in(
        env: &Env,
        dir: &Path,
        options: &StoreOptions,
    ) -> Result<BackupSource, BackupError> {
        let backup = Backup::open_existing(&options.env(env.clone()), dir)?;
        let stream = backup.stream()?.data.config.name;
        Ok(BackupSource { backup, stream })
    }

    /// Name of the stream that the backup is of.
    pub fn stream(&self) -> &str {
        &self.stream
    }
}

impl RangeSource for BackupSource {
    fn messages(
        &self,
        stream: &str,
        first: Seq,
        last: Seq,
        take: &mut dyn FnMut(StreamId, Message) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        let manifest = &self.backup.manifest;
        if stream != self.stream {
            return Ok(());
        }
        let mut stopped = false;
        for file in &manifest.files {
            if file.last < first || file.first > last || stopped {
                continue;
            }
            let segment = self.backup.segment(file);
            let walked = segment.walk(manifest.stream, first, last, &mut |item| {
                // What is damaged here as well, the source does not have.
                let ScanItem::Block(block) = item else {
                    return ControlFlow::Continue(());
                };
                for message in block.iter_from(first) {
                    if message.seq > last {
                        break;
                    }
                    if take(manifest.stream, message).is_break() {
                        stopped = true;
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            });
            walked.map_err(|error: ReadError| SourceError(error.to_string()))?;
        }
        Ok(())
    }
}
