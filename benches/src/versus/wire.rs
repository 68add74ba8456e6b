//! A minimal NATS connection that parses in place.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{BenchError, BenchResult, Doing};

/// How long a server may be silent before a run is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 256 * 1024;

/// One connection with its read buffer.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Unparsed bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
}

/// A frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A message without headers.
    Msg {
        /// Reply subject, empty if there is none.
        reply: &'a [u8],
        /// Payload.
        payload: &'a [u8],
    },
    /// A message with headers: status messages of the server.
    Status {
        /// The header block.
        headers: &'a [u8],
    },
    /// PING, to be answered.
    Ping,
    /// PONG.
    Pong,
}

impl Wire {
    /// Connects and waits until the server has accepted the connection.
    pub fn connect(addr: SocketAddr) -> BenchResult<Self> {
        let stream = TcpStream::connect(addr).doing("connecting")?;
        stream.set_nodelay(true).doing("setting TCP_NODELAY")?;
        stream
            .set_read_timeout(Some(SILENCE_MAX))
            .doing("setting a timeout")?;
        let mut wire = Self {
            stream,
            buffer: vec![0; 2 * READ_BYTES],
            start: 0,
            end: 0,
        };
        let options = r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"name":"versus"}"#;
        wire.send(format!("CONNECT {options}\r\nPING\r\n").as_bytes())?;
        wire.wait_pong()?;
        Ok(wire)
    }

    /// Writes a batch.
    pub fn send(&mut self, bytes: &[u8]) -> BenchResult<()> {
        self.stream.write_all(bytes).doing("sending")
    }

    /// Waits for the PONG of a PING already sent; other frames are dropped.
    pub fn wait_pong(&mut self) -> BenchResult<()> {
        loop {
            while let Some(frame) = self.next_frame()? {
                if frame == Frame::Pong {
                    return Ok(());
                }
            }
            self.fill()?;
        }
    }

    /// Sends one request and returns the payload of its answer. Not for the measured part.
    pub fn request(&mut self, subject: &str, body: &str) -> BenchResult<Vec<u8>> {
        let frame = format!(
            "SUB _INBOX.versus.api 99\r\nUNSUB 99 1\r\nPUB {subject} _INBOX.versus.api {}\r\n{body}\r\n",
            body.len()
        );
        self.send(frame.as_bytes())?;
        loop {
            while let Some(frame) = self.next_frame()? {
                match frame {
                    Frame::Msg { payload, .. } => return Ok(payload.to_vec()),
                    Frame::Status { headers } => return Err(unexpected("status", headers)),
                    Frame::Ping => self.send(b"PONG\r\n")?,
                    Frame::Pong => {}
                }
            }
            self.fill()?;
        }
    }

    /// Reads what is there, at least one byte.
    pub fn fill(&mut self) -> BenchResult<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < READ_BYTES {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() - self.end < READ_BYTES {
                self.buffer.resize(self.end + READ_BYTES, 0);
            }
        }
        let space = &mut self.buffer[self.end..];
        let count = self.stream.read(space).doing("waiting for the server")?;
        if count == 0 {
            return Err(BenchError::Failed(
                "the server closed the connection".into(),
            ));
        }
        self.end += count;
        Ok(())
    }

    /// Next complete frame in the buffer.
    pub fn next_frame(&mut self) -> BenchResult<Option<Frame<'_>>> {
        loop {
            let (frame, length) = match parse(&self.buffer[self.start..self.end])? {
                Parsed::Incomplete => return Ok(None),
                Parsed::Skip(length) => {
                    self.start += length;
                    continue;
                }
                Parsed::Frame(frame, length) => (frame, length),
            };
            // Only the position changes; the frame borrows the buffer.
            self.start += length;
            return Ok(Some(frame));
        }
    }
}

enum Parsed<'a> {
    Incomplete,
    Skip(usize),
    Frame(Frame<'a>, usize),
}

fn unexpected(what: &str, bytes: &[u8]) -> BenchError {
    BenchError::Failed(format!(
        "unexpected {what}: {}",
        String::from_utf8_lossy(bytes)
    ))
}

fn parse(bytes: &[u8]) -> BenchResult<Parsed<'_>> {
    let Some(line_end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Ok(Parsed::Incomplete);
    };
    let line = &bytes[..line_end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let body = line_end + 1;
    if let Some(args) = line.strip_prefix(b"MSG ") {
        let mut fields = args.split(|byte| *byte == b' ');
        let size = fields
            .next_back()
            .and_then(number)
            .ok_or_else(|| unexpected("frame", line))?;
        let reply = fields.nth(2).unwrap_or(b"");
        let Some(payload) = bytes.get(body..body + size) else {
            return Ok(Parsed::Incomplete);
        };
        return Ok(if bytes.len() < body + size + 2 {
            Parsed::Incomplete
        } else {
            Parsed::Frame(Frame::Msg { reply, payload }, body + size + 2)
        });
    }
    if let Some(args) = line.strip_prefix(b"HMSG ") {
        let mut fields = args.rsplit(|byte| *byte == b' ');
        let sizes = fields
            .next()
            .and_then(number)
            .zip(fields.next().and_then(number));
        let (total, header) = sizes.ok_or_else(|| unexpected("frame", line))?;
        if bytes.len() < body + total + 2 {
            return Ok(Parsed::Incomplete);
        }
        let headers = bytes
            .get(body..body + header)
            .ok_or_else(|| unexpected("frame", line))?;
        return Ok(Parsed::Frame(Frame::Status { headers }, body + total + 2));
    }
    match line {
        b"PING" => Ok(Parsed::Frame(Frame::Ping, body)),
        b"PONG" => Ok(Parsed::Frame(Frame::Pong, body)),
        b"+OK" => Ok(Parsed::Skip(body)),
        _ if line.starts_with(b"INFO ") => Ok(Parsed::Skip(body)),
        _ => Err(unexpected("frame", line)),
    }
}

/// A decimal number.
pub fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0_usize, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + usize::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::{Frame, Parsed, number, parse};

    #[test]
    fn frames_are_found_only_when_complete() {
        let cases: [(&[u8], Frame<'_>); 5] = [
            (
                b"MSG a.b 1 5\r\nhello\r\n",
                Frame::Msg {
                    reply: b"",
                    payload: b"hello",
                },
            ),
            (
                b"MSG a.b 1 re.ply 2\r\nhi\r\n",
                Frame::Msg {
                    reply: b"re.ply",
                    payload: b"hi",
                },
            ),
            (
                b"HMSG a 1 14 14\r\nNATS/1.0 404\r\n\r\n",
                Frame::Status {
                    headers: b"NATS/1.0 404\r\n",
                },
            ),
            (b"PING\r\n", Frame::Ping),
            (b"PONG\r\n", Frame::Pong),
        ];
        for (bytes, expected) in cases {
            for cut in 0..bytes.len() {
                assert!(
                    matches!(parse(&bytes[..cut]), Ok(Parsed::Incomplete)),
                    "{cut} of {expected:?}"
                );
            }
            match parse(bytes) {
                Ok(Parsed::Frame(frame, length)) => {
                    assert_eq!((frame, length), (expected, bytes.len()));
                }
                _ => panic!("{expected:?} was not parsed"),
            }
        }
        assert!(matches!(parse(b"INFO {}\r\n"), Ok(Parsed::Skip(9))));
        assert!(parse(b"-ERR 'x'\r\n").is_err());
        assert!(parse(b"MSG a 1 x\r\n").is_err());
    }

    #[test]
    fn numbers_are_decimal_only() {
        assert_eq!(number(b"1234"), Some(1234));
        assert_eq!([number(b""), number(b"-1"), number(b"1a")], [None; 3]);
    }
}
