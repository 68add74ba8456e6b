//! The manifest of a backup.

use super::table;
use crate::format::backup::{DataFile, Manifest, VERSION};
use crate::format::cipher::Sealer;
use crate::format::file_header::{self, FileKind};
use crate::format::key_ring::KeyId;
use crate::format::page::{self, PAGE_BYTES, PAYLOAD_BYTES_MAX};
use crate::ids::{Lsn, SegmentId, Seq, StreamId, TimestampNs};

fn manifest() -> Manifest {
    Manifest {
        store_uuid: 0x1111_2222_3333_4444_5555_6666_7777_8888,
        stream: StreamId(3),
        taken_at: TimestampNs(-2),
        lsn: Lsn(300),
        next_file: 9,
        values: vec![(b"a".to_vec(), b"xyz".to_vec())],
        files: vec![DataFile {
            no: 8,
            file_bytes: 128,
            footer_digest: 0x0102_0304_0506_0708,
            key: KeyId::from_number(0x2122_2324_2526_2728),
            source: SegmentId(5),
            source_digest: 0x1112_1314_1516_1718,
            first: Seq(10),
            last: Seq(14),
            is_whole: true,
        }],
        lost: vec![(Seq(6), Seq(7))],
    }
}

#[test]
fn format_document_backup_manifest() {
    assert_eq!(VERSION, 1);
    let mut body = Vec::new();
    manifest().encode(&mut body);
    let expected = [
        &[1][..],
        &0x1111_2222_3333_4444_5555_6666_7777_8888_u128.to_le_bytes(),
        &(-2_i64).to_le_bytes(),
        // stream~ lsn~ next_file~
        &[3, 0xac, 2, 9],
        // Values.
        &[1, 1, b'a', 3, b'x', b'y', b'z'],
        // Data files.
        &[1],
        &0x0102_0304_0506_0708_u64.to_le_bytes(),
        &0x1112_1314_1516_1718_u64.to_le_bytes(),
        &0x2122_2324_2526_2728_u64.to_le_bytes(),
        &[8, 0x80, 1, 5, 10, 4, 1],
        // Lost ranges.
        &[1, 6, 1],
    ];
    assert_eq!(body, expected.concat());
}

#[test]
fn format_document_backup_file() {
    let sealer = Sealer::new(None, 0, FileKind::Backup, 7, 0);
    let large = Manifest {
        values: vec![(b"a".to_vec(), vec![5; 2 * PAYLOAD_BYTES_MAX])],
        ..manifest()
    };
    let file = large.seal(&sealer);
    let mut content = Vec::new();
    for page in file[file_header::BYTES..].chunks(PAGE_BYTES) {
        let len = usize::from(u16::from_le_bytes([page[10], page[11]]));
        content.extend_from_slice(&page[page::HEAD_BYTES..page::HEAD_BYTES + len]);
    }
    let mut body = Vec::new();
    large.encode(&mut body);
    let len = (body.len() as u64).to_le_bytes();
    let digest = xxhash_rust::xxh3::xxh3_64(&body).to_le_bytes();
    assert_eq!(content, [&len[..], &digest, &body].concat());
}

#[test]
fn format_document_backup_paths() {
    let rows = table("backup path");
    let paths: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(paths, ["MANIFEST", "data/<n>.seg"]);
}
