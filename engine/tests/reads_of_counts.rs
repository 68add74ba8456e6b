//! How often the disk is read to count messages by the index, asked of a store that was just opened.

mod support;

use std::path::Path;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{OpKind, SimClock, SimDisk};
use riverlog_engine::{Append, Filter, Seq, Store, Stream};
use support::{DIR, config, options};

const START_NS: i64 = 1_700_000_000_000_000_000;
const SUBJECTS: u64 = 150;
const MSGS: u64 = 30_000;

fn subject(seq: u64) -> String {
    match seq.is_multiple_of(1000) {
        true => "rare".into(),
        false => format!("s.{}", seq % SUBJECTS),
    }
}

fn open(disk: &SimDisk) -> Store {
    let env = Env::simulated(disk, &SimClock::new(START_NS), 1);
    let (store, _) = Store::open_in(env, Path::new(DIR), options()).expect("the store opens");
    store
}

fn filled() -> SimDisk {
    let disk = SimDisk::new(1);
    let store = open(&disk);
    let (stream, _) = store.create_stream(config(0)).expect("a stream");
    for first in (1..=MSGS).step_by(200) {
        let subjects: Vec<String> = (first..first + 200).map(subject).collect();
        let append = |subject: usize| Append {
            subject: subjects[subject].as_bytes(),
            payload: b"x",
            ..Append::default()
        };
        let batch: Vec<Append<'_>> = (0..subjects.len()).map(append).collect();
        stream.append_batch(&batch).expect("appended");
        if first % 5000 == 4801 {
            store.checkpoint().expect("a checkpoint");
            store.step().expect("merged");
        }
    }
    drop(stream);
    drop(store);
    disk
}

fn count(stream: &Stream, text: &str, from: u64) -> u64 {
    let filter = Filter::new(text.as_bytes()).expect("a filter");
    stream.num_pending(&[filter], Seq(from)).expect("counted")
}

/// Reads of files of the index, and their bytes, behind operation `before`.
fn index_reads(disk: &SimDisk, before: u64) -> (usize, u64) {
    let log = disk.log();
    let reads = log
        .iter()
        .filter(|op| op.number > before && op.kind == OpKind::Read && op.path.ends_with(".idx"));
    (reads.clone().count(), reads.map(|op| op.len).sum())
}

#[test]
fn a_count_over_many_subjects_reads_few_times() {
    let disk = filled();
    let mut pages = 0;
    for text in ["s.>", "s.*", "s.1", "rare", "*.7", ">"] {
        let filter = Filter::new(text.as_bytes()).expect("a filter");
        for from in [1, 2, MSGS / 5, MSGS / 2 + 7, MSGS - 3] {
            let store = open(&disk);
            let stream = store.stream("S").expect("the stream");
            let before = disk.ops();
            let found = count(&stream, text, from);
            let expected = (from..=MSGS).filter(|seq| filter.matches(subject(*seq).as_bytes()));
            assert_eq!(found, expected.count() as u64, "{text} from {from}");
            let (reads, bytes) = index_reads(&disk, before);
            assert!(
                reads <= 40,
                "{text} from {from}: {reads} reads, {bytes} bytes"
            );
            pages = pages.max(bytes / 4096);
        }
    }
    assert!(pages > 0);
}

/// What does not match is counted only where the index has every message.
#[test]
fn a_count_of_nearly_everything_is_exact_where_messages_were_removed() {
    let disk = filled();
    let store = open(&disk);
    let stream = store.stream("S").expect("the stream");
    let mut removed = Vec::new();
    let check = |removed: &[u64], what: &str| {
        for from in [1, 2, 999, 10_000, 20_001, MSGS - 3] {
            let live = |seq: &u64| !removed.contains(seq) && !seq.is_multiple_of(1000);
            let expected = (from..=MSGS).filter(live).count() as u64;
            assert_eq!(count(&stream, "s.>", from), expected, "{what}, from {from}");
        }
    };
    check(&removed, "nothing removed");
    for seq in [1, 2, 3, 1000, 10_001, 20_000, 25_000, 25_001] {
        stream.delete(Seq(seq)).expect("deleted");
        removed.push(seq);
    }
    store.commit();
    check(&removed, "some deleted");
    store.checkpoint().expect("a checkpoint");
    store.checkpoint().expect("a checkpoint");
    store.step().expect("merged");
    check(&removed, "some deleted and merged");
}
