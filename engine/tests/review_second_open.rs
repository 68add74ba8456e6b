//! One directory, one store at a time.

use riverlog_engine::{Append, OpenError, Store, StoreOptions, StreamConfig};

#[test]
fn a_directory_is_open_once_until_its_store_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(dir.path(), StoreOptions::default()).expect("opens");
    let config = StreamConfig {
        name: "S".into(),
        ..StreamConfig::default()
    };
    let (stream, _) = store.create_stream(config).expect("created");
    let second = Store::open(dir.path(), StoreOptions::default());
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    let append = Append {
        subject: b"s",
        ..Append::default()
    };
    let done = stream.append_nosync(&append).expect("accepted");
    store.ticket(done.lsn).wait().expect("durable");
    // The last clone closes it, although a stream's handle is still there.
    drop(store);
    stream.append_nosync(&append).expect_err("closed");
    let (store, _) = Store::open(dir.path(), StoreOptions::default()).expect("opens again");
    let stream = store.stream("S").expect("there");
    assert_eq!(stream.state().msgs, 1);
}
