//! Limits, conditions, deduplication and removal at the public API, on both kinds of storage; file
//! streams are sealed and restarted in between.

use std::path::Path;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{Fault, SimClock, SimDisk, Trigger};
use riverlog_engine::{
    Append, AppendError, Discard, ExpectSubject, Filter, PurgeRequest, Rollup, Seq, Storage, Store,
    StoreOptions, Stream, StreamConfig, Threads,
};

const START_NS: i64 = 1_700_000_000_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

struct Fixture {
    disk: SimDisk,
    clock: SimClock,
    store: Store,
    stream: Stream,
    storage: Storage,
}

fn open(disk: &SimDisk, clock: &SimClock, seed: u64) -> Store {
    let mut options = StoreOptions::default();
    options.threads = Threads::Manual;
    options.wal.file_bytes = 1 << 20;
    let env = Env::simulated(disk, clock, seed);
    Store::open_in(env, Path::new("/data"), options)
        .expect("a store")
        .0
}

/// Runs a test on a file stream and on a memory stream.
fn on_both(config: StreamConfig, test: impl Fn(&mut Fixture)) {
    for storage in [Storage::File, Storage::Memory] {
        let (disk, clock) = (SimDisk::new(1), SimClock::new(START_NS));
        let store = open(&disk, &clock, 1);
        let config = StreamConfig {
            name: "S".into(),
            storage,
            ..config.clone()
        };
        let (stream, _) = store.create_stream(config).expect("a stream");
        test(&mut Fixture {
            disk,
            clock,
            store,
            stream,
            storage,
        });
    }
}

fn message<'a>(subject: &'a str, payload: &'a str) -> Append<'a> {
    Append {
        subject: subject.as_bytes(),
        payload: payload.as_bytes(),
        ..Append::default()
    }
}

impl Fixture {
    fn append(&self, append: &Append<'_>) -> Result<u64, AppendError> {
        let done = self.stream.append(append);
        self.store.commit();
        done.map(|done| done.seq.0)
    }

    fn accepted(&self, subject: &str) -> u64 {
        self.append(&message(subject, "payload")).expect("accepted")
    }

    /// The process dies and starts again, with sealed data or without; a memory stream stays.
    fn restart(&mut self, seal: bool) {
        if self.storage == Storage::Memory {
            return;
        }
        if seal {
            self.store.checkpoint().expect("a checkpoint");
        }
        self.disk = self.disk.kill_process();
        self.store = open(&self.disk, &self.clock, 2);
        self.stream = self.store.stream("S").expect("the stream");
    }

    fn live(&self) -> Vec<u64> {
        let last = self.stream.state().last_seq.0;
        (0..=last + 1)
            .filter(|seq| self.stream.get(Seq(*seq)).expect("an answer").is_some())
            .collect()
    }

    fn purge(&self, filter: Option<&str>, below: Option<u64>, keep: Option<u64>) -> u64 {
        let filter = filter.map(|filter| Filter::new(filter.as_bytes()).expect("a filter"));
        let request = PurgeRequest {
            filter,
            below: below.map(Seq),
            keep,
        };
        let (purged, _) = self.stream.purge(&request).expect("purged");
        self.store.commit();
        purged
    }
}

#[test]
fn the_oldest_messages_give_way() {
    let config = StreamConfig {
        msgs_max: Some(3),
        ..StreamConfig::default()
    };
    on_both(config, |f| {
        for _ in 0..5 {
            f.accepted("a");
        }
        assert_eq!(f.live(), [3, 4, 5]);
        f.restart(true);
        f.accepted("a");
        f.restart(false);
        assert_eq!(f.live(), [4, 5, 6]);
        f.stream.delete(Seq(5)).expect("deleted");
        f.accepted("a");
        assert_eq!(f.live(), [4, 6, 7]);
    });
}

#[test]
fn bytes_count_subject_payload_and_overhead() {
    on_both(StreamConfig::default(), |f| {
        f.accepted("abc");
        let overhead = match f.storage {
            Storage::File => 30,
            Storage::Memory => 16,
        };
        assert_eq!(f.stream.state().bytes, 3 + 7 + overhead);
        let size = f.stream.state().bytes;
        let mut config = f.stream.config();
        config.bytes_max = Some(3 * size);
        f.stream.update_config(config).expect("updated");
        for _ in 0..4 {
            f.accepted("abc");
        }
        f.restart(true);
        assert_eq!(f.live(), [3, 4, 5]);
        // One large message takes the place of two.
        let large = "x".repeat(7 + size as usize);
        f.append(&message("abc", &large)).expect("accepted");
        assert_eq!(f.live(), [5, 6]);
    });
}

#[test]
fn a_stricter_limit_applies_to_what_is_stored() {
    on_both(StreamConfig::default(), |f| {
        for n in 0..6 {
            f.accepted(if n % 2 == 0 { "a" } else { "b" });
        }
        f.restart(true);
        let mut config = f.stream.config();
        config.msgs_per_subject_max = Some(2);
        f.stream.update_config(config.clone()).expect("updated");
        f.store.commit();
        assert_eq!(f.live(), [3, 4, 5, 6]);
        config.msgs_max = Some(1);
        f.stream.update_config(config).expect("updated");
        f.store.commit();
        f.restart(false);
        assert_eq!(f.live(), [6]);
        assert_eq!(f.stream.config().msgs_max, Some(1));
    });
}

#[test]
fn discard_new_refuses_and_leaves_no_trace() {
    let config = StreamConfig {
        msgs_max: Some(2),
        discard: Discard::New,
        ..StreamConfig::default()
    };
    on_both(config, |f| {
        f.accepted("a");
        f.accepted("a");
        f.restart(true);
        let before = f.stream.state();
        let refused = f.append(&message("a", "payload"));
        assert!(
            matches!(refused, Err(AppendError::MsgsExceeded)),
            "{refused:?}"
        );
        assert_eq!(f.stream.state(), before);
        f.stream.delete(Seq(1)).expect("deleted");
        assert_eq!(f.accepted("a"), 3);
    });
}

/// With a limit per subject, a message that replaces one of its own subject is taken (T-13), unless
/// the stream refuses those as well.
#[test]
fn discard_new_with_a_limit_per_subject() {
    let config = StreamConfig {
        msgs_max: Some(2),
        msgs_per_subject_max: Some(1),
        discard: Discard::New,
        ..StreamConfig::default()
    };
    on_both(config.clone(), |f| {
        f.accepted("a");
        f.accepted("b");
        f.restart(true);
        assert_eq!(f.accepted("a"), 3);
        assert_eq!(f.live(), [2, 3]);
        let refused = f.append(&message("c", ""));
        assert!(
            matches!(refused, Err(AppendError::MsgsExceeded)),
            "{refused:?}"
        );
    });
    let strict = StreamConfig {
        discard_new_per_subject: true,
        ..config
    };
    on_both(strict, |f| {
        f.accepted("a");
        f.restart(true);
        let refused = f.append(&message("a", ""));
        assert!(
            matches!(refused, Err(AppendError::MsgsPerSubjectExceeded)),
            "{refused:?}"
        );
        assert_eq!(f.accepted("b"), 2);
    });
}

#[test]
fn a_message_id_outlives_its_message_and_the_process() {
    let config = StreamConfig {
        dedup_window_ns: 60 * SECOND_NS,
        ..StreamConfig::default()
    };
    on_both(config, |f| {
        let with_id = Append {
            msg_id: Some(b"order-1"),
            ..message("a", "payload")
        };
        assert_eq!(f.append(&with_id).expect("accepted"), 1);
        f.accepted("a");
        for step in 0..4 {
            match step {
                0 => f.restart(false),
                1 => assert_eq!(f.purge(None, None, None), 2),
                2 => f.restart(true),
                _ => f.clock.advance_ns(59 * SECOND_NS as i64),
            }
            let again = f.stream.append_nosync(&with_id).expect("an answer");
            assert!(again.duplicate, "step {step}");
            assert_eq!(again.seq, Seq(1), "step {step}");
        }
        f.clock.advance_ns(SECOND_NS as i64);
        assert_eq!(f.append(&with_id).expect("accepted"), 3);
    });
}

#[test]
fn conditions_see_sealed_and_fresh_messages() {
    on_both(StreamConfig::default(), |f| {
        f.accepted("a.1");
        f.accepted("b.1");
        f.restart(true);
        let expect = |seq, filter| Append {
            expect_last_subject_seq: Some(ExpectSubject { seq, filter }),
            ..message("a.1", "")
        };
        let wrong = f.append(&expect(0, None));
        assert!(
            matches!(wrong, Err(AppendError::WrongLastSeq(1))),
            "{wrong:?}"
        );
        assert_eq!(f.append(&expect(1, None)).expect("accepted"), 3);
        let all_b = Filter::new(b"b.*").expect("a filter");
        assert_eq!(f.append(&expect(2, Some(&all_b))).expect("accepted"), 4);
        let last = Append {
            expect_last_seq: Some(3),
            ..message("c", "")
        };
        let wrong = f.append(&last);
        assert!(
            matches!(wrong, Err(AppendError::WrongLastSeq(4))),
            "{wrong:?}"
        );
        // A deleted message does not count for its subject.
        f.stream.delete(Seq(4)).expect("deleted");
        f.restart(true);
        assert_eq!(f.append(&expect(3, None)).expect("accepted"), 5);
        f.purge(Some("a.1"), None, None);
        assert_eq!(f.append(&expect(0, None)).expect("accepted"), 6);
    });
}

#[test]
fn the_last_message_id_is_a_condition() {
    on_both(StreamConfig::default(), |f| {
        let first = Append {
            msg_id: Some(b"one"),
            ..message("a", "")
        };
        f.append(&first).expect("accepted");
        f.restart(true);
        let wrong = Append {
            expect_last_msg_id: Some(b"zero"),
            ..message("a", "")
        };
        match f.append(&wrong) {
            Err(AppendError::WrongLastMsgId(found)) => assert_eq!(found, "one"),
            other => panic!("{other:?}"),
        }
        let right = Append {
            expect_last_msg_id: Some(b"one"),
            ..message("a", "")
        };
        assert_eq!(f.append(&right).expect("accepted"), 2);
    });
}

#[test]
fn a_rollup_replaces_its_subject_or_everything() {
    on_both(StreamConfig::default(), |f| {
        for subject in ["a", "b", "a"] {
            f.accepted(subject);
        }
        f.restart(true);
        f.accepted("a");
        let of_subject = Append {
            rollup: Some(Rollup::Subject),
            ..message("a", "")
        };
        f.append(&of_subject).expect("accepted");
        assert_eq!(f.live(), [2, 5]);
        f.restart(false);
        assert_eq!(f.live(), [2, 5]);
        let of_all = Append {
            rollup: Some(Rollup::All),
            ..message("c", "")
        };
        f.append(&of_all).expect("accepted");
        f.restart(true);
        assert_eq!(f.live(), [6]);
        assert_eq!(f.stream.state().first_seq, Seq(6));
    });
}

#[test]
fn purges_by_subject_position_and_count() {
    on_both(StreamConfig::default(), |f| {
        for n in 0..10 {
            f.accepted(if n % 2 == 0 { "a.x" } else { "b.x" });
        }
        f.restart(true);
        assert_eq!(f.purge(Some("a.*"), Some(4), None), 2);
        assert_eq!(f.live(), [2, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(f.purge(Some("b.x"), None, Some(2)), 3);
        f.restart(false);
        assert_eq!(f.live(), [5, 7, 8, 9, 10]);
        assert_eq!(f.purge(None, None, Some(3)), 2);
        assert_eq!(f.live(), [8, 9, 10]);
        assert_eq!(f.purge(None, Some(10), None), 2);
        assert_eq!(f.purge(Some("nothing"), None, None), 0);
        f.restart(true);
        assert_eq!(f.live(), [10]);
    });
}

/// A position behind the end moves the end (T-05); a purged stream goes on counting.
#[test]
fn a_purge_of_everything_moves_the_first_sequence() {
    on_both(StreamConfig::default(), |f| {
        for _ in 0..3 {
            f.accepted("a");
        }
        assert_eq!(f.purge(None, None, None), 3);
        f.restart(true);
        let state = f.stream.state();
        assert_eq!(
            (state.first_seq, state.last_seq, state.msgs),
            (Seq(4), Seq(3), 0)
        );
        assert_eq!(state.bytes, 0);
        f.accepted("a");
        assert_eq!(f.purge(None, Some(100), None), 1);
        f.restart(false);
        assert_eq!(f.accepted("a"), 100);
    });
}

#[test]
fn messages_expire_in_order_of_their_age() {
    let config = StreamConfig {
        age_max_ns: Some(10 * SECOND_NS),
        ..StreamConfig::default()
    };
    on_both(config, |f| {
        for _ in 0..4 {
            f.accepted("a");
            f.clock.advance_ns(3 * SECOND_NS as i64);
        }
        // The first is 12 seconds old, the second 9.
        f.store.step().expect("upkeep");
        assert_eq!(f.live(), [2, 3, 4]);
        f.restart(true);
        f.clock.advance_ns(SECOND_NS as i64);
        f.store.step().expect("upkeep");
        assert_eq!(f.live(), [3, 4]);
        f.clock.advance_ns(60 * SECOND_NS as i64);
        f.restart(false);
        f.store.step().expect("upkeep");
        assert!(f.live().is_empty());
        assert_eq!(f.stream.state().last_seq, Seq(4));
    });
}

/// The second file cannot be read: nothing of the first one leaves either.
#[test]
fn a_purge_that_fails_removes_nothing() {
    let (disk, clock) = (SimDisk::new(1), SimClock::new(START_NS));
    let store = open(&disk, &clock, 1);
    let config = StreamConfig {
        name: "S".into(),
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("a stream");
    for _ in 0..2 {
        for _ in 0..10 {
            stream
                .append_nosync(&message("s", "payload"))
                .expect("stored");
        }
        store.checkpoint().expect("sealed");
    }
    let state = stream.state();
    let request = PurgeRequest {
        below: Some(Seq(15)),
        ..PurgeRequest::default()
    };
    // Reads of the first file only are allowed.
    let second = disk.files().into_iter().map(|(path, _)| path);
    let second = second.filter(|path| path.ends_with(".seg")).max();
    disk.inject_on(
        &second.expect("two files"),
        Fault::ReadError,
        Trigger::Always,
    );
    assert!(stream.purge(&request).is_err());
    assert_eq!(stream.state(), state);
    disk.clear_faults();
    let (purged, _) = stream.purge(&request).expect("purged");
    assert_eq!((purged, stream.state().first_seq), (14, Seq(15)));
}
