//! An acknowledged message is there after the process was killed, whatever it was doing.
//!
//! Eight connections publish with many messages in flight, the server is killed in the middle, started
//! again, and everything it ever acknowledged has to be there: at its sequence, with its payload, and
//! in the order in which its connection sent it. In the last round the derived files are removed
//! before the start: they must not be needed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use riverlog_tests::{Client, TestServer, WAIT, is_peer};
use serde_json::{Value, json};

const PUBLISHERS: usize = 8;
/// Messages of one connection without ack.
const WINDOW: u64 = 256;
/// Acks to wait for before a kill: different in every round so that kills hit different moments.
const ACKS_PER_ROUND: u64 = 4000;
/// Large enough that sealed files and indexes are written within three rounds.
const PAYLOAD_BYTES_MAX: usize = 6000;

/// Number of a message on its connection, and the sequence its ack named.
type Acked = Vec<(u64, u64)>;

/// Round, publisher and number of a message: its payload follows from them.
type Sent = (u64, usize, u64);

#[test]
fn every_acknowledged_message_survives_kill_minus_nine() {
    let rounds: u64 = match std::env::var("RIVERLOG_KILL_ROUNDS") {
        Ok(text) => text.parse().expect("RIVERLOG_KILL_ROUNDS is a number"),
        Err(_) => 3,
    };
    let mut server = TestServer::start();
    let mut client = server.connect();
    client
        .create_stream(&json!({"name": "S", "subjects": ["s.*"], "duplicate_window": 100_000_000}));
    client.create_consumer("S", "C", &json!({"ack_wait": 600_000_000_000_u64}));

    // What was acknowledged so far: sequence -> round, publisher and number.
    let mut acked: HashMap<u64, Sent> = HashMap::new();
    let mut checked = 0;
    let mut consumed = 0;
    for round in 0..rounds {
        let count = Arc::new(AtomicU64::new(0));
        let publishers: Vec<JoinHandle<Acked>> = (0..PUBLISHERS)
            .map(|index| {
                let (addr, count) = (server.addr(), Arc::clone(&count));
                std::thread::spawn(move || publish_until_killed(addr, round, index, &count))
            })
            .collect();
        let wanted = ACKS_PER_ROUND + 777 * (round % 5);
        wait_for_acks(&count, wanted);
        server.kill();
        for (index, publisher) in publishers.into_iter().enumerate() {
            let of_this = publisher.join().expect("publisher thread");
            check_order(&of_this, index);
            for (number, seq) in of_this {
                let before = acked.insert(seq, (round, index, number));
                assert!(before.is_none(), "sequence {seq} was acknowledged twice");
            }
        }
        if round + 1 == rounds {
            let removed = remove_derived_files(&server.store_dir());
            assert!(removed > 0 || is_peer(), "no derived files were there");
        }
        server.start_again();
        let mut client = server.connect();
        // What was checked before is read again in the end.
        let from = if round + 1 == rounds { 0 } else { checked };
        checked = check_after(&mut client, &acked, from);
        if !is_peer() {
            consumed = consume_some(&mut client, consumed);
        }
    }
    assert!(acked.len() as u64 >= rounds * ACKS_PER_ROUND);
}

fn wait_for_acks(count: &AtomicU64, wanted: u64) {
    let mut stalled = Duration::ZERO;
    let mut last = 0;
    while last < wanted {
        std::thread::sleep(Duration::from_millis(2));
        let now = count.load(Ordering::Relaxed);
        stalled = if now == last {
            stalled + Duration::from_millis(2)
        } else {
            Duration::ZERO
        };
        assert!(stalled < WAIT, "no acks any more after {now}");
        last = now;
    }
}

/// Publishes as fast as acks come back until the connection breaks.
fn publish_until_killed(addr: SocketAddr, round: u64, index: usize, count: &AtomicU64) -> Acked {
    let stream = TcpStream::connect(addr).expect("publisher connects");
    let mut reader = BufReader::new(stream.try_clone().expect("second handle"));
    let mut writer = BufWriter::with_capacity(64 * 1024, stream);
    let inbox = format!("_INBOX.kill{index}");
    let hello = format!(
        "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB {inbox}.* 1\r\n"
    );
    let mut acked = Acked::new();
    let mut sent = 0;
    let mut send = |sent: &mut u64| -> std::io::Result<()> {
        *sent += 1;
        let body = payload(round, index, *sent);
        write!(writer, "PUB s.{index} {inbox}.{sent} {}\r\n", body.len())?;
        writer.write_all(&body)?;
        writer.write_all(b"\r\n")
    };
    // Errors mean that the server is gone, which is the end of every round.
    let _ = (|| -> std::io::Result<()> {
        send_raw(reader.get_mut(), hello.as_bytes())?;
        while sent < WINDOW {
            send(&mut sent)?;
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let Some(args) = line.strip_prefix("MSG ") else {
                if line.starts_with("PING") {
                    send_raw(reader.get_mut(), b"PONG\r\n")?;
                }
                assert!(
                    !line.starts_with("HMSG") && !line.starts_with("-ERR"),
                    "{line}"
                );
                continue;
            };
            let mut args = args.split_ascii_whitespace();
            let subject = args.next().expect("subject");
            let size: usize = args.next_back().expect("size").parse().expect("size");
            let mut body = vec![0; size + 2];
            reader.read_exact(&mut body)?;
            let ack: Value = serde_json::from_slice(&body[..size]).expect("ack is JSON");
            let seq = ack["seq"].as_u64().filter(|seq| *seq > 0);
            let seq = seq.unwrap_or_else(|| panic!("publish was refused: {ack}"));
            let number = subject
                .rsplit('.')
                .next()
                .expect("number")
                .parse()
                .expect("number");
            acked.push((number, seq));
            count.fetch_add(1, Ordering::Relaxed);
            send(&mut sent)?;
        }
    })();
    acked
}

fn send_raw(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)
}

/// Bytes of a message: they say who sent it, and the length varies with the number.
fn payload(round: u64, index: usize, number: u64) -> Vec<u8> {
    let mut body = format!("round {round} publisher {index} message {number} ").into_bytes();
    let length = body.len() + (number as usize * 37) % PAYLOAD_BYTES_MAX;
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ round;
    while body.len() < length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        body.push((state >> 33) as u8);
    }
    body
}

/// Acks of one connection come in the order of its messages, with growing sequences.
fn check_order(acked: &Acked, index: usize) {
    for pair in acked.windows(2) {
        let ((number, seq), (next_number, next_seq)) = (pair[0], pair[1]);
        assert_eq!(next_number, number + 1, "publisher {index}: order of acks");
        assert!(next_seq > seq, "publisher {index}: {next_seq} after {seq}");
    }
}

/// Removes every file in directories called `idx` and returns how many there were.
fn remove_derived_files(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let mut removed = 0;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            removed += remove_derived_files(&path);
        } else if dir.file_name().is_some_and(|name| name == "idx") {
            std::fs::remove_file(&path).expect("a derived file can be removed");
            removed += 1;
        }
    }
    removed
}

/// Reads everything after a sequence, compares what was acknowledged, and returns the last sequence.
fn check_after(client: &mut Client, acked: &HashMap<u64, Sent>, from: u64) -> u64 {
    let (first, last, messages) = client.stream_span("S");
    let highest = acked.keys().max().copied().unwrap_or(0);
    assert_eq!(first, 1);
    assert!(
        last >= highest,
        "last sequence {last}, but {highest} was acknowledged"
    );
    assert_eq!(messages, last, "sequences have gaps");
    let body = json!({"stream_name": "S", "config": {"name": "CHECK", "ack_policy": "none",
        "deliver_policy": "by_start_sequence", "opt_start_seq": from + 1,
        "inactive_threshold": 600_000_000_000_u64}});
    client.api_ok("CONSUMER.CREATE.S.CHECK", &body);
    let mut seq = from;
    let mut last_of: HashMap<String, u64> = HashMap::new();
    while seq < last {
        let batch = (last - seq).min(1000) as usize;
        for msg in client.fetch("S", "CHECK", batch) {
            seq += 1;
            assert_eq!(msg.stream_seq(), seq);
            if let Some((round, index, number)) = acked.get(&seq) {
                let expected = payload(*round, *index, *number);
                assert!(msg.payload == expected, "payload of sequence {seq}");
            }
            check_sender_order(&msg.payload, &mut last_of, seq);
        }
    }
    client.api_ok("CONSUMER.DELETE.S.CHECK", &Value::Null);
    last
}

/// Also unacknowledged messages that were stored are complete and in the order they were sent.
fn check_sender_order(payload: &[u8], last_of: &mut HashMap<String, u64>, seq: u64) {
    let words: Vec<&[u8]> = payload.splitn(7, |byte| *byte == b' ').collect();
    let text = |index: usize| String::from_utf8_lossy(words[index]).into_owned();
    let sender = format!("{} {}", text(1), text(3));
    let number: u64 = text(5).parse().expect("number in the payload");
    let before = last_of.insert(sender.clone(), number).unwrap_or(0);
    assert_eq!(
        number,
        before + 1,
        "sequence {seq}: message {number} of {sender} after {before}"
    );
}

/// Takes and acknowledges some messages: acknowledged ones must not come again in the next round.
fn consume_some(client: &mut Client, consumed: u64) -> u64 {
    let positions = client.consumer_positions("S", "C");
    assert_eq!(positions.floor.1, consumed, "ack floor after the restart");
    let msgs = client.fetch("S", "C", 100);
    let found: Vec<u64> = msgs.iter().map(|msg| msg.stream_seq()).collect();
    let expected: Vec<u64> = (consumed + 1..=consumed + 100).collect();
    assert_eq!(found, expected);
    client.ack_all_of(&msgs);
    consumed + 100
}
