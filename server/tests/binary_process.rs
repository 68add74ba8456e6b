//! The running process: start lines, files, signals, reload, logs, monitoring (CLI-006, CLI-008 ..
//! CLI-010, CONF-006, CONF-021, MON-002, MON-013).

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use support::{BINARY, Server, folder, run};

fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn start_and_stop_with_both_stop_signals() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = folder();
        let mut server = Server::start(folder.path(), &["-P", "server.pid", "-n", "n1"]);
        let pid_file = folder.path().join("server.pid");
        assert_eq!(
            std::fs::read_to_string(&pid_file).unwrap(),
            server.pid().to_string()
        );
        let address = server.client_address();
        let listening = format!("Listening for client connections on {address}");
        assert!(
            server.log[server.log.len() - 2].ends_with(&listening),
            "{:?}",
            server.log
        );
        assert!(
            server
                .log
                .iter()
                .any(|line| line.contains("[INF]   Name:     n1"))
        );
        assert!(
            server
                .log
                .iter()
                .any(|line| line.contains("[INF]   ID:       N"))
        );
        let head = format!("[{}] 20", server.pid());
        assert!(
            server.log.iter().all(|line| line.starts_with(&head)),
            "{:?}",
            server.log
        );
        assert!(server.connect("").contains("\"server_name\":\"n1\""));

        let ports_file = server.ports_file();
        assert!(ports_file.exists());
        assert_eq!(server.stop(signal), Some(0), "{:?}", server.log);
        assert!(!ports_file.exists() && !pid_file.exists());
        assert!(
            server
                .log
                .last()
                .unwrap()
                .ends_with("[INF] Server Exiting..")
        );
        assert!(TcpStream::connect(address).is_err());
    }
}

#[test]
fn the_name_of_the_program_names_the_ports_file() {
    let folder = folder();
    let link = folder.path().join("nats-server");
    std::os::unix::fs::symlink(BINARY, &link).unwrap();
    let mut server = Server::spawn(&link, folder.path(), &[]);
    server.wait_for_line("Server is ready");
    assert!(
        folder
            .path()
            .join(format!("nats-server_{}.ports", server.pid()))
            .exists()
    );
    assert_eq!(server.stop(Signal::INT), Some(0));
}

#[test]
fn the_command_line_wins_over_the_file() {
    let folder = folder();
    let path = write(
        folder.path(),
        "a.conf",
        "port: 1\nhost: 192.0.2.1\nserver_name: file\n",
    );
    // `Server::spawn` passes `-a 127.0.0.1 -p -1`.
    let mut server = Server::start(folder.path(), &["-c", &path]);
    assert!(server.connect("").contains("\"server_name\":\"file\""));
    assert!(
        server.log.iter().any(|line| line.contains(&path)),
        "{:?}",
        server.log
    );
    assert_eq!(server.stop(Signal::TERM), Some(0));
}

#[test]
fn the_log_file_takes_the_lines_and_is_opened_anew_on_request() {
    let folder = folder();
    let mut server = Server::spawn(BINARY.as_ref(), folder.path(), &["-l", "x.log", "-T=false"]);
    let log = folder.path().join("x.log");
    let deadline = std::time::Instant::now() + support::WAIT;
    while !std::fs::read_to_string(&log)
        .unwrap_or_default()
        .contains("Server is ready")
    {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let moved = folder.path().join("x.log.1");
    std::fs::rename(&log, &moved).unwrap();
    server.signal(Signal::USR1);
    while !std::fs::read_to_string(&log)
        .unwrap_or_default()
        .contains("File log re-opened")
    {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(server.stop(Signal::INT), Some(0));
    assert_eq!(
        server.log,
        Vec::<String>::new(),
        "nothing on standard error"
    );
    let first = std::fs::read_to_string(&moved).unwrap();
    let pid = server.pid();
    assert!(
        first.starts_with(&format!("[{pid}] [INF] Starting riverlog\n")),
        "{first}"
    );
    let second = std::fs::read_to_string(&log).unwrap();
    assert!(
        second.ends_with(&format!("[{pid}] [INF] Server Exiting..\n")),
        "{second}"
    );
}

#[test]
fn reload_applies_what_it_can_and_names_the_rest() {
    let folder = folder();
    let path = write(folder.path(), "a.conf", "authorization { token: one }\n");
    let mut server = Server::start(folder.path(), &["-c", &path]);
    let connect =
        |server: &Server, token: &str| server.connect(&format!(",\"auth_token\":\"{token}\""));
    assert!(connect(&server, "one").ends_with("PONG\r\n"));
    assert!(connect(&server, "two").contains("-ERR 'Authorization Violation'"));

    write(
        folder.path(),
        "a.conf",
        "authorization { token: two }\ndebug: true\nmax_payload: 1KB\n",
    );
    server.signal(Signal::HUP);
    server.wait_for_line("Not reloaded, a change of limits needs a restart");
    server.wait_for_line("Reloaded server configuration");
    assert!(
        server
            .log
            .iter()
            .any(|line| line.contains("Reloaded: authorization"))
    );
    assert!(connect(&server, "two").ends_with("PONG\r\n"));
    assert!(connect(&server, "one").contains("-ERR 'Authorization Violation'"));

    write(
        folder.path(),
        "a.conf",
        "authorization { token: three }\nbogus: 1\n",
    );
    server.signal(Signal::HUP);
    let line = server.wait_for_line("Configuration not reloaded");
    assert!(
        line.contains(&format!("{path}:2:1: unknown field \"bogus\"")),
        "{line}"
    );
    assert!(connect(&server, "two").ends_with("PONG\r\n"));
    assert_eq!(server.stop(Signal::INT), Some(0));
}

#[test]
fn credentials_of_the_command_line() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &["--user", "a", "--pass", "b"]);
    assert!(
        server
            .connect("")
            .contains("-ERR 'Authorization Violation'")
    );
    assert!(
        server
            .connect(",\"user\":\"a\",\"pass\":\"b\"")
            .ends_with("PONG\r\n")
    );
    assert_eq!(server.stop(Signal::INT), Some(0));
}

#[test]
fn monitoring_shows_the_server() {
    let folder = folder();
    let path = write(
        folder.path(),
        "a.conf",
        "http_base_path: /m\nserver_tags: [t]\n",
    );
    let mut server = Server::start(folder.path(), &["-m", "-1", "-n", "n1", "-c", &path]);
    let (status, body) = server.get("/m/healthz");
    assert_eq!(
        (status.as_str(), body.as_str()),
        ("200", "{\"status\":\"ok\"}")
    );
    let _client = TcpStream::connect(server.client_address()).unwrap();
    assert!(server.connect("").ends_with("PONG\r\n"));
    let varz: Value = serde_json::from_str(&server.get("/m/varz").1).unwrap();
    assert_eq!(varz["server_name"], "n1");
    assert_eq!(varz["port"], server.client_address().port());
    assert_eq!(varz["http_port"], server.monitoring_address().port());
    assert!(varz["server_id"].as_str().unwrap().starts_with('N'));
    assert_eq!(varz["tags"][0], "t");
    assert!(varz["total_connections"].as_u64().unwrap() >= 2, "{varz}");
    assert!(
        varz["config_digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    let connz: Value = serde_json::from_str(&server.get("/m/connz?state=any").1).unwrap();
    assert!(connz["num_connections"].as_u64().unwrap() >= 1, "{connz}");
    assert_eq!(server.get("/varz").0, "404");
    assert_eq!(server.stop(Signal::TERM), Some(0));
}

#[test]
fn signals_by_command() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &["-P", "server.pid"]);
    let request = format!("reload={}", folder.path().join("server.pid").display());
    assert!(run(&["--signal", &request]).status.success());
    server.wait_for_line("Reloaded server configuration");
    let request = format!("quit={}", server.pid());
    assert!(run(&["-sl", &request]).status.success());
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn lame_duck_mode_without_clients_ends_the_server() {
    let folder = folder();
    let mut server = Server::start(folder.path(), &[]);
    assert_eq!(server.stop(Signal::USR2), Some(0), "{:?}", server.log);
    assert!(
        server
            .log
            .iter()
            .any(|line| line.contains("Entering lame duck mode"))
    );
}

/// Waits for a start that fails and returns its last line.
fn failed_start(folder: &Path, arguments: &[&str]) -> String {
    let mut server = Server::spawn(BINARY.as_ref(), folder, arguments);
    assert_eq!(server.wait().code(), Some(1), "{:?}", server.log);
    let files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".ports") || name.contains(".pid"))
        .collect();
    assert_eq!(files, Vec::<String>::new());
    server.log.last().unwrap().clone()
}

#[test]
fn a_start_that_fails_says_why_in_one_line() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (flag, purpose) in [("-p", "client connections"), ("-m", "monitoring")] {
        let line = failed_start(folder.path(), &[flag, &port]);
        let expected = format!("[FTL] cannot listen for {purpose} on 127.0.0.1:{port}: ");
        assert!(
            line.contains(&expected) && line.contains("in use"),
            "{line}"
        );
    }
    let line = failed_start(folder.path(), &["-P", "no/such/server.pid"]);
    assert!(
        line.contains("[FTL] cannot write pid file no/such/server.pid: "),
        "{line}"
    );
    let line = failed_start(folder.path(), &["-l", "no/such/x.log"]);
    assert!(
        line.starts_with("riverlog: cannot open log file no/such/x.log: "),
        "{line}"
    );
    let file = write(folder.path(), "file", "x");
    let line = failed_start(folder.path(), &["-js", "-sd", &file]);
    assert!(
        line.contains(&format!("[FTL] cannot use data directory {file}: ")),
        "{line}"
    );
}

#[test]
fn the_protocol_trace_shows_everything_but_secrets() {
    let folder = folder();
    let arguments = ["-DV", "--auth", "s3cret", "--max_traced_msg_len", "4"];
    let mut server = Server::start(folder.path(), &arguments);
    let mut client = TcpStream::connect(server.client_address()).unwrap();
    let script = "CONNECT {\"auth_token\":\"s3cret\",\"verbose\":false,\"name\":\"n\"}\r\n\
                  SUB foo q 1\r\nPUB foo 6\r\nab\r\ncd\r\nPING\r\n";
    client.write_all(script.as_bytes()).unwrap();
    server.wait_for_line("->> [PONG]");
    drop(client);
    server.wait_for_line("[DBG] 127.0.0.1:");
    server.connect(",\"auth_token\":\"wr0ng\"");
    let refused = server.wait_for_line("authentication error");
    assert!(refused.contains("[ERR] 127.0.0.1:"), "{refused}");
    assert_eq!(server.stop(Signal::INT), Some(0));
    let log = server.log.join("\n");
    for part in [
        "- Client connection created",
        "->> [INFO {",
        "<<- [CONNECT {\"auth_token\":\"[REDACTED]\"",
        "- cid:1 - \"v::n\" - <<- [SUB foo q 1]",
        "<<- [PUB foo 6]",
        "<<- MSG_PAYLOAD: [\"ab\\r\\n...\"]",
        "->> [MSG foo 1 6]",
        "->> MSG_PAYLOAD: [\"ab\\r\\n...\"]",
        "<<- [PING]",
        "- Client connection closed: ",
    ] {
        assert!(log.contains(part), "{part}\n{log}");
    }
    assert!(!log.contains("s3cret") && !log.contains("wr0ng"), "{log}");
}

#[test]
fn lame_duck_mode_tells_clients_before_it_closes_them() {
    let folder = folder();
    let path = write(folder.path(), "a.conf", "lame_duck_grace_period: \"0s\"\n");
    let mut server = Server::start(folder.path(), &["-c", &path]);
    let mut client = TcpStream::connect(server.client_address()).unwrap();
    client.set_read_timeout(Some(support::WAIT)).unwrap();
    let script = b"CONNECT {\"verbose\":false,\"protocol\":1}\r\nPING\r\n";
    client.write_all(script).unwrap();
    let mut lines = BufReader::new(client);
    let mut text = String::new();
    while !text.contains("PONG") {
        assert!(lines.read_line(&mut text).unwrap() > 0, "{text}");
    }
    server.signal(Signal::USR2);
    text.clear();
    lines.read_to_string(&mut text).unwrap();
    assert!(text.contains("\"ldm\":true"), "{text}");
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log);
}

#[test]
fn a_second_signal_does_not_wait_for_slow_clients() {
    const MESSAGE_BYTES: usize = 1 << 20;
    const MESSAGES: usize = 40;
    let folder = folder();
    let mut server = Server::start(folder.path(), &[]);
    // More than the socket buffers take, and less than makes it a slow consumer.
    let mut slow = TcpStream::connect(server.client_address()).unwrap();
    slow.write_all(b"CONNECT {\"verbose\":false}\r\nSUB foo 1\r\nPING\r\n")
        .unwrap();
    let mut answer = [0; 4096];
    let mut text = String::new();
    while !text.contains("PONG") {
        let length = slow.read(&mut answer).unwrap();
        text.push_str(std::str::from_utf8(&answer[..length]).unwrap());
    }
    let mut publisher = TcpStream::connect(server.client_address()).unwrap();
    publisher
        .write_all(b"CONNECT {\"verbose\":false}\r\n")
        .unwrap();
    let message = format!(
        "PUB foo {MESSAGE_BYTES}\r\n{}\r\n",
        "x".repeat(MESSAGE_BYTES)
    );
    for _ in 0..MESSAGES {
        publisher.write_all(message.as_bytes()).unwrap();
    }
    publisher.write_all(b"PING\r\n").unwrap();
    let mut lines = BufReader::new(publisher);
    let mut text = String::new();
    while !text.contains("PONG") {
        assert!(lines.read_line(&mut text).unwrap() > 0, "{text}");
    }
    server.signal(Signal::TERM);
    server.wait_for_line("Initiating Shutdown...");
    assert_eq!(server.stop(Signal::TERM), Some(1), "{:?}", server.log);
    assert!(
        server
            .log
            .last()
            .unwrap()
            .contains("again, exiting at once"),
        "{:?}",
        server.log
    );
    drop(slow);
}
