//! What a checkpoint gives back of the log, seen from inside.

use std::path::Path;

use super::checkpoint::Scope;
use super::{Store, StoreOptions, Threads};
use crate::config::StreamConfig;
use crate::ids::Lsn;
use crate::io::Env;
use crate::io::sim::{SimClock, SimDisk};
use crate::stream::{Append, AppendError, Stream};

fn open() -> (Store, Stream) {
    let env = Env::simulated(&SimDisk::new(1), &SimClock::new(1_000), 1);
    let mut options = StoreOptions {
        threads: Threads::Manual,
        ..StoreOptions::default()
    };
    options.wal.file_bytes = 64 << 10;
    options.wal.files_max = 4;
    options.wal.control_reserve_bytes = 8 << 10;
    let (store, _) = Store::open_in(env, Path::new("/data"), options).expect("opens");
    let config = StreamConfig {
        name: "S".into(),
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("created");
    (store, stream)
}

fn append(payload: &[u8]) -> Append<'_> {
    Append {
        subject: b"s",
        payload,
        ..Append::default()
    }
}

/// Fills the log; where its first message is.
fn fill(store: &Store, stream: &Stream) -> Lsn {
    let mut first = None;
    loop {
        match stream.append_nosync(&append(&[7; 2_000])) {
            Ok(done) => first = first.or(Some(done.lsn)),
            Err(AppendError::Busy) => return first.expect("room for one"),
            Err(error) => panic!("{error}"),
        }
        store.commit();
    }
}

/// What comes in while a checkpoint begins is in its files, yet that part of the log is not given
/// back by it. With no change after it, nothing else would give it back, and writers of a full log
/// would wait for ever.
#[test]
fn what_a_checkpoint_took_without_giving_it_back_is_given_back_when_the_log_is_full() {
    let (store, stream) = open();
    let first = fill(&store, &stream);
    let queue = store.inner.shared.queue.clone();
    let begun = store.with_manual(|committer, maintenance| {
        let mut wait = |_: Lsn| Ok(());
        maintenance
            .checkpointer
            .run_at(first, Scope::All, false, &mut wait)?;
        committer.step();
        Ok(())
    });
    begun.expect("a checkpoint");
    assert_eq!(queue.released_lsn(), first);
    assert!(queue.log_is_full());
    store.step().expect("a round");
    assert_eq!(queue.released_lsn(), queue.assigned_lsn());
    stream.append_nosync(&append(b"goes on")).expect("room");
}

#[test]
fn a_durable_append_makes_the_room_that_its_message_needs() {
    let (_store, stream) = open();
    for _ in 0..30 {
        stream.append(&append(&[7; 40_000])).expect("stored");
    }
    assert_eq!(stream.state().msgs, 30);
}
