//! One metadata commit: entries `kind1 key_len~ key [value_len~ value]`.

use crate::format::cursor::Cursor;
use crate::format::{FormatError, varint};

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// Changes that become durable together. Later entries win over earlier ones of the same key.
#[derive(Clone, Debug, Default)]
pub struct MetaBatch {
    bytes: Vec<u8>,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    Put(&'a [u8], &'a [u8]),
    Delete(&'a [u8]),
}

impl MetaBatch {
    /// A batch without changes.
    pub fn new() -> MetaBatch {
        MetaBatch::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        encode_put(key, value, &mut self.bytes);
    }

    /// Removes `key`; an absent one is fine.
    pub fn delete(&mut self, key: &[u8]) {
        self.bytes.push(DELETE);
        varint::encode(key.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(key);
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Encoded size.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.bytes
    }
}

pub(super) fn encode_put(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(PUT);
    varint::encode(key.len() as u64, out);
    out.extend_from_slice(key);
    varint::encode(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Encoded bytes of a put.
pub(super) fn put_bytes(key: &[u8], value: &[u8]) -> u64 {
    let lens = varint::encoded_len(key.len() as u64) + varint::encoded_len(value.len() as u64);
    (1 + lens + key.len() + value.len()) as u64
}

/// Takes one entry from the cursor.
pub(super) fn decode<'a>(cursor: &mut Cursor<'a>) -> Result<Entry<'a>, FormatError> {
    match cursor.u8()? {
        PUT => {
            let key = cursor.sized_bytes()?;
            Ok(Entry::Put(key, cursor.sized_bytes()?))
        }
        DELETE => Ok(Entry::Delete(cursor.sized_bytes()?)),
        found => Err(FormatError::UnknownKind {
            what: "metadata entry",
            found,
        }),
    }
}
