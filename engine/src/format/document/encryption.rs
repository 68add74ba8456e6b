//! Key derivation and cipher as FORMAT.md describes them, made of other pieces than the code's own.

use aes_gcm::aead::{AeadInOut, KeyInit};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{UUID, check_numbers};
use crate::format::cipher::{SALT_BYTES, TAG_BYTES};
use crate::format::file_header::FileKind;
use crate::format::key_ring::{CHECK_BYTES, KEY_BYTES, Key};

/// The bytes of the key whose derivations the document's tests know.
const SECRET: [u8; KEY_BYTES] = [5; KEY_BYTES];

fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("any length will do");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// `derive(purpose, context)` of FORMAT.md.
fn derive(purpose: u8, context: &[u8]) -> Vec<u8> {
    let root = hmac(b"riverlog key 1", &[&SECRET]);
    hmac(&root, &[&[purpose], context, &[1]])
}

/// The key of a file of the store [`UUID`] under the key of [`SECRET`].
pub(super) fn file_key(key: &Key, kind: FileKind, file_no: u64, salt: u64) -> Vec<u8> {
    assert_eq!(key.id(), Key::new(&SECRET).id());
    let mut context = vec![kind as u8];
    context.extend_from_slice(&UUID.to_le_bytes());
    context.extend_from_slice(&file_no.to_le_bytes());
    context.extend_from_slice(&salt.to_le_bytes());
    derive(3, &context)
}

/// AES-256-GCM; returns the tag.
pub(super) fn encrypt(key: &[u8], nonce: &[u8], head: &[u8], body: &mut [u8]) -> Vec<u8> {
    let cipher = aes_gcm::Aes256Gcm::new_from_slice(key).expect("32 bytes");
    let nonce = nonce.try_into().expect("12 bytes");
    let tag = cipher.encrypt_inout_detached(&nonce, head, body.into());
    tag.expect("it is short").to_vec()
}

#[test]
fn format_document_keys() {
    let key = Key::new(&SECRET);
    let id = u64::from_le_bytes(derive(1, &[])[..8].try_into().expect("8 bytes"));
    assert_eq!(key.id().number(), id);
    let check = derive(2, &UUID.to_le_bytes());
    assert_eq!(key.check_value(UUID)[..], check[..CHECK_BYTES]);
    check_numbers(
        "encryption",
        &[
            ("key_bytes", KEY_BYTES as u64),
            ("tag_bytes", TAG_BYTES as u64),
            ("salt_bytes", SALT_BYTES as u64),
        ],
    );
    check_numbers("key_purpose", &[("id", 1), ("check", 2), ("file", 3)]);
    check_numbers("nonce_unit", &[("block", 1), ("page", 2), ("frame", 3)]);
}
