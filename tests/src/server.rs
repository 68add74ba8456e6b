//! The server under test as a child process.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{scratch_dir, server_binary};
use crate::client::{Client, ConnectOptions};

/// How long a server may take until it says that it is ready.
const READY_WAIT: Duration = Duration::from_secs(60);
/// Log lines shown when a test fails.
const LOG_LINES_SHOWN: usize = 200;

/// What to start; see [`TestServer::builder`].
#[derive(Clone, Debug)]
pub struct ServerBuilder {
    jetstream: bool,
    monitor: bool,
    args: Vec<String>,
    config: Option<String>,
}

impl ServerBuilder {
    /// Starts without `-js`.
    pub fn without_jetstream(mut self) -> Self {
        self.jetstream = false;
        self
    }

    /// Opens the monitoring port too.
    pub fn with_monitor(mut self) -> Self {
        self.monitor = true;
        self
    }

    /// Adds command-line arguments.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_string()));
        self
    }

    /// Writes `text` to a configuration file and starts with it.
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_string());
        self
    }

    /// Starts the server on a fresh directory and waits until it is ready.
    pub fn start(self) -> TestServer {
        let dir = tempfile::Builder::new()
            .prefix("server-")
            .tempdir_in(scratch_dir())
            .expect("directory of the test server");
        std::fs::create_dir_all(dir.path().join("ports")).expect("directory of the ports file");
        if let Some(text) = &self.config {
            std::fs::write(dir.path().join("server.conf"), text).expect("configuration file");
        }
        let mut server = TestServer {
            builder: self,
            dir,
            child: None,
            port: ReservedPort::new(),
            addr: None,
            monitor_addr: None,
            log: Arc::default(),
        };
        server.spawn();
        server
    }
}

/// Lines the server wrote to standard error, over all its lives.
#[derive(Default)]
struct Log {
    lines: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    /// Number of the current life.
    life: u32,
    /// Index of the first line of the current life.
    life_start: usize,
    /// The current life has closed its standard error.
    closed: bool,
}

/// A running server, killed and removed with its directory when dropped.
pub struct TestServer {
    builder: ServerBuilder,
    dir: TempDir,
    child: Option<Child>,
    port: ReservedPort,
    addr: Option<SocketAddr>,
    monitor_addr: Option<SocketAddr>,
    log: Arc<Log>,
}

impl TestServer {
    /// Starts a server with JetStream on a fresh directory.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server that is not started yet.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            jetstream: true,
            monitor: false,
            args: Vec::new(),
            config: None,
        }
    }

    /// Address of the client port. Stays the same over restarts.
    pub fn addr(&self) -> SocketAddr {
        self.addr.expect("the server was started")
    }

    /// Address of the monitoring port.
    pub fn monitor_addr(&self) -> SocketAddr {
        self.monitor_addr
            .expect("the server was started with a monitoring port")
    }

    /// `nats://` URL of the client port.
    pub fn url(&self) -> String {
        format!("nats://{}", self.addr())
    }

    /// Process id of the running server.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Directory given to `-sd`.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A new connection with default options.
    pub fn connect(&self) -> Client {
        Client::connect(self.addr(), &ConnectOptions::default()).expect("client connects")
    }

    /// Kills the process without warning (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server can be killed");
            child
                .wait()
                .expect("the server was started by this process");
        }
    }

    /// Kills the process without warning and starts it again on the same directory and port.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Asks the process to stop, waits for its end, and starts it again.
    pub fn stop_and_restart(&mut self) {
        self.stop();
        self.spawn();
    }

    /// Asks the process to stop (SIGINT) and waits for its end.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // The standard library can only kill; the shell's own command sends the gentle signal.
        let sent = Command::new("kill")
            .arg("-INT")
            .arg(child.id().to_string())
            .status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "the stop signal can be sent"
        );
        let deadline = Instant::now() + READY_WAIT;
        while child.try_wait().expect("state of the server").is_none() {
            if Instant::now() > deadline {
                child.kill().expect("the server can be killed");
                child
                    .wait()
                    .expect("the server was started by this process");
                panic!("the server did not stop within {READY_WAIT:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the process again after [`Self::kill`] or [`Self::stop`].
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the server still runs");
        self.spawn();
    }

    /// Everything logged by the current process so far.
    pub fn log_lines(&self) -> Vec<String> {
        let state = self.log.lines.lock().expect("log lock");
        state.lines[state.life_start..].to_vec()
    }

    fn spawn(&mut self) {
        let ports_dir = self.dir.path().join("ports");
        for entry in std::fs::read_dir(&ports_dir)
            .expect("ports directory")
            .flatten()
        {
            std::fs::remove_file(entry.path()).expect("old ports file can be removed");
        }
        let mut command = Command::new(server_binary());
        command.args(["-a", "127.0.0.1", "-p", &self.port.number.to_string()]);
        command.arg("--ports_file_dir").arg(&ports_dir);
        if self.builder.jetstream {
            command.arg("-js").arg("-sd").arg(self.store_dir());
        }
        if self.builder.monitor {
            command.args(["-m", "-1"]);
        }
        if self.builder.config.is_some() {
            command.arg("-c").arg(self.dir.path().join("server.conf"));
        }
        command.args(&self.builder.args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|err| panic!("{} cannot be started: {err}", server_binary().display()));
        let stderr = child.stderr.take().expect("standard error is piped");
        let life = {
            let mut state = self.log.lines.lock().expect("log lock");
            state.life += 1;
            state.life_start = state.lines.len();
            state.closed = false;
            state.life
        };
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.lines.lock().expect("log lock").lines.push(line);
                log.changed.notify_all();
            }
            let mut state = log.lines.lock().expect("log lock");
            // The reader of an earlier life may end after the next life began.
            if state.life == life {
                state.closed = true;
                log.changed.notify_all();
            }
        });
        self.child = Some(child);
        self.wait_ready();
        let ports = wait_ports_file(&ports_dir);
        self.addr = Some(first_address(&ports, "nats"));
        if self.builder.monitor {
            self.monitor_addr = Some(first_address(&ports, "monitoring"));
        }
    }

    fn wait_ready(&self) {
        let deadline = Instant::now() + READY_WAIT;
        let mut state = self.log.lines.lock().expect("log lock");
        loop {
            let life = &state.lines[state.life_start..];
            if life.iter().any(|line| line.contains("Server is ready")) {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                let text = life.join("\n");
                drop(state);
                panic!("the server did not become ready; its log:\n{text}");
            }
            state = self
                .log
                .changed
                .wait_timeout(state, left)
                .expect("log lock")
                .0;
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Errors here would hide the reason of a failing test.
            let _ = child.kill();
            let _ = child.wait();
        }
        if (std::thread::panicking() || std::env::var_os("RIVERLOG_TEST_LOG").is_some())
            && let Ok(state) = self.log.lines.lock()
        {
            let from = state.lines.len().saturating_sub(LOG_LINES_SHOWN);
            println!("--- server log\n{}\n---", state.lines[from..].join("\n"));
        }
    }
}

/// A TCP port no other test takes, also while the server that uses it is down.
///
/// A port of the system's choice could become somebody else's between a kill and the restart. The
/// number comes from below the usual range of such ports, and a UDP socket of the same number, which
/// the system takes back when this process ends, tells the other tests that it is taken.
struct ReservedPort {
    number: u16,
    _reservation: UdpSocket,
}

impl ReservedPort {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;

    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Neighbouring process ids start far apart.
        let start = std::process::id().wrapping_mul(7919);
        for _ in 0..Self::COUNT {
            let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % Self::COUNT;
            let number = u16::try_from(Self::FIRST + offset).expect("port below 65536");
            let Ok(reservation) = UdpSocket::bind(("127.0.0.1", number)) else {
                continue;
            };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self {
                    number,
                    _reservation: reservation,
                };
            }
        }
        panic!("no free port");
    }
}

/// Waits for the complete ports file in `dir`.
fn wait_ports_file(dir: &Path) -> Value {
    let deadline = Instant::now() + READY_WAIT;
    loop {
        let parsed = std::fs::read_dir(dir)
            .expect("ports directory")
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "ports"))
            .filter_map(|entry| File::open(entry.path()).ok())
            .find_map(|file| serde_json::from_reader::<_, Value>(file).ok());
        if let Some(ports) = parsed {
            return ports;
        }
        assert!(
            Instant::now() < deadline,
            "no ports file in {}",
            dir.display()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// First address of one kind in a ports file: `{"nats":["nats://127.0.0.1:4222"]}`.
fn first_address(ports: &Value, kind: &str) -> SocketAddr {
    let url = ports[kind][0]
        .as_str()
        .unwrap_or_else(|| panic!("no {kind} address in the ports file {ports}"));
    let host_port = url.split_once("://").map_or(url, |(_, rest)| rest);
    host_port
        .trim_end_matches('/')
        .parse()
        .expect("address in the ports file")
}
