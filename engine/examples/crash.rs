//! What is acknowledged survives: a child process appends and reports every message that is on
//! disk, is killed in the middle of it, and the parent counts what came back.
//!
//! ```text
//! cargo run -p riverlog-engine --example crash
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use riverlog_engine::{Append, AppendError, Seq, Store, StoreOptions, StreamConfig};

const ROUNDS: usize = 5;
/// Acknowledgements to wait for before the child is killed.
const ACKS: usize = 2_000;
const WRITERS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(dir) = std::env::args_os().nth(1) {
        return write_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir()?;
    let mut acknowledged = Vec::new();
    for round in 1..=ROUNDS {
        let before = acknowledged.len();
        kill_a_writer(dir.path(), &mut acknowledged)?;
        let (store, report) = Store::open(dir.path(), StoreOptions::default())?;
        let stream = store.stream("log").ok_or("the stream is gone")?;
        for (seq, payload) in &acknowledged {
            let message = stream
                .get(Seq(*seq))?
                .ok_or("an acknowledged message is gone")?;
            assert_eq!(message.payload(), payload.as_bytes());
        }
        println!(
            "round {round}: {} acknowledged before the kill, {} operations replayed, all {} messages are there",
            acknowledged.len() - before,
            report.ops_replayed,
            acknowledged.len()
        );
        store.close();
    }
    Ok(())
}

/// Starts a writer, collects what it acknowledges, and kills it without warning.
fn kill_a_writer(dir: &Path, acknowledged: &mut Vec<(u64, String)>) -> Result<(), Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(output).lines();
    let mut seen = 0;
    while seen < ACKS {
        let line = lines.next().ok_or("the writer ended by itself")??;
        note(&line, acknowledged);
        seen += 1;
    }
    child.kill()?;
    child.wait()?;
    // What it said before it died counts as well; its last line may be cut.
    for line in lines {
        note(&line?, acknowledged);
    }
    Ok(())
}

fn note(line: &str, acknowledged: &mut Vec<(u64, String)>) {
    let mut words = line.split(' ');
    if let (Some(seq), Some(payload), Some(".")) = (words.next(), words.next(), words.next())
        && let Ok(seq) = seq.parse()
    {
        acknowledged.push((seq, payload.to_owned()));
    }
}

/// Appends from several threads; a line is printed once its message is on disk.
fn write_until_killed(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (store, _) = Store::open(dir, StoreOptions::default())?;
    let stream = match store.stream("log") {
        Some(stream) => stream,
        None => {
            let config = StreamConfig {
                name: "log".into(),
                ..StreamConfig::default()
            };
            store.create_stream(config)?.0
        }
    };
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let stream = &stream;
            scope.spawn(move || -> Result<(), AppendError> {
                for n in 0_u64.. {
                    let payload = format!("{}-{writer}-{n}", std::process::id());
                    let append = Append {
                        subject: b"log.line",
                        payload: payload.as_bytes(),
                        ..Append::default()
                    };
                    let done = stream.append(&append)?;
                    let mut out = std::io::stdout().lock();
                    // Nobody listens any more: the parent is gone.
                    if writeln!(out, "{} {payload} .", done.seq).is_err() || out.flush().is_err() {
                        return Ok(());
                    }
                }
                Ok(())
            });
        }
    });
    Ok(())
}
