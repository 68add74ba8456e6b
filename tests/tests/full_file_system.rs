//! Promise A9 on a real, small file system: appends are refused before they get a sequence, everything
//! else goes on, and appends work again once there is space, without a restart.
//!
//! Needs the right to mount a loop device; where that is missing the test says so and ends.

use std::path::{Path, PathBuf};
use std::process::Command;

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::{
    Append, AppendError, Next, PurgeRequest, Seq, Store, StoreOptions, Stream, StreamConfig,
    TimestampNs,
};

const DISK_BYTES: u64 = 96 << 20;
const PAYLOAD: [u8; 8_000] = [7; 8_000];

/// A mounted file system of its own, unmounted in the end.
struct Mounted {
    _dir: tempfile::TempDir,
    at: PathBuf,
}

impl Mounted {
    fn new() -> Option<Mounted> {
        let dir = tempfile::tempdir().expect("a directory");
        let (image, at) = (dir.path().join("disk.img"), dir.path().join("mnt"));
        std::fs::create_dir(&at).expect("a mount point");
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(DISK_BYTES).expect("a sparse image");
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let mounted = made
            && run(Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&at));
        mounted.then_some(Mounted { _dir: dir, at })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.at));
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn open(dir: &Path) -> (Store, Stream) {
    let mut options = StoreOptions::default();
    options.wal.file_bytes = 4 << 20;
    options.wal.files_max = 4;
    options.wal.control_reserve_bytes = 512 << 10;
    options.tail_bytes_max = 4 << 20;
    let (store, _) = Store::open(dir, options).expect("it opens");
    let stream = store.stream("S").unwrap_or_else(|| {
        let config = StreamConfig {
            name: "S".into(),
            ..StreamConfig::default()
        };
        store.create_stream(config).expect("a stream").0
    });
    (store, stream)
}

/// Appends until the disk is full; returns the last sequence.
fn fill(stream: &Stream) -> u64 {
    loop {
        let append = Append {
            subject: b"fill",
            payload: &PAYLOAD,
            ..Append::default()
        };
        match stream.append(&append) {
            Ok(_) => {}
            Err(AppendError::NoSpace) => return stream.state().last_seq.0,
            Err(error) => panic!("{error}"),
        }
    }
}

fn appends_again(stream: &Stream) -> bool {
    // Background work finds the space; it is asked again with each refusal.
    (0..2_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let append = Append {
            subject: b"more",
            payload: &PAYLOAD,
            ..Append::default()
        };
        stream.append(&append).is_ok()
    })
}

#[test]
fn a_full_file_system_refuses_appends_and_nothing_else() {
    let Some(disk) = Mounted::new() else {
        eprintln!("######## SKIPPED: no right to mount a loop device here ########");
        return;
    };
    let dir = disk.at.join("store");
    // Something else on the disk, which goes away later.
    let other = disk.at.join("other");
    std::fs::write(&other, vec![1; 16 << 20]).expect("written");
    let (store, stream) = open(&dir);
    let config = ConsumerConfig {
        name: "C".into(),
        durable: true,
        ack: AckPolicy::Explicit,
        ..ConsumerConfig::default()
    };
    let (consumer, _) = stream.create_consumer(config).expect("a consumer");
    let last = fill(&stream);
    assert!(last > 1_000, "only {last} messages fit");

    let state = stream.state();
    assert_eq!((state.msgs, state.last_seq), (last, Seq(last)));
    for seq in [1, last / 2, last] {
        assert!(stream.get(Seq(seq)).expect("readable").is_some());
    }
    let now = TimestampNs(1);
    let Next::Message(delivery) = consumer.next(now, &mut |_| true).expect("delivered") else {
        panic!("messages are waiting")
    };
    let ack = consumer
        .ack(delivery.message.seq, now)
        .expect("acknowledged");
    store.ticket(ack.lsn).wait().expect("on disk");
    let deleted = stream.delete(Seq(2)).expect("deleted").expect("was there");
    deleted.wait().expect("on disk");

    std::fs::remove_file(&other).expect("removed");
    assert!(appends_again(&stream), "there is space again");
    let last = fill(&stream);

    // A purge makes room by itself.
    let request = PurgeRequest {
        below: Some(Seq(last - 10)),
        ..PurgeRequest::default()
    };
    let (_, purged) = stream.purge(&request).expect("purged");
    purged.wait().expect("on disk");
    assert!(appends_again(&stream), "the purged files are gone");
    let state = stream.state();
    store.close();
    drop((consumer, stream, store));

    let (store, stream) = open(&dir);
    assert_eq!(stream.state().last_seq, state.last_seq);
    assert_eq!(stream.state().msgs, state.msgs);
    let consumer = stream.consumer("C").expect("the consumer is there");
    assert!(consumer.info().delivered.stream_seq >= Seq(1));
    store.close();
}

#[test]
fn a_store_opens_on_a_full_file_system_and_can_be_emptied() {
    let Some(disk) = Mounted::new() else {
        eprintln!("######## SKIPPED: no right to mount a loop device here ########");
        return;
    };
    let dir = disk.at.join("store");
    let (store, stream) = open(&dir);
    let last = fill(&stream);
    store.close();
    drop((stream, store));
    // Nothing at all is left for anybody.
    let rest = disk.at.join("rest");
    let _ = std::fs::write(&rest, vec![1; 96 << 20]);
    let (store, stream) = open(&dir);
    assert_eq!(stream.state().last_seq, Seq(last));
    assert!(stream.get(Seq(last)).expect("readable").is_some());
    let append = Append {
        subject: b"more",
        ..Append::default()
    };
    let refused = stream.append(&append).expect_err("there is no space");
    assert!(matches!(refused, AppendError::NoSpace), "{refused}");
    // What is deleted makes room.
    let request = PurgeRequest {
        keep: Some(10),
        ..PurgeRequest::default()
    };
    let (_, purged) = stream.purge(&request).expect("purged");
    purged.wait().expect("on disk");
    assert!(appends_again(&stream), "the purged files are gone");
    let last = stream.state().last_seq.0;
    store.close();
    drop((stream, store));
    std::fs::remove_file(&rest).expect("removed");
    let (store, stream) = open(&dir);
    assert_eq!(stream.state().last_seq, Seq(last));
    assert!(stream.get(Seq(last)).expect("readable").is_some());
    store.close();
}
