//! The `FORMAT` file: version and identity of a store.

use std::io::ErrorKind;

use super::error::OpenError;
use super::layout::Layout;
use crate::format::FormatError;
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::io::{Env, OpenMode};
use crate::meta::MetaLog;

/// Reads the identity of the store; creates the store in an empty directory. The second value says
/// whether it was created.
///
/// `FORMAT` is written last: where it exists, the rest of the store was complete once, and a
/// missing part is damage, never a fresh start.
pub(super) fn read_or_create(env: &Env, layout: &Layout) -> Result<(u128, bool), OpenError> {
    match env.io.open(&layout.format(), OpenMode::Read) {
        Ok(file) => {
            let mut bytes = [0; file_header::BYTES];
            let read = file.read_at(&mut bytes, 0);
            let read = read.map_err(|error| OpenError::io(layout.format(), error))?;
            let header = FileHeader::decode(&bytes[..read]);
            Ok((
                header
                    .map_err(|error| unreadable(layout, error))?
                    .store_uuid,
                false,
            ))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((create(env, layout)?, true)),
        Err(error) => Err(OpenError::io(layout.format(), error)),
    }
}

fn unreadable(layout: &Layout, error: FormatError) -> OpenError {
    match error {
        FormatError::NewerVersion {
            found, supported, ..
        } => OpenError::NewerVersion {
            file: layout.format(),
            found: u64::from(found),
            supported: u64::from(supported),
        },
        error => OpenError::Damaged {
            file: layout.format(),
            what: error.to_string(),
            remedy: "restore the FORMAT file from a backup",
        },
    }
}

fn create(env: &Env, layout: &Layout) -> Result<u128, OpenError> {
    let io = &env.io;
    let at = |file: std::path::PathBuf| move |error| OpenError::io(file, error);
    for dir in [layout.wal_dir(), layout.seg_dir(), layout.meta_dir()] {
        io.create_dir_all(&dir).map_err(at(dir))?;
    }
    // An interrupted creation leaves an empty metadata log; anything more belongs to somebody.
    for dir in [layout.wal_dir(), layout.seg_dir()] {
        let entries = io.list(&dir).map_err(at(dir))?;
        if !entries.is_empty() {
            return Err(OpenError::NotAStore {
                dir: layout.dir().to_path_buf(),
            });
        }
    }
    for entry in io.list(&layout.meta_dir()).map_err(at(layout.meta_dir()))? {
        let file = layout.meta_dir().join(&entry.name);
        io.remove(&file).map_err(at(file))?;
    }
    io.sync_dir(layout.dir())
        .map_err(at(layout.dir().to_path_buf()))?;
    let uuid = u128::from(env.entropy.next_u64()) << 64 | u128::from(env.entropy.next_u64());
    MetaLog::create(env, &layout.meta_dir(), uuid).map_err(at(layout.meta_dir()))?;
    let header = FileHeader {
        kind: FileKind::Store,
        store_uuid: uuid,
        file_no: 0,
        epoch: 0,
        base: 0,
        key: None,
    };
    let temporary = layout.format_temporary();
    match io.remove(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(OpenError::io(temporary, error)),
    }
    let file = io
        .open(&temporary, OpenMode::CreateNew)
        .map_err(at(temporary.clone()))?;
    file.write_at(&header.encode(), 0)
        .map_err(at(temporary.clone()))?;
    file.sync_data().map_err(at(temporary.clone()))?;
    io.rename(&temporary, &layout.format())
        .map_err(at(layout.format()))?;
    io.sync_dir(layout.dir())
        .map_err(at(layout.dir().to_path_buf()))?;
    Ok(uuid)
}
