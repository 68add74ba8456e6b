//! Queue, committer and tickets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::*;
use crate::error::Stopped;
use crate::io::sim::{Fault, Trigger};
use crate::ticket::Ticket;
use crate::wal::StreamGate;

fn started() -> (SimDisk, Arc<CommitQueue>, Committer) {
    let disk = SimDisk::new(1);
    let (queue, committer) =
        queue_and_committer(&disk, 1, medium(), 1, Vec::new()).expect("created");
    (disk, queue, committer)
}

fn poll(ticket: &mut Ticket) -> Poll<Result<(), Stopped>> {
    std::pin::Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn everything_queued_shares_one_frame_and_one_sync() {
    let (_disk, queue, mut committer) = started();
    for _ in 0..100 {
        enqueue(&queue, Class::Append, 1).expect("room");
    }
    assert_eq!(committer.step(), Step::Committed(100));
    assert_eq!(committer.step(), Step::Idle);
    let counts = queue.metrics().counts();
    assert_eq!(
        (counts.frames, counts.syncs, counts.append_ops),
        (1, 1, 100)
    );
    assert_eq!(queue.queued_bytes(), 0);
}

#[test]
fn a_gate_opens_after_the_sync_and_before_the_lsn() {
    let (disk, queue, mut committer) = started();
    let gates = [1, 2].map(|id| StreamGate::new(StreamId(id), Seq(0)));
    for seq in 1..=5 {
        for gate in &gates {
            queue
                .enqueue(Class::Append, 1, Some((gate, Seq(seq))), |out| {
                    Op::Skip {
                        stream: gate.id(),
                        last_seq: Seq(seq),
                    }
                    .encode(out);
                })
                .expect("accepted");
        }
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (sink, first) = (Arc::clone(&seen), Arc::clone(&gates[0]));
    queue.on_durable(Box::new(move |batch| {
        assert_eq!(
            first.durable_seq(),
            Seq(5),
            "the gate is open when the batch is told"
        );
        sink.lock()
            .expect("no panic")
            .push((batch.lsn, batch.streams.to_vec()));
    }));
    assert_eq!(gates[0].durable_seq(), Seq(0));
    let syncs = disk.hold_syncs();
    thread::scope(|scope| {
        let stepped = scope.spawn(|| committer.step());
        syncs.wait_for_syncs(1);
        assert_eq!(gates[1].durable_seq(), Seq(0), "not before the sync (I2)");
        assert!(
            !queue.ticket(Lsn(1)).is_durable(),
            "not before the sync (I1)"
        );
        // The queue takes the next op while the sync runs.
        enqueue(&queue, Class::Append, 1).expect("no lock is held across I/O");
        drop(syncs);
        assert_eq!(stepped.join().expect("no panic"), Step::Committed(10));
    });
    assert_eq!(gates[1].durable_seq(), Seq(5));
    let seen = seen.lock().expect("no panic");
    assert_eq!(
        *seen,
        [(Lsn(10), vec![(StreamId(1), Seq(5)), (StreamId(2), Seq(5))])]
    );
}

#[test]
fn tickets_resolve_as_future_callback_and_wait() {
    let (_disk, queue, mut committer) = started();
    let lsn = enqueue(&queue, Class::Append, 1).expect("room");
    let mut future = queue.ticket(lsn);
    let mut dropped = queue.ticket(lsn);
    assert!(poll(&mut future).is_pending());
    assert!(poll(&mut future).is_pending());
    assert!(poll(&mut dropped).is_pending());
    drop(dropped);
    let called = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&called);
    queue.ticket(lsn).on_durable(move |outcome| {
        assert_eq!(outcome, Ok(()));
        counter.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(called.load(Ordering::SeqCst), 0);
    thread::scope(|scope| {
        let waited = scope.spawn(|| queue.ticket(lsn).wait());
        assert_eq!(committer.step(), Step::Committed(1));
        assert_eq!(waited.join().expect("no panic"), Ok(()));
    });
    assert_eq!(called.load(Ordering::SeqCst), 1);
    assert_eq!(poll(&mut future), Poll::Ready(Ok(())));
    let counter = Arc::clone(&called);
    queue
        .ticket(lsn)
        .on_durable(move |_| _ = counter.fetch_add(1, Ordering::SeqCst));
    assert_eq!(
        called.load(Ordering::SeqCst),
        2,
        "at once when already durable"
    );
}

#[test]
fn a_failed_write_or_sync_poisons_and_nothing_is_acked_after_it() {
    for fault in [Fault::WriteError, Fault::SyncError, Fault::NoSpace] {
        let (disk, queue, mut committer) = started();
        let gate = StreamGate::new(STREAM, Seq(0));
        let before = enqueue(&queue, Class::Append, 1).expect("room");
        committer.step();
        disk.inject(fault, Trigger::After(0));
        let lost = queue
            .enqueue(Class::Append, 1, Some((&gate, Seq(2))), |out| {
                encode_op(2, out)
            })
            .expect("accepted");
        let mut pending = queue.ticket(lost);
        assert!(poll(&mut pending).is_pending());
        assert_eq!(committer.step(), Step::Poisoned, "{fault:?}");
        // The disk works again, which proves nothing about what was written.
        assert_eq!(committer.step(), Step::Poisoned);
        assert_eq!(poll(&mut pending), Poll::Ready(Err(Stopped::Poisoned)));
        assert_eq!(queue.ticket(lost).wait(), Err(Stopped::Poisoned));
        assert_eq!(
            queue.ticket(before).wait(),
            Ok(()),
            "what was durable stays durable"
        );
        assert_eq!(gate.durable_seq(), Seq(0));
        assert_eq!(
            enqueue(&queue, Class::Control, 1),
            Err(EnqueueError::Poisoned)
        );
        assert_eq!(queue.wait_room(Class::Append), Err(EnqueueError::Poisoned));
        assert!(queue.poison_cause().is_some());
        assert_eq!(queue.durable_lsn(), before);
    }
}

#[test]
fn close_writes_what_is_queued_first() {
    let (disk, queue, committer) = started();
    let thread = thread::spawn(move || committer.run());
    let lsn = enqueue(&queue, Class::Append, 3).expect("room");
    queue.close();
    thread.join().expect("no panic");
    assert_eq!(queue.ticket(lsn).wait(), Ok(()));
    assert_eq!(queue.stopped(), Some(Stopped::Closed));
    assert_eq!(enqueue(&queue, Class::Append, 1), Err(EnqueueError::Closed));
    assert_eq!(queue.ticket(Lsn(lsn.0 + 1)).wait(), Err(Stopped::Closed));
    assert_eq!(recovered(&disk, 0).lsns, [1, 2, 3]);
}

#[test]
fn a_committer_that_is_gone_fails_its_tickets() {
    let (_disk, queue, committer) = started();
    let lsn = enqueue(&queue, Class::Append, 1).expect("room");
    drop(committer);
    assert_eq!(queue.ticket(lsn).wait(), Err(Stopped::Poisoned));
}

#[test]
fn many_threads_commit_together_and_in_order() {
    const PER_THREAD: u64 = 200;
    let (disk, queue, committer) = started();
    let thread = thread::spawn(move || committer.run());
    let order = Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..PER_THREAD {
                    queue.wait_room(Class::Append).expect("running");
                    // The content follows from the lsn, so the test serialises the callers.
                    let guard = order.lock().expect("no panic");
                    let lsn = enqueue(&queue, Class::Append, 1).expect("room");
                    drop(guard);
                    if n % 10 == 0 {
                        assert_eq!(queue.ticket(lsn).wait(), Ok(()));
                    }
                }
            });
        }
    });
    queue.close();
    thread.join().expect("no panic");
    assert_eq!(
        recovered(&disk, 0).lsns,
        (1..=4 * PER_THREAD).collect::<Vec<_>>()
    );
    assert!(queue.metrics().counts().syncs <= 4 * PER_THREAD);
}

#[test]
fn a_full_queue_waits_and_is_woken_by_the_commit() {
    let disk = SimDisk::new(1);
    let env = env(&disk, 1);
    let wal = Wal::create(&env, dir(), UUID, medium(), Lsn(1), Vec::new());
    let queue = CommitQueue::new(QueueOptions { bytes_max: 100 }, Lsn(1));
    let mut committer = Committer::new(&env, Arc::clone(&queue), wal.expect("created"));
    // An empty queue takes one op of any size.
    assert_eq!(queue.room_for(Class::Append, 5_000), Ok(()));
    queue
        .enqueue(Class::Append, 1, None, |out| {
            let config = &[1; 5_000];
            Op::StreamPut {
                stream: STREAM,
                created: TimestampNs(0),
                changed: TimestampNs(0),
                config,
            }
            .encode(out);
        })
        .expect("accepted");
    assert_eq!(queue.room(Class::Append), Err(EnqueueError::Full));
    assert_eq!(queue.room(Class::Control), Err(EnqueueError::Full));
    assert!(queue.poll_room(Class::Append, Waker::noop()).is_pending());
    thread::scope(|scope| {
        let waited = scope.spawn(|| queue.wait_room(Class::Append));
        assert_eq!(committer.step(), Step::Committed(1));
        assert_eq!(waited.join().expect("no panic"), Ok(()));
    });
}

#[test]
fn a_panic_while_encoding_poisons() {
    let (_disk, queue, mut committer) = started();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        queue.enqueue(Class::Append, 1, None, |_| panic!("half an op"))
    }));
    assert!(panicked.is_err());
    assert_eq!(
        enqueue(&queue, Class::Append, 1),
        Err(EnqueueError::Poisoned)
    );
    assert_eq!(committer.step(), Step::Poisoned);
}
