//! Disk space kept aside, so that a store can be opened on a disk that it has filled itself.
//!
//! A start needs a new log file before the old ones can be given up. With nothing left for it, a full
//! store could not even be opened to delete something from it.

use std::io;

use super::layout::Layout;
use crate::io::{Env, OpenMode};

/// Most that is kept aside.
const RESERVE_BYTES_MAX: u64 = 4 << 20;

/// The file that holds the space.
pub(super) struct Reserve {
    env: Env,
    layout: Layout,
    bytes: u64,
    kept: bool,
}

impl Reserve {
    /// Space for a small log file, in proportion to the usual one.
    pub fn new(env: &Env, layout: &Layout, log_file_bytes: u64) -> Reserve {
        Reserve {
            env: env.clone(),
            layout: layout.clone(),
            bytes: (log_file_bytes / 16).min(RESERVE_BYTES_MAX),
            kept: false,
        }
    }

    /// Gives the space to whoever needs it now.
    pub fn give_up(&mut self) {
        self.kept = false;
        if let Err(error) = self.env.io.remove(&self.layout.reserve())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the space kept in reserve cannot be used");
        }
    }

    /// Keeps the space aside, if it is not and there is enough. Not having it is no failure.
    pub fn keep(&mut self) {
        if self.kept {
            return;
        }
        let path = self.layout.reserve();
        let allocated = match self.env.io.open(&path, OpenMode::CreateNew) {
            Ok(file) => file.allocate(self.bytes),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        };
        self.kept = allocated.is_ok();
        if !self.kept {
            // A part of it would be no help, and keep others from it.
            let _ = self.env.io.remove(&path);
        }
    }
}
