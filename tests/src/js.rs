//! JetStream requests in raw form, as methods of [`Client`].

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, Msg, Sub};
use crate::{WAIT, secs_as_ns};

/// Position tokens of the ack reply subject of a delivered message:
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ts>.<pending>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How often the message was delivered, this time included.
    pub delivered: u64,
    /// Sequence in the stream.
    pub stream_seq: u64,
    /// Sequence of this delivery.
    pub consumer_seq: u64,
    /// Messages that still match behind this one.
    pub pending: u64,
}

impl Msg {
    /// Positions of a message delivered by a consumer.
    #[track_caller]
    pub fn delivery(&self) -> Delivery {
        let reply = self.reply_subject();
        let tokens: Vec<&str> = reply.split('.').collect();
        assert_eq!(tokens.len(), 9, "ack reply subject {reply}");
        assert_eq!(&tokens[..2], ["$JS", "ACK"], "ack reply subject {reply}");
        let number = |index: usize| {
            tokens[index]
                .parse::<u64>()
                .expect("number in an ack subject")
        };
        Delivery {
            delivered: number(4),
            stream_seq: number(5),
            consumer_seq: number(6),
            pending: number(8),
        }
    }

    /// Stream sequence of a message delivered by a consumer.
    #[track_caller]
    pub fn stream_seq(&self) -> u64 {
        self.delivery().stream_seq
    }
}

/// What a pull request brought.
#[derive(Debug)]
pub struct Pulled {
    /// Messages in order of arrival.
    pub msgs: Vec<Msg>,
    /// The status message that ended the request, if one came.
    pub end: Option<Msg>,
}

impl Pulled {
    /// Stream sequences of the messages.
    pub fn seqs(&self) -> Vec<u64> {
        self.msgs.iter().map(Msg::stream_seq).collect()
    }

    /// Text of the ending status, empty when there was none.
    pub fn status(&self) -> &str {
        self.end.as_ref().map_or("", Msg::status)
    }
}

impl Client {
    /// `$JS.API.<suffix>` with a JSON body; `Value::Null` sends an empty one.
    #[track_caller]
    pub fn api(&mut self, suffix: &str, body: &Value) -> Value {
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        self.request(&format!("$JS.API.{suffix}"), &bytes).json()
    }

    /// [`Self::api`] that must not fail.
    #[track_caller]
    pub fn api_ok(&mut self, suffix: &str, body: &Value) -> Value {
        let reply = self.api(suffix, body);
        assert!(reply["error"].is_null(), "{suffix} failed: {reply}");
        reply
    }

    /// [`Self::api`] that must fail with this status, error code and description.
    #[track_caller]
    pub fn api_err(&mut self, suffix: &str, body: &Value, code: u64, err_code: u64, text: &str) {
        let reply = self.api(suffix, body);
        let expected = json!({"code": code, "err_code": err_code, "description": text});
        assert_eq!(reply["error"], expected, "{suffix} {body} answered {reply}");
    }

    /// Sends every request of a table `(suffix, body, code, err_code, description)`; each must fail
    /// as stated. All differences are shown at once.
    #[track_caller]
    pub fn check_api_errors(&mut self, cases: &[(&str, Value, u64, u64, &str)]) {
        let mut differences = String::new();
        for (suffix, body, code, err_code, text) in cases {
            let reply = self.api(suffix, body);
            let expected = json!({"code": code, "err_code": err_code, "description": text});
            if reply["error"] != expected {
                differences.push_str(&format!(
                    "\n{suffix} {body}\n  expected {expected}\n  got {reply}"
                ));
            }
        }
        assert!(differences.is_empty(), "{differences}");
    }

    /// Creates a stream; `config` needs at least `name`.
    #[track_caller]
    pub fn create_stream(&mut self, config: &Value) -> Value {
        let name = config["name"].as_str().expect("stream name");
        self.api_ok(&format!("STREAM.CREATE.{name}"), config)
    }

    /// Changes a stream.
    #[track_caller]
    pub fn update_stream(&mut self, config: &Value) -> Value {
        let name = config["name"].as_str().expect("stream name");
        self.api_ok(&format!("STREAM.UPDATE.{name}"), config)
    }

    /// State of a stream.
    #[track_caller]
    pub fn stream_state(&mut self, stream: &str) -> Value {
        self.api_ok(&format!("STREAM.INFO.{stream}"), &Value::Null)["state"].clone()
    }

    /// First sequence, last sequence and number of messages of a stream.
    #[track_caller]
    pub fn stream_span(&mut self, stream: &str) -> (u64, u64, u64) {
        let state = self.stream_state(stream);
        let number = |key: &str| state[key].as_u64().expect("number in the stream state");
        (number("first_seq"), number("last_seq"), number("messages"))
    }

    /// Purges a stream and returns how many messages went.
    #[track_caller]
    pub fn purge(&mut self, stream: &str, body: &Value) -> u64 {
        let reply = self.api_ok(&format!("STREAM.PURGE.{stream}"), body);
        assert_eq!(reply["success"], true, "{reply}");
        reply["purged"].as_u64().expect("number of purged messages")
    }

    /// Deletes one message.
    #[track_caller]
    pub fn delete_msg(&mut self, stream: &str, seq: u64) {
        self.api_ok(&format!("STREAM.MSG.DELETE.{stream}"), &json!({"seq": seq}));
    }

    /// Sequences of all stored messages, found by reading the stream from its start.
    #[track_caller]
    pub fn stored_seqs(&mut self, stream: &str) -> Vec<u64> {
        let mut seqs = Vec::new();
        let mut seq = 1;
        loop {
            let body = json!({"seq": seq, "next_by_subj": ">"});
            let reply = self.api(&format!("STREAM.MSG.GET.{stream}"), &body);
            let Some(found) = reply["message"]["seq"].as_u64() else {
                assert_eq!(reply["error"]["err_code"], 10037, "{reply}");
                return seqs;
            };
            seqs.push(found);
            seq = found + 1;
        }
    }

    /// Publishes and waits for the answer of the stream, whatever it is.
    #[track_caller]
    pub fn js_publish(&mut self, subject: &str, payload: &str) -> Value {
        self.js_publish_with(subject, &[], payload)
    }

    /// [`Self::js_publish`] with headers.
    #[track_caller]
    pub fn js_publish_with(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        text: &str,
    ) -> Value {
        let answer = self.request_with(subject, headers, text.as_bytes());
        assert_eq!(
            answer.status(),
            "",
            "publish on {subject}: {}",
            answer.header_text()
        );
        answer.json()
    }

    /// Publishes with headers; must be stored. Returns the sequence.
    #[track_caller]
    pub fn store_with(&mut self, subject: &str, headers: &[(&str, &str)], text: &str) -> u64 {
        let ack = self.js_publish_with(subject, headers, text);
        assert!(
            ack["error"].is_null(),
            "publish on {subject} {headers:?}: {ack}"
        );
        ack["seq"].as_u64().expect("sequence in the publish ack")
    }

    /// Publishes; must be stored. Returns the sequence.
    #[track_caller]
    pub fn store(&mut self, subject: &str, text: &str) -> u64 {
        self.store_with(subject, &[], text)
    }

    /// Publishes on each subject in turn; all must be stored.
    #[track_caller]
    pub fn store_all(&mut self, subjects: &[&str]) {
        for subject in subjects {
            self.store(subject, "x");
        }
    }

    /// Publishes `count` messages on one subject; all must be stored.
    #[track_caller]
    pub fn store_many(&mut self, subject: &str, count: u64) {
        for number in 0..count {
            self.store(subject, &number.to_string());
        }
    }

    /// Publishes with headers and must be refused with this error.
    #[track_caller]
    pub fn refused(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &str,
        (code, err_code, text): (u64, u64, &str),
    ) {
        let ack = self.js_publish_with(subject, headers, payload);
        let expected = json!({"code": code, "err_code": err_code, "description": text});
        assert_eq!(
            ack["error"], expected,
            "publish on {subject} {headers:?} answered {ack}"
        );
        assert_eq!(ack["seq"], 0, "{ack}");
    }

    /// Creates a durable pull consumer with explicit acks unless `config` says otherwise.
    #[track_caller]
    pub fn create_consumer(&mut self, stream: &str, name: &str, config: &Value) -> Value {
        let (suffix, body) = consumer_request(stream, name, config);
        self.api_ok(&suffix, &body)
    }

    /// [`Self::create_consumer`] that must fail with this error.
    #[track_caller]
    pub fn create_consumer_err(
        &mut self,
        stream: &str,
        name: &str,
        config: &Value,
        (code, err_code, text): (u64, u64, &str),
    ) {
        let (suffix, body) = consumer_request(stream, name, config);
        self.api_err(&suffix, &body, code, err_code, text);
    }

    /// Info of a consumer.
    #[track_caller]
    pub fn consumer_info(&mut self, stream: &str, name: &str) -> Value {
        self.api_ok(&format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null)
    }

    /// `(delivered consumer/stream, floor consumer/stream, num_ack_pending, num_pending)`.
    #[track_caller]
    pub fn consumer_positions(&mut self, stream: &str, name: &str) -> Positions {
        let info = self.consumer_info(stream, name);
        let number = |value: &Value| value.as_u64().expect("number in the consumer info");
        Positions {
            delivered: (
                number(&info["delivered"]["consumer_seq"]),
                number(&info["delivered"]["stream_seq"]),
            ),
            floor: (
                number(&info["ack_floor"]["consumer_seq"]),
                number(&info["ack_floor"]["stream_seq"]),
            ),
            ack_pending: number(&info["num_ack_pending"]),
            pending: number(&info["num_pending"]),
        }
    }

    /// Waits until the positions of a consumer are as expected: acks without reply are applied some
    /// time after they were sent.
    #[track_caller]
    pub fn await_positions(&mut self, stream: &str, name: &str, expected: Positions) {
        let mut last = self.consumer_positions(stream, name);
        for _ in 0..100 {
            if last == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
            last = self.consumer_positions(stream, name);
        }
        assert_eq!(last, expected, "positions of consumer {name}");
    }

    /// Sends a pull request and returns the subscription that will get its answers.
    pub fn pull_start(&mut self, stream: &str, consumer: &str, body: &Value) -> Sub {
        let inbox = self.new_inbox();
        let sub = self.subscribe(&inbox);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        self.publish(&subject, Some(&inbox), &bytes);
        sub
    }

    /// Collects the answers of a pull request until `count` messages or a final status arrived.
    #[track_caller]
    pub fn pull_collect(&mut self, sub: Sub, count: usize) -> Pulled {
        let mut pulled = Pulled {
            msgs: Vec::new(),
            end: None,
        };
        while pulled.msgs.len() < count {
            let msg = self.next(sub);
            if msg.status().starts_with("100") {
                continue;
            }
            if msg.status().is_empty() {
                pulled.msgs.push(msg);
            } else {
                pulled.end = Some(msg);
                break;
            }
        }
        self.unsubscribe(sub);
        pulled
    }

    /// One pull request with its answers, up to `body.batch` messages.
    #[track_caller]
    pub fn pull(&mut self, stream: &str, consumer: &str, body: &Value) -> Pulled {
        let count = body["batch"].as_u64().unwrap_or(1) as usize;
        let sub = self.pull_start(stream, consumer, body);
        self.pull_collect(sub, count)
    }

    /// Exactly `count` messages, waiting for them if needed.
    #[track_caller]
    pub fn fetch(&mut self, stream: &str, consumer: &str, count: usize) -> Vec<Msg> {
        let body = json!({"batch": count, "expires": secs_as_ns(WAIT.as_secs())});
        let pulled = self.pull(stream, consumer, &body);
        assert_eq!(
            pulled.msgs.len(),
            count,
            "the pull ended with {:?}",
            pulled.status()
        );
        pulled.msgs
    }

    /// What is available now: a no_wait pull that must end with 404 or be filled.
    #[track_caller]
    pub fn fetch_available(&mut self, stream: &str, consumer: &str, batch: usize) -> Vec<Msg> {
        let pulled = self.pull(stream, consumer, &json!({"batch": batch, "no_wait": true}));
        if pulled.msgs.len() < batch {
            assert_eq!(pulled.status(), "404 No Messages");
        }
        pulled.msgs
    }

    /// Sends an ack payload as request and waits for its empty confirmation.
    #[track_caller]
    pub fn ack_with(&mut self, msg: &Msg, payload: &str) {
        let answer = self.request(msg.reply_subject(), payload.as_bytes());
        assert_eq!(answer.payload, b"", "confirmation of {payload}");
        assert_eq!(answer.status(), "", "confirmation of {payload}");
    }

    /// Confirmed `+ACK`.
    #[track_caller]
    pub fn ack(&mut self, msg: &Msg) {
        self.ack_with(msg, "+ACK");
    }

    /// Confirmed `+ACK` for each message.
    #[track_caller]
    pub fn ack_all_of(&mut self, msgs: &[Msg]) {
        for msg in msgs {
            self.ack(msg);
        }
    }
}

/// Positions of a consumer; pairs are (consumer sequence, stream sequence).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Last delivery.
    pub delivered: (u64, u64),
    /// Everything up to here is acknowledged.
    pub floor: (u64, u64),
    /// Delivered and not acknowledged.
    pub ack_pending: u64,
    /// Not delivered yet.
    pub pending: u64,
}

fn consumer_request(stream: &str, name: &str, config: &Value) -> (String, Value) {
    let mut full = json!({"durable_name": name, "ack_policy": "explicit"});
    if let (Some(full), Some(config)) = (full.as_object_mut(), config.as_object()) {
        for (key, value) in config {
            // A null takes a default of this helper away.
            if value.is_null() {
                full.remove(key);
            } else {
                full.insert(key.clone(), value.clone());
            }
        }
    }
    let body = json!({"stream_name": stream, "config": full});
    (format!("CONSUMER.CREATE.{stream}.{name}"), body)
}
