//! Writing to a store as fast as it takes it, and waiting until it is quiet.

use std::time::Duration;

use riverlog_engine::consumer::{AckPolicy, ConsumerConfig};
use riverlog_engine::{
    Append, AppendError, Appended, Message, Next, Store, Stream, StreamConfig, TimestampNs,
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

/// Reads through a consumer without acknowledgements until `visit` says no or nothing is left.
/// Returns how many messages it saw.
pub fn consume(
    stream: &Stream,
    name: &str,
    filters: &[&str],
    visit: &mut dyn FnMut(&Message) -> bool,
) -> BenchResult<u64> {
    let config = ConsumerConfig {
        name: name.into(),
        filters: filters.iter().map(|filter| filter.to_string()).collect(),
        ack: AckPolicy::None,
        memory: true,
        ..ConsumerConfig::default()
    };
    let (consumer, ticket) = stream.create_consumer(config)?;
    ticket.wait()?;
    let mut seen = 0;
    while let Next::Message(delivery) = consumer.next(TimestampNs(0), &mut |_| true)? {
        seen += 1;
        if !visit(&delivery.message) {
            break;
        }
    }
    stream.delete_consumer(name)?.wait()?;
    Ok(seen)
}

/// Fails unless the stream holds exactly this many messages.
pub fn check_msgs(stream: &Stream, expected: u64) -> BenchResult<()> {
    let msgs = stream.state().msgs;
    check(msgs == expected, || {
        format!("{msgs} messages instead of {expected}")
    })
}
