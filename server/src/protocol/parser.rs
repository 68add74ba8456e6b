//! Incremental parser of what a client sends.
//!
//! Works in place on the read buffer: the parts of a frame are slices of it. The state between two
//! calls is a few offsets, so that a frame may arrive in any fragmentation (CORE-014) without being
//! parsed again and again.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

/// One protocol element sent by a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// `PING`
    Ping,
    /// `PONG`
    Pong,
    /// `CONNECT {json}`: the JSON text.
    Connect(Bytes),
    /// `PUB` or `HPUB` with its body.
    Publish(Publish),
    /// `SUB subject [queue] sid`
    Subscribe {
        /// Subject as sent, not checked.
        subject: Bytes,
        /// Queue group.
        queue: Option<Bytes>,
        /// Subscription id chosen by the client.
        sid: Bytes,
    },
    /// `UNSUB sid [max]`
    Unsubscribe {
        /// Subscription id.
        sid: Bytes,
        /// Deliveries since SUB after which it ends; none or 0: at once.
        max: Option<u64>,
    },
    /// `INFO` or `+OK`: legal for a client to send, without meaning.
    Ignored,
    /// `-ERR`: the client gives up.
    ClientError(Bytes),
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Subject as sent, not checked.
    pub subject: Bytes,
    /// Reply subject.
    pub reply: Option<Bytes>,
    /// Header block of HPUB, as long as the client said; its content is not checked.
    pub headers: Option<Bytes>,
    /// Body without headers.
    pub payload: Bytes,
}

/// Bounds on what a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest argument part of a control line, in bytes (CORE-016).
    pub max_control_line: usize,
    /// Largest headers plus body, in bytes (CORE-017).
    pub max_payload: usize,
}

/// Why a connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// Unknown verb, or a body not followed by CR LF (CORE-015).
    UnknownOperation,
    /// The arguments of a control line are too long (CORE-016).
    ControlLineTooLong,
    /// The announced size is over the limit (CORE-017).
    PayloadTooLarge,
    /// Wrong number of arguments, bad size (CORE-051).
    BadArguments,
    /// HPUB from a client that did not announce headers (CORE-006).
    HeadersNotEnabled,
}

impl ProtocolError {
    /// Text of the `-ERR` line; none when the connection is closed without one (WIRE section 7).
    pub fn text(self) -> Option<&'static str> {
        match self {
            ProtocolError::UnknownOperation => Some("Unknown Protocol Operation"),
            ProtocolError::ControlLineTooLong => Some("maximum control line exceeded"),
            ProtocolError::PayloadTooLarge => Some("Maximum Payload Violation"),
            ProtocolError::BadArguments | ProtocolError::HeadersNotEnabled => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Pub,
    Hpub,
    Sub,
    Unsub,
    Ping,
    Pong,
    Connect,
    Info,
    Ok,
    Err,
}

/// Name, whether a blank must follow, verb.
const VERBS: [(&[u8], bool, Verb); 10] = [
    (b"PUB", true, Verb::Pub),
    (b"HPUB", true, Verb::Hpub),
    (b"PING", false, Verb::Ping),
    (b"PONG", false, Verb::Pong),
    (b"SUB", true, Verb::Sub),
    (b"UNSUB", true, Verb::Unsub),
    (b"CONNECT", false, Verb::Connect),
    (b"INFO", false, Verb::Info),
    (b"+OK", false, Verb::Ok),
    (b"-ERR", true, Verb::Err),
];

enum VerbMatch {
    Found(Verb, usize),
    Partial,
    Unknown,
}

/// A publish whose control line is known and whose body is still arriving. Offsets are relative to
/// the start of the buffer.
#[derive(Clone, Debug)]
struct Pending {
    subject: Range<usize>,
    reply: Option<Range<usize>>,
    /// Length of the header block of HPUB.
    headers: Option<usize>,
    body: usize,
    size: usize,
}

/// The parser of one connection.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    headers_enabled: bool,
    /// The start of the buffer up to here contains no line end.
    scanned: usize,
    pending: Option<Pending>,
}

/// Most digits of a size: nine of them cannot overflow and are far over any limit.
const SIZE_DIGITS_MAX: usize = 9;

impl Parser {
    /// A parser for a new connection.
    pub fn new(limits: Limits) -> Parser {
        Parser {
            limits,
            headers_enabled: false,
            scanned: 0,
            pending: None,
        }
    }

    /// Allows or refuses HPUB from now on.
    pub fn set_headers_enabled(&mut self, enabled: bool) {
        self.headers_enabled = enabled;
    }

    /// Changes the limits from the next control line on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Bytes still missing for the message that is arriving; 0 when none is.
    pub fn missing(&self, buf: &BytesMut) -> usize {
        self.pending.as_ref().map_or(0, |pending| {
            (pending.body + pending.size + 2).saturating_sub(buf.len())
        })
    }

    /// Takes the next frame out of `buf`; none when it is not complete yet. After an error the
    /// connection must be closed.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        if self.pending.is_some() {
            return self.body(buf);
        }
        let (verb, args) = match verb(buf) {
            VerbMatch::Found(verb, len) => (verb, len),
            VerbMatch::Partial => return Ok(None),
            VerbMatch::Unknown => return Err(ProtocolError::UnknownOperation),
        };
        let from = self.scanned.max(args);
        let Some(end) = memchr::memchr(b'\n', &buf[from..]).map(|at| at + from) else {
            self.scanned = buf.len();
            // Not exact while the line is incomplete, but bounds what is kept.
            return if buf.len() - args > self.limits.max_control_line + 1 {
                Err(ProtocolError::ControlLineTooLong)
            } else {
                Ok(None)
            };
        };
        self.scanned = 0;
        let mut start = args;
        while start < end && matches!(buf[start], b' ' | b'\t') {
            start += 1;
        }
        let stop = if end > start && buf[end - 1] == b'\r' {
            end - 1
        } else {
            end
        };
        if stop - start > self.limits.max_control_line {
            return Err(ProtocolError::ControlLineTooLong);
        }
        match verb {
            Verb::Pub | Verb::Hpub => {
                self.pending =
                    Some(self.publish_line(buf, start..stop, end + 1, verb == Verb::Hpub)?);
                return self.body(buf);
            }
            _ => {}
        }
        let line = buf.split_to(end + 1).freeze();
        let args = line.slice(start..stop);
        let frame = match verb {
            Verb::Ping => Frame::Ping,
            Verb::Pong => Frame::Pong,
            Verb::Connect => Frame::Connect(args),
            Verb::Sub => subscribe(&args)?,
            Verb::Unsub => unsubscribe(&args)?,
            Verb::Err => Frame::ClientError(args),
            Verb::Info | Verb::Ok | Verb::Pub | Verb::Hpub => Frame::Ignored,
        };
        Ok(Some(frame))
    }

    fn publish_line(
        &self,
        buf: &[u8],
        args: Range<usize>,
        body: usize,
        with_headers: bool,
    ) -> Result<Pending, ProtocolError> {
        if with_headers && !self.headers_enabled {
            return Err(ProtocolError::HeadersNotEnabled);
        }
        let mut parts: [Range<usize>; 4] = Default::default();
        let mut count = 0;
        let mut at = args.start;
        while let Some(part) = next_argument(buf, at, args.end) {
            if count == parts.len() {
                return Err(ProtocolError::BadArguments);
            }
            at = part.end;
            parts[count] = part;
            count += 1;
        }
        let sizes = if with_headers { 2 } else { 1 };
        let reply = match count - sizes.min(count) {
            1 => None,
            2 => Some(parts[1].clone()),
            _ => return Err(ProtocolError::BadArguments),
        };
        let number = |at: usize| size(&buf[parts[at].clone()]).ok_or(ProtocolError::BadArguments);
        let total = number(count - 1)?;
        let headers = if with_headers {
            Some(number(count - 2)?)
        } else {
            None
        };
        if headers.is_some_and(|headers| headers > total) {
            return Err(ProtocolError::BadArguments);
        }
        if total > self.limits.max_payload {
            return Err(ProtocolError::PayloadTooLarge);
        }
        Ok(Pending {
            subject: parts[0].clone(),
            reply,
            headers,
            body,
            size: total,
        })
    }

    fn body(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        let Some(pending) = &self.pending else {
            return Ok(None);
        };
        let end = pending.body + pending.size;
        // The first wrong byte is an error even if the second one is still missing.
        if buf.get(end).is_some_and(|byte| *byte != b'\r')
            || buf.get(end + 1).is_some_and(|byte| *byte != b'\n')
        {
            return Err(ProtocolError::UnknownOperation);
        }
        if buf.len() < end + 2 {
            return Ok(None);
        }
        let Some(pending) = self.pending.take() else {
            return Ok(None);
        };
        let mut frame = buf.split_to(end + 2).freeze();
        let subject = frame.slice(pending.subject);
        let reply = pending.reply.map(|reply| frame.slice(reply));
        let headers = pending
            .headers
            .filter(|len| *len > 0)
            .map(|len| frame.slice(pending.body..pending.body + len));
        frame.truncate(end);
        frame.advance(pending.body + pending.headers.unwrap_or(0));
        Ok(Some(Frame::Publish(Publish {
            subject,
            reply,
            headers,
            payload: frame,
        })))
    }
}

/// The verb at the start of `buf`, with its length. Decided as early as possible: a client speaking
/// another protocol hears of it although it never sends a line end.
fn verb(buf: &[u8]) -> VerbMatch {
    let mut partial = false;
    for (name, blank, verb) in VERBS {
        let len = name.len().min(buf.len());
        if !buf[..len].eq_ignore_ascii_case(&name[..len]) {
            continue;
        }
        match buf.get(name.len()) {
            None => partial = true,
            Some(b' ' | b'\t') => return VerbMatch::Found(verb, name.len()),
            Some(_) if !blank => return VerbMatch::Found(verb, name.len()),
            Some(_) => {}
        }
    }
    if partial {
        VerbMatch::Partial
    } else {
        VerbMatch::Unknown
    }
}

/// The range of the next argument at or after `at`.
fn next_argument(buf: &[u8], at: usize, end: usize) -> Option<Range<usize>> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
    let start = at + buf[at..end].iter().position(|byte| !blank(byte))?;
    let len = buf[start..end]
        .iter()
        .position(blank)
        .unwrap_or(end - start);
    Some(start..start + len)
}

/// Up to three arguments of a line and their number, which may be larger.
fn arguments(line: &Bytes) -> ([Bytes; 3], usize) {
    let mut parts: [Bytes; 3] = Default::default();
    let mut count = 0;
    let mut at = 0;
    while let Some(range) = next_argument(line, at, line.len()) {
        at = range.end;
        if let Some(part) = parts.get_mut(count) {
            *part = line.slice(range);
        }
        count += 1;
    }
    (parts, count)
}

fn subscribe(line: &Bytes) -> Result<Frame, ProtocolError> {
    let ([first, second, third], count) = arguments(line);
    match count {
        2 => Ok(Frame::Subscribe {
            subject: first,
            queue: None,
            sid: second,
        }),
        3 => Ok(Frame::Subscribe {
            subject: first,
            queue: Some(second),
            sid: third,
        }),
        _ => Err(ProtocolError::BadArguments),
    }
}

fn unsubscribe(line: &Bytes) -> Result<Frame, ProtocolError> {
    let ([sid, max, _], count) = arguments(line);
    match count {
        1 => Ok(Frame::Unsubscribe { sid, max: None }),
        // A limit that is no number ends the subscription at once.
        2 => Ok(Frame::Unsubscribe {
            sid,
            max: size(&max).map(|max| max as u64),
        }),
        _ => Err(ProtocolError::BadArguments),
    }
}

/// A non-negative decimal number of at most nine digits.
fn size(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX {
        return None;
    }
    let mut value = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + usize::from(digit - b'0');
    }
    Some(value)
}

#[cfg(test)]
mod tests;
