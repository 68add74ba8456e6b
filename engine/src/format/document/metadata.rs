//! Keys and values of the metadata log.

use super::table;
use crate::dedup::IdManifest;
use crate::format::cursor::Cursor;
use crate::format::key_ring::KeyId;
use crate::ids::{ConsumerId, IdFileId, Lsn, SegmentId, StreamId, TimestampNs};
use crate::segment::SegmentManifest;
use crate::store::keys::{self, kind};
use crate::store::stored::{Counters, encode_id_manifest, encode_manifest};

/// A key as a row of the table spells it: letters, and numbers whose name ends in their length.
fn spelled_key(spelling: &str) -> Vec<u8> {
    let parts = spelling.split(' ').map(|part| match part.len() {
        1 => part.as_bytes().to_vec(),
        _ => {
            assert!(part.ends_with('8'), "{spelling}");
            let number = match part {
                "stream8" => 1,
                "consumer8" => 2,
                _ => 3_u64,
            };
            number.to_be_bytes().to_vec()
        }
    });
    parts.collect::<Vec<_>>().concat()
}

#[test]
fn format_document_metadata_keys() {
    let (stream, consumer) = (StreamId(1), ConsumerId(2));
    let expected = [
        ("counters", keys::COUNTERS.to_vec()),
        ("scrub", keys::SCRUB.to_vec()),
        ("segment", keys::segment(SegmentId(3))),
        ("id_file", keys::id_file(IdFileId(3))),
        ("config", keys::stream_value(stream, kind::CONFIG)),
        ("positions", keys::stream_value(stream, kind::POSITIONS)),
        ("extents", keys::stream_value(stream, kind::EXTENTS)),
        ("tombstones", keys::numbered(stream, kind::TOMBSTONES, 3)),
        ("ids", keys::numbered(stream, kind::IDS, 3)),
        ("consumer", keys::consumer(stream, consumer)),
        ("claims", keys::stream_value(stream, kind::CLAIMS)),
        (
            "consumer_container",
            keys::consumer_container(stream, consumer, 3),
        ),
        ("merged_runs", keys::stream_value(stream, kind::RUNS)),
        ("erasures", keys::stream_value(stream, kind::ERASURES)),
    ];
    let rows = table("meta_key");
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row[0].as_str(), spelled_key(&row[1])))
        .collect();
    assert_eq!(found, expected);
}

/// The numbers of a value, as its row spells them.
fn spelled_value(key: &str, bytes: &[u8]) -> Vec<u64> {
    let rows = table("meta_key");
    let row = rows.iter().find(|row| row[0] == key).expect("a row");
    let spelling = row[2].split(':').next().expect("a spelling");
    let mut input = Cursor::new(bytes);
    assert_eq!(input.u8(), Ok(1), "version of {key}");
    let numbers = spelling.split(' ').map(|part| {
        let number = match part.chars().last() {
            Some('~') => input.varint(),
            Some('8') => input.u64(),
            _ => panic!("{key}: {part}"),
        };
        number.expect("a number")
    });
    let numbers = numbers.collect();
    assert!(input.rest().is_empty(), "{key} ends where its bytes end");
    numbers
}

#[test]
fn format_document_metadata_values() {
    let counters = Counters {
        next_stream: 300,
        next_consumer: 2,
        next_segment: 3,
        checkpoint: Lsn(40_000),
    };
    let found = spelled_value("counters", &counters.encode());
    assert_eq!(found, [300, 2, 3, 40_000]);
    let key = KeyId::from_number(77);
    let segment = SegmentManifest {
        id: SegmentId(1),
        file_bytes: 5_000,
        bytes: 600,
        footer_digest: u64::MAX,
        key,
    };
    let found = spelled_value("segment", &encode_manifest(&segment));
    assert_eq!(found, [5_000, 600, u64::MAX, 77]);
    let ids = IdManifest {
        id: IdFileId(1),
        file_bytes: 5_000,
        footer_digest: 9,
        key,
        entries: 200,
        oldest: TimestampNs(1),
        youngest: TimestampNs(2),
        expires: TimestampNs(3),
    };
    let found = spelled_value("id_file", &encode_id_manifest(&ids));
    assert_eq!(found, [5_000, 9, 77, 200, 1, 2, 3]);
}
