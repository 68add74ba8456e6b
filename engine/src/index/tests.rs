//! A run answers like a plain map, and damage in it never changes an answer.

mod merging;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cache::Cache;
use crate::format::key_page::encode_key;
use crate::ids::{Seq, StreamId, TimestampNs};
use crate::io::Env;
use crate::message::BodyLayout;
use crate::segment::tests::memory::MemoryIo;
use crate::segment::tests::{ID, Sample, Sealed, UUID};
use crate::segment::{Codec, ScanItem, SegmentManifest, SubjectItem};
use crate::subject::Filter;
use std::ops::ControlFlow;

/// The model: what a run holds.
type Model = BTreeMap<(StreamId, Vec<u8>), Vec<(Seq, u32)>>;

const SOURCE: SegmentManifest = SegmentManifest {
    id: ID,
    file_bytes: 1,
    bytes: 1,
    footer_digest: 99,
    key: None,
};

struct Written {
    io: Arc<MemoryIo>,
    env: Env,
    path: PathBuf,
    model: Model,
}

impl Written {
    fn new(model: Model) -> Written {
        Written::in_env(model, MemoryIo::env())
    }

    fn encrypted(model: Model) -> Written {
        let (io, mut env) = MemoryIo::env();
        env.keys = Some(crate::segment::tests::keys());
        Written::in_env(model, (io, env))
    }

    fn in_env(model: Model, (io, env): (Arc<MemoryIo>, Env)) -> Written {
        let path = PathBuf::from("/7.idx");
        let keys = model.len() as u64;
        let mut writer = RunWriter::new(&env, &path, UUID, of_segment(), keys).unwrap();
        let mut entries: Vec<_> = model.iter().collect();
        entries.sort_by(|((s1, a), _), ((s2, b), _)| s1.cmp(s2).then(compare_subjects(a, b)));
        for ((stream, subject), postings) in entries {
            writer.push(*stream, subject, postings).unwrap();
        }
        let sealed = writer.finish(0).unwrap();
        assert_eq!(sealed.keys, model.len() as u64);
        assert_eq!(sealed.file_bytes, io.content(&path).len() as u64);
        Written {
            io,
            env,
            path,
            model,
        }
    }

    fn open(&self) -> Result<Run, RunError> {
        let cache = Arc::new(Cache::new(1 << 20, 8));
        Run::open(&self.env, &self.path, UUID, &IDENTITY, cache)
    }
}

const IDENTITY: RunIdentity = RunIdentity::OfSegment(SOURCE);

fn of_segment() -> RunSource {
    RunSource::Segment(SOURCE)
}

fn lookup(run: &Run, stream: StreamId, subject: &[u8]) -> Result<Option<SubjectEntry>, RunError> {
    run.lookup(&SubjectKey::new(stream, subject))
}

fn list(run: &Run, entry: &SubjectEntry, from: Seq) -> Result<Vec<(Seq, u32)>, RunError> {
    let mut found = Vec::new();
    run.postings(entry, from, &mut |seq, size| {
        found.push((seq, size));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn list_rev(run: &Run, entry: &SubjectEntry, to: Seq) -> Result<Vec<(Seq, u32)>, RunError> {
    let mut found = Vec::new();
    run.postings_rev(entry, to, &mut |seq, size| {
        found.push((seq, size));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Compares all answers about one subject.
fn check_entry(run: &Run, entry: &SubjectEntry, expect: &[(Seq, u32)]) -> Result<(), RunError> {
    assert_eq!(entry.count, expect.len() as u64);
    assert_eq!(
        (entry.first, entry.last),
        (expect[0].0, expect[expect.len() - 1].0)
    );
    assert_eq!(
        entry.bytes,
        expect.iter().map(|(_, s)| u64::from(*s)).sum::<u64>()
    );
    assert_eq!(list(run, entry, Seq(0))?, expect);
    let middle = expect[expect.len() / 2].0;
    let (before, after): (Vec<_>, Vec<_>) = expect.iter().partition(|(seq, _)| *seq < middle);
    assert_eq!(list(run, entry, middle)?, after);
    let mut before = before;
    before.reverse();
    assert_eq!(list_rev(run, entry, Seq(middle.0 - 1))?, before);
    assert_eq!(list(run, entry, entry.last.next())?, vec![]);
    for (n, (seq, _)) in expect.iter().enumerate().step_by(1 + expect.len() / 7) {
        assert_eq!(run.count_from(entry, *seq)?, (expect.len() - n) as u64);
        assert_eq!(
            run.count_from(entry, seq.next())?,
            (expect.len() - n - 1) as u64
        );
    }
    assert_eq!(run.count_from(entry, Seq(u64::MAX))?, 0);
    Ok(())
}

/// Compares every answer with the model.
fn check_all(run: &Run, model: &Model, filters: &[&str]) -> Result<(), RunError> {
    check_answers(run, model, filters, true)
}

/// [`check_all`] for a model with subjects that are visited out of order.
fn check_all_unordered(run: &Run, model: &Model, filters: &[&str]) -> Result<(), RunError> {
    check_answers(run, model, filters, false)
}

fn check_answers(
    run: &Run,
    model: &Model,
    filters: &[&str],
    in_order: bool,
) -> Result<(), RunError> {
    for ((stream, subject), expect) in model {
        let entry = lookup(run, *stream, subject)?.expect("a subject of the run");
        check_entry(run, &entry, expect)?;
        for absent in [&[subject, &b".x"[..]].concat(), &subject[1..].to_vec()] {
            let is_known = model.contains_key(&(*stream, absent.clone()));
            assert_eq!(lookup(run, *stream, absent)?.is_some(), is_known);
        }
    }
    let mut streams: Vec<StreamId> = model.keys().map(|(stream, _)| *stream).collect();
    streams.push(StreamId(u64::MAX - 1));
    streams.dedup();
    for stream in streams {
        for text in filters {
            let filter = Filter::new(text.as_bytes()).unwrap();
            let mut found = BTreeMap::new();
            let mut last: Option<Vec<u8>> = None;
            run.matching(stream, &filter, &mut |subject, entry| {
                let ascends = last
                    .as_ref()
                    .is_none_or(|last| compare_subjects(last, subject).is_lt());
                assert!(ascends || !in_order, "{text}: subjects in key order");
                last = Some(subject.to_vec());
                found.insert(subject.to_vec(), entry);
                ControlFlow::Continue(())
            })?;
            let expect: Vec<&Vec<u8>> = model
                .keys()
                .filter(|(s, subject)| *s == stream && filter.matches(subject))
                .map(|(_, subject)| subject)
                .collect();
            assert_eq!(found.keys().collect::<Vec<_>>(), expect, "{text}");
            for (subject, entry) in &found {
                assert_eq!(entry.count, model[&(stream, subject.clone())].len() as u64);
            }
        }
    }
    Ok(())
}

const FILTERS: [&str; 8] = [">", "a.>", "*.b", "a.*.c", "b", "*", "a.b.>", "*.*.*"];

fn arb_postings() -> impl Strategy<Value = Vec<(Seq, u32)>> {
    let steps = prop_oneof![
        6 => prop::collection::vec((1..20_u64, any::<u32>()), 1..4),
        2 => prop::collection::vec((1..2000_u64, 0..5000_u32), 1..200),
        1 => prop::collection::vec((1..1_u64 << 40, any::<u32>()), 400..3000),
    ];
    steps.prop_map(|steps| {
        let mut seq = 0;
        steps
            .into_iter()
            .map(|(step, size)| {
                seq += step;
                (Seq(seq), size)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn answers_equal_a_map(
        model in prop::collection::btree_map(
            (0..4_u64, "[abc](\\.[abc]){0,4}|[a-z!-]{1,30}"),
            arb_postings(),
            1..80,
        ),
    ) {
        let model: Model = model
            .into_iter()
            .map(|((stream, subject), p)| ((StreamId(stream), subject.into_bytes()), p))
            .collect();
        let written = match model.len() % 2 {
            0 => Written::new(model),
            _ => Written::encrypted(model),
        };
        check_all(&written.open().unwrap(), &written.model, &FILTERS).unwrap();
    }

    #[test]
    fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        let written = Written::new(small());
        written.io.set(&written.path, bytes);
        let is_damage = matches!(written.open(), Err(RunError::Damaged { .. }));
        prop_assert!(is_damage);
    }
}

/// One of each: single postings, short lists, a list in a shared page and one of several pages.
fn small() -> Model {
    let mut model = Model::new();
    let mut add = |subject: &str, seqs: &mut dyn Iterator<Item = u64>| {
        let postings = seqs.map(|seq| (Seq(seq), (seq % 1000) as u32)).collect();
        model.insert((StreamId(3), subject.as_bytes().to_vec()), postings);
    };
    for n in 0..40 {
        add(&format!("a.{n}.c"), &mut (n + 1..n + 2));
    }
    add("b", &mut (1..20));
    add("a.b", &mut (1..400).step_by(3));
    add("a.b.c", &mut (1..900).map(|n| n * 1000));
    add("long", &mut (5..5000).map(|n| n * 70_000));
    model
}

#[test]
fn many_subjects_need_many_pages_and_few_reads() {
    let mut model = Model::new();
    for n in 0..30_000_u64 {
        let subject = format!("sensor.{:04x}.{}", n * 40_503 % 65_536, n);
        model.insert(
            (StreamId(n % 2), subject.into_bytes()),
            vec![(Seq(n + 1), 7)],
        );
    }
    let written = Written::new(model);
    let run = written.open().unwrap();
    assert_eq!((run.keys(), run.postings_count()), (30_000, 30_000));
    for ((stream, subject), expect) in written.model.iter().step_by(997) {
        let cold = written.open().unwrap();
        let before = written.io.reads();
        let entry = lookup(&cold, *stream, subject).unwrap().unwrap();
        assert_eq!(written.io.reads() - before, 1, "a lookup reads one page");
        check_entry(&cold, &entry, expect).unwrap();
        let before = written.io.reads();
        let absent = [subject, &b"x"[..]].concat();
        assert_eq!(lookup(&cold, *stream, &absent).unwrap(), None);
        assert!(written.io.reads() - before <= 1);
    }
    // A wildcard starts at its literal tokens instead of reading every page.
    let cold = written.open().unwrap();
    let before = written.io.reads();
    let mut found = 0;
    let filter = Filter::new(b"sensor.00ff.>").unwrap();
    cold.matching(StreamId(1), &filter, &mut |_, _| {
        found += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    let expect = written
        .model
        .keys()
        .filter(|(stream, subject)| *stream == StreamId(1) && subject.starts_with(b"sensor.00ff."));
    assert_eq!(found, expect.count());
    assert!(written.io.reads() - before <= 2);
}

/// Counts all subjects from `from` on in a run that was just opened; returns the reads, too.
fn count_cold(written: &Written, from: Seq) -> (u64, u64) {
    let run = written.open().unwrap();
    let before = written.io.reads();
    let mut count = 0;
    run.matching(StreamId(1), &Filter::all(), &mut |_, entry| {
        count += run.count_from(&entry, from).unwrap();
        ControlFlow::Continue(())
    })
    .unwrap();
    (count, written.io.reads() - before)
}

#[test]
fn a_walk_over_lists_reads_many_pages_at_once() {
    // Lists that share pages, and lists of several pages of which one or two are needed.
    for (subjects, msgs, reads_max) in [(600, 300, 60), (60, 6000, 80)] {
        let mut model = Model::new();
        for n in 0..subjects {
            let list = (0..msgs).map(|at| (Seq(1 + at * subjects + n), 100_000));
            let subject = format!("s.{n:03}").into_bytes();
            model.insert((StreamId(1), subject), list.collect());
        }
        let written = Written::new(model);
        let pages = written.io.content(&written.path).len() / 4096;
        assert!(pages > 180, "{pages} pages");
        let total = subjects * msgs;
        for from in [2, total / 3, total / 2, total - 10] {
            let (count, reads) = count_cold(&written, Seq(from));
            assert_eq!(count, total - from + 1);
            assert!(reads <= reads_max, "{reads} reads of {pages} pages");
        }
    }
}

#[test]
fn an_unreadable_page_that_nobody_asked_for_is_no_error() {
    let mut model = Model::new();
    for n in 0..200 {
        let list = (0..300).map(|at| (Seq(1 + at * 200 + n), 100_000));
        model.insert(
            (StreamId(1), format!("s.{n:03}").into_bytes()),
            list.collect(),
        );
    }
    let written = Written::new(model);
    let mut failed = 0;
    for page in 0..40 {
        let offset = 64 + page * 4096;
        written.io.set_bad(&written.path, offset..offset + 1);
        let run = written.open().unwrap();
        let walked = run.matching(StreamId(1), &Filter::all(), &mut |subject, entry| {
            if subject[2] < b'1' {
                match list(&run, &entry, Seq(0)) {
                    Ok(list) => assert_eq!(list.len(), 300),
                    Err(_) => failed += 1,
                }
            }
            ControlFlow::Continue(())
        });
        failed += u32::from(walked.is_err());
    }
    // About 300 bytes short of a page for three lists: the pages of the first hundred.
    assert!((30..=200).contains(&failed), "{failed}");
}

#[test]
fn subjects_longer_than_a_page_are_found() {
    let mut model = small();
    for (stream, start, len) in [
        (1, "a.z.", 70_000),
        (3, "a.b.", 3_600),
        (3, "a.b.", 3_601),
        (3, "a.b.", 65_535),
        (3, "b.", 5_000),
        (4, "a.", 4_000),
    ] {
        let mut subject = start.as_bytes().to_vec();
        subject.resize(len, b'x');
        let postings = (1..len as u64 / 50).map(|n| (Seq(n * len as u64), 9));
        model.insert((StreamId(stream), subject), postings.collect());
    }
    let written = Written::new(model);
    let run = written.open().unwrap();
    check_all_unordered(&run, &written.model, &FILTERS).unwrap();
    for stop_after in 1..6 {
        let mut seen = 0;
        let filter = Filter::new(b"a.b.>").unwrap();
        run.matching(StreamId(3), &filter, &mut |_, _| {
            seen += 1;
            match seen == stop_after {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
        .unwrap();
        assert_eq!(seen, stop_after.min(4));
    }
}

#[test]
fn an_encrypted_run_shows_no_subject_and_needs_its_key() {
    let shows = |written: &Written| {
        let bytes = written.io.content(&written.path);
        let (_, subject) = written.model.keys().next().expect("a subject");
        let mut key = Vec::new();
        encode_key(StreamId(0), subject, &mut key);
        // The first key of a page is written whole.
        bytes
            .windows(key.len() - 8)
            .any(|window| window == &key[8..])
    };
    assert!(shows(&Written::new(small())));
    let mut written = Written::encrypted(small());
    assert!(!shows(&written));
    check_all(&written.open().expect("readable"), &written.model, &FILTERS).expect("all there");
    // What the key was written for is encrypted: a plain run would be somebody else's.
    let key = written.env.keys.take().map(|keys| keys.current().id());
    assert!(matches!(written.open(), Err(RunError::Damaged { .. })));
    let plain = Written::new(small());
    let cache = Arc::new(Cache::new(1 << 20, 8));
    let identity = RunIdentity::OfSegment(SegmentManifest { key, ..SOURCE });
    let opened = Run::open(&plain.env, &plain.path, UUID, &identity, cache);
    assert!(matches!(opened, Err(RunError::Damaged { .. })));
}

#[test]
fn a_visit_can_stop() {
    let written = Written::new(small());
    let run = written.open().unwrap();
    let mut seen = 0;
    run.matching(StreamId(3), &Filter::all(), &mut |_, _| {
        seen += 1;
        if seen == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    assert_eq!(seen, 3);
    let entry = lookup(&run, StreamId(3), b"long").unwrap().unwrap();
    let mut last = None;
    run.postings_rev(&entry, Seq(u64::MAX), &mut |seq, _| {
        last = Some(seq);
        ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(last, Some(entry.last));
}

#[test]
fn misuse_of_the_writer_is_an_error() {
    let (_, env) = MemoryIo::env();
    let mut writer = RunWriter::new(&env, Path::new("/1.idx"), UUID, of_segment(), 100).unwrap();
    let mut push = |stream, subject: &[u8], seqs: &[u64]| {
        let postings: Vec<(Seq, u32)> = seqs.iter().map(|seq| (Seq(*seq), 1)).collect();
        let result = writer.push(StreamId(stream), subject, &postings);
        result.map_err(|error| error.kind())
    };
    let refused = Err(io::ErrorKind::InvalidInput);
    assert_eq!(push(1, b"a", &[]), refused);
    assert_eq!(push(1, b"a", &[2, 2]), refused);
    assert_eq!(push(1, b"aa", &[2]), Ok(()));
    assert_eq!(push(1, b"a-", &[1]), refused);
    assert_eq!(push(1, b"b", &[1]), Ok(()));
    assert_eq!(push(1, b"b", &[2]), refused);
    assert_eq!(push(2, b"a.b", &[1]), Ok(()));
    assert_eq!(push(2, b"a-b", &[1]), Ok(()));
    assert_eq!(push(1, b"c", &[1]), refused);
}

#[test]
fn an_empty_run_knows_nothing() {
    let written = Written::new(Model::new());
    let run = written.open().unwrap();
    assert_eq!(lookup(&run, StreamId(1), b"a").unwrap(), None);
    check_all(&run, &written.model, &FILTERS).unwrap();
}

/// Every answer is right or an error; never wrong.
fn check_damaged(written: &Written, what: &str) {
    let Ok(run) = written.open() else {
        return;
    };
    // The comparison inside panics on a wrong answer and stops at the first error.
    let answers = check_all(&run, &written.model, &["a.*.c"]);
    if let Err(error) = answers {
        assert!(matches!(error, RunError::Damaged { .. }), "{what}: {error}");
    }
}

#[test]
fn any_flipped_bit_and_any_cut_is_noticed_or_harmless() {
    let written = Written::new(small());
    let mut bytes = written.io.content(&written.path);
    assert!(bytes.len() > 5 * 4096, "several pages of each kind");
    for at in 0..bytes.len() {
        if at >= 64 && at < bytes.len() - 128 && at % 97 != 0 {
            continue;
        }
        bytes[at] ^= 1 << (at % 8);
        written.io.set(&written.path, bytes.clone());
        check_damaged(&written, &format!("flip at {at}"));
        bytes[at] ^= 1 << (at % 8);
    }
    for len in (0..bytes.len()).filter(|len| len % 61 == 0 || bytes.len() - len < 200) {
        written.io.set(&written.path, bytes[..len].to_vec());
        assert!(
            matches!(written.open(), Err(RunError::Damaged { .. })),
            "cut to {len}"
        );
    }
}

#[test]
fn the_run_of_another_segment_or_store_is_not_used() {
    let written = Written::new(small());
    let cache = || Arc::new(Cache::new(1 << 20, 8));
    let other = SegmentManifest {
        footer_digest: 98,
        ..SOURCE
    };
    let open = |uuid, source: &SegmentManifest| {
        let wanted = RunIdentity::OfSegment(*source);
        Run::open(&written.env, &written.path, uuid, &wanted, cache())
    };
    assert!(matches!(open(UUID, &other), Err(RunError::Damaged { .. })));
    assert!(matches!(open(1, &SOURCE), Err(RunError::Damaged { .. })));
    let missing = Run::open(&written.env, Path::new("/0.idx"), UUID, &IDENTITY, cache());
    assert!(matches!(missing, Err(RunError::Missing)));
}

fn size_of(layout: &BodyLayout) -> u32 {
    layout.subject + layout.headers + layout.payload + 20
}

fn sealed_segment() -> (Sealed, Model) {
    let (samples, model) = samples();
    (Sealed::new(samples, Codec::S2), model)
}

fn samples() -> (Vec<Sample>, Model) {
    let mut samples: Vec<Sample> = (1..4).map(|seq| Sample::new(9, seq)).collect();
    samples.extend((1..600).map(|seq| Sample {
        subject: format!("a.{}.c", seq % 37).into_bytes(),
        ts: TimestampNs(seq as i64),
        payload: vec![b'p'; 100 + seq as usize % 5],
        ..Sample::new(2, seq)
    }));
    let mut model = Model::new();
    for sample in &samples {
        let size = sample.subject.len() + sample.payload.len() + 20;
        model
            .entry((sample.stream, sample.subject.clone()))
            .or_default()
            .push((sample.seq, size as u32));
    }
    (samples, model)
}

#[test]
fn a_rebuilt_run_gives_the_same_answers() {
    let (sealed, model) = sealed_segment();
    let path = Path::new("/idx/7.idx");
    let cache = Arc::new(Cache::new(1 << 20, 8));
    let segment = sealed.open_with(cache.clone());
    let rebuild = || rebuild_run(&sealed.env, path, UUID, &segment, &size_of, &cache).unwrap();
    let wanted = RunIdentity::OfSegment(*segment.manifest());
    let open = || Run::open(&sealed.env, path, UUID, &wanted, cache.clone());

    assert!(matches!(open(), Err(RunError::Missing)));
    let rebuilt = rebuild();
    assert_eq!(rebuilt.lost, vec![]);
    let run = open().unwrap();
    assert!(!run.is_partial());
    check_all(&run, &model, &FILTERS).unwrap();

    let good = sealed.io.content(path);
    let mut bad = good.clone();
    bad[100] ^= 1;
    sealed.io.set(path, bad);
    cache.clear();
    assert!(matches!(
        lookup(&open().unwrap(), StreamId(2), b"a.1.c"),
        Err(RunError::Damaged { .. })
    ));
    rebuild();
    // A pure function of the blocks: the same bytes.
    assert!(sealed.io.content(path) == good);
    check_all(&open().unwrap(), &model, &FILTERS).unwrap();
}

#[test]
fn a_run_rebuilt_in_parts_is_the_same() {
    let (sealed, _) = sealed_segment();
    let path = Path::new("/idx/7.idx");
    let cache = Arc::new(Cache::new(1 << 20, 8));
    let segment = sealed.open_with(cache.clone());
    let rebuild = |sort_bytes_max| {
        let rebuild = rebuild::Rebuild {
            env: &sealed.env,
            path,
            store_uuid: UUID,
            sort_bytes_max,
        };
        rebuild.run(&segment, &size_of, &cache).unwrap();
        sealed.io.content(path)
    };
    let whole = rebuild(usize::MAX);
    for sort_bytes_max in [0, 1000, 5000, 20_000] {
        assert!(rebuild(sort_bytes_max) == whole, "{sort_bytes_max}");
    }
}

#[test]
fn a_rebuild_reads_what_a_scan_reads() {
    for codec in [Codec::None, Codec::S2] {
        let (samples, _) = samples();
        let sealed = Sealed::new(samples, codec);
        let intact = sealed.bytes();
        for at in (64..intact.len()).step_by(701) {
            let mut bytes = intact.clone();
            bytes[at] ^= 4;
            sealed.set_bytes(bytes);
            let segment = sealed.open_with(Arc::new(Cache::new(1 << 20, 8)));
            let (mut scanned, mut lost) = (Vec::new(), Vec::new());
            let scan = segment.scan(&mut |item| {
                match item {
                    ScanItem::Lost(report) => lost.push(report),
                    ScanItem::Block(block) => scanned.extend(block.iter().map(|message| {
                        (
                            block.stream(),
                            message.seq,
                            message.subject().to_vec(),
                            message.layout(),
                        )
                    })),
                }
                ControlFlow::Continue(())
            });
            let (mut subjects, mut also_lost) = (Vec::new(), Vec::new());
            let read = segment.scan_subjects(&mut |item| {
                match item {
                    SubjectItem::Lost(report) => also_lost.push(report),
                    SubjectItem::Message {
                        stream,
                        seq,
                        subject,
                        layout,
                    } => {
                        subjects.push((stream, seq, subject.to_vec(), layout));
                    }
                }
                ControlFlow::Continue(())
            });
            assert_eq!(read.is_ok(), scan.is_ok());
            assert!(subjects == scanned && also_lost == lost, "byte {at}");
        }
    }
}

#[test]
fn a_run_rebuilt_from_a_damaged_segment_says_what_is_missing() {
    let (sealed, mut model) = sealed_segment();
    let mut bytes = sealed.bytes();
    bytes[64 + 80 + 5] ^= 1;
    sealed.set_bytes(bytes);
    model.retain(|(stream, _), _| *stream != StreamId(9));
    let path = Path::new("/idx/7.idx");
    let cache = Arc::new(Cache::new(1 << 20, 8));
    let segment = sealed.open_with(cache.clone());
    let rebuilt = rebuild_run(&sealed.env, path, UUID, &segment, &size_of, &cache).unwrap();
    assert_eq!(rebuilt.lost.len(), 1);
    assert_eq!(rebuilt.lost[0].stream, StreamId(9));
    assert_eq!(
        (rebuilt.lost[0].first, rebuilt.lost[0].last),
        (Seq(1), Seq(3))
    );
    let wanted = RunIdentity::OfSegment(*segment.manifest());
    let run = Run::open(&sealed.env, path, UUID, &wanted, cache).unwrap();
    assert!(run.is_partial());
    check_all(&run, &model, &FILTERS).unwrap();
}

#[test]
fn an_unreadable_page_asks_for_a_new_run() {
    let written = Written::new(small());
    let len = written.io.content(&written.path).len() as u64;
    written.io.set_bad(&written.path, len - 1..len);
    assert!(matches!(written.open(), Err(RunError::Damaged { .. })));
    written.io.set_bad(&written.path, 64..65);
    let run = written.open().unwrap();
    let answers = check_all(&run, &written.model, &FILTERS);
    assert!(matches!(answers, Err(RunError::Damaged { .. })));
}

#[test]
fn a_run_is_sealed_only_if_every_write_and_the_sync_succeed() {
    let write = |writes| {
        let (io, env) = MemoryIo::env();
        let mut writer = RunWriter::new(&env, Path::new("/1.idx"), UUID, of_segment(), 100)?;
        io.fail_writes_after(writes);
        for n in 0..1000 {
            let subject = format!("subject.{n:05}");
            writer.push(StreamId(1), subject.as_bytes(), &[(Seq(n), 1)])?;
        }
        writer.finish(0)
    };
    let mut writes = 0;
    while let Err(error) = write(writes) {
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        writes += 1;
    }
    assert!(writes > 4, "several writes and a sync: {writes}");
}
