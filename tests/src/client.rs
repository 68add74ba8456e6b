//! A blocking client of the raw NATS protocol.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::WAIT;

/// Fields of CONNECT.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Ask for `+OK`.
    pub verbose: bool,
    /// Receive own messages.
    pub echo: bool,
    /// Understand headers.
    pub headers: bool,
    /// Get a 503 instead of silence when nobody listens.
    pub no_responders: bool,
    /// Further fields, such as `user` and `pass`.
    pub extra: Value,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            verbose: false,
            echo: true,
            headers: true,
            no_responders: true,
            extra: json!({}),
        }
    }
}

/// A subscription of a [`Client`]: its id on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sub(pub u64);

/// A message as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msg {
    /// Subject shown in the MSG line.
    pub subject: String,
    /// Reply subject.
    pub reply: Option<String>,
    /// The whole header block with its status line and the final empty line; empty without headers.
    pub header_block: Vec<u8>,
    /// Bytes after the header block.
    pub payload: Vec<u8>,
}

impl Msg {
    /// Payload as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("payload is text")
    }

    /// Payload as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload)
            .unwrap_or_else(|err| panic!("{err} in {:?}", String::from_utf8_lossy(&self.payload)))
    }

    /// Header block as text.
    pub fn header_text(&self) -> &str {
        std::str::from_utf8(&self.header_block).expect("header block is text")
    }

    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_text().lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim())
        })
    }

    /// Status code and text of the first header line: `404 No Messages`. Empty when there is none.
    pub fn status(&self) -> &str {
        let first = self.header_text().lines().next().unwrap_or("");
        first.strip_prefix("NATS/1.0").unwrap_or("").trim()
    }

    /// Reply subject of a message that must have one.
    pub fn reply_subject(&self) -> &str {
        self.reply
            .as_deref()
            .expect("the message has a reply subject")
    }
}

/// One connection. Messages are sorted by subscription as they arrive.
pub struct Client {
    stream: TcpStream,
    /// Bytes read and not yet parsed.
    unparsed: Vec<u8>,
    /// The server's first INFO.
    pub info: Value,
    /// Texts of `-ERR` lines so far.
    pub errors: Vec<String>,
    waiting: HashMap<Sub, VecDeque<Msg>>,
    last_sid: u64,
    pongs: u64,
    inbox_prefix: String,
    request_sub: Option<Sub>,
    last_request: u64,
}

static NEXT_CLIENT: AtomicU64 = AtomicU64::new(1);

impl Client {
    /// Connects, sends CONNECT and waits for the first PONG.
    pub fn connect(addr: SocketAddr, options: &ConnectOptions) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let number = NEXT_CLIENT.fetch_add(1, Ordering::Relaxed);
        let mut client = Self {
            stream,
            unparsed: Vec::new(),
            info: Value::Null,
            errors: Vec::new(),
            waiting: HashMap::new(),
            last_sid: 0,
            pongs: 0,
            inbox_prefix: format!("_INBOX.t{}x{number}", std::process::id()),
            request_sub: None,
            last_request: 0,
        };
        while client.info.is_null() {
            client.read_more(Instant::now() + WAIT)?;
        }
        let mut fields = json!({
            "verbose": options.verbose, "pedantic": false, "echo": options.echo,
            "headers": options.headers, "no_responders": options.no_responders,
            "protocol": 1, "lang": "rust", "version": "0", "name": "riverlog-tests",
        });
        if let (Some(fields), Some(extra)) = (fields.as_object_mut(), options.extra.as_object()) {
            fields.extend(extra.clone());
        }
        client.write(format!("CONNECT {fields}\r\n").as_bytes())?;
        client.try_flush()?;
        Ok(client)
    }

    /// Writes raw bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends PING and waits for its PONG: everything sent before has been processed.
    pub fn flush(&mut self) {
        self.try_flush().expect("PONG");
    }

    fn try_flush(&mut self) -> io::Result<()> {
        self.write(b"PING\r\n")?;
        let wanted = self.pongs + 1;
        let deadline = Instant::now() + WAIT;
        while self.pongs < wanted {
            self.read_more(deadline)?;
        }
        Ok(())
    }

    /// Subscribes to `subject`.
    pub fn subscribe(&mut self, subject: &str) -> Sub {
        self.last_sid += 1;
        let sub = Sub(self.last_sid);
        self.waiting.insert(sub, VecDeque::new());
        self.write(format!("SUB {subject} {}\r\n", sub.0).as_bytes())
            .expect("SUB is sent");
        sub
    }

    /// Ends a subscription; messages that still arrive for it are dropped.
    pub fn unsubscribe(&mut self, sub: Sub) {
        self.waiting.remove(&sub);
        self.write(format!("UNSUB {}\r\n", sub.0).as_bytes())
            .expect("UNSUB is sent");
    }

    /// A fresh reply subject.
    pub fn new_inbox(&mut self) -> String {
        self.last_request += 1;
        format!("{}.i{}", self.inbox_prefix, self.last_request)
    }

    /// Publishes without headers.
    pub fn publish(&mut self, subject: &str, reply: Option<&str>, payload: &[u8]) {
        self.publish_with(subject, reply, &[], payload);
    }

    /// Publishes; without headers as PUB, with headers as HPUB.
    pub fn publish_with(
        &mut self,
        subject: &str,
        reply: Option<&str>,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) {
        let reply = reply.map_or_else(String::new, |reply| format!(" {reply}"));
        let mut frame = Vec::with_capacity(payload.len() + 128);
        if headers.is_empty() {
            frame.extend(format!("PUB {subject}{reply} {}\r\n", payload.len()).into_bytes());
        } else {
            let block = header_block(headers);
            let total = block.len() + payload.len();
            frame.extend(format!("HPUB {subject}{reply} {} {total}\r\n", block.len()).into_bytes());
            frame.extend(block);
        }
        frame.extend_from_slice(payload);
        frame.extend_from_slice(b"\r\n");
        self.write(&frame).expect("message is sent");
    }

    /// Publishes with a fresh reply subject and waits for the first answer.
    #[track_caller]
    pub fn request(&mut self, subject: &str, payload: &[u8]) -> Msg {
        self.request_with(subject, &[], payload)
    }

    /// [`Self::request`] with headers.
    #[track_caller]
    pub fn request_with(&mut self, subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Msg {
        match self.try_request(subject, headers, payload, WAIT) {
            Some(msg) => msg,
            None => panic!(
                "no answer to a request on {subject}; errors: {:?}",
                self.errors
            ),
        }
    }

    /// Publishes with a fresh reply subject and waits at most `wait` for the first answer.
    pub fn try_request(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
        wait: Duration,
    ) -> Option<Msg> {
        let sub = match self.request_sub {
            Some(sub) => sub,
            None => {
                let all = format!("{}.r.*", self.inbox_prefix);
                let sub = self.subscribe(&all);
                self.request_sub = Some(sub);
                sub
            }
        };
        self.last_request += 1;
        let reply = format!("{}.r.{}", self.inbox_prefix, self.last_request);
        self.publish_with(subject, Some(&reply), headers, payload);
        let deadline = Instant::now() + wait;
        while let Some(msg) = self.next_until(sub, deadline) {
            // Late answers to earlier requests are dropped.
            if msg.subject == reply {
                return Some(msg);
            }
        }
        None
    }

    /// Next message of a subscription, which must arrive.
    #[track_caller]
    pub fn next(&mut self, sub: Sub) -> Msg {
        match self.next_within(sub, WAIT) {
            Some(msg) => msg,
            None => panic!("no message within {WAIT:?}; errors: {:?}", self.errors),
        }
    }

    /// Next message of a subscription if one arrives within `wait`.
    pub fn next_within(&mut self, sub: Sub, wait: Duration) -> Option<Msg> {
        self.next_until(sub, Instant::now() + wait)
    }

    fn next_until(&mut self, sub: Sub, deadline: Instant) -> Option<Msg> {
        loop {
            if let Some(msg) = self.waiting.get_mut(&sub).and_then(VecDeque::pop_front) {
                return Some(msg);
            }
            match self.read_more(deadline) {
                Ok(()) => {}
                Err(err) if err.kind() == ErrorKind::TimedOut => return None,
                Err(err) => panic!("connection lost: {err}; errors: {:?}", self.errors),
            }
        }
    }

    /// Reads until the peer closes the connection and returns whether it did so in time.
    pub fn closed_by_server(&mut self) -> bool {
        let deadline = Instant::now() + WAIT;
        loop {
            match self.read_more(deadline) {
                Ok(()) => {}
                Err(err) => return err.kind() != ErrorKind::TimedOut,
            }
        }
    }

    /// Reads once and parses all complete frames.
    fn read_more(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 64 * 1024];
        let count = match self.stream.read(&mut chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(ErrorKind::TimedOut.into());
            }
            Err(err) if err.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(err) => return Err(err),
        };
        self.unparsed.extend_from_slice(&chunk[..count]);
        let mut used = 0;
        while let Some(length) = self.parse_one(used)? {
            used += length;
        }
        self.unparsed.drain(..used);
        Ok(())
    }

    /// Parses one frame at `start`; returns its length, or none when it is not complete yet.
    fn parse_one(&mut self, start: usize) -> io::Result<Option<usize>> {
        let bytes = &self.unparsed[start..];
        let Some(line_length) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(None);
        };
        let line = String::from_utf8_lossy(&bytes[..line_length]).into_owned();
        let body_start = line_length + 2;
        let (verb, args) = line.split_once(' ').unwrap_or((&line, ""));
        match verb {
            "MSG" | "HMSG" => {
                let args: Vec<&str> = args.split(' ').collect();
                let Some((msg, sub, length)) = parse_msg(verb, &args, &bytes[body_start..])? else {
                    return Ok(None);
                };
                if let Some(queue) = self.waiting.get_mut(&sub) {
                    queue.push_back(msg);
                }
                Ok(Some(body_start + length))
            }
            "INFO" => {
                if self.info.is_null() {
                    self.info = serde_json::from_str(args)?;
                }
                Ok(Some(body_start))
            }
            "PING" => {
                self.write(b"PONG\r\n")?;
                Ok(Some(body_start))
            }
            "PONG" => {
                self.pongs += 1;
                Ok(Some(body_start))
            }
            "+OK" => Ok(Some(body_start)),
            "-ERR" => {
                self.errors.push(args.to_string());
                Ok(Some(body_start))
            }
            _ => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("unknown frame {line:?}"),
            )),
        }
    }
}

/// Parses the arguments and the body of MSG and HMSG. Returns the message, its subscription and the
/// length of the body with its CR LF; none when the body is not complete yet.
fn parse_msg(verb: &str, args: &[&str], body: &[u8]) -> io::Result<Option<(Msg, Sub, usize)>> {
    let bad = || {
        io::Error::new(
            ErrorKind::InvalidData,
            format!("bad {verb} arguments {args:?}"),
        )
    };
    let number = |text: &str| text.parse::<usize>().map_err(|_| bad());
    let sizes = if verb == "HMSG" { 2 } else { 1 };
    let (reply, size_args) = match args.len().checked_sub(sizes) {
        Some(2) => (None, &args[2..]),
        Some(3) => (Some(args[2].to_string()), &args[3..]),
        _ => return Err(bad()),
    };
    let total = number(size_args[sizes - 1])?;
    let header_length = if sizes == 2 { number(size_args[0])? } else { 0 };
    if body.len() < total + 2 {
        return Ok(None);
    }
    if header_length > total || &body[total..total + 2] != b"\r\n" {
        return Err(bad());
    }
    let msg = Msg {
        subject: args[0].to_string(),
        reply,
        header_block: body[..header_length].to_vec(),
        payload: body[header_length..total].to_vec(),
    };
    Ok(Some((msg, Sub(number(args[1])? as u64), total + 2)))
}

fn header_block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = b"NATS/1.0\r\n".to_vec();
    for (name, value) in headers {
        block.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    block.extend_from_slice(b"\r\n");
    block
}
