//! Compares the tables of FORMAT.md with the code.

mod backup;
mod encryption;
mod metadata;
mod sealed;

use std::borrow::Cow;

use crate::format::block;
use crate::format::block_table::Entry;
use crate::format::bloom;
use crate::format::cipher::Sealer;
use crate::format::file_header::{self, FileHeader, FileKind};
use crate::format::footer;
use crate::format::frame::{self, FrameHead, FrameKind};
use crate::format::id_page;
use crate::format::key_page;
use crate::format::key_ring::{Key, KeyId, KeyRing};
use crate::format::op::{Op, kind};
use crate::format::page;
use crate::format::record::{Record, flag, record_crc};
use crate::format::timers::TimerSeparator;
use crate::ids::{ConsumerId, Lsn, Seq, StreamId, TimestampNs};
use crate::meta::{MetaBatch, SNAPSHOT, SNAPSHOT_END};
use crate::wal::log_file;

const UUID: u128 = 0x1111_2222_3333_4444_5555_6666_7777_8888;
const DOCUMENT: &str = include_str!("../../FORMAT.md");

/// The rows of the table whose first heading is `name`, without code marks.
fn table(name: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_matches('|');
        inner
            .split('|')
            .map(|cell| cell.trim().replace('`', ""))
            .collect()
    };
    let rows: Vec<_> = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {name} |")))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect();
    assert!(!rows.is_empty(), "FORMAT.md has no table {name}");
    rows
}

/// Every field of the table `name`: the table covers `bytes` without gaps, and each field holds the
/// value that `expected` says, in order.
fn check_layout(name: &str, bytes: &[u8], expected: &[(&str, Vec<u8>)]) {
    let rows = table(name);
    let mut end = 0;
    assert_eq!(rows.len(), expected.len(), "fields of {name}");
    for (row, (field, value)) in rows.iter().zip(expected) {
        let offset: usize = row[1].parse().expect("an offset");
        let len: usize = row[2].parse().expect("a length");
        assert_eq!((row[0].as_str(), offset), (*field, end), "{name}");
        assert_eq!(&bytes[offset..offset + len], &value[..], "{name}.{field}");
        end = offset + len;
    }
    assert_eq!(end, bytes.len(), "{name} ends where its bytes end");
}

/// The names and numbers of the first two columns.
fn check_numbers(name: &str, expected: &[(&str, u64)]) {
    let rows = table(name);
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row[0].as_str(), row[1].parse().expect("a number")))
        .collect();
    assert_eq!(found, expected, "{name}");
}

#[test]
fn format_document_constants() {
    let expected = [
        (
            "file_header.magic",
            String::from_utf8_lossy(&file_header::MAGIC).into_owned(),
        ),
        ("file_header.version", file_header::VERSION.to_string()),
        (
            "frame.magic",
            String::from_utf8_lossy(&frame::MAGIC).into_owned(),
        ),
        ("frame.version", frame::VERSION.to_string()),
        (
            "log.header_copy_offset",
            log_file::HEADER_COPY_OFFSET.to_string(),
        ),
        ("log.frames_offset", log_file::FRAMES_OFFSET.to_string()),
        ("log.end_bytes", log_file::END_BYTES.to_string()),
        (
            "block.magic",
            String::from_utf8_lossy(&block::MAGIC).into_owned(),
        ),
        (
            "block.raw_bytes_target",
            block::RAW_BYTES_TARGET.to_string(),
        ),
        ("block.raw_bytes_max", block::RAW_BYTES_MAX.to_string()),
        (
            "block.restart_interval",
            block::RESTART_INTERVAL.to_string(),
        ),
        (
            "footer.magic",
            String::from_utf8_lossy(&footer::MAGIC).into_owned(),
        ),
        ("footer.version", footer::VERSION.to_string()),
        ("page.bytes", page::PAGE_BYTES.to_string()),
        (
            "page.payload_bytes_max",
            page::PAYLOAD_BYTES_MAX.to_string(),
        ),
        (
            "timers.separators_per_page",
            TimerSeparator::PER_PAGE.to_string(),
        ),
        (
            "key_page.subject_bytes_max",
            key_page::PAGED_SUBJECT_BYTES_MAX.to_string(),
        ),
        (
            "key_page.inline_postings_bytes_max",
            key_page::INLINE_POSTINGS_BYTES_MAX.to_string(),
        ),
        ("bloom.line_bytes", bloom::LINE_BYTES.to_string()),
        ("bloom.page_lines", bloom::PAGE_LINES.to_string()),
        ("id_page.entries", id_page::PAGE_ENTRIES.to_string()),
    ];
    let rows = table("constant");
    for (row, (name, value)) in rows.iter().zip(&expected) {
        assert_eq!((row[0].as_str(), &row[1]), (*name, value));
    }
    assert_eq!(rows.len(), expected.len());
    assert_eq!((SNAPSHOT, SNAPSHOT_END), (1, 2), "flags of metadata frames");
}

#[test]
fn format_document_file_header() {
    let header = FileHeader {
        kind: FileKind::Segment,
        store_uuid: 0x1111_2222_3333_4444_5555_6666_7777_8888,
        file_no: 0x0102_0304_0506_0708,
        epoch: 0x1112_1314_1516_1718,
        base: 0x2122_2324_2526_2728,
        key: KeyId::from_number(0x3132_3334_3536_3738),
    };
    let bytes = header.encode();
    let crc = crc32fast::hash(&bytes[..60]);
    check_layout(
        "file_header",
        &bytes,
        &[
            ("magic", file_header::MAGIC.to_vec()),
            ("version", file_header::VERSION.to_le_bytes().to_vec()),
            ("kind", vec![FileKind::Segment as u8]),
            ("reserved", vec![0]),
            ("store_uuid", header.store_uuid.to_le_bytes().to_vec()),
            ("file_no", header.file_no.to_le_bytes().to_vec()),
            ("epoch", header.epoch.to_le_bytes().to_vec()),
            ("base", header.base.to_le_bytes().to_vec()),
            ("key", 0x3132_3334_3536_3738_u64.to_le_bytes().to_vec()),
            ("crc", crc.to_le_bytes().to_vec()),
        ],
    );
    use FileKind::*;
    let kinds = [
        ("wal", Wal),
        ("meta", Meta),
        ("segment", Segment),
        ("index", Index),
        ("store", Store),
        ("ids", Ids),
        ("backup", Backup),
    ];
    check_numbers("file_kind", &kinds.map(|(name, kind)| (name, kind as u64)));
}

#[test]
fn format_document_frame() {
    let epoch = 0x7172_7374_7576_7778_u64;
    let head = FrameHead {
        kind: FrameKind::Meta,
        flags: 0x0102,
        payload_len: 0x1112_1314,
        op_count: 0x2122_2324,
        lsn: Lsn(0x3132_3334_3536_3738),
        durable_lsn: Lsn(0x3032_3334_3536_3738),
        prev_digest: 0x4142_4344_4546_4748,
        payload_digest: 0x5152_5354_5556_5758,
    };
    let bytes = head.encode(epoch);
    let mut checked = bytes[..48].to_vec();
    checked.extend_from_slice(&epoch.to_le_bytes());
    let digest = xxhash_rust::xxh3::xxh3_64_with_seed(&bytes[..48], epoch);
    assert_eq!(head.digest(epoch), digest, "prev_digest of the next frame");
    check_layout(
        "frame",
        &bytes,
        &[
            ("magic", frame::MAGIC.to_vec()),
            ("version", vec![frame::VERSION]),
            ("kind", vec![FrameKind::Meta as u8]),
            ("flags", head.flags.to_le_bytes().to_vec()),
            ("payload_len", head.payload_len.to_le_bytes().to_vec()),
            ("op_count", head.op_count.to_le_bytes().to_vec()),
            ("lsn", head.lsn.0.to_le_bytes().to_vec()),
            ("durable_lsn", head.durable_lsn.0.to_le_bytes().to_vec()),
            ("prev_digest", head.prev_digest.to_le_bytes().to_vec()),
            ("payload_digest", head.payload_digest.to_le_bytes().to_vec()),
            ("head_crc", crc32fast::hash(&checked).to_le_bytes().to_vec()),
        ],
    );
    let kinds = [
        ("data", FrameKind::Data),
        ("mark", FrameKind::Mark),
        ("meta", FrameKind::Meta),
    ];
    check_numbers("frame_kind", &kinds.map(|(name, kind)| (name, kind as u64)));
}

#[test]
fn format_document_encrypted_frame() {
    let (epoch, lsn) = (7, 0x3132_3334_3536_3738_u64);
    let keys = KeyRing::new(Key::new(&[5; 32]));
    let salt = 0xa1a2_a3a4_a5a6_a7a8_u64;
    let sealer = Sealer::new(Some(&keys), salt, FileKind::Meta, UUID, 9);
    let head = log_file::frame_head(FrameKind::Meta, Lsn(lsn), 1, Lsn(3), 4);
    let mut bytes = vec![0; frame::HEAD_BYTES];
    bytes.extend_from_slice(b"payload");
    let head = frame::seal(&mut bytes, epoch, &sealer, head);
    let mut body = b"payload".to_vec();
    let key = encryption::file_key(keys.current(), FileKind::Meta, 9, salt);
    let nonce = [&[3, 0, 0, 0][..], &lsn.to_le_bytes()].concat();
    let tag = encryption::encrypt(&key, &nonce, &bytes[..40], &mut body);
    let expected = [&body[..], &tag, &salt.to_le_bytes()].concat();
    assert_eq!(bytes[frame::HEAD_BYTES..], expected);
    assert_eq!(head.payload_len, 31);
    let digest = xxhash_rust::xxh3::xxh3_64_with_seed(&expected, epoch);
    assert_eq!(head.payload_digest, digest);
    assert_eq!(bytes[..frame::HEAD_BYTES], head.encode(epoch));
}

#[test]
fn format_document_store_file() {
    let key = Key::new(&[5; 32]);
    let plain = crate::store::encode_identity(UUID, None);
    let header = FileHeader::decode(&plain).expect("a header");
    assert_eq!((header.kind, header.key), (FileKind::Store, None));
    assert_eq!((header.store_uuid, plain.len()), (UUID, 64));
    let bytes = crate::store::encode_identity(UUID, Some(&key));
    let header = FileHeader::decode(&bytes).expect("a header");
    assert_eq!(header.key, Some(key.id()));
    let rows = table("store_check");
    let field = |row: usize, len: usize| {
        let offset: usize = rows[row][1].parse().expect("an offset");
        assert_eq!(rows[row][2], len.to_string());
        &bytes[offset..offset + len]
    };
    assert_eq!(field(0, 16), key.check_value(UUID));
    assert_eq!(field(1, 4), crc32fast::hash(&bytes[..80]).to_le_bytes());
    assert_eq!(bytes.len(), 84);
}

#[test]
fn format_document_record() {
    let (stream, seq, ts) = (StreamId(0x0102_0304), Seq(5), TimestampNs(-7));
    let (subject, headers, payload, msg_id) = (b"a.b", b"h:1\r\n", b"payload", b"id");
    let mut covered = Vec::new();
    covered.extend_from_slice(&stream.0.to_le_bytes());
    covered.extend_from_slice(&seq.0.to_le_bytes());
    covered.extend_from_slice(&ts.0.to_le_bytes());
    covered.push(8);
    for len in [subject.len(), headers.len(), payload.len(), msg_id.len()] {
        covered.extend_from_slice(&(len as u32).to_le_bytes());
    }
    let le = |len: usize| (len as u32).to_le_bytes().to_vec();
    check_layout(
        "record_identity",
        &covered,
        &[
            ("stream", stream.0.to_le_bytes().to_vec()),
            ("seq", seq.0.to_le_bytes().to_vec()),
            ("ts", ts.0.to_le_bytes().to_vec()),
            ("flags", vec![8]),
            ("subject_len", le(subject.len())),
            ("headers_len", le(headers.len())),
            ("payload_len", le(payload.len())),
            ("msg_id_len", le(msg_id.len())),
        ],
    );
    for part in [&subject[..], headers, payload, msg_id] {
        covered.extend_from_slice(part);
    }
    let crc = record_crc(stream, seq, ts, 8, subject, headers, payload, msg_id);
    assert_eq!(crc, crc32fast::hash(&covered));
    let record = Record {
        seq,
        ts,
        subject,
        headers,
        payload,
        msg_id,
        flags: 8,
        crc,
        ..Record::default()
    };
    let mut written = Vec::new();
    record.encode(&mut written);
    let mut expected = vec![8];
    expected.extend_from_slice(&ts.0.to_le_bytes());
    expected.extend_from_slice(&crc.to_le_bytes());
    expected.extend_from_slice(&[5, 3, 5, 7, 2]);
    expected.extend_from_slice(b"a.bh:1\r\npayloadid");
    assert_eq!(written, expected);

    let timed = Record {
        flags: flag::TTL | flag::NOTIFY,
        ttl_ns: 300,
        notify_at: TimestampNs(-1),
        ..record
    };
    let mut covered_timed = covered[..41].to_vec();
    covered_timed[24] = timed.flags;
    covered_timed.extend_from_slice(&300_u64.to_le_bytes());
    covered_timed.extend_from_slice(&(-1_i64).to_le_bytes());
    covered_timed.extend_from_slice(&covered[41..]);
    assert_eq!(timed.computed_crc(stream), crc32fast::hash(&covered_timed));
    written.clear();
    timed.encode(&mut written);
    expected[0] = timed.flags;
    expected.splice(14..14, [0xac, 2, 1]);
    assert_eq!(written, expected);
    let flags = [
        ("ttl", flag::TTL),
        ("never", flag::NEVER),
        ("notify", flag::NOTIFY),
        ("marker", flag::MARKER),
        ("no_marker", flag::NO_MARKER),
    ];
    let flags = flags.map(|(name, bit)| (name, u64::from(bit)));
    check_numbers("record_flag", &flags);
}

/// An op's bytes as FORMAT.md describes its body, next to what the code writes.
#[test]
fn format_document_ops() {
    let (stream, consumer, created) = (StreamId(1), ConsumerId(2), TimestampNs(3));
    let range = |first, count| crate::format::op::SeqRange {
        first: Seq(first),
        count,
    };
    let time = created.0.to_le_bytes();
    let with_time = |before: &[u8], after: &[u8]| [before, &time, after].concat();
    let ops = [
        (
            "remove",
            kind::REMOVE,
            Op::Remove {
                stream,
                ranges: Cow::Owned(vec![range(10, 2), range(15, 1)]),
                msgs: 4,
                bytes: 5,
            },
            vec![4, 5, 2, 20, 2, 6, 1],
        ),
        (
            "trim",
            kind::TRIM,
            Op::Trim {
                stream,
                first_seq: Seq(6),
                msgs: 7,
                bytes: 8,
            },
            vec![6, 7, 8],
        ),
        (
            "skip",
            kind::SKIP,
            Op::Skip {
                stream,
                last_seq: Seq(9),
            },
            vec![9],
        ),
        (
            "stream_put",
            kind::STREAM_PUT,
            Op::StreamPut {
                stream,
                created,
                changed: TimestampNs(7),
                config: b"cfg",
            },
            with_time(&[], b"\x07\0\0\0\0\0\0\0\x03cfg"),
        ),
        (
            "stream_delete",
            kind::STREAM_DELETE,
            Op::StreamDelete { stream },
            vec![],
        ),
        (
            "consumer_put",
            kind::CONSUMER_PUT,
            Op::ConsumerPut {
                stream,
                consumer,
                created,
                config: b"cfg",
            },
            with_time(&[2], b"\x03cfg"),
        ),
        (
            "consumer_delete",
            kind::CONSUMER_DELETE,
            Op::ConsumerDelete { stream, consumer },
            vec![2],
        ),
        (
            "consumer_delta",
            kind::CONSUMER_DELTA,
            Op::ConsumerDelta {
                stream,
                consumer,
                events: b"ev",
            },
            b"\x02\x02ev".to_vec(),
        ),
        (
            "erase",
            kind::ERASE,
            Op::Erase {
                stream,
                seq: Seq(3),
                bytes: 4,
                deadline: TimestampNs(5),
            },
            vec![3, 4, 5, 0, 0, 0, 0, 0, 0, 0],
        ),
    ];
    let mut documented = vec![("append", u64::from(kind::APPEND))];
    for (name, kind, op, body) in &ops {
        documented.push((name, u64::from(*kind)));
        let mut written = Vec::new();
        op.encode(&mut written);
        let mut expected = vec![*kind, 1];
        expected.extend_from_slice(body);
        let crc = crc32fast::hash(&expected);
        expected.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(written, expected, "{name}");
    }
    check_numbers("op", &documented);
}

#[test]
fn format_document_metadata() {
    let mut batch = MetaBatch::new();
    batch.put(b"key", b"value");
    batch.delete(b"k");
    assert_eq!(batch.bytes(), 14);
    check_numbers("meta_entry", &[("put", 1), ("delete", 2)]);
    assert_eq!(batch.encoded(), b"\x01\x03key\x05value\x02\x01k");
}
