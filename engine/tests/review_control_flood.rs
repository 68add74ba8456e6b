//! Deletes may use the log's reserve, and are refused when it is used up: a checkpoint always gets
//! the store going again.

mod support;

use std::path::Path;

use riverlog_engine::io::Env;
use riverlog_engine::io::sim::{SimClock, SimDisk};
use riverlog_engine::{Append, ChangeError, Seq, Store, StreamConfig};

#[test]
fn more_deletes_than_the_log_has_room_for_do_not_stop_the_store() {
    let disk = SimDisk::new(1);
    let env = Env::simulated(&disk, &SimClock::new(1_000), 1);
    let mut options = support::options();
    options.tail_bytes_max = 64 << 20;
    let (store, _) = Store::open_in(env, Path::new(support::DIR), options).expect("opens");
    let config = StreamConfig {
        name: "S".into(),
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("created");
    let append = Append {
        subject: b"s",
        ..Append::default()
    };
    let mut last = 0;
    while let Ok(done) = stream.append_nosync(&append) {
        last = done.seq.0;
        if last % 64 == 0 {
            store.commit();
        }
    }
    store.commit();
    assert!(last > 100, "the log takes some");
    let mut deleted = 0;
    for seq in 1..=last {
        match stream.delete(Seq(seq)) {
            Ok(removed) => assert!(removed.is_some()),
            Err(ChangeError::NoSpace) => break,
            Err(error) => panic!("{error}"),
        }
        deleted = seq;
        if seq % 64 == 0 {
            store.commit();
        }
    }
    assert!(deleted > 0, "there is a reserve for deletes");
    store.commit();
    store.checkpoint().expect("the log is emptied");
    stream.append_nosync(&append).expect("there is room again");
    store.commit();
    assert_eq!(stream.state().msgs, last - deleted + 1);
}
