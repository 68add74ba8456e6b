//! The keys of an encrypted store.

use std::fmt;
use std::sync::Arc;

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::cipher::{FileCipher, FileName};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a key check value.
pub const CHECK_BYTES: usize = 16;

/// Separates the keys that are derived here from those of any other use of the same secret.
const DOMAIN: &[u8] = b"riverlog key 1";
const PURPOSE_ID: u8 = 1;
const PURPOSE_CHECK: u8 = 2;
const PURPOSE_FILE: u8 = 3;

/// Names a key without giving anything of it away: the start of a keyed derivation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// From its number in a file; `None` for 0, which says that nothing is encrypted.
    pub fn from_number(number: u64) -> Option<KeyId> {
        (number != 0).then_some(KeyId(number))
    }

    /// The number that files hold; never 0.
    pub fn number(self) -> u64 {
        self.0
    }

    /// A short form that blocks and pages carry, never 0. Two keys may share it: it only says which
    /// keys are worth trying.
    pub fn mark(self) -> u8 {
        (self.0 % 255) as u8 + 1
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A master key: 32 bytes that nobody can guess, for example from a key management service or from
/// `/dev/urandom`. A passphrase is no key; derive one from it with a password hash first.
///
/// The bytes are wiped from memory when the last copy is dropped, and never printed.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    /// Derivations start from this, not from the bytes that the caller gave.
    root: Arc<Zeroizing<[u8; KEY_BYTES]>>,
}

impl Key {
    /// A key of these bytes. The caller wipes his own copy.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Key {
        let mut root = Zeroizing::new([0; KEY_BYTES]);
        let (mut extracted, _) = Hkdf::<Sha256>::extract(Some(DOMAIN), bytes);
        root.copy_from_slice(&extracted);
        zeroize::Zeroize::zeroize(&mut extracted[..]);
        let mut key = Key {
            id: KeyId(1),
            root: Arc::new(root),
        };
        let mut id = [0; 8];
        key.derive(PURPOSE_ID, &[], &mut id);
        key.id = KeyId(u64::from_le_bytes(id).max(1));
        key
    }

    /// Names the key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What a store keeps to notice a wrong key at once.
    pub fn check_value(&self, store_uuid: u128) -> [u8; CHECK_BYTES] {
        let mut check = [0; CHECK_BYTES];
        self.derive(PURPOSE_CHECK, &store_uuid.to_le_bytes(), &mut check);
        check
    }

    /// The cipher of one file, or of one stretch of a file, that was begun with `salt`.
    pub(super) fn file_cipher(&self, file: &FileName, salt: u64) -> FileCipher {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        self.derive(PURPOSE_FILE, &file.context(salt), &mut *key);
        FileCipher::new(self.id, salt, &key)
    }

    fn derive(&self, purpose: u8, context: &[u8], out: &mut [u8]) {
        let hkdf = Hkdf::<Sha256>::from_prk(&self.root[..]).expect("a root is as long as a hash");
        hkdf.expand_multi_info(&[&[purpose], context], out)
            .expect("no derived value is longer than a hash");
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The keys of a store: new files are encrypted with the current one, files of all of them can be
/// read.
///
/// To rotate, open the store with a new current key and the old one among the previous keys. Files
/// are never changed, so the old key stays in use until the last of its files is gone:
/// [`Store::reencrypt`](crate::Store::reencrypt) has them rewritten, and
/// [`Store::keys_in_use`](crate::Store::keys_in_use) says which keys are needed.
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: Key,
    previous: Vec<Key>,
}

impl KeyRing {
    /// A ring of one key.
    pub fn new(current: Key) -> KeyRing {
        KeyRing {
            current,
            previous: Vec::new(),
        }
    }

    /// Adds a key for reading older files.
    #[must_use]
    pub fn with_previous(mut self, key: Key) -> KeyRing {
        self.previous.push(key);
        self
    }

    /// The key of new files.
    pub fn current(&self) -> &Key {
        &self.current
    }

    /// All keys, the current one first.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// The key with this id.
    pub fn get(&self, id: KeyId) -> Option<&Key> {
        self.keys().find(|key| key.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printed_shows_the_key() {
        let secret = [0xab; KEY_BYTES];
        let ring = KeyRing::new(Key::new(&secret)).with_previous(Key::new(&[0xcd; KEY_BYTES]));
        let printed = format!("{ring:?} {:#?} {}", ring.current(), ring.current().id());
        assert!(printed.contains(&ring.current().id().to_string()));
        for secret in ["171", "205", "abab", "cdcd"] {
            assert!(!printed.contains(secret), "{printed}");
        }
        let root = format!("{:?}", &ring.current().root[..4]);
        assert!(!printed.contains(root.trim_matches(['[', ']'])));
    }

    #[test]
    fn ids_and_check_values_depend_on_the_key_and_the_store() {
        let (a, b) = (Key::new(&[1; KEY_BYTES]), Key::new(&[2; KEY_BYTES]));
        assert_eq!(a.id(), Key::new(&[1; KEY_BYTES]).id());
        assert_ne!(a.id(), b.id());
        assert_ne!(a.check_value(1), b.check_value(1));
        assert_ne!(a.check_value(1), a.check_value(2));
        assert_eq!(KeyId::from_number(a.id().number()), Some(a.id()));
        assert_eq!(KeyId::from_number(0), None);
    }

    #[test]
    fn a_ring_finds_its_keys() {
        let keys = [1, 2, 3].map(|byte| Key::new(&[byte; KEY_BYTES]));
        let [a, b, c] = keys;
        let ring = KeyRing::new(a.clone()).with_previous(b.clone());
        assert_eq!(ring.current().id(), a.id());
        assert_eq!(ring.get(b.id()).map(Key::id), Some(b.id()));
        assert!(ring.get(c.id()).is_none());
    }
}
