//! A message larger than what the log keeps in reserve is admitted while there is room, and then does
//! not fit into the log any more. The checkpoint that makes room must not wait for it: it used to,
//! for ever, and nothing was acknowledged after that.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::{Append, AppendError, Seq, Store, Stream, StreamConfig, Threads};
use support::DIR;

fn open(disk: &SimDisk, threads: Threads) -> Store {
    let env = Env::simulated(disk, &SimClock::new(1_000), 1);
    let mut options = support::options();
    options.threads = threads;
    options.tail_bytes_max = 1 << 20;
    let (store, _) = Store::open_in(env, Path::new(DIR), options).expect("a store");
    store
}

fn stream(store: &Store, name: &str) -> Stream {
    let config = StreamConfig {
        name: name.into(),
        ..StreamConfig::default()
    };
    store.create_stream(config).expect("a stream").0
}

fn fill(stream: &Stream) -> u64 {
    let mut last = 0;
    loop {
        let append = Append {
            subject: b"large",
            payload: &[7; 40_000],
            ..Append::default()
        };
        match stream.append_nosync(&append) {
            Ok(done) => last = done.seq.0,
            Err(AppendError::Busy) => return last,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_checkpoint_makes_room_for_what_the_log_could_not_take() {
    let disk = SimDisk::new(1);
    let store = open(&disk, Threads::Manual);
    let stream = stream(&store, "S");
    for _ in 0..5 {
        let last = fill(&stream);
        store.step().expect("room is made");
        assert!(store.durable_lsn() >= store.barrier().lsn());
        assert!(stream.get(Seq(last)).expect("readable").is_some());
    }
}

#[test]
fn a_crash_after_such_a_checkpoint_loses_nothing_that_was_acknowledged() {
    for changes in 1..60 {
        let disk = SimDisk::new(1);
        let store = open(&disk, Threads::Manual);
        let stream = stream(&store, "S");
        fill(&stream);
        disk.cut_power_after(changes);
        let _ = store.step();
        let durable = (1..=stream.state().last_seq.0)
            .take_while(|seq| matches!(stream.get(Seq(*seq)), Ok(Some(_)) | Err(_)))
            .count() as u64;
        drop(store);
        let disk = disk.kill_process();
        let store = open(&disk, Threads::Manual);
        let stream = match store.stream("S") {
            Some(stream) => stream,
            None if durable == 0 => continue,
            None => panic!("the stream is gone after {changes} changes"),
        };
        for seq in 1..=durable {
            assert!(
                stream.get(Seq(seq)).expect("readable").is_some(),
                "{seq} of {durable} is gone after {changes} changes"
            );
        }
        let last = fill(&stream);
        store.step().expect("room is made");
        assert!(stream.get(Seq(last)).expect("readable").is_some());
    }
}

#[test]
fn many_writers_of_large_messages_never_stop_for_good() {
    let disk = SimDisk::new(1);
    let store = open(&disk, Threads::Background);
    let streams: Vec<Stream> = (0..6).map(|n| stream(&store, &format!("S{n}"))).collect();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for stream in &streams {
            scope.spawn(|| {
                for _ in 0..40 {
                    let append = Append {
                        subject: b"large",
                        payload: &[7; 30_000],
                        ..Append::default()
                    };
                    stream.append(&append).expect("stored");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), 240);
}
