use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    max_control_line: 64,
    max_payload: 32,
};

fn parser() -> Parser {
    let mut parser = Parser::new(LIMITS);
    parser.set_headers_enabled(true);
    parser
}

/// Everything the parser makes of `chunks` arriving one after the other.
fn parse(chunks: &[&[u8]]) -> Result<Vec<Frame>, ProtocolError> {
    let mut parser = parser();
    let mut buf = BytesMut::new();
    let mut frames = Vec::new();
    for chunk in chunks {
        buf.extend_from_slice(chunk);
        while let Some(frame) = parser.next(&mut buf)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn publish(subject: &str, reply: Option<&str>, headers: Option<&str>, payload: &str) -> Frame {
    Frame::Publish(Publish {
        subject: bytes(subject),
        reply: reply.map(bytes),
        headers: headers.map(bytes),
        payload: bytes(payload),
    })
}

fn subscribe(subject: &str, queue: Option<&str>, sid: &str) -> Frame {
    Frame::Subscribe {
        subject: bytes(subject),
        queue: queue.map(bytes),
        sid: bytes(sid),
    }
}

fn unsubscribe(sid: &str, max: Option<u64>) -> Frame {
    Frame::Unsubscribe {
        sid: bytes(sid),
        max,
    }
}

const HEADERS: &str = "NATS/1.0\r\nA: b\r\n\r\n";

/// A line of every kind, with odd but legal spacing and case, and what it means.
fn script() -> (Vec<u8>, Vec<Frame>) {
    let parts = [
        (
            "CONNECT {\"verbose\":false}\r\n".into(),
            Frame::Connect(bytes("{\"verbose\":false}")),
        ),
        ("connect\t{}\n".into(), Frame::Connect(bytes("{}"))),
        ("CONNECT{}\r\n".into(), Frame::Connect(bytes("{}"))),
        ("PING\r\n".into(), Frame::Ping),
        ("ping\n".into(), Frame::Ping),
        ("PiNg \r\n".into(), Frame::Ping),
        ("PONG\r\n".into(), Frame::Pong),
        ("+OK\r\n".into(), Frame::Ignored),
        ("INFO {}\r\n".into(), Frame::Ignored),
        ("SUB foo.* 1\r\n".into(), subscribe("foo.*", None, "1")),
        (
            "sub\tfoo \t q   22 \r\n".into(),
            subscribe("foo", Some("q"), "22"),
        ),
        ("UNSUB 1\r\n".into(), unsubscribe("1", None)),
        ("unsub 1 5\n".into(), unsubscribe("1", Some(5))),
        ("UNSUB 1 -1\r\n".into(), unsubscribe("1", None)),
        (
            "PUB foo 5\r\nhello\r\n".into(),
            publish("foo", None, None, "hello"),
        ),
        (
            "pub foo bar 0\n\r\n".into(),
            publish("foo", Some("bar"), None, ""),
        ),
        (
            "PUB\tfoo  bar\t02\r\n\r\n\r\n".into(),
            publish("foo", Some("bar"), None, "\r\n"),
        ),
        (
            format!("HPUB foo 18 20\r\n{HEADERS}hi\r\n"),
            publish("foo", None, Some(HEADERS), "hi"),
        ),
        (
            format!("hpub foo r 18 18\r\n{HEADERS}\r\n"),
            publish("foo", Some("r"), Some(HEADERS), ""),
        ),
        (
            "HPUB foo 0 2\r\nhi\r\n".into(),
            publish("foo", None, None, "hi"),
        ),
        ("-ERR 'Bad'\r\n".into(), Frame::ClientError(bytes("'Bad'"))),
    ];
    let text: String = parts.iter().map(|(text, _)| text.as_str()).collect();
    (
        text.into_bytes(),
        parts.into_iter().map(|(_, frame)| frame).collect(),
    )
}

#[test]
fn every_split_position_gives_the_same_frames() {
    // CORE-013, CORE-014.
    let (text, want) = script();
    assert_eq!(parse(&[&text]).as_ref(), Ok(&want));
    for at in 0..=text.len() {
        let (a, b) = text.split_at(at);
        assert_eq!(parse(&[a, b]).as_ref(), Ok(&want), "split at {at}");
    }
    let single: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(parse(&single), Ok(want));
}

#[test]
fn malformed_input_is_refused_however_it_arrives() {
    use ProtocolError::*;
    let long = "x".repeat(65);
    let cases: &[(&str, ProtocolError)] = &[
        // CORE-015.
        ("GET / HTTP/1.1\r\n", UnknownOperation),
        ("\r\n", UnknownOperation),
        (" PING\r\n", UnknownOperation),
        ("PUBLISH foo 1\r\n", UnknownOperation),
        ("PUB\r\n", UnknownOperation),
        ("SUB\r\n", UnknownOperation),
        ("UNSUB\r\n", UnknownOperation),
        ("PONX", UnknownOperation),
        ("+NO", UnknownOperation),
        ("MSG foo 1 0\r\n\r\n", UnknownOperation),
        ("PUB foo 2\r\nhello\r\n", UnknownOperation),
        ("PUB foo 2\r\nhi\n\r", UnknownOperation),
        ("PUB foo 2\r\nhi\rx", UnknownOperation),
        // CORE-016.
        (&format!("SUB {long} 1\r\n"), ControlLineTooLong),
        (&format!("PUB {long} 1\r\n"), ControlLineTooLong),
        (&format!("CONNECT {{\"{long}\":1}}\r\n"), ControlLineTooLong),
        (&format!("PING {long}\r\n"), ControlLineTooLong),
        (&format!("SUB {long}{long}"), ControlLineTooLong),
        // CORE-017.
        ("PUB foo 33\r\n", PayloadTooLarge),
        ("PUB foo 999999999\r\n", PayloadTooLarge),
        ("HPUB foo 12 33\r\n", PayloadTooLarge),
        // CORE-051.
        ("PUB \r\n", BadArguments),
        ("PUB foo\r\n", BadArguments),
        ("PUB foo a b 1\r\n", BadArguments),
        ("PUB foo -1\r\n", BadArguments),
        ("PUB foo 1x\r\n", BadArguments),
        ("PUB foo +1\r\n", BadArguments),
        ("PUB foo 1000000000\r\n", BadArguments),
        ("PUB foo 99999999999999999999999\r\n", BadArguments),
        ("HPUB foo 12\r\n", BadArguments),
        ("HPUB 12 12\r\n", BadArguments),
        ("HPUB foo a b 12 12\r\n", BadArguments),
        ("HPUB foo 13 12\r\n", BadArguments),
        ("HPUB foo -1 12\r\n", BadArguments),
        ("HPUB foo 12 x\r\n", BadArguments),
        ("SUB foo\r\n", BadArguments),
        ("SUB foo q 1 2\r\n", BadArguments),
        ("SUB \r\n", BadArguments),
        ("UNSUB \r\n", BadArguments),
        ("UNSUB 1 2 3\r\n", BadArguments),
    ];
    for (text, want) in cases {
        assert_eq!(parse(&[text.as_bytes()]), Err(*want), "{text:?}");
        let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(parse(&single), Err(*want), "{text:?} byte by byte");
    }
}

#[test]
fn limits_are_inclusive() {
    let subject = "x".repeat(62);
    assert_eq!(
        parse(&[format!("SUB {subject} 1\r\n").as_bytes()]).map(|frames| frames.len()),
        Ok(1)
    );
    let payload = "x".repeat(32);
    let line = format!("PUB a 32\r\n{payload}\r\n");
    assert_eq!(
        parse(&[line.as_bytes()]),
        Ok(vec![publish("a", None, None, &payload)])
    );
}

#[test]
fn hpub_needs_headers_enabled() {
    // CORE-006.
    let mut buf = BytesMut::from(&b"HPUB foo 12 12\r\n"[..]);
    assert_eq!(
        Parser::new(LIMITS).next(&mut buf),
        Err(ProtocolError::HeadersNotEnabled)
    );
}

#[test]
fn only_some_errors_have_a_text() {
    // WIRE section 7.
    assert_eq!(ProtocolError::BadArguments.text(), None);
    assert_eq!(ProtocolError::HeadersNotEnabled.text(), None);
    assert_eq!(
        ProtocolError::UnknownOperation.text(),
        Some("Unknown Protocol Operation")
    );
    assert_eq!(
        ProtocolError::ControlLineTooLong.text(),
        Some("maximum control line exceeded")
    );
    assert_eq!(
        ProtocolError::PayloadTooLarge.text(),
        Some("Maximum Payload Violation")
    );
}

#[test]
fn an_incomplete_message_says_what_is_missing() {
    let mut parser = parser();
    let mut buf = BytesMut::from(&b"PUB a 5\r\nhe"[..]);
    assert_eq!(parser.missing(&buf), 0);
    assert_eq!(parser.next(&mut buf), Ok(None));
    assert_eq!(parser.missing(&buf), 5);
    buf.extend_from_slice(b"llo\r\nP");
    assert_eq!(
        parser.next(&mut buf),
        Ok(Some(publish("a", None, None, "hello")))
    );
    assert_eq!(parser.missing(&buf), 0);
}

proptest! {
    /// No input makes the parser panic, and how it is cut does not change the outcome.
    #[test]
    fn fragmentation_never_matters(
        text in proptest::collection::vec(
            prop_oneof![
                Just(b"PUB a 2\r\nhi\r\n".to_vec()),
                Just(b"SUB a 1\r\n".to_vec()),
                Just(b"HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n".to_vec()),
                Just(b"PING\r\n".to_vec()),
                proptest::collection::vec(prop_oneof![Just(b'P'), Just(b' '), Just(b'\n'), Just(b'\r'), any::<u8>()], 0..6),
            ],
            0..8,
        ),
        cuts in proptest::collection::vec(1_usize..9, 1..40),
    ) {
        let text = text.concat();
        let mut chunks: Vec<&[u8]> = Vec::new();
        let mut rest = &text[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            chunks.push(head);
            rest = tail;
        }
        prop_assert_eq!(parse(&chunks), parse(&[&text]));
    }
}
