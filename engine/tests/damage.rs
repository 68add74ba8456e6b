//! Promises A3, A4 and A5: bytes of every file are flipped, files are cut short or removed. Opening
//! either refuses, says which file and what to do and changes nothing; or it serves, reports what
//! it cannot read with its sequences, and everything else is as it was.
//!
//! `RIVERLOG_DAMAGE_STRIDE` is the distance of the bytes that are tried (default 97; 1 tries all).

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use riverlog_engine::consumer::ConsumerConfig;
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::{
    Append, Filter, Next, OpenError, ReadError, Seq, Store, Stream, StreamConfig, TimestampNs,
};
use support::model::ModelStream;
use support::sample::{End, START_NS, Sample, content, places, sample, without};
use support::{DIR, ENCRYPTED, differences, env_of, readable_or_reported};

fn open(disk: &SimDisk) -> Result<Store, OpenError> {
    let env = env_of(disk, &SimClock::new(START_NS + 1_000_000), 2);
    Store::open_in(env, Path::new(DIR), support::options()).map(|(store, _)| store)
}

/// A refusal names the damaged file or its directory, says what to do, and changed nothing.
fn check_refusal(
    disk: &SimDisk,
    before: &BTreeMap<String, Vec<u8>>,
    damaged: &str,
    error: &OpenError,
) {
    let text = error.to_string();
    let dir = Path::new(damaged).parent().and_then(Path::file_name);
    let dir = dir
        .map(|dir| dir.to_string_lossy().into_owned())
        .unwrap_or_default();
    let named = text.contains(damaged) || text.contains(&dir);
    assert!(named, "{damaged}: the refusal does not name it: {text}");
    assert!(
        matches!(
            error,
            OpenError::Damaged { .. }
                | OpenError::NewerVersion { .. }
                | OpenError::NotAStore { .. }
        ),
        "{damaged}: {text}"
    );
    let after = content(disk);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&after),
        names(before),
        "{damaged}: a refusal changes nothing"
    );
    for (path, bytes) in &after {
        assert!(
            before.get(path) == Some(bytes),
            "{damaged}: a refusal changed {path}"
        );
    }
}

fn flip_everywhere(
    sample: &Sample,
    part: &str,
    judge: impl Fn(&str, &SimDisk, Store),
) -> (u64, u64) {
    let (mut refused, mut opened) = (0, 0);
    for (path, bytes) in sample.files(part) {
        for (n, at) in places(&bytes).into_iter().enumerate() {
            let bits = if n % 16 == 0 { 0..8 } else { n % 8..n % 8 + 1 };
            for bit in bits {
                let disk = sample.disk.fork();
                disk.corrupt(&path, at, 1 << bit).expect("inside the file");
                let before = content(&disk);
                let what = format!("bit {bit} of byte {at} of {path}");
                match open(&disk) {
                    Ok(store) => {
                        opened += 1;
                        judge(&what, &disk, store);
                    }
                    Err(error) => {
                        refused += 1;
                        check_refusal(&disk, &before, &path, &error);
                    }
                }
            }
        }
    }
    (refused, opened)
}

fn assert_whole(what: &str, store: &Store, model: &ModelStream) {
    let stream = store
        .stream("S")
        .unwrap_or_else(|| panic!("{what}: the stream is gone"));
    if let Err(difference) = differences(&stream, model) {
        panic!("{what}: {difference}");
    }
}

/// The log and the metadata: what is damaged is refused, or was not needed.
fn flipped_bits_lose_nothing(part: &str, kind: u8, end: End) {
    let sample = sample(kind, end);
    let (refused, opened) = flip_everywhere(&sample, part, |what, _, store| {
        assert_whole(what, &store, sample.newest());
    });
    assert!(
        refused + opened > 50,
        "{part}: {refused} refused, {opened} opened"
    );
}

#[test]
fn a_flipped_bit_in_the_log_of_a_killed_store() {
    flipped_bits_lose_nothing("wal/", ENCRYPTED, End::Kill);
}

#[test]
fn a_flipped_bit_in_the_log_of_a_closed_store() {
    flipped_bits_lose_nothing("wal/", 0, End::Close);
}

#[test]
fn a_flipped_bit_in_the_metadata_of_a_killed_store() {
    flipped_bits_lose_nothing("meta/", ENCRYPTED, End::Kill);
}

#[test]
fn a_flipped_bit_in_the_metadata_of_a_closed_store() {
    flipped_bits_lose_nothing("meta/", 0, End::Close);
}

#[test]
fn a_flipped_bit_in_the_index() {
    let sample = sample(ENCRYPTED, End::Kill);
    let (refused, opened) = flip_everywhere(&sample, "idx/", |what, _, store| {
        assert_whole(what, &store, sample.newest());
    });
    assert!(
        refused == 0 && opened > 10,
        "{refused} refused, {opened} opened"
    );
}

#[test]
fn a_flipped_bit_in_the_identity() {
    let sample = sample(ENCRYPTED, End::Close);
    for (path, bytes) in sample.files("FORMAT") {
        for at in 0..bytes.len() as u64 {
            for bit in 0..8 {
                let disk = sample.disk.fork();
                disk.corrupt(&path, at, 1 << bit).expect("inside the file");
                let before = content(&disk);
                match open(&disk) {
                    Ok(store) => assert_whole("FORMAT", &store, sample.newest()),
                    Err(error) => check_refusal(&disk, &before, &path, &error),
                }
            }
        }
    }
}

/// A sealed file: at most one block is lost, each of its sequences is reported, and the rest serves.
fn flipped_bits_in_sealed_data(kind: u8) {
    let sample = sample(kind, End::Kill);
    let mut damaged = 0;
    let (refused, opened) = flip_everywhere(&sample, "seg/", |what, _, store| {
        let stream = store
            .stream("S")
            .unwrap_or_else(|| panic!("{what}: the stream is gone"));
        match readable_or_reported(&stream, sample.newest()) {
            // A block holds 32 KiB before compression.
            Ok(reported) => assert!(reported.len() <= 4, "{what}: lost {reported:?}"),
            Err(difference) => panic!("{what}: {difference}"),
        }
        keeps_serving(what, &store, sample.newest());
    });
    damaged += opened;
    assert!(
        refused == 0 && damaged > 10,
        "{refused} refused, {opened} opened"
    );
}

/// Appends, acknowledgements and reads of new messages go on beside damage.
fn keeps_serving(what: &str, store: &Store, model: &ModelStream) {
    let stream = store
        .stream("S")
        .unwrap_or_else(|| panic!("{what}: the stream is gone"));
    let append = Append {
        subject: b"s.0",
        payload: b"after the damage",
        ..Append::default()
    };
    match stream.append_nosync(&append) {
        Ok(done) => assert_eq!(done.seq, Seq(model.last_seq + 1), "{what}"),
        Err(error) => panic!("{what}: an append is refused: {error}"),
    }
    store.commit();
    let read = stream.get(Seq(model.last_seq + 1));
    assert!(matches!(read, Ok(Some(_))), "{what}: {read:?}");
}

#[test]
fn a_flipped_bit_in_a_sealed_file() {
    flipped_bits_in_sealed_data(0);
}

#[test]
fn a_flipped_bit_in_a_compressed_and_encrypted_sealed_file() {
    flipped_bits_in_sealed_data(1 | ENCRYPTED);
}

/// A cut file: what was there before may be all that is left, but never something else.
#[test]
fn files_cut_short() {
    for (end, kind) in [(End::Kill, ENCRYPTED), (End::Close, 0)] {
        let sample = sample(kind, end);
        for (path, bytes) in sample.files("/") {
            let len = bytes.len() as u64;
            let cuts = [0, 1, 63, 64, 500, 4096, 8192, 8300, len / 2, len - 1];
            for cut in cuts.into_iter().filter(|cut| *cut < len) {
                let disk = sample.disk.fork();
                disk.truncate(&path, cut).expect("a file");
                let before = content(&disk);
                let store = match open(&disk) {
                    Ok(store) => store,
                    Err(error) => {
                        check_refusal(&disk, &before, &path, &error);
                        continue;
                    }
                };
                let what = format!("{path} cut to {cut} bytes");
                let stream = store.stream("S");
                if path.contains("wal/") {
                    // The end of a log that is gone without a trace was never written.
                    let fits = |model: &ModelStream| {
                        stream
                            .as_ref()
                            .is_some_and(|s| differences(s, model).is_ok())
                    };
                    assert!(sample.states.iter().any(fits), "{what}");
                    continue;
                }
                let stream = stream.unwrap_or_else(|| panic!("{what}: the stream is gone"));
                match readable_or_reported(&stream, sample.newest()) {
                    Ok(reported) if path.contains("seg/") || reported.is_empty() => {}
                    Ok(reported) => panic!("{what}: {reported:?} are lost"),
                    Err(difference) => panic!("{what}: {difference}"),
                }
            }
        }
    }
}

#[test]
fn the_index_can_be_deleted() {
    for end in [End::Kill, End::Close] {
        let sample = sample(1 | ENCRYPTED, end);
        assert!(!sample.files("idx/").is_empty(), "there is an index");
        let disk = without(&sample.disk, "idx/");
        let store = open(&disk).unwrap_or_else(|error| panic!("{error}"));
        assert_whole("without an index", &store, sample.newest());
    }
}

#[test]
fn a_missing_sealed_file_is_reported_and_the_rest_serves() {
    let sample = sample(0, End::Close);
    let files = sample.files("seg/");
    assert!(files.len() >= 2, "several sealed files");
    for (path, _) in &files {
        let disk = without(&sample.disk, path);
        let store = open(&disk).unwrap_or_else(|error| panic!("{error}"));
        let stream = store.stream("S").expect("the stream");
        let (mut read, mut missing) = (0, 0);
        for (seq, message) in &sample.newest().msgs {
            match stream.get(Seq(*seq)) {
                Ok(Some(found)) => {
                    assert_eq!(found.payload(), message.payload, "{seq}");
                    read += 1;
                }
                Ok(None) => panic!("{seq} is silently absent without {path}"),
                Err(ReadError::Corrupt(_) | ReadError::Io { .. }) => missing += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(
            missing > 0 && read > 0,
            "{path}: {read} read, {missing} missing"
        );
        keeps_serving(path, &store, sample.newest());
        drop(store);
        let after = content(&disk);
        for (other, bytes) in files.iter().filter(|(other, _)| other != path) {
            assert_eq!(after.get(other), Some(bytes), "{other} was not touched");
        }
    }
}

/// A stream of eight messages in one sealed file whose first block is damaged.
fn damaged_front(config: StreamConfig) -> (SimDisk, SimClock) {
    let disk = SimDisk::new(1);
    let clock = SimClock::new(START_NS);
    let env = Env::simulated(&disk, &clock, 1);
    let mut options = support::options();
    options.wal.file_bytes = 1 << 20;
    options.tail_bytes_max = 1 << 20;
    let (store, _) = Store::open_in(env, Path::new(DIR), options).expect("a store");
    let (stream, _) = store.create_stream(config).expect("a stream");
    for n in 0..8u8 {
        let append = Append {
            subject: b"s.0",
            payload: &[n; 20_000],
            ..Append::default()
        };
        stream.append_nosync(&append).expect("accepted");
        store.commit();
    }
    drop(stream);
    drop(store);
    let sealed = disk
        .files()
        .into_iter()
        .find(|(path, _)| path.contains("seg/"));
    let (path, _) = sealed.expect("a sealed file");
    disk.corrupt(&path, 5_000, 1).expect("inside the file");
    (disk, clock)
}

fn open_again(disk: &SimDisk, clock: &SimClock) -> (Store, Stream) {
    let env = Env::simulated(disk, clock, 2);
    let (store, _) = Store::open_in(env, Path::new(DIR), support::options()).expect("a store");
    let stream = store.stream("S").expect("the stream");
    assert!(matches!(stream.get(Seq(1)), Err(ReadError::Corrupt(_))));
    (store, stream)
}

fn stream_config() -> StreamConfig {
    StreamConfig {
        name: "S".into(),
        ..StreamConfig::default()
    }
}

#[test]
fn limits_evict_damaged_messages() {
    let (disk, clock) = damaged_front(StreamConfig {
        msgs_max: Some(8),
        bytes_max: Some(8 * 20_033),
        ..stream_config()
    });
    let (store, stream) = open_again(&disk, &clock);
    for n in 0..8 {
        let append = Append {
            subject: b"s.0",
            payload: b"small",
            ..Append::default()
        };
        let done = stream.append_nosync(&append);
        assert!(
            matches!(&done, Ok(done) if done.seq == Seq(9 + n)),
            "{done:?}"
        );
    }
    store.commit();
    let state = stream.state();
    assert_eq!((state.first_seq, state.msgs), (Seq(9), 8));
    assert_eq!(state.bytes, 8 * (3 + 5 + 30));
}

#[test]
fn damaged_messages_expire() {
    let (disk, clock) = damaged_front(StreamConfig {
        age_max_ns: Some(1_000_000_000),
        ..stream_config()
    });
    let (store, stream) = open_again(&disk, &clock);
    clock.advance_ns(2_000_000_000);
    store.step().expect("upkeep");
    assert_eq!((stream.state().msgs, stream.state().bytes), (0, 0));
}

#[test]
fn a_damaged_message_can_be_deleted() {
    let (disk, clock) = damaged_front(stream_config());
    let (store, stream) = open_again(&disk, &clock);
    assert!(matches!(stream.delete(Seq(1)), Ok(Some(_))));
    store.commit();
    assert!(matches!(stream.get(Seq(1)), Ok(None)));
    assert_eq!(stream.state().first_seq, Seq(2));
    assert_eq!(stream.state().bytes, 7 * 20_033);
}

#[test]
fn consumers_pass_over_damaged_messages() {
    for filters in [vec![], vec!["s.*".to_owned()]] {
        let (disk, clock) = damaged_front(stream_config());
        let (_store, stream) = open_again(&disk, &clock);
        let readable: Vec<u64> = (1..=8)
            .filter(|seq| stream.get(Seq(*seq)).is_ok())
            .collect();
        assert!(readable.len() >= 4, "one block is damaged: {readable:?}");
        let config = ConsumerConfig {
            filters,
            ..support::consumer_config()
        };
        let (consumer, _) = stream.create_consumer(config).expect("a consumer");
        let mut delivered = Vec::new();
        while let Next::Message(delivery) = consumer
            .next(TimestampNs(START_NS), &mut |_| true)
            .expect("a delivery")
        {
            delivered.push(delivery.message.seq.0);
        }
        assert_eq!(delivered, readable);
        assert_eq!(consumer.num_pending().expect("a count"), 0);
    }
}

/// With the index gone as well, nobody knows the subjects of damaged messages: an answer that one of
/// them could change is an error, every other one is given.
#[test]
fn damage_without_an_index_is_never_passed_off_as_absence() {
    let (disk, clock) = damaged_front(stream_config());
    let disk = without(&disk, "idx/");
    let (store, stream) = open_again(&disk, &clock);
    let last = stream.last_by_subject(&Filter::new(b"s.0").expect("a filter"));
    assert!(
        matches!(&last, Ok(Some(found)) if found.seq == Seq(8)),
        "{last:?}"
    );
    let other = Filter::new(b"s.other").expect("a filter");
    assert!(matches!(
        stream.last_by_subject(&other),
        Err(ReadError::Corrupt(_))
    ));
    assert!(matches!(
        stream.subjects(&Filter::all()),
        Err(ReadError::Corrupt(_))
    ));
    let append = Append {
        subject: b"s.other",
        ..Append::default()
    };
    stream.append_nosync(&append).expect("accepted");
    store.commit();
    let last = stream.last_by_subject(&other);
    assert!(
        matches!(&last, Ok(Some(found)) if found.seq == Seq(9)),
        "{last:?}"
    );
    while stream.get(stream.state().first_seq).is_err() {
        let first = stream.state().first_seq;
        assert!(stream.delete(first).expect("an answer").is_some());
    }
    store.commit();
    let subjects = stream
        .subjects(&Filter::all())
        .expect("nothing damaged is live");
    assert_eq!(subjects.len(), 2);
}

/// Metadata that is older than the log: whatever the operator gives up, sealed data is kept.
#[test]
fn salvage_keeps_sealed_files_that_no_metadata_names() {
    let sample = sample(0, End::Close);
    let meta = sample.files("meta/");
    let (path, _) = meta.last().expect("a metadata file");
    sample.disk.truncate(path, 8_192).expect("a file");
    let before = sample.files("seg/");
    assert!(matches!(open(&sample.disk), Err(OpenError::Damaged { .. })));
    let env = env_of(&sample.disk, &SimClock::new(START_NS), 3);
    let mut options = support::options();
    options.salvage = true;
    if let Ok((store, report)) = Store::open_in(env, Path::new(DIR), options) {
        assert!(!report.lost.is_empty(), "salvage says what is lost");
        drop(store);
    }
    drop(open(&sample.disk));
    let after: Vec<Vec<u8>> = content(&sample.disk).into_values().collect();
    for (path, bytes) in before {
        assert!(after.contains(&bytes), "{path} is gone");
    }
}
