//! An acknowledgement and the removal it causes are one unit of the log: wherever the power is cut,
//! a message whose acknowledgement came back is not in the stream, and one whose removal came back
//! is acknowledged.

mod support;

use std::path::Path;

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{Persist, SimClock, SimDisk};
use riverlog_engine::wal::queue::FRAME_PAYLOAD_BYTES_TARGET;
use riverlog_engine::{
    Append, Consumer, Next, Retention, Seq, Store, StoreOptions, Stream, StreamConfig, Threads,
    TimestampNs,
};

const NOW: TimestampNs = TimestampNs(1_700_000_000_000_000_000);
const MESSAGES: u64 = 4;

fn options() -> StoreOptions {
    let mut options = support::options();
    options.threads = Threads::Manual;
    options.wal.file_bytes = 2 << 20;
    options.tail_bytes_max = 16 << 20;
    options
}

fn open(disk: &SimDisk) -> Result<Store, String> {
    let env = Env::simulated(disk, &SimClock::new(NOW.0), 1);
    let opened = Store::open_in(env, Path::new(support::DIR), options());
    opened.map(|(store, _)| store).map_err(|e| e.to_string())
}

fn append(stream: &Stream, subject: &[u8], payload: &[u8]) -> Result<(), String> {
    let append = Append {
        subject,
        payload,
        ..Append::default()
    };
    stream
        .append_nosync(&append)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn next(consumer: &Consumer) -> Option<u64> {
    match consumer.next(NOW, &mut |_| true).expect("readable") {
        Next::Message(delivery) => Some(delivery.message.seq.0),
        _ => None,
    }
}

/// A stream with a consumer to which every message is delivered, all of it sealed.
fn prepared(retention: Retention, ack: AckPolicy) -> SimDisk {
    let disk = SimDisk::new(3);
    let store = open(&disk).expect("opens");
    let (stream, _) = store
        .create_stream(StreamConfig {
            name: "S".into(),
            retention,
            ..StreamConfig::default()
        })
        .expect("created");
    let (consumer, _) = stream
        .create_consumer(ConsumerConfig {
            name: "C".into(),
            durable: true,
            ack,
            ..ConsumerConfig::default()
        })
        .expect("created");
    (0..MESSAGES).for_each(|_| append(&stream, b"job", b"x").expect("accepted"));
    store.commit();
    if ack != AckPolicy::None {
        (1..=MESSAGES).for_each(|seq| assert_eq!(next(&consumer), Some(seq)));
    }
    store.checkpoint().expect("sealed");
    store.close();
    disk
}

/// Bytes that the filler leaves in its frame: less than its own fields and two operations take, so
/// that operations that are not one unit come apart there.
const ROOM_BYTES: usize = 31;

/// More changes of the disk than the commit of a few frames makes.
const CHANGES_MAX: u64 = 40;

/// Acknowledges in the middle of a large batch and cuts the power while that is committed. Returns
/// whether the power is still on.
fn run(disk: &SimDisk, ack: AckPolicy, changes: u64) -> Result<bool, String> {
    let store = open(disk)?;
    let stream = store.stream("S").ok_or("no stream")?;
    let consumer = stream.consumer("C").ok_or("no consumer")?;
    let filler = vec![0; FRAME_PAYLOAD_BYTES_TARGET - ROOM_BYTES];
    append(&stream, b"filler", &filler)?;
    match ack {
        AckPolicy::None => drop(next(&consumer)),
        AckPolicy::All => drop(consumer.ack(Seq(2), NOW)),
        AckPolicy::Explicit => drop(consumer.ack(Seq(2), NOW)),
    }
    disk.cut_power_after(changes);
    store.commit();
    let powered = disk.is_powered();
    disk.cut_power_now();
    Ok(powered)
}

/// What came back must be the state before the acknowledgement, or the state after it.
fn check(disk: &SimDisk, ack: AckPolicy) -> Result<(), String> {
    let store = open(disk)?;
    let stream = store.stream("S").ok_or("no stream")?;
    let consumer = stream.consumer("C").ok_or("no consumer")?;
    let live = |seq: &u64| stream.get(Seq(*seq)).expect("readable").is_some();
    let live: Vec<u64> = (1..=MESSAGES).filter(live).collect();
    let info = consumer.info();
    let open = match ack {
        AckPolicy::None => MESSAGES + 1 - consumer.position().0.min(MESSAGES + 1),
        AckPolicy::All | AckPolicy::Explicit => info.num_ack_pending,
    };
    if live.len() as u64 != open {
        return Err(format!(
            "stored are {live:?}, but {open} are open: {info:?}"
        ));
    }
    Ok(())
}

#[test]
fn an_acknowledged_message_is_gone_after_any_crash() {
    for (retention, ack) in [
        (Retention::WorkQueue, AckPolicy::Explicit),
        (Retention::Interest, AckPolicy::Explicit),
        (Retention::Interest, AckPolicy::All),
        (Retention::WorkQueue, AckPolicy::None),
    ] {
        let start = prepared(retention, ack);
        let mut powered = false;
        for changes in 0..CHANGES_MAX {
            if powered {
                break;
            }
            let disk = start.fork();
            powered = run(&disk, ack, changes).expect("the power is cut after the last call");
            for persist in [
                Persist::Everything,
                Persist::Nothing,
                Persist::LastWriteLost,
            ] {
                check(&disk.crash(persist), ack).unwrap_or_else(|error| {
                    panic!("{retention:?}, {ack:?}, {persist} after {changes} changes: {error}")
                });
            }
        }
        assert!(powered, "the cuts cover the commit");
    }
}
