//! What an embedder builds on: appends that wait for the disk, batches, iteration, following.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::{
    Append, AppendError, Discard, Filter, FollowError, Follower, Message, ReadError, Seq, Stopped,
    Storage, Store, StoreOptions, Stream, StreamConfig, Threads,
};

fn simulated(disk: &SimDisk, threads: Threads) -> Store {
    let env = Env::simulated(disk, &SimClock::new(1_000), 1);
    let options = {
        let mut options = StoreOptions::default();
        options.threads = threads;
        options.tail_bytes_max = 1 << 20;
        options
    };
    Store::open_in(env, Path::new("/data"), options)
        .expect("a store")
        .0
}

fn stream(store: &Store, storage: Storage) -> Stream {
    let config = StreamConfig {
        name: "S".into(),
        storage,
        ..StreamConfig::default()
    };
    store.create_stream(config).expect("a stream").0
}

fn message<'a>(subject: &'a str, payload: &'a [u8]) -> Append<'a> {
    Append {
        subject: subject.as_bytes(),
        payload,
        ..Append::default()
    }
}

fn payloads(messages: impl Iterator<Item = Result<Message, ReadError>>) -> Vec<String> {
    messages
        .map(|message| {
            let message = message.expect("readable");
            String::from_utf8_lossy(message.payload()).into_owned()
        })
        .collect()
}

#[test]
fn an_append_is_on_disk_when_it_returns() {
    let disk = SimDisk::new(1);
    let store = simulated(&disk, Threads::Manual);
    let stream = stream(&store, Storage::File);
    let done = stream.append(&message("a", b"one")).expect("stored");
    assert!(store.durable_lsn() >= done.lsn);
    assert!(stream.get(done.seq).expect("readable").is_some());
    let later = stream
        .append_nosync(&message("a", b"two"))
        .expect("admitted");
    assert!(store.durable_lsn() < later.lsn);
    assert_eq!(stream.get(later.seq).expect("no error"), None);
}

#[test]
fn an_append_makes_room_for_itself_in_manual_mode() {
    let disk = SimDisk::new(1);
    let store = simulated(&disk, Threads::Manual);
    let stream = stream(&store, Storage::File);
    let payload = vec![7; 1 << 17];
    // More than the tails may hold.
    for _ in 0..40 {
        stream.append(&message("a", &payload)).expect("stored");
    }
    assert_eq!(stream.state().msgs, 40);
}

#[test]
fn a_stopped_store_says_so() {
    let disk = SimDisk::new(1);
    let store = simulated(&disk, Threads::Background);
    let stream = stream(&store, Storage::File);
    store.close();
    let refused = stream.append(&message("a", b"")).expect_err("closed");
    assert!(matches!(refused, AppendError::Stopped(Stopped::Closed)));
}

#[test]
fn a_batch_is_stored_in_order_with_one_wait() {
    let disk = SimDisk::new(1);
    let store = simulated(&disk, Threads::Manual);
    let stream = stream(&store, Storage::File);
    let batch = [message("a", b"1"), message("b", b"2"), message("a", b"3")];
    let syncs = store.metrics().syncs;
    let done = stream.append_batch(&batch).expect("stored");
    assert_eq!(store.metrics().syncs, syncs + 1);
    assert_eq!(
        done.iter().map(|done| done.seq.0).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(store.durable_lsn() >= done[2].lsn);
    assert!(stream.append_batch(&[]).expect("nothing to do").is_empty());
}

#[test]
fn a_batch_ends_with_the_first_refusal_and_says_what_is_stored() {
    let disk = SimDisk::new(1);
    let store = simulated(&disk, Threads::Manual);
    let config = StreamConfig {
        name: "S".into(),
        msgs_max: Some(2),
        discard: Discard::New,
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("a stream");
    let batch = [message("a", b"1"), message("b", b"2"), message("a", b"3")];
    let error = stream.append_batch(&batch).expect_err("full");
    assert!(matches!(error.refused, AppendError::MsgsExceeded));
    assert_eq!(error.appended.len(), 2);
    assert_eq!(stream.state().msgs, 2);
    assert!(store.durable_lsn() >= error.appended[1].lsn);
    assert_eq!(
        error.to_string(),
        "message 2 of the batch: maximum messages exceeded"
    );
}

#[test]
fn iteration_covers_sealed_messages_and_the_tail() {
    let disk = SimDisk::new(1);
    let store = simulated(&disk, Threads::Manual);
    let stream = stream(&store, Storage::File);
    for n in 0..10 {
        let subject = if n % 2 == 0 { "even" } else { "odd" };
        stream
            .append(&message(subject, n.to_string().as_bytes()))
            .expect("stored");
        if n == 5 {
            store.checkpoint().expect("sealed");
        }
    }
    stream.delete(Seq(4)).expect("deleted");
    let all = stream.messages(&[], Seq(1)..=Seq(u64::MAX));
    assert_eq!(payloads(all), ["0", "1", "2", "4", "5", "6", "7", "8", "9"]);
    let some = stream.messages(&[], Seq(3)..=Seq(5));
    assert_eq!(payloads(some), ["2", "4"]);
    let odd = Filter::new(b"odd").expect("a filter");
    let odd = stream.messages(&[odd], Seq(1)..=Seq(9));
    assert_eq!(payloads(odd), ["1", "5", "7"]);
    let (none, range) = (stream.messages(&[], Seq(11)..=Seq(20)), Seq(5)..=Seq(4));
    assert_eq!(payloads(none), [""; 0]);
    assert_eq!(payloads(stream.messages(&[], range)), [""; 0]);
}

#[test]
fn iteration_reports_damage_once_and_goes_on_behind_it() {
    let disk = SimDisk::new(1);
    let store = simulated(&disk, Threads::Manual);
    let stream = stream(&store, Storage::File);
    // Larger than a block: each lies in one of its own.
    for n in 0..6_u8 {
        stream
            .append(&message("a", &vec![n; 40_000]))
            .expect("stored");
    }
    store.checkpoint().expect("sealed");
    let (segment, len) = disk
        .files()
        .into_iter()
        .find(|(path, _)| path.ends_with(".seg"))
        .expect("a sealed file");
    disk.corrupt(&segment, len / 2, 0xff).expect("corrupted");
    let mut lost = Vec::new();
    let mut found = Vec::new();
    for message in stream.messages(&[], Seq(1)..=Seq(u64::MAX)) {
        match message {
            Ok(message) => found.push(message.seq.0),
            Err(ReadError::Corrupt(damage)) => lost.push((damage.first.0, damage.last.0)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(lost.len(), 1, "{lost:?}");
    let (first, last) = lost[0];
    assert_eq!(first, last);
    found.push(first);
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_follower_waits_for_what_comes() {
    for storage in [Storage::File, Storage::Memory] {
        let disk = SimDisk::new(1);
        let store = simulated(&disk, Threads::Background);
        let stream = stream(&store, storage);
        stream.append(&message("a", b"before")).expect("stored");
        let wanted = Filter::new(b"a").expect("a filter");
        let mut follower = stream.follow(&[wanted], Seq(1));
        let reader = thread::spawn(move || {
            (0..101)
                .map(|_| follower.wait_next().expect("a message").seq.0)
                .collect::<Vec<_>>()
        });
        for n in 0..200 {
            let subject = if n % 2 == 0 { "a" } else { "b" };
            stream.append(&message(subject, b"later")).expect("stored");
        }
        let seen = reader.join().expect("no panic");
        let expected: Vec<u64> = (0..101).map(|n| n * 2).collect();
        assert_eq!(seen[0], 1);
        assert_eq!(seen[1..], expected[1..]);
    }
}

#[test]
fn a_follower_ends_with_the_stream_and_with_the_store() {
    let disk = SimDisk::new(1);
    let store = simulated(&disk, Threads::Background);
    let of_stream = stream(&store, Storage::File);
    let mut follower = of_stream.follow(&[], Seq(1));
    assert!(matches!(follower.try_next(), Ok(None)));
    let waiting = thread::spawn(move || follower.wait_next());
    store.delete_stream("S").expect("deleted");
    let ended = waiting.join().expect("no panic");
    assert!(matches!(ended, Err(FollowError::Deleted)), "{ended:?}");

    let of_store = stream(&store, Storage::File);
    let mut follower = of_store.follow(&[], Seq(1));
    let waiting = thread::spawn(move || follower.wait_next());
    store.close();
    let ended = waiting.join().expect("no panic");
    assert!(
        matches!(ended, Err(FollowError::Stopped(Stopped::Closed))),
        "{ended:?}"
    );
}

/// Counts how often it was woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(follower: &mut Follower, waker: &Waker) -> Poll<Option<u64>> {
    let mut next = follower.next_message();
    Pin::new(&mut next)
        .poll(&mut Context::from_waker(waker))
        .map(|message| message.ok().map(|message| message.seq.0))
}

#[test]
fn a_follower_is_a_future_of_any_runtime() {
    let disk = SimDisk::new(1);
    let store = simulated(&disk, Threads::Manual);
    let stream = stream(&store, Storage::File);
    let mut follower = stream.follow(&[], Seq(1));
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    assert_eq!(poll(&mut follower, &waker), Poll::Pending);
    assert_eq!(poll(&mut follower, &waker), Poll::Pending);
    stream.append_nosync(&message("a", b"")).expect("admitted");
    assert_eq!(poll(&mut follower, &waker), Poll::Pending, "not durable");
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    store.commit();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert_eq!(poll(&mut follower, &waker), Poll::Ready(Some(1)));
    follower.seek(Seq(1));
    assert_eq!(poll(&mut follower, &waker), Poll::Ready(Some(1)));
    assert_eq!(follower.position(), Seq(2));
    drop(follower);
    stream.append(&message("a", b"")).expect("stored");
    assert_eq!(count.0.load(Ordering::SeqCst), 1, "nobody waits any more");
}

#[test]
fn commit_batches_are_observed_with_their_size() {
    let disk = SimDisk::new(1);
    let store = simulated(&disk, Threads::Manual);
    let ops = Arc::new(AtomicUsize::new(0));
    let seen = ops.clone();
    store.on_durable(Arc::new(move |batch| {
        assert!(batch.ops == 0 || batch.bytes > 0);
        seen.fetch_add(batch.ops as usize, Ordering::SeqCst);
    }));
    let stream = stream(&store, Storage::File);
    let batch = [message("a", b"1"), message("b", b"2")];
    stream.append_batch(&batch).expect("stored");
    assert_eq!(ops.load(Ordering::SeqCst), 3, "a creation and two messages");
    let status = store.status();
    assert_eq!((status.streams, status.queue_bytes), (1, 0));
    assert!(status.tail_bytes > 0 && !status.out_of_space);
}
