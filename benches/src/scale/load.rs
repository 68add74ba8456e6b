//! Writing to a store as fast as it takes it, and waiting until it is quiet.

use std::time::Duration;

use riverlog_engine::{
    Append, AppendError, Appended, Filter, Message, Seq, Store, Stream, StreamConfig,
};

use crate::error::{BenchError, BenchResult, check};
use crate::measure::os::Usage;

/// Creates a stream and waits until it is durable.
pub fn create(store: &Store, config: StreamConfig) -> BenchResult<Stream> {
    let (stream, ticket) = store.create_stream(config)?;
    ticket.wait()?;
    Ok(stream)
}

/// A file stream of this name with nothing else set.
pub fn plain(name: &str) -> StreamConfig {
    StreamConfig {
        name: name.into(),
        ..StreamConfig::default()
    }
}

/// The stream of this name, which is there.
pub fn existing(store: &Store, name: &str) -> BenchResult<Stream> {
    let missing = || BenchError::Failed(format!("the stream {name} is gone"));
    store.stream(name).ok_or_else(missing)
}

/// Appends without waiting for the disk, but for room.
pub fn push(store: &Store, stream: &Stream, append: &Append<'_>) -> BenchResult<Appended> {
    loop {
        match stream.append_nosync(append) {
            Ok(appended) => return Ok(appended),
            Err(AppendError::Busy) => store.wait_room(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the store has written nothing for a second; at most `patience`. Returns whether it
/// came to rest. The caller must not write meanwhile.
pub fn settle(patience: Duration) -> BenchResult<bool> {
    const STEP: Duration = Duration::from_millis(250);
    let (mut quiet, mut waited) = (0, Duration::ZERO);
    let mut before = Usage::now()?.write_call_bytes;
    while quiet < 4 && waited < patience {
        std::thread::sleep(STEP);
        waited += STEP;
        let now = Usage::now()?.write_call_bytes;
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    Ok(quiet >= 4)
}

/// Reads from the first message on until `visit` says no or nothing is left. Returns how many
/// messages it saw.
pub fn read(
    stream: &Stream,
    filters: &[&str],
    visit: &mut dyn FnMut(&Message) -> bool,
) -> BenchResult<u64> {
    let filters: Vec<Filter> = filters
        .iter()
        .map(|text| Filter::new(text.as_bytes()).expect("a valid filter"))
        .collect();
    let mut seen = 0;
    for message in stream.messages(&filters, Seq(1)..=stream.state().last_seq) {
        seen += 1;
        if !visit(&message?) {
            break;
        }
    }
    Ok(seen)
}

/// Fails unless the stream holds exactly this many messages.
pub fn check_msgs(stream: &Stream, expected: u64) -> BenchResult<()> {
    let msgs = stream.state().msgs;
    check(msgs == expected, || {
        format!("{msgs} messages instead of {expected}")
    })
}
