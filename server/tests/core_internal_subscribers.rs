//! The seam between the core and the parts of the server that live on subjects.

mod raw;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use raw::{TestServer, options};
use riverlog_server::net::acks::{AckBody, PendingAck};
use riverlog_server::routing::interest::InterestListener;
use riverlog_server::routing::{Inbound, InternalSubscriber, Message};
use riverlog_server::server::Server;
use tokio::sync::watch;

/// Acknowledges every message with the next LSN, like a stream.
struct Stream {
    stream_part: Arc<str>,
    next: Mutex<u64>,
}

impl InternalSubscriber for Stream {
    fn deliver(&self, message: &Inbound<'_>) -> bool {
        let origin = message.origin.expect("published by a client");
        let mut next = self.next.lock().unwrap();
        *next += 1;
        origin.queue_ack(PendingAck {
            lsn: *next,
            reply: message.reply.cloned().unwrap_or_default(),
            body: AckBody::PubAck {
                stream_part: Arc::clone(&self.stream_part),
                seq: *next,
                duplicate: false,
            },
            admitted_bytes: message.payload.len(),
        });
        true
    }
}

fn with_stream() -> (TestServer, watch::Sender<u64>) {
    let test = TestServer::start(options());
    let (durable, receiver) = watch::channel(0);
    test.server.attach_jetstream(receiver);
    let stream = Stream {
        stream_part: AckBody::stream_part("S", None),
        next: Mutex::new(0),
    };
    test.server
        .account()
        .subscribe(b"s.>", None, Arc::new(stream))
        .unwrap();
    (test, durable)
}

#[test]
fn an_acknowledgement_waits_until_it_is_durable() {
    let (test, durable) = with_stream();
    let mut client = test.client();
    client.send(
        "SUB r 1\r\nPUB s.a r 1\r\na\r\nPUB s.b r 1\r\nb\r\nPUB s.c 1\r\nc\r\nPUB s.d r 1\r\nd\r\n",
    );
    client.settle();
    durable.send(2).unwrap();
    client.expect("MSG r 1 22\r\n{\"stream\":\"S\",\"seq\":1}\r\nMSG r 1 22\r\n{\"stream\":\"S\",\"seq\":2}\r\n");
    client.settle();
    durable.send(9).unwrap();
    client.expect("MSG r 1 22\r\n{\"stream\":\"S\",\"seq\":4}\r\n");
    // What is durable already is answered at once.
    client.send("PUB s.e r 0\r\n\r\n");
    client.expect("MSG r 1 22\r\n{\"stream\":\"S\",\"seq\":5}\r\n");
}

#[test]
fn acknowledgements_reach_others_also_when_the_publisher_has_left() {
    let (test, durable) = with_stream();
    let mut receiver = test.client();
    receiver.send("SUB r 1\r\n");
    receiver.settle();
    let mut publisher = test.client();
    publisher.send("PUB s.a r 1\r\na\r\n");
    publisher.settle();
    drop(publisher);
    receiver.settle();
    durable.send(1).unwrap();
    receiver.expect("MSG r 1 22\r\n{\"stream\":\"S\",\"seq\":1}\r\n");
}

#[test]
fn an_internal_subscriber_counts_as_interest() {
    let (test, _durable) = with_stream();
    let mut client = test.connect(r#""verbose":false,"headers":true,"no_responders":true"#);
    client.send("SUB r 1\r\nPUB s.x r 0\r\n\r\n");
    client.settle();
    client.send("PUB t r 0\r\n\r\n");
    client.expect("HMSG r 1 33 33\r\nNATS/1.0 503\r\nNats-Subject: t\r\n\r\n\r\n");
}

/// Answers on the reply subject, with everything it saw.
struct Echo(Server);

impl InternalSubscriber for Echo {
    fn deliver(&self, message: &Inbound<'_>) -> bool {
        assert!(message.origin.is_some());
        let text = format!(
            "{:?} {:?} {:?}",
            message.subject, message.headers, message.payload
        );
        if let Some(reply) = message.reply {
            assert!(
                self.0
                    .account()
                    .publish(reply, None, message.headers, &Bytes::from(text))
            );
        }
        true
    }
}

#[test]
fn an_internal_subscriber_sees_all_parts_and_may_publish() {
    let test = TestServer::start(options());
    let echo = Arc::new(Echo(test.server.clone()));
    let handle = test
        .server
        .account()
        .subscribe(b"$SRV.*", None, echo)
        .unwrap();
    let mut client = test.client();
    client.send("SUB r 1\r\nHPUB $SRV.x r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
    client.expect(
        "HMSG r 1 12 53\r\nNATS/1.0\r\n\r\nb\"$SRV.x\" Some(b\"NATS/1.0\\r\\n\\r\\n\") b\"hi\"\r\n",
    );
    test.server.account().unsubscribe(&handle);
    client.send("PUB $SRV.x r 0\r\n\r\n");
    client.settle();
}

#[test]
fn a_delivery_shows_another_subject_than_it_is_routed_by() {
    let test = TestServer::start(options());
    let mut client = test.client();
    client.send("SUB inbox.* 7\r\n");
    client.settle();
    let account = test.server.account();
    let (inbox, stored) = (
        Bytes::from_static(b"inbox.1"),
        Bytes::from_static(b"orders.new"),
    );
    let (ack, body) = (
        Bytes::from_static(b"$JS.ACK.x"),
        Bytes::from_static(b"hello"),
    );
    assert!(account.deliver_to(&inbox, &stored, Some(&ack), None, &body));
    client.expect("MSG orders.new 7 $JS.ACK.x 5\r\nhello\r\n");
    assert!(!account.deliver_to(&stored, &stored, Some(&ack), None, &body));
    // A batch reaches the client with the flush.
    let mut publisher = account.publisher();
    for _ in 0..3 {
        let message = Message {
            subject: &stored,
            reply: None,
            headers: None,
            payload: &body,
        };
        assert!(publisher.deliver_to(&inbox, &message));
    }
    publisher.flush();
    client.expect("MSG orders.new 7 5\r\nhello\r\n".repeat(3));
}

struct Log(Mutex<Vec<bool>>);

impl InterestListener for Log {
    fn interest_changed(&self, subject: &Bytes, present: bool) {
        assert_eq!(subject, "d.x");
        self.0.lock().unwrap().push(present);
    }
}

#[test]
fn interest_is_reported_when_it_appears_and_disappears() {
    let test = TestServer::start(options());
    let account = test.server.account();
    let log = Arc::new(Log(Mutex::default()));
    let (id, present) = account.watch_interest(b"d.x", log.clone());
    assert!(!present && !account.has_interest(b"d.x"));
    let mut client = test.client();
    client.send("SUB d.x 1\r\nSUB d.* 2\r\nSUB e.* 3\r\n");
    client.settle();
    assert!(account.has_interest(b"d.x"));
    client.send("UNSUB 1\r\n");
    client.settle();
    assert_eq!(*log.0.lock().unwrap(), [true]);
    client.send("UNSUB 2\r\nSUB > q 4\r\nUNSUB 4\r\n");
    client.settle();
    assert_eq!(*log.0.lock().unwrap(), [true, false, true, false]);
    account.unwatch_interest(b"d.x", id);
    client.send("SUB d.x 5\r\n");
    client.settle();
    assert_eq!(log.0.lock().unwrap().len(), 4);
}
