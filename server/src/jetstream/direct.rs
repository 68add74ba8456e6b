//! Direct get: reads answered on the spot, without the API queue (DGET rows, ADR-31).

use std::sync::Arc;

use bytes::Bytes;
use riverlog_engine::ids::{Seq, TimestampNs};
use riverlog_engine::{Filter, Message, ReadError};

use super::json::{Fields, JsonError, ObjectFromJson, UnknownFields, is_empty_body, parse_object};
use super::limits::{DIRECT_BATCH_BYTES_DEFAULT, MULTI_LAST_SUBJECTS_MAX};
use super::publish_headers::requires_newer_api;
use super::shared::Shared;
use super::stream_handle::StreamHandle;
use super::time::format_time;
use crate::protocol::headers;
use crate::routing::{self, Inbound, Publisher};

/// What a request asks for.
#[derive(Clone, Default, Debug)]
pub(crate) struct GetRequest {
    pub seq: u64,
    pub last_by_subj: String,
    pub next_by_subj: String,
    pub start_time: Option<TimestampNs>,
    pub batch: i64,
    pub max_bytes: i64,
    pub multi_last: Vec<String>,
    pub up_to_seq: u64,
    pub up_to_time: Option<TimestampNs>,
    pub no_hdr: bool,
}

impl ObjectFromJson for GetRequest {
    fn read_fields(f: &mut Fields) -> Result<GetRequest, JsonError> {
        let mut r = GetRequest::default();
        f.read("seq", &mut r.seq)?;
        f.read("last_by_subj", &mut r.last_by_subj)?;
        f.read("next_by_subj", &mut r.next_by_subj)?;
        f.read("start_time", &mut r.start_time)?;
        f.read("batch", &mut r.batch)?;
        f.read("max_bytes", &mut r.max_bytes)?;
        f.read("multi_last", &mut r.multi_last)?;
        f.read("up_to_seq", &mut r.up_to_seq)?;
        f.read("up_to_time", &mut r.up_to_time)?;
        f.read("no_hdr", &mut r.no_hdr)?;
        Ok(r)
    }
}

impl GetRequest {
    /// Whether it names nothing to get.
    pub fn selects_nothing(&self) -> bool {
        self.seq == 0
            && self.last_by_subj.is_empty()
            && self.next_by_subj.is_empty()
            && self.start_time.is_none()
            && self.multi_last.is_empty()
    }

    /// Whether selectors contradict each other.
    pub fn is_contradictory(&self) -> bool {
        let last = !self.last_by_subj.is_empty();
        let next = !self.next_by_subj.is_empty();
        let multi = !self.multi_last.is_empty();
        (self.seq > 0 && (last || self.start_time.is_some()))
            || (last && (next || multi || self.start_time.is_some() || self.batch > 0))
            || (multi && (next || self.start_time.is_some()))
            || (self.up_to_seq > 0 && self.up_to_time.is_some())
    }
}

/// Takes a message to `$JS.API.DIRECT.GET.<stream>[.<subject>]`. False when no stream answers.
pub(crate) fn deliver(shared: &Arc<Shared>, target: &str, message: &Inbound<'_>) -> bool {
    let (name, subject) = match target.split_once('.') {
        Some((name, subject)) => (name, Some(subject)),
        None => (target, None),
    };
    let Some(stream) = shared
        .stream(name)
        .filter(|stream| stream.config().allow_direct)
    else {
        return false;
    };
    let Some(reply) = message.reply.filter(|reply| !reply.is_empty()) else {
        return true;
    };
    let mut answer = Answer {
        stream: &stream,
        reply,
        publisher: shared.account.publisher(),
        no_hdr: false,
    };
    if requires_newer_api(message.headers.map(|block| &block[..])) {
        answer.status("412 Required Api Level");
        return true;
    }
    match read_request(subject, message.payload) {
        Ok(request) => {
            answer.no_hdr = request.no_hdr;
            // Reading cold data takes a while only when much is asked for.
            let result = if request.batch > 0 || !request.multi_last.is_empty() {
                tokio::task::block_in_place(|| answer.run(&request))
            } else {
                answer.run(&request)
            };
            if let Err(error) = result {
                tracing::error!(stream = %stream.name, %error, "a direct get could not be answered");
                answer.status(&format!("500 {error}"));
            }
        }
        Err(text) => answer.status(text),
    }
    true
}

fn read_request(subject: Option<&str>, body: &[u8]) -> Result<GetRequest, &'static str> {
    let malformed = |_| "408 Malformed Request";
    let mut request: GetRequest = if is_empty_body(body) {
        GetRequest::default()
    } else {
        parse_object(body, "JSApiMsgGetRequest", UnknownFields::Ignore).map_err(malformed)?
    };
    match subject {
        Some(subject) if request.selects_nothing() && request.batch == 0 => {
            request.last_by_subj = subject.to_owned();
        }
        Some(_) => return Err("408 Bad Request"),
        None if request.selects_nothing() => return Err("408 Empty Request"),
        None => {}
    }
    if request.is_contradictory() {
        return Err("408 Bad Request");
    }
    Ok(request)
}

/// One message by request, for single gets of any kind.
pub(crate) fn find(
    stream: &StreamHandle,
    request: &GetRequest,
) -> Result<Option<Message>, ReadError> {
    let engine = &stream.engine;
    if !request.last_by_subj.is_empty() {
        let Ok(filter) = Filter::new(request.last_by_subj.as_bytes()) else {
            return Ok(None);
        };
        return engine.last_by_subject(&filter);
    }
    if !request.next_by_subj.is_empty() || request.start_time.is_some() {
        let Some((filters, from)) = scan_start(stream, request)? else {
            return Ok(None);
        };
        return engine.next_message(&filters, from);
    }
    engine.get(Seq(request.seq))
}

fn scan_start(
    stream: &StreamHandle,
    request: &GetRequest,
) -> Result<Option<(Vec<Filter>, Seq)>, ReadError> {
    let filters = if request.next_by_subj.is_empty() {
        Vec::new()
    } else {
        match Filter::new(request.next_by_subj.as_bytes()) {
            Ok(filter) => vec![filter],
            Err(_) => return Ok(None),
        }
    };
    let from = match request.start_time {
        Some(ts) => stream.engine.seq_at(ts)?,
        None => Seq(request.seq.max(1)),
    };
    Ok(Some((filters, from)))
}

struct Answer<'a> {
    stream: &'a StreamHandle,
    reply: &'a Bytes,
    publisher: Publisher,
    no_hdr: bool,
}

impl Answer<'_> {
    fn run(&mut self, request: &GetRequest) -> Result<(), ReadError> {
        if !request.multi_last.is_empty() {
            return self.multi_last(request);
        }
        if request.batch > 0 {
            return self.batch(request);
        }
        match find(self.stream, request)? {
            Some(message) => self.message(&message, None),
            None => self.status("404 Message Not Found"),
        }
        Ok(())
    }

    /// DGET-010..013.
    fn batch(&mut self, request: &GetRequest) -> Result<(), ReadError> {
        let Some((filters, mut from)) = scan_start(self.stream, request)? else {
            self.status("404 Message Not Found");
            return Ok(());
        };
        let mut budget = Budget::new(request);
        let mut last = 0;
        let mut pending: Option<u64> = None;
        while budget.has_room() {
            let Some(message) = self.stream.engine.next_message(&filters, from)? else {
                break;
            };
            let left = match pending {
                Some(left) => left.saturating_sub(1),
                None => self
                    .stream
                    .engine
                    .num_pending(&filters, message.seq)?
                    .saturating_sub(1),
            };
            pending = Some(left);
            self.message(&message, Some((left, last)));
            budget.book(&message);
            last = message.seq.0;
            from = message.seq.next();
        }
        if last == 0 {
            self.status("404 Message Not Found");
            return Ok(());
        }
        let pending = self.stream.engine.num_pending(&filters, from)?;
        self.end_of_batch(pending, last, None);
        Ok(())
    }

    /// DGET-014..018: the last message of every subject as of a point in the stream.
    fn multi_last(&mut self, request: &GetRequest) -> Result<(), ReadError> {
        let Some(filters) = compile(&request.multi_last) else {
            self.status("408 Bad Request");
            return Ok(());
        };
        let state = self.stream.engine.state();
        let mut up_to = state.last_seq;
        if request.up_to_seq > 0 {
            up_to = up_to.min(Seq(request.up_to_seq));
        }
        if let Some(ts) = request.up_to_time {
            let after = self
                .stream
                .engine
                .seq_at(TimestampNs(ts.0.saturating_add(1)))?;
            up_to = up_to.min(Seq(after.0.saturating_sub(1)));
        }
        let Some(last_seqs) = self.last_seqs(&filters, up_to)? else {
            self.status("413 Too Many Results");
            return Ok(());
        };
        let wanted: Vec<Seq> = last_seqs
            .into_iter()
            .filter(|seq| seq.0 >= request.seq)
            .collect();
        if wanted.is_empty() {
            self.status("404 No Results");
            return Ok(());
        }
        let mut budget = Budget::new(request);
        let mut left = wanted.len() as u64;
        let mut last = 0;
        for seq in wanted {
            if !budget.has_room() {
                break;
            }
            left -= 1;
            if let Some(message) = self.stream.engine.get(seq)? {
                self.message(&message, Some((left, last)));
                budget.book(&message);
                last = seq.0;
            }
        }
        self.end_of_batch(left, last, Some(up_to.0));
        Ok(())
    }

    /// Sequences of the last messages, ascending; `None` when there are too many subjects.
    fn last_seqs(&self, filters: &[Filter], up_to: Seq) -> Result<Option<Vec<Seq>>, ReadError> {
        let engine = &self.stream.engine;
        let mut seqs = Vec::new();
        let mut subjects = 0;
        for filter in filters {
            let matching = engine.subjects(filter)?;
            subjects += matching.len();
            if subjects > MULTI_LAST_SUBJECTS_MAX {
                return Ok(None);
            }
            for subject in matching.keys() {
                if let Some(seq) = self.last_of(subject, up_to)? {
                    seqs.push(seq);
                }
            }
        }
        seqs.sort_unstable();
        seqs.dedup();
        Ok(Some(seqs))
    }

    fn last_of(&self, subject: &[u8], up_to: Seq) -> Result<Option<Seq>, ReadError> {
        let Ok(filter) = Filter::new(subject) else {
            return Ok(None);
        };
        let engine = &self.stream.engine;
        let Some(last) = engine.last_by_subject(&filter)? else {
            return Ok(None);
        };
        if last.seq <= up_to {
            return Ok(Some(last.seq));
        }
        let filters = [filter];
        let mut found = None;
        let mut from = Seq(1);
        while let Some(message) = engine.next_message(&filters, from)? {
            if message.seq > up_to {
                break;
            }
            found = Some(message.seq);
            from = message.seq.next();
        }
        Ok(found)
    }

    fn message(&mut self, message: &Message, batch: Option<(u64, u64)>) {
        let block = if self.no_hdr {
            None
        } else {
            Some(self.block(message, batch))
        };
        self.publisher.publish(&routing::Message {
            subject: self.reply,
            reply: None,
            headers: block.as_ref(),
            payload: &message.payload_bytes(),
        });
    }

    /// DGET-003: stored headers first, then what the server knows (T-102).
    fn block(&self, message: &Message, batch: Option<(u64, u64)>) -> Bytes {
        let seq = message.seq.0.to_string();
        let time = format_time(message.ts);
        let mut block = message.headers().to_vec();
        let fixed: [(&[u8], &[u8]); 4] = [
            (b"Nats-Stream", self.stream.name.as_bytes()),
            (b"Nats-Subject", message.subject()),
            (b"Nats-Sequence", seq.as_bytes()),
            (b"Nats-Time-Stamp", time.as_bytes()),
        ];
        for (key, value) in fixed {
            block = headers::append(&block, key, value);
        }
        if let Some((pending, last)) = batch {
            block = headers::append(&block, b"Nats-Num-Pending", pending.to_string().as_bytes());
            block = headers::append(&block, b"Nats-Last-Sequence", last.to_string().as_bytes());
        }
        Bytes::from(block)
    }

    fn end_of_batch(&mut self, pending: u64, last: u64, up_to: Option<u64>) {
        let up_to = up_to.map_or_else(String::new, |seq| format!("Nats-UpTo-Sequence: {seq}\r\n"));
        let block = format!(
            "NATS/1.0 204 EOB\r\nNats-Num-Pending: {pending}\r\nNats-Last-Sequence: {last}\r\n{up_to}\r\n"
        );
        self.send_block(block);
    }

    fn status(&mut self, text: &str) {
        self.send_block(format!("NATS/1.0 {text}\r\n\r\n"));
    }

    fn send_block(&mut self, block: String) {
        self.publisher.publish(&routing::Message {
            subject: self.reply,
            reply: None,
            headers: Some(&Bytes::from(block)),
            payload: &Bytes::new(),
        });
    }
}

fn compile(subjects: &[String]) -> Option<Vec<Filter>> {
    subjects
        .iter()
        .map(|subject| Filter::new(subject.as_bytes()).ok())
        .collect()
}

/// Messages and bytes a batch may still send.
struct Budget {
    messages: i64,
    bytes: usize,
}

impl Budget {
    fn new(request: &GetRequest) -> Budget {
        Budget {
            messages: if request.batch > 0 {
                request.batch
            } else {
                i64::MAX
            },
            bytes: match usize::try_from(request.max_bytes) {
                Ok(bytes) if bytes > 0 => bytes,
                _ => DIRECT_BATCH_BYTES_DEFAULT,
            },
        }
    }

    fn has_room(&self) -> bool {
        self.messages > 0 && self.bytes > 0
    }

    fn book(&mut self, message: &Message) {
        self.messages -= 1;
        let size = message.subject().len() + message.headers_and_payload().len();
        self.bytes = self.bytes.saturating_sub(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_are_refused() {
        for (subject, body, text) in [
            (None, "", "408 Empty Request"),
            (None, "{}", "408 Empty Request"),
            (None, r#"{"batch":3}"#, "408 Empty Request"),
            (None, r#"{"up_to_seq":3}"#, "408 Empty Request"),
            (None, r#"{"no_hdr":true}"#, "408 Empty Request"),
            (None, "x", "408 Malformed Request"),
            (None, r#"{"seq":1,"last_by_subj":"a"}"#, "408 Bad Request"),
            (
                None,
                r#"{"seq":1,"start_time":"2000-01-01T00:00:00Z"}"#,
                "408 Bad Request",
            ),
            (None, r#"{"last_by_subj":"a","batch":2}"#, "408 Bad Request"),
            (
                None,
                r#"{"multi_last":["a"],"up_to_seq":1,"up_to_time":"2000-01-01T00:00:00Z"}"#,
                "408 Bad Request",
            ),
            (Some("a"), r#"{"seq":1}"#, "408 Bad Request"),
            (Some("a"), "x", "408 Malformed Request"),
        ] {
            assert_eq!(
                read_request(subject, body.as_bytes()).unwrap_err(),
                text,
                "{body}"
            );
        }
    }

    #[test]
    fn requests_that_are_read() {
        assert_eq!(read_request(Some("a.b"), b"").unwrap().last_by_subj, "a.b");
        assert!(
            read_request(Some("a.b"), br#"{"no_hdr":true}"#)
                .unwrap()
                .no_hdr
        );
        let request =
            read_request(None, br#"{"seq":3,"next_by_subj":"a","batch":5,"x":1}"#).unwrap();
        assert_eq!((request.seq, request.batch), (3, 5));
    }
}
