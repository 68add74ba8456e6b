//! Messages leave at the end of their own life time or at the stream's maximum age, whichever comes
//! first, wherever they are stored and whatever happened in between; what expires as the last of its
//! subject leaves a marker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{Fault, SimClock, SimDisk, Trigger};
use riverlog_engine::{
    Append, DeleteMarker, Discard, Filter, Next, PurgeRequest, Retention, Seq, Storage, Store,
    StoreOptions, Stream, StreamConfig, Threads, TimestampNs, Ttl,
};

const START: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
const MARKER_TTL: i64 = 100 * SECOND;

/// A store on a simulated disk, whose time is set by hand.
struct Fixture {
    disk: SimDisk,
    clock: SimClock,
    store: Store,
    stream: Stream,
}

fn open(disk: &SimDisk, clock: &SimClock) -> Store {
    let mut options = StoreOptions::default();
    options.threads = Threads::Manual;
    options.compaction.slack_bytes = 0;
    let env = Env::simulated(disk, clock, 1);
    let (store, _) = Store::open_in(env, Path::new("/data"), options).expect("a store");
    store
}

fn config() -> StreamConfig {
    StreamConfig {
        name: "S".into(),
        ..StreamConfig::default()
    }
}

fn marker() -> Option<DeleteMarker> {
    Some(DeleteMarker {
        headers: b"reason: age".to_vec(),
        ttl_ns: MARKER_TTL as u64,
    })
}

impl Fixture {
    fn new(config: StreamConfig) -> Fixture {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(START));
        let store = open(&disk, &clock);
        let (stream, _) = store.create_stream(config).expect("a stream");
        Fixture {
            disk,
            clock,
            store,
            stream,
        }
    }

    fn append(&self, subject: &str, ttl: Option<Ttl>) -> u64 {
        self.append_with(subject, ttl, false)
    }

    fn append_with(&self, subject: &str, ttl: Option<Ttl>, leaves_no_marker: bool) -> u64 {
        let append = Append {
            subject: subject.as_bytes(),
            payload: b"value",
            ttl,
            leaves_no_marker,
            ..Append::default()
        };
        self.stream.append_nosync(&append).expect("accepted").seq.0
    }

    /// Sets the time, in seconds after the start, and does what is due.
    fn at(&self, seconds: i64) {
        self.clock.set_ns(START + seconds * SECOND);
        self.store.step().expect("maintenance");
        self.store.commit();
    }

    fn seal(&self) {
        self.store.checkpoint().expect("sealed");
    }

    /// Closes and opens the store after `seconds`; nothing was done about what is due yet.
    fn restart_at(&mut self, seconds: i64) {
        self.store.close();
        self.disk = self.disk.kill_process();
        self.clock.set_ns(START + seconds * SECOND);
        self.store = open(&self.disk, &self.clock);
        self.stream = self.store.stream("S").expect("the stream");
    }

    /// Live sequences that can be read, and those among them that are markers.
    fn live(&self) -> (Vec<u64>, Vec<u64>) {
        let (mut live, mut markers) = (Vec::new(), Vec::new());
        for seq in 0..=self.stream.state().last_seq.0 {
            if let Some(message) = self.stream.get(Seq(seq)).expect("readable") {
                live.push(seq);
                if message.is_delete_marker() {
                    markers.push(seq);
                }
            }
        }
        assert_eq!(self.stream.state().msgs, live.len() as u64);
        (live, markers)
    }

    #[track_caller]
    fn check(&self, live: &[u64], markers: &[u64]) {
        assert_eq!(self.live(), (live.to_vec(), markers.to_vec()));
        let bytes: u64 = live
            .iter()
            .filter_map(|seq| self.stream.get(Seq(*seq)).expect("readable"))
            .map(|message| {
                let storage = self.stream.config().storage;
                let (headers, payload) = (message.headers().len(), message.payload().len());
                riverlog_engine::limits::accounted_bytes(
                    storage,
                    message.subject().len(),
                    headers,
                    payload,
                )
            })
            .sum();
        assert_eq!(self.stream.state().bytes, bytes, "accounted bytes");
    }
}

fn secs(seconds: i64) -> Option<Ttl> {
    let ttl_ns = (seconds * SECOND) as u64;
    Some(Ttl::For { ttl_ns })
}

/// Where the messages of a test are when they expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Memory,
    Tail,
    Sealed,
    /// Sealed, and the store was opened again.
    Reopened,
}

const PLACES: [Place; 4] = [Place::Memory, Place::Tail, Place::Sealed, Place::Reopened];

fn in_place(place: Place, config: StreamConfig, fill: impl Fn(&Fixture)) -> Fixture {
    let storage = match place {
        Place::Memory => Storage::Memory,
        _ => Storage::File,
    };
    let mut fixture = Fixture::new(StreamConfig { storage, ..config });
    fill(&fixture);
    fixture.store.commit();
    if matches!(place, Place::Sealed | Place::Reopened) {
        fixture.seal();
    }
    if place == Place::Reopened {
        fixture.restart_at(0);
    }
    fixture
}

#[test]
fn the_earlier_of_life_time_and_maximum_age_counts() {
    for place in PLACES {
        let config = StreamConfig {
            age_max_ns: Some((20 * SECOND) as u64),
            ..config()
        };
        let fixture = in_place(place, config, |fixture| {
            fixture.append("a", secs(10));
            fixture.append("b", None);
            fixture.append("c", secs(30));
            fixture.append("d", Some(Ttl::Never));
            fixture.append("e", secs(5));
            fixture.append("f", None);
        });
        let message = fixture.stream.get(Seq(1)).expect("readable").expect("live");
        assert_eq!(message.ttl(), secs(10));
        for (seconds, live) in [
            (4, &[1, 2, 3, 4, 5, 6][..]),
            (5, &[1, 2, 3, 4, 6]),
            (9, &[1, 2, 3, 4, 6]),
            (10, &[2, 3, 4, 6]),
            (19, &[2, 3, 4, 6]),
            (20, &[4]),
            (1_000_000, &[4]),
        ] {
            fixture.at(seconds);
            assert_eq!(fixture.live().0, live, "{place:?} after {seconds} s");
        }
        fixture.check(&[4], &[]);
        // Behind the one that stays, messages expire as before.
        assert_eq!(fixture.append("g", None), 7);
        fixture.at(1_000_019);
        fixture.check(&[4, 7], &[]);
        fixture.at(1_000_020);
        fixture.check(&[4], &[]);
    }
}

#[test]
fn what_expired_while_the_store_was_closed_is_removed_and_marked_in_the_first_round() {
    for sealed in [false, true] {
        let mut fixture = Fixture::new(StreamConfig {
            delete_marker: marker(),
            ..config()
        });
        fixture.append("a", secs(10));
        fixture.append("b", secs(20));
        fixture.append("c", None);
        if sealed {
            fixture.seal();
        }
        fixture.store.commit();
        fixture.restart_at(15);
        fixture.check(&[1, 2, 3], &[]);
        fixture.at(15);
        fixture.check(&[2, 3, 4], &[4]);
        let found = fixture.stream.get(Seq(4)).expect("readable").expect("live");
        assert_eq!((found.subject(), found.payload()), (&b"a"[..], &b""[..]));
        assert_eq!(found.headers(), b"reason: age");
        assert_eq!(found.ts, TimestampNs(START + 15 * SECOND));
        assert_eq!(found.ttl(), secs(100));
        fixture.restart_at(16);
        fixture.check(&[2, 3, 4], &[4]);
        fixture.at(16);
        fixture.check(&[2, 3, 4], &[4]);
        fixture.at(115);
        fixture.check(&[3, 5], &[5]);
    }
}

#[test]
fn a_marker_is_left_once_and_not_for_messages_that_say_so() {
    for place in PLACES {
        let config = StreamConfig {
            delete_marker: marker(),
            ..config()
        };
        let fixture = in_place(place, config, |fixture| {
            fixture.append("last", secs(10));
            fixture.append_with("purged", secs(10), true);
        });
        fixture.at(10);
        fixture.check(&[3], &[3]);
        fixture.at(109);
        fixture.check(&[3], &[3]);
        fixture.at(110);
        fixture.check(&[], &[]);
        assert_eq!(fixture.stream.state().last_seq, Seq(3), "{place:?}");
    }
}

#[test]
fn the_maximum_age_leaves_markers_as_well() {
    for place in PLACES {
        let config = StreamConfig {
            age_max_ns: Some((10 * SECOND) as u64),
            delete_marker: marker(),
            ..config()
        };
        let fixture = in_place(place, config, |fixture| {
            fixture.append("a", None);
            fixture.append("b", None);
            fixture.append("a", None);
            fixture.append_with("c", None, true);
        });
        fixture.at(10);
        // In the order of the messages they replace, and subject to the maximum age themselves.
        fixture.check(&[5, 6], &[5, 6]);
        let subject = |seq| {
            let message = fixture
                .stream
                .get(Seq(seq))
                .expect("readable")
                .expect("live");
            message.subject().to_vec()
        };
        assert_eq!((subject(5), subject(6)), (b"b".to_vec(), b"a".to_vec()));
        fixture.at(20);
        fixture.check(&[], &[]);
    }
}

#[test]
fn no_marker_while_the_subject_has_another_message() {
    for place in PLACES {
        let config = StreamConfig {
            delete_marker: marker(),
            ..config()
        };
        let fixture = in_place(place, config, |fixture| {
            fixture.append("older", None);
            fixture.append("older", secs(10));
            fixture.append("newer", secs(10));
            fixture.append("newer", None);
            fixture.append("gone", secs(10));
            fixture.append("in.tail", secs(10));
        });
        // Added behind what is sealed.
        assert_eq!(fixture.append("in.tail", None), 7);
        fixture.stream.delete(Seq(5)).expect("deleted");
        fixture.at(10);
        fixture.check(&[1, 4, 7], &[]);
    }
}

#[test]
fn limits_deletes_and_purges_leave_no_marker() {
    for place in PLACES {
        let config = StreamConfig {
            delete_marker: marker(),
            msgs_max: Some(4),
            msgs_per_subject_max: Some(1),
            ..config()
        };
        let fixture = in_place(place, config, |fixture| {
            for subject in ["a", "b", "c", "d", "e"] {
                fixture.append(subject, secs(10));
            }
        });
        fixture.stream.delete(Seq(2)).expect("deleted");
        let request = PurgeRequest {
            filter: Some(Filter::new(b"c").expect("a filter")),
            ..PurgeRequest::default()
        };
        fixture.stream.purge(&request).expect("purged");
        fixture.append("d", None);
        fixture.at(9);
        fixture.check(&[5, 6], &[]);
        fixture.at(10);
        fixture.check(&[6, 7], &[7]);
    }
}

#[test]
fn a_consumer_gets_the_marker() {
    let fixture = Fixture::new(StreamConfig {
        delete_marker: marker(),
        ..config()
    });
    let (consumer, _) = fixture
        .stream
        .create_consumer(ConsumerConfig {
            name: "C".into(),
            ack: AckPolicy::Explicit,
            ..ConsumerConfig::default()
        })
        .expect("a consumer");
    fixture.append("a", secs(1));
    fixture.at(2);
    let now = TimestampNs(START + 2 * SECOND);
    match consumer.next(now, &mut |_| true).expect("readable") {
        Next::Message(delivery) => {
            assert_eq!(delivery.message.seq, Seq(2));
            assert!(delivery.message.is_delete_marker());
        }
        _ => panic!("nothing was delivered"),
    }
}

#[test]
fn nobody_is_told_of_a_subject_without_interest() {
    let fixture = Fixture::new(StreamConfig {
        delete_marker: marker(),
        retention: Retention::Interest,
        ..config()
    });
    let consumer = ConsumerConfig {
        name: "C".into(),
        ack: AckPolicy::Explicit,
        filters: vec!["a".into()],
        ..ConsumerConfig::default()
    };
    let (_, _) = fixture
        .stream
        .create_consumer(consumer)
        .expect("a consumer");
    fixture.append("a", secs(1));
    fixture.stream.delete_consumer("C").expect("deleted");
    fixture.at(2);
    fixture.check(&[], &[]);
}

#[test]
fn a_marker_does_not_break_the_limit_of_bytes() {
    let fixture = Fixture::new(StreamConfig {
        delete_marker: Some(DeleteMarker {
            headers: vec![b'h'; 200],
            ttl_ns: MARKER_TTL as u64,
        }),
        bytes_max: Some(300),
        discard: Discard::Old,
        ..config()
    });
    for subject in ["a", "b", "c"] {
        fixture.append(subject, Some(Ttl::Never));
    }
    fixture.append("d", secs(1));
    fixture.at(1);
    fixture.check(&[3, 5], &[5]);
}

#[test]
fn a_new_maximum_age_counts_at_once_and_never_stays_never() {
    for place in PLACES {
        let fixture = in_place(place, config(), |fixture| {
            fixture.append("a", Some(Ttl::Never));
            fixture.append("b", None);
            fixture.append("c", Some(Ttl::Never));
            fixture.append("d", None);
        });
        fixture.at(50);
        fixture.append("e", None);
        fixture.store.commit();
        fixture.check(&[1, 2, 3, 4, 5], &[]);
        let aged = |seconds: i64| StreamConfig {
            age_max_ns: Some((seconds * SECOND) as u64),
            ..fixture.stream.config()
        };
        fixture.stream.update_config(aged(40)).expect("updated");
        fixture.at(50);
        fixture.check(&[1, 3, 5], &[]);
        fixture.stream.update_config(aged(60)).expect("updated");
        fixture.at(109);
        fixture.check(&[1, 3, 5], &[]);
        fixture.at(110);
        fixture.check(&[1, 3], &[]);
    }
}

/// A clock that was ahead has left a time in the future; one that goes back makes nothing older.
#[test]
fn a_clock_that_jumps_removes_nothing_early() {
    let mut fixture = Fixture::new(StreamConfig {
        age_max_ns: Some((10 * SECOND) as u64),
        ..config()
    });
    fixture.at(1_000);
    fixture.append("a", secs(5));
    fixture.append("b", None);
    fixture.at(0);
    fixture.append("c", secs(5));
    fixture.seal();
    fixture.append("d", secs(2));
    fixture.at(999);
    fixture.check(&[1, 2, 3, 4], &[]);
    fixture.restart_at(0);
    fixture.at(1_001);
    fixture.check(&[1, 2, 3, 4], &[]);
    fixture.at(1_002);
    fixture.check(&[1, 2, 3], &[]);
    fixture.at(1_005);
    fixture.check(&[2], &[]);
    fixture.at(1_010);
    fixture.check(&[], &[]);
}

/// Times at the ends of what a time can be.
#[test]
fn extreme_life_times_neither_wrap_nor_stop_others() {
    let fixture = Fixture::new(StreamConfig {
        age_max_ns: Some(u64::MAX),
        ..config()
    });
    fixture.append("a", Some(Ttl::For { ttl_ns: u64::MAX }));
    fixture.append("b", Some(Ttl::For { ttl_ns: 0 }));
    fixture.append("c", secs(1));
    fixture.seal();
    fixture.at(0);
    fixture.check(&[1, 3], &[]);
    fixture.at(1);
    fixture.check(&[1], &[]);
}

/// A small generator: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// What a message of [`many`] is to do.
struct Expected {
    subject: String,
    due: i64,
}

/// Appends, checkpoints, restarts and waits at random, and compares with a map.
fn many(seed: u64, damage: impl Fn(&SimDisk)) {
    let mut fixture = Fixture::new(StreamConfig {
        age_max_ns: Some((500 * SECOND) as u64),
        delete_marker: marker(),
        ..config()
    });
    let mut numbers = Numbers(seed);
    let mut expected: BTreeMap<u64, Expected> = BTreeMap::new();
    let mut now = 0;
    for round in 0..32 {
        for _ in 0..numbers.below(120) {
            let subject = format!("s.{}", numbers.below(60));
            let (ttl, life) = match numbers.below(5) {
                0 => (None, 500),
                1 => (Some(Ttl::Never), i64::MAX / 2),
                _ => {
                    let life = 1 + numbers.below(900) as i64;
                    (secs(life), life.min(500))
                }
            };
            let seq = fixture.append(&subject, ttl);
            let due = now + life;
            expected.insert(seq, Expected { subject, due });
        }
        fixture.store.commit();
        match round % 4 {
            0 => fixture.seal(),
            3 => {
                damage(&fixture.disk);
                fixture.restart_at(now);
            }
            _ => {}
        }
        now += numbers.below(60) as i64;
        fixture.at(now);
        let gone: Vec<String> = expected
            .values()
            .filter(|message| message.due <= now)
            .map(|message| message.subject.clone())
            .collect();
        expected.retain(|_, message| message.due > now);
        let left: BTreeSet<&str> = expected.values().map(|m| m.subject.as_str()).collect();
        let gone: BTreeSet<&str> = gone.iter().map(String::as_str).collect();
        let marked: BTreeSet<&str> = gone.difference(&left).copied().collect();
        let (live, markers) = fixture.live();
        let values: Vec<u64> = live
            .iter()
            .filter(|seq| !markers.contains(seq))
            .copied()
            .collect();
        assert_eq!(
            values,
            expected.keys().copied().collect::<Vec<u64>>(),
            "seed {seed}, round {round}"
        );
        let subject_of = |seq: &u64| {
            let message = fixture
                .stream
                .get(Seq(*seq))
                .expect("readable")
                .expect("live");
            (
                String::from_utf8(message.subject().to_vec()).expect("text"),
                message.ts.0,
            )
        };
        let fresh: Vec<String> = markers
            .iter()
            .map(subject_of)
            .filter(|(_, ts)| *ts == START + now * SECOND)
            .map(|(subject, _)| subject)
            .collect();
        let distinct: BTreeSet<&str> = fresh.iter().map(String::as_str).collect();
        assert_eq!(distinct, marked, "seed {seed}, round {round}");
        // A round in which no time passes can follow another one.
        assert!(fresh.len() >= distinct.len());
        for seq in &markers {
            let (_, ts) = subject_of(seq);
            assert!(ts + MARKER_TTL > START + now * SECOND, "marker {seq} stays");
        }
    }
}

#[test]
fn messages_over_many_files_leave_exactly_when_they_are_due() {
    for seed in 1..=2 {
        many(seed, |_| {});
    }
}

/// Changes every page of timers in every sealed file.
fn damage_timers(disk: &SimDisk) {
    for (path, len) in disk.files() {
        if !path.ends_with(".seg") {
            continue;
        }
        let bytes = disk.read_file(&path).expect("readable");
        let footer = (len - 128) as usize;
        let number = bytes[footer + 40..footer + 48].try_into().expect("eight");
        let pages = u64::from_le_bytes(number) as usize;
        for page in (pages..footer).step_by(4096) {
            if [9, 10].contains(&bytes[page + 8]) {
                disk.corrupt(&path, page as u64 + 100, 0x40).expect("there");
            }
        }
    }
}

#[test]
fn damaged_timer_pages_lose_no_expiry() {
    many(4, damage_timers);
}

/// What copies messages into another file copies their timers with them.
#[test]
fn compacted_messages_expire_and_are_reported_as_before() {
    let mut fixture = Fixture::new(StreamConfig {
        delete_marker: marker(),
        ..config()
    });
    for n in 0..4_000_u64 {
        let subject = format!("s.{n}");
        let append = Append {
            subject: subject.as_bytes(),
            payload: &[b'x'; 100],
            ttl: secs(if n % 100 == 0 { 50 } else { 5 }),
            leaves_no_marker: n % 100 != 0,
            notify_at: (n % 200 == 0).then_some(TimestampNs(START + n as i64)),
            ..Append::default()
        };
        fixture.stream.append_nosync(&append).expect("accepted");
        if n % 1_000 == 999 {
            fixture.seal();
        }
    }
    let files = |fixture: &Fixture| {
        let files = fixture.disk.files().into_iter();
        let bytes = files.filter(|(path, _)| path.ends_with(".seg"));
        bytes.map(|(_, len)| len).sum::<u64>()
    };
    let before = files(&fixture);
    fixture.at(5);
    fixture.seal();
    fixture.store.compact().expect("compacted");
    let after = files(&fixture);
    assert!(after < before / 4, "{after} of {before} bytes");
    fixture.restart_at(6);
    let due = fixture
        .stream
        .due_notices(TimestampNs(START + 1_000), 10)
        .expect("readable");
    let due: Vec<u64> = due.iter().map(|(seq, _)| seq.0).collect();
    assert_eq!(due, [1, 201, 401, 601, 801, 1_001]);
    fixture.at(49);
    assert_eq!(fixture.stream.state().msgs, 40);
    fixture.at(50);
    let markers: Vec<u64> = (4_001..=4_040).collect();
    fixture.check(&markers, &markers);
    assert_eq!(fixture.stream.next_notice(), None);
}

/// What cannot be read now is tried again later, and other files and the tail do not wait for it.
#[test]
fn a_failing_disk_delays_an_expiry_and_loses_none() {
    let mut fixture = Fixture::new(StreamConfig {
        delete_marker: marker(),
        ..config()
    });
    fixture.append("a", secs(5));
    fixture.seal();
    fixture.append("b", secs(5));
    fixture.store.commit();
    // With an empty cache, and "b" in the tail.
    fixture.restart_at(0);
    fixture.append("c", secs(5));
    fixture
        .disk
        .inject_on(".seg", Fault::ReadError, Trigger::Always);
    fixture.at(6);
    assert_eq!(fixture.stream.state().msgs, 3, "a, b, and the marker of c");
    fixture.disk.clear_faults();
    fixture.at(15);
    assert_eq!(
        fixture.stream.state().msgs,
        3,
        "not before the pause is over"
    );
    fixture.at(16);
    fixture.check(&[4, 5, 6], &[4, 5, 6]);
}

/// A restart knows which messages live for ever without reading them again.
#[test]
fn messages_that_live_for_ever_are_passed_over_once() {
    let mut fixture = Fixture::new(StreamConfig {
        age_max_ns: Some(SECOND as u64),
        ..config()
    });
    for n in 0..8_000 {
        fixture.append(&format!("s.{n}"), Some(Ttl::Never));
    }
    fixture.seal();
    fixture.append("last", None);
    fixture.seal();
    fixture.at(1);
    assert_eq!(fixture.stream.state().msgs, 8_000);
    fixture.append("next", None);
    fixture.seal();
    fixture.restart_at(1);
    let before = fixture.disk.ops();
    let (removed, next) = fixture
        .stream
        .expire(TimestampNs(START + 2 * SECOND))
        .expect("expired");
    assert_eq!((removed.msgs, next), (1, None));
    let ops = fixture.disk.ops() - before;
    assert!(ops < 20, "{ops} operations for one message");
}

#[test]
fn tails_keep_timers_only_of_messages_that_have_them() {
    let fixture = Fixture::new(config());
    for _ in 0..1_000 {
        fixture.append("s", secs(10));
    }
    let with = fixture.store.status().tail_bytes;
    fixture.seal();
    let sealed = fixture.store.status().tail_bytes;
    assert_eq!(sealed, 0);
    for _ in 0..1_000 {
        fixture.append("s", None);
    }
    let without = fixture.store.status().tail_bytes;
    assert!(with > without && without > 0);
    fixture.at(10);
    assert_eq!(fixture.stream.state().msgs, 1_000);
}
