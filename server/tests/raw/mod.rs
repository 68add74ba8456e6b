//! A server inside the test process and a client that shows the exact bytes.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use riverlog_server::server::{Options, Server};
use tokio::runtime::Runtime;

/// Longest wait for bytes that must come.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct TestServer {
    pub server: Server,
    pub runtime: Runtime,
}

/// Options for a server on a free port of the loopback interface.
pub fn options() -> Options {
    Options {
        host: "127.0.0.1".into(),
        port: 0,
        ..Options::default()
    }
}

impl TestServer {
    pub fn start(options: Options) -> TestServer {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(Server::start(options)).unwrap();
        TestServer { server, runtime }
    }

    /// A connection whose INFO was not read yet.
    pub fn open(&self) -> Raw {
        let stream = TcpStream::connect(self.server.client_addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream }
    }

    /// A connection that did not send CONNECT.
    pub fn raw(&self) -> Raw {
        let mut raw = self.open();
        raw.info();
        raw
    }

    /// A quiet connection with these CONNECT options.
    pub fn connect(&self, options: &str) -> Raw {
        let mut raw = self.raw();
        raw.connect(options);
        raw
    }

    /// A quiet connection with headers.
    pub fn client(&self) -> Raw {
        self.connect(r#""verbose":false,"pedantic":false,"headers":true"#)
    }
}

pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).unwrap();
    }

    /// Sends what the server may refuse to read to its end.
    pub fn try_send(&mut self, text: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(text.as_ref());
    }

    /// Sends CONNECT with these options and waits until it is done.
    pub fn connect(&mut self, options: &str) {
        self.send(format!("CONNECT {{{options}}}\r\nPING\r\n"));
        self.expect("PONG\r\n");
    }

    /// The next bytes must be exactly these.
    #[track_caller]
    pub fn expect(&mut self, want: impl AsRef<[u8]>) {
        let want = want.as_ref();
        let mut have = vec![0; want.len()];
        let mut filled = 0;
        while filled < want.len() {
            match self.stream.read(&mut have[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => panic!(
                    "{error}: got {:?}, want {:?}",
                    String::from_utf8_lossy(&have[..filled]),
                    String::from_utf8_lossy(want)
                ),
            }
            if !want.starts_with(&have[..filled]) {
                break;
            }
        }
        assert_eq!(
            String::from_utf8_lossy(&have[..filled]),
            String::from_utf8_lossy(want)
        );
    }

    /// The next line without its end.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            match self.stream.read(&mut byte) {
                Ok(1) => line.push(byte[0]),
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&line)),
            }
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).unwrap()
    }

    /// Reads an INFO line.
    pub fn info(&mut self) -> serde_json::Value {
        let line = self.line();
        serde_json::from_str(line.strip_prefix("INFO ").unwrap()).unwrap()
    }

    /// Everything sent so far was handled, and brought nothing that was not read yet.
    #[track_caller]
    pub fn settle(&mut self) {
        self.send("PING\r\n");
        self.expect("PONG\r\n");
    }

    /// [`Raw::settle`] after something that must arrive before.
    #[track_caller]
    pub fn settle_after(&mut self, want: &str) {
        self.send("PING\r\n");
        self.expect(format!("{want}PONG\r\n"));
    }

    /// The server must close the connection without sending anything more.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("not closed: {error}"),
        }
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}
