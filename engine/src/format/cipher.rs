//! Encryption of the units that files are made of: blocks, pages and frames.
//!
//! Each file has a key of its own, derived from a key of the store, the file's name and a random
//! salt that is drawn whenever a file is begun or a log is taken up again: the number of a file
//! that a crash took back can be used again without any key being used twice for the same place.
//! Inside a file the place of a unit is its nonce. The cipher is AES-256-GCM.
//!
//! An encrypted unit carries behind its ciphertext `tag16 salt8`, so it can be read with nothing
//! but the store's keys, whatever else of the file is damaged. What says where the unit belongs
//! and how long it is stays readable and is authenticated with it. Checksums cover the ciphertext
//! and are verified first: they tell damage from a wrong key.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aes_gcm::AesGcm;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes256Enc;

use super::FormatError;
use super::file_header::{FileHeader, FileKind};
use super::identity::FileIdentity;
use super::key_ring::{KEY_BYTES, KeyId, KeyRing};
use crate::ids::Lsn;

/// Bytes of an authentication tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of a salt.
pub const SALT_BYTES: usize = 8;
/// Bytes that an encrypted unit carries behind its ciphertext.
pub const TRAILER_BYTES: usize = TAG_BYTES + SALT_BYTES;

/// What tells the files of all stores apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileName {
    kind: FileKind,
    store_uuid: u128,
    file_no: u64,
}

impl FileName {
    /// What the key of this file is derived for.
    pub fn context(&self, salt: u64) -> [u8; 33] {
        let mut out = [0; 33];
        out[0] = self.kind as u8;
        out[1..17].copy_from_slice(&self.store_uuid.to_le_bytes());
        out[17..25].copy_from_slice(&self.file_no.to_le_bytes());
        out[25..33].copy_from_slice(&salt.to_le_bytes());
        out
    }
}

/// A place in a file. Whoever writes a file encrypts each place at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The block at this offset.
    Block(u64),
    /// The page with this number.
    Page(u32),
    /// The frame whose first op has this lsn.
    Frame(Lsn),
}

impl Unit {
    /// `kind4 place8`.
    fn nonce(self) -> [u8; 12] {
        let (kind, place) = match self {
            Unit::Block(offset) => (1_u32, offset),
            Unit::Page(page_no) => (2, u64::from(page_no)),
            Unit::Frame(lsn) => (3, lsn.0),
        };
        let mut out = [0; 12];
        out[..4].copy_from_slice(&kind.to_le_bytes());
        out[4..].copy_from_slice(&place.to_le_bytes());
        out
    }

    fn name(self) -> &'static str {
        match self {
            Unit::Block(_) => "block",
            Unit::Page(_) => "page",
            Unit::Frame(_) => "frame",
        }
    }
}

/// The cipher of one file and salt.
pub(super) struct FileCipher {
    key: KeyId,
    salt: u64,
    aead: AesGcm<Aes256Enc, U12>,
}

impl FileCipher {
    pub fn new(key: KeyId, salt: u64, bytes: &[u8; KEY_BYTES]) -> FileCipher {
        FileCipher {
            key,
            salt,
            aead: AesGcm::new(bytes.into()),
        }
    }

    fn encrypt(&self, unit: Unit, head: &[u8], body: &mut [u8]) -> [u8; TRAILER_BYTES] {
        let tag = self
            .aead
            .encrypt_inout_detached(&unit.nonce().into(), head, body.into())
            .expect("a unit is smaller than 64 GiB");
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..TAG_BYTES].copy_from_slice(&tag);
        trailer[TAG_BYTES..].copy_from_slice(&self.salt.to_le_bytes());
        trailer
    }

    /// False if the unit is not what was encrypted; `body` is then as it was.
    fn decrypt(&self, unit: Unit, head: &[u8], body: &mut [u8], tag: &[u8; TAG_BYTES]) -> bool {
        self.aead
            .decrypt_inout_detached(&unit.nonce().into(), head, body.into(), &(*tag).into())
            .is_ok()
    }
}

/// Writes the units of one file: with checksums that belong to it, and encrypted if the store has
/// a key.
pub struct Sealer {
    file: FileName,
    identity: FileIdentity,
    salt: u64,
    cipher: Option<FileCipher>,
}

impl Sealer {
    /// For file number `file_no` of its kind in a store. `salt` must be drawn anew for each file
    /// that is begun or taken up again.
    pub fn new(
        keys: Option<&KeyRing>,
        salt: u64,
        kind: FileKind,
        store_uuid: u128,
        file_no: u64,
    ) -> Sealer {
        let file = FileName {
            kind,
            store_uuid,
            file_no,
        };
        Sealer {
            file,
            identity: FileIdentity::new(kind, store_uuid, file_no),
            salt,
            cipher: keys.map(|keys| keys.current().file_cipher(&file, salt)),
        }
    }

    /// The header of a sealed file.
    pub fn header(&self) -> FileHeader {
        FileHeader {
            kind: self.file.kind,
            store_uuid: self.file.store_uuid,
            file_no: self.file.file_no,
            epoch: self.salt,
            base: 0,
            key: self.key(),
        }
    }

    /// What ties checksums to the file.
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// The key that units are encrypted with.
    pub fn key(&self) -> Option<KeyId> {
        self.cipher.as_ref().map(|cipher| cipher.key)
    }

    /// The mark of the key; 0 if units are not encrypted.
    pub fn mark(&self) -> u8 {
        self.key().map_or(0, KeyId::mark)
    }

    /// Encrypts `body` in place and returns what goes behind it; `None` if the store has no key.
    /// `head` is authenticated with it and stays readable.
    pub fn seal(&self, unit: Unit, head: &[u8], body: &mut [u8]) -> Option<[u8; TRAILER_BYTES]> {
        let cipher = self.cipher.as_ref()?;
        Some(cipher.encrypt(unit, head, body))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("file", &self.file)
            .field("key", &self.key())
            .finish_non_exhaustive()
    }
}

/// Reads the units of one file. Cheap to clone.
#[derive(Clone)]
pub struct Opener {
    identity: FileIdentity,
    is_encrypted: bool,
    inner: Arc<OpenerInner>,
}

struct OpenerInner {
    file: FileName,
    keys: Option<Arc<KeyRing>>,
    /// The cipher used last: as a rule the only one of the file.
    last: RwLock<Option<Arc<FileCipher>>>,
}

impl Opener {
    /// For file number `file_no` of its kind in a store.
    pub fn new(
        keys: Option<Arc<KeyRing>>,
        kind: FileKind,
        store_uuid: u128,
        file_no: u64,
    ) -> Opener {
        let file = FileName {
            kind,
            store_uuid,
            file_no,
        };
        Opener {
            identity: FileIdentity::new(kind, store_uuid, file_no),
            is_encrypted: false,
            inner: Arc::new(OpenerInner {
                file,
                keys,
                last: RwLock::new(None),
            }),
        }
    }

    /// What ties checksums to the file.
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Says what is known of the file: one that is encrypted has no plain units. They would be
    /// somebody's who has no key.
    #[must_use]
    pub fn of_key(mut self, key: Option<KeyId>) -> Opener {
        self.is_encrypted = key.is_some();
        self
    }

    /// Takes a unit that is not encrypted.
    ///
    /// # Errors
    ///
    /// [`FormatError::NotAuthentic`] in an encrypted file.
    pub fn take_plain(&self, unit: Unit) -> Result<(), FormatError> {
        match self.is_encrypted {
            true => Err(FormatError::NotAuthentic { what: unit.name() }),
            false => Ok(()),
        }
    }

    /// Whether the key was given.
    pub fn holds(&self, key: KeyId) -> bool {
        let keys = self.inner.keys.as_ref();
        keys.is_some_and(|keys| keys.get(key).is_some())
    }

    /// Decrypts `body` in place. `mark` is that of the key, not 0.
    ///
    /// # Errors
    ///
    /// [`FormatError::KeyMissing`] if the store was given no such key, [`FormatError::NotAuthentic`]
    /// if the unit is not what was encrypted; `body` is unchanged.
    pub fn open(
        &self,
        mark: u8,
        unit: Unit,
        head: &[u8],
        body: &mut [u8],
        trailer: &[u8; TRAILER_BYTES],
    ) -> Result<(), FormatError> {
        let what = unit.name();
        let (tag, salt) = split(trailer);
        if let Some(cipher) = self.last()
            && cipher.salt == salt
            && cipher.key.mark() == mark
            && cipher.decrypt(unit, head, body, &tag)
        {
            return Ok(());
        }
        let mut tried = false;
        let keys = self.inner.keys.iter().flat_map(|keys| keys.keys());
        for key in keys.filter(|key| key.id().mark() == mark) {
            tried = true;
            let cipher = key.file_cipher(&self.inner.file, salt);
            if cipher.decrypt(unit, head, body, &tag) {
                let mut last = self
                    .inner
                    .last
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                *last = Some(Arc::new(cipher));
                return Ok(());
            }
        }
        Err(match tried {
            true => FormatError::NotAuthentic { what },
            false => FormatError::KeyMissing { what },
        })
    }

    fn last(&self) -> Option<Arc<FileCipher>> {
        self.inner
            .last
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("file", &self.inner.file)
            .field("keys", &self.inner.keys)
            .finish_non_exhaustive()
    }
}

fn split(trailer: &[u8; TRAILER_BYTES]) -> ([u8; TAG_BYTES], u64) {
    let (mut tag, mut salt) = ([0; TAG_BYTES], [0; SALT_BYTES]);
    tag.copy_from_slice(&trailer[..TAG_BYTES]);
    salt.copy_from_slice(&trailer[TAG_BYTES..]);
    (tag, u64::from_le_bytes(salt))
}
