//! Starts the real binary for tests.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for anything; only a hanging test reaches it.
pub const WAIT: Duration = Duration::from_secs(60);

pub const BINARY: &str = env!("CARGO_BIN_EXE_riverlog");

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Output {
    run_program(BINARY.as_ref(), arguments)
}

pub fn run_program(program: &Path, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A folder on the disk of the target directory.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A running server, killed when dropped.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    /// Lines of standard error so far.
    pub log: Vec<String>,
    /// Working directory; holds the ports file.
    pub folder: PathBuf,
    program: String,
}

impl Server {
    /// Starts on free ports of the loopback address, without waiting for anything.
    pub fn spawn(program: &Path, folder: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", "."])
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let program = program.file_name().unwrap().to_str().unwrap().to_owned();
        Self {
            child,
            lines,
            log: Vec::new(),
            folder: folder.to_owned(),
            program,
        }
    }

    /// Starts and waits until it is ready.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::spawn(BINARY.as_ref(), folder, arguments);
        server.wait_for_line("Server is ready");
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of standard error that contains `part`.
    pub fn wait_for_line(&mut self, part: &str) -> String {
        let deadline = Instant::now() + WAIT;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {part:?} in time: {:#?}", self.log),
                Err(RecvTimeoutError::Disconnected) => panic!("ended: {:#?}", self.log),
            }
        }
    }

    pub fn ports_file(&self) -> PathBuf {
        self.folder
            .join(format!("{}_{}.ports", self.program, self.pid()))
    }

    fn ports(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.ports_file()).unwrap()).unwrap()
    }

    pub fn client_address(&self) -> SocketAddr {
        let url = self.ports()["nats"][0].as_str().unwrap().to_owned();
        url.strip_prefix("nats://").unwrap().parse().unwrap()
    }

    pub fn monitoring_address(&self) -> SocketAddr {
        let url = self.ports()["monitoring"][0].as_str().unwrap().to_owned();
        url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end of the process and reads the rest of its log.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + WAIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "does not end: {:#?}", self.log);
            std::thread::sleep(Duration::from_millis(10));
        };
        while let Ok(line) = self.lines.recv_timeout(WAIT) {
            self.log.push(line);
        }
        status
    }

    /// The exit code after `signal`.
    pub fn stop(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.wait().code()
    }

    /// Status code and body of a GET on the monitoring port.
    pub fn get(&self, target: &str) -> (String, String) {
        http_get(self.monitoring_address(), target)
    }

    /// The payload of the answer to a request.
    pub fn request(&self, subject: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.client_address()).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        write!(
            stream,
            "CONNECT {{\"verbose\":false}}\r\nSUB inbox 1\r\nPUB {subject} inbox {}\r\n{body}\r\n",
            body.len()
        )
        .unwrap();
        let mut lines = BufReader::new(stream);
        loop {
            let mut line = String::new();
            assert!(
                lines.read_line(&mut line).unwrap() > 0,
                "{subject}: no answer"
            );
            if line.starts_with("MSG inbox ") {
                let size: usize = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
                let mut payload = vec![0; size];
                lines.read_exact(&mut payload).unwrap();
                return String::from_utf8(payload).unwrap();
            }
        }
    }

    /// The exchange of a client that connects with these CONNECT fields and sends a PING.
    pub fn connect(&self, fields: &str) -> String {
        let mut stream = TcpStream::connect(self.client_address()).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        write!(
            stream,
            "CONNECT {{\"verbose\":false,\"protocol\":0{fields}}}\r\nPING\r\n"
        )
        .unwrap();
        let mut lines = BufReader::new(stream);
        let mut text = String::new();
        while lines.read_line(&mut text).unwrap_or(0) > 0 {
            if text.ends_with("PONG\r\n") {
                break;
            }
        }
        text
    }
}

pub fn http_get(address: SocketAddr, target: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].to_owned(), body.to_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
