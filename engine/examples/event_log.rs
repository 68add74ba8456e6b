//! An event log: append events, read them back by subject, and follow what is still to come.
//!
//! ```text
//! cargo run -p riverlog-engine --example event_log [DIRECTORY]
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::thread;

use riverlog_engine::{Append, Filter, Seq, Store, StoreOptions, Stream, StreamConfig};

/// The last event of the follower.
const END: &[u8] = b"end";

fn main() -> Result<(), Box<dyn Error>> {
    let (dir, _guard) = directory()?;
    let (store, report) = Store::open(&dir, StoreOptions::default())?;
    println!(
        "opened {}: {} streams, {} operations replayed from the log",
        dir.display(),
        report.streams,
        report.ops_replayed
    );
    let stream = match store.stream("events") {
        Some(stream) => stream,
        None => {
            let config = StreamConfig {
                name: "events".into(),
                ..StreamConfig::default()
            };
            let (stream, created) = store.create_stream(config)?;
            created.wait()?;
            stream
        }
    };

    // One message, on disk when the call returns.
    let done = stream.append(&event("user.1.created", b"{\"name\":\"Ada\"}"))?;
    println!("event {} is on disk", done.seq);

    // Many messages, one sync.
    let batch: Vec<Append<'_>> = (0..1000)
        .map(|n| match n % 2 {
            0 => event("user.1.clicked", b"{}"),
            _ => event("user.2.clicked", b"{}"),
        })
        .collect();
    let done = stream.append_batch(&batch)?;
    println!("{} more, in one batch", done.len());

    // Subjects are indexed: no message that does not match is read.
    let clicks = Filter::new(b"user.*.clicked")?;
    for (subject, count) in stream.subjects(&clicks)? {
        println!("{}: {count}", String::from_utf8_lossy(&subject));
    }
    let created = Filter::new(b"user.1.created")?;
    if let Some(message) = stream.last_by_subject(&created)? {
        let text = String::from_utf8_lossy(message.payload());
        println!("user 1 was created as {text}");
    }

    // Everything there is, in order.
    let state = stream.state();
    let all = stream.messages(&[], state.first_seq..=state.last_seq);
    let bytes = all
        .map(|message| message.map(|message| message.payload().len()))
        .sum::<Result<usize, _>>()?;
    println!("{} events with {bytes} payload bytes", state.msgs);

    // What is still to come.
    let follower = follow(&stream);
    for n in 0..3 {
        stream.append(&event(&format!("user.{n}.deleted"), b"{}"))?;
    }
    stream.append(&event("user.0.deleted", END))?;
    let seen = follower.join().map_err(|_| "the follower panicked")??;
    println!("the follower saw {seen} deletions");
    store.close();
    Ok(())
}

fn event<'a>(subject: &'a str, payload: &'a [u8]) -> Append<'a> {
    Append {
        subject: subject.as_bytes(),
        payload,
        ..Append::default()
    }
}

/// Counts deletions in a thread of its own until the last one. Inside an async runtime,
/// `follower.next_message().await` does the same.
fn follow(stream: &Stream) -> thread::JoinHandle<Result<usize, String>> {
    let deletions = Filter::new(b"user.*.deleted").expect("a valid filter");
    let from = Seq(stream.state().last_seq.0 + 1);
    let mut follower = stream.follow(&[deletions], from);
    thread::spawn(move || {
        let mut seen = 0;
        loop {
            let message = follower.wait_next().map_err(|error| error.to_string())?;
            seen += 1;
            if message.payload() == END {
                return Ok(seen);
            }
        }
    })
}

/// The directory of the first argument, or one that goes away in the end.
fn directory() -> std::io::Result<(PathBuf, Option<tempfile::TempDir>)> {
    match std::env::args_os().nth(1) {
        Some(dir) => Ok((dir.into(), None)),
        None => {
            let dir = tempfile::tempdir()?;
            Ok((dir.path().to_path_buf(), Some(dir)))
        }
    }
}
