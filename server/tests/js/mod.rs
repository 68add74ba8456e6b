//! A server with JetStream inside the test process, and a client that speaks to it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use riverlog_server::jetstream::{JetStream, JetStreamOptions};
use riverlog_server::server::{Options, Server};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tells the inboxes of clients apart.
static CLIENTS: AtomicU64 = AtomicU64::new(0);

pub struct TestServer {
    server: Server,
    jetstream: JetStream,
    runtime: Runtime,
    dir: TempDir,
}

impl TestServer {
    pub fn start() -> TestServer {
        TestServer::start_with(|_| {})
    }

    /// Starts with changed options.
    pub fn start_with(change: impl FnOnce(&mut JetStreamOptions)) -> TestServer {
        TestServer::start_in(TempDir::new().unwrap(), change)
    }

    fn start_in(dir: TempDir, change: impl FnOnce(&mut JetStreamOptions)) -> TestServer {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut options = JetStreamOptions::new(dir.path().join("store"));
        change(&mut options);
        let (server, jetstream) = runtime.block_on(async {
            let server = Server::new(Options {
                host: "127.0.0.1".into(),
                port: 0,
                ..Options::default()
            })
            .unwrap();
            let jetstream = JetStream::start(options, &server).unwrap();
            server.listen().await.unwrap();
            (server, jetstream)
        });
        TestServer {
            server,
            jetstream,
            runtime,
            dir,
        }
    }

    /// Stops, and starts again on the same directory.
    pub fn restart(self) -> TestServer {
        let TestServer {
            server,
            jetstream,
            runtime,
            dir,
        } = self;
        runtime.block_on(server.shutdown());
        jetstream.shutdown();
        drop((jetstream, server));
        drop(runtime);
        TestServer::start_in(dir, |_| {})
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.server)
    }
}

/// A received message.
#[derive(Debug, Clone, PartialEq)]
pub struct Msg {
    pub subject: String,
    pub sid: String,
    pub reply: String,
    pub headers: String,
    pub payload: String,
}

impl Msg {
    /// Status line of a status message, without the version.
    pub fn status(&self) -> &str {
        let line = self.headers.lines().next().unwrap_or("");
        line.strip_prefix("NATS/1.0").unwrap_or("").trim()
    }

    pub fn header(&self, key: &str) -> Option<&str> {
        let prefix = format!("{key}: ");
        self.headers
            .lines()
            .find_map(|line| line.strip_prefix(prefix.as_str()))
    }

    /// Deliveries, stream sequence, consumer sequence and pending of the acknowledgement subject.
    pub fn ack_token(&self) -> (u64, u64, u64, u64) {
        let tokens: Vec<&str> = self.reply.split('.').collect();
        assert_eq!(tokens.len(), 9, "{}", self.reply);
        let number = |i: usize| tokens[i].parse::<u64>().unwrap();
        (number(4), number(5), number(6), number(8))
    }
}

pub struct Client {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    /// Subject prefix of the inboxes.
    prefix: String,
    inboxes: u64,
    /// Messages that came while another one was waited for.
    early: Vec<Msg>,
}

impl Client {
    fn connect(server: &Server) -> Client {
        let writer = TcpStream::connect(server.client_addr()).unwrap();
        writer.set_nodelay(true).unwrap();
        writer.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(writer.try_clone().unwrap());
        let prefix = format!("_INBOX.{}", CLIENTS.fetch_add(1, Ordering::Relaxed));
        let mut client = Client {
            reader,
            writer,
            prefix,
            inboxes: 0,
            early: Vec::new(),
        };
        client.line();
        client.send(
            "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n",
        );
        client.send(format!("SUB {}.> 1\r\nPING\r\n", client.prefix));
        assert_eq!(client.line(), "PONG");
        client
    }

    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.writer.write_all(text.as_ref()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// A fresh inbox this client listens to.
    pub fn inbox(&mut self) -> String {
        self.inboxes += 1;
        format!("{}.{}", self.prefix, self.inboxes)
    }

    pub fn publish(&mut self, subject: &str, reply: &str, headers: &[(&str, &str)], payload: &str) {
        let reply = if reply.is_empty() {
            String::new()
        } else {
            format!("{reply} ")
        };
        if headers.is_empty() {
            self.send(format!(
                "PUB {subject} {reply}{}\r\n{payload}\r\n",
                payload.len()
            ));
            return;
        }
        let mut block = "NATS/1.0\r\n".to_owned();
        for (key, value) in headers {
            block.push_str(&format!("{key}: {value}\r\n"));
        }
        block.push_str("\r\n");
        let total = block.len() + payload.len();
        self.send(format!(
            "HPUB {subject} {reply}{} {total}\r\n{block}{payload}\r\n",
            block.len()
        ));
    }

    /// The next message, also one that came early.
    #[track_caller]
    pub fn next(&mut self) -> Msg {
        if !self.early.is_empty() {
            return self.early.remove(0);
        }
        self.read().expect("a message")
    }

    /// Everything the server has sent so far.
    pub fn settle(&mut self) -> Vec<Msg> {
        self.send("PING\r\n");
        while let Some(msg) = self.read() {
            self.early.push(msg);
        }
        std::mem::take(&mut self.early)
    }

    /// Reads one message; `None` for a PONG.
    fn read(&mut self) -> Option<Msg> {
        loop {
            let line = self.line();
            let tokens: Vec<&str> = line.split_whitespace().collect();
            match tokens[..] {
                ["PONG"] => return None,
                ["PING"] => self.send("PONG\r\n"),
                ["INFO", ..] => {}
                ["MSG", subject, sid, ref rest @ ..] => {
                    let (reply, sizes) = rest.split_at(rest.len() - 1);
                    let size = sizes[0].parse().unwrap();
                    return Some(self.body(subject, sid, reply.first(), 0, size));
                }
                ["HMSG", subject, sid, ref rest @ ..] => {
                    let (reply, sizes) = rest.split_at(rest.len() - 2);
                    let (headers, total) = (sizes[0].parse().unwrap(), sizes[1].parse().unwrap());
                    return Some(self.body(subject, sid, reply.first(), headers, total));
                }
                _ => panic!("unexpected line {line:?}"),
            }
        }
    }

    fn body(
        &mut self,
        subject: &str,
        sid: &str,
        reply: Option<&&str>,
        headers: usize,
        total: usize,
    ) -> Msg {
        let mut bytes = vec![0; total + 2];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes.truncate(total);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Msg {
            subject: subject.to_owned(),
            sid: sid.to_owned(),
            reply: reply.map_or_else(String::new, |reply| (*reply).to_owned()),
            headers: text(&bytes[..headers]),
            payload: text(&bytes[headers..]),
        }
    }

    /// The answer to a request; other messages are kept for [`Client::next`].
    #[track_caller]
    pub fn request_with(&mut self, subject: &str, headers: &[(&str, &str)], payload: &str) -> Msg {
        let inbox = self.inbox();
        self.publish(subject, &inbox, headers, payload);
        loop {
            let msg = self.read().expect("an answer");
            if msg.subject == inbox {
                return msg;
            }
            self.early.push(msg);
        }
    }

    #[track_caller]
    pub fn request(&mut self, subject: &str, payload: &str) -> Msg {
        self.request_with(subject, &[], payload)
    }

    /// A JetStream API request.
    #[track_caller]
    pub fn api(&mut self, subject: &str, body: Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let msg = self.request(&format!("$JS.API.{subject}"), &body);
        serde_json::from_str(&msg.payload).unwrap_or_else(|_| panic!("{msg:?}"))
    }

    /// A JetStream API request that must succeed.
    #[track_caller]
    pub fn ok(&mut self, subject: &str, body: Value) -> Value {
        let reply = self.api(subject, body);
        assert!(reply.get("error").is_none(), "{subject}: {reply}");
        reply
    }

    /// A JetStream API request that must fail; its `err_code` and text.
    #[track_caller]
    pub fn refused(&mut self, subject: &str, body: Value) -> (u64, String) {
        let reply = self.api(subject, body);
        let error = reply
            .get("error")
            .unwrap_or_else(|| panic!("{subject}: {reply}"));
        let text = error["description"].as_str().unwrap_or("").to_owned();
        (error["err_code"].as_u64().unwrap(), text)
    }

    #[track_caller]
    pub fn create_stream(&mut self, config: Value) -> Value {
        let name = config["name"].as_str().unwrap().to_owned();
        self.ok(&format!("STREAM.CREATE.{name}"), config)
    }

    #[track_caller]
    pub fn create_consumer(&mut self, stream: &str, config: Value) -> Value {
        let name = ["durable_name", "name"]
            .iter()
            .find_map(|key| config[*key].as_str());
        let name = name.unwrap().to_owned();
        let body = json!({"stream_name": stream, "config": config});
        self.ok(&format!("CONSUMER.CREATE.{stream}.{name}"), body)
    }

    /// A publish that must be stored; its acknowledgement.
    #[track_caller]
    pub fn put(&mut self, subject: &str, payload: &str) -> u64 {
        self.put_with(subject, &[], payload)["seq"]
            .as_u64()
            .unwrap()
    }

    #[track_caller]
    pub fn put_with(&mut self, subject: &str, headers: &[(&str, &str)], payload: &str) -> Value {
        let ack = self.put_any(subject, headers, payload);
        assert!(ack.get("error").is_none(), "{ack}");
        ack
    }

    /// A publish; its acknowledgement of any kind.
    #[track_caller]
    pub fn put_any(&mut self, subject: &str, headers: &[(&str, &str)], payload: &str) -> Value {
        let msg = self.request_with(subject, headers, payload);
        serde_json::from_str(&msg.payload).unwrap_or_else(|_| panic!("{msg:?}"))
    }

    #[track_caller]
    pub fn state(&mut self, stream: &str) -> Value {
        self.ok(&format!("STREAM.INFO.{stream}"), Value::Null)["state"].clone()
    }

    #[track_caller]
    pub fn consumer_info(&mut self, stream: &str, consumer: &str) -> Value {
        self.ok(&format!("CONSUMER.INFO.{stream}.{consumer}"), Value::Null)
    }

    /// Sends a pull request; its inbox.
    pub fn pull(&mut self, stream: &str, consumer: &str, body: &str) -> String {
        let inbox = self.inbox();
        self.publish(
            &format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            &inbox,
            &[],
            body,
        );
        inbox
    }

    /// Pulls `count` messages that must be there.
    #[track_caller]
    pub fn fetch(&mut self, stream: &str, consumer: &str, count: usize) -> Vec<Msg> {
        self.pull(stream, consumer, &count.to_string());
        (0..count).map(|_| self.next()).collect()
    }

    /// Acknowledges and waits until that is durable.
    #[track_caller]
    pub fn ack(&mut self, msg: &Msg, payload: &str) {
        let answer = self.request(&msg.reply, payload);
        assert_eq!((answer.payload.as_str(), answer.headers.as_str()), ("", ""));
    }

    /// Asks again until `done` says so.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, mut done: impl FnMut(&mut Client) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "{what} did not happen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the connection was closed by the server.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.reader.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Names of what a message list holds.
pub fn payloads(messages: &[Msg]) -> Vec<&str> {
    messages.iter().map(|msg| msg.payload.as_str()).collect()
}
