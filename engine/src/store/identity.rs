//! The `FORMAT` file: version and identity of a store.

use std::io::ErrorKind;

use super::error::OpenError;
use super::layout::Layout;
use crate::format::FormatError;
use crate::format::cursor::Cursor;
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::format::key_ring::{CHECK_BYTES, Key, KeyId};
use crate::io::{Env, OpenMode};
use crate::meta::MetaLog;

/// Bytes of the file in an encrypted store.
pub(super) const BYTES_MAX: usize = file_header::BYTES + CHECK_BYTES + 4;

/// What the `FORMAT` file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub uuid: u128,
    /// The store was created now.
    pub created: bool,
    /// The key that new files of the store have, as of the last start.
    pub key: Option<KeyId>,
}

/// Reads the identity of the store; creates the store in an empty directory.
///
/// `FORMAT` is written last: where it exists, the rest of the store was complete once, and a
/// missing part is damage, never a fresh start.
pub(super) fn read_or_create(env: &Env, layout: &Layout) -> Result<Identity, OpenError> {
    match env.io.open(&layout.format(), OpenMode::Read) {
        Ok(file) => {
            let mut bytes = [0; BYTES_MAX];
            let read = file.read_at(&mut bytes, 0);
            let read = read.map_err(|error| OpenError::io(layout.format(), error))?;
            let header = FileHeader::decode(&bytes[..read]);
            let header = header.map_err(|error| unreadable(layout, error))?;
            check_key(env, layout, &header, &bytes[..read])?;
            Ok(Identity {
                uuid: header.store_uuid,
                created: false,
                key: header.key,
            })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Identity {
            uuid: create(env, layout)?,
            created: true,
            key: env.current_key(),
        }),
        Err(error) => Err(OpenError::io(layout.format(), error)),
    }
}

/// Compares the key check value in the bytes of `FORMAT` with that of the key at hand.
pub(super) fn check_key(
    env: &Env,
    layout: &Layout,
    header: &FileHeader,
    bytes: &[u8],
) -> Result<(), OpenError> {
    let Some(id) = header.key else {
        return Ok(());
    };
    let Some(key) = env.keys.as_ref().and_then(|keys| keys.get(id)) else {
        return Err(key_missing(env, layout.format(), id));
    };
    let found = decode_check(bytes).map_err(|error| unreadable(layout, error))?;
    if found != key.check_value(header.store_uuid) {
        return Err(unreadable(
            layout,
            FormatError::NotAuthentic {
                what: "key check value",
            },
        ));
    }
    Ok(())
}

pub(super) fn key_missing(env: &Env, file: std::path::PathBuf, key: KeyId) -> OpenError {
    let keys = env.keys.iter().flat_map(|keys| keys.keys());
    OpenError::KeyMissing {
        file,
        key,
        given: keys.map(|key| key.id()).collect(),
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
    write(env, layout, uuid)?;
    Ok(uuid)
}

/// Writes `FORMAT` under a temporary name and gives it its own: it is replaced whole or not at all.
pub(super) fn write(env: &Env, layout: &Layout, uuid: u128) -> Result<(), OpenError> {
    let io = &env.io;
    let at = |file: std::path::PathBuf| move |error| OpenError::io(file, error);
    let temporary = layout.format_temporary();
    match io.remove(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(OpenError::io(temporary, error)),
    }
    let file = io
        .open(&temporary, OpenMode::CreateNew)
        .map_err(at(temporary.clone()))?;
    let key = env.keys.as_ref().map(|keys| keys.current());
    file.write_at(&encode(uuid, key), 0)
        .map_err(at(temporary.clone()))?;
    file.sync_data().map_err(at(temporary.clone()))?;
    io.rename(&temporary, &layout.format())
        .map_err(at(layout.format()))?;
    io.sync_dir(layout.dir())
        .map_err(at(layout.dir().to_path_buf()))
}

/// A file header; in an encrypted store followed by `check16 crc4`, where `crc` covers everything
/// before it.
pub(crate) fn encode(uuid: u128, key: Option<&Key>) -> Vec<u8> {
    let header = FileHeader {
        kind: FileKind::Store,
        store_uuid: uuid,
        file_no: 0,
        epoch: 0,
        base: 0,
        key: key.map(Key::id),
    };
    let mut out = header.encode().to_vec();
    if let Some(key) = key {
        out.extend_from_slice(&key.check_value(uuid));
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
    }
    out
}

fn decode_check(bytes: &[u8]) -> Result<[u8; CHECK_BYTES], FormatError> {
    let mut cursor = Cursor::new(bytes);
    let _header: [u8; file_header::BYTES] = cursor.array()?;
    let check = cursor.array()?;
    let stored = cursor.u32()?;
    let computed = crc32fast::hash(&bytes[..file_header::BYTES + CHECK_BYTES]);
    if stored != computed {
        return Err(FormatError::ChecksumMismatch {
            what: "key check value",
            stored: u64::from(stored),
            computed: u64::from(computed),
        });
    }
    Ok(check)
}
