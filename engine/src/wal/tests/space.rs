//! A full log and a full disk: appends are refused before they get a number, and go on later.

use super::*;

/// Commits appends until the queue refuses; returns the answer.
fn fill(queue: &CommitQueue, committer: &mut Committer) -> EnqueueError {
    for _ in 0..10_000 {
        match enqueue(queue, Class::Append, 1) {
            Ok(_) => assert!(matches!(committer.step(), Step::Committed(1))),
            Err(refused) => return refused,
        }
    }
    panic!("the log never filled");
}

fn enqueue_larger_than_a_file(queue: &CommitQueue) {
    let config = vec![7_u8; 40_000];
    let large = queue.enqueue(Class::Append, 1, None, |out| {
        Op::StreamPut {
            stream: STREAM,
            created: TimestampNs(0),
            changed: TimestampNs(0),
            config: &config,
        }
        .encode(out);
    });
    large.expect("accepted");
}

#[test]
fn a_full_log_waits_for_its_checkpoint() {
    let disk = SimDisk::new(1);
    let (queue, mut committer) =
        queue_and_committer(&disk, 1, small(), 1, Vec::new()).expect("created");
    assert_eq!(fill(&queue, &mut committer), EnqueueError::Full);
    let last = queue.durable_lsn();
    assert_eq!(queue.assigned_lsn(), last, "the refused append has no lsn");
    let own_files = disk
        .files()
        .iter()
        .filter(|(name, _)| name.ends_with(".wal"))
        .count();
    assert!(own_files <= small().files_max as usize, "{own_files} files");
    queue.release_through(last);
    assert_eq!(committer.step(), Step::Idle);
    assert_eq!(queue.room(Class::Append), Ok(()));
    enqueue(&queue, Class::Append, 1).expect("room again");
    assert_eq!(committer.step(), Step::Committed(1));
    assert_eq!(recovered(&disk, last.0).lsns, [last.0 + 1]);
}

#[test]
fn a_full_disk_refuses_appends_and_resumes_when_space_is_freed() {
    let disk = SimDisk::new(1);
    let (queue, mut committer) =
        queue_and_committer(&disk, 1, small(), 1, Vec::new()).expect("created");
    // Room for the file in use and the one that follows it, no more.
    disk.set_capacity(2 * 12 * 1024);
    assert_eq!(fill(&queue, &mut committer), EnqueueError::NoSpace);
    assert!(queue.is_disk_full());
    let last = queue.assigned_lsn();
    assert_eq!(queue.durable_lsn(), last, "everything accepted is durable");
    assert_eq!(queue.stopped(), None, "a full disk does not poison");
    disk.set_capacity(1 << 20);
    let mut refusals = 0;
    while enqueue(&queue, Class::Append, 1).is_err() {
        refusals += 1;
        assert!(refusals < 1_000, "the log never resumed");
        committer.step();
    }
    committer.step();
    assert_eq!(queue.durable_lsn(), Lsn(last.0 + 1));
    assert_eq!(recovered(&disk, 0).lsns.len() as u64, last.0 + 1);
}

#[test]
fn control_ops_may_use_the_reserve() {
    let disk = SimDisk::new(1);
    let options = WalOptions {
        control_reserve_bytes: 600,
        ..small()
    };
    let (queue, mut committer) =
        queue_and_committer(&disk, 1, options, 1, Vec::new()).expect("created");
    assert_eq!(fill(&queue, &mut committer), EnqueueError::Full);
    assert_eq!(queue.room(Class::Control), Ok(()));
    enqueue(&queue, Class::Control, 1).expect("the reserve is there");
    assert_eq!(committer.step(), Step::Committed(1));
}

/// A record with a file of its own fills it: the file that is prepared after it is room for those
/// who wait, and nothing else tells them.
#[test]
fn the_file_that_follows_a_full_one_is_room() {
    let disk = SimDisk::new(1);
    let (queue, mut committer) =
        queue_and_committer(&disk, 1, small(), 1, Vec::new()).expect("created");
    enqueue(&queue, Class::Append, 1).expect("room");
    assert_eq!(committer.step(), Step::Committed(1));
    enqueue_larger_than_a_file(&queue);
    assert_eq!(committer.step(), Step::Committed(1));
    assert_eq!(queue.room(Class::Append), Err(EnqueueError::Full));
    assert_eq!(committer.step(), Step::Idle);
    assert_eq!(queue.room(Class::Append), Ok(()));
}

#[test]
fn a_record_larger_than_a_file_gets_a_file_of_its_own() {
    let disk = SimDisk::new(1);
    let (queue, mut committer) =
        queue_and_committer(&disk, 1, small(), 1, Vec::new()).expect("created");
    enqueue(&queue, Class::Append, 2).expect("room");
    committer.step();
    enqueue_larger_than_a_file(&queue);
    assert_eq!(committer.step(), Step::Committed(1));
    let next = queue
        .enqueue(Class::Append, 1, None, |out| {
            Op::Skip {
                stream: STREAM,
                last_seq: Seq(9),
            }
            .encode(out);
        })
        .expect("accepted");
    assert_eq!(committer.step(), Step::Committed(1));
    assert_eq!(queue.durable_lsn(), next);
    let mut sizes = Vec::new();
    let report = recover(&env(&disk, 2), dir(), UUID, Lsn(2), false, &mut |_, op| {
        let mut bytes = Vec::new();
        op.encode(&mut bytes);
        sizes.push(bytes.len());
        Ok(())
    });
    assert_eq!(report.expect("recovered").next_lsn, Lsn(next.0 + 1));
    assert!(sizes.len() == 2 && sizes[0] > 40_000, "{sizes:?}");
    queue.release_through(next);
    committer.step();
    assert!(
        disk.files().iter().filter(|(_, len)| *len > 40_000).count() <= 1,
        "the large file is not kept for reuse: {:?}",
        disk.files()
    );
}

#[test]
fn an_idle_log_gives_its_space_back() {
    let disk = SimDisk::new(1);
    let options = WalOptions {
        files_max: 30,
        ..small()
    };
    let (queue, mut committer) =
        queue_and_committer(&disk, 1, options, 1, Vec::new()).expect("created");
    fill(&queue, &mut committer);
    assert_eq!(disk.files().len(), 30);
    let used = queue.metrics().log_used_bytes();
    queue.release_through(queue.durable_lsn());
    committer.step();
    assert!(disk.files().len() <= 5, "{:?}", disk.files());
    assert!(queue.metrics().log_used_bytes() < used / 10);
}

#[test]
fn appends_go_on_through_many_checkpoints_of_a_small_log() {
    const APPENDS: u64 = 600;
    let disk = SimDisk::new(1);
    let (queue, committer) =
        queue_and_committer(&disk, 1, small(), 1, Vec::new()).expect("created");
    let thread = std::thread::spawn(move || committer.run());
    let checkpoints = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || {
            let mut released = Lsn(0);
            while released.0 < APPENDS {
                let next = queue.ticket(Lsn((released.0 + 5).min(APPENDS)));
                assert_eq!(next.wait(), Ok(()));
                released = queue.durable_lsn();
                queue.release_through(released);
            }
        }
    });
    for _ in 0..APPENDS {
        queue.wait_room(Class::Append).expect("running");
        enqueue(&queue, Class::Append, 1).expect("room");
    }
    checkpoints.join().expect("no panic");
    queue.close();
    thread.join().expect("no panic");
    assert_eq!(queue.durable_lsn(), Lsn(APPENDS));
    assert!(disk.files().len() <= small().files_max as usize + 1);
}
