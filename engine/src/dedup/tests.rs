//! Files of ids on a simulated disk, and everything together against a map.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::file::IdManifest;
use super::files::IdFiles;
use super::merge::{IdMerge, IdSource, IdsOf};
use super::writer::IdFileWriter;
use super::{IdFile, IdFloor, IdHash, IdKey, IdWindow, RecentIds};
use crate::cache::Cache;
use crate::error::ReadError;
use crate::format::id_page::{IdEntry, PAGE_ENTRIES};
use crate::format::page::PAGE_BYTES;
use crate::ids::{IdFileId, Seq, StreamId, TimestampNs};
use crate::io::Env;
use crate::io::sim::{OpKind, SimClock, SimDisk};

const UUID: u128 = 7;
const STREAM: StreamId = StreamId(3);
const PATH: &str = "/ids/0000000000000001.ids";

fn env(disk: &SimDisk) -> Env {
    let env = Env::simulated(disk, &SimClock::new(0), 3);
    env.io.create_dir_all(Path::new("/ids")).expect("directory");
    env
}

fn hash(n: u64) -> IdHash {
    IdKey::new(1, STREAM, 2).hash(&n.to_le_bytes())
}

fn entry(n: u64) -> IdEntry {
    IdEntry {
        hash: hash(n).0,
        stream: STREAM,
        seq: Seq(n + 1),
        ts: TimestampNs(1_000 + n as i64),
    }
}

fn write(env: &Env, path: &str, id: u64, mut entries: Vec<IdEntry>) -> IdManifest {
    entries.sort_unstable_by_key(|entry| entry.hash);
    let (id, ids) = (IdFileId(id), entries.len() as u64);
    let mut writer = IdFileWriter::new(env, Path::new(path), UUID, id, ids).expect("created");
    for entry in &entries {
        writer.push(entry).expect("written");
    }
    let (manifest, _) = writer.finish(TimestampNs(1 << 40)).expect("finished");
    assert!(manifest.holds_its_entries());
    manifest
}

/// Opens without filter or cached pages, as after a restart.
fn open(env: &Env, path: &str, manifest: IdManifest) -> Arc<IdFile> {
    let cache = Arc::new(Cache::new(1 << 20, 8));
    Arc::new(IdFile::new(
        env,
        Path::new(path),
        UUID,
        manifest,
        cache,
        None,
    ))
}

fn all(file: &Arc<IdFile>) -> Result<Vec<IdEntry>, ReadError> {
    let mut cursor = file.cursor()?;
    std::iter::from_fn(|| cursor.next().transpose()).collect()
}

#[test]
fn ids_are_found_at_every_size() {
    let page = PAGE_ENTRIES as u64;
    for count in [1, 2, page - 1, page, page + 1, 7 * page + 3, 30_000] {
        let disk = SimDisk::new(1);
        let env = env(&disk);
        let entries: Vec<_> = (0..count).map(entry).collect();
        let manifest = write(&env, PATH, 1, entries.clone());
        let times = (manifest.oldest, manifest.youngest);
        assert_eq!(times, (entry(0).ts, entry(count - 1).ts));
        let file = open(&env, PATH, manifest);
        assert_eq!(
            file.maybe_contains(hash(0).0),
            None,
            "nothing is loaded yet"
        );
        for n in 0..count {
            assert_eq!(
                file.find(hash(n).0).expect("read"),
                Some(entry(n)),
                "{n} of {count}"
            );
        }
        let passed = (count..count + 10_000)
            .inspect(|n| assert_eq!(file.find(hash(*n).0).expect("read"), None))
            .filter(|n| file.maybe_contains(hash(*n).0) != Some(false))
            .count();
        assert!(passed < 200, "the filter let {passed} of 10,000 through");
        let mut sorted = entries;
        sorted.sort_unstable_by_key(|entry| entry.hash);
        assert_eq!(all(&file).expect("read"), sorted);
        let report = file.verify(&mut |_| {}).expect("verified");
        assert_eq!(
            (report.ids, report.lost.len(), report.harmless.len()),
            (count, 0, 0)
        );
        assert_eq!(report.bytes, manifest.file_bytes);
    }
}

/// What the doc comment of the reader promises: the hash says where to look.
#[test]
fn a_lookup_reads_few_pages() {
    let disk = SimDisk::new(1);
    let env = env(&disk);
    let count = 200_000;
    let manifest = write(&env, PATH, 1, (0..count).map(entry).collect());
    let file = open(&env, PATH, manifest);
    file.find(hash(0).0).expect("the filter");
    let reads = || {
        disk.log()
            .iter()
            .filter(|op| matches!(op.kind, OpKind::Read))
            .count()
    };
    let (before, lookups) = (reads(), 500);
    for n in 0..lookups {
        let file = open(&env, PATH, manifest);
        let found = file.search(hash(n * 391).0).expect("read");
        assert_eq!(found, Some(entry(n * 391)));
    }
    let pages = reads() - before;
    assert!(
        pages < 3 * lookups as usize,
        "{pages} pages for {lookups} lookups"
    );
}

/// Each id is found, or refused with an error that names the file; a new one is never a duplicate.
fn check_damaged(file: &Arc<IdFile>, count: u64) -> u64 {
    let mut refused = 0;
    for n in 0..count + 20 {
        match file.find(hash(n).0) {
            Ok(found) => assert_eq!(found, (n < count).then(|| entry(n)), "{n}"),
            Err(ReadError::DamagedIds(damage)) => {
                assert!(damage.file == Path::new(PATH) && damage.offset >= 64);
                refused += u64::from(n < count);
            }
            Err(error) => panic!("{error}"),
        }
    }
    refused
}

#[test]
fn every_flipped_bit_costs_one_page_at_most() {
    let count = PAGE_ENTRIES as u64 + 5;
    let disk = SimDisk::new(1);
    let env = env(&disk);
    let manifest = write(&env, PATH, 1, (0..count).map(entry).collect());
    let pages_end = 64 + 2 * PAGE_BYTES as u64;
    // Every byte of the pages' heads, and some of the rest.
    let in_head = |at: u64| at >= 64 && (at - 64) % (PAGE_BYTES as u64) < 16;
    let offsets = (0..manifest.file_bytes).filter(|at| in_head(*at) || at % 61 == 0);
    for (at, bit) in offsets.map(|at| (at, (at % 8) as u8)) {
        disk.corrupt(Path::new(PATH), at, 1 << bit).expect("there");
        let file = open(&env, PATH, manifest);
        let refused = check_damaged(&file, count);
        let in_pages = (64..pages_end).contains(&at);
        let most = if in_pages { PAGE_ENTRIES as u64 } else { 0 };
        assert!(refused <= most, "{refused} ids lost to a bit at {at}");
        assert!(!in_pages || refused > 0, "a bit at {at} went unnoticed");
        let report = file.verify(&mut |_| {}).expect("verified");
        assert_eq!(report.lost.len(), usize::from(in_pages), "at {at}");
        assert_eq!(report.harmless.len(), usize::from(!in_pages), "at {at}");
        disk.corrupt(Path::new(PATH), at, 1 << bit).expect("there");
    }
}

#[test]
fn a_shorter_file_never_makes_a_duplicate_new() {
    let count = 2 * PAGE_ENTRIES as u64 + 5;
    let disk = SimDisk::new(1);
    let env = env(&disk);
    let manifest = write(&env, PATH, 1, (0..count).map(entry).collect());
    for len in (0..manifest.file_bytes).rev().step_by(61) {
        disk.truncate(Path::new(PATH), len).expect("there");
        let refused = check_damaged(&open(&env, PATH, manifest), count);
        if len > 64 + 3 * PAGE_BYTES as u64 {
            assert_eq!(refused, 0, "only filter and footer are cut at {len}");
        }
        if len <= 64 {
            assert_eq!(refused, count);
        }
    }
    env.io.remove(Path::new(PATH)).expect("removed");
    let gone = open(&env, PATH, manifest).find(hash(1).0);
    assert!(matches!(gone, Err(ReadError::Io { .. })), "{gone:?}");
}

#[test]
fn a_merge_keeps_the_newest_use_and_reports_what_it_cannot_read() {
    let disk = SimDisk::new(1);
    let env = env(&disk);
    let again = |n: u64, seq: u64| IdEntry {
        seq: Seq(seq),
        ..entry(n)
    };
    let (a, b) = ("/ids/0000000000000001.ids", "/ids/0000000000000002.ids");
    let first = write(&env, a, 1, (0..500).map(entry).collect());
    let second = write(
        &env,
        b,
        2,
        (400..900).map(|n| again(n, n + 5_000)).collect(),
    );
    let newest: BTreeMap<u128, u64> = (0..900)
        .map(|n| (hash(n).0, if n < 400 { n + 1 } else { n + 5_000 }))
        .collect();
    for order in [[0, 1], [1, 0]] {
        let files = [open(&env, a, first), open(&env, b, second)];
        let sources = order.map(|at: usize| IdSource::File(files[at].cursor().expect("opened")));
        let mut merge = IdMerge::new(sources);
        let merged: Vec<_> = std::iter::from_fn(|| merge.next().expect("read")).collect();
        let seqs = merged.iter().map(|entry| (entry.hash, entry.seq.0));
        assert!(seqs.eq(newest.iter().map(|(hash, seq)| (*hash, *seq))));
    }
    disk.corrupt(Path::new(b), 64 + 100, 1).expect("there");
    let files = [open(&env, a, first), open(&env, b, second)];
    let sources = files
        .each_ref()
        .map(|file| IdSource::File(file.cursor().expect("opened")));
    let window = IdWindow {
        length_ns: u64::MAX,
        floor: IdFloor::default(),
    };
    let ids: Vec<_> = IdsOf::new(IdMerge::new(sources), STREAM, window, TimestampNs(0)).collect();
    assert_eq!(ids.iter().filter(|id| id.is_err()).count(), 1);
    assert!(ids.iter().filter(|id| id.is_ok()).count() >= 900 - PAGE_ENTRIES);
    assert!(!files[0].is_damaged() && files[1].is_damaged());
}

/// Everything that remembers ids, as streams and checkpoints use it.
struct Ids {
    env: Env,
    files: IdFiles,
    recent: RecentIds,
    window: IdWindow,
    next_file: u64,
}

impl Ids {
    fn get(&self, hash: IdHash, now: TimestampNs) -> Option<Seq> {
        let newest = match self.recent.get(hash) {
            Some(recent) => Some((recent.seq, recent.ts)),
            None => {
                let probed = self.files.probe(hash);
                let looked_up = self.files.lookup(STREAM, hash).expect("read");
                let answer = looked_up.expect("nobody changes the files");
                if let Some(probed) = probed {
                    assert_eq!(probed, answer, "what the filters exclude is not there");
                }
                answer.found
            }
        };
        newest
            .filter(|(seq, ts)| self.window.holds(*seq, *ts, now))
            .map(|(seq, _)| seq)
    }

    fn file(&mut self, entries: Vec<IdEntry>) -> Option<Arc<IdFile>> {
        if entries.is_empty() {
            return None;
        }
        self.next_file += 1;
        let path = format!("/ids/{:016x}.ids", self.next_file);
        let manifest = write(&self.env, &path, self.next_file, entries);
        Some(open(&self.env, &path, manifest))
    }

    fn checkpoint(&mut self) {
        self.recent.freeze();
        let file = self.file(self.recent.sorted(STREAM));
        self.files.replace(file, &[]);
        self.recent.drop_frozen();
    }

    fn merge(&mut self, now: TimestampNs) {
        let files = self.files.list();
        let sources = files.iter().map(|file| file.cursor().map(IdSource::File));
        let merge = IdMerge::new(sources.collect::<Result<Vec<_>, _>>().expect("opened"));
        let kept = IdsOf::new(merge, STREAM, self.window, now).collect::<Result<Vec<_>, _>>();
        let merged = self.file(kept.expect("read"));
        let inputs: Vec<_> = files.iter().map(|file| file.id()).collect();
        self.files.replace(merged, &inputs);
    }

    /// As a restart does: the set of files, and nothing of them loaded.
    fn reopen(&mut self) {
        let files = self.files.list();
        let again = files.iter().map(|file| {
            let path = format!("/ids/{:016x}.ids", file.id().0);
            open(&self.env, &path, file.manifest())
        });
        let fresh = IdFiles::default();
        fresh.replace(again.collect::<Vec<_>>(), &[]);
        self.files = fresh;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Use(u8),
    Pass(u16),
    Window(u16),
    Expire,
    FreezeAndThaw,
    Checkpoint,
    Merge,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => any::<u8>().prop_map(Step::Use),
        3 => (0..300_u16).prop_map(Step::Pass),
        1 => (0..2_000_u16).prop_map(Step::Window),
        1 => Just(Step::Expire),
        1 => Just(Step::FreezeAndThaw),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Merge),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn ids_are_known_as_a_map_would_know_them(
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let disk = SimDisk::new(1);
        let mut ids = Ids {
            env: env(&disk),
            files: IdFiles::default(),
            recent: RecentIds::default(),
            window: IdWindow { length_ns: 1_000, floor: IdFloor::default() },
            next_file: 0,
        };
        let mut model: BTreeMap<u8, (Seq, i64)> = BTreeMap::new();
        let (mut now, mut last_seq) = (0_i64, 0);
        for step in steps {
            match step {
                Step::Use(n) => {
                    let known = model.get(&n).map(|(seq, _)| *seq);
                    let found = ids.get(hash(u64::from(n)), TimestampNs(now));
                    prop_assert_eq!(found, known, "id {} at {}", n, now);
                    if known.is_none() && ids.window.length_ns > 0 {
                        last_seq += 1;
                        ids.recent.insert(hash(u64::from(n)), Seq(last_seq), TimestampNs(now));
                        model.insert(n, (Seq(last_seq), now));
                    }
                }
                Step::Pass(ns) => now += i64::from(ns),
                Step::Window(ns) => {
                    (ids.window, _) = ids.window.change(u64::from(ns), Seq(last_seq), TimestampNs(now));
                }
                Step::Expire => ids.recent.expire(TimestampNs(now), ids.window),
                Step::FreezeAndThaw => {
                    ids.recent.freeze();
                    ids.recent.thaw();
                }
                Step::Checkpoint => ids.checkpoint(),
                Step::Merge => ids.merge(TimestampNs(now)),
                Step::Restart => {
                    ids.checkpoint();
                    ids.reopen();
                }
            }
            let length = ids.window.length_ns as i64;
            model.retain(|_, (_, ts)| now - *ts < length);
        }
        for n in 0..=u8::MAX {
            let known = model.get(&n).map(|(seq, _)| *seq);
            prop_assert_eq!(ids.get(hash(u64::from(n)), TimestampNs(now)), known, "id {}", n);
        }
    }
}

/// An answer from before a change of the files says nothing about after it.
#[test]
fn answers_carry_the_moment_they_hold_for() {
    let disk = SimDisk::new(1);
    let env = env(&disk);
    let files = IdFiles::default();
    let before = files.probe(hash(1)).expect("no files");
    assert_eq!((before.epoch, before.found), (files.epoch(), None));
    let manifest = write(&env, PATH, 1, vec![entry(1)]);
    files.replace([open(&env, PATH, manifest)], &[]);
    assert_ne!(files.epoch(), before.epoch);
    assert_eq!(files.probe(hash(1)), None, "its filter is not loaded");
    let found = files
        .lookup(STREAM, hash(1))
        .expect("read")
        .expect("the same files");
    assert_eq!(
        (found.epoch, found.found),
        (files.epoch(), Some((entry(1).seq, entry(1).ts)))
    );
    assert_eq!(
        files
            .lookup(StreamId(9), hash(1))
            .expect("read")
            .and_then(|a| a.found),
        None
    );
    assert_eq!(files.probe(hash(1)), None, "it may be there");
    assert!(files.probe(hash(2)).is_some());
}

#[test]
fn a_file_lives_longer_when_a_window_grows() {
    let disk = SimDisk::new(1);
    let env = env(&disk);
    let files = IdFiles::default();
    let manifest = write(&env, PATH, 1, vec![entry(1)]);
    files.replace([open(&env, PATH, manifest)], &[]);
    files.window_grew(0);
    let file = files.list().remove(0);
    assert!(!file.take_unsaved());
    files.window_grew(500);
    assert_eq!(file.expires().0, manifest.expires.0 + 500);
    assert!(file.take_unsaved() && !file.take_unsaved());
    assert_eq!(file.manifest().expires, file.expires());
    files.window_grew(u64::MAX);
    assert_eq!(file.expires().0, i64::MAX);
}

#[test]
fn hashes_out_of_order_are_refused() {
    let disk = SimDisk::new(1);
    let env = env(&disk);
    let mut writer =
        IdFileWriter::new(&env, Path::new(PATH), UUID, IdFileId(1), 2).expect("created");
    let hashes: BTreeSet<u128> = [hash(1).0, hash(2).0].into();
    let (low, high) = (hashes.first().expect("two"), hashes.last().expect("two"));
    let with = |hash: &u128| IdEntry {
        hash: *hash,
        ..entry(1)
    };
    writer.push(&with(high)).expect("the first");
    assert!(writer.push(&with(high)).is_err());
    assert!(writer.push(&with(low)).is_err());
}

/// Removed entries and used-again ids must not confuse the table of recent ids.
#[test]
fn recent_ids_leave_in_order() {
    let window = IdWindow {
        length_ns: 100,
        floor: IdFloor::default(),
    };
    let mut recent = RecentIds::default();
    for round in 0..5_i64 {
        for n in 0..1_000_u64 {
            let seq = Seq(round as u64 * 1_000 + n + 1);
            recent.insert(hash(n), seq, TimestampNs(round * 60));
        }
        recent.expire(TimestampNs(round * 60), window);
        for n in [0, 1, 500, 999] {
            let seq = recent.get(hash(n)).map(|id| id.seq.0);
            assert_eq!(seq, Some(round as u64 * 1_000 + n + 1), "round {round}");
        }
    }
    assert_eq!(recent.ram_bytes(), 2_000 * 48);
    assert_eq!(recent.sorted(STREAM).len(), 1_000, "one use of each");
    recent.expire(TimestampNs(10_000), window);
    assert_eq!((recent.ram_bytes(), recent.get(hash(5))), (0, None));
}
