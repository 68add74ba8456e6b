//! Encrypted segments need their key, and show nothing without it.

use super::*;
use crate::error::ReadError;
use crate::format::block::{BlockHead, content_digest};
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::format::identity::FileIdentity;

fn samples() -> Vec<Sample> {
    (1..30)
        .map(|seq| Sample {
            headers: b"a header".to_vec(),
            msg_id: b"an id".to_vec(),
            ..Sample::new(1, seq)
        })
        .collect()
}

const SECRETS: [&[u8]; 4] = [b"orders.", b"payload of", b"a header", b"an id"];

fn shows(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}

#[test]
fn nothing_of_a_message_is_readable() {
    // The same search finds everything in a plain file.
    let plain = Sealed::new(samples(), Codec::None).bytes();
    assert!(SECRETS.iter().all(|secret| shows(&plain, secret)));
    for codec in [Codec::None, Codec::S2] {
        let sealed = Sealed::of_form(samples(), Form::encrypted(codec));
        let bytes = sealed.bytes();
        assert!(SECRETS.iter().all(|secret| !shows(&bytes, secret)));
        let header = FileHeader::decode(&bytes).unwrap();
        assert_eq!(header.key, Some(keys().current().id()));
    }
}

/// Two files of the same content under the same number, as after a crash, share no ciphertext.
#[test]
fn a_number_used_again_repeats_no_key() {
    let form = Form::encrypted(Codec::None);
    let files = [(); 2].map(|()| Sealed::of_form(samples(), form));
    let [a, b] = files.each_ref().map(|sealed| {
        let (_, blocks) = sealed.open().all_blocks().unwrap();
        assert!(blocks.len() == 1, "one block");
        let at = blocks[0].offset as usize + 80;
        sealed.bytes()[at..at + blocks[0].disk_len as usize].to_vec()
    });
    assert_eq!(a.len(), b.len());
    assert!(a.windows(16).zip(b.windows(16)).all(|(a, b)| a != b));
}

#[test]
fn without_its_key_a_segment_reports_what_it_held() {
    let mut sealed = Sealed::of_form(samples(), Form::encrypted(Codec::S2));
    let other = Arc::new(KeyRing::new(Key::new(&[8; 32])));
    for keys in [None, Some(other)] {
        sealed.env.keys = keys;
        let segment = sealed.open();
        for sample in &sealed.samples {
            let Err(ReadError::Corrupt(report)) = segment.get(sample.stream, sample.seq) else {
                panic!("{} was answered", sample.seq);
            };
            assert!(
                report.reason.contains("a key that was not given"),
                "{report:?}"
            );
            assert!(report.first <= sample.seq && sample.seq <= report.last);
        }
    }
    let previous = KeyRing::new(Key::new(&[8; 32])).with_previous(keys().current().clone());
    sealed.env.keys = Some(Arc::new(previous));
    let segment = sealed.open();
    for sample in &sealed.samples {
        sample.check(&segment.get(sample.stream, sample.seq).unwrap().unwrap());
    }
}

/// Somebody who knows the format, but not the key, can fit checksums to what he changed.
#[test]
fn a_block_changed_on_purpose_is_lost_and_named() {
    let sealed = Sealed::of_form(samples(), Form::encrypted(Codec::None));
    let (_, blocks) = sealed.open().all_blocks().unwrap();
    let good = sealed.bytes();
    let offset = file_header::BYTES;
    let body = offset + 80..offset + 80 + blocks[0].disk_len as usize;
    let identity = FileIdentity::new(FileKind::Segment, UUID, ID.0);
    for at in [body.start, body.end - 30, body.end - 20, body.end - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let mut head = BlockHead::decode(identity, offset as u64, &bytes[offset..]).unwrap();
        head.disk_digest = content_digest(&bytes[body.clone()]);
        head.content_digest = head.disk_digest;
        bytes[offset..body.start].copy_from_slice(&head.encode(identity, offset as u64));
        // Without the table, which names the old digest.
        let pages = bytes.len() - 128 - 3 * 4096;
        bytes[pages..].fill(0);
        sealed.set_bytes(bytes);
        let Err(ReadError::Corrupt(report)) = sealed.open().get(StreamId(1), Seq(5)) else {
            panic!("byte {at}: served");
        };
        assert!(
            report.reason.contains("not authentic"),
            "byte {at}: {report:?}"
        );
    }
}
