//! Readers that walk along keep the block they are in. What they return is what single reads return
//! at the same moment, whatever happens to the stream and its files in between.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::{
    Append, Compression, Consumer, Filter, Message, Messages, Next, PurgeRequest, ReadError, Seq,
    Store, Stream, StreamConfig, TimestampNs,
};
use support::DIR;

const START_NS: i64 = 1_700_000_000_000_000_000;
const ALL: std::ops::RangeInclusive<Seq> = Seq(1)..=Seq(u64::MAX - 1);

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 33) % n
    }
}

fn open(disk: &SimDisk, cache_bytes_max: u64) -> Store {
    open_with_tail(disk, cache_bytes_max, 1 << 20)
}

fn open_with_tail(disk: &SimDisk, cache_bytes_max: u64, tail_bytes_max: u64) -> Store {
    let env = Env::simulated(disk, &SimClock::new(START_NS), 1);
    let mut options = support::options();
    options.wal.file_bytes = tail_bytes_max;
    options.tail_bytes_max = tail_bytes_max;
    options.cache_bytes_max = cache_bytes_max;
    let (store, _) = Store::open_in(env, Path::new(DIR), options).expect("a store");
    store
}

fn stream(store: &Store) -> Stream {
    let config = StreamConfig {
        name: "S".into(),
        compression: Compression::None,
        ..StreamConfig::default()
    };
    store.create_stream(config).expect("a stream").0
}

fn append(stream: &Stream, subject: &str, payload: &[u8]) -> Seq {
    let append = Append {
        subject: subject.as_bytes(),
        payload,
        ..Append::default()
    };
    stream.append_nosync(&append).expect("accepted").seq
}

/// Messages whose payload is their sequence, durable and sealed.
fn sealed(store: &Store, stream: &Stream, messages: u64) {
    for _ in 0..messages {
        let seq = stream.state().last_seq.0 + 1;
        append(stream, &format!("s.{}", seq % 3), &seq.to_le_bytes());
    }
    store.commit();
    store.checkpoint().expect("sealed");
}

fn filter(text: &str) -> Filter {
    Filter::new(text.as_bytes()).expect("a filter")
}

fn seq_of(item: Option<Result<Message, ReadError>>) -> Option<u64> {
    item.map(|message| message.expect("readable").seq.0)
}

fn rest_of(messages: &mut Messages) -> Vec<u64> {
    messages
        .map(|message| message.expect("readable").seq.0)
        .collect()
}

/// Subject and payload of the live messages.
type Model = BTreeMap<u64, (String, Vec<u8>)>;

type Row = (u64, String, Vec<u8>);

fn row(message: &Message) -> Row {
    let subject = String::from_utf8_lossy(message.subject()).into_owned();
    (message.seq.0, subject, message.payload().to_vec())
}

/// The first message at or behind `from` that matches.
fn expected(model: &Model, filters: &[Filter], from: u64) -> Option<Row> {
    let wanted =
        |subject: &str| filters.is_empty() || filters.iter().any(|f| f.matches(subject.as_bytes()));
    let mut rows = model.range(from..);
    let found = rows.find(|(_, (subject, _))| wanted(subject));
    found.map(|(seq, (subject, payload))| (*seq, subject.clone(), payload.clone()))
}

struct Walker {
    filters: Vec<Filter>,
    messages: Messages,
    next: u64,
}

impl Walker {
    fn new(stream: &Stream, filters: &[&str]) -> Walker {
        let filters: Vec<Filter> = filters.iter().map(|text| filter(text)).collect();
        Walker {
            messages: stream.messages(&filters, ALL),
            filters,
            next: 1,
        }
    }

    /// Takes a message and compares it.
    fn step(&mut self, stream: &Stream, model: &Model) {
        let expected = expected(model, &self.filters, self.next);
        let found = self.messages.next().map(|found| found.expect("readable"));
        let found = found.as_ref().map(row);
        assert_eq!(found, expected, "{:?} from {}", self.filters, self.next);
        match found {
            Some((seq, ..)) => self.next = seq + 1,
            None => {
                self.messages = stream.messages(&self.filters, ALL);
                self.next = 1;
            }
        }
    }
}

/// Delivers a message and compares it.
fn deliver(consumer: &Consumer, model: &Model, next: &mut u64) {
    let expected = expected(model, &[], *next);
    let delivered = consumer.next(TimestampNs(START_NS), &mut |_| true);
    let found = match delivered.expect("readable") {
        Next::Message(delivery) => Some(row(&delivery.message)),
        _ => None,
    };
    assert_eq!(found, expected, "a delivery from {next}");
    *next = found.map_or(*next, |(seq, ..)| seq + 1);
}

fn purge(stream: &Stream, model: &mut Model, filter: Option<Filter>, below: Option<u64>) {
    model.retain(|seq, (subject, _)| {
        let matches = filter
            .as_ref()
            .is_none_or(|f| f.matches(subject.as_bytes()));
        !matches || below.is_some_and(|below| *seq >= below)
    });
    let request = PurgeRequest {
        filter,
        below: below.map(Seq),
        ..PurgeRequest::default()
    };
    stream.purge(&request).expect("logged");
}

fn check_history(seed: u64, cache_bytes_max: u64) {
    let disk = SimDisk::new(seed);
    let mut store = open(&disk, cache_bytes_max);
    let mut stream = stream(&store);
    let config = ConsumerConfig {
        name: "C".into(),
        ack: AckPolicy::None,
        ..ConsumerConfig::default()
    };
    let (mut consumer, _) = stream.create_consumer(config).expect("a consumer");
    let mut delivered = 1;
    let mut model = Model::new();
    let walkers = |stream: &Stream| {
        let filters: [&[&str]; 5] = [&[], &[">"], &["s.*"], &["s.1"], &["s.0", "s.4"]];
        filters.map(|filters| Walker::new(stream, filters))
    };
    let mut walking = walkers(&stream);
    let mut rng = Rng(seed);
    for _ in 0..250 {
        match rng.below(24) {
            0..=7 => {
                for _ in 0..rng.below(120) {
                    let subject = format!("s.{}", rng.below(6));
                    let payload = vec![rng.below(256) as u8; rng.below(300) as usize];
                    let seq = append(&stream, &subject, &payload);
                    model.insert(seq.0, (subject, payload));
                }
                store.commit();
            }
            8..=10 => store.checkpoint().expect("sealed"),
            11 => store.compact().expect("compacted"),
            12..=17 => {
                let state = stream.state();
                let first = state.first_seq.0 + rng.below(state.msgs + 1);
                for seq in first..first + rng.below(6) {
                    stream.delete(Seq(seq)).expect("logged");
                    model.remove(&seq);
                }
            }
            18 => {
                let filter = filter(&format!("s.{}", rng.below(6)));
                purge(&stream, &mut model, Some(filter), None);
            }
            19 => {
                let below = stream.state().first_seq.0 + rng.below(40);
                purge(&stream, &mut model, None, Some(below));
            }
            20 => {
                consumer.flush().expect("logged");
                store.commit();
                drop((stream, consumer, store));
                store = open(&disk, cache_bytes_max);
                stream = store.stream("S").expect("the stream");
                consumer = stream.consumer("C").expect("the consumer");
                for walker in &mut walking {
                    walker.messages = stream.messages(&walker.filters, ALL);
                    walker.messages.seek(Seq(walker.next));
                }
            }
            _ => {}
        }
        store.commit();
        for walker in &mut walking {
            for _ in 0..rng.below(30) {
                walker.step(&stream, &model);
            }
        }
        for _ in 0..rng.below(30) {
            deliver(&consumer, &model, &mut delivered);
        }
        let seq = rng.below(stream.state().last_seq.0 + 2);
        let single = stream.get(Seq(seq)).expect("readable");
        let known = expected(&model, &[], seq).filter(|(found, ..)| *found == seq);
        assert_eq!(single.as_ref().map(row), known);
    }
}

#[test]
fn walking_along_finds_what_is_there() {
    for seed in 0..2 {
        check_history(seed, 1 << 20);
    }
}

#[test]
fn so_it_does_where_nothing_stays_cached() {
    for seed in 2..4 {
        check_history(seed, 0);
    }
}

#[test]
fn removals_in_the_block_of_an_iterator_take_effect_at_once() {
    let disk = SimDisk::new(1);
    let store = open(&disk, 1 << 20);
    let stream = stream(&store);
    sealed(&store, &stream, 100);
    let filters = [vec![], vec![filter("s.*")]];
    let mut all = filters.map(|filters| stream.messages(&filters, ALL));
    let [plain, filtered] = &mut all;
    assert_eq!(
        (seq_of(plain.next()), seq_of(filtered.next())),
        (Some(1), Some(1))
    );
    stream.delete(Seq(2)).expect("logged");
    assert_eq!(
        (seq_of(plain.next()), seq_of(filtered.next())),
        (Some(3), Some(3))
    );
    let request = PurgeRequest {
        filter: Some(filter("s.1")),
        ..PurgeRequest::default()
    };
    stream.purge(&request).expect("logged");
    assert_eq!(
        (seq_of(plain.next()), seq_of(filtered.next())),
        (Some(5), Some(5))
    );
    let request = PurgeRequest {
        below: Some(Seq(90)),
        ..PurgeRequest::default()
    };
    stream.purge(&request).expect("logged");
    assert_eq!(
        (seq_of(plain.next()), seq_of(filtered.next())),
        (Some(90), Some(90))
    );
    let everything = PurgeRequest::default();
    stream.purge(&everything).expect("logged");
    assert_eq!(
        (seq_of(plain.next()), seq_of(filtered.next())),
        (None, None)
    );
}

/// Nothing was removed meanwhile, so that what the iterator knew of the sequences around stays true;
/// but it had looked before they were given.
#[test]
fn what_is_appended_and_sealed_behind_an_iterator_is_found() {
    let disk = SimDisk::new(1);
    let store = open(&disk, 1 << 20);
    let stream = stream(&store);
    sealed(&store, &stream, 10);
    let mut messages = stream.messages(&[], ALL);
    assert_eq!(seq_of(messages.next()), Some(1));
    sealed(&store, &stream, 10);
    store.compact().expect("compacted");
    assert_eq!(rest_of(&mut messages), (2..=20).collect::<Vec<_>>());
}

#[test]
fn an_iterator_goes_on_from_the_tail_into_the_file_that_it_became() {
    let disk = SimDisk::new(1);
    let store = open(&disk, 1 << 20);
    let stream = stream(&store);
    for n in 1..=50_u64 {
        append(&stream, "s.1", &n.to_le_bytes());
    }
    store.commit();
    let mut messages = stream.messages(&[filter("s.1")], ALL);
    assert_eq!(seq_of(messages.next()), Some(1));
    store.checkpoint().expect("sealed");
    assert_eq!(seq_of(messages.next()), Some(2));
    append(&stream, "s.1", b"fresh");
    store.commit();
    assert_eq!(rest_of(&mut messages), (3..=51).collect::<Vec<_>>());
}

#[test]
fn compaction_replaces_the_file_of_an_iterator() {
    let disk = SimDisk::new(1);
    let store = open(&disk, 1 << 20);
    let stream = stream(&store);
    sealed(&store, &stream, 5_000);
    let mut messages = stream.messages(&[], ALL);
    assert_eq!(seq_of(messages.next()), Some(1));
    for seq in (2..=5_000).filter(|seq| seq % 10 != 0) {
        stream.delete(Seq(seq)).expect("logged");
    }
    let files = |disk: &SimDisk| {
        let files = disk.files().into_iter().map(|(path, _)| path);
        files
            .filter(|path| path.ends_with(".seg"))
            .collect::<Vec<_>>()
    };
    let before = files(&disk);
    assert_eq!(seq_of(messages.next()), Some(10));
    store.commit();
    store.compact().expect("compacted");
    let after = files(&disk);
    assert!(before.iter().all(|path| !after.contains(path)), "{after:?}");
    let kept: Vec<u64> = (2..=500).map(|n| 10 * n).collect();
    assert_eq!(rest_of(&mut messages), kept);
}

/// The iterator holds a block with the message, but never the file, and does not show it.
#[test]
fn an_erasure_is_complete_with_an_iterator_in_the_block() {
    let disk = SimDisk::new(1);
    let store = open(&disk, 1 << 20);
    let stream = stream(&store);
    sealed(&store, &stream, 20);
    let mut messages = stream.messages(&[], ALL);
    assert_eq!(seq_of(messages.next()), Some(1));
    let erasure = stream.erase(Seq(2), Duration::ZERO).expect("logged");
    assert!(erasure.expect("it is live").wait(Duration::ZERO));
    messages.seek(Seq(1));
    assert_eq!(seq_of(messages.next()), Some(1));
    assert_eq!(rest_of(&mut messages), (3..=20).collect::<Vec<_>>());
}

#[test]
fn damage_behind_the_block_of_an_iterator_is_one_item() {
    let disk = SimDisk::new(1);
    let store = open(&disk, 1 << 20);
    let stream = stream(&store);
    sealed(&store, &stream, 5_000);
    drop((stream, store));
    let mut files = disk.files().into_iter();
    let (path, len) = files
        .find(|(path, _)| path.ends_with(".seg"))
        .expect("a sealed file");
    disk.corrupt(&path, len / 3, 1).expect("inside the file");
    let store = open(&disk, 1 << 20);
    let stream = store.stream("S").expect("the stream");
    let lost: Vec<u64> = (1..=5_000)
        .filter(|seq| stream.get(Seq(*seq)).is_err())
        .collect();
    assert!(
        !lost.is_empty() && lost.len() < 5_000,
        "{} lost",
        lost.len()
    );
    for filters in [vec![], vec![filter("s.*")]] {
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for item in stream.messages(&filters, ALL) {
            match item {
                Ok(message) => {
                    assert_eq!(message.payload(), message.seq.0.to_le_bytes());
                    found.push(message.seq.0);
                }
                Err(ReadError::Corrupt(damage)) => damaged.push((damage.first.0, damage.last.0)),
                Err(error) => panic!("{error}"),
            }
        }
        let readable: Vec<u64> = (1..=5_000).filter(|seq| !lost.contains(seq)).collect();
        assert_eq!(found, readable);
        assert_eq!(damaged, [(lost[0], lost[lost.len() - 1])]);
    }
}

/// Messages that match lie at both ends of the file, so that they seem to lie everywhere.
#[test]
fn unevenly_spread_matches_are_all_found() {
    const LAST: u64 = 90_000;
    let disk = SimDisk::new(1);
    let store = open_with_tail(&disk, 1 << 20, 64 << 20);
    let stream = stream(&store);
    let mut model = Model::new();
    for seq in 1..=LAST {
        let subject = match seq {
            1..=20_000 | 70_001.. => "a.x",
            _ if seq.is_multiple_of(1_000) => "b.y",
            _ => "c.z",
        };
        append(&stream, subject, &[]);
        model.insert(seq, (subject.to_owned(), Vec::new()));
    }
    store.commit();
    store.checkpoint().expect("sealed");
    let all_filters: [&[&str]; 5] = [
        &["a.>"],
        &["a.x", "b.y"],
        &["b.*"],
        &["a.>", "c.>"],
        &["a.*", "b.>", "*.z"],
    ];
    let check = |model: &Model| {
        for texts in all_filters {
            let filters: Vec<Filter> = texts.iter().map(|text| filter(text)).collect();
            let matching = |row: &(&u64, &(String, Vec<u8>))| {
                filters.iter().any(|f| f.matches(row.1.0.as_bytes()))
            };
            let expected: Vec<u64> = model.iter().filter(matching).map(|(seq, _)| *seq).collect();
            let found = rest_of(&mut stream.messages(&filters, ALL));
            assert!(found == expected, "{texts:?}");
        }
    };
    check(&model);
    purge(&stream, &mut model, Some(filter("c.z")), None);
    check(&model);
    purge(&stream, &mut model, None, Some(10_000));
    check(&model);
    store.commit();
    store.checkpoint().expect("sealed");
    check(&model);
}
