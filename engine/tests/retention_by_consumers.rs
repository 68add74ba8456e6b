//! With interest retention the stored messages are exactly those that some consumer still needs:
//! through deletions, new filters, resets and a change of the retention itself, and wherever the
//! power is cut in between.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{CrashMatrix, Fault, SimClock, SimDisk, Trigger};
use riverlog_engine::{
    Append, Consumer, Next, Retention, Seq, Store, Stream, StreamConfig, TimestampNs,
};

const NOW: TimestampNs = TimestampNs(1_700_000_000_000_000_000);
const LATER: TimestampNs = TimestampNs(i64::MAX / 2);

type Outcome<T = ()> = Result<T, String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn open(disk: &SimDisk) -> Outcome<Store> {
    let env = Env::simulated(disk, &SimClock::new(NOW.0), 1);
    let opened = Store::open_in(env, Path::new(support::DIR), support::options());
    opened.map(|(store, _)| store).map_err(text)
}

fn stream_config(retention: Retention) -> StreamConfig {
    StreamConfig {
        name: "S".into(),
        retention,
        ..StreamConfig::default()
    }
}

fn consumer_config(name: &str, filters: &[&str], ack: AckPolicy) -> ConsumerConfig {
    ConsumerConfig {
        name: name.into(),
        durable: true,
        filters: filters.iter().map(|filter| (*filter).into()).collect(),
        ack,
        ack_wait_ns: 1_000_000_000,
        ..ConsumerConfig::default()
    }
}

fn add(stream: &Stream, name: &str, filters: &[&str]) -> Outcome<Consumer> {
    let config = consumer_config(name, filters, AckPolicy::Explicit);
    stream.create_consumer(config).map(|(c, _)| c).map_err(text)
}

fn append(stream: &Stream, subjects: &[&str]) -> Outcome {
    for subject in subjects {
        let append = Append {
            subject: subject.as_bytes(),
            ..Append::default()
        };
        stream.append_nosync(&append).map_err(text)?;
    }
    Ok(())
}

fn deliver(consumer: &Consumer, count: usize) -> Outcome<Vec<u64>> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        match consumer.next(NOW, &mut |_| true).map_err(text)? {
            Next::Message(delivery) => seqs.push(delivery.message.seq.0),
            _ => break,
        }
    }
    Ok(seqs)
}

fn live(stream: &Stream) -> Outcome<BTreeSet<u64>> {
    let mut live = BTreeSet::new();
    for seq in 1..=stream.state().last_seq.0 {
        if stream.get(Seq(seq)).map_err(text)?.is_some() {
            live.insert(seq);
        }
    }
    Ok(live)
}

/// Everything that is delivered when all waits are over.
fn needed(stream: &Stream) -> Outcome<BTreeSet<u64>> {
    let mut needed = BTreeSet::new();
    for consumer in stream.consumers() {
        let mut own = BTreeSet::new();
        while let Next::Message(delivery) = consumer.next(LATER, &mut |_| true).map_err(text)? {
            if !own.insert(delivery.message.seq.0) {
                break;
            }
        }
        needed.extend(own);
    }
    Ok(needed)
}

fn only_needed_is_stored(stream: &Stream) -> Outcome {
    let (live, needed) = (live(stream)?, needed(stream)?);
    match live == needed {
        true => Ok(()),
        false => Err(format!("stored are {live:?}, needed are {needed:?}")),
    }
}

/// Every way by which consumers stop needing messages, with checkpoints in between.
fn script(disk: &SimDisk) -> Outcome {
    let store = open(disk)?;
    let (stream, _) = store
        .create_stream(stream_config(Retention::Limits))
        .map_err(text)?;
    let a = add(&stream, "A", &["a"])?;
    let b = add(&stream, "B", &["b", "c"])?;
    append(&stream, &["a", "b", "x", "c", "a", "b", "c", "a"])?;
    store.commit();
    deliver(&a, 2)?;
    a.ack(Seq(1), NOW).map_err(text)?;
    deliver(&b, 1)?;
    stream
        .update_config(stream_config(Retention::Interest))
        .map_err(text)?;
    store.commit();
    store.checkpoint().map_err(text)?;
    let narrower = consumer_config("B", &["c"], AckPolicy::Explicit);
    b.update_config(narrower).map_err(text)?;
    store.commit();
    append(&stream, &["a", "b", "c"])?;
    store.commit();
    stream.delete_consumer("A").map_err(text)?;
    store.commit();
    store.checkpoint().map_err(text)?;
    let all = add(&stream, "ALL", &[])?;
    append(&stream, &["x", "y", "c", "x", "y"])?;
    store.commit();
    deliver(&all, 4)?;
    all.nak(Seq(12), None, NOW).map_err(text)?;
    let last = stream.state().last_seq;
    all.reset(last).map_err(text)?;
    store.commit();
    store.checkpoint().map_err(text)?;
    stream.delete_consumer("ALL").map_err(text)?;
    store.commit();
    stream.delete_consumer("B").map_err(text)?;
    append(&stream, &["c"])?;
    store.commit();
    Ok(())
}

#[test]
fn nothing_superfluous_stays_after_any_crash() {
    let report = CrashMatrix::new(5)
        .random_outcomes(1)
        .run(script, |survivor, _, _| -> Outcome {
            let store = open(&survivor)?;
            let Some(stream) = store.stream("S") else {
                return Ok(());
            };
            // What was interrupted is gone on with by maintenance.
            store.step().map_err(text)?;
            if stream.config().retention == Retention::Interest {
                only_needed_is_stored(&stream)?;
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.points > 40, "{report:?}");
}

#[test]
fn the_script_ends_without_messages() {
    let disk = SimDisk::new(1);
    script(&disk).expect("no fault");
    let store = open(&disk).expect("opens");
    let state = store.stream("S").expect("there").state();
    assert_eq!((state.msgs, state.bytes, state.deleted), (0, 0, 0));
    assert_eq!(state.first_seq.0, state.last_seq.0 + 1);
}

/// The deletion stands when sealed messages cannot be read; what it frees leaves later, also after
/// a restart.
#[test]
fn a_release_that_failed_is_made_up_for() -> Outcome {
    for restart in [false, true] {
        let disk = SimDisk::new(1);
        let mut store = open(&disk)?;
        let (stream, _) = store
            .create_stream(stream_config(Retention::Interest))
            .map_err(text)?;
        add(&stream, "A", &["a"])?;
        add(&stream, "B", &["b"])?;
        append(&stream, &["a", "b", "a"])?;
        store.checkpoint().map_err(text)?;
        disk.inject_on("seg", Fault::ReadError, Trigger::Always);
        disk.inject_on("idx", Fault::ReadError, Trigger::Always);
        stream.delete_consumer("A").map_err(text)?;
        assert_eq!(stream.state().msgs, 3);
        let mut stream = stream;
        if restart {
            // The claim goes through a checkpoint, and through the log.
            store.checkpoint().map_err(text)?;
            drop(stream);
            drop(store);
            disk.clear_faults();
            store = open(&disk)?;
            stream = store.stream("S").ok_or("no stream")?;
        }
        disk.clear_faults();
        store.step().map_err(text)?;
        assert_eq!(live(&stream)?, BTreeSet::from([2]), "restart: {restart}");
        // Nothing is left to do.
        store.checkpoint().map_err(text)?;
        let changes = disk.ops();
        store.step().map_err(text)?;
        assert_eq!(disk.ops(), changes);
    }
    Ok(())
}

#[test]
fn new_filters_free_what_only_the_old_ones_matched() -> Outcome {
    let store = open(&SimDisk::new(1))?;
    let (stream, _) = store
        .create_stream(stream_config(Retention::Interest))
        .map_err(text)?;
    let a = add(&stream, "A", &["a", "b"])?;
    let b = add(&stream, "B", &["b"])?;
    append(&stream, &["a", "b", "a", "b"])?;
    store.commit();
    assert_eq!(deliver(&a, 2)?, [1, 2]);
    let other = consumer_config("A", &["c"], AckPolicy::Explicit);
    a.update_config(other).map_err(text)?;
    // B still needs 2 and 4. What A has open counts only as long as its filter matches.
    assert_eq!(live(&stream)?, BTreeSet::from([2, 4]));
    append(&stream, &["a", "c"])?;
    store.commit();
    assert_eq!(live(&stream)?, BTreeSet::from([2, 4, 6]));
    assert_eq!(deliver(&b, 9)?, [2, 4]);
    b.ack(Seq(2), NOW).map_err(text)?;
    b.ack(Seq(4), NOW).map_err(text)?;
    assert_eq!(live(&stream)?, BTreeSet::from([6]));
    Ok(())
}

#[test]
fn a_large_acknowledgement_of_everything_empties_the_stream() -> Outcome {
    let store = open(&SimDisk::new(1))?;
    let (stream, _) = store
        .create_stream(stream_config(Retention::Interest))
        .map_err(text)?;
    let config = consumer_config("ALL", &[], AckPolicy::All);
    let (all, _) = stream.create_consumer(config).map_err(text)?;
    for _ in 0..30 {
        append(&stream, &["a"; 100])?;
        store.commit();
        store.step().map_err(text)?;
    }
    assert_eq!(deliver(&all, 2999)?.len(), 2999);
    all.ack(Seq(2500), NOW).map_err(text)?;
    assert_eq!(
        (stream.state().msgs, all.info().num_ack_pending),
        (500, 499)
    );
    assert_eq!(all.info().ack_floor.stream_seq, Seq(2500));
    Ok(())
}
