//! What each protocol element does.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::Instant;

use super::acks::AckQueue;
use super::close::CloseReason;
use super::conn::Conn;
use super::trace;
use crate::protocol::connect::ConnectOptions;
use crate::protocol::{Frame, Limits, Parser, Publish, encode};
use crate::routing::account::next_entry_id;
use crate::routing::{ClientSubscription, Message, Origin, Publisher, subject};
use crate::server::Shared;

/// The state of a connection that only its read loop uses.
pub(crate) struct Session {
    pub(crate) conn: Arc<Conn>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) publisher: Publisher,
    pub(crate) acks: RefCell<AckQueue>,
    /// Durable position of the store, from the first acknowledgement on.
    pub(crate) durable: Option<watch::Receiver<u64>>,
    pub(crate) parser: Parser,
    options: ConnectOptions,
    connect_received: bool,
    authenticated: bool,
    pub(crate) pings_unanswered: u32,
    pub(crate) ping_sent: Option<Instant>,
    in_messages: u64,
    in_bytes: u64,
}

/// Queue name reserved for the server (CORE-042).
const SYSTEM_QUEUE: &[u8] = b"_sys_";
/// Reply subjects only the server may use, and how many bytes must follow (CORE-041).
const RESERVED_REPLIES: [(&[u8], usize); 3] = [(b"$JS.ACK.", 1), (b"_R_.", 0), (b"_GR_.", 1)];
/// Subjects of the replication layer (CORE-043).
const RESERVED_SUBJECT: &[u8] = b"$NRG.";

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, conn: Arc<Conn>) -> Session {
        let options = shared.options();
        Session {
            publisher: conn.account().publisher(),
            acks: RefCell::default(),
            durable: None,
            parser: Parser::new(Limits {
                max_control_line: options.max_control_line,
                max_payload: options.max_payload,
            }),
            options: ConnectOptions::default(),
            connect_received: false,
            authenticated: shared.auth().allows_anonymous(),
            pings_unanswered: 0,
            ping_sent: None,
            in_messages: 0,
            in_bytes: 0,
            conn,
            shared,
        }
    }

    /// True once the client may use the server.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Handles everything complete in `buf`.
    pub(crate) async fn process(&mut self, buf: &mut BytesMut) -> Result<(), CloseReason> {
        loop {
            // Credentials first, whatever else it may be (CORE-040).
            if !self.authenticated
                && buf
                    .first()
                    .is_some_and(|byte| !byte.eq_ignore_ascii_case(&b'C'))
            {
                return self.fail(
                    "Authorization Violation",
                    CloseReason::AuthenticationFailure,
                );
            }
            let parsed = self.parser.next(buf);
            if let Ok(Some(frame)) = &parsed {
                trace::inbound(&self.conn, frame);
            }
            match parsed {
                Ok(Some(Frame::Publish(publish))) => self.publish(&publish),
                Ok(Some(Frame::Connect(json))) => self.connect(&json).await?,
                Ok(Some(frame)) => self.command(frame)?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    return match error.text() {
                        Some(text) => self.fail(text, error.into()),
                        None => Err(error.into()),
                    };
                }
            }
        }
    }

    /// Ends a batch: counts it and wakes whoever got something.
    pub(crate) fn end_batch(&mut self) {
        if self.in_messages > 0 {
            self.conn.count_in(self.in_messages, self.in_bytes);
            self.in_messages = 0;
            self.in_bytes = 0;
        }
        self.publisher.flush();
    }

    fn command(&mut self, frame: Frame) -> Result<(), CloseReason> {
        match frame {
            Frame::Ping => self.ping(),
            Frame::Pong => self.pong(),
            Frame::Subscribe {
                subject,
                queue,
                sid,
            } => self.subscribe(&subject, queue.as_ref(), &sid),
            Frame::Unsubscribe { sid, max } => self.unsubscribe(&sid, max),
            Frame::ClientError(_) => return Err(CloseReason::ParseError),
            Frame::Ignored | Frame::Publish(_) | Frame::Connect(_) => {}
        }
        Ok(())
    }

    // --- Sending to this client ---

    pub(crate) fn send(&mut self, text: &[u8]) {
        self.send_with(text.len(), |out| out.extend_from_slice(text));
    }

    fn send_with(&mut self, size: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if self.conn.send(size, write) {
            self.publisher.wake_later(&self.conn);
        }
    }

    fn error(&mut self, text: &str) {
        self.send_with(text.len(), |out| encode::error(out, text));
    }

    /// Sends a last `-ERR` and returns the reason to close with.
    pub(crate) fn fail(&mut self, text: &str, reason: CloseReason) -> Result<(), CloseReason> {
        self.error(text);
        Err(reason)
    }

    fn ok(&mut self) {
        if self.options.verbose {
            self.send(encode::OK);
        }
    }

    // --- CONNECT, PING, PONG ---

    async fn connect(&mut self, json: &Bytes) -> Result<(), CloseReason> {
        // Bad JSON closes without -ERR (CORE-051).
        self.options
            .update(json)
            .map_err(|_| CloseReason::ProtocolViolation)?;
        self.connect_received = true;
        let Ok(user) = self.shared.check_credentials(&self.options).await else {
            return self.fail(
                "Authorization Violation",
                CloseReason::AuthenticationFailure,
            );
        };
        // Accounts follow from the user; asking for one is an error.
        if self.options.new_account || !self.options.account.is_empty() {
            return self.fail(
                "Authorization Violation",
                CloseReason::AuthenticationFailure,
            );
        }
        self.authenticated = true;
        self.parser.set_headers_enabled(self.options.headers);
        self.conn.apply(&self.options, user);
        if !(0..=1).contains(&self.options.protocol) {
            return self.fail(
                "invalid client protocol",
                CloseReason::BadClientProtocolVersion,
            );
        }
        if self.options.no_responders && !self.options.headers {
            return self.fail(
                "no responders requires headers support",
                CloseReason::NoRespondersRequiresHeaders,
            );
        }
        self.ok();
        Ok(())
    }

    fn ping(&mut self) {
        self.send(encode::PONG);
        // The line that tells the client where it landed (CORE-028).
        if self.connect_received && self.conn.note_pong() && self.options.protocol >= 1 {
            let mut info = self.shared.info(&self.conn);
            info.connect_info = true;
            info.remote_account = Some(self.conn.account().name().to_string());
            self.send_with(512, |out| info.write(out));
        }
    }

    fn pong(&mut self) {
        self.pings_unanswered = 0;
        if let Some(sent) = self.ping_sent.take() {
            self.conn.set_rtt(sent.elapsed());
        }
    }

    // --- SUB, UNSUB ---

    fn subscribe(&mut self, subject: &Bytes, queue: Option<&Bytes>, sid: &Bytes) {
        if queue.is_some_and(|queue| queue == SYSTEM_QUEUE) {
            let text = format!(
                "Permissions Violation for Subscription to \"{}\" using queue \"_sys_\"",
                String::from_utf8_lossy(subject)
            );
            return self.error(&text);
        }
        let options = self.shared.options();
        if options.max_sub_tokens > 0 && subject::token_count(subject) > options.max_sub_tokens {
            let text = format!(
                "Permissions Violation for Subscription to \"{}\", too many tokens",
                String::from_utf8_lossy(subject)
            );
            return self.error(&text);
        }
        if options.max_subscriptions > 0
            && self.conn.subscription_count() >= options.max_subscriptions
        {
            return self.error("maximum subscriptions exceeded");
        }
        let sub = Arc::new(ClientSubscription {
            id: next_entry_id(),
            conn: Arc::clone(&self.conn),
            // Copies: slices would keep the read buffer alive as long as the subscription.
            subject: Bytes::copy_from_slice(subject),
            queue: queue.map(|queue| Bytes::copy_from_slice(queue)),
            sid: Bytes::copy_from_slice(sid),
            delivered: AtomicU64::new(0),
            max: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        // A sid in use keeps its first subscription (CORE-007).
        if self.conn.add_subscription(&sub) && self.conn.account().subscribe_client(&sub).is_err() {
            self.conn.remove_subscription(&sub);
            return self.error("Invalid Subject");
        }
        self.ok();
    }

    fn unsubscribe(&mut self, sid: &Bytes, max: Option<u64>) {
        if let Some(sub) = self.conn.subscription(sid) {
            match max {
                // The limit counts from SUB on; one that is reached already ends it (CORE-008).
                Some(max) if max > sub.delivered() => sub.max.store(max, Ordering::Relaxed),
                _ => self.conn.remove_subscription(&sub),
            }
        }
        self.ok();
    }

    // --- PUB, HPUB ---

    fn publish(&mut self, publish: &Publish) {
        self.in_messages += 1;
        self.in_bytes +=
            (publish.payload.len() + publish.headers.as_ref().map_or(0, Bytes::len)) as u64;
        if self.options.pedantic && !subject::is_valid_literal(&publish.subject) {
            self.error("Invalid Publish Subject");
        }
        if publish.subject.starts_with(RESERVED_SUBJECT) {
            let name = String::from_utf8_lossy(&publish.subject);
            return self.error(&format!("Permissions Violation for Publish to \"{name}\""));
        }
        if let Some(reply) = &publish.reply
            && RESERVED_REPLIES.iter().any(|(prefix, more)| {
                reply.starts_with(prefix) && reply.len() >= prefix.len() + more
            })
        {
            let name = String::from_utf8_lossy(reply);
            return self.error(&format!(
                "Permissions Violation for Publish with Reply of \"{name}\""
            ));
        }
        self.ok();
        let delivered = self.publisher.publish_from(
            &Origin::new(&self.conn, &self.acks),
            &Message {
                subject: &publish.subject,
                reply: publish.reply.as_ref(),
                headers: publish.headers.as_ref(),
                payload: &publish.payload,
            },
        );
        if !delivered
            && self.options.no_responders
            && let Some(reply) = &publish.reply
        {
            self.no_responders(&publish.subject, reply);
        }
    }

    /// Tells a requester that nobody is there (CORE-023). Only its own subscription hears of it.
    fn no_responders(&mut self, subject: &Bytes, reply: &Bytes) {
        if let Some(sub) = self.publisher.own_subscription(reply, &self.conn) {
            self.send_with(subject.len() + reply.len() + 64, |out| {
                encode::no_responders(out, reply, &sub.sid, subject);
            });
        }
    }

    // --- Acknowledgements that waited for the disk ---

    /// Sends every acknowledgement that is durable by now.
    pub(crate) fn release_acks(&mut self) {
        if self.acks.get_mut().is_empty() {
            return;
        }
        let durable = match &mut self.durable {
            Some(durable) => *durable.borrow_and_update(),
            None => {
                self.durable = self.shared.durable();
                self.durable
                    .as_mut()
                    .map_or(0, |durable| *durable.borrow_and_update())
            }
        };
        while let Some(ack) = self.acks.get_mut().pop_durable(durable) {
            if !ack.reply.is_empty() {
                self.publisher.publish_ack(&ack.reply, &ack.body);
            }
        }
        self.publisher.flush();
    }
}
