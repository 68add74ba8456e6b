//! A server that takes part: how to start it, and one run of it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{BenchError, BenchResult, Doing};

const START_MAX: Duration = Duration::from_secs(60);

/// A server to compare, by command line. It has to know the flags of nats-server.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Name in the report.
    pub name: String,
    /// Program and leading arguments, separated by spaces.
    pub command: String,
    /// Text of a configuration file, if it needs one.
    pub config: Option<String>,
}

/// A running server; it is killed when dropped.
pub struct Running {
    child: Child,
    /// Client address.
    pub addr: SocketAddr,
    monitor: Option<SocketAddr>,
    strace_report: Option<PathBuf>,
}

impl Contender {
    /// Starts the server with its store in `dir/store`. With `count_syncs` it runs under strace, which
    /// counts its fsync calls and slows it down.
    pub fn start(&self, dir: &Path, count_syncs: bool) -> BenchResult<Running> {
        let ports_dir = dir.join("ports");
        fs::create_dir_all(&ports_dir).doing("creating the ports directory")?;
        let strace_report = count_syncs.then(|| dir.join("strace.txt"));
        let mut words: Vec<String> = Vec::new();
        if let Some(report) = &strace_report {
            let calls = "trace=fsync,fdatasync,sync_file_range,msync";
            words.extend(["strace", "-f", "-c", "-e", calls, "-o"].map(String::from));
            words.push(report.display().to_string());
        }
        words.extend(self.command.split_ascii_whitespace().map(String::from));
        let Some((program, args)) = words.split_first() else {
            return Err(BenchError::Failed(format!("no command for {}", self.name)));
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .args(["-js", "-a", "127.0.0.1", "-p", "-1", "-m", "-1"]);
        command
            .arg("-sd")
            .arg(dir.join("store"))
            .arg("--ports_file_dir")
            .arg(&ports_dir);
        if let Some(text) = &self.config {
            let path = dir.join("server.conf");
            fs::write(&path, text).doing("writing the configuration")?;
            command.arg("-c").arg(path);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .doing("starting the server")?;
        let ready = wait_ready(&mut child).and_then(|()| read_ports(&ports_dir));
        match ready {
            Ok((addr, monitor)) => Ok(Running {
                child,
                addr,
                monitor,
                strace_report,
            }),
            Err(err) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(BenchError::Failed(format!(
                    "{} did not start: {err}",
                    self.name
                )))
            }
        }
    }
}

impl Running {
    /// Process id of the server (of strace, when it runs under strace).
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Number of syncs the server itself counts, if it has such a counter in `/varz`.
    pub fn own_sync_count(&self) -> Option<u64> {
        let mut stream = TcpStream::connect(self.monitor?).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream
            .write_all(b"GET /varz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let varz: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
        varz["store"]["syncs"].as_u64()
    }

    /// Stops the server gently, so that strace can write its report, and returns the counted syncs.
    pub fn stop_and_count_syncs(mut self) -> BenchResult<Option<u64>> {
        let Some(report) = self.strace_report.clone() else {
            return Ok(None);
        };
        // The server is the only child of strace.
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let server = fs::read_to_string(children).doing("finding the server below strace")?;
        let sent = Command::new("kill")
            .arg("-INT")
            .args(server.split_ascii_whitespace())
            .status();
        sent.doing("stopping the server")?;
        self.child.wait().doing("waiting for strace")?;
        let text = fs::read_to_string(report).doing("reading the report of strace")?;
        Ok(Some(count_calls(&text)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The child may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sum of the calls column of `strace -c`: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn count_calls(report: &str) -> u64 {
    report
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let name = *fields.last()?;
            let is_sync = name.contains("sync") && name != "total";
            if is_sync {
                fields.get(3)?.parse::<u64>().ok()
            } else {
                None
            }
        })
        .sum()
}

fn wait_ready(child: &mut Child) -> BenchResult<()> {
    let Some(stderr) = child.stderr.take() else {
        return Err(BenchError::Failed("no standard error".into()));
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut log = String::new();
        let mut sender = Some(sender);
        // Read to the end: a full pipe would stop the server.
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.is_some() {
                log.push_str(&line);
                log.push('\n');
            }
            if line.contains("Server is ready")
                && let Some(sender) = sender.take()
            {
                let _ = sender.send(Ok(()));
            }
        }
        if let Some(sender) = sender {
            let _ = sender.send(Err(log));
        }
    });
    match receiver.recv_timeout(START_MAX) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(log)) => Err(BenchError::Failed(log)),
        Err(_) => Err(BenchError::Failed("it never said that it is ready".into())),
    }
}

fn read_ports(dir: &Path) -> BenchResult<(SocketAddr, Option<SocketAddr>)> {
    let deadline = Instant::now() + START_MAX;
    while Instant::now() < deadline {
        for entry in fs::read_dir(dir)
            .doing("reading the ports directory")?
            .flatten()
        {
            let Ok(text) = fs::read(entry.path()) else {
                continue;
            };
            let Ok(ports) = serde_json::from_slice::<Value>(&text) else {
                continue;
            };
            if let Some(addr) = address(&ports["nats"][0]) {
                return Ok((addr, address(&ports["monitoring"][0])));
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(BenchError::Failed("no ports file".into()))
}

fn address(url: &Value) -> Option<SocketAddr> {
    url.as_str()?
        .split_once("://")?
        .1
        .trim_end_matches('/')
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::{address, count_calls};
    use serde_json::json;

    #[test]
    fn calls_of_a_strace_report_are_summed() {
        let report = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n \
                      90.00    0.100000        1000       100         2 fdatasync\n \
                      10.00    0.010000        1000        11           fsync\n\
                      100.00    0.110000                   111         2 total\n";
        assert_eq!(count_calls(report), 111);
        assert_eq!(count_calls(""), 0);
    }

    #[test]
    fn addresses_are_taken_from_urls() {
        let expected = "127.0.0.1:4222".parse().ok();
        assert_eq!(address(&json!("nats://127.0.0.1:4222")), expected);
        assert_eq!(address(&json!("http://127.0.0.1:4222/")), expected);
        assert_eq!(address(&json!(null)), None);
    }
}
